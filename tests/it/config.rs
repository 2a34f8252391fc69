//! The configuration file, shell completions and manual pages, as whole processes.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::process::{Finished, Process};
use crate::support::tree;
use crate::support::user::User;

/// Runs `pombo` with these words and variables.
fn run_with(user: &User, words: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = user.command("pombo");
    command.args(words).envs(variables.iter().copied());
    Process::start(command).finish()
}

/// Writes the file where pombo looks for it.
fn configure(user: &User, text: &str) {
    let directory = user.dir().join(".config/pombo");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("config.toml"), text).unwrap();
}

/// One row of `config show --json`.
fn row(shown: &Value, key: &str) -> Value {
    let mut rows = shown["items"].as_array().unwrap().iter();
    rows.find(|row| row["key"] == key).unwrap_or_else(|| panic!("no {key} in {shown}")).clone()
}

#[test]
fn a_flag_goes_before_its_variable_before_the_file_before_the_default() {
    let user = User::new();
    let mesh = |words: &[&str], variables: &[(&str, &str)]| -> Value {
        let words = [&["id", "--json"], words].concat();
        run_with(&user, &words, variables).expect(0).json()["mesh"]["name"].clone()
    };
    let variable = [("POMBO_MESH", "variable")];
    assert_eq!(mesh(&[], &[]), "default");
    configure(&user, "mesh = \"file\"\n");
    assert_eq!(mesh(&[], &[]), "file");
    assert_eq!(mesh(&[], &variable), "variable");
    assert_eq!(mesh(&["--mesh", "flag"], &variable), "flag");
    // They name the same thing: what is typed sets aside what is written.
    assert_eq!(mesh(&["--open"], &[]), "open");
    assert_eq!(mesh(&[], &[("POMBO_OPEN", "1")]), "open");
    assert_eq!(mesh(&[], &[("POMBO_OPEN", "0")]), "file");
    configure(&user, "open = true\n");
    assert_eq!(mesh(&[], &[]), "open");
    assert_eq!(mesh(&["--mesh", "flag"], &[]), "flag");
    assert_eq!(mesh(&[], &[("POMBO_OPEN", "false")]), "default");
    assert_eq!(mesh(&["--config", "/dev/null"], &[]), "default");
}

#[test]
fn every_key_of_the_file_is_obeyed_and_shown_with_its_line() {
    let user = User::new();
    configure(
        &user,
        "\
name = \"shop\"
data-dir = \"kept\"
listen = [\"/ip4/127.0.0.1/tcp/0\"]
no-mdns = true
json = true
color = \"never\"

[node]
no-relay = true

[pub]
timeout = \"1s\"
",
    );
    // As JSON, because the file says so.
    let node = user.start("node");
    let started = node.event("started");
    assert_eq!(started["name"], "shop");
    let addresses = started["addresses"].as_array().unwrap();
    assert!(addresses.iter().all(|address| address.as_str().unwrap().starts_with("/ip4/127.0.0.1/tcp/")), "{started}");
    let way = |by: &str| started["discovery"].as_array().unwrap().iter().find(|way| way["by"] == by).unwrap().clone();
    assert!(way("mdns")["off"].is_string() && way("local")["off"].is_null(), "{started}");
    assert!(user.dir().join(".config/pombo/kept/nodes/shop/key").exists(), "a path starts at the file");
    let peers = run_with(&user, &["peers", "--name", "reader"], &[]).expect(0).json();
    assert_eq!((&peers["items"][0]["name"], &peers["items"][0]["relay"]), (&"shop".into(), &false.into()), "{peers}");
    // The wait for listeners ends after the file's second, not after the default's five.
    let waited = run_with(&user, &["pub", "demo.hello", "hi", "--min-peers", "1"], &[("POMBO_NAME", "writer")]);
    assert!(waited.expect(3).stderr.contains("0 of 1"));

    let variables = [("POMBO_NAME", "variable"), ("POMBO_NO_MDNS", "0"), ("POMBO_TIMEOUT", "3s")];
    let shown = run_with(&user, &["config", "show", "-v", "--listen", "/ip4/127.0.0.1/tcp/1"], &variables);
    let shown = shown.expect(0).json();
    assert!(shown["file"].as_str().unwrap().ends_with(".config/pombo/config.toml"), "{shown}");
    for (key, value, origin, at) in [
        ("name", Value::from("variable"), "env", ("variable", Value::from("POMBO_NAME"))),
        ("no-mdns", false.into(), "env", ("variable", "POMBO_NO_MDNS".into())),
        ("listen", vec!["/ip4/127.0.0.1/tcp/1"].into(), "flag", ("flag", "--listen".into())),
        ("verbose", 1.into(), "flag", ("flag", "-v".into())),
        ("json", true.into(), "file", ("line", 5.into())),
        ("color", "never".into(), "file", ("line", 6.into())),
        ("node.no-relay", true.into(), "file", ("line", 9.into())),
        ("pub.timeout", "3s".into(), "env", ("variable", "POMBO_TIMEOUT".into())),
        ("mesh", Value::Null, "default", ("line", Value::Null)),
        ("peer", Value::Array(Vec::new()), "default", ("line", Value::Null)),
    ] {
        let row = row(&shown, key);
        assert_eq!((&row["value"], &row["origin"], &row[at.0]), (&value, &origin.into(), &at.1), "{row}");
    }
    // For people: JSON is switched off for once.
    let table = run_with(&user, &["config", "show"], &[("POMBO_JSON", "0")]).expect(0);
    let line = table.text().lines().find(|line| line.starts_with("node.no-relay")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert!(words[1] == "true" && words[2].ends_with("config.toml:9"), "{line}");
    let line = table.text().lines().find(|line| line.starts_with("json")).unwrap();
    assert!(line.ends_with("variable POMBO_JSON"), "{line}");
}

#[test]
fn limits_are_kept() {
    let user = User::new();
    configure(&user, "[limits]\nmessage = \"2 KiB\"\npatterns = 2\n");
    let body = "x".repeat(2 * 1024);
    user.run(&format!("pub demo.hello {body}")).expect(0);
    for verb in ["pub demo.hello", "request demo.hello"] {
        let rejected = user.run(&format!("{verb} {body}x")).expect(7);
        assert!(rejected.stderr.contains("2049") && rejected.stderr.contains("2048"), "{rejected}");
    }
    let rejected = user.run("sub a b c").expect(7);
    assert!(rejected.stderr.contains('2'), "{rejected}");
    user.run("sub a b --timeout 100ms").expect(0);

    let shown = user.run("config show --json").expect(0).json();
    assert_eq!(
        (&row(&shown, "limits.message")["value"], &row(&shown, "limits.message")["line"]),
        (&2048.into(), &2.into())
    );
    assert_eq!(row(&shown, "limits.ring")["origin"], "default");
    let shown = user.run("config show").expect(0);
    assert!(shown.text().lines().any(|line| line.starts_with("limits.message") && line.contains("2 KiB")), "{shown}");
}

#[test]
fn a_mistake_is_told_with_file_line_key_and_remedy() {
    let user = User::new();
    for (text, said) in [
        ("\npeers = []", "my.toml:2: unknown key \"peers\": the nearest that is known is \"peer\""),
        ("peer = [\"10.0.0.1:7662\"]", "my.toml:1: invalid value \"10.0.0.1:7662\" for the key \"peer\""),
        ("[limits]\nmailbox = \"big\"", "my.toml:2: the key \"limits.mailbox\" is to be a size, such as \"4 MiB\""),
        ("mesh = \"lab\"\nopen = true", "my.toml:2: the key \"open\" cannot stand beside \"mesh\" in line 1"),
        ("mesh = ", "my.toml:1: this is no TOML"),
        // These are known to be wrong only when a node is to start.
        ("\n\nname = \"the shop\"", "\"name\" is set in my.toml:3"),
        ("listen = [\"/ip4/192.0.2.1/tcp/1\"]", "\"listen\" is set in my.toml:1"),
    ] {
        fs::write(user.dir().join("my.toml"), text).unwrap();
        for json in ["", "--json"] {
            let finished = user.run(&format!("node --config my.toml {json}"));
            assert!(
                finished.stdout.is_empty() && finished.stderr.replace("\\\"", "\"").contains(said),
                "{said}: {finished}"
            );
            let expected = if said.contains("listen") { 1 } else { 2 };
            finished.expect(expected);
        }
    }
    fs::write(user.dir().join("my.toml"), [0xff, 0xfe]).unwrap();
    assert!(user.run("id --config my.toml").expect(2).stderr.contains("cannot read the configuration file my.toml"));
    assert!(user.run("id --config .").expect(2).stderr.contains("cannot read the configuration file ."));
}

#[test]
fn a_file_that_is_named_has_to_be_there() {
    let user = User::new();
    user.run("id").expect(0);
    let missing = user.run("id --config nowhere.toml").expect(2);
    assert!(
        missing.stderr.contains("nowhere.toml") && missing.stderr.contains("pombo config init --config"),
        "{missing}"
    );
    run_with(&user, &["id"], &[("POMBO_CONFIG", "nowhere.toml")]).expect(2);
    user.run("config show --config nowhere.toml").expect(2);
    // What a broken file cannot change works beside it.
    configure(&user, "what?");
    user.run("id").expect(2);
    user.run("man").expect(0);
    user.run("completions zsh").expect(0);
}

#[test]
fn init_writes_a_file_once() {
    let user = User::new();
    let path = user.dir().join(".config/pombo/config.toml");
    assert!(user.run("config init").expect(0).stderr.contains(path.to_str().unwrap()));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}\n# mine")).unwrap();
    let refused = user.run("config init").expect(2);
    assert!(refused.stderr.contains("is there already") && refused.stderr.contains("--config FILE"), "{refused}");
    assert!(fs::read_to_string(&path).unwrap().ends_with("# mine"));
    // It sets nothing.
    let shown = user.run("config show --json").expect(0).json();
    assert_eq!(shown["file"], path.to_str().unwrap());
    let from_file = |row: &Value| row["origin"] == "file";
    assert!(!shown["items"].as_array().unwrap().iter().any(from_file), "{shown}");
    // Elsewhere, in a directory that is not there yet.
    assert_eq!(user.run("config init --config new/my.toml --json").expect(0).json()["path"], "new/my.toml");
    user.run("id --config new/my.toml").expect(0);
    assert!(user.run("config init --config /dev/null/my.toml").expect(1).stderr.contains("/dev/null/my.toml"));
}

#[test]
fn bash_completes_verbs_flags_and_values() {
    let user = User::new();
    let there = Command::new("bash").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("SKIPPED bash_completes_verbs_flags_and_values: there is no bash here");
        return;
    }
    // As the shell does it: the words, which of them is completed, and the function that the script registered.
    let complete = |words: &str, previous: &str| -> Vec<String> {
        let last = words.rsplit(' ').next().unwrap();
        let script = format!(
            "set -e; source <(pombo completions bash); [[ $(complete -p pombo) == *' -F _pombo '* ]]; COMP_WORDS=({}); \
             COMP_CWORD={}; _pombo pombo '{last}' '{previous}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.split(' ').map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.split(' ').count() - 1,
        );
        let mut bash = user.command("bash");
        // Whoever has JSON in the environment has completions all the same.
        bash.args(["--norc", "--noprofile", "-c", &script]).env("POMBO_JSON", "1");
        Process::start(bash).finish().expect(0).text().lines().map(str::to_owned).collect()
    };
    assert_eq!(complete("pombo pu", "pombo"), ["pub"]);
    assert_eq!(complete("pombo sub --grou", "sub"), ["--group"]);
    assert_eq!(complete("pombo --color n", "--color"), ["never"]);
    let verbs = complete("pombo ", "pombo");
    for verb in tree::verbs(&user).iter().filter(|verb| !verb.line.is_empty() && !verb.line.contains(' ')) {
        assert!(verbs.contains(&verb.line), "{} in {verbs:?}", verb.line);
    }
}

#[test]
fn every_shell_gets_a_script() {
    let user = User::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = user.run(&format!("completions {shell}")).expect(0);
        assert!(script.text().contains("pombo") && script.text().contains("min-peers"), "{shell}: {script}");
    }
    assert!(user.run("completions abacus").expect(2).stderr.contains("zsh"));
}

#[test]
fn the_manual_has_every_verb() {
    let user = User::new();
    let page = user.run("man").expect(0);
    assert!(page.text().contains(".TH pombo 1"), "{page}");
    assert!(page.text().contains("this node\\*(Aqs key"), "what the short help leaves out is in: {page}");
    assert!(page.text().contains("Exit codes:") && page.text().contains("no\\-node"), "{page}");
    let pages = user.dir().join("share/man1");
    user.run("man share/man1").expect(0);
    for verb in tree::verbs(&user) {
        if !verb.line.is_empty() && !verb.line.contains(' ') {
            assert!(page.text().contains(&format!("pombo\\-{}(1)", verb.line)), "{}: {page}", verb.line);
        }
        let name = ["pombo"].into_iter().chain(verb.line.split_whitespace()).collect::<Vec<_>>().join("-");
        let text = read(&pages.join(format!("{name}.1")));
        assert!(text.contains(".SH SYNOPSIS"), "{name}: {text}");
    }
    assert!(read(&pages.join("pombo-pub.1")).contains("min\\-peers"));
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
