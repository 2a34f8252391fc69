//! Addresses that lead to nobody but the containers and virtual machines of this host.
//!
//! Container engines keep bridges of their own, often with the same addresses on every host: who dials them from another host
//! reaches its own. They are told to nobody else. Containers reach their host at its other addresses as well, and find it by
//! multicast DNS.
//!
//! Known on Linux only; elsewhere every address counts as one for others.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// The addresses that may be told to others. If none would be left, all of them: better a bad address than none.
pub(crate) fn for_others(addresses: &[Multiaddr]) -> Vec<Multiaddr> {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let ip6 = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let interface = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => interface_of(ip, &routes),
        IpAddr::V6(ip) => interface_with(&ip.octets(), &ip6),
    };
    let is_inner = |address: &&Multiaddr| {
        let ip = ip(address).filter(|ip| !ip.is_loopback());
        ip.and_then(interface).is_some_and(|name| is_inner_bridge(&name, &routes))
    };
    let (inner, outer): (Vec<_>, Vec<_>) = addresses.iter().partition(is_inner);
    let leads_out = |address: &&Multiaddr| ip(address).is_none_or(|ip| !ip.is_loopback());
    let all = if outer.iter().any(leads_out) { outer } else { [outer, inner].concat() };
    all.into_iter().filter(|address| !is_memory(address)).cloned().collect()
}

/// Whether it leads nowhere but within the process that listens there.
pub(super) fn is_memory(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::Memory(_)))
}

/// The IP address that an address begins with.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    }
}

/// A line of `/proc/net/route`.
struct Route<'a> {
    interface: &'a str,
    network: u32,
    mask: u32,
    has_gateway: bool,
}

fn routes(table: &str) -> impl Iterator<Item = Route<'_>> {
    table.lines().skip(1).filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // In the order of the bytes on the wire, read as a number of this host.
        let number =
            |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok().map(|raw| u32::from_be_bytes(raw.to_ne_bytes()));
        let has_gateway = number(2)? != 0;
        Some(Route { interface: fields.first()?, network: number(1)?, mask: number(7)?, has_gateway })
    })
}

/// The interface to whose network this address belongs: the closest.
fn interface_of(ip: Ipv4Addr, table: &str) -> Option<String> {
    let ip = ip.to_bits();
    let near = routes(table).filter(|one| !one.has_gateway && one.mask != 0 && ip & one.mask == one.network);
    near.max_by_key(|one| one.mask).map(|one| one.interface.to_owned())
}

/// The interface that has this address, as `/proc/net/if_inet6` says.
fn interface_with(ip: &[u8; 16], table: &str) -> Option<String> {
    let wanted = format!("{:032x}", u128::from_be_bytes(*ip));
    let line = table.lines().find(|line| line.starts_with(&wanted))?;
    line.split_whitespace().last().map(str::to_owned)
}

/// Whether it is a bridge over which nothing leaves this host: no gateway is behind it, and no port of it is, or stands on, a
/// network card.
fn is_inner_bridge(name: &str, table: &str) -> bool {
    let interface = Path::new("/sys/class/net").join(name);
    let Ok(ports) = fs::read_dir(interface.join("brif")) else { return false };
    let leads_on = routes(table).any(|one| one.interface == name && one.has_gateway);
    !leads_on && !ports.flatten().any(|port| is_on_a_card(&Path::new("/sys/class/net").join(port.file_name())))
}

fn is_on_a_card(interface: &Path) -> bool {
    let stands_on = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("lower_");
    interface.join("device").exists()
        || fs::read_dir(interface).is_ok_and(|mut all| all.any(|one| one.is_ok_and(stands_on)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn an_address_belongs_to_the_interface_with_the_closest_network() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                     docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                     br1\t0005A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let of = |ip: [u8; 4]| interface_of(ip.into(), table);
        assert_eq!(of([172, 17, 0, 1]).as_deref(), Some("docker0"));
        assert_eq!(of([192, 168, 5, 1]).as_deref(), Some("br1"));
        assert_eq!(of([192, 168, 0, 7]).as_deref(), Some("eth0"));
        assert_eq!(of([8, 8, 8, 8]), None);
        assert!(routes(table).any(|one| one.interface == "eth0" && one.has_gateway));
    }

    #[test]
    fn an_ip6_address_is_found_as_it_is() {
        let table = "fd770000000000000000000000000001 02 40 00 80     eth0\n00000000000000000000000000000001 01 80 10 80       lo\n";
        let with = |ip: &str| interface_with(&ip.parse::<std::net::Ipv6Addr>().unwrap().octets(), table);
        assert_eq!(with("fd77::1").as_deref(), Some("eth0"));
        assert_eq!(with("fd77::2"), None);
    }

    #[test]
    fn without_another_the_addresses_stay_as_they_are_but_for_those_within_the_process() {
        let addresses: Vec<Multiaddr> = vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap(), "/memory/7".parse().unwrap()];
        assert_eq!(for_others(&addresses), addresses[..1]);
        assert!(for_others(&addresses[1..]).is_empty());
    }
}
