//! The time that all processes of a host agree on, waiting for a moment, and what this process has used.

use serde::{Deserialize, Serialize};

const SECOND: u64 = 1_000_000_000;

/// What a process has used. `None` where the system does not tell.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Cost {
    /// Time on processors, in nanoseconds.
    pub(super) cpu: Option<u64>,
    /// The most memory that it had at once, in bytes.
    pub(super) memory: Option<u64>,
}

impl Cost {
    pub(super) fn now() -> Self {
        Self { cpu: cpu(), memory: peak_memory() }
    }

    /// Without the processor time that was used before.
    pub(super) fn since(self, before: Self) -> Self {
        let cpu = self.cpu.zip(before.cpu).map(|(now, then)| now.saturating_sub(then));
        Self { cpu, ..self }
    }
}

/// Nanoseconds since some moment that is the same for all processes of this host.
#[cfg(unix)]
pub(super) fn now() -> u64 {
    nanoseconds(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic))
}

#[cfg(unix)]
fn cpu() -> Option<u64> {
    Some(nanoseconds(rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime)))
}

#[cfg(unix)]
fn nanoseconds(time: rustix::time::Timespec) -> u64 {
    // Neither part is negative on these clocks.
    time.tv_sec.unsigned_abs() * SECOND + time.tv_nsec.unsigned_abs()
}

/// Elsewhere only the time of day is the same for all, and may be set meanwhile.
#[cfg(not(unix))]
pub(super) fn now() -> u64 {
    let time = crate::cli::text::clock().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    time.as_secs() * SECOND + u64::from(time.subsec_nanos())
}

#[cfg(not(unix))]
fn cpu() -> Option<u64> {
    None
}

/// Linux tells it; what `getrusage` says elsewhere has a unit of each system's own.
fn peak_memory() -> Option<u64> {
    peak(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Blocks this thread until then. The timers of tokio count whole milliseconds, which is more than what is measured.
pub(super) fn sleep_until(moment: u64) {
    loop {
        let left = moment.saturating_sub(now());
        if left == 0 {
            return;
        }
        sleep(left);
    }
}

#[cfg(unix)]
fn sleep(nanoseconds: u64) {
    // Less than a second, and then less than a billion nanoseconds, fit whatever the types are here.
    let time = nanoseconds.min(SECOND - 1).try_into().unwrap_or_default();
    let _ = rustix::thread::nanosleep(&rustix::time::Timespec { tv_sec: 0, tv_nsec: time });
}

#[cfg(not(unix))]
#[expect(clippy::disallowed_methods, reason = "the moment is what is waited for")]
fn sleep(nanoseconds: u64) {
    std::thread::sleep(std::time::Duration::from_nanos(nanoseconds));
}

/// Has the kernel wake this thread when it should, not up to 50 us later.
pub(super) fn be_punctual() {
    #[cfg(target_os = "linux")]
    {
        // Without it the figures are a little worse, not wrong.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_wakes_before_the_moment() {
        let moment = now() + 2_000_000;
        sleep_until(moment);
        assert!(now() >= moment);
        sleep_until(0);
    }

    #[test]
    fn the_peak_is_read_in_bytes() {
        assert_eq!(peak("VmPeak:\t  900 kB\nVmHWM:\t   15360 kB\nVmRSS:\t 1 kB\n"), Some(15 * 1024 * 1024));
        assert_eq!(peak("VmRSS:\t 1 kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_has_used_something() {
        let cost = Cost::now();
        assert!(cost.cpu.unwrap() > 0 && cost.memory.unwrap() > 1024 * 1024, "{cost:?}");
        let before = Cost { cpu: Some(cost.cpu.unwrap() - 1), memory: None };
        assert_eq!((cost.since(before).cpu, cost.since(before).memory), (Some(1), cost.memory));
    }
}
