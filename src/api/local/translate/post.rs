//! What the api has of guaranteed messages, as records of a node's socket, and back.

use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use super::{failed, size, small, unpublished, wide};
use crate::api::{Accepted, Stage, UndeliveredError, Whereabouts};
use crate::error::{AckError, Closed, PublishError};
use crate::mesh::postman::notices::Notice;
use crate::mesh::postman::{DurableHere, DurableStatus, Waiting};
use crate::mesh::time::Wall;
use crate::message::{Message, Origin};
use crate::wire::local::{self, Arrived, DurableAt, Failure, FromNode, KnownAt};
use crate::wire::node_key::NodeKey;
use crate::wire::rpc::{Known, StageRow};

pub(in crate::api::local) fn arrived(message: Message<Bytes>) -> io::Result<Arrived> {
    let time = message.time().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Arrived {
        topic: message.topic().to_owned(),
        source: NodeKey::of(&message.source()).ok_or(io::ErrorKind::Unsupported)?,
        id: message.id(),
        time: u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
        content_type: message.content_type().to_owned(),
        headers: message.headers().clone(),
        payload: message.into_payload(),
        extensions: Vec::new(),
    })
}

/// `None` for a source without an Ed25519 key, which no node is.
pub(in crate::api::local) fn message(arrived: Arrived) -> Option<Message<Bytes>> {
    let Arrived { topic, source, id, time, content_type, headers, payload, .. } = arrived;
    let origin = Arc::new(Origin { topic, source: source.peer()?, content_type });
    Some(Message { origin, id, time: UNIX_EPOCH + Duration::from_micros(time), headers, payload })
}

pub(in crate::api::local) fn accepted(accepted: Accepted) -> FromNode {
    let Accepted { id, recipients, copies } = accepted;
    let copies = small(copies);
    FromNode::Accepted { id, recipients, copies, wanted: copies, extensions: Vec::new() }
}

/// What came of a message that was to be kept.
pub(in crate::api::local) fn kept(result: Result<Accepted, PublishError>) -> FromNode {
    match result {
        Ok(message) => accepted(message),
        Err(PublishError::TooFewCopies { id, recipients, copies, wanted }) => {
            let (copies, wanted) = (small(copies), small(wanted));
            FromNode::Accepted { id, recipients, copies, wanted, extensions: Vec::new() }
        }
        Err(error) => failed(error),
    }
}

pub(in crate::api::local) fn notice(notice: Notice) -> FromNode {
    FromNode::Notice(Box::new(local::Notice {
        number: notice.number,
        id: notice.id,
        topic: notice.topic.to_string(),
        recipient: notice.recipient.to_string(),
        reason: notice.reason.into(),
        time: notice.at.0,
        expires: notice.expires.0,
        offers: notice.offers,
        stored: notice.stored,
        extensions: Vec::new(),
    }))
}

/// Its bytes are not known here, nor needed.
pub(in crate::api::local) fn noticed(notice: local::Notice) -> Notice {
    Notice {
        number: notice.number,
        id: notice.id,
        topic: notice.topic.into(),
        recipient: notice.recipient.into(),
        reason: notice.reason.into(),
        at: Wall(notice.time),
        expires: Wall(notice.expires),
        bytes: 0,
        offers: notice.offers,
        stored: notice.stored,
    }
}

pub(in crate::api::local) fn waiting(waiting: Waiting) -> FromNode {
    let Waiting { id, topic, expires, owed } = waiting;
    let owed = owed.into_iter().map(|(name, stored)| (name.to_string(), stored)).collect();
    let (topic, expires) = (topic.to_string(), expires.0);
    FromNode::Waiting(local::Waiting { id, topic, expires, owed, extensions: Vec::new() })
}

pub(in crate::api::local) fn owed(waiting: local::Waiting) -> Waiting {
    let local::Waiting { id, topic, expires, owed, .. } = waiting;
    let owed = owed.into_iter().map(|(name, stored)| (name.into(), stored)).collect();
    Waiting { id, topic: topic.into(), expires: Wall(expires), owed }
}

/// `None` for a node without an Ed25519 key, which none is.
pub(in crate::api::local) fn durable(status: DurableStatus) -> Option<FromNode> {
    let DurableStatus { name, pattern, node, node_name, live, here } = status;
    let here = here.map(|here| (small(here.holders), wide(here.waiting)));
    let node = NodeKey::of(&node)?;
    Some(FromNode::Durable(DurableAt { name, pattern, node, node_name, live, here, extensions: Vec::new() }))
}

pub(in crate::api::local) fn durable_status(durable: DurableAt) -> Option<DurableStatus> {
    let DurableAt { name, pattern, node, node_name, live, here, .. } = durable;
    let here = here.map(|(holders, waiting)| DurableHere { holders: size(holders), waiting: size(waiting) });
    Some(DurableStatus { name, pattern, node: node.peer()?, node_name, live, here })
}

/// `None` for a node without an Ed25519 key, which none is.
pub(in crate::api::local) fn known_at(whereabouts: Whereabouts) -> Option<FromNode> {
    let Whereabouts { node, node_name, recipient, stage, time } = whereabouts;
    let stage = match stage {
        Stage::Accepted => StageRow::Accepted,
        Stage::Given(peer) => StageRow::Given(NodeKey::of(&peer)?),
        Stage::Stored => StageRow::Stored,
        Stage::Processed => StageRow::Processed,
        Stage::Poison => StageRow::Poison,
        Stage::Undelivered(reason) => StageRow::Undelivered(reason.into()),
        Stage::Kept(peer) => StageRow::Kept(NodeKey::of(&peer)?),
    };
    let time = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let known = Known { recipient, stage, time: u64::try_from(time).unwrap_or(u64::MAX) };
    Some(FromNode::Known(KnownAt { node: NodeKey::of(&node)?, node_name, known, extensions: Vec::new() }))
}

impl From<AckError> for Failure {
    fn from(error: AckError) -> Self {
        match error {
            AckError::Late => Self::Late,
            AckError::NotStored { reason } => Self::NotStored { reason },
            AckError::Closed(Closed) => Self::Closed,
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else a node says is no answer to that")]
pub(in crate::api::local) fn unacknowledged(failure: Failure) -> AckError {
    match failure {
        Failure::Late => AckError::Late,
        Failure::NotStored { reason } => AckError::NotStored { reason },
        _ => Closed.into(),
    }
}

impl From<UndeliveredError> for Failure {
    fn from(error: UndeliveredError) -> Self {
        match error {
            UndeliveredError::Taken => Self::Late,
            UndeliveredError::Lost => Self::Lost,
            UndeliveredError::Publish(error) => error.into(),
            UndeliveredError::Closed(Closed) => Self::Closed,
        }
    }
}

/// Why nothing was done about an undelivered message on that topic.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest is why it was not accepted")]
pub(in crate::api::local) fn undone(failure: Failure, topic: &str) -> UndeliveredError {
    match failure {
        Failure::Late => UndeliveredError::Taken,
        Failure::Lost => UndeliveredError::Lost,
        other => unpublished(other, topic).into(),
    }
}
