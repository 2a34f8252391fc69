//! Who may be dialled: their addresses, how these were found, and when to try again.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use crate::mesh::effects::Effects;
use crate::mesh::event::FoundBy;
use crate::mesh::time::{Mono, Now, Span};

/// Candidates remembered.
const MOST: usize = 1_024;
/// Addresses remembered of each.
const ADDRESSES: usize = 16;
const FIRST_RETRY: Span = Span::millis(250);
const LAST_RETRY: Span = Span::secs(60);
/// Those that the user named are never given up, and tried at this pace in the end.
const GIVEN_RETRY: Span = Span::secs(5);
/// How long an address is not dialled where somebody else was found.
const ASTRAY: Span = Span::secs(60);
/// A dial without an outcome by then has failed.
const DIALLING: Span = Span::secs(30);
/// After so many failures in a row a candidate is not counted among the nodes that are there.
const DOUBTFUL: u32 = 3;

/// Whom a dial is for: a node, or whoever is at an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Peer(PeerId),
    Address(Multiaddr),
}

impl Target {
    pub(super) fn peer(&self) -> Option<PeerId> {
        match self {
            Self::Peer(peer) => Some(*peer),
            Self::Address(_) => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Candidate {
    /// The latest first.
    addresses: Vec<(Multiaddr, FoundBy)>,
    /// Whether the user named it.
    pub(super) given: bool,
    /// Whether a name that the user gave leads to it now.
    listed: bool,
    /// Addresses that others say it has, and somebody else does. Each with until when to believe that.
    astray: Vec<(Multiaddr, Mono)>,
    seen: Mono,
    failures: u32,
    not_before: Mono,
    /// When the dial under way is overdue.
    pub(super) dialling: Option<Mono>,
    /// It said goodbye, and was not seen since.
    pub(super) departed: bool,
    /// Who was found there. While that one is linked there is no need to dial.
    pub(super) resident: Option<PeerId>,
    /// Somebody was found there once.
    met: bool,
}

impl Candidate {
    fn new(now: Now) -> Self {
        Self {
            addresses: Vec::new(),
            given: false,
            listed: false,
            astray: Vec::new(),
            seen: now.mono,
            failures: 0,
            not_before: Mono(0),
            dialling: None,
            departed: false,
            resident: None,
            met: false,
        }
    }

    /// Where to dial it next. TCP first: it is faster on a local network, and tells at once when the process at the other
    /// end dies. QUIC as well if that led nowhere, or if there is nothing else.
    pub(super) fn addresses(&self) -> Vec<Multiaddr> {
        let all = || self.addresses.iter().map(|(address, _)| address.clone());
        let not_quic: Vec<_> = all().filter(|address| !is_quic(address)).collect();
        if self.failures > 0 || not_quic.is_empty() { all().collect() } else { not_quic }
    }

    /// Where to dial it next, if it is not known who that is: one address after the other, since such a dial goes to one only.
    pub(super) fn next_address(&self) -> Option<Multiaddr> {
        let mut all: Vec<_> = self.addresses.iter().map(|(address, _)| address).collect();
        all.sort_by_key(|address| is_quic(address));
        let turn = usize::try_from(self.failures).unwrap_or_default() % all.len().max(1);
        all.get(turn).map(|address| (*address).clone())
    }

    pub(super) fn is_at(&self, address: &Multiaddr) -> bool {
        self.addresses.iter().any(|(known, _)| known == address)
    }

    pub(super) fn found_by(&self, address: &Multiaddr) -> Option<FoundBy> {
        self.addresses.iter().find(|(known, _)| known == address).map(|(_, by)| *by)
    }

    /// Whether these are all the addresses that are known.
    pub(super) fn is_only_at(&self, addresses: &[Multiaddr]) -> bool {
        self.addresses.iter().all(|(known, _)| addresses.contains(known))
    }

    /// Whether a dial makes sense, when there is room for one and it is time.
    pub(super) fn is_willing(&self) -> bool {
        self.dialling.is_none() && !self.addresses.is_empty() && (!self.departed || self.is_kept())
    }

    pub(super) fn not_before(&self) -> Mono {
        self.not_before
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.failures >= DOUBTFUL
    }

    /// Whether the user wants it to be tried for ever.
    pub(super) fn is_kept(&self) -> bool {
        self.given || self.listed
    }

    /// Remembers an address. True if it is new.
    fn add(&mut self, address: Multiaddr, by: FoundBy, now: Now) -> bool {
        self.astray.retain(|(_, until)| *until > now.mono);
        if by != FoundBy::Given && self.astray.iter().any(|(astray, _)| *astray == address) {
            return false;
        }
        let known = self.addresses.iter().position(|(known, _)| *known == address);
        let before = known.map(|index| self.addresses.remove(index));
        // What the user gave stays given, and what a name leads to is of that name, whoever else finds it.
        let before_by = before.as_ref().map(|(_, by)| *by);
        let by = match before_by {
            Some(FoundBy::Given) => FoundBy::Given,
            Some(FoundBy::Dns) if by != FoundBy::Given => FoundBy::Dns,
            Some(_) | None => by,
        };
        self.addresses.insert(0, (address, by));
        self.addresses.truncate(ADDRESSES);
        before.is_none()
    }

    pub(super) fn try_at(&mut self, at: Mono) {
        self.failures = 0;
        self.not_before = at;
    }

    pub(super) fn dialled(&mut self, now: Now) {
        self.dialling = Some(now.mono + DIALLING);
    }

    /// A link to `peer` came of it.
    pub(super) fn arrived(&mut self, peer: PeerId) {
        self.dialling = None;
        self.resident = Some(peer);
        self.meet();
    }

    /// It is there: it was linked once.
    pub(super) fn meet(&mut self) {
        self.met = true;
    }

    pub(super) fn failed(&mut self, now: Now, fx: &mut Effects) {
        self.dialling = None;
        let doubled = Span(FIRST_RETRY.0 << self.failures.min(8)).min(LAST_RETRY);
        self.failures = self.failures.saturating_add(1);
        // Jitter only adds to what the user's addresses wait in the end: not more often than that.
        let slowest = self.is_kept() && doubled >= GIVEN_RETRY;
        let pause = if slowest { Span(GIVEN_RETRY.0 + fx.jitter(FIRST_RETRY).0) } else { fx.jitter(doubled) };
        self.not_before = now.mono + pause;
    }

    /// Somebody else is at that address. What the user gave is tried again nevertheless, and so is the only address.
    fn mislaid(&mut self, address: &Multiaddr, now: Now) {
        let told = self.addresses.iter().any(|(known, by)| known == address && *by != FoundBy::Given);
        if told && self.addresses.len() > 1 {
            self.addresses.retain(|(known, _)| known != address);
            self.astray.push((address.clone(), now.mono + ASTRAY));
            self.astray.truncate(ADDRESSES);
        }
    }

    /// Whether nothing but multicast DNS tells of it, and it was never met. What was said of one that left is no rumour.
    fn is_rumour(&self) -> bool {
        self.addresses.iter().all(|(_, by)| *by == FoundBy::Mdns) && !self.met && !self.departed
    }

    fn is_evictable(&self) -> bool {
        !self.is_kept() && self.dialling.is_none() && self.resident.is_none()
    }
}

fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::QuicV1))
}

#[derive(Debug, Default)]
pub(super) struct Candidates(BTreeMap<Target, Candidate>);

impl Candidates {
    pub(super) fn get(&self, target: &Target) -> Option<&Candidate> {
        self.0.get(target)
    }

    pub(super) fn get_mut(&mut self, target: &Target) -> Option<&mut Candidate> {
        self.0.get_mut(target)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Target, &Candidate)> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Target, &mut Candidate)> {
        self.0.iter_mut()
    }

    pub(super) fn remove(&mut self, target: &Target) {
        self.0.remove(target);
    }

    /// Remembers where a target may be found. A new address, or the word of someone who has just seen it, is worth a
    /// dial at once.
    pub(super) fn see(&mut self, target: &Target, addresses: Vec<Multiaddr>, by: FoundBy, now: Now) {
        let Some(candidate) = self.enter(target, now) else { return };
        candidate.seen = now.mono;
        candidate.given |= by == FoundBy::Given;
        candidate.listed |= by == FoundBy::Dns;
        // The roster may still repeat what was true before the goodbye.
        let returned = candidate.departed && by != FoundBy::Roster;
        candidate.departed &= !returned;
        let mut fresh = returned;
        for address in addresses {
            fresh |= candidate.add(address, by, now);
        }
        if fresh {
            candidate.try_at(now.mono);
        }
    }

    pub(super) fn forget_rumours(&mut self) {
        self.0.retain(|_, candidate| !candidate.is_rumour());
    }

    pub(super) fn depart(&mut self, target: &Target, now: Now) {
        if let Some(candidate) = self.enter(target, now) {
            candidate.departed = true;
        }
    }

    /// A name does not lead there any more.
    pub(super) fn unlist(&mut self, address: &Multiaddr) {
        for candidate in self.0.values_mut() {
            candidate.addresses.retain(|(known, by)| *by != FoundBy::Dns || known != address);
            candidate.listed &= candidate.addresses.iter().any(|(_, by)| *by == FoundBy::Dns);
        }
        self.0.retain(|_, candidate| candidate.departed || !candidate.addresses.is_empty());
    }

    /// Another node than that one is at these addresses.
    pub(super) fn mislay(&mut self, target: &Target, addresses: &[Multiaddr], now: Now) {
        if let Some(candidate) = self.0.get_mut(target) {
            addresses.iter().for_each(|address| candidate.mislaid(address, now));
        }
    }

    /// The addresses that are dialled without knowing whose they are, if one of these was.
    pub(super) fn dialled_at(&self, addresses: &[Multiaddr]) -> Vec<Target> {
        let is_meant = |(target, candidate): &(&Target, &Candidate)| {
            target.peer().is_none()
                && candidate.dialling.is_some()
                && addresses.iter().any(|address| candidate.is_at(address))
        };
        self.0.iter().filter(is_meant).map(|(target, _)| target.clone()).collect()
    }

    pub(super) fn forget_address(&mut self, target: &Target, addresses: &[Multiaddr]) {
        if let Some(candidate) = self.0.get_mut(target) {
            candidate.addresses.retain(|(known, _)| !addresses.contains(known));
            if candidate.addresses.is_empty() && !candidate.departed {
                self.0.remove(target);
            }
        }
    }

    /// The candidate, made if there is room: over the cap the one not seen for longest goes, rumours before all others.
    fn enter(&mut self, target: &Target, now: Now) -> Option<&mut Candidate> {
        if !self.0.contains_key(target) && self.0.len() >= MOST {
            let evictable = self.0.iter().filter(|(_, candidate)| candidate.is_evictable());
            let first = evictable.min_by_key(|(_, candidate)| (!candidate.is_rumour(), candidate.seen));
            let first = first.map(|(target, _)| target.clone())?;
            self.0.remove(&first);
        }
        Some(self.0.entry(target.clone()).or_insert_with(|| Candidate::new(now)))
    }
}

/// An address as it is remembered, without the id at its end, and that id. None if nobody could be reached there, or if
/// it means another host to whoever told us.
pub(super) fn normalize(mut address: Multiaddr, by: FoundBy) -> Option<(Multiaddr, Option<PeerId>)> {
    let peer = match address.iter().last() {
        Some(Protocol::P2p(peer)) => {
            address.pop();
            Some(peer)
        }
        Some(_) | None => None,
    };
    let told = matches!(by, FoundBy::Roster | FoundBy::Mdns | FoundBy::Inbound);
    let unusable = |part: Protocol<'_>| {
        matches!(part, Protocol::Tcp(0) | Protocol::Udp(0))
            || matches!(part, Protocol::Ip4(ip) if ip.is_unspecified() || (told && ip.is_loopback()))
            || matches!(part, Protocol::Ip6(ip) if ip.is_unspecified() || (told && ip.is_loopback()))
    };
    (!address.is_empty() && !address.iter().any(unusable)).then_some((address, peer))
}
