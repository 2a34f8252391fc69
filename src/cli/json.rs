//! The JSON that the command prints. Times are RFC 3339 in UTC, lengths of time are seconds, ids are whole.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pombo::{FoundBy, Headers, Message, Outcome};
use serde::Serialize;

use super::failure::Failure;
use super::text;

/// Appends a value and a newline. What could drive a terminal, and JSON would let pass, is escaped.
pub(super) fn append(line: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string(value)
        .map_err(|error| Failure::new(Outcome::Failed, format!("cannot write JSON: {error}")))?;
    if text.contains(text::steers) {
        // They are all in strings, and none needs two of JSON's escapes.
        text = text.chars().map(|one| if text::steers(one) { unicode(one) } else { one.to_string() }).collect();
    }
    line.extend_from_slice(text.as_bytes());
    line.push(b'\n');
    Ok(())
}

fn unicode(character: char) -> String {
    format!("\\u{:04x}", u32::from(character))
}

/// A listing.
#[derive(Serialize)]
pub(super) struct Items<T> {
    pub(super) items: Vec<T>,
}

/// A payload: text where it is that, else Base64.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) enum Data<'a> {
    #[serde(rename = "data")]
    Text(&'a str),
    #[serde(rename = "data_base64")]
    Base64(String),
}

impl<'a> From<&'a [u8]> for Data<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or_else(|_| Self::Base64(STANDARD.encode(bytes)), Self::Text)
    }
}

/// One header.
#[derive(Serialize)]
pub(super) struct Header<'a> {
    name: &'a str,
    value: &'a str,
}

pub(super) fn headers(headers: &Headers) -> Vec<Header<'_>> {
    headers.iter().map(|(name, value)| Header { name, value }).collect()
}

/// A message that arrived.
#[derive(Serialize)]
pub(super) struct Arrived<'a> {
    topic: &'a str,
    id: String,
    time: String,
    source: String,
    content_type: &'a str,
    headers: Vec<Header<'a>>,
    #[serde(flatten)]
    data: Data<'a>,
}

impl<'a> From<&'a Message<Bytes>> for Arrived<'a> {
    fn from(message: &'a Message<Bytes>) -> Self {
        let payload: &Bytes = message;
        Self {
            topic: message.topic(),
            id: message.id().to_string(),
            time: text::rfc3339(message.time()),
            source: message.source().to_string(),
            content_type: message.content_type(),
            headers: headers(message.headers()),
            data: Data::from(&payload[..]),
        }
    }
}

/// Messages that are missing, where the next one would be.
#[derive(Serialize)]
pub(super) struct Gap {
    pub(super) lagged: Lagged,
}

#[derive(Serialize)]
pub(super) struct Lagged {
    pub(super) missed: u64,
    pub(super) exact: bool,
}

/// How a node was found, in one word.
pub(super) fn found_by(by: FoundBy) -> &'static str {
    match by {
        FoundBy::Local => "local",
        FoundBy::Mdns => "mdns",
        FoundBy::Given => "given",
        FoundBy::Dns => "dns",
        FoundBy::Roster => "roster",
        FoundBy::Inbound => "inbound",
        _ => "other",
    }
}

/// How a verb failed.
#[derive(Serialize)]
pub(super) struct Failed<'a> {
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    outcome: &'static str,
    exit: u8,
    message: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    hints: &'a [String],
}

impl<'a> From<&'a Failure> for Failed<'a> {
    fn from(failure: &'a Failure) -> Self {
        let outcome = failure.outcome();
        let (outcome, exit) = (outcome.as_str(), outcome.exit_code());
        Self { error: Error { outcome, exit, message: failure.message(), hints: failure.hints() } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(value: &impl Serialize) -> String {
        let mut line = Vec::new();
        append(&mut line, value).unwrap();
        String::from_utf8(line).unwrap()
    }

    #[derive(Serialize)]
    struct Holder<'a> {
        #[serde(flatten)]
        data: Data<'a>,
    }

    #[test]
    fn data_is_text_or_base64() {
        assert_eq!(printed(&Holder { data: Data::from(&b"hi\n\x1b"[..]) }), "{\"data\":\"hi\\n\\u001b\"}\n");
        let steering = "\u{7f} \u{9b}31m \u{202e}txt";
        let line = printed(&Holder { data: Data::from(steering.as_bytes()) });
        assert_eq!(line, "{\"data\":\"\\u007f \\u009b31m \\u202etxt\"}\n");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["data"], steering);
        let bytes: &[u8] = &[0xde, 0xad, 0xbe, 0xef, 0];
        assert_eq!(printed(&Holder { data: Data::from(bytes) }), "{\"data_base64\":\"3q2+7wA=\"}\n");
    }

    #[test]
    fn a_listing_is_one_document() {
        assert_eq!(printed(&Items { items: vec![1, 2] }), "{\"items\":[1,2]}\n");
        assert_eq!(printed(&Items::<u8> { items: Vec::new() }), "{\"items\":[]}\n");
    }

    #[test]
    fn headers_keep_their_order_and_their_repetitions() {
        let sent: Headers = [("b", "1"), ("a", "2"), ("b", "3")].into_iter().collect();
        let expected = r#"[{"name":"b","value":"1"},{"name":"a","value":"2"},{"name":"b","value":"3"}]"#;
        assert_eq!(printed(&headers(&sent)).trim_end(), expected);
    }

    #[test]
    fn an_error_has_its_outcome_and_exit_code() {
        let failure = Failure::new(Outcome::Nobody, "nobody serves a.b");
        let expected = r#"{"error":{"outcome":"nobody","exit":3,"message":"nobody serves a.b"}}"#;
        assert_eq!(printed(&Failed::from(&failure)).trim_end(), expected);
        let expected = r#"{"error":{"outcome":"nobody","exit":3,"message":"nobody serves a.b","hints":["ask"]}}"#;
        assert_eq!(printed(&Failed::from(&failure.hint("ask"))).trim_end(), expected);
    }
}
