//! The nodes that keep copies for this one: what each is given, asked and told next.
//!
//! With each of them one exchange is under way at a time, as with recipients. Who may have a copy is on disk before it is given one, so
//! that this node knows whom to ask when it has started again, and when a message's time is over; and each learns when no
//! copy is needed any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use libp2p_identity::PeerId;

use super::custody::{Closing, Given, Over};
use super::entry::Entry;
use super::node::{ASKED, BATCH, RETRY, later};
use super::numbers::Numbers;
use super::{Directory, Offers};
use crate::MessageId;
use crate::mesh::effects::Effects;
use crate::mesh::time::Mono;
use crate::wire::custody::End;
use crate::wire::node_key::NodeKey;

/// The bytes of the letters of one exchange, unless there is one only.
const BATCH_BYTES: u64 = 256 * 1024;

/// So often one is dialled before another is given what it was to keep.
const TRIES: u32 = 3;

/// What is to be said to one of them, and what is being said.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Messages that it is to keep.
    keep: Numbers,
    /// Those of which it is asked what it knows.
    ask: Numbers,
    /// Recipients for whom it need not keep them.
    release: BTreeSet<(u64, Arc<str>)>,
    exchange: Option<Entrusting>,
    linked: bool,
    tries: u32,
    next_at: Mono,
}

/// An exchange with one who keeps copies.
#[derive(Clone, Debug, Default)]
pub(super) struct Entrusting {
    pub(super) keep: Vec<u64>,
    pub(super) ask: Vec<(u64, MessageId)>,
    pub(super) release: Vec<(u64, Arc<str>, MessageId)>,
}

#[derive(Debug, Default)]
pub(super) struct Custodians {
    desks: BTreeMap<PeerId, Desk>,
    /// When the next one is turned to.
    wake: Option<Mono>,
}

impl Desk {
    fn is_idle(&self) -> bool {
        self.exchange.is_none() && self.keep.is_empty() && self.ask.is_empty() && self.release.is_empty()
    }

    fn take(&mut self, entries: &BTreeMap<u64, Box<Entry>>) -> Entrusting {
        let mut bytes = 0;
        let fits = |number: &u64| {
            let is_first = bytes == 0;
            bytes += entries.get(number).map_or(0, |entry| u64::from(entry.bytes));
            is_first || bytes <= BATCH_BYTES
        };
        let keep: Vec<u64> = self.keep.iter().take(BATCH).take_while(fits).collect();
        let mut recipients = 0;
        let is_short = |number: &u64| {
            let is_first = recipients == 0;
            recipients += entries.get(number).map_or(1, |entry| entry.owed.len() + 1);
            is_first || recipients <= ASKED
        };
        // The answer has something to say of each recipient.
        let ask: Vec<u64> = self.ask.iter().take_while(is_short).collect();
        let mut release: Vec<_> = self.release.iter().take(ASKED).cloned().collect();
        // What it is given in this exchange it can let go of in the next one.
        release.retain(|(number, _)| !keep.contains(number));
        for number in &keep {
            self.keep.remove(*number);
        }
        for number in &ask {
            self.ask.remove(*number);
        }
        for one in &release {
            self.release.remove(one);
        }
        let id = |number: u64| Some(entries.get(&number)?.id);
        Entrusting {
            keep: keep.into_iter().filter(|number| entries.contains_key(number)).collect(),
            ask: ask.into_iter().filter_map(|number| Some((number, id(number)?))).collect(),
            release: release.into_iter().filter_map(|(number, to)| Some((number, to, id(number)?))).collect(),
        }
    }
}

impl Custodians {
    /// A message is to be kept by one of them.
    pub(super) fn keep(&mut self, at: PeerId, number: u64) {
        self.desks.entry(at).or_default().keep.insert(number);
        self.wake = Some(Mono(0));
    }

    /// They are asked what they know of a message.
    pub(super) fn ask(&mut self, of: &BTreeSet<Arc<PeerId>>, number: u64) {
        for at in of {
            self.desks.entry(**at).or_default().ask.insert(number);
        }
        self.wake = Some(Mono(0));
    }

    /// A node was done with a message for a recipient. Returns whether that is all: those who keep copies are told first, or its sender is
    /// when it asks.
    pub(super) fn end(
        &mut self,
        number: u64,
        entry: &mut Entry,
        (name, at): (&Arc<str>, PeerId),
        (end, receipt): (End, Bytes),
    ) -> bool {
        entry.release(name);
        if let Some(kept) = entry.kept_mut() {
            let over = |at| Over { name: Arc::clone(name), at, end, receipt };
            kept.over.extend(NodeKey::of(&at).map(over));
            return false;
        }
        self.close(number, entry, name, Some(Arc::new(at)))
    }

    /// A recipient needs nothing any more. Returns whether nobody has to be told.
    pub(super) fn close(&mut self, number: u64, entry: &mut Entry, to: &Arc<str>, by: Option<Arc<PeerId>>) -> bool {
        let is_last = entry.owed.is_empty();
        let Some(given) = entry.given() else { return true };
        if is_last {
            let dropped = given.drop_plans();
            for closing in &mut given.closing {
                closing.left.retain(|at| !dropped.contains(at));
            }
            for at in dropped {
                if let Some(desk) = self.desks.get_mut(&at) {
                    desk.keep.remove(number);
                }
            }
        }
        let left = given.holders();
        if left.is_empty() {
            return true;
        }
        self.release(number, &left, to);
        given.closing.push(Closing { to: Arc::clone(to), by, left });
        false
    }

    /// They are to be told so.
    pub(super) fn release(&mut self, number: u64, left: &BTreeSet<Arc<PeerId>>, to: &Arc<str>) {
        for at in left {
            self.desks.entry(**at).or_default().release.insert((number, Arc::clone(to)));
        }
        self.wake = Some(Mono(0));
    }

    /// A message is gone, and all that was to be said of it.
    pub(super) fn forget(&mut self, number: u64, given: &Given) {
        for copy in &given.copies {
            if let Some(desk) = self.desks.get_mut(&*copy.at) {
                desk.keep.remove(number);
                desk.ask.remove(number);
                let of_it = desk.release.range((number, Arc::from(""))..).take_while(|(of, _)| *of == number);
                for one in of_it.cloned().collect::<Vec<_>>() {
                    desk.release.remove(&one);
                }
            }
        }
    }

    /// Begins the exchanges that are due. Returns them, and the messages that somebody was to keep who is not there.
    pub(super) fn begin(
        &mut self,
        entries: &BTreeMap<u64, Box<Entry>>,
        directory: &impl Directory,
        now: Mono,
        offers: &mut Offers,
        fx: &mut Effects,
    ) -> (Vec<PeerId>, Vec<(PeerId, u64)>) {
        let (mut begun, mut away) = (Vec::new(), Vec::new());
        if self.wake.is_none_or(|at| at > now) {
            return (begun, away);
        }
        self.desks.retain(|_, desk| !desk.is_idle());
        for (at, desk) in &mut self.desks {
            if desk.exchange.is_some() {
                continue;
            }
            let is_away = !directory.is_linked(*at) && (desk.tries >= TRIES || !directory.is_seen(*at));
            if is_away {
                away.extend(std::mem::take(&mut desk.keep).iter().map(|number| (*at, number)));
            }
            if !directory.is_live(*at) {
                continue;
            }
            if desk.next_at > now || desk.is_idle() {
                continue;
            }
            if directory.is_linked(*at) {
                desk.exchange = Some(desk.take(entries));
                begun.push(*at);
            } else {
                offers.dials.push(*at);
                desk.next_at = now + later(RETRY, &mut desk.tries, fx);
            }
        }
        let waiting = self.desks.iter().filter(|(at, desk)| desk.exchange.is_none() && directory.is_live(**at));
        self.wake = waiting.filter(|(_, desk)| !desk.is_idle()).map(|(_, desk)| desk.next_at.max(now)).min();
        (begun, away)
    }

    pub(super) fn under_way(&self, at: PeerId) -> Option<&Entrusting> {
        self.desks.get(&at)?.exchange.as_ref()
    }

    /// An exchange is over.
    pub(super) fn take(&mut self, at: PeerId) -> Option<Entrusting> {
        let desk = self.desks.get_mut(&at)?;
        (desk.tries, self.wake) = (0, Some(Mono(0)));
        desk.exchange.take()
    }

    /// It led nowhere, and is begun again. Returns what the other side may not have got.
    pub(super) fn give_back(&mut self, at: PeerId, now: Mono, fx: &mut Effects) -> Vec<u64> {
        self.wake = Some(Mono(0));
        let Some(desk) = self.desks.get_mut(&at) else { return Vec::new() };
        desk.next_at = now + later(RETRY, &mut desk.tries, fx);
        let Some(Entrusting { keep, ask, release }) = desk.exchange.take() else { return Vec::new() };
        desk.keep.extend(keep.iter().copied());
        desk.ask.extend(ask.into_iter().map(|(number, _)| number));
        desk.release.extend(release.into_iter().map(|(number, to, _)| (number, to)));
        keep
    }

    /// Those that are linked anew are turned to at once.
    pub(super) fn directory_changed(&mut self, directory: &impl Directory, now: Mono) {
        for (at, desk) in &mut self.desks {
            let is_linked = directory.is_linked(*at);
            if !std::mem::replace(&mut desk.linked, is_linked) && is_linked {
                (desk.tries, desk.next_at) = (0, now);
            }
        }
        if !self.desks.is_empty() {
            self.wake = Some(Mono(0));
        }
    }

    pub(super) fn next(&self) -> Option<Mono> {
        self.wake
    }
}
