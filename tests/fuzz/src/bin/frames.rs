//! Bytes that a member may receive, to the parsers of them. By a fuzzer where built for one; else the files that are named are run.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| baton_fuzz::frames::run(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    baton_fuzz::replay_named(baton_fuzz::frames::run)
}
