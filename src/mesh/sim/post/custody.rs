//! Copies of messages at other nodes, while any of the nodes crash: what was accepted with a copy is delivered though its sender is gone.

use super::*;
use crate::mesh::checked;
use crate::mesh::event::{InboundId, Input};
use crate::mesh::sim::world::MESH;
use crate::wire::custody::{self, Brought, Entrusted, Released};
use crate::wire::node_key::NodeKey;
use crate::wire::rpc::{Offered, Request, Turn};

/// Who keeps copies steps in 30 s after a sender was seen last, the next one 30 s later, and so on. A node that is cut off is not seen any
/// more after a minute.
const STEPPED_IN: u64 = 60 * SECOND + 3 * 30 * SECOND;

impl Post {
    fn rows(&mut self, node: usize, table: Table) -> usize {
        self.world.nodes[node].disk.keys(table).expect("in memory").len()
    }

    /// Those of which there was a copy, that are owed to a recipient, and neither acknowledged nor told of.
    fn owed(&self, name: &'static str) -> Vec<MessageId> {
        let is_owed = |id: &MessageId| {
            let is_for = self.posted[id].recipients.iter().any(|to| **to == *name);
            is_for && !self.acks.contains(&(name, *id)) && !self.noticed.contains_key(&(Arc::from(name), *id))
        };
        self.copied.iter().copied().filter(is_owed).collect()
    }
}

#[test]
fn copies_lose_and_double_nothing_whatever_crashes() {
    for_seeds("copies_lose_and_double_nothing_whatever_crashes", 5, |seed| {
        let mut post = Post::new(seed, 5);
        post.copies = 3;
        post.hold(0, "billing", "orders.>", TERMS);
        post.hold(1, "audit", ">", TERMS);
        post.run(2 * SECOND, true);
        let mut sides = [0; 5];
        for _ in 0..30 {
            post.mishap(&mut sides);
            post.publish_some(5);
            let span = post.world.random.between(MILLI, 6 * SECOND);
            post.run(span, false);
        }
        post.calm_down(5);
        assert!(!post.copied.is_empty());
        for node in 0..5 {
            assert_eq!((post.rows(node, Table::Given), post.rows(node, Table::KeptLetters)), (0, 0), "at {node}");
        }
        // What their senders know of is forgotten.
        post.world.run(11 * 60 * SECOND);
        let kept: usize = (0..5).map(|node| post.rows(node, Table::Kept)).sum();
        assert!(kept < 20, "{kept} copies are remembered");
    });
}

/// Some messages have copies, and then one of their senders is gone. The recipient may have been away, and one of those that keep copies
/// starts again. Returns whether that recipient was away.
fn one_is_gone(seed: u64) -> (Post, bool) {
    let mut post = Post::new(seed, 5);
    post.copies = 2;
    post.ttl = (10 * TTL, 11 * TTL);
    post.hold(0, "billing", "orders.>", TERMS);
    post.run(2 * SECOND, true);
    let (is_away, other) = (post.world.random.chance(50), 1 + post.world.random.below(3));
    if is_away {
        post.kill(0);
    }
    for _ in 0..20 {
        post.publish_some(5);
        let span = post.world.random.between(MILLI, SECOND);
        post.run(span, true);
    }
    // What is delivered at once needs no copy.
    while is_away && !post.copied.iter().any(|id| (post.posted[id].by, post.posted[id].topic) == (4, "orders.new")) {
        post.publish(4, "orders.new", 10 * TTL, &[]);
        post.run(SECOND, true);
    }
    post.kill(4);
    post.kill(other);
    post.run(SECOND, true);
    post.restart(other);
    if is_away {
        post.restart(0);
    }
    (post, is_away)
}

#[test]
fn what_has_a_copy_is_delivered_though_its_sender_does_not_return() {
    for_seeds("what_has_a_copy_is_delivered_though_its_sender_does_not_return", 5, |seed| {
        let (mut post, was_away) = one_is_gone(seed);
        post.run(STEPPED_IN, true);
        assert_eq!(post.owed("billing"), []);
        let is_delivered = |id: &&MessageId| post.posted[id].by == 4 && post.acks.contains(&("billing", **id));
        let delivered = post.copied.iter().filter(is_delivered).count();
        assert!(delivered > 0 || !was_away, "nothing of the one that is gone");
        post.restart(4);
        post.run(TTL, true);
        post.world.run(11 * TTL);
        (0..5).for_each(|node| post.notices(node));
        let told: Vec<_> = post.noticed.iter().filter(|((name, _), _)| &**name == "billing").collect();
        assert!(told.is_empty(), "{told:?}");
    });
}

#[test]
fn what_others_have_just_delivered_does_not_come_again_when_its_sender_returns() {
    for_seeds("what_others_have_just_delivered_does_not_come_again_when_its_sender_returns", 5, |seed| {
        let (mut post, _) = one_is_gone(seed);
        let stepped_in = post.world.random.between(30 * SECOND, 35 * SECOND);
        post.run(stepped_in, true);
        post.restart(4);
        // What it says next to the recipient settles what came before. Offers that come again are up to 20 s late.
        for _ in 0..30 {
            post.publish(4, "orders.new", TTL, &[]);
            post.run(SECOND, true);
        }
        post.run(STEPPED_IN, true);
        assert_eq!(post.owed("billing"), []);
    });
}

#[test]
fn no_copy_is_left_of_what_is_delivered_however_late_it_comes() {
    for_seeds("no_copy_is_left_of_what_is_delivered_however_late_it_comes", 5, |seed| {
        let mut post = Post::new(seed, 4);
        post.copies = 3;
        post.hold(0, "billing", "orders.>", TERMS);
        post.run(2 * SECOND, true);
        for _ in 0..30 {
            post.publish(3, "orders.new", 10 * TTL, &[]);
            post.run(SECOND, true);
        }
        post.run(25 * SECOND, true);
        assert_eq!((post.owed("billing"), post.rows(3, Table::Given)), (Vec::new(), 0));
        assert!(!post.copied.is_empty());
        let kept: Vec<_> =
            (0..4).map(|node| post.rows(node, Table::Kept) + post.rows(node, Table::KeptLetters)).collect();
        assert_eq!(kept, [0; 4]);
    });
}

/// Nodes that keep copies step in for the sender of a queue's messages, whose members are at some of them already.
#[test]
fn a_queue_goes_on_without_its_sender_and_its_members_keep_what_they_have() {
    for_seeds("a_queue_goes_on_without_its_sender_and_its_members_keep_what_they_have", 5, |seed| {
        let mut post = Post::new(seed, 5);
        post.copies = 2;
        post.ttl = (10 * TTL, 11 * TTL);
        for node in 0..3 {
            post.hold(node, "workers", "orders.>", Terms { window: 4, attempts: None });
        }
        post.run(2 * SECOND, true);
        for _ in 0..20 {
            for _ in 0..post.world.random.below(20) {
                post.publish(4, "orders.new", 10 * TTL, &[]);
            }
            let span = post.world.random.between(MILLI, 300 * MILLI);
            post.run(span, true);
        }
        // Nobody runs anything twice, although its sender and then others have leased it: all members are there and are asked first.
        post.kill(4);
        post.run(STEPPED_IN, true);
        assert_eq!(post.owed("workers"), []);
        // Whom it had just given something it may not have written down.
        post.twice = true;
        post.restart(4);
        post.run(STEPPED_IN, true);
        assert!(post.noticed.is_empty(), "{:?}", post.noticed);
    });
}

#[test]
fn the_order_holds_when_a_sender_with_copies_starts_again() {
    for_seeds("the_order_holds_when_a_sender_with_copies_starts_again", 5, |seed| {
        let mut post = Post::new(seed, 4);
        post.copies = 2;
        post.ttl = (10 * TTL, 11 * TTL);
        post.hold(0, "billing", "orders.>", TERMS);
        post.run(2 * SECOND, true);
        for _ in 0..10 {
            // Its recipient may be away, and one who keeps copies, so that it cannot be asked.
            let away = post.world.random.below(3);
            if post.world.random.chance(50) {
                post.kill(away);
            }
            for _ in 0..5 {
                post.publish(3, "orders.new", 10 * TTL, &[]);
                let span = post.world.random.between(MILLI, SECOND);
                post.run(span, true);
            }
            post.kill(3);
            post.restart(3);
            if !post.world.nodes[away].up {
                post.restart(away);
            }
        }
        post.run(STEPPED_IN, true);
        assert_eq!(post.owed("billing"), []);
        post.check_order();
    });
}

/// Node 2 says that node 1 has sent a letter, to node 0. `signed_by`: by whom, and for whom.
fn bring(post: &mut Post, (signed_by, to): (usize, &str), take_back: bool) {
    let posting = post.posting(1, "orders.new", TTL, Vec::new());
    let sealed = if take_back { Bytes::new() } else { posting.sealed };
    let to = vec![to.to_owned()];
    let key = &post.world.nodes[signed_by].key;
    let signature = custody::sign_letter(key, MESH, &custody::letter_text(&sealed, &to)).expect("signed");
    let offered = Offered { id: posting.id, attempts: 0, lease: 0, take_back, sealed };
    let request = Request::Bring {
        to: "billing".to_owned(),
        sender: NodeKey::of(&post.world.nodes[1].peer).expect("an Ed25519 key"),
        letters: vec![Brought { offered, to, signature }],
        extensions: Vec::new(),
    };
    let request = checked::request(MESH, &request.encode().expect("encoded")).expect("decoded");
    let from = post.world.nodes[2].peer;
    post.world.tell(0, Input::Request { from, id: InboundId(u64::MAX), request });
    post.world.run(SECOND);
}

#[test]
fn a_letter_is_taken_from_another_only_with_its_senders_signature_and_for_its_recipients() {
    let mut post = Post::new(7, 3);
    post.hold(0, "billing", "orders.>", TERMS);
    post.world.run(2 * SECOND);
    for (signed_by, to) in [(2, "billing"), (1, "audit"), (0, "billing")] {
        bring(&mut post, (signed_by, to), false);
        assert_eq!(post.rows(0, Table::Inbox), 0, "signed by {signed_by} for {to}");
    }
    bring(&mut post, (1, "billing"), false);
    assert_eq!(post.rows(0, Table::Inbox), 1);
}

#[test]
fn nobody_but_its_sender_has_a_letter_back() {
    let mut post = Post::new(7, 3);
    post.hold(0, "billing", "orders.>", TERMS);
    post.world.run(2 * SECOND);
    post.give_up(0);
    post.publish(1, "orders.new", TTL, &[]);
    post.world.run(SECOND);
    assert_eq!(post.rows(0, Table::Inbox), 1);
    // The id is that of the next message, so it is taken back to before that.
    post.next -= 1;
    bring(&mut post, (2, "billing"), true);
    assert_eq!(post.rows(0, Table::Inbox), 1);
}

/// Node 1 gives node 0 a letter to keep, and says that it need not keep another. Returns the new one.
fn keep(post: &mut Post, count: u64, released: Option<MessageId>) -> MessageId {
    let posting = post.posting(1, "orders.new", TTL, Vec::new());
    let (sealed, to) = (posting.sealed, vec!["billing".to_owned()]);
    let key = &post.world.nodes[1].key;
    let signature = custody::sign_letter(key, MESH, &custody::letter_text(&sealed, &to)).expect("signed");
    let request = Request::Keep {
        turn: Turn { run: 1, count },
        letters: vec![Entrusted { rank: 0, to, signature, sealed }],
        asked: Vec::new(),
        released: released.into_iter().map(|id| Released { id, to: "billing".to_owned() }).collect(),
        extensions: Vec::new(),
    };
    let request = checked::request(MESH, &request.encode().expect("encoded")).expect("decoded");
    let from = post.world.nodes[1].peer;
    post.world.tell(0, Input::Request { from, id: InboundId(u64::MAX), request });
    post.world.run(SECOND / 2);
    posting.id
}

#[test]
fn a_copy_that_a_full_disk_kept_from_being_let_go_of_goes_when_there_is_room() {
    let mut post = Post::new(7, 2);
    let first = keep(&mut post, 0, None);
    assert_eq!((post.rows(0, Table::Kept), post.rows(0, Table::KeptLetters)), (1, 1));
    post.world.nodes[0].disk.full = true;
    keep(&mut post, 1, Some(first));
    post.world.nodes[0].disk.full = false;
    post.world.run(3 * SECOND);
    assert_eq!((post.rows(0, Table::Kept), post.rows(0, Table::KeptLetters)), (0, 0));
}
