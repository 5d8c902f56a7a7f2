//! The flows of a small world: made known to standbys, and released once they are known.

use crate::base::ids::{NodeId, WorkerId};
use crate::base::time::Duration;
use crate::failover::{WorkerReport, WorkerRole};

use super::{MIRROR, Node, TICK_US, WORKERS, World};

const HOLD_TIMEOUT_MS: u64 = 100;
const MIRROR_RATE: usize = 40;

impl World {
    /// Mirroring, as the workers would do it: flows go over, acknowledgements come back, held
    /// packets are released.
    pub(super) fn mirror(&mut self) {
        for at in 0..self.nodes.len() {
            let leads = self.runs(&self.nodes[at])
                && self.nodes[at]
                    .up
                    .as_ref()
                    .is_some_and(|up| up.workers.role.is_some_and(|(_, role, _)| role == WorkerRole::Active));
            if !leads {
                continue;
            }
            for to in 0..self.nodes.len() {
                self.mirror_to(at, to);
            }
            self.release(at);
        }
    }

    fn mirror_to(&mut self, at: usize, to: usize) {
        if at == to || !self.runs(&self.nodes[to]) || self.nodes[to].acknowledges_nothing_since.is_some() {
            return;
        }
        if self.cut.contains(&(MIRROR, at, to)) || self.cut.contains(&(MIRROR, to, at)) {
            return;
        }
        let (from_id, to_id) = (self.nodes[at].id, self.nodes[to].id);
        let session =
            |node: &Node, peer: u16| node.up.as_ref().and_then(|up| up.workers.sessions.get(&peer).copied());
        let session = (session(&self.nodes[at], to_id), session(&self.nodes[to], from_id));
        let (Some(ours), Some(theirs)) = session else { return };
        if ours != theirs {
            return;
        }
        let up = self.nodes[at].up.as_mut().expect("it leads");
        let acknowledged = up.workers.acknowledged.entry(to_id).or_default();
        let news: Vec<u64> = up.workers.known.difference(acknowledged).copied().take(MIRROR_RATE).collect();
        let peer = self.nodes[to].up.as_mut().expect("it runs");
        let follows = peer.workers.role.is_some_and(|(_, role, _)| role == WorkerRole::Standby);
        if !follows {
            return;
        }
        peer.workers.known.extend(&news);
        self.nodes[at]
            .up
            .as_mut()
            .expect("it leads")
            .workers
            .acknowledged
            .entry(to_id)
            .or_default()
            .extend(news);
    }

    /// Those awake that believe to be in sync with this leader.
    fn believers(&self, at: usize) -> Vec<u16> {
        let leader = NodeId(self.nodes[at].id);
        let awake = self.nodes.iter().filter(|node| node.paused_until + 4 * TICK_US <= self.now_us);
        let up = awake.filter_map(|node| Some((node.id, node.up.as_ref()?.failover.status())));
        let believes = up.filter(|(_, status)| status.in_sync && status.term.node == leader);
        believes.map(|(id, _)| id).collect()
    }

    fn release(&mut self, at: usize) {
        let now_us = self.now_us;
        let believers = self.believers(at);
        let stopped: Vec<_> = self.nodes.iter().map(|node| node.acknowledges_nothing_since).collect();
        let up = self.nodes[at].up.as_mut().expect("it leads");
        let workers = &mut up.workers;
        let members = workers.in_sync.1;
        let acknowledged =
            |peer: u16, flow: &u64| workers.acknowledged.get(&peer).is_some_and(|all| all.contains(flow));
        let ready: Vec<u64> = workers
            .held
            .keys()
            .filter(|flow| members.iter().all(|member| acknowledged(member.0, flow)))
            .copied()
            .collect();
        if !ready.is_empty() {
            let left_out = believers.iter().filter(|node| !members.contains(NodeId(**node)));
            self.early.extend(left_out.map(|node| (now_us, *node)));
        }
        for flow in ready {
            workers.held.remove(&flow);
            // With nobody in sync it goes out, but is not protected.
            if !members.is_empty() {
                self.released.insert(flow);
            }
        }
        let overdue = workers.held.values().any(|since| now_us - since > HOLD_TIMEOUT_MS * 1000);
        for member in members.iter() {
            let late = workers
                .held
                .keys()
                .any(|flow| !workers.acknowledged.get(&member.0).is_some_and(|all| all.contains(flow)));
            if overdue && late {
                workers
                    .reports
                    .push((now_us, WorkerReport::HoldOverdue { worker: WorkerId(0), peer: member }));
            }
        }
        if now_us / TICK_US % 20 == 0 {
            for (peer, session) in &workers.sessions {
                let stopped = stopped.get(usize::from(*peer) - 1).copied().flatten();
                let known = workers.acknowledged.get(peer);
                let dirty =
                    workers.known.iter().filter(|flow| !known.is_some_and(|all| all.contains(flow))).count();
                let done = dirty == 0;
                let oldest_ms = stopped.map_or(20, |since| 20 + (now_us - since) / 1000);
                let (epoch, first) = workers.holds;
                let settled =
                    workers.known.range(..first).all(|flow| known.is_some_and(|all| all.contains(flow)));
                for worker in (0..WORKERS as u16).map(WorkerId) {
                    let report = WorkerReport::Sync {
                        worker,
                        peer: NodeId(*peer),
                        session: *session,
                        walk_done: done || stopped.is_some(),
                        oldest_unacked: Duration::from_millis(if done { 0 } else { oldest_ms }),
                        dirty: dirty as u32,
                        settled: if settled { epoch } else { 0 },
                    };
                    workers.reports.push((now_us + TICK_US, report));
                }
            }
        }
        if let Some(peer) = workers.quiesce
            && workers
                .known
                .iter()
                .all(|flow| workers.acknowledged.get(&peer.0).is_some_and(|all| all.contains(flow)))
        {
            for worker in (0..WORKERS as u16).map(WorkerId) {
                workers.reports.push((now_us, WorkerReport::Flushed { worker, peer }));
            }
        }
    }
}
