//! One other node as the roster knows it: its newest record, and whether it is there.

use std::sync::Arc;

use libp2p_identity::PeerId;

use crate::mesh::shards::{ShardSet, shards_of};
use crate::mesh::time::{Mono, Now, Span};
use crate::wire::frame::SHARDS;
use crate::wire::roster::{Durable, Interest, RosterRecord, SignedRecord, Stamp};

/// Unseen for so long, a node is suspect.
pub(super) const SUSPECT_AFTER: Span = Span::secs(60);
/// Unseen for so long, it is forgotten.
pub(super) const FORGET_AFTER: Span = Span::secs(24 * 60 * 60);
/// One with durable subscriptions, also if it said goodbye: they are owed messages for so long.
pub(super) const FORGET_DURABLE: Span = Span::secs(30 * 24 * 60 * 60);
/// So long is remembered that a node said goodbye.
pub(super) const TOMBSTONE: Span = Span::secs(10 * 60);

/// Whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Seen within a minute.
    Live,
    /// Not heard of for a while. Nothing is routed to it.
    Suspect,
    /// It said goodbye.
    Left,
}

/// Another node.
#[derive(Debug)]
pub(crate) struct Known {
    pub(super) signed: SignedRecord,
    pub(super) presence: Presence,
    pub(super) linked: bool,
    /// A link to it went, and it gave no sign of life since.
    pub(super) lost: bool,
    /// After that it could not be dialled: it is suspect before its time. It may be alive and have no way to us only, so
    /// until its time is over others get what they want for it, and nobody is told of it by us.
    pub(super) refused: bool,
    /// When it was last seen: its stamp rose, or its last link went.
    pub(super) seen: Mono,
    /// How far its clock, as of its last record, stood behind ours when that came. A live node's records come with about
    /// the same lag each, whatever its clock says; news of a dead one comes ever later.
    pub(super) lag: Span,
    /// How old the word of others was that it is there, when it was met and not linked. None once it was seen since.
    pub(super) late: Span,
    /// When something becomes of it if nothing is heard: it stands in the table's list of deadlines under this time.
    pub(super) due: Option<Mono>,
    interests: Arc<[Interest]>,
    durables: Arc<[Durable]>,
    shards: ShardSet,
    /// Which shards it has wanted since when. The sets do not overlap, so there are at most 64.
    wanted: Vec<(ShardSet, Mono)>,
}

impl Known {
    pub(super) fn new(signed: SignedRecord, presence: Presence, now: Now) -> Self {
        let lag = lag(&signed.record, now);
        let mut known = Self {
            interests: signed.record.interests.clone().into(),
            durables: durables(&signed.record),
            shards: shards(&signed.record),
            signed,
            presence,
            linked: false,
            lost: false,
            refused: false,
            seen: now.mono,
            lag,
            late: Span(0),
            due: None,
            wanted: Vec::new(),
        };
        known.want(now);
        known
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.signed.node
    }

    pub(crate) fn record(&self) -> &RosterRecord {
        &self.signed.record
    }

    pub(crate) fn name(&self) -> &str {
        &self.signed.record.name
    }

    pub(crate) fn stamp(&self) -> Stamp {
        self.signed.stamp()
    }

    pub(crate) fn presence(&self) -> Presence {
        self.presence
    }

    pub(crate) fn is_live(&self) -> bool {
        self.presence == Presence::Live
    }

    /// Whether it is there and has given a sign of life since a link to it went.
    pub(crate) fn is_seen(&self) -> bool {
        self.is_live() && !self.lost
    }

    /// What it subscribes to. The same allocation for as long as that does not change.
    pub(crate) fn interests(&self) -> Arc<[Interest]> {
        Arc::clone(&self.interests)
    }

    /// Its durable subscriptions, whether or not it is there.
    pub(crate) fn durables(&self) -> &[Durable] {
        &self.durables
    }

    /// The shards that carry what it subscribes to.
    pub(crate) fn shards(&self) -> ShardSet {
        self.shards
    }

    /// Since when this node has known that it wants messages of that shard, without a break.
    pub(super) fn wanted_since(&self, shard: u8) -> Option<Mono> {
        self.wanted.iter().find(|(shards, _)| shards.contains(shard)).map(|(_, since)| *since)
    }

    /// Whether a record is a sign of life: it comes with no more lag than the last one did, and a minute.
    pub(super) fn vouches(&self, record: &RosterRecord, now: Now) -> bool {
        vouched(lag(record, now), self.lag)
    }

    /// Replaces the record by a newer one. True if it says anything new but that the node is there.
    pub(super) fn replace(&mut self, signed: SignedRecord, now: Now) -> bool {
        let changed = !same_content(&self.signed.record, &signed.record);
        if signed.record.incarnation != self.signed.record.incarnation {
            // A later start has none of the state that messages were owed to.
            self.wanted.clear();
        }
        if signed.record.interests != self.signed.record.interests {
            self.interests = signed.record.interests.clone().into();
            self.shards = shards(&signed.record);
        }
        self.durables = durables(&signed.record);
        (self.lost, self.refused) = (false, false);
        self.lag = lag(&signed.record, now);
        self.signed = signed;
        self.want(now);
        changed
    }

    fn want(&mut self, now: Now) {
        let RosterRecord { left, relay, .. } = self.signed.record;
        let shards = match (left, relay) {
            (true, _) => ShardSet::EMPTY,
            // It passes on whatever others want, and can only pass on what it has.
            (false, true) => ShardSet::ALL,
            (false, false) => self.shards,
        };
        self.wanted.iter_mut().for_each(|(wanted, _)| *wanted = wanted.intersection(shards));
        self.wanted.retain(|(wanted, _)| !wanted.is_empty());
        let held = self.wanted.iter().fold(ShardSet::EMPTY, |all, (wanted, _)| all.union(*wanted));
        let fresh = shards.without(held);
        if !fresh.is_empty() {
            self.wanted.push((fresh, now.mono));
        }
        debug_assert!(self.wanted.len() <= usize::from(SHARDS));
    }
}

/// How long ago a record was written, by its writer's clock and ours.
pub(super) fn lag(record: &RosterRecord, now: Now) -> Span {
    Span(now.wall.0.saturating_sub(record.time))
}

/// Whether a record with that lag is a sign of life of a node whose last record had `usual`: then it came about as fast.
pub(super) fn vouched(lag: Span, usual: Span) -> bool {
    lag.0 <= usual.0.saturating_add(SUSPECT_AFTER.0)
}

/// How long a node is remembered after it was seen last.
pub(super) fn lifetime(record: &RosterRecord) -> Span {
    match (durables(record).is_empty(), record.left) {
        (false, _) => FORGET_DURABLE,
        (true, true) => TOMBSTONE,
        (true, false) => FORGET_AFTER,
    }
}

/// A record that was opened has sound ones.
fn durables(record: &RosterRecord) -> Arc<[Durable]> {
    record.durables().unwrap_or_default().into()
}

fn shards(record: &RosterRecord) -> ShardSet {
    shards_of(record.interests.iter().map(|interest| &interest.pattern))
}

fn same_content(old: &RosterRecord, new: &RosterRecord) -> bool {
    old.left == new.left
        && old.relay == new.relay
        && old.name == new.name
        && old.addresses == new.addresses
        && old.interests == new.interests
        && old.services == new.services
        && old.extensions == new.extensions
}
