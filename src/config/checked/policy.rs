//! Which flows of a virtual server are mirrored (REQ A8).

use core::fmt::{self, Write};
use core::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::base::ids::VirtualServerId;
use crate::base::time::Duration;
use crate::config::checked::Cidr;

/// Ports from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Ports {
    /// Whether it is one of them.
    pub const fn has(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// Bytes that the first payload of a flow's client has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// They.
    pub bytes: Vec<u8>,
    /// At this place; `None`: at any.
    pub at: Option<usize>,
}

/// One of `virtual_server.mirror.rules`: what it says nothing of may be anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whether the flows that it is about are mirrored.
    pub mirror: bool,
    /// The client is in one of these networks; none: anywhere.
    pub clients: Vec<Cidr>,
    /// The client's port is one of these; none: any.
    pub client_ports: Vec<Ports>,
    /// The real server's port is one of these; none: any.
    pub server_ports: Vec<Ports>,
    /// The first packet has one of these code points, bit i for the code point i; none: any.
    pub dscp: u64,
    /// The client's first payload has this.
    pub payload: Option<Pattern>,
    /// The flow is at least as old.
    pub duration_min: Duration,
    /// It has carried at least so many bytes of IP packets, both directions together.
    pub bytes_min: u64,
    /// At least so many packets, both directions together.
    pub packets_min: u64,
    /// At least so many kilobits a second, since it began.
    pub rate_min_kbit: u64,
}

impl Rule {
    /// Whether it holds for some time of a flow's life and not for all of it.
    pub fn waits(&self) -> bool {
        self.duration_min > Duration::ZERO
            || self.bytes_min > 0
            || self.packets_min > 0
            || self.rate_min_kbit > 0
    }

    /// Whether it depends on what a flow has carried.
    pub const fn counts(&self) -> bool {
        self.bytes_min > 0 || self.packets_min > 0 || self.rate_min_kbit > 0
    }
}

/// In the words of the file, on one line: as `virtual_server.mirror.rules` has it.
pub fn text(rules: &[Rule]) -> String {
    let all: Vec<String> = rules.iter().map(ToString::to_string).collect();
    format!("[{}]", all.join(", "))
}

/// By which it is told whether rules are still those under which a flow began; never 0.
pub fn fingerprint(of: VirtualServerId, rules: &[Rule]) -> u32 {
    let mut hash = SipHasher24::default();
    hash.write(&of.0.to_le_bytes());
    hash.write(text(rules).as_bytes());
    (hash.finish() as u32).max(1)
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, key: &str, all: &[T]) -> fmt::Result {
            if all.is_empty() {
                return Ok(());
            }
            let all: Vec<String> = all.iter().map(|one| format!("\"{one}\"")).collect();
            write!(f, ", {key} = [{}]", all.join(", "))
        }
        write!(f, "{{ mirror = {}", self.mirror)?;
        list(f, "clients", &self.clients)?;
        list(f, "client_ports", &self.client_ports)?;
        list(f, "server_ports", &self.server_ports)?;
        if self.dscp != 0 {
            let points: Vec<String> =
                (0..64).filter(|point| self.dscp >> point & 1 == 1).map(|point| point.to_string()).collect();
            write!(f, ", dscp = [{}]", points.join(", "))?;
        }
        if let Some(Pattern { bytes, at }) = &self.payload {
            let mut hex = String::new();
            bytes.iter().try_for_each(|byte| write!(hex, "{byte:02x}"))?;
            write!(f, ", payload = \"hex:{hex}\"")?;
            if let Some(at) = at {
                write!(f, ", payload_at = {at}")?;
            }
        }
        for (key, least) in [
            ("duration_min_ms", self.duration_min.millis()),
            ("bytes_min", self.bytes_min),
            ("packets_min", self.packets_min),
            ("rate_min_kbps", self.rate_min_kbit),
        ] {
            if least > 0 {
                write!(f, ", {key} = {least}")?;
            }
        }
        f.write_str(" }")
    }
}
