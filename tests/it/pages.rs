//! The pages in `docs/`, as they are: their sessions are run, and what they list is compared with what there is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use pombo::{Headers, Limits, MAX_NAME, Outcome};
use serde_json::Value;

use crate::support::sessions;
use crate::support::tree::{self, Verb};
use crate::support::user::User;

const CLI: &str = include_str!("../../docs/cli.md");
const LIMITS: &str = include_str!("../../docs/limits.md");
const NATS: &str = include_str!("../../docs/coming-from/nats.md");
const RABBITMQ: &str = include_str!("../../docs/coming-from/rabbitmq.md");
const MQTT: &str = include_str!("../../docs/coming-from/mqtt.md");

#[test]
fn the_sessions_of_the_command_line_go_as_printed() {
    assert!(sessions::run(CLI, User::new) >= 20, "where are the sessions?");
}

#[test]
fn the_sessions_for_those_who_come_from_elsewhere_go_as_printed() {
    for page in [NATS, RABBITMQ, MQTT] {
        assert!(sessions::run(page, User::new) >= 2, "where are the sessions?");
    }
}

/// Each verb has a section, in which each of its flags is; those of all verbs are in one of their own. And no flag is
/// on the page that is not in the help.
#[test]
fn every_verb_and_flag_is_explained() {
    let user = User::new();
    let verbs = tree::verbs(&user);
    let root = verbs.iter().find(|verb| verb.line.is_empty()).unwrap();
    let common = flags(root);
    let all: BTreeSet<_> = verbs.iter().flat_map(flags).collect();
    let code: BTreeSet<_> = CLI.split(|character: char| " `=\n.,;:()[]|".contains(character)).collect();
    for flag in &common {
        assert!(section("## Flags of every verb").contains(&format!("`{flag}")), "docs/cli.md does not explain {flag}");
    }
    for verb in verbs.iter().filter(|verb| !verb.line.is_empty()) {
        let group = verb.line.split(' ').next().unwrap();
        let text = section(&format!("## pombo {group}"));
        assert!(text.contains(&format!("pombo {}", verb.line)), "docs/cli.md does not show `pombo {}`", verb.line);
        for flag in flags(verb).difference(&common) {
            assert!(text.contains(&format!("`{flag}")), "docs/cli.md does not explain {flag} of `pombo {}`", verb.line);
        }
    }
    let known = |word: &&&str| all.contains(**word) || ["--json", "--help", "--version"].contains(*word);
    let is_flag = |word: &&&str| word.strip_prefix("--").is_some_and(|name| name.starts_with(char::is_alphabetic));
    let unknown: Vec<_> = code.iter().filter(is_flag).collect();
    let unknown: Vec<_> = unknown.into_iter().filter(|word| !known(word)).collect();
    assert!(unknown.is_empty(), "docs/cli.md has flags that are not there: {unknown:?}");
}

/// The flags in a verb's help, as they are typed: the long form if there is one.
fn flags(verb: &Verb) -> BTreeSet<String> {
    let lines = verb.long.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let names = lines.map(|line| {
        let mut words = line.split([' ', ',', '.']).filter(|word| word.starts_with('-'));
        words.next_back().unwrap().to_owned()
    });
    names.collect()
}

/// The section of `docs/cli.md` with this heading.
fn section(heading: &str) -> &'static str {
    let start = CLI.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("docs/cli.md has no section {heading}"));
    let rest = &CLI[start + heading.len() + 2..];
    rest.split("\n## ").next().unwrap()
}

#[test]
fn the_exit_codes_are_those_of_the_library() {
    for outcome in Outcome::ALL {
        let row = format!("| {} | {outcome} | {} |", outcome.exit_code(), outcome.meaning());
        assert!(CLI.contains(&row), "docs/cli.md: {row}");
    }
}

/// The rows of the table whose cells begin with this heading, without it.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let lines = page.lines().skip_while(|line| !line.starts_with(heading)).skip(2);
    let cells = |line: &'a str| line.trim_matches('|').split(" | ").map(str::trim).collect();
    lines.take_while(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn the_limits_that_can_be_set_are_those_of_the_library() {
    let defaults = serde_json::to_value(Limits::default()).unwrap();
    let listed = rows(LIMITS, "| limit | default | most |");
    let names: BTreeSet<_> = listed.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    let fields: BTreeSet<_> = defaults.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, fields);
    for row in &listed {
        let (name, default, most) = (row[0].trim_matches('`'), number(row[1]), row[2]);
        assert_eq!(Some(default), defaults[name].as_u64(), "docs/limits.md: {row:?}");
        let one_more = |most: u64| {
            let mut limits = defaults.clone();
            limits[name] = Value::from(most + 1);
            serde_json::from_value::<Limits>(limits).unwrap().check()
        };
        match most {
            "any" => assert!(one_more(default * 1000).is_ok(), "docs/limits.md: {row:?}"),
            most => {
                assert_eq!(one_more(number(most)).unwrap_err().most as u64, number(most), "docs/limits.md: {row:?}");
            }
        }
    }
    assert!(LIMITS.contains(&format!(
        "at most {} of them, {} KiB together",
        Headers::MAX_COUNT,
        Headers::MAX_BYTES / 1024
    )));
    assert!(LIMITS.contains(&format!("| Name of a topic, pattern, service or group | {MAX_NAME} B |")));
}

/// `10,000`, `4 MiB`.
fn number(text: &str) -> u64 {
    let mut words = text.split(' ');
    let number: u64 = words.next().unwrap().replace(',', "").parse().unwrap_or_else(|error| panic!("{error}: {text}"));
    match words.next() {
        None => number,
        Some("KiB") => number << 10,
        Some("MiB") => number << 20,
        Some("GiB") => number << 30,
        Some(unit) => panic!("{unit} in {text}"),
    }
}

/// A limit that is a constant: what the page calls it, the number there, and what the code says.
const FIXED: [(&str, &str, &str, &str); 58] = [
    ("Listeners that frames go straight to", "32", "mesh/lanes.rs", "MOST_DIRECT: usize = 32;"),
    ("On its way to one of them and not read yet", "1 MiB", "mesh/lane.rs", "WINDOW: u64 = 1024 * 1024;"),
    ("Waiting for one that nobody waits for any more", "8 MiB", "mesh/lane.rs", "MOST: usize = 8 * 1024 * 1024;"),
    ("Requests and answers that wait for one neighbour", "8 MiB", "mesh/lane.rs", "MOST: usize = 8 * 1024 * 1024;"),
    ("Largest frame", "60 KiB", "wire/frame.rs", "MAX_FRAME: usize = 60 * 1024;"),
    ("Content types in a frame", "64", "wire/frame.rs", "MAX_CONTENT_TYPES: usize = 64;"),
    ("Content type", "256 B", "wire/frame.rs", "MAX_TEXT: usize = topic::MAX_NAME;"),
    ("Messages of which fragments are collected, per subscriber", "64", "api/unpack.rs", "UNDER_WAY: usize = 64;"),
    ("Gossip that is read at once", "80 KiB", "net/behaviour.rs", "MAX_TRANSMIT: usize = 80 * 1024;"),
    ("Frames on their way to the slowest neighbour", "64", "mesh/pace.rs", "WINDOW: u64 = 64;"),
    ("Frames that wait to be checked", "128", "net/start.rs", "UNCHECKED: usize = 128;"),
    ("Refused frames that wait to be tried again", "64", "mesh/traffic.rs", "REFUSED: usize = 64;"),
    ("Held back of all streams, in times of `held`", "16", "mesh/inbound.rs", "MOST_HELD: usize = 16;"),
    ("Time they are held back", "250 ms", "mesh/inbound.rs", "HOLD: Span = Span::millis(250);"),
    ("Age of a frame of an unknown stream", "2 min", "mesh/inbound.rs", "REPLAY: Span = Span::secs(120);"),
    ("One answer to a request for missing frames", "512 KiB", "mesh/ring.rs", "ANSWER: usize = 512 * 1024;"),
    ("Neighbours that a short-lived node hands a message to", "3", "mesh/inject.rs", "COPIES: usize = 3;"),
    ("Time that a request may have", "24 h", "mesh/requests/mod.rs", "MAX_TIMEOUT: Span = Span::secs(24 * 60 * 60);"),
    ("Requests under way to one provider", "1,024", "mesh/requests/asker.rs", "IN_FLIGHT: usize = 1024;"),
    ("Calls that a node answers at once", "10,000", "mesh/requests/provider.rs", "MAX_CALLS: usize = 10_000;"),
    ("Requests that a handle takes at once, unless told", "64", "api/serve.rs", "ROOM: u32 = 64;"),
    ("Exchanges over one connection", "2,560", "net/rpc.rs", "MAX_STREAMS: usize = 2 * IN_FLIGHT + 512;"),
    ("Time to send or read one", "30 s", "net/rpc.rs", "TRANSFER: Duration = Duration::from_secs(30);"),
    ("Nodes that are linked, those that called included", "256", "mesh/links/mod.rs", "MOST_LINKED: usize = 256;"),
    ("Connections that a node is making", "32", "net/behaviour.rs", "PENDING: u32 = 32;"),
    ("Connections over TCP that have not proved membership", "128", "net/doorstep.rs", "STREAMS: usize = 128;"),
    ("Connections over QUIC that have not", "32", "net/doorstep.rs", "QUIC: usize = 32;"),
    ("Addresses that mDNS finds at once", "2,048", "net/mdns.rs", "BURST: u32 = 2_048;"),
    ("Addresses that mDNS finds in a second, after that", "32", "net/mdns.rs", "STEADY: u32 = 32;"),
    ("Dials at once", "16", "mesh/links/mod.rs", "DIALS: usize = 16;"),
    ("Nodes and addresses that may be dialled", "1,024", "mesh/links/candidates.rs", "MOST: usize = 1_024;"),
    ("Addresses of one that are tried", "16", "mesh/links/candidates.rs", "ADDRESSES: usize = 16;"),
    ("Addresses of one DNS name", "256", "mesh/links/names.rs", "MOST: usize = 256;"),
    ("Strangers that are remembered", "1,024", "mesh/links/strangers.rs", "MOST: usize = 1_024;"),
    ("Time to set up a connection", "5 s", "net/transport.rs", "SET_UP: Duration = Duration::from_secs(5);"),
    ("Time to prove membership", "3 s", "net/gate.rs", "BUDGET: Duration = Duration::from_secs(3);"),
    ("Silence of a connection", "4.5 s", "net/behaviour.rs", "SILENCE: Duration = Duration::from_millis(4500);"),
    ("Roster record", "16 KiB", "wire/roster.rs", "MAX_RECORD: usize = 16 * 1024;"),
    ("Addresses in it", "64", "wire/roster.rs", "MAX_ADDRESSES: usize = 64;"),
    ("Silence of a node until it is suspect", "1 min", "mesh/roster/known.rs", "SUSPECT_AFTER: Span = Span::secs(60);"),
    ("Until it is forgotten", "24 h", "mesh/roster/known.rs", "FORGET_AFTER: Span = Span::secs(24 * 60 * 60);"),
    ("Roster on disk", "16 MiB", "net/remembered.rs", "LIMIT: usize = 16 * 1024 * 1024;"),
    (
        "Until one with durable subscriptions is forgotten",
        "30 days",
        "mesh/roster/known.rs",
        "FORGET_DURABLE: Span = Span::secs(30 * 24 * 60 * 60);",
    ),
    ("Time to live", "30 days", "api/guaranteed.rs", "MAX_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);"),
    ("Recipients that a message is given by name", "1,000", "wire/local/post.rs", "MAX_NAMED: usize = 1_000;"),
    ("Durable subscriptions of a node", "64", "wire/roster.rs", "MAX_DURABLES: usize = 64;"),
    (
        "Handed out to one of them and not acknowledged",
        "64, and 4 MiB",
        "mesh/postman/subscription.rs",
        "WINDOW: usize = 64;",
    ),
    ("Offered to one node at a time", "64, and 256 KiB", "mesh/postman/node.rs", "BATCH: usize = 64;"),
    ("Subscribers of a node that hold one", "256", "mesh/postman/subscription.rs", "HOLDERS: usize = 256;"),
    (
        "Until a node that is gone loses what it has of a queue",
        "30 s",
        "mesh/postman/recipient.rs",
        "LEASE: Span = Span::secs(30);",
    ),
    ("Copies at other nodes", "16", "wire/local/post.rs", "MAX_COPIES: usize = 16;"),
    ("Time until they are there", "5 s", "mesh/postman/entrusting.rs", "AWAITED: Span = Span::secs(5);"),
    (
        "Until the first that has one steps in for its sender",
        "30 s",
        "mesh/postman/exchanges.rs",
        "STEP_IN: Span = Span::secs(30);",
    ),
    ("Part of `outbox` that copies for others may take up", "1/2", "mesh/postman/keeping.rs", "SHARE: usize = 2;"),
    ("Waiting to be written to disk", "16,384", "net/start.rs", "JOBS: usize = 16_384;"),
    ("Between two attempts", "60 s", "mesh/postman/node.rs", "RETRY_AT_MOST: Span = Span::secs(60);"),
    ("Events that a listener may be behind", "256", "net/start.rs", "EVENTS: usize = 256;"),
    ("What a command wrote to stderr, as told to the asker", "2 KiB", "cli/exec.rs", "LAST_WORDS: usize = 2 * 1024;"),
];

#[test]
fn the_limits_that_are_fixed_are_those_of_the_code() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let listed: Vec<_> = LIMITS.lines().filter(|line| line.starts_with("| ")).collect();
    for (name, number, file, constant) in FIXED {
        let row = format!("| {name} | {number} |");
        assert!(listed.iter().any(|line| line.starts_with(&row)), "docs/limits.md has no row {row}");
        let code = fs::read_to_string(source.join(file)).unwrap();
        assert!(
            code.contains(&format!("const {constant}")),
            "src/{file} has not {constant}: mend docs/limits.md, {row}"
        );
    }
}

#[test]
fn what_the_pages_link_to_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages: Vec<PathBuf> = ["docs", "docs/coming-from"]
        .iter()
        .flat_map(|directory| fs::read_dir(root.join(directory)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    assert!(pages.len() >= 7, "{pages:?}");
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let there = fs::read_to_string(&target).unwrap_or_else(|_| panic!("{}: {link}", page.display()));
            let anchor = |line: &str| {
                let words = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                words.chars().filter(|one| one.is_alphanumeric() || *one == '-').collect::<String>()
            };
            let found =
                heading.is_empty() || there.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(found, "{}: {link}", page.display());
        }
    }
}
