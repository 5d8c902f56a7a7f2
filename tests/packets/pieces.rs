//! Packets taken to pieces as a router or a sender does it, and put together as a host does it.

use std::collections::BTreeMap;

use baton::wire::fragment::Fragment;
use baton::wire::parse::{Network, parse};
use baton::wire::{IpProtocol, ipv4};

/// A frame's pieces of at most so many bytes of data each, a multiple of 8, in order.
pub fn pieces(frame: &[u8], identification: u32, size: usize) -> Vec<Vec<u8>> {
    assert_eq!(size % 8, 0);
    let parsed = parse(frame).expect("a whole packet");
    let l4 = usize::from(parsed.l4_offset);
    let (head, data) = (&frame[..l4], &frame[l4..parsed.end()]);
    let piece = |(number, chunk): (usize, &[u8])| {
        let (offset, more) = ((number * size) as u16, number * size + chunk.len() < data.len());
        match parsed.network {
            Network::Ipv4 => {
                let mut piece = [head, chunk].concat();
                let mut packet = ipv4::Packet::new_unchecked(&mut piece[14..]);
                packet.set_total_len((l4 - 14 + chunk.len()) as u16);
                packet.set_identification(identification as u16);
                packet.set_fragment(false, more, offset);
                packet.fill_checksum();
                piece
            }
            Network::Ipv6 => {
                let word = offset | u16::from(more);
                let header =
                    [&[head[20], 0], &word.to_be_bytes()[..], &identification.to_be_bytes()].concat();
                let mut piece = [head, &header, chunk].concat();
                piece[18..20].copy_from_slice(&((8 + chunk.len()) as u16).to_be_bytes());
                piece[20] = IpProtocol::FRAGMENT.0;
                piece
            }
            Network::Arp | Network::Liveness | Network::Other => panic!("an IP packet"),
        }
    };
    data.chunks(size).enumerate().map(piece).collect()
}

/// What a frame that is a piece says of itself.
pub fn fragment_of(piece: &[u8]) -> Fragment {
    Fragment::of(piece, &parse(piece).expect("a sound packet")).expect("a fragment")
}

/// A host that puts packets together, as strictly as RFC 5722 asks.
#[derive(Default)]
pub struct Host {
    datagrams: BTreeMap<(Vec<u8>, u8, u32), Datagram>,
}

#[derive(Default)]
struct Datagram {
    head: Option<Vec<u8>>,
    bytes: Vec<Option<u8>>,
    total: Option<usize>,
    broken: bool,
}

impl Host {
    /// The whole frame, if this was the last of its pieces; or if it never was in pieces.
    pub fn came(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let parsed = parse(frame).expect("a sound packet");
        let Some(piece) = Fragment::of(frame, &parsed) else { return Some(frame.to_vec()) };
        let (l3, end) = (parsed.l3_offset(), parsed.end());
        let addresses = match parsed.network {
            Network::Ipv4 => &frame[l3 + 12..l3 + 20],
            _ => &frame[l3 + 8..l3 + 40],
        };
        let name = (addresses.to_vec(), piece.protocol.0, piece.identification);
        let whole = {
            let datagram = self.datagrams.entry(name.clone()).or_default();
            let data = &frame[end - usize::from(piece.len)..end];
            let (from, to) = (usize::from(piece.offset), usize::from(piece.offset) + data.len());
            datagram.bytes.resize(datagram.bytes.len().max(to), None);
            if datagram.bytes[from..to].iter().zip(data).all(|(place, byte)| *place == Some(*byte)) {
                return None; // It came before.
            }
            datagram.broken |= datagram.bytes[from..to].iter().any(Option::is_some);
            for (place, byte) in datagram.bytes[from..to].iter_mut().zip(data) {
                *place = Some(*byte);
            }
            if piece.is_first() {
                datagram.head = Some(frame[..end - data.len()].to_vec());
            }
            if !piece.more {
                datagram.total = Some(to);
            }
            let bytes: Option<Vec<u8>> = datagram.bytes.iter().copied().collect();
            match (&datagram.head, bytes) {
                (Some(head), Some(bytes)) if datagram.total == Some(bytes.len()) && !datagram.broken => {
                    put_together(head, &bytes, parsed.network)
                }
                _ => return None,
            }
        };
        self.datagrams.remove(&name);
        Some(whole)
    }

    /// Datagrams of which something is missing.
    pub fn waiting(&self) -> usize {
        self.datagrams.len()
    }
}

fn put_together(head: &[u8], data: &[u8], network: Network) -> Vec<u8> {
    if network == Network::Ipv4 {
        let mut whole = [head, data].concat();
        let mut packet = ipv4::Packet::new_unchecked(&mut whole[14..]);
        packet.set_total_len((head.len() - 14 + data.len()) as u16);
        packet.set_fragment(false, false, 0);
        packet.fill_checksum();
        return whole;
    }
    let (before, header) = head.split_at(head.len() - 8);
    let mut whole = [before, data].concat();
    whole[20] = header[0];
    whole[18..20].copy_from_slice(&(data.len() as u16).to_be_bytes());
    whole
}
