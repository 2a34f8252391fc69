//! Strangers in processes of their own, on whatever host they are started: this binary once more, as the ignored test below.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{AsyncWriteExt as _, StreamExt};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt};
use libp2p::core::transport::{Boxed, DialOpts, PortUse};
use libp2p::core::upgrade::Version;
use libp2p::core::{Endpoint, Transport as _};
use libp2p::identity::Keypair;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle};
use libp2p::{Multiaddr, PeerId, Swarm, mdns, noise, ping, swarm, tcp, yamux};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use super::network::Host;
use super::process::Process;

/// Where the job of such a process stands.
const JOB: &str = "POMBO_TEST_STRANGER";

/// What such a process does until it is killed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Stranger {
    /// Speaks libp2p and is found by multicast DNS. Says `started`, and `dialled` for every connection that comes.
    Peer {
        listen: Vec<String>,
        mdns: bool,
        /// Opens no stream of its own, so that it never says what it is.
        mute: bool,
    },
    /// Dials that address again and again, each time as somebody else.
    Knocker { address: String, per_second: u64 },
    /// Keeps so many connections to that address half open: in equal parts, some say nothing, some stop in the middle of
    /// the encryption's handshake, and some in the middle of the gate's. Says `open` when all were open once.
    HalfOpen { address: String, count: usize },
    /// Answers by multicast DNS for nodes that are not there, at a port of its own that leads nowhere. Says `sent` every
    /// second, with how many it sent and how many dials came.
    Flood { from: String, per_second: u64 },
}

impl Stranger {
    pub(crate) fn start(&self, host: &Host) -> Process {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &host.namespace]).arg(std::env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "--nocapture", "support::stranger::works"]);
        command.env(JOB, serde_json::to_string(self).unwrap());
        Process::start(command)
    }
}

fn say(line: &serde_json::Value) {
    // The harness has begun a line of its own.
    println!("\n{line}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process that other tests start"]
async fn works() {
    let Ok(job) = std::env::var(JOB) else { return };
    match serde_json::from_str(&job).unwrap() {
        Stranger::Peer { listen, mdns, mute } => peer(listen, mdns, mute).await,
        Stranger::Knocker { address, per_second } => knock(&address, per_second).await,
        Stranger::HalfOpen { address, count } => half_open(&address, count).await,
        Stranger::Flood { from, per_second } => flood(&from, per_second).await,
    }
}

#[derive(NetworkBehaviour)]
struct Protocols {
    ping: Toggle<ping::Behaviour>,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

fn transport(key: &Keypair) -> Boxed<(PeerId, StreamMuxerBox)> {
    let streams = tcp::tokio::Transport::default()
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    #[cfg(feature = "quic")]
    let streams = libp2p::quic::tokio::Transport::new(libp2p::quic::Config::new(key))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .or_transport(streams)
        .map(|either, _| either.into_inner());
    streams.boxed()
}

async fn peer(listen: Vec<String>, mdns: bool, mute: bool) {
    let key = Keypair::generate_ed25519();
    let own = key.public().to_peer_id();
    let mdns = mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), own).unwrap());
    let ping = (!mute).then(ping::Behaviour::default);
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
    let mut swarm = Swarm::new(transport(&key), Protocols { ping: ping.into(), mdns: mdns.into() }, own, config);
    for address in listen {
        swarm.listen_on(address.parse().unwrap()).unwrap();
    }
    say(&json!({ "event": "started", "peer": own.to_string() }));
    loop {
        if let SwarmEvent::IncomingConnection { local_addr, .. } = swarm.select_next_some().await {
            say(&json!({ "event": "dialled", "at": local_addr.to_string() }));
        }
    }
}

async fn knock(address: &str, per_second: u64) {
    let address: Multiaddr = address.parse().unwrap();
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / per_second));
    loop {
        pace.tick().await;
        let address = address.clone();
        tokio::spawn(async move {
            let (_, muxer) = dial(&address).await?;
            // It says that it is something else, and stays for as long as it may.
            let mut muxer = muxer;
            let mut stream = std::future::poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await.ok()?;
            let greeting = async {
                let _ = stream.write_all(b"\x13/multistream/1.0.0\n").await;
                let _ = stream.flush().await;
                std::future::pending::<()>().await;
            };
            tokio::select! { () = greeting => {}, () = ended(&mut muxer) => {} }
            Some(())
        });
    }
}

async fn dial(address: &Multiaddr) -> Option<(PeerId, StreamMuxerBox)> {
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    transport(&Keypair::generate_ed25519()).dial(address.clone(), options).ok()?.await.ok()
}

/// Drives a connection until it has ended.
async fn ended(muxer: &mut StreamMuxerBox) {
    while std::future::poll_fn(|cx| muxer.poll_unpin(cx)).await.is_ok() {}
}

async fn half_open(address: &str, count: usize) {
    let parts: Vec<_> = address.split('/').collect();
    let socket: SocketAddr = format!("{}:{}", parts[2], parts[4]).parse().unwrap();
    let multiaddr: Multiaddr = address.parse().unwrap();
    let opened = Arc::new(AtomicU64::new(0));
    for number in 0..count {
        let (multiaddr, opened) = (multiaddr.clone(), Arc::clone(&opened));
        tokio::spawn(async move {
            let mut first = true;
            let mut pace = tokio::time::interval(Duration::from_secs(1));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                pace.tick().await;
                let count = || {
                    opened.fetch_add(u64::from(std::mem::take(&mut first)), Ordering::Relaxed);
                };
                match number % 3 {
                    0 => stop_after(socket, b"", count).await,
                    // Noise is agreed on, and half of its first message's length is said.
                    1 => stop_after(socket, b"\x13/multistream/1.0.0\n\x07/noise\n\x00", count).await,
                    _ => stop_at_the_gate(&multiaddr, count).await,
                };
            }
        });
    }
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    while opened.load(Ordering::Relaxed) < count as u64 {
        pace.tick().await;
    }
    say(&json!({ "event": "open" }));
    std::future::pending::<()>().await;
}

/// Says that much, and then nothing until the other side hangs up.
async fn stop_after(socket: SocketAddr, words: &[u8], opened: impl FnOnce()) -> Option<()> {
    let mut stream = TcpStream::connect(socket).await.ok()?;
    opened();
    stream.write_all(words).await.ok()?;
    let mut heard = [0; 1024];
    while stream.read(&mut heard).await.ok()? > 0 {}
    Some(())
}

async fn stop_at_the_gate(address: &Multiaddr, opened: impl FnOnce()) -> Option<()> {
    let dialled = dial(address).await;
    opened();
    let (_, mut muxer) = dialled?;
    let mut stream = std::future::poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await.ok()?;
    let greeting = async {
        let _ = stream.write_all(&[1, 1, 7, 7, 7]).await;
        let _ = stream.flush().await;
        std::future::pending::<()>().await;
    };
    tokio::select! { () = greeting => {}, () = ended(&mut muxer) => {} }
    Some(())
}

async fn flood(from: &str, per_second: u64) {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dials = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dials);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(stream);
        }
    });
    let socket = UdpSocket::bind((from, 0)).unwrap();
    let mut sent = 0_u64;
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    let mut told = Instant::now();
    loop {
        pace.tick().await;
        for _ in 0..per_second / 100 {
            sent += 1;
            let _ = socket.send_to(&answer(sent, port), "224.0.0.251:5353");
        }
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            say(&json!({ "event": "sent", "answers": sent, "dials": dials.load(Ordering::Relaxed) }));
        }
    }
}

/// What libp2p takes for the word of a node that listens on that port.
fn answer(number: u64, port: u16) -> Vec<u8> {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    // Any 32 bytes are an Ed25519 key as far as an id is concerned.
    let id = [&[0, 36, 8, 1, 18, 32][..], &seed].concat();
    let peer = PeerId::from_bytes(&id).unwrap();
    let name = |labels: &[&str]| {
        let mut bytes: Vec<u8> =
            labels.iter().flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
        bytes.push(0);
        bytes
    };
    let service = name(&["_p2p", "_udp", "local"]);
    let instance = name(&[&format!("n{number}"), "_p2p", "_udp", "local"]);
    let text = format!("dnsaddr=/ip4/10.77.0.9/tcp/{port}/p2p/{peer}");
    let text = [&[text.len() as u8], text.as_bytes()].concat();
    let record = |name: &[u8], kind: u8, data: &[u8]| {
        let length = (data.len() as u16).to_be_bytes();
        // Class IN, and to be kept for a day.
        [name, &[0, kind, 0, 1], &86_400_u32.to_be_bytes(), &length, data].concat()
    };
    let header = [0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    [&header[..], &record(&service, 12, &instance), &record(&instance, 16, &text)].concat()
}
