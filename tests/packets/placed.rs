//! Connection keys that their hashes do not lead to their shards: every signal and every less specific key, by packets in and
//! packets out (REQ D3, D6, D7, D9).

use baton::base::counters::Counter;
use baton::base::ids::ShardId;
use baton::base::io::TxClass;
use baton::base::time::Duration;
use baton::config::checked::{ChosenMethod, HashMethod, Method};
use baton::distributor::shape::Shape;
use baton::distributor::signal::{Lifetime, Sides, Signal, What};
use baton::distributor::tell::Told;
use baton::flow::Key;
use baton::flow::key::{TCP, UDP};
use baton::worker::Origin;
use baton::worker::message::Command;

use crate::bench::*;
use crate::workers::*;

const PORT: u16 = 2000;

/// Three workers whose stores are in use, while new connections go by the hash of their source.
fn hashed() -> Workers {
    Workers::new(3, Method::Hash(HashMethod::Source), |_| {})
}

fn key_of(packet: &Packet) -> Key {
    Key {
        src: packet.from.0.into(),
        dst: packet.to.0.into(),
        src_port: packet.from.1,
        dst_port: packet.to.1,
        vlan: 0,
        protocol: if packet.flags.is_some() { TCP } else { UDP },
    }
}

fn opening(port: u16) -> Packet {
    from_client(port, FULL_NAT, 80, Some(SYN))
}

fn natural(port: u16) -> ShardId {
    let from = opening(port).from;
    toeplitz().shard_of(from.0.into(), from.1)
}

/// A shard of another worker than the one that its hash leads to, and not of any in `but`.
fn elsewhere(port: u16, but: &[ShardId]) -> ShardId {
    let owner = |shard: ShardId| shard.0 % 3;
    let taken: Vec<u16> = but.iter().chain(&[natural(port)]).map(|shard| owner(*shard)).collect();
    (0..3).map(ShardId).find(|shard| !taken.contains(&owner(*shard))).expect("a third worker")
}

fn signal(what: What, shape: Shape, key: &Key, shard: ShardId) -> Told {
    Told::Signal(Signal { what, shape, key: *key, shard, sides: Sides::Both, mirror: false })
}

/// A connection is opened, wherever its packet comes in: the worker that has it.
fn open(workers: &mut Workers, port: u16) -> usize {
    workers.open(FULL_NAT, port);
    workers.holder(&key_of(&opening(port))).expect("a flow")
}

#[test]
fn each_less_specific_key_leads_a_new_connection_and_the_most_specific_decides() {
    for (at, shape) in Shape::ORDER.into_iter().enumerate() {
        let mut workers = hashed();
        let key = key_of(&opening(PORT));
        let shard = elsewhere(PORT, &[]);
        // All that are less specific say something else.
        for less in &Shape::ORDER[at + 1..] {
            let lifetime = Lifetime::Idle(Duration::from_secs(60));
            workers.tell_all(signal(What::Memorize(lifetime), *less, &key, elsewhere(PORT, &[shard])));
        }
        let lifetime = if shape == Shape::Full { Lifetime::Chosen } else { Lifetime::Held };
        workers.tell_all(signal(What::Memorize(lifetime), shape, &key, shard));
        assert_eq!(open(&mut workers, PORT), usize::from(shard.0 % 3), "{shape}");
        // The answer comes in anywhere, too.
        let other = Key { src_port: PORT + 1, ..key };
        let fits = shape.of(&other) == shape.of(&key);
        workers.open(FULL_NAT, PORT + 1);
        let holder = workers.holder(&other).expect("a flow");
        if fits {
            assert_eq!(holder, usize::from(shard.0 % 3), "{shape}: for all keys that fit");
        }
    }
}

#[test]
fn a_key_of_another_vlan_or_protocol_leads_nothing() {
    let mut workers = hashed();
    let key = key_of(&opening(PORT));
    for other in [Key { vlan: 7, ..key }, Key { protocol: UDP, ..key }] {
        for shape in Shape::ORDER {
            workers.tell_all(signal(What::Memorize(Lifetime::Held), shape, &other, elsewhere(PORT, &[])));
        }
    }
    assert_eq!(open(&mut workers, PORT), usize::from(natural(PORT).0 % 3));
}

#[test]
fn what_is_forgotten_goes_by_its_hash_again() {
    let mut workers = hashed();
    let (key, shard) = (key_of(&opening(PORT)), elsewhere(PORT, &[]));
    workers.tell_all(signal(What::Memorize(Lifetime::Held), Shape::Service, &key, shard));
    // Of an owner before: it changes nothing.
    let before = elsewhere(PORT, &[shard]);
    workers.tell_all(signal(What::Forget, Shape::Service, &key, before));
    assert_eq!(open(&mut workers, PORT), usize::from(shard.0 % 3));
    workers.tell_all(signal(What::Forget, Shape::Service, &key, shard));
    assert_eq!(open(&mut workers, PORT + 1), usize::from(natural(PORT + 1).0 % 3));
}

#[test]
fn what_is_aged_ends_though_packets_come() {
    let mut workers = hashed();
    let (key, shard) = (key_of(&opening(PORT)), elsewhere(PORT, &[]));
    workers.tell_all(signal(What::Memorize(Lifetime::Held), Shape::Service, &key, shard));
    workers.tell_all(signal(What::Age, Shape::Service, &key, shard));
    for port in PORT..PORT + 9 {
        assert_eq!(open(&mut workers, port), usize::from(shard.0 % 3), "it still stands");
        workers.pass(1000);
    }
    workers.pass(3000);
    assert_eq!(open(&mut workers, PORT + 20), usize::from(natural(PORT + 20).0 % 3));
}

#[test]
fn what_is_ignored_goes_by_its_hash_whatever_a_less_specific_key_says() {
    let mut workers = hashed();
    let (key, shard) = (key_of(&opening(PORT)), elsewhere(PORT, &[]));
    workers.tell_all(signal(What::Memorize(Lifetime::Held), Shape::Service, &key, shard));
    workers.tell_all(signal(What::Ignore, Shape::Full, &key, natural(PORT)));
    assert_eq!(open(&mut workers, PORT), usize::from(natural(PORT).0 % 3));
    let other = PORT + 1;
    assert_eq!(open(&mut workers, other), usize::from(shard.0 % 3), "others are not ignored");
}

#[test]
fn what_one_lcore_is_told_with_mirror_all_know() {
    let mut workers = hashed();
    let (key, shard) = (key_of(&opening(PORT)), elsewhere(PORT, &[]));
    let one = Signal {
        what: What::Memorize(Lifetime::Held),
        shape: Shape::Service,
        key,
        shard,
        sides: Sides::Both,
        mirror: true,
    };
    let now = workers.benches[0].now;
    workers.benches[0].worker.hear(now, &Told::Signal(one));
    workers.pass(10);
    for receiver in 0..3 {
        let port = PORT + receiver as u16;
        workers.handle_at(receiver, CLIENT_PORT, &opening(port).bytes());
        assert_eq!(workers.holder(&key_of(&opening(port))), Some(usize::from(shard.0 % 3)), "{receiver}");
    }
    // One that missed it is told what is known, when it is asked for.
    let forget = Signal { what: What::Forget, mirror: false, ..one };
    workers.benches[2].worker.hear(now, &Told::Signal(forget));
    workers.handle_at(2, CLIENT_PORT, &opening(PORT + 10).bytes());
    let mirror = Signal { what: What::Mirror, mirror: false, ..one };
    workers.benches[1].worker.hear(now, &Told::Signal(mirror));
    workers.pass(10);
    let told = workers.benches[2].worker.placer_store().expect("a store").len_of(Shape::Service);
    assert_eq!(told, 1);
}

/// A traffic manager expects a server's packet of which it does not know the port (REQ D7): the first that fits goes to it,
/// wherever it comes in, and teaches all distributors the rest.
#[test]
fn an_expected_packet_from_a_server_teaches_the_port_that_was_missing() {
    let mut workers = Workers::new(3, Method::Chosen(ChosenMethod::RoundRobin), |_| {});
    // A connection whose server sees the client's address, with a manager that its hash does not lead to.
    let (port, holder, at_server) = (PORT..)
        .find_map(|port| {
            let at_server = workers.open(NAT, port);
            let key = key_of(&from_client(port, NAT, 80, Some(SYN)));
            let holder = workers.holder(&key).expect("a flow");
            let hash = toeplitz().shard_of(key.src, key.src_port);
            (usize::from(hash.0 % 3) != holder).then_some((port, holder, at_server))
        })
        .expect("it takes turns");
    let answer = at_server.answer(Some(SYN_ACK));
    let full = key_of(&answer);
    let shard = {
        let table = &workers.benches[holder].worker.flows().table;
        let (index, _) = table.lookup(&full).expect("a flow");
        table.get(index).expect("a flow").shard
    };
    // Had the manager not known from which port the server would answer.
    workers.tell_all(signal(What::Forget, Shape::Full, &full, shard));
    let once = What::Memorize(Lifetime::Once(Duration::from_secs(30)));
    let partial = Key { src_port: 0, ..full };
    workers.tell_all(signal(once, Shape::NoSourcePort, &partial, shard));
    let receiver = (0..3).find(|n| *n != holder).expect("another one");
    let sent = workers.handle_at(receiver, SERVER_PORT, &answer.bytes());
    assert_eq!(only(&sent, CLIENT_PORT, TxClass::Service).to.1, port);
    assert_eq!(workers.count(Counter::KeysLearned), 1);
    for bench in &workers.benches {
        let store = bench.worker.placer_store().expect("a store");
        assert_eq!(store.len_of(Shape::NoSourcePort), 0, "the full key took its place");
    }
    // The next one comes in by the third.
    let third = 3 - receiver - holder;
    let next = at_server.answer(Some(ACK));
    let sent = workers.handle_at(third, SERVER_PORT, &next.bytes());
    assert_eq!(only(&sent, CLIENT_PORT, TxClass::Service).to.1, port);
    assert_eq!(workers.count(Counter::DropNoFlow), 0);
}

/// A connection has ended, and one worker has not heard so: it sends the first packet of the next one with the same ports to the
/// worker that had it. Meanwhile the packet comes again elsewhere, and another worker is chosen.
#[test]
fn a_packet_for_a_connection_that_has_ended_goes_home_and_does_not_begin_a_second_one() {
    let mut workers = Workers::new(3, Method::Chosen(ChosenMethod::RoundRobin), |_| {});
    let mut seen = 0;
    for port in 2000..2060 {
        let before = open(&mut workers, port);
        let home = usize::from(natural(port).0 % 3);
        if before == home {
            continue;
        }
        workers.benches.iter_mut().for_each(|bench| bench.now += Duration::from_secs(3600));
        let bench = &mut workers.benches[before];
        let (place, _) = bench.worker.flows().table.lookup(&key_of(&opening(port))).expect("a flow");
        bench.command(Command::Expire { flow: place });
        workers.turn(before, Origin::Port, Vec::new());
        assert_eq!(workers.holder(&key_of(&opening(port))), None);
        let late = 3 - home - before;
        let unheard = std::mem::take(workers.unheard(late));
        assert!(!unheard.is_empty());
        let syn = || vec![frame_received(CLIENT_PORT, &opening(port).bytes())];
        workers.turn(late, Origin::Port, syn());
        workers.turn(home, Origin::Port, syn());
        *workers.unheard(late) = unheard.into_iter().chain(workers.unheard(late).drain(..)).collect();
        workers.settle();
        // There it would be with two.
        let after = workers.holder(&key_of(&opening(port))).expect("a flow");
        seen += u32::from(after != before);
        let sent = workers.take_sent(TxClass::Service);
        assert_eq!(sent.len(), 2, "once for each time that it came");
        assert_eq!(Packet::read(&sent[0].bytes).from, Packet::read(&sent[1].bytes).from);
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn no_connection_begins_whose_keys_others_cannot_hear() {
    let mut workers = Workers::new(3, Method::Chosen(ChosenMethod::RoundRobin), |_| {});
    workers.open_many(FULL_NAT, 2000..2030);
    let flows = workers.flows();
    workers.benches.iter_mut().for_each(|bench| bench.io.is_deaf = true);
    for port in 3000..3030 {
        let sent = workers.handle(CLIENT_PORT, &opening(port).bytes());
        // Those that stay where their hash leads have nothing to tell.
        let holder = workers.holder(&key_of(&opening(port)));
        assert_eq!(holder.is_some(), !sent.is_empty());
        assert!(holder.is_none_or(|holder| holder == usize::from(natural(port).0 % 3)));
    }
    assert!(workers.count(Counter::DropTellFull) > 10);
    for port in 2000..2030 {
        workers.handle(CLIENT_PORT, &from_client(port, FULL_NAT, 80, Some(ACK)).bytes());
    }
    workers.benches.iter_mut().for_each(|bench| bench.io.is_deaf = false);
    workers.open_many(FULL_NAT, 4000..4030);
    assert!(workers.flows().iter().sum::<u64>() >= flows.iter().sum::<u64>() + 30);
}

#[test]
fn a_full_store_refuses_new_connections_and_keeps_the_others() {
    let few = |checked: &mut baton::config::checked::Checked| checked.distributor.max_keys = 256;
    let mut workers = Workers::new(3, Method::Chosen(ChosenMethod::RoundRobin), few);
    for port in 2000..2600 {
        workers.handle(CLIENT_PORT, &opening(port).bytes());
    }
    assert!(workers.count(Counter::DropKeysFull) > 50, "{}", workers.count(Counter::DropKeysFull));
    let alive: Vec<u16> =
        (2000..2600).filter(|port| workers.holder(&key_of(&opening(*port))).is_some()).collect();
    assert!(alive.len() >= 256, "{}", alive.len());
    for port in alive {
        let sent = workers.handle(CLIENT_PORT, &from_client(port, FULL_NAT, 80, Some(ACK)).bytes());
        assert_eq!(sent.len(), 1, "{port}");
    }
}
