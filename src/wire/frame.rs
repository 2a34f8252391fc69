//! Frames: what travels. A frame is a batch of messages of one node for one stream, built once, signed, immutable.
//!
//! ```text
//! version u8 | kind u8 | header | messages ... | signature, 64 bytes
//! ```
//!
//! The signature covers everything before it, and the mesh id. `docs/wire.md` has every byte.

use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::{Keypair, PeerId};
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError, Extensions};
use super::node_key::{self, NodeKey, Purpose, SIGNATURE, SignError};
use super::{MeshId, MessageId};
use crate::topic;

/// The version that all records of this build carry.
pub(crate) const VERSION: u8 = 1;

/// The most bytes of a frame, signature included. Gossipsub's own limit stands well above it: see `net::behaviour`.
pub(crate) const MAX_FRAME: usize = 60 * 1024;

/// How many shards a mesh has: gossipsub topics that the mesh's topics are spread over.
pub(crate) const SHARDS: u8 = 64;

/// The shard of a topic: a hash of its first token.
pub(crate) fn shard_of(topic: &str) -> u8 {
    let first = topic.split('.').next().unwrap_or(topic);
    blake3::hash(first.as_bytes()).as_bytes()[0] % SHARDS
}

/// What the frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Messages.
    Messages,
    /// No messages: repeats the stream's last sequence number and message count, so that a lost tail shows.
    Head,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Messages => 1,
            Self::Head => 2,
        }
    }
}

/// Where in a node's output sequence numbers run: a shard. Variant 1 is reserved for the key id of a sealed topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Channel {
    Shard(u8),
}

/// What sequence numbers run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Stream {
    pub(crate) node: PeerId,
    pub(crate) incarnation: u64,
    pub(crate) channel: Channel,
}

impl Stream {
    pub(crate) fn shard(&self) -> u8 {
        match self.channel {
            Channel::Shard(shard) => shard,
        }
    }
}

/// Which member of a group a message is for: the publisher's decision, written down so that there is only one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    pub(crate) group: String,
    pub(crate) member: NodeKey,
}

/// A frame's header as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) node: NodeKey,
    pub(crate) incarnation: u64,
    pub(crate) channel: Channel,
    /// Of frames, from 1. A head repeats the last one.
    pub(crate) sequence: u64,
    /// How many messages the stream has had, this frame's included. A gap between two frames is counted with it.
    pub(crate) count: u64,
    /// How many messages end in this frame (a fragmented one ends with its last fragment).
    pub(crate) messages: u32,
    /// When the frame was opened, in microseconds since 1970.
    pub(crate) time: u64,
    /// Rises when a refused frame is signed again, which gives it another gossip id.
    pub(crate) attempt: u8,
    /// The first half of every message id in the frame.
    pub(crate) start: [u8; 8],
    /// What the messages' counters are added to.
    pub(crate) counter: u64,
    pub(crate) topics: Vec<String>,
    pub(crate) content_types: Vec<String>,
    pub(crate) choices: Vec<Choice>,
    pub(crate) extensions: Extensions,
}

/// A piece of a message that is larger than a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fragment {
    pub(crate) index: u32,
    pub(crate) count: u32,
}

/// A message in a frame's body. The numbers are indices into the header's tables, or differences from its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry<'a> {
    pub(crate) topic: u32,
    pub(crate) content_type: u32,
    pub(crate) counter: u64,
    pub(crate) time: u64,
    pub(crate) fragment: Option<Fragment>,
    pub(crate) choices: Vec<u32>,
    #[serde(borrow)]
    pub(crate) headers: Vec<(&'a str, &'a str)>,
    pub(crate) extensions: Extensions,
    #[serde(with = "serde_bytes", borrow)]
    pub(crate) payload: &'a [u8],
}

/// Why bytes are no frame of this mesh.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FrameError {
    #[error("{0} bytes are too few or too many for a frame")]
    Length(usize),
    #[error("version {0} is not spoken here: this side speaks {VERSION}")]
    Version(u8),
    #[error("kind {0} is unknown")]
    Kind(u8),
    #[error("header: {0}")]
    Codec(#[from] CodecError),
    #[error("extension {0} has to be understood and is not")]
    Extension(u8),
    #[error("shard {0} does not exist")]
    Shard(u8),
    #[error("sequence {sequence} with {messages} messages of {count} makes no sense")]
    Numbers { sequence: u64, messages: u32, count: u64 },
    #[error("topic: {0}")]
    Topic(#[from] topic::NameError),
    #[error("its topics belong to other shards")]
    WrongShard,
    #[error("the signature is not its author's")]
    Signature,
}

/// A frame that was checked: its structure, its limits, its signature.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) kind: Kind,
    pub(crate) header: Header,
    pub(crate) stream: Stream,
    body: std::ops::Range<usize>,
}

impl Frame {
    /// Reads and checks a frame.
    pub(crate) fn open(mesh: MeshId, bytes: Bytes) -> Result<Self, FrameError> {
        if bytes.len() > MAX_FRAME || bytes.len() < 2 + SIGNATURE {
            return Err(FrameError::Length(bytes.len()));
        }
        if bytes[0] != VERSION {
            return Err(FrameError::Version(bytes[0]));
        }
        let kind = match bytes[1] {
            1 => Kind::Messages,
            2 => Kind::Head,
            other => return Err(FrameError::Kind(other)),
        };
        let end = bytes.len() - SIGNATURE;
        let (header, taken) = codec::decode_prefix::<Header>(&bytes[2..end])?;
        check_header(kind, &header)?;
        if !header.node.verify(Purpose::Frame, mesh, &bytes[..end], &bytes[end..]) {
            return Err(FrameError::Signature);
        }
        Self::assemble(kind, header, bytes, 2 + taken..end)
    }

    fn assemble(kind: Kind, header: Header, bytes: Bytes, body: std::ops::Range<usize>) -> Result<Self, FrameError> {
        let node = header.node.peer().ok_or(FrameError::Signature)?;
        let stream = Stream { node, incarnation: header.incarnation, channel: header.channel };
        Ok(Self { bytes, kind, header, stream, body })
    }

    /// The running message count before this frame.
    pub(crate) fn count_before(&self) -> u64 {
        self.header.count - u64::from(self.header.messages)
    }

    /// Its messages, in order. After an error there are no more.
    pub(crate) fn entries(&self) -> Entries<'_> {
        Entries { frame: self, rest: &self.bytes[self.body.clone()] }
    }

    /// A part of the frame's bytes, without copying them.
    pub(crate) fn slice(&self, part: &[u8]) -> Bytes {
        self.bytes.slice_ref(part)
    }

    /// The id of a message in this frame.
    pub(crate) fn message_id(&self, entry: &Entry<'_>) -> MessageId {
        MessageId { start: self.header.start, counter: self.header.counter.wrapping_add(entry.counter) }
    }
}

fn check_header(kind: Kind, header: &Header) -> Result<(), FrameError> {
    if let Some(tag) = codec::unknown_extension(&header.extensions) {
        return Err(FrameError::Extension(tag));
    }
    let Channel::Shard(shard) = header.channel;
    if shard >= SHARDS {
        return Err(FrameError::Shard(shard));
    }
    let Header { sequence, messages, count, .. } = *header;
    if sequence == 0 || u64::from(messages) > count || (kind == Kind::Head && messages > 0) {
        return Err(FrameError::Numbers { sequence, messages, count });
    }
    for name in &header.topics {
        topic::check_name(name)?;
        if shard_of(name) != shard {
            return Err(FrameError::WrongShard);
        }
    }
    Ok(())
}

/// Iterates over the messages of a frame.
pub(crate) struct Entries<'a> {
    frame: &'a Frame,
    rest: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let read = codec::decode_prefix::<Entry<'a>>(self.rest).and_then(|(entry, taken)| {
            self.rest = &self.rest[taken..];
            self.check(&entry)?;
            Ok(entry)
        });
        if read.is_err() {
            self.rest = &[];
        }
        Some(read)
    }
}

impl Entries<'_> {
    fn check(&self, entry: &Entry<'_>) -> Result<(), CodecError> {
        let header = &self.frame.header;
        let known = |index: u32, table: usize| usize::try_from(index).is_ok_and(|index| index < table);
        let whole = known(entry.topic, header.topics.len())
            && known(entry.content_type, header.content_types.len())
            && entry.choices.iter().all(|choice| known(*choice, header.choices.len()))
            && entry.fragment.is_none_or(|fragment| fragment.index < fragment.count);
        if !whole {
            return Err(CodecError::Malformed("a message points outside its frame's tables".to_owned()));
        }
        match codec::unknown_extension(&entry.extensions) {
            Some(tag) => Err(CodecError::Malformed(format!("extension {tag} has to be understood and is not"))),
            None => Ok(()),
        }
    }
}

/// What stands in a frame's header besides its tables, known when the frame is closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) stream: Stream,
    pub(crate) sequence: u64,
    pub(crate) count: u64,
    pub(crate) attempt: u8,
    pub(crate) start: [u8; 8],
}

/// A message on its way into a frame.
#[derive(Clone, Debug)]
pub(crate) struct Outbound<'a> {
    pub(crate) topic: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) headers: &'a crate::Headers,
    pub(crate) choices: &'a [Choice],
    pub(crate) counter: u64,
    pub(crate) time: u64,
    pub(crate) fragment: Option<Fragment>,
    pub(crate) payload: &'a [u8],
}

/// A frame that still takes messages.
#[derive(Debug, Default)]
pub(crate) struct FrameBuilder {
    topics: Vec<Arc<str>>,
    content_types: Vec<Arc<str>>,
    choices: Vec<Choice>,
    /// The bytes of the three tables, near enough.
    tables: usize,
    body: Vec<u8>,
    entries: u32,
    messages: u32,
    counter: u64,
    time: u64,
}

/// The header without its tables, its signature, and length prefixes: no frame has more.
const OVERHEAD: usize = 256;

impl FrameBuilder {
    /// The most payload that fits into one frame beside a topic, headers and choices of this size.
    pub(crate) fn room(beside: usize) -> usize {
        MAX_FRAME.saturating_sub(2 * OVERHEAD + beside)
    }

    /// The bytes that the frame would have if it were closed now, at most.
    pub(crate) fn len(&self) -> usize {
        OVERHEAD + self.tables + self.body.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// How many messages end in it.
    pub(crate) fn messages(&self) -> u32 {
        self.messages
    }

    /// Whether a message still fits. An empty frame takes any: callers split what is larger than [`room`](Self::room).
    pub(crate) fn fits(&self, message: &Outbound<'_>) -> bool {
        self.is_empty() || self.len() + cost(message) <= MAX_FRAME
    }

    /// Appends a message.
    pub(crate) fn push(&mut self, message: &Outbound<'_>) -> Result<(), CodecError> {
        if self.is_empty() {
            self.counter = message.counter;
            self.time = message.time;
        }
        let entry = Entry {
            topic: intern(&mut self.topics, message.topic, &mut self.tables),
            content_type: intern(&mut self.content_types, message.content_type, &mut self.tables),
            counter: message.counter.wrapping_sub(self.counter),
            time: message.time.saturating_sub(self.time),
            fragment: message.fragment,
            choices: message.choices.iter().map(|choice| self.intern_choice(choice)).collect(),
            headers: message.headers.iter().collect(),
            extensions: Vec::new(),
            payload: message.payload,
        };
        codec::encode_into(&entry, &mut self.body)?;
        self.entries += 1;
        self.messages += u32::from(message.fragment.is_none_or(|fragment| fragment.index + 1 == fragment.count));
        Ok(())
    }

    fn intern_choice(&mut self, choice: &Choice) -> u32 {
        let index = self.choices.iter().position(|known| known == choice).unwrap_or_else(|| {
            self.tables += choice.group.len() + 40;
            self.choices.push(choice.clone());
            self.choices.len() - 1
        });
        index_u32(index)
    }

    /// Closes the frame and signs it.
    pub(crate) fn sign(&self, place: Place, mesh: MeshId, key: &Keypair) -> Result<Frame, SignFrameError> {
        let header = self.header(place)?;
        seal(Kind::Messages, header, &self.body, mesh, key)
    }

    fn header(&self, place: Place) -> Result<Header, SignFrameError> {
        let owned = |table: &[Arc<str>]| table.iter().map(|text| text.to_string()).collect();
        Ok(Header {
            node: NodeKey::of(&place.stream.node).ok_or(SignError)?,
            incarnation: place.stream.incarnation,
            channel: place.stream.channel,
            sequence: place.sequence,
            count: place.count,
            messages: self.messages,
            time: self.time,
            attempt: place.attempt,
            start: place.start,
            counter: self.counter,
            topics: owned(&self.topics),
            content_types: owned(&self.content_types),
            choices: self.choices.clone(),
            extensions: Vec::new(),
        })
    }
}

/// A head: a frame without messages that repeats where a stream stands.
pub(crate) fn head(place: Place, time: u64, mesh: MeshId, key: &Keypair) -> Result<Frame, SignFrameError> {
    let builder = FrameBuilder { time, ..FrameBuilder::default() };
    seal(Kind::Head, builder.header(place)?, &[], mesh, key)
}

/// A frame could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignFrameError {
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

fn seal(kind: Kind, header: Header, body: &[u8], mesh: MeshId, key: &Keypair) -> Result<Frame, SignFrameError> {
    let mut bytes = Vec::with_capacity(2 * OVERHEAD + body.len());
    bytes.extend([VERSION, kind.byte()]);
    codec::encode_into(&header, &mut bytes)?;
    let start = bytes.len();
    bytes.extend(body);
    let end = bytes.len();
    let signature = node_key::sign(key, Purpose::Frame, mesh, &bytes)?;
    bytes.extend(signature);
    Ok(Frame::assemble(kind, header, bytes.into(), start..end)?)
}

/// The bytes that a message adds to a frame, at most: its parts, and varints around them.
fn cost(message: &Outbound<'_>) -> usize {
    let headers = message.headers.bytes() + 10 * message.headers.len();
    let choices: usize = message.choices.iter().map(|choice| choice.group.len() + 45).sum();
    message.payload.len() + message.topic.len() + message.content_type.len() + headers + choices + 64
}

fn intern(table: &mut Vec<Arc<str>>, text: &str, bytes: &mut usize) -> u32 {
    // From the end: what was used last is used again.
    let index = table.iter().rposition(|known| **known == *text).unwrap_or_else(|| {
        *bytes += text.len() + 3;
        table.push(text.into());
        table.len() - 1
    });
    index_u32(index)
}

/// Tables are bounded by the frame's 60 KiB, so an index always fits.
fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
