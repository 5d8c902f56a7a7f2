//! What happens in a run: chosen by its seed.

use std::fmt;

use baton::base::rng::Rng;

use crate::agenda::{MS, Nanos};
use crate::config::{Options, SELECT, SELECT_EVENLY, SERVICES};
use crate::division::{Division, Steering};
use crate::kind::Kind;
use crate::link::{MIRROR, Weather};
use crate::script::Script;
use crate::steps::steps;
use crate::witness::Surroundings;

#[derive(Clone, Debug)]
pub struct Scenario {
    pub kind: Kind,
    pub options: Options,
    pub weather: [Weather; 3],
    /// Connections in a second.
    pub rate: u64,
    /// Of 256 connections, those that last long.
    pub long: u8,
    /// The lcores of each appliance: there are as many appliances.
    pub divisions: Vec<Division>,
    pub steering: Steering,
    /// How much of each appliance's time passes in a million of the world's.
    pub rates: Vec<u32>,
    /// Of the witness, if there is one.
    pub witness: Surroundings,
    /// A short run of few lcores and connections, with the same faults.
    pub light: bool,
    /// The flows of small tables, and of whom: of one, or of all.
    pub small: Option<(u32, Option<u16>)>,
    /// Packets that a worker may hold.
    pub hold_packets_max: usize,
    /// About how long after one request to move shards the next one follows; 0: there are none.
    pub moves: Nanos,
}

impl Scenario {
    /// How many flows the table of a node may have, if it is a small one.
    pub fn flows_max(&self, node: u16) -> Option<u32> {
        let (max, whose) = self.small?;
        whose.is_none_or(|whose| whose == node).then_some(max)
    }

    /// Nothing is lost on the clients' and servers' LANs.
    pub fn is_fair(&self) -> bool {
        self.weather[..2].iter().all(|weather| weather.loss == 0 && weather.flip == 0)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { kind, rate, divisions, steering, moves, .. } = self;
        let divisions: Vec<String> = divisions.iter().map(Division::to_string).collect();
        write!(f, "{kind:?}, {rate}/s, lcores {}, {steering:?}", divisions.join(" and "))?;
        if *moves > 0 {
            write!(f, ", shards move every {} ms", moves / MS)?;
        }
        let mut select: Vec<&str> = self.options.select.into();
        select.sort_unstable();
        select.dedup();
        if let Some((max, whose)) = self.small {
            let whose = whose.map_or("all".to_owned(), |node| format!("node {node}"));
            write!(f, ", tables of {whose} for {max} flows")?;
        }
        if self.weather[MIRROR].loss > 0 {
            write!(f, ", {} % lost between mirrors", self.weather[MIRROR].loss / 10_000)?;
        }
        if select == ["source"] { Ok(()) } else { write!(f, ", by {}", select.join(", ")) }
    }
}

/// The scenario of a seed; of this kind, or of the one that the seed says.
pub fn of_seed(seed: u64, kind: Option<Kind>, light: bool) -> (Scenario, Script) {
    let mut rng = Rng::with_seed(seed ^ 0x5eed_5eed);
    let kind = kind.unwrap_or(Kind::ALL[(seed % Kind::ALL.len() as u64) as usize]);
    let mut weather = [Weather::default(); 3];
    if kind != Kind::Calm && rng.u8(..) < 100 {
        // Data links that lose and double a little; heartbeats too.
        for lan in &mut weather[..2] {
            *lan = Weather { loss: rng.u32(0..5_000), duplicate: rng.u32(0..5_000), ..Weather::default() };
            lan.flip = rng.u32(0..5_000);
        }
    }
    if kind.has_rough_mirror() || kind == Kind::FlowsDamaged && rng.bool() {
        // In every second run it is bad, in the others it is almost none.
        let worst = if rng.bool() { 300_000 } else { 60_000 };
        weather[MIRROR] = Weather {
            loss: rng.u32(0..=worst),
            duplicate: rng.u32(0..=worst),
            reorder: rng.u32(0..=worst.max(200_000)),
            straggle: rng.u32(0..20_000),
            flip: rng.u32(0..=worst / 3),
        };
    }
    let options = Options {
        closing_timeout_s: if kind.fills_tables() { 1 } else { rng.u32(1..3) },
        udp_timeout_s: rng.u32(1..4),
        quarantine_s: rng.u32(0..3),
        walk_rate: [500, 5_000, 100_000][rng.usize(0..3)],
        is_safe: kind.prefers_safety(),
        has_witness: kind.has_witness(),
        has_rules: kind == Kind::FlowsChosen,
        partial: kind.partial(),
        is_periodic: kind.is_periodic(),
        select: ["source"; SERVICES.len()],
    };
    let mut scenario = Scenario {
        kind,
        options,
        weather,
        rate: if light { rng.u64(30..80) } else { rng.u64(40..260) },
        long: if light { rng.u8(100..200) } else { rng.u8(20..140) },
        divisions: match light {
            true => (0..kind.members()).map(|_| Division::light(&mut rng)).collect(),
            false => Division::of_group(&mut rng, kind.members()),
        },
        steering: [Steering::Alike, Steering::ByDirection, Steering::Spraying][rng.usize(..3)],
        light,
        moves: 0,
        small: None,
        hold_packets_max: 1024,
        rates: rates(seed, kind),
        witness: surroundings(seed),
    };
    if scenario.divisions.iter().any(|division| division.workers() > 1) {
        // What stalls may break is best seen when much is moved.
        scenario.moves = match kind {
            Kind::ShortStalls => rng.u64(2..8) * MS,
            _ if rng.bool() => rng.u64(2..60) * MS,
            _ => 0,
        };
    }
    if rng.bool() {
        for (select, service) in scenario.options.select.iter_mut().zip(SERVICES) {
            let ways = if service.full_nat { SELECT_EVENLY } else { SELECT.len() };
            *select = SELECT[rng.usize(..ways)];
        }
    }
    if kind.fills_tables() {
        let (least, most) = if light { (10, 24) } else { (20, 120) };
        let whose = if rng.bool() { Some(rng.u16(1..=kind.members() as u16)) } else { None };
        scenario.small = Some((rng.u32(least..most), whose));
        scenario.rate *= if light { 3 } else { 1 };
    }
    if kind.disturbs_mirror() && rng.u8(..4) == 0 {
        scenario.hold_packets_max = rng.usize(8..32);
    }
    (scenario, Script::new(steps(kind, light, &mut rng)))
}

/// Clocks run apart by 1000 in a million at most, as the configuration's check allows for.
const SLOWEST: u32 = 999_500;
const FASTEST: u32 = 1_000_500;

/// Clocks of crystals run as exactly as 100 in a million, and with [`Kind::ClockDrifts`] two of them drift apart by as much
/// as the configuration's check allows for. Where there is a witness, any two of the three may.
fn rates(seed: u64, kind: Kind) -> Vec<u32> {
    let mut rng = Rng::with_seed(seed ^ 0xc10c_c10c);
    let first = rng.bool();
    let rate = |at: usize| match (kind, (at % 2 == 0) == first) {
        (Kind::ClockDrifts, true) => FASTEST,
        (Kind::ClockDrifts, false) => SLOWEST,
        (kind, _) if kind.has_witness() => rng.u32(SLOWEST..=FASTEST),
        (_, _) => rng.u32(999_900..=1_000_100),
    };
    (0..kind.members()).map(rate).collect()
}

/// The witness's ways lose up to one datagram in twenty, in every second run.
fn surroundings(seed: u64) -> Surroundings {
    let mut rng = Rng::with_seed(seed ^ 0x7171_7171);
    let loss = if rng.bool() { rng.u32(0..50_000) } else { 0 };
    Surroundings { loss, rate: rng.u32(SLOWEST..=FASTEST) }
}
