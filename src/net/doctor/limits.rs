//! What the system allows a node: open files, room on the disk, room for datagrams that wait.

use std::net::UdpSocket;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::statvfs::statvfs;

use super::{Finding, Probe};
use crate::net::behaviour::{CONNECTIONS, PENDING};
use crate::net::doorstep;
use crate::net::remembered::LIMIT;

/// All connections, those that are being made, those at the door, and some for listeners, mDNS, files and the runtime.
const FILES: u64 = CONNECTIONS as u64 + PENDING as u64 + doorstep::STREAMS as u64 + 64;
/// With so few a node links to a handful.
const FEW_FILES: u64 = 64;
/// What a node may write down of the roster, in the old and the new file.
const ROOM: u64 = 2 * LIMIT as u64;
/// What Linux gives by itself. QUIC is slow with less, for it loses what has no room.
const DATAGRAMS: usize = 208 * 1024;

/// What one probe saw, or why it did not.
type Seen<T> = Result<T, String>;

/// Looks at all three. Blocks.
pub(crate) fn probe(disk: Option<&Path>) -> Vec<Finding> {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| error.to_string());
    let mut findings = vec![open_files(files)];
    if let Some(disk) = disk {
        let room = statvfs(disk).map(|disk| wide(disk.blocks_available()) * wide(disk.fragment_size()));
        findings.push(room_on(disk, room.map_err(|error| error.to_string())));
    }
    if cfg!(feature = "quic") {
        findings.push(datagrams(waiting()));
    }
    findings
}

/// How wide the system's numbers are differs.
fn wide(number: impl Into<u64>) -> u64 {
    number.into()
}

/// What a socket of QUIC gets: libp2p asks for no more.
fn waiting() -> Seen<usize> {
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"));
    let socket = socket.map_err(|error| error.to_string())?;
    getsockopt(&socket, sockopt::RcvBuf).map_err(|error| error.to_string())
}

fn open_files(limits: Seen<(u64, u64)>) -> Finding {
    const WHAT: &str = "open files";
    match limits {
        Err(error) => Finding::not_tried(Probe::Limits, WHAT, error),
        Ok((soft, _)) if soft >= FILES => {
            Finding::works(Probe::Limits, WHAT, format!("{soft} are allowed, a node with many links needs {FILES}"))
        }
        Ok((soft, hard)) => {
            let detail = format!("only {soft} are allowed, a node with many links needs {FILES}");
            let finding = Finding::fails(Probe::Limits, WHAT, detail);
            let finding = if soft < FEW_FILES { finding.vital() } else { finding };
            finding.remedy(if hard >= FILES {
                format!("run: ulimit -n {}", hard.min(1024))
            } else {
                format!("raise the limit for this user, LimitNOFILE= in a unit of systemd: not above {hard} now")
            })
        }
    }
}

fn room_on(disk: &Path, room: Seen<u64>) -> Finding {
    let what = format!("room at {}", disk.display());
    match room {
        Err(error) => Finding::not_tried(Probe::Limits, what, error),
        Ok(room) if room >= ROOM => Finding::works(Probe::Limits, what, format!("{} MiB are free", room >> 20)),
        Ok(room) => {
            let detail = format!(
                "{} MiB are free: what a node remembers of a large mesh takes up to {}",
                room >> 20,
                ROOM >> 20
            );
            Finding::fails(Probe::Limits, what, detail).remedy("make room on that disk")
        }
    }
}

fn datagrams(room: Seen<usize>) -> Finding {
    const WHAT: &str = "datagrams";
    match room {
        Err(error) => Finding::not_tried(Probe::Limits, WHAT, error),
        Ok(room) if room >= DATAGRAMS => {
            Finding::works(Probe::Limits, WHAT, format!("{} KiB may wait for QUIC to read them", room >> 10))
        }
        Ok(room) => {
            let detail = format!("only {} KiB may wait: QUIC loses what comes meanwhile", room >> 10);
            Finding::fails(Probe::Limits, WHAT, detail)
                .remedy(format!("run as root: sysctl net.core.rmem_default={DATAGRAMS} net.core.rmem_max={DATAGRAMS}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::doctor::Verdict;

    #[test]
    fn few_open_files_are_told_and_very_few_are_vital() {
        let judged = |soft, hard| {
            let found = open_files(Ok((soft, hard)));
            (found.verdict, found.vital, found.remedy.unwrap_or_default())
        };
        assert_eq!(judged(1024, 4096), (Verdict::Works, false, String::new()));
        assert_eq!(judged(256, 4096), (Verdict::Fails, false, "run: ulimit -n 1024".to_owned()));
        assert_eq!(judged(32, 512), (Verdict::Fails, true, "run: ulimit -n 512".to_owned()));
        assert!(judged(256, 256).2.contains("LimitNOFILE"));
    }

    #[test]
    fn a_disk_that_is_nearly_full_and_a_small_buffer_are_told() {
        assert_eq!(room_on(Path::new("/d"), Ok(ROOM)).verdict, Verdict::Works);
        let full = room_on(Path::new("/d"), Ok(5 << 20));
        assert!(full.verdict == Verdict::Fails && full.detail.starts_with("5 MiB are free"), "{full:?}");
        assert_eq!(datagrams(Ok(DATAGRAMS)).verdict, Verdict::Works);
        let small = datagrams(Ok(4096));
        assert!(small.verdict == Verdict::Fails && small.remedy.is_some(), "{small:?}");
        assert_eq!(datagrams(Err("no".into())).verdict, Verdict::NotTried);
    }

    #[test]
    fn this_system_tells_its_limits() {
        let dir = tempfile::tempdir().unwrap();
        let found = probe(Some(dir.path()));
        assert!(found.iter().all(|finding| finding.verdict != Verdict::NotTried), "{found:?}");
        assert_eq!(probe(None).len() + 1, found.len());
    }
}
