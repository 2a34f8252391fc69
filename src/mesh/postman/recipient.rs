//! One recipient of guaranteed messages, as its sender sees it: what is owed to it, and when to turn to it again.

use std::collections::BTreeSet;

use libp2p_identity::PeerId;

use crate::mesh::effects::Effects;
use crate::mesh::time::{Mono, Span};

/// After an exchange that led nowhere the next one begins so much later, twice as much each time ...
const RETRY: Span = Span::millis(100);
/// ... up to this.
const RETRY_AT_MOST: Span = Span::secs(60);

/// An exchange under way: whom with, and what it carries.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) to: PeerId,
    /// What is stored there, and asked about.
    pub(super) asked: Vec<u64>,
    /// What is offered.
    pub(super) fresh: Vec<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Recipient {
    /// What nobody has stored for it.
    pub(super) pending: BTreeSet<u64>,
    /// What somebody has stored for it, who was not heard to have processed it.
    pub(super) stored: BTreeSet<u64>,
    pub(super) exchange: Option<Exchange>,
    tries: u32,
    next_at: Mono,
    asks: u32,
    ask_at: Mono,
    /// Who holds it, and whether that one is linked.
    holder: Option<(PeerId, bool)>,
}

impl Recipient {
    pub(super) fn owe(&mut self, number: u64) {
        self.stored.remove(&number);
        self.pending.insert(number);
    }

    pub(super) fn keep(&mut self, number: u64) {
        self.pending.remove(&number);
        self.stored.insert(number);
    }

    pub(super) fn forget(&mut self, number: u64) {
        self.pending.remove(&number);
        self.stored.remove(&number);
    }

    /// Whether nothing is owed to it.
    pub(super) fn is_done(&self) -> bool {
        self.pending.is_empty() && self.stored.is_empty() && self.exchange.is_none()
    }

    /// Whether it is time to offer something, and to ask about something.
    pub(super) fn due(&self, now: Mono) -> (bool, bool) {
        let idle = self.exchange.is_none();
        (idle && !self.pending.is_empty() && self.next_at <= now, idle && !self.stored.is_empty() && self.ask_at <= now)
    }

    /// When it will be.
    pub(super) fn next_at(&self) -> Option<Mono> {
        if self.exchange.is_some() {
            return None;
        }
        let offer = (!self.pending.is_empty()).then_some(self.next_at);
        let ask = (!self.stored.is_empty()).then_some(self.ask_at);
        offer.into_iter().chain(ask).min()
    }

    /// That led nowhere.
    pub(super) fn back_off(&mut self, now: Mono, fx: &mut Effects) {
        self.next_at = now + later(&mut self.tries, fx);
        self.ask_at = now + later(&mut self.asks, fx);
    }

    /// An exchange that asked about something had answers, or one that did not: whether something was stored or processed,
    /// which is news.
    pub(super) fn went(&mut self, asked: bool, news: bool, now: Mono, fx: &mut Effects) {
        if news {
            (self.tries, self.next_at, self.asks) = (0, now, 0);
        } else {
            self.next_at = now + later(&mut self.tries, fx);
        }
        // What goes on being stored does not put off asking.
        if asked || self.ask_at <= now {
            self.ask_at = now + later(&mut self.asks, fx);
        } else if news {
            self.ask_at = self.ask_at.min(now + later(&mut self.asks, fx));
        }
    }

    /// Somebody else holds it, or is linked now: what did not work before may.
    pub(super) fn held_by(&mut self, holder: Option<(PeerId, bool)>, now: Mono) {
        if self.holder != holder {
            self.holder = holder;
            (self.tries, self.next_at) = (0, now);
            (self.asks, self.ask_at) = (0, now);
        }
    }
}

fn later(tries: &mut u32, fx: &mut Effects) -> Span {
    let pause = Span(RETRY.0 << (*tries).min(10)).min(RETRY_AT_MOST);
    *tries = tries.saturating_add(1);
    fx.jitter(pause)
}
