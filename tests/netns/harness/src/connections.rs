//! Clients that come all the time: so many new connections a second, each with one request, each judged by itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::command::inside;
use crate::world::World;

/// How long a client waits for a SYN-ACK. Linux sends a SYN again after 1, 3, 7 seconds.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How long it waits for the answer to its request.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Between the SYN-ACK and the request, at most: so that connections of every age meet the fault.
const THINK_MAX_MS: u64 = 100;
/// Connections at a time; beyond, no new ones are begun, and that is told.
const AT_A_TIME_MAX: usize = 4000;
/// Failures that are told of each kind.
const TOLD_MAX: usize = 20;
/// A client's thread needs little.
const STACK_BYTES: usize = 96 * 1024;

/// What became of the connections.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Begun: a SYN was sent.
    pub begun: usize,
    /// Opened: a SYN-ACK came.
    pub opened: usize,
    /// Completed: the whole answer to the request came.
    pub complete: usize,
    /// Opened and then not completed: what each says (at most 20).
    pub broken: Vec<String>,
    /// Not opened: what each says (at most 20).
    pub unopened: Vec<String>,
    /// Not begun because too many were under way.
    pub skipped: usize,
    /// New connections a second over the whole time.
    pub per_second: f64,
}

/// Clients under way, from the client's namespace.
#[derive(Debug)]
pub struct Clients {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    opener: JoinHandle<Result<()>>,
}

impl Clients {
    /// Starts to open `per_second` connections a second to these web servers in turn.
    pub fn start(world: &World, servers: Vec<SocketAddr>, per_second: u32) -> Result<Clients> {
        ensure!(!servers.is_empty() && per_second > 0, "no connections are asked for");
        let namespace = world.namespace("client");
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Tally::default())));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(&tally));
        let opener = std::thread::spawn(move || {
            // Threads inherit the namespace of the one that starts them.
            inside(&namespace, || open_all(&servers, per_second, &stopped, &shared))
        });
        Ok(Clients { stop, tally, opener })
    }

    /// How it stands.
    pub fn so_far(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Begins no more, waits for those under way, and reports.
    pub fn finish(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.opener.join().map_err(|_| anyhow!("the opener panicked"))??;
        Ok(lock(&self.tally).clone())
    }
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_all(
    servers: &[SocketAddr],
    per_second: u32,
    stop: &AtomicBool,
    tally: &Arc<Mutex<Tally>>,
) -> Result<()> {
    let under_way = Arc::new(AtomicUsize::new(0));
    let (start, interval) = (Instant::now(), Duration::from_secs(1) / per_second);
    let mut next = start;
    for server in servers.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += interval;
        if under_way.load(Ordering::Relaxed) >= AT_A_TIME_MAX {
            lock(tally).skipped += 1;
            continue;
        }
        under_way.fetch_add(1, Ordering::Relaxed);
        lock(tally).begun += 1;
        let (server, mine, count) = (*server, Arc::clone(tally), Arc::clone(&under_way));
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            one(server, &mine);
            count.fetch_sub(1, Ordering::Relaxed);
        })?;
    }
    let seconds = start.elapsed().as_secs_f64();
    while under_way.load(Ordering::Relaxed) > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut tally = lock(tally);
    tally.per_second = tally.begun as f64 / seconds;
    Ok(())
}

/// One client's life.
fn one(server: SocketAddr, tally: &Mutex<Tally>) {
    let mut stream = match TcpStream::connect_timeout(&server, CONNECT_LIMIT) {
        Ok(stream) => stream,
        Err(error) => return tell(&mut lock(tally).unopened, format!("{server}: {error}")),
    };
    lock(tally).opened += 1;
    let from = stream.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string());
    let since = Instant::now();
    match request(&mut stream) {
        Ok(()) => lock(tally).complete += 1,
        Err(error) => {
            let after = since.elapsed().as_millis();
            tell(
                &mut lock(tally).broken,
                format!("{from} to {server}, {after} ms after its SYN-ACK: {error:#}"),
            );
        }
    }
}

fn tell(list: &mut Vec<String>, sentence: String) {
    if list.len() < TOLD_MAX {
        list.push(sentence);
    }
}

fn request(stream: &mut TcpStream) -> Result<()> {
    std::thread::sleep(Duration::from_millis(fastrand::u64(0..=THINK_MAX_MS)));
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(b"GET /whoami HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    // The body is the server's name and an end of line.
    let whole = answer.starts_with("HTTP/1.1 200") && answer.ends_with('\n') && answer.contains("\r\n\r\ns");
    ensure!(whole, "the answer is {answer:?}");
    Ok(())
}
