//! Keys and random numbers: from the group's key file, which members share, and from the
//! operating system.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::ids::BootId;
use crate::flow::toeplitz::{KEY_MIN, Toeplitz};
use crate::seal::key::{Key, KeyError, NoEntropy, boot_id};

/// Why there are no keys.
#[derive(Debug)]
pub enum SecretsError {
    /// The key file cannot be read.
    Unreadable(PathBuf, std::io::Error),
    /// Others than its owner can read the key file.
    Open(PathBuf, u32),
    /// The key file holds no key.
    NoKey(PathBuf, KeyError),
    /// The operating system gave no entropy.
    NoEntropy(NoEntropy),
}

impl fmt::Display for SecretsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretsError::Unreadable(path, error) => write!(f, "key file {}: {error}", path.display()),
            SecretsError::Open(path, mode) => write!(
                f,
                "key file {}: its mode is {mode:03o}, so others than its owner can use it: set it to 600",
                path.display()
            ),
            SecretsError::NoKey(path, error) => write!(f, "key file {}: {error}", path.display()),
            SecretsError::NoEntropy(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SecretsError {}

impl From<NoEntropy> for SecretsError {
    fn from(error: NoEntropy) -> SecretsError {
        SecretsError::NoEntropy(error)
    }
}

/// What an appliance must not share, or shares with its group alone.
pub struct Secrets {
    /// The group's key; without a group, one of this process alone.
    pub key: Key,
    /// The hash of shards, the same on every member.
    pub toeplitz: Arc<Toeplitz>,
    /// The secret by which servers are chosen, the same on every member.
    pub balance: [u8; 16],
    /// A digest of both, by which members see that they agree.
    pub hash_keys: u64,
    /// This start of the process.
    pub boot: BootId,
    /// Seed of the flow tables' own hash.
    pub hash_seed: u64,
    /// Seed of choices that anyone may guess.
    pub seed: u64,
}

impl Secrets {
    /// From the key file, or without one from the operating system alone.
    pub fn gather(key_file: Option<&Path>) -> Result<Secrets, SecretsError> {
        let key = key_file.map_or_else(|| Ok(Key::generate()?), read_key)?;
        let balance = *key.derive("balance").first_chunk().expect("64 bytes hold 16");
        let hash_keys = u64::from_be_bytes(*key.derive("hash keys").first_chunk().expect("64 bytes hold 8"));
        Ok(Secrets {
            toeplitz: Arc::new(toeplitz(&key)),
            balance,
            hash_keys,
            key,
            boot: boot_id()?,
            hash_seed: boot_id()?.0,
            seed: boot_id()?.0,
        })
    }
}

/// The key in a file that its owner alone can read.
pub fn read_key(path: &Path) -> Result<Key, SecretsError> {
    let unreadable = |error| SecretsError::Unreadable(path.to_owned(), error);
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretsError::Open(path.to_owned(), mode));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    Key::parse(&text).map_err(|error| SecretsError::NoKey(path.to_owned(), error))
}

/// The first derived key that every port number can be reached with. Members come to
/// the same one, since they try the same labels in the same order.
fn toeplitz(key: &Key) -> Toeplitz {
    let labels = core::iter::once(String::from("toeplitz")).chain((1u64..).map(|n| format!("toeplitz {n}")));
    labels
        .map(|label| Toeplitz::new(&key.derive(&label)[..KEY_MIN]))
        .find_map(Result::ok)
        .expect("nearly every third key is good")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key file's text. Keys of one byte repeated are refused as placeholders.
    fn key_text(first: u8) -> String {
        (0..32u8).map(|n| format!("{:02x}", n.wrapping_mul(7) ^ first)).collect()
    }

    /// A directory of its own for each test, gone at its end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path = std::env::temp_dir().join(format!("baton-secrets-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Directory(path)
        }

        fn key_file(&self, text: &str, mode: u32) -> PathBuf {
            let path = self.0.join("mirror.key");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn refused(path: &Path) -> String {
        Secrets::gather(Some(path)).err().unwrap().to_string()
    }

    #[test]
    fn members_with_one_key_file_agree_on_hashes_and_on_nothing_else() {
        let directory = Directory::new("agree");
        let path = directory.key_file(&key_text(0x5a), 0o600);
        let (a, b) = (Secrets::gather(Some(&path)).unwrap(), Secrets::gather(Some(&path)).unwrap());
        assert_eq!(a.toeplitz.key(), b.toeplitz.key());
        assert_eq!((a.balance, a.hash_keys), (b.balance, b.hash_keys));
        assert!(a.boot != b.boot && a.hash_seed != b.hash_seed && a.seed != b.seed);
        let alone = Secrets::gather(None).unwrap();
        assert!(alone.hash_keys != a.hash_keys && alone.toeplitz.key() != a.toeplitz.key());
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let directory = Directory::new("open");
        let path = directory.key_file(&key_text(0x5a), 0o640);
        let why = refused(&path);
        assert!(why.contains("its mode is 640") && why.contains("set it to 600"), "{why}");
    }

    #[test]
    fn a_key_file_that_is_missing_or_holds_no_key_is_named() {
        let directory = Directory::new("missing");
        let why = refused(&directory.0.join("mirror.key"));
        assert!(why.contains("mirror.key: No such file"), "{why}");
        let path = directory.key_file("hello", 0o600);
        assert!(refused(&path).contains("mirror.key: "), "{}", refused(&path));
    }

    #[test]
    fn a_shard_hash_is_found_for_every_key() {
        for byte in 0..=u8::MAX {
            let key = Key::parse(&key_text(byte)).unwrap();
            assert_eq!(toeplitz(&key).key().len(), KEY_MIN);
        }
    }
}
