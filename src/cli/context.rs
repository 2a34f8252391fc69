//! What every verb is given: the flags, the output, the signals, and a node of its own.

use std::time::Duration;

use futures::future::{self, Either};
use pombo::{Builder, Config, Identity, Node, StartError};

use super::args::Common;
use super::config::Settings;
use super::failure::Failure;
use super::output::Output;
use super::progress;
use super::signals::{self, Signals};

/// How long work that has nothing left to do may take to say so.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(super) struct Context {
    pub(super) common: Common,
    pub(super) settings: Settings,
    pub(super) output: Output,
    pub(super) signals: Signals,
}

impl Context {
    /// A node as the flags want it: one that lasts.
    pub(super) fn lasting(&self) -> Builder {
        let common = &self.common;
        let builder = self.identity().mdns(!common.no_mdns).local(!common.no_local);
        let builder = common.listen.iter().cloned().fold(builder, Builder::listen);
        let builder = common.peer.iter().cloned().fold(builder, Builder::peer);
        common.dns.iter().cloned().fold(builder, Builder::dns)
    }

    /// The same, for one errand.
    pub(super) fn short_lived(&self) -> Builder {
        self.lasting().short_lived(true)
    }

    /// Who the node that the flags mean is.
    pub(super) fn who(&self) -> Result<Identity, Failure> {
        self.identity().identity().map_err(|error| self.not_started(error))
    }

    /// What to do when no other node was found.
    pub(super) fn lonely(&self) -> String {
        let common = &self.common;
        if let [address, ..] = &common.peer[..] {
            return format!("nobody of this mesh answered at {address}: see that a node runs there, in the same mesh");
        }
        if let [name, ..] = &common.dns[..] {
            return format!("nobody of this mesh answered at {name}: see that nodes run there, in the same mesh");
        }
        if common.no_local && common.no_mdns {
            return "--no-local and --no-mdns leave nobody to be found: name a node's address with --peer, or a name that leads to nodes with --dns".to_owned();
        }
        let flags = common.mesh_flags();
        let elsewhere = if common.open { "" } else { "; across machines, all with --open" };
        format!("start `pombo node{flags}` in another terminal{elsewhere}")
    }

    fn identity(&self) -> Builder {
        let common = &self.common;
        let limits = self.settings.limits.clone();
        let mut builder = Node::builder().config(Config { limits, ..Config::default() }).mesh(common.mesh());
        if let Some(name) = &common.name {
            builder = builder.name(name.as_str());
        }
        if let Some(path) = &common.key {
            builder = builder.key(path.as_path());
        }
        if let Some(path) = &common.data_dir {
            builder = builder.data_dir(path.as_path());
        }
        builder
    }

    /// Starts a node, lets `work` use it, and leaves the mesh politely, whichever way the work ends. `None`: a signal came
    /// first.
    pub(super) async fn on_node<T>(
        &self,
        builder: Builder,
        work: impl AsyncFnOnce(&Node) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        let Some(node) = self.unless_stopped(builder.start()).await else { return Ok(None) };
        let node = node.map_err(|error| self.not_started(error))?;
        let result = self.unless_stopped(work(&node)).await;
        self.goodbye(&node).await;
        result.transpose()
    }

    async fn goodbye(&self, node: &Node) {
        progress::waiting(self.output, "saying goodbye, Ctrl-C ends it at once", None, node.leave()).await;
    }

    /// As [`on_node`](Self::on_node), for work that others wait for: after a signal nothing new is taken, and what runs goes on
    /// until it is finished.
    pub(super) async fn until_drained(
        &self,
        builder: Builder,
        work: impl AsyncFnOnce(&Node) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(node) = self.unless_stopped(builder.start()).await else { return Ok(()) };
        let node = node.map_err(|error| self.not_started(error))?;
        let mut work = std::pin::pin!(work(&node));
        if let Some(result) = self.unless_stopped(&mut work).await {
            self.goodbye(&node).await;
            return result;
        }
        let drain = std::pin::pin!(node.drain().timeout(signals::DRAIN).into_future());
        let finish = async {
            match future::select(drain, work).await {
                Either::Left((drained, work)) => {
                    // The node has ended, and so does the work, when it has told of the last that it did.
                    let _ = tokio::time::timeout(LAST_WORDS, work).await;
                    drained
                }
                Either::Right((_, drain)) => drain.await,
            }
        };
        let drained =
            progress::waiting(self.output, "finishing what was accepted, Ctrl-C ends it at once", None, finish).await;
        drained.map_err(|error| Failure::new(error.outcome(), error.to_string()))
    }

    /// Why there is no node. Who did not type what it comes from is told where that is set.
    pub(super) fn not_started(&self, error: StartError) -> Failure {
        let concerned: &[&str] = match &error {
            StartError::Config(_) => &["mesh", "name"],
            StartError::Listen { .. } => &["listen"],
            StartError::Data(_) => &["data_dir", "key", "name"],
            StartError::Io(_) | _ => &[],
        };
        self.settings.culprits(concerned).into_iter().fold(error.into(), Failure::hint)
    }

    /// As [`on_node`](Self::on_node), for work that a signal leaves undone.
    pub(super) async fn finish_on_node<T>(
        &self,
        builder: Builder,
        work: impl AsyncFnOnce(&Node) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.on_node(builder, work).await?.ok_or_else(Failure::interrupted)
    }

    /// `None` if a signal asks to stop before the work is done.
    pub(super) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.signals.stop() => None,
            done = work => Some(done),
        }
    }
}
