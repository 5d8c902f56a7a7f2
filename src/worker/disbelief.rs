//! Mirror frames that are not believed, counted by peer and reason until they are told of.

use core::net::IpAddr;

use arrayvec::ArrayVec;

use crate::base::buffer::Buffer;
use crate::base::ids::NodeId;
use crate::base::limits::MEMBERS_MAX;
use crate::base::time::{Duration, Instant};
use crate::seal::Distrust;
use crate::worker::Worker;
use crate::worker::message::Event;

/// Between two times at which it is told of: a flood of such frames makes no flood of events.
const TELL_INTERVAL: Duration = Duration::from_millis(100);

/// What was not believed, and not told of yet.
#[derive(Debug)]
pub(super) struct Disbelief {
    untold: ArrayVec<(NodeId, [u32; Distrust::ALL.len()]), MEMBERS_MAX>,
    tell_at: Instant,
}

impl Disbelief {
    /// Nothing.
    pub(super) fn new() -> Disbelief {
        Disbelief { untold: ArrayVec::new(), tell_at: Instant::ZERO }
    }

    /// When there is something to tell.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        (!self.untold.is_empty()).then_some(self.tell_at)
    }

    fn note(&mut self, node: NodeId, what: Distrust) {
        let known = self.untold.iter().position(|(known, _)| *known == node);
        let at = known.unwrap_or(self.untold.len());
        if known.is_none() && self.untold.try_push((node, [0; Distrust::ALL.len()])).is_err() {
            return; // There are no more members than that.
        }
        let count = &mut self.untold[at].1[what.index()];
        *count = count.saturating_add(1);
    }
}

impl<B: Buffer> Worker<B> {
    /// A frame in the name of a peer was dropped.
    pub(super) fn disbelieve(&mut self, now: Instant, node: NodeId, what: Distrust) {
        self.disbelief.note(node, what);
        self.tell_disbelieved(now);
    }

    /// A frame of no process with which there is a session came from this address.
    pub(super) fn disbelieve_address(&mut self, now: Instant, from: IpAddr) {
        let mirror = self.tables.snapshot.checked.mirror.as_ref();
        let peer = mirror.and_then(|mirror| mirror.peers.iter().find(|peer| peer.address == from));
        if let Some(node) = peer.map(|peer| peer.node) {
            self.disbelieve(now, node, Distrust::EarlierSession);
        }
    }

    /// Tells of what was not told of yet, when it is time.
    pub(super) fn tell_disbelieved(&mut self, now: Instant) {
        if self.disbelief.next_deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        self.disbelief.tell_at = now + TELL_INTERVAL;
        while let Some((peer, counts)) = self.disbelief.untold.pop() {
            for (what, count) in Distrust::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
                self.say(Event::Disbelieved { peer, what, count: count.into() });
            }
        }
    }
}
