//! One test per rule, on one node, with the rest of the mesh played by the test.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::{Keypair, PeerId};

use super::{Directory, MAX_TIMEOUT, Requests, TooMany};
use crate::mesh::effects::{Asked, Effects};
use crate::mesh::event::{
    Answer, Ask, AskFailure, CallId, InboundId, NodeName, Output, ProviderId, RpcFailure, RpcId, Ticket,
};
use crate::mesh::time::{Mono, Span};
use crate::wire::rpc::{Call, Reply, ReplyStatus, Request, Response};
use crate::{Headers, Limits};

fn peer(seed: u8) -> PeerId {
    Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes").public().to_peer_id()
}

fn ask(service: &str, timeout: Span) -> Ask {
    Ask {
        service: service.into(),
        to: None,
        timeout,
        content_type: "text/plain".into(),
        headers: Headers::default(),
        body: Bytes::from_static(b"?"),
    }
}

fn reply(status: ReplyStatus) -> Reply {
    Reply {
        status,
        content_type: "text/plain".into(),
        headers: Headers::default(),
        body: Bytes::from_static(b"!"),
        extensions: Vec::new(),
    }
}

fn call(number: u64, service: &str, millis: u64) -> Call {
    Call {
        call: number,
        service: service.into(),
        timeout: millis,
        content_type: String::new(),
        headers: Headers::default(),
        body: Bytes::new(),
        extensions: Vec::new(),
    }
}

/// What a test says about another node.
#[derive(Clone, Default)]
struct Known {
    services: Vec<String>,
    name: String,
    linked: bool,
    round_trip: Option<Span>,
}

#[derive(Clone, Default)]
struct Book {
    nodes: BTreeMap<PeerId, Known>,
    unsettled: bool,
}

impl Directory for Book {
    fn providers(&self, service: &str) -> Vec<PeerId> {
        self.nodes.keys().copied().filter(|peer| self.serves(*peer, service)).collect()
    }

    fn find(&self, name: &NodeName) -> Vec<PeerId> {
        let fits = |(peer, known): &(&PeerId, &Known)| match name {
            NodeName::Peer(wanted) => wanted == *peer,
            NodeName::Name(wanted) => *wanted == known.name,
        };
        self.nodes.iter().filter(fits).map(|(peer, _)| *peer).collect()
    }

    fn serves(&self, peer: PeerId, service: &str) -> bool {
        self.nodes.get(&peer).is_some_and(|known| known.services.iter().any(|served| served == service))
    }

    fn is_linked(&self, peer: PeerId) -> bool {
        self.nodes.get(&peer).is_some_and(|known| known.linked)
    }

    fn round_trip(&self, peer: PeerId) -> Option<Span> {
        self.nodes.get(&peer)?.round_trip
    }

    fn settled(&self) -> bool {
        !self.unsettled
    }
}

mod asking;
mod random;
mod serving;

/// One node, number 0. It answers to `svc` if told so; the others are in the book.
struct Rig {
    requests: Requests,
    book: Book,
    fx: Effects,
    now: Mono,
    tickets: u64,
}

impl Rig {
    fn new() -> Self {
        Self::with(&Limits::default())
    }

    fn with(limits: &Limits) -> Self {
        let requests = Requests::new(peer(0), "me", limits);
        Self { requests, book: Book::default(), fx: Effects::new(7), now: Mono(1_000_000), tickets: 0 }
    }

    /// Puts a provider of `svc` into the book. The seed is its round trip in milliseconds, too.
    fn provider(&mut self, seed: u8, linked: bool) -> PeerId {
        let round_trip = Some(Span::millis(seed.into()));
        let known = Known { services: vec!["svc".into()], name: format!("n{seed}"), linked, round_trip };
        self.book.nodes.insert(peer(seed), known);
        peer(seed)
    }

    fn ask(&mut self) -> Ticket {
        self.ask_with(ask("svc", Span::secs(2)))
    }

    fn ask_with(&mut self, ask: Ask) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.requests.ask(ticket, ask, &self.book, self.now, &mut self.fx);
        ticket
    }

    fn respond(&mut self, rpc: RpcId, result: Result<Response, RpcFailure>) {
        let Some(Asked::Call { ticket, call }) = self.fx.answered(rpc) else { panic!("{rpc:?} is no call") };
        self.requests.on_response((ticket, call), result, &self.book, self.now, &mut self.fx);
    }

    fn respond_status(&mut self, rpc: RpcId, status: ReplyStatus) {
        self.respond(rpc, Ok(Response::Reply(reply(status))));
    }

    fn change(&mut self) {
        self.requests.directory_changed(&self.book, self.now, &mut self.fx);
    }

    fn pass(&mut self, span: Span) {
        self.now = self.now + span;
        self.requests.on_timeout(&self.book, self.now, &mut self.fx);
    }

    fn incoming(&mut self, from: u8, number: u64, millis: u64) {
        let call = call(number, "svc", millis);
        self.requests.on_call(peer(from), InboundId(number), call, self.now, &mut self.fx);
    }

    fn handled(&mut self, call: CallId, status: ReplyStatus) {
        self.requests.reply(call, reply(status), &self.book, self.now, &mut self.fx);
    }

    /// What is to be done. Replies get out at once.
    fn outputs(&mut self) -> Vec<Output> {
        let outputs = self.slow_outputs();
        for output in &outputs {
            if let Output::Reply { to, .. } = output {
                self.requests.replied(*to);
            }
        }
        outputs
    }

    /// The same, but replies are still under way.
    fn slow_outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.fx.pop()).collect()
    }

    /// The only output, which has to be a call.
    fn sent(&mut self) -> (RpcId, PeerId, Call) {
        match self.outputs().as_slice() {
            [Output::Send { id, to, request: Request::Call(call) }] => (*id, *to, call.clone()),
            other => panic!("not one call: {other:?}"),
        }
    }

    /// The only output, which has to be a failure.
    fn failed(&mut self) -> AskFailure {
        match self.outputs().as_slice() {
            [Output::Answer { answer: Answer::Failed(failure), .. }] => failure.clone(),
            other => panic!("not one failure: {other:?}"),
        }
    }

    /// The only output, which has to be a reply to a caller of this node.
    fn answered(&mut self) -> (PeerId, ReplyStatus) {
        match self.outputs().as_slice() {
            [Output::Answer { answer: Answer::Reply { from, reply }, .. }] => (*from, reply.status),
            other => panic!("not one answer: {other:?}"),
        }
    }

    /// The only output, which has to be a call for a handler.
    fn served(&mut self) -> (ProviderId, CallId) {
        match self.outputs().as_slice() {
            [Output::Serve { provider, call }] => (*provider, call.id),
            other => panic!("not one call to serve: {other:?}"),
        }
    }

    /// The only output, which has to be a reply to another node.
    fn replied(&mut self) -> (InboundId, ReplyStatus) {
        match self.outputs().as_slice() {
            [Output::Reply { to, response: Response::Reply(reply) }] => (*to, reply.status),
            other => panic!("not one reply: {other:?}"),
        }
    }

    fn dials(&mut self) -> Vec<PeerId> {
        self.requests.take_dials().into_iter().collect()
    }
}
