//! One connection's pulse, in the connection's own task.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use libp2p::StreamProtocol;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::futures::{AsyncRead, AsyncWrite};
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{Stream, SubstreamProtocol};
use tokio::time::{Instant, Sleep};

use super::Rhythm;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/pombo/pulse/1");

/// A beat is how many microseconds the last one took there and back, or 0 if that is not known.
const LENGTH: usize = 8;
/// Who claims that one took longer than this is not believed: the connection would have been closed for silence.
const LONGEST: Duration = Duration::from_secs(5);
/// Whoever beats faster is answered, and heard this often.
const HEARD: Duration = Duration::from_secs(1);

pub(crate) struct Handler {
    stream: Option<Stream>,
    /// What has come of a beat.
    read: ([u8; LENGTH], usize),
    /// A beat on its way out, and how much of it is gone. It is flushed when all is.
    out: Option<([u8; LENGTH], usize)>,
    role: Role,
}

enum Role {
    Beats(Box<Beating>),
    /// Sends back what comes. When it was heard last.
    Echoes(Option<Instant>),
}

struct Beating {
    rhythm: Rhythm,
    next: Pin<Box<Sleep>>,
    /// A stream is wanted now, or at the next beat.
    open: bool,
    /// When the beat went out that has not come back.
    sent: Option<Instant>,
    took: u64,
}

impl Handler {
    pub(super) fn beating(rhythm: Rhythm) -> Self {
        let next = Box::pin(tokio::time::sleep_until(rhythm.after(Instant::now())));
        Self::new(Role::Beats(Box::new(Beating { rhythm, next, open: true, sent: None, took: 0 })))
    }

    pub(super) fn echoing() -> Self {
        Self::new(Role::Echoes(None))
    }

    fn new(role: Role) -> Self {
        Self { stream: None, read: ([0; LENGTH], 0), out: None, role }
    }

    /// From now on this stream is the pulse.
    fn stands(&mut self, mut stream: Stream) {
        stream.ignore_for_keep_alive();
        (self.stream, self.read, self.out) = (Some(stream), ([0; LENGTH], 0), None);
        if let Role::Beats(beating) = &mut self.role {
            self.out = Some((beating.beat(Instant::now()), 0));
        }
    }

    fn falls(&mut self) {
        self.stream = None;
        if let Role::Beats(beating) = &mut self.role {
            beating.sent = None;
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (Some(stream), Some((beat, gone))) = (&mut self.stream, &mut self.out) else { return Poll::Pending };
        while *gone < LENGTH {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &beat[*gone..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => *gone += written,
            }
        }
        ready!(Pin::new(stream).poll_flush(cx))?;
        self.out = None;
        Poll::Ready(Ok(()))
    }

    /// The next beat, when all of it is there.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<[u8; LENGTH]>> {
        let Some(stream) = &mut self.stream else { return Poll::Pending };
        let (beat, there) = &mut self.read;
        while *there < LENGTH {
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut beat[*there..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                read => *there += read,
            }
        }
        *there = 0;
        Poll::Ready(Ok(*beat))
    }

    /// A beat has come: what to tell of it.
    fn came(&mut self, beat: [u8; LENGTH]) -> io::Result<Option<Option<Duration>>> {
        let now = Instant::now();
        match &mut self.role {
            Role::Beats(beating) => {
                let sent = beating.sent.take().ok_or(io::ErrorKind::InvalidData)?;
                beating.took = u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX);
                Ok(Some(Some(now - sent)))
            }
            Role::Echoes(heard) => {
                self.out = Some((beat, 0));
                if heard.is_some_and(|heard| now - heard < HEARD) {
                    return Ok(None);
                }
                *heard = Some(now);
                Ok(Some(claimed(beat)))
            }
        }
    }

    /// Writes and reads what it can. Returns what to tell, or nothing if it waits.
    fn work(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Duration>>> {
        loop {
            if let Poll::Ready(written) = self.write(cx) {
                written?;
            }
            if self.out.is_some() {
                // One after the other: whoever does not take the answer is not read either.
                return Poll::Pending;
            }
            let beat = ready!(self.read(cx))?;
            if let Some(told) = self.came(beat)? {
                return Poll::Ready(Ok(told));
            }
        }
    }
}

/// How long the other side says that its last beat took, if that can be so.
pub(super) fn claimed(beat: [u8; LENGTH]) -> Option<Duration> {
    let took = Duration::from_micros(u64::from_be_bytes(beat));
    (!took.is_zero() && took <= LONGEST).then_some(took)
}

impl Beating {
    fn beat(&mut self, now: Instant) -> [u8; LENGTH] {
        self.sent = Some(now);
        self.took.to_be_bytes()
    }

    /// Whether it is time for a beat.
    fn is_time(&mut self, cx: &mut Context<'_>) -> bool {
        if self.next.as_mut().poll(cx).is_pending() {
            return false;
        }
        let next = self.rhythm.after(Instant::now());
        self.next.as_mut().reset(next);
        // Registered anew. That it is time already again is seen the next time.
        let _pending = self.next.as_mut().poll(cx);
        true
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Option<Duration>;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if let Role::Beats(beating) = &mut self.role
            && beating.is_time(cx)
        {
            beating.open |= self.stream.is_none();
            // One that has not come back is waited for: it is found out elsewhere for how long.
            if self.stream.is_some() && beating.sent.is_none() && self.out.is_none() {
                self.out = Some((beating.beat(Instant::now()), 0));
            }
        }
        match self.work(cx) {
            Poll::Ready(Ok(told)) => return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(told)),
            Poll::Ready(Err(_)) => self.falls(),
            Poll::Pending => {}
        }
        if let Role::Beats(beating) = &mut self.role
            && std::mem::take(&mut beating.open)
        {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                if matches!(self.role, Role::Echoes(_)) {
                    self.stands(protocol);
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                self.stands(protocol);
            }
            // It is tried again at the next beat.
            ConnectionEvent::DialUpgradeError(_)
            | ConnectionEvent::AddressChange(_)
            | ConnectionEvent::ListenUpgradeError(_)
            | ConnectionEvent::LocalProtocolsChange(_)
            | ConnectionEvent::RemoteProtocolsChange(_) => {}
            // Libp2p's enum is open.
            _ => {}
        }
    }
}
