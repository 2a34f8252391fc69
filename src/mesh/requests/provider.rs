//! The provider's side: what this node serves, which calls its handlers are at, and who gets the next one.
//!
//! Every call that comes in is answered, exactly once. Room is what limits the work: it is taken when a handler gets a
//! call and given back when that handler is done with it, not when the asker goes, since until then it still runs.
//! Nothing is queued here: a call that finds no room hears so at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::MAX_TIMEOUT;
use crate::mesh::effects::Effects;
use crate::mesh::event::{CallId, InboundId, IncomingCall, Output, ProviderId, Ticket};
use crate::mesh::time::{Mono, Span};
use crate::wire::rpc::{Call, Reply, ReplyStatus, Response};

/// Calls that may be open at once, from whomever.
pub(super) const MAX_CALLS: usize = 10_000;

/// The local providers and the calls that they are at.
#[derive(Debug)]
pub(super) struct Provider {
    /// Of providers.
    limit: usize,
    handlers: BTreeMap<ProviderId, Handler>,
    services: BTreeMap<Arc<str>, BTreeSet<ProviderId>>,
    open: BTreeMap<CallId, OpenCall>,
    // Indices over those in `open` that somebody still waits for.
    callers: BTreeSet<(PeerId, u64, CallId)>,
    deadlines: BTreeSet<(Mono, CallId)>,
    own: VecDeque<OwnReply>,
    /// Replies that are not with whoever called yet. The driver tells of every one.
    replying: BTreeSet<InboundId>,
    next_call: u64,
}

#[derive(Debug)]
struct Handler {
    service: Arc<str>,
    room: u32,
    running: u32,
}

#[derive(Debug)]
struct OpenCall {
    provider: ProviderId,
    caller: Caller,
    deadline: Mono,
}

/// Who called, the number that the call has there, and where the reply goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    pub(super) peer: PeerId,
    pub(super) number: u64,
    pub(super) reply_to: ReplyTo,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ReplyTo {
    Peer(InboundId),
    /// This very node.
    Own(Ticket),
    /// It was answered already; the handler just has not noticed.
    Nobody,
}

/// A reply to a call of this very node.
#[derive(Debug)]
pub(super) struct OwnReply {
    pub(super) ticket: Ticket,
    pub(super) number: u64,
    pub(super) reply: Reply,
}

/// A limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub(crate) limit: usize,
}

impl Provider {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            handlers: BTreeMap::new(),
            services: BTreeMap::new(),
            open: BTreeMap::new(),
            callers: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            own: VecDeque::new(),
            replying: BTreeSet::new(),
            next_call: 0,
        }
    }

    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    pub(super) fn serve(&mut self, provider: ProviderId, service: Arc<str>, room: u32) -> Result<(), TooMany> {
        if self.handlers.len() >= self.limit {
            return Err(TooMany { limit: self.limit });
        }
        self.services.entry(service.clone()).or_default().insert(provider);
        self.handlers.insert(provider, Handler { service, room, running: 0 });
        Ok(())
    }

    pub(super) fn unserve(&mut self, provider: ProviderId, fx: &mut Effects) {
        self.withdraw(provider);
        if self.handlers.remove(&provider).is_none() {
            return;
        }
        let calls = self.open.iter().filter(|(_, call)| call.provider == provider).map(|(id, _)| *id);
        for id in calls.collect::<Vec<_>>() {
            self.reply(id, status_only(ReplyStatus::Unanswered), fx);
        }
    }

    /// It gets no more calls. The handler stays, for those that it is at.
    pub(super) fn withdraw(&mut self, provider: ProviderId) {
        let Some(handler) = self.handlers.get(&provider) else { return };
        if let Some(providers) = self.services.get_mut(&handler.service) {
            providers.remove(&provider);
            if providers.is_empty() {
                self.services.remove(&handler.service);
            }
        }
    }

    /// Nothing is served any more. The handlers stay, for the calls that they are at.
    pub(super) fn drain(&mut self) {
        self.services.clear();
    }

    /// Whether nobody waits for anything. A handler that goes on though its asker has gone is no matter.
    pub(super) fn is_finished(&self) -> bool {
        self.callers.is_empty() && self.replying.is_empty()
    }

    pub(super) fn replied(&mut self, inbound: InboundId) {
        self.replying.remove(&inbound);
    }

    pub(super) fn serves(&self, service: &str) -> bool {
        self.services.contains_key(service)
    }

    pub(super) fn services(&self) -> Vec<String> {
        self.services.keys().map(|service| service.to_string()).collect()
    }

    pub(super) fn on_call(&mut self, caller: Caller, call: Call, now: Mono, fx: &mut Effects) {
        let provider = match self.admit(&call) {
            Ok(provider) => provider,
            Err(status) => return self.answer(caller, status_only(status), fx),
        };
        let timeout = Span::millis(call.timeout).min(MAX_TIMEOUT);
        let deadline = now + timeout;
        let id = CallId(self.next_call);
        self.next_call += 1;
        if let Some(handler) = self.handlers.get_mut(&provider) {
            handler.running += 1;
        }
        self.callers.insert((caller.peer, caller.number, id));
        self.deadlines.insert((deadline, id));
        self.open.insert(id, OpenCall { provider, caller, deadline });
        let call = IncomingCall {
            id,
            from: caller.peer,
            timeout,
            content_type: call.content_type.into(),
            headers: call.headers,
            body: call.body,
        };
        fx.push(Output::Serve { provider, call });
    }

    /// The handler is done. A reply to a call that is not open is one to a provider that was taken back.
    pub(super) fn reply(&mut self, id: CallId, reply: Reply, fx: &mut Effects) {
        let Some(call) = self.open.remove(&id) else { return };
        self.forget(id, &call);
        if let Some(handler) = self.handlers.get_mut(&call.provider) {
            handler.running = handler.running.saturating_sub(1);
        }
        self.answer(call.caller, reply, fx);
    }

    pub(super) fn on_cancel(&mut self, peer: PeerId, number: u64, fx: &mut Effects) {
        self.stop_all((peer, number, CallId(0)), (peer, number, CallId(u64::MAX)), fx);
    }

    pub(super) fn unlinked(&mut self, peer: PeerId, fx: &mut Effects) {
        self.stop_all((peer, 0, CallId(0)), (peer, u64::MAX, CallId(u64::MAX)), fx);
    }

    pub(super) fn on_timeout(&mut self, now: Mono, fx: &mut Effects) {
        while let Some((deadline, id)) = self.deadlines.first().copied()
            && deadline <= now
        {
            // Before anything else, so that this loop ends whatever the other tables say.
            self.deadlines.remove(&(deadline, id));
            self.stop(id, fx);
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(super) fn next_own(&mut self) -> Option<OwnReply> {
        self.own.pop_front()
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty()
            && self.callers.is_empty()
            && self.deadlines.is_empty()
            && self.own.is_empty()
            && self.replying.is_empty()
            && self.handlers.values().all(|handler| handler.running == 0)
    }

    /// Who takes a call: the provider of that service with the most free room.
    fn admit(&self, call: &Call) -> Result<ProviderId, ReplyStatus> {
        let providers = self.services.get(&*call.service).ok_or(ReplyStatus::NoService)?;
        // Nobody waits any more. Of the words there are, this one says that it did not run.
        if call.timeout == 0 || self.open.len() >= MAX_CALLS {
            return Err(ReplyStatus::Busy);
        }
        providers
            .iter()
            .filter_map(|id| self.handlers.get(id).map(|handler| (handler.room.saturating_sub(handler.running), *id)))
            .filter(|(free, _)| *free > 0)
            .max_by_key(|(free, id)| (*free, std::cmp::Reverse(*id)))
            .map(|(_, id)| id)
            .ok_or(ReplyStatus::Busy)
    }

    fn stop_all(&mut self, first: (PeerId, u64, CallId), last: (PeerId, u64, CallId), fx: &mut Effects) {
        let calls: Vec<CallId> = self.callers.range(first..=last).map(|(_, _, id)| *id).collect();
        for id in calls {
            self.stop(id, fx);
        }
    }

    /// Nobody waits for this call any more. It is answered all the same, so that nothing is kept for it below, and it
    /// stays open until its handler has noticed.
    fn stop(&mut self, id: CallId, fx: &mut Effects) {
        let Some(mut call) = self.open.remove(&id) else { return };
        self.forget(id, &call);
        self.answer(call.caller, status_only(ReplyStatus::Unanswered), fx);
        call.caller.reply_to = ReplyTo::Nobody;
        fx.push(Output::Stop { call: id });
        self.open.insert(id, call);
    }

    fn forget(&mut self, id: CallId, call: &OpenCall) {
        self.callers.remove(&(call.caller.peer, call.caller.number, id));
        self.deadlines.remove(&(call.deadline, id));
    }

    fn answer(&mut self, caller: Caller, reply: Reply, fx: &mut Effects) {
        match caller.reply_to {
            ReplyTo::Peer(inbound) => {
                self.replying.insert(inbound);
                fx.reply(inbound, Response::Reply(reply));
            }
            ReplyTo::Own(ticket) => self.own.push_back(OwnReply { ticket, number: caller.number, reply }),
            ReplyTo::Nobody => {}
        }
    }
}

/// A reply that says nothing but how it ended.
fn status_only(status: ReplyStatus) -> Reply {
    Reply {
        status,
        content_type: String::new(),
        headers: crate::Headers::default(),
        body: bytes::Bytes::new(),
        extensions: Vec::new(),
    }
}
