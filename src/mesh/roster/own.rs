//! What this node says of itself: its content, its version, and when it has to be signed again.
//!
//! Knows no neighbours: who has heard is `spread`'s business.

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

use super::limits::{self, TooLarge};
use crate::mesh::effects::Effects;
use crate::mesh::event::{Output, Unsigned};
use crate::mesh::time::{Mono, Now, Span};
use crate::wire::codec;
use crate::wire::node_key::{NodeKey, SIGNATURE};
use crate::wire::roster::{
    self, Durable, Interest, MAX_ADDRESSES, MAX_DURABLES, MAX_INTERESTS, MAX_RECORD, MAX_SERVICES, RosterRecord,
    SignedRecord, Stamp,
};

/// The record is written anew this often, so that others see this node alive.
const REFRESH: Span = Span::secs(20);
/// ... but after a start at first so soon, and then after twice as long each time. One record does not show others how far
/// this node's clock stands from theirs; two do.
const REPEAT: Span = Span::secs(2);
/// A signature that does not come by then is asked for again.
const SIGNING: Span = Span::secs(5);

/// Whether all that was set stands in the record.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It does.
    Whole,
    /// Only so many of the addresses found room.
    AddressesCut { kept: usize, of: usize },
}

/// A signature under way.
#[derive(Clone, Copy, Debug)]
struct Signing {
    version: u64,
    /// When it is overdue.
    due: Mono,
}

#[derive(Debug)]
pub(super) struct Own {
    me: PeerId,
    /// `None` for a kind of key that cannot sign records. The start refuses those; here they mean silence.
    key: Option<NodeKey>,
    incarnation: u64,
    name: String,
    relay: bool,
    /// False for a short-lived node until it subscribes or serves. Once said, there is no way back but leaving.
    speaks: bool,
    left: bool,
    addresses: Vec<Multiaddr>,
    interests: Vec<Interest>,
    services: Vec<String>,
    durables: Vec<Durable>,
    custodian: bool,
    /// How many of the addresses find room beside the rest.
    room: usize,
    /// The latest version, whether or not it is signed yet.
    version: u64,
    signing: Option<Signing>,
    signed: Option<SignedRecord>,
    refresh_at: Option<Mono>,
    /// How often it was written anew for that reason alone.
    repeated: u32,
}

impl Own {
    pub(super) fn new(me: PeerId, incarnation: u64, name: String, relay: bool, announced: bool) -> Self {
        Self {
            me,
            key: NodeKey::of(&me),
            incarnation,
            name,
            relay,
            speaks: announced,
            left: false,
            addresses: Vec::new(),
            interests: Vec::new(),
            services: Vec::new(),
            durables: Vec::new(),
            custodian: false,
            room: 0,
            version: 0,
            signing: None,
            signed: None,
            refresh_at: None,
            repeated: 0,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn me(&self) -> PeerId {
        self.me
    }

    /// Whether this node is, or wants to be, in the rosters of others.
    pub(super) fn speaks(&self) -> bool {
        self.speaks && self.key.is_some()
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn signed(&self) -> Option<&SignedRecord> {
        self.signed.as_ref()
    }

    pub(super) fn signed_version(&self) -> u64 {
        self.signed.as_ref().map_or(0, |signed| signed.record.version)
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp { incarnation: self.incarnation, version: self.version }
    }

    pub(super) fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    pub(super) fn set_addresses(&mut self, addresses: Vec<Multiaddr>, now: Now, fx: &mut Effects) -> Fit {
        // One that has none to tell is there all the same.
        if !self.left && (self.addresses != addresses || self.version == 0) {
            self.addresses = addresses;
            self.fit();
            self.say(now, fx);
        }
        self.fitted()
    }

    pub(super) fn set_interests(
        &mut self,
        mut interests: Vec<Interest>,
        now: Now,
        fx: &mut Effects,
    ) -> Result<Fit, TooLarge> {
        // Sorted, so that the same subscriptions in another order are no news.
        interests.sort_unstable();
        interests.dedup();
        if self.left || self.interests == interests {
            return Ok(self.fitted());
        }
        limits::count("patterns", interests.len(), MAX_INTERESTS)?;
        let before = std::mem::replace(&mut self.interests, interests);
        self.check_bare().inspect_err(|_| self.interests = before)?;
        self.changed(now, fx)
    }

    pub(super) fn set_services(
        &mut self,
        mut services: Vec<String>,
        now: Now,
        fx: &mut Effects,
    ) -> Result<Fit, TooLarge> {
        services.sort_unstable();
        services.dedup();
        if self.left || self.services == services {
            return Ok(self.fitted());
        }
        limits::count("services", services.len(), MAX_SERVICES)?;
        let before = std::mem::replace(&mut self.services, services);
        self.check_bare().inspect_err(|_| self.services = before)?;
        self.changed(now, fx)
    }

    pub(super) fn set_durables(
        &mut self,
        mut durables: Vec<Durable>,
        custodian: bool,
        now: Now,
        fx: &mut Effects,
    ) -> Result<Fit, TooLarge> {
        durables.sort_unstable();
        if self.left || self.durables == durables && self.custodian == custodian {
            return Ok(self.fitted());
        }
        limits::count("durable subscriptions", durables.len(), MAX_DURABLES)?;
        let before = (std::mem::replace(&mut self.durables, durables), self.custodian);
        self.custodian = custodian;
        self.check_bare().inspect_err(|_| (self.durables, self.custodian) = before)?;
        self.changed(now, fx)
    }

    fn changed(&mut self, now: Now, fx: &mut Effects) -> Result<Fit, TooLarge> {
        self.speaks = true;
        self.fit();
        self.say(now, fx);
        Ok(self.fitted())
    }

    /// Writes the tombstone. Nothing is said after it.
    pub(super) fn leave(&mut self, now: Now, fx: &mut Effects) {
        if !self.left {
            self.left = true;
            self.say(now, fx);
            self.refresh_at = None;
        }
    }

    /// Others have a record of this start that is newer than the latest: outbid it.
    pub(super) fn outbid(&mut self, version: u64, now: Now, fx: &mut Effects) {
        if self.signing.is_some() {
            self.version = self.version.max(version.saturating_add(1));
        } else {
            self.version = self.version.max(version);
            self.say(now, fx);
        }
    }

    /// Takes a signature. False if it is not the one that was waited for.
    pub(super) fn take(&mut self, signed: SignedRecord, now: Now, fx: &mut Effects) -> bool {
        let newer = signed.node == self.me
            && signed.record.incarnation == self.incarnation
            && signed.record.version > self.signed_version();
        if !newer {
            return false;
        }
        let outdated = signed.record.version < self.version;
        let pause = Span(REPEAT.0 << self.repeated.min(8)).min(REFRESH);
        self.signed = Some(signed);
        self.signing = None;
        self.refresh_at = (!self.left).then(|| now.mono + fx.jitter(pause));
        if outdated {
            self.sign(now, fx);
        }
        true
    }

    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.signing.map(|signing| signing.due).into_iter().chain(self.refresh_at).min()
    }

    pub(super) fn on_timeout(&mut self, now: Now, fx: &mut Effects) {
        if self.signing.is_some_and(|signing| signing.due <= now.mono) {
            self.sign(now, fx);
        }
        if self.refresh_at.is_some_and(|due| due <= now.mono) {
            self.refresh_at = None;
            self.repeated = self.repeated.saturating_add(1);
            self.say(now, fx);
        }
    }

    /// A new version: signed now, or together with whatever else changes while a signature is under way.
    fn say(&mut self, now: Now, fx: &mut Effects) {
        if !self.speaks() {
            return;
        }
        match self.signing {
            Some(signing) => self.version = self.version.max(signing.version.saturating_add(1)),
            None => {
                self.version = self.version.saturating_add(1);
                self.sign(now, fx);
            }
        }
    }

    fn sign(&mut self, now: Now, fx: &mut Effects) {
        if let Some(record) = self.record(self.version, now.wall.0, self.room) {
            self.signing = Some(Signing { version: self.version, due: now.mono + SIGNING });
            fx.push(Output::Sign(Unsigned::Record(record)));
        }
    }

    fn record(&self, version: u64, time: u64, addresses: usize) -> Option<RosterRecord> {
        // A tombstone needs no content that somebody would act on now. Durable subscriptions wait for their node.
        let alive = !self.left;
        Some(RosterRecord {
            node: self.key?,
            incarnation: self.incarnation,
            version,
            time,
            left: self.left,
            relay: self.relay,
            name: self.name.clone(),
            addresses: self.addresses.iter().filter(|_| alive).take(addresses).cloned().collect(),
            interests: self.interests.iter().filter(|_| alive).cloned().collect(),
            services: self.services.iter().filter(|_| alive).cloned().collect(),
            extensions: roster::extensions(&self.durables, self.custodian && alive).ok()?,
        })
    }

    fn check_bare(&self) -> Result<(), TooLarge> {
        match self.size(0) {
            size if size <= MAX_RECORD => Ok(()),
            size => Err(TooLarge { what: "bytes of patterns and services", found: size, limit: MAX_RECORD }),
        }
    }

    /// Cuts the addresses, from the last, until the record fits: without some of them this node can still be reached,
    /// without its patterns it would miss messages.
    fn fit(&mut self) {
        let most = self.addresses.len().min(MAX_ADDRESSES);
        self.room = (0..=most).rev().find(|kept| self.size(*kept) <= MAX_RECORD).unwrap_or(0);
    }

    fn fitted(&self) -> Fit {
        match self.addresses.len() {
            of if of > self.room => Fit::AddressesCut { kept: self.room, of },
            _ => Fit::Whole,
        }
    }

    /// The most bytes that a record with so many addresses takes.
    fn size(&self, addresses: usize) -> usize {
        let mut bytes = Vec::new();
        // The largest numbers, so that what fits now still fits after many versions.
        match self.record(u64::MAX, u64::MAX, addresses).map(|record| codec::encode_into(&record, &mut bytes)) {
            Some(Err(_)) => usize::MAX,
            Some(Ok(())) | None => 2 + bytes.len() + SIGNATURE,
        }
    }
}
