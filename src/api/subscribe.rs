//! Subscribing: setting it up, and the stream of messages.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};

use super::durable::SubscribeDurable;
use super::local::{Arrivals, By, millis};
use super::unpack::Unpacker;
use super::{Node, RunningNode};
use crate::error::{Closed, RecvError, SubscribeError};
use crate::mesh::event::{Answer, Delivery, SubscriberId};
use crate::message::Message;
use crate::net::handle::Registered;
use crate::net::mailbox::Mailbox;
use crate::payload::Encoding;
use crate::topic::{Pattern, check_name};
use crate::wire::local::ToNode;

/// How long peers are waited for, unless a time is given.
const PATIENCE: Duration = Duration::from_secs(5);

/// A subscription that is to be set up. Await it.
///
/// ```
/// # use pombo::{Node, RawPattern};
/// # use std::time::Duration;
/// # async fn f(node: Node) -> Result<(), Box<dyn std::error::Error>> {
/// let orders = node
///     .subscribe(RawPattern::parse("orders.*.created")?)
///     .also(RawPattern::parse("returns.>")?)
///     .group("packers")
///     .ready(1)
///     .timeout(Duration::from_secs(2))
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a subscription is set up only when this is awaited"]
pub struct Subscribe<T, E> {
    by: By<Node, RunningNode>,
    patterns: Vec<Pattern<T, E>>,
    group: Option<String>,
    peers: usize,
    timeout: Duration,
}

impl<T, E: Encoding<T>> Subscribe<T, E> {
    pub(super) fn new(by: By<Node, RunningNode>, pattern: Pattern<T, E>) -> Self {
        Self { by, patterns: vec![pattern], group: None, peers: 0, timeout: PATIENCE }
    }

    /// Listens to another pattern as well. A message that several patterns match is received once.
    pub fn also(mut self, pattern: impl Into<Pattern<T, E>>) -> Self {
        self.patterns.push(pattern.into());
        self
    }

    /// Shares the messages with all subscribers of that group, in the whole mesh: each goes to one of them.
    ///
    /// A group's name follows the rules of a topic's. While members come and go, a message may reach none of them: its
    /// publisher chooses the member, and writes the choice into the message.
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Waits until this node is linked to that many others, who then know of the subscription.
    ///
    /// If they do not come in time, it fails with [`SubscribeError::Nobody`] and nothing is subscribed to.
    pub fn ready(mut self, peers: usize) -> Self {
        self.peers = peers;
        self
    }

    /// How long [`ready`](Self::ready) waits. 5 s without this.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Holds the durable subscription of that name, which is made if it is not there. Its name follows the rules of a topic's
    /// and stands for it in the whole mesh, with this pattern.
    ///
    /// It gets what is [guaranteed](crate::Publish::guaranteed), and nothing else: what was published since the subscription
    /// was made, whether or not anybody held it or this node was running meanwhile. Each message is handed out until it is
    /// acknowledged. One subscriber holds it at a time.
    ///
    /// ```
    /// # use futures::StreamExt;
    /// # use pombo::{Node, Topic};
    /// # use std::time::Duration;
    /// # const ORDERS: Topic<String> = Topic::new("orders.eu");
    /// # fn book(order: &str) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn f(node: Node) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut orders = node.subscribe(ORDERS).durable("billing").await?;
    /// while let Some(order) = orders.next().await {
    ///     let order = order?;
    ///     match book(&order) {
    ///         Ok(()) => order.ack().await?,
    ///         Err(_) => order.nack(Duration::from_secs(10)),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn durable(mut self, name: impl Into<String>) -> SubscribeDurable<T, E> {
        let unfit = match (self.patterns.len(), &self.group) {
            (1, None) => None,
            (_, Some(_)) => Some("it cannot be in a group: leave out either"),
            (_, None) => Some("it has one pattern: use one that covers all of them, or several subscriptions"),
        };
        SubscribeDurable::new(self.by, self.patterns.swap_remove(0), name.into(), unfit)
    }

    async fn set_up(self) -> Result<Subscriber<T, E>, SubscribeError> {
        if let Some(group) = &self.group {
            check_name(group)?;
        }
        let patterns: Vec<Arc<str>> = self.patterns.iter().map(Pattern::text).collect();
        let source = match self.by {
            By::Own(node) => {
                let group = self.group.as_deref().map(Into::into);
                own(&node, patterns, group, self.peers, self.timeout).await?
            }
            By::Running(node) => {
                let record = ToNode::Subscribe {
                    patterns: patterns.iter().map(ToString::to_string).collect(),
                    group: self.group,
                    peers: u32::try_from(self.peers).unwrap_or(u32::MAX),
                    timeout: millis(self.timeout),
                    extensions: Vec::new(),
                };
                Source::Running(node.listen(record, self.timeout).await?)
            }
        };
        Ok(Subscriber { source, types: PhantomData })
    }
}

/// A subscription of that node, once it is linked to so many others.
async fn own(
    node: &Node,
    patterns: Vec<Arc<str>>,
    group: Option<Arc<str>>,
    peers: usize,
    timeout: Duration,
) -> Result<Source, SubscribeError> {
    if peers > 0 && tokio::time::timeout(timeout, node.ready(peers)).await.is_err() {
        let found = node.handle.routes.borrow().remote.iter().filter(|node| node.linked).count();
        return Err(SubscribeError::Nobody { wanted: peers, found });
    }
    let (handle, limits) = (&node.handle, &node.about.limits);
    let (registered, mailbox, answer) = handle.subscribe(patterns.clone(), group.clone(), limits.mailbox).await?;
    match answer {
        Answer::TooMany { limit } => Err(SubscribeError::TooMany { limit }),
        Answer::Draining => Err(SubscribeError::Draining),
        Answer::Done => {
            let unpacker = Unpacker::new(handle.me, registered.id, patterns, group, limits.message);
            Ok(Source::Own(Box::new(Own { registered, mailbox, unpacker })))
        }
        Answer::Reply { .. }
        | Answer::Failed(_)
        | Answer::Providers(_)
        | Answer::Post(_)
        | Answer::Confirmed(_)
        | Answer::Status(_) => Err(Closed.into()),
    }
}

impl<T: 'static, E: Encoding<T> + 'static> IntoFuture for Subscribe<T, E> {
    type Output = Result<Subscriber<T, E>, SubscribeError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.set_up())
    }
}

impl<T, E> fmt::Debug for Subscribe<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribe").field("patterns", &self.patterns).finish_non_exhaustive()
    }
}

/// A stream of messages. Dropping it ends the subscription.
///
/// Messages of one publisher on one topic come in the order in which they were published. Where some are missing, the
/// stream has [`RecvError::Lagged`] in their place, and goes on. A future of `next` that is dropped loses nothing. When
/// the node has ended and what had come is read, the stream ends.
///
/// ```
/// # use futures::StreamExt;
/// # use pombo::{Node, RecvError, SubscribeError, Topic};
/// # const PRICES: Topic<u64> = Topic::new("shop.prices");
/// # async fn f(node: Node) -> Result<(), SubscribeError> {
/// let mut prices = node.subscribe(PRICES).await?;
/// while let Some(price) = prices.next().await {
///     match price {
///         Ok(price) => println!("{}", *price),
///         Err(RecvError::Lagged { missed, .. }) => println!("{missed} prices were missed"),
///         Err(other) => println!("{other}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Subscriber<T, E> {
    source: Source,
    types: PhantomData<fn() -> (T, E)>,
}

/// Where messages come from.
enum Source {
    Own(Box<Own>),
    /// Over the socket of a node that runs beside this process.
    Running(Arrivals),
}

/// A subscription of a node of this process.
struct Own {
    registered: Registered<SubscriberId>,
    mailbox: Arc<Mailbox>,
    unpacker: Unpacker,
}

impl Own {
    fn poll<T, E: Encoding<T>>(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Message<T>, RecvError>>> {
        // A reader that always finds something must not keep the node's own tasks from running.
        let turn = ready!(tokio::task::coop::poll_proceed(context));
        loop {
            if let Some(next) = self.unpacker.next::<T, E>() {
                turn.made_progress();
                return Poll::Ready(Some(next));
            }
            match ready!(self.mailbox.poll_take(context)) {
                Some(Delivery::Frame(frame, routes)) => {
                    self.unpacker.open(frame, &routes);
                    if self.mailbox.is_behind() {
                        self.registered.handle.hub.progress(self.registered.id);
                    }
                }
                Some(Delivery::Lagged(lag)) => return Poll::Ready(Some(Err(lag.into()))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // What is delivered until the mesh hears of it finds no reader.
        self.mailbox.close();
    }
}

impl<T, E: Encoding<T>> Stream for Subscriber<T, E> {
    type Item = Result<Message<T>, RecvError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.source {
            Source::Own(own) => own.poll::<T, E>(context),
            Source::Running(arrivals) => arrivals
                .poll_next_unpin(context)
                .map(|arrived| arrived.map(|arrived| arrived.and_then(decoded::<T, E>))),
        }
    }
}

/// The message with its payload decoded.
pub(super) fn decoded<T, E: Encoding<T>>(message: Message<Bytes>) -> Result<Message<T>, RecvError> {
    let Message { origin, id, time, headers, payload } = message;
    match E::decode(&payload) {
        Ok(payload) => Ok(Message { origin, id, time, headers, payload }),
        Err(reason) => Err(RecvError::Decode { topic: origin.topic.clone(), source_peer: origin.source, reason }),
    }
}

impl<T, E> fmt::Debug for Subscriber<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = match &self.source {
            Source::Own(own) => Some(own.registered.id),
            Source::Running(_) => None,
        };
        f.debug_struct("Subscriber").field("id", &id).finish_non_exhaustive()
    }
}
