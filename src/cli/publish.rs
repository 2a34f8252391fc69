//! `pombo pub`: publishes a body, a body many times, or line by line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream, FuturesOrdered, LocalBoxStream};
use pombo::{Headers, Outcome, PublishError, Published, RawTopic};
use tokio::time::{Instant, MissedTickBehavior};

use self::guaranteed::Ledger;
use super::bus::Bus;
use super::context::Context;
use super::failure::Failure;
use super::input::{self, Input};
use super::tally::Tally;
use super::{parse, progress, text};

mod guaranteed;

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo pub demo.hello hi
  pombo pub orders.created --file order.json --content-type application/json -H tenant:acme
  tail -f app.log | pombo pub log.app --lines
  pombo pub demo.tick tock -n 10 --every 1s --min-peers 1
  pombo pub orders.created --file order.json --guaranteed --ttl 2h --to billing
  pombo pub orders.created --file order.json --guaranteed --copies 2

With --guaranteed the node that runs on this machine (`pombo node`) has it on its disk when this ends, and delivers it to the \
durable subscriptions that match. `pombo undelivered list` shows what it could not deliver.";

/// How many publications may wait for their answers at once, and how much they may hold.
const IN_FLIGHT: usize = 128;
const BYTES_IN_FLIGHT: usize = 1024 * 1024;

/// How long listeners are waited for, if some are asked for.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The topic, such as orders.eu.created
    topic: String,
    /// What to publish; "-" reads stdin, and so does leaving it out unless stdin is a terminal
    #[arg(conflicts_with = "file", allow_hyphen_values = true)]
    body: Option<OsString>,
    /// Publish what is in this file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Publish each line of the input as a message, without its newline
    #[arg(long)]
    lines: bool,
    /// Attach a header; may be repeated
    #[arg(short = 'H', value_name = "NAME:VALUE", value_parser = parse::header)]
    headers: Vec<(String, String)>,
    /// Say what the body is, such as application/json
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Publish it this many times
    #[arg(short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "lines")]
    count: Option<u64>,
    /// Leave this much time between one message and the next
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    every: Option<Duration>,
    /// Fail unless so many other nodes subscribe
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    min_peers: usize,
    /// How long to wait for other nodes, and for the word of some that they have it [default: 5s]
    #[arg(long, value_name = "TIME", env = "POMBO_TIMEOUT", hide_env = true, value_parser = parse::duration)]
    timeout: Option<Duration>,
    /// Have the node that runs on this machine keep it, and deliver it to all durable subscriptions that match
    #[arg(long, conflicts_with = "min_peers")]
    guaranteed: bool,
    /// How long it may take to be delivered, up to 30 days [default: 1d]
    #[arg(long, value_name = "TIME", requires = "guaranteed", value_parser = parse::duration)]
    ttl: Option<Duration>,
    /// Deliver it to this durable subscription too, known or not; may be repeated
    #[arg(long, value_name = "NAME", requires = "guaranteed")]
    to: Vec<String>,
    /// Wait until so many other nodes have a copy on disk, and deliver it if this node does not return; up to 16
    #[arg(long, value_name = "N", requires = "guaranteed", default_value_t = 0, hide_default_value = true,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(..=16))]
    copies: usize,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let topic = RawTopic::parse(&args.topic)?;
    // Before a node is started: the body may be missing, or long in coming.
    let bodies = context.unless_stopped(bodies(&args)).await.ok_or_else(Failure::interrupted)??;
    let timeout = args.timeout.unwrap_or(PATIENCE);
    let post = Post { context, args: &args, topic, headers: args.headers.iter().cloned().collect(), timeout };
    let interrupted = || Failure::new(Outcome::Unknown, "interrupted before all of it was confirmed");
    let (done, published) = if args.guaranteed {
        let mut ledger = Ledger::new(context.output, &args.topic, args.every.is_some());
        let keeping = async { post.keep(&context.running().await?, bodies, &mut ledger).await };
        (context.unless_stopped(keeping).await.transpose(), ledger.messages)
    } else {
        let mut tally = Tally::new(context, &args.topic, args.every.is_some());
        let done = context.on(context.bus(), async |bus: &Bus| post.all(bus, bodies, &mut tally).await).await;
        (done, tally.messages())
    };
    done.and_then(|done| done.ok_or_else(interrupted)).map_err(|failure| match published {
        0 => failure,
        some => failure.after(format_args!("{} published", text::count(some, "message"))),
    })
}

type Bodies = LocalBoxStream<'static, Result<Bytes, Failure>>;

/// What is to be published, in its order and at its pace.
async fn bodies(args: &Args) -> Result<Bodies, Failure> {
    if args.lines && args.body.as_ref().is_some_and(|body| body != "-") {
        return Err(Failure::new(Outcome::Usage, "--lines reads stdin or a --file: leave the body out"));
    }
    let input = Input::choose(args.body.clone(), args.file.clone(), input::stdin_is_terminal() && !args.lines);
    let input = input.ok_or_else(|| no_body(&args.topic))?;
    let bodies: Bodies = if args.lines {
        input.lines().await?.boxed_local()
    } else {
        let body = input.read().await?;
        let repeated = (0..args.count.unwrap_or(1)).map(move |_| Ok(body.clone()));
        stream::iter(repeated).boxed_local()
    };
    Ok(match args.every {
        Some(pause) if !pause.is_zero() => bodies.zip(ticks(pause)).map(|(body, ())| body).boxed_local(),
        _ => bodies,
    })
}

/// One at once, and then one per pause.
fn ticks(pause: Duration) -> BoxStream<'static, ()> {
    let mut clock = tokio::time::interval(pause);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    stream::unfold(clock, async |mut clock| {
        clock.tick().await;
        Some(((), clock))
    })
    .boxed()
}

fn no_body(topic: &str) -> Failure {
    let topic = text::shell(topic);
    Failure::new(Outcome::Usage, "there is nothing to publish: give a body, a file, or stdin")
        .hint(format!("pombo pub {topic} hello"))
        .hint(format!("pombo pub {topic} --file letter.txt"))
        .hint(format!("date | pombo pub {topic} -"))
}

/// What all the messages have in common.
struct Post<'a> {
    context: &'a Context,
    args: &'a Args,
    topic: RawTopic,
    headers: Headers,
    timeout: Duration,
}

impl Post<'_> {
    async fn all(&self, bus: &Bus, mut bodies: Bodies, tally: &mut Tally<'_>) -> Result<(), Failure> {
        let Some(first) = bodies.next().await else {
            tally.nothing();
            return Ok(());
        };
        let first = first?;
        // The time that it takes to look around is part of the first one's. If that is all, the publication says so.
        let started = Instant::now();
        let output = self.context.output;
        let looking = tokio::time::timeout(self.timeout, bus.settled());
        let _ = progress::waiting(output, "looking for other nodes", None, looking).await;
        // The first goes alone: it may have to wait for listeners, and the others must not overtake it.
        let left = self.timeout.saturating_sub(started.elapsed());
        let publishing = self.one(bus, first, self.args.min_peers, left);
        let (bytes, published) = progress::waiting(output, &self.waits(), Some(left), publishing).await?;
        tally.add(bus, bytes, published).await?;
        self.rest(bus, bodies, tally).await?;
        tally.finish(bus).await
    }

    /// What the first one may have to wait for.
    fn waits(&self) -> String {
        let topic = &self.args.topic;
        match self.args.min_peers {
            0 => "waiting for the word of others that they have it".to_owned(),
            peers => format!("waiting for {} to subscribe to {topic}", text::count(peers, "peer")),
        }
    }

    /// Has many under way, in the order of the bodies: a publication takes its place at its first poll. When they are
    /// paced, each has to find its listeners, and goes alone.
    async fn rest(&self, bus: &Bus, mut bodies: Bodies, tally: &mut Tally<'_>) -> Result<(), Failure> {
        let (min_peers, in_flight) = if self.args.every.is_some() { (self.args.min_peers, 1) } else { (0, IN_FLIGHT) };
        let mut under_way = FuturesOrdered::new();
        let (mut held, mut more) = (0, true);
        while more || !under_way.is_empty() {
            let room = more && under_way.len() < in_flight && held < BYTES_IN_FLIGHT;
            tokio::select! {
                Some(published) = under_way.next() => {
                    let (bytes, published) = published?;
                    held -= bytes;
                    tally.add(bus, bytes, published).await?;
                }
                body = bodies.next(), if room => {
                    // What cannot be read ends it, but in its turn: those before it are still to be confirmed.
                    more = matches!(body, Some(Ok(_)));
                    let Some(body) = body else { continue };
                    held += body.as_ref().map_or(0, Bytes::len);
                    under_way.push_back(async move { self.one(bus, body?, min_peers, self.timeout).await });
                }
            }
        }
        Ok(())
    }

    async fn one(
        &self,
        bus: &Bus,
        body: Bytes,
        min_peers: usize,
        timeout: Duration,
    ) -> Result<(usize, Published), Failure> {
        let mut publish = bus.publish(self.topic.clone(), &body).headers(self.headers.clone());
        if let Some(content_type) = &self.args.content_type {
            publish = publish.content_type(content_type.as_str());
        }
        if min_peers > 0 {
            publish = publish.min_peers(min_peers);
        }
        let published = publish.timeout(timeout).await;
        Ok((body.len(), published.map_err(|error| self.failed(error))?))
    }

    fn failed(&self, error: PublishError) -> Failure {
        let nobody = matches!(error, PublishError::Nobody { .. });
        let failure = Failure::from(error);
        if !nobody {
            return failure;
        }
        failure.hint(format!("`pombo topics{}` lists what is subscribed to", self.context.common.mesh_flags()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use futures::TryStreamExt;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        Line::try_parse_from([&["pub", "demo.hello"], line].concat()).unwrap().args
    }

    async fn collected(args: &Args) -> Vec<Bytes> {
        bodies(args).await.unwrap().try_collect().await.unwrap()
    }

    #[tokio::test]
    async fn a_body_goes_out_as_often_as_asked() {
        assert_eq!(collected(&args(&["hi"])).await, ["hi"]);
        assert_eq!(collected(&args(&["-5"])).await, ["-5"]);
        assert_eq!(collected(&args(&["hi", "-n", "3"])).await, ["hi"; 3]);
        assert_eq!(collected(&args(&["hi", "-n", "2", "--every", "1ms"])).await, ["hi"; 2]);
    }

    #[tokio::test]
    async fn lines_and_a_body_exclude_each_other() {
        let failure = bodies(&args(&["hi", "--lines"])).await.err().unwrap();
        assert_eq!(failure.outcome(), Outcome::Usage);
        assert!(Line::try_parse_from(["pub", "t", "--lines", "-n", "2"]).is_err());
        assert!(Line::try_parse_from(["pub", "t", "hi", "--file", "f"]).is_err());
        assert!(Line::try_parse_from(["pub", "t", "hi", "-n", "0"]).is_err());
    }

    #[test]
    fn a_missing_body_is_answered_with_three_examples() {
        assert_eq!(no_body("demo.hello").hints().len(), 3);
    }
}
