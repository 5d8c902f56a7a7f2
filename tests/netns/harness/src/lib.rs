//! A small world of network namespaces around a pair of appliances, or three of them: a client,
//! servers, a switch, real programs on every side, and what is needed to judge
//! what became of each connection.
//!
//! Used by `tests/netns` and by the `demo` and `campaign` programs. Nothing here is part of the
//! appliance, and nothing here looks inside it: it is driven by its command,
//! its configuration file and its packets.
//!
//! ```text
//!  client ── lan-client ──┬── a ──┬── lan-server ── s1, s2 …
//!            (bridge)     └── b ──┘   (bridge)
//!                         a ── lan-mirror ── b
//! ```
//!
//! The bridges live in a namespace of their own (`switch`), so that a link can be
//! cut in silence and watched from outside the appliance. Names carry the
//! process id; a [`World`] removes all of itself when dropped, also in a panic,
//! on SIGINT and on SIGTERM; what a killed process left is swept by the next.
//!
//! Needs root.

// The harness plays the outside world: it has the real clock and real waits.
#![allow(clippy::disallowed_methods)]

pub mod analysis;
pub mod appliance;
pub mod campaign;
pub mod capture;
pub mod cleanup;
pub mod command;
pub mod config;
pub mod connections;
pub mod conversation;
pub mod crowd;
pub mod dns;
pub mod downloads;
pub mod figures;
pub mod frozen;
pub mod group;
pub mod inject;
pub mod keepalived;
pub mod plan;
pub mod probe;
pub mod process;
pub mod relay;
pub mod stage;
pub mod stall;
pub mod web;
pub mod witness;
pub mod world;

pub use plan::{Link, Side};
pub use world::World;

/// Errors with context, for people.
pub use anyhow::{Context, Error, Result, anyhow, bail, ensure};
