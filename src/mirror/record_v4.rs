//! Records of IPv4 flows, written straight from what the table keeps of them: the same bytes as
//! [`record::write`](crate::mirror::record::write) gives, each at a place that the compiler knows.

use crate::base::ids::ShardId;
use crate::flow::entry::{FlowFlags, Stamp};
use crate::flow::image::Image;
use crate::flow::layout::{Hot, Names};
use crate::flow::{Direction, TcpState};
use crate::mirror::handle::{Handle, PLACES_MAX};
use crate::mirror::record::{CHOSEN, DELETE, END, FULL_NAT, HEADER_LEN, PLACE_BITS, UPDATE, UPSERT};

/// Bytes of an upsert.
pub const UPSERT_LEN: usize = HEADER_LEN + 34 + 2 * ENDPOINTS_LEN + HANDLE_REST_LEN;
/// Bytes of a delete.
pub const DELETE_LEN: usize = HEADER_LEN + 20 + ENDPOINTS_LEN;
/// Bytes of an update, of whatever family.
pub const UPDATE_LEN: usize = HEADER_LEN + HANDLE_LEN + 6;

/// Of a handle, where the shard does not stand elsewhere.
const HANDLE_LEN: usize = 7;
/// Of the rest of it, where it does.
const HANDLE_REST_LEN: usize = 6;

const ENDPOINTS_LEN: usize = 12;
/// Where the parts that both records begin with stand.
const SHARD: usize = HEADER_LEN;
const STAMP: usize = SHARD + 2;
const PROTOCOL: usize = STAMP + 14;

/// Writes the state of a flow as a peer is to go on with it; whether it is an IPv4 flow, and there was room.
#[inline]
pub fn write_upsert(hot: &Hot, names: &Names, handle: Handle, out: &mut [u8]) -> bool {
    let [client, server] = [Direction::FromClient, Direction::FromServer].map(|way| hot.image(way));
    let Some(out): Option<&mut [u8; UPSERT_LEN]> = out.first_chunk_mut() else { return false };
    let Some(tcp) = TcpState::from_number(hot.tcp_number()) else { return false };
    if !client.is_v4() || !server.is_v4() {
        return false;
    }
    begin(out, UPSERT, hot.shard(), names.changed);
    out[PROTOCOL] = client.v4_protocol();
    out[PROTOCOL + 1] = tcp.after_takeover().number();
    out[PROTOCOL + 2] = 0; // No address is IPv6.
    let flag = |fact, bit| if hot.flags().contains(fact) { bit } else { 0 };
    out[PROTOCOL + 3] = flag(FlowFlags::FULL_NAT, FULL_NAT) | flag(FlowFlags::CHOSEN, CHOSEN);
    out[PROTOCOL + 4..PROTOCOL + 6].copy_from_slice(&client.vlan().to_be_bytes());
    let ids = [names.virtual_server.0, names.pool.0, names.server_id.0];
    for (at, id) in [PROTOCOL + 6, PROTOCOL + 10, PROTOCOL + 14].into_iter().zip(ids) {
        out[at..at + 4].copy_from_slice(&id.to_be_bytes());
    }
    endpoints(out, PROTOCOL + 18, client);
    endpoints(out, PROTOCOL + 18 + ENDPOINTS_LEN, server);
    let at = UPSERT_LEN - HANDLE_REST_LEN;
    out[at..at + 4].copy_from_slice(&handle.place.to_be_bytes());
    out[at + 4..].copy_from_slice(&handle.generation.to_be_bytes());
    true
}

/// Writes the state of a flow that the peer knows by its handle; whether there was room.
#[inline]
pub fn write_update(hot: &Hot, names: &Names, handle: Handle, out: &mut [u8]) -> bool {
    let Some(out): Option<&mut [u8; UPDATE_LEN]> = out.first_chunk_mut() else { return false };
    let Some(tcp) = TcpState::from_number(hot.tcp_number()) else { return false };
    out[0] = UPDATE;
    out[1..HEADER_LEN].copy_from_slice(&((UPDATE_LEN - HEADER_LEN) as u16).to_be_bytes());
    let place = u32::from(tcp.after_takeover().number()) << PLACE_BITS | handle.place;
    out[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&place.to_be_bytes());
    out[HEADER_LEN + 4] = handle.shard.0 as u8;
    out[HEADER_LEN + 5..HEADER_LEN + HANDLE_LEN].copy_from_slice(&handle.generation.to_be_bytes());
    out[HEADER_LEN + HANDLE_LEN..].copy_from_slice(&names.changed.version.0.to_be_bytes()[2..]);
    true
}

/// The images of both keys of an upsert of an IPv4 flow, and the place that its handle names; `None`: it is none. The record is
/// not verified.
#[inline]
pub fn read_images(record: &[u8]) -> Option<([Image; 2], u32)> {
    let record: &[u8; UPSERT_LEN] = record.try_into().ok()?;
    // No address is IPv6.
    if record[0] != UPSERT || record[PROTOCOL + 2] != 0 {
        return None;
    }
    let word = u64::from(record[PROTOCOL]) << 8 | 4;
    let vlan = u64::from(u16::from_be_bytes([record[PROTOCOL + 4], record[PROTOCOL + 5]]));
    let image = |at: usize, vlan: u64| {
        let (src, dst) = (bytes_at(record, at), bytes_at(record, at + 6));
        let ports = u64::from(u16::from_le_bytes(bytes_at(record, at + 4))) << 32
            | u64::from(u16::from_le_bytes(bytes_at(record, at + 10))) << 48;
        Image(
            word | vlan << 16 | u64::from(u32::from_le_bytes(src)) << 32,
            ports | u64::from(u32::from_le_bytes(dst)),
        )
    };
    // Answers carry no tag.
    let images = [image(PROTOCOL + 18, vlan), image(PROTOCOL + 18 + ENDPOINTS_LEN, 0)];
    Some((images, u32::from_be_bytes(bytes_at(record, UPSERT_LEN - HANDLE_REST_LEN))))
}

/// The place that the handle of an update or an end names, of whatever family; `None`: it is neither. The record is not verified.
#[inline]
pub fn read_handle(record: &[u8]) -> Option<u32> {
    let is_one = matches!(record, [UPDATE | END, ..]) && record.len() >= HEADER_LEN + HANDLE_LEN;
    is_one.then(|| u32::from_be_bytes(bytes_at(record, HEADER_LEN)) & (PLACES_MAX - 1))
}

#[inline(always)]
fn bytes_at<const LEN: usize>(record: &[u8], at: usize) -> [u8; LEN] {
    record.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; LEN])
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
    use crate::mirror::record::{self, RECORD_MAX, Record};
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

    fn slow(record: &Record) -> Vec<u8> {
        let mut bytes = vec![0; RECORD_MAX];
        let len = record::write(record, &mut bytes).expect("room for the longest");
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn a_change_or_an_end_by_handle_takes_sixteen_bytes_and_its_handle_is_found_in_them() {
        let handle = Handle { place: PLACES_MAX - 1, shard: ShardId(255), generation: 2 };
        let (version, tcp) = (Version(STAMP_MAX), TcpState::Closed);
        let (update, end) =
            (slow(&Record::Update { handle, version, tcp }), slow(&Record::End { handle, version }));
        assert_eq!((update.len(), end.len()), (16, 16));
        assert_eq!([&update, &end].map(|record| read_handle(record)), [Some(handle.place); 2]);
        assert_eq!((read_handle(&update[..9]), read_images(&update)), (None, None));
    }

    #[test]
    fn the_images_of_both_keys_are_found_in_an_upsert_of_an_ipv4_flow() {
        let mut rng = Rng::with_seed(6);
        let table = Table::new(8, 3).expect("memory");
        for round in 0..500 {
            let v6 = round % 4 == 0;
            let flow = flow(&mut rng, v6);
            let handle = Handle { place: rng.u32(..PLACES_MAX), shard: flow.shard, generation: rng.u16(..) };
            let bytes = slow(&Record::Upsert { shard: flow.shard, flow: state(&flow), handle });
            let images = [&flow.client, &flow.server].map(|key| table.imager().of(key));
            assert_eq!(read_images(&bytes), (!v6).then_some((images, handle.place)), "{flow:?}");
            assert_eq!((read_images(&bytes[..60]), read_handle(&bytes)), (None, None));
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_record_and_other_flows_are_left_to_it() {
        let mut rng = Rng::with_seed(5);
        let mut table = Table::new(2000, 1).expect("memory");
        for round in 0..2000 {
            let v6 = round % 4 == 0;
            let flow = flow(&mut rng, v6);
            let Insert::Done(here) = table.insert(&flow) else { panic!("there is room") };
            let (hot, names) = table.named(here).expect("the flow");
            let mut bytes = [0xaa; RECORD_MAX];
            let place = rng.u32(..PLACES_MAX);
            let handle = Handle { place, shard: flow.shard, generation: rng.u16(..) };
            let upsert = slow(&Record::Upsert { shard: flow.shard, flow: state(&flow), handle });
            assert_eq!(write_upsert(hot, &names, handle, &mut bytes), !v6);
            let mut change = [0xaa; RECORD_MAX];
            let (version, tcp) = (flow.changed.version, flow.tcp.after_takeover());
            let update = slow(&Record::Update { handle, version, tcp });
            assert!(write_update(hot, &names, handle, &mut change), "of either family");
            assert_eq!(&change[..UPDATE_LEN], &update[..]);
            assert!(!write_update(hot, &names, handle, &mut change[..UPDATE_LEN - 1]));
            let image = hot.image(Direction::FromClient);
            let mut end = [0xaa; RECORD_MAX];
            let delete =
                slow(&Record::Delete { shard: flow.shard, stamp: flow.changed, client: flow.client });
            assert_eq!(write_delete(flow.shard, flow.changed, image, &mut end), !v6);
            if !v6 {
                assert_eq!((&bytes[..UPSERT_LEN], &end[..DELETE_LEN]), (&upsert[..], &delete[..]));
                assert!(bytes[UPSERT_LEN..].iter().chain(&end[DELETE_LEN..]).all(|byte| *byte == 0xaa));
                assert!(!write_upsert(hot, &names, handle, &mut bytes[..UPSERT_LEN - 1]));
                assert!(!write_delete(flow.shard, flow.changed, image, &mut bytes[..DELETE_LEN - 1]));
            }
        }
    }
}
