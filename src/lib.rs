#![doc = include_str!("../README.md")]
#![warn(clippy::print_stdout, clippy::print_stderr)]
// In a test what is not expected fails it, whatever it is; and a seed that fails has to be printed.
#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, clippy::print_stderr))]
// Without the net nobody uses the mesh: then this only checks that it stands alone.
#![cfg_attr(not(feature = "net"), allow(dead_code, unused_imports))]

#[cfg(feature = "net")]
pub use api::{
    Accepted, Ask, AskMany, Builder, Delivery, Discovery, Doctor, Drain, DrainError, Durable, Guaranteed, Identity,
    Incoming, MeshInfo, Node, Notices, OfferError, Offered, Outbox, OutboxMessage, OutboxRecipient, Provider,
    ProviderError, Publish, Published, Publisher, Refusal, Reply, Respond, RunningNode, Serve, ServeWith, Serving,
    Stage, Subscribe, SubscribeDurable, Subscriber, Undelivered, UndeliveredError, Whereabouts,
};
/// Bytes that are cheap to clone: what [`RawTopic`] and its like carry.
pub use bytes::Bytes;
pub use config::{Config, Dissemination, LimitError, Limits, MeshChoice};
pub use dns::{DnsName, DnsNameError};
pub use error::{AckError, Closed, Outcome, PublishError, RecvError, RequestError, StartError, SubscribeError};
pub use libp2p_identity::PeerId;
pub use mesh::event::{Event, FoundBy};
pub use mesh::postman::notices::Reason;
pub use mesh::postman::{DurableHere, DurableStatus};
pub use mesh::status::{PeerStatus, Status, Tables};
pub use message::{Headers, Message};
pub use multiaddr::Multiaddr;
#[cfg(feature = "net")]
pub use net::doctor::{Finding, Probe, Verdict};
pub use payload::{Bincode, Encoding, Json, PayloadError, Raw};
pub use topic::{MAX_NAME, NameError, Pattern, RawPattern, RawService, RawTopic, Service, Topic};
pub use wire::{MeshId, MessageId, ParseIdError};

#[cfg(feature = "net")]
mod api;
mod config;
mod dns;
mod error;
mod mesh;
mod message;
#[cfg(feature = "net")]
mod net;
mod payload;
mod topic;
mod wire;

/// What the page on guaranteed messages shows compiles.
#[cfg(all(doctest, feature = "net"))]
#[doc = include_str!("../docs/delivery.md")]
mod delivery {}

/// What the pages for users of other systems show of Rust compiles.
#[cfg(all(doctest, feature = "net"))]
#[doc = include_str!("../docs/coming-from/nats.md")]
#[doc = include_str!("../docs/coming-from/rabbitmq.md")]
#[doc = include_str!("../docs/coming-from/mqtt.md")]
mod coming_from {}
