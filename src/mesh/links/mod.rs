//! Links: whom to dial, whom to keep.
//!
//! Knows addresses, dials and connections, and nothing of what travels over them or of what the roster says. Surplus
//! connections to a peer stay: gossipsub loses its hello if the older of two is closed early.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use self::candidates::{Candidate, Candidates, Target, normalize};
pub(crate) use self::names::Name;
use self::names::Names;
use self::strangers::{EXPECTED, SHUNNED, Strangers};
use super::effects::Effects;
use super::event::{DialFailure, Event, FoundBy, NameId, Output};
use super::time::{Mono, Now, Span};

mod candidates;
mod names;
mod strangers;
#[cfg(test)]
mod tests;

/// Dials under way at once.
const DIALS: usize = 16;
/// Peers linked at once, those that dialled us included.
const MOST_LINKED: usize = 256;
/// In a mesh too large to link to everybody: links to strive for.
const ENOUGH: usize = 12;
/// A link that is wanted is kept for so long after it was wanted last.
const WANTED: Span = Span::secs(60);
/// A lost link is redialled about so soon.
const REDIAL: Span = Span::millis(100);

#[derive(Debug)]
struct Link {
    connections: u32,
    by: FoundBy,
    round_trip: Option<Span>,
}

#[derive(Debug)]
pub(crate) struct Links {
    me: PeerId,
    /// Peers that this node dials and keeps links to, at most.
    limit: usize,
    linked: BTreeMap<PeerId, Link>,
    candidates: Candidates,
    names: Names,
    strangers: Strangers,
    /// Peers that a link is wanted to however many links there are, each with until when.
    wanted: BTreeMap<PeerId, Mono>,
    /// When the last thing happened of which `settle` has not seen yet what follows.
    stale: Option<Now>,
    /// When something is to be done, as of the last event.
    wake: Option<Mono>,
}

impl Links {
    /// `limit`: [`Limits::links`](crate::Limits::links).
    pub(crate) fn new(me: PeerId, limit: usize) -> Self {
        Self {
            me,
            limit,
            linked: BTreeMap::new(),
            candidates: Candidates::default(),
            names: Names::default(),
            strangers: Strangers::default(),
            wanted: BTreeMap::new(),
            stale: None,
            wake: None,
        }
    }

    /// Somebody may be found there.
    pub(crate) fn seen(&mut self, peer: Option<PeerId>, addresses: Vec<Multiaddr>, by: FoundBy, now: Now) {
        let mut found: BTreeMap<Target, Vec<Multiaddr>> = BTreeMap::new();
        for (address, named) in addresses.into_iter().filter_map(|address| normalize(address, by)) {
            let target = match (peer, named) {
                (Some(peer), Some(named)) if peer != named => continue,
                (Some(peer), _) | (None, Some(peer)) => Target::Peer(peer),
                (None, None) => Target::Address(address.clone()),
            };
            found.entry(target).or_default().push(address);
        }
        found.remove(&Target::Peer(self.me));
        for (target, addresses) in found {
            self.candidates.see(&target, addresses, by, now);
            if target.peer().is_some_and(|peer| self.is_linked(&peer))
                && let Some(candidate) = self.candidates.get_mut(&target)
            {
                candidate.meet();
            }
        }
        self.stale = Some(now);
    }

    /// Much of what multicast DNS told is not there: only who was met, or is known otherwise as well, is still looked for.
    pub(crate) fn flooded(&mut self, now: Now) {
        self.candidates.forget_rumours();
        self.stale = Some(now);
    }

    /// Looks a name up from now on, and for the nodes that it leads to.
    pub(crate) fn look_up(&mut self, name: Name, now: Now) {
        self.names.add(name, now);
        self.stale = Some(now);
    }

    /// A name was looked up.
    pub(crate) fn resolved(&mut self, name: NameId, ips: Option<Vec<Multiaddr>>, now: Now, fx: &mut Effects) {
        let found = self.names.resolved(name, ips, now, fx).unwrap_or_default();
        for (target, addresses) in found.now {
            let usable = addresses.into_iter().filter_map(|address| Some(normalize(address, FoundBy::Dns)?.0));
            self.candidates.see(&target, usable.collect(), FoundBy::Dns, now);
        }
        found.gone.iter().for_each(|address| self.candidates.unlist(address));
        self.stale = Some(now);
    }

    /// A link to that peer is of use for a while, however many others there are.
    pub(crate) fn want(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Now) {
        if self.wanted.len() < MOST_LINKED || self.wanted.contains_key(&peer) {
            self.wanted.insert(peer, now.mono + WANTED);
        }
        self.seen(Some(peer), addresses, FoundBy::Roster, now);
    }

    /// Somebody waits for a link to that peer: it is dialled at once, though it could not be a moment ago, and whatever
    /// else is under way. Says whether a dial is.
    pub(crate) fn want_now(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Now, fx: &mut Effects) -> bool {
        self.want(peer, addresses, now);
        let target = Target::Peer(peer);
        let ready = self.candidates.get(&target).and_then(|candidate| self.ready_at(&target, candidate, now));
        let shunned = self.strangers.until(&target, now).is_some();
        if ready.is_some() && !shunned && self.linked.len() + self.dialling() < MOST_LINKED {
            self.dial(&target, now, fx);
        }
        self.is_trying(&peer)
    }

    fn dial(&mut self, target: &Target, now: Now, fx: &mut Effects) {
        if let Some(candidate) = self.candidates.get_mut(target) {
            candidate.dialled(now);
            let addresses = match target {
                Target::Peer(_) => candidate.addresses(),
                Target::Address(_) => candidate.next_address().into_iter().collect(),
            };
            fx.push(Output::Dial { peer: target.peer(), addresses });
        }
    }

    /// A connection stands; `connections` of them now.
    pub(crate) fn connected(
        &mut self,
        peer: PeerId,
        address: &Multiaddr,
        connections: u32,
        now: Now,
        fx: &mut Effects,
    ) {
        let by = self.arrived(peer, address);
        self.strangers.pardon(&Target::Peer(peer));
        let full = self.linked.len() >= MOST_LINKED;
        match self.linked.get_mut(&peer) {
            Some(link) => {
                link.connections = connections;
            }
            None if full => fx.push(Output::Disconnect { peer }),
            None => {
                self.linked.insert(peer, Link { connections, by, round_trip: None });
                fx.push(Output::Announce(Event::Linked { peer, address: address.clone(), by }));
            }
        }
        self.stale = Some(now);
    }

    /// Ends the dials that this connection came of. Returns how the peer was found.
    fn arrived(&mut self, peer: PeerId, address: &Multiaddr) -> FoundBy {
        if let Some(candidate) = self.candidates.get_mut(&Target::Peer(peer)) {
            candidate.arrived(peer);
        }
        // A connection that came in shows a port of the moment, which nobody has told us of.
        let Some((address, _)) = normalize(address.clone(), FoundBy::Given) else { return FoundBy::Inbound };
        let mut at = self.candidates.dialled_at(std::slice::from_ref(&address));
        at.push(Target::Address(address.clone()));
        for at in &at {
            self.strangers.pardon(at);
            if let Some(candidate) = self.candidates.get_mut(at) {
                candidate.arrived(peer);
            }
        }
        at.push(Target::Peer(peer));
        let found = at.iter().find_map(|at| self.candidates.get(at)?.found_by(&address));
        found.unwrap_or(FoundBy::Inbound)
    }

    /// A connection ended; `connections` of them stand still.
    pub(crate) fn disconnected(&mut self, peer: PeerId, connections: u32, now: Now, fx: &mut Effects) {
        if connections > 0 {
            if let Some(link) = self.linked.get_mut(&peer) {
                link.connections = connections;
            }
            return;
        }
        if self.linked.remove(&peer).is_some() {
            let soon = now.mono + fx.jitter(REDIAL);
            for (target, candidate) in self.candidates.iter_mut() {
                if target.peer().or(candidate.resident) == Some(peer) {
                    candidate.try_at(soon);
                    // Who is at an address is remembered: that one may come back by another way.
                    candidate.resident = candidate.resident.filter(|_| target.peer().is_none());
                }
            }
            fx.push(Output::Announce(Event::Unlinked { peer }));
        }
        self.stale = Some(now);
    }

    /// A dial came to nothing. True if the peer could be reached at none of the addresses that are known.
    pub(crate) fn dial_failed(
        &mut self,
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
        why: DialFailure,
        now: Now,
        fx: &mut Effects,
    ) -> bool {
        let plain: Vec<Multiaddr> =
            addresses.iter().filter_map(|one| Some(normalize(one.clone(), FoundBy::Given)?.0)).collect();
        // An address may have been dialled without knowing whose it is: then the outcome is the address's.
        let mut targets = self.candidates.dialled_at(&plain);
        if targets.is_empty() && peer.is_none() {
            targets.extend(plain.iter().cloned().map(Target::Address));
        }
        targets.extend(peer.map(Target::Peer));
        let candidate = peer.and_then(|peer| self.candidates.get(&Target::Peer(peer)));
        let unreachable = matches!(why, DialFailure::Unreachable(_) | DialFailure::SomebodyElse);
        let nowhere = unreachable && candidate.is_some_and(|candidate| candidate.is_only_at(&plain));
        let mut expected = Vec::new();
        for target in &targets {
            // Who dialled us and is not looked for is not remembered: there may be any number of those.
            let Some(candidate) = self.candidates.get_mut(target) else { continue };
            candidate.failed(now, fx);
            let is_kept = candidate.is_kept();
            expected.extend(is_kept.then(|| target.clone()));
            let span = if is_kept { EXPECTED } else { SHUNNED };
            match why {
                DialFailure::OtherMesh { .. } | DialFailure::NotPombo => {
                    self.strangers.shun(target.clone(), span, now);
                }
                DialFailure::Ourselves => {
                    self.candidates.forget_address(target, &plain);
                    if target.peer().is_none() {
                        self.strangers.shun(target.clone(), SHUNNED, now);
                    }
                }
                DialFailure::SomebodyElse => self.candidates.mislay(target, &plain, now),
                DialFailure::Unreachable(_) => {}
            }
        }
        match why {
            DialFailure::OtherMesh { open } => self.tell(peer, addresses, open, fx),
            // Whatever else is on the network is of no interest, unless the user takes it for one of ours.
            DialFailure::NotPombo => {
                if expected.into_iter().filter(|target| self.strangers.tell(target.clone())).count() > 0 {
                    fx.push(Output::Announce(Event::NotPombo { peer, addresses }));
                }
            }
            DialFailure::Ourselves => self.own_addresses(plain, now),
            DialFailure::SomebodyElse | DialFailure::Unreachable(_) => {}
        }
        self.stale = Some(now);
        nowhere
    }

    /// One of another mesh was met: said once for each that was dialled, and once for each host that dials, which may have
    /// any number of keys.
    fn tell(&mut self, peer: Option<PeerId>, addresses: Vec<Multiaddr>, open: bool, fx: &mut Effects) {
        let first = addresses.first();
        let host = first.map(|address| Target::Address(address.iter().take(1).collect()));
        let new_host = host.is_some_and(|host| self.strangers.tell(host));
        // One that dialled us shows no port.
        let dialled = first.is_none_or(|address| address.iter().count() > 1);
        let who = peer.map(Target::Peer).or_else(|| first.cloned().map(Target::Address));
        if (dialled || new_host) && who.is_some_and(|who| self.strangers.tell(who)) {
            fx.push(Output::Announce(Event::OtherMesh { peer, addresses, open }));
        }
    }

    /// These lead here: whoever names them without a peer id is not followed for a while.
    fn own_addresses(&mut self, addresses: Vec<Multiaddr>, now: Now) {
        for address in addresses {
            self.strangers.shun(Target::Address(address), SHUNNED, now);
        }
    }

    /// That peer is not dialled for a while.
    pub(crate) fn shun(&mut self, peer: PeerId, now: Now) {
        self.strangers.shun(Target::Peer(peer), SHUNNED, now);
        self.stale = Some(now);
    }

    /// That peer said goodbye: it is not redialled until somebody sees it again.
    pub(crate) fn left(&mut self, peer: PeerId, now: Now) {
        self.candidates.depart(&Target::Peer(peer), now);
        self.stale = Some(now);
    }

    /// That peer is there again: it is dialled at once, though it could not be for a while.
    pub(crate) fn returned(&mut self, peer: PeerId, now: Now) {
        if let Some(candidate) = self.candidates.get_mut(&Target::Peer(peer)) {
            candidate.try_at(now.mono);
        }
        self.stale = Some(now);
    }

    /// The roster forgot that peer.
    pub(crate) fn forgotten(&mut self, peer: PeerId, now: Now) {
        let target = Target::Peer(peer);
        if self.candidates.get(&target).is_some_and(|candidate| !candidate.given) && !self.is_linked(&peer) {
            self.candidates.remove(&target);
        }
        self.stale = Some(now);
    }

    /// The roster has a new incarnation of that peer. `lingering`: the links that stand began with an older one, which was
    /// heard over them. On these the new one hears nothing, so they all go.
    pub(crate) fn restarted(&mut self, peer: PeerId, lingering: bool, now: Now, fx: &mut Effects) {
        if let Some(candidate) = self.candidates.get_mut(&Target::Peer(peer)) {
            candidate.departed = false;
            candidate.try_at(now.mono);
        }
        if lingering && self.is_linked(&peer) {
            fx.push(Output::Disconnect { peer });
        }
        self.stale = Some(now);
    }

    /// The connection to that peer is silent. Its process may have been started anew and know nobody: then nothing but a
    /// dial tells that the connection leads to its former self. Over TCP the system would have told; over QUIC nobody does.
    pub(crate) fn silent(&mut self, peer: PeerId, now: Now, fx: &mut Effects) {
        let is_there = |target: &Target, one: &Candidate| target.peer().or(one.resident) == Some(peer);
        let known = self.candidates.iter().find(|(target, one)| is_there(target, one) && one.is_willing());
        let target = known.map(|(target, _)| target.clone()).filter(|_| self.links(&peer) == 1);
        if let Some(target) = target {
            self.dial(&target, now, fx);
        }
        self.stale = Some(now);
    }

    pub(crate) fn round_trip(&mut self, peer: &PeerId, time: Span) {
        if let Some(link) = self.linked.get_mut(peer) {
            let smoothed = link.round_trip.map_or(time.0, |old| old.0 - old.0 / 8 + time.0 / 8);
            link.round_trip = Some(Span(smoothed));
        }
    }

    /// The smoothed round trip.
    pub(crate) fn rtt(&self, peer: &PeerId) -> Option<Span> {
        self.linked.get(peer)?.round_trip
    }

    /// Whether a dial to that peer is under way.
    pub(crate) fn is_trying(&self, peer: &PeerId) -> bool {
        self.candidates.get(&Target::Peer(*peer)).is_some_and(|candidate| candidate.dialling.is_some())
    }

    pub(crate) fn is_linked(&self, peer: &PeerId) -> bool {
        self.linked.contains_key(peer)
    }

    /// The linked peers, by id.
    pub(crate) fn linked(&self) -> impl Iterator<Item = &PeerId> {
        self.linked.keys()
    }

    pub(crate) fn count(&self) -> usize {
        self.linked.len()
    }

    /// How many nodes and addresses may be dialled.
    pub(crate) fn candidates(&self) -> usize {
        self.candidates.iter().count()
    }

    pub(crate) fn found_by(&self, peer: &PeerId) -> Option<FoundBy> {
        self.linked.get(peer).map(|link| link.by)
    }

    /// How many connections there are to that peer.
    pub(crate) fn links(&self, peer: &PeerId) -> u32 {
        self.linked.get(peer).map_or(0, |link| link.connections)
    }

    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        self.wake
    }

    pub(crate) fn on_timeout(&mut self, now: Now, fx: &mut Effects) {
        for (_, candidate) in self.candidates.iter_mut() {
            // The driver owes an outcome; without one the candidate must not stay barred for ever.
            if candidate.dialling.is_some_and(|due| due <= now.mono) {
                candidate.failed(now, fx);
            }
        }
        self.stale = Some(now);
    }

    /// After whatever happened: dials whom there is room for, in random order, and sets the alarm. Once for all that came
    /// with one input, since it looks at every candidate.
    pub(crate) fn settle(&mut self, fx: &mut Effects) {
        let Some(now) = self.stale.take() else { return };
        self.wanted.retain(|_, until| *until > now.mono);
        self.names.ask(now, fx);
        let is_ready = |(target, candidate): &(&Target, &Candidate)| {
            self.ready_at(target, candidate, now).is_some_and(|at| at <= now.mono)
        };
        let ready = self.candidates.iter().filter(is_ready);
        let mut ready: Vec<Target> = ready.map(|(target, _)| target.clone()).collect();
        let mut dialling = self.dialling();
        let enough = self.enough();
        while !ready.is_empty() && dialling < DIALS {
            let target = ready.swap_remove(fx.below(ready.len()));
            let links = self.linked.len() + dialling;
            let given = self.candidates.get(&target).is_some_and(|candidate| candidate.given);
            let of_use = links < self.limit && (given || links < enough);
            if of_use || (self.is_wanted(&target) && links < MOST_LINKED) {
                self.dial(&target, now, fx);
                dialling += 1;
            }
        }
        self.wake = self.next_event(now);
    }

    fn is_wanted(&self, target: &Target) -> bool {
        target.peer().is_some_and(|peer| self.wanted.contains_key(&peer))
    }

    fn next_event(&self, now: Now) -> Option<Mono> {
        let overdue = self.candidates.iter().filter_map(|(_, candidate)| candidate.dialling);
        // Those that are ready already wait for room, not for time: the event that makes room looks at them.
        let room = self.linked.len() + self.dialling() < self.limit;
        let ready = self.candidates.iter().filter(|(target, _)| room || self.is_wanted(target));
        let ready = ready.filter_map(|(target, candidate)| self.ready_at(target, candidate, now));
        overdue.chain(ready.filter(|at| *at > now.mono)).chain(self.names.next_timeout()).min()
    }

    /// From when on a candidate may be dialled. None if not at all, as things are.
    fn ready_at(&self, target: &Target, candidate: &Candidate, now: Now) -> Option<Mono> {
        let peer = target.peer().or(candidate.resident);
        if !candidate.is_willing() || peer.is_some_and(|peer| peer == self.me || self.is_linked(&peer)) {
            return None;
        }
        let shunned = self.strangers.until(target, now).unwrap_or_default();
        Some(candidate.not_before().max(shunned))
    }

    /// How many peers are known to be there that are not linked: dialled or to be dialled, strangers left out. A name that
    /// nobody has answered for yet may lead to one.
    pub(crate) fn prospects(&self, now: Now) -> usize {
        let known = self.candidates.iter().filter(|(target, candidate)| self.is_prospect(target, candidate, now));
        known.count() + self.names.open()
    }

    fn is_prospect(&self, target: &Target, candidate: &Candidate, now: Now) -> bool {
        let peer = target.peer().or(candidate.resident);
        let is_stranger = self.strangers.until(target, now).is_some_and(|until| until > now.mono);
        !candidate.departed && !is_stranger && peer.is_none_or(|peer| peer != self.me && !self.is_linked(&peer))
    }

    /// How many peers to link to from now on, at most.
    pub(crate) fn set_limit(&mut self, limit: usize, now: Now) {
        if self.limit != limit {
            self.limit = limit;
            self.stale = Some(now);
        }
    }

    /// How many dials are under way.
    pub(crate) fn dialling(&self) -> usize {
        self.candidates.iter().filter(|(_, candidate)| candidate.dialling.is_some()).count()
    }

    /// How many links to strive for: to everybody in a mesh of up to `limit`, to some in a larger one.
    fn enough(&self) -> usize {
        let waiting = self.candidates.iter().filter(|(target, candidate)| {
            target.peer().is_some_and(|peer| !self.is_linked(&peer)) && !candidate.departed && !candidate.is_doubtful()
        });
        if waiting.count() + self.linked.len() <= self.limit { self.limit } else { ENOUGH.min(self.limit) }
    }
}
