//! The ground that a node stands on: its directory, its key, its mesh. Looked at, and left as it is.

use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use libp2p::PeerId;

use super::{Finding, Probe, listed};
use crate::config::Config;
use crate::error::StartError;
use crate::net::access::{MeshAccess, OPEN};
use crate::net::data_dir::{DataDir, DataDirError, Found, exposed};
use crate::net::files;
use crate::net::registry::{self, RegistryError};
use crate::net::start::mesh_name;

/// Places of a data directory that are looked at.
const PLACES: usize = 64;

/// What the other probes build on.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The mesh, unless its secret cannot be read. A secret that nobody has if the mesh is not made yet.
    pub(crate) access: Option<MeshAccess>,
    /// Whether anybody can be in that mesh.
    pub(crate) is_made: bool,
    /// Who a node would be, if it was ever started.
    pub(crate) own: Option<Own>,
    /// Where a node keeps what it remembers, or would.
    pub(crate) disk: Option<PathBuf>,
    pub(crate) registry: Result<PathBuf, RegistryError>,
    pub(crate) findings: Vec<Finding>,
}

/// Who a node would be.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) peer: PeerId,
    pub(crate) incarnation: Option<u64>,
    /// Its place in the data directory, if it has one.
    pub(crate) place: Option<PathBuf>,
}

/// Why a file could not be made, locked and removed.
#[derive(Debug)]
enum Trouble {
    Write(PathBuf, io::Error),
    Lock(PathBuf, io::Error),
}

/// Looks at the ground. Blocks.
///
/// # Errors
///
/// If what was asked for makes no sense.
pub(crate) fn look(config: &Config) -> Result<Ground, StartError> {
    let registry = registry::directory();
    let mesh = mesh_name(&config.mesh, registry.as_ref().ok());
    let mut ground = Ground { access: None, is_made: true, own: None, disk: None, registry, findings: Vec::new() };
    let needed = mesh.is_some() || (!config.short_lived && config.key.is_none());
    let directory = match DataDir::locate(config.data_dir.as_deref()) {
        Ok(directory) => Some(directory),
        Err(error) if needed => {
            ground.findings.push(Finding::failed(Probe::Data, "", &error).vital());
            None
        }
        Err(_) => None,
    };
    ground.access = match (mesh, &directory) {
        (None, _) => Some(MeshAccess::open()),
        (Some(name), Some(directory)) => ground.mesh(directory, &name)?,
        (Some(_), None) => None,
    };
    let place = match (&config.key, &directory) {
        (Some(path), _) => {
            ground.given_key(path);
            Place::Elsewhere
        }
        (None, Some(directory)) if !config.short_lived => ground.place(directory, config.name.as_deref())?,
        (None, _) => Place::Elsewhere,
    };
    ground.clash();
    if let Some(directory) = directory.filter(|_| needed) {
        ground.directory(&directory, place);
    } else if !needed {
        ground.findings.push(Finding::not_tried(Probe::Data, "", "the open mesh with a key of its own needs none"));
    }
    // The directory comes before what is in it.
    ground.findings.sort_by_key(|finding| finding.probe);
    Ok(ground)
}

/// Where a node's key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Not in the data directory.
    Elsewhere,
    /// There is one that can be taken.
    There,
    /// One has to be made.
    Missing,
}

/// A name that makes no sense is no finding.
fn unless_misnamed(error: DataDirError) -> Result<DataDirError, StartError> {
    if let DataDirError::BadName { .. } = error { Err(StartError::Config(error.to_string())) } else { Ok(error) }
}

impl Ground {
    fn mesh(&mut self, directory: &DataDir, name: &str) -> Result<Option<MeshAccess>, StartError> {
        match directory.known_mesh(name) {
            Ok(Some(access)) => {
                let secret = directory.secret(name);
                if let Some(mode) = exposed(&secret, 0o077).filter(|_| name != OPEN) {
                    let path = secret.display();
                    let detail = format!("others may read the mesh's secret, and so join it (mode {mode:03o})");
                    let finding = Finding::fails(Probe::Data, path.to_string(), detail);
                    self.findings.push(finding.remedy(format!("run: chmod 600 {path}")));
                }
                Ok(Some(access))
            }
            Ok(None) => {
                self.is_made = false;
                Ok(Some(MeshAccess::private(name, files::random()?)))
            }
            Err(error) => {
                let error = unless_misnamed(error)?;
                self.findings.push(Finding::failed(Probe::Data, "", &error).vital());
                Ok(None)
            }
        }
    }

    /// The key that `--key` names.
    fn given_key(&mut self, path: &Path) {
        let subject = path.display().to_string();
        let finding = match Found::by_key(path) {
            Ok(Some(found)) => {
                let peer = found.peer;
                if found.held.is_none() {
                    self.own = Some(Own { peer, incarnation: found.incarnation, place: None });
                    Finding::works(Probe::Key, subject, format!("a node would be {peer}"))
                } else {
                    let held = DataDirError::Held { path: path.to_owned(), by: found.held.flatten() };
                    Finding::failed(Probe::Key, subject, &held).vital()
                }
            }
            // The directory it is in is not made.
            Ok(None) => match try_out(files::dir_of(path)) {
                Ok(()) => Finding::works(Probe::Key, subject, "is not there yet, and can be made"),
                Err(trouble) => trouble.finding(Probe::Key, subject).vital(),
            },
            Err(error) => Finding::failed(Probe::Key, subject, &error).vital(),
        };
        self.findings.push(finding);
    }

    /// The place in the data directory that a node would take: the one of that name, or else the first that nobody has.
    fn place(&mut self, directory: &DataDir, name: Option<&str>) -> Result<Place, StartError> {
        let names = match (name, directory.places()) {
            (Some(name), _) => vec![name.to_owned()],
            (None, Ok(names)) => names,
            (None, Err(error)) => {
                self.findings.push(Finding::failed(Probe::Key, "", &error).vital());
                return Ok(Place::There);
            }
        };
        let mut held = Vec::new();
        let mut taken = None;
        for place in names.iter().take(PLACES) {
            match directory.find(place) {
                Ok(Some(Found { held: Some(by), .. })) if name.is_some() => {
                    let error = DataDirError::Held { path: directory.place(place), by };
                    self.findings.push(Finding::failed(Probe::Key, place, &error).vital());
                    return Ok(Place::There);
                }
                Ok(Some(Found { held: Some(by), .. })) => {
                    let by = by.map_or_else(|| "another process".to_owned(), |by| by.to_string());
                    held.push(format!("{place} is held by {by}"));
                }
                Ok(Some(found)) => taken = taken.or(Some(found)),
                Ok(None) => {}
                Err(error) => {
                    let error = unless_misnamed(error)?;
                    let finding = Finding::failed(Probe::Key, place, &error);
                    self.findings.push(if name.is_some() { finding.vital() } else { finding });
                    if name.is_some() {
                        return Ok(Place::There);
                    }
                }
            }
        }
        let others = if held.is_empty() { String::new() } else { format!("; {}", listed(held.into_iter())) };
        Ok(if let Some(Found { name, peer, incarnation, .. }) = taken {
            self.findings.push(Finding::works(Probe::Key, &name, format!("a node would be {peer}{others}")));
            self.own = Some(Own { peer, incarnation, place: Some(directory.place(&name)) });
            Place::There
        } else {
            let detail = format!("a node would get a new key{others}");
            self.findings.push(Finding::works(Probe::Key, name.unwrap_or_default(), detail));
            Place::Missing
        })
    }

    /// A copy of the key is another file, but the same node.
    fn clash(&mut self) {
        let (Some(own), Some(access), Ok(registry)) = (&self.own, &self.access, &self.registry) else { return };
        let Some(by) = registry::holder(registry, access.id, own.peer) else { return };
        let by = by.map_or_else(|| "by another process".to_owned(), |by| format!("as {by}"));
        let detail =
            format!("this very node runs already, {by}, with a copy of this key: both would take each other's place");
        let clash = Finding::fails(Probe::Key, own.peer.to_string(), detail).vital();
        self.findings.push(clash.remedy("stop that one, or start this node under another name or key"));
    }

    /// The directory itself.
    fn directory(&mut self, directory: &DataDir, place: Place) {
        let root = directory.root();
        let (there, path) = (root.exists(), root.display().to_string());
        self.disk = Some(there_of(root).to_owned());
        if let Some(mode) = exposed(root, 0o022) {
            let detail = format!("others may put things there (mode {mode:03o})");
            self.findings.push(Finding::fails(Probe::Data, &path, detail).remedy(format!("run: chmod 700 {path}")));
        }
        let finding = judge(try_out(&directory.nodes()), path, there, self.is_made, place);
        self.findings.push(finding);
    }
}

/// What a directory that can or cannot be written to means for a node.
fn judge(tried: Result<(), Trouble>, path: String, there: bool, is_made: bool, place: Place) -> Finding {
    let trouble = match tried {
        Ok(()) if there => return Finding::works(Probe::Data, path, "can be written to, and locks work"),
        Ok(()) => return Finding::works(Probe::Data, path, "is not there yet, and can be made"),
        Err(trouble) => trouble,
    };
    let passes = match &trouble {
        Trouble::Lock(..) => false,
        // A key can be in memory where nobody forbids to write, and it just cannot be done.
        Trouble::Write(_, error) => is_made && (place != Place::Missing || files::is_unwritable(error)),
    };
    let mut finding = trouble.finding(Probe::Data, path);
    if !passes {
        return finding.vital();
    }
    finding.detail.push_str(match place {
        Place::Missing => ": a node would have a key for this run only, and know nobody the next time",
        Place::There | Place::Elsewhere => ": a node would do without, and know nobody the next time",
    });
    finding
}

impl Trouble {
    fn finding(self, probe: Probe, subject: String) -> Finding {
        let (detail, error) = match self {
            Self::Write(path, error) => (format!("cannot write to {}: {error}", path.display()), error),
            Self::Lock(path, error) => {
                let detail = format!("files in {} cannot be locked: {error}", path.display());
                return Finding::fails(probe, subject, detail).remedy("name a place on a local disk with --data-dir");
            }
        };
        let finding = Finding::fails(probe, subject, detail);
        match files::remedy(&error).trim_start_matches("; ") {
            "" => finding,
            remedy => finding.remedy(remedy),
        }
    }
}

/// The path, or of what it is in the nearest that is there.
fn there_of(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."))
}

/// Makes a file as a node would, locks it, and removes it. Directories that are not there yet are not made.
fn try_out(directory: &Path) -> Result<(), Trouble> {
    let directory = there_of(directory);
    let trouble = |error| Trouble::Write(directory.to_owned(), error);
    let (path, file) = files::write_aside(&directory.join("doctor"), b"").map_err(trouble)?;
    let locked = file.try_lock();
    fs::remove_file(path).map_err(trouble)?;
    match locked {
        // Nobody else knows of this file.
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(Trouble::Lock(directory.to_owned(), error)),
    }
}

#[cfg(test)]
mod tests {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, Unsupported};

    use super::*;
    use crate::config::MeshChoice;
    use crate::net::doctor::Verdict;

    fn unwritable(kind: io::ErrorKind) -> Result<(), Trouble> {
        Err(Trouble::Write("/data".into(), kind.into()))
    }

    #[test]
    fn a_directory_is_vital_where_a_node_would_not_start() {
        let unlockable = || Err(Trouble::Lock("/data".into(), Unsupported.into()));
        for (tried, is_made, place, vital) in [
            (unwritable(ReadOnlyFilesystem), true, Place::There, false),
            (unwritable(ReadOnlyFilesystem), true, Place::Missing, false),
            (unwritable(ReadOnlyFilesystem), true, Place::Elsewhere, false),
            (unwritable(ReadOnlyFilesystem), false, Place::There, true),
            (unwritable(PermissionDenied), true, Place::There, false),
            (unwritable(PermissionDenied), true, Place::Missing, true),
            (unlockable(), true, Place::There, true),
        ] {
            let finding = judge(tried, "/data".into(), true, is_made, place);
            assert_eq!((finding.verdict, finding.vital), (Verdict::Fails, vital), "{finding:?}");
            assert!(finding.remedy.is_some(), "{finding:?}");
        }
        assert_eq!(judge(Ok(()), "/data".into(), false, false, Place::Missing).verdict, Verdict::Works);
    }

    #[test]
    fn looking_changes_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("data");
        let config = Config {
            mesh: MeshChoice::Named("lab".into()),
            data_dir: Some(data.clone()),
            name: Some("shop".into()),
            ..Config::default()
        };
        let ground = look(&config).unwrap();
        assert!(!ground.is_made && ground.own.is_none(), "{ground:?}");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "nothing was made");

        let directory = DataDir::open(Some(&data)).unwrap();
        directory.mesh("lab").unwrap();
        drop(directory.claim(Some("shop")).unwrap());
        let incarnation = || fs::read_to_string(data.join("nodes/shop/incarnation")).unwrap();
        let before = incarnation();
        let ground = look(&config).unwrap();
        assert!(ground.is_made && ground.own.is_some(), "{ground:?}");
        assert!(ground.findings.iter().all(|finding| finding.verdict == Verdict::Works), "{ground:?}");
        assert_eq!((incarnation(), fs::read_dir(&data).unwrap().count()), (before, 2));

        let held = directory.claim(Some("shop")).unwrap();
        let ground = look(&config).unwrap();
        let clash = ground.findings.iter().find(|finding| finding.probe == Probe::Key).unwrap();
        assert!(clash.vital && clash.detail.contains("in use by process"), "{clash:?}");
        let anyone = look(&Config { name: None, ..config.clone() }).unwrap();
        let key = anyone.findings.iter().find(|finding| finding.probe == Probe::Key).unwrap();
        assert!(key.verdict == Verdict::Works && key.detail.contains("shop is held by process"), "{key:?}");
        drop(held);

        let misnamed = Config { name: Some("the shop".into()), ..config };
        assert!(matches!(look(&misnamed), Err(StartError::Config(_))));
    }
}
