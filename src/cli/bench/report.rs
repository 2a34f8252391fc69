//! What a benchmark prints.

use std::fmt::Write as _;

use pombo::Outcome;
use serde::Serialize;

use super::Transport;
use super::clock::Cost;
use super::latency::{Latency, Percentiles};
use super::ledger::Counts;
use super::plan::{Asked, Heard, Load};
use crate::cli::failure::Failure;
use crate::cli::text;

/// What was asked for.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    pub(super) bench: &'static str,
    pub(super) version: &'static str,
    /// Without optimisation the figures say little.
    pub(super) optimised: bool,
    pub(super) size: usize,
    pub(super) rate: Option<u64>,
    pub(super) duration_seconds: f64,
    /// None where the mesh decides.
    pub(super) transport: Option<Transport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subscribers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) in_flight: Option<usize>,
}

/// What a process used.
#[derive(Debug, Serialize)]
struct Used {
    cpu_microseconds_per_message: Option<f64>,
    peak_memory_bytes: Option<u64>,
}

impl Used {
    fn new(cost: Cost, messages: u64) -> Self {
        let each = |cpu: u64| (messages > 0).then(|| cpu as f64 / 1e3 / messages as f64);
        Self { cpu_microseconds_per_message: cost.cpu.and_then(each), peak_memory_bytes: cost.memory }
    }

    fn told(&self, thing: &str) -> String {
        let cpu = self.cpu_microseconds_per_message.map(|each| format!("{each:.2} µs of CPU per {thing}"));
        let memory = self.peak_memory_bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let memory = memory.map(|bytes| format!("{} of memory at most", text::size(bytes)));
        let parts: Vec<_> = cpu.into_iter().chain(memory).collect();
        if parts.is_empty() { "unknown".to_owned() } else { parts.join(", ") }
    }
}

/// How fast it went.
#[derive(Clone, Copy, Debug, Serialize)]
struct Rate {
    messages_per_second: f64,
    megabytes_per_second: f64,
}

impl Rate {
    fn new(messages_per_second: f64, size: usize) -> Self {
        Self { messages_per_second, megabytes_per_second: messages_per_second * size as f64 / 1e6 }
    }
}

/// Of `pubsub` and `fanout`.
#[derive(Debug, Serialize)]
pub(super) struct Traffic {
    #[serde(flatten)]
    settings: Settings,
    /// Published; each subscriber should have all of them.
    sent: u64,
    #[serde(flatten)]
    counts: Counts,
    /// Of all subscribers together.
    #[serde(flatten)]
    rate: Rate,
    latency_seconds: Option<Percentiles>,
    publisher: Used,
    subscribers_each: Vec<Subscriber>,
}

#[derive(Debug, Serialize)]
struct Subscriber {
    #[serde(flatten)]
    counts: Counts,
    #[serde(flatten)]
    rate: Rate,
    #[serde(flatten)]
    used: Used,
}

impl Traffic {
    pub(super) fn new(settings: Settings, sent: u64, publisher: Cost, heard: &[(Heard, Cost)]) -> Self {
        let mut latency = Latency::new();
        heard.iter().for_each(|(heard, _)| latency.add(&heard.latency));
        let size = settings.size;
        let each = heard.iter().map(|(heard, cost)| Subscriber {
            counts: heard.counts,
            rate: Rate::new(heard.pace.per_second(), size),
            used: Used::new(*cost, heard.counts.received),
        });
        Self {
            sent,
            counts: heard.iter().fold(Counts::default(), |sum, (heard, _)| sum.plus(heard.counts)),
            rate: Rate::new(heard.iter().map(|(heard, _)| heard.pace.per_second()).sum(), size),
            latency_seconds: latency.percentiles(),
            publisher: Used::new(publisher, sent),
            subscribers_each: each.collect(),
            settings,
        }
    }

    pub(super) fn text(&self) -> String {
        let Counts { received, lost, told, duplicated, out_of_order } = self.counts;
        let due = self.sent * self.subscribers_each.len() as u64;
        let mut page = self.settings.heading();
        line(&mut page, "received", &rate(self.rate, received, "message"));
        if self.subscribers_each.len() > 1 {
            let mut rates: Vec<_> = self.subscribers_each.iter().map(|one| one.rate.messages_per_second).collect();
            rates.sort_by(f64::total_cmp);
            let (slowest, fastest) = (rates.first().copied(), rates.last().copied());
            let (slowest, fastest) = (grouped(slowest.unwrap_or_default()), grouped(fastest.unwrap_or_default()));
            line(&mut page, "", &format!("by each subscriber {slowest} to {fastest} msg/s"));
        }
        line(&mut page, "latency", &latency(self.latency_seconds, &self.settings));
        let lost = format!("{} of {}, {} told of", whole(lost), whole(due), whole(told));
        line(&mut page, "lost", &lost);
        line(&mut page, "", &format!("{} came twice, {} out of order", whole(duplicated), whole(out_of_order)));
        line(&mut page, "publisher", &self.publisher.told("message"));
        for subscriber in &self.subscribers_each {
            line(&mut page, "subscriber", &subscriber.used.told("message"));
        }
        page
    }

    /// Whether it is as it should be.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let Counts { received, lost, duplicated, out_of_order, .. } = self.counts;
        if duplicated > 0 || out_of_order > 0 {
            let what = format!("{duplicated} messages came twice and {out_of_order} out of order");
            return Err(Failure::new(Outcome::Failed, what));
        }
        if lost > 0 {
            let due = lost + received;
            return Err(Failure::new(Outcome::Partial, format!("{lost} of {due} messages were lost")));
        }
        Ok(())
    }

    /// How many fewer were published than asked for.
    pub(super) fn behind(&self, load: &Load) -> Option<String> {
        behind(self.sent, load, "published")
    }
}

/// Of `request`.
#[derive(Debug, Serialize)]
pub(super) struct Requests {
    #[serde(flatten)]
    settings: Settings,
    asked: u64,
    answered: u64,
    failed: u64,
    #[serde(flatten)]
    rate: RequestRate,
    latency_seconds: Option<Percentiles>,
    asker: Used,
    provider: Used,
    #[serde(skip)]
    why: Option<(u8, String)>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct RequestRate {
    requests_per_second: f64,
    /// Each way.
    megabytes_per_second: f64,
}

impl Requests {
    pub(super) fn new(settings: Settings, asked: Asked, asker: Cost, provider: Cost) -> Self {
        let mut latency = Latency::new();
        latency.add(&asked.latency);
        let Rate { messages_per_second: requests_per_second, megabytes_per_second } =
            Rate::new(asked.pace.per_second(), settings.size);
        Self {
            asked: asked.asked,
            answered: asked.answered,
            failed: asked.asked.saturating_sub(asked.answered),
            rate: RequestRate { requests_per_second, megabytes_per_second },
            latency_seconds: latency.percentiles(),
            asker: Used::new(asker, asked.asked),
            provider: Used::new(provider, asked.asked),
            why: asked.why,
            settings,
        }
    }

    pub(super) fn text(&self) -> String {
        let RequestRate { requests_per_second: messages_per_second, megabytes_per_second } = self.rate;
        let mut page = self.settings.heading();
        line(
            &mut page,
            "answered",
            &rate(Rate { messages_per_second, megabytes_per_second }, self.answered, "request"),
        );
        line(&mut page, "latency", &latency(self.latency_seconds, &self.settings));
        line(&mut page, "failed", &format!("{} of {}", whole(self.failed), whole(self.asked)));
        line(&mut page, "asker", &self.asker.told("request"));
        line(&mut page, "provider", &self.provider.told("request"));
        page
    }

    /// Whether it is as it should be.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let Some((exit, why)) = &self.why else { return Ok(()) };
        let what = format!("{} of {} requests failed, the last of them: {why}", self.failed, self.asked);
        let all = Outcome::ALL.into_iter().find(|outcome| outcome.exit_code() == *exit).unwrap_or(Outcome::Failed);
        Err(Failure::new(if self.answered == 0 { all } else { Outcome::Partial }, what))
    }

    /// How many fewer were asked than wanted.
    pub(super) fn behind(&self, load: &Load) -> Option<String> {
        behind(self.asked, load, "asked")
    }
}

impl Settings {
    fn heading(&self) -> String {
        let rate =
            self.rate.map_or_else(|| "as fast as it goes".to_owned(), |rate| format!("{} a second", whole(rate)));
        let with = match (self.subscribers, self.in_flight) {
            (Some(many), _) => text::count(many, "subscriber"),
            (None, many) => format!("at most {} in flight", many.unwrap_or_default()),
        };
        let over = self.transport.map_or("in a mesh that is there", Transport::as_str);
        let (bench, size, seconds) = (self.bench, text::size(self.size), self.duration_seconds);
        format!("{bench}: {size} each, {rate} for {seconds} s, {with}, {over}\n")
    }
}

fn behind(sent: u64, load: &Load, done: &str) -> Option<String> {
    let wanted = (load.rate?.get() as f64 * load.duration.as_secs_f64()).floor();
    // One more or less is no delay.
    (sent as f64 * 1.01 + 1.0 < wanted).then(|| {
        let (sent, wanted) = (whole(sent), grouped(wanted));
        format!("it is too slow for this rate: {sent} of {wanted} were {done} in time")
    })
}

fn line(page: &mut String, label: &str, what: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(page, "  {label:<12}{what}");
}

fn rate(rate: Rate, count: u64, thing: &str) -> String {
    let unit = if thing == "request" { "req/s" } else { "msg/s" };
    let (each, bytes) = (grouped(rate.messages_per_second), rate.megabytes_per_second);
    format!("{each} {unit}, {bytes:.1} MB/s ({} {thing}s in all)", whole(count))
}

fn latency(percentiles: Option<Percentiles>, settings: &Settings) -> String {
    let Some(Percentiles { p50, p90, p99, p999, max, .. }) = percentiles else { return "nothing was timed".to_owned() };
    let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(short);
    let from = if settings.rate.is_some() { "from when it was due" } else { "under full load" };
    format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}, {from}")
}

/// `98 µs`, `3.14 ms`, `1.24 s`.
fn short(seconds: f64) -> String {
    match seconds {
        under if under < 0.001 => format!("{:.0} µs", under * 1e6),
        under if under < 1.0 => format!("{:.2} ms", under * 1e3),
        over => format!("{over:.2} s"),
    }
}

/// `1,234,567`.
fn whole(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is neither negative nor that large"
)]
fn grouped(number: f64) -> String {
    whole(number.round() as u64)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use super::super::latency::Recorded;
    use super::super::plan::Pace;
    use super::*;

    fn settings(subscribers: Option<usize>) -> Settings {
        Settings {
            bench: "fanout",
            version: "0",
            optimised: true,
            size: 128,
            rate: None,
            duration_seconds: 2.0,
            transport: Some(Transport::Tcp),
            subscribers,
            in_flight: None,
        }
    }

    fn heard(received: u64, lost: u64) -> (Heard, Cost) {
        let counts = Counts { received, lost, ..Counts::default() };
        let pace = Pace { count: received, nanoseconds: 1_000_000_000 };
        let latency = Recorded::default();
        (Heard { counts, pace, latency }, Cost { cpu: Some(received * 2_000), memory: Some(15 * 1024 * 1024) })
    }

    #[test]
    fn a_fan_out_is_added_up() {
        let cost = Cost { cpu: Some(4_000_000), memory: None };
        let traffic = Traffic::new(settings(Some(2)), 2_000, cost, &[heard(2_000, 0), heard(1_500, 500)]);
        let page = traffic.text();
        for wanted in [
            "fanout: 128 B each, as fast as it goes for 2 s, 2 subscribers, tcp\n",
            "  received    3,500 msg/s, 0.4 MB/s (3,500 messages in all)\n",
            "by each subscriber 1,500 to 2,000 msg/s\n",
            "  lost        500 of 4,000, 0 told of\n",
            "  publisher   2.00 µs of CPU per message\n",
            "  subscriber  2.00 µs of CPU per message, 15.0 MiB of memory at most\n",
        ] {
            assert!(page.contains(wanted), "{wanted}\n{page}");
        }
        let verdict = traffic.verdict().unwrap_err();
        assert_eq!((verdict.outcome(), verdict.message()), (Outcome::Partial, "500 of 4000 messages were lost"));
    }

    #[test]
    fn what_should_not_happen_is_a_failure() {
        let (mut twice, cost) = heard(10, 0);
        twice.counts.duplicated = 1;
        let traffic = Traffic::new(settings(Some(1)), 10, cost, &[(twice, cost)]);
        assert_eq!(traffic.verdict().unwrap_err().outcome(), Outcome::Failed);
        assert_eq!(Traffic::new(settings(Some(1)), 10, cost, &[heard(10, 0)]).verdict(), Ok(()));
    }

    #[test]
    fn requests_that_all_fail_have_the_outcome_of_the_last() {
        let asked = |answered, why: Option<(u8, &str)>| Asked {
            asked: 5,
            answered,
            why: why.map(|(exit, why)| (exit, why.to_owned())),
            pace: Pace::default(),
            latency: Recorded::default(),
        };
        let verdict = |asked| Requests::new(settings(None), asked, Cost::default(), Cost::default()).verdict();
        assert_eq!(verdict(asked(5, None)), Ok(()));
        assert_eq!(verdict(asked(4, Some((10, "busy")))).unwrap_err().outcome(), Outcome::Partial);
        assert_eq!(verdict(asked(0, Some((10, "busy")))).unwrap_err().outcome(), Outcome::Busy);
    }

    #[test]
    fn who_does_not_keep_up_is_told() {
        let load = Load { size: 1, rate: NonZeroU64::new(1_000), duration: Duration::from_secs(1) };
        assert_eq!(behind(995, &load, "published"), None);
        assert!(behind(900, &load, "published").unwrap().contains("900 of 1,000 were published"));
        assert_eq!(behind(0, &Load { rate: None, ..load }, "published"), None);
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(whole), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([98e-6, 3.14159e-3, 1.2].map(short), ["98 µs", "3.14 ms", "1.20 s"]);
    }
}
