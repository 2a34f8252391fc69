//! How things read to people. What comes from other nodes is escaped, so that no peer can drive the terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use pombo::{FoundBy, Multiaddr, PeerId};

/// The most bytes of a payload that are shown in hexadecimal.
const HEX_BYTES: usize = 64;

/// The last moment that RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;

/// One line of text that changes nothing but its line: control characters, and those that turn the direction of writing,
/// are written as Rust would.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    escaped(text, steers)
}

/// The same for text of several lines, which may have tabs.
pub(super) fn escape_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| !matches!(character, '\n' | '\t') && steers(character))
}

fn escaped(text: &str, unsafe_to_print: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&unsafe_to_print) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if unsafe_to_print(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

/// Whether it does something to a terminal, or to the text around it.
pub(super) fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A payload on one line: its text, or its first bytes in hexadecimal.
pub(super) fn payload(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| hexadecimal(bytes), escape)
}

/// A payload on as many lines as its text has.
pub(super) fn answer(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| hexadecimal(bytes), escape_lines)
}

fn hexadecimal(bytes: &[u8]) -> Cow<'_, str> {
    let mut line = format!("<{} bytes>", bytes.len());
    for byte in bytes.iter().take(HEX_BYTES) {
        // Writing to a string does not fail.
        let _ = write!(line, " {byte:02x}");
    }
    if bytes.len() > HEX_BYTES {
        line.push_str(" …");
    }
    Cow::Owned(line)
}

/// A word for the shell, quoted if it needs it.
pub(super) fn shell(word: &str) -> Cow<'_, str> {
    let plain = |character: char| character.is_alphanumeric() || "-_./:=@%+,".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        Cow::Borrowed(word)
    } else {
        Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
    }
}

/// A line of at most so many columns. Characters that are wider than one are not known here.
pub(super) fn fit(line: &str, columns: usize) -> Cow<'_, str> {
    if line.chars().nth(columns).is_none() {
        return Cow::Borrowed(line);
    }
    let kept: String = line.chars().take(columns.saturating_sub(1)).collect();
    Cow::Owned(format!("{kept}…"))
}

/// The end of a peer id, which is what tells ids apart: they all begin alike.
pub(super) fn short(peer: PeerId) -> String {
    let text = peer.to_string();
    let start = text.len().saturating_sub(8);
    format!("…{}", &text[start..])
}

/// `1 peer`, `2 peers`.
pub(super) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// `17 B`, `1.5 KiB`.
pub(super) fn size(bytes: usize) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// `0.41 ms`, `3.1 ms`, `1.24 s`.
pub(super) fn elapsed(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    match milliseconds {
        under if under < 1.0 => format!("{under:.2} ms"),
        under if under < 1000.0 => format!("{under:.1} ms"),
        over => format!("{:.2} s", over / 1000.0),
    }
}

/// RFC 3339, UTC, with microseconds. A time that it cannot write becomes the nearest that it can: publishers' clocks are
/// theirs.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_SECOND);
    humantime::format_rfc3339_micros(time.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

/// The time of day, UTC, with microseconds.
pub(super) fn time_of_day(time: SystemTime) -> String {
    part_of(time, 11..26)
}

/// The time of day now, UTC, to the second.
pub(super) fn now() -> String {
    part_of(clock(), 11..19)
}

/// The time, for people and for JSON. How long something takes is measured with tokio's clock instead.
#[expect(clippy::disallowed_methods, reason = "the command shows people what time it is; nothing depends on it")]
pub(super) fn clock() -> SystemTime {
    SystemTime::now()
}

fn part_of(time: SystemTime, range: std::ops::Range<usize>) -> String {
    rfc3339(time).get(range).unwrap_or_default().to_owned()
}

/// The host in an address: `192.168.1.31` of `/ip4/192.168.1.31/tcp/4001`.
pub(super) fn host(address: &Multiaddr) -> String {
    let text = address.to_string();
    text.split('/').nth(2).map_or_else(|| text.clone(), str::to_owned)
}

/// How a node was found, for people.
pub(super) fn found_by(by: FoundBy) -> &'static str {
    match by {
        FoundBy::Local => "this machine's registry",
        FoundBy::Mdns => "mDNS",
        FoundBy::Given => "a given address",
        FoundBy::Dns => "DNS",
        FoundBy::Roster => "the roster",
        FoundBy::Inbound => "its own call",
        _ => "other means",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_cannot_drive_the_terminal() {
        assert_eq!(escape("plain, with ümlauts 🕊"), "plain, with ümlauts 🕊");
        assert_eq!(escape("\u{1b}[2Jgone\r\n"), r"\u{1b}[2Jgone\r\n");
        assert_eq!(escape("tab\tbell\u{7}"), r"tab\tbell\u{7}");
        assert_eq!(escape("c1 \u{9b}31m"), r"c1 \u{9b}31m");
        assert_eq!(escape("rtl \u{202e}txt.exe"), r"rtl \u{202e}txt.exe");
        assert_eq!(escape_lines("two\n\tlines\u{1b}"), "two\n\tlines\\u{1b}");
    }

    #[test]
    fn a_payload_is_text_or_bytes() {
        assert_eq!(payload(b"hi"), "hi");
        assert_eq!(payload(b""), "");
        assert_eq!(payload(&[0xde, 0xad, 0xbe, 0xef, 0]), "<5 bytes> de ad be ef 00");
        assert!(payload(&[0xff; 65]).ends_with("ff …"));
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(shell("/tmp/a"), "/tmp/a");
        assert_eq!(shell("my dir"), "'my dir'");
        assert_eq!(shell("it's"), r"'it'\''s'");
        assert_eq!(shell(""), "''");
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        assert_eq!(fit("añb", 3), "añb");
        assert_eq!(fit("añbc", 3), "añ…");
        assert_eq!(fit("a", 0), "…");
        assert_eq!(fit("", 0), "");
    }

    #[test]
    fn numbers_have_units() {
        assert_eq!(count(1, "peer"), "1 peer");
        assert_eq!(count(0, "peer"), "0 peers");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(1024 * 1024), "1.0 MiB");
        assert_eq!(elapsed(Duration::from_micros(410)), "0.41 ms");
        assert_eq!(elapsed(Duration::from_micros(3_140)), "3.1 ms");
        assert_eq!(elapsed(Duration::from_millis(1_240)), "1.24 s");
    }

    #[test]
    fn times_are_utc_and_never_fail() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_793_536_262_114_223);
        assert_eq!(rfc3339(time), "2026-11-01T12:31:02.114223Z");
        assert_eq!(time_of_day(time), "12:31:02.114223");
        let absurd = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_SECOND * 10);
        assert_eq!(rfc3339(absurd), "9999-12-31T23:59:59.000000Z");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn hosts_and_ids_are_short() -> Result<(), Box<dyn std::error::Error>> {
        assert_eq!(host(&"/ip4/192.168.1.31/tcp/4001".parse()?), "192.168.1.31");
        assert_eq!(host(&"/ip6/fe80::1/udp/4001/quic-v1".parse()?), "fe80::1");
        assert_eq!(short("12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X".parse()?), "…ft9HyQ6X");
        Ok(())
    }
}
