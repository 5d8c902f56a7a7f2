use super::*;
use crate::base::counters::Counter;
use crate::base::ids::{NodeId, Term};
use crate::failover::FailoverEvent;
use crate::master::frames::{self, Link};
use crate::master::samples::{CLIENT, THEIRS, ip, standby};
use crate::master::{Master, MasterOutput};
use crate::wire::vrrp::{self, Ipv4Checksum, Repr};
use crate::wire::{MacAddress, arp, ipv6, ndp};

/// The appliance has served for a while by then.
const NOW: Instant = Instant::from_millis(5000);
const TERM: Term = Term { counter: 7, node: NodeId(1) };

fn after(ms: u64) -> Instant {
    NOW + Duration::from_millis(ms)
}

/// One that serves since `since`, and has nothing to say.
fn active_since(since: Instant) -> Master {
    let mut master = standby();
    master.handle_role(since, true);
    master.handle_event(since, &FailoverEvent::Serving { term: TERM });
    master.poll(since);
    while master.poll_output().is_some() {}
    master
}

/// What a master says of rivals.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// Announcements, in frames.
    announced: Vec<(PortId, Vec<u8>)>,
    counted: u64,
    told: Vec<Claim>,
    told_by_vrrp: usize,
}

fn said(master: &mut Master, now: Instant) -> Said {
    let announcements = master.announcements().to_vec();
    master.poll(now);
    let mut said = Said::default();
    while let Some(output) = master.poll_output() {
        match output {
            MasterOutput::Inject { port, frame, .. } => {
                let frame = (port, frame);
                said.announced.extend(announcements.contains(&frame).then_some(frame));
            }
            MasterOutput::Count { counter: Counter::AddressRivals, packets } => said.counted += packets,
            MasterOutput::Rival(claim) => said.told.push(claim),
            MasterOutput::VrrpRival(_) => said.told_by_vrrp += 1,
            MasterOutput::Count { .. }
            | MasterOutput::Command { .. }
            | MasterOutput::Redirect(_)
            | MasterOutput::Foreign(_)
            | MasterOutput::Moved(_)
            | MasterOutput::Health(_) => {}
        }
    }
    said
}

/// Someone announces a virtual address as its own.
fn claims(address: &str) -> Vec<u8> {
    match ip(address) {
        IpAddr::V4(address) => {
            let repr = arp::Repr {
                operation: arp::Operation::Request,
                sender_mac: THEIRS,
                sender_ip: address,
                target_mac: MacAddress::ZERO,
                target_ip: address,
            };
            frames::arp(&Link::new(THEIRS, MacAddress::BROADCAST), &repr)
        }
        IpAddr::V6(address) => {
            let repr = ndp::Repr::Advertisement {
                router: false,
                solicited: false,
                overrides: true,
                target: address,
                target_mac: Some(THEIRS),
            };
            let link = Link::new(THEIRS, MacAddress::multicast_v6(ipv6::ALL_NODES));
            frames::ndp(&link, address, ipv6::ALL_NODES, &repr)
        }
    }
}

/// Another router of the virtual router, with more priority.
fn advertises() -> Vec<u8> {
    let repr = Repr { virtual_router_id: 51, priority: 250, interval_cs: 100 };
    let link = Link::new(THEIRS, MacAddress::multicast_v4(vrrp::GROUP_V4));
    frames::vrrp(&link, ip("10.1.0.9"), &repr, &[ip("10.1.0.100")], Ipv4Checksum::Message)
}

#[test]
fn whoever_claims_a_virtual_address_is_told_counted_and_answered_by_announcing_all_again() {
    for address in ["10.1.0.100", "fd01::100"] {
        let mut master = active_since(Instant::ZERO);
        master.handle_punt(NOW, CLIENT, &claims(address));
        master.handle_punt(after(20), CLIENT, &claims(address));
        assert_eq!(said(&mut master, after(99)), Said::default());
        let deadline = master.next_deadline();
        assert!(deadline <= after(100), "it wakes up for it");
        let claim = Claim { port: CLIENT, address: Some(ip(address)), link: THEIRS.0 };
        let announced = master.announcements().to_vec();
        let expected = Said { announced, counted: 2, told: vec![claim], told_by_vrrp: 0 };
        assert_eq!(said(&mut master, after(100)), expected);
        assert_eq!(said(&mut master, after(900)), Said::default(), "once");
    }
}

#[test]
fn so_is_whoever_sends_from_a_virtual_mac() {
    let mut master = active_since(Instant::ZERO);
    let (port, frame) = master.announcements()[0].clone();
    master.handle_punt(NOW, port, &frame);
    let said = said(&mut master, after(100));
    let claim = Claim { port, address: None, link: MacAddress::virtual_router_v4(51).0 };
    assert_eq!((said.counted, said.told), (1, vec![claim]));
    assert_eq!(said.announced, master.announcements());
}

#[test]
fn announcements_are_limited_whoever_claims_and_however_it_was_heard_and_the_last_one_is_not_left_out() {
    let mut master = active_since(Instant::ZERO);
    let all = master.announcements().len();
    let (mut sets, mut counted, mut told, mut by_vrrp) = (Vec::new(), 0, 0, 0);
    for ms in (0..5000).step_by(10) {
        if ms < 2500 {
            master.handle_punt(after(ms), CLIENT, &claims("10.1.0.100"));
            master.handle_punt(after(ms), CLIENT, &advertises());
        }
        let said = said(&mut master, after(ms));
        assert!(said.announced.len() == all || said.announced.is_empty());
        sets.extend((!said.announced.is_empty()).then_some(ms));
        counted += said.counted;
        told += said.told.len();
        by_vrrp += said.told_by_vrrp;
    }
    assert_eq!(sets, [100, 1100, 2100, 3100]);
    assert_eq!(counted, 250);
    assert!(told > 20 && by_vrrp > 20, "{told} and {by_vrrp}");
}

/// Both are active, as in a partition that heals, or with one virtual_router_id in two groups.
#[test]
fn two_that_hear_each_other_do_not_storm() {
    let mut both = [active_since(Instant::ZERO), active_since(Instant::ZERO)];
    let (port, frame) = both[0].announcements()[0].clone();
    both[0].handle_punt(NOW, port, &frame);
    let mut sets = [0, 0];
    for ms in 0..10_000 {
        for at in 0..2 {
            let said = said(&mut both[at], after(ms));
            sets[at] += usize::from(!said.announced.is_empty());
            for (port, frame) in said.announced {
                both[1 - at].handle_punt(after(ms), port, &frame);
            }
        }
    }
    assert!(sets.iter().all(|sets| (2..=10).contains(sets)), "{sets:?}");
}

/// What the old active sent last, and what a paused one hears of its successor.
#[test]
fn the_one_that_led_before_and_the_one_that_leads_after_are_no_rivals() {
    let mut master = active_since(NOW);
    let (port, frame) = master.announcements()[0].clone();
    master.handle_punt(after(50), port, &frame);
    assert_eq!(said(&mut master, after(400)), Said::default());
    master.handle_punt(after(500), port, &frame);
    master
        .handle_event(after(501), &FailoverEvent::Silenced { lapse: crate::failover::event::Lapse::Paused });
    assert_eq!(said(&mut master, after(900)), Said::default());
}

#[test]
fn a_standby_tells_of_whoever_claims_an_address_and_announces_nothing() {
    let mut master = standby();
    let (port, frame) = master.announcements()[0].clone();
    master.handle_punt(NOW, port, &frame);
    assert_eq!(said(&mut master, after(200)), Said::default(), "that is the active");
    master.handle_punt(after(300), CLIENT, &claims("10.1.0.100"));
    let said = said(&mut master, after(300));
    assert_eq!((said.counted, said.told.len(), said.announced.len()), (1, 1, 0));
}
