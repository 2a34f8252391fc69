//! A node that drains finishes what it accepted, takes nothing new, and leaves; and so does `pombo serve`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use pombo::{
    Bytes, DrainError, Event, Node, Outcome, PublishError, RawService, RequestError, Service, SubscribeError, Topic,
};

use crate::support::Turn;
use crate::support::nodes::{Place, SOON, TCP, TRANSPORTS, address, next, within};

const NUMBERS: Topic<u32> = Topic::new("drain.numbers");
const NEWS: Topic<String> = Topic::new("drain.news");
const ASK: Service<u32, u32> = Service::new("drain.ask");

async fn pair(place: &Place, transport: &str) -> (Node, Node) {
    let a = place.node("a", transport).start().await.unwrap();
    let b = place.node("b", transport).peer(address(&a)).start().await.unwrap();
    within("the link", a.ready(1)).await.unwrap();
    within("the link", b.ready(1)).await.unwrap();
    (a, b)
}

/// Everything that is under way when a node drains, over each transport.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_finished_and_nothing_new_is_taken() {
    for transport in TRANSPORTS {
        let place = Place::new(Turn::shared());
        let (a, b) = pair(&place, transport).await;
        let raw = RawService::parse("drain.raw").unwrap();
        let mut at_b = b.serve(raw.clone()).await.unwrap();
        let mut at_a = a.serve(ASK).await.unwrap();
        let mut numbers = a.subscribe(NUMBERS).ready(1).await.unwrap();
        let mut news = b.subscribe(NEWS).await.unwrap();
        let mut events = a.events();

        // Accepted: a call at `b`, a request of `b`, messages to and from `b`.
        let asked_by_a = tokio::spawn({
            let (a, raw) = (a.clone(), raw.clone());
            async move { a.request(raw, &Bytes::new()).timeout(SOON).await }
        });
        let call = next("the call", &mut at_b).await;
        let asked_by_b = tokio::spawn({
            let b = b.clone();
            async move { b.request(ASK, &7).timeout(SOON).await }
        });
        let request_of_b = next("the request", &mut at_a).await;
        within("a listener", a.publish(NEWS, &"read me later".to_owned()).min_peers(1)).await.unwrap();
        let publisher = b.publisher(NUMBERS);
        within("a listener", publisher.ready(1)).await.unwrap();
        for number in 0..500 {
            publisher.publish(&number).await.unwrap();
        }

        let draining = tokio::spawn({
            let b = b.clone();
            async move { b.drain().timeout(SOON).await }
        });
        // The others know of no service there any more, while the call runs.
        let withdrawn = async {
            while a
                .status()
                .await
                .unwrap()
                .peers
                .iter()
                .any(|peer| !peer.services.is_empty() || !peer.patterns.is_empty())
            {
                tokio::task::yield_now().await;
            }
        };
        within("the withdrawal", withdrawn).await;
        let nobody = within("an outcome", a.request(raw.clone(), &Bytes::new())).await.unwrap_err();
        assert!(matches!(nobody, RequestError::Nobody { .. }), "{nobody:?}");
        nothing_new_is_taken(&b, &publisher).await;
        assert!(!draining.is_finished(), "a call and a request are open");

        // The largest answer there is: it takes a while to get out.
        let answer = Bytes::from(vec![5; 1024 * 1024]);
        call.respond(&answer).await.unwrap();
        assert!(**within("the answer", asked_by_a).await.unwrap().unwrap() == *answer);
        request_of_b.respond(&70).await.unwrap();
        assert_eq!(*within("the answer", asked_by_b).await.unwrap().unwrap(), 70);
        within("the end", draining).await.unwrap().unwrap();

        // It said goodbye, what it published came, and what it got can still be read.
        let left = async {
            while !matches!(next("the goodbye", &mut events).await, Event::Left { peer, .. } if peer == b.peer_id()) {}
        };
        within("the goodbye", left).await;
        for number in 0..500 {
            assert_eq!(*next("a number", &mut numbers).await.unwrap(), number);
        }
        assert_eq!(*next("the news", &mut news).await.unwrap(), "read me later");
        assert!(within("the end", news.next()).await.is_none() && within("the end", at_b.next()).await.is_none());
        assert!(matches!(b.drain().await, Err(DrainError::Closed(_))), "it is gone");
        assert!(matches!(b.publish(NUMBERS, &1).await, Err(PublishError::Closed(_))));
    }
}

async fn nothing_new_is_taken(node: &Node, publisher: &pombo::Publisher<u32, pombo::Bincode>) {
    let published = within("an outcome", node.publish(NUMBERS, &1)).await.unwrap_err();
    assert!(matches!(published, PublishError::Draining), "{published:?}");
    assert!(matches!(within("an outcome", publisher.publish(&1)).await, Err(PublishError::Draining)));
    let subscribed = within("an outcome", node.subscribe(NUMBERS)).await.unwrap_err();
    assert!(matches!(subscribed, SubscribeError::Draining), "{subscribed:?}");
    let served = within("an outcome", node.serve(ASK)).await.unwrap_err();
    assert!(matches!(served, SubscribeError::Draining), "{served:?}");
    let asked = within("an outcome", node.request(ASK, &1)).await.unwrap_err();
    assert!(matches!(asked, RequestError::Draining), "{asked:?}");
    for outcome in [published.outcome(), subscribed.outcome(), served.outcome(), asked.outcome()] {
        assert_eq!(outcome, Outcome::Rejected);
    }
    assert!(asked.to_string().contains("about to leave"), "{asked}");
}

#[tokio::test]
async fn a_drain_whose_time_is_over_says_what_it_cut_off() {
    let place = Place::new(Turn::shared());
    let (a, b) = pair(&place, TCP).await;
    let mut at_b = b.serve(ASK).await.unwrap();
    let mut asking = a.request(ASK, &1).timeout(SOON).into_future();
    let call = tokio::select! {
        answer = &mut asking => panic!("nobody has answered: {answer:?}"),
        call = next("the call", &mut at_b) => call,
    };
    let draining = b.drain().timeout(Duration::from_millis(300)).into_future();
    let (answer, drained) = within("both", async { tokio::join!(asking, draining) }).await;
    assert!(matches!(answer, Err(RequestError::Unknown { .. })), "it may have run: {answer:?}");
    let drained = drained.unwrap_err();
    assert!(matches!(drained, DrainError::Unfinished { calls: 1, requests: 0, messages: 0 }), "{drained:?}");
    assert_eq!(drained.outcome(), Outcome::Partial);
    assert!(call.respond(&1).await.is_err(), "the node is gone");
}

/// Nobody to tell and nothing to finish, twice at once, and on a node that nobody knows.
#[tokio::test]
async fn an_idle_node_drains_at_once() {
    let place = Place::new(Turn::shared());
    for short_lived in [false, true] {
        let node = place.node("alone", TCP).short_lived(short_lived).start().await.unwrap();
        let clone = node.clone();
        let started = Instant::now();
        let both = async { tokio::join!(node.drain().timeout(SOON), clone.drain().timeout(SOON)) };
        let (one, other) = within("the end", both).await;
        one.and(other).unwrap();
        assert!(started.elapsed() < SOON / 2, "it did not run into its deadline");
    }
    let (a, b) = pair(&place, TCP).await;
    within("the end", b.drain()).await.unwrap();
    within("the end", a.drain()).await.unwrap();
}

/// Of two providers one is stopped and started again, over and over, while others ask: no request notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_costs_no_request() {
    let place = Place::new(Turn::shared());
    let (a, steady) = pair(&place, TCP).await;
    let answer = |number: u32| async move {
        // So that some run whenever the node is told to stop.
        tokio::task::yield_now().await;
        Ok(number + 1)
    };
    let _steady = steady.serve(ASK).concurrency(1_000).with(answer).await.unwrap();
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let askers = (0..8).map(|_| {
        let (a, over, asked) = (a.clone(), Arc::clone(&over), Arc::clone(&asked));
        tokio::spawn(async move {
            for number in 0.. {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let answer = a.request(ASK, &number).timeout(SOON).await;
                assert_eq!(*answer.unwrap_or_else(|error| panic!("{number}: {error:?}")), number + 1);
                asked.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    let askers: Vec<_> = askers.collect();
    for round in 0..5 {
        let served = Arc::new(AtomicUsize::new(0));
        let restarted = place.node("restarted", TCP).peer(address(&a)).start().await.unwrap();
        let counting = {
            let served = Arc::clone(&served);
            move |number: u32| {
                served.fetch_add(1, Ordering::SeqCst);
                answer(number)
            }
        };
        let serving = restarted.serve(ASK).concurrency(1_000).with(counting).await.unwrap();
        let busy = async {
            while served.load(Ordering::SeqCst) < 50 {
                tokio::task::yield_now().await;
            }
        };
        within("calls for the new one", busy).await;
        within("the end", restarted.drain()).await.unwrap_or_else(|error| panic!("{round}: {error}"));
        drop(serving);
    }
    over.store(true, Ordering::SeqCst);
    for ended in within("the askers", join_all(askers)).await {
        ended.unwrap();
    }
    assert!(asked.load(Ordering::SeqCst) > 250);
}

#[cfg(feature = "cli")]
mod processes {
    use std::time::Duration;

    use crate::support::process::{Process, json};
    use crate::support::user::User;

    /// A service that answers when there is a file named `go`, and says by one named `started` that it has begun.
    fn serving(user: &User) -> Process {
        let handler = "touch started; until [ -e go ]; do sleep 0.05; done; tr a-z A-Z";
        let serve = user.start(&format!("serve demo.slow --json --exec '{handler}'"));
        serve.complaint(|line| line.starts_with("serving"));
        serve
    }

    fn wait_until_started(user: &User) {
        let started = user.dir().join("started");
        let until = std::time::Instant::now() + crate::support::process::SOON;
        while !started.exists() {
            assert!(std::time::Instant::now() < until, "the command was not started");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_runs_when_pombo_serve_is_told_to_stop_is_answered() {
        for signal in ["TERM", "INT"] {
            let user = User::new();
            let serve = serving(&user);
            let request = user.start("request demo.slow hi --timeout 20s");
            wait_until_started(&user);
            serve.signal(signal);
            // It takes nothing new, and does not wait with that until it has finished.
            let until = std::time::Instant::now() + crate::support::process::SOON;
            while user.run("request demo.slow hi --timeout 5s").code != Some(3) {
                assert!(std::time::Instant::now() < until, "it still takes requests");
            }
            std::fs::write(user.dir().join("go"), "").unwrap();
            assert_eq!(request.finish().expect(0).text(), "HI");
            assert_eq!(json(&serve.line(|_| true))["outcome"], "answered");
            serve.finish_within(Duration::from_secs(10)).expect(0);
        }
    }

    #[test]
    fn a_second_signal_ends_pombo_serve_at_once() {
        let user = User::new();
        let serve = serving(&user);
        let request = user.start("request demo.slow hi --timeout 20s");
        wait_until_started(&user);
        serve.signal("TERM");
        let until = std::time::Instant::now() + crate::support::process::SOON;
        while user.run("request demo.slow hi --timeout 5s").code != Some(3) {
            assert!(std::time::Instant::now() < until, "it still takes requests");
        }
        serve.signal("TERM");
        serve.finish_within(Duration::from_secs(5)).expect(1);
        request.finish().expect(4);
        // The command is an orphan now, and ends.
        std::fs::write(user.dir().join("go"), "").unwrap();
    }
}
