//! The table's tests.

use super::*;
use crate::base::rng::Rng;
use crate::flow::key::{Address, TCP};
use crate::flow::tcp_state::TcpState;
use std::collections::HashMap;

fn client_key(n: u32) -> Key {
    Key {
        src: Address::v4(n.to_be_bytes()),
        dst: Address::v4([198, 51, 100, 1]),
        src_port: 40000,
        dst_port: 80,
        vlan: 0,
        protocol: TCP,
    }
}

fn server_key(n: u32) -> Key {
    Key {
        src: Address::v4([10, 0, 0, 10]),
        dst: Address::v4(n.to_be_bytes()),
        src_port: 80,
        dst_port: 2000,
        vlan: 0,
        protocol: TCP,
    }
}

fn flow(n: u32) -> Flow {
    Flow::new(client_key(n), server_key(n), TcpState::SynSeen)
}

fn table(capacity: u32) -> Table {
    Table::new(capacity, 1).expect("memory")
}

#[test]
fn both_directions_find_the_flow() {
    let mut table = table(10);
    let Insert::Done(place) = table.insert(&flow(1)) else { panic!("there is room") };
    assert_eq!(table.lookup(&client_key(1)), Some((place, Direction::FromClient)));
    assert_eq!(table.lookup(&server_key(1)), Some((place, Direction::FromServer)));
    assert_eq!(table.lookup(&client_key(1).reversed()), None);
    assert_eq!(table.lookup(&client_key(2)), None);
    assert_eq!(table.get(place), Some(flow(1)));
}

#[test]
fn a_removed_flow_is_found_by_neither_key_and_its_place_is_used_again() {
    let mut table = table(1);
    let Insert::Done(place) = table.insert(&flow(1)) else { panic!("there is room") };
    assert_eq!(table.remove(place), Some(flow(1)));
    assert_eq!(table.remove(place), None);
    assert_eq!((table.lookup(&client_key(1)), table.lookup(&server_key(1))), (None, None));
    assert!(table.is_empty() && table.get(place).is_none());
    assert_eq!(table.insert(&flow(2)), Insert::Done(place));
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    let mut table = table(2);
    assert!(matches!(table.insert(&flow(1)), Insert::Done(_)));
    assert!(matches!(table.insert(&flow(2)), Insert::Done(_)));
    assert_eq!(table.insert(&flow(3)), Insert::Full);
    assert_eq!(table.lookup(&client_key(3)), None);
    assert!(table.lookup(&client_key(1)).is_some() && table.lookup(&server_key(2)).is_some());
    assert_eq!(self::table(0).insert(&flow(1)), Insert::Full);
}

#[test]
fn a_key_belongs_to_one_flow_in_one_direction() {
    let mut table = table(10);
    assert!(matches!(table.insert(&flow(1)), Insert::Done(_)));
    let same_client = Flow::new(client_key(1), server_key(2), TcpState::SynSeen);
    assert_eq!(table.insert(&same_client), Insert::ClientKeyTaken);
    let same_server = Flow::new(client_key(2), server_key(1), TcpState::SynSeen);
    assert_eq!(table.insert(&same_server), Insert::ServerKeyTaken);
    let swapped = Flow::new(server_key(1), client_key(2), TcpState::SynSeen);
    assert_eq!(table.insert(&swapped), Insert::ClientKeyTaken);
    let twice = Flow::new(client_key(2), client_key(2), TcpState::SynSeen);
    assert_eq!(table.insert(&twice), Insert::ServerKeyTaken);
    assert_eq!(table.len(), 1);
    assert!(table.lookup(&client_key(2)).is_none() && table.lookup(&server_key(2)).is_none());
}

#[test]
fn a_walk_in_slices_meets_every_flow_that_stays() {
    let mut table = table(100);
    for n in 0..100 {
        assert!(matches!(table.insert(&flow(n)), Insert::Done(_)));
    }
    for n in (0..100).step_by(3) {
        table.remove(FlowIndex(n));
    }
    let mut met = vec![];
    let mut from = FlowIndex(0);
    while let Some(place) = table.next_occupied(from) {
        met.push(place);
        table.remove(FlowIndex(place.0.saturating_sub(20)));
        from = FlowIndex(place.0 + 1);
    }
    let expected: Vec<_> = (0..100).filter(|n| n % 3 != 0).map(FlowIndex).collect();
    assert_eq!(met, expected);
    assert_eq!(table.next_occupied(FlowIndex(u32::MAX)), None);
    assert_eq!(table.places_end(), FlowIndex(100));
    assert!(table.iter().all(|(place, flow)| flow == self::flow(place.0)));
    assert_eq!(table.iter().count(), table.len());
}

#[test]
fn it_behaves_as_a_plain_map_over_many_random_steps() {
    let mut rng = Rng::with_seed(4);
    let mut table = table(64);
    let mut model: HashMap<Key, (FlowIndex, Direction)> = HashMap::new();
    for _ in 0..50_000 {
        let n = rng.u32(0..100);
        match table.lookup(&client_key(n)) {
            Some((place, _)) => {
                assert!(table.remove(place).is_some());
                model.remove(&client_key(n));
                model.remove(&server_key(n));
            }
            None => match table.insert(&flow(n)) {
                Insert::Done(place) => {
                    model.insert(client_key(n), (place, Direction::FromClient));
                    model.insert(server_key(n), (place, Direction::FromServer));
                }
                Insert::Full => assert_eq!(table.len(), 64),
                taken => panic!("no key is used twice here: {taken:?}"),
            },
        }
        assert_eq!(table.len() * 2, model.len());
        let probe = rng.u32(0..100);
        for key in [client_key(probe), server_key(probe)] {
            assert_eq!(table.lookup(&key), model.get(&key).copied());
        }
    }
}

#[test]
fn a_flow_changes_in_everything_but_its_keys() {
    let mut table = table(10);
    let Insert::Done(place) = table.insert(&flow(1)) else { panic!("there is room") };
    let changed = table.update(place, |flow| {
        flow.tcp = TcpState::Closing;
        flow.client_adjacency = 5;
        flow.created = Version(7);
        flow.packets = 9;
        flow.client = client_key(2);
        flow.flags
    });
    assert_eq!(changed, Some(FlowFlags::NONE));
    table.set_flag(place, FlowFlags::HELD, true);
    let expected = Flow {
        tcp: TcpState::Closing,
        client_adjacency: 5,
        created: Version(7),
        packets: 9,
        flags: FlowFlags::HELD,
        ..flow(1)
    };
    assert_eq!(table.get(place), Some(expected));
    assert_eq!(table.tenant(place), Some((ShardId(0), Version(7))));
    assert!(table.lookup(&client_key(2)).is_none() && table.lookup(&client_key(1)).is_some());
    assert_eq!(table.update(FlowIndex(3), |_| ()), None);
}

#[test]
fn a_burst_finds_its_flows_by_the_bytes_of_its_packets() {
    let mut table = table(1000);
    for n in 0..1000 {
        assert!(matches!(table.insert(&flow(n)), Insert::Done(_)));
    }
    let mut sure = 0;
    for n in 0..2000 {
        for (key, direction) in
            [(client_key(n), Direction::FromClient), (server_key(n), Direction::FromServer)]
        {
            let image = table.imager().of(&key);
            let spot = table.spot(image);
            table.prefetch(spot);
            let candidate = table.candidate(spot);
            table.prefetch_flow(candidate.flow());
            let Some(hot) = table.hot_at(candidate, image) else { continue };
            assert_eq!(
                hot.answer(direction).v4_key().map(Key::reversed),
                Some(flow(n).translated(direction))
            );
            assert_eq!((candidate.flow(), candidate.direction()), (FlowIndex(n), direction));
            sure += 1;
        }
    }
    assert!((1990..=2000).contains(&sure), "{sure} of 2000 in the first place looked at");
}

#[test]
fn ipv6_flows_are_found_by_their_whole_keys() {
    let mut table = table(100);
    let key = |n: u8| Key { src: Address::v6([0x20 + n; 16]), dst: Address::v6([0x10; 16]), ..client_key(1) };
    for n in 0..50 {
        let answers = Key { dst_port: 3000 + u16::from(n), ..key(n).reversed() };
        assert!(matches!(table.insert(&Flow::new(key(n), answers, TcpState::SynSeen)), Insert::Done(_)));
    }
    for n in 0..100 {
        assert_eq!(table.lookup(&key(n)).is_some(), n < 50);
    }
    let (place, _) = table.lookup(&key(7)).expect("a flow");
    let (client, virtual_server) = ([0x27; 16], [0x10; 16]);
    // The flow's server is the client itself, and answers go to the virtual server.
    for (direction, src, dst, out) in [
        (Direction::FromClient, &client, &virtual_server, Some((client, virtual_server))),
        (Direction::FromServer, &virtual_server, &client, Some((virtual_server, client))),
        (Direction::FromClient, &client, &[0x11; 16], None),
        (Direction::FromClient, &[0x28; 16], &virtual_server, None),
    ] {
        let way = table.way(Candidate::new(place, direction), src, dst);
        assert_eq!(way.map(|way| (way.src, way.dst)), out, "{direction:?}");
    }
    assert_eq!(table.remove(place).map(|flow| flow.client), Some(key(7)));
    assert_eq!(table.lookup(&key(7)), None);
}

#[test]
fn comings_and_goings_at_the_brim_lose_nothing() {
    for capacity in [1, 7, 1000, 4000] {
        let mut table = table(capacity);
        let mut there: Vec<u32> = (0..capacity).collect();
        for n in 0..capacity {
            assert_eq!(table.insert(&flow(n)), Insert::Done(FlowIndex(n)));
        }
        let mut rng = Rng::with_seed(5);
        for n in capacity..capacity + 100_000 {
            let place = rng.u32(0..capacity);
            assert!(table.remove(FlowIndex(place)).is_some());
            assert_eq!(table.insert(&flow(n)), Insert::Done(FlowIndex(place)));
            there[place as usize] = n;
        }
        assert_eq!(table.insert(&flow(0)), Insert::Full);
        for (place, n) in there.iter().enumerate() {
            let found = table.lookup(&server_key(*n));
            assert_eq!(found, Some((FlowIndex(place as u32), Direction::FromServer)));
        }
    }
}
