//! The course of a benchmark: who is started when, and what is asked of whom.

use std::io::{IsTerminal, Write};

use futures::future::{join_all, try_join_all};
use pombo::{Config, MeshChoice, Multiaddr};
use serde::Serialize;
use tokio::time::Instant;

use super::crew::{Scratch, Worker};
use super::plan::{Load, Order, Role, Said, Word};
use super::report::{Requests, Settings, Traffic};
use super::{Flags, GRACE, clock};
use crate::cli::context::Context;
use crate::cli::failure::Failure;

/// A benchmark under way.
pub(super) struct Bench<'a> {
    context: &'a Context,
    flags: &'a Flags,
    crew: Vec<Worker>,
    scratch: Scratch,
}

impl<'a> Bench<'a> {
    pub(super) fn new(context: &'a Context, flags: &'a Flags) -> Result<Self, Failure> {
        Ok(Self { context, flags, crew: Vec::new(), scratch: Scratch::new()? })
    }

    /// One publishes, the others subscribe.
    pub(super) async fn traffic(&mut self, bench: &'static str, subscribers: usize) -> Result<(), Failure> {
        let topic = self.unique_name();
        let names = (1..=subscribers).map(|number| match subscribers {
            1 => "subscriber".to_owned(),
            _ => format!("subscriber-{number}"),
        });
        let names: Vec<_> = names.collect();
        for (index, name) in names.into_iter().enumerate() {
            self.start(name, Role::Subscriber, &topic, Vec::new(), index == 0).await?;
        }
        let addresses = self.all_ready().await?;
        self.start("publisher".to_owned(), Role::Publisher { subscribers }, &topic, addresses, false).await?;
        let (deadline, mut progress) = (self.deadline(), self.progress());
        let Some((publisher, others)) = self.crew.split_last_mut() else { return Ok(()) };
        publisher.ready().await?;
        publisher.tell(Word::Go).await?;
        // What the first says of its progress is read meanwhile, so that it need not wait for its turn to say it.
        let watched = watch(others.first_mut(), &mut progress);
        let said = tokio::select! {
            biased;
            said = publisher.said(deadline, |_| {}) => said?,
            failed = watched => return Err(failed),
        };
        let Said::Sent(sent) = said else { return Err(publisher.unexpected()) };
        let deadline = Instant::now() + GRACE;
        let heard = others.iter_mut().map(async |subscriber| {
            subscriber.tell(Word::Sent(sent)).await?;
            let said = subscriber.said(deadline, |_| {}).await?;
            let Said::Heard(heard) = said else { return Err(subscriber.unexpected()) };
            Ok((heard, subscriber.finish().await?))
        });
        let heard = try_join_all(heard).await?;
        let cost = publisher.finish().await?;
        drop(progress);
        let settings = Settings { subscribers: Some(subscribers), ..self.settings(bench) };
        let traffic = Traffic::new(settings, sent, cost, &heard);
        self.print(&traffic, &traffic.text(), traffic.behind(&self.load()))?;
        traffic.verdict()
    }

    /// One asks, one answers.
    pub(super) async fn requests(&mut self, in_flight: usize) -> Result<(), Failure> {
        let service = self.unique_name();
        self.start("provider".to_owned(), Role::Provider { room: in_flight }, &service, Vec::new(), false).await?;
        let addresses = self.all_ready().await?;
        self.start("asker".to_owned(), Role::Asker { in_flight }, &service, addresses, true).await?;
        let (deadline, mut progress) = (self.deadline(), self.progress());
        let [provider, asker] = &mut self.crew[..] else { return Ok(()) };
        asker.ready().await?;
        asker.tell(Word::Go).await?;
        let said = asker.said(deadline, |count| progress.show(count)).await?;
        let Said::Asked(asked) = said else { return Err(asker.unexpected()) };
        let (asker, provider) = (asker.finish().await?, provider.finish().await?);
        drop(progress);
        let settings = Settings { in_flight: Some(in_flight), ..self.settings("request") };
        let requests = Requests::new(settings, asked, asker, provider);
        self.print(&requests, &requests.text(), requests.behind(&self.load()))?;
        requests.verdict()
    }

    /// Lets all go.
    pub(super) async fn dismiss(&mut self) {
        join_all(self.crew.drain(..).map(Worker::dismiss)).await;
    }

    async fn start(
        &mut self,
        name: String,
        role: Role,
        topic: &str,
        peers: Vec<Multiaddr>,
        progress: bool,
    ) -> Result<(), Failure> {
        let progress = progress && self.shows_progress();
        let config = self.config(&name, peers);
        let order = Order { config, role, name: topic.to_owned(), load: self.load(), progress };
        let worker = Worker::start(name, &order, &self.context.common).await?;
        self.crew.push(worker);
        Ok(())
    }

    /// Waits for all of the crew, and returns where they can be reached.
    async fn all_ready(&mut self) -> Result<Vec<Multiaddr>, Failure> {
        Ok(try_join_all(self.crew.iter_mut().map(Worker::ready)).await?.concat())
    }

    /// A worker's node. Its key is kept with ours, so that nothing of it stays in the user's data directory.
    fn config(&self, name: &str, peers: Vec<Multiaddr>) -> Config {
        let (common, scratch) = (&self.context.common, self.scratch.path());
        let config = Config {
            name: Some(format!("bench-{name}")),
            key: Some(scratch.join(format!("{name}.key"))),
            limits: self.context.settings.limits.clone(),
            ..Config::default()
        };
        if self.flags.in_mesh {
            return Config {
                mesh: common.mesh(),
                data_dir: common.data_dir.clone(),
                peers: common.peer.clone(),
                dns: common.dns.clone(),
                mdns: !common.no_mdns,
                local: !common.no_local,
                ..config
            };
        }
        Config {
            mesh: MeshChoice::Named("bench".to_owned()),
            data_dir: Some(scratch.join("data")),
            listen: self.flags.transport.address().into_iter().collect(),
            peers,
            mdns: false,
            local: false,
            ..config
        }
    }

    fn load(&self) -> Load {
        let Flags { rate, size, duration, .. } = *self.flags;
        Load { size, rate, duration }
    }

    /// A topic or service that nobody else in the mesh has.
    fn unique_name(&self) -> String {
        format!("pombo.bench.{}-{:x}", std::process::id(), clock::now())
    }

    /// Until when everything has to be sent.
    fn deadline(&self) -> Instant {
        Instant::now() + self.flags.duration + 2 * GRACE
    }

    fn settings(&self, bench: &'static str) -> Settings {
        Settings {
            bench,
            version: env!("CARGO_PKG_VERSION"),
            optimised: !cfg!(debug_assertions),
            size: self.flags.size,
            rate: self.flags.rate.map(Into::into),
            duration_seconds: self.flags.duration.as_secs_f64(),
            transport: (!self.flags.in_mesh).then_some(self.flags.transport),
            subscribers: None,
            in_flight: None,
        }
    }

    fn print(&self, document: &impl Serialize, page: &str, behind: Option<String>) -> Result<(), Failure> {
        let output = self.context.output;
        if output.is_json() { output.object(document) } else { output.data(page.as_bytes()) }?;
        if let Some(behind) = behind {
            output.warn(behind);
        }
        Ok(())
    }

    fn shows_progress(&self) -> bool {
        !self.context.output.is_json() && !self.context.common.quiet && std::io::stderr().is_terminal()
    }

    fn progress(&self) -> Progress {
        Progress { shown: false, started: Instant::now(), asked: self.flags.duration.as_secs_f64() }
    }
}

/// Shows what a worker says of its progress, until it fails.
async fn watch(worker: Option<&mut Worker>, progress: &mut Progress) -> Failure {
    let Some(worker) = worker else { return std::future::pending().await };
    // Whoever is waited for at the same time has the deadline.
    let never = Instant::now() + std::time::Duration::from_secs(86_400);
    match worker.said(never, |count| progress.show(count)).await {
        Ok(_) => worker.unexpected(),
        Err(failure) => failure,
    }
}

/// The line on a terminal that tells how far it is.
struct Progress {
    shown: bool,
    started: Instant,
    asked: f64,
}

impl Progress {
    fn show(&mut self, count: u64) {
        self.shown = true;
        let seconds = self.started.elapsed().as_secs_f64().min(self.asked);
        self.write(&format!("\r\x1b[K{seconds:.1} of {:.1} s, {count} came", self.asked));
    }

    /// Leaves the line as if nothing had been there.
    fn clear(&self) {
        if self.shown {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        // It is lost on nobody.
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
