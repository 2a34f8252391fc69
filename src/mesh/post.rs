//! Where the postman meets the others: who holds what, whom to link to, and what is said over the links.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::effects::Asked;
use super::event::{Answer, Checked, HolderId, InboundId, JobId, RpcFailure, Ticket};
use super::links::Links;
use super::postman::store::{Done, StoreError};
use super::postman::{
    self, Address, Answered, Delivered, Deposit, Deposited, DurableStatus, Holders, Holding, Offers, Parcel,
    PostAnswer, PostCommand, Posting, Terms,
};
use super::roster::{Known, Roster};
use super::time::{Now, Wall};
use super::{Mesh, checked};
use crate::MessageId;
use crate::wire::custody::Brought;
use crate::wire::node_key::NodeKey;
use crate::wire::rpc::{Offered, Request, Response, Turn};

/// What the postman wants to know of the others.
struct Place<'a> {
    me: PeerId,
    roster: &'a Roster,
    links: &'a Links,
    own: BTreeMap<Arc<str>, usize>,
}

impl postman::Directory for Place<'_> {
    fn holders(&self, name: &str) -> Holders {
        let own = self.own.get(name).map(|window| Holding {
            peer: self.me,
            linked: true,
            window: *window,
            has_it: true,
            is_own: true,
        });
        let (mut all, mut there) = (usize::from(own.is_some()), Vec::from_iter(own));
        for known in self.roster.nodes() {
            let Some(durable) = known.durables().iter().find(|durable| durable.name == name) else { continue };
            all += 1;
            if known.is_live() {
                let (peer, window) = (known.peer(), usize::try_from(durable.window).unwrap_or(usize::MAX));
                there.push(Holding { peer, linked: self.links.is_linked(&peer), window, has_it: true, is_own: false });
            }
        }
        Holders { there, are_several: all > 1 }
    }

    fn is_live(&self, peer: PeerId) -> bool {
        peer == self.me || self.roster.get(&peer).is_some_and(Known::is_live)
    }

    fn is_seen(&self, peer: PeerId) -> bool {
        self.links.is_linked(&peer) || self.roster.get(&peer).is_some_and(Known::is_seen)
    }

    fn is_linked(&self, peer: PeerId) -> bool {
        peer == self.me || self.links.is_linked(&peer)
    }
}

impl Mesh {
    pub(super) fn post_command(&mut self, ticket: Ticket, command: PostCommand, now: Now) {
        match command {
            PostCommand::Accept(posting) => self.accept(ticket, posting),
            PostCommand::Hold { holder, name, pattern, terms } => {
                self.hold(ticket, holder, (name, pattern, terms), now);
            }
            PostCommand::Release { holder } => {
                if self.postman.release(holder) {
                    self.durables_changed(now);
                }
            }
            PostCommand::Remove { name } => {
                if self.postman.remove(ticket, &name, &mut self.fx) {
                    self.durables_changed(now);
                }
            }
            PostCommand::Acknowledge { number } => {
                self.postman.acknowledge((ticket, number), now.wall, &mut self.fx);
            }
            PostCommand::GiveBack { number, after } => self.postman.give_back(number, after, now.mono),
            PostCommand::NextNotice { after } => self.postman.next_notice(ticket, after, &mut self.fx),
            PostCommand::Notices => self.postman.show_notices(ticket, &mut self.fx),
            PostCommand::TakeNotice { number, recipient } => {
                self.postman.take_notice(ticket, (number, &recipient), &mut self.fx);
            }
            PostCommand::ShowLetter { number, recipient } => {
                self.postman.show_letter(ticket, (number, &recipient), &mut self.fx);
            }
            PostCommand::Retry { number, recipient, posting } => {
                self.postman.retry(ticket, (number, &recipient), posting, &mut self.fx);
            }
            PostCommand::Outbox => self.postman.show_outbox(ticket, &mut self.fx),
            PostCommand::Durables => self.show_durables(ticket),
            PostCommand::Where { id, peer } => self.ask_where(ticket, id, peer),
        }
    }

    /// Asks a neighbour what it knows of a message, or this node.
    fn ask_where(&mut self, ticket: Ticket, id: MessageId, peer: Option<PeerId>) {
        match peer {
            Some(peer) if self.links.is_linked(&peer) => {
                self.fx.ask(peer, Request::Where { id, extensions: Vec::new() }, Asked::Where { ticket });
            }
            Some(_) => self.answer(ticket, Answer::Post(PostAnswer::Known(Vec::new()))),
            None => {
                let known = self.postman.whereabouts(id);
                self.answer(ticket, Answer::Post(PostAnswer::Known(known)));
            }
        }
    }

    /// What a neighbour knows of a message: nothing, if it does not answer.
    pub(super) fn known_there(&mut self, ticket: Ticket, result: Result<Checked<Response>, RpcFailure>) {
        let known = match result.map(|checked| checked.body) {
            Ok(Response::Known { known, .. }) => known,
            Ok(_) | Err(RpcFailure::NotSent | RpcFailure::Unknown) => Vec::new(),
        };
        self.answer(ticket, Answer::Post(PostAnswer::Known(known)));
    }

    fn show_durables(&mut self, ticket: Ticket) {
        let others = self.roster.nodes().flat_map(|known| {
            known.durables().iter().map(move |durable| DurableStatus {
                name: durable.name.clone(),
                pattern: durable.pattern.clone(),
                node: known.peer(),
                node_name: known.name().to_owned(),
                live: known.is_live(),
                here: None,
            })
        });
        let own = self.postman.durables().into_iter().map(|durable| DurableStatus {
            here: self.postman.here(&durable.name),
            name: durable.name,
            pattern: durable.pattern,
            node: self.me,
            node_name: self.roster.own_name().to_owned(),
            live: true,
        });
        let mut all: Vec<_> = own.chain(others).collect();
        all.sort_by(|one, other| (&one.name, one.node).cmp(&(&other.name, other.node)));
        self.answer(ticket, Answer::Post(PostAnswer::Durables(all)));
    }

    /// The recipients of a message are those that are known now, whatever becomes known later.
    fn accept(&mut self, ticket: Ticket, mut posting: Posting) {
        let others = self.roster.nodes().flat_map(|known| known.durables().iter().cloned());
        let all = others.chain(self.postman.durables());
        let matching = all.filter(|durable| crate::topic::matches(&durable.pattern, &posting.topic));
        let mut names: BTreeSet<Arc<str>> = matching.map(|durable| durable.name.into()).collect();
        names.extend(std::mem::take(&mut posting.to));
        posting.to = names.into_iter().collect();
        if posting.copies > 0 {
            posting.custodians = self.custodians();
        }
        self.postman.accept(ticket, posting, &mut self.fx);
    }

    /// The nodes that keep copies for others and are there, in the order in which this one turns to them: those that it is linked to
    /// first. Apart from that it is another order for each node, and the same for all of its messages.
    fn custodians(&self) -> Vec<PeerId> {
        let keepers = self.roster.nodes().filter(|known| known.is_seen() && known.record().is_custodian());
        let mut keepers: Vec<PeerId> = keepers.map(Known::peer).collect();
        keepers.sort_by_cached_key(|peer| {
            let mut hasher = blake3::Hasher::new_derive_key("pombo custodian v1");
            let place = *hasher.update(&self.me.to_bytes()).update(&peer.to_bytes()).finalize().as_bytes();
            (!self.links.is_linked(peer), place)
        });
        keepers
    }

    /// Letters of another node are offered by one who keeps them.
    pub(super) fn brought(
        &mut self,
        id: InboundId,
        (to, sender): (&str, NodeKey),
        letters: Vec<Brought>,
        opened: Vec<Option<Wall>>,
        now: Now,
    ) {
        let Some(from) = sender.peer() else { return };
        let letters = letters.into_iter().map(|brought| brought.offered).zip(opened).collect();
        self.postman.offered(id, bring(from, to, letters), now, &mut self.fx);
    }

    /// A name has one pattern in the whole mesh.
    fn hold(
        &mut self,
        ticket: Ticket,
        holder: HolderId,
        (name, pattern, terms): (Arc<str>, Arc<str>, Terms),
        now: Now,
    ) {
        let in_the_way = |known: &Known| {
            let durable = known.durables().iter().find(|durable| *durable.name == *name)?;
            let other = (*durable.pattern != *pattern).then_some(&durable.pattern)?;
            Some(format!("{} has it with the pattern {other}: use another name", known.name()))
        };
        let conflict = self.roster.nodes().find_map(in_the_way);
        match conflict {
            Some(why) => self.answer(ticket, Answer::Post(PostAnswer::Held(why))),
            None => self.postman.hold(ticket, holder, (name, pattern, terms), now, &mut self.fx),
        }
    }

    pub(super) fn stored(&mut self, id: JobId, result: Result<Done, StoreError>, now: Now) {
        let offers = self.postman.stored(id, result, now, &mut self.fx);
        self.carry(offers, now);
    }

    /// What became of letters that were offered to a neighbour.
    pub(super) fn offer_answered(
        &mut self,
        of: (&Address, PeerId),
        result: Result<Checked<Response>, RpcFailure>,
        now: Now,
    ) {
        let result = result.map(|checked| checked.body);
        let answer = match &result {
            Ok(Response::Offered { fates, .. }) if of.0.kept_for.is_none() => Answered::Fates(fates, &[]),
            Ok(Response::Brought { fates, receipts, .. }) if of.0.kept_for.is_some() => {
                Answered::Fates(fates, receipts)
            }
            Err(RpcFailure::NotSent) => Answered::NotSent,
            // No answer to an offer, or none at all: what came of it is asked the next time.
            Ok(_) | Err(RpcFailure::Unknown) => Answered::Unknown,
        };
        self.postman.answered(of, answer, now, &mut self.fx);
    }

    /// What a neighbour says of copies that it was given.
    pub(super) fn deposit_answered(&mut self, at: PeerId, result: Result<Checked<Response>, RpcFailure>, now: Now) {
        let me = NodeKey::of(&self.me);
        let deposited = match result.map(|checked| checked.body) {
            Ok(Response::Kept { sender, kept, known, .. }) if Some(sender) == me => Deposited::Kept(kept, known),
            Ok(_) | Err(RpcFailure::NotSent | RpcFailure::Unknown) => Deposited::Silent,
        };
        self.postman.deposited(at, deposited, now, &mut self.fx);
    }

    /// Says which durable subscriptions this node has.
    pub(super) fn durables_changed(&mut self, now: Now) {
        // There is always room: patterns and services were counted without them.
        let custodian = self.postman.is_custodian();
        let _fit = self.roster.set_durables(self.postman.durables(), custodian, now, &mut self.fx);
        self.post_directory_changed(now);
    }

    pub(super) fn post_settle(&mut self, now: Now) {
        if !self.postman.is_due(now.mono) {
            return;
        }
        let Self { me, roster, links, postman, fx, .. } = self;
        let place = Place { me: *me, roster, links, own: postman.windows() };
        let offers = postman.settle(&place, now, fx);
        self.carry(offers, now);
    }

    pub(super) fn post_directory_changed(&mut self, now: Now) {
        let Self { me, roster, links, postman, .. } = self;
        let own = postman.windows();
        postman.directory_changed(&Place { me: *me, roster, links, own }, now.mono);
    }

    fn carry(&mut self, offers: Offers, now: Now) {
        if let Some(ticket) = offers.held {
            self.durables_changed(now);
            self.announcing.push((self.roster.version(), ticket));
        }
        offers.letters.into_iter().for_each(|parcel| self.send(parcel, now));
        for Deposit { at, turn, letters, asked, released } in offers.deposits {
            let request = Request::Keep { turn, letters, asked, released, extensions: Vec::new() };
            self.fx.ask(at, request, Asked::Keep { at });
        }
        for (to, of) in offers.progress {
            if self.links.is_linked(&to) {
                self.fx.ask(to, Request::Progress { of: of.to_string(), extensions: Vec::new() }, Asked::Told);
            }
        }
        for peer in offers.dials {
            let known = self.roster.get(&peer).filter(|known| known.is_live());
            let addresses = known.map(|known| known.record().addresses.clone()).unwrap_or_default();
            self.links.want_now(peer, addresses, now, &mut self.fx);
        }
    }

    /// Offers letters to a node, or to this one.
    fn send(&mut self, Parcel { to, of, turn, tell, settled, letters }: Parcel, now: Now) {
        let kept_for = of.kept_for.and_then(|(from, _)| Some((from, NodeKey::of(&from)?)));
        if to == self.me {
            // What it keeps was found to be its sender's when it came, and has been on this node's disk since.
            let letters = letters.into_iter().map(|(offered, _)| {
                let expires = checked::open_letter(&offered);
                (offered, expires)
            });
            let (name, letters) = (Arc::clone(&of.name), letters.collect());
            let delivered = match kept_for {
                Some((from, _)) => bring(from, &name, letters),
                None => Delivered { from: to, is_brought: false, name: &name, turn, tell, settled, letters },
            };
            return self.postman.offer_here(of, delivered, now, &mut self.fx);
        }
        let (name, extensions) = (of.name.to_string(), Vec::new());
        let request = match kept_for {
            Some((_, sender)) => {
                let letters = letters.into_iter().map(|(offered, seal)| {
                    let (to, signature) = seal.unwrap_or_default();
                    Brought { offered, to, signature }
                });
                Request::Bring { to: name, sender, letters: letters.collect(), extensions }
            }
            None => {
                let letters = letters.into_iter().map(|(offered, _)| offered).collect();
                Request::Offer { to: name, turn, tell, settled, letters, extensions }
            }
        };
        self.fx.ask(to, request, Asked::Offer { of, to });
    }
}

/// Letters of that node, as another offers them.
fn bring(from: PeerId, name: &str, letters: Vec<(Offered, Option<Wall>)>) -> Delivered<'_> {
    let (turn, settled) = (Turn::default(), Vec::new());
    Delivered { from, is_brought: true, name, turn, tell: false, settled, letters }
}
