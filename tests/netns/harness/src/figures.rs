//! Figures over many rounds: for people as a table, for programs as one JSON line each.

use std::time::Duration;

use serde_json::json;

/// One thing measured once or many times.
#[derive(Clone, Debug, Default)]
pub struct Figure {
    name: &'static str,
    unit: &'static str,
    values: Vec<f64>,
}

impl Figure {
    /// Nothing measured yet.
    pub const fn new(name: &'static str, unit: &'static str) -> Figure {
        Figure { name, unit, values: Vec::new() }
    }

    /// One more value.
    pub fn add(&mut self, value: f64) {
        self.values.push(value);
    }

    /// One more time, for a figure in milliseconds.
    pub fn add_time(&mut self, time: Duration) {
        self.add(time.as_secs_f64() * 1e3);
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// How the values are distributed; `None` without values.
    pub fn distribution(&self) -> Option<Distribution> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        // Nearest rank: the least value that so many of a hundred do not exceed. It is one of the values.
        let percentile = |of_hundred: usize| sorted[(of_hundred * sorted.len()).div_ceil(100).max(1) - 1];
        Some(Distribution { least, p50: percentile(50), p90: percentile(90), p99: percentile(99), greatest })
    }
}

/// How values are distributed: percentiles by nearest rank. With fewer than a hundred values `p99` is the greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distribution {
    /// The least.
    pub least: f64,
    /// Half of them are no greater.
    pub p50: f64,
    /// Nine of ten are no greater.
    pub p90: f64,
    /// 99 of a hundred are no greater.
    pub p99: f64,
    /// The greatest.
    pub greatest: f64,
}

/// Prints a table of figures, and then each as a line of JSON.
pub fn print(campaign: &str, figures: &[Figure]) {
    let heads = ["n", "min", "p50", "p90", "p99", "max"];
    let [n, heads @ ..] = heads;
    println!("\n{campaign:<44} {n:>6} {}", heads.map(|head| format!("{head:>9}")).join(" "));
    for figure in figures {
        if let Some(Distribution { least, p50, p90, p99, greatest }) = figure.distribution() {
            let name = format!("{}, {}", figure.name, figure.unit);
            let values = [least, p50, p90, p99, greatest].map(|value| format!("{value:>9.1}")).join(" ");
            println!("{name:<44} {:>6} {values}", figure.len());
        }
    }
    println!();
    for figure in figures {
        if let Some(Distribution { least, p50, p90, p99, greatest }) = figure.distribution() {
            let line = json!({
                "campaign": campaign, "figure": figure.name, "unit": figure.unit, "n": figure.len(),
                "min": least, "p50": p50, "p90": p90, "p99": p99, "max": greatest,
            });
            println!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_by_nearest_rank() {
        let mut figure = Figure::new("gap", "ms");
        assert_eq!(figure.distribution(), None);
        let of = |figure: &Figure| {
            let Distribution { least, p50, p90, p99, greatest } = figure.distribution().expect("has values");
            [least, p50, p90, p99, greatest]
        };
        for value in [3.0, 1.0, 8.0] {
            figure.add(value);
        }
        assert_eq!(of(&figure), [1.0, 3.0, 8.0, 8.0, 8.0]);
        figure.add_time(Duration::from_millis(5));
        assert_eq!(of(&figure), [1.0, 3.0, 8.0, 8.0, 8.0]);
        let mut many = Figure::new("gap", "ms");
        (1..=200).rev().for_each(|value| many.add(value.into()));
        assert_eq!(of(&many), [1.0, 100.0, 180.0, 198.0, 200.0]);
    }
}
