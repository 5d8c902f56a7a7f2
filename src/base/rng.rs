//! Seeded randomness. Replayable by design, so never a source of keys, nonces,
//! boot ids or anything an attacker must not guess: those come from the
//! operating system through `seal`.

/// The generator every pure room takes: `Rng::with_seed(seed)`.
pub use fastrand::Rng;
