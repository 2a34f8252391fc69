//! The mesh: bookkeeping and judgement, as a state machine without IO, clock, randomness or tasks.
//!
//! [`Mesh::handle`] takes an [`Input`] and the time, [`Mesh::poll_output`] yields what has to be done, and
//! [`Mesh::poll_timeout`] says when to come back. The parts know nothing of each other; they meet in this file and the
//! two beside it: [`traffic`] for what is published, [`membership`] for who is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::PeerId;

use self::conduct::Conduct;
use self::effects::{Asked, Effects};
use self::event::{
    Answer, Checked, Command, FoundBy, InboundId, Input, Output, RpcFailure, RpcId, Signed, Ticket, Verdict, Via,
};
use self::heads::Heads;
use self::inbound::Inbound;
use self::inject::{Inject, Word};
use self::lanes::Lanes;
use self::links::Links;
pub(crate) use self::links::Name;
use self::membership::{Draining, Known, Leaving, Settling};
use self::pace::{Acknowledgements, Pace};
use self::postman::{PostCommand, Postman, Snapshot};
use self::requests::Requests;
use self::ring::Ring;
use self::roster::Roster;
use self::routes::Routes;
use self::shards::ShardSet;
use self::subscriptions::Subscriptions;
use self::time::{Mono, Now};
use self::traffic::{Claims, Refused};
use crate::wire::roster::SignedRecord;
use crate::wire::rpc::{Request, Response};
use crate::{Dissemination, Limits};

pub(crate) mod checked;
mod conduct;
pub(crate) mod dispatch;
pub(crate) mod effects;
pub(crate) mod event;
mod heads;
mod inbound;
mod inject;
pub(crate) mod lane;
mod lanes;
mod links;
mod membership;
mod news;
pub(crate) mod outgoing;
mod pace;
mod post;
#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "without a store on disk nothing is restored"))]
pub(crate) mod postman;
pub(crate) mod requests;
mod ring;
mod roster;
pub(crate) mod routes;
mod shards;
#[cfg(test)]
mod sim;
pub(crate) mod status;
pub(crate) mod subscriptions;
pub(crate) mod time;
mod traffic;

/// How many links a short-lived node makes that neither subscribes nor serves: it hands its messages to three neighbours,
/// and learns the rest from any.
const COURIERS: usize = 4;

/// What a mesh is started with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) me: PeerId,
    pub(crate) incarnation: u64,
    pub(crate) name: String,
    pub(crate) relay: bool,
    pub(crate) short_lived: bool,
    /// Somebody looks through this host's registry and says so with [`Input::Looked`].
    pub(crate) looks_local: bool,
    /// Others may be found later than at once: by multicast DNS, or at given addresses.
    pub(crate) looks_further: bool,
    pub(crate) limits: Limits,
    pub(crate) dissemination: Dissemination,
    /// Where pseudo-random choices start from.
    pub(crate) seed: u64,
    pub(crate) now: Now,
}

/// The control plane of one node.
#[derive(Debug)]
pub(crate) struct Mesh {
    me: PeerId,
    incarnation: u64,
    name: String,
    relay: bool,
    short_lived: bool,
    limits: Limits,
    dissemination: Dissemination,
    fx: Effects,

    roster: Roster,
    links: Links,
    lanes: Lanes,
    conduct: Conduct,
    requests: Requests,
    postman: Postman,

    subscriptions: Subscriptions,
    joined: ShardSet,
    inbound: Inbound,
    ring: Ring,
    pace: Pace,
    acknowledgements: Acknowledgements,
    heads: Heads,
    inject: Inject,
    refused: Refused,
    /// When to tell some neighbour where the streams stand that it listens to.
    hearsay_at: Mono,
    claims: Claims,

    settling: Settling,
    /// The linked nodes that have told what they know of the mesh.
    told: BTreeSet<PeerId>,
    /// The linked nodes that told of themselves over the links that stand.
    heard: BTreeSet<PeerId>,
    /// Commands that are answered when the neighbours have this version of our record.
    announcing: Vec<(u64, Ticket)>,
    draining: Option<Draining>,
    leaving: Option<Leaving>,
    left: bool,
    routes_stale: bool,
    /// What was said last of who listens to what.
    routes: Arc<Routes>,
    known: Known,
}

impl Mesh {
    pub(crate) fn new(settings: Settings) -> Self {
        let Settings { me, incarnation, name, relay, short_lived, limits, dissemination, seed, now, .. } = settings;
        let mut fx = Effects::new(seed);
        let hearsay_at = now.mono + fx.jitter(traffic::HEARSAY);
        Self {
            me,
            incarnation,
            name: name.clone(),
            relay,
            short_lived,
            dissemination,
            fx,
            requests: Requests::new(me, &name, &limits),
            roster: Roster::new(me, incarnation, name, relay, !short_lived, limits.roster),
            links: Links::new(me, if short_lived { COURIERS.min(limits.links) } else { limits.links }),
            lanes: Lanes::default(),
            conduct: Conduct::default(),
            postman: Postman::new(me, incarnation, &limits),
            subscriptions: Subscriptions::default(),
            joined: ShardSet::default(),
            inbound: Inbound::new(limits.streams, limits.held),
            ring: Ring::new(limits.ring),
            pace: Pace::default(),
            acknowledgements: Acknowledgements::default(),
            heads: Heads::default(),
            inject: Inject::default(),
            refused: Refused::default(),
            hearsay_at,
            claims: Claims::default(),
            settling: Settling::new(settings.looks_local, settings.looks_further, now.mono),
            told: BTreeSet::new(),
            heard: BTreeSet::new(),
            announcing: Vec::new(),
            draining: None,
            leaving: None,
            left: false,
            routes_stale: true,
            routes: Arc::default(),
            known: Known::default(),
            limits,
        }
    }

    /// Takes what an earlier start knew. Those nodes may be there still; they are looked for, and not counted on.
    pub(crate) fn remember(&mut self, records: Vec<SignedRecord>, now: Now) {
        for record in &records {
            let addresses = record.record.addresses.clone();
            self.links.seen(Some(record.node), addresses, FoundBy::Roster, now);
        }
        self.links.settle(&mut self.fx);
        self.roster.remember(records, now);
    }

    /// Takes what an earlier start had in its store, or why there is none.
    pub(crate) fn open_store(&mut self, store: Result<Snapshot, String>, now: Now) {
        match store {
            Ok(snapshot) => self.postman.restore(snapshot, now, &mut self.fx),
            Err(why) => self.postman.without_store(why),
        }
        self.durables_changed(now);
    }

    /// Looks a name up from now on, and for the nodes that it leads to.
    pub(crate) fn look_up(&mut self, name: Name, now: Now) {
        self.links.look_up(name, now);
        self.links.settle(&mut self.fx);
    }

    /// What a later start should know: the signed records of those who are there.
    pub(crate) fn to_remember(&self) -> Vec<Bytes> {
        self.roster.to_save()
    }

    /// What has to be done, in order.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.fx.pop()
    }

    /// When [`Input::Timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Mono> {
        self.timers().into_iter().flatten().min()
    }

    /// When each part wants to be woken.
    fn timers(&self) -> [Option<Mono>; 13] {
        [
            self.roster.next_timeout(),
            self.links.next_timeout(),
            self.requests.next_timeout(),
            self.inbound.next_timeout(),
            self.pace.next_timeout(),
            self.acknowledgements.next_timeout(),
            self.heads.next_timeout(),
            self.inject.next_timeout(),
            self.refused.next_timeout(),
            self.settling.next_timeout(),
            self.leaving.as_ref().and_then(Leaving::next_timeout),
            self.postman.next_timeout(),
            Some(self.hearsay_at),
        ]
    }

    /// Whether the goodbye has been said.
    pub(crate) fn has_left(&self) -> bool {
        self.left
    }

    /// Tells the mesh that something happened.
    pub(crate) fn handle(&mut self, input: Input, now: Now) {
        #[cfg(test)]
        let is_timeout = matches!(input, Input::Timeout);
        match input {
            Input::Command(ticket, command) => self.command(ticket, command, now),
            Input::Abandoned(ticket) => self.abandoned(ticket, now),
            Input::Listening(addresses) => self.listening(addresses, now),
            Input::Seen { peer, addresses, by } => self.links.seen(peer, addresses, by, now),
            Input::Flooded => self.links.flooded(now),
            Input::Resolved { name, ips } => self.links.resolved(name, ips, now, &mut self.fx),
            Input::Looked => self.settling.looked(),
            Input::Connected { peer, address, links } => self.connected(peer, address, links, now),
            Input::Disconnected { peer, links } => self.disconnected(peer, links, now),
            Input::DialFailed { peer, addresses, why } => self.dial_failed(peer, addresses, why, now),
            Input::Silent { peer } => self.links.silent(peer, now, &mut self.fx),
            Input::RoundTrip { peer, time } => self.links.round_trip(&peer, time),
            Input::Frame { frame, via: via @ (Via::Own | Via::OwnOverLanes) } => {
                if !self.short_lived {
                    self.publishes_to(frame.stream.shard(), now);
                }
                self.published(frame, via, now);
            }
            Input::Frame { frame, via: Via::Lane { lane, since } } => self.lane_frame(&frame, lane, since, now),
            Input::Frame { frame, via: Via::Gossip { from, gossip } } => self.gossip(&frame, from, gossip, now),
            Input::BadGossip { from, gossip, may_be_sound } => {
                let verdict = if may_be_sound { Verdict::Ignore } else { Verdict::Reject };
                self.fx.push(Output::Judge { from, gossip, verdict });
                self.offended(from, u32::from(!may_be_sound), now);
            }
            Input::Offended { peer, count } => self.offended(peer, count, now),
            Input::Slow { peer } => self.slow(peer, now),
            Input::GossipRefused { frame } => self.refused.put(frame, now.mono),
            Input::Signed(signed) => self.signed(signed, now),
            Input::Request { from, id, request } => self.request(from, id, request, now),
            Input::Replied { id } => self.requests.replied(id),
            Input::Response { id, result } => self.response(id, result, now),
            Input::LaneUp { peer, lane } => self.lane_up(peer, lane),
            Input::LaneBegun { peer, lane } => self.lane_begun(peer, lane),
            Input::LaneDown { lane } => self.lane_down(lane),
            Input::Marked { from, mark } => self.marked(from, &mark, now),
            Input::Behind { subscriber } => self.behind(subscriber),
            Input::Progress { subscriber, weight, caught_up } => self.progress(subscriber, weight, caught_up),
            Input::Stored { id, result } => self.stored(id, result, now),
            Input::Timeout => self.timeout(now),
        }
        self.settle(now);
        // The simulator wakes exactly on time, so what is due still would be due for ever, and the driver would spin.
        #[cfg(test)]
        assert!(!is_timeout || self.poll_timeout().is_none_or(|at| at > now.mono), "overdue: {:?}", self.timers());
    }

    fn command(&mut self, ticket: Ticket, command: Command, now: Now) {
        let is_new = match &command {
            Command::Subscribe { .. } | Command::Serve { .. } | Command::Request(_) => true,
            Command::Post(command) => matches!(command, PostCommand::Accept(_) | PostCommand::Hold { .. }),
            Command::Unsubscribe { .. }
            | Command::Unserve { .. }
            | Command::Withdraw { .. }
            | Command::Providers { .. }
            | Command::Reply { .. }
            | Command::Status
            | Command::Confirm { .. }
            | Command::Settle
            | Command::Drain
            | Command::Leave => false,
        };
        if is_new && self.draining.is_some() {
            return self.answer(ticket, Answer::Draining);
        }
        match command {
            Command::Subscribe { subscriber, patterns, group } => {
                self.subscribe(ticket, subscriber, patterns, group, now);
            }
            Command::Unsubscribe { subscriber } => self.unsubscribe(subscriber, now),
            Command::Serve { provider, service, room } => match self.requests.serve(provider, service, room) {
                Ok(()) => self.services_changed(Some(ticket), now),
                Err(requests::TooMany { limit }) => self.answer(ticket, Answer::TooMany { limit }),
            },
            Command::Unserve { provider } => {
                let Self { requests, roster, links, settling, fx, .. } = self;
                requests.unserve(provider, &membership::Directory { roster, links, settling }, now.mono, fx);
                self.services_changed(None, now);
            }
            Command::Withdraw { provider } => {
                self.requests.withdraw(provider);
                self.services_changed(None, now);
            }
            Command::Request(ask) => {
                let Self { requests, roster, links, settling, fx, .. } = self;
                requests.ask(ticket, ask, &membership::Directory { roster, links, settling }, now.mono, fx);
            }
            Command::Providers { service } => {
                let Self { requests, roster, links, settling, fx, .. } = self;
                let directory = membership::Directory { roster, links, settling };
                let providers = requests.providers(&service, &directory, fx);
                self.answer(ticket, Answer::Providers(providers));
            }
            Command::Reply { call, reply } => {
                let Self { requests, roster, links, settling, fx, .. } = self;
                requests.reply(call, reply, &membership::Directory { roster, links, settling }, now.mono, fx);
            }
            Command::Post(command) => self.post_command(ticket, command, now),
            Command::Status => {
                let status = Box::new(self.status());
                self.answer(ticket, Answer::Status(status));
            }
            Command::Confirm { shard, sequence } => self.inject.confirm(ticket, shard, sequence, &mut self.fx),
            Command::Settle => self.settling.wait(ticket),
            Command::Drain => self.drain(ticket, now),
            Command::Leave => self.leave(ticket, now),
        }
    }

    fn abandoned(&mut self, ticket: Ticket, now: Now) {
        let Self { requests, roster, links, settling, fx, .. } = self;
        requests.abandoned(ticket, &membership::Directory { roster, links, settling }, now.mono, fx);
        self.inject.abandoned(ticket);
        self.postman.abandoned(ticket);
        self.settling.abandoned(ticket);
        self.draining.iter_mut().for_each(|draining| draining.abandoned(ticket));
        self.announcing.retain(|(_, waiting)| *waiting != ticket);
    }

    fn signed(&mut self, signed: Signed, now: Now) {
        match signed {
            Signed::Head(frame) | Signed::Again(frame) => self.fx.push(Output::Gossip { frame }),
            Signed::Record(record) => self.roster.signed(*record, now, &mut self.fx),
            Signed::Letter { number, signature } => self.postman.letter_signed(number, signature),
            Signed::Receipts { reply, fates, receipts } => {
                self.postman.receipts_signed(reply, (fates, receipts), now, &mut self.fx);
            }
        }
    }

    fn request(&mut self, from: PeerId, id: InboundId, request: Checked<Request>, now: Now) {
        let Checked { body, frames, records, forged, letters: opened, entrusted } = request;
        self.offended(from, forged, now);
        match body {
            Request::Call(call) => {
                // The first call is an exchange of its own, and whoever asks once may well ask again.
                self.want_lane(from, now);
                self.requests.on_call(from, id, call, now.mono, &mut self.fx);
            }
            Request::Cancel { call, .. } => self.requests.on_cancel(from, id, call, &mut self.fx),
            Request::Inject { .. } => {
                frames.iter().for_each(|frame| self.publishes_to(frame.stream.shard(), now));
                self.injected(from, id, &frames, now);
            }
            Request::Repair { stream, from: first, to, .. } => self.repair(from, id, stream, first, to),
            Request::Acknowledge { positions, .. } => self.acknowledged(from, id, &positions, now),
            Request::Heads { positions, .. } => self.claimed(from, id, &positions, now),
            Request::Push { .. } => self.pushed(from, id, records, now),
            Request::Digest { buckets, .. } => {
                let response = self.roster.on_digest(&buckets);
                self.fx.reply(id, response);
            }
            Request::Fetch { nodes, .. } => {
                let response = self.roster.on_fetch(&nodes);
                self.fx.reply(id, response);
            }
            Request::Offer { to, turn, tell, settled, letters, .. } => {
                let letters = letters.into_iter().zip(opened).collect();
                let delivered = postman::Delivered { from, is_brought: false, name: &to, turn, tell, settled, letters };
                self.postman.offered(id, delivered, now, &mut self.fx);
            }
            Request::Bring { to, sender, letters, .. } => self.brought(id, (&to, sender), letters, opened, now),
            Request::Keep { turn, letters, asked, released, .. } => {
                let letters = letters.into_iter().zip(entrusted).collect();
                let keeping = postman::Keeping { to: id, from, turn, letters, asked, released };
                self.postman.keep(keeping, now, &mut self.fx);
            }
            Request::Progress { of, .. } => {
                self.postman.progress(&of, from, now.mono);
                self.fx.reply(id, Response::done());
            }
            Request::Where { id: message, .. } => {
                let known = self.postman.whereabouts(message);
                self.fx.reply(id, Response::Known { known, extensions: Vec::new() });
            }
        }
    }

    fn response(&mut self, id: RpcId, result: Result<Checked<Response>, RpcFailure>, now: Now) {
        let Some(asked) = self.fx.answered(id) else { return };
        match asked {
            Asked::Call { ticket, call } => {
                let result = result.map(|checked| checked.body);
                let Self { requests, roster, links, settling, fx, .. } = self;
                let directory = membership::Directory { roster, links, settling };
                requests.on_response((ticket, call), result, &directory, now.mono, fx);
            }
            Asked::Repair { stream, .. } => self.repaired(stream, result, now),
            Asked::Push { .. } | Asked::Digest { .. } | Asked::Fetch { .. } => {
                let changes = self.roster.on_response(id, &asked, result, now, &mut self.fx);
                self.roster_changed(changes, now);
                if let Asked::Digest { peer } | Asked::Fetch { peer } = asked {
                    self.compared(peer, now);
                }
            }
            Asked::Inject { batch } => {
                let word = match result.map(|checked| checked.body) {
                    Ok(Response::Injected { taken, listeners, .. }) => Word::Took { frames: taken, listeners },
                    Err(RpcFailure::NotSent) => Word::HasNot,
                    Ok(_) | Err(RpcFailure::Unknown) => Word::Silent,
                };
                let couriers = self.couriers();
                self.inject.answered(batch, word, &couriers, &mut self.fx);
            }
            Asked::Where { ticket } => self.known_there(ticket, result),
            Asked::Offer { of, to } => self.offer_answered((&of, to), result, now),
            Asked::Keep { at } => self.deposit_answered(at, result, now),
            Asked::LastHeads => self.last_heads_answered(),
            Asked::Told => {}
        }
    }

    fn timeout(&mut self, now: Now) {
        self.links.on_timeout(now, &mut self.fx);
        let changes = self.roster.on_timeout(now, &mut self.fx);
        self.roster_changed(changes, now);
        let Self { requests, roster, links, settling, fx, .. } = self;
        requests.on_timeout(&membership::Directory { roster, links, settling }, now.mono, fx);
        self.pace.on_timeout(now.mono, &mut self.fx);
        self.inject.on_timeout(now.mono, &mut self.fx);
        self.traffic_timeout(now);
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.fx.push(Output::Answer { ticket, answer });
    }
}
