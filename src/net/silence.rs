//! Connections that answer nothing any more.
//!
//! Calls must fail within 5 s when a host has vanished. So what counts here is when a connection was last heard: its
//! [`pulse`](super::pulse) is every two seconds.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

/// When each connection was last heard.
#[derive(Debug)]
pub(crate) struct Silence {
    heard: HashMap<ConnectionId, Heard>,
    doubt: Duration,
    patience: Duration,
}

#[derive(Debug)]
struct Heard {
    peer: PeerId,
    at: Instant,
    /// That it is silent was told.
    told: bool,
}

impl Silence {
    /// A connection that is silent for `doubt` is told of, and one that is for `patience` is taken for dead.
    pub(crate) fn new(doubt: Duration, patience: Duration) -> Self {
        Self { heard: HashMap::new(), doubt, patience }
    }

    /// The connection was made, or beat, or answered anything.
    pub(crate) fn heard(&mut self, connection: ConnectionId, peer: PeerId, now: Instant) {
        self.heard.insert(connection, Heard { peer, at: now, told: false });
    }

    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.heard.remove(&connection);
    }

    /// When the next connection will have been silent for too long.
    pub(crate) fn next(&self) -> Option<Instant> {
        let due = |heard: &Heard| heard.at + if heard.told { self.patience } else { self.doubt };
        self.heard.values().map(due).min()
    }

    /// Whose connections have been silent for so long that they may be dead. Each is named once.
    pub(crate) fn doubtful(&mut self, now: Instant) -> Vec<PeerId> {
        let doubt = self.doubt;
        let silent = self.heard.values_mut().filter(|heard| !heard.told && now - heard.at >= doubt);
        let told = silent.map(|heard| {
            heard.told = true;
            heard.peer
        });
        told.collect()
    }

    /// The connections that have been silent for too long. Each is named once.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<ConnectionId> {
        let patience = self.patience;
        self.heard.extract_if(|_, heard| now - heard.at >= patience).map(|(connection, _)| connection).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_connection_is_told_of_once_and_then_overdue() {
        let (doubt, patience) = (Duration::from_secs(2), Duration::from_secs(4));
        let mut silence = Silence::new(doubt, patience);
        let (start, peer, connection) = (Instant::now(), PeerId::random(), ConnectionId::new_unchecked(1));
        silence.heard(connection, peer, start);
        assert_eq!(silence.next(), Some(start + doubt));
        assert!(silence.doubtful(start + Duration::from_secs(1)).is_empty());
        assert_eq!(silence.doubtful(start + doubt), [peer]);
        assert!(silence.doubtful(start + doubt).is_empty());
        assert_eq!(silence.next(), Some(start + patience));
        assert!(silence.overdue(start + doubt).is_empty());
        // It was only slow.
        silence.heard(connection, peer, start + doubt);
        assert_eq!(silence.next(), Some(start + patience));
        assert_eq!(silence.doubtful(start + patience), [peer]);
        assert_eq!(silence.overdue(start + doubt + patience), [connection]);
        assert_eq!(silence.next(), None);
    }
}
