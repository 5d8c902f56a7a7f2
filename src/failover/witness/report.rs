//! How things are with a witness, for people.

use core::fmt;

use super::{News, WitnessStatus};

impl fmt::Display for WitnessStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "up          {} s, grants for {} ms", self.uptime_ms / 1000, self.hold_ms)?;
        if self.grants_in_ms > 0 {
            writeln!(f, "starting    grants nothing for {} ms yet", self.grants_in_ms)?;
        }
        for group in &self.groups {
            let holder = match group.holder {
                Some(node) => format!("node {node}, for {} ms yet", group.held_for_ms),
                None => "nobody".to_owned(),
            };
            writeln!(
                f,
                "group {:<6}granted to {holder}; newest term of a leader: {}",
                group.group, group.term
            )?;
            writeln!(f, "            grants: {}, refusals: {}", group.grants, group.refusals)?;
            for member in &group.members {
                writeln!(f, "  node {:<5}asked {} ms ago", member.node, member.heard_ago_ms)?;
            }
        }
        let counts = &self.counts;
        writeln!(
            f,
            "requests    {}: granted {}, refused {}, challenged {}; questions {}",
            counts.requests, counts.granted, counts.refused, counts.challenged, counts.questions
        )?;
        writeln!(
            f,
            "dropped     malformed {}, forged {}, replayed {}, without room {}; unanswered {}",
            counts.malformed, counts.forged, counts.replayed, counts.no_room, counts.unanswered
        )
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::Holds { group, node, term } => {
                write!(f, "group {group}: grants to node {node}, which knows term {term}")
            }
            News::Free { group, node } => {
                write!(f, "group {group}: node {node} gave back what it was granted")
            }
        }
    }
}
