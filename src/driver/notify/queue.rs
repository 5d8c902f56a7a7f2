//! What the command is run for next: the newest role. A command that is slow is never told what is no longer so.

use crate::base::ids::{GroupId, NodeId, Term};
use crate::driver::notify::change::Change;
use crate::failover::{Role, State};

/// At most one change waits; a newer one takes its place.
#[derive(Debug)]
pub struct Queue {
    waiting: Option<Change>,
    /// What the command was run for last.
    told: Role,
    /// The newest that came.
    newest: (Role, Term),
}

impl Default for Queue {
    fn default() -> Queue {
        Queue { waiting: None, told: Role::Booting, newest: (Role::Booting, Term::NONE) }
    }
}

/// What one run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it is told.
    pub change: Change,
    /// What the run before was told, which is the same role when what was in between is skipped.
    pub previous: Role,
}

impl Queue {
    /// Takes a change in; the one that is skipped for it.
    pub fn put(&mut self, change: Change) -> Option<Change> {
        self.newest = (change.role, change.term);
        self.waiting.replace(change)
    }

    /// A thread failed: if nothing has said that the appliance left, this does. As [`Queue::put`].
    pub fn put_failed(&mut self) -> Option<Change> {
        let (role, term) = self.newest;
        if role == Role::Left {
            return None;
        }
        self.put(Change { role: Role::Left, state: State::Left, term, reason: "failed" })
    }

    /// What is to be run now, if anything.
    pub fn take(&mut self) -> Option<Run> {
        let change = self.waiting.take()?;
        let previous = core::mem::replace(&mut self.told, change.role);
        Some(Run { change, previous })
    }
}

impl Run {
    /// What the command finds in its environment.
    pub fn environment(&self, node: NodeId, group: GroupId) -> [(&'static str, String); 7] {
        let Run { change: Change { role, state, term, reason }, previous } = self;
        [
            ("BATON_ROLE", role.to_string()),
            ("BATON_STATE", state.to_string()),
            ("BATON_PREVIOUS_ROLE", previous.to_string()),
            ("BATON_TERM", term.to_string()),
            ("BATON_REASON", (*reason).to_owned()),
            ("BATON_NODE", node.to_string()),
            ("BATON_GROUP", group.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(role: Role, counter: u64) -> Change {
        let term = Term { counter, node: NodeId(1) };
        Change { role, state: State::ActiveAlone, term, reason: "silence" }
    }

    #[test]
    fn changes_are_run_in_order_while_the_command_keeps_up() {
        let mut queue = Queue::default();
        assert_eq!(queue.take(), None);
        assert_eq!(queue.put(change(Role::Standby, 3)), None);
        assert_eq!(queue.take(), Some(Run { change: change(Role::Standby, 3), previous: Role::Booting }));
        assert_eq!(queue.put(change(Role::Active, 4)), None);
        assert_eq!(queue.take(), Some(Run { change: change(Role::Active, 4), previous: Role::Standby }));
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn of_what_came_while_the_command_ran_only_the_newest_is_run_and_what_is_skipped_is_said() {
        let mut queue = Queue::default();
        queue.put(change(Role::Active, 4));
        queue.take();
        assert_eq!(queue.put(change(Role::Silenced, 4)), None);
        assert_eq!(queue.put(change(Role::Standby, 5)), Some(change(Role::Silenced, 4)));
        assert_eq!(queue.put(change(Role::Active, 6)), Some(change(Role::Standby, 5)));
        // The same role as before, in another term: the command is run, since what it did may have to be done again.
        assert_eq!(queue.take(), Some(Run { change: change(Role::Active, 6), previous: Role::Active }));
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn a_failure_is_told_as_having_left_in_the_last_term() {
        let mut queue = Queue::default();
        queue.put(change(Role::Standby, 3));
        queue.take();
        queue.put(change(Role::Active, 4));
        assert_eq!(queue.put_failed(), Some(change(Role::Active, 4)));
        let run = queue.take().expect("it waits");
        assert_eq!(run.change.to_string(), "left (term 4.1, failed)");
        assert_eq!(run.previous, Role::Standby);
        assert_eq!((queue.put_failed(), queue.take()), (None, None), "it is said once");
    }

    #[test]
    fn a_run_has_all_in_its_environment() {
        let run = Run { change: change(Role::Active, 4), previous: Role::Standby };
        let told: Vec<String> = run
            .environment(NodeId(2), GroupId(0))
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let expected = [
            "BATON_ROLE=active",
            "BATON_STATE=active-alone",
            "BATON_PREVIOUS_ROLE=standby",
            "BATON_TERM=4.1",
            "BATON_REASON=silence",
            "BATON_NODE=2",
            "BATON_GROUP=0",
        ];
        assert_eq!(told, expected);
    }
}
