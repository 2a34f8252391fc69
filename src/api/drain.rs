//! Leaving once everything that was accepted is finished.

use std::fmt;
use std::future::IntoFuture;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

use super::Node;
use crate::error::{Closed, Outcome};
use crate::mesh::event::Command;
use crate::mesh::requests::MAX_TIMEOUT;

/// How long what was accepted may take, unless a time is given.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node that is to finish its work and leave. Await it.
///
/// From the moment when this is polled, whatever is new is refused on every clone of the node with the error `Draining`:
/// publications, subscriptions, requests and services. Handlers that run are no exception: they answer, and neither
/// publish nor ask. Then, in this order:
///
/// 1. The node takes its services and subscriptions out of the roster, so that the others turn elsewhere. A call that
///    comes nevertheless is not run, and its asker goes on to the next provider.
/// 2. Calls that run are answered, and their answers sent. So keep what serves them, the stream or the
///    [`Serving`](crate::Serving), until this has returned: dropping it ends its calls. Requests of this node get their
///    answers or reach their deadlines, and what was published goes out.
/// 3. The node says goodbye and ends, as after [`Node::leave`].
///
/// Messages that came before can be read after that: a subscriber's stream ends when it is empty.
///
/// Dropping the future stops waiting, and what was said under 1 stays; [`Node::leave`] then ends the node.
///
/// ```
/// # use pombo::{DrainError, Node, Service};
/// # use std::time::Duration;
/// # const UPPER: Service<String, String> = Service::new("text.upper");
/// # async fn f(node: Node) -> Result<(), Box<dyn std::error::Error>> {
/// let serving = node.serve(UPPER).with(|text| async move { Ok(text.to_uppercase()) }).await?;
/// tokio::signal::ctrl_c().await?;
/// match node.drain().timeout(Duration::from_secs(10)).await {
///     Err(DrainError::Unfinished { calls, .. }) => eprintln!("{calls} calls were cut off"),
///     other => other?,
/// }
/// drop(serving);
/// # Ok(())
/// # }
/// ```
#[must_use = "a node drains only when this is awaited"]
pub struct Drain<'n> {
    node: &'n Node,
    timeout: Duration,
}

/// A node left with something unfinished.
///
/// ```
/// # use pombo::{DrainError, Outcome};
/// let error = DrainError::Unfinished { calls: 2, requests: 0, messages: 0 };
/// assert_eq!(error.outcome(), Outcome::Partial);
/// assert_eq!(error.to_string(), "the node left with 2 calls, 0 requests and 0 messages unfinished: give it more time");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// The time was over. The node left all the same.
    #[error(
        "the node left with {calls} calls, {requests} requests and {messages} messages unfinished: give it more time"
    )]
    Unfinished {
        /// Calls of others that it was at.
        calls: usize,
        /// Its own requests that were open.
        requests: usize,
        /// Messages that had not gone out yet.
        messages: u64,
    },
    /// The node was gone before, or somebody had it leave meanwhile.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl DrainError {
    /// Its class.
    ///
    /// ```
    /// # use pombo::{Closed, DrainError, Outcome};
    /// assert_eq!(DrainError::from(Closed).outcome(), Outcome::Failed);
    /// ```
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Unfinished { .. } => Outcome::Partial,
            Self::Closed(_) => Outcome::Failed,
        }
    }
}

impl<'n> Drain<'n> {
    pub(crate) fn new(node: &'n Node) -> Self {
        Self { node, timeout: PATIENCE }
    }

    /// How long what was accepted may take. 30 s without this, 24 hours at most.
    ///
    /// When it is over, the node leaves, and this ends with [`DrainError::Unfinished`]: askers whose calls are cut off get
    /// [`RequestError::Unknown`](crate::RequestError::Unknown).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn run(self) -> Result<(), DrainError> {
        let Self { node, timeout } = self;
        let deadline = Instant::now() + timeout.min(Duration::from_micros(MAX_TIMEOUT.0));
        // Before anything else: what is accepted is finished, so nothing must be accepted any more.
        node.handle.press.drain();
        let finishing = async {
            node.handle.ask(Command::Drain).await?;
            node.handle.press.drained().await;
            Ok(())
        };
        let finished = match tokio::time::timeout_at(deadline, finishing).await {
            Ok(finished) => finished,
            Err(_) => Err(unfinished(node).await),
        };
        node.leave().await;
        finished
    }
}

/// What is left of the work.
async fn unfinished(node: &Node) -> DrainError {
    match node.status().await {
        Ok(status) => {
            let messages = node.handle.press.left_over();
            DrainError::Unfinished { calls: status.tables.calls, requests: status.tables.requests, messages }
        }
        Err(closed) => closed.into(),
    }
}

impl<'n> IntoFuture for Drain<'n> {
    type Output = Result<(), DrainError>;
    type IntoFuture = BoxFuture<'n, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Drain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
