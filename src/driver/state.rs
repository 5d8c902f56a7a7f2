//! What outlives a process, in `failover.state_dir`: up to which counter terms are
//! reserved (`term`), and how often the appliance was started (`boots`).
//!
//! Each file holds one decimal number on one line, and is replaced as a whole: written
//! beside, synchronized, renamed, the directory synchronized. [`TermWriter`] does it in a
//! thread of its own, so that no takeover waits for a disk.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

const TERM: &str = "term";
const BOOTS: &str = "boots";

/// After a write that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why the state cannot be used.
#[derive(Debug)]
pub enum StateError {
    /// A file or the directory cannot be read or written.
    Io(PathBuf, io::Error),
    /// A file holds something else than one number.
    Corrupt(PathBuf, String),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            StateError::Corrupt(path, text) => write!(
                f,
                "{}: holds {text:?}, one whole number is expected. If it is lost, write into it a number that is \
                 higher than every term that this group ever had (`baton status` on the peers shows theirs)",
                path.display()
            ),
        }
    }
}

impl core::error::Error for StateError {}

/// What earlier processes left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Terms up to this counter may have been used; 0 at the very first start.
    pub reserved: u64,
    /// Starts before this one; `None`: this is the first.
    pub boots: Option<u64>,
    /// This start was counted durably.
    pub counted: bool,
}

impl State {
    /// What `boots` is to hold from this start on.
    fn boots_now(&self) -> u64 {
        self.boots.unwrap_or(0).wrapping_add(1)
    }
}

/// Reads what earlier processes left, and counts this start. When that cannot be written, [`TermWriter`] goes on trying,
/// and reserves no term before: whatever follows from the count matters only to one that leads.
pub fn open(directory: &Path) -> Result<State, StateError> {
    fs::create_dir_all(directory).map_err(|error| StateError::Io(directory.to_owned(), error))?;
    let (reserved, boots) = (read(directory, TERM)?.unwrap_or(0), read(directory, BOOTS)?);
    let mut state = State { reserved, boots, counted: true };
    if let Err(error) = write(directory, BOOTS, state.boots_now()) {
        log::warn!("this start cannot be counted: {error}");
        state.counted = false;
    }
    Ok(state)
}

fn read(directory: &Path, name: &str) -> Result<Option<u64>, StateError> {
    let path = directory.join(name);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::Io(path, error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let number = text.strip_suffix('\n').and_then(|line| line.parse().ok());
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(StateError::Corrupt(path, text.chars().take(32).collect())),
    }
}

fn write(directory: &Path, name: &str, number: u64) -> Result<(), StateError> {
    let path = directory.join(name);
    let beside = directory.join(format!("{name}.new"));
    let written = || {
        let mut file = File::create(&beside)?;
        file.write_all(format!("{number}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(directory)?.sync_all()
    };
    written().map_err(|error| StateError::Io(path.clone(), error))
}

/// Reserves terms durably, in a thread of its own.
#[derive(Debug)]
pub struct TermWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    wanted: AtomicU64,
    reserved: AtomicU64,
    stop: AtomicBool,
}

impl TermWriter {
    /// Starts the thread, in the directory that `state` was read from.
    pub fn start(directory: &Path, state: &State) -> io::Result<TermWriter> {
        let (wanted, reserved) = (AtomicU64::new(state.reserved), AtomicU64::new(state.reserved));
        let uncounted = (!state.counted).then(|| state.boots_now());
        let shared = Arc::new(Shared { wanted, reserved, stop: AtomicBool::new(false) });
        let (theirs, directory) = (Arc::clone(&shared), directory.to_owned());
        let thread =
            thread::Builder::new().name("term".into()).spawn(move || theirs.run(&directory, uncounted))?;
        Ok(TermWriter { shared, thread: Some(thread) })
    }

    /// Asks for terms up to this counter. Does not wait.
    pub fn ask(&self, counter: u64) {
        self.shared.wanted.fetch_max(counter, Ordering::SeqCst);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Terms up to this counter are reserved.
    pub fn reserved(&self) -> u64 {
        self.shared.reserved.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn run(&self, directory: &Path, mut uncounted: Option<u64>) {
        let mut said = false;
        while !self.stop.load(Ordering::SeqCst) {
            let wanted = self.wanted.load(Ordering::SeqCst);
            if wanted <= self.reserved.load(Ordering::SeqCst) {
                thread::park();
                continue;
            }
            let counted = uncounted.map_or(Ok(()), |boots| write(directory, BOOTS, boots));
            match counted.and_then(|()| write(directory, TERM, wanted)) {
                Ok(()) => {
                    uncounted = None;
                    self.reserved.store(wanted, Ordering::SeqCst);
                    said = false;
                }
                Err(error) => {
                    if !said {
                        log::error!("terms cannot be reserved, so this appliance cannot take over: {error}");
                        said = true;
                    }
                    thread::park_timeout(RETRY_AFTER);
                }
            }
        }
    }
}

impl Drop for TermWriter {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It ends after at most one write; a panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path = std::env::temp_dir().join(format!("baton-state-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn reserve(directory: &Path, state: &State, counter: u64) {
        let writer = TermWriter::start(directory, state).unwrap();
        writer.ask(counter);
        while writer.reserved() < counter {
            thread::yield_now();
        }
    }

    #[test]
    fn starts_are_counted_and_reserved_terms_outlive_the_process() {
        let directory = Directory::new("count");
        let first = open(&directory.0).unwrap();
        assert_eq!(first, State { reserved: 0, boots: None, counted: true });
        reserve(&directory.0, &first, 64);
        let second = open(&directory.0).unwrap();
        assert_eq!(second, State { reserved: 64, boots: Some(1), counted: true });
        reserve(&directory.0, &second, 128);
        let third = open(&directory.0).unwrap();
        assert_eq!(third, State { reserved: 128, boots: Some(2), counted: true });
        let mut names: Vec<_> =
            fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, [BOOTS, TERM], "nothing is left beside");
    }

    /// As on a disk that is full or read-only, which a test as root cannot have without a mount.
    #[test]
    fn a_start_that_cannot_be_counted_goes_on_and_is_counted_before_a_term_is_reserved() {
        let directory = Directory::new("full");
        reserve(&directory.0, &open(&directory.0).unwrap(), 64);
        let in_the_way = |name: &str| directory.0.join(format!("{name}.new"));
        fs::create_dir(in_the_way(BOOTS)).unwrap();
        let state = open(&directory.0).unwrap();
        assert_eq!(state, State { reserved: 64, boots: Some(1), counted: false });
        assert_eq!(read(&directory.0, BOOTS).unwrap(), Some(1));

        let writer = TermWriter::start(&directory.0, &state).unwrap();
        writer.ask(128);
        thread::sleep(RETRY_AFTER / 4);
        assert_eq!((writer.reserved(), read(&directory.0, TERM).unwrap()), (64, Some(64)), "not before");
        fs::remove_dir(in_the_way(BOOTS)).unwrap();
        while writer.reserved() < 128 {
            thread::yield_now();
        }
        assert_eq!(read(&directory.0, BOOTS).unwrap(), Some(2));
        assert_eq!(read(&directory.0, TERM).unwrap(), Some(128));
    }

    #[test]
    fn a_corrupt_file_is_an_error_that_says_what_to_do() {
        let directory = Directory::new("corrupt");
        fs::create_dir_all(&directory.0).unwrap();
        for text in ["", "\n", "x", "64", "-1\n", "64\n65\n", "99999999999999999999\n", "\0\0\0\0\0\0\0\0"] {
            fs::write(directory.0.join(TERM), text).unwrap();
            let why = open(&directory.0).unwrap_err().to_string();
            assert!(why.contains("term: holds") && why.contains("higher than every term"), "{why}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let directory = Directory::new("file");
        fs::write(&directory.0, "in the way").unwrap();
        let why = open(&directory.0.join("below")).unwrap_err().to_string();
        assert!(why.contains("baton-state-file"), "{why}");
        fs::remove_file(&directory.0).unwrap();
    }
}
