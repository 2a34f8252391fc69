//! Values to bytes and back: the one file that names the serialisation crate.
//!
//! Whatever is decoded came from somebody else, so what a value may cost is bounded by the bytes that it has, and bytes
//! left over are an error.

use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::guard::{Bounds, Root};
use crate::payload::{Bincode, Encoding, PayloadError};

/// The most elements of any list in a record.
pub(crate) const MAX_LIST: usize = 10_000;

/// The most extensions of a record.
pub(crate) const MAX_EXTENSIONS: usize = 16;

/// The largest number that counts or measures something: sequences, counts, incarnations, versions, times. Two of them
/// can be added without overflow.
pub(crate) const MAX_NUMBER: u64 = u64::MAX >> 1;

/// The bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// Cut short, an unknown variant, text that is not UTF-8, a list or a number beyond its limit.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The value is whole, and bytes follow it.
    #[error("{0} bytes are left over")]
    LeftOver(usize),
    /// A later version added something that changes what the record means.
    #[error("extension {0} has to be understood and is not")]
    Extension(u8),
}

impl CodecError {
    pub(crate) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }
}

/// Appends a value. Fails only for types that serde itself cannot write, of which the wire format has none.
pub(crate) fn encode_into<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_writer(value, Appended(bytes), bincode::config::standard())
        .map_err(|error| CodecError::Malformed(error.to_string()))
}

/// Bytes that grow at their end. Bincode has the like for what implements `std::io::Write`, which is not inlined.
struct Appended<'a>(&'a mut Vec<u8>);

impl Writer for Appended<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Reads a part of a record from the start of `bytes`, and says how many bytes it took.
pub(crate) fn decode_prefix<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, usize), CodecError> {
    read(bytes, &Bounds::new(bytes.len(), MAX_LIST))
}

/// Reads a record that takes up all of `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    read(bytes, &Bounds::new(bytes.len(), MAX_LIST)).and_then(|read| whole(bytes, read))
}

/// Guards stand in for bincode's own limit, which counts what numbers could take and not what they do take: with it, a
/// list of small numbers could be written and not be read.
fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8], bounds: &Bounds) -> Result<(T, usize), CodecError> {
    bincode::serde::seed_decode_from_slice(Root::new(bounds), bytes, bincode::config::standard())
        .map_err(|error| CodecError::Malformed(error.to_string()))
}

fn whole<T>(bytes: &[u8], (value, taken): (T, usize)) -> Result<T, CodecError> {
    match bytes.len() - taken {
        0 => Ok(value),
        left => Err(CodecError::LeftOver(left)),
    }
}

impl<T> Encoding<T> for Bincode
where
    T: Serialize + DeserializeOwned,
{
    const CONTENT_TYPE: &'static str = "application/x-bincode";

    fn encode(value: &T) -> Result<Bytes, PayloadError> {
        let mut bytes = Vec::new();
        encode_into(value, &mut bytes).map_err(PayloadError::new)?;
        Ok(bytes.into())
    }

    fn encode_in<'a>(value: &'a T, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], PayloadError> {
        buffer.clear();
        encode_into(value, buffer).map_err(PayloadError::new)?;
        Ok(buffer)
    }

    fn decode(payload: &Bytes) -> Result<T, PayloadError> {
        Self::decode_part(payload, payload)
    }

    fn decode_part(_: &Bytes, part: &[u8]) -> Result<T, PayloadError> {
        // Lists of the user's may be as long as the payload allows.
        let bounds = Bounds::new(part.len(), usize::MAX);
        read(part, &bounds).and_then(|read| whole(part, read)).map_err(PayloadError::new)
    }
}

/// Something later versions added to a record: a tag and bytes.
///
/// Bincode has no field tags, so this list at the end of every record is how the format grows. A reader that does not
/// know a tag refuses the record if the tag is below 128, and skips the extension if it is 128 or above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extension {
    /// What it is.
    pub(crate) tag: u8,
    /// Its bytes.
    #[serde(with = "serde_bytes")]
    pub(crate) value: Vec<u8>,
}

/// The extension list at the end of a record. Version 1 defines no tags; `docs/wire.md` reserves some.
pub(crate) type Extensions = Vec<Extension>;

/// Extensions from this tag up may be skipped by who does not know them.
pub(crate) const FIRST_SKIPPED: u8 = 128;

/// Refuses a record with an extension that a reader must understand and does not, or with too many of them.
pub(crate) fn check_extensions(extensions: &[Extension]) -> Result<(), CodecError> {
    if extensions.len() > MAX_EXTENSIONS {
        return Err(CodecError::malformed(format!("more than {MAX_EXTENSIONS} extensions")));
    }
    match extensions.iter().find(|extension| extension.tag < FIRST_SKIPPED) {
        Some(extension) => Err(CodecError::Extension(extension.tag)),
        None => Ok(()),
    }
}

/// Refuses numbers beyond [`MAX_NUMBER`].
pub(crate) fn check_numbers(numbers: &[u64]) -> Result<(), CodecError> {
    match numbers.iter().find(|number| **number > MAX_NUMBER) {
        Some(number) => Err(CodecError::malformed(format!("the number {number} is 2^63 or more"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn payload<T: Serialize + DeserializeOwned>(value: &T) -> Bytes {
        <Bincode as Encoding<T>>::encode(value).expect("encodes")
    }

    #[test]
    fn a_huge_length_is_refused_without_allocating_it() {
        let mut bytes = vec![253];
        bytes.extend((1u64 << 40).to_le_bytes());
        assert!(decode::<Vec<u8>>(&bytes).is_err());
        assert!(decode::<String>(&bytes).is_err());
        assert!(decode::<Vec<u64>>(&bytes).is_err());
        assert!(decode_prefix::<&[u8]>(&bytes).is_err());
        let bytes = Bytes::from(bytes);
        assert!(<Bincode as Encoding<Bytes>>::decode(&bytes).is_err());
        assert!(<Bincode as Encoding<BTreeMap<u8, String>>>::decode(&bytes).is_err());
    }

    #[test]
    fn elements_without_bytes_are_counted() {
        let mut bytes = vec![253];
        bytes.extend((1u64 << 40).to_le_bytes());
        assert!(<Bincode as Encoding<Vec<()>>>::decode(&bytes.into()).is_err());
    }

    #[test]
    fn a_recursive_type_ends_before_the_stack() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Chain(Option<Box<Self>>);
        let bomb = Bytes::from(vec![1; 1 << 20]);
        assert!(<Bincode as Encoding<Chain>>::decode(&bomb).is_err());
        let chain = (0..50).fold(Chain(None), |chain, _| Chain(Some(Box::new(chain))));
        assert_eq!(<Bincode as Encoding<Chain>>::decode(&payload(&chain)).expect("decodes"), chain);
    }

    /// How many elements a decoder walks through.
    fn steps<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> usize {
        let bounds = Bounds::new(bytes.len(), usize::MAX);
        let before = bounds.left();
        let _ = read::<T>(bytes, &bounds);
        before - bounds.left()
    }

    #[test]
    fn steps_grow_with_the_input_and_not_faster() {
        for scale in [1, 10, 100, 1000] {
            let list = payload(&vec![7u64; 100 * scale]);
            assert_eq!(steps::<Vec<u64>>(&list), 100 * scale + 1, "one for each element, one for the end");
            let nested = payload(&vec![vec![Some(1u8); 9]; 10 * scale]);
            assert_eq!(steps::<Vec<Vec<Option<u8>>>>(&nested), 110 * scale + 1);
            let mut bomb = vec![253];
            bomb.extend(u64::MAX.to_le_bytes());
            bomb.resize(100 * scale, 0);
            assert_eq!(steps::<Vec<()>>(&bomb), 64 * (100 * scale + 16), "the bound, not the length that it claims");
        }
    }

    #[test]
    fn what_was_written_can_be_read_however_small_its_numbers_are() {
        let many: Vec<u128> = vec![1; 1 << 20];
        assert_eq!(<Bincode as Encoding<Vec<u128>>>::decode(&payload(&many)).expect("decodes"), many);
    }

    #[test]
    fn a_record_with_a_long_list_is_refused() {
        let bytes = payload(&vec![0u8; MAX_LIST + 1]);
        assert!(decode::<Vec<u8>>(&bytes).is_err());
        assert!(decode::<Vec<u8>>(&payload(&vec![0u8; MAX_LIST])).is_ok());
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        assert!(matches!(decode::<u8>(&[1, 2, 3]), Err(CodecError::LeftOver(2))));
    }

    #[test]
    fn tags_from_128_up_may_be_skipped() {
        let list = |tag| vec![Extension { tag, value: vec![] }];
        assert!(matches!(check_extensions(&list(127)), Err(CodecError::Extension(127))));
        assert!(check_extensions(&list(128)).is_ok());
        let many: Extensions = std::iter::repeat_with(|| list(128)).take(MAX_EXTENSIONS + 1).flatten().collect();
        assert!(check_extensions(&many).is_err());
    }
}
