//! `pombo doctor`: what it says of hosts on which all is well, and of those on which something is not.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};

use serde_json::Value;

use crate::bad_input::SmallDisk;
use crate::support::network::{Family, Network, ip};
use crate::support::process::{Finished, SOON};
use crate::support::user::User;

const LOOPBACK: &str = "--listen /ip4/127.0.0.1/tcp/0";

/// What the doctor found, and how it ended.
struct Report {
    items: Vec<Value>,
    finished: Finished,
}

impl Report {
    fn of(user: &User, flags: &str, code: i32, outcome: &str) -> Self {
        let finished = user.run(&format!("doctor --json {flags}")).expect(code);
        let report = finished.json();
        assert_eq!(report["outcome"], outcome, "{finished}");
        let items = report["items"].as_array().unwrap().clone();
        Self { items, finished }
    }

    /// The first finding of a probe that says this, and what became of it.
    fn says(&self, probe: &str, verdict: &str, vital: bool, words: &[&str]) -> &Value {
        let is_it = |item: &&Value| {
            let text = format!("{} {} {}", item["subject"], item["detail"], item["remedy"]);
            item["probe"] == probe && words.iter().all(|word| text.contains(word))
        };
        let item = self.items.iter().find(is_it).unwrap_or_else(|| panic!("no {probe} {words:?}: {}", self.finished));
        assert_eq!((&item["verdict"], &item["vital"]), (&verdict.into(), &vital.into()), "{}", self.finished);
        if verdict == "fails" {
            assert!(item["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{item}");
        }
        item
    }
}

#[test]
fn a_newcomers_host_is_well_and_stays_as_it_was() {
    let user = User::new();
    let report = Report::of(&user, "", 0, "ok");
    for probe in ["data", "key", "listen", "limits", "clock", "local", "link", "mdns", "given", "dns", "roster"] {
        assert!(report.items.iter().any(|item| item["probe"] == probe), "{probe}: {}", report.finished);
    }
    assert!(report.items.iter().all(|item| item["vital"] == false), "{}", report.finished);
    report.says("data", "works", false, &["is not there yet, and can be made"]);
    report.says("local", "works", false, &["0 nodes are in it"]);
    report.says("link", "works", false, &["TCP", "a message took"]);
    report.says("mdns", "not-tried", false, &["switched off"]);
    report.says("roster", "not-tried", false, &["not made yet"]);
    assert!(!user.dir().join("data").exists(), "the doctor makes nothing");
    assert_eq!(fs::read_dir(user.dir().join("runtime/pombo")).unwrap().count(), 0);

    let page = user.run("doctor").expect(0);
    let links = page.text().lines().filter(|line| line.starts_with("works      link       ")).count();
    assert_eq!(links, if cfg!(feature = "quic") { 2 } else { 1 }, "{page}");
    assert_eq!(page.stderr, "a node could work here\n");
}

#[test]
fn a_running_node_is_reached_and_not_disturbed() {
    let user = User::new();
    let (node, started) = user.node(&format!("--name harbour {LOOPBACK}"));
    let report = Report::of(&user, "", 0, "ok");
    let pid = format!("harbour is held by process {} (pombo)", node.pid());
    report.says("key", "works", false, &[&pid]);
    report.says("local", "works", false, &["1 node is in it"]);
    report.says("neighbour", "works", false, &["harbour", "linked with", started["peer"].as_str().unwrap()]);
    report.says("roster", "works", false, &["1 node is known: harbour"]);

    let peers = user.run("peers --json").expect(0).json();
    assert_eq!(peers["items"].as_array().unwrap().len(), 1, "the doctor is in nobody's roster");
    node.signal("TERM");
    let finished = node.finish().expect(0);
    assert_eq!(finished.stderr, "", "{finished}");
    for event in ["joined", "left", "suspect", "other_mesh", "outrun"] {
        assert!(!finished.text().contains(&format!("\"{event}\"")), "{finished}");
    }
}

#[test]
fn a_neighbour_that_is_stuck_and_a_clock_that_is_wrong_are_told_and_not_vital() {
    let user = User::new();
    let (stuck, _) = user.node(&format!("--name stuck {LOOPBACK}"));
    stuck.signal("STOP");
    user.run("id --name shop").expect(0);
    // Its last start was in a year that nobody will see.
    fs::write(user.dir().join("data/pombo/nodes/shop/incarnation"), "99999999999999").unwrap();
    let report = Report::of(&user, "--name shop", 0, "ok");
    report.says("neighbour", "fails", false, &["stuck", "nothing came back", "its process lives"]);
    report.says("clock", "fails", false, &["before this node's last start", "set the clock"]);
    let last = fs::read_to_string(user.dir().join("data/pombo/nodes/shop/incarnation")).unwrap();
    assert_eq!(last, "99999999999999", "a look is no start");
}

#[test]
fn a_port_that_is_held_is_named_with_who_has_it() {
    let user = User::new();
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let mut held = vec![format!("/ip4/127.0.0.1/tcp/{}", tcp.local_addr().unwrap().port())];
    if cfg!(feature = "quic") {
        held.push(format!("/ip4/127.0.0.1/udp/{}/quic-v1", udp.local_addr().unwrap().port()));
    }
    let me = format!("process {}", std::process::id());
    for address in held {
        let report = Report::of(&user, &format!("{LOOPBACK} --listen {address}"), 1, "failed");
        report.says("listen", "fails", true, &[&address, &me, "choose another"]);
        report.says("listen", "works", false, &["/ip4/127.0.0.1/tcp/0"]);
        assert!(report.finished.stderr.contains("a node could not work here") && report.finished.stderr.contains(&me));
    }
}

#[test]
fn a_key_that_another_node_has_is_found_out() {
    let user = User::new();
    let (node, _) = user.node(&format!("--key spare {LOOPBACK}"));
    let pid = format!("process {} (pombo)", node.pid());
    let report = Report::of(&user, "--key spare", 1, "failed");
    report.says("key", "fails", true, &["spare", &pid, "stop that one"]);
    // A copy is another file, but the same node: on this host the registry tells.
    fs::copy(user.dir().join("spare"), user.dir().join("copy")).unwrap();
    let report = Report::of(&user, "--key copy", 1, "failed");
    report.says("key", "fails", true, &["this very node runs already", &pid]);
    drop(node);

    // Without the registry, as on another host, the mesh tells, and where it is if others can get there.
    let (_node, started) = user.node("--key spare --no-local --no-mdns --name there --listen /ip4/0.0.0.0/tcp/0");
    let leads_out =
        started["addresses"].as_array().unwrap().iter().any(|at| !at.as_str().unwrap().contains("127.0.0."));
    let (other, reached) =
        user.node(&format!("--no-local --name other {LOOPBACK} --peer {}", started["addresses"][0].as_str().unwrap()));
    other.event("joined");
    let flags = format!("--no-local --key copy --peer {}", reached["addresses"][0].as_str().unwrap());
    if leads_out {
        let report = Report::of(&user, &flags, 1, "failed");
        report.says("key", "fails", true, &["this very node runs elsewhere, as there"]);
    } else {
        let report = Report::of(&user, &flags, 0, "ok");
        report.says("key", "fails", false, &["as there, which tells nobody where"]);
    }
    let report = Report::of(&user, &flags.replace("copy", "fresh"), 0, "ok");
    report.says("key", "works", false, &["is not there yet, and can be made"]);
    assert!(!user.dir().join("fresh").exists());
}

#[test]
fn each_way_to_reach_nobody_is_told_apart() {
    let user = User::new();
    let (_node, started) = user.node(&format!("--no-local {LOOPBACK}"));
    let node = started["addresses"][0].as_str().unwrap().to_owned();
    let port = node.rsplit('/').next().unwrap().to_owned();

    // Nobody listens there any more.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("/ip4/127.0.0.1/tcp/{free}");
    let report = Report::of(&user, &format!("--peer {nobody}"), 6, "no-node");
    report.says("given", "fails", false, &[&nobody, "nobody listens on that port", "--listen"]);
    assert!(report.finished.stderr.contains("none of those that were given"), "{}", report.finished);

    // A program of another kind, which answers whatever it is told and hangs up.
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", web.local_addr().unwrap().port());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = web.accept() {
            stream.set_read_timeout(Some(SOON)).unwrap();
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    let report = Report::of(&user, &format!("--peer {address}"), 6, "no-node");
    report.says("given", "fails", false, &[&address, "no pombo node"]);

    // Another node than the one that was meant.
    let meant = "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";
    let report = Report::of(&user, &format!("--peer {node}/p2p/{meant}"), 6, "no-node");
    report.says("given", "fails", false, &["another node is there", "/p2p/"]);

    let report = Report::of(&user, "--dns pombo.invalid:1", 6, "no-node");
    report.says("dns", "fails", false, &["pombo.invalid:1", "cannot be looked up"]);

    // One that is reached is enough.
    let flags = format!("--peer {nobody} --peer /dns4/localhost/tcp/{port} --dns localhost:{port} --peer {node}");
    let report = Report::of(&user, &flags, 0, "ok");
    report.says("given", "fails", false, &[&nobody]);
    report.says("given", "works", false, &["/dns4/localhost", "127.0.0.1: linked with"]);
    report.says("given", "works", false, &[&node, "linked with"]);
    report.says("dns", "works", false, &[&format!("localhost:{port}"), "linked with"]);
}

#[test]
fn a_node_of_another_mesh_is_told_with_how_to_come_together() {
    let user = User::new();
    let address = |started: &Value| started["addresses"][0].as_str().unwrap().to_owned();
    let (_private, private) = user.node(&format!("--mesh other --no-local {LOOPBACK}"));
    let (_open, open) = user.node(&format!("--open --no-local {LOOPBACK}"));
    for (flags, node, mesh) in [
        ("--mesh lab", &private, "another private mesh"),
        ("--mesh lab", &open, "a node of the open mesh"),
        ("--open", &private, "a node of a private mesh"),
    ] {
        let report = Report::of(&user, &format!("{flags} --peer {}", address(node)), 6, "no-node");
        report.says("given", "fails", false, &[mesh, "--open"]);
    }
    Report::of(&user, &format!("--open --peer {}", address(&open)), 0, "ok");
}

#[test]
fn a_directory_that_cannot_be_written_to_is_vital_only_where_a_node_needs_it() {
    let Some(disk) = SmallDisk::new("a_directory_that_cannot_be_written_to_is_vital_only_where_a_node_needs_it") else {
        return;
    };
    let flags = "--no-mdns --data-dir /mnt/data";
    disk.sh("mount -o remount,ro /mnt");
    let report = Report::of(&disk.user, flags, 1, "failed");
    report.says("data", "fails", true, &["Read-only file system", "name a place that can be written to"]);
    // A node of the open mesh needs nothing of it.
    let report = Report::of(&disk.user, &format!("--open {flags}"), 0, "ok");
    report.says("data", "fails", false, &["a key for this run only"]);

    disk.sh("mount -o remount,rw /mnt");
    disk.user.run("id --name shop --data-dir /mnt/data").expect(0);
    Report::of(&disk.user, flags, 0, "ok").says("data", "works", false, &["can be written to, and locks work"]);
    disk.sh("chmod 644 /mnt/data/nodes/shop/key /mnt/data/mesh/default/secret");
    let report = Report::of(&disk.user, &format!("{flags} --name shop"), 1, "failed");
    report.says("key", "fails", true, &["mode 644", "chmod 600"]);
    report.says("data", "fails", false, &["others may read the mesh's secret", "chmod 600"]);
    disk.sh("chmod 600 /mnt/data/nodes/shop/key /mnt/data/mesh/default/secret; mount -o remount,ro /mnt");
    let report = Report::of(&disk.user, flags, 0, "ok");
    report.says("data", "fails", false, &["a node would do without"]);
    report.says("key", "works", false, &["shop"]);
    let report = Report::of(&disk.user, "--no-mdns --key /mnt/key --data-dir /mnt/data", 1, "failed");
    report.says("key", "fails", true, &["/mnt/key", "Read-only file system"]);
}

#[test]
fn every_way_to_others_that_fails_leaves_nobody() {
    let user = User::new();
    // A registry that is somebody's file.
    fs::write(user.dir().join("runtime/pombo"), "").unwrap();
    let report = Report::of(&user, "--mesh lab", 3, "nobody");
    report.says("local", "fails", false, &["runtime/pombo", "remove it"]);
    assert!(report.finished.stderr.contains("every way to find others fails"), "{}", report.finished);
    Report::of(&user, "--mesh lab --no-local", 0, "ok");
}

#[test]
fn a_host_with_nothing_but_loopback_has_no_mdns_and_is_well() {
    let Some(mut network) = Network::new("a_host_with_nothing_but_loopback_has_no_mdns_and_is_well") else { return };
    let host = network.host_of(Family::LinkLocal, 1, &[]);
    let report = Report::of(&host.user, "", 0, "ok");
    for family in ["IPv4", "IPv6"] {
        report.says("mdns", "fails", false, &[family, "no interface but loopback", "--peer"]);
    }
    report.says("link", "works", false, &["TCP"]);
    report.says("local", "works", false, &[]);
    let report = Report::of(&host.user, "--peer /ip4/10.77.0.2/tcp/7662", 6, "no-node");
    report.says("given", "fails", false, &["/ip4/10.77.0.2/tcp/7662", "there is no way there"]);
}

#[test]
fn multicast_is_heard_on_each_interface_and_others_answer() {
    let Some(mut network) = Network::new("multicast_is_heard_on_each_interface_and_others_answer") else { return };
    let (one, two) = (network.host_of(Family::Dual, 1, &[0]), network.host_of(Family::Dual, 2, &[0]));
    let flags = "--open --no-local";
    let alone = Report::of(&one.user, flags, 0, "ok");
    alone.says("mdns", "works", false, &["IPv4", "eth0 (10.77.0.1)", "no other host answered"]);
    alone.says("mdns", "works", false, &["IPv6", "eth0 (f", "no other host answered"]);

    let node = two.node(flags);
    let report = Report::of(&one.user, flags, 0, "ok");
    report.says("mdns", "works", false, &["IPv4", "answers from 10.77.0.2"]);
    report.says("mdns", "works", false, &["IPv6", "answers from f"]);
    report.says("roster", "works", false, &["1 node is known: h2 (by mDNS)"]);
    // A question tells nobody of a node that asks: only that the roster was asked for shows there.
    node.signal("TERM");
    let finished = node.finish().expect(0);
    for event in ["joined", "other_mesh"] {
        assert!(!finished.text().contains(&format!("\"{event}\"")), "{finished}");
    }
    ip(&format!("-n {} link set eth0 multicast off", one.namespace)).unwrap();
    let report = Report::of(&one.user, flags, 3, "nobody");
    report.says("mdns", "fails", false, &["IPv4", "no interface passes multicast: eth0", "--peer"]);
    ip(&format!("-n {} link set eth0 multicast on", one.namespace)).unwrap();
    // A host that is there, on which nobody listens; and one that is not.
    let report = Report::of(&one.user, &format!("{flags} --peer /ip4/10.77.0.2/tcp/7662"), 6, "no-node");
    report.says("given", "fails", false, &["nobody listens on that port"]);
    let report = Report::of(&one.user, &format!("{flags} --peer /ip4/10.77.0.99/tcp/7662"), 6, "no-node");
    report.says("given", "fails", false, &["/ip4/10.77.0.99/tcp/7662"]);
}

#[cfg(feature = "quic")]
#[test]
fn a_port_for_multicast_that_is_not_shared_is_named_with_who_has_it() {
    let Some(mut network) = Network::new("a_port_for_multicast_that_is_not_shared_is_named_with_who_has_it") else {
        return;
    };
    let host = network.host_of(Family::Dual, 1, &[0]);
    let listens = "--listen /ip4/0.0.0.0/udp/5353/quic-v1 --listen /ip6/::/udp/5353/quic-v1";
    let holder = host.node(&format!("--no-mdns --no-local {listens}"));
    let report = Report::of(&host.user, "", 0, "ok");
    let pid = format!("process {} (pombo) has UDP port 5353", holder.pid());
    for family in ["IPv4", "IPv6"] {
        report.says("mdns", "fails", false, &[family, &pid, "SO_REUSEADDR"]);
    }
    // Who looks no other way finds nobody.
    let report = Report::of(&host.user, "--no-local", 3, "nobody");
    report.says("local", "not-tried", false, &["switched off"]);
}
