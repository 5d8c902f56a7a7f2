//! A file that is read again while the appliance runs (REQ C10): what of it can be taken, and what the running
//! configuration becomes with it.
//!
//! Pools, their servers, virtual servers, the idle time-outs of flows and what members prove themselves with change while it
//! runs; everything else was made at the start and is compared with the file of the start, key by key. All or nothing: one
//! error, and nothing changes.
//!
//! No flow is touched. What is gone from the file is *retired*, not removed, while it may have flows:
//!
//! * a server stays in its pool with weight 0;
//! * a pool stays with its servers, all of them retired;
//! * a virtual server stays with a pool that has no servers: its address is answered for, its flows are counted, named to
//!   peers and found as before, and none begins;
//! * a source-NAT address stays with its virtual server, so that servers' answers still come here.
//!
//! [`without_idle`] removes what has no flows any more. Whatever comes back into the file meanwhile is retired no more.
//!
//! Ids follow from names, and flows name ids. So a virtual server's address cannot change under its name: another name is
//! asked for. Nor can an address change its use, or how connections to it are hashed, while flows may have it.

use core::net::IpAddr;
use std::path::Path;

use crate::base::ids::{PoolId, ServerId, VirtualServerId};
use crate::base::limits::RETIRED_MAX;
use crate::config::check::When;
use crate::config::check::mirror::warn_of_gone;
use crate::config::checked::{Balance, Checked, HashMethod, Method, Mirror, Pool, Server, VirtualServer};
use crate::config::file::{File, FlowsFile, MirrorFile, PeerFile, VirtualServerFile};
use crate::config::read::{Change, Key};
use crate::config::report::{ConfigError, Place, Report, Warning};
use crate::config::{check, directory, finish, read};

pub use crate::config::differences::differences;

/// What the running configuration becomes with `text`, the file at `path` as it is now. `started` is its text at the
/// start. Errors come in the order of lines.
pub fn reload(
    path: &Path,
    started: &str,
    running: &Checked,
    text: &str,
) -> Result<(Checked, Vec<Warning>), Vec<ConfigError>> {
    let mut report = Report::new(&path.display().to_string());
    let merged = read::<File>(text, &mut report).and_then(|file| {
        let checked = check::check(&file, directory(path), When::Running, &mut report)?;
        let before = read::<File>(started, &mut Report::new(""))?;
        refuse_fixed(&file, &before, &mut report);
        let words = |name: &str| {
            format!("the file has no virtual server \"{name}\" any more, and baton does not start with it so")
        };
        warn_of_gone(&file, &checked, words, &mut report);
        take(&file, checked, running, &mut report)
    });
    finish(merged, report)
}

/// What the running configuration becomes with the services of a file, if they fit what runs.
fn take(file: &File, checked: Checked, running: &Checked, report: &mut Report) -> Option<Checked> {
    stay_what_they_are(file, &checked, running, report);
    need_no_other_store(file, &checked, running, report);
    let merged = merge(running, checked);
    uses(file, &merged, report);
    let retired = merged.retired();
    if retired > RETIRED_MAX {
        let place = Place { path: "virtual_server".to_owned(), line: 1, shown: None };
        report.refuse(
            &place,
            format!("at most {RETIRED_MAX} things that are gone from the file and may have flows, not {retired}: reload again when they have ended"),
        );
    }
    Some(merged)
}

/// Keys that were read once, at the start.
fn refuse_fixed(file: &File, before: &File, report: &mut Report) {
    let mut changes = Vec::new();
    file.appliance.changes(&before.appliance, &mut changes);
    file.eal.changes(&before.eal, &mut changes);
    file.lcores.changes(&before.lcores, &mut changes);
    file.port.changes(&before.port, &mut changes);
    file.route.changes(&before.route, &mut changes);
    file.distributor.changes(&before.distributor, &mut changes);
    file.failover.changes(&before.failover, &mut changes);
    file.control.changes(&before.control, &mut changes);
    match (file.mirror.get(), before.mirror.get()) {
        (Some(now), Some(before)) => {
            // What members prove themselves with can change.
            let MirrorFile {
                port,
                udp_port,
                peers,
                key_file,
                sealing: _,
                node_key_file: _,
                hold_timeout_ms,
                walk_rate,
                only,
                checkpoints,
                checkpoint_every_ms,
            } = now;
            port.changes(&before.port, &mut changes);
            udp_port.changes(&before.udp_port, &mut changes);
            peers_changes(peers, &before.peers, &mut changes);
            key_file.changes(&before.key_file, &mut changes);
            hold_timeout_ms.changes(&before.hold_timeout_ms, &mut changes);
            walk_rate.changes(&before.walk_rate, &mut changes);
            only.changes(&before.only, &mut changes);
            checkpoints.changes(&before.checkpoints, &mut changes);
            checkpoint_every_ms.changes(&before.checkpoint_every_ms, &mut changes);
        }
        (None, None) | (Some(_), None) | (None, Some(_)) => file.mirror.changes(&before.mirror, &mut changes),
    }
    if let (Some(now), Some(before)) = (file.flows.get(), before.flows.get()) {
        let FlowsFile {
            max,
            tcp_handshake_timeout_s: _,
            tcp_established_timeout_s: _,
            tcp_closing_timeout_s: _,
            udp_timeout_s: _,
            port_quarantine_s,
        } = now;
        max.changes(&before.max, &mut changes);
        port_quarantine_s.changes(&before.port_quarantine_s, &mut changes);
    }
    for Change { place, before } in changes {
        let was = before.map_or_else(|| "nothing, as".to_owned(), |before| format!("{before} as"));
        report.refuse(&place, format!("{was} at the start: it can change only by a restart of baton"));
    }
}

/// But for their public keys.
fn peers_changes(now: &Key<Vec<Key<PeerFile>>>, before: &Key<Vec<Key<PeerFile>>>, changes: &mut Vec<Change>) {
    let (Some(peers), Some(old)) = (now.get(), before.get()) else { return };
    if peers.len() != old.len() {
        return now.changes(before, changes);
    }
    for ((_, peer), (_, old)) in now.elements().zip(before.elements()) {
        let PeerFile { node, address, public_key: _ } = peer;
        node.changes(&old.node, changes);
        address.changes(&old.address, changes);
    }
}

fn of_name<'f>(file: &'f File, name: &str) -> Option<&'f VirtualServerFile> {
    let named = |server: &&VirtualServerFile| server.name.get().is_some_and(|known| known.0 == name);
    file.virtual_server.elements().map(|(_, server)| server).find(named)
}

/// What flows that exist depend on.
fn stay_what_they_are(file: &File, checked: &Checked, running: &Checked, report: &mut Report) {
    for server in &checked.virtual_servers {
        let Some(of_file) = of_name(file, &server.name) else { continue };
        let id = server.id;
        let named = running.virtual_servers.iter().find(|old| old.id == id);
        if let Some(old) = named.filter(|old| listens(old) != listens(server)) {
            let at = core::net::SocketAddr::new(old.address, old.port);
            let moved = (old.address, old.port) != (server.address, server.port);
            let place = if moved { &of_file.address.place } else { &of_file.protocol.place };
            report.refuse(
                place,
                format!(
                    "{at}/{}, as it is: \"{}\" may have connections there; what listens elsewhere needs another name",
                    old.protocol, old.name
                ),
            );
            continue;
        }
        let there = running.virtual_servers.iter().find(|old| listens(old) == listens(server));
        if let Some(old) = there.filter(|old| old.select.hash() != server.select.hash()) {
            let place = if of_file.select.is_given() { &of_file.select.place } else { &of_file.name.place };
            report.refuse(
                place,
                format!(
                    "select = \"{}\", or another that hashes alike: connections that exist are found by it",
                    old.select.text()
                ),
            );
        }
    }
}

/// Where it listens.
fn listens(server: &VirtualServer) -> (IpAddr, u16, crate::config::checked::Protocol) {
    (server.address, server.port, server.protocol)
}

/// The connection store is made at the start, if anything needs it then, and as large as is needed then.
pub(super) fn need_no_other_store(file: &File, checked: &Checked, running: &Checked, report: &mut Report) {
    let (now, started) = (&checked.distributor, &running.distributor);
    for (_, server) in file.virtual_server.elements() {
        let method = server.select.get().copied().unwrap_or(started.select);
        if !started.remembers && method != Method::Hash(HashMethod::Source) {
            report.refuse(
                &server.select.place,
                "\"source\": others need a connection store, which is made at the start: by one virtual server of such a method, or by distributor.max_keys",
            );
        } else if now.max_keys > started.max_keys && !method.is_hash() {
            report.refuse(
                &server.select.place,
                format!(
                    "a hash: this one needs a connection store for {} keys, and that made at the start has {}: another one is made by a restart, or by distributor.max_keys at the start",
                    now.max_keys, started.max_keys
                ),
            );
        }
    }
}

/// What an address is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Virtual,
    Source,
    Server,
}

impl Use {
    const fn text(self) -> &'static str {
        match self {
            Use::Virtual => "a virtual address",
            Use::Source => "a source-NAT address",
            Use::Server => "a server's address",
        }
    }
}

/// An address that is new in one use may not have flows of another.
fn uses(file: &File, merged: &Checked, report: &mut Report) {
    let mut retired: Vec<(IpAddr, Use)> = Vec::new();
    for server in &merged.virtual_servers {
        if server.retired {
            retired.push((server.address, Use::Virtual));
            retired.extend(server.sources().iter().map(|address| (*address, Use::Source)));
        }
        retired.extend(server.retired_sources.iter().map(|address| (*address, Use::Source)));
    }
    for server in merged.pools.iter().flat_map(|pool| &pool.servers).filter(|server| server.retired) {
        retired.push((server.address, Use::Server));
    }
    let mut check = |place: &Place, address: IpAddr, what: Use| {
        if let Some((_, was)) = retired.iter().find(|(other, was)| *other == address && *was != what) {
            report.refuse(
                place,
                format!("another address: connections may still have this one as {}", was.text()),
            );
        }
    };
    for (_, server) in file.virtual_server.elements() {
        if let Some(at) = server.address.get() {
            check(&server.address.place, at.0.ip(), Use::Virtual);
        }
        for (place, address) in server.snat_addresses.elements() {
            check(place, address.0, Use::Source);
        }
    }
    for (_, server) in file.pool.elements().flat_map(|(_, pool)| pool.server.elements()) {
        if let Some(at) = server.address.get() {
            check(&server.address.place, at.0.ip(), Use::Server);
        }
    }
}

fn retired_server(server: &Server) -> Server {
    Server { weight: 0, retired: true, ..server.clone() }
}

/// The file's services with what of the running ones may have flows; all else as it runs.
fn merge(running: &Checked, new: Checked) -> Checked {
    let flows = crate::config::checked::Flows {
        max: running.flows.max,
        port_quarantine: running.flows.port_quarantine,
        ..new.flows
    };
    let pinning = new.mirror.and_then(|mirror| mirror.pinning);
    let mirror = running.mirror.clone().map(|mirror| Mirror { pinning, ..mirror });
    let mut merged =
        Checked { pools: new.pools, virtual_servers: new.virtual_servers, flows, mirror, ..running.clone() };
    for old in running.pools.iter().filter(|old| !old.servers.is_empty()) {
        match merged.pools.iter_mut().find(|pool| pool.id == old.id) {
            Some(pool) => {
                let gone = |server: &&Server| pool.servers.iter().all(|known| known.id != server.id);
                let gone: Vec<Server> = old.servers.iter().filter(gone).map(retired_server).collect();
                pool.servers.extend(gone);
            }
            None => merged.pools.push(Pool {
                balance: Balance::RoundRobin,
                health: None,
                least_servers: 0,
                servers: old.servers.iter().map(retired_server).collect(),
                retired: true,
                ..old.clone()
            }),
        }
    }
    for old in &running.virtual_servers {
        match merged.virtual_servers.iter_mut().find(|server| server.id == old.id) {
            Some(server) => {
                let gone: Vec<IpAddr> =
                    old.all_sources().filter(|address| !server.sources().contains(address)).collect();
                server.retired_sources = gone;
            }
            None => merged.virtual_servers.push(VirtualServer { retired: true, ..old.clone() }),
        }
    }
    place_retired(&mut merged);
    merged
}

/// Gives retired virtual servers a pool without servers, the last one.
pub(super) fn place_retired(checked: &mut Checked) {
    checked.pools.retain(|pool| !pool.servers.is_empty());
    if !checked.virtual_servers.iter().any(|server| server.retired) {
        return;
    }
    let nowhere = checked.pools.len();
    checked.pools.push(Pool {
        id: PoolId(0),
        name: String::new(),
        balance: Balance::RoundRobin,
        health: None,
        least_servers: 0,
        servers: Vec::new(),
        retired: true,
    });
    for server in checked.virtual_servers.iter_mut().filter(|server| server.retired) {
        server.pool = nowhere;
    }
}

/// The configuration without what is retired and has no flows; `None`: all that is retired has some.
pub fn without_idle(
    running: &Checked,
    has_flows: impl Fn(VirtualServerId) -> bool,
    server_has_flows: impl Fn(ServerId) -> bool,
) -> Option<Checked> {
    let mut left = running.clone();
    for pool in &mut left.pools {
        pool.servers.retain(|server| !server.retired || server_has_flows(server.id));
    }
    left.virtual_servers.retain(|server| !server.retired || has_flows(server.id));
    for server in left.virtual_servers.iter_mut().filter(|server| !has_flows(server.id)) {
        server.retired_sources.clear();
    }
    place_retired(&mut left);
    (left.retired() < running.retired()).then_some(left)
}

impl Checked {
    /// How much is retired: virtual servers, servers, source-NAT addresses.
    pub fn retired(&self) -> usize {
        let servers = self.pools.iter().flat_map(|pool| &pool.servers).filter(|server| server.retired);
        let of = |server: &VirtualServer| usize::from(server.retired) + server.retired_sources.len();
        servers.count() + self.virtual_servers.iter().map(of).sum::<usize>()
    }
}
