//! `pombo topics`: what is subscribed to in the mesh.

use std::collections::{BTreeMap, BTreeSet};

use pombo::PeerStatus;
use serde::Serialize;

use super::failure::Failure;
use super::listing::Page;
use super::table::Table;
use super::text;

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Item {
    pattern: String,
    nodes: usize,
    groups: BTreeSet<String>,
}

pub(super) fn page(peers: &[PeerStatus]) -> Result<Page, Failure> {
    let here = peers.iter().filter(|peer| !peer.suspect);
    let items = items(here.map(subscriptions));
    let mut table = Table::new(["PATTERN", "NODES", "GROUPS"]);
    for item in &items {
        let groups: Vec<_> = item.groups.iter().map(String::as_str).collect();
        let groups = text::escape(&groups.join(", ")).into_owned();
        table.row([text::escape(&item.pattern).into_owned(), item.nodes.to_string(), groups]);
    }
    Page::new(items, &table, peers, "nobody is subscribed to anything")
}

type Subscription<'a> = (&'a str, Option<&'a str>);

fn subscriptions(peer: &PeerStatus) -> impl Iterator<Item = Subscription<'_>> {
    peer.patterns.iter().map(|(pattern, group)| (pattern.as_str(), group.as_deref()))
}

/// Each pattern once, with the number of nodes that subscribe to it, and the groups in which they do.
fn items<'a>(nodes: impl Iterator<Item = impl Iterator<Item = Subscription<'a>>>) -> Vec<Item> {
    let mut patterns: BTreeMap<&str, (BTreeSet<usize>, BTreeSet<String>)> = BTreeMap::new();
    for (node, subscriptions) in nodes.enumerate() {
        for (pattern, group) in subscriptions {
            let (nodes, groups) = patterns.entry(pattern).or_default();
            nodes.insert(node);
            groups.extend(group.map(str::to_owned));
        }
    }
    let item = |(pattern, (nodes, groups)): (&str, (BTreeSet<usize>, _))| Item {
        pattern: pattern.to_owned(),
        nodes: nodes.len(),
        groups,
    };
    patterns.into_iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_listed_once_with_its_nodes_and_groups() {
        let one = vec![("demo.>", None), ("a.b", Some("packers")), ("a.b", None)];
        let two = vec![("a.b", Some("packers")), ("a.b", Some("audit"))];
        let items = items([one, two].into_iter().map(Vec::into_iter));
        let groups = ["audit", "packers"].map(str::to_owned).into();
        assert_eq!(
            items,
            [
                Item { pattern: "a.b".into(), nodes: 2, groups },
                Item { pattern: "demo.>".into(), nodes: 1, groups: BTreeSet::new() },
            ]
        );
    }
}
