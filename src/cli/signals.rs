//! Ctrl-C and SIGTERM: the first asks the verb to finish and to leave the mesh politely, the second ends the process at once.

use std::io;
use std::time::Duration;

use pombo::Outcome;
use tokio::sync::watch;

use super::failure::Failure;
use super::progress;

/// How long a polite goodbye may take, whatever holds it up: stdout may be a pipe that nobody reads.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long what others wait for may take to be finished before that.
pub(super) const DRAIN: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Signals {
    stop: watch::Sender<bool>,
}

impl Signals {
    /// Listens from now on. After the first signal the process has that long to end.
    pub(super) fn listen(&self, patience: Duration) -> Result<(), Failure> {
        let mut arrivals = Arrivals::new()
            .map_err(|error| Failure::new(Outcome::Failed, format!("cannot listen for signals: {error}")))?;
        let stop = self.stop.clone();
        spawn(async move {
            arrivals.next().await;
            stop.send_replace(true);
            // Either way it is time to go. This does not return through `main`, which may be what is stuck.
            let _ = tokio::time::timeout(patience, arrivals.next()).await;
            progress::clear();
            std::process::exit(Outcome::Failed.exit_code().into());
        });
        Ok(())
    }

    /// Returns once a signal has asked to stop.
    pub(super) async fn stop(&self) {
        // The sender is in `self`, so this cannot fail.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one task of the command: it has to run whatever the verb is stuck in"
)]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

#[cfg(unix)]
struct Arrivals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Arrivals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Arrivals;

#[cfg(not(unix))]
impl Arrivals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
