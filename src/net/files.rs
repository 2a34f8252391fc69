//! Files that several processes may touch at once: made whole or not at all, readable by their owner only.
//!
//! Must not: know what is in them.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::debug;

use crate::net::holder::Holder;

/// How old a file has to be that somebody may still be writing, to be taken for left over.
const LEFT_OVER: Duration = Duration::from_secs(60);

/// Random bytes from the operating system.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// Lower-case hexadecimal digits.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a directory, and those above it, that only its owner may enter. One that is there already stays as it is.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a new file that only its owner may read, under a name beside `path`. It need not be on the disk yet.
///
/// The caller moves it into place, or removes it.
pub(super) fn write_aside(path: &Path, bytes: &[u8]) -> io::Result<(PathBuf, File)> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", to_hex(&random::<8>()?)));
    let aside = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    match file.write_all(bytes) {
        Ok(()) => Ok((aside, file)),
        Err(error) => {
            let _ = fs::remove_file(&aside);
            Err(error)
        }
    }
}

/// Replaces the file: afterwards it holds `bytes`, also after a power cut; before that, what it held before.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (aside, file) = write_aside(path, bytes)?;
    if let Err(error) = file.sync_all().and_then(|()| fs::rename(&aside, path)) {
        let _ = fs::remove_file(&aside);
        return Err(error);
    }
    sync_dir(path)
}

/// Makes the file unless it is there. Of several processes at once one wins, and none sees half a file.
pub(super) fn make_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (aside, file) = write_aside(path, bytes)?;
    let linked = file.sync_all().and_then(|()| fs::hard_link(&aside, path));
    let _ = fs::remove_file(&aside);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => sync_dir(path),
    }
}

/// A file's name is durable only when its directory is.
fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(dir_of(path))?.sync_all()
}

/// The directory a file is in. `Path::parent` says "" for the current one, which cannot be opened.
pub(super) fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reads a file of at most `limit` bytes. `None` if it is not there.
pub(super) fn read(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(u64::try_from(limit).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The text of a file, at most `limit` bytes of it; `None` if there is no such file.
pub(super) fn read_text(path: &Path, limit: usize) -> io::Result<Option<String>> {
    let text = |bytes| String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
    read(path, limit)?.map(text).transpose()
}

/// Removes what processes that died left beside the files they were writing: of those files in `dir` whose names begin so.
///
/// What is younger than a minute may still be at work.
pub(super) fn sweep(dir: &Path, beginning: &str) {
    let Ok(files) = fs::read_dir(dir) else { return };
    for file in files.flatten() {
        let is_left_over = || {
            let age = file.metadata().ok()?.modified().ok()?.elapsed().ok()?;
            (is_aside(file.file_name().to_str()?, beginning) && age > LEFT_OVER).then_some(())
        };
        if is_left_over().is_some()
            && let Err(error) = fs::remove_file(file.path())
        {
            debug!(path = %file.path().display(), %error, "cannot remove what a process that died left");
        }
    }
}

/// Whether [`write_aside`] gives such names.
fn is_aside(name: &str, beginning: &str) -> bool {
    let random = name.strip_suffix(".tmp").and_then(|name| name.rsplit_once('.'));
    random.is_some_and(|(file, random)| {
        file.starts_with(beginning) && random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Whether a file could not be written although nobody forbids it: a file system that is read-only or full.
pub(super) fn is_unwritable(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), ReadOnlyFilesystem | StorageFull | QuotaExceeded)
}

/// What to do about an error with a file, where there is something that can be said.
pub(super) fn remedy(error: &io::Error) -> &'static str {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    #[expect(clippy::wildcard_enum_match_arm, reason = "the list of what can go wrong is open")]
    match error.kind() {
        PermissionDenied => "; see that it belongs to you",
        ReadOnlyFilesystem => "; name a place that can be written to",
        StorageFull | QuotaExceeded => "; make room on that disk",
        NotFound => "; make its directory first",
        NotADirectory => "; something on that path is no directory",
        _ => "",
    }
}

/// A file that is locked. Held until dropped; a process that dies lets go of it.
#[derive(Debug)]
pub(super) struct Lock(File);

/// What came of trying to take a [`Lock`].
pub(super) enum Attempt {
    Taken(Lock),
    /// Somebody has it: who, if the system tells.
    Held(Option<Holder>),
}

impl Lock {
    /// Locks a file that is there. It need not be writable.
    pub(super) fn attempt(path: &Path) -> io::Result<Attempt> {
        // To write is not needed here, but it is for a lock on some network file systems.
        let file = OpenOptions::new().read(true).write(true).open(path).or_else(|_| File::open(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Attempt::Taken(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(Attempt::Held(Holder::of_lock(&file))),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // To close the file would do, but for a child process that is just being started and has a copy of it.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_bare_file_name_is_in_the_current_directory() {
        for (path, dir) in [("key", "."), ("./key", "."), ("a/key", "a"), ("/key", "/")] {
            assert_eq!(dir_of(Path::new(path)), Path::new(dir));
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let temp = tempfile::TempDir::new().unwrap();
        let path = temp.path().join("file");
        for text in ["one", "two"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        make_once(&path, b"three").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_process_left_that_died_is_swept_away_and_nothing_else() {
        let temp = tempfile::TempDir::new().unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let file = |name: &str, modified: Option<SystemTime>| {
            let file = File::create(temp.path().join(name)).unwrap();
            modified.map(|modified| file.set_modified(modified)).transpose().unwrap();
        };
        let (at_work, _open) = write_aside(&temp.path().join("key"), b"half").unwrap();
        for name in ["key.0123456789abcdef.tmp", "other.0123456789abcdef.tmp", "key.tmp", "key.notes.tmp", "key"] {
            file(name, Some(old));
        }
        let left = || {
            let names = fs::read_dir(temp.path()).unwrap().map(|file| file.unwrap().path());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        sweep(temp.path(), "key");
        let stays =
            ["key", "key.notes.tmp", "key.tmp", "other.0123456789abcdef.tmp"].map(|name| temp.path().join(name));
        assert!(left().is_superset(&stays.clone().into()) && left().contains(&at_work));
        assert_eq!(left().len(), stays.len() + 1);
        sweep(temp.path(), "");
        assert_eq!(left().len(), stays.len());
    }
}
