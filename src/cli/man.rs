//! `pombo man`: the manual pages, which say what the help says.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use pombo::Outcome;
use serde::Serialize;

use super::args::Cli;
use super::context::Context;
use super::failure::Failure;

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo man | man -l -
  pombo man ~/.local/share/man/man1

Afterwards `man pombo` has the verbs, and `man pombo-sub` the flags of one.";

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Write the pages of all verbs into this directory, made if it is not there [default: print the page of pombo]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

#[derive(Serialize)]
struct Page<'a> {
    name: &'static str,
    page: &'a str,
}

#[derive(Serialize)]
struct Written<'a> {
    directory: Cow<'a, str>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let command = unabridged(Cli::command());
    let json = context.settings.is_json_typed();
    if let Some(directory) = &args.directory {
        write(command, directory).map_err(|error| {
            Failure::new(Outcome::Failed, format!("cannot write to {}: {error}", directory.display()))
        })?;
        let directory = directory.to_string_lossy();
        if json {
            return context.output.object(&Written { directory });
        }
        context.output.note(format_args!("wrote the pages to {directory}"));
        return Ok(());
    }
    let mut page = Vec::new();
    let rendered = Man::new(command).render(&mut page);
    rendered.map_err(|error| Failure::new(Outcome::Failed, format!("cannot write the page: {error}")))?;
    if json {
        return context.output.object(&Page { name: "pombo.1", page: &String::from_utf8_lossy(&page) });
    }
    context.output.data(&page)
}

/// Of what the short help leaves out, the pages would have the names only.
fn unabridged(command: Command) -> Command {
    command.mut_args(|flag| flag.hide_short_help(false)).mut_subcommands(unabridged)
}

fn write(command: Command, directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(command, directory)
}
