//! One durable subscription of this node: who holds it, and what waits for them, in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::numbers::Numbers;
use super::store::{Change, Key, Table};
use crate::mesh::event::HolderId;
use crate::mesh::time::{Mono, Span, Wall};
use crate::wire::letter::{self, DurableRow};

/// Letters that a holder may have and not have acknowledged, unless it says less, and their bytes unless there is one only.
pub(crate) const WINDOW: usize = 64;
const WINDOW_BYTES: u64 = 4 * 1024 * 1024;
/// How many may hold one on a node.
pub(super) const HOLDERS: usize = 256;
/// A letter that was given back without a word is handed out again after that, and after twice as long each time ...
const AGAIN: Span = Span::millis(100);
/// ... up to this.
const AGAIN_AT_MOST: Span = Span::secs(60);
/// One of which the acknowledgement could not be written is handed out again after that.
const UNWRITTEN: Span = Span::secs(1);

/// How somebody holds a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// How many letters it takes before it acknowledges the first.
    pub(crate) window: usize,
    /// How often a letter may be handed out.
    pub(crate) attempts: Option<u32>,
}

/// Somebody who holds it, and the bytes of what that one has.
#[derive(Debug)]
struct Holder {
    terms: Terms,
    out: BTreeMap<u64, u64>,
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) pattern: Arc<str>,
    holders: BTreeMap<HolderId, Holder>,
    waiting: Numbers,
    /// What waits for its time, in the order of these, and by number.
    later: BTreeSet<(Mono, u64)>,
    later_at: BTreeMap<u64, Mono>,
    /// Who has what was handed out, or is being read for it.
    out: BTreeMap<u64, HolderId>,
    /// What was acknowledged, which is being written down.
    settling: Numbers,
    /// How often those were handed out that are not acknowledged, here and before, if ever.
    attempts: BTreeMap<u64, u32>,
}

/// What is to be handed out, and what may not be.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) by: BTreeMap<HolderId, Vec<u64>>,
    /// Handed out as often as it may be.
    pub(super) poison: Vec<u64>,
}

impl Holder {
    fn has_room(&self, bytes: u64) -> bool {
        let used: u64 = self.out.values().sum();
        self.out.len() < self.terms.window && (used == 0 || used + bytes <= WINDOW_BYTES)
    }
}

impl Subscription {
    pub(super) fn new(pattern: Arc<str>) -> Self {
        Self {
            pattern,
            holders: BTreeMap::new(),
            waiting: Numbers::default(),
            later: BTreeSet::new(),
            later_at: BTreeMap::new(),
            out: BTreeMap::new(),
            settling: Numbers::default(),
            attempts: BTreeMap::new(),
        }
    }

    /// Writes down that it is there, and held now.
    pub(super) fn write(&self, name: &str, now: Wall) -> Option<Change> {
        let row = letter::write(&DurableRow { pattern: self.pattern.to_string(), held: now.0 });
        row.ok().map(|row| Change::Put(Key::name(Table::Durables, name), row))
    }

    pub(super) fn hold(&mut self, holder: HolderId, terms: Terms) {
        self.holders.insert(holder, Holder { terms, out: BTreeMap::new() });
    }

    pub(super) fn holders(&self) -> usize {
        self.holders.len()
    }

    /// How many letters its holders take at once.
    pub(super) fn window(&self) -> usize {
        self.holders.values().map(|holder| holder.terms.window).sum()
    }

    /// A letter waits for a holder, and was handed out so often before.
    pub(super) fn put(&mut self, number: u64, attempts: u32) {
        self.waiting.insert(number);
        if attempts > 0 {
            self.attempts.insert(number, attempts);
        }
    }

    /// Letters that are not acknowledged.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.later.len() + self.out.len() + self.settling.len()
    }

    /// How often a letter was handed out.
    pub(super) fn attempts(&self, number: u64) -> u32 {
        self.attempts.get(&number).copied().unwrap_or_default()
    }

    /// Whether that holder is handed out letters so often only.
    pub(super) fn limits_attempts(&self, holder: HolderId) -> bool {
        self.holders.get(&holder).is_some_and(|holder| holder.terms.attempts.is_some())
    }

    /// Whether somebody has it, or is about to.
    pub(super) fn is_out(&self, number: u64) -> bool {
        self.out.contains_key(&number) || self.settling.contains(number)
    }

    /// A letter was acknowledged: when that is on disk it is forgotten.
    pub(super) fn settle(&mut self, number: u64) {
        self.comes_back(number);
        self.waiting.remove(number);
        if let Some(at) = self.later_at.remove(&number) {
            self.later.remove(&(at, number));
        }
        self.settling.insert(number);
    }

    /// That could not be written down: it is handed out again.
    pub(super) fn unsettle(&mut self, number: u64, now: Mono) {
        if self.settling.remove(number) {
            let at = now + UNWRITTEN;
            self.later.insert((at, number));
            self.later_at.insert(number, at);
        }
    }

    pub(super) fn forget(&mut self, number: u64) {
        self.waiting.remove(number);
        if let Some(at) = self.later_at.remove(&number) {
            self.later.remove(&(at, number));
        }
        self.comes_back(number);
        self.settling.remove(number);
        self.attempts.remove(&number);
    }

    /// Whoever has it has it no more.
    fn comes_back(&mut self, number: u64) -> Option<HolderId> {
        let holder = self.out.remove(&number)?;
        if let Some(holder) = self.holders.get_mut(&holder) {
            holder.out.remove(&number);
        }
        Some(holder)
    }

    /// What there is room for at the holders: whoever has least gets the next. What is not in time any more is passed over for
    /// good. Each has then been handed out once more.
    pub(super) fn take(&mut self, now: Mono, in_time: impl Fn(&u64) -> bool, bytes: impl Fn(&u64) -> u64) -> Taken {
        while let Some((at, number)) = self.later.first().copied().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, number));
            self.later_at.remove(&number);
            self.waiting.insert(number);
        }
        let mut taken = Taken::default();
        while let Some(number) = self.waiting.first() {
            let bytes = bytes(&number);
            if !in_time(&number) {
                self.waiting.remove(number);
                continue;
            }
            let with_room = self.holders.iter_mut().filter(|(_, holder)| holder.has_room(bytes));
            let Some((id, holder)) = with_room.min_by_key(|(_, holder)| holder.out.len()) else { break };
            self.waiting.remove(number);
            let attempts = self.attempts.entry(number).or_default();
            if holder.terms.attempts.is_some_and(|most| *attempts >= most) {
                taken.poison.push(number);
                continue;
            }
            *attempts = attempts.saturating_add(1);
            holder.out.insert(number, bytes);
            self.out.insert(number, *id);
            taken.by.entry(*id).or_default().push(number);
        }
        taken
    }

    /// Whether a letter is with that holder still, or on its way to it.
    pub(super) fn is_with(&self, number: u64, holder: HolderId) -> bool {
        self.out.get(&number) == Some(&holder)
    }

    /// A letter comes back. One that may not be handed out again does not wait for its time.
    pub(super) fn back(&mut self, number: u64, after: Option<Span>, now: Mono) {
        let Some(holder) = self.comes_back(number) else { return };
        let attempts = self.attempts(number);
        let most = self.holders.get(&holder).and_then(|holder| holder.terms.attempts);
        if most.is_some_and(|most| attempts >= most) {
            self.waiting.insert(number);
            return;
        }
        let pause = Span(AGAIN.0 << attempts.saturating_sub(1).min(10)).min(AGAIN_AT_MOST);
        let at = now + after.unwrap_or(pause);
        self.later.insert((at, number));
        self.later_at.insert(number, at);
    }

    /// A letter could not be read for a holder: it was not handed out.
    pub(super) fn not_handed_out(&mut self, number: u64, now: Mono) {
        if let Some(attempts) = self.attempts.get_mut(&number) {
            *attempts = attempts.saturating_sub(1);
        }
        self.back(number, None, now);
    }

    /// Somebody holds it no more. What that one had is for the others. Returns whether it held it.
    pub(super) fn release(&mut self, holder: HolderId) -> bool {
        let Some(gone) = self.holders.remove(&holder) else { return false };
        for number in gone.out.into_keys() {
            self.out.remove(&number);
            self.waiting.insert(number);
        }
        true
    }

    /// When the next letter's time comes. For what waits already somebody else makes room.
    pub(super) fn next_at(&self) -> Option<Mono> {
        if self.holders.is_empty() { None } else { self.later.first().map(|(at, _)| *at) }
    }
}
