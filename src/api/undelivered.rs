//! A guaranteed message that was not delivered, and what can be done about it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use libp2p::PeerId;

use super::RunningNode;
use super::guaranteed::{Accepted, accepted, check_ttl, posting};
use super::local::By;
use crate::error::{AckError, Closed, Outcome, PublishError};
use crate::mesh::postman::notices::{Notice, Reason};
use crate::mesh::postman::{PostAnswer, PostCommand};
use crate::message::{Message, Origin};
use crate::net::handle::Handle;
use crate::wire::MessageId;
use crate::wire::letter::Letter;
use crate::wire::node_key::NodeKey;

/// That a guaranteed message was not delivered to a recipient, as far as its sender knows.
///
/// It is on disk until [`take`](Self::take) takes note of it, or [`retry`](Self::retry) sends it anew: those that were not come
/// again, in the next stream and after a restart.
#[non_exhaustive]
pub struct Undelivered {
    /// The message.
    pub id: MessageId,
    /// Its topic.
    pub topic: String,
    /// Who did not get it, or did not confirm it: the name of a durable subscription.
    pub recipient: String,
    /// Why.
    pub reason: Reason,
    /// When it was given up, by this node's clock.
    pub time: SystemTime,
    /// When its time was over.
    pub expires: SystemTime,
    /// How often it was offered to the recipient, since its node was started last.
    pub offers: u32,
    /// The node that has it on disk for the recipient, and since when, if one said so.
    pub stored: Option<(PeerId, SystemTime)>,
    by: By<Own, Beside>,
}

/// Something could not be done about an undelivered message. It stays as it is.
///
/// ```
/// use pombo::{Outcome, UndeliveredError};
/// assert_eq!(UndeliveredError::Taken.outcome(), Outcome::Rejected);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UndeliveredError {
    /// Somebody has taken note of it, or sent it anew, before.
    #[error("it was taken note of, or sent anew, before")]
    Taken,
    /// What was written of the message cannot be read any more.
    #[error("the message cannot be read from this node's disk any more")]
    Lost,
    /// It could not be accepted again.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The node is gone.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl UndeliveredError {
    /// Its class. [`UndeliveredError`] has an example.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Taken => Outcome::Rejected,
            Self::Lost | Self::Closed(_) => Outcome::Failed,
            Self::Publish(error) => error.outcome(),
        }
    }
}

/// A notice at a node of this process.
#[derive(Clone)]
pub(super) struct Own {
    pub(super) handle: Arc<Handle>,
    /// The message's place in the outbox.
    pub(super) number: u64,
    pub(super) recipient: Arc<str>,
}

impl Own {
    pub(super) async fn take(self) -> Result<(), AckError> {
        let Self { handle, number, recipient } = self;
        match handle.post(PostCommand::TakeNotice { number, recipient }).await? {
            Some(PostAnswer::Failed(reason)) => Err(AckError::NotStored { reason }),
            Some(PostAnswer::Done) => Ok(()),
            Some(_) | None => Err(Closed.into()),
        }
    }

    pub(super) async fn message(&self) -> Result<Message<Bytes>, UndeliveredError> {
        let Letter { id, topic, content_type, headers, time, payload, .. } = self.letter().await?;
        let origin = Arc::new(Origin { topic, source: self.handle.me, content_type });
        Ok(Message { origin, id, time: at(time), headers, payload })
    }

    pub(super) async fn retry(self, ttl: Duration) -> Result<Accepted, UndeliveredError> {
        check_ttl(ttl)?;
        let letter = self.letter().await?;
        let anew = |id, time, expires| Letter { id, time, expires, ..letter };
        let Self { handle, number, recipient } = self;
        let (posting, topic) = posting(&handle, ttl, vec![recipient.to_string()], anew)?;
        let id = posting.id;
        match handle.post(PostCommand::Retry { number, recipient, posting }).await? {
            Some(PostAnswer::Nobody) => Err(UndeliveredError::Taken),
            answer => Ok(accepted(id, &topic, answer)?),
        }
    }

    async fn letter(&self) -> Result<Letter, UndeliveredError> {
        let (number, recipient) = (self.number, Arc::clone(&self.recipient));
        match self.handle.post(PostCommand::ShowLetter { number, recipient }).await? {
            Some(PostAnswer::Letter(sealed)) => Letter::open(&sealed).map_err(|_| UndeliveredError::Lost),
            Some(PostAnswer::Nobody) => Err(UndeliveredError::Taken),
            Some(PostAnswer::Lost) => Err(UndeliveredError::Lost),
            Some(_) | None => Err(Closed.into()),
        }
    }
}

/// One at a node that runs beside this process.
#[derive(Clone)]
pub(super) struct Beside {
    pub(super) node: RunningNode,
    pub(super) number: u64,
    pub(super) recipient: String,
}

fn at(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

impl Undelivered {
    pub(super) fn new(notice: Notice, handle: Arc<Handle>) -> Self {
        let own = Own { handle, number: notice.number, recipient: Arc::clone(&notice.recipient) };
        Self::told(notice, By::Own(own))
    }

    pub(super) fn told(notice: Notice, by: By<Own, Beside>) -> Self {
        let stored = notice.stored.and_then(|(key, since): (NodeKey, u64)| Some((key.peer()?, at(since))));
        Self {
            id: notice.id,
            topic: notice.topic.to_string(),
            recipient: notice.recipient.to_string(),
            reason: notice.reason,
            time: at(notice.at.0),
            expires: at(notice.expires.0),
            offers: notice.offers,
            stored,
            by,
        }
    }

    /// Takes note of it: it does not come again, and the message is forgotten. Returns when that is on disk.
    ///
    /// # Errors
    ///
    /// If it could not be written, or the node is gone: then it comes again.
    pub async fn take(self) -> Result<(), AckError> {
        match self.by {
            By::Own(own) => own.take().await,
            By::Running(beside) => beside.take().await,
        }
    }

    /// The message as it was published.
    ///
    /// # Errors
    ///
    /// If somebody has taken note of it meanwhile, it cannot be read, or the node is gone.
    pub async fn message(&self) -> Result<Message<Bytes>, UndeliveredError> {
        match &self.by {
            By::Own(own) => own.message().await,
            By::Running(beside) => beside.message().await,
        }
    }

    /// Delivers it to the recipient after all, as a new message with an id of its own, in place of this notice. Where the first one
    /// was stored there it may be handled twice.
    ///
    /// # Errors
    ///
    /// If it is not accepted: then this comes again.
    pub async fn retry(self, ttl: Duration) -> Result<Accepted, UndeliveredError> {
        match self.by {
            By::Own(own) => own.retry(ttl).await,
            By::Running(beside) => beside.retry(ttl).await,
        }
    }
}

impl fmt::Debug for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undelivered")
            .field("id", &self.id)
            .field("topic", &self.topic)
            .field("recipient", &self.recipient)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}
