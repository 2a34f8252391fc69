//! Roster records: what a node says of itself. One writer, signed, passed on unchanged.

use bytes::Bytes;
use libp2p_identity::{Keypair, PeerId};
use serde::{Deserialize, Serialize};

use super::MeshId;
use super::codec::{self, CodecError, Extension, Extensions};
use super::frame::{MAX_TEXT, VERSION};
use super::guard::at_most;
use super::node_key::{self, NodeKey, Purpose, SIGNATURE, SignError};
use crate::topic::{self, NameError};

/// The most bytes of a roster record.
pub(crate) const MAX_RECORD: usize = 16 * 1024;

/// The longest name of a node, in bytes.
pub(crate) const MAX_NODE_NAME: usize = 64;

/// The most addresses in a record.
pub(crate) const MAX_ADDRESSES: usize = 64;

/// The most interests in a record.
pub(crate) const MAX_INTERESTS: usize = 1024;

/// The most services in a record.
pub(crate) const MAX_SERVICES: usize = 256;

/// The most durable subscriptions in a record.
pub(crate) const MAX_DURABLES: usize = 64;

/// The extension with a node's durable subscriptions. Whoever has any knows [`Offer`](super::rpc::Request::Offer).
const DURABLE: u8 = 131;

/// The extension of a node that keeps copies for others, without a value. It knows [`Keep`](super::rpc::Request::Keep).
const CUSTODIAN: u8 = 132;

const KIND: u8 = 3;

/// A subscription as others see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Interest {
    pub(crate) pattern: String,
    pub(crate) group: Option<String>,
}

/// A durable subscription as others see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Durable {
    pub(crate) name: String,
    pub(crate) pattern: String,
    /// How many letters its subscribers there take at once: 0 if it has none.
    pub(crate) window: u32,
}

impl Durable {
    /// As they stand in a record, if there are any.
    fn extension(durables: &[Self]) -> Result<Option<Extension>, CodecError> {
        if durables.is_empty() {
            return Ok(None);
        }
        let mut value = Vec::new();
        codec::encode_into(&durables, &mut value)?;
        Ok(Some(Extension { tag: DURABLE, value }))
    }
}

/// What a record says of a node's part in guaranteed delivery.
pub(crate) fn extensions(durables: &[Durable], custodian: bool) -> Result<Extensions, CodecError> {
    let custodian = custodian.then(|| Extension { tag: CUSTODIAN, value: Vec::new() });
    Ok(Durable::extension(durables)?.into_iter().chain(custodian).collect())
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RosterRecord {
    pub(crate) node: NodeKey,
    pub(crate) incarnation: u64,
    /// Rises with every change within an incarnation. The highest (incarnation, version) wins.
    pub(crate) version: u64,
    /// When it was written, in microseconds since 1970, by the writer's clock.
    pub(crate) time: u64,
    /// A tombstone: the node has left.
    pub(crate) left: bool,
    pub(crate) relay: bool,
    pub(crate) name: String,
    /// Multiaddresses in their binary form.
    #[serde(deserialize_with = "at_most::<MAX_ADDRESSES, _, _>")]
    pub(crate) addresses: Vec<multiaddr::Multiaddr>,
    #[serde(deserialize_with = "at_most::<MAX_INTERESTS, _, _>")]
    pub(crate) interests: Vec<Interest>,
    #[serde(deserialize_with = "at_most::<MAX_SERVICES, _, _>")]
    pub(crate) services: Vec<String>,
    #[serde(deserialize_with = "at_most::<{ codec::MAX_EXTENSIONS }, _, _>")]
    pub(crate) extensions: Extensions,
}

/// Why bytes are no roster record of this mesh.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("{0} bytes are too few or too many for a roster record")]
    Length(usize),
    #[error("version {0} is not spoken here: this side speaks {VERSION}")]
    Version(u8),
    #[error("kind {0} is no roster record")]
    Kind(u8),
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("the name of the node or of a group is too long, or has control characters")]
    Text,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("the signature is not its author's")]
    Signature,
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// A roster record that was checked, with the bytes that carry its signature.
#[derive(Clone, Debug)]
pub(crate) struct SignedRecord {
    pub(crate) bytes: Bytes,
    pub(crate) node: PeerId,
    pub(crate) record: RosterRecord,
}

impl SignedRecord {
    /// Reads and checks a record.
    pub(crate) fn open(mesh: MeshId, bytes: Bytes) -> Result<Self, RecordError> {
        let signed = Self::read(bytes)?;
        if signed.verifies(mesh) { Ok(signed) } else { Err(RecordError::Signature) }
    }

    /// Reads a record and checks everything but its signature.
    pub(crate) fn read(bytes: Bytes) -> Result<Self, RecordError> {
        if bytes.len() > MAX_RECORD || bytes.len() < 2 + SIGNATURE {
            return Err(RecordError::Length(bytes.len()));
        }
        if bytes[0] != VERSION {
            return Err(RecordError::Version(bytes[0]));
        }
        if bytes[1] != KIND {
            return Err(RecordError::Kind(bytes[1]));
        }
        let end = bytes.len() - SIGNATURE;
        let record: RosterRecord = codec::decode(&bytes[2..end])?;
        record.check()?;
        let node = record.node.peer().ok_or(RecordError::Signature)?;
        Ok(Self { bytes, node, record })
    }

    /// Whether the signature is its author's, for this mesh.
    pub(crate) fn verifies(&self, mesh: MeshId) -> bool {
        let (said, signature) = self.bytes.split_at(self.bytes.len() - SIGNATURE);
        self.record.node.verify(Purpose::RosterRecord, mesh, said, signature)
    }

    /// What decides which of two records of a node is newer.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { incarnation: self.record.incarnation, version: self.record.version }
    }
}

/// How new a record is. Ordered: a later start beats any version of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) incarnation: u64,
    pub(crate) version: u64,
}

impl RosterRecord {
    /// Checks, encodes and signs the record.
    pub(crate) fn sign(self, mesh: MeshId, key: &Keypair) -> Result<SignedRecord, RecordError> {
        self.check()?;
        let node = self.node.peer().ok_or(SignError)?;
        let mut bytes = vec![VERSION, KIND];
        codec::encode_into(&self, &mut bytes)?;
        // The reader's limits, lists among them, are in its decoder.
        codec::decode::<Self>(&bytes[2..])?;
        if bytes.len() + SIGNATURE > MAX_RECORD {
            return Err(RecordError::Length(bytes.len() + SIGNATURE));
        }
        let signature = node_key::sign(key, Purpose::RosterRecord, mesh, &bytes)?;
        bytes.extend(signature);
        Ok(SignedRecord { bytes: bytes.into(), node, record: self })
    }

    /// Its durable subscriptions.
    pub(crate) fn durables(&self) -> Result<Vec<Durable>, CodecError> {
        let extension = self.extensions.iter().find(|extension| extension.tag == DURABLE);
        let durables: Vec<Durable> =
            extension.map(|extension| codec::decode(&extension.value)).transpose()?.unwrap_or_default();
        if durables.len() > MAX_DURABLES {
            return Err(CodecError::malformed(format!("more than {MAX_DURABLES} durable subscriptions")));
        }
        Ok(durables)
    }

    /// Whether it keeps copies of guaranteed messages for others.
    pub(crate) fn is_custodian(&self) -> bool {
        self.extensions.iter().any(|extension| extension.tag == CUSTODIAN)
    }

    fn check(&self) -> Result<(), RecordError> {
        codec::check_extensions(&self.extensions)?;
        codec::check_numbers(&[self.incarnation, self.version, self.time])?;
        let mut groups = self.interests.iter().filter_map(|interest| interest.group.as_ref());
        if !is_node_name(&self.name) || !groups.all(|group| is_label(group, MAX_TEXT)) {
            return Err(RecordError::Text);
        }
        self.interests.iter().try_for_each(|interest| topic::check_pattern(&interest.pattern))?;
        self.services.iter().try_for_each(|service| topic::check_name(service))?;
        for Durable { name, pattern, .. } in self.durables()? {
            topic::check_name(&name)?;
            topic::check_pattern(&pattern)?;
        }
        Ok(())
    }
}

/// Whether a node may have that name.
pub(crate) fn is_node_name(name: &str) -> bool {
    is_label(name, MAX_NODE_NAME)
}

/// Labels end up on terminals, where control characters do harm.
fn is_label(text: &str, limit: usize) -> bool {
    text.len() <= limit && !text.chars().any(char::is_control)
}
