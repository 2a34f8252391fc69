//! The command line. It uses what a third party could use, the crate's public API, and nothing else; and it is the only
//! part of pombo that prints.
//!
//! Each verb has a file with its flags and its work ([`bench`] and [`config`] have directories); [`banner`] belongs to `node`, [`tally`] to `pub`, [`exec`] to `serve` and `sub`.
//! What they share: [`args`] (the command tree and the flags of all verbs), [`context`] and [`bus`] (a node for the
//! verb, its own or one that runs, and its goodbye), [`output`] (who writes where), [`failure`] (how a verb ends), [`usage`] (how one does not begin), [`signals`],
//! [`parse`], [`input`], [`text`], [`json`], [`table`], [`listing`], [`progress`] and [`names`].

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use pombo::Outcome;
use tracing_subscriber::EnvFilter;

use self::args::{Cli, Common, Verb};
use self::context::Context;
use self::failure::Failure;
use self::output::Output;
use self::signals::Signals;

mod args;
mod banner;
mod bench;
mod bus;
mod completions;
mod config;
mod context;
mod doctor;
mod exec;
mod failure;
mod id;
mod input;
mod json;
mod listing;
mod man;
mod names;
mod node;
mod outbox;
mod output;
mod parse;
mod peers;
mod progress;
mod publish;
mod request;
mod serve;
mod services;
mod signals;
mod sub;
mod subscriptions;
mod table;
mod tally;
mod text;
mod topics;
mod undelivered;
mod usage;
mod whereabouts;

/// Reads the command line, does what it says, and tells how that ended.
pub(crate) fn main() -> ExitCode {
    let typed = Cli::command().try_get_matches();
    let typed = typed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match typed {
        Ok(typed) => typed,
        Err(error) => return usage::misunderstood(&error),
    };
    // What is wrong with the configuration is told as the flags want it.
    let output = Output::new(&cli.common);
    let (Cli { common, verb }, settings) = match config::settle(matches, cli) {
        Ok(settled) => settled,
        Err(failure) => return output.exit(Err(failure)),
    };
    let output = Output::new(&common);
    trace(&common, &verb, output);
    let result = run(Context { common, settings, output, signals: Signals::default() }, verb);
    output.exit(result)
}

fn run(context: Context, verb: Verb) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Outcome::Failed, format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(async {
        // Whoever serves has others waiting.
        let serves = matches!(verb, Verb::Serve(_));
        context.signals.listen(if serves { signals::DRAIN + signals::PATIENCE } else { signals::PATIENCE })?;
        match verb {
            Verb::Node(args) => node::run(&context, args).await,
            Verb::Pub(args) => publish::run(&context, args).await,
            Verb::Sub(args) => sub::run(&context, args).await,
            Verb::Request(args) => request::run(&context, args).await,
            Verb::Serve(args) => serve::run(&context, args).await,
            Verb::Peers(args) => listing::run(&context, args, peers::page).await,
            Verb::Topics(args) => listing::run(&context, args, topics::page).await,
            Verb::Services(args) => listing::run(&context, args, services::page).await,
            Verb::Undelivered(args) => undelivered::run(&context, args).await,
            Verb::Subscriptions(args) => subscriptions::run(&context, args).await,
            Verb::Outbox(args) => outbox::run(&context, &args).await,
            Verb::Where(args) => whereabouts::run(&context, args).await,
            Verb::Id => id::run(&context),
            Verb::Doctor => doctor::run(&context).await,
            Verb::Bench(args) => bench::run(&context, args).await,
            Verb::Config(args) => config::run(&context, &args),
            Verb::Completions(args) => completions::run(&context, &args),
            Verb::Man(args) => man::run(&context, &args),
        }
    });
    // A thread may be waiting for stdin, which nobody can interrupt: do not wait for it in turn.
    runtime.shutdown_background();
    result
}

/// Sends the library's tracing to stderr. `POMBO_LOG` takes filters such as `pombo=debug,libp2p=info`.
fn trace(common: &Common, verb: &Verb, output: Output) {
    let default = match (common.quiet, common.verbose) {
        // What its probes run into the doctor says itself.
        (_, 0) if matches!(verb, Verb::Doctor) => "off",
        (true, _) => "error",
        (false, 0) => "error,pombo=warn",
        (false, 1) => "warn,pombo=info",
        (false, 2) => "info,pombo=debug",
        (false, _) => "trace",
    };
    let filters = std::env::var("POMBO_LOG").ok().filter(|filters| !filters.is_empty());
    let filter = EnvFilter::try_new(filters.as_deref().unwrap_or(default)).unwrap_or_else(|error| {
        output.warn(format_args!("POMBO_LOG is not heeded, {error}: write it as pombo=debug,libp2p=info"));
        EnvFilter::new(default)
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| progress::Stderr)
        .with_ansi(output::colored(common.color, &std::io::stderr()))
        .init();
}
