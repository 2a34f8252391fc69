//! The one derived behaviour: libp2p's protocols with the settings that pombo needs, and the reason for each.
//!
//! Must not: decide anything. What the behaviours report goes to the mesh.

use std::fmt;
use std::io;
use std::time::Duration;

use libp2p::gossipsub::{self, MessageId, ValidationMode};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, connection_limits};

use crate::MeshId;
use crate::net::gossip::Gossip;
use crate::net::lanes::Lanes;
use crate::net::mdns::Mdns;
use crate::net::pulse::Pulse;
use crate::net::rpc;
use crate::wire::frame;

/// The largest frame and what gossipsub puts around it. Its size check covers the whole receive buffer, so that this must
/// exceed the largest frame (60 KiB) by 16 KiB, or frames near the limit vanish.
const MAX_TRANSMIT: usize = 80 * 1024;

/// The most connections.
pub(crate) const CONNECTIONS: u32 = 256;
/// The most that are being made by this node. Those that come in wait at the [`doorstep`](super::doorstep).
pub(crate) const PENDING: u32 = 32;

/// A connection that was not heard for this long may lead nowhere: the beat after the last one has had a third of a second.
pub(crate) const DOUBT: Duration = Duration::from_millis(2300);

/// A connection that was not heard for this long leads nowhere: close it.
pub(crate) const SILENCE: Duration = Duration::from_millis(4500);

/// All protocols that run on every connection.
///
/// The order matters. A connection is offered to the fields from the first to the last, and those before the one that
/// refuses it have already noted it and are never told. So what may refuse comes first, and what keeps state per peer last:
/// otherwise gossipsub remembers peers that are not there, and a request to one hangs for ever.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) mdns4: Toggle<Mdns>,
    pub(crate) mdns6: Toggle<Mdns>,
    pub(crate) pulse: Pulse,
    pub(crate) lanes: Lanes,
    pub(crate) gossip: Gossip,
    pub(crate) rpc: rpc::Behaviour,
}

/// The settings contradict each other: a bug, but not one to panic for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BehaviourError {
    #[error("gossipsub refuses its configuration: {0}")]
    Config(#[from] gossipsub::ConfigBuilderError),
    #[error("gossipsub refuses to start: {0}")]
    Gossip(&'static str),
}

/// Why neighbours are not looked for over mDNS in one address family.
#[derive(Debug)]
pub(crate) struct MdnsOff {
    ipv6: bool,
    reason: io::Error,
}

impl fmt::Display for MdnsOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no mDNS over {}: {}", if self.ipv6 { "IPv6" } else { "IPv4" }, self.reason)
    }
}

impl Behaviour {
    /// The behaviours of the node `own` in `mesh`. Needs a tokio runtime if `mdns` is to be on.
    ///
    /// A family in which mDNS cannot run is off, and the reason is returned to be shown: a node does without.
    ///
    /// # Errors
    ///
    /// If the settings in this file contradict each other.
    pub(crate) fn new(
        own: PeerId,
        mesh: MeshId,
        mdns: bool,
        lanes: Lanes,
    ) -> Result<(Self, Vec<MdnsOff>), BehaviourError> {
        let mut off = Vec::new();
        let mut family = |ipv6| {
            let started = mdns.then(|| Mdns::new(own, ipv6)).transpose();
            Toggle::from(started.unwrap_or_else(|reason| {
                off.push(MdnsOff { ipv6, reason });
                None
            }))
        };
        let behaviour = Self {
            limits: connection_limits::Behaviour::new(limits()),
            mdns4: family(false),
            mdns6: family(true),
            pulse: Pulse::new(),
            lanes,
            gossip: gossip(mesh)?,
            rpc: rpc::behaviour(mesh),
        };
        Ok((behaviour, off))
    }
}

fn limits() -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_established(Some(CONNECTIONS))
        // After a crash the dead connection lingers while the new one is made, over several addresses at once. The mesh
        // closes the surplus.
        .with_max_established_per_peer(Some(4))
        // Who waits at the door is counted there, by host. Those that made room for others still count here, until their
        // tasks have run.
        .with_max_pending_incoming(Some(1024))
        .with_max_pending_outgoing(Some(PENDING))
}

fn gossip(mesh: MeshId) -> Result<Gossip, BehaviourError> {
    let config = gossipsub::ConfigBuilder::default()
        // Frames carry pombo's own signature; in libp2p's signed mode an unauthenticated `source` would steer forwarding.
        .validation_mode(ValidationMode::Anonymous)
        // Nothing is forwarded before the mesh has verified it. It must report within `history_length` heartbeats.
        .validate_messages()
        // Binds the whole frame and its topic, and nobody can guess it before the frame is there: a frame on another
        // shard's topic does not take the place of the one on its own.
        .message_id_fn(|message| MessageId::new(&frame::gossip_id(message.topic.as_str(), &message.data)))
        .max_transmit_size(MAX_TRANSMIT)
        // The queue counts frames, not bytes: this bounds a peer that reads nothing to 10 MiB.
        .connection_handler_queue_len(128)
        // The cache keeps everything of so many heartbeats: of a busy publisher much. What is older is repaired from pombo's
        // rings.
        .history_length(3)
        .history_gossip(2)
        .heartbeat_interval(Duration::from_millis(400))
        // A verb that runs for a second must not wait 5 s to be grafted.
        .heartbeat_initial_delay(Duration::from_millis(200))
        .duplicate_cache_time(Duration::from_secs(60))
        // Own frames go to every subscribed neighbour: one hop less for the price of copies that small meshes do not feel.
        .flood_publish(true)
        .build()?;
    Gossip::new(mesh, config).map_err(BehaviourError::Gossip)
}

#[cfg(test)]
mod tests;
