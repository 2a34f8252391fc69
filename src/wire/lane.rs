//! What travels on a lane: records, one after another, each with its length in front.
//!
//! ```text
//! length u32, big-endian | kind u8 | body
//! ```
//!
//! A lane is one stream each way of a connection, so its records need no signature of their own: the connection proves who
//! sends them. Requests and answers are those of [`rpc`](super::rpc), with a number that joins them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError, Extensions};
use super::frame::{MAX_FRAME, Stream};
use super::guard::at_most;
use super::rpc::StreamRef;

/// The most bytes of a record after its length. A frame and what stands in front of it, or as much of something larger.
pub(crate) const MAX_RECORD: usize = MAX_FRAME + 64;

/// The most bytes of a request or an answer that travels in parts: as many as a request-response exchange may have.
pub(crate) const MAX_WHOLE: usize = (1024 + 64) * 1024;

/// The most bytes of a part.
const PART: usize = 56 * 1024;

const FRAME: u8 = 32;
const MARK: u8 = 33;
const GRANT: u8 = 39;
const REQUEST: u8 = 42;
const ANSWER: u8 = 43;
const PART_OF: u8 = 44;

/// Kinds from this one up may be skipped by who does not know them.
const FIRST_SKIPPED: u8 = 128;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A frame that the sender of this record wrote. `since` is the last frame of its stream before it that concerned the
    /// receiver, 0 where that is not known.
    Frame { since: u64, frame: Bytes },
    /// Nothing of a stream between two of its frames concerns the receiver.
    Mark(Mark),
    /// So many bytes of frames, from the lane's beginning, are out of the way at the sender of this record.
    Grant(u64),
    /// A request, encoded.
    Request { id: u64, request: Bytes },
    /// The answer to the request of that number, encoded.
    Answer { id: u64, answer: Bytes },
    /// A part of a request or an answer. Those of one come one after another, and with the last one it is whole.
    Part { last: bool, bytes: Bytes },
}

/// Of its author's stream nothing between `since` and `up_to`, that one included, is for the receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    stream: StreamRef,
    pub(crate) since: u64,
    pub(crate) up_to: u64,
    /// How many messages the stream had up to there.
    pub(crate) count: u64,
    #[serde(deserialize_with = "at_most::<{ codec::MAX_EXTENSIONS }, _, _>")]
    extensions: Extensions,
}

impl Mark {
    /// `None` for a stream of a node without an Ed25519 key, which no node is.
    pub(crate) fn new(stream: &Stream, since: u64, (up_to, count): (u64, u64)) -> Option<Self> {
        Some(Self { stream: StreamRef::of(stream)?, since, up_to, count, extensions: Vec::new() })
    }

    pub(crate) fn stream(&self) -> Option<Stream> {
        self.stream.stream()
    }

    /// Whether another mark, that comes next, says all that this one does.
    pub(crate) fn is_followed_by(&self, next: &Self) -> bool {
        (self.stream, self.since) == (next.stream, next.since)
    }
}

/// Why the other side's bytes end a lane.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneError {
    #[error("a record of {0} bytes")]
    Length(usize),
    #[error("kind {0} is unknown")]
    Kind(u8),
    #[error("a record is cut short")]
    Short,
    #[error("what comes in parts has more than {MAX_WHOLE} bytes")]
    TooLarge,
    #[error("what comes in parts is neither a request nor an answer")]
    NotWhole,
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Record {
    /// The bytes that it takes on the lane, its length included.
    pub(crate) fn len(&self) -> usize {
        const PREFIX: usize = 5;
        PREFIX
            + match self {
                Self::Frame { frame, .. } => 8 + frame.len(),
                // Four numbers of at most nine bytes, a key, a shard, and no extensions.
                Self::Mark(_) => 80,
                Self::Grant(_) => 8,
                Self::Request { request: bytes, .. } | Self::Answer { answer: bytes, .. } => 8 + bytes.len(),
                Self::Part { bytes, .. } => 1 + bytes.len(),
            }
    }

    /// Appends it as it travels.
    pub(crate) fn write(&self, out: &mut BytesMut) -> Result<(), CodecError> {
        let rest = self.begin(out)?;
        out.put_slice(&rest);
        Ok(())
    }

    /// Appends what it begins with. What this returns comes next: it may be long, and need not be copied.
    pub(crate) fn begin(&self, out: &mut BytesMut) -> Result<Bytes, CodecError> {
        let start = out.len();
        out.put_u32(0);
        let rest = match self {
            Self::Frame { since, frame } => {
                out.put_u8(FRAME);
                out.put_u64(*since);
                frame.clone()
            }
            Self::Mark(mark) => {
                out.put_u8(MARK);
                let mut bytes = Vec::new();
                codec::encode_into(mark, &mut bytes)?;
                bytes.into()
            }
            Self::Grant(bytes) => {
                out.put_u8(GRANT);
                out.put_u64(*bytes);
                Bytes::new()
            }
            Self::Request { id, request: bytes } | Self::Answer { id, answer: bytes } => {
                out.put_u8(if matches!(self, Self::Request { .. }) { REQUEST } else { ANSWER });
                out.put_u64(*id);
                bytes.clone()
            }
            Self::Part { last, bytes } => {
                out.put_u8(PART_OF);
                out.put_u8(u8::from(*last));
                bytes.clone()
            }
        };
        let len = u32::try_from(out.len() - start - 4 + rest.len());
        let len = len.map_err(|_| CodecError::malformed("a record of 4 GiB"))?;
        out[start..start + 4].copy_from_slice(&len.to_be_bytes());
        Ok(rest)
    }

    /// Takes the next record off the front of what came, if it is whole. Kinds of later versions that may be skipped are.
    pub(crate) fn take(from: &mut BytesMut) -> Result<Option<Self>, LaneError> {
        loop {
            let Some(prefix) = from.first_chunk::<4>() else { return Ok(None) };
            let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
            if len == 0 || len > MAX_RECORD {
                return Err(LaneError::Length(len));
            }
            if from.len() < 4 + len {
                return Ok(None);
            }
            from.advance(4);
            let mut body = from.split_to(len).freeze();
            let kind = body.get_u8();
            if kind < FIRST_SKIPPED {
                return Self::read(kind, body).map(Some);
            }
        }
    }

    /// How many bytes of the next record have not come yet, as far as that is known.
    pub(crate) fn missing(from: &[u8]) -> usize {
        let len = from.first_chunk::<4>().map(|prefix| u32::from_be_bytes(*prefix));
        let len = len.and_then(|len| usize::try_from(len).ok()).filter(|len| *len <= MAX_RECORD);
        len.map_or(0, |len| (4 + len).saturating_sub(from.len()))
    }

    fn read(kind: u8, mut body: Bytes) -> Result<Self, LaneError> {
        match kind {
            FRAME => {
                let since = number(&mut body)?;
                codec::check_numbers(&[since])?;
                Ok(Self::Frame { since, frame: body })
            }
            MARK => {
                let mark: Mark = codec::decode(&body)?;
                codec::check_extensions(&mark.extensions)?;
                mark.stream.check()?;
                codec::check_numbers(&[mark.since, mark.up_to, mark.count])?;
                Ok(Self::Mark(mark))
            }
            GRANT => number(&mut body).map(Self::Grant),
            REQUEST => number(&mut body).map(|id| Self::Request { id, request: body }),
            ANSWER => number(&mut body).map(|id| Self::Answer { id, answer: body }),
            PART_OF => match body.try_get_u8() {
                Ok(last @ 0..=1) => Ok(Self::Part { last: last == 1, bytes: body }),
                Ok(_) | Err(_) => Err(LaneError::Short),
            },
            other => Err(LaneError::Kind(other)),
        }
    }

    /// A request or an answer as it is, if a record has room for it, or in parts.
    pub(crate) fn split(self) -> Result<Vec<Self>, CodecError> {
        if self.len() <= MAX_RECORD {
            return Ok(vec![self]);
        }
        let mut whole = BytesMut::with_capacity(self.len());
        self.write(&mut whole)?;
        let mut whole = whole.freeze();
        whole.advance(4);
        let mut parts = Vec::with_capacity(whole.len().div_ceil(PART));
        while !whole.is_empty() {
            let bytes = whole.split_to(whole.len().min(PART));
            parts.push(Self::Part { last: whole.is_empty(), bytes });
        }
        Ok(parts)
    }
}

fn number(body: &mut Bytes) -> Result<u64, LaneError> {
    body.try_get_u64().map_err(|_| LaneError::Short)
}

/// Puts parts together again.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    bytes: BytesMut,
}

impl Parts {
    /// Takes the next part. With the last one there is a request, or an answer.
    pub(crate) fn put(&mut self, last: bool, part: &[u8]) -> Result<Option<Record>, LaneError> {
        if self.bytes.len() + part.len() > MAX_WHOLE {
            return Err(LaneError::TooLarge);
        }
        self.bytes.extend_from_slice(part);
        if !last {
            return Ok(None);
        }
        let mut whole = std::mem::take(&mut self.bytes).freeze();
        match whole.try_get_u8() {
            Ok(kind @ (REQUEST | ANSWER)) => Record::read(kind, whole).map(Some),
            Ok(_) | Err(_) => Err(LaneError::NotWhole),
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::frame::Channel;

    fn mark() -> Record {
        let node = Keypair::ed25519_from_bytes([1; 32]).expect("a key").public().to_peer_id();
        let stream = Stream { node, incarnation: 1 << 60, channel: Channel::Shard(7) };
        Record::Mark(Mark::new(&stream, 5, (1 << 50, 9)).expect("an Ed25519 key"))
    }

    fn records() -> Vec<Record> {
        let bytes = Bytes::from_static(b"bytes");
        vec![
            Record::Frame { since: 3, frame: bytes.clone() },
            mark(),
            Record::Grant(u64::MAX),
            Record::Request { id: 1, request: bytes.clone() },
            Record::Answer { id: 2, answer: Bytes::new() },
            Record::Part { last: false, bytes },
        ]
    }

    #[test]
    fn records_read_back_however_they_are_cut() {
        let mut wire = BytesMut::new();
        for record in records() {
            let before = wire.len();
            record.write(&mut wire).expect("written");
            assert!(wire.len() - before <= record.len(), "{record:?}");
        }
        for step in [1, 2, 7, wire.len()] {
            let (mut came, mut read) = (BytesMut::new(), Vec::new());
            for chunk in wire.chunks(step) {
                came.extend_from_slice(chunk);
                while let Some(record) = Record::take(&mut came).expect("sound") {
                    read.push(record);
                }
            }
            assert_eq!(read, records(), "in steps of {step}");
        }
    }

    #[test]
    fn what_is_larger_than_a_record_travels_in_parts_up_to_its_limit() {
        let request = Record::Request { id: 9, request: vec![7; 1_000_000].into() };
        let mut parts = Parts::default();
        let mut whole = None;
        for part in request.clone().split().expect("split") {
            assert!(part.len() <= MAX_RECORD);
            let Record::Part { last, bytes } = part else { panic!("no part: {part:?}") };
            assert!(whole.is_none());
            whole = parts.put(last, &bytes).expect("sound");
        }
        assert_eq!(whole, Some(request));
        let filled = (0..).map_while(|_| parts.put(false, &[0; PART]).ok()).count();
        assert_eq!(filled, MAX_WHOLE / PART);
        assert!(matches!(Parts::default().put(true, &[FRAME, 0]), Err(LaneError::NotWhole)));
    }

    #[test]
    fn bad_lengths_and_kinds_end_the_lane_and_later_kinds_are_skipped() {
        let take = |bytes: &[u8]| Record::take(&mut BytesMut::from(bytes));
        assert!(matches!(take(&[0, 0, 0, 0]), Err(LaneError::Length(0))));
        assert!(matches!(take(&[255; 4]), Err(LaneError::Length(_))), "before its bytes are there");
        assert!(matches!(take(&[0, 0, 0, 1, 99]), Err(LaneError::Kind(99))));
        assert!(matches!(take(&[0, 0, 0, 2, GRANT, 0]), Err(LaneError::Short)));
        assert!(matches!(take(&[0, 0, 0, 2, PART_OF, 2]), Err(LaneError::Short)));
        let skipped = [&[0, 0, 0, 2, 200, 1][..], &[0, 0, 0, 9, GRANT, 0, 0, 0, 0, 0, 0, 0, 5]].concat();
        assert_eq!(take(&skipped).expect("sound"), Some(Record::Grant(5)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let mut came = BytesMut::from(bytes.as_slice());
            while let Ok(Some(_)) = Record::take(&mut came) {}
            let _ = Parts::default().put(true, &bytes);
        }

        #[test]
        fn mutated_records_are_harmless(at in 0..400_usize, to in any::<u8>()) {
            let mut wire = BytesMut::new();
            records().iter().for_each(|record| record.write(&mut wire).expect("written"));
            let at = at % wire.len();
            wire[at] = to;
            while let Ok(Some(_)) = Record::take(&mut wire) {}
        }
    }
}
