//! What a message, a request or a reply may carry, looked at before anything is sent.

use std::fmt;

use crate::error::{PublishError, RequestError};
use crate::message::Headers;
use crate::payload::PayloadError;
use crate::wire::frame::MAX_TEXT;

/// Too much of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    Payload { size: usize, limit: usize },
    Headers { count: usize, bytes: usize },
    ContentType { size: usize },
}

/// Whether the mesh carries it. `limit`: of this node, for payloads.
pub(super) fn check(payload: &[u8], headers: &Headers, content_type: &str, limit: usize) -> Result<(), Excess> {
    if payload.len() > limit {
        return Err(Excess::Payload { size: payload.len(), limit });
    }
    if !headers.fit() {
        return Err(Excess::Headers { count: headers.len(), bytes: headers.bytes() });
    }
    if content_type.len() > MAX_TEXT {
        return Err(Excess::ContentType { size: content_type.len() });
    }
    Ok(())
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload { size, limit } => write!(f, "it has {size} bytes, at most {limit} are allowed"),
            Self::Headers { count, bytes } => write!(
                f,
                "its headers have {count} entries and {bytes} bytes, at most {} and {} are allowed",
                Headers::MAX_COUNT,
                Headers::MAX_BYTES
            ),
            Self::ContentType { size } => {
                write!(f, "its content type has {size} bytes, at most {MAX_TEXT} are allowed")
            }
        }
    }
}

impl From<Excess> for PayloadError {
    fn from(excess: Excess) -> Self {
        Self::new(excess.to_string())
    }
}

impl From<Excess> for PublishError {
    fn from(excess: Excess) -> Self {
        match excess {
            Excess::Payload { size, limit } => Self::TooLarge { size, limit },
            Excess::Headers { count, bytes } => Self::Headers { count, bytes },
            Excess::ContentType { .. } => Self::Encode(excess.into()),
        }
    }
}

impl From<Excess> for RequestError {
    fn from(excess: Excess) -> Self {
        match excess {
            Excess::Payload { size, limit } => Self::TooLarge { size, limit },
            Excess::Headers { count, bytes } => Self::Headers { count, bytes },
            Excess::ContentType { .. } => Self::Encode(excess.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Outcome;

    #[test]
    fn what_fits_passes_and_one_more_of_anything_does_not() {
        let headers = |count: usize| (0..count).map(|number| (number.to_string(), "")).collect::<Headers>();
        let long = |bytes: usize| [("", "v".repeat(bytes))].into_iter().collect::<Headers>();
        let text = |bytes: usize| "t".repeat(bytes);
        let body = |bytes: usize| Bytes::from(vec![0; bytes]);

        assert_eq!(check(&body(10), &headers(64), &text(MAX_TEXT), 10), Ok(()));
        assert_eq!(check(&body(0), &long(Headers::MAX_BYTES), "", 0), Ok(()));
        let excesses = [
            check(&body(11), &headers(0), "", 10).unwrap_err(),
            check(&body(0), &headers(65), "", 10).unwrap_err(),
            check(&body(0), &long(Headers::MAX_BYTES + 1), "", 10).unwrap_err(),
            check(&body(0), &headers(0), &text(MAX_TEXT + 1), 10).unwrap_err(),
        ];
        for excess in excesses {
            assert_eq!(PublishError::from(excess).outcome(), Outcome::Rejected, "{excess}");
            assert_eq!(RequestError::from(excess).outcome(), Outcome::Rejected, "{excess}");
        }
    }
}
