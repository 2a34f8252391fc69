//! A random graph in which every node has as many links as every other, as far as that is possible.

use std::collections::BTreeSet;

/// Numbers that are the same for the same seed: SplitMix64.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from(self.next() % bound).unwrap_or_default()
    }
}

/// Who is linked to whom: pairs, the lower number first.
pub(crate) type Graph = BTreeSet<(usize, usize)>;

/// One ring through all nodes in random order, so that all hang together, and then links between two that lack some.
pub(crate) fn random(nodes: usize, degree: usize, chance: &mut Chance) -> Graph {
    let degree = degree.min(nodes - 1);
    let mut ring: Vec<usize> = (0..nodes).collect();
    (1..nodes).for_each(|at| ring.swap(at, chance.below(at + 1)));
    let mut graph = Graph::new();
    for (at, one) in ring.iter().enumerate() {
        graph.insert(pair(*one, ring[(at + 1) % nodes]));
    }
    let mut lacking: Vec<usize> = vec![degree.saturating_sub(2); nodes];
    // A pair that is linked already is drawn in vain. In the end that may be all there are.
    let mut vain = 0;
    while vain < 100 * nodes {
        let open: Vec<usize> = (0..nodes).filter(|node| lacking[*node] > 0).collect();
        if open.len() < 2 {
            break;
        }
        let (one, other) = (open[chance.below(open.len())], open[chance.below(open.len())]);
        if one != other && graph.insert(pair(one, other)) {
            lacking[one] -= 1;
            lacking[other] -= 1;
        } else {
            vain += 1;
        }
    }
    graph
}

fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_its_links_and_a_seed_repeats_them() {
        for (nodes, degree) in [(2, 8), (10, 8), (50, 8), (200, 8), (200, 12)] {
            let graph = random(nodes, degree, &mut Chance::new(7));
            assert_eq!(graph, random(nodes, degree, &mut Chance::new(7)));
            let links = |node: usize| graph.iter().filter(|(one, other)| *one == node || *other == node).count();
            assert!((0..nodes).all(|node| links(node) <= degree));
            let missing: usize = (0..nodes).map(|node| degree.min(nodes - 1) - links(node)).sum();
            assert!(missing <= degree, "{nodes} nodes lack {missing} links");
        }
    }
}
