//! What decoding costs: memory and work in proportion to the bytes that came, whatever they claim.

use allocation_counter::{AllocationInfo, measure};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::codec::{self, Extension};
use super::frame::{Frame, FrameBuilder, Header, Outbound};
use super::node_key::SIGNATURE;
use super::properties::{Decoder, changes, decoders, mutate, signed, valid};
use super::roster::{Interest, RosterRecord, SignedRecord};
use super::rpc::{Call, Position, Request, Response, StreamRef, Summary};
use super::vectors::samples::{self, MESH, key, node_key, place};
use crate::Headers;

/// What a decoder may take at once for each byte of its input. The least that an element takes on the wire is a byte, for an
/// empty text of 24 bytes in memory, and a list that grows stands there twice, at up to double its size.
const PER_BYTE: u64 = 80;
/// What it may take for the smallest input: lists start with room for some elements.
const AT_LEAST: u64 = 64 * 1024;

fn cost(decode: Decoder, bytes: &[u8]) -> AllocationInfo {
    measure(|| decode(bytes))
}

fn is_bounded(decode: Decoder, bytes: &[u8]) -> Result<(), TestCaseError> {
    let (cost, length) = (cost(decode, bytes), bytes.len() as u64);
    prop_assert!(cost.bytes_max <= AT_LEAST + PER_BYTE * length, "{} bytes cost {cost:?}", length);
    prop_assert!(cost.bytes_total <= 4 * (AT_LEAST + PER_BYTE * length), "{} bytes cost {cost:?}", length);
    prop_assert_eq!(cost.bytes_current, 0, "what was decoded is gone");
    Ok(())
}

/// A length of 9 bytes that claims very much.
fn huge() -> Vec<u8> {
    [&[253][..], &(1_u64 << 40).to_le_bytes()].concat()
}

proptest! {
    #[test]
    fn memory_is_bounded_by_what_came(
        start in vec(0..12u8, 0..4), bytes in vec(any::<u8>(), 0..2_000), at in any::<prop::sample::Index>(),
    ) {
        let mut bytes = [&start[..], &bytes].concat();
        for decode in decoders() {
            is_bounded(decode, &bytes)?;
        }
        let at = at.index(bytes.len() + 1);
        bytes.splice(at..at, huge());
        for decode in decoders() {
            is_bounded(decode, &bytes)?;
        }
    }

    #[test]
    fn memory_is_bounded_for_what_is_almost_right(
        which in select(valid()), changes in changes(), at in any::<prop::sample::Index>(),
    ) {
        let mut bytes = which;
        mutate(&mut bytes, &changes);
        for decode in decoders() {
            is_bounded(decode, &bytes)?;
        }
        let at = at.index(bytes.len() + 1);
        bytes.splice(at..at, huge());
        for decode in decoders() {
            is_bounded(decode, &bytes)?;
        }
    }
}

/// A record of so many parts.
type Growing = fn(usize) -> Vec<u8>;

/// Sound records that grow with a number, each as large as its limits allow, and how many fit.
fn growing() -> Vec<(&'static str, usize, Growing)> {
    fn position(n: usize) -> Position {
        let stream = StreamRef::of(&place(1, 1).stream).expect("an Ed25519 key");
        Position { stream, sequence: n as u64, count: n as u64 }
    }
    fn none() -> Vec<Extension> {
        Vec::new()
    }
    vec![
        ("messages", 2_000, |n| {
            let mut builder = FrameBuilder::default();
            for counter in 0..n as u64 {
                let (headers, payload) = (&Headers::default(), &[][..]);
                let (topic, content_type, choices, fragment) = ("orders", "", &[][..], None);
                let message =
                    Outbound { topic, content_type, headers, choices, counter, time: samples::TIME, fragment, payload };
                builder.push(&message).expect("fits");
            }
            signed(&builder).bytes.to_vec()
        }),
        ("positions", 4_000, |n| {
            let positions = (0..n).map(position).collect();
            Request::Heads { positions, extensions: none() }.encode().expect("encodes")
        }),
        ("empty frames", 8_000, |n| {
            let frames = vec![bytes::Bytes::new(); n];
            Request::Inject { frames, extensions: none() }.encode().expect("encodes")
        }),
        ("summaries", 4_000, |n| {
            let summaries = vec![Summary { node: node_key(1), stamp: samples::record().stamp() }; n];
            Response::Differ { buckets: Vec::new(), summaries, extensions: none() }.encode().expect("encodes")
        }),
        ("interests", 1_000, |n| {
            let interests = vec![Interest { pattern: "a".into(), group: None }; n];
            let record = RosterRecord { interests, ..samples::record().record };
            record.sign(MESH, &key(1)).expect("signs").bytes.to_vec()
        }),
        ("a body", 1_000_000, |n| {
            let Some((_, Request::Call(call))) = samples::requests().into_iter().next() else {
                panic!("calls come first")
            };
            Request::Call(Call { body: vec![7; n].into(), ..call }).encode().expect("encodes")
        }),
    ]
}

#[test]
fn work_grows_with_the_input_and_not_faster() {
    for (what, most, bytes_of) in growing() {
        let (small, large) = (bytes_of(most / 8), bytes_of(most));
        for decode in decoders() {
            let (less, more) = (cost(decode, &small), cost(decode, &large));
            // Eight times as much, and a few more steps of a list that doubles as it grows.
            assert!(more.count_total <= 8 * less.count_total + 64, "{what}: {less:?} {more:?}");
            assert!(more.bytes_total <= 10 * less.bytes_total + 4 * AT_LEAST, "{what}: {less:?} {more:?}");
            assert!(more.bytes_max <= AT_LEAST + PER_BYTE * large.len() as u64, "{what}: {more:?}");
        }
    }
}

/// Lists of the smallest elements there are, as many as a record has bytes.
#[test]
fn the_densest_records_stay_within_their_bounds() {
    let dense = |kind: u8| [&[1, kind, 253][..], &9_999_u64.to_le_bytes(), &[0; 100_000]].concat();
    for kind in 0..12 {
        for decode in decoders() {
            is_bounded(decode, &dense(kind)).expect("bounded");
        }
    }
    let mut header = samples::stream_head().header;
    header.topics = vec!["orders".into(); 1_024];
    let mut bytes = vec![1, 1];
    codec::encode_into::<Header>(&header, &mut bytes).expect("encodes");
    bytes.extend([0; SIGNATURE]);
    is_bounded(|bytes| drop(Frame::open(MESH, bytes.to_vec().into())), &bytes).expect("bounded");
    is_bounded(|bytes| drop(SignedRecord::open(MESH, bytes.to_vec().into())), &bytes).expect("bounded");
}
