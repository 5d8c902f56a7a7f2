//! What comes in by the liveness paths. All of it is an attacker's until it opened.

use std::sync::Arc;

use super::distrust::QUIET;
use super::event::{Cause, FailoverEvent, Removal};
use super::heartbeat::{self, BEAT_LEN, Beat, Envelope, Kind};
use super::liveness::Live;
use super::output::Output;
use super::role::{Input, Role};
use super::{Failover, Variant};
use crate::base::counters::Counter;
use crate::base::ids::{PortId, Term};
use crate::base::limits::OLD_BOOT_INTERVALS;
use crate::base::time::Instant;
use crate::seal::handshake::{Handled, read_hello};
use crate::seal::{Distrust, Mismatch, Refused, Session};
use crate::wire::ethernet::MacAddress;

impl Failover {
    /// Handles a frame of EtherType 0x88b5 that came in by `port`, as it is on the wire,
    /// with or without VLAN tags. It is opened in place.
    pub fn handle_frame(&mut self, now: Instant, port: PortId, frame: &mut [u8]) {
        self.heard_until = now;
        if let Err(reason) = self.receive(now, port, frame) {
            self.counters.bump(reason);
        }
    }

    /// The error is the counter of the reason why it was dropped.
    fn receive(&mut self, now: Instant, port: PortId, frame: &mut [u8]) -> Result<(), Counter> {
        let at = self.ports.iter().position(|known| known.setup.id == port);
        let at = at.ok_or(Counter::LivenessMalformed)?;
        let source = heartbeat::source(frame);
        let envelope = heartbeat::parse(frame).ok_or(Counter::LivenessMalformed)?;
        if envelope.from == self.node() {
            return self.receive_own(now, at, &envelope);
        }
        if envelope.to != self.node() {
            return Err(Counter::LivenessNotForUs);
        }
        let peer = self.peers.iter().position(|peer| peer.node == envelope.from);
        let peer = peer.ok_or(Counter::LivenessUnknownNode)?;
        let received = match envelope.kind {
            Kind::Hello | Kind::Answer => self.receive_handshake(now, at, peer, &envelope),
            Kind::Beat => self.receive_beat(now, at, peer, source, envelope),
            Kind::Word => self.receive_word(now, peer, envelope),
        };
        if let Err(reason) = received {
            self.disbelieve_for(now, peer, port, reason);
        }
        received
    }

    /// Our own frame, come back by a loop, or a second appliance with our number. With pinned keys alone the hello of the second one
    /// cannot be read by the first: then its peers say that someone speaks without a key, or that two processes do.
    fn receive_own(&mut self, now: Instant, at: usize, envelope: &Envelope<'_>) -> Result<(), Counter> {
        let node = self.node();
        let port = &mut self.ports[at];
        if envelope.kind != Kind::Hello || now < port.quiet_until || !port.allowance.take(now) {
            return Err(Counter::LivenessOwn);
        }
        let read = |key| read_hello(key, envelope.from, envelope.to, envelope.message());
        match self.ring.keys().iter().find_map(read) {
            Some(said) if said.boot != self.member.boot => {
                port.quiet_until = now + QUIET;
                self.event(FailoverEvent::PeerRefused { node, mismatch: Mismatch::SameNode });
                Err(Counter::HandshakeRefused)
            }
            Some(_) | None => Err(Counter::LivenessOwn),
        }
    }

    fn receive_handshake(
        &mut self,
        now: Instant,
        at: usize,
        peer_at: usize,
        envelope: &Envelope<'_>,
    ) -> Result<(), Counter> {
        let (own, port) = (self.node(), self.ports[at].setup);
        if !self.ports[at].allowance.take(now) {
            return Err(Counter::HandshakeFlood);
        }
        let peer = &mut self.peers[peer_at];
        let node = peer.node;
        let handled = if envelope.kind == Kind::Hello {
            peer.handshake.handle_hello(now, envelope.message())
        } else {
            peer.handshake.handle_answer(envelope.message())
        };
        match handled {
            Handled::Reply(answer) => {
                let frame = heartbeat::handshake_frame(port.mac, Kind::Answer, own, node, &answer);
                self.emit(Output::SendFrame { port: port.id, frame });
                Ok(())
            }
            Handled::Completed(session) => {
                if self.two_live_boots(now, peer_at, &session) {
                    return Err(Counter::HandshakeRefused);
                }
                self.establish(now, peer_at, session);
                Ok(())
            }
            Handled::Ours | Handled::Stale => Err(Counter::HandshakeStale),
            Handled::Forged => {
                // An answer that does not fit may be one to a hello of an earlier boot.
                if envelope.kind == Kind::Hello && now >= self.ports[at].quiet_until {
                    self.ports[at].quiet_until = now + QUIET;
                    self.tell_disbelieved(now, node, FailoverEvent::PeerUnproven { node, port: port.id });
                }
                Err(Counter::HandshakeForged)
            }
            Handled::Mismatch(mismatch) => {
                if now >= peer.quiet_until {
                    peer.quiet_until = now + QUIET;
                    self.tell_disbelieved(now, node, FailoverEvent::PeerRefused { node, mismatch });
                }
                Err(Counter::HandshakeRefused)
            }
        }
    }

    fn receive_beat(
        &mut self,
        now: Instant,
        at: usize,
        peer_at: usize,
        source: Option<MacAddress>,
        mut envelope: Envelope<'_>,
    ) -> Result<(), Counter> {
        let (id, stream) = envelope.beat_of().ok_or(Counter::LivenessMalformed)?;
        let their_port = stream.heartbeat_port().ok_or(Counter::LivenessMalformed)?;
        let (header, content) = envelope.beat_parts().ok_or(Counter::LivenessMalformed)?;
        let peer = &mut self.peers[peer_at];
        let is_newest = peer.live.as_ref().is_some_and(|live| live.session.id() == id);
        let known = peer.live.iter_mut().chain(&mut peer.before).find(|live| live.session.id() == id);
        if let Some(opener) = known.and_then(|live| live.opener(their_port)) {
            opener.open_in_place(header, content).map_err(refusal)?;
            if is_newest {
                peer.before = None;
                if peer.open {
                    // A new session, known to both: what is said under it begins anew.
                    peer.diverged = None;
                }
            }
        } else {
            // The first frame under a session that this side answered for confirms it.
            let session = peer.handshake.pending(id).cloned().ok_or(Counter::LivenessUnknownSession)?;
            let mut opener = session.opener(stream);
            opener.open_in_place(header, content).map_err(refusal)?;
            if self.two_live_boots(now, peer_at, &session) {
                return Err(Counter::HandshakeRefused);
            }
            self.peers[peer_at].handshake.confirm();
            self.establish(now, peer_at, session);
            if let Some(live) = &mut self.peers[peer_at].live {
                live.keep(their_port, opener);
            }
        }
        let beat = Beat::decode(&content[..BEAT_LEN]).ok_or(Counter::LivenessMalformed)?;
        let proof = heartbeat::proof(content);
        let peer = &mut self.peers[peer_at];
        if beat.group != self.member.group || beat.node != peer.node || Some(beat.boot) != peer.boot {
            return Err(Counter::LivenessMalformed);
        }
        self.counters.bump(Counter::LivenessHeard);
        peer.heard_from[usize::from(their_port)] = now;
        let port = usize::from(self.ports[at].setup.id.0);
        peer.heard_by[port] = now;
        peer.links[port] = source;
        // The same beat comes by every port; a path that is late brings old news.
        if peer.said.is_none_or(|said| beat.beat > said.beat) {
            for live in peer.live.iter_mut().chain(&mut peer.before).filter(|live| live.session.id() == id) {
                live.proofs.hear(now, proof);
            }
            let unproven = peer.live.as_mut().is_some_and(|live| live.proofs.is_to_be_told(now));
            if unproven {
                let node = peer.node;
                let event = FailoverEvent::Disbelieved { node, what: Distrust::OtherKey, by: None };
                self.tell_disbelieved(now, node, event);
            }
            self.digest(now, peer_at, beat);
        }
        Ok(())
    }

    /// A new boot of a peer whose old one is heard still: see the room's documentation.
    fn two_live_boots(&mut self, now: Instant, peer_at: usize, session: &Session) -> bool {
        let interval = self.config.heartbeat_interval;
        let peer = &mut self.peers[peer_at];
        let two = peer.boot.is_some_and(|boot| boot != session.peer().boot)
            && peer.heard_within(now, interval * OLD_BOOT_INTERVALS)
            && peer.said.is_some_and(|said| said.role != Role::Left);
        if two && now >= peer.quiet_until {
            // Said only when it goes on: a quick restart is over in three intervals.
            let node = peer.node;
            if peer.quiet_until != Instant::ZERO {
                self.tell_disbelieved(now, node, FailoverEvent::DuplicateNode { node });
            }
            self.peers[peer_at].quiet_until = now + QUIET / 100;
        }
        two
    }

    /// A session with a peer is agreed and proven.
    pub(super) fn establish(&mut self, now: Instant, peer_at: usize, session: Arc<Session>) {
        let claims = self.role.claims();
        let led_by = self.terms.current().node;
        let peer = &mut self.peers[peer_at];
        let (node, boot) = (peer.node, session.peer().boot);
        let was_open = core::mem::replace(&mut peer.open, true);
        let before = peer.boot.replace(boot);
        peer.opened_at = now;
        peer.followed = false;
        peer.tracked = session.peer().mirroring.tracked;
        let old = peer.live.replace(Live::new(session.clone(), peer.handshake.credentials()));
        peer.before = old.filter(|_| before == Some(boot));
        if peer.before.is_none() {
            peer.diverged = None;
        }
        peer.forget_sync();
        let restarted = before.is_some_and(|before| before != boot);
        if restarted {
            peer.forget_boot();
            peer.present = false;
            // Its lease, and all that it had in sync, died with its last process.
            peer.gone = Some(Removal::Restarted);
            if !claims && led_by == node && self.leader.gone_at.is_none() {
                self.leader.gone_at = Some(now);
            }
        }
        if was_open {
            self.emit(Output::PeerLost { node });
        }
        let is_new = before != Some(boot);
        if is_new && session.peer().mirroring.is_periodic != self.member.mirroring.is_periodic {
            self.event(FailoverEvent::CheckpointsDiffer(node));
        }
        if restarted {
            self.forget_fenced(node);
            self.event(FailoverEvent::PeerRestarted { node, boot });
        }
        self.emit(Output::PeerSession { node, session });
        self.beat_due = now;
    }

    /// Takes in what a peer newly says.
    fn digest(&mut self, now: Instant, peer_at: usize, beat: Beat) {
        let own = self.node();
        self.terms.hear(beat.term);
        let peer = &mut self.peers[peer_at];
        let fresh = beat.echo > peer.echo();
        peer.stale_echoes = if fresh { 0 } else { peer.stale_echoes.saturating_add(1) };
        let before = peer.said.replace(beat);
        let first = before.is_none();
        let yields = before.is_some_and(|said| said.role.claims()) && !beat.role.claims();
        peer.heard_at = now;
        if beat.role == Role::Left {
            self.peer_left(peer_at, first);
            return;
        }
        self.note_fenced_is_heard(peer_at);
        let peer = &mut self.peers[peer_at];
        let appears = !peer.present && beat.echo > 0;
        if appears {
            peer.present = true;
            self.event(FailoverEvent::PeerHeard { node: beat.node, boot: beat.boot });
        }
        if before.is_some_and(|said| said.maintenance) != beat.maintenance {
            self.event(FailoverEvent::PeerMaintenance { node: beat.node, on: beat.maintenance });
        }
        if self.role.serves() && (appears || yields) {
            // It may have served meanwhile, and bridges think that the virtual MAC is there.
            self.announce_from(now);
        }
        let mine = self.terms.current();
        if beat.role.claims() {
            let above = self.outranks(beat.term, mine);
            if self.role.claims() {
                let input = if above { Input::Leader } else { Input::Rival };
                self.apply_heard(now, input, &beat);
            } else if above || beat.term == mine {
                self.apply_heard(now, Input::Leader, &beat);
            } else {
                self.counters.bump(Counter::LivenessLowerTerm);
                self.disbelieve(now, peer_at, Distrust::OldTerm, None, 1);
            }
        } else if !self.role.claims() {
            if beat.successor == own && beat.term == mine && beat.node == mine.node {
                self.leader.handed_over = true;
            }
            // Another standby's word that our leader lives, so that one cut off from it alone waits.
            if beat.role == Role::Standby && beat.term >= mine && beat.leader_age_us != u32::MAX {
                let heard = now.nanos().saturating_sub(u64::from(beat.leader_age_us) * 1000);
                self.leader.heard_at = self.leader.heard_at.max(Some(Instant::from_nanos(heard)));
            }
        }
    }

    fn peer_left(&mut self, peer_at: usize, first: bool) {
        let led_by = self.terms.current().node;
        let claims = self.role.claims();
        let now = self.polled_at;
        let peer = &mut self.peers[peer_at];
        peer.gone = Some(Removal::Left);
        let node = peer.node;
        let said_goodbye = core::mem::take(&mut peer.present) || first;
        if core::mem::take(&mut peer.open) {
            peer.forget_sync();
            self.emit(Output::PeerLost { node });
        }
        if said_goodbye {
            self.event(FailoverEvent::PeerLeft { node });
        }
        if !claims && led_by == node && self.leader.gone_at.is_none() {
            self.leader.gone_at = Some(now);
        }
    }

    /// Whether a claim of `theirs` ends one of `mine`.
    fn outranks(&self, theirs: Term, mine: Term) -> bool {
        match self.variant {
            Variant::Sound | Variant::SendAfterLease | Variant::LeaseFromAnswer => theirs > mine,
            Variant::EqualTermAccepted => theirs.counter > mine.counter,
        }
    }

    fn apply_heard(&mut self, now: Instant, input: Input, beat: &Beat) {
        self.heard_claim = Some(*beat);
        self.apply(now, input, Cause::Vacant);
        self.heard_claim = None;
    }
}

pub(super) fn refusal(refused: Refused) -> Counter {
    match refused {
        Refused::Replayed => Counter::LivenessReplayed,
        Refused::TooOld => Counter::LivenessTooOld,
        Refused::Forged => Counter::LivenessForged,
        Refused::Malformed => Counter::LivenessMalformed,
    }
}
