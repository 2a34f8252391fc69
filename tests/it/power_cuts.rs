//! Guaranteed messages between nodes whose disk loses power under load, again and again: none that was accepted is lost.
//!
//! The disk is a file system in a file, which is told to shut down without writing its journal: what was not synced is gone, as
//! when the power goes. `POMBO_CUTS` says how often; a few times without it. Where the tests may not mount one, this says so and
//! is over.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::delivery_kills::{Pair, rounds};
use crate::support::Turn;

const CUTS: usize = 3;
/// Within that the system lets go of a disk when its users are gone.
const LET_GO: Duration = Duration::from_secs(20);

/// Tells the file system of a directory to shut down, without a word to its journal: `EXT4_IOC_SHUTDOWN` with
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`.
///
/// Prints the time before, in nanoseconds since 1970: what is synced while the file system goes down may be lost, though it is told
/// to be there. Where the power goes, nobody is left to tell anything.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys, time; disk = os.open(sys.argv[1], os.O_RDONLY); \
    print(time.time_ns(), flush=True); fcntl.ioctl(disk, 0x8004587d, struct.pack('I', 2))";

/// A disk of its own, with a file system on it.
struct Disk {
    dir: TempDir,
}

/// Runs a command, and says what it said if it failed.
fn run(command: &mut Command) -> Result<(), String> {
    let done = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() { Ok(()) } else { Err(format!("{command:?}: {}: {}", done.status, said.trim())) }
}

impl Disk {
    fn new() -> Result<Self, String> {
        let disk = Self { dir: tempfile::tempdir().map_err(|error| error.to_string())? };
        std::fs::create_dir(disk.place()).map_err(|error| error.to_string())?;
        let image = std::fs::File::create(disk.image()).map_err(|error| error.to_string())?;
        image.set_len(256 << 20).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.image()))?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// Where its files are.
    fn place(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.place()))
    }

    /// Returns when that was.
    fn lose_power(&self) -> u64 {
        let done = Command::new("python3").args(["-c", SHUT_DOWN]).arg(self.place()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().parse().unwrap()
    }

    /// The power is back. Those who used it are gone.
    fn return_power(&self) {
        let until = Instant::now() + LET_GO;
        while let Err(busy) = run(Command::new("umount").arg(self.place())) {
            assert!(Instant::now() < until, "{busy}");
        }
        // It mends what it finds, and says so by its exit code.
        let _mended = run(Command::new("e2fsck").arg("-p").arg(self.image()));
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone = run(Command::new("umount").args(["-l"]).arg(self.place()));
    }
}

fn can_cut(place: &Path) -> Result<(), String> {
    run(Command::new("python3").args(["-c", "import fcntl"]))?;
    if place.is_dir() { Ok(()) } else { Err("there is no place for a disk".to_owned()) }
}

#[test]
fn nothing_that_was_accepted_is_lost_when_the_power_goes() {
    let _turn = Turn::shared();
    let disk = match Disk::new().and_then(|disk| can_cut(&disk.place()).map(|()| disk)) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("SKIPPED: no disk can be mounted here: {why}"),
    };
    let cuts = rounds("POMBO_CUTS", CUTS);
    let mut pair = Pair::start(&disk.place().join("data"));
    for cut in 0..cuts {
        pair.work(if cut % 2 == 0 { "accepted" } else { "acknowledged" });
        let then = Some(disk.lose_power());
        pair.kill_sender();
        pair.recipient.kill();
        disk.return_power();
        pair.restart_sender(then);
        pair.restart_recipient(then);
    }
    pair.finish(&format!("{cuts} power cuts"));
}
