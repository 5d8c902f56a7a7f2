//! With the feature `static`: DPDK's libraries and a choice of its drivers become part of the program, which
//! then needs no libdpdk and no folder of plugins where it runs, and calls DPDK without a detour by the linkage
//! table.
//!
//! `pkg-config --static` would bring every driver there is, with crypto, event and baseband devices. A library that is
//! chosen comes as a whole: a driver registers itself by a constructor, to which nothing refers. Since all
//! come as a whole, their order does not matter. The systems' libraries stay shared.

use std::path::{Path, PathBuf};

/// What a driver needs besides DPDK's base: its library (`librte_NAME.a`), those of DPDK that it uses, and packages
/// of the system by pkg-config's names.
struct Driver(&'static str, &'static [&'static str], &'static [&'static str]);

/// DPDK's own, which every program needs, and what several drivers use.
const BASE: &[&str] = &[
    "eal",
    "kvargs",
    "telemetry",
    "ring",
    "rcu",
    "stack",
    "mempool",
    "mempool_ring",
    "mempool_stack",
    "mbuf",
    "net",
    "meter",
    "ethdev",
    "hash",
    "timer",
    "pci",
    "bus_pci",
    "bus_vdev",
    "cryptodev",
    "security",
    "gso",
];

/// What the base needs of the system.
const BASE_PACKAGES: &[&str] = &["numa", "libbsd"];

/// The drivers: links within a machine, what virtual machines and clouds offer, and the cards that are commonly
/// found. Others can be had with the shared build.
const DRIVERS: &[Driver] = &[
    // Within a machine.
    Driver("net_af_packet", &[], &[]),
    Driver("net_af_xdp", &[], &["libxdp", "libbpf"]),
    Driver("net_memif", &[], &[]),
    Driver("net_null", &[], &[]),
    Driver("net_pcap", &[], &["libpcap"]),
    Driver("net_ring", &[], &[]),
    Driver("net_tap", &[], &[]),
    Driver("net_vhost", &["vhost", "dmadev"], &[]),
    // Several ports as one.
    Driver("net_bond", &[], &[]),
    Driver("net_failsafe", &[], &[]),
    // Virtual machines and clouds.
    Driver("net_virtio", &[], &[]),
    Driver("net_vmxnet3", &[], &[]),
    Driver("net_netvsc", &["bus_vmbus"], &[]),
    Driver("net_vdev_netvsc", &[], &[]),
    Driver("net_ena", &[], &[]),
    Driver("net_gve", &[], &[]),
    // Intel.
    Driver("net_e1000", &[], &[]),
    Driver("net_igc", &[], &[]),
    Driver("net_ixgbe", &[], &[]),
    Driver("net_i40e", &[], &[]),
    Driver("net_iavf", &["common_iavf"], &[]),
    Driver("net_ice", &["common_iavf"], &[]),
    // NVIDIA (Mellanox).
    Driver("net_mlx4", &[], &["libmlx4", "libibverbs"]),
    Driver("net_mlx5", &["common_mlx5", "bus_auxiliary"], &["libmlx5", "libibverbs"]),
    // Broadcom, Marvell, Chelsio, Cisco, AMD (Pensando), Aquantia.
    Driver("net_bnxt", &[], &[]),
    Driver("net_qede", &[], &[]),
    Driver("net_atlantic", &[], &[]),
    Driver("net_cxgbe", &[], &[]),
    Driver("net_enic", &[], &[]),
    Driver("net_ionic", &[], &[]),
    Driver("net_axgbe", &[], &[]),
];

/// Prints the link lines. A driver whose library or packages are missing is left out, with a warning; a missing part
/// of the base is an error.
pub fn print() -> Result<(), String> {
    let folder = pkg_config::get_variable("libdpdk", "libdir").map_err(|error| error.to_string())?;
    let folder = PathBuf::from(folder);
    println!("cargo::rustc-link-search=native={}", folder.display());
    let mut libraries: Vec<&str> = BASE.to_vec();
    let mut packages: Vec<&str> = BASE_PACKAGES.to_vec();
    for library in BASE {
        if !is_there(&folder, library) {
            let file = archive(&folder, library);
            return Err(format!("{} is missing: the feature static needs it", file.display()));
        }
    }
    for Driver(name, used, needed) in DRIVERS {
        let no_library = [name].into_iter().chain(*used).find(|library| !is_there(&folder, library));
        let no_package = needed.iter().find(|package| !has_package(package));
        if let Some(library) = no_library {
            let file = archive(&folder, library);
            println!("cargo::warning=without the driver {name}: there is no {}", file.display());
        } else if let Some(package) = no_package {
            println!("cargo::warning=without the driver {name}: pkg-config does not find {package}");
        } else {
            libraries.push(name);
            libraries.extend(used.iter());
            packages.extend(needed.iter());
        }
    }
    without_repeats(&mut libraries);
    without_repeats(&mut packages);
    for library in libraries {
        println!("cargo::rustc-link-lib=static:+whole-archive,-bundle=rte_{library}");
    }
    for package in packages {
        // Prints their link lines.
        pkg_config::Config::new().probe(package).map_err(|error| error.to_string())?;
    }
    for library in ["m", "dl", "pthread"] {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
    Ok(())
}

fn archive(folder: &Path, library: &str) -> PathBuf {
    folder.join(format!("librte_{library}.a"))
}

fn is_there(folder: &Path, library: &str) -> bool {
    archive(folder, library).exists()
}

fn has_package(package: &str) -> bool {
    pkg_config::Config::new().cargo_metadata(false).probe(package).is_ok()
}

fn without_repeats(names: &mut Vec<&str>) {
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
}
