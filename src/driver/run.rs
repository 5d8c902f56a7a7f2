//! An appliance's life: started in order, run, left within two seconds.
//!
//! The order: secrets and state first, since nothing is lost yet if they are wrong; then
//! the EAL, buffers, ports, rings; then workers, the liveness thread and the control
//! interface. The process's first thread is the EAL's main lcore and becomes the master.

use core::fmt::Display;
use core::sync::atomic::{AtomicBool, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::thread::JoinHandle;

use dpdk::clock::tsc_hz;
use dpdk::lcore::{Job, LcoreId};
use dpdk::{Eal, Mempool};
use parking_lot::Mutex;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::base::counters::Counters;
use crate::base::ids::{PortId, Term, WorkerId};
use crate::base::limits::SHARDS;
use crate::base::time::{Duration, Instant};
use crate::config::checked::Checked;
use crate::config::snapshot::Snapshot;
use crate::control::Backend;
use crate::control::server::Server;
use crate::distributor::spread::{Distributor, DistributorSetup};
use crate::driver::backend::Appliance;
use crate::driver::broken::on_panic;
use crate::driver::clock::{Clock, std_duration};
use crate::driver::configuring::Published;
use crate::driver::dpdk_io::{DpdkIo, DpdkIoSetup};
use crate::driver::eal;
use crate::driver::events::EventLog;
use crate::driver::helpers::Helpers;
use crate::driver::idle::Idler;
use crate::driver::intake::Intake;
use crate::driver::lcore::Lcore;
use crate::driver::lease::{Lease, Turns};
use crate::driver::link;
use crate::driver::liveness::{Board, Liveness, LivenessSetup, Request};
use crate::driver::load::Loads;
use crate::driver::locked::ask_for_memory_to_stay;
use crate::driver::master::{MasterThread, MasterThreadSetup, POLL_INTERVAL};
use crate::driver::mbuf::Packet;
use crate::driver::nodes;
use crate::driver::ports;
use crate::driver::priority;
use crate::driver::provoked::Provoked;
use crate::driver::reload::{self, ReloadSetup, Reloader};
use crate::driver::rings;
use crate::driver::secrets::Secrets;
use crate::driver::service::ServiceManager;
use crate::driver::sharing::share_out;
use crate::driver::spreading::SpreadingLcore;
use crate::driver::state::{self, TermWriter};
use crate::driver::witness::link::WitnessLink;
use crate::failover::{self, Failover, FailoverSetup, Operator};
use crate::master::{Master, MasterSetup};
use crate::mirror;
use crate::seal::member::VERSIONS;
use crate::seal::{MemberInfo, Mirroring, Tracked};
use crate::wire::MacAddress;
use crate::worker::{Worker, WorkerSetup};

/// A leaving appliance hands over in this time, or leaves without.
const LEAVE_MAX: Duration = Duration::from_millis(1500);
/// For the last frames of a leaving appliance to be sent.
const LAST_FRAMES: Duration = Duration::from_millis(5);
/// One in which a thread failed gets so much longer to say so than packets may be under way.
const BROKEN_LEAVE_MAX: Duration = Duration::from_millis(50);
/// Workers end their loops in this time, or are left to the end of the process.
const WORKERS_END_MAX: Duration = Duration::from_millis(300);

/// Runs an appliance until a signal ends it. `text` is what the file at `path` said, and `checked` what that comes to. An
/// error is a sentence for the operator.
pub fn run(path: &Path, text: &str, checked: &Checked) -> Result<(), String> {
    let lease = Arc::new(Lease::default());
    let broken = Arc::new(AtomicBool::new(false));
    let signalled = Arc::new(AtomicBool::new(false));
    on_panic(&lease, &broken);
    for signal in [SIGTERM, SIGINT] {
        // The second one leaves at once.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&signalled))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&signalled)))
            .map_err(sentence)?;
    }
    let hung_up = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGHUP, Arc::clone(&hung_up)).map_err(sentence)?;
    let provoked = Provoked::from_environment().map_err(sentence)?;
    log::info!(
        "baton {} with {}: {} (node {})",
        env!("CARGO_PKG_VERSION"),
        dpdk::eal::version(),
        checked.appliance.name,
        checked.appliance.node
    );
    let mut manager = ServiceManager::from_environment();
    let clock = Clock::start();
    let secrets = Secrets::gather(checked.mirror.as_ref()).map_err(sentence)?;
    if checked.mirror.is_some() {
        log::info!("sealing: {}", secrets.keys.sentence());
    }
    let left = state::open(&checked.failover.state_dir).map_err(sentence)?;
    let terms = TermWriter::start(&checked.failover.state_dir, &left).map_err(sentence)?;

    let events = Arc::new(EventLog::new(checked.appliance.node, clock));
    // Before the EAL pins this thread to its CPU: commands run where the operator started this process.
    let mut helpers = Helpers::start(checked, clock, &events, &broken).map_err(sentence)?;

    // What is made later goes earlier; the EAL's memory goes last.
    let eal = Eal::init(eal::arguments("baton", &checked.eal, &checked.lcores, &checked.ports))
        .map_err(sentence)?;
    let shared = Shared {
        clock,
        snapshot: Arc::new(Snapshot { generation: 1, checked: checked.clone() }),
        lease: Arc::clone(&lease),
        board: Board::new(Arc::clone(&broken)),
        events,
        provoked,
    };
    let file = File { path, text };
    let made = assemble(&eal, &shared, secrets, left, terms, &mut helpers, &file)?;
    ask_for_memory_to_stay();
    let backend: Arc<dyn Backend> = Arc::new(made.backend);
    let control = Server::control(&checked.control.socket, Arc::clone(&backend)).map_err(sentence)?;
    let metrics = checked
        .control
        .metrics
        .map(|address| Server::metrics(address, Arc::clone(&backend)))
        .transpose()
        .map_err(sentence)?;
    drop(backend);

    let stop = Arc::new(AtomicBool::new(false));
    let mut jobs = Vec::new();
    let ending = Ending { stop: Arc::clone(&stop), board: Arc::clone(&shared.board) };
    for (lcore, number) in made.lcores.into_iter().zip(0..) {
        let (name, provoked) = (format!("worker{number}"), shared.provoked.clone());
        let stop = Arc::clone(provoked.flag(&name).unwrap_or(&stop));
        let id = LcoreId(eal::lcore_of(WorkerId(number)));
        let run = move || {
            run_lcore(lcore, &stop);
            provoked.panic_if_asked(&name);
        };
        jobs.push(eal.launch(id, run).map_err(sentence)?);
    }
    let liveness = made.liveness.start().map_err(sentence)?;
    let mut master = MasterThread::new(made.master);
    let (reloader, reloading) = made.reloader;
    let turned = catch_unwind(AssertUnwindSafe(|| {
        let asked = Asked { signalled: &signalled, hung_up: &hung_up, reloader: &reloader };
        serve(&mut master, &shared, &mut manager, &asked);
    }));
    if turned.is_err() {
        // Others say what is to be said.
        let by = shared.clock.now() + broken_leave_max(checked);
        while !shared.board.may_exit.load(Ordering::Acquire) && shared.clock.now() < by {
            std::thread::sleep(std_duration(POLL_INTERVAL));
        }
        std::thread::sleep(std_duration(LAST_FRAMES));
    }

    lease.revoke();
    drop(ending);
    if !ended(&jobs) {
        log::error!("a worker does not end its loop: leaving all the same");
        std::process::exit(1);
    }
    drop((control, metrics));
    // What went wrong in them was said by the panic's hook.
    let _ = liveness.join();
    jobs.into_iter().for_each(|job| drop(job.join()));
    drop(master);
    drop(reloader);
    let _ = reloading.join();
    drop(eal);
    let failed = turned.is_err() || broken.load(Ordering::SeqCst);
    helpers.end();
    if failed {
        return Err("a thread failed, see the log: this is a defect of baton".to_owned());
    }
    log::info!("ended");
    Ok(())
}

/// What all parts of an appliance hold.
struct Shared {
    clock: Clock,
    snapshot: Arc<Snapshot>,
    lease: Arc<Lease>,
    board: Arc<Board>,
    events: Arc<EventLog>,
    provoked: Provoked,
}

/// How long a packet may be under way from the last look at the lease: a standby serves no sooner after the lease.
fn pause_max(checked: &Checked) -> Duration {
    checked.failover.takeover_after - checked.failover.lease
}

/// After a thread failed, the appliance leaves its group in this time, or without a word.
fn broken_leave_max(checked: &Checked) -> Duration {
    pause_max(checked) + BROKEN_LEAVE_MAX
}

/// Ends the loops of all threads when dropped, also when a start fails half-way.
struct Ending {
    stop: Arc<AtomicBool>,
    board: Arc<Board>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.board.stop.store(true, Ordering::SeqCst);
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// The configuration file at the start.
struct File<'f> {
    path: &'f Path,
    text: &'f str,
}

/// What signals ask for.
struct Asked<'a> {
    /// To end.
    signalled: &'a AtomicBool,
    /// To read the configuration file again.
    hung_up: &'a AtomicBool,
    /// Who does that.
    reloader: &'a Reloader,
}

/// The parts of an appliance, before any of them runs but who reads the configuration file again.
struct Made {
    lcores: Vec<Loop>,
    liveness: Liveness,
    master: MasterThreadSetup,
    backend: Appliance,
    reloader: (Reloader, JoinHandle<()>),
}

/// What an lcore runs.
enum Loop {
    Worker(Box<Lcore<DpdkIo>>),
    Distributor(Box<SpreadingLcore<Intake>>),
}

fn run_lcore(lcore: Loop, stop: &AtomicBool) {
    priority::ask_for_precedence("a worker");
    // Rests of some microseconds are to be no longer than that.
    if let Err(error) = nix::sys::prctl::set_timerslack(1) {
        log::warn!("a worker's timer cannot be made precise: {error}");
    }
    match lcore {
        Loop::Worker(lcore) => lcore.run(stop),
        Loop::Distributor(lcore) => lcore.run(stop),
    }
}

/// Whether all workers left their loops in time.
fn ended(jobs: &[Job<'_, ()>]) -> bool {
    let clock = Clock::start();
    while jobs.iter().any(|job| !job.is_finished()) {
        if clock.uptime() > WORKERS_END_MAX {
            return false;
        }
        std::thread::sleep(std_duration(POLL_INTERVAL));
    }
    true
}

/// The master's loop, until the appliance left its group.
fn serve(master: &mut MasterThread, shared: &Shared, manager: &mut ServiceManager, asked: &Asked<'_>) {
    let mut leave_by = Instant::FAR_FUTURE;
    let mut broken = false;
    loop {
        let now = shared.clock.now();
        shared.provoked.panic_if_asked("master");
        master.turn(now);
        if shared.board.broken.load(Ordering::SeqCst) && !broken {
            broken = true;
            leave_by = leave_by.min(now + broken_leave_max(&shared.snapshot.checked));
            log::error!("a thread failed: leaving the group");
        }
        if asked.hung_up.swap(false, Ordering::SeqCst) {
            asked.reloader.ask();
        }
        if asked.signalled.load(Ordering::SeqCst) && leave_by == Instant::FAR_FUTURE {
            log::info!("asked to end: leaving the group");
            // Nobody waits for the answer: `may_exit` tells.
            let (answer, _) = sync_channel(1);
            shared.board.requests.lock().push_back(Request { operator: Operator::Shutdown, answer });
            leave_by = now + LEAVE_MAX;
        }
        manager.turn(now, leave_by != Instant::FAR_FUTURE, || shared.board.standing());
        if shared.board.may_exit.load(Ordering::Acquire) {
            // What the liveness thread said last, and then what the master says to that.
            std::thread::sleep(std_duration(LAST_FRAMES));
            master.turn(shared.clock.now());
            std::thread::sleep(std_duration(LAST_FRAMES));
            return;
        }
        if now >= leave_by {
            let why = if broken { "a thread failed" } else { "it took too long" };
            log::warn!("left without a handover: {why}");
            return;
        }
        std::thread::sleep(std_duration(POLL_INTERVAL));
    }
}

fn assemble(
    eal: &Eal,
    shared: &Shared,
    secrets: Secrets,
    left: state::State,
    terms: TermWriter,
    helpers: &mut Helpers,
    file: &File<'_>,
) -> Result<Made, String> {
    let checked = &shared.snapshot.checked;
    let workers = checked.lcores.managers();
    let lcore_count = checked.lcores.workers.len();
    let now = shared.clock.now();
    let pool =
        Mempool::new(eal, "packets", &ports::pool_config(&checked.eal, &checked.ports)).map_err(sentence)?;
    let owned = share_out(eal, checked, &pool, secrets.toeplitz.key())?;
    let ports = checked.ports.len() as u16;
    let ends = rings::make(eal, ports, workers, lcore_count as u16 - workers, checked.distributor.remembers)
        .map_err(sentence)?;
    let turns: Vec<Arc<Turns>> = (0..lcore_count).map(|_| Arc::default()).collect();
    let counters: Vec<Arc<Counters>> = (0..lcore_count + 2).map(|_| Arc::default()).collect();
    let (of_liveness, of_master) = (&counters[lcore_count], &counters[lcore_count + 1]);

    let nodes = nodes::of(checked, &owned.ports);
    let mut lcores = Vec::new();
    let mut last_seen = Vec::new();
    let mut rx = owned.rx.into_iter();
    let parts = ends.workers.into_iter().zip(&mut rx).zip(owned.outboxes).zip(owned.relays);
    for (number, (((ends, rx), outboxes), relays)) in parts.enumerate() {
        let id = WorkerId(number as u16);
        let mut worker = Worker::<Packet>::new(WorkerSetup {
            id,
            workers,
            boot: secrets.boot,
            snapshot: Arc::clone(&shared.snapshot),
            link_addresses: owned.macs.clone(),
            toeplitz: Arc::clone(&secrets.toeplitz),
            balance_secret: secrets.balance,
            hash_seed: secrets.hash_seed,
            seed: secrets.seed.wrapping_add(u64::from(id.0)),
            boot_parity: left.boots.map(|boots| boots & 1 == 1),
            now,
            hold_packets_max: (checked.eal.buffers / 4 / u32::from(workers)) as usize,
            fragments_waiting_max: (checked.eal.buffers / 8 / u32::from(workers)) as usize,
            counters: Arc::clone(&counters[number]),
            variant: mirror::Variant::default(),
        })
        .map_err(|error| error.to_string())?;
        worker.know_nodes(now, &nodes);
        worker.populate();
        last_seen.push((id, worker.flows().last_seen.clone()));
        let world = DpdkIo::new(DpdkIoSetup {
            worker: id,
            pool: pool.clone(),
            clock: shared.clock,
            lease: Arc::clone(&shared.lease),
            counters: Arc::clone(&counters[number]),
            rx,
            outboxes,
            relays,
            ends,
        });
        let idler = Idler::new(checked.lcores.idle);
        lcores.push(Loop::Worker(Box::new(Lcore::new(worker, world, idler, Arc::clone(&turns[number])))));
    }
    for ((ends, rx), number) in ends.distributors.into_iter().zip(rx).zip(usize::from(workers)..) {
        let distributor = Distributor::new(DistributorSetup {
            snapshot: Arc::clone(&shared.snapshot),
            workers,
            link_addresses: owned.macs.clone(),
            toeplitz: Arc::clone(&secrets.toeplitz),
            me: WorkerId(number as u16),
            hash_seed: secrets.hash_seed,
            now,
            counters: Arc::clone(&counters[number]),
        })
        .map_err(|error| error.to_string())?;
        let site = Intake::new(rx, ends.passing, pool.clone(), shared.clock, Arc::clone(&counters[number]))
            .told_by(ends.orders, ends.spent);
        let idler = Idler::new(checked.lcores.idle);
        let lcore = SpreadingLcore::new(distributor, site, idler, Arc::clone(&turns[number]));
        lcores.push(Loop::Distributor(Box::new(lcore)));
    }

    let master = Master::new(MasterSetup {
        snapshot: Arc::clone(&shared.snapshot),
        link_addresses: owned.macs.clone(),
        last_seen,
        distributors: lcore_count as u16 - workers,
        now,
        seed: secrets.seed,
    });
    if master.addresses_unadvertised() > 0 {
        log::warn!(
            "{} addresses do not fit into VRRP advertisements and are not named there",
            master.addresses_unadvertised()
        );
    }
    let failover = Failover::new(failover_setup(shared, &secrets, left, &owned.macs, of_liveness), now);
    let liveness = Liveness::new(LivenessSetup {
        failover,
        ends: ends.liveness,
        clock: shared.clock,
        lease: Arc::clone(&shared.lease),
        turns: turns.clone(),
        pause_max: pause_max(checked),
        terms,
        witness: checked.failover.witness.map(WitnessLink::new),
        fencer: helpers.take_fencer(),
        board: Arc::clone(&shared.board),
        announcements: master.announcements().to_vec(),
        provoked: shared.provoked.clone(),
    });
    let (questions, asked) = channel();
    let (configurations, configured) = channel();
    let published = Published::new(Arc::clone(&shared.snapshot));
    let ([by_control, by_signals, by_master], reloading) = reload::start(ReloadSetup {
        path: file.path.to_owned(),
        started: file.text.to_owned(),
        published: Arc::clone(&published),
        configurations,
        questions: questions.clone(),
        board: Arc::clone(&shared.board),
        events: Arc::clone(&shared.events),
        keys: Mutex::new(secrets.keys),
    })
    .map_err(sentence)?;
    let kind = |number: usize| if number < usize::from(workers) { "worker" } else { "distributor" };
    let names = (0..lcore_count)
        .map(|number| format!("{}{number}", kind(number)))
        .chain(["liveness".into(), "master".into()]);
    let loads = Arc::new(Loads::new(turns.clone(), tsc_hz(eal)));
    let backend = Appliance {
        published,
        reloader: by_control,
        clock: shared.clock,
        board: Arc::clone(&shared.board),
        turns_seen: Mutex::new(vec![0; turns.len()]),
        loads: Arc::clone(&loads),
        counters: names.zip(counters.iter().cloned()).chain(helpers.counters()).collect(),
        events: Arc::clone(&shared.events),
        toeplitz: secrets.toeplitz,
        pool: pool.clone(),
        queues: owned.queues,
        provoked: shared.provoked.clone(),
        questions: Mutex::new(questions),
    };
    let master = MasterThreadSetup {
        master,
        links: link::of_all(checked, &owned.ports),
        tracked: checked.failover.track.ports.clone(),
        script: helpers.results(),
        ends: ends.master,
        outboxes: owned.master,
        ports: owned.ports,
        pool,
        counters: Arc::clone(of_master),
        events: Arc::clone(&shared.events),
        loads,
        questions: asked,
        configurations: configured,
        reloader: by_master,
        board: Arc::clone(&shared.board),
        notifier: helpers.notifier(),
    };
    Ok(Made { lcores, liveness, master, backend, reloader: (by_signals, reloading) })
}

fn failover_setup(
    shared: &Shared,
    secrets: &Secrets,
    left: state::State,
    macs: &[[u8; 6]],
    counters: &Arc<Counters>,
) -> FailoverSetup {
    let checked = &shared.snapshot.checked;
    let mirror = checked.mirror.as_ref();
    let workers = checked.lcores.managers();
    let ports = macs.iter().zip(0..).map(|(mac, number)| failover::PortSetup {
        id: PortId(number),
        mac: MacAddress(*mac),
        mirror: mirror.is_some_and(|mirror| mirror.port == PortId(number)),
    });
    FailoverSetup {
        member: MemberInfo {
            group: checked.appliance.group,
            node: checked.appliance.node,
            boot: secrets.boot,
            version_min: VERSIONS.0,
            version_max: VERSIONS.1,
            capabilities: 0,
            workers,
            shards: SHARDS as u16,
            hash_keys: secrets.hash_keys,
            udp_port: mirror.map_or(0, |mirror| mirror.udp_port),
            generation: shared.snapshot.generation,
            // The check of the file lets no more through than there may be.
            mirroring: Mirroring {
                tracked: mirror.and_then(|mirror| Tracked::only(&mirror.only)).unwrap_or_default(),
                is_periodic: mirror.is_some_and(|mirror| mirror.maintenance_every.is_some()),
            },
        },
        peers: mirror.iter().flat_map(|mirror| &mirror.peers).map(|peer| peer.node).collect(),
        ports: ports.collect(),
        config: checked.failover.clone(),
        keys: secrets.keys.clone(),
        reserved: Term { counter: left.reserved, node: checked.appliance.node },
        workers: workers.into(),
        lcores: checked.lcores.workers.len(),
        counters: Arc::clone(counters),
        variant: failover::Variant::default(),
    }
}

/// An error in its own words.
fn sentence(error: impl Display) -> String {
    error.to_string()
}
