//! The vectors of `docs/wire.md`, held against the code: each is made here twice, by the code and by an encoder that
//! follows the document, and each is decoded. `POMBO_BLESS=1` writes them into the document.

mod layout;
mod parts;
pub(super) mod samples;

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use self::parts::{Parts, hex, varint};
use self::samples::{MESH, key, node_key};
use super::MessageId;
use super::codec::CodecError;
use super::custody;
use super::frame::{self, Frame, FrameError, shard_of};
use super::lane::{Mark, Record};
use super::letter::Letter;
use super::local::{self, FromNode, Record as _, ToNode};
use super::node_key::{Purpose, SIGNATURE, digest, sign};
use super::roster::{RecordError, SignedRecord};
use super::rpc::{Request, Response};

const DOCUMENT: &str = include_str!("../../docs/wire.md");

/// What a labelled block of the document has to hold.
struct Vector {
    label: String,
    /// Hexadecimal digits in lines of 32 bytes, or text.
    body: String,
    /// The table above it.
    table: Option<String>,
}

impl Vector {
    fn new(label: impl Into<String>, bytes: &[u8], parts: Option<Parts>) -> Self {
        let label = label.into();
        if let Some(parts) = &parts {
            assert_eq!(hex(&parts.concat()), hex(bytes), "{label}: the document's rules and the code differ");
        }
        let body = bytes.chunks(32).map(|line| hex(line) + "\n").collect();
        Self { label: format!("hex {label}"), body, table: parts.map(|parts| parts.table()) }
    }

    fn text(label: &str, body: String) -> Self {
        Self { label: format!("text {label}"), body, table: None }
    }

    /// The block as it stands in the document.
    fn block(&self) -> String {
        let table = self.table.iter().map(|table| format!("{table}\n")).collect::<String>();
        format!("{table}```{}\n{}```\n", self.label, self.body)
    }
}

fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    let (messages, fragment, head) = (samples::messages(), samples::fragment(), samples::stream_head());
    all.push(Vector::new("frame-messages-1", &messages.bytes, Some(layout::messages(&messages.bytes))));
    all.push(Vector::new("frame-fragment-1", &fragment.bytes, Some(layout::fragment(&fragment.bytes))));
    all.push(Vector::new("frame-head-1", &head.bytes, Some(layout::head(&head.bytes))));
    let (record, tombstone) = (samples::record(), samples::tombstone());
    all.push(Vector::new("roster-record-1", &record.bytes, Some(layout::roster_record(&record.bytes))));
    all.push(Vector::new("roster-tombstone-1", &tombstone.bytes, Some(layout::tombstone(&tombstone.bytes))));
    let (durable, sealed) = (samples::durable_record().bytes, samples::letter().seal().expect("seals"));
    all.push(Vector::new("roster-durable-1", &durable, Some(layout::durable_record(&durable))));
    all.push(Vector::new("letter-1", &sealed, Some(layout::letter())));
    let recipients = ["audit".to_owned(), "billing".to_owned()];
    all.push(Vector::new("letter-signed-1", &custody::letter_text(&sealed, &recipients), None));
    let receipt = custody::receipt_text(node_key(1), samples::letter().id, custody::End::Processed, "billing");
    all.push(Vector::new("receipt-1", &receipt, None));
    for (name, request) in samples::requests() {
        let bytes = request.encode().expect("encodes");
        all.push(Vector::new(format!("request-{name}-1"), &bytes, Some(layout::request(name))));
    }
    for (name, response) in samples::responses() {
        let bytes = response.encode().expect("encodes");
        all.push(Vector::new(format!("response-{name}-1"), &bytes, Some(layout::response(name))));
    }
    all.extend(lane());
    all.extend(socket());
    for (name, bytes) in hostile() {
        all.push(Vector::new(format!("hostile-{name}"), &bytes, None));
    }
    all.push(Vector::new("key-a", &node_key(1).0, None));
    all.push(Vector::new("key-b", &node_key(2).0, None));
    all.push(Vector::new("peer-id-a", &samples::peer(1).to_bytes(), None));
    let signed = &messages.bytes[..messages.bytes.len() - SIGNATURE];
    all.push(Vector::new("digest-frame-messages-1", &digest(Purpose::Frame, MESH, signed), None));
    let topic = frame::gossip_topic(MESH, shard_of("orders"));
    all.push(Vector::new("gossip-id-frame-messages-1", &frame::gossip_id(&topic, &messages.bytes), None));
    all.extend(texts(&messages));
    all
}

/// Records of a lane. That with a frame is cut off where the frame goes on.
fn lane() -> Vec<Vector> {
    let written = |record: Record| {
        let mut bytes = BytesMut::new();
        record.write(&mut bytes).expect("encodes");
        bytes
    };
    let frame = samples::messages();
    let stream = frame.stream;
    let cancel = Request::Cancel { call: 5, extensions: Vec::new() }.encode().expect("encodes");
    let mark = Mark::new(&stream, 7, (71, 900)).expect("an Ed25519 key");
    let beginning = written(Record::Frame { since: 6, frame: frame.bytes.clone() }).split_to(45);
    let lane_of = |kind: u8, name: &str, length: usize| {
        let length = u32::try_from(length).expect("short");
        Parts::default().raw("length", &length.to_be_bytes(), length.to_string()).raw("kind", &[kind], name)
    };
    let long = |number: u64| number.to_be_bytes();
    vec![
        Vector::new(
            "lane-frame-1",
            &beginning,
            Some(lane_of(32, "32: frame", 9 + frame.bytes.len()).raw("since", &long(6), "6").raw(
                "the frame",
                &frame.bytes[..32],
                "its first 32 bytes",
            )),
        ),
        Vector::new(
            "lane-mark-1",
            &written(Record::Mark(mark)),
            Some({
                let body = |parts: Parts| {
                    let parts = parts.stream(stream.node, stream.incarnation, stream.shard());
                    parts.number("since", 7).number("up to", 71).number("messages up to there", 900).no_extensions()
                };
                body(lane_of(33, "33: mark", 1 + body(Parts::default()).concat().len()))
            }),
        ),
        Vector::new(
            "lane-grant-1",
            &written(Record::Grant(1_000_000)),
            Some(lane_of(39, "39: grant", 9).raw("granted", &long(1_000_000), "1,000,000")),
        ),
        Vector::new(
            "lane-request-1",
            &written(Record::Request { id: 3, request: cancel.clone().into() }),
            Some(lane_of(42, "42: request", 9 + cancel.len()).raw("number", &long(3), "3").raw(
                "the request",
                &cancel,
                "Cancel, as above",
            )),
        ),
        Vector::new(
            "lane-part-1",
            &written(Record::Part { last: true, bytes: Bytes::from_static(b"end") }),
            Some(lane_of(44, "44: part", 5).byte("last", 1).raw("bytes", b"end", "`end`")),
        ),
    ]
}

/// Records of a node's socket, each with its length.
fn socket() -> Vec<Vector> {
    let to_node = samples::to_node().into_iter().map(|(name, record)| {
        let bytes = on_the_socket(&record);
        Vector::new(format!("socket-to-{name}-1"), &bytes, Some(layout::to_node(name, bytes.len() - 4)))
    });
    let from_node = samples::from_node().into_iter().map(|(name, record)| {
        let bytes = on_the_socket(&record);
        Vector::new(format!("socket-from-{name}-1"), &bytes, Some(layout::from_node(name, bytes.len() - 4)))
    });
    to_node.chain(from_node).collect()
}

fn on_the_socket(record: &impl local::Record) -> BytesMut {
    let mut bytes = BytesMut::new();
    record.write(&mut bytes).expect("encodes");
    bytes
}

fn texts(messages: &Frame) -> Vec<Vector> {
    let topics = ["orders.eu.created", "orders", "demo.hello", "log.web.1", "a", "Orders.eu", "sensors.kitchen.temp"];
    let shards = topics.iter().map(|topic| format!("{topic} {}\n", shard_of(topic))).collect();
    let ids = messages.entries().map(|entry| messages.message_id(&entry.expect("reads")).to_string() + "\n").collect();
    let gossip = frame::gossip_topic(MESH, shard_of("orders")) + "\n";
    let numbers = [0, 250, 251, 65_535, 65_536, 4_294_967_295, 4_294_967_296, u64::MAX];
    let varints = numbers.iter().map(|number| format!("{number} {}\n", hex(&varint(*number)))).collect();
    vec![
        Vector::text("shards", shards),
        Vector::text("message-ids-frame-messages-1", ids),
        Vector::text("gossip-topic", gossip),
        Vector::text("varints", varints),
    ]
}

/// Bytes that have to be refused.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let messages = samples::messages().bytes;
    let mut signature = messages.to_vec();
    *signature.last_mut().expect("not empty") ^= 1;
    let mut body = messages.to_vec();
    *body.iter_mut().nth_back(SIGNATURE).expect("not empty") ^= 1;
    let trailing = |signed: &[u8], purpose| {
        let mut bytes = [&signed[..signed.len() - SIGNATURE], &[0]].concat();
        bytes.extend(sign(&key(1), purpose, MESH, &bytes).expect("signs"));
        bytes
    };
    let huge = [&[1, 0, 5, 253][..], &(1u64 << 40).to_le_bytes()].concat();
    let cancel = Request::Cancel { call: 5, extensions: Vec::new() }.encode().expect("encodes");
    vec![
        ("frame-signature", signature),
        ("frame-body", body),
        ("frame-trailing", trailing(&messages, Purpose::Frame)),
        ("head-trailing", trailing(&samples::stream_head().bytes, Purpose::Frame)),
        ("record-trailing", trailing(&samples::record().bytes, Purpose::RosterRecord)),
        ("request-length", huge),
        ("request-trailing", [&cancel[..], &[0]].concat()),
        ("request-version", [&[2], &cancel[1..]].concat()),
        ("request-extension", vec![1, 1, 5, 1, 1, 0]),
        ("request-list", vec![1, 8, 251, 0x11, 0x27]),
    ]
}

/// The labelled blocks of the document.
fn blocks(document: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("```").filter(|label| label.contains(' ')) else { continue };
        let body = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        assert!(found.insert(label.to_owned(), body).is_none(), "{label} stands in the document twice");
    }
    found
}

#[test]
fn the_document_holds_what_the_code_makes() {
    let vectors = vectors();
    if std::env::var_os("POMBO_BLESS").is_some() {
        bless(&vectors);
        return;
    }
    let mut found = blocks(DOCUMENT);
    for vector in &vectors {
        let body = found.remove(&vector.label).unwrap_or_else(|| panic!("{} is not in the document", vector.label));
        assert_eq!(body, vector.body, "{}: the document and the code differ", vector.label);
        assert!(DOCUMENT.contains(&vector.block()), "{}: the table above it differs", vector.label);
    }
    assert!(found.is_empty(), "no code makes {:?}", found.keys());
}

/// Writes blocks and the tables above them into the document, where their labels stand already.
fn bless(vectors: &[Vector]) {
    let mut document = DOCUMENT.to_owned();
    for vector in vectors {
        let fence = format!("```{}\n", vector.label);
        let start = document.find(&fence).unwrap_or_else(|| panic!("{} is not in the document", vector.label));
        let end = document[start + 3..].find("```").expect("a closed block") + start + 7;
        let above = document[..start].trim_end_matches('\n');
        let text =
            above.lines().rev().take_while(|line| line.starts_with('|')).map(|line| line.len() + 1).sum::<usize>();
        let start = if text > 0 { above.len() + 1 - text } else { start };
        document.replace_range(start..end, &vector.block());
    }
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/wire.md"), document).expect("writes");
}

#[test]
fn every_vector_can_be_decoded() {
    for frame in [samples::messages(), samples::fragment(), samples::stream_head()] {
        let opened = Frame::open(MESH, frame.bytes.clone()).expect("opens");
        assert_eq!((opened.kind, &opened.header, opened.stream), (frame.kind, &frame.header, frame.stream));
        assert!(opened.entries().all(|entry| entry.is_ok()));
    }
    for record in [samples::record(), samples::tombstone(), samples::durable_record()] {
        assert_eq!(SignedRecord::open(MESH, record.bytes.clone()).expect("opens").record, record.record);
    }
    for (name, request) in samples::requests() {
        assert_eq!(Request::decode(&request.encode().expect("encodes")).expect(name), request);
    }
    for (name, response) in samples::responses() {
        assert_eq!(Response::decode(&response.encode().expect("encodes")).expect(name), response);
    }
    assert_eq!(Letter::open(&samples::letter().seal().expect("seals")).expect("opens"), samples::letter());
    for (name, record) in samples::to_node() {
        let bytes = local::take(&mut on_the_socket(&record)).expect("a length").expect("whole");
        assert_eq!(ToNode::decode(&bytes).expect(name), record);
    }
    for (name, record) in samples::from_node() {
        let bytes = local::take(&mut on_the_socket(&record)).expect("a length").expect("whole");
        assert_eq!(FromNode::decode(&bytes).expect(name), record);
    }
    let frame = samples::messages();
    let ids: Vec<MessageId> = frame.entries().map(|entry| frame.message_id(&entry.expect("reads"))).collect();
    assert_eq!(ids[1].to_string().parse(), Ok(ids[1]));
}

#[test]
fn hostile_vectors_are_refused_for_the_reason_given() {
    for (name, bytes) in hostile() {
        let bytes = Bytes::from(bytes);
        let refused = match name {
            "frame-signature" | "frame-body" => matches!(Frame::open(MESH, bytes), Err(FrameError::Signature)),
            // The body is read message by message, after the frame was accepted.
            "frame-trailing" => {
                let frame = Frame::open(MESH, bytes).expect("its signature is good");
                let entries: Vec<_> = frame.entries().collect();
                matches!(entries[..], [Ok(_), Ok(_), Err(CodecError::Malformed(_))])
            }
            "head-trailing" => matches!(Frame::open(MESH, bytes), Err(FrameError::Head)),
            "record-trailing" => {
                matches!(SignedRecord::open(MESH, bytes), Err(RecordError::Codec(CodecError::LeftOver(1))))
            }
            "request-trailing" => matches!(Request::decode(&bytes), Err(CodecError::LeftOver(1))),
            "request-extension" => matches!(Request::decode(&bytes), Err(CodecError::Extension(1))),
            _ => matches!(Request::decode(&bytes), Err(CodecError::Malformed(_))),
        };
        assert!(refused, "{name}");
    }
}
