//! What users and their machines get wrong, through the `pombo` command: each error names the thing and the remedy.

use std::fs::{self, File, OpenOptions};
use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::task::Poll;
use std::thread;

use futures::AsyncWriteExt as _;
use libp2p::core::Endpoint;
use libp2p::core::muxing::StreamMuxerExt as _;
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{Transport as _, noise, tcp, yamux};

use crate::support::process::{Process, SOON};
use crate::support::user::{OWN, User};

/// Runs each of these, which ends with this code and says all of that.
fn each_fails(user: &User, code: i32, cases: &[(&str, &[&str])]) {
    for (line, words) in cases {
        let finished = user.run(line).expect(code);
        for word in *words {
            assert!(finished.stderr.contains(word), "{word:?} in {finished}");
        }
        let errors = finished.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert!(errors == 1 && finished.stdout.is_empty(), "one error, and nothing on stdout: {finished}");
    }
}

#[test]
fn a_topic_that_is_none_is_rejected_by_every_verb() {
    let user = User::new();
    let overlong = "a".repeat(257);
    for (topic, words) in [
        ("", ["empty", "orders.eu.created"]),
        (&overlong, ["257 bytes", "at most 256"]),
        ("demo.héllo", ["'é'", "A-Z a-z 0-9 _ -"]),
        ("demo..hello", ["token 2", "remove the stray dot"]),
        (".demo", ["token 1", "remove the stray dot"]),
        ("demo.", ["token 2", "remove the stray dot"]),
        ("demo hello", ["' '", "A-Z a-z 0-9 _ -"]),
        ("demo\thello", ["'\\t'", "A-Z a-z 0-9 _ -"]),
        ("demo\u{1b}[2J", ["'\\u{1b}'", "A-Z a-z 0-9 _ -"]),
    ] {
        for verb in ["pub", "request", "sub", "serve --echo"] {
            each_fails(&user, 7, &[(&format!("{verb} '{topic}'"), &words)]);
        }
    }
    for wildcard in ["demo.*", "*", ">", "demo.>"] {
        each_fails(&user, 7, &[(&format!("pub '{wildcard}' hi"), &["wildcard", "exact name"])]);
    }
}

#[test]
fn a_topic_of_all_the_bytes_there_may_be_is_taken() {
    let user = User::new();
    let topic = "a".repeat(256);
    let sub = user.sub(&format!("{topic} --raw"));
    user.run(&format!("pub {topic} hi --min-peers 1")).expect(0);
    assert_eq!(sub.line(|_| true), "hi");
}

#[test]
fn a_malformed_address_is_named_with_what_is_wrong_and_a_right_one() {
    let user = User::new();
    for flag in ["--peer", "--listen"] {
        for (address, words) in [
            ("10.0.0.1:7662", ["'10.0.0.1:7662'", "/ip4/10.0.0.1/tcp/7662"]),
            ("[::1]:7662", ["does not begin with a slash", "/ip6/::1/tcp/7662"]),
            ("localhost:7662", ["does not begin with a slash", "/tcp/7662"]),
            ("/ip4/10.0.0/tcp/7662", ["IPv4", "/tcp/7662"]),
            ("/ip4/10.0.0.1/tcp/70000", ["70000 is no port", "/tcp/7662"]),
            ("/ip4/10.0.0.1", ["/ip4/10.0.0.1", "/tcp/7662"]),
            ("/ip4/10.0.0.1/udp/7662", ["/udp/7662", "/quic-v1"]),
            ("fd77::1", ["does not begin with a slash", "/tcp/7662"]),
            ("/ip6/fd77::1::2/tcp/7662", ["IPv6", "/tcp/7662"]),
            ("/ip6/fd77:12345::1/tcp/7662", ["IPv6", "/tcp/7662"]),
            ("/ip6/[fd77::1]/tcp/7662", ["IPv6", "/tcp/7662"]),
            ("/ip6/10.0.0.1/tcp/7662", ["IPv6", "/tcp/7662"]),
            ("/ip6/fe80::1%eth0/tcp/7662", ["IPv6", "/tcp/7662"]),
            ("/ip4/fd77::1/tcp/7662", ["IPv4", "/tcp/7662"]),
        ] {
            each_fails(&user, 2, &[(&format!("id {flag} {address}"), &words)]);
        }
    }
    each_fails(&user, 2, &[("id --peer /ip4/10.0.0.1/tcp/0", &["port 0"])]);
}

#[test]
fn too_many_patterns_are_refused_with_the_limit() {
    let user = User::new();
    // As many words as a command line holds with ease.
    let patterns = |count: usize| (0..count).map(|n| format!(" p{n}.>")).collect::<String>();
    each_fails(&user, 7, &[(&format!("sub{}", patterns(10_000)), &["1024", "patterns"])]);
    let sub = user.sub(&format!("--raw{}", patterns(1_024)));
    user.run("pub p1023.a hi --min-peers 1").expect(0);
    assert_eq!(sub.line(|_| true), "hi");
}

#[test]
fn an_unknown_word_is_answered_with_the_nearest() {
    let user = User::new();
    let cases: [(&str, &[&str]); 3] = [
        ("pubb demo.hello hi", &["pubb", "'pub'"]),
        ("node --liste /ip4/127.0.0.1/tcp/0", &["--liste", "'--listen'"]),
        ("pub demo.hello hi --frobnicate", &["--frobnicate"]),
    ];
    each_fails(&user, 2, &cases);
}

#[test]
fn a_port_in_use_is_named_with_who_has_it() {
    let user = User::new();
    let me = format!("process {}", std::process::id());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    each_fails(&user, 1, &[(&format!("node --listen {tcp}"), &[&tcp, &me, "choose another"])]);
    if cfg!(feature = "quic") {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp = format!("/ip4/127.0.0.1/udp/{}/quic-v1", taken.local_addr().unwrap().port());
        each_fails(&user, 1, &[(&format!("node --listen {udp}"), &[&udp, &me, "choose another"])]);
    }
    let nowhere = "/ip4/192.0.2.1/tcp/0";
    each_fails(&user, 1, &[(&format!("node --listen {nowhere}"), &[nowhere, "no interface has that address"])]);
}

/// Writes a file of that mode.
fn file(path: &Path, mode: u32, bytes: &[u8]) {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_key_that_is_none_is_named_with_what_it_is() {
    let user = User::new();
    let cases: [(&str, u32, &[u8], &[&str]); 5] = [
        ("exposed", 0o644, b"", &["exposed", "mode 644", "chmod 600 exposed"]),
        ("empty", 0o600, b"", &["empty", "is empty", "restore it"]),
        ("garbage", 0o600, b"garbage", &["garbage", "is something else", "restore it"]),
        ("openssh", 0o600, b"-----BEGIN OPENSSH PRIVATE KEY-----\n", &["openssh", "PEM", "restore it"]),
        ("bitcoin", 0o600, b"\x08\x02\x12\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", &["bitcoin", "secp256k1", "Ed25519"]),
    ];
    for (name, mode, bytes, words) in cases {
        file(&user.dir().join(name), mode, bytes);
        each_fails(&user, 1, &[(&format!("node --key {name}"), words)]);
        assert_eq!(fs::read(user.dir().join(name)).unwrap(), bytes, "it is left alone");
    }
    each_fails(&user, 1, &[("node --key nowhere/key", &["nowhere/key", "make its directory first"])]);
    fs::set_permissions(user.dir().join("garbage"), fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(user.dir().join("garbage")).is_err() {
        each_fails(&user, 1, &[("node --key garbage", &["garbage", "see that it belongs to you"])]);
    }
}

#[test]
fn a_key_that_is_held_is_named_with_its_holder() {
    let user = User::new();
    let holds = |node: &Process| [format!("process {} (pombo)", node.pid()), "stop that one".to_owned()];
    let refused = |line: &str, node: &Process| {
        let words = holds(node);
        each_fails(&user, 1, &[(line, &[&words[0], &words[1]])]);
    };
    let (by_name, started) = user.node("--name shop");
    refused("node --name shop", &by_name);
    refused("node --key data/pombo/nodes/shop/key", &by_name);
    let (by_key, _) = user.node("--key spare");
    refused("node --key spare", &by_key);
    // A copy is another file, but the same node.
    fs::copy(user.dir().join("spare"), user.dir().join("copy")).unwrap();
    refused("node --key copy", &by_key);

    drop(by_name);
    let (by_key, again) = user.node("--key data/pombo/nodes/shop/key");
    assert_eq!(again["peer"], started["peer"]);
    refused("node --name shop", &by_key);
    let (_other, other) = user.node("");
    assert_ne!(other["peer"], started["peer"], "a node without a name takes another place");
}

#[test]
fn a_body_too_large_is_named_with_its_size_and_the_limit() {
    let user = User::new();
    File::create(user.dir().join("large")).unwrap().set_len(3_000_000).unwrap();
    let words: &[&str] = &["large", "3000000 bytes", "1048576"];
    each_fails(&user, 7, &[("pub demo.hello --file large", words)]);
    for verb in ["pub demo.hello -", "request demo.price -"] {
        let mut command = user.start(verb);
        command.write(&vec![b'x'; 1024 * 1024 + 1]);
        let rejected = command.finish().expect(7);
        assert!(
            ["stdin", "more than 1048576", "at most 1048576"].iter().all(|word| rejected.stderr.contains(word)),
            "{rejected}"
        );
    }
}

/// What the node at that address says to this, and that it ends the connection.
fn said_to(address: &str, greeting: &[u8]) -> Vec<u8> {
    let parts: Vec<_> = address.split('/').collect();
    let mut stream = TcpStream::connect((parts[2], parts[4].parse().unwrap())).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    // It may have hung up before all was said.
    let _ = stream.write_all(greeting);
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("it is still open: {error}"),
        Ok(_) | Err(_) => said,
    }
}

#[test]
fn strangers_of_other_protocols_are_turned_away_without_a_word() {
    let user = User::new();
    let (node, started) = user.node("--listen /ip4/127.0.0.1/tcp/0");
    let address = started["addresses"][0].as_str().unwrap();
    let tls = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 500]].concat();
    let greetings: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        &tls,
        &[0xff; 10_000],
        // Right so far, and then a protocol that is not spoken here.
        b"\x13/multistream/1.0.0\n\x0d/plaintext/2\n\x04\x00\x00\x00\x00",
    ];
    // All at once: who says too little is waited for.
    thread::scope(|scope| {
        for greeting in [greetings; 5].concat() {
            scope.spawn(move || {
                let said = said_to(address, greeting);
                assert!(said.len() < 256, "{}", String::from_utf8_lossy(&said));
            });
        }
    });
    let sub = user.sub("'demo.>' --raw");
    user.run("pub demo.hello hi --min-peers 1").expect(0);
    assert_eq!(sub.line(|_| true), "hi");
    node.signal("TERM");
    let finished = node.finish().expect(0);
    assert_eq!(finished.stderr, "", "whoever likes could fill it");
}

/// Says that it is a pombo node of a later version, as far as the gate, and waits for the end.
async fn greet_as_later_version(address: &str, key: &Keypair) {
    let mut transport = tcp::tokio::Transport::default()
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let (_, mut muxer) = transport.dial(address.parse().unwrap(), options).unwrap().await.unwrap();
    let mut stream = poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await.unwrap();
    let ended = poll_fn(|cx| {
        loop {
            match muxer.poll_unpin(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    let hello = [&[2, 0][..], &[7; 32]].concat();
    let greeting = async {
        stream.write_all(&hello).await.unwrap();
        stream.flush().await.unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! { () = ended => {}, () = greeting => {} }
}

#[tokio::test]
async fn a_node_of_another_version_is_told_of_once() {
    let user = User::new();
    let (node, started) = user.node("--listen /ip4/127.0.0.1/tcp/0");
    let address = started["addresses"][0].as_str().unwrap();
    let key = Keypair::generate_ed25519();
    for _ in 0..2 {
        tokio::time::timeout(SOON, greet_as_later_version(address, &key)).await.unwrap();
    }
    node.complaint(|line| line.contains(&key.public().to_peer_id().to_string()) && line.contains("version 2"));
    node.signal("TERM");
    let finished = node.finish().expect(0);
    assert_eq!(finished.stderr.matches("update the older one").count(), 1, "{finished}");
}

#[test]
fn a_node_of_another_mesh_is_told_of_once_on_both_sides() {
    let user = User::new();
    let stranger = User::new();
    let (ours, started) = user.node("--listen /ip4/127.0.0.1/tcp/0");
    let address = started["addresses"][0].as_str().unwrap();
    let (theirs, _) = stranger.node(&format!("--listen /ip4/127.0.0.1/tcp/0 --peer {address}"));
    let told = |node: &Process| node.event("other_mesh")["peer"].clone();
    assert_eq!(told(&theirs), started["peer"]);
    told(&ours);
    // Each verb is another peer of the other mesh, and another dial.
    for _ in 0..3 {
        stranger.run(&format!("pub demo.hello hi --peer {address}")).expect(0);
    }
    for node in [ours, theirs] {
        node.signal("TERM");
        let finished = node.finish().expect(0);
        let lines = finished.text().lines().filter(|line| line.contains("other_mesh")).count();
        assert!(lines == 1 && finished.stderr.is_empty(), "whoever likes could fill it: {finished}");
    }
}

/// A user with a small disk of their own at `/mnt` of a mount namespace, which goes with the process in it.
pub(crate) struct SmallDisk {
    pub(crate) user: User,
    _namespace: Process,
}

impl SmallDisk {
    /// None, and a line that says why, where nothing can be mounted.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let host = User::new();
        let mut command = host.command("unshare");
        command.args([
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs -o size=256k,mode=700 none /mnt && echo ready && exec cat",
        ]);
        let namespace = Process::start(command);
        if namespace.stdout.next_within(SOON, |line| line == "ready").is_none() {
            // Past the harness, which keeps quiet about tests that pass.
            let line = format!("SKIPPED {test}: no mount namespaces here: {namespace}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            return None;
        }
        let enter = ["nsenter", "--mount", "--target", &namespace.pid().to_string()].map(str::to_owned);
        Some(Self { user: User::at(enter.into()), _namespace: namespace })
    }

    pub(crate) fn sh(&self, script: &str) {
        let mut command = self.user.command("sh");
        command.args(["-c", script]);
        Process::start(command).finish().expect(0);
    }

    fn fill(&self) {
        // Two blocks are left, and taken by files without content: neither an entry nor a byte more has room.
        self.sh("dd if=/dev/zero of=/mnt/filler bs=4k 2>/dev/null; [ -s /mnt/filler ]");
    }
}

/// What a node says that does without its disk, and with which it works all the same.
fn does_without(disk: &SmallDisk, flags: &str, said: &str) {
    let data = "--no-mdns --data-dir /mnt/data";
    let (node, started) = disk.user.node(&format!("{data} {flags}"));
    node.complaint(|line| line.contains("/mnt/") && line.contains(said));
    let sub = disk.user.sub(&format!("'demo.>' --raw {data}"));
    disk.user.run(&format!("pub demo.hello hi --min-peers 1 {data}")).expect(0);
    assert_eq!(sub.line(|_| true), "hi", "{started}");
    node.signal("TERM");
    node.finish().expect(0);
}

#[test]
fn a_read_only_disk_at_start_is_done_without_or_named() {
    let Some(disk) = SmallDisk::new("a_read_only_disk_at_start_is_done_without_or_named") else { return };
    disk.sh("mount -o remount,ro /mnt");
    let read_only: &[&str] = &["/mnt/data", "Read-only file system", "name a place that can be written to"];
    each_fails(&disk.user, 1, &[("id --data-dir /mnt/data", read_only)]);
    each_fails(&disk.user, 1, &[("id --key /mnt/key", &["/mnt/key", "Read-only file system"])]);

    disk.sh("mount -o remount,rw /mnt");
    let known = disk.user.run("id --json --name shop --data-dir /mnt/data").expect(0).json();
    let by_key = disk.user.run("id --json --key /mnt/key --data-dir /mnt/data").expect(0).json();
    disk.sh("mount -o remount,ro /mnt");
    let again = disk.user.run("id --json --name shop --data-dir /mnt/data").expect(0);
    assert_eq!(again.json()["peer"], known["peer"], "its key can be read");
    let again = disk.user.run("id --json --key /mnt/key --data-dir /mnt/data").expect(0);
    assert_eq!(again.json()["peer"], by_key["peer"]);
    assert_eq!(again.stderr, "", "nothing has to be written for it");
    does_without(&disk, "--name shop", "cannot write");
    does_without(&disk, "--name new", "has a key for this run only");
}

#[test]
fn a_full_disk_at_start_is_done_without_or_named() {
    let Some(disk) = SmallDisk::new("a_full_disk_at_start_is_done_without_or_named") else { return };
    disk.fill();
    each_fails(&disk.user, 1, &[("id --data-dir /mnt/data", &["/mnt/data", "No space left", "make room"])]);
    disk.sh("rm /mnt/filler");
    disk.user.run("id --name shop --data-dir /mnt/data").expect(0);
    let before = disk.user.run("id --json --name shop --data-dir /mnt/data").expect(0).json();
    disk.fill();
    does_without(&disk, "--name shop", "cannot write");
    does_without(&disk, "--name new", "has a key for this run only");
    disk.sh("rm /mnt/filler; [ -z \"$(find /mnt -name '*.tmp')\" ]");
    let after = disk.user.run("id --json --name shop --data-dir /mnt/data").expect(0);
    assert_eq!((&after.json()["peer"], after.stderr.as_str()), (&before["peer"], ""));
}

#[test]
fn a_disk_that_fills_while_a_node_runs_costs_it_one_warning() {
    let Some(disk) = SmallDisk::new("a_disk_that_fills_while_a_node_runs_costs_it_one_warning") else { return };
    let data = "--no-mdns --data-dir /mnt/data";
    let (node, _) = disk.user.node(&format!("{data} --name shop"));
    let (other, _) = disk.user.node(&format!("{data} --name other"));
    disk.user.wait_for_peers(2, data);
    disk.fill();
    let sub = disk.user.sub(&format!("'demo.>' --raw {data} {OWN}"));
    disk.user.run(&format!("pub demo.hello hi --min-peers 1 {data} {OWN}")).expect(0);
    assert_eq!(sub.line(|_| true), "hi");
    node.signal("TERM");
    let finished = node.finish().expect(0);
    let warnings =
        finished.stderr.lines().filter(|line| line.contains("cannot write /mnt/data/nodes/shop/roster")).count();
    assert_eq!(warnings, 1, "{finished}");
    disk.sh("rm /mnt/filler; [ -z \"$(find /mnt -name '*.tmp')\" ]");
    other.signal("TERM");
    let finished = other.finish().expect(0);
    assert!(!finished.stderr.contains("roster"), "there is room again: {finished}");
    disk.sh("[ -s /mnt/data/nodes/other/roster-* ]");
}

#[test]
fn a_registry_that_is_full_is_named_and_who_is_in_it_is_found() {
    let Some(disk) = SmallDisk::new("a_registry_that_is_full_is_named_and_who_is_in_it_is_found") else { return };
    disk.sh("mkdir -m 700 /mnt/run");
    let pombo = |line: &str| {
        let mut command = disk.user.command("env");
        command.args(["XDG_RUNTIME_DIR=/mnt/run", "pombo", "--no-mdns"]).args(line.split(' '));
        Process::start(command)
    };
    let sub = pombo("sub demo.hello --raw");
    sub.complaint(|line| line.starts_with("subscribed to"));
    disk.fill();
    let published = pombo("pub demo.hello hi --min-peers 1").finish().expect(0);
    assert!(published.stderr.contains("No space left") && published.stderr.contains("/mnt/run/pombo"), "{published}");
    assert_eq!(sub.line(|_| true), "hi");
}
