//! A datagram each millisecond and back: how long does an interruption last?

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::command::inside;
use crate::world::World;

/// How long a receiver waits before it looks whether it should stop.
const STOP_CHECK: Duration = Duration::from_millis(20);
/// A gap between answers that is told by itself: none of this length without a cause.
pub const LONG_GAP: Duration = Duration::from_millis(20);
/// How long the last answers are waited for.
const GRACE: Duration = Duration::from_millis(300);

/// Sends back every datagram, in a server's namespace, until dropped.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts at this address, which must be one of the namespace's.
    pub fn start(world: &World, short: &str, address: SocketAddr) -> Result<Echo> {
        let socket = inside(&world.namespace(short), || {
            UdpSocket::bind(address).with_context(|| format!("cannot bind {address}"))
        })?;
        socket.set_read_timeout(Some(STOP_CHECK))?;
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                if socket.send_to(&buffer[..length], from).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Echo { stop, answered, thread: Some(thread) })
    }

    /// How many datagrams it has sent back.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A probe under way, from the client's namespace.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Vec<Instant>>,
    receiver: JoinHandle<Vec<(usize, Instant)>>,
}

/// What a probe saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// Datagrams sent.
    pub sent: usize,
    /// Datagrams that came back, each counted once.
    pub answered: usize,
    /// The longest time between two answers that followed each other: the interruption, plus one interval.
    pub largest_gap: Duration,
    /// When that gap began, from the start of the probe.
    pub largest_gap_at: Duration,
    /// Every such time longer than [`LONG_GAP`].
    pub long_gaps: Vec<Duration>,
    /// The longest time between two sendings: how far the probe itself was held up.
    pub largest_send_gap: Duration,
}

impl Probe {
    /// Starts to send at this interval to this address.
    pub fn start(world: &World, to: SocketAddr, interval: Duration) -> Result<Probe> {
        let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
        let socket = inside(&world.namespace("client"), || {
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(to).with_context(|| format!("no route to {to}"))?;
            Ok(socket)
        })?;
        socket.set_read_timeout(Some(STOP_CHECK))?;
        let (replies, stop) = (socket.try_clone()?, Arc::new(AtomicBool::new(false)));
        let (stop_sending, stop_receiving) = (Arc::clone(&stop), Arc::clone(&stop));
        let sender = std::thread::spawn(move || {
            let mut sent = Vec::new();
            let mut next = Instant::now();
            while !stop_sending.load(Ordering::Relaxed) {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                next += interval;
                // A refusal by the network is an interruption like any other: the answer will be missing.
                let _ = socket.send(&(sent.len() as u64).to_be_bytes());
                sent.push(Instant::now());
            }
            sent
        });
        let receiver = std::thread::spawn(move || {
            let mut answers = Vec::new();
            let mut buffer = [0; 64];
            let mut end = None;
            loop {
                if let Ok(8) = replies.recv(&mut buffer) {
                    let mut number = [0; 8];
                    number.copy_from_slice(&buffer[..8]);
                    answers.push((u64::from_be_bytes(number) as usize, Instant::now()));
                }
                if stop_receiving.load(Ordering::Relaxed)
                    && Instant::now() > *end.get_or_insert_with(|| Instant::now() + GRACE)
                {
                    return answers;
                }
            }
        });
        Ok(Probe { stop, sender, receiver })
    }

    /// Ends it and reports.
    pub fn finish(self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().map_err(|_| anyhow!("the probe's sender panicked"))?;
        let answers = self.receiver.join().map_err(|_| anyhow!("the probe's receiver panicked"))?;
        Ok(report(&sent, &answers))
    }
}

fn report(sent: &[Instant], answers: &[(usize, Instant)]) -> Report {
    let mut seen = vec![false; sent.len()];
    let mut times = Vec::with_capacity(answers.len());
    for (number, at) in answers {
        if let Some(first @ false) = seen.get_mut(*number) {
            *first = true;
            times.push(*at);
        }
    }
    // An interruption that lasts until the end counts up to the last sending.
    let (start, last_sent) = (sent.first().copied(), sent.last().copied());
    let mut largest = (Duration::ZERO, start);
    let mut long_gaps = Vec::new();
    let mut before = start;
    for at in times.iter().copied().chain(last_sent.filter(|last| times.last() < Some(last))) {
        let gap = before.map_or(Duration::ZERO, |before| at.saturating_duration_since(before));
        if gap > largest.0 {
            largest = (gap, before);
        }
        if gap > LONG_GAP {
            long_gaps.push(gap);
        }
        before = Some(at);
    }
    Report {
        sent: sent.len(),
        answered: times.len(),
        largest_gap: largest.0,
        largest_gap_at: largest
            .1
            .zip(start)
            .map_or(Duration::ZERO, |(at, start)| at.saturating_duration_since(start)),
        long_gaps,
        largest_send_gap: sent.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_between_answers_and_duplicates_do_not_close_it() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let sent: Vec<_> = (0..10).map(at).collect();
        let answers = [(0, at(1)), (1, at(2)), (1, at(4)), (8, at(9)), (9, at(10))];
        let report = report(&sent, &answers);
        assert_eq!((report.sent, report.answered), (10, 4));
        assert_eq!(report.largest_gap, Duration::from_millis(7));
        assert_eq!(report.largest_gap_at, Duration::from_millis(2));
        assert!(report.long_gaps.is_empty());
        assert_eq!(report.largest_send_gap, Duration::from_millis(1));
    }

    #[test]
    fn silence_until_the_end_is_a_gap() {
        let start = Instant::now();
        let sent: Vec<_> = (0..100).map(|ms| start + Duration::from_millis(ms)).collect();
        let report = report(&sent, &[(0, start)]);
        assert_eq!(report.largest_gap, Duration::from_millis(99));
        assert_eq!(report.long_gaps, [Duration::from_millis(99)]);
    }
}
