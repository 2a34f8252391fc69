//! Lanes: a stream each way beside gossipsub and request-response, bound to one connection, for those who have much to say
//! to each other.
//!
//! What is written on a lane, and when, [`Outbox`] decides; what comes is told to the mesh. Here is only the way there: a
//! table of the lanes that stand, and the behaviour that opens them. Must not: know what a record is for.

mod came;
mod handler;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::futures::task::AtomicWaker;
use libp2p::swarm::{
    CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::Notify;

pub(crate) use self::handler::Read;
use self::handler::{Ends, Handler, Happened, Open};
use crate::MeshId;
use crate::mesh::dispatch;
use crate::mesh::event::LaneId;
use crate::mesh::lane::Outbox;
use crate::net::clock::Clock;
use crate::net::hub::Hub;

/// What waits to be written on a lane, and the task that writes it.
#[derive(Debug, Default)]
struct Desk {
    outbox: Mutex<Outbox>,
    writer: AtomicWaker,
}

impl Desk {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        // Nothing in here can panic half-way, so a poisoned lock guards whole data.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What waits for the lanes of all connections, whether or not our half stands already. Shared by the hub and the publishers'
/// signer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    desks: Arc<Mutex<HashMap<LaneId, Arc<Desk>>>>,
    pub(crate) room: Arc<Room>,
}

/// Whether frames wait for room on a lane, and the signal that there may be some.
#[derive(Debug, Default)]
pub(crate) struct Room {
    wanted: AtomicBool,
    made: Notify,
}

impl Room {
    /// Whoever looks for room says so before, and then whether it still waits: what is made in between is not missed.
    pub(crate) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Release);
    }

    /// Frames have left an outbox. Most of the time nobody waits for that, and nobody is woken.
    fn make(&self) {
        if self.wanted.swap(false, Ordering::AcqRel) {
            self.made.notify_one();
        }
    }

    /// Waits for it.
    pub(crate) async fn made(&self) {
        self.made.notified().await;
    }
}

impl Table {
    /// Whether that lane's connection stands.
    pub(crate) fn has(&self, lane: LaneId) -> bool {
        self.desks().contains_key(&lane)
    }

    fn desks(&self) -> MutexGuard<'_, HashMap<LaneId, Arc<Desk>>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl dispatch::Lanes for &Table {
    fn with<R>(&mut self, lane: LaneId, act: impl FnOnce(&mut Outbox) -> R) -> Option<R> {
        let desk = Arc::clone(self.desks().get(&lane)?);
        let mut outbox = desk.outbox();
        let done = act(&mut outbox);
        let has_news = outbox.take_news();
        drop(outbox);
        if has_news {
            desk.writer.wake();
        }
        Some(done)
    }
}

/// What happened to a lane.
#[derive(Debug)]
pub(crate) enum Event {
    /// It is over. `unsent` are the requests that were not written.
    Down { lane: LaneId, unsent: Vec<u64> },
    /// The other side wrote what no member writes, and its connection is closed for it.
    Broken { peer: PeerId },
}

/// Opens lanes and tells what becomes of them.
pub(crate) struct Lanes {
    mesh: MeshId,
    clock: Clock,
    hub: Arc<Hub>,
    table: Table,
    /// In the order in which they were made: the newest connection to a peer is the one that lives.
    connections: BTreeMap<LaneId, (PeerId, ConnectionId)>,
    numbers: HashMap<ConnectionId, LaneId>,
    next: u64,
    events: VecDeque<ToSwarm<Event, Open>>,
}

impl Lanes {
    /// For behaviours that no driver belongs to.
    pub(crate) fn alone(mesh: MeshId) -> Self {
        Self::new(mesh, Clock::start(), Table::default(), Arc::new(Hub::ended()))
    }

    pub(crate) fn new(mesh: MeshId, clock: Clock, table: Table, hub: Arc<Hub>) -> Self {
        Self {
            mesh,
            clock,
            hub,
            table,
            connections: BTreeMap::new(),
            numbers: HashMap::new(),
            next: 0,
            events: VecDeque::new(),
        }
    }

    /// Opens our half of a lane: of that one, or of the newest connection to that peer.
    pub(crate) fn open(&mut self, peer: PeerId, lane: Option<LaneId>) {
        let found = match lane {
            Some(lane) => self.connections.get(&lane).copied(),
            None => self.connections.values().rev().find(|(other, _)| *other == peer).copied(),
        };
        if let Some((peer_id, connection)) = found {
            let handler = NotifyHandler::One(connection);
            self.events.push_back(ToSwarm::NotifyHandler { peer_id, handler, event: Open });
        }
    }

    fn handler(&mut self, connection: ConnectionId, peer: PeerId) -> Handler {
        self.next += 1;
        let lane = LaneId(self.next);
        let desk = Arc::new(Desk::default());
        self.connections.insert(lane, (peer, connection));
        self.numbers.insert(connection, lane);
        self.table.desks().insert(lane, Arc::clone(&desk));
        let ends = Ends { peer, connection, lane, hub: Arc::clone(&self.hub) };
        Handler::new(ends, self.mesh, self.clock, desk, Arc::clone(&self.table.room))
    }

    fn tell(&mut self, event: Event) {
        self.events.push_back(ToSwarm::GenerateEvent(event));
    }

    /// A lane is over, with its connection or before it.
    fn down(&mut self, lane: LaneId) {
        let desk = self.table.desks().remove(&lane);
        // Whoever waits for room on it must not wait for ever.
        self.table.room.make();
        if let Some(desk) = desk {
            let unsent = desk.outbox().unsent().collect();
            self.tell(Event::Down { lane, unsent });
        }
    }

    /// Ends a lane whose other side asks and does not read what it asked for, and its connection.
    pub(crate) fn end(&mut self, lane: LaneId) {
        if let Some((peer_id, connection)) = self.connections.get(&lane).copied() {
            self.down(lane);
            let connection = CloseConnection::One(connection);
            self.events.push_back(ToSwarm::CloseConnection { peer_id, connection });
        }
    }
}

impl NetworkBehaviour for Lanes {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) = event
            && let Some(lane) = self.numbers.remove(&connection_id)
        {
            self.down(lane);
            self.connections.remove(&lane);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        let Some(lane) = self.numbers.get(&id).copied() else { return };
        match event {
            // It may be tried again.
            Happened::NotOpened => self.tell(Event::Down { lane, unsent: Vec::new() }),
            Happened::Ended { broken } => {
                self.down(lane);
                if broken {
                    self.tell(Event::Broken { peer });
                }
                // A lane is as old as its connection. Whoever wants another one makes a new connection.
                self.events.push_back(ToSwarm::CloseConnection { peer_id: peer, connection: CloseConnection::One(id) });
            }
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        // Whatever fills the queue is called by the swarm, which polls afterwards; and by the driver, which polls the swarm.
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
