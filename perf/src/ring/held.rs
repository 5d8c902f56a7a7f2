//! Flows held at the configured capacity, and what each of them takes of memory: what the process
//! has more resident than before the appliance's worker was made.

use anyhow::{Result, ensure};
use baton::driver::clock::Clock;
use baton::worker::message::Role;
use dpdk::{Eal, Mempool, mempool};

use crate::case::{Case, Context};
use crate::figure::{Figure, Place};
use crate::machine;
use crate::ring::appliance;
use crate::ring::config::{self, BUFFERS, MIRROR, SERVER};
use crate::ring::flows::Flows;
use crate::ring::member::{Member, first_packets, sessions};
use crate::ring::plan::{Mirroring, Plan};

/// Flows, which is also the configured limit.
const FLOWS: u32 = 10_000_000;
/// Packets handled together.
const BURST: u32 = 32;
/// Bursts between two exchanges of mirror frames.
const EXCHANGE: u32 = 16;

/// The cases.
pub fn cases() -> Vec<Case> {
    [Mirroring::Off, Mirroring::Async].map(case).into_iter().collect()
}

fn case(mirroring: Mirroring) -> Case {
    let name = format!("held-{}", mirroring.name());
    let what =
        format!("10 million flows at a limit of 10 million, memory of each, mirroring: {}", mirroring.name());
    Case::new(name.clone(), what, move |context: &Context| {
        let plan = Plan { mirroring, ..Plan::plain(FLOWS) };
        let eal = appliance::start(&plan)?;
        let mut runs = Vec::new();
        for number in 0..context.samples {
            runs.push(run(&eal, &plan, number)?);
        }
        let column = |at: fn(&Held) -> f64| runs.iter().map(at).collect::<Vec<f64>>();
        let bytes =
            Figure::of(&name, "resident for each flow, all held", "bytes/flow", &column(|run| run.bytes));
        let place = Place::Name(mirroring.name().to_owned());
        Ok(vec![
            Figure::of(&name, "flows held, limit 10 million", "flows", &column(|run| run.flows)),
            bytes.at("Resident bytes of each of 10 million flows, by mirroring", "full-nat, IPv4", place),
            Figure::of(&name, "resident before the first flow", "MiB", &column(|run| run.at_start)),
        ])
    })
}

/// What came of a run.
struct Held {
    flows: f64,
    bytes: f64,
    /// Without flows, in MiB.
    at_start: f64,
}

fn run(eal: &Eal, plan: &Plan, number: usize) -> Result<Held> {
    let pool_config = mempool::Config { buffers: BUFFERS, ..mempool::Config::default() };
    let pool = Mempool::new(eal, &format!("held-{number}"), &pool_config)?;
    let clock = Clock::start();
    let flows = Flows::new(plan);
    let before = machine::resident_bytes();
    let mut leader = Member::start(&pool, config::config(plan, 1, FLOWS)?, clock, 1, Role::Active)?;
    let at_start = machine::resident_bytes() - before;
    let mut peer = match plan.mirroring {
        Mirroring::Off => None,
        Mirroring::Async | Mirroring::Hold => {
            let checked = config::config(plan, 2, FLOWS)?;
            let mut peer = Member::start(&pool, checked, clock, 2, Role::Standby)?;
            let (ours, theirs) = sessions()?;
            leader.join(ours);
            peer.join(theirs);
            leader.in_sync();
            Some(peer)
        }
    };
    let mut out = 0;
    for (turn, first) in (0..FLOWS).step_by(BURST as usize).enumerate() {
        let mut burst = first_packets(&pool, &flows, first..(first + BURST).min(FLOWS))?;
        leader.handle(&mut burst);
        if turn as u32 % EXCHANGE == 0 {
            out += exchange(&mut leader, peer.as_mut())?;
        }
    }
    let begin = std::time::Instant::now();
    loop {
        out += exchange(&mut leader, peer.as_mut())?;
        let status = leader.status()?;
        if status.protected == status.mirrored || peer.is_none() {
            break;
        }
        ensure!(begin.elapsed().as_secs() < 60, "{} flows are protected", status.protected);
    }
    let status = leader.status()?;
    let troubles = leader.failures();
    ensure!(troubles.is_empty() && out == FLOWS as usize, "{out} packets came out: {}", troubles.join(", "));
    ensure!(status.flows == u64::from(FLOWS), "{} flows are held", status.flows);
    if let Some(peer) = &mut peer {
        let known = peer.status()?.flows;
        ensure!(known == u64::from(FLOWS), "the peer holds {known}: {}", peer.failures().join(", "));
    }
    // What is left then is the leader's.
    drop(peer);
    let resident = machine::resident_bytes() - before;
    Ok(Held {
        flows: status.flows as f64,
        bytes: resident / f64::from(FLOWS),
        at_start: at_start / f64::from(1 << 20),
    })
}

/// Mirror frames to and fro; how many packets left for servers.
fn exchange(leader: &mut Member, peer: Option<&mut Member>) -> Result<usize> {
    leader.turn();
    let (frames, others): (Vec<_>, Vec<_>) =
        leader.take_out().into_iter().partition(|(port, _)| *port == MIRROR);
    let to_servers = others.iter().filter(|(port, _)| *port == SERVER).count();
    if let Some(peer) = peer {
        for frame in &frames {
            peer.hear_copy(frame)?;
        }
        peer.turn();
        for answer in &peer.take_out() {
            leader.hear_copy(answer)?;
        }
    }
    Ok(to_servers)
}
