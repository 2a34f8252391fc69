//! The net: the only place with a `Swarm`, sockets, files and spawned tasks.
//!
//! What is here opens connections, keeps strangers out, finds neighbours on this host and keeps what a node must remember
//! between two starts. It decides nothing about messages: whom to dial, what to forward and whom to answer is the mesh's.

// The driver, which uses all of it, comes next.
#![allow(dead_code)]

pub(crate) mod access;
pub(crate) mod behaviour;
pub(crate) mod data_dir;
mod files;
pub(crate) mod gate;
pub(crate) mod registry;
pub(crate) mod rpc;
pub(crate) mod transport;
