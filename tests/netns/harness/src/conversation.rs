//! One TCP connection with a request and its answer every few milliseconds: what an interruption costs when nothing is
//! on its way but the packet that was lost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::command::inside;
use crate::world::World;

/// Between an answer and the next request.
const INTERVAL: Duration = Duration::from_millis(4);
/// Requests at most: nginx closes a connection after 1000.
const REQUESTS_MAX: usize = 950;
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const REQUEST: &[u8] = b"GET /whoami HTTP/1.1\r\nHost: x\r\n\r\n";

/// A conversation under way, from the client's namespace.
#[derive(Debug)]
pub struct Conversation {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Spoken>>,
}

/// What was said.
#[derive(Clone, Copy, Debug)]
pub struct Spoken {
    /// Requests that were answered: all.
    pub answered: usize,
    /// The longest time from a request to its answer.
    pub longest: Duration,
}

impl Conversation {
    /// Begins to talk to a web server.
    pub fn start(world: &World, to: SocketAddr) -> Result<Conversation> {
        let mut stream = inside(&world.namespace("client"), || Ok(TcpStream::connect(to)?))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_nodelay(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut spoken = Spoken { answered: 0, longest: Duration::ZERO };
            while !stopped.load(Ordering::Relaxed) && spoken.answered < REQUESTS_MAX {
                let since = Instant::now();
                stream.write_all(REQUEST)?;
                read_answer(&mut stream)?;
                spoken.longest = spoken.longest.max(since.elapsed());
                spoken.answered += 1;
                std::thread::sleep(INTERVAL);
            }
            Ok(spoken)
        });
        Ok(Conversation { stop, thread })
    }

    /// Ends it; an error if it broke.
    pub fn finish(self) -> Result<Spoken> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the conversation panicked"))?
    }
}

/// Reads one answer: its head, and a body that is one line.
fn read_answer(stream: &mut TcpStream) -> Result<()> {
    let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let length = stream.read(&mut buffer)?;
        ensure!(length > 0, "the server closed the conversation");
        answer.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            ensure!(head.starts_with("HTTP/1.1 200"), "the answer is {text:?}");
            if body.ends_with('\n') {
                return Ok(());
            }
        }
    }
}
