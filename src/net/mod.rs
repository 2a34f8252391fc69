//! The net: the only place with a `Swarm`, sockets, files and spawned tasks.
//!
//! What is here opens connections, keeps strangers out, finds neighbours on this host and keeps what a node must remember
//! between two starts. It decides nothing about messages: whom to dial, what to forward and whom to answer is the mesh's.

pub(crate) use start::{check, identity, start, start_in};

pub(crate) mod access;
pub(crate) mod behaviour;
mod checker;
pub(crate) mod clock;
pub(crate) mod data_dir;
pub(crate) mod doctor;
mod doorstep;
mod driver;
mod files;
pub(crate) mod gate;
mod gossip;
pub(crate) mod handle;
mod holder;
pub(crate) mod hub;
mod inner;
pub(crate) mod lanes;
mod listen;
pub(crate) mod local;
pub(crate) mod mailbox;
mod mdns;
pub(crate) mod press;
pub(crate) mod pulse;
pub(crate) mod registry;
mod remembered;
mod resolver;
pub(crate) mod rpc;
mod silence;
mod start;
#[cfg_attr(not(feature = "store"), allow(dead_code, reason = "without a store on disk it only says so"))]
pub(crate) mod store;
mod translate;
pub(crate) mod transport;
mod verified;
mod watcher;
