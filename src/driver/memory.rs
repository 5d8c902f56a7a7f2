//! Packet buffers in plain memory, for tests and for the simulator: with the same
//! room as an mbuf, so what fits here fits there.

use core::fmt;

use crate::base::buffer::{Buffer, Handed, NoRoom, RxMeta, TxMeta};
use crate::driver::checksum::{Capabilities, Unsendable, plan};
use crate::wire::parse::Trace;

/// Free bytes in front of a new packet.
pub const HEADROOM: usize = 128;

/// Bytes of a packet that fit behind the headroom.
pub const DATA_ROOM: usize = 2048;

/// A packet: a first segment with headroom, and perhaps a tail that is never
/// looked at, as the later segments of an mbuf are not.
#[derive(Clone)]
pub struct PlainBuffer {
    room: Box<[u8; HEADROOM + DATA_ROOM]>,
    start: usize,
    len: usize,
    tail: Vec<u8>,
    rx: RxMeta,
    tx: TxMeta,
    handed: Handed,
}

impl PlainBuffer {
    /// An empty packet.
    pub fn new() -> PlainBuffer {
        PlainBuffer {
            room: Box::new([0; HEADROOM + DATA_ROOM]),
            start: HEADROOM,
            len: 0,
            tail: Vec::new(),
            rx: RxMeta::default(),
            tx: TxMeta::default(),
            handed: Handed::Plain,
        }
    }

    /// A packet of these bytes. What does not fit in the first segment becomes the tail.
    pub fn from_bytes(bytes: &[u8]) -> PlainBuffer {
        PlainBuffer::from_segments(bytes, &[])
    }

    /// A packet whose first segment ends before `tail`.
    pub fn from_segments(head: &[u8], tail: &[u8]) -> PlainBuffer {
        let (head, over) = head.split_at(head.len().min(DATA_ROOM));
        let mut packet = PlainBuffer { len: head.len(), tail: [over, tail].concat(), ..PlainBuffer::new() };
        packet.head_mut().copy_from_slice(head);
        packet
    }

    /// The same packet, as if a port had received it.
    #[must_use]
    pub fn received(mut self, rx: RxMeta) -> PlainBuffer {
        self.rx = rx;
        self.tx = TxMeta::default();
        self.handed = Handed::Plain;
        self
    }

    /// The bytes of all segments.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.head(), &self.tail].concat()
    }

    /// What is asked of the port.
    pub fn tx(&self) -> TxMeta {
        self.tx
    }

    /// Does what is asked of a port with these capabilities, in software or, as the
    /// port would, here too: the packet is as it would be on the wire.
    pub fn finish(&mut self) -> Result<(), Unsendable> {
        let (tx, total_len) = (self.tx, self.total_len());
        let plan = plan(self.head(), [&self.tail[..]], total_len, &tx, &Capabilities::NONE)?;
        plan.apply(self.head_mut());
        self.tx = TxMeta::default();
        Ok(())
    }

    /// The same packet, not to be written any more.
    pub fn share(&self) -> SharedPlainBuffer {
        SharedPlainBuffer(self.clone())
    }
}

impl Default for PlainBuffer {
    fn default() -> PlainBuffer {
        PlainBuffer::new()
    }
}

impl Buffer for PlainBuffer {
    fn head(&self) -> &[u8] {
        &self.room[self.start..self.start + self.len]
    }

    fn head_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + self.len]
    }

    fn total_len(&self) -> usize {
        self.len + self.tail.len()
    }

    fn prepend(&mut self, len: usize) -> Result<(), NoRoom> {
        self.start = self.start.checked_sub(len).ok_or(NoRoom)?;
        self.len += len;
        Ok(())
    }

    fn trim_front(&mut self, len: usize) -> Result<(), NoRoom> {
        self.len = self.len.checked_sub(len).ok_or(NoRoom)?;
        self.start += len;
        Ok(())
    }

    fn set_len(&mut self, len: usize) -> Result<(), NoRoom> {
        if !self.tail.is_empty() || len > self.room.len() - self.start {
            return Err(NoRoom);
        }
        self.len = len;
        Ok(())
    }

    fn rx(&self) -> RxMeta {
        self.rx
    }

    fn set_handed(&mut self, handed: Handed) {
        self.handed = handed;
    }

    fn handed(&self) -> Handed {
        self.handed
    }

    fn set_tx(&mut self, tx: TxMeta) {
        self.tx = tx;
    }
}

/// The packet in one line, for traces and failing tests.
impl fmt::Debug for PlainBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} + {}] {}", self.len, self.tail.len(), Trace(self.head()))
    }
}

/// A packet that cannot be written any more.
#[derive(Clone, Debug)]
pub struct SharedPlainBuffer(PlainBuffer);

impl SharedPlainBuffer {
    /// The bytes of the first segment.
    pub fn head(&self) -> &[u8] {
        self.0.head()
    }

    /// The bytes of all segments.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// As [`PlainBuffer::finish`], when the packet leaves.
    pub fn finish(mut self) -> Result<PlainBuffer, Unsendable> {
        self.0.finish()?;
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fixtures;

    #[test]
    fn the_front_moves_within_the_room_only() {
        let mut packet = PlainBuffer::from_bytes(b"0123456789");
        assert_eq!(packet.prepend(HEADROOM + 1), Err(NoRoom));
        packet.prepend(HEADROOM).unwrap();
        assert_eq!(packet.prepend(1), Err(NoRoom));
        assert_eq!((packet.head().len(), packet.total_len()), (HEADROOM + 10, HEADROOM + 10));
        assert_eq!(packet.trim_front(HEADROOM + 11), Err(NoRoom));
        packet.trim_front(HEADROOM + 4).unwrap();
        assert_eq!(packet.head(), b"456789");
    }

    #[test]
    fn the_end_moves_within_the_room_only() {
        let mut packet = PlainBuffer::from_bytes(b"0123456789");
        assert_eq!(packet.set_len(DATA_ROOM + 1), Err(NoRoom));
        packet.set_len(DATA_ROOM).unwrap();
        packet.set_len(4).unwrap();
        assert_eq!((packet.head(), packet.to_bytes()), (&b"0123"[..], b"0123".to_vec()));
    }

    #[test]
    fn a_packet_with_a_tail_keeps_its_length() {
        let mut packet = PlainBuffer::from_segments(b"head", b" and tail");
        assert_eq!((packet.head(), packet.total_len()), (&b"head"[..], 13));
        assert_eq!(packet.set_len(4), Err(NoRoom));
        assert_eq!(packet.trim_front(5), Err(NoRoom), "only the first segment is cut");
        packet.trim_front(2).unwrap();
        assert_eq!(packet.to_bytes(), b"ad and tail");
        let long = PlainBuffer::from_bytes(&[7; 9000]);
        assert_eq!((long.head().len(), long.total_len()), (DATA_ROOM, 9000));
    }

    #[test]
    fn a_finished_packet_has_its_checksums() {
        let whole = fixtures::bytes(fixtures::TCP_OPTIONS_V4);
        let (head, tail) = whole.split_at(whole.len() - 3);
        let mut packet = PlainBuffer::from_segments(head, tail);
        packet.head_mut()[24..26].fill(0);
        packet.head_mut()[66..68].fill(0);
        packet.set_tx(TxMeta { l2_len: 14, l3_len: 36, ip_checksum: true, l4_checksum: true });
        let shared = packet.share();
        packet.finish().unwrap();
        assert_eq!((packet.to_bytes(), packet.tx()), (whole.clone(), TxMeta::default()));
        assert_ne!(shared.to_bytes(), whole, "it was shared before");
        assert_eq!(shared.finish().unwrap().to_bytes(), whole);
    }
}
