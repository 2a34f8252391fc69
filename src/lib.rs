mod wire;

pub use wire::{MeshId, MessageId, ParseIdError};
