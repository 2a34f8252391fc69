//! The sender's half: what was accepted and is owed, to whom, and which of it is offered next.
//!
//! To each recipient one exchange is under way at a time. It carries the oldest letters that are owed, in their order, so that
//! this order holds whatever is lost and repeated, and asks what became of those that were stored there before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::PeerId;

use super::notices::{Notice, Reason};
use super::recipient::{Exchange, Recipient};
use super::store::{Change, Done, Job, Key, StoreError, Table};
use super::{Directory, Jobs, Offers, Parcel, PostAnswer, Posting, Purpose, answer};
use crate::MessageId;
use crate::mesh::effects::Effects;
use crate::mesh::event::Ticket;
use crate::mesh::time::{Mono, Now, Span, Wall};
use crate::wire::letter::{self, AcceptedRow, LetterRow, OwedRow};
use crate::wire::rpc::{Fate, Offered};

/// What there may be too much of.
pub(crate) const MESSAGES: &str = "messages";
pub(crate) const BYTES: &str = "bytes";
/// How far apart the clocks of two nodes may be. After a message's time a notice waits for so long: by then nobody starts
/// work on it any more.
pub(crate) const SKEW: Span = Span::secs(5);
/// Letters of one exchange, and their bytes unless there is one only.
const BATCH: usize = 64;
const BATCH_BYTES: u64 = 256 * 1024;
/// So many are asked about in one exchange.
const ASKED: usize = 1_000;
/// So many notices are written at a time.
const NOTICES: usize = 256;
/// When a notice is tried again that could not be written.
const WRITE_AGAIN: Span = Span::secs(1);

/// A message that was accepted.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: MessageId,
    pub(super) topic: Arc<str>,
    pub(super) expires: Wall,
    bytes: u64,
    pub(super) owed: Vec<Owed>,
    /// How many notices tell of it.
    pub(super) told: u32,
}

/// A recipient that a message is owed to.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) to: Arc<str>,
    /// Who has it on disk for that recipient, and since when.
    pub(super) by: Option<PeerId>,
    pub(super) since: Wall,
    /// How often it was offered, in this run.
    pub(super) offers: u32,
    /// It is not delivered, for that reason, which is being written down.
    pub(super) ending: Option<(Reason, Wall)>,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) entries: BTreeMap<u64, Entry>,
    pub(super) bytes: u64,
    /// Messages that are being written down.
    arriving: usize,
    next: u64,
    /// When each is given up.
    due: BTreeSet<(Wall, u64)>,
    recipients: BTreeMap<Arc<str>, Recipient>,
}

impl Outbox {
    /// Takes up what an earlier run accepted.
    pub(super) fn restore(&mut self, number: u64, row: AcceptedRow) {
        self.next = self.next.max(number + 1);
        self.bytes += row.bytes;
        if row.owed.is_empty() {
            // It is kept for its notices.
            return;
        }
        let owed = row.owed.into_iter().map(Owed::restored);
        let (expires, topic) = (Wall(row.expires), row.topic.into());
        self.insert(number, Entry { id: row.id, topic, expires, bytes: row.bytes, owed: owed.collect(), told: 0 });
    }

    /// Numbers of earlier runs are not used again: recipients go by their order.
    pub(super) fn begin_at(&mut self, number: u64) {
        self.next = self.next.max(number);
    }

    fn insert(&mut self, number: u64, entry: Entry) {
        self.due.insert((entry.expires + SKEW, number));
        for owed in &entry.owed {
            let recipient = self.recipients.entry(Arc::clone(&owed.to)).or_default();
            if owed.by.is_some() {
                recipient.stored.insert(number)
            } else {
                recipient.pending.insert(number)
            };
        }
        self.entries.insert(number, entry);
    }

    /// Takes a message, as soon as it is written down: in place of a notice, if it is sent anew.
    pub(super) fn accept(
        &mut self,
        (ticket, posting): (Ticket, Posting),
        instead: Option<(u64, &Notice)>,
        (most, most_bytes): (usize, usize),
        jobs: &mut Jobs,
        fx: &mut Effects,
    ) {
        let bytes = u64::try_from(posting.sealed.len()).unwrap_or(u64::MAX);
        if self.entries.len() + self.arriving >= most {
            return answer(fx, ticket, PostAnswer::Full { what: MESSAGES, limit: most });
        }
        if self.bytes.saturating_add(bytes) > u64::try_from(most_bytes).unwrap_or(u64::MAX) {
            return answer(fx, ticket, PostAnswer::Full { what: BYTES, limit: most_bytes });
        }
        let number = self.next;
        let Posting { id, topic, expires, sealed, to } = posting;
        let owed = to.iter().map(|to| Owed::new(Arc::clone(to))).collect();
        let entry = Entry { id, topic, expires, bytes, owed, told: 0 };
        let row = LetterRow { sealed, to: to.iter().map(|to| to.to_string()).collect() };
        let (Ok(accepted), Ok(row)) = (letter::write(&entry.row()), letter::write(&row)) else {
            return answer(fx, ticket, PostAnswer::Failed("it cannot be encoded".to_owned()));
        };
        self.next += 1;
        self.bytes += bytes;
        self.arriving += 1;
        let letter = Change::Put(Key::number(Table::Letters, number), row);
        let accepted = Change::Put(Key::number(Table::Accepted, number), accepted);
        let (serial, notice) = instead.unzip();
        let deletion = notice.map(|notice| Change::Delete(notice.key()));
        let changes = [letter, accepted].into_iter().chain(deletion).collect();
        let purpose = Purpose::Accept { ticket, number, entry: Box::new(entry), instead: serial };
        jobs.begin(Job { changes, reads: Vec::new() }, purpose, fx);
    }

    /// A message is on disk, or could not be written.
    pub(super) fn accepted(
        &mut self,
        (ticket, number, entry): (Ticket, u64, Entry),
        result: Result<Done, StoreError>,
        fx: &mut Effects,
    ) {
        self.arriving -= 1;
        match result {
            Ok(_) => {
                let recipients = entry.owed.iter().map(|owed| Arc::clone(&owed.to)).collect();
                self.insert(number, entry);
                answer(fx, ticket, PostAnswer::Accepted { recipients });
            }
            Err(error) => {
                self.bytes -= entry.bytes;
                answer(fx, ticket, PostAnswer::Failed(error.to_string()));
            }
        }
    }

    /// Begins the exchanges that are due.
    pub(super) fn offer(
        &mut self,
        directory: &impl Directory,
        now: Mono,
        jobs: &mut Jobs,
        offers: &mut Offers,
        fx: &mut Effects,
    ) {
        self.recipients.retain(|_, recipient| !recipient.is_done());
        for (name, recipient) in &mut self.recipients {
            let (fresh_due, ask_due) = recipient.due(now);
            if !fresh_due && !ask_due {
                continue;
            }
            let holder = directory.holder(name).filter(|_| fresh_due);
            let entries = &self.entries;
            let keeper = |number: &u64| entries.get(number).and_then(|entry| entry.keeper(name));
            let there = |peer: &PeerId| directory.is_live(*peer);
            let to = holder.or_else(|| recipient.stored.iter().take(ASKED).filter_map(keeper).find(there));
            let Some(to) = to else {
                recipient.back_off(now, fx);
                continue;
            };
            if !directory.is_linked(to) {
                offers.dials.push(to);
                recipient.back_off(now, fx);
                continue;
            }
            let asked = recipient.stored.iter().copied().filter(|number| keeper(number) == Some(to));
            let asked: Vec<u64> = asked.take(if ask_due { ASKED } else { 0 }).collect();
            let mut room = BATCH_BYTES;
            let fits = |number: &u64| {
                let bytes = entries.get(number).map_or(0, |entry| entry.bytes);
                let first = room == BATCH_BYTES;
                room = room.saturating_sub(bytes);
                first || room > 0
            };
            let fresh: Vec<u64> = match holder {
                Some(_) => recipient.pending.iter().copied().take(BATCH).take_while(fits).collect(),
                None => Vec::new(),
            };
            let reads = fresh.iter().map(|number| Key::number(Table::Letters, *number)).collect();
            recipient.exchange = Some(Exchange { to, asked, fresh });
            jobs.begin(Job { changes: Vec::new(), reads }, Purpose::Load { name: Arc::clone(name) }, fx);
        }
    }

    /// The letters of an exchange were read. Those that are lost are told of.
    pub(super) fn loaded(
        &mut self,
        name: &Arc<str>,
        result: Result<Done, StoreError>,
        now: Now,
        jobs: &mut Jobs,
        fx: &mut Effects,
    ) -> Option<Parcel> {
        let recipient = self.recipients.get_mut(name)?;
        let (Some(exchange), Ok(done)) = (&mut recipient.exchange, result) else {
            recipient.exchange = None;
            recipient.back_off(now.mono, fx);
            return None;
        };
        let sealed = |row: Option<Bytes>| letter::read::<LetterRow>(&row?).ok().map(|row| row.sealed);
        let read: Vec<_> = exchange.fresh.iter().copied().zip(done.rows.into_iter().map(sealed)).collect();
        let lost: Vec<u64> = read.iter().filter(|(_, sealed)| sealed.is_none()).map(|(number, _)| *number).collect();
        exchange.fresh.retain(|number| !lost.contains(number));
        let id = |number: &u64| self.entries.get(number).map(|entry| entry.id);
        // Those whose time ran out meanwhile are asked about and offered to the end of this exchange, which changes nothing.
        exchange.asked.retain(|number| id(number).is_some());
        exchange.fresh.retain(|number| id(number).is_some());
        let asked = exchange.asked.iter().filter_map(id).map(|id| Offered { id, sealed: Bytes::new() });
        let fresh = read.into_iter().filter_map(|(number, sealed)| Some(Offered { id: id(&number)?, sealed: sealed? }));
        let (to, letters): (_, Vec<_>) = (exchange.to, asked.chain(fresh).collect());
        let parcel = (!letters.is_empty()).then(|| (to, Arc::clone(name), letters));
        for number in &exchange.fresh {
            if let Some(owed) = self.entries.get_mut(number).and_then(|entry| entry.owed_to(name)) {
                owed.offers = owed.offers.saturating_add(1);
            }
        }
        if parcel.is_none() {
            recipient.exchange = None;
        }
        let lost = lost.into_iter().map(|number| (number, Arc::clone(name), Reason::Damaged)).collect();
        self.conclude(lost, now, jobs, fx);
        parcel
    }

    /// What became of the letters of an exchange.
    pub(super) fn answered(
        &mut self,
        name: &Arc<str>,
        fates: Option<&[Fate]>,
        now: Now,
        jobs: &mut Jobs,
        fx: &mut Effects,
    ) {
        let Some(recipient) = self.recipients.get_mut(name) else { return };
        let Some(Exchange { to, asked, fresh }) = recipient.exchange.take() else { return };
        let has_asked = !asked.is_empty();
        let numbers: Vec<u64> = asked.into_iter().chain(fresh).collect();
        let Some(fates) = fates.filter(|fates| fates.len() == numbers.len()) else {
            return recipient.back_off(now.mono, fx);
        };
        let (mut changed, mut refused, mut news) = (Vec::new(), Vec::new(), false);
        for (number, fate) in numbers.into_iter().zip(fates) {
            let Some(entry) = self.entries.get_mut(&number) else { continue };
            let Some(owed) = entry.owed_to(name) else { continue };
            match fate {
                Fate::Processed => {
                    entry.owed.retain(|owed| owed.to != *name);
                    recipient.forget(number);
                    news = true;
                }
                Fate::Stored if owed.by != Some(to) => {
                    (owed.by, owed.since) = (Some(to), now.wall);
                    recipient.keep(number);
                    news = true;
                }
                Fate::Missing | Fate::Nobody if owed.by.is_some() => {
                    owed.by = None;
                    recipient.owe(number);
                }
                Fate::Refused => {
                    refused.push((number, Arc::clone(name), Reason::Refused));
                    continue;
                }
                Fate::Stored | Fate::Missing | Fate::Nobody | Fate::Expired | Fate::NoRoom => continue,
            }
            changed.push(number);
        }
        recipient.went(has_asked, news, now.mono, fx);
        let mut changes = Vec::new();
        changed.into_iter().for_each(|number| self.write(number, &mut changes));
        if !changes.is_empty() {
            jobs.note(changes, fx);
        }
        self.conclude(refused, now, jobs, fx);
    }

    /// Gives up the messages whose time is over.
    pub(super) fn expire(&mut self, now: Now, jobs: &mut Jobs, fx: &mut Effects) {
        let mut over = Vec::new();
        while let Some((at, number)) = self.due.first().copied().filter(|(at, _)| *at <= now.wall) {
            self.due.remove(&(at, number));
            let Some(entry) = self.entries.get(&number) else { continue };
            if entry.expires + SKEW > now.wall {
                self.due.insert((entry.expires + SKEW, number));
                continue;
            }
            over.extend(entry.owed.iter().filter(|owed| owed.ending.is_none()).map(|owed| {
                let reason = if owed.by.is_some() { Reason::Stored } else { Reason::NeverReached };
                (number, Arc::clone(&owed.to), reason)
            }));
        }
        self.conclude(over, now, jobs, fx);
    }

    /// When the next message's time is over.
    pub(super) fn next_due(&self) -> Option<Wall> {
        self.due.first().map(|(at, _)| *at)
    }

    /// When the next exchange begins.
    pub(super) fn next_exchange(&self) -> Option<Mono> {
        self.recipients.values().filter_map(Recipient::next_at).min()
    }

    /// Who holds what may have changed: those are turned to at once for whom it has.
    pub(super) fn directory_changed(&mut self, directory: &impl Directory, now: Mono) {
        for (name, recipient) in &mut self.recipients {
            recipient.held_by(directory.holder(name).map(|peer| (peer, directory.is_linked(peer))), now);
        }
    }

    /// Writes down that messages are not delivered. Whoever is to know of it learns it when that is on disk.
    fn conclude(&mut self, list: Vec<(u64, Arc<str>, Reason)>, now: Now, jobs: &mut Jobs, fx: &mut Effects) {
        for list in list.chunks(NOTICES) {
            let (mut changes, mut ended) = (Vec::new(), Vec::new());
            for (number, name, reason) in list {
                let Some(owed) = self.entries.get_mut(number).and_then(|entry| entry.owed_to(name)) else { continue };
                owed.ending = Some((*reason, now.wall));
                if let Some(recipient) = self.recipients.get_mut(name) {
                    recipient.forget(*number);
                }
                self.write(*number, &mut changes);
                ended.push((*number, Arc::clone(name)));
            }
            if !ended.is_empty() {
                jobs.begin(Job { changes, reads: Vec::new() }, Purpose::Notices { ended }, fx);
            }
        }
    }

    /// Notices are on disk, or could not be written. Returns those that are.
    pub(super) fn concluded(&mut self, ended: Vec<(u64, Arc<str>)>, written: bool, now: Now) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (number, name) in ended {
            let Some(entry) = self.entries.get_mut(&number) else { continue };
            let Some(owed) = entry.owed.iter_mut().find(|owed| owed.to == name) else { continue };
            let Some((reason, at)) = owed.ending.take() else { continue };
            if written {
                notices.extend(entry.notice(number, &name, reason, at));
                entry.told += 1;
                entry.owed.retain(|owed| owed.to != name);
                self.remove_if_done(number);
                continue;
            }
            let kept = owed.by.is_some();
            let recipient = self.recipients.entry(name).or_default();
            if kept {
                recipient.keep(number);
            } else {
                recipient.owe(number);
            }
            self.due.insert((now.wall + WRITE_AGAIN, number));
        }
        notices
    }

    /// How a message stands goes to disk. With each recipient that is left out goes the notice for it, if it gets one.
    fn write(&mut self, number: u64, changes: &mut Vec<Change>) {
        let Some(entry) = self.entries.get(&number) else { return };
        for owed in &entry.owed {
            let Some((reason, at)) = owed.ending else { continue };
            changes.extend(entry.notice(number, &owed.to, reason, at).and_then(|notice| notice.put()));
        }
        let key = Key::number(Table::Accepted, number);
        if entry.owed.is_empty() && entry.told == 0 {
            changes.extend([Change::Delete(key), Change::Delete(Key::number(Table::Letters, number))]);
        } else {
            changes.extend(letter::write(&entry.row()).ok().map(|row| Change::Put(key, row)));
        }
        self.remove_if_done(number);
    }

    fn remove_if_done(&mut self, number: u64) {
        if self.entries.get(&number).is_some_and(|entry| entry.owed.is_empty())
            && let Some(entry) = self.entries.remove(&number)
        {
            if entry.told == 0 {
                self.bytes -= entry.bytes;
            }
            self.due.remove(&(entry.expires + SKEW, number));
        }
    }
}

impl Entry {
    fn owed_to(&mut self, name: &str) -> Option<&mut Owed> {
        self.owed.iter_mut().find(|owed| &*owed.to == name && owed.ending.is_none())
    }

    /// Who has it on disk for that recipient.
    fn keeper(&self, name: &str) -> Option<PeerId> {
        self.owed.iter().find(|owed| &*owed.to == name).and_then(|owed| owed.by)
    }

    fn row(&self) -> AcceptedRow {
        let owed = self.owed.iter().filter(|owed| owed.ending.is_none());
        let owed = owed.map(|owed| OwedRow { name: owed.to.to_string(), stored: owed.stored() });
        AcceptedRow {
            id: self.id,
            topic: self.topic.to_string(),
            expires: self.expires.0,
            bytes: self.bytes,
            owed: owed.collect(),
        }
    }

    fn notice(&self, number: u64, name: &Arc<str>, reason: Reason, at: Wall) -> Option<Notice> {
        let owed = self.owed.iter().find(|owed| owed.to == *name)?;
        Some(Notice {
            number,
            id: self.id,
            topic: Arc::clone(&self.topic),
            recipient: Arc::clone(name),
            reason,
            at,
            expires: self.expires,
            bytes: self.bytes,
            offers: owed.offers,
            stored: owed.stored(),
        })
    }
}
