//! A neighbour that beats and does not read what it is sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite, StreamExt};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};
use libp2p::identity::Keypair;
use libp2p::swarm::SwarmEvent;
use libp2p::{Swarm, Transport};
use tokio::time::{Instant, timeout};

use crate::net::behaviour::{Behaviour, BehaviourEvent};
use crate::net::data_dir::DataDir;
use crate::net::gossip;
use crate::net::lanes::Lanes;
use crate::net::transport;
use crate::wire::frame::shard_of;
use crate::wire::node_key::NodeKey;
use crate::wire::roster::{Interest, RosterRecord};
use crate::wire::rpc::Request;
use crate::{Bytes, MeshChoice, Node, RawTopic};

const SOON: Duration = Duration::from_secs(60);
/// More than beats or any small exchange takes, less than one full frame.
const TASTE: usize = 16 * 1024;

/// A connection on which every stream is read only so far.
struct Reluctant {
    muxer: StreamMuxerBox,
    /// How many streams have not been read to their end.
    unread: Arc<AtomicUsize>,
}

struct Unread {
    stream: SubstreamBox,
    read: usize,
    unread: Arc<AtomicUsize>,
}

impl Reluctant {
    fn wrap(&self, stream: Poll<io::Result<SubstreamBox>>) -> Poll<io::Result<Unread>> {
        stream.map_ok(|stream| Unread { stream, read: 0, unread: Arc::clone(&self.unread) })
    }
}

impl StreamMuxer for Reluctant {
    type Substream = Unread;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Unread>> {
        let stream = Pin::new(&mut self.muxer).poll_inbound(context);
        self.wrap(stream)
    }

    fn poll_outbound(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<Unread>> {
        let stream = Pin::new(&mut self.muxer).poll_outbound(context);
        self.wrap(stream)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.muxer).poll_close(context)
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.muxer).poll(context)
    }
}

impl AsyncRead for Unread {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.read >= TASTE {
            self.unread.fetch_add(1, Ordering::Relaxed);
            return Poll::Pending;
        }
        let room = buffer.len().min(TASTE - self.read);
        let read = Pin::new(&mut self.stream).poll_read(context, &mut buffer[..room]);
        if let Poll::Ready(Ok(length)) = read {
            self.read += length;
        }
        read
    }
}

impl AsyncWrite for Unread {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_that_beats_and_reads_nothing_is_let_go() {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        if cfg!(feature = "quic") || listen.contains("tcp") {
            let_go(listen).await;
        }
    }
}

async fn let_go(listen: &str) {
    let data = tempfile::tempdir().unwrap();
    let builder = Node::builder().name("publisher").mesh(MeshChoice::Named("test".to_owned())).data_dir(data.path());
    let node = builder.mdns(false).local(false).listen(listen.parse().unwrap()).start().await.unwrap();
    let access = DataDir::open(Some(data.path())).unwrap().mesh("test").unwrap();

    // A member of the mesh that listens, as far as anybody can tell.
    let key = Keypair::generate_ed25519();
    let me = key.public().to_peer_id();
    let unread = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&unread);
    let reluctant = Transport::map(transport::transport(&key, &access).unwrap(), move |(peer, muxer), _| {
        (peer, StreamMuxerBox::new(Reluctant { muxer, unread: Arc::clone(&count) }))
    });
    let (behaviour, _) = Behaviour::new(me, access.id, false, Lanes::alone(access.id)).unwrap();
    let mut swarm = Swarm::new(reluctant.boxed(), behaviour, me, transport::swarm_config());
    let topic = gossip::shard_topic(access.id, shard_of("stuck.numbers")).unwrap();
    swarm.behaviour_mut().gossip.subscribe(&topic).unwrap();
    let record = RosterRecord {
        node: NodeKey::of(&me).unwrap(),
        incarnation: 1,
        version: 1,
        time: u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap(),
        left: false,
        relay: false,
        name: "reluctant".to_owned(),
        addresses: Vec::new(),
        interests: vec![Interest { pattern: "stuck.>".to_owned(), group: None }],
        services: Vec::new(),
        extensions: Vec::new(),
    };
    let records = vec![record.sign(access.id, &key).unwrap().bytes];
    swarm.dial(node.addresses()[0].clone()).unwrap();

    let publisher = node.publisher(RawTopic::parse("stuck.numbers").unwrap());
    let publishing = async move {
        publisher.ready(1).await.unwrap();
        let started = Instant::now();
        while publisher.publish(&Bytes::from(vec![7; 50_000])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if started.elapsed() > SOON {
                break;
            }
        }
    };
    let mut beats = 0;
    let mut began = None;
    let ending = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                    let request = Request::Push { records: records.clone(), extensions: Vec::new() };
                    swarm.behaviour_mut().rpc.send_request(&peer_id, request.into());
                    began = Some(Instant::now());
                }
                // What it asks of us stays without an answer: nobody is at home.
                SwarmEvent::Behaviour(BehaviourEvent::Pulse(_)) => beats += 1,
                SwarmEvent::ConnectionClosed { .. } => return,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = publishing => panic!("over {listen} it is never let go"),
        () = ending => {}
    }
    let took = began.unwrap().elapsed();
    assert!(unread.load(Ordering::Relaxed) > 0, "there was something that it did not read");
    assert!(beats > 0 && took > Duration::from_secs(4), "it is not for silence: {beats} beats in {took:?}");
    let unlinked = async { while node.status().await.unwrap().tables.links > 0 {} };
    timeout(SOON, unlinked).await.unwrap_or_else(|_| panic!("over {listen} the link stays"));
}
