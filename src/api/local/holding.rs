//! A durable subscription that this process holds by a node that runs beside it: what is handed out, and what is said of it.

use std::collections::BTreeMap;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::debug;

use super::millis;
use super::posts::step;
use super::translate::{message, unacknowledged};
use crate::error::AckError;
use crate::mesh::postman::WINDOW;
use crate::net::local::Line;
use crate::wire::local::{FromNode, Handed, ToNode};

type RawMessage = crate::Message<bytes::Bytes>;

/// What is said of messages that were handed out.
#[derive(Clone, Debug)]
pub(in crate::api) struct Verdicts(mpsc::Sender<Verdict>);

#[derive(Debug)]
enum Verdict {
    Acknowledge(u64, oneshot::Sender<Result<(), AckError>>),
    GiveBack(u64, Option<Duration>),
}

impl Verdicts {
    /// Acknowledges it, and returns the answer, or none if the connection ends first.
    pub(in crate::api) async fn acknowledge(&self, number: u64) -> Option<Result<(), AckError>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Verdict::Acknowledge(number, answer)).await.ok()?;
        answered.await.ok()
    }

    pub(in crate::api) fn give_back(&self, number: u64, after: Option<Duration>) {
        // There is room for one of each message that is out. Where the connection has ended they have all gone back.
        let _ended = self.0.try_send(Verdict::GiveBack(number, after));
    }
}

/// A message that was handed out.
pub(in crate::api) struct Out {
    pub(in crate::api) number: u64,
    pub(in crate::api) attempt: u32,
    pub(in crate::api) message: RawMessage,
    pub(in crate::api) verdicts: Verdicts,
}

/// The connection, in a task of its own, which ends when this is dropped.
#[derive(Debug)]
pub(in crate::api) struct Holding {
    handed: mpsc::Receiver<(Handed, RawMessage)>,
    verdicts: Verdicts,
    task: AbortHandle,
}

impl Holding {
    pub(super) fn new(line: Line) -> Self {
        // The node hands out no more than this, and of each there is one verdict.
        let ((desk, handed), (verdicts, said)) = (mpsc::channel(WINDOW), mpsc::channel(WINDOW));
        let work = async move {
            if let Err(error) = run(line, desk, said).await {
                debug!(%error, "the connection to a durable subscription ended");
            }
        };
        let task = tokio::runtime::Handle::current().spawn(work).abort_handle();
        Self { handed, verdicts: Verdicts(verdicts), task }
    }

    pub(in crate::api) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Out>> {
        self.handed.poll_recv(context).map(|next| {
            let (Handed { number, attempt, .. }, message) = next?;
            Some(Out { number, attempt, message, verdicts: self.verdicts.clone() })
        })
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    line: Line,
    desk: mpsc::Sender<(Handed, RawMessage)>,
    mut said: mpsc::Receiver<Verdict>,
) -> io::Result<()> {
    let Line { mut reader, mut writer } = line;
    let mut waiting: BTreeMap<u64, oneshot::Sender<Result<(), AckError>>> = BTreeMap::new();
    loop {
        tokio::select! {
            Some(verdict) = said.recv() => match verdict {
                Verdict::Acknowledge(number, answer) => {
                    waiting.insert(number, answer);
                    writer.put(&ToNode::Acknowledge { number, extensions: Vec::new() })?;
                }
                Verdict::GiveBack(number, after) => {
                    let after = after.map(millis);
                    writer.put(&ToNode::GiveBack { number, after, extensions: Vec::new() })?;
                }
            },
            record = step(&mut reader, &mut writer) => match record? {
                Some(FromNode::Handed(handed)) => {
                    let message = message(handed.message.clone()).ok_or(io::ErrorKind::InvalidData)?;
                    desk.try_send((handed, message)).map_err(io::Error::other)?;
                }
                Some(FromNode::Acknowledged { number, failure, .. }) => {
                    if let Some(answer) = waiting.remove(&number) {
                        // Who does not wait any more does not mind.
                        let _gone = answer.send(failure.map_or(Ok(()), |failure| Err(unacknowledged(failure))));
                    }
                }
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                None => return Ok(()),
            },
        }
    }
}
