//! Who has what we cannot have: the process behind a locked file or a port, as far as `/proc` tells.
//!
//! Only for the words of an error: nothing is decided by it. Another system, another user's process, another container:
//! then it is not known, and the error says so.

use std::fmt;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    /// What its command is called; empty if that cannot be read.
    name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        // Whoever runs it chose its name.
        if self.name.is_empty() { Ok(()) } else { write!(f, " ({})", self.name.escape_debug()) }
    }
}

impl Holder {
    fn new(pid: u32) -> Self {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self { pid, name: name.trim_end().to_owned() }
    }

    /// Who has locked this file.
    pub(crate) fn of_lock(file: &File) -> Option<Self> {
        let file = file.metadata().ok()?;
        lock_holder(&fs::read_to_string("/proc/locks").ok()?, file.ino()).map(Self::new)
    }

    /// Who listens on this TCP port or has this UDP port.
    pub(crate) fn of_port(address: SocketAddr, udp: bool) -> Option<Self> {
        let tables = if udp { ["udp", "udp6"] } else { ["tcp", "tcp6"] };
        let sockets: Vec<u64> = tables
            .iter()
            .filter_map(|table| fs::read_to_string(format!("/proc/net/{table}")).ok())
            .flat_map(|table| sockets_at(&table, address, udp))
            .collect();
        if sockets.is_empty() {
            return None;
        }
        let links: Vec<_> = sockets.iter().map(|inode| format!("socket:[{inode}]")).collect();
        let mut pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.find(|pid| has_open(*pid, &links)).map(Self::new)
    }
}

/// Finds the exclusive lock on a file in the text of `/proc/locks`. Devices are left out: what stands there and what
/// `stat` says differ on some file systems. Two files of the same number are nobody's then.
fn lock_holder(locks: &str, inode: u64) -> Option<u32> {
    let mut pids = locks.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, _, access) = (words.next()?, words.next()?, words.next()?);
        // One in another container has the number 0 or -1. Those that wait stand behind an arrow, and are not meant.
        let pid = words.next()?.parse().ok().filter(|pid| *pid > 0)?;
        let (_, number) = words.next()?.rsplit_once(':')?;
        (kind == "FLOCK" && access == "WRITE" && number.parse() == Ok(inode)).then_some(pid)
    });
    let pid = pids.next()?;
    pids.all(|other| other == pid).then_some(pid)
}

/// The sockets in a table of `/proc/net` that keep others from listening at that address.
fn sockets_at(table: &str, wanted: SocketAddr, udp: bool) -> Vec<u64> {
    // 0A is a TCP socket that listens, 07 a UDP socket that is not connected.
    let state = if udp { "07" } else { "0A" };
    let socket = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (at, is_state, inode) = (words.get(1)?, *words.get(3)? == state, words.get(9)?.parse().ok()?);
        let (ip, port) = at.split_once(':')?;
        let (ip, port) = (address(ip)?, u16::from_str_radix(port, 16).ok()?);
        let collides = ip == wanted.ip() || ip.is_unspecified() || wanted.ip().is_unspecified();
        (is_state && collides && port == wanted.port()).then_some(inode)
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// An address as the kernel prints it: words of 4 bytes, each as a number in the machine's own order.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let bytes = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?))
        }
        _ => None,
    }
}

fn has_open(pid: u32, links: &[String]) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let mut targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    targets.any(|target| links.iter().any(|link| Path::new(link) == target))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_table_is_read(text in "\\PC{0,100}", line in "[0-9A-F: a-z]{0,120}") {
            let wanted = SocketAddr::from(([127, 0, 0, 1], 1));
            for text in [text, format!("\n{line}")] {
                let _ = (lock_holder(&text, 1), sockets_at(&text, wanted, false), address(&text));
            }
        }
    }

    #[test]
    fn the_one_who_locks_a_file_is_found() {
        let locks = "1: FLOCK  ADVISORY  WRITE 31088 fe:00:77 0 EOF\n\
                     1: -> FLOCK  ADVISORY  WRITE 4 fe:00:77 0 EOF\n\
                     2: FLOCK  ADVISORY  READ 5 fe:00:78 0 EOF\n\
                     3: POSIX  ADVISORY  WRITE 6 fe:00:79 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 0 fe:00:80 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 7 fe:00:81 0 EOF\n\
                     6: FLOCK  ADVISORY  WRITE 8 fe:01:81 0 EOF\n";
        assert_eq!(lock_holder(locks, 77), Some(31088));
        for other in [78, 79, 80, 81, 82] {
            assert_eq!(lock_holder(locks, other), None, "{other}");
        }
        assert_eq!(lock_holder("garbage\n\n:", 1), None);
    }

    #[test]
    fn addresses_are_read_as_the_kernel_prints_them() {
        let printed = |ip: IpAddr| -> String {
            let bytes = match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let words = bytes.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
            words.map(|word| format!("{word:08X}")).collect()
        };
        for ip in ["127.0.0.1", "0.0.0.0", "10.1.2.3", "::", "::1", "fe80::1:2"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(address(&printed(ip)), Some(ip));
        }
        for wrong in ["", "0100007", "0100007Z", "é0000000"] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn this_process_has_what_it_holds() {
        let me = Some(std::process::id());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = |ip: &str, udp| {
            Holder::of_port(SocketAddr::new(ip.parse().unwrap(), listener.local_addr().unwrap().port()), udp)
        };
        if !Path::new("/proc/net/tcp").exists() {
            return;
        }
        for ip in ["127.0.0.1", "0.0.0.0"] {
            assert_eq!(found(ip, false).map(|holder| holder.pid), me, "{ip}");
        }
        assert_eq!(found("10.9.9.9", false), None);
        assert_eq!(found("127.0.0.1", true), None);

        let file = tempfile::tempfile().unwrap();
        assert_eq!(Holder::of_lock(&file), None);
        file.lock().unwrap();
        let holder = Holder::of_lock(&file).unwrap();
        assert_eq!(Some(holder.pid), me);
        assert!(holder.to_string().contains('('), "{holder}");
    }
}
