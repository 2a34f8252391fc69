//! Interfaces, and sockets as libp2p's multicast DNS sets them up.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use tokio::net::UdpSocket;

use super::{Family, PORT};

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) ip: IpAddr,
    /// Whether it passes multicast, as the system sees it.
    pub(super) multicast: bool,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.ip)
    }
}

/// The addresses of all interfaces that are up, but for loopback.
pub(super) fn interfaces() -> io::Result<Vec<Interface>> {
    let all = getifaddrs()?.filter_map(|found| {
        let ip = ip_of(&found.address?)?;
        let (flags, name) = (found.flags, found.interface_name);
        let counts = flags.contains(InterfaceFlags::IFF_UP) && !ip.is_loopback();
        counts.then(|| Interface { name, ip, multicast: flags.contains(InterfaceFlags::IFF_MULTICAST) })
    });
    Ok(all.collect())
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let four = address.as_sockaddr_in().map(|four| four.ip().into());
    four.or_else(|| address.as_sockaddr_in6().map(|six| six.ip().into()))
}

/// The socket to listen on, which shares the port with whoever shares it.
pub(super) fn receiver(family: Family) -> io::Result<UdpSocket> {
    let domain = match family {
        Family::Ip4 => AddressFamily::Inet,
        Family::Ip6 => AddressFamily::Inet6,
    };
    let shared = socket(domain, SockType::Datagram, SockFlag::empty(), None)?;
    fcntl(&shared, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    setsockopt(&shared, sockopt::ReuseAddr, &true)?;
    setsockopt(&shared, sockopt::ReusePort, &true)?;
    let fd = shared.as_raw_fd();
    match family {
        Family::Ip4 => bind(fd, &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT)))?,
        Family::Ip6 => bind(fd, &SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, PORT, 0, 0)))?,
    }
    ready(shared.into())
}

/// A socket to ask on, after the receiver has joined the group where the answers come in.
pub(super) fn asker(family: Family, receiver: &UdpSocket, ip: Option<IpAddr>) -> io::Result<UdpSocket> {
    let group = family.group().ip();
    match (group, ip) {
        (IpAddr::V4(group), Some(IpAddr::V4(ip))) => receiver.join_multicast_v4(group, ip)?,
        (IpAddr::V4(group), _) => receiver.join_multicast_v4(group, Ipv4Addr::UNSPECIFIED)?,
        (IpAddr::V6(group), _) => receiver.join_multicast_v6(&group, 0)?,
    }
    let any: IpAddr = match family {
        Family::Ip4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ip6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    ready(std::net::UdpSocket::bind(SocketAddr::new(ip.unwrap_or(any), 0))?)
}

fn ready(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}
