//! Readers that are slow, and neighbours that do not read at all.

use std::time::{Duration, Instant};

use pombo::{Bytes, Config, Dissemination, Limits, Node, RawTopic, RecvError, Subscriber, Topic};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::support::Turn;
use crate::support::nodes::{Place, SOON, TCP, TRANSPORTS, address, next, within};
use crate::support::process::Process;
use crate::support::worker::{Job, Publishing, footprint};

/// What one neighbour that does not read may cost a publisher, in KiB.
const COST_KIB: u64 = 16 * 1024;

/// A reader that takes its time gets what its mailbox had room for, and in the place of the rest is told how many it
/// missed. Everybody else gets everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_told_exactly_what_it_missed_and_nobody_else_misses_anything() {
    const NUMBERS: Topic<(u32, Vec<u8>)> = Topic::new("slow.numbers");
    const COUNT: u32 = 2_000;
    for transport in TRANSPORTS {
        let place = Place::new(Turn::shared());
        let limits = Limits { mailbox: 256 * 1024, ..Limits::default() };
        // Over a lane it would pace the publisher, and miss nothing.
        let publisher = place.node("publisher", transport).dissemination(Dissemination::Gossip).start().await.unwrap();
        let config = Config { limits, ..Config::default() };
        let small = Node::builder().config(config).name("reader").mesh(pombo::MeshChoice::Named("test".to_owned()));
        let small = small.data_dir(place.data.path()).mdns(false).local(false).listen(transport.parse().unwrap());
        let reader = small.peer(address(&publisher)).start().await.unwrap();
        let mut slow = reader.subscribe(NUMBERS).ready(1).timeout(SOON).await.unwrap();
        let mut fast = reader.subscribe(NUMBERS).await.unwrap();
        let mut own = publisher.subscribe(NUMBERS).await.unwrap();
        let numbers = publisher.publisher(NUMBERS);
        within("a listener", numbers.ready(1)).await.unwrap();

        let room = Semaphore::new(50);
        let publishing = async {
            for number in 0..COUNT {
                room.acquire().await.unwrap().forget();
                numbers.publish(&(number, vec![7; 2_000])).await.unwrap();
            }
        };
        let reading = async {
            for expected in 0..COUNT {
                assert_eq!(next("a number", &mut fast).await.unwrap().0, expected);
                assert_eq!(next("a number", &mut own).await.unwrap().0, expected);
                room.add_permits(1);
            }
        };
        tokio::join!(publishing, reading);

        // The slow one begins only now. Each gap stands where the numbers have one, and is as long.
        let (mut expected, mut missed_in_all) = (0, 0);
        while expected < u64::from(COUNT) {
            match next("what is left", &mut slow).await {
                Ok(message) => {
                    assert_eq!(u64::from(message.0), expected);
                    expected += 1;
                }
                Err(RecvError::Lagged { missed, exact }) => {
                    assert!(exact && missed > 0, "{missed} {exact}");
                    (expected, missed_in_all) = (expected + missed, missed_in_all + missed);
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(expected, u64::from(COUNT));
        assert!(missed_in_all > u64::from(COUNT) / 2, "its mailbox is small: {missed_in_all}");
        // And from here on it is a reader like any other.
        numbers.publish(&(COUNT, Vec::new())).await.unwrap();
        assert_eq!(next("one more", &mut slow).await.unwrap().0, COUNT);
    }
}

/// Two publishers, several topics, messages in fragments: what a reader got and what it was told to have missed add up.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_received_and_what_was_missed_add_up() {
    const EACH: u64 = 300;
    let place = Place::new(Turn::shared());
    let limits = Limits { mailbox: 512 * 1024, ..Limits::default() };
    let config = Config { limits, ..Config::default() };
    let reader = Node::builder().config(config).name("reader").mesh(pombo::MeshChoice::Named("test".to_owned()));
    let reader = reader.data_dir(place.data.path()).mdns(false).local(false).listen(TCP.parse().unwrap());
    let reader = reader.start().await.unwrap();
    let mut slow = reader.subscribe(pombo::RawPattern::parse("sum.>").unwrap()).await.unwrap();
    let mut witness = reader.subscribe(pombo::RawPattern::parse("sum.>").unwrap()).await.unwrap();
    let mut publishers = Vec::new();
    for name in ["one", "two"] {
        publishers.push(place.node(name, TCP).peer(address(&reader)).start().await.unwrap());
    }
    for (index, node) in publishers.iter().enumerate() {
        for topic in ["sum.small", "sum.large"] {
            let publisher = node.publisher(RawTopic::parse(topic).unwrap());
            within("a listener", publisher.ready(1)).await.unwrap();
            for number in 0..EACH {
                let size = if topic == "sum.large" && number % 10 == index as u64 { 150_000 } else { 1_000 };
                publisher.publish(&Bytes::from(vec![1; size])).await.unwrap();
            }
        }
    }
    // One reads as fast as it can. When it has come to the end, everything is there for the other, or was too much for it.
    count(&mut witness, 4 * EACH).await;
    let (received, missed) = count(&mut slow, 4 * EACH).await;
    assert!(missed > 0 && received > 0, "{received} and {missed}");
    // Nothing more comes.
    for node in publishers {
        node.publish(RawTopic::parse("sum.end").unwrap(), &Bytes::from("end")).await.unwrap();
        let end = next("the end", &mut slow).await.unwrap();
        assert_eq!(end.topic(), "sum.end");
    }
}

/// Reads until so many were received or told to be missing. How many of each.
async fn count(subscriber: &mut Subscriber<Bytes, pombo::Raw>, all: u64) -> (u64, u64) {
    let (mut received, mut missed) = (0, 0);
    while received + missed < all {
        match next("what is left", subscriber).await {
            Ok(_) => received += 1,
            Err(RecvError::Lagged { missed: more, exact }) => {
                assert!(exact, "{more}");
                missed += more;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(received + missed, all, "{received} and {missed}");
    (received, missed)
}

/// A publisher, one that reads, and one that is stopped.
struct Stall {
    _place: Place,
    publisher: Process,
    healthy: Process,
    stalled: Job,
}

impl Stall {
    fn new(transport: &str, size: usize, per_second: Option<u32>) -> Self {
        let place = Place::new(Turn::alone());
        let job = |name: &str, peers: &[String]| Job {
            name: name.to_owned(),
            data: place.data.path().to_owned(),
            listen: vec![transport.to_owned()],
            peers: peers.to_vec(),
            report: Some(200),
            // Soon full.
            limits: Limits { ring: 4 << 20, ..Limits::default() },
            ..Job::default()
        };
        let publish = Publishing { topic: "stall.all".to_owned(), sizes: vec![size], per_second, listeners: 1 };
        let publisher = Job { publish: Some(publish), ..job("publisher", &[]) };
        let (publisher, address) = publisher.start();
        let listen = |name| {
            let subscribe = vec![("stall.>".to_owned(), None)];
            Job { subscribe, ..job(name, std::slice::from_ref(&address)) }
        };
        let healthy = listen("healthy").start().0;
        let stalled = listen("stalled");
        Self { _place: place, publisher, healthy, stalled }
    }

    /// Stops it, and waits until the publisher lets it go. The most memory of the publisher meanwhile, and how long it took.
    fn stop(&self, stalled: &Process) -> (u64, Duration) {
        stalled.signal("STOP");
        let (stopped, process, mut most) = (Instant::now(), self.publisher.pid().to_string(), 0);
        until(&self.publisher, "the end of the link", |report| {
            most = most.max(footprint(&process)["rss"]);
            report["tables"]["links"] == 1
        });
        (most, stopped.elapsed())
    }

    /// The most memory of the publisher while so much time passes, in KiB, and how much it published.
    fn watch(&self, time: Duration) -> (u64, u64) {
        let (began, process) = (Instant::now(), self.publisher.pid().to_string());
        let (mut most, mut first, mut last) = (0, None, 0);
        while began.elapsed() < time {
            let report = self.publisher.event_within(SOON, "report");
            most = most.max(footprint(&process)["rss"]);
            last = report["published"].as_u64().unwrap();
            first = first.or(Some(last));
        }
        (most, last - first.unwrap_or(last))
    }
}

fn until(process: &Process, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let report = process.event_within(SOON, "report");
        if holds(&report) {
            return report;
        }
        assert!(began.elapsed() < SOON, "{what} does not come: {report}\n{process}");
    }
}

/// Returns the memory without and with the stalled one, and after it is gone, in MiB.
///
/// At a rate of its own: what gossipsub keeps of the last seconds is then the same before and after.
fn stall(transport: &str, size: usize, per_second: Option<u32>) {
    let stall = Stall::new(transport, size, per_second);
    until(&stall.healthy, "a message", |report| report["received"].as_u64() > Some(0));
    // So that everything that fills up to its bound is full.
    stall.watch(Duration::from_secs(6));
    let (without, published) = stall.watch(Duration::from_secs(6));

    let stalled = stall.stalled.start().0;
    until(&stalled, "a message", |report| report["received"].as_u64() > Some(0));
    until(&stall.publisher, "the link", |report| report["tables"]["links"] == 2);
    let (with, gone) = stall.stop(&stalled);
    let (after, while_stalled) = stall.watch(Duration::from_secs(6));
    let before: u64 = until(&stall.healthy, "a report", |_| true)["received"].as_u64().unwrap();

    stalled.signal("CONT");
    let resumed = Instant::now();
    let at_stop = until(&stalled, "a report", |_| true)["received"].as_u64().unwrap();
    let told = until(&stalled, "news", |report| {
        report["received"].as_u64().unwrap() > at_stop + 10 && report["missed"].as_u64() > Some(0)
    });
    let back = resumed.elapsed();
    // What it cost is there to be used again: a second time costs no more.
    until(&stall.publisher, "the link", |report| report["tables"]["links"] == 2);
    let (again, _) = stall.stop(&stalled);
    let healthy = until(&stall.healthy, "more", |report| report["received"].as_u64().unwrap() > before);
    eprintln!(
        "{transport} {size} B: {without} KiB without, {with} KiB with it, {after} KiB after, {again} KiB with it again; let go after {gone:?}, \
         back after {back:?}; {published} and {while_stalled} published in 6 s; told {} of {} missing",
        told["missed"], told["absent"],
    );
    if per_second.is_none() {
        return;
    }
    assert!(with <= without + COST_KIB, "{with} instead of {without}");
    assert!(again <= without + COST_KIB, "{again} instead of {without}: it does not come back");
    assert!(gone < Duration::from_secs(8), "{gone:?}");
    assert!(told["absent"].as_u64() <= told["missed"].as_u64() && told["wrong"] == 0, "{told}");
    assert_eq!(healthy["wrong"], 0, "{healthy}");
}

#[test]
fn one_that_is_stopped_costs_little_with_small_messages() {
    stall(TCP, 128, Some(2_000));
}

#[test]
fn one_that_is_stopped_costs_little_with_messages_of_a_frame() {
    stall(TCP, 60_000, Some(100));
}

#[test]
fn one_that_is_stopped_costs_little_with_the_largest_messages() {
    stall(TCP, 1024 * 1024, Some(8));
}

#[cfg(feature = "quic")]
#[test]
fn one_that_is_stopped_costs_little_over_quic() {
    stall("/ip4/127.0.0.1/udp/0/quic-v1", 60_000, Some(100));
}

/// As fast as it goes. To be read, not judged: what a publisher has in memory then depends on how fast that is.
///
///     cargo test --release --test it -- --ignored --exact stalled::flat_out --nocapture
#[test]
#[ignore = "measures"]
fn flat_out() {
    for transport in TRANSPORTS {
        for size in [128, 60_000, 1024 * 1024] {
            stall(transport, size, None);
        }
    }
}
