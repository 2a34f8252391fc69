//! Several hosts on virtual switches: network namespaces with cables between them.
//!
//! Needs root and the `ip` command; where they are missing, each test says that it was skipped.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use crate::support::Turn;
use crate::support::process::{Process, SOON};
use crate::support::user::{User, timed};

/// What a node needs to be told here: anybody may join, and the registry, which the hosts would share as they share the
/// file system, is left alone.
const OPEN: &str = "--open --no-local";

/// Hosts and switches of one test. All of it goes when this is dropped.
struct Network {
    /// What the names of this test's namespaces begin with.
    tag: String,
    namespaces: Vec<String>,
    _turn: Turn,
}

/// A host, with one user.
struct Host {
    number: u8,
    namespace: String,
    user: User,
}

impl Network {
    /// None, and a line that says why, where namespaces cannot be made.
    fn new(test: &str) -> Option<Self> {
        static TESTS: AtomicU32 = AtomicU32::new(0);
        let turn = Turn::alone();
        let tag = format!("pombo{}-{}", std::process::id(), TESTS.fetch_add(1, Ordering::Relaxed));
        let mut network = Self { tag, namespaces: Vec::new(), _turn: turn };
        let made = network.try_namespace("sw0").and_then(|()| network.try_switch(0));
        if let Err(reason) = made {
            // Past the harness, which keeps quiet about tests that pass.
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("SKIPPED hosts::{test}: no network namespaces here: {reason}\n").as_bytes(),
            );
            return None;
        }
        Some(network)
    }

    /// Another switch.
    fn switch(&mut self, number: u8) {
        self.try_namespace(&format!("sw{number}")).unwrap();
        self.try_switch(number).unwrap();
    }

    /// A host with a cable to each of these switches. On switch 0 host 3 is 10.77.0.3.
    fn host(&mut self, number: u8, switches: &[u8]) -> Host {
        let name = format!("h{number}");
        self.try_namespace(&name).unwrap();
        let namespace = self.namespace(&name);
        ip(&format!("-n {namespace} link set lo up")).unwrap();
        for switch in switches {
            let at = self.namespace(&format!("sw{switch}"));
            for command in [
                format!("link add eth{switch} netns {namespace} type veth peer name h{number} netns {at}"),
                format!("-n {at} link set h{number} master br0 up"),
                format!("-n {namespace} addr add 10.77.{switch}.{number}/24 dev eth{switch}"),
                format!("-n {namespace} link set eth{switch} up"),
            ] {
                ip(&command).unwrap();
            }
        }
        // Multicast needs a way out.
        ip(&format!("-n {namespace} route add default dev eth{}", switches[0])).unwrap();
        let user = User::at(["ip", "netns", "exec", &namespace].map(str::to_owned).into());
        Host { number, namespace, user }
    }

    fn hosts<const N: usize>(&mut self) -> [Host; N] {
        std::array::from_fn(|index| self.host(u8::try_from(index + 1).unwrap(), &[0]))
    }

    /// Pulls a host's cable out of the switch.
    fn pull(&self, host: &Host, switch: u8) {
        ip(&format!("-n {} link set h{} down", self.namespace(&format!("sw{switch}")), host.number)).unwrap();
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.tag)
    }

    fn try_namespace(&mut self, name: &str) -> Result<(), String> {
        let namespace = self.namespace(name);
        ip(&format!("netns add {namespace}"))?;
        self.namespaces.push(namespace);
        Ok(())
    }

    fn try_switch(&self, number: u8) -> Result<(), String> {
        let namespace = self.namespace(&format!("sw{number}"));
        ip(&format!("-n {namespace} link add br0 type bridge mcast_snooping 0"))?;
        ip(&format!("-n {namespace} link set br0 up"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            if let Err(error) = ip(&format!("netns del {namespace}")) {
                eprintln!("{namespace} stays behind: {error}");
            }
        }
    }
}

impl Host {
    fn node(&self, flags: &str) -> Process {
        let (node, _) = self.user.node(&format!("--name h{} {flags}", self.number));
        node
    }

    /// Its address on a switch, at a node's port.
    fn address(&self, switch: u8, port: u16) -> String {
        format!("/ip4/10.77.{switch}.{}/tcp/{port}", self.number)
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

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
