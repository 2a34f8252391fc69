//! Many nodes of pombo in one process, linked over memory by a random graph: what they deliver, and what that costs.
//!
//! Everything but TCP is what programs run: the gate, noise, yamux, gossipsub, the exchanges with neighbours, the mesh. Each
//! size has a process of its own, so that the memory of one is not counted in the next.

mod counters;
mod graph;
mod load;
mod network;
mod process;
mod report;
mod run;

use std::error::Error;
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use clap::builder::RangedU64ValueParser;

use report::Report;

type Failure = Box<dyn Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// Run many nodes in one process, and print how they deliver and what that costs
#[derive(Clone, Debug, Parser)]
#[command(name = "growth")]
struct Cli {
    /// How many nodes; of several sizes one after the other
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [10, 50, 200], value_parser = at_least(2))]
    nodes: Vec<usize>,
    /// Links of each node
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least(2))]
    degree: usize,
    /// Messages a second, of all nodes together
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = at_least(1))]
    rate: usize,
    /// Topics that every node subscribes to, and messages are spread over
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least(1))]
    topics: usize,
    /// How long messages are published
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = at_least(1))]
    seconds: usize,
    /// Bytes in the body of a message
    #[arg(long, value_name = "N", default_value_t = 128)]
    size: usize,
    /// What the graph, the publishers and the topics are drawn from; another one each time if it is left out
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print an object of JSON for each size in place of the table
    #[arg(long)]
    json: bool,
}

fn at_least(least: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match sizes(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        // Something was lost or came twice.
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether each message came, and once.
fn sizes(cli: &Cli) -> Result<bool> {
    let seed = match cli.seed {
        Some(seed) => seed,
        None => process::now() % 1_000_000,
    };
    if cfg!(debug_assertions) {
        eprintln!("built without --release: these figures say little");
    }
    if !cli.json {
        println!("{}\n", report::heading(cli, seed));
    }
    let mut reports = Vec::new();
    for nodes in cli.nodes.iter().copied() {
        let report = match cli.nodes.len() {
            1 => run::run(cli, nodes, seed)?,
            _ => apart(cli, nodes, seed)?,
        };
        if cli.json {
            println!("{}", serde_json::to_string(&report)?);
        }
        reports.push(report);
    }
    if !cli.json {
        println!("{}", report::table(&reports));
    }
    Ok(reports.iter().all(Report::is_complete))
}

/// Runs one size in a process of its own.
fn apart(cli: &Cli, nodes: usize, seed: u64) -> Result<Report> {
    let options = [
        ("--nodes", nodes),
        ("--degree", cli.degree),
        ("--rate", cli.rate),
        ("--topics", cli.topics),
        ("--seconds", cli.seconds),
        ("--size", cli.size),
    ];
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--json").arg("--seed").arg(seed.to_string());
    for (name, value) in options {
        command.arg(name).arg(value.to_string());
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{nodes} nodes: {} ({error})", output.status).into())
}
