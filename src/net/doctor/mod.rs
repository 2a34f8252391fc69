//! The doctor's probes: each does what a node would do, here and now, and says what came of it.
//!
//! Each probe has a file, and returns plain [`Finding`]s. Those that need whole nodes are in `api/doctor`. What is here
//! changes nothing that lasts, ends within [`LIMIT`], and is seen by running nodes as a call of a node that hangs up at once.
//! Must not: make keys or secrets, take a node's place, or enter anybody's roster.

pub use finding::{Finding, Probe, Verdict};

pub(crate) mod clock;
mod finding;
pub(crate) mod ground;
pub(crate) mod knock;
pub(crate) mod limits;
pub(crate) mod local;
pub(crate) mod mdns;
pub(crate) mod ports;
pub(crate) mod seek;

use std::io;
use std::time::Duration;

use tokio::time::timeout;

use crate::net::access::MeshAccess;
use crate::net::files;

/// How long a probe may take. What has not answered by then does not work.
pub(crate) const LIMIT: Duration = Duration::from_millis(4_500);

/// Work with files, which may be on a disk that does not answer: off the task, and not waited for beyond the limit.
pub(crate) async fn of_files<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    timeout(LIMIT, tokio::task::spawn_blocking(work)).await.ok()?.ok()
}

/// What a probe finds, or that it did not find it in time.
pub(crate) async fn in_time(probe: Probe, work: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    within(LIMIT, probe, work).await
}

async fn within(limit: Duration, probe: Probe, work: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    let late = || vec![Finding::fails(probe, "", format!("nothing came of it within {:.1} s", limit.as_secs_f64()))];
    timeout(limit, work).await.unwrap_or_else(|_| late())
}

/// Of several ways of which a node needs one, each is vital if none works.
pub(crate) fn one_is_vital(findings: Vec<Finding>) -> Vec<Finding> {
    let none_works = findings.iter().all(|finding| finding.verdict != Verdict::Works);
    findings.into_iter().map(|finding| if none_works { finding.vital() } else { finding }).collect()
}

/// A mesh that nobody else is in.
pub(crate) fn secret_mesh() -> io::Result<MeshAccess> {
    Ok(MeshAccess::private("doctor", files::random()?))
}

/// The first of these, and how many more there are.
pub(crate) fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    const MOST: usize = 8;
    let more = names.len().saturating_sub(MOST);
    let mut text = names.take(MOST).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_only_the_first_are_listed() {
        let names = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>().into_iter();
        assert_eq!(listed(names(0)), "");
        assert_eq!(listed(names(2)), "0, 1");
        assert_eq!(listed(names(10)), "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
    }

    #[test]
    fn of_several_ways_one_is_enough() {
        let works = Finding::works(Probe::Link, "TCP", "");
        let fails = Finding::fails(Probe::Link, "QUIC", "");
        assert!(one_is_vital(vec![works, fails.clone()]).iter().all(|finding| !finding.vital));
        assert!(one_is_vital(vec![fails.clone(), fails]).iter().all(|finding| finding.vital));
    }

    #[tokio::test]
    async fn what_does_not_end_does_not_work() {
        let found = within(Duration::from_millis(100), Probe::Mdns, std::future::pending()).await;
        assert_eq!((found.len(), found[0].verdict), (1, Verdict::Fails));
        assert!(found[0].detail.contains("0.1 s"), "{found:?}");
    }
}
