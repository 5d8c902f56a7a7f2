//! The record that says a flow in full, of any family.
//!
//! ```text
//! offset  bytes
//!  0      1     type
//!  1      1     flags: see below
//!  2      1     service: place; 0x80 = it is said here and put there, 0x40 = its address is IPv6
//!  3      1     real server: likewise
//!  4      4     state 4 bits, handle's place 28 bits
//!  8      1     shard
//!  9      5     version, its lower 40 bits
//! 14      2     client: port
//! 16      4/16  client: address
//!         2+4/16  where the server's answers go, port and address; nothing with ANSWERS_TO_CLIENT
//!         1     with LONG_VERSION: the version's upper 8 bits
//!         2     with OTHER_GENERATION: the handle's generation; else it is the lowest 16 bits of the version
//!         8     with OTHER_TERM: the service's term, counter 6 and node 2; else it is the frame's
//!        13+4/16  the service, if it is said here: virtual server 4, pool 4, protocol 1, VLAN 2, port 2, address
//!         6+4/16  the real server, if it is said here: id 4, port 2, address
//! ```
//!
//! The term in which the flow last changed is the service's, so there is an OTHER_TERM only with a service. The
//! first four bytes tell how long a record is, whatever else is wrong with it. What it says of a service or a server counts for
//! the records behind it even if it is refused itself.

use crate::base::ids::{PoolId, ServerId, ShardId, Term, Version, VirtualServerId};
use crate::flow::TcpState;
use crate::flow::entry::Stamp;
use crate::flow::key::Key;
use crate::mirror::handle::{Handle, PLACES_MAX};
use crate::mirror::record::{FlowState, PLACE_BITS, Reader, Record, UPSERT, Writer};
use crate::mirror::said::{PLACES, Part, Said};

/// The source is translated too.
pub(super) const FULL_NAT: u8 = 1;
/// An operator chose to have the flow mirrored.
pub(super) const CHOSEN: u8 = 1 << 1;
/// The service that is said here is of another term than the frame.
pub(super) const OTHER_TERM: u8 = 1 << 2;
/// The flow has changed since it began, so its handle has a generation of its own.
pub(super) const OTHER_GENERATION: u8 = 1 << 3;
/// The version has more than 40 bits.
pub(super) const LONG_VERSION: u8 = 1 << 4;
/// The client's address is IPv6.
const CLIENT_V6: u8 = 1 << 5;
/// The server answers to an IPv6 address.
const ANSWERS_V6: u8 = 1 << 6;
/// The server answers to the client's own address and port.
pub(super) const ANSWERS_TO_CLIENT: u8 = 1 << 7;

/// A service or server is said here.
pub(super) const SAID_HERE: u8 = 1 << 7;
/// Its address is IPv6.
const PART_V6: u8 = 1 << 6;
const PLACE: u8 = PLACES as u8 - 1;
const _: () = assert!(PLACES.is_power_of_two() && PLACES <= PART_V6 as usize);

/// Bits of a version that is not long.
pub(super) const SHORT_VERSION_BITS: u32 = 40;

/// Up to the client's address.
const HEAD_LEN: usize = 16;
const PORT_LEN: usize = 2;
const GENERATION_LEN: usize = 2;
const TERM_LEN: usize = 8;
pub(super) const SERVICE_LEN: usize = 13;
pub(super) const SERVER_LEN: usize = 6;
pub(super) const V4_LEN: usize = 4;
const V6_LEN: usize = 16;

/// The longest: everything is said, and all of it IPv6.
pub(super) const MAX: usize =
    HEAD_LEN + PORT_LEN + 1 + GENERATION_LEN + TERM_LEN + SERVICE_LEN + SERVER_LEN + 4 * V6_LEN;

const fn address_len(is_v6: bool) -> usize {
    if is_v6 { V6_LEN } else { V4_LEN }
}

/// Bytes of the record that begins so.
#[inline]
pub(super) const fn len(flags: u8, service: u8, server: u8) -> usize {
    let mut len = HEAD_LEN + address_len(flags & CLIENT_V6 != 0);
    if flags & ANSWERS_TO_CLIENT == 0 {
        len += PORT_LEN + address_len(flags & ANSWERS_V6 != 0);
    }
    len += if flags & LONG_VERSION != 0 { 1 } else { 0 };
    len += if flags & OTHER_GENERATION != 0 { GENERATION_LEN } else { 0 };
    len += if flags & OTHER_TERM != 0 { TERM_LEN } else { 0 };
    len += if service & SAID_HERE != 0 { SERVICE_LEN + address_len(service & PART_V6 != 0) } else { 0 };
    len + if server & SAID_HERE != 0 { SERVER_LEN + address_len(server & PART_V6 != 0) } else { 0 }
}

/// Writes it; `None`: there is no room, and nothing was said.
pub(super) fn write(
    (shard, flow, handle): (ShardId, &FlowState, Handle),
    said: &mut Said,
    out: &mut [u8],
) -> Option<usize> {
    let FlowState { stamp, client, server: answers, .. } = flow;
    let (service, server) = (Part::service(flow), Part::server(flow));
    let (service_at, server_at) = (said.services.look(&service), said.servers.look(&server));
    let flag = |is_so, bit| if is_so { bit } else { 0 };
    let to_client = (answers.dst, answers.dst_port) == (client.src, client.src_port);
    let flags = flag(flow.full_nat, FULL_NAT)
        | flag(flow.chosen, CHOSEN)
        | flag(!service_at.1 && stamp.term != said.term, OTHER_TERM)
        | flag(handle.generation != stamp.version.0 as u16, OTHER_GENERATION)
        | flag(stamp.version.0 >> SHORT_VERSION_BITS != 0, LONG_VERSION)
        | flag(!client.src.is_v4(), CLIENT_V6)
        | flag(!to_client && !answers.dst.is_v4(), ANSWERS_V6)
        | flag(to_client, ANSWERS_TO_CLIENT);
    let mut w = Writer { out, at: 0 };
    w.u8(UPSERT)?;
    w.u8(flags)?;
    for ((place, is_said), part) in [(service_at, &service), (server_at, &server)] {
        let is_v6 = !part.address().is_v4();
        w.u8(if is_said { place } else { place | SAID_HERE | flag(is_v6, PART_V6) })?;
    }
    w.u32(u32::from(flow.tcp.number()) << PLACE_BITS | handle.place)?;
    w.u8(shard.0 as u8)?;
    w.u40(stamp.version.0)?;
    w.u16(client.src_port)?;
    w.address(&client.src)?;
    if !to_client {
        w.u16(answers.dst_port)?;
        w.address(&answers.dst)?;
    }
    if flags & LONG_VERSION != 0 {
        w.u8((stamp.version.0 >> SHORT_VERSION_BITS) as u8)?;
    }
    if flags & OTHER_GENERATION != 0 {
        w.u16(handle.generation)?;
    }
    if flags & OTHER_TERM != 0 {
        w.term(stamp.term)?;
    }
    if !service_at.1 {
        write_service(&service, &mut w)?;
    }
    if !server_at.1 {
        write_server(&server, &mut w)?;
    }
    let end = w.at;
    // Only what was written was said.
    said.services.put(service_at.0, service);
    said.servers.put(server_at.0, server);
    Some(end)
}

/// Writes a service in full.
fn write_service(part: &Part, w: &mut Writer<'_>) -> Option<()> {
    let ([virtual_server, pool], (protocol, vlan, port)) = (part.ids(), part.rest());
    w.u32(virtual_server)?;
    w.u32(pool)?;
    w.u8(protocol)?;
    w.u16(vlan)?;
    w.u16(port)?;
    w.address(&part.address())
}

/// Writes a real server in full.
fn write_server(part: &Part, w: &mut Writer<'_>) -> Option<()> {
    w.u32(part.ids()[0])?;
    w.u16(part.rest().2)?;
    w.address(&part.address())
}

/// Reads it, whole as it is; `None`: it contradicts itself, or names what was not said.
pub(super) fn read(bytes: &[u8], said: &mut Said) -> Option<Record> {
    let mut r = Reader { bytes };
    let [_, flags, service_at, server_at] = r.take()?;
    let has = |bit| flags & bit != 0;
    let place = r.u32()?;
    let shard = ShardId(r.u8()?.into());
    let mut version = r.u40()?;
    let src_port = r.u16()?;
    let src = r.address(has(CLIENT_V6))?;
    let (mut dst_port, mut dst) = (src_port, src);
    if !has(ANSWERS_TO_CLIENT) {
        dst_port = r.u16()?;
        dst = r.address(has(ANSWERS_V6))?;
    }
    if has(LONG_VERSION) {
        version |= u64::from(r.u8()?) << SHORT_VERSION_BITS;
    }
    let generation = if has(OTHER_GENERATION) { r.u16()? } else { version as u16 };
    let term = if has(OTHER_TERM) { r.term()? } else { said.term };
    // What it says of them holds whatever else is wrong with it.
    if service_at & SAID_HERE != 0 {
        let part = read_service(&mut r, service_at & PART_V6 != 0, term)?;
        said.services.put(service_at & PLACE, part);
    }
    if server_at & SAID_HERE != 0 {
        let part = read_server(&mut r, server_at & PART_V6 != 0)?;
        said.servers.put(server_at & PLACE, part);
    }
    // A place alone has no address and no term, and answers to the client have no address of their own.
    let is_alone = |at: u8| at & SAID_HERE == 0;
    if is_alone(service_at) && (service_at & PART_V6 != 0 || has(OTHER_TERM))
        || is_alone(server_at) && server_at & PART_V6 != 0
        || has(ANSWERS_TO_CLIENT) && has(ANSWERS_V6)
    {
        return None;
    }
    let service = said.services.at(service_at & PLACE)?;
    let server = said.servers.at(server_at & PLACE)?;
    let tcp = TcpState::from_number((place >> PLACE_BITS) as u8)?;
    let ([virtual_server, pool], (protocol, vlan, service_port)) = (service.ids(), service.rest());
    let client = Key { src, dst: service.address(), src_port, dst_port: service_port, vlan, protocol };
    let answers = Key { src: server.address(), dst, src_port: server.rest().2, dst_port, vlan: 0, protocol };
    let flow = FlowState {
        stamp: Stamp { term: service.term(), version: Version(version) },
        client,
        server: answers,
        virtual_server: VirtualServerId(virtual_server),
        pool: PoolId(pool),
        server_id: ServerId(server.ids()[0]),
        tcp,
        full_nat: has(FULL_NAT),
        chosen: has(CHOSEN),
    };
    Some(Record::Upsert { shard, flow, handle: Handle { place: place % PLACES_MAX, shard, generation } })
}

fn read_service(r: &mut Reader<'_>, is_v6: bool, term: Term) -> Option<Part> {
    let (ids, rest) = ([r.u32()?, r.u32()?], (r.u8()?, r.u16()?, r.u16()?));
    Some(Part::new(ids, rest, &r.address(is_v6)?, term))
}

fn read_server(r: &mut Reader<'_>, is_v6: bool) -> Option<Part> {
    let (id, port) = (r.u32()?, r.u16()?);
    Some(Part::new([id, 0], (0, 0, port), &r.address(is_v6)?, Term::NONE))
}
