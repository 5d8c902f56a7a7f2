//! Packet buffers. An [`Mbuf`] owns a packet and may write its first segment; a
//! [`SharedMbuf`] owns a second reference to a packet's bytes and may not.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering};

use dpdk_sys as sys;

use crate::mempool::Mempool;

/// There is no room for that many bytes. The packet is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no room in the packet's buffer")
    }
}

impl core::error::Error for NoRoom {}

/// What the port said of a received packet's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It did not look.
    Unknown,
    /// It verified it.
    Good,
    /// It found it wrong.
    Bad,
    /// The field holds no checksum, but the data is known to be sound: the packet
    /// comes from a neighbouring guest or host that left the sum to its port.
    Unset,
}

/// What the port is asked to compute for a packet to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxOffload {
    /// Length of the link header, in bytes, at most [`L2_LEN_MAX`].
    pub l2_len: u8,
    /// Length of the IP header with options or extension headers, in bytes, at most [`L3_LEN_MAX`].
    pub l3_len: u16,
    /// The packet is IPv6.
    pub ipv6: bool,
    /// Compute the IPv4 header checksum; the field must hold zero.
    pub ip_checksum: bool,
    /// Compute this protocol's checksum; the field must hold the pseudo-header's sum.
    pub l4_checksum: Option<L4>,
}

/// A protocol whose checksum a port can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The longest link header that an mbuf can tell its port of, in bytes.
pub const L2_LEN_MAX: u8 = (1 << sys::DPDK_MBUF_L2_LEN_BITS) - 1;
/// The longest IP header that an mbuf can tell its port of, in bytes.
pub const L3_LEN_MAX: u16 = (1 << sys::DPDK_MBUF_L3_LEN_BITS) - 1;
/// Free bytes in front of a packet that a port received or a pool gave.
pub const HEADROOM: usize = sys::DPDK_PKTMBUF_HEADROOM as usize;

/// A packet, in one segment or several, owned. Dropping it gives its buffers back.
///
/// `Send`, not `Sync`: taking a second reference changes the count without an
/// atomic operation while it is one.
#[repr(transparent)]
pub struct Mbuf {
    raw: NonNull<sys::rte_mbuf>,
    not_sync: PhantomData<*const ()>,
}

// SAFETY: an mbuf is not bound to the thread that took it from its pool.
unsafe impl Send for Mbuf {}

const _: () = {
    // Packets are handed to DPDK as arrays of pointers.
    assert!(size_of::<Mbuf>() == size_of::<*mut sys::rte_mbuf>());
    assert!(size_of::<Option<Mbuf>>() == size_of::<*mut sys::rte_mbuf>());
    assert!(size_of::<SharedMbuf>() == size_of::<*mut sys::rte_mbuf>());
    assert!(size_of::<Outgoing>() == size_of::<*mut sys::rte_mbuf>());
    // Fields are read by offset (their widths are asserted in the shim): they lie within the
    // mbuf, aligned, and what is touched per packet lies in its first cache line.
    assert!(sys::DPDK_MBUF_SIZE == 128);
    assert!(sys::DPDK_MBUF_BUF_ADDR % 8 == 0 && sys::DPDK_MBUF_BUF_ADDR + 8 <= 64);
    assert!(sys::DPDK_MBUF_DATA_OFF % 2 == 0 && sys::DPDK_MBUF_DATA_OFF + 2 <= 64);
    assert!(sys::DPDK_MBUF_REFCNT % 2 == 0 && sys::DPDK_MBUF_REFCNT + 2 <= 64);
    assert!(sys::DPDK_MBUF_NB_SEGS % 2 == 0 && sys::DPDK_MBUF_NB_SEGS + 2 <= 64);
    assert!(sys::DPDK_MBUF_PORT % 2 == 0 && sys::DPDK_MBUF_PORT + 2 <= 64);
    assert!(sys::DPDK_MBUF_OL_FLAGS % 8 == 0 && sys::DPDK_MBUF_OL_FLAGS + 8 <= 64);
    assert!(sys::DPDK_MBUF_PKT_LEN % 4 == 0 && sys::DPDK_MBUF_PKT_LEN + 4 <= 64);
    assert!(sys::DPDK_MBUF_DATA_LEN % 2 == 0 && sys::DPDK_MBUF_DATA_LEN + 2 <= 64);
    assert!(sys::DPDK_MBUF_BUF_LEN % 2 == 0 && sys::DPDK_MBUF_BUF_LEN + 2 <= 64);
    assert!(sys::DPDK_MBUF_NEXT % 8 == 0 && sys::DPDK_MBUF_NEXT + 8 <= 128);
    assert!(sys::DPDK_RX_IP_CKSUM_MASK == sys::DPDK_RX_IP_CKSUM_GOOD | sys::DPDK_RX_IP_CKSUM_BAD);
    assert!(sys::DPDK_MBUF_HASH % 4 == 0 && sys::DPDK_MBUF_HASH + 4 <= 64);
    assert!(sys::DPDK_MBUF_TX_OFFLOAD % 8 == 0 && sys::DPDK_MBUF_TX_OFFLOAD + 8 <= 128);
};

/// A field of an mbuf, by its offset.
macro_rules! field {
    ($raw:expr, $offset:ident: $type:ty) => {
        $raw.as_ptr().cast::<u8>().add(sys::$offset as usize).cast::<$type>()
    };
}
pub(crate) use field;

/// The bytes of one segment: where they begin and how many they are.
#[inline(always)]
pub(crate) fn bytes_of(segment: NonNull<sys::rte_mbuf>) -> (*mut u8, usize) {
    // SAFETY: the callers own a reference to the segment, so its fields can be read; the data
    // lies within the segment's buffer.
    unsafe {
        let address = field!(segment, DPDK_MBUF_BUF_ADDR: *mut u8).read();
        let offset = field!(segment, DPDK_MBUF_DATA_OFF: u16).read();
        let len = field!(segment, DPDK_MBUF_DATA_LEN: u16).read();
        (address.add(usize::from(offset)), usize::from(len))
    }
}

/// A hint: it faults at no address and changes nothing.
#[inline(always)]
fn prefetch(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch accesses no memory as far as the program can tell; every x86_64 processor has it.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

impl Mbuf {
    /// Takes ownership of a packet.
    ///
    /// # Safety
    /// The packet is valid and nobody else owns it.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: NonNull<sys::rte_mbuf>) -> Mbuf {
        Mbuf { raw, not_sync: PhantomData }
    }

    /// Gives ownership up.
    #[inline(always)]
    pub(crate) fn raw(&self) -> NonNull<sys::rte_mbuf> {
        self.raw
    }

    #[inline]
    pub(crate) fn into_raw(self) -> NonNull<sys::rte_mbuf> {
        ManuallyDrop::new(self).raw
    }

    /// Asks for the line of the mbuf itself that says where its bytes are.
    #[inline(always)]
    pub fn prefetch(&self) {
        prefetch(self.raw.as_ptr().cast());
    }

    /// Asks for the packet's first line. Reads the mbuf.
    #[inline(always)]
    pub fn prefetch_head(&self) {
        prefetch(bytes_of(self.raw).0);
    }

    /// The bytes of the first segment.
    #[inline(always)]
    pub fn head(&self) -> &[u8] {
        let (data, len) = bytes_of(self.raw);
        // SAFETY: the bytes live as long as the packet, and nobody writes them meanwhile: only
        // `head_mut` does, which takes the packet for itself and refuses bytes that are shared.
        // Buffers are zeroed when their memory is mapped, so all bytes are initialized.
        unsafe { core::slice::from_raw_parts(data, len) }
    }

    /// The bytes of the first segment, to be written.
    ///
    /// # Panics
    /// When a second reference to the bytes lives ([`Mbuf::is_shared`]): see [`Mbuf::make_unique`].
    #[inline]
    pub fn head_mut(&mut self) -> &mut [u8] {
        assert!(!self.is_shared(), "the bytes of a packet are written while a second reference lives");
        let (data, len) = bytes_of(self.raw);
        // SAFETY: as in `head`; there is no other reference to the bytes, and as making one
        // takes `&self`, there will be none while this borrow lasts.
        unsafe { core::slice::from_raw_parts_mut(data, len) }
    }

    /// The bytes of every segment, in order.
    pub fn segments(&self) -> Segments<'_> {
        Segments { next: Some(self.raw), packet: PhantomData }
    }

    /// The length of the packet over all segments, in bytes.
    #[inline(always)]
    pub fn total_len(&self) -> usize {
        // SAFETY: the packet is ours.
        unsafe { field!(self.raw, DPDK_MBUF_PKT_LEN: u32).read() as usize }
    }

    /// The number of segments, at least one.
    #[inline(always)]
    pub fn segment_count(&self) -> u16 {
        // SAFETY: the packet is ours.
        unsafe { field!(self.raw, DPDK_MBUF_NB_SEGS: u16).read() }
    }

    /// Free bytes before the packet's first byte.
    #[inline]
    pub fn headroom(&self) -> usize {
        // SAFETY: the packet is ours.
        usize::from(unsafe { field!(self.raw, DPDK_MBUF_DATA_OFF: u16).read() })
    }

    /// Grows the packet at the front by `len` bytes of unspecified content.
    #[inline]
    pub fn prepend(&mut self, len: usize) -> Result<(), NoRoom> {
        if len > self.headroom() {
            return Err(NoRoom);
        }
        // SAFETY: the packet is ours. `len` fits in 16 bits since the headroom does, and headroom
        // and data together are at most the buffer's length, which is 16 bits wide.
        unsafe {
            *field!(self.raw, DPDK_MBUF_DATA_OFF: u16) -= len as u16;
            *field!(self.raw, DPDK_MBUF_DATA_LEN: u16) += len as u16;
            *field!(self.raw, DPDK_MBUF_PKT_LEN: u32) += len as u32;
        }
        Ok(())
    }

    /// Cuts `len` bytes off the front of the first segment.
    #[inline]
    pub fn trim_front(&mut self, len: usize) -> Result<(), NoRoom> {
        // SAFETY: the packet is ours, and `len` is at most its first segment's length.
        unsafe {
            if len > usize::from(field!(self.raw, DPDK_MBUF_DATA_LEN: u16).read()) {
                return Err(NoRoom);
            }
            *field!(self.raw, DPDK_MBUF_DATA_OFF: u16) += len as u16;
            *field!(self.raw, DPDK_MBUF_DATA_LEN: u16) -= len as u16;
            *field!(self.raw, DPDK_MBUF_PKT_LEN: u32) -= len as u32;
        }
        Ok(())
    }

    /// Makes a one-segment packet `len` bytes long; new bytes have unspecified
    /// content. A packet of several segments is refused.
    #[inline]
    pub fn set_len(&mut self, len: usize) -> Result<(), NoRoom> {
        // SAFETY: the packet is ours, and the new end lies within its buffer.
        unsafe {
            let room = field!(self.raw, DPDK_MBUF_BUF_LEN: u16).read();
            if self.segment_count() != 1 || len > usize::from(room) - self.headroom().min(usize::from(room)) {
                return Err(NoRoom);
            }
            field!(self.raw, DPDK_MBUF_DATA_LEN: u16).write(len as u16);
            field!(self.raw, DPDK_MBUF_PKT_LEN: u32).write(len as u32);
        }
        Ok(())
    }

    /// DPDK's number of the port that the packet came in by, or what was set since.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        // SAFETY: the packet is ours.
        unsafe { field!(self.raw, DPDK_MBUF_PORT: u16).read() }
    }

    /// Puts another number in the port's place. Ports do not look at it.
    #[inline(always)]
    pub fn set_port(&mut self, port: u16) {
        // SAFETY: the packet is ours.
        unsafe { field!(self.raw, DPDK_MBUF_PORT: u16).write(port) }
    }

    #[inline(always)]
    pub(crate) fn flags(&self) -> u64 {
        // SAFETY: the packet is ours.
        unsafe { field!(self.raw, DPDK_MBUF_OL_FLAGS: u64).read() }
    }

    /// What the port said of the IPv4 header checksum.
    #[inline(always)]
    pub fn rx_ip_checksum(&self) -> Checksum {
        match self.flags() & sys::DPDK_RX_IP_CKSUM_MASK {
            0 => Checksum::Unknown,
            sys::DPDK_RX_IP_CKSUM_GOOD => Checksum::Good,
            sys::DPDK_RX_IP_CKSUM_BAD => Checksum::Bad,
            _ => Checksum::Unset,
        }
    }

    /// What the port said of the TCP or UDP checksum.
    #[inline(always)]
    pub fn rx_l4_checksum(&self) -> Checksum {
        match self.flags() & sys::DPDK_RX_L4_CKSUM_MASK {
            0 => Checksum::Unknown,
            sys::DPDK_RX_L4_CKSUM_GOOD => Checksum::Good,
            sys::DPDK_RX_L4_CKSUM_BAD => Checksum::Bad,
            _ => Checksum::Unset,
        }
    }

    /// What the port said of both: `Good` or `Unknown` as it said of the IPv4 header's unless it found either one wrong.
    #[inline(always)]
    pub fn rx_checksums(&self) -> Checksum {
        let flags = self.flags();
        if flags & (sys::DPDK_RX_IP_CKSUM_BAD | sys::DPDK_RX_L4_CKSUM_BAD) != 0 {
            return self.rx_checksums_in_doubt();
        }
        if flags & sys::DPDK_RX_IP_CKSUM_GOOD != 0 { Checksum::Good } else { Checksum::Unknown }
    }

    /// With the bits that mean `Bad` alone, and something else with others.
    #[cold]
    fn rx_checksums_in_doubt(&self) -> Checksum {
        match (self.rx_ip_checksum(), self.rx_l4_checksum()) {
            (_, Checksum::Bad) => Checksum::Bad,
            (ip, _) => ip,
        }
    }

    /// Whether the packet is as ports and pools give it as a rule: its bytes its own, and nothing asked of a port.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        let unusual = sys::DPDK_TX_OFFLOAD_MASK | sys::DPDK_MBUF_F_INDIRECT | sys::DPDK_MBUF_F_EXTERNAL;
        self.flags() & unusual == 0 && !self.is_shared()
    }

    /// Asks the port for work when the packet is sent, in place of what was asked
    /// before. Header lengths that do not fit are refused, and nothing is asked.
    #[inline]
    pub fn set_tx_offload(&mut self, wanted: &TxOffload) -> Result<(), NoRoom> {
        let mut flags = self.flags() & !sys::DPDK_TX_OFFLOAD_MASK;
        let fits = wanted.l2_len <= L2_LEN_MAX && wanted.l3_len <= L3_LEN_MAX;
        let mut lengths = 0;
        if fits && (wanted.ip_checksum || wanted.l4_checksum.is_some()) {
            flags |= if wanted.ipv6 { sys::DPDK_TX_IPV6 } else { sys::DPDK_TX_IPV4 };
            if wanted.ip_checksum {
                flags |= sys::DPDK_TX_IP_CKSUM;
            }
            flags |= match wanted.l4_checksum {
                Some(L4::Tcp) => sys::DPDK_TX_TCP_CKSUM,
                Some(L4::Udp) => sys::DPDK_TX_UDP_CKSUM,
                None => 0,
            };
            lengths = u64::from(wanted.l2_len) << sys::DPDK_MBUF_L2_LEN_SHIFT
                | u64::from(wanted.l3_len) << sys::DPDK_MBUF_L3_LEN_SHIFT;
        }
        // SAFETY: the packet is ours.
        unsafe {
            field!(self.raw, DPDK_MBUF_OL_FLAGS: u64).write(flags);
            field!(self.raw, DPDK_MBUF_TX_OFFLOAD: u64).write(lengths);
        }
        if fits { Ok(()) } else { Err(NoRoom) }
    }

    /// Asks nothing of the port, whatever was asked before.
    #[inline(always)]
    pub fn clear_tx_offload(&mut self) {
        let flags = self.flags();
        if flags & sys::DPDK_TX_OFFLOAD_MASK != 0 {
            // SAFETY: the packet is ours.
            unsafe { field!(self.raw, DPDK_MBUF_OL_FLAGS: u64).write(flags & !sys::DPDK_TX_OFFLOAD_MASK) };
        }
    }

    /// The header lengths that the port is told, as DPDK's own headers read them: (l2, l3).
    pub fn tx_header_lengths(&self) -> (u16, u16) {
        let (mut l2, mut l3) = (0, 0);
        // SAFETY: the packet is ours.
        unsafe { sys::dpdk_shim_mbuf_header_lengths(self.raw.as_ptr(), &mut l2, &mut l3) };
        (l2, l3)
    }

    /// Whether a second reference to the bytes of the first segment lives.
    #[inline(always)]
    pub fn is_shared(&self) -> bool {
        if self.flags() & (sys::DPDK_MBUF_F_INDIRECT | sys::DPDK_MBUF_F_EXTERNAL) != 0 {
            // SAFETY: the packet is ours.
            return unsafe { sys::dpdk_shim_mbuf_references(self.raw.as_ptr()) } > 1;
        }
        // SAFETY: the packet is ours; DPDK changes the count atomically while others have a part in
        // it. Acquire: who gave the last other reference up has read what it wanted to.
        unsafe { AtomicU16::from_ptr(field!(self.raw, DPDK_MBUF_REFCNT: u16)) }.load(Ordering::Acquire) > 1
    }

    /// A second reference to the packet's bytes, its own header taken from `pool`;
    /// `None` when the pool is exhausted.
    #[inline]
    pub fn share(&self, pool: &Mempool) -> Option<SharedMbuf> {
        // SAFETY: packet and pool live.
        let clone = unsafe { sys::rte_pktmbuf_clone(self.raw.as_ptr(), pool.as_ptr()) };
        // SAFETY: the clone is new and nobody else's.
        NonNull::new(clone).map(|raw| SharedMbuf(unsafe { Mbuf::from_raw(raw) }))
    }

    /// A copy of the packet, with the usual headroom; `None` when the pool is exhausted.
    pub fn copy(&self, pool: &Mempool) -> Option<Mbuf> {
        // SAFETY: packet and pool live.
        let copy = unsafe { sys::rte_pktmbuf_copy(self.raw.as_ptr(), pool.as_ptr(), 0, u32::MAX) };
        // SAFETY: the copy is new and nobody else's.
        NonNull::new(copy).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// Makes the packet's bytes its own, copying them (into the pool that it came
    /// from) if a second reference lives. Fails when that pool is exhausted.
    #[inline(always)]
    pub fn make_unique(&mut self) -> Result<(), NoRoom> {
        if self.is_shared() { self.become_copy() } else { Ok(()) }
    }

    #[cold]
    fn become_copy(&mut self) -> Result<(), NoRoom> {
        // SAFETY: the packet is ours, and its pool lives as long as any of its buffers is out.
        let copy = unsafe {
            let pool = sys::dpdk_shim_mbuf_pool(self.raw.as_ptr());
            sys::rte_pktmbuf_copy(self.raw.as_ptr(), pool, 0, u32::MAX)
        };
        // SAFETY: the copy is new and nobody else's.
        *self = unsafe { Mbuf::from_raw(NonNull::new(copy).ok_or(NoRoom)?) };
        Ok(())
    }

    /// Appends another packet's segments. Refused when there would be too many.
    pub fn chain(&mut self, tail: Mbuf) -> Result<(), Mbuf> {
        // SAFETY: both packets are ours.
        if unsafe { sys::dpdk_shim_mbuf_chain(self.raw.as_ptr(), tail.raw.as_ptr()) } != 0 {
            return Err(tail);
        }
        // The segments now belong to the head.
        let _ = tail.into_raw();
        Ok(())
    }

    /// Moves all bytes into the first segment. Refused when they do not fit, or
    /// when a second reference to the first segment lives.
    pub fn linearize(&mut self) -> Result<(), NoRoom> {
        if self.segment_count() == 1 {
            return Ok(());
        }
        if self.is_shared() {
            return Err(NoRoom);
        }
        // SAFETY: the packet is ours and its first segment may be written.
        if unsafe { sys::dpdk_shim_mbuf_linearize(self.raw.as_ptr()) } == 0 { Ok(()) } else { Err(NoRoom) }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the packet is ours and not used any more.
        unsafe { sys::dpdk_shim_mbuf_free(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("port", &self.port())
            .field("total_len", &self.total_len())
            .field("segments", &self.segment_count())
            .finish()
    }
}

/// The bytes of a packet's segments, in order.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    next: Option<NonNull<sys::rte_mbuf>>,
    packet: PhantomData<&'a Mbuf>,
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let segment = self.next?;
        let (data, len) = bytes_of(segment);
        // SAFETY: the segment belongs to a packet that is borrowed for `'a`; see `Mbuf::head`.
        unsafe {
            self.next = NonNull::new(field!(segment, DPDK_MBUF_NEXT: *mut sys::rte_mbuf).read());
            Some(core::slice::from_raw_parts(data, len))
        }
    }
}

/// A second reference to a packet's bytes: to be read and to be sent, not to be
/// written. The bytes live until the last reference goes.
#[derive(Debug)]
#[repr(transparent)]
pub struct SharedMbuf(Mbuf);

impl SharedMbuf {
    /// The bytes of the first segment.
    #[inline(always)]
    pub fn head(&self) -> &[u8] {
        self.0.head()
    }

    /// The bytes of every segment, in order.
    pub fn segments(&self) -> Segments<'_> {
        self.0.segments()
    }

    /// The length of the packet over all segments, in bytes.
    #[inline(always)]
    pub fn total_len(&self) -> usize {
        self.0.total_len()
    }

    /// Another reference; `None` when the pool is exhausted.
    pub fn share(&self, pool: &Mempool) -> Option<SharedMbuf> {
        self.0.share(pool)
    }
}

/// A packet on its way out, owned or shared: all that is left to do with it is to send it.
#[derive(Debug)]
#[repr(transparent)]
pub struct Outgoing(Mbuf);

impl Outgoing {
    /// The length of the packet over all segments, in bytes.
    #[inline(always)]
    pub fn total_len(&self) -> usize {
        self.0.total_len()
    }
}

impl From<Mbuf> for Outgoing {
    #[inline]
    fn from(packet: Mbuf) -> Outgoing {
        Outgoing(packet)
    }
}

impl From<SharedMbuf> for Outgoing {
    #[inline]
    fn from(packet: SharedMbuf) -> Outgoing {
        Outgoing(packet.0)
    }
}

/// What a transmit queue takes.
///
/// # Safety
/// The type is a transparent wrapper of an owned, non-null pointer to an mbuf.
pub unsafe trait Transmit {}

// SAFETY: `repr(transparent)` over `NonNull<rte_mbuf>`, which it owns.
unsafe impl Transmit for Mbuf {}
// SAFETY: as above.
unsafe impl Transmit for SharedMbuf {}
// SAFETY: as above.
unsafe impl Transmit for Outgoing {}
