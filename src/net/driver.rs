//! The driver: owns the swarm, tells the mesh what happens to it, and does what the mesh wants done with it.
//!
//! It never decides, and its handlers never wait. What takes no swarm does not come here: see [`hub`](super::hub).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use libp2p::gossipsub::{self, MessageAcceptance};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, request_response};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, error, info, trace, warn};

use crate::mesh::event::{
    Answer, Command, DialFailure, GossipId, InboundId, Input, Output, RpcFailure, RpcId, Ticket, Verdict,
};
use crate::net::behaviour::{Behaviour, BehaviourEvent};
use crate::net::checker::Unchecked;
use crate::net::clock::Clock;
use crate::net::data_dir::Slot;
use crate::net::gossip;
use crate::net::hub::{Hub, Work};
use crate::net::press::{LAST_FRAMES, Press};
use crate::net::registry::Registration;
use crate::net::remembered::Remembered;
use crate::net::resolver::Question;
use crate::wire::MeshId;
use crate::wire::frame::Frame;
use crate::wire::rpc::Request;

/// Events of the swarm that are looked at before a connection is taken for dead. So many are dealt with in a fraction of a
/// second, and others have to wait for no longer.
const EVENTS_BEFORE_VERDICT: usize = 1024;
/// How often it is written down who is there.
const REMEMBER: Duration = Duration::from_secs(30);

/// How long connections may take to end when the node does.
const FAREWELL: Duration = Duration::from_millis(250);

/// How long the last writes of a node that ends are waited for.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// The owner of the swarm.
pub(crate) struct Driver {
    pub(crate) mesh_id: MeshId,
    pub(crate) hub: Arc<Hub>,
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) clock: Clock,
    /// Says stop. Every handle has the other end.
    pub(crate) stop: mpsc::Receiver<()>,
    /// What the resolver and the registry's watcher have to say.
    pub(crate) inbox: mpsc::Receiver<Input>,
    pub(crate) unchecked: mpsc::Sender<Unchecked>,
    pub(crate) questions: mpsc::Sender<Question>,
    pub(crate) press: Arc<Press>,
    pub(crate) addresses: watch::Sender<Vec<Multiaddr>>,
    /// This node's entry in the host's registry.
    pub(crate) registration: Option<Registration>,
    /// Where to keep who is there for the next start.
    pub(crate) remembered: Option<Remembered>,
    /// What happened before the driver ran.
    pub(crate) early: Vec<SwarmEvent<BehaviourEvent>>,
    pub(crate) files: Files,
    /// The store's thread, if there is one.
    pub(crate) writer: Option<JoinHandle<()>>,
}

/// The libp2p handles behind the mesh's integers.
#[derive(Default)]
pub(crate) struct Files {
    /// Dials under way, and the addresses they were given.
    pub(crate) dialled: HashMap<ConnectionId, Vec<Multiaddr>>,
    pub(crate) asked: HashMap<request_response::OutboundRequestId, RpcId>,
    /// Exchanges that others began, until their answer is on the wire or lost.
    pub(crate) inbound: HashMap<request_response::InboundRequestId, InboundId>,
    pub(crate) gossip: HashMap<GossipId, gossipsub::MessageId>,
    pub(crate) next_gossip: u64,
    /// Nodes of other versions that were told of.
    pub(crate) other_versions: BTreeSet<PeerId>,
    /// Whether a flood of mDNS answers was told of.
    pub(crate) flooded: bool,
}

impl Driver {
    /// Runs until the last handle is gone, or one says stop. The node's place is held until then.
    pub(crate) async fn run(mut self, slot: Slot) {
        let mut handles = true;
        let mut last_frames = None;
        for event in std::mem::take(&mut self.early) {
            self.swarm_event(event);
        }
        let hub = Arc::clone(&self.hub);
        let mut often = tokio::time::interval(REMEMBER);
        loop {
            self.work();
            let Some(due) = hub.due() else { return };
            let deadline = due.mesh.map(|at| self.clock.instant(at));
            tokio::select! {
                stop = self.stop.recv(), if handles => {
                    if stop.is_some() {
                        return self.close(slot).await;
                    }
                    handles = false;
                    self.press.close();
                    last_frames = Some(Instant::now() + LAST_FRAMES);
                }
                event = self.swarm.select_next_some() => self.swarm_event(event),
                () = hub.work.notified() => {}
                Some(input) = self.inbox.recv() => self.tell(input),
                () = drained(&self.press, last_frames) => {
                    last_frames = None;
                    self.tell(Input::Command(Ticket(u64::MAX), Command::Leave));
                }
                () = until(deadline) => self.tell(Input::Timeout),
                () = until(due.silence) => self.close_silent(),
                _ = often.tick() => self.remember(),
            }
            if !handles && last_frames.is_none() && hub.with(|state| state.mesh.has_left()) == Some(true) {
                return self.close(slot).await;
            }
        }
    }

    /// Does what waits for the driver. What that causes calls the driver again, so that the swarm has its turn between.
    fn work(&mut self) {
        for work in self.hub.take() {
            if let Some(feedback) = self.execute(work) {
                self.tell(feedback);
            }
        }
    }

    pub(crate) fn tell(&self, input: Input) {
        // A node that has ended wants to know nothing.
        let _gone = self.hub.tell(input);
    }

    fn execute(&mut self, work: Work) -> Option<Input> {
        let output = match work {
            Work::Do(output) => output,
            Work::Respond(channel, response) => {
                if self.swarm.behaviour_mut().rpc.send_response(channel, response.into()).is_err() {
                    debug!("whoever asked is gone before the answer");
                }
                return None;
            }
            Work::EndLane(lane) => {
                self.swarm.behaviour_mut().lanes.end(lane);
                return None;
            }
        };
        match output {
            Output::Dial { peer, addresses } => return self.dial(peer, addresses),
            Output::Resolve { name, host } => return self.resolve(Question { name, host }),
            Output::Disconnect { peer } => self.disconnect(peer),
            Output::Join { shard } => self.join(shard),
            Output::Leave { shard } => self.part(shard),
            Output::Gossip { frame } => return self.gossip(frame),
            Output::Judge { from, gossip, verdict } => self.judge(from, gossip, verdict),
            Output::Send { id, to, request } => return self.send(id, to, request),
            Output::OpenLane { peer, lane } => self.swarm.behaviour_mut().lanes.open(peer, lane),
            Output::Answer { ticket, answer } => self.answer(ticket, answer),
            // What takes no swarm was done where it was wanted.
            Output::Reply { .. }
            | Output::Deliver { .. }
            | Output::Serve { .. }
            | Output::Stop { .. }
            | Output::Store { .. }
            | Output::HandOut { .. }
            | Output::Sign(_)
            | Output::Allow { .. }
            | Output::Grant { .. }
            | Output::Routes(_)
            | Output::Announce(_) => {}
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
                self.files.dialled.insert(connection, addresses);
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
        let Some(id) = self.files.gossip.remove(&gossip) else { return };
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        if !self.swarm.behaviour_mut().gossip.report_message_validation_result(&id, &from, acceptance) {
            debug!(%from, "a frame was judged too late to be passed on");
        }
    }

    fn send(&mut self, id: RpcId, to: PeerId, request: Request) -> Option<Input> {
        if !self.swarm.is_connected(&to) {
            return Some(Input::Response { id, result: Err(RpcFailure::NotSent) });
        }
        let sent = self.swarm.behaviour_mut().rpc.send_request(&to, request.into());
        self.files.asked.insert(sent, id);
        None
    }

    /// The part of a status that is libp2p's.
    fn answer(&mut self, ticket: Ticket, mut answer: Answer) {
        if let Answer::Status(status) = &mut answer {
            let counters = self.swarm.network_info();
            let connections = counters.connection_counters().num_established();
            status.tables.connections = usize::try_from(connections).unwrap_or(usize::MAX);
            status.tables.unchecked = self.files.gossip.len();
        }
        self.hub.with(|state| {
            if let Answer::Status(status) = &mut answer {
                status.tables.exchanges += state.desks.answering.len();
            }
            state.answer(ticket, answer);
        });
    }

    /// Writes down who is there, off this task.
    fn remember(&self) {
        let remembered = self.remembered.clone();
        if let Some((remembered, records)) = remembered.zip(self.hub.with(|state| state.mesh.to_remember()))
            && !records.is_empty()
        {
            tokio::task::spawn_blocking(move || remembered.save(&records));
        }
    }

    /// What has come and was only not looked at yet counts: a node that is busy is behind with what it hears, and
    /// must not take for dead whom it keeps busy.
    fn close_silent(&mut self) {
        for _ in 0..EVENTS_BEFORE_VERDICT {
            let Some(event) = self.swarm.select_next_some().now_or_never() else { break };
            self.swarm_event(event);
        }
        let overdue = self.hub.with(|state| {
            for peer in state.silence.doubtful(Instant::now()) {
                state.handle(Input::Silent { peer });
            }
            state.silence.overdue(Instant::now())
        });
        for connection in overdue.unwrap_or_default() {
            debug!(%connection, "a connection is silent and is closed");
            self.swarm.close_connection(connection);
        }
    }

    /// Ends the connections on the wire, too: one that is merely dropped lingers at the other side over QUIC, and a node
    /// that comes back is mistaken for it.
    async fn close(mut self, slot: Slot) {
        self.press.close();
        self.work();
        let messages = self.press.left_over();
        if messages > 0 {
            warn!(messages, "the node ends before these messages could go out: neighbours do not keep up");
        }
        let state = self.hub.end();
        if let Some((remembered, state)) = self.remembered.as_ref().zip(state.as_ref()) {
            remembered.save(&state.mesh.to_remember());
        }
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
        drop(state);
        if let Some(writer) = self.writer.take() {
            // What it was given goes to disk before another process may open the same store.
            drop(tokio::time::timeout(LAST_WRITES, writer).await);
        }
        info!("left");
        // Whoever waits for the end may start the node again at once, and finds its place free.
        drop(slot);
    }
}

impl Drop for Driver {
    /// Also when it is stopped with its runtime: nobody shall wait for a node that is not there.
    fn drop(&mut self) {
        drop(self.hub.end());
    }
}

/// Waits until what was published is with the mesh, or that moment has come. Without one, for ever.
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
