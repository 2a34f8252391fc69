//! Requests: a service is called by name, and somebody in the mesh who serves it answers.
//!
//! Two halves that know nothing of each other: the [`asker`] picks providers for the requests of this node, the
//! [`provider`] hands the calls of others to local handlers. This file joins them, since a node may well ask for what
//! it serves itself, under the same rules and without a network.
//!
//! Who serves what, and who is linked, is the business of other parts, seen here through a [`Directory`]. Nothing here
//! dials, reads a clock or waits; what has to be done leaves as [`Output`](super::event::Output), or as a wish in
//! [`Requests::take_dials`].
//!
//! How a request ends:
//!
//! | heard from the provider | what follows |
//! |---|---|
//! | `Ok`, `Refused`, `Denied` | that reply is the answer |
//! | `Busy`, `NoService`, certainly not sent, no link | the next provider; each is asked once at most |
//! | `Unanswered`, possibly sent, the link broke, an answer to something else | `Unknown`: it may have run, so it is never sent again |
//! | nothing until the deadline | `Unknown`, and a cancel to the provider |

use std::collections::BTreeSet;
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::effects::Effects;
use super::event::{Ask, CallId, InboundId, NodeName, ProviderId, RpcFailure, Ticket};
use super::time::{Mono, Span};
use crate::Limits;
use crate::wire::rpc::{Call, Reply, Response};
pub(crate) use asker::IN_FLIGHT;
use asker::{Asker, OwnCall};
pub(crate) use provider::TooMany;
use provider::{Caller, OwnReply, Provider, ReplyTo};

mod asker;
mod provider;
#[cfg(test)]
mod tests;

/// The longest that a request may take, on either side.
pub(crate) const MAX_TIMEOUT: Span = Span::secs(24 * 60 * 60);

/// What other parts of the mesh know, and requests depend on.
pub(crate) trait Directory {
    /// The live nodes that serve it, without this one.
    fn providers(&self, service: &str) -> Vec<PeerId>;
    /// The live nodes of that name, or of that id.
    fn find(&self, name: &NodeName) -> Vec<PeerId>;
    /// Whether a live node serves it.
    fn serves(&self, peer: PeerId, service: &str) -> bool;
    fn is_linked(&self, peer: PeerId) -> bool;
    fn round_trip(&self, peer: PeerId) -> Option<Span>;
    /// Whether the roster is known to be whole, so that who is not in it is not there.
    fn settled(&self) -> bool;
}

/// The directory with this node in it, as served by itself over a link that takes no time.
struct WithMe<'a> {
    me: PeerId,
    name: &'a str,
    provider: &'a Provider,
    others: &'a dyn Directory,
}

impl Directory for WithMe<'_> {
    fn providers(&self, service: &str) -> Vec<PeerId> {
        let mut providers = self.others.providers(service);
        if self.provider.serves(service) {
            providers.push(self.me);
        }
        providers
    }

    fn find(&self, name: &NodeName) -> Vec<PeerId> {
        let mut found = self.others.find(name);
        let is_me = match name {
            NodeName::Peer(peer) => *peer == self.me,
            NodeName::Name(name) => name == self.name,
        };
        found.extend(is_me.then_some(self.me));
        found
    }

    fn serves(&self, peer: PeerId, service: &str) -> bool {
        if peer == self.me { self.provider.serves(service) } else { self.others.serves(peer, service) }
    }

    fn is_linked(&self, peer: PeerId) -> bool {
        peer == self.me || self.others.is_linked(peer)
    }

    fn round_trip(&self, peer: PeerId) -> Option<Span> {
        if peer == self.me { Some(Span(0)) } else { self.others.round_trip(peer) }
    }

    fn settled(&self) -> bool {
        self.others.settled()
    }
}

/// Every request and call that is open on this node.
#[derive(Debug)]
pub(crate) struct Requests {
    me: PeerId,
    name: String,
    asker: Asker,
    provider: Provider,
}

impl Requests {
    pub(crate) fn new(me: PeerId, name: &str, limits: &Limits) -> Self {
        Self {
            me,
            name: name.to_owned(),
            asker: Asker::new(me, limits.requests),
            provider: Provider::new(limits.services),
        }
    }

    /// How many requests of this node are open.
    pub(crate) fn open(&self) -> usize {
        self.asker.open()
    }

    /// How many calls are open at this node's handlers.
    pub(crate) fn calls(&self) -> usize {
        self.provider.open()
    }

    /// A caller asks. The answer goes to `ticket`, exactly once, unless it is [`abandoned`](Self::abandoned).
    pub(crate) fn ask(&mut self, ticket: Ticket, ask: Ask, directory: &dyn Directory, now: Mono, fx: &mut Effects) {
        let with_me = WithMe { me: self.me, name: &self.name, provider: &self.provider, others: directory };
        self.asker.ask(ticket, ask, &with_me, now, fx);
        self.settle(directory, now, fx);
    }

    /// The live nodes that serve it, this one too, those first that a request would go to first.
    pub(crate) fn providers(&self, service: &str, directory: &dyn Directory, fx: &mut Effects) -> Vec<PeerId> {
        let with_me = WithMe { me: self.me, name: &self.name, provider: &self.provider, others: directory };
        self.asker.providers(service, &with_me, fx)
    }

    /// The caller has gone. A ticket that has no request open is none of ours.
    pub(crate) fn abandoned(&mut self, ticket: Ticket, directory: &dyn Directory, now: Mono, fx: &mut Effects) {
        self.asker.abandoned(ticket, fx);
        self.settle(directory, now, fx);
    }

    /// The answer to what was sent as [`Asked::Call`](super::effects::Asked::Call).
    pub(crate) fn on_response(
        &mut self,
        (ticket, call): (Ticket, u64),
        result: Result<Response, RpcFailure>,
        directory: &dyn Directory,
        now: Mono,
        fx: &mut Effects,
    ) {
        let with_me = WithMe { me: self.me, name: &self.name, provider: &self.provider, others: directory };
        self.asker.on_response((ticket, call), result, &with_me, now, fx);
        self.settle(directory, now, fx);
    }

    /// There is a link to this peer, the first one.
    pub(crate) fn linked(&mut self, peer: PeerId, now: Mono, fx: &mut Effects) {
        self.asker.linked(peer, now, fx);
    }

    /// The last link to this peer is gone.
    pub(crate) fn unlinked(&mut self, peer: PeerId, fx: &mut Effects) {
        self.asker.unlinked(peer, fx);
        self.provider.unlinked(peer, fx);
    }

    /// A wish of [`take_dials`](Self::take_dials) cannot be fulfilled.
    pub(crate) fn unreachable(&mut self, peer: PeerId, directory: &dyn Directory, now: Mono, fx: &mut Effects) {
        let with_me = WithMe { me: self.me, name: &self.name, provider: &self.provider, others: directory };
        self.asker.unreachable(peer, &with_me, now, fx);
        self.settle(directory, now, fx);
    }

    /// The directory would answer differently now: somebody came or went, serves more or less, or it settled. Looks at
    /// every request that was not sent yet, so once for many changes is better than once for each.
    pub(crate) fn directory_changed(&mut self, directory: &dyn Directory, now: Mono, fx: &mut Effects) {
        let with_me = WithMe { me: self.me, name: &self.name, provider: &self.provider, others: directory };
        self.asker.directory_changed(&with_me, now, fx);
        self.settle(directory, now, fx);
    }

    /// The peers that requests wait for a link to, each told once. [`linked`](Self::linked) or
    /// [`unreachable`](Self::unreachable) has to follow.
    pub(crate) fn take_dials(&mut self) -> BTreeSet<PeerId> {
        self.asker.take_dials()
    }

    /// A provider appears on this node, with room for so many calls at once.
    pub(crate) fn serve(&mut self, provider: ProviderId, service: Arc<str>, room: u32) -> Result<(), TooMany> {
        self.provider.serve(provider, service, room)
    }

    /// A provider goes. Its open calls are answered: they began, and nothing came of them.
    pub(crate) fn unserve(&mut self, provider: ProviderId, directory: &dyn Directory, now: Mono, fx: &mut Effects) {
        self.provider.unserve(provider, fx);
        self.settle(directory, now, fx);
    }

    /// This provider gets no more calls. Those that it is at stay open.
    pub(crate) fn withdraw(&mut self, provider: ProviderId) {
        self.provider.withdraw(provider);
    }

    /// From now on this node serves nothing. Calls that are open stay so.
    pub(crate) fn drain(&mut self) {
        self.provider.drain();
    }

    /// Whether no request of this node is open, and no call of others that somebody waits for, and all replies are with
    /// those who asked.
    pub(crate) fn are_finished(&self) -> bool {
        self.asker.open() == 0 && self.provider.is_finished()
    }

    /// What this node serves: sorted, each name once.
    pub(crate) fn services(&self) -> Vec<String> {
        self.provider.services()
    }

    /// Another node calls.
    pub(crate) fn on_call(&mut self, from: PeerId, inbound: InboundId, call: Call, now: Mono, fx: &mut Effects) {
        let caller = Caller { peer: from, number: call.call, reply_to: ReplyTo::Peer(inbound) };
        self.provider.on_call(caller, call, now, fx);
    }

    /// Another node does not wait for this call any more. A cancel that overtook its call finds nothing to stop, and
    /// the call then runs until its deadline.
    pub(crate) fn on_cancel(&mut self, from: PeerId, inbound: InboundId, call: u64, fx: &mut Effects) {
        self.provider.on_cancel(from, call, fx);
        fx.reply(inbound, Response::done());
    }

    /// The answer to an exchange that another node began is on the wire, or lost.
    pub(crate) fn replied(&mut self, inbound: InboundId) {
        self.provider.replied(inbound);
    }

    /// A handler is done with a call.
    pub(crate) fn reply(&mut self, call: CallId, reply: Reply, directory: &dyn Directory, now: Mono, fx: &mut Effects) {
        self.provider.reply(call, reply, fx);
        self.settle(directory, now, fx);
    }

    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        [self.asker.next_timeout(), self.provider.next_timeout()].into_iter().flatten().min()
    }

    pub(crate) fn on_timeout(&mut self, directory: &dyn Directory, now: Mono, fx: &mut Effects) {
        self.asker.on_timeout(now, fx);
        self.provider.on_timeout(now, fx);
        self.settle(directory, now, fx);
    }

    /// Carries what the two halves have for each other. It ends, since every answer ends a request or uses up one of
    /// its providers.
    fn settle(&mut self, directory: &dyn Directory, now: Mono, fx: &mut Effects) {
        loop {
            if let Some(call) = self.asker.next_own() {
                match call {
                    OwnCall::Call { ticket, call } => {
                        let caller = Caller { peer: self.me, number: call.call, reply_to: ReplyTo::Own(ticket) };
                        self.provider.on_call(caller, call, now, fx);
                    }
                    OwnCall::Cancel { call } => self.provider.on_cancel(self.me, call, fx),
                }
            } else if let Some(OwnReply { ticket, number, reply }) = self.provider.next_own() {
                let with_me = WithMe { me: self.me, name: &self.name, provider: &self.provider, others: directory };
                self.asker.on_response((ticket, number), Ok(Response::Reply(reply)), &with_me, now, fx);
            } else {
                return;
            }
        }
    }

    /// Whether no table holds anything but the providers.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.asker.is_idle() && self.provider.is_idle()
    }
}
