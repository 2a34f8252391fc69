//! The keys of the table `[limits]`: the fields of [`Limits`].

use bytesize::ByteSize;
use pombo::Limits;

/// The name of the table.
pub(super) const TABLE: &str = "limits";

/// A field of [`Limits`], as a key.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: Unit,
    /// What it is in the limits that were asked.
    pub(super) value: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Count,
}

impl Unit {
    /// As a person would write it, and as the file takes it.
    pub(super) fn shown(self, value: usize) -> String {
        match self {
            Self::Bytes => size(value),
            Self::Count => value.to_string(),
        }
    }
}

/// All of them, in the order in which they are shown.
pub(super) fn each(limits: &mut Limits, mut visit: impl FnMut(Limit, &mut usize)) {
    // A new field does not compile until it has its line.
    let Limits {
        message,
        patterns,
        services,
        mailbox,
        outgoing,
        outbox,
        outbox_messages,
        ring,
        held,
        streams,
        roster,
        requests,
        links,
    } = limits;
    let mut one = |name, unit, value: &mut usize, help| visit(Limit { name, help, unit, value: *value }, value);
    one("message", Unit::Bytes, message, "The largest payload of a message, request or reply; the same on all nodes");
    one("patterns", Unit::Count, patterns, "Patterns that a node may subscribe to");
    one("services", Unit::Count, services, "Services that a node may provide");
    one("mailbox", Unit::Bytes, mailbox, "What may wait for one slow subscriber; beyond it, that one misses messages");
    one("outgoing", Unit::Bytes, outgoing, "What may wait to be published; beyond it, publishers wait");
    one("outbox", Unit::Bytes, outbox, "What guaranteed messages may take up on disk; beyond it, none is accepted");
    one("outbox_messages", Unit::Count, outbox_messages, "How many of them there may be");
    one("ring", Unit::Bytes, ring, "Recent messages kept for those that missed them");
    one("held", Unit::Bytes, held, "What is held back of one publisher while something before it is missing");
    one("streams", Unit::Count, streams, "Publishers' streams that are remembered");
    one("roster", Unit::Count, roster, "Nodes of the mesh that are known");
    one("requests", Unit::Count, requests, "Requests of a node that may be open");
    one("links", Unit::Count, links, "Nodes that a node keeps links to; it relies on those for the others");
}

/// `4 MiB`, `1000 B`: nothing is rounded.
fn size(bytes: usize) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = units.into_iter().find(|(bits, _)| bytes > 0 && bytes.trailing_zeros() >= *bits);
    whole.map_or_else(|| format!("{bytes} B"), |(bits, unit)| format!("{} {unit}", bytes >> bits))
}

/// A size as people write it, such as `4 MiB`.
pub(super) fn parse_size(text: &str) -> Option<usize> {
    let ByteSize(bytes) = text.trim().parse().ok()?;
    usize::try_from(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_they_are_shown() {
        for (bytes, text) in
            [(1, "1 B"), (1000, "1000 B"), (1024, "1 KiB"), (1_572_864, "1536 KiB"), (4 << 20, "4 MiB")]
        {
            assert_eq!(size(bytes), text);
            assert_eq!(parse_size(text), Some(bytes));
        }
        assert_eq!(parse_size("64kB"), Some(64_000));
        for wrong in ["", "MiB", "4 parsecs", "-1 B", "1.5.1 MiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_names_are_those_of_the_library() {
        let mut names = Vec::new();
        each(&mut Limits::default(), |limit, value| {
            assert_eq!(limit.value, *value);
            names.push(limit.name);
        });
        let fields = serde_json::to_value(Limits::default()).unwrap();
        assert!(fields.as_object().unwrap().keys().eq(&{
            names.sort_unstable();
            names
        }));
        for name in fields.as_object().unwrap().keys() {
            let mut none = Limits::default();
            each(&mut none, |limit, value| *value = if limit.name == name { 0 } else { *value });
            assert_eq!(none.check().unwrap_err().limit, name, "the value belongs to the name");
        }
    }
}
