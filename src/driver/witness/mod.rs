//! `baton witness`: the socket and the clock of [`failover::witness`](crate::failover::witness), a process of its own on a third machine.
//!
//! Owned by the process's first thread, which does nothing else. In: datagrams of members, and questions how things are
//! ([`question`]). Out: an answer to each, and a line of log whenever another member has the grant. It has no DPDK in it, and
//! no state on disk. The appliance's end is [`link`].

pub mod link;
pub mod question;

use core::fmt;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::path::Path;

use crate::base::time::Duration;
use crate::driver::clock::{Clock, std_duration};
use crate::driver::secrets::{SecretsError, read_ring};
use crate::failover::witness::words::ANSWER_MAX;
use crate::failover::witness::{Witness, WitnessVariant};
use crate::seal::key::NoEntropy;

/// It looks so often whether it is to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Why there is no witness.
#[derive(Debug)]
pub enum WitnessError {
    /// The key file cannot be used.
    Secrets(SecretsError),
    /// The socket cannot be opened there.
    Listen(SocketAddr, io::Error),
    /// The socket broke.
    Broken(io::Error),
}

impl fmt::Display for WitnessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WitnessError::Secrets(error) => error.fmt(f),
            WitnessError::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            WitnessError::Broken(error) => write!(f, "the socket: {error}"),
        }
    }
}

impl core::error::Error for WitnessError {}

impl From<SecretsError> for WitnessError {
    fn from(error: SecretsError) -> WitnessError {
        WitnessError::Secrets(error)
    }
}

impl From<NoEntropy> for WitnessError {
    fn from(error: NoEntropy) -> WitnessError {
        WitnessError::Secrets(error.into())
    }
}

/// Bears witness until it is told to stop.
pub fn run(
    listen: SocketAddr,
    key_file: &Path,
    hold: Duration,
    stop: &AtomicBool,
) -> Result<(), WitnessError> {
    let ring = read_ring(key_file)?;
    let socket = UdpSocket::bind(listen).map_err(|error| WitnessError::Listen(listen, error))?;
    socket.set_read_timeout(Some(std_duration(LOOK_INTERVAL))).map_err(WitnessError::Broken)?;
    let clock = Clock::start();
    // From here on nothing is granted for `hold`: what an earlier process granted was granted before.
    let mut witness = Witness::new(&ring, hold, WitnessVariant::Sound, clock.now())?;
    drop(ring);
    log::info!(
        "bears witness on {listen}: grants for {hold_ms} ms, and nothing in the first {hold_ms} ms",
        hold_ms = hold.millis()
    );
    let (mut datagram, mut out) = ([0; ANSWER_MAX + 1], [0; ANSWER_MAX]);
    while !stop.load(Ordering::SeqCst) {
        let (len, from) = match socket.recv_from(&mut datagram) {
            Ok(came) => came,
            Err(error) if passes(&error) => continue,
            Err(error) => return Err(WitnessError::Broken(error)),
        };
        let Some(reply) = witness.handle(clock.now(), &mut datagram[..len], &mut out) else { continue };
        if socket.send_to(&out[..reply.len], from).is_err() {
            witness.note_unsent();
        }
        if let Some(news) = reply.news {
            log::info!("{news}");
        }
    }
    log::info!("ended");
    Ok(())
}

/// Nothing came, a signal did, or an earlier answer reached nobody.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted | ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests;
