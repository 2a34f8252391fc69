//! Processes, and waiting for what they print.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Within what everything happens that has no stricter deadline of its own.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A running process. It is killed when this is dropped.
pub(crate) struct Process {
    what: String,
    child: Child,
    stdin: Option<ChildStdin>,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) what: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Process {
    /// Starts a command with pipes on all three streams.
    pub(crate) fn start(command: Command) -> Self {
        Self::start_with(command, None)
    }

    /// The same, but its stdout goes elsewhere.
    pub(crate) fn start_with(mut command: Command, elsewhere: Option<Stdio>) -> Self {
        command.stdin(Stdio::piped()).stdout(elsewhere.unwrap_or_else(Stdio::piped)).stderr(Stdio::piped());
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let what = format!("{} {}", command.get_program().display(), arguments.join(" "));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {what}: {error}"));
        // What it holds of the pipes is closed here, so that they end with the process.
        drop(command);
        let stdout: Box<dyn Read + Send> = match child.stdout.take() {
            Some(stdout) => Box::new(stdout),
            None => Box::new(std::io::empty()),
        };
        let (stdout, out) = Lines::of(stdout);
        let (stderr, err) = Lines::of(child.stderr.take().unwrap());
        let stdin = child.stdin.take();
        Self { what, child, stdin, stdout, stderr, readers: vec![out, err] }
    }

    /// Writes to its stdin, and leaves that open.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        // A process that has ended reads no more; how it ended says why.
        let _ = self.stdin.as_mut().unwrap().write_all(bytes);
    }

    /// Ends its stdin.
    pub(crate) fn end_of_input(&mut self) {
        self.stdin = None;
    }

    /// The next line of stdout that satisfies `wanted`, within [`SOON`].
    pub(crate) fn line(&self, wanted: impl Fn(&str) -> bool) -> String {
        self.line_within(SOON, wanted)
    }

    pub(crate) fn line_within(&self, deadline: Duration, wanted: impl Fn(&str) -> bool) -> String {
        self.stdout.next_within(deadline, wanted).unwrap_or_else(|| panic!("no such line within {deadline:?}: {self}"))
    }

    /// The next line of stderr that satisfies `wanted`.
    pub(crate) fn complaint(&self, wanted: impl Fn(&str) -> bool) -> String {
        self.stderr.next_within(SOON, wanted).unwrap_or_else(|| panic!("no such line on stderr: {self}"))
    }

    /// The next line of JSON that is this event of `pombo node --json`.
    pub(crate) fn event(&self, name: &str) -> Value {
        self.event_within(SOON, name)
    }

    pub(crate) fn event_within(&self, deadline: Duration, name: &str) -> Value {
        // A test harness prints lines of its own.
        let is_it = |line: &str| serde_json::from_str(line).is_ok_and(|line: Value| line["event"] == name);
        json(&self.line_within(deadline, is_it))
    }

    /// Waits for its end.
    pub(crate) fn finish(self) -> Finished {
        self.finish_within(SOON)
    }

    pub(crate) fn finish_within(mut self, deadline: Duration) -> Finished {
        self.end_of_input();
        self.ended_within(deadline)
    }

    /// Waits for its end, and leaves its stdin open, which may be what it waits for.
    pub(crate) fn ended(self) -> Finished {
        self.ended_within(SOON)
    }

    fn ended_within(mut self, deadline: Duration) -> Finished {
        let until = Instant::now() + deadline;
        let ended = self.stdout.ended_by(until) && self.stderr.ended_by(until);
        assert!(ended, "not finished within {deadline:?}: {self}");
        let status: ExitStatus = self.child.wait().unwrap();
        let (stdout, stderr) = (self.stdout.bytes(), self.stderr.bytes());
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        Finished { what: self.what.clone(), code: status.code(), stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success(), "cannot signal {self}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            // What the others had to say helps to see why a test failed.
            eprintln!("{self}\n");
        }
        // What it started may hold its pipes open: its readers end when they do, and nobody waits for them.
        self.readers.clear();
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n--- stdout\n{}--- stderr\n{}", self.what, self.stdout, self.stderr)
    }
}

impl Finished {
    /// That it ended with this code, and what it printed.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Its stdout as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Its stdout as one JSON document.
    pub(crate) fn json(&self) -> Value {
        json(self.text())
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stdout = String::from_utf8_lossy(&self.stdout);
        write!(f, "{}\ncode {:?}\n--- stdout\n{stdout}\n--- stderr\n{}", self.what, self.code, self.stderr)
    }
}

/// A line or document of JSON.
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in JSON: {text:?}"))
}

/// What a process has printed on one stream, and what of it has been asked for.
#[derive(Clone, Default)]
pub(crate) struct Lines {
    shared: Arc<(Mutex<Printed>, Condvar)>,
}

#[derive(Default)]
struct Printed {
    bytes: Vec<u8>,
    read: usize,
    ended: bool,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> (Self, JoinHandle<()>) {
        let lines = Self::default();
        let shared = Arc::clone(&lines.shared);
        let reader = thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let mut printed = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                printed.bytes.append(&mut line);
                shared.1.notify_all();
            }
            shared.0.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
            shared.1.notify_all();
        });
        (lines, reader)
    }

    /// The next line that satisfies `wanted`, if it comes in time. Lines before it are gone then.
    pub(crate) fn next_within(&self, deadline: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let until = Instant::now() + deadline;
        self.wait(until, |printed| {
            while let Some(line) = printed.next_line() {
                if wanted(&line) {
                    return Some(line);
                }
            }
            None
        })
    }

    fn ended_by(&self, until: Instant) -> bool {
        self.wait(until, |printed| printed.ended.then_some(())).is_some()
    }

    fn bytes(&self) -> Vec<u8> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).bytes.clone()
    }

    fn wait<T>(&self, until: Instant, mut look: impl FnMut(&mut Printed) -> Option<T>) -> Option<T> {
        let mut printed = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = look(&mut printed) {
                return Some(found);
            }
            let left = until.checked_duration_since(Instant::now()).filter(|_| !printed.ended)?;
            printed = self.shared.1.wait_timeout(printed, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Printed {
    fn next_line(&mut self) -> Option<String> {
        let rest = &self.bytes[self.read..];
        let end = rest.iter().position(|byte| *byte == b'\n').or_else(|| {
            let last = self.ended && !rest.is_empty();
            last.then_some(rest.len())
        })?;
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.read = (self.read + end + 1).min(self.bytes.len());
        Some(line)
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.bytes()))
    }
}
