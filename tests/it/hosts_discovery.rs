//! How hosts find each other: by name, over IPv6, and whatever else is on their network. See [`network`](crate::support::network).

use std::time::{Duration, Instant};

use crate::support::network::{Family, Host, Network, OPEN, ip};
use crate::support::process::{Process, SOON};

const TCP: &str = "--listen /ip4/0.0.0.0/tcp/7662";

/// Waits until a node has linked up with so many others. Returns where.
fn linked(node: &Process, count: usize) -> Vec<String> {
    (0..count).map(|_| node.event("linked")["addresses"][0].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_name_of_many_hosts_leads_to_each_of_them_as_they_come_and_go() {
    let Some(mut network) = Network::new("a_name_of_many_hosts_leads_to_each_of_them_as_they_come_and_go") else {
        return;
    };
    let hosts = network.hosts::<3>();
    let listed = |numbers: &[u8]| -> String {
        // Everybody is among those that the name stands for, as with a headless service. Nobody is at the last one.
        let ips = numbers.iter().map(|number| format!("10.77.0.{number}")).chain(["10.77.0.99".into()]);
        ips.map(|ip| format!("{ip} pombo.test\n")).collect()
    };
    for host in &hosts {
        host.hosts_file(&listed(&[1, 2]));
    }
    let node = |host: &Host| host.node(&format!("{OPEN} --no-mdns {TCP} --dns pombo.test:7662"));
    let (one, two) = (node(&hosts[0]), node(&hosts[1]));
    linked(&one, 1);
    linked(&two, 1);
    // The third is listed later, and knows nobody: only the name leads the others to it.
    hosts[2].hosts_file("");
    let three = node(&hosts[2]);
    three.complaint(|line| line.contains("cannot look the name up") && line.contains("pombo.test"));
    hosts[0].hosts_file(&listed(&[1, 2, 3]));
    let event = one.event("linked");
    assert_eq!((&event["found_by"], &event["addresses"][0]), (&"dns".into(), &"/ip4/10.77.0.3/tcp/7662".into()));
    linked(&three, 2);
    let again = three.stderr.next_within(Duration::from_secs(13), |line| line.contains("cannot look"));
    assert_eq!(again, None, "said once: {three}");
}

#[test]
fn hosts_with_ipv6_only_find_each_other_by_mdns_and_by_address() {
    let Some(mut network) = Network::new("hosts_with_ipv6_only_find_each_other_by_mdns_and_by_address") else { return };
    let [one, two, three] = [1, 2, 3].map(|number| network.host_of(Family::Ip6, number, &[0]));
    let nodes = [one.node(OPEN), two.node(OPEN)];
    for node in &nodes {
        let event = node.event("linked");
        assert!(event["addresses"][0].as_str().unwrap().starts_with("/ip6/"), "{event}");
    }
    let peers = one.user.wait_for_peers(2, OPEN);
    for peer in peers {
        let addresses = peer["addresses"].as_array().unwrap();
        assert!(!addresses.is_empty(), "{peer}");
        for address in addresses.iter().map(|address| address.as_str().unwrap()) {
            assert!(address.starts_with("/ip6/fd77::"), "not for others: {address}");
        }
    }
    let listens = three.node(&format!("{OPEN} --no-mdns --listen /ip6/::/tcp/7662"));
    let sub = two.user.sub(&format!("demo.a --raw -n 1 {OPEN} --no-mdns --peer /ip6/fd77::3/tcp/7662"));
    linked(&listens, 1);
    one.user
        .run(&format!("pub demo.a hi --min-peers 1 --timeout 10s {OPEN} --no-mdns --peer /ip6/fd77::3/tcp/7662"))
        .expect(0);
    assert_eq!(sub.finish().expect(0).text(), "hi\n");
}

#[test]
fn a_host_with_both_families_passes_on_between_those_with_one() {
    let Some(mut network) = Network::new("a_host_with_both_families_passes_on_between_those_with_one") else { return };
    let old = network.host_of(Family::Ip4, 1, &[0]);
    let both = network.host_of(Family::Dual, 2, &[0]);
    let new = network.host_of(Family::Ip6, 3, &[0]);
    let node = both.node(OPEN);
    let sub = new.user.sub(&format!("demo.a --raw -n 1 {OPEN}"));
    let published = old.user.run(&format!("pub demo.a hi --min-peers 1 --timeout 10s {OPEN}")).expect(0);
    assert!(published.stderr.contains("1 peer subscribes"), "{published}");
    assert_eq!(sub.finish().expect(0).text(), "hi\n");
    let mut families: Vec<_> = linked(&node, 2).iter().map(|address| address[..5].to_owned()).collect();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families, ["/ip4/", "/ip6/"]);
}

/// Over QUIC alone, and at addresses that a node shares with every other host.
#[cfg(feature = "quic")]
#[test]
fn hosts_with_ipv6_only_talk_over_quic() {
    let Some(mut network) = Network::new("hosts_with_ipv6_only_talk_over_quic") else { return };
    let [one, two] = [1, 2].map(|number| network.host_of(Family::Ip6, number, &[0]));
    let flags = format!("{OPEN} --listen /ip6/::/udp/7662/quic-v1");
    let nodes = [one.node(&flags), two.node(&flags)];
    for node in &nodes {
        let at = linked(node, 1).remove(0);
        assert!(at.starts_with("/ip6/") && at.contains("/quic-v1"), "{at}");
    }
    // Found by mDNS, and by an address.
    let quic = "--listen /ip6/::/udp/0/quic-v1";
    let sub = two.user.sub(&format!("demo.a --raw -n 2 {OPEN} {quic}"));
    let by_mdns = format!("pub demo.a one --min-peers 1 --timeout 10s {OPEN} {quic}");
    let by_address = format!("{} --no-mdns --peer /ip6/fd77::2/udp/7662/quic-v1", by_mdns.replace("one", "two"));
    one.user.run(&by_mdns).expect(0);
    one.user.run(&by_address).expect(0);
    assert_eq!(sub.finish().expect(0).text(), "one\ntwo\n");
}

/// The addresses of the other node, as a verb on this host lists them once they are as wanted.
fn lists(host: &Host, flags: &str, wanted: &[&str]) {
    let until = Instant::now() + SOON;
    loop {
        let listing = host.user.run(&format!("peers --json {flags}")).expect(0).json();
        let addresses = listing["items"].as_array().unwrap().iter().find(|peer| peer["name"] == "h1");
        let addresses: Vec<_> = addresses.map_or(Vec::new(), |peer| {
            let all = peer["addresses"].as_array().unwrap().iter();
            all.map(|address| address.as_str().unwrap().to_owned()).collect()
        });
        if addresses == wanted {
            return;
        }
        assert!(Instant::now() < until, "{addresses:?} instead of {wanted:?}");
    }
}

#[test]
fn others_are_told_of_the_addresses_that_they_can_dial_as_these_come_and_go() {
    let Some(mut network) = Network::new("others_are_told_of_the_addresses_that_they_can_dial_as_these_come_and_go")
    else {
        return;
    };
    let [one, two] = network.hosts();
    let here = &one.namespace;
    // As a container engine does it: a bridge, and a container on it.
    for command in [
        "link add docker0 type bridge",
        "link add cable type veth peer name container",
        "link set cable master docker0 up",
        "link set container up",
        "link set docker0 up",
        "addr add 172.17.0.1/16 dev docker0",
        "addr add fd17::1/64 dev docker0 nodad",
        "addr add fd77::1/64 dev eth0 nodad",
    ] {
        ip(&format!("-n {here} {command}")).unwrap();
    }
    let node = one.node(&format!("{OPEN} --listen /ip4/0.0.0.0/tcp/7662 --listen /ip6/::/tcp/7663"));
    let flags = format!("{OPEN} --no-mdns --peer /ip4/10.77.0.1/tcp/7662");
    let (ip4, ip6) = ("/ip4/10.77.0.1/tcp/7662", "/ip6/fd77::1/tcp/7663");
    lists(&two, &flags, &[ip4, ip6]);
    ip(&format!("-n {here} addr add 10.77.0.101/24 dev eth0")).unwrap();
    lists(&two, &flags, &[ip4, ip6, "/ip4/10.77.0.101/tcp/7662"]);
    ip(&format!("-n {here} addr del 10.77.0.101/24 dev eth0")).unwrap();
    ip(&format!("-n {here} addr del fd77::1/64 dev eth0")).unwrap();
    lists(&two, &flags, &[ip4]);
    drop(node);
}

#[test]
fn a_node_that_listens_to_its_own_host_only_tells_others_of_no_address() {
    let Some(mut network) = Network::new("a_node_that_listens_to_its_own_host_only_tells_others_of_no_address") else {
        return;
    };
    let [one, two] = network.hosts();
    let _two = two.node(&format!("{OPEN} --no-mdns {TCP}"));
    let node = one.node(&format!("{OPEN} --no-mdns --listen /ip4/127.0.0.1/tcp/7662 --peer {}", two.address(0, 7662)));
    linked(&node, 1);
    lists(&two, &format!("{OPEN} --no-mdns --peer {}", two.address(0, 7662)), &[]);
}
