//! One durable subscription of this node: who holds it, and what waits for that one, in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::store::{Change, Key, Table};
use crate::mesh::event::HolderId;
use crate::mesh::time::{Mono, Span, Wall};
use crate::wire::letter::{self, DurableRow};

/// Letters that may be handed out and not acknowledged, and their bytes unless there is one only.
pub(crate) const WINDOW: usize = 64;
const WINDOW_BYTES: u64 = 4 * 1024 * 1024;
/// A letter that was given back without a word is handed out again after that, and after twice as long each time ...
const AGAIN: Span = Span::millis(100);
/// ... up to this.
const AGAIN_AT_MOST: Span = Span::secs(60);

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) pattern: Arc<str>,
    pub(super) holder: Option<HolderId>,
    waiting: BTreeSet<u64>,
    /// What waits for its time, in the order of these, and by number.
    later: BTreeSet<(Mono, u64)>,
    later_at: BTreeMap<u64, Mono>,
    /// What is with the holder, or being read for it, and its bytes.
    out: BTreeMap<u64, u64>,
    /// How often those were handed out that are not acknowledged, if ever.
    times: BTreeMap<u64, u32>,
}

impl Subscription {
    pub(super) fn new(pattern: Arc<str>) -> Self {
        Self {
            pattern,
            holder: None,
            waiting: BTreeSet::new(),
            later: BTreeSet::new(),
            later_at: BTreeMap::new(),
            out: BTreeMap::new(),
            times: BTreeMap::new(),
        }
    }

    /// Writes down that it is there, and held now.
    pub(super) fn write(&self, name: &str, now: Wall) -> Option<Change> {
        let row = letter::write(&DurableRow { pattern: self.pattern.to_string(), held: now.0 });
        row.ok().map(|row| Change::Put(Key::name(Table::Durables, name), row))
    }

    /// A letter waits for the holder. `again`: it may have been handed out by an earlier run.
    pub(super) fn put(&mut self, number: u64, again: bool) {
        self.waiting.insert(number);
        if again {
            self.times.insert(number, 1);
        }
    }

    /// Letters that are not acknowledged.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.later.len() + self.out.len()
    }

    pub(super) fn forget(&mut self, number: u64) {
        self.waiting.remove(&number);
        if let Some(at) = self.later_at.remove(&number) {
            self.later.remove(&(at, number));
        }
        self.out.remove(&number);
        self.times.remove(&number);
    }

    /// What there is room for at the holder. What is not in time any more is passed over for good.
    pub(super) fn take(&mut self, now: Mono, in_time: impl Fn(&u64) -> bool, bytes: impl Fn(&u64) -> u64) -> Vec<u64> {
        while let Some((at, number)) = self.later.first().copied().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, number));
            self.later_at.remove(&number);
            self.waiting.insert(number);
        }
        let mut taken = Vec::new();
        let mut used: u64 = self.out.values().sum();
        while self.holder.is_some() && self.out.len() < WINDOW {
            let Some(number) = self.waiting.first().copied() else { break };
            let bytes = bytes(&number);
            if !in_time(&number) {
                self.waiting.remove(&number);
                continue;
            }
            if used > 0 && used + bytes > WINDOW_BYTES {
                break;
            }
            used += bytes;
            self.waiting.remove(&number);
            self.out.insert(number, bytes);
            taken.push(number);
        }
        taken
    }

    /// A letter was read for that holder: whether it may have been handed out before. None if it does not want it any more.
    pub(super) fn hand_out(&mut self, number: u64, holder: HolderId) -> Option<bool> {
        if !self.is_with(number, holder) {
            return None;
        }
        let times = self.times.entry(number).or_default();
        *times = times.saturating_add(1);
        Some(*times > 1)
    }

    /// Whether a letter is with that holder still, or on its way to it.
    pub(super) fn is_with(&self, number: u64, holder: HolderId) -> bool {
        self.holder == Some(holder) && self.out.contains_key(&number)
    }

    /// A letter comes back.
    pub(super) fn back(&mut self, number: u64, after: Option<Span>, now: Mono) {
        if self.out.remove(&number).is_none() {
            return;
        }
        let times = self.times.get(&number).copied().unwrap_or_default();
        let pause = Span(AGAIN.0 << times.saturating_sub(1).min(10)).min(AGAIN_AT_MOST);
        let at = now + after.unwrap_or(pause);
        self.later.insert((at, number));
        self.later_at.insert(number, at);
    }

    pub(super) fn release(&mut self, holder: HolderId) {
        if self.holder == Some(holder) {
            self.holder = None;
            self.waiting.extend(std::mem::take(&mut self.out).into_keys());
        }
    }

    /// When the next letter's time comes. For what waits already somebody else makes room.
    pub(super) fn next_at(&self) -> Option<Mono> {
        self.holder.and_then(|_| self.later.first()).map(|(at, _)| *at)
    }
}
