//! The settings, as two live nodes feel them.

use std::collections::HashSet;

use futures::StreamExt;
use libp2p::gossipsub::{IdentTopic, TopicHash};
use libp2p::identity::Keypair;
use libp2p::request_response::{Event, Message};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, ListenError, SwarmEvent};
use libp2p::{Multiaddr, Swarm, gossipsub};
use tokio::time::timeout;

use super::*;
use crate::net::access::MeshAccess;
use crate::net::gossip::{self, shard_of, shard_topic};
use crate::net::transport::{swarm_config, transport};
use crate::wire::frame::SHARDS;
use crate::wire::rpc::{Request, Response};

const PATIENCE: Duration = Duration::from_secs(20);

fn swarm() -> Swarm<Behaviour> {
    let keypair = Keypair::generate_ed25519();
    let own = keypair.public().to_peer_id();
    let mesh = MeshAccess::open();
    let (behaviour, off) = Behaviour::new(own, mesh.id, false, Lanes::alone(mesh.id)).unwrap();
    assert!(off.is_empty());
    Swarm::new(transport(&keypair, &mesh).unwrap(), behaviour, own, swarm_config())
}

async fn listen(swarm: &mut Swarm<Behaviour>, address: &str) -> Multiaddr {
    swarm.listen_on(address.parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

#[tokio::test]
async fn a_refused_connection_leaves_nothing_behind() {
    let (mut host, mut guest) = (swarm(), swarm());
    *host.behaviour_mut().limits.limits_mut() = limits().with_max_established(Some(0));
    guest.dial(listen(&mut host, "/memory/0").await).unwrap();
    let refused = async {
        loop {
            tokio::select! {
                event = host.select_next_some() => {
                    if let SwarmEvent::IncomingConnectionError { error, .. } = event { return error; }
                }
                _ = guest.select_next_some() => {}
            }
        }
    };
    let error = timeout(PATIENCE, refused).await.unwrap();
    assert!(matches!(error, ListenError::Denied { .. }), "{error}");
    assert_eq!(host.behaviour().gossip.all_peers().count(), 0);
    assert!(!host.behaviour().rpc.is_connected(guest.local_peer_id()));
}

/// Cheap, and says which field is out of place.
#[test]
fn what_refuses_stands_first_and_what_keeps_state_last() {
    let source = include_str!("../behaviour.rs");
    let (_, fields) = source.split_once("pub(crate) struct Behaviour {").unwrap();
    let (fields, _) = fields.split_once('}').unwrap();
    let names: Vec<_> =
        fields.lines().filter_map(|line| line.trim().strip_prefix("pub(crate) ")?.split(':').next()).collect();
    assert_eq!(names.first(), Some(&"limits"));
    assert_eq!(names[names.len() - 2..], ["gossip", "rpc"]);
}

#[tokio::test]
async fn a_peer_sees_all_shards_on_connect() {
    let (mut host, mut guest) = (swarm(), swarm());
    let mesh = MeshAccess::open().id;
    for shard in 0..SHARDS {
        host.behaviour_mut().gossip.subscribe(&shard_topic(mesh, shard).unwrap()).unwrap();
    }
    guest.dial(listen(&mut host, "/memory/0").await).unwrap();
    let all = async {
        let mut seen = HashSet::new();
        while seen.len() < SHARDS.into() {
            tokio::select! {
                _ = host.select_next_some() => {}
                event = guest.select_next_some() => {
                    if let SwarmEvent::Behaviour(BehaviourEvent::Gossip(gossip::Event::Gossipsub(gossipsub::Event::Subscribed { topic, .. }))) = event {
                        seen.extend(shard_of(mesh, &topic));
                    }
                }
            }
        }
    };
    timeout(PATIENCE, all).await.unwrap();
}

#[tokio::test]
async fn only_shards_of_this_mesh_can_be_subscribed() {
    let mut node = swarm();
    let foreign = shard_topic(MeshId([9; 16]), 0).unwrap();
    for topic in [foreign, IdentTopic::new("anything")] {
        let error = node.behaviour_mut().gossip.subscribe(&topic).unwrap_err();
        assert!(matches!(error, gossipsub::SubscriptionError::NotAllowed), "{error:?}");
    }
}

#[test]
fn a_shard_reads_back_from_its_topic() {
    let mesh = MeshId([3; 16]);
    for shard in 0..SHARDS {
        assert_eq!(shard_of(mesh, &shard_topic(mesh, shard).unwrap().hash()), Some(shard));
    }
    assert!(shard_topic(mesh, SHARDS).is_none());
    for shard in ["64", "07", "+7", "-1", "", "7/", "256", " 7"] {
        assert_eq!(shard_of(mesh, &TopicHash::from_raw(format!("pombo/{mesh}/{shard}"))), None, "{shard}");
    }
    assert_eq!(shard_of(MeshId([4; 16]), &shard_topic(mesh, 7).unwrap().hash()), None);
}

#[tokio::test]
async fn mdns_that_cannot_start_does_not_stop_the_node() {
    let own = Keypair::generate_ed25519().public().to_peer_id();
    let (behaviour, off) =
        Behaviour::new(own, MeshAccess::open().id, true, Lanes::alone(MeshAccess::open().id)).unwrap();
    let running = [&behaviour.mdns4, &behaviour.mdns6].into_iter().filter(|mdns| mdns.is_enabled()).count();
    assert_eq!(running + off.len(), 2, "{off:?}");
}

/// Two connected nodes, and what the second hears until it has heard enough.
async fn talk(
    host: &mut Swarm<Behaviour>,
    guest: &mut Swarm<Behaviour>,
    mut enough: impl FnMut(Side, BehaviourEvent, &mut Swarm<Behaviour>) -> bool,
) {
    let talking = async {
        loop {
            let done = tokio::select! {
                event = host.select_next_some() => behaviour_event(event).is_some_and(|event| enough(Side::Host, event, host)),
                event = guest.select_next_some() => behaviour_event(event).is_some_and(|event| enough(Side::Guest, event, guest)),
            };
            if done {
                return;
            }
        }
    };
    timeout(PATIENCE, talking).await.unwrap();
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Host,
    Guest,
}

fn behaviour_event(event: SwarmEvent<BehaviourEvent>) -> Option<BehaviourEvent> {
    assert!(!matches!(event, SwarmEvent::ConnectionClosed { .. }), "{event:?}");
    if let SwarmEvent::Behaviour(event) = event { Some(event) } else { None }
}

/// Frames at the size limit, one close after another: with libp2p's own limit most of them would vanish.
#[tokio::test]
async fn the_largest_frames_arrive_one_after_another() {
    const FRAMES: usize = 100;
    let (mut host, mut guest) = (swarm(), swarm());
    let topic = shard_topic(MeshAccess::open().id, 7).unwrap();
    guest.behaviour_mut().gossip.subscribe(&topic).unwrap();
    guest.dial(listen(&mut host, "/memory/0").await).unwrap();
    let mut arrived = HashSet::new();
    talk(&mut host, &mut guest, |side, event, swarm| {
        if let BehaviourEvent::Gossip(gossip::Event::Gossipsub(event)) = event {
            match (side, event) {
                (Side::Host, gossipsub::Event::Subscribed { .. }) => {
                    for number in 0..FRAMES {
                        let frame = vec![u8::try_from(number).unwrap(); 60 * 1024];
                        swarm.behaviour_mut().gossip.publish(topic.hash(), frame).unwrap();
                    }
                }
                (Side::Guest, gossipsub::Event::Message { message, .. }) => {
                    arrived.insert(message.data[0]);
                }
                _ => {}
            }
        }
        arrived.len() == FRAMES
    })
    .await;
}

/// More than yamux admits by default, where it would end the connection.
#[tokio::test]
async fn a_thousand_exchanges_share_a_connection() {
    const EXCHANGES: u64 = 1000;
    for address in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        if address.contains("quic") && !cfg!(feature = "quic") {
            continue;
        }
        let (mut host, mut guest) = (swarm(), swarm());
        let address = listen(&mut host, address).await;
        let peer = *host.local_peer_id();
        guest.add_peer_address(peer, address);
        for number in 0..EXCHANGES {
            guest.behaviour_mut().rpc.send_request(&peer, Request::Cancel { call: number, extensions: vec![] }.into());
        }
        let (mut asked, mut answered) = (Vec::new(), HashSet::new());
        talk(&mut host, &mut guest, |_, event, swarm| {
            if let BehaviourEvent::Rpc(event) = event {
                match event {
                    Event::Message { message: Message::Request { request, channel, .. }, .. } => {
                        let Request::Cancel { call, .. } = request.body else { panic!("{request:?}") };
                        asked.push((call, channel));
                        // None is answered before all are open.
                        if asked.len() as u64 == EXCHANGES {
                            for (call, channel) in asked.drain(..) {
                                let answer =
                                    Response::Injected { taken: 0, listeners: call as u32, extensions: vec![] };
                                swarm.behaviour_mut().rpc.send_response(channel, answer.into()).unwrap();
                            }
                        }
                    }
                    Event::Message { message: Message::Response { response, .. }, .. } => {
                        let Response::Injected { listeners, .. } = response.body else { panic!("{response:?}") };
                        answered.insert(listeners);
                    }
                    Event::ResponseSent { .. } => {}
                    Event::OutboundFailure { error, .. } => panic!("{error}"),
                    Event::InboundFailure { error, .. } => panic!("{error}"),
                }
            }
            answered.len() as u64 == EXCHANGES
        })
        .await;
    }
}

#[tokio::test]
async fn a_fifth_connection_to_a_peer_is_refused() {
    let (mut host, mut guest) = (swarm(), swarm());
    let address = listen(&mut host, "/memory/0").await;
    let peer = *host.local_peer_id();
    for _ in 0..5 {
        let dial = DialOpts::peer_id(peer).addresses(vec![address.clone()]).condition(PeerCondition::Always);
        guest.dial(dial.build()).unwrap();
    }
    let (mut established, mut denied) = (0, 0);
    let all = async {
        while established + denied < 5 {
            tokio::select! {
                _ = host.select_next_some() => {}
                event = guest.select_next_some() => {
                    established += usize::from(matches!(event, SwarmEvent::ConnectionEstablished { .. }));
                    denied += usize::from(matches!(event, SwarmEvent::OutgoingConnectionError { error: DialError::Denied { .. }, .. }));
                }
            }
        }
    };
    timeout(PATIENCE, all).await.unwrap();
    assert_eq!((established, denied), (4, 1));
}
