//! The cases: what can be measured, by name. Each runs in a process of its own, since a process
//! can start DPDK's environment once and since memory of one case must not warm or split that
//! of the next.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::figure::{Figure, SAMPLES_MIN};

/// How a case is to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Samples of each figure, at least [`SAMPLES_MIN`].
    pub samples: usize,
    /// Shorter where that costs only spread.
    pub quick: bool,
}

impl Context {
    /// The usual one.
    pub fn new(quick: bool) -> Context {
        Context { samples: if quick { SAMPLES_MIN } else { 9 }, quick }
    }
}

/// What measures.
type Measure = Box<dyn Fn(&Context) -> Result<Vec<Figure>>>;

/// A case.
pub struct Case {
    /// Its name, unique.
    pub name: String,
    /// What it measures, in one line.
    pub what: String,
    /// Whether it belongs to the essentials.
    pub quick: bool,
    /// What its process finds in its environment.
    environment: Option<(&'static str, &'static str)>,
    measure: Measure,
}

impl Case {
    /// A case of all, not of the essentials.
    pub fn new(
        name: impl Into<String>,
        what: impl Into<String>,
        measure: impl Fn(&Context) -> Result<Vec<Figure>> + 'static,
    ) -> Case {
        Case {
            name: name.into(),
            what: what.into(),
            quick: false,
            environment: None,
            measure: Box::new(measure),
        }
    }

    /// Of the essentials too.
    pub fn essential(mut self) -> Case {
        self.quick = true;
        self
    }

    /// Its process is started with this in its environment.
    pub fn with_environment(mut self, variable: (&'static str, &'static str)) -> Case {
        self.environment = Some(variable);
        self
    }

    /// Measures, in this process.
    pub fn measure(&self, context: &Context) -> Result<Vec<Figure>> {
        (self.measure)(context).with_context(|| self.name.clone())
    }
}

/// Every case, in the order in which they run and are printed.
pub fn all() -> Vec<Case> {
    let cases: Vec<Case> = [
        crate::machine::cases(),
        crate::tables::cases(),
        crate::ring::cases(),
        vec![crate::sweep::case()],
        crate::link::cases(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "two cases have one name");
    cases
}

/// The cases that are wanted: those named (a name that ends in `*` means all that begin so), or
/// all, or the essentials.
pub fn chosen(names: &[String], quick: bool) -> Result<Vec<Case>> {
    let matches = |case: &Case, name: &str| match name.strip_suffix('*') {
        Some(begin) => case.name.starts_with(begin),
        None => case.name == name,
    };
    let cases = all();
    if let Some(unknown) = names.iter().find(|name| !cases.iter().any(|case| matches(case, name))) {
        bail!("there is no case {unknown:?} (perf/run --list names them)");
    }
    let wanted = |case: &Case| match names {
        [] => case.quick || !quick,
        names => names.iter().any(|name| matches(case, name)),
    };
    Ok(cases.into_iter().filter(wanted).collect())
}

/// Measures a case in a process of its own: this program again, which prints its figures as JSON.
pub fn measure_apart(program: &Path, case: &Case, quick: bool) -> Result<Vec<Figure>> {
    let mut command = Command::new(program);
    command.args(["case", &case.name]).stdin(Stdio::null()).stderr(Stdio::inherit());
    // One program on an interface is enough, and what shares it among several complains at length.
    command.env("LIBXDP_SKIP_DISPATCHER", "1");
    if quick {
        command.arg("--quick");
    }
    command.envs(case.environment);
    let output = command.output().with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        bail!("case {}: {}", case.name, output.status);
    }
    let text = String::from_utf8(output.stdout).context("figures are text")?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a figure: {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen_by_name_by_beginning_or_as_the_essentials() {
        let names = |wanted: &[&str], quick| -> Vec<String> {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            chosen(&wanted, quick).expect("known cases").into_iter().map(|case| case.name).collect()
        };
        assert_eq!(names(&["machine-crossing"], false), ["machine-crossing"]);
        assert!(names(&["machine-*"], false).contains(&"machine-crossing".to_owned()));
        assert!(names(&[], true).len() <= names(&[], false).len());
        assert!(chosen(&["nothing".to_owned()], false).is_err());
    }
}
