//! Frames and calls that go straight to those they are for, between live nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pombo::{Bytes, Dissemination, Node, Service, Topic};

use crate::support::Turn;
use crate::support::nodes::{Place, SOON, TRANSPORTS, address, next, within};

const NUMBERS: Topic<(u32, Vec<u8>)> = Topic::new("lanes.numbers");
const ECHO: Service<Bytes, Bytes> = Service::new("lanes.echo");

async fn has_lane(node: &Node) {
    let lane = async {
        while node.status().await.unwrap().tables.lanes == 0 {
            tokio::task::yield_now().await;
        }
    };
    within("a lane", lane).await;
}

/// A reader that is slower than its publisher is waited for, whichever transport they are linked by, and loses nothing. So
/// does one that is linked over gossip and as fast as it.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_paces_its_publisher_and_loses_nothing() {
    const COUNT: u32 = 20_000;
    for transport in TRANSPORTS {
        let place = Place::new(Turn::shared());
        let publisher = place.node("publisher", transport).start().await.unwrap();
        let reader = place.node("reader", transport).peer(address(&publisher)).start().await.unwrap();
        let mut slow = reader.subscribe(NUMBERS).ready(1).timeout(SOON).await.unwrap();
        let numbers = publisher.publisher(NUMBERS);
        within("a listener", numbers.ready(1)).await.unwrap();
        // The first goes by gossip, and a lane follows it.
        numbers.publish(&(0, Vec::new())).await.unwrap();
        assert_eq!(next("a number", &mut slow).await.unwrap().0, 0);
        has_lane(&publisher).await;
        let published = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&published);
        let publishing = async {
            for number in 0..COUNT {
                numbers.publish(&(number, vec![7; 2_000])).await.unwrap();
                count.store(number, Ordering::Relaxed);
            }
        };
        let reading = tokio::spawn(async move {
            let mut furthest = 0;
            for expected in 0..COUNT {
                // 40 MB: far more than the mailbox, the window and what may wait to be published.
                assert_eq!(next("a number", &mut slow).await.unwrap().0, expected);
                if expected % 50 == 0 {
                    furthest = furthest.max(published.load(Ordering::Relaxed).saturating_sub(expected));
                }
            }
            furthest
        });
        publishing.await;
        let furthest = reading.await.unwrap();
        assert!(furthest < 12_000, "the publisher was {furthest} ahead, of {COUNT}");
    }
}

/// Both ways, and from one to the other while both publish: every number once, in order.
#[tokio::test(flavor = "multi_thread")]
async fn each_way_delivers_every_message_once_and_in_order() {
    const COUNT: u32 = 5_000;
    for way in [Dissemination::Adaptive, Dissemination::Direct, Dissemination::Gossip] {
        let place = Place::new(Turn::shared());
        let mut nodes: Vec<Node> = Vec::new();
        for name in ["one", "two", "three"] {
            let node = place.node(name, TRANSPORTS[0]).dissemination(way);
            let node = nodes.iter().fold(node, |node, other| node.peer(address(other)));
            nodes.push(node.start().await.unwrap());
        }
        let mut subscribers = Vec::new();
        for node in &nodes {
            subscribers.push(node.subscribe(NUMBERS).ready(2).timeout(SOON).await.unwrap());
        }
        let publishers: Vec<_> = nodes.iter().take(2).map(|node| node.publisher(NUMBERS)).collect();
        for publisher in &publishers {
            within("the listeners", publisher.ready(2)).await.unwrap();
        }
        let publishing = futures::future::join_all(publishers.iter().map(|publisher| async move {
            for number in 0..COUNT {
                publisher.publish(&(number, vec![1; 100])).await.unwrap();
            }
        }));
        let reading = futures::future::join_all(subscribers.iter_mut().map(|subscriber| async move {
            let mut expected = std::collections::HashMap::new();
            for _ in 0..2 * COUNT {
                let message = next("a number", subscriber).await.unwrap_or_else(|error| panic!("{way:?}: {error}"));
                let number = expected.entry(message.source()).or_insert(0);
                assert_eq!(message.0, *number, "{way:?}");
                *number += 1;
            }
        }));
        futures::future::join(publishing, reading).await;
    }
}

/// Calls of every size share a lane, many at once, and large ones do not mix.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_every_size_share_a_lane() {
    for transport in TRANSPORTS {
        let place = Place::new(Turn::shared());
        let provider = place.node("provider", transport).start().await.unwrap();
        let asker = place.node("asker", transport).peer(address(&provider)).start().await.unwrap();
        let echo = |body: Bytes| async move { Ok(body) };
        let _serving = provider.serve(ECHO).concurrency(256).with(echo).await.unwrap();
        let mut numbers = provider.subscribe(NUMBERS).ready(1).timeout(SOON).await.unwrap();
        // Who publishes to a neighbour gets a lane to it, and that one a lane back.
        asker.publish(NUMBERS, &(0, Vec::new())).min_peers(1).timeout(SOON).await.unwrap();
        next("a number", &mut numbers).await.unwrap();
        has_lane(&asker).await;
        has_lane(&provider).await;
        // A length stands before the bytes.
        for size in [1, 100, 40_000, 100_000, 1024 * 1024 - 5] {
            let body = Bytes::from(vec![7; size]);
            assert_eq!(*asker.request(ECHO, &body).timeout(SOON).await.unwrap(), body);
        }
        let many = (0..200_u32).map(|number| {
            let asker = asker.clone();
            async move {
                let size = [10, 1_000, 45_000, 300_000][usize::try_from(number % 4).unwrap()];
                let body = Bytes::from([number.to_be_bytes().to_vec(), vec![1; size]].concat());
                let reply = asker.request(ECHO, &body).timeout(Duration::from_secs(30)).await.unwrap();
                assert_eq!(*reply, body, "{number}");
            }
        });
        futures::future::join_all(many).await;
    }
}
