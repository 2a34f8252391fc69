//! RabbitMQ: a queue for each subscriber behind a fanout exchange, nothing durable, no acknowledgements, not encrypted.
//! Guaranteed: one durable queue, persistent messages, publisher confirms and acknowledgements by hand.

use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};

use super::{ENDS, NAME, PAUSE};
use crate::endpoint::{Gate, Result, Said, Spec, say};
use crate::load::{Called, Parcel, Sink, Source, call};

/// The durable queue.
const QUEUE: &str = "versus.guaranteed";
/// How many messages a consumer may have that it has not acknowledged.
const WINDOW: u16 = 1_000;

async fn open(spec: &Spec) -> Result<(Connection, Channel)> {
    let address = format!("amqp://guest:guest@127.0.0.1:{}/%2f", spec.port());
    let connection = Connection::connect(&address, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

async fn connect(spec: &Spec) -> Result<(Connection, Channel)> {
    let (connection, channel) = open(spec).await?;
    let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
    channel.exchange_declare(NAME.into(), ExchangeKind::Fanout, options, FieldTable::default()).await?;
    Ok((connection, channel))
}

pub(super) async fn publish(spec: &Spec, gate: &Gate) -> Result<()> {
    let (_connection, channel) = connect(spec).await?;
    gate.pass()?;
    let mut source = Source::new(spec.load);
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default().with_delivery_mode(1));
    while let Some(parcel) = source.next() {
        channel.basic_publish(NAME.into(), "".into(), options, &parcel.encode(), properties.clone()).await?;
    }
    super::done(&source);
    for _ in 0..ENDS {
        channel.basic_publish(NAME.into(), "".into(), options, &source.end().encode(), properties.clone()).await?;
        tokio::time::sleep(PAUSE).await;
    }
    std::future::pending().await
}

pub(super) async fn subscribe(spec: &Spec, sink: &Sink) -> Result<()> {
    let (_connection, channel) = connect(spec).await?;
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
    let queue = queue.name().clone();
    channel
        .queue_bind(queue.clone(), NAME.into(), "".into(), QueueBindOptions::default(), FieldTable::default())
        .await?;
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    let mut consumer = channel.basic_consume(queue, "versus".into(), options, FieldTable::default()).await?;
    say(&Said::Ready);
    while let Some(delivery) = consumer.next().await {
        if sink.note(&delivery?.data) {
            break;
        }
    }
    Ok(())
}

async fn open_queue(spec: &Spec) -> Result<(Connection, Channel)> {
    let (connection, channel) = open(spec).await?;
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await?;
    Ok((connection, channel))
}

pub(super) async fn commit(spec: &Spec, gate: &Gate) -> Result<Called> {
    let (_connection, channel) = open_queue(spec).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    gate.pass()?;
    let publisher = channel.clone();
    let publish = move |parcel: Parcel| {
        let channel = publisher.clone();
        async move {
            let (options, properties) =
                (BasicPublishOptions::default(), BasicProperties::default().with_delivery_mode(2));
            let confirm =
                channel.basic_publish("".into(), QUEUE.into(), options, &parcel.encode(), properties).await.ok()?;
            confirm.await.ok().filter(lapin::Confirmation::is_ack).map(|_| parcel)
        }
    };
    let called = call(spec.load, spec.in_flight, publish.clone()).await;
    publish(Parcel::end(called.answered)).await.ok_or("the last message was not confirmed")?;
    Ok(called)
}

pub(super) async fn consume(spec: &Spec, sink: &Sink) -> Result<()> {
    let (_connection, channel) = open_queue(spec).await?;
    // The broker stays from run to run.
    channel.queue_purge(QUEUE.into(), QueuePurgeOptions::default()).await?;
    channel.basic_qos(WINDOW, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(QUEUE.into(), "versus".into(), options, FieldTable::default()).await?;
    say(&Said::Ready);
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        delivery.ack(BasicAckOptions::default()).await?;
        if Parcel::decode(&delivery.data).is_some_and(|parcel| sink.count(&parcel)) {
            break;
        }
    }
    Ok(())
}
