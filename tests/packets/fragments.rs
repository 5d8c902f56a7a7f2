//! Packets in pieces through a worker, and through several (REQ D4).

use baton::base::counters::Counter;
use baton::base::io::{Punt, TxClass};
use baton::base::limits::FRAGMENT_TIMEOUT;
use baton::base::rng::Rng;
use baton::driver::memory::PlainBuffer;
use baton::flow::TcpState;
use baton::wire::ipv4;
use baton::worker::Origin;
use baton::worker::message::{Command, Role};

use crate::bench::*;
use crate::pieces::{Host, fragment_of, pieces};

const NODE_2: baton::base::ids::NodeId = baton::base::ids::NodeId(2);

/// A datagram of so many bytes of payload, of a client to a virtual server of its family.
fn large(port: u16, to: &str, len: usize) -> Packet {
    let payload = (0..len).map(|at| (at / 7) as u8).collect();
    Packet { payload, ..from_client(port, to, 53, None) }
}

/// Every order of `n` things.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let longer = |order: Vec<usize>| {
        (0..n).map(move |at| {
            let mut order = order.clone();
            order.insert(at, n - 1);
            order
        })
    };
    orders(n - 1).into_iter().flat_map(longer).collect()
}

/// The one packet that these frames are put together to.
fn put_together(sent: &[Sent]) -> Packet {
    let mut host = Host::default();
    let whole: Vec<_> = sent.iter().filter_map(|sent| host.came(&sent.bytes)).collect();
    assert_eq!((whole.len(), host.waiting()), (1, 0));
    Packet::read(&whole[0])
}

#[test]
fn fragments_in_any_order_go_to_the_server_and_back_and_are_whole_there() {
    for to in ["10.1.0.102", "fd01::102"] {
        for (number, order) in orders(4).into_iter().enumerate() {
            let mut bench = Bench::active();
            let query = large(5353, to, 4000);
            let there = pieces(&query.bytes(), 0xabc, 1024);
            let mut sent = Vec::new();
            for at in &order {
                sent.extend(bench.handle(CLIENT_PORT, &there[*at]));
            }
            let offsets = sent.iter().map(|sent| usize::from(fragment_of(&sent.bytes).offset) / 1024);
            let behind_the_first = order.iter().copied().filter(|at| *at != 0);
            assert!(offsets.eq(core::iter::once(0).chain(behind_the_first)), "{to}, order {order:?}");
            assert!(sent.iter().all(|sent| (sent.port, sent.class) == (SERVER_PORT, TxClass::Service)));
            let out = put_together(&sent);
            assert_eq!((&out.payload, out.to.1, out.hops), (&query.payload, 8080, 63));
            assert_eq!(out.to_mac, SERVER_MAC);

            let answer = Packet { payload: vec![number as u8; 3000], ..out.answer(None) };
            let back = pieces(&answer.bytes(), 0xdef, 1024);
            let sent: Vec<_> = back.iter().rev().flat_map(|piece| bench.handle(SERVER_PORT, piece)).collect();
            let read = put_together(&sent);
            assert_eq!((read.from, read.to, read.payload), (query.to, query.from, answer.payload));
            assert_eq!((bench.count(Counter::FlowsMade), bench.count(Counter::FragmentedWhole)), (1, 2));
        }
    }
}

#[test]
fn of_a_later_fragment_nothing_is_rewritten_but_its_network_header() {
    let mut bench = Bench::active();
    let there = pieces(&large(5353, "10.1.0.102", 2000).bytes(), 7, 1024);
    bench.handle(CLIENT_PORT, &there[0]);
    let sent = bench.handle(CLIENT_PORT, &there[1]);
    assert_eq!(sent[0].bytes[34..], there[1][34..]);
    let ip = ipv4::Packet::new_unchecked(&sent[0].bytes[14..]);
    assert!(ip.checksum_is_valid());
    assert_eq!((ip.source().octets(), ip.destination().octets()), ([10, 2, 0, 100], [10, 2, 0, 10]));
}

#[test]
fn a_later_fragment_begins_no_flow_and_goes_nowhere_without_one() {
    let mut bench = Bench::active();
    let closed =
        Packet { to: ("10.1.0.102".parse().expect("an address"), 54), ..large(5353, "10.1.0.102", 2000) };
    for piece in pieces(&closed.bytes(), 7, 1024) {
        assert!(bench.handle(CLIENT_PORT, &piece).is_empty());
    }
    assert_eq!((bench.count(Counter::DropNoListener), bench.count(Counter::DropNoFlow)), (1, 1));
    assert_eq!(bench.count(Counter::FlowsMade), 0);
}

#[test]
fn every_fragment_is_a_sign_of_life_of_its_flow() {
    let mut bench = Bench::active();
    let there = pieces(&large(5353, "10.1.0.102", 2000).bytes(), 7, 1024);
    bench.handle(CLIENT_PORT, &there[0]);
    let (place, _) = bench.worker.flows().table.iter().next().expect("the flow");
    // Piece by piece over longer than a flow of datagrams may be idle; each first piece known again in time.
    let again = pieces(&large(5353, "10.1.0.102", 60_000).bytes(), 8, 1024);
    bench.handle(CLIENT_PORT, &again[0]);
    for piece in &again[1..] {
        bench.poll_after(FRAGMENT_TIMEOUT.millis() / 64);
        assert_eq!(bench.handle(CLIENT_PORT, piece).len(), 1);
    }
    bench.poll_after(297_000);
    bench.command(Command::Expire { flow: place });
    bench.poll_after(0);
    assert_eq!(
        bench.status().flows,
        1,
        "the last fragment came 297 seconds ago, the first one more than 300"
    );
    bench.poll_after(4_000);
    bench.command(Command::Expire { flow: place });
    bench.poll_after(0);
    assert_eq!(bench.status().flows, 0);
}

#[test]
fn two_clients_behind_one_address_never_share_an_identification() {
    for to in ["10.1.0.102", "fd01::102"] {
        let mut bench = Bench::active();
        let datagrams: Vec<_> = (0..40).map(|n| large(6000 + n, to, 2000)).collect();
        let all: Vec<_> = datagrams.iter().map(|datagram| pieces(&datagram.bytes(), 99, 1024)).collect();
        // From other addresses, all with identification 99; every first piece, then every second one.
        let elsewhere = |piece: &[u8], n: usize| {
            let mut piece = piece.to_vec();
            if to.contains(':') {
                piece[37] = n as u8;
            } else {
                piece[29] = n as u8;
                ipv4::Packet::new_unchecked(&mut piece[14..]).fill_checksum();
            }
            piece
        };
        let mut host = Host::default();
        let mut whole = 0;
        for at in 0..2 {
            for (n, pieces) in all.iter().enumerate() {
                for sent in bench.handle(CLIENT_PORT, &elsewhere(&pieces[at], 60 + n)) {
                    whole += usize::from(host.came(&sent.bytes).is_some());
                }
            }
        }
        assert_eq!((whole, host.waiting()), (40, 0), "{to}");
    }
}

#[test]
fn an_overlap_drops_the_datagram_so_that_no_host_has_it_whole() {
    let mut bench = Bench::active();
    let there = pieces(&large(5353, "10.1.0.102", 3000).bytes(), 7, 1024);
    let over = pieces(&large(5353, "10.1.0.102", 3000).bytes(), 7, 1016);
    let mut host = Host::default();
    for piece in [&there[0], &over[1], &there[1], &there[2]] {
        for sent in bench.handle(CLIENT_PORT, piece) {
            assert_eq!(host.came(&sent.bytes), None);
        }
    }
    assert_eq!(bench.count(Counter::DropFragmentOverlap), 1);
    assert_eq!(bench.count(Counter::DropFragmentGivenUp), 2);
}

#[test]
fn duplicates_are_dropped_alone() {
    let mut bench = Bench::active();
    let query = large(5353, "fd01::102", 3000);
    let there = pieces(&query.bytes(), 7, 1024);
    let order = [1, 1, 0, 0, 1, 2];
    let sent: Vec<_> = order.iter().flat_map(|at| bench.handle(CLIENT_PORT, &there[*at])).collect();
    assert_eq!((sent.len(), put_together(&sent).payload), (3, query.payload));
    assert_eq!(bench.count(Counter::DropFragmentDuplicate), 3);
}

#[test]
fn a_packet_in_one_piece_with_a_fragment_header_has_nothing_to_do_with_others() {
    let mut bench = Bench::active();
    let there = pieces(&large(5353, "fd01::102", 2000).bytes(), 7, 1024);
    let atomic = pieces(&large(5353, "fd01::102", 100).bytes(), 7, 1024);
    assert_eq!((there.len(), atomic.len()), (2, 1));
    assert!(bench.handle(CLIENT_PORT, &there[1]).is_empty());
    let out = only(&bench.handle(CLIENT_PORT, &atomic[0]), SERVER_PORT, TxClass::Service);
    assert_eq!(out.payload.len(), 100);
    assert_eq!(bench.handle(CLIENT_PORT, &there[0]).len(), 2);
}

#[test]
fn what_lies_in_a_later_fragment_of_tcp_is_no_flags() {
    let mut bench = Bench::active();
    let client = |flags| from_client(40000, "10.1.0.101", 80, Some(flags));
    let out = only(&bench.handle(CLIENT_PORT, &client(SYN).bytes()), SERVER_PORT, TxClass::Service);
    bench.handle(SERVER_PORT, &out.answer(Some(SYN_ACK)).bytes());
    bench.handle(CLIENT_PORT, &client(ACK).bytes());
    // Where flags would be, a reset.
    let segment = Packet { payload: vec![RST; 3000], ..client(ACK) };
    let sent: Vec<_> =
        pieces(&segment.bytes(), 9, 1024).iter().flat_map(|piece| bench.handle(CLIENT_PORT, piece)).collect();
    assert_eq!(put_together(&sent).payload, segment.payload);
    let (_, flow) = bench.worker.flows().table.iter().next().expect("the flow");
    assert_eq!(flow.tcp, TcpState::Established);
}

#[test]
fn fragments_of_a_flow_that_waits_for_its_peer_wait_in_order() {
    let mut bench = Bench::active();
    bench.command(Command::InSync { epoch: 2, term: TERM, peers: vec![NODE_2] });
    let query = large(5353, "10.1.0.102", 3000);
    let there = pieces(&query.bytes(), 7, 1024);
    for at in [2, 0, 1] {
        let sent = bench.handle(CLIENT_PORT, &there[at]);
        assert!(sent.iter().all(|sent| sent.class == TxClass::Own), "nothing but what the mirror says");
    }
    assert_eq!(bench.count(Counter::Held), 3);
    bench.command(Command::InSync { epoch: 3, term: TERM, peers: Vec::new() });
    let sent = bench.take_sent();
    let offsets: Vec<_> = sent.iter().map(|sent| fragment_of(&sent.bytes).offset).collect();
    assert_eq!((offsets, put_together(&sent).payload), (vec![0, 2048, 1024], query.payload));
}

#[test]
fn a_standby_keeps_no_fragments() {
    let mut bench = Bench::active();
    let there = pieces(&large(5353, "10.1.0.102", 3000).bytes(), 7, 1024);
    bench.handle(CLIENT_PORT, &there[1]);
    bench.command(Command::Role { epoch: 2, role: Role::Standby, term: TERM });
    assert_eq!(bench.count(Counter::DropStandby), 1, "what waited");
    assert!(bench.handle(CLIENT_PORT, &there[0]).is_empty());
    assert_eq!(bench.count(Counter::DropStandby), 2);
}

#[test]
fn echo_requests_in_fragments_go_to_the_master_if_they_are_for_us() {
    let mut bench = Bench::active();
    let punted = |bench: &mut Bench, to: &str| {
        let mut frame = large(5353, to, 2000).bytes();
        frame[23] = 1; // ICMP
        ipv4::Packet::new_unchecked(&mut frame[14..]).fill_checksum();
        for piece in pieces(&frame, 7, 1024) {
            assert!(bench.handle(CLIENT_PORT, &piece).is_empty());
        }
        let punted = std::mem::take(&mut bench.io.punted);
        assert!(punted.iter().all(|(to, _)| *to == Punt::Master));
        punted.len()
    };
    for (to, expected) in [("10.1.0.21", 2), ("10.2.0.1", 2), ("10.1.0.102", 2), ("10.2.0.10", 0)] {
        assert_eq!(punted(&mut bench, to), expected, "{to}");
    }
    assert_eq!(bench.count(Counter::DropFragmentIcmp), 2);
}

#[test]
fn a_flood_of_fragments_is_counted_and_leaves_the_others_alone() {
    let mut bench = Bench::active();
    let mut rng = Rng::with_seed(5);
    let (mut sent, mut wanted) = (0, 0);
    let template = pieces(&large(5353, "10.1.0.102", 3000).bytes(), 7, 1024);
    for n in 0..30_000_u32 {
        let mut piece = template[1].clone();
        piece[18..20].copy_from_slice(&rng.u16(..).to_be_bytes());
        piece[28..30].copy_from_slice(&rng.u16(..).to_be_bytes());
        ipv4::Packet::new_unchecked(&mut piece[14..]).fill_checksum();
        sent += bench.handle(CLIENT_PORT, &piece).len();
        if n % 100 == 0 {
            let query = large(7000, "10.1.0.102", 3000);
            let own = pieces(&query.bytes(), n, 1024);
            let there: Vec<_> =
                [1, 0, 2].iter().flat_map(|at| bench.handle(CLIENT_PORT, &own[*at])).collect();
            assert_eq!(put_together(&there).payload, query.payload);
            wanted += 1;
        }
    }
    assert_eq!((sent, bench.count(Counter::FragmentedWhole)), (0, wanted));
    // As many wait as the bench has buffers for; the others gave way, or came twice.
    let gone = [
        Counter::DropFragmentsWaiting,
        Counter::DropFragmentsWaitingOfSource,
        Counter::DropFragmentDuplicate,
        Counter::DropFragmentTimeout,
    ];
    let dropped: u64 = gone.iter().map(|counter| bench.count(*counter)).sum();
    assert_eq!(30_000 - dropped, 256);
    bench.now += FRAGMENT_TIMEOUT;
    for _ in 0..256 {
        bench.poll_after(0);
    }
    assert_eq!(bench.count(Counter::DropFragmentTimeout), 256);
    assert!(bench.worker.next_deadline() > bench.now, "nothing more is waited for");
}

/// Several workers, and the rings between them.
struct Appliance(Vec<Bench>);

impl Appliance {
    fn new(workers: u16) -> Appliance {
        let bench = |id| {
            let mut bench = Bench::new(1, id, workers);
            bench.know_neighbours();
            bench.command(Command::Role { epoch: 1, role: Role::Active, term: TERM });
            bench
        };
        Appliance((0..workers).map(bench).collect())
    }

    /// What leaves when a frame comes to a worker by a port; how often it changes hands, at most.
    fn handle(&mut self, worker: usize, port: baton::base::ids::PortId, frame: &[u8]) -> (Vec<Sent>, usize) {
        self.0[worker].worker.set_origin(Origin::Port);
        let mut sent = self.0[worker].handle(port, frame);
        for hops in 0..4 {
            let handed: Vec<(usize, PlainBuffer)> = self
                .0
                .iter_mut()
                .flat_map(|bench| std::mem::take(&mut bench.io.handed))
                .map(|(to, packet)| (usize::from(to.0), packet))
                .collect();
            if handed.is_empty() {
                return (sent, hops);
            }
            for (to, packet) in handed {
                let bench = &mut self.0[to];
                bench.worker.set_origin(Origin::Worker);
                bench.worker.handle_burst(bench.now, &mut vec![packet], &mut bench.io);
                sent.extend(bench.take_sent());
            }
        }
        panic!("a fragment changes hands again and again");
    }

    fn count(&self, counter: Counter) -> u64 {
        self.0.iter().map(|bench| bench.count(counter)).sum()
    }
}

#[test]
fn fragments_find_their_flow_whichever_worker_they_come_to() {
    for workers in [2, 3, 4] {
        let mut appliance = Appliance::new(workers);
        let mut rng = Rng::with_seed(u64::from(workers));
        let mut most = 0;
        for n in 0..120 {
            let to = ["10.1.0.102", "fd01::102"][usize::from(n % 2)];
            let query = large(20_000 + n, to, 3000);
            let mut there = pieces(&query.bytes(), u32::from(n), 1024);
            rng.shuffle(&mut there);
            let mut sent = Vec::new();
            for piece in &there {
                let (out, hops) = appliance.handle(rng.usize(0..usize::from(workers)), CLIENT_PORT, piece);
                sent.extend(out);
                most = most.max(hops);
            }
            assert_eq!(fragment_of(&sent[0].bytes).offset, 0, "the first one first");
            let out = put_together(&sent);
            assert_eq!(out.payload, query.payload);
            let answer = Packet { payload: vec![n as u8; 2000], ..out.answer(None) };
            let mut sent = Vec::new();
            for piece in pieces(&answer.bytes(), u32::from(n), 1024).iter().rev() {
                let (out, hops) = appliance.handle(rng.usize(0..usize::from(workers)), SERVER_PORT, piece);
                sent.extend(out);
                most = most.max(hops);
            }
            assert_eq!(put_together(&sent).to, query.from);
        }
        assert_eq!(most, 2, "to the designated worker, and from there to the owner");
        assert_eq!(appliance.count(Counter::FlowsMade), 120);
        assert!(appliance.count(Counter::HandedOver) > 0);
    }
}

#[test]
fn ports_written_in_a_link_address_are_believed_of_workers_only() {
    let mut appliance = Appliance::new(2);
    let there = pieces(&large(5353, "10.1.0.102", 2000).bytes(), 7, 1024);
    // The flow is there, and a later fragment of another datagram claims its ports.
    for piece in &there {
        appliance.handle(0, CLIENT_PORT, piece);
    }
    let mut forged = pieces(&large(5353, "10.1.0.102", 2000).bytes(), 8, 1024).remove(1);
    forged[6..11].copy_from_slice(&[5353_u16.to_be_bytes()[0], 5353_u16.to_be_bytes()[1], 0, 53, 17]);
    for worker in 0..2 {
        assert!(appliance.handle(worker, CLIENT_PORT, &forged).0.is_empty());
    }
    assert_eq!(appliance.count(Counter::DropFragmentDuplicate), 1, "it waits, and comes again");
}
