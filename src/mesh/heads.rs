//! When to repeat where a stream stands, so that those who lost its tail notice.

use std::collections::{BTreeMap, BTreeSet};

use super::time::{Mono, Span};
use crate::wire::frame::{Place, Stream};

/// How long after the last frame of a stream it is repeated.
const AFTER: [Span; 3] = [Span::millis(50), Span::secs(1), Span::secs(10)];

/// Streams whose end this node announces: its own, and those of short-lived nodes that handed their frames over to it.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    streams: BTreeMap<Stream, Last>,
    /// When each is due.
    deadlines: BTreeSet<(Mono, Stream)>,
}

#[derive(Debug)]
struct Last {
    place: Place,
    at: Mono,
    told: usize,
}

impl Last {
    fn due(&self) -> Option<Mono> {
        AFTER.get(self.told).map(|after| self.at + *after)
    }
}

impl Heads {
    /// The stream has come to this place. Of more streams than `most`, the one that is due first is let go.
    pub(crate) fn moved(&mut self, place: Place, most: usize, now: Mono) {
        match self.streams.get(&place.stream) {
            Some(last) if last.place.sequence >= place.sequence => return,
            Some(_) => drop(self.forget(&place.stream)),
            None if self.streams.len() >= most => {
                if let Some((_, stream)) = self.deadlines.first().copied() {
                    self.forget(&stream);
                }
            }
            None => {}
        }
        self.put(Last { place, at: now, told: 0 });
    }

    /// How many streams are announced still.
    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// The places to repeat now, each with whether it is for the last time.
    pub(crate) fn due(&mut self, now: Mono) -> Vec<(Place, bool)> {
        let mut places = Vec::new();
        while let Some((_, stream)) = self.deadlines.first().copied().filter(|(due, _)| *due <= now) {
            let Some(last) = self.forget(&stream) else { continue };
            let last = Last { told: last.told + 1, ..last };
            places.push((last.place, last.due().is_none()));
            self.put(last);
        }
        places
    }

    fn put(&mut self, last: Last) {
        if let Some(due) = last.due() {
            self.deadlines.insert((due, last.place.stream));
            self.streams.insert(last.place.stream, last);
        }
    }

    fn forget(&mut self, stream: &Stream) -> Option<Last> {
        let last = self.streams.remove(stream)?;
        if let Some(due) = last.due() {
            self.deadlines.remove(&(due, *stream));
        }
        Some(last)
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::PeerId;

    use super::*;
    use crate::wire::frame::Channel;

    #[test]
    fn a_head_is_repeated_three_times_and_begins_again_with_the_next_frame() {
        let stream = Stream { node: PeerId::random(), incarnation: 1, channel: Channel::Shard(1) };
        let place = |sequence| Place { stream, sequence, count: sequence, attempt: 0, start: [0; 8] };
        let mut heads = Heads::default();
        heads.moved(place(1), 9, Mono(0));
        assert_eq!(heads.next_timeout(), Some(Mono(50_000)));
        assert_eq!(heads.due(Mono(50_000)).len(), 1);
        heads.moved(place(2), 9, Mono(60_000));
        let mut told = Vec::new();
        while let Some(at) = heads.next_timeout() {
            told.extend(heads.due(at).iter().map(|(place, last)| (at, place.sequence, *last)));
        }
        assert_eq!(told, [(Mono(110_000), 2, false), (Mono(1_060_000), 2, false), (Mono(10_060_000), 2, true)]);
        assert!(heads.streams.is_empty());
    }
}
