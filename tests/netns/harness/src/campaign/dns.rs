//! Questions and answers through a takeover: what is lost is what was under way.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use crate::appliance::Role;
use crate::campaign::Violations;
use crate::command::wait_until;
use crate::config::ECHO_PORT;
use crate::dns::{Answers, Load};
use crate::plan::{Family, Translation, virtual_address};
use crate::probe::Probe;
use crate::stage::{ROLES_LIMIT, Stage};

/// Clients of each of two virtual servers; each has one question under way.
const CLIENTS: usize = 4;
const LIMIT: Duration = Duration::from_secs(120);
/// The time after which a client gives a question up: then it asks the next.
const QUESTION_LIMIT: Duration = Duration::from_secs(1);

/// What a takeover did.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// All questions that were asked.
    pub asked: usize,
    /// What became of them.
    pub answers: Answers,
    /// How many could be under way in the gap.
    pub in_flight_max: usize,
    /// The longest silence of a probe beside them.
    pub gap: Duration,
}

/// A load of questions, the active killed in the middle. `questions` for each of eight clients. The servers are the
/// caller's to start.
pub fn round(stage: &mut Stage, questions: usize) -> Result<(Round, Violations)> {
    let active = stage.active()?;
    let servers = [(Translation::FullNat, Family::V4), (Translation::Nat, Family::V6)];
    let at = |(translation, family)| virtual_address(translation, family);
    let probed = SocketAddr::new(at(servers[0]), ECHO_PORT);
    let probe = Probe::start(&stage.world, probed, Duration::from_millis(1))?;
    let loads: Vec<Load> = servers
        .into_iter()
        .map(|server| Load::start(&stage.world, at(server), CLIENTS, questions))
        .collect::<Result<_>>()?;
    let asked = servers.len() * CLIENTS * questions;
    wait_until("a third of the questions", LIMIT, || {
        Ok(loads.iter().map(Load::done).sum::<usize>() > asked / 3)
    })?;
    stage.still_leads(active)?;
    stage.pair[active].kill()?;
    let done: usize = loads.iter().map(Load::done).sum();
    stage.pair[1 - active].wait_role(Role::Active, ROLES_LIMIT)?;

    let mut answers = Answers::default();
    for load in loads {
        let part = load.finish(LIMIT)?;
        answers.right += part.right;
        answers.unanswered += part.unanswered;
        answers.other += part.other;
    }
    let gap = probe.finish()?.largest_gap;
    // One under way for each client when the gap began, and one more for each that gave up within it.
    let rounds = 1 + (gap.as_millis() / QUESTION_LIMIT.as_millis()) as usize;
    let round = Round { asked, answers, in_flight_max: servers.len() * CLIENTS * rounds, gap };

    let mut violations = Violations::new();
    violations.require(done < asked, || "the questions ended before the kill".into());
    violations.require(answers.unanswered <= round.in_flight_max, || {
        format!(
            "{} questions were lost, and {} at most were under way",
            answers.unanswered, round.in_flight_max
        )
    });
    violations.require(answers.right + answers.unanswered == asked && answers.other == 0, || {
        format!("of {asked} questions: {answers:?}")
    });
    if violations.is_empty() {
        stage.revive(active)?;
    }
    Ok((round, violations))
}
