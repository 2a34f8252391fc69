//! What a process and the node that runs beside it say to each other over the node's Unix socket.
//!
//! A connection does one piece of work: the process greets, the node welcomes it, the process says what it wants, and what
//! follows belongs to that. Whoever closes the connection ends the work. Each record has its length in front:
//!
//! ```text
//! length u32, big-endian | record
//! ```

use bytes::{Bytes, BytesMut};
use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError, Extensions};
use super::guard::at_most;
use super::lane::MAX_WHOLE;
use super::node_key::NodeKey;
use super::roster::{Interest, MAX_INTERESTS, is_node_name};
use super::rpc::{self, Call, MAX_TIMEOUT, Reply, headers};
use super::{MeshId, MessageId};
use crate::{Headers, topic};

mod post;

pub(crate) use self::post::{Act, DurableAt, Guarantee, Handed, KnownAt, MAX_COPIES, MAX_NAMED, Notice, Waiting};

/// The most bytes of a record after its length: a message, request or answer of the largest size, and what goes with it.
pub(crate) const MAX_RECORD: usize = MAX_WHOLE;

/// The length in front of a record.
const PREFIX: usize = 4;

/// What a process says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToNode {
    /// The first record. Answered by [`FromNode::Welcome`], or [`FromNode::Busy`].
    Hello { extensions: Extensions },
    /// Publish this. Others may follow before it is answered, in their order, by [`FromNode::Published`], or
    /// [`FromNode::Accepted`] if it has a guarantee.
    Publish(Post),
    /// Subscribe, once the node is linked to so many others. [`FromNode::Done`], and then what arrives.
    Subscribe {
        #[serde(deserialize_with = "at_most::<MAX_INTERESTS, _, _>")]
        patterns: Vec<String>,
        group: Option<String>,
        peers: u32,
        timeout: u64,
        extensions: Extensions,
    },
    /// Ask a service, at that node if one is named. Answered by [`FromNode::Reply`]. The number of the call says nothing.
    Request { to: Option<String>, call: Call },
    /// Serve this, so much at once. [`FromNode::Done`], and then what is asked.
    Serve { service: String, room: u32, extensions: Extensions },
    /// Whom the node knows: itself first, each a [`FromNode::Peer`], and then [`FromNode::Done`].
    Peers { extensions: Extensions },
    /// Say [`FromNode::Changed`] whenever another answer to [`ToNode::Peers`] may be given. [`FromNode::Done`] comes first.
    Watch { extensions: Extensions },
    /// The answer to a [`FromNode::Call`].
    Reply { call: u64, reply: Reply },
    /// Give me no more calls: [`FromNode::Done`] when all that there were are answered.
    Finish { extensions: Extensions },
    /// Hold this durable subscription. [`FromNode::Done`], and then what is handed out.
    Hold {
        name: String,
        pattern: String,
        /// Messages before the first is acknowledged.
        window: u32,
        /// How often each may be handed out.
        attempts: Option<u32>,
        extensions: Extensions,
    },
    /// That message was handled. Answered by [`FromNode::Acknowledged`], in any order.
    Acknowledge { number: u64, extensions: Extensions },
    /// That message was not: hand it out again, after so many milliseconds or when the node thinks fit.
    GiveBack { number: u64, after: Option<u64>, extensions: Extensions },
    /// What could not be delivered: [`FromNode::Total`], so many of it, each a [`FromNode::Notice`], and then [`FromNode::Done`].
    Notices { extensions: Extensions },
    /// Do this about one of them, that of this message and recipient.
    Notice { number: u64, recipient: String, act: Act, extensions: Extensions },
    /// What is owed to others: [`FromNode::Total`], so many of it, each a [`FromNode::Waiting`], and then [`FromNode::Done`].
    Outbox { extensions: Extensions },
    /// The durable subscriptions of the mesh, each a [`FromNode::Durable`], and then [`FromNode::Done`].
    Durables { extensions: Extensions },
    /// Remove this one from the node. [`FromNode::Done`].
    Remove { name: String, extensions: Extensions },
    /// What is known of a message, each a [`FromNode::Known`], and then [`FromNode::Done`].
    Where { id: MessageId, extensions: Extensions },
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Post {
    pub(crate) topic: String,
    pub(crate) content_type: String,
    #[serde(deserialize_with = "headers")]
    pub(crate) headers: Headers,
    /// Not before so many listen, for so many milliseconds.
    pub(crate) min_peers: u32,
    pub(crate) timeout: u64,
    pub(crate) guarantee: Option<Guarantee>,
    pub(crate) payload: Bytes,
    pub(crate) extensions: Extensions,
}

/// What a node says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromNode {
    /// Who it is.
    Welcome {
        node: NodeKey,
        name: String,
        mesh: MeshId,
        extensions: Extensions,
    },
    /// There is no room for another connection, or the node is about to leave. Nothing was done.
    Busy {
        extensions: Extensions,
    },
    /// It is in force, or that was all.
    Done {
        extensions: Extensions,
    },
    /// It is on its way, to so many: other nodes, and processes that this node works for.
    Published {
        id: MessageId,
        listeners: u32,
        extensions: Extensions,
    },
    Message(Arrived),
    /// Messages are missing here.
    Lagged {
        missed: u64,
        exact: bool,
        extensions: Extensions,
    },
    Reply {
        from: NodeKey,
        reply: Reply,
    },
    /// A call for the service, with a number of its own on this connection.
    Call {
        from: NodeKey,
        call: Call,
    },
    /// Nobody waits for the answer to that call any more.
    Stop {
        call: u64,
        extensions: Extensions,
    },
    Peer(Box<Peer>),
    Changed {
        extensions: Extensions,
    },
    /// It was not done, or may have been: the reason says which.
    Failed {
        failure: Failure,
        extensions: Extensions,
    },
    /// It is on disk, for these.
    Accepted {
        id: MessageId,
        recipients: Vec<String>,
        /// How many other nodes have a copy, and how many were wanted: if more were, it is told of as an error.
        copies: u32,
        wanted: u32,
        extensions: Extensions,
    },
    Handed(Handed),
    /// That is on disk, or not.
    Acknowledged {
        number: u64,
        failure: Option<Failure>,
        extensions: Extensions,
    },
    /// So many there are, and so many bytes.
    Total {
        total: u64,
        bytes: u64,
        extensions: Extensions,
    },
    Notice(Box<Notice>),
    Waiting(Waiting),
    Durable(DurableAt),
    Known(KnownAt),
}

/// A message as a subscriber gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Arrived {
    pub(crate) topic: String,
    pub(crate) source: NodeKey,
    pub(crate) id: MessageId,
    /// Microseconds since 1970.
    pub(crate) time: u64,
    pub(crate) content_type: String,
    #[serde(deserialize_with = "headers")]
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
    pub(crate) extensions: Extensions,
}

/// A node that the node knows, or that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) node: NodeKey,
    pub(crate) name: String,
    pub(crate) addresses: Vec<Multiaddr>,
    pub(crate) links: u32,
    /// Microseconds.
    pub(crate) round_trip: Option<u64>,
    pub(crate) found_by: Option<Found>,
    pub(crate) interests: Vec<Interest>,
    pub(crate) services: Vec<String>,
    pub(crate) relay: bool,
    pub(crate) suspect: bool,
    pub(crate) extensions: Extensions,
}

/// How a node was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Found {
    Local,
    Mdns,
    Given,
    Dns,
    Roster,
    Inbound,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// The node has ended.
    Closed,
    /// The node takes nothing new.
    Draining,
    /// What was sent has so many bytes, and may have so many.
    TooLarge { size: u64, limit: u64 },
    /// Fewer are there than were waited for; of a service, none.
    Nobody { wanted: u32, found: u32 },
    /// A limit of the node is reached.
    TooMany { limit: u64 },
    /// The node that was named is not there, or does not serve it.
    NoNode,
    /// These have the name that was given.
    Ambiguous { nodes: Vec<NodeKey> },
    /// Every provider is busy.
    Busy,
    /// This node may not.
    Denied,
    /// It may have been done.
    Unknown,
    /// Nobody could be reached in time.
    NotSent,
    /// No durable subscription matches, and none was named, or there is none of that name.
    NoRecipient,
    /// The node keeps nothing on disk, for that reason.
    NoStore { reason: String },
    /// Its outbox has so many messages, or bytes, and may have no more.
    OutboxFull { bytes: bool, limit: u64 },
    /// It could not be written, for that reason.
    NotStored { reason: String },
    /// The durable subscription cannot be held, for that reason.
    Durable { reason: String },
    /// The message's time has been over for so long that it is forgotten.
    Late,
    /// What was written of it cannot be read any more.
    Lost,
}

/// One side's records: written with their length in front, and read without.
pub(crate) trait Record: Sized {
    /// Appends it as it travels.
    fn write(&self, out: &mut BytesMut) -> Result<(), CodecError>;

    /// Reads and checks one.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;
}

impl Record for ToNode {
    fn write(&self, out: &mut BytesMut) -> Result<(), CodecError> {
        self.check()?;
        write(self, self.bulk(), out)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut record: Self = rpc::decode(bytes)?;
        if let Self::Publish(Post { timeout, .. })
        | Self::Subscribe { timeout, .. }
        | Self::Request { call: Call { timeout, .. }, .. } = &mut record
        {
            *timeout = (*timeout).min(MAX_TIMEOUT);
        }
        record.check()?;
        Ok(record)
    }
}

impl Record for FromNode {
    fn write(&self, out: &mut BytesMut) -> Result<(), CodecError> {
        self.check()?;
        write(self, self.bulk(), out)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let record: Self = rpc::decode(bytes)?;
        record.check()?;
        Ok(record)
    }
}

impl ToNode {
    fn check(&self) -> Result<(), CodecError> {
        match self {
            Self::Hello { extensions } | Self::Peers { extensions } | Self::Watch { extensions } => {
                codec::check_extensions(extensions)
            }
            Self::Publish(post) => {
                codec::check_extensions(&post.extensions)?;
                named(topic::check_name(&post.topic))?;
                post.guarantee.iter().try_for_each(Guarantee::check)?;
                rpc::check_described(&post.content_type, &post.headers)
            }
            Self::Subscribe { patterns, group, extensions, .. } => {
                codec::check_extensions(extensions)?;
                if patterns.is_empty() {
                    return Err(CodecError::malformed("a subscription to nothing"));
                }
                patterns.iter().try_for_each(|pattern| named(topic::check_pattern(pattern)))?;
                group.iter().try_for_each(|group| named(topic::check_name(group)))
            }
            Self::Request { to, call } => {
                to.iter().try_for_each(|to| rpc::check_text(to))?;
                check_call(call)
            }
            Self::Serve { service, extensions, .. } => {
                codec::check_extensions(extensions)?;
                named(topic::check_name(service))
            }
            Self::Reply { reply, .. } => check_reply(reply),
            Self::Hold { name, pattern, extensions, .. } => {
                codec::check_extensions(extensions)?;
                named(topic::check_name(name))?;
                named(topic::check_pattern(pattern))
            }
            Self::Notice { recipient: name, extensions, .. } | Self::Remove { name, extensions } => {
                codec::check_extensions(extensions)?;
                named(topic::check_name(name))
            }
            Self::Finish { extensions }
            | Self::Acknowledge { extensions, .. }
            | Self::GiveBack { extensions, .. }
            | Self::Notices { extensions }
            | Self::Outbox { extensions }
            | Self::Durables { extensions }
            | Self::Where { extensions, .. } => codec::check_extensions(extensions),
        }
    }

    /// Its bytes, near enough.
    fn bulk(&self) -> usize {
        match self {
            Self::Publish(post) => post.payload.len() + rpc::described(&post.content_type, &post.headers),
            Self::Request { call, .. } => call.body.len() + rpc::described(&call.content_type, &call.headers),
            Self::Reply { reply, .. } => reply.body.len() + rpc::described(&reply.content_type, &reply.headers),
            Self::Hello { .. }
            | Self::Subscribe { .. }
            | Self::Serve { .. }
            | Self::Peers { .. }
            | Self::Watch { .. }
            | Self::Finish { .. }
            | Self::Hold { .. }
            | Self::Acknowledge { .. }
            | Self::GiveBack { .. }
            | Self::Notices { .. }
            | Self::Notice { .. }
            | Self::Outbox { .. }
            | Self::Durables { .. }
            | Self::Remove { .. }
            | Self::Where { .. } => 0,
        }
    }
}

impl FromNode {
    fn check(&self) -> Result<(), CodecError> {
        match self {
            Self::Welcome { name, extensions, .. } => {
                codec::check_extensions(extensions)?;
                check_node(name)
            }
            Self::Message(message) | Self::Handed(Handed { message, .. }) => {
                codec::check_extensions(&message.extensions)?;
                codec::check_numbers(&[message.time])?;
                named(topic::check_name(&message.topic))?;
                rpc::check_described(&message.content_type, &message.headers)
            }
            Self::Accepted { recipients, extensions, .. } => {
                codec::check_extensions(extensions)?;
                recipients.iter().try_for_each(|name| named(topic::check_name(name)))
            }
            Self::Notice(notice) => notice.check(),
            Self::Waiting(waiting) => waiting.check(),
            Self::Durable(durable) => durable.check(),
            Self::Known(known) => known.check(),
            Self::Reply { reply, .. } => check_reply(reply),
            Self::Call { call, .. } => check_call(call),
            Self::Peer(peer) => {
                codec::check_extensions(&peer.extensions)?;
                check_node(&peer.name)
            }
            Self::Busy { extensions }
            | Self::Done { extensions }
            | Self::Published { extensions, .. }
            | Self::Lagged { extensions, .. }
            | Self::Stop { extensions, .. }
            | Self::Changed { extensions }
            | Self::Acknowledged { extensions, .. }
            | Self::Total { extensions, .. }
            | Self::Failed { extensions, .. } => codec::check_extensions(extensions),
        }
    }

    /// Its bytes, near enough.
    fn bulk(&self) -> usize {
        match self {
            Self::Message(message) | Self::Handed(Handed { message, .. }) => {
                message.payload.len() + rpc::described(&message.content_type, &message.headers)
            }
            Self::Reply { reply, .. } => reply.body.len() + rpc::described(&reply.content_type, &reply.headers),
            Self::Call { call, .. } => call.body.len() + rpc::described(&call.content_type, &call.headers),
            Self::Welcome { .. }
            | Self::Busy { .. }
            | Self::Done { .. }
            | Self::Published { .. }
            | Self::Lagged { .. }
            | Self::Stop { .. }
            | Self::Peer(_)
            | Self::Changed { .. }
            | Self::Failed { .. }
            | Self::Accepted { .. }
            | Self::Acknowledged { .. }
            | Self::Total { .. }
            | Self::Notice(_)
            | Self::Waiting(_)
            | Self::Durable(_)
            | Self::Known(_) => 0,
        }
    }
}

fn check_call(call: &Call) -> Result<(), CodecError> {
    codec::check_extensions(&call.extensions)?;
    named(topic::check_name(&call.service))?;
    rpc::check_described(&call.content_type, &call.headers)
}

fn check_reply(reply: &Reply) -> Result<(), CodecError> {
    codec::check_extensions(&reply.extensions)?;
    rpc::check_described(&reply.content_type, &reply.headers)
}

fn check_node(name: &str) -> Result<(), CodecError> {
    if is_node_name(name) { Ok(()) } else { Err(CodecError::malformed("no name for a node")) }
}

fn named(checked: Result<(), topic::NameError>) -> Result<(), CodecError> {
    checked.map_err(|error| CodecError::malformed(error.to_string()))
}

fn write<T: Serialize>(record: &T, bulk: usize, out: &mut BytesMut) -> Result<(), CodecError> {
    let bytes = rpc::encode(record, bulk)?;
    if bytes.len() > MAX_RECORD {
        return Err(CodecError::malformed(format!("a record of {} bytes", bytes.len())));
    }
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&bytes);
    Ok(())
}

/// Takes the first record out of what was read, without its length. `None` if it is not whole yet.
pub(crate) fn take(read: &mut BytesMut) -> Result<Option<Bytes>, CodecError> {
    let Some(prefix) = read.first_chunk::<PREFIX>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
    if length > MAX_RECORD {
        return Err(CodecError::malformed(format!("a record of {length} bytes, at most {MAX_RECORD} are allowed")));
    }
    if read.len() < PREFIX + length {
        return Ok(None);
    }
    let record = read.split_to(PREFIX + length);
    Ok(Some(record.freeze().slice(PREFIX..)))
}
