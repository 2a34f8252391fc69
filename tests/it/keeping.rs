//! Guaranteed messages by the command line: the node that runs keeps them, for verbs that come and go.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::process::{Process, SOON, json};
use crate::support::user::User;

/// A subscriber that holds a durable subscription.
fn holding(user: &User, line: &str) -> Process {
    let sub = user.start(&format!("sub {line}"));
    sub.complaint(|line| line.starts_with("holding"));
    sub
}

fn items(user: &User, line: &str) -> Vec<Value> {
    let mut listing = user.run(&format!("{line} --json")).expect(0).json();
    listing["items"].as_array_mut().map(std::mem::take).unwrap()
}

/// Lists until there are so many.
fn wait_for(user: &User, line: &str, wanted: usize) -> Vec<Value> {
    let until = Instant::now() + SOON;
    loop {
        let items = items(user, line);
        if items.len() == wanted {
            return items;
        }
        assert!(Instant::now() < until, "{line}: {} instead of {wanted}", items.len());
    }
}

fn data(sub: &Process) -> String {
    json(&sub.line(|_| true))["data"].as_str().unwrap().to_owned()
}

#[test]
fn without_a_node_that_runs_they_say_what_to_type() {
    let user = User::new();
    for verb in [
        "pub orders.new hi --guaranteed",
        "sub orders.new --durable billing",
        "undelivered list",
        "undelivered show 00112233445566770000000000000001",
        "undelivered retry --all",
        "undelivered drop --all",
        "outbox list",
        "where 00112233445566770000000000000001",
        "subscriptions list",
        "subscriptions remove billing",
    ] {
        let refused = user.run(&format!("{verb} --mesh lab")).expect(6);
        assert!(refused.stderr.contains("pombo node --mesh lab"), "{refused}");
        assert!(!refused.stderr.contains("leave out"), "{refused}");
        let refused = user.run(&format!("{verb} --json --name harbour")).expect(6);
        let error: Value = json(refused.stderr.lines().last().unwrap());
        assert_eq!((&error["error"]["outcome"], &error["error"]["exit"]), (&"no-node".into(), &6.into()));
        assert!(refused.stderr.contains("--name"), "{refused}");
    }
}

#[test]
fn what_is_kept_waits_for_whoever_holds_the_subscription_next() {
    let user = User::new();
    let (node, _) = user.node("--name harbour");
    let nobody = user.run("pub orders.new hi --guaranteed").expect(3);
    assert!(nobody.stderr.contains("pombo sub orders.new --durable NAME"), "{nobody}");
    drop(holding(&user, "'orders.>' --durable billing"));

    let receipt = user.run("pub orders.new one --guaranteed --json").expect(0).json();
    assert_eq!((&receipt["recipients"], &receipt["bytes"]), (&json(r#"["billing"]"#), &3.into()));
    let mut lines = user.start("pub orders.new --lines --guaranteed");
    lines.write((0..1_000).map(|number| format!("{number}\n")).collect::<String>().as_bytes());
    let kept = lines.finish().expect(0);
    assert!(kept.stderr.contains("kept 1000 messages (2.8 KiB) on orders.new for billing"), "{kept}");
    let listed = user.run("outbox list --json").expect(0).json();
    assert_eq!(listed["total"], 1_001);
    assert_eq!(listed["items"][0]["id"], receipt["id"]);
    let there = items(&user, "subscriptions list");
    assert_eq!((there.len(), &there[0]["name"], &there[0]["pattern"]), (1, &"billing".into(), &"orders.>".into()));
    assert_eq!((&there[0]["node"], &there[0]["holders"]), (&"harbour".into(), &0.into()));

    // They are there after the node was killed, too.
    drop(node);
    let (_node, _) = user.node("--name harbour");
    let first = user.run("sub 'orders.>' --durable billing -n 1 --json").expect(0).json();
    assert_eq!((&first["data"], &first["id"]), (&"one".into(), &receipt["id"]));
    let rest = user.run("sub 'orders.>' --durable billing -n 1000 --raw").expect(0);
    assert_eq!(rest.text(), (0..1_000).map(|number| format!("{number}\n")).collect::<String>());
    wait_for(&user, "outbox list", 0);
    let more = user.run("sub 'orders.>' --durable billing -n 1 --timeout 300ms").expect(4);
    assert!(more.stdout.is_empty(), "what was acknowledged came again: {more}");
}

#[test]
fn what_a_client_that_dies_has_in_hand_is_for_the_next() {
    let user = User::new();
    let (_node, _) = user.node("--name harbour");
    // It is killed while its command runs, which dies with it.
    let mut first = holding(&user, "orders.new --durable billing --exec 'cat > begun; sleep 600'");
    user.run("pub orders.new hi --guaranteed").expect(0);
    let until = Instant::now() + SOON;
    while !fs::read(user.dir().join("begun")).is_ok_and(|begun| begun == b"hi") {
        assert!(Instant::now() < until, "the command was not run");
    }
    first.kill();
    let again = user.run("sub orders.new --durable billing -n 1 --json --timeout 20s").expect(0).json();
    assert_eq!((&again["data"], &again["attempt"]), (&"hi".into(), &2.into()));
}

#[test]
fn a_command_acknowledges_by_its_exit_code() {
    let user = User::new();
    let (_node, _) = user.node("--name harbour");
    let command = "printf '%s %s %s %s:' $POMBO_TOPIC $POMBO_ID $POMBO_ATTEMPT $POMBO_HEADER_TENANT; cat; echo; test $POMBO_ATTEMPT = 2";
    fs::write(user.dir().join("handle.sh"), command).unwrap();
    let sub = holding(&user, "'orders.*' --durable billing -n 1 --exec 'sh handle.sh'");
    let receipt = user.run("pub orders.new hi --guaranteed -H tenant:acme --json").expect(0).json();
    let id = receipt["id"].as_str().unwrap();
    assert_eq!(sub.line(|_| true), format!("orders.new {id} 1 acme:hi"));
    assert!(sub.complaint(|_| true).contains(&format!("{id} comes again: the command failed: exit status: 1")));
    assert_eq!(sub.line(|_| true), format!("orders.new {id} 2 acme:hi"));
    sub.ended().expect(0);
    wait_for(&user, "outbox list", 0);
}

#[test]
fn what_was_not_delivered_is_listed_shown_sent_again_or_dropped() {
    let user = User::new();
    let (node, _) = user.node("--name harbour");
    assert!(user.run("undelivered list").expect(0).stderr.contains("nothing is undelivered"));
    user.run("pub orders.new hi --guaranteed --ttl 1ms --to billing --to audit -H tenant:acme").expect(0);
    let listed = wait_for(&user, "undelivered list", 2);
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    for (item, recipient) in listed.iter().zip(["audit", "billing"]) {
        assert_eq!((&item["recipient"], &item["reason"]), (&recipient.into(), &"never-reached".into()));
        assert_eq!((&item["topic"], &item["id"]), (&"orders.new".into(), &id.as_str().into()));
    }
    assert_eq!(user.run("outbox list --json").expect(0).json()["total"], 0);

    // What they tell of is there after a restart, too.
    drop(node);
    let (_node, _) = user.node("--name harbour");
    let shown = user.run(&format!("undelivered show {id} --to audit --json")).expect(0).json();
    assert_eq!((&shown["data"], &shown["headers"][0]["value"]), (&"hi".into(), &"acme".into()));
    let shown = user.run(&format!("undelivered show {id} --to audit")).expect(0);
    assert!(shown.text().contains("no node that holds") && shown.text().ends_with("\nhi\n"), "{shown}");

    let billing = holding(&user, "orders.new --durable billing --json");
    let again = user.run(&format!("undelivered retry {id} --to billing --json")).expect(0).json();
    assert_eq!(again["instead_of"], id.as_str());
    let message = json(&billing.line(|_| true));
    assert_eq!((&message["data"], &message["id"]), (&"hi".into(), &again["id"]));
    assert_eq!(items(&user, "undelivered list").len(), 1);
    // The message is kept for the other notice still.
    user.run(&format!("undelivered show {id}")).expect(0);
    user.run("undelivered drop --all").expect(0);
    assert!(items(&user, "undelivered list").is_empty());
    let gone = user.run(&format!("undelivered show {id}")).expect(7);
    assert!(gone.stderr.contains(&format!("there is no undelivered message {id}")), "{gone}");
    user.run("undelivered show nonsense").expect(2);
    user.run("undelivered drop").expect(2);
}

#[test]
fn it_is_told_where_a_message_is() {
    let user = User::new();
    let (_node, started) = user.node("--name harbour");
    let receipt = user.run("pub orders.new hi --guaranteed --to billing --json").expect(0).json();
    let line = format!("where {}", receipt["id"].as_str().unwrap());
    let known = items(&user, &line);
    assert_eq!((known.len(), &known[0]["stage"], &known[0]["recipient"]), (1, &"accepted".into(), &"billing".into()));
    assert_eq!((&known[0]["node"], &known[0]["peer"]), (&"harbour".into(), &started["peer"]));
    user.run("sub orders.new --durable billing -n 1").expect(0);
    wait_for(&user, "outbox list", 0);
    let known = items(&user, &line);
    assert_eq!((known.len(), &known[0]["stage"]), (1, &"processed".into()));
    assert!(user.run(&line).expect(0).text().contains("processed"));
    let nobody = user.run("where 00112233445566770000000000000001").expect(3);
    assert!(nobody.stderr.contains("nobody here knows of a message 0011"), "{nobody}");
}

#[test]
fn a_durable_subscription_is_removed_where_it_lives() {
    let user = User::new();
    let (harbour, started) = user.node("--name harbour");
    drop(holding(&user, "orders.new --durable billing"));
    user.run("pub orders.new hi --guaranteed").expect(0);
    let other = user.run("sub orders.old --durable billing").expect(7);
    assert!(other.stderr.contains("with the pattern orders.new"), "{other}");

    // The verbs are those of the node that is first by its name.
    let address = started["addresses"][0].as_str().unwrap();
    let (_first, _) = user.node(&format!("--name anchor --peer {address}"));
    let there = wait_for(&user, "subscriptions list", 1);
    assert_eq!((&there[0]["node"], &there[0]["holders"]), (&"harbour".into(), &Value::Null));
    let elsewhere = user.run("subscriptions remove billing").expect(7);
    assert!(elsewhere.stderr.contains("harbour has it: remove it there"), "{elsewhere}");
    drop(harbour);
    let (_harbour, _) = user.node(&format!("--name aardvark --peer {address}"));
    drop(holding(&user, "orders.new --durable audit"));
    user.run("subscriptions remove audit").expect(0);
    let none = user.run("subscriptions remove audit").expect(7);
    assert!(none.stderr.contains("no durable subscription audit"), "{none}");
}

#[test]
fn many_are_accepted_in_one_go() {
    let user = User::new();
    let (_node, _) = user.node("--name harbour");
    let mut lines = user.start("pub orders.new --lines --guaranteed --to billing");
    lines.write((0..20_000).map(|number| format!("{number}\n")).collect::<String>().as_bytes());
    lines.finish_within(Duration::from_secs(60)).expect(0);
    assert_eq!(user.run("outbox list --json").expect(0).json()["total"], 20_000);
    let sub = holding(&user, "orders.new --durable billing --json");
    for number in 0..20_000 {
        assert_eq!(data(&sub), number.to_string());
    }
}
