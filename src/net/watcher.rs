//! The watcher: looks into the host's registry now and then, and tells the mesh whom it finds there.

use std::path::PathBuf;
use std::time::Duration;

use libp2p::PeerId;
use tokio::sync::mpsc;

use crate::mesh::event::{FoundBy, Input};
use crate::net::registry;
use crate::wire::MeshId;

/// Whoever comes writes its own entry before it looks for others, so of two nodes at least one finds the other at once.
/// Looking again is for what goes wrong.
const AGAIN: Duration = Duration::from_secs(2);

/// Looks until the driver is gone.
pub(crate) async fn run(directory: PathBuf, mesh: MeshId, me: PeerId, found: mpsc::Sender<Input>) {
    let mut often = tokio::time::interval(AGAIN);
    loop {
        often.tick().await;
        let directory = directory.clone();
        let Ok(mut cards) = tokio::task::spawn_blocking(move || registry::scan(&directory, mesh, me)).await else {
            return;
        };
        // Whoever links to a few takes them from the front: those who stay.
        cards.sort_by_key(|card| !card.node);
        for card in cards {
            let seen = Input::Seen { peer: Some(card.peer), addresses: card.addresses, by: FoundBy::Local };
            if found.send(seen).await.is_err() {
                return;
            }
        }
        // A first look that found nobody must be known to be over.
        if found.send(Input::Looked).await.is_err() {
            return;
        }
    }
}
