//! Copies of this node's messages at others: who is given one, who waits for that, and what those who keep them know when this node has
//! started again and when a message's time is over.

use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::PeerId;

use super::custodians::Entrusting;
use super::custody::{Awaited, Copy, CopyState, Given, Inquiry};
use super::notices::Reason;
use super::outbox::Outbox;
use super::store::{Change, Done, Job, Key, StoreError, Table};
use super::{Directory, Jobs, Offers, PostAnswer, Posting, Purpose, answer};
use crate::MessageId;
use crate::mesh::effects::Effects;
use crate::mesh::event::{Output, Ticket, Unsigned};
use crate::mesh::time::{Mono, Now, Span, Wall};
use crate::wire::custody::{self, Copied, CopyStage, End, Entrusted, Released};
use crate::wire::letter::{self, LetterRow};
use crate::wire::rpc::Turn;

/// For so long a caller waits for the copies that it wants.
const AWAITED: Span = Span::secs(5);
/// A node that has started again asks those who have copies before it goes on, and waits for their word so long.
const ASKED_AT_START: Span = Span::secs(5);
/// And when a message's time is over, before it is told of.
const ASKED_AT_END: Span = Span::secs(30);

/// What is said to one who keeps copies.
#[derive(Debug)]
pub(crate) struct Deposit {
    pub(crate) at: PeerId,
    pub(crate) turn: Turn,
    pub(crate) letters: Vec<Entrusted>,
    pub(crate) asked: Vec<MessageId>,
    pub(crate) released: Vec<Released>,
}

/// What one who keeps copies has answered.
#[derive(Debug)]
pub(crate) enum Deposited {
    Kept(Vec<bool>, Vec<Copied>),
    /// There was no answer.
    Silent,
}

impl Given {
    /// If copies of a new message are wanted: it is given to the first of those who could keep one. How many are wanted, and the others, who
    /// stand by, are for later.
    pub(super) fn begin(posting: &Posting) -> Option<(Self, (usize, Vec<PeerId>))> {
        if posting.copies == 0 {
            return None;
        }
        let (first, others) = posting.custodians.split_at(posting.copies.min(posting.custodians.len()));
        let to: Vec<String> = posting.to.iter().map(|to| to.to_string()).collect();
        let text = custody::letter_text(&posting.sealed, &to);
        let given = Self { text, ..Self::new(first.iter().copied().map(Arc::new)) };
        Some((given, (posting.copies, others.to_vec())))
    }
}

impl Outbox {
    /// A message is on disk of which copies are wanted: they are signed for, and then given.
    pub(super) fn entrust(
        &mut self,
        number: u64,
        (ticket, wanted): (Ticket, usize),
        others: Vec<PeerId>,
        now: Mono,
        fx: &mut Effects,
    ) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let recipients = entry.owed.iter().map(|owed| Arc::clone(&owed.to)).collect();
        let Some(given) = entry.given() else { return };
        let until = now + AWAITED;
        given.awaited = Some(Awaited { ticket, wanted, recipients, others, until });
        self.timers.insert((until, number));
        fx.push(Output::Sign(Unsigned::Letter { number, text: std::mem::take(&mut given.text) }));
        self.look_at_copies(number, fx);
    }

    /// It is signed.
    pub(super) fn letter_signed(&mut self, number: u64, signature: Bytes) {
        let Some(given) = self.entries.get_mut(&number).and_then(|entry| entry.given()) else { return };
        given.signature = signature;
        let planned = given.copies.iter().filter(|copy| copy.state == CopyState::Planned);
        let planned: Vec<PeerId> = planned.map(|copy| *copy.at).collect();
        planned.into_iter().for_each(|at| self.custodians.keep(at, number));
    }

    /// Answers whoever waits for copies, if there are enough, or no more can be had.
    fn look_at_copies(&mut self, number: u64, fx: &mut Effects) {
        let Some(given) = self.entries.get_mut(&number).and_then(|entry| entry.given()) else { return };
        let has = given.count(CopyState::Has);
        let may = given.count(CopyState::May) + given.count(CopyState::Planned);
        let is_over = |awaited: &mut Awaited| has >= awaited.wanted || may == 0 && awaited.others.is_empty();
        if let Some(awaited) = given.awaited.take_if(is_over) {
            self.timers.remove(&(awaited.until, number));
            answer_with(awaited, has, fx);
        }
    }

    /// One did not take a copy: the next one is to, which goes to disk before it is given one.
    fn give_to_next(&mut self, number: u64, jobs: &mut Jobs, fx: &mut Effects) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let Some(given) = entry.given() else { return };
        let has = given.count(CopyState::Has);
        let awaited = given.awaited.as_mut().filter(|awaited| has < awaited.wanted && !awaited.others.is_empty());
        if let Some(at) = awaited.map(|awaited| awaited.others.remove(0)) {
            given.copies.push(Copy { at: Arc::new(at), state: CopyState::Planned });
            let row = letter::write(&given.row()).ok();
            let changes = row.map(|row| Change::Put(Key::number(Table::Given, number), row)).into_iter().collect();
            jobs.begin(Job { changes, reads: Vec::new() }, Purpose::Widen { number, at }, fx);
        }
        self.look_at_copies(number, fx);
    }

    /// It is on disk that one more may have a copy.
    pub(super) fn widened(&mut self, number: u64, at: PeerId, written: bool, jobs: &mut Jobs, fx: &mut Effects) {
        let Some(given) = self.entries.get_mut(&number).and_then(|entry| entry.given()) else { return };
        match (written, given.is_with(at)) {
            (true, true) => self.custodians.keep(at, number),
            // It is delivered meanwhile.
            (true, false) => {}
            (false, _) => {
                given.set(at, CopyState::Not);
                self.give_to_next(number, jobs, fx);
            }
        }
    }

    /// Begins the exchanges with them that are due.
    pub(super) fn call_on_custodians(
        &mut self,
        directory: &impl Directory,
        now: Mono,
        jobs: &mut Jobs,
        offers: &mut Offers,
        fx: &mut Effects,
    ) {
        let (begun, away) = self.custodians.begin(&self.entries, directory, now, offers, fx);
        for at in begun {
            let keep = self.custodians.under_way(at).into_iter().flat_map(|one| &one.keep);
            let reads = keep.map(|number| Key::number(Table::Letters, *number)).collect();
            jobs.begin(Job { changes: Vec::new(), reads }, Purpose::Entrust { at }, fx);
        }
        for (at, number) in away {
            let given = self.entries.get_mut(&number).and_then(|entry| entry.given());
            given.into_iter().for_each(|given| given.unplan(at));
            self.give_to_next(number, jobs, fx);
        }
    }

    /// The letters for one of them were read. One that is lost is told of when it is offered.
    pub(super) fn entrusted(
        &mut self,
        at: PeerId,
        result: Result<Done, StoreError>,
        now: Mono,
        fx: &mut Effects,
    ) -> Option<Deposit> {
        let turn = self.next_turn();
        let Ok(done) = result else {
            self.custodians.give_back(at, now, fx);
            return None;
        };
        let Entrusting { keep, ask, release } = self.custodians.under_way(at)?.clone();
        let mut letters = Vec::new();
        for (number, row) in keep.into_iter().zip(done.rows) {
            let row = row.and_then(|row| letter::read::<LetterRow>(&row).ok());
            let given = self.entries.get_mut(&number).and_then(|entry| entry.given());
            let given = given.filter(|given| given.is_with(at));
            let kept = given.zip(row).map(|(given, row)| {
                given.set(at, CopyState::May);
                let (rank, signature) = (given.rank(at), given.signature.clone());
                Entrusted { rank, to: row.to, signature, sealed: row.sealed }
            });
            // Where there is nothing to be kept something stands that nobody takes, so that the answer has its place.
            let nothing = || Entrusted { rank: 0, to: Vec::new(), signature: Bytes::new(), sealed: Bytes::new() };
            letters.push(kept.unwrap_or_else(nothing));
        }
        let asked = ask.into_iter().map(|(_, id)| id).collect();
        let released = release.into_iter().map(|(_, to, id)| Released { id, to: to.to_string() }).collect();
        Some(Deposit { at, turn, letters, asked, released })
    }

    /// What one of them has answered.
    pub(super) fn deposited(&mut self, at: PeerId, deposited: Deposited, now: Now, jobs: &mut Jobs, fx: &mut Effects) {
        let Deposited::Kept(kept, known) = deposited else {
            let untold = self.custodians.give_back(at, now.mono, fx);
            return untold.into_iter().for_each(|number| self.give_to_next(number, jobs, fx));
        };
        let Some(Entrusting { keep, ask, release }) = self.custodians.take(at) else { return };
        for (number, is_kept) in keep.into_iter().zip(kept) {
            if let Some(given) = self.entries.get_mut(&number).and_then(|entry| entry.given()) {
                given.set(at, if is_kept { CopyState::Has } else { CopyState::Not });
            }
            if is_kept { self.look_at_copies(number, fx) } else { self.give_to_next(number, jobs, fx) }
        }
        let (mut changes, mut over) = (Vec::new(), Vec::new());
        for (number, id) in ask {
            let known: Vec<&Copied> = known.iter().filter(|one| one.id == id).collect();
            if known.is_empty()
                && let Some(given) = self.entries.get_mut(&number).and_then(|entry| entry.given())
            {
                given.set(at, CopyState::Not);
            }
            known.into_iter().for_each(|one| self.take_word(number, one, now.mono, &mut over));
            self.write(number, &mut changes);
            // Before what follows from it.
            jobs.note(std::mem::take(&mut changes), fx);
            self.heard(at, number, now, jobs, fx);
        }
        for (number, to, _) in release {
            self.released(at, number, &to, now.mono, &mut changes);
        }
        jobs.note(changes, fx);
        self.conclude(over, now, jobs, fx);
    }

    /// What one of them knows of a message for a recipient.
    fn take_word(&mut self, number: u64, known: &Copied, now: Mono, over: &mut Vec<(u64, Arc<str>, Reason)>) {
        let Self { entries, recipients, nodes, custodians, settled, .. } = self;
        let Some(entry) = entries.get_mut(&number) else { return };
        let name: Arc<str> = known.to.as_str().into();
        if entry.owed_to(&name).is_none() {
            return;
        }
        match &known.stage {
            CopyStage::Waiting => {}
            CopyStage::Given { to, since } => {
                let is_new = entry.owed_to(&name).filter(|owed| owed.by.is_none()).zip(to.peer());
                if let Some((owed, peer)) = is_new {
                    (owed.by, owed.since) = (Some(nodes.of(Arc::new(peer))), Wall(*since));
                    if let Some(recipient) = recipients.get_mut(&entry.address(&name)) {
                        recipient.keep(peer, number);
                    }
                }
            }
            CopyStage::Over { at, end: End::Processed, .. } => {
                let Some(at) = at.peer() else { return };
                if let Some(recipient) = recipients.get_mut(&entry.address(&name)) {
                    recipient.forget(number);
                }
                custodians.end(number, entry, (&name, at), (End::Processed, Bytes::new()));
                settled.take_over(entry, now);
            }
            CopyStage::Over { end: End::Poison, .. } => over.push((number, name, Reason::Poison)),
            CopyStage::Over { end: End::Refused, .. } => over.push((number, name, Reason::Refused)),
        }
    }

    /// One of those that are asked about a message has answered.
    fn heard(&mut self, at: PeerId, number: u64, now: Now, jobs: &mut Jobs, fx: &mut Effects) {
        let Some(given) = self.entries.get_mut(&number).and_then(|entry| entry.given()) else { return };
        let Some(inquiry) = &mut given.inquiry else { return };
        inquiry.left.remove(&at);
        if inquiry.left.is_empty() {
            self.end_inquiry(number, now, jobs, fx);
        }
    }

    /// One of them keeps nothing for that recipient any more.
    fn released(&mut self, at: PeerId, number: u64, to: &Arc<str>, now: Mono, changes: &mut Vec<Change>) {
        let Self { entries, settled, .. } = self;
        let Some(entry) = entries.get_mut(&number) else { return };
        for closing in entry.given().into_iter().flat_map(|given| &mut given.closing) {
            if closing.to == *to {
                closing.left.remove(&at);
            }
        }
        if settled.take_over(entry, now) {
            self.write(number, changes);
        }
    }

    /// Asks those who have copies of a message. Returns false if nobody may have one, or all were asked.
    pub(super) fn inquire(&mut self, number: u64, at_end: bool, now: Mono) -> bool {
        let Self { entries, custodians, timers, .. } = self;
        let Some(given) = entries.get_mut(&number).and_then(|entry| entry.given()) else { return false };
        let left = given.holders();
        if left.is_empty() || given.heard_out.is_some() {
            return false;
        }
        if let Some(earlier) = &given.inquiry {
            timers.remove(&(earlier.until, number));
        }
        let until = now + if at_end { ASKED_AT_END } else { ASKED_AT_START };
        timers.insert((until, number));
        custodians.ask(&left, number);
        given.inquiry = Some(Inquiry { left, until, at_end });
        self.enter_next();
        true
    }

    /// They were asked, or asked in vain: then it is offered, or told of.
    fn end_inquiry(&mut self, number: u64, now: Now, jobs: &mut Jobs, fx: &mut Effects) {
        let Some(given) = self.entries.get_mut(&number).and_then(|entry| entry.given()) else { return };
        let Some(inquiry) = given.inquiry.take() else { return };
        self.timers.remove(&(inquiry.until, number));
        self.enter_next();
        if !inquiry.at_end {
            return;
        }
        let Some(given) = self.entries.get_mut(&number).and_then(|entry| entry.given()) else { return };
        given.heard_out = Some(inquiry.left.is_empty());
        // Nobody delivers it any more, so nobody has to be told.
        given.closing.clear();
        let mut changes = Vec::new();
        self.write(number, &mut changes);
        jobs.note(changes, fx);
        self.give_up(number, now, jobs, fx);
    }

    /// Who waits for copies, or for word of them, waits no longer.
    pub(super) fn end_waiting(&mut self, now: Now, jobs: &mut Jobs, fx: &mut Effects) {
        for Awaited { ticket, recipients, .. } in std::mem::take(&mut self.delivered) {
            answer(fx, ticket, PostAnswer::Accepted { recipients, copies: 0, wanted: 0 });
        }
        // One that others were asked about may have ended before all had answered.
        self.enter_next();
        while let Some((_, number)) = self.timers.first().copied().filter(|(at, _)| *at <= now.mono) {
            self.timers.pop_first();
            let Some(given) = self.entries.get_mut(&number).and_then(|entry| entry.given()) else { continue };
            let has = given.count(CopyState::Has);
            if let Some(awaited) = given.awaited.take_if(|awaited| awaited.until <= now.mono) {
                answer_with(awaited, has, fx);
            }
            if given.inquiry.as_ref().is_some_and(|inquiry| inquiry.until <= now.mono) {
                self.end_inquiry(number, now, jobs, fx);
            }
        }
    }

    /// A message is gone: delivered, if somebody waits for copies of it still.
    pub(super) fn forget_copies(&mut self, number: u64, mut given: Given) {
        self.custodians.forget(number, &given);
        let untils = [given.awaited.as_ref().map(|one| one.until), given.inquiry.as_ref().map(|one| one.until)];
        for until in untils.into_iter().flatten() {
            self.timers.remove(&(until, number));
        }
        self.delivered.extend(given.awaited.take());
    }

    pub(super) fn next_turn(&mut self) -> Turn {
        let turn = self.turn;
        self.turn.count += 1;
        turn
    }
}

fn answer_with(awaited: Awaited, copies: usize, fx: &mut Effects) {
    let Awaited { ticket, wanted, recipients, .. } = awaited;
    answer(fx, ticket, PostAnswer::Accepted { recipients, copies, wanted });
}
