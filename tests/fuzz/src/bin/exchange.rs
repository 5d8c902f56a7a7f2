//! Two sound mirrors, and a link that loses, repeats, delays and damages. By a fuzzer where built for one; else the files that are named are run.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| baton_fuzz::exchange::run(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    baton_fuzz::replay_named(baton_fuzz::exchange::run)
}
