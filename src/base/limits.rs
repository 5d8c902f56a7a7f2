//! Every limit, by name, with what happens at it.

use crate::base::time::Duration;

/// Packets taken from a port at a time. More wait in the port's queue.
pub const BURST_MAX: usize = 64;

/// Shards that divide all flows. Part of the mirror format: peers must agree.
pub const SHARDS: usize = 256;

/// Members of a group. A configuration naming more is refused.
pub const MEMBERS_MAX: usize = 4;

/// Virtual servers that a member may name which tracks only these: its handshake has room for so many. A configuration
/// naming more is refused.
pub const TRACKED_MAX: usize = 8;

/// Shards that one `baton rebalance` moves to even out the load. What is still uneven then is left for the next one.
pub const REBALANCE_MOVES_MAX: usize = 32;

/// Packets that wait at a worker for flows of shards that come to it; with few buffers fewer. More are dropped and counted.
pub const PARKED_PACKETS_MAX: usize = 4096;

/// Flows for which a worker keeps room, besides those of shards that come to it and an eighth of them: so many more may begin at the
/// shards' old owner until they are here. Where there is little room, it is half of what is left.
pub const ARRIVING_SPARE: usize = 1024;

/// Packets of services that wait at a worker for the successor of a planned handover; with few buffers fewer. More are
/// dropped and counted.
pub const STRAGGLERS_MAX: usize = 4096;

/// Of these, relayed in one turn, or handled when the handover was called off: so many fit into a port's queue. The others leave in later turns.
pub const STRAGGLERS_PER_TURN: usize = 4 * BURST_MAX;

/// So long they wait at most. A handover takes a few milliseconds, but a successor that stood still shortly before waits
/// for `takeover_after` until it believes the resignation. What waits longer is dropped and counted.
pub const STRAGGLERS_WAIT_MAX: Duration = Duration::from_millis(250);

/// So long packets that would begin flows wait at most while the successor is flushed to, before all others wait too: longer
/// than that lasts (`failover`). What waits longer is dropped and counted.
pub const STRAGGLERS_GATHERED_MAX: Duration = Duration::from_millis(750);

/// So long the appliance that handed over relays what still comes: then switches have learned for long where the
/// virtual link addresses are. What comes later is dropped and counted, as by any standby.
pub const STRAGGLERS_RELAYED_FOR: Duration = Duration::from_secs(1);

/// So long a process that ends stays after its successor serves, to relay what still comes.
pub const STRAGGLERS_STAY: Duration = Duration::from_millis(100);

/// Workers of an appliance. A configuration naming more is refused.
pub const WORKERS_MAX: usize = 16;

/// Ports of an appliance. A configuration naming more is refused.
pub const PORTS_MAX: usize = 16;

/// Servers, virtual servers and source-NAT addresses that are gone from the configuration file and stay until their flows
/// have ended. A reload that would lead to more is refused.
pub const RETIRED_MAX: usize = 4096;

/// Packets that wait for one unresolved neighbour. The oldest is dropped for a newer one.
pub const NEIGHBOUR_QUEUE_MAX: usize = 8;

/// Places of a table that its flows have left lately and that are remembered in order, so that the next flow's memory can
/// be asked for ahead. Further ones are found one through the other.
pub const TABLE_PLACES_LEFT_MAX: usize = 1 << 14;

/// Neighbours known at a time. A new one takes the place of one that is not in use, if a bounded search
/// finds one; else it is refused.
pub const NEIGHBOURS_MAX: usize = 4096;

/// Lowest source-NAT port; those below are the servers' own (RFC 6335 section 6).
pub const SNAT_PORT_MIN: u16 = 1024;

/// Candidates looked at for one source-NAT port, in each half of a member's ports.
/// When none of them is free, the flow is refused and counted.
pub const SNAT_PROBES_MAX: usize = 256;

/// Source-NAT ports that may rest, over a quarter more than there are flows: so that even a small table's ports
/// find room. At the limit the oldest quarantine ends early and is counted.
pub const RESTING_MORE_THAN_FLOWS: u32 = 4096;

/// Ended quarantines that are cleared away with each new one, so that clearing keeps pace without a long pause.
pub const RESTING_CLEARED_MAX: usize = 4;

/// IPv6 extension headers walked in a packet. A packet with more is dropped and counted.
pub const IPV6_EXTENSIONS_MAX: usize = 8;

/// Pieces of one datagram that are followed. One in more pieces is dropped whole, and counted: 64 are enough for 65,535
/// bytes at an MTU of 1,280, or for 35,000 at one of 576.
pub const FRAGMENTS_PER_DATAGRAM_MAX: usize = 64;

/// Datagrams in fragments that a worker follows at a time. The oldest is forgotten for a newer one, and counted: what
/// comes of it later then waits in vain.
pub const FRAGMENTED_DATAGRAMS_MAX: usize = 4096;

/// The same from one source address. Its own oldest is forgotten for a newer one, and counted.
pub const FRAGMENTED_DATAGRAMS_PER_SOURCE_MAX: usize = 256;

/// Fragments that wait at a worker for the first one of their datagram; with few buffers fewer. Those of the datagram that
/// waits longest are dropped for a newer one, and counted.
pub const FRAGMENTS_WAITING_MAX: usize = 1024;

/// The bytes of these. As above.
pub const FRAGMENT_BYTES_WAITING_MAX: usize = 2 << 20;

/// Fragments from one source address that wait at a worker: more than the largest datagram has. Those of its own datagram
/// that waits longest are dropped for a newer one, and counted.
pub const FRAGMENTS_WAITING_PER_SOURCE_MAX: usize = 128;

/// The bytes of these. As above.
pub const FRAGMENT_BYTES_WAITING_PER_SOURCE_MAX: usize = 256 << 10;

/// So long a datagram's first fragment is waited for, and then once more its others. What waits longer is dropped and
/// counted. RFC 8200 section 4.5 gives hosts 60 seconds, to which packets are lost on the whole way; here only order can
/// be, and an identification is used again the sooner the faster a host sends.
pub const FRAGMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Datagrams to this appliance itself, echo requests, that are reassembled at a time. The oldest is dropped for a newer
/// one, and counted.
pub const ECHOES_REASSEMBLED_MAX: usize = 16;

/// The same from one source address. Its own oldest is dropped for a newer one, and counted.
pub const ECHOES_REASSEMBLED_PER_SOURCE_MAX: usize = 4;

const _: () = assert!(FRAGMENTS_PER_DATAGRAM_MAX <= FRAGMENTS_WAITING_PER_SOURCE_MAX);
const _: () = assert!(FRAGMENTS_WAITING_PER_SOURCE_MAX < FRAGMENTS_WAITING_MAX);
const _: () = assert!(FRAGMENTED_DATAGRAMS_PER_SOURCE_MAX < FRAGMENTED_DATAGRAMS_MAX);

/// How long what a traffic manager said of its load counts. One that says nothing for longer is passed over when connections
/// are shared out by load, as long as another says something.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(1);
/// So long a key stands for which a distributor chose a shard, unless the traffic manager says more. Then the choice is
/// forgotten, and the next packet has another one made.
pub const KEY_CHOSEN_TIMEOUT: Duration = Duration::from_secs(10);

/// So long a key stands that was told to age: for what its ends still send. Then it is forgotten.
pub const KEY_CLOSING_TIMEOUT: Duration = Duration::from_secs(10);

/// Of a connection store's places, one in so many may hold keys for which distributors chose; further ones are refused
/// and counted, so that packets alone never leave traffic managers without room.
pub const KEYS_CHOSEN_SHARE: u32 = 2;

/// Places of a connection store that are looked at in one turn for what has timed out, and when a signal finds it full.
/// The others wait for later turns.
pub const KEYS_SWEPT_MAX: u32 = 32;

/// Virtual servers and addresses whose traffic manager is named. A configuration with more is refused.
pub const NAMED_MAX: usize = 128;

/// What an lcore has to tell the others and could not yet. Of what packets lead to nothing waits: they are dropped and
/// counted. When it is full, ends of flows wait, and frames of peers are dropped and counted, and come again. Only what
/// cannot wait goes beyond it, and takes memory: ends of flows that came with a shard and are not taken in.
pub const TOLD_WAITING_MAX: usize = 8192;

/// Handshake messages of one port that are looked at in a second. More are dropped and counted.
pub const HANDSHAKES_PER_SECOND_MAX: u64 = 200;

/// Those of them that are looked at in one go. With pinned keys each costs several multiplications on the curve, and beats wait for
/// them; a peer sends one in [`HANDSHAKE_RETRY`].
pub const HANDSHAKES_AT_ONCE_MAX: u64 = 8;

/// Heartbeat intervals for which a new boot of a peer is not believed after its old one was heard: two live processes may
/// have one node number. A booting appliance waits for so long too.
pub const OLD_BOOT_INTERVALS: u64 = 3;

/// Between two sendings of a hello, however long the peer was down. A booting appliance waits for two of them.
pub const HANDSHAKE_RETRY: Duration = Duration::from_millis(10);

/// How long the responder of a handshake trusts the initiator to complete it before it starts one itself: some round
/// trips. It is short because a hello that waited in a queue may be of a boot that is gone. A booting appliance waits for
/// it once.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_millis(15);

/// A standby is taken into the in-sync set only while its oldest change that it has not acknowledged is younger; one whose
/// oldest is older is shown as expired.
pub const ADMIT_UNACKED_MAX: Duration = Duration::from_millis(100);

/// Keys in a group's key file: one is proven to peers, and the others are accepted of them while one is changed for another. A
/// file of more is refused.
pub const KEYS_MAX: usize = 4;

/// What is accepted of a peer: the keys of the key file, and the one that is pinned of it.
pub const CREDENTIALS_MAX: usize = KEYS_MAX + 1;

/// Answered hellos of one peer that are remembered, so that none is answered twice.
/// The oldest is forgotten for a newer one.
pub const HELLOS_REMEMBERED_MAX: usize = 256;

/// Groups that one witness serves. Requests of further ones are dropped and counted. Of each it knows `MEMBERS_MAX` members;
/// one more takes the place of one that was silent for a minute, or is dropped and counted.
pub const WITNESS_GROUPS_MAX: usize = 16;

/// Datagrams that a witness's socket has and one round of the liveness thread takes. The others wait for the next one.
pub const WITNESS_ANSWERS_PER_ROUND_MAX: usize = 16;

/// Bytes of the services of a configuration, as members tell them to each other. Larger ones are not told: the log says so, and the
/// answer to a reload.
pub const SERVICES_BYTES_MAX: usize = 1 << 20;

/// Liveness frames that wait for the driver to send them. More are dropped and counted.
pub const FAILOVER_FRAMES_MAX: usize = 256;

const _: () = assert!(SHARDS.is_power_of_two() && SHARDS <= 256);
const _: () = assert!(WORKERS_MAX <= SHARDS);

/// Answers of the master that wait for the driver. Further queries are dropped; whoever asked asks again.
pub const PUNT_OUTPUTS_MAX: usize = 1024;

/// Ended runs of the tracking script that the master has not looked at. The oldest is forgotten for a newer one.
pub const TRACK_RESULTS_MAX: usize = 16;

/// Addresses in one VRRP advertisement (its count has eight bits, RFC 9568 section 5.2.5); over IPv6 the MTU may hold
/// fewer. Further ones are not named in it, and announced all the same.
pub const VRRP_ADDRESSES_MAX: usize = 255;

/// Bytes of a request to the control interface. A larger one is refused.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 4096;

/// Headers of a request to, or an answer of, the control interface. More are refused.
pub const CONTROL_HEADERS_MAX: usize = 32;

/// Pieces in which a control request may arrive, each with a time-out. More are refused.
pub const CONTROL_READS_MAX: usize = 16;

/// Bytes of an answer that the command line reads. A longer one is an error.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 64 << 20;

/// Flows in one answer of the control interface. Asking for more is refused.
pub const FLOWS_SHOWN_MAX: usize = 10_000;

/// Events that an appliance remembers. The oldest is forgotten for a newer one.
pub const EVENTS_KEPT_MAX: usize = 1024;

/// Rules of a virtual server that say which flows are mirrored. A configuration with more is refused.
pub const MIRROR_RULES_MAX: usize = 16;

/// Networks, ranges of ports and code points in each list of such a rule. A configuration with more is refused.
pub const MIRROR_RULE_LIST_MAX: usize = 64;

/// Bytes of the client's first payload at which such rules look. Those behind them match nothing.
pub const PAYLOAD_LOOKED_AT: usize = 64;

/// Packets of a flow, both directions together, among which the client's first payload is looked for. Where it comes later,
/// rules about payload do not hold.
pub const PAYLOAD_AWAITED_PACKETS: u64 = 32;

/// Records that may wait to be sent on a stream while a round of maintenance checkpoints adds more. Flows that find more of them are
/// named in the next round.
pub const MAINTAINED_WAITING_MAX: usize = 1024;

/// Places of the flow table that a round of maintenance checkpoints passes in one call, and flows that it looks at in one: so no call
/// takes long.
pub const MAINTAINED_PLACES_PER_CALL: u32 = 4096;
/// See [`MAINTAINED_PLACES_PER_CALL`].
pub const MAINTAINED_FLOWS_PER_CALL: u32 = 256;

/// Bytes of an IP packet that carries a mirror frame: it fits one segment of any buffer. A
/// smaller MTU of the mirror port makes frames smaller, a greater one does not make them greater.
pub const MIRROR_PACKET_MAX: u16 = 1500;
