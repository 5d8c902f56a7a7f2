//! On which NUMA node CPUs and ports are, as the kernel and DPDK say.

use std::fs;
use std::path::Path;

use dpdk::port::Port;

use crate::config::checked::Checked;
use crate::distributor::zones::Nodes;

/// Where the kernel tells of CPUs.
const CPUS: &str = "/sys/devices/system/cpu";

/// The nodes of the configuration's workers and of these ports.
pub fn of(config: &Checked, ports: &[Port]) -> Nodes {
    let workers = config.lcores.workers.iter().map(|worker| of_cpu(Path::new(CPUS), worker.cpu)).collect();
    let ports = ports.iter().map(|port| port.info().ok()?.socket).collect();
    Nodes { workers, ports }
}

/// A CPU's folder has a link named after its node; none where the kernel knows of no nodes.
fn of_cpu(cpus: &Path, cpu: u32) -> Option<u32> {
    let entries = fs::read_dir(cpus.join(format!("cpu{cpu}"))).ok()?;
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.find_map(|name| name.strip_prefix("node")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpus_node_is_named_in_its_folder() {
        let cpus = std::env::temp_dir().join(format!("baton-nodes-{}", std::process::id()));
        for name in ["cpu3/node1", "cpu3/cache", "cpu4/topology"] {
            fs::create_dir_all(cpus.join(name)).expect("a folder for a test");
        }
        let found = [3, 4, 5].map(|cpu| of_cpu(&cpus, cpu));
        fs::remove_dir_all(&cpus).expect("it was made above");
        assert_eq!(found, [Some(1), None, None]);
    }
}
