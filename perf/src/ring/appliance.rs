//! The appliance that is measured: the loop that runs in production ([`Lcore`] on [`DpdkIo`]),
//! on ring devices.
//!
//! A ring device has queues that lead back to themselves: what is sent on its queue `q` is
//! received on its queue `q`. The appliance receives on queue 0 and sends on queue 1; the
//! harness holds the other ends. Queues 2 and 3 are alike, for the reference. Queue 4 leads to a distributor, where there
//! is one.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use arrayvec::ArrayVec;
use baton::base::counters::{Counter, Counters};
use baton::base::ids::{BootId, NodeId, PortId, Term, WorkerId};
use baton::base::limits::BURST_MAX;
use baton::base::time::{Duration, Instant};
use baton::config::checked::{Checked, Idle};
use baton::config::snapshot::Snapshot;
use baton::distributor::spread::{Distributor, DistributorSetup};
use baton::driver::clock::Clock;
use baton::driver::dpdk_io::{DpdkIo, DpdkIoSetup};
use baton::driver::idle::Idler;
use baton::driver::intake::Intake;
use baton::driver::lcore::Lcore;
use baton::driver::lease::{Lease, Turns};
use baton::driver::mbuf::{Packet, TxAbilities};
use baton::driver::outbox::Outbox;
use baton::driver::rings::{self, Frame, LivenessEnds, MasterEnds};
use baton::driver::rss::{Ends, Wish};
use baton::driver::spreading::SpreadingLcore;
use baton::driver::{eal, ports};
use baton::failover::WorkerReport;
use baton::flow::aging::LastSeen;
use baton::flow::toeplitz::{MICROSOFT_KEY, Toeplitz};
use baton::mirror::Variant;
use baton::seal::Session;
use baton::traffic::routes::NextHop;
use baton::worker::message::{Command, Event, Role, WorkerStatus};
use baton::worker::{Worker, WorkerSetup};
use dpdk::{Burst, Eal, Mbuf, Mempool, Port, RxQueue, TxQueue, mempool};

use crate::ring::config::{self, BUFFERS, CLIENT, GATEWAY, MIRROR, SERVER, SERVERS, member};
use crate::ring::lines::Lines;
use crate::ring::plan::Plan;

/// The members' own link addresses, of every port.
pub const LINK_ADDRESSES: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

/// The link address of the clients' router.
pub const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];

/// A real server's link address.
pub const fn server_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 2, number]
}

/// What the appliance leads under.
pub const TERM: Term = Term { counter: 1, node: NodeId(1) };

/// Packets that wait in a ring device's queue at most.
pub const RING_MAX: usize = 1023;

/// Starts DPDK's environment as baton does for this plan.
pub fn start(plan: &Plan) -> Result<Eal> {
    start_all(&[plan])
}

/// As [`start`], for several appliances with ring devices of their own.
pub fn start_all(plans: &[&Plan]) -> Result<Eal> {
    let (mut ports, mut memory) = (Vec::new(), 0);
    let mut last = None;
    for plan in plans {
        let checked = config::config(plan, 1, 1000)?;
        ports.extend(checked.ports.iter().cloned());
        memory += checked.eal.memory_mb;
        last = Some(checked);
    }
    let checked = last.context("no appliance")?;
    let memory = baton::config::checked::Eal { memory_mb: memory, ..checked.eal };
    let arguments = eal::arguments("baton-perf", &memory, &checked.lcores, &ports);
    Eal::init(arguments).map_err(|error| anyhow!("{error} (are hugepages reserved? perf/run does it)"))
}

/// The harness's ends of a pair of queues.
pub struct Wire {
    /// What is sent here is received by the other side.
    pub tx: TxQueue,
    /// What the other side sends is received here.
    pub rx: RxQueue,
}

impl Wire {
    /// Takes what is there, at most one burst.
    pub fn take(&mut self) -> Burst<BURST_MAX> {
        let mut burst = Burst::new();
        self.rx.receive(&mut burst);
        burst
    }
}

/// An open ring device: who has which end of its queues.
struct Opened {
    port: Port,
    abilities: TxAbilities,
    own: (RxQueue, TxQueue),
    wire: Wire,
    swap: (RxQueue, TxQueue),
    swap_wire: Wire,
    spread: (RxQueue, TxQueue),
}

/// A pair of ports that are not the appliance's, for the reference.
pub struct Swap {
    /// By port: what it receives from and sends by.
    pub ports: Vec<(RxQueue, TxQueue)>,
    /// By port.
    pub wires: Vec<Wire>,
}

impl Swap {
    /// One turn of the reference: a burst of each port, link addresses swapped, out by the other.
    #[inline]
    pub fn turn(&mut self) {
        for from in 0..2 {
            let mut burst = Burst::<BURST_MAX>::new();
            self.ports[from].0.receive(&mut burst);
            swap_all(&mut burst);
            self.ports[1 - from].1.send(&mut burst);
        }
    }

    /// The same, and lines of memory for each packet.
    #[inline]
    pub fn turn_with(&mut self, lines: &mut Lines) {
        for from in 0..2 {
            let mut burst = Burst::<BURST_MAX>::new();
            self.ports[from].0.receive(&mut burst);
            let touched = lines.prefetch(burst.len());
            swap_all(&mut burst);
            lines.touch(&touched);
            self.ports[1 - from].1.send(&mut burst);
        }
    }
}

#[inline(always)]
fn swap_all(burst: &mut Burst<BURST_MAX>) {
    for mbuf in burst {
        if let Some((to, from)) = mbuf.head_mut().get_mut(..12).map(|both| both.split_at_mut(6)) {
            to.swap_with_slice(from);
        }
    }
}

/// What there is on the ring devices.
pub struct Devices {
    /// Where the appliance and its peer make packets.
    pub pool: Mempool,
    /// Where the generator does: buffers that are zeros behind its frames' heads.
    frames: Mempool,
    /// The reference's part.
    pub swap: Swap,
    opened: Option<Vec<Parts>>,
    _ports: Vec<Port>,
}

/// The appliance's part of a port.
struct Parts {
    own: (RxQueue, TxQueue),
    /// What a distributor receives from, and what the harness sends to it by.
    spread: (RxQueue, TxQueue),
    abilities: TxAbilities,
    wire: Wire,
}

impl Devices {
    /// Opens the three ports of a configuration; the generator has so many buffers.
    pub fn open(eal: &Eal, checked: &Checked, buffers: u32) -> Result<Devices> {
        let config = ports::pool_config(&checked.eal, &checked.ports);
        // There may be others in the process.
        let first = checked.ports.first().map_or("", |port| port.device.as_str());
        let pool = Mempool::new(eal, &format!("packets-{first}"), &config)?;
        let frames = Mempool::new(eal, &format!("frames-{first}"), &mempool::Config { buffers, ..config })?;
        clear(&frames)?;
        let (mut opened, mut held) = (Vec::new(), Vec::new());
        let (mut swap_ports, mut swap_wires) = (Vec::new(), Vec::new());
        // A ring has queues and no hash.
        let wish = Wish { ends: Ends::Both, key: &MICROSOFT_KEY };
        for (config, number) in checked.ports.iter().zip(0..) {
            let open = ports::open(eal, PortId(number), config, ports::Queues::both(5), wish, &pool)?;
            let one = split(open).with_context(|| format!("port {}", config.name))?;
            if number != MIRROR.0 {
                swap_ports.push(one.swap);
                swap_wires.push(one.swap_wire);
            }
            opened.push(Parts { own: one.own, spread: one.spread, abilities: one.abilities, wire: one.wire });
            held.push(one.port);
        }
        let swap = Swap { ports: swap_ports, wires: swap_wires };
        Ok(Devices { pool, frames, swap, opened: Some(opened), _ports: held })
    }

    /// A packet of this many bytes, its head written by the caller.
    pub fn make(&self, len: usize, write: impl FnOnce(&mut [u8])) -> Result<Mbuf> {
        let mut mbuf = self.frames.alloc().context("the pool has no buffer left")?;
        mbuf.set_len(len).map_err(|error| anyhow!("{error}"))?;
        write(mbuf.head_mut());
        Ok(mbuf)
    }
}

/// Fills every buffer of a pool with zeros.
fn clear(pool: &Mempool) -> Result<()> {
    let mut all = Vec::new();
    while let Some(mut mbuf) = pool.alloc() {
        let room = usize::from(pool.data_room()) - mbuf.headroom();
        mbuf.set_len(room).map_err(|error| anyhow!("{error}"))?;
        mbuf.head_mut().fill(0);
        all.push(mbuf);
    }
    Ok(())
}

fn split(open: ports::OpenPort) -> Result<Opened> {
    let few = |_| anyhow!("a ring device without five queues");
    let [rx_own, rx_wire, rx_swap, rx_swap_wire, rx_spread] =
        <[RxQueue; 5]>::try_from(open.rx).map_err(few)?;
    let few = |_| anyhow!("a ring device without five queues");
    let [tx_wire, tx_own, tx_swap_wire, tx_swap, tx_spread] =
        <[TxQueue; 5]>::try_from(open.tx).map_err(few)?;
    Ok(Opened {
        port: open.port,
        abilities: open.tx_abilities,
        own: (rx_own, tx_own),
        wire: Wire { tx: tx_wire, rx: rx_wire },
        swap: (rx_swap, tx_swap),
        swap_wire: Wire { tx: tx_swap_wire, rx: rx_swap_wire },
        spread: (rx_spread, tx_spread),
    })
}

/// What a worker of a member is made from.
pub fn worker_setup(
    checked: Checked,
    node: u16,
    now: Instant,
    counters: &Arc<Counters>,
) -> Result<WorkerSetup> {
    let toeplitz = Toeplitz::new(&MICROSOFT_KEY).map_err(|error| anyhow!("{error:?}"))?;
    Ok(WorkerSetup {
        id: WorkerId(0),
        workers: 1,
        boot: BootId(u64::from(node)),
        snapshot: Arc::new(Snapshot { generation: 1, checked }),
        link_addresses: vec![LINK_ADDRESSES[usize::from(node) - 1]; 3],
        toeplitz: Arc::new(toeplitz),
        balance_secret: [7; 16],
        hash_seed: 0x9e37_79b9_7f4a_7c15,
        seed: u64::from(node),
        boot_parity: None,
        now,
        hold_packets_max: (BUFFERS / 4) as usize,
        fragments_waiting_max: (BUFFERS / 8) as usize,
        counters: Arc::clone(counters),
        variant: Variant::Sound,
    })
}

/// The neighbours that a member knows, as the master would tell its worker.
pub fn neighbours(node: u16) -> Vec<Command> {
    let servers = (0..SERVERS).map(|n| (SERVER, config::server(n).address, server_mac(n)));
    let peer = (MIRROR, member(3 - node), LINK_ADDRESSES[usize::from(2 - node)]);
    let all = servers.chain([(CLIENT, GATEWAY, GATEWAY_MAC), peer]);
    let tell = |(port, address, link): (PortId, core::net::Ipv4Addr, [u8; 6])| Command::Neighbour {
        hop: NextHop { port, address: address.into() },
        link: Some(link),
    };
    all.map(tell).collect()
}

/// A distributor with an lcore of its own, and a ring from it to the worker.
struct Spread {
    lcore: SpreadingLcore<Intake>,
    /// What the harness sends to whoever does not receive at the moment, by port.
    tx: Vec<TxQueue>,
    /// Whether packets come by the distributor.
    in_use: bool,
    counters: Arc<Counters>,
}

/// The appliance.
pub struct Appliance {
    /// The worker's; elsewhere while [`Appliance::lend`] has given it away.
    lcore: Option<Box<Lcore<DpdkIo>>>,
    /// A distributor beside the worker.
    spread: Option<Spread>,
    /// What the worker says of its turns.
    pub turns: Arc<Turns>,
    /// The harness's ends, by port.
    pub wires: Vec<Wire>,
    /// The clock that it reads.
    pub clock: Clock,
    /// What the master's sweep reads, by worker.
    pub last_seen: Vec<(WorkerId, LastSeen)>,
    liveness: LivenessEnds,
    master: MasterEnds,
    counters: Arc<Counters>,
    status: Option<WorkerStatus>,
    walk_done: bool,
}

impl Appliance {
    /// Member 1, which leads, alone as yet.
    pub fn start(
        eal: &Eal,
        devices: &mut Devices,
        checked: Checked,
        clock: Clock,
        distributor: bool,
    ) -> Result<Appliance> {
        let parts = devices.opened.take().context("the ports have an appliance already")?;
        let (mut rx, mut outboxes, mut wires) = (Vec::new(), Vec::new(), Vec::new());
        let (mut spread_rx, mut spread_tx) = (Vec::new(), Vec::new());
        for (part, number) in parts.into_iter().zip(0..) {
            rx.push((PortId(number), part.own.0));
            spread_rx.push((PortId(number), part.spread.0));
            spread_tx.push(part.spread.1);
            outboxes.push(Outbox::of_queue(part.own.1, part.abilities));
            wires.push(part.wire);
        }
        let counters = Arc::new(Counters::default());
        let mut ends = rings::make(eal, checked.ports.len() as u16, 1, u16::from(distributor), false)?;
        let setup = worker_setup(checked, 1, clock.now(), &counters)?;
        let spread = match ends.distributors.pop() {
            Some(ends) => {
                let counters = Arc::new(Counters::default());
                let distributor = Distributor::new(DistributorSetup {
                    snapshot: Arc::clone(&setup.snapshot),
                    workers: 1,
                    link_addresses: setup.link_addresses.clone(),
                    toeplitz: Arc::clone(&setup.toeplitz),
                    me: WorkerId(1),
                    hash_seed: setup.hash_seed,
                    now: setup.now,
                    counters: Arc::clone(&counters),
                })?;
                let pool = devices.pool.clone();
                let site = Intake::new(spread_rx, ends.passing, pool, clock, Arc::clone(&counters))
                    .told_by(ends.orders, ends.spent);
                let idler = Idler::new(Idle::Poll);
                let lcore = SpreadingLcore::new(distributor, site, idler, Arc::default());
                Some(Spread { lcore, tx: spread_tx, in_use: false, counters })
            }
            None => None,
        };
        let mut worker = Worker::<Packet>::new(setup)?;
        worker.populate();
        let last_seen = vec![(WorkerId(0), worker.flows().last_seen.clone())];
        let lease = Arc::new(Lease::default());
        lease.publish(clock.now() + Duration::from_secs(24 * 3600));
        let world = DpdkIo::new(DpdkIoSetup {
            worker: WorkerId(0),
            pool: devices.pool.clone(),
            clock,
            lease,
            counters: Arc::clone(&counters),
            rx,
            outboxes,
            relays: Vec::new(),
            ends: ends.workers.remove(0),
        });
        let turns = Arc::new(Turns::default());
        let lcore = Lcore::new(worker, world, Idler::new(Idle::Poll), Arc::clone(&turns));
        let mut appliance = Appliance {
            lcore: Some(Box::new(lcore)),
            spread,
            turns,
            wires,
            clock,
            last_seen,
            liveness: ends.liveness,
            master: ends.master,
            counters,
            status: None,
            walk_done: false,
        };
        for command in neighbours(1) {
            appliance.of_master(command)?;
        }
        appliance.of_liveness(Command::Role { epoch: 1, role: Role::Active, term: TERM })?;
        (0..4).for_each(|_| appliance.turn());
        appliance.listen();
        Ok(appliance)
    }

    /// One turn of its loop: what is measured. Where packets come by the distributor, one of its loop, and two of the worker's:
    /// the distributor takes a burst of each port, the worker a burst from the ring.
    #[inline]
    pub fn turn(&mut self) {
        let mut turns = 1;
        if let Some(spread) = self.spread.as_mut().filter(|spread| spread.in_use) {
            let _ = spread.lcore.turn();
            turns = 2;
        }
        if let Some(lcore) = &mut self.lcore {
            // It polls: it never rests.
            for _ in 0..turns {
                let _ = lcore.turn();
            }
        }
    }

    /// From now on packets come by the distributor, if there is one, or to the worker itself.
    pub fn divide(&mut self, divided: bool) {
        let Some(spread) = self.spread.as_mut().filter(|spread| spread.in_use != divided) else { return };
        spread.in_use = divided;
        for (wire, other) in self.wires.iter_mut().zip(&mut spread.tx) {
            core::mem::swap(&mut wire.tx, other);
        }
    }

    /// Gives the worker's loop away, to run elsewhere; [`Appliance::turn`] is the distributor's alone meanwhile.
    pub fn lend(&mut self) -> Option<Box<Lcore<DpdkIo>>> {
        self.lcore.take()
    }

    /// Takes the worker's loop back.
    pub fn take_back(&mut self, lcore: Box<Lcore<DpdkIo>>) {
        self.lcore = Some(lcore);
    }

    /// Says something in the master's name.
    pub fn of_master(&mut self, command: Command) -> Result<()> {
        self.master.commands[0].push_one(command).map_err(|_| anyhow!("too many commands wait"))
    }

    /// Says something in the liveness thread's name.
    pub fn of_liveness(&mut self, command: Command) -> Result<()> {
        self.liveness.commands[0].push_one(command).map_err(|_| anyhow!("too many commands wait"))
    }

    /// Has it lead or follow.
    pub fn take_role(&mut self, epoch: u64, role: Role, term: Term) -> Result<()> {
        self.of_liveness(Command::Role { epoch, role, term })
    }

    /// Whether it has just said that it has the role of this epoch.
    pub fn has_installed(&mut self, epoch: u64) -> bool {
        let said = core::iter::from_fn(|| self.liveness.reports[0].pop_one());
        said.filter(|report| matches!(report, WorkerReport::Installed { epoch: of, .. } if *of == epoch))
            .count()
            > 0
    }

    /// Has it send a frame in the liveness thread's name.
    pub fn send_frame(&mut self, frame: Frame) -> Result<()> {
        self.liveness.frames.push_one(frame).map_err(|_| anyhow!("too many frames wait"))
    }

    /// Takes what it says to the master and to the liveness thread.
    pub fn listen(&mut self) {
        while let Some(event) = self.master.events[0].pop_one() {
            if let Event::Status(status) = event {
                self.status = Some(*status);
            }
        }
        while let Some(report) = self.liveness.reports[0].pop_one() {
            if let WorkerReport::Sync { walk_done, .. } = report {
                self.walk_done = walk_done;
            }
        }
        while self.master.punted[0].pop_one().is_some() {}
        while self.liveness.heard[0].pop_one().is_some() {}
    }

    /// What was reported of the peer so far was of another session.
    pub fn forget_walk(&mut self) {
        self.listen();
        self.walk_done = false;
    }

    /// Whether the peer was named every flow, as last reported.
    pub fn walk_is_done(&self) -> bool {
        self.walk_done
    }

    /// What it says of itself.
    pub fn status(&mut self) -> Result<WorkerStatus> {
        self.status = None;
        self.of_master(Command::Status)?;
        for _ in 0..100 {
            self.turn();
            self.listen();
            if let Some(status) = self.status.take() {
                return Ok(status);
            }
        }
        bail!("the worker does not answer")
    }

    /// How often something was counted.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters.value(counter)
    }

    /// Packets that it dropped or could not send, by reason; none is expected.
    pub fn drops(&self) -> Vec<String> {
        let spread = self.spread.iter().flat_map(|spread| drops(&spread.counters));
        drops(&self.counters).into_iter().chain(spread).collect()
    }

    /// Agrees on keys with its peer.
    pub fn join(&mut self, session: Arc<Session>) -> Result<()> {
        self.of_liveness(Command::PeerSession { node: NodeId(2), session })
    }

    /// The peer is gone.
    pub fn lose_peer(&mut self) -> Result<()> {
        self.of_liveness(Command::PeerLost { node: NodeId(2) })
    }

    /// The peer's acknowledgement counts from now on.
    pub fn in_sync(&mut self) -> Result<()> {
        self.of_liveness(Command::InSync { epoch: 2, term: TERM, peers: vec![NodeId(2)] })
    }
}

/// Counters of drops that are not zero, as text.
pub fn drops(counters: &Counters) -> Vec<String> {
    let dropped = Counter::ALL.iter().filter(|counter| counter.name().starts_with("drop_"));
    let some = dropped.filter(|counter| counters.value(**counter) > 0);
    some.map(|counter| format!("{} {}", counter.name(), counters.value(*counter))).collect()
}

/// Sends all of these by a queue that has room for them.
pub fn send_all<T: dpdk::mbuf::Transmit>(
    tx: &mut TxQueue,
    packets: impl IntoIterator<Item = T>,
) -> Result<()> {
    let mut burst: ArrayVec<T, BURST_MAX> = ArrayVec::new();
    for packet in packets {
        burst.push(packet);
        if burst.is_full() {
            tx.send(&mut burst);
            if !burst.is_empty() {
                bail!("a ring device is full");
            }
        }
    }
    tx.send(&mut burst);
    if burst.is_empty() { Ok(()) } else { bail!("a ring device is full") }
}
