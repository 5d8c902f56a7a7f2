//! Names and the ids that follow from them.

use std::collections::HashMap;

use crate::base::ids::id_of_name;
use crate::config::report::{Place, Report};

/// Refuses a name that was given before, and one whose id another name has:
/// records name things by id, so two things with one id could be confused.
pub fn unique<'n>(names: impl Iterator<Item = (&'n Place, String)>, what: &str, report: &mut Report) {
    let mut seen: HashMap<u32, (String, usize)> = HashMap::new();
    for (place, name) in names {
        match seen.get(&id_of_name(&name)) {
            Some((earlier, line)) if *earlier == name => {
                report.refuse(place, format!("a {what} of its own: \"{name}\" is on line {line} already"));
            }
            Some((earlier, line)) => report.refuse(
                place,
                format!("another {what}: \"{name}\" has the same id as \"{earlier}\" on line {line}"),
            ),
            None => {
                seen.insert(id_of_name(&name), (name, place.line));
            }
        }
    }
}
