//! Letters that leave this node without an acknowledgement: their senders want them back, or nobody could handle them.

use super::Jobs;
use super::inbox::{Inbox, Verdict};
use super::received::{Received, Standing};
use super::store::{Change, Key, Table};
use crate::mesh::effects::Effects;
use crate::mesh::time::Wall;
use crate::wire::letter::StandingRow;
use crate::wire::rpc::{Fate, Offered};

impl Inbox {
    /// Whether a letter that its sender had back is given to this node once more. What was under way from before is not.
    pub(super) fn is_given_again(&self, number: u64, offered: &Offered) -> bool {
        let withdrawn = |one: &&Received| matches!(one.standing, Standing::Withdrawn(_));
        !offered.sealed.is_empty()
            && self
                .received
                .get(&number)
                .map(AsRef::as_ref)
                .filter(withdrawn)
                .is_some_and(|one| one.lease < offered.lease)
    }

    /// Its sender wants a letter back. It gets it unless somebody has it.
    pub(super) fn give_up(&mut self, number: u64, now: Wall, changes: &mut Vec<Change>) -> Verdict {
        let Some(received) = self.received.get_mut(&number) else { return Verdict::OnDisk(number) };
        let Some(subscription) = self.subscriptions.get_mut(&received.name) else { return Verdict::OnDisk(number) };
        if received.standing != Standing::Stored || subscription.is_out(number) {
            return Verdict::OnDisk(number);
        }
        let attempts = subscription.attempts(number);
        received.standing = Standing::Leaving;
        subscription.forget(number);
        changes.extend(received.put(number, attempts, StandingRow::Withdrawn, now));
        changes.push(Change::Delete(Key::number(Table::Inbox, number)));
        Verdict::Leaving(number, attempts)
    }

    /// A letter that its sender wanted back is gone from the disk, or not: then it waits here as before.
    pub(super) fn left(&mut self, number: u64, attempts: u32, written: bool) -> Fate {
        let Some(received) = self.received.get_mut(&number) else { return Fate::Withdrawn { attempts } };
        if written {
            received.standing = Standing::Withdrawn(attempts);
            self.bytes -= received.bytes;
            return Fate::Withdrawn { attempts };
        }
        received.standing = Standing::Stored;
        if let Some(subscription) = self.subscriptions.get_mut(&received.name) {
            subscription.put(number, attempts);
        }
        Fate::Stored
    }

    /// These were handed out as often as they may be. What is not written down of that is found out again.
    pub(super) fn poison(&mut self, numbers: Vec<u64>, now: Wall, jobs: &mut Jobs, fx: &mut Effects) {
        let mut changes = Vec::new();
        for number in numbers {
            let Some(received) = self.received.get_mut(&number) else { continue };
            let attempts = self.subscriptions.get(&received.name).map_or(0, |one| one.attempts(number));
            changes.extend(received.put(number, attempts, StandingRow::Poison, now));
            changes.push(Change::Delete(Key::number(Table::Inbox, number)));
            self.bytes -= received.bytes;
            (received.standing, received.since) = (Standing::Poison, now);
            if let Some(subscription) = self.subscriptions.get_mut(&received.name) {
                subscription.forget(number);
            }
        }
        if !changes.is_empty() {
            jobs.note(changes, fx);
        }
    }
}
