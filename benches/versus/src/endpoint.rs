//! One process under measurement: told what to be on its command line, it says on stdout when it is ready and what came of
//! it, and ends when its stdin does.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc;

use serde::{Deserialize, Serialize};

use crate::load::{Account, Called, Load, Sent, Sink};
use crate::{System, clock, systems};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What a process is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) system: System,
    pub(crate) role: Role,
    pub(crate) load: Load,
    /// Messages are on disk before they are confirmed, and acknowledged.
    pub(crate) guaranteed: bool,
    /// Of the server or broker; where each subscriber listens for itself, there is one for each.
    pub(crate) ports: Vec<u16>,
    /// Which of the subscribers this is.
    pub(crate) index: usize,
    pub(crate) in_flight: usize,
    /// A directory for keys and certificates.
    pub(crate) scratch: PathBuf,
}

impl Spec {
    pub(crate) fn port(&self) -> u16 {
        self.ports.first().copied().unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// To so many.
    Publisher(usize),
    Subscriber,
    Server,
    Client,
}

/// What a process says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    Ready,
    Sent(Sent),
    Heard(Account, Option<u64>),
    Called(Called, Option<u64>),
    /// The most memory it had.
    Peak(Option<u64>),
}

/// How a process is told when to go on.
#[derive(Debug)]
pub(crate) struct Gate(mpsc::Receiver<()>);

impl Gate {
    /// Says that it is ready, and waits for the word, on this thread.
    pub(crate) fn pass(&self) -> Result<()> {
        say(&Said::Ready);
        Ok(self.0.recv()?)
    }
}

pub(crate) fn say(said: &Said) {
    let mut line = serde_json::to_string(said).unwrap_or_default();
    line.push('\n');
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
}

pub(crate) fn run(spec: &str) -> Result<()> {
    let spec: Spec = serde_json::from_str(spec)?;
    let (go, gate) = mpsc::sync_channel(1);
    let sink = Sink::new(spec.load);
    let noted = sink.clone();
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(io::Result::ok) {
            match line.as_str() {
                "go" => drop(go.send(())),
                "stop" => heard(&noted),
                _ => say(&Said::Peak(clock::peak_memory("self"))),
            }
        }
        std::process::exit(0);
    });
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if spec.system == System::Libp2pStream {
        // With more, chance decides which of them finds how much to send together, and with it on twice the speed or half.
        runtime.worker_threads(1);
    }
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        match spec.role {
            Role::Publisher(subscribers) => systems::publish(&spec, subscribers, &Gate(gate)).await,
            Role::Subscriber => {
                if spec.guaranteed {
                    systems::consume(&spec, &sink).await?;
                } else {
                    systems::subscribe(&spec, sink.clone()).await?;
                }
                heard(&sink);
                Ok(())
            }
            Role::Server => systems::serve(&spec).await,
            Role::Client => {
                let called = if spec.guaranteed {
                    systems::commit(&spec, &Gate(gate)).await?
                } else {
                    systems::call(&spec, &Gate(gate)).await?
                };
                say(&Said::Called(called, clock::peak_memory("self")));
                Ok(())
            }
        }?;
        // Until stdin ends: others may still need this one.
        std::future::pending().await
    })
}

/// Says what a subscriber has heard so far.
pub(crate) fn heard(sink: &Sink) {
    say(&Said::Heard(sink.account(), clock::peak_memory("self")));
}
