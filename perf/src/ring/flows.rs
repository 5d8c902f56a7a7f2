//! The measured flows: frames of both of their sides, and whether what comes out is right.

use std::collections::HashSet;

use anyhow::{Context as _, Result, bail, ensure};
use core::net::Ipv4Addr;

use crate::ring::appliance::{GATEWAY_MAC, server_mac};
use crate::ring::config::{VIRTUAL, VIRTUAL_MAC, server, server_number, snat, snat_number};
use crate::ring::frames::{Endpoint, Frame};
use crate::ring::plan::{Forwarding, Plan, Protocol};
use crate::traffic::population;

/// Of the packets that come out, one in so many has its checksums verified; the addresses of
/// every one are.
const SUMMED_ONE_IN: u32 = 16;

/// A side of the appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where clients are.
    Client,
    /// Where servers are.
    Server,
}

/// How servers see a flow: what its first packet looked like when it came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    port: u16,
    snat: u8,
    server: u8,
}

const UNSEEN: Seen = Seen { port: 0, snat: u8::MAX, server: u8::MAX };

/// The flows by number, settled ones first.
pub struct Flows {
    forwarding: Forwarding,
    protocol: Protocol,
    /// By flow, the settled ones.
    seen: Vec<Seen>,
    /// First packets that have not come out yet.
    awaited: HashSet<u32>,
    /// The number of the next new flow.
    next: u32,
    checked: u32,
}

impl Flows {
    /// None of them begun.
    pub fn new(plan: &Plan) -> Flows {
        Flows {
            forwarding: plan.forwarding,
            protocol: plan.protocol,
            seen: vec![UNSEEN; plan.flows as usize],
            awaited: HashSet::new(),
            next: plan.flows,
            checked: 0,
        }
    }

    /// Whether a flow is a TCP connection.
    pub const fn is_tcp(&self, flow: u32) -> bool {
        match self.protocol {
            Protocol::Tcp => true,
            Protocol::Udp => false,
            Protocol::Mix => flow % 2 == 0,
        }
    }

    /// A flow that was not there before.
    pub fn begin(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    /// Its first packet is on its way.
    pub fn await_first(&mut self, flow: u32) {
        self.awaited.insert(flow);
    }

    /// First packets that have not come out yet.
    pub fn awaited(&self) -> usize {
        self.awaited.len()
    }

    fn client(flow: u32) -> Endpoint {
        let source = population::source(u64::from(flow));
        Endpoint { address: Ipv4Addr::from_bits(source.host), port: source.port }
    }

    /// The source that a flow's server sees.
    fn source(&self, flow: u32, seen: Seen) -> Endpoint {
        match self.forwarding {
            Forwarding::Nat => Flows::client(flow),
            Forwarding::FullNat => Endpoint { address: snat(seen.snat), port: seen.port },
        }
    }

    /// A packet of a flow's client to the virtual server; `flags` if the flow is TCP.
    pub fn forth(&self, flow: u32, packet: u32, flags: u8) -> Frame {
        Frame {
            to_mac: VIRTUAL_MAC,
            from_mac: GATEWAY_MAC,
            from: Flows::client(flow),
            to: VIRTUAL,
            flags: self.is_tcp(flow).then_some(flags),
            ttl: 64,
            tag: tag(flow, packet),
        }
    }

    /// A packet of a settled flow's server to what it takes for the client.
    pub fn back(&self, flow: u32, packet: u32, flags: u8) -> Frame {
        let seen = self.seen[flow as usize];
        Frame {
            to_mac: VIRTUAL_MAC,
            from_mac: server_mac(seen.server),
            from: server(seen.server),
            to: self.source(flow, seen),
            flags: self.is_tcp(flow).then_some(flags),
            ttl: 64,
            tag: tag(flow, packet),
        }
    }

    /// Looks at the lengths and checksums of a frame that came out, of one in so many.
    pub fn check_sums(&mut self, bytes: &[u8]) -> Result<()> {
        self.checked = self.checked.wrapping_add(1);
        if self.checked % SUMMED_ONE_IN == 0 {
            let frame = Frame::read(bytes).with_context(|| format!("not a frame of ours: {bytes:02x?}"))?;
            ensure!(frame.is_sound(bytes), "a wrong length or checksum: {frame:?}");
        }
        Ok(())
    }

    /// Looks at the head of a frame that came out on a side: is it translated as it must be? Gives
    /// the packet's number; `None`: it was a flow's first.
    pub fn check(&mut self, side: Side, head: &[u8]) -> Result<Option<u32>> {
        let frame = Frame::read(head).with_context(|| format!("not a frame of ours: {head:02x?}"))?;
        let (flow, packet) = ((frame.tag >> 32) as u32, frame.tag as u32);
        ensure!(frame.from_mac == VIRTUAL_MAC && frame.ttl == 63, "not forwarded: {frame:?}");
        match side {
            Side::Client => {
                let right = frame.from == VIRTUAL
                    && frame.to == Flows::client(flow)
                    && frame.to_mac == GATEWAY_MAC
                    && frame.flags.is_some() == self.is_tcp(flow);
                ensure!(right, "to clients, of flow {flow}: {frame:?}");
                Ok(Some(packet))
            }
            Side::Server => {
                let seen = self.seen_as(flow, &frame)?;
                if self.awaited.remove(&flow) {
                    if let Some(place) = self.seen.get_mut(flow as usize) {
                        *place = seen;
                    }
                    return Ok(None);
                }
                let known = self.seen.get(flow as usize).copied().unwrap_or(UNSEEN);
                ensure!(known == seen, "to servers, flow {flow} was {known:?} and is {seen:?}");
                Ok(Some(packet))
            }
        }
    }

    /// What a frame to a server says of its flow.
    fn seen_as(&self, flow: u32, frame: &Frame) -> Result<Seen> {
        let server = server_number(frame.to).with_context(|| format!("to no server: {frame:?}"))?;
        let seen = match self.forwarding {
            Forwarding::Nat => Seen { port: 0, snat: 0, server },
            Forwarding::FullNat => match snat_number(frame.from.address) {
                Some(snat) => Seen { port: frame.from.port, snat, server },
                None => bail!("from no source-NAT address: {frame:?}"),
            },
        };
        let right = frame.from == self.source(flow, seen)
            && frame.to_mac == server_mac(server)
            && frame.flags.is_some() == self.is_tcp(flow);
        ensure!(right, "to servers, of flow {flow}: {frame:?}");
        Ok(seen)
    }
}

const fn tag(flow: u32, packet: u32) -> u64 {
    (flow as u64) << 32 | packet as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::frames::FRAME_MIN;
    use crate::ring::frames::flags::{ACK, SYN};

    /// A frame as the appliance should send it on.
    fn forwarded(frame: Frame) -> Frame {
        Frame { from_mac: VIRTUAL_MAC, ttl: 63, ..frame }
    }

    fn bytes(frame: Frame) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_MIN];
        frame.write(&mut bytes);
        bytes
    }

    #[test]
    fn both_sides_of_a_flow_are_known_once_its_first_packet_came_out() {
        let mut flows = Flows::new(&Plan::plain(10));
        flows.await_first(4);
        let source = Endpoint { address: snat(3), port: 5000 };
        let first = Frame { to_mac: server_mac(7), from: source, to: server(7), ..flows.forth(4, 0, SYN) };
        let first = forwarded(first);
        assert_eq!(flows.check(Side::Server, &bytes(first)).expect("right"), None);
        assert_eq!(flows.awaited(), 0);
        let answer = flows.back(4, 9, ACK);
        assert_eq!((answer.from, answer.to), (server(7), source));
        let out = Frame { to_mac: GATEWAY_MAC, from: VIRTUAL, to: flows.forth(4, 0, ACK).from, ..answer };
        assert_eq!(flows.check(Side::Client, &bytes(forwarded(out))).expect("right"), Some(9));

        // Whatever is not as it was then, or not forwarded, is found.
        let again = Frame { tag: first.tag + 5, ..first };
        assert_eq!(flows.check(Side::Server, &bytes(again)).expect("right"), Some(5));
        let moved = Endpoint { port: 5001, ..source };
        for wrong in [
            Frame { from: moved, ..again },
            Frame { to: server(8), ..again },
            Frame { to_mac: GATEWAY_MAC, ..again },
            Frame { ttl: 64, ..again },
            Frame { from_mac: GATEWAY_MAC, ..again },
            Frame { flags: None, ..again },
            Frame { tag: 0, ..again },
        ] {
            assert!(flows.check(Side::Server, &bytes(wrong)).is_err(), "{wrong:?}");
        }
        for wrong in [Frame { to: moved, ..out }, Frame { from: server(7), ..out }] {
            assert!(flows.check(Side::Client, &bytes(forwarded(wrong))).is_err(), "{wrong:?}");
        }
    }
}
