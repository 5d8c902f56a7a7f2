//! Every counter is counted somewhere: one that nothing raises tells the operator a lie.

use std::collections::BTreeSet;

use crate::source::{File, tokens};

/// Where counters are named.
const NAMED_IN: &str = "src/base/counters.rs";

/// Counters that no code outside tests names; `waiting` are those that are known to wait for their room. One that
/// waits no longer must leave that list.
pub fn never_counted(files: &[File], counters: &[String], waiting: &[&str]) -> Vec<String> {
    let test_files: BTreeSet<String> = files.iter().flat_map(test_modules).collect();
    let mut named = BTreeSet::new();
    for file in files.iter().filter(|file| file.path.starts_with("src/") && file.path.ends_with(".rs")) {
        if file.path != NAMED_IN && !test_files.contains(&file.path) {
            let tokens = tokens(&file.text).unwrap_or_default();
            named.extend(tokens.into_iter().filter(|token| !token.test).map(|token| token.text));
        }
    }
    let mut found = Vec::new();
    for counter in counters {
        match (named.contains(counter), waiting.contains(&counter.as_str())) {
            (false, false) => found.push(format!("{NAMED_IN}: nothing counts {counter}")),
            (true, true) => found.push(format!("{counter} is counted now: it waits no longer")),
            (true, false) | (false, true) => {}
        }
    }
    found
}

/// The files of modules that a file declares for tests only.
fn test_modules(file: &File) -> Vec<String> {
    if !file.path.starts_with("src/") || !file.path.ends_with(".rs") {
        return Vec::new();
    }
    let directory = match file.path.strip_suffix("/mod.rs").or(file.path.strip_suffix("/lib.rs")) {
        Some(directory) => directory,
        None => file.path.trim_end_matches(".rs"),
    };
    let tokens = tokens(&file.text).unwrap_or_default();
    tokens
        .windows(3)
        .filter(|of| of[0].test && of[0].text == "mod" && of[2].text == ";")
        .map(|of| format!("{directory}/{}.rs", of[1].text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn a_counter_that_only_tests_or_comments_name_is_found() {
        let counters = ["RxPackets".to_owned(), "TxPackets".to_owned()];
        let files = |text: &str| {
            vec![
                sample(NAMED_IN, "counters! { RxPackets => \"rx\", TxPackets => \"tx\", }"),
                sample("src/worker/mod.rs", text),
                sample("src/worker/cases.rs", "fn f() { Counter::TxPackets }"),
            ]
        };
        let both = "fn f(c: &Counters) { c.bump(Counter::RxPackets); c.bump(Counter::TxPackets) }";
        assert_eq!(never_counted(&files(both), &counters, &[]), Vec::<String>::new());
        let one = "// TxPackets\nfn f(c: &Counters) { c.bump(Counter::RxPackets) }\n\
                   #[cfg(test)]\nmod cases;\n#[cfg(test)]\nmod tests { fn g() { Counter::TxPackets } }";
        let found = never_counted(&files(one), &counters, &[]);
        assert!(found.len() == 1 && found[0].ends_with("nothing counts TxPackets"), "{found:?}");
        assert_eq!(never_counted(&files(one), &counters, &["TxPackets"]), Vec::<String>::new());
        assert_eq!(never_counted(&files(both), &counters, &["TxPackets"]).len(), 1, "it waits no longer");
    }
}
