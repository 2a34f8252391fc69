//! Strangers of all kinds, each played by hand on a bare connection, against a node behind its gate.

use futures::StreamExt;
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::{Endpoint, muxing::StreamMuxerBox};
use libp2p::identity::Keypair;
use libp2p::swarm::{SwarmEvent, dummy};
use libp2p::{Swarm, Transport};
use tokio::time::timeout;

use super::*;
use crate::net::transport::{swarm_config, transport, ungated};

const PATIENCE: Duration = Duration::from_secs(20);

fn mesh() -> MeshAccess {
    MeshAccess::private("home", [7; 32])
}

async fn host(address: &str) -> (Swarm<dummy::Behaviour>, Multiaddr) {
    let keypair = Keypair::generate_ed25519();
    let own = keypair.public().to_peer_id();
    let mut host = Swarm::new(transport(&keypair, &mesh()).unwrap(), dummy::Behaviour, own, swarm_config());
    host.listen_on(address.parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = host.select_next_some().await {
            break address;
        }
    };
    (host, address)
}

/// Who dials the host without a gate, and does as it pleases.
struct Stranger {
    gate: Gate,
    host: PeerId,
    link: Link,
}

impl Stranger {
    async fn dial(address: Multiaddr) -> Self {
        let keypair = Keypair::generate_ed25519();
        let mut transport = ungated(&keypair).unwrap();
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let (host, muxer): (PeerId, StreamMuxerBox) = transport.dial(address, opts).unwrap().await.unwrap();
        let gate = Gate::new(keypair.public().to_peer_id(), &mesh());
        Self { gate, host, link: Link::new(muxer, PATIENCE) }
    }

    /// Writes the same byte after `first` until the other side has enough, and says how many bytes were taken.
    async fn flood(address: Multiaddr, first: u8) -> usize {
        let mut this = Self::dial(address).await;
        let mut stream = this.link.open().await.unwrap();
        let mut taken = 0;
        let mut chunk = vec![first];
        while let Ok(written) = this.link.drive(async { stream.write(&chunk).await }).await {
            taken += written;
            chunk = vec![first; 16 * 1024];
        }
        taken
    }

    /// Sends this and waits for the end.
    async fn send(address: Multiaddr, bytes: impl Fn(&Self) -> Vec<u8>) {
        let mut this = Self::dial(address).await;
        let bytes = bytes(&this);
        let mut stream = this.link.open().await.unwrap();
        let _ = this.link.drive(async { stream.write_all(&bytes).await }).await;
        let _ = this.link.drive(std::future::pending::<io::Result<()>>()).await;
    }

    /// A member in every respect, but for its verdict.
    async fn answer(address: Multiaddr, verdict: u8) -> io::Result<u8> {
        let mut this = Self::dial(address).await;
        let mut ours = this.link.open().await?;
        let hello = this.gate.hello(this.host);
        this.link.drive(async { ours.write_all(&hello).await }).await?;
        let mut theirs = this.link.accept().await?;
        let _: [u8; HELLO_REST + 1] = this.link.drive(read_array(&mut theirs)).await?;
        this.link.drive(swap_verdicts(&mut theirs, verdict, &mut ours)).await
    }

    /// Is of another version, gives its own verdict, and does not read the host's until that has had time to go away.
    async fn read_late(address: Multiaddr) -> io::Result<u8> {
        let mut this = Self::dial(address).await;
        let mut ours = this.link.open().await?;
        let hello = this.later_hello();
        this.link.drive(async { ours.write_all(&hello).await }).await?;
        let mut theirs = this.link.accept().await?;
        let _: [u8; HELLO_REST + 1] = this.link.drive(read_array(&mut theirs)).await?;
        this.link.drive(async { theirs.write_all(&[REFUSED]).await }).await?;
        this.link.drive(async { theirs.close().await }).await?;
        let ended =
            timeout(Duration::from_millis(300), this.link.drive(std::future::pending::<io::Result<()>>())).await;
        assert!(ended.is_err(), "the host did not wait until its verdict was read: {ended:?}");
        let [verdict] = this.link.drive(read_array(&mut ours)).await?;
        Ok(verdict)
    }

    /// Is of another version, and opens more streams before it says so. Says whether it kept them, and the host's verdict.
    async fn crowd(address: Multiaddr) -> (bool, io::Result<u8>) {
        let mut this = Self::dial(address).await;
        let mut ours = this.link.open().await.unwrap();
        let hello = this.later_hello();
        let (first, rest) = hello.split_at(1);
        this.link.drive(async { ours.write_all(first).await }).await.unwrap();
        let mut kept = false;
        for _ in 0..20 {
            let mut beside = this.link.open().await.unwrap();
            // The host may have refused the stream before all of this is written.
            let _ = this.link.drive(async { beside.write_all(&[0; 16 * 1024]).await }).await;
            let refused = this.link.drive(async { beside.read(&mut [0]).await });
            kept |= timeout(BUDGET / 2, refused).await.is_err();
        }
        let verdict = async {
            this.link.drive(async { ours.write_all(rest).await }).await?;
            let mut theirs = this.link.accept().await?;
            let _: [u8; HELLO_REST + 1] = this.link.drive(read_array(&mut theirs)).await?;
            this.link.drive(swap_verdicts(&mut theirs, REFUSED, &mut ours)).await
        };
        (kept, verdict.await)
    }

    fn later_hello(&self) -> Vec<u8> {
        let mut hello = self.gate.hello(self.host);
        hello[0] = VERSION + 1;
        hello
    }
}

/// What the host says of the connection that comes next. It must never become one.
async fn refused(host: &mut Swarm<dummy::Behaviour>) -> TurnedAway {
    let refusal = async {
        loop {
            let event = host.select_next_some().await;
            assert!(!matches!(event, SwarmEvent::ConnectionEstablished { .. }), "let in: {event:?}");
            if let SwarmEvent::IncomingConnectionError { error, .. } = event {
                return error;
            }
        }
    };
    let error = timeout(PATIENCE, refusal).await.unwrap();
    // The error cannot be taken out of its layers: say once more what it says.
    match &refused_listen(&error).unwrap_or_else(|| panic!("not the gate: {error:?}")).reason {
        TurnedAway::OtherMesh { theirs_open } => TurnedAway::OtherMesh { theirs_open: *theirs_open },
        TurnedAway::OtherVersion { theirs } => TurnedAway::OtherVersion { theirs: *theirs },
        TurnedAway::NotPombo => TurnedAway::NotPombo,
        TurnedAway::TimedOut => TurnedAway::TimedOut,
        TurnedAway::ByThem => TurnedAway::ByThem,
        TurnedAway::Broken(error) => TurnedAway::Broken(io::Error::other(error.to_string())),
    }
}

#[tokio::test]
async fn garbage_without_end_is_cut_off() {
    for first in [0_u8, 19, b'G', 0xff] {
        let (mut host, address) = host("/memory/0").await;
        let (reason, taken) = tokio::join!(refused(&mut host), Stranger::flood(address, first));
        assert!(matches!(reason, TurnedAway::NotPombo), "{reason}");
        // The window of one stream, and what lies in the pipes.
        assert!(taken <= 512 * 1024, "{taken} bytes taken");
    }
}

#[tokio::test]
async fn a_hello_without_end_is_cut_off() {
    let (mut host, address) = host("/memory/0").await;
    let (reason, taken) = tokio::join!(refused(&mut host), Stranger::flood(address, VERSION));
    assert!(matches!(reason, TurnedAway::OtherMesh { .. }), "{reason}");
    assert!(taken <= 512 * 1024, "{taken} bytes taken");
}

#[tokio::test]
async fn half_a_hello_costs_no_more_than_the_budget() {
    let (mut host, address) = host("/memory/0").await;
    let started = Instant::now();
    let (reason, ()) = tokio::join!(refused(&mut host), Stranger::send(address, |_| vec![VERSION, 0, 1, 2, 3]));
    assert!(matches!(reason, TurnedAway::TimedOut), "{reason}");
    assert!(started.elapsed() < BUDGET + Duration::from_millis(500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_later_version_is_told_apart_from_a_stranger() {
    let (mut host, address) = host("/memory/0").await;
    let (reason, ()) = tokio::join!(refused(&mut host), Stranger::send(address, Stranger::later_hello));
    assert!(matches!(reason, TurnedAway::OtherVersion { theirs: 2 }), "{reason}");
}

/// To drop the connection at once could take the verdict with it: over QUIC the end overtakes what is on its way.
#[tokio::test]
async fn a_refused_peer_reads_the_verdict_in_its_own_time() {
    let mut addresses = vec!["/memory/0", "/ip4/127.0.0.1/tcp/0"];
    addresses.extend(cfg!(feature = "quic").then_some("/ip4/127.0.0.1/udp/0/quic-v1"));
    for address in addresses {
        let (mut host, address) = host(address).await;
        let started = Instant::now();
        let (reason, verdict) = tokio::join!(refused(&mut host), Stranger::read_late(address.clone()));
        assert!(matches!(reason, TurnedAway::OtherVersion { .. }), "{address}: {reason}");
        assert_eq!(verdict.unwrap(), REFUSED, "{address}");
        assert!(started.elapsed() < BUDGET, "{address}: the host waited for nobody");
    }
}

#[tokio::test]
async fn streams_beside_the_hello_are_refused() {
    let mut addresses = vec!["/memory/0", "/ip4/127.0.0.1/tcp/0"];
    addresses.extend(cfg!(feature = "quic").then_some("/ip4/127.0.0.1/udp/0/quic-v1"));
    for address in addresses {
        let (mut host, address) = host(address).await;
        let (reason, (kept, verdict)) = tokio::join!(refused(&mut host), Stranger::crowd(address.clone()));
        assert!(!kept, "{address}");
        assert!(matches!(reason, TurnedAway::OtherVersion { .. }), "{address}: {reason}");
        assert_eq!(verdict.unwrap(), REFUSED, "{address}");
    }
}

#[tokio::test]
async fn a_member_that_refuses_us_is_not_let_in() {
    let (mut host, address) = host("/memory/0").await;
    let (reason, answer) = tokio::join!(refused(&mut host), Stranger::answer(address, REFUSED));
    assert!(matches!(reason, TurnedAway::ByThem), "{reason}");
    assert_eq!(answer.unwrap(), ACCEPTED);
}

#[test]
fn a_tag_proves_one_sender_to_one_receiver() {
    let [a, b, c] = std::array::from_fn(|_| PeerId::random());
    let gate = Gate::new(a, &mesh());
    assert_eq!(gate.tag(a, b), Gate::new(b, &mesh()).tag(a, b));
    assert_ne!(gate.tag(a, b), gate.tag(b, a), "it could be reflected");
    assert_ne!(gate.tag(a, b), gate.tag(a, c), "it could be replayed");
    assert_ne!(gate.tag(a, b), Gate::new(a, &MeshAccess::open()).tag(a, b));
}
