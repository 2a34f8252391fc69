//! Users of the machine: each with data and a registry of its own.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::Turn;
use super::process::{Finished, Process, SOON};

/// What has a verb start a node of its own where one runs that could do its work.
pub(crate) const OWN: &str = "--listen /ip4/127.0.0.1/tcp/0";

/// A new user of this machine, who has never run pombo.
#[derive(Debug)]
pub(crate) struct User {
    dir: TempDir,
    runtime: PathBuf,
    mdns: bool,
    /// What comes before the command: how to run it on another host.
    prefix: Vec<String>,
    _turn: Option<Turn>,
}

impl User {
    /// A user whose nodes find each other in the registry only, so that tests side by side do not see each other.
    pub(crate) fn new() -> Self {
        Self::made(Some(Turn::shared()), false)
    }

    /// A user with nothing set up or switched off, and the machine to itself.
    pub(crate) fn newcomer() -> Self {
        Self::made(Some(Turn::alone()), true)
    }

    /// A user of another host, where commands are run with this prefix.
    pub(crate) fn at(prefix: Vec<String>) -> Self {
        Self { prefix, ..Self::made(None, true) }
    }

    /// Another user of the machine, with a mesh of their own, but in the same registry.
    pub(crate) fn neighbour(&self) -> Self {
        Self { runtime: self.runtime.clone(), ..Self::made(None, self.mdns) }
    }

    fn made(turn: Option<Turn>, mdns: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = dir.path().join("runtime");
        DirBuilder::new().mode(0o700).create(&runtime).unwrap();
        Self { dir, runtime, mdns, prefix: Vec::new(), _turn: turn }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A program run by this user, who has a clean environment and `pombo` on the path.
    pub(crate) fn command(&self, program: &str) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_pombo"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut words = self.prefix.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).current_dir(self.dir()).env_clear();
        command.env("PATH", format!("{}:{path}", binary.parent().unwrap().display()));
        command.env("HOME", self.dir()).env("XDG_RUNTIME_DIR", &self.runtime);
        command.env("XDG_DATA_HOME", self.dir().join("data"));
        if let Ok(filter) = std::env::var("POMBO_LOG") {
            command.env("POMBO_LOG", filter);
        }
        if !self.mdns {
            command.env("POMBO_NO_MDNS", "1");
        }
        command
    }

    /// The sockets of nodes that run, or died.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.runtime.join("pombo")).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|ending| ending == "sock")).collect()
    }

    /// Starts `pombo` with these words, which are split as a shell would.
    pub(crate) fn start(&self, line: &str) -> Process {
        let mut command = self.command("pombo");
        command.args(words(line));
        Process::start(command)
    }

    /// Runs `pombo` to its end, with nothing to read.
    pub(crate) fn run(&self, line: &str) -> Finished {
        self.start(line).finish()
    }

    /// Starts `pombo node --json` with these flags, and waits until it has started. Its first line is returned too.
    pub(crate) fn node(&self, flags: &str) -> (Process, Value) {
        let node = self.start(&format!("node --json {flags}"));
        let started = node.event("started");
        (node, started)
    }

    /// Starts a subscriber, and waits until its subscription is in force.
    pub(crate) fn sub(&self, line: &str) -> Process {
        let sub = self.start(&format!("sub {line}"));
        sub.complaint(|line| line.starts_with("subscribed to"));
        sub
    }

    /// Asks for the peers until there are so many.
    pub(crate) fn wait_for_peers(&self, wanted: usize, flags: &str) -> Vec<Value> {
        let until = Instant::now() + SOON;
        loop {
            let mut listing = self.run(&format!("peers --json {flags}")).expect(0).json();
            let items = listing["items"].as_array_mut().map(std::mem::take).expect("a listing has items");
            if items.len() == wanted {
                return items;
            }
            let names: Vec<_> = items.iter().map(|item| item["name"].to_string()).collect();
            assert!(Instant::now() < until, "{} instead of {wanted} peers: {}", items.len(), names.join(" "));
        }
    }
}

/// Splits a line into words. Single quotes keep words together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

/// How long `work` takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let done = work();
    (done, started.elapsed())
}
