//! A real server: it answers requests over TCP, echoes UDP, and resets what it does not
//! know, exactly as a kernel does.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::agenda::Nanos;
use crate::packet::{ACK, Packet, SYN};
use crate::tcp::{CHUNK, End, Source, State, refusal};

struct Connection {
    end: End,
    /// The connection's name, once the client said it.
    id: Option<u64>,
    /// Bytes of a request that is not whole yet.
    partial: Vec<u8>,
}

/// A port on which a live connection met the SYN of another one.
#[derive(Clone, Copy, Debug)]
pub struct Collision {
    pub at: Nanos,
    /// The connection that was there.
    pub id: u64,
    pub from: SocketAddr,
}

#[derive(Default)]
pub struct Server {
    connections: BTreeMap<(SocketAddr, SocketAddr), Connection>,
    iss: u32,
    pub collisions: Vec<Collision>,
}

impl Server {
    pub fn next_deadline(&self) -> Nanos {
        self.connections.values().filter_map(|c| c.end.retry_at).min().unwrap_or(Nanos::MAX)
    }

    pub fn poll(&mut self, now: Nanos, out: &mut Vec<Packet>) {
        self.connections.values_mut().for_each(|connection| connection.end.poll(now, out));
        self.forget();
    }

    fn forget(&mut self) {
        self.connections.retain(|_, connection| match connection.end.state {
            State::TimedOut | State::Reset => false,
            _ => !(connection.end.all_acknowledged() && connection.end.peer_finished),
        });
    }

    pub fn handle(
        &mut self,
        now: Nanos,
        packet: &Packet,
        out: &mut Vec<Packet>,
        complaints: &mut Vec<String>,
    ) {
        let Some(header) = packet.tcp else {
            out.push(Packet { from: packet.to, to: packet.from, ..packet.clone() });
            return;
        };
        let key = (packet.to, packet.from);
        let first_syn = header.flags & (SYN | ACK) == SYN;
        if let Some(known) = self.connections.get(&key)
            && first_syn
            && !known.end.is_of(&header)
        {
            if known.end.finished || known.end.state == State::SynReceived {
                // It waited for the last acknowledgement, or for a client that gave up.
                self.connections.remove(&key);
            } else if let Some(id) = known.id {
                self.collisions.push(Collision { at: now, id, from: packet.from });
            }
        }
        let Some(connection) = self.connections.get_mut(&key) else {
            if first_syn {
                self.iss = self.iss.wrapping_add(0x0100_3001);
                let end = End::accept(now, packet.to, packet.from, self.iss, &header, out);
                self.connections.insert(key, Connection { end, id: None, partial: Vec::new() });
            } else if let Some(reset) = refusal(packet) {
                out.push(reset);
            }
            return;
        };
        let mut data = Vec::new();
        connection.end.handle(now, packet, &mut data, out);
        connection.partial.extend_from_slice(&data);
        connection.serve(complaints);
        connection.end.pump(now, out);
        self.forget();
    }
}

impl Connection {
    fn serve(&mut self, complaints: &mut Vec<String>) {
        while self.partial.len() >= CHUNK as usize {
            let chunk: Vec<u8> = self.partial.drain(..CHUNK as usize).collect();
            let id = u64::from_le_bytes(chunk[..8].try_into().expect("8 bytes"));
            let answer_len = u32::from_le_bytes(chunk[12..16].try_into().expect("4 bytes"));
            let at = self.end.received - self.partial.len() as u64 - CHUNK;
            let source = Source::Request { id, answer_len };
            let whole = (0..CHUNK).all(|i| chunk[i as usize] == source.byte(at + i));
            if !whole || self.id.is_some_and(|known| known != id) {
                complaints.push(format!("a request of connection {id} in the stream of {:?}", self.id));
            }
            self.id = Some(id);
            self.end.source = Source::Answer { id };
            self.end.written += u64::from(answer_len);
        }
        if self.end.peer_finished {
            self.end.finished = true;
        }
    }
}
