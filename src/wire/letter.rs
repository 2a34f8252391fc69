//! Letters: guaranteed messages, each sealed by a digest that goes with it from its sender's disk to its reader.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::MessageId;
use super::codec::{self, CodecError};
use super::custody::End;
use super::node_key::NodeKey;
use crate::Headers;

pub(super) const DIGEST: usize = 32;

/// A guaranteed message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(crate) id: MessageId,
    pub(crate) topic: String,
    pub(crate) content_type: String,
    pub(crate) headers: Headers,
    /// When it was published, in microseconds since 1970, by its sender's clock.
    pub(crate) time: u64,
    /// From then on nobody starts work on it.
    pub(crate) expires: u64,
    pub(crate) payload: Bytes,
}

impl Letter {
    /// Its bytes behind their digest: BLAKE3, 32 bytes.
    pub(crate) fn seal(&self) -> Result<Bytes, CodecError> {
        let mut bytes = vec![0; DIGEST];
        codec::encode_into(self, &mut bytes)?;
        let digest = blake3::hash(&bytes[DIGEST..]);
        bytes[..DIGEST].copy_from_slice(digest.as_bytes());
        Ok(bytes.into())
    }

    /// Reads a letter and checks that it is as it was sealed.
    pub(crate) fn open(sealed: &[u8]) -> Result<Self, CodecError> {
        let (digest, letter) =
            sealed.split_first_chunk::<DIGEST>().ok_or_else(|| CodecError::malformed("a letter cut short"))?;
        if blake3::hash(letter) != *digest {
            return Err(CodecError::malformed("a letter that is not as it was sealed"));
        }
        let letter: Self = codec::decode(letter)?;
        codec::check_numbers(&[letter.time, letter.expires])?;
        crate::topic::check_name(&letter.topic).map_err(|error| CodecError::malformed(error.to_string()))?;
        if letter.headers.fit() { Ok(letter) } else { Err(CodecError::malformed("too many headers")) }
    }
}

/// What the digest of a sealed letter begins with: tells two letters of one id apart.
pub(crate) fn mark_of(sealed: &[u8]) -> u64 {
    sealed.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// What is written down of an accepted message beside the letter itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AcceptedRow {
    pub(crate) id: MessageId,
    pub(crate) topic: String,
    pub(crate) time: u64,
    pub(crate) expires: u64,
    /// The bytes of the sealed letter.
    pub(crate) bytes: u64,
    /// The recipients that are owed it. None: it is kept for the notices that tell of it.
    pub(crate) owed: Vec<OwedRow>,
}

/// A recipient that is owed a message, and the node that has stored it for that one since a time, if one has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwedRow {
    pub(crate) name: String,
    pub(crate) stored: Option<(NodeKey, u64)>,
    /// How often it was handed out by nodes that do not have it any more, and how many nodes those were.
    pub(crate) attempts: u32,
    pub(crate) lease: u32,
}

/// An accepted letter, with all its recipients: if the row beside it is lost, they are known from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LetterRow {
    pub(crate) sealed: Bytes,
    pub(crate) to: Vec<String>,
}

/// That a message was not delivered to a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NoticeRow {
    pub(crate) id: MessageId,
    pub(crate) topic: String,
    pub(crate) recipient: String,
    pub(crate) reason: ReasonRow,
    pub(crate) time: u64,
    pub(crate) expires: u64,
    /// The bytes of the sealed letter, which is kept as long as this.
    pub(crate) bytes: u64,
    /// How often it was offered, as far as was known then, and who had stored it when.
    pub(crate) offers: u32,
    pub(crate) stored: Option<(NodeKey, u64)>,
}

/// Why a message was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReasonRow {
    NeverReached,
    Stored,
    Refused,
    Damaged,
    Poison,
    InCustody,
}

/// The copies of a message at other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GivenRow {
    /// The nodes that may have one.
    pub(crate) at: Vec<NodeKey>,
    /// Recipients that are done with it, which not all of those nodes know, and where they were.
    pub(crate) closing: Vec<(String, Option<NodeKey>)>,
}

/// A message of another node that is kept here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptRow {
    /// As its sender has it. The recipients are those of which it is not known that they are done with it.
    pub(crate) message: AcceptedRow,
    pub(crate) from: NodeKey,
    pub(crate) rank: u8,
    pub(crate) signature: Bytes,
    pub(crate) over: Vec<OverRow>,
}

/// That a node was done with a message for a recipient, and has signed that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OverRow {
    pub(crate) name: String,
    pub(crate) at: NodeKey,
    pub(crate) end: End,
    pub(crate) receipt: Bytes,
}

/// A durable subscription of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DurableRow {
    pub(crate) pattern: String,
    /// When somebody held it last, as far as was written down.
    pub(crate) held: u64,
}

/// What is known of a letter that came for a durable subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReceivedRow {
    pub(crate) name: String,
    pub(crate) sender: NodeKey,
    pub(crate) id: MessageId,
    pub(crate) mark: u64,
    pub(crate) expires: u64,
    pub(crate) bytes: u64,
    /// How often it was handed out, here and before. What is handed out here for the first time is not written down.
    pub(crate) attempts: u32,
    pub(crate) lease: u32,
    pub(crate) standing: StandingRow,
    /// When that began.
    pub(crate) since: u64,
}

/// How a letter stands that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StandingRow {
    Stored,
    /// Its handler has acknowledged it: what is left of it is that.
    Processed,
    /// It was handed out as often as it may be: what is left of it is that.
    Poison,
    /// Its sender has it back.
    Withdrawn,
}

/// The last exchange with a sender after which something was forgotten that it had offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FloorRow {
    pub(crate) run: u64,
    pub(crate) count: u64,
    /// When that was.
    pub(crate) since: u64,
}

/// The value of a row.
pub(crate) trait Row: Serialize + DeserializeOwned {}

impl Row for AcceptedRow {}
impl Row for LetterRow {}
impl Row for NoticeRow {}
impl Row for DurableRow {}
impl Row for ReceivedRow {}
impl Row for FloorRow {}
impl Row for GivenRow {}
impl Row for KeptRow {}

/// A row's value, as it is stored.
pub(crate) fn write<T: Row>(row: &T) -> Result<Bytes, CodecError> {
    let mut bytes = Vec::new();
    codec::encode_into(row, &mut bytes)?;
    Ok(bytes.into())
}

/// Reads a row's value.
pub(crate) fn read<T: Row>(bytes: &[u8]) -> Result<T, CodecError> {
    codec::decode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> Letter {
        Letter {
            id: MessageId { start: [7; 8], counter: 1 },
            topic: "orders.eu".to_owned(),
            content_type: "text/plain".to_owned(),
            headers: [("tenant", "acme")].into_iter().collect(),
            time: 5,
            expires: 9,
            payload: Bytes::from_static(b"pigeons"),
        }
    }

    #[test]
    fn a_letter_reads_back_and_every_flipped_bit_shows() {
        let sealed = letter().seal().expect("sealed");
        assert_eq!(Letter::open(&sealed).expect("whole"), letter());
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Letter::open(&damaged).is_err(), "bit {bit}");
        }
        assert!(Letter::open(&sealed[..20]).is_err());
    }
}
