//! Durable subscriptions: what is published with a guarantee waits for them, and is theirs until they acknowledge it.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, UNIX_EPOCH};

use futures::Stream;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::local::{By, Holding, Out, Verdicts};
use super::subscribe::decoded;
use super::{Node, RunningNode};
use crate::error::{AckError, Closed, RecvError, SubscribeError};
use crate::mesh::event::{Answer, Command, HolderId};
use crate::mesh::postman::inbox::Handed;
use crate::mesh::postman::{PostAnswer, PostCommand, Terms, WINDOW};
use crate::message::{Message, Origin};
use crate::net::clock::Clock;
use crate::net::handle::{Handle, Registered};
use crate::payload::Encoding;
use crate::topic::{Pattern, check_name};
use crate::wire::letter::Letter;

/// A durable subscription that is to be held. Await it.
///
/// [`Subscribe::durable`](crate::Subscribe::durable) has an example.
#[must_use = "a subscription is set up only when this is awaited"]
pub struct SubscribeDurable<T, E> {
    by: By<Node, RunningNode>,
    pattern: Pattern<T, E>,
    name: String,
    /// What was asked for that a durable subscription cannot have.
    unfit: Option<&'static str>,
    terms: Terms,
}

impl<T, E: Encoding<T>> SubscribeDurable<T, E> {
    pub(super) fn new(
        by: By<Node, RunningNode>,
        pattern: Pattern<T, E>,
        name: String,
        unfit: Option<&'static str>,
    ) -> Self {
        Self { by, pattern, name, unfit, terms: Terms { window: WINDOW, attempts: None } }
    }

    /// How many messages this subscriber takes before it acknowledges the first: 64 without this, which is the most, and 4 MiB of
    /// them. Of several subscribers with one name each gets the next when it has room: those who take one at a time share evenly
    /// what takes long.
    pub fn window(mut self, messages: usize) -> Self {
        self.terms.window = messages.clamp(1, WINDOW);
        self
    }

    /// How often a message may be handed out, as often as it takes without this. One that was not acknowledged by then is not handed
    /// out again, and its sender is told ([`Reason::Poison`](crate::Reason::Poison)).
    ///
    /// What is in a subscriber's [`window`](Self::window) has been handed out, whether or not it was read.
    ///
    /// ```
    /// # async fn f(node: pombo::Node) -> Result<(), pombo::SubscribeError> {
    /// # const JOBS: pombo::Topic<String> = pombo::Topic::new("jobs.resize");
    /// let jobs = node.subscribe(JOBS).durable("resizers").window(1).attempts(5).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn attempts(mut self, most: u32) -> Self {
        self.terms.attempts = Some(most.max(1));
        self
    }

    async fn set_up(self) -> Result<Durable<T, E>, SubscribeError> {
        if let Some(unfit) = self.unfit {
            return Err(SubscribeError::Durable { reason: unfit.to_owned() });
        }
        check_name(&self.name)?;
        let source = match self.by {
            By::Own(node) => own(&node, self.name.into(), self.pattern.text(), self.terms).await?,
            By::Running(node) => Source::Running(node.hold(self.name, &self.pattern.text(), self.terms).await?),
        };
        Ok(Durable { source, types: PhantomData })
    }
}

async fn own(node: &Node, name: Arc<str>, pattern: Arc<str>, terms: Terms) -> Result<Source, SubscribeError> {
    node.settled().await?;
    let (registered, handed, answer) = node.handle.hold(name, pattern, terms).await?;
    match answer {
        Answer::Done => Ok(Source::Own { registered, handed }),
        Answer::Draining => Err(SubscribeError::Draining),
        Answer::Post(PostAnswer::Held(reason) | PostAnswer::Failed(reason)) => Err(SubscribeError::Durable { reason }),
        Answer::Post(PostAnswer::NoStore(reason)) => Err(SubscribeError::NoStore { reason }),
        Answer::TooMany { .. }
        | Answer::Reply { .. }
        | Answer::Failed(_)
        | Answer::Providers(_)
        | Answer::Confirmed(_)
        | Answer::Status(_)
        | Answer::Post(_) => Err(Closed.into()),
    }
}

impl<T: 'static, E: Encoding<T> + 'static> IntoFuture for SubscribeDurable<T, E> {
    type Output = Result<Durable<T, E>, SubscribeError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.set_up())
    }
}

impl<T, E> fmt::Debug for SubscribeDurable<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscribeDurable").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A stream of the messages of a durable subscription, each to be acknowledged. Dropping it gives back what it has; the
/// subscription stays.
///
/// At most 64 messages are out at a time, and 4 MiB of them: who acknowledges none gets no more.
pub struct Durable<T, E> {
    source: Source,
    types: PhantomData<fn() -> (T, E)>,
}

/// Where messages are handed out.
enum Source {
    Own {
        registered: Registered<HolderId>,
        handed: mpsc::Receiver<Handed>,
    },
    /// By a node that runs beside this process.
    Running(Holding),
}

impl<T, E: Encoding<T>> Stream for Durable<T, E> {
    type Item = Result<Delivery<T>, RecvError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let (registered, handed) = match &mut self.source {
                Source::Own { registered, handed } => (registered, handed),
                Source::Running(holding) => {
                    return holding.poll_next(context).map(|out| out.map(|out| lent::<T, E>(out)));
                }
            };
            let Some(handed) = ready!(handed.poll_recv(context)) else { return Poll::Ready(None) };
            let receipt = Receipt { desk: Some(By::Own(Arc::clone(&registered.handle))), number: handed.number };
            // One that is not whole goes back with its receipt.
            let Ok(letter) = Letter::open(&handed.sealed) else { continue };
            // It may have waited here for longer than it had.
            if letter.expires <= Clock::wall().0 {
                continue;
            }
            return Poll::Ready(Some(delivery::<T, E>(handed, letter, receipt)));
        }
    }
}

fn delivery<T, E: Encoding<T>>(handed: Handed, letter: Letter, receipt: Receipt) -> Result<Delivery<T>, RecvError> {
    let Letter { id, topic, content_type, headers, time, payload, .. } = letter;
    let payload = match E::decode(&payload) {
        Ok(payload) => payload,
        Err(reason) => return Err(RecvError::Decode { topic, source_peer: handed.from, reason }),
    };
    let origin = Arc::new(Origin { topic, source: handed.from, content_type });
    let time = UNIX_EPOCH + Duration::from_micros(time);
    let message = Message { origin, id, time, headers, payload };
    Ok(Delivery { message, attempt: handed.attempt, receipt })
}

impl<T, E> fmt::Debug for Durable<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = match &self.source {
            Source::Own { registered, .. } => Some(registered.id),
            Source::Running(_) => None,
        };
        f.debug_struct("Durable").field("id", &id).finish_non_exhaustive()
    }
}

/// What a node hands out that runs beside this process.
fn lent<T, E: Encoding<T>>(out: Out) -> Result<Delivery<T>, RecvError> {
    let Out { number, attempt, message, verdicts } = out;
    let receipt = Receipt { desk: Some(By::Running(verdicts)), number };
    Ok(Delivery { message: decoded::<T, E>(message)?, attempt, receipt })
}

/// A message of a durable subscription, to be acknowledged. Dereferences to the [`Message`].
///
/// Dropped without a word, it is handed out again, after 100 ms at first and up to a minute later.
pub struct Delivery<T> {
    message: Message<T>,
    attempt: u32,
    receipt: Receipt,
}

/// Gives a letter back when it is dropped.
struct Receipt {
    /// Where that is said. None when something was said of it.
    desk: Option<By<Arc<Handle>, Verdicts>>,
    number: u64,
}

impl Receipt {
    fn give_back(&mut self, after: Option<Duration>) {
        match self.desk.take() {
            Some(By::Own(handle)) => {
                let back = PostCommand::GiveBack { number: self.number, after: after.map(Into::into) };
                // A node that is gone has it on its disk.
                let _gone = handle.tell(Command::Post(back));
            }
            Some(By::Running(verdicts)) => verdicts.give_back(self.number, after),
            None => {}
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.give_back(None);
    }
}

impl<T> Delivery<T> {
    /// Whether it may have been handed out before: it was, or this node has been started since it came.
    pub fn redelivered(&self) -> bool {
        self.attempt > 1
    }

    /// Which time it is handed out, 1 for the first: over all nodes that share the subscription. That it may have been handed out
    /// before the node was started counts as once.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// It was handled, and is not handed out again. Returns when that is on this node's disk.
    ///
    /// # Errors
    ///
    /// If it could not be written, or the node is gone: then the message is handed out again. If its time has been over for
    /// so long that it is forgotten.
    pub async fn ack(mut self) -> Result<(), AckError> {
        let number = self.receipt.number;
        let said = match &self.receipt.desk {
            None => return Ok(()),
            Some(By::Running(verdicts)) => verdicts.acknowledge(number).await.ok_or(Closed)?,
            Some(By::Own(handle)) => match handle.post(PostCommand::Acknowledge { number }).await? {
                Some(PostAnswer::Done) => Ok(()),
                Some(PostAnswer::Late) => Err(AckError::Late),
                Some(PostAnswer::Failed(reason)) => Err(AckError::NotStored { reason }),
                Some(_) | None => return Err(Closed.into()),
            },
        };
        self.receipt.desk = None;
        said
    }

    /// By which it is acknowledged at the node.
    pub(super) fn number(&self) -> u64 {
        self.receipt.number
    }

    /// It was not handled, and is handed out again after that time.
    pub fn nack(mut self, delay: Duration) {
        self.receipt.give_back(Some(delay));
    }
}

impl Delivery<bytes::Bytes> {
    /// The message, for a process that is to handle it.
    pub(super) fn copy(&self) -> Message<bytes::Bytes> {
        self.message.clone()
    }
}

impl<T> Deref for Delivery<T> {
    type Target = Message<T>;

    fn deref(&self) -> &Message<T> {
        &self.message
    }
}

impl<T: fmt::Debug> fmt::Debug for Delivery<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("message", &self.message)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
