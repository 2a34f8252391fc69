//! What two connected nodes say to each other over request-response: calls, repair, the roster's protocol, inject.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::MessageId;
use super::codec::{self, CodecError, Extensions};
use super::custody::{Brought, Copied, Entrusted, Released, check_signature};
use super::frame::{Channel, MAX_TEXT, SHARDS, Stream, VERSION};
use super::guard::at_most;
use super::node_key::NodeKey;
use super::roster::Stamp;
use crate::Headers;

mod letters;

pub(crate) use self::letters::{Fate, Known, Offered, StageRow, Turn};

/// How many buckets the digest of a roster has.
pub(crate) const BUCKETS: usize = 256;

/// The longest that an asker may say it waits, in milliseconds: 49 days. What is longer is taken for this.
pub(crate) const MAX_TIMEOUT: u64 = u32::MAX as u64;

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

    pub(super) fn check(&self) -> Result<(), CodecError> {
        let Channel::Shard(shard) = self.channel;
        if shard >= SHARDS {
            return Err(CodecError::malformed(format!("shard {shard} does not exist")));
        }
        codec::check_numbers(&[self.incarnation])
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
    #[serde(deserialize_with = "headers")]
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
    #[serde(deserialize_with = "headers")]
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
    pub(crate) extensions: Extensions,
}

pub(super) fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Headers, D::Error> {
    let pairs: Vec<(String, String)> = at_most::<{ Headers::MAX_COUNT }, _, _>(deserializer)?;
    Ok(pairs.into_iter().collect())
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
    /// Take these letters for a durable subscription, in this order. Answered by [`Response::Offered`].
    Offer {
        to: String,
        turn: Turn,
        /// Say so when you have processed one of mine, by [`Request::Progress`]: I hold others back for that.
        tell: bool,
        /// Messages that were processed there, which the sender does not offer any more: what is left of them can go.
        settled: Vec<MessageId>,
        letters: Vec<Offered>,
        extensions: Extensions,
    },
    /// What do you know of this message? Answered by [`Response::Known`].
    Where { id: MessageId, extensions: Extensions },
    /// Letters of yours are processed that I had stored for this durable subscription: ask which, by an [`Request::Offer`].
    Progress { of: String, extensions: Extensions },
    /// Keep copies of these letters of mine, say what you know of those, and forget these. Answered by [`Response::Kept`].
    Keep { turn: Turn, letters: Vec<Entrusted>, asked: Vec<MessageId>, released: Vec<Released>, extensions: Extensions },
    /// Take these letters of another node, which I keep for it, as in [`Request::Offer`]. Answered by [`Response::Brought`].
    Bring { to: String, sender: NodeKey, letters: Vec<Brought>, extensions: Extensions },
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
    /// What became of each of the letters.
    Offered {
        fates: Vec<Fate>,
        extensions: Extensions,
    },
    /// What is known of a message here.
    Known {
        known: Vec<Known>,
        extensions: Extensions,
    },
    /// Which of the letters are kept, and what is known of the messages that were asked about: nothing of those of which there is no
    /// copy.
    Kept {
        /// Whoever asked.
        sender: NodeKey,
        kept: Vec<bool>,
        known: Vec<Copied>,
        extensions: Extensions,
    },
    /// What became of each of the letters, and a signature for each of which that is for good, or none.
    Brought {
        fates: Vec<Fate>,
        receipts: Vec<Bytes>,
        extensions: Extensions,
    },
}

impl Request {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, CodecError> {
        self.check()?;
        encode(self, self.bulk())
    }

    /// Reads and checks a request.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut request: Self = decode(bytes)?;
        if let Self::Call(call) = &mut request {
            call.timeout = call.timeout.min(MAX_TIMEOUT);
        }
        request.check()?;
        Ok(request)
    }

    fn check(&self) -> Result<(), CodecError> {
        codec::check_extensions(self.extensions())?;
        match self {
            Self::Call(call) => {
                check_text(&call.service)?;
                check_described(&call.content_type, &call.headers)
            }
            Self::Repair { stream, from, to, .. } => {
                stream.check()?;
                codec::check_numbers(&[*from, *to])?;
                if from > to { Err(CodecError::malformed("a range that ends before it starts")) } else { Ok(()) }
            }
            Self::Acknowledge { positions, .. } | Self::Heads { positions, .. } => {
                check_list(positions)?;
                positions.iter().try_for_each(Position::check)
            }
            Self::Digest { buckets, .. } => check_buckets(buckets.len()),
            Self::Inject { frames: list, .. } | Self::Push { records: list, .. } => check_list(list),
            Self::Fetch { nodes, .. } => check_list(nodes),
            Self::Offer { to, settled, letters, .. } => {
                check_text(to)?;
                check_list(settled)?;
                check_list(letters)
            }
            Self::Progress { of, .. } => check_text(of),
            Self::Keep { letters, asked, released, .. } => {
                check_list(letters)?;
                check_list(asked)?;
                check_list(released)?;
                released.iter().try_for_each(|one| check_text(&one.to))?;
                letters.iter().try_for_each(Entrusted::check)
            }
            Self::Bring { to, letters, .. } => {
                check_text(to)?;
                check_list(letters)?;
                letters.iter().try_for_each(Brought::check)
            }
            Self::Cancel { .. } | Self::Where { .. } => Ok(()),
        }
    }

    /// Its bytes on the wire, near enough: what it takes beside this is less than a kilobyte.
    pub(crate) fn bulk(&self) -> usize {
        match self {
            Self::Call(call) => call.body.len() + described(&call.content_type, &call.headers),
            Self::Cancel { .. } | Self::Repair { .. } | Self::Where { .. } | Self::Progress { .. } => 0,
            Self::Inject { frames: list, .. } | Self::Push { records: list, .. } => bulk(list),
            Self::Acknowledge { positions, .. } | Self::Heads { positions, .. } => {
                size_of::<Position>() * positions.len()
            }
            Self::Digest { buckets, .. } => size_of::<u64>() * buckets.len(),
            Self::Fetch { nodes, .. } => size_of::<NodeKey>() * nodes.len(),
            Self::Offer { settled, letters, .. } => {
                let letters: usize = letters.iter().map(|letter| letter.sealed.len() + size_of::<Offered>()).sum();
                letters + size_of_val(settled.as_slice())
            }
            Self::Keep { letters, asked, released, .. } => {
                let letters: usize = letters.iter().map(Entrusted::bulk).sum();
                let released: usize = released.iter().map(|one| size_of::<MessageId>() + one.to.len()).sum();
                letters + released + size_of_val(asked.as_slice())
            }
            Self::Bring { letters, .. } => letters.iter().map(Brought::bulk).sum(),
        }
    }

    fn extensions(&self) -> &Extensions {
        match self {
            Self::Call(call) => &call.extensions,
            Self::Cancel { extensions, .. }
            | Self::Inject { extensions, .. }
            | Self::Repair { extensions, .. }
            | Self::Acknowledge { extensions, .. }
            | Self::Heads { extensions, .. }
            | Self::Push { extensions, .. }
            | Self::Digest { extensions, .. }
            | Self::Fetch { extensions, .. }
            | Self::Offer { extensions, .. }
            | Self::Where { extensions, .. }
            | Self::Progress { extensions, .. }
            | Self::Keep { extensions, .. }
            | Self::Bring { extensions, .. } => extensions,
        }
    }
}

impl Response {
    /// The plain answer: heard, nothing to say.
    pub(crate) fn done() -> Self {
        Self::Done { extensions: Vec::new() }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, CodecError> {
        self.check()?;
        encode(self, self.bulk())
    }

    /// Reads and checks an answer.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let response: Self = decode(bytes)?;
        response.check()?;
        Ok(response)
    }

    fn check(&self) -> Result<(), CodecError> {
        codec::check_extensions(self.extensions())?;
        match self {
            Self::Reply(reply) => check_described(&reply.content_type, &reply.headers),
            Self::Frames { frames, floor, .. } => {
                check_list(frames)?;
                codec::check_numbers(&[*floor])
            }
            Self::Differ { buckets, summaries, .. } => {
                check_buckets(buckets.len())?;
                check_list(summaries)?;
                let mut stamps = summaries.iter().map(|summary| summary.stamp);
                stamps.try_for_each(|stamp| codec::check_numbers(&[stamp.incarnation, stamp.version]))
            }
            Self::Records { records, .. } => check_list(records),
            Self::Offered { fates, .. } => check_list(fates),
            Self::Known { known, .. } => {
                check_list(known)?;
                known.iter().try_for_each(|one| {
                    codec::check_numbers(&[one.time])?;
                    check_text(&one.recipient)
                })
            }
            Self::Kept { kept, known, .. } => {
                check_list(kept)?;
                check_list(known)?;
                known.iter().try_for_each(Copied::check)
            }
            Self::Brought { fates, receipts, .. } => {
                check_list(fates)?;
                check_list(receipts)?;
                receipts.iter().try_for_each(|receipt| check_signature(receipt))
            }
            Self::Done { .. } | Self::Injected { .. } => Ok(()),
        }
    }

    /// As a request's.
    pub(crate) fn bulk(&self) -> usize {
        match self {
            Self::Reply(reply) => reply.body.len() + described(&reply.content_type, &reply.headers),
            Self::Done { .. } | Self::Injected { .. } => 0,
            Self::Frames { frames: list, .. } | Self::Records { records: list, .. } => bulk(list),
            Self::Differ { buckets, summaries, .. } => buckets.len() + size_of::<Summary>() * summaries.len(),
            Self::Offered { fates, .. } => size_of::<Fate>() * fates.len(),
            Self::Known { known, .. } => {
                known.iter().map(|one| one.recipient.len() + size_of::<StageRow>() + size_of::<u64>()).sum()
            }
            Self::Kept { kept, known, .. } => kept.len() + known.iter().map(Copied::bulk).sum::<usize>(),
            Self::Brought { fates, receipts, .. } => {
                size_of::<Fate>() * fates.len() + receipts.iter().map(|receipt| receipt.len() + 1).sum::<usize>()
            }
        }
    }

    fn extensions(&self) -> &Extensions {
        match self {
            Self::Reply(reply) => &reply.extensions,
            Self::Done { extensions }
            | Self::Injected { extensions, .. }
            | Self::Frames { extensions, .. }
            | Self::Differ { extensions, .. }
            | Self::Records { extensions, .. }
            | Self::Offered { extensions, .. }
            | Self::Known { extensions, .. }
            | Self::Kept { extensions, .. }
            | Self::Brought { extensions, .. } => extensions,
        }
    }
}

impl Position {
    fn check(&self) -> Result<(), CodecError> {
        self.stream.check()?;
        codec::check_numbers(&[self.sequence, self.count])
    }
}

pub(super) fn check_text(text: &str) -> Result<(), CodecError> {
    if text.len() > MAX_TEXT {
        return Err(CodecError::malformed("the name of a service or a content type is too long"));
    }
    Ok(())
}

pub(super) fn check_described(content_type: &str, headers: &Headers) -> Result<(), CodecError> {
    check_text(content_type)?;
    if headers.fit() { Ok(()) } else { Err(CodecError::malformed("too many headers")) }
}

fn bulk(list: &[Bytes]) -> usize {
    list.iter().map(|bytes| bytes.len() + size_of::<u32>()).sum()
}

pub(super) fn described(content_type: &str, headers: &Headers) -> usize {
    content_type.len() + headers.bytes() + 2 * size_of::<u32>() * headers.len()
}

/// The decoder refuses longer ones already; this is for who writes.
fn check_list<T>(list: &[T]) -> Result<(), CodecError> {
    if list.len() > codec::MAX_LIST {
        return Err(CodecError::malformed(format!("a list of {} elements", list.len())));
    }
    Ok(())
}

fn check_buckets(count: usize) -> Result<(), CodecError> {
    if count > BUCKETS {
        return Err(CodecError::malformed(format!("{count} buckets, there are {BUCKETS}")));
    }
    Ok(())
}

/// `bulk` is the bytes that are not numbers, near enough.
pub(super) fn encode<T: Serialize>(value: &T, bulk: usize) -> Result<Vec<u8>, CodecError> {
    const NUMBERS: usize = 128;
    let mut bytes = Vec::with_capacity(bulk + NUMBERS);
    bytes.push(VERSION);
    codec::encode_into(value, &mut bytes)?;
    Ok(bytes)
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => codec::decode(rest),
        Some((version, _)) => Err(CodecError::malformed(format!("version {version}, this side speaks {VERSION}"))),
        None => Err(CodecError::malformed("no bytes")),
    }
}
