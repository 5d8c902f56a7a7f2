//! A flow as the table holds it: what forwarding touches in one line, the rest beside it.
//!
//! | part | bytes | what |
//! |---|---|---|
//! | [`Hot`] | 64 | both keys' images, what changes in a packet, next hops, TCP state, counts |
//! | [`Cold`] | 32 | ids, versions: for the mirror and for whoever asks |
//! | [`Wide`] | 64 | the four addresses of an IPv6 flow; never touched for IPv4 |
//!
//! [`Flow`] is the same as a value, for everything that is not done for each packet.

use zerocopy::FromZeros;

use crate::base::ids::{NodeId, PoolId, ServerId, ShardId, Term, Version, VirtualServerId};
use crate::base::limits::NEIGHBOURS_MAX;
use crate::flow::entry::{ADJACENCY_UNKNOWN, Direction, Flow, FlowFlags, Stamp};
use crate::flow::image::Image;
use crate::flow::key::{Address, Key};
use crate::flow::tcp_state::TcpState;
use crate::wire::checksum::Delta;

/// An adjacency that is not known, in a hot line.
const UNKNOWN: u16 = u16::MAX;
const _: () = assert!(NEIGHBOURS_MAX < UNKNOWN as usize);

/// What forwarding a packet of a flow reads and writes: one line.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(64))]
pub struct Hot {
    /// What packets of each direction carry; none: there is no flow.
    images: [Image; 2],
    /// What translating a packet of each direction does to its transport checksum ([`Delta::swapped`]).
    transport: [u16; 2],
    /// And to its IPv4 header's, with one hop less.
    network: [u16; 2],
    /// Where packets of each direction go: an index into the worker's adjacencies.
    adjacency: [u16; 2],
    /// [`TcpState::number`].
    tcp: u8,
    flags: FlowFlags,
    /// All shards' numbers fit: see [`SHARDS`](crate::base::limits::SHARDS).
    shard: u8,
    unused: u8,
    /// Packets in both directions in the lower half, bytes of IP packets in the upper one: so that one addition counts
    /// both. Of an empty place: the next empty one.
    counts: u128,
}

const _: () = assert!(size_of::<Hot>() == 64);
// Images are little-endian loads, and checksums are changed as this machine loads them.
const _: () = assert!(cfg!(target_endian = "little"), "no big-endian machine was ever tried");

impl Hot {
    /// What packets of a direction carry.
    #[inline(always)]
    pub const fn image(&self, direction: Direction) -> Image {
        self.images[direction as usize]
    }

    /// What answers to packets of a direction carry: reversed, it is what they go out with.
    #[inline(always)]
    pub const fn answer(&self, direction: Direction) -> Image {
        self.images[1 - direction as usize]
    }

    /// What translating a packet of a direction does to its transport checksum ([`Delta::swapped`]).
    #[inline(always)]
    pub const fn transport(&self, direction: Direction) -> Delta {
        Delta::from_folded(self.transport[direction as usize])
    }

    /// What translating an IPv4 packet of a direction, and taking a hop from it, does to its header's checksum
    /// ([`Delta::swapped`]).
    #[inline(always)]
    pub const fn network(&self, direction: Direction) -> Delta {
        Delta::from_folded(self.network[direction as usize])
    }

    /// Where packets of a direction go, or [`ADJACENCY_UNKNOWN`].
    #[inline(always)]
    pub const fn adjacency(&self, direction: Direction) -> u32 {
        match self.adjacency[direction as usize] {
            UNKNOWN => ADJACENCY_UNKNOWN,
            index => index as u32,
        }
    }

    /// Sets both adjacencies: towards the client, and towards the real server.
    pub fn set_adjacencies(&mut self, client: u32, server: u32) {
        self.adjacency = adjacencies_of(client, server);
    }

    /// As [`Hot::adjacency`], with an index that no neighbour has for one that is not known.
    #[inline(always)]
    pub const fn adjacency_slot(&self, direction: Direction) -> u32 {
        self.adjacency[direction as usize] as u32
    }

    /// [`TcpState::number`].
    #[inline(always)]
    pub const fn tcp_number(&self) -> u8 {
        self.tcp
    }

    /// Yes-or-no facts.
    #[inline(always)]
    pub const fn flags(&self) -> FlowFlags {
        self.flags
    }

    /// Changes yes-or-no facts.
    pub const fn set_flags(&mut self, flags: FlowFlags) {
        self.flags = flags;
    }

    /// Its shard.
    pub const fn shard(&self) -> ShardId {
        ShardId(self.shard as u16)
    }

    /// Takes note of a packet.
    #[inline(always)]
    pub const fn count(&mut self, bytes: u64) {
        self.counts += counts(1, bytes);
    }

    /// Packets and bytes of IP packets, in both directions.
    pub const fn counted(&self) -> (u64, u64) {
        (self.counts as u64, (self.counts >> 64) as u64)
    }

    /// The flow has come further.
    pub const fn set_state(&mut self, state: TcpState) {
        self.tcp = state.number();
    }

    /// Takes over what changes in a flow's life.
    pub(super) fn change(&mut self, flow: &Flow) {
        self.adjacency = adjacencies(flow);
        self.tcp = flow.tcp.number();
        self.flags = flow.flags;
        self.counts = counts(flow.packets, flow.bytes);
    }

    /// Whether there is a flow.
    pub(super) const fn is_occupied(&self) -> bool {
        !self.images[0].is_none()
    }

    /// Empties the place, and links it to the next empty one.
    pub(super) fn free(&mut self, next: u32) {
        *self = Hot { counts: u128::from(next), ..Hot::new_zeroed() };
    }

    /// Of an empty place: the next empty one.
    pub(super) const fn next_free(&self) -> u32 {
        self.counts as u32
    }
}

/// Packets and bytes as a hot line has them.
#[inline(always)]
const fn counts(packets: u64, bytes: u64) -> u128 {
    packets as u128 | (bytes as u128) << 64
}

/// What the mirror and reports need of a flow.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
pub(super) struct Cold {
    virtual_server: u32,
    pool: u32,
    server_id: u32,
    changed_node: u16,
    /// [`Version`] and [`Term::counter`] of the last change, and the version of the
    /// first: 48 bits each, the lowest 16 first.
    changed_version: [u16; 3],
    changed_counter: [u16; 3],
    created_version: [u16; 3],
}

const _: () = assert!(size_of::<Cold>() == 32);

/// By what peers know a flow's parts, and when it last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// Its virtual server.
    pub virtual_server: VirtualServerId,
    /// Its pool.
    pub pool: PoolId,
    /// Its real server.
    pub server_id: ServerId,
    /// When its state last changed.
    pub changed: Stamp,
}

/// Versions and term counters above this are refused: a change of every flow's state each microsecond gets
/// there in nine years.
pub const STAMP_MAX: u64 = (1 << 48) - 1;

const fn narrow(n: u64) -> [u16; 3] {
    [n as u16, (n >> 16) as u16, (n >> 32) as u16]
}

const fn wide(n: [u16; 3]) -> u64 {
    n[0] as u64 | (n[1] as u64) << 16 | (n[2] as u64) << 32
}

impl Cold {
    pub(super) fn of(flow: &Flow) -> Cold {
        Cold {
            virtual_server: flow.virtual_server.0,
            pool: flow.pool.0,
            server_id: flow.server_id.0,
            changed_node: flow.changed.term.node.0,
            changed_version: narrow(flow.changed.version.0),
            changed_counter: narrow(flow.changed.term.counter),
            created_version: narrow(flow.created.0),
        }
    }

    pub(super) const fn set_changed(&mut self, stamp: Stamp) {
        self.changed_node = stamp.term.node.0;
        self.changed_version = narrow(stamp.version.0);
        self.changed_counter = narrow(stamp.term.counter);
    }

    pub(super) const fn begin_again(&mut self, stamp: Stamp) {
        self.set_changed(stamp);
        self.created_version = narrow(stamp.version.0);
    }

    pub(super) const fn changed(&self) -> Stamp {
        Stamp {
            term: Term { counter: wide(self.changed_counter), node: NodeId(self.changed_node) },
            version: Version(wide(self.changed_version)),
        }
    }

    pub(super) const fn names(&self) -> Names {
        Names {
            virtual_server: VirtualServerId(self.virtual_server),
            pool: PoolId(self.pool),
            server_id: ServerId(self.server_id),
            changed: self.changed(),
        }
    }

    pub(super) const fn created(&self) -> Version {
        Version(wide(self.created_version))
    }
}

/// The addresses of an IPv6 flow: client, virtual server, real server, and where its answers go.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(64))]
pub(super) struct Wide {
    addresses: [Address; 4],
}

/// The addresses with which packets of an IPv6 flow go out one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Source address.
    pub src: [u8; 16],
    /// Destination address.
    pub dst: [u8; 16],
}

impl Wide {
    /// The way out of packets of a direction, if they carry these addresses.
    #[inline]
    pub(super) fn way(&self, direction: Direction, src: &[u8; 16], dst: &[u8; 16]) -> Option<Way> {
        let [client, virtual_address, server, answers] = self.addresses.map(Address::octets);
        let (own, out) = match direction {
            Direction::FromClient => ((client, virtual_address), (answers, server)),
            Direction::FromServer => ((server, answers), (virtual_address, client)),
        };
        (own.0 == *src && own.1 == *dst).then_some(Way { src: out.0, dst: out.1 })
    }

    fn of(flow: &Flow) -> Wide {
        Wide { addresses: [flow.client.src, flow.client.dst, flow.server.src, flow.server.dst] }
    }

    pub(super) fn key(&self, direction: Direction, image: Image) -> Key {
        let [client, virtual_address, server, answers] = self.addresses;
        let (src, dst) = match direction {
            Direction::FromClient => (client, virtual_address),
            Direction::FromServer => (server, answers),
        };
        let (src_port, dst_port, vlan, protocol) = image.rest();
        Key { src, dst, src_port, dst_port, vlan, protocol }
    }
}

/// The parts of one flow, whose keys have these images; the last one only of an IPv6 flow.
pub(super) fn split(flow: &Flow, images: [Image; 2]) -> (Hot, Cold, Option<Wide>) {
    let v4 = images[0].is_v4() && images[1].is_v4();
    let (addresses, all) = if v4 {
        let [client, server] = images.map(Image::v4_endpoints);
        let addresses = Delta::NONE.dwords([(client.src, server.dst), (client.dst, server.src)]);
        let ports = [(client.src_port, server.dst_port), (client.dst_port, server.src_port)];
        // Of words as they lie in the packet.
        (addresses, addresses.words(ports))
    } else {
        let (client, server) = (&flow.client, &flow.server);
        let addresses =
            Delta::NONE.address(client.src.ip(), server.dst.ip()).address(client.dst.ip(), server.src.ip());
        let all = addresses.port(client.src_port, server.dst_port).port(client.dst_port, server.src_port);
        (addresses.swapped(), all.swapped())
    };
    // The other direction undoes it all.
    let (transport, network) = ([all, all.undone()], [addresses, addresses.undone()]);
    let hot = Hot {
        images,
        transport: transport.map(Delta::folded),
        network: network.map(|addresses| addresses.and(ONE_HOP_LESS).folded()),
        adjacency: adjacencies(flow),
        tcp: flow.tcp.number(),
        flags: flow.flags,
        shard: flow.shard.0 as u8,
        unused: 0,
        counts: counts(flow.packets, flow.bytes),
    };
    (hot, Cold::of(flow), (!v4).then(|| Wide::of(flow)))
}

/// By direction: where packets from the client go, and from the server.
fn adjacencies_of(client: u32, server: u32) -> [u16; 2] {
    [server, client].map(|index| u16::try_from(index).unwrap_or(UNKNOWN))
}

/// The next hops of packets of each direction.
fn adjacencies(flow: &Flow) -> [u16; 2] {
    adjacencies_of(flow.client_adjacency, flow.server_adjacency)
}

/// The time to live is the upper byte of its word (RFC 791 section 3.1): one less, whatever it was.
const ONE_HOP_LESS: Delta = Delta::NONE.word(0x0100, 0).swapped();

/// The flow of these parts.
pub(super) fn join(hot: &Hot, cold: &Cold, wide: impl FnOnce() -> Wide) -> Flow {
    let (client, server) = match (hot.images[0].v4_key(), hot.images[1].v4_key()) {
        (Some(client), Some(server)) => (client, server),
        _ => {
            let wide = wide();
            (wide.key(Direction::FromClient, hot.images[0]), wide.key(Direction::FromServer, hot.images[1]))
        }
    };
    Flow {
        client,
        server,
        shard: hot.shard(),
        virtual_server: VirtualServerId(cold.virtual_server),
        pool: PoolId(cold.pool),
        server_id: ServerId(cold.server_id),
        client_adjacency: hot.adjacency(Direction::FromServer),
        server_adjacency: hot.adjacency(Direction::FromClient),
        packets: hot.counted().0,
        bytes: hot.counted().1,
        tcp: TcpState::from_number(hot.tcp).unwrap_or(TcpState::Closed),
        flags: hot.flags,
        created: cold.created(),
        changed: cold.changed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::flow::image::Imager;

    fn images(flow: &Flow, imager: &Imager) -> [Image; 2] {
        [imager.of(&flow.client), imager.of(&flow.server)]
    }

    fn flow(rng: &mut Rng) -> Flow {
        let v4 = rng.bool();
        let mut address = || {
            let bytes = rng.u128(..).to_be_bytes();
            if v4 { Address::v4([bytes[0], bytes[1], bytes[2], bytes[3]]) } else { Address::v6(bytes) }
        };
        let (a, b, c, d) = (address(), address(), address(), address());
        let client =
            Key { src: a, dst: b, src_port: rng.u16(..), dst_port: rng.u16(..), vlan: 0, protocol: 6 };
        let server = Key { src: c, dst: d, src_port: rng.u16(..), dst_port: rng.u16(..), ..client };
        let mut flow = Flow::new(client, server, TcpState::ALL[rng.usize(0..8)]);
        flow.shard = ShardId(rng.u16(0..256));
        flow.virtual_server = VirtualServerId(rng.u32(..));
        flow.pool = PoolId(rng.u32(..));
        flow.server_id = ServerId(rng.u32(..));
        flow.client_adjacency = [7, ADJACENCY_UNKNOWN][rng.usize(0..2)];
        flow.server_adjacency = rng.u32(0..4096);
        (flow.packets, flow.bytes) = (rng.u64(..), rng.u64(..));
        flow.flags = FlowFlags::MIRRORED;
        flow.created = Version(rng.u64(0..=STAMP_MAX));
        let term = Term { counter: rng.u64(0..=STAMP_MAX), node: NodeId(rng.u16(..)) };
        flow.changed = Stamp { term, version: Version(rng.u64(0..=STAMP_MAX)) };
        flow
    }

    #[test]
    fn a_flow_in_parts_is_the_same_flow() {
        let imager = Imager::with_seed(1);
        let mut rng = Rng::with_seed(2);
        for round in 0..1000 {
            let flow = flow(&mut rng);
            let (hot, cold, wide) = split(&flow, images(&flow, &imager));
            assert_eq!(wide.is_none(), flow.client.src.is_v4());
            assert_eq!(join(&hot, &cold, || wide.expect("its addresses")), flow, "round {round}");
        }
    }

    #[test]
    fn what_a_packets_checksums_change_by_is_what_translating_it_step_by_step_gives() {
        let mut rng = Rng::with_seed(3);
        for _ in 0..1000 {
            let flow = flow(&mut rng);
            let (hot, ..) = split(&flow, images(&flow, &Imager::with_seed(1)));
            for direction in [Direction::FromClient, Direction::FromServer] {
                let (old, new) = (flow.key(direction), flow.translated(direction));
                let addresses =
                    Delta::NONE.address(old.src.ip(), new.src.ip()).address(old.dst.ip(), new.dst.ip());
                let (checksum, hops) = (rng.u16(..0xffff), rng.u16(2..=255) << 8);
                let header = addresses.word(hops, hops - 0x100).apply(checksum);
                assert_eq!(hot.network(direction).apply_swapped(checksum.to_be()).to_be(), header);
                let all = addresses.port(old.src_port, new.src_port).port(old.dst_port, new.dst_port);
                assert_eq!(
                    hot.transport(direction).apply_swapped(checksum.to_be()).to_be(),
                    all.apply(checksum)
                );
            }
        }
    }

    #[test]
    fn an_empty_place_is_no_flow_and_names_the_next() {
        let mut hot = Hot::new_zeroed();
        assert!(!hot.is_occupied());
        hot.free(17);
        assert!(!hot.is_occupied() && hot.next_free() == 17);
    }
}
