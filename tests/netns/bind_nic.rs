//! `scripts/bind-nic` on a make-believe sysfs, where nothing real can be taken away (REQ E6).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use netns_harness::command::ip;
use netns_harness::{Result, World};

use crate::one_at_a_time;

const CARD: &str = "0000:3b:00.0";
const DISK: &str = "0000:01:00.0";

/// A card with the interface `eth0` and the driver `e1000e`, and a disk.
fn sysfs(world: &World) -> Result<PathBuf> {
    let top = world.directory().join("sys");
    let (pci, card) = (top.join("bus/pci"), top.join("bus/pci/devices").join(CARD));
    for directory in
        [card.join("virtio0/net/eth0"), pci.join("devices").join(DISK), pci.join("drivers/e1000e")]
    {
        fs::create_dir_all(directory)?;
    }
    fs::create_dir_all(top.join("class/net"))?;
    symlink(card.join("virtio0/net/eth0"), top.join("class/net/eth0"))?;
    symlink(pci.join("drivers/e1000e"), card.join("driver"))?;
    for (file, text) in [
        (card.join("class"), "0x020000\n"),
        (card.join("driver_override"), "(null)\n"),
        (pci.join("devices").join(DISK).join("class"), "0x010802\n"),
        (pci.join("drivers/e1000e/unbind"), ""),
        (pci.join("drivers_probe"), ""),
    ] {
        fs::write(file, text)?;
    }
    Ok(top)
}

/// Runs the script in the client's namespace, whose `eth0` the card then has.
fn bind_nic(world: &World, sysfs: &Path, args: &[&str]) -> Result<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bind-nic");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &world.namespace("client")]).arg(script).args(args).env("SYSFS", sysfs);
    Ok(command.output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn a_card_in_use_is_refused_unless_forced() -> Result<()> {
    let _one = one_at_a_time();
    let world = World::new(1)?;
    let sysfs = sysfs(&world)?;
    let read = |file: &str| fs::read_to_string(sysfs.join("bus/pci").join(file));
    let overridden = format!("devices/{CARD}/driver_override");

    let output = bind_nic(&world, &sysfs, &["--bind", CARD])?;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("eth0 has an address"), "{}", said(&output));
    assert_eq!(read(&overridden)?, "(null)\n", "nothing was touched");

    // Here no kernel follows, and the script must notice that.
    let output = bind_nic(&world, &sysfs, &["--bind", CARD, "--force"])?;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("did not go to vfio-pci"), "{}", said(&output));
    assert_eq!(read(&overridden)?, "vfio-pci\n");
    assert_eq!(read("drivers/e1000e/unbind")?, format!("{CARD}\n"));
    assert_eq!(read("drivers_probe")?, format!("{CARD}\n"));

    let output = bind_nic(&world, &sysfs, &["--unbind", CARD])?;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(read(&overridden)?, "\n", "the kernel's own driver may have it");
    Ok(())
}

#[test]
fn a_card_without_an_address_or_a_default_route_needs_no_force() -> Result<()> {
    let _one = one_at_a_time();
    let world = World::new(1)?;
    let sysfs = sysfs(&world)?;
    ip(&world.namespace("client"), "addr flush dev eth0\nroute add default dev eth0\n")?;
    let output = bind_nic(&world, &sysfs, &["--bind", CARD])?;
    assert!(said(&output).contains("eth0 has the default route"), "{}", said(&output));
    ip(&world.namespace("client"), "route del default\n")?;
    let output = bind_nic(&world, &sysfs, &["--bind", CARD])?;
    assert!(said(&output).contains("did not go to vfio-pci"), "it was tried: {}", said(&output));
    Ok(())
}

#[test]
fn what_is_no_network_card_is_refused() -> Result<()> {
    let _one = one_at_a_time();
    let world = World::new(1)?;
    let sysfs = sysfs(&world)?;
    for (args, status, message) in [
        (&["--bind", DISK][..], 1, "is not a network card"),
        (&["--bind", "0000:ff:00.0"], 1, "there is no PCI device"),
        (&["--bind", "eth0"], 2, "is not a PCI address"),
        (&["--bind"], 2, "needs a value"),
        (&[], 2, "say --status"),
    ] {
        let output = bind_nic(&world, &sysfs, args)?;
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", said(&output));
        assert!(said(&output).contains(message), "{args:?}: {}", said(&output));
    }
    let output = bind_nic(&world, &sysfs, &["--status"])?;
    assert!(said(&output).contains(CARD) && said(&output).contains("e1000e"), "{}", said(&output));
    assert!(!said(&output).contains(DISK), "{}", said(&output));
    Ok(())
}
