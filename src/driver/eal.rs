//! A checked configuration as arguments of DPDK's environment (EAL).
//!
//! Pure: strings out. Lcore 0 is the master, lcore `i + 1` is worker `i`, each pinned to
//! its CPU, which several may share (REQ E5, E6).

use crate::base::ids::WorkerId;
use crate::config::checked::{Eal, Lcores, Port};

/// The EAL's number of the master's lcore.
pub const MASTER_LCORE: u32 = 0;

/// The EAL's number of a worker's lcore.
pub const fn lcore_of(worker: WorkerId) -> u32 {
    worker.0 as u32 + 1
}

/// Whether a port's device is named by its PCI address, `dddd:bb:dd.f` or `bb:dd.f`,
/// rather than a virtual device.
pub fn is_pci(device: &str) -> bool {
    let name = device.split(',').next().unwrap_or(device);
    let hex = |text: &str, digits: core::ops::RangeInclusive<usize>| {
        digits.contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit())
    };
    let Some((bus, function)) = name.rsplit_once('.') else { return false };
    let parts: Vec<&str> = bus.split(':').collect();
    let bus_is_one = match parts[..] {
        [bus, device] => hex(bus, 2..=2) && hex(device, 2..=2),
        [domain, bus, device] => hex(domain, 4..=8) && hex(bus, 2..=2) && hex(device, 2..=2),
        _ => false,
    };
    bus_is_one && matches!(function.as_bytes(), [b'0'..=b'7'])
}

/// The arguments, the program's name first.
pub fn arguments(program: &str, eal: &Eal, lcores: &Lcores, ports: &[Port]) -> Vec<String> {
    let mut arguments = vec![String::from(program)];
    arguments.push(format!("--lcores={}", lcore_map(lcores)));
    if eal.hugepages {
        // No mount is needed, nothing is left behind, and several processes coexist;
        // single segments let memif and virtio share the memory.
        arguments.extend(["--in-memory", "--single-file-segments"].map(String::from));
    } else {
        arguments.push(String::from("--no-huge"));
    }
    arguments.extend([String::from("-m"), eal.memory_mb.to_string()]);
    arguments.push(format!("--file-prefix={}", eal.file_prefix));
    // Devices of the machine that the configuration does not name are left alone.
    if !ports.iter().any(|port| is_pci(&port.device)) {
        arguments.push(String::from("--no-pci"));
    }
    for port in ports {
        if is_pci(&port.device) {
            arguments.extend([String::from("-a"), port.device.clone()]);
        } else {
            arguments.push(format!("--vdev={}", port.device));
        }
    }
    arguments.extend(eal.args.iter().cloned());
    arguments
}

fn lcore_map(lcores: &Lcores) -> String {
    let mut map = format!("{MASTER_LCORE}@{}", lcores.master_cpu);
    for (worker, lcore) in lcores.workers.iter().enumerate() {
        map.push_str(&format!(",{}@{}", lcore_of(WorkerId(worker as u16)), lcore.cpu));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::checked::{Idle, LcoreRole, WorkerLcore};

    fn eal(hugepages: bool) -> Eal {
        Eal {
            file_prefix: String::from("baton-a"),
            memory_mb: 256,
            hugepages,
            buffers: 8191,
            args: Vec::new(),
        }
    }

    fn lcores(cpus: &[u32]) -> Lcores {
        let roles = || vec![LcoreRole::TrafficManager];
        let workers = cpus.iter().map(|&cpu| WorkerLcore { cpu, roles: roles(), zone: None });
        Lcores { master_cpu: 0, workers: workers.collect(), idle: Idle::Sleep }
    }

    fn port(device: &str) -> Port {
        Port {
            name: String::from("client"),
            device: String::from(device),
            addresses: Vec::new(),
            shared_addresses: Vec::new(),
            mtu: 1500,
            zone: None,
        }
    }

    #[test]
    fn with_hugepages_nothing_is_left_behind() {
        let ports = [port("net_af_packet0,iface=a-client"), port("net_tap1,iface=a-server")];
        assert_eq!(
            arguments("baton", &eal(true), &lcores(&[1]), &ports).join(" "),
            "baton --lcores=0@0,1@1 --in-memory --single-file-segments -m 256 --file-prefix=baton-a --no-pci \
             --vdev=net_af_packet0,iface=a-client --vdev=net_tap1,iface=a-server"
        );
    }

    #[test]
    fn without_hugepages_memory_is_plain_and_the_prefix_keeps_processes_apart() {
        assert_eq!(
            arguments("baton", &eal(false), &lcores(&[1]), &[port("net_null0")]).join(" "),
            "baton --lcores=0@0,1@1 --no-huge -m 256 --file-prefix=baton-a --no-pci --vdev=net_null0"
        );
    }

    #[test]
    fn workers_may_share_a_cpu_with_each_other_and_with_the_master() {
        let arguments = arguments("baton", &eal(true), &lcores(&[1, 1, 0]), &[]);
        assert_eq!(arguments[1], "--lcores=0@0,1@1,2@1,3@0");
        assert_eq!(lcore_of(WorkerId(2)), 3);
    }

    #[test]
    fn a_pci_device_is_allowed_by_name_and_no_other_is_probed() {
        let ports = [port("0000:01:00.0,representor=0"), port("net_ring0")];
        let arguments = arguments("baton", &eal(true), &lcores(&[1]), &ports).join(" ");
        assert!(arguments.ends_with("--file-prefix=baton-a -a 0000:01:00.0,representor=0 --vdev=net_ring0"));
        assert!(!arguments.contains("--no-pci"));
    }

    #[test]
    fn arguments_of_the_operator_come_last_and_as_they_are() {
        let eal = Eal { args: vec![String::from("--log-level=8"), String::from("-d x.so")], ..eal(true) };
        let arguments = arguments("baton", &eal, &lcores(&[1]), &[]);
        assert_eq!(arguments[arguments.len() - 2..], ["--log-level=8", "-d x.so"]);
    }

    #[test]
    fn pci_addresses_are_told_from_virtual_devices() {
        for pci in ["0000:01:00.0", "01:00.7", "10000:e1:00.1", "0000:3b:00.0,a=1"] {
            assert!(is_pci(pci), "{pci}");
        }
        for other in
            ["net_ring0", "0000:01:00.8", "0000:01:00", "01:00", "net_memif0,socket=/run/a.sock", "1:0.0", ""]
        {
            assert!(!is_pci(other), "{other}");
        }
    }
}
