//! One connection's lane: writes what its outbox holds and reads what comes, in the connection's own task.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::futures::{AsyncRead, AsyncWrite};
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{ConnectionId, Stream, StreamUpgradeError, SubstreamProtocol};
use libp2p::{PeerId, StreamProtocol};
use tokio::time::Sleep;
use tracing::{debug, error};

use super::came::{Came, alone};
use super::{Desk, Room};
use crate::MeshId;
use crate::mesh::checked;
use crate::mesh::event::{Checked, LaneId};
use crate::mesh::time::Mono;
use crate::net::clock::Clock;
use crate::net::hub::Hub;
use crate::wire::frame::Frame;
use crate::wire::lane::{LaneError, Mark, Parts, Record};
use crate::wire::rpc::{Request, Response};

const PROTOCOL: StreamProtocol = StreamProtocol::new("/pombo/lane/1");

/// A peer that takes nothing of what is written for so long does not read any more, whatever else it answers. One whose
/// subscribers stand still goes on reading, and is merely granted nothing.
const STUCK: Duration = Duration::from_secs(4);

/// Records are gathered up to so many bytes before they are written. One of bulk at most: what is urgent waits for no more.
const WRITE: usize = 16 * 1024;
/// So many bytes are read at a time, if there is more: what came is dealt with before it goes on, and the driver has its
/// turn with what that means to it.
const TURN: usize = 128 * 1024;

/// Open our half.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open;

/// What a connection's lane tells.
#[derive(Debug)]
pub(crate) enum Happened {
    NotOpened,
    /// `broken`: the other side wrote what no member writes.
    Ended {
        broken: bool,
    },
}

/// What was read, opened and checked.
#[derive(Debug)]
pub(crate) enum Read {
    Frame { since: u64, frame: Arc<Frame> },
    Mark(Mark),
    Request { id: u64, request: Box<Checked<Request>> },
    Answer { id: u64, answer: Box<Checked<Response>> },
}

/// Why a lane ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the stream ended: {0}")]
    Io(#[from] std::io::Error),
    #[error("our half cannot be opened")]
    NotOpened,
    #[error("the other side has read nothing for {STUCK:?}")]
    Stuck,
    #[error(transparent)]
    Record(#[from] LaneError),
    #[error("a frame: {0}")]
    Frame(crate::wire::frame::FrameError),
    #[error("a message: {0}")]
    Message(#[from] crate::wire::codec::CodecError),
}

/// Which lane it is, and whom to tell what comes on it.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) peer: PeerId,
    pub(super) connection: ConnectionId,
    pub(super) lane: LaneId,
    pub(super) hub: Arc<Hub>,
}

pub(crate) struct Handler {
    ends: Ends,
    mesh: MeshId,
    clock: Clock,
    desk: Arc<Desk>,
    room: Arc<Room>,
    events: VecDeque<Happened>,
    outgoing: Outgoing,
    out: BytesMut,
    /// Of the last record in `out`.
    rest: Bytes,
    unflushed: bool,
    /// Runs while something cannot be written.
    stuck: Option<Pin<Box<Sleep>>>,
    incoming: Option<Stream>,
    /// One inbound half was there. Another one on the same connection is none of ours.
    begun: bool,
    came: Came,
    parts: Parts,
    ended: bool,
}

/// Our half.
enum Outgoing {
    No,
    Wanted,
    Opening,
    Stands(Stream),
}

impl Handler {
    pub(super) fn new(ends: Ends, mesh: MeshId, clock: Clock, desk: Arc<Desk>, room: Arc<Room>) -> Self {
        Self {
            ends,
            mesh,
            clock,
            desk,
            room,
            events: VecDeque::new(),
            outgoing: Outgoing::No,
            out: BytesMut::new(),
            rest: Bytes::new(),
            unflushed: false,
            stuck: None,
            incoming: None,
            begun: false,
            came: Came::default(),
            parts: Parts::default(),
            ended: false,
        }
    }

    fn end(&mut self, why: &Ended) {
        debug!(peer = %self.ends.peer, %why, "a lane ended");
        (self.outgoing, self.incoming, self.ended) = (Outgoing::No, None, true);
        (self.came, self.out, self.rest) = (Came::default(), BytesMut::new(), Bytes::new());
        self.events
            .push_back(Happened::Ended { broken: !matches!(why, Ended::Io(_) | Ended::NotOpened | Ended::Stuck) });
    }

    /// Writes until there is nothing left or the connection takes no more.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        if !matches!(self.outgoing, Outgoing::Stands(_)) {
            return Ok(());
        }
        // Registered before looking, so that what is put in meanwhile is not missed.
        self.desk.writer.register(cx.waker());
        let now = self.clock.mono();
        loop {
            self.gather(now)?;
            let Outgoing::Stands(stream) = &mut self.outgoing else { return Ok(()) };
            let (is_rest, bytes) = if self.out.is_empty() { (true, &self.rest[..]) } else { (false, &self.out[..]) };
            if bytes.is_empty() {
                if self.unflushed
                    && let Poll::Ready(flushed) = Pin::new(stream).poll_flush(cx)
                {
                    flushed?;
                    self.unflushed = false;
                }
                return Ok(());
            }
            match Pin::new(stream).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into()),
                Poll::Ready(Ok(written)) => {
                    if is_rest {
                        self.rest.advance(written);
                    } else {
                        self.out.advance(written);
                    }
                    (self.unflushed, self.stuck) = (true, None);
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => {
                    let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(STUCK)));
                    return if stuck.as_mut().poll(cx).is_ready() { Err(Ended::Stuck) } else { Ok(()) };
                }
            }
        }
    }

    /// Puts together what is written next. Of a long record only as much as goes with others: the rest is written from where
    /// it stands.
    fn gather(&mut self, now: Mono) -> Result<(), Ended> {
        let mut frames = false;
        while self.out.len() < WRITE && !(self.out.is_empty() && self.rest.len() >= WRITE) {
            if self.rest.is_empty() {
                let next = self.desk.outbox().next(now);
                match next {
                    Ok(Some(record)) => {
                        frames |= matches!(record, Record::Frame { .. });
                        self.rest = record.begin(&mut self.out)?;
                    }
                    Ok(None) => break,
                    Err(reason) => error!(%reason, "a message cannot be encoded and is left out"),
                }
            }
            let fits = self.rest.len().min(WRITE.saturating_sub(self.out.len()));
            self.out.extend_from_slice(&self.rest.split_to(fits));
        }
        if frames && self.desk.outbox().has_ample_room() {
            self.room.make();
        }
        Ok(())
    }

    /// Reads what is there, or so much of it that others should have their turn: then it is called again.
    fn read(&mut self, cx: &mut Context<'_>, records: &mut Vec<Read>) -> Result<(), Ended> {
        let mut bytes = 0;
        loop {
            while let Some(record) = self.came.take()? {
                bytes += record.len();
                self.open(record, records)?;
            }
            if bytes >= TURN {
                cx.waker().wake_by_ref();
                break;
            }
            let Some(stream) = &mut self.incoming else { break };
            match Pin::new(stream).poll_read(cx, self.came.room()) {
                Poll::Ready(Ok(0)) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
                Poll::Ready(Ok(read)) => self.came.add(read),
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn open(&mut self, record: Record, records: &mut Vec<Read>) -> Result<(), Ended> {
        match record {
            Record::Frame { since, frame } => match Frame::open_from(self.ends.peer, alone(frame)) {
                Ok(frame) => records.push(Read::Frame { since, frame: Arc::new(frame) }),
                Err(error) if error.is_of_later_version() => {
                    debug!(peer = %self.ends.peer, %error, "a frame is skipped");
                }
                Err(error) => return Err(Ended::Frame(error)),
            },
            Record::Mark(mark) => records.push(Read::Mark(mark)),
            Record::Grant(total) => {
                if self.desk.outbox().granted(total, self.clock.mono()) {
                    self.desk.writer.wake();
                    self.room.make();
                }
            }
            Record::Request { id, request } => {
                let request = Box::new(checked::request(self.mesh, &request)?);
                records.push(Read::Request { id, request });
            }
            Record::Answer { id, answer } => {
                let answer = Box::new(checked::response(self.mesh, &answer)?);
                records.push(Read::Answer { id, answer });
            }
            Record::Part { last, bytes } => {
                if let Some(whole) = self.parts.put(last, &bytes)? {
                    self.open(whole, records)?;
                }
            }
        }
        Ok(())
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Happened;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if matches!(self.outgoing, Outgoing::Wanted) {
            self.outgoing = Outgoing::Opening;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        let mut records = Vec::new();
        let read = self.read(cx, &mut records);
        // Also what came before the end. Answers that are there at once are written below.
        if !records.is_empty() {
            self.ends.hub.came(self.ends.peer, self.ends.connection, self.ends.lane, records);
        }
        if let Err(why) = read.and_then(|()| self.write(cx)) {
            self.end(&why);
        }
        match self.events.pop_front() {
            Some(event) => Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event)),
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, Open: Open) {
        if matches!(self.outgoing, Outgoing::No) && !self.ended {
            self.outgoing = Outgoing::Wanted;
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) if !self.begun => {
                (self.begun, self.incoming) = (true, Some(protocol));
                self.ends.hub.lane_begun(self.ends.peer, self.ends.lane);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                self.outgoing = Outgoing::Stands(protocol);
                self.ends.hub.lane_up(self.ends.peer, self.ends.lane);
            }
            ConnectionEvent::DialUpgradeError(failed) => {
                debug!(peer = %self.ends.peer, error = %failed.error, "a lane cannot be opened");
                match failed.error {
                    // It knows no lanes, and so has not opened its half either.
                    StreamUpgradeError::NegotiationFailed => {
                        self.outgoing = Outgoing::No;
                        self.events.push_back(Happened::NotOpened);
                    }
                    StreamUpgradeError::Timeout | StreamUpgradeError::Apply(_) | StreamUpgradeError::Io(_) => {
                        self.end(&Ended::NotOpened);
                    }
                }
            }
            ConnectionEvent::FullyNegotiatedInbound(_)
            | ConnectionEvent::AddressChange(_)
            | ConnectionEvent::ListenUpgradeError(_)
            | ConnectionEvent::LocalProtocolsChange(_)
            | ConnectionEvent::RemoteProtocolsChange(_) => {}
            // Libp2p's enum is open.
            _ => {}
        }
    }
}
