//! Which way each frame of this node goes: over the lanes to those who listen, or by gossip.
//!
//! The mesh decides the ways, shard by shard, and says so in [`Routes`]; this follows them frame by frame, without asking
//! it again. All frames of a shard run in one sequence, whichever way they take, so a change of way loses, doubles and
//! reorders nothing: whoever got only what concerns it is told what did not, with a [`Mark`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::event::LaneId;
use super::lane::{Outbox, Room};
use super::outgoing::Outgoing;
use super::routes::{Routes, Target};
use super::time::{Mono, Now};
use crate::wire::frame::{Frame, FrameBuilder, Place, Stream};
use crate::wire::lane::Mark;

/// Whoever is not concerned by this many frames in a row is told so: a gap that it hears of must not send it asking for
/// more than that.
const MARK_EVERY: u64 = 64;

/// The lanes that stand.
pub(crate) trait Lanes {
    /// Does something with what waits to be written on a lane. `None` if it does not stand any more.
    fn with<R>(&mut self, lane: LaneId, act: impl FnOnce(&mut Outbox) -> R) -> Option<R>;
}

/// The frames of this node that did not go out yet, and where those that did went.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) outgoing: Outgoing,
    routes: Arc<Routes>,
    /// For each shard that goes over lanes, what was last said on each.
    trails: BTreeMap<u8, BTreeMap<LaneId, Trail>>,
    /// When the patience with a reader ends for which frames wait.
    wake: Option<Mono>,
}

/// What was said of a stream on a lane.
#[derive(Clone, Copy, Debug)]
struct Trail {
    /// The last frame that concerned its reader.
    since: u64,
    /// The last frame that it knows of.
    told: u64,
}

/// A frame that is to be signed, and its way.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) place: Place,
    pub(crate) builder: FrameBuilder,
    /// Those it goes to over lanes. `None`: it goes by gossip.
    pub(crate) targets: Option<Arc<[Target]>>,
}

impl Dispatch {
    pub(crate) fn new(outgoing: Outgoing) -> Self {
        Self { outgoing, routes: Arc::default(), trails: BTreeMap::new(), wake: None }
    }

    /// From now on these are the ways.
    pub(crate) fn set_routes(&mut self, routes: Arc<Routes>) {
        self.routes = routes;
    }

    /// When to [`take`](Self::take) again though nothing happened.
    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        self.wake
    }

    /// The next frame to sign, if there is one that whoever it goes to has room for.
    pub(crate) fn take(&mut self, lanes: &mut impl Lanes, now: Now) -> Option<Taken> {
        let Self { outgoing, routes, wake, .. } = self;
        *wake = None;
        let taken = outgoing.take(|shard, next| {
            let Some(targets) = routes.ways.get(&shard) else { return next.is_allowed() };
            let rooms = targets.iter().filter_map(|target| lanes.with(target.lane, |outbox| outbox.room(now.mono)));
            let until = rooms.filter_map(|room| if let Room::Until(until) = room { Some(until) } else { None }).min();
            *wake = [*wake, until].into_iter().flatten().min();
            until.is_none()
        });
        let (place, builder) = taken?;
        let targets = self.routes.ways.get(&place.stream.shard()).cloned();
        if targets.is_none() {
            self.tell_of_gossip(&place, builder.messages(), lanes);
        }
        Some(Taken { place, builder, targets })
    }

    /// The first frame of a shard that goes by gossip after some that went over lanes: their readers have what is theirs.
    fn tell_of_gossip(&mut self, place: &Place, messages: u32, lanes: &mut impl Lanes) {
        let before = (place.sequence - 1, place.count.saturating_sub(messages.into()));
        for (lane, trail) in self.trails.remove(&place.stream.shard()).unwrap_or_default() {
            lanes.with(lane, |outbox| tell(outbox, &place.stream, trail.since, before));
        }
    }

    /// Puts a frame that was signed on the lanes of those whom it concerns.
    pub(crate) fn send(&mut self, frame: &Frame, targets: &[Target], lanes: &mut impl Lanes, now: Now) {
        let trails = self.trails.entry(frame.stream.shard()).or_default();
        trails.retain(|lane, _| targets.iter().any(|target| target.lane == *lane));
        let sequence = frame.header.sequence;
        for target in targets {
            // Before that its reader got what concerns it some other way, or asks for it.
            let trail = trails.entry(target.lane).or_insert(Trail { since: sequence - 1, told: sequence - 1 });
            if target.is_concerned_by(frame) {
                // What is dropped for a reader that was cut loose is a gap between this and the next one that it gets.
                lanes.with(target.lane, |outbox| outbox.push_frame(trail.since, frame.bytes.clone(), now.mono));
                *trail = Trail { since: sequence, told: sequence };
            } else if sequence - trail.told >= MARK_EVERY {
                let up_to = (sequence, frame.header.count);
                lanes.with(target.lane, |outbox| tell(outbox, &frame.stream, trail.since, up_to));
                trail.told = sequence;
            }
        }
    }
}

fn tell(outbox: &mut Outbox, stream: &Stream, since: u64, up_to: (u64, u64)) {
    if since < up_to.0
        && let Some(mark) = Mark::new(stream, since, up_to)
    {
        outbox.push_mark(mark);
    }
}
