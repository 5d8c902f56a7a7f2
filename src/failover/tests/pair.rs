//! A pair, one sentence at a time.

use super::world::{Setup, World};
use crate::base::counters::Counter;
use crate::base::ids::PortId;
use crate::config::checked::Partition;
use crate::failover::event::{Cause, FailoverEvent, Lapse, Removal};
use crate::failover::{Operator, Refusal, Role};

pub(super) fn pair() -> World {
    let world = World::settled(1, Setup::default());
    assert_eq!((world.role(0), world.role(1)), (Role::Active, Role::Standby), "{}", world.story());
    world
}

pub(super) fn safe_pair() -> World {
    World::settled(1, Setup { partition: Partition::Safety, ..Setup::default() })
}

pub(super) fn sound(world: &World) {
    assert!(world.doubles.is_empty(), "two senders: {:?}\n{}", world.doubles.first(), world.story());
    assert!(world.lost.is_empty(), "lost: {:?}\n{}", world.lost.first(), world.story());
    assert!(world.early.is_empty(), "released early: {:?}\n{}", world.early.first(), world.story());
}

pub(super) fn promoted(world: &World, at: usize) -> Vec<(Cause, bool)> {
    let of = |event: &&FailoverEvent| match event {
        FailoverEvent::Promoted { cause, degraded, .. } => Some((*cause, *degraded)),
        _ => None,
    };
    world.events(at).iter().filter_map(of).collect()
}

#[test]
fn a_pair_started_together_has_one_leader_in_sync_with_its_standby() {
    let world = pair();
    assert_eq!(world.leader(), 0, "equal priorities: the lower node leads");
    assert!(world.status(1).in_sync);
    assert_eq!(world.status(0).members.len(), 1);
    assert!(world.status(0).peers[0].paths.iter().all(|path| path.hears_us));
    assert_eq!(promoted(&world, 0), [(Cause::Boot, false)]);
    sound(&world);
}

#[test]
fn at_boot_the_higher_priority_leads() {
    let mut world = World::new(2, Setup::default());
    world.nodes[1].priority = 200;
    world.start(0);
    world.start(1);
    world.run_ms(300);
    assert_eq!(world.leader(), 1);
    sound(&world);
}

#[test]
fn a_booting_appliance_leads_alone_only_when_boot_wait_ended() {
    let mut world = World::new(3, Setup::default());
    world.start(1);
    world.run_ms(295);
    assert_eq!(world.role(1), Role::Booting);
    world.run_ms(20);
    assert_eq!(world.leader(), 1);
    world.start(0);
    world.run_ms(100);
    assert_eq!(world.role(0), Role::Standby, "nobody preempts");
    assert_eq!(world.leader(), 1);
    sound(&world);
}

#[test]
fn an_appliance_without_peers_leads_at_once_and_leaves_at_once() {
    let mut world = World::new(4, Setup { nodes: 1, ..Setup::default() });
    world.start(0);
    world.run_ms(5);
    assert_eq!(world.leader(), 0);
    assert_eq!(promoted(&world, 0), [(Cause::Alone, false)]);
    world.operator(0, Operator::Shutdown).unwrap();
    world.run_ms(2);
    assert!(world.nodes[0].up.is_none());
}

#[test]
fn the_standby_takes_over_when_the_active_is_killed_and_installs_before_it_announces() {
    let mut world = pair();
    world.kill(0);
    world.run_ms(43);
    assert_eq!(world.role(1), Role::Standby);
    world.run_ms(17);
    assert_eq!(world.leader(), 1);
    assert_eq!(promoted(&world, 1), [(Cause::Silence, false)]);
    assert!(world.longest_silence > 0);
    world.run_ms(3000);
    let mine: Vec<u64> = world.announced.iter().filter(|(_, node)| *node == 2).map(|(at, _)| *at).collect();
    assert_eq!(mine.len(), 4);
    let after: Vec<u64> = mine.iter().map(|at| (at - mine[0]) / 1000).collect();
    assert!(
        after[1].abs_diff(100) <= 2 && after[2].abs_diff(500) <= 2 && after[3].abs_diff(2000) <= 2,
        "{after:?}"
    );
    sound(&world);
}

#[test]
fn the_repaired_appliance_rejoins_as_standby_comes_in_sync_and_can_lead_again() {
    let mut world = pair();
    for round in 0..4 {
        let (old, new) = (round % 2, (round + 1) % 2);
        world.kill(old);
        world.run_ms(100);
        assert_eq!(world.leader(), new);
        world.start(old);
        world.run_ms(400);
        assert_eq!(world.role(old), Role::Standby);
        assert!(world.status(old).in_sync, "{}", world.story());
    }
    sound(&world);
}

#[test]
fn an_active_that_restarts_faster_than_its_silence_is_noticed_does_not_lead() {
    let mut world = pair();
    world.kill(0);
    world.run_ms(20);
    world.start(0);
    world.run_ms(25);
    assert_eq!(world.leader(), 1, "its lease died with its last process: {}", world.story());
    assert_eq!(promoted(&world, 1), [(Cause::LeaderRestarted, false)]);
    assert_eq!(world.role(0), Role::Standby);
    sound(&world);
}

#[test]
fn a_standby_that_restarts_fast_is_out_of_sync_at_once_until_it_has_everything() {
    let mut world = pair();
    let before = world.status(0).term;
    world.kill(1);
    world.start(1);
    world.run_ms(25);
    assert!(world.events(0).iter().any(
        |event| matches!(event, FailoverEvent::OutOfSync { removal: Removal::Restarted, term, .. } if *term > before)
    ));
    world.run_ms(300);
    assert!(world.status(1).in_sync);
    assert_eq!(world.leader(), 0);
    sound(&world);
}

#[test]
fn a_paused_active_wakes_up_sends_nothing_and_follows() {
    let mut world = pair();
    world.pause_ms(0, 500);
    world.run_ms(600);
    assert_eq!(world.leader(), 1);
    assert_eq!(world.role(0), Role::Standby);
    sound(&world);
}

#[test]
fn an_active_paused_for_longer_than_its_lease_but_shorter_than_takeover_resumes_after_an_answer() {
    let mut world = pair();
    world.pause_ms(0, 40);
    world.run_ms(60);
    assert_eq!(world.leader(), 0, "{}", world.story());
    let silenced = |event: &&FailoverEvent| matches!(event, FailoverEvent::Silenced { lapse: Lapse::Paused });
    assert!(world.events(0).iter().any(silenced));
    assert!(world.events(0).iter().any(|event| matches!(event, FailoverEvent::Resumed { .. })));
    sound(&world);
}

#[test]
fn a_lone_active_that_was_paused_resumes_when_nobody_is_heard() {
    let mut world = pair();
    world.kill(1);
    world.run_ms(200);
    world.pause_ms(0, 300);
    world.run_ms(301 + 45);
    assert_eq!(world.role(0), Role::Silenced);
    world.run_ms(15);
    assert_eq!(world.leader(), 0);
}

#[test]
fn both_paused_together_go_on_as_they_were() {
    let mut world = pair();
    world.pause_ms(0, 1000);
    world.pause_ms(1, 1000);
    world.run_ms(1100);
    assert_eq!(world.leader(), 0, "{}", world.story());
    assert_eq!(world.role(1), Role::Standby);
    sound(&world);
}

#[test]
fn a_standby_paused_for_long_does_not_take_over_from_a_live_active() {
    let mut world = pair();
    for millis in [30, 60, 400, 1500] {
        world.pause_ms(1, millis);
        world.run_ms(millis + 300);
        assert_eq!(world.leader(), 0, "{}", world.story());
        assert_eq!(world.role(1), Role::Standby);
    }
    world.run_ms(500);
    assert!(world.status(1).in_sync, "{}", world.story());
    sound(&world);
}

#[test]
fn an_active_whose_worker_stands_still_gives_way() {
    let mut world = pair();
    world.nodes[0].stuck_until = world.now_us + 400_000;
    world.run_ms(150);
    assert_eq!(world.leader(), 1);
    world.run_ms(400);
    assert_eq!(world.role(0), Role::Standby, "{}", world.story());
    sound(&world);
}

#[test]
fn a_standby_whose_worker_stands_still_does_not_take_over() {
    let mut world = pair();
    world.nodes[1].stuck_until = world.now_us + 400_000;
    world.run_ms(600);
    assert_eq!(world.leader(), 0);
    sound(&world);
}

#[test]
fn the_mirror_port_alone_cut_means_not_in_sync_and_never_take_over() {
    let mut world = pair();
    world.cut.extend([(0, 0, 1), (0, 1, 0)]);
    world.run_ms(500);
    assert_eq!(world.leader(), 0);
    assert!(world.status(0).members.is_empty() && !world.status(1).in_sync);
    let path = &world.status(0).peers[0].paths[0];
    assert!(path.mirror && !path.hears_us);
    world.kill(0);
    world.run_ms(70);
    assert_eq!(promoted(&world, 1), [(Cause::Silence, true)], "it takes over degraded, and says so");
    assert!(world.status(1).degraded);
    sound(&world);
}

#[test]
fn a_cut_in_one_direction_has_one_sender_all_the_time() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut world = pair();
        world.cut_all(from, to);
        world.run_ms(500);
        assert_eq!(world.leader(), if (from, to) == (0, 1) { 1 } else { 0 }, "{}", world.story());
        world.cut.clear();
        world.run_ms(500);
        world.leader();
        sound(&world);
    }
}

#[test]
fn in_a_full_partition_both_serve_and_when_it_heals_the_lower_term_yields() {
    let mut world = pair();
    world.cut_all(0, 1);
    world.cut_all(1, 0);
    world.run_ms(300);
    assert_eq!(world.senders(), [0, 1]);
    world.cut.clear();
    world.doubles.clear();
    world.run_ms(20);
    assert_eq!(world.senders().len(), 1, "{}", world.story());
    world.doubles.clear();
    world.run_ms(500);
    let leader = world.leader();
    assert!(world.status(1 - leader).in_sync);
    assert!(world.doubles.is_empty());
}

#[test]
fn with_safety_nobody_leads_because_of_silence() {
    let mut world = safe_pair();
    world.cut_all(0, 1);
    world.cut_all(1, 0);
    world.run_ms(1000);
    assert_eq!(world.leader(), 0);
    assert!(world.status(1).waits_for_operator);
    world.kill(0);
    world.run_ms(1000);
    assert!(world.senders().is_empty());
    world.operator(1, Operator::Promote).unwrap();
    world.run_ms(10);
    assert_eq!(world.leader(), 1);
    sound(&world);
}

#[test]
fn with_safety_the_standbys_death_does_not_silence_the_active_and_a_restart_is_known_to_be_one() {
    let mut world = safe_pair();
    world.longest_silence = 0;
    world.kill(1);
    world.run_ms(500);
    assert_eq!(world.longest_silence, 0);
    world.start(1);
    world.run_ms(400);
    assert!(world.status(1).in_sync);
    world.kill(0);
    world.run_ms(100);
    assert!(world.senders().is_empty());
    world.start(0);
    world.run_ms(100);
    assert_eq!(world.leader(), 1, "it knows that the old one is gone: {}", world.story());
    sound(&world);
}

#[test]
fn a_switchover_loses_nothing_and_is_quick() {
    let mut world = pair();
    world.longest_silence = 0;
    world.operator(0, Operator::Switchover).unwrap();
    world.run_ms(40);
    assert_eq!(world.leader(), 1, "{}", world.story());
    assert_eq!(world.role(0), Role::Standby);
    assert!(world.longest_silence < 15_000, "{} us", world.longest_silence);
    assert!(world.events(0).iter().any(|event| matches!(event, FailoverEvent::Resigned { clean: true, .. })));
    assert_eq!(promoted(&world, 1), [(Cause::HandedOver, false)]);
    world.run_ms(300);
    assert!(world.status(0).in_sync);
    sound(&world);
}

#[test]
fn a_switchover_whose_successor_dies_ends_with_one_that_serves() {
    for millis in 0..12 {
        let mut world = pair();
        world.operator(0, Operator::Switchover).unwrap();
        world.run_ms(millis);
        world.kill(1);
        world.run_ms(300);
        assert_eq!(world.leader(), 0, "killed after {millis} ms: {}", world.story());
        sound(&world);
    }
}

#[test]
fn shutdown_of_the_active_hands_over_and_then_exits() {
    let mut world = pair();
    world.longest_silence = 0;
    world.operator(0, Operator::Shutdown).unwrap();
    world.run_ms(60);
    assert_eq!(world.leader(), 1);
    assert!(world.nodes[0].up.is_some(), "it relays what still comes");
    world.run_ms(60);
    assert!(world.nodes[0].up.is_none(), "{}", world.story());
    assert!(world.longest_silence < 15_000, "{} us", world.longest_silence);
    sound(&world);
}

#[test]
fn shutdown_of_the_standby_is_no_silence_and_holds_nothing_up() {
    let mut world = pair();
    world.operator(1, Operator::Shutdown).unwrap();
    world.run_ms(10);
    assert!(world.nodes[1].up.is_none());
    let left =
        |event: &&FailoverEvent| matches!(event, FailoverEvent::OutOfSync { removal: Removal::Left, .. });
    assert!(world.events(0).iter().any(left), "{}", world.story());
    assert_eq!(world.leader(), 0);
}

#[test]
fn the_higher_priority_takes_the_lead_back_only_where_preempt_is_set() {
    for preempt in [false, true] {
        let mut world = World::new(5, Setup { preempt, ..Setup::default() });
        world.nodes[0].priority = 200;
        world.start(0);
        world.start(1);
        world.run_ms(300);
        world.kill(0);
        world.run_ms(100);
        assert_eq!(world.leader(), 1);
        world.start(0);
        world.run_ms(600);
        assert_eq!(world.leader(), if preempt { 0 } else { 1 }, "{}", world.story());
        sound(&world);
    }
}

/// What workers of a node were told, each run of the same thing once.
fn told(world: &World, node: u16) -> Vec<&'static str> {
    let mut told: Vec<_> = world.told.iter().filter(|(of, _)| *of == node).map(|(_, what)| *what).collect();
    told.dedup();
    told
}

#[test]
fn a_promotion_installs_then_takes_the_lease_then_announces() {
    let mut world = pair();
    world.told.clear();
    world.kill(0);
    world.run_ms(80);
    assert_eq!(told(&world, 2)[..4], ["active", "lease", "announce", "lease"]);
}

#[test]
fn stepping_down_ends_the_lease_before_anything_else() {
    let mut world = pair();
    world.cut_all(0, 1);
    world.cut_all(1, 0);
    world.run_ms(300);
    world.cut.clear();
    world.told.clear();
    world.run_ms(50);
    let loser = 1 - world.leader();
    let told = told(&world, loser as u16 + 1);
    let from = told.iter().position(|what| *what == "no lease").unwrap();
    assert_eq!(told[from..], ["no lease", "standby"]);
}

#[test]
fn nobody_leads_a_term_that_is_not_durably_reserved() {
    let mut world = World::new(6, Setup::default());
    world.disk_hangs = true;
    world.start(0);
    world.run_ms(1000);
    assert_eq!(world.role(0), Role::Booting);
    assert_eq!(world.operator(0, Operator::Promote), Err(Refusal::NoTerm));
    let counter = world.nodes[0].disk;
    world.nodes[0].up.as_mut().unwrap().failover.handle_reserved(counter);
    world.run_ms(10);
    assert_eq!(world.leader(), 0);
}

#[test]
fn no_term_is_led_twice_over_many_restarts() {
    let mut world = World::new(7, Setup::default());
    for round in 0..30 {
        let at = round % 2;
        if world.nodes[at].up.is_some() {
            world.kill(at);
            world.run_ms(100);
        }
        world.start(at);
        world.run_ms(350);
    }
    let terms = world.log.iter().filter_map(|(_, _, event)| match event {
        FailoverEvent::Promoted { term, .. } | FailoverEvent::OutOfSync { term, .. } => Some(*term),
        _ => None,
    });
    let all: Vec<_> = terms.collect();
    let mut unique = all.clone();
    unique.sort_unstable();
    unique.dedup();
    assert!(all.len() > 20 && unique.len() == all.len(), "{all:?}");
    sound(&world);
}

#[test]
fn frames_recorded_and_sent_again_do_not_keep_a_dead_active_alive() {
    let mut world = World::new(8, Setup::default());
    world.recorded = Some(Vec::new());
    world.start(0);
    world.start(1);
    world.run_ms(300);
    let recorded = world.recorded.take().unwrap();
    let old: Vec<_> = recorded.into_iter().filter(|(from, _, _)| *from == 0).collect();
    world.kill(0);
    for frames in old.chunks(old.len().div_ceil(40)) {
        world.run_ms(1);
        let now = world.now();
        for (_, port, frame) in frames {
            let failover = &mut world.nodes[1].up.as_mut().unwrap().failover;
            failover.handle_frame(now, PortId(*port as u16), &mut frame.clone());
        }
    }
    world.run_ms(20);
    assert_eq!(world.leader(), 1, "{}", world.story());
    assert!(world.status(1).peers[0].session, "the session that was is not replaced");
    let counters = world.machine(1).failover.counters();
    assert!(counters.value(Counter::LivenessReplayed) > 50);
    assert!(counters.value(Counter::HandshakeStale) > 0);
}

#[test]
fn appliances_with_different_keys_say_so() {
    let mut world = World::new(9, Setup::default());
    world.start(0);
    world.key = crate::seal::Key::generate().unwrap();
    world.start(1);
    world.run_ms(100);
    for at in 0..2 {
        let unproven = |event: &&&FailoverEvent| matches!(event, FailoverEvent::PeerUnproven { .. });
        assert_eq!(world.events(at).iter().filter(unproven).count(), 2, "once for each port");
        assert!(!world.status(at).peers[0].session);
    }
}

#[test]
fn two_appliances_with_one_number_say_so() {
    let mut world = World::new(10, Setup::default());
    world.nodes[1].id = 1;
    world.start(0);
    world.start(1);
    world.run_ms(100);
    let same = |event: &&FailoverEvent| {
        matches!(event, FailoverEvent::PeerRefused { mismatch: crate::seal::Mismatch::SameNode, .. })
    };
    assert!(world.events(0).iter().any(same), "{}", world.story());
}

#[test]
fn a_raised_term_is_told_before_flows_count_without_a_member() {
    let mut world = pair();
    let before = world.status(0).term;
    world.cut.extend([(0, 0, 1), (0, 1, 0)]);
    world.run_ms(300);
    let after = world.status(0).term;
    assert!(after.counter == before.counter + 1 && after.node == before.node);
    assert_eq!(world.status(1).term, after, "the standby follows the raised term");
}

#[test]
fn strangers_and_broken_frames_change_nothing_and_are_counted() {
    let mut world = pair();
    let now = world.now();
    let before = world.status(1);
    let failover = &mut world.nodes[1].up.as_mut().unwrap().failover;
    let mut rng = crate::base::rng::Rng::with_seed(9);
    for len in 0..200 {
        let mut frame: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
        failover.handle_frame(now, PortId(0), &mut frame);
        if len > 22 {
            frame[12..18].copy_from_slice(&[0x88, 0xb5, b'b', b't', 1, (len % 5) as u8]);
            frame[18..22].copy_from_slice(&[0, 1, 0, 2]);
            if len % 2 == 0 && len >= 34 {
                frame[30..34].copy_from_slice(&[0, 0, 4, 0]);
            }
            failover.handle_frame(now, PortId(len as u16 % 3), &mut frame);
        }
    }
    let counters = failover.counters();
    for counter in [Counter::LivenessMalformed, Counter::LivenessUnknownSession, Counter::HandshakeForged] {
        assert!(counters.value(counter) > 0, "{counter:?}");
    }
    let mut after = world.status(1);
    let told = after.peers[0].disbelieved.take().expect("it says what it heard");
    assert!(
        told.count > 0 && told.newest.to_string().contains("without a key that is accepted here"),
        "{told:?}"
    );
    assert_eq!(after, before);
    world.run_ms(100);
    assert_eq!(world.leader(), 0);
}

#[test]
fn a_flood_of_handshakes_is_bounded_and_does_not_disturb() {
    let mut world = pair();
    for _ in 0..100 {
        let now = world.now();
        let failover = &mut world.nodes[1].up.as_mut().unwrap().failover;
        for n in 0..50u8 {
            let mut frame = vec![n; 150];
            frame[12..22].copy_from_slice(&[0x88, 0xb5, b'b', b't', 1, 1, 0, 1, 0, 2]);
            failover.handle_frame(now, PortId(0), &mut frame);
        }
        world.run_ms(1);
    }
    let counters = world.machine(1).failover.counters();
    let forged = counters.value(Counter::HandshakeForged);
    assert!((20..=40).contains(&forged), "{forged}");
    assert_eq!(counters.value(Counter::HandshakeFlood) + forged, 5000);
    assert_eq!(world.leader(), 0);
    assert!(world.status(1).peers[0].session);
}
