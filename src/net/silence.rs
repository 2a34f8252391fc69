//! Connections that answer no pings any more.
//!
//! Libp2p's ping keeps its first failure to itself and takes some 16 s to report a vanished host; calls must fail within
//! 5 s. So what counts here is when a connection was last heard.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

/// When each connection was last heard.
#[derive(Debug)]
pub(crate) struct Silence {
    heard: HashMap<ConnectionId, Instant>,
    patience: Duration,
}

impl Silence {
    /// A connection that is silent for `patience` is taken for dead.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { heard: HashMap::new(), patience }
    }

    /// The connection was made, or answered a ping.
    pub(crate) fn heard(&mut self, connection: ConnectionId, now: Instant) {
        self.heard.insert(connection, now);
    }

    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.heard.remove(&connection);
    }

    /// When the next connection will have been silent for too long.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heard.values().min().map(|heard| *heard + self.patience)
    }

    /// The connections that have been. Each is named once.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<ConnectionId> {
        let patience = self.patience;
        self.heard.extract_if(|_, heard| now - *heard >= patience).map(|(connection, _)| connection).collect()
    }
}
