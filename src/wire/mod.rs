//! The bytes that travel: frames, records, their encoding and their signatures. `docs/wire.md` describes them all.
//!
//! Nothing here knows who is connected, or what time it is.

pub(crate) mod builder;
pub(crate) mod codec;
#[cfg(test)]
mod costs;
pub(crate) mod custody;
mod entry;
pub(crate) mod frame;
mod guard;
mod id;
pub(crate) mod lane;
pub(crate) mod letter;
pub(crate) mod local;
pub(crate) mod node_key;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod refusals;
pub(crate) mod roster;
pub(crate) mod rpc;
#[cfg(test)]
mod vectors;

pub use id::{MeshId, MessageId, ParseIdError};
