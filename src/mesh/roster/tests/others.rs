//! What a node knows of others, and how two rosters are compared.

use super::*;

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
fn a_minute_unseen_is_suspect_a_day_is_forgotten() {
    let mut bench = Bench::linked(&[1]);
    bench.push(1, vec![signed(10, record(10, 1, 1, 0))]);
    bench.until(50_000);
    bench.push(1, vec![signed(10, record(10, 1, 2, 50_000))]);
    assert_eq!(bench.until(109_999), []);
    assert_eq!(bench.until(110_000), [Change::Suspect(peer(10))]);
    assert_eq!((bench.roster.live().count(), bench.roster.nodes().count()), (0, 1));
    assert_eq!(bench.roster.providers("shop.price").count(), 0);
    assert!(bench.roster.wanted_shards().is_empty() && bench.roster.find(&NodeName::Peer(peer(10))).is_empty());
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
    let found = bench.roster.find(&NodeName::Name("node-10".into()));
    assert_eq!(found.into_iter().map(Known::peer).collect::<Vec<_>>(), [peer(10)]);
    assert_eq!(bench.roster.by_name("node-12").count(), 0);
    let before = bench.roster.get(&peer(10)).expect("known").interests();
    bench.push(1, vec![signed(10, RosterRecord { name: "ten".into(), services: vec![], ..record(10, 1, 2, 0) })]);
    assert!(std::sync::Arc::ptr_eq(&before, &bench.roster.get(&peer(10)).expect("known").interests()), "built once");
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
    for number in 0..5_120u16 {
        let mut node = [5; 32];
        node[..2].copy_from_slice(&number.to_le_bytes());
        let record = RosterRecord { node: NodeKey(node), ..record(1, 1, 1, 0) };
        let peer = record.node.peer().expect("a peer id");
        bench.push(1, vec![SignedRecord { bytes: Bytes::new(), node: peer, record }]);
    }
    let differ = |response| match response {
        Response::Differ { buckets, summaries, .. } => (buckets, summaries),
        other => panic!("{other:?}"),
    };
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let (buckets, summaries) = differ(bench.roster.on_digest(&[0; 256]));
        assert!((3_000..=4_096).contains(&summaries.len()));
        told.extend(buckets);
    }
    assert_eq!(told.len(), 256, "all buckets had their turn");
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
    let stray = Ok(Checked { records: vec![signed(10, record(10, 1, 1, 0))], ..Response::done().into() });
    let asked = Asked::Fetch { peer: peer(1) };
    assert_eq!(bench.roster.on_response(RpcId(999), &asked, stray, bench.now, &mut bench.fx), []);
    assert!(bench.roster.get(&peer(10)).is_none());
    assert_eq!(bench.roster.own.stamp(), Stamp { incarnation: 5, version: 1 });
}

#[test]
fn much_fetched_news_is_compared_with_the_others_not_pushed() {
    for (count, pushes) in [(64, 1), (65, 0)] {
        let mut bench = Bench::linked(&[2]);
        bench.link(1);
        let records: Vec<SignedRecord> = (10..10 + count).map(|seed| signed(seed, record(seed, 1, 1, 0))).collect();
        let summaries: Vec<_> = records
            .iter()
            .map(|record| crate::wire::rpc::Summary { node: record.record.node, stamp: record.stamp() })
            .collect();
        let differ = Response::Differ { buckets: (0..=255).collect(), summaries, extensions: vec![] };
        let digest = bench.sent().into_iter().find(|(_, _, request)| matches!(request, Request::Digest { .. }));
        bench.respond(digest.expect("a digest").1, Ok(differ));
        let fetch = bench.sent().into_iter().find(|(_, _, request)| matches!(request, Request::Fetch { .. }));
        let records = records.into_iter().map(|record| record.bytes).collect();
        bench.respond(fetch.expect("a fetch").1, Ok(Response::Records { records, extensions: vec![] }));
        bench.wait(700);
        let sent = bench.sent().into_iter().filter(|(to, ..)| *to == peer(2)).map(|(_, _, request)| request);
        let (told, compared): (Vec<_>, Vec<_>) = sent.partition(|request| matches!(request, Request::Push { .. }));
        assert_eq!((told.len(), compared.len()), (pushes, 1 - pushes), "{count} records");
    }
}

#[test]
fn a_lost_link_that_cannot_be_made_again_makes_suspect_at_once() {
    let mut bench = Bench::linked(&[1, 10]);
    bench.push(10, vec![signed(10, record(10, 1, 1, 0))]);
    bench.push(1, vec![signed(11, record(11, 1, 1, 0))]);
    assert_eq!(bench.roster.unreachable(&peer(10)), None, "it is linked");
    assert_eq!(bench.roster.unreachable(&peer(11)), None, "it may be reached through others");
    bench.roster.unlinked(&peer(10), bench.now, &mut bench.fx);
    assert_eq!(bench.roster.unreachable(&peer(10)), Some(Change::Suspect(peer(10))));
    assert_eq!(bench.roster.unreachable(&peer(10)), None, "said once");
    let live: Vec<PeerId> = bench.roster.live().map(Known::peer).collect();
    assert_eq!(live, [peer(11)]);
    assert_eq!(bench.roster.wanted_shards(), ShardSet::of(shard_of("orders")), "others may still want it passed on");

    bench.until(20_000);
    assert_eq!(bench.push(1, vec![signed(10, record(10, 1, 2, 20_000))]), [Change::Returned(peer(10))]);
    assert_eq!(bench.roster.unreachable(&peer(10)), None, "it was heard of since: no flapping");
    bench.link(10);
    bench.roster.unlinked(&peer(10), bench.now, &mut bench.fx);
    assert_eq!(bench.roster.unreachable(&peer(10)), Some(Change::Suspect(peer(10))));
    assert_eq!(bench.link(10), [Change::Returned(peer(10))]);
}

#[test]
fn who_could_not_be_dialled_is_not_told_of_until_its_record_is_no_sign_of_life() {
    let mut bench = Bench::linked(&[1, 10]);
    bench.push(10, vec![signed(10, record(10, 1, 1, 0))]);
    bench.roster.unlinked(&peer(10), bench.now, &mut bench.fx);
    bench.roster.unreachable(&peer(10));
    let node = NodeKey::of(&peer(10)).expect("an Ed25519 key");
    let told = |bench: &mut Bench| {
        let summarised = match bench.roster.on_digest(&[0; 256]) {
            Response::Differ { summaries, .. } => summaries.iter().any(|summary| summary.node == node),
            other => panic!("{other:?}"),
        };
        let fetched = match bench.roster.on_fetch(&[node]) {
            Response::Records { records, .. } => records.len(),
            other => panic!("{other:?}"),
        };
        (summarised, fetched)
    };
    bench.wait(100);
    assert!(bench.pushes().iter().all(|(.., records)| records.iter().all(|record| record.node != peer(10))));
    assert_eq!(told(&mut bench), (false, 0));
    assert_eq!(bench.until(59_999), []);
    assert_eq!(told(&mut bench), (false, 0));
    assert_eq!(bench.until(60_001), []);
    assert_eq!(told(&mut bench), (true, 1));
    assert_eq!(bench.roster.nodes().filter(|known| known.presence() == Presence::Suspect).count(), 1);
    bench.roster.unlinked(&peer(1), bench.now, &mut bench.fx);
    assert_eq!(bench.until(24 * 60 * 60 * 1_000), [Change::Forgotten(peer(10))]);
}

#[test]
fn who_is_suspect_is_saved_too_and_who_said_goodbye_is_not() {
    let mut bench = Bench::linked(&[1]);
    bench.push(1, vec![signed(10, record(10, 1, 1, 0)), signed(11, record(11, 1, 1, 0))]);
    bench.push(1, vec![signed(11, RosterRecord { left: true, ..record(11, 1, 2, 0) })]);
    bench.until(61_000);
    assert_eq!(bench.roster.live().count(), 0);
    assert_eq!(bench.roster.to_save(), [signed(10, record(10, 1, 1, 0)).bytes]);
}
