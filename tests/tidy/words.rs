//! What must not stand in a file: unsafe code in the wrong place, things put off, words that do not belong.

use crate::source::{File, tokens};

/// Longest Rust file, in lines: what a reader finishes in one sitting.
const LINES_MAX: usize = 600;

/// Words put together here, so that this file does not hold them; lower case.
const FOREIGN_WORDS: &[&str] = &[
    concat!("cl", "aude"),
    concat!("anth", "ropic"),
    concat!("ope", "nai"),
    concat!("chat", "gpt"),
    concat!("co", "pilot"),
    concat!("ll", "m"),
    concat!("a", "i"),
    concat!("language ", "model"),
    concat!("artificial ", "intelligence"),
    concat!("developer ", "session"),
    concat!("issue", " #"),
    concat!("issues ", "show"),
    concat!("package ", "mirror"),
    concat!("/wo", "rk/"),
    concat!("/tm", "p/"),
];

/// Marks of work put off, as they stand in comments.
const PUT_OFF: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];

/// A Rust file that has grown too long.
pub fn too_long(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    if file.path.ends_with(".rs") && lines > LINES_MAX {
        return vec![format!("{}: {lines} lines, more than {LINES_MAX}: two subjects?", file.path)];
    }
    Vec::new()
}

/// A module's first file that does not open with its purpose.
pub fn without_purpose(file: &File) -> Vec<String> {
    let opens = ["/mod.rs", "/lib.rs", "/main.rs"].iter().any(|end| file.path.ends_with(end));
    if opens && !file.text.starts_with("//! ") {
        return vec![format!("{}: does not open with `//!` and its purpose", file.path)];
    }
    Vec::new()
}

/// Unsafe code, or leave for it, where it may not be.
pub fn misplaced_unsafe(file: &File) -> Vec<String> {
    let may = file.path.starts_with("dpdk-bindings/") || file.path.starts_with("src/base/memory/");
    if may || !file.path.ends_with(".rs") {
        return Vec::new();
    }
    let tokens = tokens(&file.text).unwrap_or_default();
    tokens
        .iter()
        .filter(|token| matches!(token.text.as_str(), "unsafe" | "unsafe_code"))
        .map(|token| {
            format!("{}:{}: unsafe belongs in dpdk-bindings and src/base/memory", file.path, token.line)
        })
        .collect()
}

/// The time of day, which jumps, read where it might decide something.
pub fn time_of_day(file: &File) -> Vec<String> {
    if !file.path.starts_with("src/") || !file.path.ends_with(".rs") || file.path == "src/driver/events.rs" {
        return Vec::new();
    }
    let tokens = tokens(&file.text).unwrap_or_default();
    let reads =
        |text: &str| ["SystemTime", "CLOCK_REALTIME", "gettimeofday", "clock_settime"].contains(&text);
    let found = tokens.iter().filter(|token| reads(&token.text));
    found
        .map(|token| format!("{}:{}: the time of day is read for events alone", file.path, token.line))
        .collect()
}

/// Tests switched off, macros that stand for missing code, marks of work put off.
pub fn put_off(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    if file.path.ends_with(".rs") {
        let tokens = tokens(&file.text).unwrap_or_default();
        let texts: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
        for (at, token) in tokens.iter().enumerate() {
            let what = match texts[at..] {
                ["todo" | "unimplemented", "!", ..] => "code that is not there yet",
                ["#", "[", "ignore", ..] => "a test switched off",
                _ => continue,
            };
            found.push(format!("{}:{}: {what}", file.path, token.line));
        }
    }
    for (line, mark) in lines_with(&file.text, PUT_OFF) {
        found.push(format!("{}:{line}: {mark}: do it, or say in words what is not done", file.path));
    }
    found
}

/// Words that do not belong in the project.
pub fn foreign_words(file: &File) -> Vec<String> {
    let text = file.text.to_lowercase();
    let found = lines_with(&text, FOREIGN_WORDS);
    found.map(|(line, word)| format!("{}:{line}: {word:?} does not belong here", file.path)).collect()
}

/// Lines that hold one of the words, as a word of its own.
fn lines_with<'a>(text: &'a str, words: &'a [&'a str]) -> impl Iterator<Item = (usize, &'a str)> {
    text.lines().enumerate().flat_map(move |(index, line)| {
        words.iter().filter(move |word| has_word(line, word)).map(move |word| (index + 1, *word))
    })
}

fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part_of_word);
        let after = line[at + word.len()..].chars().next().is_some_and(part_of_word);
        // A word that begins or ends with a mark, such as a path, has its edge there.
        (!before || !word.starts_with(part_of_word)) && (!after || !word.ends_with(part_of_word))
    })
}

/// Shell scripts that go on after an error, or that cannot be run.
pub fn careless_script(file: &File) -> Vec<String> {
    let first = file.text.lines().next().unwrap_or_default();
    if !first.starts_with("#!") || !(first.ends_with("bash") || first.ends_with("sh")) {
        return Vec::new();
    }
    let mut found = Vec::new();
    if !file.text.lines().any(|line| line == "set -euo pipefail") {
        found.push(format!("{}: no `set -euo pipefail`", file.path));
    }
    if !file.executable {
        found.push(format!("{}: not executable", file.path));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn the_line_after_the_last_allowed_one_is_too_many() {
        assert_eq!(too_long(&sample("src/a/b.rs", &"\n".repeat(LINES_MAX))).len(), 0);
        assert_eq!(too_long(&sample("dpdk-bindings/dpdk/src/b.rs", &"\n".repeat(LINES_MAX + 1))).len(), 1);
        assert_eq!(too_long(&sample("docs/long.md", &"\n".repeat(LINES_MAX + 1))).len(), 0);
    }

    #[test]
    fn a_module_opens_with_its_purpose() {
        assert_eq!(without_purpose(&sample("src/flow/mod.rs", "mod key;\n//! Flows.")).len(), 1);
        assert_eq!(without_purpose(&sample("src/flow/mod.rs", "//! Flows.\nmod key;")).len(), 0);
        assert_eq!(without_purpose(&sample("src/flow/key.rs", "struct Key;")).len(), 0);
    }

    #[test]
    fn unsafe_is_found_in_code_and_not_in_comments() {
        let code = "fn f() { unsafe { g() } }";
        assert_eq!(misplaced_unsafe(&sample("src/driver/mbuf.rs", code)).len(), 1);
        assert_eq!(misplaced_unsafe(&sample("tests/packets/main.rs", code)).len(), 1);
        assert_eq!(misplaced_unsafe(&sample("src/base/memory/slab.rs", code)).len(), 0);
        assert_eq!(misplaced_unsafe(&sample("dpdk-bindings/dpdk/src/ring.rs", code)).len(), 0);
        assert_eq!(
            misplaced_unsafe(&sample("src/flow/mod.rs", "// unsafe\nconst S: &str = \"unsafe\";")).len(),
            0
        );
        assert_eq!(misplaced_unsafe(&sample("src/flow/mod.rs", "#![allow(unsafe_code)]")).len(), 1);
    }

    #[test]
    fn what_is_put_off_is_found() {
        for text in [
            "fn f() { todo!() }",
            "fn f() { unimplemented!(\"\") }",
            "#[test]\n#[ignore = \"slow\"]\nfn f() {}",
        ] {
            assert_eq!(put_off(&sample("src/flow/mod.rs", text)).len(), 1, "{text}");
        }
        for mark in PUT_OFF {
            assert_eq!(put_off(&sample("scripts/x", &format!("# {mark}: later"))).len(), 1);
            assert_eq!(put_off(&sample("src/x.rs", &format!("struct {mark}S;"))).len(), 0, "part of a word");
        }
        assert_eq!(put_off(&sample("src/flow/mod.rs", "fn ignore() {} // ignore it")).len(), 0);
    }

    #[test]
    fn foreign_words_are_found_as_words_only() {
        for word in FOREIGN_WORDS {
            let text = format!("see {} here", word.to_uppercase());
            assert!(!foreign_words(&sample("docs/x.md", &text)).is_empty(), "{word}");
        }
        let innocent = "air, fail, main, llmnr, an issue of order, a session key, workers, the mirror link";
        assert_eq!(foreign_words(&sample("docs/x.md", innocent)), Vec::<String>::new());
    }

    #[test]
    fn a_script_stops_at_the_first_error_and_can_be_run() {
        let good = "#!/usr/bin/env bash\n# What it does.\nset -euo pipefail\n";
        let with = |text: &str, executable| File { executable, ..sample("scripts/x", text) };
        assert_eq!(careless_script(&with(good, true)), Vec::<String>::new());
        assert_eq!(careless_script(&with(good, false)).len(), 1);
        assert_eq!(careless_script(&with("#!/bin/sh\nset -e\n", true)).len(), 1);
        assert_eq!(careless_script(&with("# sourced\n", false)), Vec::<String>::new());
    }
}
