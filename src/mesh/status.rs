//! What a node knows, told at one moment.

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use super::Mesh;
use super::event::FoundBy;
use super::roster::{Known, Presence};
use super::subscriptions::Detail;

/// What a node knows, at one moment.
///
/// ```
/// # fn f(status: &pombo::Status) {
/// for peer in status.peers.iter().filter(|peer| !peer.suspect) {
///     println!("{} {:?}, {} links, listens to {:?}", peer.name, peer.round_trip, peer.links, peer.patterns);
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// This node.
    pub node: PeerStatus,
    /// The name of its mesh.
    pub mesh: String,
    /// The others, sorted by name. Those that said goodbye are not among them.
    pub peers: Vec<PeerStatus>,
    /// How full this node is.
    pub tables: Tables,
}

/// What is known of one node. [`Status`] has an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Its id.
    pub peer: PeerId,
    /// Its name.
    pub name: String,
    /// Where it can be reached.
    pub addresses: Vec<Multiaddr>,
    /// How many connections there are to it.
    pub links: u32,
    /// The last round trip, if it is linked and one was measured.
    pub round_trip: Option<std::time::Duration>,
    /// How it was found, if it is linked.
    pub found_by: Option<FoundBy>,
    /// What it subscribes to: patterns, each with its group.
    pub patterns: Vec<(String, Option<String>)>,
    /// What it serves.
    pub services: Vec<String>,
    /// Whether it passes on what it does not subscribe to.
    pub relay: bool,
    /// Whether nobody has heard of it for a minute. Nothing is routed to it then.
    pub suspect: bool,
}

/// How much a node keeps at one moment. Each has a bound; most of them are in [`Limits`](crate::Limits).
///
/// In a node that does the same for hours, these numbers come back to where they were.
///
/// ```
/// # async fn f(node: pombo::Node) -> Result<(), pombo::Closed> {
/// let tables = node.status().await?.tables;
/// println!("{} links over {} connections, {} bytes of recent frames", tables.links, tables.connections, tables.ring);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tables {
    /// Nodes that it is linked to.
    pub links: usize,
    /// The connections that these links are made of.
    pub connections: usize,
    /// Lanes to them: streams that frames and calls go straight over.
    pub lanes: usize,
    /// Nodes and addresses that it may dial.
    pub candidates: usize,
    /// Records of other nodes, those that left or are silent too.
    pub records: usize,
    /// Forgotten nodes of which it is remembered that they are.
    pub graves: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Streams of others that it follows.
    pub streams: usize,
    /// Bytes of frames that wait for an earlier one.
    pub held: usize,
    /// Bytes of recent frames, for those that missed them.
    pub ring: usize,
    /// Streams whose end it still announces.
    pub heads: usize,
    /// Its requests that are open.
    pub requests: usize,
    /// Calls that it is answering.
    pub calls: usize,
    /// Exchanges with neighbours, either way, that have no answer yet.
    pub exchanges: usize,
    /// Guaranteed messages that are owed to others.
    pub outbox: usize,
    /// Guaranteed messages of others of which it keeps copies, or knows how they ended.
    pub kept: usize,
    /// Guaranteed messages that came for durable subscriptions, those that are remembered as processed too.
    pub inbox: usize,
    /// Notices of undelivered messages that nobody has taken note of.
    pub notices: usize,
    /// Rows of the store that turned out to be damaged and were put aside, since the node started.
    pub damaged: usize,
    /// Frames that came by gossip and are being checked.
    pub unchecked: usize,
}

impl Mesh {
    pub(super) fn status(&self) -> Status {
        let patterns =
            self.subscriptions.interests(Detail::Exact).into_iter().map(|one| (one.pattern, one.group)).collect();
        let node = PeerStatus {
            peer: self.me,
            name: self.name.clone(),
            addresses: self.roster.own_addresses().to_vec(),
            links: 0,
            round_trip: None,
            found_by: None,
            patterns,
            services: self.requests.services(),
            relay: self.relay,
            suspect: false,
        };
        let others = self.roster.nodes().filter(|known| known.presence() != Presence::Left);
        let mut peers: Vec<_> = others.map(|known| self.peer_status(known)).collect();
        peers.sort_by(|one, other| (&one.name, one.peer).cmp(&(&other.name, other.peer)));
        Status { node, mesh: String::new(), peers, tables: self.tables() }
    }

    fn peer_status(&self, known: &Known) -> PeerStatus {
        let (peer, record) = (known.peer(), known.record());
        let interests = record.interests.iter().map(|one| (one.pattern.clone(), one.group.clone()));
        PeerStatus {
            peer,
            name: record.name.clone(),
            addresses: record.addresses.clone(),
            links: self.links.links(&peer),
            round_trip: self.links.rtt(&peer).map(|span| std::time::Duration::from_micros(span.0)),
            found_by: self.links.found_by(&peer),
            patterns: interests.collect(),
            services: record.services.clone(),
            relay: record.relay,
            suspect: known.presence() == Presence::Suspect,
        }
    }

    /// What the hub and the driver hold is filled in there.
    fn tables(&self) -> Tables {
        let [outbox, kept, inbox, notices, damaged] = self.postman.counts();
        Tables {
            links: self.links.count(),
            connections: 0,
            lanes: self.lanes.count(),
            candidates: self.links.candidates(),
            records: self.roster.nodes().count(),
            graves: self.roster.graves(),
            subscriptions: self.subscriptions.local().count(),
            streams: self.inbound.streams(),
            held: self.inbound.held(),
            ring: self.ring.bytes(),
            heads: self.heads.streams(),
            requests: self.requests.open(),
            calls: self.requests.calls(),
            exchanges: self.fx.open(),
            outbox,
            kept,
            inbox,
            notices,
            damaged,
            unchecked: 0,
        }
    }
}
