//! Frames: what travels. A frame is a batch of messages of one node for one stream, built once, signed, immutable.
//!
//! ```text
//! version u8 | kind u8 | header | messages ... | signature, 64 bytes
//! ```
//!
//! The signature covers everything before it, and the mesh id. `docs/wire.md` has every byte.

use std::ops::Range;

use bytes::Bytes;
use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

pub(crate) use super::builder::{FrameBuilder, Outbound, Place};
use super::codec::{self, CodecError, Extensions};
use super::guard::at_most;
use super::node_key::{NodeKey, Purpose, SIGNATURE};
use super::{MeshId, MessageId};
use crate::{Headers, topic};

/// The version that all records of this build carry.
pub(crate) const VERSION: u8 = 1;

/// The most bytes of a frame, signature included. Gossipsub's own limit stands well above it: see `net::behaviour`.
pub(crate) const MAX_FRAME: usize = 60 * 1024;

/// The most topics that the messages of a frame may have, and the most choices that they may share.
pub(crate) const MAX_TABLE: usize = 1024;

/// The most content types in a frame.
pub(crate) const MAX_CONTENT_TYPES: usize = 64;

/// The longest content type and the longest name of a group, in bytes.
pub(crate) const MAX_TEXT: usize = topic::MAX_NAME;

/// The most choices of one message. Members of the groups beyond it decide by hash, as where no choice stands.
pub(crate) const MAX_CHOICES: usize = 64;

/// The most fragments of one message.
pub(crate) const MAX_FRAGMENTS: u32 = 1024;

/// What a frame takes in memory beside its bytes, about: its decoded header and the tables that it stands in. What counts
/// frames by their bytes adds it, since a frame may hold a single short message.
pub(crate) const FRAME_OVERHEAD: usize = 512;

/// How many shards a mesh has: gossipsub topics that the mesh's topics are spread over.
pub(crate) const SHARDS: u8 = 64;

/// The gossip topic of a shard.
pub(crate) fn gossip_topic(mesh: MeshId, shard: u8) -> String {
    format!("pombo/{mesh}/{shard}")
}

/// What gossip knows a frame by: a hash of its gossip topic and all its bytes, so that nobody can guess it or give it to
/// other bytes.
pub(crate) fn gossip_id(topic: &str, frame: &[u8]) -> [u8; 20] {
    let mut id = [0; 20];
    let hash = blake3::Hasher::new().update(topic.as_bytes()).update(&[0]).update(frame).finalize();
    id.copy_from_slice(&hash.as_bytes()[..20]);
    id
}

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
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Messages => 1,
            Self::Head => 2,
        }
    }

    fn of(byte: u8) -> Result<Self, FrameError> {
        match byte {
            1 => Ok(Self::Messages),
            2 => Ok(Self::Head),
            other => Err(FrameError::Kind(other)),
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
    /// Where the streams of a node begin, in their order.
    pub(crate) fn first_of(node: PeerId) -> Self {
        Self { node, incarnation: 0, channel: Channel::Shard(0) }
    }

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
    #[serde(deserialize_with = "at_most::<MAX_TABLE, _, _>")]
    pub(crate) topics: Vec<String>,
    #[serde(deserialize_with = "at_most::<MAX_CONTENT_TYPES, _, _>")]
    pub(crate) content_types: Vec<String>,
    #[serde(deserialize_with = "at_most::<MAX_TABLE, _, _>")]
    pub(crate) choices: Vec<Choice>,
    #[serde(deserialize_with = "at_most::<{ codec::MAX_EXTENSIONS }, _, _>")]
    pub(crate) extensions: Extensions,
}

/// A piece of a message that is larger than a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fragment {
    pub(crate) index: u32,
    pub(crate) count: u32,
}

impl Fragment {
    /// Whether the message ends with this piece.
    pub(crate) fn is_last(self) -> bool {
        self.count.checked_sub(1) == Some(self.index)
    }

    /// Whether it is one piece of several, and of no more than there may be.
    pub(super) fn is_sound(self) -> bool {
        (2..=MAX_FRAGMENTS).contains(&self.count) && self.index < self.count
    }
}

/// A message in a frame's body. The numbers are indices into the header's tables, or differences from its fields.
///
/// It is written and read by hand, in `entry.rs`, as serde would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry<'a> {
    pub(crate) topic: u32,
    pub(crate) content_type: u32,
    pub(crate) counter: u64,
    pub(crate) time: u64,
    pub(crate) fragment: Option<Fragment>,
    #[serde(deserialize_with = "at_most::<MAX_CHOICES, _, _>")]
    pub(crate) choices: Vec<u32>,
    #[serde(borrow, deserialize_with = "at_most::<{ Headers::MAX_COUNT }, _, _>")]
    pub(crate) headers: Vec<(&'a str, &'a str)>,
    #[serde(deserialize_with = "at_most::<{ codec::MAX_EXTENSIONS }, _, _>")]
    pub(crate) extensions: Extensions,
    #[serde(with = "serde_bytes", borrow)]
    pub(crate) payload: &'a [u8],
}

impl Entry<'_> {
    /// Whether a message ends with it: it is whole, or the last fragment.
    pub(super) fn ends_message(&self) -> bool {
        self.fragment.is_none_or(Fragment::is_last)
    }
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
    #[error("shard {0} does not exist")]
    Shard(u8),
    #[error("sequence {sequence} with {messages} messages of {count} makes no sense")]
    Numbers { sequence: u64, messages: u32, count: u64 },
    #[error("a head has neither tables nor messages")]
    Head,
    #[error("a content type or the name of a group has more than {MAX_TEXT} bytes")]
    Text,
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
    body: Range<usize>,
}

impl FrameError {
    /// Whether the bytes may be a sound frame to who knows a later version of the format.
    pub(crate) fn is_of_later_version(&self) -> bool {
        matches!(self, Self::Version(_) | Self::Kind(_) | Self::Codec(CodecError::Extension(_)))
    }
}

impl Frame {
    /// Reads and checks a frame.
    pub(crate) fn open(mesh: MeshId, bytes: Bytes) -> Result<Self, FrameError> {
        let frame = Self::read(bytes)?;
        let end = frame.bytes.len() - SIGNATURE;
        if !frame.header.node.verify(Purpose::Frame, mesh, &frame.bytes[..end], &frame.bytes[end..]) {
            return Err(FrameError::Signature);
        }
        Ok(frame)
    }

    /// Reads and checks a frame that came from its author, as the connection proves. Its signature is not looked at: whoever
    /// gets it from here will.
    pub(crate) fn open_from(author: PeerId, bytes: Bytes) -> Result<Self, FrameError> {
        let frame = Self::read(bytes)?;
        if frame.stream.node == author { Ok(frame) } else { Err(FrameError::Signature) }
    }

    fn read(bytes: Bytes) -> Result<Self, FrameError> {
        if bytes.len() > MAX_FRAME || bytes.len() < 2 + SIGNATURE {
            return Err(FrameError::Length(bytes.len()));
        }
        if bytes[0] != VERSION {
            return Err(FrameError::Version(bytes[0]));
        }
        let kind = Kind::of(bytes[1])?;
        let end = bytes.len() - SIGNATURE;
        let (header, taken) = codec::decode_prefix::<Header>(&bytes[2..end])?;
        check_header(kind, &header)?;
        if kind == Kind::Head && 2 + taken < end {
            return Err(FrameError::Head);
        }
        Self::assemble(kind, header, bytes, 2 + taken..end)
    }

    /// Puts a frame together from parts that were checked.
    pub(super) fn assemble(kind: Kind, header: Header, bytes: Bytes, body: Range<usize>) -> Result<Self, FrameError> {
        let node = header.node.peer().ok_or(FrameError::Signature)?;
        let stream = Stream { node, incarnation: header.incarnation, channel: header.channel };
        Ok(Self { bytes, kind, header, stream, body })
    }

    /// The running message count before this frame.
    pub(crate) fn count_before(&self) -> u64 {
        // Checked to be no more than the count.
        self.header.count.saturating_sub(u64::from(self.header.messages))
    }

    /// Its messages, in order.
    ///
    /// An error says that a message could not be read. If that was for an extension that has to be understood, the next
    /// message follows; after any other error there are no more.
    pub(crate) fn entries(&self) -> Entries<'_> {
        Entries { frame: self, cursor: Cursor::default() }
    }

    /// Its messages as they travel.
    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[self.body.clone()]
    }

    /// The id of a message in this frame.
    pub(crate) fn message_id(&self, entry: &Entry<'_>) -> MessageId {
        // Differences wrap around: a message may have got its number before the first one of the frame did.
        MessageId { start: self.header.start, counter: self.header.counter.wrapping_add(entry.counter) }
    }

    /// When a message in this frame was published, in microseconds since 1970.
    pub(crate) fn time(&self, entry: &Entry<'_>) -> u64 {
        self.header.time.saturating_add(entry.time)
    }
}

/// Whether a header says what a frame of version 1 may say.
pub(super) fn check_header(kind: Kind, header: &Header) -> Result<(), FrameError> {
    codec::check_extensions(&header.extensions)?;
    let Header { incarnation, sequence, messages, count, time, .. } = *header;
    codec::check_numbers(&[incarnation, sequence, count, time])?;
    let Channel::Shard(shard) = header.channel;
    if shard >= SHARDS {
        return Err(FrameError::Shard(shard));
    }
    if sequence == 0 || u64::from(messages) > count {
        return Err(FrameError::Numbers { sequence, messages, count });
    }
    let tables = header.topics.len() + header.content_types.len() + header.choices.len();
    if kind == Kind::Head && (messages > 0 || tables > 0) {
        return Err(FrameError::Head);
    }
    let mut texts = header.content_types.iter().chain(header.choices.iter().map(|choice| &choice.group));
    if texts.any(|text| text.len() > MAX_TEXT) {
        return Err(FrameError::Text);
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
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    frame: &'a Frame,
    cursor: Cursor,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.cursor.next(self.frame)
    }
}

/// How far a frame was read, for who keeps the frame beside it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    /// The bytes of the body that were read.
    taken: usize,
    /// How many messages ended so far.
    ended: u32,
    done: bool,
}

impl Cursor {
    /// The next message of the frame, which is always the same one: as [`Frame::entries`] say.
    #[inline]
    pub(crate) fn next<'a>(&mut self, frame: &'a Frame) -> Option<Result<Entry<'a>, CodecError>> {
        if self.done {
            return None;
        }
        let rest = frame.body().get(self.taken..).unwrap_or_default();
        if rest.is_empty() {
            self.done = true;
            return self.check_end(frame).err().map(Err);
        }
        let read = self.read(frame, rest);
        self.done = matches!(read, Err(CodecError::Malformed(_) | CodecError::LeftOver(_)));
        Some(read)
    }

    #[inline]
    fn read<'a>(&mut self, frame: &Frame, rest: &'a [u8]) -> Result<Entry<'a>, CodecError> {
        let (entry, taken) = Entry::read(rest)?;
        self.taken += taken;
        self.ended += u32::from(entry.ends_message());
        check_entry(&frame.header, &entry)?;
        codec::check_extensions(&entry.extensions)?;
        Ok(entry)
    }

    /// What the header promised has to be there: receivers count what they missed by it.
    fn check_end(self, frame: &Frame) -> Result<(), CodecError> {
        let promised = frame.header.messages;
        if self.ended == promised {
            return Ok(());
        }
        Err(CodecError::malformed(format!("{} messages end in a frame that promised {promised}", self.ended)))
    }
}

/// Whether an entry fits its frame's header and the limits of a message.
fn check_entry(header: &Header, entry: &Entry<'_>) -> Result<(), CodecError> {
    let known = |index: u32, table: usize| usize::try_from(index).is_ok_and(|index| index < table);
    if !known(entry.topic, header.topics.len())
        || !known(entry.content_type, header.content_types.len())
        || !entry.choices.iter().all(|choice| known(*choice, header.choices.len()))
    {
        return Err(CodecError::malformed("a message points outside its frame's tables"));
    }
    if !entry.fragment.is_none_or(Fragment::is_sound) {
        return Err(CodecError::malformed("a fragment is not one of 2 to 1,024"));
    }
    let bytes: usize = entry.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > Headers::MAX_BYTES {
        return Err(CodecError::malformed("a message's headers have more than 16 KiB"));
    }
    codec::check_numbers(&[entry.time])
}
