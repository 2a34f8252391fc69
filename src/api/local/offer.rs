//! Offering a node to other processes: its socket, and a task for each connection.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::debug;

use super::clients::Client;
use crate::api::Node;
use crate::net::local::{Line, Socket};
use crate::wire::local::FromNode;

/// Connections at once. Each does one piece of work.
const MOST: usize = 256;

/// How long after it failed to take a connection for want of something it tries again.
const PAUSE: Duration = Duration::from_millis(100);

/// How long connections may take to write their last words when the node has ended, and a stranger to take the only one.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A node that other processes of its user use. Dropping it ends that, and what they have under way; the node goes on.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// let node = pombo::Node::builder().name("harbour").start().await?;
/// let offered = node.offer()?;
/// tokio::signal::ctrl_c().await?;
/// node.drain().await?;
/// drop(offered);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "other processes use the node until this is dropped"]
pub struct Offered {
    task: JoinHandle<()>,
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A node cannot be offered to other processes. It runs all the same.
///
/// ```
/// # fn f(node: &pombo::Node) {
/// match node.offer() {
///     Err(error @ pombo::OfferError::Unlisted) => println!("{error}: `local` is off"),
///     Err(error) => println!("{error}"),
///     Ok(offered) => println!("{offered:?}"),
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// The registry of this host does not have it, so that nobody would find it.
    #[error("this node is not in the registry of this host, where other processes find it")]
    Unlisted,
    /// The socket could not be made.
    #[error("cannot make the socket {}: {source}{}", .path.display(), remedy(.source))]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    let is_too_long = error.kind() == io::ErrorKind::InvalidInput;
    if is_too_long { "; name a directory with a shorter path in XDG_RUNTIME_DIR" } else { "" }
}

impl Node {
    /// Lets other processes of this user on this host publish, subscribe, ask and serve by this node, until what this returns
    /// is dropped. [`Builder::running`](crate::Builder::running) is their side.
    ///
    /// Needs a node that the registry of this host has ([`Builder::local`](crate::Builder::local)). Only processes of the user who runs the node get in,
    /// 256 connections at most; one that finds no room starts a node of its own. `pombo node` does this.
    ///
    /// # Errors
    ///
    /// If the node is not in the registry, or the socket cannot be made.
    ///
    /// ```no_run
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = pombo::Node::builder().name("harbour").start().await?;
    /// let _offered = node.offer()?;
    /// tokio::signal::ctrl_c().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn offer(&self) -> Result<Offered, OfferError> {
        let path = self.about.socket.as_deref().ok_or(OfferError::Unlisted)?;
        let runtime = &self.handle.runtime;
        // The socket needs its reactor.
        let _entered = runtime.enter();
        let socket = Socket::open(path).map_err(|source| OfferError::Socket { path: path.to_owned(), source })?;
        Ok(Offered { task: runtime.spawn(run(self.clone(), socket)) })
    }
}

impl Offered {
    /// Waits until the node has ended, and those that use it have what came for them before; for the latter half a second at
    /// most.
    ///
    /// ```
    /// # async fn f(node: pombo::Node, mut offered: pombo::Offered) -> Result<(), pombo::DrainError> {
    /// node.drain().await?;
    /// offered.ended().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ended(&mut self) {
        // It is not aborted before this is dropped.
        let _ended = (&mut self.task).await;
    }
}

/// Takes connections until the node has ended.
async fn run(node: Node, socket: Socket) {
    let changed = watch::Sender::new(());
    // Those that are in it end with it.
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            taken = socket.accept() => match taken {
                Ok(line) if clients.len() < MOST && !node.handle.press.is_shut() => {
                    clients.spawn(Client::new(node.clone(), line, changed.clone()).run());
                }
                Ok(line) => turn_away(line).await,
                Err(error) => {
                    debug!(%error, "cannot take a connection over the socket");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = clients.join_next() => {}
            () = node.handle.stop.closed() => break,
        }
    }
    drop(socket);
    let _late = timeout(LAST_WORDS, async { while clients.join_next().await.is_some() {} }).await;
}

/// Says that there is no room. What has so few bytes is written at once.
async fn turn_away(mut line: Line) {
    let busy = FromNode::Busy { extensions: Vec::new() };
    let _gone = timeout(LAST_WORDS, line.writer.send(&busy)).await;
}
