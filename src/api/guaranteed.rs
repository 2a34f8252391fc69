//! Publishing with a guarantee: on disk here before it returns, and then delivered or told of.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::Node;
use crate::error::{Closed, PublishError};
use crate::mesh::postman::{PostAnswer, PostCommand, Posting};
use crate::mesh::time::{Span, Wall};
use crate::message::Headers;
use crate::net::clock::Clock;
use crate::payload::PayloadError;
use crate::topic::{Name, check_name};
use crate::wire::MessageId;
use crate::wire::letter::Letter;

/// How long a message is delivered for, unless a time is given.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest that it may be: for so long nodes remember durable subscriptions that nobody holds.
const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Why a [`RunningNode`](crate::RunningNode) neither takes guaranteed messages nor holds durable subscriptions.
pub(super) const NOT_BESIDE: &str = "a node that runs beside this process does not lend it: use a node of this process";

/// A message that is to be delivered for certain. Await it. Once that is dropped before it returns, the message may have been
/// accepted or not.
///
/// ```
/// # use pombo::{Node, PublishError, Topic};
/// # use std::time::Duration;
/// # const ORDERS: Topic<String> = Topic::new("orders.eu");
/// # async fn f(node: Node) -> Result<(), PublishError> {
/// let accepted = node
///     .publish(ORDERS, &"pigeons".to_owned())
///     .guaranteed()
///     .ttl(Duration::from_secs(3600))
///     .to(["billing"])
///     .await?;
/// println!("{} is on disk for {}", accepted.id, accepted.recipients.join(", "));
/// # Ok(())
/// # }
/// ```
#[must_use = "a message is published only when this is awaited"]
pub struct Guaranteed<'n> {
    draft: Unsealed<'n>,
    ttl: Duration,
    to: Vec<String>,
}

/// What is known of a message before it is.
pub(super) struct Unsealed<'n> {
    pub(super) node: Result<&'n Node, PublishError>,
    pub(super) topic: Name,
    pub(super) payload: Result<Bytes, PublishError>,
    pub(super) content_type: Arc<str>,
    pub(super) headers: Headers,
}

/// A message is on this node's disk, and will be delivered or told of.
///
/// [`Guaranteed`] has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// Its id.
    pub id: MessageId,
    /// Whom it goes to, for good: the durable subscriptions that matched, as far as this node knew them, and those that were
    /// named. Sorted.
    pub recipients: Vec<String>,
}

impl<'n> Guaranteed<'n> {
    pub(super) fn new(draft: Unsealed<'n>) -> Self {
        Self { draft, ttl: TTL, to: Vec::new() }
    }

    /// How long it may take to be delivered, up to 30 days; a day without this. What is not by then is told of
    /// ([`Node::undelivered`](crate::Node::undelivered)), and nobody starts work on it any more.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Delivers it to these durable subscriptions as well, whether or not this node has heard of them yet.
    pub fn to<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.to.extend(names.into_iter().map(Into::into));
        self
    }

    async fn send(self) -> Result<Accepted, PublishError> {
        let Self { draft, ttl, to } = self;
        if ttl.is_zero() || ttl > MAX_TTL {
            return Err(PublishError::Ttl { ttl });
        }
        to.iter().try_for_each(|name| check_name(name))?;
        let Unsealed { node, topic, payload, content_type, headers } = draft;
        let (node, payload) = (node?, payload?);
        // Who wants it is known only when the first look-around is over.
        node.settled().await?;
        let (id, time) = (node.handle.letter_id(), Clock::wall());
        let expires = time + Span::from(ttl);
        let letter = Letter {
            id,
            topic: topic.as_str().to_owned(),
            content_type: content_type.to_string(),
            headers,
            time: time.0,
            expires: expires.0,
            payload,
        };
        let sealed = letter.seal().map_err(|error| PublishError::Encode(PayloadError::new(error)))?;
        let to = to.into_iter().map(Into::into).collect();
        let posting = Posting { id, topic: topic.as_str().into(), expires: Wall(expires.0), sealed, to };
        match node.handle.post(PostCommand::Accept(posting)).await? {
            Some(PostAnswer::Accepted { recipients }) => {
                Ok(Accepted { id, recipients: recipients.iter().map(|name| name.to_string()).collect() })
            }
            Some(PostAnswer::Nobody) => Err(PublishError::NoRecipient { topic: topic.as_str().to_owned() }),
            Some(PostAnswer::NoStore(reason)) => Err(PublishError::NoStore { reason }),
            Some(PostAnswer::Full { what, limit }) => Err(PublishError::OutboxFull { what, limit }),
            Some(PostAnswer::Failed(reason)) => Err(PublishError::NotStored { reason }),
            None => Err(PublishError::Draining),
            Some(
                PostAnswer::Done
                | PostAnswer::Held(_)
                | PostAnswer::Late
                | PostAnswer::Notice { .. }
                | PostAnswer::Outbox { .. },
            ) => Err(Closed.into()),
        }
    }
}

impl<'n> IntoFuture for Guaranteed<'n> {
    type Output = Result<Accepted, PublishError>;
    type IntoFuture = BoxFuture<'n, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl fmt::Debug for Guaranteed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guaranteed").field("topic", &self.draft.topic.as_str()).finish_non_exhaustive()
    }
}
