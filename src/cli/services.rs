//! `pombo services`: what is served in the mesh, and by whom.

use std::collections::BTreeMap;

use pombo::Node;
use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::table::Table;
use super::{json, peers, text};

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

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    context.finish_on_node(context.short_lived(), async |node| list(context, node).await).await
}

async fn list(context: &Context, node: &Node) -> Result<(), Failure> {
    let output = context.output;
    let peers = peers::known(node).await?;
    let mut services: BTreeMap<&str, Vec<Provider<'_>>> = BTreeMap::new();
    for peer in peers.iter().filter(|peer| !peer.suspect) {
        for service in &peer.services {
            let provider = Provider { name: &peer.name, peer: peer.peer.to_string() };
            services.entry(service).or_default().push(provider);
        }
    }
    if output.is_json() {
        let items = services.into_iter().map(|(service, providers)| Item { service, providers }).collect();
        return output.object(&json::Items { items });
    }
    if peers.is_empty() {
        peers::alone(context);
    } else if services.is_empty() {
        output.note(format_args!("nothing is served ({} in the mesh)", text::count(peers.len(), "peer")));
    } else {
        let mut table = Table::new(["SERVICE", "PROVIDERS"]);
        for (service, providers) in services {
            let names: Vec<_> = providers.iter().map(|provider| provider.name).collect();
            table.row([text::escape(service).into_owned(), text::escape(&names.join(", ")).into_owned()]);
        }
        output.table(&table)?;
    }
    Ok(())
}
