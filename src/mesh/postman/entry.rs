//! A message in the outbox, and those that it is owed to.

use std::sync::Arc;

use libp2p_identity::PeerId;

use super::notices::{Notice, Reason};
use crate::MessageId;
use crate::mesh::time::Wall;
use crate::wire::letter::{AcceptedRow, OwedRow};
use crate::wire::node_key::NodeKey;

/// A message that was accepted.
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
    /// That recipient is owed it no more.
    pub(super) fn release(&mut self, name: &str) {
        self.owed = std::mem::take(&mut self.owed).into_iter().filter(|owed| *owed.to != *name).collect();
    }

    pub(super) fn owed_to(&mut self, name: &str) -> Option<&mut Owed> {
        self.owed.iter_mut().find(|owed| &*owed.to == name && owed.ending.is_none())
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
