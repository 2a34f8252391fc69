//! The subscriptions of this node: which shards they need, and whose mailbox a frame goes into.

use std::collections::BTreeMap;
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::event::SubscriberId;
use super::routes::{LocalSubscriber, choose};
use super::shards::{ShardSet, shards_of};
use crate::wire::MessageId;
use crate::wire::frame::{Entry, Fragment, Frame};
use crate::wire::node_key::NodeKey;
use crate::wire::roster::Interest;

/// All subscriptions of this node.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    all: BTreeMap<SubscriberId, Subscription>,
}

/// How exactly the roster says what this node listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// The patterns as they are.
    Exact,
    /// Everything with the same first token. It is in the same shard anyway.
    FirstToken,
    /// Everything.
    Nothing,
}

impl Detail {
    /// From the longest record to the shortest.
    pub(crate) const ALL: [Self; 3] = [Self::Exact, Self::FirstToken, Self::Nothing];

    fn of(self, pattern: &str) -> Vec<String> {
        match (self, pattern.split_once('.')) {
            (Self::Exact, _) | (Self::FirstToken, None) => vec![pattern.to_owned()],
            (Self::FirstToken, Some((first, _))) => vec![format!("{first}.>")],
            (Self::Nothing, _) => vec![">".to_owned()],
        }
    }
}

#[derive(Debug)]
struct Subscription {
    local: LocalSubscriber,
    shards: ShardSet,
}

impl Subscriptions {
    pub(crate) fn add(&mut self, id: SubscriberId, patterns: Vec<Arc<str>>, group: Option<Arc<str>>) {
        let shards = shards_of(&patterns);
        self.all.insert(id, Subscription { local: LocalSubscriber { id, patterns: patterns.into(), group }, shards });
    }

    pub(crate) fn remove(&mut self, id: SubscriberId) -> bool {
        self.all.remove(&id).is_some()
    }

    /// How many patterns they have together.
    pub(crate) fn patterns(&self) -> usize {
        self.all.values().map(|subscription| subscription.local.patterns.len()).sum()
    }

    /// The shards that they need.
    pub(crate) fn shards(&self) -> ShardSet {
        self.all.values().fold(ShardSet::default(), |all, subscription| all.union(subscription.shards))
    }

    /// What this node says of them in the roster: each pattern and group once.
    ///
    /// Less detail makes a shorter record, and costs this node messages that it throws away; none is lost by it. A group's
    /// patterns are always exact: a publisher who took it for a listener would send a message to nobody.
    pub(crate) fn interests(&self, detail: Detail) -> Vec<Interest> {
        let each = |Subscription { local, .. }: &'_ Subscription| -> Vec<Interest> {
            let group = local.group.as_ref().map(ToString::to_string);
            let patterns = local.patterns.iter().flat_map(|pattern| match group {
                Some(_) => vec![pattern.to_string()],
                None => detail.of(pattern),
            });
            patterns.map(|pattern| Interest { pattern, group: group.clone() }).collect()
        };
        let mut interests: Vec<_> = self.all.values().flat_map(each).collect();
        interests.sort_unstable();
        interests.dedup();
        interests
    }

    pub(crate) fn local(&self) -> impl Iterator<Item = &LocalSubscriber> {
        self.all.values().map(|subscription| &subscription.local)
    }

    /// The subscribers that want at least one of the frame's topics.
    pub(crate) fn readers(&self, frame: &Frame) -> impl Iterator<Item = SubscriberId> {
        let shard = frame.stream.shard();
        self.all.values().filter_map(move |Subscription { local, shards }| {
            let wants = shards.contains(shard) && frame.header.topics.iter().any(|topic| local.listens(topic));
            wants.then_some(local.id)
        })
    }

    /// The subscribers that may have missed something on a shard.
    pub(crate) fn on_shard(&self, shard: u8) -> impl Iterator<Item = (SubscriberId, bool)> {
        let listening = self.all.values().filter(move |subscription| subscription.shards.contains(shard));
        listening.map(|Subscription { local, .. }| (local.id, wants_everything(local)))
    }

    /// How many messages of a frame a subscriber would have read, and whether that is certain.
    pub(crate) fn count(&self, id: SubscriberId, frame: &Frame) -> (u64, bool) {
        let Some(Subscription { local, .. }) = self.all.get(&id) else { return (0, true) };
        let ends = |entry: &Entry<'_>| entry.fragment.is_none_or(Fragment::is_last);
        let topic = |entry: &Entry<'_>| {
            let index = usize::try_from(entry.topic).unwrap_or(usize::MAX);
            frame.header.topics.get(index).is_some_and(|topic| local.listens(topic))
        };
        let read = frame.entries().flatten().filter(|entry| ends(entry) && topic(entry)).count();
        (u64::try_from(read).unwrap_or(u64::MAX), local.group.is_none())
    }
}

fn wants_everything(local: &LocalSubscriber) -> bool {
    local.group.is_none() && local.patterns.iter().any(|pattern| **pattern == *">")
}

/// Whether a message on a topic that this subscriber listens to is for it, and not for another member of its group.
///
/// `holders` are the nodes that hold the group, for messages whose publisher did not know the group.
pub(crate) fn is_chosen(
    subscriber: &LocalSubscriber,
    siblings: &[SubscriberId],
    holders: &[PeerId],
    me: PeerId,
    frame: &Frame,
    entry: &Entry<'_>,
) -> bool {
    let Some(group) = &subscriber.group else { return true };
    let id = frame.message_id(entry);
    let written = entry.choices.iter().find_map(|choice| {
        let choice = frame.header.choices.get(usize::try_from(*choice).ok()?)?;
        (*choice.group == **group).then_some(choice.member)
    });
    let here = match written {
        Some(member) => NodeKey::of(&me) == Some(member),
        None => choose(id, holders.iter().map(|holder| holder.to_bytes())).is_none_or(|index| holders[index] == me),
    };
    here && is_chosen_here(subscriber.id, siblings, id)
}

/// Several members of a group on one node share its messages by the same hash.
fn is_chosen_here(subscriber: SubscriberId, siblings: &[SubscriberId], id: MessageId) -> bool {
    choose(id, siblings.iter().map(|sibling| sibling.0.to_be_bytes()))
        .is_none_or(|index| siblings.get(index) == Some(&subscriber))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic;

    fn subscribed(patterns: &[&str], group: Option<&str>) -> Subscriptions {
        let mut subscriptions = Subscriptions::default();
        let patterns = patterns.iter().map(|pattern| (*pattern).into()).collect();
        subscriptions.add(SubscriberId(1), patterns, group.map(Into::into));
        subscriptions
    }

    fn said(subscriptions: &Subscriptions, detail: Detail) -> Vec<String> {
        subscriptions.interests(detail).into_iter().map(|interest| interest.pattern).collect()
    }

    #[test]
    fn with_less_detail_more_is_asked_for_and_never_less() {
        let subscriptions = subscribed(&["a.b", "a.c.d", "b", "c.>", "*.x"], None);
        assert_eq!(said(&subscriptions, Detail::FirstToken), ["*.>", "a.>", "b", "c.>"]);
        assert_eq!(said(&subscriptions, Detail::Nothing), [">"]);
        for topic in ["a.b", "a.c.d", "b", "c.d.e", "y.x"] {
            for detail in Detail::ALL {
                let said = said(&subscriptions, detail);
                assert!(said.iter().any(|pattern| topic::matches(pattern, topic)), "{topic} with {detail:?}");
            }
        }
    }

    #[test]
    fn what_a_group_listens_to_stays_exact() {
        let subscriptions = subscribed(&["a.b", "c.d"], Some("workers"));
        Detail::ALL.iter().for_each(|detail| assert_eq!(said(&subscriptions, *detail), ["a.b", "c.d"]));
    }
}
