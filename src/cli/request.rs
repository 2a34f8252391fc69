//! `pombo request`: asks a service and prints its answer.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::Duration;

use bytes::Bytes;
use pombo::{Outcome, RawService, Reply, RequestError};
use serde::Serialize;
use tokio::time::Instant;

use super::bus::Bus;
use super::context::Context;
use super::failure::Failure;
use super::input::{self, Input};
use super::names::name_of;
use super::output::Output;
use super::{json, parse, progress, text};

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo request text.upper hello
  pombo request shop.price --timeout 2s -H tenant:acme < quote.json
  pombo request text.upper hello --to calm-otter --json

A pipe or a file gets the answer as it is, byte by byte. On a terminal, control characters are shown escaped.";

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The service, such as shop.price
    service: String,
    /// The question; "-" reads stdin, and so does leaving it out unless stdin is a terminal
    #[arg(allow_hyphen_values = true)]
    body: Option<OsString>,
    /// Attach a header; may be repeated
    #[arg(short = 'H', value_name = "NAME:VALUE", value_parser = parse::header)]
    headers: Vec<(String, String)>,
    /// Ask this node and no other: its name or peer id
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", env = "POMBO_TIMEOUT", hide_env = true, value_parser = parse::duration)]
    #[arg(default_value = "5s")]
    timeout: Duration,
}

/// An answer, as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    service: &'a str,
    source: String,
    content_type: &'a str,
    headers: Vec<json::Header<'a>>,
    elapsed_seconds: f64,
    #[serde(flatten)]
    data: json::Data<'a>,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let service = RawService::parse(&args.service)?;
    let input = Input::choose(args.body.clone(), None, input::stdin_is_terminal());
    let input = input.ok_or_else(|| no_body(&args.service))?;
    let question = context.unless_stopped(input.read()).await.ok_or_else(Failure::interrupted)??;
    // The time starts here: what it takes to find others is part of it.
    let deadline = Instant::now() + args.timeout;
    let work = async |bus: &Bus| {
        let (reply, elapsed) = match ask(context.output, bus, service, &question, &args, deadline).await {
            Ok(answered) => answered,
            Err(error) => return Err(failed(context, bus, &args.service, error).await),
        };
        print(context.output, &args.service, &reply, elapsed)?;
        let name = name_of(bus, reply.source()).await;
        context.output.note(format_args!("answered by {name} in {}", text::elapsed(elapsed)));
        Ok(())
    };
    let interrupted = || Failure::new(Outcome::Unknown, "interrupted: the request may have run");
    context.on(context.bus(), work).await?.ok_or_else(interrupted)
}

async fn ask(
    output: Output,
    bus: &Bus,
    service: RawService,
    question: &Bytes,
    args: &Args,
    deadline: Instant,
) -> Result<(Reply<Bytes>, Duration), RequestError> {
    // Who provides what is in the rosters of those that are about to be found. If that takes all the time there is, the
    // request says so.
    let looking = tokio::time::timeout_at(deadline, bus.settled());
    let _ = progress::waiting(output, "looking for other nodes", None, looking).await;
    let asked = Instant::now();
    let mut request = bus.request(service, question).timeout(deadline.saturating_duration_since(asked));
    if let Some(to) = &args.to {
        request = request.to(to.as_str());
    }
    for (name, value) in &args.headers {
        request = request.header(name.as_str(), value.as_str());
    }
    let waiting = format!("waiting for an answer from {}", args.service);
    let reply = progress::waiting(output, &waiting, Some(args.timeout), request.into_future()).await?;
    Ok((reply, asked.elapsed()))
}

/// The error, with what to do about it.
async fn failed(context: &Context, bus: &Bus, service: &str, error: RequestError) -> Failure {
    if let RequestError::Refused { message, .. } = &error {
        return Failure::new(error.outcome(), format!("{service} refused: {message}"));
    }
    let flags = context.common.mesh_flags();
    let lonely = bus.peers().await.is_ok_and(|peers| peers.is_empty());
    let hint = match error.outcome() {
        Outcome::Nobody | Outcome::NoNode if lonely => Some(format!("no other node was found; {}", context.lonely())),
        Outcome::Nobody => Some(format!("`pombo services{flags}` lists what is served")),
        Outcome::NoNode => {
            Some(format!("`pombo peers{flags}` lists the nodes, `pombo services{flags}` what they serve"))
        }
        Outcome::Busy => Some("it did not run: try again".to_owned()),
        Outcome::Ok
        | Outcome::Failed
        | Outcome::Usage
        | Outcome::Unknown
        | Outcome::Refused
        | Outcome::Rejected
        | Outcome::Denied
        | Outcome::Partial => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn print(output: Output, service: &str, reply: &Reply<Bytes>, elapsed: Duration) -> Result<(), Failure> {
    let body: &Bytes = reply;
    if output.is_json() {
        return output.object(&Answer {
            service,
            source: reply.source().to_string(),
            content_type: reply.content_type(),
            headers: json::headers(reply.headers()),
            elapsed_seconds: elapsed.as_secs_f64(),
            data: json::Data::from(&body[..]),
        });
    }
    // A program gets the bytes as they are. People get text that cannot drive their terminal, and a prompt below it.
    if std::io::stdout().is_terminal() {
        let shown = text::answer(body);
        return output.line(shown.strip_suffix('\n').unwrap_or(&shown));
    }
    output.data(body)
}

fn no_body(service: &str) -> Failure {
    let service = text::shell(service);
    Failure::new(Outcome::Usage, "there is no question: give a body or stdin")
        .hint(format!("pombo request {service} hello"))
        .hint(format!("pombo request {service} ''"))
        .hint(format!("pombo request {service} - < question.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_body_is_answered_with_three_examples() {
        assert_eq!(no_body("a.b").hints().len(), 3);
    }
}
