//! What only whole nodes can show: that the layers keep apart, that live nodes talk, and that the `pombo` command does what
//! its users are told.
//!
//! The logic is tested where it lives, in virtual time; here is real time, and every wait has a deadline.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test panics when something is wrong, tells why, and lives in real time"
)]

mod architecture;
#[cfg(feature = "cli")]
mod backlog;
#[cfg(feature = "cli")]
mod bad_input;
#[cfg(feature = "cli")]
mod bench;
#[cfg(feature = "cli")]
mod beside;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod config;
#[cfg(all(feature = "cli", feature = "store"))]
mod custody;
#[cfg(feature = "store")]
mod delivery;
#[cfg(all(feature = "store", feature = "cli"))]
mod delivery_kills;
#[cfg(feature = "cli")]
mod doctor;
#[cfg(feature = "net")]
mod draining;
#[cfg(feature = "cli")]
mod endings;
#[cfg(feature = "cli")]
mod errands;
#[cfg(feature = "cli")]
mod hosts;
#[cfg(feature = "cli")]
mod hosts_discovery;
#[cfg(all(feature = "store", feature = "cli"))]
mod json;
#[cfg(all(feature = "store", feature = "cli"))]
mod keeping;
#[cfg(feature = "net")]
mod lanes;
#[cfg(feature = "net")]
mod load;
#[cfg(feature = "net")]
mod many;
#[cfg(feature = "cli")]
mod names;
#[cfg(feature = "cli")]
mod other_users;
#[cfg(feature = "cli")]
mod pages;
#[cfg(all(feature = "store", feature = "cli"))]
mod power_cuts;
#[cfg(feature = "store")]
mod queues;
#[cfg(feature = "cli")]
mod readme;
#[cfg(feature = "cli")]
mod restarts;
#[cfg(feature = "net")]
mod sizes;
#[cfg(feature = "cli")]
mod snapshots;
#[cfg(feature = "cli")]
mod soak;
#[cfg(feature = "cli")]
mod stalled;
#[cfg(feature = "cli")]
mod strangers;
#[cfg(feature = "net")]
mod support;
#[cfg(feature = "net")]
mod swarm;
#[cfg(feature = "cli")]
mod terminal;
#[cfg(feature = "cli")]
mod watch;
