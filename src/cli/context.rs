//! What every verb is given: the flags, the output, the signals, and a node, of its own or one that runs.

use std::time::Duration;

use futures::future::{self, Either};
use pombo::{Builder, Config, Identity, Node, Outcome, RunningNode, StartError};

use super::args::Common;
use super::bus::Bus;
use super::config::Settings;
use super::failure::Failure;
use super::output::Output;
use super::progress;
use super::signals::{self, Signals};
use super::text;

/// What a verb works with, and how that ends.
pub(super) trait Ends {
    /// Says goodbye.
    async fn leave(&self);

    /// Takes nothing new, finishes what was accepted, and then says goodbye.
    async fn drain(&self) -> Result<(), Failure>;
}

impl Ends for Node {
    async fn leave(&self) {
        Self::leave(self).await;
    }

    async fn drain(&self) -> Result<(), Failure> {
        let drained = Self::drain(self).timeout(signals::DRAIN).await;
        drained.map_err(|error| Failure::new(error.outcome(), error.to_string()))
    }
}

impl Ends for Bus {
    /// Of a node that runs it just takes its hands off.
    async fn leave(&self) {
        match self {
            Self::Own(node) => node.leave().await,
            Self::Running(_) => {}
        }
    }

    async fn drain(&self) -> Result<(), Failure> {
        match self {
            Self::Own(node) => Ends::drain(node).await,
            Self::Running(node) => {
                let finished = tokio::time::timeout(signals::DRAIN, node.finish()).await;
                finished.map_err(|_| Failure::new(Outcome::Partial, "requests were cut off: they took too long"))
            }
        }
    }
}

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

    /// What does the work of a verb with these flags: the node that runs on this machine, or else one of its own.
    pub(super) async fn bus(&self) -> Result<Bus, Failure> {
        let builder = self.short_lived();
        match builder.running().await {
            Some(node) => Ok(Bus::Running(node)),
            None => self.node(builder).await.map(Bus::Own),
        }
    }

    /// The node that runs on this machine, for what only that can do.
    pub(super) async fn running(&self) -> Result<RunningNode, Failure> {
        if let Some(node) = self.short_lived().running().await {
            return Ok(node);
        }
        let (common, flags) = (&self.common, self.common.mesh_flags());
        let what = "this needs a node that runs on this machine, and none was found";
        let (what, named) = match &common.name {
            Some(name) => (format!("{what} of the name {name}"), format!(" --name {}", text::shell(name))),
            None => (what.to_owned(), String::new()),
        };
        let failure =
            Failure::new(Outcome::NoNode, what).hint(format!("start `pombo node{flags}{named}` in another terminal"));
        let is_of_its_own = common.key.is_some()
            || common.no_local
            || !(common.listen.is_empty() && common.peer.is_empty() && common.dns.is_empty());
        if !is_of_its_own {
            return Err(failure);
        }
        Err(failure
            .hint("leave out --key, --listen, --peer, --dns and --no-local: they say how a node is to be started"))
    }

    /// A node, started.
    pub(super) async fn node(&self, builder: Builder) -> Result<Node, Failure> {
        builder.start().await.map_err(|error| self.not_started(error))
    }

    /// Lets `work` use what is started, and ends that politely, whichever way the work ends. `None`: a signal came first.
    pub(super) async fn on<B: Ends, T>(
        &self,
        started: impl Future<Output = Result<B, Failure>>,
        work: impl AsyncFnOnce(&B) -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        let Some(bus) = self.unless_stopped(started).await.transpose()? else { return Ok(None) };
        let result = self.unless_stopped(work(&bus)).await;
        self.goodbye(&bus).await;
        result.transpose()
    }

    async fn goodbye(&self, bus: &impl Ends) {
        progress::waiting(self.output, "saying goodbye, Ctrl-C ends it at once", None, bus.leave()).await;
    }

    /// As [`on`](Self::on), for work that others wait for: after a signal nothing new is taken, and what runs goes on until it
    /// is finished.
    pub(super) async fn until_drained<B: Ends>(
        &self,
        started: impl Future<Output = Result<B, Failure>>,
        work: impl AsyncFnOnce(&B) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(bus) = self.unless_stopped(started).await.transpose()? else { return Ok(()) };
        let mut work = std::pin::pin!(work(&bus));
        if let Some(result) = self.unless_stopped(&mut work).await {
            self.goodbye(&bus).await;
            return result;
        }
        let drain = std::pin::pin!(bus.drain());
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
        progress::waiting(self.output, "finishing what was accepted, Ctrl-C ends it at once", None, finish).await
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

    /// `None` if a signal asks to stop before the work is done.
    pub(super) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.signals.stop() => None,
            done = work => Some(done),
        }
    }
}
