//! Whether packets can pass by a port.
//!
//! DPDK is asked, and does not know it of every device: its drivers for kernel interfaces (af_packet, af_xdp, pcap) say "up"
//! whatever the interface is. For those the kernel is asked, in `/sys/class/net/INTERFACE/operstate` (RFC 2863), as long as
//! that directory is about the port's own interface and not about one of another network namespace.
//!
//! What is no sign: that no peer is heard on a port. In a pair, the other one is not heard there by us as we are not heard by
//! it, whichever of the two lost its link; and if only one hears the other, it is the other one that cannot send.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use dpdk::Port;

use crate::base::ids::PortId;
use crate::config::checked::{Checked, Port as PortConfig};
use crate::driver::master::mac_text;

/// DPDK's drivers that do not know.
const ASK_THE_KERNEL: [&str; 3] = ["net_af_packet", "net_af_xdp", "net_pcap"];
/// Where the kernel shows its interfaces.
const INTERFACES: &str = "/sys/class/net";

/// Who is asked.
#[derive(Debug)]
pub enum Link {
    /// DPDK.
    Dpdk,
    /// The kernel, by this file, which is read anew each time.
    Kernel(File),
    /// Nobody knows: it is taken to be up.
    Unknown,
}

/// Those of all ports.
pub fn of_all(config: &Checked, ports: &[Port]) -> Vec<Link> {
    let tracked = |number| config.failover.track.ports.contains(&PortId(number));
    let all = config.ports.iter().zip(ports).zip(0..);
    all.map(|((config, port), number)| Link::of(config, port, tracked(number))).collect()
}

impl Link {
    /// How the link of a port is found out; said once in the log if the port is tracked.
    pub fn of(config: &PortConfig, port: &Port, tracked: bool) -> Link {
        let driver = port.info().map_or_else(|_| String::new(), |info| info.driver);
        if !ASK_THE_KERNEL.contains(&driver.as_str()) {
            if tracked {
                log::info!("port {}: whether its link is up is asked of DPDK's {driver}", config.name);
            }
            return Link::Dpdk;
        }
        let interface = config.device.split(',').find_map(|part| part.strip_prefix("iface=")).unwrap_or("");
        match open(Path::new(INTERFACES), interface, &mac_text(port.mac().unwrap_or_default())) {
            Ok(file) => {
                if tracked {
                    log::info!("port {}: whether its link is up is asked of the kernel", config.name);
                }
                Link::Kernel(file)
            }
            Err(error) => {
                if tracked {
                    log::warn!(
                        "port {}: nobody says whether its link is up, so it is taken to be: {driver} does not know, and \
                         {INTERFACES} does not say: {error}",
                        config.name
                    );
                }
                Link::Unknown
            }
        }
    }

    /// Whether it is up now; does not wait.
    pub fn is_up(&self, port: &Port) -> bool {
        match self {
            Link::Dpdk => port.link().is_ok_and(|link| link.up),
            Link::Kernel(file) => says_up(file),
            Link::Unknown => true,
        }
    }
}

fn open(interfaces: &Path, interface: &str, mac: &str) -> io::Result<File> {
    let directory = interfaces.join(interface);
    let address = std::fs::read_to_string(directory.join("address"))?;
    if address.trim() != mac {
        let what = format!("its {interface} has the address {}, and the port {mac}", address.trim());
        return Err(io::Error::other(what));
    }
    File::open(directory.join("operstate"))
}

/// An interface that is gone cannot be read any more: it is down. Some have no state that they know of, and are up.
fn says_up(operstate: &File) -> bool {
    let mut word = [0; 16];
    let len = operstate.read_at(&mut word, 0).unwrap_or(0);
    matches!(word[..len].trim_ascii_end(), b"up" | b"unknown")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_kernel_is_believed_about_the_ports_own_interface_alone_and_each_time_anew() {
        let root = std::env::temp_dir().join(format!("baton-link-{}", std::process::id()));
        let directory = root.join("eth7");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("address"), "02:00:00:00:00:01\n").unwrap();
        fs::write(directory.join("operstate"), "up\n").unwrap();
        let refused = open(&root, "eth7", "02:00:00:00:00:02").unwrap_err().to_string();
        assert_eq!(refused, "its eth7 has the address 02:00:00:00:00:01, and the port 02:00:00:00:00:02");
        assert!(open(&root, "eth8", "02:00:00:00:00:01").is_err());
        let file = open(&root, "eth7", "02:00:00:00:00:01").unwrap();
        let says = |word: &str| {
            fs::write(directory.join("operstate"), word).unwrap();
            says_up(&file)
        };
        assert!(says("up\n") && says("unknown\n"));
        for word in ["down\n", "lowerlayerdown\n", "dormant\n", "notpresent\n", "testing\n", ""] {
            assert!(!says(word), "{word:?}");
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
