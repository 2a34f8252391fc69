//! What the postman knows of the others: who has which durable subscription.

use libp2p_identity::PeerId;

/// A node that is there and has a durable subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) peer: PeerId,
    /// Whether it can be offered something now.
    pub(crate) linked: bool,
    /// How many letters its subscribers take at once: 0 if it has none.
    pub(crate) window: usize,
    /// False: it does not have it any more.
    pub(crate) has_it: bool,
    /// It is this node.
    pub(crate) is_own: bool,
}

impl Holding {
    pub(super) fn none(peer: PeerId, linked: bool) -> Self {
        Self { peer, linked, window: 0, has_it: false, is_own: false }
    }
}

/// The nodes that have a durable subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holders {
    pub(crate) there: Vec<Holding>,
    /// Whether several have it, those that are not there included.
    pub(crate) are_several: bool,
}

/// What the postman wants to know of the others.
pub(crate) trait Directory {
    /// Who has a durable subscription, this node included.
    fn holders(&self, name: &str) -> Holders;
    /// Whether that node is there, this one included.
    fn is_live(&self, peer: PeerId) -> bool;
    /// Whether that node is linked, or heard of as of one that is there.
    fn is_seen(&self, peer: PeerId) -> bool;
    /// Whether that node can be offered something now, this one included.
    fn is_linked(&self, peer: PeerId) -> bool;
}
