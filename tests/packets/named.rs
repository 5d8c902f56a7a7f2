//! Traffic for a traffic manager that the configuration names, by packets in and packets out (REQ D10, D6).

use std::net::IpAddr;
use std::sync::Arc;

use baton::base::counters::{Counter, Counters};
use baton::base::ids::WorkerId;
use baton::base::io::TxClass;
use baton::base::time::Instant;
use baton::config::checked::{Checked, ChosenMethod, HashMethod, Method, NamedKey, Protocol};
use baton::config::snapshot::Snapshot;
use baton::distributor::spread::{Distributor, DistributorSetup};

use crate::bench::*;
use crate::workers::*;

fn named(address: &str, port: Option<u16>, manager: u16) -> NamedKey {
    let address: IpAddr = address.parse().expect("an address");
    NamedKey { address, port, protocol: Protocol::Tcp, manager: WorkerId(manager) }
}

/// Both virtual servers' traffic has its manager.
fn naming(checked: &mut Checked) {
    checked.distributor.keys = vec![named(FULL_NAT, Some(80), 2), named(NAT, None, 1)];
}

#[test]
fn all_connections_of_a_destination_go_to_the_manager_that_is_named_and_their_answers_too() {
    for method in [Method::Hash(HashMethod::Source), Method::Chosen(ChosenMethod::RoundRobin)] {
        for (to, expected) in [(FULL_NAT, [0, 0, 500]), (NAT, [0, 500, 0])] {
            let mut workers = Workers::new(3, method, naming);
            // More than one shard has source-NAT ports.
            let asked = workers.open_many(to, 2000..2500);
            assert_eq!(workers.flows(), expected, "{method:?} {to}");
            for (port, at_server) in (2000..).zip(&asked) {
                let sent = workers.handle(SERVER_PORT, &at_server.answer(Some(SYN_ACK)).bytes());
                assert_eq!(only(&sent, CLIENT_PORT, TxClass::Service).to.1, port);
                let sent = workers.handle(CLIENT_PORT, &from_client(port, to, 80, Some(ACK)).bytes());
                assert_eq!(only(&sent, SERVER_PORT, TxClass::Service).from, at_server.from);
            }
            assert_eq!(workers.flows(), expected, "no packet began a second flow");
            assert_eq!(workers.count(Counter::DropNoFlow), 0);
        }
    }
}

#[test]
fn what_is_not_named_goes_as_ever() {
    let mut workers = Workers::new(3, Method::Hash(HashMethod::Source), naming);
    workers.open_many(HASHED, 2000..2300);
    let flows = workers.flows();
    assert!(flows.iter().all(|count| *count > 60), "{flows:?}");
    // The address and port of another protocol.
    let mut workers = Workers::new(3, Method::Hash(HashMethod::Source), |checked| {
        let udp = NamedKey { protocol: Protocol::Udp, ..named(FULL_NAT, Some(80), 2) };
        checked.distributor.keys = vec![udp];
    });
    workers.open_many(FULL_NAT, 2000..2300);
    let flows = workers.flows();
    assert!(flows.iter().all(|count| *count > 60), "{flows:?}");
}

#[test]
fn a_port_says_more_than_an_address() {
    for (first, second) in [(0, 1), (1, 0)] {
        let mut workers = Workers::new(2, Method::Hash(HashMethod::Source), |checked| {
            checked.distributor.keys = vec![named(FULL_NAT, None, first), named(FULL_NAT, Some(80), second)];
        });
        workers.open_many(FULL_NAT, 2000..2040);
        assert_eq!(workers.flows()[usize::from(second)], 40);
    }
}

#[test]
fn a_key_stays_however_long_nothing_comes_and_after_all_connections_have_ended() {
    let mut workers = Workers::new(3, Method::Hash(HashMethod::Source), naming);
    workers.open_many(FULL_NAT, 2000..2010);
    for port in 2000..2010 {
        let reset = from_client(port, FULL_NAT, 80, Some(RST));
        workers.handle(CLIENT_PORT, &reset.bytes());
    }
    workers.pass(60_000);
    let before = workers.flows();
    workers.open_many(FULL_NAT, 3000..3040);
    assert_eq!(workers.gained(&before), [0, 0, 40]);
}

#[test]
fn a_distributor_hands_it_to_the_manager_at_once() {
    let mut checked = snapshot(1).checked.clone();
    checked.lcores.workers = vec![checked.lcores.workers[0].clone(); 3];
    checked.distributor.remembers = true;
    naming(&mut checked);
    let mut distributor = Distributor::new(DistributorSetup {
        snapshot: Arc::new(Snapshot { generation: 1, checked }),
        workers: 3,
        link_addresses: OWN_MACS.to_vec(),
        toeplitz: toeplitz(),
        me: WorkerId(3),
        hash_seed: 5,
        now: Instant::ZERO,
        counters: Arc::new(Counters::default()),
    })
    .expect("memory");
    let mut io = MemoryIo::default();
    for (to, manager) in [(FULL_NAT, 2), (NAT, 1)] {
        let opening = |port| frame_received(CLIENT_PORT, &from_client(port, to, 80, Some(SYN)).bytes());
        distributor.handle_burst(Instant::ZERO, &mut (2000..2040).map(opening).collect(), &mut io);
        assert_eq!(io.handed.len(), 40);
        assert!(io.handed.drain(..).all(|(worker, _)| worker == WorkerId(manager)));
    }
}
