//! The file that `pombo config init` writes: every key with what it does, and nothing set.

use std::fmt::Write as _;

use super::keys::{Flag, Key, Kind, Setting};

const HEAD: &str = "\
# The configuration of pombo, in TOML. `pombo config show` prints what is in force, and where each value comes from.
#
# What is typed as a flag goes before the variable in the environment, that before this file, and this file before the
# default. A list replaces the one that it goes before.
#
# Here every key stands behind a #, with its default, or with an example where the default depends on the machine.
# Take the # away to set it. Paths that are relative start at the directory of this file.
";

/// The text of the file.
pub(super) fn template(keys: &[Key]) -> String {
    let mut text = HEAD.to_owned();
    let mut table = None;
    for key in keys {
        if key.table.as_deref() != table {
            table = key.table.as_deref();
            // Writing to a string does not fail.
            let _ = writeln!(text, "\n[{}]", table.unwrap_or_default());
        }
        let _ = writeln!(text, "\n# {}\n#{} = {}", about(key), key.name, value(key));
    }
    text
}

/// What the key does, and what else does the same.
fn about(key: &Key) -> String {
    match &key.setting {
        Setting::Limit(limit) => limit.help.to_owned(),
        Setting::Flag(flag) => {
            let help = flag.arg.get_help().map_or_else(String::new, ToString::to_string);
            format!("{help} ({}, {})", flag.typed(), flag.variable())
        }
    }
}

/// The default, or an example, as TOML.
fn value(key: &Key) -> String {
    match &key.setting {
        Setting::Limit(limit) => match limit.unit {
            super::limits::Unit::Bytes => format!("\"{}\"", limit.unit.shown(limit.value)),
            super::limits::Unit::Count => limit.unit.shown(limit.value),
        },
        Setting::Flag(flag) => match flag.kind {
            Kind::Switch => "false".to_owned(),
            Kind::Count => "0".to_owned(),
            Kind::List => "[]".to_owned(),
            Kind::Text => {
                let default = flag.arg.get_default_values().first().and_then(|value| value.to_str());
                format!("\"{}\"", default.unwrap_or_else(|| example(flag)))
            }
        },
    }
}

/// What could be written where nothing is written by default.
fn example(flag: &Flag) -> &'static str {
    match flag.id() {
        "mesh" => "lab",
        "name" => "shop",
        "key" => "/etc/pombo/key",
        "data_dir" => "/var/lib/pombo",
        "timeout" => "5s",
        // A test says that one is missing.
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::File;
    use super::super::keys;
    use super::*;

    fn read(text: &str) -> File {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        File::read(file.path(), &keys::all()).unwrap_or_else(|failure| panic!("{}", failure.message())).unwrap()
    }

    #[test]
    fn it_sets_nothing() {
        assert!(read(&template(&keys::all())).entries.is_empty());
    }

    #[test]
    fn with_nothing_behind_a_number_sign_it_sets_every_key() {
        let keys = keys::all();
        let is_key = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
        let text = template(&keys);
        assert_eq!(text.lines().filter(is_key).count(), keys.len());
        let set: Vec<_> = text.lines().map(|line| if is_key(&line) { &line[1..] } else { line }).collect();
        let file = read(&set.join("\n"));
        for key in &keys {
            assert!(file.entry(key).is_some(), "{key} is not set:\n{text}");
            assert!(!value(key).contains("\"\""), "give {key} an example in src/cli/config/template.rs");
        }
    }

    #[test]
    fn every_key_says_what_it_does() {
        for key in keys::all() {
            assert!(about(&key).len() > 20, "{key}: {}", about(&key));
        }
    }
}
