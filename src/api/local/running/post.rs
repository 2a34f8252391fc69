//! The guaranteed messages and durable subscriptions of a node that runs beside this process.
#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else a node says has no place in an answer")]

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::super::translate::{durable_status, message, noticed, owed, size, unacknowledged, undone, unpublished};
use super::super::{By, Holding, millis};
use super::{GRACE, RunningNode, gone};
use crate::api::undelivered::Beside;
use crate::api::{Accepted, Notices, Outbox, OutboxMessage, Undelivered, UndeliveredError, Whereabouts};
use crate::error::{AckError, Closed, PublishError, SubscribeError};
use crate::mesh::postman::{DurableStatus, Terms};
use crate::message::Message;
use crate::wire::MessageId;
use crate::wire::local::{Act, Failure, FromNode, Post, ToNode};

/// How long a message may take to the node's disk.
const TO_DISK: Duration = Duration::from_secs(60);

impl RunningNode {
    /// As [`Node::notices`](crate::Node::notices).
    ///
    /// # Errors
    ///
    /// If the node is gone, or does not answer within 10 s.
    ///
    /// ```
    /// # async fn f(node: pombo::RunningNode) -> Result<(), pombo::Closed> {
    /// println!("{} messages were not delivered", node.notices().await?.total);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn notices(&self) -> Result<Notices, Closed> {
        let (mut total, mut notices) = (0, Vec::new());
        for record in self.list(&ToNode::Notices { extensions: Vec::new() }).await? {
            match record {
                FromNode::Total { total: all, .. } => total = size(all),
                FromNode::Notice(notice) => {
                    let (node, number, recipient) = (self.clone(), notice.number, notice.recipient.clone());
                    let by = By::Running(Beside { node, number, recipient });
                    notices.push(Undelivered::told(noticed(*notice), by));
                }
                _ => return Err(Closed),
            }
        }
        Ok(Notices { total, notices })
    }

    /// As [`Node::outbox`](crate::Node::outbox).
    ///
    /// # Errors
    ///
    /// If the node is gone, or does not answer within 10 s.
    ///
    /// ```
    /// # async fn f(node: pombo::RunningNode) -> Result<(), pombo::Closed> {
    /// println!("{} messages are under way", node.outbox().await?.total);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn outbox(&self) -> Result<Outbox, Closed> {
        let mut outbox = Outbox { total: 0, bytes: 0, messages: Vec::new() };
        for record in self.list(&ToNode::Outbox { extensions: Vec::new() }).await? {
            match record {
                FromNode::Total { total, bytes, .. } => (outbox.total, outbox.bytes) = (size(total), bytes),
                FromNode::Waiting(waiting) => outbox.messages.push(OutboxMessage::new(owed(waiting))),
                _ => return Err(Closed),
            }
        }
        Ok(outbox)
    }

    /// As [`Node::durables`](crate::Node::durables). It waits for the node's first look-around.
    ///
    /// # Errors
    ///
    /// If the node is gone, or does not answer within 10 s.
    ///
    /// ```
    /// # async fn f(node: pombo::RunningNode) -> Result<(), pombo::Closed> {
    /// for durable in node.durables().await? {
    ///     println!("{} gets {} at {}", durable.name, durable.pattern, durable.node_name);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn durables(&self) -> Result<Vec<DurableStatus>, Closed> {
        let mut durables = Vec::new();
        for record in self.list(&ToNode::Durables { extensions: Vec::new() }).await? {
            match record {
                FromNode::Durable(durable) => durables.extend(durable_status(durable)),
                _ => return Err(Closed),
            }
        }
        Ok(durables)
    }

    /// As [`Node::whereabouts`](crate::Node::whereabouts).
    ///
    /// # Errors
    ///
    /// If the node is gone, or does not answer within 10 s.
    ///
    /// ```
    /// # async fn f(node: pombo::RunningNode, id: pombo::MessageId) -> Result<(), pombo::Closed> {
    /// for known in node.whereabouts(id).await? {
    ///     println!("{} for {}: {}", known.node_name, known.recipient, known.stage);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn whereabouts(&self, id: MessageId) -> Result<Vec<Whereabouts>, Closed> {
        let mut all = Vec::new();
        for record in self.list(&ToNode::Where { id, extensions: Vec::new() }).await? {
            let FromNode::Known(at) = record else { return Err(Closed) };
            let node = at.node.peer().ok_or(Closed)?;
            all.extend(Whereabouts::new(node, &at.node_name, at.known));
        }
        Ok(all)
    }

    /// As [`Node::remove_durable`](crate::Node::remove_durable).
    ///
    /// # Errors
    ///
    /// If it could not be written, or the node is gone.
    ///
    /// ```
    /// # async fn f(node: pombo::RunningNode) -> Result<(), pombo::AckError> {
    /// if !node.remove_durable("billing").await? {
    ///     println!("{} has no durable subscription of that name", node.name());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn remove_durable(&self, name: &str) -> Result<bool, AckError> {
        if crate::topic::check_name(name).is_err() {
            return Ok(false);
        }
        match self.answer(&ToNode::Remove { name: name.to_owned(), extensions: Vec::new() }).await? {
            FromNode::Done { .. } => Ok(true),
            FromNode::Failed { failure: Failure::NoRecipient, .. } => Ok(false),
            FromNode::Failed { failure, .. } => Err(unacknowledged(failure)),
            _ => Err(Closed.into()),
        }
    }

    pub(in crate::api) async fn accept(&self, post: Post) -> Result<Accepted, PublishError> {
        let topic = post.topic.clone();
        match self.posted(post, TO_DISK).await? {
            FromNode::Accepted { id, recipients, copies, wanted, .. } if copies < wanted => {
                Err(PublishError::TooFewCopies { id, recipients, copies: size(copies), wanted: size(wanted) })
            }
            FromNode::Accepted { id, recipients, copies, .. } => Ok(Accepted { id, recipients, copies: size(copies) }),
            FromNode::Failed { failure, .. } => Err(unpublished(failure, &topic)),
            _ => Err(PublishError::Unconfirmed),
        }
    }

    pub(in crate::api) async fn hold(
        &self,
        name: String,
        pattern: &str,
        Terms { window, attempts }: Terms,
    ) -> Result<Holding, SubscribeError> {
        let (pattern, window) = (pattern.to_owned(), u32::try_from(window).unwrap_or(u32::MAX));
        let record = ToNode::Hold { name, pattern, window, attempts, extensions: Vec::new() };
        self.set_up(&record, TO_DISK).await.map(Holding::new)
    }

    /// All records of an answer before the last, which says that they are all.
    async fn list(&self, question: &ToNode) -> Result<Vec<FromNode>, Closed> {
        let asked = async {
            let mut line = self.ask(question).await?;
            let mut records = Vec::new();
            loop {
                match line.reader.next().await?.ok_or(io::ErrorKind::UnexpectedEof)? {
                    FromNode::Done { .. } => return io::Result::Ok(records),
                    record => records.push(record),
                }
            }
        };
        timeout(GRACE, asked).await.map_err(|_| Closed)?.map_err(gone)
    }

    /// An answer of one record.
    async fn answer(&self, question: &ToNode) -> Result<FromNode, Closed> {
        let asked = async {
            let mut line = self.ask(question).await?;
            line.reader.next().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        timeout(TO_DISK, asked).await.map_err(|_| Closed)?.map_err(gone)
    }
}

impl Beside {
    pub(in crate::api) async fn take(&self) -> Result<(), AckError> {
        match self.act(Act::Take).await? {
            FromNode::Done { .. } => Ok(()),
            FromNode::Failed { failure, .. } => Err(unacknowledged(failure)),
            _ => Err(Closed.into()),
        }
    }

    pub(in crate::api) async fn message(&self) -> Result<Message<Bytes>, UndeliveredError> {
        match self.act(Act::Show).await? {
            FromNode::Message(arrived) => Ok(message(arrived).ok_or(Closed)?),
            FromNode::Failed { failure, .. } => Err(undone(failure, "")),
            _ => Err(Closed.into()),
        }
    }

    pub(in crate::api) async fn retry(&self, ttl: Duration) -> Result<Accepted, UndeliveredError> {
        crate::api::guaranteed::check_ttl(ttl)?;
        match self.act(Act::Retry { ttl: millis(ttl) }).await? {
            FromNode::Accepted { id, recipients, copies, .. } => Ok(Accepted { id, recipients, copies: size(copies) }),
            FromNode::Failed { failure, .. } => Err(undone(failure, "")),
            _ => Err(Closed.into()),
        }
    }

    async fn act(&self, act: Act) -> Result<FromNode, Closed> {
        let (number, recipient) = (self.number, self.recipient.clone());
        self.node.answer(&ToNode::Notice { number, recipient, act, extensions: Vec::new() }).await
    }
}
