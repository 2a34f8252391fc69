//! `pombo request`: asks a service and prints its answer.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pombo::{Node, Outcome, RawService, Reply, RequestError};
use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::input::{self, Input};
use super::names::name_of;
use super::output::Output;
use super::{json, parse, text};

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo request text.upper hello
  pombo request shop.price --timeout 2s -H tenant:acme < quote.json
  pombo request text.upper hello --to calm-otter --json";

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
    let work = async |node: &Node| {
        let (reply, elapsed) = ask(node, service, &question, &args).await?;
        print(context.output, &args.service, &reply, elapsed)?;
        let name = name_of(node, reply.source()).await;
        context.output.note(format_args!("answered by {name} in {}", text::elapsed(elapsed)));
        Ok(())
    };
    let interrupted = || Failure::new(Outcome::Unknown, "interrupted: the request may have run");
    context.on_node(context.short_lived(), work).await?.ok_or_else(interrupted)
}

async fn ask(
    node: &Node,
    service: RawService,
    question: &Bytes,
    args: &Args,
) -> Result<(Reply<Bytes>, Duration), Failure> {
    let started = Instant::now();
    // Who provides what is in the rosters of those that are about to be found. If that takes all the time there is, the
    // request says so.
    let _ = tokio::time::timeout(args.timeout, node.settled()).await;
    let asked = Instant::now();
    let mut request = node.request(service, question).timeout(args.timeout.saturating_sub(started.elapsed()));
    if let Some(to) = &args.to {
        request = request.to(to.as_str());
    }
    for (name, value) in &args.headers {
        request = request.header(name.as_str(), value.as_str());
    }
    let reply = request.await.map_err(failed)?;
    Ok((reply, asked.elapsed()))
}

fn failed(error: RequestError) -> Failure {
    let hint = match &error {
        RequestError::Nobody { .. } => Some("`pombo services` lists what is served"),
        RequestError::NoNode { .. } => Some("`pombo peers` lists the nodes, `pombo services` what they serve"),
        _ => None,
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
    output.data(body)?;
    // A program gets the bytes as they are; a prompt should not stick to them.
    if std::io::stdout().is_terminal() && !body.ends_with(b"\n") { output.data(b"\n") } else { Ok(()) }
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
    fn a_missing_provider_is_answered_with_where_to_look() {
        let failure = failed(RequestError::Nobody { service: "a.b".into() });
        assert_eq!(failure.outcome(), Outcome::Nobody);
        assert_eq!(failure.hints().len(), 1);
    }

    #[test]
    fn a_missing_body_is_answered_with_three_examples() {
        assert_eq!(no_body("a.b").hints().len(), 3);
    }
}
