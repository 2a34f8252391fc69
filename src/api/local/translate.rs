//! What the api has, as records of a node's socket, and back.

use std::time::Duration;

use crate::error::{Closed, PublishError, RequestError, SubscribeError};
use crate::mesh::event::FoundBy;
use crate::mesh::postman::outbox::{BYTES, MESSAGES};
use crate::mesh::status::PeerStatus;
use crate::message::Headers;
use crate::wire::local::{Failure, Found, FromNode, Peer};
use crate::wire::node_key::NodeKey;
use crate::wire::roster::Interest;

mod post;

pub(super) use self::post::{
    accepted, arrived, durable, durable_status, kept, known_at, message, notice, noticed, owed, unacknowledged, undone,
    waiting,
};

/// In milliseconds, never less than it is.
pub(in crate::api) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

pub(super) fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

pub(super) fn size(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

pub(super) fn done() -> FromNode {
    FromNode::Done { extensions: Vec::new() }
}

pub(super) fn failed(failure: impl Into<Failure>) -> FromNode {
    FromNode::Failed { failure: failure.into(), extensions: Vec::new() }
}

fn too_many_headers(bytes: usize) -> Failure {
    Failure::TooLarge { size: wide(bytes), limit: wide(Headers::MAX_BYTES) }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::TooLarge { size, limit } => Self::TooLarge { size: wide(size), limit: wide(limit) },
            PublishError::Headers { bytes, .. } => too_many_headers(bytes),
            PublishError::Nobody { wanted, found, .. } => Self::Nobody { wanted: small(wanted), found: small(found) },
            PublishError::Unconfirmed => Self::Unknown,
            PublishError::Draining => Self::Draining,
            PublishError::NoRecipient { .. } => Self::NoRecipient,
            PublishError::NoStore { reason } => Self::NoStore { reason },
            PublishError::OutboxFull { what, limit } => Self::OutboxFull { bytes: what == BYTES, limit: wide(limit) },
            PublishError::NotStored { reason } => Self::NotStored { reason },
            // What has come as a record can be encoded, and was checked by the process.
            PublishError::Encode(_)
            | PublishError::Name(_)
            | PublishError::Ttl { .. }
            | PublishError::TooManyRecipients { .. }
            | PublishError::TooManyCopies { .. }
            | PublishError::TooFewCopies { .. }
            | PublishError::Closed(_) => Self::Closed,
        }
    }
}

/// Why the message on that topic was not published.
pub(super) fn unpublished(failure: Failure, topic: &str) -> PublishError {
    match failure {
        Failure::TooLarge { size: bytes, limit } => PublishError::TooLarge { size: size(bytes), limit: size(limit) },
        Failure::Nobody { wanted, found } => {
            PublishError::Nobody { topic: topic.to_owned(), wanted: size(wanted), found: size(found) }
        }
        Failure::Draining => PublishError::Draining,
        Failure::Unknown => PublishError::Unconfirmed,
        Failure::NoRecipient => PublishError::NoRecipient { topic: topic.to_owned() },
        Failure::NoStore { reason } => PublishError::NoStore { reason },
        Failure::OutboxFull { bytes, limit } => {
            PublishError::OutboxFull { what: if bytes { BYTES } else { MESSAGES }, limit: size(limit) }
        }
        Failure::NotStored { reason } => PublishError::NotStored { reason },
        Failure::Closed
        | Failure::Durable { .. }
        | Failure::Late
        | Failure::Lost
        | Failure::TooMany { .. }
        | Failure::NoNode
        | Failure::Ambiguous { .. }
        | Failure::Busy
        | Failure::Denied
        | Failure::NotSent => Closed.into(),
    }
}

impl From<SubscribeError> for Failure {
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::TooMany { limit } => Self::TooMany { limit: wide(limit) },
            SubscribeError::Nobody { wanted, found } => Self::Nobody { wanted: small(wanted), found: small(found) },
            SubscribeError::Draining => Self::Draining,
            SubscribeError::Durable { reason } => Self::Durable { reason },
            SubscribeError::NoStore { reason } => Self::NoStore { reason },
            // Names were checked when they came.
            SubscribeError::Name(_) | SubscribeError::Closed(_) => Self::Closed,
        }
    }
}

/// Why there is no subscription, or no service.
pub(super) fn not_set_up(failure: Failure) -> SubscribeError {
    match failure {
        Failure::TooMany { limit } => SubscribeError::TooMany { limit: size(limit) },
        Failure::Nobody { wanted, found } => SubscribeError::Nobody { wanted: size(wanted), found: size(found) },
        Failure::Draining => SubscribeError::Draining,
        Failure::Durable { reason } => SubscribeError::Durable { reason },
        Failure::NoStore { reason } => SubscribeError::NoStore { reason },
        Failure::Closed
        | Failure::NoRecipient
        | Failure::OutboxFull { .. }
        | Failure::NotStored { .. }
        | Failure::Late
        | Failure::Lost
        | Failure::TooLarge { .. }
        | Failure::NoNode
        | Failure::Ambiguous { .. }
        | Failure::Busy
        | Failure::Denied
        | Failure::Unknown
        | Failure::NotSent => Closed.into(),
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Nobody { .. } => Self::Nobody { wanted: 1, found: 0 },
            RequestError::NoNode { .. } => Self::NoNode,
            RequestError::Ambiguous { nodes, .. } => {
                Self::Ambiguous { nodes: nodes.iter().filter_map(NodeKey::of).collect() }
            }
            RequestError::Busy { .. } => Self::Busy,
            RequestError::Denied { .. } => Self::Denied,
            RequestError::NotSent { .. } => Self::NotSent,
            RequestError::TooLarge { size, limit } => Self::TooLarge { size: wide(size), limit: wide(limit) },
            RequestError::Headers { bytes, .. } => too_many_headers(bytes),
            RequestError::TooMany { limit } => Self::TooMany { limit: wide(limit) },
            RequestError::Draining => Self::Draining,
            RequestError::Closed(_) => Self::Closed,
            // A refusal is an answer, and goes as one.
            RequestError::Unknown { .. }
            | RequestError::Refused { .. }
            | RequestError::Encode(_)
            | RequestError::Decode(_) => Self::Unknown,
        }
    }
}

/// Why a request to that service, at that node if one was named, has no answer.
pub(super) fn unanswered(failure: Failure, service: &str, to: Option<&str>) -> RequestError {
    let (service, node) = (service.to_owned(), to.unwrap_or_default().to_owned());
    match failure {
        Failure::Nobody { .. } => RequestError::Nobody { service },
        Failure::NoNode => RequestError::NoNode { node, service },
        Failure::Ambiguous { nodes } => {
            RequestError::Ambiguous { node, service, nodes: nodes.iter().filter_map(NodeKey::peer).collect() }
        }
        Failure::Busy => RequestError::Busy { service },
        Failure::Denied => RequestError::Denied { service },
        Failure::NotSent => RequestError::NotSent { service },
        Failure::TooLarge { size: bytes, limit } => RequestError::TooLarge { size: size(bytes), limit: size(limit) },
        Failure::TooMany { limit } => RequestError::TooMany { limit: size(limit) },
        Failure::Draining => RequestError::Draining,
        Failure::Closed => Closed.into(),
        Failure::Unknown
        | Failure::NoRecipient
        | Failure::NoStore { .. }
        | Failure::OutboxFull { .. }
        | Failure::NotStored { .. }
        | Failure::Durable { .. }
        | Failure::Late
        | Failure::Lost => RequestError::Unknown { service },
    }
}

/// `None` for a peer without an Ed25519 key, which no node is.
pub(super) fn peer(status: PeerStatus) -> Option<FromNode> {
    let found_by = status.found_by.map(|by| match by {
        FoundBy::Local => Found::Local,
        FoundBy::Mdns => Found::Mdns,
        FoundBy::Given => Found::Given,
        FoundBy::Dns => Found::Dns,
        FoundBy::Roster => Found::Roster,
        FoundBy::Inbound => Found::Inbound,
    });
    Some(FromNode::Peer(Box::new(Peer {
        node: NodeKey::of(&status.peer)?,
        name: status.name,
        addresses: status.addresses,
        links: status.links,
        round_trip: status.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        found_by,
        interests: status.patterns.into_iter().map(|(pattern, group)| Interest { pattern, group }).collect(),
        services: status.services,
        relay: status.relay,
        suspect: status.suspect,
        extensions: Vec::new(),
    })))
}

pub(super) fn status(peer: Peer) -> Option<PeerStatus> {
    let found_by = peer.found_by.map(|by| match by {
        Found::Local => FoundBy::Local,
        Found::Mdns => FoundBy::Mdns,
        Found::Given => FoundBy::Given,
        Found::Dns => FoundBy::Dns,
        Found::Roster => FoundBy::Roster,
        Found::Inbound => FoundBy::Inbound,
    });
    Some(PeerStatus {
        peer: peer.node.peer()?,
        name: peer.name,
        addresses: peer.addresses,
        links: peer.links,
        round_trip: peer.round_trip.map(Duration::from_micros),
        found_by,
        patterns: peer.interests.into_iter().map(|one| (one.pattern, one.group)).collect(),
        services: peer.services,
        relay: peer.relay,
        suspect: peer.suspect,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::UndeliveredError;
    use crate::error::AckError;

    #[test]
    fn a_time_is_not_made_shorter() {
        assert_eq!(millis(Duration::from_micros(1)), 1);
        assert_eq!(millis(Duration::from_secs(2)), 2_000);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }

    #[test]
    fn an_error_comes_out_as_it_went_in() {
        let service = || "shop.price".to_owned();
        let nodes = vec![NodeKey([7; 32]).peer().unwrap()];
        for error in [
            RequestError::Nobody { service: service() },
            RequestError::NoNode { node: "shop".to_owned(), service: service() },
            RequestError::Ambiguous { node: "shop".to_owned(), service: service(), nodes },
            RequestError::Busy { service: service() },
            RequestError::Denied { service: service() },
            RequestError::Unknown { service: service() },
            RequestError::NotSent { service: service() },
            RequestError::TooLarge { size: 3, limit: 2 },
            RequestError::TooMany { limit: 7 },
            RequestError::Draining,
            RequestError::Closed(Closed),
        ] {
            let said = format!("{error:?}");
            assert_eq!(format!("{:?}", unanswered(error.into(), "shop.price", Some("shop"))), said);
        }
        for error in [
            PublishError::TooLarge { size: 3, limit: 2 },
            PublishError::Nobody { topic: "a.b".to_owned(), wanted: 2, found: 1 },
            PublishError::Unconfirmed,
            PublishError::Draining,
            PublishError::NoRecipient { topic: "a.b".to_owned() },
            PublishError::NoStore { reason: "none".to_owned() },
            PublishError::OutboxFull { what: BYTES, limit: 9 },
            PublishError::OutboxFull { what: MESSAGES, limit: 8 },
            PublishError::NotStored { reason: "full".to_owned() },
            PublishError::Closed(Closed),
        ] {
            let said = format!("{error:?}");
            assert_eq!(format!("{:?}", unpublished(error.into(), "a.b")), said);
        }
        for error in [
            SubscribeError::TooMany { limit: 7 },
            SubscribeError::Nobody { wanted: 2, found: 1 },
            SubscribeError::Draining,
            SubscribeError::Durable { reason: "held".to_owned() },
            SubscribeError::NoStore { reason: "none".to_owned() },
            SubscribeError::Closed(Closed),
        ] {
            let said = format!("{error:?}");
            assert_eq!(format!("{:?}", not_set_up(error.into())), said);
        }
        for error in [AckError::Late, AckError::NotStored { reason: "full".to_owned() }, AckError::Closed(Closed)] {
            let said = format!("{error:?}");
            assert_eq!(format!("{:?}", unacknowledged(error.into())), said);
        }
        for error in [
            UndeliveredError::Taken,
            UndeliveredError::Lost,
            UndeliveredError::Publish(PublishError::NotStored { reason: "full".to_owned() }),
        ] {
            let said = format!("{error:?}");
            assert_eq!(format!("{:?}", undone(error.into(), "a.b")), said);
        }
    }
}
