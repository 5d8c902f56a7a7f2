//! The stages' part of what is peculiar to IPv6 (see `burst`): TCP and UDP without extension headers. The image of a
//! key has a hash of the addresses, so the flow's own ones, in a line beside, are asked for and compared too.

use crate::base::buffer::{Buffer, ChecksumStatus};
use crate::base::limits::PORTS_MAX;
use crate::distributor::doors::{be16, door, word};
use crate::flow::Direction;
use crate::flow::key::{TCP, UDP};
use crate::flow::layout::{Hot, Way};
use crate::flow::table::Table;
use crate::traffic::adjacency::Link;
use crate::wire::{ethernet, tcp};
use crate::worker::burst::{DATAGRAM, FLAGS, Known, Note, PLAIN, WIDE};

/// Where the transport header begins.
const TRANSPORT: usize = ethernet::HEADER_LEN + 40;
/// Bytes of headers that a note looks at: with TCP's, without options.
const HEADERS: usize = TRANSPORT + 20;
/// The same with UDP's.
const HEADERS_MIN: usize = TRANSPORT + 8;
/// Where the addresses are.
const SOURCE: usize = ethernet::HEADER_LEN + 8;
const DESTINATION: usize = SOURCE + 16;

/// Calls `look` with the head of a packet that is long enough. Where the frame ends before a TCP header would, zeros
/// stand for what is not there: they are no TCP header, and of a datagram nothing there is looked at.
#[inline(always)]
fn with_head<T>(bytes: &[u8], look: impl FnOnce(&[u8; HEADERS]) -> T) -> Option<T> {
    if let Some(head) = bytes.first_chunk() {
        return Some(look(head));
    }
    if bytes.len() < HEADERS_MIN {
        return None;
    }
    let mut head = [0; HEADERS];
    head[..bytes.len()].copy_from_slice(bytes);
    Some(look(&head))
}

/// Notes a packet, if it may be of a known flow; whether it did.
#[inline(never)]
pub(super) fn note<B: Buffer>(packet: &B, known: Known<'_>, note: &mut Note, any_wide: &mut bool) -> bool {
    let noted = with_head(packet.head(), |head| note_head(head, packet, known, note)).unwrap_or(false);
    *any_wide |= noted;
    noted
}

#[inline(always)]
fn note_head<B: Buffer>(head: &[u8; HEADERS], packet: &B, known: Known<'_>, note: &mut Note) -> bool {
    let Known { doors, table } = known;
    // EtherType, version.
    if u32::from_le_bytes(word(head, 12)) & 0xf0_ffff != 0x60_dd86 {
        return false;
    }
    let to = door(u64::from_le_bytes(word(head, 0)));
    if to != doors.virtual_v6 && to != doors.own[usize::from(packet.rx().port.0) % PORTS_MAX] {
        return false;
    }
    let payload_len = usize::from(be16(head, 18));
    let (protocol, hops) = (head[20], head[21]);
    let Ok(ip_len) = u16::try_from(payload_len + 40) else { return false };
    if TRANSPORT + payload_len > packet.total_len() || hops <= 1 {
        return false;
    }
    if packet.rx_checksums() == ChecksumStatus::Bad {
        return false;
    }
    let (len, len_min, flags) = match protocol {
        // A datagram without a checksum is none (RFC 8200 section 8.1).
        UDP if be16(head, TRANSPORT + 6) == 0 => return false,
        UDP => (be16(head, TRANSPORT + 4), 8, PLAIN | DATAGRAM),
        TCP => (u16::from(head[TRANSPORT + 12] >> 4) * 4, 20, head[TRANSPORT + 13] & FLAGS),
        _ => return false,
    };
    if len < len_min || usize::from(len) > payload_len {
        return false;
    }
    if flags & !DATAGRAM != PLAIN && !tcp::Flags(flags).are_sane() {
        return false;
    }
    note.image = table.imager().of_v6_packet(
        protocol,
        &word(head, SOURCE),
        &word(head, DESTINATION),
        &word(head, TRANSPORT),
    );
    note.spot = table.spot(note.image);
    note.ip_len = ip_len;
    note.flags = flags | WIDE;
    note.coming = 0;
    true
}

/// Asks for the addresses of the flows that were found.
#[inline(never)]
pub(super) fn prefetch(table: &Table, notes: &[Note]) {
    for note in notes.iter().filter(|note| note.flags & WIDE != 0) {
        table.prefetch_wide(note.candidate.flow());
    }
}

/// Which way out a packet has, if it is of the flow that was found for it.
pub(super) fn way<B: Buffer>(packet: &B, table: &Table, note: &Note) -> Option<Way> {
    with_head(packet.head(), |head| table.way(note.candidate, &word(head, SOURCE), &word(head, DESTINATION)))
        .flatten()
}

/// Writes link addresses, a hop less, the transport's checksum, and the endpoints.
pub(super) fn rewrite(
    head: &mut [u8],
    hot: &Hot,
    direction: Direction,
    link: &Link,
    flags: u8,
    way: &Way,
) -> Option<()> {
    let at = TRANSPORT + if flags & DATAGRAM != 0 { 6 } else { 16 };
    let field = head.get_mut(at..)?.first_chunk_mut()?;
    let new = hot.transport(direction).apply_swapped(u16::from_ne_bytes(*field));
    // RFC 768: a datagram's that comes to zero is sent as all ones.
    let new = if new == 0 && flags & DATAGRAM != 0 { 0xffff } else { new };
    *field = new.to_ne_bytes();
    let head: &mut [u8; HEADERS_MIN] = head.first_chunk_mut()?;
    head[..12].copy_from_slice(&link.addresses);
    head[21] -= 1;
    head[SOURCE..DESTINATION].copy_from_slice(&way.src);
    head[DESTINATION..TRANSPORT].copy_from_slice(&way.dst);
    let (from, to) = hot.answer(direction).packet_ports();
    head[TRANSPORT..TRANSPORT + 2].copy_from_slice(&to.to_le_bytes());
    head[TRANSPORT + 2..TRANSPORT + 4].copy_from_slice(&from.to_le_bytes());
    Some(())
}
