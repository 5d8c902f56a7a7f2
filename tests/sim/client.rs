//! A client: TCP connections of several rounds of request and answer, every byte
//! verified, and UDP queries.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::agenda::{MS, Nanos};
use crate::packet::Packet;
use crate::tcp::{CHUNK, End, Source, State, refusal};

/// How long an ended connection keeps its port.
const TIME_WAIT: Nanos = 300 * MS;

/// A connection on which nothing came for so long is given up.
const PATIENCE: Nanos = 5_000 * MS;

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All answers came, whole.
    Done,
    /// It was reset.
    Reset,
    /// Nothing came for too long.
    TimedOut,
}

/// What a connection is to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub id: u64,
    /// The virtual server, by place.
    pub service: usize,
    pub rounds: u64,
    pub answer_len: u32,
    pub think: Nanos,
}

pub struct Connection {
    pub plan: Plan,
    pub end: End,
    /// When the newest segment came.
    heard_at: Nanos,
    pub syn_acked_at: Option<Nanos>,
    pub outcome: Option<(Outcome, Nanos)>,
    /// The next request is due.
    request_at: Option<Nanos>,
    verified: u64,
}

/// One query in so many is of [`LARGE`] bytes: it goes in fragments, and so does its answer.
const LARGE_EACH: usize = 4;
const LARGE: usize = 2000;

/// UDP queries from one port.
pub struct Queries {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    interval: Nanos,
    next_at: Nanos,
    until: Nanos,
    /// When each was sent and answered.
    pub log: Vec<(Nanos, Option<Nanos>)>,
}

#[derive(Default)]
pub struct Client {
    pub connections: Vec<Connection>,
    /// Those that have their ports still.
    live: BTreeMap<(SocketAddr, SocketAddr), usize>,
    pub queries: Vec<Queries>,
}

impl Client {
    pub fn uses(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.live.contains_key(&(local, remote))
    }

    /// Opens a connection; the caller saw that the ports are free.
    pub fn connect(
        &mut self,
        now: Nanos,
        local: SocketAddr,
        remote: SocketAddr,
        iss: u32,
        plan: Plan,
        out: &mut Vec<Packet>,
    ) {
        let source = Source::Request { id: plan.id, answer_len: plan.answer_len };
        let end = End::connect(now, local, remote, iss, source, out);
        self.live.insert((local, remote), self.connections.len());
        self.connections.push(Connection {
            plan,
            end,
            heard_at: now,
            syn_acked_at: None,
            outcome: None,
            request_at: None,
            verified: 0,
        });
    }

    /// Sends queries from now on.
    pub fn query(
        &mut self,
        now: Nanos,
        local: SocketAddr,
        remote: SocketAddr,
        interval: Nanos,
        until: Nanos,
    ) {
        self.queries.push(Queries { local, remote, interval, next_at: now, until, log: Vec::new() });
    }

    pub fn next_deadline(&self) -> Nanos {
        let connections = self.live.values().map(|at| self.connections[*at].next_deadline());
        let queries = self.queries.iter().filter(|q| q.next_at < q.until).map(|q| q.next_at);
        connections.chain(queries).min().unwrap_or(Nanos::MAX)
    }

    pub fn poll(&mut self, now: Nanos, out: &mut Vec<Packet>, complaints: &mut Vec<String>) {
        for at in self.live.values() {
            self.connections[*at].poll(now, out, complaints);
        }
        self.live.retain(|_, at| !self.connections[*at].is_over(now));
        for queries in &mut self.queries {
            if now >= queries.next_at && queries.next_at < queries.until {
                queries.next_at = now + queries.interval;
                let mut payload = (queries.log.len() as u64).to_le_bytes().to_vec();
                if queries.log.len() % LARGE_EACH == 0 {
                    payload.resize(LARGE, queries.log.len() as u8);
                }
                out.push(Packet { from: queries.local, to: queries.remote, tcp: None, payload });
                queries.log.push((now, None));
            }
        }
    }

    pub fn handle(
        &mut self,
        now: Nanos,
        packet: &Packet,
        out: &mut Vec<Packet>,
        complaints: &mut Vec<String>,
    ) {
        if packet.tcp.is_none() {
            return self.handle_answer(now, packet, complaints);
        }
        match self.live.get(&(packet.to, packet.from)) {
            Some(at) => {
                let connection = &mut self.connections[*at];
                let mut data = Vec::new();
                connection.end.handle(now, packet, &mut data, out);
                connection.take(now, &data, complaints);
                connection.poll(now, out, complaints);
            }
            None => out.extend(refusal(packet)),
        }
    }

    fn handle_answer(&mut self, now: Nanos, packet: &Packet, complaints: &mut Vec<String>) {
        let queries = self.queries.iter_mut().find(|q| q.local == packet.to && q.remote == packet.from);
        let number = packet.payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes) as usize);
        match queries.and_then(|queries| queries.log.get_mut(number?)) {
            Some((_, answered)) => *answered = answered.or(Some(now)),
            None => complaints.push(format!("an answer to nothing: {} > {}", packet.from, packet.to)),
        }
    }
}

impl Connection {
    /// Requests that were written.
    fn asked(&self) -> u64 {
        self.end.written / CHUNK
    }

    pub fn is_live(&self) -> bool {
        self.outcome.is_none()
    }

    fn is_over(&self, now: Nanos) -> bool {
        self.outcome.is_some_and(|(outcome, at)| outcome != Outcome::Done || now >= at + TIME_WAIT)
    }

    fn next_deadline(&self) -> Nanos {
        let over = self.outcome.map(|(_, at)| at + TIME_WAIT);
        let request = self.request_at.filter(|_| self.outcome.is_none());
        let patience = Some(self.heard_at + PATIENCE).filter(|_| self.outcome.is_none());
        [over, request, patience, self.end.retry_at].into_iter().flatten().min().unwrap_or(Nanos::MAX)
    }

    fn take(&mut self, now: Nanos, data: &[u8], complaints: &mut Vec<String>) {
        self.heard_at = now;
        let source = Source::Answer { id: self.plan.id };
        for byte in data {
            if *byte != source.byte(self.verified) {
                complaints.push(format!("connection {}: byte {} is wrong", self.plan.id, self.verified));
                break;
            }
            self.verified += 1;
        }
        let whole = self.verified == self.asked() * u64::from(self.plan.answer_len);
        if self.syn_acked_at.is_none() && self.end.state == State::Open {
            self.syn_acked_at = Some(now);
            self.request_at = Some(now);
        } else if whole && !data.is_empty() {
            self.request_at = Some(now + self.plan.think);
        }
    }

    fn poll(&mut self, now: Nanos, out: &mut Vec<Packet>, complaints: &mut Vec<String>) {
        self.end.poll(now, out);
        if self.outcome.is_some() {
            return;
        }
        if self.request_at.is_some_and(|at| now >= at) {
            self.request_at = None;
            if self.asked() < self.plan.rounds {
                self.end.written += CHUNK;
            } else {
                self.end.finished = true;
            }
            self.end.pump(now, out);
        }
        let outcome = match self.end.state {
            State::Reset => Outcome::Reset,
            State::TimedOut => Outcome::TimedOut,
            _ if now >= self.heard_at + PATIENCE => {
                self.end.state = State::TimedOut;
                Outcome::TimedOut
            }
            _ if self.end.all_acknowledged() && self.end.peer_finished => {
                self.end.state = State::TimeWait;
                self.end.retry_at = None;
                if self.verified != self.plan.rounds * u64::from(self.plan.answer_len) {
                    complaints.push(format!("connection {}: it ended early", self.plan.id));
                }
                Outcome::Done
            }
            _ => return,
        };
        self.outcome = Some((outcome, now));
    }
}
