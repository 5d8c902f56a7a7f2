//! What workers hold at run time: a checked configuration and its generation,
//! swapped at a burst's boundary. Counters live outside it.

use crate::config::checked::Checked;

/// One generation of the configuration.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Raised by one at each reload; 1 at start.
    pub generation: u64,
    /// The configuration itself.
    pub checked: Checked,
}
