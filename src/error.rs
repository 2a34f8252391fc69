//! How things end: one vocabulary of outcomes, and an error type per verb.

use libp2p_identity::PeerId;

pub use self::request::RequestError;
use crate::message::MessageId;
use crate::payload::PayloadError;
use crate::topic::NameError;

mod request;

/// How a verb ended. The same words in Rust, in the exit codes of the `pombo` command, and in the documentation.
///
/// ```
/// use pombo::Outcome;
/// assert_eq!(Outcome::Nobody.exit_code(), 3);
/// assert_eq!(Outcome::Nobody.to_string(), "nobody");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Done.
    Ok,
    /// I/O, or a bug.
    Failed,
    /// Wrong usage or configuration.
    Usage,
    /// Nobody subscribed, no provider, no peers, within the time asked for. Nothing was sent or stored.
    Nobody,
    /// The time ran out after the work began: it may or may not have happened.
    Unknown,
    /// The other side answered with an error.
    Refused,
    /// The node that was named, or that this verb needs, is not there.
    NoNode,
    /// Refused here, before anything was sent: too large, bad topic, queue full.
    Rejected,
    /// Not a member, no grant.
    Denied,
    /// Some of it done.
    Partial,
    /// The other side had no room. It did not run and may be tried again.
    Busy,
}

impl Outcome {
    /// All of them, in the order of their exit codes.
    ///
    /// ```
    /// use pombo::Outcome;
    /// assert!(Outcome::ALL.into_iter().zip(0..).all(|(outcome, code)| outcome.exit_code() == code));
    /// ```
    pub const ALL: [Self; 11] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Nobody,
        Self::Unknown,
        Self::Refused,
        Self::NoNode,
        Self::Rejected,
        Self::Denied,
        Self::Partial,
        Self::Busy,
    ];

    /// What the `pombo` command exits with.
    ///
    /// ```
    /// use pombo::Outcome;
    /// assert_eq!((Outcome::Ok.exit_code(), Outcome::Refused.exit_code()), (0, 5));
    /// ```
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Nobody => 3,
            Self::Unknown => 4,
            Self::Refused => 5,
            Self::NoNode => 6,
            Self::Rejected => 7,
            Self::Denied => 8,
            Self::Partial => 9,
            Self::Busy => 10,
        }
    }

    /// Its word: lower case, `-` between two.
    ///
    /// ```
    /// assert_eq!(pombo::Outcome::NoNode.as_str(), "no-node");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Nobody => "nobody",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
            Self::NoNode => "no-node",
            Self::Rejected => "rejected",
            Self::Denied => "denied",
            Self::Partial => "partial",
            Self::Busy => "busy",
        }
    }

    /// What it means, in one line.
    ///
    /// ```
    /// assert_eq!(pombo::Outcome::Refused.meaning(), "the other side answered with an error");
    /// ```
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Failed => "I/O, or a bug",
            Self::Usage => "wrong usage or configuration",
            Self::Nobody => "nobody subscribed, no provider, no peers, within the time asked for",
            Self::Unknown => "the time ran out after the work began: it may or may not have happened",
            Self::Refused => "the other side answered with an error",
            Self::NoNode => "the node that was named, or that this verb needs, is not there",
            Self::Rejected => "refused here, before anything was sent: too large, bad topic, queue full",
            Self::Denied => "not a member, no grant",
            Self::Partial => "some of it done",
            Self::Busy => "the other side had no room: it did not run and may be tried again",
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The node is no longer running.
///
/// ```
/// # async fn f(node: pombo::Node) {
/// if let Err(pombo::Closed) = node.ready(1).await {
///     println!("the node left while we waited for others");
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node has been shut down")]
pub struct Closed;

/// A node could not start.
///
/// ```no_run
/// # use pombo::{Node, StartError};
/// # async fn f(address: pombo::Multiaddr) -> Result<Node, StartError> {
/// match Node::builder().name("shop").listen(address).start().await {
///     // Any other port will do.
///     Err(StartError::Listen { .. }) => Node::builder().name("shop").start().await,
///     other => other,
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(String),
    /// No address to listen on could be opened.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Where.
        address: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The data directory, a key or the mesh's secret could not be read or made.
    #[error("{0}")]
    Data(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Something else in the operating system.
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

impl StartError {
    /// Its class.
    ///
    /// ```
    /// use std::process::ExitCode;
    /// fn give_up(error: &pombo::StartError) -> ExitCode {
    ///     eprintln!("{error}");
    ///     ExitCode::from(error.outcome().exit_code())
    /// }
    /// ```
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Config(_) => Outcome::Usage,
            Self::Listen { .. } | Self::Data(_) | Self::Io(_) => Outcome::Failed,
        }
    }
}

/// A message was not published.
///
/// ```
/// # use pombo::{Node, PublishError, Topic};
/// # const ORDERS: Topic<String> = Topic::new("orders.eu");
/// # async fn f(node: Node) -> Result<(), PublishError> {
/// match node.publish(ORDERS, &"pigeons".to_owned()).min_peers(2).await {
///     Ok(published) => println!("{}", published.id),
///     Err(PublishError::Nobody { found, wanted, .. }) => println!("{found} of {wanted} listen: not published"),
///     Err(other) => return Err(other),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Larger than the mesh carries.
    #[error("the payload has {size} bytes, at most {limit} are allowed")]
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
    /// The value could not be encoded.
    #[error("the value cannot be encoded: {0}")]
    Encode(#[source] PayloadError),
    /// Fewer listeners than were asked for, in the time that was given.
    #[error("{found} of {wanted} peers subscribe to {topic}")]
    Nobody {
        /// The topic.
        topic: String,
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        found: usize,
    },
    /// Neighbours were there, and none confirmed in time that it took the message.
    #[error("no neighbour confirmed the message in time: it may or may not have arrived")]
    Unconfirmed,
    /// The name of a recipient is misspelt.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A guaranteed message with a time in which it cannot be delivered.
    #[error("a message cannot be delivered within {ttl:?}: the time to live can be up to 30 days")]
    Ttl {
        /// The time that was asked for.
        ttl: std::time::Duration,
    },
    /// More recipients were named than a message can have.
    #[error("{count} recipients were named, at most {limit} are allowed: publish it more than once")]
    TooManyRecipients {
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// No durable subscription is known that matches a guaranteed message, and none was named. Nothing was stored.
    #[error("no durable subscription to {topic} is known: name its recipients, or wait for them")]
    NoRecipient {
        /// The topic.
        topic: String,
    },
    /// This node cannot keep guaranteed messages.
    #[error("this node has no store for guaranteed messages: {reason}")]
    NoStore {
        /// Why not, and what to do.
        reason: String,
    },
    /// As many guaranteed messages are under way as may be. Nothing was stored.
    #[error(
        "the outbox is full: {limit} {what} are under way or not taken note of; wait for recipients, or raise the limit"
    )]
    OutboxFull {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Fewer other nodes have a copy of a guaranteed message on disk than were wanted. It is on this node's disk, and will be delivered or
    /// told of. The copies that there are cannot be recalled.
    #[error(
        "{copies} of {wanted} copies: {id} is on this node's disk and will be delivered, but no more other nodes took a copy in \
         time; start more nodes that keep copies, or want fewer"
    )]
    TooFewCopies {
        /// The message.
        id: MessageId,
        /// Whom it goes to.
        recipients: Vec<String>,
        /// How many other nodes have a copy for certain.
        copies: usize,
        /// How many were wanted.
        wanted: usize,
    },
    /// More copies were wanted than a message can have.
    #[error("{copies} copies are more than there can be: {limit}")]
    TooManyCopies {
        /// How many were wanted.
        copies: usize,
        /// The limit.
        limit: usize,
    },
    /// A guaranteed message could not be written to disk. It will not be delivered.
    #[error("the message could not be stored: {reason}")]
    NotStored {
        /// Why not.
        reason: String,
    },
    /// The node drains, and takes nothing new. Nothing was sent.
    #[error("this node is about to leave and takes nothing new: use another")]
    Draining,
    /// The node is gone.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl PublishError {
    /// Its class.
    ///
    /// ```
    /// use pombo::{Outcome, PublishError};
    /// assert_eq!(PublishError::TooLarge { size: 2_000_000, limit: 1_048_576 }.outcome(), Outcome::Rejected);
    /// assert_eq!(PublishError::Unconfirmed.outcome(), Outcome::Unknown);
    /// ```
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::TooLarge { .. }
            | Self::Headers { .. }
            | Self::Encode(_)
            | Self::Name(_)
            | Self::Ttl { .. }
            | Self::TooManyRecipients { .. }
            | Self::TooManyCopies { .. }
            | Self::OutboxFull { .. }
            | Self::Draining => Outcome::Rejected,
            Self::TooFewCopies { .. } => Outcome::Partial,
            Self::Nobody { .. } | Self::NoRecipient { .. } => Outcome::Nobody,
            Self::Unconfirmed => Outcome::Unknown,
            Self::NoStore { .. } | Self::NotStored { .. } | Self::Closed(_) => Outcome::Failed,
        }
    }
}

/// A subscription or a service was not set up.
///
/// ```
/// # use pombo::{Node, SubscribeError, Topic};
/// # const ORDERS: Topic<String> = Topic::new("orders.eu");
/// # async fn f(node: Node) -> Result<(), SubscribeError> {
/// match node.subscribe(ORDERS).group("the packers").await {
///     Ok(orders) => println!("{orders:?}"),
///     Err(SubscribeError::Name(misspelt)) => println!("{misspelt}"),
///     Err(other) => return Err(other),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// A pattern, group or service name is misspelt.
    #[error(transparent)]
    Name(#[from] NameError),
    /// This node has as many as it may have.
    #[error("a node may have {limit} patterns or services: raise the limit in the configuration, or use a wildcard")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The peers that were waited for did not come in time.
    #[error("{found} of {wanted} peers are there")]
    Nobody {
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        found: usize,
    },
    /// A durable subscription that cannot be: another of that name is in the way, or it could not be stored.
    #[error("the durable subscription cannot be held: {reason}")]
    Durable {
        /// Why not, and what to do.
        reason: String,
    },
    /// This node cannot keep messages for a durable subscription.
    #[error("this node has no store for guaranteed messages: {reason}")]
    NoStore {
        /// Why not, and what to do.
        reason: String,
    },
    /// The node drains, and takes nothing new. Nothing was sent.
    #[error("this node is about to leave and takes nothing new: use another")]
    Draining,
    /// The node is gone.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl SubscribeError {
    /// Its class.
    ///
    /// ```
    /// use pombo::{Outcome, SubscribeError};
    /// assert_eq!(SubscribeError::Nobody { wanted: 2, found: 1 }.outcome(), Outcome::Nobody);
    /// ```
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Name(_) | Self::TooMany { .. } | Self::Durable { .. } | Self::Draining => Outcome::Rejected,
            Self::Nobody { .. } => Outcome::Nobody,
            Self::NoStore { .. } | Self::Closed(_) => Outcome::Failed,
        }
    }
}

/// What was to be noted of a guaranteed message could not be.
///
/// ```
/// use pombo::{AckError, Outcome};
/// assert_eq!(AckError::Late.outcome(), Outcome::Rejected);
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// The message's time was over long ago: it is forgotten, and its sender has been told that nobody confirmed it.
    #[error("the message's time is over: its sender takes it for undelivered")]
    Late,
    /// It could not be written to disk.
    #[error("this could not be stored: {reason}")]
    NotStored {
        /// Why not.
        reason: String,
    },
    /// The node is gone.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl AckError {
    /// Its class. [`AckError`] has an example.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Late => Outcome::Rejected,
            Self::NotStored { .. } | Self::Closed(_) => Outcome::Failed,
        }
    }
}

/// What a subscriber gets in place of a message. The stream goes on after it.
///
/// ```
/// # use pombo::RecvError;
/// fn tell(error: &RecvError) {
///     match error {
///         RecvError::Lagged { missed, exact: true } => println!("missed {missed}"),
///         RecvError::Lagged { missed, exact: false } => println!("missed {missed} or fewer"),
///         other => println!("{other}"),
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// Messages are missing here: this reader was too slow, or they could not be repaired.
    #[error("{} {missed} messages were missed", if *exact { "exactly" } else { "at most" })]
    Lagged {
        /// How many.
        missed: u64,
        /// Whether all of them were for this subscriber. Otherwise some may have been for others.
        exact: bool,
    },
    /// A message came that is not of this subscription's type.
    #[error("a message on {topic} from {source_peer} is not of the expected type: {reason}")]
    Decode {
        /// Its topic.
        topic: String,
        /// Who published it.
        source_peer: PeerId,
        /// What is wrong with it.
        reason: PayloadError,
    },
}
