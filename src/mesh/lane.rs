//! The two halves of a lane, without its IO: what waits to be written, and what was read and is not out of the way yet.
//!
//! Frames flow by credit: the reader grants as many bytes as have left its hands, and the writer has at most a window of
//! them on their way. So what a lane can occupy at either end is bounded, and a reader that stops is noticed. Everything
//! else is small or rare, needs no credit, and goes before frames: a transfer in bulk delays a call by one record.

use std::collections::VecDeque;

use bytes::Bytes;

use super::time::{Mono, Span};
use crate::wire::codec::CodecError;
use crate::wire::frame::FRAME_OVERHEAD;
use crate::wire::lane::{Mark, Record};
use crate::wire::rpc::{Request, Response};

/// Bytes of frames on their way to a reader that has not granted them yet.
pub(crate) const WINDOW: u64 = 1024 * 1024;
/// The reader grants in steps of this many bytes.
const STEP: u64 = WINDOW / 8;
/// With more bytes of frames than this waiting to be written, their publisher waits, until half of them are gone.
const LOW: usize = 512 * 1024;
/// All that may wait here in bytes.
const MOST: usize = 8 * 1024 * 1024;
/// Requests and answers that may wait here. A member has fewer open at a time.
const MESSAGES: usize = 2_560;
/// A message of no more bytes than this fits into a record.
const SMALL: usize = 40 * 1024;
/// A reader that takes nothing for so long is not waited for.
const PATIENCE: Span = Span::millis(250);

/// What a frame counts for.
pub(crate) fn weight(frame: &Bytes) -> u64 {
    u64::try_from(frame.len() + FRAME_OVERHEAD).unwrap_or(u64::MAX)
}

/// What two nodes exchange over a lane, before it is encoded: that is done where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Request { id: u64, request: Request },
    Answer { id: u64, answer: Response },
}

impl Message {
    /// Whether it needs more than a record.
    pub(crate) fn is_large(&self) -> bool {
        self.weight() > SMALL
    }

    fn weight(&self) -> usize {
        const BESIDE: usize = 256;
        BESIDE
            + match self {
                Self::Request { request, .. } => request.bulk(),
                Self::Answer { answer, .. } => answer.bulk(),
            }
    }

    fn encode(&self) -> Result<Vec<Record>, CodecError> {
        match self {
            Self::Request { id, request } => Record::Request { id: *id, request: request.encode()?.into() },
            Self::Answer { id, answer } => Record::Answer { id: *id, answer: answer.encode()?.into() },
        }
        .split()
    }
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    grant: Option<u64>,
    /// Messages that a record has room for, and those that need several.
    small: VecDeque<Message>,
    large: VecDeque<Message>,
    /// The large message that is being written. It and the frames take turns.
    parts: VecDeque<Record>,
    frames: VecDeque<Record>,
    frames_next: bool,
    /// Bytes of frames that wait, and of messages.
    frame_bytes: usize,
    message_bytes: usize,
    /// Weight of the frames that were written, and how much of it the reader has granted again.
    sent: u64,
    granted: u64,
    /// When frames last moved, or began to wait.
    moved: Mono,
    reader: Reader,
    /// Something was put in since the writer was told.
    news: bool,
}

/// How the reader of a lane gets on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reader {
    /// It takes what it is sent, and is waited for.
    #[default]
    Keeping,
    /// It has taken nothing for a while: nobody waits for it, and what is for it gathers here.
    Late,
    /// There was no room for that any more. What is for it is dropped until it has caught up with what it was sent.
    Lost,
}

/// Whether a lane takes a frame now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Now,
    /// Its reader is waited for, until then at most.
    Until(Mono),
}

impl Outbox {
    /// Whether there is room for another frame. From when a reader has taken nothing for too long it is waited for no more,
    /// until it takes something again.
    pub(crate) fn room(&mut self, now: Mono) -> Room {
        if self.reader != Reader::Keeping || self.frame_bytes < LOW {
            return Room::Now;
        }
        let until = self.moved + PATIENCE;
        if now < until {
            return Room::Until(until);
        }
        self.reader = Reader::Late;
        Room::Now
    }

    /// Whether it is worth telling that there is room: for one frame at a time its publisher and its writer would only take turns.
    pub(crate) fn has_ample_room(&self) -> bool {
        self.frame_bytes <= LOW / 2
    }

    /// Puts a frame in. False if it is dropped: so much waits for a late reader that all of it is given up.
    pub(crate) fn push_frame(&mut self, since: u64, frame: Bytes, now: Mono) -> bool {
        if self.frame_bytes + frame.len() > MOST {
            self.reader = Reader::Lost;
            self.frames.clear();
            self.frame_bytes = 0;
        }
        if self.reader == Reader::Lost {
            return false;
        }
        if self.frames.is_empty() {
            self.moved = now;
        }
        self.news = true;
        self.frame_bytes += frame.len();
        self.frames.push_back(Record::Frame { since, frame });
        true
    }

    /// Says that what stands between two frames of a stream is not for the reader: in its place among the frames.
    pub(crate) fn push_mark(&mut self, mark: Mark) {
        self.news = true;
        match self.frames.back_mut() {
            _ if self.reader == Reader::Lost => {}
            Some(Record::Mark(last)) if last.is_followed_by(&mark) => *last = mark,
            Some(_) | None => self.frames.push_back(Record::Mark(mark)),
        }
    }

    /// Says how much of what came is out of the way. The last word says it all.
    pub(crate) fn push_grant(&mut self, total: u64) {
        self.news = true;
        self.grant = Some(total);
    }

    /// Whether there is room for another request.
    pub(crate) fn has_room_for(&self, request: &Request) -> bool {
        self.message_bytes + request.bulk() <= MOST && self.small.len() + self.large.len() < MESSAGES
    }

    /// Puts a request or an answer in. False if more wait than a member asks for at a time: the other side asks, and does not
    /// read what it asked for. Answers have no bound in bytes beside that, as little as the handlers that make them.
    #[must_use]
    pub(crate) fn push_message(&mut self, message: Message) -> bool {
        if self.small.len() + self.large.len() >= MESSAGES {
            return false;
        }
        self.news = true;
        self.message_bytes += message.weight();
        if message.is_large() {
            self.large.push_back(message);
        } else {
            self.small.push_back(message);
        }
        true
    }

    /// Whether its writer has to be told that there is something to write.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// What to write next. Fails if a message cannot be encoded, which is then left out.
    pub(crate) fn next(&mut self, now: Mono) -> Result<Option<Record>, CodecError> {
        if let Some(total) = self.grant.take() {
            return Ok(Some(Record::Grant(total)));
        }
        // A large one that is under way is finished before the next begins: its reader holds one at most.
        let large = if self.parts.is_empty() { &mut self.large } else { &mut VecDeque::new() };
        if let Some(message) = self.small.pop_front().or_else(|| large.pop_front()) {
            self.message_bytes -= message.weight();
            let mut records = message.encode()?;
            if records.len() == 1 {
                return Ok(records.pop());
            }
            self.parts.extend(records);
        }
        self.frames_next = !self.frames_next;
        let record = if self.frames_next {
            self.frame(now).or_else(|| self.parts.pop_front())
        } else {
            self.parts.pop_front().or_else(|| self.frame(now))
        };
        Ok(record)
    }

    fn frame(&mut self, now: Mono) -> Option<Record> {
        let has_credit = self.sent < self.granted.saturating_add(WINDOW);
        if !has_credit && !matches!(self.frames.front(), Some(Record::Mark(_))) {
            return None;
        }
        let record = self.frames.pop_front()?;
        if let Record::Frame { frame, .. } = &record {
            self.moved = now;
            self.frame_bytes -= frame.len();
            self.sent += weight(frame);
        }
        Some(record)
    }

    /// The reader says how much is out of its way. True if that makes room for frames.
    pub(crate) fn granted(&mut self, total: u64, now: Mono) -> bool {
        // More than was sent is nobody's to grant.
        self.granted = self.granted.max(total.min(self.sent));
        self.moved = now;
        // The last step is granted with the next frames.
        let drained = self.sent - self.granted < STEP;
        if self.reader == Reader::Late || drained {
            self.reader = Reader::Keeping;
        }
        self.reader == Reader::Keeping
    }

    /// Whether a message that needs several records waits, or is being written.
    pub(crate) fn has_large(&self) -> bool {
        !self.large.is_empty() || !self.parts.is_empty()
    }

    /// The numbers of requests that were not written, when the lane has ended.
    pub(crate) fn unsent(&self) -> impl Iterator<Item = u64> {
        let unsent = |message: &Message| if let Message::Request { id, .. } = message { Some(*id) } else { None };
        self.small.iter().chain(&self.large).filter_map(unsent)
    }
}

/// How much of what came on a lane is out of the way.
#[derive(Debug, Default)]
pub(crate) struct Inflow {
    done: u64,
    told: u64,
}

impl Inflow {
    /// A frame of that weight is out of the way.
    pub(crate) fn done(&mut self, weight: u64) {
        self.done += weight;
    }

    /// What to grant, if that is worth a record.
    pub(crate) fn grant(&mut self) -> Option<u64> {
        if self.done - self.told >= STEP { self.grant_all() } else { None }
    }

    /// What to grant, if it is anything.
    pub(crate) fn grant_all(&mut self) -> Option<u64> {
        let told = std::mem::replace(&mut self.told, self.done);
        (told < self.done).then_some(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{Channel, Stream};

    fn frame(bytes: usize) -> Bytes {
        vec![0; bytes].into()
    }

    fn written(outbox: &mut Outbox, now: Mono) -> Vec<Record> {
        std::iter::from_fn(|| outbox.next(now).expect("encodes")).collect()
    }

    fn request(id: u64, bytes: usize) -> Message {
        let request = Request::Inject { frames: vec![frame(bytes)], extensions: Vec::new() };
        Message::Request { id, request }
    }

    #[test]
    fn a_window_of_frames_is_on_its_way_at_most_and_the_rest_waits() {
        let (mut outbox, mut inflow, now) = (Outbox::default(), Inflow::default(), Mono(0));
        let mut pushed = 0;
        while outbox.room(now) == Room::Now && pushed < 1_000 {
            assert!(outbox.push_frame(0, frame(60_000), now));
            pushed += 1;
            let _written = written(&mut outbox, now);
        }
        let most = (WINDOW / 60_000) + 1 + u64::try_from(LOW / 60_000).expect("small") + 1;
        assert!(pushed <= most, "{pushed} frames of 60 kB were taken");
        // Half of what came leaves the reader's hands: as much can follow.
        inflow.done(WINDOW / 2);
        assert!(outbox.granted(inflow.grant().expect("due"), now));
        assert!(!written(&mut outbox, now).is_empty());
        assert_eq!(outbox.room(now), Room::Now);
    }

    #[test]
    fn a_reader_that_takes_nothing_is_waited_for_no_more_and_dropped_when_too_much_waits_for_it() {
        let (mut outbox, mut now) = (Outbox::default(), Mono(0));
        let fill = |outbox: &mut Outbox, now| {
            while outbox.room(now) == Room::Now {
                outbox.push_frame(0, frame(60_000), now);
                let _written = written(outbox, now);
            }
        };
        fill(&mut outbox, now);
        assert_eq!(outbox.room(now), Room::Until(now + PATIENCE));
        // One that takes a little is waited for anew.
        now = now + PATIENCE;
        outbox.granted(STEP, now);
        fill(&mut outbox, now);
        assert_eq!(outbox.room(now + Span::millis(249)), Room::Until(now + PATIENCE));
        now = now + PATIENCE;
        assert_eq!((outbox.room(now), outbox.reader), (Room::Now, Reader::Late));
        // For a while nothing is lost: as soon as it takes something, it is one like any other.
        assert!(outbox.push_frame(0, frame(60_000), now) && outbox.room(now) == Room::Now);
        assert!(outbox.granted(2 * STEP, now) && outbox.reader == Reader::Keeping);
        now = now + PATIENCE;
        assert_eq!(outbox.room(now), Room::Now);
        let kept = (0..1_000).take_while(|_| outbox.push_frame(0, frame(60_000), now)).count();
        assert!(kept * 60_000 > MOST - 4 * LOW && kept * 60_000 < MOST, "{kept}");
        assert_eq!((outbox.reader, outbox.frame_bytes), (Reader::Lost, 0));
        assert!(!outbox.push_frame(0, frame(100), now) && written(&mut outbox, now).is_empty());
        let sent = outbox.sent;
        assert!(!outbox.granted(sent - STEP, now), "not all is granted yet");
        assert!(outbox.granted(sent - 1, now) && outbox.reader == Reader::Keeping);
        assert!(outbox.push_frame(7, frame(100), now));
        assert_eq!(written(&mut outbox, now), [Record::Frame { since: 7, frame: frame(100) }]);
    }

    #[test]
    fn marks_behind_a_reader_that_stands_still_are_one() {
        let node = libp2p_identity::Keypair::ed25519_from_bytes([1; 32]).expect("a key").public().to_peer_id();
        let stream = |shard| Stream { node, incarnation: 1, channel: Channel::Shard(shard) };
        let mark = |shard, up_to| Mark::new(&stream(shard), 1, (up_to, up_to)).expect("an Ed25519 key");
        let mut outbox = Outbox::default();
        (2..100).for_each(|up_to| outbox.push_mark(mark(1, up_to)));
        outbox.push_mark(mark(2, 5));
        let marks = written(&mut outbox, Mono(0));
        assert_eq!(marks, [Record::Mark(mark(1, 99)), Record::Mark(mark(2, 5))]);
    }

    #[test]
    fn calls_go_before_frames_and_large_ones_take_turns_with_them() {
        let (mut outbox, now) = (Outbox::default(), Mono(0));
        for _ in 0..4 {
            outbox.push_frame(0, frame(10), now);
        }
        for (id, bytes) in [(1, 150_000), (2, 10), (3, 60_000)] {
            assert!(outbox.push_message(request(id, bytes)));
        }
        outbox.push_grant(1);
        outbox.push_grant(2);
        assert_eq!(outbox.unsent().collect::<Vec<_>>(), [2, 1, 3]);
        let order = written(&mut outbox, now).into_iter().map(|record| match record {
            Record::Grant(total) => format!("grant {total}"),
            Record::Request { id, .. } => format!("request {id}"),
            Record::Part { .. } => "part".to_owned(),
            Record::Frame { .. } => "frame".to_owned(),
            other => format!("{other:?}"),
        });
        let order: Vec<_> = order.collect();
        let expected = "grant 2, request 2, frame, part, frame, part, frame, part, request 3, frame";
        assert_eq!(order.join(", "), expected);
        assert_eq!(outbox.frame_bytes + outbox.message_bytes, 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut outbox = Outbox::default();
        let Message::Request { request: large, .. } = request(1, 1_000_000) else { panic!("a request") };
        let mut taken = 0;
        while outbox.has_room_for(&large) {
            assert!(outbox.push_message(request(1, 1_000_000)));
            taken += 1;
        }
        assert_eq!(taken, MOST / 1_000_000);
        let answers = (0..10_000).take_while(|id| outbox.push_message(request(*id, 1))).count();
        assert_eq!(answers, MESSAGES - taken);
        let taken = (0..1_000).filter(|_| outbox.push_frame(0, frame(60_000), Mono(0))).count();
        assert_eq!(taken, MOST / 60_000);
    }

    #[test]
    fn grants_come_in_steps_unless_a_writer_waits() {
        let mut inflow = Inflow::default();
        inflow.done(STEP - 1);
        assert_eq!(inflow.grant(), None);
        assert_eq!(inflow.grant_all(), Some(STEP - 1));
        assert_eq!(inflow.grant_all(), None);
        inflow.done(STEP);
        assert_eq!(inflow.grant(), Some(2 * STEP - 1));
    }
}
