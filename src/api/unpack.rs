//! Whole frames to single messages, in the reader's task: which of them are for this subscriber, and large ones put
//! together again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use libp2p::PeerId;
use tracing::warn;

use crate::mesh::event::{Lag, SubscriberId};
use crate::mesh::routes::{LocalSubscriber, Routes};
use crate::mesh::subscriptions::is_for;
use crate::message::Message;
use crate::wire::MessageId;
use crate::wire::frame::{Entry, Fragment, Frame, Stream};

/// Large messages of so many streams can be under way at once; then the one begun first is given up.
const UNDER_WAY: usize = 64;

/// Unpacks the frames of one subscriber.
#[derive(Debug)]
pub(crate) struct Unpacker {
    /// This node.
    node: PeerId,
    me: LocalSubscriber,
    ready: VecDeque<Result<Message<Bytes>, Lag>>,
    under_way: VecDeque<UnderWay>,
    largest: usize,
    /// Whether it was said that something cannot be read.
    told: bool,
}

/// A message of which only some fragments are here.
#[derive(Debug)]
struct UnderWay {
    stream: Stream,
    id: MessageId,
    next: u32,
    payload: Vec<u8>,
}

impl Unpacker {
    pub(crate) fn new(
        node: PeerId,
        id: SubscriberId,
        patterns: Vec<Arc<str>>,
        group: Option<Arc<str>>,
        largest: usize,
    ) -> Self {
        let me = LocalSubscriber { id, patterns: patterns.into(), group };
        Self { node, me, ready: VecDeque::new(), under_way: VecDeque::new(), largest, told: false }
    }

    /// The next message that is whole, or the gap in its place.
    pub(crate) fn next(&mut self) -> Option<Result<Message<Bytes>, Lag>> {
        self.ready.pop_front()
    }

    /// Takes a frame apart. `routes` say who shared the group when it was delivered.
    pub(crate) fn unpack(&mut self, frame: &Arc<Frame>, routes: &Routes) {
        let topics: Vec<Arc<str>> = frame.header.topics.iter().map(|topic| topic.as_str().into()).collect();
        let types: Vec<Arc<str>> = frame.header.content_types.iter().map(|text| text.as_str().into()).collect();
        for entry in frame.entries() {
            let entry = match entry {
                Ok(entry) => entry,
                // Either one message, which asks for what this version does not know, or the rest of the frame.
                Err(error) => {
                    if self.is_first() {
                        warn!(source = %frame.stream.node, %error, "part of a frame cannot be read; more will not be said");
                    }
                    continue;
                }
            };
            if !self.wants(frame, &entry, routes) {
                continue;
            }
            let Some(payload) = self.whole(frame, &entry) else { continue };
            let index = |index: u32| usize::try_from(index).unwrap_or(usize::MAX);
            let (Some(topic), Some(content_type)) =
                (topics.get(index(entry.topic)), types.get(index(entry.content_type)))
            else {
                continue;
            };
            self.ready.push_back(Ok(Message {
                topic: Arc::clone(topic),
                id: frame.message_id(&entry),
                source: frame.stream.node,
                time: UNIX_EPOCH + Duration::from_micros(frame.time(&entry)),
                content_type: Arc::clone(content_type),
                headers: entry.headers.iter().copied().collect(),
                payload,
            }));
        }
    }

    fn wants(&self, frame: &Frame, entry: &Entry<'_>, routes: &Routes) -> bool {
        let Some(group) = &self.me.group else {
            return is_for(&self.me, &[], &[], self.node, frame, entry);
        };
        let topic = usize::try_from(entry.topic).ok().and_then(|index| frame.header.topics.get(index));
        let Some(topic) = topic else { return false };
        let sibling = |local: &&LocalSubscriber| local.group.as_ref() == Some(group) && local.listens(topic);
        let siblings: Vec<_> = routes.local.iter().filter(sibling).map(|local| local.id).collect();
        let groups = routes.reach(topic, self.node).groups;
        let holders = groups.into_iter().find(|known| known.name == *group).map(|known| known.holders);
        is_for(&self.me, &siblings, &holders.unwrap_or_default(), self.node, frame, entry)
    }

    /// The payload, when all of it is here.
    fn whole(&mut self, frame: &Arc<Frame>, entry: &Entry<'_>) -> Option<Bytes> {
        let Some(fragment) = entry.fragment else { return Some(frame.slice(entry.payload)) };
        let id = frame.message_id(entry);
        let known = self.under_way.iter().position(|known| known.stream == frame.stream);
        let mut message = match (known.and_then(|index| self.under_way.remove(index)), fragment.index) {
            (_, 0) => UnderWay { stream: frame.stream, id, next: 0, payload: Vec::new() },
            (Some(message), index) if message.id == id && message.next == index => message,
            (_, _) => return self.not_whole(fragment),
        };
        message.next += 1;
        message.payload.extend(entry.payload);
        if message.payload.len() > self.largest {
            if self.is_first() {
                let node = frame.stream.node;
                warn!(source = %node, %id, "a message is larger than the limit here and is dropped; more will not be said");
            }
            return self.not_whole(fragment);
        }
        if fragment.is_last() {
            return Some(message.payload.into());
        }
        self.under_way.push_back(message);
        if self.under_way.len() > UNDER_WAY {
            self.under_way.pop_front();
        }
        None
    }

    /// Whether this is the first that cannot be read. Members could fill the log with them.
    fn is_first(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// A fragment came whose beginning is gone. The message counts where it ends: a gap that takes its last fragment is told
    /// by whoever found the gap, and one that does not is told here.
    fn not_whole(&mut self, fragment: Fragment) -> Option<Bytes> {
        if fragment.is_last() {
            self.ready.push_back(Err(Lag { missed: 1, exact: true }));
        }
        None
    }
}
