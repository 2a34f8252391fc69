//! What is known of a letter that came.

use std::sync::Arc;

use libp2p_identity::PeerId;

use super::store::{Change, Key, Table};
use crate::MessageId;
use crate::mesh::time::Wall;
use crate::wire::letter::{self, ReceivedRow, StandingRow};
use crate::wire::node_key::NodeKey;
use crate::wire::rpc::StageRow;

/// How a letter stands that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is being written down.
    Arriving,
    Stored,
    Processed,
    /// It was handed out as often as it may be.
    Poison,
    /// Its sender wants it back: that is being written down.
    Leaving,
    /// It has it back, after it was handed out so often.
    Withdrawn(u32),
}

impl Standing {
    /// Whether its letter is kept.
    pub(super) fn is_open(self) -> bool {
        match self {
            Self::Arriving | Self::Stored | Self::Leaving => true,
            Self::Processed | Self::Poison | Self::Withdrawn(_) => false,
        }
    }
}

/// What is known of a letter that came.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) name: Arc<str>,
    pub(super) from: Arc<PeerId>,
    pub(super) id: MessageId,
    pub(super) mark: u64,
    pub(super) expires: Wall,
    pub(super) bytes: u64,
    /// How often it was handed out before it came here.
    pub(super) before: u32,
    /// Which time its sender gave it to a node.
    pub(super) lease: u32,
    pub(super) standing: Standing,
    /// When that began.
    pub(super) since: Wall,
}

impl Received {
    /// Writes down how it stands.
    pub(super) fn put(&self, number: u64, attempts: u32, standing: StandingRow, since: Wall) -> Option<Change> {
        let row = letter::write(&self.row(NodeKey::of(&self.from)?, attempts, standing, since)).ok()?;
        Some(Change::Put(Key::number(Table::Received, number), row))
    }

    /// How far it has come here, if it is here.
    pub(super) fn stage(&self) -> Option<StageRow> {
        match self.standing {
            Standing::Stored | Standing::Leaving => Some(StageRow::Stored),
            Standing::Processed => Some(StageRow::Processed),
            Standing::Poison => Some(StageRow::Poison),
            Standing::Arriving | Standing::Withdrawn(_) => None,
        }
    }

    pub(super) fn row(&self, sender: NodeKey, attempts: u32, standing: StandingRow, since: Wall) -> ReceivedRow {
        ReceivedRow {
            name: self.name.to_string(),
            sender,
            id: self.id,
            mark: self.mark,
            expires: self.expires.0,
            bytes: self.bytes,
            attempts,
            lease: self.lease,
            standing,
            since: since.0,
        }
    }
}
