//! Zenoh: peer to peer without a router, over TCP as it is and over TLS with a certificate of our own; congestion blocks.

use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;
use zenoh::qos::CongestionControl;
use zenoh::{Config, Session, Wait};

use super::{ENDS, PAUSE};
use crate::System;
use crate::endpoint::{Gate, Result, Said, Spec, say};
use crate::load::{Sink, Source};

/// Zenoh's names have slashes.
const KEY: &str = "versus/parcels";

fn config(spec: &Spec, listens: bool) -> Result<Config> {
    let tls = spec.system == System::ZenohTls;
    let endpoint = format!("[\"{}/localhost:{}\"]", if tls { "tls" } else { "tcp" }, spec.port());
    let (listen, connect) = if listens { (endpoint.as_str(), "[]") } else { ("[]", endpoint.as_str()) };
    let mut config = Config::default();
    let mut set = |key: &str, value: &str| config.insert_json5(key, value);
    set("mode", "\"peer\"")?;
    set("scouting/multicast/enabled", "false")?;
    set("scouting/gossip/enabled", "false")?;
    set("listen/endpoints", listen)?;
    set("connect/endpoints", connect)?;
    if tls {
        let file = |name: &str| format!("{:?}", spec.scratch.join(name).display().to_string());
        set("transport/link/tls/root_ca_certificate", &file("cert.pem"))?;
        set("transport/link/tls/listen_certificate", &file("cert.pem"))?;
        set("transport/link/tls/listen_private_key", &file("key.pem"))?;
    }
    Ok(config)
}

async fn open(spec: &Spec, listens: bool) -> Result<Session> {
    zenoh::open(config(spec, listens)?).await
}

pub(super) async fn publish(spec: &Spec, subscribers: usize, gate: &Gate) -> Result<()> {
    let session = open(spec, true).await?;
    let publisher = session.declare_publisher(KEY).congestion_control(CongestionControl::Block).await?;
    gate.pass()?;
    while session.info().peers_zid().await.count() < subscribers || !publisher.matching_status().await?.matching() {
        tokio::time::sleep(PAUSE).await;
    }
    // That one matches says nothing of the others.
    tokio::time::sleep(10 * PAUSE).await;
    let mut source = Source::new(spec.load);
    while let Some(parcel) = source.next() {
        publisher.put(parcel.encode()).wait()?;
    }
    super::done(&source);
    for _ in 0..ENDS {
        publisher.put(source.end().encode()).wait()?;
        tokio::time::sleep(PAUSE).await;
    }
    std::future::pending().await
}

pub(super) async fn subscribe(spec: &Spec, sink: Sink) -> Result<()> {
    let session = open(spec, false).await?;
    let (ended, end) = oneshot::channel();
    let ended = Mutex::new(Some(ended));
    let _subscriber = session
        .declare_subscriber(KEY)
        .callback(move |sample| {
            if sink.note(&sample.payload().to_bytes())
                && let Some(ended) = ended.lock().unwrap_or_else(PoisonError::into_inner).take()
            {
                let _ = ended.send(());
            }
        })
        .await?;
    say(&Said::Ready);
    Ok(end.await?)
}
