//! What the nodes behind peer ids are called.

use std::collections::HashMap;
use std::time::Duration;

use pombo::PeerId;
use tokio::time::Instant;

use super::bus::Bus;
use super::text;

/// How often the node is asked at most. Short-lived nodes are in nobody's roster, so some ids never get a name.
const PAUSE: Duration = Duration::from_secs(1);

/// The names in the roster, as of the last time that an unknown id turned up.
#[derive(Default)]
pub(super) struct Names {
    known: HashMap<PeerId, String>,
    asked: Option<Instant>,
}

impl Names {
    /// The node's name, safe to print, or the end of its id.
    pub(super) async fn of(&mut self, bus: &Bus, peer: PeerId) -> String {
        if !self.known.contains_key(&peer) && self.asked.is_none_or(|asked| asked.elapsed() >= PAUSE) {
            self.refresh(bus).await;
        }
        self.known.get(&peer).cloned().unwrap_or_else(|| text::short(peer))
    }

    async fn refresh(&mut self, bus: &Bus) {
        // A node that has ended has no names to give; whoever asks will notice soon enough.
        if let Ok(all) = bus.everybody().await {
            self.known = all.into_iter().map(|peer| (peer.peer, text::escape(&peer.name).into_owned())).collect();
        }
        self.asked = Some(Instant::now());
    }
}

/// The name of a node, asked once.
pub(super) async fn name_of(bus: &Bus, peer: PeerId) -> String {
    Names::default().of(bus, peer).await
}
