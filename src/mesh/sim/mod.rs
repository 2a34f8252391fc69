//! The simulator: many meshes in one process, in virtual time, from one seed.
//!
//! It runs the very code of the product: [`Mesh`], [`Outgoing`], the codec, signing and checking. What it stands in for is
//! libp2p: links that come and go, request-response that is reliable while a link stands, and gossip that loses,
//! duplicates and reorders. Everything that travels is encoded and decoded.

mod calls;
mod errands;
mod faults;
mod lanes;
mod node;
mod post;
mod scenarios;
mod world;

use std::collections::BTreeMap;

/// SplitMix64, as in the mesh itself.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).expect("small")).expect("small")
    }

    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// Runs a scenario for every seed that was asked for: `POMBO_SEED` names one, `POMBO_SEEDS` how many the cheap and random
/// scenarios get, 100 without it. The others get `percent` of that. A seed that fails is printed with the command that
/// replays it.
pub(crate) fn for_seeds(name: &str, percent: u64, scenario: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let number = |variable| std::env::var(variable).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("POMBO_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..(number("POMBO_SEEDS").unwrap_or(100) * percent).div_ceil(100),
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| scenario(seed)) {
            eprintln!(
                "seed {seed} fails. To replay it:\n\n    POMBO_SEED={seed} cargo test --lib {name} -- --nocapture\n"
            );
            std::panic::resume_unwind(panic);
        }
    }
}

/// How many of each.
pub(crate) fn tally<T: Ord>(all: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    all.into_iter().fold(BTreeMap::new(), |mut tally, one| {
        *tally.entry(one).or_default() += 1;
        tally
    })
}
