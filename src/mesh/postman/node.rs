//! A node that holds a recipient, as a sender of guaranteed messages sees it: what it has, and what is said to it next.

use super::Holding;
use super::numbers::Numbers;
use crate::MessageId;
use crate::mesh::effects::Effects;
use crate::mesh::time::{Mono, Span};

/// After an exchange that led nowhere the next one begins so much later, twice as much each time ...
pub(super) const RETRY: Span = Span::millis(100);
/// ... up to this.
pub(super) const RETRY_AT_MOST: Span = Span::secs(60);
/// Letters of one exchange. What is stored there is asked about, this many at a time.
pub(super) const BATCH: usize = 64;
pub(super) const ASKED: usize = 1_000;

/// An exchange under way with a node.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// What is stored there, and asked about.
    pub(super) asked: Vec<u64>,
    /// What is, or may be, stored there, and wanted back.
    pub(super) wanted: Vec<u64>,
    /// What is offered.
    pub(super) fresh: Vec<u64>,
    /// What the node is told to forget.
    pub(super) settled: Vec<MessageId>,
}

/// A node that holds it, or has something stored for it.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) exchange: Option<Exchange>,
    /// What it has stored, and was not heard to have processed.
    pub(super) stored: Numbers,
    /// What it may have stored: there was no answer.
    pub(super) unsure: Numbers,
    /// What it may have from another: it is asked, until then at most.
    pub(super) probes: Numbers,
    pub(super) probed_until: Mono,
    pub(super) holding: Option<Holding>,
    pub(super) tries: u32,
    pub(super) next_at: Mono,
    pub(super) asks: u32,
    pub(super) ask_at: Mono,
    /// When something was wanted back from it last.
    pub(super) wanted_at: Mono,
    /// It says that it has processed something since it was asked.
    pub(super) has_news: bool,
    /// It was told to say so at once.
    pub(super) tells: bool,
    /// When it was linked last, as far as was looked.
    pub(super) heard: Option<Mono>,
}

impl Exchange {
    /// How many letters it is about.
    pub(super) fn len(&self) -> usize {
        self.asked.len() + self.wanted.len() + self.fresh.len()
    }
}

impl Node {
    /// How much of it is there, or on its way.
    pub(super) fn load(&self) -> usize {
        let fresh = self.exchange.as_ref().map_or(0, |exchange| exchange.fresh.len());
        self.stored.len() + self.unsure.len() + fresh
    }

    /// Whether there are subscribers there.
    pub(super) fn is_active(&self) -> bool {
        self.window() > 0
    }

    pub(super) fn window(&self) -> usize {
        self.holding.map_or(0, |holding| holding.window)
    }

    pub(super) fn is_linked(&self) -> bool {
        self.holding.is_some_and(|holding| holding.linked)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.exchange.is_none() && [&self.stored, &self.unsure, &self.probes].into_iter().all(Numbers::is_empty)
    }

    /// That led nowhere.
    pub(super) fn back_off(&mut self, now: Mono, fx: &mut Effects) {
        self.next_at = now + later(RETRY, &mut self.tries, fx);
        self.ask_at = now + later(RETRY, &mut self.asks, fx);
    }
}

impl Node {
    /// Begins an exchange: offers what there is room for, and asks about what is stored, of which so much is wanted back.
    pub(super) fn begin(
        &mut self,
        pending: &mut Numbers,
        (offers, room): (bool, usize),
        (asks, wanted): (bool, usize),
        is_target: bool,
        fits: &impl Fn(u64, &mut u64) -> bool,
    ) {
        let mut exchange = Exchange::default();
        if asks {
            // The newest are those that no subscriber has yet.
            exchange.wanted = self.stored.iter().rev().take(wanted).collect();
            let is_asked = |number: &u64| !exchange.wanted.contains(number);
            exchange.asked = self.stored.iter().filter(is_asked).take(ASKED).collect();
            exchange.wanted.extend(self.probes.iter().take(ASKED));
            if !is_target {
                // Nobody is there who would take it, so that it is not offered again.
                let unsure: Vec<u64> = self.unsure.iter().take(ASKED).collect();
                for number in &unsure {
                    self.unsure.remove(*number);
                }
                exchange.wanted.extend(unsure);
            }
        }
        if offers {
            let mut bytes = 0;
            let unsure = self.unsure.iter().take(BATCH);
            let new = pending.iter().take(room.min(BATCH));
            exchange.fresh = unsure.chain(new).take(BATCH).take_while(|number| fits(*number, &mut bytes)).collect();
            for number in &exchange.fresh {
                self.unsure.remove(*number);
                pending.remove(*number);
            }
        }
        self.exchange = Some(exchange);
    }
}

pub(super) fn later(first: Span, tries: &mut u32, fx: &mut Effects) -> Span {
    let pause = Span(first.0 << (*tries).min(14)).min(RETRY_AT_MOST);
    *tries = tries.saturating_add(1);
    fx.jitter(pause)
}
