//! `--watch` where no terminal is: every change once, and nothing else.

use pombo::{MeshChoice, Node, RawPattern};
use serde_json::Value;

use crate::support::nodes::{self, within};
use crate::support::process::{Process, json};
use crate::support::user::User;

/// Starts a listing that is watched, and waits for its first line.
fn watching(user: &User, line: &str) -> (Process, String) {
    let process = user.start(line);
    let first = process.line(|_| true);
    (process, first)
}

#[test]
fn a_change_is_a_line_of_json() {
    let user = User::new();
    let (topics, first) = watching(&user, "topics --watch --json");
    assert_eq!(first, r#"{"items":[]}"#);
    // One more node is another peer, and no other topic.
    let (peers, _) = watching(&user, "peers --watch --json");
    let (_node, _) = user.node("--name harbour");
    assert_eq!(json(&peers.line(|_| true))["items"][0]["name"], "harbour");
    let sub = user.sub("'demo.>' --group packers");
    let second = topics.line(|_| true);
    assert_eq!(json(&second), json(r#"{"items":[{"pattern":"demo.>","nodes":1,"groups":["packers"]}]}"#));
    sub.signal("INT");
    sub.finish().expect(0);
    assert_eq!(topics.line(|_| true), r#"{"items":[]}"#);
    topics.signal("INT");
    let finished = topics.finish().expect(0);
    assert_eq!(finished.text().lines().count(), 3, "{finished}");
}

#[test]
fn a_change_is_another_table() {
    let user = User::new();
    let (_node, _) = user.node("--name harbour");
    let (services, first) = watching(&user, "services --watch");
    assert_eq!(first, "nothing is served (1 peer in the mesh)");
    let serving = user.start("serve text.upper --reply HI --name crier");
    serving.complaint(|line| line.starts_with("serving"));
    let next = || services.line(|_| true);
    let words = |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(next(), "");
    assert_eq!((words(next()), words(next())), (words("SERVICE PROVIDERS".into()), words("text.upper crier".into())));
    services.signal("TERM");
    services.finish().expect(0);
}

/// A node that is there already is not news; what it listens to is.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_listens_to_more_is_a_change() {
    let user = User::new();
    let (harbour, started) = user.node("--name harbour --listen /ip4/127.0.0.1/tcp/0");
    let (topics, _) = watching(&user, "topics --watch --json");
    let address = started["addresses"][0].as_str().unwrap().parse().unwrap();
    let builder = Node::builder().name("reader").data_dir(user.dir().join("data/pombo")).mdns(false).local(false);
    let builder = builder.mesh(MeshChoice::Named("default".into())).listen(nodes::TCP.parse().unwrap()).peer(address);
    let node = within("a start", builder.start()).await.unwrap();
    let patterns = |line: String| -> Vec<Value> {
        let items = json(&line)["items"].take();
        items.as_array().unwrap().iter().map(|item| item["pattern"].clone()).collect()
    };
    let _first = within("a subscription", node.subscribe(RawPattern::parse("a.b").unwrap())).await.unwrap();
    assert_eq!(patterns(topics.line(|_| true)), ["a.b"]);
    harbour.event("joined");
    let _second = within("a subscription", node.subscribe(RawPattern::parse("c.>").unwrap())).await.unwrap();
    assert_eq!(patterns(topics.line(|_| true)), ["a.b", "c.>"]);
    assert_eq!(harbour.event("changed")["name"], "reader");
    node.leave().await;
}
