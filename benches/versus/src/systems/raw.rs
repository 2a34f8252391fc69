//! What pombo is made of, bare: libp2p over TCP with Noise and Yamux, and one way to send on top of it. No names, no mesh, no
//! discovery: what these reach is what pombo could at best.

pub(super) mod request_response;
pub(super) mod stream;

use std::time::Duration;

use futures::StreamExt;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};

use crate::endpoint::{Result, Spec};

/// How many requests may be under way. By default it is 100, and more fail.
const STREAMS: usize = 4096;

/// Longer than any run: a connection on which nothing is under way stays.
const IDLE: Duration = Duration::from_secs(600);

fn swarm<B: NetworkBehaviour>(behaviour: B) -> Result<Swarm<B>> {
    let tcp = tcp::Config::default().nodelay(true);
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let builder = builder.with_tcp(tcp, noise::Config::new, yamux::Config::default)?.with_behaviour(|_| behaviour)?;
    let config = |config: libp2p::swarm::Config| {
        config.with_idle_connection_timeout(IDLE).with_max_negotiating_inbound_streams(STREAMS)
    };
    Ok(builder.with_swarm_config(config).build())
}

fn address(port: u16) -> Result<Multiaddr> {
    Ok(format!("/ip4/127.0.0.1/tcp/{port}").parse()?)
}

/// Listens where the process of this number should, and returns when it does.
async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, spec: &Spec) -> Result<()> {
    let port = spec.ports.get(spec.index).ok_or("no port to listen on")?;
    swarm.listen_on(address(*port)?)?;
    while !matches!(swarm.select_next_some().await, SwarmEvent::NewListenAddr { .. }) {}
    Ok(())
}

/// Dials all that listen, and returns when all are connected.
async fn dial<B: NetworkBehaviour>(swarm: &mut Swarm<B>, spec: &Spec) -> Result<Vec<PeerId>> {
    for port in &spec.ports {
        swarm.dial(address(*port)?)?;
    }
    let mut peers = Vec::new();
    while peers.len() < spec.ports.len() {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => peers.push(peer_id),
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
    Ok(peers)
}
