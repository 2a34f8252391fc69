//! Guaranteed messages, while nodes crash at any moment, networks part, offers are lost and repeated, and clocks differ.
//!
//! I1 to I7 are the promises: nothing ends with neither an acknowledgement nor a notice (1), nobody starts after a message's
//! time and what clocks may differ by (2), first hand-overs are in order (3), nothing acknowledged is handed over again (4), an
//! outbox empties (5), all of that through crashes (6), and what is out at a handler is bounded (7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

mod custody;

use super::for_seeds;
use super::scenarios::{LOSSY, everybody_knows_everybody};
use super::world::{MILLI, SECOND, World};
use crate::mesh::event::{Answer, Command, HolderId, Ticket};
use crate::mesh::postman::notices::{Notice, Reason};
use crate::mesh::postman::store::{Key, Store as _, Table};
use crate::mesh::postman::{PostAnswer, PostCommand, Posting, Terms, WINDOW};
use crate::mesh::time::{Span, Wall};
use crate::wire::letter::{self, Letter, LetterRow};
use crate::{Headers, MessageId};

/// How subscriptions are held.
const TERMS: Terms = Terms { window: WINDOW, attempts: None };
/// As far as two clocks may differ.
const SKEW: u64 = 5 * SECOND;
/// The longest time to live, and how long after it everything is decided.
const TTL: u64 = 60 * SECOND;
/// When all is calm, and everybody is there, messages get to their recipients in that time.
const SETTLED: u64 = 20 * SECOND;

/// A message that was given to a node.
#[derive(Debug)]
struct Posted {
    by: usize,
    topic: &'static str,
    /// By the sender's clock.
    expires: Wall,
    recipients: Vec<Arc<str>>,
}

/// What a handler has in hand.
#[derive(Debug)]
struct InHand {
    node: usize,
    holder: HolderId,
    incarnation: u64,
    number: u64,
    id: MessageId,
    name: &'static str,
    until: u64,
}

/// Who holds a durable subscription.
#[derive(Debug)]
struct Held {
    name: &'static str,
    node: usize,
    pattern: &'static str,
    terms: Terms,
    /// Of which start of the node.
    incarnation: u64,
    holder: HolderId,
}

/// The world, and what is known from outside of guaranteed messages.
struct Post {
    world: World,
    posted: BTreeMap<MessageId, Posted>,
    /// Who waits to hear that a message is on disk.
    asked: Vec<(usize, Ticket, MessageId)>,
    accepted: BTreeSet<MessageId>,
    /// Up to so many copies of each message are wanted, and those of which there was one when it was accepted.
    copies: usize,
    copied: BTreeSet<MessageId>,
    /// The least and the most time to live.
    ttl: (u64, u64),
    /// Who holds what.
    holders: Vec<Held>,
    /// Whether a message may be with two handlers at once, or come again when it was acknowledged: it is a queue, and there are faults.
    twice: bool,
    in_hand: Vec<InHand>,
    /// Acknowledgements that handlers gave, and those of which they were told that they are on disk.
    acks: BTreeSet<(&'static str, MessageId)>,
    acking: Vec<(usize, u64, Ticket, &'static str, MessageId)>,
    acked: BTreeSet<(&'static str, MessageId)>,
    /// The first hand-overs of each recipient, sender and topic.
    first: BTreeMap<(&'static str, usize, &'static str), Vec<u64>>,
    /// What was handed over, and how often.
    handed: BTreeMap<(&'static str, MessageId), u32>,
    noticed: BTreeMap<(Arc<str>, MessageId), (Wall, Reason)>,
    next: u64,
}

impl Post {
    fn new(seed: u64, nodes: usize) -> Self {
        let mut world = World::new(seed, LOSSY);
        let all: Vec<usize> = (0..nodes).map(|_| world.start(false)).collect();
        for node in &all {
            world.nodes[*node].slow = world.random.between(0, SKEW - SECOND);
            world.introduce(*node, &all);
        }
        assert!(world.run_until(20 * SECOND, everybody_knows_everybody));
        Self {
            world,
            posted: BTreeMap::new(),
            asked: Vec::new(),
            accepted: BTreeSet::new(),
            copies: 0,
            copied: BTreeSet::new(),
            ttl: (500 * MILLI, TTL),
            holders: Vec::new(),
            twice: false,
            in_hand: Vec::new(),
            acks: BTreeSet::new(),
            acking: Vec::new(),
            acked: BTreeSet::new(),
            first: BTreeMap::new(),
            handed: BTreeMap::new(),
            noticed: BTreeMap::new(),
            next: 1,
        }
    }

    fn wall(&self, node: usize) -> Wall {
        self.world.clock_of(node).wall
    }

    /// What a node's clock showed then.
    fn wall_at(&self, node: usize, then: u64) -> Wall {
        Wall(self.wall(node).0 - (self.world.now - then))
    }

    fn hold(&mut self, node: usize, name: &'static str, pattern: &'static str, terms: Terms) {
        let holder = HolderId(self.next);
        self.next += 1;
        let command = PostCommand::Hold { holder, name: name.into(), pattern: pattern.into(), terms };
        self.world.command(node, Command::Post(command));
        let incarnation = self.world.nodes[node].incarnation;
        self.holders.push(Held { name, node, pattern, terms, incarnation, holder });
    }

    /// A holder gives up, with what it has in hand.
    fn give_up(&mut self, which: usize) {
        let Held { node, holder, .. } = self.holders.swap_remove(which);
        self.in_hand.retain(|one| (one.node, one.holder) != (node, holder));
        if self.world.nodes[node].up {
            self.world.nodes[node].handed.retain(|(to, _)| *to != holder);
            self.world.command(node, Command::Post(PostCommand::Release { holder }));
        }
    }

    fn publish(&mut self, by: usize, topic: &'static str, ttl: u64, to: &[&'static str]) {
        let to = to.iter().map(|name| Arc::from(*name)).collect();
        let posting = self.posting(by, topic, ttl, to);
        let id = posting.id;
        let ticket = self.world.command(by, Command::Post(PostCommand::Accept(posting)));
        self.asked.push((by, ticket, id));
    }

    fn posting(&mut self, by: usize, topic: &'static str, ttl: u64, to: Vec<Arc<str>>) -> Posting {
        let id = MessageId { start: [9; 8], counter: self.next };
        self.next += 1;
        let now = self.wall(by);
        let expires = now + Span(ttl);
        let letter = Letter {
            id,
            topic: topic.to_owned(),
            content_type: String::new(),
            headers: Headers::default(),
            time: now.0,
            expires: expires.0,
            payload: Bytes::new(),
        };
        let sealed = letter.seal().expect("sealed");
        let copies = self.world.random.below(self.copies + 1);
        self.posted.insert(id, Posted { by, topic, expires, recipients: Vec::new() });
        Posting { id, topic: topic.into(), time: now, expires, sealed, to, copies, custodians: Vec::new() }
    }

    /// Takes note of notices, or sends what they tell of anew.
    fn clear_up(&mut self, node: usize) {
        for key in self.world.nodes[node].disk.keys(Table::Notices).expect("in memory") {
            let disk = &mut self.world.nodes[node].disk;
            let row = disk.read(&key).expect("in memory").expect("it is there");
            let Notice { number, recipient, topic, .. } = Notice::read(&key, &row).expect("a notice");
            let letter = disk.read(&Key::number(Table::Letters, number)).expect("in memory");
            let row: LetterRow = letter::read(&letter.expect("the letter is kept with the notice")).expect("a letter");
            assert_eq!(Letter::open(&row.sealed).expect("whole").topic, *topic);
            if self.world.random.chance(50) {
                self.world.command(node, Command::Post(PostCommand::TakeNotice { number, recipient }));
                continue;
            }
            let topic =
                ["orders.new", "orders.paid", "other"].into_iter().find(|one| **one == *topic).expect("a topic");
            let posting = self.posting(node, topic, TTL / 2, vec![Arc::clone(&recipient)]);
            let id = posting.id;
            let retry = PostCommand::Retry { number, recipient, posting };
            let ticket = self.world.command(node, Command::Post(retry));
            self.asked.push((node, ticket, id));
        }
    }

    fn kill(&mut self, node: usize) {
        self.answers();
        self.notices(node);
        self.world.kill(node);
        self.asked.retain(|(by, ..)| *by != node);
        self.acking.retain(|(at, ..)| *at != node);
        self.in_hand.retain(|one| one.node != node);
        self.world.nodes[node].handed.clear();
    }

    fn restart(&mut self, node: usize) {
        let slow = self.world.nodes[node].slow;
        self.world.restart_late(node, slow);
        let all: Vec<usize> = (0..self.world.nodes.len()).collect();
        self.world.introduce(node, &all);
        let mine: Vec<Held> = self.holders.extract_if(.., |one| one.node == node).collect();
        mine.into_iter().for_each(|one| self.hold(node, one.name, one.pattern, one.terms));
    }

    /// What is answered to those who wait.
    fn answers(&mut self) {
        for (by, ticket, id) in std::mem::take(&mut self.asked) {
            match self.world.nodes[by].answers.get(&ticket) {
                None => self.asked.push((by, ticket, id)),
                Some(Answer::Post(PostAnswer::Accepted { recipients, copies, .. })) => {
                    self.accepted.insert(id);
                    if *copies > 0 {
                        self.copied.insert(id);
                    }
                    self.posted.get_mut(&id).expect("it was posted").recipients.clone_from(recipients);
                }
                Some(Answer::Post(PostAnswer::Nobody)) => {}
                Some(other) => panic!("{other:?}"),
            }
        }
        for (node, incarnation, ticket, name, id) in std::mem::take(&mut self.acking) {
            match self.world.nodes[node].answers.get(&ticket) {
                None => self.acking.push((node, incarnation, ticket, name, id)),
                Some(Answer::Post(PostAnswer::Done)) => drop(self.acked.insert((name, id))),
                Some(Answer::Post(PostAnswer::Late)) => {}
                Some(other) => panic!("{other:?}"),
            }
        }
    }

    /// The notices on a node's disk.
    fn notices(&mut self, node: usize) {
        let disk = &mut self.world.nodes[node].disk;
        for key in disk.keys(Table::Notices).expect("in memory") {
            let row = disk.read(&key).expect("in memory").expect("it is there");
            let notice = Notice::read(&key, &row).expect("a notice");
            let told = (notice.at, notice.reason);
            let before = self.noticed.insert((notice.recipient, notice.id), told);
            assert!(
                before.is_none_or(|before| before == told),
                "two notices of {} at {node}: {before:?}, {told:?}",
                notice.id
            );
        }
    }

    /// Letters that are handed over now, to handlers that take their time.
    fn hand_over(&mut self) {
        for node in 0..self.world.nodes.len() {
            for (holder, handed) in std::mem::take(&mut self.world.nodes[node].handed) {
                let incarnation = self.world.nodes[node].incarnation;
                let of = |one: &&Held| (one.node, one.incarnation, one.holder) == (node, incarnation, holder);
                let Some(&Held { name, terms, .. }) = self.holders.iter().find(of) else {
                    // It was on its way when that one gave up.
                    continue;
                };
                let letter = Letter::open(&handed.sealed).expect("whole");
                let (id, number) = (letter.id, handed.number);
                let posted = &self.posted[&id];
                if self.wall(node).0 >= letter.expires {
                    // As the api does in the reader's task.
                    self.world.command(node, Command::Post(PostCommand::GiveBack { number, after: None }));
                    continue;
                }
                assert!(self.wall(posted.by) < posted.expires + Span(SKEW), "I2: {id} started too late");
                let noticed = self.noticed.contains_key(&(name.into(), id));
                assert!(self.twice || !noticed, "I2: {id} started after its notice");
                assert!(self.twice || !self.acked.contains(&(name, id)), "I4: {id} was acknowledged");
                let out = self.in_hand.iter().any(|one| one.name == name && one.id == id);
                assert!(self.twice || !out, "I4: {id} is out already");
                assert!(terms.attempts.is_none_or(|most| handed.attempt <= most), "{id} is handed over too often");
                if self.handed.insert((name, id), handed.attempt).is_none() {
                    self.first.entry((name, posted.by, posted.topic)).or_default().push(id.counter);
                } else {
                    assert!(self.twice || handed.attempt > 1, "{id} was handed over before");
                }
                let until = self.world.now + self.world.random.between(0, 400 * MILLI);
                self.in_hand.push(InHand { node, holder, incarnation, number, id, name, until });
                let has = self.in_hand.iter().filter(|one| (one.node, one.holder) == (node, holder)).count();
                assert!(has <= terms.window, "I7");
            }
        }
    }

    /// Handlers that are done say so, or give up.
    fn handle(&mut self, reliably: bool) {
        let now = self.world.now;
        let done: Vec<InHand> = self.in_hand.extract_if(.., |one| one.until <= now).collect();
        for InHand { node, incarnation, number, id, name, .. } in done {
            let fails = !reliably && self.world.random.chance(30);
            if fails {
                let after = self.world.random.chance(50).then(|| Span(self.world.random.between(0, 2 * SECOND)));
                self.world.command(node, Command::Post(PostCommand::GiveBack { number, after }));
            } else {
                let ticket = self.world.command(node, Command::Post(PostCommand::Acknowledge { number }));
                self.acks.insert((name, id));
                self.acking.push((node, incarnation, ticket, name, id));
            }
        }
    }

    /// Lets time pass.
    fn run(&mut self, span: u64, reliably: bool) {
        let until = self.world.now + span;
        while self.world.now < until {
            self.world.run(10 * MILLI);
            self.answers();
            (0..self.world.nodes.len()).for_each(|node| self.notices(node));
            self.hand_over();
            self.handle(reliably);
        }
    }

    /// All is decided, and since then nothing happened that could have kept a message from its recipient.
    fn check(&mut self, calm: u64) {
        for node in 0..self.world.nodes.len() {
            let outbox = self.world.nodes[node].mesh.status().tables.outbox;
            assert_eq!(outbox, 0, "I5: node {node} owes something still");
            let disk = &mut self.world.nodes[node].disk;
            let place = |key: &Key| Notice::place(key).expect("a notice").0;
            let told: BTreeSet<u64> = disk.keys(Table::Notices).expect("in memory").iter().map(place).collect();
            for table in [Table::Accepted, Table::Letters] {
                let kept: Vec<u64> = disk.keys(table).expect("in memory").iter().filter_map(Key::to_number).collect();
                assert!(kept.iter().eq(&told), "I5: {kept:?} in {table:?}, and notices of {told:?}");
            }
        }
        for id in &self.accepted {
            for name in &self.posted[id].recipients {
                let noticed = self.noticed.contains_key(&(Arc::clone(name), *id));
                let acknowledged = self.acks.iter().any(|(of, acked)| **of == **name && acked == id);
                assert!(noticed || acknowledged, "I1: {id} was lost for {name}");
                let left = self.posted[id].expires - self.wall_at(self.posted[id].by, calm);
                let poison = self.noticed.get(&(Arc::clone(name), *id)).is_some_and(|told| told.1 == Reason::Poison);
                let held = self.holders.iter().any(|one| *one.name == **name);
                let of = self.handed.iter().find(|((to, handed), _)| **to == **name && handed == id);
                // After so many attempts the next one may be that far away.
                let pause = (125 * MILLI) << of.map_or(0, |(_, attempts)| *attempts).min(9);
                let in_time = held && left > Span(SETTLED + pause) && !poison;
                assert!(!in_time || acknowledged && !noticed, "{id} had {left:?} to get to {name}, and did not");
            }
        }
    }

    fn check_order(&self) {
        for (of, counters) in &self.first {
            assert!(counters.is_sorted(), "I3: {of:?}: {counters:?}");
        }
    }

    /// Some messages, from some of the nodes.
    fn publish_some(&mut self, nodes: usize) {
        for _ in 0..self.world.random.below(8) {
            let by = self.world.random.below(nodes);
            let ttl = self.world.random.between(self.ttl.0, self.ttl.1);
            let topic = ["orders.new", "orders.paid", "other"][self.world.random.below(3)];
            let to: &[&'static str] = if self.world.random.chance(10) { &["never"] } else { &[] };
            if self.world.nodes[by].up {
                self.publish(by, topic, ttl, to);
            }
        }
    }

    /// Something that may happen to nodes and between them.
    fn mishap(&mut self, sides: &mut [u8]) {
        let nodes = sides.len();
        match self.world.random.below(6) {
            0 => {
                let node = self.world.random.below(nodes);
                if self.world.nodes[node].up { self.kill(node) } else { self.restart(node) }
            }
            1 => {
                sides[self.world.random.below(nodes)] ^= 1;
                self.world.part(sides);
            }
            2 => {
                let (one, other) = (self.world.random.below(nodes), self.world.random.below(nodes));
                self.world.break_link(one, other);
            }
            3 => {
                let node = self.world.random.below(nodes);
                if self.world.nodes[node].up {
                    self.notices(node);
                    self.clear_up(node);
                }
            }
            _ => {}
        }
    }

    /// All are there and linked, until everything is decided.
    fn calm_down(&mut self, nodes: usize) {
        self.world.part(&vec![0; nodes]);
        let down: Vec<usize> = (0..nodes).filter(|node| !self.world.nodes[*node].up).collect();
        down.into_iter().for_each(|node| self.restart(node));
        let calm = self.world.now;
        self.run(TTL + 2 * SKEW, true);
        assert!(!self.accepted.is_empty());
        self.check(calm);
    }
}

#[test]
fn what_was_accepted_is_acknowledged_or_told_of_whatever_crashes() {
    for_seeds("what_was_accepted_is_acknowledged_or_told_of_whatever_crashes", 10, |seed| {
        let mut post = Post::new(seed, 4);
        post.hold(0, "billing", "orders.>", TERMS);
        post.hold(1, "audit", ">", TERMS);
        post.run(2 * SECOND, true);
        let mut sides = [0; 4];
        for _ in 0..30 {
            post.mishap(&mut sides);
            post.publish_some(4);
            let span = post.world.random.between(MILLI, 2 * SECOND);
            post.run(span, false);
        }
        post.calm_down(4);
        post.check_order();
    });
}

/// Members of a queue come and go on several nodes, and two on one.
fn queue(seed: u64, faults: bool) -> Post {
    let mut post = Post::new(seed, 5);
    post.twice = faults;
    let patient = Terms { window: 4, attempts: Some(12) };
    post.hold(0, "workers", "orders.>", patient);
    post.run(2 * SECOND, true);
    let mut sides = [0; 5];
    for _ in 0..30 {
        if faults {
            post.mishap(&mut sides);
        }
        match post.world.random.below(4) {
            0 => {
                let node = post.world.random.below(4);
                let window = 1 + post.world.random.below(WINDOW);
                if post.world.nodes[node].up {
                    post.hold(node, "workers", "orders.>", Terms { window, ..patient });
                }
            }
            1 if post.holders.len() > 1 => {
                let which = post.world.random.below(post.holders.len());
                post.give_up(which);
            }
            _ => {}
        }
        post.publish_some(5);
        let span = post.world.random.between(MILLI, 2 * SECOND);
        post.run(span, false);
    }
    post.calm_down(5);
    post
}

#[test]
fn each_message_of_a_queue_is_with_one_member_at_a_time() {
    for_seeds("each_message_of_a_queue_is_with_one_member_at_a_time", 10, |seed| {
        let post = queue(seed, false);
        let told = post.noticed.values().filter(|(_, reason)| *reason != Reason::Poison);
        assert!(told.count() < post.accepted.len());
    });
}

#[test]
fn a_queue_loses_nothing_whatever_becomes_of_its_members() {
    for_seeds("a_queue_loses_nothing_whatever_becomes_of_its_members", 10, |seed| drop(queue(seed, true)));
}

#[test]
fn what_is_processed_is_forgotten_where_it_was_and_does_not_come_again() {
    for_seeds("what_is_processed_is_forgotten_where_it_was_and_does_not_come_again", 10, |seed| {
        let mut post = Post::new(seed, 2);
        post.hold(0, "billing", "orders.>", TERMS);
        post.run(2 * SECOND, true);
        for _ in 0..40 {
            post.publish(1, "orders.new", TTL, &[]);
            post.run(SECOND, true);
        }
        // Offers that come again for 20 s are late.
        post.run(20 * SECOND, true);
        assert_eq!(post.acked.len(), 40);
        let disk = &mut post.world.nodes[0].disk;
        let mut rows = |table| disk.keys(table).expect("in memory").len();
        assert!(rows(Table::Received) < 10, "{} are remembered", rows(Table::Received));
        assert_eq!((rows(Table::Inbox), rows(Table::Floors)), (0, 1));
    });
}
