//! What a node tells of its mesh.

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

/// How somebody was found. [`Event`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FoundBy {
    /// The registry of this host.
    Local,
    /// Multicast DNS.
    Mdns,
    /// An address that was given.
    Given,
    /// A DNS name that was given.
    Dns,
    /// The roster: another node knew.
    Roster,
    /// They dialled us.
    Inbound,
}

/// Something that happened in the mesh, as [`Node::events`](crate::Node::events) tells it.
///
/// ```
/// use pombo::{Event, FoundBy};
/// fn tell(event: &Event) {
///     match event {
///         Event::Linked { peer, by: FoundBy::Mdns, .. } => println!("{peer} is on this network"),
///         Event::Left { name, .. } => println!("{name} left"),
///         _ => {}
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A link to this node was made.
    Linked {
        /// Who.
        peer: PeerId,
        /// Where.
        address: Multiaddr,
        /// How it was found.
        by: FoundBy,
    },
    /// The last link to this node is gone.
    Unlinked {
        /// Who.
        peer: PeerId,
    },
    /// The roster has a node that it did not have, or one that came back.
    Joined {
        /// Who.
        peer: PeerId,
        /// Its name.
        name: String,
    },
    /// The roster has something new of this node: what it listens to or serves, or where it is; or it was started anew.
    Changed {
        /// Who.
        peer: PeerId,
        /// Its name.
        name: String,
    },
    /// A node said goodbye.
    Left {
        /// Who.
        peer: PeerId,
        /// Its name.
        name: String,
    },
    /// Nobody has heard of this node for a minute; nothing is routed to it.
    Suspect {
        /// Who.
        peer: PeerId,
        /// Its name.
        name: String,
    },
    /// Somebody runs this very node, with a later start: others listen to that one. Two processes have the same key, or this
    /// host's clock was set back and its data directory lost.
    Outrun {
        /// The incarnation of the other.
        incarnation: u64,
    },
    /// What answers where this node was told to look is no pombo node. Said once for each.
    NotPombo {
        /// Who, if it said so.
        peer: Option<PeerId>,
        /// Where.
        addresses: Vec<Multiaddr>,
    },
    /// A neighbour belongs to another mesh and was turned away. Said once for each.
    OtherMesh {
        /// Who.
        peer: Option<PeerId>,
        /// Where.
        addresses: Vec<Multiaddr>,
        /// Whether theirs is the open mesh.
        open: bool,
    },
}
