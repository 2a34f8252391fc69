//! One request, at the provider.

use std::borrow::Cow;
use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use libp2p::PeerId;

use super::Refusal;
use super::local::Answers;
use super::size::check;
use crate::error::Closed;
use crate::mesh::event::{CallId, Command, IncomingCall};
use crate::message::Headers;
use crate::net::handle::{Gone, Handle};
use crate::payload::{Encoding, PayloadError};
use crate::wire::rpc::{Reply, ReplyStatus};

/// A request that waits for its answer. Dereferences to the question.
///
/// Dropping it unanswered tells the asker at once that there will be no answer.
///
/// ```
/// # use futures::StreamExt;
/// # use pombo::{Node, Service};
/// # const UPPER: Service<String, String> = Service::new("text.upper");
/// # async fn f(node: Node) -> Result<(), Box<dyn std::error::Error>> {
/// let mut requests = node.serve(UPPER).await?;
/// while let Some(request) = requests.next().await {
///     println!("{} sent {}, waits {:?}", request.source(), request.content_type(), request.timeout());
///     if request.headers().get("tenant").is_none() {
///         request.refuse("whose request is this?").await?;
///     } else {
///         let answer = request.to_uppercase();
///         request.respond(&answer).await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Incoming<Q, R, E> {
    open: OpenCall,
    gone: Arc<Gone>,
    source: PeerId,
    timeout: Duration,
    content_type: Arc<str>,
    headers: Headers,
    question: Q,
    types: PhantomData<fn() -> (R, E)>,
}

/// A call that has to be answered, whatever happens.
#[derive(Debug)]
struct OpenCall {
    to: AnswerTo,
    id: Option<CallId>,
    limit: usize,
}

/// Where the answer to a call goes.
#[derive(Debug)]
pub(super) enum AnswerTo {
    /// To a node of this process.
    Node(Arc<Handle>),
    /// To the connection that the call came over, from a node that runs beside this process.
    Running(Answers),
}

/// The answer to a call.
type Answered = (CallId, Reply);

impl OpenCall {
    /// What answers, once.
    fn reply(&mut self, status: ReplyStatus, content_type: &str, headers: Headers, body: Bytes) -> Option<Answered> {
        let call = self.id.take()?;
        let content_type = content_type.to_owned();
        Some((call, Reply { status, content_type, headers, body, extensions: Vec::new() }))
    }

    fn refusal(&mut self, text: &str) -> Option<Answered> {
        let body = Bytes::copy_from_slice(text.as_bytes());
        self.reply(ReplyStatus::Refused, "text/plain; charset=utf-8", Headers::default(), body)
    }

    /// The answer, or a refusal that says why it cannot be sent.
    fn answer(&mut self, answer: Answer) -> (Option<Answered>, Result<(), PayloadError>) {
        let Answer { body, content_type, headers } = answer;
        let body = body.and_then(|body| Ok(check(&body, &headers, &content_type, self.limit).map(|()| body)?));
        match body {
            Ok(body) => (self.reply(ReplyStatus::Ok, &content_type, headers, body), Ok(())),
            Err(error) => (self.refusal(&format!("the answer cannot be sent: {error}")), Err(error)),
        }
    }

    fn post(&self, answered: Option<Answered>) -> Result<(), Closed> {
        let Some((call, reply)) = answered else { return Ok(()) };
        match &self.to {
            AnswerTo::Node(handle) => handle.tell(Command::Reply { call, reply }),
            // There is room for one of each call that is open.
            AnswerTo::Running(answers) => answers.try_send((call, reply)).map_err(|_| Closed),
        }
    }
}

/// What is answered, with all that goes with it.
#[derive(Debug)]
struct Answer {
    body: Result<Bytes, PayloadError>,
    content_type: Cow<'static, str>,
    headers: Headers,
}

impl Answer {
    fn of<R, E: Encoding<R>>(answer: &R) -> Self {
        Self { body: E::encode(answer), content_type: E::CONTENT_TYPE.into(), headers: Headers::default() }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let unanswered = self.reply(ReplyStatus::Unanswered, "", Headers::default(), Bytes::new());
        // A node that is gone has told its askers so.
        let _gone = self.post(unanswered);
    }
}

impl<Q, R, E: Encoding<Q> + Encoding<R>> Incoming<Q, R, E> {
    /// Decodes the question. One that is not of the service's type is refused.
    pub(super) fn open(to: AnswerTo, call: IncomingCall, gone: Arc<Gone>, limit: usize) -> Option<Self> {
        let mut open = OpenCall { to, id: Some(call.id), limit };
        match <E as Encoding<Q>>::decode(&call.body) {
            Ok(question) => Some(Self {
                open,
                gone,
                source: call.from,
                timeout: Duration::from_micros(call.timeout.0),
                content_type: call.content_type,
                headers: call.headers,
                question,
                types: PhantomData,
            }),
            Err(reason) => {
                let refusal = open.refusal(&format!("the question is not of the expected type: {reason}"));
                let _gone = open.post(refusal);
                None
            }
        }
    }

    /// The node that asks.
    pub fn source(&self) -> PeerId {
        self.source
    }

    /// How long the asker still waited when the request came. At most 24 hours.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What the question is, as the asker says.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// What the asker attached.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Answers. Await it; [`Respond`] has what can go with the answer.
    ///
    /// Returns when the node has the answer, and does not tell whether the asker got it. If nobody waits any more, the
    /// answer is dropped and this is `Ok`.
    ///
    /// # Errors
    ///
    /// If the answer cannot be encoded or is larger than a message may be; the asker is then told so. Or if the node is gone.
    pub fn respond(self, answer: &R) -> Respond {
        Respond { open: self.open, answer: Answer::of::<R, E>(answer) }
    }

    /// Answers with an error: the asker gets [`RequestError::Refused`](crate::RequestError::Refused) with this text.
    ///
    /// # Errors
    ///
    /// If the node is gone.
    #[expect(clippy::unused_async, reason = "that nothing is waited for today is not part of what is promised")]
    pub async fn refuse(mut self, text: impl Into<String>) -> Result<(), Closed> {
        let refusal = self.open.refusal(&text.into());
        self.open.post(refusal)
    }

    /// Waits until nobody wants the answer any more: the asker cancelled, its time ran out, or it is gone.
    ///
    /// Work that goes on regardless does no harm: its answer is dropped. Until the request is answered or dropped, it
    /// counts against [`concurrency`](crate::Serve::concurrency).
    ///
    /// ```
    /// # use pombo::{Bincode, Incoming, PayloadError};
    /// # async fn look_up(word: &str) -> u64 { 0 }
    /// # async fn f(request: Incoming<String, u64, Bincode>) -> Result<(), PayloadError> {
    /// tokio::select! {
    ///     found = look_up(&request) => request.respond(&found).await?,
    ///     () = request.cancelled() => println!("{} does not wait any more", request.source()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn cancelled(&self) {
        self.gone.told().await;
    }

    /// What tells that nobody wants the answer any more.
    pub(super) fn gone(&self) -> Arc<Gone> {
        Arc::clone(&self.gone)
    }

    /// Takes the question out, and keeps what answers it.
    pub(crate) fn split(self) -> (Q, Answering<R, E>) {
        let Self { open, gone, question, .. } = self;
        (question, Answering { open, gone, types: PhantomData })
    }
}

/// An answer that is to be sent. Await it.
///
/// The answer was encoded when this was made. Dropping it, or its future before it is done, leaves the request unanswered,
/// which the asker is told.
///
/// ```
/// # use pombo::{Headers, Incoming, PayloadError, Raw};
/// # async fn f(request: Incoming<bytes::Bytes, bytes::Bytes, Raw>, trace: Headers) -> Result<(), PayloadError> {
/// let picture = bytes::Bytes::from_static(b"\x89PNG");
/// request.respond(&picture).content_type("image/png").header("age", "7").headers(trace).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "an answer is sent only when this is awaited"]
pub struct Respond {
    open: OpenCall,
    answer: Answer,
}

impl Respond {
    /// Attaches a header, which the asker finds in [`Reply::headers`](crate::Reply::headers). At most
    /// [`Headers::MAX_COUNT`], and [`Headers::MAX_BYTES`] together.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.answer.headers.add(name, value);
        self
    }

    /// Attaches headers, after those that are there.
    pub fn headers(mut self, headers: Headers) -> Self {
        self.answer.headers.extend(headers);
        self
    }

    /// Says what the answer is. Without it, the encoding's own content type.
    pub fn content_type(mut self, content_type: &str) -> Self {
        self.answer.content_type = content_type.to_owned().into();
        self
    }

    fn send(mut self) -> Result<(), PayloadError> {
        let (answered, result) = self.open.answer(self.answer);
        self.open.post(answered).map_err(PayloadError::new)?;
        result
    }
}

impl IntoFuture for Respond {
    type Output = Result<(), PayloadError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.send() })
    }
}

impl fmt::Debug for Respond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Respond").field("answer", &self.answer).finish_non_exhaustive()
    }
}

/// What is left of a request when its question has been taken out.
pub(crate) struct Answering<R, E> {
    open: OpenCall,
    gone: Arc<Gone>,
    types: PhantomData<fn() -> (R, E)>,
}

impl<R, E: Encoding<R>> Answering<R, E> {
    pub(crate) async fn cancelled(&self) {
        self.gone.told().await;
    }

    pub(crate) fn answer(mut self, answer: Result<R, Refusal>) {
        let answered = match answer {
            Ok(answer) => self.open.answer(Answer::of::<R, E>(&answer)).0,
            Err(refusal) => self.open.refusal(refusal.as_str()),
        };
        // A node that is gone has nobody left to tell.
        let _gone = self.open.post(answered);
    }
}

impl<Q, R, E> Deref for Incoming<Q, R, E> {
    type Target = Q;

    fn deref(&self) -> &Q {
        &self.question
    }
}

impl<Q: fmt::Debug, R, E> fmt::Debug for Incoming<Q, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("source", &self.source)
            .field("question", &self.question)
            .finish_non_exhaustive()
    }
}
