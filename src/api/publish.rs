//! Publishing: one message with options, or many on one topic.

use std::fmt;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::guaranteed::{Guaranteed, Unsealed};
use super::local::{By, millis};
use super::size::check;
use super::{Node, RunningNode};
use crate::config::Limits;
use crate::error::{Closed, PublishError};
use crate::mesh::event::{Answer, Command};
use crate::mesh::outgoing::{Appended, Draft};
use crate::mesh::routes::{Group, Reach, Routes};
use crate::message::Headers;
use crate::payload::{Encoding, PayloadError};
use crate::topic::{Name, Topic};
use crate::wire::MessageId;
use crate::wire::frame::shard_of;
use crate::wire::local::Post;

/// How long listeners are waited for, unless a time is given.
const PATIENCE: Duration = Duration::from_secs(5);

/// A message that is to be published. Await it.
///
/// ```
/// # use pombo::{Headers, Node, PublishError, RawTopic};
/// # use std::time::Duration;
/// # async fn f(node: Node, pictures: RawTopic, picture: bytes::Bytes, trace: Headers) -> Result<(), PublishError> {
/// node.publish(pictures, &picture)
///     .header("tenant", "acme")
///     .headers(trace)
///     .content_type("image/png")
///     .min_peers(1)
///     .timeout(Duration::from_secs(2))
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a message is published only when this is awaited"]
pub struct Publish<'n> {
    by: By<&'n Node, &'n RunningNode>,
    topic: Name,
    payload: Result<Bytes, PayloadError>,
    content_type: Arc<str>,
    headers: Headers,
    min_peers: usize,
    timeout: Duration,
    for_another: bool,
}

/// A message was published.
///
/// ```
/// # use pombo::{Node, PublishError, Topic};
/// # const ORDERS: Topic<String> = Topic::new("orders.eu");
/// # async fn f(node: Node) -> Result<(), PublishError> {
/// let published = node.publish(ORDERS, &"pigeons".to_owned()).await?;
/// match published.listeners + published.local {
///     0 => println!("{} is on its way to nobody", published.id),
///     _ => println!("{}: {} nodes, {} of them direct", published.id, published.listeners, published.peers),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Its id.
    pub id: MessageId,
    /// How many neighbours took it: on a short-lived node those that confirmed to have taken it over, otherwise those that
    /// listen. By a [`RunningNode`] it is one, that node.
    pub peers: usize,
    /// How many other nodes listen to its topic, as far as is known here.
    pub listeners: usize,
    /// How many subscribers of this very node listen.
    pub local: usize,
}

impl<'n> Publish<'n> {
    pub(super) fn new<T, E: Encoding<T>>(by: By<&'n Node, &'n RunningNode>, topic: Topic<T, E>, value: &T) -> Self {
        Self {
            by,
            topic: topic.name,
            payload: E::encode(value),
            content_type: E::CONTENT_TYPE.into(),
            headers: Headers::default(),
            min_peers: 0,
            timeout: PATIENCE,
            for_another: false,
        }
    }

    /// The publisher is another process: subscribers of this node are others to it, and count as those of other nodes do.
    pub(super) fn for_another_process(mut self) -> Self {
        self.for_another = true;
        self
    }

    /// Attaches a header. At most [`Headers::MAX_COUNT`], and [`Headers::MAX_BYTES`] together.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.add(name, value);
        self
    }

    /// Attaches headers, after those that are there.
    pub fn headers(mut self, headers: Headers) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Says what the payload is. Without it, the encoding's own content type.
    pub fn content_type(mut self, content_type: &str) -> Self {
        self.content_type = content_type.into();
        self
    }

    /// Waits until that many other nodes listen to the topic before it publishes, and fails if they do not come.
    pub fn min_peers(mut self, peers: usize) -> Self {
        self.min_peers = peers;
        self
    }

    /// How long [`min_peers`](Self::min_peers) waits, and a short-lived node for its neighbours' word. 5 s without this.
    ///
    /// Room for the message is waited for regardless.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Delivers it for certain to those durable subscriptions that match, and to no others: it is on this node's disk when
    /// this returns, and goes to each of them until that one acknowledges it. What cannot be delivered in time is told of
    /// ([`Node::undelivered`]). [`Guaranteed`] has an example.
    ///
    /// [`min_peers`](Self::min_peers) and [`timeout`](Self::timeout) mean nothing here. By a [`RunningNode`] it is on that node's
    /// disk, and that node's to deliver.
    pub fn guaranteed(self) -> Guaranteed<'n> {
        let Self { by, topic, payload, content_type, headers, .. } = self;
        let limit = match by {
            By::Own(node) => node.about.limits.message,
            By::Running(_) => Limits::default().message,
        };
        let payload = payload.map_err(PublishError::Encode).and_then(|payload| {
            check(&payload, &headers, &content_type, limit)?;
            Ok(payload)
        });
        Guaranteed::new(Unsealed { by, topic, payload, content_type, headers })
    }

    async fn send(self) -> Result<Published, PublishError> {
        match self.by {
            By::Own(node) => self.send_by(node).await,
            By::Running(node) => self.hand_to(node).await,
        }
    }

    async fn send_by(self, node: &Node) -> Result<Published, PublishError> {
        let payload = self.payload.map_err(PublishError::Encode)?;
        check(&payload, &self.headers, &self.content_type, node.about.limits.message)?;
        let topic = self.topic.as_str();
        if node.about.short_lived {
            node.settled().await?;
        }
        wait_for_listeners(node, topic, self.min_peers, self.timeout, self.for_another).await?;
        let reach = reach(node, topic, self.for_another);
        let draft = Draft {
            topic,
            shard: shard_of(topic),
            content_type: &self.content_type,
            headers: &self.headers,
            groups: &reach.groups,
            payload: &payload,
        };
        let appended = node.handle.press.append(&draft).await?;
        confirm(node, appended, &reach, self.timeout).await
    }

    async fn hand_to(self, node: &RunningNode) -> Result<Published, PublishError> {
        let payload = self.payload.map_err(PublishError::Encode)?;
        check(&payload, &self.headers, &self.content_type, Limits::default().message)?;
        let post = Post {
            topic: self.topic.as_str().to_owned(),
            content_type: self.content_type.as_ref().to_owned(),
            headers: self.headers,
            min_peers: u32::try_from(self.min_peers).unwrap_or(u32::MAX),
            timeout: millis(self.timeout),
            guarantee: None,
            payload,
            extensions: Vec::new(),
        };
        node.post(post, self.timeout).await
    }
}

impl<'n> IntoFuture for Publish<'n> {
    type Output = Result<Published, PublishError>;
    type IntoFuture = BoxFuture<'n, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish").field("topic", &self.topic.as_str()).finish_non_exhaustive()
    }
}

fn reach(node: &Node, topic: &str, for_another: bool) -> Reach {
    reach_in(&node.handle.routes.borrow(), node, topic, for_another)
}

fn reach_in(routes: &Routes, node: &Node, topic: &str, for_another: bool) -> Reach {
    let mut reach = routes.reach(topic, node.handle.me);
    if for_another {
        reach.peers += std::mem::take(&mut reach.local);
    }
    reach
}

async fn wait_for_listeners(
    node: &Node,
    topic: &str,
    wanted: usize,
    timeout: Duration,
    for_another: bool,
) -> Result<(), PublishError> {
    if wanted == 0 {
        return Ok(());
    }
    let enough = node.handle.wait_for_routes(|routes| reach_in(routes, node, topic, for_another).peers >= wanted);
    match tokio::time::timeout(timeout, enough).await {
        Ok(result) => Ok(result?),
        Err(_) => {
            let found = reach(node, topic, for_another).peers;
            Err(PublishError::Nobody { topic: topic.to_owned(), wanted, found })
        }
    }
}

/// On a short-lived node: waits for the neighbours' word, for as long as the caller likes: the mesh has no limit of its own
/// while somebody waits. On others the message is on its way as it is.
async fn confirm(node: &Node, appended: Appended, reach: &Reach, timeout: Duration) -> Result<Published, PublishError> {
    let Appended { id, shard, sequence, .. } = appended;
    let mut published = Published { id, peers: reach.linked, listeners: reach.peers, local: reach.local };
    if !node.about.short_lived {
        return Ok(published);
    }
    let answer = tokio::time::timeout(timeout, node.handle.ask(Command::Confirm { shard, sequence })).await;
    let confirmation = match answer {
        Ok(Ok(Answer::Confirmed(confirmation))) => confirmation,
        Ok(Err(closed)) => return Err(closed.into()),
        Ok(Ok(_)) => return Err(Closed.into()),
        Err(_) => return Err(PublishError::Unconfirmed),
    };
    if confirmation.peers == 0 && confirmation.failed {
        return Err(PublishError::Unconfirmed);
    }
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    published.peers = count(confirmation.peers);
    published.listeners = published.listeners.max(count(confirmation.listeners));
    Ok(published)
}

/// Publishes values on one topic, fast: who listens is looked up once, until it changes.
///
/// For headers or another content type there is [`Node::publish`].
///
/// ```
/// # use pombo::{Node, Topic};
/// # const PRICES: Topic<u64> = Topic::new("shop.prices");
/// # async fn f(node: Node) -> Result<(), pombo::PublishError> {
/// let prices = node.publisher(PRICES);
/// prices.ready(1).await?;
/// println!("{} has a listener", prices.topic());
/// for price in 1..=1_000 {
///     prices.publish(&price).await?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct Publisher<T, E> {
    node: Node,
    topic: Topic<T, E>,
    shard: u8,
    known: Mutex<Known>,
}

/// What a publisher keeps from message to message.
struct Known {
    routes: watch::Receiver<Arc<Routes>>,
    /// The groups that listened when last looked, if any.
    groups: Option<Arc<[Group]>>,
    /// Where values are encoded. One that is published meanwhile finds none, and makes its own.
    buffer: Vec<u8>,
}

/// A publisher keeps no larger buffer: few values need one.
const KEPT: usize = 64 * 1024;

impl<T, E: Encoding<T>> Publisher<T, E> {
    pub(crate) fn new(node: Node, topic: Topic<T, E>) -> Self {
        let mut routes = node.handle.routes.clone();
        let groups = groups(&routes.borrow_and_update(), topic.name(), &node);
        let shard = shard_of(topic.name());
        Self { node, topic, shard, known: Mutex::new(Known { routes, groups, buffer: Vec::new() }) }
    }

    /// The topic.
    pub fn topic(&self) -> &Topic<T, E> {
        &self.topic
    }

    /// Publishes a value. Returns when it is queued; a full queue is waited for. On a short-lived node, too, it does
    /// not wait for the neighbours' word. Dropping the future while it waits for room publishes nothing.
    ///
    /// # Errors
    ///
    /// If the value cannot be encoded or is too large, or the node is gone.
    pub async fn publish(&self, value: &T) -> Result<MessageId, PublishError> {
        let (groups, mut buffer) = self.look();
        let payload = E::encode_in(value, &mut buffer).map_err(PublishError::Encode)?;
        let headers = Headers::default();
        check(payload, &headers, E::CONTENT_TYPE, self.node.about.limits.message)?;
        let draft = Draft {
            topic: self.topic.name(),
            shard: self.shard,
            content_type: E::CONTENT_TYPE,
            headers: &headers,
            groups: groups.as_deref().unwrap_or_default(),
            payload,
        };
        let appended = self.node.handle.press.append(&draft).await?;
        if buffer.capacity() <= KEPT {
            self.known().buffer = buffer;
        }
        Ok(appended.id)
    }

    /// Waits until that many other nodes listen to the topic, however long that takes.
    ///
    /// # Errors
    ///
    /// If the node is gone.
    pub async fn ready(&self, peers: usize) -> Result<(), PublishError> {
        let (topic, me) = (self.topic.name(), self.node.handle.me);
        Ok(self.node.handle.wait_for_routes(|routes| routes.reach(topic, me).peers >= peers).await?)
    }

    /// The groups that listen now, and the buffer.
    fn look(&self) -> (Option<Arc<[Group]>>, Vec<u8>) {
        let mut known = self.known();
        // It is an error when the node is gone.
        if known.routes.has_changed().unwrap_or(true) {
            let Known { routes, groups: who, .. } = &mut *known;
            *who = groups(&routes.borrow_and_update(), self.topic.name(), &self.node);
        }
        (known.groups.clone(), std::mem::take(&mut known.buffer))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in here can panic half-way, so a poisoned lock guards whole data.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn groups(routes: &Routes, topic: &str, node: &Node) -> Option<Arc<[Group]>> {
    let groups = routes.reach(topic, node.handle.me).groups;
    (!groups.is_empty()).then(|| groups.into())
}

impl<T, E> fmt::Debug for Publisher<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("topic", &self.topic).finish_non_exhaustive()
    }
}
