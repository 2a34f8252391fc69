//! Live swarms over every kind of address that the transport supports.

use std::net::TcpListener;

use futures::StreamExt;
use futures::future::join_all;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, ListenError, NetworkBehaviour, SwarmEvent, dummy};
use libp2p::{Multiaddr, Swarm, TransportError, ping};
use tokio::time::{Instant, timeout};

use super::*;
use crate::net::gate::{BUDGET, GateError, TurnedAway, refused_dial, refused_listen};

const PATIENCE: Duration = Duration::from_secs(20);

/// One of each kind. A transport that is added belongs here, see [`no_other_address_is_supported`].
fn addresses() -> Vec<Multiaddr> {
    let mut addresses = vec!["/memory/0", "/ip4/127.0.0.1/tcp/0"];
    // Containers without IPv6 are common.
    let ipv6 = TcpListener::bind("[::1]:0").is_ok();
    addresses.extend(ipv6.then_some("/ip6/::1/tcp/0"));
    if cfg!(feature = "quic") {
        addresses.push("/ip4/127.0.0.1/udp/0/quic-v1");
        addresses.extend(ipv6.then_some("/ip6/::1/udp/0/quic-v1"));
    }
    addresses.into_iter().map(|address| address.parse().unwrap()).collect()
}

fn node(mesh: &MeshAccess) -> Swarm<dummy::Behaviour> {
    let keypair = Keypair::generate_ed25519();
    let transport = transport(&keypair, mesh).unwrap();
    Swarm::new(transport, dummy::Behaviour, keypair.public().to_peer_id(), swarm_config())
}

/// A libp2p program that knows nothing of gates.
fn stranger<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    let keypair = Keypair::generate_ed25519();
    Swarm::new(ungated(&keypair).unwrap(), behaviour, keypair.public().to_peer_id(), swarm_config())
}

async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, address: &Multiaddr) -> Multiaddr {
    swarm.listen_on(address.clone()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

/// What became of one dial, as each side sees it.
struct Meeting {
    host: Result<(), ListenError>,
    guest: Result<(), DialError>,
}

fn accepted<E>(event: SwarmEvent<E>) -> Option<Result<(), ListenError>> {
    if let SwarmEvent::IncomingConnectionError { error, .. } = event {
        return Some(Err(error));
    }
    matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(Ok(()))
}

fn reached<E>(event: SwarmEvent<E>) -> Option<Result<(), DialError>> {
    if let SwarmEvent::OutgoingConnectionError { error, .. } = event {
        return Some(Err(error));
    }
    matches!(event, SwarmEvent::ConnectionEstablished { .. }).then_some(Ok(()))
}

async fn meet<A: NetworkBehaviour, B: NetworkBehaviour>(
    host: &mut Swarm<A>,
    guest: &mut Swarm<B>,
    address: &Multiaddr,
) -> Meeting {
    let (mut at_host, mut at_guest) = (None, None);
    guest.dial(listen(host, address).await).unwrap();
    let both = async {
        while at_host.is_none() || at_guest.is_none() {
            tokio::select! {
                event = host.select_next_some() => at_host = at_host.take().or(accepted(event)),
                event = guest.select_next_some() => at_guest = at_guest.take().or(reached(event)),
            }
        }
    };
    timeout(PATIENCE, both).await.unwrap_or_else(|_| panic!("no outcome over {address}"));
    Meeting { host: at_host.unwrap(), guest: at_guest.unwrap() }
}

fn at_host(meeting: &Meeting) -> &GateError {
    let error = meeting.host.as_ref().expect_err("the host let it in");
    refused_listen(error).unwrap_or_else(|| panic!("not the gate: {error:?}"))
}

fn at_guest(meeting: &Meeting) -> &GateError {
    let error = meeting.guest.as_ref().expect_err("the guest went in");
    refused_dial(error).unwrap_or_else(|| panic!("not the gate: {error:?}")).1
}

#[tokio::test]
async fn members_of_one_mesh_connect() {
    for mesh in [MeshAccess::private("home", [1; 32]), MeshAccess::open()] {
        for address in addresses() {
            let meeting = meet(&mut node(&mesh), &mut node(&mesh), &address).await;
            assert!(meeting.host.is_ok() && meeting.guest.is_ok(), "{address}: {:?} {:?}", meeting.host, meeting.guest);
        }
    }
}

#[tokio::test]
async fn members_of_two_meshes_refuse_each_other_and_both_know_why() {
    let (home, other) = (MeshAccess::private("home", [1; 32]), MeshAccess::private("other", [2; 32]));
    for address in addresses() {
        for mesh in [&other, &MeshAccess::open()] {
            let (mut host, mut guest) = (node(&home), node(mesh));
            let meeting = meet(&mut host, &mut guest, &address).await;
            let (at_host, at_guest) = (at_host(&meeting), at_guest(&meeting));
            assert_eq!((&at_host.peer, &at_guest.peer), (guest.local_peer_id(), host.local_peer_id()));
            assert!(
                matches!(at_host.reason, TurnedAway::OtherMesh { theirs_open } if theirs_open == mesh.is_open()),
                "{address}: {at_host}"
            );
            assert!(matches!(at_guest.reason, TurnedAway::OtherMesh { theirs_open: false }), "{address}: {at_guest}");
        }
    }
}

/// Fails if a transport bypasses the gate: then the connection of a peer without one would be established.
#[tokio::test]
async fn a_silent_stranger_is_refused_in_time_over_every_address() {
    let home = MeshAccess::private("home", [1; 32]);
    join_all(addresses().into_iter().map(async |address| {
        let started = Instant::now();
        let meeting = meet(&mut node(&home), &mut stranger(dummy::Behaviour), &address).await;
        assert!(matches!(at_host(&meeting).reason, TurnedAway::TimedOut), "{address}: {}", at_host(&meeting));
        assert!(started.elapsed() < BUDGET + Duration::from_millis(500), "{address}: {:?}", started.elapsed());
    }))
    .await;
}

/// The same for dials: a gate on one side only would be none.
#[tokio::test]
async fn a_silent_host_is_refused_in_time_over_every_address() {
    let home = MeshAccess::private("home", [1; 32]);
    join_all(addresses().into_iter().map(async |address| {
        let started = Instant::now();
        let meeting = meet(&mut stranger(dummy::Behaviour), &mut node(&home), &address).await;
        assert!(matches!(at_guest(&meeting).reason, TurnedAway::TimedOut), "{address}: {}", at_guest(&meeting));
        assert!(started.elapsed() < BUDGET + Duration::from_millis(500), "{address}: {:?}", started.elapsed());
    }))
    .await;
}

#[tokio::test]
async fn another_libp2p_program_is_recognised_at_once() {
    let home = MeshAccess::private("home", [1; 32]);
    for address in addresses() {
        let meeting = meet(&mut node(&home), &mut stranger(ping::Behaviour::default()), &address).await;
        assert!(matches!(at_host(&meeting).reason, TurnedAway::NotPombo), "{address}: {}", at_host(&meeting));
    }
}

/// If this fails, a transport was added: put one of its addresses into [`addresses`].
#[tokio::test]
async fn no_other_address_is_supported() {
    let mut node = node(&MeshAccess::open());
    for address in [
        "/ip4/127.0.0.1/tcp/0/ws",
        "/ip4/127.0.0.1/tcp/0/wss",
        "/ip4/127.0.0.1/udp/0",
        "/ip4/127.0.0.1/udp/0/webrtc-direct",
        "/ip4/127.0.0.1/udp/0/quic-v1/webtransport",
        "/dns4/localhost/tcp/0",
        "/unix/tmp%2Fpombo",
        "/p2p-circuit",
    ] {
        let outcome = node.listen_on(address.parse().unwrap());
        assert!(matches!(outcome, Err(TransportError::MultiaddrNotSupported(_))), "{address}: {outcome:?}");
    }
}

/// A peer that listens in several ways is reached though most of them lead nowhere.
#[tokio::test]
async fn one_good_address_among_bad_ones_is_enough() {
    let home = MeshAccess::private("home", [1; 32]);
    let (mut host, mut guest) = (node(&home), node(&home));
    let good = listen(&mut host, &"/ip4/127.0.0.1/tcp/0".parse().unwrap()).await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dead = format!("/ip4/127.0.0.1/tcp/{free}").parse().unwrap();
    let peer = *host.local_peer_id();
    let dial = DialOpts::peer_id(peer).addresses(vec![dead, good.clone()]).build();
    guest.dial(dial).unwrap();
    let connected = async {
        loop {
            tokio::select! {
                _ = host.select_next_some() => {}
                event = guest.select_next_some() => {
                    if let SwarmEvent::ConnectionEstablished { endpoint, .. } = event { return endpoint; }
                }
            }
        }
    };
    let endpoint = timeout(PATIENCE, connected).await.unwrap();
    assert!(endpoint.get_remote_address().to_string().starts_with(&good.to_string()));
}

/// A connection whose other side takes nothing any more.
struct Stuck;

impl StreamMuxer for Stuck {
    type Substream = SubstreamBox;
    type Error = io::Error;

    fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        Poll::Pending
    }

    fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        Poll::Pending
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn a_goodbye_that_nobody_takes_ends_all_the_same() {
    let mut muxer = Ending::new(Stuck);
    let closing = std::future::poll_fn(|context| Pin::new(&mut muxer).poll_close(context));
    let error = timeout(PATIENCE, closing).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

/// Passes bytes on until it is told to stop, and then keeps both connections open without reading.
async fn freezing_proxy(to: u16, frozen: std::sync::Arc<tokio::sync::Notify>) -> (u16, impl Future<Output = ()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let passing = async move {
        let (mut guest, _) = listener.accept().await.unwrap();
        let mut host = tokio::net::TcpStream::connect(("127.0.0.1", to)).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut guest, &mut host) => {}
            () = frozen.notified() => {}
        }
        std::future::pending::<()>().await;
        drop((guest, host));
    };
    (port, passing)
}

/// The other side stops reading with a lot on its way to it: a connection that is closed then is closed soon.
#[tokio::test]
async fn a_connection_with_unsent_bytes_is_reported_closed() {
    use crate::mesh::event::Checked;
    use crate::net::rpc;
    use crate::wire::rpc::Request;

    let mesh = MeshAccess::open();
    let node = || {
        let keypair = Keypair::generate_ed25519();
        let transport = transport(&keypair, &mesh).unwrap();
        Swarm::new(transport, rpc::behaviour(mesh.id), keypair.public().to_peer_id(), swarm_config())
    };
    let (mut host, mut guest) = (node(), node());
    let address = listen(&mut host, &"/ip4/127.0.0.1/tcp/0".parse().unwrap()).await;
    let port = address.to_string().rsplit('/').next().unwrap().parse().unwrap();
    let frozen = std::sync::Arc::new(tokio::sync::Notify::new());
    let (port, proxy) = freezing_proxy(port, std::sync::Arc::clone(&frozen)).await;
    guest.dial(format!("/ip4/127.0.0.1/tcp/{port}").parse::<Multiaddr>().unwrap()).unwrap();
    let test = async {
        let (peer, connection) = loop {
            tokio::select! {
                _ = host.select_next_some() => {}
                event = guest.select_next_some() => if let SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } = event {
                    break (peer_id, connection_id);
                }
            }
        };
        for _ in 0..128 {
            let frames = vec![bytes::Bytes::from(vec![7; 60_000]); 16];
            let request = Request::Inject { frames, extensions: Vec::new() };
            guest.behaviour_mut().send_request(&peer, Checked::from(request));
        }
        // The streams are accepted, and much is on its way.
        drop(
            timeout(Duration::from_millis(100), async {
                loop {
                    tokio::select! { _ = host.select_next_some() => {}, _ = guest.select_next_some() => {} }
                }
            })
            .await,
        );
        frozen.notify_one();
        drop(
            timeout(Duration::from_millis(500), async {
                loop {
                    guest.select_next_some().await;
                }
            })
            .await,
        );
        let started = Instant::now();
        assert!(guest.close_connection(connection));
        loop {
            if let SwarmEvent::ConnectionClosed { cause, .. } = guest.select_next_some().await {
                return (started.elapsed(), cause);
            }
        }
    };
    let (took, cause) = tokio::select! {
        outcome = timeout(PATIENCE, test) => outcome.expect("the connection is never reported closed"),
        () = proxy => panic!("the proxy ended"),
    };
    assert!(took < FAREWELL + Duration::from_secs(2), "{took:?}");
    assert!(cause.is_some(), "nothing was held up, so nothing was tested");
}
