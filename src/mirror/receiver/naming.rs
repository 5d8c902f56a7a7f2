//! What the walk that is under way has named, and when one begins.

use crate::base::ids::ShardId;
use crate::flow::FlowIndex;
use crate::flow::shard::ShardSet;
use crate::mirror::digest::Digests;
use crate::mirror::receiver::{Place, Received};

impl Received {
    /// Every place counts as not named.
    pub(super) fn name_nothing(&mut self) {
        self.ending.1 = 0;
        if self.mark == u8::MAX {
            self.marks.fill(0);
            self.mark = 0;
        }
        self.mark += 1;
        self.walked.fill(self.mark);
    }

    /// Every place of these shards counts as not named; those of others count as before.
    pub(super) fn name_nothing_of(&mut self, shards: &ShardSet, digests: &Digests) {
        self.ending.1 = 0;
        if self.mark == u8::MAX {
            for index in (0..self.marks.len() as u32).map(FlowIndex) {
                let named = digests.shard_at(index).is_some_and(|shard| self.is_named(index, shard));
                if let Some(mark) = self.marks.get_mut(index.slot()) {
                    *mark = u8::from(named);
                }
            }
            self.mark = 1;
            self.walked.fill(self.mark);
        }
        self.mark += 1;
        for shard in shards.iter() {
            self.walked[usize::from(shard.0)] = self.mark;
        }
    }

    /// Whether a frame of walk number `walk` would say that the sender has begun anew
    /// since it was last heard, or since the session began, with walk number 1.
    pub fn begins_anew(&self, walk: u32) -> bool {
        walk > self.walk.max(1)
    }

    /// The sender is to begin anew: until it has, nothing here is held against its digests.
    pub fn ask_anew(&mut self) {
        self.asked_anew = true;
    }

    /// A frame of the sender's walk number `walk` arrived; whether it is of the walk that is under way, not of an earlier
    /// one.
    pub fn enter_walk(&mut self, walk: u32) -> bool {
        if walk > self.walk {
            // The first of a session is no answer to what was asked under it.
            self.asked_anew &= self.walk == 0 && walk == 1;
            self.walk = walk;
            self.name_nothing();
        }
        walk == self.walk
    }

    /// Whether the last walk of its shard has named the flow at this place.
    pub(super) fn is_named(&self, index: FlowIndex, shard: ShardId) -> bool {
        let walked = self.walked.get(usize::from(shard.0));
        walked.is_some() && self.marks.get(index.slot()) == walked
    }

    /// What was said before the last walk began again, or ended, names nothing.
    pub(super) fn name(&mut self, index: FlowIndex, shard: ShardId, place: Place) {
        if place.sequence < self.bracketed {
            return;
        }
        if let (Some(named), Some(walked)) =
            (self.marks.get_mut(index.slot()), self.walked.get(usize::from(shard.0)))
        {
            *named = *walked;
        }
    }
}
