//! What this appliance's health follows from: links of tracked ports, the tracking script, servers that answer.
//!
//! In: what the driver found out of links and of the script, and the neighbours. Out: [`HealthNews`] whenever something
//! changed. What is made of it is said in `failover/health.rs`.
//!
//! A server answers as long as its link address, or that of its gateway, resolves: a standby asks as the active does, from
//! its own address, so the two can be compared. Servers of a pool with `least_servers` are asked about once a second.

use core::fmt;

use crate::base::ids::PortId;
use crate::base::time::{Duration, Instant};
use crate::config::checked::Checked;
use crate::failover::Health;
use crate::master::neighbours::{Answering, Neighbours};
use crate::traffic::routes::{NextHop, Routes};

/// Between two counts of servers.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// The link of this tracked port is down.
    LinkDown(String),
    /// The tracking script fails.
    ScriptFails,
    /// Fewer of a pool's servers answer than it needs.
    TooFewServers {
        /// The pool's name.
        pool: String,
        /// It needs so many.
        least: u32,
    },
}

impl Ailment {
    /// What is said when it is over.
    pub fn healed(&self) -> String {
        match self {
            Ailment::LinkDown(port) => format!("the link of port {port} is up"),
            Ailment::ScriptFails => "the tracking script succeeds".to_owned(),
            Ailment::TooFewServers { pool, least } => {
                format!("pool {pool}: {least} or more of its servers answer")
            }
        }
    }
}

impl fmt::Display for Ailment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ailment::LinkDown(port) => write!(f, "the link of port {port} is down"),
            Ailment::ScriptFails => f.write_str("the tracking script fails"),
            Ailment::TooFewServers { pool, least } => {
                write!(f, "pool {pool}: fewer than {least} of its servers answer")
            }
        }
    }
}

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthNews {
    /// What counts in who leads.
    pub health: Health,
    /// All that is wrong.
    pub ailments: Vec<Ailment>,
    /// What is wrong since now.
    pub began: Vec<Ailment>,
    /// What is no longer.
    pub ended: Vec<Ailment>,
}

/// Runs of the script, counted in a row.
#[derive(Clone, Debug)]
struct Tally {
    rise: u16,
    fall: u16,
    /// As far as is known. Before the first run it has not failed, and may.
    failed: bool,
    ran: bool,
    /// The newest runs that say otherwise.
    otherwise: u16,
}

impl Tally {
    fn count(&mut self, succeeded: bool) {
        self.ran = true;
        if succeeded != self.failed {
            self.otherwise = 0;
            return;
        }
        self.otherwise += 1;
        if self.otherwise >= if self.failed { self.rise } else { self.fall } {
            self.failed = !self.failed;
            self.otherwise = 0;
        }
    }

    fn is_doubtful(&self) -> bool {
        !self.failed && (!self.ran || self.otherwise > 0)
    }
}

#[derive(Clone, Debug)]
struct Link {
    port: PortId,
    name: String,
    up: bool,
}

#[derive(Clone, Debug)]
struct Pool {
    name: String,
    least: u32,
    /// How each of its servers is reached, if there is a way.
    hops: Vec<Option<NextHop>>,
    /// How it was at the newest count.
    standing: Answering,
}

/// All that is watched.
#[derive(Clone, Debug)]
pub struct HealthWatch {
    links: Vec<Link>,
    script: Option<Tally>,
    pools: Vec<Pool>,
    count_at: Instant,
    told: (Health, Vec<Ailment>),
}

impl HealthWatch {
    /// Watches what a configuration names; nothing is known to be wrong yet.
    pub fn new(now: Instant, config: &Checked, neighbours: &mut Neighbours) -> HealthWatch {
        let track = &config.failover.track;
        let name = |port: &PortId| config.ports.get(usize::from(port.0)).map(|port| port.name.clone());
        let links =
            track.ports.iter().filter_map(|port| Some(Link { port: *port, name: name(port)?, up: true }));
        let script = track.script.as_ref().map(|script| Tally {
            rise: script.rise,
            fall: script.fall,
            failed: false,
            ran: false,
            otherwise: 0,
        });
        let told = (Health::WELL, Vec::new());
        let pools = watch_pools(config, neighbours);
        HealthWatch { links: links.collect(), script, pools, count_at: now, told }
    }

    /// Other pools and servers.
    pub fn configure(&mut self, config: &Checked, neighbours: &mut Neighbours) {
        let before = core::mem::replace(&mut self.pools, watch_pools(config, neighbours));
        for pool in &mut self.pools {
            // Until the next count.
            let known = before.iter().find(|known| known.name == pool.name);
            pool.standing = known.map_or(Answering::Doubtful, |known| known.standing);
        }
    }

    /// A port's link is up, or down; whether that is news of a tracked port that went down.
    pub fn handle_link(&mut self, port: PortId, up: bool) -> bool {
        let link = self.links.iter_mut().find(|link| link.port == port);
        link.is_some_and(|link| core::mem::replace(&mut link.up, up) && !up)
    }

    /// A run of the script ended.
    pub fn handle_script(&mut self, succeeded: bool) {
        if let Some(script) = &mut self.script {
            script.count(succeeded);
        }
    }

    /// What changed since the last call.
    pub fn poll(&mut self, now: Instant, neighbours: &Neighbours) -> Option<HealthNews> {
        if now >= self.count_at {
            self.count_at = now + COUNT_INTERVAL;
            for pool in &mut self.pools {
                pool.standing = pool.count(neighbours);
            }
        }
        let ailments = self.ailments();
        let pools = self.pools.iter().filter(|pool| pool.standing == Answering::Doubtful).count();
        let doubtful = pools + usize::from(self.script.as_ref().is_some_and(Tally::is_doubtful));
        let few = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
        let health = Health { failed: few(ailments.len()), doubtful: few(doubtful) };
        if (health, &ailments) == (self.told.0, &self.told.1) {
            return None;
        }
        let (_, before) = core::mem::replace(&mut self.told, (health, ailments.clone()));
        let began = ailments.iter().filter(|ailment| !before.contains(ailment)).cloned().collect();
        let ended = before.iter().filter(|ailment| !ailments.contains(ailment)).cloned().collect();
        Some(HealthNews { health, ailments, began, ended })
    }

    /// When [`HealthWatch::poll`] may find something by itself.
    pub fn next_deadline(&self) -> Instant {
        if self.pools.is_empty() { Instant::FAR_FUTURE } else { self.count_at }
    }

    fn ailments(&self) -> Vec<Ailment> {
        let links = self.links.iter().filter(|link| !link.up);
        let script = self.script.iter().filter(|script| script.failed);
        let pools = self.pools.iter().filter(|pool| pool.standing == Answering::No);
        links
            .map(|link| Ailment::LinkDown(link.name.clone()))
            .chain(script.map(|_| Ailment::ScriptFails))
            .chain(pools.map(|pool| Ailment::TooFewServers { pool: pool.name.clone(), least: pool.least }))
            .collect()
    }
}

/// The pools that need a number of servers, whose neighbours are asked often.
fn watch_pools(config: &Checked, neighbours: &mut Neighbours) -> Vec<Pool> {
    let routes = Routes::new(config);
    let pools: Vec<Pool> = config
        .pools
        .iter()
        .filter(|pool| pool.least_servers > 0)
        .map(|pool| Pool {
            name: pool.name.clone(),
            least: pool.least_servers,
            hops: pool
                .servers
                .iter()
                .filter(|server| server.weight > 0)
                .map(|server| routes.next_hop(server.address))
                .collect(),
            standing: Answering::Yes,
        })
        .collect();
    for hop in pools.iter().flat_map(|pool| &pool.hops).flatten() {
        neighbours.watch(hop.port, hop.address);
    }
    pools
}

impl Pool {
    /// Whether enough of its servers answer.
    fn count(&self, neighbours: &Neighbours) -> Answering {
        let of = |wanted: &[Answering]| {
            let answers = |hop: &&Option<NextHop>| {
                let answer = hop.map_or(Answering::No, |hop| neighbours.answering(hop.port, hop.address));
                wanted.contains(&answer)
            };
            self.hops.iter().filter(answers).count() >= self.least as usize
        };
        if of(&[Answering::Yes]) {
            Answering::Yes
        } else if of(&[Answering::Yes, Answering::Doubtful]) {
            Answering::Doubtful
        } else {
            Answering::No
        }
    }
}

#[cfg(test)]
#[path = "health_tests.rs"]
mod tests;
