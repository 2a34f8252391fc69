//! `pombo sub`: prints what arrives on the topics that match.

use std::ffi::OsString;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use pombo::{Message, Outcome, RawPattern, RecvError};

use super::bus::Bus;
use super::context::Context;
use super::failure::Failure;
use super::names::Names;
use super::output::{self, Output};
use super::table::padded;
use super::{json, parse, progress, text};

mod durable;

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo sub 'demo.>'
  pombo sub orders.created 'billing.*.due' -n 10 --timeout 1m --json
  pombo sub orders.created --group packers --raw
  pombo sub 'orders.>' --durable billing --exec ./book.sh

In a pattern, * stands for one token and a last > for one or more. Quote them: the shell has uses of its own for both.

With --durable it takes what is published with a guarantee, each message with the other subscribers of that name by turns, by the node that runs on this machine (`pombo node`), which keeps what \
comes while this does not run. Each message is acknowledged when it is printed. The command of --exec gets the body on stdin and POMBO_TOPIC, \
POMBO_ID, POMBO_SOURCE, POMBO_CONTENT_TYPE, POMBO_ATTEMPT and POMBO_HEADER_<NAME> in its environment; one message at a time is \
acknowledged when it exits with 0, and comes again otherwise.";

/// How many messages that are there already are printed at once.
const BATCH: usize = 256;

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Topics, or patterns such as 'orders.*.created' and 'demo.>'
    #[arg(required = true, value_name = "PATTERN")]
    patterns: Vec<String>,
    /// End after this many messages
    #[arg(short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this much time; with -n, fail if fewer messages came
    #[arg(long, value_name = "TIME", env = "POMBO_TIMEOUT", hide_env = true, value_parser = parse::duration)]
    timeout: Option<Duration>,
    /// Share the messages with the other subscribers of this group: each goes to one of them
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Print payloads only, each with a newline after it
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Hold this durable subscription, made if it is not there: it misses nothing that is published with --guaranteed
    #[arg(long, value_name = "NAME", conflicts_with = "group")]
    durable: Option<String>,
    /// Hand out each message so often at most, and tell its sender when none acknowledged it
    #[arg(long, value_name = "N", requires = "durable", value_parser = clap::value_parser!(u32).range(1..))]
    attempts: Option<u32>,
    /// Run this command of the shell for each message, which is acknowledged if it succeeds
    #[arg(long, value_name = "COMMAND", requires = "durable", conflicts_with = "raw")]
    exec: Option<OsString>,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let mut patterns = args.patterns.iter().map(|text| RawPattern::parse(text)).collect::<Result<Vec<_>, _>>()?;
    if let Some(name) = &args.durable {
        durable::check(&args)?;
        return durable::run(context, &args, name, patterns.swap_remove(0)).await;
    }
    let work = async |bus: &Bus| output::while_read(listen(context.output, bus, &args, patterns)).await;
    // Its work is to run until it is stopped.
    context.on(context.bus(), work).await.map(|_| ())
}

async fn listen(output: Output, bus: &Bus, args: &Args, patterns: Vec<RawPattern>) -> Result<(), Failure> {
    let mut patterns = patterns.into_iter();
    let Some(first) = patterns.next() else { return Ok(()) };
    let mut subscribe = patterns.fold(bus.subscribe(first), |subscribe, pattern| subscribe.also(pattern));
    if let Some(group) = &args.group {
        subscribe = subscribe.group(group.as_str());
    }
    let mut messages = pin!(subscribe.await?.ready_chunks(BATCH));
    let mut printer = Printer::new(output, args);
    let mut deadline = pin!(after(args.timeout));
    let mut announced = pin!(announce(output, bus, &args.patterns));
    let mut in_force = false;
    loop {
        tokio::select! {
            biased;
            () = &mut announced, if !in_force => in_force = true,
            () = &mut deadline => return printer.ran_out(args.timeout),
            batch = messages.next() => {
                let batch = batch.ok_or_else(|| bus.ended())?;
                if printer.print(bus, batch).await? {
                    return Ok(());
                }
            }
        }
    }
}

/// Returns after that time, if there is one.
async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Says that the subscription is in force, once it is known who is there.
async fn announce(output: Output, bus: &Bus, patterns: &[String]) {
    if progress::waiting(output, "looking for other nodes", None, bus.settled()).await.is_err() {
        return;
    }
    let peers = bus.peers().await.map_or(0, |peers| peers.len());
    output.note(format_args!("subscribed to {} ({})", patterns.join(", "), text::count(peers, "peer")));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    Raw,
}

/// Prints messages, and counts them.
struct Printer {
    output: Output,
    form: Form,
    names: Names,
    left: Option<u64>,
    seen: u64,
    topic_width: usize,
    name_width: usize,
    /// What is to be written next, in one go.
    page: Vec<u8>,
}

impl Printer {
    fn new(output: Output, args: &Args) -> Self {
        let form = match (args.raw, output.is_json()) {
            (true, _) => Form::Raw,
            (false, true) => Form::Json,
            (false, false) => Form::Text,
        };
        let names = Names::default();
        Self { output, form, names, left: args.count, seen: 0, topic_width: 14, name_width: 12, page: Vec::new() }
    }

    /// Prints what came, and says whether that was all.
    async fn print(&mut self, bus: &Bus, batch: Vec<Result<Message<Bytes>, RecvError>>) -> Result<bool, Failure> {
        for item in batch {
            if self.left == Some(0) {
                break;
            }
            match item {
                Ok(message) => {
                    self.append(bus, &message).await?;
                    self.seen += 1;
                    self.left = self.left.map(|left| left - 1);
                }
                Err(error) => self.append_gap(&error)?,
            }
        }
        self.flush()?;
        Ok(self.left == Some(0))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.output.data(&self.page)?;
        self.page.clear();
        Ok(())
    }

    async fn append(&mut self, bus: &Bus, message: &Message<Bytes>) -> Result<(), Failure> {
        match self.form {
            Form::Raw => {
                self.page.extend_from_slice(message);
                self.page.push(b'\n');
                Ok(())
            }
            Form::Json => json::append(&mut self.page, &json::Arrived::from(message)),
            Form::Text => {
                let name = self.names.of(bus, message.source()).await;
                let line = self.text(message, &name);
                self.page.extend_from_slice(line.as_bytes());
                Ok(())
            }
        }
    }

    fn text(&mut self, message: &Message<Bytes>, name: &str) -> String {
        self.topic_width = self.topic_width.max(message.topic().len());
        self.name_width = self.name_width.max(name.chars().count());
        let time = self.output.paint(output::FAINT, text::time_of_day(message.time()));
        let topic = self.output.paint(output::TOPIC, padded(message.topic(), self.topic_width));
        let name = self.output.paint(output::NAME, padded(name, self.name_width));
        format!("{time}  {topic}  {name}  {}\n", text::payload(message))
    }

    /// What is missing is said where the messages are, if programs read them, and else where people look.
    fn append_gap(&mut self, error: &RecvError) -> Result<(), Failure> {
        if let (RecvError::Lagged { missed, exact }, Form::Json) = (error, self.form) {
            let lagged = json::Lagged { missed: *missed, exact: *exact };
            return json::append(&mut self.page, &json::Gap { lagged });
        }
        self.flush()?;
        self.output.warn(error);
        Ok(())
    }

    /// The time is over. That is a failure if more messages were wanted.
    fn ran_out(&self, timeout: Option<Duration>) -> Result<(), Failure> {
        let Some(left) = self.left else { return Ok(()) };
        let within = humantime::format_duration(timeout.unwrap_or_default());
        let wanted = self.seen + left;
        Err(Failure::new(Outcome::Unknown, format!("{} of {wanted} messages came within {within}", self.seen)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
        #[arg(long)]
        json: bool,
    }

    fn printer(line: &[&str]) -> Printer {
        Printer::new(Output::json(), &Line::try_parse_from([&["sub", "demo.>"], line].concat()).unwrap().args)
    }

    #[test]
    fn raw_and_json_exclude_each_other() {
        assert!(Line::try_parse_from(["sub", "a", "--raw", "--json"]).is_err());
        assert!(Line::try_parse_from(["sub"]).is_err());
        assert_eq!(printer(&["--raw"]).form, Form::Raw);
        assert_eq!(printer(&[]).form, Form::Json);
    }

    #[test]
    fn too_few_messages_in_time_are_a_failure_only_if_some_were_wanted() {
        assert!(printer(&["--timeout", "1s"]).ran_out(Some(Duration::from_secs(1))).is_ok());
        let failure = printer(&["-n", "2"]).ran_out(Some(Duration::from_secs(1))).unwrap_err();
        assert_eq!(failure.outcome(), Outcome::Unknown);
        assert_eq!(failure.message(), "0 of 2 messages came within 1s");
    }

    #[test]
    fn a_gap_is_a_line_of_its_own() {
        let mut printer = printer(&[]);
        printer.append_gap(&RecvError::Lagged { missed: 3, exact: true }).unwrap();
        assert_eq!(printer.page, b"{\"lagged\":{\"missed\":3,\"exact\":true}}\n");
    }
}
