//! What is under way at the store, and why.

use std::collections::BTreeMap;
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::entry::{Address, Entry};
use super::inbox::Verdict;
use super::keeping::KeptNow;
use super::store::{Change, Job};
use super::subscription::Terms;
use crate::MessageId;
use crate::mesh::effects::Effects;
use crate::mesh::event::{HolderId, InboundId, JobId, Output, Ticket};
use crate::mesh::time::{Mono, Span};

/// When rows are deleted again for which there was no room.
const DELETED_AGAIN: Span = Span::secs(1);

/// Why something is written or read.
#[derive(Debug)]
pub(super) enum Purpose {
    Accept {
        ticket: Ticket,
        number: u64,
        entry: Box<Entry>,
        /// How many copies are wanted, and who could keep one beside those that are to.
        copies: Option<(usize, Vec<PeerId>)>,
        /// The notice that goes for it.
        instead: Option<u64>,
    },
    Load {
        of: Address,
        to: PeerId,
    },
    /// One more may have a copy.
    Widen {
        number: u64,
        at: PeerId,
    },
    /// Reads letters for one who is to keep them.
    Entrust {
        at: PeerId,
    },
    Keep(KeptNow),
    Notices {
        ended: Vec<(u64, Arc<str>)>,
    },
    Taken {
        ticket: Ticket,
        serial: u64,
    },
    Show {
        ticket: Ticket,
    },
    Receive {
        reply: ReplyTo,
        verdicts: Vec<Verdict>,
        /// Messages of that node, which another offers.
        brought: Option<Brought>,
        /// For which durable subscription, who offered them, and whether that one is to be told when something is processed. None: it
        /// was late on its way.
        by: Option<(Arc<str>, PeerId, bool)>,
    },
    HandOut {
        name: Arc<str>,
        holder: HolderId,
        numbers: Vec<u64>,
    },
    Acknowledge {
        ticket: Ticket,
        number: u64,
    },
    Hold {
        ticket: Ticket,
        holder: HolderId,
        name: Arc<str>,
        pattern: Arc<str>,
        terms: Terms,
    },
    Answer {
        ticket: Ticket,
    },
    /// Nothing hangs on it but the room of what it deletes: what is not written down is found out again.
    Noted {
        deletes: Vec<Change>,
        /// What a recipient need not remember when it is.
        processed: Option<Processed>,
    },
}

/// Messages that a node has processed for a recipient.
#[derive(Debug)]
pub(super) struct Processed {
    pub(super) name: Arc<str>,
    pub(super) at: PeerId,
    pub(super) ids: Vec<MessageId>,
}

/// What is offered by one who keeps it: for whom, whose, and the ids.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) name: Arc<str>,
    pub(super) sender: PeerId,
    pub(super) ids: Vec<MessageId>,
}

/// Where the answer to an offer goes.
#[derive(Debug)]
pub(crate) enum ReplyTo {
    Peer(InboundId),
    /// This node offers to itself, for that recipient.
    Own(Address),
}

/// Jobs under way.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub(super) open: BTreeMap<JobId, Purpose>,
    next: u64,
    /// What could not be deleted, for want of room.
    pub(super) undone: Vec<Change>,
    /// When that is tried again.
    pub(super) again_at: Option<Mono>,
}

impl Jobs {
    pub(super) fn begin(&mut self, job: Job, purpose: Purpose, fx: &mut Effects) {
        let id = JobId(self.next);
        self.next += 1;
        let can_wait = matches!(purpose, Purpose::Noted { .. });
        self.open.insert(id, purpose);
        fx.push(Output::Store { id, job, can_wait });
    }

    /// Writes something down on which nothing hangs, a moment later. Rows that are deleted do not come back, so that may be done later, too.
    pub(super) fn note(&mut self, changes: Vec<Change>, fx: &mut Effects) {
        self.note_processed(changes, None, fx);
    }

    /// Writes down that messages were processed, if any were.
    pub(super) fn note_processed(&mut self, changes: Vec<Change>, processed: Option<Processed>, fx: &mut Effects) {
        if !changes.is_empty() {
            let deletes = changes.iter().filter(|change| matches!(change, Change::Delete(_))).cloned().collect();
            self.begin(Job { changes, reads: Vec::new() }, Purpose::Noted { deletes, processed }, fx);
        }
    }

    /// Deletes what could not be deleted, some time after that.
    pub(super) fn go_on(&mut self, now: Mono, fx: &mut Effects) {
        match self.again_at {
            _ if self.undone.is_empty() => self.again_at = None,
            None => self.again_at = Some(now + DELETED_AGAIN),
            Some(at) if at > now => {}
            Some(_) => {
                self.again_at = None;
                let undone = std::mem::take(&mut self.undone);
                self.note(undone, fx);
            }
        }
    }
}
