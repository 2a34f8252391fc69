//! Notices: what could not be delivered, kept until somebody has taken note of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::store::{Change, Key, Table};
use super::{PostAnswer, answer};
use crate::MessageId;
use crate::mesh::effects::Effects;
use crate::mesh::event::Ticket;
use crate::mesh::time::Wall;
use crate::wire::letter::{self, NoticeRow, ReasonRow};
use crate::wire::node_key::NodeKey;

/// Why a message was not delivered to a recipient. What its sender knows, which need not be all that is true.
///
/// ```
/// use pombo::Reason;
/// assert_eq!(Reason::NeverReached.to_string(), "no node that holds the subscription could be reached in time");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// It was handed out as often as the subscription allows ([`SubscribeDurable::attempts`](crate::SubscribeDurable::attempts)), and
    /// never acknowledged.
    Poison,
    /// No node that holds the subscription could be reached from here in time. Others have copies and may have delivered it, and could
    /// not be asked.
    InCustody,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::NeverReached => "no node that holds the subscription could be reached in time",
            Self::Stored => "it was stored there, and nobody confirmed in time that it was processed",
            Self::Refused => "the other side had another message of the same id",
            Self::Damaged => "it was damaged on this node's disk",
            Self::Poison => "it was handed out as often as it may be, and never acknowledged",
            Self::InCustody => "nodes that have copies of it may have delivered it, and could not be asked",
        })
    }
}

impl From<Reason> for ReasonRow {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NeverReached => Self::NeverReached,
            Reason::Stored => Self::Stored,
            Reason::Refused => Self::Refused,
            Reason::Damaged => Self::Damaged,
            Reason::Poison => Self::Poison,
            Reason::InCustody => Self::InCustody,
        }
    }
}

impl From<ReasonRow> for Reason {
    fn from(row: ReasonRow) -> Self {
        match row {
            ReasonRow::NeverReached => Self::NeverReached,
            ReasonRow::Stored => Self::Stored,
            ReasonRow::Refused => Self::Refused,
            ReasonRow::Damaged => Self::Damaged,
            ReasonRow::Poison => Self::Poison,
            ReasonRow::InCustody => Self::InCustody,
        }
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
    pub(crate) expires: Wall,
    /// The bytes of its sealed letter.
    pub(crate) bytes: u64,
    /// How often it was offered in the run in which it was given up, and who had stored it since when.
    pub(crate) offers: u32,
    pub(crate) stored: Option<(NodeKey, u64)>,
}

impl Notice {
    /// Each recipient of a message has one at most.
    pub(super) fn key(&self) -> Key {
        let key = [self.number.to_be_bytes().as_slice(), self.recipient.as_bytes()].concat();
        Key { table: Table::Notices, key: key.into() }
    }

    pub(super) fn put(&self) -> Option<Change> {
        let (topic, recipient) = (self.topic.to_string(), self.recipient.to_string());
        let row = NoticeRow {
            id: self.id,
            topic,
            recipient,
            reason: self.reason.into(),
            time: self.at.0,
            expires: self.expires.0,
            bytes: self.bytes,
            offers: self.offers,
            stored: self.stored,
        };
        letter::write(&row).ok().map(|row| Change::Put(self.key(), row))
    }

    /// Reads a row. None if it is none.
    pub(crate) fn read(key: &Key, row: &[u8]) -> Option<Self> {
        let number = u64::from_be_bytes(*key.key.first_chunk()?);
        let row: NoticeRow = letter::read(row).ok()?;
        Some(Self {
            number,
            id: row.id,
            topic: row.topic.into(),
            recipient: row.recipient.into(),
            reason: row.reason.into(),
            at: Wall(row.time),
            expires: Wall(row.expires),
            bytes: row.bytes,
            offers: row.offers,
            stored: row.stored,
        })
    }

    /// Which message and recipient a row of this key tells of, whatever has become of the row.
    pub(crate) fn place(key: &Key) -> Option<(u64, &str)> {
        let (number, recipient) = key.key.split_first_chunk()?;
        Some((u64::from_be_bytes(*number), std::str::from_utf8(recipient).ok()?))
    }
}

#[derive(Debug, Default)]
pub(super) struct Notices {
    /// In the order in which they came to be known in this run.
    all: BTreeMap<u64, Notice>,
    /// The same, by message and recipient.
    places: BTreeMap<(u64, Arc<str>), u64>,
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
            self.places.insert((notice.number, Arc::clone(&notice.recipient)), self.next);
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

    /// The notice for a recipient of a message.
    pub(super) fn of(&self, number: u64, recipient: &str) -> Option<(u64, &Notice)> {
        let serial = *self.places.get(&(number, Arc::from(recipient)))?;
        Some((serial, self.all.get(&serial)?))
    }

    /// How many tell of a message.
    pub(super) fn tell_of(&self, number: u64) -> usize {
        self.places.range((number, Arc::from(""))..).take_while(|((of, _), _)| *of == number).count()
    }

    /// All, or the first so many.
    pub(super) fn all(&self, most: usize) -> Vec<Notice> {
        self.all.values().take(most).cloned().collect()
    }

    pub(super) fn taken(&mut self, serial: u64) -> Option<Notice> {
        let notice = self.all.remove(&serial)?;
        self.places.remove(&(notice.number, Arc::clone(&notice.recipient)));
        Some(notice)
    }

    pub(super) fn abandoned(&mut self, ticket: Ticket) {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
    }
}
