//! What traffic managers tell distributors of connection keys, and distributors each other (REQ D3, D9).
//!
//! A signal for a key goes with a packet or by itself, to the distributors of one side or of both. It names a shard and
//! not a worker: who owns the shard may change, and a peer may have other workers.
//!
//! All signals of one traffic manager for one key must reach a distributor in their order. Whoever takes one with
//! [`Signal::mirror`] set passes a copy without it on to the other distributors of the appliance.

use core::fmt;

use crate::base::ids::ShardId;
use crate::base::memory::Plain;
use crate::base::time::Duration;
use crate::distributor::shape::Shape;
use crate::flow::key::Key;

/// One signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// What is to be done.
    pub what: What,
    /// Which fields of the key count.
    pub shape: Shape,
    /// The key, as packets from that side carry it. Fields that do not count may hold anything.
    pub key: Key,
    /// The shard that the key belongs to. [`What::Forget`], [`What::Age`] and [`What::Used`] of another shard than the one
    /// that is known change nothing: they are of an owner before.
    pub shard: ShardId,
    /// Which distributors it is for. Whoever sends it sees to that; a store takes what it is given.
    pub sides: Sides,
    /// Whoever takes it passes it on to the other distributors. Their copies have it false.
    pub mirror: bool,
}

/// What a signal wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Packets with the key go to the shard from now on.
    Memorize(Lifetime),
    /// Packets with the key go by their hash again.
    Forget,
    /// The key is forgotten [`KEY_CLOSING_TIMEOUT`](crate::base::limits::KEY_CLOSING_TIMEOUT) from now, used or not, unless
    /// memorized again. It is what a traffic manager says once both ends have closed.
    Age,
    /// Packets with the key go by their hash, whatever a less specific key says, and change nothing here, until the key is
    /// forgotten, memorized or aged.
    Ignore,
    /// What is known of the key is to be told to the other distributors: they may have missed it.
    Mirror,
    /// One distributor tells the others that packets with this key still come, of which they see none: where it is
    /// known, it is not idle. Comes of [`Store::sweep`](crate::distributor::store::Store::sweep) alone.
    Used,
}

/// How long a key is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// A distributor chose the shard: the key's home distributor for a new key, or one that learned it of an expected
    /// key. For [`KEY_CHOSEN_TIMEOUT`](crate::base::limits::KEY_CHOSEN_TIMEOUT), used or not, until the traffic manager
    /// says more; it never overrides what a traffic manager said.
    Chosen,
    /// Until the traffic manager forgets it.
    Held,
    /// Until it was not used for so long.
    Idle(Duration),
    /// A flow that the traffic manager expects, of which it does not know every field: the first packet that fits brings
    /// them, and its full key takes this one's place (REQ D7). Given up after so long. Of a full key, which has nothing
    /// to learn, it is as [`Lifetime::Idle`].
    Once(Duration),
}

/// The distributors that a signal is for (REQ D9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Plain)]
#[repr(u8)]
pub enum Sides {
    /// All.
    #[default]
    Both = 0,
    /// Those that clients' packets come to.
    Client = 1,
    /// Those that servers' packets come to.
    Server = 2,
}

impl fmt::Display for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Sides::Both => "both",
            Sides::Client => "client",
            Sides::Server => "server",
        })
    }
}
