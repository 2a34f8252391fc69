//! Many requests at once: they wait for their turn, find room or are told that there is none, and each ends once.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pombo::{Node, Outcome, Refusal, Reply, RequestError, Service, Serving, Topic};
use tokio::sync::{Semaphore, watch};

use crate::support::Turn;
use crate::support::nodes::{Place, SOON, TCP, TRANSPORTS, address, within};

/// What one node may have open.
const OPEN: usize = 10_000;
/// What travels to one provider at once.
const ON_THE_WIRE: usize = 1_024;
/// Long enough for everything, on a busy machine too.
const LONG: Duration = Duration::from_secs(120);

const DOUBLE: Service<u64, u64> = Service::new("load.double");

/// Holds handlers back until it is opened, and counts them.
#[derive(Clone)]
struct Gate {
    places: Arc<Semaphore>,
    ran: Arc<watch::Sender<usize>>,
}

impl Gate {
    fn closed() -> Self {
        Self { places: Arc::new(Semaphore::new(0)), ran: Arc::new(watch::Sender::new(0)) }
    }

    fn open(&self) {
        self.places.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    fn ran(&self) -> usize {
        *self.ran.borrow()
    }

    /// Waits until so many handlers have been called.
    async fn has_run(&self, count: usize) {
        let mut ran = self.ran.subscribe();
        let enough = ran.wait_for(|ran| *ran >= count);
        let enough = tokio::time::timeout(LONG, enough).await;
        assert!(enough.is_ok(), "{} of {count} handlers were called", self.ran());
    }

    /// Serves [`DOUBLE`] behind this gate.
    async fn guard(&self, node: &Node, room: usize) -> Serving {
        self.guard_as(node, DOUBLE, room).await
    }

    async fn guard_as(&self, node: &Node, service: Service<u64, u64>, room: usize) -> Serving {
        let gate = self.clone();
        let double = move |number: u64| {
            let gate = gate.clone();
            async move {
                gate.ran.send_modify(|ran| *ran += 1);
                let _passed = gate.places.acquire().await?;
                Ok::<_, Refusal>(2 * number)
            }
        };
        node.serve(service).concurrency(room).with(double).await.unwrap()
    }
}

/// One request each.
fn asks(
    node: &Node,
    service: Service<u64, u64>,
    numbers: Range<u64>,
) -> impl Iterator<Item = impl Future<Output = Answered>> {
    numbers.map(move |number| {
        let service = service.clone();
        async move { (number, node.request(service, &number).timeout(LONG).await) }
    })
}

/// Asks all of these at once.
fn ask_all(node: &Node, numbers: Range<u64>) -> Asking<impl Future<Output = Answered>> {
    asks(node, DOUBLE, numbers).collect()
}

type Answered = (u64, Result<Reply<u64>, RequestError>);
type Asking<F> = FuturesUnordered<F>;

/// Asks again until it is so: for what no event tells.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn knows_providers(node: &Node, count: usize) {
    let knows = async || {
        let peers = node.status().await.unwrap().peers;
        peers.iter().filter(|peer| peer.links > 0 && peer.services.contains(&DOUBLE.name().to_owned())).count() == count
    };
    eventually("the providers", knows).await;
}

/// Takes the answers, all of which must be right, and says who gave them.
async fn take(asking: &mut Asking<impl Future<Output = Answered>>) -> BTreeSet<pombo::PeerId> {
    let mut by = BTreeSet::new();
    let taking = async {
        while let Some((number, answer)) = asking.next().await {
            let answer = answer.unwrap_or_else(|error| panic!("{number}: {error:?}"));
            assert_eq!(*answer, 2 * number);
            by.insert(answer.source());
        }
    };
    tokio::time::timeout(LONG, taking).await.expect("every answer");
    by
}

/// Polls what asks while something else is waited for.
async fn while_asking<T>(asking: &mut Asking<impl Future<Output = Answered>>, waiting: impl Future<Output = T>) -> T {
    tokio::select! {
        Some((number, answer)) = asking.next() => panic!("{number} ended early: {answer:?}"),
        done = waiting => done,
    }
}

/// As many as a node may have open, all to one provider, over each transport. One more is refused here.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_to_one_provider_wait_for_their_turn() {
    for transport in TRANSPORTS {
        let place = Place::new(Turn::alone());
        let asker = place.node("asker", transport).start().await.unwrap();
        let provider = place.node("provider", transport).peer(address(&asker)).start().await.unwrap();
        let gate = Gate::closed();
        let _serving = gate.guard(&provider, OPEN).await;
        knows_providers(&asker, 1).await;

        let mut asking = ask_all(&asker, 0..OPEN as u64);
        let all_open = async || asker.status().await.unwrap().tables.requests == OPEN;
        while_asking(&mut asking, eventually("all of them open", all_open)).await;
        let more = while_asking(&mut asking, asker.request(DOUBLE, &0).into_future()).await.unwrap_err();
        assert!(matches!(more, RequestError::TooMany { limit: OPEN }), "{more:?}");
        assert_eq!(more.outcome(), Outcome::Rejected);
        while_asking(&mut asking, gate.has_run(ON_THE_WIRE)).await;
        assert_eq!((gate.ran(), provider.status().await.unwrap().tables.calls), (ON_THE_WIRE, ON_THE_WIRE));

        gate.open();
        take(&mut asking).await;
        assert_eq!(gate.ran(), OPEN);
        assert_eq!(asker.status().await.unwrap().tables.requests, 0);
    }
}

/// The same to several: each takes its part.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_spread_over_several_providers() {
    let place = Place::new(Turn::alone());
    let asker = place.node("asker", TCP).start().await.unwrap();
    let gate = Gate::closed();
    let mut providers = Vec::new();
    for name in ["one", "two", "three"] {
        let node = place.node(name, TCP).peer(address(&asker)).start().await.unwrap();
        let serving = gate.guard(&node, OPEN).await;
        providers.push((node, serving));
    }
    knows_providers(&asker, 3).await;

    let mut asking = ask_all(&asker, 0..OPEN as u64);
    while_asking(&mut asking, gate.has_run(3 * ON_THE_WIRE)).await;
    gate.open();
    let by = take(&mut asking).await;
    assert_eq!((by.len(), gate.ran()), (3, OPEN));
}

/// Two nodes that ask each other as much as they may: the connection carries both, and what else they have to say.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_ask_each_other_get_every_answer() {
    for transport in TRANSPORTS {
        let place = Place::new(Turn::alone());
        let one = place.node("one", transport).start().await.unwrap();
        let other = place.node("other", transport).peer(address(&one)).start().await.unwrap();
        let (at_one, at_other) = (Gate::closed(), Gate::closed());
        // Each serves under a name of its own, or it would answer itself.
        let name = |node: &str| Service::<u64, u64>::parse(&format!("load.at-{node}")).unwrap();
        let _one = at_one.guard_as(&one, name("one"), OPEN).await;
        let _other = at_other.guard_as(&other, name("other"), OPEN).await;
        let known = async || {
            let serves =
                async |node: &Node| !node.status().await.unwrap().peers.iter().all(|one| one.services.is_empty());
            serves(&one).await && serves(&other).await
        };
        eventually("each other's service", known).await;
        let mut asking: Asking<_> = asks(&one, name("other"), 0..5_000).collect();
        asking.extend(asks(&other, name("one"), 0..5_000));
        let full = async { tokio::join!(at_one.has_run(ON_THE_WIRE), at_other.has_run(ON_THE_WIRE)) };
        while_asking(&mut asking, full).await;

        // The roster's exchanges find their way beside the calls.
        const NEWS: Topic<u32> = Topic::new("load.news");
        let _news = while_asking(&mut asking, within("a subscription", one.subscribe(NEWS))).await.unwrap();
        let heard = async || other.status().await.unwrap().peers.iter().any(|peer| !peer.patterns.is_empty());
        while_asking(&mut asking, eventually("the news", heard)).await;

        at_one.open();
        at_other.open();
        take(&mut asking).await;
        assert_eq!((at_one.ran(), at_other.ran()), (5_000, 5_000));
    }
}

/// Whoever waits for their turn has their own deadline, and has not run when it passes.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_their_turn_keeps_their_own_deadline() {
    let place = Place::new(Turn::alone());
    let asker = place.node("asker", TCP).start().await.unwrap();
    let provider = place.node("provider", TCP).peer(address(&asker)).start().await.unwrap();
    let gate = Gate::closed();
    let _serving = gate.guard(&provider, OPEN).await;
    knows_providers(&asker, 1).await;

    let mut asking: Asking<_> = asks(&asker, DOUBLE, 0..ON_THE_WIRE as u64).collect();
    while_asking(&mut asking, gate.has_run(ON_THE_WIRE)).await;
    let hasty = asker.request(DOUBLE, &0).timeout(Duration::from_millis(300)).into_future();
    let patient = asks(&asker, DOUBLE, 5_000..5_100);
    let hasty = while_asking(&mut asking, hasty).await.unwrap_err();
    assert!(matches!(hasty, RequestError::NotSent { .. }), "{hasty:?}");
    asking.extend(patient);
    gate.open();
    take(&mut asking).await;
    assert_eq!(gate.ran(), ON_THE_WIRE + 100, "what was not sent has not run");
}

/// Outcomes of requests: answered and busy. There is no third.
async fn outcomes(asking: &mut Asking<impl Future<Output = Answered>>) -> (usize, usize) {
    let (mut answered, mut busy) = (0, 0);
    let taking = async {
        while let Some((number, outcome)) = asking.next().await {
            match outcome {
                Ok(answer) => {
                    assert_eq!(*answer, 2 * number);
                    answered += 1;
                }
                Err(RequestError::Busy { .. }) => busy += 1,
                Err(other) => panic!("{number}: {other:?}"),
            }
        }
    };
    tokio::time::timeout(LONG, taking).await.expect("every outcome");
    (answered, busy)
}

/// A thousand requests of five nodes for providers with one worker each.
#[tokio::test(flavor = "multi_thread")]
async fn providers_with_one_worker_answer_busy_to_those_they_have_no_room_for() {
    const ASKERS: usize = 5;
    const EACH: usize = 200;
    for providers in [1, 2] {
        let place = Place::new(Turn::alone());
        let gate = Gate::closed();
        let mut serving = Vec::new();
        let mut askers = Vec::new();
        for number in 0..providers {
            let node = place.node(&format!("provider-{number}"), TCP).start().await.unwrap();
            let held = gate.guard(&node, 1).await;
            serving.push((node, held));
        }
        for number in 0..ASKERS {
            let builder = place.node(&format!("asker-{number}"), TCP);
            let builder = serving.iter().fold(builder, |builder, (node, _)| builder.peer(address(node)));
            let node = builder.start().await.unwrap();
            knows_providers(&node, providers).await;
            askers.push(node);
        }
        let mut asking: Asking<_> = Asking::new();
        for asker in &askers {
            asking.extend(asks(asker, DOUBLE, 0..EACH as u64));
        }

        // The workers take one each. All others are told at once, by every provider.
        let (mut busy, all_but) = (0, ASKERS * EACH - providers);
        let telling = async {
            while busy < all_but {
                let (number, outcome) = asking.next().await.expect("more of them");
                assert!(matches!(outcome, Err(RequestError::Busy { .. })), "{number}: {outcome:?}");
                busy += 1;
            }
        };
        tokio::time::timeout(SOON, telling).await.expect("all others are told");
        assert_eq!(gate.ran(), providers);
        gate.open();
        assert_eq!(outcomes(&mut asking).await, (providers, 0));

        // With the gate open there is room again and again: what runs is answered, and nothing runs twice.
        for asker in &askers {
            asking.extend(asks(asker, DOUBLE, 0..EACH as u64));
        }
        let (answered, busy) = outcomes(&mut asking).await;
        assert!(answered > 0 && answered + busy == ASKERS * EACH, "{answered} answered, {busy} busy");
        assert_eq!(gate.ran(), providers + answered);
        for (node, _) in &serving {
            assert_eq!(node.status().await.unwrap().tables.calls, 0);
        }
    }
}
