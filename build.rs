//! Tells the program which revision it was built from, for `baton --version` and the log.

use std::process::Command;

fn main() {
    let described = Command::new("git").args(["describe", "--always", "--abbrev=10"]).output();
    let revision = match described {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(), // A source archive, or no git.
    };
    println!("cargo::rustc-env=BATON_REVISION={revision}");
    println!("cargo::rerun-if-changed=src");
}
