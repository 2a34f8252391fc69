//! What an earlier run left in the store, read when a node starts, and checked.

use std::collections::BTreeSet;

use super::store::{Change, Key, Store, StoreError, Table};
use super::{FORGOTTEN, Notice, Postman, Subscription};
use crate::mesh::effects::Effects;
use crate::mesh::postman::notices::Reason;
use crate::mesh::time::Wall;
use crate::wire::letter::{self, AcceptedRow, DurableRow, Letter, LetterRow, ReceivedRow, Row};

/// The rows that a node starts with.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    accepted: Vec<(u64, AcceptedRow)>,
    notices: Vec<Notice>,
    durables: Vec<(String, DurableRow)>,
    received: Vec<(u64, ReceivedRow)>,
    /// The first place in the outbox that was never used.
    next: u64,
    damaged: u64,
}

impl Snapshot {
    /// Reads a store. Messages of which a row is damaged are given up with a notice for each recipient.
    pub(crate) fn load(store: &mut impl Store, now: Wall) -> Result<Self, StoreError> {
        let mut snapshot = Self::default();
        for key in store.keys(Table::Accepted)? {
            snapshot.accepted.extend(row(store, &key)?);
        }
        let known: BTreeSet<u64> = snapshot.accepted.iter().map(|(number, _)| *number).collect();
        let letters = store.keys(Table::Letters)?;
        let orphans = letters.iter().filter(|key| key.to_number().is_none_or(|number| !known.contains(&number)));
        for key in orphans {
            Self::give_up(store, key, now)?;
        }
        store.sync()?;
        for key in store.keys(Table::Notices)? {
            let notice = store.read(&key)?.and_then(|row| Notice::read(&key, &row));
            snapshot.notices.extend(notice);
        }
        for key in store.keys(Table::Durables)? {
            let row = store.read(&key)?.and_then(|row| letter::read::<DurableRow>(&row).ok());
            let name = String::from_utf8(key.key.to_vec()).ok();
            let held = row.zip(name).filter(|(row, _)| now - Wall(row.held) < FORGOTTEN);
            match held {
                Some((row, name)) => snapshot.durables.push((name, row)),
                None => store.write(&Change::Delete(key))?,
            }
        }
        for key in store.keys(Table::Received)? {
            snapshot.received.extend(row(store, &key)?);
        }
        store.sync()?;
        let used = letters.iter().filter_map(Key::to_number).chain(snapshot.notices.iter().map(|one| one.number));
        snapshot.next = used.max().map_or(0, |last| last + 1);
        snapshot.damaged = store.take_damaged();
        Ok(snapshot)
    }

    /// What is left of a message is its letter, which says who was to get it.
    fn give_up(store: &mut impl Store, key: &Key, now: Wall) -> Result<(), StoreError> {
        let row = store.read(key)?.and_then(|row| letter::read::<LetterRow>(&row).ok());
        let opened = row.and_then(|row| Some((Letter::open(&row.sealed).ok()?, row.to)));
        if let Some((Letter { id, topic, .. }, to)) = opened {
            let number = key.to_number().unwrap_or_default();
            for name in to {
                let (topic, recipient) = (topic.as_str().into(), name.into());
                let notice = Notice { number, id, topic, recipient, reason: Reason::Damaged, at: now };
                notice.put().iter().try_for_each(|put| store.write(put))?;
            }
        }
        store.write(&Change::Delete(key.clone()))
    }
}

/// A row with a number. None if it is damaged.
fn row<T: Row>(store: &mut impl Store, key: &Key) -> Result<Option<(u64, T)>, StoreError> {
    let row = store.read(key)?.and_then(|row| letter::read::<T>(&row).ok());
    Ok(key.to_number().zip(row))
}

impl Postman {
    /// Takes up what an earlier run left.
    pub(crate) fn restore(&mut self, snapshot: Snapshot, fx: &mut Effects) {
        self.none = None;
        self.stale = true;
        self.damaged = snapshot.damaged;
        self.outbox.begin_at(snapshot.next);
        for (number, row) in snapshot.accepted {
            self.outbox.restore(number, row);
        }
        self.notices.add(snapshot.notices, fx);
        for (name, row) in snapshot.durables {
            self.inbox.subscriptions.insert(name.into(), Subscription::new(row.pattern.into()));
        }
        for (number, row) in snapshot.received {
            self.inbox.restore(number, row);
        }
    }
}
