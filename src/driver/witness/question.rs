//! Asks a witness how things are (`baton witness --status`).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io;
use std::net::UdpSocket;
use std::path::Path;

use crate::base::time::Duration;
use crate::driver::clock::{Clock, std_duration};
use crate::driver::secrets::{SecretsError, read_ring};
use crate::failover::witness::WitnessStatus;
use crate::failover::witness::words::{ANSWER_MAX, Kind, REPORT_MAX, decode_report};
use crate::seal::datagram::{DatagramKey, DatagramSealer, Direction};
use crate::seal::key::{NoEntropy, boot_id};

/// It is asked so often, and each answer is waited for so long.
const TRIES: usize = 3;
const PATIENCE: Duration = Duration::from_millis(500);

/// Why there is no answer.
#[derive(Debug)]
pub enum QuestionError {
    /// The key file cannot be used.
    Secrets(SecretsError),
    /// It could not be asked.
    Unreachable(SocketAddr, io::Error),
    /// Nothing came, or nothing that is sealed with this key.
    NoAnswer(SocketAddr),
}

impl fmt::Display for QuestionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuestionError::Secrets(error) => error.fmt(f),
            QuestionError::Unreachable(address, error) => write!(f, "the witness at {address}: {error}"),
            QuestionError::NoAnswer(address) => {
                write!(
                    f,
                    "no witness with this key answers at {address} (is it running, and is the key file its own?)"
                )
            }
        }
    }
}

impl core::error::Error for QuestionError {}

impl From<SecretsError> for QuestionError {
    fn from(error: SecretsError) -> QuestionError {
        QuestionError::Secrets(error)
    }
}

impl From<NoEntropy> for QuestionError {
    fn from(error: NoEntropy) -> QuestionError {
        QuestionError::Secrets(error.into())
    }
}

/// How things are with the witness at this address.
pub fn ask(witness: SocketAddr, key_file: &Path) -> Result<WitnessStatus, QuestionError> {
    let key = DatagramKey::new(read_ring(key_file)?.first());
    let mut sealer = DatagramSealer::new(&key, Direction::ToWitness, boot_id()?);
    let any = match witness.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let unreachable = |error| QuestionError::Unreachable(witness, error);
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).map_err(unreachable)?;
    socket.connect(witness).map_err(unreachable)?;
    let clock = Clock::start();
    for _ in 0..TRIES {
        let number = boot_id()?.0.to_be_bytes();
        let (mut payload, mut datagram) = ([0; REPORT_MAX], [0; ANSWER_MAX]);
        payload[..8].copy_from_slice(&number);
        let Ok(len) = sealer.seal(Kind::Question.code(), &payload, &mut datagram) else { break };
        // Nobody listening there tells the next sending.
        if socket.send(&datagram[..len]).is_err() {
            std::thread::sleep(std_duration(PATIENCE));
            continue;
        }
        let until = clock.now() + PATIENCE;
        while clock.now() < until {
            let left = (until - clock.now()).max(Duration::from_millis(1));
            socket.set_read_timeout(Some(std_duration(left))).map_err(unreachable)?;
            let Ok(len) = socket.recv(&mut datagram) else { break };
            let Ok(opened) = key.open(Direction::FromWitness, &mut datagram[..len]) else { continue };
            let answers = opened.kind == Kind::Report.code() && opened.payload.starts_with(&number);
            if let Some(status) = opened.payload.get(8..).filter(|_| answers).and_then(decode_report) {
                return Ok(status);
            }
        }
    }
    Err(QuestionError::NoAnswer(witness))
}
