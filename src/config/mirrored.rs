//! The services of a configuration, as one member tells them to another (REQ C10): pools, servers, virtual servers, idle
//! time-outs, and what of them is retired.
//!
//! Told as a text in the words of the file, with every key said: so the other one checks it as it checks its own file, and
//! can name what does not fit it, by key and line. What it does not know is an error: it is better to stay behind and say
//! so than to serve something else under the same generation.
//!
//! Whoever follows takes the leader's services as they are, retired ones included: the flows that it holds are the leader's.
//! All else (ports, lcores, timers of failover) is each member's own.

use core::fmt::Write;
use core::hash::Hasher;
use core::net::{IpAddr, SocketAddr};
use std::path::Path;

use siphasher::sip::SipHasher24;
use toml::de::DeValue;

use crate::base::ids::{PoolId, ServerId, VirtualServerId, id_of_name};
use crate::base::limits::RETIRED_MAX;
use crate::config::check::When;
use crate::config::check::mirror::warn_of_gone;
use crate::config::check::pools::server_name;
use crate::config::checked::policy;
use crate::config::checked::{
    Balance, Checked, Commit, Flows, Forwarding, Health, HealthCheck, Method, MirrorMode, Pool, Protocol,
    Server, VirtualServer,
};
use crate::config::file::{File, PoolFile, VirtualServerFile};
use crate::config::read::{
    Change, FromFile, Key, KnownKey, Presence, Source, join, read_key, refuse_unknown, tables,
};
use crate::config::reload::{need_no_other_store, place_retired};
use crate::config::report::{ConfigError, Place, Report, Warning};
use crate::config::value::{Address, Endpoint, Int, Name};
use crate::config::{check, directory, finish, read};

/// Which services an appliance goes by: the same for all members that go by the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Edition {
    /// The generation of the configuration.
    pub generation: u64,
    /// A hash of the text; 0: not said.
    pub digest: u64,
}

impl Edition {
    /// Of a text.
    pub fn of(generation: u64, text: &[u8]) -> Edition {
        let mut hash = Hash::default();
        hash.add(text);
        hash.edition(generation)
    }

    /// Whether it is said at all.
    pub const fn is_said(&self) -> bool {
        self.digest != 0
    }
}

/// The hash of a text that comes piece by piece.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hash(SipHasher24);

impl Hash {
    /// The next piece.
    pub fn add(&mut self, piece: &[u8]) {
        self.0.write(piece);
    }

    /// The edition, if that was all.
    pub fn edition(&self, generation: u64) -> Edition {
        Edition { generation, digest: self.0.finish().max(1) }
    }
}

tables! {
    /// What is told.
    MirroredFile {
        timeouts: TimeoutsFile = required,
        pool: Vec<Key<PoolFile>> = [],
        virtual_server: Vec<Key<VirtualServerFile>> = [],
        retired_pool: Vec<Key<RetiredPoolFile>> = [],
        retired_virtual_server: Vec<Key<RetiredVirtualServerFile>> = [],
        retired_sources: Vec<Key<RetiredSourcesFile>> = [],
    }
    /// The idle time-outs of `[flows]`, in milliseconds.
    TimeoutsFile {
        tcp_handshake_ms: Int<1, 4_000_000_000> = required,
        tcp_established_ms: Int<1, 4_000_000_000> = required,
        tcp_closing_ms: Int<1, 4_000_000_000> = required,
        udp_ms: Int<1, 4_000_000_000> = required,
    }
    /// Servers of a pool that are retired.
    RetiredPoolFile {
        name: Name = required,
        server: Vec<Key<Endpoint>> = required,
    }
    /// A virtual server that is retired.
    RetiredVirtualServerFile {
        name: Name = required,
        address: Endpoint = required,
        protocol: Protocol = required,
        select: Method = required,
        sources: Vec<Key<Address>> = required,
    }
    /// Source-NAT addresses that a virtual server had.
    RetiredSourcesFile {
        virtual_server: Name = required,
        addresses: Vec<Key<Address>> = required,
    }
}

/// The services of a configuration.
pub fn text(checked: &Checked) -> String {
    let mut out = String::new();
    // Writing to a string never fails.
    let _ = write(checked, &mut out);
    out
}

fn write(checked: &Checked, out: &mut String) -> core::fmt::Result {
    let flows = &checked.flows;
    writeln!(out, "[timeouts]")?;
    for (key, span) in [
        ("tcp_handshake_ms", flows.tcp_handshake_timeout),
        ("tcp_established_ms", flows.tcp_established_timeout),
        ("tcp_closing_ms", flows.tcp_closing_timeout),
        ("udp_ms", flows.udp_timeout),
    ] {
        writeln!(out, "{key} = {}", span.millis())?;
    }
    for pool in checked.pools.iter().filter(|pool| !pool.retired) {
        write_pool(pool, out)?;
    }
    for server in checked.virtual_servers.iter().filter(|server| !server.retired) {
        let pool = checked.pools.get(server.pool).map_or("", |pool| &pool.name);
        write_virtual_server(server, pool, out)?;
    }
    for pool in &checked.pools {
        let retired: Vec<SocketAddr> =
            pool.servers.iter().filter(|server| server.retired).map(endpoint).collect();
        if !retired.is_empty() {
            writeln!(out, "[[retired_pool]]\nname = \"{}\"\nserver = [{}]", pool.name, list(&retired))?;
        }
    }
    for server in checked.virtual_servers.iter().filter(|server| server.retired) {
        let sources: Vec<IpAddr> = server.all_sources().collect();
        writeln!(out, "[[retired_virtual_server]]")?;
        write_identity(server, out)?;
        writeln!(out, "sources = [{}]", list(&sources))?;
    }
    for server in checked.virtual_servers.iter().filter(|server| !server.retired) {
        if !server.retired_sources.is_empty() {
            let addresses = list(&server.retired_sources);
            writeln!(
                out,
                "[[retired_sources]]\nvirtual_server = \"{}\"\naddresses = [{addresses}]",
                server.name
            )?;
        }
    }
    Ok(())
}

fn endpoint(server: &Server) -> SocketAddr {
    SocketAddr::new(server.address, server.port)
}

fn list(all: &[impl core::fmt::Display]) -> String {
    all.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(", ")
}

fn write_pool(pool: &Pool, out: &mut String) -> core::fmt::Result {
    let balance = match pool.balance {
        Balance::RoundRobin => "round-robin",
        Balance::Maglev => "maglev",
    };
    writeln!(out, "[[pool]]\nname = \"{}\"\nbalance = \"{balance}\"", pool.name)?;
    writeln!(out, "least_servers = {}", pool.least_servers)?;
    if let Some(Health { check, interval, timeout, rise, fall }) = &pool.health {
        let check = match check {
            HealthCheck::Tcp => "tcp",
        };
        let (interval, timeout) = (interval.millis(), timeout.millis());
        writeln!(
            out,
            "health = {{ check = \"{check}\", interval_ms = {interval}, timeout_ms = {timeout}, rise = {rise}, fall = {fall} }}"
        )?;
    }
    writeln!(out, "server = [")?;
    for server in pool.servers.iter().filter(|server| !server.retired) {
        writeln!(out, "  {{ address = \"{}\", weight = {} }},", endpoint(server), server.weight)?;
    }
    writeln!(out, "]")
}

fn write_identity(server: &VirtualServer, out: &mut String) -> core::fmt::Result {
    let at = SocketAddr::new(server.address, server.port);
    writeln!(out, "name = \"{}\"\naddress = \"{at}\"\nprotocol = \"{}\"", server.name, server.protocol)?;
    writeln!(out, "select = \"{}\"", server.select.text())
}

fn write_virtual_server(server: &VirtualServer, pool: &str, out: &mut String) -> core::fmt::Result {
    writeln!(out, "[[virtual_server]]")?;
    write_identity(server, out)?;
    writeln!(out, "pool = \"{pool}\"")?;
    match &server.forwarding {
        Forwarding::Nat => writeln!(out, "forwarding = \"nat\"")?,
        Forwarding::FullNat(sources) => {
            writeln!(out, "forwarding = \"full-nat\"\nsnat_addresses = [{}]", list(sources))?;
        }
    }
    let commit = match server.mirror {
        MirrorMode::Off => return writeln!(out, "mirror = {{ mode = \"off\" }}"),
        MirrorMode::Checkpoint(Commit::Hold) => "hold",
        MirrorMode::Checkpoint(Commit::Async) => "async",
    };
    // What is not needed is left out: members that do not know rules take services without any.
    let rules = match server.rules.is_empty() {
        true => String::new(),
        false => format!(", rules = {}", policy::text(&server.rules)),
    };
    writeln!(out, "mirror = {{ mode = \"checkpoint\", commit = \"{commit}\"{rules} }}")
}

/// The running configuration with the services that `from` told in `text`. `started` is the text of the own file at `path` at
/// the start. Errors name `from` as their file, warnings the own one: they are of what it says itself.
pub fn take(
    path: &Path,
    started: &str,
    running: &Checked,
    from: &str,
    text: &str,
) -> Result<(Checked, Vec<Warning>), Vec<ConfigError>> {
    let mut report = Report::new(from);
    let mut own = Report::new(&path.display().to_string());
    let taken = read::<MirroredFile>(text, &mut report).and_then(|theirs| {
        let MirroredFile {
            timeouts,
            pool,
            virtual_server,
            retired_pool,
            retired_virtual_server,
            retired_sources,
        } = theirs;
        let mut file = read::<File>(started, &mut Report::new(""))?;
        (file.pool, file.virtual_server) = (pool, virtual_server);
        let checked = check::check(&file, directory(path), When::Running, &mut report)?;
        need_no_other_store(&file, &checked, running, &mut report);
        let mut taken = Checked {
            pools: checked.pools,
            virtual_servers: checked.virtual_servers,
            flows: flows(timeouts.get()?, &running.flows)?,
            ..running.clone()
        };
        for (_, pool) in retired_pool.elements() {
            for (place, at) in pool.server.elements() {
                may_be_retired(place, at.0.ip(), running, &mut report);
            }
            add_retired_pool(pool, &mut taken, &mut report)?;
        }
        for (place, server) in retired_virtual_server.elements() {
            may_be_retired(&server.address.place, server.address.get()?.0.ip(), running, &mut report);
            for (place, address) in server.sources.elements() {
                may_be_retired(place, address.0, running, &mut report);
            }
            let server = virtual_server_of(server)?;
            if taken.virtual_servers.iter().any(|known| known.id == server.id) {
                report.refuse(place, "each virtual server once");
            }
            taken.virtual_servers.push(server);
        }
        for (_, sources) in retired_sources.elements() {
            for (place, address) in sources.addresses.elements() {
                may_be_retired(place, address.0, running, &mut report);
            }
            let name = &sources.virtual_server.get()?.0;
            let addresses = sources.addresses.all()?.into_iter().map(|(_, address)| address.0);
            match taken.virtual_servers.iter_mut().find(|server| server.name == *name && !server.retired) {
                Some(server) => server.retired_sources = addresses.collect(),
                None => report.refuse(&sources.virtual_server.place, "a virtual server's name"),
            }
        }
        if taken.retired() > RETIRED_MAX {
            let place = Place { path: "retired_virtual_server".to_owned(), line: 1, shown: None };
            report.refuse(&place, format!("at most {RETIRED_MAX} retired things, not {}", taken.retired()));
        }
        place_retired(&mut taken);
        let words = |name: &str| {
            format!("the leader has no virtual server \"{name}\": nothing new is tracked by that name")
        };
        warn_of_gone(&file, &taken, words, &mut own);
        Some(taken)
    });
    finish(taken, report).map(|(taken, _)| (taken, own.warnings))
}

fn flows(told: &TimeoutsFile, running: &Flows) -> Option<Flows> {
    Some(Flows {
        tcp_handshake_timeout: told.tcp_handshake_ms.get()?.millis(),
        tcp_established_timeout: told.tcp_established_ms.get()?.millis(),
        tcp_closing_timeout: told.tcp_closing_ms.get()?.millis(),
        udp_timeout: told.udp_ms.get()?.millis(),
        ..running.clone()
    })
}

/// An address that flows of the leader may have cannot be one of this member's ports.
fn may_be_retired(place: &Place, address: IpAddr, running: &Checked, report: &mut Report) {
    let mut own = running.ports.iter().flat_map(|port| port.addresses.iter().chain(&port.shared_addresses));
    if own.any(|cidr| cidr.address == address) {
        report.refuse(place, "an address that is none of this appliance's ports");
    }
}

fn add_retired_pool(told: &RetiredPoolFile, taken: &mut Checked, report: &mut Report) -> Option<()> {
    let name = &told.name.get()?.0;
    let id = PoolId(id_of_name(name));
    let at = taken.pools.iter().position(|pool| pool.id == id).unwrap_or_else(|| {
        taken.pools.push(Pool {
            id,
            name: name.clone(),
            balance: Balance::RoundRobin,
            health: None,
            least_servers: 0,
            servers: Vec::new(),
            retired: true,
        });
        taken.pools.len() - 1
    });
    let servers = &mut taken.pools[at].servers;
    for (place, at) in told.server.all()? {
        let id = ServerId(id_of_name(&server_name(name, at.0)));
        if servers.iter().any(|known| known.id == id) {
            report.refuse(place, "each server of a pool once");
        }
        servers.push(Server { id, address: at.0.ip(), port: at.0.port(), weight: 0, retired: true });
    }
    Some(())
}

/// Its pool is given to it by [`place_retired`].
fn virtual_server_of(told: &RetiredVirtualServerFile) -> Option<VirtualServer> {
    let name = told.name.get()?.0.clone();
    let at = told.address.get()?.0;
    let sources: Vec<IpAddr> = told.sources.all()?.into_iter().map(|(_, address)| address.0).collect();
    Some(VirtualServer {
        id: VirtualServerId(id_of_name(&name)),
        name,
        address: at.ip(),
        port: at.port(),
        protocol: *told.protocol.get()?,
        pool: 0,
        forwarding: if sources.is_empty() { Forwarding::Nat } else { Forwarding::FullNat(sources) },
        mirror: MirrorMode::Off,
        rules: Vec::new(),
        select: *told.select.get()?,
        retired: true,
        retired_sources: Vec::new(),
    })
}
