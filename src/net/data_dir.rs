//! What a user's nodes remember between two starts: the secrets of meshes, and each node's key and incarnation.
//!
//! ```text
//! mesh/<name>/secret        32 random bytes in hexadecimal: who has them is a member
//! nodes/<name>/key          the node's Ed25519 key, as libp2p encodes it; locked while the node runs
//! nodes/<name>/incarnation  the number of its last start, in decimal
//! ```
//!
//! Any number of processes may use one directory at once: whoever comes first makes a file, the others read it. Where
//! nothing can be written a node does with what is there.
//! Must not: keep anything about messages, or change what it did not make.

mod look;
mod names;
mod slot;

use std::io;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use tracing::warn;

use crate::net::access::{MeshAccess, OPEN};
use crate::net::files;
use crate::net::holder::Holder;

pub(crate) use look::{Found, exposed};
pub(crate) use slot::{Resident, Slot};

/// Why the data directory, or what is in it, cannot be used. Each names the path and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("no data directory: neither XDG_DATA_HOME nor the home directory is known; name one")]
    NoHome,
    #[error("cannot {what} {}: {source}{}", .path.display(), files::remedy(.source))]
    Io {
        /// What was tried, a verb.
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("`{name}` cannot name a {what}: use 1 to 32 of A-Z, a-z, 0-9, `_` and `-`")]
    BadName {
        /// A mesh or a node.
        what: &'static str,
        name: String,
    },
    #[error(
        "{} is no mesh secret, which is 64 hexadecimal digits; copy it from another node of that mesh, or remove it to \
         make a new mesh",
        .path.display()
    )]
    BadSecret { path: PathBuf },
    #[error(
        "{} {what}, and not an Ed25519 key as libp2p encodes them: restore it, or name a file that is not there, and a key \
         is made in it",
        .path.display()
    )]
    BadKey {
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    #[error("others may read the key {} (mode {mode:03o}); run: chmod 600 {}", .path.display(), .path.display())]
    KeyExposed { path: PathBuf, mode: u32 },
    #[error("{} holds no number that can rise; remove it, the clock will take its place", .path.display())]
    BadIncarnation { path: PathBuf },
    #[error("{} is in use by {}; stop that one, or start this node under another name or key", .path.display(), name(.by.as_ref()))]
    Held {
        /// The key file or the node's directory.
        path: PathBuf,
        /// Who has it, if the system tells.
        by: Option<Holder>,
    },
    #[error("no free name left in {}; remove the nodes that you no longer use", .path.display())]
    Crowded { path: PathBuf },
}

fn name(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| "another process".to_owned(), ToString::to_string)
}

/// Turns an I/O error into one that names what was tried with which path.
fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { what, path, source }
}

/// Names become directories: nothing that a file system or a shell could take for something else.
fn check_name<'a>(what: &'static str, name: &'a str) -> Result<&'a str, DataDirError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=32).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(name);
    }
    Err(DataDirError::BadName { what, name: name.to_owned() })
}

/// The directory that all of a user's nodes share.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Opens the directory, and makes it if it is not there: `path`, or else `$XDG_DATA_HOME/pombo`, or else
    /// `~/.local/share/pombo`.
    ///
    /// # Errors
    ///
    /// If there is no such place or it cannot be made.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, DataDirError> {
        let found = Self::locate(path)?;
        match files::private_dir(&found.root) {
            // What can be read of it may be enough.
            Err(error) if files::is_unwritable(&error) => {}
            made => made.map_err(failed("make", &found.root))?,
        }
        Ok(found)
    }

    /// The directory, whether or not it is there.
    ///
    /// # Errors
    ///
    /// If there is no such place.
    pub(crate) fn locate(path: Option<&Path>) -> Result<Self, DataDirError> {
        let root = match path {
            Some(path) => path.to_owned(),
            None => etcetera::choose_base_strategy().map_err(|_| DataDirError::NoHome)?.data_dir().join("pombo"),
        };
        Ok(Self { root })
    }

    /// Where the node of that name keeps what it remembers.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.root.join("nodes").join(name)
    }

    /// The mesh of that name: its secret, made by whoever asks first. The open mesh needs no disk.
    ///
    /// # Errors
    ///
    /// If the name is none, or the secret can neither be read nor made.
    pub(crate) fn mesh(&self, name: &str) -> Result<MeshAccess, DataDirError> {
        if name == OPEN {
            return Ok(MeshAccess::open());
        }
        check_name("mesh", name)?;
        let dir = self.root.join("mesh").join(name);
        let path = dir.join("secret");
        files::sweep(&dir, "");
        if let Some(secret) = read_secret(&path)? {
            return Ok(MeshAccess::private(name, secret));
        }
        files::private_dir(&dir).map_err(failed("make", &dir))?;
        let secret = files::random::<32>().map_err(failed("draw random bytes for", &path))?;
        files::make_once(&path, files::to_hex(&secret).as_bytes()).map_err(failed("write", &path))?;
        // What stands there now may be another process's.
        let secret = read_secret(&path)?.ok_or(DataDirError::BadSecret { path })?;
        Ok(MeshAccess::private(name, secret))
    }

    /// Who the node of that name is, or else the first that runs, or else the next that does. Its place is not taken; what is
    /// not there yet is made.
    ///
    /// # Errors
    ///
    /// If the name is none, or its files cannot be used.
    pub(crate) fn look(&self, name: Option<&str>) -> Result<Resident, DataDirError> {
        let nodes = self.root.join("nodes");
        match name {
            Some(name) => {
                check_name("node", name)?;
                Slot::look(&nodes, name)
            }
            None => Slot::look_any(&nodes),
        }
    }

    /// Takes a node's place and holds it: the one of that name, or else the first that nobody holds, made if need be. On a
    /// file system that is read-only or full, where none can be made, the node is a new one that leaves nothing behind.
    ///
    /// # Errors
    ///
    /// If the name is none or held by another process, or its files cannot be used.
    pub(crate) fn claim(&self, name: Option<&str>) -> Result<Slot, DataDirError> {
        let nodes = self.root.join("nodes");
        let claimed = match name {
            Some(name) => {
                check_name("node", name)?;
                Slot::claim(&nodes, name)
            }
            None => Slot::claim_any(&nodes),
        };
        match claimed {
            Err(DataDirError::Io { what, path, source }) if files::is_unwritable(&source) => {
                let path = path.display();
                warn!(
                    "cannot {what} {path}: {source}; this node has a key for this run only, and will know nobody the next time"
                );
                Slot::ephemeral(name)
            }
            claimed => claimed,
        }
    }
}

fn read_secret(path: &Path) -> Result<Option<[u8; 32]>, DataDirError> {
    let Some(text) = files::read_text(path, 128).map_err(failed("read", path))? else { return Ok(None) };
    let secret = blake3::Hash::from_hex(text.trim()).map_err(|_| DataDirError::BadSecret { path: path.to_owned() })?;
    Ok(Some(secret.into()))
}

#[cfg(test)]
mod tests;
