//! What came on a lane and is no whole record yet.

use bytes::{Bytes, BytesMut};

use crate::wire::lane::{LaneError, Record};

/// Bytes that are read at once, of short records, and the fewest that there is always room for.
const READ: usize = 32 * 1024;
const LEAST: usize = 4 * 1024;

/// The bytes, with room behind them for what comes next: records are read to where they stay.
#[derive(Debug, Default)]
pub(super) struct Came {
    bytes: BytesMut,
    /// So many of them came.
    filled: usize,
}

impl Came {
    /// Where to read to. Enough for the rest of the record that has begun, and for some short ones at least.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let missing = Record::missing(&self.bytes[..self.filled]);
        let room = self.bytes.len() - self.filled;
        if room < missing.max(LEAST) {
            self.bytes.truncate(self.filled);
            self.bytes.resize(self.filled + missing.max(READ), 0);
        }
        &mut self.bytes[self.filled..]
    }

    /// So much was read to there.
    pub(super) fn add(&mut self, read: usize) {
        self.filled += read;
    }

    /// The next record, if it is whole.
    pub(super) fn take(&mut self) -> Result<Option<Record>, LaneError> {
        let mut came = self.bytes.split_to(self.filled);
        let record = Record::take(&mut came);
        self.filled = came.len();
        // Next to each other in memory, so nothing is moved.
        came.unsplit(std::mem::take(&mut self.bytes));
        self.bytes = came;
        record
    }
}

/// A frame that may be kept for long. A short one would keep all that was read with it.
pub(super) fn alone(frame: Bytes) -> Bytes {
    if frame.len() < READ / 2 { Bytes::copy_from_slice(&frame) } else { frame }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(bytes: usize) -> Record {
        let fill = bytes.to_le_bytes()[0];
        Record::Frame { since: 1, frame: vec![fill; bytes].into() }
    }

    proptest! {
        #[test]
        fn records_come_whole_however_they_were_cut(
            sizes in prop::collection::vec(prop_oneof![0..300_usize, 10_000..61_000_usize], 1..30),
            cuts in prop::collection::vec(1..70_000_usize, 1..10),
        ) {
            let records: Vec<Record> = sizes.into_iter().map(frame).collect();
            let mut wire = BytesMut::new();
            records.iter().for_each(|record| record.write(&mut wire).unwrap());
            let (mut came, mut read, mut cuts) = (Came::default(), Vec::new(), cuts.into_iter().cycle());
            while !wire.is_empty() {
                let room = came.room();
                prop_assert!(room.len() >= LEAST);
                let some = room.len().min(wire.len()).min(cuts.next().unwrap());
                room[..some].copy_from_slice(&wire.split_to(some));
                came.add(some);
                while let Some(record) = came.take().unwrap() {
                    read.push(record);
                }
            }
            prop_assert_eq!(read, records);
            prop_assert!(came.bytes.capacity() < 4 * READ, "{}", came.bytes.capacity());
        }
    }

    #[test]
    fn a_short_frame_keeps_nothing_but_itself_and_a_long_one_is_not_copied() {
        let mut came = Came::default();
        for bytes in [100, READ] {
            let mut wire = BytesMut::new();
            frame(bytes).write(&mut wire).unwrap();
            while !wire.is_empty() {
                let room = came.room();
                let some = room.len().min(wire.len());
                room[..some].copy_from_slice(&wire.split_to(some));
                came.add(some);
            }
            let Ok(Some(Record::Frame { frame, .. })) = came.take() else { panic!("a frame of {bytes}") };
            let (at, alone) = (frame.as_ptr(), alone(frame));
            assert_eq!((alone.is_unique(), alone.as_ptr() == at), (bytes < READ, bytes >= READ));
        }
    }
}
