//! The node: a cloneable handle to a running peer.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{broadcast, watch};

use super::local::By;
use super::{Ask, AskMany, Builder, Drain, Publish, Publisher, Serve, Subscribe};
use crate::config::Limits;
use crate::error::Closed;
use crate::mesh::event::{Answer, Command, Event, FoundBy};
use crate::mesh::status::Status;
use crate::net::handle::Handle;
use crate::net::press::LAST_FRAMES;
use crate::payload::Encoding;
use crate::topic::{Pattern, Service, Topic};
use crate::wire::MeshId;

/// A running peer of a mesh. Cheap to clone; every clone is the same node.
///
/// The node ends when the last clone and everything made from it is dropped, or after [`leave`](Node::leave). Dropped,
/// it says goodbye in the background; a runtime that ends with `main` cuts that off, and `leave` waits for it.
///
/// ```no_run
/// use futures::StreamExt;
/// use pombo::{Node, Topic};
///
/// pub const GREETINGS: Topic<String> = Topic::new("demo.greetings");
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder().name("greeter").start().await?;
/// let mut greetings = node.subscribe(GREETINGS).await?;
/// node.publish(GREETINGS, &"hello".to_owned()).await?;
/// if let Some(greeting) = greetings.next().await {
///     println!("{}", *greeting?);
/// }
/// # Ok(())
/// # }
/// ```
///
/// Two nodes of one process, which talk over loopback and nothing else:
///
/// ```
/// use futures::StreamExt;
/// use pombo::{MeshChoice, Multiaddr, Node, Topic};
///
/// const GREETINGS: Topic<String> = Topic::new("demo.greetings");
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let data = tempfile::tempdir()?;
/// let loopback: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse()?;
/// let mesh = MeshChoice::Named("demo".to_owned());
/// let builder = Node::builder().mesh(mesh).data_dir(data.path()).mdns(false).local(false).listen(loopback);
/// let speaker = builder.clone().name("speaker").start().await?;
/// let listener = builder.name("listener").peer(speaker.addresses()[0].clone()).start().await?;
///
/// let mut greetings = listener.subscribe(GREETINGS).await?;
/// let published = speaker.publish(GREETINGS, &"hello".to_owned()).min_peers(1).await?;
/// assert_eq!(published.listeners, 1);
///
/// let greeting = greetings.next().await.ok_or("the node has ended")??;
/// assert_eq!(*greeting, "hello");
/// assert_eq!((greeting.source(), greeting.id()), (speaker.peer_id(), published.id));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) handle: Arc<Handle>,
    pub(crate) about: Arc<About>,
}

/// What does not change while a node runs.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) mesh: MeshInfo,
    pub(crate) discovery: Vec<Discovery>,
    pub(crate) addresses: watch::Receiver<Vec<Multiaddr>>,
    pub(crate) limits: Limits,
    pub(crate) short_lived: bool,
    pub(crate) settled: AtomicBool,
    /// Where its socket would be. `None`: it is not in this host's registry, and nobody would find it.
    pub(crate) socket: Option<PathBuf>,
}

/// The mesh that a node belongs to.
///
/// ```
/// # fn f(node: &pombo::Node) {
/// let mesh = node.mesh();
/// println!("mesh {} ({}), {}", mesh.name, mesh.id, if mesh.open { "open" } else { "private" });
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MeshInfo {
    /// As this host calls it.
    pub name: String,
    /// The same for all its members.
    pub id: MeshId,
    /// Whether it is the open mesh, which anybody may join.
    pub open: bool,
}

/// One way in which a node finds others.
///
/// ```
/// # fn f(node: &pombo::Node) {
/// for way in node.discovery() {
///     match &way.off {
///         None => println!("{:?}: {}", way.by, way.detail),
///         Some(reason) => println!("{:?} is off: {reason}", way.by),
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Discovery {
    /// Which.
    pub by: FoundBy,
    /// Where, for people.
    pub detail: String,
    /// If it is off: why.
    pub off: Option<String>,
}

impl Node {
    /// Sets up a node. [`Builder`] has an example of all options.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// This node's id, made of its key: started again with the same name or key file, the node has the same.
    ///
    /// ```
    /// # fn f(node: &pombo::Node) {
    /// println!("{} is {}", node.name(), node.peer_id());
    /// # }
    /// ```
    pub fn peer_id(&self) -> PeerId {
        self.handle.me
    }

    /// Its name. Names are for people: two nodes of a mesh may have the same.
    pub fn name(&self) -> &str {
        &self.about.name
    }

    /// Its mesh. [`MeshInfo`] has an example.
    pub fn mesh(&self) -> &MeshInfo {
        &self.about.mesh
    }

    /// The addresses that it listens on at the moment.
    ///
    /// They have no peer id, and can be given to another node as they are:
    ///
    /// ```
    /// # async fn f(node: pombo::Node) -> Result<(), pombo::StartError> {
    /// let mut other = pombo::Node::builder();
    /// for address in node.addresses() {
    ///     other = other.peer(address);
    /// }
    /// let other = other.start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn addresses(&self) -> Vec<Multiaddr> {
        self.about.addresses.borrow().clone()
    }

    /// The ways in which it finds others, those that are off too. [`Discovery`] has an example.
    pub fn discovery(&self) -> &[Discovery] {
        &self.about.discovery
    }

    /// Publishes a value to whoever subscribes to the topic now. Await it.
    ///
    /// `Ok` says that the message is on its way, and to how many: it is queued for every listener known here. A
    /// listener that loses it nevertheless is told so in its stream. While [`Limits::outgoing`] is used up, it waits
    /// for room.
    ///
    /// The value is encoded at once; an error of that comes when this is awaited. Dropping the future while it waits
    /// for listeners or for room publishes nothing; once it does not, the message is on its way.
    ///
    /// ```
    /// # use pombo::{Node, Topic};
    /// # const ORDERS: Topic<String> = Topic::new("orders.eu");
    /// # async fn f(node: Node) -> Result<(), pombo::PublishError> {
    /// let reached = node.publish(ORDERS, &"pigeons".to_owned()).header("tenant", "acme").await?;
    /// println!("{} nodes and {} subscribers here", reached.listeners, reached.local);
    /// # Ok(())
    /// # }
    /// ```
    pub fn publish<T, E: Encoding<T>>(&self, topic: Topic<T, E>, value: &T) -> Publish<'_> {
        Publish::new(By::Own(self), topic, value)
    }

    /// The hot path: publishes many values on one topic. [`Publisher`] has an example.
    pub fn publisher<T, E: Encoding<T>>(&self, topic: Topic<T, E>) -> Publisher<T, E> {
        Publisher::new(self.clone(), topic)
    }

    /// Subscribes to a topic or a pattern. Await it to get a stream of messages.
    ///
    /// When it returns, the subscription is in force on this node, and its neighbours have heard of it. What was
    /// published before is not received. Dropping the future before that subscribes to nothing.
    ///
    /// ```
    /// # use futures::StreamExt;
    /// # use pombo::{Json, Node, Pattern};
    /// # async fn f(node: Node) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut orders = node.subscribe(Pattern::<String, Json>::parse("orders.>")?).group("packers").await?;
    /// while let Some(order) = orders.next().await {
    ///     match order {
    ///         Ok(order) => println!("{}: {}", order.topic(), *order),
    ///         Err(gap) => eprintln!("{gap}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe<T, E: Encoding<T>>(&self, pattern: impl Into<Pattern<T, E>>) -> Subscribe<T, E> {
        Subscribe::new(By::Own(self.clone()), pattern.into())
    }

    /// Calls a service, whichever node serves it. Await it to get the answer.
    ///
    /// If nobody is known to serve it, it ends at once; a node that has just started looks around first
    /// ([`settled`](Node::settled)). A provider that is busy or cannot be reached is followed by another; a request
    /// that may have run is not sent again. Dropping the future cancels the request at the provider.
    ///
    /// Any number of requests may be made at once, up to [`Limits::requests`]. To one provider 1,024 travel at a time; more of
    /// them wait here for their turn, each until its own deadline, and have not run if that passes
    /// ([`RequestError::NotSent`](crate::RequestError::NotSent)). How many a provider takes is its own choice
    /// ([`concurrency`](Serve::concurrency)): when all have no room, the request ends at once with
    /// [`RequestError::Busy`](crate::RequestError::Busy), and may be made again.
    ///
    /// ```
    /// # use pombo::{Node, Service};
    /// # use std::time::Duration;
    /// # const UPPER: Service<String, String> = Service::new("text.upper");
    /// # async fn f(node: Node) -> Result<(), pombo::RequestError> {
    /// let answer = node.request(UPPER, &"pombo".to_owned()).timeout(Duration::from_secs(2)).await?;
    /// println!("{}, says {}", *answer, answer.source());
    /// # Ok(())
    /// # }
    /// ```
    pub fn request<Q, R, E>(&self, service: Service<Q, R, E>, question: &Q) -> Ask<'_, R, E>
    where
        E: Encoding<Q> + Encoding<R>,
    {
        Ask::new(By::Own(self), &service, question)
    }

    /// Calls a service at every node that serves it, and returns the stream of their answers.
    ///
    /// All that the roster has as alive are asked at once, this node too if it serves it, or as many as
    /// [`max`](AskMany::max) says. Each answer comes when it is there, with who gave it; a provider that fails has an
    /// error in its place, which names it. The stream ends with the last of them, at the latest when the time is over.
    /// Where nobody serves it, the only item is an error of the outcome [`Nobody`](crate::Outcome::Nobody). Nothing is
    /// sent before the stream is polled; dropping it cancels what is open.
    ///
    /// ```
    /// # use futures::StreamExt;
    /// # use pombo::{Node, Service};
    /// # const PRICE: Service<String, u64> = Service::new("shop.price");
    /// # async fn f(node: Node) {
    /// let mut prices = node.request_many(PRICE, &"pigeons".to_owned()).max(5);
    /// while let Some(price) = prices.next().await {
    ///     match price {
    ///         Ok(price) => println!("{} asks {}", price.source(), *price),
    ///         Err(error) => eprintln!("{error}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn request_many<Q, R, E>(&self, service: Service<Q, R, E>, question: &Q) -> AskMany<R, E>
    where
        E: Encoding<Q> + Encoding<R>,
    {
        AskMany::new(self.clone(), &service, question)
    }

    /// Serves a service. Await it to get a stream of requests, or give it a function [`with`](Serve::with).
    ///
    /// When it returns, the service is served here, and the neighbours have heard of it. Dropping the future before that
    /// serves nothing.
    ///
    /// ```
    /// # use pombo::{Node, Refusal, Service};
    /// # const UPPER: Service<String, String> = Service::new("text.upper");
    /// # async fn f(node: Node) -> Result<(), pombo::SubscribeError> {
    /// let serving = node.serve(UPPER).with(|text| async move { Ok(text.to_uppercase()) }).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve<Q, R, E>(&self, service: Service<Q, R, E>) -> Serve<Q, R, E>
    where
        E: Encoding<Q> + Encoding<R>,
    {
        Serve::new(By::Own(self.clone()), service)
    }

    /// What happens in the mesh, from this call on. A reader that is more than 256 events behind misses the oldest.
    /// The stream ends when the node has ended.
    ///
    /// ```
    /// # use futures::StreamExt;
    /// # async fn f(node: pombo::Node) {
    /// let mut events = node.events();
    /// while let Some(event) = events.next().await {
    ///     if let pombo::Event::Joined { name, .. } = event {
    ///         println!("{name} is here");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn events(&self) -> impl Stream<Item = Event> + Send + Unpin + use<> {
        Events::new(self.handle.events.upgrade().map(|events| events.subscribe()))
    }

    /// What this node knows of itself and the others.
    ///
    /// # Errors
    ///
    /// If the node is gone.
    ///
    /// ```
    /// # async fn f(node: pombo::Node) -> Result<(), pombo::Closed> {
    /// let status = node.status().await?;
    /// let providers = status.peers.iter().filter(|peer| peer.services.iter().any(|name| name == "shop.price"));
    /// println!("{} nodes know the price", providers.count());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn status(&self) -> Result<Status, Closed> {
        match self.handle.ask(Command::Status).await? {
            Answer::Status(mut status) => {
                status.mesh = self.about.mesh.name.clone();
                Ok(*status)
            }
            Answer::Done
            | Answer::TooMany { .. }
            | Answer::Reply { .. }
            | Answer::Failed(_)
            | Answer::Providers(_)
            | Answer::Draining
            | Answer::Post(_)
            | Answer::Confirmed(_) => Err(Closed),
        }
    }

    /// Waits until this node is linked to at least `peers` others, however long that takes.
    ///
    /// # Errors
    ///
    /// If the node is gone.
    ///
    /// ```
    /// # async fn f(node: pombo::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// tokio::time::timeout(std::time::Duration::from_secs(5), node.ready(2)).await??;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ready(&self, peers: usize) -> Result<(), Closed> {
        let linked = |routes: &crate::mesh::routes::Routes| routes.remote.iter().filter(|node| node.linked).count();
        self.handle.wait_for_routes(|routes| linked(routes) >= peers).await
    }

    /// Waits until the first look-around is over: those who were found have told what they know of the mesh, or nobody
    /// was found within a second or so.
    ///
    /// # Errors
    ///
    /// If the node is gone.
    ///
    /// ```
    /// # async fn f(node: pombo::Node) -> Result<(), pombo::Closed> {
    /// node.settled().await?;
    /// if node.status().await?.peers.is_empty() {
    ///     println!("nobody else is here");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn settled(&self) -> Result<(), Closed> {
        // Asked once, so that publications that follow each other are not put out of order by waiting for the answer.
        if !self.about.settled.load(Ordering::Acquire) {
            self.handle.ask(Command::Settle).await?;
            self.about.settled.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Finishes what was accepted, takes nothing new, and then leaves as [`leave`](Self::leave) does. Await it.
    ///
    /// For programs that others depend on, when they are told to stop: with it a restart costs no call. [`Drain`] says what
    /// is finished, and for how long that is waited for.
    ///
    /// ```
    /// # async fn f(node: pombo::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// tokio::signal::ctrl_c().await?;
    /// node.drain().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn drain(&self) -> Drain<'_> {
        Drain::new(self)
    }

    /// Sees what was published out, says goodbye, so that the others see this node go at once, and ends it.
    ///
    /// Whoever publishes on a clone from now on is told that the node is gone.
    ///
    /// Waits until direct neighbours have what they listen to, or do not answer; that takes three seconds at most.
    ///
    /// All clones end with it: subscribers read what has come and then end, and what needs the node fails with
    /// [`Closed`].
    ///
    /// ```
    /// # use pombo::{Node, PublishError, Topic};
    /// # const DONE: Topic<u32> = Topic::new("jobs.done");
    /// # async fn f(node: Node) -> Result<(), PublishError> {
    /// node.publish(DONE, &7).await?;
    /// node.leave().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn leave(&self) {
        // Before anything else: what is accepted later would be lost, and its publisher told that all is well.
        self.handle.press.close();
        // Held back only by neighbours that do not keep up. The driver says how many messages were cut off.
        drop(tokio::time::timeout(LAST_FRAMES, self.handle.press.drained()).await);
        // A node that is gone has left.
        if self.handle.ask(Command::Leave).await.is_ok() {
            let _gone = self.handle.stop.send(()).await;
        }
        self.handle.stop.closed().await;
    }
}

/// Events as a stream.
struct Events {
    inner: Pin<Box<dyn Stream<Item = Event> + Send>>,
}

impl Events {
    /// None if the node is gone: nothing happens any more.
    fn new(receiver: Option<broadcast::Receiver<Event>>) -> Self {
        let next = |receiver: Option<broadcast::Receiver<Event>>| async move {
            let mut receiver = receiver?;
            loop {
                match receiver.recv().await {
                    Ok(event) => return Some((event, Some(receiver))),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        };
        Self { inner: Box::pin(futures::stream::unfold(receiver, next)) }
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.inner.poll_next_unpin(context)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::config::{Config, MeshChoice};
    use crate::{Bincode, PublishError, Publisher, Subscriber};

    /// Numbered, and large, so that few of them fill what waits.
    type Parcel = (u32, String);

    const PARCELS: Topic<Parcel> = Topic::new("demo.parcels");
    const SOON: Duration = Duration::from_secs(20);

    fn parcel(number: u32) -> Parcel {
        (number, "x".repeat(50_000))
    }

    /// One that listens, and one that publishes to it and lets little wait.
    async fn pair(data: &std::path::Path) -> (Node, Subscriber<Parcel, Bincode>, Node) {
        let node = |name| {
            let mesh = MeshChoice::Named("test".to_owned());
            let limits = Limits { outgoing: 2 << 20, ..Limits::default() };
            let config = Config { limits, ..Config::default() };
            let builder = Node::builder().config(config).name(name).mesh(mesh).data_dir(data).mdns(false).local(false);
            builder.listen("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        };
        let listener = node("listener").start().await.unwrap();
        let parcels = listener.subscribe(PARCELS).await.unwrap();
        let publisher = node("publisher").peer(listener.addresses()[0].clone()).start().await.unwrap();
        timeout(SOON, publisher.publisher(PARCELS).ready(1)).await.unwrap().unwrap();
        (listener, parcels, publisher)
    }

    async fn hears(parcels: &mut Subscriber<Parcel, Bincode>, mut heard: BTreeSet<u32>, wanted: &BTreeSet<u32>) {
        while !wanted.is_subset(&heard) {
            let next = timeout(SOON, parcels.next()).await;
            let missing = || wanted.difference(&heard).collect::<Vec<_>>();
            let parcel = next.unwrap_or_else(|_| panic!("{:?} are missing", missing())).unwrap().unwrap();
            heard.insert(parcel.0);
        }
    }

    /// Publishes until it is told that the node is gone. Returns what was accepted.
    async fn flat_out(publisher: Publisher<Parcel, Bincode>) -> BTreeSet<u32> {
        let mut accepted = BTreeSet::new();
        for number in 0.. {
            match publisher.publish(&parcel(number)).await {
                Ok(_) => accepted.insert(number),
                Err(PublishError::Closed(_)) => break,
                Err(error) => panic!("{error}"),
            };
            tokio::task::yield_now().await;
        }
        accepted
    }

    #[tokio::test]
    async fn what_was_published_before_the_last_handle_went_arrives() {
        let data = tempfile::tempdir().unwrap();
        let (_listener, mut parcels, node) = pair(data.path()).await;
        let publisher = node.publisher(PARCELS);
        for number in 0..35 {
            publisher.publish(&parcel(number)).await.unwrap();
        }
        drop((publisher, node));
        hears(&mut parcels, BTreeSet::new(), &(0..35).collect()).await;
    }

    #[tokio::test]
    async fn what_a_clone_publishes_while_the_node_leaves_arrives_or_fails() {
        let data = tempfile::tempdir().unwrap();
        let (_listener, mut parcels, node) = pair(data.path()).await;
        let leaving = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            node.leave().await;
        };
        let mut ending = std::pin::pin!(futures::future::join(flat_out(node.publisher(PARCELS)), leaving));
        let mut heard = BTreeSet::new();
        let reading = async {
            loop {
                tokio::select! {
                    (accepted, ()) = &mut ending => return accepted,
                    parcel = parcels.next() => heard.insert(parcel.unwrap().unwrap().0),
                };
            }
        };
        let accepted = timeout(SOON, reading).await.unwrap();
        hears(&mut parcels, heard, &accepted).await;
    }
}
