//! The nodes: started one after the other, linked as the graph says and no other way.

use std::path::Path;
use std::time::Duration;

use pombo::{Config, Dissemination, MeshChoice, Multiaddr, Node};

use crate::Result;
use crate::graph::Graph;
use crate::process::now;

/// How long all may take to know all.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What the nodes know of each other at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Roll {
    /// Records of others that are there, of all nodes together.
    pub(crate) known: usize,
    /// Links, of all nodes together.
    pub(crate) links: usize,
    /// The most and the fewest links that a node has.
    pub(crate) most: usize,
    pub(crate) fewest: usize,
}

/// Starts the nodes. Of two that are linked the later one dials, so that no dial comes too early.
///
/// Addresses in memory are told to nobody, so no node makes links beyond those that it is given.
pub(crate) async fn start(nodes: usize, graph: &Graph, directory: &Path) -> Result<Vec<Node>> {
    let mut started = Vec::with_capacity(nodes);
    for number in 0..nodes {
        let earlier = graph.iter().filter(|(_, later)| *later == number).map(|(earlier, _)| *earlier);
        let config = Config {
            name: Some(format!("n{number}")),
            mesh: MeshChoice::Named("growth".to_owned()),
            listen: vec![address(number)?],
            peers: earlier.map(address).collect::<Result<_>>()?,
            mdns: false,
            local: false,
            data_dir: Some(directory.to_owned()),
            // Up to 32 listeners that are all neighbours are served directly. Ten of them are, and nothing would compare.
            dissemination: Dissemination::Gossip,
            ..Config::default()
        };
        let links = config.peers.len();
        let node = Node::builder().config(config).start().await?;
        // All at once they would want so much that links fall again for want of an answer in time.
        tokio::time::timeout(PATIENCE, node.ready(links)).await??;
        started.push(node);
    }
    Ok(started)
}

fn address(number: usize) -> Result<Multiaddr> {
    // 0 stands for any that is free.
    Ok(format!("/memory/{}", number + 1).parse()?)
}

/// Waits until every node knows every other, and has its links. Says how long that took, in seconds.
pub(crate) async fn gather(nodes: &[Node], graph: &Graph) -> Result<f64> {
    let began = now();
    let all = nodes.len() * (nodes.len() - 1);
    loop {
        let roll = roll(nodes).await?;
        if roll.known == all && roll.links == 2 * graph.len() {
            return Ok(crate::report::seconds(now() - began));
        }
        if now() - began > u64::try_from(PATIENCE.as_nanos())? {
            let links = 2 * graph.len();
            return Err(format!(
                "they do not find together: {} of {all} records, {} of {links} ends of links",
                roll.known, roll.links
            )
            .into());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

pub(crate) async fn roll(nodes: &[Node]) -> Result<Roll> {
    let mut roll = Roll { fewest: usize::MAX, ..Roll::default() };
    for node in nodes {
        let status = node.status().await?;
        let links = status.tables.links;
        roll.known += status.peers.iter().filter(|peer| !peer.suspect && !peer.patterns.is_empty()).count();
        roll.links += links;
        roll.most = roll.most.max(links);
        roll.fewest = roll.fewest.min(links);
    }
    Ok(roll)
}
