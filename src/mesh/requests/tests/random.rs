//! Several nodes that ask, serve, break links and give up at random, with every record through the real codec.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::mesh::event::Output;

const NODES: u8 = 5;
const STEPS: u32 = 4_000;
const SERVICES: [&str; 3] = ["svc.a", "svc.b", "svc.nobody"];

/// Something on its way, or due.
enum Due {
    Request { from: usize, rpc: RpcId, bytes: Vec<u8> },
    Response { rpc: RpcId, result: Result<Vec<u8>, RpcFailure> },
    Handled { call: CallId, status: ReplyStatus },
    Dialled { peer: usize, works: bool },
}

struct Node {
    requests: Requests,
    fx: Effects,
    book: Book,
    /// By the other side's id: who asked, and their number for it.
    inbound: BTreeMap<InboundId, (usize, RpcId)>,
    /// Requests over the network that the other side has, or that are on their way.
    in_flight: BTreeMap<RpcId, usize>,
    providers: BTreeSet<ProviderId>,
}

struct World {
    dice: Effects,
    now: Mono,
    nodes: Vec<Node>,
    due: BTreeMap<(Mono, u64), (usize, Due)>,
    serial: u64,
    /// Requests that wait for their answer.
    open: BTreeMap<Ticket, usize>,
    answered: BTreeSet<Ticket>,
    /// The requests that a handler has run, by their bodies.
    ran: BTreeSet<Bytes>,
    tally: BTreeMap<&'static str, u32>,
}

impl World {
    fn new(seed: u64) -> Self {
        let node = |index| Node {
            requests: Requests::new(peer(index), "me", &Limits::default()),
            fx: Effects::new(seed ^ u64::from(index)),
            book: Book::default(),
            inbound: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            providers: BTreeSet::new(),
        };
        let mut world = Self {
            dice: Effects::new(seed),
            now: Mono(0),
            nodes: (0..NODES).map(node).collect(),
            due: BTreeMap::new(),
            serial: 0,
            open: BTreeMap::new(),
            answered: BTreeSet::new(),
            ran: BTreeSet::new(),
            tally: BTreeMap::new(),
        };
        for (at, other) in world.pairs() {
            let known = Known { name: format!("n{other}"), ..Known::default() };
            world.nodes[at].book.nodes.insert(peer_at(other), known);
        }
        world
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let all = 0..self.nodes.len();
        all.clone().flat_map(|a| all.clone().map(move |b| (a, b))).filter(|(a, b)| a != b).collect()
    }

    fn later(&mut self, at: usize, most: u64, due: Due) {
        let time = self.now + Span(self.dice.random() % most + 1);
        self.serial += 1;
        self.due.insert((time, self.serial), (at, due));
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.dice.below(100) < percent
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// One thing that a user does, or that breaks.
    fn act(&mut self) {
        let at = self.dice.below(self.nodes.len());
        match self.dice.below(100) {
            0..70 => self.ask(at),
            70..76 => self.abandon(),
            76..82 => self.serve(at),
            82..84 => self.unserve(at),
            84..88 => {
                let other = self.dice.below(self.nodes.len());
                self.unlink(at, other);
            }
            _ => self.tell_directory(at),
        }
    }

    fn ask(&mut self, at: usize) {
        self.serial += 1;
        let ticket = Ticket(self.serial);
        let service = SERVICES[self.dice.below(SERVICES.len())];
        let mut request = ask(service, Span(self.dice.random() % 400_000));
        request.body = Bytes::copy_from_slice(&ticket.0.to_be_bytes());
        if self.chance(10) {
            request.to = Some(NodeName::Name(format!("n{}", self.dice.below(self.nodes.len()))));
        }
        self.open.insert(ticket, at);
        let now = self.now;
        let Node { requests, fx, book, .. } = &mut self.nodes[at];
        requests.ask(ticket, request, book, now, fx);
        self.pump(at);
    }

    fn abandon(&mut self) {
        let choice = self.dice.below(self.open.len());
        let Some((ticket, at)) = self.open.iter().nth(choice).map(|(ticket, at)| (*ticket, *at)) else { return };
        self.open.remove(&ticket);
        self.answered.insert(ticket);
        let now = self.now;
        let Node { requests, fx, book, .. } = &mut self.nodes[at];
        requests.abandoned(ticket, book, now, fx);
        self.count("abandoned");
        self.pump(at);
    }

    fn serve(&mut self, at: usize) {
        self.serial += 1;
        let (id, service) = (ProviderId(self.serial), SERVICES[self.dice.below(2)]);
        let room = u32::try_from(self.dice.below(3)).expect("small");
        let node = &mut self.nodes[at];
        if node.providers.len() < 2 {
            node.providers.insert(id);
            node.requests.serve(id, service.into(), room).expect("below the limit");
        }
    }

    fn unserve(&mut self, at: usize) {
        let now = self.now;
        let Node { requests, fx, book, providers, .. } = &mut self.nodes[at];
        let Some(id) = providers.pop_first() else { return };
        requests.unserve(id, book, now, fx);
        self.pump(at);
    }

    /// The directory catches up with who serves what.
    fn tell_directory(&mut self, at: usize) {
        let services: Vec<_> = self.nodes.iter().map(|node| node.requests.services()).collect();
        let unsettled = self.chance(20);
        let now = self.now;
        let Node { requests, fx, book, .. } = &mut self.nodes[at];
        book.unsettled = unsettled;
        for (index, services) in services.into_iter().enumerate() {
            if let Some(known) = book.nodes.get_mut(&peer_at(index)) {
                known.services = services;
            }
        }
        requests.directory_changed(book, now, fx);
        self.pump(at);
    }

    fn link(&mut self, at: usize, other: usize) {
        for (a, b) in [(at, other), (other, at)] {
            let (now, round_trip) = (self.now, Span(self.dice.random() % 3_000));
            let Node { requests, fx, book, .. } = &mut self.nodes[a];
            let known = book.nodes.get_mut(&peer_at(b)).expect("everybody knows everybody");
            (known.linked, known.round_trip) = (true, Some(round_trip));
            requests.linked(peer_at(b), now, fx);
            self.pump(a);
        }
    }

    /// What is open between the two fails sooner or later; the mesh hears of the link at once.
    fn unlink(&mut self, at: usize, other: usize) {
        if at == other || !self.nodes[at].book.nodes[&peer_at(other)].linked {
            return;
        }
        self.count("unlinked");
        for (a, b) in [(at, other), (other, at)] {
            self.nodes[a].book.nodes.get_mut(&peer_at(b)).expect("known").linked = false;
            self.nodes[b].inbound.retain(|_, (from, _)| *from != a);
            let lost: Vec<RpcId> =
                self.nodes[a].in_flight.iter().filter(|(_, to)| **to == b).map(|(rpc, _)| *rpc).collect();
            for rpc in lost {
                self.later(a, 5_000, Due::Response { rpc, result: Err(RpcFailure::Unknown) });
            }
            let Node { requests, fx, .. } = &mut self.nodes[a];
            requests.unlinked(peer_at(b), fx);
            self.pump(a);
        }
    }

    fn happen(&mut self, at: usize, due: Due) {
        let now = self.now;
        match due {
            Due::Request { from, rpc, bytes } => self.arrive(at, from, rpc, &bytes),
            Due::Response { rpc, result } => {
                let Node { requests, fx, book, in_flight, .. } = &mut self.nodes[at];
                in_flight.remove(&rpc);
                // A link that broke while the answer was on its way leaves two of them; the driver passes on one.
                let Some(asked) = fx.answered(rpc) else { return };
                let result = result.map(|bytes| Response::decode(&bytes).expect("it was encoded"));
                match asked {
                    Asked::Call { ticket, call } => requests.on_response((ticket, call), result, book, now, fx),
                    Asked::Told => {}
                    other => panic!("{other:?}"),
                }
            }
            Due::Handled { call, status } => {
                let Node { requests, fx, book, .. } = &mut self.nodes[at];
                requests.reply(call, reply(status), book, now, fx);
            }
            Due::Dialled { peer, works: true } => self.link(at, peer),
            Due::Dialled { peer, works: false } => {
                let Node { requests, fx, book, .. } = &mut self.nodes[at];
                requests.unreachable(peer_at(peer), book, now, fx);
            }
        }
        self.pump(at);
    }

    fn arrive(&mut self, at: usize, from: usize, rpc: RpcId, bytes: &[u8]) {
        if !self.nodes[from].in_flight.contains_key(&rpc) {
            return;
        }
        self.serial += 1;
        let (now, inbound) = (self.now, InboundId(self.serial));
        let Node { requests, fx, inbound: waiting, .. } = &mut self.nodes[at];
        waiting.insert(inbound, (from, rpc));
        match Request::decode(bytes).expect("it was encoded") {
            Request::Call(call) => requests.on_call(peer_at(from), inbound, call, now, fx),
            Request::Cancel { call, .. } => requests.on_cancel(peer_at(from), inbound, call, fx),
            other => panic!("{other:?}"),
        }
    }

    /// Does what a node wants done.
    fn pump(&mut self, at: usize) {
        while let Some(output) = self.nodes[at].fx.pop() {
            self.execute(at, output);
        }
        for wish in self.nodes[at].requests.take_dials() {
            let works = self.chance(70);
            self.later(at, 50_000, Due::Dialled { peer: index_of(wish), works });
        }
    }

    fn execute(&mut self, at: usize, output: Output) {
        match output {
            Output::Send { id, to, request } => {
                let to = index_of(to);
                let linked = self.nodes[at].book.nodes[&peer_at(to)].linked;
                self.nodes[at].in_flight.insert(id, to);
                if !linked || self.chance(5) {
                    return self.later(at, 5_000, Due::Response { rpc: id, result: Err(RpcFailure::NotSent) });
                }
                let bytes = request.encode().expect("it can be encoded");
                self.later(to, 5_000, Due::Request { from: at, rpc: id, bytes });
            }
            Output::Reply { to, response } => {
                self.nodes[at].requests.replied(to);
                // None if the link is gone, and with it whoever waited.
                let Some((asker, rpc)) = self.nodes[at].inbound.remove(&to) else { return };
                let bytes = response.encode().expect("it can be encoded");
                self.later(asker, 5_000, Due::Response { rpc, result: Ok(bytes) });
            }
            Output::Serve { call, .. } => {
                assert!(self.ran.insert(call.body), "a handler ran twice for one request");
                let status = if self.chance(80) { ReplyStatus::Ok } else { ReplyStatus::Unanswered };
                self.later(at, 200_000, Due::Handled { call: call.id, status });
            }
            Output::Stop { call, .. } => {
                self.count("stopped");
                self.later(at, 1_000, Due::Handled { call, status: ReplyStatus::Unanswered });
            }
            Output::Answer { ticket, answer } => {
                assert_eq!(self.open.remove(&ticket), Some(at), "{ticket:?} was answered twice: {answer:?}");
                assert!(self.answered.insert(ticket));
                self.count(match answer {
                    Answer::Reply { .. } => "reply",
                    Answer::Failed(AskFailure::Busy) => "busy",
                    Answer::Failed(AskFailure::Nobody) => "nobody",
                    Answer::Failed(AskFailure::NoNode) => "no node",
                    Answer::Failed(AskFailure::Unknown) => "unknown",
                    Answer::Failed(AskFailure::NotSent) => "not sent",
                    other => panic!("{other:?}"),
                });
            }
            other => panic!("{other:?}"),
        }
    }

    /// Lets happen what is due until then, timers and messages in the order of their times.
    fn run_until(&mut self, end: Mono) {
        loop {
            let timers = (0..self.nodes.len()).filter_map(|at| Some((self.nodes[at].requests.next_timeout()?, at)));
            let timer = timers.min();
            let message = self.due.keys().next().map(|(time, _)| *time);
            match (timer, message) {
                (Some((time, at)), message) if time <= end && message.is_none_or(|message| time <= message) => {
                    self.now = self.now.max(time);
                    let now = self.now;
                    let Node { requests, fx, book, .. } = &mut self.nodes[at];
                    requests.on_timeout(book, now, fx);
                    self.pump(at);
                }
                (_, Some(time)) if time <= end => {
                    self.now = self.now.max(time);
                    if let Some((_, (at, due))) = self.due.pop_first() {
                        self.happen(at, due);
                    }
                }
                _ => return self.now = end,
            }
        }
    }
}

fn peer_at(index: usize) -> PeerId {
    peer(u8::try_from(index).expect("few nodes"))
}

fn index_of(wanted: PeerId) -> usize {
    (0..usize::from(NODES)).find(|index| peer_at(*index) == wanted).expect("one of us")
}

/// Shows the seed of a run that panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seed {0} fails. To replay it:\n\n    POMBO_SEED={0} cargo test --lib requests::tests::random -- --nocapture\n",
                self.0
            );
        }
    }
}

#[test]
fn every_request_is_answered_once_and_nothing_is_kept() {
    let seeds: Vec<u64> = match std::env::var("POMBO_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..8).collect(),
    };
    let mut tally: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in seeds.iter().copied() {
        let _shown = Seed(seed);
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.act();
            let end = world.now + Span(world.dice.random() % 20_000);
            world.run_until(end);
        }
        world.run_until(world.now + Span::secs(60));
        assert!(world.open.is_empty(), "never answered: {:?}", world.open);
        for node in &world.nodes {
            assert!(node.requests.is_idle(), "{:?}", node.requests);
            assert!(node.inbound.is_empty() && node.in_flight.is_empty());
        }
        world.tally.into_iter().for_each(|(what, count)| *tally.entry(what).or_default() += count);
    }
    for what in ["reply", "busy", "nobody", "no node", "unknown", "not sent", "stopped", "abandoned", "unlinked"] {
        assert!(
            tally.get(what).is_some_and(|count| *count > 5) || seeds.len() == 1,
            "{what} hardly happened: {tally:?}"
        );
    }
}
