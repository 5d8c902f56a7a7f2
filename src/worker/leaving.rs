//! Where the flows are of shards that this worker gives away, and how many they are (see [`moving`](super::moving)).

use crate::flow::FlowIndex;
use crate::flow::shard::ShardSet;
use crate::flow::table::Table;

/// Flows of shards that are to leave.
pub(super) struct Leaving {
    shards: ShardSet,
    /// In the order in which they were found, and then made. Where a flow began after another one had ended, the place stands
    /// here twice.
    places: Vec<FlowIndex>,
    /// Places below this were looked at.
    looked: u32,
    flows: usize,
}

impl Leaving {
    pub(super) fn new(shards: ShardSet) -> Leaving {
        Leaving { shards, places: Vec::new(), looked: 0, flows: 0 }
    }

    /// Looks at so many more places; whether there were any.
    pub(super) fn look(&mut self, table: &Table, count: u32) -> bool {
        let (from, end) = (self.looked, table.places_end().0);
        if from >= end {
            self.looked = u32::MAX; // What is made from now on is noted, wherever it is.
            return false;
        }
        self.looked = end.min(from + count);
        let before = self.places.len();
        let shards = self.shards;
        let found = (from..self.looked).map(FlowIndex).filter(|place| is_of(&shards, table, *place));
        self.places.extend(found);
        self.flows += self.places.len() - before;
        true
    }

    /// A flow was made; where nobody looked yet, it will be found.
    #[inline]
    pub(super) fn note_made(&mut self, place: FlowIndex) {
        if place.0 < self.looked {
            self.places.push(place);
            self.flows += 1;
        }
    }

    /// A flow ended.
    #[inline]
    pub(super) fn note_ended(&mut self, place: FlowIndex) {
        if place.0 < self.looked {
            self.flows = self.flows.saturating_sub(1);
        }
    }

    /// Flows that were found or made, and have not ended.
    #[inline]
    pub(super) fn flows(&self) -> usize {
        self.flows
    }

    /// Where they are, or were.
    pub(super) fn places(&self) -> &[FlowIndex] {
        &self.places
    }

    /// Takes the newest away, so that no more are left than there is room for: their places, each once.
    pub(super) fn take_newest(&mut self, table: &Table, room: usize) -> Vec<FlowIndex> {
        let mut newest = Vec::new();
        if self.places.len() <= room {
            return newest;
        }
        let shards = self.shards;
        self.places.retain(|place| is_of(&shards, table, *place));
        let mut all = self.places.clone();
        all.sort_unstable();
        all.dedup();
        let more = all.len().saturating_sub(room);
        let mut is_taken = vec![false; all.len()];
        // What was noted of a place last is the flow that is there.
        while newest.len() < more
            && let Some(place) = self.places.pop()
        {
            let at = all.partition_point(|other| *other < place);
            if !core::mem::replace(&mut is_taken[at], true) {
                newest.push(place);
            }
        }
        newest
    }

    /// Forgets places of none of these flows, and all but one of a place that was noted again.
    pub(super) fn name_once(&mut self, table: &Table) {
        let shards = self.shards;
        self.places.retain(|place| is_of(&shards, table, *place));
        self.places.sort_unstable();
        self.places.dedup();
        self.flows = self.places.len();
    }
}

/// Whether the flow at a place is of one of these shards.
fn is_of(shards: &ShardSet, table: &Table, place: FlowIndex) -> bool {
    table.hot(place).is_some_and(|hot| shards.has(hot.shard()))
}
