//! A few live nodes on loopback, through the public API.

use std::collections::{BTreeMap, BTreeSet};
use std::future::IntoFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use futures::{Stream, StreamExt};
use pombo::{
    Builder, Event, Incoming, Json, Limits, MeshChoice, Message, Multiaddr, Node, Pattern, PublishError, Raw,
    RawPattern, RawService, RawTopic, RecvError, Refusal, RequestError, Service, Subscriber, Topic,
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::sync::Semaphore;

use crate::support::Turn;

/// Within what everything happens that has no stricter deadline of its own.
const SOON: Duration = Duration::from_secs(20);

const DEMO: Topic<String> = Topic::new("demo.text");
const NUMBERS: Topic<u32> = Topic::new("demo.numbers");

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Order {
    id: u64,
    item: String,
}

/// A user's data directory: its nodes share a private mesh.
struct World {
    data: TempDir,
    _turn: Option<Turn>,
}

impl World {
    fn new() -> Self {
        Self { data: tempfile::tempdir().unwrap(), _turn: Some(Turn::shared()) }
    }

    /// For what has a deadline of its own.
    fn alone() -> Self {
        Self { data: tempfile::tempdir().unwrap(), _turn: Some(Turn::alone()) }
    }

    /// Another mesh beside this one.
    fn other() -> Self {
        Self { data: tempfile::tempdir().unwrap(), _turn: None }
    }

    /// A node that looks for nobody.
    fn node(&self, name: &str) -> Builder {
        let builder = Node::builder().name(name).mesh(private()).data_dir(self.data.path()).mdns(false).local(false);
        builder.listen("/ip4/127.0.0.1/tcp/0".parse().unwrap())
    }

    /// Two nodes with a link between them.
    async fn pair(&self) -> (Node, Node) {
        let a = self.node("a").start().await.unwrap();
        let b = self.node("b").peer(address(&a)).start().await.unwrap();
        within("the link", a.ready(1)).await.unwrap();
        within("the link", b.ready(1)).await.unwrap();
        (a, b)
    }
}

/// By name, whatever mesh a node of whoever runs the tests is in.
fn private() -> MeshChoice {
    MeshChoice::Named("test".to_owned())
}

fn address(node: &Node) -> Multiaddr {
    node.addresses().first().expect("a node listens when it has started").clone()
}

async fn within<F: IntoFuture>(what: &str, future: F) -> F::Output {
    within_time(SOON, what, future).await
}

async fn within_time<F: IntoFuture>(deadline: Duration, what: &str, future: F) -> F::Output {
    tokio::time::timeout(deadline, future).await.unwrap_or_else(|_| panic!("{what} did not come within {deadline:?}"))
}

async fn next<T>(what: &str, stream: &mut (impl Stream<Item = T> + Unpin)) -> T {
    within(what, stream.next()).await.unwrap_or_else(|| panic!("the stream ended before {what}"))
}

/// The next message of a subscriber, which must be one.
async fn message<T, E: pombo::Encoding<T>>(subscriber: &mut Subscriber<T, E>) -> Message<T> {
    next("a message", subscriber).await.unwrap()
}

/// Asks again until it is so: for what no event tells.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[test]
fn a_node_can_be_shared() {
    fn shared<T: Clone + Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Node>();
    sent::<Subscriber<Order, Json>>();
    sent::<Incoming<Bytes, Bytes, Raw>>();
}

#[tokio::test]
async fn a_message_reaches_the_subscribers_of_another_node() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let mut exact = b.subscribe(RawPattern::parse("orders.eu.created").unwrap()).await.unwrap();
    let mut token = b.subscribe(RawPattern::parse("orders.*.created").unwrap()).await.unwrap();
    let mut rest = b.subscribe(RawPattern::parse("orders.>").unwrap()).await.unwrap();
    let mut everything = b.subscribe(RawPattern::parse(">").unwrap()).await.unwrap();
    let mut others = b.subscribe(RawPattern::parse("orders.us.*").unwrap()).await.unwrap();

    let topic = RawTopic::parse("orders.eu.created").unwrap();
    let publish = a.publish(topic, &Bytes::from("pigeons")).header("tenant", "acme").header("trace", "1");
    let published = publish.content_type("text/plain").await.unwrap();
    assert_eq!((published.peers, published.listeners, published.local), (1, 1, 0));

    for subscriber in [&mut exact, &mut token, &mut rest, &mut everything] {
        let message = message(subscriber).await;
        assert_eq!(message.topic(), "orders.eu.created");
        assert_eq!(**message, b"pigeons"[..]);
        assert_eq!(message.source(), a.peer_id());
        assert_eq!(message.id(), published.id);
        assert_eq!(message.content_type(), "text/plain");
        assert_eq!(message.headers().iter().collect::<Vec<_>>(), [("tenant", "acme"), ("trace", "1")]);
        assert!(message.time().elapsed().unwrap() < SOON);
    }
    // It did not get that one, or this would be the second.
    a.publish(RawTopic::parse("orders.us.created").unwrap(), &Bytes::from("doves")).await.unwrap();
    assert_eq!(**message(&mut others).await, b"doves"[..]);
}

#[tokio::test]
async fn a_publisher_reaches_its_own_subscribers_too() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let mut here = a.subscribe(DEMO).await.unwrap();
    let mut here_as_well = a.subscribe(Pattern::from(DEMO)).await.unwrap();
    let mut there = b.subscribe(DEMO).await.unwrap();

    let published = a.publish(DEMO, &"hello".to_owned()).await.unwrap();
    assert_eq!((published.listeners, published.local), (1, 2));
    for subscriber in [&mut here, &mut here_as_well, &mut there] {
        assert_eq!(*message(subscriber).await, "hello");
    }
}

#[tokio::test]
async fn nobody_listening_is_an_answer_and_no_error() {
    let world = World::new();
    let alone = world.node("alone").start().await.unwrap();
    let published = alone.publish(DEMO, &String::new()).await.unwrap();
    assert_eq!((published.peers, published.listeners, published.local), (0, 0, 0));

    let wanting = alone.publish(DEMO, &String::new()).min_peers(1).timeout(Duration::from_millis(50)).await;
    assert!(matches!(wanting, Err(PublishError::Nobody { wanted: 1, found: 0, .. })), "{wanting:?}");
}

#[tokio::test]
async fn types_travel_and_what_is_not_of_the_type_is_told() {
    const ORDERS: Topic<Order> = Topic::new("orders.typed");
    const ORDERS_JSON: Topic<Order, Json> = Topic::new("orders.json");
    let world = World::new();
    let (a, b) = world.pair().await;
    let mut orders = b.subscribe(ORDERS).await.unwrap();
    let mut documents = b.subscribe(ORDERS_JSON).await.unwrap();

    let order = Order { id: 7, item: "pigeons".into() };
    a.publish(ORDERS, &order).await.unwrap();
    a.publish(ORDERS_JSON, &order).await.unwrap();
    assert_eq!(*message(&mut orders).await, order);
    let document = message(&mut documents).await;
    assert_eq!((document.content_type(), &*document), ("application/json", &order));

    a.publish(RawTopic::parse("orders.json").unwrap(), &Bytes::from("{")).await.unwrap();
    a.publish(ORDERS_JSON, &order).await.unwrap();
    let wrong = next("the failure", &mut documents).await;
    assert!(matches!(&wrong, Err(RecvError::Decode { topic, .. }) if topic == "orders.json"), "{wrong:?}");
    assert_eq!(*message(&mut documents).await, order, "the stream goes on");
}

#[tokio::test]
async fn ten_thousand_messages_keep_their_order() {
    const COUNT: u32 = 10_000;
    let world = World::new();
    let (a, b) = world.pair().await;
    let mut numbers = b.subscribe(NUMBERS).await.unwrap();

    let publisher = a.publisher(NUMBERS);
    within("a listener", publisher.ready(1)).await.unwrap();
    let publishing = async {
        for number in 0..COUNT {
            publisher.publish(&number).await.unwrap();
        }
    };
    let reading = async {
        for expected in 0..COUNT {
            assert_eq!(*message(&mut numbers).await, expected);
        }
    };
    within("all messages", async { tokio::join!(publishing, reading) }).await;
}

#[tokio::test]
async fn a_message_as_large_as_allowed_arrives_and_a_larger_one_is_rejected() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let topic = RawTopic::parse("demo.large").unwrap();
    let mut large = b.subscribe(topic.clone()).await.unwrap();
    let limit = Limits::default().message;

    let body: Bytes = (0..limit).map(|index| (index % 251) as u8).collect();
    a.publish(topic.clone(), &body).await.unwrap();
    assert!(**message(&mut large).await == *body, "it arrives whole");

    let error = a.publish(topic.clone(), &Bytes::from(vec![0; limit + 1])).await.unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { .. }), "{error}");
    a.publish(topic, &Bytes::from("small")).await.unwrap();
    assert_eq!(**message(&mut large).await, b"small"[..]);
}

#[tokio::test]
async fn each_message_goes_to_one_member_of_a_group() {
    const COUNT: u32 = 300;
    let world = World::new();
    let publisher = world.node("publisher").start().await.unwrap();
    let mut members = Vec::new();
    for name in ["one", "two", "three"] {
        let node = world.node(name).peer(address(&publisher)).start().await.unwrap();
        within("the link", node.ready(1)).await.unwrap();
        let subscriber = node.subscribe(NUMBERS).group("packers").await.unwrap();
        members.push((node, subscriber));
    }
    // The end marker goes to each of them, outside the group.
    const END: Topic<u32> = Topic::new("demo.end");
    let mut ends = Vec::new();
    for (node, _) in &members {
        ends.push(node.subscribe(END).await.unwrap());
    }
    let numbers = publisher.publisher(NUMBERS);
    within("the members", numbers.ready(3)).await.unwrap();
    for number in 0..COUNT {
        numbers.publish(&number).await.unwrap();
    }

    let seen = Arc::new(Mutex::new(BTreeMap::<u32, usize>::new()));
    let reading = members.iter_mut().enumerate().map(|(index, (_, subscriber))| {
        let seen = Arc::clone(&seen);
        async move {
            while seen.lock().unwrap().len() < COUNT as usize {
                // Another member may get the last one.
                let Ok(received) = tokio::time::timeout(Duration::from_millis(200), subscriber.next()).await else {
                    continue;
                };
                let before = seen.lock().unwrap().insert(*received.unwrap().unwrap(), index);
                assert_eq!(before, None, "a message went to two members");
            }
        }
    });
    within("every message", join_all(reading)).await;
    let busy: BTreeSet<_> = seen.lock().unwrap().values().copied().collect();
    assert_eq!(busy.len(), 3, "all members work");

    // Whatever was doubled would be there by now: it went out before the end marker, on the same shard.
    within("the listeners", publisher.publish(END, &0).min_peers(3)).await.unwrap();
    for (end, (_, subscriber)) in ends.iter_mut().zip(&mut members) {
        message(end).await;
        let rest = futures::poll!(subscriber.next());
        assert!(rest.is_pending(), "a message came twice: {rest:?}");
    }
}

#[tokio::test]
async fn members_of_a_group_on_one_node_share_as_well() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let mut one = b.subscribe(NUMBERS).group("packers").await.unwrap();
    let mut two = b.subscribe(NUMBERS).group("packers").await.unwrap();
    let mut apart = b.subscribe(NUMBERS).group("auditors").await.unwrap();
    for number in 0..100 {
        a.publish(NUMBERS, &number).await.unwrap();
    }
    for expected in 0..100 {
        assert_eq!(*message(&mut apart).await, expected, "the other group gets all of them");
    }
    let mut numbers = Vec::new();
    while numbers.len() < 100 {
        let received = within("a message", async {
            tokio::select! { received = one.next() => received, received = two.next() => received }
        });
        numbers.push(*received.await.unwrap().unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_is_answered() {
    const UPPER: Service<String, String> = Service::new("text.upper");
    let world = World::new();
    let (a, b) = world.pair().await;
    let _serving = b.serve(UPPER).with(|text| async move { Ok(text.to_uppercase()) }).await.unwrap();

    let answer = within("an answer", a.request(UPPER, &"pombo".to_owned())).await.unwrap();
    assert_eq!((answer.source(), answer.as_str()), (b.peer_id(), "POMBO"));
    let own = within("an answer", b.request(UPPER, &"own".to_owned())).await.unwrap();
    assert_eq!((own.source(), own.as_str()), (b.peer_id(), "OWN"));

    // By name and by id; a node that is not there, or does not serve it, is not replaced by another.
    assert!(a.request(UPPER, &String::new()).to("b").await.is_ok());
    assert!(a.request(UPPER, &String::new()).to(b.peer_id().to_string()).await.is_ok());
    for to in ["nobody", "a"] {
        let error = a.request(UPPER, &String::new()).to(to).await.unwrap_err();
        assert!(matches!(error, RequestError::NoNode { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_stream_of_requests_sees_headers_and_can_refuse() {
    let service = RawService::parse("demo.stream").unwrap();
    let world = World::new();
    let (a, b) = world.pair().await;
    let mut requests = b.serve(service.clone()).await.unwrap();

    let asking = a.request(service.clone(), &Bytes::from("q")).header("tenant", "acme").content_type("text/plain");
    let answering = async {
        let request = next("a request", &mut requests).await;
        assert_eq!((request.source(), request.headers().get("tenant")), (a.peer_id(), Some("acme")));
        assert_eq!((request.content_type(), &**request), ("text/plain", &b"q"[..]));
        assert!(request.timeout() <= Duration::from_secs(5));
        request.respond(&Bytes::from("r")).await.unwrap();
    };
    let (answer, ()) = tokio::join!(asking.into_future(), answering);
    assert_eq!(**answer.unwrap(), b"r"[..]);

    let refusing = async { next("a request", &mut requests).await.refuse("not today").await };
    let (answer, _) = tokio::join!(a.request(service.clone(), &Bytes::new()).into_future(), refusing);
    let error = answer.unwrap_err();
    assert!(
        matches!(&error, RequestError::Refused { from, message } if *from == b.peer_id() && message == "not today")
    );

    // One that is dropped is told at once.
    let dropping = async { drop(next("a request", &mut requests).await) };
    let started = Instant::now();
    let (answer, ()) = tokio::join!(a.request(service, &Bytes::new()).into_future(), dropping);
    assert!(matches!(answer.unwrap_err(), RequestError::Unknown { .. }));
    assert!(started.elapsed() < Duration::from_secs(4), "before the deadline");
}

#[tokio::test]
async fn a_handler_refuses_with_any_error() {
    const PARSE: Service<String, u32> = Service::new("text.parse");
    let world = World::new();
    let (a, b) = world.pair().await;
    let parse = |text: String| async move {
        if text.is_empty() {
            return Err(Refusal::new("nothing to parse"));
        }
        Ok(text.parse::<u32>()?)
    };
    let _serving = b.serve(PARSE).with(parse).await.unwrap();
    assert_eq!(*within("an answer", a.request(PARSE, &"17".to_owned())).await.unwrap(), 17);
    for (question, expected) in [("", "nothing to parse"), ("x", "invalid digit found in string")] {
        let error = within("an answer", a.request(PARSE, &question.to_owned())).await.unwrap_err();
        assert!(matches!(&error, RequestError::Refused { message, .. } if message == expected), "{error}");
    }
}

#[tokio::test]
async fn requests_that_get_no_answer_say_why() {
    const SLOW: Service<u32, u32> = Service::new("demo.slow");
    let world = World::new();
    let (a, b) = world.pair().await;

    let error = within("an outcome", a.request(SLOW, &1)).await.unwrap_err();
    assert!(matches!(error, RequestError::Nobody { .. }), "{error}");

    // A handler that answers never: the deadline, and the cancellation that reaches it.
    let mut requests = b.serve(SLOW).concurrency(1).await.unwrap();
    let asking = a.request(SLOW, &2).timeout(Duration::from_millis(300));
    let handling = async {
        let request = next("the request", &mut requests).await;
        within("the cancellation", request.cancelled()).await;
    };
    let (answer, ()) = tokio::join!(asking.into_future(), handling);
    assert!(matches!(answer.unwrap_err(), RequestError::Unknown { .. }));

    // An asker that drops its future cancels, too.
    let mut asking = a.request(SLOW, &3).into_future();
    let request = tokio::select! {
        answer = &mut asking => panic!("nobody has answered: {answer:?}"),
        request = next("the request", &mut requests) => request,
    };
    drop(asking);
    within("the cancellation", request.cancelled()).await;
    drop(request);

    // The only place is taken: busy, and it did not run.
    let mut first = a.request(SLOW, &4).into_future();
    let request = tokio::select! {
        answer = &mut first => panic!("nobody has answered: {answer:?}"),
        request = next("the request", &mut requests) => request,
    };
    let second = within("an outcome", a.request(SLOW, &5)).await;
    assert!(matches!(second, Err(RequestError::Busy { .. })), "{second:?}");
    request.respond(&40).await.unwrap();
    assert_eq!(*within("the first answer", first).await.unwrap(), 40);
}

#[tokio::test]
async fn a_request_goes_to_whoever_has_room() {
    const WORK: Service<u32, String> = Service::new("demo.work");
    let world = World::new();
    let asker = world.node("asker").start().await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let started = Arc::new(AtomicUsize::new(0));
    let mut providers = Vec::new();
    for name in ["one", "two"] {
        let node = world.node(name).peer(address(&asker)).start().await.unwrap();
        within("the link", node.ready(1)).await.unwrap();
        let (gate, started) = (Arc::clone(&gate), Arc::clone(&started));
        let work = move |_| {
            let (gate, started) = (Arc::clone(&gate), Arc::clone(&started));
            async move {
                started.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await?.forget();
                Ok(name.to_owned())
            }
        };
        let serving = node.serve(WORK).concurrency(1).with(work).await.unwrap();
        providers.push((node, serving));
    }
    let knows_both = async || {
        let status = asker.status().await.unwrap();
        status.peers.iter().filter(|peer| peer.services.contains(&"demo.work".to_owned())).count() == 2
    };
    eventually("both providers", knows_both).await;

    let both = join_all([1, 2].map(|number| asker.request(WORK, &number).into_future()));
    let opening = async {
        eventually("both at work", async || started.load(Ordering::SeqCst) == 2).await;
        gate.add_permits(2);
    };
    let (answers, ()) = within("both answers", async { tokio::join!(both, opening) }).await;
    let by: BTreeSet<String> = answers.into_iter().map(|answer| answer.unwrap().into_payload()).collect();
    assert_eq!(by.len(), 2, "each provider took one");
}

#[tokio::test]
async fn a_relay_that_wants_nothing_itself_passes_on() {
    let world = World::new();
    let b = world.node("b").relay(true).start().await.unwrap();
    let a = world.node("a").peer(address(&b)).start().await.unwrap();
    let c = world.node("c").peer(address(&b)).start().await.unwrap();
    let mut texts = c.subscribe(DEMO).ready(1).await.unwrap();

    for text in ["one", "two", "three"] {
        let published = within("a listener", a.publish(DEMO, &text.to_owned()).min_peers(1)).await.unwrap();
        assert_eq!((published.peers, published.listeners), (0, 1), "it listens, and is no neighbour");
    }
    for text in ["one", "two", "three"] {
        assert_eq!(*message(&mut texts).await, text);
    }
    let known = a.status().await.unwrap().peers.into_iter().find(|peer| peer.peer == c.peer_id());
    assert_eq!(known.unwrap().links, 0, "a and c are not linked");
}

#[tokio::test]
async fn a_thousand_topics_work_on_one_node() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let topics: Vec<Topic<u32>> = (0..1_000).map(|index| Topic::parse(&format!("t{index}.x")).unwrap()).collect();
    let subscribing = join_all(topics.iter().map(|topic| b.subscribe(topic.clone()).into_future()));
    let mut subscribers = within("all subscriptions", subscribing).await;

    for (number, topic) in (0..).zip(&topics) {
        let published = within("a listener", a.publish(topic.clone(), &number).min_peers(1)).await.unwrap();
        assert_eq!(published.listeners, 1, "{topic}");
    }
    for (expected, subscriber) in (0..).zip(&mut subscribers) {
        assert_eq!(*message(subscriber.as_mut().unwrap()).await, expected);
    }
}

#[tokio::test]
async fn ten_idle_nodes_keep_their_links() {
    let world = World::new();
    let mut nodes: Vec<Node> = Vec::new();
    for index in 0..10 {
        let builder = world.node(&format!("n{index}"));
        let builder = nodes.iter().map(address).fold(builder, Builder::peer);
        nodes.push(builder.start().await.unwrap());
    }
    for node in &nodes {
        within("nine links", node.ready(9)).await.unwrap();
    }
    let lost = nodes.iter().map(|node| async move {
        let mut events = node.events();
        loop {
            if let Event::Unlinked { peer } = events.next().await.expect("the node runs") {
                return format!("{} lost {peer}", node.name());
            }
        }
    });
    // Libp2p lets go of a connection that nobody uses after 10 s.
    let lost = futures::future::select_all(lost.map(Box::pin));
    let Err(_) = tokio::time::timeout(Duration::from_secs(13), lost).await.map(|(lost, _, _)| panic!("{lost}"));
    for node in &nodes {
        let status = node.status().await.unwrap();
        assert_eq!(status.peers.iter().filter(|peer| peer.links > 0).count(), 9, "{}", node.name());
    }
}

#[tokio::test]
async fn a_goodbye_is_heard_at_once() {
    let world = World::alone();
    let (a, b) = world.pair().await;
    let mut texts = b.subscribe(DEMO).await.unwrap();
    assert_eq!(a.publish(DEMO, &String::new()).await.unwrap().listeners, 1);
    let mut events = a.events();

    within_time(Duration::from_secs(2), "the end", b.leave()).await;
    let gone = async {
        loop {
            if let Event::Left { peer, name } = next("the goodbye", &mut events).await {
                break (peer, name);
            }
        }
    };
    assert_eq!(within_time(Duration::from_secs(1), "the goodbye", gone).await, (b.peer_id(), "b".to_owned()));
    assert_eq!(a.publish(DEMO, &String::new()).await.unwrap().listeners, 0);

    // What was made from the node ends with it.
    message(&mut texts).await;
    assert!(within("the end of the stream", texts.next()).await.is_none());
    assert!(matches!(b.publish(DEMO, &String::new()).await, Err(PublishError::Closed(_))));
    assert!(b.status().await.is_err());
    within("leaving again", b.leave()).await;
}

#[tokio::test]
async fn dropping_the_last_handle_ends_a_node() {
    let world = World::new();
    let (a, b) = world.pair().await;
    let (peer, again) = (b.peer_id(), b.clone());
    let mut events = a.events();
    drop(b);
    assert!(again.status().await.is_ok(), "a clone is the node, too");
    drop(again);
    let left = async {
        while !matches!(next("the goodbye", &mut events).await, Event::Left { peer: gone, .. } if gone == peer) {}
    };
    within("the goodbye", left).await;
}

#[tokio::test]
async fn dropped_subscriptions_and_services_are_gone_everywhere() {
    const UPPER: Service<String, String> = Service::new("text.upper");
    let world = World::new();
    let (a, b) = world.pair().await;
    let texts = b.subscribe(DEMO).await.unwrap();
    let serving = b.serve(UPPER).with(|text| async move { Ok(text.to_uppercase()) }).await.unwrap();
    assert_eq!(a.publish(DEMO, &String::new()).await.unwrap().listeners, 1);
    assert!(within("an answer", a.request(UPPER, &String::new())).await.is_ok());
    drop((texts, serving));
    eventually("no listener", async || a.publish(DEMO, &String::new()).await.unwrap().listeners == 0).await;
    let nobody = async || matches!(a.request(UPPER, &String::new()).await, Err(RequestError::Nobody { .. }));
    eventually("no provider", nobody).await;
}

#[tokio::test]
async fn private_meshes_do_not_mix() {
    let (world, elsewhere) = (World::new(), World::other());
    let a = world.node("a").start().await.unwrap();
    let mut events = a.events();
    let stranger = elsewhere.node("stranger").peer(address(&a)).start().await.unwrap();
    let mut theirs = stranger.events();
    let _texts = stranger.subscribe(DEMO).await.unwrap();
    assert_ne!(a.mesh().id, stranger.mesh().id);

    for event in [next("who was turned away", &mut events).await, next("by whom", &mut theirs).await] {
        assert!(matches!(event, Event::OtherMesh { open: false, .. }), "{event:?}");
    }
    let error = a.publish(DEMO, &String::new()).min_peers(1).timeout(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error, PublishError::Nobody { found: 0, .. }), "{error}");
    assert!(a.status().await.unwrap().peers.is_empty() && stranger.status().await.unwrap().peers.is_empty());
}

#[tokio::test]
async fn a_subscription_is_in_force_when_it_returns() {
    let world = World::new();
    let (a, b) = world.pair().await;
    for round in 0..50_u32 {
        let topic: Topic<u32> = Topic::parse(&format!("round{round}.x")).unwrap();
        let mut numbers = b.subscribe(topic.clone()).await.unwrap();
        let published = a.publish(topic, &round).await.unwrap();
        assert_eq!(published.listeners, 1, "in round {round}");
        assert_eq!(*message(&mut numbers).await, round);
    }
}

#[test]
fn a_node_that_died_receives_again_soon_after_its_return() {
    let world = World::alone();
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let lasting = runtime();
    let a = lasting.block_on(async { world.node("a").start().await.unwrap() });
    let subscribed = async || {
        let b = world.node("b").peer(address(&a)).start().await.unwrap();
        let numbers = b.subscribe(NUMBERS).ready(1).await.unwrap();
        (b.peer_id(), b, numbers)
    };
    let publish = |number: u32| {
        let published = lasting.block_on(async { a.publish(NUMBERS, &number).min_peers(1).await });
        published.unwrap();
    };
    let mut ids = BTreeSet::new();
    for round in 0..3 {
        let life = runtime();
        let started = Instant::now();
        let (id, b, mut numbers) = life.block_on(subscribed());
        ids.insert(id);
        publish(round);
        assert_eq!(*life.block_on(message(&mut numbers)), round);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(3), "round {round} took {took:?}");
        // No goodbye: its tasks end where they are.
        life.shutdown_timeout(SOON);
        drop((b, numbers));
    }
    assert_eq!(ids.len(), 1, "the same key each time");
}

#[cfg(feature = "quic")]
#[tokio::test]
async fn everything_works_over_quic() {
    const UPPER: Service<String, String> = Service::new("text.upper");
    let world = World::new();
    let quic = |name: &str| {
        let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
        let data_dir = Some(world.data.path().to_owned());
        let name = Some(name.to_owned());
        pombo::Config { name, mesh: private(), data_dir, listen, mdns: false, local: false, ..pombo::Config::default() }
    };
    let a = Node::builder().config(quic("a")).start().await.unwrap();
    let mut events = a.events();
    let b = Node::builder().config(quic("b")).peer(address(&a)).start().await.unwrap();
    let linked = next("the link", &mut events).await;
    assert!(matches!(&linked, Event::Linked { address, .. } if address.to_string().contains("/quic-v1")), "{linked:?}");

    let mut texts = b.subscribe(DEMO).ready(1).await.unwrap();
    within("a listener", a.publish(DEMO, &"hello".to_owned()).min_peers(1)).await.unwrap();
    assert_eq!(*message(&mut texts).await, "hello");
    let _serving = b.serve(UPPER).with(|text| async move { Ok(text.to_uppercase()) }).await.unwrap();
    assert_eq!(within("an answer", a.request(UPPER, &"pombo".to_owned())).await.unwrap().as_str(), "POMBO");
}

#[tokio::test]
async fn nodes_of_one_process_meet_in_memory_where_they_are_told_to_and_tell_nobody() {
    let world = World::new();
    let node = |name: &str, listen: &str| {
        let builder = Node::builder().name(name).mesh(private()).data_dir(world.data.path()).mdns(false).local(false);
        builder.listen(listen.parse().unwrap())
    };
    // A row: the ends know each other by the one between, and not where the other is.
    let a = node("a", "/memory/0").start().await.unwrap();
    let b = node("b", "/memory/0").peer(address(&a)).relay(true).start().await.unwrap();
    let c = node("c", "/memory/0").peer(address(&b)).start().await.unwrap();
    let mut texts = c.subscribe(DEMO).ready(1).await.unwrap();
    within("a listener", a.publish(DEMO, &"hello".to_owned()).min_peers(1)).await.unwrap();
    assert_eq!(*message(&mut texts).await, "hello");
    let known = a.status().await.unwrap().peers;
    assert!(known.len() == 2 && known.iter().all(|peer| peer.addresses.is_empty()), "{known:?}");

    let refused = node("d", "/memory/0").peer("/memory/7/tcp/1".parse().unwrap()).start().await;
    assert!(matches!(refused, Err(pombo::StartError::Config(_))), "{refused:?}");
}
