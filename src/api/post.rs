//! What a node knows of its guaranteed messages: those that are under way, and those that were not delivered.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt, stream};

use super::Node;
use crate::error::{AckError, Closed};
use crate::mesh::postman::notices::{Notice, Reason};
use crate::mesh::postman::{PostAnswer, PostCommand, Waiting};
use crate::net::handle::Handle;
use crate::wire::MessageId;

/// That a guaranteed message was not delivered to a recipient, as far as its sender knows.
///
/// It is on disk until [`take`](Self::take) takes note of it: those that were not taken come again, in the next stream and
/// after a restart.
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
    serial: u64,
    handle: Arc<Handle>,
}

impl Undelivered {
    fn new(serial: u64, notice: Notice, handle: Arc<Handle>) -> Self {
        let Notice { id, topic, recipient, reason, at, .. } = notice;
        let time = UNIX_EPOCH + Duration::from_micros(at.0);
        Self { id, topic: topic.to_string(), recipient: recipient.to_string(), reason, time, serial, handle }
    }

    /// Takes note of it: it does not come again. Returns when that is on disk.
    ///
    /// # Errors
    ///
    /// If it could not be written, or the node is gone: then it comes again.
    pub async fn take(self) -> Result<(), AckError> {
        match self.handle.post(PostCommand::TakeNotice { serial: self.serial }).await? {
            Some(PostAnswer::Failed(reason)) => Err(AckError::NotStored { reason }),
            Some(PostAnswer::Done) => Ok(()),
            Some(_) | None => Err(Closed.into()),
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

/// The guaranteed messages that a node owes to others, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outbox {
    /// How many they are.
    pub total: usize,
    /// What they take up, in bytes.
    pub bytes: u64,
    /// The oldest 1,000 of them.
    pub messages: Vec<OutboxMessage>,
}

/// A guaranteed message that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxMessage {
    /// Its id.
    pub id: MessageId,
    /// Its topic.
    pub topic: String,
    /// When it is given up, by this node's clock, 5 s apart.
    pub expires: SystemTime,
    /// Who is owed it still.
    pub recipients: Vec<OutboxRecipient>,
}

/// A recipient that a guaranteed message is owed to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxRecipient {
    /// The name of the durable subscription.
    pub name: String,
    /// Whether a node has it on disk for it, and has not confirmed that it was processed.
    pub stored: bool,
}

impl OutboxMessage {
    fn new(waiting: Waiting) -> Self {
        let recipient = |(name, stored): (Arc<str>, bool)| OutboxRecipient { name: name.to_string(), stored };
        Self {
            id: waiting.id,
            topic: waiting.topic.to_string(),
            expires: UNIX_EPOCH + Duration::from_micros(waiting.expires.0),
            recipients: waiting.owed.into_iter().map(recipient).collect(),
        }
    }
}

impl Node {
    /// The guaranteed messages of this node that could not be delivered: those of earlier runs first, and then each as it
    /// becomes known. The stream ends when the node has ended.
    ///
    /// ```
    /// # use futures::StreamExt;
    /// # async fn f(node: pombo::Node) -> Result<(), pombo::AckError> {
    /// let mut undelivered = node.undelivered();
    /// while let Some(notice) = undelivered.next().await {
    ///     eprintln!("{} did not get {}: {}", notice.recipient, notice.id, notice.reason);
    ///     notice.take().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn undelivered(&self) -> impl Stream<Item = Undelivered> + Send + Unpin + use<> {
        let start = (Arc::clone(&self.handle), 0);
        let next = |(handle, after): (Arc<Handle>, u64)| async move {
            match handle.post(PostCommand::NextNotice { after }).await {
                Ok(Some(PostAnswer::Notice { serial, notice })) => {
                    Some((Undelivered::new(serial, *notice, Arc::clone(&handle)), (handle, serial)))
                }
                Ok(_) | Err(Closed) => None,
            }
        };
        stream::unfold(start, next).boxed()
    }

    /// What this node owes to others.
    ///
    /// # Errors
    ///
    /// If the node is gone.
    ///
    /// ```
    /// # async fn f(node: pombo::Node) -> Result<(), pombo::Closed> {
    /// let outbox = node.outbox().await?;
    /// println!("{} messages of {} bytes are under way", outbox.total, outbox.bytes);
    /// for message in outbox.messages {
    ///     for recipient in message.recipients {
    ///         println!("{} on {} is owed to {}", message.id, message.topic, recipient.name);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn outbox(&self) -> Result<Outbox, Closed> {
        match self.handle.post(PostCommand::Outbox).await? {
            Some(PostAnswer::Outbox { total, bytes, messages }) => {
                Ok(Outbox { total, bytes, messages: messages.into_iter().map(OutboxMessage::new).collect() })
            }
            Some(_) | None => Err(Closed),
        }
    }

    /// Removes a durable subscription of this node, and what waits for it. False if there is none of that name.
    ///
    /// What its senders owe it still goes to whoever subscribes under that name within the messages' time.
    ///
    /// # Errors
    ///
    /// If it could not be written, or the node is gone.
    ///
    /// ```
    /// # async fn f(node: pombo::Node) -> Result<(), pombo::AckError> {
    /// if !node.remove_durable("billing").await? {
    ///     println!("this node has no durable subscription of that name");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove_durable(&self, name: &str) -> Result<bool, AckError> {
        match self.handle.post(PostCommand::Remove { name: name.into() }).await? {
            Some(PostAnswer::Done) => Ok(true),
            Some(PostAnswer::Nobody) => Ok(false),
            Some(PostAnswer::Failed(reason)) => Err(AckError::NotStored { reason }),
            Some(_) | None => Err(Closed.into()),
        }
    }
}
