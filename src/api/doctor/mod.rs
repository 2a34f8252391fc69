//! The doctor: tries each way in which nodes find and reach each other, and says which work.

mod link;
mod roster;

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, Stream, StreamExt, stream};

use crate::config::Config;
use crate::error::StartError;
use crate::net::doctor::ground::{self, Ground};
use crate::net::doctor::{Finding, Probe, clock, in_time, limits, local, mdns, of_files, ports, seek};

/// Tries what a node with a certain configuration would rely on, here and now: its directory and key, ports, links, and each
/// way to find others.
///
/// Nothing that lasts is made or changed, and running nodes are not disturbed: they see a call or two of somebody who hangs
/// up. It takes five seconds at most.
///
/// ```no_run
/// use futures::StreamExt;
/// use pombo::{Config, Doctor, Finding, Outcome, Verdict};
///
/// # async fn f() -> Result<(), pombo::StartError> {
/// let findings: Vec<Finding> = Doctor::new(Config::default()).examine().await?.collect().await;
/// for finding in findings.iter().filter(|finding| finding.verdict == Verdict::Fails) {
///     println!("{} {}: {}", finding.probe, finding.subject, finding.detail);
/// }
/// if Finding::outcome(&findings) == Outcome::Ok {
///     println!("a node could work here");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a doctor does nothing until asked to `examine`"]
pub struct Doctor {
    config: Config,
}

/// A probe under way.
type Work = BoxFuture<'static, Vec<Finding>>;

impl Doctor {
    /// For a node that would be started with this configuration.
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// Starts all probes, which run side by side, and gives what they find, always in the same order.
    ///
    /// Must be called within a tokio runtime. Dropping the stream ends them.
    ///
    /// # Errors
    ///
    /// [`StartError::Config`] if the configuration makes no sense whatever the machine, and [`StartError::Io`] if the disk
    /// does not answer. Everything else is a [`Finding`].
    pub async fn examine(self) -> Result<impl Stream<Item = Finding> + Send + Unpin + use<>, StartError> {
        let config = Arc::new(self.config);
        crate::net::check(&config)?;
        let looked = Arc::clone(&config);
        let ground = of_files(move || ground::look(&looked)).await;
        let ground = ground.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::TimedOut, SLOW_DISK))??;
        let work: FuturesOrdered<Work> = probes(config, ground).into_iter().collect();
        Ok(work.map(stream::iter).flatten().boxed())
    }
}

const SLOW_DISK: &str = "the disk with the data directory or the registry does not answer";

/// All probes, in the order in which they are told.
fn probes(config: Arc<Config>, mut ground: Ground) -> Vec<Work> {
    let first = std::mem::take(&mut ground.findings);
    let ground = Arc::new(ground);
    vec![
        std::future::ready(first).boxed(),
        in_time(Probe::Listen, ports::probe(config.listen.clone())).boxed(),
        from_files(Probe::Limits, &ground, |ground| limits::probe(ground.disk.as_deref())),
        from_files(Probe::Clock, &ground, |ground| vec![clock::probe(ground.own.as_ref(), ground.access.as_ref())]),
        local(&config, &ground),
        neighbours(&config, &ground),
        in_time(Probe::Link, link::probe()).boxed(),
        in_time(Probe::Mdns, mdns::probe(config.mdns)).boxed(),
        in_time(Probe::Given, seek::given(ground.access.clone(), config.peers.clone())).boxed(),
        in_time(Probe::Dns, seek::names(ground.access.clone(), config.dns.clone())).boxed(),
        in_time(Probe::Roster, roster::probe(config, ground)).boxed(),
    ]
}

fn from_files(probe: Probe, ground: &Arc<Ground>, look: fn(&Ground) -> Vec<Finding>) -> Work {
    let ground = Arc::clone(ground);
    let late = move || vec![Finding::fails(probe, "", SLOW_DISK)];
    async move { of_files(move || look(&ground)).await.unwrap_or_else(late) }.boxed()
}

fn local(config: &Config, ground: &Arc<Ground>) -> Work {
    if !config.local {
        return std::future::ready(vec![Finding::not_tried(Probe::Local, "", "switched off")]).boxed();
    }
    from_files(Probe::Local, ground, |ground| vec![local::probe(ground.registry.as_deref())])
}

fn neighbours(config: &Config, ground: &Arc<Ground>) -> Work {
    let (Some(access), Ok(registry), true) = (ground.access.clone(), &ground.registry, config.local) else {
        return std::future::ready(Vec::new()).boxed();
    };
    let (registry, mesh) = (registry.clone(), access.clone());
    let work = async move {
        let cards = of_files(move || seek::cards(&registry, &mesh)).await.unwrap_or_default();
        seek::neighbours(Some(access), cards).await
    };
    in_time(Probe::Neighbour, work).boxed()
}
