//! How hosts find each other: by name, over IPv6, and whatever else is on their network. See [`network`](crate::support::network).

use std::time::Duration;

use crate::support::network::{Family, Host, Network, OPEN};
use crate::support::process::Process;

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
