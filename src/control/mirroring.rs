//! What is said of mirroring: `baton mirror`.

use serde::{Deserialize, Serialize};

use crate::base::ids::{NodeId, WorkerId};
use crate::base::limits::ADMIT_UNACKED_MAX;
use crate::base::spans::Spans;
use crate::base::time::{Duration, Instant};
use crate::control::report::DisbelievedReport;
use crate::mirror::StreamStatus;
use crate::mirror::statistics::PerSecond;

/// How mirroring goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MirrorReport {
    /// For each other member.
    pub peers: Vec<MirrorPeerReport>,
    /// Packets held until their flow is acknowledged.
    pub hold: HoldReport,
    /// How long flows were unprotected: from their first change, or since a walk named them, until a peer said that it knows
    /// them; `None`: no flow became known.
    pub protection: Option<LatencyReport>,
    /// The same, in coarse bins.
    #[serde(default)]
    pub protected_after: Histogram,
}

/// Mirroring with one peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MirrorPeerReport {
    /// The peer.
    pub node: NodeId,
    /// Where mirroring with it stands.
    pub state: MirrorState,
    /// What hinders it from being synchronized, as part of a sentence; `None`: nothing, or this appliance does not lead.
    pub hindrance: Option<String>,
    /// What was heard in its name and not believed, since the start; `None`: nothing that is worth a word.
    #[serde(default)]
    pub disbelieved: Option<DisbelievedReport>,
    /// The virtual servers of which it tracks the flows; none: all of them. It is never in the in-sync set otherwise.
    #[serde(default)]
    pub only: Vec<String>,
    /// The session that the handshake made; `None`: there is none.
    pub session: Option<String>,
    /// Whether it is in the in-sync set.
    pub in_sync: bool,
    /// Flows that are to be mirrored and that it does not know; `None`: this appliance does not lead, or the peer tracks a part.
    pub unprotected: Option<u64>,
    /// For how long the oldest change that it has not acknowledged has waited, in milliseconds; `None`: none waits.
    pub oldest_unprotected_ms: Option<u64>,
    /// The streams to it.
    pub streams: Vec<StreamReport>,
    /// How far it is brought up to date.
    pub walk: Option<WalkReport>,
    /// Whether it has the same flows; `None`: this appliance does not lead, or has no session with it.
    pub digests: Option<DigestReport>,
}

/// Where mirroring with a peer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorState {
    /// No session with it.
    #[default]
    Down,
    /// It is being brought up to date, with every flow or again with those of shards that differed.
    Walking,
    /// It has every flow but for the newest changes, and says so again and again.
    Synchronized,
    /// It had, and has not said so for too long.
    Expired,
    /// It sends, this appliance receives.
    Receiving,
}

impl MirrorState {
    /// As JSON and tables say it.
    pub const fn text(self) -> &'static str {
        match self {
            MirrorState::Down => "down",
            MirrorState::Walking => "walking",
            MirrorState::Synchronized => "synchronized",
            MirrorState::Expired => "expired",
            MirrorState::Receiving => "receiving",
        }
    }
}

/// One stream, from a worker here to a worker there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamReport {
    /// The worker here.
    pub from: WorkerId,
    /// The worker there.
    pub to: WorkerId,
    /// State records sent.
    pub sent: u64,
    /// Those of them that nobody was asked to acknowledge (`mirror.checkpoints = "periodic"`).
    #[serde(default)]
    pub checkpoints: u64,
    /// Those that the peer acknowledged as applied.
    pub acknowledged: u64,
    /// Frames on their way.
    pub in_flight: u64,
    /// Records lost: their flows became dirty again.
    pub lost: u64,
    /// Frames that the peer takes at once.
    pub credit: u16,
    /// Smoothed round-trip time, in microseconds; `None`: not measured yet.
    pub rtt_us: Option<u64>,
    /// How long frames waited to be acknowledged, under this session; `None`: none was.
    pub latency: Option<LatencyReport>,
    /// What was sent, over the last second.
    pub sent_per_second: RateReport,
    /// What was received, over the last second.
    pub received_per_second: RateReport,
    /// Flows whose newest state waits to be sent.
    pub dirty: u64,
    /// Flows that the peer refused in their newest state: they are told again now and then.
    pub refused: u64,
    /// Why it refused a flow, the last time; `None`: it never did under this session.
    pub refusal: Option<String>,
    /// What went wrong the last time; `None`: nothing did under this session.
    pub last_error: Option<ErrorReport>,
}

impl StreamReport {
    /// A stream of this worker.
    pub fn of(now: Instant, from: WorkerId, stream: &StreamStatus) -> StreamReport {
        let statistics = &stream.statistics;
        StreamReport {
            from,
            to: stream.worker,
            sent: statistics.records_sent,
            checkpoints: statistics.checkpoints_sent,
            acknowledged: statistics.records_applied,
            in_flight: stream.in_flight as u64,
            lost: statistics.records_lost,
            credit: stream.credit,
            rtt_us: stream.round_trip.map(Duration::micros),
            latency: LatencyReport::of(&stream.latency),
            sent_per_second: statistics.sent_per_second(now).into(),
            received_per_second: statistics.received_per_second(now).into(),
            dirty: stream.waiting as u64,
            refused: stream.refused.into(),
            refusal: statistics.refusal.map(|refusal| refusal.to_string()),
            last_error: statistics
                .trouble
                .map(|(at, trouble)| ErrorReport { ago_ms: (now - at).millis(), what: trouble.to_string() }),
        }
    }
}

/// What went wrong on a stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// How long ago, in milliseconds.
    pub ago_ms: u64,
    /// What.
    pub what: String,
}

/// So much each second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RateReport {
    /// State records.
    pub records: u64,
    /// Bytes of mirror frames, from the mirror's header to the seal: UDP's header and those below are not counted.
    pub bytes: u64,
}

impl From<PerSecond> for RateReport {
    fn from(rate: PerSecond) -> RateReport {
        RateReport { records: rate.records, bytes: rate.bytes }
    }
}

/// How long something took, in microseconds. Percentiles are at most an eighth too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyReport {
    /// How often.
    pub count: u64,
    /// Half of them took no longer.
    pub p50_us: f64,
    /// Of a hundred 99 took no longer.
    pub p99_us: f64,
    /// None took longer.
    pub max_us: f64,
}

impl LatencyReport {
    /// Of these spans; `None` if there are none.
    pub fn of(spans: &Spans) -> Option<LatencyReport> {
        // Tenths of a microsecond are what a clock and a histogram can tell.
        let micros = |span: Duration| (span.nanos() as f64 / 100.0).round() / 10.0;
        Some(LatencyReport {
            count: spans.count(),
            p50_us: micros(spans.within(500)?),
            p99_us: micros(spans.within(990)?),
            max_us: micros(spans.longest()),
        })
    }
}

/// How far a walk over the flow table is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WalkReport {
    /// Shards done.
    pub shards_done: u32,
    /// Shards in all.
    pub shards: u32,
    /// Records sent.
    pub records: u64,
}

/// What a peer answered when it was asked for digests of its flows, under this session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DigestReport {
    /// For how long all shards have been found equal, in milliseconds: since the newest round of questions that is over
    /// began; `None`: none is.
    pub agreed_ms: Option<u64>,
    /// Shards that were found to differ, and are being told again.
    pub differing: u64,
    /// Times that a shard was found to differ.
    pub found: u64,
}

impl DigestReport {
    /// What the streams to a peer were answered. Those of no shard ask nothing.
    pub fn of<'a>(now: Instant, streams: impl Iterator<Item = &'a StreamStatus> + Clone) -> DigestReport {
        let asking = || streams.clone().filter(|stream| stream.shards > 0);
        let agreed = asking().map(|stream| stream.agreement.since).min().flatten();
        DigestReport {
            agreed_ms: agreed.map(|since| (now - since).millis()),
            differing: asking().map(|stream| stream.agreement.differing as u64).sum(),
            found: streams.map(|stream| stream.statistics.digests_differing).sum(),
        }
    }
}

/// Held packets (`commit = "hold"`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HoldReport {
    /// Held now.
    pub held: u64,
    /// Released by an acknowledgement.
    pub released: u64,
    /// Waited longer than `hold_timeout_ms`.
    pub timeouts: u64,
    /// How long the first packets of flows waited, in coarse bins.
    pub latency: Histogram,
    /// The same, as percentiles; `None`: none waited.
    pub waited: Option<LatencyReport>,
}

/// How often a time fell between two bounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// From shortest to longest; the last has no bound.
    pub buckets: Vec<Bucket>,
}

/// Bins of a histogram as it is shown: up to 8 s, and longer.
const LATENCY_BINS: usize = 24;

impl Histogram {
    /// Bin `i` counts what took up to 2^(i+1) µs and no less than the bin before; the last one has no bound.
    pub fn of(spans: &Spans) -> Histogram {
        let counts = spans.by_doubling_micros(LATENCY_BINS).into_iter().enumerate();
        let buckets = counts.map(|(bin, count)| Bucket {
            up_to_us: (bin + 1 < LATENCY_BINS).then_some(1 << (bin + 1)),
            count,
        });
        Histogram { buckets: buckets.collect() }
    }
}

/// One part of a [`Histogram`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// Times at most as long, in microseconds; `None`: without bound.
    pub up_to_us: Option<u64>,
    /// How many.
    pub count: u64,
}

/// Where mirroring to a peer of a leader stands, by whether there is a session and all of it was walked, and by its
/// streams; and what hinders it from being synchronized.
pub fn standing<'a>(
    now: Instant,
    (session, walk_done): (bool, bool),
    streams: impl Iterator<Item = &'a StreamStatus> + Clone,
) -> (MirrorState, Option<String>) {
    if !session {
        return (MirrorState::Down, Some("there is no session with it".to_owned()));
    }
    let differing: usize = streams.clone().map(|stream| stream.agreement.differing).sum();
    let to_walk: usize = streams.clone().map(|stream| stream.shards_to_walk).sum();
    let late =
        |since: Option<Instant>| since.map(|since| now - since).filter(|late| *late > ADMIT_UNACKED_MAX);
    let unanswered = late(streams.clone().filter_map(|stream| stream.unanswered_since).min());
    let oldest = late(streams.filter_map(|stream| stream.oldest_since).min());
    if let Some(late) = unanswered {
        let what = format!("it has answered nothing for {} ms", late.millis());
        (if walk_done { MirrorState::Expired } else { MirrorState::Walking }, Some(what))
    } else if differing > 0 {
        let what = format!("it has other flows of {differing} shards than it was told, and is told again");
        (MirrorState::Walking, Some(what))
    } else if !walk_done {
        let what = if to_walk > 0 {
            format!("it is being told of the flows of {to_walk} shards")
        } else {
            "not all workers have told it of every flow".to_owned()
        };
        (MirrorState::Walking, Some(what))
    } else if let Some(late) = oldest {
        let what = format!("a change has waited for {} ms to be acknowledged", late.millis());
        (MirrorState::Expired, Some(what))
    } else {
        (MirrorState::Synchronized, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::WorkerId;
    use crate::mirror::asking::Agreement;

    fn stream() -> StreamStatus {
        StreamStatus {
            peer: NodeId(2),
            worker: WorkerId(0),
            statistics: Default::default(),
            in_flight: 0,
            waiting: 0,
            shards: 256,
            shards_to_walk: 0,
            known: 7,
            refused: 0,
            credit: 256,
            round_trip: None,
            latency: Spans::default(),
            oldest_since: None,
            unanswered_since: None,
            agreement: Agreement::default(),
        }
    }

    fn told(peer: (bool, bool), stream: &StreamStatus) -> (MirrorState, String) {
        let now = Instant::from_millis(5000);
        let (state, hindrance) = standing(now, peer, [stream].into_iter());
        (state, hindrance.unwrap_or_default())
    }

    /// REQ B5: synchronized expires if it is not renewed.
    #[test]
    fn a_peer_is_synchronized_while_it_answers_and_agrees_and_is_said_why_it_is_not() {
        let (all, walking) = ((true, true), (true, false));
        assert_eq!(told(all, &stream()), (MirrorState::Synchronized, String::new()));
        let recently = Some(Instant::from_millis(4950));
        let fresh = StreamStatus { oldest_since: recently, unanswered_since: recently, ..stream() };
        assert_eq!(told(all, &fresh).0, MirrorState::Synchronized);
        let long_ago = Some(Instant::from_millis(3800));
        let mute = StreamStatus { unanswered_since: long_ago, ..stream() };
        let said = (MirrorState::Expired, "it has answered nothing for 1200 ms".to_owned());
        assert_eq!(told(all, &mute), said);
        assert_eq!(told(walking, &mute).0, MirrorState::Walking);
        let behind = StreamStatus { oldest_since: long_ago, ..stream() };
        let said = (MirrorState::Expired, "a change has waited for 1200 ms to be acknowledged".to_owned());
        assert_eq!(told(all, &behind), said);
        let agreement = Agreement { differing: 3, ..Agreement::default() };
        let differs = told(all, &StreamStatus { agreement, ..stream() });
        let why = "it has other flows of 3 shards than it was told, and is told again".to_owned();
        assert_eq!(differs, (MirrorState::Walking, why));
        let to_walk = told(walking, &StreamStatus { shards_to_walk: 12, ..stream() });
        assert_eq!(to_walk, (MirrorState::Walking, "it is being told of the flows of 12 shards".to_owned()));
        assert_eq!(told((false, true), &stream()).0, MirrorState::Down);
    }

    #[test]
    fn all_shards_agree_since_the_stream_that_agreed_longest_ago_and_not_while_one_never_did() {
        let of = |all: &[(usize, Option<u64>)]| {
            let with = |(shards, since): &(usize, Option<u64>)| {
                let since = since.map(Instant::from_millis);
                let agreement = Agreement { since, ..Agreement::default() };
                StreamStatus { shards: *shards, agreement, ..stream() }
            };
            let streams: Vec<_> = all.iter().map(with).collect();
            DigestReport::of(Instant::from_millis(5000), streams.iter()).agreed_ms
        };
        assert_eq!(of(&[(128, Some(4900)), (128, Some(4000))]), Some(1000));
        assert_eq!(of(&[(128, Some(4000)), (128, None)]), None);
        assert_eq!(of(&[(256, Some(4000)), (0, None)]), Some(1000), "one of no shard asks nothing");
    }

    #[test]
    fn half_and_nearly_all_are_told_apart() {
        let mut spans = Spans::default();
        (1..=100).for_each(|millis| spans.add(Duration::from_millis(millis)));
        let LatencyReport { count, p50_us, p99_us, max_us } = LatencyReport::of(&spans).expect("spans");
        assert_eq!((count, max_us), (100, 100_000.0));
        assert!((50_000.0..57_000.0).contains(&p50_us) && (99_000.0..=100_000.0).contains(&p99_us));
    }
}
