//! Six standard bursts: what a worker does most, on plain buffers.
//!
//! Only [`standard_burst`] is counted. What goes in is made before and what comes out is looked at after;
//! every packet must have been carried, so that a burst cannot become cheap by dropping.

use baton::base::ids::{PortId, ShardId, WorkerId};
use baton::base::io::{Io, PassOn, Punt, TxClass};
use baton::base::limits::BURST_MAX;
use baton::base::rng::Rng;
use baton::base::time::{Duration, Instant};
use baton::distributor::tell::Tell;
use baton::driver::memory::{PlainBuffer, SharedPlainBuffer};
use baton::worker::Worker;

use crate::bench::*;
use crate::pair::*;

/// One of them.
pub struct StandardBurst {
    pub name: &'static str,
    pub what: &'static str,
    run: fn() -> u64,
}

impl StandardBurst {
    /// Runs it; how many packets were counted.
    pub fn run(&self) -> u64 {
        (self.run)()
    }
}

/// All of them. Settled flows are established, known to the standby, and send in both directions.
pub const BURSTS: [StandardBurst; 6] = [
    StandardBurst {
        name: "full-nat-udp",
        what: "settled flows, UDP over IPv4, full NAT",
        run: || settled("10.1.0.102", 53, false),
    },
    StandardBurst {
        name: "full-nat-tcp",
        what: "settled flows, TCP over IPv4, full NAT",
        run: || settled("10.1.0.101", 80, true),
    },
    StandardBurst {
        name: "nat-tcp",
        what: "settled flows, TCP over IPv4, NAT",
        run: || settled("10.1.0.100", 80, true),
    },
    StandardBurst {
        name: "full-nat-tcp-v6",
        what: "settled flows, TCP over IPv6, full NAT",
        run: || settled("fd01::101", 80, true),
    },
    StandardBurst { name: "first", what: "a new flow with every packet, full NAT, not mirrored", run: first },
    StandardBurst {
        name: "mirrored",
        what: "SYNs and FINs, full NAT: each packet changes a flow, which is sealed, sent and acknowledged",
        run: mirrored,
    },
];

/// Settled flows, between which packets are spread at random.
const FLOWS: u16 = 1000;
/// The first client port.
pub const FIRST_PORT: u16 = 20_000;
/// Turns of settled flows and of first packets.
const TURNS: usize = 64;
/// Rounds of connections: three turns each, those of the packets that the standby is told of.
const ROUNDS: u16 = 16;
/// From one turn to the next.
pub const TURN: Duration = Duration::from_micros(10);
/// The same where frames are to leave in each: longer than a frame waits to become full.
const FRAME_TURN: Duration = Duration::from_micros(600);

/// One turn of a worker's loop: the packets of each source, then its own work.
#[inline(never)]
fn standard_burst(
    worker: &mut Worker<PlainBuffer>,
    now: Instant,
    sources: &mut [Vec<PlainBuffer>],
    io: &mut Kept,
) {
    for source in sources.iter_mut().filter(|source| !source.is_empty()) {
        worker.handle_burst(now, source, io);
    }
    worker.poll(now, io);
}

/// A world that does next to nothing: buffers come from a store and go into another.
pub struct Kept {
    spare: Vec<PlainBuffer>,
    sent: Vec<(PortId, PlainBuffer)>,
}

impl Kept {
    pub fn new() -> Kept {
        Kept { spare: Vec::new(), sent: Vec::with_capacity(8 * BURST_MAX) }
    }

    fn refill(&mut self) {
        self.spare.resize_with(BURST_MAX, PlainBuffer::new);
    }
}

impl PassOn for Kept {
    type Buf = PlainBuffer;

    fn punt(&mut self, to: Punt, packet: PlainBuffer) {
        panic!("no packet is for {to:?}: {packet:?}");
    }

    fn hand_over(&mut self, to: WorkerId, _packet: PlainBuffer) {
        panic!("there is no worker {to}");
    }

    fn mark(&mut self, to: WorkerId, _: ShardId) -> bool {
        panic!("there is no worker {to}");
    }
}

impl Tell for Kept {}

impl Io for Kept {
    type Shared = SharedPlainBuffer;

    fn alloc(&mut self) -> Option<PlainBuffer> {
        self.spare.pop()
    }

    fn send(&mut self, port: PortId, packet: PlainBuffer, _class: TxClass) {
        self.sent.push((port, packet));
    }

    fn clone_shared(&mut self, packet: &PlainBuffer) -> Option<SharedPlainBuffer> {
        panic!("no packet is sent twice: {packet:?}");
    }

    fn send_shared(&mut self, port: PortId, packet: SharedPlainBuffer, _class: TxClass) {
        panic!("no packet is sent twice: {packet:?} by {port}");
    }
}

/// As a port gives it: an Ethernet frame is never shorter than 60 bytes (IEEE 802.3 section 3.2.8).
pub fn received(port: PortId, packet: &Packet) -> PlainBuffer {
    let mut frame = packet.bytes();
    frame.resize(frame.len().max(60), 0);
    frame_received(port, &frame)
}

/// Does a turn, and gives back what left, as it is on the wire.
pub fn turn(
    bench: &mut Bench,
    io: &mut Kept,
    after: Duration,
    sources: &mut [Vec<PlainBuffer>],
) -> Vec<Sent> {
    io.refill();
    bench.now += after;
    standard_burst(&mut bench.worker, bench.now, sources, io);
    let class = TxClass::Service;
    let sent = io.sent.drain(..).map(|(port, mut packet)| {
        packet.finish().expect("what is asked of the port makes sense");
        Sent { port, bytes: packet.to_bytes(), class }
    });
    let sent = sent.collect();
    drop(bench.events());
    sent
}

/// The flows of ports from [`FIRST_PORT`] on, open and known to the standby: of each a client's and a server's packet.
fn opened(pair: &mut Pair, to: &str, to_port: u16, is_tcp: bool) -> Vec<[Packet; 2]> {
    let flags = |flags| is_tcp.then_some(flags);
    let mut flows = Vec::new();
    // A few at a time: some are held until they are acknowledged.
    for port in FIRST_PORT..FIRST_PORT + FLOWS {
        let first = from_client(port, to, to_port, flags(SYN));
        let mut sent = pair.active.handle(CLIENT_PORT, &first.bytes());
        sent.extend(pair.exchange(2));
        let there = only(&sent, SERVER_PORT, TxClass::Service);
        let answer = there.answer(flags(SYN_ACK));
        only(&pair.active.handle(SERVER_PORT, &answer.bytes()), CLIENT_PORT, TxClass::Service);
        let data = from_client(port, to, to_port, flags(ACK));
        only(&pair.active.handle(CLIENT_PORT, &data.bytes()), SERVER_PORT, TxClass::Service);
        flows.push([data, there.answer(flags(ACK))]);
    }
    pair.exchange(100);
    let status = pair.active.status();
    assert_eq!((status.flows, status.protected), (FLOWS.into(), FLOWS.into()), "settled");
    flows
}

fn settled(to: &str, to_port: u16, is_tcp: bool) -> u64 {
    let mut pair = Pair::in_sync();
    let flows = opened(&mut pair, to, to_port, is_tcp);
    let (mut rng, mut io, mut carried) = (Rng::with_seed(1), Kept::new(), 0);
    for count in 0..TURNS {
        // Turns of both directions, one after the other, as two ports would give them.
        let side = count % 2;
        let (from, back) = [(CLIENT_PORT, SERVER_PORT), (SERVER_PORT, CLIENT_PORT)][side];
        let draw = |_| received(from, &flows[rng.usize(..flows.len())][side]);
        let packets: Vec<PlainBuffer> = (0..BURST_MAX).map(draw).collect();
        let sent = turn(&mut pair.active, &mut io, TURN, &mut [packets]);
        carried += sent.iter().filter(|sent| sent.port == back).count();
    }
    assert_eq!(carried, TURNS * BURST_MAX, "every packet went on");
    carried as u64
}

fn first() -> u64 {
    let mut bench = Bench::active();
    let (mut io, mut carried) = (Kept::new(), 0);
    let mut ports = FIRST_PORT..;
    for _ in 0..TURNS {
        let syn = |port| received(CLIENT_PORT, &from_client(port, "10.1.0.103", 80, Some(SYN)));
        let packets: Vec<PlainBuffer> = ports.by_ref().take(BURST_MAX).map(syn).collect();
        let sent = turn(&mut bench, &mut io, TURN, &mut [packets]);
        carried += sent.iter().filter(|sent| sent.port == SERVER_PORT).count();
    }
    assert_eq!(carried, TURNS * BURST_MAX, "every packet went on");
    assert_eq!(bench.status().flows, carried as u64, "and made a flow");
    carried as u64
}

fn mirrored() -> u64 {
    let mut pair = Pair::in_sync();
    let (mut io, mut carried) = (Kept::new(), 0);
    // What the standby answers arrives with the next turn's packets.
    let mut answers = Vec::new();
    let mut go = |pair: &mut Pair, from: PortId, packets: &[Packet]| -> Vec<Packet> {
        let packets = packets.iter().map(|packet| received(from, packet)).collect();
        let mut sources = [std::mem::take(&mut answers), packets];
        let (frames, sent) = split(turn(&mut pair.active, &mut io, FRAME_TURN, &mut sources));
        assert!(!frames.is_empty(), "the changes were sent");
        let mut heard = Vec::new();
        for frame in frames {
            heard.extend(pair.standby.handle(MIRROR_PORT, &to(&frame.bytes, 2)));
        }
        heard.extend(pair.standby.poll_after(1));
        answers = heard.iter().map(|frame| frame_received(MIRROR_PORT, &to(&frame.bytes, 1))).collect();
        assert!(!answers.is_empty(), "and acknowledged");
        carried += sent.len();
        sent.iter().map(|sent| Packet::read(&sent.bytes)).collect()
    };
    for round in 0..ROUNDS {
        let ports = (FIRST_PORT..).skip(usize::from(round) * BURST_MAX).take(BURST_MAX);
        let with = |flags| {
            ports
                .clone()
                .map(move |port| from_client(port, "10.1.0.101", 80, Some(flags)))
                .collect::<Vec<_>>()
        };
        let there = go(&mut pair, CLIENT_PORT, &with(SYN));
        let back = |flags| there.iter().map(|packet| packet.answer(Some(flags))).collect::<Vec<_>>();
        for (port, packets) in [(SERVER_PORT, back(SYN_ACK)), (CLIENT_PORT, with(ACK))] {
            packets.iter().for_each(|packet| drop(pair.active.handle(port, &packet.bytes())));
        }
        go(&mut pair, SERVER_PORT, &back(FIN_ACK));
        go(&mut pair, CLIENT_PORT, &with(FIN_ACK));
    }
    assert_eq!(carried, 3 * usize::from(ROUNDS) * BURST_MAX, "every packet went on");
    pair.exchange(5);
    let flows = u64::from(ROUNDS) * BURST_MAX as u64;
    assert_eq!((pair.active.status().protected, pair.standby.status().flows), (flows, flows));
    carried as u64
}
