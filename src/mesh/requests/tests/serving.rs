//! The provider's rules.

use super::*;

fn serving(room: u32) -> Rig {
    let mut rig = Rig::new();
    rig.requests.serve(ProviderId(1), "svc".into(), room).expect("below the limit");
    rig
}

#[test]
fn a_call_goes_to_the_handler_and_its_reply_back() {
    let mut rig = serving(1);
    rig.incoming(1, 5, 700);
    let outputs = rig.outputs();
    let [Output::Serve { provider: ProviderId(1), call }] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!((call.from, call.timeout), (peer(1), Span::millis(700)));
    rig.handled(call.id, ReplyStatus::Ok);
    assert_eq!(rig.replied(), (InboundId(5), ReplyStatus::Ok));
    assert!(rig.requests.is_idle());
    rig.handled(call.id, ReplyStatus::Ok);
    assert!(rig.outputs().is_empty(), "a second reply goes nowhere");
}

#[test]
fn what_it_does_not_serve_it_says_so() {
    let mut rig = serving(1);
    for service in ["other", "", "svc ", "SVC", ">"] {
        rig.requests.on_call(peer(1), InboundId(5), call(5, service, 100), rig.now, &mut rig.fx);
        assert_eq!(rig.replied(), (InboundId(5), ReplyStatus::NoService), "{service:?}");
    }
}

#[test]
fn without_room_it_is_busy_at_once_and_the_room_comes_back() {
    let mut rig = serving(1);
    rig.incoming(1, 1, 100);
    let (_, id) = rig.served();
    rig.incoming(1, 2, 100);
    assert_eq!(rig.replied(), (InboundId(2), ReplyStatus::Busy));
    rig.handled(id, ReplyStatus::Unanswered);
    assert_eq!(rig.replied(), (InboundId(1), ReplyStatus::Unanswered));
    rig.incoming(1, 3, 100);
    rig.served();
}

#[test]
fn a_thousand_askers_and_room_for_one() {
    let mut rig = serving(1);
    for number in 0..1_000 {
        rig.incoming(u8::try_from(number % 200 + 1).expect("small"), number, 1_000);
    }
    let outputs = rig.outputs();
    let count = |wanted: fn(&Output) -> bool| outputs.iter().filter(|output| wanted(output)).count();
    assert_eq!(count(|output| matches!(output, Output::Serve { .. })), 1);
    let busy = |output: &Output| {
        matches!(output, Output::Reply { response: Response::Reply(reply), .. }
        if reply.status == ReplyStatus::Busy)
    };
    assert_eq!(count(busy), 999);
    rig.handled(CallId(0), ReplyStatus::Ok);
    assert_eq!(rig.replied(), (InboundId(0), ReplyStatus::Ok));
    assert!(rig.requests.is_idle());
}

#[test]
fn the_provider_with_the_most_room_takes_the_call() {
    let mut rig = serving(1);
    rig.requests.serve(ProviderId(2), "svc".into(), 3).expect("below the limit");
    let mut takers = Vec::new();
    for number in 0..4 {
        rig.incoming(1, number, 100);
        takers.push(rig.served().0.0);
    }
    assert_eq!(takers, [2, 2, 1, 2]);
    rig.incoming(1, 5, 100);
    assert_eq!(rig.replied().1, ReplyStatus::Busy);
}

#[test]
fn a_cancel_stops_the_handler_and_keeps_its_room_until_it_is_done() {
    let mut rig = serving(1);
    rig.incoming(1, 1, 100);
    let (_, id) = rig.served();
    rig.requests.on_cancel(peer(2), InboundId(8), 1, &mut rig.fx);
    assert!(
        matches!(rig.outputs().as_slice(), [Output::Reply { response: Response::Done { .. }, .. }]),
        "another peer's call of that number is not meant"
    );
    rig.requests.on_cancel(peer(1), InboundId(9), 1, &mut rig.fx);
    let outputs = rig.outputs();
    assert!(
        matches!(outputs.as_slice(), [
        Output::Reply { to: InboundId(1), .. },
        Output::Stop { call },
        Output::Reply { to: InboundId(9), response: Response::Done { .. } },
    ] if *call == id),
        "{outputs:?}"
    );
    rig.incoming(1, 2, 100);
    assert_eq!(rig.replied(), (InboundId(2), ReplyStatus::Busy));
    rig.handled(id, ReplyStatus::Ok);
    assert!(rig.outputs().is_empty(), "it was answered before");
    assert!(rig.requests.is_idle());
    rig.incoming(1, 3, 100);
    rig.served();
}

#[test]
fn a_call_that_runs_out_of_time_is_stopped_and_answered() {
    let mut rig = serving(1);
    rig.incoming(1, 1, 100);
    let (_, id) = rig.served();
    assert_eq!(rig.requests.next_timeout(), Some(rig.now + Span::millis(100)));
    rig.pass(Span::millis(100));
    let outputs = rig.outputs();
    assert!(matches!(outputs.as_slice(), [Output::Reply { to: InboundId(1), .. }, Output::Stop { .. }]));
    assert_eq!(rig.requests.next_timeout(), None);
    rig.handled(id, ReplyStatus::Ok);
    assert!(rig.outputs().is_empty() && rig.requests.is_idle());
}

#[test]
fn calls_of_a_peer_that_is_gone_are_stopped() {
    let mut rig = serving(9);
    for (from, number) in [(1, 1), (2, 2), (1, 3)] {
        rig.incoming(from, number, 100);
        rig.served();
    }
    rig.requests.unlinked(peer(1), &mut rig.fx);
    let outputs = rig.outputs();
    let stopped: Vec<u64> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Stop { call, .. } => Some(call.0),
            _ => None,
        })
        .collect();
    assert_eq!((stopped.as_slice(), outputs.len()), ([0, 2].as_slice(), 4));
}

#[test]
fn no_time_is_no_call_and_too_much_is_cut() {
    let mut rig = serving(2);
    rig.incoming(1, 1, 0);
    assert_eq!(rig.replied(), (InboundId(1), ReplyStatus::Busy));
    rig.incoming(1, 2, u64::MAX);
    rig.served();
    assert_eq!(rig.requests.next_timeout(), Some(rig.now + MAX_TIMEOUT));
}

#[test]
fn calls_are_capped_over_all() {
    let mut rig = serving(u32::MAX);
    for number in 0..10_000 {
        rig.incoming(1, number, 100);
        rig.served();
    }
    rig.incoming(1, 10_000, 100);
    assert_eq!(rig.replied(), (InboundId(10_000), ReplyStatus::Busy));
}

#[test]
fn a_provider_that_goes_answers_its_calls() {
    let mut rig = serving(2);
    rig.incoming(1, 1, 100);
    let (_, id) = rig.served();
    rig.requests.unserve(ProviderId(1), &rig.book, rig.now, &mut rig.fx);
    assert_eq!(rig.replied(), (InboundId(1), ReplyStatus::Unanswered));
    rig.handled(id, ReplyStatus::Ok);
    assert!(rig.outputs().is_empty() && rig.requests.is_idle());
    rig.incoming(1, 2, 100);
    assert_eq!(rig.replied().1, ReplyStatus::NoService);
}

#[test]
fn a_provider_that_is_withdrawn_finishes_its_calls_and_gets_no_more() {
    let mut rig = serving(2);
    rig.incoming(1, 1, 100);
    let (_, id) = rig.served();
    rig.requests.withdraw(ProviderId(1));
    assert!(rig.requests.services().is_empty());
    rig.incoming(1, 2, 100);
    assert_eq!(rig.replied(), (InboundId(2), ReplyStatus::NoService));
    rig.handled(id, ReplyStatus::Ok);
    assert_eq!(rig.replied(), (InboundId(1), ReplyStatus::Ok));
    rig.requests.unserve(ProviderId(1), &rig.book, rig.now, &mut rig.fx);
    assert!(rig.outputs().is_empty() && rig.requests.is_idle());
}

#[test]
fn services_are_named_once_in_order_and_limited() {
    let mut rig = Rig::with(&Limits { services: 3, ..Limits::default() });
    for (id, service) in [(1, "b"), (2, "a"), (3, "b")] {
        rig.requests.serve(ProviderId(id), service.into(), 1).expect("below the limit");
    }
    assert_eq!(rig.requests.services(), ["a", "b"]);
    assert_eq!(rig.requests.serve(ProviderId(4), "c".into(), 1), Err(TooMany { limit: 3 }));
    rig.requests.unserve(ProviderId(1), &rig.book, rig.now, &mut rig.fx);
    assert_eq!(rig.requests.services(), ["a", "b"]);
    rig.requests.unserve(ProviderId(3), &rig.book, rig.now, &mut rig.fx);
    assert_eq!(rig.requests.services(), ["a"]);
}

#[test]
fn its_own_provider_comes_first_and_under_the_same_rules() {
    let mut rig = serving(1);
    let service: Arc<str> = "svc".into();
    let one = rig.provider(1, true);
    rig.ask();
    let (_, id) = rig.served();
    rig.handled(id, ReplyStatus::Ok);
    assert_eq!(rig.answered(), (peer(0), ReplyStatus::Ok));

    rig.requests.serve(ProviderId(2), "only.here".into(), 0).expect("below the limit");
    rig.ask_with(ask("only.here", Span::secs(1)));
    assert_eq!(rig.failed(), AskFailure::Busy);

    let ticket = rig.ask();
    let (_, id) = rig.served();
    rig.requests.abandoned(ticket, &rig.book, rig.now, &mut rig.fx);
    assert!(matches!(rig.outputs().as_slice(), [Output::Stop { call, .. }] if *call == id));
    for to in [NodeName::Peer(peer(0)), NodeName::Name("me".to_owned())] {
        rig.ask_with(Ask { to: Some(to), ..ask(&service, Span::secs(1)) });
        assert_eq!(rig.failed(), AskFailure::Busy, "the handler still runs");
    }
    rig.ask();
    assert_eq!(rig.sent().1, one, "so another node is asked");
}

#[test]
fn its_own_call_runs_out_of_time_once() {
    let mut rig = serving(1);
    rig.ask();
    let (_, id) = rig.served();
    rig.pass(Span::secs(2));
    let outputs = rig.outputs();
    let failures = outputs.iter().filter(|output| matches!(output, Output::Answer { .. })).count();
    let stops = outputs.iter().filter(|output| matches!(output, Output::Stop { .. })).count();
    assert_eq!((failures, stops, outputs.len()), (1, 1, 2));
    rig.handled(id, ReplyStatus::Ok);
    assert!(rig.outputs().is_empty() && rig.requests.is_idle());
}

#[test]
fn who_drains_takes_no_call_and_is_finished_when_the_last_reply_is_out() {
    let mut rig = serving(2);
    assert!(rig.requests.are_finished());
    rig.incoming(1, 1, 1_000);
    let (_, answered) = rig.served();
    rig.incoming(2, 2, 1_000);
    let (_, given_up) = rig.served();
    rig.requests.drain();
    assert!(rig.requests.services().is_empty());
    rig.incoming(3, 3, 1_000);
    assert_eq!(rig.replied(), (InboundId(3), ReplyStatus::NoService), "there is room, but not any more");

    rig.requests.on_cancel(peer(2), InboundId(9), 2, &mut rig.fx);
    rig.outputs();
    assert!(!rig.requests.are_finished(), "a call is open");
    rig.handled(answered, ReplyStatus::Ok);
    let outputs = rig.slow_outputs();
    assert!(matches!(outputs.as_slice(), [Output::Reply { to: InboundId(1), .. }]), "{outputs:?}");
    assert!(!rig.requests.are_finished(), "its reply is under way");
    rig.requests.replied(InboundId(1));
    assert!(rig.requests.are_finished(), "nobody waits for what the other handler is at");
    rig.handled(given_up, ReplyStatus::Ok);
    assert!(rig.requests.is_idle());
}

#[test]
fn who_drains_is_not_finished_while_a_request_of_its_own_is_open() {
    let mut rig = serving(1);
    let other = rig.provider(1, true);
    rig.requests.drain();
    rig.ask();
    let (rpc, to, _) = rig.sent();
    assert_eq!(to, other, "its own service is none any more");
    assert!(!rig.requests.are_finished());
    rig.respond_status(rpc, ReplyStatus::Ok);
    assert_eq!(rig.answered(), (other, ReplyStatus::Ok));
    assert!(rig.requests.are_finished());
}
