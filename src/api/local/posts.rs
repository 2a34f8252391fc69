//! What a process publishes by a node that runs beside it: over one connection, many under way.

use std::collections::VecDeque;
use std::io;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::debug;

use crate::error::Closed;
use crate::net::local::{Line, Reader, Writer};
use crate::wire::local::{FromNode, Post, ToNode};

/// How many may wait for their answers, and how many bytes to be written.
const UNDER_WAY: usize = 128;
const BYTES: usize = 1024 * 1024;

/// What waits to be written, each with who waits for the answer.
type Queue = mpsc::Receiver<(Post, oneshot::Sender<FromNode>)>;

/// The connection, in a task of its own, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Posts {
    queue: mpsc::Sender<(Post, oneshot::Sender<FromNode>)>,
    task: AbortHandle,
}

impl Posts {
    pub(super) fn new(line: Line) -> Self {
        let (queue, posts) = mpsc::channel(1);
        let work = async move {
            if let Err(error) = run(line, posts).await {
                debug!(%error, "the connection to publish over ended");
            }
        };
        let task = tokio::runtime::Handle::current().spawn(work).abort_handle();
        Self { queue, task }
    }

    /// Publishes, after those before it. `None`: the connection ended, and it may have been published.
    pub(super) async fn post(&self, post: Post) -> Result<Option<FromNode>, Closed> {
        let (answer, answered) = oneshot::channel();
        self.queue.send((post, answer)).await.map_err(|_| Closed)?;
        Ok(answered.await.ok())
    }
}

impl Drop for Posts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(line: Line, mut posts: Queue) -> io::Result<()> {
    let Line { mut reader, mut writer } = line;
    let mut waiting: VecDeque<oneshot::Sender<FromNode>> = VecDeque::new();
    loop {
        let has_room = waiting.len() < UNDER_WAY && writer.waiting() < BYTES;
        tokio::select! {
            Some((post, answer)) = posts.recv(), if has_room => {
                writer.put(&ToNode::Publish(post))?;
                waiting.push_back(answer);
            }
            answer = step(&mut reader, &mut writer) => match answer? {
                Some(answer) => {
                    if let Some(waiting) = waiting.pop_front() {
                        // Who does not wait any more does not mind.
                        drop(waiting.send(answer));
                    }
                }
                None => return Ok(()),
            },
        }
    }
}

/// Writes what waits, and reads meanwhile. Dropping the future loses nothing.
pub(super) async fn step(reader: &mut Reader, writer: &mut Writer) -> io::Result<Option<FromNode>> {
    let writing = async {
        writer.flush().await?;
        std::future::pending::<io::Result<Option<FromNode>>>().await
    };
    tokio::select! {
        read = reader.next() => read,
        written = writing => written,
    }
}
