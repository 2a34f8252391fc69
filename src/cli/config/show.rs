//! `pombo config show`: each key, what it is in the end, and who says so.

use std::fmt;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use pombo::Outcome;
use serde::Serialize;
use serde_json::Value;

use super::file::{Entry, File};
use super::keys::{Flag, Key, Setting};
use super::limits;
use super::{Settings, file};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::table::Table;
use crate::cli::text;

#[derive(Serialize)]
struct Listing<'a> {
    /// The file that was read.
    file: Option<String>,
    items: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    key: String,
    value: Value,
    #[serde(flatten)]
    origin: Origin<'a>,
    /// The value for people, where that is not the same.
    #[serde(skip)]
    shown: Option<String>,
}

/// Who says what a value is.
#[derive(Serialize)]
#[serde(tag = "origin", rename_all = "kebab-case")]
pub(super) enum Origin<'a> {
    Flag {
        flag: String,
    },
    Env {
        variable: String,
    },
    File {
        #[serde(skip)]
        file: &'a File,
        line: usize,
    },
    Default,
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag { flag } => write!(f, "flag {flag}"),
            Self::Env { variable } => write!(f, "variable {variable}"),
            Self::File { file, line } => write!(f, "{}:{line}", file.path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

impl<'a> Origin<'a> {
    /// Who says what this flag is.
    pub(super) fn of(flag: &Flag, matches: &ArgMatches, entry: Option<(&'a File, &Entry)>) -> Self {
        match (matches.value_source(flag.id()), entry) {
            (Some(ValueSource::CommandLine), _) => Self::Flag { flag: flag.typed() },
            (Some(ValueSource::EnvVariable), _) => Self::Env { variable: flag.variable() },
            (_, Some((file, entry))) => Self::File { file, line: entry.line },
            (_, None) => Self::Default,
        }
    }
}

pub(super) fn run(context: &Context) -> Result<(), Failure> {
    let settings = &context.settings;
    let items = settings.keys.iter().map(|key| row(settings, key)).collect::<Result<Vec<_>, _>>()?;
    if context.output.is_json() {
        let file = settings.file.as_ref().map(|file| file.path.display().to_string());
        return context.output.object(&Listing { file, items });
    }
    let mut table = Table::new(["KEY", "VALUE", "FROM"]);
    for row in items {
        let value = row.shown.unwrap_or_else(|| shown(&row.value));
        table.row([row.key, text::escape(&value).into_owned(), text::escape(&row.origin.to_string()).into_owned()]);
    }
    context.output.table(&table)?;
    if settings.file.is_none() {
        let path = settings.path.as_ref().map_or_else(String::new, |path| format!(" at {}", path.display()));
        context.output.note(format_args!("there is no configuration file{path}: `pombo config init` writes one"));
    }
    Ok(())
}

fn row<'a>(settings: &'a Settings, key: &Key) -> Result<Row<'a>, Failure> {
    let entry = settings.file.as_ref().and_then(|file| Some((file, file.entry(key)?)));
    let (value, origin, shown) = match (&key.setting, &key.table) {
        (Setting::Limit(limit), _) => {
            let mut number = limit.value;
            limits::each(&mut settings.limits.clone(), |each, value| {
                number = if each.name == limit.name { *value } else { number };
            });
            let origin = entry.map_or(Origin::Default, |(file, entry)| Origin::File { file, line: entry.line });
            (number.into(), origin, Some(limit.unit.shown(number)))
        }
        (Setting::Flag(flag), None) => {
            (flag.value(&settings.matches), Origin::of(flag, &settings.matches, entry), None)
        }
        (Setting::Flag(flag), Some(_)) => {
            let matches = unsaid(flag, entry.map(|(_, entry)| entry))?;
            (flag.value(&matches), Origin::of(flag, &matches, entry), None)
        }
    };
    Ok(Row { key: key.to_string(), value, origin, shown })
}

/// What a flag of another verb is when it is not typed.
fn unsaid(flag: &Flag, entry: Option<&Entry>) -> Result<ArgMatches, Failure> {
    let alone = flag.alone().env(flag.variable());
    let arg = match entry.map(|entry| &entry.value) {
        Some(file::Value::Typed(values)) => Flag::by_default(alone, values),
        Some(file::Value::Number(_)) | None => alone,
    };
    let matches = Command::new("pombo").no_binary_name(true).arg(arg).try_get_matches_from([""; 0]);
    matches.map_err(|_| {
        let variable = flag.variable();
        let value = std::env::var_os(&variable).unwrap_or_default().to_string_lossy().into_owned();
        let why = flag.check(&value).err().unwrap_or_default();
        Failure::new(Outcome::Usage, format!("invalid value \"{value}\" in the variable {variable}: {why}"))
    })
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => "-".to_owned(),
        Value::Array(all) => all.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}
