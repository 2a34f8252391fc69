//! Who is there: links, roster changes, and what follows from them for routes, shards and those who wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::effects::Asked;
use super::event::{Answer, DialFailure, Event, FoundBy, InboundId, NodeName, Output, SubscriberId, Ticket};
use super::inject::Neighbours;
use super::links::Links;
use super::requests;
use super::roster::{self, Change, Fit, Roster};
use super::routes::{RemoteNode, Routes};
use super::shards::ShardSet;
use super::subscriptions::Detail;
use super::time::{Mono, Now, Span};
use super::{COURIERS, Mesh};
use crate::wire::roster::SignedRecord;
use crate::wire::rpc::Response;

mod settling;
#[cfg(test)]
mod tests;

pub(super) use self::settling::{Draining, Leaving, Settling};

/// Links to so many of those who listen to what is published here are made on that account.
const MOST_LISTENERS: usize = 32;
/// Whoever goes on publishing looks again for listeners this often ...
const WANT_AGAIN: Span = Span::secs(30);
/// ... and new ones are linked to so long after that.
const PUBLISHING: Span = Span::secs(60);

/// What requests want to know of the others.
pub(super) struct Directory<'a> {
    pub(super) roster: &'a Roster,
    pub(super) links: &'a Links,
    pub(super) settling: &'a Settling,
}

impl requests::Directory for Directory<'_> {
    fn providers(&self, service: &str) -> Vec<PeerId> {
        self.roster.providers(service).map(|known| known.peer()).collect()
    }

    fn find(&self, name: &NodeName) -> Vec<PeerId> {
        self.roster.find(name).into_iter().map(roster::Known::peer).collect()
    }

    fn serves(&self, peer: PeerId, service: &str) -> bool {
        self.roster.providers(service).any(|known| known.peer() == peer)
    }

    fn is_linked(&self, peer: PeerId) -> bool {
        self.links.is_linked(&peer)
    }

    fn round_trip(&self, peer: PeerId) -> Option<Span> {
        self.links.rtt(&peer)
    }

    fn settled(&self) -> bool {
        self.settling.is_over()
    }
}

/// The linked nodes, and what gossip they take part in: kept at hand, since every frame needs it.
#[derive(Debug, Default)]
pub(super) struct Known {
    neighbours: Vec<Neighbour>,
    /// The shards that frames go out to from here, and when their listeners were last looked for on that account.
    publishing: BTreeMap<u8, Mono>,
}

#[derive(Debug)]
struct Neighbour {
    peer: PeerId,
    shards: ShardSet,
    relay: bool,
}

impl Known {
    /// The linked nodes that take part in a shard's gossip.
    pub(super) fn readers(&self, shard: u8) -> impl Iterator<Item = PeerId> {
        self.neighbours.iter().filter(move |one| one.shards.contains(shard)).map(|one| one.peer)
    }

    /// The linked nodes that pass on what they do not listen to.
    pub(super) fn relays(&self) -> impl Iterator<Item = PeerId> {
        self.neighbours.iter().filter(|one| one.relay).map(|one| one.peer)
    }

    /// The shards that are published to here.
    pub(super) fn publishing(&self) -> Vec<u8> {
        self.publishing.keys().copied().collect()
    }

    /// The shards whose gossip a linked node takes part in.
    pub(super) fn shards_of(&self, peer: &PeerId) -> ShardSet {
        self.neighbours.iter().find(|one| one.peer == *peer).map_or(ShardSet::default(), |one| one.shards)
    }
}

impl Mesh {
    pub(super) fn subscribe(
        &mut self,
        ticket: Ticket,
        id: SubscriberId,
        patterns: Vec<Arc<str>>,
        group: Option<Arc<str>>,
        now: Now,
    ) {
        let limit = self.limits.patterns;
        if self.subscriptions.patterns() + patterns.len() > limit {
            self.answer(ticket, Answer::TooMany { limit });
            return;
        }
        self.subscriptions.add(id, patterns, group);
        if self.interests_changed(now) {
            self.announcing.push((self.roster.version(), ticket));
        } else {
            self.subscriptions.remove(id);
            self.answer(ticket, Answer::TooMany { limit });
        }
    }

    pub(super) fn unsubscribe(&mut self, id: SubscriberId, now: Now) {
        if self.subscriptions.remove(id) {
            self.interests_changed(now);
            self.progress(id, 0, true);
        }
    }

    /// Says what this node listens to, as exactly as there is room in the roster record beside its addresses. False if
    /// there is none at all.
    pub(super) fn interests_changed(&mut self, now: Now) -> bool {
        self.routes_stale = true;
        self.links.set_limit(self.limits.links, now);
        let mut fits = false;
        for detail in Detail::ALL {
            // Whoever drains still hands on what is under way to it, and is counted on by nobody.
            let draining = self.draining.is_some();
            let interests = if draining { Vec::new() } else { self.subscriptions.interests(detail) };
            let said = self.roster.set_interests(interests, now, &mut self.fx);
            fits = said.is_ok();
            if said == Ok(Fit::Whole) {
                break;
            }
        }
        fits
    }

    pub(super) fn services_changed(&mut self, ticket: Option<Ticket>, now: Now) {
        self.links.set_limit(self.limits.links, now);
        let fits = self.roster.set_services(self.requests.services(), now, &mut self.fx).is_ok();
        match ticket {
            Some(ticket) if fits => self.announcing.push((self.roster.version(), ticket)),
            Some(ticket) => self.answer(ticket, Answer::TooMany { limit: self.limits.services }),
            None => {}
        }
    }

    pub(super) fn listening(&mut self, addresses: Vec<Multiaddr>, now: Now) {
        // Should only some of them find room in the record, those are enough.
        let _fit = self.roster.set_addresses(announced(addresses), now, &mut self.fx);
    }

    pub(super) fn connected(&mut self, peer: PeerId, address: Multiaddr, links: u32, now: Now) {
        if self.conduct.is_banned(&peer, now) {
            self.fx.push(Output::Disconnect { peer });
            return;
        }
        self.links.connected(peer, &address, links, now, &mut self.fx);
        let changes = self.roster.linked(peer, now, &mut self.fx);
        self.requests.linked(peer, now.mono, &mut self.fx);
        self.routes_stale = true;
        self.roster_changed(changes, now);
    }

    /// A peer did so many things that no member does.
    pub(super) fn offended(&mut self, peer: PeerId, count: u32, now: Now) {
        if count > 0 && self.links.is_linked(&peer) && self.conduct.offended(peer, count, now) {
            self.links.shun(peer, now);
            self.fx.push(Output::Disconnect { peer });
        }
    }

    pub(super) fn disconnected(&mut self, peer: PeerId, links: u32, now: Now) {
        self.links.disconnected(peer, links, now, &mut self.fx);
        if links > 0 {
            return;
        }
        self.roster.unlinked(&peer, now, &mut self.fx);
        self.requests.unlinked(peer, &mut self.fx);
        self.pace.unlinked(peer, now.mono, &mut self.fx);
        self.inject.unlinked(&peer);
        self.acknowledgements.unlinked(peer);
        self.told.remove(&peer);
        self.heard.remove(&peer);
        self.routes_stale = true;
        self.speak_for(peer, now);
    }

    pub(super) fn dial_failed(&mut self, peer: Option<PeerId>, addresses: Vec<Multiaddr>, why: DialFailure, now: Now) {
        let nowhere = self.links.dial_failed(peer, addresses, why, now, &mut self.fx);
        if let Some(peer) = peer.filter(|peer| !self.links.is_linked(peer)) {
            let changes = if nowhere { self.roster.unreachable(&peer) } else { None };
            self.roster_changed(changes.into_iter().collect(), now);
            let Self { requests, roster, links, settling, fx, .. } = self;
            requests.unreachable(peer, &Directory { roster, links, settling }, now.mono, fx);
        }
    }

    /// A neighbour pushed roster records.
    pub(super) fn pushed(&mut self, from: PeerId, id: InboundId, records: Vec<SignedRecord>, now: Now) {
        let itself = records.iter().any(|record| record.node == from);
        let changes = self.roster.on_push(from, records, now, &mut self.fx);
        self.roster_changed(changes, now);
        if itself && self.links.is_linked(&from) {
            self.heard.insert(from);
        }
        self.fx.reply(id, Response::done());
    }

    /// A comparison with a neighbour got an answer.
    pub(super) fn compared(&mut self, peer: PeerId, now: Now) {
        let of_peer = |asked: &Asked| match asked {
            Asked::Digest { peer: other } | Asked::Fetch { peer: other } => *other == peer,
            Asked::Call { .. }
            | Asked::Repair { .. }
            | Asked::Push { .. }
            | Asked::Inject { .. }
            | Asked::Offer { .. }
            | Asked::Keep { .. }
            | Asked::Where { .. }
            | Asked::LastHeads
            | Asked::Told => false,
        };
        if self.links.is_linked(&peer) && !self.fx.is_asking(of_peer) && self.told.insert(peer) {
            // Whoever comes back from somewhere else missed what happened here.
            self.tell_positions(peer, None, Asked::Told, now);
        }
    }

    pub(super) fn roster_changed(&mut self, changes: Vec<Change>, now: Now) {
        for change in changes {
            self.routes_stale = true;
            match change {
                Change::Joined(peer) => {
                    self.announce(peer, |peer, name| Event::Joined { peer, name });
                    self.dial_known(peer, now);
                }
                Change::Returned(peer) => {
                    self.links.returned(peer, now);
                    self.announce(peer, |peer, name| Event::Joined { peer, name });
                    self.dial_known(peer, now);
                }
                Change::Updated(peer) => {
                    self.announce(peer, |peer, name| Event::Changed { peer, name });
                    self.dial_known(peer, now);
                }
                Change::Restarted(peer) => {
                    self.inbound.ended(peer, self.roster.incarnation(&peer));
                    let lingering = self.heard.remove(&peer);
                    self.links.restarted(peer, lingering, now, &mut self.fx);
                    self.announce(peer, |peer, name| Event::Changed { peer, name });
                    self.dial_known(peer, now);
                }
                Change::Left(peer) => {
                    self.announce(peer, |peer, name| Event::Left { peer, name });
                    self.links.left(peer, now);
                    self.speak_for(peer, now);
                }
                Change::Suspect(peer) => self.announce(peer, |peer, name| Event::Suspect { peer, name }),
                Change::Forgotten(peer) => {
                    self.inbound.ended(peer, None);
                    self.links.forgotten(peer, now);
                }
                Change::Outrun { incarnation } => self.fx.push(Output::Announce(Event::Outrun { incarnation })),
            }
        }
    }

    fn announce(&mut self, peer: PeerId, event: impl FnOnce(PeerId, String) -> Event) {
        if let Some(known) = self.roster.get(&peer) {
            self.fx.push(Output::Announce(event(peer, known.name().to_owned())));
        }
    }

    /// Links to a node that the roster knows, at the addresses that it gives. One that dialled us is linked, and has to be
    /// found when that link goes.
    fn dial_known(&mut self, peer: PeerId, now: Now) {
        let known = self.roster.get(&peer).filter(|known| known.is_live());
        if let Some(addresses) = known.map(|known| known.record().addresses.clone()) {
            self.links.seen(Some(peer), addresses, FoundBy::Roster, now);
        }
    }

    /// How many other nodes listen to a topic, `but` one left out.
    pub(super) fn listeners(&self, topic: &str, but: PeerId) -> u32 {
        let matches = |pattern: &str| crate::topic::matches(pattern, topic);
        let others = self.roster.live().filter(|known| known.peer() != but);
        let listening = others.filter(|known| known.record().interests.iter().any(|one| matches(&one.pattern))).count();
        let here = self.subscriptions.local().any(|subscriber| subscriber.listens(topic));
        u32::try_from(listening + usize::from(here)).unwrap_or(u32::MAX)
    }

    /// What follows from whatever happened: cheap if nothing changed.
    pub(super) fn settle(&mut self, now: Now) {
        self.links.settle(&mut self.fx);
        let settled = self.look_around(now);
        if std::mem::take(&mut self.routes_stale) || settled {
            self.routes_changed(now);
        }
        let announced = self.roster.announced();
        let done: Vec<_> = self.announcing.extract_if(.., |(version, _)| *version <= announced).collect();
        done.into_iter().for_each(|(_, ticket)| self.answer(ticket, Answer::Done));
        if self.short_lived {
            self.find_couriers(now);
            let couriers = self.couriers();
            self.inject.flush(&couriers, self.settling.is_over(), now.mono, &mut self.fx);
        }
        self.go_on_draining();
        self.go_on_leaving(now);
        self.answer_heads();
        self.post_settle(now);
        self.dial_for_requests(now);
        self.links.settle(&mut self.fx);
    }

    /// Whom a short-lived node may hand its messages to.
    pub(super) fn couriers(&self) -> Neighbours {
        let lasts = |peer: &PeerId| self.roster.get(peer).is_some_and(roster::Known::is_live);
        let (lasting, others) = self.links.linked().copied().partition(lasts);
        let more = self.links.dialling() > 0 || self.roster.live().any(|known| !self.links.is_linked(&known.peer()));
        Neighbours { lasting, others, more }
    }

    /// Links to those who would take what none of the neighbours has taken, however many these are.
    fn find_couriers(&mut self, now: Now) {
        if self.inject.is_stranded() {
            let unlinked = self.roster.live().filter(|known| !self.links.is_linked(&known.peer()));
            let next: Vec<_> =
                unlinked.take(COURIERS).map(|known| (known.peer(), known.record().addresses.clone())).collect();
            next.into_iter().for_each(|(peer, addresses)| self.links.want(peer, addresses, now));
        }
    }

    /// Links to whom requests wait for, last of all, since whatever came before may have chosen somebody. A provider that
    /// cannot be dialled leads its requests to the next one. That ends: a request goes to none of them twice.
    fn dial_for_requests(&mut self, now: Now) {
        loop {
            let wished = self.requests.take_dials();
            if wished.is_empty() {
                break;
            }
            wished.into_iter().for_each(|peer| self.dial_for_request(peer, now));
        }
    }

    fn dial_for_request(&mut self, peer: PeerId, now: Now) {
        if self.links.is_linked(&peer) {
            self.requests.linked(peer, now.mono, &mut self.fx);
            return;
        }
        let known = self.roster.get(&peer).filter(|known| known.is_live());
        let addresses = known.map(|known| known.record().addresses.clone()).unwrap_or_default();
        if !self.links.want_now(peer, addresses, now, &mut self.fx) {
            let Self { requests, roster, links, settling, fx, .. } = self;
            requests.unreachable(peer, &Directory { roster, links, settling }, now.mono, fx);
        }
    }

    /// Frames of that shard go out from here.
    pub(super) fn publishes_to(&mut self, shard: u8, now: Now) {
        let since = self.known.publishing.get(&shard);
        if since.is_none_or(|since| now.mono - *since >= WANT_AGAIN) {
            self.known.publishing.insert(shard, now.mono);
            self.want_listeners(now);
            self.routes_stale = true;
        }
    }

    /// Links to those who listen to what is published here. In a mesh too large to link to everybody, gossip may find
    /// nobody on the way who passes it on; and of so many as these, each is one hop away. Publishers begin at different
    /// places, so that not all of them choose the same.
    fn want_listeners(&mut self, now: Now) {
        self.known.publishing.retain(|_, since| now.mono - *since < PUBLISHING);
        let shards = self.known.publishing.keys().fold(ShardSet::EMPTY, |all, shard| all.union(ShardSet::of(*shard)));
        if shards.is_empty() {
            return;
        }
        let listens = |known: &&roster::Known| !known.shards().intersection(shards).is_empty();
        let listeners: Vec<PeerId> = self.roster.live().filter(listens).map(roster::Known::peer).collect();
        let (linked, others): (Vec<_>, Vec<_>) = listeners.into_iter().partition(|peer| self.links.is_linked(peer));
        let (before, after) = others.split_at(others.partition_point(|peer| *peer < self.me));
        for peer in linked.iter().chain(after).chain(before).take(MOST_LISTENERS) {
            if let Some(known) = self.roster.get(peer) {
                self.links.want(*peer, known.record().addresses.clone(), now);
            }
        }
    }

    fn routes_changed(&mut self, now: Now) {
        let wanted = self.roster.wanted_shards();
        let neighbour = |peer: PeerId| {
            let known = self.roster.get(&peer).filter(|known| known.is_live())?;
            let relay = known.record().relay;
            let shards = if relay { known.shards().union(wanted) } else { known.shards() };
            Some(Neighbour { peer, shards, relay })
        };
        self.known.neighbours = self.links.linked().copied().filter_map(neighbour).collect();
        self.want_listeners(now);

        let others = if self.relay { wanted } else { ShardSet::default() };
        let join = self.subscriptions.shards().union(others);
        for shard in join.without(self.joined).iter() {
            self.fx.push(Output::Join { shard });
            self.inbound.join(shard, now.mono);
        }
        for shard in self.joined.without(join).iter() {
            self.fx.push(Output::Leave { shard });
            self.inbound.leave(shard);
        }
        self.joined = join;

        let remote = self.roster.live().map(|known| RemoteNode {
            peer: known.peer(),
            linked: self.links.is_linked(&known.peer()),
            interests: known.interests(),
        });
        let (remote, local) = (remote.collect(), self.subscriptions.local().cloned().collect());
        self.routes = Arc::new(Routes { remote, local, ways: self.ways(now) });
        self.fx.push(Output::Routes(Arc::clone(&self.routes)));

        let Self { requests, roster, links, settling, fx, .. } = self;
        requests.directory_changed(&Directory { roster, links, settling }, now.mono, fx);
        self.post_directory_changed(now);
    }
}

/// The addresses that others are told. Who listens to its own host only has none, and is found there in the registry.
fn announced(mut addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    addresses.retain(|address| !address.iter().any(|part| leads_nowhere_else(&part)));
    // Where nobody hands out addresses, those that IPv4 hosts choose for themselves are all there is.
    let is_own_choice =
        |address: &Multiaddr| address.iter().any(|part| matches!(part, Protocol::Ip4(ip) if ip.is_link_local()));
    let (near, far): (Vec<_>, Vec<_>) = addresses.into_iter().partition(is_own_choice);
    if far.is_empty() { near } else { far }
}

/// Whether it leads back to whoever dials it, or, as an IPv6 address of one link does, nowhere without the name of an
/// interface, which is another one there.
fn leads_nowhere_else(part: &Protocol<'_>) -> bool {
    let ip4 = matches!(part, Protocol::Ip4(ip) if ip.is_loopback() || ip.is_unspecified());
    let of_one_link = matches!(part, Protocol::Ip6(ip) if ip.is_unicast_link_local());
    ip4 || of_one_link || matches!(part, Protocol::Ip6(ip) if ip.is_loopback() || ip.is_unspecified())
}
