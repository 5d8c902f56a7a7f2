//! Binds whatever libdpdk pkg-config finds: compiles the C shim, generates the
//! bindings, names the libraries to link: shared ones, or with the feature `static` archives.

#[cfg(feature = "static")]
mod static_link;

use std::env;
use std::path::PathBuf;
use std::process::{Command, exit};

/// The oldest release that these bindings were made for.
const OLDEST: &str = "22.11";

/// The functions that the wrappers call, besides the shim's own.
const FUNCTIONS: &[&str] = &[
    "rte_eal_init",
    "rte_eal_cleanup",
    "rte_eal_remote_launch",
    "rte_eal_wait_lcore",
    "rte_eal_mp_wait_lcore",
    "rte_eal_get_lcore_state",
    "rte_get_main_lcore",
    "rte_get_next_lcore",
    "rte_lcore_count",
    "rte_socket_id",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_get_tsc_hz",
    "rte_strerror",
    "rte_version",
    "rte_log_set_global_level",
    "rte_pktmbuf_pool_create",
    "rte_pktmbuf_clone",
    "rte_pktmbuf_copy",
    "rte_mempool_free",
    "rte_mempool_avail_count",
    "rte_mempool_in_use_count",
    "rte_ring_create_elem",
    "rte_ring_free",
    "rte_hash_create",
    "rte_hash_free",
    "rte_hash_add_key_with_hash_data",
    "rte_hash_del_key_with_hash",
    "rte_hash_lookup_with_hash_bulk_data",
    "rte_eth_dev_configure",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_dev_close",
    "rte_eth_dev_info_get",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_get_name_by_port",
    "rte_eth_dev_count_avail",
    "rte_eth_dev_is_valid_port",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_mac_addr_add",
    "rte_eth_dev_mac_addr_remove",
    "rte_eth_dev_default_mac_addr_set",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_dev_rss_.*",
    "rte_eth_dev_rx_offload_name",
    "rte_eth_dev_tx_offload_name",
    "rte_eth_rx_queue_setup",
    "rte_eth_tx_queue_setup",
    "rte_eth_promiscuous_.*",
    "rte_eth_allmulticast_.*",
    "rte_eth_macaddr_get",
    "rte_eth_stats_get",
    "rte_eth_stats_reset",
    "dpdk_shim_.*",
];

/// Types whose layout Rust has no need of, or cannot express (packed and
/// aligned at once).
const OPAQUE: &[&str] = &[
    "rte_mbuf",
    "rte_mempool",
    "rte_ring",
    "rte_hash",
    "rte_eth_link",
    "rte_arp_ipv4",
    "rte_arp_hdr",
    "rte_l2tpv2_combined_msg_hdr",
    "rte_gtp_psc_generic_hdr",
];

fn main() {
    println!("cargo::rerun-if-changed=shim/shim.h");
    println!("cargo::rerun-if-changed=shim/shim.c");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");

    // Prints the link lines of the shared libraries, and asks to be run again when pkg-config's variables change.
    let mut libdpdk = pkg_config::Config::new();
    let found =
        libdpdk.atleast_version(OLDEST).cargo_metadata(cfg!(not(feature = "static"))).probe("libdpdk");
    if let Err(error) = found {
        eprintln!(
            "libdpdk {OLDEST} or newer was not found by pkg-config.\n\
             On Debian or Ubuntu: apt-get install libdpdk-dev libclang-dev pkg-config gcc\n\
             For a DPDK of your own: PKG_CONFIG_PATH=/path/to/lib/pkgconfig\n\
             What needs no DPDK builds with --no-default-features.\n\n{error}"
        );
        exit(1);
    }
    #[cfg(feature = "static")]
    if let Err(error) = static_link::print() {
        eprintln!("{error}");
        exit(1);
    }
    let cflags = cflags();

    let mut shim = cc::Build::new();
    shim.file("shim/shim.c").flag("-O3").warnings(true).extra_warnings(false);
    for flag in &cflags {
        shim.flag(flag);
    }
    shim.compile("dpdk_shim");

    let mut builder = bindgen::Builder::default()
        .header("shim/shim.h")
        .clang_args(&cflags)
        .allowlist_function(FUNCTIONS.join("|"))
        .allowlist_type("rte_eth_conf|rte_eth_dev_info|rte_eth_stats|rte_ether_addr|rte_lcore_state_t|rte_eth_rxconf|rte_eth_txconf|rte_hash_parameters")
        .allowlist_var("DPDK_.*|RTE_LOG_.*|RTE_MEMPOOL_NAMESIZE|RTE_RING_NAMESIZE|RTE_ETH_NAME_MAX_LEN")
        .opaque_type(OPAQUE.join("|"))
        .derive_default(false)
        .layout_tests(true)
        .generate_comments(false)
        .prepend_enum_name(false)
        .merge_extern_blocks(true);
    // -O0 in clang's reading, and no intrinsics' bodies: the headers need SSE types to parse.
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64")
        && !cflags.iter().any(|flag| flag.starts_with("-march"))
    {
        builder = builder.clang_arg("-march=corei7");
    }
    let bindings = match builder.generate() {
        Ok(bindings) => bindings,
        Err(error) => {
            eprintln!(
                "bindgen cannot read DPDK's headers: {error}\n(is libclang with its own headers installed?)"
            );
            exit(1);
        }
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    bindings.write_to_file(out.join("bindings.rs")).expect("OUT_DIR can be written");
}

/// The compiler flags that pkg-config gives, all of them: the include paths
/// alone would lose `-include rte_config.h` and `-march`.
fn cflags() -> Vec<String> {
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(program)
        .args(["--cflags", "libdpdk"])
        .output()
        .expect("pkg-config ran a moment ago, so it runs");
    assert!(output.status.success(), "pkg-config --cflags libdpdk failed after finding libdpdk");
    String::from_utf8(output.stdout)
        .expect("compiler flags are text")
        .split_whitespace()
        .map(String::from)
        .collect()
}
