//! Looking at what is there, as a doctor does: nothing is made, taken or changed.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use libp2p::PeerId;

use super::slot::{beside, existing, has_key, name_of_key, read_key};
use super::{DataDir, DataDirError, check_name, failed, read_secret};
use crate::net::access::{MeshAccess, OPEN};
use crate::net::files::{self, Attempt, Lock};
use crate::net::holder::Holder;

/// A node's place that is there.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) name: String,
    /// Who is started from it.
    pub(crate) peer: PeerId,
    /// The number of its last start, if it was ever started.
    pub(crate) incarnation: Option<u64>,
    /// Whether a process has it, and which one, if the system tells.
    pub(crate) held: Option<Option<Holder>>,
}

impl Found {
    /// The place of the key in this file. `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// If the key could not be used.
    pub(crate) fn by_key(path: &Path) -> Result<Option<Self>, DataDirError> {
        Self::at(path, &beside(path, "incarnation"), None)
    }

    fn at(path: &Path, incarnation: &Path, name: Option<&str>) -> Result<Option<Self>, DataDirError> {
        if !has_key(path)? {
            return Ok(None);
        }
        // A lock that is there can only be seen by trying. Whoever starts in this very moment passes this place over.
        let held = match Lock::attempt(path).map_err(failed("lock", path))? {
            Attempt::Taken(_) => None,
            Attempt::Held(by) => Some(by),
        };
        let key = read_key(path)?;
        let last = files::read_text(incarnation, 32).map_err(failed("read", incarnation))?;
        let bad = |_| DataDirError::BadIncarnation { path: incarnation.to_owned() };
        let incarnation = last.map(|text| text.trim().parse().map_err(bad)).transpose()?;
        let name = name.map_or_else(|| name_of_key(&key), str::to_owned);
        Ok(Some(Self { name, peer: key.public().to_peer_id(), incarnation, held }))
    }
}

impl DataDir {
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where nodes have their places.
    pub(crate) fn nodes(&self) -> PathBuf {
        self.root.join("nodes")
    }

    /// The file with a mesh's secret.
    pub(crate) fn secret(&self, mesh: &str) -> PathBuf {
        self.root.join("mesh").join(mesh).join("secret")
    }

    /// The mesh of that name, if it was made.
    ///
    /// # Errors
    ///
    /// If the name is none, or the secret cannot be read.
    pub(crate) fn known_mesh(&self, name: &str) -> Result<Option<MeshAccess>, DataDirError> {
        if name == OPEN {
            return Ok(Some(MeshAccess::open()));
        }
        let secret = read_secret(&self.secret(check_name("mesh", name)?))?;
        Ok(secret.map(|secret| MeshAccess::private(name, secret)))
    }

    /// The names of the places there are, in the order in which a node without a name tries them.
    ///
    /// # Errors
    ///
    /// If the directory cannot be listed.
    pub(crate) fn places(&self) -> Result<Vec<String>, DataDirError> {
        let nodes = self.nodes();
        match existing(&nodes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            found => found.map_err(failed("list", &nodes)),
        }
    }

    /// The place of that name. `None` if nobody has made it.
    ///
    /// # Errors
    ///
    /// If the name is none, or what is there could not be used.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Found>, DataDirError> {
        let place = self.place(check_name("node", name)?);
        Found::at(&place.join("key"), &place.join("incarnation"), Some(name))
    }
}

/// The mode of a file or directory that others may do this with; `None` if they may not, or nothing is there.
pub(crate) fn exposed(path: &Path, others_may: u32) -> Option<u32> {
    let mode = std::fs::metadata(path).ok()?.mode() & 0o777;
    (mode & others_may != 0).then_some(mode)
}
