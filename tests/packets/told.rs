//! What lcores have to tell each other before something else may happen, and what happens to those that do not hear
//! (REQ D3, D9).

use baton::base::counters::Counter;
use baton::base::io::TxClass;
use baton::base::limits::TOLD_WAITING_MAX;
use baton::config::checked::{Checked, ChosenMethod, Commit, Method, MirrorMode};
use baton::distributor::shape::Shape;
use baton::flow::FlowIndex;
use baton::worker::message::{Command, Event, Role};

use crate::bench::*;
use crate::group::Group;
use crate::workers::*;

const CHOSEN: Method = Method::Chosen(ChosenMethod::RoundRobin);

fn opening(port: u16) -> Vec<u8> {
    from_client(port, FULL_NAT, 80, Some(SYN)).bytes()
}

/// Both have this much room for keys, and mirror the virtual server whose flows have two of them.
fn keys(max: u32) -> impl Fn(usize, &mut Checked) {
    move |_, checked| {
        checked.distributor.max_keys = max;
        let mut servers = checked.virtual_servers.iter_mut();
        let nat = servers.find(|server| server.name == "nat6").expect("it is there");
        nat.mirror = MirrorMode::Checkpoint(Commit::Async);
    }
}

/// So many flows that their keys are more than can wait to be told at a standby of two workers.
fn open_too_many(group: &mut Group) -> u64 {
    for first in (2000..32_000).step_by(1000) {
        group.leader().open_many(NAT, first..first + 1000);
        group.exchange(10);
    }
    30_000
}

fn deafen(workers: &mut Workers, is_deaf: bool) {
    workers.benches.iter_mut().for_each(|bench| bench.io.is_deaf = is_deaf);
}

/// Full keys that each lcore knows.
fn known(workers: &Workers) -> Vec<u32> {
    let of = |bench: &Bench| bench.worker.placer_store().expect("a store").len_of(Shape::Full);
    workers.benches.iter().map(of).collect()
}

fn total(workers: &mut Workers) -> u64 {
    workers.flows().iter().sum()
}

#[test]
fn nothing_is_chosen_before_the_appliance_serves() {
    let mut workers = Workers::new(3, CHOSEN, |_| {});
    workers.open_many(FULL_NAT, 2000..2030);
    workers.benches.iter_mut().for_each(|bench| bench.worker.set_serves(false));
    for port in 3000..3030 {
        assert!(workers.handle(CLIENT_PORT, &opening(port)).is_empty());
    }
    assert_eq!((total(&mut workers), workers.count(Counter::DropStandby)), (30, 30));
    assert_eq!(workers.count(Counter::KeysChosen), u64::from(known(&workers)[0]));
    // What goes by its hash begins, and what is known goes on.
    workers.open(HASHED, 4000);
    for port in 2000..2030 {
        let sent = workers.handle(CLIENT_PORT, &from_client(port, FULL_NAT, 80, Some(ACK)).bytes());
        only(&sent, SERVER_PORT, TxClass::Service);
    }
    workers.benches.iter_mut().for_each(|bench| bench.worker.set_serves(true));
    workers.open_many(FULL_NAT, 3000..3030);
}

/// Workers that have said that they took the role.
fn installed(workers: &mut Workers) -> Vec<usize> {
    let said = workers.said.drain(..);
    let mut by: Vec<usize> =
        said.filter(|(_, event)| matches!(event, Event::Installed { .. })).map(|(by, _)| by).collect();
    by.sort_unstable();
    by
}

#[test]
fn a_role_is_said_to_be_taken_when_all_keys_are_told() {
    let mut group = Group::in_sync([3, 2], CHOSEN, keys(10_000));
    group.leader().open_many(FULL_NAT, 2000..2060);
    // One worker of the standby is not heard by the other.
    group.standby().benches[1].io.is_deaf = true;
    group.exchange(100);
    let standby = group.standby();
    assert_eq!(total(standby), 60);
    let unheard = known(standby);
    assert!(unheard[0] < unheard[1], "{unheard:?}");
    installed(standby);
    standby.command(&Command::Role { epoch: 7, role: Role::Active, term: TERM });
    standby.pass(50);
    assert_eq!(installed(standby), [0]);
    deafen(standby, false);
    standby.pass(10);
    assert_eq!(installed(standby), [1]);
    assert_eq!(known(standby), [unheard[1]; 2]);
}

#[test]
fn a_standby_knows_the_keys_of_its_flows_and_forgets_them_with_their_ends() {
    let mut group = Group::in_sync([3, 2], CHOSEN, keys(10_000));
    group.leader().open_many(FULL_NAT, 2000..2060);
    group.exchange(100);
    let at_leader = known(group.leader());
    assert!(at_leader[0] > 30 && at_leader.iter().all(|count| *count == at_leader[0]), "{at_leader:?}");
    assert_eq!(known(group.standby()), [at_leader[0]; 2]);
    group.pass_hour();
    for bench in &mut group.leader().benches {
        (0..60).for_each(|place| bench.command(Command::Expire { flow: FlowIndex(place) }));
    }
    group.exchange(100);
    assert_eq!((total(group.leader()), total(group.standby())), (0, 0));
    assert_eq!((known(group.leader()), known(group.standby())), (vec![0; 3], vec![0; 2]));
}

/// Flows of which the standby cannot remember the keys are not protected, and it says so.
#[test]
fn a_standby_refuses_flows_whose_keys_it_has_no_room_for() {
    let few = |side: usize, checked: &mut Checked| {
        checked.distributor.max_keys = if side == 0 { 10_000 } else { 256 };
    };
    let mut group = Group::in_sync([3, 2], CHOSEN, few);
    group.leader().open_many(FULL_NAT, 2000..2800);
    group.exchange(200);
    let standby = group.standby();
    assert!(standby.count(Counter::MirrorRecordTableFull) > 300);
    assert_eq!(standby.count(Counter::KeysRefused), 0, "what is taken can be found");
    let taken = total(standby);
    assert!((256..500).contains(&taken), "{taken}");
}

/// Frames of the leader's that would have too much wait are dropped, and come again.
#[test]
fn a_standby_whose_lcores_do_not_hear_takes_no_more_flows_until_they_do() {
    let mut group = Group::in_sync([3, 2], CHOSEN, keys(60_000));
    deafen(group.standby(), true);
    let opened = open_too_many(&mut group);
    group.exchange(500);
    let taken = total(group.standby());
    let standby = group.standby();
    assert!(standby.count(Counter::DropTellFull) > 10);
    // Two keys of each wait to be told, or none.
    assert!(taken > TOLD_WAITING_MAX as u64 - 500 && taken < opened - 5000, "{taken}");
    deafen(standby, false);
    group.exchange(2000);
    assert_eq!(total(group.standby()), opened);
    let at_leader = known(group.leader())[0];
    assert_eq!(known(group.standby()), [at_leader; 2]);
}

/// A leader that has nothing any more: what the standby has ends, no faster than others hear of it.
#[test]
fn what_a_walk_does_not_name_goes_no_faster_than_others_hear_of_it() {
    let mut group = Group::in_sync([2, 2], CHOSEN, keys(60_000));
    let all = open_too_many(&mut group);
    group.exchange(200);
    assert_eq!(total(group.standby()), all);
    deafen(group.standby(), true);
    group.begin_anew();
    group.exchange(500);
    let left = total(group.standby());
    assert!(group.standby().count(Counter::DropTellFull) > 2);
    assert!(left < all - 10_000 && left > 5000, "{left}");
    deafen(group.standby(), false);
    group.exchange(2000);
    assert_eq!((total(group.standby()), known(group.standby())), (0, vec![0; 2]));
}
