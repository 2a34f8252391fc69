//! The mesh: bookkeeping and judgement, as a state machine without IO, clock, randomness or tasks.

pub(crate) mod effects;
pub(crate) mod event;
pub(crate) mod links;
pub(crate) mod roster;
pub(crate) mod routes;
pub(crate) mod shards;
pub(crate) mod time;
