//! What a node remembers of the roster between two starts: the signed records of those who were there, in a file.
//!
//! So a node that was started once with an address finds its mesh again without it. What is in the file is checked like
//! what comes from the network, and a file that cannot be read is a file that is not there.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tracing::{debug, info, warn};

use crate::net::files;
use crate::wire::MeshId;
use crate::wire::roster::{MAX_RECORD, SignedRecord};

/// The most that is written and read: a thousand full records.
pub(crate) const LIMIT: usize = 16 * 1024 * 1024;

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    path: PathBuf,
    /// The last attempt to write it failed, and that was said.
    fails: Arc<AtomicBool>,
}

impl Remembered {
    /// In the place of a node in the data directory. One file for each mesh that the node is started in.
    pub(crate) fn new(place: PathBuf, mesh: MeshId) -> Self {
        Self { path: place.join(format!("roster-{mesh}")), fails: Arc::default() }
    }

    /// The records, those that are sound.
    pub(crate) fn load(&self, mesh: MeshId) -> Vec<SignedRecord> {
        let bytes = match files::read(&self.path, LIMIT) {
            Ok(bytes) => Bytes::from(bytes.unwrap_or_default()),
            Err(error) => {
                warn!(path = %self.path.display(), %error, "cannot read who was there last time");
                return Vec::new();
            }
        };
        let records: Vec<_> = split(bytes).filter_map(|record| SignedRecord::open(mesh, record).ok()).collect();
        debug!(count = records.len(), "nodes are remembered from last time");
        records
    }

    /// Replaces what is in the file, unless there is nothing to replace it with: a node that was alone this time still wants
    /// to find its mesh the next.
    pub(crate) fn save(&self, records: &[Bytes]) {
        if records.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        for record in records {
            let Ok(length) = u32::try_from(record.len()) else { continue };
            if bytes.len() + record.len() + 4 > LIMIT {
                break;
            }
            bytes.extend(length.to_be_bytes());
            bytes.extend(record);
        }
        let saved = files::replace(&self.path, &bytes);
        let path = self.path.display();
        match (&saved, self.fails.swap(saved.is_err(), Ordering::Relaxed)) {
            (Ok(()), false) | (Err(_), true) => {}
            (Ok(()), true) => info!(%path, "who is there can be written down again"),
            (Err(error), false) => {
                warn!("cannot write {path}: {error}; the next start has to find its neighbours anew unless that ends");
            }
        }
    }
}

/// The records in the file: each a length of 4 bytes, big-endian, and that many bytes.
fn split(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let length = bytes.first_chunk().map(|length| u32::from_be_bytes(*length))?;
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_RECORD)?;
        let _ = bytes.split_to(4);
        (bytes.len() >= length).then(|| bytes.split_to(length))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_file_is_split_into_no_more_than_is_in_it(bytes in proptest::collection::vec(any::<u8>(), 0..2_000), at in 0..2_000usize) {
            let mut almost: Vec<u8> = (1..60_u8).flat_map(|length| [&[0, 0, 0, length][..], &vec![length; length.into()]].concat()).collect();
            almost.splice(at.min(almost.len()).., bytes.clone());
            for bytes in [bytes, almost] {
                let length = bytes.len();
                let cost = allocation_counter::measure(|| {
                    let sum: usize = split(bytes.clone().into()).map(|record| record.len() + 4).sum();
                    assert!(sum <= length);
                });
                prop_assert!(cost.bytes_max <= 2 * length as u64 + 4_096, "{cost:?}");
            }
        }
    }

    #[test]
    fn a_disk_that_takes_nothing_is_told_of_once_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let remembered = Remembered::new(dir.path().join("place"), MeshId([1; 16]));
        let fails = || {
            remembered.clone().save(&[Bytes::from_static(b"one")]);
            remembered.fails.load(Ordering::Relaxed)
        };
        assert!(fails() && fails(), "there is no such directory");
        std::fs::create_dir(dir.path().join("place")).unwrap();
        assert!(!fails());
    }

    #[test]
    fn what_is_saved_is_split_again_and_a_torn_end_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let remembered = Remembered::new(dir.path().to_owned(), MeshId([1; 16]));
        assert!(remembered.load(MeshId([1; 16])).is_empty(), "no file is nothing remembered");
        remembered.save(&[Bytes::from_static(b"one"), Bytes::from_static(b"three")]);
        let bytes = files::read(&remembered.path, LIMIT).unwrap().unwrap();
        assert_eq!(split(bytes.clone().into()).collect::<Vec<_>>(), ["one", "three"]);
        assert_eq!(split(Bytes::from(bytes.clone()).slice(..10)).count(), 1);
        remembered.save(&[]);
        assert_eq!(
            files::read(&remembered.path, LIMIT).unwrap(),
            Some(bytes),
            "alone once, and all would be forgotten"
        );
        assert!(remembered.load(MeshId([1; 16])).is_empty(), "those are no records");
    }
}
