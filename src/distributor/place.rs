//! Which shard a packet belongs to where its hash does not say it: what the connection store knows, and what is chosen
//! (REQ D1, D2, D3, D6, D7, D9).
//!
//! Every lcore has a [`Placer`] of its own, whose store is a replica: what one puts into it, it tells all the others.
//!
//! * The *home* of a key is the worker that owns the shard of its hash. Only the home chooses, so no two choose for one
//!   key; what nobody knows goes there.
//! * A store maps keys to shards, not to workers: moving a shard changes no store, and a standby with another number of
//!   workers fills its stores from the same flows.
//! * The traffic manager that makes a flow says so of each of its keys that the hash would lead elsewhere, or that was
//!   chosen for, and takes that back when the flow ends. Then another choice may be made, and not before.

use std::collections::VecDeque;

use crate::base::counters::{Counter, Counters};
use crate::base::ids::{PortId, ShardId, WorkerId};
use crate::base::limits::TOLD_WAITING_MAX;
use crate::base::memory::NoMemory;
use crate::base::time::{Duration, Instant};
use crate::config::checked::{Checked, ChosenMethod, HashMethod, Method};
use crate::distributor::named::Named;
use crate::distributor::select::{Asked, Load, Selector};
use crate::distributor::shape::Shape;
use crate::distributor::signal::{Lifetime, Sides, Signal, What};
use crate::distributor::store::{Found, Outcome, Store};
use crate::distributor::tell::{Tell, Told};
use crate::distributor::zones::{Nodes, Zones};
use crate::flow::key::Key;
use crate::flow::shard::Owners;

/// Between two reports of a traffic manager's load.
const LOAD_INTERVAL: Duration = Duration::from_millis(10);

/// Signals that one packet can lead to: a choice and two keys, or what was learned and two keys.
const SIGNALS_OF_A_PACKET: usize = 4;

/// Which shard a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// That of its hash, as far as is known here.
    Natural,
    /// That of its hash, and no choice is to be made.
    Ignored,
    /// This one, where it may begin a flow: it was expected, or a less specific key says so.
    Fresh(ShardId),
    /// This one, at the home of its key, and elsewhere as if nothing was known: it was chosen, and its flow is not there yet.
    /// Whatever takes another way could come before the packet that begins it.
    Chosen(ShardId),
    /// This one, where its flow is.
    Known(ShardId),
}

/// What a [`Placer`] is made from.
#[derive(Clone, Copy)]
pub struct PlacerSetup<'a> {
    /// Which lcore it is for, by its number among all workers.
    pub me: WorkerId,
    /// The configuration.
    pub config: &'a Checked,
    /// From the operating system in production.
    pub hash_seed: u64,
    /// The time now.
    pub now: Instant,
}

/// See the file's documentation.
pub struct Placer {
    me: WorkerId,
    /// `None`: every packet goes by its hash, and nothing has to be remembered.
    memory: Option<Box<Memory>>,
}

struct Memory {
    store: Store,
    selector: Selector,
    zones: Zones,
    /// What is in the store from the start.
    named: Named,
    /// How each virtual server's new keys are placed, by its place in the configuration.
    methods: Vec<Method>,
    /// What has not been told yet, oldest first.
    waiting: VecDeque<Told>,
    /// Whether this appliance serves: then every worker has said all that it knows.
    serves: bool,
    report_at: Instant,
    measured: Measured,
}

/// What a worker says of itself for its report.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Flows that it holds now.
    pub flows: u32,
    /// Packets that it had to forward since it began: [`Load::received`].
    pub received: u64,
    /// Packets that it sent: [`Load::completed`].
    pub completed: u64,
    /// The part of its time that it worked lately, of 1,000.
    pub busy_per_mille: u16,
}

/// What is kept between reports.
#[derive(Clone, Copy, Default)]
struct Measured {
    received: u64,
    completed: u64,
    received_per_s: f32,
    completed_per_s: f32,
    at: Instant,
}

impl Placer {
    /// Nothing is known yet.
    pub fn new(setup: PlacerSetup<'_>) -> Result<Placer, NoMemory> {
        let PlacerSetup { me, config, hash_seed, now } = setup;
        if !config.distributor.remembers {
            return Ok(Placer { me, memory: None });
        }
        let zones = Zones::new(config, &Nodes::default());
        let mut memory = Memory {
            store: Store::new(config.distributor.max_keys, hash_seed)?,
            selector: Selector::new(now, &config.distributor, zones.managers()),
            zones,
            named: Named::new(config),
            methods: config.virtual_servers.iter().map(|server| server.select).collect(),
            waiting: VecDeque::with_capacity(TOLD_WAITING_MAX),
            serves: false,
            report_at: now,
            measured: Measured { at: now, ..Measured::default() },
        };
        memory.store.populate();
        for signal in memory.named.signals() {
            // An empty store has room for more than can be configured.
            assert_eq!(memory.store.take(now, &signal).outcome, Outcome::Done, "{}", signal.key);
        }
        Ok(Placer { me, memory: Some(Box::new(memory)) })
    }

    /// Says on which NUMA nodes CPUs and ports are; before the first choice.
    pub fn know_nodes(&mut self, now: Instant, config: &Checked, nodes: &Nodes) {
        if let Some(memory) = &mut self.memory {
            memory.zones = Zones::new(config, nodes);
            memory.selector = Selector::new(now, &config.distributor, memory.zones.managers());
        }
    }

    /// From now on virtual servers, by their places in the configuration, have these methods; those until now are left there.
    pub fn change_methods(&mut self, methods: &mut Vec<Method>) {
        if let Some(memory) = &mut self.memory {
            core::mem::swap(&mut memory.methods, methods);
        }
    }

    /// Whether any packet may belong elsewhere than its hash says.
    #[inline(always)]
    pub fn is_in_use(&self) -> bool {
        self.memory.is_some()
    }

    /// Whether first packets for this virtual server, by its place in the configuration, go by the hash of their source, and
    /// nothing else is remembered.
    #[inline]
    pub fn is_plain(&self, listener: usize) -> bool {
        self.memory.as_ref().is_none_or(|memory| {
            memory.store.is_empty() && memory.methods.get(listener) == Some(&Method::Hash(HashMethod::Source))
        })
    }

    /// Whether this appliance serves, as far as the lcore knew before it last drained what others told.
    pub fn set_serves(&mut self, serves: bool) {
        if let Some(memory) = &mut self.memory {
            memory.serves = serves;
        }
    }

    /// How the traffic manager of a virtual server's new keys is chosen; `None`: by their hash.
    pub fn choice(&self, listener: usize) -> Option<ChosenMethod> {
        match self.memory.as_ref()?.methods.get(listener)? {
            Method::Chosen(method) => Some(*method),
            Method::Hash(_) => None,
        }
    }

    /// Asks for the memory that [`Placer::look_up`] will need.
    #[inline]
    pub fn prefetch(&self, key: &Key) {
        if let Some(memory) = &self.memory {
            memory.store.prefetch(key);
        }
    }

    /// Where a packet belongs. `refreshes`: it may create and refresh keys, as later fragments may not (REQ D8).
    #[inline]
    pub fn look_up(&mut self, now: Instant, key: &Key, refreshes: bool, counters: &Counters) -> Place {
        let Some(memory) = &mut self.memory else { return Place::Natural };
        match memory.store.look_up(now, key, refreshes) {
            Found::Nothing => Place::Natural,
            Found::Ignored => Place::Ignored,
            Found::Flow(shard) => Place::Known(shard),
            Found::Shard(shard) => Place::Fresh(shard),
            Found::Chosen(shard) => Place::Chosen(shard),
            Found::Learned { shard, signals } => {
                counters.bump(Counter::KeysLearned);
                memory.waiting.extend(signals.map(Told::Signal));
                Place::Fresh(shard)
            }
        }
    }

    /// Chooses the shard of a new key of a virtual server, and remembers it. `natural` is the shard of its hash, of which
    /// this worker is the owner.
    pub fn choose(
        &mut self,
        now: Instant,
        key: &Key,
        natural: ShardId,
        method: ChosenMethod,
        (dscp, port): (u8, PortId),
        owners: &Owners,
    ) -> Result<ShardId, Counter> {
        let me = self.me;
        let Some(memory) = &mut self.memory else { return Ok(natural) };
        // Until then a worker may still have flows of which it has not told.
        if !memory.serves {
            return Err(Counter::DropStandby);
        }
        let asked = Asked { dscp, zone: memory.zones.of_port(port) };
        let manager = memory.selector.select(now, method, asked);
        if manager == me {
            return Ok(natural);
        }
        // One without shards cannot hold flows.
        let Some(shard) = owners.nth_of(manager, natural.0.into()) else { return Ok(natural) };
        memory.memorize(now, key, shard, Lifetime::Chosen)?;
        Ok(shard)
    }

    /// Which shard a new flow gets whose key was found to belong to this one, which this worker owns. Where a configured key
    /// says so, any of the worker's shards will do, and one alone has few source-NAT ports.
    pub fn spread(&self, key: &Key, natural: ShardId, shard: ShardId, owners: &Owners) -> ShardId {
        let is_named = self.memory.as_ref().is_some_and(|memory| memory.named.leads(key, shard));
        let of_worker = || owners.nth_of(self.me, natural.0.into());
        if is_named { of_worker().unwrap_or(shard) } else { shard }
    }

    /// Whether packets of a flow of this shard may find it only if this key is remembered: its hash, which leads to `natural`, or a
    /// configured key may lead elsewhere.
    pub fn has_to_remember(&self, key: &Key, natural: ShardId, shard: ShardId) -> bool {
        natural != shard || self.memory.as_ref().is_some_and(|memory| memory.named.may_lead_past(key, shard))
    }

    /// Whether a packet's signals can all be told at once.
    pub fn has_room(&self, io: &impl Tell) -> bool {
        let Some(memory) = &self.memory else { return true };
        memory.waiting.is_empty() && io.room_to_tell() >= SIGNALS_OF_A_PACKET
    }

    /// Whether what so many flows' ends or beginnings lead to can wait to be told.
    pub fn can_wait(&self, flows: usize) -> bool {
        let Some(memory) = &self.memory else { return true };
        memory.waiting.len() + 2 * flows <= TOLD_WAITING_MAX
    }

    /// Whether a flow that a peer names can be held: two keys' places.
    pub fn may_hold(&self) -> bool {
        self.memory.as_ref().is_none_or(|memory| memory.store.len() + 2 <= memory.store.capacity())
    }

    /// This worker has a flow with these keys, which their hashes do not lead to: remembered until [`Placer::forget`].
    pub fn hold(&mut self, now: Instant, keys: &[Key], shard: ShardId) -> Result<(), Counter> {
        let Some(memory) = &mut self.memory else { return Ok(()) };
        for (done, key) in keys.iter().enumerate() {
            if let Err(counter) = memory.memorize(now, key, shard, Lifetime::Held) {
                keys[..done].iter().for_each(|key| memory.forget(now, key, shard));
                return Err(counter);
            }
        }
        Ok(())
    }

    /// The flow has ended.
    pub fn forget(&mut self, now: Instant, keys: &[Key], shard: ShardId) {
        let Some(memory) = &mut self.memory else { return };
        keys.iter().for_each(|key| memory.forget(now, key, shard));
    }

    /// Both ends of the flow have closed: its keys are forgotten before long, whatever else is told (REQ D8).
    pub fn age(&mut self, now: Instant, keys: &[Key], shard: ShardId) {
        let Some(memory) = &mut self.memory else { return };
        keys.iter().for_each(|key| memory.say(now, What::Age, key, shard));
    }

    /// Another lcore told this.
    pub fn hear(&mut self, now: Instant, told: &Told, counters: &Counters) {
        let Some(memory) = &mut self.memory else { return };
        match told {
            Told::Signal(signal) => {
                let took = memory.store.take(now, signal);
                memory.waiting.extend(took.pass_on.map(Told::Signal));
                if took.outcome == Outcome::Full {
                    counters.bump(Counter::KeysRefused);
                }
            }
            Told::Load { of, load } => memory.selector.report(now, *of, *load),
        }
    }

    /// Tells the others what there is to tell, as far as they have room; whether nothing is left.
    #[inline]
    pub fn flush(&mut self, io: &mut impl Tell) -> bool {
        let Some(memory) = &mut self.memory else { return true };
        while let Some(told) = memory.waiting.front() {
            if !io.tell_others(told) {
                return false;
            }
            memory.waiting.pop_front();
        }
        true
    }

    /// Once a turn: forgets what timed out, and tells.
    pub fn poll(&mut self, now: Instant, io: &mut impl Tell) -> bool {
        if let Some(memory) = &mut self.memory
            && let Some(used) = memory.store.sweep(now)
            && memory.waiting.len() < TOLD_WAITING_MAX
        {
            memory.waiting.push_back(Told::Signal(used));
        }
        self.flush(io)
    }

    /// Reports this worker's load to all that choose, every 10 ms.
    pub fn report(&mut self, now: Instant, of: Work) {
        let me = self.me;
        let Some(memory) = &mut self.memory else { return };
        if now < memory.report_at {
            return;
        }
        memory.report_at = now + LOAD_INTERVAL;
        let load = memory.measured.report(now, of);
        memory.selector.report(now, me, load);
        if memory.waiting.len() < TOLD_WAITING_MAX / 2 {
            memory.waiting.push_back(Told::Load { of: me, load });
        }
    }

    /// The connection store, for reports; `None`: nothing has to be remembered.
    pub fn store(&self) -> Option<&Store> {
        self.memory.as_ref().map(|memory| &memory.store)
    }
}

impl Memory {
    fn say(&mut self, now: Instant, what: What, key: &Key, shard: ShardId) {
        let signal = signal_of(what, key, shard);
        let _ = self.store.take(now, &signal);
        self.waiting.push_back(Told::Signal(signal));
    }

    fn memorize(
        &mut self,
        now: Instant,
        key: &Key,
        shard: ShardId,
        lifetime: Lifetime,
    ) -> Result<(), Counter> {
        let signal = signal_of(What::Memorize(lifetime), key, shard);
        if self.store.take(now, &signal).outcome == Outcome::Full {
            return Err(Counter::DropKeysFull);
        }
        self.waiting.push_back(Told::Signal(signal));
        Ok(())
    }

    fn forget(&mut self, now: Instant, key: &Key, shard: ShardId) {
        self.say(now, What::Forget, key, shard);
    }
}

fn signal_of(what: What, key: &Key, shard: ShardId) -> Signal {
    Signal { what, shape: Shape::Full, key: *key, shard, sides: Sides::Both, mirror: false }
}

impl Measured {
    /// Rates are over about the last second: each report counts for its part of it.
    fn report(&mut self, now: Instant, of: Work) -> Load {
        let Work { flows, received, completed, busy_per_mille } = of;
        let span = ((now - self.at).micros() as f32 / 1e6).max(1e-6);
        let part = span.min(1.0);
        let of_received = (received - self.received) as f32 / span;
        let of_completed = (completed - self.completed) as f32 / span;
        self.received_per_s += (of_received - self.received_per_s) * part;
        self.completed_per_s += (of_completed - self.completed_per_s) * part;
        (self.received, self.completed, self.at) = (received, completed, now);
        let (received, completed) = (self.received_per_s as u32, self.completed_per_s as u32);
        Load { flows, received, completed, busy_per_mille }
    }
}
