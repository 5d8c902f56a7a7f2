//! Records a second of one core, in a walk: two whole workers on one CPU, in turns, each timed while it works. The sender looks
//! over its table, writes, seals and handles acknowledgements; the receiver opens, verifies, applies and answers. Their frames
//! are copied from one to the other outside of the timed windows.

use anyhow::{Result, ensure};
use baton::driver::clock::Clock;
use baton::worker::message::Role;
use dpdk::clock::{tsc, tsc_hz};
use dpdk::{Mempool, mempool};

use crate::case::{Case, Context};
use crate::figure::Figure;
use crate::ring::appliance;
use crate::ring::config::{self, BUFFERS, MIRROR};
use crate::ring::flows::Flows;
use crate::ring::member::{Member, first_packets, sessions};
use crate::ring::plan::{Mirroring, Plan};

/// Flows that are walked.
const FLOWS: u32 = 1_000_000;
/// Packets handled together.
const BURST: u32 = 32;
/// No walk takes longer.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// The case.
pub fn case() -> Case {
    let what =
        "records a second of one core: a walk over 1 million flows between two workers, one CPU in turns";
    Case::new("mirror-records", what, measure)
}

fn measure(context: &Context) -> Result<Vec<Figure>> {
    let plan = Plan { mirroring: Mirroring::Async, walk_rate: Some(10_000_000), ..Plan::plain(FLOWS) };
    let eal = appliance::start(&plan)?;
    let hz = tsc_hz(&eal) as f64;
    let pool_config = mempool::Config { buffers: BUFFERS, ..mempool::Config::default() };
    let pool = Mempool::new(&eal, "records", &pool_config)?;
    let clock = Clock::start();
    let room = FLOWS + FLOWS / 10;
    let mut leader = Member::start(&pool, config::config(&plan, 1, room)?, clock, 1, Role::Active)?;
    leader.populate();
    fill(&mut leader, &pool, &Flows::new(&plan))?;
    let [mut sends, mut receives, mut sent, mut received, mut bytes] = [const { Vec::new() }; 5];
    for number in 0..=context.samples {
        let mut peer = Member::start(&pool, config::config(&plan, 2, room)?, clock, 2, Role::Standby)?;
        peer.populate();
        let (ours, theirs) = sessions()?;
        leader.join(ours);
        peer.join(theirs);
        let walk = walk(&mut leader, &mut peer)?;
        // The first one warms up.
        if number > 0 {
            sends.push(walk.sender);
            receives.push(walk.receiver);
            sent.push(hz / walk.sender / 1e6);
            received.push(hz / walk.receiver / 1e6);
            bytes.push(walk.bytes);
        }
    }
    let figure =
        |metric: &str, unit: &str, samples: &[f64]| Figure::of("mirror-records", metric, unit, samples);
    Ok(vec![
        figure("sender", "cycles/record", &sends),
        figure("receiver", "cycles/record", &receives),
        figure("sender, of one core", "Mrecords/s", &sent),
        figure("receiver, of one core", "Mrecords/s", &received),
        figure("on the link, IPv4", "bytes/record", &bytes),
    ])
}

/// The leader has every flow.
fn fill(leader: &mut Member, pool: &Mempool, flows: &Flows) -> Result<()> {
    for first in (0..FLOWS).step_by(BURST as usize) {
        let mut burst = first_packets(pool, flows, first..(first + BURST).min(FLOWS))?;
        leader.handle(&mut burst);
        leader.take_out();
    }
    ensure!(leader.flows() == u64::from(FLOWS), "{} flows: {}", leader.flows(), leader.failures().join(", "));
    Ok(())
}

/// Of one walk: cycles per record, and bytes of its frames.
struct Walked {
    sender: f64,
    receiver: f64,
    bytes: f64,
}

fn walk(leader: &mut Member, peer: &mut Member) -> Result<Walked> {
    let (mut sender, mut receiver, mut bytes) = (0, 0, 0);
    let begin = std::time::Instant::now();
    while peer.flows() < u64::from(FLOWS) {
        let began = tsc();
        leader.turn();
        let ticks = tsc() - began;
        let frames = leader.take_out();
        if frames.is_empty() {
            // It may not name more yet.
            ensure!(begin.elapsed() < LIMIT, "{} flows: {}", peer.flows(), peer.failures().join(", "));
            continue;
        }
        sender += ticks;
        ensure!(frames.iter().all(|(port, _)| *port == MIRROR), "a packet left by another port");
        bytes += frames.iter().map(|(_, frame)| baton::base::buffer::Buffer::total_len(frame)).sum::<usize>();
        let mut copies = peer.copies(&frames)?;
        drop(frames);
        let began = tsc();
        peer.handle(&mut copies);
        peer.turn();
        receiver += tsc() - began;
        let mut answers = leader.copies(&peer.take_out())?;
        let began = tsc();
        leader.handle(&mut answers);
        sender += tsc() - began;
    }
    let failures = peer.failures();
    ensure!(failures.is_empty(), "peer: {}", failures.join(", "));
    let each = |sum: u64| sum as f64 / f64::from(FLOWS);
    Ok(Walked { sender: each(sender), receiver: each(receiver), bytes: each(bytes as u64) })
}
