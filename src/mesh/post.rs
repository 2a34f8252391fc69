//! Where the postman meets the others: who holds what, whom to link to, and what is said over the links.

use std::collections::BTreeSet;
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::effects::Asked;
use super::event::{Answer, Checked, HolderId, JobId, RpcFailure, Ticket};
use super::links::Links;
use super::postman::store::{Done, StoreError};
use super::postman::{self, DurableStatus, Offers, PostAnswer, PostCommand, Posting};
use super::roster::{Known, Roster};
use super::time::Now;
use super::{Mesh, checked};
use crate::wire::rpc::{Request, Response};

/// What the postman wants to know of the others.
struct Holders<'a> {
    me: PeerId,
    roster: &'a Roster,
    links: &'a Links,
    own: BTreeSet<Arc<str>>,
}

impl postman::Directory for Holders<'_> {
    fn holder(&self, name: &str) -> Option<PeerId> {
        if self.own.contains(name) {
            return Some(self.me);
        }
        let holds = |known: &&Known| known.durables().iter().any(|durable| durable.name == name);
        let holders = self.roster.live().filter(holds).map(Known::peer);
        // One that is linked first. Otherwise always the same, so that what it has already is not given to another.
        holders.min_by_key(|peer| (!self.links.is_linked(peer), *peer))
    }

    fn is_live(&self, peer: PeerId) -> bool {
        peer == self.me || self.roster.get(&peer).is_some_and(Known::is_live)
    }

    fn is_linked(&self, peer: PeerId) -> bool {
        peer == self.me || self.links.is_linked(&peer)
    }
}

impl Mesh {
    pub(super) fn post_command(&mut self, ticket: Ticket, command: PostCommand, now: Now) {
        match command {
            PostCommand::Accept(posting) => self.accept(ticket, posting),
            PostCommand::Hold { holder, name, pattern } => self.hold(ticket, holder, (name, pattern), now),
            PostCommand::Release { holder } => self.postman.release(holder),
            PostCommand::Remove { name } => {
                if self.postman.remove(ticket, &name, &mut self.fx) {
                    self.durables_changed(now);
                }
            }
            PostCommand::Acknowledge { number } => self.postman.acknowledge(ticket, number, &mut self.fx),
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
        }
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
        self.postman.accept(ticket, posting, &mut self.fx);
    }

    /// A name has one pattern in the whole mesh, and in this version one node that holds it at a time.
    fn hold(&mut self, ticket: Ticket, holder: HolderId, (name, pattern): (Arc<str>, Arc<str>), now: Now) {
        let in_the_way = |known: &Known| {
            let durable = known.durables().iter().find(|durable| *durable.name == *name)?;
            if *durable.pattern != *pattern {
                return Some(format!("{} has it with the pattern {}: use another name", known.name(), durable.pattern));
            }
            known.is_live().then(|| format!("{} holds it: one node at a time can", known.name()))
        };
        let conflict = self.roster.nodes().find_map(in_the_way);
        match conflict {
            Some(why) => self.answer(ticket, Answer::Post(PostAnswer::Held(why))),
            None => self.postman.hold(ticket, holder, (name, pattern), now, &mut self.fx),
        }
    }

    pub(super) fn stored(&mut self, id: JobId, result: Result<Done, StoreError>, now: Now) {
        let offers = self.postman.stored(id, result, now, &mut self.fx);
        self.carry(offers, now);
    }

    /// What became of letters that were offered to a neighbour.
    pub(super) fn offer_answered(&mut self, name: &Arc<str>, result: Result<Checked<Response>, RpcFailure>, now: Now) {
        let fates = match result.map(|checked| checked.body) {
            Ok(Response::Offered { fates, .. }) => Some(fates),
            // No answer to an offer, or none at all: what came of it is asked the next time.
            Ok(_) | Err(RpcFailure::NotSent | RpcFailure::Unknown) => None,
        };
        self.postman.answered(name, fates.as_deref(), now, &mut self.fx);
    }

    /// Says which durable subscriptions this node has.
    pub(super) fn durables_changed(&mut self, now: Now) {
        // There is always room: patterns and services were counted without them.
        let _fit = self.roster.set_durables(self.postman.durables(), now, &mut self.fx);
    }

    pub(super) fn post_settle(&mut self, now: Now) {
        if !self.postman.is_due(now.mono) {
            return;
        }
        let Self { me, roster, links, postman, fx, .. } = self;
        let holders = Holders { me: *me, roster, links, own: postman.names() };
        let offers = postman.settle(&holders, now, fx);
        self.carry(offers, now);
    }

    pub(super) fn post_directory_changed(&mut self, now: Now) {
        let Self { me, roster, links, postman, .. } = self;
        let own = postman.names();
        postman.directory_changed(&Holders { me: *me, roster, links, own }, now.mono);
    }

    fn carry(&mut self, offers: Offers, now: Now) {
        if let Some(ticket) = offers.held {
            self.durables_changed(now);
            self.announcing.push((self.roster.version(), ticket));
        }
        for (to, name, letters) in offers.letters {
            if to == self.me {
                let opened = checked::open_letters(&letters);
                let letters = letters.into_iter().zip(opened).collect();
                self.postman.offer_here(name, letters, now, &mut self.fx);
                continue;
            }
            let request = Request::Offer { to: name.to_string(), letters, extensions: Vec::new() };
            self.fx.ask(to, request, Asked::Offer { name });
        }
        for peer in offers.dials {
            let known = self.roster.get(&peer).filter(|known| known.is_live());
            let addresses = known.map(|known| known.record().addresses.clone()).unwrap_or_default();
            self.links.want_now(peer, addresses, now, &mut self.fx);
        }
    }
}
