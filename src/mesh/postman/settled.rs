//! What is left at recipients of messages that are processed, and when it goes.
//!
//! A recipient remembers what it has processed, so that it does not take it again. Once its sender has written that down, nobody
//! offers it any more, but for what is late on its way. So the sender says which are settled, and the recipient forgets these, and
//! writes down which exchange said so: it takes nothing from exchanges before that. The latest are not forgotten yet, for those who
//! ask where a message is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use libp2p_identity::PeerId;

use super::custody::Closing;
use super::entry::Entry;
use super::inbox::Inbox;
use super::node::ASKED;
use super::store::{Change, Key, Table};
use super::{Directory, Processed};
use crate::MessageId;
use crate::mesh::time::{Mono, Span, Wall};
use crate::wire::letter::{self, FloorRow};
use crate::wire::node_key::NodeKey;
use crate::wire::rpc::Turn;

/// So many of the latest each recipient keeps.
const KEPT: usize = 1_000;
/// What was offered so long ago is not on its way any more.
const LATE: Span = Span::secs(60);
/// What is so late on its way has long been lost.
const REMEMBERED: Span = Span::secs(24 * 60 * 60);

/// Messages that a node has processed for a recipient, which their sender has written down.
#[derive(Debug)]
pub(super) struct Settled {
    by: BTreeMap<(Arc<str>, PeerId), VecDeque<MessageId>>,
    /// Those that others may have offered a moment ago, and from when on nothing of that is under way.
    late: VecDeque<(Mono, Processed)>,
    pub(super) kept: usize,
}

impl Default for Settled {
    fn default() -> Self {
        Self { by: BTreeMap::new(), late: VecDeque::new(), kept: KEPT }
    }
}

impl Settled {
    pub(super) fn add(&mut self, name: Arc<str>, at: PeerId, ids: Vec<MessageId>) {
        self.by.entry((name, at)).or_default().extend(ids);
    }

    /// Takes over what all know who have copies, for a while later: they may have offered it a moment ago. Returns whether there was anything.
    pub(super) fn take_over(&mut self, entry: &mut Entry, now: Mono) -> bool {
        let id = entry.id;
        let Some(given) = entry.given() else { return false };
        let known = given.closing.extract_if(.., |closing| closing.left.is_empty());
        let known: Vec<Closing> = known.collect();
        let any = !known.is_empty();
        for Closing { to, by, .. } in known {
            let processed = by.map(|by| Processed { name: to, at: *by, ids: vec![id] });
            self.late.extend(processed.map(|processed| (now + LATE, processed)));
        }
        any
    }

    /// Those that the node is to forget now.
    pub(super) fn take(&mut self, name: &Arc<str>, at: PeerId, now: Mono) -> Vec<MessageId> {
        while self.late.front().is_some_and(|(from, _)| *from <= now)
            && let Some((_, Processed { name, at, ids })) = self.late.pop_front()
        {
            self.add(name, at, ids);
        }
        let Some(ids) = self.by.get_mut(&(Arc::clone(name), at)) else { return Vec::new() };
        let surplus = ids.len().saturating_sub(self.kept);
        ids.drain(..surplus.min(ASKED)).collect()
    }

    /// The node was not told of these, or may not have been.
    pub(super) fn give_back(&mut self, name: &Arc<str>, at: PeerId, untold: Vec<MessageId>) {
        if !untold.is_empty() {
            let ids = self.by.entry((Arc::clone(name), at)).or_default();
            *ids = untold.into_iter().chain(std::mem::take(ids)).collect();
        }
    }

    /// A node that is gone forgets them when their time is over.
    pub(super) fn directory_changed(&mut self, directory: &impl Directory) {
        self.by.retain(|(_, at), _| directory.is_live(*at));
        self.late.retain(|(_, processed)| directory.is_live(processed.at));
    }
}

/// The last exchange with a sender that settled something, and when it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    pub(super) turn: Turn,
    pub(super) since: Wall,
}

impl Floor {
    /// Reads one that an earlier run wrote, with its recipient and sender. None if it is damaged, or from long ago.
    pub(super) fn read(key: &Key, row: &[u8], now: Wall) -> Option<((Arc<str>, PeerId), Self)> {
        let (sender, name) = key.key.split_first_chunk()?;
        let FloorRow { run, count, since } = letter::read(row).ok()?;
        let floor = Self { turn: Turn { run, count }, since: Wall(since) };
        let name = std::str::from_utf8(name).ok()?;
        (now - floor.since < REMEMBERED).then_some(((name.into(), NodeKey(*sender).peer()?), floor))
    }

    pub(super) fn put(&self, name: &str, from: PeerId) -> Option<Change> {
        let key = Key { table: Table::Floors, key: [&NodeKey::of(&from)?.0, name.as_bytes()].concat().into() };
        let Turn { run, count } = self.turn;
        let row = letter::write(&FloorRow { run, count, since: self.since.0 }).ok()?;
        Some(Change::Put(key, row))
    }
}

impl Inbox {
    /// Whether an exchange was late on its way: what it offers may have been forgotten since.
    pub(super) fn is_late(&self, name: &Arc<str>, from: PeerId, turn: Turn) -> bool {
        self.floors.get(&(Arc::clone(name), from)).is_some_and(|floor| turn < floor.turn)
    }

    /// Forgets what is left of messages that are settled.
    pub(super) fn settle(
        &mut self,
        (name, from): (&Arc<str>, PeerId),
        turn: Turn,
        settled: &[MessageId],
        now: Wall,
        changes: &mut Vec<Change>,
    ) {
        let numbers = settled.iter().filter_map(|id| self.known(*id, name, &from)).collect::<Vec<_>>();
        let over = |number: &u64| self.received.get(number).is_some_and(|one| !one.standing.is_open());
        let over: Vec<u64> = numbers.into_iter().filter(over).collect();
        if over.is_empty() {
            return;
        }
        for number in over {
            self.remove(number);
            // Its letter went when it was processed.
            changes.push(Change::Delete(Key::number(Table::Received, number)));
        }
        let floor = Floor { turn, since: now };
        changes.extend(floor.put(name, from));
        self.floors.insert((Arc::clone(name), from), floor);
    }
}
