//! What is printed: for each measure a table in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use crate::System;
use crate::bench::{Measure, Plan};

/// The packages whose versions are told.
const PACKAGES: [&str; 9] = ["pombo", "async-nats", "zenoh", "tonic", "hyper", "zmq", "rumqttc", "lapin", "tokio"];

/// What one run of one system showed.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// Messages or requests a second, or microseconds.
    pub(crate) value: f64,
    /// Microseconds, where latency is what is measured.
    pub(crate) p99: Option<f64>,
    /// The share that was lost, or failed.
    pub(crate) lost: f64,
    /// Came twice or after a later one.
    pub(crate) disordered: u64,
    /// Microseconds of processor time for each message, of those that send and receive, or of who asks.
    pub(crate) cpu: f64,
    /// The most bytes that each process had: who sends, who receives, and the broker.
    pub(crate) memory: Vec<Option<u64>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Readings(BTreeMap<Measure, BTreeMap<System, (Vec<Reading>, u32)>>);

impl Readings {
    pub(crate) fn add(&mut self, measure: Measure, system: System, reading: Reading) {
        self.of(measure, system).0.push(reading);
    }

    pub(crate) fn failed(&mut self, measure: Measure, system: System) {
        self.of(measure, system).1 += 1;
    }

    fn of(&mut self, measure: Measure, system: System) -> &mut (Vec<Reading>, u32) {
        self.0.entry(measure).or_default().entry(system).or_default()
    }
}

impl Measure {
    pub(crate) fn title(self) -> String {
        match self {
            Self::Throughput { size, subscribers: 1 } => format!("Publish, 1 to 1, {}: messages/s", bytes(size)),
            Self::Throughput { size, subscribers } => {
                format!("Publish, 1 to {subscribers}, {}: messages/s, of all subscribers together", bytes(size))
            }
            Self::Latency => "Publish, 1 to 1, 128 B, 1,000 a second: latency in µs, p50".to_owned(),
            Self::Requests { in_flight: 1 } => "Request, 128 B each way, 1 in flight: latency in µs, p50".to_owned(),
            Self::Guaranteed { size, publishers } => {
                let publishers =
                    if publishers == 1 { "1 publisher".to_owned() } else { format!("{publishers} publishers") };
                format!("Guaranteed, {publishers}, {}: messages/s until acknowledged", bytes(size))
            }
            Self::Confirmation => "Guaranteed, 1 publisher, 128 B: time until it is confirmed in µs, p50".to_owned(),
            Self::Requests { in_flight } => format!("Request, 128 B each way, {in_flight} in flight: requests/s"),
        }
    }

    pub(crate) fn is_latency(self) -> bool {
        matches!(self, Self::Latency | Self::Confirmation | Self::Requests { in_flight: 1 })
    }
}

/// Everything, with what one has to know of it.
pub(crate) fn page(plan: &Plan, readings: &Readings) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(page, "{}\n", settings(plan));
    for (measure, systems) in &readings.0 {
        let _ = writeln!(page, "### {}\n", measure.title());
        page.push_str(&section(*measure, systems));
        page.push('\n');
    }
    page
}

fn section(measure: Measure, systems: &BTreeMap<System, (Vec<Reading>, u32)>) -> String {
    let better = if measure.is_latency() { "less is better" } else { "more is better" };
    let mut section = format!(
        "| system | median (min to max), {better} | {}pombo : it | lost | CPU µs each | memory, MiB |\n",
        if measure.is_latency() { "p99 | " } else { "" }
    );
    section.push_str(if measure.is_latency() {
        "|---|---|---|---|---|---|---|\n"
    } else {
        "|---|---|---|---|---|---|\n"
    });
    let pombo = systems.get(&System::Pombo).and_then(|(readings, _)| median(readings, |reading| reading.value));
    for (system, (readings, failed)) in systems {
        section.push_str(&row(measure, *system, readings, *failed, pombo));
    }
    section
}

fn row(measure: Measure, system: System, readings: &[Reading], failed: u32, pombo: Option<f64>) -> String {
    let lock = if system.is_encrypted() { ", encrypted" } else { "" };
    let name = format!("{}{lock}", system.name());
    let Some(value) = median(readings, |reading| reading.value) else { return format!("| {name} | FAILED |\n") };
    let (mut low, mut high) = (f64::MAX, 0.0);
    for reading in readings {
        (low, high) = (reading.value.min(low), reading.value.max(high));
    }
    let failed = if failed > 0 { format!(", {failed} runs FAILED") } else { String::new() };
    let p99 = median(readings, |reading| reading.p99.unwrap_or_default()).unwrap_or_default();
    let p99 = if measure.is_latency() { format!("{} | ", grouped(p99)) } else { String::new() };
    let ratio = match pombo.filter(|_| system != System::Pombo && value > 0.0) {
        Some(pombo) => format!("{:.2}", pombo / value),
        None => "1".to_owned(),
    };
    let disordered: u64 = readings.iter().map(|reading| reading.disordered).sum();
    let disordered = if disordered > 0 { format!(", {disordered} out of order") } else { String::new() };
    let lost = median(readings, |reading| reading.lost * 100.0).unwrap_or_default();
    let lost = if lost > 0.0 { format!("{lost:.2} %") } else { "0".to_owned() };
    let cpu = median(readings, |reading| reading.cpu).unwrap_or_default();
    format!(
        "| {name} | {} ({} to {}){failed} | {p99}{ratio} | {lost}{disordered} | {cpu:.2} | {} |\n",
        grouped(value),
        grouped(low),
        grouped(high),
        memory(readings)
    )
}

/// The median of each process; of many subscribers, of the one with the most.
fn memory(readings: &[Reading]) -> String {
    let processes = readings.iter().map(|reading| reading.memory.len()).max().unwrap_or_default();
    let each = (0..processes).filter_map(|process| {
        median(readings, |reading| reading.memory.get(process).copied().flatten().unwrap_or_default() as f64)
    });
    let mut each: Vec<_> = each.map(|bytes| bytes / 1024.0 / 1024.0).collect();
    if each.len() > 3 {
        let most = each.drain(1..9.min(each.len())).fold(0.0, f64::max);
        each.insert(1, most);
    }
    each.into_iter().map(|mebibytes| format!("{mebibytes:.0}")).collect::<Vec<_>>().join(" / ")
}

pub(crate) fn median<T>(of: &[T], value: impl Fn(&T) -> f64) -> Option<f64> {
    let mut values: Vec<_> = of.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).copied()?;
    Some(if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], upper) } else { upper })
}

fn settings(plan: &Plan) -> String {
    let versions = PACKAGES.iter().filter_map(|name| Some(format!("{name} {}", version(name)?)));
    let servers = [
        ("nats-server", &["nats-server", "--version"][..]),
        ("mosquitto", &["dpkg-query", "-W", "-f=mosquitto ${Version}", "mosquitto"]),
        ("rabbitmq", &["dpkg-query", "-W", "-f=rabbitmq-server ${Version}", "rabbitmq-server"]),
        ("libzmq", &["dpkg-query", "-W", "-f=libzmq ${Version}", "libzmq5"]),
    ];
    let servers = servers.iter().filter_map(|(_, command)| output(command));
    let versions: Vec<_> = versions.chain(servers).collect();
    let systems: Vec<_> = plan.systems.iter().map(|system| system.name()).collect();
    format!(
        "{} rounds of {:.1} s for each of {}; medians. Loopback, each publisher, subscriber, server and broker a process of its \
         own; payloads a struct in bincode; the first 0.3 s left out.\n\nMachine: {}.\n\nVersions: {}.",
        plan.rounds,
        plan.duration.as_secs_f64(),
        systems.join("; "),
        machine(),
        versions.join(", ")
    )
}

/// As the lock file has it.
fn version(package: &str) -> Option<&'static str> {
    let lock = include_str!("../Cargo.lock");
    let (_, rest) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    rest.split('"').next()
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = output(&["uname", "-sr"]).unwrap_or_default();
    format!("{cores} cores of {model}, {kernel}")
}

fn output(command: &[&str]) -> Option<String> {
    let (program, arguments) = command.split_first()?;
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn bytes(size: usize) -> String {
    if size >= 1024 { format!("{} KiB", size / 1024) } else { format!("{size} B") }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "neither negative nor that large")]
fn grouped(number: f64) -> String {
    let digits = (number.round() as u64).to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(value: f64, memory: &[u64]) -> Reading {
        let memory = memory.iter().map(|mebibytes| Some(mebibytes << 20)).collect();
        Reading { value, p99: None, lost: 0.25, disordered: 1, cpu: 2.0, memory }
    }

    #[test]
    fn a_row_has_the_median_and_the_ratio() {
        let measure = Measure::Throughput { size: 128, subscribers: 1 };
        let readings = [reading(1_000.0, &[10, 20]), reading(3_000.0, &[30, 20]), reading(2_000.0, &[20, 20])];
        assert_eq!(
            row(measure, System::Nats, &readings, 1, Some(5_000.0)),
            "| NATS core | 2,000 (1,000 to 3,000), 1 runs FAILED | 2.50 | 25.00 %, 3 out of order | 2.00 | 20 / 20 |\n"
        );
        assert_eq!(row(measure, System::ZenohTls, &[], 5, None), "| Zenoh, TLS, encrypted | FAILED |\n");
    }

    #[test]
    fn of_many_subscribers_the_largest_is_told() {
        let readings = [reading(1.0, &[5, 1, 2, 3, 4, 9, 3, 2, 1, 60])];
        assert_eq!(memory(&readings), "5 / 9 / 60");
        assert_eq!(memory(&[reading(1.0, &[5, 1, 60])]), "5 / 1 / 60");
    }

    #[test]
    fn the_versions_are_those_of_the_lock_file() {
        for package in PACKAGES {
            assert!(version(package).is_some_and(|version| version.split('.').count() == 3), "{package}");
        }
    }
}
