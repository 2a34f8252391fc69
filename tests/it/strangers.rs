//! What strangers do to a node, on purpose or not: they cost it little, and keep no member out.
//!
//! On hosts in network namespaces, see [`network`](crate::support::network).

use std::fs::{self, File};
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::support::network::{Host, Network, OPEN};
use crate::support::process::{Finished, Process, SOON};
use crate::support::stranger::Stranger;
use crate::support::user::timed;
use crate::support::worker::footprint;

/// How soon a member is in, whatever strangers do.
const MEMBER: Duration = Duration::from_secs(5);
const ADDRESS: &str = "/ip4/10.77.0.1/tcp/7662";
const QUIC: &str = "/ip4/10.77.0.1/udp/7662/quic-v1";

/// The flags of a node that is found at [`ADDRESS`] and [`QUIC`].
fn listens() -> String {
    let quic = if cfg!(feature = "quic") { "--listen /ip4/0.0.0.0/udp/7662/quic-v1" } else { "" };
    format!("{OPEN} --listen /ip4/0.0.0.0/tcp/7662 {quic}")
}

/// Publishes as a newcomer that knows one address only, and is in and heard in time.
fn gets_in(host: &Host, sub: &Process, address: &str, text: &str) {
    let line = format!("pub demo.a {text} --min-peers 1 --timeout 10s {OPEN} --no-mdns --peer {address}");
    let (_, took) = timed(|| host.user.run(&line).expect(0));
    assert!(took < MEMBER, "by {address} it took {took:?}");
    sub.line(|line| line == text);
}

/// That it complained about nothing, but for what it says of the open mesh when it starts: whoever likes could fill it.
fn is_quiet(finished: &Finished) {
    assert_eq!(finished.stderr.lines().filter(|line| !line.contains("this mesh is open")).count(), 0, "{finished}");
}

/// Processor time that a process has used.
fn used(process: &Process) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
fn half_open_connections_keep_no_member_out_and_leave_nothing_behind() {
    let Some(mut network) = Network::new("half_open_connections_keep_no_member_out_and_leave_nothing_behind") else {
        return;
    };
    let [one, attacker, member] = network.hosts();
    let node = one.node(&format!("{} --no-mdns", listens()));
    let sub = one.user.sub(&format!("demo.a --raw {OPEN} --no-mdns --peer {ADDRESS}"));
    gets_in(&member, &sub, ADDRESS, "before");
    let process = node.pid().to_string();
    let before = footprint(&process);

    let crowd = Stranger::HalfOpen { address: ADDRESS.to_owned(), count: 1_000 }.start(&attacker);
    crowd.event_within(SOON * 3, "open");
    for round in 0..5 {
        gets_in(&member, &sub, ADDRESS, &format!("m{round}"));
        // From the very host that they come from.
        gets_in(&attacker, &sub, ADDRESS, &format!("a{round}"));
        if cfg!(feature = "quic") {
            gets_in(&member, &sub, QUIC, &format!("q{round}"));
        }
    }
    let during = footprint(&process);
    assert!(during["files"] < before["files"] + 200, "{before:?} {during:?}");
    assert!(during["peak"] < before["peak"] + 64 * 1024, "KiB: {before:?} {during:?}");

    drop(crowd);
    let until = Instant::now() + SOON;
    while footprint(&process)["files"] > before["files"] + 2 {
        assert!(Instant::now() < until, "{before:?} {:?}", footprint(&process));
    }
    let after = footprint(&process);
    eprintln!("half open: {before:?} {during:?} {after:?}");
    assert!(after["rss"] < before["rss"] + 32 * 1024, "KiB: {before:?} {after:?}");
    node.signal("TERM");
    is_quiet(&node.finish().expect(0));
}

#[test]
fn a_flood_of_mdns_answers_costs_little_and_parts_nobody() {
    const PER_SECOND: u64 = 5_000;
    let Some(mut network) = Network::new("a_flood_of_mdns_answers_costs_little_and_parts_nobody") else { return };
    let [one, two, attacker] = network.hosts();
    let nodes = [one.node(&listens()), two.node(OPEN)];
    let peers: Vec<_> = nodes.iter().map(|node| node.event("linked")["peer"].to_string()).collect();
    let sub = two.user.sub(&format!("demo.a --raw {OPEN} --no-mdns --peer {ADDRESS}"));
    let before = footprint(&nodes[0].pid().to_string());
    let used_before = used(&nodes[0]);

    let began = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
    let flood = Stranger::Flood { from: "10.77.0.3".to_owned(), per_second: PER_SECOND }.start(&attacker);
    for node in &nodes {
        node.complaint(|line| line.contains("floods this network"));
    }
    let started = Instant::now();
    let mut sent = Value::Null;
    for round in 0..10 {
        sent = flood.event("sent");
        gets_in(&two, &sub, ADDRESS, &format!("m{round}"));
    }
    let (took, cost) = (started.elapsed(), used(&nodes[0]) - used_before);
    let after = footprint(&nodes[0].pid().to_string());
    eprintln!("mDNS flood: {sent} in {took:?}, {cost:?} of the processor, {before:?} {after:?}");
    assert!(sent["answers"].as_u64().unwrap() > 2 * PER_SECOND, "{sent}");
    assert!(sent["dials"].as_u64().unwrap() < 4_000, "{sent}");
    assert!(after["peak"] < before["peak"] + 48 * 1024, "KiB: {before:?} {after:?}");
    drop(flood);

    // After a minute they look again. The newcomer knows nobody, and is asked for by those who were off.
    let newcomer = network.host(4, &[0]);
    let newcomer_node = newcomer.node(OPEN);
    let linked = newcomer_node.event_within(Duration::from_secs(90), "linked");
    assert!(linked["addresses"][0].as_str().unwrap().contains("10.77.0."), "{linked}");
    nodes.iter().for_each(|node| node.signal("KILL"));
    for node in nodes {
        let finished = node.finish();
        assert_eq!(finished.stderr.matches("floods this network").count(), 1, "once: {finished}");
        // Of two connections that they made at once in the beginning one may have gone.
        let since = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            event["time"].as_str() > Some(began.as_str())
        };
        let parted =
            |line: &&str| since(line) && line.contains("\"unlinked\"") && peers.iter().any(|peer| line.contains(peer));
        assert_eq!(finished.text().lines().filter(parted).count(), 0, "{finished}");
    }
}

/// Puts an entry into a user's registry, as a pombo node would. It counts for as long as the file is held.
fn register(user: &std::path::Path, started: &Value, peer: &str, address: &str) -> File {
    let mesh = started["mesh"]["id"].as_str().unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let entry = json!({
        "peer": peer, "name": "stranger", "mesh": "open", "mesh_id": mesh, "pid": std::process::id(),
        "boot": boot.trim(), "network": "elsewhere", "addresses": [address], "node": true,
    });
    let directory = user.join("runtime/pombo");
    let aside = directory.join("aside");
    let mut file = File::create(&aside).unwrap();
    file.write_all(entry.to_string().as_bytes()).unwrap();
    file.lock().unwrap();
    fs::rename(aside, directory.join(format!("{mesh}-{peer}.json"))).unwrap();
    file
}

#[test]
fn strangers_that_speak_libp2p_are_dialled_a_handful_of_times_and_told_of_once() {
    let Some(mut network) = Network::new("strangers_that_speak_libp2p_are_dialled_a_handful_of_times_and_told_of_once")
    else {
        return;
    };
    let [one, announced, given, mute, registered, knocker, member] = network.hosts();
    let listen = |udp: bool| {
        let quic = (udp && cfg!(feature = "quic")).then(|| "/ip4/0.0.0.0/udp/4001/quic-v1".to_owned());
        ["/ip4/0.0.0.0/tcp/4001".to_owned()].into_iter().chain(quic).collect()
    };
    let peer = |mdns, mute| Stranger::Peer { listen: listen(mdns), mdns, mute };
    let strangers = [
        ("announced by mDNS", 3, peer(true, false).start(&announced)),
        ("given", 3, peer(false, false).start(&given)),
        // It might be one of ours, on a host that is slow: what the user gave is tried every 5 s.
        ("given, and silent", 14, peer(false, true).start(&mute)),
        ("in the registry", 3, peer(false, false).start(&registered)),
    ];
    let ids: Vec<_> =
        strangers.iter().map(|(.., one)| one.event("started")["peer"].as_str().unwrap().to_owned()).collect();
    let given = ["/ip4/10.77.0.3/tcp/4001", "/ip4/10.77.0.4/tcp/4001"];
    let flags = listens().replace("--no-local", "");
    let (node, started) = one.user.node(&format!("{flags} --peer {} --peer {}", given[0], given[1]));
    let _entry = register(one.user.dir(), &started, &ids[3], "/ip4/10.77.0.5/tcp/4001");
    let knocks = Stranger::Knocker { address: ADDRESS.to_owned(), per_second: 50 }.start(&knocker);
    // Each is found, and found out.
    for (.., stranger) in &strangers {
        stranger.event("dialled");
    }
    let told = node.event("not_pombo");
    assert_eq!(told["addresses"], json!([given[0]]));

    let before = (footprint(&node.pid().to_string()), used(&node));
    let sub = one.user.sub(&format!("demo.a --raw {OPEN} --no-mdns --peer {ADDRESS}"));
    let minute = Instant::now() + Duration::from_secs(60);
    let mut round = 0;
    while Instant::now() < minute {
        gets_in(&member, &sub, ADDRESS, &format!("m{round}"));
        round += 1;
        let again = node.stdout.next_within(Duration::from_secs(2), |line| line.contains("not_pombo"));
        assert_eq!(again, None, "said once");
    }
    let after = (footprint(&node.pid().to_string()), used(&node));
    eprintln!("a minute: {:?} of the processor with {round} members, {:?} {:?}", after.1 - before.1, before.0, after.0);
    assert!(after.0["rss"] < before.0["rss"] + 32 * 1024, "KiB: {before:?} {after:?}");
    drop(knocks);
    for (what, most, mut stranger) in strangers {
        stranger.kill();
        let text = stranger.stdout.to_string();
        let dials = text.lines().filter(|line| line.contains("\"dialled\"")).count();
        eprintln!("{what}: {dials} dials in a minute");
        assert!((1..=most).contains(&dials), "{what}: {dials} dials");
    }
    node.signal("TERM");
    let finished = node.finish().expect(0);
    assert_eq!(finished.text().matches("not_pombo").count(), 1, "{finished}");
    is_quiet(&finished);
}
