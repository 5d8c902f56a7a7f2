//! What a network may send to an appliance's mirror, made of bytes that a fuzzer chooses (REQ C8: nothing that the network
//! sends can crash, stall or exhaust an appliance).
//!
//! * [`frames`]: bytes, to the parsers of what members send each other.
//! * [`exchange`]: two sound mirrors, and a link that loses, repeats, delays and damages: when it stops, both are equal.
//! * [`hostile`]: a mirror, and a peer that has the group's key and says anything; a sound peer that comes after it finds a
//!   mirror that works.
//!
//! `scripts/fuzz` runs them; `tests/corpus.rs` replays what it has found.

pub mod exchange;
pub mod frames;
pub mod hostile;
mod input;
mod side;

use std::fs;

/// Runs one of them on each file that the command line names.
pub fn replay_named(run: fn(&[u8])) -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        println!("{}", path.display());
        run(&fs::read(path)?);
    }
    Ok(())
}
