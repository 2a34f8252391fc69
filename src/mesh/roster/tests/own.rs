//! What a node says of itself, and how it tells its neighbours.

use super::*;

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
    let (mut version, mut last, mut pauses) = (bench.roster.version(), 0, Vec::new());
    for millis in (0..120_000).step_by(100) {
        bench.until(millis);
        if bench.roster.version() > version {
            pauses.push(millis - last);
            (version, last) = (bench.roster.version(), millis);
        }
    }
    // Sooner after the start, and each more or less a quarter.
    for (pause, mean) in pauses.iter().zip([2_000, 4_000, 8_000, 16_000, 20_000, 20_000]) {
        assert!((mean * 3 / 4..=mean * 5 / 4 + 100).contains(pause), "{pauses:?}");
    }
    assert!(pauses.len() >= 6, "{pauses:?}");
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
    bench.wait(1_000);
    let second = bench.pushes();
    let versions: Vec<u64> = second[0].2.iter().map(|record| record.record.version).collect();
    assert_eq!(versions, [8]);
}

#[test]
fn what_only_repeats_itself_waits_for_company() {
    let mut bench = Bench::linked(&[1, 2]);
    bench.push(1, vec![signed(10, record(10, 1, 1, 0)), signed(11, record(11, 1, 1, 0))]);
    bench.wait(20);
    let first = bench.pushes();
    assert_eq!(first[0].2.len(), 2);
    bench.respond(first[0].1, Ok(Response::done()));
    bench.push(1, vec![signed(10, record(10, 1, 2, 0))]);
    bench.wait(900);
    assert_eq!(bench.pushes().len(), 0, "it says nothing new");
    // What does takes along what waits.
    bench.push(1, vec![signed(11, RosterRecord { relay: true, ..record(11, 1, 2, 0) })]);
    bench.wait(20);
    let second = bench.pushes();
    assert_eq!((second.len(), second[0].2.len()), (1, 2));
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
    assert!(bench.pushes().iter().all(|(to, ..)| *to != peer(2)), "not linked any more");
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
