//! `pombo peers`: the nodes of the mesh.

use pombo::{Node, PeerStatus};
use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::table::Table;
use super::{json, text};

#[derive(Serialize)]
struct Item {
    name: String,
    peer: String,
    addresses: Vec<String>,
    links: u32,
    found_by: Option<&'static str>,
    round_trip_seconds: Option<f64>,
    patterns: Vec<Subscribed>,
    services: Vec<String>,
    relay: bool,
    suspect: bool,
}

#[derive(Serialize)]
struct Subscribed {
    pattern: String,
    group: Option<String>,
}

impl From<PeerStatus> for Item {
    fn from(peer: PeerStatus) -> Self {
        Self {
            name: peer.name,
            peer: peer.peer.to_string(),
            addresses: peer.addresses.iter().map(ToString::to_string).collect(),
            links: peer.links,
            found_by: peer.found_by.map(json::found_by),
            round_trip_seconds: peer.round_trip.map(|time| time.as_secs_f64()),
            patterns: peer.patterns.into_iter().map(|(pattern, group)| Subscribed { pattern, group }).collect(),
            services: peer.services,
            relay: peer.relay,
            suspect: peer.suspect,
        }
    }
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    context.finish_on_node(context.short_lived(), async |node| list(context, node).await).await
}

async fn list(context: &Context, node: &Node) -> Result<(), Failure> {
    let output = context.output;
    let peers = known(node).await?;
    if output.is_json() {
        return output.object(&json::Items { items: peers.into_iter().map(Item::from).collect() });
    }
    if peers.is_empty() {
        alone(context);
        return Ok(());
    }
    let mut table = Table::new(["NAME", "PEER", "ADDRESS", "FOUND BY", "ROUND TRIP", "PATTERNS", "SERVICES", ""]);
    for peer in &peers {
        table.row(row(peer));
    }
    output.table(&table)
}

fn row(peer: &PeerStatus) -> [String; 8] {
    let remark = match (peer.suspect, peer.relay) {
        (true, _) => "not heard of",
        (false, true) => "relay",
        (false, false) => "",
    };
    [
        text::escape(&peer.name).into_owned(),
        text::short(peer.peer),
        peer.addresses.first().map(text::host).unwrap_or_default(),
        peer.found_by.map_or("", text::found_by).to_owned(),
        peer.round_trip.map(text::elapsed).unwrap_or_default(),
        peer.patterns.len().to_string(),
        peer.services.len().to_string(),
        remark.to_owned(),
    ]
}

/// The other nodes, once the first look around is over.
pub(super) async fn known(node: &Node) -> Result<Vec<PeerStatus>, Failure> {
    node.settled().await?;
    Ok(node.status().await?.peers)
}

/// Says that nobody is there, which is no failure of a listing.
pub(super) fn alone(context: &Context) {
    context.output.note("no other node was found");
    context.output.hint(context.lonely());
}
