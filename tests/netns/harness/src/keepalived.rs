//! keepalived as another VRRP router on the client network, of the pair's virtual router.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::command::wait_until;
use crate::plan::{self, Family, Translation, VIRTUAL_ROUTER_ID, virtual_address};
use crate::process::{Process, unused};
use crate::world::World;

/// How long it may take to be up.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Its two instances, one for each family.
const INSTANCES: [&str; 2] = ["V4", "V6"];

/// A running keepalived in the client's namespace.
#[derive(Debug)]
pub struct Keepalived(Process);

impl Keepalived {
    /// Starts one of this priority, as a backup, and waits until both of its instances have said what they are.
    pub fn start(world: &World, priority: u8) -> Result<Keepalived> {
        let file = |ending| unused(world.directory(), "keepalived", ending);
        let (config, pid, vrrp_pid) = (file("conf"), file("pid"), file("vrrp-pid"));
        fs::write(&config, text(priority)).with_context(|| config.display().to_string())?;
        let [config, pid, vrrp_pid] = [config, pid, vrrp_pid].map(|path| path.display().to_string());
        let args = [
            "--dont-fork",
            "--log-console",
            "--log-detail",
            "--vrrp",
            "--use-file",
            &config,
            "--pid",
            &pid,
            "--vrrp_pid",
            &vrrp_pid,
        ];
        let namespace = world.namespace("client");
        let mut process = Process::spawn(world.directory(), &namespace, "keepalived", "keepalived", &args)?;
        process.wait_ready(START_LIMIT, |process| {
            let log = process.log();
            Ok(INSTANCES.iter().all(|instance| log.contains(&format!("({instance}) Entering BACKUP STATE"))))
        })?;
        Ok(Keepalived(process))
    }

    /// How often its instances became master so far.
    pub fn promotions(&self) -> usize {
        self.0.log().matches("Entering MASTER STATE").count()
    }

    /// Waits until both instances have become master, so many times in all; how long that took.
    pub fn wait_promotions(&self, promotions: usize, limit: Duration) -> Result<Duration> {
        let since = Instant::now();
        wait_until("keepalived to take over", limit, || Ok(self.promotions() >= promotions))
            .with_context(|| format!("its log:\n{}", self.0.log()))?;
        Ok(since.elapsed())
    }

    /// Waits until both instances have gone back, so many times in all, the two of the start included.
    pub fn wait_backups(&self, backups: usize, limit: Duration) -> Result<()> {
        let count = || self.0.log().matches("Entering BACKUP STATE").count();
        wait_until("keepalived to go back", limit, || Ok(count() >= backups))
            .with_context(|| format!("its log:\n{}", self.0.log()))
    }

    /// Ends it: in order, saying that it goes (priority 0), or by SIGKILL.
    pub fn stop(mut self, in_order: bool) -> Result<()> {
        if in_order { self.0.terminate(START_LIMIT).map(drop) } else { self.0.kill() }
    }

    /// What it printed.
    pub fn log(&self) -> String {
        self.0.log()
    }
}

/// The addresses are those that the pair advertises on the client network, in its order.
fn text(priority: u8) -> String {
    let instance = |name: &str, addresses: &[String]| {
        let addresses = addresses.join("\n    ");
        format!(
            "vrrp_instance {name} {{\n  state BACKUP\n  interface eth0\n  virtual_router_id {VIRTUAL_ROUTER_ID}\n  \
             version 3\n  priority {priority}\n  advert_int 1\n  virtual_ipaddress {{\n    {addresses}\n  }}\n}}\n"
        )
    };
    let of = |family, length: u8| {
        [Translation::Nat, Translation::FullNat]
            .map(|translation| format!("{}/{length}", virtual_address(translation, family)))
    };
    let link_local = format!("{}/64", plan::virtual_link_local());
    let [v4, v6] = [of(Family::V4, 24).to_vec(), [&[link_local][..], &of(Family::V6, 64)].concat()];
    format!("global_defs {{\n  router_id keepalived\n}}\n{}{}", instance("V4", &v4), instance("V6", &v6))
}
