//! `pombo serve`: answers requests with a command, a fixed reply, or the question itself.

use std::ffi::OsString;
use std::num::NonZero;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use pombo::{Incoming, Raw, RawService};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::bus::Bus;
use super::context::Context;
use super::exec::{self, Call};
use super::failure::Failure;
use super::input;
use super::names::Names;
use super::output::{self, Output};
use super::text;

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo serve text.upper --exec 'tr a-z A-Z'
  pombo serve demo.hello --reply 'good morning'
  pombo serve demo.echo --echo

The command of --exec gets the question on stdin and POMBO_SERVICE, POMBO_SOURCE and POMBO_HEADER_<NAME> in its \
environment. What it prints is the answer. If it fails, the request is refused with the last it wrote to stderr.

Told to stop, it takes no more requests and finishes those that run, for up to 30 s; told again, it ends at once.";

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The service, such as text.upper
    service: String,
    #[command(flatten)]
    handler: Handler,
}

#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct Handler {
    /// Run this command of the shell for each request
    #[arg(long, value_name = "COMMAND")]
    exec: Option<OsString>,
    /// Answer every request with this
    #[arg(long, value_name = "BODY", allow_hyphen_values = true)]
    reply: Option<OsString>,
    /// Answer every request with itself
    #[arg(long)]
    echo: bool,
}

/// Where answers come from.
enum Answers {
    Command(OsString),
    Fixed(Bytes),
    Question,
}

type Request = Incoming<Bytes, Bytes, Raw>;

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let service = RawService::parse(&args.service)?;
    let answers = match (args.handler.exec, args.handler.reply) {
        (Some(command), _) => Answers::Command(command),
        (None, Some(body)) => Answers::Fixed(input::given(body)),
        (None, None) => Answers::Question,
    };
    let work = async |bus: &Bus| {
        let serving = serve(context.output, bus, service, &answers);
        // Without JSON it prints nothing that anybody could stop reading.
        if context.output.is_json() { output::while_read(serving).await } else { serving.await }
    };
    // Its work is to run until it is stopped.
    context.until_drained(context.bus(), work).await
}

async fn serve(output: Output, bus: &Bus, service: RawService, answers: &Answers) -> Result<(), Failure> {
    let name = service.name().to_owned();
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get);
    let requests = bus.serve(service).concurrency(at_once).await?;
    output.note(format_args!("serving {name}, {at_once} at once"));
    let log = Log { output, bus, service: &name, names: Mutex::default() };
    let handled = requests.map(|request| handle(&log, answers, request)).buffer_unordered(at_once);
    let mut handled = std::pin::pin!(handled);
    while let Some(logged) = handled.next().await {
        logged?;
    }
    Err(bus.ended())
}

async fn handle(log: &Log<'_>, answers: &Answers, request: Request) -> Result<(), Failure> {
    let started = Instant::now();
    let source = request.source();
    let asked = request.len();
    let ending = match answers {
        Answers::Command(command) => command_answer(log.service, command, request).await,
        Answers::Fixed(body) => respond(request, body).await,
        Answers::Question => {
            let body = Bytes::clone(&request);
            respond(request, &body).await
        }
    };
    log.request(source, asked, &ending, started.elapsed()).await
}

/// How a request ended.
enum Ending {
    Answered(usize),
    Refused(String),
    Cancelled,
    /// The answer did not get out.
    Unsent(String),
}

async fn command_answer(service: &str, command: &OsString, request: Request) -> Ending {
    let source = request.source().to_string();
    let call = Call { service, source: &source, headers: request.headers(), body: &request };
    let finished = tokio::select! {
        result = exec::run(command, call) => Some(result),
        () = request.cancelled() => None,
        () = tokio::time::sleep(request.timeout()) => None,
    };
    match finished {
        Some(Ok(body)) => respond(request, &body).await,
        Some(Err(reason)) => match request.refuse(reason.as_str()).await {
            Ok(()) => Ending::Refused(reason),
            Err(error) => Ending::Unsent(error.to_string()),
        },
        // The future that ran the command is dropped, and the command killed.
        None => Ending::Cancelled,
    }
}

async fn respond(request: Request, body: &Bytes) -> Ending {
    match request.respond(body).await {
        Ok(()) => Ending::Answered(body.len()),
        Err(error) => Ending::Unsent(error.to_string()),
    }
}

/// One line per request: on stderr for people, on stdout as JSON.
struct Log<'a> {
    output: Output,
    bus: &'a Bus,
    service: &'a str,
    names: Mutex<Names>,
}

#[derive(Serialize)]
struct Line<'a> {
    service: &'a str,
    source: String,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    bytes: usize,
    reply_bytes: usize,
    elapsed_seconds: f64,
}

impl Log<'_> {
    async fn request(
        &self,
        source: pombo::PeerId,
        bytes: usize,
        ending: &Ending,
        elapsed: Duration,
    ) -> Result<(), Failure> {
        let (outcome, message, reply_bytes) = match ending {
            Ending::Answered(size) => ("answered", None, *size),
            Ending::Refused(reason) => ("refused", Some(reason.as_str()), 0),
            Ending::Cancelled => ("cancelled", None, 0),
            Ending::Unsent(reason) => ("unsent", Some(reason.as_str()), 0),
        };
        if self.output.is_json() {
            let (service, source, elapsed_seconds) = (self.service, source.to_string(), elapsed.as_secs_f64());
            return self.output.object(&Line {
                service,
                source,
                outcome,
                message,
                bytes,
                reply_bytes,
                elapsed_seconds,
            });
        }
        let name = self.names.lock().await.of(self.bus, source).await;
        let (time, asked, took) = (text::now(), text::size(bytes), text::elapsed(elapsed));
        let how = match message {
            None if reply_bytes > 0 => format!("{outcome} with {}", text::size(reply_bytes)),
            None => outcome.to_owned(),
            Some(message) => format!("{outcome}: {}", text::escape(message)),
        };
        self.output.note(format_args!("{time}  {}  {name}  {asked}, {how}, in {took}", self.service));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn there_is_exactly_one_way_to_answer() {
        let parse = |line: &str| Command::try_parse_from(line.split(' ')).is_ok();
        assert!(parse("serve a.b --echo") && parse("serve a.b --reply -") && parse("serve a.b --exec cat"));
        assert!(!parse("serve a.b") && !parse("serve a.b --echo --reply x") && !parse("serve --echo"));
    }
}
