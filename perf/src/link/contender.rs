//! What forwards, with a generator of its own: the appliance that knows all flows, or the
//! reference. Each stands still between its samples.

use anyhow::{Context as _, Result, bail, ensure};
use baton::wire::MacAddress;
use dpdk::clock::tsc;

use crate::link::appliance::{Appliance, Settings};
use crate::link::child::Child;
use crate::link::engine::{Connect, Connections, Counted, Load, Pace};
use crate::link::plan;
use crate::link::rig::{GENERATOR_CPU, LINK_LIMIT, MEASURED_CPU, Pair, Rig};
use crate::link::testpmd::{self, Mode};
use crate::regime::{self, Regime};
use crate::traffic::sizes::Size;
use crate::traffic::{Draw, Family, Place, Protocol, Shape, Spread, Template, connection};

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

    /// From the generator to the virtual server by way of this link address.
    pub fn place(&self, from: MacAddress, to: MacAddress) -> Place {
        Place {
            from: from.0,
            to: to.0,
            address: plan::virtual_address(self.family),
            port: plan::SERVICE_PORT,
        }
    }

    /// Frames to this link address.
    pub fn load(&self, from: MacAddress, to: MacAddress, answers: bool) -> Load {
        let place = self.place(from, to);
        let shape = |&len| Shape { family: self.family, protocol: self.protocol, len };
        let templates = self.size.round().iter().map(|len| Template::new(shape(len), &place)).collect();
        Load { draw: Draw::new(self.flows, self.spread, self.new_flows, 1), templates, answers }
    }
}

/// Something that forwards, with a generator of its own. It stands still between its samples.
pub struct Contender {
    pair: Pair,
    traffic: Traffic,
    /// Where its frames go.
    to: MacAddress,
    load: Load,
    /// The number of the flow of the next connection.
    next_connection: u64,
    hz: u64,
    kind: Kind,
}

enum Kind {
    Reference(Child),
    /// The appliance, and its standby if it has one.
    Appliance(Box<Appliance>, Option<Box<Appliance>>),
}

/// Connections under way at once: the appliance's rings hold all their packets.
const AT_ONCE: u64 = 256;
/// How long it may take until packets come through again, in seconds.
const SILENCE_MAX_S: u64 = 10;
/// Losses that may happen: what came while a link was down or a ring full.
const EXCUSED: [&str; 4] = ["drop_tx_full", "drop_tx_lease", "drop_neighbour", "drop_standby"];

impl Contender {
    /// The reference.
    pub fn testpmd(rig: &mut Rig, mode: Mode, traffic: &Traffic) -> Result<Contender> {
        let pair = rig.pair()?;
        let child = testpmd::start_connected(&pair, mode, MEASURED_CPU)?;
        let mut contender =
            Contender::new(pair, traffic, MacAddress([2, 0, 0, 0, 0, 1]), rig.hz, Kind::Reference(child));
        for _ in 0..100 {
            let (pace, ticks) = (Pace::PerSecond(10_000.0), rig.hz / 20);
            if contender.pair.engine.run(&mut contender.load, pace, ticks, rig.hz).to_servers > 0 {
                contender.child().pause()?;
                return Ok(contender);
            }
            contender.child().must_live()?;
        }
        bail!("nothing comes through {}:\n{}", mode.name(), contender.child().log())
    }

    /// The appliance, once it knows all flows; with a synchronized standby if `mirrored`.
    pub fn appliance(
        rig: &mut Rig,
        settings: &Settings,
        traffic: &Traffic,
        mirrored: bool,
    ) -> Result<Contender> {
        let mut pair = rig.pair()?;
        let settings = Settings { devices: pair.devices.clone(), ..settings.clone() };
        let (mut appliance, standby) = if mirrored {
            let [appliance, standby] = Appliance::start_pair(&pair.site, &settings)?;
            (appliance, Some(Box::new(standby)))
        } else {
            (Appliance::start(&pair.site, &settings)?, None)
        };
        pair.wait_up(&mut appliance.child, LINK_LIMIT)?;
        let (gateway, address) = (plan::gateway(traffic.family), plan::virtual_address(traffic.family));
        let virtual_mac = pair.engine.resolve(gateway, address, 10 * rig.hz).with_context(|| {
            format!("the appliance does not answer for {address}:\n{}", appliance.child.log())
        })?;
        let kind = Kind::Appliance(Box::new(appliance), standby);
        let mut contender = Contender::new(pair, traffic, virtual_mac, rig.hz, kind);
        contender.acquaint()?;
        contender.child().pause()?;
        Ok(contender)
    }

    fn new(pair: Pair, traffic: &Traffic, to: MacAddress, hz: u64, kind: Kind) -> Contender {
        let load = traffic.load(pair.engine.clients_mac(), to, false);
        let next_connection = u64::from(traffic.flows);
        Contender { pair, traffic: *traffic, to, load, next_connection, hz, kind }
    }

    fn child(&mut self) -> &mut Child {
        match &mut self.kind {
            Kind::Reference(child) => child,
            Kind::Appliance(appliance, _) => &mut appliance.child,
        }
    }

    /// Makes the appliance know all flows.
    fn acquaint(&mut self) -> Result<()> {
        let Kind::Appliance(appliance, _) = &self.kind else { return Ok(()) };
        let (engine, flows, mut known) = (&mut self.pair.engine, u64::from(self.traffic.flows), 0);
        // The first packets may be lost, since the appliance looks for its neighbours.
        for _ in 0..5 {
            match self.traffic.protocol {
                Protocol::Udp => drop(engine.acquaint(&self.load, self.hz)),
                Protocol::Tcp => {
                    let how = Connect { first: 0, at_once: AT_ONCE, close: false, limit: flows };
                    engine.connect(&self.load.templates[0], &how, 100 * self.hz, self.hz);
                }
            }
            known = appliance.status()?.flows.active;
            if known >= flows {
                return Ok(());
            }
        }
        bail!("the appliance knows {known} of {flows} flows; drops: {:?}", appliance.drops()?)
    }

    /// Lets it go on, sends for a moment, does the work, and makes it stand still again. Says what
    /// regime the work was done in.
    fn in_turn<T>(&mut self, settle: Pace, work: impl FnOnce(&mut Contender) -> T) -> Result<(T, Regime)> {
        self.child().resume()?;
        // What it had in its caches is gone, and what was under way when it was stopped comes now. An
        // appliance that stood still for longer than its lease sends nothing for a while.
        let begin = tsc();
        while self.pair.engine.run(&mut self.load, settle, self.hz / 20, self.hz).to_servers == 0 {
            self.child().must_live()?;
            ensure!(
                tsc() - begin < SILENCE_MAX_S * self.hz,
                "nothing comes through:\n{}",
                self.child().log()
            );
        }
        let cpus = [GENERATOR_CPU as usize, MEASURED_CPU as usize];
        let done = regime::during(cpus, || work(self));
        self.child().pause()?;
        Ok(done)
    }

    /// Runs traffic through it.
    pub fn run(&mut self, answers: bool, pace: Pace, ticks: u64) -> Result<(Counted, Regime)> {
        self.load.answers = answers;
        let hz = self.hz;
        self.in_turn(pace, |own| own.pair.engine.run(&mut own.load, pace, ticks, hz))
    }

    /// Packets a second that it forwards when it gets all that it takes.
    pub fn packets_per_second(&mut self, answers: bool, ticks: u64) -> Result<(f64, Regime)> {
        let (counted, regime) = self.run(answers, Pace::Full, ticks)?;
        Ok((counted.forwarded_per_second(self.hz), regime))
    }

    /// Whole connections through it, one after the other.
    pub fn connect(&mut self, ticks: u64) -> Result<(Connections, Regime)> {
        let place = self.traffic.place(self.pair.engine.clients_mac(), self.to);
        let template = connection::template(self.traffic.family, &place);
        let hz = self.hz;
        self.in_turn(Pace::PerSecond(1000.0), |own| {
            let how = Connect { first: own.next_connection, at_once: AT_ONCE, close: true, limit: u64::MAX };
            let counted = own.pair.engine.connect(&template, &how, ticks, hz);
            own.next_connection += counted.begun;
            counted
        })
    }

    /// An error if the appliance lost packets in a way that it should not. It must not stand still.
    pub fn must_be_lossless(&mut self) -> Result<()> {
        self.child().resume()?;
        let Kind::Appliance(appliance, standby) = &self.kind else { return Ok(()) };
        let mut drops = appliance.drops()?;
        drops.retain(|(name, _)| !EXCUSED.contains(&name.as_str()));
        ensure!(drops.is_empty(), "the appliance dropped packets: {drops:?}");
        if standby.is_some() {
            // What began last is acknowledged within moments.
            for _ in 0..100 {
                std::thread::sleep(core::time::Duration::from_millis(20));
                if appliance.leads_a_pair() {
                    return self.child().pause();
                }
            }
            bail!("the appliance lost its standby meanwhile: {:?}", appliance.status()?);
        }
        self.child().pause()
    }
}
