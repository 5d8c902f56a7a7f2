//! Start-up: from the process's start to the first packet that it forwards.

use std::time::Duration;

use anyhow::{Result, ensure};
use baton::wire::MacAddress;

use crate::case::{Case, Context};
use crate::figure::{Figure, Series};
use crate::link::appliance::{Appliance, Settings};
use crate::link::child::Child;
use crate::link::contender::Traffic;
use crate::link::engine::{Load, Pace};
use crate::link::memif::REFERENCE;
use crate::link::plan;
use crate::link::rig::{GENERATOR_CPU, MEASURED_CPU, Pair, Rig};
use crate::link::testpmd::{self, Mode};
use crate::regime::{self, Regime};

const NAME: &str = "memif-start-up";
/// How long a start may take.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at the ports: the CPU is shared with what starts.
const REST: Duration = Duration::from_micros(100);

/// Milliseconds from the child's start to its first packet; ends it.
fn first_packet(pair: &mut Pair, load: &mut Load, child: &mut Child, hz: u64) -> Result<f64> {
    let took = loop {
        // Two packets in each look.
        if pair.engine.run(load, Pace::PerSecond(100_000.0), hz / 50_000, hz).to_servers > 0 {
            break child.started().elapsed();
        }
        child.must_live()?;
        ensure!(child.started().elapsed() < START_LIMIT, "nothing comes through:\n{}", child.log());
        std::thread::sleep(REST);
    };
    // From here on nobody looks at the ports until they are down.
    child.end()?;
    pair.wait_down(START_LIMIT)?;
    Ok(took.as_secs_f64() * 1000.0)
}

fn start_up(context: &Context) -> Result<Vec<Figure>> {
    let mut rig = Rig::memif(2)?;
    let (mut ours, mut theirs) = (rig.pair()?, rig.pair()?);
    let to = MacAddress::virtual_router_v4(plan::VIRTUAL_ROUTER_ID);
    let traffic = Traffic::of(1000);
    let mut figures = Vec::new();
    for (flows, room) in [(1_000_000, "1 million"), (10_000_000, "10 million")] {
        let settings = Settings { starts_fast: true, ..Settings::new(ours.devices.clone(), flows) };
        let mut series = Series::default();
        for _ in 0..context.samples {
            let before = regime::now([GENERATOR_CPU as usize, MEASURED_CPU as usize]);
            let mut appliance = Appliance::start(&ours.site, &settings)?;
            let mut load = traffic.load(ours.engine.clients_mac(), to, false);
            let our_time = first_packet(&mut ours, &mut load, &mut appliance.child, rig.hz)?;
            let mut reference = testpmd::start_connected(&theirs, Mode::MacSwap, MEASURED_CPU)?;
            let their_time = first_packet(&mut theirs, &mut load, &mut reference, rig.hz)?;
            let after = regime::now([GENERATOR_CPU as usize, MEASURED_CPU as usize]);
            series.push(our_time, their_time, Regime::between(before, after));
        }
        let metric = format!("start to first packet, room for {room} flows");
        figures.extend(series.figures(NAME, &metric, "ms", REFERENCE));
    }
    Ok(figures)
}

/// The cases of start-up.
pub fn cases() -> Vec<Case> {
    vec![Case::new(NAME, "from the start of the process to the first packet forwarded", start_up)]
}
