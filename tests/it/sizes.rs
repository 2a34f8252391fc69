//! Every size arrives whole, over each transport, over lanes, by gossip and by request-response; what is too large is refused before
//! anything is sent.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use multiaddr::Protocol;
use pombo::{
    Bytes, Dissemination, Event, Headers, Limits, Node, Outcome, PublishError, RawService, RawTopic, RequestError,
    Subscriber,
};
use tokio::sync::Semaphore;

use crate::support::Turn;
use crate::support::nodes::{Place, TRANSPORTS, address, next, within};

const LIMIT: usize = 1024 * 1024;
const FRAME: usize = 60 * 1024;

/// What payloads are cut from. Its bytes follow no short pattern, so that no two pieces of it are alike.
fn source() -> Bytes {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..LIMIT + 1_024).map(|_| next()).collect()
}

/// Over lanes, and without any: by gossip and by request-response.
const WAYS: [Dissemination; 2] = [Dissemination::Adaptive, Dissemination::Gossip];

/// Two nodes with one link, over this transport. The second one subscribes and serves.
struct Pair {
    _place: Place,
    one: Node,
    other: Node,
    received: Subscriber<Bytes, pombo::Raw>,
    source: Bytes,
}

impl Pair {
    async fn over(transport: &str, way: Dissemination) -> Self {
        let place = Place::new(Turn::shared());
        let one = place.node("one", transport).dissemination(way).start().await.unwrap();
        let other = place.node("other", transport).dissemination(way).peer(address(&one)).start().await.unwrap();
        let received = other.subscribe(topic()).ready(1).timeout(crate::support::nodes::SOON).await.unwrap();
        let echo = |question: Bytes| async move { Ok(question) };
        // For as long as the node is there.
        std::mem::forget(other.serve(service()).with(echo).await.unwrap());
        within("a listener", one.publisher(topic()).ready(1)).await.unwrap();
        Self { _place: place, one, other, received, source: source() }
    }

    /// The nth payload of that size, unlike those before it.
    fn payload(&self, number: usize, size: usize) -> Bytes {
        let start = number % 1_000;
        self.source.slice(start..start + size)
    }

    /// Publishes payloads of these sizes, and compares every byte of what comes.
    async fn gossip(&mut self, sizes: &[usize]) {
        let publisher = self.one.publisher(topic());
        let payloads: Vec<_> = sizes.iter().enumerate().map(|(number, size)| self.payload(number, *size)).collect();
        // Fewer than what the mailbox holds, so that the reader is never what loses them.
        let room = Semaphore::new(24);
        let publishing = async {
            for payload in &payloads {
                // A large one takes the place of many.
                let places = u32::try_from(payload.len().div_ceil(FRAME).clamp(1, 18)).unwrap();
                room.acquire_many(places).await.unwrap().forget();
                publisher.publish(payload).await.unwrap();
            }
        };
        let received = &mut self.received;
        let reading = async {
            for (number, payload) in payloads.iter().enumerate() {
                let message = next("a message", received).await;
                let message = message.unwrap_or_else(|error| panic!("{number}, {} B: {error}", payload.len()));
                assert!(**message == *payload, "{number}: {} B instead of {}", message.len(), payload.len());
                room.add_permits(payload.len().div_ceil(FRAME).clamp(1, 18));
            }
        };
        tokio::join!(publishing, reading);
    }

    /// Asks with questions of these sizes, which come back as answers.
    async fn request(&self, sizes: &[usize]) {
        let mut open = FuturesUnordered::new();
        for (number, size) in sizes.iter().enumerate() {
            let question = self.payload(number, *size);
            open.push(async move {
                let answer = self.one.request(service(), &question).timeout(crate::support::nodes::SOON).await;
                let answer = answer.unwrap_or_else(|error| panic!("{number}, {size} B: {error}"));
                assert!(**answer == *question, "{number}: {} B instead of {size}", answer.len());
            });
            if open.len() >= 8 {
                open.next().await;
            }
        }
        while open.next().await.is_some() {}
    }
}

fn topic() -> RawTopic {
    RawTopic::parse("sizes.all").unwrap()
}

fn service() -> RawService {
    RawService::parse("sizes.echo").unwrap()
}

/// Around where one frame does not suffice any more, many of each.
#[tokio::test(flavor = "multi_thread")]
async fn sizes_around_a_frame_arrive_each_of_them() {
    let sizes: Vec<_> = (58_000..=66_000).step_by(500).flat_map(|size| [size; 300]).collect();
    for (transport, way) in TRANSPORTS.into_iter().flat_map(|transport| WAYS.map(|way| (transport, way))) {
        let mut pair = Pair::over(transport, way).await;
        pair.gossip(&sizes).await;
        pair.request(&sizes).await;
    }
}

/// From nothing to the limit: powers of two, and around every number of frames that a message may take.
#[tokio::test(flavor = "multi_thread")]
async fn sizes_from_nothing_to_the_limit_arrive() {
    let powers = (0..=20).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]);
    let frames = (1..=17).flat_map(|frames| [frames * FRAME - 1, frames * FRAME, frames * FRAME + 1]);
    // What surrounds a payload takes some hundred bytes of a frame.
    let edges = (0..=400).step_by(25).map(|beside| FRAME - beside);
    let mut sizes: Vec<usize> = powers.chain(frames).chain(edges).filter(|size| *size <= LIMIT).collect();
    sizes.sort_unstable();
    sizes.dedup();
    assert!(sizes.starts_with(&[0, 1]) && sizes.ends_with(&[LIMIT]));
    for (transport, way) in TRANSPORTS.into_iter().flat_map(|transport| WAYS.map(|way| (transport, way))) {
        let mut pair = Pair::over(transport, way).await;
        pair.gossip(&sizes).await;
        pair.request(&sizes).await;
    }
}

/// As much of everything as is allowed, in one message.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_payload_travels_with_the_largest_headers_and_name() {
    let name: String = "a".repeat(63) + "." + &"b".repeat(63) + "." + &"c".repeat(63) + "." + &"d".repeat(64);
    assert_eq!(name.len(), pombo::MAX_NAME);
    let headers: Headers = (0..64).map(|number| (format!("h{number:03}"), "v".repeat(252))).collect();
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert_eq!((headers.iter().count(), bytes), (64, 16 * 1024));
    for (transport, way) in TRANSPORTS.into_iter().flat_map(|transport| WAYS.map(|way| (transport, way))) {
        let pair = Pair::over(transport, way).await;
        let payload = pair.payload(0, LIMIT);
        let mut received = pair.other.subscribe(RawTopic::parse(&name).unwrap()).await.unwrap();
        let echo = |question: Bytes| async move { Ok(question) };
        let _serving = pair.other.serve(RawService::parse(&name).unwrap()).with(echo).await.unwrap();
        let mut publish = pair.one.publish(RawTopic::parse(&name).unwrap(), &payload).min_peers(1);
        let mut ask = pair.one.request(RawService::parse(&name).unwrap(), &payload);
        for (name, value) in headers.iter() {
            publish = publish.header(name, value);
            ask = ask.header(name, value);
        }
        publish.await.unwrap();
        let message = next("the message", &mut received).await.unwrap();
        assert!(**message == *payload && *message.headers() == headers);
        assert!(**within("the answer", ask).await.unwrap() == *payload);
    }
}

/// One byte too many, in each direction and by each way: refused with its size and the limit, and nothing else happens.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_and_the_link_stays() {
    for (transport, way) in TRANSPORTS.into_iter().flat_map(|transport| WAYS.map(|way| (transport, way))) {
        let mut pair = Pair::over(transport, way).await;
        // So that the link has carried something.
        pair.gossip(&[10]).await;
        pair.request(&[10]).await;
        let (mut at_one, mut at_other) = (pair.one.events(), pair.other.events());
        let before = (sent_by(&pair.one).await, sockets(&pair.one));

        for size in [LIMIT + 1, LIMIT + FRAME, 8 * LIMIT] {
            let body = Bytes::from(vec![7; size]);
            let error = pair.one.publish(topic(), &body).await.unwrap_err();
            assert!(
                matches!(error, PublishError::TooLarge { size: told, limit: LIMIT, .. } if told == size),
                "{error}"
            );
            assert_eq!(error.outcome(), Outcome::Rejected);
            assert!(error.to_string().contains(&size.to_string()), "{error}");
            let error = pair.one.publisher(topic()).publish(&body).await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::Rejected);
            let error = pair.one.request(service(), &body).await.unwrap_err();
            assert!(matches!(error, RequestError::TooLarge { size: told, limit: LIMIT } if told == size), "{error}");
            assert_eq!(error.outcome(), Outcome::Rejected);
        }

        let after = (sent_by(&pair.one).await, sockets(&pair.one));
        assert_eq!(before, after, "nothing is published or open, and the connection is the same");
        assert!(!cfg!(target_os = "linux") || !transport.contains("tcp") || before.1.len() == 2, "{before:?}");
        pair.gossip(&[LIMIT, 10]).await;
        pair.request(&[LIMIT, 10]).await;
        for events in [&mut at_one, &mut at_other] {
            while let Some(Some(event)) = futures::FutureExt::now_or_never(events.next()) {
                assert!(!matches!(event, Event::Linked { .. } | Event::Unlinked { .. }), "{event:?}");
            }
        }
    }
}

/// A reply that is too large is its provider's error, and the asker is told; the link stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_too_large_is_told_to_both() {
    for (transport, way) in TRANSPORTS.into_iter().flat_map(|transport| WAYS.map(|way| (transport, way))) {
        let mut pair = Pair::over(transport, way).await;
        let name = RawService::parse("sizes.much").unwrap();
        let much = |_: Bytes| async move { Ok(Bytes::from(vec![1; LIMIT + 1])) };
        let _serving = pair.other.serve(name.clone()).with(much).await.unwrap();
        let error = within("an outcome", pair.one.request(name, &Bytes::new())).await.unwrap_err();
        assert!(matches!(error.outcome(), Outcome::Refused | Outcome::Unknown), "{error:?}");
        pair.gossip(&[LIMIT]).await;
        pair.request(&[LIMIT]).await;
    }
}

/// A node may allow itself less.
#[tokio::test]
async fn the_limit_can_be_lowered() {
    let place = Place::new(Turn::shared());
    let limits = Limits { message: 1_000, ..Limits::default() };
    let config = pombo::Config { limits, ..pombo::Config::default() };
    let builder = Node::builder().config(config).name("small").data_dir(place.data.path()).mdns(false).local(false);
    let node = builder.mesh(pombo::MeshChoice::Named("test".to_owned())).start().await.unwrap();
    node.publish(topic(), &Bytes::from(vec![0; 1_000])).await.unwrap();
    let error = node.publish(topic(), &Bytes::from(vec![0; 1_001])).await.unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { size: 1_001, limit: 1_000, .. }), "{error}");
}

/// What a node keeps of what it published and asked.
async fn sent_by(node: &Node) -> [usize; 4] {
    let tables = node.status().await.unwrap().tables;
    [tables.connections, tables.links, tables.ring, tables.requests]
}

/// The sockets of a node's connections over TCP, where the system tells: both ends of each.
fn sockets(node: &Node) -> BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let port = address(node).iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None });
    let Some(port) = port.map(|port| format!(":{port:04X}")) else { return BTreeSet::new() };
    let columns = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Local and remote address, the state, of which 01 is established, and the socket's number.
    let established = columns.filter(|one| one[3] == "01" && (one[1].ends_with(&port) || one[2].ends_with(&port)));
    established.map(|one| one[9].to_owned()).collect()
}
