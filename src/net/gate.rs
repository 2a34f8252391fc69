//! The gate: what every connection passes after it is encrypted and before the `Swarm` sees it.
//!
//! Both sides prove on the first raw stream each way, without protocol negotiation, that they know the mesh's secret, and
//! tell each other the verdict. A stranger reaches no behaviour: no gossip, no requests, no roster.
//!
//! ```text
//! hello, on the stream I open        version u8 = 1 | kind u8: 0 private, 1 open | tag [u8; 32]
//! verdict, on the stream you open    u8: 1 accepted, anything else refused
//! tag = blake3 keyed with derive_key("pombo gate v1", secret) over
//!       "pombo-gate-1" | smaller peer id | larger peer id | the sender's own peer id
//! ```
//!
//! These 34 bytes and the verdict keep their place in later versions (certificates follow them in the same two streams), so
//! that nodes of different versions can always tell each other why they part.
//!
//! The tag names both ends, which the encryption has authenticated, and its sender last: it cannot be replayed to a third
//! node nor reflected. The kind byte is not authenticated: it only chooses the words of a refusal.
//!
//! Must not: touch the disk, know about behaviours, or let a peer through that did not accept us as well.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::swarm::{DialError, ListenError};
use libp2p::{Multiaddr, PeerId, TransportError};
use tokio::time::{Instant, timeout_at};

use crate::net::access::MeshAccess;

/// How long both sides have for all of it. A neighbour needs two round trips; a stranger must not hold a slot for longer.
pub(crate) const BUDGET: Duration = Duration::from_secs(3);

const VERSION: u8 = 1;
/// First bytes above this are another protocol's: libp2p's own negotiation starts with 19, text with 32 and more.
const LAST_VERSION: u8 = 15;
const ACCEPTED: u8 = 1;
const REFUSED: u8 = 0;
/// Kind and tag: what follows the version byte.
const HELLO_REST: usize = 1 + blake3::OUT_LEN;

/// A peer that the gate did not let in, or that did not let us in.
#[derive(Debug, thiserror::Error)]
#[error("{peer} {reason}")]
pub(crate) struct GateError {
    /// Who it was, as the encryption has authenticated it.
    pub(crate) peer: PeerId,
    /// Why it was turned away.
    pub(crate) reason: TurnedAway,
}

/// Why a peer was turned away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnedAway {
    /// It does not know our mesh's secret.
    #[error("belongs to another mesh{}", if *.theirs_open { ": the open one" } else { "" })]
    OtherMesh {
        /// It says that its mesh is the open one.
        theirs_open: bool,
    },
    /// It is a pombo node, too new or too old to be let in.
    #[error("speaks version {theirs} of pombo's handshake, this node version {VERSION}: update the older one")]
    OtherVersion {
        /// The version it speaks.
        theirs: u8,
    },
    /// What it sent is no hello of ours: some other libp2p program.
    #[error("is not a pombo node")]
    NotPombo,
    /// It did not finish in time.
    #[error("did not finish pombo's handshake within {} s", BUDGET.as_secs())]
    TimedOut,
    /// We would have let it in; it did not let us in.
    #[error("does not let this node into its mesh")]
    ByThem,
    /// The connection broke before both had spoken.
    #[error("broke the connection during the handshake: {0}")]
    Broken(io::Error),
}

impl From<io::Error> for TurnedAway {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut { Self::TimedOut } else { Self::Broken(error) }
    }
}

/// What the gate said, and at which address, if it is the gate that made a dial fail.
///
/// With several addresses the first refusal: all of them lead to the same peer.
pub(crate) fn refused_dial(error: &DialError) -> Option<(&Multiaddr, &GateError)> {
    let DialError::Transport(attempts) = error else { return None };
    attempts.iter().find_map(|(address, error)| Some((address, gate_error(error)?)))
}

/// What the gate said, if it is the gate that refused an incoming connection. The address stands in the swarm's event.
pub(crate) fn refused_listen(error: &ListenError) -> Option<&GateError> {
    let ListenError::Transport(error) = error else { return None };
    gate_error(error)
}

/// Finds the gate's error below the layers of `io::Error` that boxing a transport adds.
fn gate_error(error: &TransportError<io::Error>) -> Option<&GateError> {
    let TransportError::Other(error) = error else { return None };
    let mut error = error;
    loop {
        let inner = error.get_ref()?;
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        error = inner.downcast_ref()?;
    }
}

/// One node's side of the gate.
#[derive(Clone)]
pub(crate) struct Gate {
    own: PeerId,
    open: bool,
    key: [u8; blake3::KEY_LEN],
}

impl Gate {
    /// The gate of the node `own` in `mesh`.
    pub(crate) fn new(own: PeerId, mesh: &MeshAccess) -> Self {
        Self { own, open: mesh.is_open(), key: blake3::derive_key("pombo gate v1", mesh.secret.as_bytes()) }
    }

    /// Lets the connection through if both sides accept each other.
    ///
    /// # Errors
    ///
    /// Says why not. The connection is dropped, but not before the other side has read our verdict or the budget is spent.
    pub(crate) async fn pass(self, peer: PeerId, muxer: StreamMuxerBox) -> Result<(PeerId, StreamMuxerBox), GateError> {
        let mut link = Link::new(muxer, BUDGET);
        match self.shake_hands(peer, &mut link).await {
            Ok(()) => Ok((peer, link.muxer)),
            Err(reason) => Err(GateError { peer, reason }),
        }
    }

    async fn shake_hands(&self, peer: PeerId, link: &mut Link) -> Result<(), TurnedAway> {
        let mut ours = link.open().await?;
        let hello = self.hello(peer);
        link.drive(async {
            ours.write_all(&hello).await?;
            ours.flush().await
        })
        .await?;

        let mut theirs = link.accept().await?;
        let judged = self.judge(peer, link, &mut theirs).await;
        let verdict = match &judged {
            Ok(()) => {
                link.inbound = Inbound::Kept;
                ACCEPTED
            }
            Err(TurnedAway::OtherMesh { .. } | TurnedAway::OtherVersion { .. }) => REFUSED,
            // Nobody there who would read a verdict.
            Err(TurnedAway::NotPombo | TurnedAway::TimedOut | TurnedAway::ByThem | TurnedAway::Broken(_)) => {
                return judged;
            }
        };
        let answer = link.drive(swap_verdicts(&mut theirs, verdict, &mut ours)).await;
        let reason = match (judged, answer) {
            (Ok(()), Ok(ACCEPTED)) => return Ok(()),
            (Ok(()), Ok(_)) => TurnedAway::ByThem,
            (Ok(()), Err(error)) => error.into(),
            (Err(reason), _) => reason,
        };
        // The other side closes its stream, or the connection, once it has read the verdict. To drop the connection
        // earlier could take the verdict with it.
        let read = link.drive(async { theirs.read(&mut [0]).await }).await;
        tracing::debug!(%peer, %reason, ?read, "turned away");
        Err(reason)
    }

    fn hello(&self, peer: PeerId) -> Vec<u8> {
        let mut hello = vec![VERSION, u8::from(self.open)];
        hello.extend_from_slice(self.tag(self.own, peer).as_bytes());
        hello
    }

    /// Reads the other side's hello and says what to think of it.
    async fn judge(&self, peer: PeerId, link: &mut Link, theirs: &mut SubstreamBox) -> Result<(), TurnedAway> {
        let [version] = link.drive(read_array(theirs)).await?;
        if !(1..=LAST_VERSION).contains(&version) {
            return Err(TurnedAway::NotPombo);
        }
        let [kind, tag @ ..]: [u8; HELLO_REST] = link.drive(read_array(theirs)).await?;
        if version != VERSION {
            return Err(TurnedAway::OtherVersion { theirs: version });
        }
        // `blake3::Hash` compares in constant time.
        if self.tag(peer, self.own) != blake3::Hash::from_bytes(tag) {
            return Err(TurnedAway::OtherMesh { theirs_open: kind == 1 });
        }
        Ok(())
    }

    /// What `sender` proves its membership to `receiver` with. Peer ids carry their own length.
    fn tag(&self, sender: PeerId, receiver: PeerId) -> blake3::Hash {
        let (sender, receiver) = (sender.to_bytes(), receiver.to_bytes());
        blake3::Hasher::new_keyed(&self.key)
            .update(b"pombo-gate-1")
            .update((&sender).min(&receiver))
            .update((&sender).max(&receiver))
            .update(&sender)
            .finalize()
    }
}

async fn read_array<const N: usize>(stream: &mut SubstreamBox) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Gives our verdict on the stream they opened, and reads theirs on the one we opened.
async fn swap_verdicts(theirs: &mut SubstreamBox, verdict: u8, ours: &mut SubstreamBox) -> io::Result<u8> {
    theirs.write_all(&[verdict]).await?;
    theirs.close().await?;
    let [answer] = read_array(ours).await?;
    // Tells the other side that we have read it. Whether that arrives no longer matters to us.
    let _ = ours.close().await;
    Ok(answer)
}

/// A connection that nobody else drives yet, and the time by which the gate must be done with it.
struct Link {
    muxer: StreamMuxerBox,
    inbound: Inbound,
    deadline: Instant,
}

/// What becomes of the streams that the other side opens.
enum Inbound {
    /// The first is for its hello.
    Awaited,
    /// That has come.
    Here(SubstreamBox),
    /// Members open no other before they have our verdict. To keep those of a stranger, each with its window full, would
    /// let it fill our memory.
    Refused,
    /// A member may be through before we are, and use the connection.
    Kept,
}

impl Link {
    fn new(muxer: StreamMuxerBox, budget: Duration) -> Self {
        Self { muxer, inbound: Inbound::Awaited, deadline: Instant::now() + budget }
    }

    async fn open(&mut self) -> io::Result<SubstreamBox> {
        self.by_deadline(|link, cx| link.muxer.poll_outbound_unpin(cx)).await
    }

    /// Takes the first stream that the other side opens. The gate never takes a second one.
    async fn accept(&mut self) -> io::Result<SubstreamBox> {
        self.by_deadline(|link, _| match mem::replace(&mut link.inbound, Inbound::Refused) {
            Inbound::Here(stream) => Poll::Ready(Ok(stream)),
            other @ (Inbound::Awaited | Inbound::Refused | Inbound::Kept) => {
                link.inbound = other;
                Poll::Pending
            }
        })
        .await
    }

    async fn drive<T>(&mut self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut work = pin!(work);
        self.by_deadline(|_, cx| work.as_mut().poll(cx)).await
    }

    /// Waits while the connection makes progress: yamux moves no byte unless somebody polls it.
    async fn by_deadline<T>(
        &mut self,
        mut poll: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        let deadline = self.deadline;
        let waiting = poll_fn(|cx| {
            if let Poll::Ready(done) = poll(self, cx) {
                return Poll::Ready(done);
            }
            let Poll::Ready(error) = self.progress(cx) else { return Poll::Pending };
            // What arrived before the end is still to be read.
            match poll(self, cx) {
                Poll::Ready(done) => Poll::Ready(done),
                Poll::Pending => Poll::Ready(Err(error)),
            }
        });
        timeout_at(deadline, waiting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Lets the connection make progress; ready only when it has ended.
    fn progress(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !matches!(self.inbound, Inbound::Kept)
            && let Poll::Ready(opened) = self.muxer.poll_inbound_unpin(cx)
        {
            let stream = match opened {
                Ok(stream) => stream,
                Err(error) => return Poll::Ready(error),
            };
            if matches!(self.inbound, Inbound::Awaited) {
                self.inbound = Inbound::Here(stream);
            }
            // One at a time: whoever opens them without end must not keep the deadline from being seen.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            match self.muxer.poll_unpin(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                // The address of the other side changed: of no interest here.
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests;
