//! The key file: the keys that members of a group share, in an order that says what each is for.
//!
//! ```text
//! # comments, and empty lines, are allowed
//! 64 hexadecimal digits          the first key: this member proves it to peers
//! 64 hexadecimal digits          further ones: they are accepted of peers
//! hashes 64 hexadecimal digits   what the hashes of flows are derived from; without it, the first key
//! ```
//!
//! So a key is changed while members run, each step at all of them before the next: the new one comes in as the last,
//! then it becomes the first, then the old one goes. The hashes stay: flows lie in shards by them.

use core::fmt;

use arrayvec::ArrayVec;

use zeroize::Zeroizing;

use super::key::{KEY_LEN, Key, KeyError, KeyName, NoEntropy};
use crate::base::limits::KEYS_MAX;

/// What begins the line that the hashes are derived from.
const HASHES: &str = "hashes";

/// Bytes of the longest text that is written.
const TEXT_MAX: usize = (KEYS_MAX + 1) * (2 * KEY_LEN + 1) + HASHES.len() + 1;

/// The keys of a group, the first of which seals.
#[derive(Clone, Debug)]
pub struct KeyRing {
    keys: ArrayVec<Key, KEYS_MAX>,
    hashes: Option<Key>,
}

/// What is wrong with a key file's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// This line is no key.
    Line(usize, KeyError),
    /// There is no key at all.
    Empty,
    /// This line is a key too many.
    TooMany(usize),
    /// This line says what another one does.
    Twice(usize),
    /// The last key is the only one.
    Alone,
    /// A second key is there already.
    Unfinished,
    /// It has no key of this name.
    Unknown(KeyName),
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RingError::Line(line, error) => write!(f, "line {line}: {error}"),
            RingError::Empty => write!(f, "expected a line of 64 hexadecimal digits, found none"),
            RingError::TooMany(line) => write!(f, "line {line}: expected at most {KEYS_MAX} keys"),
            RingError::Twice(line) => write!(f, "line {line}: expected each key once"),
            RingError::Alone => write!(f, "it holds one key only: first add another one"),
            RingError::Unfinished => {
                write!(
                    f,
                    "it holds two keys already: finish that change with `baton keys first` and `baton keys drop`"
                )
            }
            RingError::Unknown(name) => {
                write!(f, "it holds no key {name}: `baton keys show` has the names of those that it holds")
            }
        }
    }
}

impl core::error::Error for RingError {}

impl From<Key> for KeyRing {
    fn from(key: Key) -> KeyRing {
        KeyRing { keys: [key].into_iter().collect(), hashes: None }
    }
}

impl KeyRing {
    /// Of new keys, of the operating system's entropy.
    pub fn generate() -> Result<KeyRing, NoEntropy> {
        Ok(KeyRing { hashes: Some(Key::generate()?), ..KeyRing::from(Key::generate()?) })
    }

    /// Parses a key file.
    pub fn parse(text: &str) -> Result<KeyRing, RingError> {
        let mut ring = KeyRing { keys: ArrayVec::new(), hashes: None };
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (digits, is_of_hashes) = match line.strip_prefix(HASHES) {
                Some(digits) => (digits, true),
                None => (line, false),
            };
            let key = Key::parse(digits).map_err(|error| RingError::Line(number, error))?;
            if is_of_hashes {
                if ring.hashes.replace(key).is_some() {
                    return Err(RingError::Twice(number));
                }
            } else if ring.keys.iter().any(|known| known.name() == key.name()) {
                return Err(RingError::Twice(number));
            } else if ring.keys.try_push(key).is_err() {
                return Err(RingError::TooMany(number));
            }
        }
        if ring.keys.is_empty() { Err(RingError::Empty) } else { Ok(ring) }
    }

    /// The text of its key file. It is the secret itself: only ever write it to that file.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Never grown, which would leave a copy.
        let mut text = Zeroizing::new(String::with_capacity(TEXT_MAX));
        for key in &self.keys {
            text.push_str(&key.to_text());
        }
        if let Some(hashes) = &self.hashes {
            text.push_str(HASHES);
            text.push(' ');
            text.push_str(&hashes.to_text());
        }
        text
    }

    /// Its keys; the first one seals.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The one that seals.
    pub fn first(&self) -> &Key {
        &self.keys[0]
    }

    /// What the hashes of flows are derived from.
    pub fn hashes(&self) -> &Key {
        self.hashes.as_ref().unwrap_or(self.first())
    }

    /// Adds a key that opens. From now on the hashes are derived from what they were derived from before, whichever key is
    /// the first. Not while two are there: members who add a key each, and not one for all, would part.
    pub fn add(&mut self, key: Key) -> Result<(), RingError> {
        if self.keys.len() > 1 {
            return Err(RingError::Unfinished);
        }
        let hashes = self.hashes().clone();
        self.keys.try_push(key).map_err(|_| RingError::TooMany(KEYS_MAX + 1))?;
        self.hashes = Some(hashes);
        Ok(())
    }

    /// Has the key of this name seal; the others open. Changes nothing if it is the first already.
    pub fn put_first(&mut self, name: KeyName) -> Result<(), RingError> {
        let at = self.keys.iter().position(|key| key.name() == name).ok_or(RingError::Unknown(name))?;
        self.keys[..=at].rotate_right(1);
        Ok(())
    }

    /// Leaves the first key alone.
    pub fn drop_others(&mut self) -> Result<(), RingError> {
        if self.keys.len() < 2 {
            return Err(RingError::Alone);
        }
        self.keys.truncate(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(first: u8) -> String {
        (0..32u8).map(|n| format!("{:02x}", n ^ first)).chain(["\n".to_owned()]).collect()
    }

    #[test]
    fn a_key_is_changed_in_three_steps_and_the_hashes_stay() {
        let mut ring = KeyRing::parse(&text(7)).unwrap();
        let (old, new) = (ring.first().name(), Key::parse(&text(9)).unwrap());
        let hashes = ring.hashes().name();
        assert_eq!(
            (hashes, ring.drop_others(), ring.put_first(new.name())),
            (old, Err(RingError::Alone), Err(RingError::Unknown(new.name())))
        );
        ring.add(new.clone()).unwrap();
        assert_eq!(ring.add(Key::parse(&text(11)).unwrap()), Err(RingError::Unfinished));
        let names = |ring: &KeyRing| ring.keys().iter().map(Key::name).collect::<Vec<_>>();
        let read = KeyRing::parse(&ring.to_text()).unwrap();
        assert_eq!((names(&read), read.hashes().name()), (vec![old, new.name()], hashes));
        for _ in 0..2 {
            // A second time it changes nothing.
            ring.put_first(new.name()).unwrap();
            assert_eq!(names(&ring), [new.name(), old]);
        }
        ring.drop_others().unwrap();
        let read = KeyRing::parse(&ring.to_text()).unwrap();
        assert_eq!((names(&read), read.hashes().name()), (vec![new.name()], hashes));
    }

    #[test]
    fn a_broken_key_file_is_refused_by_line() {
        let refused = |text: &str| KeyRing::parse(text).unwrap_err();
        let good = text(1);
        assert_eq!(refused(""), RingError::Empty);
        assert_eq!(refused("# a comment\n"), RingError::Empty);
        assert_eq!(refused(&format!("{good}\nab\n")), RingError::Line(3, KeyError::Length(2)));
        assert_eq!(refused(&format!("{good}{good}")), RingError::Twice(2));
        assert_eq!(refused(&format!("{good}hashes {good}hashes {good}")), RingError::Twice(3));
        let many: String = (1..=1 + KEYS_MAX as u8).map(text).collect();
        assert_eq!(refused(&many), RingError::TooMany(1 + KEYS_MAX));
        assert_eq!(refused("hashes\n"), RingError::Line(1, KeyError::Length(0)));
        let why = refused(&format!("{good}{}", "0".repeat(64))).to_string();
        assert!(why.starts_with("line 2: ") && why.contains("one byte repeated"), "{why}");
    }

    #[test]
    fn a_generated_file_keeps_the_hashes_apart_from_the_keys() {
        let ring = KeyRing::generate().unwrap();
        assert_ne!(ring.hashes().name(), ring.first().name());
        assert_eq!(KeyRing::parse(&ring.to_text()).unwrap().hashes().name(), ring.hashes().name());
    }
}
