//! How busy each worker is, over the last second: the share of its time in busy turns, and the
//! processor's cycles that a packet takes.
//!
//! A polling worker's CPU is always at 100 % for the operating system, so only the worker can say. The
//! master thread takes samples of what the turns came to; who asks gets the newest against one a second older.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::time::{Duration, Instant};
use crate::driver::lease::{Spent, Turns};

/// Between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Samples that are kept: the newest, and those of the second before it.
const SAMPLES: usize = 11;

/// How busy a worker was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Time in busy turns, in percent, to a tenth; `None`: it did not turn.
    pub percent: Option<f64>,
    /// Cycles of the time-stamp counter in busy turns for each packet, to a tenth; `None`: no packet came.
    pub cycles_per_packet: Option<f64>,
}

impl Load {
    /// Between two samples of one worker, on a processor that counts `hz` cycles in a second.
    pub fn between(earlier: &Spent, later: &Spent, hz: u64) -> Load {
        let busy = (later.busy - earlier.busy).nanos() as f64;
        let all = busy + (later.empty - earlier.empty).nanos() as f64;
        let packets = later.packets.saturating_sub(earlier.packets);
        let tenths = |value: f64| (value * 10.0).round() / 10.0;
        Load {
            percent: (all > 0.0).then(|| tenths(100.0 * busy / all)),
            cycles_per_packet: (packets > 0).then(|| tenths(busy * (hz as f64 / 1e9) / packets as f64)),
        }
    }
}

/// The loads of all workers.
pub struct Loads {
    turns: Vec<Arc<Turns>>,
    /// The time-stamp counter's, each second.
    hz: u64,
    /// Oldest first: when, and every worker's.
    samples: Mutex<VecDeque<(Instant, Vec<Spent>)>>,
}

impl Loads {
    /// Without samples yet.
    pub fn new(turns: Vec<Arc<Turns>>, hz: u64) -> Loads {
        Loads { turns, hz, samples: Mutex::new(VecDeque::with_capacity(SAMPLES)) }
    }

    /// Takes a sample when one is due. Call it often.
    pub fn sample(&self, now: Instant) {
        let mut samples = self.samples.lock();
        if samples.back().is_some_and(|(at, _)| now - *at < SAMPLE_INTERVAL) {
            return;
        }
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back((now, self.spent()));
    }

    /// What each worker's turns came to, since its start.
    pub fn spent(&self) -> Vec<Spent> {
        self.turns.iter().map(|turns| turns.spent()).collect()
    }

    /// Each worker's load over the last second, or as much of it as there is.
    pub fn read(&self) -> Vec<Load> {
        let samples = self.samples.lock();
        let (Some((_, first)), Some((_, last))) = (samples.front(), samples.back()) else {
            return vec![Load::default(); self.turns.len()];
        };
        first.iter().zip(last).map(|(first, last)| Load::between(first, last, self.hz)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 2_000_000_000;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(1000 + millis)
    }

    #[test]
    fn load_is_the_busy_share_and_cycles_are_of_busy_turns_only() {
        let earlier = Spent {
            busy: Duration::from_micros(5),
            empty: Duration::from_micros(5),
            packets: 7,
            ..Spent::default()
        };
        let later = Spent {
            busy: Duration::from_micros(5 + 250),
            empty: Duration::from_micros(5 + 750),
            packets: 7 + 5000,
            ..Spent::default()
        };
        let load = Load::between(&earlier, &later, HZ);
        // 250 µs for 5,000 packets: 50 ns, which are 100 cycles at 2 GHz.
        assert_eq!((load.percent, load.cycles_per_packet), (Some(25.0), Some(100.0)));
    }

    #[test]
    fn a_worker_without_packets_has_a_load_and_one_that_stands_still_has_none() {
        let start = Spent::default();
        let polled = Spent { empty: Duration::from_millis(3), ..start };
        let idle = Load { percent: Some(0.0), cycles_per_packet: None };
        assert_eq!(Load::between(&start, &polled, HZ), idle);
        assert_eq!(Load::between(&polled, &polled, HZ), Load::default());
    }

    #[test]
    fn only_the_last_second_counts() {
        let turns: Vec<Arc<Turns>> = (0..2).map(|_| Arc::default()).collect();
        let loads = Loads::new(turns.clone(), HZ);
        assert_eq!(loads.read(), [Load::default(); 2], "nothing was seen yet");
        loads.sample(at(0));
        assert_eq!(loads.read(), [Load::default(); 2], "one sample says nothing");
        // Two seconds busy, then two seconds empty; samples are asked for each millisecond.
        for millis in 1..=4000 {
            turns[0].account(millis <= 2000, Duration::from_millis(1), 10);
            loads.sample(at(millis));
            let expected = match millis {
                0..100 => None,
                100..2100 => Some(100.0),
                2500..2600 => Some(50.0),
                3000.. => Some(0.0),
                _ => continue,
            };
            assert_eq!(loads.read()[0].percent, expected, "after {millis} ms");
        }
        assert_eq!(loads.read()[1], Load::default(), "the other one did not move");
        assert_eq!(loads.spent()[0].packets, 20_000);
    }
}
