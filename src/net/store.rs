//! The store of a node: opened before the node runs, and then written and read by one thread.
//!
//! Whatever waits when the thread is free is written together. Nothing waits for more to come but that for which nobody waits:
//! a sync is what takes the time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
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
/// For so long what nobody waits for waits for something else to be synced.
const NOTED: Duration = Duration::from_millis(20);

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

/// A job on its way to the thread that does it.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) id: JobId,
    pub(crate) job: Job,
    pub(crate) can_wait: bool,
}

/// What waits to be done.
struct Tray {
    jobs: mpsc::Receiver<Errand>,
    runtime: Handle,
    /// Those that can wait for others, and until when they do.
    notes: Vec<Errand>,
    until: Option<Instant>,
}

impl Tray {
    /// What is to be done together now. None when the node has ended.
    fn next(&mut self) -> Option<Vec<Errand>> {
        loop {
            let mut batch = Vec::new();
            let mut next = self.first();
            let mut writes = next.is_none();
            while let Some(errand) = next {
                if errand.can_wait {
                    self.until.get_or_insert_with(|| Instant::now() + NOTED);
                    self.notes.push(errand);
                } else {
                    writes |= !errand.job.changes.is_empty();
                    batch.push(errand);
                }
                let is_full = self.notes.len() + batch.len() >= TOGETHER;
                writes |= is_full;
                next = if is_full { None } else { self.jobs.try_recv().ok() };
            }
            if writes {
                self.until = None;
                batch.splice(..0, self.notes.drain(..));
                return (!batch.is_empty()).then_some(batch);
            }
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    /// The next job, or none when the notes have waited for long enough, or there will be no more.
    fn first(&mut self) -> Option<Errand> {
        match self.until {
            None => self.jobs.blocking_recv(),
            Some(until) => self.runtime.block_on(timeout_at(until, self.jobs.recv())).ok().flatten(),
        }
    }
}

/// Does jobs until the node has ended. Blocks its thread.
pub(crate) fn run(mut disk: impl store::Store, jobs: mpsc::Receiver<Errand>, hub: &Arc<Hub>) {
    let mut said = false;
    let mut tray = Tray { jobs, runtime: Handle::current(), notes: Vec::new(), until: None };
    while let Some(errands) = tray.next() {
        let (ids, batch): (Vec<JobId>, Vec<Job>) = errands.into_iter().map(|errand| (errand.id, errand.job)).unzip();
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mesh::postman::store::{Change, Key, Table};

    const KEY: fn(u64) -> Key = |number| Key::number(Table::Accepted, number);

    fn errand(id: u64, can_wait: bool) -> Errand {
        let changes = vec![Change::Put(KEY(id), Bytes::new())];
        Errand { id: JobId(id), job: Job { changes, reads: Vec::new() }, can_wait }
    }

    fn reading(id: u64) -> Errand {
        Errand { id: JobId(id), job: Job { changes: Vec::new(), reads: vec![KEY(id)] }, can_wait: false }
    }

    /// What is done together, when all of this is given at once and no more comes until the end.
    async fn batches(errands: Vec<Errand>) -> Vec<Vec<u64>> {
        let (give, jobs) = mpsc::channel(TOGETHER * 2);
        for errand in errands {
            give.try_send(errand).unwrap();
        }
        let mut tray = Tray { jobs, runtime: Handle::current(), notes: Vec::new(), until: None };
        let done = tokio::task::spawn_blocking(move || {
            let mut batches = Vec::new();
            while let Some(batch) = tray.next() {
                batches.push(batch.iter().map(|errand| errand.id.0).collect::<Vec<_>>());
                if tray.notes.is_empty() && tray.jobs.is_empty() {
                    break;
                }
            }
            batches
        });
        let done = done.await.unwrap();
        drop(give);
        done
    }

    #[tokio::test]
    async fn notes_go_with_what_is_written_next_and_before_it() {
        assert_eq!(batches(vec![errand(1, true), errand(2, true), errand(3, false)]).await, [[1, 2, 3]]);
        assert_eq!(batches(vec![errand(1, false), errand(2, true)]).await, [[2, 1]]);
    }

    #[tokio::test]
    async fn notes_alone_wait_for_a_moment_and_keep_nobody_who_reads() {
        let began = Instant::now();
        assert_eq!(batches(vec![errand(1, true), reading(2), errand(3, true)]).await, [vec![2], vec![1, 3]]);
        assert!(began.elapsed() >= NOTED, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn notes_are_written_when_the_node_ends() {
        let (give, jobs) = mpsc::channel(1);
        give.try_send(errand(1, true)).unwrap();
        drop(give);
        let mut tray = Tray { jobs, runtime: Handle::current(), notes: Vec::new(), until: None };
        let all =
            tokio::task::spawn_blocking(move || [tray.next().map(|all| all.len()), tray.next().map(|all| all.len())]);
        assert_eq!(all.await.unwrap(), [Some(1), None]);
    }
}
