//! The socket of a node, for other processes of its user on its host, and connections over it.
//!
//! It lies beside the node's entry in the registry. Who holds the lock of the entry has a right to the socket: what is at its
//! path is then of a process that died. Both sides have the kernel tell whose process the other is.
//!
//! Must not: know what is said.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tracing::debug;

use crate::config::{Config, Dissemination};
use crate::net::access::MeshAccess;
use crate::net::data_dir::DataDir;
use crate::net::registry;
use crate::net::start::mesh_name;
use crate::wire::MeshId;
use crate::wire::codec::CodecError;
use crate::wire::local::{self, Record};

/// How much is read at once.
const READ: usize = 16 * 1024;

/// A node's socket, open. The file goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file, so that another node's is not taken for it.
    file: (u64, u64),
    uid: u32,
}

impl Socket {
    /// Opens it. For a node that is entered in the registry.
    ///
    /// # Errors
    ///
    /// If the path is too long for a socket, or nothing can be made there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        // Until then the directory keeps others out.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let found = fs::symlink_metadata(path)?;
        Ok(Self { listener, path: path.to_owned(), file: (found.dev(), found.ino()), uid: found.uid() })
    }

    /// The next connection of a process of this user.
    pub(crate) async fn accept(&self) -> io::Result<Line> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            match stream.peer_cred() {
                Ok(who) if who.uid() == self.uid => return Ok(Line::new(stream)),
                Ok(who) => debug!(uid = who.uid(), "turned away a process of another user"),
                Err(error) => debug!(%error, "turned away a process of an unknown user"),
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            debug!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// A node that runs on this host, in the mesh that is meant, and may have a socket.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    pub(crate) socket: PathBuf,
    pub(crate) mesh: MeshId,
}

/// The node that can stand in for one of this configuration: of those with a socket in its mesh the one of its name, or the first by
/// name if it has none. `None` also where something is wanted of the node that only one of its own can give.
pub(crate) fn beside(config: &Config) -> Option<Beside> {
    let Config { name, listen, peers, dns, local, key, dissemination, .. } = config;
    let is_of_its_own = key.is_some() || !local || *dissemination != Dissemination::Adaptive;
    if is_of_its_own || !(listen.is_empty() && peers.is_empty() && dns.is_empty()) {
        return None;
    }
    let directory = registry::directory().ok()?;
    let mesh = match mesh_name(&config.mesh, Some(&directory)) {
        None => MeshAccess::open().id,
        Some(name) => DataDir::locate(config.data_dir.as_deref()).ok()?.known_mesh(&name).ok()??.id,
    };
    let nodes = registry::census(&directory).into_iter().filter(|card| card.node && card.mesh_id == mesh);
    let nodes = nodes.filter(|card| name.as_ref().is_none_or(|name| card.name == *name));
    let sockets = nodes.map(|card| (card.name, card.peer, registry::socket(&directory, mesh, card.peer)));
    let (.., socket) = sockets.filter(|(.., socket)| fs::symlink_metadata(socket).is_ok()).min()?;
    Some(Beside { socket, mesh })
}

/// Connects to a node's socket.
///
/// # Errors
///
/// If nobody listens there, or it is not this user's alone.
pub(crate) async fn connect(path: &Path) -> io::Result<Line> {
    let refused = |what: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    let directory = fs::metadata(path.parent().unwrap_or(Path::new(".")))?;
    let found = fs::symlink_metadata(path)?;
    // The directory was looked at when it was opened: it is this user's.
    if !found.file_type().is_socket() || found.uid() != directory.uid() {
        return refused("it is no socket of this user");
    }
    if found.mode() & 0o077 != 0 {
        return refused("others may use it");
    }
    let stream = UnixStream::connect(path).await?;
    if stream.peer_cred()?.uid() != found.uid() {
        return refused("another user's process listens there");
    }
    Ok(Line::new(stream))
}

/// A connection over a socket.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

impl Line {
    fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self {
            reader: Reader { half: read, buffer: BytesMut::new() },
            writer: Writer { half: write, buffer: BytesMut::new() },
        }
    }
}

/// What the other side says.
#[derive(Debug)]
pub(crate) struct Reader {
    half: OwnedReadHalf,
    buffer: BytesMut,
}

impl Reader {
    /// The next record, or `None` if the other side has gone. Dropping the future loses nothing.
    pub(crate) async fn next<R: Record>(&mut self) -> io::Result<Option<R>> {
        loop {
            if let Some(bytes) = local::take(&mut self.buffer).map_err(not_understood)? {
                return R::decode(&bytes).map(Some).map_err(not_understood);
            }
            self.buffer.reserve(READ);
            if self.half.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Returns when the other side has gone, or says something where it has nothing to say.
    pub(crate) async fn end<R: Record>(&mut self) {
        let _over = self.next::<R>().await;
    }
}

/// What is said to the other side.
#[derive(Debug)]
pub(crate) struct Writer {
    half: OwnedWriteHalf,
    buffer: BytesMut,
}

impl Writer {
    /// Has a record written with the next [`flush`](Self::flush).
    pub(crate) fn put(&mut self, record: &impl Record) -> io::Result<()> {
        record.write(&mut self.buffer).map_err(not_understood)
    }

    /// How many bytes wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Writes what waits. Dropping the future loses nothing: the next one goes on.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.half.write_all_buf(&mut self.buffer).await
    }

    pub(crate) async fn send(&mut self, record: &impl Record) -> io::Result<()> {
        self.put(record)?;
        self.flush().await
    }
}

fn not_understood(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
