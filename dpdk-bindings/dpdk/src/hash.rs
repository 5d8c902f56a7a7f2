//! `rte_hash`: DPDK's own table, with keys of sixteen bytes, hashes that the caller has made,
//! and look-ups of whole bursts. What baton's table is compared with; nothing else uses it.

use core::ffi::c_void;
use core::ptr::NonNull;

use dpdk_sys as sys;

use crate::eal::Running;
use crate::error::{Error, c_string, check_pointer};

/// Keys of one burst at most.
pub const BURST_MAX: usize = 64;

/// A key.
pub type Key = [u64; 2];

/// A table, for one thread at a time.
#[derive(Debug)]
pub struct Hash {
    raw: NonNull<sys::rte_hash>,
    _running: Running,
}

// SAFETY: the table is not bound to the thread that made it, and `&mut self` changes it.
unsafe impl Send for Hash {}

impl Hash {
    /// Makes a table for at least so many keys; its name is unique in the process.
    pub fn new(running: &Running, name: &str, keys_max: u32) -> Result<Hash, Error> {
        let what = format!("make a table named {name} for {keys_max} keys");
        let name = c_string(&what, name)?;
        let parameters = sys::rte_hash_parameters {
            name: name.as_ptr(),
            entries: keys_max,
            reserved: 0,
            key_len: size_of::<Key>() as u32,
            hash_func: None,
            hash_func_init_val: 0,
            socket_id: -1,
            extra_flag: 0,
        };
        // SAFETY: the EAL runs; parameters and name are copied.
        let raw = check_pointer(&what, unsafe { sys::rte_hash_create(&parameters) })?;
        Ok(Hash { raw, _running: running.clone() })
    }

    /// Puts a value under a key, which is not in the table; whether there was room.
    pub fn insert(&mut self, key: &Key, hash: u32, value: usize) -> bool {
        let key = core::ptr::from_ref(key).cast::<c_void>();
        // SAFETY: the table lives, `&mut self` is its only user, the key has the table's length and
        // is copied. The value is a number: nobody follows it as a pointer.
        let returned = unsafe {
            sys::rte_hash_add_key_with_hash_data(
                self.raw.as_ptr(),
                key,
                hash,
                core::ptr::without_provenance_mut(value),
            )
        };
        returned == 0
    }

    /// Takes a key out; whether it was there.
    pub fn remove(&mut self, key: &Key, hash: u32) -> bool {
        let key = core::ptr::from_ref(key).cast::<c_void>();
        // SAFETY: as in `insert`; the key is only read.
        unsafe { sys::rte_hash_del_key_with_hash(self.raw.as_ptr(), key, hash) >= 0 }
    }

    /// Looks up a burst of keys with their hashes. Bit `i` of the answer says whether key `i` is in
    /// the table; then its value is in place `i`, and other places stay as they were.
    #[inline]
    pub fn find<const N: usize>(&self, keys: &[Key; N], hashes: &[u32; N], values: &mut [usize; N]) -> u64 {
        const { assert!(N > 0 && N <= BURST_MAX, "rte_hash looks up so many at once at most") };
        let pointers: [*const c_void; N] = core::array::from_fn(|at| core::ptr::from_ref(&keys[at]).cast());
        let mut hashes = *hashes;
        let mut found = 0;
        // SAFETY: the table lives; there are `N` keys of its length, hashes and places for values,
        // which are as wide as pointers.
        let returned = unsafe {
            sys::rte_hash_lookup_with_hash_bulk_data(
                self.raw.as_ptr(),
                pointers.as_ptr().cast_mut(),
                hashes.as_mut_ptr(),
                N as u32,
                &mut found,
                values.as_mut_ptr().cast(),
            )
        };
        if returned < 0 { 0 } else { found }
    }
}

impl Drop for Hash {
    fn drop(&mut self) {
        // SAFETY: the table is ours and nobody uses it any more.
        unsafe { sys::rte_hash_free(self.raw.as_ptr()) };
    }
}
