//! Recent frames, kept for those that missed them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::time::Mono;
use crate::wire::frame::{FRAME_OVERHEAD, Frame, Header, Kind, Stream};
use crate::wire::rpc::Position;
use crate::wire::rpc::StreamRef;

/// The most bytes of frames in one answer.
const ANSWER: usize = 512 * 1024;

/// What a node can still give others of the streams that it wrote, read or passed on. Oldest frames go first.
#[derive(Debug)]
pub(crate) struct Ring {
    streams: BTreeMap<Stream, BTreeMap<u64, Kept>>,
    order: VecDeque<(Stream, u64)>,
    bytes: usize,
    limit: usize,
}

#[derive(Debug)]
struct Kept {
    frame: Arc<Frame>,
    since: Mono,
}

/// The answer to a request for repair.
#[derive(Debug, Default)]
pub(crate) struct Repair {
    pub(crate) frames: Vec<Arc<Frame>>,
    /// Up to here nothing is owed to the asker.
    pub(crate) floor: u64,
    /// The answer was cut.
    pub(crate) more: bool,
}

impl Ring {
    pub(crate) fn new(limit: usize) -> Self {
        Self { streams: BTreeMap::new(), order: VecDeque::new(), bytes: 0, limit }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps a frame that came, or was made, just now. Says whether it was new.
    pub(crate) fn keep(&mut self, frame: &Arc<Frame>, now: Mono) -> bool {
        let sequence = frame.header.sequence;
        let frames = self.streams.entry(frame.stream).or_default();
        if frames.contains_key(&sequence) {
            return false;
        }
        frames.insert(sequence, Kept { frame: Arc::clone(frame), since: now });
        self.order.push_back((frame.stream, sequence));
        self.bytes += weight(frame);
        while self.bytes > self.limit {
            let Some((stream, sequence)) = self.order.pop_front() else { break };
            self.drop_frame(stream, sequence);
        }
        true
    }

    /// Whether another frame is kept in this one's place: its author signed two that differ. One that was signed again does
    /// not.
    pub(crate) fn contradicts(&self, frame: &Frame) -> bool {
        let kept = self.streams.get(&frame.stream).and_then(|frames| frames.get(&frame.header.sequence));
        let differs = |kept: &Frame| {
            let attempt = frame.header.attempt;
            kept.bytes != frame.bytes
                && (kept.body() != frame.body() || Header { attempt, ..kept.header.clone() } != frame.header)
        };
        frame.kind == Kind::Messages && kept.is_some_and(|kept| differs(&kept.frame))
    }

    fn drop_frame(&mut self, stream: Stream, sequence: u64) {
        let Some(frames) = self.streams.get_mut(&stream) else { return };
        if let Some(kept) = frames.remove(&sequence) {
            self.bytes -= weight(&kept.frame);
        }
        if frames.is_empty() {
            self.streams.remove(&stream);
        }
    }

    /// What is still here of `from..=to`, for an asker that this node has known to listen since `owed_since`. What came
    /// before that is not owed: the asker would get messages from before its subscription.
    pub(crate) fn repair(&self, stream: &Stream, from: u64, to: u64, owed_since: Option<Mono>) -> Repair {
        let mut repair = Repair::default();
        let Some(frames) = self.streams.get(stream).filter(|_| from <= to) else { return repair };
        let mut bytes = 0;
        for (sequence, kept) in frames.range(from..=to) {
            if owed_since.is_none_or(|since| kept.since < since) {
                repair.floor = *sequence;
                continue;
            }
            bytes += kept.frame.bytes.len();
            if bytes > ANSWER && !repair.frames.is_empty() {
                repair.more = true;
                break;
            }
            repair.frames.push(Arc::clone(&kept.frame));
        }
        repair
    }

    /// How far streams have come that moved since `active_since`: those of one node, or all. `owed_since` says since when
    /// whoever is told listens to a shard; streams of which nothing is owed to it are left out.
    pub(crate) fn positions(
        &self,
        of: Option<PeerId>,
        active_since: Mono,
        owed_since: impl Fn(u8) -> Option<Mono>,
    ) -> Vec<Position> {
        let streams = match of {
            Some(node) => self.streams.range(Stream::first_of(node)..),
            None => self.streams.range(..),
        };
        let meant = streams.take_while(|(stream, _)| of.is_none_or(|node| stream.node == node));
        let told = meant.filter_map(|(stream, frames)| {
            let (_, last) = frames.last_key_value()?;
            let owed = owed_since(stream.shard()).is_some_and(|since| last.since >= since);
            (owed && last.since >= active_since).then(|| position(&last.frame))?
        });
        told.collect()
    }
}

/// What a kept frame takes: its bytes, its header once more, and its place in the tables.
fn weight(frame: &Frame) -> usize {
    frame.bytes.len() + FRAME_OVERHEAD
}

/// Where a stream stands after this frame.
fn position(frame: &Frame) -> Option<Position> {
    let stream = StreamRef::of(&frame.stream)?;
    Some(Position { stream, sequence: frame.header.sequence, count: frame.header.count })
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;
    use crate::wire::builder::again;
    use crate::wire::frame::{Channel, FrameBuilder, Outbound, Place, shard_of};
    use crate::{Headers, MeshId};

    const MESH: MeshId = MeshId([1; 16]);

    fn frame(key: &Keypair, sequence: u64, text: &str, time: u64) -> Frame {
        let mut builder = FrameBuilder::default();
        let message = Outbound {
            topic: "a",
            content_type: "",
            headers: &Headers::default(),
            choices: &[],
            counter: 1,
            time,
            fragment: None,
            payload: text.as_bytes(),
        };
        builder.push(&message).expect("fits");
        let channel = Channel::Shard(shard_of("a"));
        let stream = Stream { node: key.public().to_peer_id(), incarnation: 1, channel };
        builder.sign(Place { stream, sequence, count: sequence, attempt: 0, start: [1; 8] }, MESH, key).expect("signed")
    }

    #[test]
    fn two_frames_of_one_place_contradict_each_other_unless_one_is_the_other_signed_again() {
        let (key, mut ring) = (Keypair::generate_ed25519(), Ring::new(1 << 20));
        let first = Arc::new(frame(&key, 1, "one", 1));
        ring.keep(&first, Mono(0));
        assert!(!ring.contradicts(&first));
        assert!(!ring.contradicts(&again(&first, 1, MESH, &key).expect("signed")));
        assert!(!ring.contradicts(&frame(&key, 2, "two", 1)));
        assert!(ring.contradicts(&frame(&key, 1, "eins", 1)));
        assert!(ring.contradicts(&frame(&key, 1, "one", 2)), "the same text at another time");
    }
}
