//! A member's worker without ports: what it is given it handles, what it sends is kept. The peer of
//! the measured appliance is one: it applies what is mirrored and acknowledges it, for real, but
//! outside of the timed window.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use baton::base::buffer::Buffer as _;
use baton::base::counters::{Counter, Counters};
use baton::base::ids::{BootId, GroupId, NodeId, PortId, ShardId, WorkerId};
use baton::base::io::{Io, PassOn, Punt, TxClass};
use baton::base::time::Instant;
use baton::config::checked::Checked;
use baton::distributor::tell::Tell;
use baton::driver::checksum::Capabilities;
use baton::driver::clock::Clock;
use baton::driver::mbuf::{Packet, SharedPacket, TxAbilities};
use baton::seal::handshake::{Handled, Handshake};
use baton::seal::{Key, MemberInfo, Session};
use baton::worker::Worker;
use baton::worker::message::{Command, Event, Role, WorkerStatus};
use dpdk::Mempool;

use crate::ring::appliance::{TERM, Wire, drops, neighbours, send_all, worker_setup};
use crate::ring::config::{CLIENT, MIRROR};
use crate::ring::flows::Flows;
use crate::ring::frames::flags::SYN;

/// Its world.
struct Kept {
    pool: Mempool,
    out: Vec<(PortId, Packet)>,
}

const ABILITIES: TxAbilities = TxAbilities { checksums: Capabilities::NONE, segments: true };

impl PassOn for Kept {
    type Buf = Packet;

    fn punt(&mut self, _: Punt, _: Packet) {}

    fn hand_over(&mut self, _: WorkerId, _: Packet) {}

    fn mark(&mut self, _: WorkerId, _: ShardId) -> bool {
        false
    }
}

impl Tell for Kept {}

impl Io for Kept {
    type Shared = SharedPacket;

    fn alloc(&mut self) -> Option<Packet> {
        Packet::alloc(&self.pool)
    }

    fn send(&mut self, port: PortId, packet: Packet, _: TxClass) {
        self.out.push((port, packet));
    }

    fn clone_shared(&mut self, packet: &Packet) -> Option<SharedPacket> {
        packet.share(&self.pool)
    }

    // Nothing that a member of these cases does is sent twice.
    fn send_shared(&mut self, _: PortId, _: SharedPacket, _: TxClass) {}
}

/// A member.
pub struct Member {
    node: u16,
    worker: Worker<Packet>,
    io: Kept,
    clock: Clock,
    counters: Arc<Counters>,
    packets: Vec<Packet>,
}

impl Member {
    /// Member 1 or 2 in a role, its neighbours known.
    pub fn start(pool: &Mempool, checked: Checked, clock: Clock, node: u16, role: Role) -> Result<Member> {
        let counters = Arc::new(Counters::default());
        let worker = Worker::new(worker_setup(checked, node, clock.now(), &counters)?)?;
        let io = Kept { pool: pool.clone(), out: Vec::new() };
        let mut member = Member { node, worker, io, clock, counters, packets: Vec::new() };
        for command in neighbours(node) {
            member.command(command);
        }
        member.command(Command::Role { epoch: 1, role, term: TERM });
        Ok(member)
    }

    fn command(&mut self, command: Command) {
        self.worker.handle_command(self.clock.now(), command, &mut self.io);
    }

    /// Agrees on keys with the other member.
    pub fn join(&mut self, session: Arc<Session>) {
        self.command(Command::PeerSession { node: NodeId(3 - self.node), session });
    }

    /// The other member's acknowledgement counts from now on.
    pub fn in_sync(&mut self) {
        self.command(Command::InSync { epoch: 2, term: TERM, peers: vec![NodeId(3 - self.node)] });
    }

    /// Handles a burst.
    pub fn handle(&mut self, burst: &mut Vec<Packet>) {
        self.worker.handle_burst(self.clock.now(), burst, &mut self.io);
    }

    /// The rest of a turn.
    pub fn turn(&mut self) {
        self.worker.poll(self.clock.now(), &mut self.io);
        while self.worker.poll_event().is_some() {}
    }

    /// Takes what it has sent, with the ports.
    pub fn take_out(&mut self) -> Vec<(PortId, Packet)> {
        std::mem::take(&mut self.io.out)
    }

    /// A mirror frame that the other member has sent comes in, copied as by a link.
    pub fn hear_copy(&mut self, frame: &(PortId, Packet)) -> Result<()> {
        let mut copies = self.copies(std::slice::from_ref(frame))?;
        self.handle(&mut copies);
        Ok(())
    }

    /// Applies every frame that the other member has sent by a wire; how many there were. The
    /// answers wait.
    pub fn hear(&mut self, wire: &mut Wire) -> usize {
        let mut heard = 0;
        loop {
            let burst = wire.take();
            let none = burst.is_empty();
            heard += burst.len();
            let now = self.clock.now();
            self.packets.extend(burst.into_iter().filter_map(|mbuf| Packet::received(mbuf, MIRROR)));
            self.worker.handle_burst(now, &mut self.packets, &mut self.io);
            self.turn();
            if none {
                return heard;
            }
        }
    }

    /// Has memory behind its tables, as the driver does before the first packet.
    pub fn populate(&mut self) {
        self.worker.populate();
    }

    /// Flows that it has.
    pub fn flows(&self) -> u64 {
        self.worker.flows().table.len() as u64
    }

    /// One turn of a member that goes on by itself: a burst, what is due, the answers; how many frames came.
    pub fn serve(&mut self, wire: &mut Wire) -> Result<usize> {
        let burst = wire.take();
        let heard = burst.len();
        if heard > 0 {
            let now = self.clock.now();
            self.packets.extend(burst.into_iter().filter_map(|mbuf| Packet::received(mbuf, MIRROR)));
            self.worker.handle_burst(now, &mut self.packets, &mut self.io);
        }
        self.worker.poll_promptly(self.clock.now(), &mut self.io);
        if !self.io.out.is_empty() {
            self.answer(wire)?;
        }
        if self.worker.poll_walks(self.clock.now(), &mut self.io) {
            self.answer(wire)?;
        }
        while self.worker.poll_event().is_some() {}
        Ok(heard)
    }

    /// Mirror frames that the other member has sent, copied as by a link.
    pub fn copies(&self, frames: &[(PortId, Packet)]) -> Result<Vec<Packet>> {
        let mut copies = Vec::with_capacity(frames.len());
        for (_, frame) in frames {
            let mut mbuf = self.io.pool.alloc().context("the pool has no buffer left")?;
            mbuf.set_len(frame.total_len()).map_err(|error| anyhow!("{error}"))?;
            mbuf.head_mut().copy_from_slice(frame.head());
            copies.extend(Packet::received(mbuf, MIRROR));
        }
        Ok(copies)
    }

    /// Gives the answers to the other member; how many there were.
    pub fn answer(&mut self, wire: &mut Wire) -> Result<usize> {
        let out = self.take_out();
        let said = out.len();
        let finished: Result<Vec<_>, _> =
            out.into_iter().map(|(_, packet)| packet.finish(&ABILITIES)).collect();
        send_all(&mut wire.tx, finished.map_err(|error| anyhow!("{error:?}"))?)?;
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
        status.last().context("the worker does not answer")
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

/// First packets of these flows, as they come from clients.
pub fn first_packets(pool: &Mempool, flows: &Flows, numbers: core::ops::Range<u32>) -> Result<Vec<Packet>> {
    let mut burst = Vec::new();
    for number in numbers {
        let mut mbuf = pool.alloc().context("the pool has no buffer left")?;
        mbuf.set_len(64).map_err(|error| anyhow!("{error}"))?;
        // A buffer that was a mirror frame is not zeros behind a frame's head.
        mbuf.head_mut().fill(0);
        flows.forth(number, 0, SYN).write(mbuf.head_mut());
        burst.extend(Packet::received(mbuf, CLIENT));
    }
    Ok(burst)
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
        mirroring: Default::default(),
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
