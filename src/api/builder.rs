//! Setting up a node.

use std::path::PathBuf;

use libp2p::Multiaddr;

use super::Node;
use crate::config::{Config, MeshChoice};
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
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = Some(name.into());
        self
    }

    /// Which mesh it belongs to.
    pub fn mesh(mut self, mesh: MeshChoice) -> Self {
        self.config.mesh = mesh;
        self
    }

    /// Joins the well-known mesh that anybody on the network may join.
    pub fn open(self) -> Self {
        self.mesh(MeshChoice::Open)
    }

    /// Listens on this address. May be given several times; without any, on every interface.
    pub fn listen(mut self, address: Multiaddr) -> Self {
        self.config.listen.push(address);
        self
    }

    /// Dials this address, and again while there is no link to it. May be given several times.
    pub fn peer(mut self, address: Multiaddr) -> Self {
        self.config.peers.push(address);
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
    pub fn key(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.key = Some(path.into());
        self
    }

    /// The data directory, made if it is not there.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.data_dir = Some(path.into());
        self
    }

    /// Whether the node exists for one errand only. See [`Config::short_lived`].
    pub fn short_lived(mut self, on: bool) -> Self {
        self.config.short_lived = on;
        self
    }

    /// Starts the node. When this returns, it listens and looks for others.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`] names what could not be used, and what to do about it.
    pub async fn start(self) -> Result<Node, StartError> {
        net::start(self.config).await
    }
}
