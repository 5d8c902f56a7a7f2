use super::*;
use crate::master::samples::{CLIENT, MIRROR, SERVER, THEIRS, checked, ip, macs};
use crate::wire::parse::Trace;

const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x51]);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// Neighbours of the sample configuration whose first requests were taken.
fn quiet() -> Neighbours {
    let mut all = Neighbours::new(at(0), &checked(), &macs(), 1);
    drain(&mut all);
    all
}

fn drain(all: &mut Neighbours) -> Vec<String> {
    let lines = core::iter::from_fn(|| all.poll_output()).map(|output| match output {
        Output::Send { port, frame, class } => format!("{port} {class:?} {}", Trace(&frame)),
        Output::Update { port, ip, mac: Some(mac) } => format!("{port} {ip} is at {mac}"),
        Output::Update { port, ip, mac: None } => format!("{port} {ip} is gone"),
    });
    lines.collect()
}

/// Polls at each deadline up to `until`; what comes out, each line with its second.
fn run(all: &mut Neighbours, until: Instant) -> Vec<String> {
    let mut lines = Vec::new();
    while all.next_deadline() <= until {
        let now = all.next_deadline();
        all.poll(now);
        lines.extend(drain(all).into_iter().map(|line| format!("{} {line}", now.nanos() / 1_000_000_000)));
    }
    lines
}

fn about(lines: &[String], what: &str) -> Vec<String> {
    lines.iter().filter(|line| line.contains(what)).cloned().collect()
}

fn arp(operation: arp::Operation, link: Link, sender: &str, target: &str) -> Vec<u8> {
    let (IpAddr::V4(sender_ip), IpAddr::V4(target_ip)) = (ip(sender), ip(target)) else { panic!() };
    let (sender_mac, target_mac) = (link.source, link.destination);
    frames::arp(&link, &arp::Repr { operation, sender_mac, sender_ip, target_mac, target_ip })
}

fn reply(port: PortId, mac: MacAddress, sender: &str, target: &str) -> Vec<u8> {
    arp(arp::Operation::Reply, Link::new(mac, macs()[usize::from(port.0)]), sender, target)
}

fn request(mac: MacAddress, sender: &str, target: &str) -> Vec<u8> {
    arp(arp::Operation::Request, Link::new(mac, MacAddress::BROADCAST), sender, target)
}

fn advertisement(
    to: &str,
    target: &str,
    mac: Option<MacAddress>,
    solicited: bool,
    overrides: bool,
) -> Vec<u8> {
    let (IpAddr::V6(to), IpAddr::V6(target)) = (ip(to), ip(target)) else { panic!() };
    let to_mac = if to.is_multicast() { MacAddress::multicast_v6(to) } else { macs()[1] };
    let repr = ndp::Repr::Advertisement { router: false, solicited, overrides, target, target_mac: mac };
    frames::ndp(&Link::new(THEIRS, to_mac), target, to, &repr)
}

const ASK_CLIENT: &str = "0 Own 02:00:00:00:01:01 > ff:ff:ff:ff:ff:ff arp: \
                          arp who has 10.1.0.50? tell 10.1.0.2 at 02:00:00:00:01:01";

#[test]
fn gateways_servers_and_peers_are_asked_for_at_the_start_from_own_addresses() {
    let mut all = Neighbours::new(at(0), &checked(), &macs(), 1);
    let expected = [
        "0 Own 02:00:00:00:01:01 > ff:ff:ff:ff:ff:ff arp: arp who has 10.1.0.1? tell 10.1.0.2 at 02:00:00:00:01:01",
        "1 Own 02:00:00:00:01:02 > ff:ff:ff:ff:ff:ff arp: arp who has 10.2.0.10? tell 10.2.0.2 at 02:00:00:00:01:02",
        "1 Own 02:00:00:00:01:02 > 33:33:ff:00:00:10 ipv6: fd02::2 > ff02::1:ff00:10 icmpv6 hops 255 length 32: \
         ndp who has fd02::10? at 02:00:00:00:01:02",
        "2 Own 02:00:00:00:01:03 > ff:ff:ff:ff:ff:ff arp: arp who has 10.9.0.2? tell 10.9.0.1 at 02:00:00:00:01:03",
    ];
    assert_eq!(drain(&mut all), expected, "but not for the server behind the gateway");
}

#[test]
fn a_client_on_the_link_is_resolved_when_it_answers() {
    let mut all = quiet();
    assert_eq!(all.resolve(at(1), CLIENT, ip("10.1.0.50")), Resolution::Pending);
    assert_eq!(drain(&mut all), [ASK_CLIENT]);
    assert_eq!(all.resolve(at(2), CLIENT, ip("10.1.0.50")), Resolution::Pending);
    assert_eq!(drain(&mut all), [""; 0], "one question is enough");
    assert_eq!(
        all.handle_packet(at(3), CLIENT, &reply(CLIENT, THEIRS, "10.1.0.50", "10.1.0.2")),
        Heard::Answer
    );
    assert_eq!(drain(&mut all), ["0 10.1.0.50 is at 02:00:00:00:00:50"]);
    assert_eq!(all.resolve(at(4), CLIENT, ip("10.1.0.50")), Resolution::Known(THEIRS));
    assert_eq!(drain(&mut all), ["0 10.1.0.50 is at 02:00:00:00:00:50"], "said again to who asks");
}

#[test]
fn a_server_over_ipv6_is_resolved_when_it_answers() {
    let mut all = quiet();
    let answer = advertisement("fd02::2", "fd02::10", Some(THEIRS), true, true);
    assert_eq!(all.handle_packet(at(3), SERVER, &answer), Heard::Answer);
    assert_eq!(drain(&mut all), ["1 fd02::10 is at 02:00:00:00:00:50"]);
}

#[test]
fn an_unanswered_question_is_repeated_each_second_and_then_rests_ever_longer() {
    let mut all = quiet();
    let lines = about(&run(&mut all, at(60_000)), "10.1.0.1?");
    let seconds: Vec<u64> =
        lines.iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    // The first at 0, three in a row, then rests of 1, 2, 4, 8, 16 seconds.
    assert_eq!(seconds, [1, 2, 4, 5, 6, 9, 10, 11, 16, 17, 18, 27, 28, 29, 46, 47, 48]);
    assert_eq!(all.resolve(at(60_000), CLIENT, ip("10.1.0.1")), Resolution::Resting);
}

#[test]
fn a_client_that_never_answers_is_forgotten_unless_it_is_asked_for_again() {
    let mut all = quiet();
    all.resolve(at(0), CLIENT, ip("10.1.0.50"));
    let lines = about(&run(&mut all, at(100_000)), "10.1.0.50");
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(lines[3], "4 0 10.1.0.50 is gone");
    assert_eq!(all.known(CLIENT, ip("10.1.0.50")), None);
}

#[test]
fn a_gateway_is_probed_by_unicast_before_it_expires_and_never_unknown_meanwhile() {
    let mut all = quiet();
    all.handle_packet(at(0), CLIENT, &reply(CLIENT, THEIRS, "10.1.0.1", "10.1.0.2"));
    drain(&mut all);
    let mut probes = 0;
    for _ in 0..5 {
        let lines = loop {
            let now = all.next_deadline();
            all.poll(now);
            let lines = about(&drain(&mut all), "10.1.0.1");
            if !lines.is_empty() {
                break lines;
            }
        };
        let probe = "0 Own 02:00:00:00:01:01 > 02:00:00:00:00:50 arp: \
                     arp who has 10.1.0.1? tell 10.1.0.2 at 02:00:00:00:01:01";
        assert_eq!(lines, [probe]);
        assert_eq!(all.known(CLIENT, ip("10.1.0.1")), Some(THEIRS));
        let answer = reply(CLIENT, THEIRS, "10.1.0.1", "10.1.0.2");
        let now = all.next_deadline();
        assert_eq!(all.handle_packet(now, CLIENT, &answer), Heard::Answer);
        assert_eq!(drain(&mut all), [""; 0], "nothing new for the workers");
        probes += 1;
    }
    assert_eq!(probes, 5);
}

#[test]
fn a_gateway_that_dies_is_probed_alone_then_by_everyone_and_then_unknown() {
    let mut all = quiet();
    all.handle_packet(at(0), CLIENT, &reply(CLIENT, THEIRS, "10.1.0.1", "10.1.0.2"));
    drain(&mut all);
    let lines = about(&run(&mut all, at(60_000)), "10.1.0.1");
    let kinds: Vec<_> = lines
        .iter()
        .map(|line| match line {
            line if line.contains("> 02:00:00:00:00:50 arp") => "unicast",
            line if line.contains("> ff:ff") => "broadcast",
            line if line.ends_with("gone") => "gone",
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(kinds[..7], ["unicast", "unicast", "unicast", "broadcast", "broadcast", "broadcast", "gone"]);
    assert!(
        kinds[7..].iter().all(|kind| *kind == "broadcast") && kinds.len() > 8,
        "it is asked for on and on"
    );
    all.handle_packet(at(60_000), CLIENT, &request(THEIRS, "10.1.0.1", "10.1.0.2"));
    assert_eq!(drain(&mut all), ["0 10.1.0.1 is at 02:00:00:00:00:50"], "until it is heard again");
}

#[test]
fn a_known_neighbour_that_moves_is_believed_at_once_and_then_asked() {
    let mut all = quiet();
    all.handle_packet(at(0), CLIENT, &reply(CLIENT, THEIRS, "10.1.0.1", "10.1.0.2"));
    drain(&mut all);
    assert_eq!(all.handle_packet(at(10), CLIENT, &request(OTHER, "10.1.0.1", "10.1.0.1")), Heard::Address);
    assert_eq!(drain(&mut all), ["0 10.1.0.1 is at 02:00:00:00:00:51"]);
    all.poll(at(10));
    let probe = about(&drain(&mut all), "10.1.0.1?");
    assert!(probe[0].contains("> 02:00:00:00:00:51 arp"), "{probe:?}");
}

#[test]
fn a_server_over_ipv6_that_moves_is_believed_if_it_overrides() {
    let mut all = quiet();
    all.handle_packet(at(0), SERVER, &advertisement("fd02::2", "fd02::10", Some(THEIRS), true, true));
    drain(&mut all);
    let moved = |overrides| advertisement("ff02::1", "fd02::10", Some(OTHER), false, overrides);
    assert_eq!(all.handle_packet(at(5), SERVER, &moved(false)), Heard::Nothing);
    assert_eq!(all.known(SERVER, ip("fd02::10")), Some(THEIRS));
    all.poll(at(5));
    let probe = about(&drain(&mut all), "fd02::10?");
    assert!(
        probe[0].contains("> 02:00:00:00:00:50 ipv6: fd02::2 > fd02::10"),
        "doubted, so asked: {probe:?}"
    );
    assert_eq!(all.handle_packet(at(6), SERVER, &moved(true)), Heard::Address);
    assert_eq!(drain(&mut all), ["1 fd02::10 is at 02:00:00:00:00:51"]);
}

#[test]
fn a_probed_server_may_answer_without_repeating_its_address() {
    let mut all = quiet();
    all.handle_packet(at(0), SERVER, &advertisement("fd02::2", "fd02::10", Some(THEIRS), true, true));
    run(&mut all, at(15_000));
    loop {
        let next = all.next_deadline();
        if !about(&run(&mut all, next), "fd02::10?").is_empty() {
            break;
        }
    }
    let now = all.next_deadline();
    let answer = advertisement("fd02::2", "fd02::10", None, true, false);
    assert_eq!(all.handle_packet(now, SERVER, &answer), Heard::Answer);
    assert_eq!(all.known(SERVER, ip("fd02::10")), Some(THEIRS));
}

#[test]
fn gratuitous_arp_and_unasked_answers_of_strangers_are_not_noted() {
    let mut all = quiet();
    let known = all.len();
    let strange = [
        request(THEIRS, "10.1.0.50", "10.1.0.50"),
        request(THEIRS, "10.1.0.50", "10.1.0.51"),
        reply(CLIENT, THEIRS, "10.1.0.50", "10.1.0.2"),
        reply(CLIENT, THEIRS, "10.1.0.100", "10.1.0.2"),
        advertisement("fd01::2", "fd01::50", Some(THEIRS), true, true),
        request(THEIRS, "192.0.2.1", "10.1.0.2"),
        request(THEIRS, "0.0.0.0", "10.1.0.2"),
    ];
    for frame in strange {
        assert_eq!(all.handle_packet(at(1), CLIENT, &frame), Heard::Nothing, "{}", Trace(&frame));
    }
    assert_eq!(all.len(), known);
    assert_eq!(drain(&mut all), [""; 0]);
}

#[test]
fn who_asks_for_an_address_of_ours_is_noted_and_later_asked_itself() {
    let mut all = quiet();
    assert_eq!(all.handle_packet(at(1), CLIENT, &request(THEIRS, "10.1.0.50", "10.1.0.100")), Heard::Address);
    assert_eq!(drain(&mut all), ["0 10.1.0.50 is at 02:00:00:00:00:50"]);
    let lines = about(&run(&mut all, at(5_500)), "10.1.0.50?");
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("5 0 Own 02:00:00:00:01:01 > 02:00:00:00:00:50 arp"), "{lines:?}");
}

#[test]
fn a_client_is_kept_while_it_answers_and_forgotten_when_it_falls_silent() {
    let mut all = quiet();
    all.handle_packet(at(0), CLIENT, &request(THEIRS, "10.1.0.50", "10.1.0.2"));
    drain(&mut all);
    let mut probed_at = 0;
    for second in 0..3600 {
        all.poll(at(second * 1000));
        let lines = about(&drain(&mut all), "10.1.0.50");
        assert!(lines.iter().all(|line| line.contains("10.1.0.50? tell")), "{lines:?}");
        if !lines.is_empty() {
            probed_at = second;
            all.handle_packet(at(second * 1000), CLIENT, &reply(CLIENT, THEIRS, "10.1.0.50", "10.1.0.2"));
            assert_eq!(drain(&mut all), [""; 0]);
        }
    }
    assert!(probed_at > 3500, "asked on and on: last at {probed_at} s");
    let lines = about(&run(&mut all, at(3_700_000)), "10.1.0.50");
    assert_eq!(lines.len(), 3 + 3 + 2, "unicast, multicast, the address gone, the entry gone: {lines:?}");
    assert!(!all.by_address.contains_key(&(CLIENT, ip("10.1.0.50"))));
}

#[test]
fn only_neighbours_can_be_asked_for() {
    let mut all = quiet();
    for other in ["192.0.2.1", "10.1.0.2", "10.1.0.100", "224.0.0.1", "ff02::1", "0.0.0.0", "255.255.255.255"]
    {
        assert_eq!(all.resolve(at(0), CLIENT, ip(other)), Resolution::NotNeighbour, "{other}");
    }
    assert_eq!(all.resolve(at(0), MIRROR, ip("fe80::1")), Resolution::NoAddress);
    assert_eq!(drain(&mut all), [""; 0]);
}

#[test]
fn a_virtual_mac_and_groups_are_never_taken_for_a_neighbours() {
    let mut all = quiet();
    for mac in [MacAddress::virtual_router_v4(51), MacAddress::BROADCAST, MacAddress::ZERO, macs()[0]] {
        let frame = reply(CLIENT, mac, "10.1.0.1", "10.1.0.2");
        assert_eq!(all.handle_packet(at(0), CLIENT, &frame), Heard::Nothing, "{mac}");
    }
    assert_eq!(all.known(CLIENT, ip("10.1.0.1")), None);
}

#[test]
fn a_full_table_gives_up_clients_but_no_permanent_neighbour_and_stays_bounded() {
    let mut config = checked();
    config.ports[0].addresses[0].prefix_len = 16;
    let mut all = Neighbours::new(at(0), &config, &macs(), 1);
    let client = |n: u32| IpAddr::from((0x0a01_1000 + n).to_be_bytes());
    for n in 0..3 * NEIGHBOURS_MAX as u32 {
        assert_eq!(all.resolve(at(u64::from(n)), CLIENT, client(n)), Resolution::Pending, "{n}");
        if n % 64 == 0 {
            drain(&mut all);
        }
    }
    drain(&mut all);
    assert_eq!(all.len(), NEIGHBOURS_MAX);
    for (port, last) in [(CLIENT, "10.1.0.1"), (SERVER, "10.2.0.10"), (MIRROR, "10.9.0.2")] {
        assert!(all.by_address.contains_key(&(port, ip(last))), "{last}");
    }
    // Unasked requests of strangers push nobody out.
    let asks = request(THEIRS, "10.1.200.1", "10.1.0.2");
    assert_eq!(all.handle_packet(at(99_999), CLIENT, &asks), Heard::Nothing);
    // All but the permanent ones are gone in the end, and their places are free again.
    for second in 0..2000 {
        all.poll(at(100_000 + second * 1000));
        drain(&mut all);
    }
    assert_eq!(all.len(), 4);
    assert_eq!(all.resolve(at(9_999_999), CLIENT, client(1)), Resolution::Pending);
    assert!(all.entries.len() <= NEIGHBOURS_MAX);
}

#[test]
fn undrained_output_stays_bounded() {
    let mut all = quiet();
    for round in 0..20_000u64 {
        let mac = MacAddress([2, 0, 0, 1, (round >> 8) as u8, round as u8]);
        all.handle_packet(at(round * 1000), CLIENT, &request(mac, "10.1.0.1", "10.1.0.2"));
        all.poll(at(round * 1000));
    }
    assert!(all.sends.len() <= SENDS_MAX && all.changed.len() <= NEIGHBOURS_MAX);
}

#[test]
fn no_bytes_whatever_make_it_panic() {
    let samples = [
        request(THEIRS, "10.1.0.50", "10.1.0.2"),
        reply(CLIENT, THEIRS, "10.1.0.1", "10.1.0.2"),
        advertisement("fd01::2", "fd01::50", Some(THEIRS), true, true),
        advertisement("ff02::1", "fd01::50", None, false, true),
    ];
    let (mut all, mut rng) = (quiet(), Rng::with_seed(3));
    for round in 0..50_000u64 {
        let mut frame = samples[rng.usize(..samples.len())].clone();
        for _ in 0..rng.usize(..4) {
            let at = rng.usize(..frame.len());
            frame[at] = if rng.bool() { rng.u8(..) } else { frame[at] ^ 1 << rng.u8(..8) };
        }
        all.handle_packet(at(round), PortId(rng.u16(..4)), &frame);
        all.poll(at(round));
        drain(&mut all);
    }
}
