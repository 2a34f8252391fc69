//! The other nodes: which of two records stands, who is there, who is forgotten, and how many fit.
//!
//! Sends nothing. Knows of neighbours only that a linked node is there.

use std::collections::{BTreeMap, BTreeSet};

use libp2p_identity::PeerId;

use super::Change;
use super::digest::Digest;
use super::known::{FORGET_AFTER, FORGET_DURABLE, Known, Presence, SUSPECT_AFTER, lag, lifetime, vouched};
use crate::mesh::time::{Mono, Now, Span};
use crate::wire::node_key::NodeKey;
use crate::wire::roster::{SignedRecord, Stamp};

/// What is remembered of a forgotten node, so that its last record is not taken for news when somebody still has it.
#[derive(Clone, Copy, Debug)]
struct Grave {
    stamp: Stamp,
    lag: Span,
    until: Mono,
}

#[derive(Debug)]
pub(super) struct Table {
    max: usize,
    nodes: BTreeMap<PeerId, Known>,
    graves: BTreeMap<PeerId, Grave>,
    /// Each node that something becomes of in time stands here once, under its `due`.
    due: BTreeSet<(Mono, PeerId)>,
    digest: Digest,
    names: Index,
    services: Index,
}

impl Table {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            nodes: BTreeMap::new(),
            graves: BTreeMap::new(),
            due: BTreeSet::new(),
            digest: Digest::new(),
            names: Index::default(),
            services: Index::default(),
        }
    }

    pub(super) fn get(&self, peer: &PeerId) -> Option<&Known> {
        self.nodes.get(peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.nodes.values()
    }

    pub(super) fn graves(&self) -> usize {
        self.graves.len()
    }

    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = &Known> {
        self.names.get(name).filter_map(|peer| self.nodes.get(peer))
    }

    pub(super) fn serving(&self, service: &str) -> impl Iterator<Item = &Known> {
        self.services.get(service).filter_map(|peer| self.nodes.get(peer))
    }

    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Whether a record with this stamp would be news.
    pub(super) fn lacks(&self, peer: &PeerId, stamp: Stamp) -> bool {
        match (self.nodes.get(peer), self.graves.get(peer)) {
            (Some(known), _) => known.stamp() < stamp,
            (None, Some(grave)) => grave.stamp < stamp,
            (None, None) => self.nodes.len() < self.max || self.most_forgettable().is_some(),
        }
    }

    /// Takes a record. None if it is no news; otherwise what it changed, which may be nothing that matters.
    pub(super) fn take(&mut self, signed: SignedRecord, linked: bool, now: Now) -> Option<Vec<Change>> {
        if self.nodes.contains_key(&signed.node) { self.renew(signed, now) } else { self.meet(signed, linked, now) }
    }

    /// Takes a record from an earlier run of this node: known, but not there until it is seen.
    pub(super) fn remember(&mut self, signed: SignedRecord, now: Now) {
        let left = signed.record.left;
        // Who said goodbye is worth it only for durable subscriptions.
        let worthwhile = (!left || lifetime(&signed.record) == FORGET_DURABLE)
            && lag(&signed.record, now) <= lifetime(&signed.record)
            && self.nodes.len() < self.max
            && !self.nodes.contains_key(&signed.node);
        if worthwhile {
            let presence = if left { Presence::Left } else { Presence::Suspect };
            let mut known = Known::new(signed, presence, now);
            // What it says of the writer's clock is unknown: only its age shows.
            known.lag = Span(0);
            self.insert(known);
        }
    }

    fn meet(&mut self, signed: SignedRecord, linked: bool, now: Now) -> Option<Vec<Change>> {
        let peer = signed.node;
        let grave = self.graves.get(&peer).copied();
        if grave.is_some_and(|grave| signed.stamp() <= grave.stamp) {
            return None;
        }
        let record = &signed.record;
        let alive = linked || vouched(lag(record, now), grave.map_or(Span(0), |grave| grave.lag));
        let mut changes = Vec::new();
        let outlived = !alive && lag(record, now) > lifetime(record);
        if outlived || (!alive && self.nodes.len() >= self.max) {
            self.bury(peer, signed.stamp(), lag(record, now), now);
            return None;
        }
        if self.nodes.len() >= self.max {
            let victim = self.most_forgettable()?;
            changes.extend(self.forget(&victim, now));
        }
        let presence = match (record.left, alive) {
            (true, _) => Presence::Left,
            (false, true) => Presence::Live,
            (false, false) => Presence::Suspect,
        };
        changes.extend((presence == Presence::Live).then_some(Change::Joined(peer)));
        let mut known = Known::new(signed, presence, now);
        known.linked = linked;
        if !linked {
            known.late = Span(known.lag.0.saturating_sub(grave.map_or(0, |grave| grave.lag.0)));
        }
        self.graves.remove(&peer);
        self.insert(known);
        Some(changes)
    }

    fn renew(&mut self, signed: SignedRecord, now: Now) -> Option<Vec<Change>> {
        let peer = signed.node;
        let known = self.nodes.get_mut(&peer).filter(|known| known.stamp() < signed.stamp())?;
        let restarted = known.stamp().incarnation < signed.record.incarnation;
        let alive = known.linked || known.vouches(&signed.record, now);
        let left = signed.record.left;
        self.digest.toggle(&known.record().node, known.stamp());
        self.digest.toggle(&signed.record.node, signed.stamp());
        self.names.remove([&known.record().name], peer);
        self.services.remove(&known.record().services, peer);
        let changed = known.replace(signed, now);
        self.names.insert([&known.record().name], peer);
        self.services.insert(&known.record().services, peer);

        let before = known.presence;
        known.presence = match before {
            _ if left => Presence::Left,
            _ if alive => Presence::Live,
            Presence::Left => Presence::Suspect,
            Presence::Live | Presence::Suspect => before,
        };
        if alive || left {
            (known.seen, known.late) = (now.mono, Span(0));
        }
        let after = known.presence;
        self.schedule(&peer);
        let mut changes = Vec::new();
        changes.extend((restarted && !left).then_some(Change::Restarted(peer)));
        changes.extend(match (before, after) {
            (Presence::Left, Presence::Live) => Some(Change::Joined(peer)),
            (Presence::Suspect, Presence::Live) => Some(Change::Returned(peer)),
            (Presence::Live | Presence::Suspect, Presence::Left) => Some(Change::Left(peer)),
            (_, Presence::Live | Presence::Suspect) if changed && !restarted => Some(Change::Updated(peer)),
            (_, _) => None,
        });
        Some(changes)
    }

    /// A link to that node was made: it is there.
    pub(super) fn link(&mut self, peer: &PeerId, now: Now) -> Option<Change> {
        let known = self.nodes.get_mut(peer)?;
        known.linked = true;
        (known.lost, known.refused) = (false, false);
        let returned = known.presence == Presence::Suspect;
        if returned {
            known.presence = Presence::Live;
        }
        if known.is_live() {
            (known.seen, known.late) = (now.mono, Span(0));
        }
        self.schedule(peer);
        returned.then_some(Change::Returned(*peer))
    }

    /// The last link to that node is gone: it was there until now.
    pub(super) fn unlink(&mut self, peer: &PeerId, now: Now) {
        if let Some(known) = self.nodes.get_mut(peer) {
            known.linked = false;
            known.lost = true;
            if known.is_live() {
                known.seen = now.mono;
            }
            self.schedule(peer);
        }
    }

    /// That node cannot be dialled. If the last that was seen of it is a link that went, it is suspect.
    pub(super) fn refuse(&mut self, peer: &PeerId) -> Option<Change> {
        let known = self.nodes.get_mut(peer).filter(|known| known.is_live() && known.lost)?;
        known.presence = Presence::Suspect;
        known.refused = true;
        self.schedule(peer);
        Some(Change::Suspect(*peer))
    }

    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(super) fn on_timeout(&mut self, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some((_, peer)) = self.due.first().copied().filter(|(due, _)| *due <= now.mono) {
            match self.nodes.get_mut(&peer) {
                Some(known) if known.is_live() => {
                    known.presence = Presence::Suspect;
                    self.schedule(&peer);
                    changes.push(Change::Suspect(peer));
                }
                Some(known) if known.refused => {
                    known.refused = false;
                    self.schedule(&peer);
                }
                Some(_) => changes.extend(self.forget(&peer, now)),
                None => {
                    self.due.pop_first();
                }
            }
        }
        changes
    }

    fn insert(&mut self, known: Known) {
        let peer = known.peer();
        self.digest.toggle(&known.record().node, known.stamp());
        self.names.insert([&known.record().name], peer);
        self.services.insert(&known.record().services, peer);
        self.nodes.insert(peer, known);
        self.schedule(&peer);
    }

    fn forget(&mut self, peer: &PeerId, now: Now) -> Option<Change> {
        let known = self.nodes.remove(peer)?;
        if let Some(due) = known.due {
            self.due.remove(&(due, *peer));
        }
        self.digest.toggle(&known.record().node, known.stamp());
        self.names.remove([&known.record().name], *peer);
        self.services.remove(&known.record().services, *peer);
        self.bury(*peer, known.stamp(), known.lag, now);
        Some(Change::Forgotten(*peer))
    }

    fn bury(&mut self, peer: PeerId, stamp: Stamp, lag: Span, now: Now) {
        self.graves.insert(peer, Grave { stamp, lag, until: now.mono + FORGET_AFTER });
        if self.graves.len() > self.max {
            self.graves.retain(|_, grave| grave.until > now.mono);
        }
        if self.graves.len() > self.max {
            let oldest = self.graves.iter().min_by_key(|(_, grave)| grave.until).map(|(peer, _)| *peer);
            oldest.and_then(|oldest| self.graves.remove(&oldest));
        }
    }

    /// Of those that are not there, the one that was seen longest ago.
    fn most_forgettable(&self) -> Option<PeerId> {
        let gone = self.nodes.values().filter(|known| !known.linked && !known.is_live());
        gone.min_by_key(|known| known.seen).map(Known::peer)
    }

    fn schedule(&mut self, peer: &PeerId) {
        let Some(known) = self.nodes.get_mut(peer) else { return };
        if let Some(due) = known.due.take() {
            self.due.remove(&(due, *peer));
        }
        known.due = match known.presence {
            Presence::Left => Some(known.seen + lifetime(known.record())),
            Presence::Live | Presence::Suspect if known.linked => None,
            Presence::Live => Some(known.seen + Span(SUSPECT_AFTER.0.saturating_sub(known.late.0))),
            Presence::Suspect if known.refused => Some(known.seen + SUSPECT_AFTER),
            Presence::Suspect => Some(known.seen + lifetime(known.record())),
        };
        if let Some(due) = known.due {
            self.due.insert((due, *peer));
        }
    }

    /// The nodes whose keys are in these buckets, but those that others are not to be told of.
    pub(super) fn in_buckets(&self, wanted: &BTreeSet<u8>) -> impl Iterator<Item = (NodeKey, Stamp)> {
        self.nodes
            .values()
            .filter(|known| !known.refused && wanted.contains(&super::digest::bucket_of(&known.record().node)))
            .map(|known| (known.record().node, known.stamp()))
    }
}

/// Nodes by something that stands in their records.
#[derive(Debug, Default)]
struct Index(BTreeMap<String, BTreeSet<PeerId>>);

impl Index {
    fn get(&self, key: &str) -> impl Iterator<Item = &PeerId> {
        self.0.get(key).into_iter().flatten()
    }

    fn insert<'a>(&mut self, keys: impl IntoIterator<Item = &'a String>, peer: PeerId) {
        for key in keys {
            self.0.entry(key.clone()).or_default().insert(peer);
        }
    }

    fn remove<'a>(&mut self, keys: impl IntoIterator<Item = &'a String>, peer: PeerId) {
        for key in keys {
            if let Some(peers) = self.0.get_mut(key) {
                peers.remove(&peer);
                if peers.is_empty() {
                    self.0.remove(key);
                }
            }
        }
    }
}
