//! A distributor on an lcore of its own (REQ E1, E2): a burst of a port's packets, each handed to the worker that owns
//! its shard, or punted. It keeps nothing from one burst to the next but whose each shard is and its replica of the
//! connection store: no flow, no role.
//!
//! 1. *Note* the shard of every packet of which three words of its head say it: TCP and UDP over IPv4 or IPv6 to this
//!    appliance's link addresses and not to its own network addresses, without options, extension headers, fragments or
//!    tags.
//! 2. *Hand over*, in the order in which they came; what was not noted is inspected as a worker would do it, in its turn.
//!
//! Noting verifies nothing that it does not need: the worker looks at every packet as if a port had given it, and drops and
//! counts what is unsound. On a standby that is every packet of a service.

use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::base::buffer::{Buffer, Handed};
use crate::base::counters::{Counter, Counters};
use crate::base::ids::{ShardId, WorkerId};
use crate::base::io::{PassOn, Punt};
use crate::base::limits::{BURST_MAX, PORTS_MAX, SHARDS};
use crate::base::memory::NoMemory;
use crate::base::time::Instant;
use crate::config::checked::{Checked, Method};
use crate::config::snapshot::Snapshot;
use crate::distributor::classify::{Class, Here, MirrorPort, shard_of};
use crate::distributor::doors::{Doors, door, word};
use crate::distributor::place::{Place, Placer, PlacerSetup};
use crate::distributor::services::{Services, Whose};
use crate::distributor::tell::{Tell, Told};
use crate::flow::key::{Address, Key, TCP, UDP};
use crate::flow::shard::{Move, Owners, owner_of};
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
    /// Which lcore it is, by its number among all workers.
    pub me: WorkerId,
    /// Seed of the connection store's own hash: the operating system's entropy.
    pub hash_seed: u64,
    /// The time now.
    pub now: Instant,
    /// Where this distributor counts; no other writes there.
    pub counters: Arc<Counters>,
}

/// What a distributor looks up of one generation of the configuration, made where time is no matter, and dropped there.
#[derive(Clone)]
pub struct Lookup {
    services: Services,
    /// How each virtual server's new keys are placed.
    methods: Vec<Method>,
}

impl Lookup {
    /// Of a configuration.
    pub fn new(config: &Checked) -> Lookup {
        let methods = config.virtual_servers.iter().map(|server| server.select).collect();
        Lookup { services: Services::new(config), methods }
    }
}

/// What the master says to an lcore that only distributes.
pub enum Order {
    /// Shards move.
    Move(Move),
    /// Look up by this from now on, and give back what was looked up by until then.
    Configure(Box<Lookup>),
}

/// See the file's documentation.
pub struct Distributor {
    doors: Doors,
    link_addresses: Vec<[u8; 6]>,
    virtual_router: [[u8; 6]; 2],
    services: Services,
    toeplitz: Arc<Toeplitz>,
    mirror: Option<MirrorPort>,
    workers: u16,
    /// The owner of each shard.
    owners: Owners,
    placer: Placer,
    /// The plain packets of a burst whose keys have to be looked up; empty between bursts.
    keys: ArrayVec<Option<(Key, ShardId)>, BURST_MAX>,
    /// Shards that move, the marker of which is not in the ring to their old owner yet.
    redirecting: Option<Move>,
    counters: Arc<Counters>,
}

impl Distributor {
    /// Ready for packets.
    pub fn new(setup: DistributorSetup) -> Result<Distributor, NoMemory> {
        let config = &setup.snapshot.checked;
        let virtual_router = [MacAddress::virtual_router_v4, MacAddress::virtual_router_v6]
            .map(|of| of(config.failover.virtual_router_id).0);
        let placer =
            Placer::new(PlacerSetup { me: setup.me, config, hash_seed: setup.hash_seed, now: setup.now })?;
        Ok(Distributor {
            doors: Doors::new(&setup.link_addresses, virtual_router),
            virtual_router,
            services: Services::new(config),
            mirror: MirrorPort::of(config, setup.workers),
            workers: setup.workers,
            owners: Owners::even(setup.workers),
            placer,
            keys: ArrayVec::new(),
            redirecting: None,
            link_addresses: setup.link_addresses,
            toeplitz: setup.toeplitz,
            counters: setup.counters,
        })
    }

    /// Another generation of the configuration, between two bursts; what it leaves in `next` is to be dropped elsewhere.
    pub fn configure(&mut self, next: &mut Lookup) {
        core::mem::swap(&mut self.services, &mut next.services);
        self.placer.change_methods(&mut next.methods);
    }

    /// Shards move: their packets go to the new owner as soon as a marker behind the last one is in the ring to the old one.
    /// One move at a time.
    pub fn redirect<P: PassOn>(&mut self, these: Move, out: &mut P) {
        self.redirecting = Some(these);
        self.go_on(out);
    }

    /// Once a turn, before its packets.
    #[inline]
    pub fn go_on<P: PassOn>(&mut self, out: &mut P) {
        let Some(these) = self.redirecting else { return };
        if out.mark(these.from, these.name()) {
            self.redirecting = None;
            these.shards.iter().for_each(|shard| self.owners.set(shard, these.to));
        }
    }

    /// Handles packets of one queue of a port. Empties `packets`.
    pub fn handle_burst<P: PassOn + Tell>(&mut self, now: Instant, packets: &mut Vec<P::Buf>, out: &mut P) {
        self.counters.add(Counter::RxPackets, packets.len() as u64);
        if self.placer.is_in_use() {
            return self.spread_placed(now, packets, out);
        }
        let mut shards = [UNSURE; BURST_MAX];
        while !packets.is_empty() {
            let count = packets.len().min(BURST_MAX);
            for (shard, packet) in shards.iter_mut().zip(&packets[..count]) {
                *shard = self.note(packet).map_or(UNSURE, |shard| shard.0);
            }
            let mut handed = 0;
            for (shard, mut packet) in shards.iter().zip(packets.drain(..count)) {
                if *shard == UNSURE {
                    self.handle_packet(now, packet, out);
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
    fn handle_packet<P: PassOn + Tell>(&mut self, now: Instant, mut packet: P::Buf, out: &mut P) {
        let class = match self.here().inspect(&packet) {
            Ok((_, class)) => class,
            Err(counter) => return self.counters.bump(counter),
        };
        let to = match class {
            Class::Liveness => return out.punt(Punt::Liveness, packet),
            Class::Master => return out.punt(Punt::Master, packet),
            Class::Drop(counter) => return self.counters.bump(counter),
            Class::Mirror(worker) => worker,
            Class::Service { key, shard } => return self.place(now, packet, &key, shard, out),
            Class::Fragment { designated } => owner_of(designated, self.workers),
            Class::Routed { shard } => owner_of(shard, self.workers),
        };
        self.counters.bump(Counter::HandedOver);
        packet.set_handed(Handed::Plain);
        out.hand_over(to, packet);
    }

    /// As [`Distributor::handle_burst`], where packets may belong elsewhere than their hashes say: the store's lines for the
    /// whole burst are asked for before the first of them is looked at.
    fn spread_placed<P: PassOn + Tell>(&mut self, now: Instant, packets: &mut Vec<P::Buf>, out: &mut P) {
        while !packets.is_empty() {
            let count = packets.len().min(BURST_MAX);
            let mut keys = core::mem::take(&mut self.keys);
            for packet in &packets[..count] {
                let found = self.plain_key(packet);
                if let Some((key, _)) = &found {
                    self.placer.prefetch(key);
                }
                keys.push(found);
            }
            for (found, packet) in keys.drain(..).zip(packets.drain(..count)) {
                match found {
                    Some((key, natural)) => self.place(now, packet, &key, natural, out),
                    None => self.handle_packet(now, packet, out),
                }
            }
            self.keys = keys;
        }
    }

    /// Hands a packet to the worker that it belongs to.
    fn place<P: PassOn + Tell>(
        &mut self,
        now: Instant,
        mut packet: P::Buf,
        key: &Key,
        natural: ShardId,
        out: &mut P,
    ) {
        let (shard, handed) = match self.placer.look_up(now, key, true, &self.counters) {
            Place::Natural | Place::Chosen(_) => (natural, Handed::Plain),
            Place::Ignored => (natural, Handed::Shard(natural)),
            Place::Fresh(shard) => (shard, Handed::Shard(shard)),
            Place::Known(shard) => (shard, Handed::Known(shard)),
        };
        if !self.placer.flush(out) && matches!(handed, Handed::Shard(_)) {
            return self.counters.bump(Counter::DropTellFull);
        }
        self.counters.bump(Counter::HandedOver);
        packet.set_handed(handed);
        out.hand_over(self.owners.of(shard), packet);
    }

    /// The key of a packet of which a few words of its head say it, and the shard of its hash; as [`Distributor::note`].
    fn plain_key<B: Buffer>(&self, packet: &B) -> Option<(Key, ShardId)> {
        let head = packet.head();
        let natural = self.note(packet)?;
        let port = |at: usize| head.get(at..at + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
        let (protocol, src, dst, ports) = match head.first_chunk::<HEADERS_V4>() {
            Some(v4) if is_plain_v4(v4) => (v4[23], Address::v4(word(v4, 26)), Address::v4(word(v4, 30)), 34),
            Some(_) | None => {
                let v6: &[u8; HEADERS_V6] = head.first_chunk()?;
                (v6[20], Address::v6(word(v6, 22)), Address::v6(word(v6, 38)), 54)
            }
        };
        let key = Key { src, dst, src_port: port(ports)?, dst_port: port(ports + 2)?, vlan: 0, protocol };
        let by_source = self.services.all_by_source();
        Some((key, if by_source { natural } else { shard_of(&key, &self.services, &self.toeplitz) }))
    }

    /// Another lcore of this appliance told this.
    pub fn hear(&mut self, now: Instant, told: &Told) {
        self.placer.hear(now, told, &self.counters);
    }

    /// Once a turn: what timed out is forgotten, and what was learned is told.
    pub fn poll(&mut self, now: Instant, out: &mut impl Tell) {
        self.placer.poll(now, out);
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
