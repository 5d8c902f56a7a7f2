//! Ways to break the mirror on purpose, for the checkers that must see it.

/// Soundness, or one of the ways to break it that the simulator's checkers
/// must see. Never anything but sound outside tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// As it should be.
    #[default]
    Sound,
    /// Frames are acknowledged when they arrive and applied some time later.
    AcknowledgedBeforeApplied,
    /// The receiver forgets at once that a flow ended.
    TombstoneDroppedEarly,
    /// A standby takes what the leader says of a shard that is not home yet.
    TakenBeforeHome,
    /// A shard is moved while frames about it, which were taken for lost, may still come.
    StraysLetIn,
    /// Digests say nothing of how far a connection has come.
    DigestIgnoresState,
    /// The source-NAT port of an ended flow is free at once, whether its end was acknowledged or not.
    PortReusedBeforeAcknowledged,
}
