//! Which digests a peer is asked for, and what its answers say.

use crate::base::ids::{ShardId, Version};
use crate::base::limits::SHARDS;
use crate::base::time::{Duration, Instant};
use crate::flow::shard::ShardSet;
use crate::mirror::record::RECORDS_PER_FRAME_MAX;

/// Between two frames that ask.
pub const ASK_INTERVAL: Duration = Duration::from_millis(100);
/// Shards that one frame asks about at most: a worker's own within half a second.
pub const ASKED_MAX: usize = RECORDS_PER_FRAME_MAX;

/// A shard that goes on differing is found to differ again within so long, each time.
const FOUND_WITHIN: Duration = Duration::from_secs(1);

/// What one stream asks its peer.
#[derive(Clone, Debug)]
pub struct Asking {
    /// The shards that have yet to agree in this round.
    left: ShardSet,
    /// Those that were asked about and not answered.
    asked: ShardSet,
    /// Those that differ, as far as is known: they were not found equal or told again in full since.
    differing: ShardSet,
    /// Those of which it was said that they differ, and which were not found equal since.
    named: ShardSet,
    due_at: Instant,
    /// Since when all shards agreed at least once, by the last round; `None`: no round is over.
    agreed_since: Option<Instant>,
    began_at: Instant,
    rounds: u64,
    /// The shard to begin with the next time: after the last one that was asked about.
    next: u16,
    /// Where state is said without acknowledgement.
    patience: Option<Box<Patience>>,
}

/// Where what is said of a flow is not acknowledged, a shard may differ because a frame was lost, until that is said again. Only one
/// that differs for longer is said to.
#[derive(Clone, Debug)]
struct Patience {
    /// So long.
    span: Duration,
    /// Those that were found to differ, and not found equal or told again in full since.
    suspects: ShardSet,
    /// When these were asked about; and when they were last found to differ.
    since: [Instant; SHARDS],
    last: [Instant; SHARDS],
    /// The latest change with which each shard was found equal.
    agreed: [Version; SHARDS],
}

/// How often and when a stream's digests agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Times that every shard of the stream had agreed.
    pub rounds: u64,
    /// The newest of these rounds began then: all shards have agreed since; `None`: there was none.
    pub since: Option<Instant>,
    /// Shards that differ, as far as is known.
    pub differing: usize,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The peer has the same.
    Agrees,
    /// The peer has something else, and that is news.
    Differs,
    /// The peer has something else, as before.
    StillDiffers,
    /// Nothing.
    Nothing,
}

impl Default for Asking {
    fn default() -> Asking {
        Asking {
            left: ShardSet::default(),
            asked: ShardSet::default(),
            differing: ShardSet::default(),
            named: ShardSet::default(),
            due_at: Instant::ZERO,
            agreed_since: None,
            began_at: Instant::ZERO,
            rounds: 0,
            next: 0,
            patience: None,
        }
    }
}

impl Asking {
    /// Nothing was asked: the peer is brought up to date from the start.
    pub fn begin_anew(&mut self) {
        let mut patience = self.patience.take();
        if let Some(patience) = &mut patience {
            patience.suspects = ShardSet::default();
            patience.agreed.fill(Version(0));
        }
        *self = Asking { rounds: self.rounds, patience, ..Asking::default() };
    }

    /// A shard differs only if it still does after this.
    pub fn be_patient(&mut self, span: Option<Duration>) {
        let (suspects, never, agreed) = (ShardSet::default(), [Instant::ZERO; SHARDS], [Version(0); SHARDS]);
        self.patience =
            span.map(|span| Box::new(Patience { span, suspects, since: never, last: never, agreed }));
    }

    /// Whether a shard that was found to differ at this time is to be forgiven that, for now.
    fn forgives(&mut self, shard: ShardId, asked_at: Instant) -> bool {
        let Some(Patience { span, suspects, since, last, .. }) = self.patience.as_deref_mut() else {
            return false;
        };
        let at = usize::from(shard.0);
        let (Some(since), Some(last)) = (since.get_mut(at), last.get_mut(at)) else { return false };
        // Of a shard that changes all the time no answer says that it is equal: then it was, if none said for long that it differs.
        if !suspects.has(shard) || asked_at - *last > *span + FOUND_WITHIN {
            suspects.set(shard, true);
            *since = asked_at;
        }
        *last = asked_at;
        asked_at - *since < *span
    }

    /// All flows of these shards were told in full, and acknowledged.
    pub fn told(&mut self, shards: &ShardSet) {
        if let Some(patience) = &mut self.patience {
            patience.suspects = patience.suspects.without(shards);
            self.differing = self.differing.without(shards);
        }
    }

    /// Since when it has been too long that a shard was found to differ, and neither found equal nor told again; `None`: it is
    /// so of none, or each difference counts at once.
    pub fn overdue_since(&self) -> Option<Instant> {
        let Patience { span, suspects, since, .. } = self.patience.as_deref()?;
        let overdue = suspects.both(&self.differing);
        overdue.iter().filter_map(|shard| since.get(usize::from(shard.0))).map(|since| *since + *span).min()
    }

    /// With which change of its own, at least, the shard was last found equal; where each difference counts at once this is
    /// not kept.
    pub fn agreed(&self, shard: ShardId) -> Version {
        let patience = self.patience.as_ref();
        patience.and_then(|patience| patience.agreed.get(usize::from(shard.0)).copied()).unwrap_or(Version(0))
    }

    /// When it is.
    pub fn due_at(&self) -> Instant {
        self.due_at
    }

    /// The shards to ask about now, of those of the stream; asks not before [`ASK_INTERVAL`] has passed.
    pub fn begin(&mut self, now: Instant, shards: &ShardSet) -> impl Iterator<Item = ShardId> + use<> {
        self.due_at = now + ASK_INTERVAL;
        self.left = shards.both(&self.left);
        if self.left.is_empty() {
            self.left = *shards;
            self.began_at = now;
        }
        let left = self.left.without(&self.asked);
        let next = self.next;
        (0..SHARDS as u16)
            .map(move |i| ShardId((next + i) % SHARDS as u16))
            .filter(move |shard| left.has(*shard))
    }

    /// The peer is asked about this shard.
    pub fn ask(&mut self, shard: ShardId) {
        self.next = (shard.0 + 1) % SHARDS as u16;
        self.asked.set(shard, true);
    }

    /// Another worker tells of this shard from now on.
    pub fn forget(&mut self, shard: ShardId) {
        for set in [&mut self.left, &mut self.asked, &mut self.differing, &mut self.named] {
            set.set(shard, false);
        }
        if let Some(patience) = &mut self.patience {
            patience.suspects.set(shard, false);
            patience.agreed[usize::from(shard.0) % SHARDS] = Version(0);
        }
    }

    /// The peer has answered what it was asked when this was the shard's latest change; or has not: then `agrees` is `None`.
    pub fn answered(
        &mut self,
        shard: ShardId,
        (asked_at, version): (Instant, Version),
        agrees: Option<bool>,
    ) -> Answer {
        if !self.asked.has(shard) {
            return Answer::Nothing;
        }
        self.asked.set(shard, false);
        match agrees {
            None => Answer::Nothing,
            Some(true) => {
                if let Some(patience) = &mut self.patience {
                    patience.suspects.set(shard, false);
                    patience.agreed[usize::from(shard.0) % SHARDS] = version;
                }
                self.differing.set(shard, false);
                self.named.set(shard, false);
                let was_left = self.left.has(shard);
                self.left.set(shard, false);
                if was_left && self.left.is_empty() {
                    self.rounds += 1;
                    self.agreed_since = Some(self.began_at);
                }
                Answer::Agrees
            }
            Some(false) if self.forgives(shard, asked_at) => Answer::Nothing,
            Some(false) => {
                let is_news = !self.named.has(shard);
                self.differing.set(shard, true);
                self.named.set(shard, true);
                if is_news { Answer::Differs } else { Answer::StillDiffers }
            }
        }
    }

    /// How far they agree.
    pub fn agreement(&self) -> Agreement {
        Agreement { rounds: self.rounds, since: self.agreed_since, differing: self.differing.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_keep_differing_leave_room_for_others_in_the_next_questions() {
        let all: ShardSet = (0..SHARDS as u16).map(ShardId).collect();
        let mut asking = Asking::default();
        let mut asked = ShardSet::default();
        for round in 0..4 {
            let now = Instant::from_millis(1 + round * 200);
            let shards: Vec<_> = asking.begin(now, &all).take(ASKED_MAX).collect();
            for shard in shards {
                asking.ask(shard);
                asked.set(shard, true);
                asking.answered(shard, (now, Version(0)), Some(false));
            }
        }
        assert_eq!((asked.len(), asking.agreement().differing), (SHARDS, SHARDS));
    }

    /// REQ B6: what was in a lost frame is said again, and then the shard agrees.
    #[test]
    fn a_shard_differs_only_for_longer_than_patience_has_and_is_overdue_from_then_on() {
        let (at, shard) = (Instant::from_millis, ShardId(3));
        let only: ShardSet = [shard].into_iter().collect();
        let mut asking = Asking::default();
        asking.be_patient(Some(Duration::from_millis(300)));
        let ask = |asking: &mut Asking, now: u64, version: u64, agrees| {
            asking.ask(shard);
            asking.answered(shard, (at(now), Version(version)), agrees)
        };
        assert_eq!(ask(&mut asking, 100, 5, Some(true)), Answer::Agrees);
        assert_eq!(ask(&mut asking, 200, 6, Some(false)), Answer::Nothing);
        assert_eq!(ask(&mut asking, 300, 6, None), Answer::Nothing);
        assert_eq!(ask(&mut asking, 499, 7, Some(false)), Answer::Nothing);
        assert_eq!((asking.overdue_since(), asking.agreed(shard)), (None, Version(5)));
        assert_eq!(ask(&mut asking, 500, 7, Some(false)), Answer::Differs);
        assert_eq!(ask(&mut asking, 600, 7, Some(false)), Answer::StillDiffers);
        assert_eq!((asking.overdue_since(), asking.agreement().differing), (Some(at(500)), 1));
        asking.told(&only);
        assert_eq!((asking.overdue_since(), asking.agreement().differing), (None, 0));
        assert_eq!(ask(&mut asking, 700, 7, Some(false)), Answer::Nothing, "it begins again");
        assert_eq!(ask(&mut asking, 900, 8, Some(true)), Answer::Agrees);
        assert_eq!(ask(&mut asking, 1100, 9, Some(false)), Answer::Nothing, "it did not differ all the time");
        assert_eq!(asking.agreed(shard), Version(8));
        assert_eq!(ask(&mut asking, 1200, 9, Some(false)), Answer::Nothing, "the first one went on");
        assert_eq!(ask(&mut asking, 1201, 9, None), Answer::Nothing, "it has changed meanwhile");
        assert_eq!(
            ask(&mut asking, 600_000, 10, Some(false)),
            Answer::Nothing,
            "it did not differ for minutes"
        );
        assert_eq!(ask(&mut asking, 600_300, 10, Some(false)), Answer::Differs);
        asking.told(&only);
        assert_eq!(ask(&mut asking, 600_400, 10, Some(false)), Answer::Nothing);
        assert_eq!(ask(&mut asking, 600_700, 10, Some(false)), Answer::StillDiffers, "it was never equal");
        asking.begin_anew();
        assert_eq!(asking.agreed(shard), Version(0), "the peer knows nothing");
        asking.be_patient(None);
        assert_eq!(
            ask(&mut asking, 601_000, 9, Some(false)),
            Answer::Differs,
            "each difference counts at once"
        );
        assert_eq!(asking.overdue_since(), None);
    }
}
