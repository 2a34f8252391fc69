//! The hub: the mesh, and all that its wishes take but the swarm, behind one lock.
//!
//! Whoever has something to tell the mesh does so in its own task: callers, connections that read a record, the signer, the
//! checker. What follows is done at once in that task, unless it takes the swarm; that waits for the driver. So a call goes from
//! its asker to the connection, and from there to its handler, with nobody in between. The lock is held for one input and
//! what follows from it, never across an await.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{trace, warn};

pub(crate) use self::exchange::AnswerTo;
use crate::error::Closed;
use crate::mesh::Mesh;
use crate::mesh::dispatch::Lanes as _;
use crate::mesh::event::{
    Answer, CallId, Command, Delivery, Event, HolderId, InboundId, IncomingCall, Input, LaneId, Output, ProviderId,
    RpcId, SubscriberId, Ticket, Unsigned,
};
use crate::mesh::postman::PostCommand;
use crate::mesh::postman::inbox::Handed;
use crate::mesh::postman::store::StoreError;
use crate::mesh::routes::Routes;
use crate::mesh::time::{Mono, Now};
use crate::net::clock::Clock;
use crate::net::handle::{Attached, Gone, Served};
use crate::net::lanes::{Read, Table};
use crate::net::mailbox::{Fill, Mailbox, Progress};
use crate::net::press::Press;
use crate::net::rpc::Answering;
use crate::net::silence::Silence;
use crate::net::store::Errand;
use crate::wire::rpc::Response;

mod exchange;

/// With so much waiting for the driver the signer makes no further frames.
const BACKLOG: usize = 64;

/// What a node's tasks and handles share.
#[derive(Debug)]
pub(crate) struct Hub {
    /// None when the node has ended.
    state: Mutex<Option<State>>,
    /// The driver is wanted.
    pub(crate) work: Notify,
    /// The driver has taken what waited for it.
    taken: Notify,
}

/// What waits for the driver.
#[derive(Debug)]
pub(crate) enum Work {
    /// The mesh wants it.
    Do(Output),
    /// Answer somebody else's exchange.
    Respond(Answering, Response),
    /// The other side of this lane asks, and does not read what it asked for.
    EndLane(LaneId),
}

/// When the driver comes back though nobody calls it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    /// Because of the mesh.
    pub(crate) mesh: Option<Mono>,
    /// Because a connection may be silent.
    pub(crate) silence: Option<Instant>,
}

/// What is behind the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) mesh: Mesh,
    pub(crate) clock: Clock,
    /// When the lock was taken: what is told under it happens at one time.
    pub(crate) now: Now,
    pub(crate) press: Arc<Press>,
    pub(crate) lanes: Table,
    pub(crate) routes: watch::Sender<Arc<Routes>>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) unsigned: mpsc::Sender<Unsigned>,
    /// The store, if there is one.
    pub(crate) jobs: Option<mpsc::Sender<Errand>>,
    pub(crate) silence: Silence,
    pub(crate) desks: Desks,
    pub(crate) work: VecDeque<Work>,
    /// When the driver comes back because of the mesh.
    pub(crate) due: Option<Mono>,
}

/// The channels behind the mesh's integers.
#[derive(Debug, Default)]
pub(crate) struct Desks {
    replies: HashMap<Ticket, oneshot::Sender<Answer>>,
    mailboxes: HashMap<SubscriberId, Arc<Mailbox>>,
    providers: HashMap<ProviderId, mpsc::Sender<Served>>,
    serving: HashMap<CallId, Arc<Gone>>,
    holders: HashMap<HolderId, mpsc::Sender<Handed>>,
    /// Requests that went over a lane.
    asked_over: HashMap<RpcId, LaneId>,
    pub(crate) answering: HashMap<InboundId, AnswerTo>,
    /// The lanes that stand, by whom they lead to.
    lanes_to: BTreeMap<PeerId, BTreeSet<LaneId>>,
    /// Large answers that went to a lane and may not be written yet.
    large_answers: Vec<(LaneId, InboundId)>,
    next: u64,
}

impl Desks {
    pub(crate) fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Drop for Desks {
    /// However the node ends: readers take what has come and see the end, and do not wait for ever.
    fn drop(&mut self) {
        self.mailboxes.values().for_each(|mailbox| mailbox.close());
    }
}

impl Hub {
    pub(crate) fn new(state: State) -> Self {
        Self { state: Mutex::new(Some(state)), work: Notify::new(), taken: Notify::new() }
    }

    /// For behaviours that belong to no node.
    pub(crate) fn ended() -> Self {
        Self { state: Mutex::new(None), work: Notify::new(), taken: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, Option<State>> {
        // Whoever panics while it holds the lock leaves a mesh that nobody should go on with.
        self.state.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
            let mut state = poisoned.into_inner();
            *state = None;
            state
        })
    }

    /// Does something, and what follows from it. None if the node has ended.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> Option<R> {
        let mut guard = self.state();
        let state = guard.as_mut()?;
        state.now = state.clock.now();
        let done = act(state);
        state.settle();
        let wanted = state.wants_driver();
        drop(guard);
        if wanted {
            self.work.notify_one();
        }
        Some(done)
    }

    /// Tells the mesh that something happened.
    pub(crate) fn tell(&self, input: Input) -> Result<(), Closed> {
        self.with(|state| state.handle(input)).ok_or(Closed)
    }

    /// A command, where its answer goes, and the channel that belongs to it.
    pub(crate) fn command(
        &self,
        ticket: Ticket,
        command: Command,
        reply: Option<oneshot::Sender<Answer>>,
        attached: Attached,
    ) -> Result<(), Closed> {
        let call = |state: &mut State| {
            state.attach(&command, attached);
            if let Some(reply) = reply {
                state.desks.replies.insert(ticket, reply);
            }
            state.handle(Input::Command(ticket, command));
        };
        self.with(call).ok_or(Closed)
    }

    /// Whoever waited for this answer has gone.
    pub(crate) fn abandoned(&self, ticket: Ticket) {
        self.with(|state| {
            state.desks.replies.remove(&ticket);
            state.handle(Input::Abandoned(ticket));
        });
    }

    /// This subscriber, which is behind, gets on.
    pub(crate) fn progress(&self, subscriber: SubscriberId) {
        self.with(|state| {
            // Looked at here, where frames are put in: what the reader saw may be over.
            let progress = state.desks.mailboxes.get(&subscriber).and_then(|mailbox| mailbox.progress());
            if let Some(Progress { bytes, caught_up }) = progress {
                let weight = u64::try_from(bytes).unwrap_or(u64::MAX);
                state.handle(Input::Progress { subscriber, weight, caught_up });
            }
        });
    }

    /// What was read on a lane.
    pub(crate) fn came(&self, peer: PeerId, connection: ConnectionId, lane: LaneId, records: Vec<Read>) {
        self.with(|state| {
            state.silence.heard(connection, peer, Instant::now());
            records.into_iter().for_each(|record| state.lane_record(peer, lane, record));
        });
    }

    /// What waits for the driver.
    pub(crate) fn take(&self) -> VecDeque<Work> {
        let work = self.state().as_mut().map(|state| std::mem::take(&mut state.work)).unwrap_or_default();
        self.taken.notify_waiters();
        work
    }

    /// When the driver has to come back. None when the node has ended.
    pub(crate) fn due(&self) -> Option<Due> {
        let mut guard = self.state();
        let state = guard.as_mut()?;
        state.due = state.mesh.poll_timeout();
        Some(Due { mesh: state.due, silence: state.silence.next() })
    }

    /// Waits while much waits for the driver.
    pub(crate) async fn room(&self) -> Result<(), Closed> {
        loop {
            let taken = self.taken.notified();
            tokio::pin!(taken);
            // Registered before looking, so that room made in between is not missed.
            taken.as_mut().enable();
            if self.state().as_ref().ok_or(Closed)?.work.len() < BACKLOG {
                return Ok(());
            }
            taken.await;
        }
    }

    /// The node ends. Whoever waits for an answer gets none when what this returns is dropped.
    pub(crate) fn end(&self) -> Option<State> {
        let state = self.state().take();
        self.taken.notify_waiters();
        state
    }
}

impl State {
    pub(crate) fn handle(&mut self, input: Input) {
        self.mesh.handle(input, self.now);
    }

    /// Does everything the mesh wants done, and what doing it causes.
    fn settle(&mut self) {
        self.written();
        while let Some(output) = self.mesh.poll_output() {
            if let Some(feedback) = self.execute(output) {
                self.handle(feedback);
            }
        }
    }

    fn wants_driver(&self) -> bool {
        let is_earlier = || match (self.mesh.poll_timeout(), self.due) {
            (Some(at), Some(due)) => at < due,
            (at, _) => at.is_some(),
        };
        !self.work.is_empty() || self.mesh.has_left() || is_earlier()
    }

    fn attach(&mut self, command: &Command, attached: Attached) {
        match (command, attached) {
            (Command::Subscribe { subscriber, .. }, Attached::Mailbox(mailbox)) => {
                self.desks.mailboxes.insert(*subscriber, mailbox);
            }
            (Command::Serve { provider, .. }, Attached::Desk(desk)) => {
                self.desks.providers.insert(*provider, desk);
            }
            (Command::Post(PostCommand::Hold { holder, .. }), Attached::Holder(desk)) => {
                self.desks.holders.insert(*holder, desk);
            }
            (Command::Post(PostCommand::Release { holder }), _) => {
                self.desks.holders.remove(holder);
            }
            (Command::Unsubscribe { subscriber }, _) => {
                self.desks.mailboxes.remove(subscriber);
            }
            (Command::Unserve { provider }, _) => {
                self.desks.providers.remove(provider);
                // Calls that it never took out of its queue went with it.
                self.desks.serving.retain(|_, gone| Arc::strong_count(gone) > 1);
            }
            (Command::Reply { call, .. }, _) => {
                self.desks.serving.remove(call);
            }
            (_, Attached::Nothing | Attached::Mailbox(_) | Attached::Desk(_) | Attached::Holder(_)) => {}
        }
    }

    fn execute(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Send { id, to, request } => self.send(id, to, request),
            Output::Reply { to, response } => return self.reply(to, response),
            Output::Deliver { subscriber, delivery } => return self.deliver(subscriber, delivery),
            Output::Serve { provider, call } => self.serve(provider, call),
            Output::Stop { call } => self.stop(call),
            Output::Store { id, job, can_wait } => return self.store(Errand { id, job, can_wait }),
            Output::HandOut { holder, handed } => return self.hand_out(holder, handed),
            // What libp2p knows belongs to it.
            Output::Answer { answer: Answer::Status(_), .. } => self.work.push_back(Work::Do(output)),
            Output::Answer { ticket, answer } => self.answer(ticket, answer),
            Output::Sign(unsigned) => self.sign(unsigned),
            Output::Allow { shard, sequence } => self.press.allow(shard, sequence),
            Output::Grant { lane, total } => {
                (&self.lanes).with(lane, |outbox| outbox.push_grant(total));
            }
            Output::Routes(routes) => {
                self.press.set_routes(Arc::clone(&routes));
                self.routes.send_replace(routes);
            }
            // Nobody listening is fine.
            Output::Announce(event) => drop(self.events.send(event)),
            Output::Dial { .. }
            | Output::Resolve { .. }
            | Output::Disconnect { .. }
            | Output::Join { .. }
            | Output::Leave { .. }
            | Output::Gossip { .. }
            | Output::OpenLane { .. }
            | Output::Judge { .. } => self.work.push_back(Work::Do(output)),
        }
        None
    }

    fn sign(&mut self, unsigned: Unsigned) {
        if self.unsigned.try_send(unsigned).is_err() {
            warn!("the signer is overloaded: a head or roster record has to wait");
        }
    }

    fn deliver(&mut self, subscriber: SubscriberId, delivery: Delivery) -> Option<Input> {
        let mailbox = self.desks.mailboxes.get(&subscriber)?;
        trace!(
            subscriber = subscriber.0,
            lagged = matches!(delivery, Delivery::Lagged(_)),
            "has something for a subscriber"
        );
        let fill = mailbox.put(delivery).or_else(|frame| {
            let gap = self.mesh.gap(subscriber, &frame);
            gap.map_or(Ok(Fill::Fine), |gap| mailbox.put(Delivery::Lagged(gap)))
        });
        matches!(fill, Ok(Fill::Behind)).then_some(Input::Behind { subscriber })
    }

    fn serve(&mut self, provider: ProviderId, call: IncomingCall) {
        let gone = Arc::new(Gone::default());
        let id = call.id;
        let served = Served { call, gone: Arc::clone(&gone) };
        // The mesh counts the room; a provider that is being dropped has none, and says so with its last words.
        if self.desks.providers.get(&provider).is_some_and(|desk| desk.try_send(served).is_ok()) {
            self.desks.serving.insert(id, gone);
        }
    }

    /// Gives a job to the store.
    fn store(&mut self, errand: Errand) -> Option<Input> {
        let id = errand.id;
        let Some(jobs) = &self.jobs else {
            let error = StoreError::Failed("there is none".to_owned());
            return Some(Input::Stored { id, result: Err(error) });
        };
        let refused = jobs.try_send(errand).err()?;
        let error = match refused {
            mpsc::error::TrySendError::Full(_) => StoreError::Full("too much is being written".to_owned()),
            mpsc::error::TrySendError::Closed(_) => StoreError::Failed("it has ended".to_owned()),
        };
        Some(Input::Stored { id, result: Err(error) })
    }

    /// A letter that its holder does not take comes back.
    fn hand_out(&mut self, holder: HolderId, handed: Handed) -> Option<Input> {
        let number = handed.number;
        let taken = self.desks.holders.get(&holder).is_some_and(|desk| desk.try_send(handed).is_ok());
        let back = PostCommand::GiveBack { number, after: None };
        (!taken).then(|| Input::Command(Ticket(u64::MAX), Command::Post(back)))
    }

    fn stop(&mut self, call: CallId) {
        if let Some(gone) = self.desks.serving.get(&call) {
            gone.tell();
        }
    }

    pub(crate) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        if let Some(reply) = self.desks.replies.remove(&ticket) {
            // Nobody waiting any more is told separately.
            drop(reply.send(answer));
        }
    }
}

#[cfg(test)]
impl State {
    /// Of a node in an empty mesh.
    pub(crate) fn alone(
        me: PeerId,
        clock: Clock,
        press: Arc<Press>,
        lanes: Table,
        unsigned: mpsc::Sender<Unsigned>,
    ) -> Self {
        let settings = crate::mesh::Settings {
            me,
            incarnation: 1,
            name: "alone".to_owned(),
            relay: false,
            short_lived: false,
            looks_local: false,
            looks_further: false,
            limits: crate::Limits::default(),
            dissemination: crate::Dissemination::default(),
            seed: 1,
            now: clock.now(),
        };
        Self {
            mesh: Mesh::new(settings),
            clock,
            now: clock.now(),
            press,
            lanes,
            routes: watch::Sender::default(),
            events: broadcast::Sender::new(1),
            unsigned,
            jobs: None,
            silence: Silence::new(std::time::Duration::MAX, std::time::Duration::MAX),
            desks: Desks::default(),
            work: VecDeque::new(),
            due: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::task::{Context, Poll, Waker};

    use libp2p::identity::Keypair;

    use super::*;
    use crate::mesh::dispatch::Dispatch;
    use crate::mesh::outgoing::Outgoing;

    #[test]
    fn a_panic_under_the_lock_ends_the_node_and_nobody_waits_for_it() {
        let me = Keypair::generate_ed25519().public().to_peer_id();
        let (clock, lanes) = (Clock::start(), Table::default());
        let outgoing = Outgoing::new(me, 1, [0; 8], 1_000);
        let press = Arc::new(Press::new(Dispatch::new(outgoing), clock, lanes.clone()));
        let hub = Hub::new(State::alone(me, clock, press, lanes, mpsc::channel(1).0));
        let (mailbox, (reply, mut answer)) = (Arc::new(Mailbox::new(1_000)), oneshot::channel());
        hub.with(|state| {
            state.desks.mailboxes.insert(SubscriberId(1), Arc::clone(&mailbox));
            state.desks.replies.insert(Ticket(1), reply);
        });
        let mut context = Context::from_waker(Waker::noop());
        assert!(mailbox.poll_take(&mut context).is_pending());
        assert!(catch_unwind(AssertUnwindSafe(|| hub.with(|_| panic!("on purpose")))).is_err());
        assert!(matches!(hub.tell(Input::Timeout), Err(Closed)));
        assert!(matches!(mailbox.poll_take(&mut context), Poll::Ready(None)));
        assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }
}
