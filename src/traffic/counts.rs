//! How many flows each virtual server and each real server has (REQ C1, C3).
//! Kept from the flows themselves, so that a standby counts the same (REQ C6).

use hashbrown::HashMap;

use crate::base::ids::{ServerId, ShardId, VirtualServerId};
use crate::base::limits::{RETIRED_MAX, SHARDS};
use crate::flow::Flow;

/// Flow counts of one worker.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    virtual_servers: Tally,
    servers: Tally,
    mirrored: u64,
    shards: PerShard,
}

/// Flows of each shard.
#[derive(Clone, Debug)]
struct PerShard([u32; SHARDS]);

impl Default for PerShard {
    fn default() -> PerShard {
        PerShard([0; SHARDS])
    }
}

impl Counts {
    /// None yet, with places for these, and for as many others as can be retired.
    pub fn with_places(
        virtual_servers: impl Iterator<Item = VirtualServerId>,
        servers: impl Iterator<Item = ServerId>,
    ) -> Counts {
        Counts {
            virtual_servers: Tally::with_places(virtual_servers.map(|id| id.0)),
            servers: Tally::with_places(servers.map(|id| id.0)),
            ..Counts::default()
        }
    }

    /// Goes on in `next`, which has none yet, and leaves there what was counted in until now. Takes no memory as long as
    /// `next` has places for all that has flows, or room for those that it does not know.
    pub fn go_on_in(&mut self, next: &mut Counts) {
        next.virtual_servers.take_over(&self.virtual_servers);
        next.servers.take_over(&self.servers);
        next.mirrored = self.mirrored;
        next.shards.0.copy_from_slice(&self.shards.0);
        core::mem::swap(self, next);
    }

    /// A flow began.
    pub fn add(&mut self, flow: &Flow) {
        *self.virtual_servers.of(flow.virtual_server.0) += 1;
        *self.servers.of(flow.server_id.0) += 1;
        self.mirrored += u64::from(flow.is_mirrored());
        self.shards.0[usize::from(flow.shard.0) % SHARDS] += 1;
    }

    /// A flow ended.
    pub fn remove(&mut self, flow: &Flow) {
        for count in [self.virtual_servers.of(flow.virtual_server.0), self.servers.of(flow.server_id.0)] {
            *count = count.saturating_sub(1);
        }
        self.mirrored = self.mirrored.saturating_sub(u64::from(flow.is_mirrored()));
        let of_shard = &mut self.shards.0[usize::from(flow.shard.0) % SHARDS];
        *of_shard = of_shard.saturating_sub(1);
    }

    /// A flow is to be mirrored from now on, or no longer.
    pub fn mirroring(&mut self, mirrors: bool) {
        self.mirrored = if mirrors { self.mirrored + 1 } else { self.mirrored.saturating_sub(1) };
    }

    /// Flows that are to be mirrored.
    pub fn mirrored(&self) -> u64 {
        self.mirrored
    }

    /// Flows of a shard.
    pub fn of_shard(&self, shard: ShardId) -> u64 {
        self.shards.0.get(usize::from(shard.0)).copied().unwrap_or(0).into()
    }

    /// Flows of a virtual server.
    pub fn of_virtual_server(&self, id: VirtualServerId) -> u64 {
        self.virtual_servers.count(id.0)
    }

    /// Flows of a real server.
    pub fn of_server(&self, id: ServerId) -> u64 {
        self.servers.count(id.0)
    }
}

/// Last places that are remembered: ids are given by name, and differ in their lowest bits.
const GUESSES: usize = 256;

/// A count for each id. Ids are those of the configuration, so they are few.
#[derive(Debug)]
struct Tally {
    counts: Vec<(u32, u64)>,
    places: HashMap<u32, u32>,
    /// Where an id with these lowest bits was last.
    guesses: [u32; GUESSES],
}

impl Default for Tally {
    fn default() -> Tally {
        Tally { counts: Vec::new(), places: HashMap::new(), guesses: [0; GUESSES] }
    }
}

impl Clone for Tally {
    /// With the room for more.
    fn clone(&self) -> Tally {
        let mut counts = Vec::with_capacity(self.counts.capacity());
        counts.extend_from_slice(&self.counts);
        Tally { counts, places: self.places.clone(), guesses: self.guesses }
    }
}

impl Tally {
    fn with_places(ids: impl Iterator<Item = u32>) -> Tally {
        let mut tally = Tally::default();
        ids.for_each(|id| *tally.of(id) = 0);
        // A standby that takes its leader's services may hold flows of others, until the leader names its own.
        tally.counts.reserve_exact(RETIRED_MAX);
        tally.places.reserve(RETIRED_MAX);
        tally
    }

    fn take_over(&mut self, before: &Tally) {
        for (id, count) in before.counts.iter().filter(|(_, count)| *count > 0) {
            *self.of(*id) += count;
        }
    }

    #[inline]
    fn of(&mut self, id: u32) -> &mut u64 {
        let guess = self.guesses[id as usize % GUESSES] as usize;
        let at = match self.counts.get(guess) {
            Some((known, _)) if *known == id => guess,
            _ => self.find(id),
        };
        &mut self.counts[at].1
    }

    #[cold]
    fn find(&mut self, id: u32) -> usize {
        let counts = &mut self.counts;
        let at = *self.places.entry(id).or_insert_with(|| {
            counts.push((id, 0));
            (counts.len() - 1) as u32
        });
        self.guesses[id as usize % GUESSES] = at;
        at as usize
    }

    fn count(&self, id: u32) -> u64 {
        self.places.get(&id).map_or(0, |at| self.counts[*at as usize].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::entry::FlowFlags;
    use crate::flow::key::Key;
    use crate::flow::tcp_state::TcpState;

    fn flow(virtual_server: u32, server: u32) -> Flow {
        Flow {
            virtual_server: VirtualServerId(virtual_server),
            server_id: ServerId(server),
            flags: FlowFlags::MIRRORED,
            ..Flow::new(Key::default(), Key::default(), TcpState::SynSeen)
        }
    }

    #[test]
    fn counting_goes_on_in_places_that_were_made_before_and_whoever_has_no_flows_is_forgotten() {
        let mut counts = Counts::default();
        for server in [7, 7, 8] {
            counts.add(&flow(1, server));
        }
        counts.remove(&flow(1, 8));
        let next =
            Counts::with_places([1, 2].map(VirtualServerId).into_iter(), [7, 9].map(ServerId).into_iter());
        // Each worker gets one of its own.
        let mut next = next.clone();
        let room = |counts: &Counts| (counts.servers.counts.capacity(), counts.servers.places.capacity());
        let before = room(&next);
        counts.go_on_in(&mut next);
        counts.add(&flow(2, 9));
        assert_eq!([7, 8, 9].map(|id| counts.of_server(ServerId(id))), [2, 0, 1]);
        assert_eq!([1, 2].map(|id| counts.of_virtual_server(VirtualServerId(id))), [2, 1]);
        assert_eq!((counts.mirrored(), counts.of_shard(ShardId(0))), (3, 3));
        assert_eq!(counts.servers.counts.len(), 2);

        // Flows of what the next one does not know are counted on, in the room that there is.
        for stray in 1000..1000 + RETIRED_MAX as u32 {
            counts.add(&flow(1, stray));
        }
        assert_eq!(room(&counts), before);
        let places = || [1, 2].map(VirtualServerId).into_iter();
        let mut next = Counts::with_places(places(), [9].map(ServerId).into_iter()).clone();
        let before = room(&next);
        counts.remove(&flow(1, 1000));
        counts.go_on_in(&mut next);
        assert_eq!(room(&counts), before);
        assert_eq!([7, 1000, 1001].map(|id| counts.of_server(ServerId(id))), [2, 0, 1]);
    }

    #[test]
    fn each_id_has_its_own_count_also_where_lowest_bits_are_the_same() {
        let mut counts = Counts::default();
        for round in 1..=3 {
            for server in [7, 7 + 256, 7 + 512, 8] {
                counts.add(&flow(1, server));
                assert_eq!(counts.of_server(ServerId(server)), round);
            }
        }
        counts.remove(&flow(1, 7 + 256));
        assert_eq!([7, 263, 519, 8, 9].map(|id| counts.of_server(ServerId(id))), [3, 2, 3, 3, 0]);
        assert_eq!((counts.of_virtual_server(VirtualServerId(1)), counts.mirrored()), (11, 11));
        counts.remove(&flow(2, 9));
        assert_eq!(counts.of_server(ServerId(9)), 0);
    }
}
