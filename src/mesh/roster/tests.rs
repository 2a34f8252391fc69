//! Each rule of the roster, one node at a time. `simulation` has many.

use libp2p_identity::Keypair;

use super::*;
use crate::mesh::effects::Asked;
use crate::mesh::event::{Checked, Output, RpcFailure, RpcId, Unsigned};
use crate::mesh::time::Wall;
use crate::wire::MeshId;
use crate::wire::frame::shard_of;
use crate::wire::node_key::NodeKey;
use crate::wire::roster::{MAX_RECORD, RosterRecord, Stamp};
use crate::wire::rpc::{Request, Response};

pub(super) const MESH: MeshId = MeshId([9; 16]);
/// When the tests begin, by the wall clock.
pub(super) const EPOCH: u64 = 1_700_000_000_000_000;

pub(super) fn key(seed: u16) -> Keypair {
    let mut bytes = [3; 32];
    bytes[..2].copy_from_slice(&seed.to_be_bytes());
    Keypair::ed25519_from_bytes(bytes).expect("a seed")
}

fn peer(seed: u16) -> PeerId {
    key(seed).public().to_peer_id()
}

pub(super) fn at(millis: u64) -> Now {
    Now { mono: Mono(millis * 1_000), wall: Wall(EPOCH + millis * 1_000) }
}

pub(super) fn interest(pattern: &str) -> Interest {
    Interest { pattern: pattern.into(), group: None }
}

/// A record of node `seed`, written at `millis`.
fn record(seed: u16, incarnation: u64, version: u64, millis: u64) -> RosterRecord {
    RosterRecord {
        node: NodeKey::of(&peer(seed)).expect("an Ed25519 key"),
        incarnation,
        version,
        time: EPOCH + millis * 1_000,
        left: false,
        relay: false,
        name: format!("node-{seed}"),
        addresses: Vec::new(),
        interests: vec![interest("orders.>")],
        services: vec!["shop.price".into()],
        extensions: Vec::new(),
    }
}

fn signed(seed: u16, record: RosterRecord) -> SignedRecord {
    let bytes = record.sign(MESH, &key(seed)).expect("signed").bytes;
    SignedRecord::open(MESH, bytes).expect("a good record")
}

struct Bench {
    roster: Roster,
    fx: Effects,
    now: Now,
}

impl Bench {
    fn new(announced: bool, max: usize) -> Self {
        let roster = Roster::new(peer(0), 5, "me".into(), false, announced, max);
        Self { roster, fx: Effects::new(1), now: at(0) }
    }

    /// A roster that has said its first word, with these neighbours.
    fn linked(neighbours: &[u16]) -> Self {
        let mut bench = Self::new(true, 100);
        bench.say("first");
        for seed in neighbours {
            bench.link(*seed);
        }
        bench.answer_all();
        bench
    }

    fn link(&mut self, seed: u16) -> Vec<Change> {
        self.roster.linked(peer(seed), self.now, &mut self.fx)
    }

    fn push(&mut self, from: u16, records: Vec<SignedRecord>) -> Vec<Change> {
        self.roster.on_push(peer(from), records, self.now, &mut self.fx)
    }

    fn say(&mut self, pattern: &str) -> u64 {
        let said = self.roster.set_interests(vec![interest(pattern)], self.now, &mut self.fx);
        assert_eq!(said, Ok(Fit::Whole));
        self.sign();
        self.roster.version()
    }

    /// Signs what waits for it. Returns the versions.
    fn sign(&mut self) -> Vec<u64> {
        let mut versions = Vec::new();
        let mut others = Vec::new();
        while let Some(output) = self.fx.pop() {
            if let Output::Sign(Unsigned::Record(record)) = output {
                versions.push(record.version);
                let record = signed(0, record);
                self.roster.signed(record, self.now, &mut self.fx);
            } else {
                others.push(output);
            }
        }
        others.into_iter().for_each(|output| self.fx.push(output));
        versions
    }

    /// The requests sent since the last look.
    fn sent(&mut self) -> Vec<(PeerId, RpcId, Request)> {
        let sent = |output| if let Output::Send { id, to, request } = output { Some((to, id, request)) } else { None };
        std::iter::from_fn(|| self.fx.pop()).filter_map(sent).collect()
    }

    /// The pushes sent since the last look: to whom, what.
    fn pushes(&mut self) -> Vec<(PeerId, RpcId, Vec<SignedRecord>)> {
        let open = |bytes| SignedRecord::open(MESH, bytes).expect("a good record");
        let push = |(to, id, request)| match request {
            Request::Push { records, .. } => Some((to, id, records.into_iter().map(open).collect())),
            _ => None,
        };
        self.sent().into_iter().filter_map(push).collect()
    }

    fn respond(&mut self, id: RpcId, result: Result<Response, RpcFailure>) -> Vec<Change> {
        let asked = self.fx.answered(id).expect("an open request");
        let records = match &result {
            Ok(Response::Records { records, .. }) => {
                records.iter().map(|bytes| SignedRecord::open(MESH, bytes.clone()).expect("good")).collect()
            }
            _ => Vec::new(),
        };
        let result = result.map(|body| Checked { body, frames: Vec::new(), records });
        self.roster.on_response(id, &asked, result, self.now, &mut self.fx)
    }

    fn answer_all(&mut self) {
        loop {
            let sent = self.sent();
            if sent.is_empty() {
                break;
            }
            for (_, id, request) in sent {
                let answer = match request {
                    Request::Digest { .. } => {
                        Response::Differ { buckets: vec![], summaries: vec![], extensions: vec![] }
                    }
                    _ => Response::done(),
                };
                self.respond(id, Ok(answer));
            }
        }
    }

    fn wait(&mut self, millis: u64) -> Vec<Change> {
        self.until(self.now.mono.0 / 1_000 + millis)
    }

    /// Lets time pass, timer by timer, and answers nothing.
    fn until(&mut self, millis: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        let end = at(millis);
        while let Some(due) = self.roster.next_timeout().filter(|due| *due <= end.mono) {
            assert!(due >= self.now.mono || self.now == end, "a timer of the past");
            self.now = at(due.0 / 1_000 + u64::from(due.0 % 1_000 > 0));
            changes.extend(self.roster.on_timeout(self.now, &mut self.fx));
            self.sign();
        }
        self.now = end;
        changes
    }
}

#[test]
fn changes_during_a_signature_share_the_next_one() {
    let mut bench = Bench::new(true, 10);
    let set = |bench: &mut Bench, pattern| {
        assert_eq!(bench.roster.set_interests(vec![interest(pattern)], bench.now, &mut bench.fx), Ok(Fit::Whole));
    };
    set(&mut bench, "a");
    set(&mut bench, "b");
    set(&mut bench, "c");
    set(&mut bench, "c");
    assert_eq!((bench.roster.version(), bench.roster.announced()), (2, 0));
    assert_eq!(bench.sign(), [1, 2]);
    assert_eq!(bench.roster.announced(), 2, "no neighbours to wait for");
    set(&mut bench, "c");
    assert_eq!(bench.roster.version(), 2, "nothing new");
}

#[test]
fn a_signature_that_does_not_come_is_asked_for_again() {
    let mut bench = Bench::new(true, 10);
    let _ = bench.roster.set_interests(vec![interest("a")], bench.now, &mut bench.fx);
    assert!(bench.fx.pop().is_some());
    bench.now = at(5_000);
    bench.roster.on_timeout(bench.now, &mut bench.fx);
    assert_eq!(bench.sign(), [1]);
}

#[test]
fn a_short_lived_node_says_nothing_until_it_subscribes_or_serves() {
    let mut bench = Bench::new(false, 10);
    bench.link(1);
    let _ = bench.roster.set_addresses(vec!["/ip4/10.0.0.1/tcp/1".parse().expect("an address")], at(0), &mut bench.fx);
    assert_eq!(bench.sign(), [] as [u64; 0]);
    assert_eq!((bench.roster.version(), bench.roster.announced()), (0, 0));
    let _ = bench.roster.set_services(vec!["shop.price".into()], at(0), &mut bench.fx);
    assert_eq!(bench.sign(), [1]);
    assert_eq!(bench.pushes().len(), 1);
}

#[test]
fn addresses_are_cut_before_anything_else() {
    let mut bench = Bench::new(true, 10);
    let addresses: Vec<Multiaddr> =
        (1..=60u8).map(|host| format!("/dns4/{}{host}/tcp/4001", "x".repeat(200)).parse().expect("good")).collect();
    assert_eq!(bench.roster.set_addresses(addresses, at(0), &mut bench.fx), Fit::Whole);
    let interests = (0..90).map(|n| interest(&format!("{}{n}", "t".repeat(100)))).collect();
    let fit = bench.roster.set_interests(interests, at(0), &mut bench.fx).expect("fits without addresses");
    assert!(matches!(fit, Fit::AddressesCut { kept: 1..60, of: 60 }), "{fit:?}");
    let version = bench.roster.version();
    let interests = (0..200).map(|n| interest(&format!("{}{n}", "t".repeat(100)))).collect();
    let refused = bench.roster.set_interests(interests, at(0), &mut bench.fx).expect_err("too large");
    assert_eq!((refused.limit, bench.roster.version()), (MAX_RECORD, version));
    let many = (0..1_025).map(|n| interest(&format!("t{n}"))).collect();
    assert_eq!(bench.roster.set_interests(many, at(0), &mut bench.fx).map_err(|error| error.limit), Err(1_024));
    assert_eq!(bench.sign(), [1, 2]);
}

#[test]
fn announced_waits_for_the_neighbours_of_that_moment() {
    let mut bench = Bench::linked(&[1, 2]);
    let version = bench.say("orders.*");
    assert_eq!(bench.roster.announced(), version - 1);
    bench.link(3);
    let pushes = bench.pushes();
    let id = |seed| pushes.iter().find(|(to, ..)| *to == peer(seed)).expect("a push").1;
    bench.respond(id(1), Ok(Response::done()));
    assert_eq!(bench.roster.announced(), version - 1);
    bench.respond(id(2), Ok(Response::done()));
    assert_eq!(bench.roster.announced(), version, "3 was not linked then");
}

#[test]
fn announced_waits_for_nobody_who_fails_goes_or_keeps_silent() {
    let mut bench = Bench::linked(&[1, 2, 3]);
    let version = bench.say("orders.*");
    let pushes = bench.pushes();
    let id = |seed| pushes.iter().find(|(to, ..)| *to == peer(seed)).expect("a push").1;
    bench.respond(id(1), Err(RpcFailure::Unknown));
    bench.roster.unlinked(&peer(2), bench.now, &mut bench.fx);
    assert_eq!(bench.roster.announced(), version - 1);
    bench.wait(499);
    assert_eq!(bench.roster.announced(), version - 1);
    bench.wait(1);
    assert_eq!(bench.roster.announced(), version, "3 had its half second");
}

#[test]
fn the_own_record_is_refreshed() {
    let mut bench = Bench::linked(&[]);
    let version = bench.roster.version();
    bench.until(14_999);
    assert_eq!(bench.roster.version(), version);
    bench.until(25_001);
    assert_eq!(bench.roster.version(), version + 1);
}

#[test]
fn a_new_link_hears_of_us_and_compares_at_once() {
    let mut bench = Bench::linked(&[]);
    bench.link(1);
    let sent = bench.sent();
    assert!(matches!(sent[0].2, Request::Push { ref records, .. } if records.len() == 1));
    assert!(matches!(sent[1].2, Request::Digest { ref buckets, .. } if buckets.len() == 256));
}

#[test]
fn news_goes_once_to_the_others_in_batches() {
    let mut bench = Bench::linked(&[1, 2, 3]);
    let news: Vec<SignedRecord> = (10..20).map(|seed| signed(seed, record(seed, 1, 1, 0))).collect();
    bench.push(1, news.clone());
    bench.push(2, vec![news[0].clone()]);
    assert_eq!(bench.pushes().len(), 0, "gathered for 20 ms");
    bench.wait(20);
    let mut pushes = bench.pushes();
    pushes.sort_by_key(|(_, _, records)| records.len());
    let told: Vec<_> = pushes.iter().map(|(to, _, records)| (*to, records.len())).collect();
    assert_eq!(told, [(peer(2), 9), (peer(3), 10)], "not back to 1, and 2 has shown that it knows one");
    bench.push(3, news);
    bench.wait(1_000);
    assert_eq!(bench.pushes().len(), 0, "no news");
}

#[test]
fn sixty_four_records_wait_no_longer() {
    let mut bench = Bench::linked(&[1, 2]);
    bench.push(1, (10..74).map(|seed| signed(seed, record(seed, 1, 1, 0))).collect());
    assert_eq!(bench.pushes().len(), 1);
}

#[test]
fn one_push_at_a_time_then_only_the_newest() {
    let mut bench = Bench::linked(&[1, 2]);
    bench.push(1, vec![signed(10, record(10, 1, 1, 0))]);
    bench.wait(20);
    let first = bench.pushes();
    for version in 2..9 {
        bench.push(1, vec![signed(10, record(10, 1, version, 0))]);
        bench.wait(30);
    }
    assert_eq!(bench.pushes().len(), 0, "one is under way");
    bench.respond(first[0].1, Ok(Response::done()));
    let second = bench.pushes();
    let versions: Vec<u64> = second[0].2.iter().map(|record| record.record.version).collect();
    assert_eq!(versions, [8]);
}

#[test]
fn a_failed_push_is_repeated_with_pauses() {
    let mut bench = Bench::linked(&[1, 2]);
    bench.push(1, vec![signed(10, record(10, 1, 1, 0))]);
    bench.wait(20);
    for _ in 0..4 {
        let pushes = bench.pushes();
        assert_eq!(pushes.len(), 1);
        bench.respond(pushes[0].1, Err(RpcFailure::NotSent));
        assert_eq!(bench.pushes().len(), 0, "not at once");
        let next = bench.roster.next_timeout().expect("a retry");
        bench.until(next.0 / 1_000 + 1);
    }
    bench.roster.unlinked(&peer(2), bench.now, &mut bench.fx);
    bench.pushes();
    bench.wait(5_000);
    assert_eq!(bench.pushes().len(), 0, "not linked any more");
}

#[test]
fn a_late_answer_confirms_nothing() {
    let mut bench = Bench::linked(&[1]);
    bench.say("a");
    let old = bench.pushes()[0].1;
    bench.wait(10_000 + 200);
    let version = bench.say("b");
    bench.respond(old, Ok(Response::done()));
    assert!(bench.roster.neighbours[&peer(1)].outbox.confirmed() < version - 1);
}

#[test]
fn the_highest_stamp_wins() {
    let mut bench = Bench::linked(&[1]);
    assert_eq!(bench.push(1, vec![signed(10, record(10, 2, 3, 0))]), [Change::Joined(peer(10))]);
    for (incarnation, version) in [(2, 3), (2, 2), (1, 9)] {
        assert_eq!(bench.push(1, vec![signed(10, record(10, incarnation, version, 0))]), []);
    }
    assert_eq!(bench.roster.incarnation(&peer(10)), Some(2));
    assert_eq!(bench.push(1, vec![signed(10, record(10, 2, 4, 0))]), [], "a repetition is no change");
    let renamed = RosterRecord { name: "other".into(), ..record(10, 2, 5, 0) };
    assert_eq!(bench.push(1, vec![signed(10, renamed)]), [Change::Updated(peer(10))]);
    assert_eq!(bench.push(1, vec![signed(10, record(10, 3, 1, 0))]), [Change::Restarted(peer(10))]);
}

#[test]
fn records_about_ourselves_are_outbid_or_reported() {
    let mut bench = Bench::linked(&[1]);
    let version = bench.roster.version();
    assert_eq!(bench.push(1, vec![signed(0, record(0, 5, version, 0))]), []);
    assert_eq!(bench.push(1, vec![signed(0, record(0, 4, 99, 0))]), []);
    assert_eq!(bench.roster.version(), version);
    assert_eq!(bench.push(1, vec![signed(0, record(0, 5, 70, 0))]), []);
    assert_eq!(bench.roster.version(), 71);
    assert_eq!(bench.push(1, vec![signed(0, record(0, 5, 80, 0))]), []);
    assert_eq!(bench.sign(), [71, 81]);
    let outrun = [Change::Outrun { incarnation: 6 }];
    assert_eq!(bench.push(1, vec![signed(0, record(0, 6, 1, 0))]), outrun);
    assert_eq!(bench.push(1, vec![signed(0, record(0, 6, 2, 0))]), [], "said once");
    assert!(bench.roster.get(&peer(0)).is_none());
}

#[test]
fn absurd_content_is_refused() {
    let mut bench = Bench::linked(&[1]);
    let good = record(10, 1, 1, 0);
    let absurd = [
        RosterRecord { name: "n".repeat(65), ..good.clone() },
        RosterRecord { name: "a\u{1b}[2J".into(), ..good.clone() },
        RosterRecord { addresses: vec!["/ip4/1.2.3.4/tcp/1".parse().expect("good"); 65], ..good.clone() },
        RosterRecord { interests: vec![interest("t"); 1_025], ..good.clone() },
        RosterRecord { services: vec!["s".into(); 257], ..good.clone() },
        RosterRecord { interests: vec![Interest { pattern: "t".into(), group: Some("\n".into()) }], ..good.clone() },
    ];
    for record in absurd {
        assert_eq!(bench.push(1, vec![signed(10, record)]), []);
        assert!(bench.roster.get(&peer(10)).is_none());
    }
    assert_eq!(bench.push(1, vec![signed(10, good)]), [Change::Joined(peer(10))]);
}

#[test]
fn a_minute_unseen_is_suspect_a_day_is_forgotten() {
    let mut bench = Bench::linked(&[1]);
    bench.push(1, vec![signed(10, record(10, 1, 1, 0))]);
    bench.until(50_000);
    bench.push(1, vec![signed(10, record(10, 1, 2, 50_000))]);
    assert_eq!(bench.until(109_999), []);
    assert_eq!(bench.until(110_000), [Change::Suspect(peer(10))]);
    assert_eq!((bench.roster.live().count(), bench.roster.nodes().count()), (0, 1));
    assert_eq!(bench.roster.providers("shop.price").count(), 0);
    assert!(bench.roster.wanted_shards().is_empty() && bench.roster.find(&NodeName::Peer(peer(10))).is_none());
    bench.until(120_000);
    assert_eq!(bench.push(1, vec![signed(10, record(10, 1, 3, 120_000))]), [Change::Returned(peer(10))]);
    bench.roster.unlinked(&peer(1), bench.now, &mut bench.fx);
    let day = 24 * 60 * 60 * 1_000;
    assert_eq!(bench.until(119_999 + day), [Change::Suspect(peer(10))]);
    assert_eq!(bench.until(120_000 + day), [Change::Forgotten(peer(10))], "a day after the last sign of life");
    assert_eq!(bench.push(1, vec![signed(10, record(10, 1, 3, 120_000))]), [], "old news");
    let now = bench.now.mono.0 / 1_000;
    assert_eq!(bench.push(1, vec![signed(10, record(10, 1, 4, now))]), [Change::Joined(peer(10))]);
}

#[test]
fn a_linked_node_is_never_suspect() {
    let mut bench = Bench::linked(&[10]);
    bench.push(10, vec![signed(10, record(10, 1, 1, 0))]);
    assert_eq!(bench.until(300_000), []);
    bench.roster.unlinked(&peer(10), bench.now, &mut bench.fx);
    assert_eq!(bench.until(360_000), [Change::Suspect(peer(10))]);
    assert_eq!(bench.link(10), [Change::Returned(peer(10))]);
}

#[test]
fn old_news_is_no_sign_of_life_whatever_the_clocks() {
    let mut bench = Bench::linked(&[1]);
    bench.until(1_000_000);
    assert_eq!(bench.push(1, vec![signed(10, record(10, 1, 1, 1_000))]), [], "known, but written long ago");
    assert!(bench.roster.get(&peer(10)).is_some_and(|known| known.presence() == Presence::Suspect));
    bench.until(1_020_000);
    // The same lag again: its clock is late, and it is alive.
    assert_eq!(bench.push(1, vec![signed(10, record(10, 1, 2, 21_000))]), [Change::Returned(peer(10))]);
    bench.push(1, vec![signed(11, record(11, 1, 1, 1_020_000))]);
    bench.until(2_000_000);
    assert_eq!(bench.push(1, vec![signed(11, record(11, 1, 2, 1_040_000))]), [], "ever later: dead");
}

#[test]
fn a_tombstone_beats_its_incarnation_and_a_later_one_revives() {
    let mut bench = Bench::linked(&[1]);
    bench.push(1, vec![signed(10, record(10, 1, 1, 0))]);
    let tombstone = RosterRecord { left: true, ..record(10, 1, 2, 0) };
    assert_eq!(bench.push(1, vec![signed(10, tombstone.clone())]), [Change::Left(peer(10))]);
    assert_eq!(bench.push(1, vec![signed(10, record(10, 1, 1, 0))]), []);
    assert_eq!(bench.roster.live().count(), 0);
    assert_eq!(bench.roster.wanted_since(&peer(10), shard_of("orders")), None);
    let revived = bench.push(1, vec![signed(10, record(10, 2, 1, 0))]);
    assert_eq!(revived, [Change::Restarted(peer(10)), Change::Joined(peer(10))]);
    bench.push(1, vec![signed(10, RosterRecord { left: true, ..record(10, 2, 2, 0) })]);
    assert_eq!(bench.until(599_999), []);
    assert_eq!(bench.until(600_000), [Change::Forgotten(peer(10))]);
    assert_eq!(bench.push(1, vec![signed(10, record(10, 2, 1, 0))]), [], "the grave remembers");
    assert_eq!(bench.push(1, vec![signed(10, tombstone)]), []);
}

#[test]
fn a_full_roster_forgets_the_longest_unseen_suspect_then_refuses() {
    let mut bench = Bench::new(true, 3);
    for (index, seed) in [10, 11, 12].into_iter().enumerate() {
        let millis = 10_000 * index as u64;
        bench.until(millis);
        bench.push(1, vec![signed(seed, record(seed, 1, 1, millis))]);
    }
    assert_eq!(bench.push(1, vec![signed(13, record(13, 1, 1, 20_000))]), [], "all are there");
    assert_eq!(bench.until(75_000), [Change::Suspect(peer(10)), Change::Suspect(peer(11))]);
    let changes = bench.push(1, vec![signed(13, record(13, 1, 1, 75_000))]);
    assert_eq!(changes, [Change::Forgotten(peer(10)), Change::Joined(peer(13))]);
    assert_eq!(bench.push(1, vec![signed(14, record(14, 1, 1, 1_000))]), [], "itself not there");
    assert_eq!(bench.roster.nodes().count(), 3);
}

#[test]
fn leaving_pushes_a_tombstone_and_waits_a_second() {
    let mut bench = Bench::linked(&[1, 2]);
    let version = bench.roster.version();
    bench.roster.leave(bench.now, &mut bench.fx);
    assert!(!bench.roster.left_confirmed());
    assert_eq!(bench.sign(), [version + 1]);
    let pushes = bench.pushes();
    assert!(pushes.iter().all(|(_, _, records)| records[0].record.left && records[0].record.interests.is_empty()));
    bench.respond(pushes[0].1, Ok(Response::done()));
    assert!(!bench.roster.left_confirmed());
    bench.wait(999);
    assert!(!bench.roster.left_confirmed());
    bench.wait(1);
    assert!(bench.roster.left_confirmed());
    bench.wait(60_000);
    assert_eq!(bench.roster.version(), version + 1, "nothing is said after a goodbye");

    let mut bench = Bench::linked(&[1]);
    bench.roster.leave(bench.now, &mut bench.fx);
    bench.sign();
    bench.answer_all();
    assert!(bench.roster.left_confirmed());
    let mut silent = Bench::new(false, 10);
    silent.roster.leave(silent.now, &mut silent.fx);
    assert!(silent.roster.left_confirmed(), "nobody knew of it");
}

#[test]
fn wanted_since_lasts_through_updates_and_ends_with_the_interest_or_the_incarnation() {
    let mut bench = Bench::linked(&[1]);
    let shard = shard_of("orders");
    let other = (0..64).find(|other| *other != shard).expect("64 shards");
    let since = |bench: &Bench, shard| bench.roster.wanted_since(&peer(10), shard).map(|at| at.0 / 1_000);
    bench.push(1, vec![signed(10, record(10, 1, 1, 0))]);
    assert_eq!((since(&bench, shard), since(&bench, other)), (Some(0), None));
    bench.until(1_000);
    let all = RosterRecord { interests: vec![interest("*.eu")], ..record(10, 1, 2, 1_000) };
    bench.push(1, vec![signed(10, all)]);
    assert_eq!((since(&bench, shard), since(&bench, other)), (Some(0), Some(1_000)));
    bench.until(2_000);
    bench.push(1, vec![signed(10, record(10, 1, 3, 2_000))]);
    assert_eq!((since(&bench, shard), since(&bench, other)), (Some(0), None));
    bench.until(3_000);
    bench.push(1, vec![signed(10, record(10, 2, 1, 3_000))]);
    assert_eq!(since(&bench, shard), Some(3_000), "a later start begins afresh");
    bench.push(1, vec![signed(10, RosterRecord { interests: vec![], ..record(10, 2, 2, 3_000) })]);
    assert_eq!(since(&bench, shard), None);
}

#[test]
fn queries_see_the_live_ones() {
    let mut bench = Bench::linked(&[1]);
    bench.push(1, vec![signed(10, record(10, 1, 1, 0)), signed(11, record(11, 1, 1, 0))]);
    let mut providers: Vec<PeerId> = bench.roster.providers("shop.price").map(Known::peer).collect();
    providers.sort_unstable();
    let mut both = [peer(10), peer(11)];
    both.sort_unstable();
    assert_eq!(providers, both);
    assert_eq!(bench.roster.find(&NodeName::Name("node-10".into())).map(Known::peer), Some(peer(10)));
    assert_eq!(bench.roster.by_name("node-12").count(), 0);
    let before = bench.roster.interests(&peer(10)).expect("known");
    bench.push(1, vec![signed(10, RosterRecord { name: "ten".into(), services: vec![], ..record(10, 1, 2, 0) })]);
    assert!(Arc::ptr_eq(&before, &bench.roster.interests(&peer(10)).expect("known")), "built once");
    assert_eq!(bench.roster.by_name("node-10").count(), 0);
    assert_eq!(bench.roster.by_name("ten").count(), 1);
    assert_eq!(bench.roster.providers("shop.price").map(Known::peer).collect::<Vec<_>>(), [peer(11)]);
    assert_eq!(bench.roster.wanted_shards(), ShardSet::of(shard_of("orders")));
}

#[test]
fn what_was_saved_is_known_but_suspect() {
    let mut bench = Bench::linked(&[1]);
    bench.push(1, vec![signed(10, record(10, 1, 1, 0))]);
    let saved: Vec<SignedRecord> =
        bench.roster.to_save().into_iter().map(|bytes| SignedRecord::open(MESH, bytes).expect("good")).collect();
    assert_eq!(saved.len(), 1);
    let mut bench = Bench::new(true, 10);
    bench.roster.remember(saved.clone(), bench.now);
    assert_eq!((bench.roster.live().count(), bench.roster.nodes().count()), (0, 1));
    assert_eq!(bench.push(1, saved), [], "the same record is no sign of life");
    assert_eq!(bench.push(1, vec![signed(10, record(10, 1, 2, 0))]), [Change::Returned(peer(10))]);
}

#[test]
fn a_digest_is_answered_in_parts_that_rotate() {
    let mut bench = Bench::new(true, 10_000);
    for seed in 10..110 {
        bench.push(1, vec![signed(seed, record(seed, 1, 1, 0))]);
    }
    let differ = |response| match response {
        Response::Differ { buckets, summaries, .. } => (buckets, summaries),
        other => panic!("{other:?}"),
    };
    let (buckets, summaries) = differ(bench.roster.on_digest(&[0; 256]));
    assert_eq!(summaries.len(), 100);
    assert!(buckets.len() > 50);
    let same = bench.roster.digest().to_vec();
    assert_eq!(differ(bench.roster.on_digest(&same)), (vec![], vec![]));
    assert_eq!(differ(bench.roster.on_digest(&[0; 3])), (vec![], vec![]), "no digest at all");
}

#[test]
fn a_fetch_is_answered_with_what_fits_and_the_rest_is_asked_for_again() {
    let mut full = Bench::new(true, 1_000);
    let interests: Vec<Interest> = (0..100).map(|n| interest(&format!("{}{n}", "t".repeat(140)))).collect();
    for seed in 10..70 {
        let large = RosterRecord { interests: interests.clone(), ..record(seed, 1, 1, 0) };
        full.push(1, vec![signed(seed, large)]);
    }
    let mut empty = Bench::new(true, 1_000);
    empty.link(9);
    let mut fetches = 0;
    loop {
        let sent = empty.sent();
        if sent.is_empty() {
            break;
        }
        for (_, id, request) in sent {
            let response = match request {
                Request::Digest { buckets, .. } => full.roster.on_digest(&buckets),
                Request::Fetch { nodes, .. } => {
                    fetches += 1;
                    full.roster.on_fetch(&nodes)
                }
                other => panic!("{other:?}"),
            };
            assert!(response.encode().expect("encodes").len() < 1024 * 1024);
            empty.respond(id, Ok(response));
        }
    }
    assert_eq!((empty.roster.live().count(), fetches), (60, 2));
}

#[test]
fn an_answer_to_nothing_changes_nothing() {
    let mut bench = Bench::linked(&[1]);
    let stray = Ok(Checked { body: Response::done(), frames: vec![], records: vec![signed(10, record(10, 1, 1, 0))] });
    let asked = Asked::Fetch { peer: peer(1) };
    assert_eq!(bench.roster.on_response(RpcId(999), &asked, stray, bench.now, &mut bench.fx), []);
    assert!(bench.roster.get(&peer(10)).is_none());
    assert_eq!(bench.roster.own.stamp(), Stamp { incarnation: 5, version: 1 });
}
