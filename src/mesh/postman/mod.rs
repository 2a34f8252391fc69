//! The postman: guaranteed delivery, as a state machine.
//!
//! [`outbox`] is the sender's half, [`inbox`] the recipient's, [`notices`] what could not be delivered; [`entrusting`] and [`keeping`] are the
//! halves of those who have copies kept and who keep them. What has to outlive the process leaves as a [`Job`](store::Job) and comes
//! back as [`Done`]; nothing is promised before. Jobs take effect in their order.

use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::PeerId;

use self::entry::Entry;
use self::inbox::Inbox;
use self::jobs::{Brought, Jobs, Processed, Purpose};
use self::notices::{Notice, Notices};
use self::outbox::Outbox;
use self::store::{Done, StoreError};
use self::subscription::Subscription;
use crate::mesh::effects::Effects;
use crate::mesh::event::{Answer, InboundId, JobId, Output, Ticket, Unsigned};
use crate::mesh::time::{Mono, Now, Span, Wall};
use crate::wire::custody::{End, receipt_text};
use crate::wire::node_key::NodeKey;
use crate::wire::rpc::{Fate, Offered, Response, Turn};
use crate::{Limits, MessageId};

mod command;
mod custodians;
mod custody;
mod directory;
mod entrusting;
mod entry;
mod exchanges;
mod held;
pub(crate) mod inbox;
mod jobs;
mod keeping;
mod kept;
mod leaving;
mod node;
pub(crate) mod notices;
mod numbers;
pub(crate) mod outbox;
mod received;
mod recipient;
pub(crate) mod restore;
mod settled;
mod shared;
pub(crate) mod store;
mod subscription;
mod whereabouts;

pub use self::command::{DurableHere, DurableStatus};
pub(crate) use self::command::{PostAnswer, PostCommand, Posting, Waiting};
pub(crate) use self::directory::{Directory, Holders, Holding};
pub(crate) use self::entrusting::{Deposit, Deposited};
pub(crate) use self::entry::Address;
pub(crate) use self::jobs::ReplyTo;
pub(crate) use self::keeping::Keeping;
pub(crate) use self::restore::Snapshot;
pub(crate) use self::subscription::{Terms, WINDOW};

/// A subscription that nobody held for so long is forgotten.
const FORGOTTEN: Span = Span::secs(30 * 24 * 60 * 60);
/// That somebody holds one is written down this often.
const NOTED: Span = Span::secs(24 * 60 * 60);
/// The wall clock may jump: it is looked at again after that.
const LOOK_AGAIN: Span = Span::secs(60);
/// Messages in the outbox, and notices, that are shown.
const SHOWN: usize = 1_000;

fn answer(fx: &mut Effects, ticket: Ticket, answer: PostAnswer) {
    fx.push(Output::Answer { ticket, answer: Answer::Post(answer) });
}

/// What was answered to an offer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answered<'a> {
    /// And signatures for those that are for good, where they are asked for.
    Fates(&'a [Fate], &'a [Bytes]),
    /// It did not get there.
    NotSent,
    /// It may have.
    Unknown,
}

/// Letters for a recipient, and the node that they are to be offered to.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) to: PeerId,
    pub(crate) of: Address,
    pub(crate) turn: Turn,
    /// The node is to say so when it has processed something.
    pub(crate) tell: bool,
    /// What the node need not remember.
    pub(crate) settled: Vec<MessageId>,
    /// Those of others with what these have signed.
    pub(crate) letters: Vec<(Offered, Option<Seal>)>,
}

/// All recipients of a letter, and its sender's signature.
pub(crate) type Seal = (Vec<String>, Bytes);

/// What a node is offered for a durable subscription that it has.
#[derive(Debug)]
pub(crate) struct Delivered<'a> {
    /// Whose they are.
    pub(crate) from: PeerId,
    /// Somebody else offers them, who keeps them.
    pub(crate) is_brought: bool,
    pub(crate) name: &'a str,
    pub(crate) turn: Turn,
    pub(crate) tell: bool,
    pub(crate) settled: Vec<MessageId>,
    pub(crate) letters: Vec<Opened>,
}

/// A letter that is offered, and when its time is over if it is as it was sealed.
type Opened = (Offered, Option<Wall>);

/// What has to be done by others.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    /// Who holds a durable subscription now, and is to be told when others know.
    pub(crate) held: Option<Ticket>,
    /// Nodes to be linked to.
    pub(crate) dials: Vec<PeerId>,
    /// Letters to be offered.
    pub(crate) letters: Vec<Parcel>,
    /// Copies to be given to others.
    pub(crate) deposits: Vec<Deposit>,
    /// Senders who are to be told that letters of theirs are processed, for these durable subscriptions.
    pub(crate) progress: Vec<(PeerId, Arc<str>)>,
}

#[derive(Debug)]
pub(crate) struct Postman {
    me: PeerId,
    /// Why there is no store, if there is none.
    none: Option<String>,
    limits: (usize, usize),
    jobs: Jobs,
    outbox: Outbox,
    inbox: Inbox,
    notices: Notices,
    damaged: u64,
    /// When time alone is next of interest.
    wake: Option<Mono>,
    /// Something happened since that was found out.
    stale: bool,
    /// When it is written down again which subscriptions are held.
    held_at: Option<Mono>,
}

impl Postman {
    /// `run` is the node's incarnation.
    pub(crate) fn new(me: PeerId, run: u64, limits: &Limits) -> Self {
        Self {
            me,
            none: Some("it was started without one".to_owned()),
            limits: (limits.outbox_messages, limits.outbox),
            jobs: Jobs::default(),
            outbox: Outbox::new(run),
            inbox: Inbox::new((limits.outbox_messages, limits.outbox)),
            notices: Notices::default(),
            damaged: 0,
            wake: None,
            stale: false,
            held_at: None,
        }
    }

    /// This node has no store, for that reason.
    pub(crate) fn without_store(&mut self, why: String) {
        self.none = Some(why);
    }

    // What is asked of this node.

    /// Takes a message for its recipients.
    pub(crate) fn accept(&mut self, ticket: Ticket, posting: Posting, fx: &mut Effects) {
        self.stale = true;
        if posting.to.is_empty() {
            return answer(fx, ticket, PostAnswer::Nobody);
        }
        if let Some(why) = &self.none {
            return answer(fx, ticket, PostAnswer::NoStore(why.clone()));
        }
        let room = self.room();
        self.outbox.accept((ticket, posting), None, room, &mut self.jobs, fx);
    }

    /// How many messages may be in the outbox, and how many bytes: notices count as messages do.
    fn room(&self) -> (usize, usize) {
        let (most, most_bytes) = self.limits;
        (most.saturating_sub(self.notices.len()), most_bytes)
    }

    pub(crate) fn acknowledge(&mut self, of: (Ticket, u64), now: Wall, fx: &mut Effects) {
        self.inbox.acknowledge(of, now, &mut self.jobs, fx);
    }

    pub(crate) fn give_back(&mut self, number: u64, after: Option<Span>, now: Mono) {
        self.stale = true;
        self.inbox.give_back(number, after, now);
    }

    pub(crate) fn next_notice(&mut self, ticket: Ticket, after: u64, fx: &mut Effects) {
        self.notices.next(ticket, after, fx);
    }

    pub(crate) fn show_notices(&self, ticket: Ticket, fx: &mut Effects) {
        let (total, notices) = (self.notices.len(), self.notices.all(SHOWN));
        answer(fx, ticket, PostAnswer::Notices { total, notices });
    }

    pub(crate) fn abandoned(&mut self, ticket: Ticket) {
        self.notices.abandoned(ticket);
    }

    pub(crate) fn show_outbox(&self, ticket: Ticket, fx: &mut Effects) {
        let is_owed = |entry: &&Entry| entry.kept().is_none() && !entry.owed.is_empty();
        let owed = || self.outbox.entries.values().map(AsRef::as_ref).filter(is_owed);
        let shown = owed().take(SHOWN).map(|entry| Waiting {
            id: entry.id,
            topic: Arc::clone(&entry.topic),
            expires: entry.expires,
            owed: entry.owed.iter().map(|owed| (Arc::clone(&owed.to), owed.by.is_some())).collect(),
        });
        let total = owed().count();
        let bytes = self.outbox.bytes - self.outbox.kept_bytes;
        answer(fx, ticket, PostAnswer::Outbox { total, bytes, messages: shown.collect() });
    }

    // What others ask of it, and answer.

    /// Somebody offers letters for a durable subscription of this node.
    pub(crate) fn offered(&mut self, id: InboundId, delivered: Delivered<'_>, now: Now, fx: &mut Effects) {
        self.inbox.offered(ReplyTo::Peer(id), delivered, now, &mut self.jobs, fx);
    }

    /// This node offers letters to itself.
    pub(crate) fn offer_here(&mut self, of: Address, delivered: Delivered<'_>, now: Now, fx: &mut Effects) {
        self.inbox.offered(ReplyTo::Own(of), delivered, now, &mut self.jobs, fx);
    }

    /// Somebody gives this node letters to keep, or asks about those. Without a store it keeps nothing.
    pub(crate) fn keep(&mut self, keeping: Keeping, now: Now, fx: &mut Effects) {
        self.stale = true;
        let limits = if self.none.is_none() { self.room() } else { (0, 0) };
        self.outbox.keep(keeping, limits, now, &mut self.jobs, fx);
    }

    /// What one who keeps copies has answered.
    pub(crate) fn deposited(&mut self, at: PeerId, deposited: Deposited, now: Now, fx: &mut Effects) {
        self.stale = true;
        self.outbox.deposited(at, deposited, now, &mut self.jobs, fx);
    }

    /// A letter is signed for those who keep copies of it.
    pub(crate) fn letter_signed(&mut self, number: u64, signature: Bytes) {
        self.stale = true;
        self.outbox.letter_signed(number, signature);
    }

    /// What became of letters that another offered is signed: it is told so.
    pub(crate) fn receipts_signed(
        &mut self,
        reply: ReplyTo,
        (fates, receipts): (Vec<Fate>, Vec<Bytes>),
        now: Now,
        fx: &mut Effects,
    ) {
        match reply {
            ReplyTo::Peer(id) => fx.reply(id, Response::Brought { fates, receipts, extensions: Vec::new() }),
            ReplyTo::Own(of) => self.answered((&of, self.me), Answered::Fates(&fates, &receipts), now, fx),
        }
    }

    /// Whether it can keep copies for others.
    pub(crate) fn is_custodian(&self) -> bool {
        self.none.is_none()
    }

    /// What became of letters that were offered to a node for a recipient.
    pub(crate) fn answered(&mut self, of: (&Address, PeerId), answer: Answered<'_>, now: Now, fx: &mut Effects) {
        self.stale = true;
        self.outbox.answered(of, answer, now, &mut self.jobs, fx);
    }

    /// A node says that it has processed letters for a recipient: it is asked which.
    pub(crate) fn progress(&mut self, name: &str, at: PeerId, now: Mono) {
        self.stale = true;
        self.outbox.progress(name, at, now);
    }

    /// A job was done, or not. Returns the letters that can be offered now.
    pub(crate) fn stored(&mut self, id: JobId, result: Result<Done, StoreError>, now: Now, fx: &mut Effects) -> Offers {
        self.stale = true;
        let mut offers = Offers::default();
        self.damaged += result.as_ref().map_or(0, |done| done.damaged);
        let Self { me, jobs, outbox, inbox, notices, .. } = self;
        let Some(purpose) = jobs.open.remove(&id) else { return offers };
        let told = |result: Result<Done, StoreError>| match result {
            Ok(_) => PostAnswer::Done,
            Err(error) => PostAnswer::Failed(error.to_string()),
        };
        match purpose {
            Purpose::Accept { ticket, number, entry, copies, instead } => {
                let gone = instead.filter(|_| result.is_ok());
                outbox.accepted((ticket, number, entry), copies, result, now.mono, fx);
                gone.into_iter().for_each(|serial| self.notice_taken(serial, fx));
            }
            Purpose::Load { of, to } => offers.letters.extend(outbox.loaded((&of, to), result, now, jobs, fx)),
            Purpose::Widen { number, at } => outbox.widened(number, at, result.is_ok(), jobs, fx),
            Purpose::Entrust { at } => offers.deposits.extend(outbox.entrusted(at, result, now.mono, fx)),
            Purpose::Keep(kept) => outbox.kept_now(kept, result.is_ok(), jobs, fx),
            Purpose::Notices { ended } => {
                notices.add(outbox.concluded(ended, result.is_ok(), now, jobs, fx), fx);
            }
            Purpose::Taken { ticket, serial } => {
                let gone = result.is_ok();
                answer(fx, ticket, told(result));
                if gone {
                    self.notice_taken(serial, fx);
                }
            }
            Purpose::Show { ticket } => answer(fx, ticket, kept::shown(result)),
            Purpose::Receive { reply, verdicts, brought, by } => {
                let fates = inbox.arrived(verdicts, by, result.is_ok());
                match (reply, brought) {
                    (reply, Some(brought)) => receipts(reply, &brought, fates, fx),
                    (ReplyTo::Peer(id), None) => fx.reply(id, Response::Offered { fates, extensions: Vec::new() }),
                    (ReplyTo::Own(of), None) => {
                        outbox.answered((&of, *me), Answered::Fates(&fates, &[]), now, jobs, fx);
                    }
                }
            }
            Purpose::HandOut { name, holder, numbers } => {
                inbox.handed_out((&name, holder, numbers), result, now.mono, jobs, fx);
            }
            Purpose::Acknowledge { ticket, number } => {
                let progress = inbox.acknowledged(number, result.is_ok(), now);
                answer(fx, ticket, told(result));
                match progress {
                    Some((from, name)) if from == *me => outbox.progress(&name, from, now.mono),
                    Some(progress) => offers.progress.push(progress),
                    None => {}
                }
            }
            Purpose::Hold { ticket, holder, name, pattern, terms } => {
                if result.is_err() {
                    answer(fx, ticket, told(result));
                    return offers;
                }
                let subscription = || Subscription::new(pattern);
                inbox.subscriptions.entry(name).or_insert_with(subscription).hold(holder, terms);
                offers.held = Some(ticket);
            }
            Purpose::Answer { ticket } => answer(fx, ticket, told(result)),
            Purpose::Noted { deletes, processed } => match result {
                Ok(_) => processed.into_iter().for_each(|list| outbox.settled.add(list.name, list.at, list.ids)),
                Err(StoreError::Full(_)) => jobs.undone.extend(deletes),
                Err(StoreError::Failed(_)) => {}
            },
        }
        offers
    }

    /// Who is there, or linked, may have changed.
    pub(crate) fn directory_changed(&mut self, directory: &impl Directory, now: Mono) {
        self.outbox.directory_changed(directory, now);
        self.stale = true;
    }

    /// So many processed messages each recipient of this node remembers of the latest.
    #[cfg(test)]
    pub(crate) fn keep_settled(&mut self, latest: usize) {
        self.outbox.settled.kept = latest;
    }

    /// Whether there is something to do.
    pub(crate) fn is_due(&self, now: Mono) -> bool {
        self.stale || self.wake.is_some_and(|wake| wake <= now)
    }

    /// Does what is due.
    pub(crate) fn settle(&mut self, directory: &impl Directory, now: Now, fx: &mut Effects) -> Offers {
        let mut offers = Offers::default();
        self.stale = false;
        self.note_held(now, fx);
        self.jobs.go_on(now.mono, fx);
        self.outbox.expire(now, &mut self.jobs, fx);
        self.inbox.expire(now.wall, &mut self.jobs, fx);
        self.outbox.end_waiting(now, &mut self.jobs, fx);
        self.outbox.offer(directory, now.mono, &mut self.jobs, &mut offers, fx);
        self.outbox.call_on_custodians(directory, now.mono, &mut self.jobs, &mut offers, fx);
        self.inbox.hand_out(now, &mut self.jobs, fx);
        let wall = [self.outbox.next_due(), self.inbox.next_due()].into_iter().flatten().min();
        let due = wall.map(|at| now.mono + (at - now.wall).min(LOOK_AGAIN));
        let held = self.held_at.filter(|_| self.inbox.subscriptions.values().any(|one| one.holders() > 0));
        let timer = self.outbox.timers.first().map(|(at, _)| *at);
        let custodians = self.outbox.custodians.next();
        let others =
            [due, timer, custodians, self.outbox.next_exchange(), self.inbox.next_hand_out(), held, self.jobs.again_at];
        self.wake = others.into_iter().flatten().min();
        offers
    }

    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        self.wake
    }

    // Queries.

    /// How much is owed to others, is kept for others, was received, is not delivered, and was damaged.
    pub(crate) fn counts(&self) -> [usize; 5] {
        let damaged = usize::try_from(self.damaged).unwrap_or(usize::MAX);
        let kept = self.outbox.kept.len();
        [self.outbox.entries.len() - kept, kept, self.inbox.len(), self.notices.len(), damaged]
    }
}

/// Has what became of letters signed that another offered, where it is for good.
fn receipts(reply: ReplyTo, Brought { name, sender, ids }: &Brought, fates: Vec<Fate>, fx: &mut Effects) {
    let Some(sender) = NodeKey::of(sender) else { return };
    let text = |(id, fate): (&MessageId, &Fate)| {
        End::of(*fate).map(|end| receipt_text(sender, *id, end, name)).unwrap_or_default()
    };
    let texts = ids.iter().zip(&fates).map(text).collect();
    fx.push(Output::Sign(Unsigned::Receipts { reply, fates, texts }));
}
