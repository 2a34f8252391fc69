//! An encoder of its own, after the text of `docs/wire.md` and without the crate's: what it makes has to be what the code
//! makes. It also remembers which bytes are which field, for the tables in the document.

use std::fmt::Write;

use libp2p_identity::PeerId;

use crate::wire::node_key::NodeKey;

/// Bytes, field by field.
#[derive(Default)]
pub(super) struct Parts {
    fields: Vec<(Vec<u8>, String, String)>,
}

impl Parts {
    pub(super) fn new() -> Self {
        Self::default().byte("version", 1)
    }

    pub(super) fn raw(mut self, field: &str, bytes: &[u8], value: impl Into<String>) -> Self {
        self.fields.push((bytes.to_vec(), field.to_owned(), value.into()));
        self
    }

    pub(super) fn byte(self, field: &str, value: u8) -> Self {
        self.raw(field, &[value], value.to_string())
    }

    pub(super) fn number(self, field: &str, value: u64) -> Self {
        self.raw(field, &varint(value), value.to_string())
    }

    pub(super) fn flag(self, field: &str, value: bool) -> Self {
        self.raw(field, &[u8::from(value)], if value { "yes" } else { "no" })
    }

    pub(super) fn list(self, field: &str, length: u64) -> Self {
        self.raw(field, &varint(length), format!("{length} {}", if length == 1 { "element" } else { "elements" }))
    }

    pub(super) fn variant(self, field: &str, number: u64, name: &str) -> Self {
        self.raw(field, &varint(number), format!("variant {number}: {name}"))
    }

    pub(super) fn none(self, field: &str) -> Self {
        self.raw(field, &[0], "absent")
    }

    pub(super) fn some(self, field: &str) -> Self {
        self.raw(field, &[1], "present")
    }

    pub(super) fn text(self, field: &str, text: &str) -> Self {
        self.bytes(field, text.as_bytes(), &format!("`{text}`"))
    }

    pub(super) fn bytes(self, field: &str, bytes: &[u8], value: &str) -> Self {
        let encoded = [varint(bytes.len() as u64), bytes.to_vec()].concat();
        self.raw(field, &encoded, format!("length {}, {value}", bytes.len()))
    }

    pub(super) fn key(self, field: &str, peer: PeerId, whose: &str) -> Self {
        let NodeKey(key) = NodeKey::of(&peer).expect("an Ed25519 key");
        self.raw(field, &key, format!("public key of {whose}"))
    }

    /// A stream: key, incarnation, channel.
    pub(super) fn stream(self, peer: PeerId, incarnation: u64, shard: u8) -> Self {
        self.key("stream: node", peer, "A")
            .number("stream: incarnation", incarnation)
            .variant("stream: channel", 0, "shard")
            .byte("stream: shard", shard)
    }

    pub(super) fn no_extensions(self) -> Self {
        self.list("extensions", 0)
    }

    /// The last 64 bytes, as the code made them: a signature is checked by decoding.
    pub(super) fn signature(self, signed: &[u8]) -> Self {
        self.raw("signature", &signed[signed.len() - 64..], "by A, over all bytes before")
    }

    pub(super) fn concat(&self) -> Vec<u8> {
        self.fields.iter().flat_map(|(bytes, ..)| bytes.iter().copied()).collect()
    }

    /// The table of the document.
    pub(super) fn table(&self) -> String {
        let mut table = String::from("| bytes | field | value |\n| --- | --- | --- |\n");
        for (bytes, field, value) in &self.fields {
            writeln!(table, "| {} | {field} | {value} |", abbreviated(bytes)).expect("text takes any text");
        }
        table
    }
}

/// Integers: one byte up to 250, else a mark and 2, 4 or 8 bytes, little-endian.
pub(super) fn varint(value: u64) -> Vec<u8> {
    let wide = value.to_le_bytes();
    match value {
        0..=250 => vec![wide[0]],
        251..=0xffff => [&[251], &wide[..2]].concat(),
        0x1_0000..=0xffff_ffff => [&[252], &wide[..4]].concat(),
        _ => [&[253], &wide[..]].concat(),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn abbreviated(bytes: &[u8]) -> String {
    match bytes {
        [first @ .., _, _, _, _] if bytes.len() > 12 => {
            format!("`{}…{}` ({} bytes)", hex(&first[..4]), hex(&bytes[bytes.len() - 4..]), bytes.len())
        }
        _ => format!("`{}`", hex(bytes)),
    }
}
