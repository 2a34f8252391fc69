//! What is said to the nodes of recipients: letters are offered, and asked about.
//!
//! With each node that holds a recipient one exchange is under way at a time. It carries the oldest letters that are owed, in their order, so that
//! this order holds whatever is lost and repeated, and asks what became of those that were stored there before.

use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::PeerId;

use super::entry::Address;
use super::node::Exchange;
use super::notices::Reason;
use super::outbox::Outbox;
use super::recipient::{Ending, Recipient};
use super::store::{Done, Job, StoreError};
use super::{Answered, Directory, Jobs, Offers, Parcel, Processed, Purpose};
use crate::MessageId;
use crate::mesh::effects::Effects;
use crate::mesh::time::{Mono, Now, Span};
use crate::wire::custody::End;
use crate::wire::letter::{self, LetterRow};
use crate::wire::rpc::{Fate, Offered};

/// The bytes of the letters of one exchange, unless there is one only.
const BATCH_BYTES: u64 = 256 * 1024;
/// A node that was not seen for so long is stood in for by the first of those who keep copies for it, by the next after twice as
/// long, and so on.
pub(super) const STEP_IN: Span = Span::secs(30);

/// What the fates of an exchange lead to.
#[derive(Default)]
struct Outcome {
    changed: Vec<u64>,
    /// Not delivered, for that reason.
    over: Vec<(u64, Arc<str>, Reason)>,
    processed: Vec<MessageId>,
    /// Something was stored or processed.
    news: bool,
}

impl Outbox {
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
        for (address, recipient) in &mut self.recipients {
            if recipient.is_new() {
                recipient.look(&address.name, directory, now);
                if let Some((from, _)) = address.kept_for.filter(|(from, _)| !directory.is_seen(*from)) {
                    self.gone.entry(from).or_insert(now);
                }
            }
            if !recipient.is_due(now) && !recipient.is_held() {
                continue;
            }
            if let Some((from, rank)) = address.kept_for {
                let gone = self.gone.get(&from).map(|since| *since + step_in_after(rank));
                if gone.is_none_or(|at| at > now) {
                    continue;
                }
                recipient.step_in(now);
            }
            let entries = &self.entries;
            let fits = |number: u64, used: &mut u64| {
                let first = *used == 0;
                *used += entries.get(&number).map_or(0, |entry| u64::from(entry.bytes));
                first || *used <= BATCH_BYTES
            };
            let plan = recipient.plan(now, fits, fx);
            offers.dials.extend(plan.dials);
            lapsed.extend(plan.lapsed.into_iter().map(|number| (number, Arc::clone(&address.name))));
            for to in plan.exchanges {
                let fresh = recipient.nodes.get(&to).and_then(|node| node.exchange.as_ref()).map(|one| &one.fresh);
                let letter = |number: &u64| Some(entries.get(number)?.letter(*number));
                let reads = fresh.into_iter().flatten().filter_map(letter).collect();
                jobs.begin(Job { changes: Vec::new(), reads }, Purpose::Load { of: address.clone(), to }, fx);
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
        (of, to): (&Address, PeerId),
        result: Result<Done, StoreError>,
        now: Now,
        jobs: &mut Jobs,
        fx: &mut Effects,
    ) -> Option<Parcel> {
        let turn = self.next_turn();
        let recipient = self.recipients.get_mut(of)?;
        let Ok(done) = result else {
            recipient.ended(to, Ending::NotSent, now.mono, fx);
            return None;
        };
        let node = recipient.nodes.get_mut(&to)?;
        let tell = node.tells && of.kept_for.is_none();
        let exchange = node.exchange.as_mut()?;
        let whole = |row: Option<Bytes>| letter::read::<LetterRow>(&row?).ok();
        let read: Vec<_> = exchange.fresh.iter().copied().zip(done.rows.into_iter().map(whole)).collect();
        let lost: Vec<u64> = read.iter().filter(|(_, row)| row.is_none()).map(|(number, _)| *number).collect();
        let Self { entries, .. } = self;
        // Those whose time ran out meanwhile are asked about and offered to the end of this exchange, which changes nothing.
        exchange.asked.retain(|number| entries.contains_key(number));
        exchange.wanted.retain(|number| entries.contains_key(number));
        exchange.fresh.retain(|number| entries.contains_key(number) && !lost.contains(number));
        let mut letters = Vec::new();
        let takes_back = of.kept_for.is_none();
        for (numbers, take_back) in [(&exchange.asked, false), (&exchange.wanted, takes_back)] {
            let ids = numbers.iter().filter_map(|number| Some(entries.get(number)?.id));
            let asks = ids.map(|id| Offered { id, attempts: 0, lease: 0, take_back, sealed: Bytes::new() });
            letters.extend(asks.map(|offered| (offered, None)));
        }
        for (number, row) in read {
            let (Some(entry), Some(LetterRow { sealed, to })) = (entries.get_mut(&number), row) else { continue };
            let (id, seal) = (entry.id, entry.kept().map(|kept| (to, kept.signature.clone())));
            let Some(owed) = entry.owed_to(&of.name) else { continue };
            owed.offers = owed.offers.saturating_add(1);
            let (attempts, lease) = (owed.attempts, owed.lease);
            letters.push((Offered { id, attempts, lease, take_back: false, sealed }, seal));
        }
        // One that was given up meanwhile is not sent, nor answered.
        exchange.fresh.retain(|number| entries.get_mut(number).is_some_and(|entry| entry.owed_to(&of.name).is_some()));
        let parcel = (!letters.is_empty()).then(|| {
            // What it processed for another is for that one to settle.
            let settled = if of.kept_for.is_none() { self.settled.take(&of.name, to, now.mono) } else { Vec::new() };
            exchange.settled.clone_from(&settled);
            Parcel { to, of: of.clone(), turn, tell, settled, letters }
        });
        if parcel.is_none() {
            recipient.ended(to, Ending::NotSent, now.mono, fx);
        }
        let lost = lost.into_iter().map(|number| (number, Arc::clone(&of.name), Reason::Damaged)).collect();
        self.conclude(lost, now, jobs, fx);
        parcel
    }

    /// What became of the letters of an exchange.
    pub(super) fn answered(
        &mut self,
        (of, to): (&Address, PeerId),
        answer: Answered<'_>,
        now: Now,
        jobs: &mut Jobs,
        fx: &mut Effects,
    ) {
        let Some(recipient) = self.recipients.get_mut(of) else { return };
        let Some(exchange) = recipient.nodes.get_mut(&to).map(|node| &mut node.exchange) else { return };
        let settled = exchange.as_mut().map(|exchange| std::mem::take(&mut exchange.settled)).unwrap_or_default();
        let answered = match answer {
            Answered::Fates(fates, receipts) => {
                let answered = exchange.take_if(|one| one.len() == fates.len());
                answered.map(|exchange| (exchange, fates, receipts)).ok_or(Ending::Unknown)
            }
            Answered::NotSent => Err(Ending::NotSent),
            Answered::Unknown => Err(Ending::Unknown),
        };
        let (Exchange { asked, wanted, fresh, .. }, fates, receipts) = match answered {
            Ok(answered) => answered,
            Err(ending) => {
                self.settled.give_back(&of.name, to, settled);
                return recipient.ended(to, ending, now.mono, fx);
            }
        };
        let (has_asked, has_offered) = (!(asked.is_empty() && wanted.is_empty()), !fresh.is_empty());
        let mut outcome = Outcome::default();
        let numbers = asked.into_iter().chain(wanted).chain(fresh);
        for (place, (number, fate)) in numbers.zip(fates).enumerate() {
            let receipt = receipts.get(place).cloned().unwrap_or_default();
            self.learn((of, to), (number, *fate, receipt), now, &mut outcome);
        }
        let Outcome { changed, over, processed, news } = outcome;
        if let Some(recipient) = self.recipients.get_mut(of) {
            recipient.went(to, (has_asked, has_offered, news), now.mono, fx);
        }
        let mut changes = Vec::new();
        changed.into_iter().for_each(|number| self.write(number, &mut changes));
        let name = Arc::clone(&of.name);
        let processed = (!processed.is_empty()).then_some(Processed { name, at: to, ids: processed });
        jobs.note_processed(changes, processed, fx);
        self.conclude(over, now, jobs, fx);
    }

    /// What became of one of them.
    fn learn(
        &mut self,
        (of, to): (&Address, PeerId),
        (number, fate, receipt): (u64, Fate, Bytes),
        now: Now,
        outcome: &mut Outcome,
    ) {
        let Self { entries, recipients, nodes, custodians, settled, .. } = self;
        let Some(recipient) = recipients.get_mut(of) else { return };
        let Some(entry) = entries.get_mut(&number) else { return };
        if entry.owed_to(&of.name).is_none() {
            return;
        }
        recipient.probed(to, number);
        if let Some(end) = End::of(fate).filter(|end| *end == End::Processed || entry.kept().is_some()) {
            recipient.forget(number);
            if custodians.end(number, entry, (&of.name, to), (end, receipt)) {
                outcome.processed.push(entry.id);
            }
            settled.take_over(entry, now.mono);
            outcome.news = true;
            outcome.changed.push(number);
            return;
        }
        let Some(owed) = entry.owed_to(&of.name) else { return };
        match fate {
            Fate::Stored if owed.by.as_deref() == Some(&to) => return,
            Fate::Stored => {
                (owed.by, owed.since) = (Some(nodes.of(Arc::new(to))), now.wall);
                recipient.keep(to, number);
                outcome.news = true;
            }
            Fate::Withdrawn { attempts } => {
                (owed.by, owed.attempts) = (None, owed.attempts.max(attempts));
                owed.lease = owed.lease.saturating_add(1);
                owe_again(recipient, number);
            }
            Fate::Refused | Fate::Poison | Fate::Processed => {
                let reason = if fate == Fate::Poison { Reason::Poison } else { Reason::Refused };
                recipient.forget(number);
                outcome.over.push((number, Arc::clone(&of.name), reason));
                return;
            }
            Fate::Expired => {
                if owed.by.is_none() && !recipient.is_probed(number) {
                    recipient.put_off(number, now.mono);
                    // The others need not wait for it.
                    outcome.news = true;
                }
                return;
            }
            Fate::Missing | Fate::Nobody | Fate::NoRoom => {
                let was_there = owed.by.take_if(|by| **by == to).is_some();
                if owed.by.is_none() {
                    owe_again(recipient, number);
                }
                if !was_there {
                    return;
                }
            }
        }
        outcome.changed.push(number);
    }

    /// A node has processed something for that recipient.
    pub(super) fn progress(&mut self, name: &str, at: PeerId, now: Mono) {
        let of = Address { name: name.into(), kept_for: None };
        if let Some(recipient) = self.recipients.get_mut(&of) {
            recipient.progress(at, now);
        }
    }

    /// When the next exchange begins.
    pub(super) fn next_exchange(&self) -> Option<Mono> {
        let wakes = self.recipients.iter().filter_map(|(address, recipient)| match address.kept_for {
            Some((from, rank)) if recipient.is_held() => self.gone.get(&from).map(|since| *since + step_in_after(rank)),
            Some(_) | None => recipient.wake(),
        });
        wakes.min()
    }

    /// Who holds what may have changed: those are turned to at once for whom it has. And whoever has copies kept here may have come, or gone.
    pub(super) fn directory_changed(&mut self, directory: &impl Directory, now: Mono) {
        for (address, recipient) in &mut self.recipients {
            recipient.look(&address.name, directory, now);
            let Some((from, _)) = address.kept_for else { continue };
            if directory.is_seen(from) {
                self.gone.remove(&from);
                recipient.hold();
            } else {
                self.gone.entry(from).or_insert(now);
            }
        }
        let recipients = &self.recipients;
        self.gone.retain(|from, _| recipients.keys().any(|one| one.kept_for.is_some_and(|(of, _)| of == *from)));
        self.settled.directory_changed(directory);
        self.custodians.directory_changed(directory, now);
    }
}

fn step_in_after(rank: u8) -> Span {
    Span(STEP_IN.0 * (u64::from(rank) + 1))
}

/// It is to be offered to some node, unless others have to be asked first.
fn owe_again(recipient: &mut Recipient, number: u64) {
    if !recipient.is_probed(number) {
        recipient.forget(number);
        recipient.owe(number);
    }
}
