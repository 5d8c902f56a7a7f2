//! What `baton reload` is answered.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The configuration file was read again, and holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// The generation of the configuration that holds now.
    pub generation: u64,
    /// What is otherwise than before, one sentence each; none: the file says nothing new, and the generation is as before.
    pub changes: Vec<String>,
    /// What the operator should know of the file.
    pub warnings: Vec<String>,
}

impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReloadReport { generation, changes, warnings } = self;
        if changes.is_empty() {
            writeln!(f, "the file says nothing new: configuration {generation}")?;
        } else {
            writeln!(f, "configuration {generation}")?;
        }
        changes.iter().try_for_each(|change| writeln!(f, "  {change}"))?;
        warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

/// Nothing changed; why, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReloaded {
    /// The file is wrong, or asks for what only a restart can bring.
    Wrong(String),
    /// The appliance could not, or it took so long that nobody waited for what came of it: that is in `baton events`.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_what_changed_or_that_nothing_did() {
        let mut report = ReloadReport { generation: 2, ..ReloadReport::default() };
        assert_eq!(report.to_string(), "the file says nothing new: configuration 2\n");
        report.changes = vec!["pool web removed".to_owned()];
        report.warnings = vec!["a.toml:3: pool: no use".to_owned()];
        let text = "configuration 2\n  pool web removed\nwarning: a.toml:3: pool: no use\n";
        assert_eq!(report.to_string(), text);
    }
}
