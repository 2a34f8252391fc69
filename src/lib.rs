#[cfg(feature = "net")]
mod net;
mod wire;

pub use wire::{MeshId, MessageId, ParseIdError};
