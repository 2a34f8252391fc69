//! Which of the numbered messages came: what is lost, came twice, or came after a later one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many gaps are remembered. What was missing in the oldest is lost for good beyond it.
const MOST_GAPS: usize = 65_536;

/// How many messages came, and what did not. `received` and `lost` are all that were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Different ones.
    pub(super) received: u64,
    pub(super) lost: u64,
    /// What the subscriber was told that it missed.
    pub(super) told: u64,
    /// Came once more.
    pub(super) duplicated: u64,
    /// Came after a later one.
    pub(super) out_of_order: u64,
}

impl Counts {
    /// Of several subscribers.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            received: self.received + other.received,
            lost: self.lost + other.lost,
            told: self.told + other.told,
            duplicated: self.duplicated + other.duplicated,
            out_of_order: self.out_of_order + other.out_of_order,
        }
    }
}

/// The account of one subscriber of one publisher, whose messages are numbered from 0.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// One more than the highest number that came.
    next: u64,
    /// What is missing below that: from, and up to but not including.
    gaps: BTreeMap<u64, u64>,
    /// What was missing in gaps that are forgotten.
    given_up: u64,
    counts: Counts,
}

impl Ledger {
    /// This one came.
    pub(super) fn note(&mut self, sequence: u64) {
        if sequence >= self.next {
            if sequence > self.next {
                self.open(self.next, sequence);
            }
            self.next = sequence + 1;
            self.counts.received += 1;
            return;
        }
        let gap = self.gaps.range(..=sequence).next_back().map(|(start, end)| (*start, *end));
        let Some((start, end)) = gap.filter(|(_, end)| sequence < *end) else {
            self.counts.duplicated += 1;
            return;
        };
        self.gaps.remove(&start);
        for (start, end) in [(start, sequence), (sequence + 1, end)] {
            if start < end {
                self.open(start, end);
            }
        }
        self.counts.received += 1;
        self.counts.out_of_order += 1;
    }

    /// The subscriber was told that it missed so many.
    pub(super) fn told(&mut self, missed: u64) {
        self.counts.told += missed;
    }

    /// How many different ones came.
    pub(super) fn received(&self) -> u64 {
        self.counts.received
    }

    /// The account when so many were sent.
    pub(super) fn close(&self, sent: u64) -> Counts {
        let missing: u64 = self.gaps.iter().map(|(start, end)| end - start).sum();
        Counts { lost: missing + self.given_up + sent.saturating_sub(self.next), ..self.counts }
    }

    fn open(&mut self, start: u64, end: u64) {
        self.gaps.insert(start, end);
        if self.gaps.len() > MOST_GAPS {
            self.given_up += self.gaps.pop_first().map_or(0, |(start, end)| end - start);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ledger(came: impl IntoIterator<Item = u64>) -> Ledger {
        let mut ledger = Ledger::default();
        came.into_iter().for_each(|sequence| ledger.note(sequence));
        ledger
    }

    fn counts(received: u64, lost: u64, duplicated: u64, out_of_order: u64) -> Counts {
        Counts { received, lost, told: 0, duplicated, out_of_order }
    }

    #[test]
    fn what_comes_in_order_is_all_there() {
        assert_eq!(ledger(0..5).close(5), counts(5, 0, 0, 0));
        assert_eq!(ledger([]).close(5), counts(0, 5, 0, 0));
    }

    #[test]
    fn gaps_at_every_place_are_lost() {
        assert_eq!(ledger([2, 3, 6]).close(9), counts(3, 6, 0, 0));
    }

    #[test]
    fn late_ones_are_counted_once() {
        let ledger = ledger([0, 5, 3, 3, 1, 5, 0]);
        assert_eq!(ledger.close(6), counts(4, 2, 3, 2));
    }

    #[test]
    fn the_gaps_have_a_bound() {
        let gaps = MOST_GAPS as u64 + 10;
        let mut ledger = ledger((0..gaps).map(|gap| 2 * gap + 1));
        assert_eq!(ledger.gaps.len(), MOST_GAPS);
        assert_eq!(ledger.close(2 * gaps), counts(gaps, gaps, 0, 0));
        // It comes after all, and nobody knows any more whether for the first time.
        ledger.note(0);
        assert_eq!(ledger.close(2 * gaps), counts(gaps, gaps, 1, 0));
    }

    proptest! {
        #[test]
        fn received_and_lost_are_what_was_sent(came in prop::collection::vec(0_u64..40, 0..80)) {
            let different = came.iter().collect::<std::collections::BTreeSet<_>>().len() as u64;
            let counts = ledger(came.iter().copied()).close(40);
            prop_assert_eq!(counts.received, different);
            prop_assert_eq!(counts.received + counts.lost, 40);
            prop_assert_eq!(counts.received + counts.duplicated, came.len() as u64);
        }
    }
}
