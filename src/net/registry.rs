//! The same-host registry: how nodes of one user on one machine find each other without any network.
//!
//! A directory with one file per running node, `<mesh id>-<peer id>.json`. Its writer holds an exclusive lock on it for as
//! long as it lives, so whoever gets the lock knows that the writer is dead: no process id is trusted, none can be reused.
//!
//! One rule keeps the living from being removed: **who replaces or removes the file at a path holds the lock of the file
//! that is there now**, and has looked at the path again after it got the lock. New files are locked before they get their
//! name, by a hard link if nothing is there, which fails if another was faster.
//!
//! Must not: dial, or believe a file that is not from this boot of this machine.

mod entry;

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

use crate::MeshId;
use crate::net::files;
use crate::net::holder::Holder;
use entry::{Entry, Place};

/// Far above what an entry with hundreds of addresses takes.
const MAX_FILE: u64 = 64 * 1024;

/// How often, and how long apart, to try for a file that another process is just cleaning away.
const ATTEMPTS: usize = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// Why the registry cannot be used. A node runs without it, but finds no neighbours on its own machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("cannot {what} {}: {source}; neighbours on this machine must be given as addresses", .path.display())]
    Io {
        /// What was tried, a verb.
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is not a directory of this user; somebody else may have put it there: remove it", .path.display())]
    NotOurs { path: PathBuf },
    #[error(
        "this node runs already, as {}: stop that one, or start this one under another name or key",
        .by.as_ref().map_or_else(|| format!("{} shows", .path.display()), ToString::to_string)
    )]
    Held { path: PathBuf, by: Option<Holder> },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.to_owned();
    move |source| RegistryError::Io { what, path, source }
}

/// The registry's directory, made if it is not there: `$XDG_RUNTIME_DIR/pombo`, or else `pombo-<uid>` in the system's
/// temporary directory.
///
/// # Errors
///
/// If it cannot be made, or what is there is a link, no directory, or another user's.
pub(crate) fn directory() -> Result<PathBuf, RegistryError> {
    locate(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from), &std::env::temp_dir())
}

fn locate(runtime: Option<PathBuf>, temp: &Path) -> Result<PathBuf, RegistryError> {
    // Under sudo it may be another user's, who could not use what we make there.
    let runtime = runtime.filter(|dir| dir.is_absolute()).and_then(|dir| {
        let uid = own_uid(&dir).ok()?;
        (fs::metadata(&dir).ok()?.uid() == uid).then(|| (dir.join("pombo"), uid))
    });
    let in_runtime = runtime.map(|(path, uid)| open(&path, uid).map(|()| path));
    let path = match in_runtime {
        Some(Err(RegistryError::Io { .. })) | None => {
            let uid = own_uid(temp).map_err(failed("write to", temp))?;
            let path = temp.join(format!("pombo-{uid}"));
            open(&path, uid)?;
            path
        }
        // A file system that has become full or read-only since: those who came before are still to be found there.
        Some(opened) => opened?,
    };
    files::sweep(&path, "");
    Ok(path)
}

/// Makes the directory and makes sure that it is one, is ours, and nobody else can enter.
fn open(path: &Path, uid: u32) -> Result<(), RegistryError> {
    match files::private_dir(path) {
        Ok(()) => {}
        // A link or a file: said below, and better.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("make", path)(error)),
    }
    let found = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    if !found.is_dir() || found.uid() != uid {
        return Err(RegistryError::NotOurs { path: path.to_owned() });
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed("close to others", path))?;
    }
    Ok(())
}

/// Who we are, as the file system sees it: the owner of our entry in `/proc`, or of a file that we have just made.
fn own_uid(dir: &Path) -> io::Result<u32> {
    if let Ok(own) = fs::metadata("/proc/self") {
        return Ok(own.uid());
    }
    let (path, file) = files::write_aside(&dir.join("pombo-uid"), b"")?;
    let uid = file.metadata().map(|metadata| metadata.uid());
    let _ = fs::remove_file(path);
    uid
}

/// What a node tells its neighbours on this host about itself.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    pub(crate) peer: PeerId,
    /// The node's human name.
    pub(crate) name: String,
    /// The mesh as this host calls it.
    pub(crate) mesh: String,
    pub(crate) mesh_id: MeshId,
    /// Where it listens.
    pub(crate) addresses: Vec<Multiaddr>,
    /// A long-running node, not a verb that is about to end.
    pub(crate) node: bool,
}

/// This process's entry. Gone when dropped, and taken for dead when the process is.
#[derive(Debug)]
pub(crate) struct Registration {
    path: PathBuf,
    card: Card,
    /// The file at `path`, locked.
    file: File,
}

impl Registration {
    /// Enters a node.
    ///
    /// # Errors
    ///
    /// If another process has entered the same node and lives, or the file cannot be written.
    pub(crate) fn write(dir: &Path, card: Card) -> Result<Self, RegistryError> {
        let path = file_of(dir, card.mesh_id, card.peer);
        let (aside, file) = write_locked(&path, &card)?;
        let placed = place(&aside, &path);
        let _ = fs::remove_file(&aside);
        placed?;
        Ok(Self { path, card, file })
    }

    /// Enters the addresses that the node listens on now.
    ///
    /// # Errors
    ///
    /// If the file cannot be written; then the old addresses stand.
    pub(crate) fn update(&mut self, addresses: Vec<Multiaddr>) -> Result<(), RegistryError> {
        let card = Card { addresses, ..self.card.clone() };
        let (aside, file) = write_locked(&self.path, &card)?;
        // We hold the lock of the file that this replaces.
        if let Err(error) = fs::rename(&aside, &self.path) {
            let _ = fs::remove_file(&aside);
            return Err(failed("replace", &self.path)(error));
        }
        (self.card, self.file) = (card, file);
        Ok(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // The lock is still ours. If somebody has removed the file by hand and another process put its own there, that
        // one stays.
        if is_at(&self.file, &self.path).unwrap_or(false)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "cannot leave the registry");
        }
    }
}

fn file_of(dir: &Path, mesh: MeshId, peer: PeerId) -> PathBuf {
    dir.join(format!("{mesh}-{peer}.json"))
}

/// Where a node that is entered here has its socket. Short, since few bytes name a socket.
pub(crate) fn socket(dir: &Path, mesh: MeshId, peer: PeerId) -> PathBuf {
    socket_beside(&file_of(dir, mesh, peer))
}

fn socket_beside(entry: &Path) -> PathBuf {
    let name = blake3::hash(entry.file_stem().unwrap_or_default().as_encoded_bytes());
    entry.with_file_name(format!("{}.sock", files::to_hex(&name.as_bytes()[..8])))
}

/// Writes an entry beside its place and locks it.
fn write_locked(path: &Path, card: &Card) -> Result<(PathBuf, File), RegistryError> {
    let text = Entry::new(card, Place::here()).to_json().map_err(failed("write", path))?;
    let (aside, file) = files::write_aside(path, text.as_bytes()).map_err(failed("write", path))?;
    if let Err(error) = file.lock() {
        let _ = fs::remove_file(&aside);
        return Err(failed("lock", path)(error));
    }
    Ok((aside, file))
}

/// Gives a locked file its name, in place of a dead process's if there is one.
#[expect(clippy::disallowed_methods, reason = "another process is about to end; nothing tells when")]
fn place(aside: &Path, path: &Path) -> Result<(), RegistryError> {
    for _ in 0..ATTEMPTS {
        match fs::hard_link(aside, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("write", path)(error)),
        }
        match bury(path).map_err(failed("remove", path))? {
            Fate::Alive => std::thread::sleep(PAUSE),
            Fate::Buried | Fate::Replaced => {}
        }
    }
    let by = File::open(path).ok().and_then(|file| Holder::of_lock(&file));
    Err(RegistryError::Held { path: path.to_owned(), by })
}

/// What became of the writer of an entry.
enum Fate {
    /// It holds its file, or for a moment another process does that buries it.
    Alive,
    /// It is dead, and the file removed.
    Buried,
    /// Its file has been replaced or removed while we looked.
    Replaced,
}

/// Removes the file if its writer is dead.
fn bury(path: &Path) -> io::Result<Fate> {
    let Some(file) = gone_is_none(File::open(path))? else { return Ok(Fate::Replaced) };
    match file.try_lock() {
        Ok(()) if is_at(&file, path)? => {
            // Most have none. While the entry is there, and locked, it is nobody else's.
            let _ = fs::remove_file(socket_beside(path));
            fs::remove_file(path)?;
            Ok(Fate::Buried)
        }
        Ok(()) => Ok(Fate::Replaced),
        Err(TryLockError::WouldBlock) => Ok(Fate::Alive),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether `path` still leads to this very file.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (open, Some(named)) = (file.metadata()?, gone_is_none(fs::symlink_metadata(path))?) else { return Ok(false) };
    Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
}

fn gone_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The living neighbours in this mesh on this host, but for `own`. Dead ones are removed.
pub(crate) fn scan(dir: &Path, mesh: MeshId, own: PeerId) -> Vec<Card> {
    living(dir, &Place::here()).into_iter().filter(|card| card.mesh_id == mesh && card.peer != own).collect()
}

/// Every living node on this host, of whatever mesh.
pub(crate) fn census(dir: &Path) -> Vec<Card> {
    living(dir, &Place::here())
}

/// Whether a process runs that node in that mesh, and which one, if the system tells.
pub(crate) fn holder(dir: &Path, mesh: MeshId, peer: PeerId) -> Option<Option<Holder>> {
    let file = File::open(file_of(dir, mesh, peer)).ok()?;
    matches!(file.try_lock(), Err(TryLockError::WouldBlock)).then(|| Holder::of_lock(&file))
}

/// The mesh of the user's long-running node on this host, if there is one: what a verb joins that names none.
///
/// With nodes of several meshes, the first by name: an answer that does not change from one verb to the next.
pub(crate) fn running_node_mesh(dir: &Path) -> Option<String> {
    living(dir, &Place::here()).into_iter().filter(|card| card.node).map(|card| card.mesh).min()
}

/// Every entry of a living process on this host. What cannot be read is passed over: other versions write here too.
fn living(dir: &Path, here: &Place) -> Vec<Card> {
    let files = match fs::read_dir(dir) {
        Ok(files) => files,
        Err(error) => {
            tracing::debug!(dir = %dir.display(), %error, "cannot read the registry");
            return Vec::new();
        }
    };
    let paths = files.filter_map(|file| Some(file.ok()?.path()));
    let entries = paths.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    entries
        .filter_map(|path| {
            read(&path, here)
                .inspect_err(|error| tracing::debug!(path = %path.display(), %error, "passed over an entry"))
                .ok()?
        })
        .collect()
}

/// The entry in this file; `None` if it is of another host, or dead.
fn read(path: &Path, here: &Place) -> io::Result<Option<Card>> {
    for _ in 0..ATTEMPTS {
        // A link, a pipe or a device could make us wait or read what is not ours.
        if !fs::symlink_metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file"));
        }
        let text = io::read_to_string(File::open(path)?.take(MAX_FILE))?;
        let Some(card) = Entry::from_json(&text)?.card(here)? else { return Ok(None) };
        match bury(path)? {
            Fate::Alive => return Ok(Some(card)),
            Fate::Buried => return Ok(None),
            // What we have read is of yesterday.
            Fate::Replaced => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "replaced again and again"))
}

#[cfg(test)]
mod tests;
