//! Asks a port for receive-side scaling and reads back what it does: [`super::rss`] on DPDK's ports.
//!
//! In two steps, since drivers differ: the hash is asked for when the port is configured, and the table, which a start
//! may reset, behind the start. Several drivers ignore the hash that a configuration names, among them `net_null`, or take no
//! key there; so it is set again where it reads otherwise.

use core::fmt::Display;

use dpdk::Port;
use dpdk::port::Config;
use dpdk::rss::{self, Field, Fields, Hashing, Key};

use crate::control::rss::RssReport;
use crate::driver::rss::{Abilities, Accepted, Answer, Ends, Hash, Kinds, Wish};
use crate::driver::rss::{asks, first_accepted, judge, table};

/// Brings a port up by `attempt`, configured and started with the best RSS that it accepts, or with none: drivers refuse a
/// hash at the one or at the other.
pub fn bring_up<T, E: Display>(
    port: &mut Port,
    wanted: &Config,
    wish: &Wish<'_>,
    mut attempt: impl FnMut(&mut Port, &Config) -> Result<T, E>,
) -> Result<(T, Accepted), E> {
    let can = port.info().map_or_else(|_| Abilities::default(), |info| abilities(info.rss));
    let asks = if wanted.rx_queues > 1 { asks(&can, wish) } else { Vec::new() };
    first_accepted(asks, |hash| attempt(port, &Config { rss: hash.map(hashing), ..wanted.clone() }))
}

/// Has the started port do what it accepted, and says what it does. Receive queues are those wanted and those that it has.
pub fn settle(port: &mut Port, accepted: Accepted, wish: &Wish<'_>, queues: (u16, u16)) -> RssReport {
    let Accepted { hash: asked, mut refused } = accepted;
    let none = || "not asked for".to_owned();
    let (hash, table) = match &asked {
        Some(asked) if queues.1 > 1 => (settle_hash(port, asked, &mut refused), settle_table(port, queues.1)),
        _ => (Err(none()), Err(none())),
    };
    judge(wish, &Answer { queues, refused, asked, hash, table })
}

fn settle_hash(port: &mut Port, asked: &Hash, refused: &mut Vec<String>) -> Result<Hash, String> {
    let read = |port: &Port| {
        port.rss_hash().map(|does| hash_of(&does)).map_err(|error| cannot("what it hashes", "read", &error))
    };
    let does = read(port);
    // A port that refused the group's key is not given it by another way.
    if asked.key.is_empty() || does.as_ref().is_ok_and(|does| does == asked) {
        return does;
    }
    if let Err(error) = port.set_rss_hash(&hashing(asked)) {
        refused.push(cannot("what it hashes", "set", &error));
    }
    read(port)
}

fn settle_table(port: &mut Port, queues: u16) -> Result<Vec<u16>, String> {
    // A driver may size its table by the queues that it was configured with.
    let buckets = port.info().map_err(|error| cannot("its RSS", "read", &error))?.rss.buckets;
    port.set_rss_table(&table(buckets, queues)).map_err(|error| cannot("its table", "set", &error))?;
    port.rss_table().map_err(|error| cannot("its table", "read", &error))
}

/// As a part of a sentence that names the port.
fn cannot(what: &str, how: &str, error: &dpdk::Error) -> String {
    format!("{what} cannot be {how} ({})", error.reason)
}

fn abilities(has: rss::Abilities) -> Abilities {
    Abilities {
        kinds: kinds(has.fields),
        source_only: has.fields.contains(Field::SourceOnly),
        destination_only: has.fields.contains(Field::DestinationOnly),
        key_bytes: has.key_bytes.into(),
    }
}

fn kinds(fields: Fields) -> Kinds {
    Kinds {
        tcp_v4: fields.contains(Field::TcpV4),
        udp_v4: fields.contains(Field::UdpV4),
        tcp_v6: fields.contains(Field::TcpV6),
        udp_v6: fields.contains(Field::UdpV6),
        other_ip: fields.contains(Field::OtherIp),
    }
}

fn hash_of(hashing: &Hashing) -> Hash {
    let has = |field| hashing.fields.contains(field);
    let ends = match (has(Field::SourceOnly), has(Field::DestinationOnly)) {
        (true, false) => Ends::Source,
        (false, true) => Ends::Destination,
        // DPDK takes both together for neither.
        (true, true) | (false, false) => Ends::Both,
    };
    Hash { kinds: kinds(hashing.fields), ends, key: hashing.key.0.clone() }
}

fn hashing(hash: &Hash) -> Hashing {
    let Kinds { tcp_v4, udp_v4, tcp_v6, udp_v6, other_ip } = hash.kinds;
    let wanted = [
        (tcp_v4, Field::TcpV4),
        (udp_v4, Field::UdpV4),
        (tcp_v6, Field::TcpV6),
        (udp_v6, Field::UdpV6),
        (other_ip, Field::OtherIp),
        (hash.ends == Ends::Source, Field::SourceOnly),
        (hash.ends == Ends::Destination, Field::DestinationOnly),
    ];
    let fields: Vec<Field> = wanted.into_iter().filter(|(is, _)| *is).map(|(_, field)| field).collect();
    Hashing { fields: Fields::of(&fields), key: Key(hash.key.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_same_in_dpdks_words_and_back() {
        for bits in 0..32u8 {
            let kinds = Kinds {
                tcp_v4: bits & 1 != 0,
                udp_v4: bits & 2 != 0,
                tcp_v6: bits & 4 != 0,
                udp_v6: bits & 8 != 0,
                other_ip: bits & 16 != 0,
            };
            for ends in [Ends::Both, Ends::Source, Ends::Destination] {
                let hash = Hash { kinds, ends, key: vec![bits; 40] };
                assert!(hash_of(&hashing(&hash)) == hash, "{hash}");
            }
        }
    }
}
