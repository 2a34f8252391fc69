//! `pombo bench`: that its figures add up, and that nothing of it stays. How fast it is, is not for tests to say.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::process::{Process, SOON};
use crate::support::user::User;

/// Within what a benchmark is over whose nodes first have to be started and found.
const BENCH: Duration = Duration::from_secs(60);

fn bench(user: &User, line: &str) -> Value {
    let finished = user.start(&format!("bench {line} --json")).finish_within(BENCH).expect(0);
    finished.json()
}

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"))
}

/// What has to be true whatever the machine does, for what was sent to each of so many subscribers.
fn adds_up(report: &Value, subscribers: u64) {
    let sent = number(report, "sent");
    assert!(sent > 0, "{report}");
    let each = report["subscribers_each"].as_array().unwrap();
    assert_eq!(each.len() as u64, subscribers, "{report}");
    for subscriber in each {
        assert_eq!(number(subscriber, "received") + number(subscriber, "lost"), sent, "{report}");
    }
    let sum = |key| each.iter().map(|subscriber| number(subscriber, key)).sum::<u64>();
    for key in ["received", "lost", "told", "duplicated", "out_of_order"] {
        assert_eq!(number(report, key), sum(key), "{key} in {report}");
    }
    assert_eq!((number(report, "duplicated"), number(report, "out_of_order")), (0, 0), "{report}");
}

fn ordered(latency: &Value) {
    let times: Vec<_> =
        ["p50", "p90", "p99", "p99_9", "max"].iter().map(|key| latency[key].as_f64().unwrap()).collect();
    assert!(times[0] > 0.0 && times.is_sorted(), "{latency}");
}

#[test]
fn all_of_a_paced_publisher_arrives() {
    let user = User::new();
    let report = bench(&user, "pubsub --rate 200 --duration 500ms");
    adds_up(&report, 1);
    // Fewer than asked for, if this machine has no time for it.
    assert!(number(&report, "sent") <= 100 && number(&report, "lost") == 0, "{report}");
    ordered(&report["latency_seconds"]);
    let cost = &report["publisher"];
    assert!(cost["peak_memory_bytes"].as_u64().unwrap() > 1024 * 1024, "{report}");
    assert!(cost["cpu_microseconds_per_message"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn one_that_goes_as_fast_as_it_can_accounts_for_all() {
    let user = User::new();
    let finished = user.start("bench pubsub --duration 300ms --size 1KiB --json").finish_within(BENCH);
    // A subscriber that does not keep up misses some, and that is said.
    let report = finished.json();
    adds_up(&report, 1);
    let code = if number(&report, "lost") == 0 { 0 } else { 9 };
    finished.expect(code);
}

#[test]
fn every_subscriber_of_a_fan_out_is_accounted_for() {
    let user = User::new();
    let report = bench(&user, "fanout --subscribers 3 --rate 100 --duration 500ms");
    adds_up(&report, 3);
    assert_eq!(number(&report, "lost"), 0, "{report}");
}

#[test]
fn every_request_is_answered() {
    let user = User::new();
    for line in ["request --duration 300ms --in-flight 4", "request --duration 300ms --rate 100 --in-flight 2"] {
        let report = bench(&user, line);
        let asked = number(&report, "asked");
        assert!(asked > 0, "{report}");
        assert_eq!((number(&report, "answered"), number(&report, "failed")), (asked, 0), "{report}");
        ordered(&report["latency_seconds"]);
    }
}

#[test]
fn people_get_a_page() {
    let user = User::new();
    let finished = user.start("bench pubsub --rate 200 --duration 300ms").finish_within(BENCH).expect(0);
    let page = finished.text();
    assert!(page.starts_with("pubsub: 128 B each, 200 a second for 0.3 s, 1 subscriber, tcp\n"), "{finished}");
    for label in ["received", "latency", "lost        0 of ", "publisher", "subscriber"] {
        assert!(page.contains(&format!("\n  {label}")), "{label} in {finished}");
    }
    assert!(!finished.stderr.contains('\r'), "progress is for terminals: {finished}");
}

#[test]
#[cfg(feature = "quic")]
fn it_goes_over_quic_as_well() {
    let user = User::new();
    let report = bench(&user, "pubsub --rate 100 --duration 300ms --transport quic");
    adds_up(&report, 1);
    assert_eq!(report["transport"], "quic");
}

#[test]
fn a_mesh_that_is_there_can_be_measured_and_keeps_nothing_of_it() {
    let user = User::new();
    let (_node, _) = user.node("--name harbour");
    let report = bench(&user, "pubsub --in-mesh --rate 100 --duration 300ms");
    adds_up(&report, 1);
    assert_eq!((number(&report, "lost"), &report["transport"]), (0, &Value::Null), "{report}");
    // They have said goodbye, and have no place in the data directory.
    let peers = user.wait_for_peers(1, "");
    assert_eq!(peers[0]["name"], "harbour");
    let kept: Vec<_> =
        fs::read_dir(user.dir().join("data/pombo/nodes")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(kept, ["harbour"]);
}

#[test]
fn without_a_mesh_of_others_it_touches_no_data_of_the_user() {
    let user = User::new();
    bench(&user, "pubsub --rate 100 --duration 200ms");
    assert!(!user.dir().join("data").exists());
}

#[test]
fn what_cannot_be_is_refused() {
    let user = User::new();
    for (code, line, said) in [
        (2, "bench pubsub --mesh lab", "--mesh does nothing here"),
        (2, "bench pubsub --name shop --in-mesh", "--name is for one node"),
        (2, "bench pubsub --in-mesh --transport quic", "--transport"),
        (2, "bench pubsub --rate 0", "above 0"),
        (2, "bench pubsub --duration 2h", "1h"),
        (2, "bench pubsub --size pigeon", "64KiB"),
        (2, "bench fanout --subscribers 0", "--subscribers"),
        (7, "bench pubsub --size 2MiB --duration 200ms", "at most 1048576"),
        (7, "bench request --size 2MiB --duration 200ms", "at most 1048576"),
    ] {
        let finished = user.start(line).finish_within(BENCH).expect(code);
        assert!(finished.stderr.contains(said), "{said} in {finished}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn nobody_is_left_when_it_is_interrupted_or_killed() {
    for signal in ["INT", "KILL"] {
        let user = User::new();
        let scratch = user.dir().join("scratch");
        fs::create_dir(&scratch).unwrap();
        let mut command = user.command("pombo");
        command
            .args(["bench", "fanout", "--subscribers", "2", "--duration", "10m", "--rate", "10"])
            .env("TMPDIR", &scratch);
        let bench = Process::start(command);
        let until = Instant::now() + SOON;
        let workers = loop {
            let workers = below(bench.pid());
            if workers.len() == 3 {
                break workers;
            }
            assert!(Instant::now() < until, "{workers:?}");
        };
        bench.signal(signal);
        let until = Instant::now() + SOON;
        while let Some(left) = workers.iter().find(|worker| is_running(**worker)) {
            assert!(Instant::now() < until, "{left} is left");
        }
        let finished = bench.finish();
        assert_eq!(finished.code, (signal == "INT").then_some(1), "{finished}");
        // Nobody can tidy up after being killed.
        let left = fs::read_dir(&scratch).unwrap().count();
        assert_eq!(left, usize::from(signal == "KILL"), "{finished}");
    }
}

/// The processes that this one has started.
#[cfg(target_os = "linux")]
fn below(pid: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(|one| stat(*one).is_some_and(|(_, parent)| parent == pid)).collect()
}

#[cfg(target_os = "linux")]
fn is_running(pid: u32) -> bool {
    // One that nobody collects is a zombie, and has ended.
    stat(pid).is_some_and(|(state, _)| state != "Z")
}

/// A process's state and its parent.
#[cfg(target_os = "linux")]
fn stat(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, which may contain anything, is in parentheses.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}
