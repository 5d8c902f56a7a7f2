//! What a stream counts, for `baton mirror`: by frame and by record, never by packet.

use core::fmt;

use crate::base::time::{Duration, Instant};
use crate::mirror::in_flight::Fate;
use crate::mirror::record::Refusal;

/// Rates are taken over so long at least.
const RATE_SPAN: Duration = Duration::from_secs(1);

/// What a stream counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamStatistics {
    /// Frames sent.
    pub frames_sent: u64,
    /// Their bytes, from the mirror's header to the seal.
    pub bytes_sent: u64,
    /// State records sent.
    pub records_sent: u64,
    /// Those of them that nobody was asked to acknowledge.
    pub checkpoints_sent: u64,
    /// State records that the peer applied.
    pub records_applied: u64,
    /// Records taken for lost.
    pub records_lost: u64,
    /// Records that the peer refused.
    pub records_refused: u64,
    /// Why, the last time.
    pub refusal: Option<Refusal>,
    /// Times that the peer's digest of a shard differed.
    pub digests_differing: u64,
    /// Frames received and opened.
    pub frames_received: u64,
    /// Their bytes, as of those sent.
    pub bytes_received: u64,
    /// State records received; questions are none.
    pub records_received: u64,
    /// What went wrong the last time, and when.
    pub trouble: Option<(Instant, Trouble)>,
    sent: Rate,
    received: Rate,
}

/// What may go wrong on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A frame was not acknowledged in time, or later ones were.
    Lost,
    /// The peer refused a record.
    Refused(Refusal),
    /// A frame of the peer could not be opened.
    Unopened,
    /// A frame of the peer held what is no record.
    Malformed,
    /// The peer sent state without leading.
    WrongTerm,
    /// A record of the peer was refused.
    RefusedHere(Refusal),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Lost => f.write_str("a frame was not acknowledged, what it told is told again"),
            Trouble::Refused(why) => write!(f, "the peer refused a record: {why}"),
            Trouble::Unopened => {
                f.write_str("a frame of the peer was not opened: another key, an altered or a repeated frame")
            }
            Trouble::Malformed => f.write_str("a frame of the peer was malformed"),
            Trouble::WrongTerm => f.write_str("the peer sent state under a term that does not lead here"),
            Trouble::RefusedHere(why) => write!(f, "a record of the peer was refused here: {why}"),
        }
    }
}

/// So much each second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerSecond {
    /// Records.
    pub records: u64,
    /// Bytes of frames, as in [`StreamStatistics::bytes_sent`].
    pub bytes: u64,
}

/// A rate over the last whole second or longer.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    /// What is counted for the next rate counts from here.
    begin: Option<Instant>,
    /// Records and bytes then.
    counted: (u64, u64),
    over: PerSecond,
}

impl Rate {
    fn roll(&mut self, now: Instant, counted: (u64, u64)) {
        match self.begin {
            None => (self.begin, self.counted) = (Some(now), counted),
            Some(begin) if now - begin >= RATE_SPAN => {
                self.over = self.since(now - begin, counted);
                (self.begin, self.counted) = (Some(now), counted);
            }
            Some(_) => {}
        }
    }

    fn since(&self, span: Duration, (records, bytes): (u64, u64)) -> PerSecond {
        let rate = |more: u64| {
            let rate = u128::from(more) * 1_000_000_000 / u128::from(span.nanos().max(1));
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        PerSecond { records: rate(records - self.counted.0), bytes: rate(bytes - self.counted.1) }
    }

    /// As it stands: where no frame went or came for a while, that counts too.
    fn now(&self, now: Instant, counted: (u64, u64)) -> PerSecond {
        match self.begin {
            Some(begin) if now - begin >= RATE_SPAN => self.since(now - begin, counted),
            Some(_) | None => self.over,
        }
    }
}

impl StreamStatistics {
    /// A frame of so many bytes and state records leaves.
    pub(super) fn sends(&mut self, now: Instant, bytes: usize, records: u64) {
        self.sent.roll(now, (self.records_sent, self.bytes_sent));
        self.frames_sent += 1;
        self.bytes_sent += bytes as u64;
        self.records_sent += records;
    }

    /// A frame of so many bytes was opened. Its records are counted one by one.
    pub(super) fn receives(&mut self, now: Instant, bytes: usize) {
        self.received.roll(now, (self.records_received, self.bytes_received));
        self.frames_received += 1;
        self.bytes_received += bytes as u64;
    }

    /// Something went wrong.
    pub(super) fn fails(&mut self, now: Instant, trouble: Trouble) {
        self.trouble = Some((now, trouble));
    }

    /// So it went with so many state records of a frame. What was refused is counted where it is known how it counts.
    pub(super) fn settles(&mut self, now: Instant, fate: Fate, records: u64) {
        match fate {
            Fate::Applied => self.records_applied += records,
            Fate::Lost => self.loses(now, records),
            Fate::Refused => {}
        }
    }

    /// So many state records of a frame are taken for lost.
    pub(super) fn loses(&mut self, now: Instant, records: u64) {
        self.records_lost += records;
        self.fails(now, Trouble::Lost);
    }

    /// What was sent in the last second, or since the frame before.
    pub fn sent_per_second(&self, now: Instant) -> PerSecond {
        self.sent.now(now, (self.records_sent, self.bytes_sent))
    }

    /// What was received in the last second, or since the frame before.
    pub fn received_per_second(&self, now: Instant) -> PerSecond {
        self.received.now(now, (self.records_received, self.bytes_received))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_second_and_fall_when_nothing_more_comes() {
        let at = Instant::from_millis;
        let mut statistics = StreamStatistics::default();
        assert_eq!(statistics.sent_per_second(at(10)), PerSecond::default());
        for frame in 0..=20 {
            statistics.sends(at(5000 + frame * 100), 1500, 20);
        }
        let busy = PerSecond { records: 200, bytes: 15_000 };
        assert_eq!(statistics.sent_per_second(at(7050)), busy);
        // The frame at 7000 ms and none for four seconds.
        let later = PerSecond { records: 5, bytes: 375 };
        assert_eq!(statistics.sent_per_second(at(11_000)), later);
        assert_eq!(statistics.received_per_second(at(11_000)), PerSecond::default());
        assert_eq!((statistics.frames_sent, statistics.bytes_sent), (21, 31_500));
    }

    #[test]
    fn the_last_trouble_is_told_in_words() {
        let mut statistics = StreamStatistics::default();
        statistics.loses(Instant::from_millis(3), 2);
        statistics.fails(Instant::from_millis(5), Trouble::Refused(Refusal::TableFull));
        let (at, trouble) = statistics.trouble.expect("trouble");
        assert_eq!((at, statistics.records_lost), (Instant::from_millis(5), 2));
        assert_eq!(trouble.to_string(), format!("the peer refused a record: {}", Refusal::TableFull));
    }
}
