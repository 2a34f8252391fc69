//! `pombo services`: what is served in the mesh, and by whom.

use std::collections::BTreeMap;

use pombo::PeerStatus;
use serde::Serialize;

use super::failure::Failure;
use super::listing::Page;
use super::table::Table;
use super::text;

#[derive(Serialize)]
struct Item<'a> {
    service: &'a str,
    providers: Vec<Provider<'a>>,
}

#[derive(Serialize)]
struct Provider<'a> {
    name: &'a str,
    peer: String,
}

pub(super) fn page(peers: &[PeerStatus]) -> Result<Page, Failure> {
    let mut services: BTreeMap<&str, Vec<Provider<'_>>> = BTreeMap::new();
    for peer in peers.iter().filter(|peer| !peer.suspect) {
        for service in &peer.services {
            let provider = Provider { name: &peer.name, peer: peer.peer.to_string() };
            services.entry(service).or_default().push(provider);
        }
    }
    let mut table = Table::new(["SERVICE", "PROVIDERS"]);
    for (service, providers) in &services {
        let names: Vec<_> = providers.iter().map(|provider| provider.name).collect();
        table.row([text::escape(service).into_owned(), text::escape(&names.join(", ")).into_owned()]);
    }
    let items: Vec<_> = services.into_iter().map(|(service, providers)| Item { service, providers }).collect();
    Page::new(items, &table, peers, "nothing is served")
}
