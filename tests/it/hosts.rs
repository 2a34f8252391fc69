//! Several hosts on virtual switches: network namespaces with cables between them.
//!
//! Needs root and the `ip` command; where they are missing, each test says that it was skipped.

use std::process::Command;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use crate::support::network::{Host, Network, OPEN};
use crate::support::process::SOON;
use crate::support::user::timed;

#[test]
fn five_hosts_find_each_other_by_mdns_and_outlive_the_first() {
    let Some(mut network) = Network::new("five_hosts_find_each_other_by_mdns_and_outlive_the_first") else { return };
    let hosts = network.hosts::<5>();
    let flags = format!("{OPEN} --listen /ip4/0.0.0.0/tcp/7662");
    let mut nodes: Vec<_> = hosts[..4].iter().map(|host| host.node(&flags)).collect();
    let ((), took) = timed(|| {
        nodes.push(hosts[4].node(&flags));
        // Not only heard of: linked, each to each.
        for node in &nodes {
            for _ in 1..nodes.len() {
                node.event("linked");
            }
        }
    });
    assert!(took < Duration::from_secs(2), "it took {took:?}");

    nodes[0].signal("KILL");
    for node in &nodes[1..] {
        node.event("unlinked");
    }
    // A newcomer that knows one of them and nothing else. Every host subscribes, and one of the old hosts publishes, each
    // by the node of its own host.
    let newcomer = network.host(6, &[0]);
    let newcomer_node = newcomer.node(&format!("{flags} --no-mdns --peer {}", hosts[3].address(0, 7662)));
    for _ in 1..nodes.len() {
        newcomer_node.event("joined");
    }
    let by_own_node = |host: &Host| format!("{OPEN} --no-mdns --peer {}", host.address(0, 7662));
    let living: Vec<_> = hosts[1..].iter().chain([&newcomer]).collect();
    let subs: Vec<_> =
        living.iter().map(|host| host.user.sub(&format!("demo.hello --raw -n 2 {}", by_own_node(host)))).collect();
    for host in [living[0], &newcomer] {
        let flags = by_own_node(host);
        host.user.run(&format!("pub demo.hello h{} --min-peers 5 --timeout 10s {flags}", host.number)).expect(0);
    }
    for sub in subs {
        let finished = sub.finish().expect(0);
        let mut lines: Vec<_> = finished.text().lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["h2", "h6"]);
    }
}

#[test]
fn a_message_passes_a_host_that_wants_nothing() {
    // `pub` hands its message to the node between, which gossips it on. What a lasting node publishes passes one that
    // relays: see `swarm`.
    let Some(mut network) = Network::new("a_message_passes_a_host_that_wants_nothing") else { return };
    network.switch(1);
    let (a, b, c) = (network.host(1, &[0]), network.host(2, &[0, 1]), network.host(3, &[1]));
    let _node = b.node(OPEN);
    let sub = c.user.sub(&format!("'demo.>' --raw {OPEN}"));
    let unreachable =
        Command::new("ip").args(["netns", "exec", &a.namespace, "ping", "-c1", "-W1", "10.77.1.3"]).output();
    assert!(!unreachable.is_ok_and(|ping| ping.status.success()), "a reaches c without b: the test shows nothing");

    let published = a.user.run(&format!("pub demo.hello hi --min-peers 1 --timeout 10s {OPEN}")).expect(0);
    assert!(published.stderr.contains("1 peer subscribes"), "{published}");
    assert_eq!(sub.line(|_| true), "hi");
}

#[test]
fn meshes_on_one_switch_stay_apart_and_say_how_to_come_together() {
    let Some(mut network) = Network::new("meshes_on_one_switch_stay_apart_and_say_how_to_come_together") else {
        return;
    };
    let [private, other, open] = network.hosts();
    let nodes: Vec<_> = [(&private, "--no-local"), (&other, "--no-local"), (&open, OPEN)]
        .map(|(host, flags)| host.user.start(&format!("node {flags}")))
        .into();
    // Each turns two neighbours away, and says so once for each, with the command that would bring them together.
    for node in &nodes {
        let mut said =
            [(); 2].map(|()| node.line(|line| line.contains("turned away") && line.contains(" at 10.77.0.")));
        assert!(said.iter().all(|line| line.contains("pombo node --open")), "{said:?}");
        said = said.map(|line| line.split_once("10.77.0.").unwrap().1.chars().next().unwrap().to_string());
        assert_ne!(said[0], said[1], "each neighbour once: {node}");
    }
    // Meanwhile they go on finding each other: a node asks every 30 s, and whoever starts is told of at once.
    let asked = open.user.run(&format!("pub demo.hello hi --min-peers 1 --timeout 5s {OPEN}")).expect(3);
    assert!(asked.stderr.contains("0 of 1"), "{asked}");
    for node in &nodes {
        let again = node.stdout.next_within(Duration::from_secs(1), |line| line.contains("turned away"));
        // The verb was a stranger of its own to the two private ones, from the open node's host.
        let of_the_verb = again.as_ref().is_none_or(|line| line.contains("10.77.0.3"));
        assert!(of_the_verb, "{again:?}");
    }
    for host in [&private, &other, &open] {
        let flags = if host.number == 3 { OPEN } else { "--no-local" };
        let peers = host.user.wait_for_peers(1, flags);
        assert_eq!(peers.len(), 1, "the host's own node and nobody else");
    }
}

#[test]
fn a_pulled_cable_fails_a_call_in_time() {
    let Some(mut network) = Network::new("a_pulled_cable_fails_a_call_in_time") else { return };
    let [provider, asker] = network.hosts();
    // The command says through a pipe with a name that it has been started.
    let fifo = provider.user.dir().join("started");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let serve = provider.user.start(&format!("serve demo.slow --exec 'echo started > started; sleep 60' {OPEN}"));
    serve.complaint(|line| line.starts_with("serving"));

    let (started, is_started) = sync_channel(1);
    std::thread::spawn(move || started.send(std::fs::read_to_string(fifo)));
    let request = asker.user.start(&format!("request demo.slow hi --timeout 60s {OPEN}"));
    let text =
        is_started.recv_timeout(SOON).unwrap_or_else(|_| panic!("the request does not arrive: {request}\n{serve}"));
    assert_eq!(text.unwrap(), "started\n");

    let pulled = Instant::now();
    network.pull(&provider, 0);
    let failed = request.finish().expect(4);
    let took = pulled.elapsed();
    assert!(took < Duration::from_secs(6), "it took {took:?}, 5 s and a goodbye of at most one are allowed: {failed}");
}
