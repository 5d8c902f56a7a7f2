//! One end of a TCP connection, as small as a stream that must arrive whole allows: a
//! handshake, a few segments in flight, go-back-N with a doubling time-out, FIN, RST.
//! RFC 9293; the treatment of stray SYN and RST follows RFC 5961, as kernels do.

use std::net::SocketAddr;

use crate::agenda::{MS, Nanos};
use crate::packet::{ACK, FIN, Header, Packet, RST, SYN};

const SEGMENT: u64 = 600;
const WINDOW: u64 = 4 * SEGMENT;
/// Linux's smallest.
const RTO_MIN: Nanos = 200 * MS;
/// Far below Linux's largest, so that a run ends soon.
const RTO_MAX: Nanos = 400 * MS;
const TRIES_MAX: u32 = 14;

/// What an end sends: every byte follows from its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A client's: chunks of [`CHUNK`] bytes that name the connection and the answer's length.
    Request { id: u64, answer_len: u32 },
    /// A server's, to the connection of this name.
    Answer { id: u64 },
}

/// Bytes of a request.
pub const CHUNK: u64 = 32;

impl Source {
    pub fn byte(self, at: u64) -> u8 {
        match self {
            Source::Request { id, answer_len } => match at % CHUNK {
                i @ 0..8 => (id >> (8 * i)) as u8,
                i @ 8..12 => ((at / CHUNK) >> (8 * (i - 8))) as u8,
                i @ 12..16 => (answer_len >> (8 * (i - 12))) as u8,
                _ => mixed(id, at),
            },
            Source::Answer { id } => mixed(!id, at),
        }
    }
}

fn mixed(id: u64, at: u64) -> u8 {
    ((id ^ at.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    SynSent,
    SynReceived,
    Open,
    /// Nothing more to send or to receive; late segments are answered.
    TimeWait,
    /// No answer came in all tries.
    TimedOut,
    Reset,
}

/// One end.
#[derive(Clone, Debug)]
pub struct End {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub state: State,
    pub source: Source,
    /// Bytes handed to be sent.
    pub written: u64,
    /// No more will be.
    pub finished: bool,
    /// Bytes received in order.
    pub received: u64,
    pub peer_finished: bool,
    pub iss: u32,
    irs: u32,
    una: u64,
    next: u64,
    rto: Nanos,
    tries: u32,
    pub retry_at: Option<Nanos>,
}

impl End {
    /// A client's end; its SYN goes out.
    pub fn connect(
        now: Nanos,
        local: SocketAddr,
        remote: SocketAddr,
        iss: u32,
        source: Source,
        out: &mut Vec<Packet>,
    ) -> End {
        let mut end = End::new(local, remote, iss, source, State::SynSent);
        end.send(SYN, 0, out);
        end.arm(now);
        end
    }

    /// A server's end that answers a SYN.
    pub fn accept(
        now: Nanos,
        local: SocketAddr,
        remote: SocketAddr,
        iss: u32,
        syn: &Header,
        out: &mut Vec<Packet>,
    ) -> End {
        let mut end = End::new(local, remote, iss, Source::Answer { id: 0 }, State::SynReceived);
        end.irs = syn.seq;
        end.send(SYN | ACK, 0, out);
        end.arm(now);
        end
    }

    fn new(local: SocketAddr, remote: SocketAddr, iss: u32, source: Source, state: State) -> End {
        End {
            local,
            remote,
            state,
            source,
            written: 0,
            finished: false,
            received: 0,
            peer_finished: false,
            iss,
            irs: 0,
            una: 0,
            next: 0,
            rto: RTO_MIN,
            tries: 0,
            retry_at: None,
        }
    }

    /// All was sent and acknowledged, FIN included.
    pub fn all_acknowledged(&self) -> bool {
        self.finished && self.una > self.written
    }

    /// The client's SYN, if it is a new one's.
    pub fn is_of(&self, syn: &Header) -> bool {
        self.irs == syn.seq
    }

    fn arm(&mut self, now: Nanos) {
        self.retry_at = Some(now + self.rto);
    }

    /// Handles a segment; bytes that arrive in order go to `data`.
    pub fn handle(&mut self, now: Nanos, packet: &Packet, data: &mut Vec<u8>, out: &mut Vec<Packet>) {
        let Some(header) = packet.tcp else { return };
        match self.state {
            State::SynSent => self.handle_syn_sent(now, &header, out),
            State::SynReceived | State::Open | State::TimeWait => {
                self.handle_open(now, &header, &packet.payload, data, out);
            }
            State::TimedOut | State::Reset => {}
        }
    }

    fn handle_syn_sent(&mut self, now: Nanos, header: &Header, out: &mut Vec<Packet>) {
        let acceptable = header.flags & ACK != 0 && header.ack == self.iss.wrapping_add(1);
        if header.flags & RST != 0 {
            if acceptable {
                self.state = State::Reset;
            }
        } else if header.flags & ACK != 0 && !acceptable {
            // An older connection's other end challenges: tell it that it is over.
            out.push(self.packet(RST, header.ack, 0, Vec::new()));
        } else if header.flags & (SYN | ACK) == SYN | ACK {
            self.irs = header.seq;
            self.state = State::Open;
            self.settle();
            self.send(ACK, self.next, out);
            self.pump(now, out);
        }
    }

    fn handle_open(
        &mut self,
        now: Nanos,
        header: &Header,
        payload: &[u8],
        data: &mut Vec<u8>,
        out: &mut Vec<Packet>,
    ) {
        if header.flags & RST != 0 {
            if header.seq == self.rcv_nxt() {
                self.state = State::Reset;
            }
            return;
        }
        if header.flags & SYN != 0 {
            if self.state == State::SynReceived {
                self.send(SYN | ACK, 0, out);
            } else {
                self.send(ACK, self.next, out);
            }
            return;
        }
        if header.flags & ACK != 0 {
            let ahead = header.ack.wrapping_sub(self.seq_at(self.una)) as i32;
            let end = self.written + u64::from(self.finished);
            if ahead > 0 && self.una + ahead as u64 <= end {
                self.una += ahead as u64;
                self.next = self.next.max(self.una);
                self.settle();
            }
            if self.state == State::SynReceived && ahead >= 0 {
                self.state = State::Open;
                self.settle();
            }
        }
        let behind = self.rcv_nxt().wrapping_sub(header.seq) as i32;
        let fin = header.flags & FIN != 0;
        if behind >= 0 && !self.peer_finished {
            if let Some(new) = payload.get(behind as usize..) {
                data.extend_from_slice(new);
                self.received += new.len() as u64;
                self.peer_finished = fin;
            }
        }
        if !payload.is_empty() || fin {
            self.send(ACK, self.next, out);
        }
        self.pump(now, out);
    }

    /// Time passed: resends.
    pub fn poll(&mut self, now: Nanos, out: &mut Vec<Packet>) {
        if self.retry_at.is_none_or(|at| now < at) {
            return;
        }
        self.retry_at = None;
        self.tries += 1;
        if self.tries > TRIES_MAX {
            self.state = State::TimedOut;
            return;
        }
        self.rto = (self.rto * 2).min(RTO_MAX);
        match self.state {
            State::SynSent => self.send(SYN, 0, out),
            State::SynReceived => self.send(SYN | ACK, 0, out),
            State::Open => {
                self.next = self.una;
                return self.pump(now, out);
            }
            State::TimeWait | State::TimedOut | State::Reset => return,
        }
        self.arm(now);
    }

    /// Sends what may be sent.
    pub fn pump(&mut self, now: Nanos, out: &mut Vec<Packet>) {
        if self.state != State::Open {
            return;
        }
        while self.next < self.written && self.next - self.una < WINDOW {
            let len = SEGMENT.min(self.written - self.next);
            let payload = (self.next..self.next + len).map(|at| self.source.byte(at)).collect();
            out.push(self.packet(ACK, self.seq_at(self.next), self.rcv_nxt(), payload));
            self.next += len;
        }
        if self.finished && self.next == self.written {
            self.send(FIN | ACK, self.next, out);
            self.next += 1;
        }
        if self.una < self.next {
            if self.retry_at.is_none() {
                self.arm(now);
            }
        } else {
            self.retry_at = None;
        }
    }

    /// Something was acknowledged: the time-out starts afresh.
    fn settle(&mut self) {
        (self.rto, self.tries, self.retry_at) = (RTO_MIN, 0, None);
    }

    fn seq_at(&self, at: u64) -> u32 {
        self.iss.wrapping_add(1).wrapping_add(at as u32)
    }

    fn rcv_nxt(&self) -> u32 {
        self.irs.wrapping_add(1).wrapping_add((self.received + u64::from(self.peer_finished)) as u32)
    }

    fn send(&self, flags: u8, at: u64, out: &mut Vec<Packet>) {
        let seq = if flags & SYN != 0 { self.iss } else { self.seq_at(at) };
        let ack = if flags & ACK != 0 { self.rcv_nxt() } else { 0 };
        out.push(self.packet(flags, seq, ack, Vec::new()));
    }

    fn packet(&self, flags: u8, seq: u32, ack: u32, payload: Vec<u8>) -> Packet {
        Packet { from: self.local, to: self.remote, tcp: Some(Header { flags, seq, ack }), payload }
    }
}

/// What a kernel answers to a segment of a connection that it does not know (RFC 9293 section 3.10.7.1).
pub fn refusal(packet: &Packet) -> Option<Packet> {
    let header = packet.tcp?;
    if header.flags & RST != 0 {
        return None;
    }
    let len =
        packet.payload.len() as u32 + u32::from(header.flags & SYN != 0) + u32::from(header.flags & FIN != 0);
    let (flags, seq, ack) = if header.flags & ACK != 0 {
        (RST, header.ack, 0)
    } else {
        (RST | ACK, 0, header.seq.wrapping_add(len))
    };
    Some(Packet {
        from: packet.to,
        to: packet.from,
        tcp: Some(Header { flags, seq, ack }),
        payload: Vec::new(),
    })
}
