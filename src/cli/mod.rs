//! The `baton` command: its words ([`words`]), and what each does. Help, man
//! pages and completions come from the one definition.
//!
//! Runs in the process's first thread. In: arguments. Out: an exit status: 0; 1:
//! it failed; 2: it was asked wrongly, a broken configuration file included.
//!
//! Not yet: `drain`, `enable`, `capture`, `top`.

mod files;
mod keys;
mod query;
mod run;
mod witness;
pub mod words;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::words::{Baton, Word};

/// Why a command did not succeed; the sentence goes to stderr.
#[derive(Debug)]
enum Failure {
    /// It was asked, and could not: exit status 1.
    Failed(String),
    /// It was asked wrongly: exit status 2.
    AskedWrongly(String),
}

/// Does what the arguments of this process ask.
pub fn main() -> ExitCode {
    // Wrong words end here with status 2, help with 0.
    let baton = Baton::parse();
    let default_level = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(default_level).format_timestamp_millis().init();
    let done = match baton.word {
        Word::Run { config } => run::run(&config),
        Word::Check { config } => files::check(&config),
        Word::Status(at) => query::status(&at),
        Word::Flows(flows) => query::flows(&flows),
        Word::Counters(at) => query::counters(&at),
        Word::Mirror(at) => query::mirror(&at),
        Word::Events(at) => query::events(&at),
        Word::Ports(at) => query::ports(&at),
        Word::Pools(at) => query::pools(&at),
        Word::Reload(at) => query::reload(&at),
        Word::Rebalance(what) => query::rebalance(&what),
        Word::Switchover(at) => query::switchover(&at),
        Word::Maintenance(what) => query::maintenance(&what),
        Word::Promote(at) => query::promote(&at),
        Word::Witness(words) => witness::witness(&words),
        Word::Keygen { file } => files::keygen(&file),
        Word::Keys { word } => keys::keys(&word),
        Word::Man { directory } => files::man(directory.as_deref()),
        Word::Completions { shell } => {
            clap_complete::generate(shell, &mut Baton::command(), "baton", &mut std::io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(why)) => {
            eprintln!("baton: {why}");
            ExitCode::from(1)
        }
        Err(Failure::AskedWrongly(why)) => {
            eprintln!("baton: {why}");
            ExitCode::from(2)
        }
    }
}

/// Prints to stdout. That nobody reads on (`baton flows | head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
