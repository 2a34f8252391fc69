//! Making frames: messages are appended to an open frame, which is closed and signed when it is sent.

use bytes::Bytes;
use libp2p_identity::Keypair;

use super::MeshId;
use super::codec::{self, CodecError};
use super::frame::{
    Choice, Entry, Fragment, Frame, FrameError, Header, Kind, MAX_CHOICES, MAX_CONTENT_TYPES, MAX_FRAME, MAX_TABLE,
    MAX_TEXT, Stream, VERSION, check_header,
};
use super::node_key::{self, NodeKey, Purpose, SIGNATURE, SignError};
use crate::Headers;

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
    pub(crate) headers: &'a Headers,
    pub(crate) choices: &'a [Choice],
    pub(crate) counter: u64,
    pub(crate) time: u64,
    pub(crate) fragment: Option<Fragment>,
    pub(crate) payload: &'a [u8],
}

impl Outbound<'_> {
    /// The bytes that the message takes in a frame beside its payload, at most: its parts, and numbers and lengths around
    /// them.
    pub(crate) fn beside(&self) -> usize {
        let headers = self.headers.bytes() + HEADER * self.headers.len();
        let choices: usize = self.choices.iter().map(|choice| choice.group.len() + CHOICE).sum();
        self.topic.len() + self.content_type.len() + headers + choices + ENTRY
    }

    fn cost(&self) -> usize {
        self.payload.len() + self.beside()
    }

    /// Whether it keeps to the limits that a reader checks, apart from those of its topic.
    fn check(&self) -> Result<(), CodecError> {
        let refuse = |what: &str| Err(CodecError::malformed(what));
        if !self.headers.fit() {
            return refuse("too many headers");
        }
        if self.choices.len() > MAX_CHOICES {
            return refuse("too many choices");
        }
        if self.content_type.len() > MAX_TEXT || self.choices.iter().any(|choice| choice.group.len() > MAX_TEXT) {
            return refuse("a content type or the name of a group is too long");
        }
        if !self.fragment.is_none_or(Fragment::is_sound) {
            return refuse("a fragment is not one of 2 to 1,024");
        }
        codec::check_numbers(&[self.time])
    }
}

/// A frame that still takes messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrameBuilder {
    topics: Vec<String>,
    content_types: Vec<String>,
    choices: Vec<Choice>,
    /// The bytes of the three tables, near enough.
    tables: usize,
    /// Behind room for the header, which is known last: so the messages need not be copied.
    body: Vec<u8>,
    /// How many bytes of messages there will be, probably.
    expected: usize,
    entries: u32,
    messages: u32,
    counter: u64,
    time: u64,
}

/// The version, the kind, the header without its tables, and the signature: 169 bytes at most.
const OVERHEAD: usize = 256;

/// A header that takes more, which only many topics or choices do, is put before a copy of the messages.
const HEADROOM: usize = OVERHEAD;

/// The numbers and lengths of an entry and its topic's and content type's lengths in the tables: 56 bytes at most.
const ENTRY: usize = 64;

/// The lengths of a header's name and value: 6 bytes at most.
const HEADER: usize = 10;

/// A choice beside its group's name: the key, the name's length, and the index in the entry, 38 bytes at most.
const CHOICE: usize = 45;

/// An index into a table of at most [`MAX_TABLE`] entries takes less.
const INDEX: usize = 5;

impl FrameBuilder {
    /// The most payload that fits into an empty frame, if the rest of the message takes [`beside`](Outbound::beside).
    pub(crate) fn room(beside: usize) -> usize {
        MAX_FRAME.saturating_sub(OVERHEAD + beside)
    }

    /// An empty frame that is likely to become as long as this one.
    pub(crate) fn next(&self) -> Self {
        Self { expected: self.written(), ..Self::default() }
    }

    /// The most payload that fits beside what it has, as [`room`](Self::room).
    pub(crate) fn left(&self, beside: usize) -> usize {
        MAX_FRAME.saturating_sub(self.len() + beside)
    }

    /// The bytes that the frame would have if it were closed now, at most.
    pub(crate) fn len(&self) -> usize {
        OVERHEAD + self.tables + self.written()
    }

    /// The bytes of its messages.
    fn written(&self) -> usize {
        self.body.len().saturating_sub(HEADROOM)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// How many messages end in it.
    pub(crate) fn messages(&self) -> u32 {
        self.messages
    }

    /// Whether a message still fits. Into an empty frame fits any whose payload is no larger than [`room`](Self::room).
    pub(crate) fn fits(&self, message: &Outbound<'_>) -> bool {
        // Full tables end a frame though the message may be on a topic that stands in them: by then it is long enough.
        self.len() + message.cost() <= MAX_FRAME
            && self.topics.len() < MAX_TABLE
            && self.content_types.len() < MAX_CONTENT_TYPES
            && self.choices.len() + message.choices.len() <= MAX_TABLE
    }

    /// Appends a message. Fails, and leaves the frame as it is, for one that does not fit or that no reader would take.
    pub(crate) fn push(&mut self, message: &Outbound<'_>) -> Result<(), CodecError> {
        message.check()?;
        if !self.fits(message) {
            return Err(CodecError::malformed("the message does not fit into the frame"));
        }
        if self.is_empty() {
            self.counter = message.counter;
            self.time = message.time;
            self.body.reserve(HEADROOM + self.expected.max(message.cost()) + SIGNATURE);
            self.body.resize(HEADROOM, 0);
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
        entry.write(&mut self.body);
        self.entries += 1;
        self.messages += u32::from(entry.ends_message());
        Ok(())
    }

    fn intern_choice(&mut self, choice: &Choice) -> u32 {
        let index = self.choices.iter().position(|known| known == choice).unwrap_or_else(|| {
            self.tables += choice.group.len() + CHOICE - INDEX;
            self.choices.push(choice.clone());
            self.choices.len() - 1
        });
        index_u32(index)
    }

    /// Closes the frame and signs it.
    pub(crate) fn sign(self, place: Place, mesh: MeshId, key: &Keypair) -> Result<Frame, SignFrameError> {
        let (header, body) = self.header(place)?;
        seal(Kind::Messages, header, body, mesh, key)
    }

    fn header(self, place: Place) -> Result<(Header, Vec<u8>), SignFrameError> {
        let header = Header {
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
            topics: self.topics,
            content_types: self.content_types,
            choices: self.choices,
            extensions: Vec::new(),
        };
        Ok((header, self.body))
    }
}

/// A head: a frame without messages that repeats where a stream stands.
pub(crate) fn head(place: Place, time: u64, mesh: MeshId, key: &Keypair) -> Result<Frame, SignFrameError> {
    let (header, body) = FrameBuilder { time, ..FrameBuilder::default() }.header(place)?;
    seal(Kind::Head, header, body, mesh, key)
}

/// The same frame, signed anew with this attempt number: gossip takes it for another one, readers do not.
pub(crate) fn again(frame: &Frame, attempt: u8, mesh: MeshId, key: &Keypair) -> Result<Frame, SignFrameError> {
    let header = Header { attempt, ..frame.header.clone() };
    seal(frame.kind, header, [&[0; HEADROOM], frame.body()].concat(), mesh, key)
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

/// Checks, encodes and signs. What goes out is held to what a reader checks, so that a mistake shows where it was made.
fn seal(kind: Kind, header: Header, body: Vec<u8>, mesh: MeshId, key: &Keypair) -> Result<Frame, SignFrameError> {
    check_header(kind, &header)?;
    let mut head = Vec::with_capacity(HEADROOM);
    head.extend([VERSION, kind.byte()]);
    codec::encode_into(&header, &mut head)?;
    let (start, (from, mut bytes)) = (head.len(), join(&head, body));
    let end = bytes.len();
    let len = end - from + SIGNATURE;
    if len > MAX_FRAME {
        return Err(FrameError::Length(len).into());
    }
    let signature = node_key::sign(key, Purpose::Frame, mesh, &bytes[from..])?;
    bytes.extend(signature);
    Ok(Frame::assemble(kind, header, Bytes::from(bytes).slice(from..), start..end - from)?)
}

/// Puts the head before the body, and says where it begins: in the room that there is, unless frames that are kept for long
/// would keep much more than themselves.
fn join(head: &[u8], mut body: Vec<u8>) -> (usize, Vec<u8>) {
    let written = body.get(HEADROOM..).unwrap_or_default();
    let len = head.len() + written.len() + SIGNATURE;
    if let Some(from) = HEADROOM.checked_sub(head.len())
        && body.len() >= HEADROOM
        && body.capacity() <= len + len / 4
    {
        body[from..HEADROOM].copy_from_slice(head);
        body.reserve_exact(SIGNATURE);
        return (from, body);
    }
    let mut bytes = Vec::with_capacity(len);
    bytes.extend(head);
    bytes.extend(written);
    (0, bytes)
}

fn intern(table: &mut Vec<String>, text: &str, bytes: &mut usize) -> u32 {
    // From the end: what was used last is used again.
    let index = table.iter().rposition(|known| known == text).unwrap_or_else(|| {
        *bytes += text.len() + 3;
        table.push(text.to_owned());
        table.len() - 1
    });
    index_u32(index)
}

/// Tables have at most [`MAX_TABLE`] entries, so an index always fits.
fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
