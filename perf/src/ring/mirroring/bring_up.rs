//! A walk to a peer on the other CPU that knows nothing, while first packets of new flows wait for its acknowledgement; and how
//! long such packets wait when there is no walk. Ring devices: a link without a delay of its own, and a peer that polls.
//!
//! Of the flows each tenth has had a packet just before the walk begins, the others not for seconds: a walk names the former first.

use anyhow::{Context as _, Result, ensure};
use baton::flow::FlowIndex;
use baton::flow::aging::TimeoutClass;
use core::sync::atomic::Ordering;
use dpdk::clock::{tsc, tsc_hz};
use std::collections::{HashMap, VecDeque};

use crate::case::{Case, Context};
use crate::figure::Figure;
use crate::link::latency::Delays;
use crate::regime;
use crate::ring::appliance::{self, send_all};
use crate::ring::bench::Bench;
use crate::ring::flows::Side;
use crate::ring::frames::{FRAME_MIN, Frame, flags};
use crate::ring::live::{LivePeer, Presence};
use crate::ring::plan::{Mirroring, Plan};

/// Flows, how they are called, and the walk's rate: somewhat more than the goal, and the most that can be configured.
const WALKS: [(u32, &str, u32); 4] = [
    (1_000_000, "1m", 2_200_000),
    (10_000_000, "10m", 2_200_000),
    (1_000_000, "1m-unbounded", 10_000_000),
    (10_000_000, "10m-unbounded", 10_000_000),
];
/// First packets a second while it is measured how long they wait.
const PROBES_PER_SECOND: u64 = 2_000;
/// Waits are measured for so long without a walk.
const NORMAL: std::time::Duration = std::time::Duration::from_secs(1);
/// Flows are idle for longer than this before a walk: see `mirror::walk`.
const IDLE: std::time::Duration = std::time::Duration::from_millis(1300);
/// New flows of all runs.
const SPARE: u32 = 400_000;
/// Ticks after which it is known whether a wait that is over counts (40 µs): a thread says that it was away when it is back.
const JUDGED_AFTER: u64 = 100_000;
/// Which waits are told.
const SHARES: [(f64, &str); 6] =
    [(0.5, "50"), (0.9, "90"), (0.95, "95"), (0.99, "99"), (0.999, "99.9"), (1.0, "100")];

/// The cases.
pub fn cases() -> Vec<Case> {
    WALKS.map(|(flows, short, rate)| case(flows, short, rate)).into_iter().collect()
}

fn case(flows: u32, short: &str, rate: u32) -> Case {
    let name = format!("mirror-bring-up-{short}");
    let what = format!(
        "a peer on the other CPU is named {flows} flows, at most {rate} a second, while first packets wait"
    );
    Case::new(name.clone(), what, move |context: &Context| measure(&name, flows, rate, context))
}

/// First packets that wait for an acknowledgement, and when they were sent.
struct Probe {
    every: u64,
    next: u64,
    /// When, and how often either thread had been kept from its CPU until then.
    sent: HashMap<u32, (u64, u64)>,
    /// Waits that are over, with the same numbers: whether they count is known a moment later.
    over: VecDeque<(u64, u64, u64)>,
    waits: Delays,
    /// Waits that do not count, since a thread was kept from its CPU meanwhile.
    left_out: u64,
    presence: Presence,
    away: u64,
}

impl Probe {
    fn new(every: u64) -> Probe {
        Probe {
            every,
            next: tsc(),
            sent: HashMap::new(),
            over: VecDeque::new(),
            waits: Delays::default(),
            left_out: 0,
            presence: Presence::default(),
            away: 0,
        }
    }

    /// How often either thread was kept from its CPU.
    fn away(&self, live: Option<&LivePeer>) -> u64 {
        self.away + live.map_or(0, |live| live.said.away.load(Ordering::Relaxed))
    }

    /// Judges what is over for long enough.
    fn judge(&mut self, now: u64, live: Option<&LivePeer>) {
        let away = self.away(live);
        while let Some((at, wait, before)) = self.over.front().copied() {
            if now - at < JUDGED_AFTER {
                return;
            }
            self.over.pop_front();
            if before == away { self.waits.add(wait) } else { self.left_out += 1 }
        }
    }

    fn left_out_percent(&self) -> f64 {
        self.left_out as f64 / (self.left_out + self.waits.count()).max(1) as f64 * 100.0
    }
}

impl Bench {
    /// Sends a first packet if one is due, and takes what came out.
    fn probe(&mut self, probe: &mut Probe) -> Result<()> {
        probe.away += u64::from(probe.presence.was_away());
        let now = tsc();
        probe.judge(now, self.live.as_ref());
        if now >= probe.next {
            let flow = self.flows.begin();
            self.flows.await_first(flow);
            let frame = self.flows.forth(flow, 0, flags::SYN);
            let packet = self.devices.make(FRAME_MIN, |out| frame.write(out))?;
            let now = tsc();
            send_all(&mut self.appliance.wires[0].tx, [packet])?;
            probe.sent.insert(flow, (now, probe.away(self.live.as_ref())));
            probe.next = now + probe.every;
        }
        let burst = self.appliance.wires[1].take();
        for mbuf in &burst {
            let now = tsc();
            let frame = Frame::read(mbuf.head()).context("not a frame of ours")?;
            self.flows.check(Side::Server, mbuf.head())?;
            let sent = probe.sent.remove(&((frame.tag >> 32) as u32)).context("a packet came twice")?;
            probe.over.push_back((now, now - sent.0, sent.1));
        }
        Ok(())
    }

    /// Probes for a while; nothing else comes.
    fn probe_for(&mut self, probe: &mut Probe, span: std::time::Duration) -> Result<()> {
        let begin = std::time::Instant::now();
        while begin.elapsed() < span {
            for _ in 0..64 {
                self.appliance.turn();
                self.probe(probe)?;
            }
            self.appliance.listen();
        }
        self.probe_out(probe)
    }

    /// No more are sent, and those that wait come out.
    fn probe_out(&mut self, probe: &mut Probe) -> Result<()> {
        let begin = std::time::Instant::now();
        probe.next = u64::MAX;
        while !probe.sent.is_empty() || !probe.over.is_empty() {
            self.appliance.turn();
            self.probe(probe)?;
            ensure!(begin.elapsed().as_secs() < 5, "first packets stay held: {}", self.troubles());
        }
        Ok(())
    }
}

/// What one walk came to, times in ticks.
struct Walked {
    tenth: u64,
    all: u64,
    during: Delays,
    normal: Delays,
    /// In percent, in both.
    left_out: [f64; 2],
    /// Of the peer's CPU.
    peer_busy: f64,
}

fn measure(name: &str, flows: u32, rate: u32, context: &Context) -> Result<Vec<Figure>> {
    let plan = Plan { mirroring: Mirroring::Hold, walk_rate: Some(rate), ..Plan::plain(flows) };
    let eal = appliance::start(&plan)?;
    let hz = tsc_hz(&eal);
    let mut bench = Bench::alone(&eal, &plan, SPARE)?;
    bench.settle()?;
    let cpus = [plan.cpu, usize::from(plan.cpu == 0)];
    let (mut runs, mut regimes) = (Vec::new(), Vec::new());
    for _ in 0..context.samples.min(5) {
        let mut peer = bench.new_peer()?;
        peer.populate();
        std::thread::sleep(IDLE);
        let (walked, regime) = regime::during(cpus, || -> Result<Walked> {
            bench.meet(&eal, peer, cpus[1])?;
            bench.walk(flows, hz)
        });
        runs.push(walked?);
        regimes.push(regime);
        bench.part()?;
    }
    let regime = regimes.iter().copied().reduce(regime::Regime::between).unwrap_or(regime::Regime::Mixed);
    let column = |of: &dyn Fn(&Walked) -> f64| runs.iter().map(of).collect::<Vec<f64>>();
    let us = |ticks: Option<u64>| ticks.unwrap_or_default() as f64 * 1e6 / hz as f64;
    let seconds = |ticks: u64| ticks as f64 / hz as f64;
    let figure = |metric: String, unit: &str, samples: &[f64]| {
        Figure::of(name, metric, unit, samples).in_regime(regime)
    };
    let mut figures = vec![
        figure(
            "until the peer has as many as were busy, a tenth".to_owned(),
            "s",
            &column(&|run| seconds(run.tenth)),
        ),
        figure("until the peer is up to date".to_owned(), "s", &column(&|run| seconds(run.all))),
        figure(
            "named and acknowledged".to_owned(),
            "Mrecords/s",
            &column(&|run| f64::from(flows) / seconds(run.all) / 1e6),
        ),
        figure(
            "the peer at work".to_owned(),
            "cycles/record",
            &column(&|run| run.peer_busy / f64::from(flows)),
        ),
    ];
    for (share, percent) in SHARES {
        let during = column(&|run| us(run.during.percentile(share)));
        let normal = column(&|run| us(run.normal.percentile(share)));
        let metric = format!("{percent} % of first packets held within");
        figures.push(figure(metric, "µs", &during).against("without a walk", &normal));
    }
    let [during, normal] = [0, 1].map(|at| column(&|run| run.left_out[at]));
    let metric = "left out, a thread being away".to_owned();
    figures.push(figure(metric, "%", &during).against("without a walk", &normal));
    Ok(figures)
}

impl Bench {
    /// A walk to the peer that was met just now, and then nothing but first packets.
    fn walk(&mut self, flows: u32, hz: u64) -> Result<Walked> {
        let now = self.appliance.clock.now();
        for (_, last_seen) in &self.appliance.last_seen {
            (0..flows)
                .step_by(10)
                .for_each(|place| last_seen.touch(FlowIndex(place), TimeoutClass::Established, now));
        }
        self.appliance.in_sync()?;
        let said = std::sync::Arc::clone(&self.live.as_ref().context("no peer")?.said);
        let mut probe = Probe::new(hz / PROBES_PER_SECOND);
        let (begin, mut tenth) = (tsc(), None);
        self.bring_up(|bench| {
            if tenth.is_none() && said.flows.load(Ordering::Relaxed) >= u64::from(flows / 10) {
                tenth = Some(tsc() - begin);
            }
            bench.probe(&mut probe)
        })?;
        let all = tsc() - begin;
        let peer_busy = said.busy.load(Ordering::Relaxed) as f64;
        self.probe_out(&mut probe)?;
        let mut after = Probe::new(hz / PROBES_PER_SECOND);
        self.probe_for(&mut after, NORMAL)?;
        self.finish()?;
        let have = said.flows.load(Ordering::Relaxed);
        ensure!(have == self.status()?.flows, "the peer has {have} flows");
        Ok(Walked {
            tenth: tenth.context("the peer has less than a tenth")?,
            all,
            left_out: [probe.left_out_percent(), after.left_out_percent()],
            during: probe.waits,
            normal: after.waits,
            peer_busy,
        })
    }
}

/// First packets a second.
const RATES: [u64; 3] = [1_000, 10_000, 100_000];

/// How long first packets take with mirroring and without, at some rates of new flows; nothing else comes.
pub fn hold() -> Case {
    let what =
        "first packets from in to out, held until the peer on the other CPU acknowledged, and not mirrored";
    Case::new("mirror-hold", what, |context: &Context| {
        let plans = [Mirroring::Hold, Mirroring::Off].map(|mirroring| Plan {
            mirroring,
            rings: if mirroring == Mirroring::Off { 3 } else { 0 },
            ..Plan::plain(1000)
        });
        let eal = appliance::start_all(&plans.each_ref())?;
        let hz = tsc_hz(&eal);
        let cpus = [plans[0].cpu, usize::from(plans[0].cpu == 0)];
        let [mut held, mut free] =
            [Bench::alone(&eal, &plans[0], SPARE * 3)?, Bench::alone(&eal, &plans[1], SPARE * 3)?];
        let peer = held.new_peer()?;
        held.meet(&eal, peer, cpus[1])?;
        held.bring_up(|_| Ok(()))?;
        held.appliance.in_sync()?;
        held.settle()?;
        free.settle()?;
        let mut figures = Vec::new();
        for rate in RATES {
            let (mut runs, mut regimes) = (Vec::new(), Vec::new());
            for _ in 0..context.samples {
                let (run, regime) = regime::during(cpus, || -> Result<[Probe; 2]> {
                    let mut probes = [Probe::new(hz / rate), Probe::new(hz / rate)];
                    for (bench, probe) in [&mut held, &mut free].into_iter().zip(&mut probes) {
                        probe.next = tsc();
                        bench.probe_for(probe, NORMAL / 4)?;
                    }
                    Ok(probes)
                });
                runs.push(run?);
                regimes.push(regime);
            }
            let regime =
                regimes.iter().copied().reduce(regime::Regime::between).unwrap_or(regime::Regime::Mixed);
            for (share, percent) in SHARES {
                let us =
                    |waits: &Delays| waits.percentile(share).unwrap_or_default() as f64 * 1e6 / hz as f64;
                let column = |at: usize| runs.iter().map(|run| us(&run[at].waits)).collect::<Vec<f64>>();
                let metric = format!("{rate} new flows a second: {percent} % of first packets within");
                let figure = Figure::of("mirror-hold", metric, "µs", &column(0));
                figures.push(figure.against("not mirrored", &column(1)).in_regime(regime));
            }
            let [held, free] =
                [0, 1].map(|at| runs.iter().map(|run| run[at].left_out_percent()).collect::<Vec<f64>>());
            let metric = format!("{rate} new flows a second: left out, a thread being away");
            figures.push(Figure::of("mirror-hold", metric, "%", &held).against("not mirrored", &free));
        }
        held.finish()?;
        held.part()?;
        Ok(figures)
    })
}
