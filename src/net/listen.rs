//! Opening the listeners of a node that starts.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm};
use tracing::warn;

use crate::error::StartError;
use crate::net::behaviour::{Behaviour, BehaviourEvent};
use crate::net::holder::Holder;

/// How long listeners may take to say where they listen.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the others may take, if nobody asked for them, when one of them has.
const STRAGGLERS: Duration = Duration::from_millis(250);

/// Where a node listens.
pub(crate) struct Listening {
    pub(crate) addresses: Vec<Multiaddr>,
    /// What happened meanwhile, for the driver.
    pub(crate) early: Vec<SwarmEvent<BehaviourEvent>>,
}

/// Listeners that are being opened.
struct Opening {
    /// Those that have not said yet where they listen.
    open: Vec<(ListenerId, Multiaddr)>,
    /// Nobody asked for these addresses: one that works is enough.
    by_default: bool,
    last_failure: Option<(Multiaddr, String)>,
}

/// Opens the listeners and waits until each says where it listens.
pub(crate) async fn listen(swarm: &mut Swarm<Behaviour>, wanted: &[Multiaddr]) -> Result<Listening, StartError> {
    let by_default = wanted.is_empty();
    let mut opening = Opening { open: Vec::new(), by_default, last_failure: None };
    for address in if by_default { everywhere() } else { wanted.to_vec() } {
        if let Err(error) = probe(&address) {
            opening.failed(address, error.to_string())?;
            continue;
        }
        match swarm.listen_on(address.clone()) {
            Ok(id) => opening.open.push((id, address)),
            Err(error) => opening.failed(address, reason(&error))?,
        }
    }
    let mut listening = Listening { addresses: Vec::new(), early: Vec::new() };
    let mut deadline = tokio::time::Instant::now() + PATIENCE;
    while !opening.open.is_empty() {
        let Ok(event) = tokio::time::timeout_at(deadline, swarm.select_next_some()).await else { break };
        if let SwarmEvent::NewListenAddr { listener_id, address } = event {
            opening.open.retain(|(id, _)| *id != listener_id);
            listening.addresses.push(address);
            if by_default {
                deadline = deadline.min(tokio::time::Instant::now() + STRAGGLERS);
            }
        } else if let SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. } = event {
            opening.closed(listener_id, &reason(&error))?;
        } else {
            listening.early.push(event);
        }
    }
    // A listener on every interface has more addresses than its first, and they are there already.
    while let Some(event) = swarm.select_next_some().now_or_never() {
        if let SwarmEvent::NewListenAddr { address, .. } = event {
            listening.addresses.push(address);
        } else {
            listening.early.push(event);
        }
    }
    opening.end(listening, wanted)
}

/// Whether another process listens on that TCP port. Libp2p would share the port with it, and each would get a part of the
/// connections.
fn probe(address: &Multiaddr) -> std::io::Result<()> {
    match socket(address) {
        Some((socket, false)) if socket.port() != 0 => TcpListener::bind(socket).map(drop),
        _ => Ok(()),
    }
}

/// Where that is, and whether it is UDP.
fn socket(address: &Multiaddr) -> Option<(SocketAddr, bool)> {
    let parts: Vec<_> = address.iter().take(2).collect();
    let (ip, port): (IpAddr, _) = match parts.as_slice() {
        [Protocol::Ip4(ip), port] => ((*ip).into(), port),
        [Protocol::Ip6(ip), port] => ((*ip).into(), port),
        _ => return None,
    };
    match std::slice::from_ref(port) {
        [Protocol::Tcp(port)] => Some((SocketAddr::new(ip, *port), false)),
        [Protocol::Udp(port)] => Some((SocketAddr::new(ip, *port), true)),
        _ => None,
    }
}

/// The error and what lies below it: libp2p's own say little.
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<_> = chain.map(ToString::to_string).filter(|text| !text.is_empty()).collect();
    texts.dedup();
    texts.join(": ")
}

impl Opening {
    fn closed(&mut self, listener: ListenerId, reason: &str) -> Result<(), StartError> {
        match self.open.iter().position(|(id, _)| *id == listener) {
            Some(index) => {
                let (_, address) = self.open.swap_remove(index);
                self.failed(address, reason.to_owned())
            }
            None => Ok(()),
        }
    }

    /// By default a host may lack IPv6, say. What was asked for has to work.
    fn failed(&mut self, address: Multiaddr, reason: String) -> Result<(), StartError> {
        if !self.by_default {
            return Err(cannot_listen(&address, &reason));
        }
        warn!(%address, reason, "cannot listen there");
        self.last_failure = Some((address, reason));
        Ok(())
    }

    fn end(self, listening: Listening, wanted: &[Multiaddr]) -> Result<Listening, StartError> {
        match (listening.addresses.is_empty(), self.last_failure) {
            (false, _) => Ok(listening),
            (true, Some((address, reason))) => Err(cannot_listen(&address, &reason)),
            (true, None) => Err(StartError::Listen {
                address: wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                reason: "no interface has such an address: check it with `ip address`".to_owned(),
            }),
        }
    }
}

fn cannot_listen(address: &Multiaddr, reason: &str) -> StartError {
    let reason = if reason.contains("in use") {
        let holder = socket(address).and_then(|(socket, udp)| Holder::of_port(socket, udp));
        let holder = holder.map_or_else(|| "another program".to_owned(), |holder| holder.to_string());
        format!("{reason}; {holder} has that port: choose another, or 0 for any free one")
    } else if reason.contains("Cannot assign") {
        format!(
            "{reason}; no interface has that address: `ip address` lists those there are, and 0.0.0.0 is all of them"
        )
    } else if reason.contains("ermission denied") {
        format!("{reason}; ports below 1024 are for privileged programs: choose another, or 0 for any free one")
    } else {
        reason.to_owned()
    };
    StartError::Listen { address: address.to_string(), reason }
}

/// Every interface, on ports that the system picks.
pub(super) fn everywhere() -> Vec<Multiaddr> {
    let ips = [Protocol::Ip4([0, 0, 0, 0].into()), Protocol::Ip6(std::net::Ipv6Addr::UNSPECIFIED)];
    let tcp = ips.iter().map(|ip| Multiaddr::empty().with(ip.clone()).with(Protocol::Tcp(0)));
    let quic = ips.iter().map(|ip| Multiaddr::empty().with(ip.clone()).with(Protocol::Udp(0)).with(Protocol::QuicV1));
    let quic = quic.filter(|_| cfg!(feature = "quic"));
    tcp.chain(quic).collect()
}
