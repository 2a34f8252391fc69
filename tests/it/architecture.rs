//! The architecture's rules that no compiler checks: who may import whom, how long a file may be, what must not appear.
//!
//! `docs/architecture.md` explains them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of a file, tests left out.
const MOST_LINES: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    /// `lib.rs` and `main.rs`: they name modules and have no logic.
    Root,
    Vocabulary,
    Wire,
    Mesh,
    Net,
    Api,
    Cli,
}

use Layer::{Api, Cli, Mesh, Net, Root, Vocabulary, Wire};

impl Layer {
    /// The layer that a top-level module belongs to.
    fn of(module: &str) -> Option<Self> {
        Some(match module {
            "topic" | "message" | "payload" | "config" | "dns" | "error" => Vocabulary,
            "wire" => Wire,
            "mesh" => Mesh,
            "net" => Net,
            "api" => Api,
            "cli" => Cli,
            "lib" | "main" => Root,
            _ => return None,
        })
    }

    /// The import table.
    fn may_import(self) -> &'static [Self] {
        match self {
            Root => &[Vocabulary, Wire, Mesh, Net, Api, Cli],
            Vocabulary => &[Vocabulary],
            Wire => &[Wire, Vocabulary],
            Mesh => &[Mesh, Wire, Vocabulary],
            Net => &[Net, Mesh, Wire, Vocabulary],
            Api => &[Api, Net, Mesh, Wire, Vocabulary],
            // Edges use only what a third party could use: the crate by its name, which the compiler sees to.
            Cli => &[Cli],
        }
    }

    /// Which other packages it may use. `None`: any.
    fn may_use(self) -> Option<&'static [&'static str]> {
        match self {
            Vocabulary => Some(&["bytes", "libp2p_identity", "multiaddr", "serde", "serde_json", "thiserror"]),
            Wire => Some(&[
                "bincode",
                "blake3",
                "bytes",
                "libp2p_identity",
                "multiaddr",
                "serde",
                "serde_bytes",
                "thiserror",
            ]),
            Mesh => Some(&["blake3", "bytes", "libp2p_identity", "multiaddr", "thiserror"]),
            Root | Net | Api | Cli => None,
        }
    }
}

/// Imports against the table, each with its reason.
const EXCEPTIONS: [(&str, &str); 2] = [
    // A message has its id, and an id is bytes on the wire. Both are plain values.
    ("message.rs", "wire"),
    // Starting a node makes the first handle to it.
    ("net/start.rs", "api"),
];

/// What the mesh must not name: IO, clocks, chance, locks, tasks, and order that differs from run to run.
const NOT_IN_THE_MESH: [&str; 16] = [
    "HashMap",
    "HashSet",
    "Instant",
    "SystemTime",
    "Mutex",
    "RwLock",
    "Condvar",
    "Atomic",
    "async",
    "await",
    "thread",
    "rand",
    "env",
    "fs",
    "io",
    "net",
];

/// A source file, without its comments and its tests.
struct Source {
    /// Its path below `src/`.
    path: String,
    layer: Layer,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let module = path.split('/').next().unwrap().trim_end_matches(".rs");
        let layer = Layer::of(module).unwrap_or_else(|| panic!("src/{path} belongs to no layer: add it to the table"));
        Self { path: path.to_owned(), layer, code: without_tests(text) }
    }

    /// The top-level modules of this crate that it names.
    fn imports(&self, exported: &BTreeMap<String, String>) -> Vec<String> {
        let mut modules = Vec::new();
        for path in paths(&self.code) {
            let mut steps = path.as_slice();
            let from_root = steps[0] == "crate";
            let mut depth = self.module_depth();
            if from_root {
                steps = &steps[1..];
                depth = 0;
            }
            while steps.first() == Some(&"super") {
                steps = &steps[1..];
                depth = depth.saturating_sub(1);
            }
            let relative = path[0] == "super";
            if (from_root || relative) && depth == 0 {
                // A group, `crate::{a, b}`, has its names after the path.
                let names = steps.first().map_or_else(|| self.grouped(), |first| vec![*first]);
                modules
                    .extend(names.into_iter().map(|name| exported.get(name).map_or(name, String::as_str).to_owned()));
            }
        }
        modules
    }

    /// The names in this file's groups below the root.
    fn grouped(&self) -> Vec<&str> {
        let groups = self.code.split("crate::{").skip(1).filter_map(|rest| rest.split("};").next());
        groups.flat_map(|group| group.split([',', '{'])).filter_map(|path| words(path).next()).collect()
    }

    /// How many modules deep its contents are: `mesh/event.rs` is `crate::mesh::event`, two deep.
    fn module_depth(&self) -> usize {
        let steps = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") { steps - 1 } else { steps }
    }

    fn violations(&self, exported: &BTreeMap<String, String>, packages: &[String]) -> Vec<String> {
        let mut found = Vec::new();
        for module in self.imports(exported) {
            let Some(layer) = Layer::of(&module) else { continue };
            let excepted = EXCEPTIONS.contains(&(self.path.as_str(), module.as_str()));
            if !excepted && !self.layer.may_import().contains(&layer) {
                found.push(format!("src/{}: {:?} must not import {module}", self.path, self.layer));
            }
        }
        if let Some(allowed) = self.layer.may_use() {
            let used = paths(&self.code).into_iter().map(|path| path[0].to_owned());
            for package in used.filter(|package| packages.contains(package) && !allowed.contains(&package.as_str())) {
                found.push(format!("src/{}: {:?} must not use {package}", self.path, self.layer));
            }
        }
        if self.layer == Mesh {
            for word in words(&self.code).filter(|word| NOT_IN_THE_MESH.contains(word)) {
                found.push(format!("src/{}: the mesh must not know of `{word}`", self.path));
            }
        }
        found
    }
}

#[test]
fn every_layer_imports_only_what_is_below_it() {
    let (exported, packages) = (exported(), packages());
    assert!(exported.len() > 20 && packages.contains(&"libp2p".to_owned()), "{exported:?} {packages:?}");
    let found: Vec<_> = sources().iter().flat_map(|source| source.violations(&exported, &packages)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_table_notices_what_it_forbids() {
    let exported = BTreeMap::from([("MeshId".to_owned(), "wire".to_owned()), ("Node".to_owned(), "api".to_owned())]);
    let packages = ["tokio", "libp2p", "bytes"].map(str::to_owned);
    let count = |path: &str, code: &str| Source::new(path, code).violations(&exported, &packages).len();

    assert_eq!(count("wire/frame.rs", "use crate::topic; use super::codec; use bytes::Bytes;"), 0);
    assert_eq!(count("wire/frame.rs", "use crate::mesh::event::Input;"), 1);
    assert_eq!(count("wire/frame.rs", "use super::super::mesh::event::Input;"), 1);
    assert_eq!(count("wire/frame.rs", "use crate::{mesh, topic};"), 1);
    assert_eq!(count("wire/frame.rs", "use crate::{payload::Raw, topic};"), 0);
    assert_eq!(count("topic.rs", "use super::wire::MeshId;"), 1);
    assert_eq!(count("topic.rs", "fn f(id: crate::MeshId) {}"), 1);
    assert_eq!(count("message.rs", "use crate::wire::MessageId;"), 0);
    assert_eq!(count("mesh/mod.rs", "use tokio::sync::mpsc;"), 1);
    assert_eq!(count("mesh/mod.rs", "let seen: std::collections::HashMap<u8, u8>;"), 1);
    assert_eq!(count("mesh/mod.rs", "//! HashMap, await\n/// See [`crate::Node`].\nuse crate::wire;"), 0);
    assert_eq!(count("mesh/mod.rs", "#[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n}\n"), 0);
    assert_eq!(count("net/driver.rs", "use crate::api::Node;"), 1);
    assert_eq!(count("net/driver.rs", "use crate::mesh::Mesh; use tokio::sync::mpsc;"), 0);
    assert_eq!(count("cli/pub.rs", "use pombo::Node; use super::output;"), 0);
    assert_eq!(count("cli/pub.rs", "use crate::net::start;"), 1);
}

#[test]
fn no_file_is_too_long() {
    for Source { path, code, .. } in sources() {
        let lines = code.lines().count();
        assert!(lines <= MOST_LINES, "src/{path} has {lines} lines without tests, at most {MOST_LINES} are allowed");
    }
}

#[test]
fn the_library_neither_prints_nor_leaves_things_undone() {
    for Source { path, layer, code } in sources() {
        let unfinished = ["todo!", "unimplemented!", "dbg!"].into_iter();
        let printing = ["println!", "print!", "eprintln!", "eprint!"].into_iter().filter(|_| layer != Cli);
        for word in unfinished.chain(printing) {
            assert!(!code.contains(word), "src/{path} has {word}");
        }
    }
}

#[test]
fn one_file_names_the_serializer() {
    let naming = sources().into_iter().filter(|source| words(&source.code).any(|word| word == "bincode"));
    assert_eq!(naming.map(|source| source.path).collect::<Vec<_>>(), ["wire/codec.rs"]);
}

#[test]
fn no_test_and_no_example_sleeps_to_wait() {
    for path in files_below("tests").into_iter().chain(files_below("examples")) {
        let text = fs::read_to_string(&path).unwrap();
        let sleeping = paths(&text).into_iter().any(|path| path.last() == Some(&"sleep") && path.len() > 1);
        assert!(!sleeping, "{} sleeps: wait for what has to happen", path.display());
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let name = |path: &Path| path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
    let is_test = |path: &Path| path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests");
    let files = files_below("src").into_iter().filter(|path| !is_test(path.strip_prefix(&src).unwrap()));
    let sources: Vec<_> = files
        .map(|path| (name(&path), fs::read_to_string(&path).unwrap()))
        .filter(|(_, text)| !text.starts_with("#![cfg(test)]"))
        .filter(|(name, _)| !is_for_tests(name))
        .map(|(name, text)| Source::new(&name, &text))
        .collect();
    assert!(sources.len() > 40, "where are the sources?");
    sources
}

/// Whether the module that declares this file does so for tests only.
fn is_for_tests(name: &str) -> bool {
    let path = Path::new(name);
    let module = if name.ends_with("/mod.rs") { path.parent().unwrap() } else { path };
    let declaration = format!("#[cfg(test)]\nmod {};", module.file_stem().unwrap().to_str().unwrap());
    let above = module.parent().unwrap();
    let parents = [above.join("mod.rs"), above.with_extension("rs"), PathBuf::from("lib.rs")];
    let declares = |parent: &PathBuf| {
        let text = fs::read_to_string(root().join("src").join(parent)).unwrap_or_default();
        text.contains(&declaration)
    };
    // A module below one that is for tests is for tests as well.
    parents.iter().any(declares) || (above.components().count() > 0 && is_for_tests(&format!("{}.rs", above.display())))
}

fn files_below(directory: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// What `lib.rs` exports: names, each with the module that it comes from.
fn exported() -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut exported = BTreeMap::new();
    for export in text.split("pub use ").skip(1).filter_map(|rest| rest.split(';').next()) {
        let (module, names) = export.split_once("::").unwrap();
        for name in names.split([',', '{', '}']) {
            let name = name.trim().rsplit("::").next().unwrap_or_default();
            exported.insert(name.to_owned(), module.to_owned());
        }
    }
    exported
}

/// The packages that the manifest names, as code spells them.
fn packages() -> Vec<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let lines = manifest.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.replace('-', "_")).collect()
}

/// Code without comments, and without the blocks that are only compiled for tests.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            let indent = line.len() - line.trim_start().len();
            // The item ends with the line that closes it, at its own depth; a short one is its own end.
            for line in lines.by_ref() {
                let at_depth = line.len() - line.trim_start().len() == indent;
                if at_depth && (line.ends_with('}') || line.ends_with(';')) {
                    break;
                }
            }
            continue;
        }
        let line = line.split_once("//").map_or(line, |(code, _)| code);
        code.push_str(line);
        code.push('\n');
    }
    code
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|character: char| !character.is_alphanumeric() && character != '_').filter(|word| !word.is_empty())
}

/// All paths of at least two steps, such as `crate::mesh::event`.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let is_path = |character: char| character.is_alphanumeric() || character == '_' || character == ':';
    let candidates = code.split(|character| !is_path(character)).filter(|path| path.contains("::"));
    candidates
        .map(|path| path.split("::").map(|step| step.trim_matches(':')).filter(|step| !step.is_empty()).collect())
        .filter(|path: &Vec<&str>| !path.is_empty())
        .collect()
}
