//! `virtual_server.mirror.rules` (REQ A8).

use crate::base::limits::{MIRROR_RULE_LIST_MAX, MIRROR_RULES_MAX, PAYLOAD_LOOKED_AT};
use crate::base::time::Duration;
use crate::config::checked::policy::{Pattern, Ports, Rule};
use crate::config::file::{MirrorModeFile, RuleFile, VirtualServerFile};
use crate::config::read::Key;
use crate::config::report::Report;
use crate::config::value::{Int, MirrorKind, PortRange};

/// The rules, if all could be read.
pub fn rules(mirror: &MirrorModeFile) -> Option<Vec<Rule>> {
    mirror.rules.all()?.into_iter().map(|(_, rule)| built(rule)).collect()
}

pub fn check(server: &VirtualServerFile, mirror: &MirrorModeFile, report: &mut Report) {
    let place = &mirror.rules.place;
    let count = mirror.rules.get().map_or(0, Vec::len);
    if count > MIRROR_RULES_MAX {
        report.refuse(place, format!("at most {MIRROR_RULES_MAX} rules, not {count}"));
    }
    if count > 0 && mirror.mode.get() == Some(&MirrorKind::Off) {
        report.refuse(place, "none with mode = \"off\": nothing is mirrored then");
    }
    let of_family =
        |ip: core::net::IpAddr| server.address.get().is_none_or(|at| at.0.is_ipv4() == ip.is_ipv4());
    let mut is_decided = None;
    for (place, rule) in mirror.rules.elements() {
        if let Some(last) = is_decided {
            report.refuse(place, format!("no rule behind the one on line {last}, which is about all flows"));
            return;
        }
        if let (Some(Some(at)), Some(None)) = (rule.payload_at.optional(), rule.payload.optional()) {
            let place = &rule.payload_at.place;
            report.refuse(
                place,
                format!("a payload, too, of which this says the place: {} alone means nothing", at.u32()),
            );
        }
        if let (Some(Some(at)), Some(Some(payload))) = (rule.payload_at.optional(), rule.payload.optional())
            && at.u32() as usize + payload.0.len() > PAYLOAD_LOOKED_AT
        {
            report.refuse(
                &rule.payload_at.place,
                format!("a place from which the payload ends within the first {PAYLOAD_LOOKED_AT} bytes"),
            );
        }
        for (place, count) in [
            (&rule.clients.place, rule.clients.get().map_or(0, Vec::len)),
            (&rule.client_ports.place, rule.client_ports.get().map_or(0, Vec::len)),
            (&rule.server_ports.place, rule.server_ports.get().map_or(0, Vec::len)),
            (&rule.dscp.place, rule.dscp.get().map_or(0, Vec::len)),
        ] {
            if count > MIRROR_RULE_LIST_MAX {
                report.refuse(place, format!("at most {MIRROR_RULE_LIST_MAX} entries, not {count}"));
            }
        }
        for (place, network) in rule.clients.elements() {
            if !of_family(network.0.address) {
                report.refuse(place, "a network of the virtual address's family: clients are of the same");
            }
        }
        if built(rule).is_some_and(|rule| is_about_all(&rule)) {
            is_decided = Some(place.line);
        }
    }
}

fn is_about_all(rule: &Rule) -> bool {
    let anywhere = rule.clients.is_empty() && rule.client_ports.is_empty() && rule.server_ports.is_empty();
    anywhere && rule.dscp == 0 && rule.payload.is_none() && !rule.waits()
}

fn built(rule: &RuleFile) -> Option<Rule> {
    let payload = match rule.payload.optional()? {
        Some(payload) => {
            let at = rule.payload_at.optional()?.map(|at| at.u32() as usize);
            Some(Pattern { bytes: payload.0.clone(), at })
        }
        None => None,
    };
    Some(Rule {
        mirror: *rule.mirror.get()?,
        clients: rule.clients.all()?.into_iter().map(|(_, network)| network.0).collect(),
        client_ports: ports(&rule.client_ports)?,
        server_ports: ports(&rule.server_ports)?,
        dscp: rule.dscp.all()?.into_iter().fold(0, |points, (_, point)| points | 1 << point.u32()),
        payload,
        duration_min: rule.duration_min_ms.optional()?.map_or(Duration::ZERO, |least| least.millis()),
        bytes_min: least(&rule.bytes_min)?,
        packets_min: least(&rule.packets_min)?,
        rate_min_kbit: least(&rule.rate_min_kbps)?,
    })
}

fn ports(ranges: &Key<Vec<Key<PortRange>>>) -> Option<Vec<Ports>> {
    Some(ranges.all()?.into_iter().map(|(_, range)| range.0).collect())
}

/// 0 where nothing is said.
fn least<const MAX: u32>(key: &Key<Int<1, MAX>>) -> Option<u64> {
    Some(key.optional()?.map_or(0, |least| least.u32().into()))
}
