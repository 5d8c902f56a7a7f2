//! Rooms: who may use whom, and who may touch the outside.

use crate::source::{File, Token, tokens};

/// A room and those that it may use besides itself. The binding order of DESIGN; nothing else is allowed.
const ROOMS: [(&str, &[&str]); 14] = [
    ("base", &[]),
    ("config", &["base"]),
    ("wire", &["base"]),
    ("seal", &["base", "wire"]),
    ("flow", &["base", "config", "wire"]),
    ("distributor", &["base", "config", "wire", "seal", "flow"]),
    ("traffic", &["base", "config", "wire", "seal", "flow"]),
    ("mirror", &["base", "config", "wire", "seal", "flow"]),
    ("worker", &["base", "config", "wire", "seal", "flow", "distributor", "traffic", "mirror"]),
    ("failover", &["base", "config", "wire", "seal"]),
    (
        "master",
        &["base", "config", "wire", "seal", "flow", "distributor", "traffic", "mirror", "worker", "failover"],
    ),
    ("driver", ANYTHING),
    ("control", ANYTHING),
    ("cli", ANYTHING),
];

/// The rooms on top: they may use every room.
const ANYTHING: &[&str] = &[
    "base",
    "config",
    "wire",
    "seal",
    "flow",
    "distributor",
    "traffic",
    "mirror",
    "worker",
    "failover",
    "master",
    "driver",
    "control",
    "cli",
];

/// The rooms that touch the outside.
const OUTSIDE: [&str; 3] = ["driver", "control", "cli"];

/// The room that a path of the tree is in.
fn room(path: &str) -> Option<&str> {
    let (room, _) = path.strip_prefix("src/")?.split_once('/')?;
    Some(room)
}

/// Uses of a room by one that may not use it, and rooms that the table above does not know.
pub fn backward_dependencies(file: &File) -> Vec<String> {
    let Some(own) = room(&file.path) else { return Vec::new() };
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == own) else {
        return vec![format!("{}: room {own} is not in the table of rooms", file.path)];
    };
    let tokens = match tokens(&file.text) {
        Ok(tokens) => tokens,
        Err(error) => return vec![format!("{}: {error}", file.path)],
    };
    let is_room = |name: &str| ROOMS.iter().any(|(room, _)| *room == name);
    used_from_the_root(&tokens, module_depth(&file.path))
        .into_iter()
        .filter(|(name, _)| *name != own && is_room(name) && !allowed.contains(&name.as_str()))
        .map(|(name, line)| format!("{}:{line}: room {own} may not use room {name}", file.path))
        .collect()
}

/// How many modules deep a file is: `src/room/mod.rs` 1, `src/room/file.rs` 2.
fn module_depth(path: &str) -> usize {
    let parts = path.trim_start_matches("src/").split('/').count();
    if path.ends_with("/mod.rs") { parts - 1 } else { parts }
}

/// The names right below the crate's root that paths in these tokens lead to, by `crate`, `baton` or `super`.
fn used_from_the_root(tokens: &[Token], file_depth: usize) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    for at in 0..tokens.len() {
        let follows_path = at > 0 && text(at - 1) == "::";
        let mut next = match text(at) {
            "crate" | "baton" if text(at + 1) == "::" => at + 2,
            "super" if !follows_path => {
                let supers =
                    (0..).take_while(|n| text(at + 2 * n) == "super" && text(at + 2 * n + 1) == "::").count();
                if supers < file_depth + tokens[at].depth {
                    continue;
                }
                at + 2 * supers
            }
            _ => continue,
        };
        if text(next) != "{" {
            found.push((text(next).to_owned(), tokens[at].line));
            continue;
        }
        // `crate::{a::b, c}`: the first name of each part.
        let (mut nested, mut first) = (1, true);
        while nested > 0 && next + 1 < tokens.len() {
            next += 1;
            match text(next) {
                "{" => nested += 1,
                "}" => nested -= 1,
                "," if nested == 1 => first = true,
                name if nested == 1 && first => {
                    found.push((name.to_owned(), tokens[next].line));
                    first = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// Clocks, sockets, threads and files in the rooms that are pure state machines (their tests may).
pub fn outside_touched(file: &File) -> Vec<String> {
    let Some(own) = room(&file.path).filter(|room| !OUTSIDE.contains(room)) else { return Vec::new() };
    if file.path.contains("/tests/") {
        return Vec::new(); // A room's tests, in files of their own.
    }
    let tokens = tokens(&file.text).unwrap_or_default();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| !token.test) {
        let touched = match token.text.as_str() {
            "std" if text(at + 1) == "::" => {
                matches!(text(at + 2), "time" | "thread" | "fs" | "env" | "process" | "os")
            }
            "UdpSocket" | "TcpStream" | "TcpListener" | "UnixStream" | "UnixListener" | "Mutex"
            | "RwLock" => true,
            "disallowed_methods" => true,
            _ => false,
        };
        if touched {
            let name =
                if token.text == "std" { format!("std::{}", text(at + 2)) } else { token.text.clone() };
            found.push(format!("{}:{}: room {own} is pure and may not use {name}", file.path, token.line));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_dependency_that_points_back_is_found_however_it_is_written() {
        for text in [
            "use crate::worker::Worker;",
            "use crate::{base::ids::PortId, worker::Worker};",
            "use crate::{\n base::{ids, time},\n worker,\n};",
            "fn f(w: &crate::worker::Worker) {}",
            "use super::super::worker::Worker;",
            "mod tests { use super::super::super::worker::Worker; }",
            "macro_rules! m { () => { crate::worker::f() } }",
            "use baton::worker::Worker;",
        ] {
            let found = backward_dependencies(&sample("src/flow/table.rs", text));
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].ends_with("room flow may not use room worker"), "{found:?}");
        }
        assert_eq!(backward_dependencies(&sample("src/flow/mod.rs", "use super::worker::Worker;")).len(), 1);
    }

    #[test]
    fn what_only_looks_like_a_dependency_is_none() {
        for text in [
            "use crate::base::ids::WorkerId;",
            "use crate::flow::key::Key;",
            "// use crate::worker::Worker;",
            "//! See [`crate::worker`].",
            "const S: &str = \"crate::worker\";",
            "use super::worker::Kind;",
            "mod tests { use super::super::worker::Kind; }",
            "struct worker; fn f(worker: worker) {}",
        ] {
            assert_eq!(
                backward_dependencies(&sample("src/flow/table.rs", text)),
                Vec::<String>::new(),
                "{text}"
            );
        }
        assert_eq!(
            backward_dependencies(&sample("src/driver/mod.rs", "use crate::worker::W;")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn siblings_on_one_level_are_kept_apart() {
        for (path, text) in [
            ("src/mirror/mod.rs", "use crate::traffic::pool::Pool;"),
            ("src/traffic/mod.rs", "use crate::mirror::record::Record;"),
            ("src/failover/mod.rs", "use crate::mirror::record::Record;"),
            ("src/master/mod.rs", "use crate::driver::clock::Clock;"),
            ("src/base/mod.rs", "use crate::config::checked::Checked;"),
        ] {
            assert_eq!(backward_dependencies(&sample(path, text)).len(), 1, "{path}: {text}");
        }
        assert_eq!(backward_dependencies(&sample("src/attic/mod.rs", "")).len(), 1, "an unknown room");
    }

    #[test]
    fn a_room_of_the_table_uses_only_rooms_of_the_table_without_a_circle() {
        let allowed = |name: &str| ROOMS.iter().find(|(room, _)| *room == name).map(|(_, allowed)| *allowed);
        for (room, uses) in ROOMS.iter().filter(|(room, _)| !OUTSIDE.contains(room)) {
            for used in *uses {
                let back = allowed(used).expect("a known room");
                assert!(!back.contains(room), "{room} and {used} use each other");
            }
        }
    }

    #[test]
    fn a_pure_room_that_reads_the_clock_is_found_but_its_tests_may() {
        for text in
            ["use std::time::Instant;", "fn f() { std::thread::yield_now() }", "use std::net::UdpSocket;"]
        {
            assert_eq!(outside_touched(&sample("src/master/sweep.rs", text)).len(), 1, "{text}");
            assert_eq!(outside_touched(&sample("src/driver/clock.rs", text)).len(), 0, "{text}");
            let test = format!("#[cfg(test)]\nmod tests {{ {text} }}\nfn g() {{}}");
            assert_eq!(outside_touched(&sample("src/master/sweep.rs", &test)).len(), 0, "{test}");
            let after = format!("#[cfg(test)]\nmod tests;\n{text}");
            assert_eq!(outside_touched(&sample("src/master/sweep.rs", &after)).len(), 1, "{after}");
        }
    }
}
