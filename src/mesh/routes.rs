//! What publishers and subscribers look at without asking the mesh: who listens to what, at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::event::{LaneId, SubscriberId};
use crate::topic;
use crate::wire::MessageId;
use crate::wire::frame::Frame;
use crate::wire::roster::Interest;

/// Who listens to what. Immutable; the mesh makes a new one when something changes.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// Nodes that are live in the roster, this one left out.
    pub(crate) remote: Vec<RemoteNode>,
    pub(crate) local: Vec<LocalSubscriber>,
    /// The shards whose frames go over lanes, and to whom. Those of others go by gossip.
    pub(crate) ways: BTreeMap<u8, Arc<[Target]>>,
}

/// A node that frames go to over a lane: a listener, or a relay, which gets none and is told so.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) lane: LaneId,
    pub(crate) interests: Arc<[Interest]>,
}

impl Target {
    /// Whether it listens to anything in that frame.
    pub(crate) fn is_concerned_by(&self, frame: &Frame) -> bool {
        let listens = |name: &String| self.interests.iter().any(|interest| topic::matches(&interest.pattern, name));
        frame.header.topics.iter().any(listens)
    }
}

/// Another node.
#[derive(Clone, Debug)]
pub(crate) struct RemoteNode {
    pub(crate) peer: PeerId,
    pub(crate) linked: bool,
    pub(crate) interests: Arc<[Interest]>,
}

/// A subscription of this node.
#[derive(Clone, Debug)]
pub(crate) struct LocalSubscriber {
    pub(crate) id: SubscriberId,
    pub(crate) patterns: Arc<[Arc<str>]>,
    pub(crate) group: Option<Arc<str>>,
}

impl LocalSubscriber {
    pub(crate) fn listens(&self, topic: &str) -> bool {
        self.patterns.iter().any(|pattern| topic::matches(pattern, topic))
    }
}

/// Who listens to one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Other nodes.
    pub(crate) peers: usize,
    /// Those of them that are linked to this one.
    pub(crate) linked: usize,
    /// Subscribers on this node.
    pub(crate) local: usize,
    pub(crate) groups: Vec<Group>,
}

/// The nodes that hold a group, in the order of their ids, this one among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    pub(crate) holders: Vec<PeerId>,
}

impl Routes {
    /// Who listens to `topic`. `me` stands for the local members of a group.
    pub(crate) fn reach(&self, topic: &str, me: PeerId) -> Reach {
        let mut reach = Reach::default();
        for node in &self.remote {
            let mut listens = false;
            for interest in node.interests.iter().filter(|interest| topic::matches(&interest.pattern, topic)) {
                listens = true;
                if let Some(group) = &interest.group {
                    hold(&mut reach.groups, group, node.peer);
                }
            }
            reach.peers += usize::from(listens);
            reach.linked += usize::from(listens && node.linked);
        }
        for subscriber in self.local.iter().filter(|subscriber| subscriber.listens(topic)) {
            reach.local += 1;
            if let Some(group) = &subscriber.group {
                hold(&mut reach.groups, group, me);
            }
        }
        reach.groups.iter_mut().for_each(|group| group.holders.sort_unstable());
        reach
    }
}

fn hold(groups: &mut Vec<Group>, name: &str, peer: PeerId) {
    match groups.iter_mut().find(|group| *group.name == *name) {
        Some(group) if group.holders.contains(&peer) => {}
        Some(group) => group.holders.push(peer),
        None => groups.push(Group { name: name.into(), holders: vec![peer] }),
    }
}

/// The member that a message goes to: the highest hash wins (rendezvous hashing), so that a member that leaves or joins
/// moves only its own share.
pub(crate) fn choose<M: AsRef<[u8]>>(id: MessageId, members: impl IntoIterator<Item = M>) -> Option<usize> {
    let weight = |member: M| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&id.start).update(&id.counter.to_be_bytes()).update(member.as_ref());
        *hasher.finalize().as_bytes()
    };
    members.into_iter().map(weight).enumerate().max_by_key(|(_, weight)| *weight).map(|(index, _)| index)
}
