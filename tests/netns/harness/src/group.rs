//! A world with a group of three appliances in it, whose mirror network is rough.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::appliance::{Appliance, Role, wait_for_roles_of_living};
use crate::command::wait_until;
use crate::config::{Settings, hugepages_suffice_for};
use crate::crowd::Fetch;
use crate::plan::Side;
use crate::probe::Echo;
use crate::relay::{Relay, Rough};
use crate::stage::{ROLES_LIMIT, SERVERS, echoes, keep_evidence};
use crate::web::Web;
use crate::world::{MirrorNetwork, World};

/// What short connections fetch, and how long it is in bytes.
const SHORT_FILE: (&str, usize) = ("short", 3_000);
/// What slow downloads fetch, and at which rate: 25 seconds.
const SLOW_FILE: (&str, usize) = ("slow", 100_000);
const SLOW_RATE: &str = "4k";
/// What downloads fetch that show how long a transfer stands still, and at which rate: 20 seconds.
const BRISK_FILE: (&str, usize) = ("brisk", 1_300_000);
const BRISK_RATE: &str = "64k";

/// The settings of a group of three.
pub fn settings() -> Settings {
    Settings { hugepages: hugepages_suffice_for(3), ..Settings::default() }
}

/// Three appliances and what is around them. What runs is dropped before the world is.
#[derive(Debug)]
pub struct Group {
    /// The appliances.
    pub members: [Appliance; 3],
    /// The web servers.
    pub web: Web,
    /// The echo services, one for each server and family.
    pub echoes: Vec<Echo>,
    /// The mirror network.
    pub relay: Relay,
    /// The namespaces.
    pub world: World,
}

impl Group {
    /// Sets it up: one appliance leads, the others are its synchronized standbys.
    pub fn set(binary: &Path, settings: &Settings, rough: Rough) -> Result<Group> {
        let world = World::of(SERVERS, &Side::THREE, MirrorNetwork::Relay)?;
        let web = Web::start(&world, &[SHORT_FILE, SLOW_FILE, BRISK_FILE])?;
        let echoes = echoes(&world)?;
        let relay = Relay::start(&world, rough)?;
        let members = Appliance::three(&world, binary, settings)?;
        let mut group = Group { members, web, echoes, relay, world };
        let up = group.members.iter_mut().try_for_each(Appliance::start).and_then(|()| group.active());
        if let Err(error) = up {
            return Err(group.failed(&error.to_string()).map_or_else(|e| e, |_| error));
        }
        Ok(group)
    }

    /// Waits until, of those that live, one leads and the others are its synchronized standbys; the index of the one that
    /// leads.
    pub fn active(&self) -> Result<usize> {
        wait_for_roles_of_living(&self.members, ROLES_LIMIT)
    }

    /// Waits until one of those that live leads; its index.
    pub fn leader(&self) -> Result<usize> {
        let mut leads = None;
        wait_until("one to lead", ROLES_LIMIT, || {
            leads = self.members.iter().position(|member| {
                member.is_started() && member.role().is_ok_and(|role| role == Role::Active)
            });
            Ok(leads.is_some())
        })?;
        leads.context("one leads")
    }

    /// Starts whoever was killed and waits until the group is at rest.
    pub fn revive(&mut self) -> Result<()> {
        for member in self.members.iter_mut().filter(|member| !member.is_started()) {
            member.start()?;
            member.wait_role(Role::Standby, ROLES_LIMIT)?;
        }
        self.active().map(drop)
    }

    /// What the crowd's short, slow and brisk clients fetch.
    pub fn fetches(&self) -> Result<[Fetch; 3]> {
        let fetch = |name: &str, rate: &str| -> Result<Fetch> {
            let query = if rate.is_empty() { String::new() } else { format!("?rate={rate}") };
            Ok(Fetch { path: format!("/{name}{query}"), content: Arc::from(self.web.content(name)?) })
        };
        Ok([fetch(SHORT_FILE.0, "")?, fetch(SLOW_FILE.0, SLOW_RATE)?, fetch(BRISK_FILE.0, BRISK_RATE)?])
    }

    /// Writes down what the appliances say, keeps all logs, and returns where.
    pub fn failed(&mut self, why: &str) -> Result<PathBuf> {
        keep_evidence(&mut self.world, &self.members, why)
    }
}
