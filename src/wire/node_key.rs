//! A node's public key as it stands in records, and the signatures made with the private one.

use libp2p_identity::{Keypair, PeerId, PublicKey};
use serde::{Deserialize, Serialize};

use super::MeshId;

/// An Ed25519 public key. A node's [`PeerId`] is this key with a fixed prefix, so either gives the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct NodeKey(pub(crate) [u8; 32]);

/// What a `PeerId` that holds an Ed25519 key starts with: identity multihash, 36 bytes, key type 1, 32 bytes.
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

pub(crate) const SIGNATURE: usize = 64;

impl NodeKey {
    /// The key in a peer id. `None` if that peer uses another kind of key, which no pombo node does.
    pub(crate) fn of(peer: &PeerId) -> Option<Self> {
        let bytes = peer.to_bytes();
        let key = bytes.strip_prefix(&PREFIX)?;
        key.try_into().ok().map(Self)
    }

    /// The peer id that holds this key.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        PeerId::from_bytes(&[PREFIX.as_slice(), &self.0].concat()).ok()
    }

    /// Whether `signature` is this key's over `signed`.
    pub(crate) fn verify(&self, purpose: Purpose, mesh: MeshId, signed: &[u8], signature: &[u8]) -> bool {
        libp2p_identity::ed25519::PublicKey::try_from_bytes(&self.0)
            .is_ok_and(|key| PublicKey::from(key).verify(&digest(purpose, mesh, signed), signature))
    }
}

/// What a signature is for, so that none can be passed off as another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Frame,
    RosterRecord,
    /// A letter, and whom it is for: so that others can deliver it for its sender.
    Letter,
    /// What became of a letter at a node: so that its sender learns it from others.
    Receipt,
}

impl Purpose {
    fn context(self) -> &'static str {
        match self {
            Self::Frame => "pombo frame v1",
            Self::RosterRecord => "pombo roster record v1",
            Self::Letter => "pombo letter v1",
            Self::Receipt => "pombo receipt v1",
        }
    }
}

/// What is signed: BLAKE3 in key-derivation mode over the mesh id and the bytes. A digest, because Ed25519 would hash a
/// long text three times with a slower hash.
pub(super) fn digest(purpose: Purpose, mesh: MeshId, signed: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(purpose.context());
    hasher.update(&mesh.0).update(signed);
    *hasher.finalize().as_bytes()
}

/// The private key could not sign. Ed25519 keys always can; this is for the other kinds that the type allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this key cannot sign: pombo needs an Ed25519 key")]
pub(crate) struct SignError;

/// Signs `signed`: 64 bytes.
pub(crate) fn sign(key: &Keypair, purpose: Purpose, mesh: MeshId, signed: &[u8]) -> Result<Vec<u8>, SignError> {
    match key.sign(&digest(purpose, mesh, signed)) {
        Ok(signature) if signature.len() == SIGNATURE => Ok(signature),
        Ok(_) | Err(_) => Err(SignError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> Keypair {
        Keypair::ed25519_from_bytes([seed; 32]).expect("a key")
    }

    #[test]
    fn key_and_peer_id_give_each_other() {
        let peer = key(1).public().to_peer_id();
        let key = NodeKey::of(&peer).expect("an Ed25519 key");
        assert_eq!(key.peer(), Some(peer));
        let hashed = [&[0x12, 0x20][..], &[7; 32]].concat();
        let other = PeerId::from_bytes(&hashed).expect("the id of a key that is too long to stand in it");
        assert_eq!(NodeKey::of(&other), None);
    }

    #[test]
    fn a_signature_holds_for_one_purpose_one_mesh_and_one_text() {
        let key = key(1);
        let node = NodeKey::of(&key.public().to_peer_id()).expect("an Ed25519 key");
        let (mesh, other) = (MeshId([1; 16]), MeshId([2; 16]));
        let signature = sign(&key, Purpose::Frame, mesh, b"text").expect("signed");
        assert!(node.verify(Purpose::Frame, mesh, b"text", &signature));
        assert!(!node.verify(Purpose::Frame, mesh, b"texT", &signature));
        assert!(!node.verify(Purpose::Frame, other, b"text", &signature));
        assert!(!node.verify(Purpose::RosterRecord, mesh, b"text", &signature));
        assert!(!node.verify(Purpose::Frame, mesh, b"text", &signature[..63]));
    }
}
