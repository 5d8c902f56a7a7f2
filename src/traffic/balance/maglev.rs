//! Consistent hashing as in "Maglev: A Fast and Reliable Software Network Load
//! Balancer" (Eisenbud et al., NSDI 2016, section 3.4): a table of places, each
//! taken by a server; the servers take turns in claiming the next free place of
//! their own order of preference. One that goes takes its own places along and moves
//! few others.
//!
//! A server's order follows from its id alone, the turns from ids and weights, the
//! table's size from how many servers are configured, up or not. So every member of
//! a group builds the same table, however its file orders them. Unlike in the paper
//! servers have weights: turns come by stride scheduling, so that a server's rhythm
//! does not depend on who else is there.

use core::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::ServerSlot;
use crate::base::memory::prefetch;

/// Sizes of the table: primes, so that every step through it meets every place. The
/// first with a hundred places for each server is taken: shares then are off by one
/// in a hundred at most.
const SIZES: [u32; 3] = [16_381, 65_537, 655_373];
const PLACES_PER_SERVER: usize = 100;

/// A server of weight 1 has a turn each so many ticks. Above the largest weight, so
/// that weights stay distinct; the product with the largest size fits 64 bits.
const STRIDE: u64 = 1 << 40;

const FREE: u16 = u16::MAX;

/// One pool's table. Clones share it.
#[derive(Clone, Debug)]
pub struct Maglev {
    /// Indices of servers; empty when no server takes flows.
    places: Arc<[u16]>,
}

/// A server while it claims places.
struct Claimant {
    server: u16,
    stride: u64,
    /// The place it asks for next, and the step to the one after it.
    next: u32,
    step: u32,
}

impl Maglev {
    /// The table over these servers, of which the first 65534 are looked at.
    pub fn new(servers: &[ServerSlot]) -> Maglev {
        Maglev { places: places(servers).into() }
    }

    /// The server of a hash.
    pub fn choose(&self, hash: u64) -> Option<usize> {
        self.places.get(self.place(hash)).map(|server| usize::from(*server))
    }

    /// Asks for the line in which [`Maglev::choose`] will look.
    pub fn prefetch(&self, hash: u64) {
        if let Some(place) = self.places.get(self.place(hash)) {
            prefetch(place);
        }
    }

    /// Where a hash points to: as far into the table as it is into all hashes.
    fn place(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.places.len() as u128) >> 64) as usize
    }
}

fn size_for(servers: usize) -> u32 {
    let enough = SIZES.into_iter().find(|size| servers.saturating_mul(PLACES_PER_SERVER) <= *size as usize);
    enough.unwrap_or(SIZES[SIZES.len() - 1])
}

fn places(servers: &[ServerSlot]) -> Vec<u16> {
    let size = size_for(servers.len());
    let mut taking: Vec<(u16, &ServerSlot)> =
        (0..FREE).zip(servers).filter(|(_, slot)| slot.takes_flows()).collect();
    taking.sort_by_key(|(_, slot)| slot.id);
    let mut claimants: Vec<Claimant> = taking
        .into_iter()
        .map(|(server, slot)| {
            let (offset, skip) = (mix(slot.id.0, 1), mix(slot.id.0, 2));
            Claimant {
                server,
                stride: STRIDE / u64::from(slot.weight),
                next: (offset % u64::from(size)) as u32,
                step: (skip % u64::from(size - 1)) as u32 + 1,
            }
        })
        .collect();
    if claimants.is_empty() {
        return vec![];
    }
    // By time of the next turn, then by id (the order of `claimants`).
    let mut turns: BinaryHeap<Reverse<(u64, usize)>> =
        claimants.iter().enumerate().map(|(rank, claimant)| Reverse((claimant.stride, rank))).collect();
    let mut places = vec![FREE; size as usize];
    for _ in 0..size {
        let Some(mut turn) = turns.peek_mut() else { break };
        let Reverse((time, rank)) = *turn;
        let claimant = &mut claimants[rank];
        // There is a free place, and the steps meet every place: this ends.
        while places[claimant.next as usize] != FREE {
            claimant.next = (claimant.next + claimant.step) % size;
        }
        places[claimant.next as usize] = claimant.server;
        *turn = Reverse((time + claimant.stride, rank));
    }
    places
}

/// A well-mixed number from an id: the finalizer of SplitMix64 (Steele, Lea, Flood,
/// OOPSLA 2014). Part of what members must agree on.
const fn mix(id: u32, stream: u64) -> u64 {
    let mut z = (id as u64).wrapping_add(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{ServerId, id_of_name};
    use crate::base::rng::Rng;

    /// Servers named as the configuration names them, with these weights.
    fn servers(weights: &[u32]) -> Vec<ServerSlot> {
        let slots = (0..).zip(weights);
        slots
            .map(|(n, weight)| {
                let id = ServerId(id_of_name(&format!("web/10.2.0.{n}:80")));
                ServerSlot { id, weight: *weight, up: true }
            })
            .collect()
    }

    /// How many places each server has.
    fn shares(servers: &[ServerSlot]) -> Vec<f64> {
        let places = places(servers);
        let share = |server: usize| places.iter().filter(|s| usize::from(**s) == server).count();
        (0..servers.len()).map(|server| share(server) as f64 / places.len() as f64).collect()
    }

    #[test]
    fn equal_servers_have_equal_shares() {
        for count in [1, 2, 3, 10, 160] {
            for share in shares(&servers(&vec![1; count])) {
                let off = share * count as f64 - 1.0;
                assert!(off.abs() < 0.01, "a share of {count} is off by {off}");
            }
        }
    }

    #[test]
    fn shares_follow_the_weights() {
        let weights = [1, 2, 5, 10, 0];
        for (share, weight) in shares(&servers(&weights)).into_iter().zip(weights) {
            let expected = f64::from(weight) / 18.0;
            assert!((share - expected).abs() <= expected * 0.01, "{share} for {weight}");
        }
    }

    #[test]
    fn every_member_builds_the_same_table_whatever_the_order_of_its_file() {
        let here = servers(&[1, 2, 3, 1, 1, 4, 1]);
        let mut there = here.clone();
        let mut rng = Rng::with_seed(1);
        for _ in 0..5 {
            rng.shuffle(&mut there);
            let (ours, theirs) = (Maglev::new(&here), Maglev::new(&there));
            for _ in 0..1000 {
                let hash = rng.u64(..);
                let id = |table: &Maglev, of: &[ServerSlot]| table.choose(hash).map(|index| of[index].id);
                assert_eq!(id(&ours, &here), id(&theirs, &there));
            }
        }
    }

    #[test]
    fn a_table_is_pinned_because_members_of_different_versions_must_agree() {
        let sum_of = |weights: &[u32]| {
            let places = places(&servers(weights));
            places.iter().fold(0u64, |sum, place| sum.wrapping_mul(31).wrapping_add(u64::from(*place)))
        };
        assert_eq!(sum_of(&[1, 1, 2]), 10_323_019_882_172_747_373);
        assert_eq!(sum_of(&[1; 200]), 6_627_966_158_601_990_668);
    }

    /// Which part of the keys of other servers moves when one goes.
    fn moved(weights: &[u32], gone: usize) -> f64 {
        let before = servers(weights);
        let mut after = before.clone();
        after[gone].up = false;
        let pairs: Vec<(u16, u16)> = places(&before).into_iter().zip(places(&after)).collect();
        let others = pairs.iter().filter(|(old, _)| usize::from(*old) != gone);
        let (mut kept, mut all) = (0, 0);
        for (old, new) in others {
            all += 1;
            kept += usize::from(old == new);
        }
        assert!(pairs.iter().all(|(_, new)| usize::from(*new) != gone));
        1.0 - f64::from(kept as u32) / f64::from(all)
    }

    #[test]
    fn a_server_that_goes_moves_few_keys_of_the_others() {
        for gone in 0..10 {
            let moved_equal = moved(&[1; 10], gone);
            assert!(moved_equal < 0.15, "{moved_equal} moved");
            let moved_weighted = moved(&[1, 2, 3, 4, 5, 5, 4, 3, 2, 1], gone);
            assert!(moved_weighted < 0.15, "{moved_weighted} moved");
        }
    }

    #[test]
    fn a_server_that_comes_back_has_the_keys_it_had() {
        let before = servers(&[1; 10]);
        let mut between = before.clone();
        between[3].up = false;
        assert_ne!(places(&between), places(&before));
        between[3].up = true;
        assert_eq!(places(&between), places(&before));
    }

    #[test]
    fn extreme_weights_end_and_leave_nobody_out_who_is_alone() {
        let mut lone = servers(&[1, u32::MAX]);
        lone[1].up = false;
        assert_eq!(shares(&lone), [1.0, 0.0]);
        assert!(shares(&servers(&[1, u32::MAX]))[1] > 0.999);
    }

    #[test]
    fn the_table_is_a_hundred_times_the_servers_and_prime() {
        assert_eq!(
            [0, 163, 164, 655, 656, 60_000].map(size_for),
            [16_381, 16_381, 65_537, 65_537, 655_373, 655_373]
        );
        for size in SIZES {
            assert!((2..).take_while(|n| n * n <= size).all(|n| size % n != 0), "{size} is prime");
        }
        assert!(u64::from(SIZES[2]).checked_mul(STRIDE).is_some());
    }

    #[test]
    fn without_servers_there_is_no_choice() {
        assert_eq!(Maglev::new(&[]).choose(7), None);
        assert_eq!(Maglev::new(&servers(&[0, 0])).choose(7), None);
    }
}
