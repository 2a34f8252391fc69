//! Messages at a fixed rate from nodes at random, and what became of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use pombo::{Bincode, Node, RecvError, Subscriber, Topic};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::graph::Chance;
use crate::process::now;
use crate::{Cli, Result};

#[derive(Debug, Serialize, Deserialize)]
struct Parcel {
    number: usize,
    /// When it was due, by the clock of this process.
    due: u64,
    body: Vec<u8>,
}

/// What came, at all nodes.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Microseconds from when each was due.
    times: Mutex<Vec<u32>>,
    pub(crate) count: AtomicU64,
    pub(crate) twice: AtomicU64,
    /// Messages that subscribers were told they missed.
    pub(crate) missed: AtomicU64,
}

impl Arrivals {
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// All times, the shortest first.
    pub(crate) fn sorted(&self) -> Vec<u32> {
        let mut times = self.times.lock().map(|times| times.clone()).unwrap_or_default();
        times.sort_unstable();
        times
    }

    fn note(&self, due: u64) {
        let micros = u32::try_from(now().saturating_sub(due) / 1_000).unwrap_or(u32::MAX);
        if let Ok(mut times) = self.times.lock() {
            times.push(micros);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The topics: each begins differently, since the beginning decides which shard it goes by.
fn topics(count: usize) -> Result<Vec<Topic<Parcel>>> {
    (0..count).map(|number| Ok(Topic::parse(&format!("growth{number}.news"))?)).collect()
}

/// Every node reads every topic from now on, until the set is dropped.
pub(crate) async fn subscribe(nodes: &[Node], cli: &Cli, arrivals: &Arc<Arrivals>) -> Result<JoinSet<()>> {
    let each = nodes.iter().map(async |node| {
        let topics = topics(cli.topics)?.into_iter().map(|topic| node.subscribe(topic).into_future());
        Ok::<_, crate::Failure>((node, futures::future::try_join_all(topics).await?))
    });
    let mut readers = JoinSet::new();
    for (node, subscribers) in futures::future::try_join_all(each).await? {
        let seen = Arc::new(Mutex::new(vec![false; cli.rate * cli.seconds]));
        for subscriber in subscribers {
            readers.spawn(read(node.clone(), subscriber, Arc::clone(&seen), Arc::clone(arrivals)));
        }
    }
    Ok(readers)
}

async fn read(
    node: Node,
    mut subscriber: Subscriber<Parcel, Bincode>,
    seen: Arc<Mutex<Vec<bool>>>,
    arrivals: Arc<Arrivals>,
) {
    while let Some(came) = subscriber.next().await {
        match came {
            // Its own messages it gets without a network.
            Ok(message) if message.source() == node.peer_id() => {}
            Ok(message) => {
                let twice =
                    seen.lock().map(|mut seen| seen.get_mut(message.number).map(|seen| std::mem::replace(seen, true)));
                if let Ok(Some(true)) = twice {
                    arrivals.twice.fetch_add(1, Ordering::Relaxed);
                } else {
                    arrivals.note(message.due);
                }
            }
            Err(RecvError::Lagged { missed, .. }) => {
                arrivals.missed.fetch_add(missed, Ordering::Relaxed);
            }
            Err(error) => eprintln!("{}: {error}", node.name()),
        }
    }
}

/// Publishes all messages, each when it is due, from a node and on a topic by chance. Says how many.
pub(crate) async fn publish(nodes: &[Node], cli: &Cli, chance: &mut Chance) -> Result<usize> {
    let topics = topics(cli.topics)?;
    let (began, messages) = (tokio::time::Instant::now(), cli.rate * cli.seconds);
    let (origin, pause) = (now(), Duration::from_secs(1) / u32::try_from(cli.rate)?);
    for number in 0..messages {
        let after = pause * u32::try_from(number)?;
        tokio::time::sleep_until(began + after).await;
        let due = origin + u64::try_from(after.as_nanos())?;
        let parcel = Parcel { number, due, body: vec![b'x'; cli.size] };
        let (node, topic) = (&nodes[chance.below(nodes.len())], &topics[chance.below(topics.len())]);
        node.publish(topic.clone(), &parcel).await?;
    }
    Ok(messages)
}
