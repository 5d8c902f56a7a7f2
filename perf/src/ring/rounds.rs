//! Timed rounds, and which of them count.

use anyhow::{Result, bail};
use nix::sys::resource::{UsageWho, getrusage};

/// Rounds that took longer than so many times the median are left out: the processor was away.
const AWAY: f64 = 3.0;

/// A timed round.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Of the time-stamp counter, within its windows.
    pub ticks: u64,
    /// Whose work that was.
    pub packets: usize,
}

/// Rounds of one sample, or of several.
#[derive(Debug, Default)]
pub struct Rounds {
    rounds: Vec<Round>,
    interrupted: usize,
    faults: i64,
}

impl Rounds {
    /// Ticks per packet, but for the rounds in which the processor was away.
    pub fn cost(&self) -> Result<f64> {
        let per_packet = |round: &Round| round.ticks as f64 / round.packets as f64;
        let mut costs: Vec<f64> = self.rounds.iter().map(per_packet).collect();
        costs.sort_by(f64::total_cmp);
        let Some(median) = costs.get(costs.len() / 2).copied() else { bail!("every round was interrupted") };
        let kept = self.rounds.iter().filter(|round| per_packet(round) <= AWAY * median);
        let (ticks, packets) =
            kept.fold((0, 0), |(ticks, packets), round| (ticks + round.ticks, packets + round.packets));
        Ok(ticks as f64 / packets as f64)
    }

    /// Adds one, unless the kernel took the processor away meanwhile.
    pub fn push(&mut self, round: Round, before: Usage) {
        let now = Usage::now();
        self.faults += now.faults - before.faults;
        if now.switches == before.switches { self.rounds.push(round) } else { self.interrupted += 1 }
    }

    /// What may explain a strange figure.
    pub fn remarks(&self) {
        if self.faults > 0 || self.interrupted > self.rounds.len() / 10 {
            let rounds = self.rounds.len() + self.interrupted;
            eprintln!("{} page faults, {} interruptions in {rounds} rounds", self.faults, self.interrupted);
        }
    }
}

/// What the kernel counts for this thread.
#[derive(Clone, Copy)]
pub struct Usage {
    /// How often it was made to wait for others.
    pub switches: i64,
    /// Pages that had to be given to it.
    faults: i64,
}

impl Usage {
    /// Now.
    pub fn now() -> Usage {
        let usage = getrusage(UsageWho::RUSAGE_THREAD);
        usage.map_or(Usage { switches: 0, faults: 0 }, |usage| Usage {
            switches: usage.involuntary_context_switches(),
            faults: usage.minor_page_faults() + usage.major_page_faults(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(ticks: &[u64]) -> Rounds {
        let rounds = ticks.iter().map(|ticks| Round { ticks: *ticks, packets: 10 }).collect();
        Rounds { rounds, ..Rounds::default() }
    }

    #[test]
    fn the_cost_is_the_mean_of_the_rounds_in_which_the_processor_was_there() {
        assert_eq!(rounds(&[100, 120, 140, 900]).cost().expect("rounds"), 12.0);
        assert!(rounds(&[]).cost().is_err());
    }
}
