//! What holds for any input: decoders neither panic nor take what was changed, round trips give the same, frames keep to
//! their size.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::codec::{self, Extension};
use super::frame::{Choice, Entry, Fragment, Frame, FrameBuilder, Header, MAX_FRAGMENTS, MAX_FRAME, Outbound};
use super::local::{self, FromNode, Record as _, ToNode};
use super::node_key::{Purpose, SIGNATURE, sign};
use super::roster::{Interest, RosterRecord, SignedRecord};
use super::rpc::{Request, Response};
use super::vectors::samples::{self, MESH, key, node_key, peer, place};
use super::{MessageId, ParseIdError};
use crate::{Headers, topic};

/// A message, owned.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) topic: String,
    pub(super) content_type: String,
    pub(super) headers: Headers,
    pub(super) choices: Vec<Choice>,
    pub(super) counter: u64,
    pub(super) time: u64,
    pub(super) fragment: Option<Fragment>,
    pub(super) payload: Vec<u8>,
}

impl Sent {
    pub(super) fn outbound(&self) -> Outbound<'_> {
        Outbound {
            topic: &self.topic,
            content_type: &self.content_type,
            headers: &self.headers,
            choices: &self.choices,
            counter: self.counter,
            time: self.time,
            fragment: self.fragment,
            payload: &self.payload,
        }
    }
}

fn headers() -> impl Strategy<Value = Headers> {
    let count = prop_oneof![9 => 0..3usize, 1 => 0..=Headers::MAX_COUNT];
    let pair = ("[a-z]{0,8}", prop_oneof![9 => "\\PC{0,20}", 1 => "[a-z]{251,255}"]);
    let pairs = count.prop_flat_map(move |count| vec(pair.clone(), count));
    pairs.prop_map(|pairs| pairs.into_iter().collect()).prop_filter("within limits", Headers::fit)
}

fn fragment() -> impl Strategy<Value = Option<Fragment>> {
    let sound = (2..=MAX_FRAGMENTS).prop_flat_map(|count| (0..count, Just(count)));
    prop_oneof![3 => Just(None), 1 => sound.prop_map(|(index, count)| Some(Fragment { index, count }))]
}

/// All topics are of the shard of `orders`.
fn message(payload: impl Strategy<Value = usize>) -> impl Strategy<Value = Sent> {
    let choice = ("[a-z]{0,30}", 1..4u8).prop_map(|(group, member)| Choice { group, member: node_key(member) });
    let time = prop_oneof![samples::TIME..samples::TIME + 1_000_000, 0..=codec::MAX_NUMBER];
    (
        "orders(\\.[a-z0-9]{1,80}){0,3}",
        select(vec!["", "text/plain", "application/json"]),
        headers(),
        vec(choice, 0..4),
        any::<u64>(),
        time,
        fragment(),
        payload,
    )
        .prop_map(|(topic, content_type, headers, choices, counter, time, fragment, payload)| Sent {
            topic,
            content_type: content_type.to_owned(),
            headers,
            choices,
            counter,
            time,
            fragment,
            payload: vec![0x5a; payload],
        })
}

/// Pushes what fits; the frame and the messages in it.
pub(super) fn frame_of(messages: &[Sent]) -> (FrameBuilder, Vec<&Sent>) {
    let mut builder = FrameBuilder::default();
    let mut pushed = Vec::new();
    for message in messages {
        if builder.fits(&message.outbound()) {
            builder.push(&message.outbound()).expect("it fits");
            pushed.push(message);
        }
    }
    (builder, pushed)
}

pub(super) fn signed(builder: &FrameBuilder) -> Frame {
    builder.clone().sign(place(1, u64::from(builder.messages())), MESH, &key(1)).expect("signs")
}

/// Signs what stands before the signature again.
pub(super) fn signed_again(bytes: &[u8], purpose: Purpose) -> Bytes {
    let mut bytes = bytes[..bytes.len() - SIGNATURE].to_vec();
    bytes.extend(sign(&key(1), purpose, MESH, &bytes).expect("signs"));
    bytes.into()
}

fn record() -> impl Strategy<Value = RosterRecord> {
    let pattern = select(vec![">", "a.*.b", "orders.eu", "*", "x.>"]).prop_map(str::to_owned);
    let interest = (pattern, proptest::option::of("[a-zé]{0,20}"));
    let numbers = (0..=codec::MAX_NUMBER, 0..=codec::MAX_NUMBER, any::<bool>(), any::<bool>());
    (
        numbers,
        "[a-zA-Zé ]{0,20}",
        vec(interest, 0..20),
        vec("[a-z]{1,9}(\\.[a-z]{1,9}){0,2}", 0..20),
        vec(any::<u16>(), 0..4),
    )
        .prop_map(|((incarnation, version, left, relay), name, interests, services, ports)| RosterRecord {
            node: node_key(1),
            incarnation,
            version,
            time: version,
            left,
            relay,
            name,
            addresses: ports.iter().map(|port| format!("/ip6/::1/tcp/{port}").parse().expect("an address")).collect(),
            interests: interests.into_iter().map(|(pattern, group)| Interest { pattern, group }).collect(),
            services,
            extensions: vec![Extension { tag: 200, value: vec![1, 2] }],
        })
}

fn read_all(frame: &Frame) {
    for entry in frame.entries().flatten() {
        let _ = (frame.message_id(&entry), frame.time(&entry), frame.bytes.slice_ref(entry.payload));
    }
    let _ = frame.count_before();
}

/// Something that reads bytes.
pub(super) type Decoder = fn(&[u8]);

/// Everything that reads what came from outside, and what user types can be.
pub(super) fn decoders() -> [Decoder; 14] {
    [
        |bytes| drop(Frame::open(MESH, Bytes::copy_from_slice(bytes)).map(|frame| read_all(&frame))),
        |bytes| drop(SignedRecord::open(MESH, Bytes::copy_from_slice(bytes))),
        |bytes| drop(Request::decode(bytes)),
        |bytes| drop(Response::decode(bytes)),
        |bytes| drop(ToNode::decode(bytes)),
        |bytes| drop(FromNode::decode(bytes)),
        |bytes| drop(local::take(&mut BytesMut::from(bytes))),
        |bytes| drop(Entry::read(bytes)),
        |bytes| drop(codec::decode_prefix::<Entry<'_>>(bytes)),
        |bytes| drop(codec::decode_prefix::<Header>(bytes)),
        |bytes| drop(codec::decode::<RosterRecord>(bytes)),
        |bytes| drop(codec::decode::<Vec<(String, Option<char>, Vec<()>)>>(bytes)),
        |bytes| {
            let _ = String::from_utf8_lossy(bytes).parse::<MessageId>();
        },
        |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = (topic::check_name(&text), topic::check_pattern(&text), topic::matches(&text, "a.b.c"));
        },
    ]
}

/// Every decoder, on bytes that may be anything.
fn decode_everything(bytes: &[u8]) {
    decoders().iter().for_each(|decode| decode(bytes));
}

/// A record of a node's socket, without its length.
fn unframed(record: &impl local::Record) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    record.write(&mut bytes).expect("encodes");
    local::take(&mut bytes).expect("a length").expect("whole").to_vec()
}

pub(super) fn valid() -> Vec<Vec<u8>> {
    let frames = [samples::messages(), samples::fragment(), samples::stream_head()];
    let records = [samples::record(), samples::tombstone()];
    let requests = samples::requests().into_iter().map(|(_, request)| request.encode().expect("encodes"));
    let responses = samples::responses().into_iter().map(|(_, response)| response.encode().expect("encodes"));
    let signed = frames.into_iter().map(|frame| frame.bytes).chain(records.into_iter().map(|record| record.bytes));
    let to_node = samples::to_node().into_iter().map(|(_, record)| unframed(&record));
    let from_node = samples::from_node().into_iter().map(|(_, record)| unframed(&record));
    let signed = signed.map(|bytes| bytes.to_vec());
    signed.chain(requests).chain(responses).chain(to_node).chain(from_node).collect()
}

/// Overwrites, removes or inserts bytes.
pub(super) fn mutate(bytes: &mut Vec<u8>, changes: &[(u8, Index, u8)]) {
    for (what, place, value) in changes {
        if bytes.is_empty() {
            return;
        }
        let place = place.index(bytes.len());
        match what % 4 {
            0 | 1 => bytes[place] = *value,
            2 => bytes.insert(place, *value),
            _ => bytes.truncate(place + 1),
        }
    }
}

pub(super) fn changes() -> impl Strategy<Value = Vec<(u8, Index, u8)>> {
    let value = prop_oneof![any::<u8>(), 250..=255u8, 0..4u8];
    vec((any::<u8>(), any::<Index>(), value), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_fits_is_a_frame_and_reads_back(messages in vec(message(prop_oneof![0..200usize, 0..30_000usize]), 0..150)) {
        let (builder, pushed) = frame_of(&messages);
        prop_assert!(builder.is_empty() == pushed.is_empty());
        let promised = builder.len();
        let frame = signed(&builder);
        prop_assert!(frame.bytes.len() <= MAX_FRAME.min(promised), "{} of {promised}", frame.bytes.len());

        let frame = Frame::open(MESH, frame.bytes).expect("opens");
        prop_assert_eq!(frame.count_before(), 0);
        let entries: Vec<_> = frame.entries().collect::<Result<_, _>>().expect("reads");
        prop_assert_eq!(entries.len(), pushed.len());
        for (entry, sent) in entries.iter().zip(pushed) {
            let header = &frame.header;
            prop_assert_eq!(&header.topics[entry.topic as usize], &sent.topic);
            prop_assert_eq!(&header.content_types[entry.content_type as usize], &sent.content_type);
            prop_assert_eq!(frame.message_id(entry).counter, sent.counter);
            prop_assert_eq!(frame.time(entry), sent.time.max(header.time));
            prop_assert_eq!(entry.fragment, sent.fragment);
            prop_assert_eq!(entry.headers.iter().copied().collect::<Headers>(), sent.headers.clone());
            let choices = entry.choices.iter().map(|index| &header.choices[*index as usize]);
            prop_assert!(choices.eq(&sent.choices));
            prop_assert_eq!(&frame.bytes.slice_ref(entry.payload)[..], &sent.payload[..]);
        }
    }
}

proptest! {
    #[test]
    fn a_message_with_all_the_room_fits_into_an_empty_frame(mut message in message(Just(0))) {
        let room = FrameBuilder::room(message.outbound().beside());
        message.payload = vec![1; room];
        let mut builder = FrameBuilder::default();
        prop_assert!(builder.fits(&message.outbound()));
        builder.push(&message.outbound()).expect("fits");
        prop_assert!(signed(&builder).bytes.len() <= MAX_FRAME);
        message.payload.push(1);
        prop_assert!(!FrameBuilder::default().fits(&message.outbound()));
        prop_assert!(FrameBuilder::default().push(&message.outbound()).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_harmless(kind in 0..5u8, variant in 0..12u8, bytes in vec(any::<u8>(), 0..2_000)) {
        decode_everything(&bytes);
        decode_everything(&[&[1, kind], &bytes[..]].concat());
        decode_everything(&[&[1, variant], &bytes[..]].concat());
    }

    #[test]
    fn mutated_bytes_are_harmless(which in select(valid()), changes in changes()) {
        let mut bytes = which;
        mutate(&mut bytes, &changes);
        decode_everything(&bytes);
        if bytes.len() > SIGNATURE {
            // With a good signature the checks behind it are reached.
            let _ = Frame::open(MESH, signed_again(&bytes, Purpose::Frame)).map(|frame| read_all(&frame));
            let _ = SignedRecord::open(MESH, signed_again(&bytes, Purpose::RosterRecord));
        }
    }

    #[test]
    fn what_is_read_from_mutated_bytes_can_be_written_and_read(which in select(valid()), changes in changes()) {
        let mut bytes = which;
        mutate(&mut bytes, &changes);
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(Request::decode(&request.encode().expect("encodes")).expect("decodes"), request);
        }
        if let Ok(response) = Response::decode(&bytes) {
            prop_assert_eq!(Response::decode(&response.encode().expect("encodes")).expect("decodes"), response);
        }
        if let Ok(record) = ToNode::decode(&bytes) {
            prop_assert_eq!(ToNode::decode(&unframed(&record)).expect("decodes"), record);
        }
        if let Ok(record) = FromNode::decode(&bytes) {
            prop_assert_eq!(FromNode::decode(&unframed(&record)).expect("decodes"), record);
        }
    }

    #[test]
    fn a_changed_byte_in_a_frame_is_refused(
        messages in vec(message(0..300usize), 0..5), at in any::<Index>(), change in 1..=255u8,
    ) {
        let mut bytes = signed(&frame_of(&messages).0).bytes.to_vec();
        prop_assert!(Frame::open(MESH, bytes.clone().into()).is_ok());
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(Frame::open(MESH, bytes.into()).is_err(), "byte {at}");
    }

    #[test]
    fn a_record_reads_back_and_a_changed_byte_in_it_is_refused(
        record in record(), at in any::<Index>(), change in 1..=255u8,
    ) {
        let signed = record.clone().sign(MESH, &key(1)).expect("signs");
        let opened = SignedRecord::open(MESH, signed.bytes.clone()).expect("opens");
        prop_assert_eq!((&opened.record, opened.node), (&record, peer(1)));
        let mut bytes = signed.bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        prop_assert!(SignedRecord::open(MESH, bytes.into()).is_err(), "byte {at}");
    }

    #[test]
    fn ids_read_back_and_other_texts_are_refused(start in any::<[u8; 8]>(), counter in any::<u64>(), text in "\\PC{0,40}") {
        let id = MessageId { start, counter };
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        match text.parse::<MessageId>() {
            Ok(id) => prop_assert_eq!(id.to_string(), text.to_lowercase()),
            Err(error) => prop_assert_eq!(error, ParseIdError),
        }
    }

    #[test]
    fn names_are_checked_whatever_they_are(text in prop_oneof!["\\PC{0,300}", "[a.*>é -]{0,12}"], name in "[ab.*>]{0,8}") {
        let (exact, pattern) = (topic::check_name(&text).is_ok(), topic::check_pattern(&text).is_ok());
        prop_assert!(pattern || !exact, "a topic is a pattern");
        prop_assert_eq!(exact, pattern && !text.split('.').any(|token| token == "*" || token == ">"));
        prop_assert!(!exact || topic::matches(&text, &text));
        let _ = topic::matches(&text, &name);
    }
}
