//! What is said over the socket of guaranteed messages.

use serde::{Deserialize, Serialize};

use super::{Arrived, check_node, named};
use crate::topic;
use crate::wire::MessageId;
use crate::wire::codec::{self, CodecError, Extensions};
use crate::wire::guard::at_most;
use crate::wire::letter::ReasonRow;
use crate::wire::node_key::NodeKey;
use crate::wire::rpc::Known;

/// The most recipients that a message may be given by name.
pub(crate) const MAX_NAMED: usize = 1_000;

/// The most copies that a message may have at other nodes.
pub(crate) const MAX_COPIES: usize = 16;

/// That a message is to be delivered for certain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Guarantee {
    /// For so many milliseconds.
    pub(crate) ttl: u64,
    /// To these, besides those that match.
    #[serde(deserialize_with = "at_most::<MAX_NAMED, _, _>")]
    pub(crate) to: Vec<String>,
    /// With so many copies at other nodes.
    pub(crate) copies: u32,
}

/// A message that is handed out, to be acknowledged by its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handed {
    pub(crate) number: u64,
    /// Which time it is handed out.
    pub(crate) attempt: u32,
    pub(crate) message: Arrived,
}

/// What is to be done about a message that was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    /// Take note of it. [`FromNode::Done`](super::FromNode::Done).
    Take,
    /// Show what it was. [`FromNode::Message`](super::FromNode::Message).
    Show,
    /// Deliver it after all, within so many milliseconds. [`FromNode::Accepted`](super::FromNode::Accepted).
    Retry { ttl: u64 },
}

/// That a message was not delivered to a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// The message's place in the outbox.
    pub(crate) number: u64,
    pub(crate) id: MessageId,
    pub(crate) topic: String,
    pub(crate) recipient: String,
    pub(crate) reason: ReasonRow,
    /// Microseconds since 1970, as all times here.
    pub(crate) time: u64,
    pub(crate) expires: u64,
    pub(crate) offers: u32,
    /// Who had it on disk since when.
    pub(crate) stored: Option<(NodeKey, u64)>,
    pub(crate) extensions: Extensions,
}

/// A message that is owed to somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) id: MessageId,
    pub(crate) topic: String,
    pub(crate) expires: u64,
    /// Each recipient, and whether a node has it on disk for that one.
    pub(crate) owed: Vec<(String, bool)>,
    pub(crate) extensions: Extensions,
}

/// A durable subscription, at a node that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DurableAt {
    pub(crate) name: String,
    pub(crate) pattern: String,
    pub(crate) node: NodeKey,
    pub(crate) node_name: String,
    pub(crate) live: bool,
    /// At this node: how many hold it, and how many messages wait.
    pub(crate) here: Option<(u32, u64)>,
    pub(crate) extensions: Extensions,
}

/// What a node knows of a message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownAt {
    pub(crate) node: NodeKey,
    pub(crate) node_name: String,
    pub(crate) known: Known,
    pub(crate) extensions: Extensions,
}

impl KnownAt {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        codec::check_extensions(&self.extensions)?;
        codec::check_numbers(&[self.known.time])?;
        check_node(&self.node_name)?;
        named(topic::check_name(&self.known.recipient))
    }
}

impl Guarantee {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        self.to.iter().try_for_each(|name| named(topic::check_name(name)))
    }
}

impl Notice {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        codec::check_extensions(&self.extensions)?;
        let since = self.stored.map_or(0, |(_, since)| since);
        codec::check_numbers(&[self.time, self.expires, since])?;
        named(topic::check_name(&self.topic))?;
        named(topic::check_name(&self.recipient))
    }
}

impl Waiting {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        codec::check_extensions(&self.extensions)?;
        codec::check_numbers(&[self.expires])?;
        named(topic::check_name(&self.topic))?;
        self.owed.iter().try_for_each(|(name, _)| named(topic::check_name(name)))
    }
}

impl DurableAt {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        codec::check_extensions(&self.extensions)?;
        check_node(&self.node_name)?;
        named(topic::check_name(&self.name))?;
        named(topic::check_pattern(&self.pattern))
    }
}
