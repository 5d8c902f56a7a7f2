//! What happened, for the log and for `baton events`.

use core::fmt;

use serde::Serialize;

use super::distrust::tell;
use super::role::Role;
use super::state::State;
use crate::base::ids::{BootId, NodeId, PortId, Term, WorkerId};
use crate::base::time::{Duration, Instant};
use crate::seal::{Distrust, Mismatch};

/// Why an appliance took a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// It has no peers.
    Alone,
    /// Nobody led when it had booted, and it may lead best.
    Boot,
    /// The leader was silent.
    Silence,
    /// The leader started again: its lease died with its last process.
    LeaderRestarted,
    /// The leader was silent, and was fenced: it sends nothing any more.
    Fenced,
    /// The leader said that it left the group, without naming anybody: something in it failed.
    LeaderResigned,
    /// Everyone was heard, and nobody led.
    Vacant,
    /// The leader handed over.
    HandedOver,
    /// The operator said so.
    Operator,
}

/// Why an active appliance fell silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lapse {
    /// Its process stood still for longer than a lease.
    Paused,
    /// A worker made no progress, so the lease was not renewed.
    WorkersStuck,
    /// A standby said that it hears nothing of this appliance, so it is about to take over.
    Unheard,
    /// Neither the witness nor all other members let it send.
    Ungranted,
}

/// Why a member left the in-sync set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Removal {
    /// It did not acknowledge in time.
    Overdue,
    /// It was not heard for the takeover time.
    Silent,
    /// Its process started again.
    Restarted,
    /// It said goodbye.
    Left,
}

impl Cause {
    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Cause::Alone => "alone",
            Cause::Boot => "boot",
            Cause::Silence => "silence",
            Cause::Fenced => "fenced",
            Cause::LeaderRestarted => "leader-restarted",
            Cause::LeaderResigned => "leader-resigned",
            Cause::Vacant => "vacant",
            Cause::HandedOver => "handed-over",
            Cause::Operator => "operator",
        }
    }
}

impl Lapse {
    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Lapse::Paused => "paused",
            Lapse::WorkersStuck => "workers-stuck",
            Lapse::Unheard => "unheard",
            Lapse::Ungranted => "ungranted",
        }
    }
}

impl Removal {
    /// In one word.
    pub const fn word(self) -> &'static str {
        match self {
            Removal::Overdue => "overdue",
            Removal::Silent => "silent",
            Removal::Restarted => "restarted",
            Removal::Left => "left",
        }
    }
}

/// What an appliance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// To its group.
    pub role: Role,
    /// To its operator.
    pub state: State,
}

/// Something that happened, and how things were then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// What.
    pub event: FailoverEvent,
    /// When.
    pub at: Instant,
    /// What the appliance was when the event before this one happened.
    pub before: Standing,
    /// What it is from now on.
    pub after: Standing,
    /// The term that it leads or follows.
    pub term: Term,
    /// For how long the leader had not been heard, when this one decided to lead because of that.
    pub silence: Option<Duration>,
    /// It serves: so long ago it decided to.
    pub since_decision: Option<Duration>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum FailoverEvent {
    /// It took a term and installs it.
    Promoted {
        /// The new term.
        term: Term,
        /// Why.
        cause: Cause,
        /// It was not in its leader's in-sync set: some flows may be unknown to it.
        degraded: bool,
    },
    /// All workers know, and service packets may be sent.
    Serving {
        /// The term.
        term: Term,
    },
    /// It follows a leader's term.
    Following {
        /// The leader's term.
        term: Term,
        /// What it was before.
        was: Role,
    },
    /// It sends nothing until it knows that nobody else leads.
    Silenced {
        /// Why.
        lapse: Lapse,
    },
    /// It knows, and leads on.
    Resumed {
        /// The term, which is the old one.
        term: Term,
    },
    /// Someone claims a lower term.
    RivalSeen {
        /// Who.
        node: NodeId,
        /// That term.
        term: Term,
    },
    /// It leads, and a standby in sync has been healthier for some time: a handover follows.
    LessHealthy {
        /// Who is.
        node: NodeId,
        /// Tracked things that have failed here.
        failed: u8,
        /// And there.
        theirs: u8,
    },
    /// A handover began: workers flush.
    HandingOver {
        /// To whom.
        to: NodeId,
    },
    /// It resigned.
    Resigned {
        /// The term that it led.
        term: Term,
        /// Who is to lead; nobody, if nobody is heard.
        to: Option<NodeId>,
        /// Whether workers flushed all and stopped in time.
        clean: bool,
    },
    /// It left the group.
    Left,
    /// A peer is heard, and hears this appliance.
    PeerHeard {
        /// Who.
        node: NodeId,
        /// Its boot.
        boot: BootId,
    },
    /// A peer is not heard any more.
    PeerSilent {
        /// Who.
        node: NodeId,
    },
    /// A peer's process started again.
    PeerRestarted {
        /// Who.
        node: NodeId,
        /// Its new boot.
        boot: BootId,
    },
    /// A peer left the group.
    PeerLeft {
        /// Who.
        node: NodeId,
    },
    /// Someone holds the key, but cannot be worked with.
    PeerRefused {
        /// As which node it spoke.
        node: NodeId,
        /// Why.
        mismatch: Mismatch,
    },
    /// Someone speaks as a peer without a key that is accepted: most likely the key files, or pinned keys, differ.
    PeerUnproven {
        /// As which node it spoke.
        node: NodeId,
        /// By which port.
        port: PortId,
    },
    /// A peer's `mirror.checkpoints` is not this appliance's.
    CheckpointsDiffer(NodeId),
    /// Frames in a peer's name were not believed, and dropped.
    Disbelieved {
        /// The peer.
        node: NodeId,
        /// Why.
        what: Distrust,
        /// By which port they came; `None`: on the mirror's streams, or whichever it was.
        by: Option<PortId>,
    },
    /// A peer's node number is used by two live processes.
    DuplicateNode {
        /// That number.
        node: NodeId,
    },
    /// A peer came into the in-sync set.
    InSync {
        /// Who.
        node: NodeId,
        /// The term.
        term: Term,
    },
    /// A peer left the in-sync set, which raised the term.
    OutOfSync {
        /// Who.
        node: NodeId,
        /// Why.
        removal: Removal,
        /// The raised term.
        term: Term,
    },
    /// A worker makes no progress: no heartbeats are sent.
    WorkerStuck {
        /// Which.
        worker: WorkerId,
    },
    /// In a partition, with `safety`: only the operator can promote it.
    WaitsForOperator,
    /// The leader is silent, and a command is to make sure that it sends nothing.
    Fencing {
        /// Who is fenced.
        node: NodeId,
    },
    /// The command says that it does not.
    Fenced {
        /// Who was fenced.
        node: NodeId,
    },
    /// The command failed.
    FenceFailed {
        /// Who was to be fenced.
        node: NodeId,
    },
    /// One that was fenced is heard, and did not start anew.
    FencedIsHeard {
        /// Who.
        node: NodeId,
    },
    /// The witness answers, or a new process of it does.
    WitnessHeard {
        /// Its boot.
        boot: BootId,
    },
    /// The witness does not answer any more.
    WitnessSilent,
    /// The witness has not granted what was asked for, for the takeover time.
    WitnessRefuses {
        /// Who has the grant instead; node 0: nobody, it started just now.
        holder: NodeId,
    },
    /// The witness grants for a shorter time than `takeover_after`, so not to this appliance.
    WitnessTooShort {
        /// For how long it grants, in milliseconds.
        hold_ms: u64,
    },
    /// For some time no term could be reserved: it cannot take the lead.
    CannotLead,
    /// Terms are reserved again.
    CanLead,
    /// It has been something else to its operator for half a second, and none of the other events has said so.
    StateChanged {
        /// What it was.
        was: State,
        /// What it is.
        now: State,
    },
    /// The operator took it out of service: it never leads until it is back.
    MaintenanceOn,
    /// The operator put it back into service.
    MaintenanceOff,
    /// It was to go out of service, and nobody can take over any more: it serves on.
    MaintenanceCalledOff,
    /// Another VRRP router of this priority rules over the group's virtual router: this appliance gives way.
    Outranked {
        /// That router's.
        priority: u8,
    },
    /// That router is gone: this appliance may lead again.
    OutrankedNoMore,
    /// A peer went out of service, or came back.
    PeerMaintenance {
        /// Who.
        node: NodeId,
        /// Whether it went.
        on: bool,
    },
}

impl fmt::Display for FailoverEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use FailoverEvent as E;
        match self {
            E::Promoted { term, cause, degraded } => {
                let why = match cause {
                    Cause::Alone => "there are no peers",
                    Cause::Boot => "nobody leads",
                    Cause::Silence => "the leader is silent",
                    Cause::Fenced => "the leader is silent, and was fenced",
                    Cause::LeaderRestarted => "the leader started again",
                    Cause::LeaderResigned => "the leader resigned and left the group",
                    Cause::Vacant => "nobody leads any more",
                    Cause::HandedOver => "the leader handed over",
                    Cause::Operator => "the operator said so",
                };
                write!(f, "leads term {term}: {why}")?;
                if *degraded { write!(f, "; it was not in sync, some flows may be lost") } else { Ok(()) }
            }
            E::Serving { term } => write!(f, "serves in term {term}"),
            E::Following { term, was } => write!(f, "follows term {term}, was {was}"),
            E::Silenced { lapse } => {
                let why = match lapse {
                    Lapse::Paused => "its process stood still for longer than the lease",
                    Lapse::WorkersStuck => "a worker makes no progress",
                    Lapse::Unheard => "a standby does not hear it",
                    Lapse::Ungranted => "neither the witness nor every other member grants it",
                };
                write!(f, "sends nothing: {why}")
            }
            E::Resumed { term } => write!(f, "nobody else leads: goes on in term {term}"),
            E::RivalSeen { node, term } => write!(f, "rival: node {node} claims the lower term {term}"),
            E::LessHealthy { node, failed, theirs } => {
                write!(f, "node {node} is healthier: {failed} of what is tracked failed here, {theirs} there")
            }
            E::HandingOver { to } => write!(f, "hands over to node {to}"),
            E::Resigned { term, to, clean } => {
                write!(f, "resigned from term {term}")?;
                match to {
                    Some(to) => write!(f, " in favour of node {to}")?,
                    None => write!(f, "; nobody is heard to follow")?,
                }
                if *clean { Ok(()) } else { write!(f, "; workers did not flush or stop in time") }
            }
            E::Left => write!(f, "left the group"),
            E::PeerHeard { node, boot } => write!(f, "node {node} is heard (boot {:016x})", boot.0),
            E::PeerSilent { node } => write!(f, "node {node} is silent"),
            E::PeerRestarted { node, boot } => write!(f, "node {node} started again (boot {:016x})", boot.0),
            E::PeerLeft { node } => write!(f, "node {node} left the group"),
            E::PeerRefused { node, mismatch } => write!(f, "node {node} is refused: {mismatch}"),
            E::PeerUnproven { node, port } => {
                write!(f, "someone at port {port} speaks as node {node} without a key that is accepted here")
            }
            E::CheckpointsDiffer(node) => write!(f, "node {node} has another mirror.checkpoints"),
            E::Disbelieved { node, what, by } => tell(f, *node, *what, *by),
            E::DuplicateNode { node } => write!(f, "two live processes speak as node {node}"),
            E::InSync { node, term } => write!(f, "node {node} is in sync in term {term}"),
            E::OutOfSync { node, removal, term } => {
                let why = match removal {
                    Removal::Overdue => "it did not acknowledge in time",
                    Removal::Silent => "it is silent",
                    Removal::Restarted => "it started again",
                    Removal::Left => "it left the group",
                };
                write!(f, "node {node} is out of sync in term {term}: {why}")
            }
            E::WorkerStuck { worker } => write!(f, "worker {worker} makes no progress"),
            E::Fencing { node } => write!(f, "node {node} is silent, and is being fenced"),
            E::Fenced { node } => write!(f, "node {node} was fenced"),
            E::FenceFailed { node } => write!(f, "node {node} could not be fenced"),
            E::FencedIsHeard { node } => {
                write!(f, "node {node} was fenced, and is heard all the same, without a new start")
            }
            E::WitnessHeard { boot } => write!(f, "the witness is heard (boot {:016x})", boot.0),
            E::WitnessSilent => write!(f, "the witness is silent"),
            E::WitnessRefuses { holder: NodeId(0) } => {
                write!(f, "the witness grants nothing: it started just now")
            }
            E::WitnessRefuses { holder } => write!(f, "the witness grants to node {holder} instead"),
            E::WitnessTooShort { hold_ms } => write!(
                f,
                "the witness grants for {hold_ms} ms only, and takeover_after_ms is longer: start it with a longer --hold-ms"
            ),
            E::CannotLead => {
                write!(f, "no term can be reserved in failover.state_dir: it cannot take the lead")
            }
            E::MaintenanceOn => write!(f, "is under maintenance: it does not lead until that ends"),
            E::MaintenanceOff => write!(f, "maintenance is over"),
            E::MaintenanceCalledOff => {
                write!(f, "maintenance is called off: nobody in sync can take over any more")
            }
            E::Outranked { priority } => {
                write!(f, "gives way to another VRRP router, of priority {priority}")
            }
            E::OutrankedNoMore => write!(f, "the other VRRP router is gone: may lead again"),
            E::PeerMaintenance { node, on: true } => write!(f, "node {node} is under maintenance"),
            E::PeerMaintenance { node, on: false } => write!(f, "node {node} is no more under maintenance"),
            E::StateChanged { was, now } => write!(f, "is {}, was {}", now.words(), was.words()),
            E::CanLead => write!(f, "terms are reserved again: it can take the lead"),
            E::WaitsForOperator => {
                write!(
                    f,
                    "no leader is heard; partition = \"safety\" leaves it to the operator (`baton promote`)"
                )
            }
        }
    }
}

impl FailoverEvent {
    /// In one word, as JSON has it.
    pub const fn name(&self) -> &'static str {
        use FailoverEvent as E;
        match self {
            E::Promoted { .. } => "promoted",
            E::Serving { .. } => "serving",
            E::Following { .. } => "following",
            E::Silenced { .. } => "silenced",
            E::Resumed { .. } => "resumed",
            E::RivalSeen { .. } => "rival-seen",
            E::LessHealthy { .. } => "less-healthy",
            E::HandingOver { .. } => "handing-over",
            E::Resigned { .. } => "resigned",
            E::Left => "left",
            E::PeerHeard { .. } => "peer-heard",
            E::PeerSilent { .. } => "peer-silent",
            E::PeerRestarted { .. } => "peer-restarted",
            E::PeerLeft { .. } => "peer-left",
            E::PeerRefused { .. } => "peer-refused",
            E::PeerUnproven { .. } => "peer-unproven",
            E::CheckpointsDiffer(_) => "checkpoints-differ",
            E::Disbelieved { .. } => "disbelieved",
            E::DuplicateNode { .. } => "duplicate-node",
            E::InSync { .. } => "in-sync",
            E::OutOfSync { .. } => "out-of-sync",
            E::WorkerStuck { .. } => "worker-stuck",
            E::WaitsForOperator => "waits-for-operator",
            E::Fencing { .. } => "fencing",
            E::Fenced { .. } => "fenced",
            E::FenceFailed { .. } => "fence-failed",
            E::FencedIsHeard { .. } => "fenced-is-heard",
            E::WitnessHeard { .. } => "witness-heard",
            E::WitnessSilent => "witness-silent",
            E::WitnessRefuses { .. } => "witness-refuses",
            E::WitnessTooShort { .. } => "witness-too-short",
            E::CannotLead => "cannot-lead",
            E::CanLead => "can-lead",
            E::MaintenanceOn => "maintenance-on",
            E::MaintenanceOff => "maintenance-off",
            E::MaintenanceCalledOff => "maintenance-called-off",
            E::PeerMaintenance { .. } => "peer-maintenance",
            E::Outranked { .. } => "outranked",
            E::OutrankedNoMore => "outranked-no-more",
            E::StateChanged { .. } => "state-changed",
        }
    }

    /// Why, in one word, if it says why.
    pub const fn cause(&self) -> Option<&'static str> {
        use FailoverEvent as E;
        match self {
            E::Promoted { cause, .. } => Some(cause.word()),
            E::Silenced { lapse } => Some(lapse.word()),
            E::OutOfSync { removal, .. } => Some(removal.word()),
            E::Serving { .. }
            | E::Following { .. }
            | E::Resumed { .. }
            | E::RivalSeen { .. }
            | E::LessHealthy { .. }
            | E::HandingOver { .. }
            | E::Resigned { .. }
            | E::Left
            | E::PeerHeard { .. }
            | E::PeerSilent { .. }
            | E::PeerRestarted { .. }
            | E::PeerLeft { .. }
            | E::PeerRefused { .. }
            | E::PeerUnproven { .. }
            | E::CheckpointsDiffer(_)
            | E::Disbelieved { .. }
            | E::DuplicateNode { .. }
            | E::InSync { .. }
            | E::WorkerStuck { .. }
            | E::WaitsForOperator
            | E::Fencing { .. }
            | E::Fenced { .. }
            | E::FenceFailed { .. }
            | E::FencedIsHeard { .. }
            | E::WitnessHeard { .. }
            | E::WitnessSilent
            | E::WitnessRefuses { .. }
            | E::WitnessTooShort { .. }
            | E::CannotLead
            | E::CanLead
            | E::MaintenanceOn
            | E::MaintenanceOff
            | E::MaintenanceCalledOff
            | E::PeerMaintenance { .. }
            | E::Outranked { .. }
            | E::OutrankedNoMore
            | E::StateChanged { .. } => None,
        }
    }

    /// Which other member it is about.
    pub const fn peer(&self) -> Option<NodeId> {
        use FailoverEvent as E;
        match self {
            E::RivalSeen { node, .. }
            | E::LessHealthy { node, .. }
            | E::HandingOver { to: node }
            | E::PeerHeard { node, .. }
            | E::PeerSilent { node }
            | E::PeerRestarted { node, .. }
            | E::PeerLeft { node }
            | E::PeerRefused { node, .. }
            | E::PeerUnproven { node, .. }
            | E::CheckpointsDiffer(node)
            | E::Disbelieved { node, .. }
            | E::DuplicateNode { node }
            | E::InSync { node, .. }
            | E::OutOfSync { node, .. }
            | E::Fencing { node }
            | E::Fenced { node }
            | E::FenceFailed { node }
            | E::FencedIsHeard { node }
            | E::PeerMaintenance { node, .. } => Some(*node),
            E::Resigned { to, .. } => *to,
            E::Following { term, .. } => Some(term.node),
            E::Promoted { .. }
            | E::Serving { .. }
            | E::Silenced { .. }
            | E::Resumed { .. }
            | E::Left
            | E::WorkerStuck { .. }
            | E::WaitsForOperator
            | E::WitnessHeard { .. }
            | E::WitnessSilent
            | E::WitnessRefuses { .. }
            | E::WitnessTooShort { .. }
            | E::CannotLead
            | E::CanLead
            | E::MaintenanceOn
            | E::MaintenanceOff
            | E::MaintenanceCalledOff
            | E::Outranked { .. }
            | E::OutrankedNoMore
            | E::StateChanged { .. } => None,
        }
    }
}
