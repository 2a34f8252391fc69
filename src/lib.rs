pub use config::{Config, Limits, MeshChoice};
pub use error::{Closed, Outcome, PublishError, RecvError, RequestError, StartError, SubscribeError};
pub use mesh::event::{Event, FoundBy, PeerStatus, Status};
pub use message::{Headers, Message};
pub use payload::{Bincode, Encoding, Json, PayloadError, Raw};
pub use topic::{MAX_NAME, NameError, Pattern, RawPattern, RawService, RawTopic, Service, Topic};
pub use wire::{MeshId, MessageId, ParseIdError};

mod config;
mod error;
mod mesh;
mod message;
mod payload;
mod topic;
mod wire;
