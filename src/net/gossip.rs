//! Gossipsub behind a counter: what members have no business sending is dropped before it is kept anywhere, and told of.
//!
//! Gossipsub remembers every message for some heartbeats, of whatever topic, and has no hook that says who sent one. So this
//! stands around it: it is told what each peer says, and counts what the two hooks inside refuse meanwhile.
//!
//! Must not: decide what becomes of whoever sent that.

use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::gossipsub::{
    self, DataTransform, IdentTopic, MessageAuthenticity, RawMessage, SubscriptionError, TopicHash,
    TopicSubscriptionFilter,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::MeshId;
use crate::wire::frame::{self, SHARDS};

/// The gossip topic of a shard. `None` if the mesh has no such shard.
pub(crate) fn shard_topic(mesh: MeshId, shard: u8) -> Option<IdentTopic> {
    (shard < SHARDS).then(|| IdentTopic::new(frame::gossip_topic(mesh, shard)))
}

/// Which shard of this mesh a gossip topic is, if it is one.
pub(crate) fn shard_of(mesh: MeshId, topic: &TopicHash) -> Option<u8> {
    let (id, shard) = topic.as_str().strip_prefix("pombo/")?.split_once('/')?;
    let number = shard.parse::<u8>().ok().filter(|number| *number < SHARDS)?;
    // One spelling each: "07" and "+7" are no shards.
    (id == mesh.to_string() && shard == number.to_string()).then_some(number)
}

/// What the hooks inside gossipsub share with what stands around it. They run within its calls, one at a time.
#[derive(Debug)]
struct Shared {
    mesh: MeshId,
    /// The shards that this node has joined, a bit each.
    joined: AtomicU64,
    /// Those that it ever joined: what is still on its way when it leaves one is nobody's fault.
    ever_joined: AtomicU64,
    /// What was refused since it was last asked for.
    refused: AtomicU32,
}

impl Shared {
    fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a message on that topic is for us.
    fn admits(&self, topic: &TopicHash) -> bool {
        let has = |shards: &AtomicU64, shard| shards.load(Ordering::Relaxed) & (1_u64 << shard) != 0;
        let shard = shard_of(self.mesh, topic);
        if !shard.is_some_and(|shard| has(&self.ever_joined, shard)) {
            self.refuse();
        }
        shard.is_some_and(|shard| has(&self.joined, shard))
    }
}

/// Admits subscriptions to this mesh's shards only, and so at most [`SHARDS`] of them from each peer.
///
/// Libp2p's default counts instead, and ignores all subscriptions of a peer that has one too many.
pub(crate) struct ShardFilter(Arc<Shared>);

impl TopicSubscriptionFilter for ShardFilter {
    fn can_subscribe(&mut self, topic: &TopicHash) -> bool {
        let ours = shard_of(self.0.mesh, topic).is_some();
        if !ours {
            self.0.refuse();
        }
        ours
    }
}

/// Admits messages on the shards that this node has joined, unchanged. It runs before they are kept.
pub(crate) struct JoinedOnly(Arc<Shared>);

impl DataTransform for JoinedOnly {
    fn inbound_transform(&self, raw: RawMessage) -> io::Result<gossipsub::Message> {
        if !self.0.admits(&raw.topic) {
            return Err(io::Error::other("a topic that this node has not joined"));
        }
        let RawMessage { source, data, sequence_number, topic, .. } = raw;
        Ok(gossipsub::Message { source, data, sequence_number, topic })
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> io::Result<Vec<u8>> {
        Ok(data)
    }
}

type Inner = gossipsub::Behaviour<JoinedOnly, ShardFilter>;

/// Gossip that admits the shards of one mesh and nothing else.
pub(crate) struct Gossip {
    inner: Inner,
    shared: Arc<Shared>,
    refused: VecDeque<(PeerId, u32)>,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    Gossipsub(gossipsub::Event),
    /// A peer subscribed to so many topics that are none of this mesh, or sent so many messages on topics that this node
    /// never joined.
    Refused {
        peer: PeerId,
        count: u32,
    },
}

impl Gossip {
    pub(crate) fn new(mesh: MeshId, config: gossipsub::Config) -> Result<Self, &'static str> {
        let [joined, ever_joined] = [AtomicU64::new(0), AtomicU64::new(0)];
        let shared = Arc::new(Shared { mesh, joined, ever_joined, refused: AtomicU32::new(0) });
        let (filter, transform) = (ShardFilter(Arc::clone(&shared)), JoinedOnly(Arc::clone(&shared)));
        let inner = Inner::new_with_subscription_filter_and_transform(
            MessageAuthenticity::Anonymous,
            config,
            filter,
            transform,
        )?;
        Ok(Self { inner, shared, refused: VecDeque::new() })
    }

    /// Joins a shard.
    pub(crate) fn subscribe(&mut self, topic: &IdentTopic) -> Result<bool, SubscriptionError> {
        let subscribed = self.inner.subscribe(topic)?;
        let bit = self.bit(topic);
        self.shared.joined.fetch_or(bit, Ordering::Relaxed);
        self.shared.ever_joined.fetch_or(bit, Ordering::Relaxed);
        Ok(subscribed)
    }

    /// Leaves a shard.
    pub(crate) fn unsubscribe(&mut self, topic: &IdentTopic) -> bool {
        self.shared.joined.fetch_and(!self.bit(topic), Ordering::Relaxed);
        self.inner.unsubscribe(topic)
    }

    fn bit(&self, topic: &IdentTopic) -> u64 {
        shard_of(self.shared.mesh, &topic.hash()).map_or(0, |shard| 1_u64 << shard)
    }
}

impl Deref for Gossip {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Gossip {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl NetworkBehaviour for Gossip {
    type ConnectionHandler = <Inner as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(id, peer, address, role, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        // Also what we subscribe to ourselves passes the filter.
        self.shared.refused.store(0, Ordering::Relaxed);
        self.inner.on_connection_handler_event(peer, id, event);
        let count = self.shared.refused.load(Ordering::Relaxed);
        if count > 0 {
            match self.refused.back_mut() {
                Some((last, sum)) if *last == peer => *sum = sum.saturating_add(count),
                Some(_) | None => self.refused.push_back((peer, count)),
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        if let Some((peer, count)) = self.refused.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(Event::Refused { peer, count }));
        }
        self.inner.poll(cx).map(|event| event.map_out(Event::Gossipsub))
    }
}
