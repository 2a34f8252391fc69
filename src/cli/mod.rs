//! The command line. It uses what a third party could use, the crate's public API, and nothing else; and it is the only
//! part of pombo that prints.
//!
//! Each verb has a file with its flags and its work ([`config`] has a directory); [`banner`] belongs to `node`, [`tally`] to `pub`, [`exec`] to `serve`.
//! What they share: [`args`] (the command tree and the flags of all verbs), [`context`] (a node for the verb, and its
//! goodbye), [`output`] (who writes where), [`failure`] (how a verb ends), [`usage`] (how one does not begin), [`signals`],
//! [`parse`], [`input`], [`text`], [`json`], [`table`] and [`names`].

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
mod completions;
mod config;
mod context;
mod exec;
mod failure;
mod id;
mod input;
mod json;
mod man;
mod names;
mod node;
mod output;
mod parse;
mod peers;
mod publish;
mod request;
mod serve;
mod services;
mod signals;
mod sub;
mod table;
mod tally;
mod text;
mod topics;
mod usage;

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
    trace(&common);
    let output = Output::new(&common);
    let result = run(Context { common, settings, output, signals: Signals::default() }, verb);
    output.exit(result)
}

fn run(context: Context, verb: Verb) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Outcome::Failed, format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(async {
        context.signals.listen()?;
        match verb {
            Verb::Node(args) => node::run(&context, args).await,
            Verb::Pub(args) => publish::run(&context, args).await,
            Verb::Sub(args) => sub::run(&context, args).await,
            Verb::Request(args) => request::run(&context, args).await,
            Verb::Serve(args) => serve::run(&context, args).await,
            Verb::Peers => peers::run(&context).await,
            Verb::Topics => topics::run(&context).await,
            Verb::Services => services::run(&context).await,
            Verb::Id => id::run(&context),
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
fn trace(common: &Common) {
    let default = match (common.quiet, common.verbose) {
        (true, _) => "error",
        (false, 0) => "error,pombo=warn",
        (false, 1) => "warn,pombo=info",
        (false, 2) => "info,pombo=debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_env("POMBO_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::colored(common.color, &std::io::stderr()))
        .init();
}
