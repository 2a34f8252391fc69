//! Whole processes through the `pombo` command, each test as a user of its own.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use serde_json::Value;

use crate::support::process::{Finished, Process, SOON, json};
use crate::support::user::{OWN, User, timed};

#[test]
fn a_newcomers_first_minute() {
    let user = User::newcomer();
    let node = user.start("node");
    let banner = node.line(|line| line.starts_with("pombo "));
    assert!(banner.contains("node ") && banner.contains("12D3Koo"), "{banner}");
    for wanted in [
        "mesh       default (private)",
        "listening  /ip4/",
        "finding    ",
        "pombo sub 'demo.>'",
        "pombo pub demo.hello hi",
    ] {
        node.line(|line| line.contains(wanted));
    }
    let sub = user.sub("'demo.>'");

    let (line, took) = timed(|| {
        let publishing = user.start("pub demo.hello hi");
        let line = sub.line(|_| true);
        let published = publishing.finish().expect(0);
        assert!(published.stdout.is_empty(), "stdout is for data: {published}");
        assert!(published.stderr.contains("published 2 B on demo.hello: "), "{published}");
        assert!(published.stderr.contains("1 peer subscribes"), "{published}");
        line
    });
    let fields: Vec<_> = line.split_whitespace().collect();
    assert!(fields.len() == 4 && fields[1] == "demo.hello" && fields[3] == "hi", "{line}");
    assert!(took < Duration::from_secs(1), "it took {took:?}");
}

#[test]
fn sub_and_pub_need_no_node() {
    let user = User::newcomer();
    let sub = user.sub("'demo.>'");
    let (line, took) = timed(|| {
        let publishing = user.start("pub demo.hello hi");
        let line = sub.line(|_| true);
        assert!(publishing.finish().expect(0).stderr.contains("1 peer subscribes"));
        line
    });
    assert!(line.ends_with("hi"), "{line}");
    assert!(took < Duration::from_secs(1), "it took {took:?}");
}

#[test]
fn five_that_start_in_the_same_instant_are_one_mesh() {
    let user = User::newcomer();
    let nodes = [(); 3].map(|()| user.start("node --json"));
    let subs = [(); 2].map(|()| user.start(&format!("sub 'demo.>' --raw {OWN}")));
    let mut meshes: Vec<_> = nodes.iter().map(|node| node.event("started")["mesh"]["id"].clone()).collect();
    meshes.dedup();
    assert_eq!(meshes.len(), 1, "{meshes:?}");
    user.wait_for_peers(5, "");
    user.run("pub demo.hello hi --min-peers 2").expect(0);
    for sub in &subs {
        assert_eq!(sub.line(|_| true), "hi");
    }
}

#[test]
fn every_way_to_end_has_its_exit_code() {
    let user = User::new();
    let _refusing = serving(&user, "serve demo.refusing --exec 'echo out of pigeons >&2; exit 1'");
    let cases = [
        (0, "id", ""),
        (0, "pub demo.hello hi", ""),
        (0, "sub demo.hello --timeout 300ms", ""),
        (1, "pub demo.hello --file /nowhere", "/nowhere"),
        (2, "pub demo.hello hi --frobnicate", "--frobnicate"),
        (2, "pub demo.hello hi --peer 10.0.0.1:7662", "/ip4/10.0.0.1/tcp/7662"),
        (2, "sub demo.hello --timeout soon", "500ms"),
        (2, "node --open --mesh lab", "--mesh"),
        (3, "pub demo.hello hi --min-peers 1 --timeout 300ms", "0 of 1"),
        (3, "request demo.nobody hi --timeout 1s", "nobody serves demo.nobody"),
        (4, "sub demo.hello -n 1 --timeout 300ms", "0 of 1 messages"),
        (5, "request demo.refusing hi", "out of pigeons"),
        (6, "request demo.refusing hi --to nobody", "nobody"),
        (7, "pub demo..hello hi", "token 2"),
        (7, "pub 'demo.*' hi", "wildcard"),
        (7, "pub 'demo.héllo' hi", "'é'"),
        (7, "sub 'demo.>.hello'", ">"),
        (7, "request demo..price hi", "token 2"),
    ];
    for (code, line, said) in cases {
        let finished = user.run(line).expect(code);
        assert!(finished.stderr.contains(said), "{said} in {finished}");
    }
}

#[test]
fn a_body_above_the_limit_is_rejected_before_anything_is_sent() {
    let user = User::new();
    let sub = user.sub("'demo.>' --raw");
    let mut publishing = user.start("pub demo.hello -");
    publishing.write(&vec![b'x'; 1024 * 1024 + 1]);
    let rejected = publishing.finish().expect(7);
    assert!(rejected.stderr.contains("1048576"), "{rejected}");
    user.run("pub demo.hello next --min-peers 1").expect(0);
    assert_eq!(sub.line(|_| true), "next");
}

#[test]
fn a_port_in_use_is_named() {
    let user = User::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let finished = user.run(&format!("node --listen {address}")).expect(1);
    assert!(finished.stderr.contains(&address), "{finished}");
}

#[test]
fn a_name_that_is_held_is_refused_with_its_holder() {
    let user = User::new();
    let (_node, _) = user.node("--name shop");
    let finished = user.run("node --name shop").expect(1);
    assert!(finished.stderr.contains("shop"), "{finished}");
    assert!(finished.stderr.chars().any(|character| character.is_ascii_digit()), "the holder's process: {finished}");
}

#[test]
fn what_is_asked_for_as_json_is_json() {
    let user = User::new();
    let (node, started) = user.node("--name shop");
    assert_eq!((&started["name"], &started["mesh"]["open"]), (&Value::from("shop"), &Value::from(false)));
    assert!(started["addresses"].as_array().is_some_and(|addresses| !addresses.is_empty()), "{started}");
    let sub = user.sub(&format!("'demo.>' --json --group packers {OWN}"));
    let serve = serving(&user, &format!("serve text.upper --exec 'tr a-z A-Z' --json {OWN}"));
    assert_eq!(node.event("joined")["event"], "joined");

    let receipt = user.run("pub demo.hello hi -H tenant:acme --content-type text/plain --json").expect(0).json();
    assert_eq!(
        (&receipt["topic"], &receipt["bytes"], &receipt["listeners"]),
        (&"demo.hello".into(), &2.into(), &1.into())
    );
    let message = json(&sub.line(|_| true));
    assert_eq!(
        (&message["topic"], &message["data"], &message["id"]),
        (&"demo.hello".into(), &"hi".into(), &receipt["id"])
    );
    assert_eq!((&message["headers"][0]["name"], &message["headers"][0]["value"]), (&"tenant".into(), &"acme".into()));
    assert_eq!(message["content_type"], "text/plain");

    let answer = user.run("request text.upper pombo --json").expect(0).json();
    assert_eq!((&answer["service"], &answer["data"]), (&"text.upper".into(), &"POMBO".into()));
    assert_eq!(json(&serve.line(|_| true))["outcome"], "answered");

    let peers = user.wait_for_peers(3, "");
    let shop = peers.iter().find(|peer| peer["name"] == "shop").expect("the node is listed");
    assert_eq!((&shop["relay"], &shop["suspect"], &shop["peer"]), (&true.into(), &false.into(), &started["peer"]));
    let topics = user.run("topics --json").expect(0).json();
    assert_eq!(topics["items"][0], json(r#"{"pattern":"demo.>","nodes":1,"groups":["packers"]}"#));
    let services = user.run("services --json").expect(0).json();
    assert_eq!(
        (&services["items"][0]["service"], services["items"].as_array().map(Vec::len)),
        (&"text.upper".into(), Some(1))
    );
    let identity = user.run("id --name shopper --json").expect(0).json();
    assert_eq!(identity["mesh"]["id"], started["mesh"]["id"]);
}

#[test]
fn errors_are_json_as_well() {
    let user = User::new();
    for (line, outcome, code) in [
        ("pub demo..hello hi --json", "rejected", 7),
        ("pub demo.hello hi --json --frobnicate", "usage", 2),
        ("request demo.nobody hi --timeout 1s --json", "nobody", 3),
        ("sub demo.hello -n 1 --timeout 300ms --json", "unknown", 4),
    ] {
        let finished = user.run(line).expect(code);
        let last = finished.stderr.lines().last().unwrap_or_default();
        let error = json(last);
        assert_eq!(
            (&error["error"]["outcome"], &error["error"]["exit"]),
            (&outcome.into(), &code.into()),
            "{finished}"
        );
    }
}

#[test]
fn a_listing_of_nobody_is_an_empty_one() {
    let user = User::new();
    for verb in ["peers", "topics", "services"] {
        assert_eq!(user.run(&format!("{verb} --json")).expect(0).json(), json(r#"{"items":[]}"#), "{verb}");
    }
}

#[test]
fn stdin_is_read_only_when_it_is_meant() {
    let user = User::new();
    let sub = user.sub("'demo.>' --raw");
    let published = |line: &str, input: &str| {
        let mut publishing = user.start(&format!("pub demo.hello --min-peers 1 {line}"));
        publishing.write(input.as_bytes());
        publishing.finish().expect(0);
    };
    published("-", "dash\n");
    // The newline belongs to the body, and the one that --raw adds comes after it.
    assert_eq!((sub.line(|_| true), sub.line(|_| true)), ("dash".into(), String::new()));
    published("", "left out");
    assert_eq!(sub.line(|_| true), "left out");
    published("--lines", "one\ntwo\n");
    assert_eq!((sub.line(|_| true), sub.line(|_| true)), ("one".into(), "two".into()));
    published("--lines -", "three");
    assert_eq!(sub.line(|_| true), "three");

    // With a body it is not touched: this one never ends, and `pub` does.
    let publishing = user.start("pub demo.hello body --min-peers 1");
    assert_eq!(sub.line(|_| true), "body");
    publishing.stderr.next_within(SOON, |line| line.starts_with("published")).expect("it says so");
    publishing.finish().expect(0);
}

#[test]
fn lines_keep_their_order() {
    const COUNT: usize = 1_000;
    let user = User::new();
    let sub = user.sub(&format!("demo.lines --raw -n {COUNT}"));
    let lines: Vec<_> = (0..COUNT).map(|number| format!("line {number}")).collect();
    let mut publishing = user.start("pub demo.lines --lines --min-peers 1");
    publishing.write(lines.join("\n").as_bytes());
    publishing.finish().expect(0);
    let received = sub.finish().expect(0);
    assert!(received.text().lines().eq(&lines), "{received}");
}

#[test]
fn so_many_messages_and_no_more() {
    let user = User::new();
    let sub = user.sub("demo.hello --raw -n 2");
    user.run("pub demo.hello hi -n 5 --min-peers 1").expect(0);
    assert_eq!(sub.finish().expect(0).text(), "hi\nhi\n");
}

#[test]
fn bytes_come_out_as_they_went_in() {
    let user = User::new();
    let bytes = [0xde, 0xad, 0xbe, 0xef, 0, b'\r'];
    let raw = user.sub("demo.bytes --raw -n 1");
    let document = user.sub("demo.bytes --json -n 1");
    let shown = user.sub("demo.bytes -n 1");
    std::fs::write(user.dir().join("bytes"), bytes).unwrap();
    user.run("pub demo.bytes --file bytes --min-peers 3").expect(0);

    assert_eq!(raw.finish().expect(0).stdout, [&bytes[..], b"\n"].concat());
    let message = document.finish().expect(0).json();
    assert_eq!((&message["data_base64"], message.get("data")), (&"3q2+7wAN".into(), None));
    assert!(shown.finish().expect(0).text().trim_end().ends_with("<6 bytes> de ad be ef 00 0d"));
}

#[test]
fn requests_are_answered_in_each_way() {
    let user = User::new();
    let _fixed = serving(&user, "serve demo.fixed --reply 'good morning'");
    let _echo = serving(&user, "serve demo.echo --echo");
    let _exec = serving(&user, "serve demo.exec --exec 'echo $POMBO_SERVICE $POMBO_HEADER_TENANT; cat'");
    let answer = |line: &str| -> Finished { user.run(line).expect(0) };
    assert_eq!(answer("request demo.fixed hi").text(), "good morning");
    assert_eq!(answer("request demo.echo 'the question'").text(), "the question");
    assert_eq!(answer("request demo.exec pombo -H tenant:acme").text(), "demo.exec acme\npombo");
    assert!(answer("request demo.echo hi").stderr.contains("answered by"));
}

#[test]
fn a_deadline_passes_and_the_command_behind_it_is_stopped() {
    let user = User::new();
    let serve = serving(&user, "serve demo.slow --exec 'sleep 60' --json");
    let finished = user.run("request demo.slow hi --timeout 1s").expect(4);
    assert!(finished.stderr.contains("may have run"), "{finished}");
    assert_eq!(json(&serve.line(|_| true))["outcome"], "cancelled");
}

#[test]
fn signals_end_a_node_politely() {
    let user = User::newcomer();
    let (watching, _) = user.node("--name watching");
    for signal in ["INT", "TERM"] {
        let (leaving, started) = user.node(&format!("--name on-{signal}"));
        let arrived = watching.event("joined");
        assert_eq!(arrived["peer"], started["peer"]);
        leaving.signal(signal);
        let gone = watching.event_within(Duration::from_secs(1), "left");
        assert_eq!((&gone["peer"], &gone["name"]), (&started["peer"], &started["name"]), "{signal}");
        assert_eq!(watching.event("unlinked")["peer"], started["peer"]);
        leaving.finish_within(Duration::from_secs(2)).expect(0);
    }
    // Killed, it cannot say goodbye, and over QUIC not even its system does: its silence is noticed.
    let (killed, started) = user.node("--name killed");
    assert_eq!(watching.event("joined")["peer"], started["peer"]);
    killed.signal("KILL");
    assert_eq!(watching.event_within(Duration::from_secs(6), "unlinked")["peer"], started["peer"]);
}

#[test]
fn a_subscriber_that_is_interrupted_has_done_its_work() {
    let user = User::new();
    let sub = user.sub("'demo.>'");
    sub.signal("INT");
    sub.finish().expect(0);
    user.wait_for_peers(0, "");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let user = User::new();
    let mut piped = user.command("sh");
    piped.args(["-c", "pombo sub 'demo.>' --raw | head -n 1"]);
    let piped = Process::start(piped);
    piped.complaint(|line| line.starts_with("subscribed to"));
    // `head` goes with the first, and the second finds nobody reading.
    user.run("pub demo.hello one --min-peers 1").expect(0);
    assert_eq!(piped.line(|_| true), "one");
    user.run("pub demo.hello two").expect(0);
    let finished = piped.finish().expect(0);
    assert!(!finished.stderr.contains("error"), "{finished}");
}

#[test]
fn the_meshes_of_two_users_of_one_host_never_mix() {
    let user = User::newcomer();
    let neighbour = user.neighbour();
    let (_ours, our_start) = user.node("");
    let (_theirs, their_start) = neighbour.node("");
    assert_ne!(our_start["mesh"]["id"], their_start["mesh"]["id"]);
    let sub = user.sub(&format!("'demo.>' --raw {OWN}"));

    let published = neighbour.run("pub demo.hello stranger").expect(0);
    assert!(published.stderr.contains("nobody is subscribed"), "{published}");
    neighbour.run("pub demo.hello stranger --min-peers 1 --timeout 1s").expect(3);
    user.run("pub demo.hello friend --min-peers 1").expect(0);
    assert_eq!(sub.line(|_| true), "friend");
    assert_eq!(user.run("peers --json").expect(0).json()["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(neighbour.run("peers --json").expect(0).json()["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_verb_takes_the_mesh_of_the_users_running_node() {
    let user = User::new();
    let (node, started) = user.node("--mesh lab");
    let identity = user.run("id --json").expect(0).json();
    assert_eq!(identity["mesh"], started["mesh"]);
    let sub = user.sub("'demo.>' --raw");
    user.run("pub demo.hello hi --min-peers 1").expect(0);
    assert_eq!(sub.line(|_| true), "hi");
    node.signal("TERM");
    node.finish().expect(0);
}

#[test]
fn flags_can_come_from_the_environment() {
    let user = User::new();
    let mut command = user.command("pombo");
    command.args(["id", "--json"]).env("POMBO_MESH", "lab");
    assert_eq!(Process::start(command).finish().expect(0).json()["mesh"]["name"], "lab");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let user = User::new();
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(user.dir().join("key")).unwrap();
    file.write_all(b"no key").unwrap();
    let finished = user.run("node --key key").expect(1);
    assert!(finished.stderr.contains("key"), "{finished}");
}

/// Starts a service, and waits until it is served.
fn serving(user: &User, line: &str) -> Process {
    let serving = user.start(line);
    serving.complaint(|line| line.starts_with("serving"));
    serving
}

#[test]
fn an_id_is_that_of_the_running_node_and_takes_nothing_from_it() {
    let user = User::new();
    let id = |flags: &str| user.run(&format!("id --json {flags}")).expect(0).json()["peer"].clone();
    // Before there is one: of the next that starts.
    let (first, key) = (id(""), id("--key spare"));
    assert_eq!(id(""), first);
    let (one, started) = user.node("");
    assert_eq!(started["peer"], first);
    let (_two, second) = user.node("--name shop");
    let (_three, by_key) = user.node("--key spare");
    assert_ne!(second["peer"], first);
    assert_eq!((id(""), id("--name shop"), id("--key spare")), (first.clone(), second["peer"].clone(), key.clone()));
    assert_eq!(by_key["peer"], key);
    one.signal("TERM");
    one.finish().expect(0);
    assert_eq!(id(""), second["peer"], "of those that run");
    assert_eq!(user.node("").1["peer"], first, "its place was not taken");
}
