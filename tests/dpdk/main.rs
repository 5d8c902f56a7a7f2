//! The driver's buffers, ports and EAL arguments on a real EAL with virtual devices.

#[path = "../../dpdk-bindings/dpdk/tests/common/mod.rs"]
mod common;
mod lcore;
mod lines;
mod outbox;
mod rss;
mod spreading;
mod wires;

use arrayvec::ArrayVec;
use baton::base::buffer::{Buffer, ChecksumStatus, NoRoom, RxMeta, TxMeta};
use baton::base::ids::PortId;
use baton::config::checked::{Eal, Idle, LcoreRole, Lcores, Port, WorkerLcore};
use baton::driver::checksum::{Capabilities, Unsendable};
use baton::driver::mbuf::{Packet, TxAbilities};
use baton::driver::rss::{Ends, Wish};
use baton::driver::{eal, ports};
use baton::flow::toeplitz::MICROSOFT_KEY;
use common::{file_prefix, in_own_process, with_eal};
use dpdk::mbuf::Outgoing;
use dpdk::{Burst, Mempool, mempool};

const RING: &[&str] = &["--lcores=0@0", "--vdev=net_ring0"];

/// A UDP datagram, "hello", behind a chain of two IPv6 extension headers, made by scapy.
const UDP_V6: &str = "02000000000202000000000186dd6000000000250040fd010000000000000000000000000050\
    fd0100000000000000000000000001003c000502000001001101010a00000000000000000000010000010002000dc0ab\
    68656c6c6f";
/// A TCP segment, "GET /", behind IPv4 options, made by scapy.
const TCP_V4: &str = "02000000000202000000000108004900003d00010000400657140a0100320a010064070f040000\
    00000000000000000000009c400050000000000000000050182000143a0000474554202f";

const SOFTWARE: TxAbilities = TxAbilities { checksums: Capabilities::NONE, segments: true };

/// Rings have queues and no hash, so nothing comes of it.
const WISH: Wish<'static> = Wish { ends: Ends::Both, key: &MICROSOFT_KEY };

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(char::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

fn eal_config() -> Eal {
    Eal { file_prefix: "x".into(), memory_mb: 128, hugepages: false, buffers: 2047, args: Vec::new() }
}

fn port_config(device: &str, mtu: u16) -> Port {
    Port {
        name: "client".into(),
        device: device.into(),
        addresses: vec![],
        shared_addresses: vec![],
        mtu,
        zone: None,
    }
}

fn pool(running: &dpdk::Running) -> Mempool {
    let config = ports::pool_config(&eal_config(), &[port_config("net_ring0", 1500)]);
    Mempool::new(running, "packets", &config).unwrap()
}

fn packet(pool: &Mempool, bytes: &[u8]) -> Packet {
    let mut packet = Packet::alloc(pool).unwrap();
    packet.set_len(bytes.len()).unwrap();
    packet.head_mut().copy_from_slice(bytes);
    packet
}

/// Sends by a port that loops, and receives.
fn loop_back(port: &mut ports::OpenPort, packets: Vec<Outgoing>) -> Vec<Packet> {
    let mut out: ArrayVec<Outgoing, 32> = packets.into_iter().collect();
    let count = out.len();
    assert_eq!(port.tx[0].send(&mut out), count);
    let mut burst = Burst::<32>::new();
    assert_eq!(port.rx[0].receive(&mut burst), count);
    burst.into_iter().map(|mbuf| Packet::received(mbuf, port.id).unwrap()).collect()
}

#[test]
fn a_configuration_starts_the_eal_that_it_describes() {
    in_own_process("a_configuration_starts_the_eal_that_it_describes", || {
        let worker = |cpu| WorkerLcore { cpu, roles: vec![LcoreRole::TrafficManager], zone: None };
        let lcores = Lcores { master_cpu: 0, workers: vec![worker(0), worker(0)], idle: Idle::Sleep };
        let config = Eal { file_prefix: file_prefix(std::process::id()), ..eal_config() };
        let port = port_config("net_ring0", 1500);
        let args = eal::arguments("baton", &config, &lcores, std::slice::from_ref(&port));

        let eal = dpdk::Eal::init(&args).unwrap();
        let workers: Vec<u32> = eal.worker_lcores().into_iter().map(|lcore| lcore.0).collect();
        assert_eq!((eal.main_lcore().0, workers), (eal::MASTER_LCORE, vec![1, 2]));
        let opened = ports::open(&eal, PortId(3), &port, ports::Queues::both(2), WISH, &pool(&eal)).unwrap();
        assert_eq!((opened.id, opened.rx.len()), (PortId(3), usize::from(opened.configured.rx_queues)));
        assert!(!opened.tx_abilities.checksums.tcp, "net_ring computes no checksum");
    });
}

#[test]
fn a_port_that_cannot_be_opened_is_named_as_in_the_configuration() {
    with_eal("a_port_that_cannot_be_opened_is_named_as_in_the_configuration", RING, |eal| {
        let open = |device, mtu| {
            ports::open(&eal, PortId(0), &port_config(device, mtu), ports::Queues::both(1), WISH, &pool(&eal))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            open("net_tap9", 1500),
            "port \"client\": cannot open port net_tap9: No such device (errno 19)"
        );
        assert_eq!(
            open("net_ring0", 9000),
            "port \"client\": mtu = 9000 is wanted, the device carries at most 1500"
        );
    });
}

#[test]
fn a_packet_is_a_buffer_like_any_other() {
    with_eal("a_packet_is_a_buffer_like_any_other", RING, |eal| {
        let pool = pool(&eal);
        let mut packet = packet(&pool, b"0123456789");
        assert_eq!(packet.prepend(129), Err(NoRoom));
        packet.prepend(128).unwrap();
        assert_eq!((packet.total_len(), packet.head().len()), (138, 138));
        packet.trim_front(130).unwrap();
        assert_eq!(packet.head(), b"23456789");
        assert_eq!(packet.set_len(4096), Err(NoRoom));
        packet.set_len(2).unwrap();
        assert_eq!(packet.head(), b"23");
        drop(packet);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn what_is_received_says_by_which_port_of_the_configuration() {
    with_eal("what_is_received_says_by_which_port_of_the_configuration", RING, |eal| {
        let pool = pool(&eal);
        let mut port = ports::open(
            &eal,
            PortId(5),
            &port_config("net_ring0", 1500),
            ports::Queues::both(1),
            WISH,
            &pool,
        )
        .unwrap();
        let sent = packet(&pool, &bytes(TCP_V4)).finish(&SOFTWARE).unwrap();
        let received = loop_back(&mut port, vec![sent]);
        let unknown = ChecksumStatus::Unknown;
        assert_eq!(received[0].rx(), RxMeta { port: PortId(5), ip_checksum: unknown, l4_checksum: unknown });
        assert_eq!(received[0].head(), bytes(TCP_V4));
    });
}

#[test]
fn software_completes_checksums_on_their_way_to_a_port_that_computes_none() {
    with_eal("software_completes_checksums_on_their_way_to_a_port_that_computes_none", RING, |eal| {
        let pool = pool(&eal);
        let mut port = ports::open(
            &eal,
            PortId(0),
            &port_config("net_ring0", 1500),
            ports::Queues::both(1),
            WISH,
            &pool,
        )
        .unwrap();
        let sent = [(TCP_V4, 36, vec![24, 66]), (UDP_V6, 64, vec![84])].map(|(hex, l3_len, checksums)| {
            let mut packet = packet(&pool, &bytes(hex));
            for at in checksums {
                packet.head_mut()[at..at + 2].fill(0xa5);
            }
            packet.set_tx(TxMeta { l2_len: 14, l3_len, ip_checksum: true, l4_checksum: true });
            packet.finish(&port.tx_abilities).unwrap()
        });
        let received = loop_back(&mut port, sent.into());
        assert_eq!((received[0].head(), received[1].head()), (&bytes(TCP_V4)[..], &bytes(UDP_V6)[..]));
    });
}

#[test]
fn a_shared_packet_keeps_its_bytes_while_the_other_is_rewritten() {
    with_eal("a_shared_packet_keeps_its_bytes_while_the_other_is_rewritten", RING, |eal| {
        let pool = pool(&eal);
        let mut port = ports::open(
            &eal,
            PortId(0),
            &port_config("net_ring0", 1500),
            ports::Queues::both(1),
            WISH,
            &pool,
        )
        .unwrap();
        let mut original = packet(&pool, &bytes(TCP_V4));
        let shared = original.share(&pool).unwrap();
        original.head_mut().fill(0);
        assert_eq!(shared.head(), bytes(TCP_V4));
        let sent = vec![shared.finish(&SOFTWARE).unwrap(), original.finish(&SOFTWARE).unwrap()];
        let mut received = loop_back(&mut port, sent);
        assert_eq!(received[0].head(), bytes(TCP_V4));
        received[0].head_mut().fill(1);
        drop(received);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn a_request_that_does_not_fit_gives_the_buffer_back() {
    with_eal("a_request_that_does_not_fit_gives_the_buffer_back", RING, |eal| {
        let pool = pool(&eal);
        let mut packet = packet(&pool, &bytes(TCP_V4));
        packet.set_tx(TxMeta { l2_len: 14, l3_len: 20, ip_checksum: true, l4_checksum: true });
        assert_eq!(packet.finish(&SOFTWARE).unwrap_err(), Unsendable::Headers);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn segments_are_summed_and_joined_for_a_port_that_sends_one() {
    with_eal("segments_are_summed_and_joined_for_a_port_that_sends_one", RING, |eal| {
        let pool = pool(&eal);
        let mut port = ports::open(
            &eal,
            PortId(0),
            &port_config("net_ring0", 1500),
            ports::Queues::both(1),
            WISH,
            &pool,
        )
        .unwrap();
        let whole = bytes(TCP_V4);
        let sent = [true, false].map(|segments| {
            let part = |bytes: &[u8]| {
                let mut mbuf = pool.alloc().unwrap();
                mbuf.set_len(bytes.len()).unwrap();
                mbuf.head_mut().copy_from_slice(bytes);
                mbuf
            };
            // Cut at an odd place behind the headers.
            let mut mbuf = part(&whole[..71]);
            mbuf.head_mut()[66..68].fill(0);
            mbuf.chain(part(&whole[71..])).unwrap();
            let mut packet = Packet::received(mbuf, PortId(0)).unwrap();
            packet.set_tx(TxMeta { l2_len: 14, l3_len: 36, ip_checksum: false, l4_checksum: true });
            packet.finish(&TxAbilities { segments, ..SOFTWARE }).unwrap()
        });
        let received = loop_back(&mut port, sent.into());
        assert_eq!((received[0].head(), received[0].total_len()), (&whole[..71], 75));
        assert_eq!((received[1].head(), received[1].total_len()), (&whole[..], 75));
    });
}

#[test]
fn a_large_mtu_gets_large_buffers() {
    let config =
        ports::pool_config(&eal_config(), &[port_config("net_ring0", 1500), port_config("net_ring1", 9000)]);
    assert!(config.data_room >= 9000 + 14 + 128);
    let small = Eal { buffers: 64, ..eal_config() };
    assert!(ports::pool_config(&small, &[]).cache <= 42);
    assert_eq!(mempool::Config::default().data_room, 2048 + 128);
}
