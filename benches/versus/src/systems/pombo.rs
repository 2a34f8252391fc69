//! pombo, through its public API: TCP, encrypted and authenticated, as it is by default.

use futures::StreamExt;
use pombo::{Config, Dissemination, MeshChoice, Multiaddr, Node, RecvError, Reply, Service, Topic};

use super::{ENDS, NAME, PAUSE};
use crate::System;
use crate::endpoint::{Gate, Result, Said, Spec, heard, say};
use crate::load::{Called, Parcel, Sink, Source, call as ask};

/// A node of a mesh that only these processes are in, which dials those that listen.
async fn node(spec: &Spec, name: &str, listens: bool) -> Result<Node> {
    let address = |port: &u16| format!("/ip4/127.0.0.1/tcp/{port}").parse::<Multiaddr>();
    let (listen, peers) = if listens {
        (spec.ports.get(spec.index).into_iter().map(address).collect::<std::result::Result<_, _>>()?, Vec::new())
    } else {
        (vec![address(&0)?], spec.ports.iter().map(address).collect::<std::result::Result<_, _>>()?)
    };
    // A directory for each run: nodes remember whom they knew.
    let directory = spec.scratch.join(format!("pombo-{}", spec.port()));
    std::fs::create_dir_all(&directory)?;
    let dissemination = match spec.system {
        System::PomboGossip => Dissemination::Gossip,
        _ => Dissemination::default(),
    };
    let config = Config {
        dissemination,
        name: Some(name.to_owned()),
        mesh: MeshChoice::Named("versus".to_owned()),
        listen,
        peers,
        mdns: false,
        local: false,
        // A node with a key file has no store.
        key: (!spec.guaranteed).then(|| directory.join(format!("{name}.key"))),
        data_dir: Some(directory.join("data")),
        ..Config::default()
    };
    Ok(Node::builder().config(config).start().await?)
}

pub(super) async fn publish(spec: &Spec, subscribers: usize, gate: &Gate) -> Result<()> {
    let node = node(spec, "publisher", false).await?;
    let publisher = node.publisher(Topic::<Parcel>::parse(NAME)?);
    publisher.ready(subscribers).await?;
    gate.pass()?;
    let mut source = Source::new(spec.load);
    while let Some(parcel) = source.next() {
        publisher.publish(parcel).await?;
    }
    super::done(&source);
    for _ in 0..ENDS {
        publisher.publish(&source.end()).await?;
        tokio::time::sleep(PAUSE).await;
    }
    std::future::pending().await
}

pub(super) async fn subscribe(spec: &Spec, sink: &Sink) -> Result<()> {
    let node = node(spec, &format!("subscriber-{}", spec.index), true).await?;
    let mut subscriber = node.subscribe(Topic::<Parcel>::parse(NAME)?).await?;
    say(&Said::Ready);
    while let Some(came) = subscriber.next().await {
        match came {
            Ok(parcel) if sink.note_parcel(&parcel) => break,
            // What was missed shows in the numbers.
            Ok(_) | Err(RecvError::Lagged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    heard(sink);
    // It stays in the mesh until all have what they need.
    std::future::pending().await
}

pub(super) async fn serve(spec: &Spec) -> Result<()> {
    let node = node(spec, "server", true).await?;
    let service = Service::<Parcel, Parcel>::parse(NAME)?;
    let _serving = node.serve(service).concurrency(4096).with(|question| async move { Ok(question) }).await?;
    say(&Said::Ready);
    std::future::pending().await
}

pub(super) async fn call(spec: &Spec, gate: &Gate) -> Result<Called> {
    let node = node(spec, "client", false).await?;
    let service = Service::<Parcel, Parcel>::parse(NAME)?;
    let serves = |peer: &pombo::PeerStatus| peer.services.iter().any(|name| name == NAME);
    while !node.status().await?.peers.iter().any(serves) {
        tokio::time::sleep(PAUSE).await;
    }
    gate.pass()?;
    let once = move |question: Parcel| {
        let (node, service) = (node.clone(), service.clone());
        async move { node.request(service, &question).await.ok().map(Reply::into_payload) }
    };
    Ok(ask(spec.load, spec.in_flight, once).await)
}

/// Whom guaranteed messages go to.
#[cfg(feature = "store")]
const NAMED: &str = "versus";
/// How many acknowledgements may be under way.
#[cfg(feature = "store")]
const WINDOW: usize = 1_000;

#[cfg(feature = "store")]
pub(super) async fn commit(spec: &Spec, gate: &Gate) -> Result<Called> {
    let node = node(spec, "publisher", false).await?;
    let topic = Topic::<Parcel>::parse(NAME)?;
    while node.status().await?.peers.is_empty() {
        tokio::time::sleep(PAUSE).await;
    }
    gate.pass()?;
    let publish = move |parcel: Parcel| {
        let (node, topic) = (node.clone(), topic.clone());
        async move { node.publish(topic, &parcel).guaranteed().to([NAMED]).await.ok().map(|_| parcel) }
    };
    let called = ask(spec.load, spec.in_flight, publish.clone()).await;
    publish(Parcel::end(called.answered)).await.ok_or("the last message was not accepted")?;
    // It delivers for as long as it is there.
    tokio::spawn(async move {
        let _node = publish;
        std::future::pending::<()>().await;
    });
    Ok(called)
}

#[cfg(feature = "store")]
pub(super) async fn consume(spec: &Spec, sink: &Sink) -> Result<()> {
    let node = node(spec, "subscriber-0", true).await?;
    let messages = node.subscribe(Topic::<Parcel>::parse(NAME)?).durable(NAMED).await?;
    say(&Said::Ready);
    // Each is counted when its acknowledgement is on disk.
    let acknowledged = messages.map(|message| async move {
        let message = message?;
        let (sequence, stamp) = (message.sequence, message.stamp);
        message.ack().await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Parcel { sequence, stamp, body: Vec::new() })
    });
    let mut acknowledged = std::pin::pin!(acknowledged.buffered(WINDOW));
    while let Some(parcel) = acknowledged.next().await {
        if sink.count(&parcel?) {
            break;
        }
    }
    heard(sink);
    std::future::pending().await
}
