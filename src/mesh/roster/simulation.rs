//! Many rosters on a network in memory: virtual time, lost requests, partitions, and the real codecs.

use std::collections::{BTreeMap, BTreeSet};

use libp2p_identity::Keypair;

use super::tests::{MESH, at, interest, key};
use super::*;
use crate::mesh::event::{Checked, Output, RpcFailure, RpcId, Unsigned};
use crate::wire::roster::Stamp;
use crate::wire::rpc::{Request, Response};

struct Node {
    key: Keypair,
    roster: Roster,
    fx: Effects,
}

/// What arrives at a node.
enum Arrival {
    Signed(Bytes),
    Request { from: PeerId, id: RpcId, bytes: Vec<u8>, answered: bool },
    Response { from: PeerId, id: RpcId, bytes: Option<Vec<u8>> },
}

struct Net {
    nodes: BTreeMap<PeerId, Node>,
    links: BTreeSet<(PeerId, PeerId)>,
    /// By time in microseconds, then in the order of sending.
    wire: BTreeMap<(u64, u64), (PeerId, Arrival)>,
    sent: u64,
    now: u64,
    random: Effects,
    /// Of a hundred requests, so many fail.
    lossy: u64,
    /// How often each record was pushed.
    pushed: BTreeMap<(PeerId, Stamp), usize>,
    /// When each node next wants to be woken.
    timers: BTreeMap<PeerId, Mono>,
    /// Records that were opened before: checking one takes longer than all the rest.
    opened: BTreeMap<Bytes, SignedRecord>,
}

impl Net {
    fn new(count: u16, seed: u64) -> Self {
        let nodes = (0..count).map(|index| {
            let key = key(index);
            let me = key.public().to_peer_id();
            let roster = Roster::new(me, 1, format!("node-{index}"), false, true, 1_000);
            (me, Node { key, roster, fx: Effects::new(seed ^ u64::from(index)) })
        });
        let mut net = Self {
            nodes: nodes.collect(),
            links: BTreeSet::new(),
            wire: BTreeMap::new(),
            sent: 0,
            now: 0,
            random: Effects::new(seed),
            lossy: 0,
            pushed: BTreeMap::new(),
            timers: BTreeMap::new(),
            opened: BTreeMap::new(),
        };
        for peer in net.peers() {
            net.say(peer, "first");
        }
        net
    }

    fn peers(&self) -> Vec<PeerId> {
        self.nodes.keys().copied().collect()
    }

    /// A ring, so that all are reachable, and links at random up to that mean degree.
    fn graph(&mut self, peers: &[PeerId], degree: usize) {
        for (index, peer) in peers.iter().enumerate() {
            self.link(*peer, peers[(index + 1) % peers.len()]);
        }
        for _ in 0..peers.len() * (degree - 2) / 2 {
            let (one, other) = (self.random.below(peers.len()), self.random.below(peers.len()));
            self.link(peers[one], peers[other]);
        }
    }

    fn link(&mut self, one: PeerId, other: PeerId) {
        if one != other && self.links.insert((one.min(other), one.max(other))) {
            self.at(one, |node, now| node.roster.linked(other, now, &mut node.fx));
            self.at(other, |node, now| node.roster.linked(one, now, &mut node.fx));
        }
    }

    fn unlink(&mut self, one: PeerId, other: PeerId) {
        self.links.remove(&(one.min(other), one.max(other)));
        self.at(one, |node, now| node.roster.unlinked(&other, now, &mut node.fx));
        self.at(other, |node, now| node.roster.unlinked(&one, now, &mut node.fx));
    }

    fn is_linked(&self, one: PeerId, other: PeerId) -> bool {
        self.links.contains(&(one.min(other), one.max(other)))
    }

    /// Subscribes a node. Returns the stamp that says so.
    fn say(&mut self, peer: PeerId, pattern: &str) -> Stamp {
        let interests = vec![interest(pattern)];
        let fit = self.at(peer, |node, now| node.roster.set_interests(interests, now, &mut node.fx));
        assert_eq!(fit, Ok(Fit::Whole));
        Stamp { incarnation: 1, version: self.nodes[&peer].roster.version() }
    }

    /// Does something at a node, and sends what comes of it.
    fn at<T>(&mut self, peer: PeerId, act: impl FnOnce(&mut Node, Now) -> T) -> T {
        let now = Now { mono: Mono(self.now), ..at(self.now / 1_000) };
        let node = self.nodes.get_mut(&peer).expect("a node");
        let result = act(node, now);
        while let Some(output) = self.nodes.get_mut(&peer).and_then(|node| node.fx.pop()) {
            self.execute(peer, output);
        }
        match self.nodes.get(&peer).and_then(|node| node.roster.next_timeout()) {
            Some(at) => self.timers.insert(peer, at),
            None => self.timers.remove(&peer),
        };
        result
    }

    fn execute(&mut self, peer: PeerId, output: Output) {
        match output {
            Output::Sign(Unsigned::Record(record)) => {
                let bytes = record.sign(MESH, &self.nodes[&peer].key).expect("signed").bytes;
                self.deliver(peer, 200, Arrival::Signed(bytes));
            }
            Output::Send { id, to, request } => {
                if let Request::Push { records, .. } = &request {
                    for record in self.open(records) {
                        *self.pushed.entry((record.node, record.stamp())).or_default() += 1;
                    }
                }
                let bytes = request.encode().expect("encodes");
                assert!(bytes.len() < 1024 * 1024);
                let lost = self.random.random() % 100 < self.lossy;
                // Half of what fails was heard, and its answer lost.
                let heard = !lost || self.random.random().is_multiple_of(2);
                if heard {
                    self.deliver(to, 5_000, Arrival::Request { from: peer, id, bytes, answered: !lost });
                }
                if lost {
                    self.deliver(peer, 300_000, Arrival::Response { from: to, id, bytes: None });
                }
            }
            other => panic!("the roster does not do this: {other:?}"),
        }
    }

    fn open(&mut self, records: &[Bytes]) -> Vec<SignedRecord> {
        let open = |bytes: &Bytes| SignedRecord::open(MESH, bytes.clone()).expect("a good record");
        records.iter().map(|bytes| self.opened.entry(bytes.clone()).or_insert_with(|| open(bytes)).clone()).collect()
    }

    fn deliver(&mut self, to: PeerId, micros: u64, arrival: Arrival) {
        let due = self.now + self.random.jitter(Span(micros)).0;
        self.sent += 1;
        self.wire.insert((due, self.sent), (to, arrival));
    }

    /// Lets virtual time pass until then, or until `done`.
    fn run(&mut self, until: u64, done: impl Fn(&Self) -> bool) -> u64 {
        loop {
            let timer = self.timers.iter().map(|(peer, at)| (*at, *peer)).min();
            let arrival = self.wire.first_key_value().map(|((due, _), _)| *due);
            let next =
                timer.map(|(due, _)| due.0).into_iter().chain(arrival).min().filter(|next| *next <= until * 1_000);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let Some((_, (to, arrival))) = self.wire.pop_first() else { break };
                self.arrive(to, arrival);
            } else if let Some((_, peer)) = timer {
                self.at(peer, |node, now| node.roster.on_timeout(now, &mut node.fx));
            }
            if done(self) {
                return self.now / 1_000;
            }
        }
        self.now = until * 1_000;
        until
    }

    fn arrive(&mut self, to: PeerId, arrival: Arrival) {
        match arrival {
            Arrival::Signed(bytes) => {
                let record = self.open(&[bytes]).remove(0);
                self.at(to, |node, now| node.roster.signed(record, now, &mut node.fx));
            }
            Arrival::Request { from, id, .. } if !self.is_linked(from, to) => {
                self.deliver(from, 5_000, Arrival::Response { from: to, id, bytes: None });
            }
            Arrival::Request { from, id, bytes, answered } => {
                let request = Request::decode(&bytes).expect("decodes");
                let records = match &request {
                    Request::Push { records, .. } => self.open(records),
                    _ => Vec::new(),
                };
                let response = self.at(to, |node, now| match request {
                    Request::Push { .. } => {
                        node.roster.on_push(from, records, now, &mut node.fx);
                        Response::done()
                    }
                    Request::Digest { buckets, .. } => node.roster.on_digest(&buckets),
                    Request::Fetch { nodes, .. } => node.roster.on_fetch(&nodes),
                    other => panic!("the roster does not ask this: {other:?}"),
                });
                let bytes = Some(response.encode().expect("encodes"));
                if answered {
                    self.deliver(from, 5_000, Arrival::Response { from: to, id, bytes });
                }
            }
            Arrival::Response { from, id, bytes } => {
                let result = bytes.filter(|_| self.is_linked(from, to)).map(|bytes| {
                    let body = Response::decode(&bytes).expect("decodes");
                    let records = match &body {
                        Response::Records { records, .. } => self.open(records),
                        _ => Vec::new(),
                    };
                    Checked { records, ..Checked::from(body) }
                });
                self.at(to, |node, now| {
                    let asked = node.fx.answered(id).expect("asked");
                    node.roster.on_response(id, &asked, result.ok_or(RpcFailure::Unknown), now, &mut node.fx)
                });
            }
        }
    }

    /// Whether all nodes know that record of that node, or a newer one.
    fn all_know(&self, peer: PeerId, stamp: Stamp) -> bool {
        self.nodes
            .iter()
            .filter(|(other, _)| **other != peer)
            .all(|(_, node)| node.roster.get(&peer).is_some_and(|known| known.is_live() && known.stamp() >= stamp))
    }

    fn stamp(&self, peer: PeerId) -> Stamp {
        Stamp { incarnation: 1, version: self.nodes[&peer].roster.version() }
    }
}

/// Fifty nodes in a random graph of degree 8 that know each other.
fn settled(seed: u64) -> (Net, Vec<PeerId>) {
    let mut net = Net::new(50, seed);
    let peers = net.peers();
    net.graph(&peers, 8);
    net.run(9_000, |_| false);
    for peer in &peers {
        assert!(net.all_know(*peer, Stamp { incarnation: 1, version: 1 }));
    }
    (net, peers)
}

#[test]
fn a_change_reaches_all_of_fifty_within_two_seconds_though_a_fifth_fails() {
    for seed in 1..=2 {
        let (mut net, peers) = settled(seed);
        net.lossy = 20;
        for changer in [peers[0], peers[17]] {
            let begin = net.now / 1_000;
            let stamp = net.say(changer, "orders.eu.>");
            let end = net.run(begin + 10_000, |net| net.all_know(changer, stamp));
            assert!(end - begin <= 2_000, "{} ms with seed {seed}", end - begin);
        }
    }
}

#[test]
fn a_change_causes_no_storm() {
    let (mut net, peers) = settled(3);
    let begin = net.now / 1_000;
    let stamp = net.say(peers[5], "orders.eu.>");
    net.run(begin + 12_000, |_| false);
    assert!(net.all_know(peers[5], stamp));
    let pushed = net.pushed.get(&(peers[5], stamp)).copied().unwrap_or(0);
    // Each node tells each neighbour but the one it heard from, at most: two for each link, less one for each node.
    let most = 2 * net.links.len() - (peers.len() - 1);
    assert!((peers.len() - 1..=most).contains(&pushed), "{pushed} pushes, at most {most} make sense");
}

#[test]
fn a_healed_partition_agrees_within_ten_seconds() {
    let (mut net, peers) = settled(4);
    let (west, east) = peers.split_at(25);
    let cut: Vec<(PeerId, PeerId)> =
        net.links.iter().copied().filter(|(one, other)| west.contains(one) != west.contains(other)).collect();
    cut.iter().for_each(|(one, other)| net.unlink(*one, *other));
    net.run(30_000, |_| false);
    for changer in [west[3], east[3], east[4]] {
        net.say(changer, "cut.off");
    }
    net.run(120_000, |_| false);
    assert!(!net.all_know(west[3], net.stamp(west[3])));
    assert!(west.iter().all(|peer| net.nodes[peer].roster.live().count() == 24), "the others are suspect");
    let stamps: Vec<(PeerId, Stamp)> = peers.iter().map(|peer| (*peer, net.stamp(*peer))).collect();
    // Two links are enough.
    net.lossy = 20;
    net.link(west[0], east[0]);
    net.link(west[9], east[7]);
    let agree = |net: &Net| {
        stamps.iter().all(|(peer, stamp)| {
            let knows = |other: &PeerId| {
                other == peer || net.nodes[other].roster.get(peer).is_some_and(|known| known.stamp() >= *stamp)
            };
            peers.iter().all(knows)
        })
    };
    let end = net.run(140_000, agree);
    assert!(end <= 130_000, "{} ms", end - 120_000);
    net.run(150_000, |_| false);
    assert!(peers.iter().all(|peer| net.nodes[peer].roster.live().count() == 49), "all are back");
}

#[test]
fn without_changes_there_is_little_to_say() {
    let (mut net, peers) = settled(5);
    let before = net.sent;
    let begin = net.now / 1_000;
    net.run(begin + 60_000, |_| false);
    // A minute: three refreshes of each node, and a dozen comparisons by each.
    let requests = (net.sent - before) / 2;
    let most = (peers.len() * (3 * 2 * net.links.len() + 2 * 12)) as u64;
    assert!(requests < most, "{requests} requests, expected fewer than {most}");
}
