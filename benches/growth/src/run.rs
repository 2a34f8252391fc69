//! One size: start, calm, measure without messages and then with them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pombo::Node;

use crate::counters::{self, Counts};
use crate::graph::{self, Chance};
use crate::load::{self, Arrivals};
use crate::network::{self, Roll};
use crate::process::{cores, cpu, memory, now};
use crate::report::{Report, number, per, seconds};
use crate::{Cli, Result};

/// A node repeats its record after 2, 4, 8 and 16 s, and every 20 s from then on.
const CALM: Duration = Duration::from_secs(35);
/// As long as it takes until every node has repeated its record once.
const QUIET: Duration = Duration::from_secs(20);
/// A node says for the last time after 10 s how far it has published.
const TAIL: Duration = Duration::from_secs(12);
/// What has not come so long after the last message counts as lost.
const LOST: Duration = Duration::from_secs(60);
/// How long nodes may take to end.
const FAREWELL: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What all nodes together used until some moment.
#[derive(Clone, Copy, Debug)]
struct Spent {
    at: u64,
    cpu: u64,
    counts: Counts,
}

impl Spent {
    fn now() -> Self {
        Self { at: now(), cpu: cpu(), counts: Counts::now() }
    }

    fn since(self, before: Self) -> Self {
        Self { at: self.at - before.at, cpu: self.cpu - before.cpu, counts: self.counts.since(before.counts) }
    }
}

pub(crate) fn run(cli: &Cli, nodes: usize, seed: u64) -> Result<Report> {
    counters::install()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let directory = tempfile::tempdir()?;
    let report = runtime.block_on(measure(cli, nodes, seed, directory.path()));
    // A thousand goodbyes are no part of it, but what nodes write down last needs its directory.
    runtime.shutdown_timeout(FAREWELL);
    report
}

async fn measure(cli: &Cli, count: usize, seed: u64, directory: &Path) -> Result<Report> {
    let mut chance = Chance::new(seed);
    let graph = graph::random(count, cli.degree, &mut chance);
    let arrivals = Arc::new(Arrivals::default());
    let (began, empty) = (Spent::now(), memory());

    eprintln!("{count} nodes: starting");
    let nodes = network::start(count, &graph, directory).await?;
    let _readers = load::subscribe(&nodes, cli, &arrivals).await?;
    network::gather(&nodes, &graph).await?;
    let gathered = Spent::now().since(began);

    eprintln!("{count} nodes: all know all after {:.1} s; measuring without messages", seconds(gathered.at));
    tokio::time::sleep(CALM).await;
    let before = Spent::now();
    tokio::time::sleep(QUIET).await;
    let quiet = Spent::now().since(before);
    let idle = memory();

    eprintln!("{count} nodes: publishing");
    let before = Spent::now();
    let messages = load::publish(&nodes, cli, &mut chance).await?;
    let busy = Spent::now().since(before);
    let expected = u64::try_from(messages * (count - 1))?;
    finish(&arrivals, expected).await;
    let loaded = Spent::now().since(before);
    let full = memory();

    let times = arrivals.sorted();
    let delivered = arrivals.count();
    let roll = network::roll(&nodes).await?;
    let spent = Balance { quiet, busy, loaded, delivered };
    Ok(Report {
        messages,
        expected,
        delivered,
        twice: arrivals.twice.load(Ordering::Relaxed),
        missed: arrivals.missed.load(Ordering::Relaxed),
        p50: quantile(&times, 50, 100),
        p99: quantile(&times, 99, 100),
        max: quantile(&times, 1, 1),
        gather_seconds: seconds(gathered.at),
        gather_cpu_seconds: seconds(gathered.cpu),
        memory_idle: share(idle, empty, count),
        memory_loaded: share(full, empty, count),
        complaints: counters::complaints(),
        ..spent.report(&nodes, roll)
    })
}

/// Waits until all has come and the nodes have nothing more to say of it.
async fn finish(arrivals: &Arrivals, expected: u64) {
    let began = now();
    let passed = |span: Duration| Duration::from_nanos(now() - began) >= span;
    while !(passed(LOST) || (passed(TAIL) && arrivals.count() == expected)) {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn share(now: u64, before: u64, nodes: usize) -> f64 {
    per(now.saturating_sub(before), nodes)
}

/// The value below or at which this share of all is.
fn quantile(sorted: &[u32], part: usize, of: usize) -> Option<u32> {
    let at = (sorted.len() * part).div_ceil(of);
    sorted.get(at.checked_sub(1)?).copied()
}

/// What was spent without messages, while they were published, and until the last word on them.
struct Balance {
    quiet: Spent,
    busy: Spent,
    loaded: Spent,
    delivered: u64,
}

impl Balance {
    /// What the messages cost beyond what goes on without them, for each delivery.
    fn of_messages(&self, what: impl Fn(&Spent) -> u64) -> f64 {
        let usual = per(what(&self.quiet), self.quiet.at) * number(self.loaded.at);
        (number(what(&self.loaded)) - usual) / number(self.delivered)
    }

    fn report(&self, nodes: &[Node], roll: Roll) -> Report {
        let Self { quiet, busy, .. } = self;
        let count = nodes.len();
        Report {
            nodes: count,
            links: per(roll.links, count),
            fewest_links: roll.fewest,
            most_links: roll.most,
            roster: per(roll.known, count) + 1.0,
            fresh: self.of_messages(|spent| spent.counts.fresh),
            duplicates: self.of_messages(|spent| spent.counts.duplicates),
            bytes: self.of_messages(|spent| spent.counts.bytes),
            cpu_delivery: self.of_messages(|spent| spent.cpu) / 1_000.0,
            cpu_idle: per(quiet.cpu, quiet.at) / number(count),
            cpu_busy: per(busy.cpu, busy.at) / number(count),
            cores_idle: per(quiet.cpu, quiet.at),
            cores_busy: per(busy.cpu, busy.at),
            cores: cores(),
            control: per(quiet.counts.bytes, count) / seconds(quiet.at),
            ..Report::default()
        }
    }
}
