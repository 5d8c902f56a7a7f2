use super::*;
use crate::base::ids::{NodeId, Term};
use crate::master::samples::{CLIENT, SERVER, THEIRS, checked, ip, macs};
use crate::wire::parse::{Trace, parse};

const NOW: Instant = Instant::ZERO;
const TERM: Term = Term { counter: 7, node: NodeId(1) };
const SERVING: FailoverEvent = FailoverEvent::Serving { term: TERM };
const RESIGNED: FailoverEvent = FailoverEvent::Resigned { term: TERM, to: None, clean: true };

fn after(ms: u64) -> Instant {
    NOW + Duration::from_millis(ms)
}

fn advertiser() -> Advertiser {
    Advertiser::new(&checked(), &macs())
}

/// One that has served, and advertised, from `NOW` on.
fn active() -> Advertiser {
    let mut advertiser = advertiser();
    advertiser.handle_event(NOW, &SERVING);
    advertiser.poll(NOW);
    lines(&mut advertiser);
    advertiser
}

/// What it wants, a line each.
fn lines(advertiser: &mut Advertiser) -> Vec<String> {
    core::iter::from_fn(|| advertiser.poll_output())
        .map(|output| match output {
            Output::Send { port, frame, class } => format!("{port} {class:?} {}", Trace(&frame)),
            Output::Count { counter, packets } => format!("{} {packets}", counter.name()),
            Output::Foreign(priority) => format!("foreign {priority}"),
            Output::Rival(Rival { port, source, priority, .. }) => {
                format!("rival {source} {priority} on {port}")
            }
        })
        .collect()
}

/// Someone else's advertisement of a virtual router, on the client port.
fn theirs(source: &str, virtual_router_id: u8, priority: u8) -> Vec<u8> {
    let repr = Repr { virtual_router_id, priority, interval_cs: 100 };
    let group = match ip(source) {
        IpAddr::V4(_) => MacAddress::multicast_v4(vrrp::GROUP_V4),
        IpAddr::V6(_) => MacAddress::multicast_v6(vrrp::GROUP_V6),
    };
    let addresses = [if ip(source).is_ipv4() { ip("10.1.0.100") } else { ip("fe80::9") }];
    frames::vrrp(&Link::new(THEIRS, group), ip(source), &repr, &addresses, Ipv4Checksum::Message)
}

fn hear(advertiser: &mut Advertiser, now: Instant, frame: &[u8]) -> Vec<String> {
    advertiser.handle_packet(now, CLIENT, frame, &parse(frame).unwrap());
    lines(advertiser)
}

#[test]
fn the_active_advertises_its_addresses_on_their_links_when_it_begins_to_serve_and_at_each_interval() {
    let mut advertiser = advertiser();
    advertiser.poll(NOW);
    assert_eq!(lines(&mut advertiser), Vec::<String>::new(), "a standby is silent");
    advertiser.handle_event(NOW, &SERVING);
    advertiser.poll(NOW);
    let first = lines(&mut advertiser);
    let line =
        |port, [family, mac, group]: [&str; 3], [source, to]: [&str; 2], [length, count]: [&str; 2]| {
            format!(
                "{port} Service 00:00:5e:00:{mac}:33 > {group} {family}: {source} > {to} {length}: \
             vrrp 3 router 51 priority 200 each 100 cs, {count} addresses"
            )
        };
    let v4 = ["ipv4", "01", "01:00:5e:00:00:12"];
    let v6 = ["ipv6", "02", "33:33:00:00:00:12"];
    let expected = [
        line(CLIENT, v4, ["10.1.0.2", "224.0.0.18"], ["vrrp ttl 255 length 32", "1"]),
        line(CLIENT, v6, ["fe80::ff:fe00:101", "ff02::12"], ["vrrp hops 255 length 40", "2"]),
        line(SERVER, v4, ["10.2.0.2", "224.0.0.18"], ["vrrp ttl 255 length 36", "2"]),
        line(SERVER, v6, ["fe80::ff:fe00:102", "ff02::12"], ["vrrp hops 255 length 40", "2"]),
    ];
    assert_eq!(first[..4], expected);
    assert_eq!(first[4..], ["vrrp_advertised 4"]);
    assert_eq!(advertiser.next_deadline(), after(1000));
    advertiser.poll(after(999));
    assert_eq!(lines(&mut advertiser).len(), 0);
    advertiser.poll(after(1000));
    assert_eq!(lines(&mut advertiser), first);
    assert_eq!(advertiser.addresses_unnamed(), 0);
}

/// RFC 9568 section 5.2.9.
#[test]
fn the_link_local_address_of_the_virtual_router_comes_first() {
    let advertiser = advertiser();
    let frame = &advertiser.voices[1].advertisement;
    let message = vrrp::Message::new_unchecked(&frame[54..]);
    assert_eq!(message.addresses(true).collect::<Vec<_>>(), [ip("fe80::200:5eff:fe00:233"), ip("fd01::100")]);
}

#[test]
fn addresses_that_do_not_fit_are_not_named() {
    let mut checked = checked();
    for n in 2..100 {
        let address = ip(&format!("fd02::2:{n:x}"));
        checked.ports[1].shared_addresses.push(crate::config::checked::Cidr { address, prefix_len: 64 });
    }
    let advertiser = Advertiser::new(&checked, &macs());
    let voice = &advertiser.voices[3];
    let frame = &voice.advertisement;
    assert_eq!((voice.port, frame.len()), (SERVER, 14 + 40 + 8 + 90 * 16));
    assert_eq!(vrrp::Message::new_unchecked(&frame[54..]).count(), 90);
    // With the link-local one and the sample's own there are a hundred.
    assert_eq!(advertiser.addresses_unnamed(), 10);
}

#[test]
fn who_resigns_says_so_once_from_the_ports_own_mac_and_is_silent_then() {
    let mut advertiser = active();
    advertiser.fall_silent();
    advertiser.handle_event(after(5), &RESIGNED);
    let said = lines(&mut advertiser);
    assert_eq!(said.len(), 5);
    let first = "0 Own 02:00:00:00:01:01 > 01:00:5e:00:00:12 ipv4: 10.1.0.2 > 224.0.0.18 ";
    assert!(said[0].starts_with(first) && said[0].contains("router 51 priority 0 each"), "{}", said[0]);
    assert!(said[..4].iter().all(|line| line.contains(" Own 02:") && line.contains("priority 0 ")));
    advertiser.handle_event(after(6), &FailoverEvent::Left);
    advertiser.poll(after(5000));
    assert_eq!(lines(&mut advertiser), Vec::<String>::new());
    assert_eq!(advertiser.next_deadline(), Instant::FAR_FUTURE);
}

#[test]
fn who_leaves_with_nobody_to_follow_resigns_and_a_standby_that_leaves_does_not() {
    let mut advertiser = active();
    advertiser.handle_event(after(5), &FailoverEvent::Left);
    assert_eq!(lines(&mut advertiser).len(), 5);
    let mut standby = self::advertiser();
    standby.handle_event(after(5), &FailoverEvent::Left);
    assert_eq!(lines(&mut standby), Vec::<String>::new());
}

#[test]
fn a_rival_is_an_alarm_and_is_answered_at_once() {
    for (source, priority) in [("10.1.0.9", 50), ("10.1.0.9", 250), ("fe80::9", 50)] {
        let mut advertiser = active();
        let said = hear(&mut advertiser, after(300), &theirs(source, 51, priority));
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("0 Service 00:00:5e:00:0"), "{said:?}");
        assert_eq!(said[0].contains("ipv6"), source.contains(':'));
        // More of the same within a moment is counted, and neither answered nor told again.
        assert_eq!(hear(&mut advertiser, after(310), &theirs(source, 51, priority)), Vec::<String>::new());
        assert_eq!(advertiser.next_deadline(), after(400));
        advertiser.poll(after(400));
        let alarm = format!("rival {source} {priority} on 0");
        assert_eq!(lines(&mut advertiser), ["vrrp_rivals 2", &alarm]);
    }
}

#[test]
fn a_standby_hears_the_active_and_that_is_no_rival() {
    let mut advertiser = advertiser();
    assert_eq!(hear(&mut advertiser, after(300), &theirs("10.1.0.3", 51, 100)), ["vrrp_heard 1"]);
    advertiser.poll(after(1000));
    assert_eq!(lines(&mut advertiser), Vec::<String>::new());
}

/// A new active hears what the old one sent last; priority 0 is answered, lest another router takes over.
#[test]
fn last_words_of_the_old_active_are_no_rivals() {
    let mut advertiser = active();
    let said = hear(&mut advertiser, after(3), &theirs("10.1.0.3", 51, 0));
    assert!(said[0].contains("priority 200"), "{said:?}");
    assert_eq!(said[1..], ["vrrp_advertised 1", "vrrp_heard 1"]);
    assert_eq!(hear(&mut advertiser, after(4), &theirs("10.1.0.3", 51, 100)), ["vrrp_heard 1"]);
    advertiser.poll(after(500));
    assert_eq!(lines(&mut advertiser), Vec::<String>::new());
}

/// One that was paused hears its successor before it knows that it leads no more.
#[test]
fn the_successor_of_a_paused_active_is_no_rival() {
    let mut advertiser = active();
    hear(&mut advertiser, after(900), &theirs("10.1.0.3", 51, 100));
    advertiser
        .handle_event(after(901), &FailoverEvent::Silenced { lapse: crate::failover::event::Lapse::Paused });
    advertiser.poll(after(2000));
    assert_eq!(lines(&mut advertiser), ["vrrp_heard 1"]);
}

#[test]
fn what_is_not_about_this_router_or_not_right_is_counted_and_nothing_else() {
    let mut advertiser = active();
    let mut check = |frame: &[u8], expected: &str| {
        assert_eq!(hear(&mut advertiser, after(300), frame), [expected]);
    };
    check(&theirs("10.1.0.9", 52, 50), "vrrp_other_routers 1");
    check(&theirs("10.1.0.2", 51, 200), "vrrp_own 1");
    let good = theirs("10.1.0.9", 51, 50);
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        ipv4::Packet::new_unchecked(&mut frame[14..34]).fill_checksum();
        frame
    };
    check(&changed(14 + 8, 254), "drop_vrrp_hop_limit 1");
    check(&changed(34, 0x21), "drop_vrrp_version 1");
    check(&changed(34, 0x32), "drop_vrrp_type 1");
    check(&changed(37, 200), "drop_vrrp_truncated 1");
    check(&changed(40, 0xaa), "drop_vrrp_checksum 1");
    let mut broken = good.clone();
    broken[14 + 10] ^= 1;
    check(&broken, "drop_checksum 1");
    // Cut short, with a length that says so.
    check(&changed(14 + 3, 27), "drop_vrrp_truncated 1");
}

/// With `vrrp = "yield"`, by one of priority 200.
#[test]
fn others_of_more_priority_are_told_of_and_that_they_are_gone_by_an_active_as_by_a_standby() {
    let mut checked = checked();
    checked.failover.vrrp = VrrpUse::Yield;
    for serves in [false, true] {
        let mut advertiser = Advertiser::new(&checked, &macs());
        if serves {
            advertiser.handle_event(NOW, &SERVING);
            advertiser.poll(NOW);
            lines(&mut advertiser);
        }
        let told =
            |lines: Vec<String>| lines.into_iter().filter(|line| line.starts_with("foreign")).collect();
        let none = Vec::<String>::new();
        let at = |ms, frame: &[u8], advertiser: &mut Advertiser| -> Vec<String> {
            told(hear(advertiser, after(ms), frame))
        };
        assert_eq!(at(10, &theirs("10.1.0.9", 51, 200), &mut advertiser), none, "no more than ours");
        assert_eq!(at(11, &theirs("10.1.0.9", 52, 250), &mut advertiser), none, "another virtual router");
        assert_eq!(
            at(12, &theirs("10.1.0.2", 51, 250), &mut advertiser),
            none,
            "it comes from our own address"
        );
        let mut broken = theirs("10.1.0.9", 51, 250);
        // The last byte of the last address: what is behind it is padding.
        broken[14 + 20 + 11] ^= 1;
        assert_eq!(at(13, &broken, &mut advertiser), none, "a checksum is wrong");
        assert_eq!(at(14, &theirs("10.1.0.9", 51, 250), &mut advertiser), ["foreign 250"]);
        assert_eq!(at(15, &theirs("fe80::9", 51, 255), &mut advertiser), ["foreign 255"]);
        assert_eq!(at(16, &theirs("fe80::9", 51, 0), &mut advertiser), none);
        // 56 / 256 of a second later, and three seconds more.
        assert!(advertiser.next_deadline() <= after(235));
        advertiser.poll(after(235));
        assert_eq!(told(lines(&mut advertiser)), ["foreign 250"]);
        advertiser.poll(after(14 + 3218));
        assert_eq!(told(lines(&mut advertiser)), none);
        advertiser.poll(after(14 + 3219));
        assert_eq!(told(lines(&mut advertiser)), ["foreign 0"]);
    }
}

#[test]
fn without_that_wish_nobody_is_told_of() {
    let mut advertiser = active();
    let said = hear(&mut advertiser, after(200), &theirs("10.1.0.9", 51, 255));
    assert!(!said.is_empty() && !said.iter().any(|line| line.starts_with("foreign")), "{said:?}");
}
