//! `pombo outbox`: the guaranteed messages that the node on this machine owes to others.

use pombo::{Outbox, OutboxMessage};
use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::table::Table;
use super::text;

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo outbox list
  pombo outbox list --json";

#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Copy, Debug, clap::Subcommand)]
enum Action {
    /// List what is under way, the oldest first: 1,000 messages at most
    List,
}

/// What is owed, as JSON.
#[derive(Serialize)]
struct Document<'a> {
    total: usize,
    bytes: u64,
    items: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Item<'a> {
    id: String,
    topic: &'a str,
    expires: String,
    recipients: Vec<Recipient<'a>>,
}

#[derive(Serialize)]
struct Recipient<'a> {
    name: &'a str,
    stored: bool,
}

pub(super) async fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let Args { action: Action::List } = args;
    let asked = async { Ok::<_, Failure>(context.running().await?.outbox().await?) };
    let outbox = context.unless_stopped(asked).await.ok_or_else(Failure::interrupted)??;
    if context.output.is_json() {
        let items = outbox.messages.iter().map(Item::from).collect();
        return context.output.object(&Document { total: outbox.total, bytes: outbox.bytes, items });
    }
    print(context, &outbox)
}

fn print(context: &Context, outbox: &Outbox) -> Result<(), Failure> {
    let output = context.output;
    if outbox.total == 0 {
        output.note("nothing is owed to anybody");
        return Ok(());
    }
    let mut table = Table::new(["ID", "TOPIC", "EXPIRES", "RECIPIENT", "STATE"]);
    for message in &outbox.messages {
        for recipient in &message.recipients {
            table.row([
                message.id.to_string(),
                text::escape(&message.topic).into_owned(),
                text::rfc3339(message.expires),
                text::escape(&recipient.name).into_owned(),
                if recipient.stored { "stored there" } else { "waits here" }.to_owned(),
            ]);
        }
    }
    output.table(&table)?;
    let bytes = text::size(usize::try_from(outbox.bytes).unwrap_or(usize::MAX));
    let all = format!("{} ({bytes})", text::count(outbox.total, "message"));
    match outbox.messages.len() {
        shown if shown < outbox.total => output.note(format_args!("{all}: the oldest {shown} are shown")),
        _ => output.note(all),
    }
    Ok(())
}

impl<'a> From<&'a OutboxMessage> for Item<'a> {
    fn from(message: &'a OutboxMessage) -> Self {
        let recipients = message.recipients.iter();
        Self {
            id: message.id.to_string(),
            topic: &message.topic,
            expires: text::rfc3339(message.expires),
            recipients: recipients.map(|one| Recipient { name: &one.name, stored: one.stored }).collect(),
        }
    }
}
