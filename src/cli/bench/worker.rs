//! One process of a benchmark: it takes an order from stdin, has a node of its own, and says on stdout what came of it.
//! It ends when its stdin does, so that nothing is left when whoever started it has gone.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use pombo::{Node, Outcome};
use tokio::sync::{mpsc, watch};

use super::clock::Cost;
use super::plan::{Order, Role, Said, Word};
use super::{calls, traffic};
use crate::cli::failure::Failure;

/// How long the goodbye may take, whatever holds it up.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often progress is told.
const PAUSE: u64 = 200_000_000;

/// A worker's line to whoever started it.
pub(super) struct Desk {
    words: mpsc::Receiver<Word>,
    gone: watch::Receiver<bool>,
    progress: bool,
    told: u64,
    before: Cost,
}

pub(super) async fn run() -> Result<(), Failure> {
    let order: Order = order()?;
    let mut desk = Desk::open(order.progress)?;
    let worked = match Node::builder().config(order.config.clone()).start().await {
        Ok(node) => {
            let worked = work(&node, &order, &mut desk).await;
            node.leave().await;
            worked
        }
        Err(error) => Err(error.into()),
    };
    if let Err(failure) = worked {
        // That process tells the user, and how all of it ended.
        desk.say(&Said::Failed { exit: failure.outcome().exit_code(), message: failure.message().to_owned() });
    }
    Ok(())
}

fn order() -> Result<Order, Failure> {
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line).map_err(serde_json::Error::io);
    let order = read.and_then(|_| serde_json::from_str(&line));
    order.map_err(|error| {
        Failure::new(Outcome::Usage, format!("no order came: {error}"))
            .hint("`pombo bench pubsub` starts what it needs")
    })
}

async fn work(node: &Node, order: &Order, desk: &mut Desk) -> Result<(), Failure> {
    let mut gone = desk.gone.clone();
    let role = async {
        match order.role {
            Role::Publisher { subscribers } => traffic::publish(node, order, subscribers, desk).await?,
            Role::Subscriber => traffic::subscribe(node, order, desk).await?,
            Role::Asker { in_flight } => calls::ask(node, order, in_flight, desk).await?,
            Role::Provider { room } => calls::serve(node, order, room, desk).await?,
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        failed = role => failed,
        _ = gone.wait_for(|gone| *gone) => Ok(()),
    }
}

impl Desk {
    /// Listens from now on.
    fn open(progress: bool) -> Result<Self, Failure> {
        let (sender, words) = mpsc::channel(8);
        let (end, gone) = watch::channel(false);
        let listen = move || {
            for line in io::stdin().lines() {
                let word = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                if word.is_none_or(|word| sender.blocking_send(word).is_err()) {
                    break;
                }
            }
            end.send_replace(true);
            thread::park_timeout(PATIENCE);
            // Whatever this process is stuck in, nobody wants to know any more.
            std::process::exit(Outcome::Failed.exit_code().into());
        };
        let thread = thread::Builder::new().name("listener".to_owned()).spawn(listen);
        thread.map_err(|error| Failure::new(Outcome::Failed, format!("cannot start threads: {error}")))?;
        Ok(Self { words, gone, progress, told: 0, before: Cost::default() })
    }

    #[expect(clippy::unused_self, reason = "who has no desk says nothing")]
    pub(super) fn say(&self, said: &Said) {
        let mut line = serde_json::to_string(said).unwrap_or_default();
        line.push('\n');
        let mut stdout = io::stdout().lock();
        // Who does not listen any more has gone, which ends this process anyway.
        let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
    }

    /// Says how far it is, if that is wanted, and not too often.
    pub(super) fn progress(&mut self, count: u64, now: u64) {
        if self.progress && now.saturating_sub(self.told) >= PAUSE {
            self.told = now;
            self.say(&Said::Progress { count });
        }
    }

    /// What is used from now on is this role's cost.
    pub(super) fn begin(&mut self) {
        self.before = Cost::now();
    }

    pub(super) async fn word(&mut self) -> Result<Word, Failure> {
        self.words.recv().await.ok_or_else(Failure::interrupted)
    }

    pub(super) async fn go(&mut self) -> Result<(), Failure> {
        self.expect(Word::Go).await?;
        self.begin();
        Ok(())
    }

    /// Waits for the end, and says what it cost to come there.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        self.expect(Word::Finish).await?;
        self.say(&Said::Cost(Cost::now().since(self.before)));
        Ok(())
    }

    async fn expect(&mut self, expected: Word) -> Result<(), Failure> {
        match self.word().await? {
            word if word == expected => Ok(()),
            word => Err(Failure::new(Outcome::Failed, format!("{word:?} came instead of {expected:?}"))),
        }
    }
}
