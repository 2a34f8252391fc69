//! How the command ends when it is not left to end by itself: signals, and pipes that nobody reads.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::support::process::Process;
use crate::support::user::{OWN, User, timed};

/// A verb that goes on, and how it is seen that it is at work: by what it prints, or by a subscriber to what the slow
/// service publishes when it is asked.
struct Lasting {
    line: &'static str,
    at_work: fn(&Process, &Process),
    /// What it exits with when it is asked to stop.
    code: i32,
}

fn says(process: &Process, what: &str) {
    process.complaint(|line| line.contains(what));
}

const LASTING: [Lasting; 8] = [
    Lasting { line: "node --json", at_work: |process, _| drop(process.event("started")), code: 0 },
    Lasting { line: "sub 'demo.>'", at_work: |process, _| says(process, "subscribed to"), code: 0 },
    Lasting { line: "serve demo.echo --echo", at_work: |process, _| says(process, "serving"), code: 0 },
    Lasting { line: "peers --watch", at_work: |process, _| drop(process.line(|_| true)), code: 0 },
    Lasting { line: "topics --watch --json", at_work: |process, _| drop(process.line(|_| true)), code: 0 },
    // Some of it was done.
    Lasting {
        line: "pub demo.hello hi -n 1000 --every 100ms",
        at_work: |process, _| says(process, "published"),
        code: 9,
    },
    // It waits for its input.
    Lasting { line: "pub demo.hello --lines --json", at_work: |process, _| drop(process.line(|_| true)), code: 9 },
    // The request may have run.
    Lasting { line: "request demo.slow hi --timeout 1m", at_work: |_, asked| drop(asked.line(|_| true)), code: 4 },
];

/// Starts each of them, with these flags, beside a node and a service, and hands it over once it is at work.
fn each(user: &User, flags: &str, mut end: impl FnMut(&Lasting, Process)) {
    let (_node, _) = user.node("--name harbour");
    let asked = user.sub("demo.asked --raw");
    let serving = user.start("serve demo.slow --exec 'pombo pub demo.asked now; exec sleep 60'");
    says(&serving, "serving");
    for verb in &LASTING {
        let mut process = user.start(&format!("{} {flags}", verb.line));
        if verb.line.contains("--lines") {
            process.write(b"one\n");
        }
        (verb.at_work)(&process, &asked);
        end(verb, process);
    }
}

#[test]
fn a_signal_ends_every_lasting_verb_politely() {
    let user = User::new();
    for (signal, flags) in [("INT", ""), ("TERM", ""), ("INT", OWN), ("TERM", OWN)] {
        each(&user, flags, |verb, process| {
            process.signal(signal);
            let finished = process.ended().expect(verb.code);
            assert!(!finished.stderr.contains("panicked"), "{finished}");
        });
    }
}

#[test]
fn a_second_signal_ends_every_lasting_verb_at_once() {
    let user = User::new();
    let (slow, _) = user.node("--name slow");
    each(&user, OWN, |_, process| {
        // A goodbye waits for the neighbours, and this one does not answer.
        slow.signal("STOP");
        let id = Pid::from_raw(process.pid().try_into().unwrap()).unwrap();
        // Held while they are sent, so that the second is there before it could have said goodbye for the first.
        for signal in [Signal::STOP, Signal::INT, Signal::TERM, Signal::CONT] {
            rustix::process::kill_process(id, signal).unwrap();
        }
        process.ended().expect(1);
        slow.signal("CONT");
    });
}

#[test]
fn a_verb_that_is_stuck_in_a_full_pipe_ends_with_the_second_signal() {
    let user = User::new();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = user.command("pombo");
    command.args(["sub", "demo.>", "--raw"]);
    let sub = Process::start_with(command, Some(Stdio::from(OwnedFd::from(writer))));
    says(&sub, "subscribed to");
    // Far more than a pipe holds.
    std::fs::write(user.dir().join("large"), vec![b'x'; 1024 * 1024]).unwrap();
    user.run("pub demo.large --file large --min-peers 1").expect(0);
    // It has begun, and so it is stuck.
    reader.read_exact(&mut [0]).unwrap();
    sub.signal("TERM");
    sub.signal("INT");
    let (finished, took) = timed(|| sub.ended());
    finished.expect(1);
    assert!(took < Duration::from_secs(4), "before its patience with a goodbye is over: {took:?}");
    drop(reader);
}

/// A stream that nobody reads any more.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Stdio::from(OwnedFd::from(writer))
}

fn pombo(user: &User, line: &str) -> Command {
    let mut command = user.command("sh");
    command.args(["-c", &format!("exec pombo {line}")]);
    command
}

#[test]
fn who_is_not_read_ends_quietly() {
    let user = User::new();
    let (_node, _) = user.node("--name harbour");
    let serving = user.start("serve demo.fixed --reply 'good morning'");
    says(&serving, "serving");
    for line in [
        "--help",
        "help pub",
        "--version",
        "peers",
        "peers --json",
        "topics --json",
        "services",
        "peers --watch",
        "services --watch --json",
        "id",
        "id --json",
        "config show",
        "config show --json",
        "completions bash",
        "man",
        "node",
        "node --json",
        "sub 'demo.>'",
        "sub 'demo.>' --json",
        "serve demo.echo --echo --json",
        "request demo.fixed hi",
        "request demo.fixed hi --json",
        "pub demo.hello hi --json",
        "pub demo.hello hi -n 1000 --json",
    ] {
        let finished = Process::start_with(pombo(&user, line), Some(closed_pipe())).finish().expect(0);
        for word in ["error", "panicked", "pipe", "hint"] {
            assert!(!finished.stderr.to_lowercase().contains(word), "{finished}");
        }
    }
}

#[test]
fn nobody_has_to_read_what_it_complains_of() {
    let user = User::new();
    for (line, code) in [
        ("pub demo.hello hi", 0),
        ("pub demo..hello hi", 7),
        ("pub --no-such-flag", 2),
        ("peers -vvv", 0),
        ("request demo.nobody hi --timeout 1s", 3),
    ] {
        let mut command = pombo(&user, line);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(closed_pipe()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{line}");
    }
}
