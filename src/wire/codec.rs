//! Values to bytes and back: the one file that names the serialisation crate.
//!
//! Whatever is decoded came from somebody else, so decoding always has a limit, and says whether bytes were left over.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::payload::{Bincode, Encoding, PayloadError};

/// The most bytes that one decoded value may claim: the largest message and room for what surrounds it.
pub(crate) const DECODE_LIMIT: usize = 1024 * 1024 + 64 * 1024;

/// The bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Cut short, an unknown variant, text that is not UTF-8, or a length beyond the limit.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The value is whole, and bytes follow it.
    #[error("{0} bytes are left over")]
    LeftOver(usize),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODE_LIMIT>()
}

/// Appends a value. Fails only for types that serde itself cannot write, of which the wire format has none.
pub(crate) fn encode_into<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(value, bytes, bincode::config::standard())
        .map(|_| ())
        .map_err(|error| CodecError::Malformed(error.to_string()))
}

/// Reads a value from the start of `bytes`, and says how many bytes it took.
pub(crate) fn decode_prefix<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, usize), CodecError> {
    bincode::serde::borrow_decode_from_slice(bytes, config()).map_err(|error| CodecError::Malformed(error.to_string()))
}

/// Reads a value that takes up all of `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, taken) =
        bincode::serde::decode_from_slice(bytes, config()).map_err(|error| CodecError::Malformed(error.to_string()))?;
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

    fn decode(payload: &Bytes) -> Result<T, PayloadError> {
        decode(payload).map_err(PayloadError::new)
    }
}

/// Something later versions added to a record: a tag and bytes.
///
/// Bincode has no field tags, so this list at the end of every record is how the format grows. A reader that does not
/// know a tag refuses the record if the tag is below 128, and skips the extension if it is 128 or above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// What it is.
    pub tag: u8,
    /// Its bytes.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}

/// The extension list at the end of a record. Version 1 defines no tags.
pub type Extensions = Vec<Extension>;

/// The first tag that a reader must understand and does not.
pub(crate) fn unknown_extension(extensions: &[Extension]) -> Option<u8> {
    extensions.iter().map(|extension| extension.tag).find(|tag| *tag < 128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_length_is_refused_without_allocating_it() {
        let mut bytes = vec![253];
        bytes.extend((1u64 << 40).to_le_bytes());
        assert!(decode::<Vec<u8>>(&bytes).is_err());
        assert!(decode::<String>(&bytes).is_err());
        assert!(decode::<Vec<u64>>(&bytes).is_err());
        assert!(decode_prefix::<&[u8]>(&bytes).is_err());
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        assert!(matches!(decode::<u8>(&[1, 2, 3]), Err(CodecError::LeftOver(2))));
    }

    #[test]
    fn tags_from_128_up_may_be_skipped() {
        let list = |tag| vec![Extension { tag, value: vec![] }];
        assert_eq!(unknown_extension(&list(127)), Some(127));
        assert_eq!(unknown_extension(&list(128)), None);
    }
}
