//! A node's own pair of keys (X25519, RFC 7748), of which peers pin the public one.

use core::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::Zeroizing;

use super::key::{KEY_LEN, Key, KeyError, NoEntropy, digits_of};

/// What begins the line of its file, so that it is not taken for a group's key.
const PRIVATE: &str = "private";

/// A node's own private key, and the public one that belongs to it.
#[derive(Clone)]
pub struct NodeKey {
    private: Zeroizing<[u8; KEY_LEN]>,
    public: PublicKey,
}

/// The public key of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; KEY_LEN]);

/// What is wrong with the text of a node key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKeyError {
    /// It does not begin as such a file does.
    NoNodeKey,
    /// What follows is no key.
    Key(KeyError),
}

impl fmt::Display for NodeKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeKeyError::NoNodeKey => {
                write!(
                    f,
                    "expected one line: {PRIVATE} and 64 hexadecimal digits, as `baton keys generate` writes it"
                )
            }
            NodeKeyError::Key(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for NodeKeyError {}

impl PublicKey {
    /// From 64 hexadecimal digits.
    #[cfg(test)]
    pub fn parse(text: &str) -> Result<PublicKey, KeyError> {
        Key::parse(text).map(|key| PublicKey(*key.bytes()))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl NodeKey {
    /// A new one, of the operating system's entropy.
    pub fn generate() -> Result<NodeKey, NoEntropy> {
        let mut private = Zeroizing::new([0; KEY_LEN]);
        SystemRandom::new().fill(&mut *private).map_err(|_| NoEntropy)?;
        Ok(NodeKey::of(private))
    }

    /// Parses a node key file.
    pub fn parse(text: &str) -> Result<NodeKey, NodeKeyError> {
        let digits = text.trim().strip_prefix(PRIVATE).ok_or(NodeKeyError::NoNodeKey)?;
        let key = Key::parse(digits).map_err(NodeKeyError::Key)?;
        Ok(NodeKey::of(Zeroizing::new(*key.bytes())))
    }

    fn of(private: Zeroizing<[u8; KEY_LEN]>) -> NodeKey {
        let public = curve(&private, |curve| {
            let mut public = [0; KEY_LEN];
            public.copy_from_slice(curve.pubkey());
            public
        });
        NodeKey { private, public: PublicKey(public) }
    }

    /// The text of its file. It is the secret itself: only ever write it to that file.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = digits_of(&self.private, "private ");
        text.push('\n');
        text
    }

    /// The public key, for peers to pin.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    pub(super) fn private(&self) -> &[u8; KEY_LEN] {
        &self.private
    }

    /// What this node and the holder of `theirs` alone know. `None`: that is no public key of anybody (RFC 7748 section 6.1).
    pub(super) fn agree(&self, theirs: &PublicKey) -> Option<Key> {
        let mut shared = Zeroizing::new([0; KEY_LEN]);
        curve(&self.private, |curve| curve.dh(&theirs.0, &mut *shared)).ok()?;
        (*shared != [0; KEY_LEN]).then(|| Key::from_bytes(*shared))
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey(hidden, {})", self.public)
    }
}

fn curve<T>(private: &[u8; KEY_LEN], work: impl FnOnce(&dyn snow::types::Dh) -> T) -> T {
    let mut curve = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("snow is built with X25519");
    curve.set(private);
    let result = work(curve.as_ref());
    curve.set(&[0; KEY_LEN]);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748 section 6.1.
    #[test]
    fn the_public_key_and_the_shared_secret_are_those_of_the_rfc() {
        let hex = |text: &str| PublicKey::parse(text).unwrap();
        let bob = "private 5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
        let bob = NodeKey::parse(bob).unwrap();
        assert_eq!(bob.public(), hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let alice = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(bob.agree(&alice).unwrap().bytes(), &shared.0);
    }

    #[test]
    fn its_file_is_no_groups_key_file_and_the_other_way_round() {
        let node = NodeKey::generate().unwrap();
        assert_eq!(NodeKey::parse(&node.to_text()).unwrap().public(), node.public());
        assert_eq!(NodeKey::parse(&Key::generate().unwrap().to_text()).unwrap_err(), NodeKeyError::NoNodeKey);
        assert!(Key::parse(&node.to_text()).is_err());
        assert_eq!(NodeKey::parse("private ab").unwrap_err(), NodeKeyError::Key(KeyError::Length(2)));
        assert!(!format!("{node:?}").contains(&node.to_text()[8..20]));
    }

    #[test]
    fn a_public_key_that_gives_everybody_the_same_secret_is_none() {
        assert!(NodeKey::generate().unwrap().agree(&PublicKey([0; 32])).is_none());
    }

    #[test]
    fn a_public_key_is_written_as_it_is_read() {
        let public = NodeKey::generate().unwrap().public();
        assert_eq!(PublicKey::parse(&public.to_string()), Ok(public));
    }
}
