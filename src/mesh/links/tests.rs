use super::*;
use libp2p_identity::Keypair;

fn peer(seed: u16) -> PeerId {
    let mut bytes = [1; 32];
    bytes[..2].copy_from_slice(&seed.to_be_bytes());
    Keypair::ed25519_from_bytes(bytes).expect("a seed").public().to_peer_id()
}

fn address(host: u16) -> Multiaddr {
    format!("/ip4/10.0.{}.{}/tcp/4001", host >> 8, host & 255).parse().expect("an address")
}

fn at(millis: u64) -> Now {
    Now { mono: Mono(millis * 1_000), wall: super::super::time::Wall(0) }
}

struct Bench {
    links: Links,
    fx: Effects,
}

impl Bench {
    fn new() -> Self {
        Self { links: Links::new(peer(0), 32), fx: Effects::new(7) }
    }

    fn see(&mut self, who: u16, by: FoundBy, millis: u64) {
        self.links.seen(Some(peer(who)), vec![address(who)], by, at(millis));
        self.links.settle(&mut self.fx);
    }

    fn connect(&mut self, who: u16, connections: u32, millis: u64) {
        self.links.connected(peer(who), &address(who), connections, at(millis), &mut self.fx);
        self.links.settle(&mut self.fx);
    }

    fn disconnect(&mut self, who: u16, millis: u64) {
        self.links.disconnected(peer(who), 0, at(millis), &mut self.fx);
    }

    fn fail(&mut self, who: u16, why: DialFailure, millis: u64) {
        self.links.dial_failed(Some(peer(who)), vec![address(who)], why, at(millis), &mut self.fx);
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.links.settle(&mut self.fx);
        std::iter::from_fn(|| self.fx.pop()).collect()
    }

    /// The peers dialled since the last look.
    fn dials(&mut self) -> Vec<Option<PeerId>> {
        let dial = |output| if let Output::Dial { peer, .. } = output { Some(peer) } else { None };
        self.outputs().into_iter().filter_map(dial).collect()
    }

    fn disconnects(&mut self) -> usize {
        self.outputs().iter().filter(|output| matches!(output, Output::Disconnect { .. })).count()
    }

    /// Lets time pass until somebody is dialled. Returns when, in milliseconds.
    fn next_dial(&mut self) -> Option<u64> {
        for _ in 0..10 {
            self.links.settle(&mut self.fx);
            let wake = self.links.next_timeout()?;
            self.links.on_timeout(Now { mono: wake, ..Now::default() }, &mut self.fx);
            if !self.dials().is_empty() {
                return Some(wake.0 / 1_000);
            }
        }
        None
    }
}

fn unreachable() -> DialFailure {
    DialFailure::Unreachable("nobody there".into())
}

#[test]
fn who_is_seen_is_dialled_once() {
    let mut bench = Bench::new();
    bench.see(1, FoundBy::Mdns, 0);
    assert_eq!(bench.dials(), [Some(peer(1))]);
    bench.see(1, FoundBy::Local, 1);
    assert_eq!(bench.dials(), [], "a dial is under way");
    bench.connect(1, 1, 2);
    bench.see(1, FoundBy::Local, 3);
    assert_eq!(bench.dials(), [], "linked");
    bench.see(0, FoundBy::Local, 4);
    assert_eq!(bench.dials(), [], "ourselves");
}

#[test]
fn addresses_that_lead_nowhere_are_not_dialled() {
    let mut bench = Bench::new();
    let parse = |text: &str| text.parse::<Multiaddr>().expect("an address");
    for text in ["/ip4/0.0.0.0/tcp/1", "/ip6/::/tcp/1", "/ip4/10.0.0.1/tcp/0"] {
        bench.links.seen(None, vec![parse(text)], FoundBy::Given, at(0));
    }
    let loopback = vec![parse("/ip4/127.0.0.1/tcp/1")];
    bench.links.seen(Some(peer(1)), loopback.clone(), FoundBy::Roster, at(0));
    assert_eq!(bench.dials(), []);
    bench.links.seen(Some(peer(1)), loopback, FoundBy::Local, at(0));
    assert_eq!(bench.dials(), [Some(peer(1))]);
}

#[test]
fn an_id_in_an_address_counts_and_must_not_contradict() {
    let mut bench = Bench::new();
    let named = address(1).with_p2p(peer(1)).expect("no id yet");
    bench.links.seen(Some(peer(2)), vec![named.clone()], FoundBy::Given, at(0));
    assert_eq!(bench.dials(), []);
    bench.links.seen(None, vec![named], FoundBy::Given, at(0));
    assert_eq!(bench.dials(), [Some(peer(1))]);
}

#[test]
fn unreachable_peers_are_retried_ever_more_rarely_until_a_new_address() {
    let mut bench = Bench::new();
    bench.see(1, FoundBy::Mdns, 0);
    let (mut now, mut pauses) = (0, Vec::new());
    for _ in 0..12 {
        bench.outputs();
        bench.fail(1, unreachable(), now);
        let next = bench.next_dial().expect("a retry");
        pauses.push(next - now);
        now = next;
    }
    assert!((150..=350).contains(&pauses[0]), "{pauses:?}");
    assert!(pauses[3] > 1_000 && pauses[11] > 40_000 && pauses[11] <= 80_000, "{pauses:?}");
    bench.fail(1, unreachable(), now);
    bench.see(1, FoundBy::Mdns, now);
    assert_eq!(bench.dials(), [], "nothing new");
    bench.links.seen(Some(peer(1)), vec![address(99)], FoundBy::Mdns, at(now));
    assert_eq!(bench.dials(), [Some(peer(1))]);
}

#[test]
fn given_addresses_are_retried_soon_and_then_every_five_seconds_for_ever() {
    let mut bench = Bench::new();
    bench.links.seen(None, vec![address(1)], FoundBy::Given, at(0));
    assert_eq!(bench.dials(), [None]);
    let (mut now, mut pauses) = (0, Vec::new());
    for _ in 0..50 {
        bench.links.dial_failed(None, vec![address(1)], unreachable(), at(now), &mut bench.fx);
        let next = bench.next_dial().expect("a retry");
        pauses.push(next - now);
        now = next;
    }
    // Soon at first: one that was started with it may be a moment late.
    assert!(pauses[..3].iter().sum::<u64>() < 3_000, "{pauses:?}");
    assert!(pauses[5..].iter().all(|pause| (5_000..6_000).contains(pause)), "{pauses:?}");
    bench.connect(1, 1, now);
    assert_eq!(bench.links.found_by(&peer(1)), Some(FoundBy::Given));
    bench.outputs();
    assert_eq!(bench.links.next_timeout(), None, "connected: nothing to retry");
    bench.disconnect(1, now);
    assert!(bench.next_dial().expect("a redial") - now <= 200);
}

#[test]
fn strangers_are_told_of_once_and_left_alone_for_ten_minutes() {
    let mut bench = Bench::new();
    let told = |outputs: Vec<Output>| {
        outputs.iter().filter(|output| matches!(output, Output::Announce(Event::OtherMesh { .. }))).count()
    };
    bench.see(1, FoundBy::Mdns, 0);
    bench.fail(1, DialFailure::OtherMesh { open: true }, 0);
    assert_eq!(told(bench.outputs()), 1);
    bench.links.seen(Some(peer(1)), vec![address(77)], FoundBy::Local, at(599_000));
    assert_eq!(bench.dials(), [], "a new address does not make it a member");
    bench.see(1, FoundBy::Mdns, 600_001);
    assert_eq!(bench.dials(), [Some(peer(1))]);
    bench.fail(1, DialFailure::OtherMesh { open: true }, 600_002);
    assert_eq!(told(bench.outputs()), 0, "said before");
}

/// Whoever dials may have a new key each time.
#[test]
fn a_host_that_dials_is_told_of_once_and_each_node_that_is_dialled() {
    let mut bench = Bench::new();
    let mut told = |who, address: &str| {
        let why = DialFailure::OtherMesh { open: false };
        bench.links.dial_failed(Some(peer(who)), vec![address.parse().expect("an address")], why, at(0), &mut bench.fx);
        bench.outputs().iter().any(|output| matches!(output, Output::Announce(Event::OtherMesh { .. })))
    };
    assert!(told(1, "/ip4/10.0.0.1"));
    assert!((2..2_000).all(|who| !told(who, "/ip4/10.0.0.1")));
    assert!(told(2_001, "/ip4/10.0.0.2"), "that did not use up what may be told");
    assert!(!told(1, "/ip4/10.0.0.1/tcp/4001"), "the same that dialled");
    assert!(told(2, "/ip4/10.0.0.1/tcp/4002") && !told(2, "/ip4/10.0.0.1"));
}

#[test]
fn a_stranger_without_an_id_is_remembered_by_address() {
    let mut bench = Bench::new();
    for (who, why) in [(1, DialFailure::NotPombo), (2, DialFailure::OtherMesh { open: false })] {
        bench.links.seen(None, vec![address(who)], FoundBy::Mdns, at(0));
        assert_eq!(bench.dials(), [None]);
        bench.links.dial_failed(None, vec![address(who)], why, at(1), &mut bench.fx);
        bench.links.seen(None, vec![address(who)], FoundBy::Mdns, at(2));
        assert_eq!(bench.dials(), []);
    }
}

#[test]
fn a_stranger_where_one_of_ours_should_be_is_told_of_once_and_tried_again_each_minute() {
    let mut bench = Bench::new();
    let told = |outputs: Vec<Output>| {
        outputs.iter().filter(|output| matches!(output, Output::Announce(Event::NotPombo { .. }))).count()
    };
    bench.links.seen(None, vec![address(1)], FoundBy::Given, at(0));
    assert_eq!(bench.dials(), [None]);
    bench.links.dial_failed(Some(peer(1)), vec![address(1)], DialFailure::NotPombo, at(1), &mut bench.fx);
    assert_eq!(told(bench.outputs()), 1);
    assert_eq!(bench.next_dial(), Some(60_001));
    bench.links.dial_failed(Some(peer(1)), vec![address(1)], DialFailure::NotPombo, at(60_002), &mut bench.fx);
    assert_eq!(told(bench.outputs()), 0, "said before");
    // Of what multicast DNS finds nobody has to hear.
    bench.see(2, FoundBy::Mdns, 60_003);
    bench.fail(2, DialFailure::NotPombo, 60_004);
    assert_eq!(told(bench.outputs()), 0);
}

#[test]
fn strangers_that_dial_us_do_not_make_us_forget_those_that_we_dial() {
    let mut bench = Bench::new();
    bench.see(1, FoundBy::Given, 0);
    bench.outputs();
    bench.fail(1, DialFailure::NotPombo, 1);
    (100..3_000).for_each(|who| bench.fail(who, DialFailure::NotPombo, 2));
    bench.links.on_timeout(at(59_000), &mut bench.fx);
    assert_eq!(bench.dials(), []);
}

#[test]
fn a_flood_is_forgotten_but_for_those_who_were_met_or_are_known_otherwise() {
    let mut bench = Bench::new();
    bench.connect(1, 1, 0);
    for (who, by) in [(1, FoundBy::Mdns), (2, FoundBy::Local), (3, FoundBy::Roster), (4, FoundBy::Given)] {
        bench.see(who, by, 0);
    }
    bench.see(5, FoundBy::Mdns, 0);
    bench.connect(5, 1, 1);
    bench.disconnect(5, 2);
    (100..2_000).for_each(|who| bench.see(who, FoundBy::Mdns, 3));
    assert!(bench.dials().len() <= DIALS + 4, "however many there are");
    bench.links.flooded(at(4));
    let left: Vec<_> = bench.links.candidates.iter().filter_map(|(target, _)| target.peer()).collect();
    let mut kept: Vec<_> = (1..=5).map(peer).collect();
    kept.sort_unstable();
    assert_eq!(left, kept);
}

#[test]
fn our_own_address_is_forgotten() {
    let mut bench = Bench::new();
    bench.links.seen(None, vec![address(1)], FoundBy::Given, at(0));
    bench.outputs();
    bench.links.dial_failed(None, vec![address(1)], DialFailure::Ourselves, at(1), &mut bench.fx);
    bench.outputs();
    assert_eq!(bench.links.next_timeout(), None);
    bench.links.seen(None, vec![address(1)], FoundBy::Given, at(2));
    assert_eq!(bench.dials(), []);
}

#[test]
fn a_lost_link_is_redialled_soon_but_not_after_a_goodbye() {
    let mut bench = Bench::new();
    bench.see(1, FoundBy::Mdns, 0);
    bench.connect(1, 1, 0);
    bench.outputs();
    bench.disconnect(1, 1_000);
    let next = bench.next_dial().expect("a redial");
    assert!((1_050..=1_150).contains(&next), "{next}");
    bench.connect(1, 1, next);
    bench.links.left(peer(1), at(2_000));
    bench.disconnect(1, 2_001);
    bench.see(1, FoundBy::Roster, 2_002);
    assert_eq!(bench.next_dial(), None);
    bench.see(1, FoundBy::Mdns, 3_000);
    assert_eq!(bench.dials(), [Some(peer(1))], "somebody has just seen it");
}

#[test]
fn a_new_incarnation_ends_a_goodbye() {
    let mut bench = Bench::new();
    bench.see(1, FoundBy::Mdns, 0);
    bench.connect(1, 1, 0);
    bench.links.left(peer(1), at(1));
    bench.disconnect(1, 2);
    bench.outputs();
    bench.links.restarted(peer(1), false, at(3), &mut bench.fx);
    assert_eq!(bench.dials(), [Some(peer(1))]);
}

#[test]
fn lingering_connections_are_closed_when_a_peer_restarted() {
    let mut bench = Bench::new();
    bench.see(1, FoundBy::Mdns, 0);
    bench.connect(1, 1, 0);
    bench.outputs();
    bench.links.restarted(peer(1), false, at(1), &mut bench.fx);
    assert_eq!(bench.disconnects(), 0, "the link is the new one's");
    bench.links.restarted(peer(1), true, at(2), &mut bench.fx);
    assert_eq!(bench.disconnects(), 1, "the old one was heard over it");
    bench.disconnect(1, 6);
    assert!(bench.next_dial().is_some_and(|next| next <= 160));
}

#[test]
fn a_small_mesh_is_linked_fully_and_a_large_one_in_part() {
    let mut bench = Bench::new();
    for who in 1..=32 {
        bench.see(who, FoundBy::Roster, 0);
        let dials = bench.dials();
        assert_eq!(dials.len(), 1, "{who}");
        bench.connect(who, 1, 0);
    }
    for who in 33..=100 {
        bench.see(who, FoundBy::Roster, 0);
    }
    assert_eq!(bench.dials(), []);
    for who in 1..=20 {
        bench.disconnect(who, 10);
    }
    assert_eq!((bench.links.count(), bench.next_dial()), (12, None), "still enough");
    bench.disconnect(21, 20);
    assert_eq!(bench.dials().len(), 1, "below what is enough");
    // One that the user names is dialled nevertheless.
    bench.see(200, FoundBy::Given, 30);
    assert_eq!(bench.dials(), [Some(peer(200))]);
}

#[test]
fn never_more_than_sixteen_dials_at_once_nor_links_beyond_the_limit() {
    let mut bench = Bench::new();
    for who in 1..=20 {
        bench.see(who, FoundBy::Given, 0);
    }
    assert_eq!(bench.dials().len(), 16);
    bench.fail(1, unreachable(), 1);
    assert_eq!(bench.dials().len(), 1, "the queue moves on");
    let mut bench = Bench::new();
    for who in 1..=32 {
        bench.connect(who, 1, 0);
    }
    bench.see(40, FoundBy::Given, 1);
    assert_eq!(bench.dials(), []);
}

#[test]
fn a_dial_without_an_outcome_ends() {
    let mut bench = Bench::new();
    bench.see(1, FoundBy::Mdns, 0);
    bench.outputs();
    assert!(bench.next_dial().is_some_and(|next| next > 30_000));
}

#[test]
fn inbound_links_are_accepted_up_to_256() {
    let mut bench = Bench::new();
    for who in 1..=256 {
        bench.connect(who, 1, 0);
    }
    assert_eq!(bench.disconnects(), 0);
    bench.connect(257, 1, 0);
    assert_eq!(bench.disconnects(), 1);
    assert!(!bench.links.is_linked(&peer(257)) && bench.links.count() == 256);
}

#[test]
fn linked_and_unlinked_are_announced_on_the_first_and_the_last() {
    let mut bench = Bench::new();
    let announced = |outputs: Vec<Output>| outputs.iter().filter(|one| matches!(one, Output::Announce(_))).count();
    bench.connect(1, 1, 0);
    assert_eq!(announced(bench.outputs()), 1);
    assert_eq!(bench.links.found_by(&peer(1)), Some(FoundBy::Inbound));
    bench.connect(1, 2, 0);
    bench.links.disconnected(peer(1), 1, at(1), &mut bench.fx);
    assert_eq!((announced(bench.outputs()), bench.links.links(&peer(1))), (0, 1));
    bench.disconnect(1, 2);
    assert_eq!(announced(bench.outputs()), 1);
    bench.disconnect(1, 3);
    assert_eq!(announced(bench.outputs()), 0);
}

#[test]
fn round_trips_are_smoothed() {
    let mut bench = Bench::new();
    bench.connect(1, 1, 0);
    bench.links.round_trip(&peer(1), Span::millis(8));
    bench.links.round_trip(&peer(1), Span::millis(16));
    assert_eq!(bench.links.rtt(&peer(1)), Some(Span::millis(9)));
}

#[test]
fn candidates_are_bounded_and_the_stalest_goes() {
    let mut bench = Bench::new();
    for who in 1..=32 {
        bench.connect(who, 1, 0);
    }
    for who in 1_000..2_100 {
        bench.see(who, FoundBy::Roster, u64::from(who));
    }
    assert_eq!(bench.links.candidates.iter().count(), 1_024);
    assert!(bench.links.candidates.get(&Target::Peer(peer(1_000))).is_none());
    assert!(bench.links.candidates.get(&Target::Peer(peer(2_099))).is_some());
    for host in 0..100 {
        bench.links.seen(Some(peer(2_099)), vec![address(host)], FoundBy::Roster, at(3_000));
    }
    assert_eq!(bench.links.candidates.get(&Target::Peer(peer(2_099))).map(|one| one.addresses().len()), Some(16));
}

#[test]
fn who_is_wanted_is_dialled_however_many_links_there_are_and_kept_for_a_minute() {
    let mut bench = Bench::new();
    for who in 1..=32 {
        bench.connect(who, 1, 0);
    }
    bench.see(50, FoundBy::Roster, 0);
    assert_eq!(bench.dials(), [], "there are enough");
    bench.links.want(peer(50), vec![address(50)], at(1));
    assert_eq!(bench.dials(), [Some(peer(50))]);
    bench.connect(50, 1, 2);
    bench.disconnect(50, 30_000);
    let next = bench.next_dial().expect("a redial");
    assert!(next <= 30_200);
    bench.connect(50, 1, next);
    bench.disconnect(50, 70_000);
    assert_eq!(bench.next_dial(), None, "nobody wants it any more");
}

#[test]
fn who_is_waited_for_is_dialled_at_once_though_many_dials_are_under_way_and_it_failed_before() {
    let mut bench = Bench::new();
    for who in 1..=16 {
        bench.see(who, FoundBy::Mdns, 0);
    }
    assert_eq!(bench.dials().len(), 16);
    assert!(bench.links.want_now(peer(50), vec![address(50)], at(1), &mut bench.fx));
    assert_eq!(bench.dials(), [Some(peer(50))]);
    bench.fail(50, unreachable(), 2);
    assert_eq!(bench.dials(), []);
    assert!(bench.links.want_now(peer(50), vec![address(50)], at(3), &mut bench.fx));
    assert_eq!(bench.dials(), [Some(peer(50))]);
    bench.fail(50, DialFailure::OtherMesh { open: true }, 4);
    assert!(!bench.links.want_now(peer(50), vec![address(50)], at(5), &mut bench.fx), "it is a stranger");
    let mut full = Bench::new();
    (1..=256).for_each(|who| full.connect(who, 1, 0));
    assert!(!full.links.want_now(peer(300), vec![address(300)], at(1), &mut full.fx));
}

#[test]
fn a_dial_says_whether_it_tried_all_that_is_known() {
    let mut bench = Bench::new();
    bench.see(1, FoundBy::Mdns, 0);
    let mut fail = |why| bench.links.dial_failed(Some(peer(1)), vec![address(1)], why, at(1), &mut bench.fx);
    assert!(fail(unreachable()));
    assert!(!fail(DialFailure::NotPombo), "somebody is there");
    bench.links.seen(Some(peer(1)), vec![address(99)], FoundBy::Mdns, at(2));
    assert!(!bench.links.dial_failed(Some(peer(1)), vec![address(1)], unreachable(), at(3), &mut bench.fx));
}

#[test]
fn who_dialled_us_is_dialled_when_that_link_is_lost() {
    let mut bench = Bench::new();
    bench.connect(1, 1, 0);
    bench.see(1, FoundBy::Roster, 10);
    assert_eq!(bench.dials(), []);
    bench.disconnect(1, 1_000);
    let next = bench.next_dial().expect("a redial");
    assert!((1_050..=1_150).contains(&next), "{next}");
}

#[test]
fn a_peer_is_dialled_again_without_the_address_where_somebody_else_is() {
    let mut bench = Bench::new();
    let both = vec![address(1), address(2)];
    let dialled = |outputs: Vec<Output>| {
        outputs
            .into_iter()
            .find_map(|output| if let Output::Dial { addresses, .. } = output { Some(addresses) } else { None })
    };
    bench.links.seen(Some(peer(1)), both.clone(), FoundBy::Roster, at(0));
    assert_eq!(dialled(bench.outputs()).map(|addresses| addresses.len()), Some(2));
    let astray = |bench: &mut Bench, why, now| {
        bench.links.dial_failed(Some(peer(1)), vec![address(2)], why, at(now), &mut bench.fx)
    };
    assert!(!astray(&mut bench, DialFailure::SomebodyElse, 1), "it may be at the other");
    // The others go on repeating it.
    bench.links.seen(Some(peer(1)), both.clone(), FoundBy::Roster, at(500));
    assert_eq!(dialled(bench.outputs()), Some(vec![address(1)]));
    astray(&mut bench, DialFailure::Ourselves, 501);
    bench.fail(1, unreachable(), 502);
    bench.links.seen(Some(peer(1)), both, FoundBy::Roster, at(62_000));
    assert_eq!(dialled(bench.outputs()).map(|addresses| addresses.len()), Some(2), "it may have moved there");
}

fn ip(host: u16) -> Multiaddr {
    address(host).iter().take(1).collect()
}

/// What a name needs: when it was asked for, and an answer.
impl Bench {
    fn asked(&mut self) -> Vec<NameId> {
        let asked = |output| if let Output::Resolve { name, .. } = output { Some(name) } else { None };
        self.outputs().into_iter().filter_map(asked).collect()
    }

    fn answer(&mut self, hosts: &[u16], millis: u64) -> Vec<Multiaddr> {
        let ips = hosts.iter().map(|host| ip(*host)).collect();
        self.links.resolved(NameId(0), Some(ips), at(millis), &mut self.fx);
        self.dialled()
    }

    fn dialled(&mut self) -> Vec<Multiaddr> {
        let dial = |output| if let Output::Dial { addresses, .. } = output { addresses } else { Vec::new() };
        let mut dialled: Vec<_> = self.outputs().into_iter().flat_map(dial).collect();
        dialled.sort();
        dialled
    }

    /// Lets time pass until somebody is dialled, and notes where.
    fn next_dial_is(&mut self, turns: &mut Vec<Multiaddr>) {
        for _ in 0..10 {
            self.links.settle(&mut self.fx);
            let wake = self.links.next_timeout().expect("a retry");
            self.links.on_timeout(Now { mono: wake, ..Now::default() }, &mut self.fx);
            let dialled = self.dialled();
            if !dialled.is_empty() {
                turns.extend(dialled);
                return;
            }
        }
        panic!("nobody is dialled");
    }

    /// Nobody is there.
    fn fail_at(&mut self, address: &Multiaddr, millis: u64) {
        self.links.dial_failed(None, vec![address.clone()], unreachable(), at(millis), &mut self.fx);
    }
}

fn named(text: &str) -> Name {
    Name::of_address(&text.parse().expect("an address")).expect("a name")
}

#[test]
fn a_name_is_asked_for_ten_seconds_after_each_answer_more_or_less() {
    let mut bench = Bench::new();
    bench.links.look_up(named("/dns/shop/tcp/4001"), at(0));
    assert_eq!((bench.links.prospects(at(0)), bench.asked()), (1, vec![NameId(0)]));
    assert_eq!(bench.links.next_timeout(), None, "an answer is awaited");
    let (mut now, mut pauses) = (40_000, Vec::new());
    for _ in 0..20 {
        bench.links.resolved(NameId(0), None, at(now), &mut bench.fx);
        bench.outputs();
        let wake = bench.links.next_timeout().expect("it is asked for again").0.div_ceil(1_000);
        pauses.push(wake - now);
        bench.links.on_timeout(at(wake), &mut bench.fx);
        assert_eq!(bench.asked(), [NameId(0)]);
        now = wake;
    }
    assert!(pauses.iter().all(|pause| (7_500..=12_500).contains(pause)), "{pauses:?}");
    assert!(pauses.iter().max() > pauses.iter().min(), "all at once: {pauses:?}");
    assert_eq!(bench.links.prospects(at(now)), 0, "nobody is known to be there");
    bench.links.resolved(NameId(7), Some(vec![ip(1)]), at(now), &mut bench.fx);
    assert_eq!(bench.dialled(), [], "nobody asked");
}

#[test]
fn who_a_name_leads_to_is_dialled_while_it_does() {
    let mut bench = Bench::new();
    bench.links.look_up(named("/dns/shop/tcp/4001"), at(0));
    assert_eq!(bench.answer(&[1, 2], 0), [address(1), address(2)]);
    bench.fail_at(&address(1), 10);
    bench.connect(2, 1, 10);
    assert_eq!(bench.links.found_by(&peer(2)), Some(FoundBy::Dns));
    // No answer changes nothing, the same answer neither, and linked ones are left alone.
    bench.links.resolved(NameId(0), None, at(20), &mut bench.fx);
    assert_eq!(bench.answer(&[2, 1], 30), []);
    let mut now = 10;
    for _ in 0..20 {
        let wake = bench.links.next_timeout().expect("a retry").0.div_ceil(1_000);
        bench.links.on_timeout(at(wake), &mut bench.fx);
        let dialled = bench.dialled();
        if !dialled.is_empty() {
            assert_eq!(dialled, [address(1)]);
            now = wake;
            bench.fail_at(&address(1), now);
        }
        bench.links.resolved(NameId(0), None, at(wake), &mut bench.fx);
    }
    // Its address has gone to somebody else. The one that was lost comes back elsewhere.
    bench.disconnect(2, now);
    assert_eq!(bench.answer(&[3], now), [address(3)]);
    bench.fail_at(&address(3), now + 1);
    for _ in 0..10 {
        let wake = bench.links.next_timeout().expect("a retry").0.div_ceil(1_000);
        bench.links.on_timeout(at(wake), &mut bench.fx);
        let dialled = bench.dialled();
        assert!(dialled.is_empty() || dialled == [address(3)], "{dialled:?}");
        bench.fail_at(&address(3), wake);
    }
}

#[test]
fn a_name_of_many_is_tried_by_quic_where_tcp_leads_nowhere_and_a_single_one_is_that_node() {
    let quic = |host: u16| format!("{}/udp/4001/quic-v1", ip(host)).parse::<Multiaddr>().expect("an address");
    let mut bench = Bench::new();
    bench.links.look_up(Name::of_many(&"shop:4001".parse().expect("a name"), true), at(0));
    assert_eq!(bench.answer(&[1], 0), [address(1)]);
    let mut turns = Vec::new();
    for _ in 0..4 {
        let last = turns.last().cloned().unwrap_or(address(1));
        bench.fail_at(&last, 0);
        bench.next_dial_is(&mut turns);
    }
    assert_eq!(turns, [quic(1), address(1), quic(1), address(1)]);

    let mut bench = Bench::new();
    bench.links.look_up(named(&format!("/dns4/shop/tcp/4001/p2p/{}", peer(1))), at(0));
    let ips = ["/ip4/10.0.0.1", "/ip6/fd00::1", "/ip4/10.0.0.2"].map(|ip| ip.parse().expect("an address"));
    bench.links.resolved(NameId(0), Some(ips.into()), at(0), &mut bench.fx);
    let dials: Vec<_> = bench.outputs().into_iter().filter(|output| matches!(output, Output::Dial { .. })).collect();
    let [Output::Dial { peer: Some(who), addresses }] = dials.as_slice() else { panic!("{dials:?}") };
    assert_eq!((*who, addresses.len()), (peer(1), 2), "all of its addresses at once, of that family");
}

#[test]
fn our_own_address_among_those_of_a_name_is_left_alone() {
    let mut bench = Bench::new();
    bench.links.look_up(Name::of_many(&"shop:4001".parse().expect("a name"), true), at(0));
    assert_eq!(bench.answer(&[1], 0), [address(1)]);
    bench.links.dial_failed(None, vec![address(1)], DialFailure::Ourselves, at(1), &mut bench.fx);
    let mut dials = 0;
    for seconds in 1..=59 {
        dials += bench.answer(&[1], seconds * 10_000).len();
    }
    assert_eq!(dials, 0);
}

#[test]
fn a_name_of_very_many_addresses_leaves_room_for_others() {
    let mut bench = Bench::new();
    bench.links.look_up(named("/dns/shop/tcp/4001"), at(0));
    let all: Vec<u16> = (1..=2_000).collect();
    assert_eq!(bench.answer(&all, 0).len(), DIALS);
    assert_eq!(bench.links.candidates.iter().count(), 256);
}

#[test]
fn who_falls_silent_is_dialled_beside_the_link_once() {
    let mut bench = Bench::new();
    bench.see(1, FoundBy::Given, 0);
    bench.connect(1, 1, 1);
    bench.dials();
    let silent = |bench: &mut Bench, who, millis| bench.links.silent(peer(who), at(millis), &mut bench.fx);
    silent(&mut bench, 1, 5_000);
    assert_eq!(bench.dials(), [Some(peer(1))]);
    silent(&mut bench, 1, 5_100);
    assert_eq!(bench.dials(), [], "a dial is under way");
    bench.connect(1, 2, 5_200);
    silent(&mut bench, 1, 9_000);
    assert_eq!(bench.dials(), [], "there are two already");
    silent(&mut bench, 2, 9_000);
    assert_eq!(bench.dials(), [], "nobody knows where that one is");
}
