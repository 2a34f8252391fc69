//! A message in the outbox, and those that it is owed to.

use std::sync::Arc;

use libp2p_identity::PeerId;

use super::custody::{Custody, Given, Kept};
use super::notices::{Notice, Reason};
use super::store::{Change, Key, Table};
use crate::MessageId;
use crate::mesh::time::Wall;
use crate::wire::letter::{self, AcceptedRow, OwedRow};
use crate::wire::node_key::NodeKey;

/// For whom something is owed, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    /// The durable subscription.
    pub(crate) name: Arc<str>,
    /// Whose message it is, if this node keeps it for that one, and how many others step in before.
    pub(crate) kept_for: Option<(PeerId, u8)>,
}

/// A message that was accepted, or is kept for another node.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: MessageId,
    pub(super) topic: Arc<str>,
    /// When it was accepted.
    pub(super) time: Wall,
    pub(super) expires: Wall,
    pub(super) bytes: u32,
    /// How many notices tell of it.
    pub(super) told: u32,
    pub(super) owed: Box<[Owed]>,
    /// What other nodes have to do with it.
    pub(super) custody: Option<Box<Custody>>,
}

/// A recipient that a message is owed to.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) to: Arc<str>,
    /// Who has it on disk for that recipient, and since when.
    pub(super) by: Option<Arc<PeerId>>,
    pub(super) since: Wall,
    /// How often it was offered, in this run.
    pub(super) offers: u32,
    /// How often it was handed out by nodes that do not have it any more, and how many nodes those were.
    pub(super) attempts: u32,
    pub(super) lease: u32,
    /// It is not delivered, for that reason, which is being written down.
    pub(super) ending: Option<Box<(Reason, Wall)>>,
}

impl Entry {
    pub(super) fn restored(row: AcceptedRow, custody: Option<Custody>) -> Self {
        Self {
            id: row.id,
            topic: row.topic.into(),
            time: Wall(row.time),
            expires: Wall(row.expires),
            bytes: u32::try_from(row.bytes).unwrap_or(u32::MAX),
            told: 0,
            owed: row.owed.into_iter().map(Owed::restored).collect(),
            custody: custody.map(Box::new),
        }
    }

    /// That recipient is owed it no more.
    pub(super) fn release(&mut self, name: &str) {
        self.owed = std::mem::take(&mut self.owed).into_iter().filter(|owed| *owed.to != *name).collect();
    }

    pub(super) fn owed_to(&mut self, name: &str) -> Option<&mut Owed> {
        self.owed.iter_mut().find(|owed| &*owed.to == name && owed.ending.is_none())
    }

    pub(super) fn address(&self, name: &Arc<str>) -> Address {
        Address { name: Arc::clone(name), kept_for: self.kept().map(|kept| (*kept.from, kept.rank)) }
    }

    /// The copies of a message of this node.
    pub(super) fn given(&mut self) -> Option<&mut Given> {
        match self.custody.as_deref_mut() {
            Some(Custody::Given(given)) => Some(given),
            Some(Custody::Kept(_)) | None => None,
        }
    }

    /// Whose it is, if it is kept for another.
    pub(super) fn kept(&self) -> Option<&Kept> {
        match self.custody.as_deref() {
            Some(Custody::Kept(kept)) => Some(kept),
            Some(Custody::Given(_)) | None => None,
        }
    }

    pub(super) fn kept_mut(&mut self) -> Option<&mut Kept> {
        match self.custody.as_deref_mut() {
            Some(Custody::Kept(kept)) => Some(kept),
            Some(Custody::Given(_)) | None => None,
        }
    }

    /// Whether nothing is left to do for it, or to say of it.
    pub(super) fn is_done(&self) -> bool {
        let is_closed = match self.custody.as_deref() {
            Some(Custody::Given(given)) => given.closing.is_empty(),
            Some(Custody::Kept(kept)) => kept.over.is_empty(),
            None => true,
        };
        self.owed.is_empty() && is_closed
    }

    /// Where its letter stands.
    pub(super) fn letter(&self, number: u64) -> Key {
        let table = if self.kept().is_some() { Table::KeptLetters } else { Table::Letters };
        Key::number(table, number)
    }

    /// How it stands, written down: gone, if nothing is left of it.
    pub(super) fn changes(&self, number: u64) -> Vec<Change> {
        let row = |table| Key::number(table, number);
        match self.custody.as_deref() {
            Some(Custody::Kept(_)) if self.is_done() => {
                vec![Change::Delete(row(Table::Kept)), Change::Delete(row(Table::KeptLetters))]
            }
            Some(Custody::Kept(kept)) => {
                let letter =
                    (self.owed.is_empty() || !kept.has_letter).then(|| Change::Delete(row(Table::KeptLetters)));
                let put = kept.row(self.row()).and_then(|kept| letter::write(&kept).ok());
                put.map(|put| Change::Put(row(Table::Kept), put)).into_iter().chain(letter).collect()
            }
            given => {
                let given =
                    given.and_then(|custody| if let Custody::Given(given) = custody { Some(given) } else { None });
                let copies = given.and_then(|given| match self.is_done() {
                    true => Some(Change::Delete(row(Table::Given))),
                    false => Some(Change::Put(row(Table::Given), letter::write(&given.row()).ok()?)),
                });
                if self.is_done() && self.told == 0 {
                    let rows = [Table::Accepted, Table::Letters].map(|table| Change::Delete(row(table)));
                    return rows.into_iter().chain(copies).collect();
                }
                let put = letter::write(&self.row()).ok().map(|put| Change::Put(row(Table::Accepted), put));
                put.into_iter().chain(copies).collect()
            }
        }
    }

    pub(super) fn row(&self) -> AcceptedRow {
        let owed = self.owed.iter().filter(|owed| owed.ending.is_none());
        let owed = owed.map(|owed| OwedRow {
            name: owed.to.to_string(),
            stored: owed.stored(),
            attempts: owed.attempts,
            lease: owed.lease,
        });
        AcceptedRow {
            id: self.id,
            topic: self.topic.to_string(),
            time: self.time.0,
            expires: self.expires.0,
            bytes: self.bytes.into(),
            owed: owed.collect(),
        }
    }

    pub(super) fn notice(&self, number: u64, name: &Arc<str>, reason: Reason, at: Wall) -> Option<Notice> {
        let owed = self.owed.iter().find(|owed| owed.to == *name)?;
        Some(Notice {
            number,
            id: self.id,
            topic: Arc::clone(&self.topic),
            recipient: Arc::clone(name),
            reason,
            at,
            expires: self.expires,
            bytes: self.bytes.into(),
            offers: owed.offers,
            stored: owed.stored(),
        })
    }
}

impl Owed {
    pub(super) fn new(to: Arc<str>) -> Self {
        Self { to, by: None, since: Wall(0), offers: 0, attempts: 0, lease: 0, ending: None }
    }

    pub(super) fn restored(row: OwedRow) -> Self {
        let (by, since) = row.stored.unzip();
        Self {
            by: by.and_then(|key| key.peer()).map(Arc::new),
            since: Wall(since.unwrap_or_default()),
            attempts: row.attempts,
            lease: row.lease,
            ..Self::new(row.name.into())
        }
    }

    /// Who has it on disk, and since when.
    pub(super) fn stored(&self) -> Option<(NodeKey, u64)> {
        Some((NodeKey::of(self.by.as_deref()?)?, self.since.0))
    }
}
