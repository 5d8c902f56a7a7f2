//! What is said at a set rate: flows that a walk names, and questions about digests.

use crate::base::ids::{ShardId, Version};
use crate::base::time::Instant;
use crate::flow::FlowIndex;
use crate::flow::entry::FlowFlags;
use crate::flow::flows::Flows;
use crate::flow::layout::{Hot, Names};
use crate::mirror::asking::{ASKED_MAX, Answer};
use crate::mirror::digest::Digests;
use crate::mirror::in_flight::{Fate, Named, Sent};
use crate::mirror::record::{self, RECORDS_PER_FRAME_MAX, Record};
use crate::mirror::stream::Sender;
use crate::mirror::sync::{KNOWN, PLACES_PER_CALL, REFUSED, Settled, Sync, WALKED};
use crate::mirror::walk::Due;

/// Flows that were refused and are said again with the questions of one [`ASK_INTERVAL`](crate::mirror::asking::ASK_INTERVAL): few,
/// since they may be refused again, and what is new waits behind them.
const REFUSED_PER_CALL: u32 = 256;
/// Places looked at for them: a byte each.
const REFUSED_PLACES_PER_CALL: u32 = 1 << 15;
/// Flows looked at by one call of the walk in vain, since the peer does not track them: nothing tells so but the flow itself, of
/// which no line may be in a cache, and no walk's rate counts them. Then it rests until the next turn.
const UNTRACKED_PER_CALL: u32 = 128;

impl Sync {
    /// The walk: names every flow once, those first that had packets lately.
    pub fn write_walked(
        &mut self,
        now: Instant,
        flows: &Flows,
        digests: &mut Digests,
        out: &mut [u8],
    ) -> Option<(usize, Sent)> {
        if self.walk.due() == Due::Begin {
            let len = record::write(&Record::WalkBegin { shards: *self.walk.shards() }, &mut self.said, out)?;
            self.walk.begin_said();
            return Some((len, Sent { named: Named::WalkBegin, since: now }));
        }
        if let Due::Flows(from) = self.walk.due() {
            let end = flows.table.places_end().0.min(from.saturating_add(PLACES_PER_CALL));
            let passed_over = if self.walk.is_again() { WALKED } else { KNOWN | WALKED | REFUSED };
            let mut untracked = 0;
            let (idle_max, idleness) = (self.walk.idle_max(), flows.last_seen.idleness(now));
            for place in from..end {
                self.walk.looked(place + 1);
                // These arrays are looked over much faster than the flows themselves.
                let is_others =
                    || digests.shard_at(FlowIndex(place)).is_some_and(|shard| !self.walk.shards().has(shard));
                if self.has(place, passed_over) || is_others() {
                    continue;
                }
                let is_busy = |max: u32| idleness.ticks(FlowIndex(place)).is_some_and(|ticks| ticks <= max);
                if !idle_max.is_none_or(is_busy) {
                    continue;
                }
                let wanted = flows.table.hot(FlowIndex(place)).is_some_and(|hot| {
                    hot.flags().contains(FlowFlags::MIRRORED) && self.walk.shards().has(hot.shard())
                });
                let is_named = |names: &Names| self.tracked.has(names.virtual_server);
                let is_tracked = !self.tracked.is_partial()
                    || flows.table.named(FlowIndex(place)).is_some_and(|(_, names)| is_named(&names));
                if wanted && !is_tracked {
                    untracked += 1;
                    if untracked == UNTRACKED_PER_CALL {
                        // More at another time: there may be a call for each frame that another stream has to send.
                        self.looked_in_vain = Some(now);
                        return None;
                    }
                    continue;
                }
                if wanted && let Some(next) = self.write_state(true, flows, digests, (place, now), out) {
                    self.mark(place, WALKED, 0);
                    self.walk.named();
                    return Some(next);
                }
            }
            if end < flows.table.places_end().0 {
                return None; // More in the next call.
            }
            self.walk.turn_over();
        }
        if self.walk.due() == Due::End {
            let len = record::write(&Record::WalkEnd { shards: *self.walk.shards() }, &mut self.said, out)?;
            self.walk.end_said();
            return Some((len, Sent { named: Named::WalkEnd, since: now }));
        }
        None
    }

    /// A flow that the walk may have named is known, or refused, or gone.
    /// It was named in this round, or by its handle: only what names it for this walk counts.
    pub(super) fn unwalk(&mut self, flow: u32, in_full: Option<u8>) {
        if in_full == Some(self.walk.round()) && self.has(flow, WALKED) {
            self.mark(flow, 0, WALKED);
            self.walk.settled();
        }
    }

    /// Flows that the peer refused are said again, for what hindered it may be over: some places are looked at for them.
    fn say_refused(&mut self, now: Instant, flows: &Flows) {
        let (end, mut said) = (self.marks.len() as u32, 0);
        for _ in 0..REFUSED_PLACES_PER_CALL.min(end) {
            if self.refused == 0 || said == REFUSED_PER_CALL {
                return;
            }
            let flow = self.refused_at;
            self.refused_at = if flow + 1 >= end { 0 } else { flow + 1 };
            if self.has(flow, REFUSED)
                && let Some(shard) = flows.table.hot(FlowIndex(flow)).map(Hot::shard)
            {
                self.changed(now, shard, FlowIndex(flow));
                said += 1;
            }
        }
    }

    /// Asks the peer for the digests of shards, if that is due: as many as may be and have room. The bytes written; what to
    /// remember of them goes to `sent`.
    pub fn write_questions(
        &mut self,
        now: Instant,
        sender: &Sender<'_>,
        digests: &Digests,
        out: &mut [u8],
        sent: &mut Vec<Sent>,
    ) -> usize {
        let (mut at, mut room) = (0, ASKED_MAX.min(RECORDS_PER_FRAME_MAX - sent.len()));
        if self.asks_at().is_none_or(|due| now < due) {
            return 0;
        }
        self.say_refused(now, sender.flows);
        for shard in self.asking.begin(now, &self.shards) {
            if room == 0 {
                break;
            }
            if !self.is_settled(shard) || sender.arriving.has(shard) {
                continue;
            }
            let version = sender.flows.version(shard);
            let Some(digest) = digests.of_tracked(&self.tracked, shard) else { break };
            let question = Record::Digest { shard, digest };
            let Some(len) = record::write(&question, &mut self.said, &mut out[at..]) else { break };
            self.asking.ask(shard);
            let said = self.said_of[usize::from(shard.0)];
            sent.push(Sent { named: Named::Digest { shard, version, said }, since: now });
            at += len;
            room -= 1;
        }
        at
    }

    /// The peer has answered about a shard, of which this was the latest change when it was asked, and so much had been said where
    /// not all is acknowledged; or has not.
    pub(super) fn answered(
        &mut self,
        shard: ShardId,
        asked: (Instant, Version),
        said: u32,
        fate: Fate,
        flows: &Flows,
    ) -> Settled {
        // If more was said since, it may have heard of that, and compared nothing.
        let is_newest =
            || flows.version(shard) == asked.1 && self.said_of.get(usize::from(shard.0)) == Some(&said);
        let agrees = match fate {
            Fate::Applied => is_newest().then_some(true),
            Fate::Refused => Some(false),
            Fate::Lost => None,
        };
        let answer = self.asking.answered(shard, asked, agrees);
        match answer {
            Answer::Differs | Answer::StillDiffers => {
                self.walk.again(shard);
                Settled::Differs { shard, is_news: answer == Answer::Differs }
            }
            Answer::Agrees | Answer::Nothing => Settled::Nothing,
        }
    }
}
