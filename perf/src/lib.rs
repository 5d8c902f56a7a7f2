//! Measures baton.
//!
//! * [`case`]: what can be measured, by name; [`figure`]: what comes out.
//! * [`regime`]: how near two CPUs are to each other, measured beside every sample of two CPUs.
//! * [`machine`]: the machine itself.
//! * [`ring`]: the appliance's own cost, on ring devices.
//! * [`sweep`]: the master's ageing sweep.
//! * [`tables`]: baton's flow table beside others.
//! * [`traffic`]: the generator, bytes alone.
//! * [`report`] and [`chart`]: Markdown and SVG.
//!
//! `perf/README.md` says what each figure means and how it is measured.

// What measures reads clocks and waits.
#![allow(clippy::disallowed_methods)]

pub mod case;
pub mod chart;
pub mod figure;
pub mod link;
pub mod machine;
pub mod regime;
pub mod report;
pub mod ring;
pub mod sweep;
pub mod tables;
pub mod traffic;
