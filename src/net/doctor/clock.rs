//! The clock, against what is known of the time. Libp2p needs none; pombo's starts are numbered by it, and messages bear it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::ground::Own;
use super::{Finding, Probe};
use crate::net::access::MeshAccess;
use crate::net::clock::Clock;
use crate::net::remembered::Remembered;

/// Before pombo was written: 2024-01-01.
const EPOCH: Duration = Duration::from_secs(1_704_067_200);
/// Clocks of good hosts differ by less. As much, and what short-lived nodes publish is taken for something old.
const TOLERANCE: Duration = Duration::from_secs(120);

/// What is known of the time, each since 1970.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    now: Duration,
    /// When this program was installed.
    installed: Option<Duration>,
    /// When this node was last started.
    started: Option<Duration>,
    /// The latest that another node of the mesh wrote, as far as this one remembers.
    seen: Option<Duration>,
}

/// Blocks.
pub(crate) fn probe(own: Option<&Own>, access: Option<&MeshAccess>) -> Finding {
    let now = Clock::start().now().wall;
    let started = own.and_then(|own| own.incarnation).map(Duration::from_millis);
    let place = own.and_then(|own| own.place.clone());
    let seen = place.zip(access).and_then(|(place, access)| last_seen(place, access));
    judge(Known { now: Duration::from_micros(now.0), installed: installed(), started, seen })
}

fn installed() -> Option<Duration> {
    let written = std::env::current_exe().ok()?.metadata().ok()?.modified().ok()?;
    written.duration_since(SystemTime::UNIX_EPOCH).ok()
}

/// When the latest of the records was written that a node has kept.
fn last_seen(place: PathBuf, access: &MeshAccess) -> Option<Duration> {
    let records = Remembered::new(place, access.id).load(access.id);
    records.iter().map(|record| Duration::from_micros(record.record.time)).max()
}

fn judge(known: Known) -> Finding {
    let Known { now, installed, started, seen } = known;
    let behind = |time: Option<Duration>| time.filter(|time| now + TOLERANCE < *time).map(|time| time - now);
    let wrong = "what short-lived nodes here publish is taken for something old elsewhere";
    let detail = if now < EPOCH {
        format!("the clock stands before 2024: {wrong}, and messages bear a wrong time")
    } else if let Some(by) = behind(installed) {
        format!("the clock is {} before the time at which this program was installed: {wrong}", span(by))
    } else if let Some(by) = behind(started) {
        let lost = "should the data directory get lost, others would go on listening to the earlier start";
        format!("the clock is {} before this node's last start: {wrong}; {lost}", span(by))
    } else if let Some(by) = behind(seen) {
        format!("the clock is at least {} behind that of another node of the mesh: {wrong}", span(by))
    } else {
        return Finding::works(Probe::Clock, "", "agrees with all that is known of the time");
    };
    Finding::fails(Probe::Clock, "", detail).remedy("set the clock, or have it set: timedatectl set-ntp true")
}

/// `3 min`, `5 h`, `12 days`.
fn span(time: Duration) -> String {
    match time.as_secs() / 60 {
        minutes if minutes < 120 => format!("{minutes} min"),
        minutes if minutes < 48 * 60 => format!("{} h", minutes / 60),
        minutes => format!("{} days", minutes / (24 * 60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::doctor::Verdict;

    #[test]
    fn a_clock_is_wrong_that_stands_before_something_that_has_been() {
        let now = EPOCH + Duration::from_secs(1_000_000);
        let at = |seconds| Some(now + Duration::from_secs(seconds));
        let good = Known { now, installed: Some(EPOCH), started: at(0), seen: at(100) };
        assert_eq!(judge(good).verdict, Verdict::Works);
        assert_eq!(judge(Known { now, ..Known::default() }).verdict, Verdict::Works);
        for (known, said) in [
            (Known { now: Duration::ZERO, ..good }, "before 2024"),
            (Known { installed: at(3 * 3600), ..good }, "is 3 h before the time at which this program was installed"),
            (Known { started: at(10 * 24 * 3600), ..good }, "is 10 days before this node's last start"),
            (Known { seen: at(200), ..good }, "at least 3 min behind"),
        ] {
            let found = judge(known);
            assert!(found.verdict == Verdict::Fails && found.detail.contains(said), "{found:?}");
            assert!(!found.vital && found.remedy.is_some(), "{found:?}");
        }
    }
}
