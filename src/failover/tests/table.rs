//! Every (role, input) pair of the role table, read as a table.

use crate::failover::role::{Input, Role, Step, step};

/// One line for each role; a step for each input in the order of [`Input::ALL`]:
/// leader, rival, vacant, promote, installed, lapsed, regained, switchover, maintenance, outranked, shutdown,
/// flushed, successor lost, gone, broken. `.` is stay, `X` a refusal.
const TABLE: [(Role, [&str; 15]); 8] = [
    (
        Role::Booting,
        ["follow", ".", "lead", "lead", ".", ".", ".", "X", ".", ".", "leave", ".", ".", ".", "leave"],
    ),
    (
        Role::Standby,
        ["follow", ".", "lead", "lead", ".", ".", ".", "X", ".", ".", "leave", ".", ".", "leave", "leave"],
    ),
    (
        Role::Installing,
        [
            "follow", "alarm", ".", "X", "serve", "silence", ".", "X", "X", "withdraw", "withdraw", ".", ".",
            ".", "leave",
        ],
    ),
    (
        Role::Active,
        [
            "follow", "alarm", ".", "X", ".", "silence", ".", "quiesce", "quiesce", "quiesce", "quiesce",
            ".", ".", ".", "leave",
        ],
    ),
    (
        Role::Quiescing,
        [
            "follow", "alarm", ".", "X", ".", "silence", ".", "X", ".", ".", ".", "withdraw", "abandon", ".",
            "leave",
        ],
    ),
    (
        Role::Resigning,
        ["follow", ".", ".", "X", "resign", ".", ".", "X", ".", ".", ".", ".", ".", ".", "leave"],
    ),
    (
        Role::Silenced,
        [
            "follow", "alarm", ".", "X", ".", ".", "resume", "X", "X", "withdraw", "withdraw", ".", ".", ".",
            "leave",
        ],
    ),
    (Role::Left, [".", ".", ".", "X", ".", ".", ".", "X", "X", ".", ".", ".", ".", ".", "."]),
];

fn name(step: Step) -> &'static str {
    match step {
        Step::Stay => ".",
        Step::Follow => "follow",
        Step::Lead => "lead",
        Step::Serve => "serve",
        Step::Alarm => "alarm",
        Step::Silence => "silence",
        Step::Resume => "resume",
        Step::Quiesce => "quiesce",
        Step::Abandon => "abandon",
        Step::Withdraw => "withdraw",
        Step::Resign => "resign",
        Step::Leave => "leave",
        Step::Refuse(_) => "X",
    }
}

#[test]
fn every_pair_of_role_and_input_does_what_the_table_says() {
    assert_eq!(TABLE.map(|(role, _)| role), Role::ALL);
    for (role, steps) in TABLE {
        for (input, expected) in Input::ALL.into_iter().zip(steps) {
            assert_eq!(name(step(role, input)), expected, "{role} on {input:?}");
        }
    }
}

/// The table of docs/design.md is this one.
#[test]
fn the_table_in_the_documentation_is_the_one_in_the_code() {
    let text = include_str!("../../../docs/design.md");
    for (role, steps) in TABLE {
        let row = format!("| {role} | {} |", steps.join(" | "));
        assert!(text.lines().any(|line| line == row), "docs/design.md lacks: {row}");
    }
}

#[test]
fn whoever_serves_falls_silent_on_a_higher_claim_and_on_a_lapse() {
    for role in Role::ALL.into_iter().filter(|role| role.serves()) {
        assert_eq!(step(role, Input::Leader), Step::Follow);
        assert_eq!(step(role, Input::Lapsed), Step::Silence);
    }
}

#[test]
fn a_broken_process_leaves_whatever_it_is_and_waits_for_nobody() {
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Left) {
        assert_eq!(step(role, Input::Broken), Step::Leave, "{role}");
    }
}

#[test]
fn nobody_serves_but_by_way_of_installing() {
    for role in Role::ALL {
        for input in Input::ALL {
            assert_eq!(
                step(role, input) == Step::Serve,
                role == Role::Installing && input == Input::Installed,
                "{role} on {input:?}"
            );
        }
    }
}

#[test]
fn refusals_are_sentences_to_an_operator_alone() {
    for role in Role::ALL {
        for input in Input::ALL {
            if let Step::Refuse(reason) = step(role, input) {
                assert!(matches!(
                    input,
                    Input::OperatorPromote | Input::OperatorSwitchover | Input::Maintenance
                ));
                assert!(reason.starts_with("it ") || reason.starts_with("no "), "{reason}");
            }
        }
    }
}

#[test]
fn roles_survive_the_wire() {
    for role in Role::ALL {
        assert_eq!(Role::of_code(role.code()), Some(role));
    }
    assert_eq!(Role::of_code(0), None);
}
