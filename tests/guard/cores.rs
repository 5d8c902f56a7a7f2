//! The same work on one, two and four lcores: a packet may not cost more for there being more of them (REQ E1).
//!
//! Settled flows, as many for each worker, and each worker is given packets of its own flows, in both directions. What is
//! counted is every worker's part, or the distributor's: taking a burst and handing each packet to its worker. The rings between
//! them are not in it: `perf/run hop` has those.

use std::fmt;

use baton::base::ids::{PortId, ShardId, WorkerId};
use baton::base::io::{PassOn, Punt, TxClass};
use baton::base::limits::BURST_MAX;
use baton::base::rng::Rng;
use baton::base::time::Instant;
use baton::distributor::spread::{Distributor, DistributorSetup};
use baton::distributor::tell::Tell;
use baton::driver::memory::PlainBuffer;
use baton::flow::key::Address;
use baton::flow::shard::owner_of;
use baton::worker::Origin;

use crate::bench::*;
use crate::bursts::{FIRST_PORT, Kept, TURN, received, turn};

/// Whose instructions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Workers whose packets come by ports.
    Fused,
    /// Workers whose packets come from a distributor.
    Manager,
    /// The one distributor of so many workers.
    Distributor,
}

impl Part {
    pub const ALL: [Part; 3] = [Part::Fused, Part::Manager, Part::Distributor];

    pub const fn name(self) -> &'static str {
        match self {
            Part::Fused => "fused",
            Part::Manager => "manager",
            Part::Distributor => "distributor",
        }
    }

    pub const fn what(self) -> &'static str {
        match self {
            Part::Fused => "workers that receive themselves",
            Part::Manager => "workers that one distributor hands packets",
            Part::Distributor => "the one distributor of so many workers",
        }
    }
}

/// How many workers there are.
pub const WORKERS: [u16; 3] = [1, 2, 4];

/// A packet may cost so much more, or less, than with one worker, in percent.
pub const DIFFERENCE_MAX: f64 = 2.0;

/// The name of a run, as its process is told.
pub fn name(part: Part, workers: u16) -> String {
    format!("{}-{workers}", part.name())
}

/// Runs what a name says; how many packets were counted.
pub fn run(wanted: &str) -> Option<u64> {
    let all = Part::ALL.into_iter().flat_map(|part| WORKERS.map(|workers| (part, workers)));
    let (part, workers) = all.into_iter().find(|(part, workers)| name(*part, *workers) == wanted)?;
    Some(carried(part, workers))
}

/// Flows of each worker.
const FLOWS: usize = 250;
/// Turns of each worker, and turns of the distributor for each.
const TURNS: usize = 32;

/// One turn of a distributor's loop.
#[inline(never)]
fn distributor_standard_burst(
    distributor: &mut Distributor,
    now: Instant,
    packets: &mut Vec<PlainBuffer>,
    out: &mut Handed,
) {
    distributor.handle_burst(now, packets, out);
    distributor.poll(now, out);
}

/// What a distributor handed over, by worker.
struct Handed(Vec<Vec<PlainBuffer>>);

impl PassOn for Handed {
    type Buf = PlainBuffer;

    fn punt(&mut self, to: Punt, packet: PlainBuffer) {
        panic!("no packet is for {to:?}: {packet:?}");
    }

    fn hand_over(&mut self, WorkerId(to): WorkerId, packet: PlainBuffer) {
        self.0[usize::from(to)].push(packet);
    }

    fn mark(&mut self, to: WorkerId, shard: ShardId) -> bool {
        panic!("no shard moves: {shard} to {to}");
    }
}

impl Tell for Handed {}

/// A worker and its flows: of each a client's and a server's packet.
struct Lcore {
    bench: Bench,
    flows: Vec<[Packet; 2]>,
}

impl Lcore {
    fn new(id: u16, workers: u16, origin: Origin) -> Lcore {
        let (toeplitz, client) = (toeplitz(), Address::v4([10, 1, 0, 50]));
        let owned = |port: &u16| owner_of(toeplitz.shard_of(client, *port), workers) == WorkerId(id);
        let mut bench = Bench::new(1, id, workers).lead();
        bench.worker.set_origin(origin);
        let ports = (FIRST_PORT..).filter(owned).take(FLOWS);
        let flows = ports.map(|port| {
            let mut go =
                |from, to, packet: &Packet| only(&bench.handle(from, &packet.bytes()), to, TxClass::Service);
            let packet = |flags| from_client(port, "10.1.0.103", 80, Some(flags));
            let there = go(CLIENT_PORT, SERVER_PORT, &packet(SYN));
            go(SERVER_PORT, CLIENT_PORT, &there.answer(Some(SYN_ACK)));
            go(CLIENT_PORT, SERVER_PORT, &packet(ACK));
            [packet(ACK), there.answer(Some(ACK))]
        });
        Lcore { flows: flows.collect(), bench }
    }

    /// A burst of one direction, over its flows at random.
    fn burst(&self, side: usize, rng: &mut Rng) -> Vec<PlainBuffer> {
        let draw = |_| received(PORTS[side], &self.flows[rng.usize(..self.flows.len())][side]);
        (0..BURST_MAX).map(draw).collect()
    }
}

const PORTS: [PortId; 2] = [CLIENT_PORT, SERVER_PORT];

fn carried(part: Part, workers: u16) -> u64 {
    let origin = if part == Part::Fused { Origin::Port } else { Origin::Distributor };
    let mut lcores: Vec<_> = (0..workers).map(|id| Lcore::new(id, workers, origin)).collect();
    let (mut rng, mut io, mut count) = (Rng::with_seed(1), Kept::new(), 0);
    let mut now = Instant::from_millis(1000);
    let mut distributor = Distributor::new(DistributorSetup {
        snapshot: snapshot(1),
        workers,
        link_addresses: OWN_MACS.to_vec(),
        toeplitz: toeplitz(),
        me: WorkerId(workers),
        hash_seed: 5,
        now,
        counters: Default::default(),
    })
    .expect("memory");
    for turn_number in 0..TURNS {
        let side = turn_number % 2;
        let mut bursts: Vec<_> = lcores.iter().map(|lcore| lcore.burst(side, &mut rng)).collect();
        if part == Part::Distributor {
            // Packets of all workers' flows in every burst, in any order.
            let mut mixed: Vec<_> = bursts.drain(..).flatten().collect();
            rng.shuffle(&mut mixed);
            while !mixed.is_empty() {
                let mut handed = Handed((0..workers).map(|_| Vec::with_capacity(BURST_MAX)).collect());
                let mut packets = mixed.split_off(mixed.len() - BURST_MAX);
                now += TURN;
                distributor_standard_burst(&mut distributor, now, &mut packets, &mut handed);
                count += handed.0.iter().map(Vec::len).sum::<usize>();
            }
            continue;
        }
        for (lcore, packets) in lcores.iter_mut().zip(bursts) {
            let sent = turn(&mut lcore.bench, &mut io, TURN, &mut [packets]);
            count += sent.iter().filter(|sent| sent.port == PORTS[1 - side]).count();
        }
    }
    assert_eq!(count, TURNS * BURST_MAX * usize::from(workers), "every packet went on");
    count as u64
}

/// What a packet costs with each number of workers.
pub struct Scaling {
    pub part: Part,
    /// Instructions per packet, in the order of [`WORKERS`].
    pub per_packet: [f64; WORKERS.len()],
}

impl Scaling {
    /// More, or less, than with one worker, in percent.
    fn differences(&self) -> [f64; WORKERS.len()] {
        self.per_packet.map(|cost| 100.0 * (cost - self.per_packet[0]) / self.per_packet[0])
    }

    /// It costs the same, however many there are.
    pub fn passed(&self) -> bool {
        self.differences().iter().all(|difference| difference.abs() <= DIFFERENCE_MAX)
    }
}

impl fmt::Display for Scaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16}", self.part.name())?;
        for ((workers, cost), difference) in WORKERS.iter().zip(self.per_packet).zip(self.differences()) {
            write!(f, " {workers}: {cost:.1} ({difference:+.1} %)")?;
        }
        let word = if self.passed() { "ok" } else { "OVER" };
        write!(f, "  {word:<5} {}", self.part.what())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_carries_all_its_packets_with_any_number_of_workers() {
        for part in Part::ALL {
            for workers in WORKERS {
                let packets = run(&name(part, workers)).expect("a name of a run");
                assert_eq!(packets, (TURNS * BURST_MAX) as u64 * u64::from(workers));
            }
        }
        assert_eq!(run("fused-3"), None);
    }

    #[test]
    fn more_than_two_percent_more_or_less_than_with_one_worker_fails() {
        let scaling = |per_packet| Scaling { part: Part::Fused, per_packet };
        assert!(scaling([300.0, 305.9, 294.1]).passed());
        let over = scaling([300.0, 300.0, 306.1]);
        assert!(!over.passed() && !scaling([300.0, 293.9, 300.0]).passed());
        let text = over.to_string();
        assert!(text.contains("4: 306.1 (+2.0 %)") && text.contains("OVER"), "{text}");
    }
}
