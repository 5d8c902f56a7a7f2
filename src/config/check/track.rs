//! What counts for an appliance's health: `failover.track` and `failover.track_script`.

use crate::base::ids::PortId;
use crate::config::checked::{Hook, Track, TrackScript};
use crate::config::file::{FailoverFile, File, TrackScriptFile};
use crate::config::report::Report;

pub fn check(file: &File, failover: &FailoverFile, report: &mut Report) -> Option<Track> {
    let ports = ports(file, failover, report);
    let script = match failover.track_script.optional() {
        Some(None) => Some(None),
        Some(Some(script)) => self::script(script, report).map(Some),
        None => None,
    };
    Some(Track { ports: ports?, script: script?, hold: failover.track_hold_ms.get()?.millis() })
}

fn ports(file: &File, failover: &FailoverFile, report: &mut Report) -> Option<Vec<PortId>> {
    let before = report.errors.len();
    let known: Vec<Option<&str>> = file
        .port
        .get()?
        .iter()
        .map(|port| port.get().and_then(|port| Some(port.name.get()?.0.as_str())))
        .collect();
    let mirror = file.mirror.optional().flatten().and_then(|mirror| Some(mirror.port.get()?.0.as_str()));
    let mut tracked: Vec<PortId> = Vec::new();
    for (place, name) in failover.track.elements() {
        let name = name.0.as_str();
        match known.iter().position(|known| *known == Some(name)) {
            _ if mirror == Some(name) => report.refuse(
                place,
                "a port that clients or servers use: losing the mirror port is never a reason to hand over",
            ),
            Some(index) if tracked.contains(&PortId(index as u16)) => report.refuse(place, "each port once"),
            Some(index) => tracked.push(PortId(index as u16)),
            // With a port's name wrong, this may be the name that it was to have.
            None if known.iter().any(Option::is_none) => {}
            None => {
                let known: Vec<&str> = known.iter().copied().flatten().collect();
                report.refuse(place, format!("the name of a [[port]]: {}", known.join(", ")));
            }
        }
    }
    failover.track.all()?;
    (report.errors.len() == before).then_some(tracked)
}

fn script(script: &TrackScriptFile, report: &mut Report) -> Option<TrackScript> {
    let words = script.command.all()?;
    let Some(((place, program), arguments)) = words.split_first() else {
        report.refuse(&script.command.place, "the absolute path of a program, and its arguments");
        return None;
    };
    if !program.0.starts_with('/') {
        report.refuse(place, "the absolute path of a program: no shell is involved");
        return None;
    }
    Some(TrackScript {
        command: Hook {
            program: program.0.clone().into(),
            arguments: arguments.iter().map(|(_, argument)| argument.0.clone()).collect(),
            timeout: script.timeout_ms.get()?.millis(),
        },
        interval: script.interval_ms.get()?.millis(),
        rise: script.rise.get()?.u16(),
        fall: script.fall.get()?.u16(),
    })
}
