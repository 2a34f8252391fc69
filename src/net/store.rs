//! The store of a node: opened before the node runs, and then written and read by one thread.
//!
//! Whatever waits when the thread is free is written together. Nothing waits for more to come.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::error;

use crate::mesh::event::{Input, JobId};
use crate::mesh::postman::Snapshot;
use crate::mesh::postman::store::{self, Job, StoreError};
use crate::net::hub::Hub;
use crate::wire::MeshId;

#[cfg(not(feature = "store"))]
mod none;
#[cfg(feature = "store")]
mod sqlite;

#[cfg(not(feature = "store"))]
use self::none::Disk;
#[cfg(feature = "store")]
use self::sqlite::Sqlite as Disk;

/// So many jobs are written together at most: those behind them do not wait for all of them.
const TOGETHER: usize = 256;

/// What stands between a node and its store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("{} is not a store of this node: {what}; move it away to start with an empty one", .path.display())]
    Foreign { path: PathBuf, what: String },
    #[error("{} is damaged: {what}; move it away to start with an empty one, and recover what is in it with sqlite3", .path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{} was written by a later version of pombo ({found}, this one knows {known}): start that version", .path.display())]
    Later { path: PathBuf, found: u32, known: u32 },
    #[error("cannot open {}: {what}", .path.display())]
    Failed { path: PathBuf, what: String },
}

/// What came of opening a store.
pub(crate) enum Opened {
    Store(Box<(Disk, Snapshot)>),
    /// There is none, for that reason.
    None(String),
}

/// Opens the store in a node's place, one for each mesh.
///
/// # Errors
///
/// If what is there is something else, or damaged. That it cannot be written is no error: the node does without.
#[cfg(feature = "store")]
pub(crate) fn open(place: Option<&Path>, mesh: MeshId) -> Result<Opened, OpenError> {
    let Some(place) = place else {
        return Ok(Opened::None("it keeps nothing on disk: start it with a name, without a key file".to_owned()));
    };
    let path = place.join(format!("post-{mesh}.sqlite"));
    let loaded = Disk::open(&path).and_then(|mut store| {
        let now = crate::net::clock::Clock::wall();
        let failed = |error: StoreError| OpenError::Failed { path: path.clone(), what: error.to_string() };
        let snapshot = Snapshot::load(&mut store, now).map_err(failed)?;
        Ok(Opened::Store(Box::new((store, snapshot))))
    });
    loaded.or_else(|error| match error {
        OpenError::Failed { .. } => {
            tracing::warn!(%error, "guaranteed messages can neither be sent nor received");
            Ok(Opened::None(error.to_string()))
        }
        OpenError::Foreign { .. } | OpenError::Damaged { .. } | OpenError::Later { .. } => Err(error),
    })
}

/// Says that there is none.
#[cfg(not(feature = "store"))]
#[expect(clippy::unnecessary_wraps, reason = "as the one with a store")]
pub(crate) fn open(_: Option<&Path>, _: MeshId) -> Result<Opened, OpenError> {
    Ok(Opened::None("this build has none: build it with the feature `store`".to_owned()))
}

/// Does jobs until the node has ended. Blocks its thread.
pub(crate) fn run(mut disk: impl store::Store, mut jobs: mpsc::Receiver<(JobId, Job)>, hub: &Arc<Hub>) {
    let mut said = false;
    while let Some(first) = jobs.blocking_recv() {
        let mut waiting = vec![first];
        while waiting.len() < TOGETHER
            && let Ok(next) = jobs.try_recv()
        {
            waiting.push(next);
        }
        let (ids, batch): (Vec<JobId>, Vec<Job>) = waiting.into_iter().unzip();
        let results = store::run(&mut disk, &batch);
        if let Some(Err(reason)) = results.iter().find(|result| matches!(result, Err(StoreError::Failed(_))))
            && !std::mem::replace(&mut said, true)
        {
            error!(%reason, "guaranteed messages are neither accepted nor delivered any more");
        }
        let told = hub.with(|state| {
            for (id, result) in ids.into_iter().zip(results) {
                state.handle(Input::Stored { id, result });
            }
        });
        if told.is_none() {
            return;
        }
    }
}
