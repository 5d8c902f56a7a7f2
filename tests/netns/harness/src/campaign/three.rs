//! Three appliances whose mirror network loses and overtakes frames, and a crowd of connections: the active is killed again
//! and again, sometimes its successor too, and no connection that was open is lost.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

use crate::appliance::Role;
use crate::campaign::{Takeover, Violations, hold, takeover_in, unix_us};
use crate::command::wait_until;
use crate::config::ECHO_PORT;
use crate::crowd::{Crowd, Load, Tally};
use crate::figures::Figure;
use crate::group::Group;
use crate::plan::{Family, Translation, virtual_address};
use crate::probe::{Probe, Report};
use crate::relay::Counts;
use crate::stage::{ROLES_LIMIT, counter, virtual_servers};

/// Of a hundred clients so many open short connections, one after another.
const SHORT_OF_HUNDRED: usize = 60;
/// Besides, so many of a hundred are opened at once just before a kill, which comes while they are being opened.
const BURSTING_OF_HUNDRED: usize = 10;
/// For so long their opening is waited for.
const BURST_LIMIT: Duration = Duration::from_secs(1);
/// Downloads that show how long a transfer stands still.
const BRISK: usize = 12;
/// At a kill at least so many of a hundred clients have a connection open. Some are between two.
const OPEN_OF_HUNDRED: usize = 90;
/// Every so many kills there is one more before anybody is started again.
const TWICE_EVERY: usize = 5;
/// So often the lead may change of itself, on a machine with too much to do.
const UNASKED_MAX: usize = 10;
/// Undisturbed before a kill, and up to as long again, as the seed says.
const QUIET: Duration = Duration::from_millis(300);
/// From a takeover until what it did is measured: TCP sends again after 200 and 600 ms.
const AFTERWARDS: Duration = Duration::from_millis(1200);
/// Between two datagrams of the probe.
const PROBE_INTERVAL: Duration = Duration::from_millis(2);

/// One kill.
#[derive(Clone, Debug)]
pub struct Kill {
    /// The letters of who was killed and who leads since.
    pub who: [&'static str; 2],
    /// Whether another one was dead already, so that nobody is left to take over from the new one.
    pub last: bool,
    /// Short and long connections that were open.
    pub open: (usize, usize),
    /// When the other led, and served.
    pub takeover: Takeover,
    /// What the probe saw.
    pub probe: Report,
    /// The longest time for which each brisk download stood still.
    pub stalls: Vec<Duration>,
    /// How long it took until a standby, one that was joining too, acknowledged what the killed one had to tell of a flow:
    /// upper bounds in milliseconds, and how many.
    pub acknowledged: Vec<(f64, u64)>,
    /// From when the new one led until all that live were its synchronized standbys, whoever was started again among them.
    pub back: Duration,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Each of them.
    pub kills: Vec<Kill>,
    /// How often the lead had gone to another one of itself before a kill.
    pub unasked: usize,
    /// What became of the connections.
    pub tally: Tally,
    /// What the mirror network did.
    pub relay: Counts,
    /// What was not as required.
    pub violations: Violations,
}

impl fmt::Display for Kill {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kill { who: [killed, leads], last, open: (short, long), takeover, probe, stalls, back, .. } =
            self;
        write!(
            out,
            "{killed} to {leads}{}, {short} short and {long} long open; led after {:.1} ms, served {:.2} ms later, gap {:.1} ms, \
             stall {} ms, in sync {:.1} s later",
            if *last { ", the last one" } else { "" },
            takeover.decided.as_secs_f64() * 1e3,
            takeover.installed.as_secs_f64() * 1e3,
            probe.largest_gap.as_secs_f64() * 1e3,
            stalls.iter().max().map_or(0, Duration::as_millis),
            back.as_secs_f64(),
        )
    }
}

impl Outcome {
    /// What was measured.
    pub fn figures(&self) -> Vec<Figure> {
        let of = |name, unit, values: &dyn Fn(&Kill) -> Vec<f64>| {
            let mut figure = Figure::new(name, unit);
            self.kills.iter().flat_map(values).for_each(|value| figure.add(value));
            figure
        };
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let mut figures = vec![
            of("connections open at a kill", "connections", &|kill| vec![(kill.open.0 + kill.open.1) as f64]),
            of("of these, downloads", "connections", &|kill| vec![kill.open.1 as f64]),
            of("kill until another leads", "ms", &|kill| vec![ms(kill.takeover.decided)]),
            of("leads until it serves", "ms", &|kill| vec![ms(kill.takeover.installed)]),
            of("longest gap of a 2 ms UDP probe", "ms", &|kill| vec![ms(kill.probe.largest_gap)]),
            of("stall of a download", "ms", &|kill| kill.stalls.iter().copied().map(ms).collect()),
            of("longest stall of a download", "ms", &|kill| {
                kill.stalls.iter().copied().map(ms).reduce(f64::max).into_iter().collect()
            }),
            of("leads until all are in sync again", "ms", &|kill| vec![ms(kill.back)]),
        ];
        let mut one = |name, unit, value: f64| {
            let mut figure = Figure::new(name, unit);
            figure.add(value);
            figures.push(figure);
        };
        one("news of a flow until acknowledged, median", "ms at most", self.acknowledged_within(0.5));
        one("news of a flow until acknowledged, 99 %", "ms at most", self.acknowledged_within(0.99));
        one("kills", "kills", self.kills.len() as f64);
        one("changes of the lead unasked", "changes", self.unasked as f64);
        one("connections opened", "connections", self.tally.opened as f64);
        one("of these, complete", "connections", self.tally.complete as f64);
        one("of these, open at a kill", "connections", self.tally.survived as f64);
        one("lost", "connections", self.tally.lost as f64);
        figures
    }

    /// So long, in milliseconds, it took at most until a standby had acknowledged this share of what it was told.
    fn acknowledged_within(&self, share: f64) -> f64 {
        let mut sum = Vec::new();
        self.kills.iter().for_each(|kill| add(&mut sum, &kill.acknowledged));
        let flows: u64 = sum.iter().map(|(_, count)| count).sum();
        hold::bound_of(&sum, (flows as f64 * share).ceil() as u64)
    }
}

/// Kills the active `kills` times, with so many connections open all the time. Every fifth time the new one is killed, too,
/// before the first is started again.
pub fn kills(
    group: &mut Group,
    connections: usize,
    kills: usize,
    seed: u64,
    told: impl Fn(usize, &Kill, &Tally),
) -> Result<Outcome> {
    let [short_fetch, slow_fetch, brisk_fetch] = group.fetches()?;
    let short = connections * SHORT_OF_HUNDRED / 100;
    let brisk = BRISK.min(connections - short);
    let slow = connections - short - brisk;
    let bursting = connections * BURSTING_OF_HUNDRED / 100;
    let load = Load { short, bursting, short_fetch, slow, slow_fetch, brisk, brisk_fetch, seed };
    let crowd = Crowd::start(&group.world, virtual_servers(80), load)?;
    let mut rng = Rng::with_seed(seed);
    let mut violations = Violations::new();
    let (mut made, mut unasked) = (Vec::new(), 0);
    let result = (|| {
        while made.len() < kills {
            let twice = (made.len() + 1) % TWICE_EVERY == 0;
            let Some(kill) = kill(group, &crowd, connections, rng.f64(), twice, &mut violations)? else {
                unasked += 1;
                ensure!(unasked < UNASKED_MAX, "the lead goes from one to another of itself");
                continue;
            };
            let tally = crowd.so_far();
            told(made.len() + 1, &kill, &tally);
            made.push(kill);
            if tally.lost > 0 || !violations.is_empty() {
                break;
            }
        }
        group.revive()
    })();
    let so_far = crowd.so_far();
    let failed = match &result {
        Err(error) => Some(format!("{error:#}")),
        Ok(()) if so_far.lost > 0 => Some(so_far.broken.join("\n  ")),
        // What the appliances had to say of other violations is kept already.
        Ok(()) => None,
    };
    if let Some(why) = failed {
        group.failed(&why)?;
    }
    let tally = crowd.finish()?;
    result?;
    group.relay.still_runs()?;
    let relay = group.relay.counts();
    judge(&mut violations, &tally, &relay);
    Ok(Outcome { kills: made, unasked, tally, relay, violations })
}

/// One kill; `None` if the lead went to another one of itself before. Whoever was killed is started again, unless there is
/// to be one more before that.
fn kill(
    group: &mut Group,
    crowd: &Crowd,
    connections: usize,
    when: f64,
    once_more: bool,
    violations: &mut Violations,
) -> Result<Option<Kill>> {
    let enough = connections * OPEN_OF_HUNDRED / 100;
    wait_until("the connections to be open", ROLES_LIMIT, || {
        crowd.still_runs()?;
        let tally = crowd.so_far();
        Ok(tally.short_open + tally.long_open >= enough)
    })?;
    let probed = SocketAddr::new(virtual_address(Translation::Nat, Family::V4), ECHO_PORT);
    let probe = Probe::start(&group.world, probed, PROBE_INTERVAL)?;
    std::thread::sleep(QUIET + QUIET.mul_f64(when));
    let active = group.active()?;
    // Counters begin anew with each process.
    let acknowledged = hold::bins(&group.members[active].ask("mirror")?)?;
    let timeouts = counter(&group.members[active].ask("counters")?, "hold_timeouts")?;
    violations.require(timeouts == 0, || format!("{timeouts} packets waited for too long"));
    if group.members[active].role()? != Role::Active {
        probe.finish()?;
        return Ok(None);
    }
    let opened = crowd.so_far().opened + (when * (connections * BURSTING_OF_HUNDRED / 100) as f64) as usize;
    crowd.burst();
    let burst = Instant::now();
    while crowd.opened() < opened && burst.elapsed() < BURST_LIMIT {
        std::thread::sleep(Duration::from_micros(100));
    }
    let killed = unix_us();
    let before = crowd.fault();
    group.members[active].kill()?;

    let successor = group.leader()?;
    let led = Instant::now();
    std::thread::sleep(AFTERWARDS);
    let (probe, stalls) = (probe.finish()?, crowd.so_far().stalls);
    let survivor = &group.members[successor];
    let takeover = takeover_in(&survivor.ask("events")?, killed).context("no takeover in the events")?;
    violations.require(survivor.status()?["degraded"] == false, || {
        format!("appliance {} took over without being in sync", survivor.side().letter())
    });
    let who = [active, successor].map(|index| group.members[index].side().letter());
    let last = group.members.iter().filter(|member| member.is_started()).count() == 1;
    if let Err(error) = violations.judge() {
        // Before anything else changes.
        group.failed(&error.to_string())?;
    }
    if once_more {
        group.active()?;
    } else {
        group.revive()?;
    }
    let (open, back) = ((before.short_open, before.long_open), led.elapsed());
    let stalls = stalls.into_iter().filter(|stall| !stall.is_zero()).collect();
    Ok(Some(Kill { who, last, open, takeover, probe, stalls, acknowledged, back }))
}

/// Adds a histogram to another.
fn add(sum: &mut Vec<(f64, u64)>, bins: &[(f64, u64)]) {
    for (number, (bound, count)) in bins.iter().enumerate() {
        match sum.get_mut(number) {
            Some(bin) => bin.1 += count,
            None => sum.push((*bound, *count)),
        }
    }
}

fn judge(violations: &mut Violations, tally: &Tally, relay: &Counts) {
    for broken in &tally.broken {
        violations.add(format!("a connection that was open is lost: {broken}"));
    }
    for refused in &tally.refused {
        violations.add(format!("a client was not let in: {refused}"));
    }
    violations.require(tally.lost == 0 && tally.complete == tally.opened, || {
        format!(
            "of {} connections that were opened {} are complete, {} lost",
            tally.opened, tally.complete, tally.lost
        )
    });
    violations.require(tally.survived > 0, || "no connection was open at a kill".into());
    violations.require(relay.overflowed == 0, || format!("the relay lost what it should not: {relay:?}"));
    // Of twenty frames one, and what chance makes of it.
    let lost = relay.lost as f64 / relay.frames.max(1) as f64;
    violations.require((0.04..0.06).contains(&lost) && relay.overtaken > 0, || {
        format!("the mirror network was not as rough as wanted: {relay:?}")
    });
}
