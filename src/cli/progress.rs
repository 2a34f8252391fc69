//! The line on stderr that says what a verb waits for. It is for people: it is there only if stderr is a terminal, comes
//! only once something takes long, and goes before anything else is written.
//!
//! All that is written to stderr goes through here therefore.

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::output::{self, Output};
use super::text;

/// What is over before that needs no line.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a line that counts is written anew.
const EVERY: Duration = Duration::from_millis(100);

/// To the start of the line, and what stands there away.
const CLEAR: &str = "\r\x1b[K";
/// What is too long for the terminal after all, as wide characters are, is cut, so that it is one line.
const CUT: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// Whether the line stands there. Looked at and changed by whoever has stderr locked.
static SHOWN: AtomicBool = AtomicBool::new(false);
/// How much else was written to stderr.
static OTHERS: AtomicU64 = AtomicU64::new(0);

/// Where everything but the line is written: the line goes first.
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr().lock();
        wipe(&mut stderr);
        OTHERS.fetch_add(1, Ordering::Relaxed);
        // If it fails, nobody is left to tell, and whoever logs would tell of it on stderr.
        let _ = stderr.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes the line away, before something is written elsewhere on the same terminal.
pub(super) fn clear() {
    wipe(&mut io::stderr().lock());
}

/// A number that is another one once something was written to stderr.
pub(super) fn others() -> u64 {
    OTHERS.load(Ordering::Relaxed)
}

fn wipe(stderr: &mut impl Write) {
    if SHOWN.swap(false, Ordering::Relaxed) {
        let _ = stderr.write_all(CLEAR.as_bytes());
    }
}

fn show(line: impl Display) {
    let mut stderr = io::stderr().lock();
    let columns = output::size(&stderr).map_or(usize::MAX, |(columns, _)| columns);
    let line = line.to_string();
    let line = text::fit(&line, columns);
    SHOWN.store(true, Ordering::Relaxed);
    let _ = stderr.write_all(format!("{CLEAR}{CUT}{line}{WRAP}").as_bytes());
}

/// Takes the line away when it is dropped, however the work ends.
struct Shown;

impl Drop for Shown {
    fn drop(&mut self) {
        clear();
    }
}

/// Does work. If it takes long, people read what is waited for, for how long already, and how long at most.
pub(super) async fn waiting<T>(output: Output, what: &str, most: Option<Duration>, work: impl Future<Output = T>) -> T {
    if !output.is_watched() {
        return work.await;
    }
    let started = Instant::now();
    let mut ticks = tokio::time::interval_at(started + PATIENCE, PATIENCE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut work, _shown) = (pin!(work), Shown);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = ticks.tick() => show(waits(what, started.elapsed(), most)),
        }
    }
}

fn waits(what: &str, elapsed: Duration, most: Option<Duration>) -> String {
    let whole = |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs()));
    match (elapsed.as_secs(), most) {
        (0, _) => format!("{what} …"),
        (_, None) => format!("{what} … {}", whole(elapsed)),
        (_, Some(most)) => format!("{what} … {} of {}", whole(elapsed), whole(most + Duration::from_millis(500))),
    }
}

/// A line that counts, for work that says itself how far it is.
pub(super) struct Meter {
    output: Output,
    next: Instant,
}

impl Meter {
    pub(super) fn new(output: Output) -> Self {
        Self { output, next: Instant::now() + PATIENCE }
    }

    /// Says how far it is, if the line is old enough.
    pub(super) fn show<D: Display>(&mut self, how_far: impl FnOnce() -> D) {
        if self.output.is_watched() && Instant::now() >= self.next {
            show(how_far());
            self.next = Instant::now() + EVERY;
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_for_and_how_long() {
        let after = |seconds: f64, most| waits("looking", Duration::from_secs_f64(seconds), most);
        assert_eq!(after(0.5, None), "looking …");
        assert_eq!(after(1.5, None), "looking … 1s");
        assert_eq!(after(61.0, Some(Duration::from_millis(119_600))), "looking … 1m 1s of 2m");
    }

    #[test]
    fn nothing_is_taken_away_that_is_not_there() {
        let mut terminal = Vec::new();
        wipe(&mut terminal);
        assert!(terminal.is_empty());
    }
}
