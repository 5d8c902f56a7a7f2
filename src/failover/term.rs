//! Terms: which one to take next, and that none is ever taken twice.
//!
//! A counter may be used only when it is known to be durably reserved. It is
//! reserved far ahead, while nothing hurries, so that no promotion waits for the
//! disk (DESIGN "Failover"). After a start, every counter reserved before counts as used.

use crate::base::ids::{NodeId, Term};

/// Counters reserved at a time.
const RESERVE_AHEAD: u64 = 64;
/// With fewer left, more are reserved.
const RESERVE_BELOW: u64 = 32;

/// The terms of one node.
#[derive(Clone, Debug)]
pub struct Terms {
    node: NodeId,
    current: Term,
    /// Never taken again: the highest counter reserved by earlier boots.
    used_before: u64,
    /// The highest counter of any term heard.
    heard: u64,
    reserved: u64,
    asked: u64,
}

impl Terms {
    /// `reserved` is what the state file holds.
    pub fn new(node: NodeId, reserved: Term) -> Terms {
        let used_before = reserved.counter;
        Terms { node, current: Term::NONE, used_before, heard: 0, reserved: used_before, asked: used_before }
    }

    /// The term that is led or followed.
    pub fn current(&self) -> Term {
        self.current
    }

    /// The highest counter that may be used.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// A term was heard.
    pub fn hear(&mut self, term: Term) {
        self.heard = self.heard.max(term.counter);
    }

    /// Follows a term.
    pub fn follow(&mut self, term: Term) {
        self.hear(term);
        self.current = term;
    }

    /// The term to lead next, if it is reserved.
    pub fn next(&self) -> Option<Term> {
        let counter = self.highest().checked_add(1)?;
        (counter <= self.reserved).then_some(Term { counter, node: self.node })
    }

    /// Takes the term that [`Terms::next`] gave.
    pub fn take(&mut self) -> Option<Term> {
        let term = self.next()?;
        self.current = term;
        Some(term)
    }

    /// Up to which counter to reserve now, if more are needed and not yet asked for.
    pub fn ask(&mut self) -> Option<u64> {
        let highest = self.highest();
        if self.asked >= highest.saturating_add(RESERVE_BELOW) {
            return None;
        }
        self.asked = highest.saturating_add(RESERVE_AHEAD);
        Some(self.asked)
    }

    /// Counters up to this are durably reserved.
    pub fn handle_reserved(&mut self, counter: u64) {
        // Only what was asked for: a state file's answer cannot raise it further.
        self.reserved = self.reserved.max(counter.min(self.asked));
    }

    fn highest(&self) -> u64 {
        self.heard.max(self.used_before).max(self.current.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(2);

    fn term(counter: u64, node: u16) -> Term {
        Term { counter, node: NodeId(node) }
    }

    #[test]
    fn a_term_is_taken_only_when_it_is_reserved() {
        let mut terms = Terms::new(NODE, Term::NONE);
        assert_eq!(terms.take(), None);
        assert_eq!(terms.ask(), Some(64));
        assert_eq!(terms.ask(), None, "asked once");
        assert_eq!(terms.take(), None, "asked is not reserved");
        terms.handle_reserved(64);
        assert_eq!(terms.take(), Some(term(1, 2)));
        assert_eq!(terms.take(), Some(term(2, 2)));
    }

    #[test]
    fn the_next_term_is_above_all_heard_and_all_reserved_by_earlier_boots() {
        let mut terms = Terms::new(NODE, term(64, 2));
        assert_eq!(terms.next(), None);
        assert_eq!(terms.ask(), Some(128));
        terms.handle_reserved(128);
        assert_eq!(terms.next(), Some(term(65, 2)));
        terms.follow(term(100, 1));
        assert_eq!(terms.next(), Some(term(101, 2)));
        assert_eq!(terms.ask(), Some(164), "reserved while standby, far ahead");
        terms.hear(term(u64::MAX, 1));
        assert_eq!(terms.next(), None, "there is none above the last");
    }
}
