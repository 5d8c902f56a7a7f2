//! A crowd of clients: so many connections open all the time, short ones with a few requests and downloads that last, each
//! judged by itself, byte by byte. One thread serves them all.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use fastrand::Rng;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

use crate::command::inside;
use crate::world::World;

/// How long a client waits for a SYN-ACK. Linux sends a SYN again after 1, 3, 7 seconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// For so long nothing may come of what is awaited: longer than a transfer stands still through a takeover, by far.
const SILENCE_LIMIT: Duration = Duration::from_secs(15);
/// Requests of a short connection, one after another.
const REQUESTS: usize = 3;
/// Before each of them, at most.
const THINK_MAX: Duration = Duration::from_millis(1500);
/// From a connection's end to the next one's beginning, at most.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// The first ones begin within this.
const RAMP: Duration = Duration::from_secs(3);
/// Between two looks at who has waited long enough.
const TICK: Duration = Duration::from_millis(10);
/// Failures that are told of each kind; all are counted.
const TOLD_MAX: usize = 20;
const HEAD_BYTES_MAX: usize = 4096;
/// Descriptors of this process besides the connections.
const OTHER_DESCRIPTORS: u64 = 1024;

/// What a client fetches, and how.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// The path and query.
    pub path: String,
    /// What has to come.
    pub content: Arc<[u8]>,
}

/// Who is in the crowd.
#[derive(Clone, Debug)]
pub struct Load {
    /// Clients that open a connection, make three requests with pauses between, close it and open the next.
    pub short: usize,
    /// Clients that do so when they are told, all at once, one connection each.
    pub bursting: usize,
    /// What both fetch.
    pub short_fetch: Fetch,
    /// Clients that download slowly, again and again.
    pub slow: usize,
    /// What they fetch.
    pub slow_fetch: Fetch,
    /// Clients that download without long pauses between bytes: they show how long a transfer stands still.
    pub brisk: usize,
    /// What they fetch.
    pub brisk_fetch: Fetch,
    /// Decides about pauses.
    pub seed: u64,
}

impl Load {
    /// All of them.
    fn clients(&self) -> usize {
        self.short + self.bursting + self.slow + self.brisk
    }
}

/// What became of the connections.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Begun: a SYN was sent.
    pub begun: usize,
    /// Opened: a SYN-ACK came. From then on a connection is protected, with `commit = "hold"`.
    pub opened: usize,
    /// Came to their end, with all bytes right.
    pub complete: usize,
    /// Of these, those that were open at a fault.
    pub survived: usize,
    /// Opened, and then reset, cut off, wrong in a byte, or silent for too long.
    pub lost: usize,
    /// What they say (at most 20).
    pub broken: Vec<String>,
    /// Never opened.
    pub unopened: usize,
    /// What they say (at most 20).
    pub refused: Vec<String>,
    /// Short connections that are open now.
    pub short_open: usize,
    /// Long ones.
    pub long_open: usize,
    /// Bytes that came, all of them right.
    pub bytes: u64,
    /// Of each brisk client whose connection was open at the newest fault, the longest time without a byte since.
    pub stalls: Vec<Duration>,
    faults: Vec<Instant>,
}

impl Tally {
    fn tell(list: &mut Vec<String>, sentence: String) {
        if list.len() < TOLD_MAX {
            list.push(sentence);
        }
    }
}

/// A crowd under way, from the client's namespace.
#[derive(Debug)]
pub struct Crowd {
    stop: Arc<AtomicBool>,
    burst: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    thread: JoinHandle<Result<()>>,
}

impl Crowd {
    /// Starts it; clients go to these web servers in turn.
    pub fn start(world: &World, servers: Vec<SocketAddr>, load: Load) -> Result<Crowd> {
        ensure!(!servers.is_empty() && load.clients() > 0, "no connections are asked for");
        let wanted = load.clients() as u64 + OTHER_DESCRIPTORS;
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        if soft < wanted {
            setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).context("too few descriptors")?;
        }
        let namespace = world.namespace("client");
        let tally = Tally { stalls: vec![Duration::ZERO; load.brisk], ..Tally::default() };
        let [stop, burst] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let tally = Arc::new(Mutex::new(tally));
        let (stopped, at_once, shared) = (Arc::clone(&stop), Arc::clone(&burst), Arc::clone(&tally));
        let thread = std::thread::spawn(move || {
            // Threads inherit the namespace of the one that starts them; sockets have that of their thread.
            inside(&namespace, || Clients::new(&servers, load, &shared)?.serve(&stopped, &at_once))
        });
        Ok(Crowd { stop, burst, tally, thread })
    }

    /// How it stands.
    pub fn so_far(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// How many connections were opened so far.
    pub fn opened(&self) -> usize {
        lock(&self.tally).opened
    }

    /// Has those clients that wait for it open a connection each, within milliseconds.
    pub fn burst(&self) {
        self.burst.store(true, Ordering::Relaxed);
    }

    /// A fault comes now: whoever is open meets it. How it stands just before.
    pub fn fault(&self) -> Tally {
        let mut tally = lock(&self.tally);
        let before = tally.clone();
        tally.faults.push(Instant::now());
        tally.stalls.fill(Duration::ZERO);
        before
    }

    /// An error if it has ended of itself.
    pub fn still_runs(&self) -> Result<()> {
        ensure!(!self.thread.is_finished(), "the crowd has ended");
        Ok(())
    }

    /// Begins no more, waits for those under way, and reports.
    pub fn finish(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the crowd panicked"))??;
        Ok(lock(&self.tally).clone())
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Short,
    Bursting,
    Slow,
    /// With its number among the stalls.
    Brisk(usize),
}

#[derive(Debug)]
enum State {
    /// Begins at this time, if at any.
    Pausing(Option<Instant>),
    Connecting(TcpStream, Instant),
    /// Asks at this time.
    Thinking(TcpStream, Instant),
    Receiving(TcpStream, Answer),
}

/// What came of an answer.
#[derive(Debug)]
struct Answer {
    head: Vec<u8>,
    /// Bytes of the body, once the head is over.
    body: Option<usize>,
    /// When the newest byte came, or the request was sent.
    last: Instant,
}

#[derive(Debug)]
struct Client {
    kind: Kind,
    state: State,
    server: SocketAddr,
    opened_at: Instant,
    requests_left: usize,
    /// Its own address, for what is told.
    from: String,
}

struct Clients<'a> {
    servers: std::iter::Cycle<std::slice::Iter<'a, SocketAddr>>,
    load: Load,
    tally: &'a Mutex<Tally>,
    epoll: Epoll,
    clients: Vec<Client>,
    rng: Rng,
}

/// What became of a step with a connection.
enum Step {
    Waits,
    /// All of an answer is there.
    Whole,
}

impl<'a> Clients<'a> {
    fn new(servers: &'a [SocketAddr], load: Load, tally: &'a Mutex<Tally>) -> Result<Clients<'a>> {
        let kinds = std::iter::repeat_n(Kind::Short, load.short)
            .chain(std::iter::repeat_n(Kind::Bursting, load.bursting))
            .chain(std::iter::repeat_n(Kind::Slow, load.slow))
            .chain((0..load.brisk).map(Kind::Brisk));
        let now = Instant::now();
        let mut rng = Rng::with_seed(load.seed);
        let clients = kinds
            .map(|kind| Client {
                kind,
                state: State::Pausing((kind != Kind::Bursting).then(|| now + RAMP.mul_f64(rng.f64()))),
                server: servers[0],
                opened_at: now,
                requests_left: 0,
                from: String::new(),
            })
            .collect();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Clients { servers: servers.iter().cycle(), load, tally, epoll, clients, rng })
    }

    fn serve(&mut self, stop: &AtomicBool, burst: &AtomicBool) -> Result<()> {
        let mut events = vec![EpollEvent::empty(); 256];
        let mut tick = Instant::now();
        loop {
            let stopping = stop.load(Ordering::Relaxed);
            let count = match self.epoll.wait(&mut events, EpollTimeout::from(TICK.as_millis() as u8)) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => return Err(error).context("cannot wait for connections"),
            };
            for event in &events[..count] {
                self.ready(event.data() as usize, stopping);
            }
            let now = Instant::now();
            if burst.swap(false, Ordering::Relaxed) {
                let waits = |client: &&mut Client| matches!(client.state, State::Pausing(None));
                self.clients
                    .iter_mut()
                    .filter(waits)
                    .for_each(|client| client.state = State::Pausing(Some(now)));
            }
            if now >= tick {
                tick = now + TICK;
                (0..self.clients.len()).for_each(|index| self.look(index, now, stopping));
                let idle = |client: &Client| matches!(client.state, State::Pausing(_));
                if stopping && self.clients.iter().all(idle) {
                    return Ok(());
                }
            }
        }
    }

    /// Something is ready at a client's connection.
    fn ready(&mut self, index: usize, stopping: bool) {
        let now = Instant::now();
        let pause = self.pause(index, now);
        let client = &mut self.clients[index];
        match std::mem::replace(&mut client.state, State::Pausing(pause)) {
            State::Pausing(until) => client.state = State::Pausing(until),
            State::Connecting(stream, _) => match self.opened(index, stream, now) {
                Ok(()) => {}
                Err(error) => self.refused(index, &error),
            },
            State::Thinking(mut stream, until) => {
                // Nothing is asked for: nothing may come.
                match stream.read(&mut [0; 1]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        client.state = State::Thinking(stream, until);
                    }
                    Ok(0) => self.broken(index, now, "the server closed between two requests"),
                    Ok(_) => self.broken(index, now, "bytes came that nobody had asked for"),
                    Err(error) => self.broken(index, now, &error.to_string()),
                }
            }
            State::Receiving(mut stream, mut answer) => match self.receive(index, &mut stream, &mut answer) {
                Ok(Step::Waits) => self.clients[index].state = State::Receiving(stream, answer),
                Ok(Step::Whole) => self.answered(index, stream, now, stopping),
                Err(error) => {
                    self.broken(index, now, &format!("{error:#}, after {} bytes", answer.body.unwrap_or(0)))
                }
            },
        }
    }

    /// Time goes by for a client.
    fn look(&mut self, index: usize, now: Instant, stopping: bool) {
        let pause = self.pause(index, now);
        let client = &mut self.clients[index];
        match std::mem::replace(&mut client.state, State::Pausing(pause)) {
            State::Pausing(until) if stopping || until.is_none_or(|until| now < until) => {
                client.state = State::Pausing(until);
            }
            State::Pausing(_) => match self.connect(index, now) {
                Ok(()) => {}
                Err(error) => self.refused(index, &error),
            },
            State::Connecting(stream, since) => {
                if now - since > CONNECT_LIMIT {
                    self.refused(index, &anyhow!("no SYN-ACK within {CONNECT_LIMIT:?}"));
                } else {
                    client.state = State::Connecting(stream, since);
                }
            }
            State::Thinking(stream, until) => {
                if now < until && !stopping {
                    client.state = State::Thinking(stream, until);
                } else if let Err(error) = self.ask(index, stream, now, stopping) {
                    self.broken(index, now, &format!("{error:#}"));
                }
            }
            State::Receiving(stream, answer) => {
                if now - answer.last > SILENCE_LIMIT {
                    self.broken(index, now, &format!("nothing came for {SILENCE_LIMIT:?}"));
                } else {
                    client.state = State::Receiving(stream, answer);
                }
            }
        }
    }

    /// When it begins again.
    fn pause(&mut self, index: usize, now: Instant) -> Option<Instant> {
        (self.clients[index].kind != Kind::Bursting).then(|| now + PAUSE_MAX.mul_f64(self.rng.f64()))
    }

    fn connect(&mut self, index: usize, now: Instant) -> Result<()> {
        let server = *self.servers.next().context("no servers")?;
        lock(self.tally).begun += 1;
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // EINPROGRESS: it connects.
        if let Err(error) = socket.connect(&server.into())
            && error.raw_os_error() != Some(nix::libc::EINPROGRESS)
        {
            return Err(error.into());
        }
        let stream = TcpStream::from(socket);
        self.epoll.add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLOUT, index as u64))?;
        self.clients[index].server = server;
        self.clients[index].state = State::Connecting(stream, now);
        Ok(())
    }

    fn opened(&mut self, index: usize, stream: TcpStream, now: Instant) -> Result<()> {
        if let Some(error) = stream.take_error()? {
            return Err(error.into());
        }
        self.epoll.modify(stream.as_fd(), &mut EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        let think = THINK_MAX.mul_f64(self.rng.f64());
        let client = &mut self.clients[index];
        client.from = stream.local_addr()?.to_string();
        client.opened_at = now;
        let is_short = matches!(client.kind, Kind::Short | Kind::Bursting);
        client.requests_left = if is_short { REQUESTS } else { 1 };
        let until = if is_short { now + think } else { now };
        client.state = State::Thinking(stream, until);
        let mut tally = lock(self.tally);
        tally.opened += 1;
        *open_of(&mut tally, client.kind) += 1;
        Ok(())
    }

    fn ask(&mut self, index: usize, mut stream: TcpStream, now: Instant, stopping: bool) -> Result<()> {
        let client = &mut self.clients[index];
        client.requests_left = if stopping { 0 } else { client.requests_left - 1 };
        let connection = if client.requests_left == 0 { "close" } else { "keep-alive" };
        let fetch = fetch_of(&self.load, client.kind);
        let request =
            format!("GET {} HTTP/1.1\r\nHost: crowd\r\nConnection: {connection}\r\n\r\n", fetch.path);
        let written = stream.write(request.as_bytes())?;
        ensure!(written == request.len(), "the request does not fit");
        client.state = State::Receiving(stream, Answer { head: Vec::new(), body: None, last: now });
        Ok(())
    }

    fn receive(&mut self, index: usize, stream: &mut TcpStream, answer: &mut Answer) -> Result<Step> {
        let client = &self.clients[index];
        let content = Arc::clone(&fetch_of(&self.load, client.kind).content);
        let mut buffer = [0; 32 * 1024];
        let length = match stream.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Step::Waits),
            Err(error) => return Err(error.into()),
        };
        ensure!(length > 0, "the server closed before the end");
        let (now, before) = (Instant::now(), answer.body);
        let whole = answer.take(&buffer[..length], &content)?;
        let mut tally = lock(self.tally);
        tally.bytes += (answer.body.unwrap_or(0) - before.unwrap_or(0)) as u64;
        if let Kind::Brisk(number) = client.kind
            && before.is_some()
            && tally.faults.last().is_some_and(|fault| client.opened_at < *fault)
        {
            tally.stalls[number] = tally.stalls[number].max(now - answer.last);
        }
        answer.last = now;
        Ok(if whole { Step::Whole } else { Step::Waits })
    }

    /// An answer is whole: the next request, or the end.
    fn answered(&mut self, index: usize, stream: TcpStream, now: Instant, stopping: bool) {
        if self.clients[index].requests_left > 0 {
            let think = if stopping { Duration::ZERO } else { THINK_MAX.mul_f64(self.rng.f64()) };
            self.clients[index].state = State::Thinking(stream, now + think);
            return;
        }
        let client = &self.clients[index];
        let mut tally = lock(self.tally);
        tally.complete += 1;
        *open_of(&mut tally, client.kind) -= 1;
        let survived = tally.faults.iter().any(|fault| *fault >= client.opened_at);
        tally.survived += usize::from(survived);
    }

    /// A connection that was open is lost.
    fn broken(&mut self, index: usize, now: Instant, why: &str) {
        let client = &self.clients[index];
        let mut tally = lock(self.tally);
        tally.lost += 1;
        *open_of(&mut tally, client.kind) -= 1;
        let age = (now - client.opened_at).as_millis();
        let met: Vec<String> = tally
            .faults
            .iter()
            .filter(|fault| client.opened_at <= **fault)
            .map(|fault| (*fault - client.opened_at).as_millis().to_string())
            .collect();
        let met = if met.is_empty() { "none".to_owned() } else { met.join(", ") };
        let (kind, from, server) = (client.kind, &client.from, client.server);
        let sentence =
            format!("{kind:?}, {from} to {server}, {age} ms old, faults at ms {met} of its life: {why}");
        Tally::tell(&mut tally.broken, sentence);
    }

    /// A connection did not open.
    fn refused(&mut self, index: usize, why: &anyhow::Error) {
        let mut tally = lock(self.tally);
        tally.unopened += 1;
        let sentence = format!("{:?} to {}: {why:#}", self.clients[index].kind, self.clients[index].server);
        Tally::tell(&mut tally.refused, sentence);
    }
}

impl Answer {
    /// More bytes of it; whether it is whole. An error if a byte is not what it should be.
    fn take(&mut self, mut bytes: &[u8], content: &[u8]) -> Result<bool> {
        let Some(body) = &mut self.body else {
            let seen = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(end) = find_head_end(&self.head) else {
                ensure!(self.head.len() <= HEAD_BYTES_MAX, "the head of the answer has no end");
                return Ok(false);
            };
            judge_head(&self.head[..end], content.len())?;
            bytes = &bytes[end - seen..];
            self.body = Some(0);
            return self.take(bytes, content);
        };
        let expected = content.get(*body..*body + bytes.len()).context("more came than was to come")?;
        if expected != bytes {
            let at = expected.iter().zip(bytes).position(|(expected, came)| expected != came).unwrap_or(0);
            return Err(anyhow!("byte {} is wrong", *body + at));
        }
        *body += bytes.len();
        Ok(*body == content.len())
    }
}

/// Where the body begins, after the empty line.
fn find_head_end(head: &[u8]) -> Option<usize> {
    head.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn judge_head(head: &[u8], length: usize) -> Result<()> {
    let text = String::from_utf8_lossy(head);
    ensure!(text.starts_with("HTTP/1.1 200 "), "the answer begins with {:?}", text.lines().next());
    let told = text.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    ensure!(told.is_some_and(|told| told.trim() == length.to_string()), "it is to have {told:?} bytes");
    Ok(())
}

fn fetch_of(load: &Load, kind: Kind) -> &Fetch {
    match kind {
        Kind::Short | Kind::Bursting => &load.short_fetch,
        Kind::Slow => &load.slow_fetch,
        Kind::Brisk(_) => &load.brisk_fetch,
    }
}

fn open_of(tally: &mut Tally, kind: Kind) -> &mut usize {
    match kind {
        Kind::Short | Kind::Bursting => &mut tally.short_open,
        Kind::Slow | Kind::Brisk(_) => &mut tally.long_open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        Answer { head: Vec::new(), body: None, last: Instant::now() }
    }

    #[test]
    fn an_answer_is_whole_when_all_its_bytes_are_right_however_they_come() {
        let wire = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for size in 1..wire.len() {
            let mut answer = answer();
            let steps: Vec<bool> =
                wire.chunks(size).map(|part| answer.take(part, b"hello").expect("right")).collect();
            assert_eq!(steps.iter().filter(|whole| **whole).count(), 1, "in pieces of {size}");
            assert_eq!(steps.last(), Some(&true));
        }
    }

    #[test]
    fn a_wrong_byte_one_too_many_or_another_length_is_an_error() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        let of = |wire: String| answer().take(wire.as_bytes(), b"hello").map_err(|error| error.to_string());
        assert_eq!(of(format!("{head}helxo")), Err("byte 3 is wrong".into()));
        assert!(of(format!("{head}hello!")).is_err());
        assert!(of("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n".into()).is_err());
        assert!(of("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello".into()).is_err());
        assert_eq!(of(format!("{head}hell")), Ok(false));
    }
}
