//! What users hold: a node, and what is made from it.

mod builder;
mod doctor;
mod drain;
mod incoming;
mod local;
pub(crate) mod node;
mod publish;
mod request;
mod request_many;
mod serve;
mod size;
mod subscribe;
mod unpack;

pub use builder::{Builder, Identity};
pub use doctor::Doctor;
pub use drain::{Drain, DrainError};
pub use incoming::{Incoming, Respond};
pub use local::{OfferError, Offered, RunningNode};
pub use node::{Discovery, MeshInfo, Node};
pub use publish::{Publish, Published, Publisher};
pub use request::{Ask, Reply};
pub use request_many::{AskMany, ProviderError};
pub use serve::{Provider, Refusal, Serve, ServeWith, Serving};
pub use subscribe::{Subscribe, Subscriber};
