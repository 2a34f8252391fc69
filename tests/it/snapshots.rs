//! What users read, as it was last looked at: the help of every verb, listings, and errors, in `tests/snapshots`.
//!
//! `POMBO_BLESS=1 cargo test --test it -- snapshots` writes what is printed now; the difference is to be read before it is
//! committed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::process::Finished;
use crate::support::tree;
use crate::support::user::User;

/// What goes wrong, from the command line to the mesh.
const ERRORS: [&str; 32] = [
    "",
    "publish",
    "pub",
    "pub demo.hello hi --frobnicate",
    "pub demo.hello hi --time 5s",
    "pub demo.hello hi -n 0",
    "pub demo.hello hi --lines",
    "pub demo.hello hi --file letter.txt",
    "pub demo.hello --file /nowhere/letter.txt",
    "pub '' hi",
    "pub demo..hello hi",
    "pub demo/hello hi",
    "pub demo.hello hello world",
    "pub 'demo.*' hi",
    "pub 'demo.héllo' hi",
    "pub demo.hello hi -H tenant",
    "pub demo.hello hi --min-peers 1 --timeout 100ms",
    "sub",
    "sub 'demo.>.hello'",
    "sub demo.hello --timeout soon",
    "sub demo.hello --raw --json",
    "sub demo.hello --group 'the packers'",
    "sub demo.hello -n 1 --timeout 100ms -q",
    "request demo.nobody hi --timeout 1s",
    "request demo.nobody hi --timeout 1s --no-local --no-mdns",
    "serve demo.echo",
    "serve demo.echo --echo --reply hi",
    "node --open --mesh lab",
    "node --peer 10.0.0.1:7662",
    "node --listen /dns4/example.org/tcp/7662",
    "node --name 'the shop'",
    "id --data-dir /dev/null/pombo",
];

#[test]
fn the_help_of_every_verb() {
    let user = User::new();
    let verbs = tree::verbs(&user);
    let root = verbs.iter().find(|verb| verb.line.is_empty()).unwrap();
    let mut names = BTreeSet::new();
    for verb in &verbs {
        let (mut short, mut long) = (verb.short.clone(), verb.long.clone());
        if !verb.line.is_empty() {
            // What is the same for all is looked at once.
            (short, long) = (abridged(&short, &root.short), abridged(&long, &root.long));
        }
        let name = ["pombo"].into_iter().chain(verb.line.split_whitespace()).collect::<Vec<_>>();
        let (line, name) = (name.join(" "), format!("help/{}.txt", name.join("-")));
        compare(&name, &format!("$ {line} -h\n{short}\n$ {line} --help\n{long}"));
        names.insert(directory().join(name));
    }
    for entry in fs::read_dir(directory().join("help")).unwrap() {
        let path = entry.unwrap().path();
        assert!(names.contains(&path), "there is no such verb any more: remove {}", path.display());
    }
}

#[test]
fn errors() {
    let user = User::newcomer();
    let mut page = String::new();
    for line in ERRORS {
        let finished = user.run(line);
        assert!(finished.stdout.is_empty(), "an error is no data: {finished}");
        page.push_str(&transcript(line, &finished, &finished.stderr, &user));
    }
    compare("errors.txt", &page);
}

#[test]
fn listings() {
    let user = User::new();
    let mut page = String::new();
    for line in ["peers", "topics", "services", "peers --json", "topics --json", "services --json"] {
        let finished = user.run(line).expect(0);
        page.push_str(&transcript(line, &finished, &format!("{}{}", finished.text(), finished.stderr), &user));
    }
    let (_node, _) = user.node("--name harbour --listen /ip4/127.0.0.1/tcp/0");
    let _sub = user.sub("'orders.>' demo.hello --group packers --name reader --listen /ip4/127.0.0.1/tcp/0");
    let serving = user.start("serve text.upper --reply HI --name crier --listen /ip4/127.0.0.1/tcp/0");
    serving.complaint(|line| line.starts_with("serving"));
    user.wait_for_peers(3, "");
    for line in ["peers", "topics", "services"] {
        let finished = user.run(line).expect(0);
        page.push_str(&transcript(line, &finished, &table(finished.text()), &user));
        let line = format!("{line} --json");
        let finished = user.run(&line).expect(0);
        page.push_str(&transcript(&line, &finished, &document(finished.json()), &user));
    }
    compare("listings.txt", &page);
}

/// A command, what it printed, and how it ended.
fn transcript(line: &str, finished: &Finished, printed: &str, user: &User) -> String {
    let printed = printed.replace(user.dir().to_str().unwrap(), "~");
    let code = finished.code.unwrap();
    format!("$ {}\n{}\n[exit code {code}]\n\n", format!("pombo {line}").trim_end(), printed.trim_end())
}

/// The sections of a help page, but only the headings of those that stand in `common` as they are.
fn abridged(page: &str, common: &str) -> String {
    let (whole, mut short) = (sections(common), String::new());
    for section in sections(page) {
        match section.split_once(":\n").filter(|_| whole.contains(&section)) {
            Some((heading, _)) => short.push_str(&format!("{heading}: as in `pombo`\n\n")),
            None => short.push_str(&section),
        }
    }
    short
}

/// A section begins with a line that is not indented.
fn sections(page: &str) -> Vec<String> {
    let mut sections = Vec::<String>::new();
    for line in page.split_inclusive('\n') {
        match sections.last_mut() {
            Some(section) if line.starts_with(char::is_whitespace) => section.push_str(line),
            _ => sections.push(line.to_owned()),
        }
    }
    sections
}

/// A table for people, in which what differs from run to run is replaced, column by column.
fn table(text: &str) -> String {
    let heading = text.lines().next().unwrap();
    let bytes = heading.as_bytes();
    let starts = (0..bytes.len()).filter(|&at| bytes[at] != b' ' && (at == 0 || bytes[..at].ends_with(b"  ")));
    let starts: Vec<_> = starts.collect();
    let mut page = String::new();
    for line in text.lines() {
        let line: Vec<char> = line.chars().collect();
        let cells = starts.iter().enumerate().map(|(column, &start)| {
            let end = starts.get(column + 1).map_or(line.len(), |end| (*end).min(line.len()));
            line.get(start..end).unwrap_or_default().iter().collect::<String>().trim_end().to_owned()
        });
        let mut cells: Vec<_> = cells.collect();
        if !page.is_empty() {
            for (cell, start) in cells.iter_mut().zip(&starts) {
                let name = &heading[*start..];
                let differs = ["PEER ", "ADDRESS", "FOUND BY", "ROUND TRIP"].iter().find(|one| name.starts_with(**one));
                if let Some(column) = differs {
                    *cell = format!("<{}>", column.trim_end().to_lowercase());
                }
            }
        }
        page.push_str(cells.join("  ").trim_end());
        page.push('\n');
    }
    page
}

/// A document, in which what differs from run to run is replaced, field by field.
fn document(mut document: Value) -> String {
    mask(&mut document);
    serde_json::to_string_pretty(&document).unwrap()
}

fn mask(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::Object(fields) => {
            for (name, field) in fields {
                if ["peer", "addresses", "links", "found_by", "round_trip_seconds"].contains(&name.as_str()) {
                    *field = Value::String(format!("<{name}>"));
                } else {
                    mask(field);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// That this is what the snapshot has; with `POMBO_BLESS`, that it is from now on.
fn compare(name: &str, printed: &str) {
    let path = directory().join(name);
    let printed: String = printed.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    if std::env::var_os("POMBO_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(&path, printed).unwrap();
    }
    let seen = fs::read_to_string(&path).unwrap_or_default();
    if seen == printed {
        return;
    }
    let line = seen.lines().zip(printed.lines()).take_while(|(seen, printed)| seen == printed).count();
    panic!(
        "{} is not what is printed now, from line {}:\n- {}\n+ {}\nIf it is meant to be: POMBO_BLESS=1 cargo test --test it \
         -- snapshots  writes it; read the difference before you commit it.\n\n{printed}",
        path.display(),
        line + 1,
        seen.lines().nth(line).unwrap_or("(nothing)"),
        printed.lines().nth(line).unwrap_or("(nothing)"),
    );
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots")
}
