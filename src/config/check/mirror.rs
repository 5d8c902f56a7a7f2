//! `[mirror]`.

use std::path::Path;

use crate::base::ids::{NodeId, PortId, VirtualServerId, id_of_name};
use crate::base::limits::{MEMBERS_MAX, TRACKED_MAX};
use crate::base::time::Duration;
use crate::config::check::addresses::{Addresses, Use};
use crate::config::check::{When, blame};
use crate::config::checked::{Checked, Checkpoints, Mirror, Peer, Pinning, Sealing};
use crate::config::file::{File, MirrorFile, VirtualServerFile};
use crate::config::read::Key;
use crate::config::report::Report;
use crate::config::value::MirrorKind;

/// `Some(None)` without a `[mirror]` table.
pub fn check(
    file: &File,
    directory: &Path,
    when: When,
    addresses: &mut Addresses,
    report: &mut Report,
) -> Option<Option<Mirror>> {
    let Some(mirror) = file.mirror.optional()? else { return Some(None) };
    let port = port(file, mirror, report);
    peers(file, mirror, port, addresses, report);
    hold_timeout(file, mirror, report);
    let pinning = pinning(mirror, directory, report);
    let only = only(file, mirror, when, report);
    let maintenance = maintenance(mirror, report);
    let peers =
        mirror.peers.all()?.into_iter().map(|(_, peer)| {
            Some(Peer { node: NodeId(peer.node.get()?.u16()), address: peer.address.get()?.0 })
        });
    Some(Some(Mirror {
        port: port?,
        udp_port: mirror.udp_port.get()?.u16(),
        peers: peers.collect::<Option<_>>()?,
        key_file: directory.join(&mirror.key_file.get()?.0),
        pinning: pinning?,
        hold_timeout: mirror.hold_timeout_ms.get()?.millis(),
        walk_rate: mirror.walk_rate.get()?.u32(),
        only: only?,
        maintenance_every: maintenance?,
    }))
}

/// REQ B6.
fn maintenance(mirror: &MirrorFile, report: &mut Report) -> Option<Option<Duration>> {
    let every = &mirror.checkpoint_every_ms;
    match mirror.checkpoints.get()? {
        Checkpoints::Acknowledged => {
            if every.is_given() {
                report.warn(&every.place, "has no effect without checkpoints = \"periodic\"");
            }
            Some(None)
        }
        Checkpoints::Periodic => Some(Some(every.get()?.millis())),
    }
}

fn port(file: &File, mirror: &MirrorFile, report: &mut Report) -> Option<PortId> {
    let name = mirror.port.get()?;
    let ports = file.port.get()?;
    let names: Vec<&str> = ports.iter().filter_map(|port| Some(port.get()?.name.get()?.0.as_str())).collect();
    let named = |port: &crate::config::file::PortFile| port.name.get().is_some_and(|known| known == name);
    let found = ports.iter().position(|port| port.get().is_some_and(named));
    if found.is_none() && names.len() == ports.len() {
        report.refuse(&mirror.port.place, format!("the name of a [[port]]: {}", names.join(", ")));
    }
    found.map(|index| PortId(index as u16))
}

fn peers(
    file: &File,
    mirror: &MirrorFile,
    port: Option<PortId>,
    addresses: &mut Addresses,
    report: &mut Report,
) {
    if let Some(peers) = mirror.peers.get() {
        if !(1..MEMBERS_MAX).contains(&peers.len()) {
            report.refuse(&mirror.peers.place, format!("1 to {} peers", MEMBERS_MAX - 1));
        }
    }
    let own = file.appliance.get().and_then(|appliance| appliance.node.get());
    let mut nodes = Vec::new();
    for (_, peer) in mirror.peers.elements() {
        if let Some(node) = peer.node.get() {
            if own == Some(node) {
                report.refuse(&peer.node.place, "another member's node: this is this appliance's own");
            } else if nodes.contains(node) {
                report.refuse(&peer.node.place, "each node once");
            }
            nodes.push(*node);
        }
        let (Some(address), Some(port)) = (peer.address.get(), port) else { continue };
        let on_network = addresses.networks.iter().any(|(net, of)| *of == port && net.contains(address.0));
        if !on_network && !addresses.incomplete {
            report.refuse(&peer.address.place, "an address on a network of the mirror port");
            continue;
        }
        addresses.claim(address.0, Use::Peer, &peer.address.place, report);
    }
}

/// Members' own keys are pinned at all peers, or at none.
fn pinning(mirror: &MirrorFile, directory: &Path, report: &mut Report) -> Option<Option<Pinning>> {
    let Some(own) = mirror.node_key_file.optional()? else {
        for (_, peer) in mirror.peers.elements().filter(|(_, peer)| peer.public_key.is_given()) {
            report.refuse(&peer.public_key.place, "no public key without mirror.node_key_file");
        }
        if mirror.sealing.get().is_some_and(|sealing| *sealing != Sealing::Enforce) {
            let expected =
                "\"enforce\" without mirror.node_key_file: the others are on the way to members' own keys";
            report.refuse(&mirror.sealing.place, expected);
        }
        return Some(None);
    };
    let mut peers = Vec::new();
    for (place, peer) in mirror.peers.elements() {
        match peer.public_key.optional()? {
            Some(public) if peers.iter().any(|(_, known)| *known == public.0) => {
                report.refuse(
                    &peer.public_key.place,
                    "another key than that of a peer above: each node has its own",
                );
            }
            Some(public) => peers.push((NodeId(peer.node.get()?.u16()), public.0)),
            None => report.refuse(
                place,
                "public_key in it, as mirror.node_key_file is given: `baton keys public` prints it",
            ),
        }
    }
    Some(Some(Pinning { sealing: *mirror.sealing.get()?, node_key_file: directory.join(&own.0), peers }))
}

/// REQ B8. At the start the names are of virtual servers of this file, so that a slip of the pen is found.
fn only(file: &File, mirror: &MirrorFile, when: When, report: &mut Report) -> Option<Vec<VirtualServerId>> {
    let names = mirror.only.all()?;
    if names.len() > TRACKED_MAX {
        report.refuse(&mirror.only.place, format!("at most {TRACKED_MAX} virtual servers"));
        return None;
    }
    let servers = file.virtual_server.get()?;
    let known: Option<Vec<&str>> =
        servers.iter().map(|server| Some(server.get()?.name.get()?.0.as_str())).collect();
    let mut ids = Vec::new();
    for (place, name) in names {
        let id = VirtualServerId(id_of_name(&name.0));
        if let Some(known) = known.as_ref().filter(|known| !known.contains(&name.0.as_str())) {
            if when == When::Start {
                report.refuse(place, format!("the name of a [[virtual_server]]: {}", known.join(", ")));
            }
            continue;
        }
        if ids.contains(&id) {
            report.refuse(place, "each virtual server once");
        }
        let is_off = |server: &&VirtualServerFile| {
            let named = server.name.get().is_some_and(|known| known.0 == name.0);
            named && server.mirror.get().and_then(|mirror| mirror.mode.get()) == Some(&MirrorKind::Off)
        };
        if servers.iter().filter_map(Key::get).any(|server| is_off(&server)) {
            report.warn(place, "has no effect: this virtual server's mirror.mode is \"off\"");
        }
        ids.push(id);
    }
    if !ids.is_empty() && ids.len() == servers.len() {
        let message =
            "names every virtual server: without it this appliance could be in sync, and lead like any other";
        report.warn(&mirror.only.place, message);
    }
    Some(ids)
}

/// Warns of names in `only` that no virtual server has any more, in the words of who knows whose services they are.
pub(crate) fn warn_of_gone(file: &File, checked: &Checked, words: fn(&str) -> String, report: &mut Report) {
    let Some(mirror) = file.mirror.get() else { return };
    for (place, name) in mirror.only.elements() {
        if !checked.virtual_servers.iter().any(|server| server.name == name.0 && !server.retired) {
            report.warn(place, words(&name.0));
        }
    }
}

/// DESIGN "Mirroring", Hold: the bound is longer than failure detection.
fn hold_timeout(file: &File, mirror: &MirrorFile, report: &mut Report) {
    let takeover = file.failover.get().map(|failover| &failover.takeover_after_ms);
    let (Some(hold), Some(takeover)) = (mirror.hold_timeout_ms.get(), takeover) else { return };
    let Some(takeover_ms) = takeover.get() else { return };
    if hold.u32() <= takeover_ms.u32() {
        report.refuse(
            blame(&[&mirror.hold_timeout_ms.place, &takeover.place]),
            format!(
                "mirror.hold_timeout_ms ({}) to be more than failover.takeover_after_ms ({})",
                hold.u32(),
                takeover_ms.u32()
            ),
        );
    }
}
