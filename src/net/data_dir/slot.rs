//! One node's place: its key and incarnation, held by one process at a time.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use libp2p::identity::Keypair;
use tracing::warn;

use super::names::name_of;
use super::{DataDirError, check_name, failed};
use crate::net::files::{self, Attempt, Lock};

/// Names to try before the directory counts as full. Of 1,600 names one tries in vain so often only if most are taken.
const ATTEMPTS: usize = 256;

/// A node's identity for as long as it runs. Nobody else can take it meanwhile.
#[derive(Debug)]
pub(crate) struct Slot {
    /// What people call the node.
    pub(crate) name: String,
    /// Who it is.
    pub(crate) keypair: Keypair,
    /// Higher than at every earlier start of this key.
    pub(crate) incarnation: u64,
    /// `None` for a key that only this process has.
    _lock: Option<Lock>,
}

/// What came of trying to take a place.
enum Claim {
    Taken(Box<Slot>),
    Held(Option<u32>),
}

impl Slot {
    /// A node that leaves nothing behind: a new key, in memory only. Without a name it is called after its key.
    ///
    /// # Errors
    ///
    /// If the name is none.
    pub(crate) fn ephemeral(name: Option<&str>) -> Result<Self, DataDirError> {
        let keypair = Keypair::generate_ed25519();
        let name = match name {
            Some(name) => check_name("node", name)?.to_owned(),
            None => name_of_key(&keypair),
        };
        Ok(Self { name, keypair, incarnation: wall_clock(), _lock: None })
    }

    /// Takes the place of the key in this file, which is made if it is not there. The incarnation is kept beside it.
    ///
    /// # Errors
    ///
    /// If another process holds the key, others may read it, or it is none.
    pub(crate) fn load_key(path: &Path) -> Result<Self, DataDirError> {
        let lock_path = beside(path, "lock");
        let lock = match Lock::attempt(&lock_path).map_err(failed("lock", &lock_path))? {
            Attempt::Taken(lock) => lock,
            Attempt::Held(pid) => return Err(DataDirError::Held { path: path.to_owned(), pid }),
        };
        let keypair = read_or_make_key(path)?;
        let incarnation = rise(&beside(path, "incarnation"))?;
        Ok(Self { name: name_of_key(&keypair), keypair, incarnation, _lock: Some(lock) })
    }

    pub(super) fn claim(nodes: &Path, name: &str) -> Result<Self, DataDirError> {
        match try_claim(nodes, name)? {
            Claim::Taken(slot) => Ok(*slot),
            Claim::Held(pid) => Err(DataDirError::Held { path: nodes.join(name), pid }),
        }
    }

    pub(super) fn claim_any(nodes: &Path) -> Result<Self, DataDirError> {
        files::private_dir(nodes).map_err(failed("make", nodes))?;
        for name in existing(nodes).map_err(failed("list", nodes))? {
            match try_claim(nodes, &name) {
                Ok(Claim::Taken(slot)) => return Ok(*slot),
                Ok(Claim::Held(_)) => {}
                // Another user's, perhaps. There are others, or one is made.
                Err(error) => warn!(%error, "passing over a place in the data directory"),
            }
        }
        for _ in 0..ATTEMPTS {
            let name = name_of(files::random().map_err(failed("draw random bytes for", nodes))?);
            match fs::create_dir(nodes.join(&name)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failed("make", &nodes.join(&name))(error)),
            }
            // Another process may have found it before we could lock it.
            if let Claim::Taken(slot) = try_claim(nodes, &name)? {
                return Ok(*slot);
            }
        }
        Err(DataDirError::Crowded { path: nodes.to_owned() })
    }
}

fn try_claim(nodes: &Path, name: &str) -> Result<Claim, DataDirError> {
    let dir = nodes.join(name);
    files::private_dir(&dir).map_err(failed("make", &dir))?;
    let lock_path = dir.join("lock");
    let lock = match Lock::attempt(&lock_path).map_err(failed("lock", &lock_path))? {
        Attempt::Taken(lock) => lock,
        Attempt::Held(pid) => return Ok(Claim::Held(pid)),
    };
    let keypair = read_or_make_key(&dir.join("key"))?;
    let incarnation = rise(&dir.join("incarnation"))?;
    Ok(Claim::Taken(Box::new(Slot { name: name.to_owned(), keypair, incarnation, _lock: Some(lock) })))
}

/// The places there are, the oldest first, so that a node that runs alone is always the same one. A key is written once.
fn existing(nodes: &Path) -> io::Result<Vec<String>> {
    let mut places = Vec::new();
    for entry in fs::read_dir(nodes)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if check_name("node", &name).is_ok() && entry.file_type()?.is_dir() {
            let made = fs::metadata(entry.path().join("key")).and_then(|key| key.modified()).ok();
            places.push((made.is_none(), made, name));
        }
    }
    places.sort();
    Ok(places.into_iter().map(|(.., name)| name).collect())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

fn name_of_key(keypair: &Keypair) -> String {
    let [a, b, c, d, ..] = *blake3::hash(&keypair.public().to_peer_id().to_bytes()).as_bytes();
    name_of([a, b, c, d])
}

/// To be called with the lock held.
fn read_or_make_key(path: &Path) -> Result<Keypair, DataDirError> {
    match fs::metadata(path) {
        Ok(metadata) => {
            let mode = metadata.mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(DataDirError::KeyExposed { path: path.to_owned(), mode });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let bad = |why: String| DataDirError::BadKey { path: path.to_owned(), why };
            let bytes = Keypair::generate_ed25519().to_protobuf_encoding().map_err(|error| bad(error.to_string()))?;
            files::make_once(path, &bytes).map_err(failed("write", path))?;
        }
        Err(error) => return Err(failed("read", path)(error)),
    }
    let bytes = fs::read(path).map_err(failed("read", path))?;
    Keypair::from_protobuf_encoding(&bytes)
        .map_err(|error| DataDirError::BadKey { path: path.to_owned(), why: error.to_string() })
}

/// The number of this start: above every earlier one, also if the clock went back, and of the disk before it is used.
fn rise(path: &Path) -> Result<u64, DataDirError> {
    let bad = || DataDirError::BadIncarnation { path: path.to_owned() };
    let next = match files::read_text(path, 32).map_err(failed("read", path))? {
        Some(text) => text.trim().parse::<u64>().ok().and_then(|last| last.checked_add(1)).ok_or_else(bad)?,
        None => 0,
    };
    let incarnation = next.max(wall_clock());
    files::replace(path, incarnation.to_string().as_bytes()).map_err(failed("write", path))?;
    Ok(incarnation)
}

/// Milliseconds since 1970; 0 for a clock that stands before it.
#[expect(clippy::disallowed_methods, reason = "an incarnation is made from the clock, before there is a node to ask")]
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1)
}
