//! The sender's half: what was accepted and is owed, to whom, and which of it is offered next.
//!
//! With each node that holds a recipient one exchange is under way at a time. It carries the oldest letters that are owed, in their order, so that
//! this order holds whatever is lost and repeated, and asks what became of those that were stored there before.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::PeerId;

use super::entry::{Entry, Owed};
use super::node::Exchange;
use super::notices::{Notice, Reason};
use super::numbers::Due;
use super::recipient::{Ending, Recipient};
use super::settled::Settled;
use super::shared::Shared;
use super::store::{Change, Done, Job, Key, StoreError, Table};
use super::{Answered, Directory, Jobs, Offers, Parcel, PostAnswer, Posting, Processed, Purpose, answer};
use crate::mesh::effects::Effects;
use crate::mesh::event::Ticket;
use crate::mesh::time::{Mono, Now, Span, Wall};
use crate::wire::letter::{self, AcceptedRow, LetterRow};
use crate::wire::rpc::{Fate, Offered, Turn};

/// What there may be too much of.
pub(crate) const MESSAGES: &str = "messages";
pub(crate) const BYTES: &str = "bytes";
/// How far apart the clocks of two nodes may be. After a message's time a notice waits for so long: by then nobody starts
/// work on it any more.
pub(crate) const SKEW: Span = Span::secs(5);
/// The bytes of the letters of one exchange, unless there is one only.
const BATCH_BYTES: u64 = 256 * 1024;
/// So many notices are written at a time.
const NOTICES: usize = 256;
/// When a notice is tried again that could not be written.
const WRITE_AGAIN: Span = Span::secs(1);

/// Of messages that wait there may be millions: each takes some 220 bytes.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) entries: BTreeMap<u64, Box<Entry>>,
    pub(super) bytes: u64,
    /// Messages that are being written down.
    arriving: usize,
    next: u64,
    /// When each is given up.
    due: Due,
    recipients: BTreeMap<Arc<str>, Recipient>,
    /// The exchange that is begun next.
    turn: Turn,
    pub(super) settled: Settled,
    names: Shared<str>,
    nodes: Shared<PeerId>,
}

impl Outbox {
    pub(super) fn new(run: u64) -> Self {
        Self { turn: Turn { run, count: 0 }, ..Self::default() }
    }

    /// Takes up what an earlier run accepted.
    pub(super) fn restore(&mut self, number: u64, row: AcceptedRow) {
        self.next = self.next.max(number + 1);
        self.bytes += row.bytes;
        if row.owed.is_empty() {
            // It is kept for its notices.
            return;
        }
        let owed = row.owed.into_iter().map(Owed::restored);
        let (time, expires, topic) = (Wall(row.time), Wall(row.expires), row.topic.into());
        let (id, bytes, owed) = (row.id, u32::try_from(row.bytes).unwrap_or(u32::MAX), owed.collect());
        self.insert(number, Box::new(Entry { id, topic, time, expires, bytes, owed, told: 0 }));
    }

    /// Numbers of earlier runs are not used again: recipients go by their order.
    pub(super) fn begin_at(&mut self, number: u64) {
        self.next = self.next.max(number);
    }

    fn insert(&mut self, number: u64, mut entry: Box<Entry>) {
        self.due.insert(entry.expires + SKEW, number);
        entry.topic = self.names.of(Arc::clone(&entry.topic));
        for owed in &mut entry.owed {
            owed.to = self.names.of(Arc::clone(&owed.to));
            owed.by = owed.by.take().map(|by| self.nodes.of(by));
            let recipient = self.recipients.entry(Arc::clone(&owed.to)).or_default();
            match owed.by.as_deref() {
                Some(by) => recipient.keep(*by, number),
                None => recipient.owe(number),
            }
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
        // No letter is that long.
        let bytes = u32::try_from(posting.sealed.len()).unwrap_or(u32::MAX);
        if self.entries.len() + self.arriving >= most {
            return answer(fx, ticket, PostAnswer::Full { what: MESSAGES, limit: most });
        }
        if self.bytes.saturating_add(bytes.into()) > u64::try_from(most_bytes).unwrap_or(u64::MAX) {
            return answer(fx, ticket, PostAnswer::Full { what: BYTES, limit: most_bytes });
        }
        let number = self.next;
        let Posting { id, topic, time, expires, sealed, to } = posting;
        let owed = to.iter().map(|to| Owed::new(Arc::clone(to))).collect();
        let entry = Entry { id, topic, time, expires, bytes, owed, told: 0 };
        let row = LetterRow { sealed, to: to.iter().map(|to| to.to_string()).collect() };
        let (Ok(accepted), Ok(row)) = (letter::write(&entry.row()), letter::write(&row)) else {
            return answer(fx, ticket, PostAnswer::Failed("it cannot be encoded".to_owned()));
        };
        self.next += 1;
        self.bytes += u64::from(bytes);
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
        (ticket, number, entry): (Ticket, u64, Box<Entry>),
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
                self.bytes -= u64::from(entry.bytes);
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
        let mut lapsed = Vec::new();
        for (name, recipient) in &mut self.recipients {
            if recipient.is_new() {
                recipient.look(name, directory, now);
            }
            if !recipient.is_due(now) {
                continue;
            }
            let entries = &self.entries;
            let fits = |number: u64, used: &mut u64| {
                let first = *used == 0;
                *used += entries.get(&number).map_or(0, |entry| u64::from(entry.bytes));
                first || *used <= BATCH_BYTES
            };
            let plan = recipient.plan(now, fits, fx);
            offers.dials.extend(plan.dials);
            lapsed.extend(plan.lapsed.into_iter().map(|number| (number, Arc::clone(name))));
            for to in plan.exchanges {
                let fresh = recipient.nodes.get(&to).and_then(|node| node.exchange.as_ref()).map(|one| &one.fresh);
                let reads = fresh.into_iter().flatten().map(|number| Key::number(Table::Letters, *number)).collect();
                let purpose = Purpose::Load { name: Arc::clone(name), to };
                jobs.begin(Job { changes: Vec::new(), reads }, purpose, fx);
            }
        }
        self.lapse(lapsed, jobs, fx);
    }

    /// Nodes that had these are not waited for any longer. They may have been handed out there.
    fn lapse(&mut self, lapsed: Vec<(u64, Arc<str>)>, jobs: &mut Jobs, fx: &mut Effects) {
        let mut changes = Vec::new();
        for (number, name) in lapsed {
            if let Some(owed) = self.entries.get_mut(&number).and_then(|entry| entry.owed_to(&name)) {
                owed.by = None;
                (owed.attempts, owed.lease) = (owed.attempts.saturating_add(1), owed.lease.saturating_add(1));
                self.write(number, &mut changes);
            }
        }
        jobs.note(changes, fx);
    }

    /// The letters of an exchange were read. Those that are lost are told of.
    pub(super) fn loaded(
        &mut self,
        (name, to): (&Arc<str>, PeerId),
        result: Result<Done, StoreError>,
        now: Now,
        jobs: &mut Jobs,
        fx: &mut Effects,
    ) -> Option<Parcel> {
        let recipient = self.recipients.get_mut(name)?;
        let Ok(done) = result else {
            recipient.ended(to, Ending::NotSent, now.mono, fx);
            return None;
        };
        let node = recipient.nodes.get_mut(&to)?;
        let tell = node.tells;
        let exchange = node.exchange.as_mut()?;
        let turn = self.turn;
        self.turn.count += 1;
        let sealed = |row: Option<Bytes>| letter::read::<LetterRow>(&row?).ok().map(|row| row.sealed);
        let read: Vec<_> = exchange.fresh.iter().copied().zip(done.rows.into_iter().map(sealed)).collect();
        let lost: Vec<u64> = read.iter().filter(|(_, sealed)| sealed.is_none()).map(|(number, _)| *number).collect();
        let Self { entries, .. } = self;
        // Those whose time ran out meanwhile are asked about and offered to the end of this exchange, which changes nothing.
        exchange.asked.retain(|number| entries.contains_key(number));
        exchange.wanted.retain(|number| entries.contains_key(number));
        exchange.fresh.retain(|number| entries.contains_key(number) && !lost.contains(number));
        let mut letters = Vec::new();
        for (numbers, take_back) in [(&exchange.asked, false), (&exchange.wanted, true)] {
            let ids = numbers.iter().filter_map(|number| Some(entries.get(number)?.id));
            letters.extend(ids.map(|id| Offered { id, attempts: 0, lease: 0, take_back, sealed: Bytes::new() }));
        }
        for (number, sealed) in read {
            let (Some(entry), Some(sealed)) = (entries.get_mut(&number), sealed) else { continue };
            let id = entry.id;
            let Some(owed) = entry.owed_to(name) else { continue };
            owed.offers = owed.offers.saturating_add(1);
            let (attempts, lease) = (owed.attempts, owed.lease);
            letters.push(Offered { id, attempts, lease, take_back: false, sealed });
        }
        // One that was given up meanwhile is not sent, nor answered.
        exchange.fresh.retain(|number| entries.get_mut(number).is_some_and(|entry| entry.owed_to(name).is_some()));
        let parcel = (!letters.is_empty()).then(|| {
            let settled = self.settled.take(name, to);
            exchange.settled.clone_from(&settled);
            Parcel { to, name: Arc::clone(name), turn, tell, settled, letters }
        });
        if parcel.is_none() {
            recipient.ended(to, Ending::NotSent, now.mono, fx);
        }
        let lost = lost.into_iter().map(|number| (number, Arc::clone(name), Reason::Damaged)).collect();
        self.conclude(lost, now, jobs, fx);
        parcel
    }

    /// What became of the letters of an exchange.
    pub(super) fn answered(
        &mut self,
        (name, to): (&Arc<str>, PeerId),
        answer: Answered<'_>,
        now: Now,
        jobs: &mut Jobs,
        fx: &mut Effects,
    ) {
        let Some(recipient) = self.recipients.get_mut(name) else { return };
        let Some(exchange) = recipient.nodes.get_mut(&to).map(|node| &mut node.exchange) else { return };
        let settled = exchange.as_mut().map(|exchange| std::mem::take(&mut exchange.settled)).unwrap_or_default();
        let answered = match answer {
            Answered::Fates(fates) => {
                let answered = exchange.take_if(|one| one.len() == fates.len());
                answered.map(|exchange| (exchange, fates)).ok_or(Ending::Unknown)
            }
            Answered::NotSent => Err(Ending::NotSent),
            Answered::Unknown => Err(Ending::Unknown),
        };
        let (Exchange { asked, wanted, fresh, .. }, fates) = match answered {
            Ok(answered) => answered,
            Err(ending) => {
                self.settled.give_back(name, to, settled);
                return recipient.ended(to, ending, now.mono, fx);
            }
        };
        let (has_asked, has_offered) = (!(asked.is_empty() && wanted.is_empty()), !fresh.is_empty());
        let (mut changed, mut over, mut processed, mut news) = (Vec::new(), Vec::new(), Vec::new(), false);
        for (number, fate) in asked.into_iter().chain(wanted).chain(fresh).zip(fates) {
            let Some(entry) = self.entries.get_mut(&number) else { continue };
            let Some(owed) = entry.owed_to(name) else { continue };
            match fate {
                Fate::Processed => {
                    processed.push(entry.id);
                    entry.release(name);
                    recipient.forget(number);
                    news = true;
                }
                Fate::Stored if owed.by.as_deref() == Some(&to) => continue,
                Fate::Stored => {
                    (owed.by, owed.since) = (Some(self.nodes.of(Arc::new(to))), now.wall);
                    recipient.keep(to, number);
                    news = true;
                }
                Fate::Withdrawn { attempts } => {
                    (owed.by, owed.attempts) = (None, owed.attempts.max(*attempts));
                    owed.lease = owed.lease.saturating_add(1);
                    recipient.forget(number);
                    recipient.owe(number);
                }
                Fate::Refused | Fate::Poison => {
                    let reason = if *fate == Fate::Poison { Reason::Poison } else { Reason::Refused };
                    recipient.forget(number);
                    over.push((number, Arc::clone(name), reason));
                    continue;
                }
                Fate::Expired => {
                    if owed.by.is_none() {
                        recipient.put_off(number, now.mono);
                        // The others need not wait for it.
                        news = true;
                    }
                    continue;
                }
                Fate::Missing | Fate::Nobody | Fate::NoRoom => {
                    let was_there = owed.by.take_if(|by| **by == to).is_some();
                    if owed.by.is_none() {
                        recipient.forget(number);
                        recipient.owe(number);
                    }
                    if !was_there {
                        continue;
                    }
                }
            }
            changed.push(number);
        }
        recipient.went(to, (has_asked, has_offered, news), now.mono, fx);
        let mut changes = Vec::new();
        changed.into_iter().for_each(|number| self.write(number, &mut changes));
        let processed = (!processed.is_empty()).then(|| Processed { name: Arc::clone(name), at: to, ids: processed });
        jobs.note_processed(changes, processed, fx);
        self.conclude(over, now, jobs, fx);
    }

    /// A node has processed something for that recipient.
    pub(super) fn progress(&mut self, name: &str, at: PeerId, now: Mono) {
        if let Some(recipient) = self.recipients.get_mut(name) {
            recipient.progress(at, now);
        }
    }

    /// Gives up the messages whose time is over.
    pub(super) fn expire(&mut self, now: Now, jobs: &mut Jobs, fx: &mut Effects) {
        let mut over = Vec::new();
        for number in self.due.take(now.wall) {
            let Some(entry) = self.entries.get(&number) else { continue };
            if entry.expires + SKEW > now.wall {
                self.due.insert(entry.expires + SKEW, number);
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
        self.due.next()
    }

    /// When the next exchange begins.
    pub(super) fn next_exchange(&self) -> Option<Mono> {
        self.recipients.values().filter_map(Recipient::wake).min()
    }

    /// Who holds what may have changed: those are turned to at once for whom it has.
    pub(super) fn directory_changed(&mut self, directory: &impl Directory, now: Mono) {
        self.recipients.iter_mut().for_each(|(name, recipient)| recipient.look(name, directory, now));
        self.settled.directory_changed(directory);
    }

    /// Writes down that messages are not delivered. Whoever is to know of it learns it when that is on disk.
    fn conclude(&mut self, list: Vec<(u64, Arc<str>, Reason)>, now: Now, jobs: &mut Jobs, fx: &mut Effects) {
        for list in list.chunks(NOTICES) {
            let (mut changes, mut ended) = (Vec::new(), Vec::new());
            for (number, name, reason) in list {
                let Some(owed) = self.entries.get_mut(number).and_then(|entry| entry.owed_to(name)) else { continue };
                owed.ending = Some(Box::new((*reason, now.wall)));
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
            let Some((reason, at)) = owed.ending.take().map(|ending| *ending) else { continue };
            if written {
                notices.extend(entry.notice(number, &name, reason, at));
                entry.told += 1;
                entry.release(&name);
                self.remove_if_done(number);
                continue;
            }
            let recipient = self.recipients.entry(name).or_default();
            match owed.by.as_deref() {
                Some(by) => recipient.keep(*by, number),
                None => recipient.owe(number),
            }
            self.due.insert(now.wall + WRITE_AGAIN, number);
        }
        notices
    }

    /// How a message stands goes to disk. With each recipient that is left out goes the notice for it, if it gets one.
    fn write(&mut self, number: u64, changes: &mut Vec<Change>) {
        let Some(entry) = self.entries.get(&number) else { return };
        for owed in &entry.owed {
            let Some((reason, at)) = owed.ending.as_deref().copied() else { continue };
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
                self.bytes -= u64::from(entry.bytes);
            }
            self.due.remove(entry.expires + SKEW, number);
        }
    }
}
