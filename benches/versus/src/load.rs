//! What is sent, and how it is counted: the same for every system.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bincode::config::standard;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::clock;

/// The number of the message that says that there are no more.
const END: u64 = u64::MAX;

/// At the beginning, what is left out.
const WARM_UP: u64 = 300_000_000;

/// The payload, in bincode, of every message, question and answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Parcel {
    pub(crate) sequence: u64,
    pub(crate) stamp: u64,
    #[serde(with = "serde_bytes")]
    pub(crate) body: Vec<u8>,
}

impl Parcel {
    pub(crate) fn encode(&self) -> Vec<u8> {
        bincode::serde::encode_to_vec(self, standard()).unwrap_or_default()
    }

    /// What is published when all others are, so many.
    pub(crate) fn end(sent: u64) -> Self {
        Self { sequence: END, stamp: sent, body: Vec::new() }
    }

    /// None if it is none.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        bincode::serde::decode_from_slice(payload, standard()).ok().map(|(parcel, _)| parcel)
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    /// The bytes of a body.
    pub(crate) size: usize,
    /// Messages a second, or as many as go.
    pub(crate) rate: Option<u64>,
    pub(crate) duration: Duration,
}

impl Load {
    /// Whether the time of this one is taken. Of small ones that go as fast as they can, the clock would take its share.
    fn is_timed(&self, sequence: u64) -> bool {
        self.rate.is_some() || self.size >= 4096 || sequence.is_multiple_of(64)
    }
}

fn histogram() -> Histogram<u64> {
    // The bounds are constants that make sense.
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap_or_else(|_| unreachable!())
}

/// What a publisher publishes. It blocks until a message is due, on a thread that is not one of the runtime's.
#[derive(Debug)]
pub(crate) struct Source {
    load: Load,
    start: u64,
    end: u64,
    cpu: u64,
    parcel: Parcel,
    next: u64,
}

impl Source {
    /// Begins now.
    pub(crate) fn new(load: Load) -> Self {
        clock::be_punctual();
        let start = clock::now();
        let end = start + u64::try_from(load.duration.as_nanos()).unwrap_or(u64::MAX / 2);
        let parcel = Parcel { sequence: 0, stamp: start, body: vec![b'p'; load.size] };
        Self { load, start, end, cpu: clock::cpu(), parcel, next: 0 }
    }

    /// The next one, stamped with the time at which it is due.
    pub(crate) fn next(&mut self) -> Option<&Parcel> {
        if let Some(rate) = self.load.rate {
            self.parcel.stamp = self.start + self.next * 1_000_000_000 / rate;
            clock::sleep_until(self.parcel.stamp);
            if clock::now() >= self.end {
                return None;
            }
        } else if self.load.is_timed(self.next) {
            self.parcel.stamp = clock::now();
        }
        if self.parcel.stamp >= self.end {
            return None;
        }
        self.parcel.sequence = self.next;
        self.next += 1;
        Some(&self.parcel)
    }

    /// What is published when all others are, more than once where messages may be lost.
    pub(crate) fn end(&self) -> Parcel {
        Parcel::end(self.next)
    }

    pub(crate) fn sent(&self) -> Sent {
        Sent { sent: self.next, cpu: clock::cpu() - self.cpu }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) sent: u64,
    /// Nanoseconds. What is sent after the last call of publish is not in it.
    pub(crate) cpu: u64,
}

/// What a subscriber notes of what it hears. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Sink(Arc<Mutex<Heard>>);

#[derive(Debug)]
struct Heard {
    load: Load,
    received: u64,
    /// One more than the highest number that came.
    next: u64,
    /// Came twice, or after a later one.
    disordered: u64,
    begun: Option<u64>,
    cpu: u64,
    first: Option<(u64, u64)>,
    last: (u64, u64),
    latency: Histogram<u64>,
}

/// A subscriber's account.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) received: u64,
    pub(crate) disordered: u64,
    /// Messages a second.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Nanoseconds.
    pub(crate) cpu: u64,
}

impl Sink {
    pub(crate) fn new(load: Load) -> Self {
        Self(Arc::new(Mutex::new(Heard {
            load,
            received: 0,
            next: 0,
            disordered: 0,
            begun: None,
            cpu: 0,
            first: None,
            last: (0, 0),
            latency: histogram(),
        })))
    }

    /// One came. Whether it was the last.
    pub(crate) fn note(&self, payload: &[u8]) -> bool {
        Parcel::decode(payload).is_some_and(|parcel| self.note_parcel(&parcel))
    }

    pub(crate) fn note_parcel(&self, parcel: &Parcel) -> bool {
        if parcel.sequence == END {
            return true;
        }
        self.heard().note(parcel);
        false
    }

    /// One came and was acknowledged, in whatever order. Whether it was the last.
    #[cfg(any(feature = "nats", feature = "rabbitmq", feature = "store"))]
    pub(crate) fn count(&self, parcel: &Parcel) -> bool {
        if parcel.sequence == END {
            return true;
        }
        self.heard().count();
        false
    }

    pub(crate) fn account(&self) -> Account {
        let heard = self.heard();
        let (count, first) = heard.first.unwrap_or(heard.last);
        let seconds = (heard.last.1 - first) as f64 / 1e9;
        let at = |quantile| heard.latency.value_at_quantile(quantile) as f64 / 1e3;
        Account {
            received: heard.received,
            disordered: heard.disordered,
            rate: if seconds > 0.0 { (heard.last.0 - count) as f64 / seconds } else { 0.0 },
            p50: at(0.5),
            p99: at(0.99),
            cpu: clock::cpu() - heard.cpu,
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn note(&mut self, parcel: &Parcel) {
        if parcel.sequence < self.next {
            self.disordered += 1;
            return;
        }
        self.next = parcel.sequence + 1;
        self.received += 1;
        if !self.load.is_timed(parcel.sequence) && self.begun.is_some() {
            return;
        }
        let now = clock::now();
        if self.time(now) && self.load.is_timed(parcel.sequence) {
            self.latency.saturating_record(now.saturating_sub(parcel.stamp).max(1));
        }
    }

    #[cfg(any(feature = "nats", feature = "rabbitmq", feature = "store"))]
    fn count(&mut self) {
        self.received += 1;
        self.time(clock::now());
    }

    /// Notes when so many had come. Whether it is warm by now.
    fn time(&mut self, now: u64) -> bool {
        if self.begun.is_none() {
            self.begun = Some(now);
            self.cpu = clock::cpu();
        }
        let warm = self.begun.is_some_and(|begun| now >= begun + WARM_UP);
        if warm {
            self.first.get_or_insert((self.received, now));
            self.last = (self.received, now);
        }
        warm
    }
}

/// An asker's account.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Called {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Nanoseconds.
    pub(crate) cpu: u64,
}

/// Asks with so many askers, each of which asks again when it has its answer.
pub(crate) async fn call<F, A>(load: Load, in_flight: usize, ask: F) -> Called
where
    F: Fn(Parcel) -> A + Clone + Send + 'static,
    A: Future<Output = Option<Parcel>> + Send,
{
    let start = clock::now();
    let warm = start + WARM_UP;
    let end = warm + u64::try_from(load.duration.as_nanos()).unwrap_or(u64::MAX / 2);
    let latency = Arc::new(Mutex::new(histogram()));
    let mut askers = JoinSet::new();
    let cpu = clock::cpu();
    for _ in 0..in_flight {
        let (ask, latency) = (ask.clone(), Arc::clone(&latency));
        askers.spawn(async move {
            let (mut counted, mut answered, mut failed) = (0_u64, 0_u64, 0_u64);
            for sequence in 0.. {
                let stamp = clock::now();
                if stamp >= end {
                    break;
                }
                let answer = ask(Parcel { sequence, stamp, body: vec![b'p'; load.size] }).await;
                let now = clock::now();
                if !answer.is_some_and(|answer| answer.sequence == sequence && answer.body.len() == load.size) {
                    failed += 1;
                    continue;
                }
                answered += 1;
                counted += u64::from((warm..=end).contains(&now));
                if stamp >= warm {
                    let mut latency = latency.lock().unwrap_or_else(PoisonError::into_inner);
                    latency.saturating_record((now - stamp).max(1));
                }
            }
            (counted, answered, failed)
        });
    }
    let (mut counted, mut answered, mut failed) = (0, 0, 0);
    for (counted_here, answered_here, failed_here) in askers.join_all().await {
        counted += counted_here;
        answered += answered_here;
        failed += failed_here;
    }
    let latency = latency.lock().unwrap_or_else(PoisonError::into_inner);
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    let rate = counted as f64 * 1e9 / (end - warm) as f64;
    Called { answered, failed, rate, p50: at(0.5), p99: at(0.99), cpu: clock::cpu() - cpu }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(sequence: u64, stamp: u64) -> Parcel {
        Parcel { sequence, stamp, body: vec![1; 3] }
    }

    #[test]
    fn a_parcel_survives_its_encoding() {
        let decoded = Parcel::decode(&parcel(7, 300).encode()).unwrap();
        assert_eq!((decoded.sequence, decoded.stamp, decoded.body.len()), (7, 300, 3));
        assert!(Parcel::decode(&[1]).is_none());
    }

    #[test]
    fn pombo_encodes_the_same() {
        use pombo::Encoding;
        assert_eq!(pombo::Bincode::encode(&parcel(7, 300)).unwrap(), parcel(7, 300).encode());
    }

    #[test]
    fn only_what_comes_first_and_in_order_is_received() {
        let load = Load { size: 3, rate: Some(1), duration: Duration::from_secs(1) };
        let sink = Sink::new(load);
        for sequence in [0, 1, 1, 5, 3] {
            assert!(!sink.note(&parcel(sequence, 0).encode()));
        }
        assert!(sink.note(&parcel(END, 6).encode()));
        let account = sink.account();
        assert_eq!((account.received, account.disordered), (3, 2));
    }

    #[test]
    fn a_source_stops_in_time_and_says_how_many_there_were() {
        let mut source = Source::new(Load { size: 3, rate: Some(1_000), duration: Duration::from_millis(20) });
        let mut stamps = Vec::new();
        while let Some(parcel) = source.next() {
            assert_eq!(parcel.sequence, stamps.len() as u64);
            stamps.push(parcel.stamp);
        }
        assert!(stamps.len() <= 20 && stamps.is_sorted(), "{stamps:?}");
        assert_eq!((source.sent().sent, source.end().stamp), (stamps.len() as u64, stamps.len() as u64));
    }
}
