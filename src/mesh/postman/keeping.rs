//! Copies of the messages of others, which are kept here: taken, told of, delivered while their sender is not seen, and forgotten.

use std::sync::Arc;

use libp2p_identity::PeerId;

use super::custody::{Custody, Kept, Over};
use super::entry::{Entry, Owed};
use super::outbox::Outbox;
use super::settled::Floor;
use super::store::{Change, Job, Key, Table};
use super::{Jobs, Purpose};
use crate::MessageId;
use crate::mesh::effects::Effects;
use crate::mesh::event::InboundId;
use crate::mesh::time::{Now, Span, Wall};
use crate::wire::custody::{Copied, CopyStage, Entrusted, Released};
use crate::wire::letter::{self, KeptRow, Letter, LetterRow};
use crate::wire::node_key::NodeKey;
use crate::wire::rpc::{Response, Turn};

/// After a message's time it is remembered for so long what became of it, for its sender.
const REMEMBERED: Span = Span::secs(30 * 24 * 60 * 60);
/// And so long once that one has asked.
const FETCHED: Span = Span::secs(10 * 60);
/// No message has more time than that.
const LONGEST: Span = Span::secs(31 * 24 * 60 * 60);
/// The part of the outbox that copies of others may take up.
const SHARE: usize = 2;

/// What a node gives this one to keep, asks, and tells.
#[derive(Debug)]
pub(crate) struct Keeping {
    /// Where the answer goes.
    pub(crate) to: InboundId,
    pub(crate) from: PeerId,
    pub(crate) turn: Turn,
    /// Letters, each opened if it is as it was sealed.
    pub(crate) letters: Vec<(Entrusted, Option<Letter>)>,
    pub(crate) asked: Vec<MessageId>,
    pub(crate) released: Vec<Released>,
}

/// What is answered to it when all is on disk.
#[derive(Debug)]
pub(super) struct KeptNow {
    pub(super) to: InboundId,
    sender: NodeKey,
    /// The place of each that is kept.
    kept: Vec<Option<u64>>,
    /// Those that are new.
    new: Vec<u64>,
    known: Vec<Copied>,
    /// What was let go of.
    gone: Vec<Change>,
}

impl Outbox {
    /// Takes up a copy that an earlier run kept.
    pub(super) fn restore_kept(&mut self, number: u64, row: KeptRow) {
        self.begin_at(number + 1);
        let Some(from) = row.from.peer() else { return };
        let over = row.over.into_iter().map(|over| Over {
            name: over.name.into(),
            at: over.at,
            end: over.end,
            receipt: over.receipt,
        });
        let (from, over): (_, Vec<Over>) = (self.nodes.of(Arc::new(from)), over.collect());
        let has_letter = !row.message.owed.is_empty();
        let kept = Kept { from, rank: row.rank, signature: row.signature, over, has_letter, is_fetched: false };
        let entry = Entry::restored(row.message, Some(Custody::Kept(kept)));
        self.insert_kept(number, Box::new(entry));
    }

    fn insert_kept(&mut self, number: u64, entry: Box<Entry>) {
        let bytes = u64::from(entry.bytes);
        if entry.kept().is_some_and(|kept| kept.has_letter) {
            (self.bytes, self.kept_bytes) = (self.bytes + bytes, self.kept_bytes + bytes);
        }
        self.kept.insert((entry.id, number));
        self.insert(number, entry);
        self.enter(number);
    }

    /// The copy of a message of that node.
    fn kept_of(&self, from: PeerId, id: MessageId) -> Option<u64> {
        let of_id = self.kept.range((id, 0)..=(id, u64::MAX)).map(|(_, number)| *number);
        let is_its = |number: &u64| {
            let kept = self.entries.get(number).and_then(|entry| entry.kept());
            kept.is_some_and(|kept| *kept.from == from)
        };
        of_id.into_iter().find(is_its)
    }

    /// Takes what a node gives this one to keep. The answer goes out when it is on disk.
    pub(super) fn keep(
        &mut self,
        Keeping { to, from, turn, letters, asked, released }: Keeping,
        limits: (usize, usize),
        now: Now,
        jobs: &mut Jobs,
        fx: &mut Effects,
    ) {
        let Some(sender) = NodeKey::of(&from) else { return };
        let mut changes = Vec::new();
        self.let_go(from, turn, &released, now.wall, &mut changes);
        // What could not be deleted before is deleted before anything is said.
        changes.append(&mut jobs.undone);
        let gone = changes.clone();
        // One that was given before something was let go of may be late on its way.
        let is_late = self.kept_floors.get(&from).is_some_and(|floor| turn < floor.turn);
        let (mut kept, mut new) = (Vec::new(), Vec::new());
        for (entrusted, letter) in letters {
            let known = letter.as_ref().and_then(|letter| self.kept_of(from, letter.id));
            let has_room = !is_late && self.has_room(limits);
            kept.push(known.or_else(|| {
                let letter = letter.filter(|letter| has_room && Wall(letter.expires) > now.wall)?;
                let number = self.keep_one(from, entrusted, letter, now.wall, &mut changes)?;
                new.push(number);
                Some(number)
            }));
        }
        let known = asked.into_iter().filter_map(|id| self.kept_of(from, id)).collect::<Vec<_>>();
        let known = known.into_iter().flat_map(|number| self.word_of(number, now.wall)).collect();
        let kept = KeptNow { to, sender, kept, new, known, gone };
        jobs.begin(Job { changes, reads: Vec::new() }, Purpose::Keep(kept), fx);
    }

    fn has_room(&self, (most, most_bytes): (usize, usize)) -> bool {
        let most_bytes = u64::try_from(most_bytes / SHARE).unwrap_or(u64::MAX);
        self.kept.len() < most / SHARE && self.kept_bytes < most_bytes
    }

    fn keep_one(
        &mut self,
        from: PeerId,
        Entrusted { rank, to, signature, sealed }: Entrusted,
        letter: Letter,
        now: Wall,
        changes: &mut Vec<Change>,
    ) -> Option<u64> {
        let expires = Wall(letter.expires);
        if expires - now > LONGEST || signature.is_empty() || to.is_empty() {
            return None;
        }
        let kept = Kept {
            from: self.nodes.of(Arc::new(from)),
            rank,
            signature,
            over: Vec::new(),
            has_letter: true,
            is_fetched: false,
        };
        let entry = Entry {
            id: letter.id,
            topic: letter.topic.into(),
            time: Wall(letter.time),
            expires,
            bytes: u32::try_from(sealed.len() + to.iter().map(String::len).sum::<usize>()).ok()?,
            owed: to.iter().map(|to| Owed::new(to.as_str().into())).collect(),
            told: 0,
            custody: Some(Box::new(Custody::Kept(kept))),
        };
        let row = letter::write(&LetterRow { sealed, to }).ok()?;
        let number = self.next;
        self.begin_at(number + 1);
        changes.extend(entry.changes(number));
        changes.push(Change::Put(Key::number(Table::KeptLetters, number), row));
        self.insert_kept(number, Box::new(entry));
        Some(number)
    }

    /// Its sender needs no copy for these any more.
    fn let_go(&mut self, from: PeerId, turn: Turn, released: &[Released], now: Wall, changes: &mut Vec<Change>) {
        let mut any = false;
        for Released { id, to } in released {
            let Some(number) = self.kept_of(from, *id) else { continue };
            let Some(entry) = self.entries.get_mut(&number) else { continue };
            let address = entry.address(&to.as_str().into());
            entry.release(to);
            if let Some(kept) = entry.kept_mut() {
                kept.over.retain(|over| *over.name != **to);
            }
            if let Some(recipient) = self.recipients.get_mut(&address) {
                recipient.forget(number);
            }
            self.write(number, changes);
            any = true;
        }
        if any && self.kept_floors.get(&from).is_none_or(|floor| floor.turn < turn) {
            let floor = Floor { turn, since: now };
            changes.extend(floor.put("", from));
            self.kept_floors.insert(from, floor);
        }
    }

    /// What is known of a message that is kept, for its sender. Once its time is over it is forgotten soon after that.
    fn word_of(&mut self, number: u64, now: Wall) -> Vec<Copied> {
        let Some(entry) = self.entries.get_mut(&number) else { return Vec::new() };
        let (id, expires) = (entry.id, entry.expires);
        let open = entry.owed.iter().map(|owed| {
            let given = owed.stored().map(|(to, since)| CopyStage::Given { to, since });
            Copied { id, to: owed.to.to_string(), stage: given.unwrap_or(CopyStage::Waiting) }
        });
        let mut word: Vec<Copied> = open.collect();
        if let Some(kept) = entry.kept_mut() {
            word.extend(kept.over.iter().map(|over| Copied {
                id,
                to: over.name.to_string(),
                stage: CopyStage::Over { at: over.at, end: over.end, receipt: over.receipt.clone() },
            }));
            if expires <= now && !std::mem::replace(&mut kept.is_fetched, true) {
                self.due.insert(now + FETCHED, number);
            }
        }
        word
    }

    /// What a node gave this one is on disk, or could not be written.
    pub(super) fn kept_now(&mut self, kept: KeptNow, written: bool, jobs: &mut Jobs, fx: &mut Effects) {
        let KeptNow { to, sender, kept, new, known, gone } = kept;
        if !written {
            new.into_iter().for_each(|number| self.drop_kept(number));
            if !gone.is_empty() {
                // A copy that is on disk still would be delivered after the next start: its sender is to say again that it need not be.
                jobs.undone.extend(gone.into_iter().filter(|change| matches!(change, Change::Delete(_))));
                return fx.reply(to, Response::done());
            }
        }
        let is_kept = |number: Option<u64>| number.is_some_and(|number| self.entries.contains_key(&number));
        let kept = kept.into_iter().map(is_kept).collect();
        fx.reply(to, Response::Kept { sender, kept, known, extensions: Vec::new() });
    }

    /// The time of a copy is over: its letter goes. Later what is known of it goes, too.
    pub(super) fn expire_kept(&mut self, number: u64, now: Wall, changes: &mut Vec<Change>) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let (expires, bytes) = (entry.expires, u64::from(entry.bytes));
        let addresses: Vec<_> = entry.owed.iter().map(|owed| entry.address(&owed.to)).collect();
        let is_known = entry.owed.iter().any(|owed| owed.by.is_some());
        let Some(kept) = entry.kept_mut() else { return };
        let is_told = kept.is_fetched || expires + REMEMBERED <= now || !is_known && kept.over.is_empty();
        if std::mem::replace(&mut kept.has_letter, false) {
            (self.bytes, self.kept_bytes) = (self.bytes - bytes, self.kept_bytes - bytes);
        }
        for address in addresses {
            if let Some(recipient) = self.recipients.get_mut(&address) {
                recipient.forget(number);
            }
        }
        if is_told {
            self.drop_kept(number);
            changes.extend([Table::Kept, Table::KeptLetters].map(|table| Change::Delete(Key::number(table, number))));
        } else {
            changes.push(Change::Delete(Key::number(Table::KeptLetters, number)));
            self.due.insert(expires + REMEMBERED, number);
        }
    }

    /// The letter of a copy goes as soon as no recipient wants it.
    pub(super) fn drop_letter(&mut self, number: u64) {
        let Some(entry) = self.entries.get_mut(&number).filter(|entry| entry.owed.is_empty()) else { return };
        let bytes = u64::from(entry.bytes);
        if let Some(kept) = entry.kept_mut()
            && std::mem::replace(&mut kept.has_letter, false)
        {
            (self.bytes, self.kept_bytes) = (self.bytes - bytes, self.kept_bytes - bytes);
        }
    }

    pub(super) fn drop_kept(&mut self, number: u64) {
        let Some(entry) = self.entries.remove(&number) else { return };
        self.kept.remove(&(entry.id, number));
        let bytes = u64::from(entry.bytes);
        if entry.kept().is_some_and(|kept| kept.has_letter) {
            (self.bytes, self.kept_bytes) = (self.bytes - bytes, self.kept_bytes - bytes);
        }
        for owed in &entry.owed {
            if let Some(recipient) = self.recipients.get_mut(&entry.address(&owed.to)) {
                recipient.forget(number);
            }
        }
    }
}
