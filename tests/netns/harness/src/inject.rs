//! Frames of somebody who is on an appliance's LAN, and does as he likes.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use crate::command::inside;
use crate::plan::{Link, Side};
use crate::world::World;

/// After so many frames there is a rest: the receiver's ring holds no more than some hundreds.
const BURST: usize = 16;
/// How long it is.
const REST: Duration = Duration::from_millis(2);

/// The frames of a capture, as they were on the wire (pcap 2.4, in this machine's byte order, of Ethernet).
pub fn frames(capture: &Path) -> Result<Vec<Vec<u8>>> {
    let shown = || capture.display().to_string();
    let bytes = fs::read(capture).with_context(shown)?;
    let (head, mut rest) = bytes.split_at_checked(24).with_context(|| format!("{} is short", shown()))?;
    ensure!(head[..4] == 0xa1b2_c3d4_u32.to_ne_bytes(), "{} is no capture of this machine's", shown());
    let mut frames = Vec::new();
    // tcpdump may have been ended in the middle of the last one.
    while let Some((head, tail)) = rest.split_at_checked(16) {
        let length = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let Some((frame, tail)) = tail.split_at_checked(length) else { break };
        frames.push(frame.to_vec());
        rest = tail;
    }
    Ok(frames)
}

/// Sends frames to an appliance by one of its links.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
    to: LinkAddr,
}

impl Injector {
    /// At the switch's end of the cable.
    pub fn new(world: &World, side: Side, link: Link) -> Result<Injector> {
        let interface = link.interface(side);
        inside(&world.namespace("switch"), || {
            let found = getifaddrs()?
                .filter(|found| found.interface_name == interface)
                .find_map(|found| found.address?.as_link_addr().copied());
            let to = found.with_context(|| format!("no interface {interface}"))?;
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None)?;
            Ok(Injector { socket, to })
        })
    }

    /// Sends them in their order.
    pub fn send<'f>(&self, frames: impl IntoIterator<Item = &'f [u8]>) -> Result<()> {
        for (number, frame) in frames.into_iter().enumerate() {
            sendto(self.socket.as_raw_fd(), frame, &self.to, MsgFlags::empty())?;
            if number % BURST == BURST - 1 {
                std::thread::sleep(REST);
            }
        }
        Ok(())
    }
}
