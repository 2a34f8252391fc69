//! What does a verb's work: a node of its own, or the user's node that runs on this machine. Verbs do not ask which.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use pombo::{
    Ask, Closed, Node, Outcome, PeerStatus, Publish, Raw, RawPattern, RawService, RawTopic, RunningNode, Serve,
    Subscribe,
};

use super::failure::Failure;
use super::text;

pub(super) enum Bus {
    Own(Node),
    Running(RunningNode),
}

impl Bus {
    pub(super) fn publish(&self, topic: RawTopic, body: &Bytes) -> Publish<'_> {
        match self {
            Self::Own(node) => node.publish(topic, body),
            Self::Running(node) => node.publish(topic, body),
        }
    }

    pub(super) fn subscribe(&self, pattern: RawPattern) -> Subscribe<Bytes, Raw> {
        match self {
            Self::Own(node) => node.subscribe(pattern),
            Self::Running(node) => node.subscribe(pattern),
        }
    }

    pub(super) fn request(&self, service: RawService, question: &Bytes) -> Ask<'_, Bytes, Raw> {
        match self {
            Self::Own(node) => node.request(service, question),
            Self::Running(node) => node.request(service, question),
        }
    }

    pub(super) fn serve(&self, service: RawService) -> Serve<Bytes, Bytes, Raw> {
        match self {
            Self::Own(node) => node.serve(service),
            Self::Running(node) => node.serve(service),
        }
    }

    /// Waits until it is known who is there. A node that runs waits for it itself, before it does what it is asked for.
    pub(super) async fn settled(&self) -> Result<(), Closed> {
        match self {
            Self::Own(node) => node.settled().await,
            Self::Running(_) => Ok(()),
        }
    }

    /// The nodes of the mesh, sorted by name: all but the verb's own, if it has one.
    pub(super) async fn peers(&self) -> Result<Vec<PeerStatus>, Closed> {
        match self {
            Self::Own(node) => Ok(node.status().await?.peers),
            Self::Running(node) => node.peers().await,
        }
    }

    /// The nodes of the mesh, the verb's own too.
    pub(super) async fn everybody(&self) -> Result<Vec<PeerStatus>, Closed> {
        match self {
            Self::Own(node) => {
                let status = node.status().await?;
                Ok(status.peers.into_iter().chain([status.node]).collect())
            }
            Self::Running(node) => node.peers().await,
        }
    }

    /// Why the work ended with the node that did it.
    pub(super) fn ended(&self) -> Failure {
        match self {
            Self::Own(_) => Closed.into(),
            Self::Running(node) => {
                let name = text::escape(node.name());
                let failure = Failure::new(Outcome::Failed, format!("the node {name} has ended, which did the work"));
                failure.hint("start it again, or go on without one: then this command is a node of its own")
            }
        }
    }

    /// Yields when [`peers`](Self::peers) may have another answer, from this call on.
    pub(super) async fn changes(&self) -> Result<BoxStream<'static, ()>, Closed> {
        Ok(match self {
            Self::Own(node) => node.events().map(|_| ()).boxed(),
            Self::Running(node) => node.changes().await?.boxed(),
        })
    }
}
