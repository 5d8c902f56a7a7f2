//! What is kept with a packet while it is in this process, in fields that ports read or write only at its beginning and at
//! its end.

use dpdk_sys as sys;

use crate::mbuf::{Mbuf, field};

impl Mbuf {
    /// Whether something is asked of the port.
    #[inline(always)]
    pub(crate) fn asks(&self) -> bool {
        self.flags() & sys::DPDK_TX_OFFLOAD_MASK != 0
    }

    /// Keeps a number in the place of the hash that a port computed.
    #[inline(always)]
    pub(crate) fn set_mark(&mut self, mark: u32) {
        // SAFETY: the packet is ours.
        unsafe { field!(self.raw(), DPDK_MBUF_HASH: u32).write(mark) }
    }

    /// What [`Mbuf::set_mark`] kept, or the port's hash.
    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: the packet is ours.
        unsafe { field!(self.raw(), DPDK_MBUF_HASH: u32).read() }
    }

    /// Keeps a wish in the place of what is asked of the port, until the packet is sent.
    pub(crate) fn set_wish(&mut self, wish: u64) {
        let flags = self.flags() & !sys::DPDK_TX_OFFLOAD_MASK;
        let mark = if wish == 0 { 0 } else { sys::DPDK_TX_IP_CKSUM };
        // SAFETY: the packet is ours.
        unsafe {
            field!(self.raw(), DPDK_MBUF_OL_FLAGS: u64).write(flags | mark);
            field!(self.raw(), DPDK_MBUF_TX_OFFLOAD: u64).write(wish);
        }
    }

    /// What [`Mbuf::set_wish`] kept; 0: nothing.
    pub(crate) fn wish(&self) -> u64 {
        if !self.asks() {
            return 0;
        }
        // SAFETY: the packet is ours.
        unsafe { field!(self.raw(), DPDK_MBUF_TX_OFFLOAD: u64).read() }
    }
}
