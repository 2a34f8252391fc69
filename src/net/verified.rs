//! Roster records that were verified a moment ago, so that each is once and not for every neighbour that passes it on.
//!
//! Only what was found right is remembered, by a hash of all its bytes, the signature included: what differs in a bit is
//! verified.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::mesh::checked::Verified;

/// Records remembered for sure. They come from all neighbours within a second or so; a mesh of 10,000 nodes has 500 a second.
const RECENT: usize = 1_024;
/// A small mesh has so few that they would be remembered for an hour: none is for longer than twice this.
const KEPT: Duration = Duration::from_secs(30);

/// The last ones. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent(Arc<Mutex<Generations>>);

#[derive(Debug, Default)]
struct Generations {
    young: BTreeSet<[u8; blake3::OUT_LEN]>,
    old: BTreeSet<[u8; blake3::OUT_LEN]>,
    /// When the first of the young ones came.
    since: Option<Instant>,
}

impl Generations {
    fn add(&mut self, hash: blake3::Hash, now: Instant) {
        if self.young.len() >= RECENT || self.since.is_some_and(|since| now - since >= KEPT) {
            self.old = std::mem::take(&mut self.young);
            self.since = None;
        }
        self.since.get_or_insert(now);
        self.young.insert(*hash.as_bytes());
    }
}

impl Verified for Recent {
    fn has(&self, record: &[u8]) -> bool {
        let hash = blake3::hash(record);
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.young.contains(hash.as_bytes()) || all.old.contains(hash.as_bytes())
    }

    fn add(&self, record: &[u8]) {
        let hash = blake3::hash(record);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(hash, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_and_no_more_than_twice_as_many() {
        let recent = Recent::default();
        let record = |number: usize| number.to_be_bytes();
        for number in 0..5 * RECENT {
            recent.clone().add(&record(number));
            assert!(recent.has(&record(number)) && recent.has(&record(number.saturating_sub(RECENT - 1))));
        }
        assert!((0..5 * RECENT).filter(|number| recent.has(&record(*number))).count() <= 2 * RECENT);
    }

    #[test]
    fn none_is_remembered_for_long() {
        let mut all = Generations::default();
        let began = Instant::now();
        for second in 0..3_600_u32 {
            all.add(blake3::hash(&second.to_be_bytes()), began + Duration::from_secs(second.into()));
            let kept = 2 * usize::try_from(KEPT.as_secs()).expect("it is short");
            assert!(all.young.len() + all.old.len() <= kept, "{second}: {} and {}", all.young.len(), all.old.len());
        }
    }

    #[test]
    fn what_differs_in_a_bit_is_another() {
        let recent = Recent::default();
        recent.add(&[1; 200]);
        let mut forged = [1; 200];
        forged[199] ^= 1;
        assert!(recent.has(&[1; 200]) && !recent.has(&forged));
    }
}
