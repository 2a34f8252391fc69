//! The durable subscriptions of this node: who holds them, and for how long they are remembered.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::command::DurableHere;
use super::store::Job;
use super::subscription::{HOLDERS, Subscription, Terms};
use super::{NOTED, PostAnswer, Postman, Purpose, answer};
use crate::mesh::effects::Effects;
use crate::mesh::event::{HolderId, Ticket};
use crate::mesh::time::Now;
use crate::wire::roster::{Durable, MAX_DURABLES};

impl Postman {
    /// Holds a durable subscription, which is made if it is not there.
    pub(crate) fn hold(
        &mut self,
        ticket: Ticket,
        holder: HolderId,
        (name, pattern, terms): (Arc<str>, Arc<str>, Terms),
        now: Now,
        fx: &mut Effects,
    ) {
        if let Some(why) = &self.none {
            return answer(fx, ticket, PostAnswer::NoStore(why.clone()));
        }
        let one = self.inbox.subscriptions.get(&name);
        let arriving = self.jobs.open.values().find_map(|purpose| {
            let Purpose::Hold { name: other, pattern, .. } = purpose else { return None };
            (*other == name).then(|| Arc::clone(pattern))
        });
        let has = one.map(|one| Arc::clone(&one.pattern)).or(arriving);
        let why = match has {
            Some(other) if other != pattern => {
                Some(format!("this node has it with the pattern {other}: remove that first, or use another name"))
            }
            None if self.inbox.subscriptions.len() >= MAX_DURABLES => {
                Some(format!("this node has {MAX_DURABLES} durable subscriptions already: remove one"))
            }
            Some(_) if one.is_some_and(|one| one.holders() >= HOLDERS) => {
                Some(format!("{HOLDERS} subscribers of this node hold it already: use another node"))
            }
            Some(_) | None => None,
        };
        if let Some(why) = why {
            return answer(fx, ticket, PostAnswer::Held(why));
        }
        let changes = Subscription::new(Arc::clone(&pattern)).write(&name, now.wall).into_iter().collect();
        let purpose = Purpose::Hold { ticket, holder, name, pattern, terms };
        self.jobs.begin(Job { changes, reads: Vec::new() }, purpose, fx);
    }

    /// Returns whether that one held anything.
    pub(crate) fn release(&mut self, holder: HolderId) -> bool {
        self.stale = true;
        for purpose in self.jobs.open.values_mut() {
            if let Purpose::Hold { ticket, holder: other, .. } = purpose
                && *other == holder
            {
                *purpose = Purpose::Answer { ticket: *ticket };
            }
        }
        self.inbox.release(holder)
    }

    /// Forgets a durable subscription, and what came for it. True if there was one.
    pub(crate) fn remove(&mut self, ticket: Ticket, name: &str, fx: &mut Effects) -> bool {
        if !self.inbox.subscriptions.contains_key(name) {
            answer(fx, ticket, PostAnswer::Nobody);
            return false;
        }
        let changes = self.inbox.remove_subscription(name);
        self.jobs.begin(Job { changes, reads: Vec::new() }, Purpose::Answer { ticket }, fx);
        true
    }

    /// Writes down once a day which subscriptions are held.
    pub(super) fn note_held(&mut self, now: Now, fx: &mut Effects) {
        if self.held_at.is_some_and(|at| at > now.mono) {
            return;
        }
        self.held_at = Some(now.mono + NOTED);
        let held = self.inbox.subscriptions.iter().filter(|(_, one)| one.holders() > 0);
        let changes: Vec<_> = held.filter_map(|(name, one)| one.write(name, now.wall)).collect();
        if !changes.is_empty() {
            self.jobs.note(changes, fx);
        }
    }

    /// The durable subscriptions of this node, held or not.
    pub(crate) fn durables(&self) -> Vec<Durable> {
        let all = self.inbox.subscriptions.iter();
        let durable = |(name, one): (&Arc<str>, &Subscription)| Durable {
            name: name.to_string(),
            pattern: one.pattern.to_string(),
            window: u32::try_from(one.window()).unwrap_or(u32::MAX),
        };
        all.map(durable).collect()
    }

    /// What is known of one of them.
    pub(crate) fn here(&self, name: &str) -> Option<DurableHere> {
        let one = self.inbox.subscriptions.get(name)?;
        Some(DurableHere { holders: one.holders(), waiting: one.len() })
    }

    /// Their names, and how many letters their subscribers take at once.
    pub(crate) fn windows(&self) -> BTreeMap<Arc<str>, usize> {
        self.inbox.subscriptions.iter().map(|(name, one)| (Arc::clone(name), one.window())).collect()
    }
}
