//! The asker's side: which request of this node is open, where it stands, and whom to ask next.
//!
//! A request is in one [`Stage`] at any time. It goes to another provider only while it certainly has not run: nothing
//! here sends a second time what may have reached a handler. This file neither dials nor keeps a list of providers; it
//! wishes for links, and looks into the [`Directory`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use libp2p_identity::PeerId;

use super::{Directory, MAX_TIMEOUT};
use crate::mesh::effects::{Asked, Effects};
use crate::mesh::event::{Answer, Ask, AskFailure, Output, RpcFailure, Ticket};
use crate::mesh::time::{Mono, Span};
use crate::wire::rpc::{Call, Reply, ReplyStatus, Request, Response};

/// The most calls that travel to one provider at once. A connection admits as many the other way, and some more for
/// everything else: beyond its limit the other side drops what comes.
pub(crate) const IN_FLIGHT: usize = 1024;

/// The requests of this node that have no answer yet.
#[derive(Debug)]
pub(super) struct Asker {
    me: PeerId,
    limit: usize,
    /// Boxed, since they are large and come and go: a tree moves its values.
    open: BTreeMap<Ticket, Box<OpenRequest>>,
    // Indices over `open`. Only `enter`, `ask` and `close` write them.
    deadlines: BTreeSet<(Mono, Ticket)>,
    waiting: BTreeSet<Ticket>,
    queues: BTreeMap<PeerId, Queue>,
    dials: BTreeSet<PeerId>,
    /// Calls whose exchange with a provider is not over, also those that nobody waits for any more.
    flying: BTreeMap<u64, PeerId>,
    /// How many of them there are with each.
    flights: BTreeMap<PeerId, usize>,
    own: VecDeque<OwnCall>,
    next_call: u64,
}

#[derive(Debug)]
struct OpenRequest {
    ask: Ask,
    deadline: Mono,
    stage: Stage,
    /// Providers at which it certainly did not run. None is asked twice.
    tried: BTreeSet<PeerId>,
    /// The worst that was heard from those.
    setback: Option<Setback>,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Nobody is known who could be asked.
    Waiting,
    /// For a link to this provider. Nothing was sent.
    Parked(PeerId),
    /// For its turn at this provider, which is linked and has as many calls as may travel. Nothing was sent.
    Queued(PeerId),
    /// For an answer to this call.
    Sent { to: PeerId, call: u64 },
}

/// Why a request did not run at a provider; later ones weigh more in the final verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Setback {
    NoService,
    Busy,
    Unreachable,
}

/// The requests that stand with one provider.
#[derive(Debug, Default)]
struct Queue {
    parked: BTreeSet<Ticket>,
    /// Tickets rise, so the first is the oldest.
    queued: BTreeSet<Ticket>,
    sent: BTreeSet<Ticket>,
}

/// What this node says to its own providers, which no network carries.
#[derive(Debug)]
pub(super) enum OwnCall {
    Call { ticket: Ticket, call: Call },
    Cancel { call: u64 },
}

/// What a response says about a request.
enum Heard {
    Answer(Reply),
    MayHaveRun,
    DidNotRun(Setback),
}

impl Asker {
    pub(super) fn new(me: PeerId, limit: usize) -> Self {
        Self {
            me,
            limit,
            open: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            waiting: BTreeSet::new(),
            queues: BTreeMap::new(),
            dials: BTreeSet::new(),
            flying: BTreeMap::new(),
            flights: BTreeMap::new(),
            own: VecDeque::new(),
            // A restarted node counts from 0 again. At worst its cancel also stops a call of its former life, which
            // nobody waits for.
            next_call: 0,
        }
    }

    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    pub(super) fn ask(&mut self, ticket: Ticket, ask: Ask, directory: &dyn Directory, now: Mono, fx: &mut Effects) {
        if self.open.len() >= self.limit {
            let failure = AskFailure::TooMany { limit: self.limit };
            return fx.push(Output::Answer { ticket, answer: Answer::Failed(failure) });
        }
        let deadline = now + ask.timeout.min(MAX_TIMEOUT);
        let request = OpenRequest { ask, deadline, stage: Stage::Waiting, tried: BTreeSet::new(), setback: None };
        self.open.insert(ticket, Box::new(request));
        self.deadlines.insert((deadline, ticket));
        self.place(ticket, directory, now, fx);
    }

    pub(super) fn abandoned(&mut self, ticket: Ticket, fx: &mut Effects) {
        if let Some(request) = self.close(ticket) {
            self.cancel(request.stage, fx);
        }
    }

    /// `call` is the number that the answered attempt had: an answer to any other attempt than the present one is late.
    pub(super) fn on_response(
        &mut self,
        (ticket, call): (Ticket, u64),
        result: Result<Response, RpcFailure>,
        directory: &dyn Directory,
        now: Mono,
        fx: &mut Effects,
    ) {
        let landed = self.land(call);
        let from = self.sent_to(ticket, call);
        match (judge(result), from) {
            // Nobody waits for it any more.
            (Heard::Answer(_) | Heard::MayHaveRun | Heard::DidNotRun(_), None) => {}
            (Heard::Answer(reply), Some(from)) => self.answer(ticket, Answer::Reply { from, reply }, fx),
            (Heard::MayHaveRun, Some(_)) => self.answer(ticket, Answer::Failed(AskFailure::Unknown), fx),
            (Heard::DidNotRun(setback), Some(from)) => {
                self.set_back(ticket, from, setback);
                self.place(ticket, directory, now, fx);
            }
        }
        if let Some(peer) = landed {
            self.send_queued(peer, now, fx);
        }
    }

    pub(super) fn linked(&mut self, peer: PeerId, now: Mono, fx: &mut Effects) {
        for ticket in self.parked_at(peer) {
            self.send(ticket, peer, now, fx);
        }
    }

    pub(super) fn unreachable(&mut self, peer: PeerId, directory: &dyn Directory, now: Mono, fx: &mut Effects) {
        for ticket in self.parked_at(peer) {
            self.set_back(ticket, peer, Setback::Unreachable);
            self.place(ticket, directory, now, fx);
        }
    }

    /// The driver fails what is open at a peer whose last connection closed. Callers need not wait until it gets there.
    pub(super) fn unlinked(&mut self, peer: PeerId, fx: &mut Effects) {
        // Nothing travels over the next link yet.
        self.flying.retain(|_, to| *to != peer);
        self.flights.remove(&peer);
        let Some(queue) = self.queues.get(&peer) else { return };
        let (sent, queued) = (queue.sent.clone(), queue.queued.clone());
        for ticket in sent {
            self.answer(ticket, Answer::Failed(AskFailure::Unknown), fx);
        }
        for ticket in queued {
            self.enter(ticket, Stage::Parked(peer));
        }
    }

    /// Looks again at all requests of which nothing was sent.
    pub(super) fn directory_changed(&mut self, directory: &dyn Directory, now: Mono, fx: &mut Effects) {
        let unsent = self.queues.iter().flat_map(|(peer, queue)| queue.unsent().map(|ticket| (ticket, *peer)));
        for (ticket, peer) in unsent.collect::<Vec<_>>() {
            let Some(request) = self.open.get(&ticket) else { continue };
            // A link that is being made, or a place in a queue, is given up only for a link that stands, or if there is no
            // use for it any more.
            let choice = self.choose(request, directory, fx).filter(|choice| *choice != peer);
            let better = choice.is_some_and(|choice| directory.is_linked(choice));
            if better || !directory.serves(peer, &request.ask.service) {
                self.place(ticket, directory, now, fx);
            }
        }
        for ticket in self.waiting.iter().copied().collect::<Vec<_>>() {
            self.place(ticket, directory, now, fx);
        }
    }

    pub(super) fn on_timeout(&mut self, now: Mono, fx: &mut Effects) {
        while let Some((deadline, ticket)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.expire(ticket, fx);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(super) fn take_dials(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.dials)
    }

    pub(super) fn next_own(&mut self) -> Option<OwnCall> {
        self.own.pop_front()
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
            && self.deadlines.is_empty()
            && self.waiting.is_empty()
            && self.queues.is_empty()
            && self.flying.len() == self.flights.values().sum::<usize>()
            && self.dials.is_empty()
            && self.own.is_empty()
    }

    /// Finds a provider for a request of which nothing is under way, or ends it.
    fn place(&mut self, ticket: Ticket, directory: &dyn Directory, now: Mono, fx: &mut Effects) {
        self.enter(ticket, Stage::Waiting);
        let Some(request) = self.open.get(&ticket) else { return };
        let nodes = namesakes(request, directory);
        if nodes.len() > 1 {
            return self.answer(ticket, Answer::Failed(AskFailure::Ambiguous { nodes }), fx);
        }
        match self.choose(request, directory, fx) {
            Some(peer) if directory.is_linked(peer) => self.send(ticket, peer, now, fx),
            Some(peer) => self.enter(ticket, Stage::Parked(peer)),
            // A node that has just started may not have heard of the provider. One that is busy, though, is an answer.
            None if !directory.settled() && request.setback != Some(Setback::Busy) => {}
            None => self.answer(ticket, Answer::Failed(request.verdict()), fx),
        }
    }

    /// Those who serve it, in the order in which requests would go to them.
    pub(super) fn providers(&self, service: &str, directory: &dyn Directory, fx: &mut Effects) -> Vec<PeerId> {
        let mut providers = directory.providers(service);
        providers.sort_by_cached_key(|peer| (self.rank(*peer, directory), fx.random()));
        providers
    }

    /// Of the candidates the one with the fewest requests of ours, then the nearest, then one that is linked. Between
    /// equals the dice decide, so that many askers who know nothing do not all choose the same.
    fn choose(&self, request: &OpenRequest, directory: &dyn Directory, fx: &mut Effects) -> Option<PeerId> {
        let service = &*request.ask.service;
        let candidates = match &request.ask.to {
            Some(_) => namesakes(request, directory),
            None => directory.providers(service),
        };
        let mut best = None;
        let mut equals = Vec::new();
        for peer in candidates.into_iter().filter(|peer| !request.tried.contains(peer)) {
            let rank = self.rank(peer, directory);
            if best.is_none_or(|best| rank < best) {
                best = Some(rank);
                equals.clear();
            }
            if best == Some(rank) {
                equals.push(peer);
            }
        }
        equals.get(fx.below(equals.len())).copied()
    }

    fn rank(&self, peer: PeerId, directory: &dyn Directory) -> (usize, Span, bool) {
        let linked = directory.is_linked(peer);
        // What was measured over a link that is gone says nothing about the next one.
        let round_trip = directory.round_trip(peer).filter(|_| linked).unwrap_or(Span(u64::MAX));
        (self.outstanding(peer), round_trip, !linked)
    }

    /// Sends what waits for its turn at this provider, as far as there is room.
    fn send_queued(&mut self, peer: PeerId, now: Mono, fx: &mut Effects) {
        while self.has_room(peer)
            && let Some(ticket) = self.queues.get(&peer).and_then(|queue| queue.queued.first().copied())
        {
            self.send(ticket, peer, now, fx);
        }
    }

    /// Sends it, or puts it into the queue. Every request leaves the queue by this, or is over.
    fn send(&mut self, ticket: Ticket, to: PeerId, now: Mono, fx: &mut Effects) {
        let Some(request) = self.open.get(&ticket) else { return };
        let left = request.deadline - now;
        if left == Span(0) {
            return self.answer(ticket, Answer::Failed(AskFailure::NotSent), fx);
        }
        if !self.has_room(to) {
            return self.enter(ticket, Stage::Queued(to));
        }
        let number = self.next_call;
        self.next_call += 1;
        let call = request.call(number, left);
        self.enter(ticket, Stage::Sent { to, call: number });
        if to == self.me {
            self.own.push_back(OwnCall::Call { ticket, call });
        } else {
            self.flying.insert(number, to);
            *self.flights.entry(to).or_default() += 1;
            fx.ask(to, Request::Call(call), Asked::Call { ticket, call: number });
        }
    }

    fn has_room(&self, peer: PeerId) -> bool {
        self.flights.get(&peer).is_none_or(|flights| *flights < IN_FLIGHT)
    }

    /// An exchange is over, whoever waits for it. Says with whom it was.
    fn land(&mut self, call: u64) -> Option<PeerId> {
        let peer = self.flying.remove(&call)?;
        if let Some(flights) = self.flights.get_mut(&peer) {
            *flights -= 1;
            if *flights == 0 {
                self.flights.remove(&peer);
            }
        }
        Some(peer)
    }

    fn set_back(&mut self, ticket: Ticket, at: PeerId, setback: Setback) {
        if let Some(request) = self.open.get_mut(&ticket) {
            request.tried.insert(at);
            request.setback = request.setback.max(Some(setback));
        }
    }

    fn expire(&mut self, ticket: Ticket, fx: &mut Effects) {
        let Some(request) = self.close(ticket) else { return };
        let failure = match request.stage {
            Stage::Waiting => request.verdict(),
            Stage::Parked(_) | Stage::Queued(_) => AskFailure::NotSent,
            Stage::Sent { .. } => AskFailure::Unknown,
        };
        self.cancel(request.stage, fx);
        fx.push(Output::Answer { ticket, answer: Answer::Failed(failure) });
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer, fx: &mut Effects) {
        if self.close(ticket).is_some() {
            fx.push(Output::Answer { ticket, answer });
        }
    }

    /// Tells a provider that nobody waits for the call any more.
    fn cancel(&mut self, stage: Stage, fx: &mut Effects) {
        match stage {
            Stage::Waiting | Stage::Parked(_) | Stage::Queued(_) => {}
            Stage::Sent { to, call } if to == self.me => self.own.push_back(OwnCall::Cancel { call }),
            Stage::Sent { to, call } => {
                fx.ask(to, Request::Cancel { call, extensions: Vec::new() }, Asked::Told);
            }
        }
    }

    fn close(&mut self, ticket: Ticket) -> Option<Box<OpenRequest>> {
        let request = self.open.remove(&ticket)?;
        self.deadlines.remove(&(request.deadline, ticket));
        self.leave(ticket, request.stage);
        Some(request)
    }

    fn enter(&mut self, ticket: Ticket, stage: Stage) {
        let Some(request) = self.open.get_mut(&ticket) else { return };
        let former = std::mem::replace(&mut request.stage, stage);
        self.leave(ticket, former);
        match stage {
            Stage::Waiting => {
                self.waiting.insert(ticket);
            }
            Stage::Parked(peer) => {
                let parked = &mut self.queues.entry(peer).or_default().parked;
                if parked.is_empty() {
                    self.dials.insert(peer);
                }
                parked.insert(ticket);
            }
            Stage::Queued(peer) => {
                self.queues.entry(peer).or_default().queued.insert(ticket);
            }
            Stage::Sent { to, .. } => {
                self.queues.entry(to).or_default().sent.insert(ticket);
            }
        }
    }

    fn leave(&mut self, ticket: Ticket, stage: Stage) {
        let peer = match stage {
            Stage::Waiting => {
                self.waiting.remove(&ticket);
                return;
            }
            Stage::Parked(peer) | Stage::Queued(peer) | Stage::Sent { to: peer, .. } => peer,
        };
        let Some(queue) = self.queues.get_mut(&peer) else { return };
        queue.parked.remove(&ticket);
        queue.queued.remove(&ticket);
        queue.sent.remove(&ticket);
        if queue.parked.is_empty() {
            self.dials.remove(&peer);
        }
        if queue.len() == 0 {
            self.queues.remove(&peer);
        }
    }

    fn sent_to(&self, ticket: Ticket, call: u64) -> Option<PeerId> {
        match self.open.get(&ticket)?.stage {
            Stage::Sent { to, call: present } if present == call => Some(to),
            Stage::Waiting | Stage::Parked(_) | Stage::Queued(_) | Stage::Sent { .. } => None,
        }
    }

    fn parked_at(&self, peer: PeerId) -> Vec<Ticket> {
        self.queues.get(&peer).map(|queue| queue.parked.iter().copied().collect()).unwrap_or_default()
    }

    fn outstanding(&self, peer: PeerId) -> usize {
        self.queues.get(&peer).map_or(0, Queue::len)
    }
}

impl Queue {
    fn len(&self) -> usize {
        self.parked.len() + self.queued.len() + self.sent.len()
    }

    fn unsent(&self) -> impl Iterator<Item = Ticket> {
        self.parked.iter().chain(&self.queued).copied()
    }
}

impl OpenRequest {
    fn call(&self, number: u64, left: Span) -> Call {
        Call {
            call: number,
            service: self.ask.service.to_string(),
            // Rounded up: 0 would say that nobody waits.
            timeout: left.0.div_ceil(1_000),
            content_type: self.ask.content_type.to_string(),
            headers: self.ask.headers.clone(),
            body: self.ask.body.clone(),
            extensions: Vec::new(),
        }
    }

    /// How it ends when nobody is left to be asked.
    fn verdict(&self) -> AskFailure {
        match self.setback {
            Some(Setback::Busy) => AskFailure::Busy,
            Some(Setback::NoService | Setback::Unreachable) | None if self.ask.to.is_some() => AskFailure::NoNode,
            Some(Setback::Unreachable) => AskFailure::NotSent,
            Some(Setback::NoService) | None => AskFailure::Nobody,
        }
    }
}

/// The nodes that may be meant, if one is: of those with that name, those that serve it.
fn namesakes(request: &OpenRequest, directory: &dyn Directory) -> Vec<PeerId> {
    let mut nodes = request.ask.to.as_ref().map(|name| directory.find(name)).unwrap_or_default();
    nodes.retain(|peer| directory.serves(*peer, &request.ask.service));
    nodes
}

fn judge(result: Result<Response, RpcFailure>) -> Heard {
    match result {
        Ok(Response::Reply(reply)) => match reply.status {
            ReplyStatus::Ok | ReplyStatus::Refused | ReplyStatus::Denied => Heard::Answer(reply),
            ReplyStatus::Unanswered => Heard::MayHaveRun,
            ReplyStatus::Busy => Heard::DidNotRun(Setback::Busy),
            ReplyStatus::NoService => Heard::DidNotRun(Setback::NoService),
        },
        // Not an answer to a call. What the other side did with the call nobody can tell.
        Ok(
            Response::Done { .. }
            | Response::Injected { .. }
            | Response::Frames { .. }
            | Response::Differ { .. }
            | Response::Records { .. }
            | Response::Offered { .. }
            | Response::Known { .. }
            | Response::Kept { .. }
            | Response::Brought { .. },
        )
        | Err(RpcFailure::Unknown) => Heard::MayHaveRun,
        Err(RpcFailure::NotSent) => Heard::DidNotRun(Setback::Unreachable),
    }
}
