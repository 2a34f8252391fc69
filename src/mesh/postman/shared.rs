//! What many messages have in common, kept once: topics, recipients and nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

/// So many may be there before it is looked which of them nobody has any more.
const LEAST: usize = 64;

#[derive(Debug)]
pub(super) struct Shared<T: ?Sized> {
    all: BTreeSet<Arc<T>>,
    /// When it is looked again.
    at: usize,
}

impl<T: ?Sized + Ord> Shared<T> {
    /// The one that is equal to this, from now on this one if there is none.
    pub(super) fn of(&mut self, one: Arc<T>) -> Arc<T> {
        if let Some(known) = self.all.get(&one) {
            return Arc::clone(known);
        }
        if self.all.len() >= self.at {
            self.all.retain(|known| Arc::strong_count(known) > 1);
            self.at = (2 * self.all.len()).max(LEAST);
        }
        self.all.insert(Arc::clone(&one));
        one
    }
}

impl<T: ?Sized + Ord> Default for Shared<T> {
    fn default() -> Self {
        Self { all: BTreeSet::new(), at: LEAST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ones_are_one_and_what_nobody_has_goes() {
        let mut shared = Shared::<str>::default();
        let first = shared.of("orders".into());
        assert!(Arc::ptr_eq(&first, &shared.of("orders".into())));
        for number in 0..10_000 {
            shared.of(number.to_string().into());
            assert!(shared.all.len() <= LEAST);
        }
        assert!(Arc::ptr_eq(&first, &shared.of("orders".into())));
        let kept: Vec<_> = (0..1_000).map(|number| shared.of(number.to_string().into())).collect();
        assert!(shared.all.len() > kept.len());
    }
}
