//! Sets of shards.

use crate::wire::frame::{SHARDS, shard_of};

/// A set of the mesh's 64 shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardSet(u64);

impl ShardSet {
    pub(crate) const ALL: Self = Self(u64::MAX);

    /// The shards that messages on these patterns may be in: one where the first token is exact, otherwise all.
    pub(crate) fn of_patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        patterns.into_iter().fold(Self::default(), |all, pattern| all.union(Self::of_pattern(pattern)))
    }

    fn of_pattern(pattern: &str) -> Self {
        match pattern.split('.').next() {
            Some("*" | ">") => Self::ALL,
            Some(_) | None => Self(1 << shard_of(pattern)),
        }
    }

    pub(crate) fn contains(self, shard: u8) -> bool {
        shard < SHARDS && self.0 & (1 << shard) != 0
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of `self` that are not in `other`.
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        (0..SHARDS).filter(move |shard| self.contains(*shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_in_front_means_all_shards() {
        assert_eq!(ShardSet::of_patterns([">"]), ShardSet::ALL);
        assert_eq!(ShardSet::of_patterns(["*.a"]), ShardSet::ALL);
        let one = ShardSet::of_patterns(["a.>"]);
        assert_eq!(one.iter().collect::<Vec<_>>(), [shard_of("a.b.c")]);
        assert_eq!(ShardSet::ALL.without(one).iter().count(), 63);
    }
}
