//! Multicast DNS in one address family, with a bound to what is believed of it.
//!
//! Whoever is on the network can answer for any number of nodes that are not there. Libp2p's behaviour keeps every answer for
//! as long as it says, and passes each on. So this stands around it: when more is found than a network has, it is given up
//! for a minute, with all that it has kept, and begins anew.
//!
//! What libp2p found is also kept from its other behaviours: where a node is dialled is the mesh's business.
//!
//! Must not: judge whoever is found.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use libp2p::core::{Endpoint, transport::ListenerId, transport::PortUse};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, ListenAddresses, NetworkBehaviour, NewListenAddr, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId, mdns};
use tokio::time::{Instant, Sleep};

use crate::net::inner;

/// Addresses that may be found at once: of a thousand nodes, over TCP and QUIC.
const BURST: u32 = 2_048;
/// ... and in each second after that.
const STEADY: u32 = 32;
/// How long it is off after a flood.
const PAUSE: Duration = Duration::from_secs(60);
/// Addresses that libp2p may keep. Beyond, it begins anew.
const KEPT: usize = 8_192;

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// These nodes say that they are there.
    Found(Vec<(PeerId, Multiaddr)>),
    /// More were found than there can be. Nobody is found for a while.
    Flooded,
}

/// Multicast DNS in one address family.
pub(crate) struct Mdns {
    own: PeerId,
    ipv6: bool,
    inner: Option<mdns::tokio::Behaviour>,
    /// What a behaviour that begins anew has to be told.
    listening: ListenAddresses,
    budget: Budget,
    /// When to begin anew.
    again: Pin<Box<Sleep>>,
}

impl Mdns {
    /// For the node `own`. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the system does not tell of its interfaces.
    pub(crate) fn new(own: PeerId, ipv6: bool) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            own,
            ipv6,
            inner: Some(start(own, ipv6)?),
            listening: ListenAddresses::default(),
            budget: Budget::new(now),
            again: Box::pin(tokio::time::sleep_until(now)),
        })
    }

    fn stop(&mut self, now: Instant) {
        self.inner = None;
        self.again.as_mut().reset(now + PAUSE);
    }

    /// Begins anew, with nothing kept of what was found. Whoever is there says so again.
    fn begin(&mut self) {
        match start(self.own, self.ipv6) {
            Ok(mut inner) => {
                for addr in self.listening.iter() {
                    let heard = NewListenAddr { listener_id: ListenerId::next(), addr };
                    inner.on_swarm_event(FromSwarm::NewListenAddr(heard));
                }
                self.inner = Some(inner);
            }
            Err(error) => {
                tracing::debug!(%error, ipv6 = self.ipv6, "mDNS cannot begin anew yet");
                self.stop(Instant::now());
            }
        }
    }

    /// Takes what libp2p says. `None` if it is of no interest here.
    fn take(&mut self, event: ToSwarm<mdns::Event, Infallible>, now: Instant) -> Option<Event> {
        // An expiry says little: one lost packet is enough. Links are judged by whether they work.
        let ToSwarm::GenerateEvent(mdns::Event::Discovered(found)) = event else { return None };
        if !self.budget.allows(found.len(), now) {
            self.stop(now);
            return Some(Event::Flooded);
        }
        if self.inner.as_ref().is_some_and(|inner| inner.discovered_nodes().len() > KEPT) {
            self.begin();
        }
        Some(Event::Found(found))
    }
}

fn start(own: PeerId, enable_ipv6: bool) -> io::Result<mdns::tokio::Behaviour> {
    // Libp2p's defaults of 5 and 6 minutes keep a dead node listed, and one lost packet away from a living one.
    let config = mdns::Config { ttl: Duration::from_secs(120), query_interval: Duration::from_secs(30), enable_ipv6 };
    mdns::tokio::Behaviour::new(config, own)
}

impl NetworkBehaviour for Mdns {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        // Nobody on the network can be found there.
        if matches!(&event, FromSwarm::NewListenAddr(new) if inner::is_memory(new.addr)) {
            return;
        }
        self.listening.on_swarm_event(&event);
        if let Some(inner) = &mut self.inner {
            inner.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        loop {
            match &mut self.inner {
                Some(inner) => {
                    let event = ready!(inner.poll(cx));
                    if let Some(event) = self.take(event, Instant::now()) {
                        return Poll::Ready(ToSwarm::GenerateEvent(event));
                    }
                }
                None => {
                    ready!(self.again.as_mut().poll(cx));
                    self.begin();
                }
            }
        }
    }
}

/// How much more may be found now.
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    fn allows(&mut self, found: usize, now: Instant) -> bool {
        let seconds = u32::try_from((now - self.since).as_secs()).unwrap_or(u32::MAX);
        self.since += Duration::from_secs(seconds.into());
        self.left = self.left.saturating_add(seconds.saturating_mul(STEADY)).min(BURST);
        let left = u32::try_from(found).ok().and_then(|found| self.left.checked_sub(found));
        self.left = left.unwrap_or_default();
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    fn found(count: u32) -> ToSwarm<mdns::Event, Infallible> {
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        ToSwarm::GenerateEvent(mdns::Event::Discovered(vec![(peer, Multiaddr::empty()); count as usize]))
    }

    fn mdns() -> Mdns {
        let own = Keypair::generate_ed25519().public().to_peer_id();
        Mdns::new(own, false).unwrap()
    }

    #[tokio::test]
    async fn a_large_network_is_found_and_a_flood_turns_it_off_for_a_minute() {
        let (mut mdns, start) = (mdns(), Instant::now());
        assert!(matches!(mdns.take(found(BURST), start), Some(Event::Found(all)) if all.len() == BURST as usize));
        let later = start + Duration::from_secs(10);
        assert!(matches!(mdns.take(found(9 * STEADY), later), Some(Event::Found(_))));
        assert!(mdns.inner.is_some());
        assert!(matches!(mdns.take(found(2 * STEADY), later), Some(Event::Flooded)));
        assert!(mdns.inner.is_none(), "it is off, with all that it has kept");
        assert_eq!(mdns.again.deadline(), later + PAUSE);

        mdns.begin();
        assert!(matches!(mdns.take(found(BURST), later + 2 * PAUSE), Some(Event::Found(_))), "that is over");
    }
}
