//! Those who are not of this mesh, or are this very node: not to be dialled again for a while, and told of once.

use std::collections::{BTreeMap, BTreeSet};

use super::candidates::Target;
use crate::mesh::time::{Mono, Now, Span};

/// How long a stranger is left alone.
pub(super) const SHUNNED: Span = Span::secs(10 * 60);
/// ... where the user says that one of ours should be: somebody may be about to put that right.
pub(super) const EXPECTED: Span = Span::secs(60);
/// Strangers remembered, and those told of.
const MOST: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Strangers {
    until: BTreeMap<Target, Mono>,
    told: BTreeSet<Target>,
}

impl Strangers {
    pub(super) fn shun(&mut self, target: Target, span: Span, now: Now) {
        self.until.insert(target, now.mono + span);
        if self.until.len() > MOST {
            self.until.retain(|_, until| *until > now.mono);
        }
        if self.until.len() > MOST {
            let oldest = self.until.iter().min_by_key(|(_, until)| **until).map(|(target, _)| target.clone());
            oldest.and_then(|oldest| self.until.remove(&oldest));
        }
    }

    /// They turned out to be of this mesh after all.
    pub(super) fn pardon(&mut self, target: &Target) {
        self.until.remove(target);
    }

    /// Until when not to dial them.
    pub(super) fn until(&self, target: &Target, now: Now) -> Option<Mono> {
        self.until.get(target).copied().filter(|until| *until > now.mono)
    }

    /// Whether to tell of this one: true once for each. After very many of them no more is said.
    pub(super) fn tell(&mut self, target: Target) -> bool {
        self.told.len() < MOST && self.told.insert(target)
    }
}
