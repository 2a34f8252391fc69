//! Batches that end in any order, and not all well.

use libp2p_identity::Keypair;

use super::*;
use crate::Headers;
use crate::mesh::event::RpcId;
use crate::mesh::outgoing::{Draft, Outgoing};
use crate::mesh::time::Wall;
use crate::wire::MeshId;
use crate::wire::frame::shard_of;

const TOPIC: &str = "a.b";

fn peer(seed: u8) -> PeerId {
    Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes").public().to_peer_id()
}

struct Rig {
    key: Keypair,
    outgoing: Outgoing,
    inject: Inject,
    fx: Effects,
    linked: Vec<PeerId>,
    /// Neighbours on errands of their own.
    passing: Vec<PeerId>,
    /// Whether others are being dialled.
    more: bool,
    now: Mono,
    /// What was asked and is not answered.
    asked: Vec<(RpcId, u64, u32, PeerId)>,
    answers: Vec<(Ticket, Confirmation)>,
    allowed: u64,
}

impl Rig {
    fn new(neighbours: u8) -> Self {
        let key = Keypair::ed25519_from_bytes([9; 32]).expect("a key");
        let outgoing = Outgoing::new(key.public().to_peer_id(), 1, [0; 8], 64 << 20);
        let linked = (1..=neighbours).map(peer).collect();
        Self {
            key,
            outgoing,
            inject: Inject::default(),
            fx: Effects::new(7),
            linked,
            passing: Vec::new(),
            more: false,
            now: Mono(1_000_000),
            asked: Vec::new(),
            answers: Vec::new(),
            allowed: u64::MAX,
        }
    }

    /// Publishes a message of that many bytes and hands its frames over, each publication in batches of its own. Returns
    /// the frame that it ends in.
    fn publish(&mut self, bytes: usize) -> u64 {
        let (headers, payload) = (Headers::default(), vec![7; bytes]);
        let (shard, groups) = (shard_of(TOPIC), &[]);
        let draft = Draft { topic: TOPIC, shard, content_type: "", headers: &headers, groups, payload: &payload };
        let appended = self.outgoing.append(&draft, Wall(1)).expect("room");
        while let Some((place, builder)) = self.outgoing.take(|_, next| next.is_allowed()) {
            let frame = builder.sign(place, MeshId([1; 16]), &self.key).expect("signed");
            self.inject.frame(Arc::new(frame));
        }
        self.settle();
        appended.sequence
    }

    fn confirm(&mut self, ticket: u64, sequence: u64) {
        self.inject.confirm(Ticket(ticket), shard_of(TOPIC), sequence, &mut self.fx);
        self.settle();
    }

    fn settle(&mut self) {
        let neighbours = self.neighbours();
        self.inject.flush(&neighbours, true, self.now, &mut self.fx);
        while let Some(output) = self.fx.pop() {
            match output {
                Output::Send { id, to, request: Request::Inject { frames, .. } } => {
                    let Some(Asked::Inject { batch }) = self.fx.answered(id) else { panic!("no batch") };
                    self.asked.push((id, batch, u32::try_from(frames.len()).expect("few"), to));
                }
                Output::Answer { ticket, answer: Answer::Confirmed(confirmation) } => {
                    self.answers.push((ticket, confirmation));
                }
                Output::Allow { sequence, .. } => self.allowed = sequence,
                other => panic!("{other:?}"),
            }
        }
    }

    fn neighbours(&self) -> Neighbours {
        Neighbours { lasting: self.linked.clone(), others: self.passing.clone(), more: self.more }
    }

    /// A neighbour that was asked for this batch answers that it took all but so many frames, or fails.
    fn answer(&mut self, batch: u64, all_but: Option<u32>) {
        let frames = self.asked.iter().find(|(_, asked, ..)| *asked == batch).expect("asked").2;
        let took = |refused| Word::Took { frames: frames - refused, listeners: 5 };
        self.say(batch, all_but.map_or(Word::Silent, took));
    }

    /// ... or says this. Returns who it was.
    fn say(&mut self, batch: u64, word: Word) -> PeerId {
        let at = self.asked.iter().position(|(_, asked, ..)| *asked == batch).expect("asked");
        let (.., peer) = self.asked.remove(at);
        let neighbours = self.neighbours();
        self.inject.answered(batch, word, &neighbours, &mut self.fx);
        self.settle();
        peer
    }

    fn pass(&mut self, span: Span) {
        self.now = self.now + span;
        self.inject.on_timeout(self.now, &mut self.fx);
        self.settle();
    }

    fn answers(&mut self) -> Vec<(u64, u32, bool)> {
        let answers = std::mem::take(&mut self.answers);
        answers.into_iter().map(|(ticket, all)| (ticket.0, all.peers, all.failed)).collect()
    }
}

#[test]
fn a_later_batch_does_not_answer_for_an_earlier_one() {
    let mut rig = Rig::new(1);
    let (one, two) = (rig.publish(10), rig.publish(10));
    rig.confirm(1, one);
    rig.confirm(2, two);
    rig.answer(1, Some(0));
    assert_eq!(rig.answers(), [], "the first is still open");
    rig.answer(0, None);
    assert_eq!(rig.answers(), [(1, 0, true), (2, 1, false)]);
}

#[test]
fn a_message_in_several_batches_is_confirmed_by_all_of_them() {
    let mut rig = Rig::new(1);
    let last = rig.publish(1_000_000);
    assert!(rig.asked.len() > 1, "{:?}", rig.asked);
    rig.answer(0, None);
    rig.answer(1, Some(0));
    // Asked when all is over: how it went is remembered.
    rig.confirm(1, last);
    let after = rig.publish(10);
    rig.confirm(2, after);
    rig.answer(2, Some(0));
    assert_eq!(rig.answers(), [(1, 0, true), (2, 1, false)]);
}

#[test]
fn a_batch_of_which_frames_were_refused_was_not_taken() {
    let mut rig = Rig::new(3);
    rig.linked.truncate(2);
    let last = rig.publish(100_000);
    rig.confirm(1, last);
    rig.answer(0, Some(1));
    rig.answer(0, Some(0));
    assert_eq!(rig.answers(), [(1, 1, true)]);
}

#[test]
fn a_slow_neighbour_is_waited_for_a_moment_only() {
    let mut rig = Rig::new(3);
    let one = rig.publish(10);
    rig.confirm(1, one);
    rig.pass(Span::secs(20));
    assert_eq!(rig.answers(), [], "nobody took it yet");
    rig.answer(0, Some(0));
    rig.answer(0, Some(0));
    assert_eq!(rig.answers(), []);
    assert_eq!(rig.inject.next_timeout(), Some(rig.now + GRACE));
    rig.pass(GRACE);
    assert_eq!(rig.answers(), [(1, 2, false)]);
}

#[test]
fn the_callers_patience_decides_and_without_a_caller_a_batch_ends() {
    let mut rig = Rig::new(1);
    let one = rig.publish(10);
    rig.confirm(1, one);
    assert_eq!(rig.inject.next_timeout(), None);
    rig.pass(Span::secs(55));
    rig.answer(0, Some(0));
    assert_eq!(rig.answers(), [(1, 1, false)]);

    let two = rig.publish(10);
    rig.confirm(2, two);
    rig.pass(UNATTENDED);
    assert_eq!(rig.inject.batches.len(), 1);
    rig.inject.abandoned(Ticket(2));
    assert_eq!(rig.inject.next_timeout(), Some(rig.now));
    rig.pass(Span(0));
    assert!(rig.inject.batches.is_empty() && rig.answers().is_empty());
}

#[test]
fn with_nobody_there_the_answer_comes_at_once() {
    let mut rig = Rig::new(0);
    let one = rig.publish(10);
    rig.confirm(1, one);
    assert_eq!(rig.answers(), [(1, 0, false)]);
}

#[test]
fn publishers_go_a_bounded_way_beyond_what_was_handed_over() {
    let mut rig = Rig::new(1);
    rig.publish(10);
    assert_eq!(rig.allowed, WINDOW);
    rig.publish(10);
    rig.answer(1, Some(0));
    assert_eq!(rig.allowed, WINDOW, "the first is still open");
    rig.answer(0, Some(0));
    assert_eq!(rig.allowed, 2 + WINDOW);
    for _ in 0..2 * KEPT {
        rig.publish(10);
        let (_, batch, ..) = rig.asked[0];
        rig.answer(batch, Some(0));
    }
    assert_eq!(rig.inject.shards[&shard_of(TOPIC)].frames.len(), KEPT);
    assert!(rig.inject.batches.is_empty() && rig.inject.waiting.is_empty());
}

#[test]
fn those_who_last_are_asked_and_others_only_without_them() {
    let mut rig = Rig::new(2);
    rig.passing = (11..=19).map(peer).collect();
    let one = rig.publish(10);
    rig.confirm(1, one);
    assert_eq!(rig.asked.iter().filter(|(.., peer)| rig.linked.contains(peer)).count(), 2);
    assert_eq!(rig.asked.len(), 2);
    rig.say(0, Word::HasNot);
    rig.say(0, Word::HasNot);
    assert_eq!(rig.asked.len(), COPIES, "somebody whose record has not come yet may take it");
    rig.answer(0, Some(0));
    rig.pass(GRACE);
    assert_eq!(rig.answers(), [(1, 1, false)]);
}

#[test]
fn what_nobody_has_taken_waits_for_the_next_neighbour() {
    let mut rig = Rig::new(1);
    rig.more = true;
    let one = rig.publish(10);
    rig.confirm(1, one);
    rig.say(0, Word::Silent);
    assert!(rig.answers().is_empty() && rig.inject.is_stranded());
    // The same one, linked anew: if it has the frames, it has them once.
    let again = rig.linked[0];
    rig.settle();
    assert!(rig.asked.is_empty(), "it was asked over this link");
    rig.inject.unlinked(&again);
    rig.settle();
    assert_eq!(rig.say(0, Word::Took { frames: 1, listeners: 3 }), again);
    assert_eq!(rig.answers(), [(1, 1, true)]);
}

#[test]
fn with_nobody_more_to_ask_the_answer_comes_at_once() {
    for (word, failed) in [(Word::Silent, true), (Word::HasNot, false)] {
        let mut rig = Rig::new(1);
        rig.more = true;
        let one = rig.publish(10);
        rig.confirm(1, one);
        rig.say(0, word);
        assert_eq!(rig.answers(), []);
        rig.more = false;
        rig.settle();
        assert_eq!(rig.answers(), [(1, 0, failed)], "{word:?}");
    }
}
