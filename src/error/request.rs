//! Why a request has no answer.

use libp2p_identity::PeerId;

use super::{Closed, Outcome};
use crate::payload::PayloadError;

/// A request has no answer.
///
/// ```
/// # use pombo::{Node, RequestError, Service};
/// # const BOOK: Service<String, u64> = Service::new("shop.book");
/// # async fn f(node: Node) -> Result<(), RequestError> {
/// match node.request(BOOK, &"pigeons".to_owned()).await {
///     Ok(number) => println!("booked as {}", *number),
///     Err(RequestError::Refused { message, .. }) => println!("not booked: {message}"),
///     Err(RequestError::Unknown { .. }) => println!("perhaps booked: look before you ask again"),
///     Err(other) => return Err(other),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No node serves it.
    #[error("nobody serves {service}")]
    Nobody {
        /// The service.
        service: String,
    },
    /// The node that was named is not there, or does not serve it.
    #[error("the node {node} is not there or does not serve {service}")]
    NoNode {
        /// The node as named.
        node: String,
        /// The service.
        service: String,
    },
    /// Several nodes have the name that was given, and serve it. It was sent to none.
    #[error("{} nodes called {node} serve {service}: name one by its id: {}", .nodes.len(), list(.nodes))]
    Ambiguous {
        /// The node as named.
        node: String,
        /// The service.
        service: String,
        /// Their ids.
        nodes: Vec<PeerId>,
    },
    /// The handler answered with an error.
    #[error("{message}")]
    Refused {
        /// Who.
        from: PeerId,
        /// What it said.
        message: String,
    },
    /// Every provider is at its limit. The request did not run.
    #[error("every provider of {service} is busy")]
    Busy {
        /// The service.
        service: String,
    },
    /// This node may not ask there.
    #[error("this node may not ask {service}")]
    Denied {
        /// The service.
        service: String,
    },
    /// It was sent and no answer came: it may have run.
    #[error("no answer from {service} in time: it may have run")]
    Unknown {
        /// The service.
        service: String,
    },
    /// The request was not sent to anybody in the time it had.
    #[error("no provider of {service} could be reached in time: it did not run")]
    NotSent {
        /// The service.
        service: String,
    },
    /// Larger than the mesh carries.
    #[error("the request has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// What it has.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Too many headers, or too long ones.
    #[error("the headers have {count} entries and {bytes} bytes, at most 64 and 16384 are allowed")]
    Headers {
        /// How many.
        count: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// Too many requests of this node are open.
    #[error("{limit} requests are open already: wait for some to end")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The question could not be encoded.
    #[error("the question cannot be encoded: {0}")]
    Encode(#[source] PayloadError),
    /// The answer is not of the expected type.
    #[error("the answer is not of the expected type: {0}")]
    Decode(#[source] PayloadError),
    /// The node drains, and takes nothing new. Nothing was sent.
    #[error("this node is about to leave and takes nothing new: use another")]
    Draining,
    /// The node is gone.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl RequestError {
    /// Its class.
    ///
    /// ```
    /// use pombo::{Outcome, RequestError};
    /// // Whether it certainly did not run, so that asking again does not make it run twice.
    /// fn did_not_run(error: &RequestError) -> bool {
    ///     matches!(error.outcome(), Outcome::Nobody | Outcome::NoNode | Outcome::Busy | Outcome::Rejected)
    /// }
    /// assert!(did_not_run(&RequestError::Busy { service: "shop.book".to_owned() }));
    /// assert!(!did_not_run(&RequestError::Unknown { service: "shop.book".to_owned() }));
    /// ```
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Nobody { .. } | Self::NotSent { .. } => Outcome::Nobody,
            Self::NoNode { .. } => Outcome::NoNode,
            Self::Refused { .. } => Outcome::Refused,
            Self::Busy { .. } => Outcome::Busy,
            Self::Denied { .. } => Outcome::Denied,
            Self::Unknown { .. } => Outcome::Unknown,
            Self::TooLarge { .. }
            | Self::Headers { .. }
            | Self::TooMany { .. }
            | Self::Ambiguous { .. }
            | Self::Encode(_)
            | Self::Draining => Outcome::Rejected,
            Self::Decode(_) | Self::Closed(_) => Outcome::Failed,
        }
    }
}

/// The first of them, one after the other.
fn list(peers: &[PeerId]) -> String {
    peers.iter().take(8).map(PeerId::to_string).collect::<Vec<_>>().join(", ")
}
