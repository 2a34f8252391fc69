//! One mesh at a time, told by hand what happens. The simulator has many.

use libp2p_identity::Keypair;

use super::*;
use crate::mesh::Settings;
use crate::mesh::event::{
    Ask, Checked, Command, DialFailure, GossipId, Input, RpcId, Signed, SubscriberId, Unsigned, Verdict, Via,
};
use crate::mesh::time::Wall;
use crate::wire::MeshId;
use crate::wire::frame::{Channel, FrameBuilder, Outbound, Place, Stream, shard_of};
use crate::wire::node_key::NodeKey;
use crate::wire::roster::RosterRecord;
use crate::wire::rpc::{Request, Summary};
use crate::{Headers, Limits};

const MESH: MeshId = MeshId([9; 16]);
const EPOCH: u64 = 1_700_000_000_000_000;

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed + 1; 32]).expect("a seed")
}

fn peer(seed: u8) -> PeerId {
    key(seed).public().to_peer_id()
}

fn address(seed: u8) -> Multiaddr {
    format!("/ip4/10.0.0.{seed}/tcp/4001").parse().expect("an address")
}

/// A node that serves `up`.
fn record(seed: u8, incarnation: u64, addresses: Vec<Multiaddr>) -> SignedRecord {
    let record = RosterRecord {
        node: NodeKey::of(&peer(seed)).expect("an Ed25519 key"),
        incarnation,
        version: 1,
        time: EPOCH,
        left: false,
        relay: false,
        name: format!("node-{seed}"),
        addresses,
        interests: Vec::new(),
        services: vec!["up".into()],
        extensions: Vec::new(),
    };
    SignedRecord::open(MESH, record.sign(MESH, &key(seed)).expect("signed").bytes).expect("a good record")
}

struct Bench {
    mesh: Mesh,
    now: Now,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let now = Now { mono: Mono(0), wall: Wall(EPOCH) };
        let mesh = Mesh::new(Settings {
            me: peer(0),
            incarnation: 1,
            name: "me".into(),
            relay: false,
            short_lived: false,
            looks_local: false,
            looks_further: false,
            dissemination: crate::Dissemination::default(),
            limits: Limits::default(),
            seed,
            now,
        });
        Self { mesh, now }
    }

    /// What the mesh wants done about it.
    fn tell(&mut self, input: Input) -> Vec<Output> {
        self.mesh.handle(input, self.now);
        let mut outputs = Vec::new();
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Sign(Unsigned::Record(record)) => {
                    let record = record.sign(MESH, &key(0)).expect("signed");
                    self.mesh.handle(Input::Signed(Signed::Record(Box::new(record))), self.now);
                }
                output => outputs.push(output),
            }
        }
        outputs
    }

    fn link(&mut self, seed: u8) -> Vec<Output> {
        self.tell(Input::Connected { peer: peer(seed), address: address(seed), links: 1 })
    }

    fn push(&mut self, from: u8, records: Vec<SignedRecord>) -> Vec<Output> {
        let request = Request::Push { records: Vec::new(), extensions: Vec::new() };
        let request = Checked { records, ..Checked::from(request) };
        self.tell(Input::Request { from: peer(from), id: InboundId(1), request })
    }

    fn respond(&mut self, id: RpcId, body: Response, records: Vec<SignedRecord>) -> Vec<Output> {
        self.tell(Input::Response { id, result: Ok(Checked { records, ..Checked::from(body) }) })
    }

    fn fail(&mut self, seed: u8) -> Vec<Output> {
        let why = DialFailure::Unreachable("nobody there".into());
        self.tell(Input::DialFailed { peer: Some(peer(seed)), addresses: vec![address(seed)], why })
    }

    fn request(&mut self, service: &str) -> Vec<Output> {
        let ask = Ask {
            service: service.into(),
            to: None,
            timeout: Span::secs(5),
            content_type: "text/plain".into(),
            headers: Headers::default(),
            body: Vec::new().into(),
        };
        self.tell(Input::Command(Ticket(7), Command::Request(ask)))
    }
}

fn dialled(outputs: &[Output]) -> Vec<PeerId> {
    outputs.iter().filter_map(|output| if let Output::Dial { peer, .. } = output { *peer } else { None }).collect()
}

/// The request of some kind that goes to a peer.
fn asked(outputs: &[Output], of: u8, kind: impl Fn(&Request) -> bool) -> RpcId {
    let is_it = |output: &Output| match output {
        Output::Send { id, to, request } if *to == peer(of) && kind(request) => Some(*id),
        _ => None,
    };
    outputs.iter().find_map(is_it).expect("it is asked")
}

#[test]
fn a_request_goes_on_to_the_next_provider_at_once_when_one_cannot_be_dialled() {
    for seed in 0..10 {
        let mut bench = Bench::new(seed);
        bench.link(1);
        bench.push(1, vec![record(2, 1, Vec::new()), record(3, 1, vec![address(3)])]);
        bench.fail(3);
        let outputs = bench.request("up");
        assert_eq!(dialled(&outputs), [peer(3)], "seed {seed}: nothing else would wake it");
    }
}

#[test]
fn a_restart_that_a_fetch_tells_of_ends_the_links_that_linger() {
    let mut bench = Bench::new(1);
    bench.link(1);
    bench.push(1, vec![record(1, 1, vec![address(1)])]);
    let outputs = bench.link(2);
    let digest = asked(&outputs, 2, |request| matches!(request, Request::Digest { .. }));
    let later = record(1, 2, vec![address(1)]);
    let summaries = vec![Summary { node: later.record.node, stamp: later.stamp() }];
    let differ = Response::Differ { buckets: (0..=255).collect(), summaries, extensions: Vec::new() };
    let outputs = bench.respond(digest, differ, Vec::new());
    let fetch = asked(&outputs, 2, |request| matches!(request, Request::Fetch { .. }));
    let records = Response::Records { records: Vec::new(), extensions: Vec::new() };
    let outputs = bench.respond(fetch, records, vec![later]);
    let ended = |output: &Output| matches!(output, Output::Disconnect { peer: ended } if *ended == peer(1));
    assert!(outputs.iter().any(ended), "{outputs:?}");
    let outputs = bench.tell(Input::Disconnected { peer: peer(1), links: 0 });
    assert_eq!(dialled(&outputs), []);
    bench.now.mono = bench.now.mono + Span::millis(200);
    assert_eq!(dialled(&bench.tell(Input::Timeout)), [peer(1)], "and the new one is dialled");
}

fn is_put_out(outputs: &[Output], seed: u8) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Disconnect { peer: ended } if *ended == peer(seed)))
}

#[test]
fn who_sends_what_no_member_sends_is_put_out_and_not_let_in_again_for_a_while() {
    let mut bench = Bench::new(1);
    let offend = |bench: &mut Bench, seed, count| bench.tell(Input::Offended { peer: peer(seed), count });
    let judged = |bench: &mut Bench, may_be_sound| {
        bench.tell(Input::BadGossip { from: peer(2), gossip: GossipId(1), may_be_sound })
    };
    assert!(!is_put_out(&offend(&mut bench, 1, u32::MAX), 1), "nobody is there to be put out");
    bench.link(1);
    bench.link(2);
    bench.push(1, vec![record(1, 1, vec![address(1)])]);
    assert!(!is_put_out(&offend(&mut bench, 1, 99), 1));
    assert!(is_put_out(&offend(&mut bench, 1, 1), 1));
    let outputs = bench.tell(Input::Disconnected { peer: peer(1), links: 0 });
    assert_eq!(dialled(&outputs), []);
    bench.now.mono = bench.now.mono + Span::secs(300);
    assert_eq!(dialled(&bench.tell(Input::Timeout)), []);
    assert!(is_put_out(&bench.link(1), 1));
    bench.now.mono = bench.now.mono + Span::secs(301);
    assert!(!is_put_out(&bench.link(1), 1));

    for _ in 0..1_000 {
        let outputs = judged(&mut bench, true);
        assert!(outputs.iter().any(|output| matches!(output, Output::Judge { verdict: Verdict::Ignore, .. })));
        assert!(!is_put_out(&outputs, 2), "a later version may see that differently");
    }
    let ends: Vec<_> = (0..100).map(|_| judged(&mut bench, false)).collect();
    assert!(ends.iter().flatten().all(|output| !matches!(output, Output::Judge { verdict: Verdict::Ignore, .. })));
    let put_out = ends.iter().position(|outputs| is_put_out(outputs, 2));
    assert_eq!(put_out, Some(99));
}

/// A frame of the first neighbour at that place, by gossip.
fn gossip(bench: &mut Bench, sequence: u64, text: &str) -> Vec<Output> {
    let mut builder = FrameBuilder::default();
    let message = Outbound {
        topic: "demo",
        content_type: "",
        headers: &Headers::default(),
        choices: &[],
        counter: sequence,
        time: EPOCH,
        fragment: None,
        payload: text.as_bytes(),
    };
    builder.push(&message).expect("fits");
    let stream = Stream { node: peer(1), incarnation: 5, channel: Channel::Shard(shard_of("demo")) };
    let place = Place { stream, sequence, count: sequence, attempt: 0, start: [1; 8] };
    let frame = Arc::new(builder.sign(place, MESH, &key(1)).expect("signed"));
    bench.tell(Input::Frame { frame, via: Via::Gossip { from: peer(2), gossip: GossipId(sequence) } })
}

#[test]
fn what_contradicts_an_earlier_frame_or_is_of_an_earlier_start_is_not_passed_on() {
    let mut bench = Bench::new(1);
    bench.link(1);
    bench.link(2);
    let patterns = vec!["demo".into()];
    let subscribe = Command::Subscribe { subscriber: SubscriberId(1), patterns, group: None };
    bench.tell(Input::Command(Ticket(1), subscribe));
    let verdict = |outputs: &[Output]| {
        let verdict = |output: &Output| if let Output::Judge { verdict, .. } = output { Some(*verdict) } else { None };
        let delivered = outputs.iter().any(|output| matches!(output, Output::Deliver { .. }));
        (outputs.iter().find_map(verdict).expect("it is judged"), delivered)
    };
    assert_eq!(verdict(&gossip(&mut bench, 1, "one")), (Verdict::Accept, true));
    assert_eq!(verdict(&gossip(&mut bench, 1, "eins")), (Verdict::Ignore, false));
    assert_eq!(verdict(&gossip(&mut bench, 2, "two")), (Verdict::Accept, true));
    assert_eq!(verdict(&gossip(&mut bench, 1, "one")), (Verdict::Accept, false), "others may have missed it");
    bench.push(1, vec![record(1, 6, vec![address(1)])]);
    assert_eq!(verdict(&gossip(&mut bench, 3, "three")), (Verdict::Ignore, false));
}

#[test]
fn others_are_told_only_of_addresses_that_lead_here_from_elsewhere() {
    let told = |addresses: &[&str]| {
        let parse = |text: &&str| text.parse().expect("an address");
        announced(addresses.iter().map(parse).collect()).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let here = ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip4/0.0.0.0/tcp/1", "/ip6/fe80::1/udp/1/quic-v1"];
    assert!(told(&here).is_empty());
    let own_choice = "/ip4/169.254.7.7/tcp/1";
    assert_eq!(told(&[here[0], own_choice]), [own_choice]);
    assert_eq!(told(&[here[1], own_choice, "/ip6/fd77::1/tcp/1"]), ["/ip6/fd77::1/tcp/1"]);
}
