//! Which worker a packet of a service is for, and which shard a new flow gets (REQ D1, D2, E2): by hash, or as the
//! [`Placer`](crate::distributor::place::Placer) knows.
//!
//! A packet is looked for in this worker's table first: a flow that is here is here whatever else is said. Then in the
//! connection store. What nobody knows goes to the home of its key, which is the owner of the shard of its hash, and the home
//! may choose. A packet that was sent on for a flow that is here no longer goes back to its home, behind the word that
//! the flow has ended: so no packet goes round in circles, and none begins a second flow with its key.

use arrayvec::ArrayVec;

use crate::base::buffer::{Buffer, Handed};
use crate::base::counters::Counter;
use crate::base::ids::ShardId;
use crate::base::io::Io;
use crate::base::time::Instant;
use crate::distributor::classify::shard_of;
use crate::distributor::place::{Place, Placer};
use crate::distributor::services::Services;
use crate::distributor::store::Store;
use crate::distributor::tell::{Tell, Told};
use crate::distributor::zones::Nodes;
use crate::flow::entry::FlowFlags;
use crate::flow::key::{Key, TCP};
use crate::flow::toeplitz::Toeplitz;
use crate::flow::{Flow, FlowIndex};
use crate::wire::parse::{Network, Notes, Parsed};
use crate::worker::packet::segment_of;
use crate::worker::{Origin, Worker};

/// What is to be done with a packet.
enum Way {
    /// It is handled here; a flow that it begins has this shard.
    Here(ShardId),
    /// The owner of the shard, or of the other one, handles it, and hears this of it.
    To(ShardId, Handed),
    /// It is dropped.
    Drop(Counter),
}

impl<B: Buffer> Worker<B> {
    /// Says on which NUMA nodes CPUs and ports are, before the first packet.
    pub fn know_nodes(&mut self, now: Instant, nodes: &Nodes) {
        self.placer.know_nodes(now, &self.tables.snapshot.checked, nodes);
    }

    /// Whether keys may have to be remembered: only then others tell anything.
    pub fn remembers(&self) -> bool {
        self.placer.is_in_use()
    }

    /// This lcore's connection store, for reports; `None`: no keys have to be remembered.
    pub fn placer_store(&self) -> Option<&Store> {
        self.placer.store()
    }

    /// Another lcore of this appliance told this.
    pub fn hear(&mut self, now: Instant, told: &Told) {
        self.placer.hear(now, told, &self.counters);
    }

    /// Says whether this appliance serves, as it is before what other lcores told is drained: see
    /// [`Placer::set_serves`](crate::distributor::place::Placer::set_serves).
    pub fn set_serves(&mut self, serves: bool) {
        self.placer.set_serves(serves);
    }

    /// How busy this worker has been lately, of 1,000.
    pub fn set_busy(&mut self, per_mille: u16) {
        self.busy_per_mille = per_mille;
    }

    /// A packet of a service, whose key is known, wherever it came from.
    pub(super) fn handle_placed<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        packet: B,
        parsed: &Parsed,
        key: Key,
        natural: ShardId,
        io: &mut I,
    ) {
        let way = if self.placer.is_in_use() {
            self.way(now, &packet, parsed, &key, natural, io)
        } else if self.owners.of(natural) == self.id {
            Way::Here(natural)
        } else {
            Way::To(natural, Handed::Plain)
        };
        match way {
            Way::Here(shard) => self.handle_service(now, packet, parsed, key, shard, io),
            Way::To(shard, handed) => {
                if self.owners.of(shard) == self.id {
                    // It would go round in circles: a map of owners that has changed meanwhile.
                    return self.counters.bump(Counter::DropNoFlow);
                }
                // Of a fragment the ports are written by now.
                self.give_to_owner(shard, packet, handed, parsed.is_fragment(), io);
            }
            Way::Drop(counter) => self.counters.bump(counter),
        }
    }

    fn way(
        &mut self,
        now: Instant,
        packet: &B,
        parsed: &Parsed,
        key: &Key,
        natural: ShardId,
        io: &mut impl Tell,
    ) -> Way {
        if let Some((index, _)) = self.flows.table.lookup(key) {
            return match self.on_its_way(index) {
                Some(shard) => Way::To(shard, Handed::Known(shard)),
                None => Way::Here(natural),
            };
        }
        let is_mine = |shard| self.owners.of(shard) == self.id;
        let handed = if self.origin == Origin::Port { Handed::Plain } else { packet.handed() };
        let refreshes = !parsed.notes.has(Notes::FRAGMENT_LATER);
        match handed {
            Handed::Shard(shard) if is_mine(shard) => {
                return Way::Here(self.placer.spread(key, natural, shard, &self.owners));
            }
            Handed::Shard(shard) | Handed::Known(shard) if !is_mine(shard) => return Way::To(shard, handed),
            Handed::Known(shard) => {
                // Its flow has ended. Who sent it here will have heard so before this packet comes to its home.
                if !self.placer.has_room(io) {
                    return Way::Drop(Counter::DropTellFull);
                }
                self.placer.forget(now, &[*key], shard);
                self.placer.flush(io);
                if !is_mine(natural) {
                    return Way::To(natural, Handed::Plain);
                }
            }
            Handed::Shard(_) | Handed::Plain | Handed::Marker(_) => {}
        }
        let place = self.placer.look_up(now, key, refreshes, &self.counters);
        if !self.placer.flush(io) && matches!(place, Place::Fresh(_)) {
            return Way::Drop(Counter::DropTellFull);
        }
        let is_mine = |shard| self.owners.of(shard) == self.id;
        match place {
            Place::Chosen(_) if !is_mine(natural) => Way::To(natural, Handed::Plain),
            Place::Fresh(shard) if is_mine(shard) => {
                Way::Here(self.placer.spread(key, natural, shard, &self.owners))
            }
            Place::Chosen(shard) if is_mine(shard) => Way::Here(shard),
            Place::Fresh(shard) | Place::Chosen(shard) => Way::To(shard, Handed::Shard(shard)),
            Place::Known(shard) if !is_mine(shard) => Way::To(shard, Handed::Known(shard)),
            // Of a flow that is not here any more, though nobody said so: a shard that is moving. As if nothing was known.
            Place::Known(_) | Place::Natural if is_mine(natural) => {
                self.choose(now, packet, parsed, key, natural, io)
            }
            Place::Known(_) | Place::Natural => Way::To(natural, Handed::Plain),
            Place::Ignored if is_mine(natural) => Way::Here(natural),
            Place::Ignored => Way::To(natural, Handed::Shard(natural)),
        }
    }

    /// At the home of a key that nobody knows.
    fn choose(
        &mut self,
        now: Instant,
        packet: &B,
        parsed: &Parsed,
        key: &Key,
        natural: ShardId,
        io: &mut impl Tell,
    ) -> Way {
        let listener = self.tables.services.listener(key.dst, key.dst_port, key.protocol);
        let Some(method) = listener.and_then(|listener| self.placer.choice(listener)) else {
            return Way::Here(natural);
        };
        let is_later = parsed.notes.has(Notes::FRAGMENT_LATER);
        let begins = key.protocol != TCP || segment_of(packet.head(), parsed).may_begin_flow();
        if is_later || !begins || self.begins_none() {
            return Way::Here(natural); // It begins nothing, and is dropped or waits as such packets do.
        }
        if !self.placer.has_room(io) {
            return Way::Drop(Counter::DropTellFull);
        }
        let asked = (dscp(packet.head(), parsed), packet.rx().port);
        match self.placer.choose(now, key, natural, method, asked, &self.owners) {
            Ok(shard) if self.owners.of(shard) == self.id => Way::Here(shard),
            Ok(shard) => {
                self.counters.bump(Counter::KeysChosen);
                self.placer.flush(io);
                Way::To(shard, Handed::Shard(shard))
            }
            Err(counter) => Way::Drop(counter),
        }
    }

    /// The keys of a flow that neither their hashes nor what is configured leads to its shard for sure.
    pub(super) fn keys_elsewhere(&self, flow: &Flow) -> ArrayVec<Key, 2> {
        let keys = [&flow.client, &flow.server];
        keys_elsewhere(&self.placer, flow.shard, keys, &self.tables.services, &self.toeplitz)
    }

    /// Remembers a new flow's keys, where that is needed, before its first packet leaves; whether it was. If there is no room
    /// the flow is none.
    pub(super) fn remember(
        &mut self,
        now: Instant,
        index: FlowIndex,
        flow: &Flow,
        io: &mut impl Tell,
    ) -> Result<bool, Counter> {
        if !self.placer.is_in_use() {
            return Ok(false);
        }
        let keys = self.keys_elsewhere(flow);
        if keys.is_empty() {
            return Ok(false);
        }
        let room = if self.placer.has_room(io) { Ok(()) } else { Err(Counter::DropTellFull) };
        match room.and_then(|()| self.placer.hold(now, &keys, flow.shard)) {
            Ok(()) => {
                self.flows.table.set_flag(index, FlowFlags::REMEMBERED, true);
                self.watched.begin(index);
                self.placer.flush(io);
                Ok(true)
            }
            Err(counter) => {
                self.end_flow(now, index);
                Err(counter)
            }
        }
    }

    /// Takes back what was remembered of a flow that has ended.
    pub(super) fn forget_keys(&mut self, now: Instant, flow: &Flow) {
        if flow.flags.contains(FlowFlags::REMEMBERED) {
            let keys = self.keys_elsewhere(flow);
            self.placer.forget(now, &keys, flow.shard);
        }
    }
}

/// Those keys of a flow that neither their hashes nor what is configured leads to its shard for sure.
pub(super) fn keys_elsewhere(
    placer: &Placer,
    shard: ShardId,
    keys: [&Key; 2],
    services: &Services,
    toeplitz: &Toeplitz,
) -> ArrayVec<Key, 2> {
    let is_elsewhere = |key: &&Key| placer.has_to_remember(key, shard_of(key, services, toeplitz), shard);
    keys.into_iter().filter(is_elsewhere).copied().collect()
}

/// The DSCP of an IP packet (RFC 2474): the upper six bits of type of service or traffic class.
pub(super) fn dscp(head: &[u8], parsed: &Parsed) -> u8 {
    let at = parsed.l3_offset();
    match (parsed.network, head.get(at..at + 2)) {
        (Network::Ipv4, Some(&[_, class])) => class >> 2,
        (Network::Ipv6, Some(&[version, class])) => (version << 4 | class >> 4) >> 2,
        _ => 0,
    }
}
