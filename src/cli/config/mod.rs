//! The configuration file, and `pombo config`, which writes and shows it.
//!
//! What the file says becomes the default of the flag that it names, so a flag goes before its variable, and both before
//! the file, by clap's own rules. [`keys`] says what can stand in a file, [`file`] reads one, [`limits`] is its table of
//! limits, [`template`] and [`show`] are what the verb prints.

mod file;
mod keys;
mod limits;
mod show;
mod template;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};
use etcetera::BaseStrategy;
use pombo::{Limits, Outcome};
use serde::Serialize;

use self::file::{File, Value};
use self::keys::{Flag, Key, Setting};
use self::show::Origin;
use super::args::{Cli, Common, Verb};
use super::context::Context;
use super::failure::Failure;

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo config init
  pombo config show
  pombo config show --json --config ./pombo.toml

The file is $XDG_CONFIG_HOME/pombo/config.toml, or else ~/.config/pombo/config.toml. A flag goes before its variable, that \
before the file, and the file before the default. To do without the file: --config /dev/null";

#[derive(clap::Args, Debug)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Subcommand)]
enum Action {
    /// Write a file that has every key, with what it does and its default
    Init,
    /// Print what is in force, and where each value comes from
    Show,
}

/// Of these, the one that is said with more emphasis sets the other aside.
const RIVALS: [[&str; 2]; 2] = [["mesh", "open"], ["quiet", "verbose"]];

/// What the flags, the environment and the file say together.
#[derive(Debug)]
pub(super) struct Settings {
    keys: Vec<Key>,
    matches: ArgMatches,
    /// Where the file is, or would be.
    path: Option<PathBuf>,
    file: Option<File>,
    pub(super) limits: Limits,
}

/// Adds what the configuration file says to what was typed.
pub(super) fn settle(typed: ArgMatches, cli: Cli) -> Result<(Cli, Settings), Failure> {
    let keys = keys::all();
    let path = cli.common.config.clone().or_else(default_path);
    let mut settings = Settings { keys, matches: typed, path, file: None, limits: Limits::default() };
    if !reads_file(&cli.verb) {
        return Ok((cli, settings));
    }
    let Some(mut file) = settings.read(&cli.common)? else { return Ok((cli, settings)) };
    set_aside(&mut file, &settings.matches)?;
    let command = file.entries.iter().fold(Cli::command(), |command, entry| match (&entry.key.setting, &entry.value) {
        (Setting::Flag(flag), Value::Typed(values)) => with_default(command, &entry.key, flag, values),
        (Setting::Flag(_) | Setting::Limit(_), _) => command,
    });
    let said_wrong = |error: clap::Error| Failure::new(Outcome::Usage, super::usage::message(&error));
    settings.matches = command.try_get_matches().map_err(said_wrong)?;
    let cli = Cli::from_arg_matches(&settings.matches).map_err(said_wrong)?;
    limits::each(&mut settings.limits, |limit, value| {
        let entry = file
            .entries
            .iter()
            .find(|entry| matches!(&entry.key.setting, Setting::Limit(set) if set.name == limit.name));
        if let Some(Value::Number(number)) = entry.map(|entry| &entry.value) {
            *value = *number;
        }
    });
    settings.file = Some(file);
    Ok((cli, settings))
}

/// Whether a verb does something that the file could change. The others work whatever is in there.
fn reads_file(verb: &Verb) -> bool {
    match verb {
        Verb::Config(args) => args.action == Action::Show,
        Verb::Completions(_) | Verb::Man(_) => false,
        Verb::Bench(args) => !args.is_worker(),
        Verb::Node(_)
        | Verb::Pub(_)
        | Verb::Sub(_)
        | Verb::Request(_)
        | Verb::Serve(_)
        | Verb::Peers(_)
        | Verb::Topics(_)
        | Verb::Services(_)
        | Verb::Undelivered(_)
        | Verb::Subscriptions(_)
        | Verb::Outbox(_)
        | Verb::Where(_)
        | Verb::Id
        | Verb::Doctor => true,
    }
}

fn default_path() -> Option<PathBuf> {
    let directory = etcetera::choose_base_strategy().ok()?.config_dir();
    Some(directory.join("pombo").join("config.toml"))
}

fn with_default(command: Command, key: &Key, flag: &Flag, values: &[OsString]) -> Command {
    let id = flag.id();
    match &key.table {
        None => command.mut_arg(id, |arg| Flag::by_default(arg, values)),
        Some(verb) => command.mut_subcommand(verb, |verb| verb.mut_arg(id, |arg| Flag::by_default(arg, values))),
    }
}

/// Drops from the file what a flag or a variable makes void though it has another name. Two such in the file are an error.
fn set_aside(file: &mut File, typed: &ArgMatches) -> Result<(), Failure> {
    for [one, other] in RIVALS {
        for (loser, winner) in [(one, other), (other, one)] {
            if is_on(typed, winner) {
                file.entries.retain(|entry| entry.key.to_string() != loser);
            }
        }
        let mut both =
            file.entries.iter().filter(|entry| [one, other].contains(&&*entry.key.to_string()) && !entry.is_off());
        if let (Some(first), Some(second)) = (both.next(), both.next()) {
            let (place, line) = (file.place(second), first.line);
            let what =
                format!("{place}: the key \"{}\" cannot stand beside \"{}\" in line {line}", second.key, first.key);
            return Err(Failure::new(Outcome::Usage, what));
        }
    }
    Ok(())
}

/// Whether a flag, or its variable, says something else than that it is off.
fn is_on(matches: &ArgMatches, id: &str) -> bool {
    let said = matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
    let off = matches.try_get_one::<bool>(id).is_ok_and(|on| on == Some(&false))
        || matches.try_get_one::<u8>(id).is_ok_and(|count| count == Some(&0));
    said && !off
}

impl Settings {
    fn read(&self, common: &Common) -> Result<Option<File>, Failure> {
        let Some(path) = &self.path else { return Ok(None) };
        let file = File::read(path, &self.keys)?;
        match (&file, &common.config) {
            (None, Some(path)) => Err(missing(path)),
            (Some(_), _) | (None, None) => Ok(file),
        }
    }

    /// Whether `--json` was typed. Scripts and pages are what they are though a variable or the file ask for JSON: a shell
    /// that starts, and reads one, would not know.
    pub(super) fn is_json_typed(&self) -> bool {
        self.typed(&["json"]).is_some()
    }

    /// The first of these flags that was typed, as it is typed.
    pub(super) fn typed(&self, ids: &[&str]) -> Option<String> {
        let is_typed = |id: &&&str| self.matches.value_source(id) == Some(ValueSource::CommandLine);
        ids.iter().find(is_typed).map(|id| format!("--{}", id.replace('_', "-")))
    }

    /// For each of these flags that is set but was not typed, who sets it.
    pub(super) fn culprits(&self, ids: &[&str]) -> Vec<String> {
        let all = self.keys.iter().filter(|key| key.table.is_none());
        let concerned = all.filter_map(|key| match &key.setting {
            Setting::Flag(flag) if ids.contains(&flag.id()) => {
                let entry = self.file.as_ref().and_then(|file| Some((file, file.entry(key)?)));
                Some((key, Origin::of(flag, &self.matches, entry)))
            }
            Setting::Flag(_) | Setting::Limit(_) => None,
        });
        let told = concerned.filter_map(|(key, origin)| match origin {
            Origin::Env { variable } => Some(format!("\"{key}\" is set by the variable {variable}")),
            Origin::File { file, line } => Some(format!("\"{key}\" is set in {}:{line}", file.path.display())),
            Origin::Flag { .. } | Origin::Default => None,
        });
        told.collect()
    }
}

fn missing(path: &Path) -> Failure {
    let what = format!("there is no configuration file {}", path.display());
    let word = super::text::shell(&path.to_string_lossy()).into_owned();
    Failure::new(Outcome::Usage, what).hint(format!("pombo config init --config {word}"))
}

#[derive(Serialize)]
struct Written {
    path: String,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    match args.action {
        Action::Init => init(context),
        Action::Show => show::run(context),
    }
}

fn init(context: &Context) -> Result<(), Failure> {
    let nowhere = || Failure::new(Outcome::Usage, "the home directory is not known: name a file with --config");
    let path = context.settings.path.as_deref().ok_or_else(nowhere)?;
    let written = write_new(path, &template::template(&context.settings.keys));
    written.map_err(|error| refused(path, &error))?;
    let shown = path.display().to_string();
    if context.output.is_json() {
        return context.output.object(&Written { path: shown });
    }
    context.output.note(format_args!("wrote {shown}: nothing is set in it yet"));
    Ok(())
}

/// Writes a file that is not there yet, all of it or nothing.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut file = std::fs::File::create_new(path)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).inspect_err(|_| {
        // What is there is of no use; that the disk is full is what the user has to know.
        let _ = std::fs::remove_file(path);
    })
}

fn refused(path: &Path, error: &std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::AlreadyExists && path.exists() {
        let what = format!("{} is there already, and is left as it is", path.display());
        return Failure::new(Outcome::Usage, what)
            .hint("move it away first, or write the new one elsewhere with --config FILE");
    }
    Failure::new(Outcome::Failed, format!("cannot write {}: {error}", path.display()))
}
