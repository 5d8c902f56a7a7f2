//! The peer: a standby's worker that applies what the appliance mirrors and acknowledges it,
//! for real, but outside of the timed window.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use baton::base::counters::{Counter, Counters};
use baton::base::ids::{BootId, GroupId, NodeId, PortId, WorkerId};
use baton::base::io::{Io, Punt, TxClass};
use baton::base::time::Instant;
use baton::config::checked::Checked;
use baton::driver::checksum::Capabilities;
use baton::driver::clock::Clock;
use baton::driver::mbuf::{Packet, SharedPacket, TxAbilities};
use baton::seal::handshake::{Handled, Handshake};
use baton::seal::{Key, MemberInfo, Session};
use baton::worker::Worker;
use baton::worker::message::{Command, Event, Role, WorkerStatus};
use dpdk::Mempool;
use dpdk::mbuf::Outgoing;

use crate::ring::appliance::{TERM, Wire, drops, neighbours, send_all, worker_setup};
use crate::ring::config::MIRROR;

/// The peer's world: what it sends is kept.
struct PeerIo {
    pool: Mempool,
    out: Vec<Outgoing>,
}

const ABILITIES: TxAbilities = TxAbilities { checksums: Capabilities::NONE, segments: true };

impl Io for PeerIo {
    type Buf = Packet;
    type Shared = SharedPacket;

    fn alloc(&mut self) -> Option<Packet> {
        Packet::alloc(&self.pool)
    }

    fn send(&mut self, _: PortId, packet: Packet, _: TxClass) {
        self.out.extend(packet.finish(&ABILITIES));
    }

    fn punt(&mut self, _: Punt, _: Packet) {}

    fn hand_over(&mut self, _: WorkerId, _: Packet) {}

    fn clone_shared(&mut self, packet: &Packet) -> Option<SharedPacket> {
        packet.share(&self.pool)
    }

    fn send_shared(&mut self, _: PortId, packet: SharedPacket, _: TxClass) {
        self.out.extend(packet.finish(&ABILITIES));
    }
}

/// The peer.
pub struct Peer {
    worker: Worker<Packet>,
    io: PeerIo,
    clock: Clock,
    counters: Arc<Counters>,
    packets: Vec<Packet>,
    /// TSC ticks spent on frames of the appliance and on answering them.
    pub ticks: u64,
}

impl Peer {
    /// Member 2, a standby.
    pub fn start(pool: &Mempool, checked: Checked, clock: Clock) -> Result<Peer> {
        let counters = Arc::new(Counters::default());
        let worker = Worker::new(worker_setup(checked, 2, clock.now(), &counters)?)?;
        let io = PeerIo { pool: pool.clone(), out: Vec::new() };
        let mut peer = Peer { worker, io, clock, counters, packets: Vec::new(), ticks: 0 };
        for command in neighbours(2) {
            peer.command(command);
        }
        peer.command(Command::Role { epoch: 1, role: Role::Standby, term: TERM });
        Ok(peer)
    }

    fn command(&mut self, command: Command) {
        self.worker.handle_command(self.clock.now(), command, &mut self.io);
    }

    /// Agrees on keys with the appliance.
    pub fn join(&mut self, session: Arc<Session>) {
        self.command(Command::PeerSession { node: NodeId(1), session });
    }

    /// Applies every frame that the appliance has sent; how many there were. The answers wait.
    pub fn hear(&mut self, wire: &mut Wire) -> usize {
        let mut heard = 0;
        loop {
            let burst = wire.take();
            let none = burst.is_empty();
            heard += burst.len();
            let begin = dpdk::clock::tsc();
            let now = self.clock.now();
            self.packets.extend(burst.into_iter().filter_map(|mbuf| Packet::received(mbuf, MIRROR)));
            self.worker.handle_burst(now, &mut self.packets, &mut self.io);
            self.worker.poll(now, &mut self.io);
            self.ticks += dpdk::clock::tsc() - begin;
            if none {
                break;
            }
        }
        while self.worker.poll_event().is_some() {}
        heard
    }

    /// Gives the answers to the appliance; how many there were.
    pub fn answer(&mut self, wire: &mut Wire) -> Result<usize> {
        let said = self.io.out.len();
        send_all(&mut wire.tx, self.io.out.drain(..))?;
        Ok(said)
    }

    /// What it says of itself.
    pub fn status(&mut self) -> Result<WorkerStatus> {
        self.command(Command::Status);
        let events = core::iter::from_fn(|| self.worker.poll_event());
        let status = events.filter_map(|event| match event {
            Event::Status(status) => Some(*status),
            _ => None,
        });
        status.last().context("the peer's worker does not answer")
    }

    /// Packets that it dropped, by reason, and frames and records that it did not take.
    pub fn failures(&self) -> Vec<String> {
        let refusals = [Counter::MirrorMalformed, Counter::MirrorRefused, Counter::MirrorWrongTerm];
        let refused = refusals.into_iter().filter(|counter| self.counters.value(*counter) > 0);
        let mut found = drops(&self.counters);
        found.extend(refused.map(|counter| format!("{} {}", counter.name(), self.counters.value(counter))));
        found
    }
}

fn member(node: u16) -> MemberInfo {
    MemberInfo {
        group: GroupId(0),
        node: NodeId(node),
        boot: BootId(u64::from(node)),
        version_min: baton::seal::member::VERSIONS.0,
        version_max: baton::seal::member::VERSIONS.1,
        capabilities: 0,
        workers: 1,
        shards: baton::base::limits::SHARDS as u16,
        hash_keys: 0,
        udp_port: 0,
        generation: 1,
    }
}

/// One session, as each of the two members sees it.
pub fn sessions() -> Result<(Arc<Session>, Arc<Session>)> {
    let key = Key::generate().map_err(|error| anyhow!("{error:?}"))?;
    let mut ours = Handshake::new(&key, member(1), NodeId(2));
    let mut theirs = Handshake::new(&key, member(2), NodeId(1));
    let hello = ours.poll(Instant::ZERO, true).context("no hello")?;
    let Handled::Reply(answer) = theirs.handle_hello(Instant::ZERO, &hello) else { bail!("no answer") };
    let Handled::Completed(session) = ours.handle_answer(&answer) else { bail!("no session") };
    Ok((session, theirs.confirm().context("no session at the peer")?))
}
