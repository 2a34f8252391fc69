//! Processes under measurement, from outside. None outlives this one.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::endpoint::{Result, Said, Spec};

/// Within what a process does what it does at once.
const PROMPT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Process {
    what: String,
    // Killed when this is dropped.
    _child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(spec: &Spec) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("endpoint").arg(serde_json::to_string(spec)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("a process without pipes".into());
        };
        let what = format!("{} ({:?})", spec.system.name(), spec.role);
        Ok(Self { what, _child: child, stdin, stdout: BufReader::new(stdout).lines() })
    }

    pub(crate) async fn ready(&mut self) -> Result<()> {
        match self.said(Duration::ZERO).await? {
            Said::Ready => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    pub(crate) async fn tell(&mut self, word: &str) -> Result<()> {
        Ok(self.stdin.write_all(format!("{word}\n").as_bytes()).await?)
    }

    /// What it says, so much later than at once.
    pub(crate) async fn said(&mut self, after: Duration) -> Result<Said> {
        let line = timeout(after + PROMPT, self.stdout.next_line()).await;
        let line = line.map_err(|_| format!("{} says nothing", self.what))??;
        let line = line.ok_or_else(|| format!("{} has ended", self.what))?;
        Ok(serde_json::from_str(&line)?)
    }

    /// The same, but if nothing comes it is asked for what it has.
    pub(crate) async fn said_or_stopped(&mut self, patience: Duration) -> Result<Said> {
        if let Ok(line) = timeout(patience, self.stdout.next_line()).await {
            let line = line?.ok_or_else(|| format!("{} has ended", self.what))?;
            return Ok(serde_json::from_str(&line)?);
        }
        self.tell("stop").await?;
        self.said(Duration::ZERO).await
    }

    /// The most memory that it had.
    pub(crate) async fn peak(&mut self) -> Result<Option<u64>> {
        self.tell("peak").await?;
        loop {
            if let Said::Peak(peak) = self.said(Duration::ZERO).await? {
                return Ok(peak);
            }
        }
    }

    pub(crate) fn unexpected(&self, said: &Said) -> Box<dyn std::error::Error + Send + Sync> {
        format!("{} said {said:?} out of turn", self.what).into()
    }
}
