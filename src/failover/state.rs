//! What an appliance is, in one word for its operator: made of its role and of what goes with it, here and nowhere else.

use serde::{Deserialize, Serialize};

use super::role::Role;

/// What an appliance is, as its operator sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Started; has not yet found out who leads.
    #[default]
    Booting,
    /// A standby that lacks some of its leader's flows, or does not know whether it does.
    Synchronizing,
    /// A standby in its leader's in-sync set: it takes over without loss.
    Synchronized,
    /// A standby, or about to be one, that its operator took out of service.
    Maintenance,
    /// A standby, or about to be one, that gives way to another VRRP router.
    Yielding,
    /// Leads a term, and sends nothing before all its workers know.
    TakingOver,
    /// Serves, and a standby is in sync.
    Active,
    /// Serves, and no standby is in sync: if it fails, connections are lost.
    ActiveAlone,
    /// Hands over: still serves, while workers flush what the successor lacks.
    Quiescing,
    /// Hands over, or leaves: serves no more, and waits until all workers have stopped.
    Resigning,
    /// Led, and lost its lease: sends nothing until it knows that nobody else leads.
    Silenced,
    /// Has left the group for good.
    Left,
}

/// What goes with a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// It is in its leader's in-sync set.
    pub in_sync: bool,
    /// Somebody is in its own in-sync set.
    pub followed: bool,
    /// Its operator took it out of service.
    pub maintenance: bool,
    /// It gives way to another VRRP router.
    pub outranked: bool,
}

impl State {
    /// Every state.
    pub const ALL: [State; 12] = [
        State::Booting,
        State::Synchronizing,
        State::Synchronized,
        State::Maintenance,
        State::Yielding,
        State::TakingOver,
        State::Active,
        State::ActiveAlone,
        State::Quiescing,
        State::Resigning,
        State::Silenced,
        State::Left,
    ];

    /// The state of a role and what goes with it.
    pub const fn of(role: Role, facts: Facts) -> State {
        let Facts { in_sync, followed, maintenance, outranked } = facts;
        match (role, maintenance) {
            (Role::Booting | Role::Standby, true) => State::Maintenance,
            (Role::Booting | Role::Standby, false) if outranked => State::Yielding,
            (Role::Booting, false) => State::Booting,
            (Role::Standby, false) if in_sync => State::Synchronized,
            (Role::Standby, false) => State::Synchronizing,
            (Role::Installing, true | false) => State::TakingOver,
            (Role::Active, true | false) if followed => State::Active,
            (Role::Active, true | false) => State::ActiveAlone,
            (Role::Quiescing, true | false) => State::Quiescing,
            (Role::Resigning, true | false) => State::Resigning,
            (Role::Silenced, true | false) => State::Silenced,
            (Role::Left, true | false) => State::Left,
        }
    }

    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            State::Booting => "booting",
            State::Synchronizing => "synchronizing",
            State::Synchronized => "synchronized",
            State::Maintenance => "maintenance",
            State::Yielding => "yielding",
            State::TakingOver => "taking-over",
            State::Active => "active",
            State::ActiveAlone => "active-alone",
            State::Quiescing => "quiescing",
            State::Resigning => "resigning",
            State::Silenced => "silenced",
            State::Left => "left",
        }
    }

    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            State::Booting => "booting",
            State::Synchronizing => "standby (synchronizing)",
            State::Synchronized => "standby (synchronized)",
            State::Maintenance => "standby (under maintenance)",
            State::Yielding => "standby (gives way to another VRRP router)",
            State::TakingOver => "taking over",
            State::Active => "active",
            State::ActiveAlone => "active alone: no standby is in sync",
            State::Quiescing => "stepping down (quiescing)",
            State::Resigning => "stepping down (resigning)",
            State::Silenced => "silenced: it lost its lease",
            State::Left => "left",
        }
    }
}

impl core::fmt::Display for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each role the states when nothing goes with it, when it gives way, under maintenance, and when it both; in each of
    /// them for: neither in sync nor followed, followed, in sync, both.
    const TABLE: [(Role, [[&str; 4]; 4]); 8] = [
        (Role::Booting, [["booting"; 4], ["yielding"; 4], ["maintenance"; 4], ["maintenance"; 4]]),
        (
            Role::Standby,
            [
                ["synchronizing", "synchronizing", "synchronized", "synchronized"],
                ["yielding"; 4],
                ["maintenance"; 4],
                ["maintenance"; 4],
            ],
        ),
        (Role::Installing, [["taking-over"; 4]; 4]),
        (Role::Active, [["active-alone", "active", "active-alone", "active"]; 4]),
        (Role::Quiescing, [["quiescing"; 4]; 4]),
        (Role::Resigning, [["resigning"; 4]; 4]),
        (Role::Silenced, [["silenced"; 4]; 4]),
        (Role::Left, [["left"; 4]; 4]),
    ];

    #[test]
    fn every_role_with_all_that_may_go_with_it_is_the_state_of_the_table() {
        assert_eq!(TABLE.map(|(role, _)| role), Role::ALL);
        let mut seen = std::collections::BTreeSet::new();
        for (role, rows) in TABLE {
            for (kind, row) in rows.into_iter().enumerate() {
                for (number, expected) in row.into_iter().enumerate() {
                    let facts = Facts {
                        in_sync: number & 2 != 0,
                        followed: number & 1 != 0,
                        maintenance: kind & 2 != 0,
                        outranked: kind & 1 != 0,
                    };
                    assert_eq!(State::of(role, facts).name(), expected, "{role} with {facts:?}");
                    seen.insert(expected);
                }
            }
        }
        assert_eq!(seen.len(), State::ALL.len(), "a state that nothing leads to");
    }

    #[test]
    fn a_state_is_written_as_it_is_shown() {
        for state in State::ALL {
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
    }
}
