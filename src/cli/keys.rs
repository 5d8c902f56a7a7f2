//! `baton keys`: the group's key file, changed step by step, and a node's own keys.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::cli::words::KeyWord;
use crate::cli::{Failure, print};
use crate::driver::secrets::{read_ring, read_secret};
use crate::seal::key::Key;
use crate::seal::keyring::{KeyRing, RingError};
use crate::seal::node::NodeKey;

pub fn keys(word: &KeyWord) -> Result<(), Failure> {
    match word {
        KeyWord::Show { file } => print(&shown(&ring(file)?)),
        KeyWord::Add { file } => {
            let key = Key::generate().map_err(|error| failed(file, &error))?;
            change(file, |ring| ring.add(key))
        }
        KeyWord::First { file, name } => {
            if ring(file)?.first().name() == *name {
                eprintln!("key {name} is the first one already: nothing has changed");
                return print(&shown(&ring(file)?));
            }
            change(file, |ring| ring.put_first(*name))
        }
        KeyWord::Drop { file } => change(file, KeyRing::drop_others),
        KeyWord::Generate { file } => {
            let key = NodeKey::generate().map_err(|error| failed(file, &error))?;
            write_new(file, &key.to_text())?;
            print(&format!("{}\n", key.public()))
        }
        KeyWord::Public { file } => {
            let text = read_secret(file).map_err(|error| Failure::AskedWrongly(error.to_string()))?;
            let key = NodeKey::parse(&text).map_err(|error| wrong(file, &error))?;
            print(&format!("{}\n", key.public()))
        }
    }
}

fn failed(path: &Path, why: &dyn core::fmt::Display) -> Failure {
    Failure::Failed(format!("{}: {why}", path.display()))
}

fn wrong(path: &Path, why: &dyn core::fmt::Display) -> Failure {
    Failure::AskedWrongly(format!("{}: {why}", path.display()))
}

fn ring(file: &Path) -> Result<KeyRing, Failure> {
    read_ring(file).map_err(|error| Failure::AskedWrongly(error.to_string()))
}

/// Names, and what each is for; nothing of the keys.
fn shown(ring: &KeyRing) -> String {
    let mut text = String::new();
    for (number, key) in ring.keys().iter().enumerate() {
        let what = if number == 0 { "proven to peers, and accepted" } else { "accepted" };
        text += &format!("{}  {what}\n", key.name());
    }
    text + &format!("{}  hashes of flows\n", ring.hashes().name())
}

/// Changes a key file as a whole or not at all, and shows it.
fn change(file: &Path, what: impl FnOnce(&mut KeyRing) -> Result<(), RingError>) -> Result<(), Failure> {
    let mut ring = ring(file)?;
    what(&mut ring).map_err(|error| wrong(file, &error))?;
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    write_new(&new, &ring.to_text())?;
    if let Err(error) = fs::rename(&new, file) {
        // What was not put in place is to be found nowhere.
        let _ = fs::remove_file(&new);
        return Err(failed(file, &error));
    }
    print(&shown(&ring))
}

/// Writes a file that only its owner can read. An existing one is left alone: replacing a key in use would part the members.
pub fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let open = || fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = open().and_then(|mut file| {
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.inspect_err(|_| drop(fs::remove_file(path)))
    });
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => failed(path, &"it exists already, and is left alone"),
        _ => failed(path, &error),
    })
}
