//! Counters: one for each thing that happens, and for each reason a packet is
//! dropped one of its own. A set belongs to one writer (a worker, the master,
//! the liveness thread); others may read it at any time.

use core::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident => $text:literal,)+) => {
        /// Everything that is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Counter { $($(#[doc = $help])+ $name,)+ }

        impl Counter {
            /// Every counter, in the order they are shown.
            pub const ALL: &[Counter] = &[$(Counter::$name,)+];

            /// Its name, as `baton counters` and the metrics show it.
            pub const fn name(self) -> &'static str {
                match self { $(Counter::$name => $text,)+ }
            }

            /// Whether it counts packets that are dropped.
            pub fn is_drop(self) -> bool {
                self.name().starts_with("drop_")
            }

            /// One sentence of help.
            pub const fn help(self) -> &'static str {
                match self { $(Counter::$name => concat!($($help),+),)+ }
            }
        }
    };
}

counters! {
    /// Packets received from a port.
    RxPackets => "rx_packets",
    /// Packets handed to a port for sending.
    TxPackets => "tx_packets",
    /// Packets dropped: not IP, ARP or baton's own.
    DropNotIp => "drop_not_ip",
    /// Packets dropped: to another link address than this port's or the virtual ones.
    DropOtherHost => "drop_other_host",
    /// Packets dropped: IP multicast or broadcast that is neither neighbour discovery nor VRRP.
    DropMulticast => "drop_multicast",
    /// Packets dropped: fragments of ICMP that are no echo request to this appliance.
    DropFragmentIcmp => "drop_fragment_icmp",
    /// Packets dropped: a fragment that overlaps another one of its datagram (RFC 1858, RFC 5722).
    DropFragmentOverlap => "drop_fragment_overlap",
    /// Packets dropped: a fragment that contradicts what the last one says of its datagram's length.
    DropFragmentContradiction => "drop_fragment_contradiction",
    /// Packets dropped: a fragment that came before.
    DropFragmentDuplicate => "drop_fragment_duplicate",
    /// Packets dropped: a fragment of a datagram in too many of them.
    DropFragmentTooMany => "drop_fragment_too_many",
    /// Packets dropped: fragments of a datagram that was given up, after an overlap, a contradiction or too many pieces.
    DropFragmentGivenUp => "drop_fragment_given_up",
    /// Packets dropped: fragments that waited for the first one of their datagram, which did not come in time.
    DropFragmentTimeout => "drop_fragment_timeout",
    /// Packets dropped: fragments that waited, when too many did.
    DropFragmentsWaiting => "drop_fragments_waiting",
    /// Packets dropped: fragments that waited, when too many of their source did.
    DropFragmentsWaitingOfSource => "drop_fragments_waiting_of_source",
    /// Datagrams in fragments that went on whole.
    FragmentedWhole => "fragmented_whole",
    /// Datagrams in fragments that did not come whole in time.
    FragmentedIncomplete => "fragmented_incomplete",
    /// Datagrams in fragments that were forgotten for newer ones.
    FragmentedForgotten => "fragmented_forgotten",
    /// Packets dropped: a transport protocol without ports.
    DropProtocol => "drop_protocol",
    /// Packets dropped: with a VLAN tag, while ports are untagged.
    DropVlan => "drop_vlan",
    /// Packets dropped: to an own or virtual address where nothing listens.
    DropNoListener => "drop_no_listener",
    /// Packets dropped: of a service, while this appliance is a standby.
    DropStandby => "drop_standby",
    /// Packets of services that came while this appliance handed over: they wait for its successor.
    StragglersHeld => "stragglers_held",
    /// Packets of services that came while, or shortly after, this appliance handed over: relayed to its successor.
    StragglersRelayed => "stragglers_relayed",
    /// Packets dropped: too many wait for the successor of a handover.
    DropStragglersFull => "drop_stragglers_full",
    /// Packets dropped: they waited for the successor of a handover, which did not serve in time.
    DropStragglersTimeout => "drop_stragglers_timeout",
    /// Packets dropped: of no known flow, and not one that begins a flow.
    DropNoFlow => "drop_no_flow",
    /// Packets dropped: no server of the pool takes new flows.
    DropNoServer => "drop_no_server",
    /// Packets dropped: no route to the client or the server.
    DropNoRoute => "drop_no_route",
    /// Packets dropped: no source-NAT port is free for this server.
    DropPortsExhausted => "drop_ports_exhausted",
    /// Packets dropped: the flow table is full, or what room it has is kept for flows of shards that come from another worker.
    DropTableFull => "drop_table_full",
    /// Packets dropped: another flow has the same addresses and ports on the server's side.
    DropKeyTaken => "drop_key_taken",
    /// Packets dropped: their hops are used up.
    DropHopsExceeded => "drop_hops_exceeded",
    /// Packets dropped: routed past the flows, and larger than the port that they would leave by carries.
    DropTooLarge => "drop_too_large",
    /// Packets dropped: too many wait for the mirror's acknowledgement.
    DropHoldFull => "drop_hold_full",
    /// Packets dropped: held, when their flow ended.
    DropHoldEnded => "drop_hold_ended",
    /// Packets dropped: held, when this appliance stepped down.
    DropHoldStandby => "drop_hold_standby",
    /// Packets dropped: too many wait for a neighbour, or no more neighbours can be known.
    DropNeighbour => "drop_neighbour",
    /// Packets dropped: they cannot be rewritten into the other family.
    DropFamilies => "drop_families",
    /// Packets dropped: they would begin a flow while this appliance hands over, and are fragments, or too many of their kind
    /// wait.
    DropQuiescing => "drop_quiescing",
    /// Packets dropped: a key that would have to be remembered, and the connection store is full, or is full of choices.
    DropKeysFull => "drop_keys_full",
    /// Packets dropped: other lcores would have to hear of a key first, and one of them is behind.
    DropTellFull => "drop_tell_full",
    /// Connection keys for which another traffic manager than their hash's was chosen.
    KeysChosen => "keys_chosen",
    /// Connection keys that took an expected key's place.
    KeysLearned => "keys_learned",
    /// Connection keys of which another lcore told, for which there was no room.
    KeysRefused => "keys_refused",
    /// TCP resets that went on and ended no watched connection: outside of the window, or of an end not seen before.
    ResetsOutside => "resets_outside",
    /// FINs that went on and did not count for a watched connection: outside of the window.
    FinsOutside => "fins_outside",
    /// Packets handed to the traffic manager that owns their shard.
    HandedOver => "handed_over",
    /// Packets that waited for the flows of a shard on its way to this traffic manager.
    Parked => "parked",
    /// Packets dropped: too many waited for the flows of a shard on its way to this traffic manager.
    DropParkedFull => "drop_parked_full",
    /// Shards that came from another traffic manager.
    ShardsMoved => "shards_moved",
    /// Flows that came with them.
    FlowsMoved => "flows_moved",
    /// Flows that did not, and were ended: the new traffic manager had no room for them.
    FlowsNotMoved => "flows_not_moved",
    /// Packets of no flow, from or to a real server, that were routed past the flows.
    Routed => "routed",
    /// Flows made.
    FlowsMade => "flows_made",
    /// Flows removed after their idle time.
    FlowsExpired => "flows_expired",
    /// Flows replaced by a new connection of the same client address and port.
    FlowsReopened => "flows_reopened",
    /// Flows that peers are told of from some time of their life on, as rules or an operator said.
    FlowsTakenUp => "flows_taken_up",
    /// Flows that were mirrored and are no longer, likewise.
    FlowsLeftOut => "flows_left_out",
    /// Packets that were held until their flow was known to the in-sync set.
    Held => "held",
    /// Times that a held packet waited longer than the hold time-out.
    HoldTimeouts => "hold_timeouts",
    /// Events dropped because too many waited.
    EventsDropped => "events_dropped",
    /// Mirror frames not sent for want of a buffer or of the peer's address.
    MirrorNotSent => "mirror_not_sent",
    /// Mirror frames dropped: too short, of another version, or with a torn record.
    MirrorMalformed => "mirror_malformed",
    /// Mirror frames dropped: of no peer, boot or stream that has a session here.
    MirrorUnknownPeer => "mirror_unknown_peer",
    /// Mirror frames dropped: replayed, too old or not sealed with the stream's key.
    MirrorRefused => "mirror_refused",
    /// Mirror frames whose sender does not lead in this appliance's eyes: not applied, not acknowledged.
    MirrorWrongTerm => "mirror_wrong_term",
    /// Mirror frames dropped by a standby of which a shard that was moved is not home yet; they come again.
    MirrorNotHome => "mirror_not_home",
    /// Mirror records refused: the flow table is full.
    MirrorRecordTableFull => "mirror_record_table_full",
    /// Mirror records refused: they contradict themselves, their shard or a known flow.
    MirrorRecordInconsistent => "mirror_record_inconsistent",
    /// Mirror records refused: the configuration has no such virtual server.
    MirrorRecordUnknownService => "mirror_record_unknown_service",
    /// Mirror records refused: critical and of an unknown type.
    MirrorRecordUnknown => "mirror_record_unknown",
    /// Mirror records refused: no flow is known by their short name. The leader says them in full.
    MirrorHandleUnknown => "mirror_handle_unknown",
    /// Digests refused: the leader's flows of a shard are not those that are here. It names them again.
    MirrorDigestDiffers => "mirror_digest_differs",
    /// Packets dropped: shorter than an Ethernet header.
    DropEthernetTruncated => "drop_ethernet_truncated",
    /// Packets dropped: the VLAN tag is cut off.
    DropVlanTruncated => "drop_vlan_truncated",
    /// Packets dropped: more than one VLAN tag, or a service tag (IEEE 802.1ad): not supported.
    DropVlanStacked => "drop_vlan_stacked",
    /// Packets dropped: the ARP packet is cut off.
    DropArpTruncated => "drop_arp_truncated",
    /// Packets dropped: ARP for another kind of link or network than Ethernet and IPv4.
    DropArpFormat => "drop_arp_format",
    /// Packets dropped: shorter than an IPv4 header.
    DropIpv4Truncated => "drop_ipv4_truncated",
    /// Packets dropped: Ethernet said IPv4, the version field says otherwise.
    DropIpv4Version => "drop_ipv4_version",
    /// Packets dropped: IPv4 header length below 20, or beyond the bytes there are.
    DropIpv4HeaderLength => "drop_ipv4_header_length",
    /// Packets dropped: IPv4 total length below the header's, or beyond the bytes there are.
    DropIpv4TotalLength => "drop_ipv4_total_length",
    /// Packets dropped: an IPv4 or IPv6 source address that no host may use (RFC 1122 section 3.2.1.3, RFC 4291 section 2.7).
    DropSourceAddress => "drop_source_address",
    /// Packets dropped: a fragment without data, or one that is not the last and whose length is not a multiple of 8.
    DropFragmentLength => "drop_fragment_length",
    /// Packets dropped: a fragment reaches beyond 65,535 bytes.
    DropFragmentOverrun => "drop_fragment_overrun",
    /// Packets dropped: a first fragment without the whole transport header, or one meant to overwrite it (RFC 1858, RFC 7112).
    DropFragmentTiny => "drop_fragment_tiny",
    /// Packets dropped: shorter than an IPv6 header.
    DropIpv6Truncated => "drop_ipv6_truncated",
    /// Packets dropped: Ethernet said IPv6, the version field says otherwise.
    DropIpv6Version => "drop_ipv6_version",
    /// Packets dropped: IPv6 payload length beyond the bytes there are.
    DropIpv6PayloadLength => "drop_ipv6_payload_length",
    /// Packets dropped: an IPv6 extension header is cut off.
    DropIpv6ExtensionTruncated => "drop_ipv6_extension_truncated",
    /// Packets dropped: more IPv6 extension headers than are walked.
    DropIpv6ExtensionsTooMany => "drop_ipv6_extensions_too_many",
    /// Packets dropped: IPv6 hop-by-hop options that are not the first header (RFC 8200 section 4.1).
    DropIpv6HopByHopPlace => "drop_ipv6_hop_by_hop_place",
    /// Packets dropped: an IPv6 routing header of type 0 with segments left (RFC 5095).
    DropIpv6RoutingType0 => "drop_ipv6_routing_type0",
    /// Packets dropped: the TCP header is cut off.
    DropTcpTruncated => "drop_tcp_truncated",
    /// Packets dropped: TCP data offset below 20 bytes, or beyond the packet.
    DropTcpDataOffset => "drop_tcp_data_offset",
    /// Packets dropped: TCP flags that no sender may combine: SYN with FIN or RST, or none at all.
    DropTcpFlags => "drop_tcp_flags",
    /// Packets dropped: the UDP header is cut off.
    DropUdpTruncated => "drop_udp_truncated",
    /// Packets dropped: UDP length below 8, or beyond the packet.
    DropUdpLength => "drop_udp_length",
    /// Packets dropped: UDP over IPv6 without a checksum (RFC 8200 section 8.1).
    DropUdpChecksumMissing => "drop_udp_checksum_missing",
    /// Packets dropped: the ICMP message is cut off.
    DropIcmpTruncated => "drop_icmp_truncated",
    /// Packets dropped: the ICMPv6 message is cut off.
    DropIcmpv6Truncated => "drop_icmpv6_truncated",
    /// Packets dropped: a neighbour discovery message that RFC 4861 section 6.1 or 7.1 tells to discard.
    DropNdpInvalid => "drop_ndp_invalid",
    /// Packets dropped: a VRRP message that is shorter than its header and addresses.
    DropVrrpTruncated => "drop_vrrp_truncated",
    /// Packets dropped: a VRRP message whose TTL or hop limit is not 255: it did not come from this link (RFC 9568 section 7.1).
    DropVrrpHopLimit => "drop_vrrp_hop_limit",
    /// Packets dropped: a VRRP message of another version than 3.
    DropVrrpVersion => "drop_vrrp_version",
    /// Packets dropped: a VRRP message of another type than advertisement.
    DropVrrpType => "drop_vrrp_type",
    /// Packets dropped: a VRRP message without any address (RFC 9568 section 5.2.5).
    DropVrrpCount => "drop_vrrp_count",
    /// Packets dropped: a VRRP message whose checksum is wrong.
    DropVrrpChecksum => "drop_vrrp_checksum",
    /// VRRP advertisements of other virtual routers than this group's: not looked at further.
    VrrpOtherRouters => "vrrp_other_routers",
    /// VRRP advertisements of this group's virtual router from an address of this appliance: a loop on the link.
    VrrpOwn => "vrrp_own",
    /// VRRP advertisements of this group's virtual router that are no rival's: of its active, or of one that resigns.
    VrrpHeard => "vrrp_heard",
    /// VRRP advertisements of this group's virtual router from someone else, while this appliance is active.
    VrrpRivals => "vrrp_rivals",
    /// ARP, neighbour discovery and frames from a virtual MAC by which someone else uses what is this appliance's.
    AddressRivals => "address_rivals",
    /// VRRP advertisements handed over for sending.
    VrrpAdvertised => "vrrp_advertised",
    /// Packets dropped: a checksum is wrong.
    DropChecksum => "drop_checksum",
    /// Packets not sent: the header lengths in the request or in the headers do not fit the packet.
    DropTxHeaders => "drop_tx_headers",
    /// Packets not sent: a transport checksum was asked for a fragment.
    DropTxFragment => "drop_tx_fragment",
    /// Packets not sent: a transport checksum was asked for a protocol that has none.
    DropTxProtocol => "drop_tx_protocol",
    /// Packets not sent: the port sends one segment only and the packet does not fit in one.
    DropTxSegments => "drop_tx_segments",
    /// Liveness frames sent: heartbeats on any port.
    LivenessSent => "liveness_sent",
    /// Heartbeats received and opened.
    LivenessHeard => "liveness_heard",
    /// Liveness frames dropped: not of this format.
    LivenessMalformed => "liveness_malformed",
    /// Liveness frames dropped: for another member.
    LivenessNotForUs => "liveness_not_for_us",
    /// Liveness frames dropped: with this appliance's own node number; a loop, or a second appliance with it.
    LivenessOwn => "liveness_own",
    /// Liveness frames dropped: of a node that is not configured as a peer.
    LivenessUnknownNode => "liveness_unknown_node",
    /// Heartbeats dropped: under a session that is not known, as for a moment after a restart.
    LivenessUnknownSession => "liveness_unknown_session",
    /// Pieces of the leader's services dropped: of another edition, or out of order. They are asked for again.
    ServicesUnfit => "services_unfit",
    /// Editions of the leader's services that were put together, and were not what the leader says of them.
    ServicesBroken => "services_broken",
    /// Heartbeats dropped: not sealed with the session's key.
    LivenessForged => "liveness_forged",
    /// Heartbeats dropped: accepted before.
    LivenessReplayed => "liveness_replayed",
    /// Heartbeats dropped: below the replay window.
    LivenessTooOld => "liveness_too_old",
    /// Heartbeats of someone that claims a lower term than the one followed.
    LivenessLowerTerm => "liveness_lower_term",
    /// Liveness frames not sent: too many wait for the driver.
    LivenessTxFull => "liveness_tx_full",
    /// Handshake messages dropped: too many in a second on one port.
    HandshakeFlood => "handshake_flood",
    /// Handshake messages dropped: their sender holds no key that is accepted here.
    HandshakeForged => "handshake_forged",
    /// Handshake messages dropped: handled before, or both sides started; common.
    HandshakeStale => "handshake_stale",
    /// Handshake messages dropped: of a member that cannot be worked with, or a second one of its number.
    HandshakeRefused => "handshake_refused",
    /// Links of tracked ports (`failover.track`) that went down.
    LinkDowns => "link_downs",
    /// Handovers to a standby in sync that was healthier.
    HealthHandovers => "health_handovers",
    /// Runs of the tracking script (`failover.track_script`).
    TrackRuns => "track_runs",
    /// Those that ended with another status than 0, or could not be started.
    TrackFailures => "track_failures",
    /// Those that took too long and were killed.
    TrackTimeouts => "track_timeouts",
    /// Requests to the witness (`failover.witness`).
    WitnessAsked => "witness_asked",
    /// Answers of the witness.
    WitnessAnswered => "witness_answered",
    /// Those of them that grant what was asked for.
    WitnessGranted => "witness_granted",
    /// Requests to the witness that could not be sent.
    WitnessUnsent => "witness_unsent",
    /// Datagrams from the witness dropped: not of this format.
    WitnessMalformed => "witness_malformed",
    /// Datagrams from the witness dropped: not sealed with a key of the group's, or not from its address.
    WitnessForged => "witness_forged",
    /// Answers of the witness dropped: to another process, or to a request that was answered or is long past.
    WitnessStale => "witness_stale",
    /// Runs of the command that fences a silent leader (`failover.fence`).
    FenceRuns => "fence_runs",
    /// Those that ended with another status than 0, took too long, or could not be started; and such as were not, since it was
    /// too late for them.
    FenceFailures => "fence_failures",
    /// Runs of the command that is told of changes of role (`failover.notify`).
    NotifyRuns => "notify_runs",
    /// Those that ended with another status than 0, or could not be started.
    NotifyFailures => "notify_failures",
    /// Those that took too long and were killed.
    NotifyTimeouts => "notify_timeouts",
    /// Changes of role for which the command was not run: an earlier run took until a newer change.
    NotifySkipped => "notify_skipped",
    /// Packets not sent: the port's queue is full.
    DropTxFull => "drop_tx_full",
    /// Packets not sent: the ring to the worker that owns the port's queue is full.
    DropTxRelayFull => "drop_tx_relay_full",
    /// Service packets not sent: the lease does not cover the instant of their transmit.
    DropTxLease => "drop_tx_lease",
    /// Packets dropped, or not made: no packet buffer was free.
    DropNoBuffer => "drop_no_buffer",
    /// Packets dropped: the ring to the worker that owns their shard is full.
    DropHandOverFull => "drop_hand_over_full",
    /// Packets dropped: the ring to the master is full.
    DropPuntFull => "drop_punt_full",
    /// Liveness frames dropped: the ring to the liveness thread is full.
    DropLivenessFull => "drop_liveness_full",
}

/// A set of counters with one writer and any number of readers.
#[derive(Debug)]
pub struct Counters {
    cells: [AtomicU64; Counter::ALL.len()],
}

impl Default for Counters {
    fn default() -> Counters {
        Counters { cells: [const { AtomicU64::new(0) }; Counter::ALL.len()] }
    }
}

impl Counters {
    /// Counts one. Only the set's one writer calls this: it is a plain load and
    /// store, with no locked instruction.
    pub fn bump(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n`. As [`Counters::bump`].
    pub fn add(&self, counter: Counter, n: u64) {
        let cell = &self.cells[counter as usize];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Its value now.
    pub fn value(&self, counter: Counter) -> u64 {
        self.cells[counter as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Counter::ALL.iter().map(|c| c.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Counter::ALL.len());
    }

    #[test]
    fn bumping_adds_up() {
        let counters = Counters::default();
        counters.bump(Counter::RxPackets);
        counters.add(Counter::RxPackets, 2);
        assert_eq!(counters.value(Counter::RxPackets), 3);
        assert_eq!(counters.value(Counter::TxPackets), 0);
    }
}
