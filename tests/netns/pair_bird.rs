//! config/bird: a router that speaks BGP with the BIRD of either appliance sends what is for a virtual address to whichever
//! is active.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use netns_harness::appliance::Role;
use netns_harness::command::{ip, run, wait_until};
use netns_harness::config::Settings;
use netns_harness::plan::{Family, Translation, virtual_address};
use netns_harness::process::Process;
use netns_harness::stage::{FILE, ROLES_LIMIT, Stage};
use netns_harness::{Context, Result, Side, World, ensure, plan};

use crate::{on_stage, one_at_a_time};

const LIMIT: Duration = Duration::from_secs(30);
const ROUTER_AS: u32 = 65000;

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/bird").join(file)
}

/// Where the example's files of one node are; gone at the end.
struct Files(PathBuf);

impl Files {
    fn new() -> Result<Files> {
        let files = Files(std::env::temp_dir().join(format!("baton-bird-{}", std::process::id())));
        fs::create_dir_all(&files.0)?;
        Ok(files)
    }

    /// Both appliances have one text: the shell finds out which one it is.
    fn settings(&self) -> Settings {
        let (script, at) = (example("baton-bird"), self.0.display());
        let command = format!("exec {} {at}/$BATON_NODE {at}/$BATON_NODE.ctl", script.display());
        Settings {
            failover: format!("notify = [\"/bin/sh\", \"-c\", \"{command}\"]\n"),
            ..Settings::default()
        }
    }

    fn socket(&self, name: &str) -> String {
        self.0.join(format!("{name}.ctl")).display().to_string()
    }

    fn start(&self, world: &World, short: &str, name: &str, config: &str) -> Result<Process> {
        let path = self.0.join(format!("{name}.conf"));
        fs::write(&path, config)?;
        let (path, socket) = (path.display().to_string(), self.socket(name));
        let args = ["-f", "-c", &path, "-s", &socket];
        let log = format!("bird-{name}");
        let mut bird = Process::spawn(world.directory(), &world.namespace(short), &log, "bird", &args)?;
        bird.wait_ready(LIMIT, |_| Ok(run("birdc", &["-s", &socket, "show", "status"]).is_ok()))?;
        Ok(bird)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The two ends of the line between the router and an appliance's kernel, on which they speak BGP.
fn line(side: Side) -> [Ipv4Addr; 2] {
    let first = 4 * (side.node() as u8 - 1);
    [Ipv4Addr::new(192, 0, 2, first + 1), Ipv4Addr::new(192, 0, 2, first + 2)]
}

/// A namespace that is on the clients' network and has a line to each appliance.
fn place_router(world: &World) -> Result<()> {
    let router = world.namespace("router");
    run("ip", &["netns", "add", &router])?;
    ip(&router, "link set lo up\n")?;
    ip(
        &world.namespace("switch"),
        &format!(
            "link add router type veth peer name eth0 netns {router}\nlink set router master lan-client up\n"
        ),
    )?;
    run("ip", &["netns", "exec", &router, "ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off"])?;
    ip(&router, &format!("addr add {}/24 dev eth0\nlink set eth0 up\n", plan::client4(77)))?;
    for side in Side::BOTH {
        let (letter, [ours, theirs]) = (side.letter(), line(side));
        let namespace = world.namespace(letter);
        ip(&router, &format!("link add up-{letter} type veth peer name bgp0 netns {namespace}\n"))?;
        ip(&router, &format!("addr add {ours}/30 dev up-{letter}\nlink set up-{letter} up\n"))?;
        ip(&namespace, &format!("addr add {theirs}/30 dev bgp0\nlink set bgp0 up\n"))?;
    }
    Ok(())
}

/// The example, with this appliance's addresses.
fn of_appliance(files: &Files, side: Side) -> Result<String> {
    let [router, own] = line(side);
    let mut text = fs::read_to_string(example("bird.conf"))?;
    let own_port = plan::client4(side.host());
    let address = served();
    for (from, to) in [
        ("define ROUTER_ID  = 192.0.2.11;", format!("define ROUTER_ID = {own};")),
        ("define LOCAL      = 192.0.2.11;", format!("define LOCAL = {own};")),
        ("define NEIGHBOR   = 192.0.2.1;", format!("define NEIGHBOR = {router};")),
        ("define NEXT_HOP   = 10.1.0.2;", format!("define NEXT_HOP = {own_port};")),
        ("route 10.1.0.100/32", format!("route {address}/32")),
        ("/run/baton-bird/role.conf", format!("{}/{}/role.conf", files.0.display(), side.node())),
    ] {
        ensure!(text.contains(from), "the example lacks {from:?}");
        text = text.replace(from, &to);
    }
    Ok(text)
}

fn served() -> IpAddr {
    virtual_address(Translation::Nat, Family::V4)
}

fn of_router() -> String {
    let session = |side: Side| {
        let [own, appliance] = line(side);
        format!(
            "protocol bgp appliance_{} {{\n  local {own} as {ROUTER_AS};\n  neighbor {appliance} as 65001;\n  \
             connect delay time 1;\n  connect retry time 1;\n  error wait time 1, 2;\n  \
             ipv4 {{ import all; export none; }};\n}}\n",
            side.letter()
        )
    };
    format!(
        "router id 192.0.2.1;\nlog stderr all;\nprotocol device {{ }}\n\
         protocol kernel {{ ipv4 {{ import none; export all; }}; }}\n{}{}",
        session(Side::A),
        session(Side::B)
    )
}

/// The router's kernel sends what is for the virtual address to this appliance, and it is served there.
fn follows(stage: &Stage, active: usize) -> Result<()> {
    let router = stage.world.namespace("router");
    let address = served();
    let via = format!("via {} ", plan::client4(stage.pair[active].side().host()));
    let shown = || run("ip", &["-n", &router, "route", "show", &format!("{address}/32")]);
    wait_until("the route to follow the active", LIMIT, || Ok(shown()?.contains(&via)))
        .with_context(|| format!("it is {:?}, not {via}", shown()))?;
    let url = format!("http://{address}/{}?rate=2000k", FILE.0);
    run("ip", &["netns", "exec", &router, "curl", "-sS", "-f", "-m", "20", "-o", "/dev/null", &url])?;
    Ok(())
}

/// How many appliances announce the address to the router: nothing else is announced there.
fn announced(files: &Files) -> Result<usize> {
    Ok(run("birdc", &["-s", &files.socket("router"), "show", "route"])?.matches("[appliance_").count())
}

#[test]
fn a_routers_route_follows_the_active_through_a_switchover_and_a_kill() -> Result<()> {
    let _one = one_at_a_time();
    let files = Files::new()?;
    on_stage(&files.settings(), |stage| {
        place_router(&stage.world)?;
        let mut birds = Vec::new();
        for side in Side::BOTH {
            let role = files.0.join(format!("{}/role.conf", side.node()));
            wait_until("the command to have been run", LIMIT, || Ok(role.exists()))?;
            let name = side.node().to_string();
            birds.push(files.start(&stage.world, side.letter(), &name, &of_appliance(&files, side)?)?);
        }
        birds.push(files.start(&stage.world, "router", "router", &of_router())?);
        let first = stage.active()?;
        follows(stage, first)?;
        ensure!(announced(&files)? == 1, "the standby announces the address");

        stage.pair[first].command(&["switchover"])?;
        stage.pair[1 - first].wait_role(Role::Active, ROLES_LIMIT)?;
        follows(stage, 1 - first)?;
        wait_until("the old active to take its route back", LIMIT, || Ok(announced(&files)? == 1))?;

        let active = stage.active()?;
        stage.pair[active].kill()?;
        follows(stage, 1 - active)?;
        ensure!(announced(&files)? == 2, "the killed one's BIRD cannot know yet: its route is only worse");
        stage.revive(active)?;
        wait_until("the one that was killed to take its route back", LIMIT, || Ok(announced(&files)? == 1))?;
        follows(stage, 1 - active)
    })
}
