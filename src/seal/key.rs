//! The key that the members of a group share, and what is derived from it.

use core::fmt::{self, Write};

use ring::hkdf::{self, HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::base::ids::BootId;

/// Bytes of the group's key.
pub const KEY_LEN: usize = 32;

/// The group's key: 32 bytes, in a file as 64 hexadecimal digits on one line.
/// It is never shown and is wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; KEY_LEN]);

/// The name of a key, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct KeyName(pub u32);

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl KeyName {
    /// As it is shown.
    pub fn parse(text: &str) -> Option<KeyName> {
        let is_one = text.len() == 8 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_one.then(|| u32::from_str_radix(text, 16).ok()).flatten().map(KeyName)
    }
}

/// What is wrong with a key file's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Not 64 digits; so many characters were found on the first line.
    Length(usize),
    /// The character at this place (from 1) is not a hexadecimal digit.
    NotHex(usize),
    /// There is something after the first line.
    MoreLines,
    /// All bytes are the same: a placeholder, not a key.
    Placeholder,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Length(len) => {
                write!(f, "expected one line of 64 hexadecimal digits, found {len} characters")
            }
            KeyError::NotHex(at) => {
                write!(f, "expected a hexadecimal digit, found something else at character {at}")
            }
            KeyError::MoreLines => write!(f, "expected one line of 64 hexadecimal digits, found more lines"),
            KeyError::Placeholder => write!(f, "expected a random key, found one byte repeated"),
        }
    }
}

impl std::error::Error for KeyError {}

/// The operating system gave no entropy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

impl fmt::Display for NoEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the operating system gave no entropy")
    }
}

impl std::error::Error for NoEntropy {}

impl Key {
    /// Parses a key file: 64 hexadecimal digits on one line, white space around it allowed.
    pub fn parse(text: &str) -> Result<Key, KeyError> {
        let line = text.trim();
        if line.lines().count() > 1 {
            return Err(KeyError::MoreLines);
        }
        if let Some(at) = line.chars().position(|c| !c.is_ascii_hexdigit()) {
            return Err(KeyError::NotHex(at + 1));
        }
        if line.len() != 2 * KEY_LEN {
            return Err(KeyError::Length(line.len()));
        }
        let mut key = Key([0; KEY_LEN]);
        for (byte, digits) in key.0.iter_mut().zip(line.as_bytes().chunks_exact(2)) {
            *byte = digit(digits[0]) << 4 | digit(digits[1]);
        }
        if key.0.iter().all(|byte| *byte == key.0[0]) {
            return Err(KeyError::Placeholder);
        }
        Ok(key)
    }

    pub(super) fn from_bytes(bytes: [u8; KEY_LEN]) -> Key {
        Key(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// Its name: it tells keys apart, and nothing of the key.
    pub fn name(&self) -> KeyName {
        let derived = self.derive("name");
        KeyName(u32::from_be_bytes([derived[0], derived[1], derived[2], derived[3]]))
    }

    /// A new key, of the operating system's entropy.
    pub fn generate() -> Result<Key, NoEntropy> {
        let mut key = Key([0; KEY_LEN]);
        SystemRandom::new().fill(&mut key.0).map_err(|_| NoEntropy)?;
        Ok(key)
    }

    /// The text of its key file. It is the secret itself: only ever write it to that file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = digits_of(&self.0, "");
        text.push('\n');
        text
    }

    /// 64 bytes that every holder of the key derives alike, others for each label
    /// (HKDF-SHA256). So members agree on the keys of their hashes.
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; 64]> {
        let secret = Salt::new(HKDF_SHA256, b"baton group key").extract(&self.0);
        expand(&secret, &[b"baton derive ", label.as_bytes()])
    }

    /// The pre-shared key of the handshake: derived, so that the file's bytes
    /// themselves are used for nothing else.
    pub(super) fn handshake_psk(&self) -> Zeroizing<[u8; 32]> {
        let derived = self.derive("handshake");
        let mut psk = Zeroizing::new([0; 32]);
        psk.copy_from_slice(&derived[..32]);
        psk
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// So many bytes that follow from a secret and from what they are for (HKDF-SHA256, RFC 5869 section 2.3), wiped when dropped.
pub(super) fn expand<const N: usize>(secret: &hkdf::Prk, info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    const { assert!(N <= 255 * 32) };
    let mut out = Zeroizing::new([0; N]);
    secret
        .expand(info, Len(N))
        .and_then(|okm| okm.fill(&mut *out))
        .expect("it is within what HKDF-SHA256 gives");
    out
}

/// A secret's digits behind a word, in memory that is wiped and never grown, which would leave a copy.
pub(super) fn digits_of(secret: &[u8; KEY_LEN], word: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(word.len() + 2 * KEY_LEN + 1));
    text.push_str(word);
    for byte in secret {
        // A string takes all that is written to it.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn digit(hex: u8) -> u8 {
    match hex {
        b'0'..=b'9' => hex - b'0',
        b'a'..=b'f' => hex - b'a' + 10,
        b'A'..=b'F' => hex - b'A' + 10,
        _ => unreachable!("checked to be a hexadecimal digit"),
    }
}

/// A boot id of the operating system's entropy; never zero.
pub fn boot_id() -> Result<BootId, NoEntropy> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoEntropy)?;
    Ok(BootId(u64::from_ne_bytes(bytes).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F\n";

    #[test]
    fn a_key_file_is_64_digits_on_one_line() {
        let key = Key::parse(TEXT).unwrap();
        assert_eq!(*key.to_text(), TEXT.to_lowercase());
        assert_eq!(Key::parse("").unwrap_err(), KeyError::Length(0));
        assert_eq!(Key::parse("ab").unwrap_err(), KeyError::Length(2));
        assert_eq!(Key::parse(&TEXT.replace('a', "g")).unwrap_err(), KeyError::NotHex(22));
        assert_eq!(Key::parse(&format!("{TEXT}{TEXT}")).unwrap_err(), KeyError::MoreLines);
        assert_eq!(Key::parse(&"0".repeat(64)).unwrap_err(), KeyError::Placeholder);
        assert_eq!(Key::parse(&TEXT.replacen("00", "é", 1)).unwrap_err(), KeyError::NotHex(1));
    }

    #[test]
    fn derived_bytes_follow_from_key_and_label_alone() {
        let (a, b) = (Key::parse(TEXT).unwrap(), Key::generate().unwrap());
        assert_eq!(a.derive("toeplitz"), Key::parse(TEXT).unwrap().derive("toeplitz"));
        assert_ne!(a.derive("toeplitz"), a.derive("table"));
        assert_ne!(a.derive("toeplitz"), b.derive("toeplitz"));
    }

    #[test]
    fn a_key_is_never_shown() {
        assert_eq!(format!("{:?}", Key::parse(TEXT).unwrap()), "Key(hidden)");
    }

    #[test]
    fn boot_ids_differ_and_are_not_zero() {
        let (a, b) = (boot_id().unwrap(), boot_id().unwrap());
        assert!(a != b && a.0 != 0 && b.0 != 0);
    }
}
