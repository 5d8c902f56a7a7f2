//! Mirror frames in and out: UDP over the dedicated port (REQ E3).
//!
//! Packets may wait at the leader for what a frame says, but never for a walk's. So a standby puts frames of a walk aside as they
//! come, and applies one of them a turn, behind all others, and more only where many wait: what packets wait for is not behind
//! all that are on their way. Frames depend on no order.

use core::net::IpAddr;
use std::collections::VecDeque;

use crate::base::buffer::Buffer;
use crate::base::counters::Counter;
use crate::base::io::{Io, TxClass};
use crate::base::limits::{MEMBERS_MAX, MIRROR_PACKET_MAX, WORKERS_MAX};
use crate::base::memory::prefetch;
use crate::base::time::Instant;
use crate::distributor::tell::Tell;
use crate::mirror::header::Header;
use crate::mirror::record::RECORDS_PER_FRAME_MAX;
use crate::mirror::{Frame, Variant, Written};
use crate::wire::checksum::Sum;
use crate::wire::ethernet::{self, EtherType, MacAddress};
use crate::wire::parse::Parsed;
use crate::wire::{IpProtocol, ipv4, ipv6, udp};
use crate::worker::Worker;
use crate::worker::message::Role;
use crate::worker::state::Applier;

/// Frames that a worker writes in one turn; more wait for the next.
const FRAMES_PER_TURN: usize = 32;

/// Streams to the workers of all peers: of each a frame of its walk leaves in a turn.
const STREAMS_MAX: usize = (MEMBERS_MAX - 1) * WORKERS_MAX;

/// Flows that begin or end by one record: it makes one, whose keys two others may have had.
const FLOWS_PER_RECORD_MAX: usize = 3;

/// Frames of walks put aside, from which on one more is applied in a turn. So a frame waits for some thirty turns at most, and its sender does not
/// take it for lost.
const ASIDE_PER_FRAME: usize = 8;

/// Frames of walks put aside at most; further ones are applied as they come.
const ASIDE_MAX: usize = 64;

/// Nor more than this part of the buffers that may be kept.
const ASIDE_SHARE: usize = 8;

const UDP_HEADER_LEN: usize = 8;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Frames of walks that wait for a turn.
pub(super) struct Aside<B> {
    frames: VecDeque<(B, Parsed)>,
    frames_max: usize,
}

impl<B> Aside<B> {
    /// None, and room; `buffers` are those that may be kept.
    pub(super) fn new(buffers: usize) -> Aside<B> {
        let frames_max = ASIDE_MAX.min(buffers / ASIDE_SHARE);
        Aside { frames: VecDeque::with_capacity(frames_max), frames_max }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// How many there are, and may be.
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.frames.len(), self.frames_max)
    }
}

/// A frame comes from a device or another CPU: so the waits for its lines overlap.
fn prefetch_frame<B: Buffer>(packet: &B, parsed: &Parsed) {
    let frame = packet.head().get(parsed.payload_offset()..parsed.end()).unwrap_or_default();
    frame.chunks(LINE).flat_map(<[u8]>::first).for_each(prefetch);
}

impl<B: Buffer> Worker<B> {
    /// A frame came in: it is applied, or put aside.
    pub(super) fn handle_mirror<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        packet: B,
        parsed: &Parsed,
        io: &mut I,
    ) {
        prefetch_frame(&packet, parsed);
        let frame = packet.head().get(parsed.payload_offset()..parsed.end()).unwrap_or_default();
        let Aside { frames, frames_max } = &mut self.aside;
        if self.role == Role::Standby && frames.len() < *frames_max && Header::says_that_it_walks(frame) {
            return frames.push_back((packet, *parsed));
        }
        self.apply_frame(now, packet, parsed, io);
    }

    /// The second half of [`Worker::poll`]: a walk goes on, for which no packet waits, whether it is told here or heard. Whether it
    /// did.
    pub fn poll_walks<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) -> bool {
        let mut worked = false;
        for _ in 0..self.aside.frames.len().div_ceil(ASIDE_PER_FRAME) {
            let Some((packet, parsed)) = self.aside.frames.pop_front() else { break };
            if let Some((next, parsed)) = self.aside.frames.front() {
                prefetch_frame(next, parsed);
            }
            self.apply_frame(now, packet, &parsed, io);
            worked = true;
        }
        for _ in 0..STREAMS_MAX {
            if !self.mirror.may_walk(now) || self.send_frame(now, true, io).is_none() {
                break;
            }
            worked = true;
        }
        worked
    }

    /// What came before a command is applied before it.
    pub(super) fn empty_aside<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) {
        while let Some((packet, parsed)) = self.aside.frames.pop_front() {
            self.apply_frame(now, packet, &parsed, io);
        }
    }

    fn apply_frame<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        mut packet: B,
        parsed: &Parsed,
        io: &mut I,
    ) {
        // A flow that the leader speaks of may be another worker's, until that has sent it home.
        let may_be_twice = self.role == Role::Standby && !self.is_all_home();
        if may_be_twice && self.mirror.variant() != Variant::TakenBeforeHome {
            return self.counters.bump(Counter::MirrorNotHome);
        }
        // Its sender takes it for lost, and says the newest again: by then others will have heard of these keys.
        if !self.placer.can_wait(FLOWS_PER_RECORD_MAX * RECORDS_PER_FRAME_MAX) {
            return self.counters.bump(Counter::DropTellFull);
        }
        let (from, to) = (parsed.payload_offset(), parsed.end());
        let Some(frame) = packet.head_mut().get_mut(from..to) else {
            return self.counters.bump(Counter::MirrorMalformed);
        };
        let Worker { mirror, flows, tables, toeplitz, placer, adjacencies, counts, events, counters, .. } =
            self;
        let mut applier = Applier {
            now,
            tables,
            toeplitz,
            workers: self.workers,
            worker: self.id,
            placer,
            counters,
            adjacencies,
            counts,
            resolve: |hop| super::state::push_resolve(events, hop),
        };
        match mirror.handle_frame(now, frame, flows, &mut applier, counters) {
            Frame::Taken => {}
            Frame::WrongTerm => counters.bump(Counter::MirrorWrongTerm),
            Frame::Refused { peer, why } => {
                counters.bump(Counter::MirrorRefused);
                self.disbelieve(now, peer, why.into());
            }
            Frame::Unknown => {
                counters.bump(Counter::MirrorUnknownPeer);
                if let Some((source, _)) = parsed.addresses(packet.head()) {
                    self.disbelieve_address(now, source);
                }
            }
            Frame::Dropped(counter) => counters.bump(counter),
        }
        self.settle(now, io);
        // Packets may wait for it at the leader: not until the frames behind it in the burst are applied too.
        if self.role == Role::Standby {
            self.send_frames(now, io);
        }
    }

    /// What is due, but for walks.
    pub(super) fn send_frames<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) {
        for _ in 0..FRAMES_PER_TURN {
            if !self.mirror.is_due(now, false) || self.send_frame(now, false, io).is_none() {
                return;
            }
        }
    }

    /// Writes one frame behind room for its headers, then the headers in front.
    fn send_frame<I: Io<Buf = B> + Tell>(&mut self, now: Instant, may_walk: bool, io: &mut I) -> Option<()> {
        let mirror = self.tables.snapshot.checked.mirror.as_ref()?;
        let port = &self.tables.snapshot.checked.ports[usize::from(mirror.port.0)];
        let largest = ethernet::HEADER_LEN + usize::from(port.mtu.min(MIRROR_PACKET_MAX));
        let room = ethernet::HEADER_LEN + ipv6::HEADER_LEN + UDP_HEADER_LEN;
        let Some(mut packet) = io.alloc() else {
            self.counters.bump(Counter::MirrorNotSent);
            return None;
        };
        packet.set_len(largest).ok()?;
        let out = packet.head_mut().get_mut(room..largest)?;
        let Written { peer, worker, len } = self.mirror.write_frame(now, &self.flows, may_walk, out)?;
        let to = mirror.peers.get(peer)?.address;
        let from = port.addresses.iter().map(|own| own.address).find(|own| own.is_ipv4() == to.is_ipv4());
        let hop = self.tables.routes.next_hop(to);
        let (Some(from), Some(hop)) = (from, hop) else {
            self.counters.bump(Counter::MirrorNotSent);
            return Some(());
        };
        let source_port = mirror.udp_port + self.id.0;
        let destination_port = mirror.udp_port + worker.0;
        packet.set_len(room + len).ok()?;
        let ip_len = if to.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let start = room - UDP_HEADER_LEN - ip_len - ethernet::HEADER_LEN;
        packet.trim_front(start).ok()?;
        let own = *self.link_addresses.get(usize::from(hop.port.0))?;
        write_headers(packet.head_mut(), own, from, to, source_port, destination_port);
        match self.adjacencies.index_of(hop) {
            Some(index) => self.send_by(now, packet, index, TxClass::Own, io),
            None => self.counters.bump(Counter::MirrorNotSent),
        }
        Some(())
    }
}

/// Writes Ethernet, IP and UDP headers before a payload that is in place.
fn write_headers(head: &mut [u8], own: [u8; 6], from: IpAddr, to: IpAddr, source: u16, destination: u16) {
    let mut frame = ethernet::Frame::new_unchecked(&mut *head);
    frame.set_source(MacAddress(own));
    frame.set_ethertype(if to.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 });
    let packet = &mut head[ethernet::HEADER_LEN..];
    let (ip_len, sum) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = packet.len() as u16;
            let mut ip = ipv4::Packet::new_unchecked(&mut *packet);
            packet_v4(&mut ip, from, to, total);
            let udp_len = total - ipv4::HEADER_LEN as u16;
            (ipv4::HEADER_LEN, Sum::ZERO.pseudo_v4(from, to, IpProtocol::UDP, udp_len))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let payload_len = packet.len() - ipv6::HEADER_LEN;
            let mut ip = ipv6::Packet::new_unchecked(&mut *packet);
            ip.set_class_and_label(MIRROR_TRAFFIC_CLASS, 0);
            ip.set_payload_len(payload_len as u16);
            ip.set_next_header(IpProtocol::UDP);
            ip.set_hop_limit(64);
            ip.set_source(from);
            ip.set_destination(to);
            (ipv6::HEADER_LEN, Sum::ZERO.pseudo_v6(from, to, IpProtocol::UDP, payload_len as u32))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return, // The caller chose one family.
    };
    let datagram = &mut packet[ip_len..];
    let len = datagram.len() as u16;
    let mut udp = udp::Datagram::new_unchecked(&mut *datagram);
    udp.set_source_port(source);
    udp.set_destination_port(destination);
    udp.set_length(len);
    udp.set_checksum(0);
    let checksum = sum.bytes(datagram).checksum_udp();
    udp::Datagram::new_unchecked(datagram).set_checksum(checksum);
}

/// Network control (RFC 4594 section 3.1: CS6), so that switches do not drop it first.
const MIRROR_TRAFFIC_CLASS: u8 = 48 << 2;

fn packet_v4(
    ip: &mut ipv4::Packet<&mut [u8]>,
    from: core::net::Ipv4Addr,
    to: core::net::Ipv4Addr,
    total_len: u16,
) {
    ip.set_header_len(ipv4::HEADER_LEN);
    ip.set_traffic_class(MIRROR_TRAFFIC_CLASS);
    ip.set_total_len(total_len);
    ip.set_identification(0);
    ip.set_fragment(true, false, 0);
    ip.set_ttl(64);
    ip.set_protocol(IpProtocol::UDP);
    ip.set_source(from);
    ip.set_destination(to);
    ip.fill_checksum();
}
