//! Publishing with a guarantee: on disk here before it returns, and then delivered or told of.

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::local::{By, millis};
use super::{Node, RunningNode};
use crate::error::{Closed, PublishError};
use crate::mesh::postman::{PostAnswer, PostCommand, Posting};
use crate::mesh::time::Span;
use crate::message::Headers;
use crate::net::clock::Clock;
use crate::net::handle::Handle;
use crate::payload::PayloadError;
use crate::topic::{Name, check_name};
use crate::wire::MessageId;
use crate::wire::letter::Letter;
use crate::wire::local::{Guarantee, MAX_COPIES, MAX_NAMED, Post};

/// How long a message is delivered for, unless a time is given.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest that it may be: for so long nodes remember durable subscriptions that nobody holds.
const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

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
    copies: usize,
}

/// What is known of a message before it is.
pub(super) struct Unsealed<'n> {
    pub(super) by: By<&'n Node, &'n RunningNode>,
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
    /// How many other nodes have a copy of it on disk for certain.
    pub copies: usize,
}

impl<'n> Guaranteed<'n> {
    pub(super) fn new(draft: Unsealed<'n>) -> Self {
        Self { draft, ttl: TTL, to: Vec::new(), copies: 0 }
    }

    /// How long it may take to be delivered, up to 30 days; a day without this. What is not by then is told of
    /// ([`Node::undelivered`](crate::Node::undelivered)), and nobody starts work on it any more.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Delivers it to these durable subscriptions as well, 1,000 at most, whether or not this node has heard of them yet.
    pub fn to<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.to.extend(names.into_iter().map(Into::into));
        self
    }

    /// Returns only when so many other nodes, 16 at most, have a copy on disk as well; none without this. If fewer do after 5 s the error is
    /// [`TooFewCopies`](PublishError::TooFewCopies), and the message is delivered all the same.
    ///
    /// While its sender is not seen, the first of those that have a copy delivers it after 30 s, the next after 60 s, and so on. A sender that
    /// returns asks them what became of it. `docs/delivery.md` says what that promises.
    pub fn copies(mut self, copies: usize) -> Self {
        self.copies = copies;
        self
    }

    async fn send(self) -> Result<Accepted, PublishError> {
        let Self { draft, ttl, to, copies } = self;
        check_ttl(ttl)?;
        if copies > MAX_COPIES {
            return Err(PublishError::TooManyCopies { copies, limit: MAX_COPIES });
        }
        if to.len() > MAX_NAMED {
            return Err(PublishError::TooManyRecipients { count: to.len(), limit: MAX_NAMED });
        }
        to.iter().try_for_each(|name| check_name(name))?;
        let Unsealed { by, topic, payload, content_type, headers } = draft;
        let payload = payload?;
        let node = match by {
            By::Own(node) => node,
            By::Running(node) => {
                let post = Post {
                    topic: topic.as_str().to_owned(),
                    content_type: content_type.to_string(),
                    headers,
                    min_peers: 0,
                    timeout: 0,
                    guarantee: Some(Guarantee {
                        ttl: millis(ttl),
                        to,
                        copies: u32::try_from(copies).unwrap_or(u32::MAX),
                    }),
                    payload,
                    extensions: Vec::new(),
                };
                return node.accept(post).await;
            }
        };
        // Who wants it is known only when the first look-around is over.
        node.settled().await?;
        let topic = topic.as_str().to_owned();
        let content_type = content_type.to_string();
        let letter = |id, time, expires| Letter { id, topic, content_type, headers, time, expires, payload };
        let (mut posting, topic) = posting(&node.handle, ttl, to, letter)?;
        posting.copies = copies;
        let id = posting.id;
        accepted(id, &topic, node.handle.post(PostCommand::Accept(posting)).await?)
    }
}

/// A letter made now, ready to be accepted, and its topic.
pub(super) fn posting(
    handle: &Handle,
    ttl: Duration,
    to: Vec<String>,
    letter: impl FnOnce(MessageId, u64, u64) -> Letter,
) -> Result<(Posting, String), PublishError> {
    let (id, time) = (handle.letter_id(), Clock::wall());
    let expires = time + Span::from(ttl);
    let letter = letter(id, time.0, expires.0);
    let sealed = letter.seal().map_err(|error| PublishError::Encode(PayloadError::new(error)))?;
    let to = to.into_iter().map(Into::into).collect();
    let (topic, custodians) = (letter.topic.as_str().into(), Vec::new());
    let posting = Posting { id, topic, time, expires, sealed, to, copies: 0, custodians };
    Ok((posting, letter.topic))
}

/// What is answered to whoever wants a message accepted.
pub(super) fn accepted(id: MessageId, topic: &str, answer: Option<PostAnswer>) -> Result<Accepted, PublishError> {
    match answer {
        Some(PostAnswer::Accepted { recipients, copies, wanted }) => {
            let recipients = recipients.iter().map(|name| name.to_string()).collect();
            if copies < wanted {
                return Err(PublishError::TooFewCopies { id, recipients, copies, wanted });
            }
            Ok(Accepted { id, recipients, copies })
        }
        Some(PostAnswer::Nobody) => Err(PublishError::NoRecipient { topic: topic.to_owned() }),
        Some(PostAnswer::NoStore(reason)) => Err(PublishError::NoStore { reason }),
        Some(PostAnswer::Full { what, limit }) => Err(PublishError::OutboxFull { what, limit }),
        Some(PostAnswer::Failed(reason)) => Err(PublishError::NotStored { reason }),
        None => Err(PublishError::Draining),
        Some(
            PostAnswer::Done
            | PostAnswer::Held(_)
            | PostAnswer::Late
            | PostAnswer::Lost
            | PostAnswer::Letter(_)
            | PostAnswer::Notice { .. }
            | PostAnswer::Notices { .. }
            | PostAnswer::Durables(_)
            | PostAnswer::Known(_)
            | PostAnswer::Outbox { .. },
        ) => Err(Closed.into()),
    }
}

/// Whether a message can be delivered within that time.
pub(super) fn check_ttl(ttl: Duration) -> Result<(), PublishError> {
    if ttl.is_zero() || ttl > MAX_TTL { Err(PublishError::Ttl { ttl }) } else { Ok(()) }
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
