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

    /// Least, median (of an even number: the mean of both in the middle) and greatest; `None` without values.
    pub fn range(&self) -> Option<(f64, f64, f64)> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some((least, median, greatest))
    }
}

/// Prints a table of figures, and then each as a line of JSON.
pub fn print(campaign: &str, figures: &[Figure]) {
    println!("\n{:<44} {:>6} {:>10} {:>10} {:>10}", campaign, "n", "min", "median", "max");
    for figure in figures {
        if let Some((least, median, greatest)) = figure.range() {
            let name = format!("{}, {}", figure.name, figure.unit);
            println!("{name:<44} {:>6} {least:>10.1} {median:>10.1} {greatest:>10.1}", figure.len());
        }
    }
    println!();
    for figure in figures {
        if let Some((least, median, greatest)) = figure.range() {
            let line = json!({
                "campaign": campaign, "figure": figure.name, "unit": figure.unit,
                "n": figure.len(), "min": least, "median": median, "max": greatest,
            });
            println!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let mut figure = Figure::new("gap", "ms");
        assert_eq!(figure.range(), None);
        for value in [3.0, 1.0, 8.0] {
            figure.add(value);
        }
        assert_eq!(figure.range(), Some((1.0, 3.0, 8.0)));
        figure.add_time(Duration::from_millis(5));
        assert_eq!(figure.range(), Some((1.0, 4.0, 8.0)));
    }
}
