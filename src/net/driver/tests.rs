//! Live nodes and a peer that is a member like any other, passes the gate, and then does as it pleases.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, Message as Exchange, OutboundRequestId, ProtocolSupport};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm};
use tokio::time::timeout;

use crate::net::access::MeshAccess;
use crate::net::pulse::Pulse;
use crate::net::rpc;
use crate::net::transport::{swarm_config, transport};
use crate::wire::MeshId;
use crate::wire::frame::{Channel, FrameBuilder, MAX_FRAME, Outbound, Place, Stream, gossip_topic, shard_of};
use crate::wire::node_key::{NodeKey, SIGNATURE};
use crate::wire::roster::RosterRecord;
use crate::wire::rpc::{Call, Position, ReplyStatus, Request, Response, StreamRef};
use crate::{Headers, MeshChoice, Node, Raw, RawPattern, RawService, RawTopic, RecvError, Subscriber};

const PATIENCE: Duration = Duration::from_secs(30);
/// How many offences are too many, at once.
const TOO_MANY: usize = 100;

/// A node in the open mesh that looks for nobody.
async fn node(name: &str, peer: Option<&Node>) -> Node {
    let mut builder = Node::builder().mesh(MeshChoice::Open).short_lived(false).mdns(false).local(false);
    builder = builder.name(name).listen("/ip4/127.0.0.1/tcp/0".parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    builder = builder.key(dir.path().join("key"));
    if let Some(peer) = peer {
        builder = builder.peer(address(peer));
    }
    builder.start().await.unwrap()
}

fn address(node: &Node) -> Multiaddr {
    node.addresses().first().unwrap().clone()
}

async fn subscribed(node: &Node, pattern: &str) -> Subscriber<Bytes, Raw> {
    node.subscribe(RawPattern::parse(pattern).unwrap()).await.unwrap()
}

/// Two linked nodes that both listen to `demo.>`, and that each knows of the other.
async fn pair() -> [(Node, Subscriber<Bytes, Raw>); 2] {
    let a = node("victim", None).await;
    let b = node("bystander", Some(&a)).await;
    b.ready(1).await.unwrap();
    let (from_a, from_b) = (subscribed(&a, "demo.>").await, subscribed(&b, "demo.>").await);
    [(a, from_a), (b, from_b)]
}

async fn publish(node: &Node, text: &'static str) {
    node.publish(RawTopic::parse("demo.text").unwrap(), &Bytes::from(text)).min_peers(1).await.unwrap();
}

/// The next message, or the number of those missed.
async fn next(subscriber: &mut Subscriber<Bytes, Raw>) -> String {
    match timeout(PATIENCE, subscriber.next()).await.expect("something in time").expect("the node runs") {
        Ok(message) => String::from_utf8_lossy(&message).into_owned(),
        Err(RecvError::Lagged { missed, exact }) => format!("missed {missed}, exact {exact}"),
        Err(error) => panic!("{error}"),
    }
}

/// Writes bytes to gossipsub as they are, and reads what gossipsub has to say without a word.
#[derive(Clone, Default)]
struct Raw11;

impl request_response::Codec for Raw11 {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = ();

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        let mut heard = [0; 4096];
        while io.read(&mut heard).await? > 0 {}
        Ok(Vec::new())
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<()> {
        Ok(())
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await?;
        io.flush().await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        (): (),
    ) -> io::Result<()> {
        Ok(())
    }
}

#[derive(NetworkBehaviour)]
struct Protocols {
    pulse: Pulse,
    gossip: request_response::Behaviour<Raw11>,
    rpc: rpc::Behaviour,
}

/// The peer.
struct Hostile {
    swarm: Swarm<Protocols>,
    key: Keypair,
    mesh: MeshId,
    victim: PeerId,
    incarnation: u64,
    /// Connections that came about, and that ended.
    linked: usize,
    ended: usize,
    answers: VecDeque<(OutboundRequestId, Result<Response, String>)>,
}

impl Hostile {
    /// Linked to the victim.
    async fn of(victim: &Node) -> Self {
        let (key, mesh) = (Keypair::generate_ed25519(), MeshAccess::open());
        let gossip = [(StreamProtocol::new("/meshsub/1.1.0"), ProtocolSupport::Full)];
        let patient = request_response::Config::default().with_request_timeout(PATIENCE * 10);
        let behaviour = Protocols {
            pulse: Pulse::new(),
            gossip: request_response::Behaviour::with_codec(Raw11, gossip, patient),
            rpc: rpc::behaviour(mesh.id),
        };
        let own = key.public().to_peer_id();
        let swarm = Swarm::new(transport(&key, &mesh).unwrap(), behaviour, own, swarm_config());
        let (linked, ended, answers) = (0, 0, VecDeque::new());
        let victim_is = victim.peer_id();
        let mut hostile =
            Self { swarm, key, mesh: mesh.id, victim: victim_is, incarnation: 10, linked, ended, answers };
        hostile.dial(victim).await;
        hostile
    }

    async fn dial(&mut self, victim: &Node) {
        let wanted = self.linked + 1;
        let dial = DialOpts::peer_id(self.victim).addresses(vec![address(victim)]).condition(PeerCondition::Always);
        self.swarm.dial(dial.build()).unwrap();
        self.until("the link", |this| this.linked == wanted).await;
    }

    /// Lives on while something else happens.
    async fn during<T>(&mut self, what: &str, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let both = async {
            loop {
                tokio::select! {
                    done = &mut work => return done,
                    event = self.swarm.select_next_some() => self.note(event),
                }
            }
        };
        timeout(PATIENCE, both).await.unwrap_or_else(|_| panic!("{what} did not come"))
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is_so(self) {
                let event = self.swarm.select_next_some().await;
                self.note(event);
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what} did not come"));
    }

    fn note(&mut self, event: SwarmEvent<ProtocolsEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { .. } => self.linked += 1,
            SwarmEvent::ConnectionClosed { .. } => self.ended += 1,
            SwarmEvent::Behaviour(ProtocolsEvent::Rpc(request_response::Event::Message { message, .. })) => {
                match message {
                    // Polite where it costs nothing.
                    Exchange::Request { request, channel, .. } => {
                        let (buckets, summaries, extensions) = (Vec::new(), Vec::new(), Vec::new());
                        let answer = match request.body {
                            Request::Digest { .. } => Response::Differ { buckets, summaries, extensions },
                            _ => Response::done(),
                        };
                        let _ = self.swarm.behaviour_mut().rpc.send_response(channel, answer.into());
                    }
                    Exchange::Response { request_id, response } => {
                        self.answers.push_back((request_id, Ok(response.body)));
                    }
                }
            }
            SwarmEvent::Behaviour(ProtocolsEvent::Rpc(request_response::Event::OutboundFailure {
                request_id,
                error,
                ..
            })) => self.answers.push_back((request_id, Err(error.to_string()))),
            _ => {}
        }
    }

    /// Sends gossip: all of it on one stream. A connection stands five of them.
    fn gossip(&mut self, rpcs: impl IntoIterator<Item = Vec<u8>>) {
        let bytes = rpcs.into_iter().flat_map(|rpc| delimited(&rpc)).collect();
        self.swarm.behaviour_mut().gossip.send_request(&self.victim, bytes);
    }

    async fn ask(&mut self, request: Request) -> Result<Response, String> {
        let asked = self.swarm.behaviour_mut().rpc.send_request(&self.victim, request.into());
        self.until("an answer", |this| this.answers.iter().any(|(id, _)| *id == asked)).await;
        let at = self.answers.iter().position(|(id, _)| *id == asked).unwrap();
        self.answers.remove(at).unwrap().1
    }

    fn place(&self, sequence: u64) -> Place {
        let channel = Channel::Shard(shard_of("demo"));
        let stream = Stream { node: self.key.public().to_peer_id(), incarnation: self.incarnation, channel };
        Place { stream, sequence, count: sequence, attempt: 0, start: [7; 8] }
    }

    /// A frame of one message, at this place.
    fn frame_at(&self, place: Place, text: &str) -> Vec<u8> {
        frame(place, text, now(), self.mesh, &self.key)
    }

    fn frame(&self, sequence: u64, text: &str) -> Vec<u8> {
        self.frame_at(self.place(sequence), text)
    }

    fn demo(&self) -> String {
        gossip_topic(self.mesh, shard_of("demo"))
    }

    /// A gossip message on the shard of `demo`.
    fn said(&self, frame: &[u8]) -> Vec<u8> {
        message(&self.demo(), frame)
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    u64::try_from(since.as_micros()).unwrap()
}

fn frame(place: Place, text: &str, time: u64, mesh: MeshId, key: &Keypair) -> Vec<u8> {
    let mut builder = FrameBuilder::default();
    let message = Outbound {
        topic: "demo.text",
        content_type: "",
        headers: &Headers::default(),
        choices: &[],
        counter: place.sequence,
        time,
        fragment: None,
        payload: text.as_bytes(),
    };
    builder.push(&message).unwrap();
    builder.sign(place, mesh, key).unwrap().bytes.to_vec()
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

fn delimited(bytes: &[u8]) -> Vec<u8> {
    [&varint(bytes.len()), bytes].concat()
}

/// A field of protobuf that has a length.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], delimited(bytes)].concat()
}

/// What gossipsub calls an RPC, with one message.
fn message(topic: &str, data: &[u8]) -> Vec<u8> {
    field(2, &[field(2, data), field(4, topic.as_bytes())].concat())
}

/// One subscription of such an RPC.
fn subscription(topic: &str) -> Vec<u8> {
    field(1, &[vec![8, 1], field(2, topic.as_bytes())].concat())
}

/// Every kind of frame that nobody else can have signed.
fn forgeries(hostile: &Hostile, other: &Node) -> Vec<Vec<u8>> {
    let good = hostile.frame(1, "forged");
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let anothers = Place { stream: Stream { node: other.peer_id(), ..hostile.place(1).stream }, ..hostile.place(1) };
    let foreign = MeshAccess::private("other", [7; 32]).id;
    vec![
        hostile.said(&flipped(good.len() - 1)),
        hostile.said(&flipped(good.len() - SIGNATURE - 1)),
        hostile.said(&flipped(40)),
        hostile.said(&hostile.frame_at(anothers, "another's")),
        hostile.said(&frame(hostile.place(1), "of another mesh", now(), foreign, &hostile.key)),
        hostile.said(&good[..good.len() - 1]),
        hostile.said(&[&good[..], &[0]].concat()),
        hostile.said(&[]),
        hostile.said(&[1, 1]),
        hostile.said(&vec![1; MAX_FRAME + 1]),
        // Sound, but on another shard's topic.
        message(&gossip_topic(hostile.mesh, shard_of("other")), &good),
    ]
}

#[tokio::test]
async fn forged_frames_are_neither_delivered_nor_passed_on_and_put_their_sender_out() {
    let [(victim, mut at_victim), (bystander, mut at_bystander)] = pair().await;
    assert_ne!(shard_of("other"), shard_of("demo"));
    let _other = (subscribed(&victim, "other.>").await, subscribed(&bystander, "other.>").await);
    let mut hostile = Hostile::of(&victim).await;
    let forged = forgeries(&hostile, &bystander);
    let with_source = field(
        2,
        &[field(1, &hostile.victim.to_bytes()), field(2, &hostile.frame(1, "x")), field(4, hostile.demo().as_bytes())]
            .concat(),
    );
    let end = hostile.said(&hostile.frame(1, "end"));
    hostile.gossip(forged.clone().into_iter().chain([with_source, end]));
    assert_eq!(hostile.during("the end", next(&mut at_victim)).await, "end");
    assert_eq!(hostile.during("the end", next(&mut at_bystander)).await, "end", "and it was passed on");
    assert_eq!(hostile.ended, 0, "some are forgiven");

    // Each is another one, or gossipsub would drop it as known.
    let more = (0..2 * TOO_MANY).map(|n| hostile.said(&[&[1, 1], n.to_string().as_bytes(), &[0; 100]].concat()));
    let more: Vec<_> = more.collect();
    hostile.gossip(more);
    hostile.until("its end", |this| this.ended == 1).await;
    hostile.dial(&victim).await;
    hostile.until("its end", |this| this.ended == 2).await;
    publish(&bystander, "still here").await;
    assert_eq!(next(&mut at_victim).await, "still here");
    let status = victim.status().await.unwrap();
    let linked = status.peers.iter().filter(|peer| peer.links > 0).map(|peer| peer.peer);
    assert_eq!(linked.collect::<Vec<_>>(), [bystander.peer_id()]);
}

#[tokio::test]
async fn a_stream_out_of_order_is_put_in_order_or_told_and_its_past_is_not_heard_again() {
    let [(victim, mut at_victim), _bystander] = pair().await;
    let mut hostile = Hostile::of(&victim).await;
    let again = Place { attempt: 1, ..hostile.place(1) };
    let far = (1 << 63) - 2;
    let frames = [
        hostile.frame(1, "one"),
        hostile.frame(1, "one"),
        hostile.frame_at(again, "one"),
        hostile.frame(2, "two"),
        hostile.frame(2, "zwei"),
        hostile.frame(1, "eins"),
        hostile.frame(5, "five"),
        hostile.frame(4, "late"),
    ];
    hostile.gossip(frames.map(|frame| hostile.said(&frame)));
    for wanted in ["one", "two", "missed 1, exact false", "late", "five"] {
        assert_eq!(hostile.during(wanted, next(&mut at_victim)).await, wanted);
    }
    hostile.gossip([hostile.said(&hostile.frame(far, "far")), hostile.said(&hostile.frame(3, "too late"))]);
    let missed = format!("missed {}, exact false", far - 6);
    for wanted in [missed.as_str(), "far"] {
        assert_eq!(hostile.during(wanted, next(&mut at_victim)).await, wanted);
    }

    // A later start, of which the roster tells.
    let old = hostile.said(&hostile.frame(far + 1, "of the earlier start"));
    hostile.incarnation += 1;
    let record = RosterRecord {
        node: NodeKey::of(&hostile.key.public().to_peer_id()).unwrap(),
        incarnation: hostile.incarnation,
        version: 1,
        time: now(),
        left: false,
        relay: false,
        name: "hostile".into(),
        addresses: Vec::new(),
        interests: Vec::new(),
        services: Vec::new(),
        extensions: Vec::new(),
    };
    let record = record.sign(hostile.mesh, &hostile.key).unwrap().bytes;
    hostile.ask(Request::Push { records: vec![record], extensions: Vec::new() }).await.unwrap();
    let stranger = Keypair::generate_ed25519();
    let stream = Stream { node: stranger.public().to_peer_id(), ..hostile.place(1).stream };
    let of = |time| frame(Place { stream, ..hostile.place(1) }, "of long ago", time, hostile.mesh, &stranger);
    let long_ago = hostile.said(&of(now() - 3_600_000_000));
    hostile.gossip([old, long_ago, hostile.said(&hostile.frame(1, "new"))]);
    assert_eq!(hostile.during("new", next(&mut at_victim)).await, "new");
    assert_eq!(hostile.ended, 0, "an honest node may pass on what is old");
}

#[tokio::test]
async fn gossip_that_is_of_no_use_here_puts_its_sender_out() {
    let [(victim, mut at_victim), (bystander, _)] = pair().await;
    let mesh = MeshAccess::open().id;
    let unjoined = (0..64).find(|shard| *shard != shard_of("demo")).unwrap();
    let body = vec![0; 4 * 1024];
    // As many subscriptions as gossipsub takes at once, again and again.
    let subscriptions: Vec<_> =
        (0..200).map(|rpc| (0..500).flat_map(|n| subscription(&format!("t/{rpc}/{n}"))).collect::<Vec<u8>>()).collect();
    let floods: [(&str, Vec<Vec<u8>>); 3] = [
        ("100,000 subscriptions", subscriptions),
        ("foreign topics", (0..3 * TOO_MANY).map(|n| message(&format!("t/{n}"), &body)).collect()),
        (
            "shards that were never joined",
            (0..3 * TOO_MANY).map(|_| message(&gossip_topic(mesh, unjoined), &body)).collect(),
        ),
    ];
    for (what, flood) in floods {
        let mut hostile = Hostile::of(&victim).await;
        // Fewer are forgiven.
        if !what.contains("subscriptions") {
            let mut spared = Hostile::of(&victim).await;
            let end = spared.said(&spared.frame(1, what));
            spared.gossip(flood[1..TOO_MANY].iter().cloned().chain([end]));
            assert_eq!(spared.during(what, next(&mut at_victim)).await, what);
            assert_eq!(spared.ended, 0);
        }
        hostile.gossip(flood);
        hostile.until(what, |this| this.ended == 1).await;
    }
    publish(&bystander, "still here").await;
    assert_eq!(next(&mut at_victim).await, "still here");
}

#[tokio::test]
async fn a_message_that_gossipsub_cannot_read_ends_its_stream_and_nothing_else() {
    let [(victim, mut at_victim), _bystander] = pair().await;
    let mut hostile = Hostile::of(&victim).await;
    let too_much_control: Vec<u8> = (0..2_000).flat_map(|_| subscription(&hostile.demo())).collect();
    assert!(too_much_control.len() > 16 * 1024);
    let bombs = [too_much_control, vec![0xff; 100], field(2, &[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f])];
    for bomb in bombs {
        hostile.gossip([bomb]);
    }
    hostile.gossip([hostile.said(&hostile.frame(1, "still here"))]);
    assert_eq!(hostile.during("the end", next(&mut at_victim)).await, "still here");
    assert_eq!(hostile.ended, 0);
}

#[tokio::test]
async fn hostile_requests_are_answered_and_change_nothing() {
    let [(victim, mut at_victim), (bystander, _)] = pair().await;
    let service = RawService::parse("demo.slow").unwrap();
    let serving = victim
        .serve(service)
        .concurrency(4)
        .with(|_: Bytes| std::future::pending::<Result<Bytes, crate::Refusal>>())
        .await
        .unwrap();
    let mut hostile = Hostile::of(&victim).await;
    let call = |call: u64, service: &str| {
        let (service, content_type, headers) = (service.to_owned(), String::new(), Headers::default());
        let body = Bytes::from_static(&[0; 1024]);
        Request::Call(Call { call, service, timeout: 60_000, content_type, headers, body, extensions: Vec::new() })
    };
    for odd in ["", ".", "a..b", "demo.*", ">", "\u{1b}[2J", "démo", "nobody.serves.this", &"x".repeat(256)] {
        let answer = hostile.ask(call(1, odd)).await.unwrap();
        assert!(
            matches!(&answer, Response::Reply(reply) if reply.status == ReplyStatus::NoService),
            "{odd:?}: {answer:?}"
        );
    }
    hostile.ask(Request::Cancel { call: 77, extensions: Vec::new() }).await.unwrap();

    // Lies about how far another's stream has come, and about nodes that are not there.
    let theirs = Stream { node: bystander.peer_id(), incarnation: u64::MAX >> 1, ..hostile.place(1).stream };
    let lie = |stream: &Stream| Position { stream: StreamRef::of(stream).unwrap(), sequence: u64::MAX >> 1, count: 1 };
    let positions: Vec<_> = (0..2_000_u64).map(|n| lie(&Stream { incarnation: n, ..theirs })).collect();
    let _ = hostile
        .swarm
        .behaviour_mut()
        .rpc
        .send_request(&hostile.victim, Request::Heads { positions: positions.clone(), extensions: Vec::new() }.into());
    hostile.ask(Request::Acknowledge { positions, extensions: Vec::new() }).await.unwrap();

    // More calls than there is room for: the rest is told at once.
    const CALLS: u64 = 1_500;
    for number in 0..CALLS {
        hostile.swarm.behaviour_mut().rpc.send_request(&hostile.victim, call(number, "demo.slow").into());
    }
    let busy = |this: &Hostile| {
        let is_busy = |answer: &Result<Response, String>| matches!(answer, Ok(Response::Reply(reply)) if reply.status == ReplyStatus::Busy);
        this.answers.iter().filter(|(_, answer)| is_busy(answer)).count() as u64
    };
    hostile.until("the refusals", |this| busy(this) == CALLS - 4).await;
    publish(&bystander, "still here").await;
    assert_eq!(hostile.during("the end", next(&mut at_victim)).await, "still here");
    assert_eq!(hostile.ended, 0);

    // Frames that nobody signed, handed over.
    let frames = (0..TOO_MANY).map(|n| {
        let mut frame = hostile.frame(1, &n.to_string());
        *frame.last_mut().unwrap() ^= 1;
        frame.into()
    });
    let inject = Request::Inject { frames: frames.collect(), extensions: Vec::new() };
    hostile.swarm.behaviour_mut().rpc.send_request(&hostile.victim, inject.into());
    hostile.until("its end", |this| this.ended == 1).await;
    drop(serving);
}

/// Gossipsub takes a peer with a hundred topics of its own for one with none.
#[tokio::test]
async fn a_node_listens_to_as_many_patterns_as_it_may_and_is_told_of_the_next() {
    let a = node("listener", None).await;
    let b = node("publisher", Some(&a)).await;
    b.ready(1).await.unwrap();
    let most = crate::Limits::default().patterns;
    let mut subscribers = Vec::new();
    for number in 0..most {
        subscribers.push(subscribed(&a, &format!("t{number}.text")).await);
    }
    // However often it is tried.
    for number in most..100_000 {
        let error = a.subscribe(RawPattern::parse(&format!("t{number}.text")).unwrap()).await.unwrap_err();
        assert!(matches!(error, crate::SubscribeError::TooMany { limit } if limit == most), "{error}");
        assert!(error.to_string().contains("1024"), "{error}");
    }
    assert_eq!(a.status().await.unwrap().tables.subscriptions, most);
    for number in [0, 100, most - 1] {
        let topic = RawTopic::parse(&format!("t{number}.text")).unwrap();
        b.publish(topic, &Bytes::from("heard")).min_peers(1).await.unwrap();
        assert_eq!(next(&mut subscribers[number]).await, "heard");
    }
    drop(subscribers.pop());
    timeout(PATIENCE, async {
        while a.subscribe(RawPattern::parse("one.more").unwrap()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("there is room again");
}
