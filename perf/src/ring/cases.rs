//! The cases on ring devices.

use anyhow::Result;
use clap::Args;

use crate::case::{Case, Context};
use crate::figure::{Figure, Place};
use crate::ring::bench::Bench;
use crate::ring::lines::Lines;
use crate::ring::plan::{Directions, Forwarding, Mirroring, Plan, Protocol, Traffic};
use crate::ring::{appliance, connections};
use crate::traffic::{Spread, sizes::Size};

/// Samples taken before those that count.
const WARM_UP: usize = 1;

/// Any case, by flags: for whoever wants to look at one thing.
#[derive(Clone, Debug, Args)]
pub struct Wanted {
    /// The appliance and its flows.
    #[command(flatten)]
    pub plan: Plan,
    /// Packets that begin a flow, in percent; several: one figure each.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub new: Vec<f64>,
    /// Which way packets go.
    #[arg(long, value_enum, default_value = "both")]
    pub directions: Directions,
    /// How packets are spread over flows: uniform or zipf.
    #[arg(long, default_value = "uniform")]
    pub spread: Spread,
    /// Frames of 64 or 1514 bytes, or a mix: 64, imix, 1500.
    #[arg(long, default_value = "64")]
    pub size: Size,
    /// Samples.
    #[arg(long, default_value_t = 5)]
    pub samples: usize,
}

impl Wanted {
    /// Measures it, in this process.
    pub fn measure(&self) -> Result<Vec<Figure>> {
        let traffic = Traffic { directions: self.directions, spread: self.spread, new: 0.0, size: self.size };
        let traffics: Vec<Traffic> = self.new.iter().map(|new| traffic.with_new(new / 100.0)).collect();
        let rows: Vec<Row> = traffics.into_iter().map(Row::plain).collect();
        measure("ring", &self.plan, &rows, self.samples)
    }
}

/// One traffic of a case, and where the report draws it.
#[derive(Clone, Debug)]
pub struct Row {
    traffic: Traffic,
    /// Whether random lines of memory under the reference are measured beside it.
    lines: bool,
    /// Chart, series, place.
    at: Option<(String, String, Place)>,
}

impl Row {
    /// Not drawn.
    pub fn plain(traffic: Traffic) -> Row {
        Row { traffic, lines: false, at: None }
    }

    fn with_lines(self) -> Row {
        Row { lines: true, ..self }
    }

    fn at(self, chart: &str, series: impl Into<String>, x: Place) -> Row {
        Row { at: Some((chart.to_owned(), series.into(), x)), ..self }
    }
}

/// Measures an appliance under several kinds of traffic: for each, cycles per packet against
/// the reference, and those beyond it.
pub fn measure(case: &str, plan: &Plan, rows: &[Row], samples: usize) -> Result<Vec<Figure>> {
    let eal = appliance::start(plan)?;
    // New flows stay: their ageing would be another appliance's work at another time.
    let per_round = 2.0 * plan.in_flight as f64;
    let rounds = (plan.rounds * (samples + WARM_UP)) as f64;
    let spare: f64 = rows.iter().map(|row| (row.traffic.new * per_round + 1.0) * rounds).sum();
    let mut bench = Bench::new(&eal, plan, spare as u32)?;
    bench.settle()?;
    let mut figures = Vec::new();
    for row in rows {
        let mut lines = if row.lines { Some(Lines::new(plan.flows)?) } else { None };
        let (mut ours, mut swapped, mut beyond, mut lined) = (vec![], vec![], vec![], vec![]);
        for number in 0..samples + WARM_UP {
            let (appliance, macswap) = bench.sample(&row.traffic, plan.rounds)?;
            let with_lines = match &mut lines {
                Some(lines) => bench.swap_sample(&row.traffic, plan.rounds, Some(lines))?,
                None => macswap,
            };
            if number >= WARM_UP {
                ours.push(appliance);
                swapped.push(macswap);
                beyond.push(appliance - macswap);
                lined.push(with_lines - macswap);
            }
        }
        let words = row.traffic.words();
        figures.push(Figure::of(case, &words, "cycles/packet", &ours).against("macswap", &swapped));
        let mut figure = Figure::of(case, format!("{words}, beyond macswap"), "cycles/packet", &beyond);
        if row.lines {
            figure = figure.against(LINES, &lined);
        }
        if let Some((chart, series, x)) = &row.at {
            figure = figure.at(chart, series, x.clone());
            if row.lines {
                let lines = Figure::of(case, format!("{LINES}, beyond macswap"), "cycles/packet", &lined);
                figures.push(lines.at(chart, LINES, x.clone()));
            }
        }
        figures.push(figure);
    }
    Ok(figures)
}

/// What the cost of flows in memory is compared with.
const LINES: &str = "three random lines";

const FLOWS: [(u32, &str); 4] = [(1_000, "1k"), (100_000, "100k"), (1_000_000, "1m"), (10_000_000, "10m")];

fn plan(forwarding: Forwarding, flows: u32, mirroring: Mirroring) -> Plan {
    Plan { forwarding, mirroring, ..Plan::plain(flows) }
}

fn case(name: String, what: String, plan: Plan, rows: Vec<Row>) -> Case {
    Case::new(name.clone(), what, move |context: &Context| measure(&name, &plan, &rows, context.samples))
}

/// The cases.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for forwarding in [Forwarding::FullNat, Forwarding::Nat] {
        for (flows, short) in FLOWS {
            cases.push(by_flows(forwarding, flows, short));
        }
    }
    cases.push(idle());
    cases.extend([Protocol::Tcp, Protocol::Udp].map(by_protocol));
    cases.push(by_direction());
    cases.push(by_size());
    for mirroring in [Mirroring::Off, Mirroring::Async, Mirroring::Hold] {
        cases.extend([FLOWS[0], FLOWS[2]].map(|(flows, short)| by_mirroring(mirroring, flows, short)));
        cases.push(whole(mirroring));
    }
    cases
}

/// What a turn costs that finds no packet: every turn with packets has that in it.
fn idle() -> Case {
    let what = "a turn of the loop that finds nothing, full-nat, 1000 flows, a peer in sync";
    Case::new("ring-idle", what, |context: &Context| {
        let plan = plan(Forwarding::FullNat, 1000, Mirroring::Async);
        let eal = appliance::start(&plan)?;
        let mut bench = Bench::new(&eal, &plan, 0)?;
        bench.settle()?;
        let samples = (0..context.samples).map(|_| bench.idle_sample(IDLE_TURNS));
        let (ours, swapped): (Vec<f64>, Vec<f64>) = samples.unzip();
        Ok(vec![Figure::of("ring-idle", "empty turn", "cycles/turn", &ours).against("macswap", &swapped)])
    })
    .essential()
}

/// Empty turns of a sample.
const IDLE_TURNS: u32 = 10_000;

/// Settled flows, and some new ones.
const NEW: [f64; 3] = [0.0, 0.01, 0.1];

/// TCP or UDP alone: the others have half of each.
fn by_protocol(protocol: Protocol) -> Case {
    let name = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
    let rows = NEW.map(|new| Row::plain(Traffic::PLAIN.with_new(new)));
    let plan = Plan { protocol, ..plan(Forwarding::FullNat, 1000, Mirroring::Async) };
    case(format!("ring-{name}"), format!("full-nat, 1000 flows, all of them {name}"), plan, rows.to_vec())
}

fn by_direction() -> Case {
    let row = |directions, new| Row::plain(Traffic { directions, ..Traffic::PLAIN }.with_new(new));
    let rows = vec![
        row(Directions::Forth, 0.0),
        row(Directions::Forth, 0.01),
        row(Directions::Back, 0.0),
        row(Directions::Both, 0.0),
        row(Directions::Both, 0.01),
    ];
    let plan = plan(Forwarding::FullNat, 1000, Mirroring::Async);
    case(
        "ring-directions".to_owned(),
        "full-nat, 1000 flows, to servers, to clients, both".to_owned(),
        plan,
        rows,
    )
}

fn by_size() -> Case {
    let chart = "Cycles per packet beyond macswap, by length of frames";
    let row = |size: Size| {
        let traffic = Traffic { size, ..Traffic::PLAIN };
        Row::plain(traffic).at(chart, "full-nat, 1000 flows", Place::Name(size.name().to_owned()))
    };
    let rows = [Size::Smallest, Size::Imix, Size::Largest].map(row).to_vec();
    let plan = plan(Forwarding::FullNat, 1000, Mirroring::Async);
    case("ring-sizes".to_owned(), "full-nat, 1000 flows, frames of several lengths".to_owned(), plan, rows)
}

/// Whole connections.
fn whole(mirroring: Mirroring) -> Case {
    let name = format!("ring-connections-{}", mirroring.name());
    let what = format!("full-nat, whole connections, mirroring: {}", mirroring.name());
    let plan = plan(Forwarding::FullNat, 0, mirroring);
    let case = Case::new(name.clone(), what, move |context: &Context| {
        connections::measure(&name, &plan, context.samples)
    });
    if mirroring == Mirroring::Async { case.essential() } else { case }
}

/// What mirroring costs, with a peer that applies and acknowledges.
fn by_mirroring(mirroring: Mirroring, flows: u32, short: &str) -> Case {
    let chart = "Cycles per packet beyond macswap, by mirroring";
    let name = mirroring.name();
    let row = |new: f64| {
        let series = format!("{short} flows, {} new", super::plan::percent(new));
        Row::plain(Traffic::PLAIN.with_new(new)).at(chart, series, Place::Name(name.to_owned()))
    };
    case(
        format!("ring-mirror-{name}-{short}"),
        format!("full-nat, {flows} flows, mirroring: {name}"),
        plan(Forwarding::FullNat, flows, mirroring),
        NEW.map(row).to_vec(),
    )
}

/// How the cost grows with the number of flows: the headline.
fn by_flows(forwarding: Forwarding, flows: u32, short: &str) -> Case {
    let name = forwarding.name();
    let chart = format!("Cycles per packet beyond macswap, {name}, by flows");
    let row = |new: f64, spread: Spread| {
        let traffic = Traffic { spread, ..Traffic::PLAIN }.with_new(new);
        let spread = if spread == Spread::Zipf { ", Zipf" } else { "" };
        let series = format!("{} new{spread}", super::plan::percent(new));
        Row::plain(traffic).at(&chart, series, Place::Number(f64::from(flows)))
    };
    let mut rows =
        vec![row(0.0, Spread::Uniform).with_lines(), row(0.01, Spread::Uniform), row(0.1, Spread::Uniform)];
    rows.push(row(0.0, Spread::Zipf));
    let case = case(
        format!("ring-{name}-{short}"),
        format!("{name}, {flows} flows, half TCP, half UDP, mirrored without waiting: both ways, 64 bytes"),
        plan(forwarding, flows, Mirroring::Async),
        rows,
    );
    if flows <= 1_000_000 { case.essential() } else { case }
}
