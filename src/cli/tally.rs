//! What `pombo pub` says about what it published: who took it over, and who is there to hear it.

use pombo::Published;
use serde::Serialize;

use super::bus::Bus;
use super::context::Context;
use super::failure::Failure;
use super::output::Output;
use super::progress::Meter;
use super::text;

/// What has been published so far, and how it is told: each message, or all of them at the end.
pub(super) struct Tally<'a> {
    context: &'a Context,
    output: Output,
    topic: String,
    each: bool,
    messages: usize,
    bytes: usize,
    last: Option<Published>,
    meter: Meter,
    /// Whether it was said what to do when nobody listens. Once is enough.
    hinted: bool,
}

/// A message that was published, as JSON.
#[derive(Serialize)]
struct Receipt<'a> {
    topic: &'a str,
    id: String,
    bytes: usize,
    /// Nodes that took it over.
    peers: usize,
    /// Other nodes that subscribe to the topic.
    listeners: usize,
    /// Subscribers in this very process.
    local: usize,
}

impl<'a> Tally<'a> {
    /// For messages on that topic, each of which is told, or all of them at the end.
    pub(super) fn new(context: &'a Context, topic: &str, each: bool) -> Self {
        let (output, topic) = (context.output, topic.to_owned());
        let meter = Meter::new(output);
        Self { context, output, topic, each, messages: 0, bytes: 0, last: None, meter, hinted: false }
    }

    /// How many there were.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// Says that there was nothing to publish.
    pub(super) fn nothing(&self) {
        self.output.note("nothing to publish: the input is empty");
    }

    /// One more.
    pub(super) async fn add(&mut self, bus: &Bus, bytes: usize, published: Published) -> Result<(), Failure> {
        self.messages += 1;
        self.bytes += bytes;
        if self.output.is_json() {
            let Published { id, peers, listeners, local, .. } = published;
            let id = id.to_string();
            self.output.object(&Receipt { topic: &self.topic, id, bytes, peers, listeners, local })?;
        } else if self.each {
            self.tell(bus, &text::size(bytes), &published).await?;
        } else {
            self.meter.show(|| format!("published {} on {}", said(self.messages, self.bytes), self.topic));
        }
        self.last = Some(published);
        Ok(())
    }

    /// That was all.
    pub(super) async fn finish(&mut self, bus: &Bus) -> Result<(), Failure> {
        let Some(last) = self.last.take().filter(|_| !self.each && !self.output.is_json()) else { return Ok(()) };
        self.tell(bus, &said(self.messages, self.bytes), &last).await
    }

    async fn tell(&mut self, bus: &Bus, what: &str, published: &Published) -> Result<(), Failure> {
        let topic = &self.topic;
        let Published { peers, listeners, local, .. } = *published;
        if listeners + local > 0 {
            self.output.note(format_args!("published {what} on {topic}: {}", reached(peers, listeners, local)));
            return Ok(());
        }
        let (why, hint) = match bus.peers().await?.len() {
            0 => ("nobody heard it, no other node was found".to_owned(), self.context.lonely()),
            peers => {
                let flags = self.context.common.mesh_flags();
                let hint = format!("`pombo topics{flags}` lists what is; --min-peers 1 --timeout 5s waits");
                (format!("nobody is subscribed ({} in the mesh)", text::count(peers, "peer")), hint)
            }
        };
        self.output.note(format_args!("published {what} on {topic}: {why}"));
        if !std::mem::replace(&mut self.hinted, true) {
            self.output.hint(hint);
        }
        Ok(())
    }
}

/// What was published: `2 B`, `3 messages (6 B)`.
fn said(messages: usize, bytes: usize) -> String {
    match messages {
        1 => text::size(bytes),
        many => format!("{} ({})", text::count(many, "message"), text::size(bytes)),
    }
}

fn reached(peers: usize, listeners: usize, local: usize) -> String {
    let subscribe = if listeners == 1 { "subscribes" } else { "subscribe" };
    format!(
        "taken over by {}, {} {subscribe}, {}",
        text::count(peers, "peer"),
        text::count(listeners, "peer"),
        text::count(local, "local subscriber")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_counts_peers_and_local_subscribers() {
        assert_eq!(reached(1, 2, 0), "taken over by 1 peer, 2 peers subscribe, 0 local subscribers");
        assert_eq!(reached(3, 1, 1), "taken over by 3 peers, 1 peer subscribes, 1 local subscriber");
    }
}
