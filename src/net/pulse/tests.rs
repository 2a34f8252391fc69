use std::io;

use libp2p::futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{StreamProtocol, Swarm, request_response};
use tokio::time::timeout;

use super::*;
use crate::net::access::MeshAccess;
use crate::net::transport::{swarm_config, transport};

const PATIENCE: Duration = Duration::from_secs(20);
/// A thousand.
const BEATS: [u8; 8_000] = [0; 8_000];

fn swarm<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    let key = Keypair::generate_ed25519();
    let transport = transport(&key, &MeshAccess::open()).unwrap();
    Swarm::new(transport, behaviour, key.public().to_peer_id(), swarm_config())
}

/// Two nodes of which the second dialled the first.
async fn linked<B: NetworkBehaviour>(host: &mut Swarm<Pulse>, guest: &mut Swarm<B>, listen: &str) {
    host.listen_on(listen.parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = host.select_next_some().await {
            break address;
        }
    };
    guest.dial(address).unwrap();
}

/// The next beat that a node hears.
async fn beat(swarm: &mut Swarm<Pulse>) -> Beat {
    loop {
        if let SwarmEvent::Behaviour(beat) = swarm.select_next_some().await {
            return beat;
        }
    }
}

#[test]
fn all_connections_beat_at_the_same_time() {
    let start = Instant::now();
    let rhythm = Rhythm { start };
    for (now, next) in
        [(0, 2_000), (1, 2_000), (1_999, 2_000), (2_000, 4_000), (2_001, 4_000), (86_400_001, 86_402_000)]
    {
        assert_eq!(rhythm.after(start + Duration::from_millis(now)), start + Duration::from_millis(next), "{now}");
    }
}

#[test]
fn what_cannot_be_is_not_believed() {
    for (micros, believed) in [(0, false), (1, true), (5_000_000, true), (5_000_001, false), (u64::MAX, false)] {
        let claimed = handler::claimed(micros.to_be_bytes());
        assert_eq!(claimed, believed.then(|| Duration::from_micros(micros)), "{micros}");
    }
}

#[tokio::test]
async fn both_sides_hear_each_other_and_learn_how_long_a_beat_takes() {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        if !cfg!(feature = "quic") && listen.contains("quic") {
            continue;
        }
        let (mut host, mut guest) = (swarm(Pulse::new()), swarm(Pulse::new()));
        linked(&mut host, &mut guest, listen).await;
        let (host_id, guest_id) = (*host.local_peer_id(), *guest.local_peer_id());
        let mut heard = (Vec::new(), Vec::new());
        let began = Instant::now();
        let both = async {
            while heard.0.len() < 3 || heard.1.len() < 3 {
                tokio::select! {
                    beat = beat(&mut host) => heard.0.push((beat, began.elapsed())),
                    beat = beat(&mut guest) => heard.1.push((beat, began.elapsed())),
                }
            }
        };
        timeout(PATIENCE, both).await.unwrap_or_else(|_| panic!("{listen}: {heard:?}"));
        assert!(heard.0.iter().all(|(beat, _)| beat.peer == guest_id), "{listen}");
        assert!(heard.1.iter().all(|(beat, _)| beat.peer == host_id && beat.time.is_some()), "{listen}");
        let last = &heard.0[2];
        assert!(last.0.time.is_some(), "{listen}: the one that was dialled does not know: {heard:?}");
        assert!(last.1 > INTERVAL / 2, "{listen}: they do nothing else: {heard:?}");
    }
}

/// Writes beats without a pause, and reads what comes back.
#[derive(Clone, Debug, Default)]
struct Hasty;

impl request_response::Codec for Hasty {
    type Protocol = StreamProtocol;
    type Request = ();
    type Response = ();

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<()> {
        Ok(())
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<()> {
        let mut back = vec![1; BEATS.len()];
        io.read_exact(&mut back).await?;
        assert_eq!(back, BEATS);
        Ok(())
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&BEATS).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, _: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        Ok(())
    }
}

#[tokio::test]
async fn who_beats_too_often_is_answered_and_not_heard_as_often() {
    let protocol = [(StreamProtocol::new("/pombo/pulse/1"), request_response::ProtocolSupport::Outbound)];
    let behaviour = request_response::Behaviour::with_codec(Hasty, protocol, request_response::Config::default());
    let (mut host, mut guest) = (swarm(Pulse::new()), swarm(behaviour));
    linked(&mut host, &mut guest, "/ip4/127.0.0.1/tcp/0").await;
    let mut heard = 0;
    let answered = async {
        loop {
            tokio::select! {
                _ = beat(&mut host) => heard += 1,
                event = guest.select_next_some() => match event {
                    SwarmEvent::ConnectionEstablished { peer_id, .. } => drop(guest.behaviour_mut().send_request(&peer_id, ())),
                    SwarmEvent::Behaviour(request_response::Event::Message { .. }) => return,
                    SwarmEvent::Behaviour(other) => panic!("{other:?}"),
                    _ => {}
                },
            }
        }
    };
    timeout(PATIENCE, answered).await.expect("answered");
    assert!((1..10).contains(&heard), "heard {heard} times");
}
