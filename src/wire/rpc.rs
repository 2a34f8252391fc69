//! What two connected nodes say to each other over request-response: calls, repair, the roster's protocol, inject.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError, Extension, Extensions};
use super::frame::{Channel, Stream, VERSION};
use super::node_key::NodeKey;
use super::roster::Stamp;
use crate::Headers;

/// A stream as it stands in these records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamRef {
    node: NodeKey,
    incarnation: u64,
    channel: Channel,
}

impl StreamRef {
    pub(crate) fn of(stream: &Stream) -> Option<Self> {
        let Stream { node, incarnation, channel } = *stream;
        Some(Self { node: NodeKey::of(&node)?, incarnation, channel })
    }

    pub(crate) fn stream(&self) -> Option<Stream> {
        let Self { node, incarnation, channel } = *self;
        Some(Stream { node: node.peer()?, incarnation, channel })
    }
}

/// How far a stream has come, as the sender of this record knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) stream: StreamRef,
    pub(crate) sequence: u64,
    pub(crate) count: u64,
}

/// A call of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// The asker's number for it, for a later [`Request::Cancel`].
    pub(crate) call: u64,
    pub(crate) service: String,
    /// How long the asker still waits, in milliseconds.
    pub(crate) timeout: u64,
    pub(crate) content_type: String,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
    pub(crate) extensions: Extensions,
}

/// How a call ended at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReplyStatus {
    /// The body is the answer.
    Ok,
    /// The handler answered with an error; the body is its text, in UTF-8.
    Refused,
    /// No room: it did not run.
    Busy,
    /// This node does not serve that: it did not run.
    NoService,
    /// It began, and ended without an answer.
    Unanswered,
    /// Reserved: the asker lacks the grant.
    Denied,
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) status: ReplyStatus,
    pub(crate) content_type: String,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
    pub(crate) extensions: Extensions,
}

/// A roster record as a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) node: NodeKey,
    pub(crate) stamp: Stamp,
}

/// What one side asks or tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Call a service. Answered by [`Response::Reply`].
    Call(Call),
    /// The asker of that call has gone. Answered by [`Response::Done`].
    Cancel { call: u64, extensions: Extensions },
    /// Take these frames as if they had come by gossip, and pass them on. Answered by [`Response::Injected`].
    Inject { frames: Vec<Bytes>, extensions: Extensions },
    /// Send me these frames of that stream. Answered by [`Response::Frames`].
    Repair { stream: StreamRef, from: u64, to: u64, extensions: Extensions },
    /// So far did I get the streams that you publish. Answered by [`Response::Done`].
    Acknowledge { positions: Vec<Position>, extensions: Extensions },
    /// So far do I know streams that you listen to. Answered by [`Response::Done`].
    Heads { positions: Vec<Position>, extensions: Extensions },
    /// These records are new here. Answered by [`Response::Done`].
    Push { records: Vec<Bytes>, extensions: Extensions },
    /// Compare rosters: a digest of each of 256 buckets. Answered by [`Response::Differ`].
    Digest { buckets: Vec<u64>, extensions: Extensions },
    /// Send me the records of these nodes. Answered by [`Response::Records`].
    Fetch { nodes: Vec<NodeKey>, extensions: Extensions },
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Response {
    Done {
        extensions: Extensions,
    },
    Reply(Reply),
    /// How many of the frames were taken, and how many other nodes listen to any of their topics.
    Injected {
        taken: u32,
        listeners: u32,
        extensions: Extensions,
    },
    /// Those of the frames asked for that are still held. Up to `floor` nothing is owed to the asker: it was not
    /// subscribed then. `more` says that the answer was cut to fit.
    Frames {
        frames: Vec<Bytes>,
        floor: u64,
        more: bool,
        extensions: Extensions,
    },
    /// What stands in the buckets that differ, on the side that answers.
    Differ {
        buckets: Vec<u8>,
        summaries: Vec<Summary>,
        extensions: Extensions,
    },
    Records {
        records: Vec<Bytes>,
        extensions: Extensions,
    },
}

impl Request {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, CodecError> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let request: Self = decode(bytes)?;
        check_extensions(match &request {
            Self::Call(call) => &call.extensions,
            Self::Cancel { extensions, .. }
            | Self::Inject { extensions, .. }
            | Self::Repair { extensions, .. }
            | Self::Acknowledge { extensions, .. }
            | Self::Heads { extensions, .. }
            | Self::Push { extensions, .. }
            | Self::Digest { extensions, .. }
            | Self::Fetch { extensions, .. } => extensions,
        })?;
        Ok(request)
    }
}

impl Response {
    /// The plain answer: heard, nothing to say.
    pub(crate) fn done() -> Self {
        Self::Done { extensions: Vec::new() }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, CodecError> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let response: Self = decode(bytes)?;
        check_extensions(match &response {
            Self::Reply(reply) => &reply.extensions,
            Self::Done { extensions }
            | Self::Injected { extensions, .. }
            | Self::Frames { extensions, .. }
            | Self::Differ { extensions, .. }
            | Self::Records { extensions, .. } => extensions,
        })?;
        Ok(response)
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![VERSION];
    codec::encode_into(value, &mut bytes)?;
    Ok(bytes)
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => codec::decode(rest),
        Some((version, _)) => Err(CodecError::Malformed(format!("version {version}, this side speaks {VERSION}"))),
        None => Err(CodecError::Malformed("no bytes".to_owned())),
    }
}

fn check_extensions(extensions: &[Extension]) -> Result<(), CodecError> {
    match codec::unknown_extension(extensions) {
        Some(tag) => Err(CodecError::Malformed(format!("extension {tag} has to be understood and is not"))),
        None => Ok(()),
    }
}
