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
use crate::message::{Headers, Message, Origin};
use crate::payload::Encoding;
use crate::wire::MessageId;
use crate::wire::frame::{Cursor, Entry, Fragment, Frame, MAX_FRAME, Stream};

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
}

/// A topic that this subscriber listens to.
#[derive(Debug)]
struct Wanted {
    /// What its last message shares with the next, if that has the same content type.
    origin: Option<(u32, Arc<Origin>)>,
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
        self.open = Some(Open { frame, cursor: Cursor::default(), topics });
    }

    fn wanted(&self, topic: &str, routes: &Routes) -> Option<Wanted> {
        if !self.me.listens(topic) {
            return None;
        }
        let mut wanted = Wanted { origin: None, siblings: Vec::new(), holders: Vec::new() };
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
        let Open { frame, cursor, topics } = open.as_mut()?;
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
            let Some(Some(wanted)) = topics.get_mut(index(entry.topic)) else { continue };
            if !is_chosen(me, &wanted.siblings, &wanted.holders, *node, frame, &entry) {
                continue;
            }
            let payload = match pieces.whole(frame, &entry) {
                Some(Ok(Payload::Part(part))) => E::decode_part(&frame.bytes, part),
                Some(Ok(Payload::Joined(payload))) => E::decode(&payload),
                Some(Err(lag)) => return Some(Err(lag.into())),
                None => continue,
            };
            let origin = wanted.origin(frame, &entry);
            return Some(match payload {
                Ok(payload) => Ok(Message {
                    origin: Arc::clone(origin),
                    id: frame.message_id(&entry),
                    time: UNIX_EPOCH + Duration::from_micros(frame.time(&entry)),
                    // Few have any, and to collect nothing is not for nothing.
                    headers: if entry.headers.is_empty() {
                        Headers::default()
                    } else {
                        entry.headers.into_iter().collect()
                    },
                    payload,
                }),
                Err(reason) => {
                    Err(RecvError::Decode { topic: origin.topic.clone(), source_peer: origin.source, reason })
                }
            });
        }
        self.open = None;
        None
    }
}

impl Wanted {
    #[inline]
    fn origin(&mut self, frame: &Frame, entry: &Entry<'_>) -> &Arc<Origin> {
        let known = self.origin.take().filter(|(content_type, _)| *content_type == entry.content_type);
        let made = || (entry.content_type, Arc::new(origin(frame, entry)));
        &self.origin.insert(known.unwrap_or_else(made)).1
    }
}

fn origin(frame: &Frame, entry: &Entry<'_>) -> Origin {
    let text = |table: &[String], at: u32| table.get(index(at)).cloned().unwrap_or_default();
    Origin {
        topic: text(&frame.header.topics, entry.topic),
        source: frame.stream.node,
        content_type: text(&frame.header.content_types, entry.content_type),
    }
}

/// An index into a frame's table. That it does not point outside was checked.
fn index(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
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
            (_, 0) => {
                let others = index(fragment.count).saturating_sub(1).saturating_mul(MAX_FRAME);
                let whole = entry.payload.len().saturating_add(others).min(self.largest);
                UnderWay { stream: frame.stream, id, next: 0, payload: Vec::with_capacity(whole) }
            }
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

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;
    use crate::mesh::routes::RemoteNode;
    use crate::payload::{Bincode, Raw};
    use crate::wire::MeshId;
    use crate::wire::frame::{Channel, FrameBuilder, Outbound, Place, shard_of};

    /// Topic, content type, fragment and payload of a message.
    type Sent<'a> = (&'a str, &'a str, Option<(u32, u32)>, &'a [u8]);

    fn frame(sequence: u64, messages: &[Sent<'_>]) -> Arc<Frame> {
        let key = Keypair::ed25519_from_bytes([1; 32]).unwrap();
        let (mut builder, headers) = (FrameBuilder::default(), Headers::default());
        for (counter, (topic, content_type, fragment, payload)) in (1..).zip(messages) {
            let fragment = fragment.map(|(index, count)| Fragment { index, count });
            let (choices, time) = (&[][..], 1_000 + counter);
            let outbound =
                Outbound { topic, content_type, headers: &headers, choices, counter, time, fragment, payload };
            builder.push(&outbound).unwrap();
        }
        let channel = Channel::Shard(shard_of("a"));
        let stream = Stream { node: key.public().to_peer_id(), incarnation: 1, channel };
        let place = Place { stream, sequence, count: 100, attempt: 0, start: [0; 8] };
        Arc::new(builder.sign(place, MeshId([1; 16]), &key).unwrap())
    }

    fn unpacker(node: PeerId, pattern: &str, group: Option<&str>) -> Unpacker {
        Unpacker::new(node, SubscriberId(1), vec![pattern.into()], group.map(Into::into), 1_000)
    }

    /// What is read next, in words.
    fn next<T, E: Encoding<T>>(unpacker: &mut Unpacker, text: impl Fn(&T) -> String) -> Option<String> {
        Some(match unpacker.next::<T, E>()? {
            Ok(message) => {
                let micros = message.time().duration_since(UNIX_EPOCH).unwrap().as_micros();
                let (topic, content_type, counter) = (message.topic(), message.content_type(), message.id().counter);
                format!("{topic} {content_type} {counter} {micros} {}", text(&message))
            }
            Err(RecvError::Lagged { missed, .. }) => format!("{missed} missed"),
            Err(other) => other.to_string(),
        })
    }

    fn all(unpacker: &mut Unpacker) -> Vec<String> {
        std::iter::from_fn(|| next::<Bytes, Raw>(unpacker, |body| String::from_utf8_lossy(body).into_owned())).collect()
    }

    #[test]
    fn what_is_for_the_reader_comes_in_order_with_gaps_in_their_place() {
        let mut unpacker = unpacker(PeerId::random(), "a.*", None);
        assert!(all(&mut unpacker).is_empty());
        let messages: [Sent<'_>; 7] = [
            ("a.b", "x", None, b"one"),
            ("a.b.c", "x", None, b"for others"),
            ("a.b", "y", None, b"two"),
            ("a.c", "y", Some((1, 2)), b"an end"),
            ("a.b", "x", None, b"three"),
            ("a.c", "y", Some((0, 2)), b"a begin"),
            ("a.c", "y", Some((1, 2)), b"ning"),
        ];
        unpacker.open(frame(1, &messages[..6]), &Routes::default());
        let read = all(&mut unpacker);
        assert_eq!(read, ["a.b x 1 1001 one", "a.b y 3 1003 two", "1 missed", "a.b x 5 1005 three"]);
        unpacker.open(frame(2, &messages[6..]), &Routes::default());
        assert_eq!(all(&mut unpacker), ["1 missed"], "it has another id");
        unpacker.open(frame(3, &[("a.c", "y", Some((0, 2)), b"a begin")]), &Routes::default());
        assert!(all(&mut unpacker).is_empty());
        unpacker.open(frame(4, &messages[6..]), &Routes::default());
        assert_eq!(all(&mut unpacker), ["a.c y 1 1001 a beginning"]);
    }

    #[test]
    fn what_cannot_be_decoded_is_told_and_the_next_one_follows() {
        let mut unpacker = unpacker(PeerId::random(), ">", None);
        unpacker.open(
            frame(1, &[("a", "", None, &[7]), ("a", "", None, &[7, 8]), ("a", "", None, &[9])]),
            &Routes::default(),
        );
        let mut next = || next::<u8, Bincode>(&mut unpacker, u8::to_string);
        assert_eq!(next().as_deref(), Some("a  1 1001 7"));
        assert!(next().is_some_and(|told| told.contains("1 bytes are left over")));
        assert_eq!((next().as_deref(), next()), (Some("a  3 1003 9"), None));
    }

    #[test]
    fn the_members_of_a_group_share_each_topic_among_those_who_listen_to_it() {
        let nodes = [PeerId::random(), PeerId::random()];
        let interest =
            |pattern: &str| crate::wire::roster::Interest { pattern: pattern.into(), group: Some("g".into()) };
        let routes = |me: usize| Routes {
            remote: vec![RemoteNode { peer: nodes[1 - me], linked: true, interests: [interest("a.both")].into() }],
            local: vec![LocalSubscriber {
                id: SubscriberId(1),
                patterns: ["a.>".into()].into(),
                group: Some("g".into()),
            }],
            ..Routes::default()
        };
        let messages: Vec<Sent<'_>> = (0..64).map(|_| ("a.both", "", None, &b"x"[..])).collect();
        let read = [0, 1].map(|me| {
            let mut unpacker = unpacker(nodes[me], "a.>", Some("g"));
            unpacker.open(frame(1, &messages), &routes(me));
            all(&mut unpacker)
        });
        assert!(!read[0].is_empty() && !read[1].is_empty());
        let mut together = read.concat();
        together.sort_unstable();
        together.dedup();
        assert_eq!(together.len(), 64);
        assert_eq!(read[0].len() + read[1].len(), 64);
        let mut unpacker = unpacker(nodes[0], "a.>", Some("g"));
        unpacker.open(frame(1, &[("a.mine", "", None, b"x")]), &routes(0));
        assert_eq!(all(&mut unpacker).len(), 1, "nobody else listens to it");
    }
}
