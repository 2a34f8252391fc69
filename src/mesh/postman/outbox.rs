//! The sender's half: what was accepted and is owed, to whom, and how it ends. What this node keeps for others stands with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::custodians::Custodians;
use super::custody::{Awaited, Custody, Given};
use super::entry::{Address, Entry, Owed};
use super::notices::{Notice, Reason};
use super::numbers::Due;
use super::recipient::Recipient;
use super::settled::{Floor, Settled};
use super::shared::Shared;
use super::store::{Change, Done, Job, Key, StoreError, Table};
use super::{Jobs, PostAnswer, Posting, Purpose, answer};
use crate::MessageId;
use crate::mesh::effects::Effects;
use crate::mesh::event::Ticket;
use crate::mesh::time::{Mono, Now, Span, Wall};
use crate::wire::letter::{self, AcceptedRow, GivenRow, LetterRow};
use crate::wire::rpc::Turn;

/// What there may be too much of.
pub(crate) const MESSAGES: &str = "messages";
pub(crate) const BYTES: &str = "bytes";
/// How far apart the clocks of two nodes may be. After a message's time a notice waits for so long: by then nobody starts
/// work on it any more.
pub(crate) const SKEW: Span = Span::secs(5);
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
    pub(super) next: u64,
    /// When each is given up.
    pub(super) due: Due,
    pub(super) recipients: BTreeMap<Address, Recipient>,
    /// The exchange that is begun next.
    pub(super) turn: Turn,
    pub(super) settled: Settled,
    names: Shared<str>,
    pub(super) nodes: Shared<PeerId>,
    /// What is not offered before others were asked about it, or about what stands before it.
    pub(super) unentered: BTreeSet<u64>,
    pub(super) custodians: Custodians,
    /// When who waits for copies, or for word of them, waits no longer.
    pub(super) timers: BTreeSet<(Mono, u64)>,
    /// Who waited for copies of what is delivered already.
    pub(super) delivered: Vec<Awaited>,
    /// What is kept for others, by id, and its bytes.
    pub(super) kept: BTreeSet<(MessageId, u64)>,
    pub(super) kept_bytes: u64,
    /// The last exchange with each of those others in which something was let go of.
    pub(super) kept_floors: BTreeMap<PeerId, Floor>,
    /// Since when those of them are not seen that are not.
    pub(super) gone: BTreeMap<PeerId, Mono>,
}

impl Outbox {
    pub(super) fn new(run: u64) -> Self {
        Self { turn: Turn { run, count: 0 }, ..Self::default() }
    }

    /// Takes up what an earlier run accepted. Where others may have copies they are asked first, since they may have delivered it.
    pub(super) fn restore(&mut self, number: u64, row: AcceptedRow, given: Option<GivenRow>, now: Mono) {
        self.next = self.next.max(number + 1);
        self.bytes += row.bytes;
        let given = given.map(Given::restored);
        let closing = given.iter().flat_map(|given| &given.closing);
        let closing: Vec<_> = closing.map(|one| (Arc::clone(&one.to), one.left.clone())).collect();
        if row.owed.is_empty() && closing.is_empty() {
            // It is kept for its notices.
            return;
        }
        self.insert(number, Box::new(Entry::restored(row, given.map(Custody::Given))));
        closing.iter().for_each(|(to, left)| self.custodians.release(number, left, to));
        self.inquire(number, false, now);
        self.unentered.insert(number);
        self.enter_next();
    }

    /// Enters what need not wait, in its order: what is behind something that others are asked about waits for that.
    pub(super) fn enter_next(&mut self) {
        let is_asked_about = |outbox: &mut Self, number: u64| {
            let given = outbox.entries.get_mut(&number).and_then(|entry| entry.given());
            given.and_then(|given| given.inquiry.as_ref()).is_some_and(|inquiry| !inquiry.at_end)
        };
        while let Some(number) = self.unentered.first().copied()
            && !is_asked_about(self, number)
        {
            self.unentered.pop_first();
            self.enter(number);
        }
    }

    /// Numbers of earlier runs are not used again: recipients go by their order.
    pub(super) fn begin_at(&mut self, number: u64) {
        self.next = self.next.max(number);
    }

    pub(super) fn insert(&mut self, number: u64, mut entry: Box<Entry>) {
        self.due.insert(entry.expires + SKEW, number);
        entry.topic = self.names.of(Arc::clone(&entry.topic));
        for owed in &mut entry.owed {
            owed.to = self.names.of(Arc::clone(&owed.to));
            owed.by = owed.by.take().map(|by| self.nodes.of(by));
        }
        self.entries.insert(number, entry);
    }

    /// From now on it is offered.
    pub(super) fn enter(&mut self, number: u64) {
        let Some(entry) = self.entries.get(&number) else { return };
        let new = || if entry.kept().is_some() { Recipient::held() } else { Recipient::default() };
        for owed in entry.owed.iter().filter(|owed| owed.ending.is_none()) {
            let recipient = self.recipients.entry(entry.address(&owed.to)).or_insert_with(new);
            match owed.by.as_deref() {
                Some(by) => recipient.keep(*by, number),
                None => recipient.owe(number),
            }
        }
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
        // No letter is that long. Where it is given to others its recipients go with it.
        let names = posting.to.iter().filter(|_| posting.copies > 0).map(|to| to.len());
        let bytes = u32::try_from(posting.sealed.len() + names.sum::<usize>()).unwrap_or(u32::MAX);
        if self.entries.len() + self.arriving >= most {
            return answer(fx, ticket, PostAnswer::Full { what: MESSAGES, limit: most });
        }
        if self.bytes.saturating_add(bytes.into()) > u64::try_from(most_bytes).unwrap_or(u64::MAX) {
            return answer(fx, ticket, PostAnswer::Full { what: BYTES, limit: most_bytes });
        }
        let number = self.next;
        let (given, copies) = Given::begin(&posting).unzip();
        let Posting { id, topic, time, expires, sealed, to, .. } = posting;
        let owed = to.iter().map(|to| Owed::new(Arc::clone(to))).collect();
        let custody = given.map(|given| Box::new(Custody::Given(given)));
        let entry = Entry { id, topic, time, expires, bytes, owed, told: 0, custody };
        let row = LetterRow { sealed, to: to.iter().map(|to| to.to_string()).collect() };
        let Ok(row) = letter::write(&row) else {
            return answer(fx, ticket, PostAnswer::Failed("it cannot be encoded".to_owned()));
        };
        self.next += 1;
        self.bytes += u64::from(bytes);
        self.arriving += 1;
        let letter = Change::Put(Key::number(Table::Letters, number), row);
        let (serial, notice) = instead.unzip();
        let deletion = notice.map(|notice| Change::Delete(notice.key()));
        let changes = [letter].into_iter().chain(entry.changes(number)).chain(deletion).collect();
        let purpose = Purpose::Accept { ticket, number, entry: Box::new(entry), copies, instead: serial };
        jobs.begin(Job { changes, reads: Vec::new() }, purpose, fx);
    }

    /// A message is on disk, or could not be written.
    pub(super) fn accepted(
        &mut self,
        (ticket, number, entry): (Ticket, u64, Box<Entry>),
        copies: Option<(usize, Vec<PeerId>)>,
        result: Result<Done, StoreError>,
        now: Mono,
        fx: &mut Effects,
    ) {
        self.arriving -= 1;
        match result {
            Ok(_) => {
                let recipients = entry.owed.iter().map(|owed| Arc::clone(&owed.to)).collect();
                self.insert(number, entry);
                self.unentered.insert(number);
                self.enter_next();
                match copies {
                    Some((wanted, others)) => self.entrust(number, (ticket, wanted), others, now, fx),
                    None => answer(fx, ticket, PostAnswer::Accepted { recipients, copies: 0, wanted: 0 }),
                }
            }
            Err(error) => {
                self.bytes -= u64::from(entry.bytes);
                answer(fx, ticket, PostAnswer::Failed(error.to_string()));
            }
        }
    }

    /// Gives up the messages whose time is over. Where others may have copies they are asked first what became of it.
    pub(super) fn expire(&mut self, now: Now, jobs: &mut Jobs, fx: &mut Effects) {
        let mut changes = Vec::new();
        for number in self.due.take(now.wall) {
            let Some(entry) = self.entries.get_mut(&number) else { continue };
            if entry.expires + SKEW > now.wall {
                self.due.insert(entry.expires + SKEW, number);
                continue;
            }
            if entry.kept().is_some() {
                self.expire_kept(number, now.wall, &mut changes);
                continue;
            }
            if let Some(given) = entry.given() {
                // Nobody delivers it any more.
                given.closing.clear();
                self.write(number, &mut changes);
                // Before what follows from it.
                jobs.note(std::mem::take(&mut changes), fx);
            }
            if !self.inquire(number, true, now.mono) {
                self.give_up(number, now, jobs, fx);
            }
        }
        jobs.note(changes, fx);
    }

    /// Gives up a message.
    pub(super) fn give_up(&mut self, number: u64, now: Now, jobs: &mut Jobs, fx: &mut Effects) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        // Somebody may have delivered it, and could not be asked.
        let in_custody = entry.given().is_some_and(|given| given.heard_out == Some(false));
        let open = entry.owed.iter().filter(|owed| owed.ending.is_none());
        let over = open.map(|owed| {
            let reason = match (&owed.by, in_custody) {
                (Some(_), _) => Reason::Stored,
                (None, true) => Reason::InCustody,
                (None, false) => Reason::NeverReached,
            };
            (number, Arc::clone(&owed.to), reason)
        });
        let over = over.collect();
        self.conclude(over, now, jobs, fx);
    }

    /// When the next message's time is over.
    pub(super) fn next_due(&self) -> Option<Wall> {
        self.due.next()
    }

    /// Writes down that messages are not delivered. Whoever is to know of it learns it when that is on disk. What is kept for another is
    /// that one's to tell of.
    pub(super) fn conclude(&mut self, list: Vec<(u64, Arc<str>, Reason)>, now: Now, jobs: &mut Jobs, fx: &mut Effects) {
        for list in list.chunks(NOTICES) {
            let (mut changes, mut ended) = (Vec::new(), Vec::new());
            for (number, name, reason) in list {
                let Self { entries, recipients, .. } = self;
                let Some(entry) = entries.get_mut(number) else { continue };
                if let Some(recipient) = recipients.get_mut(&entry.address(name)) {
                    recipient.forget(*number);
                }
                let is_kept = entry.kept().is_some();
                let Some(owed) = entry.owed_to(name) else { continue };
                if is_kept {
                    entry.release(name);
                } else {
                    owed.ending = Some(Box::new((*reason, now.wall)));
                    ended.push((*number, Arc::clone(name)));
                }
                self.write(*number, &mut changes);
            }
            if ended.is_empty() {
                jobs.note(changes, fx);
            } else {
                jobs.begin(Job { changes, reads: Vec::new() }, Purpose::Notices { ended }, fx);
            }
        }
    }

    /// Notices are on disk, or could not be written. Returns those that are.
    pub(super) fn concluded(
        &mut self,
        ended: Vec<(u64, Arc<str>)>,
        written: bool,
        now: Now,
        jobs: &mut Jobs,
        fx: &mut Effects,
    ) -> Vec<Notice> {
        let (mut notices, mut changes) = (Vec::new(), Vec::new());
        for (number, name) in ended {
            let Self { entries, recipients, custodians, settled, .. } = self;
            let Some(entry) = entries.get_mut(&number) else { continue };
            let address = entry.address(&name);
            let Some(owed) = entry.owed.iter_mut().find(|owed| owed.to == name) else { continue };
            let Some((reason, at)) = owed.ending.take().map(|ending| *ending) else { continue };
            if written {
                notices.extend(entry.notice(number, &name, reason, at));
                entry.told += 1;
                entry.release(&name);
                let is_in_time = entry.expires + SKEW > now.wall;
                if entry.given().is_some() {
                    // After its time nobody delivers it any more.
                    if is_in_time {
                        custodians.close(number, entry, &name, None);
                        settled.take_over(entry, now.mono);
                    }
                    self.write(number, &mut changes);
                }
                self.remove_if_done(number);
                continue;
            }
            let recipient = recipients.entry(address).or_default();
            match owed.by.as_deref() {
                Some(by) => recipient.keep(*by, number),
                None => recipient.owe(number),
            }
            self.due.insert(now.wall + WRITE_AGAIN, number);
        }
        jobs.note(changes, fx);
        notices
    }

    /// How a message stands goes to disk. With each recipient that is left out goes the notice for it, if it gets one.
    pub(super) fn write(&mut self, number: u64, changes: &mut Vec<Change>) {
        self.drop_letter(number);
        let Some(entry) = self.entries.get(&number) else { return };
        for owed in &entry.owed {
            let Some((reason, at)) = owed.ending.as_deref().copied() else { continue };
            changes.extend(entry.notice(number, &owed.to, reason, at).and_then(|notice| notice.put()));
        }
        changes.extend(entry.changes(number));
        self.remove_if_done(number);
    }

    fn remove_if_done(&mut self, number: u64) {
        let Some(entry) = self.entries.get(&number).filter(|entry| entry.is_done()) else { return };
        if entry.kept().is_some() {
            return self.drop_kept(number);
        }
        let Some(entry) = self.entries.remove(&number) else { return };
        if entry.told == 0 {
            self.bytes -= u64::from(entry.bytes);
        }
        self.due.remove(entry.expires + SKEW, number);
        if let Some(Custody::Given(given)) = entry.custody.map(|custody| *custody) {
            self.forget_copies(number, given);
        }
    }
}
