//! What the processes of a benchmark tell each other: orders and words go to a worker's stdin, what it says comes from its
//! stdout, each as a line of JSON.

use std::num::NonZeroU64;
use std::time::Duration;

use pombo::{Config, Multiaddr};
use serde::{Deserialize, Serialize};

use super::clock::{self, Cost};
use super::latency::Recorded;
use super::ledger::Counts;

/// Messages from this size on are all timed. Of smaller ones that go as fast as they can, one of so many: the clock would
/// take its share of what is measured.
const LARGE: usize = 4096;
const TIMED: u64 = 64;

/// The payload of everything that is sent: both a message, and a question with its answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Parcel {
    pub(super) sequence: u64,
    /// When it was sent, or should have been.
    pub(super) stamp: u64,
    #[serde(with = "serde_bytes")]
    pub(super) body: Vec<u8>,
}

/// What a worker is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) config: Config,
    pub(super) role: Role,
    /// The topic or the service.
    pub(super) name: String,
    pub(super) load: Load,
    /// Whether it is to say how far it is.
    pub(super) progress: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    Publisher { subscribers: usize },
    Subscriber,
    Asker { in_flight: usize },
    Provider { room: usize },
}

/// What is sent, how often, and for how long.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) size: usize,
    /// So many a second, or as many as go.
    pub(super) rate: Option<NonZeroU64>,
    pub(super) duration: Duration,
}

impl Load {
    /// At the beginning, what is left out of rates and latencies.
    pub(super) fn warm_up(&self) -> Duration {
        Duration::from_millis(300).min(self.duration / 4)
    }

    /// Whether the latency of this one is taken.
    pub(super) fn is_timed(&self, sequence: u64) -> bool {
        self.rate.is_some() || self.size >= LARGE || sequence.is_multiple_of(TIMED)
    }
}

/// When each one is due.
#[derive(Debug)]
pub(super) struct Schedule {
    load: Load,
    start: u64,
    end: u64,
    stamp: u64,
}

impl Schedule {
    /// Begins now.
    pub(super) fn new(load: Load) -> Self {
        clock::be_punctual();
        let start = clock::now();
        let end = start.saturating_add(nanoseconds(load.duration));
        Self { load, start, end, stamp: start }
    }

    /// Waits until that one is due, and returns its stamp; `None` at the end. What is late keeps the stamp that it would
    /// have had: whoever waits for a slow one to be sent would not be counted otherwise.
    pub(super) fn next(&mut self, sequence: u64) -> Option<u64> {
        if let Some(rate) = self.load.rate {
            self.stamp = due(self.start, sequence, rate);
            if self.stamp >= self.end {
                return None;
            }
            clock::sleep_until(self.stamp);
            return (clock::now() < self.end).then_some(self.stamp);
        }
        if self.load.is_timed(sequence) {
            self.stamp = clock::now();
        }
        (self.stamp < self.end).then_some(self.stamp)
    }

    /// From when on it counts.
    pub(super) fn warm(&self) -> u64 {
        self.start + nanoseconds(self.load.warm_up())
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }
}

fn due(start: u64, sequence: u64, rate: NonZeroU64) -> u64 {
    let after = u128::from(sequence) * 1_000_000_000 / u128::from(rate.get());
    start.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What a worker is told later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    /// Everybody is there: begin.
    Go,
    /// So many were sent: say what came of them.
    Sent(u64),
    /// It is over: say what it cost.
    Finish,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    Ready { addresses: Vec<Multiaddr> },
    Progress { count: u64 },
    Sent(u64),
    Heard(Heard),
    Asked(Asked),
    Cost(Cost),
    Failed { exit: u8, message: String },
}

/// What came in a time.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Pace {
    pub(super) count: u64,
    pub(super) nanoseconds: u64,
}

impl Pace {
    pub(super) fn per_second(self) -> f64 {
        if self.nanoseconds == 0 { 0.0 } else { self.count as f64 * 1e9 / self.nanoseconds as f64 }
    }
}

/// A subscriber's account.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Heard {
    pub(super) counts: Counts,
    pub(super) pace: Pace,
    pub(super) latency: Recorded,
}

/// An asker's account.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) asked: u64,
    pub(super) answered: u64,
    /// Why the last of those that failed did: its exit code, and in words.
    pub(super) why: Option<(u8, String)>,
    pub(super) pace: Pace,
    pub(super) latency: Recorded,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(size: usize, rate: Option<u64>) -> Load {
        Load { size, rate: rate.and_then(NonZeroU64::new), duration: Duration::from_millis(20) }
    }

    #[test]
    fn a_rate_is_kept_to_the_nanosecond_and_for_long() {
        let rate = NonZeroU64::new(3).unwrap();
        assert_eq!([0, 1, 2, 3].map(|sequence| due(7, sequence, rate)), [7, 333_333_340, 666_666_673, 1_000_000_007]);
        assert_eq!(due(u64::MAX - 1, u64::MAX, rate), u64::MAX);
    }

    #[test]
    fn what_is_late_keeps_the_stamp_that_it_should_have_had() {
        let mut schedule = Schedule { end: u64::MAX, ..Schedule::new(load(128, Some(1_000))) };
        schedule.start -= 5_000_000;
        let started = clock::now();
        for sequence in 0..5 {
            assert_eq!(schedule.next(sequence), Some(schedule.start + sequence * 1_000_000));
        }
        assert!(schedule.start + 4_000_000 < started, "these were late");
        let on_time = schedule.next(50);
        assert!(on_time.is_some_and(|stamp| stamp <= clock::now()));
    }

    #[test]
    fn without_a_rate_it_ends_in_time() {
        for size in [128, LARGE] {
            let mut schedule = Schedule::new(load(size, None));
            let mut sequence = 0;
            while schedule.next(sequence).is_some() {
                sequence += 1;
            }
            assert!(clock::now() >= schedule.end() && sequence > 1, "{sequence}");
        }
    }

    #[test]
    fn what_goes_fast_is_timed_now_and_then() {
        let timed = |load: Load| (0..128).filter(|sequence| load.is_timed(*sequence)).count();
        assert_eq!([timed(load(128, None)), timed(load(LARGE, None)), timed(load(128, Some(1)))], [2, 128, 128]);
    }

    #[test]
    fn the_warm_up_is_never_most_of_it() {
        let warm_up = |seconds| Load { duration: Duration::from_secs(seconds), ..load(1, None) }.warm_up();
        assert_eq!((warm_up(1), warm_up(5)), (Duration::from_millis(250), Duration::from_millis(300)));
    }
}
