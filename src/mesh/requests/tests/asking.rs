//! The asker's rules.

use super::*;

#[test]
fn the_reply_is_the_answer_also_when_it_refuses() {
    for status in [ReplyStatus::Ok, ReplyStatus::Refused, ReplyStatus::Denied] {
        let mut rig = Rig::new();
        let one = rig.provider(1, true);
        rig.ask();
        let (rpc, to, call) = rig.sent();
        assert_eq!((to, call.timeout, &call.body[..]), (one, 2_000, &b"?"[..]));
        rig.respond_status(rpc, status);
        assert_eq!(rig.answered(), (one, status));
        assert!(rig.requests.is_idle());
    }
}

#[test]
fn it_goes_on_to_the_next_while_it_certainly_did_not_run() {
    let not_run = [
        Ok(Response::Reply(reply(ReplyStatus::Busy))),
        Ok(Response::Reply(reply(ReplyStatus::NoService))),
        Err(RpcFailure::NotSent),
    ];
    for result in not_run {
        let mut rig = Rig::new();
        let (one, two) = (rig.provider(1, true), rig.provider(2, true));
        rig.ask();
        let (first, to, _) = rig.sent();
        assert_eq!(to, one);
        rig.respond(first, result);
        let (second, to, _) = rig.sent();
        assert_eq!(to, two);
        rig.respond_status(second, ReplyStatus::Ok);
        assert_eq!(rig.answered(), (two, ReplyStatus::Ok));
        assert!(rig.requests.is_idle());
    }
}

#[test]
fn what_may_have_run_is_never_sent_again() {
    let may_have_run =
        [Ok(Response::Reply(reply(ReplyStatus::Unanswered))), Ok(Response::done()), Err(RpcFailure::Unknown)];
    for result in may_have_run {
        let mut rig = Rig::new();
        rig.provider(1, true);
        rig.provider(2, true);
        rig.ask();
        let (rpc, ..) = rig.sent();
        rig.respond(rpc, result);
        assert_eq!(rig.failed(), AskFailure::Unknown);
        assert!(rig.requests.is_idle());
    }
}

#[test]
fn when_nobody_is_left_the_verdict_says_why() {
    let busy = || Ok(Response::Reply(reply(ReplyStatus::Busy)));
    let no_service = || Ok(Response::Reply(reply(ReplyStatus::NoService)));
    let not_sent = || Err(RpcFailure::NotSent);
    for (first, second, verdict) in [
        (busy(), busy(), AskFailure::Busy),
        (busy(), no_service(), AskFailure::Busy),
        (busy(), not_sent(), AskFailure::NotSent),
        (no_service(), no_service(), AskFailure::Nobody),
    ] {
        let mut rig = Rig::new();
        rig.provider(1, true);
        rig.provider(2, true);
        rig.ask();
        for result in [first, second] {
            let (rpc, ..) = rig.sent();
            rig.respond(rpc, result);
        }
        assert_eq!(rig.failed(), verdict);
    }
}

#[test]
fn the_least_busy_comes_first_then_the_nearest_then_the_linked() {
    let mut rig = Rig::new();
    let (near, far, unlinked) = (rig.provider(1, true), rig.provider(2, true), rig.provider(3, false));
    rig.book.nodes.get_mut(&unlinked).expect("there").round_trip = None;
    rig.ask();
    assert_eq!(rig.sent().1, near);
    rig.ask();
    assert_eq!(rig.sent().1, far);
    rig.ask();
    assert_eq!(rig.dials(), [unlinked]);
    rig.ask();
    assert_eq!(rig.sent().1, near);

    rig.book.nodes.get_mut(&far).expect("there").round_trip = None;
    rig.book.nodes.remove(&near);
    // Again and again, since the dice would get it right half of the time.
    for seed in 0..20 {
        rig.requests = Requests::new(peer(0), "me", &Limits::default());
        rig.fx = Effects::new(seed);
        rig.ask();
        assert_eq!(rig.sent().1, far, "of two whose distance is unknown the linked one");
    }
}

#[test]
fn equals_share() {
    let mut rig = Rig::new();
    for seed in 1..=4 {
        let provider = rig.provider(seed, true);
        rig.book.nodes.get_mut(&provider).expect("there").round_trip = None;
    }
    let mut chosen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        rig.ask();
        let (rpc, to, _) = rig.sent();
        chosen.insert(to);
        rig.respond_status(rpc, ReplyStatus::Ok);
        rig.answered();
    }
    assert_eq!(chosen.len(), 4);
}

#[test]
fn without_a_link_it_waits_for_one() {
    let mut rig = Rig::new();
    let one = rig.provider(1, false);
    rig.ask();
    rig.ask();
    assert_eq!(rig.dials(), [one], "one wish for both");
    assert!(rig.outputs().is_empty());
    rig.now = rig.now + Span::millis(300);
    rig.book.nodes.get_mut(&one).expect("there").linked = true;
    rig.requests.linked(one, rig.now, &mut rig.fx);
    let timeouts: Vec<u64> = rig
        .outputs()
        .iter()
        .map(|output| match output {
            Output::Send { request: Request::Call(call), .. } => call.timeout,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(timeouts, [1_700, 1_700], "what is left");
    assert!(rig.dials().is_empty());
}

#[test]
fn a_dial_that_fails_leads_to_the_next_and_at_last_to_not_sent() {
    let mut rig = Rig::new();
    rig.provider(1, false);
    rig.provider(2, false);
    rig.ask();
    let first = rig.dials();
    rig.requests.unreachable(first[0], &rig.book, rig.now, &mut rig.fx);
    let second = rig.dials();
    assert_ne!(first, second);
    assert!(rig.outputs().is_empty());
    rig.requests.unreachable(second[0], &rig.book, rig.now, &mut rig.fx);
    assert_eq!(rig.failed(), AskFailure::NotSent);
    assert!(rig.requests.is_idle());
}

#[test]
fn a_parked_request_moves_to_a_link_that_stands_and_off_a_provider_that_left() {
    let mut rig = Rig::new();
    let one = rig.provider(1, false);
    rig.ask();
    rig.change();
    assert_eq!(rig.dials(), [one], "nothing better: it stays, and the wish is not told twice");
    let two = rig.provider(2, true);
    rig.change();
    assert_eq!(rig.sent().1, two);

    let mut rig = Rig::new();
    let one = rig.provider(1, false);
    rig.ask();
    rig.book.nodes.remove(&one);
    rig.change();
    assert_eq!(rig.failed(), AskFailure::Nobody);
    assert!(rig.requests.is_idle());
}

#[test]
fn nobody_is_said_at_once_if_the_roster_is_settled() {
    let mut rig = Rig::new();
    rig.ask();
    assert_eq!(rig.failed(), AskFailure::Nobody);
}

#[test]
fn a_node_that_has_just_started_waits_for_its_roster() {
    let mut rig = Rig::new();
    rig.book.unsettled = true;
    rig.ask();
    rig.ask_with(ask("other", Span::secs(2)));
    assert!(rig.outputs().is_empty());
    rig.provider(1, true);
    rig.change();
    let (rpc, ..) = rig.sent();
    rig.respond_status(rpc, ReplyStatus::Ok);
    rig.answered();
    rig.book.unsettled = false;
    rig.change();
    assert_eq!(rig.failed(), AskFailure::Nobody);

    rig.book.unsettled = true;
    rig.ask_with(ask("other", Span::secs(2)));
    rig.pass(Span::secs(2));
    assert_eq!(rig.failed(), AskFailure::Nobody);
    assert!(rig.requests.is_idle());
}

#[test]
fn a_busy_provider_is_an_answer_even_if_more_may_be_heard_of() {
    let mut rig = Rig::new();
    rig.book.unsettled = true;
    rig.provider(1, true);
    rig.ask();
    let (rpc, ..) = rig.sent();
    rig.respond_status(rpc, ReplyStatus::Busy);
    assert_eq!(rig.failed(), AskFailure::Busy);
}

#[test]
fn a_named_node_is_asked_and_no_other() {
    let mut rig = Rig::new();
    rig.provider(1, true);
    let two = rig.provider(2, true);
    let named = |name: &str| Ask { to: Some(NodeName::Name(name.into())), ..ask("svc", Span::secs(2)) };
    rig.ask_with(named("n2"));
    let (rpc, to, _) = rig.sent();
    assert_eq!(to, two);
    rig.respond_status(rpc, ReplyStatus::Busy);
    assert_eq!(rig.failed(), AskFailure::Busy);
    rig.ask_with(named("n3"));
    assert_eq!(rig.failed(), AskFailure::NoNode);
    rig.ask_with(Ask { service: "other".into(), ..named("n2") });
    assert_eq!(rig.failed(), AskFailure::NoNode, "it is there and does not serve that");
    rig.ask_with(named("n2"));
    let (rpc, ..) = rig.sent();
    rig.respond(rpc, Err(RpcFailure::NotSent));
    assert_eq!(rig.failed(), AskFailure::NoNode);
}

#[test]
fn of_several_with_the_name_none_is_asked_unless_only_one_serves_it() {
    let mut rig = Rig::new();
    let nodes = vec![rig.provider(1, true), rig.provider(2, true)];
    for node in &nodes {
        rig.book.nodes.get_mut(node).expect("known").name = "twin".to_owned();
    }
    let twin = Ask { to: Some(NodeName::Name("twin".into())), ..ask("svc", Span::secs(2)) };
    rig.ask_with(twin.clone());
    let AskFailure::Ambiguous { nodes: mut named } = rig.failed() else { panic!("asked one of them") };
    named.sort_unstable();
    let mut both = nodes.clone();
    both.sort_unstable();
    assert_eq!(named, both);
    rig.ask_with(Ask { to: Some(NodeName::Peer(nodes[1])), ..twin.clone() });
    assert_eq!(rig.sent().1, nodes[1], "an id says who is meant");
    rig.book.nodes.get_mut(&nodes[0]).expect("known").services.clear();
    rig.ask_with(twin);
    assert_eq!(rig.sent().1, nodes[1]);
}

#[test]
fn the_deadline_before_sending_and_after() {
    let mut rig = Rig::new();
    let one = rig.provider(1, false);
    rig.ask();
    rig.pass(Span(1_999_999));
    assert!(rig.outputs().is_empty());
    rig.pass(Span(1));
    assert_eq!(rig.failed(), AskFailure::NotSent);
    assert!(rig.dials().is_empty(), "the wish goes with the last who had it");

    rig.book.nodes.get_mut(&one).expect("there").linked = true;
    rig.ask();
    let (rpc, _, sent) = rig.sent();
    assert_eq!(rig.requests.next_timeout(), Some(rig.now + Span::secs(2)));
    rig.pass(Span::secs(2));
    let outputs = rig.outputs();
    assert!(matches!(&outputs[0], Output::Send { to, request: Request::Cancel { call, .. }, .. }
        if *to == one && *call == sent.call));
    assert!(matches!(&outputs[1], Output::Answer { answer: Answer::Failed(AskFailure::Unknown), .. }));
    assert!(rig.requests.is_idle());
    rig.respond_status(rpc, ReplyStatus::Ok);
    assert!(rig.outputs().is_empty());
}

#[test]
fn no_time_at_all_sends_nothing_and_too_much_is_cut() {
    let mut rig = Rig::new();
    rig.provider(1, true);
    rig.ask_with(ask("svc", Span(0)));
    assert_eq!(rig.failed(), AskFailure::NotSent);
    rig.ask_with(ask("svc", Span(1)));
    assert_eq!(rig.sent().2.timeout, 1, "less than a millisecond is not none");
    rig.ask_with(ask("svc", Span(u64::MAX)));
    assert_eq!(rig.sent().2.timeout, MAX_TIMEOUT.0 / 1_000);
}

#[test]
fn an_asker_that_goes_cancels() {
    let mut rig = Rig::new();
    let one = rig.provider(1, true);
    let ticket = rig.ask();
    let (rpc, _, sent) = rig.sent();
    rig.requests.abandoned(ticket, &rig.book, rig.now, &mut rig.fx);
    let outputs = rig.outputs();
    let [Output::Send { id, to, request: Request::Cancel { call, .. } }] = outputs.as_slice() else {
        panic!("{outputs:?}")
    };
    assert_eq!((*to, *call), (one, sent.call));
    assert_eq!(rig.fx.answered(*id), Some(Asked::Told));
    assert!(rig.requests.is_idle());
    rig.respond_status(rpc, ReplyStatus::Ok);
    assert!(rig.outputs().is_empty());

    rig.book.nodes.get_mut(&one).expect("there").linked = false;
    let ticket = rig.ask();
    rig.requests.abandoned(ticket, &rig.book, rig.now, &mut rig.fx);
    assert!(rig.outputs().is_empty() && rig.dials().is_empty(), "nothing was sent, nothing to cancel");
}

#[test]
fn an_answer_to_an_earlier_attempt_is_not_taken() {
    let mut rig = Rig::new();
    rig.provider(1, true);
    let two = rig.provider(2, true);
    let ticket = rig.ask();
    let (first, _, call) = rig.sent();
    rig.respond_status(first, ReplyStatus::Busy);
    let (second, ..) = rig.sent();
    let stale = Ok(Response::Reply(reply(ReplyStatus::Ok)));
    rig.requests.on_response((ticket, call.call), stale, &rig.book, rig.now, &mut rig.fx);
    let failure = Err(RpcFailure::Unknown);
    rig.requests.on_response((ticket, call.call), failure, &rig.book, rig.now, &mut rig.fx);
    assert!(rig.outputs().is_empty());
    rig.respond_status(second, ReplyStatus::Ok);
    assert_eq!(rig.answered(), (two, ReplyStatus::Ok));
}

#[test]
fn a_lost_link_fails_what_was_sent_over_it() {
    let mut rig = Rig::new();
    let (one, two) = (rig.provider(1, true), rig.provider(2, true));
    rig.ask();
    let (_, to, _) = rig.sent();
    assert_eq!(to, one);
    rig.requests.unlinked(two, &mut rig.fx);
    assert!(rig.outputs().is_empty());
    rig.requests.unlinked(one, &mut rig.fx);
    assert_eq!(rig.failed(), AskFailure::Unknown);
    assert!(rig.requests.is_idle());
}

#[test]
fn ten_thousand_may_be_open_and_no_more() {
    let mut rig = Rig::new();
    rig.provider(1, true);
    rig.provider(2, true);
    for _ in 0..10_000 {
        rig.ask();
    }
    let mut out = calls(&mut rig);
    rig.ask();
    assert_eq!(rig.failed(), AskFailure::TooMany { limit: 10_000 });
    let mut answered = 0;
    while let Some((rpc, _)) = out.pop_front() {
        rig.respond_status(rpc, ReplyStatus::Ok);
        answered += 1;
        out.extend(calls(&mut rig));
    }
    assert_eq!(answered, 10_000);
    assert!(rig.requests.is_idle());
}

/// Calls that went out, in order.
fn calls(rig: &mut Rig) -> std::collections::VecDeque<(RpcId, PeerId)> {
    let outputs = rig.outputs().into_iter();
    let sent = outputs.filter_map(|output| match output {
        Output::Send { id, to, request: Request::Call(_) } => Some((id, to)),
        Output::Answer { .. } => None,
        other => panic!("{other:?}"),
    });
    sent.collect()
}

#[test]
fn more_requests_than_a_connection_carries_wait_for_their_turn() {
    let mut rig = Rig::new();
    rig.provider(1, true);
    for _ in 0..3_000 {
        rig.ask();
    }
    let mut out = calls(&mut rig);
    assert_eq!(out.len(), 1_024);
    let mut served = 0;
    while let Some((rpc, _)) = out.pop_front() {
        rig.respond_status(rpc, ReplyStatus::Ok);
        served += 1;
        out.extend(calls(&mut rig));
        assert!(out.len() <= 1_024);
    }
    assert_eq!(served, 3_000);
    assert!(rig.requests.is_idle());
}

#[test]
fn what_waits_for_its_turn_counts_and_moves_when_the_link_goes() {
    let mut rig = Rig::new();
    let one = rig.provider(1, true);
    for _ in 0..1_030 {
        rig.ask();
    }
    assert_eq!(calls(&mut rig).len(), 1_024);
    // Another provider has less to do than the queue, for what is new and for what was not sent.
    let two = rig.provider(2, true);
    rig.ask();
    rig.change();
    let moved = calls(&mut rig);
    assert!(moved.len() == 7 && moved.iter().all(|(_, to)| *to == two), "{moved:?}");

    let mut rig = Rig::new();
    rig.provider(1, true);
    for _ in 0..1_030 {
        rig.ask();
    }
    rig.outputs();
    rig.book.nodes.get_mut(&one).expect("there").linked = false;
    rig.requests.unlinked(one, &mut rig.fx);
    assert_eq!(rig.outputs().len(), 1_024, "those that were sent may have run");
    assert_eq!(rig.dials(), [one]);
    rig.book.nodes.get_mut(&one).expect("there").linked = true;
    rig.requests.linked(one, rig.now, &mut rig.fx);
    assert_eq!(calls(&mut rig).len(), 6);
}

#[test]
fn a_call_that_nobody_waits_for_holds_its_place_until_it_is_answered() {
    let mut rig = Rig::new();
    rig.provider(1, true);
    for _ in 0..1_025 {
        rig.ask();
    }
    let out = calls(&mut rig);
    rig.requests.abandoned(Ticket(1), &rig.book, rig.now, &mut rig.fx);
    assert!(matches!(rig.outputs().as_slice(), [Output::Send { request: Request::Cancel { .. }, .. }]));
    rig.respond_status(out[0].0, ReplyStatus::Unanswered);
    assert_eq!(calls(&mut rig).len(), 1);

    rig.ask();
    rig.pass(Span::secs(2));
    let failed = |output: &Output| matches!(output, Output::Answer { answer: Answer::Failed(AskFailure::NotSent), .. });
    assert_eq!(rig.outputs().iter().filter(|output| failed(output)).count(), 1, "what was never sent says so");
}

#[test]
fn providers_are_listed_in_the_order_in_which_they_would_be_asked() {
    let mut rig = Rig::new();
    let (far, near, unlinked) = (rig.provider(9, true), rig.provider(2, true), rig.provider(1, false));
    rig.requests.serve(ProviderId(1), "svc".into(), 1).expect("below the limit");
    let list = |rig: &mut Rig, service| rig.requests.providers(service, &rig.book, &mut rig.fx);
    assert_eq!(list(&mut rig, "svc"), [peer(0), near, far, unlinked]);
    assert_eq!(list(&mut rig, "other"), []);
    let mut to_near = ask("svc", Span::secs(2));
    to_near.to = Some(NodeName::Peer(near));
    rig.ask_with(to_near);
    assert_eq!(list(&mut rig, "svc"), [peer(0), far, unlinked, near], "who has work comes later");
    // Between equals the dice decide.
    for seed in 10..20 {
        rig.provider(seed, true);
        rig.book.nodes.get_mut(&peer(seed)).expect("there").round_trip = Some(Span(1));
    }
    let orders: std::collections::BTreeSet<_> = (0..20).map(|_| list(&mut rig, "svc")).collect();
    assert!(orders.len() > 10, "{} orders", orders.len());
}
