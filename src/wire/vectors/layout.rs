//! How each vector is put together, field by field, as `docs/wire.md` says.

use super::parts::Parts;
use super::samples::{self, INCARNATION, START, TIME, peer};
use crate::wire::frame::shard_of;

/// The header up to its tables.
fn header(parts: Parts, sequence: u64, messages: u64, attempt: u8, counter: u64) -> Parts {
    parts
        .key("node", peer(1), "A")
        .number("incarnation", INCARNATION)
        .variant("channel", 0, "shard")
        .byte("shard", shard_of("orders"))
        .number("sequence", sequence)
        .number("count", 21)
        .number("messages", messages)
        .number("time", TIME)
        .byte("attempt", attempt)
        .raw("start", &START, "first half of the message ids")
        .number("counter", counter)
}

pub(super) fn messages(signed: &[u8]) -> Parts {
    header(Parts::new().byte("kind", 1), 7, 2, 0, 41)
        .list("topics", 2)
        .text("topics[0]", "orders.eu.created")
        .text("topics[1]", "orders.eu.paid")
        .list("content types", 1)
        .text("content types[0]", "application/json")
        .list("choices", 1)
        .text("choices[0]: group", "packers")
        .key("choices[0]: member", peer(2), "B")
        .no_extensions()
        .number("message 1: topic", 0)
        .number("message 1: content type", 0)
        .number("message 1: counter", 0)
        .number("message 1: time", 0)
        .none("message 1: fragment")
        .list("message 1: choices", 1)
        .number("message 1: choices[0]", 0)
        .list("message 1: headers", 1)
        .text("message 1: headers[0]: name", "tenant")
        .text("message 1: headers[0]: value", "acme")
        .list("message 1: extensions", 0)
        .text("message 1: payload", r#"{"id":1}"#)
        .number("message 2: topic", 1)
        .number("message 2: content type", 0)
        .number("message 2: counter", 1)
        .number("message 2: time", 250)
        .none("message 2: fragment")
        .list("message 2: choices", 0)
        .list("message 2: headers", 0)
        .list("message 2: extensions", 0)
        .text("message 2: payload", "300")
        .signature(signed)
}

pub(super) fn fragment(signed: &[u8]) -> Parts {
    header(Parts::new().byte("kind", 1), 9, 0, 1, 43)
        .list("topics", 1)
        .text("topics[0]", "orders.eu.created")
        .list("content types", 1)
        .text("content types[0]", "text/plain")
        .list("choices", 0)
        .no_extensions()
        .number("message 1: topic", 0)
        .number("message 1: content type", 0)
        .number("message 1: counter", 0)
        .number("message 1: time", 0)
        .some("message 1: fragment")
        .number("message 1: fragment: index", 1)
        .number("message 1: fragment: count", 3)
        .list("message 1: choices", 0)
        .list("message 1: headers", 0)
        .list("message 1: extensions", 0)
        .text("message 1: payload", "the middle")
        .signature(signed)
}

pub(super) fn head(signed: &[u8]) -> Parts {
    header(Parts::new().byte("kind", 2), 7, 0, 0, 0)
        .list("topics", 0)
        .list("content types", 0)
        .list("choices", 0)
        .no_extensions()
        .signature(signed)
}

fn record(version: u64, left: bool) -> Parts {
    Parts::new()
        .byte("kind", 3)
        .key("node", peer(1), "A")
        .number("incarnation", INCARNATION)
        .number("version", version)
        .number("time", TIME)
        .flag("left", left)
        .flag("relay", !left)
        .text("name", "shop")
}

pub(super) fn roster_record(signed: &[u8]) -> Parts {
    roster_parts(3).no_extensions().signature(signed)
}

fn roster_parts(version: u64) -> Parts {
    record(version, false)
        .list("addresses", 1)
        .bytes("addresses[0]", &[4, 192, 0, 2, 1, 6, 0x0f, 0xa1], "`/ip4/192.0.2.1/tcp/4001`")
        .list("interests", 2)
        .text("interests[0]: pattern", "log.*")
        .none("interests[0]: group")
        .text("interests[1]: pattern", "orders.>")
        .some("interests[1]: group")
        .text("interests[1]: group", "packers")
        .list("services", 1)
        .text("services[0]", "shop.price")
}

pub(super) fn tombstone(signed: &[u8]) -> Parts {
    record(4, true).list("addresses", 0).list("interests", 0).list("services", 0).no_extensions().signature(signed)
}

/// The digest is made here too: of what follows it.
pub(super) fn letter() -> Parts {
    let letter = |parts: Parts| {
        parts
            .raw("id: start", &START, "first half of the message id")
            .number("id: counter", 45)
            .text("topic", "orders.eu.paid")
            .text("content type", "text/plain")
            .list("headers", 1)
            .text("headers[0]: name", "tenant")
            .text("headers[0]: value", "acme")
            .number("time", TIME)
            .number("expires", TIME + 60_000_000)
            .text("payload", "300")
    };
    let digest = blake3::hash(&letter(Parts::default()).concat());
    letter(Parts::default().raw("digest", digest.as_bytes(), "BLAKE3 of all that follows"))
}

pub(super) fn durable_record(signed: &[u8]) -> Parts {
    let durable = Parts::default().list("", 1).text("", "billing").text("", "orders.>").number("", 64).concat();
    roster_parts(5)
        .list("extensions", 2)
        .byte("extensions[0]: tag", 131)
        .bytes("extensions[0]: value", &durable, "1 element: `billing`, `orders.>`, 64")
        .byte("extensions[1]: tag", 132)
        .bytes("extensions[1]: value", &[], "nothing")
        .signature(signed)
}

pub(super) fn request(name: &str) -> Parts {
    let parts = |number, name| Parts::new().variant("request", number, name);
    let position = |parts: Parts| {
        parts
            .list("positions", 1)
            .stream(peer(1), INCARNATION, shard_of("orders"))
            .number("sequence", 7)
            .number("count", 21)
    };
    let parts = match name {
        "call" => call(parts(0, "Call")),
        "cancel" => parts(1, "Cancel").number("call", 5),
        "inject" => parts(2, "Inject").list("frames", 1).bytes(
            "frames[0]",
            &samples::stream_head().bytes,
            "the head of `frame-head-1`",
        ),
        "repair" => {
            parts(3, "Repair").stream(peer(1), INCARNATION, shard_of("orders")).number("from", 5).number("to", 300)
        }
        "acknowledge" => position(parts(4, "Acknowledge")),
        "heads" => position(parts(5, "Heads")),
        "push" => parts(6, "Push").list("records", 1).bytes(
            "records[0]",
            &samples::tombstone().bytes,
            "the record of `roster-tombstone-1`",
        ),
        "digest" => parts(7, "Digest")
            .list("buckets", 256)
            .raw("buckets[0..3]", &[0; 3], "0 each")
            .number("buckets[3]", 0x0123_4567_89ab_cdef)
            .raw("buckets[4..256]", &[0; 252], "0 each"),
        "fetch" => parts(8, "Fetch").list("nodes", 1).key("nodes[0]", peer(2), "B"),
        "offer" => {
            let sealed = letter().concat();
            parts(9, "Offer")
                .text("to", "billing")
                .number("turn: run", INCARNATION)
                .number("turn: count", 12)
                .flag("tell", true)
                .list("settled", 1)
                .raw("settled[0]: start", &START, "first half of the message id")
                .number("settled[0]: counter", 43)
                .list("letters", 2)
                .raw("letters[0]: id: start", &START, "first half of the message id")
                .number("letters[0]: id: counter", 44)
                .number("letters[0]: attempts", 0)
                .number("letters[0]: lease", 0)
                .flag("letters[0]: take back", true)
                .bytes("letters[0]: sealed", &[], "it is there already")
                .raw("letters[1]: id: start", &START, "first half of the message id")
                .number("letters[1]: id: counter", 45)
                .number("letters[1]: attempts", 1)
                .number("letters[1]: lease", 2)
                .flag("letters[1]: take back", false)
                .bytes("letters[1]: sealed", &sealed, "the letter of `letter-1`")
        }
        "where" => {
            parts(10, "Where").raw("id: start", &START, "first half of the message id").number("id: counter", 45)
        }
        "progress" => parts(11, "Progress").text("of", "billing"),
        "keep" => {
            let letter = parts(12, "Keep")
                .number("turn: run", INCARNATION)
                .number("turn: count", 13)
                .list("letters", 1)
                .byte("letters[0]: rank", 0);
            sealed(letter, "letters[0]: ", true)
                .list("asked", 1)
                .raw("asked[0]: start", &START, "first half of the message id")
                .number("asked[0]: counter", 44)
                .list("released", 1)
                .raw("released[0]: id: start", &START, "first half of the message id")
                .number("released[0]: id: counter", 43)
                .text("released[0]: to", "billing")
        }
        "bring" => {
            let letter = parts(13, "Bring")
                .text("to", "billing")
                .key("sender", peer(1), "A")
                .list("letters", 1)
                .raw("letters[0]: id: start", &START, "first half of the message id")
                .number("letters[0]: id: counter", 45)
                .number("letters[0]: attempts", 0)
                .number("letters[0]: lease", 0)
                .flag("letters[0]: take back", false)
                .bytes("letters[0]: sealed", &letter().concat(), "the letter of `letter-1`");
            sealed(letter, "letters[0]: ", false)
        }
        other => panic!("no layout for request {other}"),
    };
    parts.no_extensions()
}

pub(super) fn response(name: &str) -> Parts {
    let parts = |number, name| Parts::new().variant("response", number, name);
    match name {
        "done" => parts(0, "Done").list("extensions", 1).byte("extensions[0]: tag", 192).bytes(
            "extensions[0]: value",
            &[0xca, 0xfe],
            "`cafe`",
        ),
        "reply" => reply(parts(1, "Reply")).no_extensions(),
        "injected" => parts(2, "Injected").number("taken", 1).number("listeners", 2).no_extensions(),
        "frames" => parts(3, "Frames")
            .list("frames", 1)
            .bytes("frames[0]", &samples::stream_head().bytes, "the head of `frame-head-1`")
            .number("floor", 4)
            .flag("more", true)
            .no_extensions(),
        "differ" => parts(4, "Differ")
            .list("buckets", 1)
            .byte("buckets[0]", 3)
            .list("summaries", 1)
            .key("summaries[0]: node", peer(1), "A")
            .number("summaries[0]: incarnation", INCARNATION)
            .number("summaries[0]: version", 4)
            .no_extensions(),
        "records" => parts(5, "Records")
            .list("records", 1)
            .bytes("records[0]", &samples::tombstone().bytes, "the record of `roster-tombstone-1`")
            .no_extensions(),
        "offered" => parts(6, "Offered")
            .list("fates", 2)
            .variant("fates[0]", 1, "Processed")
            .variant("fates[1]", 7, "Withdrawn")
            .number("fates[1]: attempts", 2)
            .no_extensions(),
        "known" => known(parts(7, "Known").list("known", 1), "known[0]: ").no_extensions(),
        "kept" => parts(8, "Kept")
            .key("sender", peer(1), "A")
            .list("kept", 1)
            .flag("kept[0]", true)
            .list("known", 1)
            .raw("known[0]: id: start", &START, "first half of the message id")
            .number("known[0]: id: counter", 45)
            .text("known[0]: to", "billing")
            .variant("known[0]: stage", 2, "Over")
            .key("known[0]: stage: at", peer(2), "B")
            .variant("known[0]: stage: end", 0, "Processed")
            .bytes("known[0]: stage: receipt", &samples::receipt(), "by B, over `receipt-1`")
            .no_extensions(),
        "brought" => parts(9, "Brought")
            .list("fates", 1)
            .variant("fates[0]", 1, "Processed")
            .list("receipts", 1)
            .bytes("receipts[0]", &samples::receipt(), "by B, over `receipt-1`")
            .no_extensions(),
        other => panic!("no layout for response {other}"),
    }
}

fn known(parts: Parts, of: &str) -> Parts {
    let stage = parts.text(&format!("{of}recipient"), "billing").variant(&format!("{of}stage"), 1, "Given");
    stage.key(&format!("{of}stage: to"), peer(2), "B").number(&format!("{of}time"), TIME)
}

/// The recipients of the letter and its sender's signature, and the letter itself behind them or not.
fn sealed(parts: Parts, of: &str, with_letter: bool) -> Parts {
    let named = parts
        .list(&format!("{of}to"), 2)
        .text(&format!("{of}to[0]"), "audit")
        .text(&format!("{of}to[1]"), "billing")
        .bytes(&format!("{of}signature"), &samples::letter_signature(), "by A, over `letter-signed-1`");
    if with_letter {
        named.bytes(&format!("{of}sealed"), &letter().concat(), "the letter of `letter-1`")
    } else {
        named
    }
}

fn tenant(parts: Parts) -> Parts {
    parts.list("headers", 1).text("headers[0]: name", "tenant").text("headers[0]: value", "acme")
}

fn call(parts: Parts) -> Parts {
    let parts = parts.number("call", 5).text("service", "shop.price").number("timeout", 2_000);
    tenant(parts.text("content type", "application/json")).text("body", "[1,2]")
}

fn reply(parts: Parts) -> Parts {
    parts.variant("status", 0, "Ok").text("content type", "application/json").list("headers", 0).text("body", "300")
}

/// With the length in front.
fn local(length: usize, parts: impl FnOnce(Parts) -> Parts) -> Parts {
    let length = u32::try_from(length).expect("short");
    let prefix = Parts::default().raw("length", &length.to_be_bytes(), length.to_string());
    parts(prefix.byte("version", 1)).no_extensions()
}

pub(super) fn to_node(name: &str, length: usize) -> Parts {
    local(length, |start| {
        let parts = |number, name| start.variant("record", number, name);
        match name {
            "hello" => parts(0, "Hello"),
            "publish" => {
                let described = parts(1, "Publish").text("topic", "orders.eu.created");
                let described = tenant(described.text("content type", "application/json"));
                let listeners = described.number("min peers", 1).number("timeout", 5_000).some("guarantee");
                let kept = listeners.number("guarantee: ttl", 60_000).list("guarantee: to", 1);
                kept.text("guarantee: to[0]", "billing").number("guarantee: copies", 2).text("payload", r#"{"id":1}"#)
            }
            "subscribe" => parts(2, "Subscribe")
                .list("patterns", 2)
                .text("patterns[0]", "log.*")
                .text("patterns[1]", "orders.>")
                .some("group")
                .text("group", "packers")
                .number("peers", 0)
                .number("timeout", 5_000),
            "request" => call(parts(3, "Request").some("to").text("to", "shop")),
            "serve" => parts(4, "Serve").text("service", "shop.price").number("room", 64),
            "peers" => parts(5, "Peers"),
            "watch" => parts(6, "Watch"),
            "reply" => reply(parts(7, "Reply").number("call", 5)),
            "finish" => parts(8, "Finish"),
            "hold" => parts(9, "Hold")
                .text("name", "billing")
                .text("pattern", "orders.>")
                .number("window", 64)
                .some("attempts")
                .number("attempts", 5),
            "acknowledge" => parts(10, "Acknowledge").number("number", 7),
            "give-back" => parts(11, "GiveBack").number("number", 7).some("after").number("after", 2_000),
            "notices" => parts(12, "Notices"),
            "notice" => parts(13, "Notice")
                .number("number", 41)
                .text("recipient", "billing")
                .variant("act", 2, "Retry")
                .number("act: ttl", 60_000),
            "outbox" => parts(14, "Outbox"),
            "durables" => parts(15, "Durables"),
            "remove" => parts(16, "Remove").text("name", "billing"),
            "where" => {
                parts(17, "Where").raw("id: start", &START, "first half of the message id").number("id: counter", 45)
            }
            other => panic!("no layout for {other}"),
        }
    })
}

pub(super) fn from_node(name: &str, length: usize) -> Parts {
    let id = |parts: Parts| parts.raw("id: start", &START, "`a0a1a2a3a4a5a6a7`").number("id: counter", 41);
    local(length, |start| {
        let parts = |number, name| start.variant("record", number, name);
        match name {
            "welcome" => parts(0, "Welcome").key("node", peer(1), "A").text("name", "shop").raw(
                "mesh",
                &samples::MESH.0,
                "its id",
            ),
            "busy" => parts(1, "Busy"),
            "done" => parts(2, "Done"),
            "published" => id(parts(3, "Published")).number("listeners", 2),
            "message" => {
                let of = parts(4, "Message").text("topic", "orders.eu.created").key("source", peer(1), "A");
                tenant(id(of).number("time", TIME).text("content type", "application/json"))
                    .text("payload", r#"{"id":1}"#)
            }
            "lagged" => parts(5, "Lagged").number("missed", 3).flag("exact", true),
            "reply" => reply(parts(6, "Reply").key("from", peer(2), "B")),
            "call" => call(parts(7, "Call").key("from", peer(2), "B")),
            "stop" => parts(8, "Stop").number("call", 5),
            "peer" => parts(9, "Peer")
                .key("node", peer(1), "A")
                .text("name", "shop")
                .list("addresses", 1)
                .bytes("addresses[0]", &[4, 192, 0, 2, 1, 6, 0x0f, 0xa1], "`/ip4/192.0.2.1/tcp/4001`")
                .number("links", 1)
                .some("round trip")
                .number("round trip", 250)
                .some("found by")
                .variant("found by", 1, "Mdns")
                .list("interests", 2)
                .text("interests[0]: pattern", "log.*")
                .none("interests[0]: group")
                .text("interests[1]: pattern", "orders.>")
                .some("interests[1]: group")
                .text("interests[1]: group", "packers")
                .list("services", 1)
                .text("services[0]", "shop.price")
                .flag("relay", true)
                .flag("suspect", false),
            "changed" => parts(10, "Changed"),
            "failed" => parts(11, "Failed").variant("failure", 3, "Nobody").number("wanted", 2).number("found", 1),
            "accepted" => id(parts(12, "Accepted"))
                .list("recipients", 1)
                .text("recipients[0]", "billing")
                .number("copies", 1)
                .number("wanted", 2),
            "handed" => {
                let of = parts(13, "Handed").number("number", 7).number("attempt", 2);
                let of = of.text("topic", "orders.eu.created").key("source", peer(1), "A");
                tenant(id(of).number("time", TIME).text("content type", "application/json"))
                    .text("payload", r#"{"id":1}"#)
            }
            "acknowledged" => {
                parts(14, "Acknowledged").number("number", 7).some("failure").variant("failure", 16, "Late")
            }
            "total" => parts(15, "Total").number("total", 1).number("bytes", 320),
            "notice" => id(parts(16, "Notice").number("number", 41))
                .text("topic", "orders.eu.created")
                .text("recipient", "billing")
                .variant("reason", 1, "Stored")
                .number("time", TIME)
                .number("expires", TIME)
                .number("offers", 3)
                .some("stored")
                .key("stored: by", peer(2), "B")
                .number("stored: since", TIME),
            "waiting" => id(parts(17, "Waiting"))
                .text("topic", "orders.eu.created")
                .number("expires", TIME)
                .list("owed", 1)
                .text("owed[0]: name", "billing")
                .flag("owed[0]: stored", true),
            "durable" => parts(18, "Durable")
                .text("name", "billing")
                .text("pattern", "orders.>")
                .key("node", peer(1), "A")
                .text("node name", "shop")
                .flag("live", true)
                .some("here")
                .number("here: holders", 1)
                .number("here: waiting", 12),
            "known" => known(parts(19, "Known").key("node", peer(1), "A").text("node name", "shop"), ""),
            other => panic!("no layout for {other}"),
        }
    })
}
