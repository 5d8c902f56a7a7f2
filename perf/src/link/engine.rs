//! Generator and sink in one loop on one CPU: it sends clients' frames on one port, takes what
//! arrives on the other, answers it as the real servers if wanted, and takes the answers.
//!
//! Whatever it receives is counted and used again: a received buffer carries the next frame. So
//! buffers stay in the cache and the pool is seldom asked.

use core::net::IpAddr;

use arrayvec::ArrayVec;
use baton::wire::MacAddress;
use dpdk::clock::tsc;
use dpdk::{Burst, Mbuf, Mempool, RxQueue, TxQueue};

use crate::link::latency::Delays;
use crate::traffic::answer::{self, Seen};
use crate::traffic::connection::{self, Reply};
use crate::traffic::neighbour::{self, Heard};
use crate::traffic::{Draw, Template, population};

/// Packets in one burst.
pub const BURST: usize = 64;
/// Buffers kept for the next frames.
const STASH: usize = 512;
/// A turn of the loop that takes longer than this part of a second, 10 µs, was interrupted: with
/// full bursts both ways it takes seven.
const AWAY_PER_SECOND: u64 = 100_000;
/// Flows that are on their way at once while an appliance is made to know them all: less than its
/// rings hold, so that none is lost.
const OPENING_MAX: u64 = 512;

/// One port.
#[derive(Debug)]
pub struct End {
    /// Where it receives.
    pub rx: RxQueue,
    /// Where it sends.
    pub tx: TxQueue,
    /// Its link address.
    pub mac: MacAddress,
    /// Which addresses it answers for.
    pub ours: fn(IpAddr) -> bool,
}

/// What is sent.
#[derive(Debug)]
pub struct Load {
    /// Which flow is next.
    pub draw: Draw,
    /// The frames' templates, used in turn.
    pub templates: Vec<Template>,
    /// Whether what arrives at the servers is answered.
    pub answers: bool,
}

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As much as the appliance takes.
    Full,
    /// So many packets each second, stamped, their delays noted.
    PerSecond(f64),
}

/// What a run counted.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Time, in ticks.
    pub ticks: u64,
    /// Clients' frames that were sent.
    pub sent: u64,
    /// Frames that came to the servers.
    pub to_servers: u64,
    /// Frames that came to the clients.
    pub to_clients: u64,
    /// Frames left out because the generator was kept from its CPU when they were due, or because the
    /// port did not take them for a millisecond.
    pub skipped: u64,
    /// Delays from the clients to the servers, of stamped frames.
    pub delays: Delays,
    /// Stamped frames whose delay does not count, since the generator itself was kept from its CPU
    /// while they were under way.
    pub unseen: u64,
}

impl Counted {
    /// Packets that the appliance forwarded in a second.
    pub fn forwarded_per_second(&self, hz: u64) -> f64 {
        (self.to_servers + self.to_clients) as f64 * hz as f64 / self.ticks as f64
    }

    /// Frames that were due and do not count, or were not sent, in percent.
    pub fn left_out_percent(&self) -> f64 {
        (self.unseen + self.skipped) as f64 / (self.sent + self.skipped).max(1) as f64 * 100.0
    }

    /// Clients' frames that did not come to the servers, in percent. Those under way at the
    /// beginning and at the end are nearly as many.
    pub fn lost_percent(&self) -> f64 {
        (1.0 - self.to_servers as f64 / self.sent.max(1) as f64).max(0.0) * 100.0
    }
}

/// What whole connections came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connections {
    /// Time, in ticks.
    pub ticks: u64,
    /// Begun.
    pub begun: u64,
    /// Ended as they should.
    pub ended: u64,
    /// Packets that came through the appliance.
    pub packets: u64,
}

impl Connections {
    /// Connections that were begun and did not end, in percent. Those under way at the beginning
    /// and at the end are nearly as many.
    pub fn missing_percent(&self) -> f64 {
        self.begun.saturating_sub(self.ended) as f64 / self.begun.max(1) as f64 * 100.0
    }
}

/// A pair of ports and what is on its way.
#[derive(Debug)]
pub struct Engine {
    clients: End,
    servers: End,
    pool: Mempool,
    stash: ArrayVec<Mbuf, STASH>,
    /// Clients' frames that the port did not take yet.
    waiting: Burst<BURST>,
    /// Servers' answers that the port did not take yet.
    answers: Burst<BURST>,
    template: usize,
    /// The link address of an address that was asked for.
    told: Option<(IpAddr, MacAddress)>,
}

impl Engine {
    /// Between these ports.
    pub fn new(clients: End, servers: End, pool: Mempool) -> Engine {
        Engine {
            clients,
            servers,
            pool,
            stash: ArrayVec::new(),
            waiting: Burst::new(),
            answers: Burst::new(),
            template: 0,
            told: None,
        }
    }

    /// The clients' port.
    pub fn clients_mac(&self) -> MacAddress {
        self.clients.mac
    }

    /// Runs for so many ticks.
    pub fn run(&mut self, load: &mut Load, pace: Pace, ticks: u64, hz: u64) -> Counted {
        let mut counted = Counted::default();
        let begin = tsc();
        let per_tick = match pace {
            Pace::Full => 0.0,
            Pace::PerSecond(rate) => rate / hz as f64,
        };
        let late_max = (per_tick * hz as f64 / 1000.0) as u64 + BURST as u64;
        let (mut now, mut due_base) = (begin, begin);
        let (mut paced, away) = (0u64, hz / AWAY_PER_SECOND);
        // Frames that left before this time do not count.
        let mut back = if per_tick > 0.0 { begin } else { u64::MAX };
        while now.wrapping_sub(begin) < ticks {
            self.take_at_servers(load.answers, back, &mut counted);
            self.take_at_clients(&mut counted);
            if self.waiting.is_empty() {
                let (wanted, stamp) = if per_tick > 0.0 {
                    let due = ((now - due_base) as f64 * per_tick) as u64;
                    let mut wanted = due.saturating_sub(paced);
                    if wanted > late_max {
                        // The generator stood still, or the appliance takes less: no burst for it.
                        counted.skipped += wanted;
                        (due_base, paced, wanted) = (now, 0, 0);
                    }
                    let wanted = wanted.min(BURST as u64);
                    paced += wanted;
                    (wanted as usize, now)
                } else {
                    (BURST, 0)
                };
                self.make(load, wanted, stamp);
            }
            if !self.waiting.is_empty() {
                counted.sent += self.clients.tx.send(&mut self.waiting) as u64;
            }
            let before = now;
            now = tsc();
            if per_tick > 0.0 && now - before > away {
                // What was due meanwhile would come in one burst, which nobody asked for.
                let due = ((now - due_base) as f64 * per_tick) as u64;
                counted.skipped += due.saturating_sub(paced);
                (back, due_base, paced) = (now, now, 0);
            }
        }
        counted.ticks = now - begin;
        counted
    }

    /// Makes frames wait for the clients' port.
    #[inline]
    fn make(&mut self, load: &mut Load, wanted: usize, stamp: u64) {
        for _ in 0..wanted {
            let Some(mut packet) = self.buffer() else { return };
            let template = &load.templates[self.template];
            self.template += 1;
            if self.template == load.templates.len() {
                self.template = 0;
            }
            if packet.set_len(template.len()).is_err() {
                continue; // no buffer of the pool is that short
            }
            template.write(packet.head_mut(), population::source(load.draw.next_flow()), stamp);
            self.waiting.push(packet);
        }
    }

    /// A buffer for a frame.
    #[inline]
    fn buffer(&mut self) -> Option<Mbuf> {
        if self.stash.is_empty() && !self.pool.alloc_bulk(&mut self.stash, BURST) {
            return None;
        }
        self.stash.pop()
    }

    #[inline]
    fn keep(&mut self, packet: Mbuf) {
        // When there is no room it goes back to its pool.
        let _ = self.stash.try_push(packet);
    }

    /// Takes what came to the servers, and answers it. Delays count of frames that left at `since`
    /// or later. Says whether anything came.
    #[inline]
    fn take_at_servers(&mut self, answering: bool, since: u64, counted: &mut Counted) -> bool {
        if !self.answers.is_empty() {
            self.servers.tx.send(&mut self.answers);
            if !self.answers.is_empty() {
                return false; // what is not taken in fills the ring, and the appliance sees it
            }
        }
        let mut burst = Burst::<BURST>::new();
        if self.servers.rx.receive(&mut burst) == 0 {
            return false;
        }
        let now = if since < u64::MAX { tsc() } else { 0 };
        for mut packet in burst {
            let Some(seen) = answer::look(packet.head()) else {
                self.listen(packet, Side::Servers);
                continue;
            };
            counted.to_servers += 1;
            if since < u64::MAX {
                match answer::stamp(packet.head(), seen) {
                    stamp if stamp >= since => counted.delays.add(now.saturating_sub(stamp)),
                    _ => counted.unseen += 1,
                }
            }
            if answering {
                answer::turn(packet.head_mut(), seen);
                self.answers.push(packet);
            } else {
                self.keep(packet);
            }
        }
        if !self.answers.is_empty() {
            self.servers.tx.send(&mut self.answers);
        }
        true
    }

    /// Takes what came to the clients. Says whether anything came.
    #[inline]
    fn take_at_clients(&mut self, counted: &mut Counted) -> bool {
        let mut burst = Burst::<BURST>::new();
        if self.clients.rx.receive(&mut burst) == 0 {
            return false;
        }
        for packet in burst {
            if answer::look(packet.head()).is_some() {
                counted.to_clients += 1;
                self.keep(packet);
            } else {
                self.listen(packet, Side::Clients);
            }
        }
        true
    }

    /// What is not of a service: neighbours' questions and answers, heartbeats.
    #[cold]
    fn listen(&mut self, mut packet: Mbuf, side: Side) {
        let end = match side {
            Side::Clients => &mut self.clients,
            Side::Servers => &mut self.servers,
        };
        match neighbour::hear(packet.head(), end.mac, end.ours) {
            Heard::Asked(frame) => {
                if let Some(answer) = frame_in(&self.pool, &frame) {
                    // A full port: it will be asked again.
                    end.tx.send(&mut Burst::<1>::from([answer]));
                }
            }
            Heard::Told(address, mac) => self.told = Some((address, mac)),
            Heard::Nothing => {}
        }
        // Frames are written into buffers that are zero behind their beginning.
        packet.head_mut().fill(0);
    }

    /// The link address of `wanted`, asked for on the clients' port in the name of `from`;
    /// `None`: nobody answers within so many ticks.
    pub fn resolve(&mut self, from: IpAddr, wanted: IpAddr, ticks: u64) -> Option<MacAddress> {
        self.told = None;
        let begin = tsc();
        let mut asked = None;
        while tsc() - begin < ticks {
            if asked.is_none_or(|at| tsc() - at > ticks / 100) {
                asked = Some(tsc());
                let question = neighbour::ask(self.clients.mac, from, wanted);
                if let Some(question) = frame_in(&self.pool, &question) {
                    self.clients.tx.send(&mut Burst::<1>::from([question]));
                }
            }
            self.take_at_clients(&mut Counted::default());
            self.take_at_servers(false, u64::MAX, &mut Counted::default());
            if let Some((_, mac)) = self.told.filter(|(address, _)| *address == wanted) {
                return Some(mac);
            }
            // The appliance's other threads may share this CPU.
            std::thread::sleep(core::time::Duration::from_micros(100));
        }
        None
    }

    /// Sends one packet of every flow and waits until all have come through, so that the appliance
    /// knows them; says how many came through. Gives up when nothing comes for a second.
    pub fn acquaint(&mut self, load: &Load, hz: u64) -> u64 {
        let template = &load.templates[0];
        let (flows, mut next, mut came) = (load.draw.places(), 0, 0);
        let mut counted = Counted::default();
        let (mut last, mut lost) = (tsc(), 0);
        while came + lost < flows {
            while next < flows && next.saturating_sub(came + lost) < OPENING_MAX && !self.waiting.is_full() {
                let Some(mut packet) = self.buffer() else { break };
                if packet.set_len(template.len()).is_ok() {
                    template.write(packet.head_mut(), population::source(load.draw.holder(next)), 0);
                    self.waiting.push(packet);
                    next += 1;
                }
            }
            self.clients.tx.send(&mut self.waiting);
            self.take_at_servers(load.answers, u64::MAX, &mut counted);
            self.take_at_clients(&mut counted);
            if counted.to_servers > came {
                (came, last) = (counted.to_servers, tsc());
            } else if tsc() - last > hz / 10 {
                // What has not come by now is lost.
                if tsc() - last > hz {
                    return came;
                }
                lost = next.saturating_sub(came);
            }
        }
        came
    }

    /// Opens, uses and closes connections for so many ticks, `at_once` at a time, beginning with
    /// the flow of this number. With `close` false they stay open, and `limit` of them are opened.
    pub fn connect(&mut self, template: &Template, how: &Connect, ticks: u64, hz: u64) -> Connections {
        let mut counted = Connections::default();
        let begin = tsc();
        let (mut now, mut last) = (begin, begin);
        let mut lost = 0;
        while now - begin < ticks && (how.close || counted.ended + lost < how.limit) {
            let ended = counted.ended;
            let under_way = counted.begun.saturating_sub(counted.ended + lost);
            let room = how.at_once.saturating_sub(under_way).min((BURST - self.waiting.len()) as u64);
            for _ in 0..room.min(how.limit.saturating_sub(counted.begun)) {
                let Some(mut packet) = self.buffer() else { break };
                if packet.set_len(template.len()).is_err() {
                    continue;
                }
                connection::open(template, packet.head_mut(), population::source(how.first + counted.begun));
                self.waiting.push(packet);
                counted.begun += 1;
            }
            self.clients.tx.send(&mut self.waiting);
            self.serve_connections(&mut counted);
            self.ask_connections(how.close, &mut counted);
            now = tsc();
            if counted.ended > ended {
                last = now;
            } else if now - last > hz / 20 {
                // Connections of which a segment was lost do not end.
                lost = counted.begun.saturating_sub(counted.ended);
                last = now;
            }
        }
        counted.ticks = now - begin;
        counted
    }

    fn serve_connections(&mut self, counted: &mut Connections) {
        self.servers.tx.send(&mut self.answers);
        if !self.answers.is_empty() {
            return;
        }
        let mut burst = Burst::<BURST>::new();
        self.servers.rx.receive(&mut burst);
        for mut packet in burst {
            let Some(seen) = answer::look(packet.head()).filter(is_tcp) else {
                self.listen(packet, Side::Servers);
                continue;
            };
            counted.packets += 1;
            match connection::serve(packet.head_mut(), seen) {
                Reply::One => self.answers.push(packet),
                _ => self.keep(packet),
            }
        }
        self.servers.tx.send(&mut self.answers);
    }

    fn ask_connections(&mut self, close: bool, counted: &mut Connections) {
        // Each received segment makes two at most.
        if self.waiting.len() > BURST / 2 {
            return;
        }
        let mut burst = Burst::<{ BURST / 4 }>::new();
        self.clients.rx.receive(&mut burst);
        for mut packet in burst {
            let Some(seen) = answer::look(packet.head()).filter(is_tcp) else {
                self.listen(packet, Side::Clients);
                continue;
            };
            counted.packets += 1;
            match connection::ask(packet.head_mut(), seen, close) {
                Reply::Two { second } => {
                    let following = self.buffer().and_then(|mut next| {
                        next.set_len(packet.head().len()).ok()?;
                        second.follow(packet.head(), next.head_mut(), seen);
                        Some(next)
                    });
                    self.waiting.push(packet);
                    self.waiting.extend(following);
                }
                Reply::One => self.waiting.push(packet),
                Reply::Last => {
                    counted.ended += 1;
                    self.waiting.push(packet);
                }
                Reply::Nothing => self.keep(packet),
            }
        }
        self.clients.tx.send(&mut self.waiting);
    }
}

/// How connections are made.
#[derive(Clone, Copy, Debug)]
pub struct Connect {
    /// The number of the first one's flow; the others count up.
    pub first: u64,
    /// How many are under way at once.
    pub at_once: u64,
    /// Whether they are used and closed; else they stay open.
    pub close: bool,
    /// How many are made at most.
    pub limit: u64,
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Clients,
    Servers,
}

fn is_tcp(seen: &Seen) -> bool {
    seen.protocol == crate::traffic::Protocol::Tcp
}

fn frame_in(pool: &Mempool, bytes: &[u8]) -> Option<Mbuf> {
    let mut packet = pool.alloc()?;
    packet.set_len(bytes.len()).ok()?;
    packet.head_mut().copy_from_slice(bytes);
    Some(packet)
}
