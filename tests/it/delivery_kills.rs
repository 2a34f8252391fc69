//! Guaranteed messages between processes that are killed under load, again and again: none that was accepted is lost without a
//! notice.
//!
//! `POMBO_KILLS` says how often; a few times without it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use futures::StreamExt;
use pombo::{MeshChoice, Node, RawPattern, RawTopic};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::support::Turn;
use crate::support::process::Process;

const ROLE: &str = "POMBO_TEST_ROLE";
/// Messages of a round, from one kill to the next.
const ROUND: usize = 30;
const KILLS: usize = 10;
/// From the last kill until all is decided.
const DECIDED: Duration = Duration::from_secs(120);

/// What such a process does until its stdin ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Role {
    name: String,
    data: PathBuf,
    listen: String,
    peer: String,
    /// Publishes from this number on. Otherwise it holds the subscription.
    publish: Option<u64>,
}

impl Role {
    fn start(&self) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "--nocapture", "delivery_kills::plays"]);
        command.env(ROLE, serde_json::to_string(self).unwrap());
        Process::start(command)
    }
}

#[test]
#[ignore = "a process that the other test starts"]
fn plays() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let role: Role = serde_json::from_str(&role).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(play(role));
    runtime.shutdown_background();
}

fn say(event: &str, number: u64) {
    println!("\n{}", json!({ "event": event, "number": number }));
}

async fn play(role: Role) {
    let mesh = MeshChoice::Named("test".to_owned());
    let builder = Node::builder().name(&role.name).mesh(mesh).data_dir(&role.data).mdns(false).local(false);
    let builder = builder.listen(role.listen.parse().unwrap()).peer(role.peer.parse().unwrap());
    let node = builder.start().await.unwrap();
    if let Some(from) = role.publish {
        tokio::spawn(tell_notices(node.clone()));
        tokio::spawn(publish(node.clone(), from));
    } else {
        tokio::spawn(handle(node.clone()));
    }
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    // What is under way when it is told to stop publishing goes on.
    node.leave().await;
}

async fn publish(node: Node, from: u64) {
    for number in from.. {
        let payload = number.to_be_bytes().to_vec().into();
        let accepted =
            node.publish(RawTopic::parse("kills.numbers").unwrap(), &payload).guaranteed().to(["counter"]).await;
        if accepted.is_err() {
            return;
        }
        say("accepted", number);
    }
}

async fn tell_notices(node: Node) {
    let mut undelivered = node.undelivered();
    while undelivered.next().await.is_some() {
        // None is expected: there is a day to deliver them.
        say("undelivered", 0);
    }
}

async fn handle(node: Node) {
    let pattern = RawPattern::parse("kills.>").unwrap();
    let mut numbers = node.subscribe(pattern).durable("counter").await.unwrap();
    while let Some(message) = numbers.next().await {
        let message = message.unwrap();
        let number = u64::from_be_bytes(message[..].try_into().unwrap());
        say(if message.redelivered() { "again" } else { "handled" }, number);
        if message.ack().await.is_ok() {
            say("acknowledged", number);
        }
    }
}

/// What the processes said.
#[derive(Debug, Default)]
struct Ledger {
    accepted: BTreeSet<u64>,
    handled: BTreeSet<u64>,
    /// In the order in which they were handed out first.
    first: Vec<u64>,
    acknowledged: BTreeSet<u64>,
}

impl Ledger {
    /// Takes down all that a process that has ended said.
    fn enter(&mut self, process: Process) {
        for line in process.ended().text().lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            let Some(number) = line["number"].as_u64() else { continue };
            match line["event"].as_str().unwrap() {
                "accepted" => assert!(self.accepted.insert(number)),
                event @ ("handled" | "again") => {
                    assert!(!self.acknowledged.contains(&number), "{number} came after it was acknowledged");
                    if self.handled.insert(number) {
                        self.first.push(number);
                    } else {
                        assert_eq!(event, "again", "{number} came before");
                    }
                }
                "acknowledged" => drop(self.acknowledged.insert(number)),
                other => panic!("{other} {number}"),
            }
        }
    }
}

fn address() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("/ip4/127.0.0.1/tcp/{port}")
}

#[test]
fn nothing_that_was_accepted_is_lost_however_often_either_side_is_killed() {
    let _turn = Turn::shared();
    let kills = std::env::var("POMBO_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let data = tempfile::tempdir().unwrap();
    let (one, other) = (address(), address());
    let role = |name: &str, listen: &str, peer: &str, publish| Role {
        name: name.to_owned(),
        data: data.path().to_owned(),
        listen: listen.to_owned(),
        peer: peer.to_owned(),
        publish,
    };
    let publishing = |from| role("sender", &one, &other, Some(from)).start();
    let handling = || role("recipient", &other, &one, None).start();
    let mut ledger = Ledger::default();
    let (mut sender, mut recipient) = (publishing(0), handling());
    for kill in 0..kills {
        // Under load: both are at it, and where in it the kill comes differs from round to round.
        let event = if kill % 4 < 2 { "accepted" } else { "acknowledged" };
        let at_it = if kill % 4 < 2 { &sender } else { &recipient };
        (0..ROUND).for_each(|_| drop(at_it.event(event)));
        if kill % 2 == 0 {
            sender.kill();
            ledger.enter(sender);
            // One that was not heard to be accepted may have been.
            sender = publishing(10_000 * (kill as u64 + 1));
        } else {
            recipient.kill();
            ledger.enter(recipient);
            recipient = handling();
        }
    }
    (0..ROUND).for_each(|_| drop(sender.event("accepted")));
    sender.kill();
    ledger.enter(sender);
    let last = u64::MAX / 2;
    let sender = publishing(last);
    let numbered = format!("\"number\":{last}");
    recipient.line_within(DECIDED, |line| line.contains("acknowledged") && line.contains(&numbered));
    drop(sender);
    recipient.kill();
    ledger.enter(recipient);
    let lost: Vec<u64> = ledger.accepted.difference(&ledger.handled).copied().collect();
    eprintln!(
        "{kills} kills: {} accepted, {} handled, {} lost",
        ledger.accepted.len(),
        ledger.handled.len(),
        lost.len()
    );
    assert!(lost.is_empty(), "{lost:?}");
    assert!(ledger.first.is_sorted(), "out of order");
}
