//! One measured figure: its spread over the samples, what it was measured against in the
//! same run, and the regime of the machine meanwhile.

use serde::{Deserialize, Serialize};

use crate::regime::Regime;

/// Samples that a figure rests on, at least.
pub const SAMPLES_MIN: usize = 5;

/// Least, middle and greatest of some samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one; of an even number, the mean of the two.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of these samples.
    ///
    /// # Panics
    /// Of fewer than [`SAMPLES_MIN`] samples, or of one that is no number: the case is wrong then.
    pub fn of(samples: &[f64]) -> Spread {
        assert!(samples.len() >= SAMPLES_MIN, "{} samples are too few", samples.len());
        assert!(samples.iter().all(|sample| sample.is_finite()), "a sample is no number");
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 };
        Spread { min: sorted[0], median, max: sorted[sorted.len() - 1] }
    }
}

/// What a figure was measured against, in alternation with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// What it is.
    pub name: String,
    /// Its spread, in the figure's unit.
    #[serde(flatten)]
    pub spread: Spread,
}

/// Where a figure stands in a chart of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The chart's title; figures of one chart share a unit.
    pub chart: String,
    /// The line or the colour that it belongs to.
    pub series: String,
    /// Its place on the horizontal axis.
    pub x: Place,
}

/// A place on a chart's horizontal axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Place {
    /// A number, on a logarithmic axis: the chart has lines.
    Number(f64),
    /// A name: the chart has bars.
    Name(String),
}

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The case that measured it.
    pub case: String,
    /// What was measured, in which circumstances.
    pub metric: String,
    /// In what.
    pub unit: String,
    /// Its spread over the samples.
    #[serde(flatten)]
    pub spread: Spread,
    /// What it was measured against.
    pub reference: Option<Reference>,
    /// The figure's median over the reference's.
    pub ratio: Option<f64>,
    /// Of the machine while it was measured.
    pub regime: Regime,
    /// Where the report draws it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<Point>,
}

impl Figure {
    /// A figure of one CPU, from its samples ([`SAMPLES_MIN`] at least).
    pub fn of(case: &str, metric: impl Into<String>, unit: &str, samples: &[f64]) -> Figure {
        Figure {
            case: case.to_owned(),
            metric: metric.into(),
            unit: unit.to_owned(),
            spread: Spread::of(samples),
            reference: None,
            ratio: None,
            regime: Regime::Single,
            point: None,
        }
    }

    /// Measured against this, whose samples were taken in alternation.
    pub fn against(mut self, name: &str, samples: &[f64]) -> Figure {
        let spread = Spread::of(samples);
        self.ratio = (spread.median != 0.0).then(|| self.spread.median / spread.median);
        self.reference = Some(Reference { name: name.to_owned(), spread });
        self
    }

    /// Measured in this regime.
    pub fn in_regime(mut self, regime: Regime) -> Figure {
        self.regime = regime;
        self
    }

    /// Drawn in a chart.
    pub fn at(mut self, chart: &str, series: &str, x: Place) -> Figure {
        self.point = Some(Point { chart: chart.to_owned(), series: series.to_owned(), x });
        self
    }

    /// As one line of JSON for whoever reads the figures: without what concerns only the report.
    pub fn json(&self) -> String {
        let plain = Figure { point: None, ..self.clone() };
        serde_json::to_string(&plain).unwrap_or_default()
    }
}

/// Samples of something and of its reference, taken in alternation, each pair with the regime
/// that it was taken in.
#[derive(Clone, Debug, Default)]
pub struct Series {
    pairs: Vec<(f64, f64, Regime)>,
}

impl Series {
    /// Adds a pair.
    pub fn push(&mut self, sample: f64, reference: f64, regime: Regime) {
        self.pairs.push((sample, reference, regime));
    }

    /// Pairs taken in this regime.
    pub fn count(&self, regime: Regime) -> usize {
        self.pairs.iter().filter(|pair| pair.2 == regime).count()
    }

    /// One figure for each regime with enough pairs; when there is none, one over all pairs,
    /// said to be mixed. Figures of different regimes are never compared.
    pub fn figures(&self, case: &str, metric: &str, unit: &str, reference: &str) -> Vec<Figure> {
        let of = |regime: Option<Regime>| {
            let chosen = self.pairs.iter().filter(|pair| regime.is_none_or(|regime| pair.2 == regime));
            let (samples, references): (Vec<f64>, Vec<f64>) = chosen.map(|pair| (pair.0, pair.1)).unzip();
            let figure = Figure::of(case, metric, unit, &samples).against(reference, &references);
            figure.in_regime(regime.unwrap_or(Regime::Mixed))
        };
        let pure = [Regime::Near, Regime::Far, Regime::Single];
        let found: Vec<Figure> =
            pure.into_iter().filter(|r| self.count(*r) >= SAMPLES_MIN).map(|r| of(Some(r))).collect();
        if found.is_empty() { vec![of(None)] } else { found }
    }
}

/// The table that people read: one line a figure.
pub fn table(figures: &[Figure]) -> String {
    let head =
        ["case", "metric", "unit", "min", "median", "max", "reference", "its median", "ratio", "regime"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(figures.iter().map(cells));
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in &rows {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| {
                let pad = " ".repeat(width - cell.chars().count());
                let numeric = (3..6).contains(&column) || (7..9).contains(&column);
                if numeric { format!("{pad}{cell}") } else { format!("{cell}{pad}") }
            })
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A figure's cells, as in the head of [`table`].
pub fn cells(figure: &Figure) -> Vec<String> {
    let reference = figure.reference.as_ref();
    vec![
        figure.case.clone(),
        figure.metric.clone(),
        figure.unit.clone(),
        number(figure.spread.min),
        number(figure.spread.median),
        number(figure.spread.max),
        reference.map_or(String::new(), |reference| reference.name.clone()),
        reference.map_or(String::new(), |reference| number(reference.spread.median)),
        figure.ratio.map_or(String::new(), |ratio| format!("{ratio:.3}")),
        figure.regime.to_string(),
    ]
}

/// A number with as many digits as it deserves.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_says_its_spread_and_its_ratio_to_the_reference() {
        let figure = Figure::of("c", "m", "u", &[5.0, 1.0, 2.0, 4.0, 3.0])
            .against("r", &[2.0, 2.0, 1.0, 3.0, 2.0, 2.0]);
        assert_eq!(figure.spread, Spread { min: 1.0, median: 3.0, max: 5.0 });
        assert_eq!(figure.ratio, Some(1.5));
        let value: serde_json::Value = serde_json::from_str(&figure.json()).expect("JSON");
        let keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["case", "max", "median", "metric", "min", "ratio", "reference", "regime", "unit"]);
        assert_eq!(value["reference"]["median"], 2.0);
        let back: Figure = serde_json::from_str(&figure.json()).expect("the figure again");
        assert_eq!(back, figure);
    }

    #[test]
    fn pairs_of_different_regimes_are_not_mixed_unless_there_is_nothing_else() {
        let mut series = Series::default();
        for n in 0..6 {
            series.push(10.0 + f64::from(n), 20.0, Regime::Near);
            series.push(1.0, 4.0, Regime::Mixed);
        }
        series.push(3.0, 9.0, Regime::Far);
        let figures = series.figures("c", "m", "u", "r");
        assert_eq!(figures.len(), 1);
        assert_eq!((figures[0].regime, figures[0].spread.median), (Regime::Near, 12.5));
        let mut few = Series::default();
        (0..5).for_each(|n| few.push(1.0, 2.0, if n < 2 { Regime::Near } else { Regime::Far }));
        assert_eq!(few.figures("c", "m", "u", "r")[0].regime, Regime::Mixed);
    }
}
