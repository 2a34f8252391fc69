//! One stream of another node: what of it is here, what is missing, and what is known of its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::{HOLD, Ready, TAIL, Wish};
use crate::mesh::time::Mono;
use crate::wire::frame::{Frame, Header, Kind, Stream};

#[derive(Debug, Default)]
pub(super) struct InStream {
    /// The next sequence number to hand on. None while it is not known since when this node listens.
    pub(super) next: Option<u64>,
    /// How many messages the stream had before `next`, if that is known.
    pub(super) count: Option<u64>,
    pub(super) held: BTreeMap<u64, Arc<Frame>>,
    pub(super) held_bytes: usize,
    /// As much of it as stands in the sum of all streams.
    pub(super) counted: usize,
    /// The highest sequence number and count that the author's signature vouches for.
    pub(super) proven: (u64, u64),
    /// The highest sequence number that a neighbour claims.
    pub(super) claimed: u64,
    pub(super) missing_since: Option<Mono>,
    pub(super) asking: bool,
    /// Who was asked for what is missing.
    pub(super) asked: Vec<PeerId>,
    pub(super) ask_at: Mono,
    pub(super) heard_from: Option<PeerId>,
    /// `next` is what a neighbour says, and the author has not.
    pub(super) hearsay: Option<Hearsay>,
    pub(super) timer: Option<Mono>,
    pub(super) used: u64,
    pub(super) used_at: Mono,
}

/// What came since a neighbour said that nothing is owed to this node up to somewhere.
#[derive(Debug)]
pub(super) struct Hearsay {
    pub(super) since: Mono,
    /// The last frame that was taken for one of those not owed.
    pub(super) last: u64,
    /// How many messages the stream had before the first of these.
    pub(super) before: Option<u64>,
}

impl InStream {
    /// Takes a frame in, if it is new.
    pub(super) fn hold(&mut self, frame: &Arc<Frame>) -> bool {
        let sequence = frame.header.sequence;
        if self.next.is_some_and(|next| sequence < next) || self.held.contains_key(&sequence) {
            return false;
        }
        if sequence == 1 && self.next.is_none() {
            (self.next, self.count) = (Some(1), Some(0));
        }
        self.held_bytes += frame.bytes.len();
        self.held.insert(sequence, Arc::clone(frame));
        true
    }

    /// Compares what a neighbour said with what the author sends. Frames from before a subscription may still be on their
    /// way for a moment; an author that goes on below the neighbour's word was talked over.
    pub(super) fn doubt(&mut self, frame: &Frame, now: Mono, ready: &mut Vec<Ready>) {
        let (Some(hearsay), Some(next)) = (&mut self.hearsay, self.next) else { return };
        let Header { sequence, .. } = frame.header;
        if frame.kind == Kind::Head || sequence <= hearsay.last {
            return;
        }
        if sequence >= next {
            self.hearsay = None;
            return;
        }
        hearsay.last = sequence;
        let before = *hearsay.before.get_or_insert(frame.count_before());
        if now - hearsay.since > TAIL {
            (self.next, self.count, self.hearsay) = (Some(sequence), Some(frame.count_before()), None);
            let missed = frame.count_before().saturating_sub(before);
            if missed > 0 {
                ready.push(Ready::Lost { stream: frame.stream, missed, exact: true });
            }
        }
    }

    pub(super) fn start_at_first(&mut self) {
        let after_head = (self.proven.0 + 1, Some(self.proven.1));
        (self.next, self.count) = match self.held.first_key_value() {
            Some((first, frame)) => (Some(*first), Some(frame.count_before())),
            None => (Some(after_head.0), after_head.1),
        };
    }

    pub(super) fn drop_below_next(&mut self) {
        let Some(next) = self.next else { return };
        while let Some(entry) = self.held.first_entry().filter(|entry| *entry.key() < next) {
            self.held_bytes -= entry.remove().bytes.len();
        }
    }

    pub(super) fn hand_on(&mut self, ready: &mut Vec<Ready>) {
        let Some(before) = self.next else { return };
        let mut next = before;
        while let Some(frame) = self.held.remove(&next) {
            self.held_bytes -= frame.bytes.len();
            self.count = Some(frame.header.count);
            ready.push(Ready::Frame(frame));
            next += 1;
        }
        self.next = Some(next);
        if next > before {
            // What is missing now was asked of nobody yet.
            self.asked.clear();
        }
    }

    /// The highest sequence number that is known to exist.
    pub(super) fn target(&self) -> u64 {
        let held = self.held.last_key_value().map_or(0, |(last, _)| *last);
        self.proven.0.max(self.claimed).max(held)
    }

    pub(super) fn has_gap(&self) -> bool {
        self.next.is_none_or(|next| self.target() >= next)
    }

    pub(super) fn given_up_at(&self) -> Option<Mono> {
        let patience = if self.held.is_empty() { TAIL } else { HOLD };
        self.missing_since.map(|since| since + patience)
    }

    pub(super) fn wish(&self, stream: Stream) -> Option<Wish> {
        let from = self.next.unwrap_or(1);
        let to = self.held.first_key_value().map_or(self.target(), |(first, _)| first - 1);
        let (heard_from, asked) = (self.heard_from, self.asked.clone());
        // Nothing before the first frame: it only has to be found out whether that is where to start.
        Some(Wish { stream, from, to: to.max(from), heard_from, asked })
    }

    /// What is missing will not come. Goes on behind it.
    pub(super) fn give_up(&mut self, stream: Stream, settled: bool, ready: &mut Vec<Ready>) {
        self.missing_since = None;
        self.asked.clear();
        let before = self.count;
        if self.next.is_none() {
            // Nobody could say where it begins for this node. To a newcomer the past is not owed; one that has listened for
            // long would have had it, and is told.
            self.start_at_first();
            self.claimed = 0;
            if let Some(missed) = self.count.filter(|missed| settled && *missed > 0) {
                ready.push(Ready::Lost { stream, missed, exact: false });
            }
            return;
        }
        if self.held.is_empty() && self.proven.0 < self.next.unwrap_or(1) {
            // Hearsay that nobody could prove.
            self.claimed = 0;
            return;
        }
        self.start_at_first();
        self.claimed = 0;
        // Unknown only behind the floor of a neighbour: then all that the stream had is the most that can be missing.
        let (missed, exact) = match (before, self.count) {
            (Some(before), Some(after)) => (after.saturating_sub(before), true),
            (None, Some(after)) => (after, false),
            (_, None) => (1, false),
        };
        if missed > 0 {
            ready.push(Ready::Lost { stream, missed, exact });
        }
    }
}
