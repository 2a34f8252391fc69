//! What a node is started with: plain data. The builder only sets its fields.

use std::path::PathBuf;

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use crate::DnsName;

/// Everything that can be said about a node before it starts.
///
/// ```
/// use pombo::Config;
/// let config = Config { name: Some("shop".into()), mdns: false, ..Config::default() };
/// assert!(config.local);
/// ```
///
/// From a file, where what is left out has its default and what is unknown is an error:
///
/// ```
/// let text = r#"{ "name": "shop", "mesh": { "named": "market" }, "listen": ["/ip4/0.0.0.0/tcp/7662"] }"#;
/// let config: pombo::Config = serde_json::from_str(text)?;
/// assert!(config.mdns && config.listen.len() == 1);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The node's name. Without one it takes the first free slot of the data directory, and that slot's name.
    pub name: Option<String>,
    /// Which mesh it belongs to.
    pub mesh: MeshChoice,
    /// Where it listens. Empty: every interface, on ports that the system picks, TCP and (with the feature) QUIC.
    pub listen: Vec<Multiaddr>,
    /// Peers to dial. An address may begin with a name, as in `/dns4/shop.example/tcp/7662`.
    pub peers: Vec<Multiaddr>,
    /// Names that lead to peers: all addresses of each, asked for again every 10 s.
    pub dns: Vec<DnsName>,
    /// Whether to find peers by multicast DNS.
    pub mdns: bool,
    /// Whether to find peers by the registry of this host.
    pub local: bool,
    /// Whether to pass on what others publish though nobody here listens.
    pub relay: bool,
    /// A key file, in place of a slot in the data directory.
    pub key: Option<PathBuf>,
    /// The data directory. Without one: `$XDG_DATA_HOME/pombo`.
    pub data_dir: Option<PathBuf>,
    /// Whether this node exists for one errand only: its key is in memory unless `key` is given, it is in nobody's
    /// roster unless it subscribes or serves, and a publication returns when neighbours have confirmed that they took
    /// it over.
    pub short_lived: bool,
    /// Which way what it publishes goes to those who listen.
    pub dissemination: Dissemination,
    /// The bounds that it keeps.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            mesh: MeshChoice::Default,
            listen: Vec::new(),
            peers: Vec::new(),
            dns: Vec::new(),
            mdns: true,
            local: true,
            relay: false,
            key: None,
            data_dir: None,
            short_lived: false,
            dissemination: Dissemination::default(),
            limits: Limits::default(),
        }
    }
}

/// Which mesh a node belongs to.
///
/// ```
/// use pombo::MeshChoice;
/// assert_eq!(MeshChoice::default(), MeshChoice::Default);
/// assert_eq!(serde_json::from_str::<MeshChoice>(r#"{ "named": "market" }"#)?, MeshChoice::Named("market".to_owned()));
/// assert_eq!(serde_json::from_str::<MeshChoice>(r#""open""#)?, MeshChoice::Open);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeshChoice {
    /// The mesh of this user's node that runs on this host, if one does; otherwise the one named `default`. It is private,
    /// and made in the data directory if it is not there.
    #[default]
    Default,
    /// The private mesh of that name in the data directory; made if it is not there. 1 to 32 characters
    /// `A-Z a-z 0-9 _ -`; the name `open` stands for [`Open`](Self::Open).
    Named(String),
    /// The well-known mesh that anybody on the network may join.
    Open,
}

/// Which way messages go from their publisher to those who listen.
///
/// Either way each subscriber gets each message once, and in order. [`Adaptive`](Self::Adaptive) is right but for measuring.
///
/// ```
/// use pombo::{Config, Dissemination};
/// let config = Config { dissemination: Dissemination::Gossip, ..Config::default() };
/// assert_ne!(config.dissemination, Dissemination::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dissemination {
    /// Straight to the listeners while they all are neighbours and at most 32, by gossip otherwise.
    #[default]
    Adaptive,
    /// Straight to the listeners while they all are neighbours, however many they are.
    Direct,
    /// Always by gossip: from neighbour to neighbour, signed by the publisher. This node opens no lanes for calls either.
    Gossip,
}

/// The bounds that a node keeps. Sizes in bytes.
///
/// ```
/// use pombo::{Config, Limits};
/// let limits = Limits { mailbox: 64 * 1024 * 1024, links: 8, ..Limits::default() };
/// let config = Config { limits, ..Config::default() };
/// assert_eq!(config.limits.message, 1024 * 1024);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest payload of a message, request or reply. 1 MiB. To be the same on all nodes: a message larger than
    /// the receiver's may be dropped there.
    pub message: usize,
    /// Patterns that this node may subscribe to. 1,024.
    pub patterns: usize,
    /// Services that this node may provide. 256.
    pub services: usize,
    /// What one subscriber's mailbox may hold. 4 MiB.
    pub mailbox: usize,
    /// What may wait to be published. 8 MiB.
    pub outgoing: usize,
    /// What guaranteed messages may take up on the disk that are owed to others, and those that came for durable
    /// subscriptions. 1 GiB each.
    pub outbox: usize,
    /// How many of them there may be, each. 4,000,000; a million take some 200 MB of memory.
    pub outbox_messages: usize,
    /// Recent frames kept for those that missed them. 16 MiB.
    pub ring: usize,
    /// Frames held back while an earlier one is missing, for one publisher's stream. 4 MiB.
    pub held: usize,
    /// Streams of others that are remembered. 4,096.
    pub streams: usize,
    /// Roster records kept. 10,000.
    pub roster: usize,
    /// Requests of this node that may be open. 10,000.
    pub requests: usize,
    /// Nodes that this one keeps links to. Beyond it, it picks some and relies on the others to pass things on. 32.
    pub links: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: 1024 * 1024,
            patterns: 1_024,
            services: 256,
            mailbox: 4 * 1024 * 1024,
            outgoing: 8 * 1024 * 1024,
            outbox: 1024 * 1024 * 1024,
            outbox_messages: 4_000_000,
            ring: 16 * 1024 * 1024,
            held: 4 * 1024 * 1024,
            streams: 4_096,
            roster: 10_000,
            requests: 10_000,
            links: 32,
        }
    }
}

impl Limits {
    /// Whether a node can keep them. It refuses to start with others.
    ///
    /// ```
    /// use pombo::Limits;
    /// assert!(Limits::default().check().is_ok());
    /// let error = Limits { links: 0, ..Limits::default() }.check().unwrap_err();
    /// assert_eq!(error.to_string(), "the limit `links` is 0: it can be 1 to 256");
    /// ```
    ///
    /// # Errors
    ///
    /// The first that is 0, or more than the wire format, or a connection's other side, has room for.
    pub fn check(&self) -> Result<(), LimitError> {
        let Self {
            message,
            patterns,
            services,
            mailbox,
            outgoing,
            outbox,
            outbox_messages,
            ring,
            held,
            streams,
            roster,
            requests,
            links,
        } = *self;
        let any = usize::MAX;
        for (limit, value, most) in [
            ("message", message, Self::default().message),
            ("patterns", patterns, Self::default().patterns),
            ("services", services, Self::default().services),
            ("mailbox", mailbox, any),
            ("outgoing", outgoing, any),
            ("outbox", outbox, any),
            ("outbox_messages", outbox_messages, any),
            ("ring", ring, any),
            ("held", held, any),
            ("streams", streams, any),
            ("roster", roster, any),
            ("requests", requests, any),
            ("links", links, 256),
        ] {
            if value == 0 || value > most {
                return Err(LimitError { limit, value, most });
            }
        }
        Ok(())
    }
}

/// A limit that no node can keep.
///
/// ```
/// # use pombo::Limits;
/// let error = Limits { patterns: 5_000, ..Limits::default() }.check().unwrap_err();
/// assert_eq!((error.limit, error.value, error.most), ("patterns", 5_000, 1_024));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit `{limit}` is {value}: it can be 1{}", up_to(*.most))]
pub struct LimitError {
    /// Its name in [`Limits`].
    pub limit: &'static str,
    /// What it is.
    pub value: usize,
    /// What it can be at most; at least it is 1.
    pub most: usize,
}

fn up_to(most: usize) -> String {
    if most == usize::MAX { " or more".to_owned() } else { format!(" to {most}") }
}
