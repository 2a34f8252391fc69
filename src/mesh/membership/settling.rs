//! How a node arrives and how it goes: the first look-around, finishing what was accepted, and the goodbye.

use crate::mesh::Mesh;
use crate::mesh::event::{Answer, Output, Ticket};
use crate::mesh::time::{Mono, Now, Span};

/// Those who are found by multicast DNS or at given addresses are found within this time, if nobody was before.
const LOOK_FURTHER: Span = Span::millis(1_000);
/// With somebody found, others whose dials are under way are waited for so long.
const LOOK_AROUND: Span = Span::millis(250);
/// How long those are waited for who are known to be there and do not answer.
const PATIENCE: Span = Span::secs(4);
/// How long a node that leaves waits until its neighbours have what it published.
const LAST_HEADS: Span = Span::secs(1);

/// How things stand with the others.
#[derive(Clone, Copy, Debug)]
struct Seen {
    linked: usize,
    /// Those who are linked have told what they know.
    all_told: bool,
    dialling: usize,
    /// Those who are known, not linked, and may be dialled again.
    prospects: usize,
}

/// The first look-around of a node: until it is over, not knowing somebody does not mean that nobody is there.
#[derive(Debug)]
pub(in crate::mesh) struct Settling {
    over: bool,
    /// The host's registry was looked through.
    looked: bool,
    /// When to stop looking, if nobody was found.
    until: Mono,
    /// Since when somebody is found, and has told what it knows.
    found: Option<Mono>,
    /// When `advance` last looked: a moment before that changes nothing any more.
    looked_at: Mono,
    waiting: Vec<Ticket>,
}

impl Settling {
    pub(in crate::mesh) fn new(looks_local: bool, looks_further: bool, now: Mono) -> Self {
        let until = if looks_further { now + LOOK_FURTHER } else { now };
        Self { over: false, looked: !looks_local, until, found: None, looked_at: now, waiting: Vec::new() }
    }

    pub(in crate::mesh) fn looked(&mut self) {
        self.looked = true;
    }

    pub(in crate::mesh) fn wait(&mut self, ticket: Ticket) {
        self.waiting.push(ticket);
    }

    pub(in crate::mesh) fn abandoned(&mut self, ticket: Ticket) {
        self.waiting.retain(|waiting| *waiting != ticket);
    }

    pub(in crate::mesh) fn is_over(&self) -> bool {
        self.over
    }

    /// The next moment at which time alone may end it. After `until`, somebody who is linked or dialled has the word, and
    /// the last of these moments bounds how long.
    pub(in crate::mesh) fn next_timeout(&self) -> Option<Mono> {
        let moments = [Some(self.until), self.found.map(|found| found + LOOK_AROUND), Some(self.at_the_latest())];
        moments.into_iter().flatten().filter(|at| !self.over && *at > self.looked_at).min()
    }

    /// Somebody who is linked and never tells anything, or who is known and never answers, must not keep everybody waiting.
    fn at_the_latest(&self) -> Mono {
        self.until + PATIENCE
    }

    /// Looks at how things stand, while it is not over.
    fn advance(&mut self, seen: &Seen, now: Mono) {
        let Seen { linked, all_told, dialling, prospects } = *seen;
        self.looked_at = now;
        if linked > 0 && all_told {
            self.found = self.found.or(Some(now));
        }
        self.over = match self.found {
            Some(found) => (self.looked && all_told && dialling == 0) || now >= found + LOOK_AROUND,
            // Whoever is known to be there may only be slow to answer.
            None => self.looked && linked == 0 && dialling == 0 && prospects == 0 && now >= self.until,
        };
        self.over |= now >= self.at_the_latest();
    }
}

/// A node that takes nothing new and finishes what it accepted.
#[derive(Debug)]
pub(in crate::mesh) struct Draining {
    tickets: Vec<Ticket>,
    /// Our record from which on the others count on nothing here.
    version: u64,
}

impl Draining {
    pub(in crate::mesh) fn abandoned(&mut self, ticket: Ticket) {
        self.tickets.retain(|waiting| *waiting != ticket);
    }
}

/// A goodbye under way.
#[derive(Debug)]
pub(in crate::mesh) struct Leaving {
    tickets: Vec<Ticket>,
    /// Neighbours that have not said yet that they have everything.
    open: usize,
    until: Mono,
    said: bool,
}

impl Leaving {
    fn new(now: Mono) -> Self {
        Self { tickets: Vec::new(), open: 0, until: now + LAST_HEADS, said: false }
    }

    pub(in crate::mesh) fn next_timeout(&self) -> Option<Mono> {
        (!self.said).then_some(self.until)
    }
}

impl Mesh {
    /// Goes on looking around. True once, when that is over: then those who wait for it are answered.
    pub(super) fn look_around(&mut self, now: Now) -> bool {
        let was_over = self.settling.over;
        if !was_over {
            let all_told = self.links.linked().all(|peer| self.told.contains(peer));
            let (linked, dialling) = (self.links.count(), self.links.dialling());
            let seen = Seen { linked, all_told, dialling, prospects: self.links.prospects(now) };
            self.settling.advance(&seen, now.mono);
        }
        if self.settling.over {
            for ticket in std::mem::take(&mut self.settling.waiting) {
                self.answer(ticket, Answer::Done);
            }
        }
        self.settling.over && !was_over
    }

    /// Serves and listens no more as far as the others know. What comes nevertheless, since they do not know yet, is sent
    /// elsewhere if it is a call, and delivered if it is a message.
    pub(in crate::mesh) fn drain(&mut self, ticket: Ticket, now: Now) {
        if self.draining.is_none() {
            self.draining = Some(Draining { tickets: Vec::new(), version: 0 });
            self.requests.drain();
            self.services_changed(None, now);
            self.interests_changed(now);
        }
        if let Some(draining) = &mut self.draining {
            draining.version = self.roster.version();
            draining.tickets.push(ticket);
        }
    }

    pub(super) fn go_on_draining(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        if self.requests.are_finished() && self.roster.is_announced(draining.version) {
            for ticket in std::mem::take(&mut draining.tickets) {
                self.fx.push(Output::Answer { ticket, answer: Answer::Done });
            }
        }
    }

    /// First those who listen get what they may have missed, then everybody hears the goodbye.
    pub(in crate::mesh) fn leave(&mut self, ticket: Ticket, now: Now) {
        let Leaving { tickets, .. } = self.leaving.get_or_insert_with(|| Leaving::new(now.mono));
        tickets.push(ticket);
        if let [_] = tickets.as_slice() {
            let told = self.last_heads(now);
            if let Some(leaving) = &mut self.leaving {
                leaving.open = told;
            }
        }
    }

    /// A neighbour has what we published, or does not answer.
    pub(in crate::mesh) fn last_heads_answered(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.open = leaving.open.saturating_sub(1);
        }
    }

    pub(super) fn go_on_leaving(&mut self, now: Now) {
        let Some(leaving) = &mut self.leaving else { return };
        if !leaving.said && (leaving.open == 0 || leaving.until <= now.mono) {
            leaving.said = true;
            self.roster.leave(now, &mut self.fx);
        }
        if leaving.said && self.roster.left_confirmed() {
            self.left = true;
            for ticket in std::mem::take(&mut leaving.tickets) {
                self.fx.push(Output::Answer { ticket, answer: Answer::Done });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often time alone wakes it, until it is over or waits for something else.
    fn wakes(settling: &mut Settling, linked: usize, dialling: usize) -> (u32, Mono) {
        let (mut now, mut wakes) = (Mono(0), 0);
        settling.advance(&Seen { linked, all_told: false, dialling, prospects: dialling }, now);
        while let Some(at) = settling.next_timeout() {
            assert!(at > now, "the driver would spin");
            (now, wakes) = (at, wakes + 1);
            settling.advance(&Seen { linked, all_told: false, dialling, prospects: dialling }, now);
        }
        (wakes, now)
    }

    #[test]
    fn a_look_around_that_waits_for_others_sets_no_timer_of_the_past() {
        let later = Mono(0) + LOOK_FURTHER + PATIENCE;
        for (linked, dialling, end) in [(0, 0, Mono(0) + LOOK_FURTHER), (1, 0, later), (0, 1, later), (1, 1, later)] {
            let mut settling = Settling::new(false, true, Mono(0));
            let (wakes, ended) = wakes(&mut settling, linked, dialling);
            assert!(wakes <= 2 && ended == end && settling.is_over(), "{linked} linked, {dialling} dialling");
        }
        let mut settling = Settling::new(false, true, Mono(0));
        settling.advance(&Seen { linked: 1, all_told: true, dialling: 1, prospects: 1 }, Mono(5));
        assert_eq!(settling.next_timeout(), Some(Mono(5) + LOOK_AROUND));
    }
}
