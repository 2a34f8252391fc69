//! A node that runs beside this process, as it is used from here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use libp2p::PeerId;
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::posts::Posts;
use super::translate::{message, not_set_up, size, status, unanswered, unpublished};
use super::{By, Calls, GREETING};
use crate::api::{Ask, Publish, Published, Serve, Subscribe};
use crate::config::Config;
use crate::error::{Closed, PublishError, RecvError, RequestError, SubscribeError};
use crate::mesh::event::FoundBy;
use crate::mesh::status::PeerStatus;
use crate::message::Message;
use crate::net::local::{self, Beside, Line};
use crate::payload::Encoding;
use crate::topic::{Pattern, Service, Topic};
use crate::wire::local::{FromNode, Post, ToNode};
use crate::wire::rpc::{Call, Reply};

mod post;

/// How long the node may take for what it does at once, and beyond the time that something was given.
const GRACE: Duration = Duration::from_secs(10);

/// A node of this user that runs on this host in another process, and does what is asked for here.
///
/// To the mesh it is that node which publishes, subscribes, asks and serves; what it holds for this process goes when this
/// process does, or drops it. Cheap to clone. [`Builder::running`](crate::Builder::running) finds one, and
/// [`Node::offer`](crate::Node::offer) makes a node one that is found.
///
/// ```no_run
/// use pombo::{Node, RawTopic};
///
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// if let Some(node) = Node::builder().running().await {
///     let published = node.publish(RawTopic::parse("demo.hello")?, &"hi".into()).await?;
///     println!("{} has it, {} listen", node.name(), published.listeners);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RunningNode {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    beside: Beside,
    name: String,
    peer: PeerId,
    posts: OnceCell<Posts>,
    /// Whether services are to be finished. Each holds a receiver.
    finishing: watch::Sender<bool>,
}

impl RunningNode {
    /// The one that can stand in for a node of this configuration.
    pub(crate) async fn find(config: &Config) -> Option<Self> {
        let beside = local::beside(config)?;
        match welcomed(&beside).await {
            Ok((_, name, peer)) => {
                let (posts, finishing) = (OnceCell::new(), watch::Sender::new(false));
                Some(Self { shared: Arc::new(Shared { beside, name, peer, posts, finishing }) })
            }
            Err(error) => {
                debug!(socket = %beside.socket.display(), %error, "a node that runs cannot be used");
                None
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Its id: the source of what is published and asked here.
    pub fn peer_id(&self) -> PeerId {
        self.shared.peer
    }

    /// As [`Node::publish`](crate::Node::publish).
    ///
    /// The node counts every subscriber as one that listens, its own too: they are other processes. `Ok` says that the node has
    /// it. Where the node ends before it says so, the error is [`PublishError::Unconfirmed`]: it may be published. Dropping the
    /// future does not take it back.
    pub fn publish<T, E: Encoding<T>>(&self, topic: Topic<T, E>, value: &T) -> Publish<'_> {
        Publish::new(By::Running(self), topic, value)
    }

    /// As [`Node::subscribe`](crate::Node::subscribe). What waits for this process is bounded by the node's
    /// [`Limits::mailbox`](crate::Limits::mailbox), and the stream ends with the node.
    pub fn subscribe<T, E: Encoding<T>>(&self, pattern: impl Into<Pattern<T, E>>) -> Subscribe<T, E> {
        Subscribe::new(By::Running(self.clone()), pattern.into())
    }

    /// As [`Node::request`](crate::Node::request). Where the node ends before there is an answer, the error is
    /// [`RequestError::Unknown`].
    pub fn request<Q, R, E>(&self, service: Service<Q, R, E>, question: &Q) -> Ask<'_, R, E>
    where
        E: Encoding<Q> + Encoding<R>,
    {
        Ask::new(By::Running(self), &service, question)
    }

    /// As [`Node::serve`](crate::Node::serve). The stream ends with the node.
    pub fn serve<Q, R, E>(&self, service: Service<Q, R, E>) -> Serve<Q, R, E>
    where
        E: Encoding<Q> + Encoding<R>,
    {
        Serve::new(By::Running(self.clone()), service)
    }

    /// The nodes of its mesh as it knows them, and itself, sorted by name. It waits for its first look-around.
    ///
    /// # Errors
    ///
    /// If the node is gone, or does not answer within 10 s.
    ///
    /// ```
    /// # async fn f(node: pombo::RunningNode) -> Result<(), pombo::Closed> {
    /// for peer in node.peers().await? {
    ///     println!("{} serves {:?}", peer.name, peer.services);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn peers(&self) -> Result<Vec<PeerStatus>, Closed> {
        let asked = async {
            let mut line = self.ask(&ToNode::Peers { extensions: Vec::new() }).await?;
            let mut peers = Vec::new();
            while let FromNode::Peer(peer) = line.reader.next().await?.ok_or(io::ErrorKind::UnexpectedEof)? {
                peers.extend(status(*peer));
            }
            io::Result::Ok(peers)
        };
        let mut peers = timeout(GRACE, asked).await.map_err(|_| Closed)?.map_err(gone)?;
        if let Some(this) = peers.iter_mut().find(|peer| peer.peer == self.shared.peer) {
            // From here it is linked, by its socket.
            (this.links, this.found_by) = (1, Some(FoundBy::Local));
        }
        peers.sort_by(|one, other| (&one.name, one.peer).cmp(&(&other.name, other.peer)));
        Ok(peers)
    }

    /// Yields whenever [`peers`](Self::peers) may have another answer, from this call on. It ends with the node.
    ///
    /// # Errors
    ///
    /// If the node is gone, or does not answer within 10 s.
    ///
    /// ```
    /// # use futures::StreamExt;
    /// # async fn f(node: pombo::RunningNode) -> Result<(), pombo::Closed> {
    /// let mut changes = node.changes().await?;
    /// while let Some(()) = changes.next().await {
    ///     println!("{} nodes", node.peers().await?.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn changes(&self) -> Result<impl Stream<Item = ()> + Send + Unpin + use<>, Closed> {
        let line = self.set_up(&ToNode::Watch { extensions: Vec::new() }, GRACE).await.map_err(|_| Closed)?;
        let changes = futures::stream::unfold(line, async |mut line| {
            let record = line.reader.next().await.ok()??;
            matches!(record, FromNode::Changed { .. }).then_some(((), line))
        });
        Ok(changes.boxed())
    }

    /// Takes nothing new for what this process serves, and returns when all that it was asked is answered. The streams of
    /// requests end.
    ///
    /// ```
    /// # async fn f(node: pombo::RunningNode) {
    /// # use std::time::Duration;
    /// let all_answered = tokio::time::timeout(Duration::from_secs(30), node.finish()).await.is_ok();
    /// # }
    /// ```
    pub async fn finish(&self) {
        self.shared.finishing.send_replace(true);
        self.shared.finishing.closed().await;
    }

    /// A connection on which this was said.
    async fn ask(&self, record: &ToNode) -> io::Result<Line> {
        let (mut line, ..) = welcomed(&self.shared.beside).await?;
        line.writer.send(record).await?;
        Ok(line)
    }

    /// The same, once what was said is in force.
    async fn set_up(&self, record: &ToNode, most: Duration) -> Result<Line, SubscribeError> {
        let asked = async {
            let mut line = self.ask(record).await?;
            let answer = line.reader.next().await?;
            io::Result::Ok((line, answer))
        };
        let (line, answer) = timeout(most, asked).await.map_err(|_| Closed)?.map_err(gone)?;
        match answer {
            Some(FromNode::Done { .. }) => Ok(line),
            Some(FromNode::Failed { failure, .. }) => Err(not_set_up(failure)),
            Some(_) | None => Err(Closed.into()),
        }
    }

    pub(in crate::api) async fn post(&self, post: Post, patience: Duration) -> Result<Published, PublishError> {
        let topic = post.topic.clone();
        match self.posted(post, patience).await {
            Ok(FromNode::Published { id, listeners, .. }) => {
                Ok(Published { id, peers: 1, listeners: size(listeners), local: 0 })
            }
            Ok(FromNode::Failed { failure, .. }) => Err(unpublished(failure, &topic)),
            Ok(_) => Err(PublishError::Unconfirmed),
            Err(error) => Err(error),
        }
    }

    /// What the node says of a message that it was given.
    async fn posted(&self, post: Post, patience: Duration) -> Result<FromNode, PublishError> {
        let deadline = Instant::now() + patience.saturating_add(GRACE).min(FOREVER);
        let open = async {
            let (line, ..) = welcomed(&self.shared.beside).await?;
            Ok(Posts::new(line))
        };
        let posts = self.shared.posts.get_or_try_init(|| open).await.map_err(gone)?;
        match timeout_at(deadline, posts.post(post)).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Err(closed)) => Err(closed.into()),
            Ok(Ok(None)) | Err(_) => Err(PublishError::Unconfirmed),
        }
    }

    pub(in crate::api) async fn call(&self, to: Option<String>, call: Call) -> Result<(PeerId, Reply), RequestError> {
        let (service, named) = (call.service.clone(), to.clone());
        let patience = Duration::from_millis(call.timeout).saturating_add(GRACE).min(FOREVER);
        let unknown = || RequestError::Unknown { service: service.clone() };
        // Where it does not get there whole it is not run.
        let mut line = self.ask(&ToNode::Request { to, call }).await.map_err(gone)?;
        match timeout(patience, line.reader.next()).await {
            Ok(Ok(Some(FromNode::Reply { from, reply }))) => Ok((from.peer().ok_or_else(unknown)?, reply)),
            Ok(Ok(Some(FromNode::Failed { failure, .. }))) => Err(unanswered(failure, &service, named.as_deref())),
            Ok(Ok(Some(_) | None) | Err(_)) | Err(_) => Err(unknown()),
        }
    }

    pub(in crate::api) async fn listen(&self, record: ToNode, patience: Duration) -> Result<Arrivals, SubscribeError> {
        let line = self.set_up(&record, patience.saturating_add(GRACE).min(FOREVER)).await?;
        let arrivals = futures::stream::unfold(line, async |mut line| {
            let record = line.reader.next().await.ok()??;
            Some((arrived(record)?, line))
        });
        Ok(arrivals.boxed())
    }

    pub(in crate::api) async fn take_calls(&self, service: String, room: u32) -> Result<Calls, SubscribeError> {
        let finishing = self.shared.finishing.subscribe();
        let line = self.set_up(&ToNode::Serve { service, room, extensions: Vec::new() }, GRACE).await?;
        Ok(Calls::new(line, room, finishing))
    }
}

/// What arrives for a subscriber.
pub(in crate::api) type Arrivals = BoxStream<'static, Result<Message<Bytes>, RecvError>>;

/// Longer than anybody waits.
const FOREVER: Duration = Duration::from_secs(100 * 24 * 3600);

/// A connection to a node that has said who it is.
async fn welcomed(beside: &Beside) -> io::Result<(Line, String, PeerId)> {
    let greeting = async {
        let mut line = local::connect(&beside.socket).await?;
        line.writer.send(&ToNode::Hello { extensions: Vec::new() }).await?;
        match line.reader.next().await? {
            Some(FromNode::Welcome { node, name, mesh, .. }) if mesh == beside.mesh => {
                let peer = node.peer().ok_or(io::ErrorKind::InvalidData)?;
                Ok((line, name, peer))
            }
            Some(_) => Err(io::Error::new(io::ErrorKind::ResourceBusy, "it has no room, or is in another mesh")),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    timeout(GREETING, greeting).await?
}

fn gone(error: io::Error) -> Closed {
    debug!(%error, "the node that runs is gone");
    Closed
}

/// What a subscriber gets; `None` for what has no place there.
fn arrived(record: FromNode) -> Option<Result<Message<Bytes>, RecvError>> {
    if let FromNode::Lagged { missed, exact, .. } = record {
        return Some(Err(RecvError::Lagged { missed, exact }));
    }
    let FromNode::Message(arrived) = record else { return None };
    message(arrived).map(Ok)
}
