//! Whole TCP connections: open, request, answer, close, in nine packets.
//!
//! ```text
//! client                        server
//!   SYN            1 ->
//!                  <- 2         SYN ACK
//!   ACK            3 ->
//!   request        4 ->
//!                  <- 5         answer
//!   ACK            6 ->
//!   FIN            7 ->
//!                  <- 8         FIN ACK
//!   ACK            9 ->
//! ```
//!
//! Neither side remembers anything: all that it has to say follows from the segment that it
//! received. A lost segment ends its connection; whoever counts will find it missing.
//!
//! RFC 9293 section 3.5 (opening), 3.6 (closing). Windows are large and never filled; there
//! are no options.

use crate::traffic::answer::{Seen, turn};
use crate::traffic::frame::{ACK, ETHERNET, FIN, PUSH, SYN, checksum, sum};
use crate::traffic::{Family, Place, Protocol, Shape, Source, Template};

/// Packets of one connection.
pub const PACKETS: u64 = 9;
/// Bytes of a request and of an answer: what fits into an IPv4 frame of 64 bytes.
pub const DATA: usize = 10;

/// What follows from a received segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nothing,
    /// One segment, written over the received one.
    One,
    /// One segment, written over the received one, and after it another one.
    Two {
        /// The second segment's control bits and payload, for [`Segment::follow`].
        second: Segment,
    },
    /// One segment, written over the received one: the connection's last.
    Last,
}

/// What a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    flags: u8,
    sequence: u32,
    acknowledgement: u32,
    /// Payload in bytes.
    data: usize,
}

impl Segment {
    fn read(frame: &[u8], seen: Seen) -> Segment {
        let l4 = seen.l4;
        let word = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let l4_len = if l4 == ETHERNET + 20 {
            usize::from(u16::from_be_bytes([frame[16], frame[17]])) - 20
        } else {
            usize::from(u16::from_be_bytes([frame[18], frame[19]]))
        };
        Segment {
            flags: frame[l4 + 13],
            sequence: word(l4 + 4),
            acknowledgement: word(l4 + 8),
            data: l4_len.saturating_sub(usize::from(frame[l4 + 12] >> 4) * 4),
        }
    }

    /// Writes itself over a frame whose addresses and ports are right already.
    fn write(self, frame: &mut [u8], seen: Seen) {
        let l4 = seen.l4;
        let l4_len = 20 + self.data;
        let addresses = if l4 == ETHERNET + 20 {
            frame[16..18].copy_from_slice(&((20 + l4_len) as u16).to_be_bytes());
            frame[24..26].fill(0);
            let header = checksum(sum(&frame[ETHERNET..l4]));
            frame[24..26].copy_from_slice(&header.to_be_bytes());
            sum(&frame[26..34])
        } else {
            frame[18..20].copy_from_slice(&(l4_len as u16).to_be_bytes());
            sum(&frame[22..54])
        };
        frame[l4 + 4..l4 + 8].copy_from_slice(&self.sequence.to_be_bytes());
        frame[l4 + 8..l4 + 12].copy_from_slice(&self.acknowledgement.to_be_bytes());
        frame[l4 + 12..l4 + 20].copy_from_slice(&[0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        frame[l4 + 20..].fill(0); // the data, and padding
        let whole = addresses + 6 + l4_len as u64 + sum(&frame[l4..l4 + 20]);
        frame[l4 + 16..l4 + 18].copy_from_slice(&checksum(whole).to_be_bytes());
    }

    /// Writes itself into `second`, as the successor of the frame that was just written.
    pub fn follow(self, first: &[u8], second: &mut [u8], seen: Seen) {
        second.copy_from_slice(first);
        self.write(second, seen);
    }
}

/// Writes the first segment of a connection.
pub fn open(template: &Template, frame: &mut [u8], source: Source) {
    template.write(frame, source, 0);
    let seen = Seen { protocol: Protocol::Tcp, l4: template.shape().l4_offset() };
    let sequence = source.host.wrapping_mul(0x9e37_79b1) ^ u32::from(source.port) << 16;
    Segment { flags: SYN, sequence, acknowledgement: 0, data: 0 }.write(frame, seen);
}

/// The template for [`open`]: frames that hold a request, 64 bytes (IPv6: 84).
pub fn template(family: Family, place: &Place) -> Template {
    let headers = Shape { family, protocol: Protocol::Tcp, len: 0 }.stamp_offset();
    Template::new(Shape { family, protocol: Protocol::Tcp, len: (headers + DATA) as u16 }, place)
}

/// The server's reply, written over the received frame.
pub fn serve(frame: &mut [u8], seen: Seen) -> Reply {
    let got = Segment::read(frame, seen);
    let reply = match got.flags & (SYN | FIN | PUSH | ACK) {
        SYN => Segment {
            flags: SYN | ACK,
            sequence: got.sequence.rotate_left(16) ^ 0x5555_5555,
            acknowledgement: got.sequence.wrapping_add(1),
            data: 0,
        },
        flags if flags == PUSH | ACK => Segment {
            flags: PUSH | ACK,
            sequence: got.acknowledgement,
            acknowledgement: got.sequence.wrapping_add(got.data as u32),
            data: DATA,
        },
        flags if flags == FIN | ACK => Segment {
            flags: FIN | ACK,
            sequence: got.acknowledgement,
            acknowledgement: got.sequence.wrapping_add(1),
            data: 0,
        },
        _ => return Reply::Nothing,
    };
    turn(frame, seen);
    reply.write(frame, seen);
    Reply::One
}

/// The client's reply, the first segment of it written over the received frame. With `close`
/// false it stays silent after the handshake, and the connection open.
pub fn ask(frame: &mut [u8], seen: Seen, close: bool) -> Reply {
    let got = Segment::read(frame, seen);
    let flags = got.flags & (SYN | FIN | PUSH | ACK);
    // SYN and FIN take a sequence number each (RFC 9293 section 3.4).
    let taken = got.data as u32 + u32::from(flags & (SYN | FIN) != 0);
    let ack = Segment {
        flags: ACK,
        sequence: got.acknowledgement,
        acknowledgement: got.sequence.wrapping_add(taken),
        data: 0,
    };
    let reply = match flags {
        flags if flags == SYN | ACK && close => {
            Reply::Two { second: Segment { flags: PUSH | ACK, data: DATA, ..ack } }
        }
        flags if flags == SYN | ACK => Reply::Last,
        flags if flags == PUSH | ACK => Reply::Two { second: Segment { flags: FIN | ACK, ..ack } },
        flags if flags == FIN | ACK => Reply::Last,
        _ => return Reply::Nothing,
    };
    turn(frame, seen);
    ack.write(frame, seen);
    reply
}
