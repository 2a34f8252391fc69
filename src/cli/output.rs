//! Who writes where: data on stdout, everything else on stderr.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};
use pombo::Outcome;
use serde::Serialize;

use super::args::Common;
use super::failure::Failure;
use super::table::Table;
use super::{json, progress, text};

pub(super) const FAINT: Style = Style::new().dimmed();
pub(super) const STRONG: Style = Style::new().bold();
pub(super) const TOPIC: Style = AnsiColor::Cyan.on_default();
pub(super) const NAME: Style = AnsiColor::Green.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
pub(super) const ERROR: Style = AnsiColor::Red.on_default().bold();

/// The two streams of the process, and how to write on them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    json: bool,
    quiet: bool,
    /// Whether people see what is on stderr for a while only.
    watched: bool,
    stdout_colored: bool,
    stderr_colored: bool,
}

impl Output {
    pub(super) fn new(common: &Common) -> Self {
        Self {
            json: common.json,
            quiet: common.quiet,
            watched: !common.json && !common.quiet && is_screen(&io::stderr()),
            stdout_colored: !common.json && colored(common.color, &io::stdout()),
            stderr_colored: !common.json && colored(common.color, &io::stderr()),
        }
    }

    /// For when no flags are known but `--json`.
    pub(super) fn json() -> Self {
        Self { json: true, quiet: false, watched: false, stdout_colored: false, stderr_colored: false }
    }

    pub(super) fn is_json(self) -> bool {
        self.json
    }

    /// Whether somebody may watch what it does.
    pub(super) fn is_watched(self) -> bool {
        self.watched
    }

    /// A part of a line for stdout, in that style if stdout is colored.
    pub(super) fn paint(self, style: Style, part: impl Display) -> String {
        painted(self.stdout_colored, style, part)
    }

    /// Writes bytes to stdout as they are.
    pub(super) fn data(self, bytes: &[u8]) -> Result<(), Failure> {
        progress::clear();
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| {
            if error.kind() == ErrorKind::BrokenPipe {
                return Failure::unread();
            }
            Failure::new(Outcome::Failed, format!("cannot write to stdout: {error}"))
        })
    }

    /// Writes a line to stdout.
    pub(super) fn line(self, line: impl Display) -> Result<(), Failure> {
        self.data(format!("{line}\n").as_bytes())
    }

    /// Writes a table to stdout.
    pub(super) fn table<const N: usize>(self, table: &Table<N>) -> Result<(), Failure> {
        let mut page = String::new();
        for (index, line) in table.lines().enumerate() {
            page.push_str(&if index == 0 { self.paint(STRONG, line) } else { line });
            page.push('\n');
        }
        self.data(page.as_bytes())
    }

    /// Writes one line of JSON to stdout.
    pub(super) fn object(self, value: &impl Serialize) -> Result<(), Failure> {
        let mut line = Vec::new();
        json::append(&mut line, value)?;
        self.data(&line)
    }

    /// Tells the user something on stderr, unless they want quiet.
    pub(super) fn note(self, line: impl Display) {
        if !self.quiet {
            complain(line);
        }
    }

    /// Tells the user what to do next.
    pub(super) fn hint(self, line: impl Display) {
        self.note(format_args!("  {} {line}", painted(self.stderr_colored, FAINT, "hint:")));
    }

    /// Tells the user that something is not as it should be.
    pub(super) fn warn(self, line: impl Display) {
        self.note(format_args!("{} {line}", painted(self.stderr_colored, WARNING, "warning:")));
    }

    /// Says how it ended, and gives the exit code.
    pub(super) fn exit(self, result: Result<(), Failure>) -> ExitCode {
        let Err(failure) = result else { return ExitCode::SUCCESS };
        if failure.outcome() != Outcome::Ok {
            self.failure(&failure);
        }
        ExitCode::from(failure.outcome().exit_code())
    }

    fn failure(self, failure: &Failure) {
        if self.json {
            let mut line = Vec::new();
            if json::append(&mut line, &json::Failed::from(failure)).is_ok() {
                return complain(String::from_utf8_lossy(&line).trim_end());
            }
        }
        complain(format_args!(
            "{} {}",
            painted(self.stderr_colored, ERROR, "error:"),
            text::escape_lines(failure.message())
        ));
        for hint in failure.hints() {
            complain(format_args!("  {} {hint}", painted(self.stderr_colored, FAINT, "hint:")));
        }
    }
}

/// Whether a stream gets colors: as the flag says, or else the environment, or else if it is a terminal.
pub(super) fn colored(choice: ColorChoice, stream: &impl IsTerminal) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => wanted(|name| std::env::var_os(name)).unwrap_or_else(|| is_screen(stream)),
    }
}

/// What the environment says of colors: <https://no-color.org> first, then <https://bixense.com/clicolors>.
fn wanted(variable: impl Fn(&str) -> Option<OsString>) -> Option<bool> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let zero = |value: OsString| value == "0";
    if set("NO_COLOR").is_some() {
        return Some(false);
    }
    if set("CLICOLOR_FORCE").is_some_and(|value| !zero(value)) {
        return Some(true);
    }
    set("CLICOLOR").is_some_and(zero).then_some(false)
}

/// Whether it is a terminal that does more than print line by line.
pub(super) fn is_screen(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// How many columns and rows the terminal has, if that is one and tells.
pub(super) fn size(stream: &impl Terminal) -> Option<(usize, usize)> {
    #[cfg(unix)]
    {
        let size = rustix::termios::tcgetwinsize(stream).ok()?;
        let (columns, rows) = (usize::from(size.ws_col), usize::from(size.ws_row));
        (columns > 0 && rows > 0).then_some((columns, rows))
    }
    #[cfg(not(unix))]
    {
        let _ = stream;
        None
    }
}

#[cfg(not(unix))]
pub(super) use std::io::IsTerminal as Terminal;
/// What can be asked for its size.
#[cfg(unix)]
pub(super) use std::os::fd::AsFd as Terminal;

fn painted(colored: bool, style: Style, part: impl Display) -> String {
    if colored { format!("{style}{part}{style:#}") } else { part.to_string() }
}

/// Does work that may have nothing to print for long, and ends it when whoever read stdout has gone: `pombo sub '>' |
/// head -1` ends with its first message, not with the second.
pub(super) async fn while_read<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        done = work => done,
        () = reader_gone() => Err(Failure::unread()),
    }
}

/// Returns when the pipe that stdout is has lost its reader. Never, if it is something else.
async fn reader_gone() {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        use tokio::{io::Interest, net::unix::pipe::Sender};
        // Only watched, under a second descriptor: not made non-blocking, and closed without closing stdout.
        let stdout = io::stdout().as_fd().try_clone_to_owned().and_then(Sender::from_owned_fd_unchecked);
        if let Ok(stdout) = stdout
            && stdout.ready(Interest::ERROR).await.is_ok()
        {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Writes a line to stderr. If that fails there is nobody left to tell.
pub(super) fn complain(line: impl Display) {
    let _ = progress::Stderr.write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn color_can_be_forced_and_forbidden() {
        assert!(colored(ColorChoice::Always, &io::stdout()));
        assert!(!colored(ColorChoice::Never, &io::stdout()));
    }

    #[test]
    fn the_environment_is_asked_in_its_order() {
        let with = |variables: &'static [(&str, &str)]| {
            wanted(|name| variables.iter().find(|(one, _)| *one == name).map(|(_, value)| value.into()))
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("NO_COLOR", "1")]), Some(false));
        assert_eq!(with(&[("NO_COLOR", "0")]), Some(false));
        assert_eq!(with(&[("NO_COLOR", "")]), None);
        assert_eq!(with(&[("CLICOLOR_FORCE", "1")]), Some(true));
        assert_eq!(with(&[("CLICOLOR_FORCE", "0")]), None);
        assert_eq!(with(&[("CLICOLOR", "0")]), Some(false));
        assert_eq!(with(&[("CLICOLOR", "1")]), None);
        assert_eq!(with(&[("CLICOLOR", "0"), ("CLICOLOR_FORCE", "1")]), Some(true));
        assert_eq!(with(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]), Some(false));
    }

    #[test]
    fn paint_is_left_out_without_color() {
        assert_eq!(Output::json().paint(STRONG, "a"), "a");
        assert_eq!(painted(true, STRONG, "a"), "\u{1b}[1ma\u{1b}[0m");
    }
}
