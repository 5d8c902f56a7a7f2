//! Packets a second over memif, beside `testpmd macswap` with the same rings, roles and sizes.

use anyhow::{Context as _, Result, ensure};
use baton::wire::MacAddress;

use crate::case::{Case, Context};
use crate::figure::{Figure, Series};
use crate::link::appliance::{Appliance, Settings};
use crate::link::child::Child;
use crate::link::engine::{Load, Pace};
use crate::link::plan;
use crate::link::rig::{GENERATOR_CPU, MEASURED_CPU, Pair, Rig};
use crate::link::testpmd::{self, Mode};
use crate::regime::{self, Regime};
use crate::traffic::sizes::Size;
use crate::traffic::{Draw, Family, Place, Protocol, Shape, Spread, Template};

/// What a run sends.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Flows in use.
    pub flows: u32,
    /// How packets are spread over them.
    pub spread: Spread,
    /// The share of packets that begin a new flow.
    pub new_flows: f64,
    /// IPv4 or IPv6.
    pub family: Family,
    /// UDP or TCP.
    pub protocol: Protocol,
    /// Lengths of frames.
    pub size: Size,
}

impl Traffic {
    /// UDP over IPv4, 64 bytes, uniform, settled.
    pub const fn of(flows: u32) -> Traffic {
        Traffic {
            flows,
            spread: Spread::Uniform,
            new_flows: 0.0,
            family: Family::V4,
            protocol: Protocol::Udp,
            size: Size::Smallest,
        }
    }

    /// Frames to this link address.
    pub fn load(&self, from: MacAddress, to: MacAddress, answers: bool) -> Load {
        let place = Place {
            from: from.0,
            to: to.0,
            address: plan::virtual_address(self.family),
            port: plan::SERVICE_PORT,
        };
        let shape = |&len| Shape { family: self.family, protocol: self.protocol, len };
        let templates = self.size.round().iter().map(|len| Template::new(shape(len), &place)).collect();
        Load { draw: Draw::new(self.flows, self.spread, self.new_flows, 1), templates, answers }
    }
}

/// Something that forwards, with a generator of its own. It stands still between its samples.
pub struct Contender {
    pair: Pair,
    load: Load,
    hz: u64,
    kind: Kind,
}

enum Kind {
    Reference(Child),
    Appliance(Appliance),
}

impl Contender {
    /// The reference.
    pub fn testpmd(rig: &mut Rig, mode: Mode, traffic: &Traffic) -> Result<Contender> {
        let pair = rig.pair()?;
        let mut child = testpmd::start(rig.folder.path(), mode, &pair.devices, MEASURED_CPU, &[])?;
        pair.wait_up(&mut child)?;
        let own = pair.engine.clients_mac();
        let load = traffic.load(own, MacAddress([2, 0, 0, 0, 0, 1]), false);
        let mut contender = Contender { pair, load, hz: rig.hz, kind: Kind::Reference(child) };
        contender.must_forward()?;
        contender.child().pause()?;
        Ok(contender)
    }

    /// The appliance, once it knows all flows.
    pub fn appliance(rig: &mut Rig, settings: &Settings, traffic: &Traffic) -> Result<Contender> {
        let mut pair = rig.pair()?;
        let settings = Settings { devices: pair.devices.clone(), ..settings.clone() };
        let mut appliance = Appliance::start(rig.folder.path(), &settings)?;
        pair.wait_up(&mut appliance.child)?;
        let (gateway, address) = (plan::gateway(traffic.family), plan::virtual_address(traffic.family));
        let virtual_mac = pair.engine.resolve(gateway, address, 10 * rig.hz);
        let virtual_mac = virtual_mac.with_context(|| {
            format!("the appliance does not answer for {address}:\n{}", appliance.child.log())
        })?;
        let load = traffic.load(pair.engine.clients_mac(), virtual_mac, false);
        let mut contender = Contender { pair, load, hz: rig.hz, kind: Kind::Appliance(appliance) };
        contender.must_forward()?;
        contender.acquaint(traffic)?;
        contender.child().pause()?;
        Ok(contender)
    }

    fn child(&mut self) -> &mut Child {
        match &mut self.kind {
            Kind::Reference(child) => child,
            Kind::Appliance(appliance) => &mut appliance.child,
        }
    }

    fn must_forward(&mut self) -> Result<()> {
        for _ in 0..100 {
            let counted =
                self.pair.engine.run(&mut self.load, Pace::PerSecond(10_000.0), self.hz / 20, self.hz);
            if counted.to_servers > 0 {
                return Ok(());
            }
            self.child().must_live()?;
        }
        anyhow::bail!("nothing comes through:\n{}", self.child().log())
    }

    /// Makes the appliance know all flows.
    fn acquaint(&mut self, traffic: &Traffic) -> Result<()> {
        let Kind::Appliance(appliance) = &self.kind else { return Ok(()) };
        let mut known = 0;
        for _ in 0..3 {
            self.pair.engine.acquaint(&self.load, self.hz);
            known = appliance.status()?.flows.active;
            if known >= u64::from(traffic.flows) {
                return Ok(());
            }
        }
        let drops = appliance.drops()?;
        ensure!(
            known * 1000 >= u64::from(traffic.flows) * 999,
            "the appliance knows {known} of {} flows; drops: {drops:?}",
            traffic.flows
        );
        Ok(())
    }

    /// Millions of packets a second that it forwards, and the regime meanwhile.
    pub fn sample(&mut self, answers: bool, ticks: u64) -> Result<(f64, Regime)> {
        self.load.answers = answers;
        self.child().resume()?;
        let hz = self.hz;
        // What it had in its caches is gone, and a pause has to be noticed.
        self.pair.engine.run(&mut self.load, Pace::Full, hz / 20, hz);
        let cpus = [GENERATOR_CPU as usize, MEASURED_CPU as usize];
        let (counted, regime) =
            regime::during(cpus, || self.pair.engine.run(&mut self.load, Pace::Full, ticks, hz));
        self.child().pause()?;
        Ok((counted.forwarded_per_second(hz) / 1e6, regime))
    }
}

/// Samples of both in turn.
pub fn alternate(
    context: &Context,
    measured: &mut Contender,
    reference: &mut Contender,
    answers: bool,
    ticks: u64,
) -> Result<Series> {
    let mut series = Series::default();
    for _ in 0..context.samples {
        let (ours, our_regime) = measured.sample(answers, ticks)?;
        let (theirs, their_regime) = reference.sample(answers, ticks)?;
        series.push(ours, theirs, Regime::between(our_regime, their_regime));
    }
    Ok(series)
}

const DIRECTIONS: [(bool, &str); 2] = [(false, "one direction"), (true, "both directions")];

fn forwarding(name: &str, context: &Context, settings: &Settings, traffic: &Traffic) -> Result<Vec<Figure>> {
    let mut rig = Rig::memif(2)?;
    let ticks = rig.hz / if context.quick { 4 } else { 2 };
    let mut reference = Contender::testpmd(&mut rig, Mode::MacSwap, traffic)?;
    let mut measured = Contender::appliance(&mut rig, settings, traffic)?;
    let mut figures = Vec::new();
    for (answers, direction) in DIRECTIONS {
        let series = alternate(context, &mut measured, &mut reference, answers, ticks)?;
        figures.extend(series.figures(name, direction, "Mpackets/s", "testpmd macswap"));
    }
    Ok(figures)
}

/// What the generator can do, beside what it is used for.
fn headroom(context: &Context) -> Result<Vec<Figure>> {
    let mut rig = Rig::memif(2)?;
    let ticks = rig.hz / if context.quick { 4 } else { 2 };
    let traffic = Traffic::of(1000);
    let mut idle = Contender::testpmd(&mut rig, Mode::Io, &traffic)?;
    let mut swap = Contender::testpmd(&mut rig, Mode::MacSwap, &traffic)?;
    let mut figures = Vec::new();
    for (answers, direction) in DIRECTIONS {
        let series = alternate(context, &mut idle, &mut swap, answers, ticks)?;
        figures.extend(series.figures(
            "memif-headroom",
            &format!("generator and sink against testpmd io, {direction}"),
            "Mpackets/s",
            "testpmd macswap",
        ));
    }
    Ok(figures)
}

/// The cases over memif.
pub fn cases() -> Vec<Case> {
    let devices = [String::new(), String::new()];
    let mut cases = vec![
        Case::new("memif-headroom", "what the generator makes and takes when nothing holds it up", headroom)
            .essential(),
    ];
    for (flows, label) in [(1000, "1k"), (1_000_000, "1m"), (10_000_000, "10m")] {
        for kind in ["full-nat", "nat"] {
            let name = format!("memif-{kind}-{label}");
            let mut settings = Settings::new(devices.clone(), (flows + flows / 10).max(1_000_000));
            settings.forwarding = kind;
            let what = format!("{kind}, UDP, 64 bytes, {flows} flows over memif, against testpmd macswap");
            let case_name = name.clone();
            let case = Case::new(name, what, move |context| {
                forwarding(&case_name, context, &settings, &Traffic::of(flows))
            });
            cases.push(if flows == 1000 && kind == "full-nat" { case.essential() } else { case });
        }
    }
    cases
}
