//! Copies of guaranteed messages at other nodes: they deliver what its sender cannot any more.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::process::{Process, json};
use crate::support::user::User;

/// One who keeps copies steps in half a minute after a sender was seen last.
const STEPPED_IN: Duration = Duration::from_secs(60);

fn holding(user: &User, line: &str) -> Process {
    let sub = user.start(&format!("sub {line}"));
    sub.complaint(|line| line.starts_with("holding"));
    sub
}

/// What the sender's node lists.
fn items(user: &User, line: &str) -> Vec<Value> {
    let mut listing = user.run(&format!("{line} --json --open --name sender")).expect(0).json();
    listing["items"].as_array_mut().map(std::mem::take).unwrap()
}

/// Waits until the outbox is empty.
fn empties(user: &User) {
    let until = Instant::now() + STEPPED_IN;
    while !items(user, "outbox list").is_empty() {
        assert!(Instant::now() < until, "{:?}", items(user, "outbox list"));
    }
}

/// A subscriber makes a durable subscription, and its node is gone.
fn away(user: &User, senders: &User, peers: usize) {
    let (node, _) = user.node("--open --name shore");
    drop(holding(user, "'orders.>' --durable billing --open --name shore"));
    senders.wait_for_peers(peers, "--open");
    drop(node);
}

#[test]
fn what_has_a_copy_gets_there_though_its_sender_is_killed_and_its_recipient_was_away() {
    let user = User::new();
    let (keeper, shore) = (user.neighbour(), user.neighbour());
    let (mut sender, _) = user.node("--open --name sender");
    let (_keeper, _) = keeper.node("--open --name keeper");
    away(&shore, &user, 3);

    let lines: String = (0..100).map(|number| format!("{number}\n")).collect();
    let mut publisher = user.start("pub orders.new --lines --guaranteed --copies 1 --json --open --name sender");
    publisher.write(lines.as_bytes());
    let kept = publisher.finish().expect(0);
    let receipts: Vec<Value> = kept.text().lines().map(json).collect();
    assert_eq!(receipts.len(), 100);
    assert!(receipts.iter().all(|receipt| receipt["copies"] == 1), "{kept}");
    let id = receipts[0]["id"].as_str().unwrap();
    let known = items(&user, &format!("where {id}"));
    let stages: Vec<(&str, &str)> =
        known.iter().map(|one| (one["node"].as_str().unwrap(), one["stage"].as_str().unwrap())).collect();
    assert_eq!(stages, [("sender", "accepted"), ("keeper", "kept")]);

    sender.kill();
    let (_shore, _) = shore.node("--open --name shore");
    let billing = holding(&shore, "'orders.>' --durable billing -n 100 --raw --open --name shore");
    let got = billing.finish_within(STEPPED_IN).expect(0);
    assert!(got.text() == lines, "not all, or not in their order: {got}");

    // Its sender learns that, and nothing comes again.
    let (_sender, _) = user.node("--open --name sender");
    empties(&user);
    assert!(items(&user, "undelivered list").is_empty());
    user.run("pub orders.new last --guaranteed --copies 1 --open --name sender").expect(0);
    let last = holding(&shore, "'orders.>' --durable billing -n 1 --raw --open --name shore").finish().expect(0);
    assert_eq!(last.text(), "last\n");
}

#[test]
fn too_few_copies_are_told_of_and_the_message_is_delivered_all_the_same() {
    let user = User::new();
    let keeper = user.neighbour();
    let (_sender, _) = user.node("--open --name sender");
    let (_keeper, _) = keeper.node("--open --name keeper");
    user.wait_for_peers(2, "--open");
    let told = user.run("pub orders.new hi --guaranteed --to billing --copies 2 --open --name sender").expect(9);
    assert!(told.stderr.contains("kept 2 B on orders.new for billing"), "{told}");
    assert!(told.stderr.contains("1 of 2 copies"), "{told}");
    let told = user.run("pub orders.new ho --guaranteed --to billing --copies 2 --json --open --name sender").expect(9);
    assert_eq!(json(told.text())["copies"], 1);
    user.run("pub orders.new hi --guaranteed --to billing --copies 17 --open").expect(2);
    assert_eq!(items(&user, "outbox list").len(), 2);
    let got = holding(&keeper, "'orders.>' --durable billing -n 2 --raw --open --name keeper").finish().expect(0);
    assert_eq!(got.text(), "hi\nho\n");
    empties(&user);
}

/// Who keeps copies is gone when a message's time is over: it may have delivered it.
#[test]
fn a_notice_says_that_those_with_copies_could_not_be_asked() {
    let user = User::new();
    let keeper = user.neighbour();
    let (_sender, _) = user.node("--open --name sender");
    let (mut kept, _) = keeper.node("--open --name keeper");
    user.wait_for_peers(2, "--open");
    user.run("pub orders.new hi --guaranteed --to billing --copies 1 --ttl 1s --open --name sender").expect(0);
    kept.kill();
    let until = Instant::now() + STEPPED_IN;
    let notice = loop {
        if let [notice] = &items(&user, "undelivered list")[..] {
            break notice.clone();
        }
        assert!(Instant::now() < until, "no notice");
    };
    assert_eq!(notice["reason"], "in-custody");
}
