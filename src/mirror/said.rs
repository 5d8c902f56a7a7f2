//! What a frame has said so far, by which its records are short: the term in its header, and the services and real servers that
//! records in front have named. To a service belongs a term: of the many flows that are older than the frame's term most are of one.
//!
//! Most flows of a frame share their virtual server and pool, and many of them the real server. A record that says one of these in
//! full puts it in one of [`PLACES`] places, which the sender chooses; a record behind it in the same frame names that place
//! instead. Nothing of it outlives the frame, so there is nothing that both ends would have to agree about, and nothing is lost with
//! another frame. And what a record says depends on no configuration: members may have different ones.

use crate::base::ids::{NodeId, PoolId, Term, VirtualServerId};
use crate::flow::image::Image;
use crate::flow::key::Address;
use crate::flow::layout::Names;
use crate::mirror::record::FlowState;

/// Places for services, and as many for real servers. Where the sender has two for one place, the later one is there.
pub const PLACES: usize = u64::BITS as usize;

/// A service (virtual server, pool, address, port, VLAN and protocol) in a term, or a real server (id, address and port): what
/// flows have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// Of a service the virtual server in the lower half, and the pool; of a real server its own.
    ids: u64,
    /// Protocol 16 bits, VLAN 16, port 16, node of the term 16; a real server has no more than the port.
    rest: u64,
    /// Of the term.
    counter: u64,
    /// IPv4 as in [`Address`], so that a part is the same however it was made.
    address: [u64; 2],
}

/// An address's bytes as words of a little-endian load.
fn words(address: &Address) -> [u64; 2] {
    let octets = address.octets();
    [0, 8].map(|at| octets[at..].first_chunk().map_or(0, |half| u64::from_le_bytes(*half)))
}

/// The same of an IPv4 address in the packet's byte order.
#[inline(always)]
const fn v4_words(address: u32) -> [u64; 2] {
    [0, 0xffff_0000 | (address as u64) << 32]
}

#[inline(always)]
const fn rest(protocol: u8, vlan: u16, port: u16, node: NodeId) -> u64 {
    protocol as u64 | (vlan as u64) << 16 | (port as u64) << 32 | (node.0 as u64) << 48
}

#[inline(always)]
const fn service_ids(virtual_server: VirtualServerId, pool: PoolId) -> u64 {
    virtual_server.0 as u64 | (pool.0 as u64) << 32
}

impl Part {
    /// A flow's service, in the term in which the flow last changed.
    pub fn service(flow: &FlowState) -> Part {
        let (client, term) = (&flow.client, flow.stamp.term);
        Part {
            ids: service_ids(flow.virtual_server, flow.pool),
            rest: rest(client.protocol, client.vlan, client.dst_port, term.node),
            counter: term.counter,
            address: words(&client.dst),
        }
    }

    /// Its real server.
    pub fn server(flow: &FlowState) -> Part {
        let server = &flow.server;
        let (ids, rest) = (flow.server_id.0.into(), rest(0, 0, server.src_port, NodeId(0)));
        Part { ids, rest, counter: 0, address: words(&server.src) }
    }

    /// The service of a flow of these names whose client's packets have this image.
    #[inline(always)]
    pub fn v4_service(names: &Names, client: Image) -> Part {
        let (ends, term) = (client.v4_endpoints(), names.changed.term);
        Part {
            ids: service_ids(names.virtual_server, names.pool),
            rest: rest(client.v4_protocol(), client.vlan(), u16::from_be(ends.dst_port), term.node),
            counter: term.counter,
            address: v4_words(ends.dst),
        }
    }

    /// The real server whose packets have this image.
    #[inline(always)]
    pub fn v4_server(names: &Names, server: Image) -> Part {
        let ends = server.v4_endpoints();
        let rest = rest(0, 0, u16::from_be(ends.src_port), NodeId(0));
        Part { ids: names.server_id.0.into(), rest, counter: 0, address: v4_words(ends.src) }
    }

    /// From its fields; of a real server, of no term.
    pub fn new(ids: [u32; 2], (protocol, vlan, port): (u8, u16, u16), address: &Address, term: Term) -> Part {
        let ids = u64::from(ids[0]) | u64::from(ids[1]) << 32;
        let rest = rest(protocol, vlan, port, term.node);
        Part { ids, rest, counter: term.counter, address: words(address) }
    }

    /// The term of a service.
    #[inline(always)]
    pub const fn term(&self) -> Term {
        Term { counter: self.counter, node: NodeId((self.rest >> 48) as u16) }
    }

    /// An IPv4 address in the order of the wire.
    #[inline(always)]
    pub const fn v4_octets(&self) -> [u8; 4] {
        ((self.address[1] >> 32) as u32).to_le_bytes()
    }

    /// The virtual server and the pool, or the real server's id.
    pub const fn ids(&self) -> [u32; 2] {
        [self.ids as u32, (self.ids >> 32) as u32]
    }

    /// Protocol, VLAN and port.
    pub const fn rest(&self) -> (u8, u16, u16) {
        (self.rest as u8, (self.rest >> 16) as u16, (self.rest >> 32) as u16)
    }

    /// The address.
    pub fn address(&self) -> Address {
        let [low, high] = self.address.map(u64::to_le_bytes);
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&low);
        octets[8..].copy_from_slice(&high);
        // The mapped form of an IPv4 address is that address.
        Address::v6(octets)
    }

    /// Where the sender puts it.
    #[inline(always)]
    const fn place(&self) -> u8 {
        let mixed = self.ids
            ^ self.rest.rotate_left(24)
            ^ self.counter.rotate_left(37)
            ^ self.address[0]
            ^ self.address[1].rotate_left(11);
        // Fibonacci hashing: the highest bits depend on all.
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES.ilog2())) as u8
    }
}

/// Those of one kind that a frame has said.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    /// Bit i: place i has one of this frame.
    said: u64,
    parts: [Part; PLACES],
}

impl Parts {
    /// The place of a part, and whether the frame has said so already.
    #[inline(always)]
    pub fn look(&self, part: &Part) -> (u8, bool) {
        let place = part.place();
        let is_said = self.said >> place & 1 == 1 && self.parts[usize::from(place)] == *part;
        (place, is_said)
    }

    /// The frame says a part.
    #[inline(always)]
    pub fn put(&mut self, place: u8, part: Part) {
        let place = usize::from(place) % PLACES;
        self.said |= 1 << place;
        self.parts[place] = part;
    }

    /// What is there, if the frame has said something.
    #[inline(always)]
    pub fn at(&self, place: u8) -> Option<Part> {
        let place = usize::from(place) % PLACES;
        (self.said >> place & 1 == 1).then_some(self.parts[place])
    }
}

/// What a frame has said so far.
#[derive(Clone, Debug)]
pub struct Said {
    /// The term in its header.
    pub(super) term: Term,
    pub(super) services: Parts,
    pub(super) servers: Parts,
}

impl Said {
    /// Of a frame of this term: nothing.
    pub const fn new(term: Term) -> Said {
        let none = Part { ids: 0, rest: 0, counter: 0, address: [0; 2] };
        let services = Parts { said: 0, parts: [none; PLACES] };
        let servers = Parts { said: 0, parts: [none; PLACES] };
        Said { term, services, servers }
    }

    /// Another frame begins, of this term.
    pub const fn begin(&mut self, term: Term) {
        (self.term, self.services.said, self.servers.said) = (term, 0, 0);
    }
}
