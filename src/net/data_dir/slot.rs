//! One node's place: its key and incarnation, held by one process at a time.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use libp2p::PeerId;
use libp2p::identity::Keypair;
use tracing::warn;

use super::names::name_of;
use super::{DataDirError, check_name, failed};
use crate::net::files::{self, Attempt, Lock};
use crate::net::holder::Holder;

/// Names to try before the directory counts as full. Of 1,600 names one tries in vain so often only if most are taken.
const ATTEMPTS: usize = 256;

/// More than any key that libp2p encodes.
const MAX_KEY: usize = 64 * 1024;

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
    lock: Option<Lock>,
}

/// Who belongs to a place, as its key says.
#[derive(Debug)]
pub(crate) struct Resident {
    /// What people call the node.
    pub(crate) name: String,
    pub(crate) peer: PeerId,
}

impl Resident {
    fn new(name: String, keypair: &Keypair) -> Self {
        Self { name, peer: keypair.public().to_peer_id() }
    }
}

/// What came of trying to take a place.
enum Claim {
    Taken(Box<Slot>),
    Held(Option<Holder>),
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
        Ok(Self { name, keypair, incarnation: wall_clock(), lock: None })
    }

    /// Takes the place of the key in this file, which is made if it is not there. The incarnation is kept beside it.
    ///
    /// # Errors
    ///
    /// If another process holds the key, others may read it, or it is none.
    pub(crate) fn load_key(path: &Path) -> Result<Self, DataDirError> {
        if let Some(name) = path.file_name() {
            files::sweep(files::dir_of(path), &name.to_string_lossy());
        }
        match try_key(path, &beside(path, "incarnation"), name_of_key)? {
            Claim::Taken(slot) => Ok(*slot),
            Claim::Held(by) => Err(DataDirError::Held { path: path.to_owned(), by }),
        }
    }

    /// Whose the key in this file is, which is made if it is not there. It is not taken.
    ///
    /// # Errors
    ///
    /// If others may read the key, or it is none.
    pub(crate) fn look_at_key(path: &Path) -> Result<Resident, DataDirError> {
        make_key(path)?;
        let keypair = read_key(path)?;
        Ok(Resident::new(name_of_key(&keypair), &keypair))
    }

    pub(super) fn look(nodes: &Path, name: &str) -> Result<Resident, DataDirError> {
        let dir = nodes.join(name);
        files::private_dir(&dir).map_err(failed("make", &dir))?;
        Ok(Resident { name: name.to_owned(), ..Self::look_at_key(&dir.join("key"))? })
    }

    /// The first place that a running node holds, or else the one that the next node takes. To see that nobody holds a place
    /// is to hold it for a moment: a node that starts just then takes another.
    pub(super) fn look_any(nodes: &Path) -> Result<Resident, DataDirError> {
        files::private_dir(nodes).map_err(failed("make", nodes))?;
        let places = existing(nodes).map_err(failed("list", nodes))?;
        let is_held = |name: &&String| matches!(Lock::attempt(&nodes.join(name).join("key")), Ok(Attempt::Held(_)));
        if let Some(name) = places.iter().find(is_held) {
            return Self::look(nodes, name);
        }
        let slot = Self::claim_any(nodes)?;
        Ok(Resident::new(slot.name.clone(), &slot.keypair))
    }

    /// Whether there is something of it on the disk.
    pub(crate) fn is_kept(&self) -> bool {
        self.lock.is_some()
    }

    pub(super) fn claim(nodes: &Path, name: &str) -> Result<Self, DataDirError> {
        match try_claim(nodes, name)? {
            Claim::Taken(slot) => Ok(*slot),
            Claim::Held(by) => Err(DataDirError::Held { path: nodes.join(name), by }),
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
    let claim = try_key(&dir.join("key"), &dir.join("incarnation"), |_| name.to_owned())?;
    if let Claim::Taken(_) = &claim {
        files::sweep(&dir, "");
    }
    Ok(claim)
}

/// Takes the key in this file, which is made if it is not there. The lock is the key's own: whatever way leads to it, one
/// process has it.
fn try_key(path: &Path, incarnation: &Path, name: impl FnOnce(&Keypair) -> String) -> Result<Claim, DataDirError> {
    make_key(path)?;
    let lock = match Lock::attempt(path).map_err(failed("lock", path))? {
        Attempt::Taken(lock) => lock,
        Attempt::Held(by) => return Ok(Claim::Held(by)),
    };
    let keypair = read_key(path)?;
    let incarnation = rise(incarnation)?;
    Ok(Claim::Taken(Box::new(Slot { name: name(&keypair), keypair, incarnation, lock: Some(lock) })))
}

/// The places there are, the oldest first, so that a node that runs alone is always the same one. A key is written once.
pub(super) fn existing(nodes: &Path) -> io::Result<Vec<String>> {
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

pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

pub(super) fn name_of_key(keypair: &Keypair) -> String {
    let [a, b, c, d, ..] = *blake3::hash(&keypair.public().to_peer_id().to_bytes()).as_bytes();
    name_of([a, b, c, d])
}

/// Makes the key unless it is there.
fn make_key(path: &Path) -> Result<(), DataDirError> {
    if has_key(path)? {
        return Ok(());
    }
    let bytes = Keypair::generate_ed25519().to_protobuf_encoding().map_err(io::Error::other);
    bytes.and_then(|bytes| files::make_once(path, &bytes)).map_err(failed("write", path))
}

/// Whether the key is there. One that others may read is refused.
pub(super) fn has_key(path: &Path) -> Result<bool, DataDirError> {
    match fs::metadata(path) {
        Ok(metadata) => match metadata.mode() & 0o777 {
            mode if mode & 0o077 != 0 => Err(DataDirError::KeyExposed { path: path.to_owned(), mode }),
            _ => Ok(true),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("read", path)(error)),
    }
}

pub(super) fn read_key(path: &Path) -> Result<Keypair, DataDirError> {
    let bytes = files::read(path, MAX_KEY).map_err(failed("read", path))?.unwrap_or_default();
    let bad = |_| DataDirError::BadKey { path: path.to_owned(), what: what_is(&bytes) };
    let keypair = Keypair::from_protobuf_encoding(&bytes).map_err(bad)?;
    Ok(keypair)
}

/// What bytes are that are no key of ours, in the words of an error.
fn what_is(bytes: &[u8]) -> &'static str {
    // Libp2p's encoding begins with the type of the key, as field 1.
    match bytes {
        [] => "is empty",
        [8, 0, ..] => "is an RSA key",
        [8, 1, ..] => "is a damaged key",
        [8, 2, ..] => "is a secp256k1 key",
        [8, 3, ..] => "is an ECDSA key",
        [b'-', b'-', b'-', b'-', b'-', ..] => "is a key or certificate of another program, in PEM",
        _ => "is something else",
    }
}

/// The number of this start: above every earlier one, also if the clock went back, and of the disk before it is used.
fn rise(path: &Path) -> Result<u64, DataDirError> {
    let bad = || DataDirError::BadIncarnation { path: path.to_owned() };
    let next = match files::read_text(path, 32).map_err(failed("read", path))? {
        Some(text) => text.trim().parse::<u64>().ok().and_then(|last| last.checked_add(1)).ok_or_else(bad)?,
        None => 0,
    };
    let clock = wall_clock();
    let incarnation = next.max(clock);
    match files::replace(path, incarnation.to_string().as_bytes()) {
        Ok(()) => {}
        // The next start takes the clock's number again, and that will be a higher one.
        Err(error) if clock >= next => {
            let path = path.display();
            warn!(
                "cannot write {path}: {error}; this node will not be heard after its next start if the clock is set back before it"
            );
        }
        Err(error) => return Err(failed("write", path)(error)),
    }
    Ok(incarnation)
}

/// Milliseconds since 1970; 0 for a clock that stands before it.
#[expect(clippy::disallowed_methods, reason = "an incarnation is made from the clock, before there is a node to ask")]
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1)
}
