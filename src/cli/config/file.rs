//! Reading the configuration file. Every mistake in it is told with its line.

use std::ffi::OsString;
use std::io::{ErrorKind, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use pombo::{Limits, Outcome};
use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::keys::{Flag, Key, Kind, Setting};
use super::limits::{self, Limit, Unit};
use crate::cli::failure::Failure;

/// The longest file that is read: a configuration has a few lines.
const LONGEST: u64 = 1024 * 1024;

/// What a file says.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// In the order of the file.
    pub(super) entries: Vec<Entry>,
}

/// A key that is set.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// For a flag, as if each had been typed.
    Typed(Vec<OsString>),
    /// For a limit.
    Number(usize),
}

/// What is wrong, and where in the text.
#[derive(Debug)]
struct Mistake {
    at: usize,
    what: String,
}

type Line<'a> = (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>);

impl File {
    /// Reads the file. `None`: it is not there.
    pub(super) fn read(path: &Path, keys: &[Key]) -> Result<Option<Self>, Failure> {
        let unreadable = |why: &dyn std::fmt::Display| {
            Failure::new(Outcome::Usage, format!("cannot read the configuration file {}: {why}", path.display()))
        };
        let mut bytes = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&error)),
            Ok(_) if bytes.len() as u64 > LONGEST => return Err(unreadable(&"it has more than 1 MiB")),
            Ok(_) => {}
        }
        let text = String::from_utf8(bytes).map_err(|error| unreadable(&error.utf8_error()))?;
        let entries = entries(&text, path, keys).map_err(|Mistake { at, what }| {
            Failure::new(Outcome::Usage, format!("{}:{}: {what}", path.display(), line(&text, at)))
        })?;
        Ok(Some(Self { path: path.to_owned(), entries }))
    }

    /// The entry for a key.
    pub(super) fn entry(&self, key: &Key) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.name == key.name && entry.key.table == key.table)
    }

    /// Where an entry stands.
    pub(super) fn place(&self, entry: &Entry) -> String {
        format!("{}:{}", self.path.display(), entry.line)
    }
}

impl Entry {
    /// Whether it only says that its flag is not set.
    pub(super) fn is_off(&self) -> bool {
        matches!(&self.value, Value::Typed(words) if words.iter().all(|word| word == "false" || word == "0"))
    }
}

/// The number of the line in which this byte is.
fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// What is set in the text, or the first mistake in it.
fn entries(text: &str, path: &Path, keys: &[Key]) -> Result<Vec<Entry>, Mistake> {
    let syntax = |error: toml::de::Error| {
        let at = error.span().map_or(0, |span: Range<usize>| span.start);
        Mistake { at, what: format!("this is no TOML: {}", error.message()) }
    };
    let document = DeTable::parse(text).map_err(syntax)?;
    let mut found = Vec::new();
    for top in document.get_ref() {
        let (name, at) = (top.0.get_ref(), top.0.span().start);
        if !keys.iter().any(|key| key.table.as_deref() == Some(name)) {
            found.push((at, entry(None, top, path, keys)));
        } else if let DeValue::Table(table) = top.1.get_ref() {
            found.extend(table.iter().map(|inner| (inner.0.span().start, entry(Some(name), inner, path, keys))));
        } else {
            let what = format!("[{name}] is a table of keys, not {}", article(top.1.get_ref().type_str()));
            found.push((at, Err(Mistake { at, what })));
        }
    }
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(at, entry)| entry.map(|(key, value)| Entry { key, line: line(text, at), value })).collect()
}

fn entry(table: Option<&str>, (name, value): Line<'_>, path: &Path, keys: &[Key]) -> Result<(Key, Value), Mistake> {
    let known = keys.iter().find(|key| key.table.as_deref() == table && key.name == *name.get_ref());
    let Some(key) = known else {
        return Err(Mistake { at: name.span().start, what: unknown(table, name.get_ref(), keys) });
    };
    let value = match &key.setting {
        Setting::Flag(flag) => Value::Typed(typed(key, flag, value, path)?),
        Setting::Limit(limit) => Value::Number(number(key, limit, value)?),
    };
    Ok((key.clone(), value))
}

/// Says that there is no such key, and which is the most like it.
fn unknown(table: Option<&str>, name: &str, keys: &[Key]) -> String {
    let plain = name.to_lowercase().replace('_', "-");
    let alike = |known: &str| strsim::normalized_damerau_levenshtein(&plain, known);
    // Who looks for what switches mDNS off may write `mdns = false`.
    let likeness = |known: &str| alike(known).max(alike(known.trim_start_matches("no-")));
    let in_keys = keys.iter().map(|key| (likeness(&key.name), key.table.as_deref() == table, place(key, table)));
    let in_tables = keys.iter().filter(|_| table.is_none()).filter_map(|key| key.table.as_deref());
    let in_tables = in_tables.map(|known| (likeness(known), true, format!("the table [{known}]")));
    let nearest = in_keys.chain(in_tables).max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let nearest = nearest.map_or_else(String::new, |(.., place)| format!(": the nearest that is known is {place}"));
    let within = table.map_or_else(String::new, |table| format!(" in [{table}]"));
    format!("unknown key \"{name}\"{within}{nearest}")
}

/// Where a key belongs, for somebody who looks for it in that table.
fn place(key: &Key, table: Option<&str>) -> String {
    match (&key.table, table) {
        (None, None) => format!("\"{}\"", key.name),
        (None, Some(_)) => format!("\"{}\", which stands above the first [table]", key.name),
        (Some(own), _) => format!("\"{}\" in [{own}]", key.name),
    }
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}

/// What could be typed to the same effect.
fn typed(key: &Key, flag: &Flag, value: &Spanned<DeValue<'_>>, path: &Path) -> Result<Vec<OsString>, Mistake> {
    let wrong = |wanted| wrong_type(key, wanted, value);
    match (flag.kind, value.get_ref()) {
        (Kind::Switch, DeValue::Boolean(on)) => Ok(vec![on.to_string().into()]),
        (Kind::Switch, _) => Err(wrong("true or false")),
        (Kind::Count, DeValue::Integer(count)) => match whole(count).and_then(|count| u8::try_from(count).ok()) {
            Some(count) => Ok(vec![count.to_string().into()]),
            None => Err(wrong("a number from 0 to 255")),
        },
        (Kind::Count, _) => Err(wrong("a number from 0 to 255")),
        (Kind::List, DeValue::Array(all)) => all.iter().map(|one| text(key, flag, one, path)).collect(),
        (Kind::List, _) => Err(wrong("a list of strings, such as [\"one\", \"two\"]")),
        (Kind::Text, _) => Ok(vec![text(key, flag, value, path)?]),
    }
}

fn text(key: &Key, flag: &Flag, value: &Spanned<DeValue<'_>>, path: &Path) -> Result<OsString, Mistake> {
    let DeValue::String(text) = value.get_ref() else { return Err(wrong_type(key, "a string, in quotes", value)) };
    flag.check(text).map_err(|why| {
        let what = format!("invalid value \"{text}\" for the key \"{key}\": {why}");
        Mistake { at: value.span().start, what }
    })?;
    Ok(if flag.is_path() { located(text, path) } else { OsString::from(text.as_ref()) })
}

/// A path of the file: one that is relative starts at the file, and `~` is the home directory.
fn located(text: &str, file: &Path) -> OsString {
    let home = text.strip_prefix("~/").zip(etcetera::home_dir().ok());
    let path = match home {
        Some((rest, home)) => home.join(rest),
        None => file.parent().unwrap_or(Path::new("")).join(text),
    };
    path.into_os_string()
}

fn number(key: &Key, limit: &Limit, value: &Spanned<DeValue<'_>>) -> Result<usize, Mistake> {
    let wanted = match limit.unit {
        Unit::Bytes => "a size, such as \"4 MiB\", or a number of bytes",
        Unit::Count => "a number",
    };
    let number = match (limit.unit, value.get_ref()) {
        (_, DeValue::Integer(number)) => whole(number),
        (Unit::Bytes, DeValue::String(text)) => limits::parse_size(text),
        _ => None,
    };
    let number = number.ok_or_else(|| wrong_type(key, wanted, value))?;
    let mut all = Limits::default();
    limits::each(&mut all, |each, value| *value = if each.name == limit.name { number } else { *value });
    all.check().map_err(|error| Mistake { at: value.span().start, what: error.to_string() })?;
    Ok(number)
}

fn whole(number: &DeInteger<'_>) -> Option<usize> {
    usize::from_str_radix(number.as_str(), number.radix()).ok()
}

fn wrong_type(key: &Key, wanted: &str, value: &Spanned<DeValue<'_>>) -> Mistake {
    let found = match value.get_ref() {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            article(value.get_ref().type_str())
        }
    };
    Mistake { at: value.span().start, what: format!("the key \"{key}\" is to be {wanted}, not {found}") }
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;

    fn set(text: &str) -> Vec<(String, usize, Value)> {
        let entries =
            entries(text, Path::new("/etc/pombo.toml"), &keys::all()).unwrap_or_else(|mistake| panic!("{mistake:?}"));
        entries.into_iter().map(|entry| (entry.key.to_string(), entry.line, entry.value)).collect()
    }

    fn mistake(text: &str) -> String {
        let mistake = entries(text, Path::new("/etc/pombo.toml"), &keys::all()).unwrap_err();
        format!("{}: {}", line(text, mistake.at), mistake.what)
    }

    fn typed(key: &str, line: usize, words: &[&str]) -> (String, usize, Value) {
        (key.to_owned(), line, Value::Typed(words.iter().map(OsString::from).collect()))
    }

    #[test]
    fn what_is_set_comes_with_its_line() {
        let text = "\
# first
no-mdns = true
verbose = 0x2
listen = [
    \"/ip4/127.0.0.1/tcp/0\", # loopback
    '/ip6/::1/tcp/0',
]
mesh = \"lab\"
request.timeout = \"2s\"

[limits]
ring = \"32 MiB\"
links = 1_6
";
        let expected = [
            typed("no-mdns", 2, &["true"]),
            typed("verbose", 3, &["2"]),
            typed("listen", 4, &["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"]),
            typed("mesh", 8, &["lab"]),
            typed("request.timeout", 9, &["2s"]),
            ("limits.ring".to_owned(), 12, Value::Number(32 << 20)),
            ("limits.links".to_owned(), 13, Value::Number(16)),
        ];
        assert_eq!(set(text), expected);
        assert!(set("").is_empty() && set("[limits]\n[node]\n").is_empty());
    }

    #[test]
    fn a_path_starts_at_its_file() {
        assert_eq!(set("key = \"node.key\""), [typed("key", 1, &["/etc/node.key"])]);
        assert_eq!(set("key = \"/run/key\""), [typed("key", 1, &["/run/key"])]);
        let home = etcetera::home_dir().unwrap();
        assert_eq!(set("data-dir = \"~/pombo\""), [typed("data-dir", 1, &[home.join("pombo").to_str().unwrap()])]);
        assert_eq!(set("name = \"shop\""), [typed("name", 1, &["shop"])], "this is no path");
    }

    #[test]
    fn an_unknown_key_is_told_with_the_nearest() {
        for (text, said) in [
            ("\npeers = []", "2: unknown key \"peers\": the nearest that is known is \"peer\""),
            ("data_dir = \"/a\"", "1: unknown key \"data_dir\": the nearest that is known is \"data-dir\""),
            ("mdns = true", "1: unknown key \"mdns\": the nearest that is known is \"no-mdns\""),
            ("[limit]\nring = 1", "1: unknown key \"limit\": the nearest that is known is the table [limits]"),
            (
                "[limits]\nrings = 1",
                "2: unknown key \"rings\" in [limits]: the nearest that is known is \"ring\" in [limits]",
            ),
            (
                "[sub]\ntimout = 1",
                "2: unknown key \"timout\" in [sub]: the nearest that is known is \"timeout\" in [sub]",
            ),
            (
                "[limits]\npeer = []",
                "2: unknown key \"peer\" in [limits]: the nearest that is known is \"peer\", which stands above the first [table]",
            ),
            ("links = 2", "1: unknown key \"links\": the nearest that is known is \"links\" in [limits]"),
        ] {
            assert_eq!(mistake(text), said);
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_told_with_the_right_one() {
        for (text, said) in [
            ("open = \"yes\"", "1: the key \"open\" is to be true or false, not \"yes\""),
            ("verbose = true", "1: the key \"verbose\" is to be a number from 0 to 255, not a boolean"),
            ("verbose = 256", "1: the key \"verbose\" is to be a number from 0 to 255, not 256"),
            ("mesh = 5", "1: the key \"mesh\" is to be a string, in quotes, not 5"),
            ("peer = [1]", "1: the key \"peer\" is to be a string, in quotes, not 1"),
            ("limits = 5", "1: [limits] is a table of keys, not an integer"),
            ("[limits]\nlinks = \"8\"", "2: the key \"limits.links\" is to be a number, not \"8\""),
            ("[limits]\nlinks = -1", "2: the key \"limits.links\" is to be a number, not -1"),
            ("[limits]\nlinks = 0", "2: the limit `links` is 0: it can be 1 to 256"),
            ("[limits]\nmessage = \"2 MiB\"", "2: the limit `message` is 2097152: it can be 1 to 1048576"),
            ("color = \"red\"", "1: invalid value \"red\" for the key \"color\": it can be auto, always, never"),
            ("key = \"\"", "1: invalid value \"\" for the key \"key\": it must not be empty"),
        ] {
            assert_eq!(mistake(text), said);
        }
        assert!(mistake("peer = \"/ip4/10.0.0.1/tcp/1\"").contains("a list of strings"));
        assert!(mistake("[limits]\nring = \"much\"").contains("such as \"4 MiB\""));
    }

    #[test]
    fn what_a_flag_would_refuse_is_refused_at_its_line() {
        let address = mistake("peer = [\n  \"/ip4/10.0.0.1/tcp/1\",\n  \"10.0.0.1:80\",\n]");
        assert!(address.starts_with("3: invalid value \"10.0.0.1:80\" for the key \"peer\""), "{address}");
        assert!(address.ends_with("write it as /ip4/10.0.0.1/tcp/80"), "{address}");
        assert!(mistake("[request]\ntimeout = \"soon\"").contains("500ms, 2s or 1m"));
    }

    #[test]
    fn the_first_mistake_is_told_and_what_is_no_toml_by_its_line() {
        assert!(mistake("zzz = 1\nopen = 5\n").starts_with("1: unknown key"));
        assert!(mistake("open = 5\nzzz = 1\n").starts_with("1: the key \"open\""));
        assert!(mistake("open = true\nmesh = lab\n").starts_with("2: this is no TOML: "));
        assert!(mistake("open = true\nopen = false\n").starts_with("2: this is no TOML: "));
    }
}
