//! NATS JetStream: a stream in a file, a durable consumer that acknowledges each message, not encrypted.

use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, StorageType, Stream};
use async_nats::jetstream::{self, Context};
use futures::StreamExt;

use super::NAME;
use crate::endpoint::{Gate, Result, Said, Spec, say};
use crate::load::{Called, Parcel, Sink, call};

async fn stream(spec: &Spec) -> Result<(Context, Stream)> {
    let client = ConnectOptions::new().connect(format!("127.0.0.1:{}", spec.port())).await?;
    let context = jetstream::new(client);
    let config = Config {
        name: "versus".to_owned(),
        subjects: vec![NAME.to_owned()],
        storage: StorageType::File,
        ..Config::default()
    };
    let stream = context.get_or_create_stream(config).await?;
    Ok((context, stream))
}

pub(super) async fn commit(spec: &Spec, gate: &Gate) -> Result<Called> {
    let (context, _) = stream(spec).await?;
    gate.pass()?;
    let publisher = context.clone();
    let once = move |parcel: Parcel| {
        let context = publisher.clone();
        async move {
            let confirmed = context.publish(NAME, parcel.encode().into()).await.ok()?;
            confirmed.await.ok().map(|_| parcel)
        }
    };
    let called = call(spec.load, spec.in_flight, once).await;
    context.publish(NAME, Parcel::end(called.answered).encode().into()).await?.await?;
    Ok(called)
}

pub(super) async fn consume(spec: &Spec, sink: &Sink) -> Result<()> {
    let (_, stream) = stream(spec).await?;
    // The broker stays from run to run.
    let _ = stream.delete_consumer("versus").await;
    stream.purge().await?;
    let config = pull::Config {
        durable_name: Some("versus".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: Duration::from_secs(30),
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut messages = consumer.messages().await?;
    say(&Said::Ready);
    while let Some(message) = messages.next().await {
        let message = message?;
        message.ack().await?;
        if Parcel::decode(&message.payload).is_some_and(|parcel| sink.count(&parcel)) {
            break;
        }
    }
    Ok(())
}
