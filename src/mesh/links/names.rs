//! Names that stand for nodes: when to look them up, and what was found.
//!
//! A name is asked for again and again, since its addresses come and go. What it no longer leads to is forgotten; while it
//! cannot be looked up, what it led to last stands.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::candidates::Target;
use crate::DnsName;
use crate::mesh::effects::Effects;
use crate::mesh::event::{NameId, Output};
use crate::mesh::time::{Mono, Now, Span};

/// How long after an answer a name is asked for again.
const AGAIN: Span = Span::secs(10);
/// Addresses of one name that are heeded.
const MOST: usize = 256;

/// A name, and how nodes at its addresses are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    host: String,
    family: Family,
    /// What follows the IP address, in the order in which it is tried.
    ways: Vec<Multiaddr>,
    /// The one node that is meant, if it is one.
    peer: Option<PeerId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Both,
    Ip4,
    Ip6,
}

impl Name {
    /// All nodes at all addresses of a name. `quic`: if they cannot be reached by TCP, perhaps so.
    pub(crate) fn of_many(name: &DnsName, quic: bool) -> Self {
        let tcp = Multiaddr::empty().with(Protocol::Tcp(name.port()));
        let udp = Multiaddr::empty().with(Protocol::Udp(name.port())).with(Protocol::QuicV1);
        let ways = [tcp].into_iter().chain(quic.then_some(udp)).collect();
        Self { host: name.host().to_owned(), family: Family::Both, ways, peer: None }
    }

    /// The name that an address begins with, such as `/dns4/shop/tcp/7662`. None if it begins with none.
    pub(crate) fn of_address(address: &Multiaddr) -> Option<Self> {
        let mut parts = address.iter();
        let (host, family) = match parts.next() {
            Some(Protocol::Dns(host)) => (host.into_owned(), Family::Both),
            Some(Protocol::Dns4(host)) => (host.into_owned(), Family::Ip4),
            Some(Protocol::Dns6(host)) => (host.into_owned(), Family::Ip6),
            Some(_) | None => return None,
        };
        let mut way: Multiaddr = parts.collect();
        let peer = match way.iter().last() {
            Some(Protocol::P2p(peer)) => {
                way.pop();
                Some(peer)
            }
            Some(_) | None => None,
        };
        Some(Self { host, family, ways: vec![way], peer })
    }

    /// What is looked up.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Who would be dialled where, if these are the addresses of the name: those of one door lead to the same node.
    pub(crate) fn doors(&self, ips: Vec<Multiaddr>) -> impl Iterator<Item = (Option<PeerId>, Vec<Multiaddr>)> {
        self.targets(ips).into_iter().map(|(target, addresses)| (target.peer(), addresses))
    }

    /// Whom to dial where, if these are the addresses of the name.
    fn targets(&self, ips: Vec<Multiaddr>) -> BTreeMap<Target, Vec<Multiaddr>> {
        let of_family = |ip: &Multiaddr| match self.family {
            Family::Both => true,
            Family::Ip4 => matches!(ip.iter().next(), Some(Protocol::Ip4(_))),
            Family::Ip6 => matches!(ip.iter().next(), Some(Protocol::Ip6(_))),
        };
        let mut targets: BTreeMap<Target, Vec<Multiaddr>> = BTreeMap::new();
        for ip in ips.into_iter().filter(of_family).take(MOST) {
            let addresses: Vec<Multiaddr> =
                self.ways.iter().map(|way| way.iter().fold(ip.clone(), Multiaddr::with)).collect();
            let target = self.peer.map(Target::Peer).or_else(|| addresses.first().cloned().map(Target::Address));
            if let Some(target) = target {
                targets.entry(target).or_default().extend(addresses);
            }
        }
        targets
    }
}

/// How a name came to lead elsewhere.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) now: BTreeMap<Target, Vec<Multiaddr>>,
    /// Addresses that no name leads to any more.
    pub(super) gone: Vec<Multiaddr>,
}

#[derive(Debug)]
struct Entry {
    name: Name,
    /// When to ask next. None while an answer is awaited.
    at: Option<Mono>,
    answered: bool,
    found: BTreeMap<Target, Vec<Multiaddr>>,
}

/// The names that were given. An id is an index.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<Entry>);

impl Names {
    pub(super) fn add(&mut self, name: Name, now: Now) {
        self.0.push(Entry { name, at: Some(now.mono), answered: false, found: BTreeMap::new() });
    }

    /// How many names nobody has answered for yet.
    pub(super) fn open(&self) -> usize {
        self.0.iter().filter(|entry| !entry.answered).count()
    }

    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.0.iter().filter_map(|entry| entry.at).min()
    }

    /// Asks for the names whose time has come.
    pub(super) fn ask(&mut self, now: Now, fx: &mut Effects) {
        for (id, entry) in (0..).zip(&mut self.0) {
            if entry.at.is_some_and(|at| at <= now.mono) {
                entry.at = None;
                fx.push(Output::Resolve { name: NameId(id), host: entry.name.host.clone() });
            }
        }
    }

    /// Takes an answer. `ips` is None if there is none; then nothing changes.
    pub(super) fn resolved(
        &mut self,
        NameId(id): NameId,
        ips: Option<Vec<Multiaddr>>,
        now: Now,
        fx: &mut Effects,
    ) -> Option<Found> {
        let entry = usize::try_from(id).ok().and_then(|index| self.0.get_mut(index))?;
        entry.at = Some(now.mono + fx.jitter(AGAIN));
        entry.answered = true;
        let found = entry.name.targets(ips?);
        let before = std::mem::replace(&mut entry.found, found.clone());
        let stands = |address: &Multiaddr| {
            self.0.iter().flat_map(|entry| entry.found.values()).flatten().any(|one| one == address)
        };
        let gone = before.into_values().flatten().filter(|address| !stands(address)).collect();
        Some(Found { now: found, gone })
    }
}
