//! Which lanes stand, what is to be granted on them, and which shards' frames go over them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::Mesh;
use super::event::{LaneId, Output, SubscriberId};
use super::lane::{Inflow, weight};
use super::roster;
use super::routes::Target;
use super::time::{Mono, Now, Span};
use crate::Dissemination;
use crate::wire::frame::{Frame, Kind};
use crate::wire::lane::Mark;

/// Up to so many listeners get frames over lanes. For more, gossip is cheaper for the publisher.
const MOST_DIRECT: usize = 32;
/// A lane that did not come about is asked for again after this time.
const AGAIN: Span = Span::secs(2);

/// The lanes of this node.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    all: BTreeMap<LaneId, Lane>,
    /// When a lane to that peer was asked for last.
    asked: BTreeMap<PeerId, Mono>,
    /// Subscribers that are behind.
    behind: BTreeSet<SubscriberId>,
    /// What came for them, in its order: it is granted as they get on.
    withheld: VecDeque<(LaneId, u64)>,
    /// What they have read of it that makes no whole frame yet.
    read: u64,
}

#[derive(Debug)]
struct Lane {
    peer: PeerId,
    /// Our half stands.
    up: bool,
    inflow: Inflow,
}

impl Lanes {
    fn entry(&mut self, peer: PeerId, lane: LaneId) -> &mut Lane {
        self.all.entry(lane).or_insert(Lane { peer, up: false, inflow: Inflow::default() })
    }

    /// How many stand.
    pub(super) fn count(&self) -> usize {
        self.all.values().filter(|lane| lane.up).count()
    }

    /// The lane that frames go to that peer on.
    fn to(&self, peer: &PeerId) -> Option<LaneId> {
        // The newest: of two connections to a peer that was started anew the older one is dead.
        self.all.iter().rev().find(|(_, lane)| lane.up && lane.peer == *peer).map(|(id, _)| *id)
    }
}

impl Mesh {
    /// Our half of a lane stands.
    pub(super) fn lane_up(&mut self, peer: PeerId, id: LaneId) {
        let lane = self.lanes.entry(peer, id);
        lane.up = true;
        let grant = lane.inflow.grant();
        self.lanes.asked.remove(&peer);
        self.fx.extend(grant.map(|total| Output::Grant { lane: id, total }));
        self.routes_stale = true;
    }

    /// The other side's half stands. What it sends has to be granted on ours.
    pub(super) fn lane_begun(&mut self, peer: PeerId, id: LaneId) {
        if !self.lanes.entry(peer, id).up {
            self.fx.push(Output::OpenLane { peer, lane: Some(id) });
        }
    }

    pub(super) fn lane_down(&mut self, id: LaneId) {
        self.routes_stale |= self.lanes.all.remove(&id).is_some();
    }

    /// More is to be exchanged with a linked peer: it is worth a lane.
    pub(super) fn want_lane(&mut self, peer: PeerId, now: Now) {
        let asked = self.lanes.asked.get(&peer).is_some_and(|at| now.mono - *at < AGAIN);
        if self.dissemination != Dissemination::Gossip
            && !asked
            && self.links.is_linked(&peer)
            && self.lanes.to(&peer).is_none()
        {
            self.lanes.asked.retain(|_, at| now.mono - *at < AGAIN);
            self.lanes.asked.insert(peer, now.mono);
            self.fx.push(Output::OpenLane { peer, lane: None });
        }
    }

    /// A frame came over a lane, from its author.
    pub(super) fn lane_frame(&mut self, frame: &Arc<Frame>, id: LaneId, since: u64, now: Now) {
        let author = frame.stream.node;
        let is_behind = self.subscriptions.readers(frame).any(|subscriber| self.lanes.behind.contains(&subscriber));
        let weight = weight(&frame.bytes);
        // One that has ended meanwhile grants nothing more.
        if let Some(lane) = self.lanes.all.get_mut(&id) {
            if is_behind {
                self.lanes.withheld.push_back((id, weight));
            } else {
                lane.inflow.done(weight);
                self.fx.extend(lane.inflow.grant().map(|total| Output::Grant { lane: id, total }));
            }
        }
        let is_sound = frame.kind == Kind::Messages && !self.ring.contradicts(frame);
        if is_sound && self.joined.contains(frame.stream.shard()) && !self.is_replayed(frame, now) {
            let before = (frame.header.sequence - 1, frame.count_before());
            self.nothing_between(&frame.stream, since, before, now);
            self.read(frame, author, now);
        }
    }

    /// An author says what of its stream is not for us.
    pub(super) fn marked(&mut self, from: PeerId, mark: &Mark, now: Now) {
        if let Some(stream) = mark.stream().filter(|stream| stream.node == from) {
            self.nothing_between(&stream, mark.since, (mark.up_to, mark.count), now);
        }
    }

    /// So much waits for a subscriber that those who write to it should wait.
    pub(super) fn behind(&mut self, subscriber: SubscriberId) {
        self.lanes.behind.insert(subscriber);
    }

    /// A subscriber that is behind has read so much. Of several the fastest sets the pace: the mailbox of each has a bound of
    /// its own.
    pub(super) fn progress(&mut self, subscriber: SubscriberId, weight: u64, caught_up: bool) {
        if caught_up {
            self.lanes.behind.remove(&subscriber);
        }
        let Self { lanes: Lanes { all, behind, withheld, read, .. }, fx, .. } = self;
        *read = if behind.is_empty() { u64::MAX } else { read.saturating_add(weight) };
        while let Some((id, weight)) = withheld.front().copied().filter(|(_, weight)| *weight <= *read) {
            withheld.pop_front();
            *read -= weight;
            if let Some(lane) = all.get_mut(&id) {
                lane.inflow.done(weight);
                // At once: its writer has waited for it.
                fx.extend(lane.inflow.grant_all().map(|total| Output::Grant { lane: id, total }));
            }
        }
        if withheld.is_empty() {
            *read = 0;
        }
    }

    /// Which shards' frames go over lanes, and to whom: those that are published to here, all of whose listeners are
    /// neighbours with a lane, and not too many. Lanes that are missing for it are asked for.
    pub(super) fn ways(&mut self, now: Now) -> BTreeMap<u8, Arc<[Target]>> {
        let most = match self.dissemination {
            Dissemination::Adaptive => MOST_DIRECT,
            Dissemination::Direct => usize::MAX,
            Dissemination::Gossip => 0,
        };
        let mut ways = BTreeMap::new();
        if self.short_lived || most == 0 {
            return ways;
        }
        for shard in self.known.publishing() {
            let listens = |known: &&roster::Known| known.shards().contains(shard);
            let listeners: Vec<_> = self.roster.live().filter(listens).map(roster::Known::peer).collect();
            let direct = !listeners.is_empty()
                && listeners.len() <= most
                && listeners.iter().all(|peer| self.links.is_linked(peer));
            if !direct {
                continue;
            }
            let relays: Vec<_> = self.known.relays().filter(|peer| !listeners.contains(peer)).collect();
            listeners.iter().chain(&relays).for_each(|peer| self.want_lane(*peer, now));
            let target = |peer: &PeerId| {
                let interests = self.roster.get(peer)?.interests();
                Some(Target { lane: self.lanes.to(peer)?, interests })
            };
            let targets: Option<Vec<_>> = listeners.iter().map(target).collect();
            if let Some(mut targets) = targets {
                targets.extend(relays.iter().filter_map(target));
                ways.insert(shard, targets.into());
            }
        }
        ways
    }
}
