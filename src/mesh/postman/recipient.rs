//! One recipient of guaranteed messages, as its sender sees it: what is owed to it, which nodes hold it, and when to turn to each
//! of them again.
//!
//! Where one node holds it, all that is owed goes there, in its order. Where several do, it is a work queue: each gets its share, and
//! no more than its subscribers take at once. What a node has is leased to it for as long as it is linked, and a while longer.

use std::collections::{BTreeMap, BTreeSet};

use libp2p_identity::PeerId;

use super::node::{BATCH, Node, RETRY, RETRY_AT_MOST, later};
use super::numbers::Numbers;
use super::{Directory, Holders, Holding};
use crate::mesh::effects::Effects;
use crate::mesh::time::{Mono, Span};

/// After asking a node of a queue it is asked again so much later, twice as much each time.
const HUNGRY: Span = Span::millis(10);
/// A node of a queue that was not linked for so long loses what it has to the others, if there are any.
pub(super) const LEASE: Span = Span::secs(30);
/// This node takes as many letters for its own subscribers: they are on its disk already.
const AHEAD: usize = 256;

/// How an exchange ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It did not get there.
    NotSent,
    /// It may have.
    Unknown,
}

#[derive(Debug, Default)]
pub(super) struct Recipient {
    /// What no node has.
    pub(super) pending: Numbers,
    pub(super) nodes: BTreeMap<PeerId, Node>,
    /// What came too late by the clock of a node: it is offered again a while later, so that it does not stand before the others.
    late: Numbers,
    late_until: Mono,
    /// What waits while its sender is there, which delivers it itself: this node keeps it only.
    held: Numbers,
    is_held: bool,
    is_kept: bool,
    /// Whether several nodes are known that have it, now or at other times.
    is_queue: bool,
    has_looked: bool,
    /// When time alone is next of interest.
    wake: Option<Mono>,
    /// Something happened since that was found out.
    is_stale: bool,
}

/// What to do about a recipient now.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Exchanges to begin. They are entered with the nodes.
    pub(super) exchanges: Vec<PeerId>,
    pub(super) dials: Vec<PeerId>,
    /// Leases that are over, of these letters.
    pub(super) lapsed: Vec<u64>,
}

impl Recipient {
    /// One of another sender, which is taken to be there.
    pub(super) fn held() -> Self {
        Self { is_held: true, is_kept: true, ..Self::default() }
    }

    pub(super) fn owe(&mut self, number: u64) {
        self.is_stale = true;
        if self.is_held {
            self.held.insert(number);
        } else {
            self.pending.insert(number);
        }
    }

    /// Its sender is there: nothing is offered.
    pub(super) fn hold(&mut self) {
        if std::mem::replace(&mut self.is_held, true) {
            return;
        }
        self.held.extend(self.pending.iter());
        self.held.extend(self.late.iter());
        for node in self.nodes.values_mut() {
            self.held.extend(node.probes.iter());
            node.probes = Numbers::default();
        }
        (self.pending, self.late, self.is_stale) = (Numbers::default(), Numbers::default(), true);
    }

    /// Its sender is gone: this node delivers for it. In a queue others may have some of it already, which nobody here knows, so all that
    /// are there are asked first.
    pub(super) fn step_in(&mut self, now: Mono) {
        if !std::mem::replace(&mut self.is_held, false) {
            return;
        }
        self.is_stale = true;
        let held = std::mem::take(&mut self.held);
        if self.is_queue && !self.nodes.is_empty() {
            for node in self.nodes.values_mut() {
                (node.probes, node.probed_until, node.ask_at) = (held.clone(), now + LEASE, now);
            }
        } else {
            self.pending.extend(held.iter());
        }
    }

    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Whether somebody has still to be asked about it before it is offered.
    pub(super) fn is_probed(&self, number: u64) -> bool {
        self.nodes.values().any(|node| node.probes.contains(number))
    }

    /// A node was asked about it.
    pub(super) fn probed(&mut self, peer: PeerId, number: u64) {
        if let Some(node) = self.nodes.get_mut(&peer) {
            node.probes.remove(number);
        }
    }

    /// What is not asked about any more is offered.
    fn end_probes(&mut self, over: impl Fn(&Node) -> bool) {
        let mut numbers = Vec::new();
        for node in self.nodes.values_mut().filter(|node| over(node)) {
            numbers.extend(std::mem::take(&mut node.probes).iter());
        }
        numbers.retain(|number| !self.is_probed(*number));
        numbers.into_iter().for_each(|number| self.owe(number));
    }

    pub(super) fn keep(&mut self, peer: PeerId, number: u64) {
        self.is_stale = true;
        self.pending.remove(number);
        self.held.remove(number);
        for node in self.nodes.values_mut() {
            node.probes.remove(number);
        }
        self.nodes.entry(peer).or_default().stored.insert(number);
    }

    /// It is offered again a while later.
    pub(super) fn put_off(&mut self, number: u64, now: Mono) {
        self.forget(number);
        if self.late.is_empty() {
            self.late_until = now + RETRY_AT_MOST;
        }
        self.late.insert(number);
    }

    pub(super) fn forget(&mut self, number: u64) {
        self.is_stale = true;
        self.pending.remove(number);
        self.late.remove(number);
        self.held.remove(number);
        for node in self.nodes.values_mut() {
            node.stored.remove(number);
            node.unsure.remove(number);
            node.probes.remove(number);
        }
    }

    /// Whether nothing is owed to it.
    pub(super) fn is_done(&self) -> bool {
        let waits = [&self.pending, &self.late, &self.held].into_iter().any(|numbers| !numbers.is_empty());
        !waits && self.nodes.values().all(Node::is_idle)
    }

    pub(super) fn wake(&self) -> Option<Mono> {
        self.wake
    }

    pub(super) fn is_due(&self, now: Mono) -> bool {
        self.is_stale || self.wake.is_some_and(|wake| wake <= now)
    }

    /// Looks who holds it, of those that are there. Whoever holds it anew, or is linked now, is turned to at once.
    pub(super) fn look(&mut self, name: &str, directory: &impl Directory, now: Mono) {
        let Holders { there, are_several } = directory.holders(name);
        (self.is_queue, self.has_looked, self.is_stale) = (are_several, true, true);
        for holding in &there {
            self.nodes.entry(holding.peer).or_default();
        }
        for (peer, node) in &mut self.nodes {
            let holding = there.iter().find(|one| one.peer == *peer).copied();
            // One that does not have it any more is asked about what it had.
            let other = || directory.is_live(*peer).then(|| Holding::none(*peer, directory.is_linked(*peer)));
            let holding = holding.or_else(other);
            if node.holding != holding {
                if node.is_linked() {
                    node.heard = Some(now);
                }
                node.holding = holding;
                (node.tries, node.next_at) = (0, now);
                (node.asks, node.ask_at, node.tells) = (0, now, false);
            }
        }
        self.end_probes(|node| node.holding.is_none());
        self.nodes.retain(|_, node| node.holding.is_some_and(|one| one.has_it) || !node.is_idle());
    }

    /// Whether it was never looked who holds it.
    pub(super) fn is_new(&self) -> bool {
        !self.has_looked
    }

    /// What to do now. `fits` says of a letter whether it goes with those before it.
    pub(super) fn plan(&mut self, now: Mono, fits: impl Fn(u64, &mut u64) -> bool, fx: &mut Effects) -> Plan {
        self.is_stale = false;
        self.end_probes(|node| node.probed_until <= now);
        if self.late_until <= now {
            self.pending.extend(std::mem::take(&mut self.late).iter());
        }
        let mut plan = Plan { lapsed: self.end_leases(now), ..Plan::default() };
        let targets = self.targets();
        let active = targets.iter().filter(|peer| self.nodes[*peer].is_active()).count();
        let is_shared = self.is_queue && active > 0;
        let (load, mut wake) = (targets.iter().map(|peer| self.nodes[peer].load()).sum::<usize>(), None);
        let share = (self.pending.len() + load).div_ceil(active.max(1));
        let spare = self.spare(&targets);
        for peer in self.nodes.keys().copied().collect::<Vec<_>>() {
            let Self { nodes, pending, .. } = self;
            let Some(node) = nodes.get_mut(&peer) else { continue };
            let Some(holding) = node.holding.filter(|_| node.exchange.is_none()) else { continue };
            let is_target = targets.contains(&peer);
            let room = match (is_target, is_shared) {
                (false, _) => 0,
                (true, false) if holding.is_own => AHEAD.saturating_sub(node.load()),
                (true, false) => BATCH,
                (true, true) => share.min(node.window()).saturating_sub(node.load()),
            };
            let has_fresh = is_target && (!node.unsure.is_empty() || room > 0 && !pending.is_empty());
            let offers = has_fresh && node.next_at <= now;
            let has_asks = !node.stored.is_empty() || !node.probes.is_empty() || !is_target && !node.unsure.is_empty();
            // Where one may have only so much the others wait for a word of it.
            let is_limited = is_target && (is_shared || holding.is_own);
            let wants_word = is_limited && room == 0 && !pending.is_empty() && !node.tells && holding.linked;
            // Only its sender can have it back.
            let excess = if is_shared && !self.is_kept { node.stored.len().saturating_sub(node.window()) } else { 0 };
            let wanted = excess.min(spare.saturating_sub(pending.len())).min(BATCH);
            // Others have room for what it has too much of. Unless its subscribers are at it still it gives that back.
            let want_at = (wanted > 0 && holding.linked).then_some(node.wanted_at + RETRY);
            let asks = has_asks && (node.ask_at <= now || wants_word || want_at.is_some_and(|at| at <= now));
            if (offers || asks) && !holding.linked {
                plan.dials.push(peer);
                node.back_off(now, fx);
            } else if offers || asks {
                node.has_news &= !asks;
                if asks && wanted > 0 {
                    node.wanted_at = now;
                }
                node.begin(pending, (offers, room), (asks, wanted), is_target, &fits);
                node.tells = is_limited && !pending.is_empty();
                plan.exchanges.push(peer);
                continue;
            }
            let offer_at = has_fresh.then_some(node.next_at);
            let ask_at = has_asks.then_some(node.ask_at);
            let probed = (!node.probes.is_empty()).then_some(node.probed_until);
            wake = [wake, offer_at, ask_at, want_at, probed].into_iter().flatten().min();
        }
        let late = (!self.late.is_empty()).then_some(self.late_until);
        self.wake = [wake, late, self.next_lapse()].into_iter().flatten().min();
        plan
    }

    /// Whom letters are offered to: all nodes that have subscribers, or one that has it and none.
    fn targets(&self) -> Vec<PeerId> {
        let holders = self.nodes.values().filter_map(|node| node.holding).filter(|one| one.has_it);
        let active: Vec<_> = holders.clone().filter(|one| one.window > 0).collect();
        if self.is_queue && !active.is_empty() {
            return active.into_iter().map(|one| one.peer).collect();
        }
        // One that is linked first. Otherwise always the same, so that what it has already is not given to another.
        let first = holders.min_by_key(|one| (one.window == 0, !one.linked, one.peer));
        first.into_iter().map(|one| one.peer).collect()
    }

    /// How many letters more subscribers could take at once than they have.
    fn spare(&self, targets: &[PeerId]) -> usize {
        let nodes = targets.iter().filter_map(|peer| self.nodes.get(peer));
        nodes.map(|node| node.window().saturating_sub(node.load())).sum()
    }

    /// Ends the leases of nodes that were not heard of for too long, if others can take over.
    fn end_leases(&mut self, now: Mono) -> Vec<u64> {
        let mut lapsed = Vec::new();
        let active: BTreeSet<PeerId> =
            self.nodes.iter().filter(|(_, node)| node.is_active()).map(|(peer, _)| *peer).collect();
        for (peer, node) in &mut self.nodes {
            if node.is_linked() {
                node.heard = Some(now);
            }
            let heard = *node.heard.get_or_insert(now);
            let can_lapse = active.iter().any(|other| other != peer) && node.exchange.is_none();
            if can_lapse && heard + LEASE <= now {
                lapsed.extend(std::mem::take(&mut node.stored).iter());
                lapsed.extend(std::mem::take(&mut node.unsure).iter());
                node.heard = Some(now);
            }
        }
        self.pending.extend(lapsed.iter().copied());
        lapsed
    }

    fn next_lapse(&self) -> Option<Mono> {
        let others = |peer: &PeerId| self.nodes.iter().any(|(other, node)| other != peer && node.is_active());
        let held =
            self.nodes.iter().filter(|(_, node)| !node.is_linked() && node.exchange.is_none() && !node.is_idle());
        held.filter(|(peer, _)| others(peer)).filter_map(|(_, node)| node.heard.map(|heard| heard + LEASE)).min()
    }

    /// An exchange with a node is over without an answer.
    pub(super) fn ended(&mut self, peer: PeerId, ending: Ending, now: Mono, fx: &mut Effects) {
        let Some(node) = self.nodes.get_mut(&peer) else { return };
        if let Some(exchange) = node.exchange.take() {
            match ending {
                Ending::NotSent => self.pending.extend(exchange.fresh),
                Ending::Unknown => node.unsure.extend(exchange.fresh),
            }
            let is_known = |number: &u64| node.stored.contains(*number) || node.probes.contains(*number);
            let unsure: Vec<u64> = exchange.wanted.into_iter().filter(|number| !is_known(number)).collect();
            node.unsure.extend(unsure);
        }
        node.back_off(now, fx);
        self.is_stale = true;
    }

    /// An exchange with a node is over, in which something was asked about, and offered. `news`: something was stored or processed.
    pub(super) fn went(
        &mut self,
        peer: PeerId,
        (asked, offered, news): (bool, bool, bool),
        now: Mono,
        fx: &mut Effects,
    ) {
        let pace = if self.is_queue { HUNGRY } else { RETRY };
        self.is_stale = true;
        let Some(node) = self.nodes.get_mut(&peer) else { return };
        if news {
            (node.tries, node.next_at, node.asks) = (0, now, 0);
        } else if offered {
            node.next_at = now + later(RETRY, &mut node.tries, fx);
        }
        // What goes on being stored does not put off asking.
        if asked || node.ask_at <= now {
            node.ask_at = now + later(pace, &mut node.asks, fx);
        } else if news {
            node.ask_at = node.ask_at.min(now + later(pace, &mut node.asks, fx));
        }
        if node.has_news {
            node.ask_at = now;
        }
    }

    /// A node says that it has processed something.
    pub(super) fn progress(&mut self, peer: PeerId, now: Mono) {
        if let Some(node) = self.nodes.get_mut(&peer) {
            (node.has_news, node.tells, node.ask_at) = (true, false, now);
            self.is_stale = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::postman::node::Exchange;

    /// Who holds it: each with whether it is linked, and its window.
    struct Mesh(Vec<(PeerId, bool, usize)>);

    impl Directory for Mesh {
        fn holders(&self, _: &str) -> Holders {
            let holding = |(peer, linked, window): &(PeerId, bool, usize)| Holding {
                peer: *peer,
                linked: *linked,
                window: *window,
                has_it: true,
                is_own: false,
            };
            Holders { there: self.0.iter().map(holding).collect(), are_several: self.0.len() > 1 }
        }

        fn is_live(&self, _: PeerId) -> bool {
            false
        }

        fn is_seen(&self, _: PeerId) -> bool {
            false
        }

        fn is_linked(&self, _: PeerId) -> bool {
            false
        }
    }

    const START: Mono = Mono(1_000_000);

    fn plan(recipient: &mut Recipient, now: Mono) -> (Plan, Vec<(PeerId, Exchange)>) {
        let plan = recipient.plan(now, |_, _| true, &mut Effects::new(7));
        let begun = plan.exchanges.iter().map(|peer| {
            let exchange = recipient.nodes.get_mut(peer).and_then(|node| node.exchange.take());
            (*peer, exchange.expect("it has begun"))
        });
        let begun = begun.collect();
        (plan, begun)
    }

    fn owing(numbers: std::ops::Range<u64>, mesh: &Mesh) -> Recipient {
        let mut recipient = Recipient::default();
        numbers.for_each(|number| recipient.owe(number));
        recipient.look("name", mesh, START);
        recipient
    }

    #[test]
    fn one_node_gets_all_and_several_get_their_shares() {
        let [one, two, three] = [(); 3].map(|()| PeerId::random());
        let mut recipient = owing(0..10, &Mesh(vec![(one, true, 1)]));
        assert_eq!(plan(&mut recipient, START).1[0].1.fresh.len(), 10);

        // Where nobody takes anything is not where it goes.
        let mut recipient = owing(0..10, &Mesh(vec![(one, true, 64), (two, true, 64), (three, true, 0)]));
        let shares: BTreeMap<_, _> =
            plan(&mut recipient, START).1.into_iter().map(|(peer, exchange)| (peer, exchange.fresh.len())).collect();
        assert_eq!(shares, BTreeMap::from([(one, 5), (two, 5)]));

        let mut recipient = owing(0..10, &Mesh(vec![(one, true, 2), (two, false, 64)]));
        let (plan, begun) = plan(&mut recipient, START);
        assert_eq!((plan.dials, begun[0].0, begun[0].1.fresh.len()), (vec![two], one, 2));
    }

    #[test]
    fn what_nobody_takes_at_a_node_is_wanted_back_for_those_with_room() {
        let [one, two] = [(); 2].map(|()| PeerId::random());
        let mut recipient = owing(0..0, &Mesh(vec![(one, true, 0), (two, true, 3)]));
        (0..10).for_each(|number| recipient.keep(one, number));
        let (_, begun) = plan(&mut recipient, START);
        let (peer, exchange) = &begun[0];
        assert_eq!((*peer, &exchange.wanted[..], exchange.asked.len()), (one, &[9, 8, 7][..], 7));
    }

    #[test]
    fn what_nobody_takes_at_a_node_is_wanted_as_soon_as_others_have_room() {
        let [one, two] = [(); 2].map(|()| PeerId::random());
        let mut recipient = owing(0..0, &Mesh(vec![(one, true, 0), (two, true, 1)]));
        recipient.keep(two, 0);
        recipient.keep(one, 1);
        let (_, begun) = plan(&mut recipient, START);
        assert!(begun.iter().all(|(_, exchange)| exchange.wanted.is_empty()), "{begun:?}");
        for (peer, _) in begun {
            recipient.went(peer, (true, false, false), START, &mut Effects::new(7));
        }
        recipient.forget(0);
        let (_, begun) = plan(&mut recipient, START);
        assert_eq!((begun.len(), begun[0].0, &begun[0].1.wanted[..]), (1, one, &[1][..]));
        // It is not asked on and on.
        recipient.went(one, (true, false, false), START, &mut Effects::new(7));
        assert!(plan(&mut recipient, START).1.is_empty());
    }

    #[test]
    fn a_lease_is_over_when_a_node_was_not_linked_for_so_long_and_others_are_there() {
        let [one, two] = [(); 2].map(|()| PeerId::random());
        let mut recipient = owing(0..0, &Mesh(vec![(one, true, 8)]));
        recipient.keep(one, 1);
        plan(&mut recipient, START);
        recipient.look("name", &Mesh(vec![(one, false, 8)]), START);
        let later = START + LEASE;
        assert!(plan(&mut recipient, later).0.lapsed.is_empty(), "there is nobody else");
        recipient.look("name", &Mesh(vec![(one, false, 8), (two, true, 8)]), later);
        let (plan, begun) = plan(&mut recipient, later);
        assert_eq!(plan.lapsed, [1]);
        let fresh: Vec<u64> = begun.into_iter().flat_map(|(_, exchange)| exchange.fresh).collect();
        assert_eq!(fresh, [1]);
    }

    #[test]
    fn what_came_too_late_stands_before_nothing_and_is_tried_again() {
        let one = PeerId::random();
        let mut recipient = owing(0..2, &Mesh(vec![(one, true, 8)]));
        let (_, begun) = plan(&mut recipient, START);
        assert_eq!(begun[0].1.fresh, [0, 1]);
        recipient.put_off(0, START);
        recipient.owe(1);
        recipient.went(one, (false, true, true), START, &mut Effects::new(7));
        assert_eq!(plan(&mut recipient, START).1[0].1.fresh, [1]);
        recipient.forget(1);
        assert!(!recipient.is_done());
        let later = START + RETRY_AT_MOST;
        assert_eq!(recipient.wake(), Some(later));
        assert_eq!(plan(&mut recipient, later).1[0].1.fresh, [0]);
    }
}
