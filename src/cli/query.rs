//! The words that ask a running appliance.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::ids::{ShardId, WorkerId};
use crate::cli::words::{
    FlowMirror, FlowWord, Flows, InOrOut, MaintenanceWish, OnOffAuto, Query, Rebalance, TcpOrUdp,
};
use crate::cli::{Failure, print};
use crate::config::checked::Protocol;
use crate::control::choosing::Wish;
use crate::control::client::{AskError, ask};
use crate::control::maintenance::Maintenance;
use crate::control::paths;
use crate::control::rebalance::{RebalanceReport, Wanted};
use crate::control::reload::ReloadReport;
use crate::control::report::{
    CounterReport, Done, EventReport, FlowFilter, FlowReport, MirrorReport, PoolReport, PortReport,
    StatusReport,
};
use crate::worker::message::Choice;

pub fn status(at: &Query) -> Result<(), Failure> {
    show::<StatusReport>(at, "GET", paths::STATUS)
}

pub fn flows(flows: &Flows) -> Result<(), Failure> {
    let flows = match &flows.word {
        Some(FlowWord::Mirror(wanted)) => return mirror_flow(wanted),
        None => &flows.list,
    };
    let filter = FlowFilter {
        limit: flows.limit,
        virtual_server: flows.virtual_server.clone(),
        client: flows.client,
        server: flows.server,
        unprotected: flows.unprotected,
    };
    show::<FlowReport>(&flows.query, "GET", &format!("{}?{}", paths::FLOWS, filter.to_query()))
}

fn mirror_flow(wanted: &FlowMirror) -> Result<(), Failure> {
    let wish = Wish {
        choice: match wanted.choice {
            OnOffAuto::On => Choice::On,
            OnOffAuto::Off => Choice::Off,
            OnOffAuto::Auto => Choice::Auto,
        },
        protocol: match wanted.protocol {
            TcpOrUdp::Tcp => Protocol::Tcp,
            TcpOrUdp::Udp => Protocol::Udp,
        },
        client: wanted.client,
        to: wanted.to,
    };
    show::<Done>(&wanted.query, "POST", &format!("{}?{}", paths::FLOW_MIRROR, wish.to_query()))
}

pub fn counters(at: &Query) -> Result<(), Failure> {
    show::<CounterReport>(at, "GET", paths::COUNTERS)
}

pub fn mirror(at: &Query) -> Result<(), Failure> {
    show::<MirrorReport>(at, "GET", paths::MIRROR)
}

pub fn events(at: &Query) -> Result<(), Failure> {
    show::<EventReport>(at, "GET", paths::EVENTS)
}

pub fn ports(at: &Query) -> Result<(), Failure> {
    show::<PortReport>(at, "GET", paths::PORTS)
}

pub fn pools(at: &Query) -> Result<(), Failure> {
    show::<PoolReport>(at, "GET", paths::POOLS)
}

pub fn reload(at: &Query) -> Result<(), Failure> {
    show::<ReloadReport>(at, "POST", paths::RELOAD)
}

pub fn rebalance(what: &Rebalance) -> Result<(), Failure> {
    let one = what.shard.zip(what.to).map(|(shard, to)| (ShardId(shard), WorkerId(to)));
    let wanted = Wanted { one, dry_run: what.dry_run };
    show::<RebalanceReport>(&what.query, "POST", &format!("{}?{}", paths::REBALANCE, wanted.to_query()))
}

pub fn switchover(at: &Query) -> Result<(), Failure> {
    show::<Done>(at, "POST", paths::SWITCHOVER)
}

pub fn maintenance(what: &MaintenanceWish) -> Result<(), Failure> {
    let on = match what.state {
        InOrOut::On => true,
        InOrOut::Off => false,
    };
    if what.force && !on {
        return Err(Failure::AskedWrongly("--force goes with `on` alone".to_owned()));
    }
    let wanted = Maintenance { on, force: what.force };
    show::<Done>(&what.query, "POST", &format!("{}?{}", paths::MAINTENANCE, wanted.to_query()))
}

pub fn promote(at: &Query) -> Result<(), Failure> {
    show::<Done>(at, "POST", paths::PROMOTE)
}

fn show<T: DeserializeOwned + Serialize + Display>(
    at: &Query,
    method: &str,
    target: &str,
) -> Result<(), Failure> {
    let report: T = ask(&at.socket, method, target).map_err(|error| match error {
        AskError::Refused(400..=405, why) => Failure::AskedWrongly(why),
        error => Failure::Failed(error.to_string()),
    })?;
    if at.json {
        let json =
            serde_json::to_string_pretty(&report).map_err(|error| Failure::Failed(error.to_string()))?;
        print(&format!("{json}\n"))
    } else {
        print(&report.to_string())
    }
}
