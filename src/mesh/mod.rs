//! The mesh: bookkeeping and judgement, as a state machine without IO, clock, randomness or tasks.

pub(crate) mod checked;
pub(crate) mod effects;
pub(crate) mod event;
mod heads;
mod inbound;
mod inject;
pub(crate) mod outgoing;
mod pace;
mod requests;
mod ring;
pub(crate) mod routes;
mod shards;
mod subscriptions;
pub(crate) mod time;
