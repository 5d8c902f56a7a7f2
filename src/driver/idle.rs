//! What a worker does when nothing comes (`lcores.idle`): spins, or rests for ever longer
//! moments, so that a pair, its clients and its servers run on two CPUs.

use crate::base::time::{Duration, Instant};
use crate::config::checked::Idle;

/// Empty turns before the first rest: packets of one flow often come close together.
const SPINS: u32 = 200;
/// The first rest.
const REST_MIN: Duration = Duration::from_micros(10);
/// The longest rest. It adds to a packet's delay.
const REST_MAX: Duration = Duration::from_micros(150);

/// How long nothing has come.
#[derive(Clone, Copy, Debug)]
pub struct Idler {
    idle: Idle,
    empty: u32,
    rest: Duration,
}

impl Idler {
    /// For a worker of this kind.
    pub fn new(idle: Idle) -> Idler {
        Idler { idle, empty: 0, rest: REST_MIN }
    }

    /// After a turn: how long to rest, if at all; never beyond `deadline`.
    pub fn after_turn(&mut self, worked: bool, now: Instant, deadline: Instant) -> Option<Duration> {
        if worked {
            (self.empty, self.rest) = (0, REST_MIN);
            return None;
        }
        match self.idle {
            Idle::Poll => None,
            Idle::Sleep if self.empty < SPINS => {
                self.empty += 1;
                None
            }
            Idle::Sleep => {
                let rest = self.rest.min(deadline - now);
                self.rest = (self.rest * 2).min(REST_MAX);
                (rest > Duration::ZERO).then_some(rest)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_millis(1000);
    const NONE: [u64; 0] = [];

    fn rests(idler: &mut Idler, turns: u32, deadline: Instant) -> Vec<u64> {
        (0..turns).filter_map(|_| idler.after_turn(false, NOW, deadline)).map(Duration::micros).collect()
    }

    #[test]
    fn rests_grow_after_many_empty_turns_and_are_bounded() {
        let mut idler = Idler::new(Idle::Sleep);
        assert_eq!(rests(&mut idler, SPINS, Instant::FAR_FUTURE), NONE);
        assert_eq!(rests(&mut idler, 6, Instant::FAR_FUTURE), [10, 20, 40, 80, 150, 150]);
        assert_eq!(idler.after_turn(true, NOW, Instant::FAR_FUTURE), None);
        assert_eq!(rests(&mut idler, SPINS, Instant::FAR_FUTURE), NONE, "a packet wakes it up for a while");
    }

    #[test]
    fn it_never_rests_beyond_the_deadline() {
        let mut idler = Idler::new(Idle::Sleep);
        rests(&mut idler, SPINS + 6, Instant::FAR_FUTURE);
        assert_eq!(rests(&mut idler, 1, NOW + Duration::from_micros(60)), [60]);
        assert_eq!(rests(&mut idler, 1, NOW), NONE);
    }

    #[test]
    fn a_polling_worker_never_rests() {
        assert_eq!(rests(&mut Idler::new(Idle::Poll), 10_000, Instant::FAR_FUTURE), NONE);
    }
}
