//! A packet to which nobody else refers, and will not: its bytes are written without asking again.

use crate::mbuf::{Checksum, Mbuf, NoRoom, Outgoing, Segments, TxOffload, bytes_of};
use crate::mempool::Mempool;

/// An [`Mbuf`] that is not shared and cannot be while it is one of these.
#[derive(Debug)]
#[repr(transparent)]
pub struct Unique(Mbuf);

impl Unique {
    /// A packet of one's own, of which no port is asked anything: the one given or, if others refer to its bytes, a
    /// copy.
    #[inline(always)]
    pub fn new(mbuf: Mbuf) -> Result<Unique, NoRoom> {
        if mbuf.is_plain() { Ok(Unique(mbuf)) } else { Unique::of_any(mbuf) }
    }

    #[cold]
    fn of_any(mut mbuf: Mbuf) -> Result<Unique, NoRoom> {
        mbuf.make_unique()?;
        mbuf.clear_tx_offload();
        Ok(Unique(mbuf))
    }

    /// The bytes of the first segment: all of them, unless the packet has several.
    #[inline(always)]
    pub fn head(&self) -> &[u8] {
        self.0.head()
    }

    /// As [`Unique::head`], to be written.
    #[inline(always)]
    pub fn head_mut(&mut self) -> &mut [u8] {
        let (data, len) = bytes_of(self.0.raw());
        // SAFETY: as in `Mbuf::head_mut`. There was no other reference when this was made, and none can be
        // made of it: nothing here gives out the mbuf but to send it.
        unsafe { core::slice::from_raw_parts_mut(data, len) }
    }

    /// The segments' bytes, in order.
    pub fn segments(&self) -> Segments<'_> {
        self.0.segments()
    }

    /// The length over all segments, in bytes.
    #[inline(always)]
    pub fn total_len(&self) -> usize {
        self.0.total_len()
    }

    /// How many segments there are.
    #[inline(always)]
    pub fn segment_count(&self) -> u16 {
        self.0.segment_count()
    }

    /// As [`Mbuf::prepend`].
    #[inline]
    pub fn prepend(&mut self, len: usize) -> Result<(), NoRoom> {
        self.0.prepend(len)
    }

    /// As [`Mbuf::trim_front`].
    #[inline]
    pub fn trim_front(&mut self, len: usize) -> Result<(), NoRoom> {
        self.0.trim_front(len)
    }

    /// As [`Mbuf::set_len`].
    #[inline]
    pub fn set_len(&mut self, len: usize) -> Result<(), NoRoom> {
        self.0.set_len(len)
    }

    /// The port by which it came.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// Notes the port by which it came.
    #[inline(always)]
    pub fn set_port(&mut self, port: u16) {
        self.0.set_port(port);
    }

    /// As [`Mbuf::rx_checksums`].
    #[inline(always)]
    pub fn rx_checksums(&self) -> Checksum {
        self.0.rx_checksums()
    }

    /// Keeps a number with the packet, in the place of what is asked of the port; 0: none. Whoever sends the packet
    /// turns it into a [`TxOffload`] before.
    pub fn set_wish(&mut self, wish: u64) {
        self.0.set_wish(wish);
    }

    /// What was kept; 0: nothing.
    pub fn wish(&self) -> u64 {
        self.0.wish()
    }

    /// Whether something is kept.
    #[inline(always)]
    pub fn has_wish(&self) -> bool {
        self.0.asks()
    }

    /// Keeps a number with the packet while it goes from thread to thread, in the place of the hash that a port computed.
    #[inline(always)]
    pub fn set_mark(&mut self, mark: u32) {
        self.0.set_mark(mark);
    }

    /// What [`Unique::set_mark`] kept; anything if nothing was.
    #[inline(always)]
    pub fn mark(&self) -> u32 {
        self.0.mark()
    }

    /// What the port found of the IPv4 header's checksum.
    #[inline(always)]
    pub fn rx_ip_checksum(&self) -> Checksum {
        self.0.rx_ip_checksum()
    }

    /// What the port found of the transport checksum.
    #[inline(always)]
    pub fn rx_l4_checksum(&self) -> Checksum {
        self.0.rx_l4_checksum()
    }

    /// As [`Mbuf::set_tx_offload`].
    #[inline]
    pub fn set_tx_offload(&mut self, wanted: &TxOffload) -> Result<(), NoRoom> {
        self.0.set_tx_offload(wanted)
    }

    /// As [`Mbuf::clear_tx_offload`].
    #[inline(always)]
    pub fn clear_tx_offload(&mut self) {
        self.0.clear_tx_offload();
    }

    /// As [`Mbuf::copy`].
    pub fn copy(&self, pool: &Mempool) -> Option<Unique> {
        self.0.copy(pool).map(Unique)
    }

    /// As [`Mbuf::linearize`].
    pub fn linearize(&mut self) -> Result<(), NoRoom> {
        self.0.linearize()
    }
}

impl From<Unique> for Outgoing {
    #[inline(always)]
    fn from(packet: Unique) -> Outgoing {
        Outgoing::from(packet.0)
    }
}
