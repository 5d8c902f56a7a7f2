//! What can be wrong on purpose, so that the checkers have something to find.

use baton::failover::witness::WitnessVariant;
use baton::{failover, mirror};

/// Which rules are broken, if any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Variants {
    pub mirror: mirror::Variant,
    pub failover: failover::Variant,
    pub division: DivisionVariant,
    pub witness: WitnessVariant,
}

/// What is wrong with the way in which packets come to workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DivisionVariant {
    #[default]
    Sound,
    /// The first worker takes all shards for its own.
    FirstOwnsAll,
    /// One packet in eight goes from a distributor to a wrong worker, which passes it on.
    Strays,
}

/// Names of the broken variants.
pub const VARIANTS: [&str; 12] = [
    "acknowledged-before-applied",
    "tombstone-dropped-early",
    "equal-term-accepted",
    "send-after-lease",
    "first-owns-all",
    "strays",
    "taken-before-home",
    "strays-let-in",
    "digest-ignores-state",
    "witness-grants-at-once",
    "witness-grants-to-all",
    "port-reused-before-acknowledged",
];

/// The variant of a name; `sound` is one.
pub fn variant(name: &str) -> Option<Variants> {
    let mut variants = Variants::default();
    match name {
        "sound" => {}
        "acknowledged-before-applied" => variants.mirror = mirror::Variant::AcknowledgedBeforeApplied,
        "tombstone-dropped-early" => variants.mirror = mirror::Variant::TombstoneDroppedEarly,
        "equal-term-accepted" => variants.failover = failover::Variant::EqualTermAccepted,
        "first-owns-all" => variants.division = DivisionVariant::FirstOwnsAll,
        "strays" => variants.division = DivisionVariant::Strays,
        "taken-before-home" => variants.mirror = mirror::Variant::TakenBeforeHome,
        "strays-let-in" => variants.mirror = mirror::Variant::StraysLetIn,
        "digest-ignores-state" => variants.mirror = mirror::Variant::DigestIgnoresState,
        "port-reused-before-acknowledged" => {
            variants.mirror = mirror::Variant::PortReusedBeforeAcknowledged;
        }
        "send-after-lease" => variants.failover = failover::Variant::SendAfterLease,
        "witness-grants-at-once" => variants.witness = WitnessVariant::GrantsAtOnce,
        "witness-grants-to-all" => variants.witness = WitnessVariant::GrantsToAll,
        _ => return None,
    }
    Some(variants)
}
