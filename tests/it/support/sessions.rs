//! Pages as they are: their sessions are run.
//!
//! A block of commands and their output that follows the comment `<!-- runs -->` is run; after `<!-- runs beside -->` its
//! command goes on until the end of the section, each by `sh` in a process of its own. The output has to be as printed, but
//! for what differs from run to run: times, names, ids, addresses and numbers stand for any of their kind, a plural for its
//! singular, a line `…` for any lines, and a word `…` for the rest of its line.
//!
//! Each section, from one `## ` to the next, has a user of its own. What the commands read is made by the page as well.

use super::process::{Process, SOON};
use super::user::User;

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

/// Runs the sessions of a page, each section's as a user made by `user`. Returns how many there were.
pub(crate) fn run(page: &str, user: impl Fn() -> User) -> usize {
    let sections = page.split("\n## ").map(sessions).filter(|sessions| !sessions.is_empty());
    sections.map(|sessions| run_section(&sessions, &user())).sum()
}

fn run_section(sessions: &[Session], user: &User) -> usize {
    let mut beside: Vec<(Process, &[String])> = Vec::new();
    for session in sessions {
        for Command { line, output } in &session.commands {
            let process = start(user, line, session.beside);
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
    // All of them go on until then: one may do the work of another.
    for (process, rest) in &beside {
        expect(process, rest);
    }
    sessions.len()
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

/// Starts a command as it stands, with all its output in one stream. One that goes on takes the place of its shell, so that
/// it ends with it.
fn start(user: &User, line: &str, beside: bool) -> Process {
    let mut shell = user.command("sh");
    let exec = if beside { "exec " } else { "" };
    shell.args(["-c", &format!("exec 2>&1; {exec}{line}")]);
    let mut process = Process::start(shell);
    process.end_of_input();
    process
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

/// Whether a line is as printed on the page, but for what differs from run to run.
fn alike(printed: &str, expected: &str) -> bool {
    let mut printed = words(printed).map(kind);
    let mut expected = words(expected);
    loop {
        match (printed.next(), expected.next()) {
            (_, Some("…")) | (None, None) => return true,
            (Some(printed), Some(expected)) if printed == kind(expected) => {}
            (_, _) => return false,
        }
    }
}

/// The words of a line; what is quoted, as in JSON, is one by itself.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|character: char| character.is_whitespace() || character == '"').filter(|word| !word.is_empty())
}

/// What a word is one of.
fn kind(word: &str) -> String {
    let is_name = word.split_once('-').is_some_and(|(first, second)| {
        [first, second].iter().all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase()))
    });
    let is_id = word.len() >= 16 && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let word = word.trim_end_matches(',');
    let is_address = word.parse::<std::net::IpAddr>().is_ok();
    match word {
        id if id.starts_with("12D3KooW") || id.starts_with('…') || is_id => "<id>".to_owned(),
        "ms" | "s" => "<unit>".to_owned(),
        _ if is_address => "<address>".to_owned(),
        _ if is_name => "<name>".to_owned(),
        other => {
            let other = other.strip_suffix('s').unwrap_or(other);
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
    assert!(alike("in 1.24 s", "in 5.4 ms"));
    assert!(!alike("published 2 B to 1 peer", "published 2 B to 1 peer, and more"));
    assert!(!alike("published 2 B to 1 peer, and more", "published 2 B to 1 peer"));
    assert!(alike("published 2 B to 1 peer", "published 3 B …"));
    let id = |id: &str| format!(r#"{{"topic":"demo.hello","id":"{id}","bytes":2}}"#);
    assert!(alike(&id("00112233445566778899aabbccddeeff"), &id("ffeeddccbbaa99887766554433221100")));
    assert!(!alike(&id("00112233445566778899aabbccddeeff"), &id("none")));
}
