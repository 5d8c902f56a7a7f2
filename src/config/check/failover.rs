//! `[failover]`: the relations between its times are what keeps two appliances
//! from sending at once (DESIGN "Failover", Lease).

use core::net::SocketAddr;
use std::path::Path;

use crate::base::limits::{HANDSHAKE_PATIENCE, HANDSHAKE_RETRY, OLD_BOOT_INTERVALS};
use crate::base::time::Duration;
use crate::config::check::{blame, track};
use crate::config::checked::{Failover, Hook, Partition, VrrpUse};
use crate::config::file::{FailoverFile, File};
use crate::config::report::{Place, Report};
use crate::config::value::{Argument, Int};

/// How far two machines' clocks may drift apart, in parts per million of the
/// time measured. Crystal oscillators keep to 100 each.
const CLOCK_DRIFT_PPM: u64 = 1000;

pub fn check(file: &File, directory: &Path, report: &mut Report) -> Option<Failover> {
    let failover = file.failover.get()?;
    heartbeat(failover, report);
    lease(failover, report);
    boot_wait(file, failover, report);
    advertisements(failover, report);
    let witness = witness(file, failover, report);
    let millis = |key: Option<&Int<10, 600_000>>| key.map(|key| key.millis());
    let fence = command(failover.fence.all(), millis(failover.fence_timeout_ms.get()), report);
    let notify = command(failover.notify.all(), millis(failover.notify_timeout_ms.get()), report);
    let track = track::check(file, failover, report);
    Some(Failover {
        virtual_router_id: failover.virtual_router_id.get()?.u8(),
        priority: failover.priority.get()?.u8(),
        heartbeat_interval: failover.heartbeat_interval_ms.get()?.millis(),
        lease: failover.lease_ms.get()?.millis(),
        takeover_after: failover.takeover_after_ms.get()?.millis(),
        boot_wait: failover.boot_wait_ms.get()?.millis(),
        partition: *failover.partition.get()?,
        lagging: *failover.lagging.get()?,
        preempt: *failover.preempt.get()?,
        vrrp: *failover.vrrp.get()?,
        vrrp_interval: failover.vrrp_interval_ms.get()?.millis(),
        vrrp_checksum: *failover.vrrp_checksum.get()?,
        witness: witness?,
        state_dir: directory.join(&failover.state_dir.get()?.0),
        maintenance: *failover.maintenance.get()?,
        fence: fence?,
        notify: notify?,
        track: track?,
    })
}

fn heartbeat(failover: &FailoverFile, report: &mut Report) {
    let (Some(heartbeat), Some(lease)) = (failover.heartbeat_interval_ms.get(), failover.lease_ms.get())
    else {
        return;
    };
    let (heartbeat, lease) = (heartbeat.u32(), lease.u32());
    let place = blame(&[&failover.heartbeat_interval_ms.place, &failover.lease_ms.place]);
    if heartbeat >= lease {
        report
            .refuse(place, format!("heartbeat_interval_ms ({heartbeat}) to be less than lease_ms ({lease})"));
    } else if heartbeat * 3 > lease {
        report.warn(
            place,
            format!("fewer than three heartbeats fit into lease_ms ({lease}): a lost one may end it"),
        );
    }
}

fn lease(failover: &FailoverFile, report: &mut Report) {
    let (Some(lease), Some(pause), Some(takeover)) =
        (failover.lease_ms.get(), failover.pause_bound_ms.get(), failover.takeover_after_ms.get())
    else {
        return;
    };
    let (lease, pause, takeover) = (lease.u32(), pause.u32(), takeover.u32());
    let drift_us = u64::from(takeover) * CLOCK_DRIFT_PPM / 1000;
    if (u64::from(lease) + u64::from(pause)) * 1000 + drift_us >= u64::from(takeover) * 1000 {
        let place = blame(&[
            &failover.lease_ms.place,
            &failover.takeover_after_ms.place,
            &failover.pause_bound_ms.place,
        ]);
        report.refuse(
            place,
            format!(
                "lease_ms ({lease}) + pause_bound_ms ({pause}) + clock drift ({drift_us} µs) to be less than \
                 takeover_after_ms ({takeover})"
            ),
        );
    }
}

/// Whoever was just started leads because of silence only if an active that is there would have been heard: the active has
/// a session with it when the old boot's last beat is `OLD_BOOT_INTERVALS` old and a beat of the new boot comes, after a
/// handshake of which one hello is lost, or which the other side had to begin. From then on it waits as a standby does.
/// Without peers there is nobody to wait for.
fn boot_wait(file: &File, failover: &FailoverFile, report: &mut Report) {
    let (Some(wait), Some(takeover), Some(heartbeat)) =
        (failover.boot_wait_ms.get(), failover.takeover_after_ms.get(), failover.heartbeat_interval_ms.get())
    else {
        return;
    };
    if !matches!(file.mirror.optional(), Some(Some(_))) {
        return;
    }
    let (wait, takeover, heartbeat) = (wait.u32(), takeover.u32(), heartbeat.u32());
    let intervals = OLD_BOOT_INTERVALS + 1;
    let handshake_ms = (HANDSHAKE_RETRY * 2 + HANDSHAKE_PATIENCE).micros() / 1000;
    let least = u64::from(takeover) + u64::from(heartbeat) * intervals + handshake_ms;
    if u64::from(wait) < least {
        let place = blame(&[
            &failover.boot_wait_ms.place,
            &failover.takeover_after_ms.place,
            &failover.heartbeat_interval_ms.place,
        ]);
        report.refuse(
            place,
            format!(
                "boot_wait_ms ({wait}) to be at least {least}: takeover_after_ms ({takeover}) + {intervals} x \
                 heartbeat_interval_ms ({heartbeat}) + {handshake_ms} for the handshake"
            ),
        );
    }
}

/// A VRRP message has its interval in hundredths of a second (RFC 9568 section 5.2.7).
fn advertisements(failover: &FailoverFile, report: &mut Report) {
    if failover.vrrp.get() == Some(&VrrpUse::Yield) {
        report.warn(
            &failover.vrrp.place,
            "that nobody else can send on these links: VRRP is not authenticated, and one advertisement of a higher \
             priority takes service away from the whole group"
                .to_owned(),
        );
    }
    let Some(interval) = failover.vrrp_interval_ms.get() else { return };
    if interval.u32() % 10 != 0 {
        report.refuse(&failover.vrrp_interval_ms.place, "a multiple of 10 milliseconds");
    }
}

/// `Some(None)`: there is none. What it grants is not granted to another member for `takeover_after_ms` at least, or the
/// appliance does not take it: so the relation of `lease` holds for it too.
fn witness(file: &File, failover: &FailoverFile, report: &mut Report) -> Option<Option<SocketAddr>> {
    let Some(address) = failover.witness.optional()?.map(|address| address.0) else { return Some(None) };
    let place = &failover.witness.place;
    if address.ip().is_unspecified() || address.ip().is_multicast() {
        report.refuse(place, "the address of one machine");
    } else if address.ip().is_loopback() {
        report.warn(place, "a witness on this machine is lost with it: it belongs on a third one".to_owned());
    }
    if matches!(file.mirror.optional(), Some(None)) {
        report.refuse(place, "a [mirror] table as well: without peers there is nothing to bear witness to");
    }
    if failover.partition.get() == Some(&Partition::Safety) {
        report.refuse(
            place,
            "either a witness or partition = \"safety\": with a witness there is one sender in every partition",
        );
    }
    Some(Some(address))
}

/// `Some(None)`: nothing is run. It may be run as root, so that the path must not depend on where a process happens to be.
fn command(
    words: Option<Vec<(&Place, &Argument)>>,
    timeout: Option<Duration>,
    report: &mut Report,
) -> Option<Option<Hook>> {
    let words = words?;
    let Some(((place, program), arguments)) = words.split_first() else { return Some(None) };
    if !program.0.starts_with('/') {
        report.refuse(place, "the absolute path of a program: no shell is involved");
        return None;
    }
    Some(Some(Hook {
        program: program.0.clone().into(),
        arguments: arguments.iter().map(|(_, argument)| argument.0.clone()).collect(),
        timeout: timeout?,
    }))
}
