//! The words that read or write files: `check`, `keygen`, `man`. Other keys: [`super::keys`].

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::CommandFactory;

use crate::cli::keys::write_new;
use crate::cli::words::Baton;
use crate::cli::{Failure, print};
use crate::config::checked::{Checked, Forwarding};
use crate::config::{Warning, load_with_warnings, sentence};
use crate::driver::secrets::{SecretsError, read_keys};
use crate::seal::keyring::KeyRing;

/// A configuration file that was read.
pub struct Read {
    /// What it says.
    pub text: String,
    /// What that comes to.
    pub checked: Checked,
    /// What the operator should know of.
    pub warnings: Vec<Warning>,
}

/// Reads a configuration file; what is wrong with it is one sentence of several lines.
pub fn read_config(path: &Path) -> Result<Read, Failure> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| Failure::AskedWrongly(format!("{name}: {error}")))?;
    let (checked, warnings) =
        load_with_warnings(path, &text).map_err(|errors| Failure::AskedWrongly(sentence(&name, &errors)))?;
    Ok(Read { text, checked, warnings })
}

pub fn check(path: &Path) -> Result<(), Failure> {
    let Read { checked, warnings, .. } = read_config(path)?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    if let Some(mirror) = &checked.mirror {
        // The file may be checked on a machine that must not have the key.
        match read_keys(mirror) {
            Ok(_) => {}
            Err(why @ SecretsError::WrongPin(_)) => {
                return Err(Failure::AskedWrongly(format!("{}: {why}", path.display())));
            }
            Err(why) => eprintln!("warning: {why}"),
        }
    }
    if let Some(why) = notify_doubts(&checked) {
        eprintln!("warning: {why}");
    }
    print(&summary(path, &checked))
}

/// Why the command that is told of changes of role may not run, or may be someone else's. The file may be checked on a
/// machine that does not have it, and an appliance that forwards is worth more than its command: no error.
pub fn notify_doubts(checked: &Checked) -> Option<String> {
    let program = &checked.failover.notify.as_ref()?.program;
    let why = match fs::metadata(program) {
        Err(error) => error.to_string(),
        Ok(found) if !found.is_file() => "it is no file".to_owned(),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => "it is not executable".to_owned(),
        Ok(found) if found.permissions().mode() & 0o022 != 0 => {
            "others than its owner can write to it, and have it run as who runs baton".to_owned()
        }
        Ok(_) => return None,
    };
    Some(format!("the command of failover.notify, {}: {why}", program.display()))
}

fn summary(path: &Path, checked: &Checked) -> String {
    let servers: usize = checked.pools.iter().map(|pool| pool.servers.len()).sum();
    let peers = checked.mirror.as_ref().map_or(0, |mirror| mirror.peers.len());
    let mut text = format!(
        "{} is good: {} (node {}), workers: {}, ports: {}, routes: {}, pools: {} with servers: {servers}, \
         virtual servers: {}, peers: {peers}\n",
        path.display(),
        checked.appliance.name,
        checked.appliance.node,
        checked.lcores.workers.len(),
        checked.ports.len(),
        checked.routes.len(),
        checked.pools.len(),
        checked.virtual_servers.len(),
    );
    for server in &checked.virtual_servers {
        let at = core::net::SocketAddr::new(server.address, server.port);
        let pool = &checked.pools[server.pool].name;
        let forwarding = match server.forwarding {
            Forwarding::Nat => "nat",
            Forwarding::FullNat(_) => "full-nat",
        };
        let (name, protocol, mirror) = (&server.name, server.protocol, server.mirror);
        let rules = match server.rules.len() {
            0 => String::new(),
            count => format!(", rules: {count}"),
        };
        text += &format!("  {name} {at}/{protocol} -> {pool}, {forwarding}, mirror: {mirror}{rules}\n");
    }
    text
}

/// Writes new keys for a group to share.
pub fn keygen(path: &Path) -> Result<(), Failure> {
    let ring =
        KeyRing::generate().map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    write_new(path, &ring.to_text())
}

pub fn man(directory: Option<&Path>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(format!("the man page: {error}"));
    match directory {
        Some(directory) => clap_mangen::generate_to(Baton::command(), directory).map_err(failed),
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Baton::command()).render(&mut page).map_err(failed)?;
            print(&String::from_utf8_lossy(&page))
        }
    }
}
