//! Many commands at once, each a node of its own for a moment.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::process::Process;
use crate::support::user::{OWN, User};

const ROUNDS: usize = 3;
const AT_ONCE: usize = 20;
/// They share the machine, and perhaps with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who publishes for a moment finds others of its kind as well, that are about to end: their word is worth nothing, and what
/// they took would go with them.
#[test]
fn twenty_publishers_at_once_are_all_heard_and_all_told_so() {
    let user = User::new();
    let _nodes: Vec<_> = (0..10).map(|_| user.node("").0).collect();
    let sub = user.sub(&format!("'demo.>' --raw {OWN}"));
    user.wait_for_peers(11, "");
    for round in 0..ROUNDS {
        let publishers: Vec<Process> =
            (0..AT_ONCE).map(|n| user.start(&format!("pub demo.x {round}-{n} --timeout 30s {OWN}"))).collect();
        publishers.into_iter().for_each(|one| drop(one.finish_within(PATIENCE).expect(0)));
        let mut missing: BTreeSet<String> = (0..AT_ONCE).map(|n| format!("{round}-{n}")).collect();
        while !missing.is_empty() {
            let line = sub.line(|_| true);
            assert!(missing.remove(&line), "{line} came twice or was never said; missing: {missing:?}");
        }
    }
}
