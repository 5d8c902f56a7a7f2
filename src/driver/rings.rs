//! The rings that join an appliance's threads: `rte_ring`s, each with one thread that puts
//! in and one that takes out, made once after the EAL's start (REQ E8).
//!
//! No thread ever waits at one: what does not fit is dropped and counted, or kept by its
//! sender. Liveness frames and all that the liveness thread says and hears pass by value,
//! so that this thread never takes a buffer from a pool, where it could have to wait for
//! a thread that it has interrupted.

use core::sync::atomic::{AtomicU32, Ordering};

use dpdk::Running;
use dpdk::ring::{Consumer, Producer};

use crate::base::ids::{NodeId, PortId, WorkerId};
use crate::base::io::TxClass;
use crate::config::mirrored::Edition;
use crate::distributor::spread::{Lookup, Order};
use crate::distributor::tell::Told;
use crate::driver::mbuf::Packet;
use crate::failover::{FrameBytes, Happened, WorkerReport};
use crate::worker::message::{Command, Event};

/// Packets that wait between two threads; more are dropped and counted.
const PACKETS: u32 = 1024;
/// Liveness frames that wait to be sent; more are dropped and counted.
const FRAMES: u32 = 256;
/// Liveness frames that came by one port to one lcore, and wait; more are dropped and counted. Peers send some in ten
/// milliseconds, and a round comes each millisecond. Each port has its own ring: a flood on one LAN must not crowd out what
/// comes by the others, or a leader would seem silent.
const FRAMES_OF_PORT: u32 = 64;
/// What one lcore has told another and it has not heard; then no more new keys are remembered.
const TOLD: u32 = 4096;
/// Commands, reports and events that wait; senders keep or count what does not fit.
const MESSAGES: u32 = 1024;
/// Moves of shards and other configurations that wait: the master begins none before the last one is over.
const ORDERS: u32 = 8;

/// A liveness frame or an announcement, by value.
#[derive(Debug)]
pub struct Frame {
    /// By which port it came, or goes.
    pub port: PortId,
    /// In whose name it goes.
    pub class: TxClass,
    /// All of it.
    pub bytes: FrameBytes,
}

/// From the liveness thread to the master.
#[derive(Debug)]
pub enum News {
    /// This appliance leads from now on, or does not.
    Role {
        /// Whether it leads.
        active: bool,
    },
    /// Something happened.
    Event(Happened),
    /// The leader's services: see [`Output::Services`](crate::failover::Output::Services).
    Services {
        /// The leader.
        from: NodeId,
        /// Which they are.
        edition: Edition,
        /// What they are.
        text: Vec<u8>,
    },
}

/// What an lcore holds that only distributes.
pub struct DistributorEnds {
    /// Where packets go.
    pub passing: PassingEnds,
    /// Of the master: shards that move, and other configurations.
    pub orders: Consumer<Order>,
    /// For the master: what was looked up by before another configuration came.
    pub spent: Producer<Box<Lookup>>,
}

/// What every lcore holds that receives packets: where those go that are not for itself.
pub struct PassingEnds {
    /// To every other worker, by number: packets of its shards.
    pub hand_over: Vec<Option<Producer<Packet>>>,
    /// ARP, neighbour discovery, echo, VRRP.
    pub to_master: Producer<Packet>,
    /// Liveness frames that came, by the port that they came by.
    pub to_liveness: Vec<Producer<Frame>>,
    /// What is told to each other lcore; none where nothing has to be remembered.
    pub tell: Vec<Producer<Told>>,
    /// What each other lcore tells.
    pub heard: Vec<Consumer<Told>>,
}

/// What a worker holds.
pub struct WorkerEnds {
    /// Where packets go that are not for itself.
    pub passing: PassingEnds,
    /// From every distributor that has an lcore of its own.
    pub distributed: Vec<Consumer<Packet>>,
    /// From every other worker.
    pub handed: Vec<Consumer<Packet>>,
    /// Frames of the liveness thread to be sent; only the first worker has it.
    pub frames: Option<Consumer<Frame>>,
    /// Of the liveness thread, and of the master.
    pub commands: [Consumer<Command>; 2],
    /// For the liveness thread.
    pub reports: Producer<WorkerReport>,
    /// For the master.
    pub events: Producer<Event>,
}

/// What the liveness thread holds: by worker, but for `frames` and `news`.
pub struct LivenessEnds {
    /// Liveness frames that came, to workers and then to distributors; of each one by port.
    pub heard: Vec<Consumer<Frame>>,
    /// To be sent by the first worker, which owns a queue of every port.
    pub frames: Producer<Frame>,
    /// To each worker.
    pub commands: Vec<Producer<Command>>,
    /// Of each worker.
    pub reports: Vec<Consumer<WorkerReport>>,
    /// For the master.
    pub news: Producer<News>,
}

/// What the master holds: by worker, but for `news`.
pub struct MasterEnds {
    /// ARP, neighbour discovery, echo, VRRP; of workers and then of distributors.
    pub punted: Vec<Consumer<Packet>>,
    /// To each worker.
    pub commands: Vec<Producer<Command>>,
    /// To each lcore that only distributes.
    pub orders: Vec<Producer<Order>>,
    /// What each of them gave back.
    pub spent: Vec<Consumer<Box<Lookup>>>,
    /// Of each worker.
    pub events: Vec<Consumer<Event>>,
    /// Of the liveness thread.
    pub news: Consumer<News>,
}

/// The ends of all rings of an appliance.
pub struct Ends {
    /// By number.
    pub workers: Vec<WorkerEnds>,
    /// Of the lcores that only distribute.
    pub distributors: Vec<DistributorEnds>,
    /// For the liveness thread.
    pub liveness: LivenessEnds,
    /// For the master.
    pub master: MasterEnds,
}

/// Sets of rings made so far: names of rings are the whole process's, which may hold several appliances to measure them.
static SETS: AtomicU32 = AtomicU32::new(0);

fn ring<T: Send>(
    running: &Running,
    set: u32,
    name: &str,
    capacity: u32,
) -> Result<(Producer<T>, Consumer<T>), dpdk::Error> {
    dpdk::ring::ring(running, &format!("{name}-{set}"), capacity)
}

/// Makes the rings of an appliance with this many ports, workers, and lcores that only distribute.
///
/// `remembers`: lcores tell each other of connection keys.
pub fn make(
    running: &Running,
    ports: u16,
    workers: u16,
    distributors: u16,
    remembers: bool,
) -> Result<Ends, dpdk::Error> {
    let set = SETS.fetch_add(1, Ordering::Relaxed);
    let (to_first, frames) = ring(running, set, "frames", FRAMES)?;
    let (news, news_out) = ring(running, set, "news", MESSAGES)?;
    let mut liveness =
        LivenessEnds { heard: Vec::new(), frames: to_first, commands: Vec::new(), reports: Vec::new(), news };
    let mut master = MasterEnds {
        punted: Vec::new(),
        commands: Vec::new(),
        orders: Vec::new(),
        spent: Vec::new(),
        events: Vec::new(),
        news: news_out,
    };
    let mut frames = Some(frames);
    let mut ends = Vec::new();
    let mut passing = |lcore: u16| {
        let (to_master, punted) = ring(running, set, &format!("punt-{lcore}"), PACKETS)?;
        let mut to_liveness = Vec::new();
        for port in 0..ports {
            let (came, heard) = ring(running, set, &format!("heard-{lcore}-{port}"), FRAMES_OF_PORT)?;
            to_liveness.push(came);
            liveness.heard.push(heard);
        }
        master.punted.push(punted);
        Ok(PassingEnds { hand_over: Vec::new(), to_master, to_liveness, tell: Vec::new(), heard: Vec::new() })
    };
    let passing_workers = (0..workers).map(&mut passing).collect::<Result<Vec<_>, dpdk::Error>>()?;
    let mut spreading =
        (workers..workers + distributors).map(&mut passing).collect::<Result<Vec<_>, dpdk::Error>>()?;
    for (worker, passing) in (0..workers).map(WorkerId).zip(passing_workers) {
        let (by_liveness, of_liveness) = ring(running, set, &format!("liveness-command-{worker}"), MESSAGES)?;
        let (by_master, of_master) = ring(running, set, &format!("master-command-{worker}"), MESSAGES)?;
        let (reports, reported) = ring(running, set, &format!("report-{worker}"), MESSAGES)?;
        let (events, said) = ring(running, set, &format!("event-{worker}"), MESSAGES)?;
        liveness.commands.push(by_liveness);
        liveness.reports.push(reported);
        master.commands.push(by_master);
        master.events.push(said);
        ends.push(WorkerEnds {
            passing,
            distributed: Vec::new(),
            handed: Vec::new(),
            frames: frames.take(),
            commands: [of_liveness, of_master],
            reports,
            events,
        });
    }
    for from in 0..usize::from(workers) {
        for to in 0..usize::from(workers) {
            if from == to {
                ends[from].passing.hand_over.push(None);
                continue;
            }
            let (producer, consumer) = ring(running, set, &format!("hand-over-{from}-{to}"), PACKETS)?;
            ends[from].passing.hand_over.push(Some(producer));
            ends[to].handed.push(consumer);
        }
    }
    for (passing, from) in spreading.iter_mut().zip(workers..) {
        for (worker, to) in ends.iter_mut().zip(0..workers) {
            let (producer, consumer) = ring(running, set, &format!("distribute-{from}-{to}"), PACKETS)?;
            passing.hand_over.push(Some(producer));
            worker.distributed.push(consumer);
        }
    }
    if remembers {
        let of_workers = ends.iter_mut().map(|ends| &mut ends.passing);
        join(running, set, &mut of_workers.chain(&mut spreading).collect::<Vec<_>>())?;
    }
    let mut distributors = Vec::new();
    for (passing, number) in spreading.into_iter().zip(workers..) {
        let (by_master, orders) = ring(running, set, &format!("orders-{number}"), ORDERS)?;
        // What is given back before the master looks again, and what it had not taken yet.
        let (spent, given_back) = ring(running, set, &format!("spent-{number}"), 4 * ORDERS)?;
        master.orders.push(by_master);
        master.spent.push(given_back);
        distributors.push(DistributorEnds { passing, orders, spent });
    }
    Ok(Ends { workers: ends, distributors, liveness, master })
}

/// Gives each lcore a ring to each other one, for what they tell each other.
fn join(running: &Running, set: u32, lcores: &mut [&mut PassingEnds]) -> Result<(), dpdk::Error> {
    for from in 0..lcores.len() {
        for to in (0..lcores.len()).filter(|to| *to != from) {
            let (producer, consumer) = ring(running, set, &format!("tell-{from}-{to}"), TOLD)?;
            lcores[from].tell.push(producer);
            lcores[to].heard.push(consumer);
        }
    }
    Ok(())
}
