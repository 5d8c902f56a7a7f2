//! What `baton rebalance` asks, and what it is answered.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::ids::{ShardId, WorkerId};

/// Which shards are to move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// This shard, to this worker; `None`: as many as even out the load.
    pub one: Option<(ShardId, WorkerId)>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
}

impl Wanted {
    /// As the query of [`super::paths::REBALANCE`].
    pub fn to_query(self) -> String {
        let one = self.one.map(|(shard, to)| format!("shard={shard}&to={to}&")).unwrap_or_default();
        format!("{one}dry_run={}", self.dry_run)
    }

    /// From a query, or a sentence that says what is wrong with it.
    pub fn from_query(query: &str) -> Result<Wanted, String> {
        let (mut shard, mut to, mut wanted) = (None, None, Wanted::default());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let wrong = || format!("{key}={value} is not understood");
            match key {
                "shard" => shard = Some(ShardId(value.parse().map_err(|_| wrong())?)),
                "to" => to = Some(WorkerId(value.parse().map_err(|_| wrong())?)),
                "dry_run" => wanted.dry_run = value.parse().map_err(|_| wrong())?,
                _ => return Err(format!("unknown key {key}")),
            }
        }
        wanted.one = match (shard, to) {
            (Some(shard), Some(to)) => Some((shard, to)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err("shard and to belong together: which shard, and to which worker".to_owned());
            }
        };
        Ok(wanted)
    }
}

/// What was moved, or would be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RebalanceReport {
    /// Nothing was done.
    pub dry_run: bool,
    /// The flows of the busiest worker against the mean, before; `None`: there were no flows.
    pub skew_before: Option<f64>,
    /// The same, as it is expected afterwards.
    pub skew_after: Option<f64>,
    /// Each shard.
    pub moves: Vec<MoveLine>,
}

/// One shard that was to move.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MoveLine {
    /// Which.
    pub shard: ShardId,
    /// The worker that had it.
    pub from: WorkerId,
    /// The worker that has it now.
    pub to: WorkerId,
    /// Its flows.
    pub flows: u64,
    /// Why it stays where it was.
    pub refused: Option<String>,
}

fn skew_text(skew: Option<f64>) -> String {
    skew.map_or_else(|| "-".to_owned(), |skew| format!("{skew:.2}"))
}

impl fmt::Display for RebalanceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let would = if self.dry_run { "would go" } else { "went" };
        for MoveLine { shard, from, to, flows, refused } in &self.moves {
            match refused {
                None => writeln!(
                    f,
                    "shard {shard} {would} from worker {from} to worker {to}, with {flows} flows"
                )?,
                Some(why) => writeln!(f, "shard {shard} stays with worker {from}: {why}")?,
            }
        }
        if self.moves.is_empty() {
            writeln!(f, "no shard is to be moved")?;
        }
        let (before, after) = (skew_text(self.skew_before), skew_text(self.skew_after));
        writeln!(f, "the busiest worker's flows against the mean: {before} before, {after} after")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_comes_back_from_its_query() {
        for one in [None, Some((ShardId(7), WorkerId(2)))] {
            for dry_run in [false, true] {
                let wanted = Wanted { one, dry_run };
                assert_eq!(Wanted::from_query(&wanted.to_query()), Ok(wanted));
            }
        }
        for wrong in ["shard=7", "to=1", "shard=x&to=1", "dry_run=perhaps", "all=true"] {
            assert!(Wanted::from_query(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_report_says_each_shards_way_or_why_it_stays() {
        let line = |refused: Option<&str>| MoveLine {
            shard: ShardId(7),
            from: WorkerId(0),
            to: WorkerId(1),
            flows: 5,
            refused: refused.map(str::to_owned),
        };
        let mut report = RebalanceReport {
            skew_before: Some(2.0),
            skew_after: None,
            moves: vec![line(None), line(Some("no"))],
            dry_run: false,
        };
        let text = "shard 7 went from worker 0 to worker 1, with 5 flows\nshard 7 stays with worker 0: no\n\
                    the busiest worker's flows against the mean: 2.00 before, - after\n";
        assert_eq!(report.to_string(), text);
        report = RebalanceReport { dry_run: true, moves: vec![line(None)], ..report };
        assert!(report.to_string().starts_with("shard 7 would go"));
        assert!(RebalanceReport::default().to_string().starts_with("no shard is to be moved"));
    }
}
