//! The publisher and the subscriber of a benchmark.

use std::time::Duration;

use futures::StreamExt;
use pombo::{Closed, Message, Node, Outcome, RecvError, Topic};

use super::clock;
use super::latency::Latency;
use super::ledger::Ledger;
use super::plan::{Heard, Load, Order, Pace, Parcel, Said, Schedule, Word};
use super::worker::Desk;
use super::{GRACE, START};
use crate::cli::failure::Failure;

/// When nothing has come for so long after everything was sent, nothing will.
const QUIET: Duration = Duration::from_secs(3);

pub(super) async fn publish(node: &Node, order: &Order, subscribers: usize, desk: &mut Desk) -> Result<(), Failure> {
    let publisher = node.publisher(Topic::<Parcel>::parse(&order.name)?);
    let Ok(ready) = tokio::time::timeout(START, publisher.ready(subscribers)).await else {
        let wanted = crate::cli::text::count(subscribers, "subscriber");
        return Err(Failure::new(Outcome::Nobody, format!("the publisher did not find {wanted} within {START:?}")));
    };
    ready?;
    desk.say(&Said::Ready { addresses: Vec::new() });
    desk.go().await?;
    let all = async {
        let mut parcel = Parcel { sequence: 0, stamp: 0, body: vec![b'p'; order.load.size] };
        let mut schedule = Schedule::new(order.load);
        // This thread is not one of those that run the node: it may block, as `next` does.
        while let Some(stamp) = schedule.next(parcel.sequence) {
            parcel.stamp = stamp;
            publisher.publish(&parcel).await?;
            parcel.sequence += 1;
        }
        Ok::<_, Failure>(parcel.sequence)
    };
    let most = order.load.duration + GRACE;
    let Ok(sent) = tokio::time::timeout(most, all).await else {
        return Err(Failure::new(Outcome::Unknown, format!("publishing came to a halt: not done within {most:?}")));
    };
    desk.say(&Said::Sent(sent?));
    desk.finish().await
}

pub(super) async fn subscribe(node: &Node, order: &Order, desk: &mut Desk) -> Result<(), Failure> {
    let mut subscriber = node.subscribe(Topic::<Parcel>::parse(&order.name)?).await?;
    desk.say(&Said::Ready { addresses: node.addresses() });
    let mut listener = Listener::new(order.load);
    let mut sent = None;
    while sent != Some(listener.ledger.received()) {
        tokio::select! {
            biased;
            came = subscriber.next() => match came {
                Some(Ok(message)) => listener.note(&message, desk),
                Some(Err(RecvError::Lagged { missed, .. })) => listener.ledger.told(missed),
                // Not one of ours. If it should have been, it will be missing.
                Some(Err(error)) => tracing::warn!(%error, "a message that makes no sense"),
                None => return Err(Closed.into()),
            },
            word = desk.word() => match word? {
                Word::Sent(all) => sent = Some(all),
                word @ (Word::Go | Word::Finish) => {
                    return Err(Failure::new(Outcome::Failed, format!("{word:?} came too early")));
                }
            },
            () = quiet(), if sent.is_some() => break,
        }
    }
    desk.say(&Said::Heard(listener.account(sent.unwrap_or_default())));
    desk.finish().await
}

/// Made only when it is waited for: it reads the clock, which would take its share of every message.
async fn quiet() {
    tokio::time::sleep(QUIET).await;
}

/// What one subscriber notes of what it hears.
struct Listener {
    load: Load,
    ledger: Ledger,
    latency: Latency,
    /// How many messages had come when, at the first one that counts and at the last one that was timed.
    first: Option<Mark>,
    last: Option<Mark>,
    /// When the first of all came.
    begun: Option<u64>,
}

#[derive(Clone, Copy)]
struct Mark {
    count: u64,
    at: u64,
}

impl Listener {
    fn new(load: Load) -> Self {
        Self { load, ledger: Ledger::default(), latency: Latency::new(), first: None, last: None, begun: None }
    }

    fn note(&mut self, message: &Message<Parcel>, desk: &mut Desk) {
        if self.begun.is_none() {
            desk.begin();
        }
        if let Some(now) = self.take(message, clock::now) {
            desk.progress(self.ledger.received(), now);
        }
    }

    /// The time, if this one was timed.
    fn take(&mut self, parcel: &Parcel, clock: impl Fn() -> u64) -> Option<u64> {
        self.ledger.note(parcel.sequence);
        let timed = self.load.is_timed(parcel.sequence) || self.begun.is_none();
        let now = timed.then(clock)?;
        let begun = *self.begun.get_or_insert(now);
        let warm = begun.saturating_add(u64::try_from(self.load.warm_up().as_nanos()).unwrap_or(u64::MAX));
        if now >= warm {
            let mark = Mark { count: self.ledger.received(), at: now };
            self.first.get_or_insert(mark);
            self.last = Some(mark);
            if self.load.is_timed(parcel.sequence) {
                self.latency.record(now.saturating_sub(parcel.stamp));
            }
        }
        Some(now)
    }

    fn account(&self, sent: u64) -> Heard {
        let pace = self
            .first
            .zip(self.last)
            .map(|(first, last)| Pace { count: last.count - first.count, nanoseconds: last.at - first.at });
        let (counts, latency) = (self.ledger.close(sent), self.latency.recorded());
        Heard { counts, pace: pace.unwrap_or_default(), latency }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    #[test]
    fn the_beginning_counts_for_the_messages_and_not_for_the_rate() {
        let load = Load { size: 1, rate: NonZeroU64::new(1_000), duration: Duration::from_secs(2) };
        let mut listener = Listener::new(load);
        // One a millisecond, each on its way for two, and the last of all is lost.
        for sequence in 0..2_000 {
            let sent = sequence * MILLISECOND;
            let parcel = Parcel { sequence, stamp: sent, body: Vec::new() };
            assert_eq!(listener.take(&parcel, || sent + 2 * MILLISECOND), Some(sent + 2 * MILLISECOND));
        }
        let heard = listener.account(2_001);
        assert_eq!((heard.counts.received, heard.counts.lost), (2_000, 1));
        assert_eq!((heard.pace.count, heard.pace.nanoseconds), (1_699, 1_699 * MILLISECOND));
        assert!((heard.pace.per_second() - 1_000.0).abs() < 1e-6);
        let mut latency = Latency::new();
        latency.add(&heard.latency);
        let told = latency.percentiles().unwrap();
        assert_eq!(told.count, 1_700);
        assert!((told.p50 / 0.002 - 1.0).abs() < 0.002, "{told:?}");
    }

    #[test]
    fn who_heard_nothing_has_no_rate() {
        let load = Load { size: 1, rate: None, duration: Duration::from_secs(1) };
        let heard = Listener::new(load).account(7);
        assert_eq!((heard.counts.lost, heard.pace.count), (7, 0));
        assert!(heard.pace.per_second().abs() < f64::EPSILON);
    }
}
