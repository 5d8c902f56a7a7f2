//! What is wrong, or noteworthy, in a configuration file: collected, so that
//! the operator sees all of it at once.

use core::fmt;

/// One thing wrong in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The key with its tables: `failover.lease_ms`, `pool[web].server[0].address`.
    pub key: String,
    /// The value as it stands in the file; `None` when the key is missing.
    pub value: Option<String>,
    /// What was expected instead.
    pub expected: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigError { file, line, key, value, expected } = self;
        match value {
            _ if key.is_empty() => write!(f, "{file}:{line}: {expected}"),
            Some(value) => write!(f, "{file}:{line}: {key} = {value}: expected {expected}"),
            None => write!(f, "{file}:{line}: {key} is missing: expected {expected}"),
        }
    }
}

impl core::error::Error for ConfigError {}

/// All that is wrong in a file, in one sentence of several lines.
pub fn sentence(file: &str, errors: &[ConfigError]) -> String {
    let lines: String = errors.iter().map(|error| format!("\n  {error}")).collect();
    let count = if errors.len() == 1 { "an error".to_owned() } else { format!("{} errors", errors.len()) };
    format!("{file} has {count}:{lines}")
}

/// Something that is accepted, but that the operator should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The key with its tables.
    pub key: String,
    /// What to know.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Warning { file, line, key, message } = self;
        write!(f, "{file}:{line}: {key}: {message}")
    }
}

/// A key's place in the file.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The dotted path.
    pub path: String,
    /// From 1; where the key is missing, that of its table.
    pub line: usize,
    /// The value as it stands in the file; `None` when the key is missing.
    pub shown: Option<String>,
}

/// Errors and warnings, as they are found.
#[derive(Debug)]
pub(crate) struct Report {
    /// The file, as it was named.
    pub file: String,
    /// Found so far.
    pub errors: Vec<ConfigError>,
    /// Found so far.
    pub warnings: Vec<Warning>,
}

impl Report {
    /// Nothing found yet.
    pub fn new(file: &str) -> Report {
        Report { file: file.to_owned(), errors: Vec::new(), warnings: Vec::new() }
    }

    /// The value at `place` cannot be accepted.
    pub fn refuse(&mut self, place: &Place, expected: impl Into<String>) {
        self.errors.push(ConfigError {
            file: self.file.clone(),
            line: place.line,
            key: place.path.clone(),
            value: place.shown.clone(),
            expected: expected.into(),
        });
    }

    /// The value at `place` is accepted with a remark.
    pub fn warn(&mut self, place: &Place, message: impl Into<String>) {
        self.warnings.push(Warning {
            file: self.file.clone(),
            line: place.line,
            key: place.path.clone(),
            message: message.into(),
        });
    }
}
