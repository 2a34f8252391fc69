//! The README as it is: its sessions are run, and what it lists is compared with what there is.
//!
//! A block of commands and their output that follows the comment `<!-- runs -->` is run; after `<!-- runs beside -->` its
//! command goes on while the following blocks run, each by `sh` in a process of its own. The output has to be as printed,
//! but for what differs from run to run: times, names, ids, addresses and numbers stand for any of their kind, a plural for
//! its singular, and a line `…` for any lines.

use pombo::Outcome;

use crate::support::process::{Process, SOON};
use crate::support::user::User;

const README: &str = include_str!("../../README.md");

#[derive(Debug, Default, PartialEq, Eq)]
struct Session {
    /// Goes on while the following ones run.
    beside: bool,
    commands: Vec<Command>,
}

#[derive(Debug, PartialEq, Eq)]
struct Command {
    line: String,
    output: Vec<String>,
}

fn sessions(text: &str) -> Vec<Session> {
    let mut sessions = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let beside = match line {
            "<!-- runs -->" => false,
            "<!-- runs beside -->" => true,
            _ => continue,
        };
        assert_eq!(lines.next(), Some("```console"), "a block of commands follows the comment");
        let mut session = Session { beside, ..Session::default() };
        for line in lines.by_ref().take_while(|line| *line != "```") {
            match (line.strip_prefix("$ "), session.commands.last_mut()) {
                (Some(command), _) => session.commands.push(Command { line: command.to_owned(), output: Vec::new() }),
                (None, Some(command)) => command.output.push(line.to_owned()),
                (None, None) => panic!("output before any command: {line}"),
            }
        }
        sessions.push(session);
    }
    sessions
}

/// Whether a line is as printed in the README, but for what differs from run to run.
fn alike(printed: &str, expected: &str) -> bool {
    let (printed, expected): (Vec<_>, Vec<_>) =
        (printed.split_whitespace().collect(), expected.split_whitespace().collect());
    printed.len() == expected.len()
        && printed.iter().zip(expected).all(|(printed, expected)| kind(printed) == kind(expected))
}

/// What a word is one of.
fn kind(word: &str) -> String {
    let is_name = word.split_once('-').is_some_and(|(first, second)| {
        [first, second].iter().all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase()))
    });
    let word = word.trim_end_matches(',');
    let word = word.strip_suffix('s').unwrap_or(word);
    let is_address = word.parse::<std::net::IpAddr>().is_ok();
    match word {
        id if id.starts_with("12D3KooW") || id.starts_with('…') => "<id>".to_owned(),
        _ if is_address => "<address>".to_owned(),
        _ if is_name => "<name>".to_owned(),
        other => {
            let mut kind = String::new();
            for character in other.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }) {
                if character != '0' || !kind.ends_with('0') {
                    kind.push(character);
                }
            }
            kind
        }
    }
}

/// Waits for these lines, in their order.
fn expect(process: &Process, lines: &[String]) {
    let mut anything = false;
    for expected in lines {
        if expected == "…" {
            anything = true;
            continue;
        }
        let printed = process.stdout.next_within(SOON, |line| alike(line, expected) || !anything);
        let as_expected = printed.as_ref().is_some_and(|line| alike(line, expected));
        assert!(as_expected, "expected: {expected}\nprinted: {printed:?}\n{process}");
        anything = false;
    }
}

/// Starts a command as it stands, with all its output in one stream.
fn start(user: &User, line: &str) -> Process {
    let mut shell = user.command("sh");
    shell.args(["-c", &format!("exec 2>&1; exec {line}")]);
    let mut process = Process::start(shell);
    process.end_of_input();
    process
}

#[test]
fn the_sessions_go_as_printed() {
    let user = User::newcomer();
    let sessions = sessions(README);
    assert!(sessions.len() >= 5, "where are the sessions? {sessions:?}");
    let mut beside: Vec<(Process, &[String])> = Vec::new();
    for session in &sessions {
        for Command { line, output } in &session.commands {
            let process = start(&user, line);
            if session.beside {
                // It has started when its first line is there. The rest may take what the others do.
                let (first, rest) = output.split_at(1);
                expect(&process, first);
                beside.push((process, rest));
            } else {
                expect(&process, output);
                process.finish().expect(0);
            }
        }
    }
    for (process, rest) in beside {
        expect(&process, rest);
    }
}

#[test]
fn a_session_is_compared_line_by_line() {
    let text = "<!-- runs beside -->\n```console\n$ a b\none\n$ c\n```\n```console\n$ d\n```\n";
    let command = |line: &str, output: &[&str]| Command {
        line: line.to_owned(),
        output: output.iter().map(|line| (*line).to_owned()).collect(),
    };
    let expected = Session { beside: true, commands: vec![command("a b", &["one"]), command("c", &[])] };
    assert_eq!(sessions(text), [expected]);

    assert!(alike("06:58:26.909176  demo.hello  …45dvUW8K  hi", "12:31:02.1  demo.hello  …abc   hi"));
    assert!(alike("+ bright-gannet   192.0.2.2  found", "+ ashen-gull   fe80::1  found"));
    assert!(!alike("demo.hello hi", "demo.hello ho"));
    assert!(alike("to 1 peer, now", "to 2 peers, now"));
    assert!(!alike("published 2 B to 1 peer", "published 2 B to 1 peer, and more"));
}

#[test]
fn the_exit_codes_are_those_of_the_library() {
    let listed: Vec<_> = README.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| code")).collect();
    let row = |outcome: Outcome| format!("| {} | {outcome} | {} |", outcome.exit_code(), outcome.meaning());
    assert_eq!(listed, Outcome::ALL.map(row));
}

#[test]
fn the_examples_are_those_that_are_there() {
    let mut there: Vec<_> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    there.sort();
    let line = README.lines().find(|line| line.starts_with("The [examples]")).unwrap();
    let mut listed: Vec<_> = line.split('`').skip(1).step_by(2).filter(|name| !name.contains(' ')).collect();
    listed.sort_unstable();
    assert_eq!(listed, there);
}

#[test]
fn what_it_links_to_is_there() {
    for link in
        README.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.contains("://"))
    {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(link);
        assert!(path.exists(), "{link}");
    }
}
