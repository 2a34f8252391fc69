mod id;

pub use id::{MeshId, MessageId, ParseIdError};
