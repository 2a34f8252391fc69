//! Pacing of gossip: a publisher keeps a bounded number of frames beyond the slowest of its direct neighbours.
//!
//! Gossipsub says yes as soon as one queue took a frame, and drops silently where a queue was full. So direct neighbours
//! acknowledge what they read, and the publisher waits for them; one that stays silent is not waited for.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;

use super::effects::Effects;
use super::event::Output;
use super::time::{Mono, Span};
use crate::wire::frame::Stream;

/// The most frames beyond the slowest healthy neighbour.
pub(crate) const WINDOW: u64 = 64;
/// A neighbour that acknowledges nothing for so long is not waited for until it does again.
const PATIENCE: Span = Span::millis(250);
/// A neighbour whose queue overflows, and that has acknowledged nothing for so long, does not read any more.
const STUCK: Span = Span::secs(4);
/// A reader acknowledges after so many frames ...
const EVERY: u64 = 32;
/// ... or so long after one that began a burst.
const SOON: Span = Span::millis(20);
/// Fewer frames than this are no burst: the window is far away, and an acknowledgement would cost more than they do.
const BURST: u64 = 4;

/// The publisher's side: how far each shard may go.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    shards: BTreeMap<u8, Paced>,
}

#[derive(Debug, Default)]
struct Paced {
    sent: u64,
    allowed: u64,
    readers: BTreeMap<PeerId, Reader>,
}

#[derive(Debug)]
struct Reader {
    acknowledged: u64,
    /// When it last made progress, or was last up to date.
    since: Mono,
}

impl Pace {
    /// A frame of this shard goes to these direct neighbours.
    pub(crate) fn sent(
        &mut self,
        shard: u8,
        sequence: u64,
        readers: impl Iterator<Item = PeerId>,
        now: Mono,
        fx: &mut Effects,
    ) {
        let paced = self.shards.entry(shard).or_default();
        let before = paced.sent;
        paced.sent = paced.sent.max(sequence);
        let mut known = std::mem::take(&mut paced.readers);
        for peer in readers {
            let mut reader = known.remove(&peer).unwrap_or(Reader { acknowledged: before, since: now });
            if reader.acknowledged >= before {
                reader.since = now;
            }
            paced.readers.insert(peer, reader);
        }
        paced.update(shard, now, fx);
    }

    /// A frame of this shard went another way: nobody is waited for on its account, or on that of those before it.
    pub(crate) fn passed(&mut self, shard: u8, sequence: u64, now: Mono, fx: &mut Effects) {
        if let Some(paced) = self.shards.get_mut(&shard) {
            paced.sent = paced.sent.max(sequence);
            paced.readers.clear();
            paced.update(shard, now, fx);
        }
    }

    /// A neighbour has read so far.
    pub(crate) fn acknowledged(&mut self, peer: PeerId, shard: u8, sequence: u64, now: Mono, fx: &mut Effects) {
        let Some(paced) = self.shards.get_mut(&shard) else { return };
        let sent = paced.sent;
        if let Some(reader) = paced.readers.get_mut(&peer) {
            reader.acknowledged = reader.acknowledged.max(sequence.min(sent));
            reader.since = now;
            paced.update(shard, now, fx);
        }
    }

    /// A neighbour is no longer linked.
    pub(crate) fn unlinked(&mut self, peer: PeerId, now: Mono, fx: &mut Effects) {
        for (shard, paced) in &mut self.shards {
            if paced.readers.remove(&peer).is_some() {
                paced.update(*shard, now, fx);
            }
        }
    }

    /// Whether this neighbour, whose queue overflows, takes nothing out of it: of what was sent to it, on whatever shard, it
    /// has acknowledged nothing for long. One that is merely slow acknowledges what it reads.
    pub(crate) fn is_stuck(&self, peer: &PeerId, now: Mono) -> bool {
        let reading = || self.shards.values().filter_map(|paced| Some((paced.sent, paced.readers.get(peer)?)));
        let is_behind = reading().any(|(sent, reader)| reader.acknowledged.saturating_add(WINDOW) <= sent);
        let progress = reading().map(|(_, reader)| reader.since).max();
        is_behind && progress.is_some_and(|since| now - since >= STUCK)
    }

    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        self.shards.values().filter_map(Paced::patience_ends).min()
    }

    pub(crate) fn on_timeout(&mut self, now: Mono, fx: &mut Effects) {
        for (shard, paced) in &mut self.shards {
            if paced.patience_ends().is_some_and(|at| at <= now) {
                paced.update(*shard, now, fx);
            }
        }
    }
}

impl Paced {
    fn update(&mut self, shard: u8, now: Mono, fx: &mut Effects) {
        let sent = self.sent;
        let waited_for = self.readers.values().filter(|reader| reader.is_waited_for(sent, now));
        let allowed = waited_for.map(|reader| reader.acknowledged.saturating_add(WINDOW)).min().unwrap_or(u64::MAX);
        if allowed != self.allowed {
            self.allowed = allowed;
            fx.push(Output::Allow { shard, sequence: allowed });
        }
    }

    /// When those that hold this shard back have had their time: not before the last of them has, for until then the shard
    /// may go no further than it may now.
    fn patience_ends(&self) -> Option<Mono> {
        let slowest = self.readers.values().filter(|reader| reader.acknowledged.saturating_add(WINDOW) == self.allowed);
        slowest.map(|reader| reader.since + PATIENCE).max().filter(|_| self.allowed <= self.sent)
    }
}

impl Reader {
    fn is_waited_for(&self, sent: u64, now: Mono) -> bool {
        self.acknowledged.saturating_add(WINDOW) > sent || now - self.since < PATIENCE
    }
}

/// The reader's side: what is still to be acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    streams: BTreeMap<Stream, Unacknowledged>,
}

#[derive(Debug)]
struct Unacknowledged {
    highest: u64,
    count: u64,
    due: Option<Mono>,
}

impl Acknowledgements {
    /// A frame of a linked author came by gossip. Returns how far to acknowledge, if it is time.
    pub(crate) fn read(&mut self, stream: Stream, sequence: u64, now: Mono) -> Option<u64> {
        let open = self.streams.entry(stream).or_insert(Unacknowledged { highest: 0, count: 0, due: None });
        open.highest = open.highest.max(sequence);
        open.count += 1;
        if open.count >= EVERY {
            return self.streams.remove(&stream).map(|open| open.highest);
        }
        if open.count >= BURST && open.due.is_none() {
            open.due = Some(now + SOON);
        }
        None
    }

    /// Its author is not linked any more.
    pub(crate) fn unlinked(&mut self, peer: PeerId) {
        self.streams.retain(|stream, _| stream.node != peer);
    }

    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        self.streams.values().filter_map(|open| open.due).min()
    }

    /// What is due: streams, and how far to acknowledge each.
    pub(crate) fn due(&mut self, now: Mono) -> Vec<(Stream, u64)> {
        let is_due = |open: &Unacknowledged| open.due.is_some_and(|due| due <= now);
        let due: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, open)| is_due(open))
            .map(|(stream, open)| (*stream, open.highest))
            .collect();
        due.iter().for_each(|(stream, _)| {
            self.streams.remove(stream);
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::Channel;

    fn allowed(fx: &mut Effects) -> Option<u64> {
        std::iter::from_fn(|| fx.pop())
            .filter_map(|output| if let Output::Allow { sequence, .. } = output { Some(sequence) } else { None })
            .last()
    }

    #[test]
    fn the_slowest_neighbour_holds_the_publisher_back_until_its_patience_ends() {
        let (mut pace, mut fx) = (Pace::default(), Effects::new(1));
        let (fast, slow) = (PeerId::random(), PeerId::random());
        for sequence in 1..=64 {
            pace.sent(3, sequence, [fast, slow].into_iter(), Mono(0), &mut fx);
        }
        assert_eq!(allowed(&mut fx), Some(64));
        pace.acknowledged(fast, 3, 64, Mono(1_000), &mut fx);
        assert_eq!(allowed(&mut fx), None);
        pace.acknowledged(slow, 3, 32, Mono(2_000), &mut fx);
        assert_eq!(allowed(&mut fx), Some(96));
        for sequence in 65..=96 {
            pace.sent(3, sequence, [fast, slow].into_iter(), Mono(3_000), &mut fx);
        }
        assert_eq!(pace.next_timeout(), Some(Mono(2_000) + PATIENCE));
        pace.on_timeout(Mono(2_000) + PATIENCE, &mut fx);
        assert_eq!(allowed(&mut fx), Some(128), "the fast one is waited for alone");
    }

    #[test]
    fn of_two_that_hold_it_back_the_one_that_is_given_up_first_sets_no_timer_of_the_past() {
        let (mut pace, mut fx) = (Pace::default(), Effects::new(1));
        let (one, other) = (PeerId::random(), PeerId::random());
        for sequence in 1..=64 {
            pace.sent(3, sequence, [one, other].into_iter(), Mono(0), &mut fx);
        }
        pace.acknowledged(other, 3, 0, Mono(200_000), &mut fx);
        assert_eq!(allowed(&mut fx), Some(64));
        let (mut now, mut wakes) = (Mono(0), 0);
        while let Some(at) = pace.next_timeout() {
            assert!(at > now, "the driver would spin");
            (now, wakes) = (at, wakes + 1);
            pace.on_timeout(now, &mut fx);
        }
        assert_eq!((now, wakes), (Mono(200_000) + PATIENCE, 1));
        assert_eq!(allowed(&mut fx), Some(u64::MAX));
    }

    #[test]
    fn who_acknowledges_nothing_while_its_queue_overflows_is_stuck_and_who_is_slow_is_not() {
        let (mut pace, mut fx) = (Pace::default(), Effects::new(1));
        let (slow, stuck) = (PeerId::random(), PeerId::random());
        for sequence in 1..=200 {
            let now = Mono(0) + Span::millis(sequence * 50);
            pace.sent(3, sequence, [slow, stuck].into_iter(), now, &mut fx);
            if sequence % 32 == 0 {
                pace.acknowledged(slow, 3, sequence / 4, now, &mut fx);
            }
        }
        let now = Mono(0) + Span::secs(10);
        assert!(pace.is_stuck(&stuck, now) && !pace.is_stuck(&slow, now));
        // It reads on another shard: it is not stuck, though what was lost here is never acknowledged.
        pace.sent(4, 1, [stuck].into_iter(), now, &mut fx);
        assert!(!pace.is_stuck(&stuck, now + Span::secs(1)));
        pace.unlinked(stuck, now, &mut fx);
        assert!(!pace.is_stuck(&stuck, now + Span::secs(60)));
    }

    #[test]
    fn nobody_to_wait_for_means_no_bound() {
        let (mut pace, mut fx) = (Pace::default(), Effects::new(1));
        let peer = PeerId::random();
        pace.sent(3, 1, [peer].into_iter(), Mono(0), &mut fx);
        assert_eq!(allowed(&mut fx), Some(64));
        pace.unlinked(peer, Mono(1), &mut fx);
        assert_eq!(allowed(&mut fx), Some(u64::MAX));
    }

    #[test]
    fn bursts_are_acknowledged_and_single_frames_are_not() {
        let mut acknowledgements = Acknowledgements::default();
        let stream = Stream { node: PeerId::random(), incarnation: 1, channel: Channel::Shard(1) };
        assert_eq!(acknowledgements.read(stream, 1, Mono(0)), None);
        assert_eq!(acknowledgements.next_timeout(), None);
        let told: Vec<_> = (2..=40).filter_map(|n| acknowledgements.read(stream, n, Mono(n))).collect();
        assert_eq!(told, [32]);
        let at = acknowledgements.next_timeout().expect("a burst is under way");
        assert_eq!(acknowledgements.due(at), [(stream, 40)]);
        assert_eq!(acknowledgements.next_timeout(), None);
    }
}
