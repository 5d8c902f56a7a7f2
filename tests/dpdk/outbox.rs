//! A worker's outbox over a port that loops.

use std::cell::Cell;

use baton::base::buffer::{Buffer, TxMeta};
use baton::base::counters::{Counter, Counters};
use baton::base::ids::PortId;
use baton::base::io::TxClass;
use baton::base::limits::BURST_MAX;
use baton::driver::mbuf::{Packet, TxAbilities};
use baton::driver::outbox::Outbox;
use baton::driver::ports::{self, OpenPort};
use dpdk::{Burst, Mempool, Running, RxQueue};

use crate::common::with_eal;
use crate::{RING, WISH, packet, pool, port_config};

/// The pool, the port (to be kept), its abilities, its receive queue, and an outbox by its transmit queue.
fn set_up(running: &Running) -> (Mempool, OpenPort, TxAbilities, RxQueue, Outbox) {
    let pool = pool(running);
    let mut port =
        ports::open(running, PortId(0), &port_config("net_ring0", 1500), ports::Queues::both(1), WISH, &pool)
            .unwrap();
    let (rx, tx) = (port.rx.remove(0), port.tx.remove(0));
    let abilities = port.tx_abilities;
    (pool, port, abilities, rx, Outbox::of_queue(tx, abilities))
}

fn numbered(pool: &Mempool, number: u8) -> Packet {
    packet(pool, &[number; 60])
}

/// The numbers of the packets that arrived.
fn arrived(rx: &mut RxQueue) -> Vec<u8> {
    let mut numbers = Vec::new();
    let mut burst = Burst::<32>::new();
    while rx.receive(&mut burst) > 0 {
        numbers.extend(burst.drain(..).map(|packet| packet.head()[0]));
    }
    numbers
}

/// Packets that an outbox holds.
const FULL: u8 = BURST_MAX as u8;

#[test]
fn packets_leave_at_the_flush_in_order() {
    with_eal("outbox::packets_leave_at_the_flush_in_order", RING, |eal| {
        let (pool, _port, _, mut rx, mut outbox) = set_up(&eal);
        let counters = Counters::default();
        for number in 0..3 {
            outbox.push(numbered(&pool, number), TxClass::Own, || true, &counters);
        }
        assert!(arrived(&mut rx).is_empty());
        outbox.flush(|| true, &counters);
        assert_eq!(arrived(&mut rx), [0, 1, 2]);
        assert_eq!((counters.value(Counter::TxPackets), pool.in_use()), (3, 0));
    });
}

#[test]
fn a_full_outbox_flushes_itself() {
    with_eal("outbox::a_full_outbox_flushes_itself", RING, |eal| {
        let (pool, _port, _, mut rx, mut outbox) = set_up(&eal);
        let counters = Counters::default();
        for number in 0..=FULL {
            outbox.push(numbered(&pool, number), TxClass::Own, || true, &counters);
        }
        assert_eq!(arrived(&mut rx), (0..FULL).collect::<Vec<_>>());
        outbox.flush(|| true, &counters);
        assert_eq!(arrived(&mut rx), [FULL]);
    });
}

#[test]
fn without_the_lease_only_own_packets_leave() {
    with_eal("outbox::without_the_lease_only_own_packets_leave", RING, |eal| {
        let (pool, _port, _, mut rx, mut outbox) = set_up(&eal);
        let counters = Counters::default();
        for (number, class) in [(1, TxClass::Service), (2, TxClass::Own), (3, TxClass::Service)] {
            // Whether it may serve when it is pushed does not matter.
            outbox.push(numbered(&pool, number), class, || true, &counters);
        }
        outbox.flush(|| false, &counters);
        assert_eq!(arrived(&mut rx), [2]);
        assert_eq!((counters.value(Counter::DropTxLease), pool.in_use()), (2, 0));

        let asked = Cell::new(0);
        let may_serve = || asked.replace(asked.get() + 1) == 0;
        outbox.push(numbered(&pool, 4), TxClass::Own, may_serve, &counters);
        outbox.flush(may_serve, &counters);
        assert_eq!(asked.get(), 0, "nothing to ask for");
        outbox.push(numbered(&pool, 5), TxClass::Service, may_serve, &counters);
        outbox.push(numbered(&pool, 6), TxClass::Service, may_serve, &counters);
        outbox.flush(may_serve, &counters);
        assert_eq!((arrived(&mut rx), asked.get()), (vec![4, 5, 6], 1));
    });
}

#[test]
fn what_a_full_port_does_not_take_is_dropped_and_counted() {
    with_eal("outbox::what_a_full_port_does_not_take_is_dropped_and_counted", RING, |eal| {
        let (pool, _port, _, mut rx, mut outbox) = set_up(&eal);
        let counters = Counters::default();
        for _ in 0..2000 {
            outbox.push(numbered(&pool, 7), TxClass::Own, || true, &counters);
        }
        outbox.flush(|| true, &counters);
        let (sent, dropped) = (counters.value(Counter::TxPackets), counters.value(Counter::DropTxFull));
        assert_eq!((sent + dropped, dropped > 0, u64::from(pool.in_use())), (2000, true, sent));
        assert_eq!(arrived(&mut rx).len() as u64, sent);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn a_worker_without_a_queue_passes_packets_to_its_owner() {
    with_eal("outbox::a_worker_without_a_queue_passes_packets_to_its_owner", RING, |eal| {
        let (pool, _port, abilities, mut rx, mut owners) = set_up(&eal);
        let (mut outbox, mut relay) =
            Outbox::of_owner(&eal, "relay", u32::from(FULL) + 8, abilities).unwrap();
        const HALF: u64 = (FULL as u64 + 8) / 2;
        let (owner, other) = (Counters::default(), Counters::default());
        for number in 0..FULL + 18 {
            let class = if number % 2 == 0 { TxClass::Service } else { TxClass::Own };
            outbox.push(numbered(&pool, number), class, || true, &other);
        }
        outbox.flush(|| true, &other);
        assert_eq!((other.value(Counter::DropTxRelayFull), other.value(Counter::TxPackets)), (10, 0));

        assert_eq!(relay.relay(&mut owners, || false, &owner), usize::from(FULL));
        assert_eq!(relay.relay(&mut owners, || false, &owner), 8);
        owners.flush(|| false, &owner);
        assert_eq!(arrived(&mut rx), (0..FULL + 8).filter(|number| number % 2 == 1).collect::<Vec<_>>());
        assert_eq!((owner.value(Counter::TxPackets), owner.value(Counter::DropTxLease)), (HALF, HALF));
        assert_eq!((relay.relay(&mut owners, || true, &owner), pool.in_use()), (0, 0));
    });
}

#[test]
fn what_cannot_be_sent_is_counted_by_its_reason() {
    with_eal("outbox::what_cannot_be_sent_is_counted_by_its_reason", RING, |eal| {
        let (pool, _port, _, mut rx, mut outbox) = set_up(&eal);
        let counters = Counters::default();
        let mut nonsense = numbered(&pool, 1);
        nonsense.set_tx(TxMeta { l2_len: 14, l3_len: 20, ip_checksum: true, l4_checksum: false });
        outbox.push(nonsense, TxClass::Own, || true, &counters);
        let shared = numbered(&pool, 2).share(&pool).unwrap();
        outbox.push_shared(shared, TxClass::Own, || true, &counters);
        outbox.flush(|| true, &counters);
        assert_eq!((arrived(&mut rx), counters.value(Counter::DropTxHeaders)), (vec![2], 1));
        assert_eq!(pool.in_use(), 0);
    });
}
