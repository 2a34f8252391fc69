//! NATS core: a server between the two, at most once, not encrypted. The client waits while the server does not read.

use async_nats::{Client, ConnectOptions};
use futures::StreamExt;

use super::{ENDS, NAME, PAUSE};
use crate::endpoint::{Gate, Result, Said, Spec, say};
use crate::load::{Called, Parcel, Sink, Source, call as ask};

async fn connect(spec: &Spec) -> Result<Client> {
    let options = ConnectOptions::new().subscription_capacity(65_536);
    Ok(options.connect(format!("127.0.0.1:{}", spec.port())).await?)
}

pub(super) async fn publish(spec: &Spec, gate: &Gate) -> Result<()> {
    let client = connect(spec).await?;
    gate.pass()?;
    let mut source = Source::new(spec.load);
    while let Some(parcel) = source.next() {
        client.publish(NAME, parcel.encode().into()).await?;
    }
    client.flush().await?;
    super::done(&source);
    for _ in 0..ENDS {
        client.publish(NAME, source.end().encode().into()).await?;
        client.flush().await?;
        tokio::time::sleep(PAUSE).await;
    }
    std::future::pending().await
}

pub(super) async fn subscribe(spec: &Spec, sink: &Sink) -> Result<()> {
    let client = connect(spec).await?;
    let mut subscriber = client.subscribe(NAME).await?;
    client.flush().await?;
    say(&Said::Ready);
    while let Some(message) = subscriber.next().await {
        if sink.note(&message.payload) {
            break;
        }
    }
    Ok(())
}

pub(super) async fn serve(spec: &Spec) -> Result<()> {
    let client = connect(spec).await?;
    let mut requests = client.subscribe(NAME).await?;
    client.flush().await?;
    say(&Said::Ready);
    while let Some(request) = requests.next().await {
        if let (Some(question), Some(reply)) = (Parcel::decode(&request.payload), request.reply) {
            client.publish(reply, question.encode().into()).await?;
        }
    }
    Ok(())
}

pub(super) async fn call(spec: &Spec, gate: &Gate) -> Result<Called> {
    let client = connect(spec).await?;
    gate.pass()?;
    let once = move |question: Parcel| {
        let client = client.clone();
        async move {
            let answer = client.request(NAME, question.encode().into()).await.ok()?;
            Parcel::decode(&answer.payload)
        }
    };
    Ok(ask(spec.load, spec.in_flight, once).await)
}
