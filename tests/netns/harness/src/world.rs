//! The namespaces, bridges and addresses.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cleanup;
use crate::command::{inside, ip, needs_root, run, wait_until};
use crate::plan::{self, Link, Side};

/// A bridge port's states, as the kernel numbers them.
const PORT_DISABLED: &str = "0";
const PORT_FORWARDING: &str = "3";

/// What the appliances' mirror ports are plugged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorNetwork {
    /// A bridge.
    Bridge,
    /// Nothing: a [`crate::relay::Relay`] is to pass frames between their other ends.
    Relay,
}

/// One world. Dropping it removes it; after a panic its logs and captures are kept.
#[derive(Debug)]
pub struct World {
    prefix: String,
    directory: PathBuf,
    servers: usize,
    sides: &'static [Side],
    mirror: MirrorNetwork,
    keep_logs: bool,
}

impl World {
    /// Builds a world with this many servers, for a pair of appliances.
    pub fn new(servers: usize) -> Result<World> {
        World::of(servers, &Side::BOTH, MirrorNetwork::Bridge)
    }

    /// Builds a world with this many servers, for these appliances.
    pub fn of(servers: usize, sides: &'static [Side], mirror: MirrorNetwork) -> Result<World> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        needs_root()?;
        cleanup::sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("bt{}x{number}-", std::process::id());
        let directory = std::env::temp_dir().join(prefix.trim_end_matches('-'));
        cleanup::register(&prefix, &directory)?;
        // From here on, a failure drops the world and so removes what was made.
        let world = World { prefix, directory, servers, sides, mirror, keep_logs: false };
        fs::create_dir(&world.directory)
            .with_context(|| format!("cannot create {}", world.directory.display()))?;
        world.build().context("cannot build the namespaces")?;
        Ok(world)
    }

    /// A namespace's full name; the short ones are `client`, `s1`…, `a`, `b`, `switch`.
    pub fn namespace(&self, short: &str) -> String {
        format!("{}{short}", self.prefix)
    }

    /// What all names of this world start with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where its logs, captures and configurations are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The short names of the servers' namespaces.
    pub fn server_names(&self) -> Vec<String> {
        (1..=self.servers).map(|number| format!("s{number}")).collect()
    }

    /// The servers' host numbers, in the same order.
    pub fn server_hosts(&self) -> Vec<u8> {
        (0..self.servers).map(|index| plan::FIRST_SERVER_HOST + index as u8).collect()
    }

    /// The appliances it is for.
    pub fn sides(&self) -> &'static [Side] {
        self.sides
    }

    /// Keeps logs and captures when the world is removed.
    pub fn keep_logs(&mut self) {
        self.keep_logs = true;
    }

    /// Cuts a link in silence: both ends stay up, and nothing passes.
    pub fn cut(&self, side: Side, link: Link) -> Result<()> {
        self.set_port_state(side, link, PORT_DISABLED)
    }

    /// Mends a cut link.
    pub fn mend(&self, side: Side, link: Link) -> Result<()> {
        self.set_port_state(side, link, PORT_FORWARDING)
    }

    /// Has nothing that an appliance sends on a link get through; what others send still comes to it.
    pub fn mute(&self, side: Side, link: Link) -> Result<()> {
        // A locked port lets in only what comes from addresses that are known to be behind it.
        self.set_port(side, link, &["learning", "off", "locked", "on"])?;
        self.forget_addresses_of(link)
    }

    /// Ends [`World::mute`].
    pub fn unmute(&self, side: Side, link: Link) -> Result<()> {
        self.set_port(side, link, &["learning", "on", "locked", "off"])
    }

    /// Has the switch forget which address is at which port.
    pub fn forget_addresses(&self) -> Result<()> {
        Link::ALL.into_iter().try_for_each(|link| self.forget_addresses_of(link))
    }

    fn forget_addresses_of(&self, link: Link) -> Result<()> {
        ip(&self.namespace("switch"), &format!("link set dev {} type bridge fdb_flush\n", link.bridge()))
    }

    fn set_port(&self, side: Side, link: Link, what: &[&str]) -> Result<()> {
        let (switch, port) = (self.namespace("switch"), link.interface(side));
        run("bridge", &[&["-n", &switch, "link", "set", "dev", &port], what].concat()).map(drop)
    }

    /// Pulls a cable: both ends lose their link.
    pub fn unplug(&self, side: Side, link: Link) -> Result<()> {
        self.set_up(side, link, "down")
    }

    /// Plugs a cable in again.
    pub fn plug_in(&self, side: Side, link: Link) -> Result<()> {
        self.set_up(side, link, "up")
    }

    fn set_up(&self, side: Side, link: Link, how: &str) -> Result<()> {
        ip(&self.namespace("switch"), &format!("link set {} {how}\n", link.interface(side)))
    }

    fn set_port_state(&self, side: Side, link: Link, state: &str) -> Result<()> {
        self.set_port(side, link, &["state", state])
    }

    /// Has nothing pass between the two appliances on any of their links, while each still reaches clients and servers; or
    /// all again.
    pub fn part(&self, parted: bool) -> Result<()> {
        let switch = self.namespace("switch");
        for (side, link) in self.sides.iter().flat_map(|side| Link::ALL.map(|link| (*side, link))) {
            // Ports of a bridge that are isolated talk to those that are not.
            let isolated = if parted { "on" } else { "off" };
            run(
                "bridge",
                &["-n", &switch, "link", "set", "dev", &link.interface(side), "isolated", isolated],
            )?;
        }
        Ok(())
    }

    /// Adds a namespace for a witness, `w`, and a network between it and both appliances' kernels.
    pub fn add_witness(&self) -> Result<()> {
        run("ip", &["netns", "add", &self.namespace("w")])?;
        ip(&self.namespace("w"), "link set lo up\n")?;
        let bridge = "lan-witness";
        let options = "type bridge stp_state 0 forward_delay 0 mcast_snooping 0";
        ip(&self.namespace("switch"), &format!("link add {bridge} {options}\nlink set {bridge} up\n"))?;
        for (name, host) in [("a", 1), ("b", 2), ("w", plan::WITNESS_HOST)] {
            let interface = format!("{name}-witness");
            self.plug(name, &interface, &interface, Some(bridge))?;
            let address = plan::management4(host);
            ip(&self.namespace(name), &format!("addr add {address}/24 dev {interface}\n"))?;
        }
        Ok(())
    }

    /// Cuts the way between an appliance and the witness in silence, or mends it.
    pub fn cut_witness(&self, side: Side, cut: bool) -> Result<()> {
        let (switch, port) = (self.namespace("switch"), format!("{}-witness", side.letter()));
        let state = if cut { PORT_DISABLED } else { PORT_FORWARDING };
        run("bridge", &["-n", &switch, "link", "set", "dev", &port, "state", state]).map(drop)
    }

    /// Sets the shortest retransmission time-out of clients and servers, in milliseconds (Linux's own is 200).
    pub fn set_rto_min_ms(&self, rto_min_ms: u32) -> Result<()> {
        let option = format!("rto_min {rto_min_ms}ms");
        ip(
            &self.namespace("client"),
            &format!(
                "route replace 10.1.0.0/24 dev eth0 proto kernel scope link src {} {option}\n\
                 route replace fd01::/64 dev eth0 proto kernel metric 256 {option}\n",
                plan::client4(plan::CLIENT_HOST)
            ),
        )?;
        for (name, host) in self.server_names().iter().zip(self.server_hosts()) {
            ip(
                &self.namespace(name),
                &format!(
                    "route replace 10.2.0.0/24 dev eth0 proto kernel scope link src {} {option}\n\
                     route replace default via {} dev eth0 {option}\n\
                     route replace fd02::/64 dev eth0 proto kernel metric 256 {option}\n\
                     route replace default via {} dev eth0 {option}\n",
                    plan::server4(host),
                    plan::server4(plan::GATEWAY_HOST),
                    plan::server6(plan::GATEWAY_HOST),
                ),
            )?;
        }
        Ok(())
    }

    /// Waits until an interface may speak IPv6: until then the kernel solicits nobody there, and tries again only a
    /// second later.
    pub fn wait_ipv6_ready(&self, short: &str, interface: &str) -> Result<()> {
        let namespace = self.namespace(short);
        wait_until(&format!("{interface} of {short} to speak IPv6"), Duration::from_secs(10), || {
            let args =
                ["-n", &namespace, "-6", "-oneline", "addr", "show", "dev", interface, "scope", "link"];
            let own = run("ip", &args)?;
            Ok(own.lines().any(|line| !line.contains("tentative")))
        })
    }

    fn build(&self) -> Result<()> {
        let servers = self.server_names();
        let mut names = vec!["switch", "client"];
        names.extend(self.sides.iter().map(|side| side.letter()));
        names.extend(servers.iter().map(String::as_str));
        for name in &names {
            run("ip", &["netns", "add", &self.namespace(name)])?;
        }
        for name in names {
            // The kernel must not speak IPv6 on links that belong to an appliance or to the switch;
            // hosts have their addresses at once, without duplicate address detection.
            let quiet = name == "switch" || self.sides.iter().any(|side| side.letter() == name);
            inside(&self.namespace(name), || {
                for which in ["all", "default"] {
                    let base = format!("/proc/sys/net/ipv6/conf/{which}");
                    fs::write(format!("{base}/disable_ipv6"), if quiet { "1" } else { "0" })?;
                    fs::write(format!("{base}/accept_dad"), "0")?;
                    fs::write(format!("{base}/accept_ra"), "0")?;
                    fs::write(format!("/proc/sys/net/ipv4/conf/{which}/rp_filter"), "0")?;
                }
                Ok(())
            })?;
            ip(&self.namespace(name), "link set lo up\n")?;
        }
        let mut switch = String::new();
        for link in Link::ALL {
            let bridge = link.bridge();
            switch +=
                &format!("link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n");
            switch += &format!("link set {bridge} up\n");
        }
        ip(&self.namespace("switch"), &switch)?;
        self.plug("client", "eth0", "client", Some("lan-client"))?;
        self.address("client", plan::client4(plan::CLIENT_HOST), plan::client6(plan::CLIENT_HOST))?;
        for (name, host) in servers.iter().zip(self.server_hosts()) {
            self.plug(name, "eth0", name, Some("lan-server"))?;
            self.address(name, plan::server4(host), plan::server6(host))?;
            ip(
                &self.namespace(name),
                &format!(
                    "route add default via {} dev eth0\nroute add default via {} dev eth0\n",
                    plan::server4(plan::GATEWAY_HOST),
                    plan::server6(plan::GATEWAY_HOST)
                ),
            )?;
        }
        for side in self.sides {
            for link in Link::ALL {
                let interface = link.interface(*side);
                let relayed = link == Link::Mirror && self.mirror == MirrorNetwork::Relay;
                let bridge = (!relayed).then(|| link.bridge());
                self.plug(side.letter(), &interface, &interface, bridge)?;
                ip(&self.namespace(side.letter()), &format!("link set {interface} arp off\n"))?;
            }
        }
        Ok(())
    }

    /// A cable from an interface of a namespace to a port of the switch, which is a port of a bridge or of none.
    fn plug(&self, name: &str, interface: &str, port: &str, bridge: Option<&str>) -> Result<()> {
        let (namespace, switch) = (self.namespace(name), self.namespace("switch"));
        let master = bridge.map_or(String::new(), |bridge| format!("master {bridge} "));
        ip(
            &switch,
            &format!(
                "link add {port} type veth peer name {interface} netns {namespace}\n\
                 link set {port} {master}up\n"
            ),
        )?;
        // A veth hands packets on before they are complete: checksums unfinished, segments merged. Packet
        // sockets would see, and pass on, what no wire carries.
        let offloads = ["tx", "off", "tso", "off", "gso", "off", "gro", "off"];
        let mut args = vec!["netns", "exec", &namespace, "ethtool", "-K", interface];
        args.extend(offloads);
        run("ip", &args)?;
        ip(&namespace, &format!("link set {interface} up\n"))
    }

    fn address(&self, name: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
        ip(&self.namespace(name), &format!("addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\n"))?;
        self.wait_ipv6_ready(name, "eth0")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        cleanup::remove(&self.prefix, &self.directory, self.keep_logs || std::thread::panicking());
    }
}
