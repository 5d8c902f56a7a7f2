use super::*;
use crate::worker::moving::Cargo;

const STAGES: [Stage; 3] = [Stage::Gathering, Stage::Preparing, Stage::Moving];
const SAID: [Said; 5] = [Said::Gathered, Said::Expecting, Said::Refused, Said::Cargo, Said::Settled];

#[test]
fn each_stage_listens_to_one_worker_and_nothing_is_refused_once_packets_are_redirected() {
    use Step::{Cancel, Finish, Forward, GiveUp, Prepare, Redirect, Stay};
    let old = [
        [Prepare, Stay, GiveUp, Stay, Stay],
        [Stay, Stay, Stay, Stay, Stay],
        [Stay, Stay, Stay, Forward, Stay],
    ];
    let new = [
        [Stay, Stay, Stay, Stay, Stay],
        [Stay, Redirect, Cancel, Stay, Stay],
        [Stay, Stay, Stay, Stay, Finish],
    ];
    for (table, is_old) in [(old, true), (new, false)] {
        for (stage, row) in STAGES.iter().zip(table) {
            for (said, expected) in SAID.iter().zip(row) {
                assert_eq!(step(*stage, *said, is_old), expected, "{stage:?}, {said:?}, {is_old}");
            }
        }
    }
}

fn leading() -> Rebalance {
    let mut rebalance = Rebalance::new(3, 2);
    rebalance.handle_role(true);
    rebalance
}

fn outputs(rebalance: &mut Rebalance) -> Vec<Output> {
    std::iter::from_fn(|| rebalance.poll_output()).collect()
}

fn cargo(these: Move) -> MoveEvent {
    MoveEvent::Cargo(Box::new(Cargo { these, first: None, flows: Vec::new(), last: None }))
}

/// Lets the workers of the move under way do their part.
fn carry_out(rebalance: &mut Rebalance) -> Option<Move> {
    let told = outputs(rebalance);
    let these = told.iter().find_map(|output| match output {
        Output::Worker { command: MoveCommand::Gather { these, .. }, .. } => Some(*these),
        Output::Worker { .. } | Output::Distributors(_) | Output::Done(_) => None,
    })?;
    rebalance.handle_event(these.from, MoveEvent::Gathered { flows: 2 });
    rebalance.handle_event(these.to, MoveEvent::Expecting { room: 9 });
    rebalance.handle_event(these.from, cargo(these));
    rebalance.handle_event(these.to, MoveEvent::Settled { flows: 2 });
    Some(these)
}

#[test]
fn a_move_goes_by_its_stages() {
    let mut rebalance = leading();
    rebalance.ask(&[(ShardId(4), WorkerId(2))]).expect("nothing is against it");
    let told = outputs(&mut rebalance);
    let [Output::Worker { to: WorkerId(1), command: MoveCommand::Gather { these, markers: 4, home: false } }] =
        told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((these.from, these.to, these.name()), (WorkerId(1), WorkerId(2), ShardId(4)));
    rebalance.handle_event(WorkerId(2), MoveEvent::Gathered { flows: 7 });
    rebalance.handle_event(WorkerId(0), MoveEvent::Gathered { flows: 7 });
    assert!(outputs(&mut rebalance).is_empty(), "others have nothing to say");
    rebalance.handle_event(WorkerId(1), MoveEvent::Gathered { flows: 7 });
    let told = outputs(&mut rebalance);
    assert!(matches!(
        told[..],
        [Output::Worker { to: WorkerId(2), command: MoveCommand::Expect { flows: 7, .. } }]
    ));
    assert_eq!(rebalance.owners().of(ShardId(4)), WorkerId(1));
    rebalance.handle_event(WorkerId(2), MoveEvent::Expecting { room: 9 });
    let told = outputs(&mut rebalance);
    let [
        Output::Worker { to: WorkerId(1), command: MoveCommand::Room(9) },
        Output::Worker { to: WorkerId(0), command: MoveCommand::Redirect(_) },
        Output::Worker { to: WorkerId(2), command: MoveCommand::Redirect(_) },
        Output::Distributors(_),
    ] = told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!(rebalance.owners().of(ShardId(4)), WorkerId(2));
    rebalance.handle_event(WorkerId(1), cargo(these));
    let told = outputs(&mut rebalance);
    assert!(matches!(told[..], [Output::Worker { to: WorkerId(2), command: MoveCommand::Take(_) }]));
    assert_eq!(rebalance.ask(&[(ShardId(5), WorkerId(0))]), Err(Refusal::Busy));
    rebalance.handle_event(WorkerId(2), MoveEvent::Settled { flows: 7 });
    let told = outputs(&mut rebalance);
    assert!(matches!(told[..], [Output::Done(Outcome { result: Ok(7), .. })]));
    assert!(!rebalance.is_busy());
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    let mut rebalance = Rebalance::new(3, 0);
    let one = [(ShardId(4), WorkerId(2))];
    assert_eq!(rebalance.ask(&one), Err(Refusal::Standby));
    rebalance.handle_role(true);
    assert_eq!(rebalance.ask(&[(ShardId(4), WorkerId(3))]), Err(Refusal::NoWorker));
    assert_eq!(rebalance.ask(&[(ShardId(4), WorkerId(1))]), Err(Refusal::Pointless));
    assert_eq!(rebalance.ask(&[(ShardId(256), WorkerId(1))]), Err(Refusal::Pointless));
    let mut alone = Rebalance::new(1, 1);
    alone.handle_role(true);
    assert_eq!(alone.ask(&[(ShardId(4), WorkerId(0))]), Err(Refusal::NoWorker));
}

#[test]
fn a_refusal_of_either_worker_ends_the_move_and_changes_no_owner() {
    for old in [true, false] {
        let mut rebalance = leading();
        rebalance
            .ask(&[(ShardId(4), WorkerId(2)), (ShardId(7), WorkerId(0))])
            .expect("nothing is against it");
        let refused = MoveEvent::Refused(MoveRefusal::NoRoom);
        if old {
            rebalance.handle_event(WorkerId(1), refused);
        } else {
            rebalance.handle_event(WorkerId(1), MoveEvent::Gathered { flows: 1 });
            rebalance.handle_event(WorkerId(2), refused);
        }
        let told = outputs(&mut rebalance);
        let cancels = |output: &&Output| {
            matches!(output, Output::Worker { to: WorkerId(1), command: MoveCommand::Cancel })
        };
        assert_eq!(told.iter().filter(cancels).count(), usize::from(!old));
        let failed = told.iter().any(|output| {
            matches!(output, Output::Done(Outcome { result: Err(Refusal::Worker(MoveRefusal::NoRoom)), .. }))
        });
        assert!(failed && rebalance.owners().of(ShardId(4)) == WorkerId(1));
        assert!(rebalance.is_busy(), "the next one is under way");
    }
}

#[test]
fn shards_go_home_when_the_appliance_no_longer_leads_also_from_a_move_under_way() {
    let mut rebalance = leading();
    for shard in [4, 7, 10] {
        rebalance.ask(&[(ShardId(shard), WorkerId(2))]).expect("nothing is against it");
        assert!(carry_out(&mut rebalance).is_some());
    }
    rebalance.ask(&[(ShardId(3), WorkerId(1)), (ShardId(13), WorkerId(0))]).expect("nothing is against it");
    rebalance.handle_role(false);
    assert_eq!(carry_out(&mut rebalance).map(|these| these.name()), Some(ShardId(3)), "it goes on");
    let told: Vec<Move> = std::iter::from_fn(|| carry_out(&mut rebalance)).collect();
    assert_eq!(told.len(), 2, "one way home each, whatever went that way: {told:?}");
    assert_eq!(*rebalance.owners(), Owners::even(3));
    assert!(!rebalance.is_busy());
    assert_eq!(rebalance.ask(&[(ShardId(4), WorkerId(2))]), Err(Refusal::Standby));
}

#[test]
fn a_way_home_that_is_refused_is_tried_again_until_the_appliance_leads() {
    let mut rebalance = leading();
    rebalance.ask(&[(ShardId(4), WorkerId(2))]).expect("nothing is against it");
    assert!(carry_out(&mut rebalance).is_some());
    rebalance.handle_role(false);
    let home = Move { shards: [ShardId(4)].into_iter().collect(), from: WorkerId(2), to: WorkerId(1) };
    for _ in 0..3 {
        let gathers = |output: &&Output| {
            let gather = MoveCommand::Gather { these: home, markers: 4, home: true };
            format!("{output:?}") == format!("{:?}", Output::Worker { to: WorkerId(2), command: gather })
        };
        assert_eq!(outputs(&mut rebalance).iter().filter(gathers).count(), 1);
        rebalance.handle_event(WorkerId(2), MoveEvent::Refused(MoveRefusal::Otherwise));
        assert!(outputs(&mut rebalance).is_empty(), "not at once, and nobody asked for it");
        assert!(rebalance.is_busy());
        rebalance.poll();
    }
    rebalance.handle_event(WorkerId(2), MoveEvent::Refused(MoveRefusal::Otherwise));
    rebalance.handle_role(true);
    outputs(&mut rebalance);
    rebalance.poll();
    assert!(!rebalance.is_busy() && outputs(&mut rebalance).is_empty());
    assert_eq!(rebalance.owners().of(ShardId(4)), WorkerId(2), "a leader keeps it");
}

fn loads(flows: &[&[u64]]) -> Vec<ShardFlows> {
    let mut shard = 0;
    let mut number = |flows: &u64| {
        shard += 1;
        (ShardId(shard), *flows)
    };
    flows.iter().map(|worker| worker.iter().map(&mut number).collect()).collect()
}

#[test]
fn a_plan_evens_out_the_load_and_leaves_an_even_one_alone() {
    let mut even = loads(&[&[50, 50], &[98], &[60, 41]]);
    assert!(plan(&mut even).is_empty());
    let mut uneven = loads(&[&[100, 40, 30, 30], &[50], &[50]]);
    assert_eq!(skew(&uneven), Some(2.0));
    let moves = plan(&mut uneven);
    assert!(skew(&uneven).is_some_and(|skew| skew <= 1.06), "{uneven:?}");
    assert!(moves.len() <= 3, "{moves:?}");
    // One shard has it all: no move makes it better.
    assert!(plan(&mut loads(&[&[1000], &[1]])).is_empty());
    assert!(plan(&mut loads(&[&[], &[]])).is_empty() && skew(&loads(&[&[0], &[]])).is_none());
}

#[test]
fn a_plan_is_bounded() {
    let many = vec![10; 200];
    let mut loads = loads(&[&many, &[], &[]]);
    assert_eq!(plan(&mut loads).len(), REBALANCE_MOVES_MAX);
}
