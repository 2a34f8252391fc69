//! `pombo undelivered`: the guaranteed messages that could not be delivered, and what is done about them.

use std::time::Duration;

use bytes::Bytes;
use pombo::{Message, MessageId, Outcome, Reason, RunningNode, Undelivered};
use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::json::{self, Data, Header};
use super::output;
use super::table::Table;
use super::{parse, text};

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo undelivered list
  pombo undelivered show 5b1f0c9a3d2e4f60000000000000002a
  pombo undelivered retry --all --ttl 2h
  pombo undelivered drop 5b1f0c9a3d2e4f60000000000000002a --to billing";

/// As long as a message is delivered for that is published without a time.
const TTL: &str = "1d";

#[derive(clap::Args, Clone, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// List them, those first that became known first: 1,000 at most
    List,
    /// Print what is known of a message, and its body
    Show(Which),
    /// Publish them again for those who did not get them, with ids of their own
    Retry {
        #[command(flatten)]
        which: Which,
        /// How long that may take this time
        #[arg(long, value_name = "TIME", default_value = TTL, value_parser = parse::duration)]
        ttl: Duration,
    },
    /// Take note of them: they are forgotten
    Drop(Which),
}

#[derive(clap::Args, Clone, Debug)]
struct Which {
    /// The message's id
    #[arg(required_unless_present = "all")]
    id: Option<MessageId>,
    /// All of them
    #[arg(long, conflicts_with = "id")]
    all: bool,
    /// Only for this recipient
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
}

/// A message that one recipient did not get, as JSON.
#[derive(Serialize)]
struct Item<'a> {
    id: String,
    topic: &'a str,
    recipient: &'a str,
    reason: &'static str,
    time: String,
    expires: String,
    offers: u32,
    stored: Option<Stored>,
}

#[derive(Serialize)]
struct Stored {
    peer: String,
    since: String,
}

/// The same, with the message.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    item: Item<'a>,
    published: String,
    content_type: &'a str,
    headers: Vec<Header<'a>>,
    #[serde(flatten)]
    data: Data<'a>,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let work = async {
        let node = context.running().await?;
        match args.action {
            Action::List => list(context, &node).await,
            Action::Show(which) => show(context, which.of(&node).await?).await,
            Action::Retry { which, ttl } => retry(context, which.of(&node).await?, ttl).await,
            Action::Drop(which) => forget(context, which.of(&node).await?).await,
        }
    };
    context.unless_stopped(work).await.ok_or_else(Failure::interrupted)?
}

impl Which {
    /// Those that are meant. One at least.
    async fn of(&self, node: &RunningNode) -> Result<Vec<Undelivered>, Failure> {
        let notices = node.notices().await?;
        let is_meant = |one: &Undelivered| {
            self.id.is_none_or(|id| one.id == id) && self.to.as_ref().is_none_or(|to| one.recipient == *to)
        };
        let meant: Vec<_> = notices.notices.into_iter().filter(is_meant).collect();
        if meant.is_empty() {
            let what = match self.id {
                Some(id) => format!("no undelivered message {id}"),
                None => "no undelivered message".to_owned(),
            };
            let to = self.to.as_ref().map(|to| format!(" for {}", text::escape(to))).unwrap_or_default();
            let failure = Failure::new(Outcome::Rejected, format!("there is {what}{to}"));
            return Err(failure.hint("`pombo undelivered list` lists them"));
        }
        Ok(meant)
    }
}

async fn list(context: &Context, node: &RunningNode) -> Result<(), Failure> {
    let (output, notices) = (context.output, node.notices().await?);
    if output.is_json() {
        return output.object(&json::Items { items: notices.notices.iter().map(Item::from).collect() });
    }
    if notices.total == 0 {
        output.note("nothing is undelivered");
        return Ok(());
    }
    let mut table = Table::new(["ID", "TOPIC", "RECIPIENT", "GIVEN UP", "REASON"]);
    for one in &notices.notices {
        table.row([
            one.id.to_string(),
            text::escape(&one.topic).into_owned(),
            text::escape(&one.recipient).into_owned(),
            text::rfc3339(one.time),
            one.reason.to_string(),
        ]);
    }
    output.table(&table)?;
    if notices.total > notices.notices.len() {
        output.note(format_args!("{} of {} are shown", notices.notices.len(), notices.total));
    }
    Ok(())
}

async fn show(context: &Context, meant: Vec<Undelivered>) -> Result<(), Failure> {
    let output = context.output;
    for one in &meant {
        let message = one.message().await?;
        if output.is_json() {
            output.object(&Shown::of(one, &message))?;
            continue;
        }
        let mut lines = vec![
            ("id", one.id.to_string()),
            ("topic", one.topic.clone()),
            ("recipient", one.recipient.clone()),
            ("published", text::rfc3339(message.time())),
            ("expired", text::rfc3339(one.expires)),
            ("given up", format!("{}: {}", text::rfc3339(one.time), one.reason)),
            ("offered", times(one.offers)),
        ];
        if let Some((peer, since)) = one.stored {
            lines.push(("stored", format!("{} by {peer}", text::rfc3339(since))));
        }
        lines.push(("type", message.content_type().to_owned()));
        lines.extend(message.headers().iter().map(|(name, value)| ("header", format!("{name}: {value}"))));
        for (label, value) in lines {
            let label = output.paint(output::FAINT, format_args!("{label:<10}"));
            output.line(format_args!("{label} {}", text::escape(&value)))?;
        }
        let payload: &Bytes = &message;
        output.line(format_args!("\n{}", text::answer(payload)))?;
    }
    Ok(())
}

fn times(offers: u32) -> String {
    match offers {
        0 => "never since the node started".to_owned(),
        1 => "once since the node started".to_owned(),
        many => format!("{many} times since the node started"),
    }
}

async fn retry(context: &Context, meant: Vec<Undelivered>, ttl: Duration) -> Result<(), Failure> {
    for (done, one) in meant.into_iter().enumerate() {
        let (old, topic, recipient) = (one.id, one.topic.clone(), one.recipient.clone());
        let accepted = match one.retry(ttl).await {
            Err(error) if done == 0 => return Err(error.into()),
            Err(error) => {
                return Err(Failure::from(error).after(format_args!("{} published", text::count(done, "message"))));
            }
            Ok(accepted) => accepted,
        };
        if context.output.is_json() {
            context.output.object(&Retried {
                id: accepted.id.to_string(),
                instead_of: old.to_string(),
                topic,
                recipient,
            })?;
        } else {
            context.output.note(format_args!("published {old} again for {recipient}, id {}", accepted.id));
        }
    }
    Ok(())
}

/// A message that was published again, as JSON.
#[derive(Serialize)]
struct Retried {
    id: String,
    instead_of: String,
    topic: String,
    recipient: String,
}

/// A notice that is forgotten, as JSON.
#[derive(Serialize)]
struct Dropped {
    id: String,
    recipient: String,
}

async fn forget(context: &Context, meant: Vec<Undelivered>) -> Result<(), Failure> {
    let number = meant.len();
    for one in meant {
        let dropped = Dropped { id: one.id.to_string(), recipient: one.recipient.clone() };
        one.take().await?;
        if context.output.is_json() {
            context.output.object(&dropped)?;
        }
    }
    if !context.output.is_json() {
        context.output.note(format_args!("{} forgotten", text::count(number, "notice")));
    }
    Ok(())
}

/// A reason in one word.
pub(super) fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::NeverReached => "never-reached",
        Reason::Stored => "stored",
        Reason::Refused => "refused",
        Reason::Damaged => "damaged",
        Reason::Poison => "poison",
        Reason::InCustody => "in-custody",
        _ => "other",
    }
}

impl<'a> From<&'a Undelivered> for Item<'a> {
    fn from(one: &'a Undelivered) -> Self {
        let stored = one.stored.map(|(peer, since)| Stored { peer: peer.to_string(), since: text::rfc3339(since) });
        Self {
            id: one.id.to_string(),
            topic: &one.topic,
            recipient: &one.recipient,
            reason: word(one.reason),
            time: text::rfc3339(one.time),
            expires: text::rfc3339(one.expires),
            offers: one.offers,
            stored,
        }
    }
}

impl<'a> Shown<'a> {
    fn of(one: &'a Undelivered, message: &'a Message<Bytes>) -> Self {
        let payload: &Bytes = message;
        Self {
            item: Item::from(one),
            published: text::rfc3339(message.time()),
            content_type: message.content_type(),
            headers: json::headers(message.headers()),
            data: Data::from(&payload[..]),
        }
    }
}
