//! Serving a service: as a stream of requests, or with a function.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::incoming::AnswerTo;
use super::local::{By, Calls};
use super::{Incoming, Node, RunningNode};
use crate::config::Limits;
use crate::error::{Closed, SubscribeError};
use crate::mesh::event::{Answer, Command, ProviderId};
use crate::net::handle::{Registered, Served};
use crate::payload::Encoding;
use crate::topic::Service;

/// Types that a service is about and no value of which its provider holds.
type Types<Q, R, E> = PhantomData<fn() -> (Q, R, E)>;

/// How many requests a provider takes at once, unless a number is given.
const ROOM: u32 = 64;

/// A service that is to be served. Await it.
///
/// ```
/// # use pombo::{Node, Service, SubscribeError};
/// # const UPPER: Service<String, String> = Service::new("text.upper");
/// # async fn f(node: Node) -> Result<(), SubscribeError> {
/// let by_function = node.serve(UPPER).concurrency(4).with(|text| async move { Ok(text.to_uppercase()) }).await?;
/// let by_stream = node.serve(UPPER).concurrency(1).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a service is served only when this is awaited"]
pub struct Serve<Q, R, E> {
    by: By<Node, RunningNode>,
    service: Service<Q, R, E>,
    room: u32,
}

impl<Q, R, E: Encoding<Q> + Encoding<R>> Serve<Q, R, E> {
    pub(super) fn new(by: By<Node, RunningNode>, service: Service<Q, R, E>) -> Self {
        Self { by, service, room: ROOM }
    }

    /// How many requests may be open here at once; those beyond it are answered `busy`. 64 without this, at least 1.
    ///
    /// Nothing queues here: whoever is told `busy` goes on to the next provider at once, and if there is none that has room,
    /// gets [`RequestError::Busy`](crate::RequestError::Busy). It did not run. Of one node at most 1,024 requests come at once,
    /// and 10,000 of all nodes together.
    ///
    /// A service may be served several times on one node; the one with the most room gets the next request.
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.room = u32::try_from(requests).unwrap_or(u32::MAX).max(1);
        self
    }

    /// Answers with a function, as many at once as [`concurrency`](Self::concurrency) says.
    ///
    /// When the asker gives up, the function's future is dropped.
    ///
    /// The function sees the question only. The stream of requests that awaiting this without a function gives has their
    /// headers, too, and can attach some to an answer ([`Respond`](crate::Respond)).
    ///
    /// Each call of the function runs in a task of its own. If it panics, the asker gets
    /// [`RequestError::Unknown`](crate::RequestError::Unknown).
    pub fn with<F, A>(self, handler: F) -> ServeWith<Q, R, E, F>
    where
        F: Fn(Q) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, Refusal>> + Send + 'static,
    {
        ServeWith { serve: self, handler }
    }

    async fn set_up(self) -> Result<Provider<Q, R, E>, SubscribeError> {
        let name = self.service.name();
        let node = match self.by {
            By::Own(node) => node,
            By::Running(node) => {
                let source = Source::Running(node.take_calls(name.to_owned(), self.room).await?);
                return Ok(Provider { source, limit: Limits::default().message, types: PhantomData });
            }
        };
        let (registered, served, answer) = node.handle.serve(name.into(), self.room).await?;
        match answer {
            Answer::TooMany { limit } => Err(SubscribeError::TooMany { limit }),
            Answer::Draining => Err(SubscribeError::Draining),
            Answer::Done => {
                let (source, limit) = (Source::Own { registered, served }, node.about.limits.message);
                Ok(Provider { source, limit, types: PhantomData })
            }
            Answer::Reply { .. }
            | Answer::Failed(_)
            | Answer::Providers(_)
            | Answer::Post(_)
            | Answer::Confirmed(_)
            | Answer::Status(_) => Err(Closed.into()),
        }
    }
}

impl<Q, R, E> IntoFuture for Serve<Q, R, E>
where
    Q: 'static,
    R: 'static,
    E: Encoding<Q> + Encoding<R> + 'static,
{
    type Output = Result<Provider<Q, R, E>, SubscribeError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.set_up())
    }
}

impl<Q, R, E> fmt::Debug for Serve<Q, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve").field("service", &self.service).finish_non_exhaustive()
    }
}

/// A stream of requests. Dropping it ends the service on this node.
///
/// Requests that are open then, those taken out of the stream too, end for their askers with
/// [`RequestError::Unknown`](crate::RequestError::Unknown). A question that is not of the service's type is refused and
/// does not show here. The stream ends when the node has ended.
///
/// ```
/// # use futures::StreamExt;
/// # use pombo::{Node, Service};
/// # const LENGTH: Service<String, u64> = Service::new("text.length");
/// # async fn f(node: Node) -> Result<(), Box<dyn std::error::Error>> {
/// let mut requests = node.serve(LENGTH).await?;
/// while let Some(request) = requests.next().await {
///     let length = u64::try_from(request.len())?;
///     request.respond(&length).await?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Provider<Q, R, E> {
    source: Source,
    limit: usize,
    types: Types<Q, R, E>,
}

/// Where calls come from.
enum Source {
    Own {
        registered: Registered<ProviderId>,
        served: mpsc::Receiver<Served>,
    },
    /// Over the socket of a node that runs beside this process.
    Running(Calls),
}

impl Source {
    /// The next call, and where its answer goes.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<(Served, AnswerTo)>> {
        match self {
            Self::Own { registered, served } => {
                let to = || AnswerTo::Node(Arc::clone(&registered.handle));
                served.poll_recv(context).map(|served| served.map(|served| (served, to())))
            }
            Self::Running(calls) => {
                calls.poll_call(context).map(|call| call.map(|(served, answers)| (served, AnswerTo::Running(answers))))
            }
        }
    }
}

impl<Q, R, E> Provider<Q, R, E> {
    /// Takes no more calls but those that are in the stream already.
    pub(super) fn withdraw(&self) {
        if let Source::Own { registered, .. } = &self.source {
            // A node that is gone serves nothing.
            let _gone = registered.handle.tell(Command::Withdraw { provider: registered.id });
        }
    }
}

impl<Q, R, E: Encoding<Q> + Encoding<R>> Stream for Provider<Q, R, E> {
    type Item = Incoming<Q, R, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some((Served { call, gone }, to)) = ready!(self.source.poll(context)) else { return Poll::Ready(None) };
            if let Some(incoming) = Incoming::open(to, call, gone, self.limit) {
                return Poll::Ready(Some(incoming));
            }
        }
    }
}

impl<Q, R, E> fmt::Debug for Provider<Q, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = match &self.source {
            Source::Own { registered, .. } => Some(registered.id),
            Source::Running(_) => None,
        };
        f.debug_struct("Provider").field("id", &id).finish_non_exhaustive()
    }
}

/// A handler's "no": the asker gets [`RequestError::Refused`](crate::RequestError::Refused) with this text.
///
/// Made from a text, or with `?` from any error.
///
/// ```
/// use pombo::Refusal;
/// async fn parse(text: String) -> Result<u64, Refusal> {
///     if text.is_empty() {
///         return Err(Refusal::new("nothing to parse"));
///     }
///     Ok(text.parse()?)
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal(String);

impl Refusal {
    /// Refuses with this text.
    ///
    /// ```
    /// use pombo::Refusal;
    /// let refusal = Refusal::new("the shop is closed");
    /// assert_eq!(refusal.as_str(), "the shop is closed");
    /// ```
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, as the asker gets it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// Not an `Error` itself, so that every error can become one.
impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Refusal").field(&self.0).finish()
    }
}

/// A service with its function, to be started. Await it.
///
/// ```
/// # use pombo::{Node, Refusal, Service, SubscribeError};
/// const DIVIDE: Service<(f64, f64), f64> = Service::new("math.divide");
///
/// async fn divide((dividend, divisor): (f64, f64)) -> Result<f64, Refusal> {
///     if divisor == 0.0 { Err(Refusal::new("cannot divide by zero")) } else { Ok(dividend / divisor) }
/// }
///
/// # async fn f(node: Node) -> Result<(), SubscribeError> {
/// let dividing = node.serve(DIVIDE).with(divide).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a service is served only when this is awaited"]
pub struct ServeWith<Q, R, E, F> {
    serve: Serve<Q, R, E>,
    handler: F,
}

impl<Q, R, E, F, A> IntoFuture for ServeWith<Q, R, E, F>
where
    Q: Send + 'static,
    R: Send + 'static,
    E: Encoding<Q> + Encoding<R> + 'static,
    F: Fn(Q) -> A + Send + Sync + 'static,
    A: Future<Output = Result<R, Refusal>> + Send + 'static,
{
    type Output = Result<Serving, SubscribeError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let runtime = match &self.serve.by {
                By::Own(node) => node.handle.runtime.clone(),
                By::Running(_) => tokio::runtime::Handle::current(),
            };
            let provider = self.serve.set_up().await?;
            let task = runtime.spawn(run(provider, self.handler));
            Ok(Serving { task: task.abort_handle() })
        })
    }
}

impl<Q, R, E, F> fmt::Debug for ServeWith<Q, R, E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeWith").field("serve", &self.serve).finish_non_exhaustive()
    }
}

/// Runs the function for each request, in a task each. The mesh sees to it that there are no more than was said.
async fn run<Q, R, E, F, A>(mut provider: Provider<Q, R, E>, handler: F)
where
    Q: Send + 'static,
    R: Send + 'static,
    E: Encoding<Q> + Encoding<R> + 'static,
    F: Fn(Q) -> A + Send + Sync + 'static,
    A: Future<Output = Result<R, Refusal>> + Send + 'static,
{
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            incoming = provider.next() => {
                let Some(incoming) = incoming else { return };
                let (question, answering) = incoming.split();
                let answer = handler(question);
                running.spawn(async move {
                    tokio::select! {
                        answer = answer => answering.answer(answer),
                        () = answering.cancelled() => {}
                    }
                });
            }
            // Collected as they end. One that panics drops its request, which tells the asker.
            Some(_) = running.join_next() => {}
        }
    }
}

/// A service that is being served with a function. Dropping it ends that.
///
/// Functions that run then are stopped, and their askers get [`RequestError::Unknown`](crate::RequestError::Unknown). To have
/// them finished first, see [`Node::drain`].
///
/// ```
/// # use pombo::{Node, Service};
/// # const UPPER: Service<String, String> = Service::new("text.upper");
/// # async fn f(node: Node) -> Result<(), Box<dyn std::error::Error>> {
/// let serving = node.serve(UPPER).with(|text| async move { Ok(text.to_uppercase()) }).await?;
/// tokio::signal::ctrl_c().await?;
/// drop(serving);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the service ends when this is dropped"]
pub struct Serving {
    task: tokio::task::AbortHandle,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}
