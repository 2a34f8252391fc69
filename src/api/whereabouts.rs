//! Where a guaranteed message is: what this node and its neighbours know of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use libp2p::PeerId;

use super::Node;
use crate::error::Closed;
use crate::mesh::postman::notices::Reason;
use crate::mesh::postman::{PostAnswer, PostCommand};
use crate::wire::MessageId;
use crate::wire::rpc::{Known, StageRow};

/// How long a neighbour may take to say what it knows.
const PATIENCE: Duration = Duration::from_secs(3);

/// How far a guaranteed message has come to one recipient, as one node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Whereabouts {
    /// The node that knows it.
    pub node: PeerId,
    /// What that node is called.
    pub node_name: String,
    /// The name of the durable subscription.
    pub recipient: String,
    /// How far it has come.
    pub stage: Stage,
    /// Since when, by that node's clock.
    pub time: SystemTime,
}

/// How far a guaranteed message has come.
///
/// ```
/// use pombo::Stage;
/// assert_eq!(Stage::Stored.to_string(), "stored for a subscriber");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// It is on its sender's disk, and no recipient's node has it.
    Accepted,
    /// Its sender has given it to that node, which has it on disk.
    Given(PeerId),
    /// It is on disk there, for a subscriber.
    Stored,
    /// A subscriber there has acknowledged it.
    Processed,
    /// It was handed out there as often as it may be, and never acknowledged.
    Poison,
    /// Its sender has given it up.
    Undelivered(Reason),
    /// A copy is on disk there, for that node, which sent it.
    Kept(PeerId),
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accepted => f.pad("accepted"),
            Self::Given(node) => write!(f, "given to {node}"),
            Self::Stored => f.pad("stored for a subscriber"),
            Self::Processed => f.pad("processed"),
            Self::Poison => f.pad("handed out as often as it may be"),
            Self::Undelivered(reason) => write!(f, "undelivered: {reason}"),
            Self::Kept(node) => write!(f, "a copy for {node}"),
        }
    }
}

impl Whereabouts {
    /// None for a node without an Ed25519 key, which none is.
    pub(super) fn new(node: PeerId, node_name: &str, known: Known) -> Option<Self> {
        let stage = match known.stage {
            StageRow::Accepted => Stage::Accepted,
            StageRow::Given(key) => Stage::Given(key.peer()?),
            StageRow::Stored => Stage::Stored,
            StageRow::Processed => Stage::Processed,
            StageRow::Poison => Stage::Poison,
            StageRow::Undelivered(reason) => Stage::Undelivered(reason.into()),
            StageRow::Kept(key) => Stage::Kept(key.peer()?),
        };
        let time = UNIX_EPOCH + Duration::from_micros(known.time);
        Some(Self { node, node_name: node_name.to_owned(), recipient: known.recipient, stage, time })
    }
}

impl Node {
    /// What this node and its neighbours know of a guaranteed message, for each of its recipients, in the order of time. A neighbour that
    /// does not answer within 3 s knows nothing; each looks through its oldest 10,000 messages and notices.
    ///
    /// What was delivered is forgotten by its sender, and by its recipient some seconds after its time is over.
    ///
    /// # Errors
    ///
    /// If the node is gone.
    ///
    /// ```
    /// # async fn f(node: pombo::Node, id: pombo::MessageId) -> Result<(), pombo::Closed> {
    /// for known in node.whereabouts(id).await? {
    ///     println!("{} for {}: {}", known.node_name, known.recipient, known.stage);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn whereabouts(&self, id: MessageId) -> Result<Vec<Whereabouts>, Closed> {
        let mut all: Vec<Whereabouts> = self.known(id).await?;
        all.sort_by_key(|known| known.time);
        Ok(all)
    }

    async fn known(&self, id: MessageId) -> Result<Vec<Whereabouts>, Closed> {
        let linked = self.status().await?.peers.into_iter().filter(|peer| peer.links > 0);
        let neighbours = linked.map(|peer| (Some(peer.peer), peer.peer, peer.name));
        let asked = [(None, self.peer_id(), self.name().to_owned())].into_iter().chain(neighbours);
        let answers = asked.map(|(peer, node, name)| async move {
            let answer = self.handle.post(PostCommand::Where { id, peer });
            match tokio::time::timeout(PATIENCE, answer).await {
                Ok(Ok(Some(PostAnswer::Known(known)))) => {
                    Ok(known.into_iter().filter_map(|one| Whereabouts::new(node, &name, one)).collect())
                }
                Ok(Err(closed)) => Err(closed),
                Ok(Ok(_)) | Err(_) => Ok(Vec::new()),
            }
        });
        let answers: Result<Vec<Vec<Whereabouts>>, Closed> = join_all(answers).await.into_iter().collect();
        Ok(answers?.into_iter().flatten().collect())
    }
}
