//! What the machine asks of the driver and of the workers, and what they report.

use core::fmt;
use std::sync::Arc;

use super::event::Happened;
use super::heartbeat::FrameBytes;
use super::members::Members;
use super::witness::RequestBytes;
use crate::base::ids::{NodeId, PortId, Term, WorkerId};
use crate::base::limits::WORKERS_MAX;
use crate::base::time::{Duration, Instant};
use crate::config::mirrored::Edition;
use crate::seal::{Distrust, Session};
use crate::wire::ethernet::PortLinks;

/// What a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerRole {
    /// It keeps up with the leader's flows and sends no service packets.
    Standby,
    /// It forwards; the lease says until when it may send.
    Active,
}

/// What the driver is to do, in this order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send this frame by this port as an `Own`-class packet, soon or not at all.
    SendFrame {
        /// By which port.
        port: PortId,
        /// The whole Ethernet frame.
        frame: FrameBytes,
    },
    /// Send this datagram to the witness (`failover.witness`), soon or not at all.
    Witness {
        /// All of it.
        datagram: RequestBytes,
    },
    /// Service packets may be sent before `until`. The driver publishes it where
    /// workers read it right before a transmit; `Instant::ZERO`: send nothing.
    Lease {
        /// The first instant that it does not cover.
        until: Instant,
    },
    /// Every worker installs this role and answers [`WorkerReport::Installed`]. `Active`
    /// while active, or `Standby` while standby, is a new term and nothing else.
    Role {
        /// Rises by one with every `Role`.
        epoch: u64,
        /// What the worker is from now on.
        role: WorkerRole,
        /// The term of what it changes (active), or the lowest term it accepts (standby).
        term: Term,
    },
    /// There is a session with a peer: open mirror streams under it. One that was open is closed.
    PeerSession {
        /// The peer.
        node: NodeId,
        /// Keys, and what the peer said of itself.
        session: Arc<Session>,
    },
    /// Close the mirror streams with a peer, and forget what it acknowledged.
    PeerLost {
        /// The peer.
        node: NodeId,
    },
    /// From now on a flow is protected, and a held packet released, when all of these have
    /// acknowledged it. Every worker answers [`WorkerReport::InSyncInstalled`].
    InSync {
        /// Rises by one with every `InSync`.
        epoch: u64,
        /// The term that it belongs to.
        term: Term,
        /// The members, without this appliance itself.
        members: Members,
    },
    /// Start no new flow and flush what this peer lacks; then answer [`WorkerReport::Flushed`].
    /// The next `Role` ends it.
    Quiesce {
        /// The successor.
        peer: NodeId,
    },
    /// Handle no more packets of services: let them wait for this peer, flush what it lacks, then answer
    /// [`WorkerReport::Flushed`]. The next `Role` ends it; but what waits goes on to wait at a standby.
    Hold {
        /// The successor.
        peer: NodeId,
    },
    /// The successor serves: relay to it what waits, and for a moment what still comes.
    Relay {
        /// Its link address on the LAN of each own port.
        links: PortLinks,
    },
    /// Announce the shared and virtual addresses now (gratuitous ARP, unsolicited NA).
    Announce {
        /// The epoch of the `Role` that this belongs to: skip it when it is not the newest.
        epoch: u64,
    },
    /// Write the counter durably, then call `handle_reserved`. Nothing waits for it but, at
    /// the very first start, the first promotion.
    ReserveTerm {
        /// Counters up to this one.
        counter: u64,
    },
    /// Run the command that fences a member, and call `handle_fenced` when it has ended.
    Fence {
        /// Numbers the runs.
        attempt: u64,
        /// Whom.
        node: NodeId,
        /// The term that this appliance followed.
        term: Term,
        /// When that was decided: much later nobody waits for it any more.
        at: Instant,
    },
    /// The services of the leader that is followed: go by them, and say so by `handle_services`.
    Services {
        /// The leader.
        from: NodeId,
        /// Which they are.
        edition: Edition,
        /// As [`crate::config::mirrored::text`] has them.
        text: Vec<u8>,
    },
    /// The process may exit.
    MayExit,
    /// Something happened.
    Event(Happened),
}

/// What workers report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerReport {
    /// The answer to [`Output::Role`].
    Installed {
        /// Who answers.
        worker: WorkerId,
        /// That role's epoch.
        epoch: u64,
    },
    /// The answer to [`Output::InSync`].
    InSyncInstalled {
        /// Who answers.
        worker: WorkerId,
        /// That set's epoch.
        epoch: u64,
    },
    /// How far a peer has got, every 10 ms or so while active.
    Sync {
        /// Who reports.
        worker: WorkerId,
        /// Of whom.
        peer: NodeId,
        /// The id of the session under which it got there: a report of an older one is ignored.
        session: u64,
        /// Every flow that existed when the peer came was sent and acknowledged.
        walk_done: bool,
        /// The age of the oldest change that the peer has not acknowledged; zero if there is none.
        oldest_unacked: Duration,
        /// Flows with unacknowledged changes.
        dirty: u32,
        /// The epoch of the newest [`Output::InSync`], if the peer has acknowledged all that was made known before the
        /// worker installed it; else 0.
        settled: u64,
    },
    /// A held packet waited for this peer longer than `mirror.hold_timeout`.
    HoldOverdue {
        /// Who reports.
        worker: WorkerId,
        /// Who did not acknowledge.
        peer: NodeId,
    },
    /// Mirror frames in a peer's name were dropped.
    Disbelieved {
        /// The peer.
        peer: NodeId,
        /// Why.
        what: Distrust,
        /// How many.
        count: u64,
    },
    /// The answer to [`Output::Quiesce`], and to [`Output::Hold`]: the peer acknowledged everything.
    Flushed {
        /// Who reports.
        worker: WorkerId,
        /// The successor.
        peer: NodeId,
    },
}

/// What the driver found out since the last poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bit `w`: worker lcore `w` went round its loop since the last poll. Even an idle worker must do so
    /// within every two heartbeat intervals: while one does not, nothing that is not heard counts as silence.
    pub workers_moved: u32,
    /// Every liveness frame that had arrived when this round began was handed in. (Not "the queue
    /// is empty": a flood would keep it from ever being so.)
    pub drained: bool,
}

impl Progress {
    /// All of `workers` moved, and nothing waits.
    pub fn all_well(workers: usize) -> Progress {
        Progress { workers_moved: all(workers), drained: true }
    }
}

/// A bit for each worker.
pub(super) const fn all(workers: usize) -> u32 {
    ((1u64 << workers) - 1) as u32
}

const _: () = assert!(WORKERS_MAX <= 32);

/// Why what an operator asks for is not done; a sentence for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its role does not allow it.
    Role(&'static str),
    /// Nobody is there to hand over to.
    NoneInSync,
    /// This node is in sync, the best of those, and cannot take a term.
    CannotLead(NodeId),
    /// This node is in sync, the best of those, and under maintenance.
    PeerUnderMaintenance(NodeId),
    /// It is under maintenance itself.
    UnderMaintenance,
    /// It gives way to another VRRP router, of this priority.
    Outranked(u8),
    /// This node is in sync, the best of those, and more of what is tracked has failed there.
    LessHealthy(NodeId),
    /// This node is heard to lead.
    LeaderHeard(NodeId),
    /// It led itself until just now, and its successor comes first.
    JustResigned,
    /// Its term file holds no counter that it may use.
    NoTerm,
    /// Who is handed over to could not lead.
    WitnessSilent,
    /// Nobody leads without it.
    WitnessGrantsNot,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Role(why) => f.write_str(why),
            Refusal::NoneInSync => f.write_str("no standby is in sync"),
            Refusal::CannotLead(node) => {
                write!(f, "node {node} is in sync, and cannot lead: its term file cannot be written")
            }
            Refusal::PeerUnderMaintenance(node) => {
                write!(
                    f,
                    "node {node} is in sync, and under maintenance: first `baton maintenance off` there"
                )
            }
            Refusal::Outranked(priority) => {
                write!(f, "it gives way to another VRRP router, of priority {priority} (failover.vrrp)")
            }
            Refusal::UnderMaintenance => {
                f.write_str("it is under maintenance: first `baton maintenance off`")
            }
            Refusal::LessHealthy(node) => {
                write!(
                    f,
                    "node {node} is in sync, and less healthy than this appliance: see `baton status` there"
                )
            }
            Refusal::LeaderHeard(node) => {
                write!(f, "node {node} is heard to lead: hand over there, with `baton switchover`")
            }
            Refusal::JustResigned => f.write_str("it has just handed over, and its successor comes first"),
            Refusal::NoTerm => f.write_str("no term is reserved durably yet: try again"),
            Refusal::WitnessSilent => {
                f.write_str("the witness is not heard, and without its grant nobody can take over")
            }
            Refusal::WitnessGrantsNot => f.write_str(
                "the witness does not grant it: where it is out of order, start it again, and it grants in a moment",
            ),
        }
    }
}

/// What an operator can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Of the active: hand over to the standby that is in sync.
    Switchover,
    /// Of a standby: lead. The operator vouches that the old active sends nothing any more.
    Promote,
    /// Go out of service, handing over first if active; or come back.
    Maintenance {
        /// Whether it goes or comes.
        on: bool,
        /// Go, though nobody is in sync: service ends, unless somebody else takes over.
        force: bool,
    },
    /// Leave: hand over if active, then say [`Output::MayExit`].
    Shutdown,
}
