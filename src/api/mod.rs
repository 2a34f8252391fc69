//! What users hold: a node, and what is made from it.

mod builder;
mod incoming;
pub(crate) mod node;
mod publish;
mod request;
mod serve;
mod subscribe;
mod unpack;

pub use builder::{Builder, Identity};
pub use incoming::Incoming;
pub use node::{Discovery, MeshInfo, Node};
pub use publish::{Publish, Published, Publisher};
pub use request::{Ask, Reply};
pub use serve::{Provider, Refusal, Serve, ServeWith, Serving};
pub use subscribe::{Subscribe, Subscriber};
