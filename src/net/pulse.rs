//! The pulse of each connection: whether the other side is there, and how far away it is.
//!
//! Whoever dialled sends a beat every two seconds, on a stream that stays, and the other side sends it back: both have heard
//! each other. Libp2p's ping does that from both sides, with timers of its own for each connection, which was half of what an idle
//! node did. All connections of a process beat at the same time, so that it is woken once.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

mod handler;

pub(crate) use self::handler::Handler;

const INTERVAL: Duration = Duration::from_secs(2);

/// A connection was heard.
#[derive(Debug)]
pub(crate) struct Beat {
    pub(crate) peer: PeerId,
    pub(crate) connection: ConnectionId,
    /// How long a beat took there and back, as far as that is known.
    pub(crate) time: Option<Duration>,
}

/// When the connections of a process beat.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    start: Instant,
}

impl Rhythm {
    /// The next time after this one.
    fn after(self, now: Instant) -> Instant {
        let beats = (now - self.start).as_micros() / INTERVAL.as_micros() + 1;
        self.start + INTERVAL * u32::try_from(beats).unwrap_or(u32::MAX)
    }
}

#[derive(Debug)]
pub(crate) struct Pulse {
    rhythm: Rhythm,
    beats: VecDeque<Beat>,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { rhythm: Rhythm { start: Instant::now() }, beats: VecDeque::new() }
    }
}

impl NetworkBehaviour for Pulse {
    type ConnectionHandler = Handler;
    type ToSwarm = Beat;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::echoing())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::beating(self.rhythm))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, time: THandlerOutEvent<Self>) {
        self.beats.push_back(Beat { peer, connection, time });
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Beat, THandlerInEvent<Self>>> {
        // The swarm, which fills the queue, polls afterwards.
        self.beats.pop_front().map_or(Poll::Pending, |beat| Poll::Ready(ToSwarm::GenerateEvent(beat)))
    }
}

#[cfg(test)]
mod tests;
