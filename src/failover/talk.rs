//! What is said to peers: hellos until there is a session, then heartbeats.

use arrayvec::ArrayVec;

use super::Failover;
use super::heartbeat::{self, Beat, FrameBytes, Kind};
use super::output::Output;
use super::role::Role;
use crate::base::counters::Counter;
use crate::base::ids::NodeId;
use crate::base::time::Instant;

impl Failover {
    /// Starts handshakes where there is no session, or where nothing is heard under it.
    pub(super) fn send_hellos(&mut self, now: Instant) {
        let own = self.node();
        let silence = self.config.takeover_after * 2;
        for at in 0..self.peers.len() {
            let peer = &mut self.peers[at];
            let heard = peer.heard_within(now, silence) || now - peer.opened_at < silence;
            // A session that the peer does not speak under is agreed here alone.
            let unproven =
                peer.before.is_some() && now - peer.opened_at >= self.config.heartbeat_interval * 2;
            let wanted = peer.live.is_none() || !peer.open || !heard || unproven;
            let node = peer.node;
            let Some(hello) = peer.handshake.poll(now, wanted) else { continue };
            for port in 0..self.ports.len() {
                let port = self.ports[port].setup;
                let frame = heartbeat::handshake_frame(port.mac, Kind::Hello, own, node, &hello);
                self.emit(Output::SendFrame { port: port.id, frame });
            }
        }
    }

    /// Says to every peer, by every port, how things are; while leading, this is what
    /// the lease runs from. With a worker stuck nothing is said: others must take over.
    pub(super) fn send_beats(&mut self, now: Instant) {
        self.beat_due = now + self.config.heartbeat_interval;
        if self.worker_stuck != 0 && self.role != Role::Left {
            return;
        }
        let number = self.sent.next(now);
        for at in 0..self.peers.len() {
            let content = self.beat_for(now, at, number).encode();
            self.send_beat(at, &content);
        }
        if self.role.claims() {
            self.claimed_at = Some(now);
        }
        if self.role.serves() {
            self.grant(now);
        }
    }

    /// While the peer has not spoken under a new session, it may know the one before alone:
    /// then the beat goes out under both, and counts once.
    fn send_beat(&mut self, peer_at: usize, content: &[u8; heartbeat::BEAT_LEN]) {
        let own = self.node();
        for port_at in 0..self.ports.len() {
            let port = self.ports[port_at].setup;
            let mut frames: ArrayVec<FrameBytes, 2> = ArrayVec::new();
            let peer = &mut self.peers[peer_at];
            let node = peer.node;
            for live in peer.live.iter_mut().chain(&mut peer.before) {
                let id = live.session.id();
                let proof = live.proofs.own();
                let Some(sealer) = live.sealer(port.id.0) else { continue };
                let mut content = *content;
                heartbeat::set_proof(&mut content, proof);
                let mut frame = heartbeat::beat_frame(port.mac, own, node, id, sealer.stream(), &content);
                let (header, content) = heartbeat::beat_parts_mut(&mut frame);
                if sealer.seal_in_place(header, content).is_ok() {
                    frames.push(frame);
                }
            }
            for frame in frames {
                self.counters.bump(Counter::LivenessSent);
                self.emit(Output::SendFrame { port: port.id, frame });
            }
        }
    }

    fn beat_for(&self, now: Instant, peer_at: usize, number: u64) -> Beat {
        let peer = &self.peers[peer_at];
        let successor =
            self.handover.as_ref().filter(|handover| handover.resigned).and_then(|handover| handover.to);
        let leader_age_us = match self.leader.heard_directly_at {
            Some(at) if self.role == Role::Standby && self.leader.gone_at.is_none() => {
                u32::try_from((now - at).micros()).unwrap_or(u32::MAX)
            }
            _ => u32::MAX,
        };
        // A new boot is not the member that its old one was, even before the term says so.
        let mut members = self.insync.told;
        self.peers.iter().filter(|peer| peer.gone.is_some()).for_each(|peer| members.remove(peer.node));
        Beat {
            group: self.member.group,
            node: self.node(),
            boot: self.member.boot,
            beat: number,
            echo: peer.said.map_or(0, |said| said.beat),
            term: peer.diverged.unwrap_or(self.terms.current()),
            role: self.role,
            priority: self.config.priority,
            in_sync: self.role == Role::Standby && self.leader.in_sync,
            preempts: self.config.preempt,
            can_lead: self.can_lead(),
            maintenance: self.maintenance.on,
            successor: successor.unwrap_or(NodeId(0)),
            members,
            leader_age_us,
            hears: peer.hears(now, self.config.takeover_after),
            edition: self.services.own(),
            failed: self.failed(),
        }
    }
}
