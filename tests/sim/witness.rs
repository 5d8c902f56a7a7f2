//! The witness of a run: a machine of its own with a clock of its own, a way to each appliance, and no traffic.
//!
//! A way loses, doubles and delays datagrams, each of them for itself, so that they overtake one another; it can be cut
//! in one or both directions. What the process knows is lost with it.

use baton::base::rng::Rng;
use baton::base::time::{Duration, Instant};
use baton::failover::Failover;
use baton::failover::witness::words::ANSWER_MAX;
use baton::failover::witness::{News, Witness, WitnessVariant};
use baton::seal::KeyRing;

use crate::agenda::{Agenda, Happening, MS, Nanos, US};
use crate::appliance::GROUP_KEY;
use crate::clock::Clock;
use crate::world::{World, name};

/// For how long it grants: the appliances' takeover time.
const HOLD: Duration = Duration::from_millis(50);

/// What is on its way between an appliance's liveness thread and its kernel.
#[derive(Default)]
pub struct Mail {
    /// Of the witness.
    pub answers: Vec<Vec<u8>>,
    /// For it.
    pub requests: Vec<Vec<u8>>,
}

impl Mail {
    /// Hands in what has come.
    pub fn hand_in(&mut self, now: Instant, failover: &mut Failover) {
        for mut answer in std::mem::take(&mut self.answers) {
            failover.handle_witness(now, &mut answer);
        }
    }
}

/// What of the way between the witness and an appliance is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Both,
    /// The witness hears nothing.
    Requests,
    /// The appliance hears nothing.
    Answers,
}

/// How things are where the witness is.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// How many in a million datagrams are lost, and how many come twice.
    pub loss: u32,
    /// How much of its time passes in a million of the world's.
    pub rate: u32,
}

/// The machine of the witness, with it or without.
pub struct Site {
    witness: Option<Witness>,
    variant: WitnessVariant,
    clock: Clock,
    loss: u32,
    /// What is cut of the way to each appliance.
    cuts: [Option<Cut>; 3],
    /// What is said to it, and by it, takes up to so much longer than else.
    late: Nanos,
}

impl Site {
    /// A machine on which no witness runs yet.
    pub fn new(variant: WitnessVariant, surroundings: Surroundings, rng: &mut Rng) -> Site {
        let Surroundings { loss, rate } = surroundings;
        Site { witness: None, variant, clock: Clock::new(rate, rng), loss, cuts: [None; 3], late: 0 }
    }

    /// Starts the witness; one that runs is gone, with all that it knew.
    pub fn start(&mut self, now: Nanos) {
        let key = KeyRing::parse(GROUP_KEY).expect("a good key");
        let started = Witness::new(&key, HOLD, self.variant, self.clock.read(now));
        self.witness = Some(started.expect("the system has entropy"));
    }

    /// All ways are whole and fast again.
    pub fn mend(&mut self) {
        (self.cuts, self.late) = ([None; 3], 0);
    }

    /// When each copy of a datagram comes that is sent now.
    fn comes(&self, agenda: &mut Agenda) -> Vec<Nanos> {
        let copies = match () {
            () if agenda.chance(self.loss) => 0,
            () if agenda.chance(self.loss) => 2,
            () => 1,
        };
        (0..copies).map(|_| agenda.now + agenda.span(20 * US, MS) + agenda.span(0, self.late)).collect()
    }

    /// An appliance asks.
    fn asked(&self, at: usize, life: u64, mail: &[u8], agenda: &mut Agenda) {
        if matches!(self.cuts[at], Some(Cut::Both | Cut::Requests)) {
            return;
        }
        for when in self.comes(agenda) {
            agenda.at(when, Happening::AtWitness { at, life, mail: mail.to_vec() });
        }
    }

    /// A request has come.
    fn handle(&mut self, at: usize, life: u64, mut mail: Vec<u8>, agenda: &mut Agenda) -> Option<News> {
        let mut out = [0; ANSWER_MAX];
        let reply = self.witness.as_mut()?.handle(self.clock.read(agenda.now), &mut mail, &mut out)?;
        if !matches!(self.cuts[at], Some(Cut::Both | Cut::Answers)) {
            for when in self.comes(agenda) {
                agenda.at(when, Happening::Answered { at, life, mail: out[..reply.len].to_vec() });
            }
        }
        reply.news
    }
}

impl World {
    /// What the liveness thread of an appliance has for the witness leaves.
    pub fn post(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(appliance) = &mut node.up else { return };
        for request in std::mem::take(&mut appliance.mail.requests) {
            self.witness.asked(at, node.life, &request, &mut self.agenda);
        }
    }

    /// A request has come to the witness.
    pub fn at_witness(&mut self, at: usize, life: u64, mail: Vec<u8>) {
        if let Some(news) = self.witness.handle(at, life, mail, &mut self.agenda) {
            self.say(|| format!("== the witness: {news:?}"));
        }
    }

    /// An answer has come to the machine of an appliance: to this life of it, or to none.
    pub fn answered(&mut self, at: usize, life: u64, mail: Vec<u8>) {
        let node = &mut self.nodes[at];
        if let Some(appliance) = node.up.as_mut().filter(|_| node.life == life) {
            appliance.mail.answers.push(mail);
        }
    }

    /// Nothing passes any more between the witness and this appliance, in one direction or both.
    pub fn cut_witness(&mut self, at: usize, cut: Cut) {
        self.say(|| format!("** cut between {} and the witness: {cut:?}", name(at)));
        self.witness.cuts[at] = Some(cut);
    }

    /// What is said to the witness, and by it, takes up to so much longer.
    pub fn slow_witness(&mut self, late: Nanos) {
        self.say(|| format!("** the witness's ways are up to {} us slower", late / US));
        self.witness.late = late;
    }

    /// The witness runs, and knows nothing of before; or it is gone.
    pub fn bear_witness(&mut self, runs: bool) {
        self.say(|| format!("** the witness {}", if runs { "starts" } else { "is lost" }));
        self.witness.witness = None;
        if runs {
            self.witness.start(self.agenda.now);
        }
    }
}
