//! The handshake between two boots of two members: Noise NNpsk0, or KK with pinned keys (the Noise
//! Protocol Framework, revision 34, sections 7.5 and 9), two messages.
//!
//! ```text
//! initiator  -- hello  (psk, e) member info -->  responder   pending
//! completed  <-- answer (e, ee) member info --
//!            -- any sealed frame            -->  confirmed
//! ```
//!
//! - Either side may start, both at once too: then the higher boot id stays the
//!   initiator, and the other answers.
//! - A hello can be recorded and sent again by anyone, so it changes nothing: the
//!   answer leaves a *pending* session, which becomes the session when a frame
//!   sealed under it arrives. Only a holder of the key can send one.
//! - A hello that was answered once in this process's life is not answered again
//!   later, but while its session is pending the same answer is given to it.
//! - Lost messages are sent again by [`Handshake::poll`].

use std::sync::Arc;

use arrayvec::ArrayVec;
use snow::HandshakeState;
use zeroize::Zeroize;

use super::credentials::{Credential, Credentials};
use super::key::{Key, KeyName};
use super::member::{MEMBER_MAX, MemberInfo, Mismatch};
use super::session::{Session, Side};
use crate::base::ids::NodeId;
use crate::base::limits::{
    HANDSHAKE_PATIENCE, HANDSHAKE_RETRY, HANDSHAKES_AT_ONCE_MAX, HANDSHAKES_PER_SECOND_MAX,
    HELLOS_REMEMBERED_MAX,
};
use crate::base::time::{Duration, Instant};

/// Longest handshake message: an ephemeral key, the member info (with room for
/// what later versions append) and a tag.
pub const MESSAGE_MAX: usize = 32 + MEMBER_MAX + 16;

/// One handshake message.
pub type Message = ArrayVec<u8, MESSAGE_MAX>;

/// A hello is renewed after this: less than a responder keeps its answer.
const HELLO_LIFE: Duration = Duration::from_secs(1);
/// How long an answered hello's session waits for its first frame.
const PENDING_LIFE: Duration = Duration::from_secs(2);
/// How long one that began with another key is not answered while this side's own hello may be: less than its life.
const OTHER_KEY_PATIENCE: Duration = Duration::from_millis(200);

/// What became of a message.
#[derive(Debug)]
pub enum Handled {
    /// An answer to be sent to the peer; its session is pending.
    Reply(Message),
    /// The session is agreed: use it.
    Completed(Arc<Session>),
    /// Both started, and this side stays the initiator: the peer will answer.
    Ours,
    /// A message that was handled before, or answers nothing that is waiting.
    Stale,
    /// Not from a holder of the key, or changed, or for someone else.
    Forged,
    /// From a holder of the key who cannot be worked with.
    Mismatch(Mismatch),
}

/// The handshake with one peer.
pub struct Handshake {
    credentials: Credentials,
    local: MemberInfo,
    peer: NodeId,
    started: Option<Started>,
    pending: Option<Pending>,
    answered: ArrayVec<[u8; 8], HELLOS_REMEMBERED_MAX>,
    /// When this side may start: it lets an initiator that it answered go first.
    start_after: Instant,
}

struct Started {
    noise: Box<HandshakeState>,
    key: KeyName,
    hello: Message,
    since: Instant,
    send_at: Instant,
}

struct Pending {
    hello: Message,
    answer: Message,
    session: Arc<Session>,
    until: Instant,
}

impl Handshake {
    /// With `peer`, of this member.
    pub fn new(credentials: impl Into<Credentials>, local: MemberInfo, peer: NodeId) -> Handshake {
        Handshake {
            credentials: credentials.into(),
            local,
            peer,
            started: None,
            pending: None,
            answered: ArrayVec::new(),
            start_after: Instant::ZERO,
        }
    }

    /// What it goes by.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Goes by others from now on. What was begun with one that is not accepted any more is forgotten.
    pub fn renew(&mut self, credentials: Credentials) {
        self.started = None;
        self.pending = self.pending.take().filter(|pending| credentials.accept(pending.session.key()));
        self.credentials = credentials;
    }

    /// Gives the hello to be sent now, if any. `wanted`: there is no session with
    /// the peer, or it says nothing under the one there is.
    pub fn poll(&mut self, now: Instant, wanted: bool) -> Option<Message> {
        if self.pending.as_ref().is_some_and(|pending| now >= pending.until) {
            self.pending = None;
        }
        if !wanted {
            self.started = None;
            return None;
        }
        if now < self.start_after {
            return None;
        }
        if self.started.as_ref().is_none_or(|started| now - started.since >= HELLO_LIFE) {
            self.started = self.start(now);
        }
        let started = self.started.as_mut()?;
        if now < started.send_at {
            return None;
        }
        started.send_at = now + HANDSHAKE_RETRY;
        Some(started.hello.clone())
    }

    /// When [`Handshake::poll`] has something to do next, as far as it is `wanted`.
    pub fn next_deadline(&self) -> Instant {
        self.started.as_ref().map_or(self.start_after, |started| started.send_at)
    }

    fn start(&self, now: Instant) -> Option<Started> {
        let credential = self.credentials.first();
        let mut noise = Box::new(credential.noise(self.local.node, self.peer, Side::Initiator)?);
        let hello = write(&mut noise, &self.local)?;
        Some(Started { noise, key: credential.name(), hello, since: now, send_at: now })
    }

    /// Handles a hello of the peer.
    pub fn handle_hello(&mut self, now: Instant, hello: &[u8]) -> Handled {
        if let Some(pending) = &self.pending
            && pending.hello.as_slice() == hello
        {
            return Handled::Reply(pending.answer.clone());
        }
        let Some(mark) = hello.first_chunk::<8>() else { return Handled::Forged };
        if self.answered.contains(mark) {
            return Handled::Stale;
        }
        let found = self.credentials.iter().find_map(|credential| {
            let mut noise = credential.noise(self.peer, self.local.node, Side::Responder)?;
            let peer = read(&mut noise, hello)?;
            Some((credential.name(), noise, peer))
        });
        let Some((key, mut noise, peer)) = found else { return Handled::Forged };
        if let Err(mismatch) = self.local.fits(&peer, self.peer) {
            return Handled::Mismatch(mismatch);
        }
        // Who lacks the key that this side began with cannot answer, and is answered after a while.
        let is_ours = |started: &Started| started.key == key || now - started.since < OTHER_KEY_PATIENCE;
        if self.local.boot > peer.boot && self.started.as_ref().is_some_and(is_ours) {
            return Handled::Ours;
        }
        let (Some(answer), Ok(kept)) = (write(&mut noise, &self.local), Message::try_from(hello)) else {
            return Handled::Forged;
        };
        let session = Arc::new(session(Side::Responder, key, &mut noise, self.local, peer));
        if self.answered.is_full() {
            self.answered.remove(0);
        }
        self.answered.push(*mark);
        self.started = None;
        self.start_after = now + HANDSHAKE_PATIENCE;
        self.pending =
            Some(Pending { hello: kept, answer: answer.clone(), session, until: now + PENDING_LIFE });
        Handled::Reply(answer)
    }

    /// Handles an answer of the peer to this side's hello.
    pub fn handle_answer(&mut self, answer: &[u8]) -> Handled {
        let Some(started) = &mut self.started else { return Handled::Stale };
        // A failed read leaves the Noise state unusable only if it changed it; `snow`
        // restores its checkpoint, so a forgery does not end what was started.
        let Some(peer) = read(&mut started.noise, answer) else { return Handled::Forged };
        let started = self.started.take();
        if let Err(mismatch) = self.local.fits(&peer, self.peer) {
            return Handled::Mismatch(mismatch);
        }
        let Some(Started { mut noise, key, .. }) = started else { return Handled::Stale };
        self.pending = None;
        Handled::Completed(Arc::new(session(Side::Initiator, key, &mut noise, self.local, peer)))
    }

    /// The session of this name that waits for its first frame.
    pub fn pending(&self, id: u64) -> Option<&Arc<Session>> {
        self.pending.as_ref().map(|pending| &pending.session).filter(|session| session.id() == id)
    }

    /// A frame sealed under the pending session arrived: it is the session now.
    pub fn confirm(&mut self) -> Option<Arc<Session>> {
        self.started = None;
        self.pending.take().map(|pending| pending.session)
    }
}

/// What the sender of a hello from `from` to `to` says of itself; `None` if it
/// does not hold this key of the group's, or uses its own. Tells a second appliance with the own node number from
/// the own hello, come back.
pub fn read_hello(key: &Key, from: NodeId, to: NodeId, hello: &[u8]) -> Option<MemberInfo> {
    read(&mut Credential::of_group(key).noise(from, to, Side::Responder)?, hello)
}

fn write(noise: &mut HandshakeState, local: &MemberInfo) -> Option<Message> {
    let mut out = [0; MESSAGE_MAX];
    let len = noise.write_message(&local.encode(), &mut out).ok()?;
    Message::try_from(&out[..len]).ok()
}

fn read(noise: &mut HandshakeState, message: &[u8]) -> Option<MemberInfo> {
    if message.len() > MESSAGE_MAX {
        return None;
    }
    let mut payload = [0; MESSAGE_MAX];
    let len = noise.read_message(message, &mut payload).ok()?;
    MemberInfo::decode(&payload[..len])
}

fn session(
    side: Side,
    key: KeyName,
    noise: &mut HandshakeState,
    local: MemberInfo,
    peer: MemberInfo,
) -> Session {
    let (mut one, mut two) = noise.dangerously_get_raw_split();
    let mut secret = [0; 64];
    secret[..32].copy_from_slice(&one);
    secret[32..].copy_from_slice(&two);
    let session = Session::new((side, key), local, peer, noise.get_handshake_hash(), &secret);
    one.zeroize();
    two.zeroize();
    secret.zeroize();
    session
}

/// How many handshake messages of one port are looked at: a flood costs the
/// liveness thread no more than that, and other ports nothing.
#[derive(Clone, Debug)]
pub struct Allowance {
    left: u64,
    filled_at: Instant,
}

impl Allowance {
    /// A full one.
    pub fn new(now: Instant) -> Allowance {
        Allowance { left: HANDSHAKES_AT_ONCE_MAX, filled_at: now }
    }

    /// Takes one; false when there is none left.
    pub fn take(&mut self, now: Instant) -> bool {
        let earned = (now - self.filled_at).nanos() / (1_000_000_000 / HANDSHAKES_PER_SECOND_MAX);
        if earned > 0 {
            self.left = (self.left + earned).min(HANDSHAKES_AT_ONCE_MAX);
            self.filled_at = now;
        }
        let some = self.left > 0;
        self.left -= u64::from(some);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::BootId;
    use crate::seal::credentials::{Keys, Sealing};
    use crate::seal::frame::TAG_LEN;
    use crate::seal::keyring::KeyRing;
    use crate::seal::member::tests::member;
    use crate::seal::node::NodeKey;
    use crate::seal::session::StreamId;

    const ZERO: Instant = Instant::ZERO;

    fn pair() -> (Handshake, Handshake) {
        let key = Key::generate().unwrap();
        (Handshake::new(&key, member(1), NodeId(2)), Handshake::new(&key, member(2), NodeId(1)))
    }

    fn reply(handled: Handled) -> Message {
        match handled {
            Handled::Reply(message) => message,
            other => panic!("expected a reply, found {other:?}"),
        }
    }

    fn completed(handled: Handled) -> Arc<Session> {
        match handled {
            Handled::Completed(session) => session,
            other => panic!("expected a session, found {other:?}"),
        }
    }

    #[test]
    fn two_members_agree_on_a_session_and_open_each_others_frames() {
        let (mut a, mut b) = pair();
        let hello = a.poll(ZERO, true).unwrap();
        let answer = reply(b.handle_hello(ZERO, &hello));
        let at_a = completed(a.handle_answer(&answer));
        assert!(b.pending(at_a.id()).is_some());
        let at_b = b.confirm().unwrap();
        assert_eq!((at_a.peer(), at_b.peer()), (&member(2), &member(1)));
        assert_eq!((at_a.version(), at_a.capabilities()), (1, 0x8000_0001));
        for (from, to) in [(&at_a, &at_b), (&at_b, &at_a)] {
            let (mut header, mut buffer) = ([0; 8], [7; 4 + TAG_LEN]);
            let mut sealer = from.sealer(StreamId::mirror(0, 1)).unwrap();
            sealer.seal_in_place(&mut header, &mut buffer).unwrap();
            assert!(to.opener(StreamId::mirror(0, 1)).open_in_place(&header, &mut buffer).is_ok());
            assert_eq!(buffer[..4], [7; 4]);
        }
    }

    #[test]
    fn when_both_start_the_higher_boot_id_stays_the_initiator() {
        let (mut a, mut b) = pair();
        let (from_a, from_b) = (a.poll(ZERO, true).unwrap(), b.poll(ZERO, true).unwrap());
        assert!(matches!(b.handle_hello(ZERO, &from_a), Handled::Ours));
        let answer = reply(a.handle_hello(ZERO, &from_b));
        let at_b = completed(b.handle_answer(&answer));
        assert!(a.pending(at_b.id()).is_some());
    }

    #[test]
    fn a_lost_hello_or_answer_is_sent_again_and_a_repeated_hello_gets_the_same_answer() {
        let (mut a, mut b) = pair();
        let hello = a.poll(ZERO, true).unwrap();
        assert!(a.poll(Instant::from_millis(9), true).is_none());
        let again = a.poll(Instant::from_millis(10), true).unwrap();
        assert_eq!(hello, again);
        let answer = reply(b.handle_hello(ZERO, &hello));
        assert_eq!(reply(b.handle_hello(ZERO, &again)), answer);
        // The responder waits for the initiator before it starts itself.
        assert!(b.poll(Instant::from_millis(14), true).is_none());
        assert!(b.poll(Instant::from_millis(15), true).is_some());
        completed(a.handle_answer(&answer));
        assert!(matches!(a.handle_answer(&answer), Handled::Stale));
    }

    #[test]
    fn a_hello_recorded_and_sent_again_later_is_not_answered() {
        let (mut a, mut b) = pair();
        let hello = a.poll(ZERO, true).unwrap();
        let answer = reply(b.handle_hello(ZERO, &hello));
        completed(a.handle_answer(&answer));
        b.confirm().unwrap();
        assert!(matches!(b.handle_hello(Instant::from_millis(5), &hello), Handled::Stale));
        assert!(b.confirm().is_none(), "nothing is pending");
    }

    #[test]
    fn without_the_key_nothing_is_answered_and_nothing_started_is_ended() {
        let (mut a, mut b) = pair();
        let (mut stranger, _) = pair();
        let hello = stranger.poll(ZERO, true).unwrap();
        assert!(matches!(b.handle_hello(ZERO, &hello), Handled::Forged));
        let hello = a.poll(ZERO, true).unwrap();
        let answer = reply(b.handle_hello(ZERO, &hello));
        for at in 0..answer.len() {
            let mut forged = answer.clone();
            forged[at] ^= 1;
            assert!(matches!(a.handle_answer(&forged), Handled::Forged), "byte {at}");
        }
        for len in 0..hello.len() {
            assert!(matches!(a.handle_answer(&answer[..len]), Handled::Forged));
            // Not answered, though its beginning was seen before.
            assert!(matches!(b.handle_hello(ZERO, &hello[..len]), Handled::Forged | Handled::Stale));
        }
        completed(a.handle_answer(&answer));
    }

    #[test]
    fn a_member_that_does_not_fit_is_refused_on_both_sides() {
        let key = Key::generate().unwrap();
        let mut a = Handshake::new(&key, member(1), NodeId(2));
        let mut b = Handshake::new(&key, MemberInfo { shards: 128, ..member(2) }, NodeId(1));
        let (from_a, from_b) = (a.poll(ZERO, true).unwrap(), b.poll(ZERO, true).unwrap());
        assert!(matches!(a.handle_hello(ZERO, &from_b), Handled::Mismatch(Mismatch::Shards(128))));
        assert!(matches!(b.handle_hello(ZERO, &from_a), Handled::Mismatch(Mismatch::Shards(256))));
    }

    #[test]
    fn a_hello_for_another_node_is_not_ours() {
        let key = Key::generate().unwrap();
        let mut a = Handshake::new(&key, member(1), NodeId(3));
        let mut b = Handshake::new(&key, member(2), NodeId(1));
        let hello = a.poll(ZERO, true).unwrap();
        assert!(matches!(b.handle_hello(ZERO, &hello), Handled::Forged));
        let said = read_hello(&key, NodeId(1), NodeId(3), &hello).unwrap();
        assert_eq!(said.boot, BootId(0x1001));
    }

    /// Runs one handshake that `a` begins. `None`: it is not believed.
    fn agree(a: &mut Handshake, b: &mut Handshake) -> Option<(Arc<Session>, Arc<Session>)> {
        let hello = a.poll(ZERO, true).unwrap();
        match b.handle_hello(ZERO, &hello) {
            Handled::Reply(answer) => Some((completed(a.handle_answer(&answer)), b.confirm().unwrap())),
            Handled::Forged => None,
            other => panic!("it is neither answered nor refused: {other:?}"),
        }
    }

    #[test]
    fn a_group_key_is_changed_rung_by_rung_and_every_pair_of_neighbouring_rungs_agrees() {
        let [old, new] = [Key::generate().unwrap(), Key::generate().unwrap()];
        let mut ring = KeyRing::from(old.clone());
        let mut rungs = vec![ring.clone()];
        ring.add(new.clone()).unwrap();
        rungs.push(ring.clone());
        ring.put_first(new.name()).unwrap();
        rungs.push(ring.clone());
        ring.drop_others().unwrap();
        rungs.push(ring);
        for (at, theirs) in (0..4).flat_map(|at| (0..4).map(move |theirs| (at, theirs))) {
            let side = |rung: usize, own, peer| {
                Handshake::new(Keys::from(rungs[rung].clone()).with(NodeId(peer)), member(own), NodeId(peer))
            };
            let agreed = agree(&mut side(at, 1, 2), &mut side(theirs, 2, 1));
            if at.abs_diff(theirs) <= 1 {
                let (ours, _) = agreed.unwrap();
                assert_eq!(ours.key(), if at < 2 { old.name() } else { new.name() }, "rung {at} begins");
            } else if (at, theirs) == (0, 3) || (at, theirs) == (3, 0) {
                assert!(agreed.is_none(), "rungs {at} and {theirs} have no key in common");
            }
        }
    }

    #[test]
    fn pinned_keys_prove_the_node_and_the_key_file_is_no_help_then() {
        let ring = KeyRing::generate().unwrap();
        let [a, b, thief] = [(); 3].map(|()| NodeKey::generate().unwrap());
        let pinned = |own: &NodeKey, peer: u16, theirs: &NodeKey, sealing| {
            let peers = [(NodeId(peer), theirs.public())];
            Keys::pinned(ring.clone(), sealing, own, &peers).unwrap().with(NodeId(peer))
        };
        let enforced = |own, peer, theirs| pinned(own, peer, theirs, Sealing::Enforce);
        let mut at_a = Handshake::new(enforced(&a, 2, &b), member(1), NodeId(2));
        let mut at_b = Handshake::new(enforced(&b, 1, &a), member(2), NodeId(1));
        let (ours, theirs) = agree(&mut at_a, &mut at_b).unwrap();
        assert_eq!((ours.id(), ours.peer()), (theirs.id(), &member(2)));
        // Who has the key file, and even what both public keys are.
        for (strange, seconds) in
            [(enforced(&thief, 1, &a), 5), (Keys::from(ring.clone()).with(NodeId(1)), 7)]
        {
            let mut strange = Handshake::new(strange, member(2), NodeId(1));
            assert!(agree(&mut strange, &mut at_a).is_none());
            // Nor does an answer to a member that began.
            let hello = at_a.poll(Instant::from_millis(seconds * 1000), true).unwrap();
            assert!(matches!(strange.handle_hello(ZERO, &hello), Handled::Forged));
        }
        // On the way there, every pair of neighbouring rungs agrees.
        let from_file = Keys::from(ring.clone());
        let rungs = |own: &NodeKey, peer, theirs: &NodeKey| {
            let of = [Sealing::ReceiveOnly, Sealing::Permissive, Sealing::Enforce];
            let pinned = of.map(|sealing| pinned(own, peer, theirs, sealing));
            [from_file.with(NodeId(peer))].into_iter().chain(pinned).collect::<Vec<_>>()
        };
        let (of_a, of_b) = (rungs(&a, 2, &b), rungs(&b, 1, &a));
        for (at, theirs) in [(0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2)] {
            let mut at_a = Handshake::new(of_a[at].clone(), member(1), NodeId(2));
            let mut at_b = Handshake::new(of_b[theirs].clone(), member(2), NodeId(1));
            assert!(agree(&mut at_a, &mut at_b).is_some(), "rungs {at} and {theirs}");
        }
    }

    #[test]
    fn one_that_lacks_the_key_that_this_side_begins_with_is_answered_after_a_while() {
        let (old, new) = (Key::generate().unwrap(), Key::generate().unwrap());
        let mut ring = KeyRing::from(old.clone());
        ring.add(new.clone()).unwrap();
        ring.put_first(new.name()).unwrap();
        // The higher boot id would stay the initiator.
        let mut ahead = Handshake::new(Keys::from(ring).with(NodeId(1)), member(2), NodeId(1));
        let mut behind = Handshake::new(&old, member(1), NodeId(2));
        let (from_ahead, from_behind) = (ahead.poll(ZERO, true).unwrap(), behind.poll(ZERO, true).unwrap());
        assert!(matches!(behind.handle_hello(ZERO, &from_ahead), Handled::Forged));
        assert!(matches!(ahead.handle_hello(Instant::from_millis(199), &from_behind), Handled::Ours));
        let answer = reply(ahead.handle_hello(Instant::from_millis(200), &from_behind));
        let session = completed(behind.handle_answer(&answer));
        assert!(ahead.pending(session.id()).is_some());
    }

    #[test]
    fn what_was_begun_with_a_key_that_is_gone_is_forgotten() {
        let [old, new] = [Key::generate().unwrap(), Key::generate().unwrap()];
        let (mut a, mut b) =
            (Handshake::new(&old, member(1), NodeId(2)), Handshake::new(&old, member(2), NodeId(1)));
        let hello = a.poll(ZERO, true).unwrap();
        let answer = reply(b.handle_hello(ZERO, &hello));
        a.renew(Credentials::from(&new));
        b.renew(Credentials::from(&new));
        assert!(matches!(a.handle_answer(&answer), Handled::Stale));
        assert!(b.confirm().is_none());
    }

    #[test]
    fn a_pending_session_that_no_frame_confirms_is_forgotten() {
        let (mut a, mut b) = pair();
        let hello = a.poll(ZERO, true).unwrap();
        reply(b.handle_hello(ZERO, &hello));
        b.poll(Instant::from_millis(1999), false);
        assert!(b.pending.is_some());
        b.poll(Instant::from_millis(2000), false);
        assert!(b.pending.is_none());
    }

    #[test]
    fn a_flood_is_looked_at_so_often_a_second() {
        let mut allowance = Allowance::new(ZERO);
        let mut taken = 0;
        for micros in 0..1_000_000 {
            taken += u64::from(allowance.take(Instant::from_nanos(micros * 1000)));
        }
        let most = HANDSHAKES_PER_SECOND_MAX + HANDSHAKES_AT_ONCE_MAX;
        assert!((HANDSHAKES_PER_SECOND_MAX..=most).contains(&taken), "{taken}");
        // What comes in one burst holds the liveness thread up for so few of them, however long it was quiet.
        let later = Instant::from_millis(60_000);
        assert_eq!((0..1000).filter(|_| allowance.take(later)).count() as u64, HANDSHAKES_AT_ONCE_MAX);
    }
}
