//! pombo and other ways to send messages, side by side: the same load on each in turn, round after round, and a table of
//! medians and ratios. Every publisher, subscriber, server and broker is a process of its own.

mod bench;
mod brokers;
mod clock;
mod endpoint;
mod guard;
mod load;
mod process;
mod systems;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// Compare pombo with other ways to send messages, on this machine
#[derive(Debug, Parser)]
#[command(name = "versus")]
struct Cli {
    /// One short round of the most telling measures
    #[arg(long)]
    quick: bool,
    /// How many rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Guaranteed messages instead: on disk before they are confirmed, and until they are acknowledged (needs --features store)
    #[arg(long)]
    guaranteed: bool,
    /// Fail if pombo has become slower against what it is made of (a minute; needs --features raw)
    #[arg(long, conflicts_with_all = ["quick", "rounds", "only", "guaranteed"])]
    guard: bool,
    /// Only these beside pombo, separated by commas
    #[arg(long, value_name = "SYSTEMS", value_enum, value_delimiter = ',')]
    only: Vec<System>,
    #[command(subcommand)]
    endpoint: Option<Endpoint>,
}

#[derive(Debug, Subcommand)]
enum Endpoint {
    /// Be one of the processes under measurement
    #[command(hide = true)]
    Endpoint { spec: String },
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
enum System {
    Pombo,
    /// All messages by gossip, as they go where there are many listeners, or some that are no neighbours.
    PomboGossip,
    Nats,
    ZenohTcp,
    ZenohTls,
    Grpc,
    GrpcTls,
    Http1,
    Zeromq,
    Mosquitto,
    Rabbitmq,
    /// NATS with streams on disk, which are synced every two minutes.
    Jetstream,
    /// The same, and each message is synced before it is confirmed.
    JetstreamSynced,
    /// What the disk does by itself: one message is appended and synced.
    Fsync,
    /// What pombo is made of, bare.
    Libp2pStream,
    Libp2pRequestResponse,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            Self::Pombo => "pombo",
            Self::PomboGossip => "pombo, all by gossip",
            Self::Nats => "NATS core",
            Self::ZenohTcp => "Zenoh, TCP",
            Self::ZenohTls => "Zenoh, TLS",
            Self::Grpc => "gRPC (tonic)",
            Self::GrpcTls => "gRPC (tonic), TLS",
            Self::Http1 => "HTTP/1.1 (hyper)",
            Self::Zeromq => "ZeroMQ",
            Self::Mosquitto => "Mosquitto, QoS 0",
            Self::Rabbitmq => "RabbitMQ",
            Self::Jetstream => "NATS JetStream, synced every 2 minutes",
            Self::JetstreamSynced => "NATS JetStream, synced always",
            Self::Fsync => "one fsync",
            Self::Libp2pStream => "libp2p stream",
            Self::Libp2pRequestResponse => "libp2p request-response",
        }
    }

    fn is_encrypted(self) -> bool {
        let plain = matches!(self, Self::Nats | Self::ZenohTcp | Self::Grpc | Self::Http1);
        let brokers = matches!(self, Self::Mosquitto | Self::Rabbitmq | Self::Jetstream | Self::JetstreamSynced);
        !plain && !brokers && !matches!(self, Self::Zeromq | Self::Fsync)
    }

    /// Whether it is compiled in.
    fn is_built(self) -> bool {
        match self {
            Self::Pombo | Self::PomboGossip | Self::Fsync => true,
            Self::Nats | Self::Jetstream | Self::JetstreamSynced => cfg!(feature = "nats"),
            Self::ZenohTcp | Self::ZenohTls => cfg!(feature = "zenoh"),
            Self::Grpc | Self::GrpcTls => cfg!(feature = "grpc"),
            Self::Http1 => cfg!(feature = "http"),
            Self::Zeromq => cfg!(feature = "zeromq"),
            Self::Mosquitto => cfg!(feature = "mosquitto"),
            Self::Rabbitmq => cfg!(feature = "rabbitmq"),
            Self::Libp2pStream | Self::Libp2pRequestResponse => cfg!(feature = "raw"),
        }
    }

    fn publishes(self) -> bool {
        !matches!(self, Self::Grpc | Self::GrpcTls | Self::Http1 | Self::Libp2pRequestResponse)
            && !matches!(self, Self::Jetstream | Self::JetstreamSynced | Self::Fsync)
    }

    fn asks(self) -> bool {
        let raw = matches!(self, Self::Libp2pStream | Self::Libp2pRequestResponse);
        raw || matches!(self, Self::Pombo | Self::Nats | Self::Grpc | Self::GrpcTls | Self::Http1)
    }

    /// Whether it can put a message on disk before it confirms it.
    fn guarantees(self) -> bool {
        matches!(self, Self::Pombo | Self::Rabbitmq | Self::Jetstream | Self::JetstreamSynced | Self::Fsync)
    }

    /// Whether subscribers connect to the publisher.
    fn publisher_listens(self) -> bool {
        matches!(self, Self::ZenohTcp | Self::ZenohTls | Self::Zeromq)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.endpoint {
        Some(Endpoint::Endpoint { spec }) => endpoint::run(spec),
        None if cli.guard => guard::run(),
        None if cli.guaranteed && !cfg!(feature = "store") => {
            Err("this was built without guaranteed messages: build it with --features store".into())
        }
        None => bench::run(&bench::Plan::new(cli.quick, cli.rounds, &cli.only, cli.guaranteed)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
