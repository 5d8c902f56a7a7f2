//! A world with everything in it: servers, echo services, and a pair of appliances that runs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::appliance::{Appliance, Role, wait_for_roles};
use crate::config::{self, Settings};
use crate::plan::{self, Family, Translation, virtual_address};
use crate::probe::Echo;
use crate::web::Web;
use crate::witness::Witness;
use crate::world::World;

/// Servers in the world.
pub(crate) const SERVERS: usize = 2;
/// How long roles may take to be settled.
pub const ROLES_LIMIT: Duration = Duration::from_secs(30);
/// The file that throttled downloads fetch, and its length in bytes.
pub const FILE: (&str, usize) = ("file", 400_000);
/// The file of downloads of two seconds.
pub const MIDDLE_FILE: (&str, usize) = ("middle", 2_000_000);
/// The file of one fast download.
pub const LONG_FILE: (&str, usize) = ("long", 4_000_000);
/// What an appliance is asked when something went wrong.
const QUESTIONS: [&str; 7] = ["status", "events", "counters", "mirror", "flows", "ports", "pools"];

/// A world with everything in it. What runs is dropped before the world is.
#[derive(Debug)]
pub struct Stage {
    /// Both appliances.
    pub pair: [Appliance; 2],
    /// The web servers.
    pub web: Web,
    /// The echo services, one for each server and family.
    pub echoes: Vec<Echo>,
    /// The witness, if the settings have one.
    pub witness: Option<Witness>,
    /// The namespaces.
    pub world: World,
}

impl Stage {
    /// Sets it up: one appliance leads, the other is its synchronized standby.
    pub fn set(binary: &Path, settings: &Settings) -> Result<Stage> {
        let world = World::new(SERVERS)?;
        let web = Web::start(&world, &[FILE, MIDDLE_FILE, LONG_FILE])?;
        let echoes = echoes(&world)?;
        let pair = Appliance::pair(&world, binary, settings)?;
        let witness = settings.witness.then(|| Witness::set(&world, binary)).transpose()?;
        let mut stage = Stage { pair, web, echoes, witness, world };
        let up = stage.pair.iter_mut().try_for_each(Appliance::start).and_then(|()| stage.active());
        if let Err(error) = up {
            return Err(stage.failed(&error.to_string()).map_or_else(|e| e, |_| error));
        }
        Ok(stage)
    }

    /// Waits until one leads and the other is its synchronized standby; the index of the one that leads.
    pub fn active(&self) -> Result<usize> {
        wait_for_roles(&self.pair, ROLES_LIMIT)
    }

    /// An error unless this one leads: a fault meant for the active must meet the active. On a machine with too much to
    /// do, roles can change of themselves.
    pub fn still_leads(&self, index: usize) -> Result<()> {
        let letter = self.pair[index].side().letter();
        ensure!(
            self.pair[index].role()? == Role::Active,
            "appliance {letter} lost the lead before the fault"
        );
        Ok(())
    }

    /// The witness.
    pub fn witness(&mut self) -> Result<&mut Witness> {
        self.witness.as_mut().context("the settings have no witness")
    }

    /// Starts a killed appliance again and waits until it is the other one's synchronized standby.
    pub fn revive(&mut self, index: usize) -> Result<()> {
        self.pair[index].start()?;
        self.pair[index].wait_role(Role::Standby, ROLES_LIMIT)?;
        self.pair[1 - index].wait_role(Role::Active, ROLES_LIMIT)?;
        self.pair[1 - index].wait_synchronized(ROLES_LIMIT)
    }

    /// Starts again whichever appliance does not run, and waits until the pair is at rest.
    pub fn revive_all(&mut self) -> Result<()> {
        for index in 0..2 {
            if self.pair[index].process().is_err() {
                self.revive(index)?;
            }
        }
        self.active().map(drop)
    }

    /// Writes down what both appliances say, keeps all logs and captures, and returns where.
    pub fn failed(&mut self, why: &str) -> Result<PathBuf> {
        keep_evidence(&mut self.world, &self.pair, why)
    }
}

/// An echo service on each server, for each family.
pub fn echoes(world: &World) -> Result<Vec<Echo>> {
    let mut echoes = Vec::new();
    for (name, host) in world.server_names().iter().zip(world.server_hosts()) {
        for address in [plan::server4(host).into(), plan::server6(host).into()] {
            echoes.push(Echo::start(world, name, SocketAddr::new(address, config::ECHO_PORT))?);
        }
    }
    Ok(echoes)
}

/// Writes down what appliances say, keeps all logs and captures, and returns where.
pub fn keep_evidence(world: &mut World, appliances: &[Appliance], why: &str) -> Result<PathBuf> {
    world.keep_logs();
    eprintln!("\nwhat went wrong: {why}");
    for appliance in appliances {
        let letter = appliance.side().letter();
        for question in QUESTIONS {
            let answer = match appliance.ask(question) {
                Ok(answer) => answer,
                Err(error) => Value::String(format!("{error:#}")),
            };
            let file = world.directory().join(format!("{letter}-{question}.json"));
            fs::write(&file, format!("{answer:#}\n"))
                .with_context(|| format!("cannot write {}", file.display()))?;
            show(letter, question, &answer);
        }
    }
    Ok(world.directory().to_owned())
}

/// The parts of an answer that say most at a glance.
fn show(letter: &str, question: &str, answer: &Value) {
    match question {
        "events" => {
            let all = answer["events"].as_array().map_or(&[][..], Vec::as_slice);
            for event in &all[all.len().saturating_sub(15)..] {
                eprintln!(
                    "  {letter} {} {}",
                    event["unix_ms"],
                    event["message"].as_str().unwrap_or_default()
                );
            }
        }
        "counters" => {
            let all = answer["counters"].as_array().into_iter().flatten();
            let nonzero = all.filter(|line| line["sum"].as_u64().is_some_and(|sum| sum > 0));
            let told: Vec<String> = nonzero
                .map(|line| format!("{}={}", line["name"].as_str().unwrap_or_default(), line["sum"]))
                .collect();
            eprintln!("  {letter} counters: {}", told.join(" "));
        }
        _ => {}
    }
}

/// A counter's sum over all owners, in what `baton counters --json` printed.
pub fn counter(counters: &Value, name: &str) -> Result<u64> {
    let lines = counters["counters"].as_array().context("no counters")?;
    let line =
        lines.iter().find(|line| line["name"] == name).with_context(|| format!("no counter {name}"))?;
    line["sum"].as_u64().with_context(|| format!("{name} is no number"))
}

/// The four virtual servers of a service at this port.
pub fn virtual_servers(port: u16) -> Vec<SocketAddr> {
    let kinds = [Translation::Nat, Translation::FullNat].map(|t| [Family::V4, Family::V6].map(|f| (t, f)));
    kinds.into_iter().flatten().map(|(t, f)| SocketAddr::new(virtual_address(t, f), port)).collect()
}
