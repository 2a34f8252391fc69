//! Setting up a node.

use std::path::PathBuf;

use libp2p::{Multiaddr, PeerId};

use super::{Doctor, MeshInfo, Node, RunningNode};
use crate::DnsName;
use crate::config::{Config, Dissemination, MeshChoice};
use crate::error::StartError;
use crate::net;

/// A node that is to be started. Every method sets a field of its [`Config`].
///
/// ```no_run
/// # async fn f() -> Result<(), pombo::StartError> {
/// let node = pombo::Node::builder().name("shop").mdns(false).start().await?;
/// # Ok(())
/// # }
/// ```
///
/// All options, on three nodes:
///
/// ```no_run
/// use pombo::{Config, Limits, MeshChoice, Node};
///
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let shop = Node::builder()
///     .name("shop")
///     .mesh(MeshChoice::Named("market".to_owned()))
///     .listen("/ip4/0.0.0.0/tcp/7662".parse()?)
///     .peer("/ip4/192.168.1.20/tcp/7662".parse()?)
///     .dns("shop.prod.svc:7662".parse()?)
///     .mdns(false)
///     .local(true)
///     .relay(true)
///     .data_dir("/var/lib/shop")
///     .start()
///     .await?;
///
/// let errand = Node::builder().open().key("/etc/errand/key").short_lived(true).start().await?;
///
/// let limits = Limits { message: 64 * 1024, ..Limits::default() };
/// let small = Node::builder().config(Config { limits, ..Config::default() }).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a node starts only with `start`"]
pub struct Builder {
    config: Config,
}

impl Builder {
    /// Takes a whole configuration, in place of what was set so far.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The node's name, of 1 to 32 characters `A-Z a-z 0-9 _ -`. It is also the name of its place in the data directory.
    ///
    /// Without it, the name of the first place there that no process holds; one is made if there is none.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = Some(name.into());
        self
    }

    /// Which mesh it belongs to. [`MeshChoice::Default`] without this.
    pub fn mesh(mut self, mesh: MeshChoice) -> Self {
        self.config.mesh = mesh;
        self
    }

    /// Joins the well-known mesh that anybody on the network may join.
    pub fn open(self) -> Self {
        self.mesh(MeshChoice::Open)
    }

    /// Listens on this address. May be given several times; without any, on every interface.
    ///
    /// Port 0 stands for one that the system picks. An address that cannot be opened fails the start.
    ///
    /// `/memory/1` and its like lead nowhere but within one process, for tests and benchmarks of many nodes. No other node is told
    /// of them; who is to be reached there is given with [`peer`](Self::peer).
    pub fn listen(mut self, address: Multiaddr) -> Self {
        self.config.listen.push(address);
        self
    }

    /// Dials this address, and again while there is no link to it. May be given several times.
    ///
    /// The address may end with `/p2p/` and a peer id; it is then dialled for that node only. It may begin with a name, as in
    /// `/dns4/shop.example/tcp/7662`, which is looked up as those of [`dns`](Self::dns) are. Names of the kind `/dnsaddr` are
    /// refused.
    pub fn peer(mut self, address: Multiaddr) -> Self {
        self.config.peers.push(address);
        self
    }

    /// Dials all addresses of this name, by TCP and where that leads nowhere by QUIC. May be given several times.
    ///
    /// The name is looked up again every 10 s as the system does it, hosts file and search domains included. It may lead to
    /// this node as well, as that of a Kubernetes headless service does.
    pub fn dns(mut self, name: DnsName) -> Self {
        self.config.dns.push(name);
        self
    }

    /// Whether to find peers by multicast DNS. It does without this.
    pub fn mdns(mut self, on: bool) -> Self {
        self.config.mdns = on;
        self
    }

    /// Whether to find peers by the registry of this host. It does without this.
    pub fn local(mut self, on: bool) -> Self {
        self.config.local = on;
        self
    }

    /// Whether to pass on what others publish though nobody here listens. It does not without this.
    pub fn relay(mut self, on: bool) -> Self {
        self.config.relay = on;
        self
    }

    /// The key file, made if it is not there.
    ///
    /// It takes the place of the node's directory in the data directory. One process at a time can hold it; its lock
    /// and the number of its last start are kept in files beside it. A key file that others may read fails the start.
    pub fn key(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.key = Some(path.into());
        self
    }

    /// The data directory, made if it is not there. `$XDG_DATA_HOME/pombo` or `~/.local/share/pombo` without this.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.data_dir = Some(path.into());
        self
    }

    /// Which way what it publishes goes to those who listen. [`Dissemination::Adaptive`] without this.
    pub fn dissemination(mut self, way: Dissemination) -> Self {
        self.config.dissemination = way;
        self
    }

    /// Whether the node exists for one errand only. See [`Config::short_lived`].
    pub fn short_lived(mut self, on: bool) -> Self {
        self.config.short_lived = on;
        self
    }

    /// A doctor, who says whether such a node could work here. [`Doctor`] has an example.
    pub fn doctor(self) -> Doctor {
        Doctor::new(self.config)
    }

    /// Who such a node is: the one that has this key or name; without either the first of the data directory that runs, or
    /// else the one that would start now. What is not there yet is made. Nothing is started, and nothing taken.
    ///
    /// ```
    /// # fn f() -> Result<(), pombo::StartError> {
    /// let shop = pombo::Node::builder().name("shop").identity()?;
    /// println!("{} is {}, in mesh {}", shop.name, shop.peer, shop.mesh.name);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`StartError`] names what could not be used, and what to do about it. A short-lived node without a key has no identity
    /// before it starts.
    pub fn identity(&self) -> Result<Identity, StartError> {
        net::identity(&self.config)
    }

    /// A node that runs beside this process and can do what one with this configuration would: one of this user's, in the same
    /// mesh, that is [offered](Node::offer); of several the one of the name that
    /// was given, or the first by name.
    ///
    /// `None` if there is none, or it does not answer within 3 s, or speaks another version; and also if something is asked for
    /// that only a node of its own can give: a key, an address to listen on or to dial, a way to send, or not to be
    /// [local](Self::local). Limits are those of the node that runs.
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// let builder = pombo::Node::builder();
    /// match builder.running().await {
    ///     Some(node) => println!("{} runs already", node.name()),
    ///     None => println!("{} it is", builder.start().await?.name()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn running(&self) -> Option<RunningNode> {
        RunningNode::find(&self.config).await
    }

    /// Starts the node. When this returns, it listens and looks for others.
    ///
    /// Must be called within a tokio runtime, on which the node then runs. Dropping the future before it is done starts
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`StartError`] names what could not be used, and what to do about it.
    pub async fn start(self) -> Result<Node, StartError> {
        net::start(self.config).await
    }
}

/// Who a node is, as [`Builder::identity`] finds out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// What people call it.
    pub name: String,
    /// Its id.
    pub peer: PeerId,
    /// Its mesh.
    pub mesh: MeshInfo,
}
