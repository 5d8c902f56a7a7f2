//! Echo requests in fragments to addresses of ours, put together (RFC 1122 section 3.3.2, RFC 8200 section 4.5).
//!
//! What a service's packets never need, the appliance's own do: an answer is over all of the request. A few at a time,
//! for a short time, in memory that is reserved at the start; at each limit the oldest gives way.

use crate::base::counters::Counter;
use crate::base::limits::{ECHOES_REASSEMBLED_MAX, ECHOES_REASSEMBLED_PER_SOURCE_MAX, FRAGMENT_TIMEOUT};
use crate::base::time::Instant;
use crate::distributor::fragment::Name;
use crate::distributor::fragment::ranges::{Piece, Ranges};
use crate::flow::key::Address;
use crate::wire::fragment::Fragment;
use crate::wire::parse::{Network, Parsed};
use crate::wire::{IpProtocol, icmp, icmpv6, ipv4, ipv6};

/// What became of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// Others are waited for.
    Waits,
    /// It was the last one missing: this is the frame that would have come in one piece.
    Whole(Vec<u8>),
    /// It is dropped.
    Dropped(Counter),
}

/// Datagrams that are being put together.
#[derive(Debug)]
pub struct Reassembly {
    datagrams: Vec<Datagram>,
    /// Fragments dropped with what gave way, and why.
    dropped: Vec<(Counter, u64)>,
}

#[derive(Debug)]
struct Datagram {
    /// `None`: nothing is here.
    name: Option<Name>,
    since: Instant,
    given_up: bool,
    ranges: Ranges,
    /// Link and network header of the first fragment.
    head: Vec<u8>,
    data: Vec<u8>,
}

impl Default for Reassembly {
    fn default() -> Reassembly {
        let datagram = || Datagram {
            name: None,
            since: Instant::ZERO,
            given_up: false,
            ranges: Ranges::default(),
            head: Vec::new(),
            data: Vec::with_capacity(usize::from(u16::MAX)),
        };
        let datagrams = (0..ECHOES_REASSEMBLED_MAX).map(|_| datagram()).collect();
        Reassembly { datagrams, dropped: Vec::new() }
    }
}

impl Reassembly {
    /// Takes a frame that is a fragment of ICMP or ICMPv6.
    pub fn handle(&mut self, now: Instant, frame: &[u8], parsed: &Parsed) -> Put {
        let (Some(fragment), Some((src, dst))) = (Fragment::of(frame, parsed), parsed.addresses(frame))
        else {
            return Put::Dropped(Counter::DropFragmentIcmp);
        };
        let start = parsed.end() - usize::from(fragment.len);
        let Some(data) = frame.get(start..parsed.end()) else {
            return Put::Dropped(Counter::DropFragmentIcmp);
        };
        let name = Name::of(Address::from(src), Address::from(dst), parsed.vlan, &fragment);
        let place = self.place_of(now, name);
        let datagram = &mut self.datagrams[place];
        if datagram.given_up {
            return Put::Dropped(Counter::DropFragmentGivenUp);
        }
        let refused = match datagram.ranges.take(fragment.offset, fragment.len, fragment.more) {
            Piece::New if fragment.is_first() && !is_echo_request(frame, parsed) => Counter::DropFragmentIcmp,
            Piece::New => {
                let (from, to) = (usize::from(fragment.offset), usize::from(fragment.offset) + data.len());
                datagram.data.resize(datagram.data.len().max(to), 0);
                datagram.data[from..to].copy_from_slice(data);
                if fragment.is_first() {
                    datagram.head.clear();
                    datagram.head.extend_from_slice(&frame[..start]);
                }
                if !datagram.ranges.are_whole() {
                    return Put::Waits;
                }
                let whole = put_together(&datagram.head, &datagram.data, parsed);
                datagram.name = None;
                return match whole {
                    Some(whole) => Put::Whole(whole),
                    None => {
                        let others = datagram.ranges.pieces() as u64 - 1;
                        self.dropped.push((Counter::DropFragmentOverrun, others));
                        Put::Dropped(Counter::DropFragmentOverrun)
                    }
                };
            }
            Piece::Duplicate => return Put::Dropped(Counter::DropFragmentDuplicate),
            Piece::Overlap => Counter::DropFragmentOverlap,
            Piece::Contradiction => Counter::DropFragmentContradiction,
            Piece::TooMany => Counter::DropFragmentTooMany,
        };
        // Its others are dropped until its time is over.
        let waited = datagram.ranges.pieces() - usize::from(refused == Counter::DropFragmentIcmp);
        self.dropped.push((Counter::DropFragmentGivenUp, waited as u64));
        datagram.given_up = true;
        Put::Dropped(refused)
    }

    /// Drops what waits for too long.
    pub fn expire(&mut self, now: Instant) {
        for place in 0..self.datagrams.len() {
            if self.datagrams[place].name.is_some() && now - self.datagrams[place].since >= FRAGMENT_TIMEOUT {
                self.free(place, Counter::DropFragmentTimeout);
            }
        }
    }

    /// When to call [`Reassembly::expire`] at the latest.
    pub fn next_deadline(&self) -> Instant {
        let waiting = self.datagrams.iter().filter(|datagram| datagram.name.is_some());
        waiting.map(|datagram| datagram.since + FRAGMENT_TIMEOUT).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// What else was dropped: how many fragments, and why. Until `None`, after each call.
    pub fn poll_dropped(&mut self) -> Option<(Counter, u64)> {
        self.dropped.pop()
    }

    /// The place of a datagram; a new one may take that of an older one.
    fn place_of(&mut self, now: Instant, name: Name) -> usize {
        if let Some(known) = self.datagrams.iter().position(|datagram| datagram.name == Some(name)) {
            return known;
        }
        let is_of_source =
            |datagram: &Datagram| datagram.name.is_some_and(|other| other.source() == name.source());
        let of_source = self.datagrams.iter().filter(|datagram| is_of_source(datagram)).count();
        let full = of_source >= ECHOES_REASSEMBLED_PER_SOURCE_MAX;
        let candidates =
            self.datagrams.iter().enumerate().filter(|(_, datagram)| !full || is_of_source(datagram));
        // What is free comes first, then the oldest.
        let place = candidates.min_by_key(|(_, datagram)| datagram.name.map(|_| datagram.since));
        let place = place.map_or(0, |(place, _)| place);
        let why = if full { Counter::DropFragmentsWaitingOfSource } else { Counter::DropFragmentsWaiting };
        self.free(place, why);
        let datagram = &mut self.datagrams[place];
        (datagram.name, datagram.since, datagram.given_up) = (Some(name), now, false);
        datagram.ranges.clear();
        datagram.data.clear();
        place
    }

    fn free(&mut self, place: usize, why: Counter) {
        let datagram = &mut self.datagrams[place];
        if datagram.name.take().is_some() && !datagram.given_up {
            self.dropped.push((why, datagram.ranges.pieces() as u64));
        }
    }
}

/// Whether a first fragment is one of an echo request. Nothing else is answered; and neighbour discovery must not
/// come in fragments (RFC 6980 section 5).
fn is_echo_request(frame: &[u8], parsed: &Parsed) -> bool {
    let kind = frame.get(usize::from(parsed.l4_offset)..).and_then(|message| message.first());
    match (parsed.network, parsed.protocol) {
        (Network::Ipv4, IpProtocol::ICMP) => kind == Some(&icmp::Type::ECHO_REQUEST.0),
        (Network::Ipv6, IpProtocol::ICMPV6) => kind == Some(&icmpv6::Type::ECHO_REQUEST.0),
        _ => false,
    }
}

/// A frame of the first fragment's headers, without what said that it was one, and all data. Of IPv6 also without the
/// extension headers before the fragment header, which ask nothing of us. `None`: it would be longer than packets are.
fn put_together(head: &[u8], data: &[u8], parsed: &Parsed) -> Option<Vec<u8>> {
    let l3 = parsed.l3_offset();
    match parsed.network {
        Network::Ipv4 => {
            let total_len = u16::try_from(head.len() - l3 + data.len()).ok()?;
            let mut whole = [head, data].concat();
            let mut packet = ipv4::Packet::new_unchecked(&mut whole[l3..]);
            packet.set_total_len(total_len);
            packet.set_fragment(false, false, 0);
            packet.fill_checksum();
            Some(whole)
        }
        Network::Ipv6 => {
            let payload_len = u16::try_from(data.len()).ok()?;
            let next = *head.get(head.len().checked_sub(ipv6::FRAGMENT_HEADER_LEN)?)?;
            let mut whole = [head.get(..l3 + ipv6::HEADER_LEN)?, data].concat();
            let mut packet = ipv6::Packet::new_unchecked(&mut whole[l3..]);
            packet.set_payload_len(payload_len);
            packet.set_next_header(IpProtocol(next));
            Some(whole)
        }
        Network::Arp | Network::Liveness | Network::Other => None,
    }
}

#[cfg(test)]
#[path = "reassembly_tests.rs"]
mod tests;
