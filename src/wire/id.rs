//! The identifiers that travel: of meshes and of messages.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which mesh: 16 bytes that every member shares and every frame is signed with.
///
/// Printed as 32 hexadecimal digits. The id is no secret: it stands in the names of the gossip topics.
///
/// ```
/// let id = pombo::MeshId([0x0a; 16]);
/// assert_eq!(id.to_string(), "0a".repeat(16));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MeshId(pub [u8; 16]);

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which message: 8 random bytes drawn at the start of the publishing node, and an 8-byte counter.
///
/// Unique without coordination. Printed as 32 hexadecimal digits, the counter last, so ids of one start sort in the order
/// of publishing.
///
/// ```
/// let id: pombo::MessageId = "0011223344556677000000000000002a".parse()?;
/// assert_eq!(id.counter, 42);
/// # Ok::<(), pombo::ParseIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId {
    /// The random part: the same for all messages of one start of one node.
    pub start: [u8; 8],
    /// Rises by one with each message of that start.
    pub counter: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.start, f)?;
        write!(f, "{:016x}", self.counter)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no message id: those are 32 hexadecimal digits.
///
/// ```
/// use pombo::{MessageId, ParseIdError};
/// assert_eq!("0011".parse::<MessageId>(), Err(ParseIdError));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message id: expected 32 hexadecimal digits")]
pub struct ParseIdError;

impl FromStr for MessageId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseIdError);
        }
        let half = |part: &str| u64::from_str_radix(part, 16).map_err(|_| ParseIdError);
        Ok(Self { start: half(&text[..16])?.to_be_bytes(), counter: half(&text[16..])? })
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_printed() {
        let id = MessageId { start: [0xa0, 1, 2, 3, 4, 5, 6, 0xff], counter: u64::MAX - 1 };
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "+01122334455667700000000000002a1", "0011", "0011223344556677000000000000002ag"] {
            assert_eq!(text.parse::<MessageId>(), Err(ParseIdError), "{text}");
        }
    }
}
