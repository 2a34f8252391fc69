//! Files that several processes may touch at once: made whole or not at all, readable by their owner only.
//!
//! Must not: know what is in them.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
fn dir_of(path: &Path) -> &Path {
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

/// A lock that names its holder. Held until dropped; a process that dies lets go of it.
#[derive(Debug)]
pub(super) struct Lock(File);

/// What came of trying to take a [`Lock`].
pub(super) enum Attempt {
    Taken(Lock),
    /// Somebody has it: the process id, unless it has not written that yet.
    Held(Option<u32>),
}

impl Lock {
    pub(super) fn attempt(path: &Path) -> io::Result<Attempt> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.rewind()?;
                file.write_all(std::process::id().to_string().as_bytes())?;
                Ok(Attempt::Taken(Self(file)))
            }
            Err(TryLockError::WouldBlock) => {
                let text = io::read_to_string(file.take(32)).unwrap_or_default();
                Ok(Attempt::Held(text.trim().parse().ok()))
            }
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
}
