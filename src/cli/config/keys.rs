//! The keys that the configuration file may have. None is listed here: a flag that has a variable is a key, named as the
//! flag. Those of all verbs stand at the top of the file, those of one verb in the verb's table.

use std::any::TypeId;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::builder::OsStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory};
use pombo::Limits;

use super::limits::{self, Limit};
use crate::cli::args::Cli;

/// Names the file itself, and so cannot stand in it.
const FILE: &str = "config";

#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The table that it stands in, unless that is the top of the file.
    pub(super) table: Option<String>,
    pub(super) name: String,
    pub(super) setting: Setting,
}

#[derive(Clone, Debug)]
pub(super) enum Setting {
    Flag(Box<Flag>),
    Limit(Limit),
}

/// A flag of the command line.
#[derive(Clone, Debug)]
pub(super) struct Flag {
    pub(super) arg: Arg,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Switch,
    Count,
    List,
    Text,
}

/// All keys, in the order in which they are shown.
pub(super) fn all() -> Vec<Key> {
    let command = Cli::command();
    let mut keys: Vec<_> = flags(&command, None).collect();
    keys.extend(command.get_subcommands().flat_map(|verb| flags(verb, Some(verb.get_name()))));
    limits::each(&mut Limits::default(), |limit, _| {
        let (table, name) = (Some(limits::TABLE.to_owned()), limit.name.to_owned());
        keys.push(Key { table, name, setting: Setting::Limit(limit) });
    });
    keys
}

fn flags<'a>(command: &'a Command, table: Option<&'a str>) -> impl Iterator<Item = Key> + 'a {
    let flags = command.get_arguments().filter(|arg| arg.get_env().is_some() && arg.get_id() != FILE);
    flags.map(move |arg| {
        let name = arg.get_id().as_str().replace('_', "-");
        Key { table: table.map(str::to_owned), name, setting: Setting::Flag(Box::new(Flag::new(arg))) }
    })
}

/// `peer`, `limits.message`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(table) = &self.table {
            write!(f, "{table}.")?;
        }
        f.write_str(&self.name)
    }
}

impl Flag {
    fn new(arg: &Arg) -> Self {
        let action = arg.get_action();
        let kind = if matches!(action, ArgAction::SetTrue) {
            Kind::Switch
        } else if matches!(action, ArgAction::Count) {
            Kind::Count
        } else if matches!(action, ArgAction::Append) {
            Kind::List
        } else {
            Kind::Text
        };
        Self { arg: arg.clone(), kind }
    }

    /// Its name in the command's definition.
    pub(super) fn id(&self) -> &str {
        self.arg.get_id().as_str()
    }

    /// How it is typed.
    pub(super) fn typed(&self) -> String {
        let short = || self.arg.get_short().map_or_else(String::new, |short| format!("-{short}"));
        self.arg.get_long().map_or_else(short, |long| format!("--{long}"))
    }

    pub(super) fn variable(&self) -> String {
        self.arg.get_env().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(super) fn is_path(&self) -> bool {
        self.arg.get_value_parser().type_id() == TypeId::of::<PathBuf>()
    }

    /// The flag by itself, without its variable and what it has to do with others.
    pub(super) fn alone(&self) -> Arg {
        let defaults = self.arg.get_default_values().to_vec();
        Arg::new(self.arg.get_id().clone())
            .long(self.name())
            .action(self.arg.get_action().clone())
            .value_parser(self.arg.get_value_parser().clone())
            .default_values(defaults)
    }

    fn name(&self) -> String {
        self.id().replace('_', "-")
    }

    /// Whether the flag could have this value; if not, what is wrong with it.
    pub(super) fn check(&self, value: &str) -> Result<(), String> {
        let command = Command::new("check").no_binary_name(true).arg(self.alone());
        let typed = format!("--{}={value}", self.name());
        command.try_get_matches_from([typed]).map(drop).map_err(|error| {
            if let Some(source) = std::error::Error::source(&error) {
                return source.to_string();
            }
            match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(valid)) if !valid.is_empty() => format!("it can be {}", valid.join(", ")),
                _ => "it must not be empty".to_owned(),
            }
        })
    }

    /// What it is, all said.
    pub(super) fn value(&self, matches: &ArgMatches) -> serde_json::Value {
        let texts = || matches.get_raw(self.id()).into_iter().flatten().map(|value| value.to_string_lossy());
        match self.kind {
            Kind::Switch => matches.get_flag(self.id()).into(),
            Kind::Count => matches.get_count(self.id()).into(),
            Kind::List => texts().collect(),
            Kind::Text => texts().next().into(),
        }
    }

    /// Makes this what the flag is where neither it nor its variable says anything.
    pub(super) fn by_default(arg: Arg, values: &[OsString]) -> Arg {
        arg.default_values(values.iter().map(OsStr::from))
    }
}
