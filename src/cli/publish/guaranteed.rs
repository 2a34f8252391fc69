//! `pombo pub --guaranteed`: has the node that runs on this machine keep what is published until it is delivered.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use pombo::{Accepted, MessageId, PublishError, RunningNode};
use serde::Serialize;

use super::{BYTES_IN_FLIGHT, Bodies, IN_FLIGHT, Post};
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::progress::Meter;
use crate::cli::text;

/// What has been accepted so far.
pub(super) struct Ledger {
    output: Output,
    topic: String,
    each: bool,
    meter: Meter,
    pub(super) messages: usize,
    bytes: usize,
    recipients: BTreeSet<String>,
    /// How many copies the one with the fewest has.
    copies: usize,
    last: Option<String>,
    /// How many have fewer copies than were wanted, and what was said of the last of them.
    short: usize,
    shortage: Option<PublishError>,
}

/// A message that was accepted, as JSON.
#[derive(Serialize)]
struct Receipt<'a> {
    topic: &'a str,
    id: String,
    bytes: usize,
    /// The durable subscriptions that it will be delivered to, or told of.
    recipients: Vec<String>,
    /// How many other nodes have a copy.
    copies: usize,
}

/// A message that is on the node's disk, whether or not it has the copies that were wanted.
struct Kept {
    bytes: usize,
    id: MessageId,
    recipients: Vec<String>,
    copies: usize,
    shortage: Option<PublishError>,
}

impl Ledger {
    pub(super) fn new(output: Output, topic: &str, each: bool) -> Self {
        let (topic, meter) = (topic.to_owned(), Meter::new(output));
        Self {
            output,
            topic,
            each,
            meter,
            messages: 0,
            bytes: 0,
            recipients: BTreeSet::new(),
            copies: usize::MAX,
            last: None,
            short: 0,
            shortage: None,
        }
    }

    fn enter(&mut self, kept: Kept) -> Result<(), Failure> {
        let Kept { bytes, id, recipients, copies, shortage } = kept;
        self.messages += 1;
        self.bytes += bytes;
        self.copies = self.copies.min(copies);
        self.short += usize::from(shortage.is_some());
        self.shortage = shortage.or(self.shortage.take());
        if self.output.is_json() {
            return self.output.object(&Receipt { topic: &self.topic, id: id.to_string(), bytes, recipients, copies });
        }
        if self.each {
            let (what, copies) = (text::size(bytes), with_copies(copies));
            let recipients = recipients.join(", ");
            self.output.note(format_args!("kept {what} on {} for {recipients}{copies}, id {id}", self.topic));
        } else {
            self.meter.show(|| format!("kept {} on {}", text::count(self.messages, "message"), self.topic));
        }
        self.last = Some(id.to_string());
        self.recipients.extend(recipients);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.sum_up();
        match self.shortage.take() {
            Some(error) if self.short == 1 => Err(error.into()),
            Some(error) => {
                let messages = text::count(self.short, "message");
                Err(Failure::from(error).hint(format!("{messages} have too few copies; this is the last of them")))
            }
            None => Ok(()),
        }
    }

    fn sum_up(&self) {
        let Some(last) = self.last.as_ref().filter(|_| !self.each) else { return };
        let recipients: Vec<_> = self.recipients.iter().map(String::as_str).collect();
        let (size, topic, recipients) = (text::size(self.bytes), &self.topic, recipients.join(", "));
        let copies = with_copies(self.copies);
        match self.messages {
            1 => self.output.note(format_args!("kept {size} on {topic} for {recipients}{copies}, id {last}")),
            many => {
                let messages = text::count(many, "message");
                self.output.note(format_args!("kept {messages} ({size}) on {topic} for {recipients}{copies}"));
            }
        }
    }
}

fn with_copies(copies: usize) -> String {
    match copies {
        0 => String::new(),
        1 => ", with a copy".to_owned(),
        many => format!(", with {many} copies"),
    }
}

impl Post<'_> {
    /// Has many under way, in the order of the bodies: they go to the disk together. The first goes alone, so that they take one way.
    pub(super) async fn keep(
        &self,
        node: &RunningNode,
        mut bodies: Bodies,
        ledger: &mut Ledger,
    ) -> Result<(), Failure> {
        let in_flight = if self.args.every.is_some() { 1 } else { IN_FLIGHT };
        let mut under_way = FuturesOrdered::new();
        let (mut held, mut more) = (0, true);
        while more || !under_way.is_empty() {
            let in_flight = if ledger.messages == 0 { 1 } else { in_flight };
            let room = more && under_way.len() < in_flight && held < BYTES_IN_FLIGHT;
            tokio::select! {
                Some(kept) = under_way.next() => {
                    let kept: Kept = kept?;
                    held -= kept.bytes;
                    ledger.enter(kept)?;
                }
                body = bodies.next(), if room => {
                    // What cannot be read ends it, but in its turn: those before it are still to be confirmed.
                    more = matches!(body, Some(Ok(_)));
                    let Some(body) = body else { continue };
                    held += body.as_ref().map_or(0, Bytes::len);
                    under_way.push_back(async move { self.keep_one(node, body?).await });
                }
            }
        }
        if ledger.messages == 0 {
            self.context.output.note("nothing to publish: the input is empty");
        }
        ledger.finish()
    }

    async fn keep_one(&self, node: &RunningNode, body: Bytes) -> Result<Kept, Failure> {
        let mut publish = node.publish(self.topic.clone(), &body).headers(self.headers.clone());
        if let Some(content_type) = &self.args.content_type {
            publish = publish.content_type(content_type.as_str());
        }
        let to = self.args.to.iter().map(String::as_str);
        let mut guaranteed = publish.guaranteed().to(to).copies(self.args.copies);
        if let Some(ttl) = self.args.ttl {
            guaranteed = guaranteed.ttl(ttl);
        }
        let bytes = body.len();
        match guaranteed.await {
            Ok(Accepted { id, recipients, copies, .. }) => Ok(Kept { bytes, id, recipients, copies, shortage: None }),
            Err(error) => {
                let PublishError::TooFewCopies { id, recipients, copies, .. } = &error else {
                    return Err(self.not_kept(error));
                };
                let (id, recipients, copies) = (*id, recipients.clone(), *copies);
                Ok(Kept { bytes, id, recipients, copies, shortage: Some(error) })
            }
        }
    }

    fn not_kept(&self, error: PublishError) -> Failure {
        let nobody = matches!(error, PublishError::NoRecipient { .. });
        let (failure, flags) = (Failure::from(error), self.context.common.mesh_flags());
        if !nobody {
            return failure;
        }
        failure
            .hint(format!("`pombo subscriptions list{flags}` lists those that are known; --to NAME names one"))
            .hint(format!("pombo sub {}{flags} --durable NAME", text::shell(&self.args.topic)))
    }
}
