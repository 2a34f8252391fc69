//! The roster's protocol with the neighbours: pushes, digests, fetches and their answers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use libp2p_identity::PeerId;

use super::digest::{Digest, bucket_of};
use super::{Change, Roster, compare, digest_with, outbox, parcel};
use crate::mesh::effects::{Asked, Effects};
use crate::mesh::event::{Checked, RpcFailure, RpcId};
use crate::mesh::time::{Now, Span};
use crate::wire::node_key::NodeKey;
use crate::wire::roster::{SignedRecord, Stamp};
use crate::wire::rpc::{Response, Summary};

impl Roster {
    /// Takes records that a neighbour pushed. The caller answers [`Response::Done`].
    pub(crate) fn on_push(
        &mut self,
        from: PeerId,
        records: Vec<SignedRecord>,
        now: Now,
        fx: &mut Effects,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let news = self.take_all(from, records, &mut changes, now, fx);
        self.pass_on(from, &news, now);
        self.settle(now, fx);
        changes
    }

    /// Answers a digest: what stands here in the buckets that differ, as many as fit.
    pub(crate) fn on_digest(&mut self, buckets: &[u64]) -> Response {
        let differing = self.digest().differing(buckets, self.next_bucket);
        let mut members: BTreeMap<u8, Vec<Summary>> = BTreeMap::new();
        for (node, stamp) in self.summaries(&differing.iter().copied().collect()) {
            members.entry(bucket_of(&node)).or_default().push(Summary { node, stamp });
        }
        let (mut told, mut summaries) = (Vec::new(), Vec::new());
        for bucket in differing {
            let members = members.remove(&bucket).unwrap_or_default();
            if !told.is_empty() && summaries.len() + members.len() > compare::SUMMARIES {
                self.next_bucket = bucket;
                break;
            }
            told.push(bucket);
            summaries.extend(members);
        }
        summaries.truncate(compare::MOST_SUMMARIES);
        Response::Differ { buckets: told, summaries, extensions: Vec::new() }
    }

    /// Answers a fetch: the newest records of these nodes, as many as fit.
    pub(crate) fn on_fetch(&self, nodes: &[NodeKey]) -> Response {
        let mut room = compare::FETCHED_BYTES;
        let wanted: BTreeSet<&NodeKey> = nodes.iter().collect();
        let found = wanted.into_iter().filter_map(|node| self.bytes_of(&node.peer()?));
        let fits = |bytes: &Bytes| {
            let fits = bytes.len() <= room;
            room = room.saturating_sub(bytes.len());
            fits
        };
        Response::Records { records: found.take_while(fits).collect(), extensions: Vec::new() }
    }

    /// Takes the answer to a push, a digest or a fetch; any other is none of the roster's business.
    pub(crate) fn on_response(
        &mut self,
        id: RpcId,
        asked: &Asked,
        result: Result<Checked<Response>, RpcFailure>,
        now: Now,
        fx: &mut Effects,
    ) -> Vec<Change> {
        let changes = match asked {
            Asked::Push { peer } => {
                let heard = result.is_ok_and(|checked| matches!(checked.body, Response::Done { .. }));
                if let Some(neighbour) = self.neighbours.get_mut(peer) {
                    neighbour.outbox.answered(id, heard, now, fx);
                }
                Vec::new()
            }
            Asked::Digest { peer } => {
                self.on_differ(*peer, id, result, now, fx);
                Vec::new()
            }
            Asked::Fetch { peer } => self.on_records(*peer, id, result, now, fx),
            Asked::Call { .. }
            | Asked::Repair { .. }
            | Asked::Inject { .. }
            | Asked::Offer { .. }
            | Asked::Keep { .. }
            | Asked::Where { .. }
            | Asked::LastHeads
            | Asked::Told => Vec::new(),
        };
        self.settle(now, fx);
        changes
    }

    fn on_differ(
        &mut self,
        peer: PeerId,
        id: RpcId,
        result: Result<Checked<Response>, RpcFailure>,
        now: Now,
        fx: &mut Effects,
    ) {
        if self.neighbours.get_mut(&peer).and_then(|neighbour| neighbour.comparison.answered(id)).is_none() {
            return;
        }
        let Ok(Checked { body: Response::Differ { buckets, summaries, .. }, .. }) = result else { return };
        let buckets: BTreeSet<u8> = buckets.into_iter().collect();
        let theirs: BTreeMap<NodeKey, Stamp> = summaries
            .iter()
            .filter(|summary| buckets.contains(&bucket_of(&summary.node)))
            .map(|summary| (summary.node, summary.stamp))
            .collect();
        let newer_here: Vec<PeerId> = self
            .summaries(&buckets)
            .filter(|(node, stamp)| theirs.get(node).is_none_or(|theirs| theirs < stamp))
            .filter_map(|(node, _)| node.peer())
            .collect();
        let newer_there: Vec<PeerId> = theirs
            .iter()
            .filter_map(|(node, stamp)| Some((node.peer()?, *stamp)))
            .filter(|(node, stamp)| self.lacks(node, *stamp) && !self.is_fetched(node))
            .map(|(node, _)| node)
            .collect();
        let cut = newer_here.len() > compare::PUSHED || summaries.len() >= compare::SUMMARIES / 2;
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        for node in newer_here.into_iter().take(compare::PUSHED).filter(|node| *node != peer) {
            neighbour.outbox.owe(node, 0, now.mono, now);
        }
        neighbour.comparison.lack(newer_there);
        neighbour.comparison.fetch(now, fx);
        if cut {
            neighbour.comparison.begin_by(now.mono + fx.jitter(compare::PAUSE));
        }
    }

    fn on_records(
        &mut self,
        peer: PeerId,
        id: RpcId,
        result: Result<Checked<Response>, RpcFailure>,
        now: Now,
        fx: &mut Effects,
    ) -> Vec<Change> {
        let neighbour = self.neighbours.get_mut(&peer);
        let Some(mut missing) = neighbour.and_then(|neighbour| neighbour.comparison.answered(id)) else {
            return Vec::new();
        };
        let records = result.map(|checked| checked.records).unwrap_or_default();
        let asked = missing.len();
        records.iter().for_each(|record| {
            missing.remove(&record.node);
        });
        let mut changes = Vec::new();
        let progress = missing.len() < asked;
        let news = self.take_all(peer, records, &mut changes, now, fx);
        if news.len() <= compare::PASSED_ON {
            self.pass_on(peer, &news, now);
        } else {
            for (_, other) in self.neighbours.iter_mut().filter(|(other, _)| **other != peer) {
                other.comparison.begin_by(now.mono + fx.jitter(compare::PAUSE));
            }
        }
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            if progress {
                neighbour.comparison.lack(missing);
                neighbour.comparison.fetch(now, fx);
            } else {
                neighbour.comparison.give_up();
                neighbour.comparison.begin_by(now.mono + fx.jitter(compare::ROUND));
            }
        }
        changes
    }

    /// Takes records from a neighbour. Returns the nodes of which they were news, and how long that may wait.
    fn take_all(
        &mut self,
        from: PeerId,
        records: Vec<SignedRecord>,
        changes: &mut Vec<Change>,
        now: Now,
        fx: &mut Effects,
    ) -> Vec<(PeerId, Span)> {
        let mut news = Vec::new();
        for record in records {
            let (node, stamp) = (record.node, record.stamp());
            if node == self.own.me() {
                changes.extend(self.on_own(stamp, now, fx));
                continue;
            }
            let linked = self.neighbours.contains_key(&node);
            if let Some(more) = self.table.take(record, linked, now) {
                news.push((node, if more.is_empty() { outbox::GATHER_REPEATS } else { outbox::GATHER }));
                changes.extend(more);
            }
            let newest = self.table.get(&node).is_some_and(|known| known.stamp() == stamp);
            if let Some(neighbour) = self.neighbours.get_mut(&from).filter(|_| newest) {
                neighbour.outbox.knows(&node);
            }
        }
        news
    }

    /// Somebody has a record of ours.
    fn on_own(&mut self, stamp: Stamp, now: Now, fx: &mut Effects) -> Option<Change> {
        let own = self.own.stamp();
        if stamp.incarnation == own.incarnation && stamp.version > own.version {
            self.own.outbid(stamp.version, now, fx);
        }
        // The start sets `outrun` to our own incarnation, so only later ones are said, and each once.
        (stamp.incarnation > self.outrun).then(|| {
            self.outrun = stamp.incarnation;
            Change::Outrun { incarnation: stamp.incarnation }
        })
    }

    /// News goes once to every neighbour but the one that it came from, and not to whom it is about.
    fn pass_on(&mut self, from: PeerId, news: &[(PeerId, Span)], now: Now) {
        for (node, wait) in news {
            let bytes = self.table.get(node).map_or(0, |known| known.signed.bytes.len());
            for (peer, neighbour) in &mut self.neighbours {
                if *peer != from && peer != node {
                    neighbour.outbox.owe(*node, bytes, now.mono + *wait, now);
                }
            }
        }
    }

    pub(super) fn digest(&self) -> Digest {
        digest_with(&self.own, &self.table)
    }

    fn summaries(&self, buckets: &BTreeSet<u8>) -> impl Iterator<Item = (NodeKey, Stamp)> {
        let own = self.own.signed().map(|signed| (signed.record.node, signed.stamp()));
        own.into_iter().filter(|(node, _)| buckets.contains(&bucket_of(node))).chain(self.table.in_buckets(buckets))
    }

    fn bytes_of(&self, node: &PeerId) -> Option<Bytes> {
        parcel(&self.own, &self.table, node).map(|parcel| parcel.bytes)
    }

    fn lacks(&self, node: &PeerId, stamp: Stamp) -> bool {
        if *node == self.own.me() { stamp > self.own.stamp() } else { self.table.lacks(node, stamp) }
    }

    fn is_fetched(&self, node: &PeerId) -> bool {
        self.neighbours.values().any(|neighbour| neighbour.comparison.fetches(node))
    }
}
