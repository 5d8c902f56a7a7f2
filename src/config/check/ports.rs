//! `[[port]]` and `[[route]]`.

use core::cmp::Reverse;
use core::net::IpAddr;

use crate::base::ids::PortId;
use crate::base::limits::PORTS_MAX;
use crate::config::check::addresses::{Addresses, Use};
use crate::config::check::names;
use crate::config::checked::{Cidr, Port, Route};
use crate::config::file::{File, PortFile};
use crate::config::report::{Place, Report};

pub fn ports(file: &File, addresses: &mut Addresses, report: &mut Report) -> Option<Vec<Port>> {
    let list = file.port.get().map_or(0, Vec::len);
    if file.port.get().is_some() && !(1..=PORTS_MAX).contains(&list) {
        report.refuse(&file.port.place, format!("1 to {PORTS_MAX} ports"));
    }
    let names =
        file.port.elements().filter_map(|(_, port)| Some((&port.name.place, port.name.get()?.0.clone())));
    names::unique(names, "port name", report);
    devices(file, report);
    addresses.incomplete = file.port.all().is_none();
    // A port's id is its place in the file, also where one before it is wrong.
    let indexed = file.port.get().into_iter().flatten().enumerate();
    let ports: Vec<(PortId, &PortFile)> =
        indexed.filter_map(|(index, port)| Some((PortId(index as u16), port.get()?))).collect();
    for &(id, port) in &ports {
        own_addresses(id, port, addresses, report);
    }
    for &(id, port) in &ports {
        shared_addresses(id, port, addresses, report);
    }
    ports.into_iter().map(|(_, port)| build(port)).collect()
}

fn build(port: &PortFile) -> Option<Port> {
    Some(Port {
        name: port.name.get()?.0.clone(),
        device: port.device.get()?.0.clone(),
        addresses: port.addresses.all()?.into_iter().map(|(_, cidr)| cidr.0).collect(),
        shared_addresses: port.shared_addresses.all()?.into_iter().map(|(_, cidr)| cidr.0).collect(),
        mtu: port.mtu.get()?.u16(),
        zone: port.zone.optional()?.map(|zone| zone.0.clone()),
    })
}

/// Two ports cannot drive one device, nor one kernel interface.
fn devices(file: &File, report: &mut Report) {
    let mut names: Vec<(String, usize)> = Vec::new();
    let mut interfaces: Vec<(String, usize)> = Vec::new();
    for (_, port) in file.port.elements() {
        let Some(device) = port.device.get() else { continue };
        let place = &port.device.place;
        let mut parts = device.0.split(',');
        // "3b:00.0" and "0000:3b:00.0" are one device.
        let name = parts.next().unwrap_or("").to_ascii_lowercase();
        let name = name.strip_prefix("0000:").unwrap_or(&name).to_owned();
        let interface = parts.find_map(|part| part.strip_prefix("iface=")).map(str::to_owned);
        if let Some((_, line)) = names.iter().find(|(earlier, _)| *earlier == name) {
            report.refuse(place, format!("a device of its own: \"{name}\" is on line {line} already"));
            continue;
        }
        names.push((name, place.line));
        let Some(interface) = interface else { continue };
        match interfaces.iter().find(|(earlier, _)| *earlier == interface) {
            Some((_, line)) => report.refuse(
                place,
                format!("an interface of its own: iface={interface} is on line {line} already"),
            ),
            None => interfaces.push((interface, place.line)),
        }
    }
}

fn own_addresses(id: PortId, port: &PortFile, addresses: &mut Addresses, report: &mut Report) {
    let before_all = report.errors.len();
    if port.addresses.get().is_some_and(Vec::is_empty) {
        report.refuse(&port.addresses.place, "at least one address: a standby has no other to speak from");
    }
    for (place, cidr) in port.addresses.elements() {
        let cidr = cidr.0;
        let before = report.errors.len();
        addresses.claim(cidr.address, Use::Own, place, report);
        let same = |(other, other_id): &&(Cidr, PortId)| {
            *other_id != id && other.prefix_len == cidr.prefix_len && other.network() == cidr.network()
        };
        // Link-local networks are per link by definition (RFC 4291 section 2.5.6, RFC 3927).
        let taken = !is_link_local(cidr.address) && addresses.networks.iter().any(|n| same(&n));
        if taken && report.errors.len() == before {
            let network = Cidr { address: cidr.network(), ..cidr };
            report.refuse(place, format!("a network of its own: {network} is on another port already"));
        }
        addresses.networks.push((cidr, id));
    }
    // After a mistake here, what seems out of reach may be only its consequence.
    addresses.incomplete |= report.errors.len() > before_all || port.addresses.all().is_none();
}

fn shared_addresses(id: PortId, port: &PortFile, addresses: &mut Addresses, report: &mut Report) {
    for (place, cidr) in port.shared_addresses.elements() {
        let cidr = cidr.0;
        let before = report.errors.len();
        addresses.claim(cidr.address, Use::Shared, place, report);
        let covered = addresses.networks.iter().any(|(network, port)| {
            *port == id && network.prefix_len == cidr.prefix_len && network.network() == cidr.network()
        });
        let own_known = port.addresses.all().is_some_and(|all| !all.is_empty());
        if own_known && !covered && !is_link_local(cidr.address) && report.errors.len() == before {
            report
                .refuse(place, "an address on a network of this port's own addresses, with the same prefix");
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

pub fn routes(file: &File, addresses: &mut Addresses, report: &mut Report) -> Option<Vec<Route>> {
    let ports_known = !addresses.incomplete;
    let mut seen: Vec<(Cidr, Place)> = Vec::new();
    for (_, route) in file.route.elements() {
        if let Some(destination) = route.destination.get() {
            let place = &route.destination.place;
            match seen.iter().find(|(earlier, _)| *earlier == destination.0) {
                Some((_, other)) => report.refuse(
                    place,
                    format!("a destination of its own: {} is on line {} already", destination.0, other.line),
                ),
                None => seen.push((destination.0, place.clone())),
            }
        }
        let Some(gateway) = route.gateway.get() else { continue };
        let place = &route.gateway.place;
        if let Some(destination) = route.destination.get() {
            if destination.0.address.is_ipv4() != gateway.0.is_ipv4() {
                report.refuse(place, "a gateway of the destination's family (IPv4 or IPv6)");
                continue;
            }
        }
        match addresses.port_of(gateway.0) {
            Some(_) => addresses.claim(gateway.0, Use::Gateway, place, report),
            None if ports_known => report.refuse(place, "an address on a network of one of the ports"),
            None => {}
        }
    }
    addresses.incomplete |= file.route.all().is_none();
    addresses.incomplete |= file.route.elements().any(|(_, route)| route.destination.get().is_none());
    addresses.routes = seen.into_iter().map(|(destination, _)| destination).collect();
    let routes = file.route.all()?.into_iter().map(|(_, route)| {
        let gateway = route.gateway.get()?.0;
        Some(Route { destination: route.destination.get()?.0, gateway, port: addresses.port_of(gateway)? })
    });
    let mut routes: Vec<Route> = routes.collect::<Option<_>>()?;
    routes.sort_by_key(|route| Reverse(route.destination.prefix_len));
    Some(routes)
}
