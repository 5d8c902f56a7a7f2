//! Two sound mirrors, and a link that loses, repeats, delays and damages what they say; leaders change, sessions are renewed,
//! members restart without their flows, tables refuse. At any time a follower has what its leader believes that it has, and
//! when the link is sound again both have the same flows.

use baton::base::ids::{BootId, Term};
use baton::base::time::{Duration, Instant};
use baton::mirror::record::Refusal;
use baton::mirror::{Frame, Variant};

use crate::input::Input;
use crate::side::{EVERY, Side, node, open_session};

/// Frames under way at most; of more the oldest are lost.
const LINK_MAX: usize = 64;
/// A turn of the clock where nobody chooses one.
const TURN: Duration = Duration::from_millis(1);
/// Within so many turns over a sound link both are equal.
const TURNS_MAX: usize = 5000;

struct Packet {
    to: usize,
    bytes: Vec<u8>,
}

struct World {
    variant: Variant,
    /// How far connections have come is said without acknowledgement.
    every: Option<Duration>,
    sides: [Side; 2],
    leader: usize,
    term: u64,
    boots: u64,
    now: Instant,
    link: Vec<Packet>,
    /// Something may have been refused: it is told again under a new session only.
    refused: bool,
}

/// Each byte, and some after it, is something that happens; the first one says too whether all is acknowledged, as in most.
pub fn run(data: &[u8]) {
    run_as(data, Variant::Sound);
}

/// As [`run`], with mirrors that are broken on purpose: some input of the corpus has to find it out.
pub fn run_as(data: &[u8], variant: Variant) {
    let every = data.first().filter(|byte| **byte >> 4 == 15).map(|_| EVERY);
    let mut sides = [0, 1].map(|side| Side::new(side, BootId(side as u64 + 1), every, variant));
    open_session(&mut sides);
    let (now, link) = (Instant::from_millis(1), Vec::new());
    let mut world = World { variant, every, sides, leader: 0, term: 0, boots: 2, now, link, refused: false };
    world.lead(0);
    let mut input = Input::new(data);
    while let Some(event) = input.next() {
        world.happen(event, &mut input);
        world.check();
    }
    world.settle();
}

impl World {
    fn lead(&mut self, side: usize) {
        self.term += 1;
        self.leader = side;
        let term = Term { counter: self.term, node: node(side) };
        self.sides[side].stand(true, term);
        self.sides[1 - side].stand(false, term);
    }

    fn happen(&mut self, event: u8, input: &mut Input<'_>) {
        match event % 16 {
            0..4 => self.sides[self.leader].change(self.now, input.byte(), input.byte()),
            4 => (0..8).for_each(|_| self.sides[self.leader].change(self.now, input.byte(), 1)),
            5 | 6 => self.write(self.leader),
            7 => self.write(1 - self.leader),
            8 => self.deliver(0),
            9 => self.deliver(input.below(self.link.len())),
            10 if !self.link.is_empty() => {
                let Packet { to, bytes } = &self.link[input.below(self.link.len())];
                let again = Packet { to: *to, bytes: bytes.clone() };
                self.send(again);
            }
            11 if !self.link.is_empty() => {
                self.link.remove(input.below(self.link.len()));
            }
            12 if !self.link.is_empty() => {
                let Packet { to, bytes } = &self.link[input.below(self.link.len())];
                let (to, mut bytes) = (*to, bytes.clone());
                let at = usize::from(input.byte()) * 7 % bytes.len();
                bytes[at] ^= 1 << input.below(8);
                let taken = self.sides[to].take(self.now, &mut bytes);
                assert!(
                    matches!(taken, Frame::Dropped(_) | Frame::Refused { .. } | Frame::Unknown),
                    "a damaged frame was taken"
                );
            }
            13 => {
                let steps = u64::from(input.byte());
                self.now += Duration::from_micros(steps * steps * 8);
                self.sides.iter_mut().for_each(|side| side.poll(self.now));
            }
            14 => match input.byte() % 8 {
                0 | 1 => drop(open_session(&mut self.sides)),
                2 | 3 => self.lead(1 - self.leader),
                4 => {
                    // The follower starts again, with nothing.
                    let follower = 1 - self.leader;
                    self.boots += 1;
                    self.sides[follower] = Side::new(follower, BootId(self.boots), self.every, self.variant);
                    let term = Term { counter: self.term, node: node(self.leader) };
                    self.sides[follower].stand(false, term);
                    open_session(&mut self.sides);
                }
                5 => self.refuse(Refusal::TableFull),
                6 => self.refuse(Refusal::UnknownService),
                _ => self.sides.iter_mut().for_each(|side| side.takes.refuses = None),
            },
            _ => self.turn(),
        }
    }

    fn refuse(&mut self, reason: Refusal) {
        self.sides[1 - self.leader].takes.refuses = Some(reason);
        self.refused = true;
    }

    fn send(&mut self, packet: Packet) {
        if self.link.len() == LINK_MAX {
            self.link.remove(0);
        }
        self.link.push(packet);
    }

    fn write(&mut self, side: usize) {
        for bytes in self.sides[side].write(self.now) {
            self.send(Packet { to: 1 - side, bytes });
        }
    }

    fn deliver(&mut self, at: usize) {
        if at < self.link.len() {
            let Packet { to, mut bytes } = self.link.remove(at);
            self.sides[to].take(self.now, &mut bytes);
        }
    }

    /// A time in which the link is sound.
    fn turn(&mut self) {
        self.now += TURN;
        for side in 0..2 {
            self.sides[side].poll(self.now);
            self.write(side);
        }
        while !self.link.is_empty() {
            self.deliver(0);
        }
    }

    /// The follower has what the leader believes that it has.
    fn check(&self) {
        let [leader, follower] = [&self.sides[self.leader], &self.sides[1 - self.leader]];
        self.sides.iter().for_each(Side::check);
        let members = [node(1 - self.leader)];
        for (place, flow) in leader.flows.table.iter() {
            if leader.mirror.is_known_to(&members, flow.shard, place) {
                let theirs = follower.flows.table.lookup(&flow.client).map(|found| found.0);
                let theirs = theirs.and_then(|place| follower.flows.table.get(place));
                let server = theirs.map(|flow| flow.server);
                assert_eq!(server, Some(flow.server), "{} is said to be known", flow.client);
                let is_confirmed = leader.mirror.is_confirmed_by(&members, flow.shard, flow.changed.version);
                let is_older = theirs.is_none_or(|theirs| theirs.changed < flow.changed);
                assert!(!(is_confirmed && is_older), "{} is said to be known as it is", flow.client);
            }
        }
    }

    fn settle(&mut self) {
        self.sides.iter_mut().for_each(|side| side.takes.refuses = None);
        if self.refused {
            open_session(&mut self.sides);
        }
        let members = [node(1 - self.leader)];
        for _ in 0..TURNS_MAX {
            self.turn();
            self.check();
            let [leader, follower] = [&self.sides[self.leader], &self.sides[1 - self.leader]];
            let is_done = leader.mirror.is_flushed(members[0])
                && leader.mirror.departed() == 0
                && leader.mirror.known_to_all(&members) == leader.flows.table.iter().count() as u64;
            // What was lost of what is not acknowledged comes again.
            let may_be_behind = self.every.is_some() && leader.known() != follower.known();
            if is_done && !may_be_behind {
                assert_eq!(leader.known(), follower.known(), "all is acknowledged, and they differ");
                return;
            }
        }
        panic!("after {TURNS_MAX} turns over a sound link the follower is not up to date");
    }
}
