//! Messages on their way into frames, before anything is signed or sent.
//!
//! Publishers append from their own tasks; the signer takes frames as fast as the mesh allows. What is appended while
//! the signer is busy shares a frame, so an idle node sends at once and a busy one in batches, without a timer.

use std::collections::{BTreeMap, VecDeque};
use std::iter;
use std::ops::Range;

use libp2p_identity::PeerId;

use super::routes::{Group, choose};
use super::time::Wall;
use crate::Headers;
use crate::wire::MessageId;
use crate::wire::codec::CodecError;
use crate::wire::frame::{Channel, Choice, Fragment, FrameBuilder, MAX_CHOICES, Outbound, Place, Stream};
use crate::wire::node_key::NodeKey;

/// A frame that has less room than this is closed before a large message.
const LEAST: usize = 4 * 1024;

/// A message as a publisher hands it over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) topic: &'a str,
    /// The topic's shard.
    pub(crate) shard: u8,
    pub(crate) content_type: &'a str,
    pub(crate) headers: &'a Headers,
    /// The groups that listen to the topic: one member of each is chosen and written down.
    pub(crate) groups: &'a [Group],
    pub(crate) payload: &'a [u8],
}

/// Where a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) id: MessageId,
    pub(crate) shard: u8,
    /// The frame in which it ends.
    pub(crate) sequence: u64,
    /// Nothing of its shard waited before.
    pub(crate) is_first: bool,
}

/// The frame of a shard that would be taken next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Next {
    sequence: u64,
    allowed: u64,
}

impl Next {
    /// Whether the neighbours that take part in gossip have room for it.
    pub(crate) fn is_allowed(self) -> bool {
        self.sequence <= self.allowed
    }
}

/// Why a message was not appended.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There is no room now. There will be when the signer has taken some.
    Full,
    Codec(CodecError),
}

/// All the frames of a node that are not yet signed.
#[derive(Debug)]
pub(crate) struct Outgoing {
    node: PeerId,
    incarnation: u64,
    start: [u8; 8],
    next_counter: u64,
    shards: BTreeMap<u8, Shard>,
    /// The shard that was served last, so that all get their turn.
    last: u8,
    bytes: usize,
    limit: usize,
}

#[derive(Debug)]
struct Shard {
    next_sequence: u64,
    count: u64,
    open: FrameBuilder,
    closed: VecDeque<(Place, FrameBuilder)>,
    allowed: u64,
}

impl Outgoing {
    /// `start` is random, drawn once for each start of the node; `limit` is what may wait here, in bytes.
    pub(crate) fn new(node: PeerId, incarnation: u64, start: [u8; 8], limit: usize) -> Self {
        Self { node, incarnation, start, next_counter: 1, shards: BTreeMap::new(), last: 0, bytes: 0, limit }
    }

    /// Appends a message. One that is larger than a frame is spread over several.
    pub(crate) fn append(&mut self, draft: &Draft<'_>, now: Wall) -> Result<Appended, Refused> {
        if self.bytes > 0 && self.bytes + draft.payload.len() > self.limit {
            return Err(Refused::Full);
        }
        let id = MessageId { start: self.start, counter: self.next_counter };
        // The members of further groups decide for themselves, by the same hash.
        let choices: Vec<Choice> =
            draft.groups.iter().take(MAX_CHOICES).filter_map(|group| choice(id, group)).collect();
        let mut piece = Outbound {
            topic: draft.topic,
            content_type: draft.content_type,
            headers: draft.headers,
            choices: &choices,
            counter: id.counter,
            time: now.0,
            fragment: None,
            payload: draft.payload,
        };
        let stream = Stream { node: self.node, incarnation: self.incarnation, channel: Channel::Shard(draft.shard) };
        let shard = self.shards.entry(draft.shard).or_insert_with(Shard::new);
        let is_first = shard.next().is_none();
        let (pieces, cut) = shard.cut(&piece);
        for (index, range) in (0..).zip(cut) {
            if pieces > 1 {
                piece.fragment = Some(Fragment { index, count: small(pieces) });
                piece.payload = &draft.payload[range];
            }
            self.bytes += shard.push(&piece, stream, self.start).map_err(Refused::Codec)?;
        }
        self.next_counter += 1;
        Ok(Appended { id, shard: draft.shard, sequence: shard.next_sequence, is_first })
    }

    /// The next frame of the shards that may go on. `may_go` is told the shard, and up to which sequence number gossip is
    /// allowed and which one would be next.
    pub(crate) fn take(&mut self, mut may_go: impl FnMut(u8, Next) -> bool) -> Option<(Place, FrameBuilder)> {
        let turn = self.shards.range(self.last.saturating_add(1)..).chain(self.shards.range(..=self.last));
        let mut waiting = turn.filter_map(|(number, shard)| Some((*number, shard.next()?)));
        let (number, _) = waiting.find(|(number, next)| may_go(*number, *next))?;
        self.last = number;
        let shard = self.shards.get_mut(&number)?;
        if shard.closed.is_empty() {
            let stream = Stream { node: self.node, incarnation: self.incarnation, channel: Channel::Shard(number) };
            shard.close(stream, self.start);
        }
        let (place, frame) = shard.closed.pop_front()?;
        self.bytes = self.bytes.saturating_sub(frame.len());
        Some((place, frame))
    }

    /// Lets frames of a shard go up to this sequence number.
    pub(crate) fn allow(&mut self, shard: u8, sequence: u64) {
        self.shards.entry(shard).or_insert_with(Shard::new).allowed = sequence;
    }

    /// Whether so much was taken out that it is worth waking those who wait for room: one by one they would be woken for each
    /// frame.
    pub(crate) fn has_ample_room(&self) -> bool {
        self.bytes <= self.limit / 2
    }

    /// Whether nothing waits here.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl Shard {
    fn new() -> Self {
        Self { next_sequence: 1, count: 0, open: FrameBuilder::default(), closed: VecDeque::new(), allowed: u64::MAX }
    }

    fn next(&self) -> Option<Next> {
        let sequence = match self.closed.front() {
            Some((place, _)) => place.sequence,
            None if self.open.is_empty() => return None,
            None => self.next_sequence,
        };
        Some(Next { sequence, allowed: self.allowed })
    }

    /// How many pieces a message goes into, and which. One that is larger than a frame begins in what is left of the open one.
    fn cut(&self, message: &Outbound<'_>) -> (usize, impl Iterator<Item = Range<usize>> + use<>) {
        let (beside, all) = (message.beside(), message.payload.len());
        let (room, left) = (FrameBuilder::room(beside).max(1), self.open.left(beside));
        let first = if all > room && left >= LEAST { left } else { all.min(room) };
        let rest = (first..all).step_by(room).map(move |from| from..all.min(from + room));
        (1 + rest.len(), iter::once(0..first).chain(rest))
    }

    /// Appends a message or a piece of one, and says by how much what waits has grown.
    fn push(&mut self, message: &Outbound<'_>, stream: Stream, start: [u8; 8]) -> Result<usize, CodecError> {
        if !self.open.is_empty() && !self.open.fits(message) {
            self.close(stream, start);
        }
        let before = if self.open.is_empty() { 0 } else { self.open.len() };
        self.open.push(message)?;
        Ok(self.open.len() - before)
    }

    fn close(&mut self, stream: Stream, start: [u8; 8]) {
        let next = self.open.next();
        let frame = std::mem::replace(&mut self.open, next);
        self.count += u64::from(frame.messages());
        let place = Place { stream, sequence: self.next_sequence, count: self.count, attempt: 0, start };
        self.next_sequence += 1;
        self.closed.push_back((place, frame));
    }
}

fn choice(id: MessageId, group: &Group) -> Option<Choice> {
    let index = choose(id, group.holders.iter().map(|holder| holder.to_bytes()))?;
    let member = NodeKey::of(group.holders.get(index)?)?;
    Some(Choice { group: group.name.to_string(), member })
}

/// Fragment numbers: a message of 1 MiB has a few dozen.
fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;
    use crate::wire::MeshId;
    use crate::wire::frame::{MAX_FRAME, shard_of};

    const MESH: MeshId = MeshId([7; 16]);

    fn next(outgoing: &mut Outgoing) -> Option<(Place, FrameBuilder)> {
        outgoing.take(|_, next| next.is_allowed())
    }

    fn node() -> (Keypair, Outgoing) {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("a key");
        let outgoing = Outgoing::new(key.public().to_peer_id(), 5, [9; 8], 8 << 20);
        (key, outgoing)
    }

    fn draft<'a>(topic: &'a str, headers: &'a Headers, payload: &'a [u8]) -> Draft<'a> {
        Draft { topic, shard: shard_of(topic), content_type: "text/plain", headers, groups: &[], payload }
    }

    #[test]
    fn what_waits_together_shares_a_frame_and_numbers_run_on() {
        let (key, mut outgoing) = node();
        let headers = Headers::default();
        for text in ["one", "two"] {
            outgoing.append(&draft("a.b", &headers, text.as_bytes()), Wall(10)).expect("appended");
        }
        let (place, builder) = next(&mut outgoing).expect("a frame");
        assert_eq!((place.sequence, place.count), (1, 2));
        let frame = builder.sign(place, MESH, &key).expect("signed");
        let texts: Vec<_> = frame.entries().map(|entry| entry.expect("an entry").payload.to_vec()).collect();
        assert_eq!(texts, [b"one".to_vec(), b"two".to_vec()]);
        assert!(next(&mut outgoing).is_none() && outgoing.is_empty());

        let appended = outgoing.append(&draft("a.b", &headers, b"three"), Wall(11)).expect("appended");
        assert_eq!((appended.sequence, appended.id.counter), (2, 3));
        assert_eq!(next(&mut outgoing).map(|(place, _)| (place.sequence, place.count)), Some((2, 3)));
    }

    #[test]
    fn a_large_message_is_fragmented_and_counted_once() {
        let (key, mut outgoing) = node();
        let payload: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
        outgoing.append(&draft("a", &Headers::default(), &payload), Wall(1)).expect("appended");
        let (mut together, mut count) = (Vec::new(), 0);
        while let Some((place, builder)) = next(&mut outgoing) {
            let frame = builder.sign(place, MESH, &key).expect("signed");
            assert!(frame.bytes.len() <= MAX_FRAME);
            count += frame.header.messages;
            frame.entries().for_each(|entry| together.extend(entry.expect("an entry").payload));
        }
        assert_eq!((count, together), (1, payload));
        assert!(outgoing.is_empty());
    }

    #[test]
    fn large_messages_share_frames_with_what_is_around_them() {
        let (key, mut outgoing) = node();
        let sent: Vec<Vec<u8>> = (0..40_u8).map(|n| vec![n; if n % 8 == 7 { 10 } else { 64 * 1024 }]).collect();
        for payload in &sent {
            outgoing.append(&draft("a", &Headers::default(), payload), Wall(1)).expect("appended");
        }
        let (mut frames, mut together) = (0, Vec::<Vec<u8>>::new());
        while let Some((place, builder)) = next(&mut outgoing) {
            let frame = builder.sign(place, MESH, &key).expect("signed");
            frames += 1;
            for entry in frame.entries() {
                let entry = entry.expect("an entry");
                if entry.fragment.is_none_or(|fragment| fragment.index == 0) {
                    together.push(Vec::new());
                }
                together.last_mut().expect("begun").extend(entry.payload);
            }
        }
        assert_eq!(together, sent);
        let bytes: usize = sent.iter().map(Vec::len).sum();
        let most = bytes.div_ceil(MAX_FRAME - LEAST);
        assert!(
            (bytes.div_ceil(MAX_FRAME)..=most).contains(&frames),
            "{frames} frames: all but the last are full, or nearly"
        );
    }

    #[test]
    fn frames_wait_until_they_are_allowed() {
        let (_, mut outgoing) = node();
        let headers = Headers::default();
        outgoing.append(&draft("a", &headers, b"1"), Wall(1)).expect("appended");
        next(&mut outgoing).expect("nothing forbids it");
        outgoing.allow(shard_of("a"), 1);
        outgoing.append(&draft("a", &headers, b"2"), Wall(1)).expect("appended");
        assert!(next(&mut outgoing).is_none());
        outgoing.allow(shard_of("a"), 2);
        assert!(next(&mut outgoing).is_some());
    }

    #[test]
    fn a_full_queue_refuses_and_takes_again_when_drained() {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("a key");
        let mut outgoing = Outgoing::new(key.public().to_peer_id(), 5, [9; 8], 10_000);
        let (headers, payload) = (Headers::default(), [0; 4_000]);
        let accepted =
            (0..10).take_while(|_| outgoing.append(&draft("a", &headers, &payload), Wall(1)).is_ok()).count();
        assert_eq!(accepted, 2);
        assert!(matches!(outgoing.append(&draft("a", &headers, &payload), Wall(1)), Err(Refused::Full)));
        next(&mut outgoing).expect("a frame");
        assert!(outgoing.is_empty());
        outgoing.append(&draft("a", &headers, &payload), Wall(1)).expect("room again");
    }

    #[test]
    fn the_first_that_waits_on_a_shard_says_so() {
        let (_, mut outgoing) = node();
        let headers = Headers::default();
        let is_first = |outgoing: &mut Outgoing, topic: &str, bytes: usize| {
            outgoing.append(&draft(topic, &headers, &vec![0; bytes]), Wall(1)).expect("appended").is_first
        };
        assert!(is_first(&mut outgoing, "a", 200_000), "of several frames");
        assert!(!is_first(&mut outgoing, "a", 1));
        assert!(is_first(&mut outgoing, "b", 0) && !is_first(&mut outgoing, "b", 1));
        outgoing.allow(shard_of("a"), 0);
        while next(&mut outgoing).is_some() {}
        assert!(!is_first(&mut outgoing, "a", 1) && is_first(&mut outgoing, "b", 1));
    }

    #[test]
    fn what_is_refused_leaves_nothing_that_waits() {
        let (_, mut outgoing) = node();
        let (headers, payload) = (Headers::default(), [0; 200_000]);
        let content_type = "t".repeat(1_000);
        let refused = Draft { content_type: &content_type, ..draft("a", &headers, &payload) };
        assert!(matches!(outgoing.append(&refused, Wall(1)), Err(Refused::Codec(_))));
        assert!(outgoing.is_empty() && next(&mut outgoing).is_none());
    }

    #[test]
    fn every_shard_gets_its_turn() {
        let (_, mut outgoing) = node();
        let headers = Headers::default();
        let topics = ["a", "b", "c", "d"];
        for _ in 0..40 {
            for topic in topics {
                outgoing.append(&draft(topic, &headers, &[0; 8_000]), Wall(1)).expect("appended");
            }
        }
        let order: Vec<_> =
            iter::from_fn(|| next(&mut outgoing).map(|(place, _)| place.stream.shard())).take(8).collect();
        assert_eq!(order[..4], order[4..]);
    }
}
