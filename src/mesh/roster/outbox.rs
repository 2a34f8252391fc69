//! What one neighbour has still to be told, and what it has confirmed.
//!
//! One push is under way at a time; whatever changes meanwhile waits here as the ids of nodes, so that of each only the
//! newest record goes out.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use libp2p_identity::PeerId;

use crate::mesh::effects::{Asked, Effects};
use crate::mesh::event::RpcId;
use crate::mesh::time::{Mono, Now, Span};
use crate::wire::rpc::Request;

/// News of others waits so long for company.
pub(super) const GATHER: Span = Span::millis(20);
/// A record that only says that its node is still there waits longer, and more of them go together: in a large mesh these are
/// nearly all there is, and an exchange costs more than the records in it. Far below what makes a node suspect.
pub(super) const GATHER_REPEATS: Span = Span::secs(1);
/// So many records, or bytes of them, wait no longer.
const ENOUGH_RECORDS: usize = 64;
const ENOUGH_BYTES: usize = 256 * 1024;
/// A neighbour that has not answered by then holds up no announcement.
const PATIENCE: Span = Span::millis(500);
/// A push without any answer by then has failed.
const DEADLINE: Span = Span::secs(10);
const FIRST_RETRY: Span = Span::millis(100);
const LAST_RETRY: Span = Span::secs(5);

#[derive(Debug)]
struct Push {
    id: RpcId,
    nodes: Vec<PeerId>,
    /// The version of our own record, if that is in it.
    own: Option<u64>,
    /// Until when announcements wait for it.
    patience: Option<Mono>,
    due: Mono,
}

#[derive(Debug)]
pub(super) struct Outbox {
    peer: PeerId,
    owed: BTreeSet<PeerId>,
    owed_bytes: usize,
    /// The last node sent, so that all get their turn.
    last: Option<PeerId>,
    flush_at: Option<Mono>,
    /// After a failure: not before then.
    not_before: Mono,
    failures: u32,
    push: Option<Push>,
    /// The version of our own record that it has.
    confirmed: u64,
    /// Whether announcements wait for it: it answers.
    answers: bool,
}

/// A record on its way out.
pub(super) struct Parcel {
    pub(super) bytes: Bytes,
    /// Its version, if it is our own.
    pub(super) own: Option<u64>,
}

impl Outbox {
    /// `version`: of our own record, when the link was made. Announcements of that and before do not wait for this one.
    pub(super) fn new(peer: PeerId, version: u64) -> Self {
        Self {
            peer,
            owed: BTreeSet::new(),
            owed_bytes: 0,
            last: None,
            flush_at: None,
            not_before: Mono(0),
            failures: 0,
            push: None,
            confirmed: version,
            answers: true,
        }
    }

    /// The version of our own record that this neighbour has confirmed; None if it does not answer these days.
    pub(super) fn announced(&self) -> Option<u64> {
        self.answers.then_some(self.confirmed)
    }

    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    pub(super) fn owe(&mut self, node: PeerId, bytes: usize, by: Mono, now: Now) {
        self.owed.insert(node);
        self.owed_bytes = self.owed_bytes.saturating_add(bytes);
        let full = self.owed.len() >= ENOUGH_RECORDS || self.owed_bytes >= ENOUGH_BYTES;
        let by = if full { now.mono } else { by };
        self.flush_at = Some(self.flush_at.map_or(by, |at| at.min(by)));
    }

    /// The neighbour has shown that it has that node's newest record.
    pub(super) fn knows(&mut self, node: &PeerId) {
        if self.owed.remove(node) && self.owed.is_empty() {
            self.flush_at = None;
            self.owed_bytes = 0;
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Mono> {
        match &self.push {
            Some(push) => Some(push.patience.map_or(push.due, |patience| patience.min(push.due))),
            None => self.flush_at.map(|at| at.max(self.not_before)),
        }
    }

    pub(super) fn on_timeout(&mut self, now: Now, fx: &mut Effects) {
        let Some(push) = &mut self.push else { return };
        if push.patience.is_some_and(|patience| patience <= now.mono) {
            push.patience = None;
            self.answers = false;
        }
        if push.due <= now.mono {
            let id = push.id;
            self.answered(id, false, now, fx);
        }
    }

    /// Sends what is owed, if it is time: `first` first, since somebody may wait for that. `find` has a node's newest record.
    pub(super) fn flush(
        &mut self,
        first: PeerId,
        find: impl Fn(&PeerId) -> Option<Parcel>,
        now: Now,
        fx: &mut Effects,
    ) {
        let ready = self.push.is_none() && self.next_timeout().is_some_and(|at| at <= now.mono);
        if !ready {
            return;
        }
        let mut records = Vec::new();
        let (mut nodes, mut own, mut bytes) = (Vec::new(), None, 0);
        for node in self.turn(first) {
            let Some(parcel) = find(&node) else {
                self.owed.remove(&node);
                continue;
            };
            if bytes > 0 && bytes + parcel.bytes.len() > ENOUGH_BYTES {
                break;
            }
            self.owed.remove(&node);
            self.last = Some(node);
            bytes += parcel.bytes.len();
            own = own.or(parcel.own);
            nodes.push(node);
            records.push(parcel.bytes);
        }
        self.owed_bytes = 0;
        self.flush_at = (!self.owed.is_empty()).then_some(now.mono);
        if records.is_empty() {
            return;
        }
        let request = Request::Push { records, extensions: Vec::new() };
        let id = fx.ask(self.peer, request, Asked::Push { peer: self.peer });
        let patience = Some(now.mono + PATIENCE);
        self.push = Some(Push { id, nodes, own, patience, due: now.mono + DEADLINE });
    }

    /// Who is owed: `first`, then from the one after the last sent, around.
    fn turn(&self, first: PeerId) -> Vec<PeerId> {
        let last = self.last.unwrap_or(first);
        let after = self.owed.range((Bound::Excluded(last), Bound::Unbounded));
        let around = after.chain(self.owed.range(..=last)).copied().filter(|node| *node != first);
        self.owed.get(&first).copied().into_iter().chain(around).collect()
    }

    /// A push was answered, or not. Anything but the one under way is an answer that came too late.
    pub(super) fn answered(&mut self, id: RpcId, heard: bool, now: Now, fx: &mut Effects) {
        let Some(push) = self.push.take_if(|push| push.id == id) else { return };
        self.answers = heard;
        if heard {
            self.failures = 0;
            self.not_before = Mono(0);
            self.confirmed = self.confirmed.max(push.own.unwrap_or(0));
            return;
        }
        let retry = Span(FIRST_RETRY.0 << self.failures.min(6)).min(LAST_RETRY);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.mono + fx.jitter(retry);
        self.flush_at = Some(now.mono);
        self.owed.extend(push.nodes);
    }
}
