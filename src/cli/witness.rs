//! `baton witness`.

use core::sync::atomic::AtomicBool;
use std::sync::Arc;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::base::time::Duration;
use crate::cli::words::WitnessWords;
use crate::cli::{Failure, print};
use crate::driver::witness::{question, run};

pub fn witness(words: &WitnessWords) -> Result<(), Failure> {
    let failed = |error: &dyn core::fmt::Display| Failure::Failed(error.to_string());
    if let Some(at) = words.status {
        let status = question::ask(at, &words.key_file).map_err(|error| failed(&error))?;
        return if words.json {
            let json = serde_json::to_string_pretty(&status).map_err(|error| failed(&error))?;
            print(&format!("{json}\n"))
        } else {
            print(&status.to_string())
        };
    }
    // The definition of the words asks for one of the two.
    let Some(listen) = words.listen else {
        return Err(Failure::AskedWrongly("--listen or --status is missing".to_owned()));
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(|error| failed(&error))?;
    }
    let hold = Duration::from_millis(words.hold_ms.into());
    run(listen, &words.key_file, hold, &stop).map_err(|error| failed(&error))
}
