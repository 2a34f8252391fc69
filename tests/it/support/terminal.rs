//! Terminals: windows without a screen, and processes in them.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;

use super::process::SOON;

/// How large the windows are.
pub(crate) const COLUMNS: u16 = 80;
pub(crate) const ROWS: u16 = 12;

/// A process whose three streams are a terminal. It is killed when this is dropped.
pub(crate) struct Terminal {
    what: String,
    child: Child,
    shown: Arc<(Mutex<Shown>, Condvar)>,
}

/// What has been written to the terminal.
#[derive(Default)]
struct Shown {
    bytes: Vec<u8>,
    ended: bool,
}

impl Terminal {
    /// Starts a command in a window of its own. `None`, and a line that says so, where there are no terminals.
    pub(crate) fn start(mut command: Command) -> Option<Self> {
        let (ours, theirs) = match pair() {
            Ok(pair) => pair,
            Err(error) => {
                // Past the harness, which keeps quiet about tests that pass.
                let line = format!("SKIPPED: no terminal can be made here: {error}\n");
                let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
                return None;
            }
        };
        let what = format!("{command:?}");
        let stream = || Stdio::from(theirs.try_clone().unwrap());
        command.stdin(stream()).stdout(stream()).stderr(stream());
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        // Its streams are closed here, so that reading ends when the process does.
        drop((command, theirs));
        let shown = Arc::<(Mutex<Shown>, Condvar)>::default();
        let kept = Arc::clone(&shown);
        thread::spawn(move || read(std::fs::File::from(ours), &kept));
        Some(Self { what, child, shown })
    }

    /// Waits until what was written satisfies `wanted`.
    pub(crate) fn wait(&self, wanted: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + SOON;
        let mut shown = self.shown.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let text = String::from_utf8_lossy(&shown.bytes).into_owned();
            if wanted(&text) {
                return text;
            }
            let left = until.checked_duration_since(Instant::now()).filter(|_| !shown.ended);
            let left = left.unwrap_or_else(|| panic!("it is not shown in {}: {text:?}", self.what));
            shown = self.shown.1.wait_timeout(shown, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the window shows what satisfies `wanted`, and returns its lines.
    pub(crate) fn wait_for_screen(&self, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        screen(&self.wait(|text| wanted(&screen(text))))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end. Returns the exit code, and all that was written.
    pub(crate) fn finish(mut self) -> (Option<i32>, String) {
        let written = {
            let (shown, changed) = &*self.shown;
            let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = changed.wait_timeout_while(shown, SOON, |shown| !shown.ended);
            let (shown, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let written = String::from_utf8_lossy(&shown.bytes).into_owned();
            assert!(shown.ended, "not finished: {}: {written:?}", self.what);
            written
        };
        (self.child.wait().unwrap().code(), written)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both ends of a new terminal, which no process controls.
fn pair() -> std::io::Result<(rustix::fd::OwnedFd, rustix::fd::OwnedFd)> {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    let name = rustix::pty::ptsname(&ours, Vec::new())?;
    let theirs = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let size = rustix::termios::Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&theirs, size)?;
    Ok((ours, theirs))
}

/// Reads until nobody can write any more, which Linux says with an error.
fn read(mut window: std::fs::File, shown: &(Mutex<Shown>, Condvar)) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = window.read(&mut buffer) {
        shown.0.lock().unwrap_or_else(PoisonError::into_inner).bytes.extend_from_slice(&buffer[..length]);
        shown.1.notify_all();
    }
    shown.0.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
    shown.1.notify_all();
}

/// The lines that a window shows after all of this, those that scrolled away first. It knows what the command uses, and
/// panics at the rest.
pub(crate) fn screen(text: &str) -> Vec<String> {
    let mut lines = vec![Vec::<char>::new()];
    let (mut row, mut column) = (0_usize, 0_usize);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                lines.resize(lines.len().max(row + 1), Vec::new());
            }
            '\x1b' => {
                match characters.next() {
                    // A sequence that has not come as a whole yet, here and below.
                    None => break,
                    Some(next) => assert_eq!(next, '[', "{text:?}"),
                }
                let parameters: String = characters.clone().take_while(|one| !one.is_ascii_alphabetic()).collect();
                let command = characters.nth(parameters.chars().count());
                match command {
                    None => break,
                    Some('A') => row = row.saturating_sub(parameters.parse().unwrap()),
                    Some('K') => lines[row].truncate(column),
                    Some('J') => {
                        lines[row].truncate(column);
                        lines.truncate(row + 1);
                    }
                    Some('m') => {}
                    Some('h' | 'l') if parameters == "?7" => {}
                    Some(other) => panic!("what is {parameters}{other} in {text:?}?"),
                }
            }
            other => {
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = other;
                column += 1;
            }
        }
    }
    lines.into_iter().map(|line| line.into_iter().collect::<String>().trim_end().to_owned()).collect()
}

#[test]
fn a_window_shows_what_was_written_last() {
    assert_eq!(screen("a\r\nb\r\n"), ["a", "b", ""]);
    assert_eq!(screen("waiting\r\x1b[Kdone\r\n"), ["done", ""]);
    assert_eq!(screen("\x1b[1mone\x1b[0m\r\ntwo\r\nthree\r\n\r\x1b[3Aeins\x1b[K\r\n\x1b[J"), ["eins", ""]);
    assert_eq!(screen("a\r\n\x1b["), ["a", ""]);
    assert_eq!(screen("a\r\n\x1b"), ["a", ""]);
}
