//! `rte_hash` on a real EAL.

#![cfg(feature = "hash")]

mod common;

use common::with_eal;
use dpdk::hash::{Hash, Key};

/// Any hash will do, as long as the caller always makes the same one.
fn hash_of(key: &Key) -> u32 {
    (key[0].wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}

#[test]
fn a_burst_finds_what_was_put_in_and_not_what_was_taken_out() {
    with_eal("a_burst_finds_what_was_put_in_and_not_what_was_taken_out", &["--lcores=0@0"], |eal| {
        let mut table = Hash::new(&eal, "keys", 1024).expect("the table fits in memory");
        let keys: [Key; 32] = core::array::from_fn(|n| [n as u64, 7]);
        let hashes = keys.map(|key| hash_of(&key));
        for (value, (key, hash)) in keys.iter().zip(hashes).enumerate() {
            assert!(table.insert(key, hash, value + 100));
        }
        assert!(table.remove(&keys[3], hashes[3]) && !table.remove(&keys[3], hashes[3]));
        let mut values = [0; 32];
        assert_eq!(table.find(&keys, &hashes, &mut values), u64::from(u32::MAX) & !(1 << 3));
        for (at, value) in values.into_iter().enumerate() {
            assert_eq!(value, if at == 3 { 0 } else { at + 100 });
        }
    });
}

#[test]
fn a_full_table_refuses_keys() {
    with_eal("a_full_table_refuses_keys", &["--lcores=0@0"], |eal| {
        let mut table = Hash::new(&eal, "keys", 64).expect("the table fits in memory");
        let put = (0..1000).filter(|n| table.insert(&[*n, 0], hash_of(&[*n, 0]), 1)).count();
        assert!((32..=64).contains(&put), "{put}");
    });
}
