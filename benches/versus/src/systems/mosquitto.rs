//! Mosquitto, an MQTT broker, with QoS 0: at most once, not encrypted.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};

use super::{ENDS, NAME, PAUSE};
use crate::endpoint::{Gate, Result, Said, Spec, say};
use crate::load::{Sink, Source};

fn options(spec: &Spec, id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(id, "127.0.0.1", spec.port());
    options.set_max_packet_size(4 << 20, 4 << 20).set_inflight(1000).set_keep_alive(Duration::from_secs(30));
    options
}

pub(super) async fn publish(spec: &Spec, gate: &Gate) -> Result<()> {
    let (client, mut connection) = AsyncClient::new(options(spec, "publisher"), 1000);
    let (connected, ready) = tokio::sync::oneshot::channel();
    let mut connected = Some(connected);
    tokio::spawn(async move {
        while let Ok(event) = connection.poll().await {
            if let (Event::Incoming(Packet::ConnAck(_)), Some(connected)) = (event, connected.take()) {
                let _ = connected.send(());
            }
        }
    });
    ready.await?;
    gate.pass()?;
    let mut source = Source::new(spec.load);
    while let Some(parcel) = source.next() {
        client.publish(NAME, QoS::AtMostOnce, false, parcel.encode()).await?;
    }
    super::done(&source);
    for _ in 0..ENDS {
        client.publish(NAME, QoS::AtMostOnce, false, source.end().encode()).await?;
        tokio::time::sleep(PAUSE).await;
    }
    std::future::pending().await
}

pub(super) async fn subscribe(spec: &Spec, sink: &Sink) -> Result<()> {
    let (client, mut connection) = AsyncClient::new(options(spec, &format!("subscriber-{}", spec.index)), 1000);
    client.subscribe(NAME, QoS::AtMostOnce).await?;
    loop {
        match connection.poll().await? {
            Event::Incoming(Packet::SubAck(_)) => say(&Said::Ready),
            Event::Incoming(Packet::Publish(message)) if sink.note(&message.payload) => return Ok(()),
            _ => {}
        }
    }
}
