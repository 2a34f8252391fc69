//! What this node knows of a message: as its sender, as a node that has it for a subscriber, and as one that could not deliver it.

use super::Postman;
use super::entry::{Entry, Owed};
use super::inbox::Inbox;
use crate::MessageId;
use crate::wire::node_key::NodeKey;
use crate::wire::rpc::{Known, StageRow};

/// So many messages and notices are looked through, the oldest: others may ask.
const LOOKED_THROUGH: usize = 10_000;

impl Postman {
    /// For each recipient how far it has come, as far as is known here.
    pub(crate) fn whereabouts(&self, id: MessageId) -> Vec<Known> {
        let entries = self.outbox.entries.values().take(LOOKED_THROUGH).filter(|entry| entry.id == id);
        let owed = entries.flat_map(|entry| entry.owed.iter().map(move |owed| known_of(entry, owed)));
        let notices = self.notices.all(LOOKED_THROUGH).into_iter().filter(|notice| notice.id == id);
        let undelivered = notices.map(|notice| Known {
            recipient: notice.recipient.to_string(),
            stage: StageRow::Undelivered(notice.reason.into()),
            time: notice.at.0,
        });
        owed.chain(undelivered).chain(self.inbox.whereabouts(id)).collect()
    }
}

fn known_of(entry: &Entry, owed: &Owed) -> Known {
    if let Some(sender) = entry.kept().and_then(|kept| NodeKey::of(&kept.from)) {
        return Known { recipient: owed.to.to_string(), stage: StageRow::Kept(sender), time: entry.time.0 };
    }
    let given = owed.by.as_deref().and_then(NodeKey::of);
    let (stage, time) = given.map_or((StageRow::Accepted, entry.time), |node| (StageRow::Given(node), owed.since));
    Known { recipient: owed.to.to_string(), stage, time: time.0 }
}

impl Inbox {
    fn whereabouts(&self, id: MessageId) -> Vec<Known> {
        let of_it = self.of(id).filter_map(|(_, received)| {
            let stage = received.stage()?;
            Some(Known { recipient: received.name.to_string(), stage, time: received.since.0 })
        });
        of_it.collect()
    }
}
