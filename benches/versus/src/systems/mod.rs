//! The systems. Each publishes and subscribes, or serves and asks, as its own documentation has it for many small messages,
//! with flow control that blocks wherever it has one.

mod disk;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "nats")]
mod jetstream;
#[cfg(feature = "mosquitto")]
mod mosquitto;
#[cfg(feature = "nats")]
mod nats;
mod pombo;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "raw")]
mod raw;
#[cfg(feature = "zenoh")]
mod zenoh;
#[cfg(feature = "zeromq")]
mod zeromq;

use std::time::Duration;

use crate::System;
use crate::endpoint::{Gate, Result, Spec, say};
use crate::load::{Called, Sink, Source};

/// What is published to and asked for where a system has names.
const NAME: &str = "versus.parcels";

/// How often the end is told, where a message may be lost, and the pause after each time.
const ENDS: usize = 3;
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) async fn publish(spec: &Spec, subscribers: usize, gate: &Gate) -> Result<()> {
    match spec.system {
        System::Pombo | System::PomboGossip => pombo::publish(spec, subscribers, gate).await,
        #[cfg(feature = "nats")]
        System::Nats => nats::publish(spec, gate).await,
        #[cfg(feature = "zenoh")]
        System::ZenohTcp | System::ZenohTls => zenoh::publish(spec, subscribers, gate).await,
        #[cfg(feature = "zeromq")]
        System::Zeromq => zeromq::publish(spec, subscribers, gate),
        #[cfg(feature = "mosquitto")]
        System::Mosquitto => mosquitto::publish(spec, gate).await,
        #[cfg(feature = "rabbitmq")]
        System::Rabbitmq => rabbitmq::publish(spec, gate).await,
        #[cfg(feature = "raw")]
        System::Libp2pStream => raw::stream::publish(spec, gate).await,
        other => Err(format!("{} does not publish", other.name()).into()),
    }
}

/// Returns when the end has come.
pub(crate) async fn subscribe(spec: &Spec, sink: Sink) -> Result<()> {
    match spec.system {
        System::Pombo | System::PomboGossip => pombo::subscribe(spec, &sink).await,
        #[cfg(feature = "nats")]
        System::Nats => nats::subscribe(spec, &sink).await,
        #[cfg(feature = "zenoh")]
        System::ZenohTcp | System::ZenohTls => zenoh::subscribe(spec, sink).await,
        #[cfg(feature = "zeromq")]
        System::Zeromq => zeromq::subscribe(spec, &sink),
        #[cfg(feature = "mosquitto")]
        System::Mosquitto => mosquitto::subscribe(spec, &sink).await,
        #[cfg(feature = "rabbitmq")]
        System::Rabbitmq => rabbitmq::subscribe(spec, &sink).await,
        #[cfg(feature = "raw")]
        System::Libp2pStream => raw::stream::subscribe(spec, &sink).await,
        other => Err(format!("{} does not subscribe", other.name()).into()),
    }
}

pub(crate) async fn serve(spec: &Spec) -> Result<()> {
    match spec.system {
        System::Pombo => pombo::serve(spec).await,
        #[cfg(feature = "nats")]
        System::Nats => nats::serve(spec).await,
        #[cfg(feature = "grpc")]
        System::Grpc | System::GrpcTls => grpc::serve(spec).await,
        #[cfg(feature = "http")]
        System::Http1 => http::serve(spec).await,
        #[cfg(feature = "raw")]
        System::Libp2pStream => raw::stream::serve(spec).await,
        #[cfg(feature = "raw")]
        System::Libp2pRequestResponse => raw::request_response::serve(spec).await,
        other => Err(format!("{} does not serve", other.name()).into()),
    }
}

pub(crate) async fn call(spec: &Spec, gate: &Gate) -> Result<Called> {
    match spec.system {
        System::Pombo => pombo::call(spec, gate).await,
        #[cfg(feature = "nats")]
        System::Nats => nats::call(spec, gate).await,
        #[cfg(feature = "grpc")]
        System::Grpc | System::GrpcTls => grpc::call(spec, gate).await,
        #[cfg(feature = "http")]
        System::Http1 => http::call(spec, gate).await,
        #[cfg(feature = "raw")]
        System::Libp2pStream => raw::stream::call(spec, gate).await,
        #[cfg(feature = "raw")]
        System::Libp2pRequestResponse => raw::request_response::call(spec, gate).await,
        other => Err(format!("{} does not ask", other.name()).into()),
    }
}

/// Publishes guaranteed messages, and returns when all are confirmed, and one that says that there are no more.
pub(crate) async fn commit(spec: &Spec, gate: &Gate) -> Result<Called> {
    match spec.system {
        #[cfg(feature = "store")]
        System::Pombo => pombo::commit(spec, gate).await,
        #[cfg(feature = "nats")]
        System::Jetstream | System::JetstreamSynced => jetstream::commit(spec, gate).await,
        #[cfg(feature = "rabbitmq")]
        System::Rabbitmq => rabbitmq::commit(spec, gate).await,
        System::Fsync => disk::commit(spec, gate).await,
        other => Err(format!("{} does not guarantee", other.name()).into()),
    }
}

/// Acknowledges guaranteed messages, and returns when the last has come.
pub(crate) async fn consume(spec: &Spec, sink: &Sink) -> Result<()> {
    match spec.system {
        #[cfg(feature = "store")]
        System::Pombo => pombo::consume(spec, sink).await,
        #[cfg(feature = "nats")]
        System::Jetstream | System::JetstreamSynced => jetstream::consume(spec, sink).await,
        #[cfg(feature = "rabbitmq")]
        System::Rabbitmq => rabbitmq::consume(spec, sink).await,
        other => {
            // Some builds have none that does.
            let _ = sink;
            Err(format!("{} does not guarantee", other.name()).into())
        }
    }
}

/// Says how many were sent, when that was all.
fn done(source: &Source) {
    say(&crate::endpoint::Said::Sent(source.sent()));
}
