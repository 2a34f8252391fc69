//! Nodes that are found by name.

use pombo::{Node, StartError};

use crate::support::process::SOON;
use crate::support::user::User;

#[test]
fn a_name_leads_to_a_node_and_to_oneself_without_harm() {
    let user = User::new();
    let (node, started) = user.node("--no-local --listen /ip4/127.0.0.1/tcp/0");
    let address = started["addresses"][0].as_str().unwrap().to_owned();
    let port = address.rsplit('/').next().unwrap().to_owned();

    // In each of the forms that a name has.
    let by_name = [
        format!("--dns localhost:{port}"),
        format!("--peer /dns4/localhost/tcp/{port}"),
        format!("--peer /dns/localhost/tcp/{port}"),
    ];
    for flags in by_name {
        let peers = user.wait_for_peers(1, &format!("--no-local {flags}"));
        assert_eq!(peers[0]["found_by"], "dns", "{flags}: {peers:?}");
    }
    let of_itself =
        user.node(&format!("--no-local --listen {} --dns localhost:7 --dns localhost:{port}", "/ip4/127.0.0.1/tcp/0"));
    assert_eq!(of_itself.0.event("linked")["found_by"], "dns");
    assert_eq!(of_itself.1["discovery"][3]["detail"], format!("localhost:7, localhost:{port}"));
    drop(node);
}

#[test]
fn what_is_no_name_is_refused_and_what_is_not_found_is_said_once() {
    let user = User::new();
    for (flags, wanted) in [
        ("--dns localhost", "NAME:PORT"),
        ("--dns localhost:0", "no port"),
        ("--dns a..b:1", "no host name"),
        ("--dns a:1,b", "NAME:PORT"),
        ("--dns 10.0.0.1:80", "/ip4/10.0.0.1/tcp/80"),
        ("--peer /dnsaddr/example.org", "dnsaddr"),
        ("--peer /dnsaddr/example.org/tcp/1", "dnsaddr"),
        ("--peer /dns4/example.org", "/dns/shop.example/tcp/7662"),
        ("--peer /dns4/a..b/tcp/1", "a..b"),
    ] {
        let refused = user.run(&format!("peers {flags}")).expect(2);
        assert!(refused.stderr.contains(wanted), "{flags}: {refused}");
    }
    let refused = user.command("pombo").env("POMBO_DNS", "a:1,b").arg("peers").output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");

    let lonely = user.run("pub demo.a hi --no-local --min-peers 1 --timeout 1s --dns pombo.invalid:1").expect(3);
    assert_eq!(lonely.stderr.matches("cannot look the name up").count(), 1, "{lonely}");
    assert!(lonely.stderr.contains("pombo.invalid"), "{lonely}");
}

#[tokio::test]
async fn the_library_refuses_what_cannot_be_looked_up() {
    let data = tempfile::tempdir().unwrap();
    for address in
        ["/dnsaddr/example.org", "/dnsaddr/example.org/tcp/1", "/dns4/a..b/tcp/1", "/dns6/a", "/ip4/10.0.0.1"]
    {
        let builder = Node::builder().open().data_dir(data.path()).mdns(false).local(false);
        let started = tokio::time::timeout(SOON, builder.peer(address.parse().unwrap()).start()).await.unwrap();
        let Err(StartError::Config(reason)) = started else { panic!("{address}: {started:?}") };
        assert!(reason.contains(address) && reason.contains("/dns/"), "{reason}");
    }
}

#[test]
fn of_two_nodes_with_one_name_neither_is_asked_and_both_are_listed() {
    let (user, other) = (User::new(), User::at(Vec::new()));
    let (node, started) = user.node("--open --no-local --no-mdns --listen /ip4/127.0.0.1/tcp/0");
    let flags = format!("--open --no-local --no-mdns --peer {}", started["addresses"][0].as_str().unwrap());
    // Each in a data directory of its own, as on two hosts.
    let serve = |user: &User, service: &str| {
        let serve = user.start(&format!("serve {service} --echo --name twin {flags}"));
        serve.complaint(|line| line.starts_with("serving"));
        serve
    };
    let _twins = [serve(&user, "demo.both"), serve(&other, "demo.both")];
    let peers = user.wait_for_peers(3, &flags);
    let ids: Vec<_> = peers.iter().filter(|peer| peer["name"] == "twin").map(|peer| &peer["peer"]).collect();
    assert_eq!(ids.len(), 2, "each is listed: {peers:?}");

    let ambiguous = user.run(&format!("request demo.both hi --to twin {flags}")).expect(7);
    for id in &ids {
        assert!(ambiguous.stderr.contains(id.as_str().unwrap()), "{ambiguous}");
        let answered = user.run(&format!("request demo.both hi --to {} {flags}", id.as_str().unwrap())).expect(0);
        assert_eq!(answered.text(), "hi");
    }
    drop(node);
}
