//! The streams of others, put back in order: duplicates dropped, gaps noticed, repaired, and told when they stay.
//!
//! A stream's frames come by gossip, out of order, twice, or not at all. What leaves here is every frame once and in
//! order, or [`Ready::Lost`] in its place. Nothing is lost in silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use libp2p_identity::PeerId;

use self::stream::{Hearsay, InStream};
use super::time::{Mono, Span};
use crate::wire::frame::{Frame, Kind, Stream};

mod stream;

/// How long a gap may be mere reordering before somebody is asked.
const REORDER: Span = Span::millis(10);
/// How long frames are held back behind a gap.
const HOLD: Span = Span::millis(250);
/// How long a lost tail is asked for. Nothing is held back meanwhile.
const TAIL: Span = Span::secs(3);
/// How long an answer to a request for repair is waited for before another node is asked.
const ANSWER: Span = Span::millis(100);
/// The pause when everybody was asked in vain.
const AGAIN: Span = Span::millis(30);
/// All streams together may hold back so many times what one may.
const MOST_HELD: usize = 16;
/// So long after this node began to listen to a shard, streams that it hears of for the first time may have begun before.
const NEWCOMER: Span = Span::secs(5);
/// Frames this old of streams that nobody knows are taken for replayed ones. Also how long an evicted stream's frames
/// may still come.
pub(crate) const REPLAY: Span = Span::secs(120);

/// What can be handed on.
#[derive(Clone, Debug)]
pub(crate) enum Ready {
    Frame(Arc<Frame>),
    /// So many messages of this stream are gone, or at most so many.
    Lost {
        stream: Stream,
        missed: u64,
        exact: bool,
    },
}

/// Somebody has to be asked for frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) stream: Stream,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Who sent the last frame of the stream.
    pub(crate) heard_from: Option<PeerId>,
    /// Who was asked for it before, in vain.
    pub(crate) asked: Vec<PeerId>,
}

/// All streams of others that this node follows.
#[derive(Debug)]
pub(crate) struct Inbound {
    streams: BTreeMap<Stream, InStream>,
    timers: BTreeSet<(Mono, Stream)>,
    /// Streams by when they were last used.
    used: BTreeMap<u64, Stream>,
    tick: u64,
    /// The shards that this node listens to, and since when.
    joined: BTreeMap<u8, Mono>,
    /// When one was forgotten that had been heard a short time before.
    evicted: Option<Mono>,
    /// Whether any was ever forgotten for room.
    has_evicted: bool,
    /// The bytes of all frames that are held back.
    held: usize,
    max_streams: usize,
    max_held: usize,
}

impl Inbound {
    pub(crate) fn new(max_streams: usize, max_held: usize) -> Self {
        Self {
            streams: BTreeMap::new(),
            timers: BTreeSet::new(),
            used: BTreeMap::new(),
            tick: 0,
            joined: BTreeMap::new(),
            evicted: None,
            has_evicted: false,
            held: 0,
            max_streams: max_streams.max(1),
            max_held,
        }
    }

    /// How many streams are followed.
    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The bytes of all frames that are held back.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Whether the stream has live state here.
    pub(crate) fn knows(&self, stream: &Stream) -> bool {
        self.streams.contains_key(stream)
    }

    /// Whether everything up to there was handed on, or is not hoped for any more.
    pub(crate) fn has_reached(&self, stream: &Stream, sequence: u64) -> bool {
        self.streams.get(stream).is_none_or(|state| {
            let target = state.target();
            target < sequence || state.next.is_some_and(|next| next > sequence)
        })
    }

    /// A frame or head came. `lasting`: its author stays, so this may be a stream that was followed before. Says whether it
    /// was new.
    pub(crate) fn frame(
        &mut self,
        frame: &Arc<Frame>,
        from: PeerId,
        lasting: bool,
        now: Mono,
        ready: &mut Vec<Ready>,
    ) -> bool {
        let stream = frame.stream;
        let fresh_start = self.is_complete(lasting, now);
        let state = self.touch(stream, now);
        state.heard_from = Some(from);
        state.proven = state.proven.max((frame.header.sequence, frame.header.count));
        state.doubt(frame, now, ready);
        let is_new = match frame.kind {
            Kind::Head => state.next.is_none_or(|next| frame.header.sequence >= next),
            Kind::Messages => state.hold(frame),
        };
        // A stream that was forgotten for room: asking for its past would hand the same messages on twice.
        if state.next.is_none() && !fresh_start {
            state.start_at_first();
        }
        self.advance(stream, now, ready);
        is_new
    }

    /// Whether a stream that is not known here was never followed: none like it was forgotten for room. One whose author
    /// lasts may have been silent for days before, one of a short-lived author is new or not older than replayed frames.
    fn is_complete(&self, lasting: bool, now: Mono) -> bool {
        match self.evicted {
            Some(evicted) => !lasting && now - evicted > REPLAY,
            None => !(lasting && self.has_evicted),
        }
    }

    /// A neighbour claims that a stream has come so far.
    pub(crate) fn claim(
        &mut self,
        (stream, sequence): (Stream, u64),
        from: PeerId,
        lasting: bool,
        now: Mono,
        ready: &mut Vec<Ready>,
    ) {
        if !self.knows(&stream) && !self.is_complete(lasting, now) {
            return;
        }
        let state = self.touch(stream, now);
        state.claimed = state.claimed.max(sequence);
        state.heard_from = Some(from);
        self.advance(stream, now, ready);
    }

    /// Its author says that behind `since` nothing of the stream is for us, up to `up_to`, with so many messages in all. That
    /// holds if what came before is here.
    pub(crate) fn nothing_between(
        &mut self,
        stream: &Stream,
        since: u64,
        (up_to, count): (u64, u64),
        now: Mono,
        ready: &mut Vec<Ready>,
    ) {
        let Some(state) = self.streams.get_mut(stream) else { return };
        if state.next.is_some_and(|next| since < next && next <= up_to) {
            (state.next, state.count, state.hearsay) = (Some(up_to + 1), Some(count), None);
            state.proven = state.proven.max((up_to, count));
            state.drop_below_next();
            self.advance(*stream, now, ready);
        }
    }

    /// Somebody answered a request for repair.
    pub(crate) fn repaired(
        &mut self,
        stream: Stream,
        frames: &[Arc<Frame>],
        floor: u64,
        now: Mono,
        ready: &mut Vec<Ready>,
    ) -> Vec<Arc<Frame>> {
        let Some(state) = self.streams.get_mut(&stream) else { return Vec::new() };
        state.asking = false;
        if state.next.is_none() && (floor > 0 || !frames.is_empty()) {
            state.next = Some(floor + 1);
            state.count = (floor == 0).then_some(0);
            let last = state.proven.0;
            state.hearsay = (floor > last).then_some(Hearsay { since: now, last, before: None });
            state.drop_below_next();
        }
        let fresh: Vec<_> =
            frames.iter().filter(|frame| frame.stream == stream && state.hold(frame)).map(Arc::clone).collect();
        state.ask_at = now;
        if !fresh.is_empty() {
            state.asked.clear();
            state.missing_since = Some(now);
            let last = fresh.iter().map(|frame| (frame.header.sequence, frame.header.count)).max();
            state.proven = state.proven.max(last.unwrap_or_default());
        }
        self.advance(stream, now, ready);
        fresh
    }

    /// That one is asked for what is missing of a stream.
    pub(crate) fn asks(&mut self, stream: &Stream, peer: PeerId) {
        if let Some(state) = self.streams.get_mut(stream) {
            state.asked.push(peer);
        }
    }

    /// Everybody was asked. After a while they may have it.
    pub(crate) fn asked_all(&mut self, stream: Stream, now: Mono) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.asked.clear();
            state.asking = false;
            state.ask_at = now + AGAIN;
            self.set_timer(stream, now);
        }
    }

    /// Nobody answered a request for repair.
    pub(crate) fn not_repaired(&mut self, stream: Stream, now: Mono) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.asking = false;
            state.ask_at = now;
            self.set_timer(stream, now);
        }
    }

    /// From now on this node listens to a shard.
    pub(crate) fn join(&mut self, shard: u8, now: Mono) {
        self.joined.insert(shard, now);
    }

    /// Whether this node has listened for so long that whoever published before it did is known by now.
    fn is_settled(&self, shard: u8, now: Mono) -> bool {
        self.joined.get(&shard).is_some_and(|since| now - *since > NEWCOMER)
    }

    /// Forgets the streams of a shard: this node does not listen there any more.
    pub(crate) fn leave(&mut self, shard: u8) {
        self.joined.remove(&shard);
        let gone: Vec<_> = self.streams.keys().filter(|stream| stream.shard() == shard).copied().collect();
        gone.into_iter().for_each(|stream| self.forget(stream));
    }

    /// Forgets the streams of a node from before this start, or all of them without one: no more of them will come. Where
    /// something is still being repaired, that goes on, and the stream goes with the next start.
    pub(crate) fn ended(&mut self, node: PeerId, start: Option<u64>) {
        let streams = self.streams.range(Stream::first_of(node)..).take_while(|(stream, _)| stream.node == node);
        let is_over = |stream: &Stream| start.is_none_or(|start| stream.incarnation < start);
        let over = streams.filter(|(stream, state)| is_over(stream) && !state.has_gap()).map(|(stream, _)| *stream);
        over.collect::<Vec<_>>().into_iter().for_each(|stream| self.forget(stream));
    }

    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Time passed: gaps that stayed are given up, and those that can be repaired are asked for.
    pub(crate) fn on_timeout(&mut self, now: Mono, ready: &mut Vec<Ready>) -> Vec<Wish> {
        let mut wishes = Vec::new();
        while let Some((at, stream)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, stream));
            let settled = self.is_settled(stream.shard(), now);
            let Some(state) = self.streams.get_mut(&stream) else { continue };
            state.timer = None;
            if state.given_up_at().is_some_and(|at| at <= now) {
                state.give_up(stream, settled, ready);
                self.advance(stream, now, ready);
                continue;
            }
            if state.ask_at <= now {
                wishes.extend(state.wish(stream));
                state.ask_at = now + ANSWER;
                state.asking = true;
            }
            self.set_timer(stream, now);
        }
        wishes
    }

    fn touch(&mut self, stream: Stream, now: Mono) -> &mut InStream {
        self.tick += 1;
        let tick = self.tick;
        if !self.streams.contains_key(&stream)
            && self.streams.len() >= self.max_streams
            && let Some(oldest) = self.used.values().next().copied()
        {
            self.has_evicted = true;
            // What has been silent for long is past the time in which its frames may still be on their way.
            if self.streams.get(&oldest).is_some_and(|state| now - state.used_at <= REPLAY) {
                self.evicted = Some(now);
            }
            self.forget(oldest);
        }
        let state = self.streams.entry(stream).or_default();
        self.used.remove(&state.used);
        state.used = tick;
        state.used_at = now;
        self.used.insert(tick, stream);
        state
    }

    fn forget(&mut self, stream: Stream) {
        if let Some(state) = self.streams.remove(&stream) {
            self.used.remove(&state.used);
            self.held = self.held.saturating_sub(state.counted);
            if let Some(at) = state.timer {
                self.timers.remove(&(at, stream));
            }
        }
    }

    fn advance(&mut self, stream: Stream, now: Mono, ready: &mut Vec<Ready>) {
        let settled = self.is_settled(stream.shard(), now);
        let Some(state) = self.streams.get_mut(&stream) else { return };
        loop {
            state.hand_on(ready);
            self.held = self.held.saturating_sub(state.counted) + state.held_bytes;
            state.counted = state.held_bytes;
            let too_much = state.held_bytes > self.max_held || self.held > MOST_HELD * self.max_held;
            if !too_much || state.held.is_empty() {
                break;
            }
            state.give_up(stream, settled, ready);
        }
        if !state.has_gap() {
            state.missing_since = None;
            state.asked.clear();
        } else if state.missing_since.is_none() {
            state.missing_since = Some(now);
            // Behind a gap more may just be on its way; a start or a tail that is missing does not come by itself.
            let reordered = state.next.is_some() && !state.held.is_empty();
            state.ask_at = if reordered { now + REORDER } else { now };
        }
        self.set_timer(stream, now);
    }

    fn set_timer(&mut self, stream: Stream, now: Mono) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        if let Some(at) = state.timer.take() {
            self.timers.remove(&(at, stream));
        }
        if let Some(give_up) = state.given_up_at() {
            let at = give_up.min(state.ask_at).max(now);
            state.timer = Some(at);
            self.timers.insert((at, stream));
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;
    use crate::wire::frame::{Channel, FrameBuilder, Outbound, Place, shard_of};
    use crate::{Headers, MeshId};

    fn frame(author: u8, sequence: u64) -> Arc<Frame> {
        frame_of([author; 32], sequence)
    }

    fn frame_of(author: [u8; 32], sequence: u64) -> Arc<Frame> {
        let key = Keypair::ed25519_from_bytes(author).expect("a key");
        let mut builder = FrameBuilder::default();
        let message = Outbound {
            topic: "a",
            content_type: "",
            headers: &Headers::default(),
            choices: &[],
            counter: sequence,
            time: 1,
            fragment: None,
            payload: b"x",
        };
        builder.push(&message).expect("fits");
        let channel = Channel::Shard(shard_of("a"));
        let stream = Stream { node: key.public().to_peer_id(), incarnation: 1, channel };
        let place = Place { stream, sequence, count: sequence, attempt: 0, start: [1; 8] };
        Arc::new(builder.sign(place, MeshId([1; 16]), &key).expect("signed"))
    }

    fn sequences(ready: &[Ready]) -> Vec<u64> {
        let sequence = |one: &Ready| if let Ready::Frame(frame) = one { frame.header.sequence } else { 0 };
        ready.iter().map(sequence).collect()
    }

    #[test]
    fn more_streams_than_are_remembered_take_no_more_room() {
        const STREAMS: u16 = 4_096;
        let (mut inbound, mut ready, from) = (Inbound::new(STREAMS.into(), 1 << 20), Vec::new(), PeerId::random());
        for number in 0..STREAMS + 100 {
            let mut author = [1; 32];
            author[..2].copy_from_slice(&number.to_be_bytes());
            // The first is missing: each has a frame that is held back, and a timer.
            inbound.frame(&frame_of(author, 2), from, false, Mono(0), &mut ready);
        }
        let most = usize::from(STREAMS);
        assert_eq!((inbound.streams.len(), inbound.used.len()), (most, most));
        assert!(inbound.timers.len() <= most && inbound.held <= most * 1_024, "{}", inbound.held);
    }

    /// A neighbour that speaks of frames that nobody signed must not silence their author.
    #[test]
    fn an_author_that_goes_on_below_a_neighbours_word_is_heard() {
        let (mut inbound, mut ready, from) = (Inbound::new(8, 1 << 20), Vec::new(), PeerId::random());
        let stream = frame(1, 1).stream;
        inbound.claim((stream, 1 << 40), from, true, Mono(0), &mut ready);
        inbound.repaired(stream, &[], 1 << 40, Mono(0), &mut ready);
        // It may be that these are from before the subscription; their number is kept in mind.
        inbound.frame(&frame(1, 1), from, true, Mono(0), &mut ready);
        inbound.frame(&frame(1, 2), from, true, Mono(0), &mut ready);
        assert!(ready.is_empty());
        let later = Mono(0) + TAIL + TAIL;
        inbound.on_timeout(later, &mut ready);
        inbound.frame(&frame(1, 3), from, true, later, &mut ready);
        inbound.frame(&frame(1, 4), from, true, later, &mut ready);
        assert!(matches!(ready[0], Ready::Lost { missed: 2, exact: true, .. }), "{ready:?}");
        assert_eq!(sequences(&ready), [0, 3, 4]);
    }

    #[test]
    fn a_neighbours_word_that_the_author_confirms_stands() {
        let (mut inbound, mut ready, from) = (Inbound::new(8, 1 << 20), Vec::new(), PeerId::random());
        let stream = frame(1, 1).stream;
        inbound.claim((stream, 3), from, true, Mono(0), &mut ready);
        inbound.repaired(stream, &[], 3, Mono(0), &mut ready);
        for sequence in [4, 2, 5] {
            inbound.frame(&frame(1, sequence), from, true, Mono(0) + TAIL + TAIL, &mut ready);
        }
        assert_eq!(sequences(&ready), [4, 5], "the second is from before the subscription");
    }

    /// A publisher that speaks once an hour, among many that come and go: its past is not handed on again.
    #[test]
    fn a_stream_that_was_forgotten_for_room_goes_on_where_it_is() {
        let (mut inbound, mut ready, from) = (Inbound::new(1, 1 << 20), Vec::new(), PeerId::random());
        inbound.frame(&frame(1, 1), from, true, Mono(0), &mut ready);
        inbound.frame(&frame(1, 2), from, true, Mono(0), &mut ready);
        let hour = Mono(0) + Span::secs(3_600);
        inbound.frame(&frame(2, 1), from, false, hour, &mut ready);
        inbound.frame(&frame(1, 3), from, true, hour, &mut ready);
        assert_eq!(sequences(&ready), [1, 2, 1, 3]);
        assert!(inbound.on_timeout(hour, &mut ready).is_empty(), "nobody is asked for the past");
        // A short-lived author's first frames may come out of order; they are put in order as ever.
        inbound.frame(&frame(3, 2), from, false, hour + REPLAY + REPLAY, &mut ready);
        inbound.frame(&frame(3, 1), from, false, hour + REPLAY + REPLAY, &mut ready);
        assert_eq!(sequences(&ready), [1, 2, 1, 3, 1, 2]);
    }
}
