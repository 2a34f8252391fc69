//! `pombo where`: what the node on this machine and its neighbours know of a guaranteed message.

use pombo::{MessageId, Outcome, Stage, Whereabouts};
use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::table::Table;
use super::{json, text, undelivered};

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo where 5b1f0c9a3d2e4f60000000000000002a
  pombo where 5b1f0c9a3d2e4f60000000000000002a --json";

#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Args {
    /// The message's id, as `pub --guaranteed` prints it
    id: MessageId,
}

#[derive(Serialize)]
struct Item<'a> {
    node: &'a str,
    peer: String,
    recipient: &'a str,
    stage: &'static str,
    /// Of one that was given to a node: which.
    to: Option<String>,
    /// Of one that is undelivered: why.
    reason: Option<&'static str>,
    time: String,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let asked = async { Ok::<_, Failure>(context.running().await?.whereabouts(args.id).await?) };
    let known = context.unless_stopped(asked).await.ok_or_else(Failure::interrupted)??;
    if known.is_empty() {
        let failure = Failure::new(Outcome::Nobody, format!("nobody here knows of a message {}", args.id));
        return Err(
            failure.hint("what was delivered is forgotten by its sender, and by its recipient when its time is over")
        );
    }
    if context.output.is_json() {
        return context.output.object(&json::Items { items: known.iter().map(Item::from).collect() });
    }
    let mut table = Table::new(["SINCE", "NODE", "RECIPIENT", "STAGE"]);
    for one in &known {
        let node = |peer| known.iter().find(|other| other.node == peer).map(|other| other.node_name.clone());
        let called = |peer| node(peer).unwrap_or_else(|| text::short(peer));
        let stage = if let Stage::Given(peer) = one.stage {
            format!("given to {}", called(peer))
        } else if let Stage::Kept(peer) = one.stage {
            format!("a copy for {}", called(peer))
        } else {
            one.stage.to_string()
        };
        table.row([
            text::rfc3339(one.time),
            text::escape(&one.node_name).into_owned(),
            text::escape(&one.recipient).into_owned(),
            text::escape(&stage).into_owned(),
        ]);
    }
    context.output.table(&table)
}

impl<'a> From<&'a Whereabouts> for Item<'a> {
    fn from(known: &'a Whereabouts) -> Self {
        let (stage, to, reason) = match known.stage {
            Stage::Accepted => ("accepted", None, None),
            Stage::Given(peer) => ("given", Some(peer.to_string()), None),
            Stage::Stored => ("stored", None, None),
            Stage::Processed => ("processed", None, None),
            Stage::Poison => ("poison", None, None),
            Stage::Kept(peer) => ("kept", Some(peer.to_string()), None),
            Stage::Undelivered(reason) => ("undelivered", None, Some(undelivered::word(reason))),
            _ => ("other", None, None),
        };
        Self {
            node: &known.node_name,
            peer: known.node.to_string(),
            recipient: &known.recipient,
            stage,
            to,
            reason,
            time: text::rfc3339(known.time),
        }
    }
}
