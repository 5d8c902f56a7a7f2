//! The peer on the other CPU: a member's worker that polls the mirror port's ring, applies what comes and answers, while the
//! appliance goes on.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow, ensure};
use dpdk::Eal;
use dpdk::clock::tsc;

use crate::regime::pin;
use crate::ring::appliance::Wire;
use crate::ring::bench::Bench;
use crate::ring::config::MIRROR;
use crate::ring::member::{self, Member};
use crate::ring::rounds::Usage;

/// The appliance says so often how far the walk is; the peer is up to date within this time, or something is wrong.
const WALK_LIMIT: std::time::Duration = std::time::Duration::from_secs(120);

/// What it says of itself, on lines of its own.
#[repr(align(128))]
#[derive(Debug, Default)]
pub struct Said {
    /// Flows that it has.
    pub flows: AtomicU64,
    /// Frames that it has handled.
    pub frames: AtomicU64,
    /// Time in turns that found frames, in ticks.
    pub busy: AtomicU64,
    /// Times that it was kept from its CPU.
    pub away: AtomicU64,
}

/// A turn of a loop that takes longer, in ticks (8 µs), may have been interrupted.
const LONG: u64 = 20_000;

/// Whether the thread that asks was kept from its CPU since it asked before: by the kernel, as far as it tells.
#[derive(Default)]
pub struct Presence {
    last: u64,
    switches: i64,
}

impl Presence {
    /// Asked in each turn of a loop.
    pub fn was_away(&mut self) -> bool {
        let now = tsc();
        let span = now - core::mem::replace(&mut self.last, now);
        if span < LONG {
            return false;
        }
        let switches = Usage::now().switches;
        core::mem::replace(&mut self.switches, switches) != switches
    }
}

/// A member on a thread of its own.
pub struct LivePeer {
    /// What it says of itself.
    pub said: Arc<Said>,
    stop: Arc<AtomicBool>,
    rests: Arc<AtomicBool>,
    thread: JoinHandle<Result<(Member, Wire)>>,
}

impl LivePeer {
    /// From now on the member serves this end of the mirror port, on this CPU.
    pub fn start(eal: &Eal, mut member: Member, mut wire: Wire, cpu: usize) -> LivePeer {
        let (stop, said) = (Arc::new(AtomicBool::new(false)), Arc::new(Said::default()));
        let rests = Arc::new(AtomicBool::new(false));
        let (stopped, says, resting) = (Arc::clone(&stop), Arc::clone(&said), Arc::clone(&rests));
        let running = (**eal).clone();
        let thread = std::thread::spawn(move || {
            pin(cpu)?;
            // With a cache of buffers of its own, as an lcore has.
            let registered = running.register_thread()?;
            let mut presence = Presence::default();
            while !stopped.load(Ordering::Relaxed) {
                while resting.load(Ordering::Acquire) {
                    std::thread::park();
                }
                let begin = tsc();
                let heard = member.serve(&mut wire)?;
                if heard > 0 {
                    let add = |sum: &AtomicU64, more| {
                        sum.store(sum.load(Ordering::Relaxed) + more, Ordering::Relaxed);
                    };
                    add(&says.busy, tsc() - begin);
                    add(&says.frames, heard as u64);
                    says.flows.store(member.flows(), Ordering::Relaxed);
                }
                if presence.was_away() {
                    says.away.store(says.away.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                }
            }
            drop(registered);
            Ok((member, wire))
        });
        LivePeer { said, stop, rests, thread }
    }

    /// Leaves its CPU to others, or goes on.
    pub fn rest(&self, rests: bool) {
        self.rests.store(rests, Ordering::Release);
        self.thread.thread().unpark();
    }

    /// Has it stop; gives back what it had.
    pub fn stop(self) -> Result<(Member, Wire)> {
        self.stop.store(true, Ordering::Relaxed);
        self.rest(false);
        self.thread.join().map_err(|_| anyhow!("the peer's thread failed"))?
    }
}

impl Bench {
    /// The appliance and this member, which knows nothing, agree on keys; the member goes on by itself on this CPU.
    pub fn meet(&mut self, eal: &Eal, member: Member, cpu: usize) -> Result<()> {
        ensure!(self.peer.is_none() && self.live.is_none(), "there is a peer already");
        let mut member = member;
        let (ours, theirs) = member::sessions()?;
        // What is on its way is of a session before.
        while !self.appliance.wires[usize::from(MIRROR.0)].take().is_empty() {}
        member.join(theirs);
        let wire = self.appliance.wires.pop().context("the mirror port is elsewhere")?;
        self.live = Some(LivePeer::start(eal, member, wire, cpu));
        self.appliance.join(ours)
    }

    /// Waits until it was named every flow, doing this after each turn; then its acknowledgement counts.
    pub fn bring_up(&mut self, mut each: impl FnMut(&mut Bench) -> Result<()>) -> Result<()> {
        let begin = std::time::Instant::now();
        self.appliance.forget_walk();
        while !self.appliance.walk_is_done() {
            self.appliance.turn();
            self.appliance.listen();
            each(self)?;
            ensure!(begin.elapsed() < WALK_LIMIT, "the peer does not come up to date: {}", self.troubles());
        }
        Ok(())
    }

    /// The peer goes on by itself no more, and is gone.
    pub fn part(&mut self) -> Result<Member> {
        let live = self.live.take().context("no peer goes on by itself")?;
        let (member, wire) = live.stop()?;
        self.appliance.wires.push(wire);
        self.appliance.lose_peer()?;
        self.appliance.turn();
        let failures = member.failures();
        ensure!(failures.is_empty(), "peer: {}", failures.join(", "));
        Ok(member)
    }
}
