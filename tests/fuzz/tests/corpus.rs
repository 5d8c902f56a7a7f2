//! Every input that the fuzzer was given or has found, once more: without a fuzzer, on any toolchain.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use baton::mirror::Variant;

fn corpus(name: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = fs::read_dir(&directory).expect("the corpus is there");
    let paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    assert!(paths.len() > 100, "{} inputs in {}", paths.len(), directory.display());
    paths
}

fn replay(name: &str, run: fn(&[u8])) {
    for path in corpus(name) {
        println!("{}", path.display());
        run(&fs::read(&path).expect("an input"));
    }
}

#[test]
fn parsers_take_every_input_of_the_corpus() {
    replay("frames", baton_fuzz::frames::run);
}

#[test]
fn mirrors_agree_after_every_exchange_of_the_corpus() {
    replay("exchange", baton_fuzz::exchange::run);
}

#[test]
fn a_mirror_outlives_every_hostile_peer_of_the_corpus() {
    replay("hostile", baton_fuzz::hostile::run);
}

#[test]
fn the_corpus_finds_out_mirrors_that_are_broken_on_purpose() {
    for variant in [Variant::AcknowledgedBeforeApplied, Variant::TombstoneDroppedEarly] {
        let finds = |path: &PathBuf| {
            let input = fs::read(path).expect("an input");
            catch_unwind(AssertUnwindSafe(|| baton_fuzz::exchange::run_as(&input, variant))).is_err()
        };
        assert!(corpus("exchange").iter().any(finds), "no input finds out {variant:?}");
    }
}
