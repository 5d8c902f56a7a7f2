//! What ports are asked for and what is made of their answers, case by case.

use super::*;
use crate::base::ids::ShardId;
use crate::flow::shard::owner_of;
use crate::flow::toeplitz::{KEY_MIN, MICROSOFT_KEY, Toeplitz};
use core::net::IpAddr;
use std::path::Path;

const ALL: Kinds = Kinds { tcp_v4: true, udp_v4: true, tcp_v6: true, udp_v6: true, other_ip: true };
const NO_UDP: Kinds = Kinds { udp_v4: false, udp_v6: false, ..ALL };
const FULL: Abilities = Abilities { kinds: ALL, source_only: true, destination_only: true, key_bytes: 40 };

fn wish(ends: Ends) -> Wish<'static> {
    Wish { ends, key: &MICROSOFT_KEY }
}

fn ends_asked(can: &Abilities, wanted: Ends) -> Vec<Ends> {
    asks(can, &wish(wanted)).into_iter().map(|ask| ask.ends).collect()
}

#[test]
fn a_port_is_asked_for_what_it_offers_and_no_more() {
    use Ends::{Both, Destination, Source};
    let neither = Abilities { source_only: false, destination_only: false, ..FULL };
    let source = Abilities { source_only: true, ..neither };
    let nothing = Abilities { kinds: Kinds::NONE, ..FULL };
    let table: [(Abilities, Ends, &[Ends]); 12] = [
        (FULL, Source, &[Source, Both, Both]),
        (FULL, Destination, &[Destination, Both, Both]),
        (FULL, Both, &[Both, Both]),
        (source, Source, &[Source, Both, Both]),
        (source, Destination, &[Both, Both]),
        (source, Both, &[Both, Both]),
        (neither, Source, &[Both, Both]),
        (neither, Destination, &[Both, Both]),
        (neither, Both, &[Both, Both]),
        (nothing, Source, &[]),
        (nothing, Destination, &[]),
        (nothing, Both, &[]),
    ];
    for (can, wanted, expected) in table {
        assert_eq!(ends_asked(&can, wanted), expected, "{wanted:?} of {can:?}");
    }
    let less = Abilities { kinds: NO_UDP, ..FULL };
    assert!(asks(&less, &wish(Source)).iter().all(|ask| ask.kinds == NO_UDP));
    let keys: Vec<usize> = asks(&FULL, &wish(Source)).iter().map(|ask| ask.key.len()).collect();
    assert_eq!(keys, [40, 40, 0], "the port's own key comes last");
}

#[test]
fn a_port_that_refuses_is_asked_for_less_until_nothing_is_left() {
    let asks = || asks(&FULL, &wish(Ends::Source));
    let names: Vec<String> = asks().iter().map(ToString::to_string).collect();
    for accepts in 0..=4 {
        let mut tried = 0;
        let outcome = first_accepted(asks(), |_| {
            tried += 1;
            if tried > accepts { Ok(tried) } else { Err("no") }
        });
        let Ok((made, accepted)) = outcome else {
            assert_eq!((accepts, tried), (4, 4), "with no RSS at all it fails for another reason");
            continue;
        };
        assert_eq!((made, tried), (accepts + 1, accepts + 1));
        assert!(accepted.hash == asks().get(accepts).cloned(), "{accepts} refused");
        let refused: Vec<String> =
            names.iter().take(accepts).map(|name| format!("asked to hash {name}: no")).collect();
        assert_eq!(accepted.refused, refused);
    }
}

#[test]
fn a_port_with_a_key_of_its_own_is_software_distribution() {
    let mut answer = honest(&FULL, Ends::Source);
    answer.refused.push("asked to hash it all: no".to_owned());
    answer.asked.as_mut().unwrap().key.clear();
    assert_eq!(
        judged(Ends::Source, &answer),
        "software: asked to hash it all: no; its key is not the group's"
    );
}

#[test]
fn keys_of_every_length_hash_alike() {
    for (said, bytes) in [(40, 40), (52, 52), (0, 40), (16, 16)] {
        let key = asks(&Abilities { key_bytes: said, ..FULL }, &wish(Ends::Both)).remove(0).key;
        assert_eq!(key.len(), bytes);
        let common = bytes.min(KEY_MIN);
        assert_eq!(key[..common], MICROSOFT_KEY[..common]);
    }
    let long = Toeplitz::new(&key_of(52, &MICROSOFT_KEY)).unwrap();
    let input: Vec<u8> = (0..36).map(|n| n * 7 + 1).collect();
    assert_eq!(long.hash(&input), Toeplitz::new(&MICROSOFT_KEY).unwrap().hash(&input));
}

#[test]
fn a_bucket_belongs_to_the_lcore_that_its_shard_has() {
    for (buckets, queues) in [(128, 2), (128, 4), (256, 3), (512, 3), (512, 16), (64, 1)] {
        let table = table(buckets, queues);
        assert_eq!(table.len(), usize::from(buckets));
        for (bucket, queue) in table.iter().enumerate() {
            let shard = ShardId((bucket % SHARDS) as u16);
            assert_eq!(*queue, owner_of(shard, queues).0, "bucket {bucket} of {buckets}, {queues} queues");
        }
    }
}

#[test]
fn buckets_are_shared_out_evenly_whatever_the_counts() {
    for buckets in [64, 100, 128, 512] {
        for queues in 1..=16 {
            let table = table(buckets, queues);
            let of = |queue| table.iter().filter(|of| **of == queue).count();
            let counts: Vec<usize> = (0..queues).map(of).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            // Once more for each turn over the shards.
            assert!(most - least <= 2, "{buckets} buckets: {counts:?}");
        }
    }
    assert!(table(0, 2).is_empty());
}

/// The port does what it accepted: the first of what it was asked for.
fn honest(can: &Abilities, wanted: Ends) -> Answer {
    let asked = asks(can, &wish(wanted)).into_iter().next();
    Answer {
        queues: (2, 2),
        refused: Vec::new(),
        hash: asked.clone().ok_or_else(|| "none".to_owned()),
        asked,
        table: Ok(table(128, 2)),
    }
}

fn judged(wanted: Ends, answer: &Answer) -> String {
    judge(&wish(wanted), answer).to_string()
}

#[test]
fn a_port_that_does_as_it_was_asked_spreads_packets_itself() {
    let cases = [
        (FULL, Ends::Source, "source of TCP and UDP; 2 queues, 128 buckets"),
        (FULL, Ends::Destination, "destination of TCP and UDP; 2 queues, 128 buckets"),
        (FULL, Ends::Both, "source and destination of TCP and UDP; 2 queues, 128 buckets"),
        (
            Abilities { source_only: false, ..FULL },
            Ends::Source,
            "source and destination of TCP and UDP; 2 queues, 128 buckets: it does not hash the source alone",
        ),
        (
            Abilities { kinds: NO_UDP, ..FULL },
            Ends::Source,
            "source of TCP over IPv4, TCP over IPv6; 2 queues, 128 buckets: it does not hash UDP over IPv4, UDP \
             over IPv6",
        ),
    ];
    for (can, wanted, expected) in cases {
        assert_eq!(judged(wanted, &honest(&can, wanted)), expected);
    }
}

#[test]
fn whatever_differs_from_what_was_asked_is_software_distribution_and_named() {
    type Change = fn(&mut Answer);
    let cases: [(Change, &str); 9] = [
        (
            |answer| answer.hash.as_mut().ok().unwrap().ends = Ends::Both,
            "it accepted to hash source and hashes source and destination",
        ),
        (
            |answer| answer.hash.as_mut().ok().unwrap().kinds = NO_UDP,
            "it accepted to hash UDP over IPv4, UDP over IPv6 and does not",
        ),
        (|answer| answer.hash.as_mut().ok().unwrap().key[39] ^= 1, "its key is not the group's"),
        (|answer| answer.hash = Err("no hash".to_owned()), "no hash"),
        (|answer| answer.table.as_mut().unwrap()[127] = 0, "its buckets lead to other queues than was set"),
        (|answer| answer.table = Err("no table".to_owned()), "no table"),
        (|answer| (answer.asked, answer.refused) = (None, vec!["it said no".to_owned()]), "it said no"),
        (|answer| answer.asked = None, "it offers no RSS"),
        (|answer| answer.queues = (2, 1), "it has one receive queue"),
    ];
    for (change, why) in cases {
        let mut answer = honest(&FULL, Ends::Source);
        change(&mut answer);
        assert_eq!(judged(Ends::Source, &answer), format!("software: {why}"));
    }
}

#[test]
fn two_differences_are_both_named() {
    let mut answer = honest(&FULL, Ends::Source);
    answer.hash.as_mut().ok().unwrap().key.clear();
    answer.table = Err("no table".to_owned());
    assert_eq!(judged(Ends::Source, &answer), "software: its key is not the group's; no table");
}

#[test]
fn more_than_was_asked_for_does_no_harm() {
    let mut answer = honest(&Abilities { kinds: NO_UDP, ..FULL }, Ends::Source);
    answer.hash.as_mut().ok().unwrap().kinds = ALL;
    assert_eq!(judge(&wish(Ends::Source), &answer).by, SpreadBy::Port);
    let mut answer = honest(&FULL, Ends::Source);
    answer.hash.as_mut().ok().unwrap().kinds.other_ip = false;
    assert_eq!(judge(&wish(Ends::Source), &answer).by, SpreadBy::Port);
}

#[test]
fn what_a_port_refused_before_it_accepted_is_named() {
    let mut answer = honest(&Abilities { source_only: false, ..FULL }, Ends::Source);
    answer.refused.push("it refused the source".to_owned());
    assert!(judged(Ends::Source, &answer).ends_with("128 buckets: it refused the source"));
}

#[test]
fn one_wanted_queue_is_nothing_to_speak_of() {
    let answer = Answer { queues: (1, 1), ..honest(&FULL, Ends::Source) };
    let report = judge(&wish(Ends::Source), &answer);
    assert_eq!(report.to_string(), "one queue");
    assert_eq!(said("client", &wish(Ends::Source), &report), None);
}

#[test]
fn the_log_says_what_was_asked_what_the_port_does_and_what_follows() {
    let log = |answer: &Answer| {
        let wish = wish(Ends::Source);
        said("client", &wish, &judge(&wish, answer)).unwrap()
    };
    assert_eq!(
        log(&honest(&FULL, Ends::Source)),
        (
            Level::Info,
            "port client: RSS with the group's key by source of TCP and UDP, over 2 queues by 128 buckets, as \
             read back"
                .to_owned()
        )
    );
    let (level, text) = log(&honest(&Abilities { source_only: false, ..FULL }, Ends::Source));
    assert_eq!(level, Level::Info);
    assert!(text.contains("by source and destination of TCP and UDP, over 2 queues"), "{text}");
    assert!(text.contains("it does not hash the source alone: more packets are handed over"), "{text}");
    assert_eq!(
        log(&honest(&Abilities::default(), Ends::Source)),
        (
            Level::Warn,
            "port client: asked for RSS with the group's key by the source of TCP and UDP, but it offers no \
             RSS: software distribution: packets are handed over between lcores (counter handed_over)"
                .to_owned()
        )
    );
}

const CONFIG: &str = r#"
[appliance]
name = "a"
node = 1
[lcores]
master_cpu = 0
worker = [ { cpu = 0 }, { cpu = 0 } ]
[[port]]
name = "client"
device = "net_ring0"
addresses = ["10.1.0.2/24"]
[[port]]
name = "server"
device = "net_ring1"
addresses = ["10.2.0.2/24"]
[[port]]
name = "third"
device = "net_ring2"
addresses = ["10.3.0.2/24"]
[[route]]
destination = "0.0.0.0/0"
gateway = "10.1.0.1"
[[route]]
destination = "10.8.0.0/16"
gateway = "10.3.0.1"
[[pool]]
name = "web"
server = [ { address = "SERVER:80" } ]
[[virtual_server]]
name = "www"
address = "VIRTUAL:80"
protocol = "tcp"
pool = "web"
forwarding = "full-nat"
snat_addresses = ["10.2.0.100"]
mirror = { mode = "off" }
[failover]
virtual_router_id = 51
"#;

#[test]
fn clients_and_servers_are_where_addresses_lead() {
    use Ends::{Both, Destination, Source};
    let cases = [
        ("10.1.0.100", "10.2.0.10", [Source, Destination, Both]),
        // A virtual address of no port's network, and servers behind a router.
        ("192.0.2.1", "10.8.0.10", [Source, Both, Destination]),
        // One arm.
        ("10.2.0.50", "10.2.0.10", [Both, Both, Both]),
    ];
    for (virtual_address, server, expected) in cases {
        let text = CONFIG.replace("VIRTUAL", virtual_address).replace("SERVER", server);
        let checked = crate::config::load(Path::new("rss.toml"), &text).unwrap_or_else(|errors| {
            panic!("{}", errors.iter().map(|error| format!("{error}\n")).collect::<String>())
        });
        let server: IpAddr = server.parse().unwrap();
        assert_eq!(ends(&checked), expected, "virtual {virtual_address}, server {server}");
    }
}
