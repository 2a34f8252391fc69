//! What people see on a terminal, and programs do not: listings that are watched, the line that says what is waited for,
//! and colors.

use rustix::process::Signal;

use crate::support::terminal::{COLUMNS, ROWS, Terminal, screen};
use crate::support::user::{OWN, User};

/// Starts this line of the shell on a terminal, with these variables.
fn start(user: &User, line: &str, variables: &[(&str, &str)]) -> Option<Terminal> {
    let mut shell = user.command("sh");
    shell.args(["-c", line]).env("TERM", "xterm").envs(variables.iter().copied());
    Terminal::start(shell)
}

/// Runs it to its end, and returns all that was written to the terminal.
fn run(user: &User, line: &str, variables: &[(&str, &str)]) -> Option<String> {
    start(user, line, variables).map(|terminal| terminal.finish().1)
}

#[test]
fn a_watched_listing_is_written_anew_in_its_place() {
    let user = User::new();
    let Some(terminal) = start(&user, "exec pombo peers --watch", &[]) else { return };
    let names = |lines: &[String]| -> Vec<String> {
        let listed = lines.iter().skip_while(|line| !line.starts_with("NAME")).skip(1).filter(|line| !line.is_empty());
        listed.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    };
    // As a whole: a frame may be read in pieces.
    let alone = |lines: &[String]| match lines {
        [head, none, _hint, end] => head.contains("0 peers") && none == "no other node was found" && end.is_empty(),
        _ => false,
    };
    let first = terminal.wait_for_screen(alone);

    let (node, _) = user.node("--name harbour");
    let there = terminal.wait_for_screen(|lines| names(lines) == ["harbour"]);
    assert!(
        there[0].contains("1 peer,") && there.iter().all(|line| line.chars().count() <= COLUMNS.into()),
        "{there:?}"
    );
    // Nothing happens now but time, which is shown.
    terminal.wait_for_screen(|lines| names(lines) == ["harbour"] && lines[0] > there[0]);

    // More than there is room for.
    let more: Vec<_> = (0..ROWS).map(|number| user.node(&format!("--name more-{number:02}"))).collect();
    let full =
        terminal.wait_for_screen(|lines| matches!(lines, [.., more, end] if more == "… and 5 more" && end.is_empty()));
    assert_eq!((full.len(), names(&full).len()), (ROWS.into(), usize::from(ROWS) - 3), "{full:?}");
    for (node, _) in more.into_iter().chain([(node, serde_json::Value::Null)]) {
        node.signal("TERM");
        node.finish().expect(0);
    }
    let last = terminal.wait_for_screen(alone);
    assert_eq!(last.len(), first.len(), "nothing of it is left: {last:?}");
    terminal.signal(Signal::INT);
    assert_eq!(terminal.finish().0, Some(0));
}

#[test]
fn what_is_waited_for_is_said_on_a_terminal_and_goes_again() {
    let user = User::new();
    let waits = "pombo pub demo.hello hi --min-peers 1 --timeout 2s";
    let Some(written) = run(&user, waits, &[]) else { return };
    assert!(written.contains("waiting for 1 peer to subscribe to demo.hello …"), "{written:?}");
    let shown = screen(&written);
    assert_eq!(shown[0], "error: 0 of 1 peers subscribe to demo.hello", "{shown:?}");

    for (line, variables) in [
        (format!("{waits} -q"), [].as_slice()),
        (format!("{waits} --json"), &[]),
        (format!("{waits} 2>&1 | cat"), &[]),
        (waits.to_owned(), &[("TERM", "dumb")]),
    ] {
        let written = run(&user, &line, variables).unwrap();
        assert!(written.contains("0 of 1 peers"), "{line}: {written:?}");
        assert!(!written.contains("waiting") && !written.contains("looking"), "{line}: {written:?}");
    }
}

#[test]
fn a_request_that_takes_long_says_so_above_its_answer() {
    let user = User::new();
    let serving = user.start("serve demo.slow --exec 'sleep 2; echo at last'");
    serving.complaint(|line| line.starts_with("serving"));
    let Some(written) = run(&user, "pombo request demo.slow hi --timeout 1m", &[]) else { return };
    assert!(written.contains("waiting for an answer from demo.slow … 1s of 1m"), "{written:?}");
    let shown = screen(&written);
    assert!(shown[0] == "at last" && shown[1].starts_with("answered by "), "{shown:?}");
}

#[test]
fn what_was_published_is_counted_while_there_is_more() {
    let user = User::new();
    let _sub = user.sub("demo.lines");
    let lines = "for i in 1 2 3 4; do echo line; sleep 1; done | pombo pub demo.lines --lines --min-peers 1";
    let Some(written) = run(&user, lines, &[]) else { return };
    assert!(written.contains("published 3 messages (12 B) on demo.lines"), "{written:?}");
    let shown = screen(&written);
    assert!(shown[0].starts_with("published 4 messages (16 B) on demo.lines: ") && shown[1].is_empty(), "{shown:?}");
}

#[test]
fn colors_are_used_when_they_are_wanted() {
    let user = User::new();
    let (plain, colored) = (false, true);
    for (flags, variables, expected) in [
        ("", [].as_slice(), colored),
        ("| cat", &[], plain),
        ("", &[("NO_COLOR", "1")], plain),
        ("", &[("NO_COLOR", "")], colored),
        ("", &[("TERM", "dumb")], plain),
        ("", &[("CLICOLOR", "0")], plain),
        ("| cat", &[("CLICOLOR", "1")], plain),
        ("| cat", &[("CLICOLOR_FORCE", "1")], colored),
        ("", &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], plain),
        ("--color never", &[("CLICOLOR_FORCE", "1")], plain),
        ("--color always | cat", &[("NO_COLOR", "1")], colored),
        ("", &[("POMBO_COLOR", "never")], plain),
    ] {
        // A listing, help, and an error, which goes to stderr.
        for verb in ["config show", "--help", "pub --no-such-flag 2>&1"] {
            let line = format!("pombo {verb} {flags}");
            let Some(written) = run(&user, &line, variables) else { return };
            assert!(written.contains("pombo") || written.contains("KEY"), "{line}: {written:?}");
            assert_eq!(written.contains("\x1b["), expected, "{variables:?} {line}: {written:?}");
        }
    }
    let written = run(&user, "pombo config show --json", &[]).unwrap();
    assert!(!written.contains('\x1b'), "JSON has no colors: {written:?}");
}

#[test]
fn a_goodbye_that_takes_long_says_how_to_end_it() {
    let user = User::new();
    let (other, _) = user.node("--name other");
    let Some(terminal) = start(&user, &format!("exec pombo sub 'demo.>' {OWN}"), &[]) else { return };
    terminal.wait(|text| text.contains("subscribed to demo.> (1 peer)"));
    // Its goodbye waits for this one's answer.
    other.signal("STOP");
    terminal.signal(Signal::INT);
    let (code, written) = terminal.finish();
    other.signal("CONT");
    assert_eq!(code, Some(0), "{written:?}");
    assert!(written.contains("saying goodbye, Ctrl-C ends it at once …"), "{written:?}");
    assert_eq!(screen(&written)[1], "", "and it is gone: {written:?}");
}
