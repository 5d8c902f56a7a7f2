//! The stored budget, and what was counted held against it.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::Deserialize;

/// What stands at the head of the file.
const HEAD: &str = "\
# Instructions per packet of the standard bursts (tests/guard/bursts.rs), and what they were counted with.
# `perf/guard` compares with it; `perf/guard --update` counts and stores anew.
";

/// `perf/budget.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The toolchain that compiles the guard, as rustup names it.
    pub toolchain: String,
    /// The processor that it is compiled for.
    pub target_cpu: String,
    /// What is dearer by more than this fails, in percent.
    pub over_percent_max: f64,
    /// What the figures were counted with.
    pub made: Made,
    /// For each burst.
    pub instructions_per_packet: BTreeMap<String, f64>,
}

/// Figures counted with something else say nothing about each other.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The compiler.
    pub rustc: String,
    /// What the processor that valgrind simulates can do.
    pub simulated_cpu: String,
}

/// One burst, counted.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub name: &'static str,
    pub what: &'static str,
    /// Instructions per packet.
    pub per_packet: f64,
}

/// `rustc -vV`, without what only repeats or says where it was built.
pub fn one_line(rustc: &str) -> String {
    let wanted =
        |line: &&str| line.starts_with("rustc ") || line.starts_with("host: ") || line.starts_with("LLVM ");
    rustc.lines().map(str::trim).filter(wanted).collect::<Vec<_>>().join(", ")
}

/// As it is stored.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

impl Budget {
    pub fn parse(text: &str) -> Result<Budget, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Takes what was counted for the new budget.
    pub fn store(&mut self, made: Made, measured: &[Measured]) {
        self.made = made;
        self.instructions_per_packet =
            measured.iter().map(|of| (of.name.to_owned(), tenths(of.per_packet))).collect();
    }

    pub fn to_toml(&self) -> String {
        let Budget { toolchain, target_cpu, over_percent_max, made, instructions_per_packet } = self;
        let mut text = format!(
            "{HEAD}toolchain = {toolchain:?}\ntarget_cpu = {target_cpu:?}\nover_percent_max = {over_percent_max:?}\n\n\
             [made]\nrustc = {:?}\nsimulated_cpu = {:?}\n\n[instructions_per_packet]\n",
            made.rustc, made.simulated_cpu
        );
        for (name, value) in instructions_per_packet {
            let _ = writeln!(text, "{name} = {value:?}");
        }
        text
    }
}

/// What was counted, against the budget.
pub struct Comparison {
    lines: Vec<Line>,
    over_percent_max: f64,
    /// Bursts of the budget that there are no more.
    unknown: Vec<String>,
    /// What the budget was made with, and what this is: when they differ.
    differs: Option<(Made, Made)>,
}

struct Line {
    measured: Measured,
    budget: Option<f64>,
}

impl Line {
    /// Above the budget, in percent.
    fn over_percent(&self) -> Option<f64> {
        self.budget.map(|budget| 100.0 * (self.measured.per_packet - budget) / budget)
    }
}

impl Comparison {
    pub fn new(budget: &Budget, made: &Made, measured: &[Measured]) -> Comparison {
        let of = |name: &str| budget.instructions_per_packet.get(name).copied().filter(|value| *value > 0.0);
        let known = |name: &String| measured.iter().any(|of| of.name == name);
        Comparison {
            lines: measured.iter().map(|&measured| Line { measured, budget: of(measured.name) }).collect(),
            over_percent_max: budget.over_percent_max,
            unknown: budget.instructions_per_packet.keys().filter(|name| !known(name)).cloned().collect(),
            differs: (budget.made != *made).then(|| (budget.made.clone(), made.clone())),
        }
    }

    fn is_over(&self, line: &Line) -> bool {
        line.over_percent().is_none_or(|over| over > self.over_percent_max)
    }

    /// Nothing is over its budget, or nothing can be said.
    pub fn passed(&self) -> bool {
        self.differs.is_some()
            || (self.unknown.is_empty() && !self.lines.iter().any(|line| self.is_over(line)))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "instructions per packet")?;
        writeln!(f, "{:<16} {:>9} {:>9} {:>8}", "burst", "budget", "counted", "change")?;
        for line in &self.lines {
            let Measured { name, what, per_packet } = line.measured;
            let budget = line.budget.map_or("none".to_owned(), |budget| format!("{budget:.1}"));
            let change = line.over_percent().map_or("-".to_owned(), |over| format!("{over:+.1} %"));
            let word = match (&self.differs, self.is_over(line)) {
                (Some(_), _) => "not compared",
                (None, true) => "OVER",
                (None, false) => "ok",
            };
            writeln!(f, "{name:<16} {budget:>9} {per_packet:>9.1} {change:>8}  {word:<5} {what}")?;
        }
        for name in &self.unknown {
            writeln!(f, "the budget has {name}, which is no burst")?;
        }
        if let Some((then, now)) = &self.differs {
            writeln!(f, "NOT COMPARED: the budget was counted with something else.")?;
            writeln!(f, "  budget: {}; simulated processor: {}", then.rustc, then.simulated_cpu)?;
            return write!(f, "  here:   {}; simulated processor: {}", now.rustc, now.simulated_cpu);
        }
        if !self.passed() {
            return write!(
                f,
                "FAILED: more than {} % over the budget. Make it cheaper; or, if it is worth that, \
                 perf/guard --update and say why in the commit",
                self.over_percent_max
            );
        }
        let cheaper = |line: &Line| line.over_percent().is_some_and(|over| over < -self.over_percent_max);
        if self.lines.iter().any(cheaper) {
            return write!(
                f,
                "passed; some are much cheaper than their budget: perf/guard --update keeps that"
            );
        }
        write!(f, "passed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Made {
        Made { rustc: "rustc 1.95.0, host: x86_64".to_owned(), simulated_cpu: "avx2".to_owned() }
    }

    fn budget() -> Budget {
        let all = [("settled".to_owned(), 500.0), ("first".to_owned(), 2000.0)];
        Budget {
            toolchain: "1.95.0".to_owned(),
            target_cpu: "x86-64".to_owned(),
            over_percent_max: 5.0,
            made: made(),
            instructions_per_packet: all.into(),
        }
    }

    fn counted(settled: f64, first: f64) -> [Measured; 2] {
        [
            Measured { name: "settled", what: "known flows", per_packet: settled },
            Measured { name: "first", what: "new flows", per_packet: first },
        ]
    }

    fn compared(measured: &[Measured]) -> (bool, String) {
        let comparison = Comparison::new(&budget(), &made(), measured);
        (comparison.passed(), comparison.to_string())
    }

    #[test]
    fn six_percent_more_in_one_burst_fails_and_is_named() {
        let (passed, text) = compared(&counted(500.0 * 1.06, 2000.0));
        assert!(!passed);
        let line = text.lines().find(|line| line.starts_with("settled")).expect("its line");
        assert!(line.contains("+6.0 %") && line.contains("OVER") && line.contains("530.0"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("first") && line.contains("ok")), "{text}");
        assert!(text.contains("FAILED: more than 5 % over"), "{text}");
    }

    #[test]
    fn five_percent_more_passes_and_so_does_less() {
        let (passed, text) = compared(&counted(525.0, 2100.0));
        assert!(passed && text.ends_with("passed"), "{text}");
        let (passed, text) = compared(&counted(500.1, 1800.0));
        assert!(passed && text.contains("much cheaper") && text.contains("-10.0 %"), "{text}");
    }

    #[test]
    fn a_burst_without_a_budget_fails_and_so_does_a_budget_without_a_burst() {
        let more = Measured { name: "new", what: "of today", per_packet: 1.0 };
        let (passed, text) = compared(&[&counted(500.0, 2000.0)[..], &[more]].concat());
        assert!(!passed && text.contains("none"), "{text}");
        let (passed, text) = compared(&counted(500.0, 2000.0)[..1]);
        assert!(!passed && text.contains("the budget has first, which is no burst"), "{text}");
    }

    #[test]
    fn figures_of_another_compiler_or_processor_are_shown_and_not_compared() {
        for other in [
            Made { rustc: "rustc 2.0.0".to_owned(), ..made() },
            Made { simulated_cpu: "sse4.2".to_owned(), ..made() },
        ] {
            let comparison = Comparison::new(&budget(), &other, &counted(900.0, 2000.0));
            let text = comparison.to_string();
            assert!(comparison.passed());
            assert!(text.contains("NOT COMPARED") && text.contains("+80.0 %"), "{text}");
            assert!(!text.contains("\npassed") && !text.contains(" ok "), "{text}");
            assert!(text.contains(&made().rustc) && text.contains(&other.rustc), "{text}");
        }
    }

    #[test]
    fn what_is_stored_is_read_again_and_passes() {
        let mut budget = budget();
        let measured = counted(612.34, 1777.77);
        budget.store(Made { rustc: "rustc 1.96.0".to_owned(), ..made() }, &measured);
        let read = Budget::parse(&budget.to_toml()).expect("it is TOML");
        assert_eq!(read, budget);
        assert_eq!(read.instructions_per_packet["settled"], 612.3);
        assert!(Comparison::new(&read, &read.made, &measured).passed());
        assert!(Budget::parse(&(budget.to_toml() + "\n[more]\n")).is_err(), "unknown keys are errors");
    }

    #[test]
    fn a_compiler_is_named_in_one_line() {
        let verbose = "rustc 1.95.0 (abc 2026-04-14)\nbinary: rustc\ncommit-hash: abc\nhost: x86_64-linux\nrelease: 1.95.0";
        assert_eq!(one_line(verbose), "rustc 1.95.0 (abc 2026-04-14), host: x86_64-linux");
    }
}
