//! Receive-side scaling (RSS): what a port with several receive queues is asked for, and what is made of its answer (REQ
//! E1, E2). Pure; [`super::ports`] asks.
//!
//! A port is asked for the hash by which shards are computed: Toeplitz's with the group's key, over the client's address
//! and port. These are the source of what clients send, and the destination of what servers answer, which source-NAT ports
//! suit too. So the hash's low bits are the shard's, and bucket `b` of the port's table belongs to the lcore that shard `b`
//! has at the start, as far as the counts allow.
//!
//! It is a hint and nothing else: every packet's shard is computed, and what came to another lcore is handed over and
//! counted (`handed_over`). So a port that spreads otherwise costs time and never a packet, and nothing here is fatal.

use core::fmt;

use log::Level;

use crate::base::limits::SHARDS;
use crate::config::checked::Checked;
use crate::control::rss::{RssReport, SpreadBy};
use crate::traffic::routes::Routes;

/// A key's bytes where a device does not say: what DPDK calls usual.
const KEY_BYTES_USUAL: usize = 40;

/// Whose addresses and ports are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The sender's and the receiver's.
    Both,
    /// The sender's alone.
    Source,
    /// The receiver's alone.
    Destination,
}

impl Ends {
    const fn text(self) -> &'static str {
        match self {
            Ends::Both => "source and destination",
            Ends::Source => "source",
            Ends::Destination => "destination",
        }
    }
}

/// The best for each port of a configuration: the source where the virtual servers' addresses are, the destination where
/// real servers are. Where both are, as on an appliance with one arm, or neither, it is both ends: a hash over one of
/// them would put all that comes from one server, or goes to one virtual address, into one queue.
pub fn ends(config: &Checked) -> Vec<Ends> {
    let routes = Routes::new(config);
    let is_by =
        |port: usize, address| routes.next_hop(address).is_some_and(|hop| usize::from(hop.port.0) == port);
    let of_port = |port: usize| {
        let clients = config.virtual_servers.iter().any(|server| is_by(port, server.address));
        let mut all = config.pools.iter().flat_map(|pool| &pool.servers);
        match (clients, all.any(|server| is_by(port, server.address))) {
            (true, false) => Ends::Source,
            (false, true) => Ends::Destination,
            (true, true) | (false, false) => Ends::Both,
        }
    };
    (0..config.ports.len()).map(of_port).collect()
}

/// What one port is wished to do.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// What to hash.
    pub ends: Ends,
    /// The key of the shards' hash.
    pub key: &'a [u8],
}

/// Kinds of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// TCP over IPv4.
    pub tcp_v4: bool,
    /// UDP over IPv4.
    pub udp_v4: bool,
    /// TCP over IPv6.
    pub tcp_v6: bool,
    /// UDP over IPv6.
    pub udp_v6: bool,
    /// All else over IP, by addresses alone. Nothing depends on it: a flow's packets have ports.
    pub other_ip: bool,
}

impl Kinds {
    /// None of them.
    pub const NONE: Kinds =
        Kinds { tcp_v4: false, udp_v4: false, tcp_v6: false, udp_v6: false, other_ip: false };

    const fn with_ports(self) -> [(bool, &'static str); 4] {
        [
            (self.tcp_v4, "TCP over IPv4"),
            (self.udp_v4, "UDP over IPv4"),
            (self.tcp_v6, "TCP over IPv6"),
            (self.udp_v6, "UDP over IPv6"),
        ]
    }

    /// Those with ports that are missing.
    fn lacking(self) -> Vec<&'static str> {
        self.with_ports().into_iter().filter(|(has, _)| !has).map(|(_, name)| name).collect()
    }

    /// Those of `asked` with ports that are missing.
    fn lacking_of(self, asked: Kinds) -> Vec<&'static str> {
        let both = self.with_ports().into_iter().zip(asked.with_ports());
        both.filter(|((has, _), (asked, _))| *asked && !has).map(|((_, name), _)| name).collect()
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.with_ports().into_iter().filter(|(has, _)| *has).map(|(_, name)| name);
        match names.collect::<Vec<_>>()[..] {
            [] => f.write_str("addresses"),
            [_, _, _, _] => f.write_str("TCP and UDP"),
            ref some => f.write_str(&some.join(", ")),
        }
    }
}

/// What a device can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// What it can hash; none: it has no RSS.
    pub kinds: Kinds,
    /// Whether it can hash the source alone.
    pub source_only: bool,
    /// Whether it can hash the destination alone.
    pub destination_only: bool,
    /// Bytes of its key; 0: it does not say.
    pub key_bytes: usize,
}

/// What a port is asked to hash, or says that it hashes.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    /// Of which packets.
    pub kinds: Kinds,
    /// Which of their addresses and ports.
    pub ends: Ends,
    /// By which key.
    pub key: Vec<u8>,
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_empty() { " by a key of its own" } else { "" };
        write!(f, "{} of {}{key}", self.ends.text(), self.kinds)
    }
}

/// What to ask a port for, the best first: never more than it offers, since DPDK refuses to configure a port that is asked
/// for more. The last has no key, which stands for the port's own: so at least every queue gets packets. Nothing: it offers no
/// RSS.
pub fn asks(can: &Abilities, wish: &Wish<'_>) -> Vec<Hash> {
    if can.kinds == Kinds::NONE {
        return Vec::new();
    }
    let offered = match wish.ends {
        Ends::Both => false,
        Ends::Source => can.source_only,
        Ends::Destination => can.destination_only,
    };
    let key = key_of(can.key_bytes, wish.key);
    let ask = |ends| Hash { kinds: can.kinds, ends, key: key.clone() };
    let own_key = Hash { key: Vec::new(), ..ask(Ends::Both) };
    offered.then_some(wish.ends).into_iter().chain([Ends::Both]).map(ask).chain([own_key]).collect()
}

/// What a port accepted, and before that refused.
#[derive(Default)]
pub struct Accepted {
    /// `None`: no RSS at all.
    pub hash: Option<Hash>,
    /// Each a sentence.
    pub refused: Vec<String>,
}

/// Has a port tried with each of what is to be asked, in its order, until one is accepted, and at last without: no port fails
/// by RSS. The error is that of the last attempt.
pub fn first_accepted<T, E: fmt::Display>(
    asks: Vec<Hash>,
    mut attempt: impl FnMut(Option<&Hash>) -> Result<T, E>,
) -> Result<(T, Accepted), E> {
    let mut accepted = Accepted::default();
    for hash in asks {
        match attempt(Some(&hash)) {
            Ok(made) => {
                accepted.hash = Some(hash);
                return Ok((made, accepted));
            }
            Err(error) => accepted.refused.push(format!("asked to hash {hash}: {error}")),
        }
    }
    Ok((attempt(None)?, accepted))
}

/// A key of the device's length that hashes as this one does. A hash over `n` bytes reads the key's first `n + 4`, 40 for two
/// IPv6 addresses with ports: so a longer key may go on in any way, and a shorter one hashes shorter input alike.
fn key_of(bytes: usize, key: &[u8]) -> Vec<u8> {
    let bytes = if bytes == 0 { KEY_BYTES_USUAL } else { bytes };
    key.iter().copied().cycle().take(bytes).collect()
}

/// The queue of each bucket, evenly: that of shard `b`, which has bucket `b` when there are as many queues as traffic
/// managers (see [`crate::flow::shard::owner_of`]). Buckets beyond the shards begin again with the first.
pub fn table(buckets: u16, queues: u16) -> Vec<u16> {
    (0..buckets).map(|bucket| bucket % SHARDS as u16 % queues.max(1)).collect()
}

/// What came of the asking.
pub struct Answer {
    /// Receive queues that were wanted, and that there are.
    pub queues: (u16, u16),
    /// What the port refused, each a sentence.
    pub refused: Vec<String>,
    /// What it accepted; `None`: it has no RSS, or refused it.
    pub asked: Option<Hash>,
    /// What it says that it hashes, or why that is not known.
    pub hash: Result<Hash, String>,
    /// The queues of its buckets as it says them, or why they are not known or cannot be set.
    pub table: Result<Vec<u16>, String>,
}

/// What people are told of it.
pub fn judge(wish: &Wish<'_>, answer: &Answer) -> RssReport {
    let (wanted, queues) = answer.queues;
    let mut report = RssReport { queues, ..RssReport::default() };
    if wanted <= 1 {
        return report;
    }
    report.by = SpreadBy::Software;
    if queues <= 1 {
        report.why = Some("it has one receive queue".to_owned());
        return report;
    }
    let Some(asked) = &answer.asked else {
        let reason =
            if answer.refused.is_empty() { "it offers no RSS".to_owned() } else { sentence(&answer.refused) };
        report.why = Some(reason);
        return report;
    };
    report.hashes = Some(asked.to_string());
    report.buckets = answer.table.as_ref().map_or(0, |table| table.len() as u16);
    let differences = differences(asked, answer);
    if !differences.is_empty() {
        report.why = Some(sentence(&[&answer.refused[..], &differences].concat()));
        return report;
    }
    report.by = SpreadBy::Port;
    let mut less = answer.refused.clone();
    if asked.ends != wish.ends && less.is_empty() {
        less.push(format!("it does not hash the {} alone", wish.ends.text()));
    }
    let lacking = asked.kinds.lacking();
    if !lacking.is_empty() {
        less.push(format!("it does not hash {}", lacking.join(", ")));
    }
    report.why = (!less.is_empty()).then(|| sentence(&less));
    report
}

/// What the port does otherwise than it accepted.
fn differences(asked: &Hash, answer: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    match &answer.hash {
        Err(error) => found.push(error.clone()),
        Ok(does) => {
            let lacking = does.kinds.lacking_of(asked.kinds);
            if !lacking.is_empty() {
                found.push(format!("it accepted to hash {} and does not", lacking.join(", ")));
            }
            if does.ends != asked.ends {
                found.push(format!(
                    "it accepted to hash {} and hashes {}",
                    asked.ends.text(),
                    does.ends.text()
                ));
            }
            if does.key != asked.key {
                found.push("its key is not the group's".to_owned());
            }
        }
    }
    match &answer.table {
        Err(error) => found.push(error.clone()),
        Ok(does) if *does != table(does.len() as u16, answer.queues.1) => {
            found.push("its buckets lead to other queues than was set".to_owned());
        }
        Ok(_) => {}
    }
    found
}

fn sentence(parts: &[String]) -> String {
    parts.join("; ")
}

/// What the log says of a port at the start, once; `None`: there was nothing to ask for.
pub fn said(port: &str, wish: &Wish<'_>, report: &RssReport) -> Option<(Level, String)> {
    let RssReport { by, hashes, queues, buckets, why } = report;
    let hashes = hashes.as_deref().unwrap_or("nothing");
    let spreads = || {
        format!(
            "port {port}: RSS with the group's key by {hashes}, over {queues} queues by {buckets} buckets, as read back"
        )
    };
    let asked = wish.ends.text();
    match (by, why) {
        (SpreadBy::OneQueue, _) => None,
        (SpreadBy::Port, None) => Some((Level::Info, spreads())),
        (SpreadBy::Port, Some(why)) => Some((
            Level::Info,
            format!(
                "{}; asked for was the {asked} of TCP and UDP, but {why}: more packets are handed over between \
                 lcores (counter handed_over)",
                spreads()
            ),
        )),
        (SpreadBy::Software, why) => Some((
            Level::Warn,
            format!(
                "port {port}: asked for RSS with the group's key by the {asked} of TCP and UDP, but {}: software \
                 distribution: packets are handed over between lcores (counter handed_over)",
                why.as_deref().unwrap_or("it does not say what it does")
            ),
        )),
    }
}

#[cfg(test)]
#[path = "rss_tests.rs"]
mod tests;
