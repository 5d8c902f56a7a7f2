//! What the liveness thread and the workers say to each other, in each other's words.

use crate::base::ids::WorkerId;
use crate::failover::{Output, WorkerReport, WorkerRole};
use crate::worker::message::{Command, Event, Role};

/// What every worker is to be told of an output; `None`: it is not for workers.
pub fn command_for(output: &Output) -> Option<Command> {
    match output {
        Output::Role { epoch, role, term } => {
            let role = match role {
                WorkerRole::Standby => Role::Standby,
                WorkerRole::Active => Role::Active,
            };
            Some(Command::Role { epoch: *epoch, role, term: *term })
        }
        Output::PeerSession { node, session } => {
            Some(Command::PeerSession { node: *node, session: session.clone() })
        }
        Output::PeerLost { node } => Some(Command::PeerLost { node: *node }),
        Output::InSync { epoch, term, members } => {
            Some(Command::InSync { epoch: *epoch, term: *term, peers: members.iter().collect() })
        }
        Output::Quiesce { peer } => Some(Command::Quiesce { peer: *peer }),
        Output::Hold { peer } => Some(Command::Hold { peer: *peer }),
        Output::Relay { links } => Some(Command::Relay { links: *links }),
        Output::SendFrame { .. }
        | Output::Witness { .. }
        | Output::Fence { .. }
        | Output::Lease { .. }
        | Output::Announce { .. }
        | Output::ReserveTerm { .. }
        | Output::Services { .. }
        | Output::MayExit
        | Output::Event(_) => None,
    }
}

/// What the liveness thread is to be told of an event; `None`: it is for the master.
pub fn report_of(worker: WorkerId, event: &Event) -> Option<WorkerReport> {
    match event {
        Event::Installed { epoch } => Some(WorkerReport::Installed { worker, epoch: *epoch }),
        Event::InSyncInstalled { epoch } => Some(WorkerReport::InSyncInstalled { worker, epoch: *epoch }),
        Event::Sync { peer, session, walk_done, oldest_unacknowledged, waiting, settled } => {
            Some(WorkerReport::Sync {
                worker,
                peer: *peer,
                session: *session,
                walk_done: *walk_done,
                oldest_unacked: *oldest_unacknowledged,
                dirty: *waiting as u32,
                settled: *settled,
            })
        }
        Event::HoldOverdue { peer } => Some(WorkerReport::HoldOverdue { worker, peer: *peer }),
        Event::Disbelieved { peer, what, count } => {
            Some(WorkerReport::Disbelieved { peer: *peer, what: *what, count: *count })
        }
        Event::Flushed { peer } => Some(WorkerReport::Flushed { worker, peer: *peer }),
        Event::Resolve { .. }
        | Event::Differs { .. }
        | Event::Status(_)
        | Event::Flows(_)
        | Event::Chosen(_)
        | Event::Configured(_)
        | Event::Move(_) => None,
    }
}
