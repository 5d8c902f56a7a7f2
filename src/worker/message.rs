//! What the master and the liveness thread say to a worker, and what it says to them.

use std::sync::Arc;

use crate::base::ids::{NodeId, ShardId, Term};
use crate::base::spans::Spans;
use crate::base::time::{Duration, Instant};
use crate::flow::{Flow, FlowIndex, Key};
use crate::mirror::StreamStatus;
use crate::seal::Distrust;
use crate::seal::session::Session;
use crate::traffic::routes::NextHop;
use crate::wire::ethernet::PortLinks;
use crate::worker::moving::{MoveCommand, MoveEvent};
use crate::worker::tables::Generation;

/// Whether this appliance serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It applies what the active sends, and forwards nothing.
    Standby,
    /// It forwards, under its term and lease.
    Active,
}

/// To a worker, handled between bursts, in order.
#[derive(Clone, Debug)]
pub enum Command {
    /// Take this role; answered by [`Event::Installed`].
    Role {
        /// Counts role changes and changes of the in-sync set.
        epoch: u64,
        /// The role.
        role: Role,
        /// The term it is held under: one's own, or the leader's.
        term: Term,
    },
    /// A peer and this appliance have agreed on keys.
    PeerSession {
        /// The peer.
        node: NodeId,
        /// The keys.
        session: Arc<Session>,
    },
    /// A peer is gone.
    PeerLost {
        /// The peer.
        node: NodeId,
    },
    /// Flows are protected when these peers know them; answered by [`Event::InSyncInstalled`].
    InSync {
        /// As in [`Command::Role`].
        epoch: u64,
        /// The term from which on this holds.
        term: Term,
        /// The members without this appliance itself.
        peers: Vec<NodeId>,
    },
    /// Begin no new flow, and say [`Event::Flushed`] when the peer has acknowledged
    /// everything. The next [`Command::Role`] ends it.
    Quiesce {
        /// The peer.
        peer: NodeId,
    },
    /// Handle no more packets of services: they wait for the peer that this appliance hands over to. Then as
    /// [`Command::Quiesce`]. As a standby they wait on, until [`Command::Relay`] or a time-out.
    Hold {
        /// The peer.
        peer: NodeId,
    },
    /// The peer that this appliance handed over to serves: relay to it what waits and, for a moment, what still comes.
    Relay {
        /// Its link address on the LAN of each port.
        links: PortLinks,
    },
    /// A neighbour's link address.
    Neighbour {
        /// The neighbour.
        hop: NextHop,
        /// Its link address; `None`: it no longer answers.
        link: Option<[u8; 6]>,
    },
    /// A flow looks expired: look again and remove it.
    Expire {
        /// Its place.
        flow: FlowIndex,
    },
    /// Have a part in moving shards from one worker to another.
    Move(MoveCommand),
    /// Look up by this configuration from now on; answered by [`Event::Configured`].
    Configure(Generation),
    /// Mirror the flow of this client's key, or do not, or as rules say; answered by [`Event::Chosen`].
    Choose {
        /// As packets of the client carry it.
        key: Key,
        /// What is wanted.
        choice: Choice,
    },
    /// Say [`Event::Status`].
    Status,
    /// Say [`Event::Flows`], from a place on.
    Flows {
        /// The first place to look at.
        from: FlowIndex,
    },
}

/// From a worker.
#[derive(Clone, Debug)]
pub enum Event {
    /// A role was taken.
    Installed {
        /// Of the command.
        epoch: u64,
    },
    /// A new in-sync set counts from now on.
    InSyncInstalled {
        /// Of the command.
        epoch: u64,
    },
    /// How far a peer is behind; said every 10 ms while active.
    Sync {
        /// The peer.
        peer: NodeId,
        /// The session under which it got there.
        session: u64,
        /// It was named every flow, and acknowledged.
        walk_done: bool,
        /// How long the oldest unacknowledged state has been waiting.
        oldest_unacknowledged: Duration,
        /// States that wait to be sent.
        waiting: usize,
        /// The epoch of the newest [`Command::InSync`], if the peer has acknowledged all that was made known before this
        /// worker took it; else 0.
        settled: u64,
    },
    /// A packet has been held for longer than `mirror.hold_timeout_ms`.
    HoldOverdue {
        /// The peer that has not acknowledged its flow.
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
    /// A peer's flows of a shard are not this appliance's, as they should be: it is told of all of them again.
    Differs {
        /// The peer.
        peer: NodeId,
        /// The shard.
        shard: ShardId,
    },
    /// The peer has acknowledged everything.
    Flushed {
        /// The peer.
        peer: NodeId,
    },
    /// A neighbour is needed.
    Resolve {
        /// The neighbour.
        hop: NextHop,
    },
    /// Shards move from one worker to another.
    Move(MoveEvent),
    /// The answer to [`Command::Configure`]: what was looked up by until then, to be dropped elsewhere.
    Configured(Generation),
    /// The answer to [`Command::Choose`].
    Chosen(ChoiceAnswer),
    /// The answer to [`Command::Status`].
    Status(Box<WorkerStatus>),
    /// A slice of the answer to [`Command::Flows`].
    Flows(Box<FlowSlice>),
}

/// What an operator wants of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is mirrored, whatever rules say.
    On,
    /// It is not.
    Off,
    /// Rules say whether it is.
    Auto,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChoiceAnswer {
    /// It is mirrored, or not, as wanted.
    Done {
        /// Whether it is mirrored.
        mirrors: bool,
        /// Why.
        because: Because,
    },
    /// This worker has no such flow.
    Unknown,
    /// This appliance does not lead, or is handing over.
    Standby,
    /// There are no peers to mirror to.
    Alone,
    /// The flow's shard is on its way to another worker.
    Moving,
    /// The flow's source-NAT port is another member's, which has to know of the flow.
    Needed,
    /// Peers have yet to acknowledge too many ends: another one would be too much.
    Busy,
}

/// Why a flow is mirrored, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// All flows of its virtual server are, or none.
    VirtualServer,
    /// This rule of its virtual server says so, from 1.
    Rule(u8),
    /// None of its virtual server's rules holds.
    NoRule,
    /// An operator wants it.
    Operator,
    /// It was so under other rules, or when this appliance learned of it; or what rules say is not done yet.
    Kept,
}

/// One of a worker's flows.
#[derive(Clone, Copy, Debug)]
pub struct SeenFlow {
    /// It.
    pub flow: Flow,
    /// Since its last packet.
    pub idle: Duration,
    /// Whether every in-sync member has acknowledged its newest state; with periodic checkpoints that, or an earlier one.
    pub protected: bool,
    /// Whether digests were found equal with every in-sync member since it last changed, where its changes are not acknowledged.
    pub confirmed: bool,
    /// Why it is mirrored, or not.
    pub because: Because,
}

/// Some of a worker's flows.
#[derive(Clone, Debug, Default)]
pub struct FlowSlice {
    /// The flows.
    pub flows: Vec<SeenFlow>,
    /// Where the next slice begins; `None`: this is the last one.
    pub next: Option<FlowIndex>,
}

/// What a worker says of itself.
#[derive(Clone, Debug, Default)]
pub struct WorkerStatus {
    /// Flows.
    pub flows: u64,
    /// Flows of each shard that it owns.
    pub by_shard: Vec<(ShardId, u64)>,
    /// Flows that are to be mirrored.
    pub mirrored: u64,
    /// Flows that the in-sync peer that knows fewest knows; 0 when there is none.
    pub protected: u64,
    /// Since when the oldest unacknowledged state waits.
    pub oldest_unacknowledged: Option<Instant>,
    /// Packets held now.
    pub held: usize,
    /// Ended flows whose end some peer has not acknowledged.
    pub departed: usize,
    /// Source-NAT ports at rest.
    pub ports_resting: usize,
    /// How long flows waited to be known to a peer, since their first change or since a walk named them.
    pub protection_latency: Spans,
    /// How long the first packets of flows were held.
    pub held_for: Spans,
    /// Flows of each virtual server, by id.
    pub by_virtual_server: Vec<(u32, u64)>,
    /// Flows of each real server, by id.
    pub by_server: Vec<(u32, u64)>,
    /// The streams to peers.
    pub streams: Vec<StreamStatus>,
}
