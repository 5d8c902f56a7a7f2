//! The checkers: what must hold in every run, whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use baton::base::counters::Counter;
use baton::base::ids::{NodeId, Term, id_of_name};
use baton::base::spans::Spans;
use baton::failover::FailoverEvent;
use baton::flow::{Flow, Key};
use baton::mirror::header::Header;
use baton::mirror::{Kept, StreamStatus};

use crate::agenda::{MS, Nanos};
use crate::appliance::{Protected, Sessions};
use crate::client::Outcome;
use crate::config::{SERVICES, TRACKED};
use crate::flows::Sight;
use crate::kind::Kind;
use crate::ports;
use crate::world::World;

/// More are not kept.
const VIOLATIONS_MAX: usize = 12;
/// Claims end within this after a partition: a takeover time and a heartbeat.
const PARTITION_ENDS: Nanos = 60 * MS;

#[derive(Default)]
pub struct Checks {
    pub violations: Vec<(Nanos, String)>,
    /// One served and the other was in sync, for the first time.
    pub settled: bool,
    pub fair_since: Option<Nanos>,
    pub probes: Vec<u64>,
    /// Connections that were protected when a fault struck.
    pub promised: BTreeSet<u64>,
    /// Those that were open when the last one crashed that knew them.
    pub given_up: BTreeSet<u64>,
    /// Connections that were promised when nobody was left but one that tracks a part.
    pub carried_on: u64,
    /// The newest term in which a service frame was sent, and by whom.
    sender: Option<(Term, usize)>,
    partitioned: bool,
    partition_over_at: Nanos,
    /// From when to when nobody could follow anybody.
    partitions: Vec<(Nanos, Nanos)>,
    promotions: Vec<Promotion>,
    /// Somebody was in sync when the newest fault struck.
    followed_at_fault: bool,
    /// From when to when nobody was in sync with whoever served.
    alone: Vec<(Nanos, Nanos)>,
    /// The newest sequence of each sealed stream of a life, and how often it began anew.
    sealed: BTreeMap<(usize, u64, u64, u32), (u64, u64)>,
    hold_timeouts: u64,
    digests_differ: u64,
    /// Promotions after one had served with all others in sync.
    pub takeovers: u64,
    /// Records of flows that standbys refused for want of room.
    pub refused: u64,
    /// Flows that were mirrored and are left out, as rules and operators say.
    pub left_out: u64,
}

struct Promotion {
    at: Nanos,
    node: usize,
    is_degraded: bool,
    /// Somebody was in sync when the newest fault struck.
    was_followed: bool,
}

impl Checks {
    pub fn violate(&mut self, now: Nanos, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push((now, what));
        }
    }

    /// A service packet leaves an appliance that leads, or led, in this term.
    pub fn service_frame(&mut self, now: Nanos, at: usize, led: Term) {
        let Some((newest, by)) = self.sender else {
            self.sender = Some((led, at));
            return;
        };
        if led > newest {
            self.sender = Some((led, at));
        } else if by != at && !self.partitioned && now >= self.partition_over_at {
            let what = format!("node {} sends in term {led} after node {} in {newest}", at + 1, by + 1);
            if !self.violations.iter().any(|(_, known)| *known == what) {
                self.violate(now, what);
            }
        }
    }

    /// A service packet leaves an appliance while another one may send, too.
    pub fn second_sender(&mut self, now: Nanos, at: usize, other: usize) {
        let what = format!("node {} sends while node {} may", at + 1, other + 1);
        if !self.violations.iter().any(|(_, known)| *known == what) {
            self.violate(now, what);
        }
    }

    /// A worker did what no worker should do.
    pub fn complain(&mut self, now: Nanos, at: usize, complaint: &str) {
        self.violate(now, format!("node {}: {complaint}", at + 1));
    }

    /// A packet leaves an appliance behind one of its flow and direction that came after it.
    pub fn overtaken(&mut self, now: Nanos, at: usize, sight: &Sight) {
        let key = sight.key;
        self.violate(now, format!("node {}: a packet of {key} leaves out of its turn", at + 1));
    }

    /// A full partition begins or ends.
    pub fn partition(&mut self, now: Nanos, begins: bool) {
        if self.partitioned && !begins {
            self.partition_over_at = now + PARTITION_ENDS;
            self.partitions.last_mut().into_iter().for_each(|last| last.1 = self.partition_over_at);
        } else if begins && !self.partitioned {
            self.partitions.push((now, Nanos::MAX));
        }
        self.partitioned = begins;
    }

    pub fn happened(&mut self, now: Nanos, at: usize, event: &FailoverEvent) {
        if let FailoverEvent::Promoted { degraded, .. } = event
            && self.settled
        {
            let was_followed = self.followed_at_fault;
            self.promotions.push(Promotion { at: now, node: at, is_degraded: *degraded, was_followed });
            self.takeovers += 1;
        }
    }

    /// Somebody is in sync with whoever serves, or nobody.
    pub fn followed(&mut self, now: Nanos, is_followed: bool) {
        match self.alone.last_mut() {
            Some((_, until)) if *until == Nanos::MAX && is_followed => *until = now,
            Some((_, Nanos::MAX)) => {}
            Some(_) | None if is_followed => {}
            Some(_) | None => self.alone.push((now, Nanos::MAX)),
        }
    }

    /// A frame leaves an appliance: no sealed stream uses a sequence twice under one key.
    ///
    /// `sessions`: under how many sessions streams to each node were opened.
    pub fn sealed_frame(
        &mut self,
        now: Nanos,
        life: (usize, u64),
        sessions: Option<&Sessions>,
        frame: &[u8],
    ) {
        let u64_at =
            |at: usize| frame.get(at..at + 8).map(|b| u64::from_be_bytes(b.try_into().expect("8 bytes")));
        let (key, sequence, lives) = match frame.get(12..14) {
            Some([0x88, 0xb5]) if frame.get(17) == Some(&3) => {
                let stream =
                    frame.get(30..34).map_or(0, |b| u32::from_be_bytes(b.try_into().expect("4 bytes")));
                let (Some(session), Some(sequence)) = (u64_at(22), u64_at(34)) else { return };
                ((life.0, life.1, session, stream), sequence, 1)
            }
            Some([0x08, 0x00])
                if frame.get(23) == Some(&17) && frame.get(36..38) >= Some(&[0x1c, 0x84][..]) =>
            {
                let Some(header) = frame.get(42..).and_then(Header::read) else { return };
                // Mirror addresses end in the node's number.
                let to = frame.get(33).copied().unwrap_or_default();
                let lives = sessions
                    .and_then(|sessions| sessions.get(&NodeId(to.into())))
                    .copied()
                    .unwrap_or_default();
                let stream = u32::from(header.stream) | 1 << 31;
                ((life.0, life.1, u64::from(to), stream), header.sequence, lives)
            }
            _ => return,
        };
        let Some((newest, begun)) = self.sealed.get_mut(&key) else {
            self.sealed.insert(key, (sequence, 1));
            return;
        };
        if sequence > *newest {
            *newest = sequence;
        } else if *begun < lives {
            (*newest, *begun) = (sequence, *begun + 1);
        } else {
            let what =
                format!("stream {:#x} of node {}: sequence {sequence} after {newest}", key.3, life.0 + 1);
            self.violate(now, what);
        }
    }

    /// A life ends: what it counted counts.
    pub fn retire(&mut self, appliance: &crate::appliance::Appliance) {
        self.hold_timeouts += appliance.count(Counter::HoldTimeouts);
        self.digests_differ += appliance.count(Counter::MirrorDigestDiffers);
        self.refused += appliance.count(Counter::MirrorRecordTableFull);
        self.left_out += appliance.count(Counter::FlowsLeftOut);
    }
}

/// Now and then: what the active takes for protected, every standby in sync knows; and nothing is kept beyond its limit.
pub fn look(world: &mut World) {
    bounded(world);
    let group = world.group();
    world.checks.followed(world.agenda.now, group.is_some());
    let Some((active, standbys)) = group else { return };
    protected(world, active, &standbys);
    ports::look(world, active, &standbys);
}

/// Nothing that workers keep is more than it may be.
fn bounded(world: &mut World) {
    let World { nodes, agenda, checks, .. } = world;
    for (at, up) in nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.up.as_ref()?))) {
        for (worker, Kept { what, count, limit }) in up.kept().filter(|(_, kept)| kept.count > kept.limit) {
            let node = at + 1;
            checks.violate(agenda.now, format!("node {node} worker {worker}: {count} {what}, of {limit}"));
        }
    }
}

/// A fault is about to strike: whoever is protected now, is promised to live on.
pub fn before_fault(world: &mut World) {
    one_manager(world, false);
    bounded(world);
    let group = world.group();
    world.checks.followed_at_fault = group.is_some();
    let Some((active, standbys)) = group else { return };
    let protected = protected(world, active, &standbys);
    ports::look(world, active, &standbys);
    if !world.scenario.kind.is_single() {
        return;
    }
    let ends: BTreeSet<_> =
        protected.iter().map(|key| ((key.src.ip(), key.src_port), (key.dst.ip(), key.dst_port))).collect();
    let promised: Vec<u64> = world
        .connections()
        .filter(|c| c.is_live())
        .filter(|c| {
            let (local, remote) = (c.end.local, c.end.remote);
            ends.contains(&((local.ip(), local.port()), (remote.ip(), remote.port())))
        })
        .map(|c| c.plan.id)
        .collect();
    world.say(|| format!("** {} connections are protected", promised.len()));
    if world.scenario.kind == Kind::FlowsChosen {
        // What was protected before the crash may have been left out before the switchover.
        world.checks.promised.clear();
    }
    world.checks.promised.extend(promised);
}

/// The client's keys of all flows that the active takes for protected; the tables of those in sync are
/// held against them.
fn protected(world: &mut World, active: usize, standbys: &[usize]) -> Vec<Key> {
    let World { nodes, agenda, checks, .. } = world;
    let Some(appliance) = nodes[active].up.as_mut() else { return Vec::new() };
    let protected = appliance.protected(agenda);
    for standby in standbys {
        let Some(follower) = nodes[*standby].up.as_ref() else { return Vec::new() };
        let known: BTreeMap<Key, _> =
            follower.flows().map(|flow| (flow.client, (flow.server, flow.changed))).collect();
        for Protected { client, server, confirmed } in &protected {
            let it = known.get(client);
            if it.is_none_or(|(as_server, changed)| as_server != server || *confirmed > Some(*changed)) {
                let what = match it {
                    Some((other, changed)) => format!("as {other}, {changed:?}, not {confirmed:?}"),
                    None => "not at all".to_owned(),
                };
                let node = standby + 1;
                checks.violate(
                    agenda.now,
                    format!("protected flow {client} as {server}: standby {node} knows it {what}"),
                );
            }
        }
    }
    protected.into_iter().map(|flow| flow.client).collect()
}

/// How the tables of the active and of a standby differ, if they do.
pub fn difference(world: &World) -> Option<String> {
    let Some((active, standbys)) = world.group() else { return Some("nobody is in sync".to_owned()) };
    let table = |at: usize| -> BTreeMap<Key, _> {
        let flows = world.nodes[at].up.iter().flat_map(|up| up.flows()).filter(|flow| flow.is_mirrored());
        flows
            .map(|flow| {
                let Flow { client, server, server_id, changed, virtual_server, .. } = flow;
                (client, (server, server_id, changed, flow.tcp.after_takeover(), virtual_server))
            })
            .collect()
    };
    let all = table(active);
    let partial = world.partial_follower();
    standbys.into_iter().chain(partial).find_map(|standby| {
        let (mut ours, theirs, node) = (all.clone(), table(standby), standby + 1);
        if partial == Some(standby) {
            ours.retain(|_, (_, _, _, _, of)| TRACKED.iter().any(|name| id_of_name(name) == of.0));
        }
        let lacking = ours.iter().find(|(key, flow)| theirs.get(key) != Some(flow));
        let ghost = theirs.iter().find(|(key, _)| !ours.contains_key(key));
        if let Some((key, flow)) = lacking {
            return Some(format!("flow {key} {flow:?} is {:?} at standby {node}", theirs.get(key)));
        }
        ghost.map(|(key, flow)| format!("flow {key} {flow:?} exists at standby {node} alone"))
    })
}

/// With which standby the active has not compared the digests of all shards since then, or not found them equal, if there
/// is one.
pub fn disagreement(world: &mut World, since: Nanos) -> Option<String> {
    let Some((active, standbys)) = world.group() else { return Some("nobody is in sync".to_owned()) };
    let partial = world.partial_follower();
    let World { nodes, agenda, .. } = world;
    let appliance = nodes[active].up.as_mut()?;
    let since = appliance.clock.read(since);
    let all = appliance.worker_status(agenda);
    for standby in standbys.into_iter().chain(partial) {
        let node = NodeId(standby as u16 + 1);
        let to_node = |stream: &&StreamStatus| stream.peer == node && stream.shards > 0;
        for stream in all.iter().flat_map(|status| &status.streams).filter(to_node) {
            let agreement = stream.agreement;
            if agreement.differing > 0 || agreement.since.is_none_or(|at| at < since) {
                return Some(format!(
                    "the digests of {} shards and node {node}: {agreement:?}",
                    stream.shards
                ));
            }
        }
    }
    None
}

/// No flow is in the tables of two workers of an appliance. While it stands by, shards go home one after the other, and their
/// home may have heard of a flow before: no packet asks who has it.
fn one_manager(world: &mut World, of_standbys_too: bool) {
    for (at, double) in world.doubles() {
        if !of_standbys_too && !world.nodes[at].leads {
            continue;
        }
        world.checks.violate(world.agenda.now, format!("node {}: {double}", at + 1));
    }
}

/// The run is over.
pub fn at_end(world: &mut World) {
    one_manager(world, true);
    connections(world);
    latency(world);
    let (now, kind) = (world.agenda.now, world.scenario.kind);
    let seen = |mirrors: bool| world.checks.sealed.keys().any(|key| (key.3 >> 31 == 1) == mirrors);
    if world.checks.settled && !(seen(true) && seen(false)) {
        world.checks.violate(now, "sealed frames were not recognised".to_owned());
    }
    for promotion in std::mem::take(&mut world.checks.promotions) {
        let Promotion { at, node, is_degraded, was_followed } = promotion;
        if kind.keeps_leader() {
            world.checks.violate(at, format!("node {} took over without a reason", node + 1));
        } else if kind.partial() == Some(node) {
            if !is_degraded {
                let what = format!("node {} was promoted as if it had all, and tracks a part", node + 1);
                world.checks.violate(at, what);
            }
        } else if kind.is_single() && is_degraded && (was_followed || !kind.may_be_behind()) {
            world.checks.violate(at, format!("node {} was promoted without being in sync", node + 1));
        }
    }
    for up in world.nodes.iter().filter_map(|node| node.up.as_ref()) {
        world.checks.retire(up);
    }
    let differ = world.checks.digests_differ;
    // Until it is said again, or walked, what was said in a lost frame without acknowledgement is a difference.
    if differ > 0 && !matches!(kind, Kind::FlowsDamaged | Kind::PeriodicRoughThenCrash) {
        world.checks.violate(now, format!("{differ} digests differed"));
    }
    let timeouts = world.checks.hold_timeouts;
    if timeouts > 0 && !kind.disturbs_mirror() {
        world.checks.violate(now, format!("{timeouts} held packets waited for too long"));
    }
    let collisions: Vec<_> = world.servers().flat_map(|server| server.collisions.clone()).collect();
    for collision in collisions {
        let owner = world.connections().find(|c| c.plan.id == collision.id);
        if owner.is_some_and(|c| {
            SERVICES[c.plan.service].full_nat && c.outcome.is_none_or(|(_, at)| at > collision.at)
        }) {
            let what =
                format!("{} is in use by connection {}, and a new one has it", collision.from, collision.id);
            world.checks.violate(collision.at, what);
        }
    }
}

fn connections(world: &mut World) {
    let kind = world.scenario.kind;
    let mut found = Vec::new();
    for connection in world.connections() {
        let plan = connection.plan;
        let service = SERVICES[plan.service];
        if world.checks.given_up.contains(&plan.id) {
            continue;
        }
        let promised = world.checks.promised.contains(&plan.id);
        // Nobody follows whoever serves in a partition: what it lets go is not protected.
        let parted =
            |at: Nanos| world.checks.partitions.iter().any(|(from, until)| (*from..*until).contains(&at));
        let alone = |at: Nanos| world.checks.alone.iter().any(|(from, until)| (*from..=*until).contains(&at));
        let is_held = |at: Nanos| match () {
            () if kind.may_be_behind() => !alone(at),
            () => !parted(at) && !kind.fills_tables(),
        };
        // Of those that are chosen, the promise holds for what is protected alone.
        let all_are_held = kind.is_single() && kind != Kind::FlowsChosen;
        let held = service.hold
            && !kind.is_periodic()
            && connection.syn_acked_at.is_some_and(is_held)
            && all_are_held;
        let probe = world.checks.probes.contains(&plan.id);
        let why = match () {
            () if promised => "was protected when the fault struck",
            () if probe => "began after all faults",
            () if held => "had a SYN-ACK under hold",
            () if kind == Kind::Calm => "met no fault",
            () => continue,
        };
        let (outcome, at) = match connection.outcome {
            Some((Outcome::Done, _)) => continue,
            Some((outcome, at)) => (format!("{outcome:?}"), at),
            None => (format!("unfinished, {:?}", connection.end.state), world.agenda.now),
        };
        let (local, name) = (connection.end.local, service.name);
        found.push((at, format!("connection {} ({local} to {name}) {why}: {outcome}", plan.id)));
    }
    for (number, queries) in world.clients().flat_map(|client| &client.queries).enumerate() {
        let from = match (kind, world.checks.fair_since) {
            (Kind::Calm, _) => 0,
            // A solicitation that was lost is sent again after a second (RFC 4861 section 10).
            (_, Some(fair)) => fair + if world.scenario.is_fair() { 50 * MS } else { 1100 * MS },
            (_, None) => continue,
        };
        let until = world.agenda.now - 50 * MS;
        let lost = queries.log.iter().find(|(at, answer)| *at >= from && *at < until && answer.is_none());
        if let Some((at, _)) = lost {
            found.push((*at, format!("queries {number} ({}): no answer", queries.local)));
        }
    }
    for (at, what) in found {
        world.checks.violate(at, what);
    }
}

/// What is left behind in the workers, if anything.
pub fn left_behind(world: &mut World) -> Option<String> {
    let World { nodes, agenda, .. } = world;
    for (at, node) in nodes.iter_mut().enumerate() {
        let Some(appliance) = &mut node.up else { continue };
        for (worker, status) in appliance.worker_status(agenda).into_iter().enumerate() {
            let (held, departed) = (status.held, status.departed);
            let refused: u32 = status.streams.iter().map(|stream| stream.refused).sum();
            let waits = status.oldest_unacknowledged.is_some();
            if held > 0 || departed > 0 || waits || refused > 0 {
                let number = at + 1;
                return Some(format!(
                    "node {number} worker {worker}: {held} held packets, {departed} ends unacknowledged, \
                     {refused} flows refused, unacknowledged states: {waits}"
                ));
            }
        }
    }
    None
}

/// Without faults flows are protected soon.
fn latency(world: &mut World) {
    if world.scenario.kind != Kind::Calm {
        return;
    }
    let World { nodes, agenda, checks, .. } = world;
    let mut latency = Spans::default();
    for appliance in nodes.iter_mut().filter_map(|node| node.up.as_mut()) {
        appliance.worker_status(agenda).iter().for_each(|status| latency.merge(&status.protection_latency));
    }
    // Bin 12 ends at 8.2 ms.
    let bins = latency.by_doubling_micros(32);
    let (all, soon) = (latency.count(), bins[..=12].iter().sum::<u64>());
    if all == 0 || soon * 100 < all * 99 {
        checks.violate(agenda.now, format!("only {soon} of {all} flows were protected within 10 ms"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_that_comes_again_under_one_key_is_seen() {
        let mut checks = Checks::default();
        for (life, sequence, violations) in [(1, 7, 0), (1, 8, 0), (2, 8, 0), (1, 8, 1), (1, 3, 2)] {
            let mut beat = vec![0; 60];
            (beat[12], beat[13], beat[17], beat[41]) = (0x88, 0xb5, 3, sequence);
            checks.sealed_frame(0, (0, life), None, &beat);
            assert_eq!(checks.violations.len(), violations, "{sequence} in life {life}");
        }
    }
}
