//! What a process serves by a node that runs beside it: the calls that come, and their answers.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tracing::debug;

use super::posts::step;
use crate::mesh::event::{CallId, IncomingCall};
use crate::mesh::time::Span;
use crate::net::handle::{Gone, Served};
use crate::net::local::Line;
use crate::wire::local::{FromNode, ToNode};
use crate::wire::rpc::Reply;

/// As many calls as a provider can be at.
const MOST: u32 = 1 << 16;

/// Where the answers to calls go.
pub(in crate::api) type Answers = mpsc::Sender<(CallId, Reply)>;

/// The connection, in a task of its own, which ends when this is dropped.
#[derive(Debug)]
pub(in crate::api) struct Calls {
    served: mpsc::Receiver<Served>,
    answers: Answers,
    task: AbortHandle,
}

impl Calls {
    pub(super) fn new(line: Line, room: u32, finishing: watch::Receiver<bool>) -> Self {
        // Of each call there is one answer, so neither is ever full.
        let room = usize::try_from(room.clamp(1, MOST)).unwrap_or(usize::MAX);
        let ((desk, served), (answers, answered)) = (mpsc::channel(room), mpsc::channel(room));
        let work = async move {
            let mut connection = Connection { line, desk, open: BTreeMap::new() };
            if let Err(error) = connection.run(answered, finishing).await {
                debug!(%error, "the connection to serve over ended");
            }
        };
        let task = tokio::runtime::Handle::current().spawn(work).abort_handle();
        Self { served, answers, task }
    }

    pub(in crate::api) fn poll_call(&mut self, context: &mut Context<'_>) -> Poll<Option<(Served, Answers)>> {
        self.served.poll_recv(context).map(|served| served.map(|served| (served, self.answers.clone())))
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns when services are to be finished.
async fn finish(finishing: &mut watch::Receiver<bool>) -> Result<(), watch::error::RecvError> {
    finishing.wait_for(|finish| *finish).await.map(|_| ())
}

struct Connection {
    line: Line,
    desk: mpsc::Sender<Served>,
    open: BTreeMap<u64, Arc<Gone>>,
}

impl Connection {
    async fn run(
        &mut self,
        mut answers: mpsc::Receiver<(CallId, Reply)>,
        mut finishing: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let mut told = false;
        loop {
            let Line { reader, writer } = &mut self.line;
            tokio::select! {
                Some((CallId(call), reply)) = answers.recv() => {
                    self.open.remove(&call);
                    writer.put(&ToNode::Reply { call, reply })?;
                }
                Ok(()) = finish(&mut finishing), if !told => {
                    told = true;
                    writer.put(&ToNode::Finish { extensions: Vec::new() })?;
                }
                record = step(reader, writer) => {
                    if !record?.is_some_and(|record| self.heard(record)) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Does what the node says, and returns whether there is more to come.
    fn heard(&mut self, record: FromNode) -> bool {
        match record {
            FromNode::Call { from, call } => {
                let Some(from) = from.peer() else { return false };
                let gone = Arc::new(Gone::default());
                self.open.insert(call.call, Arc::clone(&gone));
                let (id, timeout) = (CallId(call.call), Span::millis(call.timeout));
                let (content_type, headers, body) = (call.content_type.into(), call.headers, call.body);
                let call = IncomingCall { id, from, timeout, content_type, headers, body };
                self.desk.try_send(Served { call, gone }).is_ok()
            }
            FromNode::Stop { call, .. } => {
                if let Some(gone) = self.open.remove(&call) {
                    gone.tell();
                }
                true
            }
            FromNode::Welcome { .. }
            | FromNode::Busy { .. }
            | FromNode::Done { .. }
            | FromNode::Published { .. }
            | FromNode::Message(_)
            | FromNode::Lagged { .. }
            | FromNode::Reply { .. }
            | FromNode::Peer(_)
            | FromNode::Changed { .. }
            | FromNode::Failed { .. }
            | FromNode::Accepted { .. }
            | FromNode::Handed(_)
            | FromNode::Acknowledged { .. }
            | FromNode::Total { .. }
            | FromNode::Notice(_)
            | FromNode::Waiting(_)
            | FromNode::Durable(_)
            | FromNode::Known(_) => false,
        }
    }
}

impl Drop for Connection {
    /// Nobody gets an answer from now on.
    fn drop(&mut self) {
        self.open.values().for_each(|gone| gone.tell());
    }
}
