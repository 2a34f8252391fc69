//! The processes of a benchmark, as the one that starts them sees them. None outlives it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pombo::{Multiaddr, Outcome};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use super::START;
use super::clock::{self, Cost};
use super::plan::{Order, Said, Word};
use crate::cli::args::Common;
use crate::cli::failure::Failure;

/// How long a worker may take for what it does at once.
const PROMPT: Duration = Duration::from_secs(10);

/// A running worker. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Worker {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub(super) async fn start(name: String, order: &Order, common: &Common) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new(Outcome::Failed, format!("cannot start the {name}: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["bench", "worker"]).args(vec!["-v"; common.verbose.into()]).args(common.quiet.then_some("-q"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let (stdin, Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new(Outcome::Failed, format!("the {name} has no pipes")));
        };
        let mut worker = Self { name, child, stdin, stdout: BufReader::new(stdout).lines() };
        worker.write(order).await?;
        Ok(worker)
    }

    /// Waits until it is ready, and returns the addresses at which it can be reached.
    pub(super) async fn ready(&mut self) -> Result<Vec<Multiaddr>, Failure> {
        // Its own deadline comes first, and says more.
        let said = self.said(Instant::now() + START + PROMPT, |_| {}).await?;
        let Said::Ready { addresses } = said else { return Err(self.unexpected()) };
        Ok(addresses)
    }

    /// The next that it says other than how far it is.
    pub(super) async fn said(&mut self, deadline: Instant, mut progress: impl FnMut(u64)) -> Result<Said, Failure> {
        loop {
            let Ok(line) = tokio::time::timeout_at(deadline, self.stdout.next_line()).await else {
                return Err(Failure::new(Outcome::Unknown, format!("the {} did not report in time", self.name)));
            };
            let said = line.ok().flatten().and_then(|line| serde_json::from_str(&line).ok());
            match said {
                Some(Said::Progress { count }) => progress(count),
                Some(Said::Failed { exit, message }) => {
                    return Err(Failure::new(outcome(exit), format!("the {}: {message}", self.name)));
                }
                Some(said) => return Ok(said),
                None => return Err(self.gone().await),
            }
        }
    }

    pub(super) async fn tell(&mut self, word: Word) -> Result<(), Failure> {
        self.write(&word).await
    }

    /// What it has cost.
    pub(super) async fn finish(&mut self) -> Result<Cost, Failure> {
        self.tell(Word::Finish).await?;
        let Said::Cost(cost) = self.said(Instant::now() + PROMPT, |_| {}).await? else { return Err(self.unexpected()) };
        Ok(cost)
    }

    /// Lets it say goodbye to the mesh and go.
    pub(super) async fn dismiss(mut self) {
        self.stdin = None;
        // One that does not go is killed.
        let _ = tokio::time::timeout(PROMPT, self.child.wait()).await;
    }

    pub(super) fn unexpected(&self) -> Failure {
        Failure::new(Outcome::Failed, format!("the {} spoke out of turn", self.name))
    }

    async fn write(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(value)
            .map_err(|error| Failure::new(Outcome::Failed, format!("cannot write JSON: {error}")))?;
        line.push(b'\n');
        let Some(stdin) = &mut self.stdin else { return Err(self.gone().await) };
        match tokio::time::timeout(PROMPT, stdin.write_all(&line)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.gone().await),
        }
    }

    /// It ended, or makes no sense, which is its end.
    async fn gone(&mut self) -> Failure {
        let _ = self.child.start_kill();
        let how = match tokio::time::timeout(PROMPT, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not go".to_owned(),
        };
        Failure::new(Outcome::Failed, format!("the {} ended before its time: {how}", self.name))
    }
}

fn outcome(exit: u8) -> Outcome {
    Outcome::ALL.into_iter().find(|outcome| outcome.exit_code() == exit).unwrap_or(Outcome::Failed)
}

/// A directory for the keys and data of the workers, gone when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Result<Self, Failure> {
        let name = format!("pombo-bench-{}-{:x}", std::process::id(), clock::now());
        let path = std::env::temp_dir().join(name);
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        // One that is there already is not ours, and fails.
        let made = builder.create(&path);
        made.map_err(|error| Failure::new(Outcome::Failed, format!("cannot make {}: {error}", path.display())))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_comes_through() {
        assert!(Outcome::ALL.into_iter().all(|one| outcome(one.exit_code()) == one));
        assert_eq!(outcome(255), Outcome::Failed);
    }

    #[test]
    fn nothing_is_left_of_a_scratch_directory() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        std::fs::write(path.join("key"), "").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
