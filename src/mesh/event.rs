//! The mesh's whole alphabet: what it can be told ([`Input`]) and what it can want done ([`Output`]).
//!
//! All of it is plain data. Channels, sockets and gossipsub's handles stay with the hub and the driver, behind integers.

use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

pub use super::news::{Event, FoundBy};
use super::postman::inbox::Handed;
use super::postman::store::{Done, Job, StoreError};
use super::postman::{PostAnswer, PostCommand, ReplyTo};
use super::routes::Routes;
use super::status::Status;
use super::time::{Span, Wall};
use crate::Headers;
use crate::wire::frame::{Frame, Place};
use crate::wire::lane::Mark;
use crate::wire::letter::Letter;
use crate::wire::roster::{RosterRecord, SignedRecord};
use crate::wire::rpc::{Fate, Reply, Request, Response};

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(pub(crate) u64);
    )+ };
}

numbers! {
    /// Stands for the channel on which a caller waits for the answer to a command.
    Ticket,
    /// A local subscription, and the mailbox that belongs to it.
    SubscriberId,
    /// A local provider of a service.
    ProviderId,
    /// A call that came in, from its arrival to its reply.
    CallId,
    /// A request that went out over request-response.
    RpcId,
    /// A request that came in over request-response and has not been answered.
    InboundId,
    /// A gossip message that gossipsub wants judged.
    GossipId,
    /// A name that is looked up.
    NameId,
    /// A connection, for the lane that is bound to it.
    LaneId,
    /// Somebody who holds a durable subscription.
    HolderId,
    /// Something that is written to the store, or read from it.
    JobId,
}

/// What the mesh is told.
#[derive(Debug)]
pub(crate) enum Input {
    /// A caller wants something.
    Command(Ticket, Command),
    /// Whoever waited on this ticket has gone.
    Abandoned(Ticket),
    /// This node listens on these addresses now.
    Listening(Vec<Multiaddr>),
    /// Somebody may be found there. Without a peer id only the address is known.
    Seen { peer: Option<PeerId>, addresses: Vec<Multiaddr>, by: FoundBy },
    /// More was found by multicast DNS than there can be: most of it is not there.
    Flooded,
    /// A name was looked up: its IP addresses, as addresses of one part. None if that failed.
    Resolved { name: NameId, ips: Option<Vec<Multiaddr>> },
    /// This host's registry was looked through once, and everybody in it has been told as seen.
    Looked,
    /// A connection was established; so many stand now.
    Connected { peer: PeerId, address: Multiaddr, links: u32 },
    /// A connection ended; so many stand still.
    Disconnected { peer: PeerId, links: u32 },
    /// A dial came to nothing.
    DialFailed { peer: Option<PeerId>, addresses: Vec<Multiaddr>, why: DialFailure },
    /// A connection to this peer has answered nothing for a while. Told once, before it is closed for it.
    Silent { peer: PeerId },
    /// A beat came back, or the other side says how long one took.
    RoundTrip { peer: PeerId, time: Span },
    /// A frame that passed [`Frame::open`], or one of our own that was just signed.
    Frame { frame: Arc<Frame>, via: Via },
    /// A gossip message that is no frame of this mesh and shard. `may_be_sound`: to a later version of pombo.
    BadGossip { from: PeerId, gossip: GossipId, may_be_sound: bool },
    /// A linked peer sent so many things that no member sends.
    Offended { peer: PeerId, count: u32 },
    /// This neighbour's queue for gossip was full, and some of it was dropped. Told every second for as long as that goes on.
    Slow { peer: PeerId },
    /// Gossipsub could not take a frame: all queues were full.
    GossipRefused { frame: Arc<Frame> },
    /// The signer is done.
    Signed(Signed),
    /// A request came in.
    Request { from: PeerId, id: InboundId, request: Checked<Request> },
    /// The answer to a request that came in is on the wire, or cannot get there any more. Told of each answer, after it.
    Replied { id: InboundId },
    /// The answer to a request of ours, or why there is none.
    Response { id: RpcId, result: Result<Checked<Response>, RpcFailure> },
    /// Our half of a lane stands: records can be written.
    LaneUp { peer: PeerId, lane: LaneId },
    /// The other side has opened its half.
    LaneBegun { peer: PeerId, lane: LaneId },
    /// A lane ended, or its half of ours could not be opened.
    LaneDown { lane: LaneId },
    /// Over a lane its author says that nothing of a stream between two places is for us.
    Marked { from: PeerId, mark: Mark },
    /// So much waits for a subscriber that whoever writes to it over a lane should wait.
    Behind { subscriber: SubscriberId },
    /// So much of that is out of the way, and whether that is most of it.
    Progress { subscriber: SubscriberId, weight: u64, caught_up: bool },
    /// A job for the store was done, or not. They are told of in their order.
    Stored { id: JobId, result: Result<Done, StoreError> },
    /// Time passed: see `Mesh::poll_timeout`.
    Timeout,
}

/// How a frame came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// It was made here, and goes out by gossip.
    Own,
    /// It was made here, and went out over lanes.
    OwnOverLanes,
    /// By gossip. Gossipsub waits for a verdict.
    Gossip { from: PeerId, gossip: GossipId },
    /// Over a lane, from its author. `since` is the last frame before it that concerned us, 0 where that is not known.
    Lane { lane: LaneId, since: u64 },
}

/// A decoded record, with the frames and roster records in it opened and checked. Those that did not pass are left out.
#[derive(Clone, Debug)]
pub(crate) struct Checked<T> {
    pub(crate) body: T,
    pub(crate) frames: Vec<Arc<Frame>>,
    pub(crate) records: Vec<SignedRecord>,
    /// How many had a signature that is not their author's.
    pub(crate) forged: u32,
    /// Of each letter in it when its time is over, if it is as it was sealed.
    pub(crate) letters: Vec<Option<Wall>>,
    /// Each letter that is to be kept, without its payload, if it is as it was sealed.
    pub(crate) entrusted: Vec<Option<Letter>>,
}

impl<T> From<T> for Checked<T> {
    /// Of what goes out nothing has to be checked.
    fn from(body: T) -> Self {
        Self { body, frames: Vec::new(), records: Vec::new(), forged: 0, letters: Vec::new(), entrusted: Vec::new() }
    }
}

/// Why a dial came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DialFailure {
    /// They are in another mesh. `open` says whether theirs is the open one.
    OtherMesh { open: bool },
    /// They are no pombo node.
    NotPombo,
    /// It is this very node.
    Ourselves,
    /// Another node of this mesh is there than the one that was looked for.
    SomebodyElse,
    /// No connection came about.
    Unreachable(String),
}

/// Why a request over request-response has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RpcFailure {
    /// It certainly did not reach the other side's handler.
    NotSent,
    /// It may have.
    Unknown,
}

/// What a caller can ask for.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Subscribe {
        subscriber: SubscriberId,
        patterns: Vec<Arc<str>>,
        group: Option<Arc<str>>,
    },
    Unsubscribe {
        subscriber: SubscriberId,
    },
    Serve {
        provider: ProviderId,
        service: Arc<str>,
        room: u32,
    },
    Unserve {
        provider: ProviderId,
    },
    /// Take no more calls for this provider. Those that it is at go on.
    Withdraw {
        provider: ProviderId,
    },
    Request(Ask),
    /// The live nodes that serve it, this one too, those first that a request would go to first.
    Providers {
        service: Arc<str>,
    },
    /// The reply to a call, by its handler.
    Reply {
        call: CallId,
        reply: Reply,
    },
    /// Something of the postman.
    Post(PostCommand),
    Status,
    /// Answered when the frame was handed over to neighbours. For short-lived nodes.
    Confirm {
        shard: u8,
        sequence: u64,
    },
    /// Answered when the first look-around is over: those who were found have told what they know, or nobody was found.
    Settle,
    /// Take nothing new: answered when what was accepted is finished, and the neighbours know.
    Drain,
    /// Say goodbye: answered when the neighbours have heard, or did not within a second.
    Leave,
}

/// A request to a service.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) service: Arc<str>,
    /// This node and no other.
    pub(crate) to: Option<NodeName>,
    pub(crate) timeout: Span,
    pub(crate) content_type: Arc<str>,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
}

/// A node, as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeName {
    Peer(PeerId),
    Name(String),
}

/// What the mesh wants done.
#[derive(Debug)]
pub(crate) enum Output {
    Dial {
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
    },
    /// Look a name up; [`Input::Resolved`] follows.
    Resolve {
        name: NameId,
        host: String,
    },
    /// Close all connections to it.
    Disconnect {
        peer: PeerId,
    },
    /// Join a shard's gossip topic, or leave it.
    Join {
        shard: u8,
    },
    Leave {
        shard: u8,
    },
    /// Publish on the frame's shard. Refusal comes back as [`Input::GossipRefused`].
    Gossip {
        frame: Arc<Frame>,
    },
    /// Open our half of a lane: on that connection, or on any to that peer. [`Input::LaneUp`] follows.
    OpenLane {
        peer: PeerId,
        lane: Option<LaneId>,
    },
    /// Tell the other side of a lane how much of what it sent is out of the way.
    Grant {
        lane: LaneId,
        total: u64,
    },
    Judge {
        from: PeerId,
        gossip: GossipId,
        verdict: Verdict,
    },
    /// Sign, off this task; [`Input::Signed`] follows.
    Sign(Unsigned),
    Send {
        id: RpcId,
        to: PeerId,
        request: Request,
    },
    Reply {
        to: InboundId,
        response: Response,
    },
    /// Put into a subscriber's mailbox. In place of a frame that finds no room there goes the gap that
    /// [`Mesh::gap`](super::Mesh::gap) names, which always fits.
    Deliver {
        subscriber: SubscriberId,
        delivery: Delivery,
    },
    /// Hand a call to a provider's handler.
    Serve {
        provider: ProviderId,
        call: IncomingCall,
    },
    /// The asker of a call has gone: its handler may stop.
    Stop {
        call: CallId,
    },
    Answer {
        ticket: Ticket,
        answer: Answer,
    },
    /// Publishers may build frames of this shard up to this sequence number.
    Allow {
        shard: u8,
        sequence: u64,
    },
    /// Write to the store, and read from it; [`Input::Stored`] follows.
    Store {
        id: JobId,
        job: Job,
        /// Nobody waits for it: it may be written when something else is, a moment later.
        can_wait: bool,
    },
    /// Hand a letter to whoever holds a durable subscription.
    HandOut {
        holder: HolderId,
        handed: Handed,
    },
    /// What publishers and subscribers look at has changed.
    Routes(Arc<Routes>),
    Announce(Event),
}

/// Gossipsub's three verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Good, pass it on.
    Accept,
    /// Not for us to pass on, nobody's fault.
    Ignore,
    /// The one who sent it should have known better.
    Reject,
}

/// What is put into a subscriber's mailbox.
#[derive(Clone, Debug)]
pub(crate) enum Delivery {
    /// A frame, and who shared its groups when it was delivered: by the time it is read, others may.
    Frame(Arc<Frame>, Arc<Routes>),
    Lagged(Lag),
}

/// A gap in what a subscriber receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lag {
    pub(crate) missed: u64,
    pub(crate) exact: bool,
}

/// A call on its way to a handler.
#[derive(Clone, Debug)]
pub(crate) struct IncomingCall {
    pub(crate) id: CallId,
    pub(crate) from: PeerId,
    pub(crate) timeout: Span,
    pub(crate) content_type: Arc<str>,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
}

/// What has to be signed.
#[derive(Debug)]
pub(crate) enum Unsigned {
    Head {
        place: Place,
        time: u64,
    },
    Record(RosterRecord),
    /// A frame that all queues refused, with this attempt number.
    Again {
        frame: Arc<Frame>,
        attempt: u8,
    },
    /// A letter of this node, for those who keep copies of it.
    Letter {
        number: u64,
        text: Vec<u8>,
    },
    /// What became of letters that another offered: each that is for good.
    Receipts {
        reply: ReplyTo,
        fates: Vec<Fate>,
        texts: Vec<Vec<u8>>,
    },
}

/// What was signed.
#[derive(Debug)]
pub(crate) enum Signed {
    Head(Arc<Frame>),
    Record(Box<SignedRecord>),
    Again(Arc<Frame>),
    Letter { number: u64, signature: Bytes },
    Receipts { reply: ReplyTo, fates: Vec<Fate>, receipts: Vec<Bytes> },
}

/// The answer to a command.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// In force.
    Done,
    /// A limit of this node is reached.
    TooMany {
        limit: usize,
    },
    Reply {
        from: PeerId,
        reply: Reply,
    },
    Failed(AskFailure),
    Providers(Vec<PeerId>),
    /// This node takes nothing new.
    Draining,
    Confirmed(Confirmation),
    Status(Box<Status>),
    Post(PostAnswer),
}

/// How handing frames over to neighbours ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confirmation {
    /// Neighbours that took them.
    pub(crate) peers: u32,
    /// Nodes that listen to any of their topics, as the best informed of those neighbours knows.
    pub(crate) listeners: u32,
    /// Whether a neighbour failed to answer.
    pub(crate) failed: bool,
}

/// Why a request has no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AskFailure {
    /// Nobody serves it, as far as this node knows.
    Nobody,
    /// The node that was named is not there.
    NoNode,
    /// These have the name, and all of them serve it.
    Ambiguous { nodes: Vec<PeerId> },
    /// Every provider is busy.
    Busy,
    /// Time ran out or the connection broke after it was sent: it may have run.
    Unknown,
    /// Time ran out before it could be sent to anybody.
    NotSent,
    /// Too many requests of this node are open.
    TooMany { limit: usize },
}
