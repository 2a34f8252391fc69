//! `pombo completions`: scripts that let a shell complete pombo's verbs and flags.

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use serde::Serialize;

use super::args::Cli;
use super::context::Context;
use super::failure::Failure;

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo completions bash > ~/.local/share/bash-completion/completions/pombo
  pombo completions zsh > ~/.zfunc/_pombo
  pombo completions fish > ~/.config/fish/completions/pombo.fish

To try it in a running bash: source <(pombo completions bash)";

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The shell that is to read the script
    shell: Shell,
}

#[derive(Serialize)]
struct Script<'a> {
    shell: String,
    script: &'a str,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "pombo", &mut script);
    if context.settings.is_json_typed() {
        let script = String::from_utf8_lossy(&script);
        return context.output.object(&Script { shell: args.shell.to_string(), script: &script });
    }
    context.output.data(&script)
}
