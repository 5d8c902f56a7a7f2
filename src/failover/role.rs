//! The roles, and the table that says what happens in each of them.
//!
//! The table is the whole of the decisions; `drive` finds out which inputs hold
//! and does what a step says.

use serde::{Deserialize, Serialize};

/// What this appliance is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Started; has not yet found out who leads.
    Booting,
    /// Follows a leader, or waits to take over from it.
    Standby,
    /// Leads a new term, but its workers do not all know yet. It sends nothing.
    Installing,
    /// Leads and, under its lease, serves.
    Active,
    /// Still serves, while workers flush what the standby lacks.
    Quiescing,
    /// Serves no longer; waits until all workers stopped, then names its successor.
    Resigning,
    /// Led, but lost its lease: sends nothing until it knows that nobody else leads.
    Silenced,
    /// Has left the group for good; the process may exit.
    Left,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 8] = [
        Role::Booting,
        Role::Standby,
        Role::Installing,
        Role::Active,
        Role::Quiescing,
        Role::Resigning,
        Role::Silenced,
        Role::Left,
    ];

    /// Whether it claims its term: others in lower terms must not lead.
    pub const fn claims(self) -> bool {
        match self {
            Role::Installing | Role::Active | Role::Quiescing | Role::Resigning | Role::Silenced => true,
            Role::Booting | Role::Standby | Role::Left => false,
        }
    }

    /// Whether service packets may be sent, while the lease lasts.
    pub const fn serves(self) -> bool {
        match self {
            Role::Active | Role::Quiescing => true,
            Role::Booting
            | Role::Standby
            | Role::Installing
            | Role::Resigning
            | Role::Silenced
            | Role::Left => false,
        }
    }

    /// Its number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Role::Booting => 1,
            Role::Standby => 2,
            Role::Installing => 3,
            Role::Active => 4,
            Role::Quiescing => 5,
            Role::Resigning => 6,
            Role::Silenced => 7,
            Role::Left => 8,
        }
    }

    /// The reverse of [`Role::code`].
    pub fn of_code(code: u8) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.code() == code)
    }

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Booting => "booting",
            Role::Standby => "standby",
            Role::Installing => "installing",
            Role::Active => "active",
            Role::Quiescing => "quiescing",
            Role::Resigning => "resigning",
            Role::Silenced => "silenced",
            Role::Left => "left",
        }
    }
}

impl core::fmt::Display for Role {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Someone claims a term above the own one (or, while not claiming, at or above it).
    Leader,
    /// Someone claims a term below the own one.
    Rival,
    /// Nobody leads, and this appliance may lead best.
    Vacant,
    /// The operator says that nobody else leads.
    OperatorPromote,
    /// All workers installed the newest role.
    Installed,
    /// The lease ran out, or the own process stood still for longer than one.
    Lapsed,
    /// After a lapse: it is certain, or as certain as can be, that nobody else leads.
    Regained,
    /// The operator wants the standby to lead.
    OperatorSwitchover,
    /// The operator takes it out of service.
    Maintenance,
    /// Another VRRP router rules over the group's virtual router, and this appliance gives way.
    Outranked,
    /// The process is asked to end.
    Shutdown,
    /// All workers flushed what the successor lacked, or the wait for it is over.
    Flushed,
    /// The successor is not heard any more.
    SuccessorLost,
    /// Leaving: a successor leads, or the wait for it is over.
    Gone,
    /// A thread of the process failed: nothing is sent any more, and nobody may be waited for.
    Broken,
}

impl Input {
    /// Every input.
    pub const ALL: [Input; 15] = [
        Input::Leader,
        Input::Rival,
        Input::Vacant,
        Input::OperatorPromote,
        Input::Installed,
        Input::Lapsed,
        Input::Regained,
        Input::OperatorSwitchover,
        Input::Maintenance,
        Input::Outranked,
        Input::Shutdown,
        Input::Flushed,
        Input::SuccessorLost,
        Input::Gone,
        Input::Broken,
    ];
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Send nothing from now on, and follow the leader that was heard.
    Follow,
    /// Take a new term and install it.
    Lead,
    /// Take a lease and announce.
    Serve,
    /// Say that there is a rival, and announce again.
    Alarm,
    /// Send nothing until it is certain that nobody else leads.
    Silence,
    /// Install the old term again.
    Resume,
    /// Have workers flush what the successor lacks.
    Quiesce,
    /// Call the handover off and serve on.
    Abandon,
    /// Send nothing from now on, and have workers stop.
    Withdraw,
    /// Name the successor, and follow.
    Resign,
    /// Leave the group: the process may exit.
    Leave,
    /// Say no to the operator, with this reason.
    Refuse(&'static str),
}

/// The table.
pub const fn step(role: Role, input: Input) -> Step {
    use Input as I;
    use Role as R;
    use Step::*;
    match (role, input) {
        (R::Booting, I::Leader) => Follow,
        (R::Booting, I::Vacant | I::OperatorPromote) => Lead,
        (R::Booting, I::OperatorSwitchover) => Refuse("it is still booting and leads nothing"),
        (R::Booting, I::Shutdown | I::Broken) => Leave,
        // A booting appliance has no term yet: nothing is below it.
        (
            R::Booting,
            I::Rival
            | I::Installed
            | I::Lapsed
            | I::Regained
            | I::Maintenance
            | I::Outranked
            | I::Flushed
            | I::SuccessorLost
            | I::Gone,
        ) => Stay,

        (R::Standby, I::Leader) => Follow,
        (R::Standby, I::Vacant | I::OperatorPromote) => Lead,
        (R::Standby, I::OperatorSwitchover) => Refuse("it is standby: ask the active appliance"),
        (R::Standby, I::Shutdown | I::Gone | I::Broken) => Leave,
        // Lower terms are refused; they are counted where they are heard.
        (
            R::Standby,
            I::Rival
            | I::Installed
            | I::Lapsed
            | I::Regained
            | I::Maintenance
            | I::Outranked
            | I::Flushed
            | I::SuccessorLost,
        ) => Stay,

        (R::Installing, I::Leader) => Follow,
        (R::Installing, I::Rival) => Alarm,
        (R::Installing, I::Installed) => Serve,
        (R::Installing, I::Lapsed) => Silence,
        (R::Installing, I::Outranked | I::Shutdown) => Withdraw,
        (R::Installing, I::Broken) => Leave,
        (R::Installing, I::OperatorPromote) => Refuse("it leads already"),
        (R::Installing, I::OperatorSwitchover | I::Maintenance) => {
            Refuse("it is just taking over: try again")
        }
        (R::Installing, I::Vacant | I::Regained | I::Flushed | I::SuccessorLost | I::Gone) => Stay,

        (R::Active, I::Leader) => Follow,
        (R::Active, I::Rival) => Alarm,
        (R::Active, I::Lapsed) => Silence,
        (R::Active, I::OperatorSwitchover | I::Maintenance | I::Outranked | I::Shutdown) => Quiesce,
        (R::Active, I::Broken) => Leave,
        (R::Active, I::OperatorPromote) => Refuse("it leads already"),
        (R::Active, I::Vacant | I::Installed | I::Regained | I::Flushed | I::SuccessorLost | I::Gone) => Stay,

        (R::Quiescing, I::Leader) => Follow,
        (R::Quiescing, I::Rival) => Alarm,
        (R::Quiescing, I::Lapsed) => Silence,
        (R::Quiescing, I::Flushed) => Withdraw,
        (R::Quiescing, I::SuccessorLost) => Abandon,
        (R::Quiescing, I::Broken) => Leave,
        (R::Quiescing, I::OperatorPromote) => Refuse("it is handing over"),
        (R::Quiescing, I::OperatorSwitchover) => Refuse("it is handing over already"),
        (
            R::Quiescing,
            I::Maintenance | I::Outranked | I::Shutdown | I::Vacant | I::Installed | I::Regained | I::Gone,
        ) => Stay,

        (R::Resigning, I::Leader) => Follow,
        (R::Resigning, I::Installed) => Resign,
        (R::Resigning, I::Broken) => Leave,
        (R::Resigning, I::OperatorPromote) => Refuse("it is handing over"),
        (R::Resigning, I::OperatorSwitchover) => Refuse("it is handing over already"),
        (
            R::Resigning,
            I::Rival
            | I::Vacant
            | I::Lapsed
            | I::Regained
            | I::Maintenance
            | I::Outranked
            | I::Shutdown
            | I::Flushed
            | I::SuccessorLost
            | I::Gone,
        ) => Stay,

        (R::Silenced, I::Leader) => Follow,
        (R::Silenced, I::Rival) => Alarm,
        (R::Silenced, I::Regained) => Resume,
        (R::Silenced, I::Outranked | I::Shutdown) => Withdraw,
        (R::Silenced, I::Broken) => Leave,
        (R::Silenced, I::OperatorPromote) => Refuse("it is finding out whether someone else leads"),
        (R::Silenced, I::OperatorSwitchover | I::Maintenance) => {
            Refuse("it is finding out whether someone else leads")
        }
        (R::Silenced, I::Vacant | I::Installed | I::Lapsed | I::Flushed | I::SuccessorLost | I::Gone) => Stay,

        (R::Left, I::OperatorPromote | I::OperatorSwitchover | I::Maintenance) => {
            Refuse("it has left the group")
        }
        (
            R::Left,
            I::Leader
            | I::Rival
            | I::Vacant
            | I::Installed
            | I::Lapsed
            | I::Regained
            | I::Outranked
            | I::Shutdown
            | I::Flushed
            | I::SuccessorLost
            | I::Gone
            | I::Broken,
        ) => Stay,
    }
}
