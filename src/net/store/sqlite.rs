//! The store on disk: one SQLite database, one connection, in one thread.
//!
//! What was written is on disk when `sync` returns: the journal is a write-ahead log that is synced at each commit. Each row has
//! a checksum over all of it, for what the disk does to it later. A write that fails for anything but want of room ends the
//! store: what the system could not write once it may claim to have written the next time.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, ErrorCode, OptionalExtension, ToSql, params};
use tracing::error;

use super::OpenError;
use crate::mesh::postman::store::{Change, Key, Store, StoreError, Table};

/// "pmbo", so that the file is known for what it is.
const APPLICATION: u32 = u32::from_be_bytes(*b"pmbo");
/// What the tables look like. Each step of `MIGRATIONS` leads to the next.
const VERSION: u32 = 1;
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE numbered (id INTEGER PRIMARY KEY, value BLOB NOT NULL, sum BLOB NOT NULL);
    CREATE TABLE named (id BLOB PRIMARY KEY, value BLOB NOT NULL, sum BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE damaged (id, value, sum);
"];
/// The id of a row with a number is its table's, shifted by this, and the number: SQLite keeps those in one tree.
const NUMBERS: u32 = 48;
/// A process that is just ending may hold the file for a moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// The database.
pub(crate) struct Sqlite {
    connection: Connection,
    /// Something was written since the last sync.
    open: bool,
    /// Why nothing can be written any more.
    failed: Option<String>,
    damaged: u64,
}

impl Sqlite {
    /// Opens the database, which is made if it is not there. After a crash it is checked.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        let log = path.with_extension("sqlite-wal");
        let crashed = fs::metadata(&log).is_ok_and(|log| log.len() > 0);
        let connection = Connection::open(path).map_err(|error| failure(path, &error))?;
        let mut store = Self { connection, open: false, failed: None, damaged: 0 };
        store.set_up(path, crashed)?;
        Ok(store)
    }

    fn set_up(&mut self, path: &Path, crashed: bool) -> Result<(), OpenError> {
        let failed = |error: rusqlite::Error| failure(path, &error);
        self.connection.busy_timeout(PATIENCE).map_err(failed)?;

        let number = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
        let (application, version) =
            (number("application_id").map_err(failed)?, number("user_version").map_err(failed)?);
        let tables = "SELECT count(*) FROM sqlite_schema";
        let tables: u32 = self.connection.query_row(tables, [], |row| row.get(0)).map_err(failed)?;
        if application != APPLICATION && (application != 0 || version != 0 || tables != 0) {
            let what = "it is a database of another program".to_owned();
            return Err(OpenError::Foreign { path: path.to_owned(), what });
        }
        if version > VERSION {
            return Err(OpenError::Later { path: path.to_owned(), found: version, known: VERSION });
        }
        if crashed {
            let check = "PRAGMA quick_check(1)";
            let found: String = self.connection.query_row(check, [], |row| row.get(0)).map_err(failed)?;
            if found != "ok" {
                return Err(OpenError::Damaged { path: path.to_owned(), what: found });
            }
        }
        let mode = "PRAGMA journal_mode = WAL";
        let mode: String = self.connection.query_row(mode, [], |row| row.get(0)).map_err(failed)?;
        if mode != "wal" {
            let what = format!("its file system has no write-ahead log (it says {mode}): use a local disk");
            return Err(OpenError::Failed { path: path.to_owned(), what });
        }
        let settings = "PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY;";
        self.connection.execute_batch(settings).map_err(failed)?;
        for (from, step) in (0..).zip(MIGRATIONS).skip(usize::try_from(version).unwrap_or(usize::MAX)) {
            let to: u32 = from + 1;
            let step = format!(
                "BEGIN IMMEDIATE; {step} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {to}; COMMIT;"
            );
            self.connection.execute_batch(&step).map_err(failed)?;
        }
        Ok(())
    }

    /// What a failed statement means for the store. All since the last sync is undone.
    fn fails(&mut self, error: &rusqlite::Error) -> StoreError {
        self.open = false;
        if !self.connection.is_autocommit() {
            drop(self.connection.execute_batch("ROLLBACK"));
        }
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
            return StoreError::Full("the disk is full".to_owned());
        }
        StoreError::Failed(self.failed.insert(error.to_string()).clone())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.failed.as_ref().map_or(Ok(()), |why| Err(StoreError::Failed(why.clone())))
    }

    fn put(&mut self, change: &Change) -> rusqlite::Result<()> {
        if !self.open {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            self.open = true;
        }
        match change {
            Change::Put(key, value) => {
                let put = match Id::of(key) {
                    Id::Number(_) => "INSERT OR REPLACE INTO numbered (id, value, sum) VALUES (?1, ?2, ?3)",
                    Id::Name(_) => "INSERT OR REPLACE INTO named (id, value, sum) VALUES (?1, ?2, ?3)",
                };
                let row = params![Id::of(key), &value[..], &sum(key, value)[..]];
                self.connection.prepare_cached(put)?.execute(row)?;
            }
            Change::Delete(key) => self.delete(key)?,
        }
        Ok(())
    }

    fn delete(&self, key: &Key) -> rusqlite::Result<()> {
        let delete = match Id::of(key) {
            Id::Number(_) => "DELETE FROM numbered WHERE id = ?1",
            Id::Name(_) => "DELETE FROM named WHERE id = ?1",
        };
        self.connection.prepare_cached(delete)?.execute([Id::of(key)]).map(drop)
    }

    fn get(&mut self, key: &Key) -> rusqlite::Result<Option<Bytes>> {
        let select = match Id::of(key) {
            Id::Number(_) => "SELECT value, sum FROM numbered WHERE id = ?1",
            Id::Name(_) => "SELECT value, sum FROM named WHERE id = ?1",
        };
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?));
        let found = self.connection.prepare_cached(select)?.query_row([Id::of(key)], row).optional()?;
        let Some((value, checksum)) = found else { return Ok(None) };
        if sum(key, &value)[..] == checksum[..] {
            return Ok(Some(value.into()));
        }
        error!(table = ?key.table, "a row of the store is damaged: it is put aside, in its table `damaged`");
        self.damaged += 1;
        let aside = "INSERT INTO damaged (id, value, sum) VALUES (?1, ?2, ?3)";
        self.connection.execute(aside, params![Id::of(key), value, checksum])?;
        self.delete(key)?;
        Ok(None)
    }

    fn list(&mut self, table: Table) -> rusqlite::Result<Vec<Key>> {
        let part = table as u8;
        if table.is_numbered() {
            let select = "SELECT id FROM numbered WHERE id >= ?1 AND id < ?2 ORDER BY id";
            let [begin, end] = [part, part + 1].map(|part| i64::from(part) << NUMBERS);
            let key = |row: &rusqlite::Row<'_>| {
                Ok(Key::number(table, u64::try_from(row.get::<_, i64>(0)? - begin).unwrap_or_default()))
            };
            return self.connection.prepare_cached(select)?.query_map([begin, end], key)?.collect();
        }
        let select = "SELECT id FROM named WHERE id >= ?1 AND id < ?2 ORDER BY id";
        let key = |row: &rusqlite::Row<'_>| {
            let id: Vec<u8> = row.get(0)?;
            Ok(Key { table, key: id.get(1..).unwrap_or_default().to_vec().into() })
        };
        self.connection.prepare_cached(select)?.query_map([[part], [part + 1]], key)?.collect()
    }
}

impl Store for Sqlite {
    fn write(&mut self, change: &Change) -> Result<(), StoreError> {
        self.check()?;
        self.put(change).map_err(|error| self.fails(&error))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.check()?;
        if std::mem::take(&mut self.open) {
            self.connection.execute_batch("COMMIT").map_err(|error| self.fails(&error))?;
        }
        Ok(())
    }

    fn read(&mut self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        self.get(key).map_err(|error| self.fails(&error))
    }

    fn keys(&mut self, table: Table) -> Result<Vec<Key>, StoreError> {
        self.list(table).map_err(|error| self.fails(&error))
    }

    fn take_damaged(&mut self) -> u64 {
        std::mem::take(&mut self.damaged)
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("failed", &self.failed).finish_non_exhaustive()
    }
}

/// Where a row stands in the database.
enum Id {
    Number(i64),
    Name(Vec<u8>),
}

impl Id {
    fn of(key: &Key) -> Self {
        let part = key.table as u8;
        let number = key.to_number().filter(|number| key.table.is_numbered() && number >> NUMBERS == 0);
        match number.and_then(|number| i64::try_from(number).ok()) {
            Some(number) => Self::Number((i64::from(part) << NUMBERS) | number),
            None => Self::Name([&[part], &key.key[..]].concat()),
        }
    }
}

impl ToSql for Id {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Number(number) => number.to_sql(),
            Self::Name(name) => name.to_sql(),
        }
    }
}

/// The first 16 bytes of BLAKE3 of all of a row.
fn sum(key: &Key, value: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[key.table as u8]).update(&(key.key.len() as u64).to_be_bytes()).update(&key.key).update(value);
    let mut sum = [0; 16];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

fn failure(path: &Path, error: &rusqlite::Error) -> OpenError {
    let (path, what) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::Foreign { path, what },
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, what },
        _ => OpenError::Failed { path, what },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::mesh::postman::store::{Job, Memory, run};

    fn open(dir: &TempDir) -> Sqlite {
        Sqlite::open(&dir.path().join("post.sqlite")).unwrap()
    }

    fn key(number: u64) -> Key {
        Key::number(Table::Letters, number)
    }

    fn put(number: u64, value: &'static [u8]) -> Change {
        Change::Put(key(number), Bytes::from_static(value))
    }

    fn job(changes: Vec<Change>) -> Job {
        Job { changes, reads: Vec::new() }
    }

    #[test]
    fn what_was_synced_is_there_the_next_time_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&dir);
        for change in [put(300, b"b"), put(2, b"a"), put(5, b"x"), Change::Delete(key(5)), put(300, b"c")] {
            store.write(&change).unwrap();
        }
        store.sync().unwrap();
        store.write(&put(7, b"not synced")).unwrap();
        drop(store);
        let mut store = open(&dir);
        assert_eq!(store.keys(Table::Letters).unwrap(), [key(2), key(300)]);
        assert_eq!(store.read(&key(300)).unwrap().as_deref(), Some(&b"c"[..]));
        assert_eq!(store.read(&key(7)).unwrap(), None);
        assert!(store.keys(Table::Inbox).unwrap().is_empty());
    }

    #[test]
    fn a_full_disk_refuses_what_has_no_room_and_takes_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&dir);
        store.connection.pragma_update(None, "max_page_count", 20).unwrap();
        static LARGE: [u8; 60_000] = [7; 60_000];
        let jobs =
            [job(vec![put(1, b"small")]), job(vec![put(2, &LARGE), put(3, &LARGE)]), job(vec![put(4, b"small")])];
        let results = run(&mut store, &jobs);
        assert!(matches!(results[..], [Ok(_), Err(StoreError::Full(_)), Ok(_)]), "{results:?}");
        assert_eq!(store.keys(Table::Letters).unwrap(), [key(1), key(4)]);
        store.connection.pragma_update(None, "max_page_count", 100).unwrap();
        assert!(run(&mut store, &jobs[1..2])[0].is_ok());
    }

    #[test]
    fn a_store_that_failed_to_write_is_not_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&dir);
        store.connection.pragma_update(None, "query_only", true).unwrap();
        assert!(matches!(store.write(&put(1, b"lost")), Err(StoreError::Failed(_))));
        store.connection.pragma_update(None, "query_only", false).unwrap();
        assert!(matches!(store.write(&put(2, b"refused")), Err(StoreError::Failed(_))));
        assert!(matches!(store.sync(), Err(StoreError::Failed(_))));
        assert!(store.keys(Table::Letters).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_row_is_put_aside_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&dir);
        for (number, damage) in [(1, "value = x'00'"), (2, "id = id + 4"), (3, "sum = x'00'")] {
            store.write(&put(number, b"letter")).unwrap();
            store.sync().unwrap();
            let damage = format!("UPDATE numbered SET {damage} WHERE id = ?1");
            assert_eq!(store.connection.execute(&damage, [Id::of(&key(number))]).unwrap(), 1);
        }
        assert_eq!(store.keys(Table::Letters).unwrap(), [key(1), key(3), key(6)]);
        for key in store.keys(Table::Letters).unwrap() {
            assert_eq!(store.read(&key).unwrap(), None);
        }
        assert_eq!((store.take_damaged(), store.take_damaged()), (3, 0));
        assert!(store.keys(Table::Letters).unwrap().is_empty());
        let aside: u32 = store.connection.query_row("SELECT count(*) FROM damaged", [], |row| row.get(0)).unwrap();
        assert_eq!(aside, 3);
    }

    #[test]
    fn after_a_crash_a_file_that_is_damaged_as_a_whole_is_refused() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut store = open(&dir);
        for number in 0..100 {
            store.write(&put(number, &[1; 500])).unwrap();
        }
        store.sync().unwrap();
        store.connection.execute_batch("PRAGMA wal_checkpoint").unwrap();
        store.write(&put(1_000, b"in the log")).unwrap();
        store.sync().unwrap();
        for name in ["post.sqlite", "post.sqlite-wal"] {
            fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        let path = copy.path().join("post.sqlite");
        let mut bytes = fs::read(&path).unwrap();
        bytes[3 * 4096..5 * 4096].fill(0xff);
        fs::write(&path, bytes).unwrap();
        assert!(matches!(Sqlite::open(&path), Err(OpenError::Damaged { .. })));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Option<u8>),
        Sync,
        Crash,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..5u64, any::<Option<u8>>()).prop_map(|(number, value)| Step::Write(number, value)),
            2 => Just(Step::Sync),
            1 => Just(Step::Crash),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_disk_and_the_simulator_s_agree(steps in proptest::collection::vec(step(), 1..40)) {
            let dir = tempfile::tempdir().unwrap();
            let (mut disk, mut memory) = (open(&dir), Memory::default());
            for step in steps {
                match step {
                    Step::Write(number, value) => {
                        let put = |value: u8| Change::Put(key(number), vec![value].into());
                        let change = value.map_or(Change::Delete(key(number)), put);
                        disk.write(&change).unwrap();
                        memory.write(&change).unwrap();
                    }
                    Step::Sync => {
                        disk.sync().unwrap();
                        memory.sync().unwrap();
                        for number in 0..5 {
                            prop_assert_eq!(disk.read(&key(number)).unwrap(), memory.read(&key(number)).unwrap());
                        }
                    }
                    Step::Crash => {
                        drop(disk);
                        memory.crash();
                        disk = open(&dir);
                        prop_assert_eq!(disk.keys(Table::Letters).unwrap(), memory.keys(Table::Letters).unwrap());
                    }
                }
            }
        }
    }
}
