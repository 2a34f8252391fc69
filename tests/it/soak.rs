//! Hours of work: nothing grows in nodes that do the same all the time, while others come and go.
//!
//! Ten minutes, or as many seconds as `POMBO_SOAK` says:
//!
//!     cargo test --test it -- --ignored --exact soak::nothing_grows --nocapture

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pombo::Limits;
use serde_json::Value;

use crate::support::process::Process;
use crate::support::worker::{Asking, Job, Publishing};

/// Nodes that stay.
const NODES: usize = 6;
/// As often another joins. It leaves half of that later.
const GUEST: Duration = Duration::from_secs(20);
const REPORT: Duration = Duration::from_secs(2);
/// After that long without a word something hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Before this the rings fill, and everything that grows to its bound does.
const WARM_UP: Duration = Duration::from_secs(120);
/// The memory that may be more in the last third than in the first: what the allocator keeps goes up and down ...
const DRIFT_KIB: i64 = 1_024;
/// ... and for each guest in between less than half of what the buffers of one connection take, so that a node which keeps
/// those of its guests is found out.
const DRIFT_PER_GUEST_KIB: i64 = 50;

/// The bytes that may be allocated more in the last third than in the first: what is under way differs.
const HEAP: i64 = 256 * 1024;

/// What the reports say of a node: each quantity, at each time.
#[derive(Default)]
struct History {
    samples: Vec<(f64, BTreeMap<String, i64>)>,
}

impl History {
    fn enter(&mut self, at: Duration, report: &Value) {
        let numbers = ["footprint", "tables"].into_iter().flat_map(|part| report[part].as_object().unwrap());
        let mut numbers: BTreeMap<_, _> =
            numbers.map(|(name, value)| (name.clone(), value.as_i64().unwrap())).collect();
        numbers.insert("heap".to_owned(), report["heap"].as_i64().unwrap());
        self.samples.push((at.as_secs_f64(), numbers));
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        self.samples.first().into_iter().flat_map(|(_, numbers)| numbers.keys())
    }

    /// The values in one of so many equal parts of the time after the warm-up, sorted.
    fn part(&self, number: usize, of: usize, name: &str) -> Vec<i64> {
        let warm: Vec<_> = self.samples.iter().filter(|(at, _)| *at >= WARM_UP.as_secs_f64()).collect();
        let length = warm.len() / of;
        assert!(length > 0, "no time is left after the warm-up of {WARM_UP:?}");
        let mut values: Vec<_> =
            warm[number * length..(number + 1) * length].iter().map(|(_, all)| all[name]).collect();
        values.sort_unstable();
        values
    }

    /// The middle of each tenth of the time, and the least: what only fills up in the beginning stops growing.
    fn course(&self, name: &str) -> String {
        let tenth = |number| {
            let values = self.part(number, 10, name);
            format!("{} ({})", middle(&values), values[0])
        };
        (0..10).map(tenth).collect::<Vec<_>>().join(" ")
    }

    /// By how much an hour a quantity grows: the straight line with the least squares.
    fn slope(&self, name: &str) -> f64 {
        let warm = || self.samples.iter().filter(|(at, _)| *at >= WARM_UP.as_secs_f64());
        let points: Vec<_> = warm().map(|(at, all)| (*at / 3_600.0, all[name] as f64)).collect();
        let count = points.len() as f64;
        let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
        let (over, under) = points.iter().fold((0.0, 0.0), |(over, under), point| {
            (over + (point.0 - x) * (point.1 - y), under + (point.0 - x).powi(2))
        });
        over / under
    }
}

fn middle(sorted: &[i64]) -> i64 {
    sorted[sorted.len() / 2]
}

struct Soak {
    data: tempfile::TempDir,
    topic: &'static str,
}

impl Soak {
    fn job(&self, name: &str, peers: &[String]) -> Job {
        // Small ones, some that fill a frame, and some in several.
        let sizes = [200, 500, 2_000, 200, 1_000].repeat(9).into_iter().chain([55_000, 150_000]).collect();
        Job {
            name: name.to_owned(),
            data: self.data.path().to_owned(),
            listen: ["/ip4/127.0.0.1/tcp/0".to_owned(), "/ip4/127.0.0.1/udp/0/quic-v1".to_owned()].into(),
            peers: peers.to_vec(),
            subscribe: vec![
                (format!("{}.>", self.topic), None),
                (format!("{}.>", self.topic), Some("half".to_owned())),
            ],
            publish: Some(Publishing {
                topic: format!("{}.{name}", self.topic),
                sizes,
                per_second: Some(5),
                listeners: 1,
            }),
            serve: Some("soak.echo".to_owned()),
            ask: Some(Asking { service: "soak.echo".to_owned(), size: 5_000, per_second: 2 }),
            report: Some(u64::try_from(REPORT.as_millis()).unwrap()),
            // Full within the warm-up.
            limits: Limits { ring: 2 << 20, ..Limits::default() },
            ..Job::default()
        }
    }
}

/// One that joins and leaves. It has the same key each time, and is killed every other time.
struct Guest {
    job: Job,
    here: Option<Process>,
    rounds: u32,
    hurried: u32,
}

impl Guest {
    /// Joins and leaves again and again, until the next report is due: what nodes keep of who was there once, such as the
    /// 256 sessions that TLS would take up again, fills sooner.
    fn hurry(&mut self) {
        let job = Job { report: Some(50), ..self.job.clone() };
        let until = Instant::now() + REPORT;
        while Instant::now() < until {
            let guest = job.launch();
            let begun = Instant::now();
            while guest.event("report")["tables"]["lanes"] == 0 {
                assert!(begun.elapsed() < PATIENCE, "nobody is there for {guest}");
            }
            // Whoever is killed would keep the next one waiting, until it is taken for dead.
            guest.finish().expect(0);
            self.hurried += 1;
        }
    }

    fn turn(&mut self, elapsed: Duration) {
        let halves = u32::try_from(elapsed.as_millis() / (GUEST.as_millis() / 2)).unwrap();
        let (round, is_here) = (halves / 2, halves % 2 == 0);
        if is_here && self.here.is_none() {
            self.here = Some(self.job.launch());
            self.rounds = round + 1;
        }
        if !is_here && let Some(process) = self.here.take() {
            if round % 2 == 0 {
                // Somebody who is killed says no goodbye.
                drop(process);
            } else {
                process.finish().expect(0);
            }
        }
    }
}

#[test]
#[ignore = "takes ten minutes"]
fn nothing_grows() {
    let seconds = std::env::var("POMBO_SOAK").map_or(600, |text| text.parse().expect("POMBO_SOAK is in seconds"));
    let duration = Duration::from_secs(seconds);
    let soak = Soak { data: tempfile::tempdir().unwrap(), topic: "soak" };
    let mut nodes: Vec<Process> = Vec::new();
    let mut known: Vec<String> = Vec::new();
    for index in 0..NODES {
        let (node, address) = soak.job(&format!("node-{index}"), &known).start();
        nodes.push(node);
        known.push(address);
    }
    let mut guest = Guest { job: soak.job("guest", &known[..1]), here: None, rounds: 0, hurried: 0 };
    let mut histories: Vec<History> = (0..NODES).map(|_| History::default()).collect();
    let mut last: Vec<Value> = vec![Value::Null; NODES];
    let began = Instant::now();
    while began.elapsed() < duration {
        if began.elapsed() < WARM_UP {
            guest.hurry();
        } else {
            guest.turn(began.elapsed());
        }
        for ((node, history), last) in nodes.iter().zip(&mut histories).zip(&mut last) {
            let report = node.event_within(PATIENCE, "report");
            history.enter(began.elapsed(), &report);
            *last = report;
        }
    }
    drop(guest.here.take());

    // Between the middle of the first third and that of the last.
    let guests = guest.rounds * 2 / 3;
    let mut grown = Vec::new();
    for (index, (history, last)) in histories.iter().zip(&last).enumerate() {
        for name in history.names() {
            let (first, end) = (history.part(0, 3, name), history.part(2, 3, name));
            // What a node keeps for ever raises both what is usual and the least that it ever has; chance raises one.
            let growth = (middle(&end) - middle(&first)).min(end[0] - first[0]);
            let slope = history.slope(name);
            println!("node {index}: {name:<14} {:>9} {:>9}   {slope:>+10.1}/h", middle(&first), middle(&end));
            let allowed = match name.as_str() {
                "rss" => DRIFT_KIB + DRIFT_PER_GUEST_KIB * i64::from(guests),
                "heap" => HEAP,
                // The highest that it ever was, and bytes that go up and down with what was published last.
                "peak" | "ring" | "held" => i64::MAX,
                _ => 0,
            };
            if growth > allowed {
                grown.push(format!("node {index}: {name} from {} to {}", middle(&first), middle(&end)));
            }
        }
        for name in ["heap", "rss"] {
            println!("node {index}: {name} by tenths, and least: {}", history.course(name));
        }
        println!(
            "node {index}: published {} received {} missed {} absent {} wrong {} answered {} failed {}",
            last["published"],
            last["received"],
            last["missed"],
            last["absent"],
            last["wrong"],
            last["answered"],
            last["failed"]
        );
        assert_eq!(last["wrong"], 0, "a message came twice, out of order or changed");
        assert!(last["published"].as_u64() > Some(0) && last["answered"].as_u64() > Some(0), "{last}");
        assert!(last["absent"].as_u64() <= last["missed"].as_u64(), "lost in silence: {last}");
    }
    println!("{} guests in the warm-up, then one every {GUEST:?} for {:?}", guest.hurried, began.elapsed() - WARM_UP);
    assert!(grown.is_empty(), "{grown:#?}");
    for node in nodes {
        node.finish().expect(0);
    }
}
