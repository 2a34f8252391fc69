//! What was measured, and how it is shown.

use serde::{Deserialize, Serialize};

use crate::{Cli, process};

const KIB: f64 = 1024.0;

/// One size. What is `per delivery` is what messages cost beyond what goes on without them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) nodes: usize,
    /// Of a node: on average, the fewest and the most.
    pub(crate) links: f64,
    pub(crate) fewest_links: usize,
    pub(crate) most_links: usize,
    /// Records that a node has, its own included.
    pub(crate) roster: f64,
    pub(crate) messages: usize,
    /// Deliveries to other nodes, had all come.
    pub(crate) expected: u64,
    pub(crate) delivered: u64,
    pub(crate) twice: u64,
    /// What subscribers were told that they missed.
    pub(crate) missed: u64,
    /// Microseconds from when a message was due to when its reader had it.
    pub(crate) p50: Option<u32>,
    pub(crate) p99: Option<u32>,
    pub(crate) max: Option<u32>,
    /// Gossip that was new to its receiver, per delivery: the frame, and heads that say how far its stream has come.
    pub(crate) fresh: f64,
    /// Gossip that its receiver had, per delivery.
    pub(crate) duplicates: f64,
    /// Bytes on the wire, encryption included, per delivery.
    pub(crate) bytes: f64,
    /// Microseconds of processor time, per delivery.
    pub(crate) cpu_delivery: f64,
    /// Processor time of a node, as a share of one core, without messages and with them.
    pub(crate) cpu_idle: f64,
    pub(crate) cpu_busy: f64,
    /// The same of all nodes.
    pub(crate) cores_idle: f64,
    pub(crate) cores_busy: f64,
    /// How many cores there are.
    pub(crate) cores: usize,
    /// Bytes of a node, without messages and after them.
    pub(crate) memory_idle: f64,
    pub(crate) memory_loaded: f64,
    /// Bytes that a node sends a second without messages.
    pub(crate) control: f64,
    /// Until all knew all, from the start of the first node.
    pub(crate) gather_seconds: f64,
    pub(crate) gather_cpu_seconds: f64,
    /// Warnings and errors of pombo's.
    pub(crate) complaints: u64,
}

impl Report {
    /// Whether each message came to each node, and once.
    pub(crate) fn is_complete(&self) -> bool {
        self.delivered == self.expected && self.twice == 0
    }
}

pub(crate) trait Number {
    fn number(self) -> f64;
}

impl Number for u64 {
    #[expect(clippy::as_conversions, reason = "what is beyond 53 bits is lost, which no figure here shows")]
    fn number(self) -> f64 {
        self as f64
    }
}

impl Number for usize {
    fn number(self) -> f64 {
        u64::try_from(self).unwrap_or(u64::MAX).number()
    }
}

pub(crate) fn number(number: impl Number) -> f64 {
    number.number()
}

pub(crate) fn per(sum: impl Number, count: impl Number) -> f64 {
    number(sum) / number(count)
}

pub(crate) fn seconds(nanoseconds: u64) -> f64 {
    number(nanoseconds) / 1e9
}

pub(crate) fn heading(cli: &Cli, seed: u64) -> String {
    format!(
        "{} messages/s of {} bytes for {} s on {} topics, degree {}, seed {seed}; {} cores",
        cli.rate,
        cli.size,
        cli.seconds,
        cli.topics,
        cli.degree,
        process::cores()
    )
}

/// A table in Markdown, a size in each column.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut lines = vec![row("nodes", reports, |one| one.nodes.to_string())];
    lines.push(format!("|---|{}", "---|".repeat(reports.len())));
    let mut add = |name: &str, cell: fn(&Report) -> String| lines.push(row(name, reports, cell));
    add("links of a node, mean (fewest to most)", |one| {
        format!("{:.1} ({} to {})", one.links, one.fewest_links, one.most_links)
    });
    add("delivered", |one| format!("{:.2} % of {}", 100.0 * per(one.delivered, one.expected), one.expected));
    add("came twice / told missed", |one| format!("{} / {}", one.twice, one.missed));
    add("delivery time, p50 / p99 / most, ms", |one| {
        format!("{} / {} / {}", millis(one.p50), millis(one.p99), millis(one.max))
    });
    add("gossip per delivery, new", |one| counted(one.fresh, 2));
    add("gossip per delivery, duplicates", |one| counted(one.duplicates, 2));
    add("bytes per delivery", |one| counted(one.bytes, 0));
    add("CPU per delivery, µs", |one| format!("{:.0}", one.cpu_delivery));
    add("CPU of a node, quiet / busy, % of a core", |one| {
        format!("{:.2} / {:.2}", 100.0 * one.cpu_idle, 100.0 * one.cpu_busy)
    });
    add("CPU of all, quiet / busy, cores", |one| format!("{:.2} / {:.2}", one.cores_idle, one.cores_busy));
    add("memory of a node, quiet / busy, KiB", |one| {
        format!("{:.0} / {:.0}", one.memory_idle / KIB, one.memory_loaded / KIB)
    });
    add("roster of a node, records", |one| format!("{:.1}", one.roster));
    add("control traffic of a node, bytes/s", |one| counted(one.control, 0));
    add("until all know all, s (CPU s)", |one| format!("{:.1} ({:.1})", one.gather_seconds, one.gather_cpu_seconds));
    add("warnings", |one| one.complaints.to_string());
    lines.join("\n")
}

fn row(name: &str, reports: &[Report], cell: impl Fn(&Report) -> String) -> String {
    let cells: Vec<_> = reports.iter().map(cell).collect();
    format!("| {name} | {} |", cells.join(" | "))
}

fn millis(micros: Option<u32>) -> String {
    micros.map_or_else(|| "-".to_owned(), |micros| format!("{:.1}", f64::from(micros) / 1_000.0))
}

/// Nothing at all means that it was not counted: see [`counters`](crate::counters).
fn counted(figure: f64, digits: usize) -> String {
    if figure > 0.0 { format!("{figure:.digits$}") } else { "-".to_owned() }
}
