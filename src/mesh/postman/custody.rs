//! What other nodes have to do with a message: they keep copies of it, or it is a copy of theirs.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::PeerId;

use crate::mesh::event::Ticket;
use crate::mesh::time::Mono;
use crate::wire::custody::End;
use crate::wire::letter::{AcceptedRow, GivenRow, KeptRow, OverRow};
use crate::wire::node_key::NodeKey;

#[derive(Debug)]
pub(super) enum Custody {
    Given(Given),
    Kept(Kept),
}

/// The copies of a message of this node.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// What is signed for those who keep it, and the signature.
    pub(super) text: Vec<u8>,
    pub(super) signature: Bytes,
    /// Whom it was given to, or is to be. The place of each says when it steps in.
    pub(super) copies: Vec<Copy>,
    pub(super) closing: Vec<Closing>,
    pub(super) awaited: Option<Awaited>,
    pub(super) inquiry: Option<Inquiry>,
    /// They were asked when its time was over, and whether all of them answered.
    pub(super) heard_out: Option<bool>,
}

/// A copy at another node.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) at: Arc<PeerId>,
    pub(super) state: CopyState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyState {
    /// It is to be given to it.
    Planned,
    /// It was given to it, which did not say so.
    May,
    Has,
    Not,
}

/// A recipient that needs nothing any more, which those who keep copies have to know.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) to: Arc<str>,
    /// Where it was processed, if it was.
    pub(super) by: Option<Arc<PeerId>>,
    /// Who does not know it yet.
    pub(super) left: BTreeSet<Arc<PeerId>>,
}

/// Somebody waits for the copies.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) ticket: Ticket,
    pub(super) wanted: usize,
    pub(super) recipients: Vec<Arc<str>>,
    /// Who else could keep one.
    pub(super) others: Vec<PeerId>,
    pub(super) until: Mono,
}

/// Those who keep copies are asked what they know.
#[derive(Debug)]
pub(super) struct Inquiry {
    pub(super) left: BTreeSet<Arc<PeerId>>,
    pub(super) until: Mono,
    /// Its time is over. Otherwise this node has just started.
    pub(super) at_end: bool,
}

/// A message that this node keeps for another.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) from: Arc<PeerId>,
    /// How many others step in before this node.
    pub(super) rank: u8,
    pub(super) signature: Bytes,
    /// Recipients that are done with it.
    pub(super) over: Vec<Over>,
    pub(super) has_letter: bool,
    /// Its sender knows how it ended: it is forgotten soon.
    pub(super) is_fetched: bool,
}

/// That a node was done with it for a recipient.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) name: Arc<str>,
    pub(super) at: NodeKey,
    pub(super) end: End,
    pub(super) receipt: Bytes,
}

impl Given {
    pub(super) fn new(at: impl IntoIterator<Item = Arc<PeerId>>) -> Self {
        let copies = at.into_iter().map(|at| Copy { at, state: CopyState::Planned }).collect();
        Self { copies, ..Self::default() }
    }

    /// What was planned only is not done. Returns where.
    pub(super) fn drop_plans(&mut self) -> Vec<PeerId> {
        let planned = self.copies.iter_mut().filter(|copy| copy.state == CopyState::Planned);
        let dropped = planned.map(|copy| {
            copy.state = CopyState::Not;
            *copy.at
        });
        dropped.collect()
    }

    /// That one is not given a copy, unless it was already.
    pub(super) fn unplan(&mut self, at: PeerId) {
        let planned = self.copies.iter_mut().filter(|copy| *copy.at == at && copy.state == CopyState::Planned);
        planned.for_each(|copy| copy.state = CopyState::Not);
    }

    /// Whether that one is to have a copy, or has it.
    pub(super) fn is_with(&self, at: PeerId) -> bool {
        self.copies.iter().any(|copy| *copy.at == at && copy.state != CopyState::Not)
    }

    /// Who has a copy, may have one, or is to have one.
    pub(super) fn holders(&self) -> BTreeSet<Arc<PeerId>> {
        let holders = self.copies.iter().filter(|copy| copy.state != CopyState::Not);
        holders.map(|copy| Arc::clone(&copy.at)).collect()
    }

    pub(super) fn set(&mut self, at: PeerId, state: CopyState) {
        self.copies.iter_mut().filter(|copy| *copy.at == at).for_each(|copy| copy.state = state);
    }

    pub(super) fn count(&self, state: CopyState) -> usize {
        self.copies.iter().filter(|copy| copy.state == state).count()
    }

    /// Which of those who step in that one is.
    pub(super) fn rank(&self, of: PeerId) -> u8 {
        let place = self.copies.iter().position(|copy| *copy.at == of);
        place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
    }

    pub(super) fn row(&self) -> GivenRow {
        let key = |peer: &Arc<PeerId>| NodeKey::of(peer);
        GivenRow {
            at: self.holders().iter().filter_map(key).collect(),
            closing: self.closing.iter().map(|one| (one.to.to_string(), one.by.as_ref().and_then(key))).collect(),
        }
    }

    pub(super) fn restored(row: GivenRow) -> Self {
        let mut given = Self::new(row.at.iter().filter_map(NodeKey::peer).map(Arc::new));
        given.copies.iter_mut().for_each(|copy| copy.state = CopyState::May);
        let left = given.holders();
        let closing = row.closing.into_iter().map(|(to, by)| Closing {
            to: to.into(),
            by: by.and_then(|by| by.peer()).map(Arc::new),
            left: left.clone(),
        });
        given.closing = closing.collect();
        given
    }
}

impl Kept {
    pub(super) fn row(&self, message: AcceptedRow) -> Option<KeptRow> {
        let over = self.over.iter().map(|over| OverRow {
            name: over.name.to_string(),
            at: over.at,
            end: over.end,
            receipt: over.receipt.clone(),
        });
        let (from, signature) = (NodeKey::of(&self.from)?, self.signature.clone());
        Some(KeptRow { message, from, rank: self.rank, signature, over: over.collect() })
    }
}
