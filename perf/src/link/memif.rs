//! Packets, connections and delays over memif, beside `testpmd macswap` with the same rings,
//! roles and frames.

use anyhow::{Result, ensure};

use crate::case::{Case, Context};
use crate::figure::{Figure, Place, Series};
use crate::link::appliance::Settings;
use crate::link::contender::{Contender, Traffic};
use crate::link::engine::Pace;
use crate::link::rig::Rig;
use crate::link::testpmd::Mode;
use crate::regime::Regime;
use crate::traffic::sizes::Size;
use crate::traffic::{Family, Protocol, Spread};

/// The unit of packets.
pub const PACKETS: &str = "Mpackets/s";
/// What the appliance is measured against.
pub const REFERENCE: &str = "testpmd macswap";

/// What a mirrored appliance is measured against.
const NOT_MIRRORED: &str = "the same, not mirrored";

/// Which ways packets go: clients to servers, or that and back.
pub const DIRECTIONS: [(bool, &str); 2] = [(false, "one direction"), (true, "both directions")];

/// How long a sample takes.
fn ticks(rig: &Rig, context: &Context) -> u64 {
    rig.hz / if context.quick { 4 } else { 2 }
}

/// Samples of both in turn, in millions of packets a second.
pub fn alternate(
    context: &Context,
    measured: &mut Contender,
    reference: &mut Contender,
    answers: bool,
    ticks: u64,
) -> Result<Series> {
    let mut series = Series::default();
    for _ in 0..context.samples {
        let (ours, our_regime) = measured.packets_per_second(answers, ticks)?;
        let (theirs, their_regime) = reference.packets_per_second(answers, ticks)?;
        series.push(ours / 1e6, theirs / 1e6, Regime::between(our_regime, their_regime));
    }
    Ok(series)
}

/// What the generator can do, beside what it is used for.
fn headroom(context: &Context) -> Result<Vec<Figure>> {
    let mut rig = Rig::memif(2)?;
    let (ticks, traffic) = (ticks(&rig, context), Traffic::of(1000));
    let mut idle = Contender::testpmd(&mut rig, Mode::Io, &traffic)?;
    let mut swap = Contender::testpmd(&mut rig, Mode::MacSwap, &traffic)?;
    let mut figures = Vec::new();
    for (answers, direction) in DIRECTIONS {
        let series = alternate(context, &mut idle, &mut swap, answers, ticks)?;
        let metric = format!("generator and sink against testpmd io, {direction}");
        figures.extend(series.figures("memif-headroom", &metric, PACKETS, REFERENCE));
    }
    Ok(figures)
}

/// What an appliance is measured with.
#[derive(Clone, Debug)]
struct Run {
    name: String,
    settings: Settings,
    traffic: Traffic,
    /// With a live standby that gets every flow.
    mirrored: bool,
    /// The chart and the series that its figures belong to, and their place.
    chart: Option<(&'static str, &'static str, Place)>,
}

impl Run {
    fn new(kind: &'static str, label: &str, traffic: Traffic) -> Run {
        let mut settings = Settings::new(Default::default(), room_for(&traffic));
        (settings.forwarding, settings.family) = (kind, traffic.family);
        settings.protocol = match traffic.protocol {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
        };
        Run { name: format!("memif-{kind}-{label}"), settings, traffic, mirrored: false, chart: None }
    }

    fn forwarding(&self, context: &Context) -> Result<Vec<Figure>> {
        let mut rig = Rig::memif(2)?;
        let ticks = ticks(&rig, context);
        let mut measured = Contender::appliance(&mut rig, &self.settings, &self.traffic, self.mirrored)?;
        // The standby takes its part of the generator's CPU, so testpmd would be held up by that.
        let (mut reference, name) = if self.mirrored {
            (Contender::appliance(&mut rig, &self.settings, &self.traffic, false)?, NOT_MIRRORED)
        } else {
            (Contender::testpmd(&mut rig, Mode::MacSwap, &self.traffic)?, REFERENCE)
        };
        let mut figures = Vec::new();
        for (answers, direction) in DIRECTIONS {
            let series = alternate(context, &mut measured, &mut reference, answers, ticks)?;
            for figure in series.figures(&self.name, direction, PACKETS, name) {
                figures.push(match &self.chart {
                    Some((chart, series, x)) => {
                        figure.at(&format!("{chart}, {direction}"), series, x.clone())
                    }
                    None => figure,
                });
            }
        }
        measured.must_be_lossless()?;
        Ok(figures)
    }

    fn case(self, what: String) -> Case {
        Case::new(self.name.clone(), what, move |context| self.forwarding(context))
    }
}

/// Flows that the appliance has to have room for: those in use, and those that begin while it is
/// measured and are not yet forgotten.
fn room_for(traffic: &Traffic) -> u32 {
    let begun = if traffic.new_flows > 0.0 { 10_000_000 } else { 0 };
    traffic.flows + traffic.flows / 10 + begun + 10_000
}

/// Traffics beside the plain one.
fn variants() -> Vec<(&'static str, &'static str, Traffic)> {
    let plain = Traffic::of(1000);
    let many = Traffic::of(1_000_000);
    vec![
        ("1m-zipf", "1 million flows by Zipf's law", Traffic { spread: Spread::Zipf, ..many }),
        (
            "1k-new1",
            "1 thousand flows, 1 % of the packets begin a new one",
            Traffic { new_flows: 0.01, ..plain },
        ),
        (
            "1m-new1",
            "1 million flows, 1 % of the packets begin a new one",
            Traffic { new_flows: 0.01, ..many },
        ),
        (
            "1m-new10",
            "1 million flows, 10 % of the packets begin a new one",
            Traffic { new_flows: 0.1, ..many },
        ),
        ("1k-tcp", "1 thousand TCP connections", Traffic { protocol: Protocol::Tcp, ..plain }),
        ("1k-ipv6", "1 thousand flows over IPv6", Traffic { family: Family::V6, ..plain }),
        ("1k-imix", "1 thousand flows, a mix of lengths", Traffic { size: Size::Imix, ..plain }),
        ("1k-1500", "1 thousand flows, IP packets of 1500 bytes", Traffic { size: Size::Largest, ..plain }),
    ]
}

/// Loads at which delays are measured, as shares of the most that is forwarded.
const LOADS: [f64; 3] = [0.5, 0.9, 0.99];
/// As above, for what mirroring adds: where little waits, and half of what either forwards at most.
const MIRROR_LOADS: [f64; 3] = [0.02, 0.1, 0.5];
/// Samples there for each that is asked for: what is looked for is less than what the machine does.
const MIRROR_TIMES: usize = 3;
/// Which delays are told: so many packets take no longer.
pub const PERCENTILES: [(f64, &str); 4] = [(0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9")];

/// Delays at shares of the most that each forwards. With a standby the reference is the same appliance without one, else `testpmd`.
fn latency(
    name: &str,
    context: &Context,
    settings: &Settings,
    traffic: &Traffic,
    mirrored: bool,
) -> Result<Vec<Figure>> {
    let mut rig = Rig::memif(2)?;
    let (ticks, hz) = (ticks(&rig, context), rig.hz as f64);
    let mut measured = Contender::appliance(&mut rig, settings, traffic, mirrored)?;
    let (mut reference, beside) = if mirrored {
        (Contender::appliance(&mut rig, settings, traffic, false)?, NOT_MIRRORED)
    } else {
        (Contender::testpmd(&mut rig, Mode::MacSwap, traffic)?, REFERENCE)
    };
    let rates = alternate(context, &mut measured, &mut reference, false, ticks)?;
    let Some(rates) = rates.figures(name, "the most, one direction", PACKETS, beside).pop() else {
        return Ok(Vec::new());
    };
    let mut most = [
        rates.spread.median * 1e6,
        rates.reference.as_ref().map_or(f64::NAN, |reference| reference.spread.median * 1e6),
    ];
    // What mirroring adds is told of the same load.
    let (loads, times) = if mirrored { (MIRROR_LOADS, MIRROR_TIMES) } else { (LOADS, 1) };
    if mirrored {
        most = [most[0].min(most[1]); 2];
    }
    let mut figures = vec![rates];
    for load in loads {
        let mut series: Vec<Series> = PERCENTILES.iter().map(|_| Series::default()).collect();
        let (mut lost, mut left_out) = (Series::default(), Series::default());
        let mut added: Vec<Vec<f64>> = PERCENTILES.iter().map(|_| Vec::new()).collect();
        for _ in 0..times * context.samples {
            let ours = measured.run(false, Pace::PerSecond(most[0] * load), ticks)?;
            let theirs = reference.run(false, Pace::PerSecond(most[1] * load), ticks)?;
            let regime = Regime::between(ours.1, theirs.1);
            for (((share, _), series), added) in PERCENTILES.iter().zip(&mut series).zip(&mut added) {
                let of = |delays: &crate::link::latency::Delays| -> Result<f64> {
                    let ticks = delays.percentile(*share);
                    ensure!(ticks.is_some(), "nothing came through");
                    Ok(ticks.unwrap_or_default() as f64 / hz * 1e6)
                };
                let (own, other) = (of(&ours.0.delays)?, of(&theirs.0.delays)?);
                series.push(own, other, regime);
                added.push(own - other);
            }
            lost.push(ours.0.lost_percent(), theirs.0.lost_percent(), regime);
            left_out.push(ours.0.left_out_percent(), theirs.0.left_out_percent(), regime);
        }
        let load = load * 100.0;
        for (((_, percentile), series), added) in PERCENTILES.iter().zip(&series).zip(&added) {
            let metric = format!("{load:.0} % of the load: {percentile} % of the packets within");
            if mirrored {
                figures.push(Figure::of(name, format!("{metric}: added, pair by pair"), "\u{b5}s", added));
            }
            figures.extend(series.figures(name, &metric, "\u{b5}s", beside).into_iter().map(|figure| {
                let chart = format!("{name}: delay at {load:.0} % of the load");
                figure.at(&chart, "baton", Place::Name(format!("{percentile} %")))
            }));
        }
        for (what, series) in [("not arrived", lost), ("left out, the generator being away", left_out)] {
            figures.extend(series.figures(name, &format!("{load:.0} % of the load: {what}"), "%", beside));
        }
    }
    Ok(figures)
}

/// Whole connections, one after the other.
fn connections(name: &str, context: &Context, settings: &Settings) -> Result<Vec<Figure>> {
    let mut rig = Rig::memif(2)?;
    let (ticks, hz) = (ticks(&rig, context), rig.hz as f64);
    let traffic = Traffic { protocol: Protocol::Tcp, ..Traffic::of(1000) };
    let mut reference = Contender::testpmd(&mut rig, Mode::MacSwap, &traffic)?;
    let mut measured = Contender::appliance(&mut rig, settings, &traffic, false)?;
    let (mut whole, mut packets) = (Series::default(), Series::default());
    for _ in 0..context.samples {
        let (ours, our_regime) = measured.connect(ticks)?;
        let (theirs, their_regime) = reference.connect(ticks)?;
        for (whose, counted) in [("the appliance", &ours), ("the reference", &theirs)] {
            let (begun, missing) = (counted.begun, counted.missing_percent());
            ensure!(
                missing <= 1.0 && counted.ended > 0,
                "{whose}: {missing:.1} % of {begun} connections did not end"
            );
        }
        let regime = Regime::between(our_regime, their_regime);
        let per_second = |count: u64, ticks: u64| count as f64 * hz / ticks as f64;
        whole.push(per_second(ours.ended, ours.ticks), per_second(theirs.ended, theirs.ticks), regime);
        packets.push(
            per_second(ours.packets, ours.ticks) / 1e6,
            per_second(theirs.packets, theirs.ticks) / 1e6,
            regime,
        );
    }
    measured.must_be_lossless()?;
    let mut figures = whole.figures(name, "whole connections", "connections/s", REFERENCE);
    figures.extend(packets.figures(name, "their packets", PACKETS, REFERENCE));
    Ok(figures)
}

/// The cases over memif.
pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("memif-headroom", "what the generator makes and takes when nothing holds it up", headroom)
            .essential(),
    ];
    for (flows, label) in [(1000, "1k"), (1_000_000, "1m"), (10_000_000, "10m")] {
        for kind in ["full-nat", "nat"] {
            let chart = ("Packets a second over memif, 64 bytes", kind, Place::Number(f64::from(flows)));
            let run = Run { chart: Some(chart), ..Run::new(kind, label, Traffic::of(flows)) };
            let case = run.case(format!("{kind}, UDP, 64 bytes, {flows} flows over memif"));
            cases.push(if kind == "full-nat" { case.essential() } else { case });
        }
    }
    for (label, what, traffic) in variants() {
        cases.push(Run::new("full-nat", label, traffic).case(format!("full-nat over memif, {what}")));
    }
    for (label, what, new_flows) in [
        ("1k-async", "1 thousand flows", 0.0),
        ("1k-async-new1", "1 thousand flows, 1 % of the packets begin a new one", 0.01),
    ] {
        let traffic = Traffic { new_flows, ..Traffic::of(1000) };
        let run = Run { mirrored: true, ..Run::new("full-nat", label, traffic) };
        cases.push(run.case(format!("full-nat over memif, {what}, mirrored to a live standby")));
    }
    for (flows, label) in [(1000, "1k"), (1_000_000, "1m")] {
        let traffic = Traffic::of(flows);
        let settings = Settings::new(Default::default(), room_for(&traffic));
        let name = format!("memif-latency-{label}");
        let what = format!("delays through full-nat over memif, {flows} flows");
        let case_name = name.clone();
        cases.push(Case::new(name, what, move |context| {
            latency(&case_name, context, &settings, &traffic, false)
        }));
    }
    let traffic = Traffic::of(1000);
    let settings = Settings::new(Default::default(), room_for(&traffic));
    cases.push(Case::new(
        "mirror-latency",
        "delays of settled flows' packets through full-nat over memif, mirrored to a live standby and not mirrored",
        move |context| latency("mirror-latency", context, &settings, &traffic, true),
    ));
    for kind in ["full-nat", "nat"] {
        let mut settings = Settings::new(Default::default(), 8_000_000);
        (settings.forwarding, settings.protocol) = (kind, "tcp");
        let name = format!("memif-connections-{kind}");
        let what = format!("whole TCP connections of nine packets through {kind} over memif");
        let case_name = name.clone();
        cases.push(Case::new(name, what, move |context| connections(&case_name, context, &settings)));
    }
    cases
}
