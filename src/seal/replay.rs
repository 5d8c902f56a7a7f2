//! The replay window: which of the newest 1024 sequences were accepted. As in
//! RFC 4303 section 3.4.3, but looked at before and moved only after a frame
//! proved authentic.

/// Sequences that the window spans. Older ones are refused as too old.
pub const WINDOW: u64 = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// What the window says of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen yet.
    Fresh,
    /// Accepted before.
    Replayed,
    /// Below the window: cannot be told from a replay.
    TooOld,
}

/// A bitmap over the newest [`WINDOW`] sequences.
#[derive(Clone, Debug)]
pub struct Window {
    highest: u64,
    /// The other end said that nothing below this is to be accepted.
    raised: u64,
    seen: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Window {
        Window { highest: 0, raised: 0, seen: [0; WORDS] }
    }
}

impl Window {
    /// The highest accepted sequence; 0 before the first.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// The lowest sequence that could still be accepted. All below it never can.
    pub fn floor(&self) -> u64 {
        // Sequence 0 is never sent, so the floor starts at 1.
        self.highest.saturating_sub(WINDOW - 1).max(self.raised).max(1)
    }

    /// From now on refuses all below this sequence, which is one that was accepted at most.
    pub fn raise_floor(&mut self, floor: u64) {
        self.raised = self.raised.max(floor.min(self.highest));
    }

    /// Looks a sequence up; changes nothing.
    pub fn check(&self, sequence: u64) -> Verdict {
        if sequence < self.floor() {
            Verdict::TooOld
        } else if sequence > self.highest {
            Verdict::Fresh
        } else {
            let (word, bit) = place(sequence);
            if self.seen[word] & bit == 0 { Verdict::Fresh } else { Verdict::Replayed }
        }
    }

    /// Marks a sequence that [`Window::check`] found fresh and whose frame proved authentic.
    pub fn accept(&mut self, sequence: u64) {
        if sequence > self.highest {
            if sequence - self.highest >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for passed in self.highest + 1..sequence {
                    let (word, bit) = place(passed);
                    self.seen[word] &= !bit;
                }
            }
            self.highest = sequence;
        }
        let (word, bit) = place(sequence);
        self.seen[word] |= bit;
    }
}

fn place(sequence: u64) -> (usize, u64) {
    let slot = sequence % WINDOW;
    ((slot / 64) as usize, 1 << (slot % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use std::collections::HashSet;

    #[test]
    fn a_sequence_is_accepted_once_in_any_order_within_the_window() {
        let mut window = Window::default();
        assert_eq!(window.floor(), 1);
        assert_eq!(window.check(0), Verdict::TooOld);
        for sequence in [5, 1, 3, 1024] {
            assert_eq!(window.check(sequence), Verdict::Fresh);
            window.accept(sequence);
            assert_eq!(window.check(sequence), Verdict::Replayed);
        }
        assert_eq!(window.check(2), Verdict::Fresh);
        window.accept(1028);
        assert_eq!((window.floor(), window.highest()), (5, 1028));
        assert_eq!(window.check(4), Verdict::TooOld);
        assert_eq!(window.check(5), Verdict::Replayed);
        assert_eq!(window.check(6), Verdict::Fresh);
    }

    #[test]
    fn a_raised_floor_stays_and_shuts_out_what_was_never_seen() {
        let mut window = Window::default();
        window.accept(1028);
        assert_eq!(window.check(1000), Verdict::Fresh);
        window.raise_floor(1001);
        assert_eq!([1000, 1001].map(|sequence| window.check(sequence)), [Verdict::TooOld, Verdict::Fresh]);
        window.raise_floor(900);
        assert_eq!(window.floor(), 1001, "it never falls");
        window.raise_floor(5000);
        assert_eq!(
            (window.floor(), window.check(1029)),
            (1028, Verdict::Fresh),
            "nothing to come is shut out"
        );
    }

    #[test]
    fn the_window_agrees_with_a_set_over_random_walks() {
        let mut rng = Rng::with_seed(7);
        let (mut window, mut accepted) = (Window::default(), HashSet::new());
        let mut around = 1u64;
        for _ in 0..200_000 {
            around = match rng.u8(..) {
                0 => around + rng.u64(0..5000),
                _ => around + rng.u64(0..2),
            };
            let sequence = (around + rng.u64(0..40)).saturating_sub(rng.u64(0..1200));
            let expected = if sequence < window.floor() {
                Verdict::TooOld
            } else if accepted.contains(&sequence) {
                Verdict::Replayed
            } else {
                Verdict::Fresh
            };
            assert_eq!(window.check(sequence), expected, "sequence {sequence}");
            if expected == Verdict::Fresh {
                window.accept(sequence);
                accepted.insert(sequence);
            }
        }
    }
}
