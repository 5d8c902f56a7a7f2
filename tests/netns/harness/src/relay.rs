//! A switch of our own for the mirror network, which loses, delays and doubles frames as a seed says.
//!
//! Frames of up to three ports go from one to the other by their MAC addresses, as a bridge passes them. What happens to
//! the n-th frame from one port to another depends on the seed alone; which frame is the n-th does not. (The kernel's
//! netem could be seeded only by an iproute2 newer than Debian 12's.)

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use fastrand::Rng;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, bind, setsockopt, socket, sockopt::RcvBufForce,
};

use crate::command::inside;
use crate::plan::Link;
use crate::stall;
use crate::world::World;

/// Above the liveness threads, and below the watch for stalls: a wire waits for nobody.
const REAL_TIME: u8 = 55;
/// Frames that are held back at a time; beyond, they are lost.
const HELD_MAX: usize = 20_000;
/// Frames of a port that are read in a row.
const IN_A_ROW_MAX: usize = 64;
/// What the kernel keeps of a port until it is read, in bytes: nothing but the seed is to lose frames.
const QUEUE_BYTES: usize = 16 << 20;
/// Between two looks whether it is to end.
const STOP_CHECK: Duration = Duration::from_millis(100);
const FRAME_BYTES_MAX: usize = 9216;

/// What it does to frames.
#[derive(Clone, Copy, Debug)]
pub struct Rough {
    /// What decides about each frame.
    pub seed: u64,
    /// Of a thousand frames so many are lost.
    pub lost: u16,
    /// So many wait, and are overtaken by those behind them.
    pub delayed: u16,
    /// For how long at most.
    pub delay_max: Duration,
    /// So many come twice.
    pub doubled: u16,
}

impl Rough {
    /// Every twentieth frame is lost, every tenth waits for up to three milliseconds, every hundredth comes twice.
    pub const fn with_seed(seed: u64) -> Rough {
        Rough { seed, lost: 50, delayed: 100, delay_max: Duration::from_millis(3), doubled: 10 }
    }

    /// What becomes of the next frame of a direction.
    fn fate(&self, rng: &mut Rng) -> Fate {
        // Always as many numbers, whatever becomes of it.
        let [lost, delayed, doubled] = [(); 3].map(|()| rng.u16(0..1000));
        let delay = self.delay_max.mul_f64(rng.f64());
        if lost < self.lost {
            return Fate::Lost;
        }
        let delay = if delayed < self.delayed { delay } else { Duration::ZERO };
        Fate::Passed { delay, twice: doubled < self.doubled }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lost,
    Passed { delay: Duration, twice: bool },
}

/// What became of frames; one that is flooded to two ports counts twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// That came and had somewhere to go.
    pub frames: u64,
    /// Lost because the seed said so.
    pub lost: u64,
    /// That left after one that had come behind them.
    pub overtaken: u64,
    /// That left once more.
    pub doubled: u64,
    /// Bytes that left, all ports together.
    pub bytes: u64,
    /// Lost because too many were held back, or an interface did not take them.
    pub overflowed: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { frames, lost, overtaken, doubled, bytes, overflowed: _ } = self;
        let megabytes = *bytes as f64 / 1e6;
        write!(
            out,
            "{frames} frames, {lost} lost, {overtaken} overtaken, {doubled} doubled; {megabytes:.1} MB left it"
        )
    }
}

/// The relay, which runs until it is dropped.
#[derive(Debug)]
pub struct Relay {
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Relay {
    /// Starts it between the mirror ports of a world that has [`crate::world::MirrorNetwork::Relay`].
    pub fn start(world: &World, rough: Rough) -> Result<Relay> {
        let names: Vec<String> = world.sides().iter().map(|side| Link::Mirror.interface(*side)).collect();
        let ports = inside(&world.namespace("switch"), || {
            names.iter().map(|name| open(name)).collect::<Result<Vec<File>>>()
        })?;
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Counts::default())));
        let mut switch = Switch::new(ports.len(), rough);
        let (stopped, told) = (Arc::clone(&stop), Arc::clone(&counts));
        let thread = std::thread::spawn(move || {
            // Without the right to real time it is a slower wire.
            let _ = stall::be_real_time_at(REAL_TIME);
            while !stopped.load(Ordering::Relaxed) {
                switch.turn(&ports)?;
                *lock(&told) = switch.counts;
            }
            Ok(())
        });
        Ok(Relay { stop, counts, thread: Some(thread) })
    }

    /// What it did so far.
    pub fn counts(&self) -> Counts {
        *lock(&self.counts)
    }

    /// An error if it has ended, and why.
    pub fn still_runs(&mut self) -> Result<()> {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        let thread = self.thread.take().context("the relay has ended")?;
        thread.join().map_err(|_| anyhow!("the relay panicked"))?.context("the relay ended")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> std::sync::MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A raw socket on an interface of this thread's namespace.
fn open(interface: &str) -> Result<File> {
    let port = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK, SockProtocol::EthAll)
        .context("no raw socket")?;
    let addresses = getifaddrs().context("no interfaces are known")?;
    let address = addresses
        .filter(|address| address.interface_name == interface)
        .find_map(|address| address.address?.as_link_addr().copied())
        .with_context(|| format!("there is no interface {interface}"))?;
    // What the address says of a protocol is 0: that of the socket stays.
    bind(port.as_raw_fd(), &address).with_context(|| format!("cannot listen at {interface}"))?;
    setsockopt(&port, RcvBufForce, &QUEUE_BYTES).context("no queue")?;
    let mut port = File::from(port);
    // Until it was bound, it heard everybody.
    let mut frame = [0; FRAME_BYTES_MAX];
    for _ in 0..1000 {
        if !matches!(port.read(&mut frame), Ok(1..)) {
            break;
        }
    }
    Ok(port)
}

/// A frame that waits to leave.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    due: Instant,
    order: u64,
    from: usize,
    to: usize,
    /// Its number among those from there to there.
    number: u64,
    again: bool,
    frame: Vec<u8>,
}

/// From one port to another.
#[derive(Debug)]
struct Direction {
    rng: Rng,
    came: u64,
    newest_left: u64,
}

#[derive(Debug)]
struct Switch {
    rough: Rough,
    ports: usize,
    /// From each port to each.
    directions: Vec<Direction>,
    /// Behind which port a MAC address is.
    known: HashMap<[u8; 6], usize>,
    held: BinaryHeap<Reverse<Held>>,
    order: u64,
    counts: Counts,
}

impl Switch {
    fn new(ports: usize, rough: Rough) -> Switch {
        let mut seeds = Rng::with_seed(rough.seed);
        let direction = |_| Direction { rng: seeds.fork(), came: 0, newest_left: 0 };
        let directions = (0..ports * ports).map(direction).collect();
        let (known, held, counts) = (HashMap::new(), BinaryHeap::new(), Counts::default());
        Switch { rough, ports, directions, known, held, order: 0, counts }
    }

    /// Waits for frames, or for one that is due; takes in what came, and lets go what is due.
    fn turn(&mut self, ports: &[File]) -> Result<()> {
        let now = Instant::now();
        let wait =
            self.held.peek().map_or(STOP_CHECK, |Reverse(next)| next.due.saturating_duration_since(now));
        let mut waits: Vec<PollFd> =
            ports.iter().map(|port| PollFd::new(port.as_fd(), PollFlags::POLLIN)).collect();
        match ppoll(&mut waits, Some(wait.min(STOP_CHECK).into()), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for frames"),
        }
        let mut frame = [0; FRAME_BYTES_MAX];
        for (from, mut port) in ports.iter().enumerate() {
            for _ in 0..IN_A_ROW_MAX {
                match port.read(&mut frame) {
                    Ok(length) => self.come(Instant::now(), from, &frame[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // The other end is gone: whoever is there was killed.
                    Err(_) => break,
                }
            }
        }
        while let Some(held) = self.leave(Instant::now()) {
            match (&ports[held.to]).write(&held.frame) {
                Ok(length) => self.counts.bytes += length as u64,
                Err(_) => self.counts.overflowed += 1,
            }
        }
        Ok(())
    }

    /// A frame came by a port.
    fn come(&mut self, now: Instant, from: usize, frame: &[u8]) {
        let (Some(to), Some(sender)) = (mac(frame, 0), mac(frame, 6)) else { return };
        self.known.insert(sender, from);
        let one = self.known.get(&to).copied().filter(|_| to[0] & 1 == 0);
        for port in (0..self.ports).filter(|port| *port != from && one.is_none_or(|one| one == *port)) {
            self.pass(now, from, port, frame);
        }
    }

    fn pass(&mut self, now: Instant, from: usize, to: usize, frame: &[u8]) {
        self.counts.frames += 1;
        let direction = &mut self.directions[from * self.ports + to];
        direction.came += 1;
        let number = direction.came;
        let Fate::Passed { delay, twice } = self.rough.fate(&mut direction.rng) else {
            self.counts.lost += 1;
            return;
        };
        for again in [false, true].into_iter().take(1 + usize::from(twice)) {
            if self.held.len() >= HELD_MAX {
                self.counts.overflowed += 1;
                return;
            }
            self.order += 1;
            // The second one comes as late as any may.
            let due = now + if again { self.rough.delay_max } else { delay };
            let (order, frame) = (self.order, frame.to_vec());
            self.held.push(Reverse(Held { due, order, from, to, number, again, frame }));
        }
    }

    /// The next frame that is due.
    fn leave(&mut self, now: Instant) -> Option<Held> {
        if self.held.peek()?.0.due > now {
            return None;
        }
        let Reverse(held) = self.held.pop()?;
        let direction = &mut self.directions[held.from * self.ports + held.to];
        self.counts.doubled += u64::from(held.again);
        self.counts.overtaken += u64::from(!held.again && held.number < direction.newest_left);
        direction.newest_left = direction.newest_left.max(held.number);
        Some(held)
    }
}

fn mac(frame: &[u8], at: usize) -> Option<[u8; 6]> {
    frame.get(at..at + 6)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3]];

    fn frame(to: [u8; 6], from: usize, number: u32) -> Vec<u8> {
        [&to[..], &MACS[from], &number.to_be_bytes()].concat()
    }

    /// Sends so many frames from port 0 to port 1, one each 100 µs; the numbers of what arrives, in order.
    fn arrivals(seed: u64, count: u32) -> (Vec<u32>, Counts) {
        let mut switch = Switch::new(3, Rough::with_seed(seed));
        let mut now = Instant::now();
        switch.come(now, 1, &frame(MACS[0], 1, 0));
        while switch.leave(now + Duration::from_secs(1)).is_some() {}
        let before = switch.counts;
        let mut arrived = Vec::new();
        let mut take = |switch: &mut Switch, now| {
            while let Some(held) = switch.leave(now) {
                assert_eq!((held.from, held.to), (0, 1));
                arrived.push(u32::from_be_bytes(held.frame[12..16].try_into().expect("four bytes")));
            }
        };
        for number in 1..=count {
            switch.come(now, 0, &frame(MACS[1], 0, number));
            now += Duration::from_micros(100);
            take(&mut switch, now);
        }
        take(&mut switch, now + Duration::from_secs(1));
        assert_eq!(switch.counts.frames, before.frames + u64::from(count));
        (arrived, switch.counts)
    }

    #[test]
    fn of_ten_thousand_frames_about_five_hundred_are_lost_and_others_overtaken_or_doubled() {
        let (arrived, counts) = arrivals(7, 10_000);
        assert!((400..600).contains(&counts.lost), "{counts:?}");
        assert!((50..200).contains(&counts.doubled), "{counts:?}");
        assert!((600..1100).contains(&counts.overtaken), "{counts:?}");
        assert_eq!(arrived.len() as u64, 10_000 - counts.lost + counts.doubled);
        assert_eq!(counts.overflowed, 0);
        assert!(!arrived.is_sorted());
    }

    #[test]
    fn the_same_seed_does_the_same_and_another_something_else() {
        assert_eq!(arrivals(7, 1000).0, arrivals(7, 1000).0);
        assert_ne!(arrivals(7, 1000).0, arrivals(8, 1000).0);
    }

    #[test]
    fn a_frame_goes_where_its_address_is_and_one_to_many_goes_everywhere_else() {
        let mut switch = Switch::new(3, Rough { lost: 0, doubled: 0, ..Rough::with_seed(1) });
        let now = Instant::now();
        let mut sent = |to, from| {
            switch.come(now, from, &frame(to, from, 0));
            let mut ports = Vec::new();
            while let Some(held) = switch.leave(now + Duration::from_secs(1)) {
                ports.push(held.to);
            }
            ports.sort_unstable();
            ports
        };
        assert_eq!(sent([0xff; 6], 0), [1, 2]);
        assert_eq!(sent(MACS[2], 1), [0, 2], "nobody knows where it is");
        assert_eq!(sent(MACS[0], 2), [0]);
        assert_eq!(sent(MACS[2], 1), [2]);
        assert!(sent(MACS[1], 1).is_empty(), "it is where it came from");
    }
}
