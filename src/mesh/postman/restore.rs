//! What an earlier run left in the store, read when a node starts, and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::settled::Floor;
use super::store::{Change, Key, Store, StoreError, Table};
use super::{FORGOTTEN, Notice, Postman, Subscription};
use crate::mesh::effects::Effects;
use crate::mesh::postman::notices::Reason;
use crate::mesh::time::{Now, Wall};
use crate::wire::letter::{self, AcceptedRow, DurableRow, GivenRow, KeptRow, Letter, LetterRow, ReceivedRow, Row};

/// The rows that a node starts with.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    accepted: Vec<(u64, AcceptedRow)>,
    notices: Vec<Notice>,
    durables: Vec<(String, DurableRow)>,
    received: Vec<(u64, ReceivedRow)>,
    floors: Vec<((Arc<str>, PeerId), Floor)>,
    given: BTreeMap<u64, GivenRow>,
    kept: Vec<(u64, KeptRow)>,
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
            snapshot.accepted.extend(Self::give_up(store, key, now)?);
        }
        store.sync()?;
        for key in store.keys(Table::Given)? {
            snapshot.given.extend(row(store, &key)?);
        }
        snapshot.load_notices(store, now)?;
        snapshot.load_kept(store)?;
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
        for key in store.keys(Table::Floors)? {
            match store.read(&key)?.and_then(|row| Floor::read(&key, &row, now)) {
                Some(floor) => snapshot.floors.push(floor),
                None => store.write(&Change::Delete(key))?,
            }
        }
        store.sync()?;
        let used = letters.iter().filter_map(Key::to_number).chain(snapshot.notices.iter().map(|one| one.number));
        let used = used.chain(snapshot.kept.iter().map(|(number, _)| *number));
        snapshot.next = used.max().map_or(0, |last| last + 1);
        snapshot.damaged = store.take_damaged();
        Ok(snapshot)
    }

    /// Reads the notices, makes those anew that are damaged, and forgets messages that are kept for none.
    fn load_notices(&mut self, store: &mut impl Store, now: Wall) -> Result<(), StoreError> {
        for key in store.keys(Table::Notices)? {
            let notice = store.read(&key)?.and_then(|row| Notice::read(&key, &row));
            match (notice, Notice::place(&key)) {
                (Some(notice), _) => self.notices.push(notice),
                (None, None) => {}
                (None, Some((number, recipient))) => {
                    let letter = read_letter(store, &Key::number(Table::Letters, number))?;
                    let notice = letter.map(|(row, letter)| damaged(number, recipient, (&row, &letter), now));
                    notice.iter().filter_map(Notice::put).try_for_each(|put| store.write(&put))?;
                    self.notices.extend(notice);
                }
            }
        }
        let told: BTreeSet<u64> = self.notices.iter().map(|notice| notice.number).collect();
        let Self { accepted, given, .. } = self;
        // Where nobody may have a copy nobody has to be told.
        let bare: Vec<u64> = given.iter().filter(|(_, row)| row.at.is_empty()).map(|(number, _)| *number).collect();
        for number in bare {
            given.remove(&number);
            store.write(&Change::Delete(Key::number(Table::Given, number)))?;
        }
        let is_closing = |number: &u64| given.get(number).is_some_and(|row| !row.closing.is_empty());
        let is_over = |(number, row): &mut (u64, AcceptedRow)| {
            row.owed.is_empty() && !told.contains(number) && !is_closing(number)
        };
        for (number, _) in accepted.extract_if(.., is_over) {
            for table in [Table::Accepted, Table::Letters] {
                store.write(&Change::Delete(Key::number(table, number)))?;
            }
        }
        // What is damaged of a message is told of, whoever has copies.
        let known: BTreeSet<u64> = accepted
            .iter()
            .filter(|(number, row)| !row.owed.is_empty() || is_closing(number))
            .map(|one| one.0)
            .collect();
        let over: Vec<u64> = given.keys().copied().filter(|number| !known.contains(number)).collect();
        for number in over {
            given.remove(&number);
            store.write(&Change::Delete(Key::number(Table::Given, number)))?;
        }
        Ok(())
    }

    /// Reads what is kept for others. Of a copy of which a row is damaged nothing is kept.
    fn load_kept(&mut self, store: &mut impl Store) -> Result<(), StoreError> {
        for key in store.keys(Table::Kept)? {
            match row(store, &key)? {
                Some(kept) => self.kept.push(kept),
                None => store.write(&Change::Delete(key))?,
            }
        }
        let known: BTreeSet<u64> = self.kept.iter().map(|(number, _)| *number).collect();
        for key in store.keys(Table::KeptLetters)? {
            if key.to_number().is_none_or(|number| !known.contains(&number)) {
                store.write(&Change::Delete(key))?;
            }
        }
        Ok(())
    }

    /// What is left of a message is its letter, which says who was to get it. It is kept for their notices.
    fn give_up(store: &mut impl Store, key: &Key, now: Wall) -> Result<Option<(u64, AcceptedRow)>, StoreError> {
        let Some((number, (row, letter))) = key.to_number().zip(read_letter(store, key)?) else {
            store.write(&Change::Delete(key.clone()))?;
            return Ok(None);
        };
        let notices = row.to.iter().map(|name| damaged(number, name, (&row, &letter), now));
        notices.filter_map(|notice| notice.put()).try_for_each(|put| store.write(&put))?;
        let Letter { id, topic, time, expires, .. } = letter;
        let kept = AcceptedRow { id, topic, time, expires, bytes: bytes_of(&row), owed: Vec::new() };
        if let Ok(value) = letter::write(&kept) {
            store.write(&Change::Put(Key::number(Table::Accepted, number), value))?;
        }
        Ok(Some((number, kept)))
    }
}

/// A letter that is whole, and its row.
fn read_letter(store: &mut impl Store, key: &Key) -> Result<Option<(LetterRow, Letter)>, StoreError> {
    let row = store.read(key)?.and_then(|row| letter::read::<LetterRow>(&row).ok());
    Ok(row.and_then(|row| Letter::open(&row.sealed).ok().map(|letter| (row, letter))))
}

fn bytes_of(row: &LetterRow) -> u64 {
    u64::try_from(row.sealed.len()).unwrap_or(u64::MAX)
}

/// The notice for a recipient that may not have got a letter: what was known of that is damaged.
fn damaged(number: u64, recipient: &str, (row, letter): (&LetterRow, &Letter), now: Wall) -> Notice {
    Notice {
        number,
        id: letter.id,
        topic: letter.topic.as_str().into(),
        recipient: recipient.into(),
        reason: Reason::Damaged,
        at: now,
        expires: Wall(letter.expires),
        bytes: bytes_of(row),
        offers: 0,
        stored: None,
    }
}

/// A row with a number. None if it is damaged.
fn row<T: Row>(store: &mut impl Store, key: &Key) -> Result<Option<(u64, T)>, StoreError> {
    let row = store.read(key)?.and_then(|row| letter::read::<T>(&row).ok());
    Ok(key.to_number().zip(row))
}

impl Postman {
    /// Takes up what an earlier run left.
    pub(crate) fn restore(&mut self, mut snapshot: Snapshot, now: Now, fx: &mut Effects) {
        self.none = None;
        self.stale = true;
        self.damaged = snapshot.damaged;
        self.outbox.begin_at(snapshot.next);
        for (number, row) in snapshot.accepted {
            let given = snapshot.given.remove(&number);
            self.outbox.restore(number, row, given, now.mono);
        }
        for (number, row) in snapshot.kept {
            self.outbox.restore_kept(number, row);
        }
        self.outbox.told(&snapshot.notices);
        self.notices.add(snapshot.notices, fx);
        for (name, row) in snapshot.durables {
            self.inbox.subscriptions.insert(name.into(), Subscription::new(row.pattern.into()));
        }
        for (number, row) in snapshot.received {
            self.inbox.restore(number, row);
        }
        // Without a recipient they are of exchanges in which something was kept, or let go of.
        for ((name, from), floor) in snapshot.floors {
            if name.is_empty() {
                self.outbox.kept_floors.insert(from, floor);
            } else {
                self.inbox.floors.insert((name, from), floor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mesh::postman::store::Memory;
    use crate::wire::letter::OwedRow;
    use crate::{Headers, MessageId};

    const NOW: Wall = Wall(1_000);

    /// A store with a message in the first place of the outbox, for two recipients, of which it is owed to so many.
    fn store(owed: &[&str]) -> Memory {
        let id = MessageId { start: [1; 8], counter: 2 };
        let (topic, content_type, headers) = ("orders.new".to_owned(), String::new(), Headers::default());
        let letter =
            Letter { id, topic: topic.clone(), content_type, headers, time: 5, expires: 9, payload: Bytes::new() };
        let letter = LetterRow { sealed: letter.seal().expect("sealed"), to: vec!["audit".into(), "billing".into()] };
        let owed =
            owed.iter().map(|name| OwedRow { name: (*name).to_owned(), stored: None, attempts: 0, lease: 0 }).collect();
        let accepted = AcceptedRow { id, topic, time: 5, expires: 9, bytes: bytes_of(&letter), owed };
        let mut store = Memory::default();
        put(&mut store, Key::number(Table::Letters, 0), letter::write(&letter).expect("encodes"));
        put(&mut store, Key::number(Table::Accepted, 0), letter::write(&accepted).expect("encodes"));
        store
    }

    fn put(store: &mut Memory, key: Key, value: Bytes) {
        store.write(&Change::Put(key, value)).expect("in memory");
        store.sync().expect("in memory");
    }

    fn told(snapshot: &Snapshot) -> Vec<(&str, Reason)> {
        snapshot.notices.iter().map(|notice| (&*notice.recipient, notice.reason)).collect()
    }

    #[test]
    fn a_notice_that_is_damaged_is_made_anew() {
        let mut store = store(&[]);
        let (row, letter) = read_letter(&mut store, &Key::number(Table::Letters, 0)).expect("reads").expect("whole");
        let whole = Notice { reason: Reason::Stored, ..damaged(0, "audit", (&row, &letter), NOW) };
        let other = damaged(0, "billing", (&row, &letter), NOW);
        let Some(Change::Put(key, value)) = whole.put() else { panic!("it is written") };
        put(&mut store, key, value);
        put(&mut store, other.key(), Bytes::from_static(b"\xff"));
        for _ in 0..2 {
            let snapshot = Snapshot::load(&mut store, NOW).expect("loads");
            assert_eq!(told(&snapshot), [("audit", Reason::Stored), ("billing", Reason::Damaged)]);
            assert_eq!(snapshot.accepted.len(), 1, "it is kept");
        }
    }

    #[test]
    fn a_message_of_which_only_the_letter_is_left_is_told_of_and_kept() {
        let mut store = store(&["billing"]);
        put(&mut store, Key::number(Table::Accepted, 0), Bytes::from_static(b"\xff"));
        for _ in 0..2 {
            let snapshot = Snapshot::load(&mut store, NOW).expect("loads");
            assert_eq!(told(&snapshot), [("audit", Reason::Damaged), ("billing", Reason::Damaged)]);
            assert!(snapshot.accepted[0].1.owed.is_empty() && store.read(&Key::number(Table::Letters, 0)) != Ok(None));
        }
    }

    #[test]
    fn what_is_kept_for_no_notice_is_forgotten() {
        let mut store = store(&[]);
        assert!(Snapshot::load(&mut store, NOW).expect("loads").accepted.is_empty());
        assert!(store.keys(Table::Letters).expect("lists").is_empty());
        assert!(store.keys(Table::Accepted).expect("lists").is_empty());
    }
}
