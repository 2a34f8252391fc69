//! `pombo sub --durable`: takes what a durable subscription gets, and acknowledges it once it is printed or handled.

use std::ffi::OsStr;
use std::pin::pin;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pombo::{AckError, Delivery, RawPattern};
use serde::Serialize;

use super::{Args, Form, Printer, after};
use crate::cli::bus::Bus;
use crate::cli::context::Context;
use crate::cli::exec;
use crate::cli::failure::Failure;
use crate::cli::json::{self, Arrived};
use crate::cli::output::{self, Output};

/// A message that was handed out, as JSON.
#[derive(Serialize)]
struct Handed<'a> {
    #[serde(flatten)]
    message: Arrived<'a>,
    attempt: u32,
}

/// What became of a message that a command handled, as JSON.
#[derive(Serialize)]
struct Handled<'a> {
    topic: &'a str,
    id: String,
    attempt: u32,
    handled: bool,
}

pub(super) async fn run(context: &Context, args: &Args, name: &str, pattern: RawPattern) -> Result<(), Failure> {
    let node = async { context.running().await.map(Bus::Running) };
    let work = async |bus: &Bus| output::while_read(take(context.output, bus, args, (name, pattern))).await;
    // Its work is to run until it is stopped.
    context.on(node, work).await.map(|_| ())
}

async fn take(output: Output, bus: &Bus, args: &Args, (name, pattern): (&str, RawPattern)) -> Result<(), Failure> {
    let mut hold = bus.subscribe(pattern).durable(name);
    if let Some(most) = args.attempts {
        hold = hold.attempts(most);
    }
    if args.exec.is_some() {
        // One is handled at a time: the next may be somebody else's.
        hold = hold.window(1);
    }
    let mut messages = hold.await?;
    output.note(format_args!("holding {name}: {}", args.patterns.join(", ")));
    let mut printer = Printer::new(output, args);
    let mut deadline = pin!(after(args.timeout));
    // Acknowledgements go to the disk together, and keep nothing waiting.
    let mut acknowledging = FuturesUnordered::new();
    while printer.left != Some(0) {
        let under_way = u64::try_from(acknowledging.len()).unwrap_or(u64::MAX);
        let has_all = printer.left.is_some_and(|left| left <= under_way);
        let delivery = tokio::select! {
            biased;
            () = &mut deadline => break,
            Some(acknowledged) = acknowledging.next() => {
                acknowledged?;
                printer.count();
                continue;
            }
            delivery = messages.next(), if !has_all => delivery.ok_or_else(|| bus.ended())?,
        };
        let Ok(delivery) = delivery else { continue };
        let handled = match &args.exec {
            Some(command) => execute(output, command, &delivery).await?,
            None => {
                printer.print_handed(bus, &delivery).await?;
                true
            }
        };
        if handled {
            acknowledging.push(acknowledge(output, bus, delivery));
        }
    }
    while let Some(acknowledged) = acknowledging.next().await {
        acknowledged?;
        printer.count();
    }
    if printer.left == Some(0) { Ok(()) } else { printer.ran_out(args.timeout) }
}

/// Says that it was handled. Where that is too late, or not written, it says so, and the message may come again.
async fn acknowledge(output: Output, bus: &Bus, delivery: Delivery<Bytes>) -> Result<(), Failure> {
    let id = delivery.id();
    match delivery.ack().await {
        Ok(()) => Ok(()),
        Err(AckError::Closed(_)) => Err(bus.ended()),
        Err(error) => {
            output.warn(format_args!("{id} was handled, but {error}"));
            Ok(())
        }
    }
}

/// Runs the command, and says whether it has handled the message: if not, it is handed out again, later each time.
async fn execute(output: Output, command: &OsStr, delivery: &Delivery<Bytes>) -> Result<bool, Failure> {
    let (source, id) = (delivery.source().to_string(), delivery.id().to_string());
    let attempt = delivery.attempt().to_string();
    let (topic, content_type) = (delivery.topic(), delivery.content_type());
    let told = [
        ("POMBO_TOPIC", topic),
        ("POMBO_ID", &id),
        ("POMBO_SOURCE", &source),
        ("POMBO_CONTENT_TYPE", content_type),
        ("POMBO_ATTEMPT", &attempt),
    ];
    let body: &Bytes = delivery;
    let ended = exec::handle(command, &told, delivery.headers(), body).await;
    if output.is_json() {
        let handled = ended.is_ok();
        output.object(&Handled { topic, id: id.clone(), attempt: delivery.attempt(), handled })?;
    }
    if let Err(why) = &ended {
        output.warn(format_args!("{id} comes again: {why}"));
    }
    Ok(ended.is_ok())
}

impl Printer {
    async fn print_handed(&mut self, bus: &Bus, delivery: &Delivery<Bytes>) -> Result<(), Failure> {
        if self.form == Form::Json {
            let handed = Handed { message: Arrived::from(&**delivery), attempt: delivery.attempt() };
            json::append(&mut self.page, &handed)?;
        } else {
            self.append(bus, delivery).await?;
        }
        self.flush()
    }

    fn count(&mut self) {
        self.seen += 1;
        self.left = self.left.map(|left| left - 1);
    }
}

/// Whether the flags fit together.
pub(super) fn check(args: &Args) -> Result<(), Failure> {
    let usage = |what: &str| Err(Failure::new(pombo::Outcome::Usage, what));
    match args.patterns.len() {
        0 | 1 => Ok(()),
        _ => usage("a durable subscription has one pattern: use one that covers all of them, or several names"),
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

    #[test]
    fn a_durable_subscription_has_one_pattern_and_no_group() {
        let parse = |line: &[&str]| Line::try_parse_from([&["sub"], line].concat());
        assert!(check(&parse(&["a.b", "--durable", "billing"]).unwrap().args).is_ok());
        assert!(check(&parse(&["a.b", "c", "--durable", "billing"]).unwrap().args).is_err());
        assert!(parse(&["a.b", "--durable", "billing", "--group", "packers"]).is_err());
        assert!(parse(&["a.b", "--exec", "true"]).is_err());
    }
}
