//! Which shards patterns need: a set of the mesh's 64 gossip topics as one integer.

use crate::wire::frame::{SHARDS, shard_of};

/// A set of shards: bit `n` stands for shard `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardSet(pub(crate) u64);

// One bit for each shard.
const _: () = assert!(SHARDS == 64);

impl ShardSet {
    pub(crate) const EMPTY: Self = Self(0);
    pub(crate) const ALL: Self = Self(u64::MAX);

    /// The set of one shard. Empty if there is no such shard.
    pub(crate) fn of(shard: u8) -> Self {
        Self(1u64.checked_shl(shard.into()).unwrap_or(0))
    }

    pub(crate) fn contains(self, shard: u8) -> bool {
        self.0 & Self::of(shard).0 != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this set and not in `other`.
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Its shards, in ascending order.
    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        (0..SHARDS).filter(move |shard| self.contains(*shard))
    }
}

/// The shards that carry what these patterns match: that of the first token, or all if that is a wildcard.
pub(crate) fn shards_of<P: AsRef<str>>(patterns: impl IntoIterator<Item = P>) -> ShardSet {
    patterns.into_iter().fold(ShardSet::EMPTY, |set, pattern| {
        let pattern = pattern.as_ref();
        match pattern.split('.').next() {
            Some("*" | ">") => ShardSet::ALL,
            Some(_) | None => set.union(ShardSet::of(shard_of(pattern))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_first_token_needs_one_shard_and_a_wildcard_all() {
        let orders = ShardSet::of(shard_of("orders"));
        assert_eq!(shards_of(["orders.eu.created", "orders.*", "orders.>"]), orders);
        assert_eq!(shards_of(["orders", "*.created"]), ShardSet::ALL);
        assert_eq!(shards_of([">"]), ShardSet::ALL);
        assert_eq!(shards_of::<&str>([]), ShardSet::EMPTY);
    }

    #[test]
    fn set_arithmetic() {
        let (low, high) = (ShardSet::of(0), ShardSet::of(63));
        let both = low.union(high);
        assert_eq!(both.iter().collect::<Vec<_>>(), [0, 63]);
        assert_eq!(both.without(low), high);
        assert_eq!(both.intersection(low), low);
        assert!(ShardSet::of(64).is_empty() && !both.contains(64));
        assert_eq!(ShardSet::ALL.iter().count(), 64);
    }
}
