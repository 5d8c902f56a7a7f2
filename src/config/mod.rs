//! The startup file: parsed (`file`), then turned into types that cannot be
//! wrong (`check`, `checked`), then held by workers as a `snapshot` (REQ E5).
//!
//! Owned by no thread. In: the text of a file. Out: a [`checked::Checked`] with
//! warnings, or every error in the file at once, each with its file, line, key,
//! value and what was expected. Nothing is clamped.
//!
//! While the appliance runs the file may be read again: [`reload`] says what becomes of the running configuration.
//!
//! Not yet: bind ids (REQ C2), standby servers (REQ C3), forwarding
//! other than `nat` and `full-nat`, mirror modes other than `checkpoint`.

mod check;
pub mod checked;
mod differences;
mod file;
pub mod mirrored;
mod read;
pub mod reload;
mod report;
pub mod snapshot;
mod value;

use std::path::Path;

use toml::de::{DeTable, DeValue};

pub use crate::config::file::known_keys;
pub use crate::config::read::{KnownKey, Presence};
pub use crate::config::report::{ConfigError, Warning, sentence};

use crate::config::check::When;
use crate::config::checked::Checked;
use crate::config::read::{FromFile, Source, root};
use crate::config::report::{Place, Report};

/// Checks the text of the file at `path`, which messages name and to which
/// relative paths in the file refer. Errors come in the order of lines.
pub fn load(path: &Path, text: &str) -> Result<Checked, Vec<ConfigError>> {
    load_with_warnings(path, text).map(|(checked, _)| checked)
}

/// As [`load`], with what the operator should know of.
pub fn load_with_warnings(path: &Path, text: &str) -> Result<(Checked, Vec<Warning>), Vec<ConfigError>> {
    let mut report = Report::new(&path.display().to_string());
    let checked = read(text, &mut report)
        .and_then(|file| check::check(&file, directory(path), When::Start, &mut report));
    finish(checked, report)
}

/// The file's tables, as far as they are tables of these kinds; what is wrong is reported.
fn read<T: FromFile>(text: &str, report: &mut Report) -> Option<T> {
    let source = Source::new(text);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let line = source.line(error.span().map_or(0, |span| span.start));
            let place = Place { path: String::new(), line, shown: None };
            report.refuse(&place, format!("not TOML: {}", error.message()));
            return None;
        }
    };
    let place = root(&table, &source);
    T::from_file(&place, &DeValue::Table(table.into_inner()), &source, report)
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// What was built, if nothing was wrong.
fn finish<T>(built: Option<T>, mut report: Report) -> Result<(T, Vec<Warning>), Vec<ConfigError>> {
    report.errors.sort_by_key(|error| error.line);
    report.warnings.sort_by_key(|warning| warning.line);
    match built {
        Some(built) if report.errors.is_empty() => Ok((built, report.warnings)),
        Some(_) | None => {
            debug_assert!(!report.errors.is_empty(), "a part was refused without an error");
            Err(report.errors)
        }
    }
}
