//! Packets that wait until their flow is known to every in-sync member
//! (`commit = "hold"`): the packet that made the flow, and later ones of the
//! same flow behind it, in order.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::base::ids::ShardId;
use crate::base::time::{Duration, Instant};
use crate::flow::FlowIndex;

/// Packets of one flow that wait at most; later ones are dropped and counted,
/// and their sender sends them again.
pub const PACKETS_PER_FLOW_MAX: usize = 8;

/// Whether a packet could be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It waits.
    Yes,
    /// Too many packets wait: it was dropped.
    Full,
}

struct Waiting<P> {
    since: Instant,
    packets: Vec<P>,
}

/// The packets that one worker holds.
pub struct Hold<P> {
    flows: HashMap<(ShardId, u32), Waiting<P>>,
    /// In order of arrival; entries of released flows are passed over.
    order: VecDeque<(ShardId, u32, Instant)>,
    spare: Vec<Vec<P>>,
    packets: usize,
    packets_max: usize,
}

impl<P> Hold<P> {
    /// Room for `packets_max` packets: a quarter of the buffers (DESIGN "Mirroring").
    pub fn new(packets_max: usize) -> Hold<P> {
        Hold {
            flows: HashMap::with_capacity(packets_max),
            order: VecDeque::with_capacity(2 * packets_max),
            spare: Vec::with_capacity(packets_max),
            packets: 0,
            packets_max,
        }
    }

    /// Packets that wait.
    pub fn packets(&self) -> usize {
        self.packets
    }

    /// Packets that may wait.
    pub fn packets_max(&self) -> usize {
        self.packets_max
    }

    /// Whether the first packet of another flow could wait.
    pub fn has_room(&self) -> bool {
        self.packets < self.packets_max
    }

    /// Whether packets of this flow wait.
    pub fn holds(&self, shard: ShardId, flow: FlowIndex) -> bool {
        self.packets > 0 && self.flows.contains_key(&(shard, flow.0))
    }

    /// Holds a packet of a flow.
    pub fn hold(&mut self, now: Instant, shard: ShardId, flow: FlowIndex, packet: P) -> Held {
        if self.packets == self.packets_max {
            return Held::Full;
        }
        if self.order.len() >= 2 * self.packets_max {
            let flows = &self.flows;
            self.order.retain(|(shard, flow, since)| {
                flows.get(&(*shard, *flow)).is_some_and(|waiting| waiting.since == *since)
            });
        }
        let (order, spare) = (&mut self.order, &mut self.spare);
        let waiting = self.flows.entry((shard, flow.0)).or_insert_with(|| {
            order.push_back((shard, flow.0, now));
            let packets = spare.pop().unwrap_or_else(|| Vec::with_capacity(PACKETS_PER_FLOW_MAX));
            Waiting { since: now, packets }
        });
        if waiting.packets.len() == PACKETS_PER_FLOW_MAX {
            return Held::Full;
        }
        waiting.packets.push(packet);
        self.packets += 1;
        Held::Yes
    }

    /// Lets a flow's packets go, in order; how long the first waited.
    pub fn release(
        &mut self,
        now: Instant,
        shard: ShardId,
        flow: FlowIndex,
        each: impl FnMut(P),
    ) -> Option<Duration> {
        let mut waiting = self.flows.remove(&(shard, flow.0))?;
        self.packets -= waiting.packets.len();
        waiting.packets.drain(..).for_each(each);
        self.spare.push(waiting.packets);
        while let Some((shard, flow, since)) = self.order.front() {
            if self.flows.get(&(*shard, *flow)).is_some_and(|waiting| waiting.since == *since) {
                break;
            }
            self.order.pop_front();
        }
        Some(now - waiting.since)
    }

    /// Lets all packets go.
    pub fn clear(&mut self, mut each: impl FnMut(P)) {
        self.order.clear();
        self.packets = 0;
        for (_, mut waiting) in self.flows.drain() {
            waiting.packets.drain(..).for_each(&mut each);
            self.spare.push(waiting.packets);
        }
    }

    /// The flow that has waited longest, and since when.
    pub fn oldest(&self) -> Option<(ShardId, FlowIndex, Instant)> {
        self.order.front().map(|(shard, flow, since)| (*shard, FlowIndex(*flow), *since))
    }

    /// Every flow whose packets wait, in order of arrival.
    pub fn flows(&self) -> impl Iterator<Item = (ShardId, FlowIndex)> + '_ {
        let waits = |(shard, flow, since): &&(ShardId, u32, Instant)| {
            self.flows.get(&(*shard, *flow)).is_some_and(|waiting| waiting.since == *since)
        };
        self.order.iter().filter(waits).map(|(shard, flow, _)| (*shard, FlowIndex(*flow)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(3);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn packets_of_a_flow_leave_in_the_order_in_which_they_came() {
        let mut hold = Hold::new(8);
        for packet in 0..3 {
            assert_eq!(hold.hold(at(packet), SHARD, FlowIndex(1), packet), Held::Yes);
        }
        let mut out = Vec::new();
        let waited = hold.release(at(10), SHARD, FlowIndex(1), |p| out.push(p));
        assert_eq!((out, waited), (vec![0, 1, 2], Some(Duration::from_millis(10))));
        assert_eq!(hold.packets(), 0);
        assert!(hold.oldest().is_none());
    }

    #[test]
    fn held_packets_are_bounded() {
        let mut hold = Hold::new(PACKETS_PER_FLOW_MAX + 1);
        for packet in 0..PACKETS_PER_FLOW_MAX {
            assert_eq!(hold.hold(at(0), SHARD, FlowIndex(1), packet), Held::Yes);
        }
        assert_eq!(hold.hold(at(0), SHARD, FlowIndex(1), 99), Held::Full);
        assert_eq!(hold.hold(at(0), SHARD, FlowIndex(2), 99), Held::Yes);
        assert_eq!(hold.hold(at(0), SHARD, FlowIndex(3), 99), Held::Full);
    }

    #[test]
    fn a_cleared_hold_has_room_for_as_many_again() {
        let mut hold = Hold::new(3);
        for round in 0..3 {
            for flow in 0..3 {
                assert!(hold.has_room());
                assert_eq!(hold.hold(at(round), SHARD, FlowIndex(flow), flow), Held::Yes);
            }
            assert!(!hold.has_room());
            let mut out = Vec::new();
            hold.clear(|packet| out.push(packet));
            out.sort_unstable();
            assert_eq!(out, [0, 1, 2]);
            assert!(hold.oldest().is_none() && !hold.holds(SHARD, FlowIndex(0)));
        }
    }

    #[test]
    fn the_oldest_is_the_one_that_waits_longest_of_those_that_still_wait() {
        let mut hold = Hold::new(8);
        hold.hold(at(1), SHARD, FlowIndex(1), ());
        hold.hold(at(2), SHARD, FlowIndex(2), ());
        hold.hold(at(3), SHARD, FlowIndex(1), ());
        hold.release(at(4), SHARD, FlowIndex(1), |_| ());
        assert_eq!(hold.oldest(), Some((SHARD, FlowIndex(2), at(2))));
    }
}
