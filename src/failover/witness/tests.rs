//! The witness alone: what it grants, to whom, and what old datagrams do.

use super::words::{ANSWER_MAX, Answer, Asks, Kind, REPORT_MAX, Request, Verdict, decode_report};
use super::{News, Witness, WitnessVariant};
use crate::base::ids::{BootId, GroupId, NodeId, Term};
use crate::base::limits::{MEMBERS_MAX, WITNESS_GROUPS_MAX};
use crate::base::time::{Duration, Instant};
use crate::seal::datagram::{DatagramKey, DatagramSealer, Direction};
use crate::seal::{Key, KeyRing};

const HOLD: Duration = Duration::from_millis(50);

fn key() -> Key {
    Key::parse("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f").unwrap()
}

/// One process of a member.
struct Member {
    node: NodeId,
    group: GroupId,
    boot: BootId,
    sealer: DatagramSealer,
    challenge: u64,
    term: Term,
}

impl Member {
    fn new(node: u16, boot: u64) -> Member {
        let (boot, sealing) = (BootId(boot), DatagramKey::new(&key()));
        let sealer = DatagramSealer::new(&sealing, Direction::ToWitness, boot);
        let (node, group) = (NodeId(node), GroupId(0));
        Member { node, group, boot, sealer, challenge: 0, term: Term { counter: 1, node: NodeId(1) } }
    }

    fn request(&mut self, asks: Asks) -> Vec<u8> {
        let request = Request {
            group: self.group,
            node: self.node,
            asks,
            challenge: self.challenge,
            term: self.term,
            takeover_after: HOLD,
        };
        let mut out = [0; ANSWER_MAX];
        let len = self.sealer.seal(Kind::Request.code(), &request.encode(), &mut out).unwrap();
        out[..len].to_vec()
    }

    /// Asks, says a challenge back if there is one, and gives the last answer.
    fn ask(&mut self, world: &mut World, asks: Asks) -> Answer {
        for _ in 0..2 {
            let request = self.request(asks);
            let answer = world.handle(&request).expect("it answers");
            assert_eq!((answer.node, answer.boot), (self.node, self.boot));
            if answer.verdict != Verdict::Challenge {
                return answer;
            }
            self.challenge = answer.challenge;
        }
        panic!("challenged twice");
    }
}

struct World {
    witness: Witness,
    now: Instant,
    news: Vec<News>,
}

impl World {
    fn started() -> World {
        let now = Instant::from_millis(1000);
        let witness = Witness::new(&key().into(), HOLD, WitnessVariant::Sound, now).unwrap();
        World { witness, now, news: Vec::new() }
    }

    /// One that may grant.
    fn ready() -> World {
        let mut world = World::started();
        world.pass(50);
        world
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn handle(&mut self, datagram: &[u8]) -> Option<Answer> {
        let mut out = [0; ANSWER_MAX];
        let reply = self.witness.handle(self.now, &mut datagram.to_vec(), &mut out)?;
        self.news.extend(reply.news);
        let key = DatagramKey::new(&key());
        let opened = key.open(Direction::FromWitness, &mut out[..reply.len]).unwrap();
        assert!(reply.len <= datagram.len(), "nobody can make it send more than it gets");
        Answer::decode(opened.payload)
    }
}

#[test]
fn it_grants_to_one_at_a_time_and_to_another_when_that_time_is_over() {
    let (mut world, mut a, mut b) = (World::ready(), Member::new(1, 10), Member::new(2, 20));
    assert_eq!(a.ask(&mut world, Asks::AsLeader).verdict, Verdict::Granted);
    world.pass(30);
    assert_eq!(a.ask(&mut world, Asks::AsLeader).verdict, Verdict::Granted);
    world.pass(49);
    let refused = b.ask(&mut world, Asks::ToLead);
    assert_eq!((refused.verdict, refused.holder), (Verdict::Held, NodeId(1)));
    assert_eq!(refused.wait, Duration::from_millis(1));
    world.pass(1);
    assert_eq!(b.ask(&mut world, Asks::ToLead).verdict, Verdict::Granted);
    assert_eq!(a.ask(&mut world, Asks::AsLeader).verdict, Verdict::Held);
    let holds = |node| News::Holds { group: GroupId(0), node: NodeId(node), term: a.term };
    assert_eq!(world.news, [holds(1), holds(2)]);
}

#[test]
fn the_holder_is_granted_again_at_any_time_but_not_a_new_process_of_it() {
    let (mut world, mut old, mut new) = (World::ready(), Member::new(1, 10), Member::new(1, 11));
    assert_eq!(old.ask(&mut world, Asks::AsLeader).verdict, Verdict::Granted);
    let refused = new.ask(&mut world, Asks::ToLead);
    assert_eq!((refused.verdict, refused.holder), (Verdict::Held, NodeId(1)));
    assert_eq!(new.ask(&mut world, Asks::Nothing).verdict, Verdict::Noted, "it gives nothing back");
    assert_eq!(new.ask(&mut world, Asks::ToLead).verdict, Verdict::Held);
    world.pass(50);
    assert_eq!(new.ask(&mut world, Asks::ToLead).verdict, Verdict::Granted);
}

#[test]
fn nothing_is_granted_for_as_long_as_a_grant_lasts_after_a_start() {
    let (mut world, mut a) = (World::started(), Member::new(1, 10));
    let answer = a.ask(&mut world, Asks::AsLeader);
    assert_eq!((answer.verdict, answer.wait), (Verdict::Starting, HOLD));
    world.pass(49);
    assert_eq!(a.ask(&mut world, Asks::AsLeader).verdict, Verdict::Starting);
    world.pass(1);
    assert_eq!(a.ask(&mut world, Asks::AsLeader).verdict, Verdict::Granted);
}

#[test]
fn who_asks_for_nothing_gives_back_what_it_had() {
    let (mut world, mut a, mut b) = (World::ready(), Member::new(1, 10), Member::new(2, 20));
    a.ask(&mut world, Asks::AsLeader);
    assert_eq!(b.ask(&mut world, Asks::Nothing).verdict, Verdict::Noted, "it has nothing to give back");
    assert_eq!(b.ask(&mut world, Asks::ToLead).verdict, Verdict::Held);
    assert_eq!(a.ask(&mut world, Asks::Nothing).verdict, Verdict::Noted);
    assert_eq!(b.ask(&mut world, Asks::ToLead).verdict, Verdict::Granted);
    assert!(world.news.contains(&News::Free { group: GroupId(0), node: NodeId(1) }));
}

#[test]
fn the_term_of_a_leader_is_recorded_and_told_and_that_of_a_candidate_is_not() {
    let (mut world, mut a, mut b) = (World::ready(), Member::new(1, 10), Member::new(2, 20));
    assert_eq!(a.ask(&mut world, Asks::ToLead).recorded, Term::NONE);
    a.term.counter = 7;
    assert_eq!(a.ask(&mut world, Asks::AsLeader).recorded, a.term);
    a.term.counter = 6;
    assert_eq!(a.ask(&mut world, Asks::AsLeader).recorded.counter, 7, "it never sinks");
    b.term.counter = 9;
    assert_eq!(b.ask(&mut world, Asks::AsLeader).recorded.counter, 7, "what was refused is not recorded");
    assert_eq!(b.ask(&mut world, Asks::ToLead).recorded.counter, 7);
}

#[test]
fn a_request_that_comes_again_or_late_does_nothing() {
    let (mut world, mut a, mut b) = (World::ready(), Member::new(1, 10), Member::new(2, 20));
    a.ask(&mut world, Asks::Nothing);
    let (first, second) = (a.request(Asks::AsLeader), a.request(Asks::Nothing));
    assert_eq!(world.handle(&first).unwrap().verdict, Verdict::Granted);
    assert_eq!(world.handle(&second).unwrap().verdict, Verdict::Noted);
    assert!(world.handle(&first).is_none() && world.handle(&second).is_none());
    assert_eq!(world.witness.counts().replayed, 2);
    assert_eq!(b.ask(&mut world, Asks::ToLead).verdict, Verdict::Granted, "nothing was granted again");
}

#[test]
fn what_was_recorded_of_an_earlier_process_or_before_a_restart_of_the_witness_does_nothing() {
    let (mut world, mut old, mut new) = (World::ready(), Member::new(1, 10), Member::new(1, 11));
    old.ask(&mut world, Asks::Nothing);
    let mut recorded: Vec<Vec<u8>> = (0..4).map(|_| old.request(Asks::AsLeader)).collect();
    recorded.iter().for_each(|request| {
        world.handle(request);
    });
    new.ask(&mut world, Asks::Nothing);
    recorded.push(old.request(Asks::AsLeader));
    world.pass(60);
    for _ in 0..2 {
        let granted = world.witness.counts().granted;
        for request in &recorded {
            assert_eq!(world.handle(request).unwrap().verdict, Verdict::Challenge);
        }
        assert_eq!(world.witness.counts().granted, granted);
        // The witness starts again, with the same key.
        world = World::ready();
    }
    assert_eq!(world.witness.counts().granted, 0);
}

#[test]
fn it_grants_nothing_to_a_member_that_needs_more_time_than_it_grants() {
    let (mut world, mut a) = (World::ready(), Member::new(1, 10));
    a.ask(&mut world, Asks::Nothing);
    let request = Request {
        group: a.group,
        node: a.node,
        asks: Asks::AsLeader,
        challenge: a.challenge,
        term: a.term,
        takeover_after: HOLD + Duration::from_micros(1),
    };
    let mut out = [0; ANSWER_MAX];
    let len = a.sealer.seal(Kind::Request.code(), &request.encode(), &mut out).unwrap();
    let answer = world.handle(&out[..len]).unwrap();
    assert_eq!((answer.verdict, answer.hold), (Verdict::TooShort, HOLD));
    assert_eq!(world.witness.status(world.now).groups[0].holder, None);
}

#[test]
fn groups_do_not_meet_and_there_is_room_for_so_many_groups_and_members() {
    let mut world = World::ready();
    for group in 0..WITNESS_GROUPS_MAX as u16 + 1 {
        let mut member = Member::new(1, 10 + u64::from(group));
        member.group = GroupId(group);
        if usize::from(group) == WITNESS_GROUPS_MAX {
            let request = member.request(Asks::AsLeader);
            assert!(world.handle(&request).is_none());
        } else {
            assert_eq!(member.ask(&mut world, Asks::AsLeader).verdict, Verdict::Granted, "group {group}");
        }
    }
    for node in 2..MEMBERS_MAX as u16 + 1 {
        assert_eq!(Member::new(node, node.into()).ask(&mut world, Asks::Nothing).verdict, Verdict::Noted);
    }
    let mut further = Member::new(99, 99);
    let request = further.request(Asks::ToLead);
    assert!(world.handle(&request).is_none());
    assert_eq!(world.witness.counts().no_room, 2);
    world.pass(60_000);
    assert_eq!(
        further.ask(&mut world, Asks::ToLead).verdict,
        Verdict::Granted,
        "one was silent for a minute"
    );
}

#[test]
fn rubbish_is_counted_and_dropped() {
    let (mut world, mut a) = (World::ready(), Member::new(1, 10));
    let request = a.request(Asks::AsLeader);
    for len in 0..request.len() {
        assert!(world.handle(&request[..len]).is_none(), "{len} bytes");
    }
    for at in 0..request.len() {
        let mut changed = request.clone();
        changed[at] ^= 0x80;
        assert!(world.handle(&changed).is_none(), "byte {at}");
    }
    let mut out = [0; ANSWER_MAX];
    let len = a.sealer.seal(Kind::Answer.code(), &[0; 48], &mut out).unwrap();
    assert!(world.handle(&out[..len]).is_none());
    let counts = world.witness.counts();
    assert_eq!(counts.malformed + counts.forged, 2 * request.len() as u64 + 1);
    assert_eq!(counts.requests, 0);
}

#[test]
fn it_tells_how_things_are_in_no_more_bytes_than_the_question_has() {
    let mut world = World::ready();
    for group in 0..WITNESS_GROUPS_MAX as u16 {
        let mut member = Member::new(1, 10 + u64::from(group));
        member.group = GroupId(group);
        member.ask(&mut world, Asks::AsLeader);
    }
    let key = DatagramKey::new(&key());
    let mut sealer = DatagramSealer::new(&key, Direction::ToWitness, BootId(5));
    let (mut question, mut out) = ([0; ANSWER_MAX], [0; ANSWER_MAX]);
    let mut payload = [0; REPORT_MAX];
    payload[..8].copy_from_slice(&[9; 8]);
    let len = sealer.seal(Kind::Question.code(), &payload, &mut question).unwrap();
    let reply = world.witness.handle(world.now, &mut question[..len], &mut out).unwrap();
    assert!(reply.len <= len);
    let opened = key.open(Direction::FromWitness, &mut out[..reply.len]).unwrap();
    assert_eq!(opened.payload[..8], [9; 8]);
    let status = decode_report(&opened.payload[8..]).unwrap();
    assert_eq!((status.hold_ms, status.groups[0].holder), (50, Some(NodeId(1))));
    let len = sealer.seal(Kind::Question.code(), &payload[..100], &mut question).unwrap();
    assert!(
        world.witness.handle(world.now, &mut question[..len], &mut out).is_none(),
        "too short a question"
    );
}

#[test]
fn who_asks_with_any_key_of_its_file_is_answered_with_that_key() {
    let mut ring = KeyRing::from(key());
    ring.add(Key::generate().unwrap()).unwrap();
    let now = Instant::from_millis(1000);
    let mut witness = Witness::new(&ring, HOLD, WitnessVariant::Sound, now).unwrap();
    for (number, key) in ring.keys().iter().enumerate() {
        let (sealing, mut member) = (DatagramKey::new(key), Member::new(1, 10 + number as u64));
        member.sealer = DatagramSealer::new(&sealing, Direction::ToWitness, member.boot);
        let mut out = [0; ANSWER_MAX];
        let reply = witness.handle(now, &mut member.request(Asks::Nothing), &mut out).expect("it answers");
        let opened = sealing.open(Direction::FromWitness, &mut out[..reply.len]);
        assert!(opened.is_ok_and(|opened| Answer::decode(opened.payload).is_some()), "key {number}");
    }
}
