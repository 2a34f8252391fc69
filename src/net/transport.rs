//! How bytes get to a peer: TCP, QUIC and, within one process, memory; and the settings of the `Swarm` on top.
//!
//! One function composes every transport and passes the whole of it through the gate with one `and_then`. Whoever adds a
//! transport adds it in `ungated` and is behind the gate; libp2p's `SwarmBuilder`, whose transports cannot be wrapped, is
//! not used. In the same place every connection learns to end although the other side does not listen. Must not: open a
//! connection or listen by itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, MemoryTransport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport, noise, swarm, tcp, yamux};
use tokio::time::Sleep;

use crate::net::access::MeshAccess;
use crate::net::doorstep::Doorstep;
use crate::net::gate::Gate;

mod bulk;

use bulk::{GatheredYamux, Wide};

/// A transport as the `Swarm` takes it.
pub(crate) type BoxedTransport = Boxed<(PeerId, StreamMuxerBox)>;

/// Connecting, encryption and multiplexing together; the gate has its own budget. Half of libp2p's default: a stranger who
/// says nothing holds a place at the door for as long. Enough for two lost packets, and what QUIC allows as well.
const SET_UP: Duration = Duration::from_secs(5);

/// How long a connection that is being closed may say goodbye to the other side.
const FAREWELL: Duration = Duration::from_millis(500);

/// A hundred years. `Duration::MAX` would overflow libp2p's clock arithmetic, which then logs and halves it.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Streams per connection. Yamux *closes the connection* at its limit, so this stands well above what request-response
/// admits; it is also the most that fits yamux's receive window of 1 GiB.
const STREAMS: u16 = 4096;

/// Bytes that a QUIC connection may have in flight towards us. It bounds what a peer before the gate can make us hold, and
/// still fills a line of 300 Mbit/s at 100 ms.
#[cfg(feature = "quic")]
const QUIC_WINDOW: u32 = 4 * 1024 * 1024;

/// As much for each stream. Less than a lane's window, so that writing to a peer that does not read any more shows as such.
#[cfg(feature = "quic")]
const QUIC_STREAM: u32 = 768 * 1024;

/// Every transport there is, all of it behind the gate of `mesh`.
///
/// # Errors
///
/// If the key cannot be used for encryption.
pub(crate) fn transport(keypair: &Keypair, mesh: &MeshAccess) -> io::Result<BoxedTransport> {
    let gate = Gate::new(keypair.public().to_peer_id(), mesh);
    let gated = ungated(keypair)?
        .and_then(move |(peer, muxer), _| gate.pass(peer, muxer))
        .map_err(|error| error.map_right(io::Error::other).into_inner())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Ending::new(muxer))));
    Ok(Doorstep::new(gated.boxed()).boxed())
}

/// A connection that ends when it is closed, whether or not the other side takes what is still to be sent.
///
/// The `Swarm` reports a connection as closed when its muxer is, and yamux is only when everything is flushed. Over TCP to a
/// host that has vanished that takes minutes, for which the peer would count as linked.
struct Ending<M> {
    muxer: M,
    farewell: Option<Pin<Box<Sleep>>>,
}

impl<M> Ending<M> {
    fn new(muxer: M) -> Self {
        Self { muxer, farewell: None }
    }
}

impl<M> StreamMuxer for Ending<M>
where
    M: StreamMuxer<Substream = SubstreamBox, Error = io::Error> + Unpin,
{
    type Substream = SubstreamBox;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        Pin::new(&mut self.muxer).poll_inbound(context)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        Pin::new(&mut self.muxer).poll_outbound(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(closed) = Pin::new(&mut self.muxer).poll_close(context) {
            return Poll::Ready(closed);
        }
        let farewell = self.farewell.get_or_insert_with(|| Box::pin(tokio::time::sleep(FAREWELL)));
        let given_up = |()| Err(io::Error::new(io::ErrorKind::TimedOut, "the other side does not take the goodbye"));
        farewell.as_mut().poll(context).map(given_up)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.muxer).poll(context)
    }
}

/// Every transport, before the gate: for [`transport`], and for tests that play the stranger.
///
/// Noise runs without a prologue derived from the mesh's secret. With one, a neighbour of another mesh would fail inside
/// noise, indistinguishable from a broken line, and nobody could tell its owner that it belongs to another mesh. What the
/// prologue would save, strangers reaching yamux, it saves on TCP only. It belongs with certificates, if at all.
pub(super) fn ungated(keypair: &Keypair) -> io::Result<BoxedTransport> {
    let noise = noise::Config::new(keypair).map_err(io::Error::other)?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS.into());

    let streams = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(|socket, _| Wide::new(socket))
        .or_transport(MemoryTransport::default())
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(GatheredYamux(yamux))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));

    #[cfg(feature = "quic")]
    let streams = quic(keypair)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .or_transport(streams)
        .map(|either, _| either.into_inner());

    Ok(TransportTimeout::new(streams, SET_UP).boxed())
}

#[cfg(feature = "quic")]
fn quic(keypair: &Keypair) -> libp2p::quic::tokio::Transport {
    let mut config = libp2p::quic::Config::new(keypair);
    config.max_concurrent_stream_limit = STREAMS.into();
    config.max_connection_data = QUIC_WINDOW;
    config.max_stream_data = QUIC_STREAM;
    libp2p::quic::tokio::Transport::new(config)
}

/// How the `Swarm` treats connections.
///
/// Substreams negotiate in full (no `V1Lazy`): with the lazy form a peer that lacks a protocol shows as an I/O error in
/// mid-request, and "certainly not sent" could no longer be told from "may have run".
pub(crate) fn swarm_config() -> swarm::Config {
    swarm::Config::with_tokio_executor()
        // All addresses of a peer at once, QUIC before TCP, IPv6 before IPv4, staggered by some 10 ms (Happy Eyeballs).
        .with_smart_dial()
        // Never: the mesh decides which connections it keeps and closes the others itself. Libp2p would close whichever
        // carries no gossip at the moment.
        .with_idle_connection_timeout(NEVER)
        // The default of 128 resets streams when more calls than that arrive at once.
        .with_max_negotiating_inbound_streams(1024)
}

#[cfg(test)]
mod tests;
