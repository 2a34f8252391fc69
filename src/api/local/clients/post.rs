//! What a process wants of the node's guaranteed messages and durable subscriptions.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use super::super::translate::{accepted, arrived, done, durable, failed, known_at, notice, waiting, wide};
use super::{Client, PAGE, out_of_place};
use crate::api::undelivered::Own;
use crate::api::{Delivery, Durable};
use crate::error::AckError;
use crate::mesh::postman::{PostAnswer, PostCommand};
use crate::payload::Raw;
use crate::topic::RawPattern;
use crate::wire::MessageId;
use crate::wire::local::{Act, Failure, FromNode, Handed, ToNode};

/// What this node hands out to the process.
struct Out {
    open: BTreeMap<u64, Delivery<Bytes>>,
    /// Acknowledgements on their way to the disk.
    acknowledging: FuturesUnordered<BoxFuture<'static, (u64, Result<(), AckError>)>>,
}

impl Client {
    pub(super) async fn hold(
        mut self,
        name: String,
        pattern: &str,
        (window, attempts): (usize, Option<u32>),
    ) -> io::Result<()> {
        let pattern = RawPattern::parse(pattern).map_err(io::Error::other)?;
        let mut hold = self.node.subscribe(pattern).durable(name).window(window);
        if let Some(most) = attempts {
            hold = hold.attempts(most);
        }
        let held = tokio::select! {
            held = hold.into_future() => held,
            () = self.reader.end::<ToNode>() => return Ok(()),
        };
        match held {
            Ok(durable) => self.hand_out(durable).await,
            Err(error) => self.writer.send(&failed(error)).await,
        }
    }

    /// Passes on what is handed out, and what the process says of it. What it says nothing of goes back when it has gone.
    async fn hand_out(&mut self, durable: Durable<Bytes, Raw>) -> io::Result<()> {
        self.writer.send(&done()).await?;
        let mut out = Out { open: BTreeMap::new(), acknowledging: FuturesUnordered::new() };
        // Given up before what is out is, all of that is for the next holder in its order.
        let mut durable = durable;
        let Self { reader, writer, .. } = self;
        loop {
            tokio::select! {
                biased;
                Some((number, result)) = out.acknowledging.next() => writer.put(&acknowledged(number, result))?,
                record = reader.next() => match record? {
                    Some(record) => out.hear(record)?,
                    None => return Ok(()),
                },
                delivery = durable.next() => match delivery {
                    Some(delivery) => writer.put(&out.take(delivery.map_err(io::Error::other)?)?)?,
                    None => return writer.flush().await,
                },
                // What is there at once goes out together.
                written = writer.flush(), if writer.waiting() > 0 => written?,
            }
        }
    }

    /// What could not be delivered, as far as there is room for.
    pub(super) async fn notices(mut self) -> io::Result<()> {
        let Ok(Some(PostAnswer::Notices { total, notices })) = self.node.handle.post(PostCommand::Notices).await else {
            return Ok(());
        };
        self.total(total, 0)?;
        self.list(notices.into_iter().map(notice)).await
    }

    pub(super) async fn act(mut self, number: u64, recipient: &str, act: Act) -> io::Result<()> {
        let undelivered = Own { handle: Arc::clone(&self.node.handle), number, recipient: recipient.into() };
        let answer = match act {
            Act::Take => match undelivered.take().await {
                Ok(()) => done(),
                Err(error) => failed(error),
            },
            Act::Show => match undelivered.message().await {
                Ok(message) => FromNode::Message(arrived(message)?),
                Err(error) => failed(error),
            },
            Act::Retry { ttl } => match undelivered.retry(Duration::from_millis(ttl)).await {
                Ok(message) => accepted(message),
                Err(error) => failed(error),
            },
        };
        self.writer.send(&answer).await
    }

    pub(super) async fn outbox(mut self) -> io::Result<()> {
        let answer = self.node.handle.post(PostCommand::Outbox).await;
        let Ok(Some(PostAnswer::Outbox { total, bytes, messages })) = answer else { return Ok(()) };
        self.total(total, bytes)?;
        self.list(messages.into_iter().map(waiting)).await
    }

    pub(super) async fn durables(mut self) -> io::Result<()> {
        let known = async {
            self.node.settled().await?;
            self.node.durables().await
        };
        let Ok(durables) = known.await else { return Ok(()) };
        self.list(durables.into_iter().filter_map(durable)).await
    }

    pub(super) async fn remove(mut self, name: &str) -> io::Result<()> {
        let answer = match self.node.remove_durable(name).await {
            Ok(true) => done(),
            Ok(false) => failed(Failure::NoRecipient),
            Err(error) => failed(error),
        };
        self.writer.send(&answer).await
    }

    pub(super) async fn whereabouts(mut self, id: MessageId) -> io::Result<()> {
        let Ok(all) = self.node.whereabouts(id).await else { return Ok(()) };
        self.list(all.into_iter().filter_map(known_at)).await
    }

    fn total(&mut self, total: usize, bytes: u64) -> io::Result<()> {
        self.writer.put(&FromNode::Total { total: wide(total), bytes, extensions: Vec::new() })
    }

    async fn list(&mut self, records: impl Iterator<Item = FromNode>) -> io::Result<()> {
        for record in records {
            self.writer.put(&record)?;
            if self.writer.waiting() >= PAGE {
                self.writer.flush().await?;
            }
        }
        self.writer.send(&done()).await
    }
}

impl Out {
    fn take(&mut self, delivery: Delivery<Bytes>) -> io::Result<FromNode> {
        let (number, attempt) = (delivery.number(), delivery.attempt());
        let message = arrived(delivery.copy())?;
        self.open.insert(number, delivery);
        Ok(FromNode::Handed(Handed { number, attempt, message }))
    }

    fn hear(&mut self, record: ToNode) -> io::Result<()> {
        match record {
            ToNode::Acknowledge { number, .. } => {
                let acknowledged = match self.open.remove(&number) {
                    Some(delivery) => async move { (number, delivery.ack().await) }.boxed(),
                    None => async move { (number, Err(AckError::Late)) }.boxed(),
                };
                self.acknowledging.push(acknowledged);
                Ok(())
            }
            ToNode::GiveBack { number, after, .. } => {
                // What it has been told to hand out again in its own time it does when this is dropped.
                if let (Some(delivery), Some(after)) = (self.open.remove(&number), after) {
                    delivery.nack(Duration::from_millis(after));
                }
                Ok(())
            }
            ToNode::Hello { .. }
            | ToNode::Publish(_)
            | ToNode::Subscribe { .. }
            | ToNode::Request { .. }
            | ToNode::Serve { .. }
            | ToNode::Peers { .. }
            | ToNode::Watch { .. }
            | ToNode::Reply { .. }
            | ToNode::Finish { .. }
            | ToNode::Hold { .. }
            | ToNode::Notices { .. }
            | ToNode::Notice { .. }
            | ToNode::Outbox { .. }
            | ToNode::Durables { .. }
            | ToNode::Remove { .. }
            | ToNode::Where { .. } => Err(out_of_place()),
        }
    }
}

fn acknowledged(number: u64, result: Result<(), AckError>) -> FromNode {
    FromNode::Acknowledged { number, failure: result.err().map(Failure::from), extensions: Vec::new() }
}
