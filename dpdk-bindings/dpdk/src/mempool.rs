//! Pools of packet buffers.

use core::ptr::NonNull;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::eal::Running;
use crate::error::{EINVAL, Error, c_string, check_pointer};
use crate::mbuf::Mbuf;

/// Buffers that each lcore may keep for itself at most.
pub const CACHE_MAX: u32 = dpdk_sys::DPDK_MEMPOOL_CACHE_MAX;

/// How a pool is made.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Buffers in all; best a power of two less one.
    pub buffers: u32,
    /// Buffers that each lcore may keep for itself, at most [`CACHE_MAX`] and two thirds of all. A higher number saves
    /// trips to the common store and can leave that many buffers idle on each lcore.
    pub cache: u32,
    /// Bytes of each buffer, headroom included.
    pub data_room: u16,
    /// The memory's NUMA socket; `None`: any.
    pub socket: Option<u32>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            buffers: 8191,
            cache: 250,
            data_room: 2048 + dpdk_sys::DPDK_PKTMBUF_HEADROOM as u16,
            socket: None,
        }
    }
}

/// A pool of packet buffers. Clones are handles of the same pool. When the last
/// handle goes, the pool is freed if every buffer has come back; if not, it
/// stays for good (and says so in the log), since the buffers point into it.
/// Let the threads that free buffers end before the last handle goes.
#[derive(Clone, Debug)]
pub struct Mempool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: NonNull<dpdk_sys::rte_mempool>,
    size: u32,
    data_room: u16,
    running: Running,
}

// SAFETY: a packet pool is multi-producer and multi-consumer; each thread uses its own
// lcore's cache, or none.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Mempool {
    /// Makes a pool; its name must be unique in the process.
    pub fn new(running: &Running, name: &str, config: &Config) -> Result<Mempool, Error> {
        let what = format!("make a pool of {} buffers named {name}", config.buffers);
        let c_name = c_string(&what, name)?;
        if config.data_room <= dpdk_sys::DPDK_PKTMBUF_HEADROOM as u16 {
            return Err(Error::own(what, EINVAL, "the data room is not larger than the headroom"));
        }
        let cache_max = CACHE_MAX.min((u64::from(config.buffers) * 2 / 3) as u32);
        if config.cache > cache_max {
            let reason = format!("a cache of {} buffers is too large, at most {cache_max}", config.cache);
            return Err(Error::own(what, EINVAL, reason));
        }
        let socket = config.socket.map_or(-1, |socket| socket as i32);
        // SAFETY: the EAL runs; the name is copied.
        let pool = check_pointer(&what, unsafe {
            dpdk_sys::rte_pktmbuf_pool_create(
                c_name.as_ptr(),
                config.buffers,
                config.cache,
                0,
                config.data_room,
                socket,
            )
        })?;
        let inner =
            Inner { pool, size: config.buffers, data_room: config.data_room, running: running.clone() };
        Ok(Mempool(Arc::new(inner)))
    }

    /// An empty buffer with the headroom in front; `None` when none is left.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives.
        let packet = NonNull::new(unsafe { dpdk_sys::dpdk_shim_mbuf_alloc(self.0.pool.as_ptr()) })?;
        // SAFETY: the buffer is new and nobody else's.
        Some(unsafe { Mbuf::from_raw(packet) })
    }

    /// Appends `count` empty buffers, each with the headroom in front: all of them, or none when
    /// the pool has not that many left or the array has no room. Says whether they came.
    #[inline]
    pub fn alloc_bulk<const N: usize>(&self, packets: &mut ArrayVec<Mbuf, N>, count: usize) -> bool {
        let len = packets.len();
        if count > N - len {
            return false;
        }
        // SAFETY: the pool lives. An `Mbuf` is a pointer in memory; there is room for that many
        // behind the array's packets, and those that came are new and nobody else's.
        unsafe {
            let behind = packets.as_mut_ptr().add(len).cast::<*mut dpdk_sys::rte_mbuf>();
            let came = dpdk_sys::dpdk_shim_mbuf_alloc_bulk(self.0.pool.as_ptr(), behind, count as u32) == 0;
            if came {
                packets.set_len(len + count);
            }
            came
        }
    }

    /// Buffers in all.
    pub fn size(&self) -> u32 {
        self.0.size
    }

    /// Bytes of each buffer, headroom included.
    pub fn data_room(&self) -> u16 {
        self.0.data_room
    }

    /// Buffers that are out. Exact when no other thread takes or gives any meanwhile.
    pub fn in_use(&self) -> u32 {
        self.0.in_use()
    }

    pub(crate) fn as_ptr(&self) -> *mut dpdk_sys::rte_mempool {
        self.0.pool.as_ptr()
    }
}

impl Inner {
    fn in_use(&self) -> u32 {
        // SAFETY: the pool lives.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.pool.as_ptr()) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let out = self.in_use();
        if out == 0 {
            // SAFETY: no handle is left and no buffer of the pool is out.
            unsafe { dpdk_sys::rte_mempool_free(self.pool.as_ptr()) };
        } else {
            log::warn!(target: "dpdk", "a pool is not freed: {out} of its buffers are still in use");
            // The EAL's memory must outlive those buffers.
            core::mem::forget(self.running.clone());
        }
    }
}
