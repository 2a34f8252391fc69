//! What nodes do that their API does not tell: counted from what libp2p says of it when somebody listens.
//!
//! Noise says how long each record is that it sends or gets, gossipsub whether a message is new. Both is only said in words,
//! so each is compared; should a later libp2p use others, the count is 0, and the report has no figure. Everything else stays
//! switched off, where it costs a load of a flag.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::metadata::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

const NOISE: &str = "libp2p_noise::io::framed";
const GOSSIP: &str = "libp2p_gossipsub::behaviour";
/// What noise adds to a record: its length.
const PREFIX: u64 = 2;
/// Complaints that are shown.
const SHOWN: u64 = 10;

static BYTES: AtomicU64 = AtomicU64::new(0);
static FRESH: AtomicU64 = AtomicU64::new(0);
static DUPLICATES: AtomicU64 = AtomicU64::new(0);
static COMPLAINTS: AtomicU64 = AtomicU64::new(0);

/// What all nodes together did until some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// Bytes that went over connections, as they would over TCP.
    pub(crate) bytes: u64,
    /// Messages of gossip that a node had not seen: frames and heads.
    pub(crate) fresh: u64,
    /// Those that it had.
    pub(crate) duplicates: u64,
}

impl Counts {
    pub(crate) fn now() -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self { bytes: read(&BYTES), fresh: read(&FRESH), duplicates: read(&DUPLICATES) }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes - before.bytes,
            fresh: self.fresh - before.fresh,
            duplicates: self.duplicates - before.duplicates,
        }
    }
}

/// What warns or fails in pombo, so far.
pub(crate) fn complaints() -> u64 {
    COMPLAINTS.load(Ordering::Relaxed)
}

/// Begins to count.
pub(crate) fn install() -> crate::Result<()> {
    Ok(tracing::subscriber::set_global_default(Counter)?)
}

struct Counter;

impl Subscriber for Counter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let counted = target == NOISE || (target == GOSSIP && *metadata.level() == Level::DEBUG);
        let complains = *metadata.level() <= Level::WARN && target.starts_with("pombo");
        metadata.is_event() && (counted || complains)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event(&self, event: &Event<'_>) {
        match event.metadata().target() {
            NOISE => event.record(&mut Noise),
            GOSSIP => event.record(&mut Gossip),
            _ => {
                if COMPLAINTS.fetch_add(1, Ordering::Relaxed) < SHOWN {
                    event.record(&mut Complaint);
                }
            }
        }
    }

    // Spans are all switched off.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Noise;

impl Visit for Noise {
    fn record_debug(&mut self, _: &Field, value: &dyn fmt::Debug) {
        let mut text = Text::default();
        // What does not fit has no number that is looked for.
        let _ = write!(text, "{value:?}");
        let number =
            text.as_str().strip_prefix("Outgoing ciphertext has ").and_then(|rest| rest.strip_suffix(" bytes"));
        if let Some(bytes) = number.and_then(|number| number.parse::<u64>().ok()) {
            BYTES.fetch_add(bytes + PREFIX, Ordering::Relaxed);
        }
    }
}

struct Gossip;

impl Visit for Gossip {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != "message" {
            return;
        }
        let mut text = Text::default();
        let _ = write!(text, "{value:?}");
        match text.as_str() {
            "Message already received, ignoring" => DUPLICATES.fetch_add(1, Ordering::Relaxed),
            "Put message in duplicate_cache and resolve promises" => FRESH.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

struct Complaint;

impl Visit for Complaint {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        eprintln!("pombo, {}: {value:?}", field.name());
    }
}

/// The beginning of a text, without a place on the heap.
struct Text {
    bytes: [u8; 64],
    len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; 64], len: 0 }
    }
}

impl Text {
    fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + more.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(more.as_bytes());
        self.len += more.len();
        Ok(())
    }
}
