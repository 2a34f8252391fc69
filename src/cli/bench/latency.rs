//! How long things took: a histogram with three digits of precision, from a nanosecond to a minute.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

const LONGEST: u64 = 60_000_000_000;

/// What is recorded, in nanoseconds. Longer ones count as the longest.
#[derive(Debug)]
pub(super) struct Latency(Histogram<u64>);

/// The same, as it goes from one process to another: values, and how often each was seen.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Recorded(Vec<(u64, u64)>);

/// What is told of it, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) count: u64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    #[serde(rename = "p99_9")]
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Latency {
    #[expect(clippy::expect_used, reason = "the bounds are constants, and a test has them")]
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds make sense"))
    }

    pub(super) fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    pub(super) fn add(&mut self, recorded: &Recorded) {
        for (value, count) in &recorded.0 {
            self.0.saturating_record_n(*value, *count);
        }
    }

    pub(super) fn recorded(&self) -> Recorded {
        Recorded(self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect())
    }

    /// None if nothing was recorded.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        let at = |quantile| Duration::from_nanos(self.0.value_at_quantile(quantile)).as_secs_f64();
        (!self.0.is_empty()).then(|| Percentiles {
            count: self.0.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_survive_the_way_between_processes() {
        let mut latency = Latency::new();
        (1..=1_000).for_each(|microsecond| latency.record(microsecond * 1_000));
        let mut merged = Latency::new();
        merged.add(&latency.recorded());
        assert_eq!(merged.percentiles(), latency.percentiles());
        let told = merged.percentiles().unwrap();
        assert_eq!(told.count, 1_000);
        for (value, expected) in
            [(told.p50, 500e-6), (told.p90, 900e-6), (told.p99, 990e-6), (told.p999, 999e-6), (told.max, 1e-3)]
        {
            assert!((value / expected - 1.0).abs() < 0.002, "{value} is not about {expected}");
        }
    }

    #[test]
    fn nothing_recorded_has_no_percentiles_and_an_hour_counts_as_a_minute() {
        let mut latency = Latency::new();
        assert_eq!(latency.percentiles(), None);
        latency.record(3_600 * 1_000_000_000);
        assert!((59.0..61.0).contains(&latency.percentiles().unwrap().max));
    }
}
