//! A node in a process of its own, which a test can measure, stop and kill: this binary once more, as the ignored test
//! below.

use std::alloc::System;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap::Cap;
use futures::StreamExt;
use pombo::{Bytes, Limits, MeshChoice, Node, RawPattern, RawService, RawTopic, RecvError, Tables};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::process::Process;

/// Where the job of such a process stands.
const JOB: &str = "POMBO_TEST_JOB";

/// What such a process does until its stdin ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) data: PathBuf,
    /// An address to listen on. TCP on loopback without one.
    pub(crate) listen: Vec<String>,
    pub(crate) peers: Vec<String>,
    /// Patterns to listen to, each with a group or none.
    pub(crate) subscribe: Vec<(String, Option<String>)>,
    /// Prints every message that comes.
    pub(crate) tell: bool,
    pub(crate) publish: Option<Publishing>,
    pub(crate) serve: Option<String>,
    pub(crate) ask: Option<Asking>,
    /// How often to report, in milliseconds. Never without it.
    pub(crate) report: Option<u64>,
    /// Other limits than the usual ones.
    pub(crate) limits: Limits,
}

/// Messages to publish, as soon as somebody listens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Publishing {
    pub(crate) topic: String,
    /// Their sizes, in turn.
    pub(crate) sizes: Vec<usize>,
    /// As fast as it goes without one.
    pub(crate) per_second: Option<u32>,
    /// For how many listeners it waits first.
    pub(crate) listeners: usize,
}

/// Requests to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Asking {
    pub(crate) service: String,
    pub(crate) size: usize,
    pub(crate) per_second: u32,
}

impl Job {
    /// Starts it, and waits until its node has started. Its first address is returned too.
    pub(crate) fn start(&self) -> (Process, String) {
        let process = self.launch();
        let started = process.event("started");
        (process, started["addresses"][0].as_str().unwrap().to_owned())
    }

    /// Starts it, and does not wait.
    pub(crate) fn launch(&self) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "--nocapture", "support::worker::works"]);
        command.env(JOB, serde_json::to_string(self).unwrap());
        Process::start(command)
    }
}

/// The beginning of every payload: when its publisher began, and how many it had published before.
const STAMP: usize = 16;

/// What payloads are filled with, from a place that follows from their number. Cut out, not computed: it must not be what
/// takes the time.
static FILLER: LazyLock<Vec<u8>> = LazyLock::new(|| (0..=250).cycle().take(1024 * 1024 + 251).collect());

fn filler(number: u64, length: usize) -> &'static [u8] {
    let start = (number % 251) as usize;
    &FILLER[start..start + length]
}

/// The payload of a publisher's nth message: its stamp, then bytes that follow from it, as far as there is room.
pub(crate) fn payload(began: u64, number: u64, size: usize) -> Bytes {
    let rest = filler(number, size.saturating_sub(STAMP));
    [&began.to_be_bytes()[..], &number.to_be_bytes(), rest].concat().into()
}

/// The stamp of a payload whose every byte is right.
fn stamp(payload: &[u8]) -> Option<(u64, u64)> {
    let (stamp, rest) = payload.split_first_chunk::<STAMP>()?;
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).ok();
    let (began, number) = (number(&stamp[..8])?, number(&stamp[8..])?);
    (rest == filler(number, rest.len())).then_some((began, number))
}

/// So many of a topic are remembered: more than publish at a time.
const PUBLISHERS: usize = 32;

/// What a subscriber got, as its stamps tell.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The number that comes next on each topic, of each publisher by when it began: of the last ones, since they come and go.
    next: BTreeMap<String, BTreeMap<u64, u64>>,
    pub(crate) received: u64,
    /// That were told to be missing.
    pub(crate) missed: u64,
    /// That are missing, as the numbers show.
    pub(crate) absent: u64,
    /// That came twice, or out of order, or changed.
    pub(crate) wrong: u64,
}

impl Ledger {
    pub(crate) fn enter(&mut self, topic: &str, payload: &[u8]) {
        self.received += 1;
        let Some((began, number)) = stamp(payload) else {
            self.wrong += 1;
            return;
        };
        let publishers = self.next.entry(topic.to_owned()).or_default();
        match publishers.insert(began, number + 1) {
            Some(next) if number < next => self.wrong += 1,
            Some(next) => self.absent += number - next,
            None if publishers.len() > PUBLISHERS => drop(publishers.pop_first()),
            None => {}
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    published: AtomicU64,
    /// Received as one of a group.
    shared: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    ledger: Mutex<Ledger>,
}

/// What the system says about this process: KiB in memory now and at most, open files, threads.
pub(crate) fn footprint(process: &str) -> BTreeMap<&'static str, u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let files = fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
    let mut footprint = BTreeMap::from([("files", files as u64)]);
    for (key, name) in [("rss", "VmRSS"), ("peak", "VmHWM"), ("threads", "Threads")] {
        footprint.extend(field(name).map(|value| (key, value)));
    }
    footprint
}

/// What is allocated, to the byte: how much of the system's memory that takes is the allocator's choice.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// One line that a test can wait for. The harness has begun a line of its own.
fn say(line: &serde_json::Value) {
    println!("\n{line}");
}

#[test]
#[ignore = "a process that other tests start"]
fn works() {
    let Ok(job) = std::env::var(JOB) else { return };
    let job: Job = serde_json::from_str(&job).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work(job));
    // Its stdin may still be read.
    runtime.shutdown_background();
}

async fn work(job: Job) {
    let node = start(&job).await;
    let counters = Arc::new(Counters::default());
    for (pattern, group) in &job.subscribe {
        let mut subscribe = node.subscribe(RawPattern::parse(pattern).unwrap());
        if let Some(group) = group {
            subscribe = subscribe.group(group);
        }
        let alone = group.is_none();
        tokio::spawn(listen(subscribe.await.unwrap(), alone, Arc::clone(&counters), job.tell));
    }
    let _serving = match &job.serve {
        Some(service) => {
            let echo = |question: Bytes| async move { Ok(question) };
            Some(node.serve(RawService::parse(service).unwrap()).with(echo).await.unwrap())
        }
        None => None,
    };
    let addresses: Vec<_> = node.addresses().iter().map(ToString::to_string).collect();
    say(&json!({ "event": "started", "peer": node.peer_id().to_string(), "addresses": addresses }));
    if let Some(publishing) = job.publish {
        tokio::spawn(publish(node.clone(), publishing, Arc::clone(&counters)));
    }
    if let Some(asking) = job.ask {
        tokio::spawn(ask(node.clone(), asking, Arc::clone(&counters)));
    }
    if let Some(pause) = job.report {
        tokio::spawn(report(node.clone(), Duration::from_millis(pause), counters));
    }
    // The end of stdin is the end.
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    node.leave().await;
}

async fn start(job: &Job) -> Node {
    let mesh = MeshChoice::Named("test".to_owned());
    let config = pombo::Config { limits: job.limits.clone(), ..pombo::Config::default() };
    let mut builder = Node::builder().config(config).name(&job.name).mesh(mesh).data_dir(&job.data);
    builder = builder.mdns(false).local(false);
    let tcp = ["/ip4/127.0.0.1/tcp/0".to_owned()];
    for address in if job.listen.is_empty() { &tcp[..] } else { &job.listen } {
        builder = builder.listen(address.parse().unwrap());
    }
    for peer in &job.peers {
        builder = builder.peer(peer.parse().unwrap());
    }
    builder.start().await.unwrap()
}

/// `alone`: it shares its messages with nobody, so that none may be absent.
async fn listen(mut messages: pombo::Subscriber<Bytes, pombo::Raw>, alone: bool, counters: Arc<Counters>, tell: bool) {
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => {
                if alone {
                    counters.ledger.lock().unwrap().enter(message.topic(), &message);
                } else {
                    counters.shared.fetch_add(1, Ordering::Relaxed);
                }
                if tell {
                    let number = stamp(&message).map(|(_, number)| number);
                    let source = message.source().to_string();
                    say(&json!({ "event": "message", "number": number, "bytes": message.len(), "source": source }));
                }
            }
            Err(RecvError::Lagged { missed, exact }) => {
                if alone {
                    counters.ledger.lock().unwrap().missed += missed;
                }
                if tell {
                    say(&json!({ "event": "lagged", "missed": missed, "exact": exact }));
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn publish(node: Node, publishing: Publishing, counters: Arc<Counters>) {
    let publisher = node.publisher(RawTopic::parse(&publishing.topic).unwrap());
    publisher.ready(publishing.listeners).await.unwrap();
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut pace = publishing.per_second.map(|number| tokio::time::interval(Duration::from_secs(1) / number));
    for number in 0.. {
        let size = publishing.sizes[number as usize % publishing.sizes.len()];
        if let Some(pace) = &mut pace {
            pace.tick().await;
        } else {
            tokio::task::yield_now().await;
        }
        if publisher.publish(&payload(began, number, size)).await.is_err() {
            break;
        }
        counters.published.fetch_add(1, Ordering::Relaxed);
    }
}

async fn ask(node: Node, asking: Asking, counters: Arc<Counters>) {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / asking.per_second);
    let question = payload(0, 0, asking.size);
    loop {
        pace.tick().await;
        let answer = node.request(RawService::parse(&asking.service).unwrap(), &question).await;
        let counter = match answer {
            Ok(answer) if *answer == question => &counters.answered,
            Ok(_) | Err(_) => &counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

async fn report(node: Node, pause: Duration, counters: Arc<Counters>) {
    let mut pace = tokio::time::interval(pause);
    loop {
        pace.tick().await;
        let Ok(status) = node.status().await else { return };
        let suspects = status.peers.iter().filter(|peer| peer.suspect).count();
        let Ledger { received, missed, absent, wrong, .. } = &*counters.ledger.lock().unwrap();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        say(&json!({
            "event": "report", "tables": tables(&status.tables), "footprint": footprint("self"), "heap": HEAP.allocated(), "suspects": suspects,
            "received": received, "missed": missed, "absent": absent, "wrong": wrong,
            "published": count(&counters.published),
            "shared": count(&counters.shared), "answered": count(&counters.answered), "failed": count(&counters.failed),
        }));
    }
}

fn tables(tables: &Tables) -> serde_json::Value {
    json!({
        "links": tables.links,
        "connections": tables.connections,
        "lanes": tables.lanes,
        "candidates": tables.candidates,
        "records": tables.records,
        "graves": tables.graves,
        "subscriptions": tables.subscriptions,
        "streams": tables.streams,
        "held": tables.held,
        "ring": tables.ring,
        "heads": tables.heads,
        "requests": tables.requests,
        "calls": tables.calls,
        "exchanges": tables.exchanges,
        "unchecked": tables.unchecked,
    })
}
