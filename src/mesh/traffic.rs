//! What is published: frames of this node on their way out, frames of others on their way to the local subscribers, and
//! everything that makes up for what gossip loses on the way.

use std::sync::Arc;

use libp2p_identity::PeerId;

use super::Mesh;
use super::effects::Asked;
use super::event::{
    Checked, Delivery, GossipId, InboundId, Lag, Output, RpcFailure, SubscriberId, Unsigned, Verdict, Via,
};
use super::inbound::{REPLAY, Ready, Wish};
use super::time::{Mono, Now, Span, Wall};
use crate::wire::frame::{Frame, Kind, Place, Stream};
use crate::wire::rpc::{Position, Request, Response, StreamRef};

/// How often some neighbour is told where the streams stand that it listens to.
pub(super) const HEARSAY: Span = Span::secs(5);
/// Streams that did not move for so long are not spoken of.
const ACTIVE: Span = Span::secs(60);
/// The most streams in one telling.
const POSITIONS: usize = 1_024;
/// When a frame that all queues refused is signed again, and how often.
const AGAIN: Span = Span::millis(100);
const ATTEMPTS: u8 = 3;
/// Refused frames that are kept for it. Those beyond it are repaired from the ring.
const REFUSED: usize = 64;
/// Tellings that may wait for their answer at once.
const OPEN_CLAIMS: usize = 256;

/// Frames that gossipsub refused, until they are tried again.
#[derive(Debug, Default)]
pub(super) struct Refused {
    frames: Vec<(Mono, Arc<Frame>)>,
}

/// Neighbours that told where streams stand, and wait until we have what they spoke of.
#[derive(Debug, Default)]
pub(super) struct Claims {
    open: Vec<(InboundId, Vec<(Stream, u64)>)>,
    /// Something came, or was given up, since they were looked at.
    stale: bool,
}

impl Refused {
    pub(super) fn put(&mut self, frame: Arc<Frame>, now: Mono) {
        if frame.header.attempt < ATTEMPTS && self.frames.len() < REFUSED {
            self.frames.push((now + AGAIN, frame));
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.frames.iter().map(|(at, _)| *at).min()
    }

    fn due(&mut self, now: Mono) -> impl Iterator<Item = Arc<Frame>> {
        self.frames.extract_if(.., move |(at, _)| *at <= now).map(|(_, frame)| frame)
    }
}

impl Mesh {
    /// A frame of this node is signed and ready.
    pub(super) fn published(&mut self, frame: Arc<Frame>, via: Via, now: Now) {
        self.ring.keep(&frame, now.mono);
        self.deliver(&frame);
        if self.short_lived {
            self.inject.frame(frame);
            return;
        }
        self.heads.moved(place(&frame), self.limits.streams, now.mono);
        let shard = frame.stream.shard();
        let Self { pace, known, fx, .. } = self;
        if via == Via::OwnOverLanes {
            pace.passed(shard, frame.header.sequence, now.mono, fx);
            return;
        }
        pace.sent(shard, frame.header.sequence, known.readers(shard), now.mono, fx);
        self.fx.push(Output::Gossip { frame });
    }

    /// A frame came by gossip, and its signature is right.
    pub(super) fn gossip(&mut self, frame: &Arc<Frame>, from: PeerId, gossip: GossipId, now: Now) {
        // What contradicts itself is its author's doing; whoever passed it on may not know.
        let verdict = if self.is_replayed(frame, now)
            || !self.joined.contains(frame.stream.shard())
            || self.ring.contradicts(frame)
        {
            Verdict::Ignore
        } else {
            self.read(frame, from, now);
            self.acknowledge_gossip(frame, now);
            // Also what came by repair before: others may have missed it as we did.
            Verdict::Accept
        };
        self.fx.push(Output::Judge { from, gossip, verdict });
    }

    /// A neighbour's queue overflows. One that takes nothing out of it any more is let go, and its queue with it.
    pub(super) fn slow(&mut self, peer: PeerId, now: Now) {
        if self.pace.is_stuck(&peer, now.mono) {
            self.fx.push(Output::Disconnect { peer });
        }
    }

    /// Its author says that nothing of a stream between two places is for this node.
    pub(super) fn nothing_between(&mut self, stream: &Stream, since: u64, up_to: (u64, u64), now: Now) {
        let mut ready = Vec::new();
        self.inbound.nothing_between(stream, since, up_to, now.mono, &mut ready);
        self.hand_on(ready);
    }

    /// Takes a frame of another node in. Says whether it was new.
    pub(super) fn read(&mut self, frame: &Arc<Frame>, from: PeerId, now: Now) -> bool {
        let mut ready = Vec::new();
        let lasting = self.lasts(&frame.stream);
        let is_new = self.inbound.frame(frame, from, lasting, now.mono, &mut ready);
        if is_new && frame.kind == Kind::Messages {
            self.ring.keep(frame, now.mono);
        }
        self.hand_on(ready);
        is_new
    }

    /// A frame came by gossip. If its author is a neighbour, it waits for word of that.
    fn acknowledge_gossip(&mut self, frame: &Frame, now: Now) {
        let stream = frame.stream;
        if self.links.is_linked(&stream.node)
            && let Some(sequence) = self.acknowledgements.read(stream, frame.header.sequence, now.mono)
        {
            self.acknowledge(&[(stream, sequence)]);
        }
    }

    /// Whether the author of a stream is in the roster, so that it is no short-lived one.
    fn lasts(&self, stream: &Stream) -> bool {
        self.roster.incarnation(&stream.node) == Some(stream.incarnation)
    }

    /// Whether a frame is from before its author's last start, or so old that somebody must have kept it for later.
    pub(super) fn is_replayed(&self, frame: &Frame, now: Now) -> bool {
        let Stream { node, incarnation, .. } = frame.stream;
        if node == self.me {
            return true;
        }
        match self.roster.incarnation(&node) {
            Some(current) if incarnation < current => true,
            Some(current) if incarnation == current => false,
            Some(_) | None => !self.inbound.knows(&frame.stream) && now.wall - Wall(frame.header.time) > REPLAY,
        }
    }

    /// Gives what is in order to the subscribers.
    fn hand_on(&mut self, ready: Vec<Ready>) {
        self.claims.stale |= !self.claims.open.is_empty();
        for ready in ready {
            match ready {
                Ready::Frame(frame) => self.deliver(&frame),
                Ready::Lost { stream, missed, exact } => {
                    for (subscriber, wants_all) in self.subscriptions.on_shard(stream.shard()) {
                        let delivery = Delivery::Lagged(Lag { missed, exact: exact && wants_all });
                        self.fx.push(Output::Deliver { subscriber, delivery });
                    }
                }
            }
        }
    }

    fn deliver(&mut self, frame: &Arc<Frame>) {
        for subscriber in self.subscriptions.readers(frame) {
            let delivery = Delivery::Frame(Arc::clone(frame), Arc::clone(&self.routes));
            self.fx.push(Output::Deliver { subscriber, delivery });
        }
    }

    /// What a subscriber misses that has no room for a frame. A question and no input: it has to stand where the frame would.
    pub(crate) fn gap(&self, subscriber: SubscriberId, frame: &Frame) -> Option<Lag> {
        let (missed, exact) = self.subscriptions.count(subscriber, frame);
        (missed > 0).then_some(Lag { missed, exact })
    }

    /// A short-lived neighbour hands its frames over: they are ours to pass on now.
    pub(super) fn injected(&mut self, from: PeerId, id: InboundId, frames: &[Arc<Frame>], now: Now) {
        let mut taken = 0;
        let mut listeners = 0;
        // A node that is about to end can neither repeat them nor repair what gets lost of them.
        let ends = self.leaving.is_some() || (self.short_lived && !self.roster.speaks());
        for frame in frames.iter().filter(|frame| !ends && frame.kind == Kind::Messages) {
            // From its author itself it is no replay, whatever the author's clock says.
            if frame.stream.node == self.me || (frame.stream.node != from && self.is_replayed(frame, now)) {
                continue;
            }
            taken += 1;
            let heard = frame.header.topics.iter().map(|topic| self.listeners(topic, from)).max();
            listeners = listeners.max(heard.unwrap_or(0));
            let is_new = if self.joined.contains(frame.stream.shard()) {
                self.read(frame, from, now)
            } else {
                self.ring.keep(frame, now.mono)
            };
            if is_new {
                self.heads.moved(place(frame), self.limits.streams, now.mono);
                self.fx.push(Output::Gossip { frame: Arc::clone(frame) });
            }
        }
        self.fx.reply(id, Response::Injected { taken, listeners, extensions: Vec::new() });
    }

    /// Somebody missed frames.
    pub(super) fn repair(&mut self, from: PeerId, id: InboundId, stream: StreamRef, first: u64, last: u64) {
        let repair = stream.stream().map(|stream| {
            let owed_since = self.roster.wanted_since(&from, stream.shard());
            self.ring.repair(&stream, first, last, owed_since)
        });
        let repair = repair.unwrap_or_default();
        let frames = repair.frames.iter().map(|frame| frame.bytes.clone()).collect();
        let Self { fx, .. } = self;
        fx.reply(id, Response::Frames { frames, floor: repair.floor, more: repair.more, extensions: Vec::new() });
    }

    /// Somebody answered what we had missed.
    pub(super) fn repaired(&mut self, stream: Stream, result: Result<Checked<Response>, RpcFailure>, now: Now) {
        let Ok(Checked { body: Response::Frames { floor, .. }, frames, .. }) = result else {
            self.inbound.not_repaired(stream, now.mono);
            return;
        };
        let mut ready = Vec::new();
        for frame in self.inbound.repaired(stream, &frames, floor, now.mono, &mut ready) {
            self.ring.keep(&frame, now.mono);
        }
        self.hand_on(ready);
    }

    fn ask_for_repair(&mut self, wish: &Wish, now: Now) {
        let Wish { stream, from, to, .. } = *wish;
        let sources = self.sources(wish);
        // Those that were not asked yet first: who is linked may change from one time to the next.
        let fresh = sources.iter().find(|peer| !wish.asked.contains(peer));
        // With nobody to ask, the gap's own deadline ends it.
        match (fresh, StreamRef::of(&stream)) {
            (Some(peer), Some(reference)) => {
                self.inbound.asks(&stream, *peer);
                let request = Request::Repair { stream: reference, from, to, extensions: Vec::new() };
                self.fx.ask(*peer, request, Asked::Repair { stream, from, to });
            }
            (None, _) => self.inbound.asked_all(stream, now.mono),
            (Some(_), None) => {}
        }
    }

    /// Who may have a stream's frames: its author first, then who sent the last one, then the others who listen or pass on.
    fn sources(&self, wish: &Wish) -> Vec<PeerId> {
        let shard = wish.stream.shard();
        let mut sources: Vec<PeerId> = Vec::new();
        let others = self.known.readers(shard).chain(self.known.relays());
        for peer in [Some(wish.stream.node), wish.heard_from].into_iter().flatten().chain(others) {
            if self.links.is_linked(&peer) && !sources.contains(&peer) {
                sources.push(peer);
            }
        }
        sources
    }

    /// A neighbour has read so far of what this node publishes.
    pub(super) fn acknowledged(&mut self, from: PeerId, id: InboundId, positions: &[Position], now: Now) {
        for position in positions {
            let own = position.stream.stream().filter(|stream| stream.node == self.me);
            if let Some(stream) = own.filter(|stream| stream.incarnation == self.incarnation) {
                self.pace.acknowledged(from, stream.shard(), position.sequence, now.mono, &mut self.fx);
            }
        }
        self.fx.reply(id, Response::done());
    }

    fn acknowledge(&mut self, due: &[(Stream, u64)]) {
        for (stream, sequence) in due {
            let Some(reference) = StreamRef::of(stream) else { continue };
            let positions = vec![Position { stream: reference, sequence: *sequence, count: 0 }];
            self.fx.ask(stream.node, Request::Acknowledge { positions, extensions: Vec::new() }, Asked::Told);
        }
    }

    /// A neighbour says how far streams have come that we listen to.
    pub(super) fn claimed(&mut self, from: PeerId, id: InboundId, positions: &[Position], now: Now) {
        let (mut ready, mut spoken) = (Vec::new(), Vec::new());
        for position in positions.iter().take(POSITIONS) {
            let Some(stream) = position.stream.stream() else { continue };
            let is_old = self.roster.incarnation(&stream.node).is_some_and(|current| stream.incarnation < current);
            if stream.node != self.me && !is_old && self.joined.contains(stream.shard()) {
                spoken.push((stream, position.sequence));
                let lasting = self.lasts(&stream);
                self.inbound.claim((stream, position.sequence), from, lasting, now.mono, &mut ready);
            }
        }
        self.hand_on(ready);
        match self.claims.open.len() {
            OPEN_CLAIMS.. => self.fx.reply(id, Response::done()),
            _ => {
                self.claims.open.push((id, spoken));
                self.claims.stale = true;
            }
        }
    }

    /// Answers those who told where streams stand, as soon as we have what they spoke of or hope for it no more: one that
    /// is about to leave waits for that.
    pub(super) fn answer_heads(&mut self) {
        let Self { claims, inbound, fx, .. } = self;
        if !std::mem::take(&mut claims.stale) {
            return;
        }
        for (id, _) in claims.open.extract_if(.., |(_, spoken)| {
            spoken.retain(|(stream, sequence)| !inbound.has_reached(stream, *sequence));
            spoken.is_empty()
        }) {
            fx.reply(id, Response::done());
        }
    }

    /// Tells a neighbour where the streams stand that it listens to, of everybody or of one node. Says whether there was
    /// anything to tell.
    pub(super) fn tell_positions(&mut self, to: PeerId, of: Option<PeerId>, asked: Asked, now: Now) -> bool {
        let active_since = Mono(now.mono.0.saturating_sub(ACTIVE.0));
        let listens = self.known.shards_of(&to);
        let owed_since = |shard| self.roster.wanted_since(&to, shard).filter(|_| listens.contains(shard));
        let mut positions = self.ring.positions(of, active_since, owed_since);
        positions.retain(|position| position.stream.stream().is_some_and(|stream| stream.node != to));
        positions.truncate(POSITIONS);
        let anything = !positions.is_empty();
        if anything {
            self.fx.ask(to, Request::Heads { positions, extensions: Vec::new() }, asked);
        }
        anything
    }

    /// A node is gone: whoever listened to it may have missed its last frames.
    pub(super) fn speak_for(&mut self, gone: PeerId, now: Now) {
        let linked: Vec<_> = self.links.linked().copied().collect();
        for peer in linked {
            self.tell_positions(peer, Some(gone), Asked::Told, now);
        }
    }

    /// Tells the neighbours where this node's streams stand, before it leaves. Says how many were told.
    pub(super) fn last_heads(&mut self, now: Now) -> usize {
        let linked: Vec<_> = self.links.linked().copied().collect();
        let me = self.me;
        linked.into_iter().filter(|peer| self.tell_positions(*peer, Some(me), Asked::LastHeads, now)).count()
    }

    /// Repeats where streams stand.
    fn repeat(&mut self, places: Vec<(Place, bool)>, now: Now) {
        for (place, for_the_last_time) in places {
            let own = place.stream.node == self.me;
            if own {
                self.fx.push(Output::Sign(Unsigned::Head { place, time: now.wall.0 }));
            }
            // What short-lived nodes handed over we cannot sign for, but we have their frames. And the last head of our own
            // does not depend on gossip, which may have lost every one before.
            if !own || for_the_last_time {
                self.tell_place(&place);
            }
        }
    }

    fn tell_place(&mut self, place: &Place) {
        let Some(stream) = StreamRef::of(&place.stream) else { return };
        let positions = vec![Position { stream, sequence: place.sequence, count: place.count }];
        let readers: Vec<_> = self.known.readers(place.stream.shard()).collect();
        for peer in readers {
            let request = Request::Heads { positions: positions.clone(), extensions: Vec::new() };
            self.fx.ask(peer, request, Asked::Told);
        }
    }

    pub(super) fn traffic_timeout(&mut self, now: Now) {
        let mut ready = Vec::new();
        let wishes = self.inbound.on_timeout(now.mono, &mut ready);
        self.hand_on(ready);
        wishes.iter().for_each(|wish| self.ask_for_repair(wish, now));
        let due = self.acknowledgements.due(now.mono);
        self.acknowledge(&due);
        let places = self.heads.due(now.mono);
        self.repeat(places, now);
        for frame in self.refused.due(now.mono) {
            let attempt = frame.header.attempt + 1;
            self.fx.push(Output::Sign(Unsigned::Again { frame, attempt }));
        }
        if self.hearsay_at <= now.mono {
            self.hearsay_at = now.mono + self.fx.jitter(HEARSAY);
            let mut linked: Vec<_> = self.links.linked().copied().collect();
            // A relay may be all that connects two others.
            if !self.relay && !linked.is_empty() {
                linked = vec![linked.swap_remove(self.fx.below(linked.len()))];
            }
            for peer in linked {
                self.tell_positions(peer, None, Asked::Told, now);
            }
        }
    }
}

/// Where a stream stands after this frame.
fn place(frame: &Frame) -> Place {
    let header = &frame.header;
    Place { stream: frame.stream, sequence: header.sequence, count: header.count, attempt: 0, start: header.start }
}
