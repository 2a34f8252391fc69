//! A node that other processes of its user on its host use: [`Offered`] is its side, [`RunningNode`] theirs.
//!
//! They talk over the node's socket in the words of `wire/local.rs`; a connection does one piece of work. The node's side does
//! that work with the node's public api, in a task for each connection, and what a process that dies held goes with its
//! connections.

mod calls;
mod clients;
mod holding;
mod offer;
mod posts;
mod running;
mod translate;

use std::time::Duration;

pub use offer::{OfferError, Offered};
pub use running::RunningNode;

pub(super) use calls::{Answers, Calls};
pub(super) use holding::{Holding, Out, Verdicts};
pub(super) use running::Arrivals;
pub(super) use translate::millis;

/// Who does what a builder describes: a node of this process, or one that runs beside it.
#[derive(Clone, Copy, Debug)]
pub(super) enum By<N, R> {
    Own(N),
    Running(R),
}

/// How long the other side may take to say who it is, and a process what it wants.
const GREETING: Duration = Duration::from_secs(3);
