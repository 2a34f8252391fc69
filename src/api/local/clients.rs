//! One connection of another process: what it wants, done by this node.
//!
//! When the process closes the connection, or dies, the future that does its work is dropped, and with it what it held.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::GREETING;
use super::translate::{arrived, done, failed, kept, millis, peer, size};
use crate::api::{Incoming, Node, Provider, Subscriber};
use crate::error::{Closed, RecvError, RequestError};
use crate::message::Message;
use crate::net::handle::Gone;
use crate::net::local::{Line, Reader, Writer};
use crate::payload::Raw;
use crate::topic::{RawPattern, RawService, RawTopic};
use crate::wire::local::{Failure, FromNode, Guarantee, Post, ToNode};
use crate::wire::node_key::NodeKey;
use crate::wire::rpc::{Call, Reply, ReplyStatus};

mod post;

/// So many bytes are written at once, where there are as many.
const PAGE: usize = 64 * 1024;

/// So many guaranteed messages may be on their way to the disk at once: they go there together.
const TOGETHER: usize = 256;

/// Who has just begun to serve, and may have no link yet, is waited for so long.
const LOOK_AROUND: Duration = Duration::from_millis(500);

/// A connection, and the node that works for it.
pub(super) struct Client {
    node: Node,
    reader: Reader,
    writer: Writer,
    /// What this node subscribes to or serves has changed.
    changed: watch::Sender<()>,
}

/// What this node subscribes to or serves changes now, and again when this is dropped.
struct Held(watch::Sender<()>);

impl Held {
    fn new(changed: &watch::Sender<()>) -> Self {
        changed.send_replace(());
        Self(changed.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.send_replace(());
    }
}

impl Client {
    pub(super) fn new(node: Node, line: Line, changed: watch::Sender<()>) -> Self {
        let Line { reader, writer } = line;
        Self { node, reader, writer, changed }
    }

    pub(super) async fn run(self) {
        if let Err(error) = self.attend().await {
            debug!(%error, "a connection over the socket ended");
        }
    }

    async fn attend(mut self) -> io::Result<()> {
        match timeout(GREETING, self.greet()).await?? {
            None => Ok(()),
            Some(ToNode::Publish(post)) => self.publish(post).await,
            Some(ToNode::Subscribe { patterns, group, peers, timeout, .. }) => {
                self.subscribe(&patterns, group, size(peers), Duration::from_millis(timeout)).await
            }
            Some(ToNode::Request { to, call }) => self.request(to, call).await,
            Some(ToNode::Serve { service, room, .. }) => self.serve(&service, size(room)).await,
            Some(ToNode::Peers { .. }) => self.peers().await,
            Some(ToNode::Watch { .. }) => self.watch().await,
            Some(ToNode::Hold { name, pattern, window, attempts, .. }) => {
                self.hold(name, &pattern, (size(window), attempts)).await
            }
            Some(ToNode::Notices { .. }) => self.notices().await,
            Some(ToNode::Notice { number, recipient, act, .. }) => self.act(number, &recipient, act).await,
            Some(ToNode::Outbox { .. }) => self.outbox().await,
            Some(ToNode::Durables { .. }) => self.durables().await,
            Some(ToNode::Remove { name, .. }) => self.remove(&name).await,
            Some(ToNode::Where { id, .. }) => self.whereabouts(id).await,
            Some(
                ToNode::Hello { .. }
                | ToNode::Reply { .. }
                | ToNode::Finish { .. }
                | ToNode::Acknowledge { .. }
                | ToNode::GiveBack { .. },
            ) => Err(out_of_place()),
        }
    }

    /// Says who this is, and hears what is wanted.
    async fn greet(&mut self) -> io::Result<Option<ToNode>> {
        match self.reader.next().await? {
            Some(ToNode::Hello { .. }) => {}
            Some(_) => return Err(out_of_place()),
            None => return Ok(None),
        }
        let node = NodeKey::of(&self.node.peer_id()).ok_or(io::ErrorKind::Unsupported)?;
        let (name, mesh) = (self.node.name().to_owned(), self.node.mesh().id);
        self.writer.send(&FromNode::Welcome { node, name, mesh, extensions: Vec::new() }).await?;
        self.reader.next().await
    }

    /// One after the other, in their order; those with a guarantee together, so that they go to the disk together, once the node has
    /// looked around for the first of them: until then they would not keep their order. The next is read meanwhile, so that it is
    /// seen when nobody waits any more.
    async fn publish(mut self, first: Post) -> io::Result<()> {
        let (node, mut next) = (self.node.clone(), Some(first));
        let mut under_way = FuturesOrdered::new();
        let (mut most, mut guaranteed, mut has_looked_around) = (1, false, false);
        loop {
            if let Some(post) =
                next.take_if(|post| under_way.is_empty() || post.guarantee.is_some() && under_way.len() < most)
            {
                guaranteed = post.guarantee.is_some();
                most = if guaranteed && has_looked_around { TOGETHER } else { 1 };
                under_way.push_back(publish(&node, post));
            }
            tokio::select! {
                biased;
                Some(answer) = under_way.next() => {
                    has_looked_around |= guaranteed;
                    self.writer.put(&answer)?;
                }
                read = read_post(&mut self.reader), if next.is_none() => match read? {
                    Some(post) => next = Some(post),
                    None => return Ok(()),
                },
            }
            // Where another is here already, its answer goes with this one.
            if next.is_none() && self.writer.waiting() > 0 {
                next = read_post(&mut self.reader).now_or_never().transpose()?.flatten();
            }
            if next.is_none() || self.writer.waiting() >= PAGE {
                self.writer.flush().await?;
            }
        }
    }

    async fn subscribe(
        mut self,
        patterns: &[String],
        group: Option<String>,
        peers: usize,
        patience: Duration,
    ) -> io::Result<()> {
        let mut patterns = patterns.iter().map(|pattern| RawPattern::parse(pattern).map_err(io::Error::other));
        let first = patterns.next().ok_or_else(out_of_place)??;
        let mut subscribe = self.node.subscribe(first).ready(peers).timeout(patience);
        for pattern in patterns {
            subscribe = subscribe.also(pattern?);
        }
        if let Some(group) = group {
            subscribe = subscribe.group(group);
        }
        let subscribed = tokio::select! {
            subscribed = subscribe.into_future() => subscribed,
            () = self.reader.end::<ToNode>() => return Ok(()),
        };
        match subscribed {
            Ok(subscriber) => {
                let _held = Held::new(&self.changed);
                self.deliver(subscriber).await
            }
            Err(error) => self.writer.send(&failed(error)).await,
        }
    }

    /// Writes what arrives. A process that does not read is not waited for: its mailbox overflows, as that of any other
    /// subscriber does, and what is in it is all that waits here.
    async fn deliver(&mut self, mut subscriber: Subscriber<Bytes, Raw>) -> io::Result<()> {
        self.writer.send(&done()).await?;
        loop {
            let arrived = tokio::select! {
                arrived = subscriber.next() => arrived,
                () = self.reader.end::<ToNode>() => return Ok(()),
            };
            let mut arrived = Some(arrived);
            while let Some(next) = arrived {
                let Some(item) = next else {
                    // The node has ended.
                    return self.writer.flush().await;
                };
                self.writer.put(&arrival(item)?)?;
                arrived = if self.writer.waiting() < PAGE { subscriber.next().now_or_never() } else { None };
            }
            self.writer.flush().await?;
        }
    }

    async fn request(mut self, to: Option<String>, call: Call) -> io::Result<()> {
        let answered = tokio::select! {
            answered = ask(&self.node, to, call) => answered,
            // Nobody waits any more: the request is cancelled.
            () = self.reader.end::<ToNode>() => return Ok(()),
        };
        self.writer.send(&answered?).await
    }

    async fn peers(mut self) -> io::Result<()> {
        let known = async {
            self.node.settled().await?;
            self.node.status().await
        };
        let status = match known.await {
            Ok(status) => status,
            Err(Closed) => return Ok(()),
        };
        for record in [status.node].into_iter().chain(status.peers).filter_map(peer) {
            self.writer.put(&record)?;
            if self.writer.waiting() >= PAGE {
                self.writer.flush().await?;
            }
        }
        self.writer.send(&done()).await
    }

    async fn watch(mut self) -> io::Result<()> {
        let (mut events, mut own) = (self.node.events(), self.changed.subscribe());
        self.writer.send(&done()).await?;
        loop {
            tokio::select! {
                event = events.next() => if event.is_none() { return Ok(()) },
                changed = own.changed() => if changed.is_err() { return Ok(()) },
                () = self.reader.end::<ToNode>() => return Ok(()),
            }
            self.writer.send(&FromNode::Changed { extensions: Vec::new() }).await?;
        }
    }

    async fn serve(mut self, service: &str, room: usize) -> io::Result<()> {
        match self.node.serve(RawService::parse(service).map_err(io::Error::other)?).concurrency(room).await {
            Ok(provider) => {
                let _held = Held::new(&self.changed);
                self.pass_on(provider, Calls::of(service)).await
            }
            Err(error) => self.writer.send(&failed(error)).await,
        }
    }

    /// Passes calls on to the process, and its answers back.
    async fn pass_on(&mut self, mut provider: RawProvider, mut calls: Calls) -> io::Result<()> {
        self.writer.send(&done()).await?;
        let mut finishing = false;
        loop {
            tokio::select! {
                biased;
                call = provider.next() => match call {
                    Some(call) => self.writer.put(&calls.take(call)?)?,
                    None => return Ok(()),
                },
                Some(stopped) = calls.stopped.next() => {
                    if let Some(call) = stopped {
                        self.writer.put(&FromNode::Stop { call, extensions: Vec::new() })?;
                    }
                }
                record = self.reader.next() => match record? {
                    Some(ToNode::Reply { call, reply }) => calls.answer(call, reply).await,
                    Some(ToNode::Finish { .. }) => {
                        // What it was given up to now is in the stream.
                        provider.withdraw();
                        self.changed.send_replace(());
                        finishing = true;
                    }
                    Some(_) => return Err(out_of_place()),
                    None => return Ok(()),
                },
                () = std::future::ready(()), if finishing && calls.open.is_empty() => {
                    return self.writer.send(&done()).await;
                }
            }
            self.writer.flush().await?;
        }
    }
}

fn out_of_place() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a record has no place here")
}

async fn read_post(reader: &mut Reader) -> io::Result<Option<Post>> {
    match reader.next().await? {
        Some(ToNode::Publish(post)) => Ok(Some(post)),
        Some(_) => Err(out_of_place()),
        None => Ok(None),
    }
}

/// Has a node that has just started look around first, and returns what is left of the time.
async fn settled(node: &Node, patience: Duration) -> Duration {
    let started = Instant::now();
    // What is tried next says whether anybody is there.
    let _late = timeout(patience, node.settled()).await;
    patience.saturating_sub(started.elapsed())
}

async fn publish(node: &Node, post: Post) -> FromNode {
    let Post { topic, content_type, headers, min_peers, timeout, payload, guarantee, .. } = post;
    let Ok(topic) = RawTopic::parse(&topic) else { return failed(Failure::Closed) };
    let publish = node.publish(topic, &payload).headers(headers).content_type(&content_type);
    if let Some(Guarantee { ttl, to, copies }) = guarantee {
        return kept(publish.guaranteed().ttl(Duration::from_millis(ttl)).to(to).copies(size(copies)).await);
    }
    let published = async {
        let left = settled(node, Duration::from_millis(timeout)).await;
        publish.min_peers(size(min_peers)).timeout(left).for_another_process().await
    };
    match published.await {
        Ok(published) => {
            let listeners = u32::try_from(published.listeners).unwrap_or(u32::MAX);
            FromNode::Published { id: published.id, listeners, extensions: Vec::new() }
        }
        Err(error) => failed(error),
    }
}

async fn ask(node: &Node, to: Option<String>, call: Call) -> io::Result<FromNode> {
    let timeout = settled(node, Duration::from_millis(call.timeout)).await;
    let (from, reply) = match ask_those_who_come(node, to, call, timeout).await? {
        Ok(answer) => {
            let (from, content_type, headers) =
                (answer.source(), answer.content_type().to_owned(), answer.headers().clone());
            let body = answer.into_payload();
            (from, Reply { status: ReplyStatus::Ok, content_type, headers, body, extensions: Vec::new() })
        }
        Err(RequestError::Refused { from, message }) => {
            let (content_type, headers) = (String::new(), crate::Headers::default());
            let status = ReplyStatus::Refused;
            (from, Reply { status, content_type, headers, body: message.into(), extensions: Vec::new() })
        }
        Err(error) => return Ok(failed(error)),
    };
    let from = NodeKey::of(&from).ok_or(io::ErrorKind::Unsupported)?;
    Ok(FromNode::Reply { from, reply })
}

/// Asks, and where nobody can be asked, so that nothing was sent, asks again when something has changed. A node of its own would
/// have looked around first, and so found those who have just begun.
async fn ask_those_who_come(
    node: &Node,
    to: Option<String>,
    call: Call,
    timeout: Duration,
) -> io::Result<Result<crate::api::Reply<Bytes>, RequestError>> {
    let Call { service, content_type, headers, body, .. } = call;
    let service = RawService::parse(&service).map_err(io::Error::other)?;
    let (mut events, started) = (node.events(), Instant::now());
    loop {
        let left = timeout.saturating_sub(started.elapsed());
        let ask = node.request(service.clone(), &body).headers(headers.clone()).content_type(&content_type);
        let ask = if let Some(to) = &to { ask.to(to) } else { ask };
        let answer = ask.timeout(left).await;
        let is_over = started.elapsed() >= LOOK_AROUND.min(timeout);
        let not_sent = matches!(
            answer,
            Err(RequestError::Nobody { .. } | RequestError::NoNode { .. } | RequestError::NotSent { .. })
        );
        if is_over || !not_sent {
            return Ok(answer);
        }
        // Time that is up ends the next round.
        let _change = timeout_at(started + LOOK_AROUND, events.next()).await;
    }
}

fn arrival(item: Result<Message<Bytes>, RecvError>) -> io::Result<FromNode> {
    let message = match item {
        Ok(message) => message,
        Err(RecvError::Lagged { missed, exact }) => {
            return Ok(FromNode::Lagged { missed, exact, extensions: Vec::new() });
        }
        // Bytes are of every type.
        Err(RecvError::Decode { reason, .. }) => return Err(io::Error::other(reason)),
    };
    arrived(message).map(FromNode::Message)
}

type RawCall = Incoming<Bytes, Bytes, Raw>;
type RawProvider = Provider<Bytes, Bytes, Raw>;

/// The calls that the process is at.
struct Calls {
    service: String,
    open: BTreeMap<u64, Open>,
    /// Those that nobody waits for any more. `None`: one was answered before.
    stopped: FuturesUnordered<BoxFuture<'static, Option<u64>>>,
    next: u64,
}

struct Open {
    call: RawCall,
    /// Tells, by being dropped, that the call is answered.
    _answered: oneshot::Sender<()>,
}

impl Calls {
    fn of(service: &str) -> Self {
        Self { service: service.to_owned(), open: BTreeMap::new(), stopped: FuturesUnordered::new(), next: 0 }
    }

    /// Takes a call, and makes the record that tells of it.
    fn take(&mut self, call: RawCall) -> io::Result<FromNode> {
        let number = self.next;
        self.next += 1;
        let from = NodeKey::of(&call.source()).ok_or(io::ErrorKind::Unsupported)?;
        let record = FromNode::Call {
            from,
            call: Call {
                call: number,
                service: self.service.clone(),
                timeout: millis(call.timeout()),
                content_type: call.content_type().to_owned(),
                headers: call.headers().clone(),
                body: Bytes::clone(&call),
                extensions: Vec::new(),
            },
        };
        let (sender, answered) = oneshot::channel::<()>();
        let gone: Arc<Gone> = call.gone();
        self.stopped.push(Box::pin(async move {
            tokio::select! {
                () = gone.told() => Some(number),
                _ = answered => None,
            }
        }));
        self.open.insert(number, Open { call, _answered: sender });
        Ok(record)
    }

    /// Hands an answer on. That of a call that is not open any more is one too many, and dropped.
    async fn answer(&mut self, number: u64, reply: Reply) {
        let Some(Open { call, .. }) = self.open.remove(&number) else { return };
        let Reply { status, content_type, headers, body, .. } = reply;
        // Where it cannot be sent its asker is told, and a node that is gone has told all askers.
        match status {
            ReplyStatus::Ok => drop(call.respond(&body).content_type(&content_type).headers(headers).await),
            ReplyStatus::Refused => drop(call.refuse(String::from_utf8_lossy(&body)).await),
            ReplyStatus::Busy | ReplyStatus::NoService | ReplyStatus::Unanswered | ReplyStatus::Denied => drop(call),
        }
    }
}
