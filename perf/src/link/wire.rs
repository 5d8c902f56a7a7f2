//! The generator alone, on any two ports: network cards on another machine, most of all. What
//! forwards in between is not this program's business.

use anyhow::{Context as _, Result, ensure};
use baton::wire::MacAddress;
use clap::Args;

use crate::figure::{Figure, SAMPLES_MIN, table};
use crate::link::child::Folder;
use crate::link::contender::Traffic;
use crate::link::engine::{Connect, Engine, Pace};
use crate::link::memif::PERCENTILES;
use crate::link::plan;
use crate::link::rig::{LINK_LIMIT, Pair, Rig};
use crate::regime::Regime;
use crate::traffic::sizes::Size;
use crate::traffic::{Family, Protocol, Spread, connection};

/// The name of its figures.
const NAME: &str = "wire";

/// What to send, and where.
#[derive(Clone, Debug, Args)]
pub struct Wire {
    /// The port to the appliance's client side: a PCI address, or a virtual device with arguments.
    client_device: String,
    /// The port to the appliance's server side.
    server_device: String,
    /// The CPU that generates and takes back.
    #[arg(long, default_value_t = 1)]
    cpu: u32,
    /// Flows in use.
    #[arg(long, default_value_t = 1000)]
    flows: u32,
    /// How packets are spread over them: uniform or zipf.
    #[arg(long, default_value = "uniform")]
    spread: Spread,
    /// Packets that begin a new flow, in percent.
    #[arg(long, default_value_t = 0.0)]
    new: f64,
    /// Frames: 64 bytes, imix, or IP packets of 1500.
    #[arg(long, default_value = "64")]
    size: Size,
    /// TCP instead of UDP.
    #[arg(long)]
    tcp: bool,
    /// IPv6 instead of IPv4.
    #[arg(long)]
    ipv6: bool,
    /// Servers answer each packet.
    #[arg(long)]
    both: bool,
    /// Packets a second; without it, as many as are taken. Delays are measured with it.
    #[arg(long, conflicts_with = "connections")]
    rate: Option<f64>,
    /// Whole TCP connections of nine packets, so many at once, instead of flows.
    #[arg(long, value_name = "AT_ONCE")]
    connections: Option<u64>,
    /// What is between forwards anything, as testpmd does: nobody is asked for the virtual address.
    #[arg(long)]
    reference: bool,
    /// Seconds, each a sample.
    #[arg(long, default_value_t = SAMPLES_MIN)]
    seconds: usize,
    /// Prints one JSON object for each figure.
    #[arg(long)]
    json: bool,
}

impl Wire {
    /// Runs, and prints what came.
    pub fn run(&self) -> Result<()> {
        ensure!(self.seconds >= SAMPLES_MIN, "at least {SAMPLES_MIN} seconds");
        ensure!((0.0..=100.0).contains(&self.new), "--new is a percentage");
        let devices = [self.client_device.clone(), self.server_device.clone()];
        let mut rig = Rig::start(self.cpu, Folder::new()?, &[devices], &[Default::default()], &[])?;
        let mut pair = rig.pair()?;
        pair.wait_link(LINK_LIMIT)?;
        // Whatever is in between may have any number of CPUs, on any machine.
        let figures = self.measure(&mut pair, rig.hz)?.into_iter();
        let figures: Vec<Figure> = figures.map(|figure| figure.in_regime(Regime::Mixed)).collect();
        if self.json {
            figures.iter().for_each(|figure| println!("{}", figure.json()));
        } else {
            print!("{}", table(&figures));
        }
        Ok(())
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            flows: self.flows,
            spread: self.spread,
            new_flows: self.new / 100.0,
            family: if self.ipv6 { Family::V6 } else { Family::V4 },
            protocol: if self.tcp || self.connections.is_some() { Protocol::Tcp } else { Protocol::Udp },
            size: self.size,
        }
    }

    /// Where frames go: to whoever answers for the virtual address.
    fn resolve(&self, engine: &mut Engine, family: Family, hz: u64) -> Result<MacAddress> {
        if self.reference {
            return Ok(MacAddress([2, 0, 0, 0, 0, 1]));
        }
        let address = plan::virtual_address(family);
        engine
            .resolve(plan::gateway(family), address, 20 * hz)
            .with_context(|| format!("nobody answers for {address} (with testpmd in between: --reference)"))
    }

    fn measure(&self, pair: &mut Pair, hz: u64) -> Result<Vec<Figure>> {
        let (traffic, engine) = (self.traffic(), &mut pair.engine);
        let to = self.resolve(engine, traffic.family, hz)?;
        if let Some(at_once) = self.connections {
            return self.connect(engine, &traffic, to, at_once, hz);
        }
        let mut load = traffic.load(engine.clients_mac(), to, self.both);
        if !self.reference {
            match traffic.protocol {
                Protocol::Udp => drop(engine.acquaint(&load, hz)),
                Protocol::Tcp => {
                    let how =
                        Connect { first: 0, at_once: 256, close: false, limit: u64::from(traffic.flows) };
                    engine.connect(&load.templates[0], &how, 100 * hz, hz);
                }
            }
        }
        let pace = self.rate.map_or(Pace::Full, Pace::PerSecond);
        engine.run(&mut load, pace, hz / 2, hz);
        let (mut forwarded, mut sent, mut lost) = (Vec::new(), Vec::new(), Vec::new());
        let mut delays: [Vec<f64>; 4] = Default::default();
        for _ in 0..self.seconds {
            let counted = engine.run(&mut load, pace, hz, hz);
            forwarded.push(counted.forwarded_per_second(hz) / 1e6);
            sent.push(counted.sent as f64 * hz as f64 / counted.ticks as f64 / 1e6);
            lost.push(counted.lost_percent());
            for ((share, _), delays) in PERCENTILES.iter().zip(&mut delays) {
                let ticks = counted.delays.percentile(*share);
                delays.extend(ticks.map(|ticks| ticks as f64 * 1e6 / hz as f64));
            }
        }
        let mut figures = vec![
            Figure::of(NAME, "sent", "Mpackets/s", &sent),
            Figure::of(NAME, "came through", "Mpackets/s", &forwarded),
            Figure::of(NAME, "did not come through", "%", &lost),
        ];
        for ((_, name), delays) in PERCENTILES.iter().zip(&delays) {
            if delays.len() >= SAMPLES_MIN {
                figures.push(Figure::of(NAME, format!("{name} % of the packets within"), "\u{b5}s", delays));
            }
        }
        Ok(figures)
    }

    fn connect(
        &self,
        engine: &mut Engine,
        traffic: &Traffic,
        to: MacAddress,
        at_once: u64,
        hz: u64,
    ) -> Result<Vec<Figure>> {
        let template = connection::template(traffic.family, &traffic.place(engine.clients_mac(), to));
        let (mut first, mut ended, mut missing) = (0, Vec::new(), Vec::new());
        for second in 0..=self.seconds {
            let how = Connect { first, at_once, close: true, limit: u64::MAX };
            let counted = engine.connect(&template, &how, hz, hz);
            first += counted.begun;
            // The first one is for getting acquainted.
            if second > 0 {
                ended.push(counted.ended as f64 * hz as f64 / counted.ticks as f64);
                missing.push(counted.missing_percent());
            }
        }
        Ok(vec![
            Figure::of(NAME, "whole connections", "connections/s", &ended),
            Figure::of(NAME, "connections that did not end", "%", &missing),
        ])
    }
}
