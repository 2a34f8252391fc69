//! The simulated world: nodes, the links between them, and what happens when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::Random;
use super::node::{Read, Role, SimLane, SimNode, Subscriber};
use crate::mesh::checked;
use crate::mesh::dispatch::Taken;
use crate::mesh::event::{
    CallId, Command, Delivery, DialFailure, FoundBy, GossipId, InboundId, Input, LaneId, NodeName, Output, RpcFailure,
    RpcId, Signed, SubscriberId, Ticket, Unsigned, Verdict, Via,
};
use crate::mesh::lane::Outbox;
use crate::mesh::outgoing::Draft;
use crate::mesh::postman::Snapshot;
use crate::mesh::postman::store::{self, Job, Store as _};
use crate::mesh::routes::LocalSubscriber;
use crate::mesh::time::{Mono, Now, Wall};
use crate::wire::frame::{Frame, shard_of};
use crate::wire::lane::Record;
use crate::wire::rpc::{Reply, Request};
use crate::wire::{builder, custody};
use crate::{Dissemination, Headers, Limits, MeshId, MessageId};

pub(crate) const MESH: MeshId = MeshId([0x5a; 16]);

/// What gossip and links do to what travels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    /// Gossip lost on a hop, in percent.
    pub(crate) drop: u64,
    /// Gossip that comes twice.
    pub(crate) duplicate: u64,
    /// One way, in microseconds.
    pub(crate) latency: (u64, u64),
}

/// An offer that comes once more, late, in percent.
const ECHO: u64 = 20;

/// Something that will happen.
#[derive(Debug)]
enum Happening {
    DialEnds { from: usize, peer: Option<PeerId>, addresses: Vec<Multiaddr> },
    LinkDies { one: usize, other: usize },
    Joins { from: usize, to: usize },
    Gossip { from: usize, to: usize, frame: Bytes },
    Request { from: usize, to: usize, id: RpcId, bytes: Vec<u8> },
    Response { from: usize, inbound: InboundId, to: usize, id: RpcId, bytes: Vec<u8> },
    Wake { node: usize },
    Press { node: usize },
    LaneOpens { from: usize, to: usize, lane: LaneId },
    OverLane { from: usize, to: usize, lane: LaneId, bytes: BytesMut },
    ReplyOf { node: usize, call: CallId, body: Bytes },
    Sync { node: usize, incarnation: u64 },
    Echo { from: usize, to: usize, bytes: Vec<u8> },
}

/// A message that was published.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) by: usize,
    pub(crate) id: MessageId,
    pub(crate) topic: String,
    /// The nodes that the publisher knew to listen.
    pub(crate) listeners: Vec<PeerId>,
    /// The subscribers that there were.
    pub(crate) subscribers: BTreeSet<SubscriberId>,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) published: Vec<Publication>,
    pub(crate) limits: Limits,
    pub(crate) dissemination: Dissemination,
    pub(crate) requests_sent: u64,
    pub(crate) served: u64,
    /// Frames that went over lanes.
    pub(crate) over_lanes: u64,
    /// Handlers answer when the scenario says so, not by themselves.
    pub(crate) slow_handlers: bool,
    /// Nodes that no gossip reaches.
    pub(crate) deaf: BTreeSet<usize>,
    /// Pairs of nodes that have no way to each other.
    barred: BTreeSet<(usize, usize)>,
    happenings: BTreeMap<(u64, u64), Happening>,
    next: u64,
    /// Frames that were opened before: what one node checked needs no second check in the same process.
    opened: BTreeMap<[u8; 20], Arc<Frame>>,
}

/// A wall clock that is not zero.
const EPOCH: u64 = 1_700_000_000_000_000;

pub(crate) const MILLI: u64 = 1_000;
pub(crate) const SECOND: u64 = 1_000_000;

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            now: 0,
            nodes: Vec::new(),
            random: Random(seed),
            faults,
            published: Vec::new(),
            limits: Limits::default(),
            // Half of the worlds know lanes, and have to do with gossip as well.
            dissemination: if seed.is_multiple_of(2) { Dissemination::Adaptive } else { Dissemination::Gossip },
            requests_sent: 0,
            served: 0,
            over_lanes: 0,
            slow_handlers: false,
            deaf: BTreeSet::new(),
            barred: BTreeSet::new(),
            happenings: BTreeMap::new(),
            next: 1,
            opened: BTreeMap::new(),
        }
    }

    /// What a node's clocks show.
    pub(crate) fn clock_of(&self, node: usize) -> Now {
        self.clock(self.nodes[node].slow)
    }

    /// What clocks show of which the one that people set is slow by so much.
    fn clock(&self, slow: u64) -> Now {
        Now { mono: Mono(self.now), wall: Wall(EPOCH + self.now - slow) }
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.next += 1;
        self.happenings.insert((time, self.next), happening);
    }

    fn later(&mut self, happening: Happening) {
        let (low, high) = self.faults.latency;
        let time = self.now + self.random.between(low, high);
        self.at(time, happening);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    // What a scenario does.

    /// Starts a node. It is told of nobody.
    pub(crate) fn start(&mut self, relay: bool) -> usize {
        self.start_as(if relay { Role::Relay } else { Role::Plain })
    }

    pub(crate) fn start_as(&mut self, role: Role) -> usize {
        let index = self.nodes.len();
        let seed = self.random.next();
        let now = self.clock(0);
        let mut node = SimNode::new(index, 1, role, (&self.limits, self.dissemination), seed, now);
        node.mesh.open_store(Ok(Snapshot::default()), now);
        self.nodes.push(node);
        self.tell(index, Input::Listening(vec![address_of(index)]));
        index
    }

    /// Starts a node again that was stopped: the same key, a later incarnation, nothing remembered.
    pub(crate) fn restart(&mut self, index: usize) {
        self.restart_late(index, 0);
    }

    /// As `restart`, with a clock that was set back by so much.
    pub(crate) fn restart_late(&mut self, index: usize, slow: u64) {
        let seed = self.random.next();
        let (incarnation, side) = (self.nodes[index].incarnation + 1, self.nodes[index].side);
        let mut node =
            SimNode::new(index, incarnation, Role::Plain, (&self.limits, self.dissemination), seed, self.clock(slow));
        (node.side, node.slow) = (side, slow);
        node.disk = std::mem::take(&mut self.nodes[index].disk);
        let now = self.clock(slow);
        let snapshot = Snapshot::load(&mut node.disk, now.wall).expect("a disk in memory");
        node.mesh.open_store(Ok(snapshot), now);
        self.nodes[index] = node;
        self.tell(index, Input::Listening(vec![address_of(index)]));
    }

    /// A node is told where others are.
    pub(crate) fn introduce(&mut self, node: usize, others: &[usize]) {
        for other in others.iter().filter(|other| **other != node) {
            let (peer, addresses) = (Some(self.nodes[*other].peer), vec![address_of(*other)]);
            self.tell(node, Input::Seen { peer, addresses, by: FoundBy::Local });
        }
    }

    pub(crate) fn subscribe(&mut self, node: usize, pattern: &str, group: Option<&str>) -> SubscriberId {
        let id = SubscriberId(self.number());
        let patterns: Vec<Arc<str>> = vec![pattern.into()];
        let group: Option<Arc<str>> = group.map(Into::into);
        let local = LocalSubscriber { id, patterns: patterns.clone().into(), group: group.clone() };
        self.nodes[node].subscribers.insert(id, Subscriber::new(local));
        self.command(node, Command::Subscribe { subscriber: id, patterns, group });
        id
    }

    pub(crate) fn unsubscribe(&mut self, node: usize, id: SubscriberId) {
        self.command(node, Command::Unsubscribe { subscriber: id });
    }

    pub(crate) fn command(&mut self, node: usize, command: Command) -> Ticket {
        let ticket = Ticket(self.number());
        self.tell(node, Input::Command(ticket, command));
        ticket
    }

    /// Whoever waits on this ticket goes.
    pub(crate) fn abandon(&mut self, node: usize, ticket: Ticket) {
        self.tell(node, Input::Abandoned(ticket));
    }

    /// The handlers of a node answer what they are at.
    pub(crate) fn finish(&mut self, node: usize) {
        for (call, body) in std::mem::take(&mut self.nodes[node].running) {
            self.reply(node, call, body);
        }
    }

    fn reply(&mut self, node: usize, call: CallId, body: Bytes) {
        let status = crate::wire::rpc::ReplyStatus::Ok;
        let (content_type, headers) = (String::new(), Headers::default());
        let reply = Reply { status, content_type, headers, body, extensions: Vec::new() };
        self.command(node, Command::Reply { call, reply });
    }

    /// Returns where it stands in its stream.
    pub(crate) fn publish(&mut self, by: usize, topic: &str, payload: &[u8]) -> u64 {
        let wall = self.clock_of(by).wall;
        let node = &self.nodes[by];
        let reach = node.routes.reach(topic, node.peer);
        let listens = |other: &&crate::mesh::routes::RemoteNode| {
            other.interests.iter().any(|interest| crate::topic::matches(&interest.pattern, topic))
        };
        let listeners = node.routes.remote.iter().filter(listens).map(|other| other.peer).collect();
        let subscribers = self.nodes.iter().flat_map(|node| node.subscribers.keys().copied()).collect();
        let node = &mut self.nodes[by];
        let draft = Draft {
            topic,
            shard: shard_of(topic),
            content_type: "text/plain",
            headers: &Headers::default(),
            groups: &reach.groups,
            payload,
        };
        let appended = node.dispatch.outgoing.append(&draft, wall).expect("room");
        self.published.push(Publication { by, id: appended.id, topic: topic.to_owned(), listeners, subscribers });
        appended.sequence
    }

    /// What a publisher has appended goes out, as far as those it goes to have room.
    pub(crate) fn press(&mut self, node: usize) {
        let clock = self.clock_of(node);
        loop {
            let SimNode { dispatch, lanes, key, .. } = &mut self.nodes[node];
            let Some(Taken { place, builder, targets }) = dispatch.take(lanes, clock) else { break };
            let frame = Arc::new(builder.sign(place, MESH, key).expect("signed"));
            self.opened.insert(id_of(&frame.bytes), Arc::clone(&frame));
            let via = if targets.is_some() { Via::OwnOverLanes } else { Via::Own };
            targets.iter().for_each(|targets| dispatch.send(&frame, targets, lanes, clock));
            self.over_lanes += u64::from(targets.is_some());
            self.write(node);
            self.tell(node, Input::Frame { frame, via });
        }
        self.write(node);
        if let Some(at) = self.nodes[node].dispatch.next_timeout() {
            self.at(at.0.max(self.now + 1), Happening::Press { node });
        }
    }

    /// What waits for a node's lanes is written.
    fn write(&mut self, from: usize) {
        let clock = self.clock_of(from).mono;
        for lane in self.nodes[from].lanes.0.keys().copied().collect::<Vec<_>>() {
            loop {
                let latency = self.random.between(self.faults.latency.0, self.faults.latency.1);
                let Some(standing) = self.nodes[from].lanes.0.get_mut(&lane) else { break };
                let Some(record) = standing.outbox.next(clock).expect("encodes") else { break };
                let mut bytes = BytesMut::new();
                record.write(&mut bytes).expect("encodes");
                // A stream keeps its order.
                standing.arrives = standing.arrives.max(self.now + latency) + 1;
                let (to, arrives) = (standing.to, standing.arrives);
                self.at(arrives, Happening::OverLane { from, to, lane, bytes });
            }
        }
    }

    fn lane_opens(&mut self, from: usize, to: usize, lane: LaneId) {
        if !self.linked(from, to) || !self.reaches(from, to) || self.nodes[from].lanes.0.contains_key(&lane) {
            return;
        }
        self.nodes[from].lanes.0.insert(lane, SimLane { to, outbox: Outbox::default(), arrives: 0 });
        let (one, other) = (self.nodes[from].peer, self.nodes[to].peer);
        self.tell(from, Input::LaneUp { peer: other, lane });
        self.tell(to, Input::LaneBegun { peer: one, lane });
    }

    fn over_lane(&mut self, from: usize, to: usize, lane: LaneId, mut bytes: BytesMut) {
        if !self.reaches(from, to) || !self.nodes[from].lanes.0.contains_key(&lane) {
            return;
        }
        let author = self.nodes[from].peer;
        match Record::take(&mut bytes).expect("what was written can be read").expect("a whole record") {
            Record::Frame { since, frame } => {
                let frame = Arc::new(Frame::open_from(author, frame).expect("a frame"));
                self.tell(to, Input::Frame { frame, via: Via::Lane { lane, since } });
            }
            Record::Mark(mark) => self.tell(to, Input::Marked { from: author, mark }),
            Record::Grant(total) => {
                let clock = self.clock_of(to).mono;
                if let Some(lane) = self.nodes[to].lanes.0.get_mut(&lane) {
                    lane.outbox.granted(total, clock);
                }
                self.press(to);
            }
            other => panic!("nobody writes that here: {other:?}"),
        }
    }

    /// All lanes between two nodes break. The link stands.
    pub(crate) fn break_lanes(&mut self, one: usize, other: usize) {
        for (me, them) in [(one, other), (other, one)] {
            let broken: Vec<_> =
                self.nodes[me].lanes.0.extract_if(.., |_, lane| lane.to == them).map(|(lane, _)| lane).collect();
            for lane in broken {
                if self.nodes[me].up {
                    self.tell(me, Input::LaneDown { lane });
                }
            }
        }
    }

    /// The process ends without a word. Its links go at once.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].up = false;
        self.crash_disk(node);
        for other in self.nodes[node].links.keys().copied().collect::<Vec<_>>() {
            self.unlink(node, other);
        }
    }

    /// Of what was to be written, some may be on disk, though nobody was told, and one half of something else never is.
    fn crash_disk(&mut self, node: usize) {
        let jobs: Vec<Job> = std::mem::take(&mut self.nodes[node].jobs).into_iter().map(|(_, job)| job).collect();
        if jobs.is_empty() {
            return;
        }
        let written = self.random.below(jobs.len() + 1);
        let disk = &mut self.nodes[node].disk;
        store::run(disk, &jobs[..written]);
        for change in jobs.get(written).iter().flat_map(|job| job.changes.iter().take(1)) {
            disk.write(change).expect("room");
        }
        disk.crash();
    }

    /// What was to be written is, and whoever waits for it is told.
    fn sync(&mut self, node: usize) {
        let (ids, jobs): (Vec<_>, Vec<_>) = std::mem::take(&mut self.nodes[node].jobs).into_iter().unzip();
        let results = store::run(&mut self.nodes[node].disk, &jobs);
        for (id, result) in ids.into_iter().zip(results) {
            self.tell(node, Input::Stored { id, result });
        }
    }

    /// Puts nodes on a side. Sides do not hear each other; links between them die when somebody notices the silence.
    pub(crate) fn part(&mut self, sides: &[u8]) {
        for (node, side) in self.nodes.iter_mut().zip(sides) {
            node.side = *side;
        }
        let cut: Vec<_> = (0..self.nodes.len())
            .flat_map(|one| self.nodes[one].links.keys().map(move |other| (one, *other)))
            .filter(|(one, other)| one < other && !self.reaches(*one, *other))
            .collect();
        for (one, other) in cut {
            let silence = self.random.between(2_500 * MILLI, 4_500 * MILLI);
            self.at(self.now + silence, Happening::LinkDies { one, other });
        }
    }

    pub(crate) fn linked(&self, one: usize, other: usize) -> bool {
        self.nodes[one].links.contains_key(&other)
    }

    /// These two never get a link.
    pub(crate) fn bar(&mut self, one: usize, other: usize) {
        self.barred.extend([(one, other), (other, one)]);
    }

    fn reaches(&self, one: usize, other: usize) -> bool {
        if self.barred.contains(&(one, other)) {
            return false;
        }
        let (one, other) = (&self.nodes[one], &self.nodes[other]);
        one.up && other.up && one.side == other.side
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, span: u64) {
        let until = self.now + span;
        while let Some(entry) = self.happenings.first_entry().filter(|entry| entry.key().0 <= until) {
            let (time, _) = *entry.key();
            let happening = entry.remove();
            self.now = self.now.max(time);
            self.happen(happening);
        }
        self.now = until;
    }

    /// Lets time pass until something holds, for `span` at most. Says whether it came to hold.
    pub(crate) fn run_until(&mut self, span: u64, holds: impl Fn(&Self) -> bool) -> bool {
        let until = self.now + span;
        while !holds(self) {
            if self.now >= until {
                return false;
            }
            self.run(5 * MILLI);
        }
        true
    }

    // What happens.

    pub(crate) fn tell(&mut self, node: usize, input: Input) {
        let clock = self.clock_of(node);
        self.nodes[node].mesh.handle(input, clock);
        while let Some(output) = self.nodes[node].mesh.poll_output() {
            if let Some(feedback) = self.execute(node, output) {
                self.nodes[node].mesh.handle(feedback, clock);
            }
        }
        let wake = self.nodes[node].mesh.poll_timeout().map(|at| at.0.max(self.now));
        if wake != self.nodes[node].wake {
            self.nodes[node].wake = wake;
            if let Some(at) = wake {
                self.at(at, Happening::Wake { node });
            }
        }
    }

    fn execute(&mut self, me: usize, output: Output) -> Option<Input> {
        match output {
            Output::Dial { peer, addresses } => self.later(Happening::DialEnds { from: me, peer, addresses }),
            // No world has names.
            Output::Resolve { .. } => {}
            Output::Disconnect { peer } => {
                if let Some(other) = self.index(peer) {
                    let (one, other) = (me, other);
                    self.at(self.now, Happening::LinkDies { one, other });
                }
            }
            Output::Join { shard } => self.join(me, shard, true),
            Output::Leave { shard } => self.join(me, shard, false),
            Output::Gossip { frame } => {
                self.opened.insert(id_of(&frame.bytes), Arc::clone(&frame));
                if self.nodes[me].seen.insert(id_of(&frame.bytes)) {
                    self.spread(me, None, &frame);
                }
            }
            Output::OpenLane { peer, lane } => {
                if let Some(to) = self.index(peer).filter(|to| self.linked(me, *to)) {
                    let lane = lane.unwrap_or_else(|| LaneId(self.number()));
                    self.later(Happening::LaneOpens { from: me, to, lane });
                }
            }
            Output::Grant { lane, total } => {
                if let Some(lane) = self.nodes[me].lanes.0.get_mut(&lane) {
                    lane.outbox.push_grant(total);
                }
                self.write(me);
            }
            Output::Judge { from, gossip, verdict } => {
                let frame = self.nodes[me].judging.remove(&gossip.0)?;
                assert_ne!(verdict, Verdict::Reject, "all simulated nodes are honest");
                if verdict == Verdict::Accept {
                    let from = self.index(from);
                    self.spread(me, from, &frame);
                }
            }
            Output::Sign(unsigned) => return Some(Input::Signed(self.sign(me, unsigned))),
            Output::Send { id, to, request } => {
                self.requests_sent += 1;
                let Some(to) = self.index(to).filter(|to| self.linked(me, *to)) else {
                    return Some(Input::Response { id, result: Err(RpcFailure::NotSent) });
                };
                self.nodes[me].asked.insert(id, to);
                let bytes = request.encode().expect("encoded");
                if is_echoed(&request) && self.random.chance(ECHO) {
                    let at = self.now + self.random.between(1, 20 * SECOND);
                    self.at(at, Happening::Echo { from: me, to, bytes: bytes.clone() });
                }
                self.later(Happening::Request { from: me, to, id, bytes });
            }
            Output::Reply { to, response } => {
                let Some((asker, id)) = self.nodes[me].answering.remove(&to) else {
                    return Some(Input::Replied { id: to });
                };
                let bytes = response.encode().expect("encoded");
                self.later(Happening::Response { from: me, inbound: to, to: asker, id, bytes });
            }
            Output::Deliver { subscriber, delivery } => match delivery {
                Delivery::Frame(frame, routes) => self.nodes[me].unpack(subscriber, &frame, &routes),
                Delivery::Lagged(lag) => {
                    if let Some(subscriber) = self.nodes[me].subscribers.get_mut(&subscriber) {
                        subscriber.read.push(Read::Lagged(lag));
                    }
                }
            },
            Output::Serve { call, .. } => {
                self.served += 1;
                if self.slow_handlers {
                    self.nodes[me].running.insert(call.id, call.body);
                } else {
                    self.later(Happening::ReplyOf { node: me, call: call.id, body: call.body });
                }
            }
            Output::Store { id, job, .. } => {
                if self.nodes[me].jobs.is_empty() {
                    let incarnation = self.nodes[me].incarnation;
                    self.later(Happening::Sync { node: me, incarnation });
                }
                self.nodes[me].jobs.push((id, job));
            }
            Output::HandOut { holder, handed } => self.nodes[me].handed.push((holder, handed)),
            Output::Stop { call } => {
                self.nodes[me].stopped.insert(call);
            }
            Output::Answer { ticket, answer } => {
                assert!(self.nodes[me].answers.insert(ticket, answer).is_none(), "answered twice");
            }
            Output::Allow { shard, sequence } => self.nodes[me].dispatch.outgoing.allow(shard, sequence),
            Output::Routes(routes) => {
                self.nodes[me].dispatch.set_routes(Arc::clone(&routes));
                self.nodes[me].routes = routes;
            }
            Output::Announce(event) => self.nodes[me].events.push(event),
        }
        None
    }

    fn sign(&mut self, me: usize, unsigned: Unsigned) -> Signed {
        let key = &self.nodes[me].key;
        match unsigned {
            Unsigned::Head { place, time } => {
                Signed::Head(Arc::new(builder::head(place, time, MESH, key).expect("signed")))
            }
            Unsigned::Record(record) => Signed::Record(Box::new(record.sign(MESH, key).expect("signed"))),
            Unsigned::Again { frame, attempt } => {
                Signed::Again(Arc::new(builder::again(&frame, attempt, MESH, key).expect("signed")))
            }
            Unsigned::Letter { number, text } => {
                Signed::Letter { number, signature: custody::sign_letter(key, MESH, &text).expect("signed") }
            }
            Unsigned::Receipts { reply, fates, texts } => {
                let receipts = custody::sign_receipts(key, MESH, &texts).expect("signed");
                Signed::Receipts { reply, fates, receipts }
            }
        }
    }

    fn join(&mut self, me: usize, shard: u8, join: bool) {
        let one = crate::mesh::shards::ShardSet::of(shard);
        let joined = self.nodes[me].joined;
        self.nodes[me].joined = if join { joined.union(one) } else { joined.without(one) };
        for to in self.nodes[me].links.keys().copied().collect::<Vec<_>>() {
            self.later(Happening::Joins { from: me, to });
        }
    }

    /// Gossip to every linked neighbour that is known to take part in the shard.
    fn spread(&mut self, me: usize, but: Option<usize>, frame: &Frame) {
        let shard = frame.stream.shard();
        let node = &self.nodes[me];
        let takes_part = |to: &usize| node.others_joined.get(to).is_some_and(|joined| joined.contains(shard));
        let to: Vec<_> = node.links.keys().copied().filter(|to| Some(*to) != but && takes_part(to)).collect();
        for to in to {
            let copies = if self.random.chance(self.faults.duplicate) { 2 } else { 1 };
            for _ in 0..copies {
                if !self.deaf.contains(&to) && !self.random.chance(self.faults.drop) {
                    self.later(Happening::Gossip { from: me, to, frame: frame.bytes.clone() });
                }
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::DialEnds { from, peer, addresses } => self.dial_ends(from, peer, addresses),
            Happening::LinkDies { one, other } => self.unlink(one, other),
            Happening::Joins { from, to } => {
                if self.reaches(from, to) && self.linked(from, to) {
                    let joined = self.nodes[from].joined;
                    self.nodes[to].others_joined.insert(from, joined);
                }
            }
            Happening::Gossip { from, to, frame } => self.gossip_arrives(from, to, frame),
            Happening::Request { from, to, id, bytes } => {
                if self.reaches(from, to) && self.nodes[from].asked.get(&id) == Some(&to) {
                    let request = checked::request(MESH, &bytes).expect("what was encoded decodes");
                    let inbound = InboundId(self.number());
                    self.nodes[to].answering.insert(inbound, (from, id));
                    let from = self.nodes[from].peer;
                    self.tell(to, Input::Request { from, id: inbound, request });
                }
            }
            Happening::Response { from, inbound, to, id, bytes } => {
                if self.nodes[from].up {
                    self.tell(from, Input::Replied { id: inbound });
                }
                if self.reaches(from, to) && self.nodes[to].asked.get(&id) == Some(&from) {
                    self.nodes[to].asked.remove(&id);
                    let response = checked::response(MESH, &bytes).expect("what was encoded decodes");
                    self.tell(to, Input::Response { id, result: Ok(response) });
                }
            }
            Happening::Press { node } => {
                if self.nodes[node].up {
                    self.press(node);
                }
            }
            Happening::LaneOpens { from, to, lane } => self.lane_opens(from, to, lane),
            Happening::OverLane { from, to, lane, bytes } => self.over_lane(from, to, lane, bytes),
            Happening::Wake { node } => {
                if self.nodes[node].up && self.nodes[node].wake == Some(self.now) {
                    self.nodes[node].wake = None;
                    self.tell(node, Input::Timeout);
                }
            }
            Happening::ReplyOf { node, call, body } => self.reply(node, call, body),
            Happening::Sync { node, incarnation } => {
                if self.nodes[node].up && self.nodes[node].incarnation == incarnation {
                    self.sync(node);
                }
            }
            Happening::Echo { from, to, bytes } => {
                if self.reaches(from, to) {
                    let request = checked::request(MESH, &bytes).expect("what was encoded decodes");
                    let (id, from) = (InboundId(self.number()), self.nodes[from].peer);
                    self.tell(to, Input::Request { from, id, request });
                }
            }
        }
    }

    fn dial_ends(&mut self, from: usize, peer: Option<PeerId>, addresses: Vec<Multiaddr>) {
        if !self.nodes[from].up {
            return;
        }
        let at_address = addresses.iter().find_map(index_at);
        let to = peer.map_or(at_address, |peer| self.index(peer));
        let Some(to) = to.filter(|to| *to != from && self.reaches(from, *to)) else {
            let why = DialFailure::Unreachable("nobody there".to_owned());
            self.tell(from, Input::DialFailed { peer, addresses, why });
            return;
        };
        for (one, other) in [(from, to), (to, from)] {
            let links = self.nodes[one].links.entry(other).or_default();
            *links += 1;
            let links = *links;
            let joined = self.nodes[other].joined;
            self.nodes[one].others_joined.insert(other, joined);
            let (peer, address) = (self.nodes[other].peer, address_of(other));
            self.tell(one, Input::Connected { peer, address, links });
        }
    }

    /// The link between two nodes breaks. They may make another one.
    pub(crate) fn break_link(&mut self, one: usize, other: usize) {
        self.unlink(one, other);
    }

    fn unlink(&mut self, one: usize, other: usize) {
        self.break_lanes(one, other);
        for (me, them) in [(one, other), (other, one)] {
            if self.nodes[me].links.remove(&them).is_none() {
                continue;
            }
            self.nodes[me].others_joined.remove(&them);
            if !self.nodes[me].up {
                continue;
            }
            let open = self.nodes[me].asked.iter().filter(|(_, to)| **to == them).map(|(id, _)| *id);
            for id in open.collect::<Vec<_>>() {
                self.nodes[me].asked.remove(&id);
                self.tell(me, Input::Response { id, result: Err(RpcFailure::Unknown) });
            }
            let peer = self.nodes[them].peer;
            self.tell(me, Input::Disconnected { peer, links: 0 });
        }
    }

    fn gossip_arrives(&mut self, from: usize, to: usize, bytes: Bytes) {
        let id = id_of(&bytes);
        if !self.reaches(from, to) || !self.linked(from, to) || !self.nodes[to].seen.insert(id) {
            return;
        }
        let opened = &mut self.opened;
        let frame = opened.entry(id).or_insert_with(|| Arc::new(Frame::open(MESH, bytes).expect("a frame"))).clone();
        let gossip = GossipId(self.number());
        self.nodes[to].judging.insert(gossip.0, Arc::clone(&frame));
        let from = self.nodes[from].peer;
        self.tell(to, Input::Frame { frame, via: Via::Gossip { from, gossip } });
    }

    pub(crate) fn index(&self, peer: PeerId) -> Option<usize> {
        self.nodes.iter().position(|node| node.peer == peer)
    }

    pub(crate) fn name(&self, node: usize) -> NodeName {
        NodeName::Peer(self.nodes[node].peer)
    }
}

/// What may come again long after it was sent.
fn is_echoed(request: &Request) -> bool {
    matches!(request, Request::Offer { .. } | Request::Bring { .. } | Request::Keep { .. })
}

fn id_of(frame: &[u8]) -> [u8; 20] {
    let mut id = [0; 20];
    id.copy_from_slice(&blake3::hash(frame).as_bytes()[..20]);
    id
}

fn address_of(node: usize) -> Multiaddr {
    Multiaddr::empty().with(Protocol::Memory(u64::try_from(node + 1).expect("small")))
}

fn index_at(address: &Multiaddr) -> Option<usize> {
    address.iter().find_map(|part| match part {
        Protocol::Memory(number) => usize::try_from(number - 1).ok(),
        _ => None,
    })
}
