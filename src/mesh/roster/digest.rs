//! Rosters as 256 numbers: what two nodes compare to find where theirs differ.

use crate::wire::node_key::NodeKey;
use crate::wire::roster::Stamp;

/// One bucket for each first byte of a node's key. Keys are uniform, so buckets are about equally full.
pub(super) const BUCKETS: usize = 256;

pub(super) fn bucket_of(node: &NodeKey) -> u8 {
    let [first, ..] = node.0;
    first
}

/// A digest of (node, stamp) pairs, kept up to date change by change: a bucket is the exclusive or of the hashes of its
/// pairs, so that their order does not matter and adding and removing are the same thing.
#[derive(Clone, Debug)]
pub(super) struct Digest {
    buckets: [u64; BUCKETS],
}

impl Digest {
    pub(super) fn new() -> Self {
        Self { buckets: [0; BUCKETS] }
    }

    /// Adds a pair that is not in it, or removes one that is.
    pub(super) fn toggle(&mut self, node: &NodeKey, stamp: Stamp) {
        if let Some(bucket) = self.buckets.get_mut(usize::from(bucket_of(node))) {
            *bucket ^= hash(node, stamp);
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u64> {
        self.buckets.to_vec()
    }

    /// The buckets in which another digest differs, from `start` on and around. None if it is no such digest.
    pub(super) fn differing(&self, other: &[u64], start: u8) -> Vec<u8> {
        if other.len() != BUCKETS {
            return Vec::new();
        }
        let differs = |bucket: &u8| self.buckets.get(usize::from(*bucket)) != other.get(usize::from(*bucket));
        (0..=u8::MAX).map(|offset| start.wrapping_add(offset)).filter(differs).collect()
    }
}

fn hash(node: &NodeKey, stamp: Stamp) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&node.0).update(&stamp.incarnation.to_be_bytes()).update(&stamp.version.to_be_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(first: u8, version: u64) -> (NodeKey, Stamp) {
        let mut key = [7; 32];
        key[0] = first;
        (NodeKey(key), Stamp { incarnation: 1, version })
    }

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let (mut one, mut other) = (Digest::new(), Digest::new());
        for version in [1, 2, 3] {
            let (node, stamp) = pair(9, version);
            one.toggle(&node, stamp);
        }
        for version in [3, 1, 2, 4, 4] {
            let (node, stamp) = pair(9, version);
            other.toggle(&node, stamp);
        }
        assert_eq!(one.to_vec(), other.to_vec());
        let (node, stamp) = pair(9, 4);
        other.toggle(&node, stamp);
        assert_eq!(one.differing(&other.to_vec(), 0), [9]);
    }

    #[test]
    fn differences_are_listed_from_the_start_and_around() {
        let (mut one, empty) = (Digest::new(), Digest::new());
        for first in [3, 200] {
            let (node, stamp) = pair(first, 1);
            one.toggle(&node, stamp);
        }
        assert_eq!(one.differing(&empty.to_vec(), 0), [3, 200]);
        assert_eq!(one.differing(&empty.to_vec(), 4), [200, 3]);
        assert!(one.differing(&[1, 2], 0).is_empty(), "no digest at all");
    }
}
