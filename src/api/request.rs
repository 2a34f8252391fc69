//! Calling a service.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use libp2p::PeerId;

use super::local::{By, millis};
use super::size::check;
use super::{Node, RunningNode};
use crate::config::Limits;
use crate::error::{Closed, RequestError};
use crate::mesh::event::{self, Answer, AskFailure, Command, NodeName};
use crate::mesh::time::Span;
use crate::message::Headers;
use crate::net::handle::Handle;
use crate::payload::{Encoding, PayloadError};
use crate::topic::Service;
use crate::wire::rpc::{self, Call, ReplyStatus};

/// How long an answer is waited for, unless a time is given.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request that is to be sent. Await it.
///
/// Dropping the future cancels the request at the provider.
///
/// ```
/// # use pombo::{Node, RequestError, Service};
/// # use std::time::Duration;
/// # const DIVIDE: Service<(f64, f64), f64> = Service::new("math.divide");
/// # async fn f(node: Node) -> Result<(), RequestError> {
/// let quotient = node
///     .request(DIVIDE, &(22.0, 7.0))
///     .to("calculator")
///     .timeout(Duration::from_secs(2))
///     .header("tenant", "acme")
///     .content_type("application/x-pair")
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a request is sent only when this is awaited"]
pub struct Ask<'n, R, E> {
    by: By<&'n Node, &'n RunningNode>,
    question: Question,
    to: Option<String>,
    types: PhantomData<fn() -> (R, E)>,
}

impl<'n, R, E> Ask<'n, R, E> {
    pub(super) fn new<Q>(by: By<&'n Node, &'n RunningNode>, service: &Service<Q, R, E>, question: &Q) -> Self
    where
        E: Encoding<Q> + Encoding<R>,
    {
        Self { by, question: Question::new(service, question), to: None, types: PhantomData }
    }

    /// Asks this node and no other: its name, or its peer id.
    ///
    /// If it is not there or does not serve the service, the request ends with [`RequestError::NoNode`]. Names are not
    /// unique: if several nodes of that name serve it, it ends with [`RequestError::Ambiguous`].
    pub fn to(mut self, node: impl Into<String>) -> Self {
        self.to = Some(node.into());
        self
    }

    /// How long the answer is waited for, all providers together. The provider is told. 5 s without this, 24 hours at
    /// most.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.question.timeout = timeout;
        self
    }

    /// Attaches a header. At most [`Headers::MAX_COUNT`], and [`Headers::MAX_BYTES`] together.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.question.headers.add(name, value);
        self
    }

    /// Attaches headers, after those that are there.
    pub fn headers(mut self, headers: Headers) -> Self {
        self.question.headers.extend(headers);
        self
    }

    /// Says what the question is. Without it, the encoding's own content type.
    pub fn content_type(mut self, content_type: &str) -> Self {
        self.question.content_type = content_type.into();
        self
    }

    async fn send(self) -> Result<Reply<R>, RequestError>
    where
        E: Encoding<R>,
    {
        let node = match self.by {
            By::Own(node) => node,
            By::Running(node) => return self.hand_to(node).await,
        };
        let mut ask = self.question.checked(node.about.limits.message)?;
        ask.to = self.to.as_deref().map(|text| match text.parse() {
            Ok(peer) => NodeName::Peer(peer),
            Err(_) => NodeName::Name(text.to_owned()),
        });
        send::<R, E>(&node.handle, ask).await
    }

    async fn hand_to(self, node: &RunningNode) -> Result<Reply<R>, RequestError>
    where
        E: Encoding<R>,
    {
        let timeout = millis(self.question.timeout);
        let event::Ask { service, content_type, headers, body, .. } =
            self.question.checked(Limits::default().message)?;
        let call = Call {
            call: 0,
            service: service.as_ref().to_owned(),
            timeout,
            content_type: content_type.as_ref().to_owned(),
            headers,
            body,
            extensions: Vec::new(),
        };
        let (from, reply) = node.call(self.to, call).await?;
        read::<R, E>(&service, from, reply)
    }
}

/// What is asked, whoever is asked.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) service: Arc<str>,
    body: Result<Bytes, PayloadError>,
    pub(super) content_type: Arc<str>,
    pub(super) headers: Headers,
    pub(super) timeout: Duration,
}

impl Question {
    /// Encodes it at once; an error of that comes when it is checked.
    pub(super) fn new<Q, R, E: Encoding<Q>>(service: &Service<Q, R, E>, question: &Q) -> Self {
        Self {
            service: service.name().into(),
            body: E::encode(question),
            content_type: E::CONTENT_TYPE.into(),
            headers: Headers::default(),
            timeout: PATIENCE,
        }
    }

    /// As a request to whomever. Nothing that is too large gets any further.
    pub(super) fn checked(self, limit: usize) -> Result<event::Ask, RequestError> {
        let Self { service, body, content_type, headers, timeout } = self;
        let body = body.map_err(RequestError::Encode)?;
        check(&body, &headers, &content_type, limit)?;
        Ok(event::Ask { service, to: None, timeout: Span::from(timeout), content_type, headers, body })
    }
}

/// Has the mesh ask, and waits for the answer. Dropping the future cancels the request.
pub(super) async fn send<R, E: Encoding<R>>(handle: &Arc<Handle>, ask: event::Ask) -> Result<Reply<R>, RequestError> {
    let (service, to) = (Arc::clone(&ask.service), ask.to.clone());
    match handle.ask(Command::Request(ask)).await? {
        Answer::Reply { from, reply } => read::<R, E>(&service, from, reply),
        Answer::Failed(failure) => Err(failed(failure, service.to_string(), to)),
        Answer::Draining => Err(RequestError::Draining),
        Answer::Done
        | Answer::TooMany { .. }
        | Answer::Providers(_)
        | Answer::Confirmed(_)
        | Answer::Post(_)
        | Answer::Status(_) => Err(Closed.into()),
    }
}

fn read<R, E: Encoding<R>>(service: &str, from: PeerId, reply: rpc::Reply) -> Result<Reply<R>, RequestError> {
    let service = || service.to_owned();
    match reply.status {
        ReplyStatus::Ok => {
            let payload = E::decode(&reply.body).map_err(RequestError::Decode)?;
            Ok(Reply { source: from, content_type: reply.content_type, headers: reply.headers, payload })
        }
        ReplyStatus::Refused => {
            Err(RequestError::Refused { from, message: String::from_utf8_lossy(&reply.body).into_owned() })
        }
        ReplyStatus::Busy => Err(RequestError::Busy { service: service() }),
        ReplyStatus::NoService => Err(RequestError::Nobody { service: service() }),
        ReplyStatus::Unanswered => Err(RequestError::Unknown { service: service() }),
        ReplyStatus::Denied => Err(RequestError::Denied { service: service() }),
    }
}

fn failed(failure: AskFailure, service: String, to: Option<NodeName>) -> RequestError {
    let name = |to| match to {
        Some(NodeName::Peer(peer)) => PeerId::to_string(&peer),
        Some(NodeName::Name(name)) => name,
        None => String::new(),
    };
    match failure {
        AskFailure::Nobody => RequestError::Nobody { service },
        AskFailure::NoNode => RequestError::NoNode { node: name(to), service },
        AskFailure::Ambiguous { nodes } => RequestError::Ambiguous { node: name(to), service, nodes },
        AskFailure::Busy => RequestError::Busy { service },
        AskFailure::Unknown => RequestError::Unknown { service },
        AskFailure::NotSent => RequestError::NotSent { service },
        AskFailure::TooMany { limit } => RequestError::TooMany { limit },
    }
}

impl<'n, R: 'static, E: Encoding<R> + 'static> IntoFuture for Ask<'n, R, E> {
    type Output = Result<Reply<R>, RequestError>;
    type IntoFuture = BoxFuture<'n, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl<R, E> fmt::Debug for Ask<'_, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").field("service", &self.question.service).finish_non_exhaustive()
    }
}

/// The answer to a request. Dereferences to what the provider answered.
///
/// ```
/// # use pombo::{Node, RequestError, Service};
/// # const UPPER: Service<String, String> = Service::new("text.upper");
/// # async fn f(node: Node) -> Result<(), RequestError> {
/// let reply = node.request(UPPER, &"pombo".to_owned()).await?;
/// println!("{} from {}: {}, {:?}", *reply, reply.source(), reply.content_type(), reply.headers());
/// let upper: String = reply.into_payload();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Reply<R> {
    source: PeerId,
    content_type: String,
    headers: Headers,
    payload: R,
}

impl<R> Reply<R> {
    /// The node that answered.
    pub fn source(&self) -> PeerId {
        self.source
    }

    /// What the answer is, as the provider says.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// What the provider attached.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The answer, taken out.
    pub fn into_payload(self) -> R {
        self.payload
    }
}

impl<R> Deref for Reply<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.payload
    }
}
