//! Lists and a hashed index over places of arrays, made once: no step of them allocates.

/// No place.
pub const NONE: u32 = u32::MAX;

/// A list of places, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> List {
        List { first: NONE, last: NONE }
    }
}

impl List {
    /// Its first place.
    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }
}

/// What stands before and behind each place in the one list that it is in.
#[derive(Debug)]
pub struct Links(Box<[(u32, u32)]>);

impl Links {
    /// For so many places, in no list.
    pub fn new(places: usize) -> Links {
        Links(vec![(NONE, NONE); places].into_boxed_slice())
    }

    /// Puts a place, which is in no list of these links, at a list's end.
    pub fn push(&mut self, list: &mut List, place: u32) {
        self.0[place as usize] = (list.last, NONE);
        match list.last {
            NONE => list.first = place,
            last => self.0[last as usize].1 = place,
        }
        list.last = place;
    }

    /// Takes a place out of the list that it is in.
    pub fn remove(&mut self, list: &mut List, place: u32) {
        let (before, behind) = self.0[place as usize];
        match before {
            NONE => list.first = behind,
            before => self.0[before as usize].1 = behind,
        }
        match behind {
            NONE => list.last = before,
            behind => self.0[behind as usize].0 = before,
        }
    }

    /// Takes the first place of a list.
    pub fn pop(&mut self, list: &mut List) -> Option<u32> {
        let place = list.first()?;
        self.remove(list, place);
        Some(place)
    }
}

/// Places by the hash of what lies there.
#[derive(Debug)]
pub struct Index {
    heads: Box<[u32]>,
    next: Box<[u32]>,
}

impl Index {
    /// For so many places.
    pub fn new(places: usize) -> Index {
        let heads = (2 * places).next_power_of_two();
        Index { heads: vec![NONE; heads].into_boxed_slice(), next: vec![NONE; places].into_boxed_slice() }
    }

    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.heads.len() - 1)
    }

    /// Enters a place, which is not in it.
    pub fn insert(&mut self, hash: u64, place: u32) {
        let bucket = self.bucket(hash);
        self.next[place as usize] = core::mem::replace(&mut self.heads[bucket], place);
    }

    /// Takes out a place that was entered under this hash.
    pub fn remove(&mut self, hash: u64, place: u32) {
        let behind = self.next[place as usize];
        let bucket = self.bucket(hash);
        if self.heads[bucket] == place {
            self.heads[bucket] = behind;
            return;
        }
        let before = self.places(hash).find(|other| self.next[*other as usize] == place);
        if let Some(before) = before {
            self.next[before as usize] = behind;
        }
    }

    /// The places that may lie under this hash.
    pub fn places(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let some = |place: u32| (place != NONE).then_some(place);
        core::iter::successors(some(self.heads[self.bucket(hash)]), move |place| {
            some(self.next[*place as usize])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn lists_keep_their_order_whatever_is_taken_out() {
        let mut rng = Rng::with_seed(3);
        let (mut links, mut list, mut model) = (Links::new(50), List::default(), Vec::new());
        for _ in 0..5_000 {
            let place = rng.u32(0..50);
            match model.iter().position(|other| *other == place) {
                Some(at) => {
                    links.remove(&mut list, place);
                    model.remove(at);
                }
                None => {
                    links.push(&mut list, place);
                    model.push(place);
                }
            }
            if rng.u8(0..20) == 0 {
                let first = (!model.is_empty()).then(|| model.remove(0));
                assert_eq!(links.pop(&mut list), first);
            }
            assert_eq!(list.first(), model.first().copied());
        }
        while let Some(place) = links.pop(&mut list) {
            assert_eq!(place, model.remove(0));
        }
        assert!(model.is_empty());
    }

    #[test]
    fn every_place_is_found_under_its_hash_until_it_is_taken_out() {
        let mut rng = Rng::with_seed(4);
        // Few hashes, so that they collide.
        let (mut index, mut model) = (Index::new(40), [None::<u64>; 40]);
        for _ in 0..5_000 {
            let place = rng.usize(0..40);
            match model[place].take() {
                Some(hash) => index.remove(hash, place as u32),
                None => {
                    let hash = rng.u64(0..8);
                    model[place] = Some(hash);
                    index.insert(hash, place as u32);
                }
            }
            for hash in 0..8 {
                let mut found: Vec<u32> = index.places(hash).collect();
                found.sort_unstable();
                let there: Vec<u32> = (0..40).filter(|place| model[*place as usize] == Some(hash)).collect();
                assert_eq!(found, there);
            }
        }
    }
}
