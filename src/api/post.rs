//! What a node knows of its guaranteed messages: those that are under way, and those that were not delivered.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt, stream};

use super::Node;
use super::undelivered::Undelivered;
use crate::error::{AckError, Closed};
use crate::mesh::postman::{DurableStatus, PostAnswer, PostCommand, Waiting};
use crate::net::handle::Handle;
use crate::wire::MessageId;

/// The guaranteed messages of a node that could not be delivered, at one moment.
#[derive(Debug)]
#[non_exhaustive]
pub struct Notices {
    /// How many there are.
    pub total: usize,
    /// Those that became known first: 1,000 of them at most.
    pub notices: Vec<Undelivered>,
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
    pub(super) fn new(waiting: Waiting) -> Self {
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
                    Some((Undelivered::new(*notice, Arc::clone(&handle)), (handle, serial)))
                }
                Ok(_) | Err(Closed) => None,
            }
        };
        stream::unfold(start, next).boxed()
    }

    /// The guaranteed messages of this node that could not be delivered, as [`undelivered`](Self::undelivered) would yield them, at
    /// this moment.
    ///
    /// # Errors
    ///
    /// If the node is gone.
    ///
    /// ```
    /// # async fn f(node: pombo::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// for undelivered in node.notices().await?.notices {
    ///     println!("{}: {}", undelivered.id, undelivered.reason);
    ///     undelivered.retry(std::time::Duration::from_secs(3600)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn notices(&self) -> Result<Notices, Closed> {
        match self.handle.post(PostCommand::Notices).await? {
            Some(PostAnswer::Notices { total, notices }) => {
                let notice = |notice| Undelivered::new(notice, Arc::clone(&self.handle));
                Ok(Notices { total, notices: notices.into_iter().map(notice).collect() })
            }
            Some(_) | None => Err(Closed),
        }
    }

    /// The durable subscriptions of the mesh, each at every node that has it, as this node knows them. Sorted by name.
    ///
    /// # Errors
    ///
    /// If the node is gone.
    ///
    /// ```
    /// # async fn f(node: pombo::Node) -> Result<(), pombo::Closed> {
    /// for durable in node.durables().await? {
    ///     println!("{} gets {} at {}", durable.name, durable.pattern, durable.node_name);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn durables(&self) -> Result<Vec<DurableStatus>, Closed> {
        match self.handle.post(PostCommand::Durables).await? {
            Some(PostAnswer::Durables(durables)) => Ok(durables),
            Some(_) | None => Err(Closed),
        }
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
