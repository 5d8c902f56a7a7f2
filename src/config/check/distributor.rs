//! `[distributor]`, and what it has to do with the other tables (REQ D2).

use core::net::{IpAddr, SocketAddr};

use crate::base::ids::WorkerId;
use crate::base::limits::NAMED_MAX;
use crate::config::checked::{
    ChosenMethod, Class, Distributor, HashMethod, LcoreRole, Managers, Method, NamedKey, Protocol,
};
use crate::config::file::{ClassFile, DistributorFile, File, KeyFile, PoolFile, WorkerFile};
use crate::config::report::{Place, Report};
use crate::config::value::ForwardingKind;

/// Places of a connection store that no virtual server's choices fill.
const KEYS_WITHOUT_CHOICES: u32 = 65_536;

pub fn check(file: &File, report: &mut Report) -> Option<Distributor> {
    let distributor = file.distributor.get()?;
    let managers = managers(file);
    needs(file, distributor, report);
    ratio(distributor, managers.as_deref(), report);
    classes(distributor, managers.as_deref(), report);
    zones(file, managers.as_deref(), report);
    named(file, distributor, managers.as_deref(), report);
    answers(file, report);
    let max_keys = match distributor.max_keys.optional()? {
        Some(max_keys) => max_keys.u32(),
        None if methods(file).all(|(_, method)| method.is_hash()) && !names(distributor) => {
            KEYS_WITHOUT_CHOICES
        }
        None => file.flows.get()?.max.get()?.u32(),
    };
    let plain = Method::Hash(HashMethod::Source);
    let ratio = match distributor.ratio.optional()? {
        Some(_) => distributor.ratio.all()?.into_iter().map(|(_, weight)| weight.u32()).collect(),
        None => vec![1; managers?.len()],
    };
    Some(Distributor {
        select: *distributor.select.get()?,
        ratio,
        classes: distributor
            .classes
            .all()?
            .into_iter()
            .map(|(_, class)| build(class))
            .collect::<Option<_>>()?,
        keys: distributor.key.all()?.into_iter().map(|(_, key)| named_key(key)).collect::<Option<_>>()?,
        remembers: distributor.max_keys.is_given()
            || names(distributor)
            || methods(file).any(|(_, method)| method != plain),
        max_keys,
        route_to_servers: *distributor.route_to_servers.get()?,
    })
}

fn build(class: &ClassFile) -> Option<Class> {
    let managers = class.managers.all()?.into_iter().map(|(_, manager)| WorkerId(manager.u16()));
    let dscp = class.dscp.all()?.into_iter().map(|(_, value)| value.u8()).collect();
    Some(Class { dscp, managers: managers.collect::<Managers>() })
}

fn named_key(key: &KeyFile) -> Option<NamedKey> {
    let (address, port) = key.destination.get()?.0;
    let manager = WorkerId(key.manager.get()?.u16());
    Some(NamedKey { address, port, protocol: *key.protocol.get()?, manager })
}

/// Whether the traffic manager of something is named.
fn names(distributor: &DistributorFile) -> bool {
    distributor.key.get().is_some_and(|keys| !keys.is_empty())
}

/// The traffic managers in the order of their numbers; `None` where there is none, or not all roles could be read.
fn managers(file: &File) -> Option<Vec<&WorkerFile>> {
    let mut managers = Vec::new();
    for (_, worker) in file.lcores.get()?.worker.all()? {
        if worker.roles.all()?.iter().any(|(_, role)| **role == LcoreRole::TrafficManager) {
            managers.push(worker);
        }
    }
    // None at all is an error of its own.
    (!managers.is_empty()).then_some(managers)
}

/// The methods in use, each with the key that says so.
fn methods(file: &File) -> impl Iterator<Item = (&Place, Method)> {
    let general = file.distributor.get().map(|distributor| &distributor.select);
    let servers = file.virtual_server.elements().map(|(_, server)| &server.select);
    // A wrong one is reported where it was read.
    let said = servers.filter_map(move |select| if select.is_given() { Some(select) } else { general });
    said.filter_map(|select| Some((&select.place, *select.get()?)))
}

/// With `nat` a server's answers carry the client's address and port alone: those of connections of one client port through
/// two virtual servers to one real server are the same packets. So one traffic manager has to have both.
fn answers(file: &File, report: &mut Report) {
    let mut seen: Vec<(Protocol, Vec<SocketAddr>, Method, &str)> = Vec::new();
    for (_, server) in file.virtual_server.elements() {
        if server.forwarding.get() != Some(&ForwardingKind::Nat) {
            continue;
        }
        let given = server.select.is_given();
        let Some(select) = (if given {
            Some(&server.select)
        } else {
            file.distributor.get().map(|general| &general.select)
        }) else {
            continue;
        };
        let (Some(method), Some(protocol), Some(name)) =
            (select.get(), server.protocol.get(), server.name.get())
        else {
            continue;
        };
        let Some(pool) = server.pool.get() else { continue };
        let is_it = |found: &&PoolFile| found.name.get().is_some_and(|name| name.0 == pool.0);
        let Some(pool) = file.pool.elements().map(|(_, pool)| pool).find(is_it) else { continue };
        let real: Vec<SocketAddr> =
            pool.server.elements().filter_map(|(_, real)| Some(real.address.get()?.0)).collect();
        let shares = seen.iter().find(|(other_protocol, other_real, other_method, _)| {
            let by_client = matches!(method, Method::Hash(HashMethod::Source | HashMethod::SourceAddress));
            other_protocol == protocol
                && !(by_client && other_method == method)
                && other_real.iter().any(|at| real.contains(at))
        });
        if let Some((.., other)) = shares {
            let place = if given { &server.select.place } else { &server.pool.place };
            report.refuse(
                place,
                format!(
                    "\"source\" or \"source-address\", the same as of {other:?}: with forwarding = \"nat\" both have a real \
                     server whose answers could belong to either"
                ),
            );
        }
        seen.push((*protocol, real, *method, name.0.as_str()));
    }
}

/// What a method cannot do without, and what is there for no method. Each is told once.
fn needs(file: &File, distributor: &DistributorFile, report: &mut Report) {
    let uses = |wanted| {
        let of_this_kind = |(_, method): &(&Place, Method)| *method == Method::Chosen(wanted);
        let place = methods(file).find(of_this_kind).map(|(place, _)| place);
        let general = &distributor.select;
        place.or_else(|| (general.get() == Some(&Method::Chosen(wanted))).then_some(&general.place))
    };
    match uses(ChosenMethod::StaticRatio) {
        Some(place) if !distributor.ratio.is_given() => {
            report.refuse(place, "another method, or distributor.ratio: the weight of each traffic manager");
        }
        None if distributor.ratio.is_given() => {
            report.warn(&distributor.ratio.place, "has no effect: nothing selects by \"static-ratio\"");
        }
        Some(_) | None => {}
    }
    match uses(ChosenMethod::QualityOfService) {
        Some(place) if !distributor.classes.is_given() => {
            report.refuse(
                place,
                "another method, or distributor.classes: which traffic managers serve which DSCP",
            );
        }
        None if distributor.classes.is_given() => {
            let message = "has no effect: nothing selects by \"quality-of-service\"";
            report.warn(&distributor.classes.place, message);
        }
        Some(_) | None => {}
    }
}

fn ratio(distributor: &DistributorFile, managers: Option<&[&WorkerFile]>, report: &mut Report) {
    let place = &distributor.ratio.place;
    let (Some(list), Some(managers)) = (distributor.ratio.get(), managers) else { return };
    let (given, count) = (list.len(), managers.len());
    if given != count {
        report.refuse(place, format!("{count} weights, one for each traffic manager; these are {given}"));
    } else if distributor.ratio.all().is_some_and(|all| all.iter().all(|(_, weight)| weight.u32() == 0)) {
        report.refuse(place, "at least one weight above 0");
    }
}

fn classes(distributor: &DistributorFile, managers: Option<&[&WorkerFile]>, report: &mut Report) {
    let mut seen: Vec<(u8, usize)> = Vec::new();
    for (_, class) in distributor.classes.elements() {
        if class.dscp.get().is_some_and(Vec::is_empty) {
            report.refuse(&class.dscp.place, "at least one DSCP value");
        }
        for (place, value) in class.dscp.elements() {
            match seen.iter().find(|(earlier, _)| *earlier == value.u8()) {
                Some((_, line)) => report
                    .refuse(place, format!("each DSCP value once: {} is on line {line} already", value.u8())),
                None => seen.push((value.u8(), place.line)),
            }
        }
        if class.managers.get().is_some_and(Vec::is_empty) {
            report.refuse(&class.managers.place, "at least one traffic manager");
        }
        let mut named = Managers::NONE;
        for (place, manager) in class.managers.elements() {
            let number = manager.u16();
            if let Some(count) = managers.map(<[_]>::len).filter(|count| usize::from(number) >= *count) {
                report.refuse(place, format!("the number of one of {count} traffic managers, from 0"));
            } else if named.has(WorkerId(number)) {
                report.refuse(place, "each traffic manager once");
            }
            named = named.with(WorkerId(number));
        }
    }
}

/// What goes to a traffic manager that is named.
fn named(file: &File, distributor: &DistributorFile, managers: Option<&[&WorkerFile]>, report: &mut Report) {
    if distributor.key.get().is_some_and(|keys| keys.len() > NAMED_MAX) {
        report.refuse(&distributor.key.place, format!("at most {NAMED_MAX} of them"));
    }
    let servers: Option<Vec<_>> = file.virtual_server.all().and_then(|servers| {
        servers
            .into_iter()
            .map(|(_, server)| Some((server.address.get()?.0, *server.protocol.get()?)))
            .collect()
    });
    let mut seen: Vec<((IpAddr, Option<u16>), Protocol, usize)> = Vec::new();
    for (_, key) in distributor.key.elements() {
        if let (Some(manager), Some(count)) = (key.manager.get(), managers.map(<[_]>::len))
            && usize::from(manager.u16()) >= count
        {
            let expected = format!("the number of one of {count} traffic managers, from 0");
            report.refuse(&key.manager.place, expected);
        }
        let (Some(destination), Some(protocol)) = (key.destination.get(), key.protocol.get()) else {
            continue;
        };
        let (place, (address, port)) = (&key.destination.place, destination.0);
        let is_its = |(at, of): &(SocketAddr, Protocol)| {
            at.ip() == address && of == protocol && port.is_none_or(|port| at.port() == port)
        };
        if servers.as_ref().is_some_and(|servers| !servers.iter().any(is_its)) {
            report.refuse(
                place,
                format!("the address of a virtual server of {protocol}, with its port or without"),
            );
        }
        match seen.iter().find(|(earlier, of, _)| *earlier == destination.0 && of == protocol) {
            Some((_, _, line)) => {
                let expected = format!("each destination of {protocol} once: it is on line {line} already");
                report.refuse(place, expected);
            }
            None => seen.push((destination.0, *protocol, place.line)),
        }
    }
}

/// Zones that no choice can come to: accepted, since a port's packets then go to any manager.
fn zones(file: &File, managers: Option<&[&WorkerFile]>, report: &mut Report) {
    let Some(managers) = managers else { return };
    for (_, port) in file.port.elements() {
        let Some(zone) = port.zone.get() else { continue };
        if !managers.iter().any(|manager| manager.zone.get() == Some(zone)) {
            report.warn(&port.zone.place, "no traffic manager is in this zone: all of them serve this port");
        }
    }
    for (_, worker) in file.lcores.get().into_iter().flat_map(|lcores| lcores.worker.elements()) {
        let manages = managers.iter().any(|manager| core::ptr::eq(*manager, worker));
        if worker.zone.is_given() && !manages {
            report.warn(&worker.zone.place, "has no effect: only traffic managers are selected by zone");
        }
    }
}
