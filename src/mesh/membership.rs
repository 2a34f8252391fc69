//! Who is there: links, roster changes, and what follows from them for routes, shards and those who wait.

use std::sync::Arc;

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

use super::Mesh;
use super::effects::Asked;
use super::event::{
    Answer, DialFailure, Event, FoundBy, InboundId, NodeName, Output, PeerStatus, Status, SubscriberId, Ticket,
};
use super::links::Links;
use super::requests;
use super::roster::{Change, Fit, Presence, Roster};
use super::routes::{RemoteNode, Routes};
use super::shards::ShardSet;
use super::subscriptions::Detail;
use super::time::{Mono, Now, Span};
use crate::wire::roster::SignedRecord;
use crate::wire::rpc::Response;

/// Those who are found by multicast DNS or at given addresses are found within this time, if nobody was before.
const LOOK_FURTHER: Span = Span::millis(1_000);
/// With somebody found, others whose dials are under way are waited for so long.
const LOOK_AROUND: Span = Span::millis(250);
/// How long a node that leaves waits until its neighbours have what it published.
const LAST_HEADS: Span = Span::secs(1);

/// The first look-around of a node: until it is over, not knowing somebody does not mean that nobody is there.
#[derive(Debug)]
pub(super) struct Settling {
    over: bool,
    /// The host's registry was looked through.
    looked: bool,
    /// When to stop looking, if nobody was found.
    until: Mono,
    /// Since when somebody is found, and has told what it knows.
    found: Option<Mono>,
    waiting: Vec<Ticket>,
}

impl Settling {
    pub(super) fn new(looks_local: bool, looks_further: bool, now: Mono) -> Self {
        let until = if looks_further { now + LOOK_FURTHER } else { now };
        Self { over: false, looked: !looks_local, until, found: None, waiting: Vec::new() }
    }

    pub(super) fn looked(&mut self) {
        self.looked = true;
    }

    pub(super) fn wait(&mut self, ticket: Ticket) {
        self.waiting.push(ticket);
    }

    pub(super) fn abandoned(&mut self, ticket: Ticket) {
        self.waiting.retain(|waiting| *waiting != ticket);
    }

    pub(super) fn next_timeout(&self) -> Option<Mono> {
        (!self.over).then(|| self.found.map_or(self.until, |found| found + LOOK_AROUND))
    }

    /// Looks at how things stand. True once, when the look-around is over.
    fn advance(&mut self, linked: usize, all_told: bool, dialling: usize, now: Mono) -> bool {
        if self.over {
            return false;
        }
        if linked > 0 && all_told {
            self.found = self.found.or(Some(now));
        }
        self.over = match self.found {
            Some(found) => (self.looked && all_told && dialling == 0) || now >= found + LOOK_AROUND,
            None => self.looked && linked == 0 && dialling == 0 && now >= self.until,
        };
        // Somebody who is linked and never tells anything must not keep everybody waiting.
        self.over |= now >= self.until + LOOK_FURTHER + LOOK_FURTHER;
        self.over
    }
}

/// A goodbye under way.
#[derive(Debug)]
pub(super) struct Leaving {
    tickets: Vec<Ticket>,
    /// Neighbours that have not said yet that they have everything.
    open: usize,
    until: Mono,
    said: bool,
}

impl Leaving {
    fn new(now: Mono) -> Self {
        Self { tickets: Vec::new(), open: 0, until: now + LAST_HEADS, said: false }
    }

    pub(super) fn next_timeout(&self) -> Option<Mono> {
        (!self.said).then_some(self.until)
    }
}

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

    fn find(&self, name: &NodeName) -> Option<PeerId> {
        self.roster.find(name).map(|known| known.peer())
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
        self.settling.over
    }
}

/// The linked nodes, and what gossip they take part in: kept at hand, since every frame needs it.
#[derive(Debug, Default)]
pub(super) struct Known {
    neighbours: Vec<Neighbour>,
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
        }
    }

    /// Says what this node listens to, as exactly as there is room in the roster record beside its addresses. False if
    /// there is none at all.
    fn interests_changed(&mut self, now: Now) -> bool {
        self.routes_stale = true;
        let mut fits = false;
        for detail in Detail::ALL {
            let said = self.roster.set_interests(self.subscriptions.interests(detail), now, &mut self.fx);
            fits = said.is_ok();
            if said == Ok(Fit::Whole) {
                break;
            }
        }
        fits
    }

    pub(super) fn services_changed(&mut self, ticket: Option<Ticket>, now: Now) {
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
        self.links.connected(peer, &address, links, now, &mut self.fx);
        let changes = self.roster.linked(peer, now, &mut self.fx);
        self.requests.linked(peer, now.mono, &mut self.fx);
        self.routes_stale = true;
        self.roster_changed(changes, now);
    }

    pub(super) fn disconnected(&mut self, peer: PeerId, links: u32, now: Now) {
        self.links.disconnected(peer, links, now, &mut self.fx);
        if links > 0 {
            return;
        }
        self.roster.unlinked(&peer, now, &mut self.fx);
        self.requests.unlinked(peer, &mut self.fx);
        self.pace.unlinked(peer, now.mono, &mut self.fx);
        self.acknowledgements.unlinked(peer);
        self.told.remove(&peer);
        self.heard.remove(&peer);
        self.routes_stale = true;
        self.speak_for(peer, now);
    }

    pub(super) fn dial_failed(&mut self, peer: Option<PeerId>, addresses: Vec<Multiaddr>, why: DialFailure, now: Now) {
        self.links.dial_failed(peer, addresses, why, now, &mut self.fx);
        if let Some(peer) = peer.filter(|peer| !self.links.is_linked(peer)) {
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
            | Asked::LastHeads
            | Asked::Told => false,
        };
        if self.links.is_linked(&peer) && !self.fx.is_asking(of_peer) {
            if self.told.insert(peer) {
                // Whoever comes back from somewhere else missed what happened here.
                self.tell_positions(peer, None, Asked::Told, now);
            }
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
                    self.announce(peer, |peer, name| Event::Joined { peer, name });
                    self.dial_known(peer, now);
                }
                Change::Updated(peer) => self.dial_known(peer, now),
                Change::Restarted(peer) => {
                    let lingering = self.heard.remove(&peer);
                    self.links.restarted(peer, lingering, now, &mut self.fx);
                    self.dial_known(peer, now);
                }
                Change::Left(peer) => {
                    self.announce(peer, |peer, name| Event::Left { peer, name });
                    self.links.left(peer, now, &mut self.fx);
                    self.speak_for(peer, now);
                }
                Change::Suspect(peer) => self.announce(peer, |peer, name| Event::Suspect { peer, name }),
                Change::Forgotten(peer) => self.links.forgotten(peer, now, &mut self.fx),
                Change::Outrun { incarnation } => self.fx.push(Output::Announce(Event::Outrun { incarnation })),
            }
        }
    }

    fn announce(&mut self, peer: PeerId, event: impl FnOnce(PeerId, String) -> Event) {
        if let Some(known) = self.roster.get(&peer) {
            self.fx.push(Output::Announce(event(peer, known.name().to_owned())));
        }
    }

    /// Links to a node that the roster knows, at the addresses that it gives.
    fn dial_known(&mut self, peer: PeerId, now: Now) {
        if self.links.is_linked(&peer) {
            return;
        }
        let known = self.roster.get(&peer).filter(|known| known.is_live());
        if let Some(addresses) = known.map(|known| known.record().addresses.clone()) {
            self.links.seen(Some(peer), addresses, FoundBy::Roster, now, &mut self.fx);
        }
    }

    /// First those who listen get what they may have missed, then everybody hears the goodbye.
    pub(super) fn leave(&mut self, ticket: Ticket, now: Now) {
        let Leaving { tickets, .. } = self.leaving.get_or_insert_with(|| Leaving::new(now.mono));
        tickets.push(ticket);
        if let [_] = tickets.as_slice() {
            let told = self.last_heads(now);
            if let Some(leaving) = &mut self.leaving {
                leaving.open = told;
            }
        }
    }

    /// A neighbour has what we published, or does not answer.
    pub(super) fn last_heads_answered(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.open = leaving.open.saturating_sub(1);
        }
    }

    fn go_on_leaving(&mut self, now: Now) {
        let Some(leaving) = &mut self.leaving else { return };
        if !leaving.said && (leaving.open == 0 || leaving.until <= now.mono) {
            leaving.said = true;
            self.roster.leave(now, &mut self.fx);
        }
        if leaving.said && self.roster.left_confirmed() {
            self.left = true;
            for ticket in std::mem::take(&mut leaving.tickets) {
                self.fx.push(Output::Answer { ticket, answer: Answer::Done });
            }
        }
    }

    pub(super) fn status(&self) -> Status {
        let patterns =
            self.subscriptions.interests(Detail::Exact).into_iter().map(|one| (one.pattern, one.group)).collect();
        let node = PeerStatus {
            peer: self.me,
            name: self.name.clone(),
            addresses: self.roster.own_addresses().to_vec(),
            links: 0,
            round_trip: None,
            found_by: None,
            patterns,
            services: self.requests.services(),
            relay: self.relay,
            suspect: false,
        };
        let others = self.roster.nodes().filter(|known| known.presence() != Presence::Left);
        let mut peers: Vec<_> = others.map(|known| self.peer_status(known)).collect();
        peers.sort_by(|one, other| (&one.name, one.peer).cmp(&(&other.name, other.peer)));
        Status { node, mesh: String::new(), peers }
    }

    fn peer_status(&self, known: &super::roster::Known) -> PeerStatus {
        let (peer, record) = (known.peer(), known.record());
        let interests = record.interests.iter().map(|one| (one.pattern.clone(), one.group.clone()));
        PeerStatus {
            peer,
            name: record.name.clone(),
            addresses: record.addresses.clone(),
            links: self.links.links(&peer),
            round_trip: self.links.rtt(&peer).map(|span| std::time::Duration::from_micros(span.0)),
            found_by: self.links.found_by(&peer),
            patterns: interests.collect(),
            services: record.services.clone(),
            relay: record.relay,
            suspect: known.presence() == Presence::Suspect,
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
        for peer in self.requests.take_dials() {
            self.dial_for_request(peer, now);
        }
        let settled = !self.settling.over && self.look_around(now);
        if self.settling.over {
            for ticket in std::mem::take(&mut self.settling.waiting) {
                self.answer(ticket, Answer::Done);
            }
        }
        if std::mem::take(&mut self.routes_stale) || settled {
            self.routes_changed(now);
        }
        let announced = self.roster.announced();
        let done: Vec<_> = self.announcing.extract_if(.., |(version, _)| *version <= announced).collect();
        done.into_iter().for_each(|(_, ticket)| self.answer(ticket, Answer::Done));
        if self.short_lived {
            let linked: Vec<_> = self.links.linked().copied().collect();
            self.inject.flush(&linked, self.settling.over, now.mono, &mut self.fx);
        }
        self.go_on_leaving(now);
        self.answer_heads();
    }

    /// True once, when the first look-around is over.
    fn look_around(&mut self, now: Now) -> bool {
        let all_told = self.links.linked().all(|peer| self.told.contains(peer));
        self.settling.advance(self.links.count(), all_told, self.links.dialling(), now.mono)
    }

    fn dial_for_request(&mut self, peer: PeerId, now: Now) {
        if self.links.is_linked(&peer) {
            self.requests.linked(peer, now.mono, &mut self.fx);
            return;
        }
        self.dial_known(peer, now);
        if !self.links.is_trying(&peer) {
            let Self { requests, roster, links, settling, fx, .. } = self;
            requests.unreachable(peer, &Directory { roster, links, settling }, now.mono, fx);
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

        let others = if self.relay { wanted } else { ShardSet::default() };
        let join = self.subscriptions.shards().union(others);
        for shard in join.without(self.joined).iter() {
            self.fx.push(Output::Join { shard });
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
        let local = self.subscriptions.local().cloned().collect();
        self.routes = Arc::new(Routes { remote: remote.collect(), local });
        self.fx.push(Output::Routes(Arc::clone(&self.routes)));

        let Self { requests, roster, links, settling, fx, .. } = self;
        requests.directory_changed(&Directory { roster, links, settling }, now.mono, fx);
    }
}

/// The addresses that others are told: not those that lead only to this host, unless there are no others.
fn announced(addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let (near, far): (Vec<_>, Vec<_>) = addresses.into_iter().partition(leads_nowhere_else);
    if far.is_empty() { near } else { far }
}

fn leads_nowhere_else(address: &Multiaddr) -> bool {
    let ip4 = |part: &Protocol<'_>| matches!(part, Protocol::Ip4(ip) if ip.is_loopback() || ip.is_link_local());
    let ip6 = |part: &Protocol<'_>| matches!(part, Protocol::Ip6(ip) if ip.is_loopback() || ip.is_unicast_link_local());
    address.iter().any(|part| ip4(&part) || ip6(&part))
}
