//! Each rule of the roster, one node at a time. `simulation` has many.

use libp2p_identity::Keypair;

use super::*;
use crate::mesh::effects::Asked;
use crate::mesh::event::{Checked, Output, RpcFailure, RpcId, Unsigned};
use crate::mesh::time::Wall;
use crate::wire::MeshId;
use crate::wire::frame::shard_of;
use crate::wire::node_key::NodeKey;
use crate::wire::roster::{MAX_RECORD, RosterRecord, Stamp};
use crate::wire::rpc::{Request, Response};

mod others;
mod own;

pub(super) const MESH: MeshId = MeshId([9; 16]);
/// When the tests begin, by the wall clock.
pub(super) const EPOCH: u64 = 1_700_000_000_000_000;

pub(super) fn key(seed: u16) -> Keypair {
    let mut bytes = [3; 32];
    bytes[..2].copy_from_slice(&seed.to_be_bytes());
    Keypair::ed25519_from_bytes(bytes).expect("a seed")
}

fn peer(seed: u16) -> PeerId {
    key(seed).public().to_peer_id()
}

pub(super) fn at(millis: u64) -> Now {
    Now { mono: Mono(millis * 1_000), wall: Wall(EPOCH + millis * 1_000) }
}

pub(super) fn interest(pattern: &str) -> Interest {
    Interest { pattern: pattern.into(), group: None }
}

/// A record of node `seed`, written at `millis`.
fn record(seed: u16, incarnation: u64, version: u64, millis: u64) -> RosterRecord {
    RosterRecord {
        node: NodeKey::of(&peer(seed)).expect("an Ed25519 key"),
        incarnation,
        version,
        time: EPOCH + millis * 1_000,
        left: false,
        relay: false,
        name: format!("node-{seed}"),
        addresses: Vec::new(),
        interests: vec![interest("orders.>")],
        services: vec!["shop.price".into()],
        extensions: Vec::new(),
    }
}

fn signed(seed: u16, record: RosterRecord) -> SignedRecord {
    let bytes = record.sign(MESH, &key(seed)).expect("signed").bytes;
    SignedRecord::open(MESH, bytes).expect("a good record")
}

struct Bench {
    roster: Roster,
    fx: Effects,
    now: Now,
}

impl Bench {
    fn new(announced: bool, max: usize) -> Self {
        let roster = Roster::new(peer(0), 5, "me".into(), false, announced, max);
        Self { roster, fx: Effects::new(1), now: at(0) }
    }

    /// A roster that has said its first word, with these neighbours.
    fn linked(neighbours: &[u16]) -> Self {
        let mut bench = Self::new(true, 100);
        bench.say("first");
        for seed in neighbours {
            bench.link(*seed);
        }
        bench.answer_all();
        bench
    }

    fn link(&mut self, seed: u16) -> Vec<Change> {
        self.roster.linked(peer(seed), self.now, &mut self.fx)
    }

    fn push(&mut self, from: u16, records: Vec<SignedRecord>) -> Vec<Change> {
        self.roster.on_push(peer(from), records, self.now, &mut self.fx)
    }

    fn say(&mut self, pattern: &str) -> u64 {
        let said = self.roster.set_interests(vec![interest(pattern)], self.now, &mut self.fx);
        assert_eq!(said, Ok(Fit::Whole));
        self.sign();
        self.roster.version()
    }

    /// Signs what waits for it. Returns the versions.
    fn sign(&mut self) -> Vec<u64> {
        let mut versions = Vec::new();
        let mut others = Vec::new();
        while let Some(output) = self.fx.pop() {
            if let Output::Sign(Unsigned::Record(record)) = output {
                versions.push(record.version);
                let record = signed(0, record);
                self.roster.signed(record, self.now, &mut self.fx);
            } else {
                others.push(output);
            }
        }
        others.into_iter().for_each(|output| self.fx.push(output));
        versions
    }

    /// The requests sent since the last look.
    fn sent(&mut self) -> Vec<(PeerId, RpcId, Request)> {
        let sent = |output| if let Output::Send { id, to, request } = output { Some((to, id, request)) } else { None };
        std::iter::from_fn(|| self.fx.pop()).filter_map(sent).collect()
    }

    /// The pushes sent since the last look: to whom, what.
    fn pushes(&mut self) -> Vec<(PeerId, RpcId, Vec<SignedRecord>)> {
        let open = |bytes| SignedRecord::open(MESH, bytes).expect("a good record");
        let push = |(to, id, request)| match request {
            Request::Push { records, .. } => Some((to, id, records.into_iter().map(open).collect())),
            _ => None,
        };
        self.sent().into_iter().filter_map(push).collect()
    }

    fn respond(&mut self, id: RpcId, result: Result<Response, RpcFailure>) -> Vec<Change> {
        let asked = self.fx.answered(id).expect("an open request");
        let records = match &result {
            Ok(Response::Records { records, .. }) => {
                records.iter().map(|bytes| SignedRecord::open(MESH, bytes.clone()).expect("good")).collect()
            }
            _ => Vec::new(),
        };
        let result = result.map(|body| Checked { records, ..Checked::from(body) });
        self.roster.on_response(id, &asked, result, self.now, &mut self.fx)
    }

    fn answer_all(&mut self) {
        loop {
            let sent = self.sent();
            if sent.is_empty() {
                break;
            }
            for (_, id, request) in sent {
                let answer = match request {
                    Request::Digest { .. } => {
                        Response::Differ { buckets: vec![], summaries: vec![], extensions: vec![] }
                    }
                    _ => Response::done(),
                };
                self.respond(id, Ok(answer));
            }
        }
    }

    fn wait(&mut self, millis: u64) -> Vec<Change> {
        self.until(self.now.mono.0 / 1_000 + millis)
    }

    /// Lets time pass, timer by timer, and answers nothing.
    fn until(&mut self, millis: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        let end = at(millis);
        while let Some(due) = self.roster.next_timeout().filter(|due| *due <= end.mono) {
            assert!(due >= self.now.mono || self.now == end, "a timer of the past");
            self.now = at(due.0 / 1_000 + u64::from(due.0 % 1_000 > 0));
            changes.extend(self.roster.on_timeout(self.now, &mut self.fx));
            self.sign();
        }
        self.now = end;
        changes
    }
}
