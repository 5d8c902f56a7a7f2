//! Records of IPv4 flows, written straight from what the table keeps of them: the same bytes as
//! [`record::write`](crate::mirror::record::write) gives, each at a place that the compiler knows.

use crate::base::ids::ShardId;
use crate::flow::entry::{FlowFlags, Stamp};
use crate::flow::image::Image;
use crate::flow::layout::{Hot, Names};
use crate::flow::{Direction, TcpState};
use crate::mirror::handle::Handle;
use crate::mirror::record::{
    BY_HANDLE_LEN, DELETE, HEADER_LEN, LONG, PLACE_BITS, RECORD_MAX, UPDATE, UPSERT, Writer,
};
use crate::mirror::record_full::{
    ANSWERS_TO_CLIENT, CHOSEN, FULL_NAT, LONG_VERSION, OTHER_GENERATION, OTHER_TERM, SAID_HERE, SERVER_LEN,
    SERVICE_LEN, SHORT_VERSION_BITS, V4_LEN,
};
use crate::mirror::said::{Part, Said};

/// Bytes of a delete.
pub const DELETE_LEN: usize = HEADER_LEN + 20 + ENDPOINTS_LEN;

/// An address behind its port.
const END_LEN: usize = 6;
const ENDPOINTS_LEN: usize = 2 * END_LEN;
/// Where the parts of a delete stand.
const SHARD: usize = HEADER_LEN;
const STAMP: usize = SHARD + 2;
const PROTOCOL: usize = STAMP + 14;

/// Writes the state of a flow as a peer is to go on with it, behind what the frame has `said`; its length. `None`: it is no IPv4
/// flow, or there is no room for the longest record.
#[inline]
pub fn write_upsert(
    hot: &Hot,
    names: &Names,
    handle: Handle,
    said: &mut Said,
    out: &mut [u8],
) -> Option<usize> {
    let [client, server] = [Direction::FromClient, Direction::FromServer].map(|way| hot.image(way));
    let out: &mut [u8; RECORD_MAX] = out.first_chunk_mut()?;
    let tcp = TcpState::from_number(hot.tcp_number())?;
    if !client.is_v4() || !server.is_v4() {
        return None;
    }
    let (from, to) = (client.v4_endpoints(), server.v4_endpoints());
    let (service, server) = (Part::v4_service(names, client), Part::v4_server(names, server));
    let (service_at, server_at) = (said.services.look(&service), said.servers.look(&server));
    let Stamp { term, version } = names.changed;
    let flag = |is_so, bit| if is_so { bit } else { 0 };
    let here = |(place, is_said): (u8, bool)| if is_said { place } else { place | SAID_HERE };
    let to_client = (to.dst, to.dst_port) == (from.src, from.src_port);
    let flags = flag(hot.flags().contains(FlowFlags::FULL_NAT), FULL_NAT)
        | flag(hot.flags().contains(FlowFlags::CHOSEN), CHOSEN)
        | flag(!service_at.1 && term != said.term, OTHER_TERM)
        | flag(handle.generation != version.0 as u16, OTHER_GENERATION)
        | flag(version.0 >> SHORT_VERSION_BITS != 0, LONG_VERSION)
        | flag(to_client, ANSWERS_TO_CLIENT);
    out[..4].copy_from_slice(&[UPSERT, flags, here(service_at), here(server_at)]);
    out[4..8].copy_from_slice(&named(tcp, handle));
    out[8] = hot.shard().0 as u8;
    out[9..14].copy_from_slice(&version.0.to_be_bytes()[3..]);
    // An image has them in a packet's byte order.
    out[14..16].copy_from_slice(&from.src_port.to_le_bytes());
    out[16..20].copy_from_slice(&from.src.to_le_bytes());
    let mut at = 20;
    if !to_client {
        out[20..22].copy_from_slice(&to.dst_port.to_le_bytes());
        out[22..26].copy_from_slice(&to.dst.to_le_bytes());
        at += END_LEN;
    }
    if flags & (LONG_VERSION | OTHER_GENERATION | OTHER_TERM) != 0 {
        let mut w = Writer { out, at };
        if flags & LONG_VERSION != 0 {
            w.u8((version.0 >> SHORT_VERSION_BITS) as u8)?;
        }
        if flags & OTHER_GENERATION != 0 {
            w.u16(handle.generation)?;
        }
        if flags & OTHER_TERM != 0 {
            w.term(term)?;
        }
        at = w.at;
    }
    if !service_at.1 {
        out.get_mut(at..at + V4_SERVICE_LEN)?.copy_from_slice(&v4_service(&service));
        at += V4_SERVICE_LEN;
        said.services.put(service_at.0, service);
    }
    if !server_at.1 {
        out.get_mut(at..at + V4_SERVER_LEN)?.copy_from_slice(&v4_server(&server));
        at += V4_SERVER_LEN;
        said.servers.put(server_at.0, server);
    }
    Some(at)
}

const V4_SERVICE_LEN: usize = SERVICE_LEN + V4_LEN;
const V4_SERVER_LEN: usize = SERVER_LEN + V4_LEN;

/// A service in full.
#[inline(always)]
fn v4_service(part: &Part) -> [u8; V4_SERVICE_LEN] {
    let ([virtual_server, pool], (protocol, vlan, port)) = (part.ids(), part.rest());
    let mut bytes = [0; V4_SERVICE_LEN];
    bytes[..4].copy_from_slice(&virtual_server.to_be_bytes());
    bytes[4..8].copy_from_slice(&pool.to_be_bytes());
    bytes[8] = protocol;
    bytes[9..11].copy_from_slice(&vlan.to_be_bytes());
    bytes[11..13].copy_from_slice(&port.to_be_bytes());
    bytes[13..].copy_from_slice(&part.v4_octets());
    bytes
}

/// A real server in full.
#[inline(always)]
fn v4_server(part: &Part) -> [u8; V4_SERVER_LEN] {
    let mut bytes = [0; V4_SERVER_LEN];
    bytes[..4].copy_from_slice(&part.ids()[0].to_be_bytes());
    bytes[4..6].copy_from_slice(&part.rest().2.to_be_bytes());
    bytes[6..].copy_from_slice(&part.v4_octets());
    bytes
}

/// The state above the place.
#[inline(always)]
fn named(tcp: TcpState, handle: Handle) -> [u8; 4] {
    (u32::from(tcp.after_takeover().number()) << PLACE_BITS | handle.place).to_be_bytes()
}

/// Writes the state of a flow that the peer knows by its handle; its length. `None`: there was no room for the longest record.
#[inline]
pub fn write_update(hot: &Hot, names: &Names, handle: Handle, out: &mut [u8]) -> Option<usize> {
    let out: &mut [u8; RECORD_MAX] = out.first_chunk_mut()?;
    let tcp = TcpState::from_number(hot.tcp_number())?;
    let version = names.changed.version.0.to_be_bytes();
    out[1..5].copy_from_slice(&named(tcp, handle));
    out[5] = handle.shard.0 as u8;
    out[6..8].copy_from_slice(&handle.generation.to_be_bytes());
    if version[2] == 0 {
        out[0] = UPDATE;
        out[8..BY_HANDLE_LEN].copy_from_slice(&version[3..]);
        Some(BY_HANDLE_LEN)
    } else {
        out[0] = UPDATE | LONG;
        out[8..BY_HANDLE_LEN + 1].copy_from_slice(&version[2..]);
        Some(BY_HANDLE_LEN + 1)
    }
}

/// Writes the end of a flow, named by its client key's image; whether that is of IPv4, and there was room.
#[inline]
pub fn write_delete(shard: ShardId, stamp: Stamp, client: Image, out: &mut [u8]) -> bool {
    let Some(out): Option<&mut [u8; DELETE_LEN]> = out.first_chunk_mut() else { return false };
    if !client.is_v4() {
        return false;
    }
    begin(out, DELETE, shard, stamp);
    out[PROTOCOL] = client.v4_protocol();
    out[PROTOCOL + 1] = 0; // Neither address is IPv6.
    out[PROTOCOL + 2..PROTOCOL + 4].copy_from_slice(&client.vlan().to_be_bytes());
    endpoints(out, PROTOCOL + 4, client);
    true
}

#[inline(always)]
fn begin<const LEN: usize>(out: &mut [u8; LEN], kind: u8, shard: ShardId, stamp: Stamp) {
    out[0] = kind;
    out[1..HEADER_LEN].copy_from_slice(&((LEN - HEADER_LEN) as u16).to_be_bytes());
    out[SHARD..STAMP].copy_from_slice(&shard.0.to_be_bytes());
    out[STAMP..STAMP + 6].copy_from_slice(&stamp.term.counter.to_be_bytes()[2..]);
    out[STAMP + 6..STAMP + 8].copy_from_slice(&stamp.term.node.0.to_be_bytes());
    out[STAMP + 8..PROTOCOL].copy_from_slice(&stamp.version.0.to_be_bytes()[2..]);
}

#[inline(always)]
fn endpoints<const LEN: usize>(out: &mut [u8; LEN], at: usize, image: Image) {
    let ends = image.v4_endpoints();
    // An image has them in a packet's byte order.
    out[at..at + 4].copy_from_slice(&ends.src.to_le_bytes());
    out[at + 4..at + 6].copy_from_slice(&ends.src_port.to_le_bytes());
    out[at + 6..at + 10].copy_from_slice(&ends.dst.to_le_bytes());
    out[at + 10..at + 12].copy_from_slice(&ends.dst_port.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{NodeId, PoolId, ServerId, Term, Version, VirtualServerId};
    use crate::base::rng::Rng;
    use crate::flow::Flow;
    use crate::flow::key::{Address, Key, TCP, UDP};
    use crate::flow::layout::STAMP_MAX;
    use crate::flow::table::{Insert, Table};
    use crate::mirror::handle::PLACES_MAX;
    use crate::mirror::record::{self, Parsed, Record};
    use crate::mirror::sync::state;

    fn flow(rng: &mut Rng, v6: bool) -> Flow {
        let mut address = || {
            let bytes = rng.u128(..).to_be_bytes();
            if v6 { Address::v6(bytes) } else { Address::v4([bytes[0], bytes[1], bytes[2], bytes[3]]) }
        };
        let (a, b, c, d) = (address(), address(), address(), address());
        let protocol = if rng.bool() { TCP } else { UDP };
        let mut key =
            |src, dst, vlan| Key { src, dst, src_port: rng.u16(..), dst_port: rng.u16(..), vlan, protocol };
        let (client, server) = (key(a, b, 77), key(c, d, 0));
        let mut flow = Flow::new(client, server, TcpState::ALL[rng.usize(0..8)]);
        flow.shard = ShardId(rng.u16(0..256));
        flow.virtual_server = VirtualServerId(rng.u32(..));
        flow.pool = PoolId(rng.u32(..));
        flow.server_id = ServerId(rng.u32(..));
        for flag in [FlowFlags::FULL_NAT, FlowFlags::CHOSEN] {
            flow.flags = if rng.bool() { flow.flags.with(flag) } else { flow.flags.without(flag) };
        }
        let term = Term { counter: rng.u64(0..=STAMP_MAX), node: NodeId(rng.u16(..)) };
        flow.changed = Stamp { term, version: Version(rng.u64(0..=STAMP_MAX)) };
        flow
    }

    fn slow(record: &Record, said: &mut Said) -> Vec<u8> {
        let mut bytes = vec![0; RECORD_MAX];
        let len = record::write(record, said, &mut bytes).expect("room for the longest");
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn a_change_or_an_end_by_handle_takes_thirteen_bytes_and_with_a_long_version_one_more() {
        let handle = Handle { place: PLACES_MAX - 1, shard: ShardId(255), generation: 2 };
        let tcp = TcpState::Closed;
        for (version, len) in [(STAMP_MAX, 14), (1 << 40, 14), ((1 << 40) - 1, 13), (0, 13)] {
            let version = Version(version);
            for record in [Record::Update { handle, version, tcp }, Record::End { handle, version }] {
                let said = &mut Said::new(Term::NONE);
                let bytes = slow(&record, said);
                assert_eq!(bytes.len(), len);
                assert_eq!(record::read(&bytes, said), Ok((Parsed::Record(record), len)));
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_record_and_other_flows_are_left_to_it() {
        let mut rng = Rng::with_seed(5);
        let mut table = Table::new(2000, 1).expect("memory");
        let (mut ours, mut theirs) = (Said::new(Term::NONE), Said::new(Term::NONE));
        let mut lengths = [usize::MAX, 0];
        let mut last: Option<Flow> = None;
        for round in 0..2000 {
            let v6 = round % 4 == 0;
            let mut flow = flow(&mut rng, v6);
            if round % 32 == 0 {
                let term = if rng.bool() { flow.changed.term } else { Term::NONE };
                ours.begin(term);
                theirs.begin(term);
            }
            // As others of its service, or of its server; answered directly, in the frame's term, as it began, before long.
            if let Some(last) = &last {
                if rng.bool() {
                    let src = (flow.client.src, flow.client.src_port);
                    flow.client = last.client;
                    (flow.client.src, flow.client.src_port) = src;
                    (flow.virtual_server, flow.pool) = (last.virtual_server, last.pool);
                    flow.server.protocol = last.client.protocol;
                }
                if rng.bool() {
                    (flow.server.src, flow.server.src_port) = (last.server.src, last.server.src_port);
                    flow.server_id = last.server_id;
                }
            }
            last = (!v6).then_some(flow);
            if rng.u8(..) < 64 {
                (flow.server.dst, flow.server.dst_port) = (flow.client.src, flow.client.src_port);
            }
            flow.changed.version.0 >>= if rng.bool() { 24 } else { 0 };
            flow.changed.term = if rng.bool() { ours.term } else { flow.changed.term };
            let v6 = [flow.client.src, flow.client.dst, flow.server.src].iter().any(|a| !a.is_v4());
            let Insert::Done(here) = table.insert(&flow) else { panic!("there is room") };
            let (hot, names) = table.named(here).expect("the flow");
            let place = rng.u32(..PLACES_MAX);
            let version = flow.changed.version;
            let generation = if rng.bool() { version.0 as u16 } else { rng.u16(..) };
            let handle = Handle { place, shard: flow.shard, generation };
            let tcp = flow.tcp.after_takeover();
            let update = slow(&Record::Update { handle, version, tcp }, &mut theirs);
            let mut change = [0xaa; RECORD_MAX];
            assert_eq!(
                write_update(hot, &names, handle, &mut change),
                Some(update.len()),
                "of either family"
            );
            assert_eq!(&change[..update.len()], &update[..]);
            assert_eq!(write_update(hot, &names, handle, &mut change[..RECORD_MAX - 1]), None);
            let image = hot.image(Direction::FromClient);
            let mut end = [0xaa; RECORD_MAX];
            let delete = Record::Delete { shard: flow.shard, stamp: flow.changed, client: flow.client };
            let delete = slow(&delete, &mut theirs);
            assert_eq!(write_delete(flow.shard, flow.changed, image, &mut end), image.is_v4());
            let mut bytes = [0xaa; RECORD_MAX];
            assert_eq!(write_upsert(hot, &names, handle, &mut ours, &mut bytes[..RECORD_MAX - 1]), None);
            let len = write_upsert(hot, &names, handle, &mut ours, &mut bytes);
            assert_eq!(len.is_some(), !v6);
            if let Some(len) = len {
                let record = Record::Upsert { shard: flow.shard, flow: state(&flow), handle };
                assert_eq!(&bytes[..len], slow(&record, &mut theirs));
                assert_eq!(&end[..DELETE_LEN], delete);
                assert!(bytes[len..].iter().chain(&end[DELETE_LEN..]).all(|byte| *byte == 0xaa));
                assert!(!write_delete(flow.shard, flow.changed, image, &mut bytes[..DELETE_LEN - 1]));
                lengths = [lengths[0].min(len), lengths[1].max(len)];
            }
        }
        // Answers to the client, and all in common; and nothing.
        assert_eq!(lengths, [20, 26 + 1 + 2 + 8 + 17 + 10]);
    }
}
