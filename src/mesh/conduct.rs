//! How linked peers behave: who keeps sending what no member sends is disconnected, and not let in again for a while.
//!
//! Counted is only what its sender alone can be blamed for. Every node checks a frame before it passes it on, so a frame
//! without a good signature is the doing of whoever it came from; an old frame or a contradiction is not.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;

use super::time::{Mono, Now, Span};

/// So many offences are too many.
const TOO_MANY: u32 = 100;
/// One is forgotten after so long.
const FORGOTTEN: Span = Span::secs(1);
/// For how long an offender is kept out.
const BANNED: Span = Span::secs(10 * 60);
/// Offenders that are remembered, and those that are kept out.
const MOST: usize = 1_024;

#[derive(Debug, Default)]
pub(crate) struct Conduct {
    /// When all of a peer's offences will be forgotten: each puts it off.
    offenders: BTreeMap<PeerId, Mono>,
    banned: BTreeMap<PeerId, Mono>,
}

impl Conduct {
    /// A peer did so many things that no member does. True if it is to be kept out from now on.
    pub(crate) fn offended(&mut self, peer: PeerId, count: u32, now: Now) -> bool {
        let forgotten = self.offenders.remove(&peer).unwrap_or_default().max(now.mono);
        let forgotten = forgotten + Span(FORGOTTEN.0.saturating_mul(u64::from(count.min(TOO_MANY))));
        if forgotten - now.mono < Span(FORGOTTEN.0 * u64::from(TOO_MANY)) {
            put(&mut self.offenders, peer, forgotten, now);
            return false;
        }
        put(&mut self.banned, peer, now.mono + BANNED, now);
        true
    }

    /// Whether a peer is kept out.
    pub(crate) fn is_banned(&self, peer: &PeerId, now: Now) -> bool {
        self.banned.get(peer).is_some_and(|until| *until > now.mono)
    }
}

/// Over the cap the one that ends first goes.
fn put(table: &mut BTreeMap<PeerId, Mono>, peer: PeerId, until: Mono, now: Now) {
    if table.len() >= MOST && !table.contains_key(&peer) {
        table.retain(|_, until| *until > now.mono);
    }
    if table.len() >= MOST && !table.contains_key(&peer) {
        let first = table.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer);
        first.and_then(|first| table.remove(&first));
    }
    table.insert(peer, until);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::time::Wall;

    fn at(seconds: u64) -> Now {
        Now { mono: Mono(0) + Span::secs(seconds), wall: Wall(0) }
    }

    #[test]
    fn a_hundred_offences_at_once_are_too_many_and_one_a_second_is_not() {
        let (mut conduct, [a, b, c]) = (Conduct::default(), [(); 3].map(|()| PeerId::random()));
        for _ in 1..TOO_MANY {
            assert!(!conduct.offended(a, 1, at(0)));
        }
        assert!(conduct.offended(a, 1, at(0)) && conduct.is_banned(&a, at(0)));
        assert!(conduct.offended(b, u32::MAX, at(0)), "100,000 in one message are as many");
        for second in 0..1_000 {
            assert!(!conduct.offended(c, 1, at(second)));
        }
        assert!(conduct.is_banned(&a, at(599)) && !conduct.is_banned(&a, at(600)) && !conduct.is_banned(&c, at(0)));
        assert!(!conduct.offended(a, 1, at(600)), "it starts anew");
    }

    #[test]
    fn the_tables_have_a_bound() {
        let mut conduct = Conduct::default();
        for _ in 0..MOST + 10 {
            conduct.offended(PeerId::random(), 1, at(0));
            conduct.offended(PeerId::random(), TOO_MANY, at(0));
        }
        assert_eq!((conduct.offenders.len(), conduct.banned.len()), (MOST, MOST));
    }
}
