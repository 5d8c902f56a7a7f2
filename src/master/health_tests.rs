use super::*;
use crate::config::checked::{Hook, TrackScript};
use crate::master::neighbours::Output;
use crate::master::samples::{CLIENT, MIRROR, SERVER, checked, ip, macs};
use crate::wire::arp;
use crate::wire::ethernet::MacAddress;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// What is watched, with the neighbours that it asks.
struct World {
    watch: HealthWatch,
    neighbours: Neighbours,
    now: u64,
}

impl World {
    fn new(change: impl FnOnce(&mut Checked)) -> World {
        let mut config = checked();
        // One that answers by ARP, one that nobody can ask, and one behind the gateway.
        change(&mut config);
        let mut neighbours = Neighbours::new(at(0), &config, &macs(), 1);
        let watch = HealthWatch::new(at(0), &config, &mut neighbours);
        World { watch, neighbours, now: 0 }
    }

    fn tracking(ports: &[PortId]) -> World {
        World::new(|config| config.failover.track.ports = ports.to_vec())
    }

    fn with_script(rise: u16, fall: u16) -> World {
        let command =
            Hook { program: "/x".into(), arguments: Vec::new(), timeout: Duration::from_millis(1000) };
        let script = TrackScript { command, interval: Duration::from_millis(1000), rise, fall };
        World::new(|config| config.failover.track.script = Some(script))
    }

    /// Of the sample's pool, of which the first and the last can be asked by ARP.
    fn needing(least: u32) -> World {
        World::new(|config| config.pools[0].least_servers = least)
    }

    fn poll(&mut self) -> Option<HealthNews> {
        self.watch.poll(at(self.now), &self.neighbours)
    }

    /// Time passes, in which these answer whoever asks; the newest thing that was said.
    fn pass(&mut self, millis: u64, answering: &[&str]) -> (Health, Vec<String>, u32) {
        let end = self.now + millis;
        let mut asked = 0;
        while self.now < end {
            self.now += 20;
            self.neighbours.poll(at(self.now));
            let sends: Vec<Output> = std::iter::from_fn(|| self.neighbours.poll_output()).collect();
            for (port, who) in sends.iter().filter_map(asked_for) {
                asked += 1;
                if answering.contains(&who.to_string().as_str()) {
                    let frame = reply(port, who);
                    self.neighbours.handle_packet(at(self.now), port, &frame);
                }
            }
            let _ = self.poll();
        }
        let (health, ailments) = &self.watch.told;
        (*health, ailments.iter().map(ToString::to_string).collect(), asked)
    }
}

fn asked_for(output: &Output) -> Option<(PortId, core::net::Ipv4Addr)> {
    let Output::Send { port, frame, .. } = output else { return None };
    let parsed = crate::wire::parse::parse(frame).ok()?;
    if parsed.network != crate::wire::parse::Network::Arp {
        return None;
    }
    let packet = arp::Packet::new_unchecked(&frame[parsed.l3_offset()..]);
    Some((*port, arp::Repr::parse(&packet).target_ip))
}

fn reply(port: PortId, who: core::net::Ipv4Addr) -> Vec<u8> {
    let own = ["10.1.0.2", "10.2.0.2", "10.9.0.1"][usize::from(port.0)];
    let core::net::IpAddr::V4(own) = ip(own) else { panic!() };
    let (theirs, mine) = (MacAddress([2, 0, 0, 0, 0, 0x50]), macs()[usize::from(port.0)]);
    let repr = arp::Repr {
        operation: arp::Operation::Reply,
        sender_mac: theirs,
        sender_ip: who,
        target_mac: mine,
        target_ip: own,
    };
    crate::master::frames::arp(&crate::master::frames::Link::new(theirs, mine), &repr)
}

const fn health(failed: u8, doubtful: u8) -> Health {
    Health { failed, doubtful }
}

const GATEWAY: &str = "10.1.0.1";
const ON_LINK: &str = "10.2.0.10";

#[test]
fn a_link_that_goes_down_is_an_ailment_until_it_is_up_again() {
    let mut world = World::tracking(&[CLIENT, SERVER]);
    assert_eq!(world.poll(), None, "nothing is wrong before anything is known");
    assert!(!world.watch.handle_link(CLIENT, true));
    assert_eq!(world.poll(), None);
    assert!(world.watch.handle_link(CLIENT, false), "this is counted");
    assert!(!world.watch.handle_link(CLIENT, false), "and this is the same");
    let down = Ailment::LinkDown("client".into());
    let news = world.poll().expect("it is news");
    assert_eq!(
        news,
        HealthNews {
            health: health(1, 0),
            ailments: vec![down.clone()],
            began: vec![down.clone()],
            ended: vec![]
        }
    );
    assert_eq!(down.to_string(), "the link of port client is down");
    assert_eq!(world.poll(), None, "once");
    assert!(world.watch.handle_link(SERVER, false));
    assert_eq!(world.poll().map(|news| (news.health, news.began.len())), Some((health(2, 0), 1)));
    world.watch.handle_link(CLIENT, true);
    let news = world.poll().expect("it is news");
    assert_eq!((news.health, news.ended, news.ailments.len()), (health(1, 0), vec![down.clone()], 1));
    assert_eq!(down.healed(), "the link of port client is up");
}

#[test]
fn links_of_ports_that_are_not_tracked_count_for_nothing() {
    let mut world = World::tracking(&[CLIENT]);
    assert!(!world.watch.handle_link(SERVER, false) && !world.watch.handle_link(MIRROR, false));
    assert_eq!(world.poll(), None);
}

#[test]
fn a_script_fails_after_as_many_failures_in_a_row_as_it_may_and_recovers_after_as_many_successes() {
    let mut world = World::with_script(2, 3);
    let mut now = |runs: &str| {
        runs.bytes().for_each(|run| world.watch.handle_script(run == b'+'));
        let _ = world.poll();
        world.watch.told.0
    };
    assert_eq!(now(""), health(0, 1), "it has not run yet");
    assert_eq!(now("+"), health(0, 0));
    assert_eq!(now("-"), health(0, 1));
    assert_eq!(now("-+"), health(0, 0));
    assert_eq!(now("--"), health(0, 1), "two in a row");
    assert_eq!(now("-"), health(1, 0), "three");
    assert_eq!(now("+"), health(1, 0));
    assert_eq!(now("-+"), health(1, 0), "not two in a row");
    assert_eq!(now("+"), health(0, 0));
    assert_eq!(now("---"), health(1, 0));
    let mut never = World::with_script(1, 1);
    never.watch.handle_script(false);
    assert_eq!(never.poll().map(|news| news.began), Some(vec![Ailment::ScriptFails]));
}

#[test]
fn a_pool_is_short_of_servers_when_too_few_answer_by_themselves_or_by_their_gateway() {
    let mut world = World::needing(2);
    let (now, ..) = world.pass(500, &[]);
    assert_eq!(now, health(0, 1), "they have not had the time to answer");
    let (now, ailments, _) = world.pass(1000, &[GATEWAY, ON_LINK]);
    assert_eq!((now, ailments), (health(0, 0), vec![]));
    let (now, ..) = world.pass(3000, &[GATEWAY, ON_LINK]);
    assert_eq!(now, health(0, 0));

    // The gateway dies. For some seconds it is in doubt.
    let (now, ..) = world.pass(3000, &[ON_LINK]);
    assert_eq!(now, health(0, 1));
    let (now, ailments, _) = world.pass(5000, &[ON_LINK]);
    assert_eq!(now, health(1, 0));
    assert_eq!(ailments, ["pool web: fewer than 2 of its servers answer"]);
    // It is asked on, and back soon.
    let (now, ..) = world.pass(60_000, &[ON_LINK]);
    assert_eq!(now, health(1, 0));
    let (now, ailments, _) = world.pass(2000, &[GATEWAY, ON_LINK]);
    assert_eq!((now, ailments), (health(0, 0), vec![]));
}

#[test]
fn servers_that_take_no_new_flows_do_not_count() {
    let mut world = World::new(|config| {
        config.pools[0].least_servers = 1;
        config.pools[0].servers[2].weight = 0;
    });
    let (now, ..) = world.pass(20_000, &[GATEWAY]);
    assert_eq!(now, health(1, 0), "the gateway's is not counted, and the others do not answer");
    let (now, ..) = world.pass(3000, &[ON_LINK]);
    assert_eq!(now, health(0, 0));
}

#[test]
fn what_nobody_needs_is_not_watched_and_what_is_watched_is_not_flooded() {
    let mut world = World::needing(0);
    let (now, _, asked) = world.pass(14_000, &[GATEWAY, ON_LINK, "10.9.0.2"]);
    assert_eq!((now, asked), (health(0, 0), 3), "all three answered at the start, and are left in peace");
    assert_eq!(world.watch.next_deadline(), Instant::FAR_FUTURE);
    let mut world = World::needing(1);
    let (_, _, asked) = world.pass(60_000, &[GATEWAY, ON_LINK, "10.9.0.2"]);
    assert!((2 * 40..=2 * 120 + 8).contains(&asked), "{asked} questions to two of them in a minute");
}
