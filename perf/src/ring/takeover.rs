//! What a takeover costs a worker that holds many flows: from the word to lead until it says that it serves, until the
//! announcements are out, and until packets of flows at random, which wait in its ports already, are out too.
//!
//! The decision itself, and the wait before it, are not in it: they are the liveness thread's, and know nothing of flows.

use anyhow::{Result, anyhow, ensure};
use baton::base::ids::Term;
use baton::base::io::TxClass;
use baton::driver::rings::Frame;
use baton::failover::FrameBytes;
use baton::worker::message::Role;
use dpdk::Mbuf;
use dpdk::clock::{tsc, tsc_hz};

use crate::case::{Case, Context};
use crate::figure::{Figure, Place};
use crate::ring::appliance::{self, TERM, send_all};
use crate::ring::bench::{Bench, SIDES};
use crate::ring::config::MIRROR;
use crate::ring::plan::{Mirroring, Plan, Traffic};
use crate::ring::script::Came;

/// Flows, and how they are called.
const FLOWS: [(u32, &str); 3] = [(1_000, "1k"), (1_000_000, "1m"), (10_000_000, "10m")];
/// Gratuitous ARP and unsolicited neighbour advertisements of as many addresses.
const ANNOUNCEMENTS: usize = 32;
/// Their length in bytes.
const ANNOUNCEMENT_LEN: usize = 60;
/// How often at least: for a distribution.
const TAKEOVERS: usize = 100;
/// It is over in so many turns, or something is wrong.
const TURNS_MAX: usize = 1_000_000;

/// The cases.
pub fn cases() -> Vec<Case> {
    FLOWS.map(|(flows, short)| case(flows, short)).into_iter().collect()
}

fn case(flows: u32, short: &str) -> Case {
    let name = format!("takeover-{short}");
    let what = format!("a standby with {flows} flows leads: until it serves, has announced, has forwarded");
    Case::new(name.clone(), what, move |context: &Context| {
        // Its peer is gone: that is why it leads.
        let plan = Plan { mirroring: Mirroring::Off, ..Plan::plain(flows) };
        let eal = appliance::start(&plan)?;
        let mut bench = Bench::new(&eal, &plan, 0)?;
        bench.settle()?;
        let (mut installed, mut announced, mut forwarded) = (vec![], vec![], vec![]);
        let us = |ticks: u64| ticks as f64 * 1e6 / tsc_hz(&eal) as f64;
        for number in 0..=TAKEOVERS.max(context.samples) as u64 {
            let took = bench.take_over(number)?;
            // The first one warms up.
            if number > 0 {
                installed.push(us(took.installed));
                announced.push(us(took.announced));
                forwarded.push(us(took.forwarded));
            }
        }
        let figure = |metric: &str, samples: &[f64]| {
            let chart = "Microseconds from the word to lead, by flows";
            Figure::of(&name, metric, "µs", samples).at(chart, metric, Place::Number(f64::from(flows)))
        };
        let packets = 2 * plan.in_flight;
        Ok(vec![
            figure("until it says that it serves", &installed),
            figure(&format!("until {ANNOUNCEMENTS} announcements are out"), &announced),
            figure(&format!("until {packets} packets of flows at random are out"), &forwarded),
        ])
    })
}

/// From the word to lead, in ticks.
struct Took {
    installed: u64,
    announced: u64,
    forwarded: u64,
}

impl Bench {
    /// One takeover, with packets of random flows in the ports.
    fn take_over(&mut self, number: u64) -> Result<Took> {
        // Epochs 1 and 2 are the start's.
        let (epoch, term) = (10 + 2 * number, |counter| Term { counter, ..TERM });
        self.appliance.take_role(epoch, Role::Standby, term(2 + 2 * number))?;
        self.turn_until("it follows", |bench| Ok(bench.appliance.has_installed(epoch)))?;
        let mut sent = 0;
        for script in self.scripts(&Traffic::PLAIN, 1) {
            for (written, wire) in script.iter().zip(&mut self.appliance.wires) {
                let packets: Result<Vec<Mbuf>> =
                    written.iter().map(|one| one.packet(&self.devices)).collect();
                send_all(&mut wire.tx, packets?)?;
                sent += written.len();
            }
        }
        let mut came: Vec<Came> = Vec::with_capacity(sent);

        let begin = tsc();
        self.appliance.take_role(epoch + 1, Role::Active, term(3 + 2 * number))?;
        let mut at = [None; 3];
        let mut announcements = 0;
        self.turn_until("it leads", |bench| {
            if at[0].is_none() && bench.appliance.has_installed(epoch + 1) {
                at[0] = Some(tsc() - begin);
                bench.announce()?;
            }
            announcements += bench.appliance.wires[usize::from(MIRROR.0)].take().len();
            if at[1].is_none() && announcements == ANNOUNCEMENTS {
                at[1] = Some(tsc() - begin);
            }
            for side in SIDES {
                bench.copy_out(side, &mut came)?;
            }
            if at[2].is_none() && came.len() == sent {
                at[2] = Some(tsc() - begin);
            }
            Ok(at.iter().all(Option::is_some))
        })?;
        let count = came.len();
        self.check(&came, &[count])?;
        ensure!(self.troubles().is_empty(), "{}", self.troubles());
        let [installed, announced, forwarded] = at.map(Option::unwrap_or_default);
        Ok(Took { installed, announced, forwarded })
    }

    /// What the liveness thread would have a new active send.
    fn announce(&mut self) -> Result<()> {
        for _ in 0..ANNOUNCEMENTS {
            let bytes = FrameBytes::try_from(&[0; ANNOUNCEMENT_LEN][..])?;
            self.appliance.send_frame(Frame { port: MIRROR, class: TxClass::Service, bytes })?;
        }
        Ok(())
    }

    fn turn_until(&mut self, what: &str, mut over: impl FnMut(&mut Bench) -> Result<bool>) -> Result<()> {
        for _ in 0..TURNS_MAX {
            self.appliance.turn();
            if over(self)? {
                return Ok(());
            }
        }
        Err(anyhow!("waited in vain until {what}: {}", self.troubles()))
    }
}
