//! The leader's services at those that follow it (REQ C10): told piece by piece on the liveness paths, sealed, when they
//! ask for them.
//!
//! * Every beat says which services its sender goes by ([`Edition`]). A standby whose leader goes by others asks for them, from
//!   where it has them, and gets some pieces; then it asks for the next ones. Those that are lost are asked for again. So a
//!   leader remembers nothing of who has got what.
//! * When all are there, and are what the leader says of them, the driver is given them ([`Output::Services`]): once in a
//!   term. It goes by them or, if they do not fit this appliance, says why; both are seen in its beats.
//! * Nothing here decides who leads, and no beat waits for a word: words take half of the frames that may wait at most.
//!
//! ```text
//! 0  1: ask, 2: piece   1  bytes of the piece   4  offset   8  bytes of the whole   12  generation   20  digest   28  the piece
//!                                                              ask: pieces from the offset on that are wanted, a bit each
//! ```

use std::sync::Arc;

use super::heartbeat::{self, Envelope, WORD_LEN};
use super::output::Output;
use super::receive::refusal;
use super::role::Role;
use super::{Failover, PortSetup};
use crate::base::counters::Counter;
use crate::base::ids::{NodeId, Term};
use crate::base::limits::{FAILOVER_FRAMES_MAX, SERVICES_BYTES_MAX};
use crate::base::time::{Duration, Instant};
use crate::config::mirrored::{Edition, Hash};
use crate::seal::StreamId;

const HEADER_LEN: usize = 28;
/// Bytes of a piece.
const PIECE_MAX: usize = WORD_LEN - HEADER_LEN;
/// Pieces that answer one ask.
const PIECES_PER_ASK: usize = 16;
/// What was asked for and has not come is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// Services that were not what the leader says of them are asked for anew.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);

const _: () = assert!(PIECE_MAX <= u8::MAX as usize && SERVICES_BYTES_MAX <= u32::MAX as usize);

/// What this appliance goes by, and what it gets of its leader's.
#[derive(Debug, Default)]
pub(super) struct Services {
    own: Edition,
    text: Arc<[u8]>,
    fetch: Option<Fetch>,
    /// The newest that the driver was given, and the term in which it was: in another one it may have to go back to it.
    given: Option<(Term, Edition)>,
}

impl Services {
    pub(super) fn own(&self) -> Edition {
        self.own
    }
}

/// Services on their way.
#[derive(Debug)]
struct Fetch {
    from: NodeId,
    edition: Edition,
    /// What has come of them, from the beginning, and its hash: taken as they come, so that no turn takes long.
    bytes: Vec<u8>,
    hash: Hash,
    /// What comes next, and which pieces of it have come: a bit each.
    next: [u8; PIECES_PER_ASK * PIECE_MAX],
    come: u32,
    ask_at: Instant,
}

impl Fetch {
    fn new(now: Instant, from: NodeId, edition: Edition) -> Fetch {
        let next = [0; PIECES_PER_ASK * PIECE_MAX];
        Fetch { from, edition, bytes: Vec::new(), hash: Hash::default(), next, come: 0, ask_at: now }
    }

    /// A piece of services of so many bytes came; whether all that was asked for has come. `None`: it is none of those.
    fn take(&mut self, offset: usize, total: usize, bytes: &[u8]) -> Option<bool> {
        let at = offset.checked_sub(self.bytes.len())?;
        let left = total.checked_sub(self.bytes.len())?;
        let whole = at % PIECE_MAX == 0 && bytes.len() == PIECE_MAX.min(left.checked_sub(at)?);
        if !whole || bytes.is_empty() || total > SERVICES_BYTES_MAX {
            return None;
        }
        self.next.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
        self.come |= 1 << (at / PIECE_MAX);
        let asked = left.min(self.next.len());
        if self.come != bits(asked.div_ceil(PIECE_MAX)) {
            return Some(false);
        }
        self.bytes.reserve(left);
        self.bytes.extend_from_slice(&self.next[..asked]);
        self.hash.add(&self.next[..asked]);
        self.come = 0;
        Some(true)
    }
}

/// So many of the lowest.
const fn bits(count: usize) -> u32 {
    ((1_u64 << count) - 1) as u32
}

const _: () = assert!(PIECES_PER_ASK <= u32::BITS as usize);

#[derive(Debug, PartialEq, Eq)]
enum Word<'w> {
    Ask { edition: Edition, offset: u32, wanted: u32 },
    Piece { edition: Edition, offset: u32, total: u32, bytes: &'w [u8] },
}

impl<'w> Word<'w> {
    fn encode(&self) -> [u8; WORD_LEN] {
        let (what, edition, offset, total, bytes) = match *self {
            Word::Ask { edition, offset, wanted } => (1, edition, offset, wanted, &[][..]),
            Word::Piece { edition, offset, total, bytes } => (2, edition, offset, total, bytes),
        };
        let mut out = [0; WORD_LEN];
        (out[0], out[1]) = (what, bytes.len() as u8);
        out[4..8].copy_from_slice(&offset.to_be_bytes());
        out[8..12].copy_from_slice(&total.to_be_bytes());
        out[12..20].copy_from_slice(&edition.generation.to_be_bytes());
        out[20..28].copy_from_slice(&edition.digest.to_be_bytes());
        out[HEADER_LEN..HEADER_LEN + bytes.len()].copy_from_slice(bytes);
        out
    }

    /// `None`: no word of this version.
    fn decode(word: &'w [u8]) -> Option<Word<'w>> {
        let word: &[u8; WORD_LEN] = word.first_chunk()?;
        let number = |at: usize, len: usize| {
            word[at..at + len].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let edition = Edition { generation: number(12, 8), digest: number(20, 8) };
        let (offset, total) = (number(4, 4) as u32, number(8, 4) as u32);
        match word[0] {
            1 => Some(Word::Ask { edition, offset, wanted: total }),
            2 => {
                let bytes = word.get(HEADER_LEN..HEADER_LEN + usize::from(word[1]))?;
                Some(Word::Piece { edition, offset, total, bytes })
            }
            _ => None,
        }
    }
}

impl Failover {
    /// This appliance goes by these services from now on: as [`crate::config::mirrored::text`] has them, or as its leader told
    /// them. Those that are too large are not told.
    pub fn handle_services(&mut self, edition: Edition, text: Arc<[u8]>) {
        self.services.own = if text.len() <= SERVICES_BYTES_MAX { edition } else { Edition::default() };
        // Whoever goes by others now may have to go back to those that it was given before.
        self.services.given = self.services.given.filter(|(_, given)| *given == edition);
        self.services.text = text;
    }

    /// Asks the leader for its services, as long as they are not its own.
    pub(super) fn follow_services(&mut self, now: Instant) {
        let Some((peer_at, edition)) = self.wanted_services() else {
            self.services.fetch = None;
            return;
        };
        let from = self.peers[peer_at].node;
        let is_wanted = |fetch: &Fetch| (fetch.from, fetch.edition) == (from, edition);
        if !self.services.fetch.as_ref().is_some_and(is_wanted) {
            self.services.fetch = Some(Fetch::new(now, from, edition));
        }
        let Some(fetch) = self.services.fetch.as_mut().filter(|fetch| now >= fetch.ask_at) else { return };
        fetch.ask_at = now + ASK_AGAIN;
        let (offset, wanted) = (fetch.bytes.len() as u32, bits(PIECES_PER_ASK) & !fetch.come);
        self.send_word(now, peer_at, &Word::Ask { edition, offset, wanted });
    }

    /// Whose services are to be asked for, and which.
    fn wanted_services(&self) -> Option<(usize, Edition)> {
        let term = self.terms.current();
        if self.role != Role::Standby {
            return None;
        }
        let leads = |peer: &&super::Peer| {
            peer.node == term.node && peer.said.is_some_and(|said| said.term == term && said.role.claims())
        };
        let at = self.peers.iter().position(|peer| leads(&peer))?;
        let edition = self.peers[at].said?.edition;
        let is_news = edition != self.services.own && Some((term, edition)) != self.services.given;
        (edition.is_said() && is_news).then_some((at, edition))
    }

    /// A word of a peer. All of it is an attacker's until it opened.
    pub(super) fn receive_word(
        &mut self,
        now: Instant,
        peer_at: usize,
        mut envelope: Envelope<'_>,
    ) -> Result<(), Counter> {
        let (id, stream) = envelope.beat_of().ok_or(Counter::LivenessMalformed)?;
        if stream != StreamId::SERVICES {
            return Err(Counter::LivenessMalformed);
        }
        let (header, content) = envelope.word_parts().ok_or(Counter::LivenessMalformed)?;
        let live = self.peers[peer_at].live.as_mut().filter(|live| live.session.id() == id);
        let live = live.ok_or(Counter::LivenessUnknownSession)?;
        live.services_opener().open_in_place(header, content).map_err(refusal)?;
        match Word::decode(content).ok_or(Counter::LivenessMalformed)? {
            Word::Ask { edition, offset, wanted } => {
                self.tell_services(now, peer_at, edition, offset as usize, wanted);
                Ok(())
            }
            Word::Piece { edition, offset, total, bytes } => {
                let from = self.peers[peer_at].node;
                self.take_piece(now, (from, edition), (offset as usize, total as usize), bytes)
            }
        }
    }

    fn tell_services(&mut self, now: Instant, peer_at: usize, edition: Edition, from: usize, wanted: u32) {
        if edition != self.services.own || !edition.is_said() {
            return; // It will hear of the newer one.
        }
        let text = Arc::clone(&self.services.text);
        let Some(rest) = text.get(from..) else { return };
        for (number, bytes) in rest.chunks(PIECE_MAX).take(PIECES_PER_ASK).enumerate() {
            if wanted >> number & 1 == 0 {
                continue;
            }
            let (offset, total) = ((from + number * PIECE_MAX) as u32, text.len() as u32);
            self.send_word(now, peer_at, &Word::Piece { edition, offset, total, bytes });
        }
    }

    fn take_piece(
        &mut self,
        now: Instant,
        of: (NodeId, Edition),
        (offset, total): (usize, usize),
        bytes: &[u8],
    ) -> Result<(), Counter> {
        // What was asked of somebody counts no more when another one leads, or when it is said no longer.
        let wanted = self.wanted_services().map(|(at, edition)| (self.peers[at].node, edition));
        let fetch = self.services.fetch.as_mut().filter(|fetch| (fetch.from, fetch.edition) == of);
        let fetch = fetch.filter(|_| wanted == Some(of)).ok_or(Counter::ServicesUnfit)?;
        if !fetch.take(offset, total, bytes).ok_or(Counter::ServicesUnfit)? {
            return Ok(());
        }
        fetch.ask_at = now;
        if fetch.bytes.len() < total {
            return Ok(());
        }
        let (from, edition) = of;
        if fetch.hash.edition(edition.generation) != edition {
            *fetch = Fetch::new(now + BEGIN_AGAIN, of.0, edition);
            return Err(Counter::ServicesBroken);
        }
        let text = core::mem::take(&mut fetch.bytes);
        self.services.fetch = None;
        self.services.given = Some((self.terms.current(), edition));
        self.emit(Output::Services { from, edition, text });
        Ok(())
    }

    fn send_word(&mut self, now: Instant, peer_at: usize, word: &Word<'_>) {
        if self.frames_waiting >= FAILOVER_FRAMES_MAX / 2 {
            return; // It is asked for again.
        }
        let Some(port) = self.path_to(now, peer_at) else { return };
        let own = self.node();
        let peer = &mut self.peers[peer_at];
        let node = peer.node;
        let Some(live) = &mut peer.live else { return };
        let id = live.session.id();
        let Some(sealer) = live.services_sealer() else { return };
        let mut frame = heartbeat::word_frame(port.mac, own, node, id, &word.encode());
        let (header, content) = heartbeat::beat_parts_mut(&mut frame);
        if sealer.seal_in_place(header, content).is_ok() {
            self.counters.bump(Counter::LivenessSent);
            self.emit(Output::SendFrame { port: port.id, frame });
        }
    }

    /// A port by which the peer lately heard this appliance; the mirror's before others.
    fn path_to(&self, now: Instant, peer_at: usize) -> Option<PortSetup> {
        let peer = &self.peers[peer_at];
        let hears = peer.said.filter(|_| peer.heard_within(now, self.config.takeover_after))?.hears;
        let heard = self.ports.iter().map(|port| port.setup).filter(|port| hears >> port.id.0 & 1 != 0);
        heard.max_by_key(|port| port.mirror)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_put_together_in_any_order_and_others_are_none() {
        let whole: Vec<u8> = (0..20 * PIECE_MAX + 5).map(|at| (at * 7) as u8).collect();
        let edition = Edition::of(1, &whole);
        let mut fetch = Fetch::new(Instant::ZERO, NodeId(1), edition);
        let piece = |number: usize| {
            let from = number * PIECE_MAX;
            (from, whole.len(), &whole[from..whole.len().min(from + PIECE_MAX)])
        };
        let mut take = |(offset, total, bytes): (usize, usize, &[u8])| fetch.take(offset, total, bytes);
        for number in (1..PIECES_PER_ASK).rev() {
            assert_eq!(take(piece(number)), Some(false));
            assert_eq!(take(piece(number)), Some(false), "twice");
        }
        let (offset, total, bytes) = piece(0);
        for wrong in [
            (offset, total, &bytes[1..]),
            (offset, total, &[][..]),
            (offset + 1, total, bytes),
            (offset, SERVICES_BYTES_MAX + 1, bytes),
            (PIECES_PER_ASK * PIECE_MAX, total, bytes),
            (usize::MAX, total, bytes),
        ] {
            assert_eq!(take(wrong), None);
        }
        assert_eq!(take(piece(0)), Some(true));
        assert_eq!(take(piece(0)), None, "it is there already");
        for number in [20, 18, 17, 16] {
            assert_eq!(take(piece(number)), Some(false));
        }
        assert_eq!(take(piece(19)), Some(true));
        assert_eq!(fetch.bytes, whole);
    }

    #[test]
    fn words_survive_the_wire_and_nothing_else_is_one() {
        let edition = Edition { generation: 3, digest: 0x8000_0000_0000_0001 };
        let bytes = &[7; PIECE_MAX][..];
        for word in [
            Word::Ask { edition, offset: 1 << 31, wanted: 0x8001 },
            Word::Piece { edition, offset: 68, total: 70, bytes: &bytes[..2] },
            Word::Piece { edition, offset: 0, total: u32::MAX, bytes },
        ] {
            assert_eq!(Word::decode(&word.encode()), Some(word));
        }
        let mut wrong = Word::Piece { edition, offset: 0, total: 9, bytes }.encode();
        wrong[1] = PIECE_MAX as u8 + 1;
        assert_eq!(Word::decode(&wrong), None);
        wrong[0] = 3;
        assert_eq!(Word::decode(&wrong), None);
        assert_eq!(Word::decode(&wrong[1..]), None);
    }
}
