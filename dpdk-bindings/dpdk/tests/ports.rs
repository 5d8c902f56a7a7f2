//! Ports on a real EAL, over virtual devices.

mod common;

use common::with_eal;
use dpdk::mbuf::Outgoing;
use dpdk::port::{Config, Offload, Offloads, device_name};
use dpdk::{Burst, Eal, Mempool, Port, mempool};

use arrayvec::ArrayVec;

const NULL: &[&str] = &["--lcores=0@0", "--vdev=net_null0,size=64"];
const RING: &[&str] = &["--lcores=0@0", "--vdev=net_ring0"];

fn pool(eal: &Eal) -> Mempool {
    let config = mempool::Config { buffers: 4095, cache: 64, ..Default::default() };
    Mempool::new(eal, "packets", &config).expect("the pool fits in memory")
}

#[test]
fn a_device_string_names_its_device() {
    assert_eq!(device_name("net_af_packet0,iface=eth0,blocksz=4096"), "net_af_packet0");
    assert_eq!(device_name("0000:01:00.0"), "0000:01:00.0");
    assert_eq!(device_name("01:00.0,arg=1"), "0000:01:00.0");
    assert_eq!(device_name("net_ta:"), "net_ta:");
}

#[test]
fn a_null_port_receives_and_sends_and_gives_every_buffer_back() {
    with_eal("a_null_port_receives_and_sends_and_gives_every_buffer_back", NULL, |eal| {
        let pool = pool(&eal);
        let mut port = Port::open(&eal, "net_null0,size=64").unwrap();
        let info = port.info().unwrap();
        assert_eq!((&info.name[..], &info.driver[..], port.id()), ("net_null0", "net_null", 0));
        port.configure(&Config::default(), &pool).unwrap();
        let mut queues = port.start().unwrap();

        let mut burst = Burst::<32>::new();
        assert_eq!(queues.rx[0].receive(&mut burst), 32);
        assert!(burst.iter().all(|packet| packet.total_len() == 64 && packet.port() == 0));
        assert_eq!(pool.in_use(), 32);
        assert_eq!((queues.tx[0].send(&mut burst), burst.len()), (32, 0));
        let stats = port.stats().unwrap();
        assert_eq!((stats.rx_packets, stats.tx_packets), (32, 32));

        drop((burst, queues));
        port.stop().unwrap();
        drop(port);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn a_port_starts_and_stops_and_starts_again() {
    with_eal("a_port_starts_and_stops_and_starts_again", RING, |eal| {
        let pool = pool(&eal);
        let mut port = Port::open(&eal, "net_ring0").unwrap();
        assert!(port.start().unwrap_err().to_string().contains("not configured"));
        port.configure(&Config::default(), &pool).unwrap();
        for round in 0..3u8 {
            let mut queues = port.start().unwrap();
            assert!(port.link().unwrap().up);
            assert!(port.stop().unwrap_err().to_string().contains("still in use"), "queues have owners");
            assert!(port.start().is_err() && port.configure(&Config::default(), &pool).is_err());

            let mut packet = pool.alloc().unwrap();
            packet.set_len(60).unwrap();
            packet.head_mut().fill(round);
            let mut burst: Burst<4> = [packet].into_iter().collect();
            assert_eq!(queues.tx[0].send(&mut burst), 1);
            assert_eq!(queues.rx[0].receive(&mut burst), 1);
            assert_eq!(burst[0].head(), [round; 60]);
            drop(queues);
            port.stop().unwrap();
            assert!(!port.link().unwrap().up);
            port.configure(&Config::default(), &pool).unwrap();
        }
        drop(port);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn the_device_closes_when_the_last_queue_handle_goes() {
    with_eal("the_device_closes_when_the_last_queue_handle_goes", RING, |eal| {
        let pool = pool(&eal);
        let mut port = Port::open(&eal, "net_ring0").unwrap();
        port.configure(&Config::default(), &pool).unwrap();
        let mut queues = port.start().unwrap();
        drop(port);
        let mut burst: Burst<1> = pool.alloc().into_iter().collect();
        assert_eq!(queues.tx[0].send(&mut burst), 1, "it still works");
        assert!(Port::open(&eal, "net_ring0").unwrap_err().to_string().contains("open already"));
        assert_eq!(queues.rx[0].receive(&mut burst), 1);
        drop((burst, queues));
        assert!(Port::open(&eal, "net_ring0").is_err(), "it is closed for good");
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn a_full_transmit_queue_takes_what_fits_and_leaves_the_rest_in_order() {
    with_eal("a_full_transmit_queue_takes_what_fits_and_leaves_the_rest_in_order", RING, |eal| {
        let pool = pool(&eal);
        let mut port = Port::open(&eal, "net_ring0").unwrap();
        port.configure(&Config::default(), &pool).unwrap();
        let mut queues = port.start().unwrap();
        let mut sent = 0u32;
        let mut burst = Burst::<32>::new();
        loop {
            while !burst.is_full() {
                let mut packet = pool.alloc().unwrap();
                packet.set_len(60).unwrap();
                packet.head_mut()[..4].copy_from_slice(&(sent + burst.len() as u32).to_be_bytes());
                burst.push(packet);
            }
            let taken = queues.tx[0].send(&mut burst);
            sent += taken as u32;
            if taken < 32 {
                break;
            }
        }
        assert!(sent > 0 && !burst.is_empty());
        assert_eq!(burst[0].head()[..4], sent.to_be_bytes());
        assert_eq!(pool.in_use() as usize, sent as usize + burst.len());

        let mut received = Burst::<32>::new();
        let mut expected = 0;
        while queues.rx[0].receive(&mut received) > 0 {
            for packet in received.drain(..) {
                assert_eq!(packet.head()[..4], u32::to_be_bytes(expected));
                expected += 1;
            }
        }
        assert_eq!(expected, sent);
        drop(burst);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn owned_and_shared_packets_leave_in_the_order_given() {
    with_eal("owned_and_shared_packets_leave_in_the_order_given", RING, |eal| {
        let pool = pool(&eal);
        let mut port = Port::open(&eal, "net_ring0").unwrap();
        port.configure(&Config::default(), &pool).unwrap();
        let mut queues = port.start().unwrap();
        let mut packet = pool.alloc().unwrap();
        packet.set_len(60).unwrap();
        packet.head_mut().fill(9);
        let shared = packet.share(&pool).unwrap();
        packet.trim_front(10).unwrap();
        let mut out: ArrayVec<Outgoing, 2> = ArrayVec::from([Outgoing::from(shared), Outgoing::from(packet)]);
        assert_eq!(queues.tx[0].send(&mut out), 2);

        let mut received = Burst::<4>::new();
        assert_eq!(queues.rx[0].receive(&mut received), 2);
        assert_eq!((received[0].head(), received[1].head()), (&[9; 60][..], &[9; 50][..]));
        assert!(received[0].is_shared() && received[1].is_shared(), "they are still the same bytes");
        received.pop();
        received[0].head_mut().fill(1);
        drop(received);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn what_a_device_lacks_is_refused_and_said() {
    with_eal("what_a_device_lacks_is_refused_and_said", RING, |eal| {
        let pool = pool(&eal);
        let mut port = Port::open(&eal, "net_ring0").unwrap();
        let has = port.info().unwrap();
        let wanted = Config { rx_queues: 4, tx_queues: 4, offloads: Offloads::all(), ..Config::default() };
        let configured = port.configure(&wanted, &pool).unwrap();
        assert_eq!(
            (configured.rx_queues, configured.tx_queues),
            (has.rx_queues_max.min(4), has.tx_queues_max.min(4))
        );
        assert_eq!(configured.offloads, has.offloads);
        assert_eq!(configured.offloads | configured.refused, Offloads::all());
        assert!(configured.refused.contains(Offload::TxTcpChecksum), "net_ring computes no checksum");
        assert!(configured.refused.to_string().contains("tx-tcp-checksum"));
        port.start().expect("it starts with what it has");
    });
}

#[test]
fn a_device_that_is_not_there_is_an_error_that_names_it() {
    with_eal("a_device_that_is_not_there_is_an_error_that_names_it", RING, |eal| {
        let error = Port::open(&eal, "net_tap7,iface=x").unwrap_err();
        assert_eq!(error.to_string(), "cannot open port net_tap7: No such device (errno 19)");
    });
}

#[test]
fn modes_can_be_set() {
    with_eal("modes_can_be_set", RING, |eal| {
        let mut port = Port::open(&eal, "net_ring0").unwrap();
        port.set_promiscuous(true).unwrap();
        port.set_promiscuous(false).unwrap();
        port.set_all_multicast(true).unwrap();
        port.add_mac([0, 0, 0x5e, 0, 1, 51]).unwrap();
    });
}

#[test]
fn a_device_that_takes_no_second_address_says_so() {
    with_eal("a_device_that_takes_no_second_address_says_so", NULL, |eal| {
        let mut port = Port::open(&eal, "net_null0").unwrap();
        assert_ne!(port.mac().unwrap(), [0; 6]);
        assert_eq!(port.mac(), port.info().map(|info| info.mac));
        assert!(port.add_mac([0, 0, 0x5e, 0, 1, 51]).unwrap_err().is_unsupported());
    });
}
