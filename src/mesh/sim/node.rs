//! One simulated node: the product's code, and what stands in for its driver.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use libp2p_identity::{Keypair, PeerId};

use crate::mesh::dispatch::{Dispatch, Lanes};
use crate::mesh::event::{Answer, CallId, Event, HolderId, InboundId, JobId, Lag, LaneId, RpcId, SubscriberId, Ticket};
use crate::mesh::lane::Outbox;
use crate::mesh::outgoing::Outgoing;
use crate::mesh::postman::inbox::Handed;
use crate::mesh::postman::store::{Job, Memory};
use crate::mesh::routes::{LocalSubscriber, Routes};
use crate::mesh::shards::ShardSet;
use crate::mesh::subscriptions::is_chosen;
use crate::mesh::time::Now;
use crate::mesh::{Mesh, Settings};
use crate::wire::frame::Frame;
use crate::{Dissemination, Limits, MessageId};

/// A message as a subscriber got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) source: PeerId,
    pub(crate) incarnation: u64,
    pub(crate) topic: String,
    pub(crate) id: MessageId,
    pub(crate) payload: Vec<u8>,
}

/// What a subscriber found in its mailbox, in order.
#[derive(Clone, Debug)]
pub(crate) enum Read {
    Message(Got),
    Lagged(Lag),
}

/// A simulated subscriber.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) local: LocalSubscriber,
    pub(crate) read: Vec<Read>,
    /// Fragments of a message that is not whole yet, by its source.
    under_way: BTreeMap<PeerId, Vec<u8>>,
}

impl Subscriber {
    pub(crate) fn new(local: LocalSubscriber) -> Self {
        Self { local, read: Vec::new(), under_way: BTreeMap::new() }
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = &Got> {
        self.read.iter().filter_map(|read| if let Read::Message(got) = read { Some(got) } else { None })
    }

    pub(crate) fn missed(&self) -> u64 {
        self.read.iter().map(|read| if let Read::Lagged(lag) = read { lag.missed } else { 0 }).sum()
    }
}

/// The lanes of a node, each with whom it leads to and when what was written on it last arrives.
#[derive(Debug, Default)]
pub(crate) struct SimLanes(pub(crate) BTreeMap<LaneId, SimLane>);

/// Our half of a lane.
#[derive(Debug)]
pub(crate) struct SimLane {
    pub(crate) to: usize,
    pub(crate) outbox: Outbox,
    pub(crate) arrives: u64,
}

impl Lanes for SimLanes {
    fn with<R>(&mut self, lane: LaneId, act: impl FnOnce(&mut Outbox) -> R) -> Option<R> {
        self.0.get_mut(&lane).map(|lane| act(&mut lane.outbox))
    }
}

/// What a node is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Plain,
    Relay,
    /// One errand, and then it leaves.
    ShortLived,
}

/// A simulated node.
#[derive(Debug)]
pub(crate) struct SimNode {
    pub(crate) key: Keypair,
    pub(crate) peer: PeerId,
    pub(crate) incarnation: u64,
    pub(crate) mesh: Mesh,
    pub(crate) dispatch: Dispatch,
    pub(crate) lanes: SimLanes,
    pub(crate) up: bool,
    pub(crate) side: u8,
    /// How far its wall clock is behind.
    pub(crate) slow: u64,
    /// Connections to others, by index.
    pub(crate) links: BTreeMap<usize, u32>,
    pub(crate) joined: ShardSet,
    /// What neighbours have told of their joins.
    pub(crate) others_joined: BTreeMap<usize, ShardSet>,
    pub(crate) seen: BTreeSet<[u8; 20]>,
    /// Gossip that waits for a verdict.
    pub(crate) judging: BTreeMap<u64, Arc<Frame>>,
    pub(crate) asked: BTreeMap<RpcId, usize>,
    pub(crate) answering: BTreeMap<InboundId, (usize, RpcId)>,
    pub(crate) subscribers: BTreeMap<SubscriberId, Subscriber>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) answers: BTreeMap<Ticket, Answer>,
    /// Calls that handlers are at, while they are slow, and those that were told that nobody waits.
    pub(crate) running: BTreeMap<CallId, bytes::Bytes>,
    pub(crate) stopped: BTreeSet<CallId>,
    pub(crate) events: Vec<Event>,
    pub(crate) wake: Option<u64>,
    pub(crate) disk: Memory,
    /// What is to be written next.
    pub(crate) jobs: Vec<(JobId, Job)>,
    /// What was handed to those who hold durable subscriptions.
    pub(crate) handed: Vec<(HolderId, Handed)>,
}

impl SimNode {
    pub(crate) fn new(
        index: usize,
        incarnation: u64,
        role: Role,
        (limits, dissemination): (&Limits, Dissemination),
        seed: u64,
        now: Now,
    ) -> Self {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&u64::try_from(index + 1).expect("small").to_be_bytes());
        let key = Keypair::ed25519_from_bytes(secret).expect("a key");
        let peer = key.public().to_peer_id();
        let settings = Settings {
            me: peer,
            incarnation,
            name: format!("node-{index}"),
            relay: role == Role::Relay,
            short_lived: role == Role::ShortLived,
            looks_local: false,
            looks_further: true,
            limits: limits.clone(),
            dissemination,
            seed,
            now,
        };
        Self {
            key,
            peer,
            incarnation,
            mesh: Self::mesh(settings),
            dispatch: Dispatch::new(Outgoing::new(peer, incarnation, seed.to_be_bytes(), limits.outgoing)),
            lanes: SimLanes::default(),
            up: true,
            side: 0,
            slow: 0,
            links: BTreeMap::new(),
            joined: ShardSet::default(),
            others_joined: BTreeMap::new(),
            seen: BTreeSet::new(),
            judging: BTreeMap::new(),
            asked: BTreeMap::new(),
            answering: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            routes: Arc::default(),
            answers: BTreeMap::new(),
            running: BTreeMap::new(),
            stopped: BTreeSet::new(),
            events: Vec::new(),
            wake: None,
            disk: Memory::default(),
            jobs: Vec::new(),
            handed: Vec::new(),
        }
    }

    /// One that lets others forget soon what they have processed.
    fn mesh(settings: Settings) -> Mesh {
        let mut mesh = Mesh::new(settings);
        mesh.postman.keep_settled(2);
        mesh
    }

    /// Unpacks a frame for a subscriber, as the api does in the reader's task.
    pub(crate) fn unpack(&mut self, id: SubscriberId, frame: &Frame, routes: &Routes) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        for entry in frame.entries() {
            let entry = entry.expect("own frames are sound");
            let topic = &frame.header.topics[usize::try_from(entry.topic).expect("small")];
            let sibling = |local: &&LocalSubscriber| local.group == subscriber.local.group && local.listens(topic);
            let siblings: Vec<_> = routes.local.iter().filter(sibling).map(|local| local.id).collect();
            let groups = routes.reach(topic, self.peer).groups;
            let group = groups.into_iter().find(|group| Some(&group.name) == subscriber.local.group.as_ref());
            let holders = group.map(|group| group.holders).unwrap_or_default();
            let listens = subscriber.local.listens(topic);
            if !listens || !is_chosen(&subscriber.local, &siblings, &holders, self.peer, frame, &entry) {
                continue;
            }
            let payload = subscriber.under_way.entry(frame.stream.node).or_default();
            if entry.fragment.is_none_or(|fragment| fragment.index == 0) {
                payload.clear();
            }
            payload.extend(entry.payload);
            if entry.fragment.is_none_or(|fragment| fragment.index + 1 == fragment.count) {
                let got = Got {
                    source: frame.stream.node,
                    incarnation: frame.stream.incarnation,
                    topic: topic.clone(),
                    id: frame.message_id(&entry),
                    payload: std::mem::take(payload),
                };
                subscriber.read.push(Read::Message(got));
            }
        }
    }
}
