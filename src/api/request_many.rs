//! Calling a service at every node that serves it.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{BoxStream, FuturesUnordered};
use futures::{Stream, StreamExt};
use libp2p::PeerId;
use tokio::time::Instant;

use super::Node;
use super::request::{self, Question, Reply};
use crate::error::{Closed, Outcome, RequestError};
use crate::mesh::event::{Answer, Ask, Command, NodeName};
use crate::mesh::requests::MAX_TIMEOUT;
use crate::mesh::time::Span;
use crate::message::Headers;
use crate::payload::Encoding;
use crate::topic::Service;

/// A request to every provider: the stream of their answers, as they come.
///
/// Options are set before it is polled for the first time; then it is sent.
///
/// ```
/// # use futures::StreamExt;
/// # use pombo::{Node, Outcome, Service};
/// # use std::time::Duration;
/// # const HEALTH: Service<(), String> = Service::new("node.health");
/// # async fn f(node: Node) {
/// let mut answers = node
///     .request_many(HEALTH, &())
///     .max(100)
///     .timeout(Duration::from_secs(2))
///     .header("tenant", "acme")
///     .content_type("application/x-nothing");
/// while let Some(answer) = answers.next().await {
///     match answer {
///         Ok(health) => println!("{}: {}", health.source(), *health),
///         Err(error) if error.outcome() == Outcome::Busy => {}
///         Err(error) => eprintln!("{error}"),
///     }
/// }
/// # }
/// ```
#[must_use = "nothing is asked before this is polled"]
pub struct AskMany<R, E> {
    node: Node,
    service: Arc<str>,
    /// Until it is sent.
    question: Option<Box<Question>>,
    max: usize,
    /// From then on.
    answers: Option<BoxStream<'static, Result<Reply<R>, ProviderError>>>,
    types: PhantomData<fn() -> E>,
}

/// Why a provider gave no answer.
///
/// ```
/// # use pombo::{ProviderError, RequestError};
/// fn complain(error: &ProviderError) {
///     match (error.from, &*error.reason) {
///         (Some(peer), RequestError::Refused { message, .. }) => println!("{peer} refuses: {message}"),
///         (Some(peer), _) => println!("{peer} gave no answer, {}", error.outcome()),
///         (None, reason) => println!("nobody was asked: {reason}"),
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct ProviderError {
    /// The provider. None if nobody was asked: nobody serves it, or the question could not be sent at all.
    pub from: Option<PeerId>,
    /// What went wrong there. In a box, so that results with it stay small.
    pub reason: Box<RequestError>,
}

impl<R, E> AskMany<R, E> {
    pub(crate) fn new<Q>(node: Node, service: &Service<Q, R, E>, question: &Q) -> Self
    where
        E: Encoding<Q> + Encoding<R>,
    {
        let question = Question::new(service, question);
        Self {
            node,
            service: Arc::clone(&question.service),
            question: Some(Box::new(question)),
            max: usize::MAX,
            answers: None,
            types: PhantomData,
        }
    }

    /// Asks that many at most: those first that a request would go to first. All of them without this.
    pub fn max(mut self, providers: usize) -> Self {
        self.max = providers;
        self
    }

    /// How long answers are waited for. The providers are told. 5 s without this, 24 hours at most.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|question| question.timeout = timeout)
    }

    /// Attaches a header. At most [`Headers::MAX_COUNT`], and [`Headers::MAX_BYTES`] together.
    pub fn header(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|question| question.headers.add(name, value))
    }

    /// Attaches headers, after those that are there.
    pub fn headers(self, headers: Headers) -> Self {
        self.with(|question| question.headers.extend(headers))
    }

    /// Says what the question is. Without it, the encoding's own content type.
    pub fn content_type(self, content_type: &str) -> Self {
        self.with(|question| question.content_type = content_type.into())
    }

    fn with(mut self, set: impl FnOnce(&mut Question)) -> Self {
        self.question.as_deref_mut().map(set);
        self
    }
}

/// A request, and those it goes to, each in time.
struct Found {
    ask: Ask,
    providers: Vec<PeerId>,
    deadline: Instant,
}

/// Who is to be asked. Nothing is sent if that cannot be said in time.
async fn find(node: &Node, question: Question, max: usize) -> Result<Found, RequestError> {
    let deadline = Instant::now() + question.timeout.min(Duration::from_micros(MAX_TIMEOUT.0));
    let ask = question.checked(node.about.limits.message)?;
    // Until the first look-around is over, not knowing somebody says little.
    if let Ok(settled) = tokio::time::timeout_at(deadline, node.settled()).await {
        settled?;
    }
    let mut providers = match node.handle.ask(Command::Providers { service: Arc::clone(&ask.service) }).await? {
        Answer::Providers(providers) => providers,
        Answer::Done
        | Answer::TooMany { .. }
        | Answer::Reply { .. }
        | Answer::Failed(_)
        | Answer::Draining
        | Answer::Post(_)
        | Answer::Confirmed(_)
        | Answer::Status(_) => return Err(Closed.into()),
    };
    if providers.is_empty() {
        return Err(RequestError::Nobody { service: ask.service.to_string() });
    }
    providers.truncate(max);
    Ok(Found { ask, providers, deadline })
}

async fn ask_one<R, E: Encoding<R>>(
    node: Node,
    mut ask: Ask,
    from: PeerId,
    deadline: Instant,
) -> Result<Reply<R>, ProviderError> {
    ask.to = Some(NodeName::Peer(from));
    ask.timeout = Span::from(deadline.saturating_duration_since(Instant::now()));
    request::send::<R, E>(&node.handle, ask).await.map_err(|reason| ProviderError::new(Some(from), reason))
}

/// All answers, as they come.
fn answers<R, E>(node: Node, question: Question, max: usize) -> BoxStream<'static, Result<Reply<R>, ProviderError>>
where
    R: 'static,
    E: Encoding<R> + 'static,
{
    let asking = async move {
        match find(&node, question, max).await {
            Ok(Found { ask, providers, deadline }) => providers
                .into_iter()
                .map(|peer| ask_one::<R, E>(node.clone(), ask.clone(), peer, deadline))
                .collect::<FuturesUnordered<_>>()
                .boxed(),
            Err(reason) => futures::stream::once(async { Err(ProviderError::new(None, reason)) }).boxed(),
        }
    };
    futures::stream::once(asking).flatten().boxed()
}

impl<R: 'static, E: Encoding<R> + 'static> Stream for AskMany<R, E> {
    type Item = Result<Reply<R>, ProviderError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(question) = self.question.take() {
            self.answers = Some(answers::<R, E>(self.node.clone(), *question, self.max));
        }
        self.answers.as_mut().map_or(Poll::Ready(None), |answers| answers.poll_next_unpin(context))
    }
}

impl<R, E> fmt::Debug for AskMany<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskMany").field("service", &self.service).field("max", &self.max).finish_non_exhaustive()
    }
}

impl ProviderError {
    fn new(from: Option<PeerId>, reason: RequestError) -> Self {
        Self { from, reason: Box::new(reason) }
    }

    /// Its class: that of the reason.
    ///
    /// ```
    /// # fn f(error: &pombo::ProviderError) {
    /// assert_eq!(error.outcome(), error.reason.outcome());
    /// # }
    /// ```
    pub fn outcome(&self) -> Outcome {
        self.reason.outcome()
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, &*self.reason) {
            (Some(peer), RequestError::Busy { service }) => {
                write!(f, "{peer} is too busy for {service}: it did not run")
            }
            (Some(peer), reason) => write!(f, "{peer}: {reason}"),
            (None, reason) => write!(f, "{reason}"),
        }
    }
}

impl std::error::Error for ProviderError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.reason)
    }
}
