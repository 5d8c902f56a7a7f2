//! What a worker is made from.

use std::sync::Arc;

use crate::base::counters::Counters;
use crate::base::ids::{BootId, WorkerId};
use crate::base::time::Instant;
use crate::config::snapshot::Snapshot;
use crate::flow::toeplitz::Toeplitz;
use crate::mirror::Variant;

/// What a worker is made from.
#[derive(Clone)]
pub struct WorkerSetup {
    /// Which of them.
    pub id: WorkerId,
    /// How many there are.
    pub workers: u16,
    /// This start of the appliance.
    pub boot: BootId,
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// The ports' own link addresses, in their order.
    pub link_addresses: Vec<[u8; 6]>,
    /// The hash of shards, which members share.
    pub toeplitz: Arc<Toeplitz>,
    /// The secret of the hash by which servers are chosen, which members share.
    pub balance_secret: [u8; 16],
    /// Seed of the tables' own hash: the operating system's entropy.
    pub hash_seed: u64,
    /// Seed of choices that anyone may guess.
    pub seed: u64,
    /// The lowest bit of a durable count of boots; `None`: the first boot.
    pub boot_parity: Option<bool>,
    /// When the process started.
    pub now: Instant,
    /// Packets that may be held: a quarter of the buffers, over all workers.
    pub hold_packets_max: usize,
    /// Fragments that may wait for their datagram's first one: an eighth of the buffers, over all workers. At most
    /// [`FRAGMENTS_WAITING_MAX`](crate::base::limits::FRAGMENTS_WAITING_MAX) do.
    pub fragments_waiting_max: usize,
    /// Where this worker counts; no other writes there.
    pub counters: Arc<Counters>,
    /// Soundness, or a way to break it.
    pub variant: Variant,
}
