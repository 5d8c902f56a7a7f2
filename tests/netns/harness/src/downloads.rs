//! curl as the clients: many downloads at once, each judged by itself.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use sha2::{Digest, Sha256};

use crate::plan::{Family, Translation, virtual_address};
use crate::process::{Process, exit_code};
use crate::web::{Checksum, Web};
use crate::world::World;

/// One download to be made.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it is counted under in summaries, such as `nat IPv4`.
    pub kind: String,
    /// Where from.
    pub url: String,
    /// How many bytes it must bring.
    pub length: u64,
    /// Their checksum.
    pub checksum: Checksum,
}

/// What became of one download.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The request's.
    pub kind: String,
    /// The request's.
    pub url: String,
    /// curl's exit status: 0, 7 (refused), 28 (time-out), 56 (reset), …
    pub exit: i32,
    /// Bytes that came.
    pub received: u64,
    /// Bytes that should come.
    pub length: u64,
    /// Whether their checksum is right.
    pub checksum_right: bool,
    /// The longest time without a byte, from the first byte on.
    pub longest_stall: Duration,
    /// What curl said of it.
    pub message: String,
}

impl Outcome {
    /// Whether everything arrived as it should.
    pub fn whole(&self) -> bool {
        self.exit == 0 && self.received == self.length && self.checksum_right
    }
}

/// Downloads under way.
#[derive(Debug)]
pub struct Downloads {
    transfers: Vec<Transfer>,
}

#[derive(Debug)]
struct Transfer {
    request: Request,
    process: Process,
    received: Arc<AtomicU64>,
    reader: JoinHandle<Reading>,
}

#[derive(Debug)]
struct Reading {
    checksum: Checksum,
    longest_stall: Duration,
}

impl Downloads {
    /// Starts one curl for each request, in the client's namespace. None of them tries twice.
    pub fn start(world: &World, requests: Vec<Request>, limit: Duration) -> Result<Downloads> {
        let namespace = world.namespace("client");
        let limit = limit.as_secs().max(1).to_string();
        let mut transfers = Vec::with_capacity(requests.len());
        for (number, request) in requests.into_iter().enumerate() {
            let args =
                ["--silent", "--show-error", "--fail", "--globoff", "--max-time", &limit, &request.url];
            let name = format!("curl-{number}");
            let (process, mut output) =
                Process::spawn_piped(world.directory(), &namespace, &name, "curl", &args)?;
            let received = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&received);
            let reader = std::thread::spawn(move || read_all(&mut output, &count));
            transfers.push(Transfer { request, process, received, reader });
        }
        Ok(Downloads { transfers })
    }

    /// How much of each has arrived, from 0 to 1.
    pub fn progress(&self) -> Vec<f64> {
        let share = |t: &Transfer| t.received.load(Ordering::Relaxed) as f64 / t.request.length.max(1) as f64;
        self.transfers.iter().map(share).collect()
    }

    /// The least and the most advanced download's progress.
    pub fn progress_range(&self) -> (f64, f64) {
        let progress = self.progress();
        (progress.iter().copied().fold(1.0, f64::min), progress.iter().copied().fold(0.0, f64::max))
    }

    /// Waits for all of them.
    pub fn finish(self, limit: Duration) -> Result<Vec<Outcome>> {
        let end = Instant::now() + limit;
        self.transfers
            .into_iter()
            .map(|mut transfer| {
                let left = end.saturating_duration_since(Instant::now());
                if transfer.process.wait(left).is_err() {
                    transfer.process.kill()?;
                }
                let reading = transfer.reader.join().map_err(|_| anyhow!("a reader panicked"))?;
                let status = transfer.process.ended()?.ok_or_else(|| anyhow!("curl runs on"))?;
                Ok(Outcome {
                    exit: exit_code(status),
                    received: transfer.received.load(Ordering::Relaxed),
                    length: transfer.request.length,
                    checksum_right: reading.checksum == transfer.request.checksum,
                    longest_stall: reading.longest_stall,
                    message: transfer.process.log().trim().to_owned(),
                    kind: transfer.request.kind,
                    url: transfer.request.url,
                })
            })
            .collect()
    }
}

fn read_all(output: &mut impl Read, received: &AtomicU64) -> Reading {
    let mut hash = Sha256::new();
    let mut longest_stall = Duration::ZERO;
    let mut last = None;
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = output.read(&mut buffer) {
        let now = Instant::now();
        if let Some(before) = last.replace(now) {
            longest_stall = longest_stall.max(now - before);
        }
        hash.update(&buffer[..length]);
        received.fetch_add(length as u64, Ordering::Relaxed);
    }
    Reading { checksum: hash.finalize().into(), longest_stall }
}

/// How many of each kind were started and arrived whole.
pub fn tally(outcomes: &[Outcome]) -> BTreeMap<String, (usize, usize)> {
    let mut by_kind = BTreeMap::new();
    for outcome in outcomes {
        let (all, whole): &mut (usize, usize) = by_kind.entry(outcome.kind.clone()).or_default();
        *all += 1;
        *whole += usize::from(outcome.whole());
    }
    by_kind
}

/// Requests through the pair's virtual servers: each translation and family in turn.
pub fn through_virtual_servers(web: &Web, file: &str, rate: &str, count: usize) -> Result<Vec<Request>> {
    let (length, checksum) = web.file(file)?;
    let kinds = [
        ("nat, IPv4", Translation::Nat, Family::V4),
        ("full-nat, IPv4", Translation::FullNat, Family::V4),
        ("nat, IPv6", Translation::Nat, Family::V6),
        ("full-nat, IPv6", Translation::FullNat, Family::V6),
    ];
    let request = |(kind, translation, family): &(&str, Translation, Family)| Request {
        kind: (*kind).to_owned(),
        url: format!(
            "http://{}/{file}?rate={rate}",
            SocketAddr::new(virtual_address(*translation, *family), 80)
        ),
        length,
        checksum,
    };
    Ok(kinds.iter().cycle().take(count).map(request).collect())
}
