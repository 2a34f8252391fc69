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
    now: Mono,
    /// What was asked and is not answered.
    asked: Vec<(RpcId, u64, u32)>,
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
        while let Some((place, builder)) = self.outgoing.take() {
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
        self.inject.flush(&self.linked, true, self.now, &mut self.fx);
        while let Some(output) = self.fx.pop() {
            match output {
                Output::Send { id, request: Request::Inject { frames, .. }, .. } => {
                    let Some(Asked::Inject { batch }) = self.fx.answered(id) else { panic!("no batch") };
                    self.asked.push((id, batch, u32::try_from(frames.len()).expect("few")));
                }
                Output::Answer { ticket, answer: Answer::Confirmed(confirmation) } => {
                    self.answers.push((ticket, confirmation));
                }
                Output::Allow { sequence, .. } => self.allowed = sequence,
                other => panic!("{other:?}"),
            }
        }
    }

    /// A neighbour that was asked for this batch answers that it took all but so many frames, or fails.
    fn answer(&mut self, batch: u64, all_but: Option<u32>) {
        let at = self.asked.iter().position(|(_, asked, _)| *asked == batch).expect("asked");
        let (_, _, frames) = self.asked.remove(at);
        let taken = all_but.map(|refused| (frames - refused, 5));
        self.inject.answered(batch, taken, &self.linked, &mut self.fx);
        self.settle();
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
        let (_, batch, _) = rig.asked[0];
        rig.answer(batch, Some(0));
    }
    assert_eq!(rig.inject.shards[&shard_of(TOPIC)].frames.len(), KEPT);
    assert!(rig.inject.batches.is_empty() && rig.inject.waiting.is_empty());
}
