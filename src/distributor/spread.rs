//! A distributor on an lcore of its own (REQ E1, E2): a burst of a port's packets, each handed to the worker that owns
//! its shard, or punted. It keeps nothing from one burst to the next: no flow, no role, no time.
//!
//! 1. *Note* the shard of every packet of which three words of its head say it: TCP and UDP over IPv4 or IPv6 to this
//!    appliance's link addresses and not to its own network addresses, without options, extension headers, fragments or
//!    tags.
//! 2. *Hand over*, in the order in which they came; what was not noted is inspected as a worker would do it, in its turn.
//!
//! Noting verifies nothing that it does not need: the worker looks at every packet as if a port had given it, and drops and
//! counts what is unsound. On a standby that is every packet of a service.

use std::sync::Arc;

use crate::base::buffer::{Buffer, Handed};
use crate::base::counters::{Counter, Counters};
use crate::base::ids::ShardId;
use crate::base::io::{PassOn, Punt};
use crate::base::limits::{BURST_MAX, PORTS_MAX, SHARDS};
use crate::config::snapshot::Snapshot;
use crate::distributor::classify::{Class, Here, MirrorPort};
use crate::distributor::doors::{Doors, door, word};
use crate::distributor::services::{Services, Whose};
use crate::flow::key::{Address, TCP, UDP};
use crate::flow::shard::Owners;
use crate::flow::toeplitz::Toeplitz;
use crate::wire::ethernet::{self, MacAddress};

/// Bytes of an IPv4 packet that are looked at: to the end of its ports.
const HEADERS_V4: usize = ethernet::HEADER_LEN + 20 + 4;
/// The same of an IPv6 packet.
const HEADERS_V6: usize = ethernet::HEADER_LEN + 40 + 4;

/// In a shard's place: the packet has to be inspected.
const UNSURE: u16 = u16::MAX;

const _: () = assert!(SHARDS < UNSURE as usize);

/// What a distributor is made from.
#[derive(Clone)]
pub struct DistributorSetup {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// How many workers hold flows.
    pub workers: u16,
    /// The ports' own link addresses, in their order.
    pub link_addresses: Vec<[u8; 6]>,
    /// The hash of shards, which members share.
    pub toeplitz: Arc<Toeplitz>,
    /// Where this distributor counts; no other writes there.
    pub counters: Arc<Counters>,
}

/// See the file's documentation.
pub struct Distributor {
    doors: Doors,
    link_addresses: Vec<[u8; 6]>,
    virtual_router: [[u8; 6]; 2],
    services: Services,
    toeplitz: Arc<Toeplitz>,
    mirror: Option<MirrorPort>,
    /// The owner of each shard.
    owners: Owners,
    counters: Arc<Counters>,
}

impl Distributor {
    /// Ready for packets.
    pub fn new(setup: DistributorSetup) -> Distributor {
        let config = &setup.snapshot.checked;
        let virtual_router = [MacAddress::virtual_router_v4, MacAddress::virtual_router_v6]
            .map(|of| of(config.failover.virtual_router_id).0);
        Distributor {
            doors: Doors::new(&setup.link_addresses, virtual_router),
            virtual_router,
            services: Services::new(config),
            mirror: MirrorPort::of(config, setup.workers),
            owners: Owners::even(setup.workers),
            link_addresses: setup.link_addresses,
            toeplitz: setup.toeplitz,
            counters: setup.counters,
        }
    }

    /// Handles packets of one queue of a port. Empties `packets`.
    pub fn handle_burst<P: PassOn>(&self, packets: &mut Vec<P::Buf>, out: &mut P) {
        self.counters.add(Counter::RxPackets, packets.len() as u64);
        let mut shards = [UNSURE; BURST_MAX];
        while !packets.is_empty() {
            let count = packets.len().min(BURST_MAX);
            for (shard, packet) in shards.iter_mut().zip(&packets[..count]) {
                *shard = self.note(packet).map_or(UNSURE, |shard| shard.0);
            }
            let mut handed = 0;
            for (shard, mut packet) in shards.iter().zip(packets.drain(..count)) {
                if *shard == UNSURE {
                    self.handle_packet(packet, out);
                    continue;
                }
                handed += 1;
                packet.set_handed(Handed::Plain);
                out.hand_over(self.owners.of(ShardId(*shard)), packet);
            }
            self.counters.add(Counter::HandedOver, handed);
        }
    }

    /// Any packet, whatever it is.
    #[cold]
    fn handle_packet<P: PassOn>(&self, mut packet: P::Buf, out: &mut P) {
        let class = match self.here().inspect(&packet) {
            Ok((_, class)) => class,
            Err(counter) => return self.counters.bump(counter),
        };
        let to = match class {
            Class::Liveness => return out.punt(Punt::Liveness, packet),
            Class::Master => return out.punt(Punt::Master, packet),
            Class::Drop(counter) => return self.counters.bump(counter),
            Class::Mirror(worker) => worker,
            Class::Service { shard, .. } => self.owners.of(shard),
            Class::Fragment { designated } => self.owners.of(designated),
        };
        self.counters.bump(Counter::HandedOver);
        packet.set_handed(Handed::Plain);
        out.hand_over(to, packet);
    }

    fn here(&self) -> Here<'_> {
        Here {
            link_addresses: &self.link_addresses,
            virtual_router: self.virtual_router,
            services: &self.services,
            toeplitz: &self.toeplitz,
            mirror: self.mirror,
        }
    }

    /// The shard of a packet; `None`: it has to be inspected.
    #[inline(always)]
    fn note<B: Buffer>(&self, packet: &B) -> Option<ShardId> {
        let own = self.doors.own[usize::from(packet.rx().port.0) % PORTS_MAX];
        let head = packet.head();
        match head.first_chunk() {
            Some(start) if is_plain_v4(start) => self.note_v4(start, own),
            Some(_) | None => self.note_v6(head.first_chunk()?, own),
        }
    }

    #[inline(always)]
    fn note_v4(&self, head: &[u8; HEADERS_V4], own: u64) -> Option<ShardId> {
        let to = door(u64::from_le_bytes(word(head, 0)));
        if to != self.doors.virtual_v4 && to != own {
            return None;
        }
        let dst = word(head, 30);
        match self.services.whose_v4(dst) {
            Some(Whose::Own(_)) => None,
            Some(Whose::Virtual) => Some(self.toeplitz.shard_of_v4(word(head, 26), word(head, 34))),
            Some(Whose::Shared | Whose::SourceNat) | None => {
                Some(self.toeplitz.shard_of_v4(dst, word(head, 36)))
            }
        }
    }

    #[inline(never)]
    fn note_v6(&self, head: &[u8; HEADERS_V6], own: u64) -> Option<ShardId> {
        // EtherType, version.
        if u32::from_le_bytes(word(head, 12)) & 0xf0_ffff != 0x60_dd86 || !matches!(head[20], TCP | UDP) {
            return None;
        }
        let to = door(u64::from_le_bytes(word(head, 0)));
        if to != self.doors.virtual_v6 && to != own {
            return None;
        }
        let dst = Address::v6(word(head, 38));
        let port = |at: usize| u16::from_be_bytes(word(head, at));
        match self.services.whose(&dst) {
            Some(Whose::Own(_)) => None,
            Some(Whose::Virtual) => Some(self.toeplitz.shard_of(Address::v6(word(head, 22)), port(54))),
            Some(Whose::Shared | Whose::SourceNat) | None => Some(self.toeplitz.shard_of(dst, port(56))),
        }
    }
}

/// Whether it is TCP or UDP over IPv4 without options, and whole.
#[inline(always)]
fn is_plain_v4(head: &[u8; HEADERS_V4]) -> bool {
    // EtherType, version and header length; flags and fragment offset, but for "do not fragment".
    u32::from_le_bytes(word(head, 12)) << 8 == 0x4500_0800
        && u16::from_le_bytes(word(head, 20)) & 0xffbf == 0
        && matches!(head[23], TCP | UDP)
}
