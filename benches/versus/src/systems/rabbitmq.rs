//! RabbitMQ: a queue for each subscriber behind a fanout exchange, nothing durable, no acknowledgements, not encrypted.

use futures::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};

use super::{ENDS, NAME, PAUSE};
use crate::endpoint::{Gate, Result, Said, Spec, say};
use crate::load::{Sink, Source};

async fn connect(spec: &Spec) -> Result<(Connection, Channel)> {
    let address = format!("amqp://guest:guest@127.0.0.1:{}/%2f", spec.port());
    let connection = Connection::connect(&address, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
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
