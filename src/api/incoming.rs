//! One request, at the provider.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libp2p::PeerId;
use tokio::sync::Notify;

use super::Refusal;
use crate::error::Closed;
use crate::mesh::event::{CallId, Command, IncomingCall};
use crate::message::Headers;
use crate::net::handle::Handle;
use crate::payload::{Encoding, PayloadError};
use crate::wire::rpc::{Reply, ReplyStatus};

/// A request that waits for its answer. Dereferences to the question.
///
/// Dropping it unanswered tells the asker at once that there will be no answer.
pub struct Incoming<Q, R, E> {
    open: OpenCall,
    gone: Arc<Notify>,
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
    handle: Arc<Handle>,
    id: Option<CallId>,
    limit: usize,
}

impl OpenCall {
    fn reply(&mut self, status: ReplyStatus, content_type: &str, body: Bytes) {
        let Some(call) = self.id.take() else { return };
        let reply = Reply {
            status,
            content_type: content_type.to_owned(),
            headers: Headers::default(),
            body,
            extensions: vec![],
        };
        self.handle.tell(Command::Reply { call, reply });
    }

    fn refuse(&mut self, text: &str) {
        self.reply(ReplyStatus::Refused, "text/plain; charset=utf-8", Bytes::copy_from_slice(text.as_bytes()));
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.reply(ReplyStatus::Unanswered, "", Bytes::new());
    }
}

impl<Q, R, E: Encoding<Q> + Encoding<R>> Incoming<Q, R, E> {
    /// Decodes the question. One that is not of the service's type is refused.
    pub(crate) fn open(handle: Arc<Handle>, call: IncomingCall, gone: Arc<Notify>, limit: usize) -> Option<Self> {
        let mut open = OpenCall { handle, id: Some(call.id), limit };
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
                open.refuse(&format!("the question is not of the expected type: {reason}"));
                None
            }
        }
    }

    /// The node that asks.
    pub fn source(&self) -> PeerId {
        self.source
    }

    /// How long the asker still waited when the request came.
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

    /// Answers.
    ///
    /// # Errors
    ///
    /// If the answer cannot be encoded or is larger than a message may be. The asker is then told so.
    pub async fn respond(mut self, answer: &R) -> Result<(), PayloadError> {
        let limit = self.open.limit;
        let body = <E as Encoding<R>>::encode(answer).and_then(|body| match body.len() {
            size if size > limit => Err(PayloadError::new(format!("it has {size} bytes, at most {limit} are allowed"))),
            _ => Ok(body),
        });
        match body {
            Ok(body) => {
                self.open.reply(ReplyStatus::Ok, <E as Encoding<R>>::CONTENT_TYPE, body);
                Ok(())
            }
            Err(error) => {
                self.open.refuse(&format!("the answer cannot be sent: {error}"));
                Err(error)
            }
        }
    }

    /// Answers with an error.
    ///
    /// # Errors
    ///
    /// If the node is gone.
    pub async fn refuse(mut self, text: impl Into<String>) -> Result<(), Closed> {
        self.open.refuse(&text.into());
        Ok(())
    }

    /// Waits until nobody wants the answer any more: the asker cancelled, its time ran out, or it is gone.
    pub async fn cancelled(&self) {
        self.gone.notified().await;
    }

    /// Takes the question out, and keeps what answers it.
    pub(crate) fn split(self) -> (Q, Answering<R, E>) {
        let Self { open, gone, question, .. } = self;
        (question, Answering { open, gone, types: PhantomData })
    }
}

/// What is left of a request when its question has been taken out.
pub(crate) struct Answering<R, E> {
    open: OpenCall,
    gone: Arc<Notify>,
    types: PhantomData<fn() -> (R, E)>,
}

impl<R, E: Encoding<R>> Answering<R, E> {
    pub(crate) async fn cancelled(&self) {
        self.gone.notified().await;
    }

    pub(crate) fn answer(mut self, answer: Result<R, Refusal>) {
        let limit = self.open.limit;
        match answer.map(|answer| E::encode(&answer)) {
            Ok(Ok(body)) if body.len() <= limit => self.open.reply(ReplyStatus::Ok, E::CONTENT_TYPE, body),
            Ok(Ok(body)) => {
                self.open.refuse(&format!("the answer has {} bytes, at most {limit} are allowed", body.len()));
            }
            Ok(Err(error)) => self.open.refuse(&format!("the answer cannot be encoded: {error}")),
            Err(refusal) => self.open.refuse(refusal.as_str()),
        }
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
