//! `--json` on every verb there is: JSON and nothing else on stdout, and an error as one object, the last line of stderr.
//!
//! The verbs are found in the help. One that accepts `--json` and has no case here fails the test.

use std::time::Instant;

use serde_json::{Deserializer, Value};

use crate::support::process::{Finished, Process, SOON, json};
use crate::support::tree;
use crate::support::user::User;

/// How a verb is brought to print, and to fail.
struct Case {
    verb: &'static str,
    /// What follows the verb for it to succeed.
    succeeds: &'static str,
    /// What makes it print, once it has said on stderr, or printed, that it is ready.
    then: Option<&'static str>,
    /// Whether it goes on until it is stopped.
    lasts: bool,
    /// Whether it is done by a node that runs, or not at all.
    beside: bool,
    /// What follows the verb for it to fail, and the exit code.
    fails: (&'static str, i32),
}

/// Those that need a node that runs have one, and none in another mesh.
const BESIDE: Case = Case { beside: true, fails: ("--mesh none", 6), ..PLAIN };

/// Most need nothing else, and fail where a file should be a directory.
const PLAIN: Case =
    Case { verb: "", succeeds: "", then: None, lasts: false, beside: false, fails: ("--data-dir /dev/null/pombo", 1) };

const CASES: [Case; 24] = [
    Case { verb: "node", lasts: true, ..PLAIN },
    Case { verb: "pub", succeeds: "demo.hello hi -n 2", fails: ("demo..hello hi", 7), ..PLAIN },
    Case {
        verb: "sub",
        succeeds: "demo.hello -n 1",
        then: Some("pub demo.hello hi --min-peers 1"),
        fails: ("demo.hello -n 1 --timeout 100ms", 4),
        ..PLAIN
    },
    Case { verb: "request", succeeds: "demo.fixed hi", fails: ("demo.nobody hi --timeout 1s", 3), ..PLAIN },
    Case {
        verb: "serve",
        succeeds: "demo.echo --echo",
        then: Some("request demo.echo hi"),
        lasts: true,
        fails: ("demo..echo --echo", 7),
        ..PLAIN
    },
    Case { verb: "peers", ..PLAIN },
    Case { verb: "topics", ..PLAIN },
    Case { verb: "services", ..PLAIN },
    Case { verb: "undelivered list", ..BESIDE },
    Case { verb: "undelivered show", succeeds: "--all", fails: ("--all --mesh none", 6), ..BESIDE },
    Case { verb: "undelivered retry", succeeds: "--all --to one", fails: ("--all --mesh none", 6), ..BESIDE },
    Case { verb: "undelivered drop", succeeds: "--all --to two", fails: ("--all --mesh none", 6), ..BESIDE },
    Case { verb: "subscriptions list", ..BESIDE },
    Case { verb: "subscriptions remove", succeeds: "audit", fails: ("audit --mesh none", 6), ..BESIDE },
    Case { verb: "outbox list", ..BESIDE },
    Case { verb: "id", ..PLAIN },
    Case { verb: "doctor", ..PLAIN },
    Case { verb: "bench pubsub", succeeds: "--rate 100 --duration 200ms", fails: ("--size 2MiB", 7), ..PLAIN },
    Case {
        verb: "bench fanout",
        succeeds: "--rate 100 --duration 200ms --subscribers 2",
        fails: ("--mesh lab", 2),
        ..PLAIN
    },
    Case { verb: "bench request", succeeds: "--rate 100 --duration 200ms", fails: ("--size 2MiB", 7), ..PLAIN },
    // The second time the file is there.
    Case { verb: "config init", fails: ("", 2), ..PLAIN },
    Case { verb: "config show", fails: ("--config /nowhere", 2), ..PLAIN },
    Case { verb: "completions", succeeds: "bash", fails: ("abacus", 2), ..PLAIN },
    Case { verb: "man", fails: ("/dev/null/pombo", 1), ..PLAIN },
];

#[test]
fn every_verb_that_takes_json_prints_json() {
    let user = User::new();
    let fixed = user.start("serve demo.fixed --reply 'good morning'");
    fixed.complaint(|line| line.starts_with("serving"));
    let keeping = user.neighbour();
    let (_keeper, known) = keeper(&keeping);
    // A test's worth of memory.
    let succeeds = known.leak();
    let whereabouts = Case { verb: "where", succeeds, fails: ("00112233445566770000000000000001", 3), ..BESIDE };
    let mut cases: Vec<_> = CASES.iter().chain([&whereabouts]).collect();
    for verb in tree::verbs(&user).iter().filter(|verb| verb.is_leaf() && verb.long.contains("--json")) {
        let case = cases.iter().position(|case| case.verb == verb.line).map(|index| cases.remove(index));
        let case = case.unwrap_or_else(|| panic!("`pombo {}` takes --json: add a case of it to CASES", verb.line));
        let user = if case.beside { &keeping } else { &user };
        let documents = succeed(user, case);
        assert!(!documents.is_empty(), "`pombo {}` printed nothing", verb.line);
        let (line, code) = case.fails;
        fail(user, &format!("{} --json {line}", verb.line), code);
        fail(user, &format!("{} --json --no-such-flag", verb.line), 2);
    }
    let left: Vec<_> = cases.iter().map(|case| case.verb).collect();
    assert!(left.is_empty(), "there are no such verbs: {left:?}");
}

/// A node that keeps guaranteed messages: one that is under way, whose id is returned, and one that three did not get.
fn keeper(user: &User) -> (Process, String) {
    let (node, _) = user.node("--name keeper");
    user.run("sub orders.new --durable audit --timeout 100ms").expect(0);
    user.run("pub orders.old hi --guaranteed --ttl 1ms --to one --to two --to three").expect(0);
    let until = Instant::now() + SOON;
    while user.run("undelivered list --json").expect(0).json()["items"].as_array().unwrap().len() < 3 {
        assert!(Instant::now() < until, "they are not told of");
    }
    let under_way = user.run("pub orders.new hi --guaranteed --to never --json").expect(0).json();
    (node, under_way["id"].as_str().unwrap().to_owned())
}

/// Runs it as it succeeds, and returns the documents on stdout.
fn succeed(user: &User, case: &Case) -> Vec<Value> {
    let process = user.start(&format!("{} {} --json", case.verb, case.succeeds));
    if let Some(then) = case.then {
        process.complaint(|_| true);
        user.run(then).expect(0);
    }
    if case.lasts {
        process.line(|_| true);
        process.signal("TERM");
    }
    let finished = process.finish().expect(0);
    documents(&finished)
}

fn documents(finished: &Finished) -> Vec<Value> {
    let documents = Deserializer::from_str(finished.text()).into_iter::<Value>();
    let documents: Result<Vec<_>, _> = documents.collect();
    let documents = documents.unwrap_or_else(|error| panic!("stdout is not JSON: {error}: {finished}"));
    assert!(documents.iter().all(Value::is_object), "not an object: {finished}");
    documents
}

/// That it fails, and says so as JSON.
fn fail(user: &User, line: &str, code: i32) {
    let finished = user.run(line).expect(code);
    documents(&finished);
    let last = json(finished.stderr.lines().last().unwrap_or_else(|| panic!("it does not say why: {finished}")));
    let error = &last["error"];
    assert_eq!(error["exit"], code, "{finished}");
    assert!(error["outcome"].is_string() && error["message"].as_str().is_some_and(|why| !why.is_empty()), "{finished}");
}
