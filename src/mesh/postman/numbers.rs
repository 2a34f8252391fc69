//! Sets of places in an outbox or inbox. Those are mostly next to each other, and may be millions: a bit for each.

use std::collections::BTreeMap;

use crate::mesh::time::Wall;

#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    /// Which of 64 numbers are there, by the number of the 64. No word is 0.
    words: BTreeMap<u64, u64>,
    len: usize,
}

/// The word that a number is in, and its bit there.
fn place(number: u64) -> (u64, u64) {
    (number / 64, 1 << (number % 64))
}

/// The numbers of a word.
fn of_word((word, bits): (u64, u64)) -> impl DoubleEndedIterator<Item = u64> {
    (0..64).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| 64 * word + bit)
}

impl Numbers {
    /// Returns whether it was not there.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        let bits = self.words.entry(word).or_default();
        let is_new = *bits & bit == 0;
        *bits |= bit;
        self.len += usize::from(is_new);
        is_new
    }

    /// Returns whether it was there.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        let Some(bits) = self.words.get_mut(&word).filter(|bits| **bits & bit != 0) else { return false };
        *bits &= !bit;
        if *bits == 0 {
            self.words.remove(&word);
        }
        self.len -= 1;
        true
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.words.get(&word).is_some_and(|bits| bits & bit != 0)
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.iter().next()
    }

    /// In their order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = u64> {
        self.words.iter().flat_map(|(word, bits)| of_word((*word, *bits)))
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Extend<u64> for Numbers {
    fn extend<I: IntoIterator<Item = u64>>(&mut self, numbers: I) {
        for number in numbers {
            self.insert(number);
        }
    }
}

/// When something is due, to the second: not before its time.
#[derive(Debug, Default)]
pub(super) struct Due(BTreeMap<u64, Numbers>);

fn second(at: Wall) -> u64 {
    at.0.div_ceil(1_000_000)
}

impl Due {
    pub(super) fn insert(&mut self, at: Wall, number: u64) {
        self.0.entry(second(at)).or_default().insert(number);
    }

    pub(super) fn remove(&mut self, at: Wall, number: u64) {
        if let Some(numbers) = self.0.get_mut(&second(at)) {
            numbers.remove(number);
            if numbers.is_empty() {
                self.0.remove(&second(at));
            }
        }
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Wall> {
        self.0.first_key_value().map(|(second, _)| Wall(second.saturating_mul(1_000_000)))
    }

    /// What is due by now, which is taken out.
    pub(super) fn take(&mut self, now: Wall) -> Vec<u64> {
        let mut due = Vec::new();
        while self.next().is_some_and(|next| next <= now)
            && let Some((_, numbers)) = self.0.pop_first()
        {
            due.extend(numbers.iter());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_numbers_is_one(steps in prop::collection::vec((any::<bool>(), 0..300_u64, any::<bool>()), 0..300)) {
            let (mut numbers, mut model) = (Numbers::default(), BTreeSet::new());
            for (insert, number, large) in steps {
                let number = if large { u64::MAX - number } else { number };
                if insert {
                    prop_assert_eq!(numbers.insert(number), model.insert(number));
                } else {
                    prop_assert_eq!(numbers.remove(number), model.remove(&number));
                }
                prop_assert_eq!((numbers.len(), numbers.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(numbers.contains(number), model.contains(&number));
                prop_assert_eq!(numbers.first(), model.first().copied());
            }
            prop_assert!(numbers.iter().eq(model.iter().copied()));
            prop_assert!(numbers.iter().rev().eq(model.iter().rev().copied()));
        }
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut due = Due::default();
        for (at, number) in [(2_000_001, 1), (2_000_000, 2), (2_999_999, 3), (1, 4)] {
            due.insert(Wall(at), number);
        }
        due.remove(Wall(2_999_999), 3);
        assert_eq!(due.next(), Some(Wall(1_000_000)));
        assert_eq!((due.take(Wall(999_999)), due.take(Wall(2_000_000))), (vec![], vec![4, 2]));
        assert_eq!((due.next(), due.take(Wall(3_000_000))), (Some(Wall(3_000_000)), vec![1]));
        assert_eq!(due.next(), None);
    }
}
