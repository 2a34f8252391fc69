//! The bytes that travel: frames, records, their encoding and their signatures. `docs/wire.md` describes them all.
//!
//! Nothing here knows who is connected, or what time it is.

pub(crate) mod codec;
pub(crate) mod frame;
mod id;
pub(crate) mod node_key;
pub(crate) mod roster;
pub(crate) mod rpc;

pub use id::{MeshId, MessageId, ParseIdError};
