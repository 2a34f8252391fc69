//! Notices: what could not be delivered, kept until somebody has taken note of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::store::{Change, Job, Key, Table};
use super::{Jobs, PostAnswer, Purpose, answer};
use crate::MessageId;
use crate::mesh::effects::Effects;
use crate::mesh::event::Ticket;
use crate::mesh::time::Wall;
use crate::wire::letter::{self, NoticeRow, ReasonRow};

/// Why a message was not delivered to a recipient. What its sender knows, which need not be all that is true.
///
/// ```
/// use pombo::Reason;
/// assert_eq!(Reason::NeverReached.to_string(), "no node that holds the subscription could be reached in time");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No node that holds the subscription could be reached in time.
    NeverReached,
    /// It was stored there, and nobody confirmed in time that it was processed. It may have been.
    Stored,
    /// The other side had another message of the same id, and did not take it.
    Refused,
    /// It was damaged on this node's disk.
    Damaged,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::NeverReached => "no node that holds the subscription could be reached in time",
            Self::Stored => "it was stored there, and nobody confirmed in time that it was processed",
            Self::Refused => "the other side had another message of the same id",
            Self::Damaged => "it was damaged on this node's disk",
        })
    }
}

/// That a message was not delivered to a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// The message's place in the outbox.
    pub(crate) number: u64,
    pub(crate) id: MessageId,
    pub(crate) topic: Arc<str>,
    pub(crate) recipient: Arc<str>,
    pub(crate) reason: Reason,
    pub(crate) at: Wall,
}

impl Notice {
    /// Each recipient of a message has one at most.
    pub(super) fn key(&self) -> Key {
        let key = [self.number.to_be_bytes().as_slice(), self.recipient.as_bytes()].concat();
        Key { table: Table::Notices, key: key.into() }
    }

    pub(super) fn put(&self) -> Option<Change> {
        let reason = match self.reason {
            Reason::NeverReached => ReasonRow::NeverReached,
            Reason::Stored => ReasonRow::Stored,
            Reason::Refused => ReasonRow::Refused,
            Reason::Damaged => ReasonRow::Damaged,
        };
        let (topic, recipient) = (self.topic.to_string(), self.recipient.to_string());
        let row = NoticeRow { id: self.id, topic, recipient, reason, time: self.at.0 };
        letter::write(&row).ok().map(|row| Change::Put(self.key(), row))
    }

    /// Reads a row. None if it is none.
    pub(crate) fn read(key: &Key, row: &[u8]) -> Option<Self> {
        let number = u64::from_be_bytes(*key.key.first_chunk()?);
        let row: NoticeRow = letter::read(row).ok()?;
        let reason = match row.reason {
            ReasonRow::NeverReached => Reason::NeverReached,
            ReasonRow::Stored => Reason::Stored,
            ReasonRow::Refused => Reason::Refused,
            ReasonRow::Damaged => Reason::Damaged,
        };
        let (topic, recipient) = (row.topic.into(), row.recipient.into());
        Some(Self { number, id: row.id, topic, recipient, reason, at: Wall(row.time) })
    }
}

#[derive(Debug, Default)]
pub(super) struct Notices {
    /// In the order in which they came to be known in this run.
    all: BTreeMap<u64, Notice>,
    next: u64,
    /// Who waits for the one after that.
    waiting: Vec<(Ticket, u64)>,
}

impl Notices {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn add(&mut self, notices: Vec<Notice>, fx: &mut Effects) {
        for notice in notices {
            self.next += 1;
            self.all.insert(self.next, notice);
        }
        for (ticket, after) in std::mem::take(&mut self.waiting) {
            self.next(ticket, after, fx);
        }
    }

    /// Answered with the first one after that, as soon as there is one.
    pub(super) fn next(&mut self, ticket: Ticket, after: u64, fx: &mut Effects) {
        match self.all.range(after.saturating_add(1)..).next() {
            Some((serial, notice)) => {
                answer(fx, ticket, PostAnswer::Notice { serial: *serial, notice: Box::new(notice.clone()) });
            }
            None => self.waiting.push((ticket, after)),
        }
    }

    /// Somebody has taken note of it.
    pub(super) fn take(&mut self, ticket: Ticket, serial: u64, jobs: &mut Jobs, fx: &mut Effects) {
        match self.all.get(&serial) {
            Some(notice) => {
                let job = Job { changes: vec![Change::Delete(notice.key())], reads: Vec::new() };
                jobs.begin(job, Purpose::Taken { ticket, serial }, fx);
            }
            None => answer(fx, ticket, PostAnswer::Done),
        }
    }

    pub(super) fn taken(&mut self, serial: u64) {
        self.all.remove(&serial);
    }

    pub(super) fn abandoned(&mut self, ticket: Ticket) {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
    }
}
