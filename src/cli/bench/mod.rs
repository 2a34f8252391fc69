//! `pombo bench`: how fast it goes here. Every node is a process of its own, which this one starts.
//!
//! [`conduct`] has the course of it. [`plan`] is what the processes tell each other, [`crew`] has them from outside and
//! [`worker`] from inside: there [`traffic`] and [`calls`] are what the roles do, with [`clock`], [`ledger`] and [`latency`]
//! to measure. [`report`] is what is printed.

mod calls;
mod clock;
mod conduct;
mod crew;
mod latency;
mod ledger;
mod plan;
mod report;
mod traffic;
mod worker;

use std::num::NonZeroU64;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use pombo::{Multiaddr, Outcome};
use serde::Serialize;

use self::conduct::Bench;
use super::context::Context;
use super::failure::Failure;
use super::parse;

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo bench pubsub
  pombo bench pubsub --rate 1000
  pombo bench fanout --subscribers 8 --size 1KiB
  pombo bench request --in-flight 1 --json

Without --in-mesh the nodes are a mesh of their own, on this machine, which nothing disturbs and which is gone afterwards.";

/// How long the processes may take to find each other.
const START: Duration = Duration::from_secs(20);

/// How much longer than asked for it may take until all is sent, and then until all has come.
const GRACE: Duration = Duration::from_secs(30);

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// One publishes, one subscribes
    #[command(
        after_help = "Examples:\n  pombo bench pubsub\n  pombo bench pubsub --rate 1000 --size 1KiB --duration 10s"
    )]
    Pubsub(Flags),
    /// One publishes, many subscribe
    #[command(after_help = "Examples:\n  pombo bench fanout\n  pombo bench fanout --subscribers 32 --rate 1000")]
    Fanout {
        /// How many subscribe
        #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
        subscribers: u16,
        #[command(flatten)]
        flags: Flags,
    },
    /// One asks, one answers
    #[command(after_help = "Examples:\n  pombo bench request\n  pombo bench request --in-flight 1 --rate 500")]
    Request {
        /// How many requests may be under way at once
        #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        in_flight: u16,
        #[command(flatten)]
        flags: Flags,
    },
    /// Be one of the processes of a benchmark
    #[command(hide = true)]
    Worker,
}

#[derive(clap::Args, Debug)]
struct Flags {
    /// Send so many a second; latency counts from when each is due [default: as many as go]
    #[arg(long, value_name = "N", value_parser = rate)]
    rate: Option<NonZeroU64>,
    /// The bytes of each, such as 1KiB, beside its number and time
    #[arg(long, value_name = "BYTES", default_value = "128B", value_parser = size)]
    size: usize,
    /// How long to send, up to 1h
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    duration: Duration,
    /// What the nodes of the benchmark's own mesh talk over
    #[arg(long, value_enum, value_name = "KIND", default_value = "tcp", conflicts_with = "in_mesh")]
    transport: Transport,
    /// Be part of the mesh of the other nodes here, or of that which --mesh, --open and --peer lead to
    #[arg(long)]
    in_mesh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Transport {
    Tcp,
    #[cfg(feature = "quic")]
    Quic,
}

impl Transport {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            #[cfg(feature = "quic")]
            Self::Quic => "quic",
        }
    }

    fn address(self) -> Option<Multiaddr> {
        let address = match self {
            Self::Tcp => "/ip4/127.0.0.1/tcp/0",
            #[cfg(feature = "quic")]
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
        };
        address.parse().ok()
    }
}

fn rate(text: &str) -> Result<NonZeroU64, String> {
    text.parse().map_err(|_| "it is no rate: write a number above 0, such as 1000".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    let size = text.parse::<ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
    size.ok_or_else(|| "it is no size: write a number and its unit, such as 128B or 64KiB".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = parse::duration(text)?;
    if duration.is_zero() || duration > Duration::from_secs(3_600) {
        return Err("it can be from 1ms to 1h".to_owned());
    }
    Ok(duration)
}

impl Args {
    /// Whether this is one of the processes that another has started.
    pub(super) fn is_worker(&self) -> bool {
        matches!(self.action, Action::Worker)
    }
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Failure> {
    let (flags, kind) = match args.action {
        Action::Worker => return worker::run().await,
        Action::Pubsub(flags) => (flags, Kind::Traffic { name: "pubsub", subscribers: 1 }),
        Action::Fanout { subscribers, flags } => {
            (flags, Kind::Traffic { name: "fanout", subscribers: subscribers.into() })
        }
        Action::Request { in_flight, flags } => (flags, Kind::Requests { in_flight: in_flight.into() }),
    };
    refuse_what_does_nothing(context, flags.in_mesh)?;
    if cfg!(debug_assertions) {
        context.output.warn("this is no optimised build: its figures say little");
    }
    let mut bench = Bench::new(context, &flags)?;
    let done = match kind {
        Kind::Traffic { name, subscribers } => context.unless_stopped(bench.traffic(name, subscribers)).await,
        Kind::Requests { in_flight } => context.unless_stopped(bench.requests(in_flight)).await,
    };
    bench.dismiss().await;
    done.ok_or_else(Failure::interrupted)?
}

#[derive(Clone, Copy)]
enum Kind {
    Traffic { name: &'static str, subscribers: usize },
    Requests { in_flight: usize },
}

/// Whoever types one of these expects something of it.
fn refuse_what_does_nothing(context: &Context, in_mesh: bool) -> Result<(), Failure> {
    if let Some(flag) = context.settings.typed(&["name", "key", "listen"]) {
        return Err(Failure::new(Outcome::Usage, format!("{flag} is for one node, and a benchmark has several")));
    }
    match context.settings.typed(&["mesh", "open", "data_dir", "peer", "dns"]) {
        Some(flag) if !in_mesh => {
            let what = format!("{flag} does nothing here: the benchmark has a mesh of its own");
            Err(Failure::new(Outcome::Usage, what).hint("--in-mesh has it take part in one that is there"))
        }
        Some(_) | None => Ok(()),
    }
}
