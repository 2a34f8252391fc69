//! Guaranteed messages as they stand in requests and responses.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::wire::MessageId;
use crate::wire::letter::ReasonRow;
use crate::wire::node_key::NodeKey;

/// A letter as it is offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offered {
    pub(crate) id: MessageId,
    /// How often it was handed out before, by nodes that do not have it any more.
    pub(crate) attempts: u32,
    /// How often it was given to a node: one that had it and gave it back takes it again only with a higher number.
    pub(crate) lease: u32,
    /// Of one that was stored there before: its sender wants it back, unless a subscriber has it.
    pub(crate) take_back: bool,
    /// The sealed letter, or nothing: it was stored there before, and its sender asks what became of it.
    pub(crate) sealed: Bytes,
}

/// Which of its sender's exchanges an offer belongs to: one that is less than another was begun before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Turn {
    /// The sender's incarnation.
    pub(crate) run: u64,
    /// How many it began before, in this run.
    pub(crate) count: u64,
}

/// What became of a letter at the node that it was offered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fate {
    /// It is on disk there.
    Stored,
    /// Its handler has acknowledged it, which is on disk there.
    Processed,
    /// Its time was over when it came.
    Expired,
    /// It is not there: it came without its bytes, or they were damaged.
    Missing,
    /// There was no room for it.
    NoRoom,
    /// That node has no durable subscription of that name.
    Nobody,
    /// Another letter of that id is there.
    Refused,
    /// It is not there any more, as its sender wanted, and was handed out so often until then.
    Withdrawn { attempts: u32 },
    /// It was handed out as often as it may be, and never acknowledged.
    Poison,
}

/// What a node knows of a message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) recipient: String,
    pub(crate) stage: StageRow,
    /// Since when, in microseconds since 1970.
    pub(crate) time: u64,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StageRow {
    /// It is on its sender's disk, and no recipient's node has it.
    Accepted,
    /// Its sender knows that this node has it on disk.
    Given(NodeKey),
    /// It is on disk here, for a subscriber.
    Stored,
    Processed,
    Poison,
    Undelivered(ReasonRow),
    /// It is on disk here, as a copy for the node that sent it.
    Kept(NodeKey),
}
