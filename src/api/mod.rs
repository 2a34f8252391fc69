//! What users hold: a node, and what is made from it.

mod builder;
mod doctor;
mod drain;
mod durable;
mod guaranteed;
mod incoming;
mod local;
pub(crate) mod node;
mod post;
mod publish;
mod request;
mod request_many;
mod serve;
mod size;
mod subscribe;
mod undelivered;
mod unpack;
mod whereabouts;

pub use builder::{Builder, Identity};
pub use doctor::Doctor;
pub use drain::{Drain, DrainError};
pub use durable::{Delivery, Durable, SubscribeDurable};
pub use guaranteed::{Accepted, Guaranteed};
pub use incoming::{Incoming, Respond};
pub use local::{OfferError, Offered, RunningNode};
pub use node::{Discovery, MeshInfo, Node};
pub use post::{Notices, Outbox, OutboxMessage, OutboxRecipient};
pub use publish::{Publish, Published, Publisher};
pub use request::{Ask, Reply};
pub use request_many::{AskMany, ProviderError};
pub use serve::{Provider, Refusal, Serve, ServeWith, Serving};
pub use subscribe::{Subscribe, Subscriber};
pub use undelivered::{Undelivered, UndeliveredError};
pub use whereabouts::{Stage, Whereabouts};
