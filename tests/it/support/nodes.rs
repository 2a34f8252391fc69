//! Live nodes of one mesh on loopback, within this process.

use std::time::Duration;

use futures::{Stream, StreamExt};
use pombo::{Builder, MeshChoice, Multiaddr, Node};
use tempfile::TempDir;

use super::Turn;

/// Within what everything happens that has no stricter deadline of its own.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";
#[cfg(feature = "quic")]
pub(crate) const TRANSPORTS: [&str; 2] = [TCP, "/ip4/127.0.0.1/udp/0/quic-v1"];
#[cfg(not(feature = "quic"))]
pub(crate) const TRANSPORTS: [&str; 1] = [TCP];

/// A user's data directory: its nodes share a private mesh.
pub(crate) struct Place {
    pub(crate) data: TempDir,
    _turn: Option<Turn>,
}

impl Place {
    pub(crate) fn new(turn: Turn) -> Self {
        Self { data: tempfile::tempdir().unwrap(), _turn: Some(turn) }
    }

    /// One of several in a test that has its turn.
    #[cfg(feature = "cli")]
    pub(crate) fn another() -> Self {
        Self { data: tempfile::tempdir().unwrap(), _turn: None }
    }

    /// A node that looks for nobody, and listens here only.
    pub(crate) fn node(&self, name: &str, listen: &str) -> Builder {
        // By name, whatever mesh a node of whoever runs the tests is in.
        let mesh = MeshChoice::Named("test".to_owned());
        let builder = Node::builder().name(name).mesh(mesh).data_dir(self.data.path()).mdns(false).local(false);
        builder.listen(listen.parse().unwrap())
    }
}

pub(crate) fn address(node: &Node) -> Multiaddr {
    node.addresses().first().expect("a node listens when it has started").clone()
}

pub(crate) async fn within<F: IntoFuture>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what} did not come within {SOON:?}"))
}

pub(crate) async fn next<T>(what: &str, stream: &mut (impl Stream<Item = T> + Unpin)) -> T {
    within(what, stream.next()).await.unwrap_or_else(|| panic!("the stream ended before {what}"))
}
