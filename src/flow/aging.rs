//! Which flows have been idle too long (REQ E4, D8).
//!
//! Each worker has one word per flow: the tick when it was last seen and its
//! time-out class. The worker stores it, at most once a tick and flow; the master
//! reads the array in slices and hands the worker what looks expired; the worker
//! looks again ([`LastSeen::judge`]) before it removes anything.
//!
//! A standby ages nothing: its master does not sweep. At takeover every flow's
//! timer restarts ([`LastSeen::touch_all`], REQ C8) by one store: idle time counts
//! from the later of the flow's last tick and that moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::base::memory::{NoMemory, Slab};
use crate::base::time::{Duration, Instant};
use crate::config::checked;
use crate::flow::entry::FlowIndex;

/// Length of a tick.
pub const TICK: Duration = Duration::from_millis(100);

/// Bits of a word that hold the tick; the others hold the class.
const TICK_BITS: u32 = 26;
const TICK_MASK: u32 = (1 << TICK_BITS) - 1;

/// A tick further back than this counts as one yet to come: the worker's clock
/// reading may be newer than the master's. Half the range, 38 days.
const IDLE_MAX: u32 = 1 << (TICK_BITS - 1);

/// Longest time-out. A configuration with a longer one is refused.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
const _: () = assert!(TIMEOUT_MAX.nanos() / TICK.nanos() + 1 < IDLE_MAX as u64);

/// Which idle time-out a flow has. 0 is no class: it marks a place without a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TimeoutClass {
    /// A TCP connection being opened.
    Handshake = 1,
    /// An established TCP connection.
    Established = 2,
    /// A TCP connection that both sides closed, or one reset.
    Closing = 3,
    /// A flow without states.
    Datagram = 4,
}

/// How long each class may be idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// [`TimeoutClass::Handshake`]
    pub handshake: Duration,
    /// [`TimeoutClass::Established`]
    pub established: Duration,
    /// [`TimeoutClass::Closing`]
    pub closing: Duration,
    /// [`TimeoutClass::Datagram`]
    pub datagram: Duration,
}

impl From<&checked::Flows> for Timeouts {
    fn from(flows: &checked::Flows) -> Timeouts {
        Timeouts {
            handshake: flows.tcp_handshake_timeout,
            established: flows.tcp_established_timeout,
            closing: flows.tcp_closing_timeout,
            datagram: flows.udp_timeout,
        }
    }
}

impl Timeouts {
    /// The time-out of a class.
    pub const fn of(&self, class: TimeoutClass) -> Duration {
        match class {
            TimeoutClass::Handshake => self.handshake,
            TimeoutClass::Established => self.established,
            TimeoutClass::Closing => self.closing,
            TimeoutClass::Datagram => self.datagram,
        }
    }

    /// The time-out of a word's class bits in ticks, rounded up, and one more since
    /// the flow may have been seen at the end of its tick. `None`: no flow.
    fn ticks(&self, class: u32) -> Option<u64> {
        let class = match class {
            1 => TimeoutClass::Handshake,
            2 => TimeoutClass::Established,
            3 => TimeoutClass::Closing,
            4 => TimeoutClass::Datagram,
            _ => return None,
        };
        Some(self.of(class).nanos().div_ceil(TICK.nanos()) + 1)
    }
}

/// Classes that a word can name, and those that none is.
const CLASSES: usize = 8;

/// A moment at which idle times are asked for.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// Its tick, as words hold it.
    now: u32,
    /// Ticks that count at most: those since the timers were restarted.
    counting: u32,
}

impl Moment {
    fn new(now: Instant, not_before: u64) -> Moment {
        let counting = tick_of(now).saturating_sub(not_before);
        Moment { now: tick_of(now) as u32, counting: u32::try_from(counting).unwrap_or(u32::MAX) }
    }

    /// For how many ticks a flow with this word has been idle.
    #[inline(always)]
    fn idle_ticks(&self, word: u32) -> u32 {
        let unseen = self.now.wrapping_sub(word) & TICK_MASK;
        let unseen = if unseen >= IDLE_MAX { 0 } else { unseen };
        unseen.min(self.counting)
    }
}

/// What idle times are judged by at one moment: made once for many places.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    moment: Moment,
    /// Ticks from which on a flow of each class is expired; of no class never.
    limits: [u32; CLASSES],
}

impl Bounds {
    fn new(moment: Moment, timeouts: &Timeouts) -> Bounds {
        let limit = |class: usize| match timeouts.ticks(class as u32) {
            Some(ticks) => u32::try_from(ticks).unwrap_or(u32::MAX),
            None => u32::MAX,
        };
        Bounds { moment, limits: core::array::from_fn(limit) }
    }

    #[inline(always)]
    fn are_passed(&self, word: u32) -> bool {
        self.moment.idle_ticks(word) >= self.limits[(word >> TICK_BITS) as usize % CLASSES]
    }
}

/// How long flows have been idle at one moment: made once for many places.
#[derive(Clone, Copy, Debug)]
pub struct Idleness<'a> {
    words: &'a Slab<AtomicU32>,
    moment: Moment,
}

impl Idleness<'_> {
    /// For how many ticks the flow at a place has been idle, the running one not counted; `None`: no flow is here.
    #[inline]
    pub fn ticks(&self, flow: FlowIndex) -> Option<u32> {
        let word = self.words.get(flow.slot())?.load(Ordering::Relaxed);
        (word >> TICK_BITS != 0).then(|| self.moment.idle_ticks(word))
    }
}

/// What the array says of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// No flow is here.
    Free,
    /// The flow may stay.
    Fresh,
    /// The flow has been idle for longer than its class allows.
    Expired,
}

/// What a packet of a class leaves at its flow, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(u32);

impl Mark {
    /// Of a class, at a time.
    pub const fn new(class: TimeoutClass, now: Instant) -> Mark {
        Mark((tick_of(now) as u32 & TICK_MASK) | (class as u32) << TICK_BITS)
    }
}

#[derive(Debug)]
struct Shared {
    words: Slab<AtomicU32>,
    /// The tick (not wrapped) before which no idle time counts.
    not_before: AtomicU64,
}

/// The last-seen ticks of one worker's flows: written by the worker, read by the
/// master. A clone is another handle to the same array.
#[derive(Clone, Debug)]
pub struct LastSeen(Arc<Shared>);

const fn tick_of(now: Instant) -> u64 {
    now.nanos() / TICK.nanos()
}

impl LastSeen {
    /// An array for a table of this capacity, all free.
    pub fn new(capacity: u32) -> Result<LastSeen, NoMemory> {
        let words = Slab::new(capacity as usize)?;
        Ok(LastSeen(Arc::new(Shared { words, not_before: AtomicU64::new(0) })))
    }

    /// Has memory put behind it.
    pub fn populate(&self) {
        self.0.words.populate();
    }

    /// Asks for the line of a flow's word.
    #[inline(always)]
    pub fn prefetch(&self, flow: FlowIndex) {
        self.0.words.prefetch(flow.slot());
    }

    /// The worker saw a packet of this flow, or made it. Costs a load and a compare;
    /// a store only when the tick or the class is another one than before.
    pub fn touch(&self, flow: FlowIndex, class: TimeoutClass, now: Instant) {
        self.mark(flow, Mark::new(class, now));
    }

    /// As [`LastSeen::touch`], with a mark made once for many packets.
    #[inline(always)]
    pub fn mark(&self, flow: FlowIndex, Mark(word): Mark) {
        let Some(cell) = self.0.words.get(flow.slot()) else { return };
        if cell.load(Ordering::Relaxed) != word {
            cell.store(word, Ordering::Relaxed);
        }
    }

    /// What the last packet of a flow left here; `None`: no flow is here. It means the same in the array of any
    /// worker of this appliance.
    pub fn mark_of(&self, flow: FlowIndex) -> Option<Mark> {
        let word = self.0.words.get(flow.slot())?.load(Ordering::Relaxed);
        (word >> TICK_BITS != 0).then_some(Mark(word))
    }

    /// The worker removed this flow.
    pub fn release(&self, flow: FlowIndex) {
        if let Some(cell) = self.0.words.get(flow.slot()) {
            cell.store(0, Ordering::Relaxed);
        }
    }

    /// Restarts the timers of all flows: at takeover.
    pub fn touch_all(&self, now: Instant) {
        self.0.not_before.store(tick_of(now), Ordering::Relaxed);
    }

    /// How long a flow has been idle, to a tick; `None`: no flow is here.
    pub fn idle(&self, flow: FlowIndex, now: Instant) -> Option<Duration> {
        self.idleness(now).ticks(flow).map(|ticks| TICK * u64::from(ticks))
    }

    /// How long flows have been idle at a moment.
    pub fn idleness(&self, now: Instant) -> Idleness<'_> {
        Idleness { words: &self.0.words, moment: self.moment(now) }
    }

    /// Whether a flow has been idle for too long.
    #[inline]
    pub fn judge(&self, flow: FlowIndex, bounds: &Bounds) -> Age {
        let word = self.0.words.get(flow.slot()).map_or(0, |cell| cell.load(Ordering::Relaxed));
        if word >> TICK_BITS == 0 {
            Age::Free
        } else if bounds.are_passed(word) {
            Age::Expired
        } else {
            Age::Fresh
        }
    }

    /// What flows are judged by at a moment.
    pub fn bounds(&self, now: Instant, timeouts: &Timeouts) -> Bounds {
        Bounds::new(self.moment(now), timeouts)
    }

    fn moment(&self, now: Instant) -> Moment {
        Moment::new(now, self.0.not_before.load(Ordering::Relaxed))
    }

    /// Places in the array.
    pub fn places(&self) -> u32 {
        self.0.words.len() as u32
    }
}

/// The master's walk over one worker's array, in slices, round and round.
#[derive(Clone, Debug)]
pub struct Sweep {
    last_seen: LastSeen,
    next: u32,
}

impl Sweep {
    /// A sweep that begins at the array's start.
    pub const fn new(last_seen: LastSeen) -> Sweep {
        Sweep { last_seen, next: 0 }
    }

    /// Places in the array.
    pub fn places(&self) -> u32 {
        self.last_seen.places()
    }

    /// Looks at the next `budget` places, at most each one once, and names the flows
    /// that look expired. A flow is named again in the next round if its worker
    /// kept it.
    pub fn next_expired<'a>(
        &'a mut self,
        budget: u32,
        now: Instant,
        timeouts: &Timeouts,
    ) -> impl Iterator<Item = FlowIndex> + 'a {
        let len = self.last_seen.places();
        let bounds = self.last_seen.bounds(now, timeouts);
        (0..budget.min(len)).filter_map(move |_| {
            let flow = FlowIndex(self.next);
            self.next = if flow.0 + 1 == len { 0 } else { flow.0 + 1 };
            (self.last_seen.judge(flow, &bounds) == Age::Expired).then_some(flow)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TimeoutClass::{Closing, Datagram, Established, Handshake};

    const TIMEOUTS: Timeouts = Timeouts {
        handshake: Duration::from_secs(5),
        established: Duration::from_secs(900),
        closing: Duration::from_secs(2),
        datagram: Duration::from_secs(30),
    };
    const ALL: [TimeoutClass; 4] = [Handshake, Established, Closing, Datagram];
    const FLOW: FlowIndex = FlowIndex(3);

    fn at_secs(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    fn judge(last_seen: &LastSeen, flow: FlowIndex, now: Instant) -> Age {
        last_seen.judge(flow, &last_seen.bounds(now, &TIMEOUTS))
    }

    #[test]
    fn a_flow_expires_after_its_classes_time_out_and_never_before() {
        for class in ALL {
            let last_seen = LastSeen::new(8).expect("memory");
            let start = at_secs(1000) + Duration::from_millis(99);
            last_seen.touch(FLOW, class, start);
            let end = start + TIMEOUTS.of(class);
            let early = Instant::from_nanos(end.nanos() - 1);
            assert_eq!(judge(&last_seen, FLOW, early), Age::Fresh, "{class:?}");
            assert_eq!(judge(&last_seen, FLOW, end + TICK * 2), Age::Expired, "{class:?}");
        }
    }

    #[test]
    fn a_packet_and_a_new_class_restart_the_timer() {
        let last_seen = LastSeen::new(8).expect("memory");
        last_seen.touch(FLOW, Handshake, at_secs(0));
        last_seen.touch(FLOW, Handshake, at_secs(4));
        assert_eq!(judge(&last_seen, FLOW, at_secs(8)), Age::Fresh);
        last_seen.touch(FLOW, Established, at_secs(8));
        assert_eq!(judge(&last_seen, FLOW, at_secs(800)), Age::Fresh);
        assert_eq!(last_seen.idle(FLOW, at_secs(800)), Some(Duration::from_secs(792)));
        last_seen.touch(FLOW, Closing, at_secs(800));
        assert_eq!(judge(&last_seen, FLOW, at_secs(803)), Age::Expired);
    }

    #[test]
    fn a_free_place_and_one_outside_never_expire() {
        let last_seen = LastSeen::new(8).expect("memory");
        last_seen.touch(FLOW, Closing, at_secs(0));
        assert_eq!(last_seen.mark_of(FLOW), Some(Mark::new(Closing, at_secs(0))));
        last_seen.release(FLOW);
        assert_eq!(last_seen.mark_of(FLOW), None);
        last_seen.touch(FlowIndex(8), Closing, at_secs(0));
        last_seen.release(FlowIndex(8));
        for place in [FLOW, FlowIndex(0), FlowIndex(8), FlowIndex(u32::MAX)] {
            assert_eq!(judge(&last_seen, place, at_secs(10_000)), Age::Free);
            assert_eq!(last_seen.idle(place, at_secs(10_000)), None);
        }
    }

    #[test]
    fn after_a_takeover_every_timer_starts_again() {
        let last_seen = LastSeen::new(8).expect("memory");
        last_seen.touch(FLOW, Datagram, at_secs(100));
        assert_eq!(judge(&last_seen, FLOW, at_secs(5000)), Age::Expired);
        last_seen.touch_all(at_secs(5000));
        assert_eq!(judge(&last_seen, FLOW, at_secs(5000)), Age::Fresh);
        assert_eq!(judge(&last_seen, FLOW, at_secs(5029)), Age::Fresh);
        assert_eq!(judge(&last_seen, FLOW, at_secs(5031)), Age::Expired);
        assert_eq!(judge(&last_seen, FlowIndex(0), at_secs(5031)), Age::Free);
    }

    #[test]
    fn ticks_wrap_without_a_flow_expiring_early_or_living_for_ever() {
        let range = u64::from(TICK_MASK) + 1;
        // Around several wraps of the 26 bits, long after the last takeover.
        for wraps in 1..5 {
            let wrap = Instant::ZERO + TICK * (range * wraps);
            let last_seen = LastSeen::new(8).expect("memory");
            last_seen.touch_all(at_secs(1));
            let seen = Instant::from_nanos(wrap.nanos() - Duration::from_secs(1).nanos());
            last_seen.touch(FLOW, Closing, seen);
            assert_eq!(judge(&last_seen, FLOW, wrap), Age::Fresh);
            assert_eq!(judge(&last_seen, FLOW, wrap + Duration::from_secs(2)), Age::Expired);
        }
    }

    #[test]
    fn a_worker_whose_clock_is_ahead_of_the_masters_does_not_age_its_flows() {
        let last_seen = LastSeen::new(8).expect("memory");
        last_seen.touch(FLOW, Closing, at_secs(11));
        assert_eq!(judge(&last_seen, FLOW, at_secs(10)), Age::Fresh);
    }

    #[test]
    fn a_sweep_names_each_expired_flow_once_a_round_in_bounded_slices() {
        let last_seen = LastSeen::new(10).expect("memory");
        for n in [1, 4, 5, 9] {
            last_seen.touch(FlowIndex(n), Closing, at_secs(0));
        }
        last_seen.touch(FlowIndex(2), Established, at_secs(0));
        let mut sweep = Sweep::new(last_seen.clone());
        let mut slice = |budget| -> Vec<u32> {
            sweep.next_expired(budget, at_secs(60), &TIMEOUTS).map(|flow| flow.0).collect()
        };
        assert_eq!(slice(4), [1]);
        assert_eq!(slice(4), [4, 5]);
        assert_eq!(slice(4), [9, 1]);
        last_seen.release(FlowIndex(4));
        // Never more than one round in a call.
        assert_eq!(slice(1000), [5, 9, 1]);
        assert_eq!(
            Sweep::new(LastSeen::new(0).expect("memory")).next_expired(5, at_secs(60), &TIMEOUTS).count(),
            0
        );
    }
}
