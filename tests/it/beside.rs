//! Verbs that are done by the node that runs beside them: what they say, what they leave behind, and when it is done otherwise.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::process::{Process, SOON, json};
use crate::support::user::{OWN, User, timed};

/// The first record of a process, and a node's answer that there is no room, as `docs/wire.md` has them.
const HELLO: [u8; 7] = [0, 0, 0, 3, 1, 0, 0];
const BUSY: [u8; 7] = [0, 0, 0, 3, 1, 1, 0];

fn socket(user: &User) -> PathBuf {
    let mut sockets = user.sockets();
    assert_eq!(sockets.len(), 1, "{sockets:?}");
    sockets.remove(0)
}

fn serving(user: &User, line: &str) -> Process {
    let serving = user.start(line);
    serving.complaint(|line| line.starts_with("serving"));
    serving
}

fn items(user: &User, verb: &str) -> Vec<Value> {
    let mut listing = user.run(&format!("{verb} --json")).expect(0).json();
    listing["items"].as_array_mut().map(std::mem::take).unwrap()
}

/// Lists until nothing is there.
fn wait_until_empty(user: &User, verb: &str) {
    let until = Instant::now() + SOON;
    while !items(user, verb).is_empty() {
        assert!(Instant::now() < until, "{verb} are still listed");
    }
}

/// Whether this was done by a node that runs, which then is the source.
fn published_by(user: &User, sub: &Process, line: &str) -> String {
    user.run(line).expect(0);
    json(&sub.line(|_| true))["source"].as_str().unwrap().to_owned()
}

#[test]
fn every_verb_is_done_by_the_node_that_runs() {
    let user = User::new();
    let (node, started) = user.node("--name harbour");
    let sub = user.sub("'demo.>' --json --group packers");
    let serve = serving(&user, "serve text.upper --exec 'tr a-z A-Z' --json");

    let receipt = user.run("pub demo.hello hi -H tenant:acme --content-type text/plain --json").expect(0).json();
    assert_eq!((&receipt["peers"], &receipt["listeners"], &receipt["local"]), (&1.into(), &1.into(), &0.into()));
    let message = json(&sub.line(|_| true));
    assert_eq!((&message["id"], &message["source"]), (&receipt["id"], &started["peer"]));
    assert_eq!((&message["data"], &message["content_type"]), (&"hi".into(), &"text/plain".into()));
    assert_eq!(message["headers"][0]["value"], "acme");

    let answer = user.run("request text.upper pombo --json").expect(0).json();
    assert_eq!((&answer["data"], &answer["source"]), (&"POMBO".into(), &started["peer"]));
    let handled = json(&serve.line(|_| true));
    assert_eq!((&handled["outcome"], &handled["source"]), (&"answered".into(), &started["peer"]));
    assert_eq!(user.run("request text.upper pombo --to harbour").expect(0).text(), "POMBO");

    let peers = items(&user, "peers");
    assert_eq!((peers.len(), &peers[0]["peer"], &peers[0]["found_by"]), (1, &started["peer"], &"local".into()));
    assert_eq!(items(&user, "topics"), [json(r#"{"pattern":"demo.>","nodes":1,"groups":["packers"]}"#)]);
    assert_eq!(items(&user, "services")[0]["providers"][0]["name"], "harbour");

    // A message of the largest size goes each way, and so does each of many, in their order.
    fs::write(user.dir().join("large"), vec![b'x'; 1024 * 1024]).unwrap();
    user.run("pub demo.large --file large").expect(0);
    assert_eq!(json(&sub.line(|_| true))["data"].as_str().map(str::len), Some(1024 * 1024));
    let mut lines = user.start("pub demo.lines --lines");
    let numbers: Vec<_> = (0..1_000).map(|number| number.to_string()).collect();
    lines.write(numbers.join("\n").as_bytes());
    lines.finish().expect(0);
    for number in numbers {
        assert_eq!(json(&sub.line(|_| true))["data"], number.as_str());
    }

    // No verb was a node: nobody joined.
    let (_other, _) = user.node("--name lighthouse");
    assert_eq!(node.event("joined")["name"], "lighthouse");
}

#[test]
fn how_a_verb_ends_is_the_same() {
    let user = User::new();
    let (_node, _) = user.node("--name harbour");
    let _refusing = serving(&user, "serve demo.refusing --exec 'echo out of pigeons >&2; exit 1'");
    let _slow = serving(&user, "serve demo.slow --exec 'sleep 60'");
    for (code, line, said) in [
        (0, "pub demo.hello hi", "nobody is subscribed (1 peer in the mesh)"),
        (0, "sub demo.hello --timeout 300ms", "(1 peer)"),
        (3, "pub demo.hello hi --min-peers 1 --timeout 300ms", "0 of 1 peers subscribe to demo.hello"),
        (3, "request demo.nobody hi --timeout 1s", "nobody serves demo.nobody"),
        (4, "sub demo.hello -n 1 --timeout 300ms", "0 of 1 messages"),
        (4, "request demo.slow hi --timeout 1s", "it may have run"),
        (5, "request demo.refusing hi", "out of pigeons"),
        (6, "request demo.refusing hi --to nobody", "the node nobody is not there or does not serve demo.refusing"),
    ] {
        let finished = user.run(line).expect(code);
        assert!(finished.stderr.contains(said), "{said} in {finished}");
    }
}

/// Subscribers at one node and at another are of one group alike, and a publisher waits for all of them.
#[test]
fn a_group_is_one_wherever_its_members_are() {
    let user = User::new();
    let (_node, _) = user.node("--name harbour");
    let members = ["", "", OWN].map(|flags| user.sub(&format!("jobs.resize --group resizers --raw {flags}")));
    let mut lines = user.start("pub jobs.resize --lines --min-peers 3");
    lines.write((0..300).map(|number| format!("{number}\n")).collect::<String>().as_bytes());
    lines.finish().expect(0);
    user.run("pub jobs.resize over --min-peers 3").expect(0);
    // One of them gets the last one too, and says so when all that came before is out.
    let until = Instant::now() + SOON;
    let mut heard: Vec<u32> = Vec::new();
    let mut each = [0; 3];
    while heard.len() < 300 {
        assert!(Instant::now() < until, "{} of 300 came, {each:?}", heard.len());
        for (member, count) in members.iter().zip(&mut each) {
            while let Some(line) = member.stdout.next_within(Duration::from_millis(10), |line| line != "over") {
                heard.push(line.parse().unwrap());
                *count += 1;
            }
        }
    }
    heard.sort_unstable();
    assert_eq!(heard, (0..300).collect::<Vec<_>>(), "each came to one of them");
    assert!(each.iter().all(|count| *count > 0), "{each:?}");
}

#[test]
fn what_a_process_held_goes_when_it_is_killed() {
    let user = User::new();
    let (_node, _) = user.node("--name harbour");
    let mut sub = user.sub("'demo.>'");
    let mut serve = serving(&user, "serve demo.slow --exec 'touch started; sleep 60'");
    let request = user.start("request demo.slow hi --timeout 20s");
    wait_for_file(&user, "started");
    sub.kill();
    serve.kill();
    // Who waits for an answer is told at once that there is none.
    let (finished, took) = timed(|| request.finish());
    assert!(finished.expect(4).stderr.contains("may have run"));
    assert!(took < Duration::from_secs(10), "{took:?}");
    wait_until_empty(&user, "topics");
    wait_until_empty(&user, "services");
}

#[test]
fn a_request_ends_with_the_process_that_made_it() {
    let user = User::new();
    let (_node, _) = user.node("--name harbour");
    let serve = serving(&user, "serve demo.slow --exec 'touch started; sleep 60' --json");
    let mut request = user.start("request demo.slow hi --timeout 60s");
    wait_for_file(&user, "started");
    request.kill();
    assert_eq!(json(&serve.line(|_| true))["outcome"], "cancelled");
    // Nor is published what nobody waits for any more.
    let mut waiting = user.start("pub demo.late hi --min-peers 1 --timeout 1m");
    let again = user.start("request demo.slow hi --timeout 60s");
    wait_for_file(&user, "started");
    waiting.kill();
    drop(again);
    assert_eq!(json(&serve.line(|_| true))["outcome"], "cancelled");
    user.run("sub demo.late -n 1 --timeout 1s").expect(4);
}

/// Waits until the file is there, and removes it.
fn wait_for_file(user: &User, name: &str) {
    let until = Instant::now() + SOON;
    while fs::remove_file(user.dir().join(name)).is_err() {
        assert!(Instant::now() < until, "no {name}");
        std::thread::yield_now();
    }
}

#[test]
fn a_node_that_is_killed_leaves_nobody_waiting() {
    let user = User::new();
    let (mut node, _) = user.node("--name harbour");
    let sub = user.sub("'demo.>'");
    let serve = serving(&user, "serve demo.slow --exec 'touch started; sleep 60'");
    let watch = user.start("topics --watch --json");
    watch.line(|_| true);
    let mut lines = user.start("pub demo.hello --lines --json");
    lines.write(b"one\n");
    lines.line(|_| true);
    let request = user.start("request demo.slow hi --timeout 1m");
    wait_for_file(&user, "started");
    node.kill();
    lines.write(b"two\n");
    for (process, code, said) in [
        (sub, 1, "the node harbour has ended"),
        (serve, 1, "the node harbour has ended"),
        (watch, 1, "the node harbour has ended"),
        (request, 4, "may have run"),
        (lines, 9, "1 message published, then"),
    ] {
        let finished = process.ended().expect(code);
        assert!(finished.stderr.contains(said), "{finished}");
    }

    // What it left behind is in nobody's way, and goes.
    assert!(fs::symlink_metadata(socket(&user)).unwrap().file_type().is_socket());
    let published = user.run("pub demo.hello hi").expect(0);
    assert!(published.stderr.contains("no other node was found"), "{published}");
    assert_eq!(user.sockets(), [] as [PathBuf; 0]);
    let (node, started) = user.node("--name harbour");
    let sub = user.sub("'demo.>' --json");
    assert_eq!(published_by(&user, &sub, "pub demo.hello hi"), started["peer"]);
    node.signal("TERM");
    node.finish().expect(0);
    assert_eq!(user.sockets(), [] as [PathBuf; 0]);
}

/// What `pub` said is published arrives, also at other nodes, though the node that did it is told to stop at once.
#[test]
fn a_node_that_is_stopped_finishes_what_it_accepted() {
    const COUNT: usize = 2_000;
    let user = User::new();
    let (node, _) = user.node("--name harbour");
    let subs = ["", OWN].map(|flags| user.sub(&format!("demo.lines --raw {flags}")));
    let mut lines = user.start("pub demo.lines --lines --min-peers 2");
    lines.write((0..COUNT).map(|number| format!("{number}\n")).collect::<String>().as_bytes());
    lines.finish().expect(0);
    node.signal("TERM");
    for sub in &subs {
        for number in 0..COUNT {
            assert_eq!(sub.line(|_| true), number.to_string());
        }
    }
    node.finish().expect(0);
    let [sub, _] = subs;
    assert!(sub.ended().expect(1).stderr.contains("the node harbour has ended"));
}

#[test]
fn a_service_that_is_told_to_stop_finishes_what_runs() {
    let user = User::new();
    let (_node, _) = user.node("--name harbour");
    let handler = "touch started; until [ -e go ]; do sleep 0.05; done; tr a-z A-Z";
    let serve = serving(&user, &format!("serve demo.slow --json --exec '{handler}'"));
    let request = user.start("request demo.slow hi --timeout 20s");
    wait_for_file(&user, "started");
    serve.signal("TERM");
    wait_until_empty(&user, "services");
    user.run("request demo.slow hi --timeout 5s").expect(3);
    fs::write(user.dir().join("go"), "").unwrap();
    assert_eq!(request.finish().expect(0).text(), "HI");
    assert_eq!(json(&serve.line(|_| true))["outcome"], "answered");
    serve.finish_within(Duration::from_secs(10)).expect(0);
}

/// What can only be had of a node of one's own is had of one.
#[test]
fn flags_that_ask_for_a_node_of_its_own_get_one() {
    let user = User::new();
    let (node, started) = user.node("--name harbour");
    let address = started["addresses"].as_array().unwrap().iter().find_map(|address| {
        let address = address.as_str().unwrap();
        (address.starts_with("/ip4/127.0.0.1/tcp/")).then(|| address.to_owned())
    });
    let address = address.unwrap();
    let sub = user.sub("'demo.>' --json");
    let harbour = started["peer"].as_str().unwrap();
    let port = address.rsplit_once('/').unwrap().1;
    for flags in [
        "--name reader".to_owned(),
        "--key spare".to_owned(),
        OWN.to_owned(),
        format!("--peer {address}"),
        format!("--dns localhost:{port}"),
        format!("--no-local --peer {address}"),
    ] {
        let source = published_by(&user, &sub, &format!("pub demo.hello hi --min-peers 1 {flags}"));
        assert_ne!(source, harbour, "{flags}");
    }
    for flags in ["", "--name harbour", "--no-mdns", "--mesh default", "--data-dir data/pombo", "-v"] {
        let source = published_by(&user, &sub, &format!("pub demo.hello hi --min-peers 1 {flags}"));
        assert_eq!(source, harbour, "{flags}");
    }
    // Other meshes have nothing to do with this node.
    for flags in ["--open", "--mesh lab", "--data-dir elsewhere"] {
        user.run(&format!("pub demo.hello hi --min-peers 1 --timeout 300ms {flags}")).expect(3);
    }
    node.signal("TERM");
    node.finish().expect(0);
}

/// A socket of which not all is as it should be is left alone: the verb is a node of its own, and its message arrives once.
#[test]
fn a_socket_that_cannot_be_trusted_is_not_used() {
    let user = User::new();
    let (_node, started) = user.node("--name harbour");
    let sub = user.sub(&format!("'demo.>' --json {OWN}"));
    let (path, harbour) = (socket(&user), started["peer"].as_str().unwrap());
    let source = || published_by(&user, &sub, "pub demo.hello hi --min-peers 1");
    assert_eq!(source(), harbour);

    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    assert_ne!(source(), harbour, "others may use it");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(source(), harbour);
    // Only root can give a file away.
    if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
        assert_ne!(source(), harbour, "it is another user's");
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        assert_eq!(source(), harbour);
    }
    let aside = path.with_extension("aside");
    fs::rename(&path, &aside).unwrap();
    fs::write(&path, "no socket").unwrap();
    assert_ne!(source(), harbour, "it is a file");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&aside, &path).unwrap();
    assert_ne!(source(), harbour, "it is a link");
    fs::remove_file(&path).unwrap();
    assert_ne!(source(), harbour, "it is not there");
    fs::rename(&aside, &path).unwrap();
    assert_eq!(source(), harbour);
}

/// Whoever listens there says something else than this version understands, or nothing, or that it has no room.
#[test]
fn a_node_that_does_not_welcome_a_verb_is_not_used() {
    let user = User::new();
    let (_node, started) = user.node("--name harbour");
    let sub = user.sub(&format!("'demo.>' --json {OWN}"));
    let path = socket(&user);
    fs::rename(&path, path.with_extension("aside")).unwrap();
    // The last belongs to another mesh: version, Welcome, a key, the name `x`, a mesh, no extensions.
    let stranger = [&[1, 0][..], &[7; 32], &[1, b'x'], &[9; 16], &[0]].concat();
    let stranger = [&u32::try_from(stranger.len()).unwrap().to_be_bytes()[..], &stranger].concat();
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    for answer in [&[0, 0, 0, 3, 2, 0, 0][..], &BUSY, &[0xff; 64], &stranger, &[]] {
        let publishing = user.start("pub demo.hello hi --min-peers 1");
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = HELLO;
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(hello, HELLO);
        stream.write_all(answer).unwrap();
        let source = json(&sub.line(|_| true))["source"].clone();
        assert_ne!(source, started["peer"], "{answer:?}");
        publishing.finish().expect(0);
        // It asked for nothing here.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
    }
}

/// What a node may have taken before it died is not given to another.
#[test]
fn what_a_node_may_have_taken_is_not_done_again() {
    let user = User::new();
    let (_node, started) = user.node("--name harbour");
    let sub = user.sub(&format!("'demo.>' --raw {OWN}"));
    let serve = serving(&user, &format!("serve demo.echo --echo --json {OWN}"));
    let (path, aside) = (socket(&user), socket(&user).with_extension("aside"));
    fs::rename(&path, &aside).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let mesh = u128::from_str_radix(started["mesh"]["id"].as_str().unwrap(), 16).unwrap().to_be_bytes();
    let welcome = [&[0, 0, 0, 53, 1, 0][..], &[7; 32], &[1, b'x'], &mesh, &[0]].concat();
    for (line, said) in
        [("pub demo.hello taken", "may or may not have arrived"), ("request demo.echo taken", "it may have run")]
    {
        let verb = user.start(line);
        // It looks whether the node is there, and then says what it wants. That has the topic or service in it.
        let (mut looking, _) = listener.accept().unwrap();
        looking.write_all(&welcome).unwrap();
        let (mut wanting, _) = listener.accept().unwrap();
        wanting.write_all(&welcome).unwrap();
        let mut read = Vec::new();
        while !read.windows(5).any(|bytes| bytes == b"taken") {
            let mut some = [0; 1_024];
            let length = wanting.read(&mut some).unwrap();
            assert!(length > 0, "{read:?}");
            read.extend_from_slice(&some[..length]);
        }
        drop(wanting);
        let finished = verb.finish().expect(4);
        assert!(finished.stderr.contains(said), "{finished}");
    }
    fs::rename(&aside, &path).unwrap();
    user.run("pub demo.hello next --min-peers 1").expect(0);
    assert_eq!(sub.line(|_| true), "next");
    user.run("request demo.echo next").expect(0);
    let handled = json(&serve.line(|_| true));
    assert_eq!((&handled["outcome"], &handled["bytes"]), (&"answered".into(), &4.into()));
}

#[test]
fn a_node_that_is_stuck_or_full_is_done_without() {
    let user = User::new();
    let (node, started) = user.node("--name harbour");
    let (_other, _) = user.node("--name lighthouse");
    let sub = user.sub(&format!("'demo.>' --json {OWN}"));
    let path = user.sockets();
    node.signal("STOP");
    assert_ne!(published_by(&user, &sub, "pub demo.hello hi --min-peers 1"), started["peer"]);
    node.signal("CONT");

    let mut held: Vec<UnixStream> = Vec::new();
    for path in &path {
        for _ in 0..256 {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(&HELLO).unwrap();
            stream.read_exact(&mut [0; 6]).unwrap();
            held.push(stream);
        }
        let mut one_more = UnixStream::connect(path).unwrap();
        one_more.set_read_timeout(Some(SOON)).unwrap();
        let mut said = [0; 7];
        one_more.read_exact(&mut said).unwrap();
        assert_eq!(said, BUSY);
    }
    let source = published_by(&user, &sub, "pub demo.hello hi --min-peers 1");
    assert_ne!(source, started["peer"]);
    drop(held);
    let until = Instant::now() + SOON;
    while published_by(&user, &sub, "pub demo.hello hi --min-peers 1") != started["peer"].as_str().unwrap() {
        assert!(Instant::now() < until, "there is room again");
    }
}

/// Bytes that no process of pombo writes end their connection and nothing else.
#[test]
fn nonsense_at_the_socket_does_no_harm() {
    let user = User::new();
    let (_node, started) = user.node("--name harbour");
    let sub = user.sub("'demo.>' --json");
    let huge = [&HELLO[..], &[0xff; 4]].concat();
    let early = [0, 0, 0, 3, 1, 5, 0];
    let twice = [HELLO, HELLO].concat();
    for bytes in [&[0xff; 4][..], &[0; 4], &[0, 0, 0, 3, 2, 0, 0], &huge, &early, &twice, b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = UnixStream::connect(socket(&user)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(bytes).unwrap();
        // It may have said Welcome before; then it closes the connection, with or without what it did not read.
        let mut said = Vec::new();
        let _reset = stream.read_to_end(&mut said);
        assert!(said.len() < 200, "{bytes:?}");
    }
    assert_eq!(published_by(&user, &sub, "pub demo.hello hi --min-peers 1"), started["peer"]);
}

/// One that does not read is told how many it missed, and costs its node a mailbox.
#[test]
fn a_subscriber_that_does_not_read_is_told_what_it_missed() {
    const COUNT: u64 = 400;
    let user = User::new();
    let (_node, _) = user.node("--name harbour");
    let sub = user.sub("demo.large --json");
    sub.signal("STOP");
    fs::write(user.dir().join("large"), vec![b'x'; 100_000]).unwrap();
    user.run(&format!("pub demo.large --file large -n {COUNT}")).expect(0);
    sub.signal("CONT");
    let (mut came, mut missed) = (0, 0);
    while came + missed < COUNT {
        let line = json(&sub.line(|_| true));
        match line["lagged"]["missed"].as_u64() {
            Some(some) => missed += some,
            None => came += 1,
        }
    }
    assert_eq!(came + missed, COUNT);
    assert!(came > 0 && missed > COUNT / 2, "{came} came, {missed} were missed");
}

#[test]
fn where_no_socket_can_be_the_node_says_so_and_verbs_go_on() {
    let user = User::new();
    let deep = user.dir().join("d".repeat(90));
    fs::create_dir(&deep).unwrap();
    let start = |line: &str| {
        let mut command = user.command("pombo");
        command.args(line.split(' ')).env("XDG_RUNTIME_DIR", &deep);
        Process::start(command)
    };
    let node = start("node --json --name harbour");
    let warning = node.complaint(|line| line.contains("socket"));
    assert!(warning.contains("XDG_RUNTIME_DIR") && warning.contains("nodes of their own"), "{warning}");
    let started = node.event("started");
    let sub = start("sub demo.> --json");
    sub.complaint(|line| line.starts_with("subscribed to"));
    assert_eq!(node.event("joined")["event"], "joined");
    start("pub demo.hello hi --min-peers 1").finish().expect(0);
    assert_ne!(json(&sub.line(|_| true))["source"], started["peer"]);
}
