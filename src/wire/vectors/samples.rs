//! The values that the vectors of `docs/wire.md` are made of: fixed keys, fixed times.

use bytes::Bytes;
use libp2p_identity::{Keypair, PeerId};

use crate::Headers;
use crate::wire::builder::head;
use crate::wire::codec::Extension;
use crate::wire::custody::{self, Brought, Copied, CopyStage, End, Entrusted, Released};
use crate::wire::frame::{Channel, Choice, Fragment, Frame, FrameBuilder, Outbound, Place, Stream, shard_of};
use crate::wire::letter::Letter;
use crate::wire::letter::ReasonRow;
use crate::wire::local::{
    Act, Arrived, DurableAt, Failure, Found, FromNode, Guarantee, Handed, KnownAt, Notice, Peer, Post, ToNode, Waiting,
};
use crate::wire::node_key::NodeKey;
use crate::wire::roster::{Durable, Interest, RosterRecord, SignedRecord, Stamp, extensions};
use crate::wire::rpc::{
    Call, Fate, Known, Offered, Position, Reply, ReplyStatus, Request, Response, StageRow, StreamRef, Summary, Turn,
};
use crate::wire::{MeshId, MessageId};

pub(in crate::wire) const MESH: MeshId = MeshId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
pub(in crate::wire) const INCARNATION: u64 = 1_760_000_000_000;
pub(in crate::wire) const TIME: u64 = 1_760_000_000_123_456;
pub(in crate::wire) const START: [u8; 8] = [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7];

/// A node whose Ed25519 seed is 32 times this byte.
pub(in crate::wire) fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).expect("a seed")
}

pub(in crate::wire) fn peer(seed: u8) -> PeerId {
    key(seed).public().to_peer_id()
}

pub(in crate::wire) fn node_key(seed: u8) -> NodeKey {
    NodeKey::of(&peer(seed)).expect("an Ed25519 key")
}

pub(in crate::wire) fn place(sequence: u64, count: u64) -> Place {
    let channel = Channel::Shard(shard_of("orders"));
    let stream = Stream { node: peer(1), incarnation: INCARNATION, channel };
    Place { stream, sequence, count, attempt: 0, start: START }
}

pub(in crate::wire) fn messages() -> Frame {
    let mut builder = FrameBuilder::default();
    let headers: Headers = [("tenant", "acme")].into_iter().collect();
    let first = Outbound {
        topic: "orders.eu.created",
        content_type: "application/json",
        headers: &headers,
        choices: &[Choice { group: "packers".into(), member: node_key(2) }],
        counter: 41,
        time: TIME,
        fragment: None,
        payload: br#"{"id":1}"#,
    };
    builder.push(&first).expect("fits");
    let none = Headers::default();
    let second =
        Outbound { topic: "orders.eu.paid", headers: &none, choices: &[], counter: 42, time: TIME + 250, ..first };
    builder.push(&Outbound { payload: b"300", ..second }).expect("fits");
    builder.sign(place(7, 21), MESH, &key(1)).expect("signs")
}

pub(in crate::wire) fn fragment() -> Frame {
    let mut builder = FrameBuilder::default();
    let message = Outbound {
        topic: "orders.eu.created",
        content_type: "text/plain",
        headers: &Headers::default(),
        choices: &[],
        counter: 43,
        time: TIME,
        fragment: Some(Fragment { index: 1, count: 3 }),
        payload: b"the middle",
    };
    builder.push(&message).expect("fits");
    builder.sign(Place { attempt: 1, ..place(9, 21) }, MESH, &key(1)).expect("signs")
}

pub(in crate::wire) fn stream_head() -> Frame {
    head(place(7, 21), TIME, MESH, &key(1)).expect("signs")
}

pub(in crate::wire) fn record() -> SignedRecord {
    let record = RosterRecord {
        node: node_key(1),
        incarnation: INCARNATION,
        version: 3,
        time: TIME,
        left: false,
        relay: true,
        name: "shop".into(),
        addresses: vec!["/ip4/192.0.2.1/tcp/4001".parse().expect("an address")],
        interests: vec![
            Interest { pattern: "log.*".into(), group: None },
            Interest { pattern: "orders.>".into(), group: Some("packers".into()) },
        ],
        services: vec!["shop.price".into()],
        extensions: Vec::new(),
    };
    record.sign(MESH, &key(1)).expect("signs")
}

pub(in crate::wire) fn tombstone() -> SignedRecord {
    let record = RosterRecord {
        version: 4,
        left: true,
        relay: false,
        addresses: Vec::new(),
        interests: Vec::new(),
        services: Vec::new(),
        ..record().record
    };
    record.sign(MESH, &key(1)).expect("signs")
}

/// A guaranteed message.
pub(in crate::wire) fn letter() -> Letter {
    Letter {
        id: MessageId { start: START, counter: 45 },
        topic: "orders.eu.paid".into(),
        content_type: "text/plain".into(),
        headers: [("tenant", "acme")].into_iter().collect(),
        time: TIME,
        expires: TIME + 60_000_000,
        payload: Bytes::from_static(b"300"),
    }
}

/// One that is asked about, and one that is new.
fn offered() -> Vec<Offered> {
    let id = MessageId { start: START, counter: 44 };
    let asked = Offered { id, attempts: 0, lease: 0, take_back: true, sealed: Bytes::new() };
    let letter = letter();
    vec![
        asked,
        Offered { id: letter.id, attempts: 1, lease: 2, take_back: false, sealed: letter.seal().expect("seals") },
    ]
}

/// A record of a node with a durable subscription.
pub(in crate::wire) fn letter_signature() -> Bytes {
    entrusted().signature
}

pub(in crate::wire) fn durable_record() -> SignedRecord {
    let durable = Durable { name: "billing".into(), pattern: "orders.>".into(), window: 64 };
    let extensions = extensions(&[durable], true).expect("encodes");
    RosterRecord { version: 5, extensions, ..record().record }.sign(MESH, &key(1)).expect("signs")
}

fn stream() -> StreamRef {
    StreamRef::of(&place(1, 1).stream).expect("an Ed25519 key")
}

fn call() -> Call {
    Call {
        call: 5,
        service: "shop.price".into(),
        timeout: 2_000,
        content_type: "application/json".into(),
        headers: tenant(),
        body: Bytes::from_static(b"[1,2]"),
        extensions: Vec::new(),
    }
}

fn reply() -> Reply {
    Reply {
        status: ReplyStatus::Ok,
        content_type: "application/json".into(),
        headers: Headers::default(),
        body: Bytes::from_static(b"300"),
        extensions: Vec::new(),
    }
}

fn known() -> Known {
    Known { recipient: "billing".into(), stage: StageRow::Given(node_key(2)), time: TIME }
}

fn tenant() -> Headers {
    [("tenant", "acme")].into_iter().collect()
}

/// The letter with what its sender signs for those who keep it.
fn entrusted() -> Entrusted {
    let (sealed, to) = (letter().seal().expect("seals"), vec!["audit".into(), "billing".into()]);
    let signature = custody::sign_letter(&key(1), MESH, &custody::letter_text(&sealed, &to)).expect("signs");
    Entrusted { rank: 0, to, signature, sealed }
}

fn brought() -> Brought {
    let Entrusted { to, signature, sealed, .. } = entrusted();
    Brought { offered: Offered { id: letter().id, attempts: 0, lease: 0, take_back: false, sealed }, to, signature }
}

/// The word of B that it has processed the letter.
pub(in crate::wire) fn receipt() -> Bytes {
    let text = custody::receipt_text(node_key(1), letter().id, End::Processed, "billing");
    custody::sign_receipts(&key(2), MESH, &[text]).expect("signs").remove(0)
}

fn copied() -> Copied {
    let stage = CopyStage::Over { at: node_key(2), end: End::Processed, receipt: receipt() };
    Copied { id: letter().id, to: "billing".into(), stage }
}

/// One request of each variant, in their order.
pub(in crate::wire) fn requests() -> Vec<(&'static str, Request)> {
    let extensions = Vec::new;
    let positions = vec![Position { stream: stream(), sequence: 7, count: 21 }];
    let frame = stream_head().bytes;
    let buckets = (0..256).map(|bucket| if bucket == 3 { 0x0123_4567_89ab_cdef } else { 0 }).collect();
    vec![
        ("call", Request::Call(call())),
        ("cancel", Request::Cancel { call: 5, extensions: extensions() }),
        ("inject", Request::Inject { frames: vec![frame], extensions: extensions() }),
        ("repair", Request::Repair { stream: stream(), from: 5, to: 300, extensions: extensions() }),
        ("acknowledge", Request::Acknowledge { positions: positions.clone(), extensions: extensions() }),
        ("heads", Request::Heads { positions, extensions: extensions() }),
        ("push", Request::Push { records: vec![tombstone().bytes], extensions: extensions() }),
        ("digest", Request::Digest { buckets, extensions: extensions() }),
        ("fetch", Request::Fetch { nodes: vec![node_key(2)], extensions: extensions() }),
        (
            "offer",
            Request::Offer {
                to: "billing".into(),
                turn: Turn { run: INCARNATION, count: 12 },
                tell: true,
                settled: vec![MessageId { start: START, counter: 43 }],
                letters: offered(),
                extensions: extensions(),
            },
        ),
        ("where", Request::Where { id: MessageId { start: START, counter: 45 }, extensions: extensions() }),
        ("progress", Request::Progress { of: "billing".into(), extensions: extensions() }),
        (
            "keep",
            Request::Keep {
                turn: Turn { run: INCARNATION, count: 13 },
                letters: vec![entrusted()],
                asked: vec![MessageId { start: START, counter: 44 }],
                released: vec![Released { id: MessageId { start: START, counter: 43 }, to: "billing".into() }],
                extensions: extensions(),
            },
        ),
        (
            "bring",
            Request::Bring {
                to: "billing".into(),
                sender: node_key(1),
                letters: vec![brought()],
                extensions: extensions(),
            },
        ),
    ]
}

/// One response of each variant, in their order.
pub(in crate::wire) fn responses() -> Vec<(&'static str, Response)> {
    let extensions = Vec::new;
    let summaries = vec![Summary { node: node_key(1), stamp: Stamp { incarnation: INCARNATION, version: 4 } }];
    let frames = vec![stream_head().bytes];
    vec![
        ("done", Response::Done { extensions: vec![Extension { tag: 192, value: vec![0xca, 0xfe] }] }),
        ("reply", Response::Reply(reply())),
        ("injected", Response::Injected { taken: 1, listeners: 2, extensions: extensions() }),
        ("frames", Response::Frames { frames, floor: 4, more: true, extensions: extensions() }),
        ("differ", Response::Differ { buckets: vec![3], summaries, extensions: extensions() }),
        ("records", Response::Records { records: vec![tombstone().bytes], extensions: extensions() }),
        (
            "offered",
            Response::Offered {
                fates: vec![Fate::Processed, Fate::Withdrawn { attempts: 2 }],
                extensions: extensions(),
            },
        ),
        ("known", Response::Known { known: vec![known()], extensions: extensions() }),
        (
            "kept",
            Response::Kept { sender: node_key(1), kept: vec![true], known: vec![copied()], extensions: extensions() },
        ),
        (
            "brought",
            Response::Brought { fates: vec![Fate::Processed], receipts: vec![receipt()], extensions: extensions() },
        ),
    ]
}

/// One record of each variant that a process writes to its node's socket, in their order.
pub(in crate::wire) fn to_node() -> Vec<(&'static str, ToNode)> {
    let extensions = Vec::new;
    let post = Post {
        topic: "orders.eu.created".into(),
        content_type: "application/json".into(),
        headers: tenant(),
        min_peers: 1,
        timeout: 5_000,
        guarantee: Some(Guarantee { ttl: 60_000, to: vec!["billing".into()], copies: 2 }),
        payload: Bytes::from_static(br#"{"id":1}"#),
        extensions: extensions(),
    };
    let (patterns, group) = (vec!["log.*".into(), "orders.>".into()], Some("packers".into()));
    let (name, pattern, attempts) = ("billing".into(), "orders.>".into(), Some(5));
    let hold = ToNode::Hold { name, pattern, window: 64, attempts, extensions: extensions() };
    let (recipient, act) = ("billing".into(), Act::Retry { ttl: 60_000 });
    let act = ToNode::Notice { number: 41, recipient, act, extensions: extensions() };
    vec![
        ("hello", ToNode::Hello { extensions: extensions() }),
        ("publish", ToNode::Publish(post)),
        ("subscribe", ToNode::Subscribe { patterns, group, peers: 0, timeout: 5_000, extensions: extensions() }),
        ("request", ToNode::Request { to: Some("shop".into()), call: call() }),
        ("serve", ToNode::Serve { service: "shop.price".into(), room: 64, extensions: extensions() }),
        ("peers", ToNode::Peers { extensions: extensions() }),
        ("watch", ToNode::Watch { extensions: extensions() }),
        ("reply", ToNode::Reply { call: 5, reply: reply() }),
        ("finish", ToNode::Finish { extensions: extensions() }),
        ("hold", hold),
        ("acknowledge", ToNode::Acknowledge { number: 7, extensions: extensions() }),
        ("give-back", ToNode::GiveBack { number: 7, after: Some(2_000), extensions: extensions() }),
        ("notices", ToNode::Notices { extensions: extensions() }),
        ("notice", act),
        ("outbox", ToNode::Outbox { extensions: extensions() }),
        ("durables", ToNode::Durables { extensions: extensions() }),
        ("remove", ToNode::Remove { name: "billing".into(), extensions: extensions() }),
        ("where", ToNode::Where { id: MessageId { start: START, counter: 45 }, extensions: extensions() }),
    ]
}

/// One record of each variant that a node writes to its socket, in their order.
pub(in crate::wire) fn from_node() -> Vec<(&'static str, FromNode)> {
    let extensions = Vec::new;
    let id = MessageId { start: START, counter: 41 };
    let message = Arrived {
        topic: "orders.eu.created".into(),
        source: node_key(1),
        id,
        time: TIME,
        content_type: "application/json".into(),
        headers: tenant(),
        payload: Bytes::from_static(br#"{"id":1}"#),
        extensions: extensions(),
    };
    let record = record().record;
    let peer = Peer {
        node: node_key(1),
        name: record.name,
        addresses: record.addresses,
        links: 1,
        round_trip: Some(250),
        found_by: Some(Found::Mdns),
        interests: record.interests,
        services: record.services,
        relay: true,
        suspect: false,
        extensions: extensions(),
    };
    let failure = Failure::Nobody { wanted: 2, found: 1 };
    let recipients = vec!["billing".into()];
    let accepted = FromNode::Accepted { id, recipients, copies: 1, wanted: 2, extensions: extensions() };
    let handed = Handed { number: 7, attempt: 2, message: message.clone() };
    let notice = Notice {
        number: 41,
        id,
        topic: "orders.eu.created".into(),
        recipient: "billing".into(),
        reason: ReasonRow::Stored,
        time: TIME,
        expires: TIME,
        offers: 3,
        stored: Some((node_key(2), TIME)),
        extensions: extensions(),
    };
    let owed = vec![("billing".into(), true)];
    let waiting = Waiting { id, topic: "orders.eu.created".into(), expires: TIME, owed, extensions: extensions() };
    let known_at = KnownAt { node: node_key(1), node_name: "shop".into(), known: known(), extensions: extensions() };
    let durable = DurableAt {
        name: "billing".into(),
        pattern: "orders.>".into(),
        node: node_key(1),
        node_name: "shop".into(),
        live: true,
        here: Some((1, 12)),
        extensions: extensions(),
    };
    vec![
        ("welcome", FromNode::Welcome { node: node_key(1), name: "shop".into(), mesh: MESH, extensions: extensions() }),
        ("busy", FromNode::Busy { extensions: extensions() }),
        ("done", FromNode::Done { extensions: extensions() }),
        ("published", FromNode::Published { id, listeners: 2, extensions: extensions() }),
        ("message", FromNode::Message(message)),
        ("lagged", FromNode::Lagged { missed: 3, exact: true, extensions: extensions() }),
        ("reply", FromNode::Reply { from: node_key(2), reply: reply() }),
        ("call", FromNode::Call { from: node_key(2), call: call() }),
        ("stop", FromNode::Stop { call: 5, extensions: extensions() }),
        ("peer", FromNode::Peer(Box::new(peer))),
        ("changed", FromNode::Changed { extensions: extensions() }),
        ("failed", FromNode::Failed { failure, extensions: extensions() }),
        ("accepted", accepted),
        ("handed", FromNode::Handed(handed)),
        ("acknowledged", FromNode::Acknowledged { number: 7, failure: Some(Failure::Late), extensions: extensions() }),
        ("total", FromNode::Total { total: 1, bytes: 320, extensions: extensions() }),
        ("notice", FromNode::Notice(Box::new(notice))),
        ("waiting", FromNode::Waiting(waiting)),
        ("durable", FromNode::Durable(durable)),
        ("known", FromNode::Known(known_at)),
    ]
}
