//! State that is said without asking for an acknowledgement, and said again ([`maintenance`](crate::mirror::maintenance)).

use crate::base::ids::{ShardId, Version};
use crate::base::limits::MAINTAINED_WAITING_MAX;
use crate::base::time::{Duration, Instant};
use crate::flow::FlowIndex;
use crate::flow::flows::Flows;
use crate::mirror::handle::Handle;
use crate::mirror::in_flight::{Named, Sent};
use crate::mirror::sync::{BOUND, KNOWN, QUEUED, Sync, WALKED};

impl Sync {
    /// From now on the peer is asked for no acknowledgement of what changes of a flow that it knows by its handle, and a shard may
    /// differ for this long before that counts; `None`: it is asked for all of them.
    pub fn maintain(&mut self, patience: Option<Duration>) {
        self.maintains = patience.is_some();
        self.asking.be_patient(patience);
    }

    /// Whether a frame that says no more than this is not to be acknowledged: checkpoints of flows that the peer knows. What
    /// goes with something else is acknowledged with it.
    pub fn needs_no_answer(&self, sent: &[Sent]) -> bool {
        self.maintains && !sent.is_empty() && sent.iter().all(|sent| sent.named.is_by_handle())
    }

    /// Such a frame was written: nobody waits for what became of it.
    pub fn said_for_now(&mut self, sent: &[Sent]) {
        for sent in sent {
            if let Named::Flow { shard, .. } = sent.named {
                self.unsettled[usize::from(shard.0)] -= 1;
            }
        }
    }

    /// A record of this shard was written. What overtakes a question keeps the peer from comparing anything, and may be no change.
    pub(super) fn speaks_of(&mut self, shard: ShardId) {
        if self.maintains {
            let said = &mut self.said_of[usize::from(shard.0)];
            *said = said.wrapping_add(1);
        }
    }

    /// Whether the peer knows this flow, and perhaps not its newest state, though nothing waits to be said: a checkpoint of it may
    /// have been lost.
    pub fn may_be_behind(&self, flow: FlowIndex) -> bool {
        self.maintains && self.has(flow.0, BOUND)
    }

    /// Whether a round of checkpoints is to say the flow at this place again, if nothing else does and there is room. What the walk is about to
    /// name is named.
    pub fn is_maintained(&self, flow: FlowIndex) -> bool {
        self.walk.is_done()
            && self.waiting() < MAINTAINED_WAITING_MAX
            && self.has(flow.0, BOUND)
            && self.has(flow.0, KNOWN)
            && !self.has(flow.0, QUEUED | WALKED)
    }

    /// The peer knows no flow by this handle, of which it was sent a checkpoint: if that is still its flow, it is told of it in full.
    pub fn unbound(&mut self, now: Instant, handle: Handle, flows: &Flows) {
        let place = FlowIndex(handle.place);
        let Some((shard, created)) = flows.table.tenant(place) else { return };
        if self.shards.has(shard) && self.has(place.0, BOUND) && Handle::new(place, shard, created) == handle
        {
            self.changed_in_full(now, shard, place);
        }
    }

    /// Since when it has been too long that digests of a shard differ, and it could not be told again.
    pub fn overdue_since(&self) -> Option<Instant> {
        self.asking.overdue_since()
    }

    /// The change with which the shard was last found equal, where state is said without acknowledgement; what is older of its flows
    /// the peer has.
    pub fn agreed(&self, shard: ShardId) -> Version {
        self.asking.agreed(shard)
    }
}
