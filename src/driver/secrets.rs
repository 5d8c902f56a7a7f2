//! Keys and random numbers: from the group's key file, which members share, and from the
//! operating system.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::base::ids::BootId;
use crate::config::checked::{self, Mirror};
use crate::flow::toeplitz::{KEY_MIN, Toeplitz};
use crate::seal::credentials::{Keys, PinError, Sealing};
use crate::seal::key::{Key, NoEntropy, boot_id};
use crate::seal::keyring::{KeyRing, RingError};
use crate::seal::node::{NodeKey, NodeKeyError, PublicKey};

/// Why there are no keys.
#[derive(Debug)]
pub enum SecretsError {
    /// The key file cannot be read.
    Unreadable(PathBuf, std::io::Error),
    /// Others than its owner can read the key file.
    Open(PathBuf, u32),
    /// The key file holds no keys.
    NoKey(PathBuf, RingError),
    /// The node key file holds no key.
    NoNodeKey(PathBuf, NodeKeyError),
    /// A public key in the configuration cannot be pinned.
    WrongPin(PinError),
    /// The key file's hashes are not those by which flows lie in shards.
    OtherHashes(PathBuf),
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
            SecretsError::NoNodeKey(path, error) => write!(f, "node key file {}: {error}", path.display()),
            SecretsError::WrongPin(error) => error.fmt(f),
            SecretsError::OtherHashes(path) => write!(
                f,
                "key file {}: the hashes of flows would be derived from another key: `baton keys add`, `first` and `drop` keep them, \
                 in a line of its own",
                path.display()
            ),
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
    /// The group's keys; without a group, one of this process alone.
    pub keys: Keys,
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
    /// From the files of `[mirror]`, or without it from the operating system alone.
    pub fn gather(mirror: Option<&Mirror>) -> Result<Secrets, SecretsError> {
        let keys = match mirror {
            Some(mirror) => read_keys(mirror)?,
            None => Keys::from(Key::generate()?),
        };
        let hashes = keys.ring().hashes();
        let balance = *hashes.derive("balance").first_chunk().expect("64 bytes hold 16");
        Ok(Secrets {
            toeplitz: Arc::new(toeplitz(hashes)),
            balance,
            hash_keys: hash_keys(&keys),
            keys,
            boot: boot_id()?,
            hash_seed: boot_id()?.0,
            seed: boot_id()?.0,
        })
    }
}

/// A digest of what hashes are derived from.
fn hash_keys(keys: &Keys) -> u64 {
    u64::from_be_bytes(*keys.ring().hashes().derive("hash keys").first_chunk().expect("64 bytes hold 8"))
}

/// What an appliance proves itself with and accepts of its peers, from the files that `[mirror]` names.
pub fn read_keys(mirror: &Mirror) -> Result<Keys, SecretsError> {
    let ring = read_ring(&mirror.key_file)?;
    let Some(pinning) = &mirror.pinning else { return Ok(Keys::from(ring)) };
    let path = &pinning.node_key_file;
    let own =
        NodeKey::parse(&read_secret(path)?).map_err(|error| SecretsError::NoNodeKey(path.clone(), error))?;
    let sealing = match pinning.sealing {
        checked::Sealing::ReceiveOnly => Sealing::ReceiveOnly,
        checked::Sealing::Permissive => Sealing::Permissive,
        checked::Sealing::Enforce => Sealing::Enforce,
    };
    let peers: Vec<_> = pinning.peers.iter().map(|(node, public)| (*node, PublicKey(*public))).collect();
    Keys::pinned(ring, sealing, &own, &peers).map_err(SecretsError::WrongPin)
}

/// The same while the appliance runs: the hashes of flows have to stay.
pub fn read_other_keys(mirror: &Mirror, running: &Keys) -> Result<Keys, SecretsError> {
    let keys = read_keys(mirror)?;
    let stays = hash_keys(&keys) == hash_keys(running);
    if stays { Ok(keys) } else { Err(SecretsError::OtherHashes(mirror.key_file.clone())) }
}

/// The keys in a file that its owner alone can read.
pub fn read_ring(path: &Path) -> Result<KeyRing, SecretsError> {
    KeyRing::parse(&read_secret(path)?).map_err(|error| SecretsError::NoKey(path.to_owned(), error))
}

/// The text of a file that its owner alone can read.
pub fn read_secret(path: &Path) -> Result<Zeroizing<String>, SecretsError> {
    let unreadable = |error| SecretsError::Unreadable(path.to_owned(), error);
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretsError::Open(path.to_owned(), mode));
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(unreadable)
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
    use crate::base::ids::{NodeId, PortId};
    use crate::base::time::Duration;
    use crate::config::checked::Pinning;

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

    fn mirror(key_file: &Path) -> Mirror {
        Mirror {
            port: PortId(0),
            udp_port: 7300,
            peers: Vec::new(),
            key_file: key_file.to_owned(),
            pinning: None,
            hold_timeout: Duration::from_millis(200),
            walk_rate: 1000,
            only: Vec::new(),
            maintenance_every: None,
        }
    }

    fn gather(path: &Path) -> Result<Secrets, SecretsError> {
        Secrets::gather(Some(&mirror(path)))
    }

    fn refused(path: &Path) -> String {
        gather(path).err().unwrap().to_string()
    }

    #[test]
    fn members_with_one_key_file_agree_on_hashes_and_on_nothing_else() {
        let directory = Directory::new("agree");
        let path = directory.key_file(&key_text(0x5a), 0o600);
        let (a, b) = (gather(&path).unwrap(), gather(&path).unwrap());
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
    fn keys_change_while_the_hashes_stay_or_not_at_all() {
        let directory = Directory::new("change");
        let path = directory.key_file(&key_text(0x5a), 0o600);
        let (mirror, secrets) = (mirror(&path), gather(&path).unwrap());
        let read = || read_other_keys(&mirror, &secrets.keys);
        let mut ring = read().unwrap().ring().clone();
        ring.add(Key::parse(&key_text(0x77)).unwrap()).unwrap();
        let new = ring.keys()[1].name();
        for step in 0..2 {
            match step {
                0 => ring.put_first(new).unwrap(),
                _ => ring.drop_others().unwrap(),
            }
            directory.key_file(&ring.to_text(), 0o600);
            assert_eq!(read().unwrap().ring().first().name(), ring.first().name());
        }
        directory.key_file(&key_text(0x77), 0o600);
        let why = read().unwrap_err().to_string();
        assert!(why.contains("mirror.key: the hashes of flows would be derived from another key"), "{why}");
    }

    #[test]
    fn a_node_key_file_is_looked_at_like_the_key_file() {
        let directory = Directory::new("node");
        let path = directory.key_file(&key_text(0x5a), 0o600);
        let own = directory.0.join("node.key");
        let pinning = |public| {
            Some(Pinning {
                sealing: checked::Sealing::Enforce,
                node_key_file: own.clone(),
                peers: vec![(NodeId(2), public)],
            })
        };
        let theirs = NodeKey::generate().unwrap().public();
        let mirror = Mirror { pinning: pinning(theirs.0), ..mirror(&path) };
        let why = || read_keys(&mirror).unwrap_err().to_string();
        assert!(why().contains("node.key: No such file"), "{}", why());
        fs::write(&own, &*NodeKey::generate().unwrap().to_text()).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(why().contains("its mode is 644"), "{}", why());
        fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read_keys(&mirror).unwrap().sentence().starts_with("pinned keys alone: "));
        let nobody = Mirror { pinning: pinning([0; 32]), ..mirror.clone() };
        assert!(read_keys(&nobody).unwrap_err().to_string().contains("the public key of node 2 is no key"));
        fs::write(&own, key_text(1)).unwrap();
        assert!(why().contains("node key file") && why().contains("expected one line: private"), "{}", why());
    }

    #[test]
    fn a_shard_hash_is_found_for_every_key() {
        for byte in 0..=u8::MAX {
            let key = Key::parse(&key_text(byte)).unwrap();
            assert_eq!(toeplitz(&key).key().len(), KEY_MIN);
        }
    }
}
