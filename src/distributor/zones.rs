//! Which traffic managers are near to which ports (REQ D2): zones by the names that the configuration has, or else by
//! NUMA nodes. They are numbered here, so that a packet compares numbers.

use crate::base::ids::PortId;
use crate::base::limits::{PORTS_MAX, WORKERS_MAX};
use crate::config::checked::Checked;

/// The NUMA nodes, as the driver finds them. What is missing or `None` is not known, and is taken as one node.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// Those of the workers' CPUs, indexed by `WorkerId`.
    pub workers: Vec<Option<u32>>,
    /// Those of the ports' devices, indexed by `PortId`.
    pub ports: Vec<Option<u32>>,
}

/// The zones of traffic managers and ports, each with a number.
#[derive(Clone, Debug)]
pub struct Zones {
    managers: Vec<u8>,
    ports: Vec<u8>,
}

/// What a zone is called.
#[derive(PartialEq, Eq)]
enum Label<'c> {
    Named(&'c str),
    Node(Option<u32>),
}

/// The number of no zone.
const NOBODYS: u8 = u8::MAX;

// Each has one zone.
const _: () = assert!(WORKERS_MAX + PORTS_MAX <= NOBODYS as usize);

/// What the zones are called of things that have these names, or are at these nodes.
fn labels<'c>(names: impl Iterator<Item = Option<&'c str>>, nodes: &[Option<u32>]) -> Vec<Label<'c>> {
    let nodes = nodes.iter().copied().chain(core::iter::repeat(None));
    names.zip(nodes).map(|(name, node)| name.map_or(Label::Node(node), Label::Named)).collect()
}

impl Zones {
    /// Of a configuration on a machine.
    pub fn new(config: &Checked, nodes: &Nodes) -> Zones {
        let managers = config.lcores.workers.iter().take(usize::from(config.lcores.managers()));
        let managers = labels(managers.map(|worker| worker.zone.as_deref()), &nodes.workers);
        let ports = labels(config.ports.iter().map(|port| port.zone.as_deref()), &nodes.ports);
        let mut known: Vec<&Label<'_>> = Vec::new();
        for label in managers.iter().chain(&ports) {
            if !known.contains(&label) {
                known.push(label);
            }
        }
        let number = |label: &Label<'_>| known.iter().position(|other| *other == label).unwrap_or(0) as u8;
        let managers = managers.iter().map(number).collect();
        let ports = ports.iter().map(number).collect();
        Zones { managers, ports }
    }

    /// Those of the traffic managers, in the order of their numbers.
    pub fn managers(&self) -> &[u8] {
        &self.managers
    }

    /// That of a port; of one that there is not a zone of nobody.
    pub fn of_port(&self, port: PortId) -> u8 {
        self.ports.get(usize::from(port.0)).copied().unwrap_or(NOBODYS)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::load;

    /// Two traffic managers, a distributor before them in the file, and three ports, in zones of these names.
    fn zones(managers: [&str; 2], ports: [&str; 3], nodes: &Nodes) -> (Vec<u8>, Vec<u8>) {
        let zone = |name: &str| if name.is_empty() { String::new() } else { format!(", zone = \"{name}\"") };
        let roles = "roles = [\"traffic-manager\", \"mirror\"]";
        let managers = managers.map(|name| format!("{{ cpu = 0, {roles}{} }}", zone(name))).join(", ");
        let port = |(number, name): (usize, &str)| {
            let device = format!("device = \"net_null{number}\", addresses = [\"10.{number}.0.1/24\"]");
            format!("{{ name = \"p{number}\", {device}{} }}", zone(name))
        };
        let ports: Vec<String> = ports.into_iter().enumerate().map(port).collect();
        let text = format!(
            "port = [ {} ]\nappliance = {{ name = \"a\", node = 1 }}\nfailover = {{ virtual_router_id = 1 }}\n\
             [lcores]\nmaster_cpu = 0\nworker = [ {{ cpu = 0, roles = [\"distributor\"] }}, {managers} ]\n",
            ports.join(", ")
        );
        let config = load(Path::new("zones.toml"), &text).unwrap_or_else(|errors| panic!("{errors:?}"));
        let zones = Zones::new(&config, nodes);
        assert_eq!((zones.managers().len(), zones.of_port(PortId(3))), (2, u8::MAX));
        let of_ports = (0..3).map(|number| zones.of_port(PortId(number))).collect();
        (zones.managers().to_vec(), of_ports)
    }

    #[test]
    fn names_are_zones_on_any_node() {
        let nodes = Nodes { workers: vec![Some(0), Some(1), Some(1)], ports: vec![Some(1); 3] };
        let zones = zones(["left", "right"], ["right", "left", "elsewhere"], &nodes);
        assert_eq!(zones, (vec![0, 1], vec![1, 0, 2]));
    }

    #[test]
    fn without_names_a_node_is_a_zone() {
        let nodes =
            Nodes { workers: vec![Some(1), Some(0), Some(1)], ports: vec![Some(0), Some(1), Some(2)] };
        assert_eq!(zones(["", ""], ["", "", ""], &nodes), (vec![0, 1], vec![1, 0, 2]));
        // A name is never the zone of those that have none.
        assert_eq!(zones(["", "0"], ["0", "1", ""], &nodes), (vec![0, 1], vec![1, 2, 3]));
    }

    #[test]
    fn what_is_not_known_is_one_zone() {
        assert_eq!(zones(["", ""], ["", "", ""], &Nodes::default()), (vec![0, 0], vec![0, 0, 0]));
        let nodes = Nodes { workers: vec![None, Some(0)], ports: vec![Some(0), None] };
        assert_eq!(zones(["", ""], ["", "", ""], &nodes), (vec![0, 1], vec![1, 0, 0]));
    }
}
