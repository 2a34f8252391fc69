//! A recipient that was away while much was accepted for it: it gets everything, oldest first, and nobody else waits for that.
//!
//! Twenty thousand messages, or as many as `POMBO_BACKLOG` says. A million:
//!
//!     POMBO_BACKLOG=1000000 cargo test --release --test it -- backlog --nocapture

use std::time::{Duration, Instant};

use crate::support::process::{Process, SOON, json};
use crate::support::user::User;
use crate::support::worker::footprint;

/// What one message that waits may take of the sender's memory, and what is not the messages'. A million are less than 256 MiB.
const EACH: u64 = 224;
const BESIDES: u64 = 16 << 20;
/// So many are accepted, and then handled, in a second, whatever else the machine does.
const PACE: u64 = 200;

/// Bytes, now and at most so far.
fn memory(node: &Process) -> (u64, u64) {
    let footprint = footprint(&node.pid().to_string());
    (footprint["rss"] * 1024, footprint["peak"] * 1024)
}

#[test]
fn who_was_away_catches_up_while_others_go_on() {
    let count: u64 =
        std::env::var("POMBO_BACKLOG").map_or(20_000, |text| text.parse().expect("POMBO_BACKLOG is a number"));
    let patience = SOON + Duration::from_secs(count / PACE);
    let user = User::new();
    let other = user.neighbour();
    let (sender, _) = user.node("--open --name sender");
    let (shore, _) = other.node("--open --name shore");
    user.wait_for_peers(2, "--open");
    for held in ["'orders.>' --durable billing", "alarm --durable pager"] {
        let holding = other.start(&format!("sub {held} --open --name shore"));
        holding.complaint(|line| line.starts_with("holding"));
    }
    drop(shore);
    let (before, _) = memory(&sender);

    let lines: String = (0..count).map(|number| format!("{number}\n")).collect();
    let began = Instant::now();
    let mut publisher = user.start("pub orders.new --lines --guaranteed --open --name sender");
    publisher.write(lines.as_bytes());
    let kept = publisher.finish_within(patience).expect(0);
    assert!(kept.stderr.contains("for billing"), "{kept}");
    println!("{count} accepted in {:?}", began.elapsed());

    let (_shore, _) = other.node("--open --name shore");
    let began = Instant::now();
    let billing = other.start(&format!("sub 'orders.>' --durable billing -n {count} --raw --open --name shore"));
    billing.line(|line| line == "0");
    let pager = other.start("sub alarm --durable pager -n 1 --json --timeout 10s --open --name shore");
    pager.complaint(|line| line.starts_with("holding"));
    let published = Instant::now();
    user.run("pub alarm fire --guaranteed --open --name sender").expect(0);
    assert_eq!(json(&pager.line(|_| true))["data"], "fire");
    println!("another recipient's message came after {:?}", published.elapsed());
    pager.ended().expect(0);

    let caught_up = billing.finish_within(patience).expect(0);
    println!("{count} caught up with in {:?}", began.elapsed());
    assert!(caught_up.text() == lines, "not all, or not in their order");

    let (_, most) = memory(&sender);
    println!("the sender took {} MiB at most, and {} MiB before", most >> 20, before >> 20);
    assert!(most < before + count * EACH + BESIDES, "{most} bytes for {count} messages, and {before} before");
}
