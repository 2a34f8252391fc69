//! What has to outlive the process, as rows: the vocabulary of the store, which is somebody else's to keep.
//!
//! A row is a key and bytes in a table. What is written in one job is there as a whole or not at all, and jobs that write take
//! effect in the order in which they were given. One that only reads may overtake those for which nobody waits.

use bytes::Bytes;

/// Where a row stands. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// Messages that were accepted here, by their place in the outbox.
    Accepted = 1,
    /// Their letters.
    Letters = 2,
    /// What could not be delivered, and was not taken note of yet.
    Notices = 3,
    /// Durable subscriptions of this node, by name.
    Durables = 4,
    /// What came for them, by its place in the inbox.
    Received = 5,
    /// The letters of what came and was not acknowledged.
    Inbox = 6,
    /// Exchanges after which something was forgotten of what came, by sender and durable subscription.
    Floors = 7,
    /// Who may have copies of messages that were accepted here.
    Given = 8,
    /// Messages of other nodes that are kept here, with a place each as if they were accepted here.
    Kept = 9,
    /// Their letters.
    KeptLetters = 10,
}

impl Table {
    /// Whether all keys are numbers ([`Key::number`]).
    pub(crate) fn is_numbered(self) -> bool {
        match self {
            Self::Accepted
            | Self::Letters
            | Self::Received
            | Self::Inbox
            | Self::Given
            | Self::Kept
            | Self::KeptLetters => true,
            Self::Notices | Self::Durables | Self::Floors => false,
        }
    }
}

/// Which row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) table: Table,
    pub(crate) key: Bytes,
}

impl Key {
    /// A row with a number, in the order of the numbers.
    pub(crate) fn number(table: Table, number: u64) -> Self {
        Self { table, key: number.to_be_bytes().to_vec().into() }
    }

    pub(crate) fn name(table: Table, name: &str) -> Self {
        Self { table, key: name.as_bytes().to_vec().into() }
    }

    /// Its number. None for a row that has none.
    pub(crate) fn to_number(&self) -> Option<u64> {
        self.key.as_ref().try_into().ok().map(u64::from_be_bytes)
    }
}

/// A change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put(Key, Bytes),
    Delete(Key),
}

/// What is to be written, as a whole, and then what is to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) changes: Vec<Change>,
    pub(crate) reads: Vec<Key>,
}

/// What came of a job that was done. What it wrote is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// What was read, in the order in which it was asked for. None: there is no such row, or it was damaged.
    pub(crate) rows: Vec<Option<Bytes>>,
    /// Rows that turned out to be damaged, and were put aside.
    pub(crate) damaged: u64,
}

/// Why a job was not done. Nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StoreError {
    /// There is no room on the disk, or too many jobs wait. Another time there may be.
    #[error("no room: {0}")]
    Full(String),
    /// The store can no longer be trusted to write, and takes nothing until the node is started again.
    #[error("the store failed: {0}; start the node again when its disk is sound")]
    Failed(String),
}

/// Keeps rows. Implemented on disk, and in memory for the simulator.
pub(crate) trait Store {
    /// Makes a change that lasts from the next [`sync`](Self::sync) on. If it fails, all since the last one is undone.
    fn write(&mut self, change: &Change) -> Result<(), StoreError>;
    /// Puts what was written on disk. If it fails, nothing of it is there, and a store that may have lost more than that
    /// fails from then on.
    fn sync(&mut self) -> Result<(), StoreError>;
    /// A row. One that is damaged is put aside, and counts as not there.
    fn read(&mut self, key: &Key) -> Result<Option<Bytes>, StoreError>;
    /// The keys of a table, in their order, damaged rows included.
    fn keys(&mut self, table: Table) -> Result<Vec<Key>, StoreError>;
    /// How many rows were put aside since this was asked last.
    fn take_damaged(&mut self) -> u64;
}

/// Does jobs together: with one sync, unless that fails for want of room; then one by one, so that those for which there is
/// room are done.
pub(crate) fn run(store: &mut impl Store, jobs: &[Job]) -> Vec<Result<Done, StoreError>> {
    let together = jobs.iter().flat_map(|job| &job.changes).try_for_each(|change| store.write(change));
    match together.and_then(|()| store.sync()) {
        Ok(()) => jobs.iter().map(|job| read(store, job)).collect(),
        Err(StoreError::Full(_)) if jobs.len() > 1 => {
            jobs.iter().flat_map(|job| run(store, std::slice::from_ref(job))).collect()
        }
        Err(error) => jobs.iter().map(|_| Err(error.clone())).collect(),
    }
}

fn read(store: &mut impl Store, job: &Job) -> Result<Done, StoreError> {
    let rows = job.reads.iter().map(|key| store.read(key)).collect::<Result<_, _>>()?;
    Ok(Done { rows, damaged: store.take_damaged() })
}

/// A disk in memory, of the simulator: what was written and not synced may be lost at a crash.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    synced: std::collections::BTreeMap<Key, Bytes>,
    unsynced: Vec<Change>,
    /// There is no room for more.
    pub(crate) full: bool,
}

#[cfg(test)]
impl Memory {
    /// The process ends. Of what was not synced nothing is there.
    pub(crate) fn crash(&mut self) {
        self.unsynced.clear();
    }

    fn apply(rows: &mut std::collections::BTreeMap<Key, Bytes>, change: &Change) {
        match change {
            Change::Put(key, value) => drop(rows.insert(key.clone(), value.clone())),
            Change::Delete(key) => drop(rows.remove(key)),
        }
    }
}

#[cfg(test)]
impl Store for Memory {
    fn write(&mut self, change: &Change) -> Result<(), StoreError> {
        if self.full && matches!(change, Change::Put(..)) {
            self.unsynced.clear();
            return Err(StoreError::Full("the disk is full".to_owned()));
        }
        self.unsynced.push(change.clone());
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        for change in std::mem::take(&mut self.unsynced) {
            Self::apply(&mut self.synced, &change);
        }
        Ok(())
    }

    fn read(&mut self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        Ok(self.synced.get(key).cloned())
    }

    fn keys(&mut self, table: Table) -> Result<Vec<Key>, StoreError> {
        Ok(self.synced.keys().filter(|key| key.table == table).cloned().collect())
    }

    fn take_damaged(&mut self) -> u64 {
        0
    }
}
