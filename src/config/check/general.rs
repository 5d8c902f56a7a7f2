//! `[appliance]`, `[eal]`, `[lcores]`, `[flows]`, `[control]`.

use std::path::Path;

use crate::base::ids::{GroupId, NodeId};
use crate::base::limits::WORKERS_MAX;
use crate::config::check::blame;
use crate::config::checked::{Appliance, Control, Eal, Flows, Idle, LcoreRole, Lcores, WorkerLcore};
use crate::config::file::File;
use crate::config::read::Key;
use crate::config::report::{Place, Report};

/// Memory that one packet buffer takes: 2,048 bytes of data, 128 of headroom, and DPDK's headers.
const BUFFER_BYTES: u64 = 2432;

/// A unix socket's path must be shorter, in bytes (`unix(7)`, `sun_path`).
const SOCKET_PATH_MAX: usize = 108;

/// Arguments of the EAL that follow from other keys.
const EAL_OWN_ARGUMENTS: &[&str] =
    &["--file-prefix", "-m", "--no-huge", "-l", "-c", "--lcores", "--main-lcore", "--vdev", "-a", "--allow"];

pub fn appliance(file: &File) -> Option<Appliance> {
    let appliance = file.appliance.get()?;
    Some(Appliance {
        name: appliance.name.get()?.0.clone(),
        node: NodeId(appliance.node.get()?.u16()),
        group: GroupId(0),
    })
}

pub fn eal(file: &File, report: &mut Report) -> Option<Eal> {
    let eal = file.eal.get()?;
    if let (Some(memory), Some(buffers)) = (eal.memory_mb.get(), eal.buffers.get()) {
        // The rest is for rings and the ports' own memory.
        let buffers_max = u64::from(memory.u32()) * (1 << 20) / 4 * 3 / BUFFER_BYTES;
        if u64::from(buffers.u32()) > buffers_max {
            let place = blame(&[&eal.buffers.place, &eal.memory_mb.place]);
            report.refuse(
                place,
                format!(
                    "buffers ({}) to be at most {buffers_max} with memory_mb = {}",
                    buffers.u32(),
                    memory.u32()
                ),
            );
        }
    }
    for (place, argument) in eal.args.elements() {
        let name = argument.0.split('=').next().unwrap_or("");
        if EAL_OWN_ARGUMENTS.contains(&name) {
            report.refuse(place, format!("no {name}: it follows from other keys of this file"));
        }
    }
    Some(Eal {
        file_prefix: eal.file_prefix.get()?.0.clone(),
        memory_mb: eal.memory_mb.get()?.u32(),
        hugepages: *eal.hugepages.get()?,
        buffers: eal.buffers.get()?.u32(),
        args: eal.args.all()?.into_iter().map(|(_, argument)| argument.0.clone()).collect(),
    })
}

pub fn lcores(file: &File, report: &mut Report) -> Option<Lcores> {
    let lcores = file.lcores.get()?;
    if let Some(workers) = lcores.worker.get() {
        if workers.is_empty() || workers.len() > WORKERS_MAX {
            report.refuse(&lcores.worker.place, format!("1 to {WORKERS_MAX} workers"));
        }
    }
    for (_, worker) in lcores.worker.elements() {
        roles(file, &worker.roles, report);
        if let (Some(master), Some(cpu), Some(Idle::Poll)) =
            (lcores.master_cpu.get(), worker.cpu.get(), lcores.idle.get())
        {
            if master == cpu {
                report.warn(
                    &worker.cpu.place,
                    "a worker that spins (idle = \"poll\") shares this CPU with the master core and the \
                     liveness thread; they may be late",
                );
            }
        }
    }
    let workers = lcores.worker.all()?.into_iter().map(|(_, worker)| {
        Some(WorkerLcore {
            cpu: worker.cpu.get()?.u32(),
            roles: worker.roles.all()?.into_iter().map(|(_, role)| *role).collect(),
            zone: worker.zone.optional()?.map(|zone| zone.0.clone()),
        })
    });
    let mut workers: Vec<WorkerLcore> = workers.collect::<Option<_>>()?;
    for role in [LcoreRole::Distributor, LcoreRole::TrafficManager] {
        if !workers.is_empty() && !workers.iter().any(|worker| worker.has(role)) {
            let name = role.text();
            report.refuse(&lcores.worker.place, format!("at least one worker with the role \"{name}\""));
        }
    }
    workers.sort_by_key(|worker| !worker.has(LcoreRole::TrafficManager));
    Some(Lcores { master_cpu: lcores.master_cpu.get()?.u32(), workers, idle: *lcores.idle.get()? })
}

/// What one worker does: a traffic manager mirrors its own flows, so far.
fn roles(file: &File, given: &Key<Vec<Key<LcoreRole>>>, report: &mut Report) {
    let Some(roles) = given.all() else { return };
    for (nth, (place, role)) in roles.iter().enumerate() {
        if roles[..nth].iter().any(|(_, earlier)| earlier == role) {
            report.refuse(place, "each role once");
        }
    }
    if roles.is_empty() {
        report.refuse(&given.place, "at least one role");
    }
    let has = |role| roles.iter().any(|(_, has)| **has == role);
    let (manages, mirrors) = (has(LcoreRole::TrafficManager), has(LcoreRole::Mirror));
    let is_not_built = "a worker that mirrors the flows of others is not built yet";
    if mirrors && !manages {
        report.refuse(&given.place, format!("\"traffic-manager\" with \"mirror\": {is_not_built}"));
    }
    if manages && !mirrors && file.mirror.is_given() {
        report.refuse(&given.place, format!("\"mirror\" with \"traffic-manager\": {is_not_built}"));
    }
}

pub fn flows(file: &File) -> Option<Flows> {
    let flows = file.flows.get()?;
    Some(Flows {
        max: flows.max.get()?.u32(),
        tcp_handshake_timeout: flows.tcp_handshake_timeout_s.get()?.secs(),
        tcp_established_timeout: flows.tcp_established_timeout_s.get()?.secs(),
        tcp_closing_timeout: flows.tcp_closing_timeout_s.get()?.secs(),
        udp_timeout: flows.udp_timeout_s.get()?.secs(),
        port_quarantine: flows.port_quarantine_s.get()?.secs(),
    })
}

pub fn control(file: &File, directory: &Path, report: &mut Report) -> Option<Control> {
    let control = file.control.get()?;
    let socket = directory.join(&control.socket.get()?.0);
    if socket.as_os_str().len() >= SOCKET_PATH_MAX {
        let place: &Place = &control.socket.place;
        report.refuse(place, format!("a path shorter than {SOCKET_PATH_MAX} bytes, its directory included"));
    }
    Some(Control { socket, metrics: control.metrics.optional()?.map(|address| address.0) })
}
