//! The roster: what every node knows of every node. One signed record a node, one writer, the highest stamp wins.
//!
//! A change is pushed to the neighbours, who pass it on once; digests compared with one neighbour every few seconds heal
//! what pushing missed. Who is not heard of for a minute is suspect, for a day forgotten.
//!
//! This file holds the parts together; `exchange` speaks the protocol. Nothing here decides whom to dial or what to
//! subscribe to, or checks a signature: what comes in was checked before.

use std::collections::BTreeMap;

use bytes::Bytes;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use self::compare::Comparison;
use self::digest::Digest;
use self::outbox::{Outbox, Parcel};
use self::own::Own;
use self::table::Table;
use super::effects::Effects;
use super::event::NodeName;
use super::shards::ShardSet;
use super::time::{Mono, Now, Span};
use crate::wire::roster::{Durable, Interest, SignedRecord};

mod compare;
mod digest;
mod exchange;
mod known;
mod limits;
mod outbox;
mod own;
#[cfg(test)]
mod simulation;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use self::known::{Known, Presence};
pub(crate) use self::limits::TooLarge;
pub(crate) use self::own::Fit;

/// How long [`Roster::leave`] waits for the neighbours.
const GOODBYE: Span = Span::secs(1);

/// What became of another node. Several may come of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is there, and was not known, or had left.
    Joined(PeerId),
    /// Its record says something else, be it only an address. A record that only repeats itself is no change.
    Updated(PeerId),
    /// It was started anew: links to its earlier self may linger, and its streams begin afresh.
    Restarted(PeerId),
    /// It said goodbye.
    Left(PeerId),
    /// Nobody has heard of it for a while: nothing is to be routed to it.
    Suspect(PeerId),
    /// It was suspect and is there again.
    Returned(PeerId),
    /// It is not in the roster any more.
    Forgotten(PeerId),
    /// Somebody runs this very node with a later incarnation: others listen to that one. Said once for each.
    Outrun { incarnation: u64 },
}

#[derive(Debug)]
struct Neighbour {
    outbox: Outbox,
    comparison: Comparison,
}

/// A goodbye under way.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    version: u64,
    /// None once it has passed.
    until: Option<Mono>,
}

#[derive(Debug)]
pub(crate) struct Roster {
    own: Own,
    table: Table,
    neighbours: BTreeMap<PeerId, Neighbour>,
    announced: u64,
    leaving: Option<Leaving>,
    /// When to compare with some neighbour. None without neighbours.
    round_at: Option<Mono>,
    /// Where the next answer to a digest starts, so that all buckets get their turn.
    next_bucket: u8,
    /// The highest incarnation of this node that others know, if it is not this one.
    outrun: u64,
}

impl Roster {
    /// `announced`: false for a short-lived node, which says nothing of itself until it subscribes or serves.
    /// `name`: one that [`is_node_name`] accepts; others refuse records with any other.
    pub(crate) fn new(
        me: PeerId,
        incarnation: u64,
        name: String,
        relay: bool,
        announced: bool,
        max_records: usize,
    ) -> Self {
        Self {
            own: Own::new(me, incarnation, name, relay, announced),
            table: Table::new(max_records),
            neighbours: BTreeMap::new(),
            announced: 0,
            leaving: None,
            round_at: None,
            next_bucket: 0,
            outrun: incarnation,
        }
    }

    // What this node says of itself.

    pub(crate) fn own_addresses(&self) -> &[Multiaddr] {
        self.own.addresses()
    }

    pub(crate) fn set_addresses(&mut self, addresses: Vec<Multiaddr>, now: Now, fx: &mut Effects) -> Fit {
        self.own.set_addresses(addresses, now, fx)
    }

    pub(crate) fn set_interests(
        &mut self,
        interests: Vec<Interest>,
        now: Now,
        fx: &mut Effects,
    ) -> Result<Fit, TooLarge> {
        self.own.set_interests(interests, now, fx)
    }

    pub(crate) fn set_services(&mut self, services: Vec<String>, now: Now, fx: &mut Effects) -> Result<Fit, TooLarge> {
        self.own.set_services(services, now, fx)
    }

    /// Says which durable subscriptions this node has, and whether it keeps copies for others.
    pub(crate) fn set_durables(
        &mut self,
        durables: Vec<Durable>,
        custodian: bool,
        now: Now,
        fx: &mut Effects,
    ) -> Result<Fit, TooLarge> {
        self.own.set_durables(durables, custodian, now, fx)
    }

    /// Takes our own record from the signer, and tells the neighbours.
    pub(crate) fn signed(&mut self, record: SignedRecord, now: Now, fx: &mut Effects) {
        let bytes = record.bytes.len();
        if !self.own.take(record, now, fx) {
            return;
        }
        for neighbour in self.neighbours.values_mut() {
            neighbour.outbox.owe(self.own.me(), bytes, now.mono, now);
        }
        self.settle(now, fx);
    }

    /// Whether this node is, or wants to be, in the rosters of others.
    pub(crate) fn speaks(&self) -> bool {
        self.own.speaks()
    }

    /// The latest version of our own record, signed or about to be.
    pub(crate) fn version(&self) -> u64 {
        self.own.version()
    }

    /// The version of our own record that all neighbours have: those that were linked when it was signed, and answer.
    pub(crate) fn announced(&self) -> u64 {
        self.announced
    }

    /// Whether all neighbours have that version of our own record or a later one, or none is for them.
    pub(crate) fn is_announced(&self, version: u64) -> bool {
        !self.own.speaks() || self.announced >= version
    }

    /// Says goodbye, for good.
    pub(crate) fn leave(&mut self, now: Now, fx: &mut Effects) {
        if self.leaving.is_none() {
            self.own.leave(now, fx);
            self.leaving = Some(Leaving { version: self.own.version(), until: Some(now.mono + GOODBYE) });
        }
    }

    /// Whether all neighbours have heard the goodbye, or had their second.
    pub(crate) fn left_confirmed(&self) -> bool {
        let Some(leaving) = self.leaving else { return false };
        let heard = self.own.signed_version() >= leaving.version
            && self.neighbours.values().all(|neighbour| neighbour.outbox.confirmed() >= leaving.version);
        !self.own.speaks() || leaving.until.is_none() || heard
    }

    // Neighbours.

    /// A first link to that node stands.
    pub(crate) fn linked(&mut self, peer: PeerId, now: Now, fx: &mut Effects) -> Vec<Change> {
        if peer == self.own.me() || self.neighbours.contains_key(&peer) {
            return Vec::new();
        }
        let mut outbox = Outbox::new(peer, self.own.signed_version());
        if let Some(signed) = self.own.signed() {
            outbox.owe(signed.node, signed.bytes.len(), now.mono, now);
        }
        let mut comparison = Comparison::new(peer);
        comparison.begin_by(now.mono);
        self.neighbours.insert(peer, Neighbour { outbox, comparison });
        self.round_at = self.round_at.or_else(|| Some(now.mono + fx.jitter(compare::ROUND)));
        let changes = self.table.link(&peer, now).into_iter().collect();
        self.settle(now, fx);
        changes
    }

    /// The last link to that node is gone.
    pub(crate) fn unlinked(&mut self, peer: &PeerId, now: Now, fx: &mut Effects) {
        if self.neighbours.remove(peer).is_some() {
            self.table.unlink(peer, now);
            self.settle(now, fx);
        }
    }

    /// No address of that node leads to it. If it was linked and nothing was heard since, it is suspect at once: most
    /// likely its process has ended, and what goes to one of a group must not go there. One that was never linked is left
    /// alone, for it may be reached through others; and one that is alive after all is back with its next refresh.
    ///
    /// Records do not say who is there. Until a record of that age is no sign of life to anybody, none is handed on.
    pub(crate) fn unreachable(&mut self, peer: &PeerId) -> Option<Change> {
        self.table.refuse(peer)
    }

    // Time.

    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        let neighbours = self.neighbours.values();
        let neighbours =
            neighbours.flat_map(|one| one.outbox.next_timeout().into_iter().chain(one.comparison.next_timeout()));
        let leaving = self.leaving.and_then(|leaving| leaving.until);
        let own = self.own.next_timeout().into_iter().chain(self.table.next_timeout());
        own.chain(leaving).chain(self.round_at).chain(neighbours).min()
    }

    pub(crate) fn on_timeout(&mut self, now: Now, fx: &mut Effects) -> Vec<Change> {
        self.own.on_timeout(now, fx);
        let changes = self.table.on_timeout(now);
        if let Some(leaving) = &mut self.leaving {
            leaving.until = leaving.until.filter(|until| *until > now.mono);
        }
        self.neighbours.values_mut().for_each(|neighbour| neighbour.outbox.on_timeout(now, fx));
        if self.round_at.is_some_and(|at| at <= now.mono) {
            self.round_at = (!self.neighbours.is_empty()).then(|| now.mono + fx.jitter(compare::ROUND));
            let idle: Vec<&mut Neighbour> =
                self.neighbours.values_mut().filter(|neighbour| neighbour.comparison.is_idle()).collect();
            let pick = fx.below(idle.len());
            if let Some(neighbour) = idle.into_iter().nth(pick) {
                neighbour.comparison.begin_by(now.mono);
            }
        }
        self.settle(now, fx);
        changes
    }

    /// After every event: sends what is due, and sees how far the own record has come.
    fn settle(&mut self, now: Now, fx: &mut Effects) {
        let Self { own, table, neighbours, .. } = self;
        for neighbour in neighbours.values_mut() {
            neighbour.outbox.flush(own.me(), |node| parcel(own, table, node), now, fx);
            if neighbour.comparison.is_due(now) {
                neighbour.comparison.begin(digest_with(own, table).to_vec(), now, fx);
            }
        }
        let slowest = self.neighbours.values().filter_map(|neighbour| neighbour.outbox.announced()).min();
        let signed = self.own.signed_version();
        self.announced = self.announced.max(slowest.map_or(signed, |slowest| slowest.min(signed)));
    }

    // Queries.

    pub(crate) fn get(&self, peer: &PeerId) -> Option<&Known> {
        self.table.get(peer)
    }

    /// All nodes that are known, whether or not they are there, by id.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Known> {
        self.table.iter()
    }

    /// How many forgotten nodes are remembered as such.
    pub(crate) fn graves(&self) -> usize {
        self.table.graves()
    }

    /// The nodes that are there, by id.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Known> {
        self.table.iter().filter(|known| known.is_live())
    }

    /// What this node is called.
    pub(crate) fn own_name(&self) -> &str {
        self.own.name()
    }

    /// The nodes that may be meant, of those that are there. Several may have a name.
    pub(crate) fn find(&self, name: &NodeName) -> Vec<&Known> {
        match name {
            NodeName::Peer(peer) => self.get(peer).filter(|known| known.is_live()).into_iter().collect(),
            NodeName::Name(name) => self.by_name(name).collect(),
        }
    }

    /// The nodes of that name that are there. Names are not unique.
    pub(crate) fn by_name(&self, name: &str) -> impl Iterator<Item = &Known> {
        self.table.named(name).filter(|known| known.is_live())
    }

    /// The nodes that are there and serve this.
    pub(crate) fn providers(&self, service: &str) -> impl Iterator<Item = &Known> {
        self.table.serving(service).filter(|known| known.is_live())
    }

    pub(crate) fn incarnation(&self, peer: &PeerId) -> Option<u64> {
        self.get(peer).map(|known| known.stamp().incarnation)
    }

    /// Since when this node has known, without a break and within one incarnation, that `peer` wants messages of `shard`.
    pub(crate) fn wanted_since(&self, peer: &PeerId, shard: u8) -> Option<Mono> {
        self.get(peer)?.wanted_since(shard)
    }

    /// The shards that somebody else wants: what a relay joins.
    pub(crate) fn wanted_shards(&self) -> ShardSet {
        // Who could not be dialled may be alive behind somebody who counts on this relay.
        let wanting = self.table.iter().filter(|known| known.is_live() || known.refused);
        wanting.fold(ShardSet::EMPTY, |all, known| all.union(known.shards()))
    }

    // Persistence.

    /// The signed records of the nodes that did not say goodbye, to be remembered by a later run: those that are there
    /// first, and those that are not at present, since that may be our own fault. Of those that did say goodbye the ones
    /// with durable subscriptions, which are owed messages still.
    pub(crate) fn to_save(&self) -> Vec<Bytes> {
        let suspect = self.table.iter().filter(|known| match known.presence() {
            Presence::Live => false,
            Presence::Suspect => true,
            Presence::Left => !known.durables().is_empty(),
        });
        self.live().chain(suspect).map(|known| known.signed.bytes.clone()).collect()
    }

    /// Takes what an earlier run saved: known, suspect until seen.
    pub(crate) fn remember(&mut self, records: Vec<SignedRecord>, now: Now) {
        for record in records.into_iter().filter(|record| record.node != self.own.me()) {
            self.table.remember(record, now);
        }
    }
}

fn digest_with(own: &Own, table: &Table) -> Digest {
    let mut digest = table.digest().clone();
    if let Some(signed) = own.signed() {
        digest.toggle(&signed.record.node, signed.stamp());
    }
    digest
}

fn parcel(own: &Own, table: &Table, node: &PeerId) -> Option<Parcel> {
    match own.signed() {
        Some(signed) if signed.node == *node => {
            Some(Parcel { bytes: signed.bytes.clone(), own: Some(signed.record.version) })
        }
        Some(_) | None => table
            .get(node)
            .filter(|known| !known.refused)
            .map(|known| Parcel { bytes: known.signed.bytes.clone(), own: None }),
    }
}
