//! The comparison of rosters with one neighbour: digests, then what either side lacks.
//!
//! Heals whatever pushing missed: lost requests, partitions, nodes that start with nothing.

use std::collections::BTreeSet;

use libp2p_identity::PeerId;

use crate::mesh::effects::{Asked, Effects};
use crate::mesh::event::RpcId;
use crate::mesh::time::{Mono, Now, Span};
use crate::wire::node_key::NodeKey;
use crate::wire::rpc::Request;

/// The mean time between two comparisons with neighbours picked at random.
pub(super) const ROUND: Span = Span::secs(5);
/// Summaries in an answer, at most, unless one bucket alone has more. An answer with half as many was probably cut.
pub(super) const SUMMARIES: usize = 4_096;
/// Summaries in an answer, at most: well within what is decoded.
pub(super) const MOST_SUMMARIES: usize = 4 * SUMMARIES;
/// Bytes of records in an answer, at most.
pub(super) const FETCHED_BYTES: usize = 512 * 1024;
/// Nodes asked for at once.
const FETCHED: usize = 256;
/// Records that one comparison has pushed, at most. A neighbour that lacks more compares too, and fetches them from
/// whom it likes: if all its neighbours pushed everything, it would get everything from each.
pub(super) const PUSHED: usize = 256;
/// Fetched news up to this many is passed on as it is. Of more, the other neighbours have most already: they are
/// compared with.
pub(super) const PASSED_ON: usize = 64;
/// Before the next comparison with a neighbour, if one was not enough.
pub(super) const PAUSE: Span = Span::millis(500);
/// No answer by then is a failure.
const DEADLINE: Span = Span::secs(10);

#[derive(Debug)]
struct Open {
    id: RpcId,
    due: Mono,
    /// What a fetch asked for. Empty for a digest.
    nodes: BTreeSet<PeerId>,
}

#[derive(Debug)]
pub(super) struct Comparison {
    peer: PeerId,
    /// When to begin the next one.
    at: Option<Mono>,
    open: Option<Open>,
    /// What the neighbour has that is newer.
    lacking: BTreeSet<PeerId>,
}

impl Comparison {
    pub(super) fn new(peer: PeerId) -> Self {
        Self { peer, at: None, open: None, lacking: BTreeSet::new() }
    }

    pub(super) fn begin_by(&mut self, at: Mono) {
        self.at = Some(self.at.map_or(at, |planned| planned.min(at)));
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.is_none() && self.at.is_none()
    }

    /// Whether that node's record is on its way from this neighbour.
    pub(super) fn fetches(&self, node: &PeerId) -> bool {
        self.lacking.contains(node) || self.open.as_ref().is_some_and(|open| open.nodes.contains(node))
    }

    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.open.as_ref().map(|open| open.due).or(self.at)
    }

    /// Whether a comparison is to begin now.
    pub(super) fn is_due(&mut self, now: Now) -> bool {
        if self.open.take_if(|open| open.due <= now.mono).is_some() {
            self.lacking.clear();
        }
        self.open.is_none() && self.at.is_some_and(|at| at <= now.mono)
    }

    pub(super) fn begin(&mut self, buckets: Vec<u64>, now: Now, fx: &mut Effects) {
        self.at = None;
        let request = Request::Digest { buckets, extensions: Vec::new() };
        self.ask(request, Asked::Digest { peer: self.peer }, BTreeSet::new(), now, fx);
    }

    /// Takes the answer with this id as arrived: what it had asked for. None if it was not waited for any more.
    pub(super) fn answered(&mut self, id: RpcId) -> Option<BTreeSet<PeerId>> {
        self.open.take_if(|open| open.id == id).map(|open| open.nodes)
    }

    pub(super) fn lack(&mut self, nodes: impl IntoIterator<Item = PeerId>) {
        self.lacking.extend(nodes);
    }

    pub(super) fn give_up(&mut self) {
        self.lacking.clear();
    }

    /// Asks for the next of what is lacking.
    pub(super) fn fetch(&mut self, now: Now, fx: &mut Effects) {
        let batch: BTreeSet<PeerId> = self.lacking.iter().take(FETCHED).copied().collect();
        if batch.is_empty() || self.open.is_some() {
            return;
        }
        self.lacking.retain(|node| !batch.contains(node));
        let nodes = batch.iter().filter_map(NodeKey::of).collect();
        let request = Request::Fetch { nodes, extensions: Vec::new() };
        self.ask(request, Asked::Fetch { peer: self.peer }, batch, now, fx);
    }

    fn ask(&mut self, request: Request, asked: Asked, nodes: BTreeSet<PeerId>, now: Now, fx: &mut Effects) {
        let id = fx.ask(self.peer, request, asked);
        self.open = Some(Open { id, due: now.mono + DEADLINE, nodes });
    }
}
