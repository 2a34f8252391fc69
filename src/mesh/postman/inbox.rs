//! The recipient's half: durable subscriptions of this node, and what came for them.
//!
//! A letter is on disk before its sender is told so, and is handed to whoever holds the subscription until that one
//! acknowledges it. What is left of it then, that it was processed, stays until nobody offers it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::PeerId;

use super::numbers::Due;
use super::outbox::SKEW;
use super::received::{Received, Standing};
use super::settled::Floor;
use super::shared::Shared;
use super::store::{Change, Done, Job, Key, StoreError, Table};
use super::subscription::Subscription;
use super::{Brought, Delivered, Jobs, PostAnswer, Purpose, ReplyTo, answer};
use crate::MessageId;
use crate::mesh::effects::Effects;
use crate::mesh::event::{HolderId, Output, Ticket};
use crate::mesh::time::{Mono, Now, Span, Wall};
use crate::wire::letter::{self, ReceivedRow, StandingRow};
use crate::wire::node_key::NodeKey;
use crate::wire::rpc::{Fate, Offered};

/// After a message's time it is remembered for so long that it came: whoever offers it again by then has a clock that is
/// further off than clocks may be.
const REMEMBERED: Span = Span(3 * SKEW.0);

/// A letter on its way to whoever holds the subscription.
#[derive(Clone, Debug)]
pub(crate) struct Handed {
    /// Its number, by which it is acknowledged.
    pub(crate) number: u64,
    pub(crate) from: PeerId,
    pub(crate) sealed: Bytes,
    /// How often it was handed out, this time included.
    pub(crate) attempt: u32,
}

/// What is said of a letter, or where to look when it is on disk.
#[derive(Debug)]
pub(super) enum Verdict {
    Said(Fate),
    OnDisk(u64),
    /// It goes back to its sender, handed out so often.
    Leaving(u64, u32),
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) subscriptions: BTreeMap<Arc<str>, Subscription>,
    pub(super) received: BTreeMap<u64, Box<Received>>,
    known: BTreeSet<(MessageId, u64)>,
    senders: Shared<PeerId>,
    pub(super) floors: BTreeMap<(Arc<str>, PeerId), Floor>,
    /// Senders who are to be told when the next letter of theirs is processed.
    awaiting: BTreeSet<(Arc<str>, PeerId)>,
    /// When each is forgotten.
    due: Due,
    pub(super) bytes: u64,
    next: u64,
    /// How many there may be, and how many bytes of those that are not processed.
    limits: (usize, usize),
}

impl Inbox {
    pub(super) fn new(limits: (usize, usize)) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes up a letter that an earlier run received.
    pub(super) fn restore(&mut self, number: u64, row: ReceivedRow) {
        let Some(from) = row.sender.peer() else { return };
        let standing = match row.standing {
            StandingRow::Stored => Standing::Stored,
            StandingRow::Processed => Standing::Processed,
            StandingRow::Poison => Standing::Poison,
            StandingRow::Withdrawn => Standing::Withdrawn(row.attempts),
        };
        let (name, expires): (Arc<str>, _) = (row.name.into(), Wall(row.expires));
        if let Some(subscription) = self.subscriptions.get_mut(&name).filter(|_| standing.is_open()) {
            // The first time is not written down: it may have been handed out.
            subscription.put(number, row.attempts.max(1));
        }
        let (bytes, before, lease) = (row.bytes, row.attempts, row.lease);
        self.insert(
            number,
            Received {
                name,
                from: Arc::new(from),
                id: row.id,
                mark: row.mark,
                expires,
                bytes,
                before,
                lease,
                standing,
                since: Wall(row.since),
            },
        );
    }

    fn insert(&mut self, number: u64, received: Received) {
        let mut received = Box::new(received);
        received.from = self.senders.of(received.from);
        self.known.insert((received.id, number));
        self.due.insert(received.expires + REMEMBERED, number);
        if received.standing.is_open() {
            self.bytes += received.bytes;
        }
        self.received.insert(number, received);
        self.next = self.next.max(number + 1);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Box<Received>> {
        let received = self.received.remove(&number)?;
        self.known.remove(&(received.id, number));
        self.due.remove(received.expires + REMEMBERED, number);
        if received.standing.is_open() {
            self.bytes -= received.bytes;
        }
        if let Some(subscription) = self.subscriptions.get_mut(&received.name) {
            subscription.forget(number);
        }
        Some(received)
    }

    /// What is known here of the letters of that id.
    pub(super) fn of(&self, id: MessageId) -> impl Iterator<Item = (u64, &Received)> {
        let of_it = self.known.range((id, 0)..=(id, u64::MAX));
        of_it.filter_map(|(_, number)| Some((*number, &**self.received.get(number)?)))
    }

    /// The number of a letter that came for that subscription from that node.
    pub(super) fn known(&self, id: MessageId, name: &str, from: &PeerId) -> Option<u64> {
        let is_it = |(_, one): &(u64, &Received)| &*one.name == name && *one.from == *from;
        self.of(id).find(is_it).map(|(number, _)| number)
    }

    pub(super) fn len(&self) -> usize {
        self.received.len()
    }

    /// Somebody offers letters. The answer goes out when those that are taken are on disk.
    pub(super) fn offered(
        &mut self,
        reply: ReplyTo,
        Delivered { from, is_brought, name: said, turn, tell, settled, letters }: Delivered<'_>,
        now: Now,
        jobs: &mut Jobs,
        fx: &mut Effects,
    ) {
        let (most, most_bytes) = self.limits;
        let most_bytes = u64::try_from(most_bytes).unwrap_or(u64::MAX);
        let name = self.subscriptions.get_key_value(said).map(|(name, _)| Arc::clone(name));
        let (mut changes, mut verdicts) = (Vec::new(), Vec::new());
        // What one who keeps it offers is not settled before nothing of that can be under way.
        let is_late = !is_brought && name.as_ref().is_some_and(|name| self.is_late(name, from, turn));
        if let Some(name) = name.as_ref().filter(|_| !is_late && !is_brought) {
            self.settle((name, from), turn, &settled, now.wall, &mut changes);
        }
        let ids = letters.iter().filter(|_| is_brought).map(|(offered, _)| offered.id).collect();
        for (offered, expires) in letters {
            let verdict = match &name {
                None => Verdict::Said(Fate::Nobody),
                Some(name) => match self.known(offered.id, name, &from) {
                    // Who keeps a copy cannot show that by asking.
                    Some(number) if offered.take_back && !is_brought => self.give_up(number, now.wall, &mut changes),
                    Some(number) if self.is_given_again(number, &offered) => {
                        changes.extend(deletion(number));
                        self.remove(number);
                        match expires.filter(|expires| *expires > now.wall) {
                            Some(expires) => self.take(from, name, &offered, (expires, now.wall), &mut changes),
                            None => Verdict::Said(Fate::Missing),
                        }
                    }
                    Some(number) => self.look(number, &offered.sealed),
                    None if is_late => Verdict::Said(Fate::Missing),
                    None if self.received.len() >= most || self.bytes >= most_bytes => Verdict::Said(Fate::NoRoom),
                    None => match expires {
                        Some(expires) if expires > now.wall => {
                            self.take(from, name, &offered, (expires, now.wall), &mut changes)
                        }
                        Some(_) => Verdict::Said(Fate::Expired),
                        None => Verdict::Said(Fate::Missing),
                    },
                },
            };
            verdicts.push(verdict);
        }
        let brought = is_brought.then(|| Brought { name: said.into(), sender: from, ids });
        // Behind whatever is being written: what is said to be on disk is.
        let by = name.filter(|_| !is_late && !is_brought).map(|name| (name, from, tell));
        jobs.begin(Job { changes, reads: Vec::new() }, Purpose::Receive { reply, verdicts, brought, by }, fx);
    }

    fn look(&self, number: u64, sealed: &[u8]) -> Verdict {
        match self.received.get(&number) {
            Some(received) if !sealed.is_empty() && letter::mark_of(sealed) != received.mark => {
                Verdict::Said(Fate::Refused)
            }
            Some(_) | None => Verdict::OnDisk(number),
        }
    }

    fn take(
        &mut self,
        from: PeerId,
        name: &Arc<str>,
        Offered { id, attempts, lease, sealed, .. }: &Offered,
        (expires, now): (Wall, Wall),
        changes: &mut Vec<Change>,
    ) -> Verdict {
        let Some(sender) = NodeKey::of(&from) else { return Verdict::Said(Fate::Missing) };
        let number = self.next;
        let received = Received {
            name: Arc::clone(name),
            from: Arc::new(from),
            id: *id,
            mark: letter::mark_of(sealed),
            expires,
            bytes: u64::try_from(sealed.len()).unwrap_or(u64::MAX),
            before: *attempts,
            lease: *lease,
            standing: Standing::Arriving,
            since: now,
        };
        let Ok(row) = letter::write(&received.row(sender, *attempts, StandingRow::Stored, now)) else {
            return Verdict::Said(Fate::Missing);
        };
        changes.push(Change::Put(Key::number(Table::Received, number), row));
        changes.push(Change::Put(Key::number(Table::Inbox, number), sealed.clone()));
        self.insert(number, received);
        Verdict::OnDisk(number)
    }

    /// What was offered is on disk, or could not be written. Returns what to say of it.
    pub(super) fn arrived(
        &mut self,
        verdicts: Vec<Verdict>,
        by: Option<(Arc<str>, PeerId, bool)>,
        written: bool,
    ) -> Vec<Fate> {
        if let Some((name, from, tell)) = by {
            if tell {
                self.awaiting.insert((name, from));
            } else {
                self.awaiting.remove(&(name, from));
            }
        }
        let fate = |verdict| match verdict {
            Verdict::Said(fate) => fate,
            Verdict::OnDisk(number) => self.fate(number, written),
            Verdict::Leaving(number, attempts) => self.left(number, attempts, written),
        };
        verdicts.into_iter().map(fate).collect()
    }

    fn fate(&mut self, number: u64, written: bool) -> Fate {
        let Some(received) = self.received.get_mut(&number) else { return Fate::Missing };
        match received.standing {
            Standing::Processed => Fate::Processed,
            Standing::Poison => Fate::Poison,
            Standing::Withdrawn(attempts) => Fate::Withdrawn { attempts },
            Standing::Stored | Standing::Leaving => Fate::Stored,
            Standing::Arriving if written => {
                received.standing = Standing::Stored;
                if let Some(subscription) = self.subscriptions.get_mut(&received.name) {
                    subscription.put(number, received.before);
                }
                Fate::Stored
            }
            Standing::Arriving => {
                self.remove(number);
                Fate::NoRoom
            }
        }
    }

    /// Reads what there is room for at those who hold each subscription. Where attempts are limited it is on disk before a letter is
    /// handed out again; elsewhere nobody waits for that, nor for room to write it.
    pub(super) fn hand_out(&mut self, now: Now, jobs: &mut Jobs, fx: &mut Effects) {
        let mut poison = Vec::new();
        let Self { subscriptions, received, .. } = self;
        for (name, subscription) in subscriptions {
            let in_time = |number: &u64| received.get(number).is_some_and(|one| one.expires > now.wall);
            let bytes = |number: &u64| received.get(number).map_or(0, |one| one.bytes);
            let taken = subscription.take(now.mono, in_time, bytes);
            poison.extend(taken.poison);
            for (holder, numbers) in taken.by {
                let again = |number: &u64| {
                    let attempts = Some(subscription.attempts(*number)).filter(|attempts| *attempts > 1)?;
                    let received = received.get(number)?;
                    received.put(*number, attempts, StandingRow::Stored, received.since)
                };
                let mut changes: Vec<Change> = numbers.iter().filter_map(again).collect();
                if !subscription.limits_attempts(holder) && !changes.is_empty() {
                    jobs.note(std::mem::take(&mut changes), fx);
                }
                let reads = numbers.iter().map(|number| Key::number(Table::Inbox, *number)).collect();
                let purpose = Purpose::HandOut { name: Arc::clone(name), holder, numbers };
                jobs.begin(Job { changes, reads }, purpose, fx);
            }
        }
        self.poison(poison, now.wall, jobs, fx);
    }

    /// Letters were read that are to be handed out. One that is lost is forgotten, so that its sender gives it again.
    pub(super) fn handed_out(
        &mut self,
        (name, holder, numbers): (&Arc<str>, HolderId, Vec<u64>),
        result: Result<Done, StoreError>,
        now: Mono,
        jobs: &mut Jobs,
        fx: &mut Effects,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(name) else { return };
        let Ok(done) = result else {
            let there = numbers.into_iter().filter(|number| subscription.is_with(*number, holder)).collect::<Vec<_>>();
            return there.into_iter().for_each(|number| subscription.not_handed_out(number, now));
        };
        let mut lost = Vec::new();
        for (number, row) in numbers.into_iter().zip(done.rows) {
            let Some(received) = self.received.get(&number) else { continue };
            let Some(sealed) = row.filter(|sealed| letter::mark_of(sealed) == received.mark) else {
                lost.push(number);
                continue;
            };
            if subscription.is_with(number, holder) {
                let handed = Handed { number, from: *received.from, sealed, attempt: subscription.attempts(number) };
                fx.push(Output::HandOut { holder, handed });
            }
        }
        self.drop_all(lost, jobs, fx);
    }

    /// A handler is done with a letter: it is answered when that is on disk.
    pub(super) fn acknowledge(
        &mut self,
        (ticket, number): (Ticket, u64),
        now: Wall,
        jobs: &mut Jobs,
        fx: &mut Effects,
    ) {
        let Some(received) = self.received.get(&number) else {
            return answer(fx, ticket, PostAnswer::Late);
        };
        match received.standing {
            Standing::Processed => return answer(fx, ticket, PostAnswer::Done),
            Standing::Poison | Standing::Leaving | Standing::Withdrawn(_) => {
                return answer(fx, ticket, PostAnswer::Late);
            }
            Standing::Arriving | Standing::Stored => {}
        }
        let mut attempts = received.before;
        if let Some(subscription) = self.subscriptions.get_mut(&received.name) {
            attempts = subscription.attempts(number);
            subscription.settle(number);
        }
        let put = received.put(number, attempts, StandingRow::Processed, now);
        let changes = put.into_iter().chain([Change::Delete(Key::number(Table::Inbox, number))]).collect();
        jobs.begin(Job { changes, reads: Vec::new() }, Purpose::Acknowledge { ticket, number }, fx);
    }

    /// An acknowledgement is on disk, or could not be written: then the letter is handed out again. Returns the sender, if it is to
    /// be told, and the subscription.
    pub(super) fn acknowledged(&mut self, number: u64, written: bool, now: Now) -> Option<(PeerId, Arc<str>)> {
        let received = self.received.get_mut(&number)?;
        let subscription = self.subscriptions.get_mut(&received.name);
        if !written {
            subscription.into_iter().for_each(|subscription| subscription.unsettle(number, now.mono));
        } else if received.standing.is_open() {
            (received.standing, received.since) = (Standing::Processed, now.wall);
            self.bytes -= received.bytes;
            subscription.into_iter().for_each(|subscription| subscription.forget(number));
            let of = (Arc::clone(&received.name), *received.from);
            return self.awaiting.take(&of).map(|(name, from)| (from, name));
        }
        None
    }

    /// A handler gives a letter back: it is handed out again after that time, or when this node thinks fit.
    pub(super) fn give_back(&mut self, number: u64, after: Option<Span>, now: Mono) {
        let name = self.received.get(&number).map(|received| Arc::clone(&received.name));
        if let Some(subscription) = name.and_then(|name| self.subscriptions.get_mut(&name)) {
            subscription.back(number, after, now);
        }
    }

    /// Somebody holds a subscription no more. What that one has is for the others. Returns whether there was one.
    pub(super) fn release(&mut self, holder: HolderId) -> bool {
        self.subscriptions.values_mut().any(|subscription| subscription.release(holder))
    }

    /// Forgets a subscription, and what came for it.
    pub(super) fn remove_subscription(&mut self, name: &str) -> Vec<Change> {
        self.subscriptions.remove(name);
        let of_it = self.received.iter().filter(|(_, received)| &*received.name == name).map(|(number, _)| *number);
        let numbers: Vec<u64> = of_it.collect();
        let mut changes = vec![Change::Delete(Key::name(Table::Durables, name))];
        for number in numbers {
            self.remove(number);
            changes.extend(deletion(number));
        }
        changes
    }

    /// Forgets what nobody offers any more.
    pub(super) fn expire(&mut self, now: Wall, jobs: &mut Jobs, fx: &mut Effects) {
        let over = self.due.take(now);
        self.drop_all(over, jobs, fx);
    }

    fn drop_all(&mut self, numbers: Vec<u64>, jobs: &mut Jobs, fx: &mut Effects) {
        if numbers.is_empty() {
            return;
        }
        numbers.iter().for_each(|number| drop(self.remove(*number)));
        let changes = numbers.into_iter().flat_map(deletion).collect();
        jobs.note(changes, fx);
    }

    pub(super) fn next_due(&self) -> Option<Wall> {
        self.due.next()
    }

    pub(super) fn next_hand_out(&self) -> Option<Mono> {
        self.subscriptions.values().filter_map(Subscription::next_at).min()
    }
}

fn deletion(number: u64) -> [Change; 2] {
    [Change::Delete(Key::number(Table::Received, number)), Change::Delete(Key::number(Table::Inbox, number))]
}
