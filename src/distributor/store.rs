//! The connection store of a distributor: keys whose shard is another than the hash says (REQ D1, D3, D6-D9).
//!
//! Every flow has a shard by its hash, without a table; the store holds the exceptions. A packet's key is looked for in
//! every [`Shape`] of which there are keys, the most specific first, and the first key found decides. What becomes of a
//! key is said by [`State`].
//!
//! One store belongs to one distributor, which alone calls it. The distributors of an appliance are kept alike by the
//! signals that [`Store::take`], [`Store::look_up`] and [`Store::sweep`] give out for the others: so the two directions of
//! a connection, or of a bundle of links, may come by different ones.
//!
//! The order of calls in a turn: [`Store::take`] for every signal that came, [`Store::prefetch`] for a burst's keys,
//! [`Store::look_up`] for each, and [`Store::sweep`] once.
//!
//! **What an attacker can do.** A key is added by a traffic manager's signal, or by packets in two ways. A choice
//! ([`Lifetime::Chosen`]) for a new key: of them there are at most half as many as places, and each is gone after
//! [`KEY_CHOSEN_TIMEOUT`] unless its traffic manager confirms it. And an expected key, which the first packet that fits
//! uses up: the full key takes the very place of it, so however many packets come, there are no more keys than before.
//! A full store refuses, and never gives up a key for another before its time is over. Where keys lie depends on a
//! secret of this process.
//!
//! **Time** is counted in ticks of 100 ms, and nothing ends before its time. Of an idle limit one tick is rounding, and
//! another distributor hears of a key's use up to a quarter of the limit late; so limits are a few seconds at least.

#[cfg(test)]
mod model;
pub mod state;
#[cfg(test)]
mod tests;

use crate::base::ids::ShardId;
use crate::base::limits::{
    KEY_CHOSEN_TIMEOUT, KEY_CLOSING_TIMEOUT, KEYS_CHOSEN_SHARE, KEYS_SWEPT_MAX, SHARDS,
};
use crate::base::memory::{NoMemory, Plain, Slab};
use crate::base::time::{Duration, Instant};
use crate::distributor::shape::Shape;
use crate::distributor::signal::{Lifetime, Sides, Signal, What};
use crate::flow::image::Imager;
use crate::flow::index::{Index, Spot};
use crate::flow::key::{Address, Key};

pub use state::State;
use state::{Action, Use};

/// Length of a tick.
const TICK: Duration = Duration::from_millis(100);
/// A limit that is never reached.
const NO_LIMIT: u32 = u32::MAX;
/// No place.
const NONE: u32 = u32::MAX;
/// A key's use is told to the others when this part of its idle limit has gone by since they heard of it last.
const TOLD_SHARE: u32 = 4;

/// One line.
#[derive(Clone, Copy, Debug, Plain)]
#[repr(C, align(64))]
struct Entry {
    key: Key,
    shard: u16,
    shape: Shape,
    state: State,
    sides: Sides,
    /// The tick when it was last used or, where use prolongs nothing, when its time began.
    last: u32,
    /// Ticks after `last` until its time is over.
    limit: u32,
    /// The tick when the other distributors last heard of its use.
    told: u32,
    /// Of an empty place: the next one.
    next: u32,
}

const _: () = assert!(size_of::<Entry>() == 64);

impl Entry {
    const EMPTY: Entry = Entry {
        key: Key {
            src: Address::UNSPECIFIED,
            dst: Address::UNSPECIFIED,
            src_port: 0,
            dst_port: 0,
            vlan: 0,
            protocol: 0,
        },
        shard: 0,
        shape: Shape::Full,
        state: State::Absent,
        sides: Sides::Both,
        last: 0,
        limit: 0,
        told: 0,
        next: NONE,
    };

    /// Whether its time is over. The tick in which it was last used counts whole.
    fn is_over(&self, tick: u32) -> bool {
        self.limit != NO_LIMIT && tick.saturating_sub(self.last) > self.limit
    }

    /// A signal about it.
    fn signal(&self, what: What) -> Signal {
        let (key, shape, sides) = (self.key, self.shape, self.sides);
        Signal { what, shape, key, shard: ShardId(self.shard), sides, mirror: false }
    }

    /// What another distributor has to be told, so that it knows as much.
    fn known(&self, tick: u32) -> Option<Signal> {
        let what = match self.state {
            State::Absent => return None,
            State::Chosen => What::Memorize(Lifetime::Chosen),
            State::Held => What::Memorize(Lifetime::Held),
            State::Idle => What::Memorize(Lifetime::Idle(span(self.limit))),
            State::Expected => {
                let left = self.limit.saturating_sub(tick.saturating_sub(self.last));
                What::Memorize(Lifetime::Once(span(left)))
            }
            // One that does not know it has nothing to forget.
            State::Closing => What::Age,
            State::Ignored => What::Ignore,
        };
        Some(self.signal(what))
    }
}

/// What a store says of a packet's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Found {
    /// Nothing: its hash decides, or a choice is to be made.
    Nothing,
    /// It belongs to this shard.
    Shard(ShardId),
    /// It belongs to this shard: a traffic manager said that it has a flow of this very key.
    Flow(ShardId),
    /// It belongs to this shard: a distributor chose it, and the traffic manager has not spoken yet.
    Chosen(ShardId),
    /// Its hash decides, and no choice is to be made.
    Ignored,
    /// It was expected and belongs to this shard. The full key has taken the expected one's place.
    Learned {
        /// The shard.
        shard: ShardId,
        /// What the other distributors are to be told, in this order: to memorize the full key, to forget the other.
        signals: [Signal; 2],
    },
}

/// What a signal led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Took {
    /// What became of it here.
    pub outcome: Outcome,
    /// What is to be passed on to all other distributors of the appliance that its sides name. Also when there was
    /// no room here: they may have it.
    pub pass_on: Option<Signal>,
}

/// What became of a signal here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// There was nothing to do: the key is not known, or belongs to another shard by now, or a traffic manager's word
    /// stands against a distributor's choice.
    Unchanged,
    /// The key is not in the store and no room is left for it, or none for choices. To be counted.
    Full,
}

/// A key as it is known: what is shown to operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its place, for asking on from there.
    pub place: u32,
    /// The key; fields that do not count are zero.
    pub key: Key,
    /// Which fields count.
    pub shape: Shape,
    /// How it stands; never [`State::Absent`].
    pub state: State,
    /// The shard that it belongs to.
    pub shard: ShardId,
    /// The distributors that it is for.
    pub sides: Sides,
    /// How long since it was last used or, where use prolongs nothing, since its time began; in whole ticks.
    pub idle: Duration,
    /// How long until it ends unless it is used; `None`: by a signal only.
    pub left: Option<Duration>,
}

/// The connection store of one distributor.
pub struct Store {
    entries: Slab<Entry>,
    index: Index,
    imager: Imager,
    /// Places below this have been in use.
    used: u32,
    /// The first of the empty places among them.
    free: u32,
    len: u32,
    lens: [u32; Shape::ORDER.len()],
    /// Keys for which distributors chose.
    chosen: u32,
    /// The place that a sweep looks at next.
    hand: u32,
    /// The place that is looked at next when room is needed.
    room_hand: u32,
}

impl Store {
    /// An empty store for so many keys: 64 bytes each, and 9 of the index; all of it reserved now. The seed, from the
    /// operating system in production, decides where keys lie.
    pub fn new(capacity: u32, hash_seed: u64) -> Result<Store, NoMemory> {
        Ok(Store {
            entries: Slab::new(capacity as usize)?,
            index: Index::new(capacity as usize)?,
            imager: Imager::with_seed(hash_seed),
            used: 0,
            free: NONE,
            len: 0,
            lens: [0; Shape::ORDER.len()],
            chosen: 0,
            hand: 0,
            room_hand: 0,
        })
    }

    /// Has memory put behind all of it, so that no packet waits for that.
    pub fn populate(&self) {
        self.entries.populate();
        self.index.populate();
    }

    /// Whether it holds no key: then no packet need ask.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keys that it holds; some may have timed out since the last sweep came by.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Keys that it holds of one shape. Shapes without keys cost packets nothing.
    pub const fn len_of(&self, shape: Shape) -> u32 {
        self.lens[shape as usize]
    }

    /// Keys for which distributors chose, and no traffic manager has spoken yet.
    pub const fn chosen(&self) -> u32 {
        self.chosen
    }

    /// Keys that it can hold.
    pub fn capacity(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Asks for the memory that the look-up of this key will need first.
    #[inline]
    pub fn prefetch(&self, key: &Key) {
        if self.is_empty() {
            return;
        }
        for shape in Shape::ORDER {
            if self.len_of(shape) != 0 {
                self.index.prefetch(self.spot(shape, &shape.of(key)));
            }
        }
    }

    /// Which shard a packet of this key belongs to. The packet counts as a use of the key, unless it is one of those that
    /// neither create nor refresh, such as later fragments and ICMP errors (REQ D8): these learn nothing either.
    #[inline]
    pub fn look_up(&mut self, now: Instant, key: &Key, refreshes: bool) -> Found {
        if self.is_empty() { Found::Nothing } else { self.look_up_in_order(tick_of(now), key, refreshes) }
    }

    fn look_up_in_order(&mut self, tick: u32, key: &Key, refreshes: bool) -> Found {
        for shape in Shape::ORDER {
            if self.len_of(shape) == 0 {
                continue;
            }
            let Some(place) = self.find(tick, shape, &shape.of(key)) else { continue };
            let entry = &mut self.entries[place as usize];
            let shard = ShardId(entry.shard);
            let found = match entry.state {
                State::Chosen => Found::Chosen(shard),
                State::Held | State::Closing if shape == Shape::Full => Found::Flow(shard),
                State::Absent
                | State::Held
                | State::Idle
                | State::Expected
                | State::Closing
                | State::Ignored => Found::Shard(shard),
            };
            return match (entry.state.on_packet().1, refreshes) {
                (Use::Nothing, _) => continue,
                (Use::PassOver, _) => Found::Ignored,
                (Use::Follow, _) | (Use::Refresh | Use::Learn, false) => found,
                (Use::Refresh, true) => {
                    entry.last = tick;
                    found
                }
                (Use::Learn, true) => match self.learn(tick, place, key) {
                    Some(signals) => Found::Learned { shard, signals },
                    // The index has no room near the full key's place: the expected one stays and serves.
                    None => found,
                },
            };
        }
        Found::Nothing
    }

    /// Puts a full key, of which nothing is known, in the place of an expected one (REQ D7). What the others are to be
    /// told, to memorize it and to forget the expected one; `None`: the index had no room for it, and nothing changed.
    fn learn(&mut self, tick: u32, place: u32, full: &Key) -> Option<[Signal; 2]> {
        if !self.index.insert(self.spot(Shape::Full, full), place) {
            return None;
        }
        let expected = self.entries[place as usize];
        self.index.remove(self.spot(expected.shape, &expected.key), place);
        self.lens[expected.shape as usize] -= 1;
        self.lens[Shape::Full as usize] += 1;
        let limit = ticks(KEY_CHOSEN_TIMEOUT);
        let learned = Entry { key: *full, shape: Shape::Full, last: tick, told: tick, limit, ..expected };
        self.entries[place as usize] = learned;
        self.set_state(place, State::Chosen);
        Some([learned.signal(What::Memorize(Lifetime::Chosen)), expected.signal(What::Forget)])
    }

    /// Does what a signal wants.
    pub fn take(&mut self, now: Instant, signal: &Signal) -> Took {
        debug_assert!(usize::from(signal.shard.0) < SHARDS);
        let tick = tick_of(now);
        let key = signal.shape.of(&signal.key);
        let what = match (signal.what, signal.shape) {
            (What::Memorize(Lifetime::Once(limit)), Shape::Full) => What::Memorize(Lifetime::Idle(limit)),
            (what, _) => what,
        };
        let signal = Signal { what, key, ..*signal };
        let place = self.find(tick, signal.shape, &key);
        let state = place.map_or(State::Absent, |place| self.entries[place as usize].state);
        let (next, action) =
            if self.is_stale(place, &signal) { (state, Action::Nothing) } else { state.on(what) };
        let copy = signal.mirror.then_some(Signal { mirror: false, ..signal });
        let (outcome, pass_on) = match (action, place) {
            (Action::Tell, Some(place)) => (Outcome::Done, self.entries[place as usize].known(tick)),
            // Of what is not known there is nothing to tell.
            (Action::Nothing, None) if what == What::Mirror => (Outcome::Unchanged, None),
            (Action::Nothing, _) => (Outcome::Unchanged, copy),
            (Action::Keep, None) => (self.add(tick, next, &signal), copy),
            (action, Some(place)) => {
                self.change(tick, place, next, action, &signal);
                (Outcome::Done, copy)
            }
            // What is absent can only be kept.
            (Action::Contend | Action::Refresh | Action::Close | Action::Remove | Action::Tell, None) => {
                (Outcome::Unchanged, copy)
            }
        };
        Took { outcome, pass_on }
    }

    /// Whether a signal is of an owner before.
    fn is_stale(&self, place: Option<u32>, signal: &Signal) -> bool {
        let Some(place) = place else { return false };
        let entry = &self.entries[place as usize];
        match signal.what {
            What::Forget | What::Age | What::Used => {
                entry.shard != signal.shard.0 && entry.state != State::Ignored
            }
            What::Memorize(_) | What::Ignore | What::Mirror => false,
        }
    }

    /// Changes what is known of a key.
    fn change(&mut self, tick: u32, place: u32, next: State, action: Action, signal: &Signal) {
        let entry = &mut self.entries[place as usize];
        match action {
            Action::Keep => {
                (entry.shard, entry.sides) = (signal.shard.0, signal.sides);
                (entry.last, entry.told, entry.limit) = (tick, tick, limit_of(signal.what));
            }
            Action::Contend => {
                entry.shard = entry.shard.min(signal.shard.0);
                entry.last = tick;
            }
            Action::Refresh => (entry.last, entry.told) = (tick, tick),
            Action::Close => {
                let left = match entry.limit {
                    NO_LIMIT => NO_LIMIT,
                    limit => limit.saturating_sub(tick.saturating_sub(entry.last)),
                };
                (entry.last, entry.limit) = (tick, left.min(ticks(KEY_CLOSING_TIMEOUT)));
            }
            Action::Remove => return self.remove(place),
            Action::Nothing | Action::Tell => {}
        }
        self.set_state(place, next);
    }

    /// Gives a key a place, if there is one.
    fn add(&mut self, tick: u32, state: State, signal: &Signal) -> Outcome {
        let spot = self.spot(signal.shape, &signal.key);
        let place = match self.take_place(tick, state) {
            Some(place) if self.index.insert(spot, place) => place,
            Some(place) => {
                self.give_place(place);
                return Outcome::Full;
            }
            None => return self.take_expected_place(tick, state, signal),
        };
        self.entries[place as usize] = Entry {
            key: signal.key,
            shard: signal.shard.0,
            shape: signal.shape,
            state: State::Absent,
            sides: signal.sides,
            last: tick,
            limit: limit_of(signal.what),
            told: tick,
            next: NONE,
        };
        self.len += 1;
        self.lens[signal.shape as usize] += 1;
        self.set_state(place, state);
        Outcome::Done
    }

    /// What another distributor learned finds no room here: but here too the key was expected, and its place is to be
    /// had. It would be forgotten next.
    fn take_expected_place(&mut self, tick: u32, state: State, signal: &Signal) -> Outcome {
        if state == State::Chosen && signal.shape == Shape::Full {
            for shape in Shape::ORDER {
                let Some(place) = self.find(tick, shape, &shape.of(&signal.key)) else { continue };
                let entry = self.entries[place as usize];
                let is_the_same = entry.state == State::Expected && entry.shard == signal.shard.0;
                if is_the_same && self.learn(tick, place, &signal.key).is_some() {
                    return Outcome::Done;
                }
            }
        }
        Outcome::Full
    }

    /// Looks at a bounded number of places for keys whose time is over and forgets them; to be called once a turn. If it
    /// comes by a key that packets came for and the other distributors have not heard of that for a while, what they are to
    /// be told: a key that only one of them sees must not be forgotten by the others.
    pub fn sweep(&mut self, now: Instant) -> Option<Signal> {
        if self.is_empty() {
            return None;
        }
        let tick = tick_of(now);
        for _ in 0..KEYS_SWEPT_MAX.min(self.used) {
            let place = self.hand;
            self.hand = self.place_after(place);
            self.forget_if_over(tick, place);
            let entry = &mut self.entries[place as usize];
            let is_untold = entry.state == State::Idle
                && entry.last > entry.told
                && tick.saturating_sub(entry.told) >= entry.limit / TOLD_SHARE;
            if is_untold {
                entry.told = tick;
                return Some(entry.signal(What::Used));
            }
        }
        None
    }

    /// The keys in so many places from this one on; the next ones are asked for from `from + places` on, as long as that
    /// is below [`Store::capacity`].
    pub fn entries(&self, now: Instant, from: u32, places: u32) -> impl Iterator<Item = Known> {
        let tick = tick_of(now);
        let end = from.saturating_add(places).min(self.used);
        (from..end).filter_map(move |place| {
            let entry = &self.entries[place as usize];
            let idle = tick.saturating_sub(entry.last);
            (entry.state != State::Absent && !entry.is_over(tick)).then(|| Known {
                place,
                key: entry.key,
                shape: entry.shape,
                state: entry.state,
                shard: ShardId(entry.shard),
                sides: entry.sides,
                idle: span(idle),
                left: (entry.limit != NO_LIMIT).then(|| span(entry.limit - idle)),
            })
        })
    }

    /// Where a key of a shape belongs in the index.
    fn spot(&self, shape: Shape, key: &Key) -> Spot {
        // Keys of two shapes may look alike; they are told apart by the entry. An odd number far from any pattern keeps
        // them out of each other's buckets.
        let apart = (shape as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.index.spot(self.imager.hash(self.imager.of(key)) ^ apart)
    }

    /// The place of a key, if it is known and its time is not over. If it is over, the key is forgotten.
    fn find(&mut self, tick: u32, shape: Shape, key: &Key) -> Option<u32> {
        let spot = self.spot(shape, key);
        let place = self.index.find(spot, |place| {
            let entry = &self.entries[place as usize];
            entry.shape == shape && entry.key == *key
        })?;
        self.forget_if_over(tick, place);
        (self.entries[place as usize].state != State::Absent).then_some(place)
    }

    fn forget_if_over(&mut self, tick: u32, place: u32) {
        let entry = &self.entries[place as usize];
        if entry.is_over(tick) && entry.state.on_time_out().1 == Action::Remove {
            self.remove(place);
        }
    }

    /// An empty place, if there is one for a key in this state; without one, a bounded number of places is looked
    /// at for keys whose time is over.
    fn take_place(&mut self, tick: u32, state: State) -> Option<u32> {
        if !self.has_room(state) {
            for _ in 0..KEYS_SWEPT_MAX.min(self.used) {
                let place = self.room_hand;
                self.room_hand = self.place_after(place);
                self.forget_if_over(tick, place);
                if self.has_room(state) {
                    break;
                }
            }
        }
        if !self.has_room(state) {
            return None;
        }
        if self.free != NONE {
            let place = self.free;
            self.free = self.entries[place as usize].next;
            return Some(place);
        }
        self.used += 1;
        Some(self.used - 1)
    }

    fn has_room(&self, state: State) -> bool {
        let may_be_chosen = state != State::Chosen || self.chosen < self.capacity() / KEYS_CHOSEN_SHARE;
        self.len < self.capacity() && may_be_chosen
    }

    fn give_place(&mut self, place: u32) {
        self.entries[place as usize] = Entry { next: self.free, ..Entry::EMPTY };
        self.free = place;
    }

    fn remove(&mut self, place: u32) {
        let Entry { key, shape, .. } = self.entries[place as usize];
        self.set_state(place, State::Absent);
        self.index.remove(self.spot(shape, &key), place);
        self.len -= 1;
        self.lens[shape as usize] -= 1;
        self.give_place(place);
    }

    fn set_state(&mut self, place: u32, state: State) {
        let entry = &mut self.entries[place as usize];
        self.chosen += u32::from(state == State::Chosen);
        self.chosen -= u32::from(entry.state == State::Chosen);
        entry.state = state;
    }

    const fn place_after(&self, place: u32) -> u32 {
        if place + 1 >= self.used { 0 } else { place + 1 }
    }
}

/// The tick of a point in time: enough of them for thirteen years.
fn tick_of(now: Instant) -> u32 {
    u32::try_from(now.nanos() / TICK.nanos()).unwrap_or(u32::MAX)
}

/// A span in whole ticks, rounded up. One too long to count is the longest that ends.
fn ticks(span: Duration) -> u32 {
    u32::try_from(span.nanos().div_ceil(TICK.nanos())).unwrap_or(NO_LIMIT).min(NO_LIMIT - 1)
}

fn span(ticks: u32) -> Duration {
    TICK * u64::from(ticks)
}

/// How many ticks a key stands after this signal.
fn limit_of(what: What) -> u32 {
    match what {
        What::Memorize(Lifetime::Chosen) => ticks(KEY_CHOSEN_TIMEOUT),
        What::Memorize(Lifetime::Idle(limit) | Lifetime::Once(limit)) => ticks(limit),
        What::Memorize(Lifetime::Held) | What::Ignore => NO_LIMIT,
        // They keep no key.
        What::Forget | What::Age | What::Mirror | What::Used => NO_LIMIT,
    }
}
