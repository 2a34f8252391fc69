//! Guaranteed messages between processes that are killed under load, again and again: none that was accepted is lost without a
//! notice.
//!
//! `POMBO_KILLS` says how often; a few times without it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use pombo::{MeshChoice, Node, PublishError, RawPattern, RawTopic};
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
    peers: Vec<String>,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Part {
    /// Publishes from this number on, with so many copies.
    Publish { from: u64, copies: usize },
    /// Holds the subscription.
    Handle,
    /// Keeps copies.
    Keep,
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
    println!("\n{}", json!({ "event": event, "number": number, "time": nanos() }));
}

/// The time, in nanoseconds since 1970.
fn nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

async fn play(role: Role) {
    let mesh = MeshChoice::Named("test".to_owned());
    let builder = Node::builder().name(&role.name).mesh(mesh).data_dir(&role.data).mdns(false).local(false);
    let builder = builder.listen(role.listen.parse().unwrap());
    let builder = role.peers.iter().fold(builder, |builder, peer| builder.peer(peer.parse().unwrap()));
    let node = builder.start().await.unwrap();
    match role.part {
        Part::Publish { from, copies } => {
            tokio::spawn(tell_notices(node.clone()));
            tokio::spawn(publish(node.clone(), from, copies));
        }
        Part::Handle => drop(tokio::spawn(handle(node.clone()))),
        Part::Keep => say("keeping", 0),
    }
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    // What is under way when it is told to stop publishing goes on.
    node.leave().await;
}

async fn publish(node: Node, from: u64, copies: usize) {
    for number in from.. {
        let payload = number.to_be_bytes().to_vec().into();
        let publish = node.publish(RawTopic::parse("kills.numbers").unwrap(), &payload);
        match publish.guaranteed().to(["counter"]).copies(copies).await {
            // Who keeps copies may just have been killed.
            Ok(_) | Err(PublishError::TooFewCopies { .. }) => {}
            Err(_) => return,
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
    /// Takes down all that a process that has ended said. What it promised from that time on, if there is one, does not count.
    fn enter(&mut self, process: Process, before: Option<u64>) {
        for line in process.ended().text().lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            let Some(number) = line["number"].as_u64() else { continue };
            let event = line["event"].as_str().unwrap();
            let is_promise = event == "accepted" || event == "acknowledged";
            if is_promise && before.is_some_and(|before| line["time"].as_u64().unwrap() >= before) {
                continue;
            }
            match event {
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

/// A sender and a recipient, perhaps with one who keeps copies, and what was heard of them and of those before them.
pub(crate) struct Pair {
    data: PathBuf,
    addresses: [String; 3],
    keeper: Option<Process>,
    pub(crate) sender: Process,
    pub(crate) recipient: Process,
    /// Where the next sender begins: one message that was not heard to be accepted may have been.
    next: u64,
    ledger: Ledger,
}

impl Pair {
    pub(crate) fn start(data: &Path) -> Self {
        Self::started(data, false)
    }

    /// With one who keeps a copy of each message.
    fn with_keeper(data: &Path) -> Self {
        Self::started(data, true)
    }

    fn started(data: &Path, is_kept: bool) -> Self {
        let addresses = [address(), address(), address()];
        let keeper = is_kept.then(|| role(data, &addresses, Part::Keep).start());
        keeper.iter().for_each(|keeper| drop(keeper.event("keeping")));
        let copies = usize::from(is_kept);
        let sender = role(data, &addresses, Part::Publish { from: 0, copies }).start();
        let recipient = role(data, &addresses, Part::Handle).start();
        Self { data: data.to_owned(), addresses, keeper, sender, recipient, next: 0, ledger: Ledger::default() }
    }

    fn kill_keeper(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            keeper.kill();
            self.keeper = Some(role(&self.data, &self.addresses, Part::Keep).start());
        }
    }

    /// Both are at it.
    pub(crate) fn work(&self, event: &str) {
        let at_it = if event == "accepted" { &self.sender } else { &self.recipient };
        (0..ROUND).for_each(|_| drop(at_it.event(event)));
    }

    pub(crate) fn kill_sender(&mut self) {
        self.sender.kill();
        self.next += 10_000;
    }

    /// Starts one again that was killed. What it promised counts if that was before that time.
    pub(crate) fn restart_sender(&mut self, before: Option<u64>) {
        let part = Part::Publish { from: self.next, copies: usize::from(self.keeper.is_some()) };
        let next = role(&self.data, &self.addresses, part).start();
        self.ledger.enter(std::mem::replace(&mut self.sender, next), before);
    }

    pub(crate) fn restart_recipient(&mut self, before: Option<u64>) {
        let next = role(&self.data, &self.addresses, Part::Handle).start();
        self.ledger.enter(std::mem::replace(&mut self.recipient, next), before);
    }

    /// Waits until all is decided, and checks that nothing was lost. `what` was done to them.
    pub(crate) fn finish(mut self, what: &str) {
        self.work("accepted");
        self.kill_sender();
        self.next = u64::MAX / 2;
        let last = format!("\"number\":{}", self.next);
        self.restart_sender(None);
        let Self { sender, mut recipient, mut ledger, keeper, .. } = self;
        recipient.line_within(DECIDED, |line| line.contains("acknowledged") && line.contains(&last));
        drop((sender, keeper));
        recipient.kill();
        ledger.enter(recipient, None);
        let lost: Vec<u64> = ledger.accepted.difference(&ledger.handled).copied().collect();
        let (accepted, handled) = (ledger.accepted.len(), ledger.handled.len());
        eprintln!("{what}: {accepted} accepted, {handled} handled, {} lost", lost.len());
        assert!(lost.is_empty(), "{lost:?}");
        assert!(ledger.first.is_sorted(), "out of order");
    }
}

fn role(data: &Path, addresses: &[String; 3], part: Part) -> Role {
    let (name, place) = match part {
        Part::Publish { .. } => ("sender", 0),
        Part::Handle => ("recipient", 1),
        Part::Keep => ("keeper", 2),
    };
    let mut peers = addresses.to_vec();
    let listen = peers.remove(place);
    Role { name: name.to_owned(), data: data.to_owned(), listen, peers, part }
}

/// How often, as that variable says, or else a few times.
pub(crate) fn rounds(variable: &str, few: usize) -> usize {
    std::env::var(variable).map_or(few, |text| text.parse().expect("a number"))
}

#[test]
fn nothing_that_was_accepted_is_lost_however_often_either_side_is_killed() {
    let _turn = Turn::shared();
    let kills = rounds("POMBO_KILLS", KILLS);
    let data = tempfile::tempdir().unwrap();
    let mut pair = Pair::start(data.path());
    for kill in 0..kills {
        // Under load: both are at it, and where in it the kill comes differs from round to round.
        pair.work(if kill % 4 < 2 { "accepted" } else { "acknowledged" });
        if kill % 2 == 0 {
            pair.kill_sender();
            pair.restart_sender(None);
        } else {
            pair.recipient.kill();
            pair.restart_recipient(None);
        }
    }
    pair.finish(&format!("{kills} kills"));
}

#[test]
fn nothing_that_was_accepted_is_lost_however_often_one_who_keeps_copies_is_killed_too() {
    let _turn = Turn::shared();
    let kills = rounds("POMBO_KILLS", KILLS);
    let data = tempfile::tempdir().unwrap();
    let mut pair = Pair::with_keeper(data.path());
    for kill in 0..kills {
        pair.work(if kill % 4 < 2 { "accepted" } else { "acknowledged" });
        match kill % 3 {
            0 => {
                pair.kill_sender();
                pair.restart_sender(None);
            }
            1 => {
                pair.recipient.kill();
                pair.restart_recipient(None);
            }
            _ => pair.kill_keeper(),
        }
    }
    pair.finish(&format!("{kills} kills, with copies"));
}
