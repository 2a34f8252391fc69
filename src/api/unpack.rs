//! Whole frames to single messages, in the reader's task: which of them are for this subscriber, and large ones put
//! together again. One by one, as they are read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use libp2p::PeerId;
use tracing::warn;

use crate::error::RecvError;
use crate::mesh::event::{Lag, SubscriberId};
use crate::mesh::routes::{LocalSubscriber, Routes};
use crate::mesh::subscriptions::is_chosen;
use crate::message::Message;
use crate::payload::Encoding;
use crate::wire::MessageId;
use crate::wire::frame::{Cursor, Entry, Fragment, Frame, Stream};

/// Large messages of so many streams can be under way at once; then the one begun first is given up.
const UNDER_WAY: usize = 64;

/// Unpacks the frames of one subscriber.
#[derive(Debug)]
pub(crate) struct Unpacker {
    /// This node.
    node: PeerId,
    me: LocalSubscriber,
    open: Option<Open>,
    pieces: Pieces,
}

/// A frame that is being taken apart.
#[derive(Debug)]
struct Open {
    frame: Arc<Frame>,
    cursor: Cursor,
    /// What is decided once for all messages of a topic, for each in the frame's table. `None`: they are not for us.
    topics: Vec<Option<Wanted>>,
    content_types: Vec<Arc<str>>,
}

/// A topic that this subscriber listens to.
#[derive(Debug)]
struct Wanted {
    name: Arc<str>,
    /// The members of the group on this node, and the nodes that hold it, when the frame was delivered.
    siblings: Vec<SubscriberId>,
    holders: Vec<PeerId>,
}

/// A message's payload.
enum Payload<'a> {
    Part(&'a [u8]),
    Joined(Bytes),
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
        Self { node, me, open: None, pieces: Pieces { under_way: VecDeque::new(), largest, told: false } }
    }

    /// Takes a frame, when there is nothing left of the one before. `routes` say who shared the group when it was delivered.
    pub(crate) fn open(&mut self, frame: Arc<Frame>, routes: &Routes) {
        let topics = frame.header.topics.iter().map(|topic| self.wanted(topic, routes)).collect();
        let content_types = frame.header.content_types.iter().map(|text| text.as_str().into()).collect();
        self.open = Some(Open { frame, cursor: Cursor::default(), topics, content_types });
    }

    fn wanted(&self, topic: &str, routes: &Routes) -> Option<Wanted> {
        if !self.me.listens(topic) {
            return None;
        }
        let mut wanted = Wanted { name: topic.into(), siblings: Vec::new(), holders: Vec::new() };
        if let Some(group) = &self.me.group {
            let sibling = |local: &&LocalSubscriber| local.group.as_ref() == Some(group) && local.listens(topic);
            wanted.siblings = routes.local.iter().filter(sibling).map(|local| local.id).collect();
            let groups = routes.reach(topic, self.node).groups;
            let holders = groups.into_iter().find(|known| known.name == *group).map(|known| known.holders);
            wanted.holders = holders.unwrap_or_default();
        }
        Some(wanted)
    }

    /// The next message that is whole, or the gap in its place. `None` when there is nothing left of the frame.
    pub(crate) fn next<T, E: Encoding<T>>(&mut self) -> Option<Result<Message<T>, RecvError>> {
        let Self { node, me, open, pieces } = self;
        let Open { frame, cursor, topics, content_types } = open.as_mut()?;
        let index = |index: u32| usize::try_from(index).unwrap_or(usize::MAX);
        while let Some(entry) = cursor.next(frame) {
            let entry = match entry {
                Ok(entry) => entry,
                // Either one message, which asks for what this version does not know, or the rest of the frame.
                Err(error) => {
                    if pieces.is_first() {
                        warn!(source = %frame.stream.node, %error, "part of a frame cannot be read; more will not be said");
                    }
                    continue;
                }
            };
            let wanted = topics.get(index(entry.topic)).and_then(Option::as_ref);
            let (Some(wanted), Some(content_type)) = (wanted, content_types.get(index(entry.content_type))) else {
                continue;
            };
            if !is_chosen(me, &wanted.siblings, &wanted.holders, *node, frame, &entry) {
                continue;
            }
            let payload = match pieces.whole(frame, &entry) {
                Some(Ok(Payload::Part(part))) => E::decode_part(&frame.bytes, part),
                Some(Ok(Payload::Joined(payload))) => E::decode(&payload),
                Some(Err(lag)) => return Some(Err(lag.into())),
                None => continue,
            };
            let source = frame.stream.node;
            return Some(match payload {
                Ok(payload) => Ok(Message {
                    topic: Arc::clone(&wanted.name),
                    id: frame.message_id(&entry),
                    source,
                    time: UNIX_EPOCH + Duration::from_micros(frame.time(&entry)),
                    content_type: Arc::clone(content_type),
                    headers: entry.headers.iter().copied().collect(),
                    payload,
                }),
                Err(reason) => Err(RecvError::Decode { topic: wanted.name.to_string(), source_peer: source, reason }),
            });
        }
        self.open = None;
        None
    }
}

impl From<Lag> for RecvError {
    fn from(lag: Lag) -> Self {
        Self::Lagged { missed: lag.missed, exact: lag.exact }
    }
}

/// Large messages that are being put together.
#[derive(Debug)]
struct Pieces {
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

impl Pieces {
    /// The payload, when all of it is here, or the gap in its place.
    fn whole<'a>(&mut self, frame: &Frame, entry: &Entry<'a>) -> Option<Result<Payload<'a>, Lag>> {
        let Some(fragment) = entry.fragment else { return Some(Ok(Payload::Part(entry.payload))) };
        let id = frame.message_id(entry);
        let known = self.under_way.iter().position(|known| known.stream == frame.stream);
        let mut message = match (known.and_then(|index| self.under_way.remove(index)), fragment.index) {
            (_, 0) => UnderWay { stream: frame.stream, id, next: 0, payload: Vec::new() },
            (Some(message), index) if message.id == id && message.next == index => message,
            (_, _) => return not_whole(fragment),
        };
        message.next += 1;
        message.payload.extend(entry.payload);
        if message.payload.len() > self.largest {
            if self.is_first() {
                let node = frame.stream.node;
                warn!(source = %node, %id, "a message is larger than the limit here and is dropped; more will not be said");
            }
            return not_whole(fragment);
        }
        if fragment.is_last() {
            return Some(Ok(Payload::Joined(message.payload.into())));
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
}

/// A fragment came whose beginning is gone. The message counts where it ends: a gap that takes its last fragment is told
/// by whoever found the gap, and one that does not is told here.
fn not_whole<P>(fragment: Fragment) -> Option<Result<P, Lag>> {
    fragment.is_last().then_some(Err(Lag { missed: 1, exact: true }))
}
