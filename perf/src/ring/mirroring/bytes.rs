//! What a create, an update and a delete take: bytes on the link, and cycles of both ends. Two mirrors of one worker each, with
//! their tables, real keys and real frames, and nothing around them: no ports, no packets, no balancing.
//!
//! Bytes are of whole Ethernet frames without their check sequence: headers, the mirror's header and the seal shared out among the
//! records. What records of a frame have in common is said once in it, so a create is also measured where flows have little in
//! common. Answers go the other way and are not in them: one for all frames that came in a turn.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use baton::base::counters::Counters;
use baton::base::ids::{BootId, GroupId, NodeId, ServerId, ShardId, VirtualServerId, WorkerId};
use baton::base::time::{Duration, Instant};
use baton::flow::entry::FlowFlags;
use baton::flow::flows::{Flows, FlowsSetup};
use baton::flow::key::{Address, Key, TCP};
use baton::flow::ports::PortSetup;
use baton::flow::resting::RestingPlace;
use baton::flow::table::Insert;
use baton::flow::toeplitz::{MICROSOFT_KEY, Toeplitz};
use baton::flow::{Flow, FlowIndex, Stamp, TcpState};
use baton::mirror::changes::Ended;
use baton::mirror::receiver::Effects;
use baton::mirror::record::{FlowState, Refusal};
use baton::mirror::tombstone::RestingPort;
use baton::mirror::{Frame, Mirror, MirrorSetup, Standing, Variant};
use dpdk::clock::{tsc, tsc_hz};

use crate::case::{Case, Context};
use crate::figure::Figure;
use crate::ring::appliance::{self, TERM};
use crate::ring::member::sessions;
use crate::ring::plan::{Mirroring, Plan};
use crate::traffic::Family;

/// Flows that begin, change and end.
const FLOWS: u32 = 1 << 16;
/// Of these so many at a time, if frames are to be full: within the peer's credit, and no frame but the last has room left.
const FULL: u32 = 1280;
/// Where one at a time is told, so many are.
const ONE: u32 = 4096;
/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;
/// The rest of a frame at an MTU of 1,500.
const ROOM: usize = 1500 - 20 - 8;

/// The case.
pub fn case() -> Case {
    let what =
        "bytes and cycles of a create, an update and a delete, IPv4 and IPv6: two mirrors alone, one CPU";
    Case::new("mirror-bytes", what, measure)
}

/// What is told of a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Create,
    Update,
    Delete,
}

fn measure(context: &Context) -> Result<Vec<Figure>> {
    let eal = appliance::start(&Plan { mirroring: Mirroring::Async, ..Plan::plain(1000) })?;
    let hz = tsc_hz(&eal) as f64;
    let mut figures = Vec::new();
    for family in [Family::V4, Family::V6] {
        let one = Shared { services: 1, servers: 1 };
        let cases = [
            (FULL, FLOWS, one, "full frames"),
            (FULL, FLOWS, Shared { servers: 16, ..one }, "full frames, 16 servers"),
            (FULL, FLOWS, Shared { servers: FLOWS, ..one }, "full frames, a server for each flow"),
            (FULL, FLOWS, Shared { services: FLOWS, servers: FLOWS }, "full frames, nothing in common"),
            (1, ONE, one, "frames of one record"),
        ];
        for (at_a_time, flows, shared, frames) in cases {
            let mut taken: [Vec<Taken>; 3] = [const { Vec::new() }; 3];
            for _ in 0..=context.samples {
                let mut pair = Pair::new(family, shared)?;
                // The table's memory is touched for the first time by flows that do not count.
                pair.change(Kind::Create, 0..flows, FULL)?;
                pair.change(Kind::Delete, 0..flows, FULL)?;
                for (kind, taken) in [Kind::Create, Kind::Update, Kind::Delete].into_iter().zip(&mut taken) {
                    taken.push(pair.change(kind, 0..flows, at_a_time)?);
                }
            }
            let family = if family == Family::V4 { "IPv4" } else { "IPv6" };
            for (kind, taken) in ["create", "update", "delete"].into_iter().zip(&taken) {
                let words = format!("{kind}, {family}, {frames}");
                let column = |of: fn(&Taken) -> f64| taken[1..].iter().map(of).collect::<Vec<f64>>();
                let figure =
                    |metric: String, unit, column: &[f64]| Figure::of("mirror-bytes", metric, unit, column);
                figures.push(figure(words.clone(), "bytes/record", &column(|taken| taken.bytes)));
                figures.push(figure(
                    format!("{words}: sender"),
                    "cycles/record",
                    &column(|taken| taken.sender),
                ));
                figures.push(figure(
                    format!("{words}: receiver"),
                    "cycles/record",
                    &column(|taken| taken.receiver),
                ));
                let slower = column(|taken| taken.sender.max(taken.receiver));
                let rates: Vec<f64> = slower.iter().map(|cycles| hz / cycles / 1e6).collect();
                figures.push(figure(format!("{words}: of a core of the slower end"), "Mrecords/s", &rates));
            }
        }
    }
    Ok(figures)
}

/// How many services and real servers the flows go to, one after the other.
#[derive(Clone, Copy)]
struct Shared {
    services: u32,
    servers: u32,
}

/// What a record took.
struct Taken {
    bytes: f64,
    /// Cycles: the change noted, written, sealed, its acknowledgement taken in.
    sender: f64,
    /// Opened, applied, answered.
    receiver: f64,
}

/// Takes everything.
struct Anything;

impl Effects for Anything {
    fn check(&self, _: ShardId, _: &FlowState) -> Result<(), Refusal> {
        Ok(())
    }
    fn made(&mut self, _: &mut Flows, _: FlowIndex, _: &Flow) {}
    fn changed(&mut self, _: &mut Flows, _: FlowIndex) {}
    fn removed(&mut self, _: &mut Flows, _: FlowIndex, _: &Flow) {}
    fn may_remove(&self) -> bool {
        true
    }
}

/// A worker's mirror and its flows.
struct End {
    mirror: Mirror,
    flows: Flows,
}

impl End {
    fn new(node: u16) -> Result<End> {
        let toeplitz = Toeplitz::new(&MICROSOFT_KEY).map_err(|error| anyhow!("{error:?}"))?;
        let capacity = 2 * FLOWS;
        let flows = Flows::new(&FlowsSetup {
            worker: WorkerId(0),
            workers: 1,
            capacity,
            hash_seed: u64::from(node),
            toeplitz: Arc::new(toeplitz),
            ports: PortSetup {
                members: 2,
                rank: 0,
                boot_parity: None,
                booted: Instant::ZERO,
                quarantine: Duration::from_secs(60),
                resting_max: capacity,
            },
        })?;
        flows.populate();
        let mirror = Mirror::new(MirrorSetup {
            worker: WorkerId(0),
            workers: 1,
            group: GroupId(0),
            boot: BootId(node.into()),
            capacity,
            peers: vec![NodeId(3 - node)],
            walk_rate: 10_000_000,
            maintenance_every: None,
            variant: Variant::Sound,
        })?;
        Ok(End { mirror, flows })
    }
}

/// Two of them, of which the first leads.
struct Pair {
    leader: End,
    peer: End,
    family: Family,
    shared: Shared,
    places: Vec<FlowIndex>,
    counters: Counters,
    now: Instant,
}

impl Pair {
    fn new(family: Family, shared: Shared) -> Result<Pair> {
        let (mut leader, mut peer) = (End::new(1)?, End::new(2)?);
        let (ours, theirs) = sessions()?;
        leader.mirror.open_session(NodeId(2), &ours, &leader.flows);
        peer.mirror.open_session(NodeId(1), &theirs, &peer.flows);
        leader.mirror.set_standing(Standing { leads: true, term: TERM });
        peer.mirror.set_standing(Standing { leads: false, term: TERM });
        let mut pair = Pair {
            leader,
            peer,
            family,
            shared,
            places: vec![FlowIndex(0); FLOWS as usize],
            counters: Counters::default(),
            now: Instant::from_millis(1000),
        };
        pair.exchange(&mut Sums::default())?;
        ensure!(pair.leader.mirror.is_flushed(NodeId(2)), "the peer does not come up to date");
        Ok(pair)
    }

    fn flow(&mut self, number: u32) -> Flow {
        let address = |first: u8, low: u32| match self.family {
            Family::V4 => Address::v4([first, 1, (low >> 8) as u8, low as u8]),
            Family::V6 => {
                Address::v6([0xfd, first, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, (low >> 8) as u8, low as u8])
            }
        };
        let (service, server_id) = (number % self.shared.services, number % self.shared.servers);
        let client = Key {
            src: address(16, number),
            dst: address(10, service),
            src_port: 1024 + (number >> 8) as u16,
            dst_port: 80,
            vlan: 0,
            protocol: TCP,
        };
        let server = Key {
            src: address(11, server_id),
            src_port: 8080,
            dst: address(12, number),
            dst_port: 7,
            ..client
        };
        let mut flow = Flow::new(client, server, TcpState::SynSeen);
        flow.shard = ShardId((number % 256) as u16);
        (flow.virtual_server, flow.server_id) = (VirtualServerId(service), ServerId(server_id));
        flow.flags = FlowFlags::MIRRORED;
        flow.created = self.leader.flows.next_version(flow.shard);
        flow.changed = Stamp { term: TERM, version: flow.created };
        flow
    }

    /// Flows begin, change or end, so many at a time; each time until the peer has acknowledged.
    fn change(&mut self, kind: Kind, flows: core::ops::Range<u32>, at_a_time: u32) -> Result<Taken> {
        let (mut sums, count) = (Sums::default(), flows.len() as f64);
        for first in flows.clone().step_by(at_a_time as usize) {
            for number in first..(first + at_a_time).min(flows.end) {
                sums.sender += self.one(kind, number)?;
            }
            self.exchange(&mut sums)?;
        }
        ensure!(self.leader.mirror.is_flushed(NodeId(2)), "not all was acknowledged");
        let (ours, theirs) = (self.leader.flows.table.len(), self.peer.flows.table.len());
        ensure!(ours == theirs, "{ours} flows here, {theirs} there");
        Ok(Taken {
            bytes: sums.bytes as f64 / count,
            sender: sums.sender as f64 / count,
            receiver: sums.receiver as f64 / count,
        })
    }

    /// One flow begins, changes or ends; the ticks that the mirror took to take note.
    fn one(&mut self, kind: Kind, number: u32) -> Result<u64> {
        let now = self.now;
        match kind {
            Kind::Create => {
                let flow = self.flow(number);
                let Insert::Done(place) = self.leader.flows.table.insert(&flow) else {
                    bail!("the table does not take a flow");
                };
                self.places[number as usize] = place;
                let begin = tsc();
                self.leader.mirror.flow_changed(now, flow.shard, place, true, &self.leader.flows.table);
                Ok(tsc() - begin)
            }
            Kind::Update => {
                let (place, shard) = (self.places[number as usize], ShardId((number % 256) as u16));
                let stamp = Stamp { term: TERM, version: self.leader.flows.next_version(shard) };
                let changed = self.leader.flows.table.update(place, |flow| {
                    (flow.changed, flow.tcp) = (stamp, TcpState::FinFromClient);
                });
                changed.context("there is no such flow")?;
                let begin = tsc();
                self.leader.mirror.flow_changed(now, shard, place, true, &self.leader.flows.table);
                Ok(tsc() - begin)
            }
            Kind::Delete => {
                let End { mirror, flows } = &mut self.leader;
                let place = self.places[number as usize];
                let flow = flows.table.remove(place).context("there is no such flow")?;
                let stamp = Stamp { term: TERM, version: flows.next_version(flow.shard) };
                let [image, answers] = [&flow.client, &flow.server].map(|key| flows.table.imager().of(key));
                let port = RestingPort { image: answers, place: RestingPlace::NONE };
                let ended = Ended {
                    shard: flow.shard,
                    place,
                    client: &flow.client,
                    image,
                    port,
                    created: flow.created,
                    stamp,
                };
                let begin = tsc();
                let listeners = mirror.listeners(flow.shard, flow.flags, Some(flow.virtual_server));
                mirror.flow_ended(now, &ended, listeners);
                Ok(tsc() - begin)
            }
        }
    }

    /// Frames and answers to and fro until there are no more.
    fn exchange(&mut self, sums: &mut Sums) -> Result<()> {
        let Pair { leader, peer, counters, now, .. } = self;
        let mut frames: Vec<(usize, [u8; ROOM])> = Vec::new();
        for _ in 0..10_000 {
            *now += Duration::from_micros(1);
            let begin = tsc();
            leader.mirror.poll(*now, &mut leader.flows, &mut Anything);
            let mut outcomes = leader.mirror.take_outcomes();
            outcomes.clear();
            leader.mirror.give_back(outcomes);
            sums.sender += tsc() - begin;
            loop {
                let mut out = [0; ROOM];
                let begin = tsc();
                let written = leader.mirror.write_frame(*now, &leader.flows, true, &mut out);
                let ticks = tsc() - begin;
                let Some(written) = written else { break };
                sums.sender += ticks;
                sums.bytes += (written.len + HEADERS) as u64;
                frames.push((written.len, out));
            }
            if frames.is_empty() {
                if leader.mirror.is_flushed(NodeId(2)) {
                    return Ok(());
                }
                // What is not urgent leaves after 100 µs.
                *now += Duration::from_micros(100);
                continue;
            }
            let begin = tsc();
            for (len, frame) in &mut frames {
                let taken = peer.mirror.handle_frame(
                    *now,
                    &mut frame[..*len],
                    &mut peer.flows,
                    &mut Anything,
                    counters,
                );
                ensure!(taken == Frame::Taken, "a frame was not taken: {taken:?}");
            }
            peer.mirror.poll(*now, &mut peer.flows, &mut Anything);
            let mut out = [0; ROOM];
            let answer = peer.mirror.write_frame(*now, &peer.flows, true, &mut out);
            sums.receiver += tsc() - begin;
            frames.clear();
            let answer = answer.context("the peer does not answer")?;
            let begin = tsc();
            let End { mirror, flows } = &mut *leader;
            let taken = mirror.handle_frame(*now, &mut out[..answer.len], flows, &mut Anything, counters);
            sums.sender += tsc() - begin;
            ensure!(taken == Frame::Taken, "an answer was not taken: {taken:?}");
        }
        bail!("there is no end of frames")
    }
}

/// Of all records.
#[derive(Default)]
struct Sums {
    bytes: u64,
    sender: u64,
    receiver: u64,
}
