//! The rules of this project as a test: each file of the tree is held against each of them.

// Tests walk the tree, and the tree is on a disk.
#![allow(clippy::disallowed_methods)]

mod counting;
mod rooms;
mod source;
mod words;

use baton::base::counters::Counter;
use source::File;

/// Counters whose room does not exist yet.
const COUNTERS_WAITING: &[&str] = &[];

/// A file of this text, for tests of the rules themselves.
#[cfg(test)]
fn sample(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned(), executable: false }
}

fn hold(rule: impl Fn(&File) -> Vec<String>) {
    let broken: Vec<String> = source::tree().iter().flat_map(rule).collect();
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn dependencies_between_rooms_point_one_way() {
    hold(rooms::backward_dependencies);
}

#[test]
fn rooms_below_the_driver_touch_nothing_outside() {
    hold(rooms::outside_touched);
}

#[test]
fn every_rust_file_is_rust() {
    hold(|file| match source::tokens(&file.text) {
        Err(error) if file.path.ends_with(".rs") => vec![format!("{}: {error}", file.path)],
        _ => Vec::new(),
    });
}

#[test]
fn unsafe_code_stays_in_its_place() {
    hold(words::misplaced_unsafe);
}

/// A jump of the wall clock changes nothing but what events are told to have happened at.
#[test]
fn the_time_of_day_is_read_for_events_alone() {
    hold(words::time_of_day);
    let read = sample("src/failover/lease.rs", "fn now() -> u64 { std::time::SystemTime::now() }");
    assert_eq!(words::time_of_day(&read).len(), 1);
}

#[test]
fn every_module_opens_with_its_purpose() {
    hold(words::without_purpose);
}

#[test]
fn no_rust_file_is_too_long() {
    hold(words::too_long);
}

#[test]
fn nothing_is_put_off_or_switched_off() {
    hold(words::put_off);
}

#[test]
fn the_project_speaks_of_itself_alone() {
    hold(words::foreign_words);
}

#[test]
fn scripts_stop_at_the_first_error() {
    hold(words::careless_script);
}

#[test]
fn every_counter_is_counted_somewhere() {
    let counters: Vec<String> = Counter::ALL.iter().map(|counter| format!("{counter:?}")).collect();
    let broken = counting::never_counted(&source::tree(), &counters, COUNTERS_WAITING);
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}
