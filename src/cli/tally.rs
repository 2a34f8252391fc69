//! What `pombo pub` says about what it published: who took it over, and who is there to hear it.

use pombo::{Node, Published};
use serde::Serialize;

use super::failure::Failure;
use super::output::Output;
use super::text;

/// What has been published so far, and how it is told: each message, or all of them at the end.
pub(super) struct Tally {
    output: Output,
    topic: String,
    each: bool,
    messages: usize,
    bytes: usize,
    last: Option<Published>,
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

impl Tally {
    /// For messages on that topic, each of which is told, or all of them at the end.
    pub(super) fn new(output: Output, topic: &str, each: bool) -> Self {
        Self { output, topic: topic.to_owned(), each, messages: 0, bytes: 0, last: None }
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
    pub(super) async fn add(&mut self, node: &Node, bytes: usize, published: Published) -> Result<(), Failure> {
        self.messages += 1;
        self.bytes += bytes;
        if self.output.is_json() {
            let Published { id, peers, listeners, local, .. } = published;
            let id = id.to_string();
            self.output.object(&Receipt { topic: &self.topic, id, bytes, peers, listeners, local })?;
        } else if self.each {
            self.tell(node, &text::size(bytes), &published).await?;
        }
        self.last = Some(published);
        Ok(())
    }

    /// That was all.
    pub(super) async fn finish(&self, node: &Node) -> Result<(), Failure> {
        let Some(last) = self.last.as_ref().filter(|_| !self.each && !self.output.is_json()) else { return Ok(()) };
        let what = match self.messages {
            1 => text::size(self.bytes),
            many => format!("{} ({})", text::count(many, "message"), text::size(self.bytes)),
        };
        self.tell(node, &what, last).await
    }

    async fn tell(&self, node: &Node, what: &str, published: &Published) -> Result<(), Failure> {
        let topic = &self.topic;
        let Published { peers, listeners, local, .. } = *published;
        if listeners + local > 0 {
            self.output.note(format_args!("published {what} on {topic}: {}", reached(peers, listeners, local)));
            return Ok(());
        }
        match node.status().await?.peers.len() {
            0 => {
                self.output.note(format_args!("published {what} on {topic}: nobody heard it, no other node was found"));
                self.output
                    .hint("start `pombo node` or `pombo sub` in another terminal; across machines, all with --open");
            }
            peers => {
                let mesh = text::count(peers, "peer");
                self.output
                    .note(format_args!("published {what} on {topic}: nobody is subscribed ({mesh} in the mesh)"));
                self.output.hint("`pombo topics` lists what is; --min-peers 1 --timeout 5s waits");
            }
        }
        Ok(())
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
