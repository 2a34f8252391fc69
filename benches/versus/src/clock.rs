//! The clock that all processes of the host share, and what this process has used.

use rustix::time::{ClockId, Timespec, clock_gettime};

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds, the same for all processes.
pub(crate) fn now() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds of processor time.
pub(crate) fn cpu() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec.unsigned_abs() * SECOND + time.tv_nsec.unsigned_abs()
}

/// Blocks this thread until then.
pub(crate) fn sleep_until(moment: u64) {
    loop {
        let left = moment.saturating_sub(now());
        if left == 0 {
            return;
        }
        let time = Timespec { tv_sec: 0, tv_nsec: i64::try_from(left.min(SECOND - 1)).unwrap_or_default() };
        let _ = rustix::thread::nanosleep(&time);
    }
}

/// Has the kernel wake this thread when it should, not up to 50 us later.
pub(crate) fn be_punctual() {
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// The most memory that a process has had since it started, or since it was last forgotten, in bytes.
pub(crate) fn peak_memory(pid: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Begins the count of a process's most memory anew.
pub(crate) fn forget_peak(pid: u32) {
    // Not allowed everywhere: then it is the most since its start.
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}
