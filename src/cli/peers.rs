//! `pombo peers`: the nodes of the mesh.

use pombo::PeerStatus;
use serde::Serialize;

use super::failure::Failure;
use super::listing::Page;
use super::table::Table;
use super::{json, text};

#[derive(Serialize)]
struct Item<'a> {
    name: &'a str,
    peer: String,
    addresses: Vec<String>,
    links: u32,
    found_by: Option<&'static str>,
    round_trip_seconds: Option<f64>,
    patterns: Vec<Subscribed<'a>>,
    services: &'a [String],
    relay: bool,
    suspect: bool,
}

#[derive(Serialize)]
struct Subscribed<'a> {
    pattern: &'a str,
    group: Option<&'a str>,
}

impl<'a> From<&'a PeerStatus> for Item<'a> {
    fn from(peer: &'a PeerStatus) -> Self {
        let subscribed =
            |(pattern, group): &'a (String, Option<String>)| Subscribed { pattern, group: group.as_deref() };
        Self {
            name: &peer.name,
            peer: peer.peer.to_string(),
            addresses: peer.addresses.iter().map(ToString::to_string).collect(),
            links: peer.links,
            found_by: peer.found_by.map(json::found_by),
            round_trip_seconds: peer.round_trip.map(|time| time.as_secs_f64()),
            patterns: peer.patterns.iter().map(subscribed).collect(),
            services: &peer.services,
            relay: peer.relay,
            suspect: peer.suspect,
        }
    }
}

pub(super) fn page(peers: &[PeerStatus]) -> Result<Page, Failure> {
    let mut table = Table::new(["NAME", "PEER", "ADDRESS", "FOUND BY", "ROUND TRIP", "PATTERNS", "SERVICES", ""]);
    for peer in peers {
        table.row(row(peer));
    }
    Page::new(peers.iter().map(Item::from).collect(), &table, peers, "nobody is there")
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
