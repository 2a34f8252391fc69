//! The driver: owns the swarm, tells the mesh what happens, and does what the mesh wants done.
//!
//! It never decides, and its handlers never wait.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use libp2p::gossipsub::{self, MessageAcceptance};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, request_response};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, error, info, trace, warn};

pub(crate) use self::exchange::AnswerTo;
use crate::mesh::Mesh;
use crate::mesh::dispatch::Lanes as _;
use crate::mesh::event::{
    Answer, CallId, Command, Delivery, DialFailure, Event, GossipId, InboundId, Input, LaneId, Output, ProviderId,
    RpcId, SubscriberId, Ticket, Unsigned, Verdict,
};
use crate::mesh::routes::Routes;
use crate::net::behaviour::{Behaviour, BehaviourEvent};
use crate::net::checker::Unchecked;
use crate::net::clock::Clock;
use crate::net::data_dir::Slot;
use crate::net::gossip;
use crate::net::handle::{Attached, Call, Gone, Served};
use crate::net::lanes::Table;
use crate::net::mailbox::{Fill, Mailbox, Progress};
use crate::net::press::{LAST_FRAMES, Press};
use crate::net::registry::Registration;
use crate::net::remembered::Remembered;
use crate::net::resolver::Question;
use crate::net::silence::Silence;
use crate::wire::MeshId;
use crate::wire::frame::Frame;

mod exchange;

/// Calls that are taken in one turn, so that a busy caller cannot keep the swarm from being polled.
const CALLS_PER_TURN: usize = 64;
/// Events of the swarm that are looked at before a connection is taken for dead. So many are dealt with in a fraction of a
/// second, and others have to wait for no longer.
const EVENTS_BEFORE_VERDICT: usize = 1024;
/// How often it is written down who is there.
const REMEMBER: Duration = Duration::from_secs(30);

/// How long connections may take to end when the node does.
const FAREWELL: Duration = Duration::from_millis(250);

/// The owner of the swarm.
pub(crate) struct Driver {
    pub(crate) mesh_id: MeshId,
    pub(crate) mesh: Mesh,
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) clock: Clock,
    pub(crate) calls: mpsc::Receiver<Call>,
    /// What the signer, the checker, the resolver and the registry's watcher have to say.
    pub(crate) inbox: mpsc::Receiver<Input>,
    pub(crate) unchecked: mpsc::Sender<Unchecked>,
    pub(crate) unsigned: mpsc::Sender<Unsigned>,
    pub(crate) questions: mpsc::Sender<Question>,
    pub(crate) press: Arc<Press>,
    pub(crate) lanes: Table,
    pub(crate) routes: watch::Sender<Arc<Routes>>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) addresses: watch::Sender<Vec<Multiaddr>>,
    pub(crate) silence: Silence,
    /// This node's entry in the host's registry.
    pub(crate) registration: Option<Registration>,
    /// Where to keep who is there for the next start.
    pub(crate) remembered: Option<Remembered>,
    /// What happened before the driver ran.
    pub(crate) early: Vec<SwarmEvent<BehaviourEvent>>,
    pub(crate) desks: Desks,
}

/// The channels and libp2p handles behind the mesh's integers.
#[derive(Default)]
pub(crate) struct Desks {
    replies: HashMap<Ticket, oneshot::Sender<Answer>>,
    mailboxes: HashMap<SubscriberId, Arc<Mailbox>>,
    providers: HashMap<ProviderId, mpsc::Sender<Served>>,
    serving: HashMap<CallId, Arc<Gone>>,
    /// Dials under way, and the addresses they were given.
    pub(crate) dialled: HashMap<ConnectionId, Vec<Multiaddr>>,
    pub(crate) asked: HashMap<request_response::OutboundRequestId, RpcId>,
    /// Requests that went over a lane.
    pub(crate) asked_over: HashMap<RpcId, LaneId>,
    pub(crate) answering: HashMap<InboundId, AnswerTo>,
    /// The lanes that stand, by whom they lead to.
    pub(crate) lanes_to: BTreeMap<PeerId, BTreeSet<LaneId>>,
    /// Exchanges that others began, until their answer is on the wire or lost.
    pub(crate) inbound: HashMap<request_response::InboundRequestId, InboundId>,
    /// Large answers that went to a lane and may not be written yet.
    pub(crate) large_answers: Vec<(LaneId, InboundId)>,
    pub(crate) gossip: HashMap<GossipId, gossipsub::MessageId>,
    /// Nodes of other versions that were told of.
    pub(crate) other_versions: BTreeSet<PeerId>,
    /// Whether a flood of mDNS answers was told of.
    pub(crate) flooded: bool,
    next: u64,
}

impl Desks {
    pub(crate) fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Driver {
    /// Runs until the last handle is gone, or one says stop. The node's place is held until then.
    pub(crate) async fn run(mut self, slot: Slot) {
        let mut batch = Vec::with_capacity(CALLS_PER_TURN);
        let mut handles = true;
        let mut last_frames = None;
        for event in std::mem::take(&mut self.early) {
            self.swarm_event(event);
        }
        let mut often = tokio::time::interval(REMEMBER);
        loop {
            self.settle();
            let deadline = self.mesh.poll_timeout().map(|at| self.clock.instant(at));
            tokio::select! {
                taken = self.calls.recv_many(&mut batch, CALLS_PER_TURN), if handles => {
                    handles = taken > 0;
                    if !handles {
                        self.press.close();
                        last_frames = Some(Instant::now() + LAST_FRAMES);
                    }
                    for call in batch.drain(..) {
                        if let Call::Stop = call {
                            return self.close(slot).await;
                        }
                        self.call(call);
                    }
                }
                event = self.swarm.select_next_some() => self.swarm_event(event),
                Some(input) = self.inbox.recv() => self.handle(input),
                () = drained(&self.press, last_frames) => {
                    last_frames = None;
                    self.take_what_is_ready();
                    self.handle(Input::Command(Ticket(u64::MAX), Command::Leave));
                }
                () = until(deadline) => self.handle(Input::Timeout),
                () = until(self.silence.next()) => self.close_silent(),
                _ = often.tick() => self.remember(),
            }
            if self.mesh.has_left() && !handles && last_frames.is_none() {
                return self.close(slot).await;
            }
        }
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

    pub(crate) fn handle(&mut self, input: Input) {
        self.mesh.handle(input, self.clock.now());
    }

    fn call(&mut self, call: Call) {
        match call {
            Call::Command { ticket, command, reply, attached } => {
                if let Command::Leave = *command {
                    self.take_what_is_ready();
                }
                self.attach(&command, attached);
                if let Some(reply) = reply {
                    self.desks.replies.insert(ticket, reply);
                }
                self.handle(Input::Command(ticket, *command));
            }
            Call::Progress(subscriber) => {
                // Looked at here, where frames are put in: what the reader saw may be over.
                let progress = self.desks.mailboxes.get(&subscriber).and_then(|mailbox| mailbox.progress());
                if let Some(Progress { bytes, caught_up }) = progress {
                    let weight = u64::try_from(bytes).unwrap_or(u64::MAX);
                    self.handle(Input::Progress { subscriber, weight, caught_up });
                }
            }
            Call::Abandoned(ticket) => {
                self.desks.replies.remove(&ticket);
                self.handle(Input::Abandoned(ticket));
            }
            Call::Stop => {}
        }
    }

    /// The signer's last frames are in the inbox when somebody says goodbye; they come first.
    fn take_what_is_ready(&mut self) {
        while let Ok(input) = self.inbox.try_recv() {
            self.handle(input);
        }
    }

    fn attach(&mut self, command: &Command, attached: Attached) {
        match (command, attached) {
            (Command::Subscribe { subscriber, .. }, Attached::Mailbox(mailbox)) => {
                self.desks.mailboxes.insert(*subscriber, mailbox);
            }
            (Command::Serve { provider, .. }, Attached::Desk(desk)) => {
                self.desks.providers.insert(*provider, desk);
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
            (_, Attached::Nothing | Attached::Mailbox(_) | Attached::Desk(_)) => {}
        }
    }

    fn execute(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Dial { peer, addresses } => return self.dial(peer, addresses),
            Output::Resolve { name, host } => return self.resolve(Question { name, host }),
            Output::Disconnect { peer } => self.disconnect(peer),
            Output::Join { shard } => self.join(shard),
            Output::Leave { shard } => self.part(shard),
            Output::Gossip { frame } => return self.gossip(frame),
            Output::Judge { from, gossip, verdict } => self.judge(from, gossip, verdict),
            Output::Sign(unsigned) => self.sign(unsigned),
            Output::Send { id, to, request } => return self.send(id, to, request),
            Output::Reply { to, response } => return self.reply(to, response),
            Output::Deliver { subscriber, delivery } => return self.deliver(subscriber, delivery),
            Output::Serve { provider, call } => self.serve(provider, call),
            Output::Stop { call } => self.stop(call),
            Output::Answer { ticket, answer } => self.answer(ticket, answer),
            Output::Allow { shard, sequence } => self.press.allow(shard, sequence),
            Output::OpenLane { peer, lane } => self.swarm.behaviour_mut().lanes.open(peer, lane),
            Output::Grant { lane, total } => {
                (&self.lanes).with(lane, |outbox| outbox.push_grant(total));
            }
            Output::Routes(routes) => {
                self.press.set_routes(Arc::clone(&routes));
                self.routes.send_replace(routes);
            }
            // Nobody listening is fine.
            Output::Announce(event) => drop(self.events.send(event)),
        }
        None
    }

    fn dial(&mut self, peer: Option<PeerId>, addresses: Vec<Multiaddr>) -> Option<Input> {
        // A dial by address alone goes to one address; the mesh asks for each.
        let options = match (peer, addresses.first()) {
            (Some(peer), _) => {
                DialOpts::peer_id(peer).addresses(addresses.clone()).condition(PeerCondition::Always).build()
            }
            (None, Some(address)) => DialOpts::unknown_peer_id().address(address.clone()).build(),
            (None, None) => return None,
        };
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.desks.dialled.insert(connection, addresses);
                None
            }
            Err(error) => {
                // libp2p leaves out the addresses that this node listens on.
                let all_ours = matches!(error, DialError::NoAddresses);
                let why = if all_ours { DialFailure::Ourselves } else { DialFailure::Unreachable(error.to_string()) };
                Some(Input::DialFailed { peer, addresses, why })
            }
        }
    }

    fn resolve(&mut self, question: Question) -> Option<Input> {
        // There is room for every name. Without the resolver there is no answer.
        let name = question.name;
        self.questions.try_send(question).err().map(|_| Input::Resolved { name, ips: None })
    }

    fn disconnect(&mut self, peer: PeerId) {
        if self.swarm.disconnect_peer_id(peer).is_err() {
            debug!(%peer, "is not connected any more");
        }
    }

    fn join(&mut self, shard: u8) {
        let Some(topic) = gossip::shard_topic(self.mesh_id, shard) else { return };
        if let Err(error) = self.swarm.behaviour_mut().gossip.subscribe(&topic) {
            error!(shard, %error, "cannot join the shard");
        }
    }

    fn part(&mut self, shard: u8) {
        if let Some(topic) = gossip::shard_topic(self.mesh_id, shard) {
            self.swarm.behaviour_mut().gossip.unsubscribe(&topic);
        }
    }

    fn gossip(&mut self, frame: Arc<Frame>) -> Option<Input> {
        let topic = gossip::shard_topic(self.mesh_id, frame.stream.shard())?;
        trace!(stream = ?frame.stream, bytes = frame.bytes.len(), "publishes a frame");
        match self.swarm.behaviour_mut().gossip.publish(topic, frame.bytes.to_vec()) {
            // Somebody passed it on before us, or nobody listens: nothing is left to do.
            Ok(_) | Err(gossipsub::PublishError::Duplicate | gossipsub::PublishError::NoPeersSubscribedToTopic) => None,
            Err(gossipsub::PublishError::AllQueuesFull(_)) => Some(Input::GossipRefused { frame }),
            Err(
                error @ (gossipsub::PublishError::SigningError(_)
                | gossipsub::PublishError::MessageTooLarge
                | gossipsub::PublishError::TransformFailed(_)),
            ) => {
                error!(%error, "gossipsub refuses a frame");
                None
            }
        }
    }

    fn judge(&mut self, from: PeerId, gossip: GossipId, verdict: Verdict) {
        let Some(id) = self.desks.gossip.remove(&gossip) else { return };
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        if !self.swarm.behaviour_mut().gossip.report_message_validation_result(&id, &from, acceptance) {
            debug!(%from, "a frame was judged too late to be passed on");
        }
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

    fn serve(&mut self, provider: ProviderId, call: crate::mesh::event::IncomingCall) {
        let gone = Arc::new(Gone::default());
        let id = call.id;
        let served = Served { call, gone: Arc::clone(&gone) };
        // The mesh counts the room; a provider that is being dropped has none, and says so with its last words.
        if self.desks.providers.get(&provider).is_some_and(|desk| desk.try_send(served).is_ok()) {
            self.desks.serving.insert(id, gone);
        }
    }

    fn stop(&mut self, call: CallId) {
        if let Some(gone) = self.desks.serving.get(&call) {
            gone.tell();
        }
    }

    fn answer(&mut self, ticket: Ticket, mut answer: Answer) {
        if let Answer::Status(status) = &mut answer {
            let counters = self.swarm.network_info();
            let connections = counters.connection_counters().num_established();
            status.tables.connections = usize::try_from(connections).unwrap_or(usize::MAX);
            status.tables.exchanges += self.desks.answering.len();
            status.tables.unchecked = self.desks.gossip.len();
        }
        if let Some(reply) = self.desks.replies.remove(&ticket) {
            // Nobody waiting any more is told separately.
            drop(reply.send(answer));
        }
    }

    /// Writes down who is there, off this task.
    fn remember(&self) {
        if let Some(remembered) = self.remembered.clone() {
            let records = self.mesh.to_remember();
            if !records.is_empty() {
                tokio::task::spawn_blocking(move || remembered.save(&records));
            }
        }
    }

    /// What has come and was only not looked at yet counts: a node that is busy is behind with the answers to its pings, and
    /// must not take for dead whom it keeps busy.
    fn close_silent(&mut self) {
        for _ in 0..EVENTS_BEFORE_VERDICT {
            let Some(event) = self.swarm.select_next_some().now_or_never() else { break };
            self.swarm_event(event);
        }
        for peer in self.silence.doubtful(Instant::now()) {
            self.handle(Input::Silent { peer });
        }
        for connection in self.silence.overdue(Instant::now()) {
            debug!(%connection, "a connection is silent and is closed");
            self.swarm.close_connection(connection);
        }
    }

    /// Ends the connections on the wire, too: one that is merely dropped lingers at the other side over QUIC, and a node
    /// that comes back is mistaken for it.
    async fn close(mut self, slot: Slot) {
        self.press.close();
        self.take_what_is_ready();
        self.settle();
        let messages = self.press.left_over();
        if messages > 0 {
            warn!(messages, "the node ends before these messages could go out: neighbours do not keep up");
        }
        if let Some(remembered) = &self.remembered {
            remembered.save(&self.mesh.to_remember());
        }
        self.desks.mailboxes.values().for_each(|mailbox| mailbox.close());
        // Before the handles learn that the driver is gone: their process may end at once.
        self.registration = None;
        let linked: Vec<_> = self.swarm.connected_peers().copied().collect();
        linked.into_iter().for_each(|peer| self.disconnect(peer));
        let closing = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        drop(tokio::time::timeout(FAREWELL, closing).await);
        info!("left");
        // Whoever waits for the end may start the node again at once, and finds its place free.
        drop(slot);
    }
}

/// Waits until what was published is with the driver, or that moment has come. Without one, for ever.
async fn drained(press: &Press, until: Option<Instant>) {
    match until {
        Some(at) => drop(tokio::time::timeout_at(at, press.drained()).await),
        None => std::future::pending().await,
    }
}

/// Sleeps until that moment, or for ever.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod stuck;
#[cfg(test)]
mod tests;
