//! What two members prove to each other with: keys of the group's, or their own ones, which each has pinned of the other.
//!
//! A list of credentials is in an order: the first one is what this member begins handshakes with, and proves; all of them are
//! accepted. So whatever replaces another goes through three rungs, each at all members before the next: it is accepted too,
//! then it comes first, then the other one goes.
//!
//! A session lives on when the list changes, as long as the peer has proven one of those that are left: each beat has a
//! proof in it that its sender holds the key that it puts first, bound to the session, so that nobody can take it to another one.

use core::fmt;

use arrayvec::ArrayVec;
use ring::hkdf::{HKDF_SHA256, Salt};
use snow::{Builder, HandshakeState};

use super::key::{Key, KeyName, expand};
use super::keyring::KeyRing;
use super::node::{NodeKey, PublicKey};
use super::session::{Session, Side};
use crate::base::ids::NodeId;
use crate::base::limits::CREDENTIALS_MAX;

/// With a key of the group's: Noise NNpsk0.
const OF_GROUP: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";
/// With the nodes' own keys, known to each other: Noise KK.
const OF_NODES: &str = "Noise_KK_25519_AESGCM_SHA256";

/// One thing that two members prove themselves with.
#[derive(Clone)]
pub struct Credential {
    name: KeyName,
    /// What both know: the group's key, or what follows from the two nodes' own.
    shared: Key,
    pinned: Option<(NodeKey, PublicKey)>,
}

impl Credential {
    /// A key of the group's.
    pub fn of_group(key: &Key) -> Credential {
        Credential { name: key.name(), shared: key.clone(), pinned: None }
    }

    /// This node's own key, and the one that is pinned of the peer. `None`: that is no public key of anybody.
    pub fn of_nodes(own: &NodeKey, theirs: &PublicKey) -> Option<Credential> {
        let shared = own.agree(theirs)?;
        Some(Credential { name: shared.name(), shared, pinned: Some((own.clone(), *theirs)) })
    }

    /// Its name, the same on both sides.
    pub fn name(&self) -> KeyName {
        self.name
    }

    pub(super) fn noise(&self, initiator: NodeId, responder: NodeId, side: Side) -> Option<HandshakeState> {
        let mut prologue = *b"baton handshake 1 ....";
        prologue[18..20].copy_from_slice(&initiator.0.to_be_bytes());
        prologue[20..22].copy_from_slice(&responder.0.to_be_bytes());
        // It is only derived where it is used: strangers have this done.
        let psk;
        let builder = match &self.pinned {
            None => {
                psk = self.shared.handshake_psk();
                Builder::new(OF_GROUP.parse().ok()?).psk(0, &psk).ok()?
            }
            Some((own, theirs)) => Builder::new(OF_NODES.parse().ok()?)
                .local_private_key(own.private())
                .ok()?
                .remote_public_key(&theirs.0)
                .ok()?,
        };
        let builder = builder.prologue(&prologue).ok()?;
        match side {
            Side::Initiator => builder.build_initiator().ok(),
            Side::Responder => builder.build_responder().ok(),
        }
    }

    /// That `sender` holds it, in this session; never 0.
    pub fn proof(&self, session: &Session, sender: NodeId) -> u32 {
        let secret = Salt::new(HKDF_SHA256, &*session.binder()).extract(&*self.shared.derive("proof"));
        let proof = expand(&secret, &[b"baton proof", &sender.0.to_be_bytes()]);
        u32::from_be_bytes(*proof).max(1)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.name)
    }
}

/// What is accepted of a peer; the first one is what this member begins with.
#[derive(Clone, Debug)]
pub struct Credentials(ArrayVec<Credential, CREDENTIALS_MAX>);

impl Credentials {
    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Credential> {
        self.0.iter()
    }

    /// The one to begin with.
    pub fn first(&self) -> &Credential {
        &self.0[0]
    }

    /// Whether one of this name is accepted.
    pub fn accept(&self, name: KeyName) -> bool {
        self.iter().any(|credential| credential.name == name)
    }
}

impl From<&Key> for Credentials {
    fn from(key: &Key) -> Credentials {
        Credentials([Credential::of_group(key)].into_iter().collect())
    }
}

/// Where a group is on its way from the key file to pinned keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sealing {
    /// Pinned keys are accepted, and what is in the key file comes first.
    ReceiveOnly,
    /// Pinned keys come first, and what is in the key file is accepted.
    Permissive,
    /// Pinned keys alone are accepted.
    #[default]
    Enforce,
}

/// Why a key cannot be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinError {
    /// That of this node is nobody's.
    NobodysKey(NodeId),
    /// That of this node is the own one.
    OwnKey(NodeId),
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PinError::NobodysKey(node) => {
                write!(
                    f,
                    "the public key of node {node} is no key: `baton keys public` prints that of a node"
                )
            }
            PinError::OwnKey(node) => write!(
                f,
                "the public key of node {node} is the one of this node: `baton keys public` there prints its own"
            ),
        }
    }
}

impl core::error::Error for PinError {}

/// All that an appliance proves itself with, and what it accepts of its peers.
#[derive(Clone, Debug)]
pub struct Keys {
    ring: KeyRing,
    sealing: Sealing,
    pinned: Vec<(NodeId, Credential)>,
}

impl From<Key> for Keys {
    fn from(key: Key) -> Keys {
        Keys::from(KeyRing::from(key))
    }
}

impl From<KeyRing> for Keys {
    fn from(ring: KeyRing) -> Keys {
        Keys { ring, sealing: Sealing::default(), pinned: Vec::new() }
    }
}

impl Keys {
    /// The key file's, and pinned ones.
    pub fn pinned(
        ring: KeyRing,
        sealing: Sealing,
        own: &NodeKey,
        peers: &[(NodeId, PublicKey)],
    ) -> Result<Keys, PinError> {
        let pin = |(node, theirs): &(NodeId, PublicKey)| {
            if *theirs == own.public() {
                return Err(PinError::OwnKey(*node));
            }
            let credential = Credential::of_nodes(own, theirs).ok_or(PinError::NobodysKey(*node))?;
            Ok((*node, credential))
        };
        Ok(Keys { ring, sealing, pinned: peers.iter().map(pin).collect::<Result<_, _>>()? })
    }

    /// The key file's.
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// What is proven to a peer, and accepted of it.
    pub fn with(&self, peer: NodeId) -> Credentials {
        let group = self.ring.keys().iter().map(Credential::of_group);
        let own =
            self.pinned.iter().find(|(node, _)| *node == peer).map(|(_, credential)| credential.clone());
        Credentials(match (own, self.sealing) {
            (None, Sealing::ReceiveOnly | Sealing::Permissive | Sealing::Enforce) => group.collect(),
            (Some(own), Sealing::ReceiveOnly) => group.chain([own]).collect(),
            (Some(own), Sealing::Permissive) => [own].into_iter().chain(group).collect(),
            (Some(own), Sealing::Enforce) => [own].into_iter().collect(),
        })
    }

    /// Whether these are the same, in the same order, for the same peers.
    pub fn are_as(&self, others: &Keys) -> bool {
        fn names(keys: &Keys) -> impl Iterator<Item = KeyName> {
            keys.ring.keys().iter().map(Key::name)
        }
        fn pinned(keys: &Keys) -> impl Iterator<Item = (NodeId, KeyName)> {
            keys.pinned.iter().map(|(node, credential)| (*node, credential.name))
        }
        self.sealing == others.sealing && names(self).eq(names(others)) && pinned(self).eq(pinned(others))
    }

    /// In words, as the operator is told.
    pub fn sentence(&self) -> String {
        let names = |all: &[KeyName]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let group: Vec<KeyName> = self.ring.keys().iter().map(Key::name).collect();
        let of_group = match &group[..] {
            [first] => format!("key {first}"),
            [first, others @ ..] => format!("key {first} first, {} accepted too", names(others)),
            [] => String::new(),
        };
        let pinned: Vec<KeyName> = self.pinned.iter().map(|(_, credential)| credential.name).collect();
        match (&pinned[..], self.sealing) {
            ([], _) => of_group,
            (_, Sealing::ReceiveOnly) => format!("{of_group}; pinned keys accepted too: {}", names(&pinned)),
            (_, Sealing::Permissive) => {
                format!("pinned keys first: {}; {of_group}, accepted too", names(&pinned))
            }
            (_, Sealing::Enforce) => {
                format!("pinned keys alone: {}; for a witness {of_group}", names(&pinned))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::member::tests::member;

    const PEER: NodeId = NodeId(2);

    fn pinned(sealing: Sealing) -> Keys {
        let ring = KeyRing::from(Key::parse(&"0123456789abcdef".repeat(4)).unwrap());
        let (own, theirs) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
        Keys::pinned(ring, sealing, &own, &[(PEER, theirs.public())]).unwrap()
    }

    #[test]
    fn each_rung_accepts_what_the_rungs_beside_it_begin_with() {
        let pins = |sealing| -> Vec<bool> {
            pinned(sealing).with(PEER).iter().map(|credential| credential.pinned.is_some()).collect()
        };
        assert_eq!(pins(Sealing::ReceiveOnly), [false, true]);
        assert_eq!(pins(Sealing::Permissive), [true, false]);
        assert_eq!(pins(Sealing::Enforce), [true]);
        assert!(pinned(Sealing::Enforce).sentence().starts_with("pinned keys alone: "));
    }

    #[test]
    fn others_are_told_from_the_same_also_where_pinned_keys_alone_are_used() {
        let keys = pinned(Sealing::Enforce);
        assert!(keys.are_as(&keys.clone()));
        let mut others = keys.clone();
        others.ring.add(Key::generate().unwrap()).unwrap();
        assert!(!keys.are_as(&others), "a witness goes by the key file");
        let mut turned = others.clone();
        turned.ring.put_first(turned.ring.keys()[1].name()).unwrap();
        assert!(!turned.are_as(&others) && turned.sentence() != others.sentence());
        assert!(!keys.are_as(&Keys { sealing: Sealing::Permissive, ..keys.clone() }));
        assert!(!keys.are_as(&Keys { pinned: pinned(Sealing::Enforce).pinned, ..keys.clone() }));
    }

    #[test]
    fn a_proof_is_of_one_key_one_sender_and_one_session() {
        let session = |_| Session::agree_in_memory(member(1), member(2)).unwrap();
        let ((ours, theirs), (other, _)) = (session(0), session(1));
        let [one, two] =
            [Key::generate().unwrap(), Key::generate().unwrap()].map(|key| Credential::of_group(&key));
        let proof = one.proof(&ours, NodeId(1));
        assert_eq!(proof, one.proof(&theirs, NodeId(1)), "the same on both sides");
        for wrong in [two.proof(&ours, NodeId(1)), one.proof(&ours, NodeId(2)), one.proof(&other, NodeId(1))]
        {
            assert_ne!(wrong, proof);
        }
    }

    #[test]
    fn both_nodes_come_to_the_same_name() {
        let (a, b) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
        let (at_a, at_b) = (Credential::of_nodes(&a, &b.public()), Credential::of_nodes(&b, &a.public()));
        assert_eq!(at_a.unwrap().name(), at_b.unwrap().name());
        let nobody =
            Keys::pinned(KeyRing::generate().unwrap(), Sealing::Enforce, &a, &[(PEER, PublicKey([0; 32]))]);
        assert_eq!(nobody.unwrap_err(), PinError::NobodysKey(PEER));
        let own = Keys::pinned(KeyRing::generate().unwrap(), Sealing::Enforce, &a, &[(PEER, a.public())]);
        assert_eq!(own.unwrap_err(), PinError::OwnKey(PEER));
    }
}
