//! What is refused, case by case: hostile headers, messages and records, and what no builder makes.

use super::builder::{again, head};
use super::codec::{self, CodecError, Extension};
use super::frame::{
    Choice, Entry, Fragment, Frame, FrameBuilder, FrameError, Header, MAX_CHOICES, MAX_CONTENT_TYPES, MAX_FRAGMENTS,
    MAX_FRAME, MAX_TABLE, MAX_TEXT, Place, gossip_id,
};
use super::node_key::{Purpose, SIGNATURE};
use super::properties::{Sent, frame_of, signed, signed_again};
use super::roster::{Interest, RecordError, RosterRecord, SignedRecord};
use super::rpc::{Call, MAX_TIMEOUT, Position, Reply, Request, Response, StreamRef};
use super::vectors::samples::{self, MESH, key, node_key, place};
use crate::{Headers, topic};

fn whole(topic: &str) -> Sent {
    Sent {
        topic: topic.to_owned(),
        content_type: String::new(),
        headers: Headers::default(),
        choices: Vec::new(),
        counter: 1,
        time: 1,
        fragment: None,
        payload: Vec::new(),
    }
}

#[test]
fn full_tables_end_a_frame() {
    let topics: Vec<Sent> = (0..=MAX_TABLE).map(|n| whole(&format!("orders.{n}"))).collect();
    assert_eq!(frame_of(&topics).1.len(), MAX_TABLE);
    let types: Vec<Sent> =
        (0..=MAX_CONTENT_TYPES).map(|n| Sent { content_type: n.to_string(), ..whole("orders") }).collect();
    assert_eq!(frame_of(&types).1.len(), MAX_CONTENT_TYPES);
    for messages in [topics, types] {
        Frame::open(MESH, signed(&frame_of(&messages).0).bytes).expect("opens");
    }
}

#[test]
fn the_largest_message_beside_its_payload_leaves_room() {
    let choice = |n| Choice { group: format!("{n:0>MAX_TEXT$}"), member: node_key(2) };
    let message = Sent {
        topic: format!("orders.{}", "a".repeat(topic::MAX_NAME - 7)),
        content_type: "a".repeat(MAX_TEXT),
        headers: (0..Headers::MAX_COUNT).map(|_| ("n".repeat(4), "v".repeat(252))).collect(),
        choices: (0..MAX_CHOICES).map(choice).collect(),
        fragment: Some(Fragment { index: MAX_FRAGMENTS - 1, count: MAX_FRAGMENTS }),
        ..whole("orders")
    };
    let room = FrameBuilder::room(message.outbound().beside());
    assert!(room > MAX_FRAME / 3, "{room}");
    let message = Sent { payload: vec![0; room], ..message };
    let mut builder = FrameBuilder::default();
    builder.push(&message.outbound()).expect("fits");
    Frame::open(MESH, signed(&builder).bytes).expect("opens");
}

#[test]
fn what_no_reader_takes_cannot_be_pushed() {
    let good = whole("orders");
    let fragment = |index, count| Some(Fragment { index, count });
    let bad = [
        Sent { content_type: "a".repeat(MAX_TEXT + 1), ..good.clone() },
        Sent { headers: (0..65).map(|_| ("a", "b")).collect(), ..good.clone() },
        Sent { choices: vec![Choice { group: String::new(), member: node_key(2) }; MAX_CHOICES + 1], ..good.clone() },
        Sent { fragment: fragment(0, 1), ..good.clone() },
        Sent { fragment: fragment(3, 3), ..good.clone() },
        Sent { fragment: fragment(u32::MAX, 0), ..good.clone() },
        Sent { fragment: fragment(0, MAX_FRAGMENTS + 1), ..good.clone() },
        Sent { time: codec::MAX_NUMBER + 1, ..good.clone() },
    ];
    for message in bad {
        let mut builder = FrameBuilder::default();
        assert!(builder.push(&message.outbound()).is_err(), "{message:?}");
        assert!(builder.is_empty() && builder.len() == FrameBuilder::default().len());
    }
}

#[test]
fn places_that_no_reader_takes_are_not_signed() {
    let (builder, _) = frame_of(&[whole("orders")]);
    let sign = |place: Place| builder.clone().sign(place, MESH, &key(1));
    assert!(sign(place(0, 1)).is_err());
    assert!(sign(place(1, 0)).is_err(), "fewer in all than in the frame");
    assert!(sign(place(u64::MAX, 1)).is_err());
    assert!(sign(place(1, u64::MAX)).is_err());
    assert!(head(place(1, 1), u64::MAX, MESH, &key(1)).is_err());
    let (builder, _) = frame_of(&[whole("other")]);
    assert!(builder.sign(place(1, 1), MESH, &key(1)).is_err(), "a topic of another shard");
}

#[test]
fn a_frame_that_is_signed_again_is_the_same_with_another_id() {
    let first = samples::messages();
    let second = again(&first, 1, MESH, &key(1)).expect("signs");
    assert_ne!(gossip_id("a", &first.bytes), gossip_id("a", &second.bytes));
    assert_ne!(gossip_id("a", &first.bytes), gossip_id("b", &first.bytes));
    let opened = Frame::open(MESH, second.bytes).expect("opens");
    assert_eq!(opened.header, Header { attempt: 1, ..first.header.clone() });
    let read = |frame: &Frame| frame.entries().map(|entry| format!("{entry:?}")).collect::<Vec<_>>();
    assert_eq!(read(&opened), read(&first));
}

/// A frame of A with this header and body, signed though it may be wrong.
fn forged(kind: u8, change: impl FnOnce(&mut Header), body: &[u8]) -> Result<Frame, FrameError> {
    let mut header = samples::stream_head().header;
    change(&mut header);
    let mut bytes = vec![1, kind];
    codec::encode_into(&header, &mut bytes).expect("encodes");
    bytes.extend_from_slice(body);
    bytes.extend([0; SIGNATURE]);
    Frame::open(MESH, signed_again(&bytes, Purpose::Frame))
}

#[test]
fn hostile_headers_are_refused() {
    let texts = |count| vec!["orders".to_owned(); count];
    let choices = vec![Choice { group: String::new(), member: node_key(2) }; MAX_TABLE + 1];
    assert!(forged(1, |_| {}, &[]).is_ok() && forged(2, |_| {}, &[]).is_ok());
    assert!(forged(1, |header| header.topics = texts(MAX_TABLE), &[]).is_ok());
    assert!(forged(1, |header| header.topics = texts(MAX_TABLE + 1), &[]).is_err());
    assert!(forged(1, |header| header.topics = vec![String::new(); 30_000], &[]).is_err());
    assert!(forged(1, |header| header.topics = vec!["demo".into()], &[]).is_err());
    assert!(forged(1, |header| header.content_types = texts(MAX_CONTENT_TYPES + 1), &[]).is_err());
    assert!(forged(1, |header| header.content_types = vec!["a".repeat(MAX_TEXT + 1)], &[]).is_err());
    assert!(forged(1, |header| header.choices = choices, &[]).is_err());
    assert!(forged(1, |header| header.sequence = 0, &[]).is_err());
    assert!(forged(1, |header| header.sequence = 1 << 63, &[]).is_err());
    assert!(forged(1, |header| header.messages = 22, &[]).is_err());
    assert!(forged(1, |header| header.extensions = vec![Extension { tag: 1, value: vec![] }], &[]).is_err());
    assert!(forged(1, |header| header.extensions = vec![Extension { tag: 255, value: vec![] }; 17], &[]).is_err());
    assert!(forged(2, |header| header.messages = 1, &[]).is_err());
    assert!(forged(2, |header| header.topics = texts(1), &[]).is_err());
    assert!(forged(2, |_| {}, &[0]).is_err());
    assert!(forged(1, |_| {}, &vec![0; MAX_FRAME]).is_err());
}

#[test]
fn hostile_messages_end_their_frame_and_foreign_ones_are_left_out() {
    let plain = Entry {
        topic: 0,
        content_type: 0,
        counter: 0,
        time: 0,
        fragment: None,
        choices: vec![],
        headers: vec![],
        extensions: vec![],
        payload: b"x",
    };
    let read = |messages: u32, entries: &[Entry<'_>]| -> Vec<&str> {
        let mut body = Vec::new();
        for entry in entries {
            codec::encode_into(entry, &mut body).expect("encodes");
        }
        let tables = |header: &mut Header| {
            (header.messages, header.topics, header.content_types) =
                (messages, vec!["orders".into()], vec![String::new()]);
        };
        let frame = forged(1, tables, &body).expect("opens");
        let name = |entry| match entry {
            Ok(_) => "message",
            Err(CodecError::Extension(_)) => "foreign",
            Err(CodecError::Malformed(_) | CodecError::LeftOver(_)) => "malformed",
        };
        frame.entries().map(name).collect()
    };
    let foreign = Entry { extensions: vec![Extension { tag: 5, value: vec![] }], ..plain.clone() };
    assert_eq!(read(3, &[plain.clone(), foreign, plain.clone()]), ["message", "foreign", "message"]);
    assert_eq!(read(2, std::slice::from_ref(&plain)), ["message", "malformed"], "fewer than promised");
    let bad = [
        Entry { topic: 1, ..plain.clone() },
        Entry { content_type: u32::MAX, ..plain.clone() },
        Entry { choices: vec![0], ..plain.clone() },
        Entry { choices: vec![0; MAX_CHOICES + 1], ..plain.clone() },
        Entry { headers: vec![("", ""); Headers::MAX_COUNT + 1], ..plain.clone() },
        Entry { fragment: Some(Fragment { index: 0, count: 0 }), ..plain.clone() },
        Entry { fragment: Some(Fragment { index: 2, count: 2 }), ..plain.clone() },
        Entry { time: u64::MAX, ..plain.clone() },
    ];
    for entry in bad {
        assert_eq!(read(3, &[plain.clone(), entry.clone(), plain.clone()]), ["message", "malformed"], "{entry:?}");
    }
}

#[test]
fn a_roster_record_is_held_to_its_limits_on_both_sides() {
    let good = samples::record().record;
    let interest = Interest { pattern: "a".into(), group: None };
    let bad = [
        RosterRecord { name: "a\u{1b}[2J".into(), ..good.clone() },
        RosterRecord { name: "a".repeat(65), ..good.clone() },
        RosterRecord { interests: vec![Interest { pattern: "a..b".into(), group: None }], ..good.clone() },
        RosterRecord { interests: vec![Interest { pattern: "a".into(), group: Some("\n".into()) }], ..good.clone() },
        RosterRecord { interests: vec![interest.clone(); 1_025], ..good.clone() },
        RosterRecord { interests: vec![interest; 100_000], ..good.clone() },
        RosterRecord { services: vec!["a.*".into()], ..good.clone() },
        RosterRecord { services: vec!["a".into(); 257], ..good.clone() },
        RosterRecord { version: 1 << 63, ..good },
    ];
    for record in bad {
        let mut bytes = vec![1, 3];
        codec::encode_into(&record, &mut bytes).expect("encodes");
        bytes.extend([0; SIGNATURE]);
        let opened = SignedRecord::open(MESH, signed_again(&bytes, Purpose::RosterRecord));
        assert!(!matches!(opened, Ok(_) | Err(RecordError::Signature)), "{opened:?}");
        assert!(record.sign(MESH, &key(1)).is_err());
    }
}

fn encoded<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![1];
    codec::encode_into(value, &mut bytes).expect("encodes");
    bytes
}

#[test]
fn requests_are_held_to_their_limits_on_both_sides() {
    let extensions = Vec::new;
    let Some((_, Request::Call(call))) = samples::requests().into_iter().next() else { panic!("calls come first") };
    let stream = StreamRef::of(&place(1, 1).stream).expect("an Ed25519 key");
    let position = |sequence| Position { stream, sequence, count: 1 };
    let bad = [
        Request::Call(Call { service: "a".repeat(257), ..call.clone() }),
        Request::Call(Call { content_type: "a".repeat(257), ..call.clone() }),
        Request::Call(Call { headers: (0..65).map(|_| ("a", "b")).collect(), ..call.clone() }),
        Request::Call(Call { headers: [("a", "b".repeat(16 * 1024))].into_iter().collect(), ..call.clone() }),
        Request::Repair { stream, from: 2, to: 1, extensions: extensions() },
        Request::Repair { stream, from: 1, to: 1 << 63, extensions: extensions() },
        Request::Heads { positions: vec![position(1 << 63)], extensions: extensions() },
        Request::Acknowledge { positions: vec![position(1); codec::MAX_LIST + 1], extensions: extensions() },
        Request::Inject { frames: vec![bytes::Bytes::new(); codec::MAX_LIST + 1], extensions: extensions() },
        Request::Digest { buckets: vec![0; 257], extensions: extensions() },
        Request::Cancel { call: 1, extensions: vec![Extension { tag: 127, value: vec![] }] },
    ];
    for request in bad {
        assert!(request.encode().is_err());
        assert!(Request::decode(&encoded(&request)).is_err());
    }
    let patient = Request::Call(Call { timeout: u64::MAX, ..call });
    let read = Request::decode(&patient.encode().expect("encodes"));
    assert!(matches!(read, Ok(Request::Call(Call { timeout: MAX_TIMEOUT, .. }))));
}

#[test]
fn responses_are_held_to_their_limits_on_both_sides() {
    let extensions = Vec::new;
    let Some((_, Response::Reply(reply))) = samples::responses().into_iter().nth(1) else {
        panic!("replies are second")
    };
    let bad = [
        Response::Reply(Reply { content_type: "a".repeat(257), ..reply.clone() }),
        Response::Reply(Reply { headers: (0..65).map(|_| ("a", "b")).collect(), ..reply }),
        Response::Frames { frames: vec![], floor: 1 << 63, more: false, extensions: extensions() },
        Response::Differ { buckets: vec![0; 257], summaries: vec![], extensions: extensions() },
        Response::Records { records: vec![bytes::Bytes::new(); codec::MAX_LIST + 1], extensions: extensions() },
        Response::Done { extensions: vec![Extension { tag: 255, value: vec![] }; 17] },
    ];
    for response in bad {
        assert!(response.encode().is_err());
        assert!(Response::decode(&encoded(&response)).is_err());
    }
}
