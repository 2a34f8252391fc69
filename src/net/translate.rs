//! What libp2p reports, in the mesh's words. No decisions: only names, and handles put aside for the answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::{self, MessageAcceptance};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{ConnectionId, DialError, ListenError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, request_response};
use tracing::{debug, info, warn};

use crate::mesh::event::{DialFailure, FoundBy, GossipId, InboundId, Input, RpcFailure};
use crate::mesh::time::Span;
use crate::net::behaviour::BehaviourEvent;
use crate::net::checker::Unchecked;
use crate::net::driver::Driver;
use crate::net::gate::{self, GateError, TurnedAway};
use crate::net::gossip;
use crate::net::hub::AnswerTo;
use crate::net::inner;
use crate::net::lanes;
use crate::net::mdns;
use crate::net::pulse::Beat;
use crate::net::rpc;

impl Driver {
    pub(crate) fn swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.behaviour_event(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                self.heard(connection_id, peer_id);
                self.files.dialled.remove(&connection_id);
                let address = match endpoint {
                    ConnectedPoint::Dialer { address, .. } => address,
                    ConnectedPoint::Listener { send_back_addr, .. } => send_back_addr,
                };
                self.tell(Input::Connected { peer: peer_id, address, links: num_established.get() });
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                debug!(peer = %peer_id, ?cause, "a connection ended");
                self.hub.with(|state| {
                    state.silence.closed(connection_id);
                    state.handle(Input::Disconnected { peer: peer_id, links: num_established });
                });
            }
            SwarmEvent::OutgoingConnectionError { peer_id, connection_id, error } => {
                let addresses = self.files.dialled.remove(&connection_id).unwrap_or_default();
                self.tell_of_version(gate::refused_dial(&error).map(|(_, refused)| refused));
                self.tell(dial_failed(peer_id, addresses, &error));
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.tell_of_version(gate::refused_listen(&error));
                if let Some(input) = turned_away(send_back_addr, &error) {
                    self.tell(input);
                }
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                info!(%address, "listening");
                self.listening(|addresses| addresses.push(address));
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening(|addresses| addresses.retain(|known| *known != address));
            }
            SwarmEvent::ListenerClosed { addresses: gone, reason, .. } => {
                debug!(?gone, ?reason, "a listener closed");
                self.listening(|addresses| addresses.retain(|known| !gone.contains(known)));
            }
            SwarmEvent::IncomingConnection { .. }
            | SwarmEvent::ListenerError { .. }
            | SwarmEvent::Dialing { .. }
            | SwarmEvent::NewExternalAddrCandidate { .. }
            | SwarmEvent::ExternalAddrConfirmed { .. }
            | SwarmEvent::ExternalAddrExpired { .. }
            | SwarmEvent::NewExternalAddrOfPeer { .. } => {}
            // Libp2p's enum is open.
            event => debug!(?event, "an event that this version does not know"),
        }
    }

    fn heard(&self, connection: ConnectionId, peer: PeerId) {
        self.hub.with(|state| state.silence.heard(connection, peer, tokio::time::Instant::now()));
    }

    fn lane_event(&self, event: lanes::Event) {
        match event {
            lanes::Event::Down { lane, unsent } => self.hub.lane_down(lane, &unsent),
            lanes::Event::Broken { peer } => self.tell(Input::Offended { peer, count: 1 }),
        }
    }

    /// A pombo node of another version is no stranger: somebody has to update one of the two. Said once for each, and no more
    /// after some.
    fn tell_of_version(&mut self, refused: Option<&GateError>) {
        const MOST: usize = 64;
        let Some(refused) = refused else { return };
        let other = matches!(refused.reason, TurnedAway::OtherVersion { .. });
        if other && self.files.other_versions.len() < MOST && self.files.other_versions.insert(refused.peer) {
            warn!("{refused}");
        }
    }

    fn listening(&mut self, change: impl FnOnce(&mut Vec<Multiaddr>)) {
        self.addresses.send_modify(change);
        let addresses = self.addresses.borrow().clone();
        if let Some(registration) = &mut self.registration
            && let Err(error) = registration.update(addresses.clone())
        {
            warn!(%error, "other nodes of this host will look for this one at its old addresses");
        }
        self.tell(Input::Listening(inner::for_others(&addresses)));
    }

    fn behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Mdns4(event) | BehaviourEvent::Mdns6(event) => self.mdns_event(event),
            BehaviourEvent::Pulse(Beat { peer, connection, time }) => {
                self.heard(connection, peer);
                if let Some(time) = time {
                    self.tell(Input::RoundTrip { peer, time: Span::from(time) });
                }
            }
            BehaviourEvent::Gossip(event) => self.gossip_event(event),
            BehaviourEvent::Rpc(event) => self.rpc_event(event),
            BehaviourEvent::Lanes(event) => self.lane_event(event),
            BehaviourEvent::Limits(never) => match never {},
        }
    }

    fn mdns_event(&mut self, event: mdns::Event) {
        let found = match event {
            mdns::Event::Found(found) => found,
            mdns::Event::Flooded => {
                self.tell_of_flood();
                return self.tell(Input::Flooded);
            }
        };
        let mut by_peer: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
        for (peer, address) in found {
            by_peer.entry(peer).or_default().push(address);
        }
        for (peer, addresses) in by_peer {
            self.tell(Input::Seen { peer: Some(peer), addresses, by: FoundBy::Mdns });
        }
    }

    /// Said once: whoever floods the network once will do so again.
    fn tell_of_flood(&mut self) {
        if std::mem::replace(&mut self.files.flooded, true) {
            debug!("another flood of mDNS answers");
        } else {
            warn!(
                "somebody floods this network with mDNS answers: for a minute no neighbours are looked for in this way, and \
                 so it will be each time"
            );
        }
    }

    fn gossip_event(&mut self, event: gossip::Event) {
        let event = match event {
            gossip::Event::Gossipsub(event) => event,
            gossip::Event::Refused { peer, count } => {
                debug!(%peer, count, "sent gossip that is of no use here");
                return self.tell(Input::Offended { peer, count });
            }
        };
        match event {
            gossipsub::Event::Message { propagation_source: from, message_id, message } => {
                // Only those of shards come through.
                let Some(shard) = gossip::shard_of(self.mesh_id, &message.topic) else { return };
                self.files.next_gossip += 1;
                let gossip = GossipId(self.files.next_gossip);
                let unchecked = Unchecked { from, gossip, shard, bytes: Bytes::from(message.data) };
                if self.unchecked.try_send(unchecked).is_ok() {
                    self.files.gossip.insert(gossip, message_id);
                } else {
                    // The checker cannot keep up. What is dropped here shows as a gap and is repaired.
                    let gossip = &mut self.swarm.behaviour_mut().gossip;
                    gossip.report_message_validation_result(&message_id, &from, MessageAcceptance::Ignore);
                }
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                debug!(peer = %peer_id, "is slow to take gossip");
                self.tell(Input::Slow { peer: peer_id });
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => debug!(peer = %peer_id, "speaks no gossipsub"),
            gossipsub::Event::Subscribed { .. } | gossipsub::Event::Unsubscribed { .. } => {}
        }
    }

    fn rpc_event(&mut self, event: rpc::Event) {
        match event {
            request_response::Event::Message { peer, connection_id, message } => match message {
                request_response::Message::Request { request_id, request, channel } => {
                    let id = self.hub.with(|state| {
                        let id = InboundId(state.desks.next());
                        state.desks.answering.insert(id, AnswerTo::Exchange(channel));
                        state.handle(Input::Request { from: peer, id, request });
                        id
                    });
                    // The answer, if it is there already, goes out by this task.
                    self.files.inbound.extend(id.map(|id| (request_id, id)));
                }
                request_response::Message::Response { request_id, response } => {
                    // As good as a beat.
                    self.heard(connection_id, peer);
                    self.answered(request_id, Ok(response));
                }
            },
            request_response::Event::OutboundFailure { peer, request_id, error, .. } => {
                debug!(%peer, %error, "a request has no answer");
                self.answered(request_id, Err(failure(&error)));
            }
            request_response::Event::InboundFailure { peer, request_id, error, .. } => {
                debug!(%peer, %error, "a request could not be answered");
                // The mesh's own deadlines see to the rest.
                self.replied(request_id);
            }
            request_response::Event::ResponseSent { request_id, .. } => self.replied(request_id),
        }
    }

    /// The answer is on the wire, or will never be: then its channel is of no use any more.
    fn replied(&mut self, id: request_response::InboundRequestId) {
        if let Some(id) = self.files.inbound.remove(&id) {
            self.hub.with(|state| {
                state.desks.answering.remove(&id);
                state.handle(Input::Replied { id });
            });
        }
    }

    fn answered(
        &mut self,
        id: request_response::OutboundRequestId,
        result: Result<crate::mesh::event::Checked<crate::wire::rpc::Response>, RpcFailure>,
    ) {
        if let Some(id) = self.files.asked.remove(&id) {
            self.tell(Input::Response { id, result });
        }
    }
}

fn failure(error: &request_response::OutboundFailure) -> RpcFailure {
    match error {
        request_response::OutboundFailure::DialFailure | request_response::OutboundFailure::UnsupportedProtocols => {
            RpcFailure::NotSent
        }
        // The connection had no room for another exchange, and nothing of this one was written. libp2p says so in words only.
        request_response::OutboundFailure::Io(error) if error.to_string() == NO_ROOM => RpcFailure::NotSent,
        request_response::OutboundFailure::Timeout
        | request_response::OutboundFailure::ConnectionClosed
        | request_response::OutboundFailure::Io(_) => RpcFailure::Unknown,
    }
}

/// What libp2p's request-response says beyond its limit of exchanges on a connection.
const NO_ROOM: &str = "max sub-streams reached";

fn dial_failed(peer: Option<PeerId>, addresses: Vec<Multiaddr>, error: &DialError) -> Input {
    if let Some((address, refused)) = gate::refused_dial(error)
        && let Some(why) = of_other_mesh(refused)
    {
        let addresses = if addresses.is_empty() { vec![address.clone()] } else { addresses };
        return Input::DialFailed { peer: Some(refused.peer), addresses, why };
    }
    // Of several addresses the first that answered ended the dial. The others may be right.
    let (addresses, why) = match error {
        DialError::LocalPeerId { address } => (vec![address.clone()], DialFailure::Ourselves),
        DialError::WrongPeerId { address, .. } => (vec![address.clone()], DialFailure::SomebodyElse),
        DialError::NoAddresses
        | DialError::DialPeerConditionFalse(_)
        | DialError::Aborted
        | DialError::Denied { .. }
        | DialError::Transport(_) => (addresses, DialFailure::Unreachable(error.to_string())),
    };
    Input::DialFailed { peer, addresses, why }
}

/// An incoming connection that the gate refused, if it says who belongs elsewhere.
fn turned_away(address: Multiaddr, error: &ListenError) -> Option<Input> {
    let refused = gate::refused_listen(error)?;
    debug!(%refused, "an incoming connection was refused");
    let why = of_other_mesh(refused)?;
    let ip = address.iter().filter(|part| matches!(part, Protocol::Ip4(_) | Protocol::Ip6(_))).collect();
    // The port is the one they dialled from; nobody listens there.
    Some(Input::DialFailed { peer: Some(refused.peer), addresses: vec![ip], why })
}

fn of_other_mesh(refused: &GateError) -> Option<DialFailure> {
    match refused.reason {
        TurnedAway::OtherMesh { theirs_open } => Some(DialFailure::OtherMesh { open: theirs_open }),
        TurnedAway::NotPombo => Some(DialFailure::NotPombo),
        TurnedAway::OtherVersion { .. } | TurnedAway::TimedOut | TurnedAway::ByThem | TurnedAway::Broken(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use libp2p::request_response::OutboundFailure;

    use super::*;

    #[test]
    fn only_what_was_certainly_not_written_is_not_sent() {
        for error in [
            OutboundFailure::DialFailure,
            OutboundFailure::UnsupportedProtocols,
            OutboundFailure::Io(io::Error::other("max sub-streams reached")),
        ] {
            assert_eq!(failure(&error), RpcFailure::NotSent, "{error}");
        }
        for error in [
            OutboundFailure::Timeout,
            OutboundFailure::ConnectionClosed,
            OutboundFailure::Io(io::ErrorKind::UnexpectedEof.into()),
        ] {
            assert_eq!(failure(&error), RpcFailure::Unknown, "{error}");
        }
    }
}
