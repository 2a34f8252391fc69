//! Roster records that were verified a moment ago, so that each is once and not for every neighbour that passes it on.
//!
//! Only what was found right is remembered, by a hash of all its bytes, the signature included: what differs in a bit is
//! verified.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::mesh::checked::Verified;

/// Records remembered for sure. They come from all neighbours within a second or so; a mesh of 10,000 nodes has 500 a second.
const RECENT: usize = 1_024;

/// The last ones. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent(Arc<Mutex<Generations>>);

#[derive(Debug, Default)]
struct Generations {
    young: BTreeSet<[u8; blake3::OUT_LEN]>,
    old: BTreeSet<[u8; blake3::OUT_LEN]>,
}

impl Verified for Recent {
    fn has(&self, record: &[u8]) -> bool {
        let hash = blake3::hash(record);
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.young.contains(hash.as_bytes()) || all.old.contains(hash.as_bytes())
    }

    fn add(&self, record: &[u8]) {
        let hash = blake3::hash(record);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.young.len() >= RECENT {
            all.old = std::mem::take(&mut all.young);
        }
        all.young.insert(*hash.as_bytes());
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
    fn what_differs_in_a_bit_is_another() {
        let recent = Recent::default();
        recent.add(&[1; 200]);
        let mut forged = [1; 200];
        forged[199] ^= 1;
        assert!(recent.has(&[1; 200]) && !recent.has(&forged));
    }
}
