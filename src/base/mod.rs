//! What every room may use: time, randomness, ids, limits, counters, buffers.
//!
//! Owned by no thread. Nothing here reads a clock or the operating system's
//! entropy: `driver/` does, and passes the result in. [`memory`] alone asks the
//! operating system for something: for memory.

pub mod buffer;
pub mod counters;
pub mod ids;
pub mod io;
pub mod limits;
pub mod memory;
pub mod rng;
pub mod spans;
pub mod time;
