//! One request to every provider, and what goes with a reply, through the public API.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use pombo::{
    Bytes, Headers, Incoming, Limits, Node, Outcome, PeerId, Provider, ProviderError, Raw, RawService, Refusal, Reply,
    RequestError, Service,
};

use crate::support::Turn;
use crate::support::nodes::{Place, SOON, TCP, TRANSPORTS, address, next, within};

const WHO: Service<u32, String> = Service::new("many.who");

/// An asker, and nodes that are linked to it.
async fn star(place: &Place, transport: &str, names: &[&str]) -> (Node, Vec<Node>) {
    let asker = place.node("asker", transport).start().await.unwrap();
    let mut nodes = Vec::new();
    for name in names {
        let node = place.node(name, transport).peer(address(&asker)).start().await.unwrap();
        within("the link", node.ready(1)).await.unwrap();
        nodes.push(node);
    }
    (asker, nodes)
}

async fn knows(asker: &Node, providers: usize) {
    let knows = async {
        let serves = |peer: &&pombo::PeerStatus| peer.services.contains(&WHO.name().to_owned());
        while asker.status().await.unwrap().peers.iter().filter(serves).count() < providers {
            tokio::task::yield_now().await;
        }
    };
    within("the providers", knows).await;
}

/// All items, by who they are of. Nobody has two.
fn by_provider(
    items: Vec<Result<Reply<String>, ProviderError>>,
) -> BTreeMap<PeerId, Result<Reply<String>, RequestError>> {
    let count = items.len();
    let named = items.into_iter().map(|item| match item {
        Ok(reply) => (reply.source(), Ok(reply)),
        Err(error) => {
            let from = error.from.expect("a provider");
            assert!(error.to_string().contains(&from.to_string()), "{error}");
            (from, Err(*error.reason))
        }
    });
    let named: BTreeMap<_, _> = named.collect();
    assert_eq!(named.len(), count, "one item each");
    named
}

#[tokio::test]
async fn every_provider_answers_and_the_stream_ends() {
    let place = Place::new(Turn::shared());
    let (asker, nodes) = star(&place, TCP, &["a", "b", "c"]).await;
    let mut serving = Vec::new();
    for node in nodes.iter().chain([&asker]) {
        let name = node.name().to_owned();
        let who = move |number: u32| {
            let name = name.clone();
            async move { Ok(format!("{name} {number}")) }
        };
        serving.push(node.serve(WHO).with(who).await.unwrap());
    }
    knows(&asker, 3).await;

    let answers = within("all answers", asker.request_many(WHO, &7).collect::<Vec<_>>()).await;
    let answers = by_provider(answers);
    for node in nodes.iter().chain([&asker]) {
        assert_eq!(**answers[&node.peer_id()].as_ref().unwrap(), format!("{} 7", node.name()));
    }
    assert_eq!(answers.len(), 4);

    for (max, expected) in [(0, 0), (1, 1), (3, 3), (9, 4)] {
        let answers = within("so many answers", asker.request_many(WHO, &7).max(max).collect::<Vec<_>>()).await;
        assert_eq!(by_provider(answers).into_values().filter(Result::is_ok).count(), expected, "of {max}");
    }
}

#[tokio::test]
async fn each_provider_that_fails_is_named_with_its_reason() {
    let place = Place::new(Turn::shared());
    let names = ["answers", "refuses", "is-busy", "drops", "is-silent"];
    let (asker, nodes) = star(&place, TCP, &names).await;
    let [answers, refuses, is_busy, drops, is_silent] = &nodes[..] else { panic!("five nodes") };
    let _answers = answers.serve(WHO).with(|_| async { Ok("here".to_owned()) }).await.unwrap();
    let _refuses = refuses.serve(WHO).with(|_| async { Err(Refusal::new("not today")) }).await.unwrap();
    let mut busy = is_busy.serve(WHO).concurrency(1).await.unwrap();
    let mut dropped = drops.serve(WHO).await.unwrap();
    let mut silent = is_silent.serve(WHO).await.unwrap();
    knows(&asker, 5).await;
    let mut occupying = asker.request(WHO, &0).to("is-busy").timeout(SOON).into_future();
    let _held = tokio::select! {
        answer = &mut occupying => panic!("nobody has answered: {answer:?}"),
        request = next("the first request", &mut busy) => request,
    };

    let started = Instant::now();
    let mut many = asker.request_many(WHO, &1).timeout(Duration::from_secs(3)).header("tenant", "acme");
    let (mut items, mut open) = (Vec::new(), Vec::new());
    let asking = async {
        loop {
            tokio::select! {
                item = many.next() => match item {
                    Some(item) => items.push((item, started.elapsed())),
                    None => return,
                },
                Some(request) = dropped.next() => drop(request),
                Some(request) = silent.next() => {
                    assert_eq!((request.headers().get("tenant"), *request), (Some("acme"), 1));
                    open.push(request);
                }
            }
        }
    };
    within("the end", asking).await;
    assert!(started.elapsed() >= Duration::from_secs(3), "the last one had its time");
    let (last, _) = items.last().expect("five items");
    assert_eq!(last.as_ref().unwrap_err().from, Some(is_silent.peer_id()), "the others did not wait for it");

    let found = by_provider(items.into_iter().map(|(item, _)| item).collect());
    assert_eq!(found.len(), 5);
    let of = |node: &Node| &found[&node.peer_id()];
    assert_eq!(**of(answers).as_ref().unwrap(), "here");
    assert!(matches!(of(refuses), Err(RequestError::Refused { message, .. }) if message == "not today"));
    assert!(matches!(of(is_busy), Err(RequestError::Busy { .. })), "{:?}", of(is_busy));
    assert!(matches!(of(drops), Err(RequestError::Unknown { .. })), "{:?}", of(drops));
    assert!(matches!(of(is_silent), Err(RequestError::Unknown { .. })), "{:?}", of(is_silent));
    within("the cancellation", open[0].cancelled()).await;
}

#[tokio::test]
async fn with_nobody_to_ask_or_too_much_to_say_the_only_item_says_so() {
    let place = Place::new(Turn::shared());
    let asker = place.node("asker", TCP).start().await.unwrap();
    let mut many = asker.request_many(WHO, &1);
    let error = next("an item", &mut many).await.unwrap_err();
    assert!(matches!(*error.reason, RequestError::Nobody { .. }) && error.from.is_none(), "{error}");
    assert_eq!((error.outcome(), error.to_string()), (Outcome::Nobody, "nobody serves many.who".to_owned()));
    assert!(within("the end", many.next()).await.is_none() && many.next().await.is_none());

    let raw = RawService::parse("many.raw").unwrap();
    let mut requests = asker.serve(raw.clone()).await.unwrap();
    let body = Bytes::from(vec![0; Limits::default().message + 1]);
    let headers: Headers = (0..65).map(|number| (number.to_string(), "")).collect();
    let too_long = "t".repeat(pombo::MAX_NAME + 1);
    for many in [
        asker.request_many(raw.clone(), &body),
        asker.request_many(raw.clone(), &Bytes::new()).headers(headers),
        asker.request_many(raw.clone(), &Bytes::new()).content_type(&too_long),
    ] {
        let items = within("the end", many.collect::<Vec<_>>()).await;
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].as_ref().unwrap_err().outcome(), Outcome::Rejected);
    }
    assert!(futures::FutureExt::now_or_never(requests.next()).is_none(), "nothing was sent");
}

/// Over each transport: an asker that drops the stream is noticed by every provider that is at it.
#[tokio::test]
async fn dropping_the_stream_cancels_at_every_provider() {
    for transport in TRANSPORTS {
        let place = Place::new(Turn::shared());
        let (asker, nodes) = star(&place, transport, &["a", "b", "c"]).await;
        let mut providers: Vec<Provider<u32, String, _>> = Vec::new();
        for node in &nodes {
            providers.push(node.serve(WHO).await.unwrap());
        }
        knows(&asker, 3).await;
        let mut many = asker.request_many(WHO, &1).timeout(SOON);
        let taking = join_all(providers.iter_mut().map(|provider| next("a request", provider)));
        let requests = tokio::select! {
            item = many.next() => panic!("nobody has answered: {item:?}"),
            requests = taking => requests,
        };
        let asked: BTreeSet<_> = requests.iter().map(Incoming::source).collect();
        assert_eq!(asked, BTreeSet::from([asker.peer_id()]));
        drop(many);
        within("the cancellations", join_all(requests.iter().map(Incoming::cancelled))).await;
        drop(requests);
        assert_eq!(asker.status().await.unwrap().tables.requests, 0);
    }
}

/// A reply may have headers and a content type of its own; with too much of them it is an error of its provider, and the
/// asker is told.
#[tokio::test]
async fn a_reply_has_headers_and_a_content_type() {
    let place = Place::new(Turn::shared());
    let (asker, nodes) = star(&place, TCP, &["a"]).await;
    let raw = RawService::parse("many.raw").unwrap();
    let mut requests = nodes[0].serve(raw.clone()).await.unwrap();
    let more: Headers = [("trace", "1"), ("trace", "2")].into_iter().collect();

    let answering = async {
        let request: Incoming<Bytes, Bytes, Raw> = next("a request", &mut requests).await;
        let respond = request.respond(&Bytes::from("picture")).content_type("image/png");
        respond.header("tenant", "acme").headers(more).await.unwrap();
        let plain = next("a request", &mut requests).await;
        plain.respond(&Bytes::new()).await.unwrap();
    };
    let asking = async {
        let reply = within("an answer", asker.request(raw.clone(), &Bytes::new())).await.unwrap();
        assert_eq!((&**reply, reply.content_type()), (&b"picture"[..], "image/png"));
        assert_eq!(reply.headers().iter().collect::<Vec<_>>(), [("tenant", "acme"), ("trace", "1"), ("trace", "2")]);
        let plain = within("an answer", asker.request(raw.clone(), &Bytes::new())).await.unwrap();
        assert_eq!((plain.content_type(), plain.headers().len()), ("application/octet-stream", 0));
    };
    tokio::join!(asking, answering);

    let (limit, text) = (Limits::default().message, "t".repeat(pombo::MAX_NAME + 1));
    for (bytes, headers, content_type, said) in [
        (limit + 1, 0, "a/b", "at most 1048576 are allowed"),
        (0, 65, "a/b", "65 entries"),
        (0, 0, &*text, "content type"),
    ] {
        let answering = async {
            let request = next("a request", &mut requests).await;
            let headers: Headers = (0..headers).map(|number| (number.to_string(), "")).collect();
            let respond = request.respond(&Bytes::from(vec![0; bytes])).headers(headers).content_type(content_type);
            respond.await.unwrap_err()
        };
        let (reply, error) = tokio::join!(asker.request(raw.clone(), &Bytes::new()).into_future(), answering);
        assert!(error.to_string().contains(said), "{error}");
        let reply = reply.unwrap_err();
        assert!(matches!(&reply, RequestError::Refused { message, .. } if message.contains(said)), "{reply:?}");
    }

    // One that is made and not sent leaves the request unanswered, which is told at once.
    let dropping = async {
        let request = next("a request", &mut requests).await;
        drop(request.respond(&Bytes::new()));
    };
    let asking = asker.request(raw, &Bytes::new()).timeout(SOON).into_future();
    let (reply, ()) = within("an outcome", async { tokio::join!(asking, dropping) }).await;
    assert!(matches!(reply, Err(RequestError::Unknown { .. })), "{reply:?}");
}
