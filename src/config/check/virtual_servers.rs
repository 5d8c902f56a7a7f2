//! `[[virtual_server]]` (REQ C1, C7).

use core::net::{IpAddr, SocketAddr};

use crate::base::ids::{VirtualServerId, id_of_name};
use crate::config::check::addresses::{Addresses, Use};
use crate::config::check::{names, policy};
use crate::config::checked::{Checkpoints, Commit, Forwarding, MirrorMode, Protocol, VirtualServer};
use crate::config::file::{File, PoolFile, VirtualServerFile};
use crate::config::report::Report;
use crate::config::value::{ForwardingKind, MirrorKind};

pub fn check(file: &File, addresses: &mut Addresses, report: &mut Report) -> Option<Vec<VirtualServer>> {
    let servers = || file.virtual_server.elements().map(|(_, server)| server);
    let names = servers().filter_map(|server| Some((&server.name.place, server.name.get()?.0.clone())));
    names::unique(names, "virtual server name", report);
    if file.virtual_server.get().is_some_and(Vec::is_empty) {
        report.warn(&file.virtual_server.place, "there is no virtual server: nothing will be served");
    }
    overlaps(file, report);
    // All virtual addresses before the first source-NAT address, so that a clash is told at the latter.
    for server in servers() {
        if let Some(at) = server.address.get() {
            addresses.claim(at.0.ip(), Use::Virtual, &server.address.place, report);
        }
    }
    for server in servers() {
        let pool = pool(file, server, report);
        forwarding(server, addresses, report);
        if let Some(pool) = pool {
            families(server, pool, report);
            return_path(file, server, pool, addresses, report);
        }
        mirror(file, server, report);
    }
    file.virtual_server.all()?.into_iter().map(|(_, server)| build(file, server)).collect()
}

fn build(file: &File, server: &VirtualServerFile) -> Option<VirtualServer> {
    let name = server.name.get()?.0.clone();
    let at = server.address.get()?.0;
    let pool = &server.pool.get()?.0;
    let forwarding = match server.forwarding.get()? {
        ForwardingKind::Nat => Forwarding::Nat,
        ForwardingKind::FullNat => {
            let all = server.snat_addresses.all()?.into_iter().map(|(_, address)| address.0);
            Forwarding::FullNat(all.filter(|address| address.is_ipv4() == at.is_ipv4()).collect())
        }
    };
    let mirror = match server.mirror.optional()? {
        Some(mirror) => match mirror.mode.get()? {
            MirrorKind::Off => MirrorMode::Off,
            MirrorKind::Checkpoint if !mirror.commit.is_given() => MirrorMode::Checkpoint(usual(file)),
            MirrorKind::Checkpoint => MirrorMode::Checkpoint(*mirror.commit.get()?),
        },
        None if file.mirror.is_given() => MirrorMode::Checkpoint(usual(file)),
        None => MirrorMode::Off,
    };
    Some(VirtualServer {
        id: VirtualServerId(id_of_name(&name)),
        name,
        address: at.ip(),
        port: at.port(),
        protocol: *server.protocol.get()?,
        pool: file.pool.all()?.iter().position(|(_, p)| p.name.get().is_some_and(|name| name.0 == *pool))?,
        forwarding,
        mirror,
        rules: match server.mirror.optional()? {
            Some(mirror) => policy::rules(mirror)?,
            None => Vec::new(),
        },
        select: match server.select.optional()? {
            Some(select) => *select,
            None => *file.distributor.get()?.select.get()?,
        },
        retired: false,
        retired_sources: Vec::new(),
    })
}

/// `commit`, where the file does not say it.
fn usual(file: &File) -> Commit {
    match file.mirror.get().and_then(|mirror| mirror.checkpoints.get()) {
        Some(Checkpoints::Periodic) => Commit::Async,
        Some(Checkpoints::Acknowledged) | None => Commit::Hold,
    }
}

/// Two virtual servers on one address, port and protocol.
fn overlaps(file: &File, report: &mut Report) {
    let mut seen: Vec<(SocketAddr, Protocol, usize)> = Vec::new();
    for (_, server) in file.virtual_server.elements() {
        let (Some(at), Some(protocol)) = (server.address.get(), server.protocol.get()) else { continue };
        let place = &server.address.place;
        match seen.iter().find(|(earlier, p, _)| *earlier == at.0 && p == protocol) {
            Some((_, _, line)) => report.refuse(
                place,
                format!("an address, port and protocol of its own: those of the virtual server on line {line} are the same"),
            ),
            None => seen.push((at.0, *protocol, place.line)),
        }
    }
}

/// The pool that it names, or an error. Silent where a pool's name could not be read.
fn pool<'f>(file: &'f File, server: &VirtualServerFile, report: &mut Report) -> Option<&'f PoolFile> {
    let name = server.pool.get()?;
    let named: Vec<(&str, &PoolFile)> =
        file.pool.elements().filter_map(|(_, pool)| Some((pool.name.get()?.0.as_str(), pool))).collect();
    if let Some((_, pool)) = named.iter().find(|(known, _)| *known == name.0) {
        return Some(*pool);
    }
    if file.pool.get().is_some_and(|pools| pools.len() == named.len()) {
        let known: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
        let known = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
        report.refuse(&server.pool.place, format!("the name of a [[pool]]: {known}"));
    }
    None
}

const fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn forwarding(server: &VirtualServerFile, addresses: &mut Addresses, report: &mut Report) {
    let Some(kind) = server.forwarding.get() else { return };
    let place = &server.snat_addresses.place;
    match kind {
        ForwardingKind::Nat => {
            if server.snat_addresses.get().is_some_and(|list| !list.is_empty()) {
                report
                    .refuse(place, "none with forwarding = \"nat\": only \"full-nat\" translates the source");
            }
            return;
        }
        ForwardingKind::FullNat => {}
    }
    let mut seen = Vec::new();
    for (place, address) in server.snat_addresses.elements() {
        if seen.contains(&address.0) {
            report.refuse(place, "each address once");
            continue;
        }
        seen.push(address.0);
        addresses.claim(address.0, Use::Snat, place, report);
    }
    let (Some(at), Some(list)) = (server.address.get(), server.snat_addresses.all()) else { return };
    let of_family = |address: IpAddr| address.is_ipv4() == at.0.is_ipv4();
    let family = family(at.0.ip());
    if !list.iter().any(|(_, address)| of_family(address.0)) {
        report.refuse(place, format!("at least one {family} address with forwarding = \"full-nat\""));
        return;
    }
    for (place, address) in list {
        if !of_family(address.0) {
            report.warn(place, format!("not used: the virtual server and its servers are {family}"));
        }
    }
}

fn families(server: &VirtualServerFile, pool: &PoolFile, report: &mut Report) {
    let Some(at) = server.address.get() else { return };
    let addresses = pool.server.elements().filter_map(|(_, server)| server.address.get());
    let other = addresses.map(|address| address.0).find(|address| address.is_ipv4() != at.0.is_ipv4());
    if let Some(other) = other {
        let family = family(at.0.ip());
        report.refuse(
            &server.pool.place,
            format!("a pool of {family} servers, as the virtual address is; this one has {other}"),
        );
    }
}

/// With `nat`, servers answer by way of this appliance: of an address that floats with the role.
fn return_path(
    file: &File,
    server: &VirtualServerFile,
    pool: &PoolFile,
    addresses: &Addresses,
    report: &mut Report,
) {
    if server.forwarding.get() != Some(&ForwardingKind::Nat) {
        return;
    }
    for (_, real) in pool.server.elements() {
        let Some(at) = real.address.get() else { continue };
        let Some(port) = addresses.port_of(at.0.ip()) else { continue };
        let port = file.port.get().and_then(|ports| ports.get(usize::from(port.0))?.get());
        let Some(port) = port else { continue };
        let mut shared = port.shared_addresses.elements().map(|(_, cidr)| cidr.0.address);
        if !shared.any(|shared| shared.is_ipv4() == at.0.is_ipv4()) {
            report.warn(
                &server.forwarding.place,
                format!("{at} has no shared_addresses on its port to be its gateway: its answers may not come back",
                    at = at.0.ip()),
            );
            return;
        }
    }
}

fn mirror(file: &File, server: &VirtualServerFile, report: &mut Report) {
    let Some(mirror) = server.mirror.get() else { return };
    policy::check(server, mirror, report);
    match mirror.mode.get() {
        Some(MirrorKind::Checkpoint) if !file.mirror.is_given() => {
            report.refuse(&mirror.mode.place, "\"off\", or a [mirror] table in the file");
        }
        Some(MirrorKind::Checkpoint)
            if mirror.commit.is_given()
                && mirror.commit.get() == Some(&Commit::Hold)
                && usual(file) == Commit::Async =>
        {
            let expected = "\"async\": with mirror.checkpoints = \"periodic\" no packet waits for the mirror";
            report.refuse(&mirror.commit.place, expected);
        }
        Some(MirrorKind::Off) if mirror.commit.is_given() => {
            report.warn(&mirror.commit.place, "has no effect with mode = \"off\"");
        }
        Some(MirrorKind::Checkpoint | MirrorKind::Off) | None => {}
    }
}
