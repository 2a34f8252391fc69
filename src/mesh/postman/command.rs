//! What callers ask of the postman, and what they are answered.

use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::PeerId;

use super::notices::Notice;
use super::subscription::Terms;
use crate::MessageId;
use crate::mesh::event::HolderId;
use crate::mesh::time::{Span, Wall};
use crate::wire::rpc::Known;

/// What a caller can ask for.
#[derive(Clone, Debug)]
pub(crate) enum PostCommand {
    /// Deliver a message: to the durable subscriptions that match, and to those that are named.
    Accept(Posting),
    /// Hold a durable subscription, which is made if it is not there.
    Hold { holder: HolderId, name: Arc<str>, pattern: Arc<str>, terms: Terms },
    /// Whoever held it does so no more.
    Release { holder: HolderId },
    /// Forget it, and what came for it.
    Remove { name: Arc<str> },
    /// A letter was handled.
    Acknowledge { number: u64 },
    /// It was not, and is to be handed out again: after that time, or when this node thinks fit.
    GiveBack { number: u64, after: Option<Span> },
    /// The first notice after that one. Answered when there is one.
    NextNotice { after: u64 },
    /// The notices that there are.
    Notices,
    /// Somebody has taken note of the one that tells of this message and recipient.
    TakeNotice { number: u64, recipient: Arc<str> },
    /// The letter that it tells of.
    ShowLetter { number: u64, recipient: Arc<str> },
    /// Deliver it after all, to that recipient, in place of the notice.
    Retry { number: u64, recipient: Arc<str>, posting: Posting },
    /// What is owed to others.
    Outbox,
    /// The durable subscriptions of the mesh.
    Durables,
    /// What this node knows of a message, or a neighbour.
    Where { id: MessageId, peer: Option<PeerId> },
}

/// A message that is to be delivered.
#[derive(Clone, Debug)]
pub(crate) struct Posting {
    pub(crate) id: MessageId,
    pub(crate) topic: Arc<str>,
    pub(crate) time: Wall,
    pub(crate) expires: Wall,
    pub(crate) sealed: Bytes,
    /// Recipients by name. The durable subscriptions that match are added.
    pub(crate) to: Vec<Arc<str>>,
    /// How many other nodes are to have copies on disk before it is accepted.
    pub(crate) copies: usize,
    /// Those that can keep one, in the order in which they are asked. Filled in on the way.
    pub(crate) custodians: Vec<PeerId>,
}

/// The answer to a command for the postman.
#[derive(Clone, Debug)]
pub(crate) enum PostAnswer {
    Done,
    /// It is on disk, for these.
    Accepted {
        recipients: Vec<Arc<str>>,
        /// How many others are known to have copies on disk, and how many were wanted: none, of what is delivered already.
        copies: usize,
        wanted: usize,
    },
    /// Nobody is known who would want it, or there is nothing of that name.
    Nobody,
    /// This node has nowhere to keep anything.
    NoStore(String),
    /// The outbox has no room.
    Full {
        what: &'static str,
        limit: usize,
    },
    /// It could not be written.
    Failed(String),
    /// Another subscription of that name stands in the way.
    Held(String),
    /// Too late: the message's time is over, and it is forgotten.
    Late,
    Notice {
        serial: u64,
        notice: Box<Notice>,
    },
    Notices {
        total: usize,
        notices: Vec<Notice>,
    },
    /// A sealed letter.
    Letter(Bytes),
    /// It is not on the disk any more.
    Lost,
    Outbox {
        total: usize,
        bytes: u64,
        messages: Vec<Waiting>,
    },
    Durables(Vec<DurableStatus>),
    Known(Vec<Known>),
}

/// A durable subscription, at a node that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DurableStatus {
    /// Its name, in the whole mesh.
    pub name: String,
    /// Its pattern.
    pub pattern: String,
    /// The node that has it.
    pub node: PeerId,
    /// What that node is called.
    pub node_name: String,
    /// Whether that node is there.
    pub live: bool,
    /// What is known of it if this node has it.
    pub here: Option<DurableHere>,
}

/// A durable subscription of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DurableHere {
    /// How many subscribers hold it.
    pub holders: usize,
    /// Messages that came for it and are not acknowledged, those that are out at its holder included.
    pub waiting: usize,
}

/// A message that is owed to somebody.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) id: MessageId,
    pub(crate) topic: Arc<str>,
    pub(crate) expires: Wall,
    /// Each recipient, and whether a node has stored it for that one.
    pub(crate) owed: Vec<(Arc<str>, bool)>,
}
