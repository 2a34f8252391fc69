//! Guaranteed messages between live nodes, which are left and started again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pombo::{AckError, Outcome, Publish, PublishError, RawPattern, RawTopic, Reason, StartError, SubscribeError};

use crate::support::Turn;
use crate::support::nodes::{Place, TCP, address, next, within};

fn topic(name: &str) -> RawTopic {
    RawTopic::parse(name).unwrap()
}

fn pattern(text: &str) -> RawPattern {
    RawPattern::parse(text).unwrap()
}

fn short(publish: Publish<'_>) -> pombo::Guaranteed<'_> {
    publish.guaranteed().ttl(Duration::from_millis(500))
}

/// The store of a node in the mesh of these tests.
fn store(data: &Path, node: &str) -> PathBuf {
    let place = fs::read_dir(data.join("nodes").join(node)).unwrap();
    let is_store = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "sqlite");
    place.map(|entry| entry.unwrap().path()).find(is_store).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_while_a_recipient_was_away_is_there_when_it_is_back() {
    let place = Place::new(Turn::shared());
    let recipient = place.node("recipient", TCP).start().await.unwrap();
    let billing = recipient.subscribe(pattern("orders.>")).durable("billing").await.unwrap();
    let sender = place.node("sender", TCP).peer(address(&recipient)).start().await.unwrap();
    sender.ready(1).await.unwrap();
    drop(billing);
    recipient.leave().await;
    for number in 0..20u8 {
        let payload = vec![number; 1 + 10_000 * usize::from(number)].into();
        let accepted = sender.publish(topic("orders.new"), &payload).header("n", "1").guaranteed().await.unwrap();
        assert_eq!(accepted.recipients, ["billing"], "it is known though it is away");
    }
    let outbox = sender.outbox().await.unwrap();
    assert_eq!((outbox.total, outbox.messages.len()), (20, 20));
    assert!(outbox.messages.iter().all(|one| !one.recipients[0].stored && one.topic == "orders.new"));
    // The sender is started again, too, and is told of nobody.
    sender.leave().await;
    let sender = place.node("sender", TCP).start().await.unwrap();
    assert_eq!(sender.outbox().await.unwrap().total, 20);

    let recipient = place.node("recipient", TCP).peer(address(&sender)).start().await.unwrap();
    let mut billing = recipient.subscribe(pattern("orders.>")).durable("billing").await.unwrap();
    for number in 0..20u8 {
        let order = next("an order", &mut billing).await.unwrap();
        assert_eq!((order[0], order.source(), order.topic()), (number, sender.peer_id(), "orders.new"));
        assert_eq!((order.headers().get("n"), order.redelivered()), (Some("1"), false));
        order.ack().await.unwrap();
    }
    within("an empty outbox", async { while sender.outbox().await.unwrap().total > 0 {} }).await;
    assert_eq!(recipient.status().await.unwrap().tables.inbox, 20, "they are remembered until their time is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_comes_again_also_after_a_restart() {
    let place = Place::new(Turn::shared());
    let node = place.node("alone", TCP).start().await.unwrap();
    let mut jobs = node.subscribe(pattern("jobs.*")).durable("workers").await.unwrap();
    for payload in ["one", "two"] {
        node.publish(topic("jobs.new"), &payload.into()).guaranteed().await.unwrap();
    }
    let one = next("the first", &mut jobs).await.unwrap();
    assert_eq!((one.redelivered(), &one[..]), (false, &b"one"[..]));
    drop(one);
    let two = next("the second", &mut jobs).await.unwrap();
    assert_eq!(&two[..], b"two");
    two.nack(Duration::from_millis(1));
    let mut again = vec![next("one again", &mut jobs).await.unwrap(), next("the other", &mut jobs).await.unwrap()];
    assert!(again.iter().all(pombo::Delivery::redelivered));
    again.sort_by_key(|job| job.id());
    let [one, two] = again.try_into().unwrap();
    one.ack().await.unwrap();
    drop(jobs);
    drop(two);
    node.leave().await;

    let node = place.node("alone", TCP).start().await.unwrap();
    let mut jobs = node.subscribe(pattern("jobs.*")).durable("workers").await.unwrap();
    let two = next("what is left", &mut jobs).await.unwrap();
    assert_eq!((two.redelivered(), &two[..]), (true, &b"two"[..]));
    two.ack().await.unwrap();
    assert!(node.remove_durable("workers").await.unwrap());
    assert!(!node.remove_durable("workers").await.unwrap());
    let nobody = node.publish(topic("jobs.new"), &"three".into()).guaranteed().await.unwrap_err();
    assert_eq!(nobody.outcome(), Outcome::Nobody);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_in_time_is_told_once_also_after_a_restart() {
    let place = Place::new(Turn::shared());
    let node = place.node("alone", TCP).start().await.unwrap();
    let payload = "lost".into();
    let lost = short(node.publish(topic("jobs.new"), &payload)).to(["nobody", "none"]).await.unwrap();
    assert_eq!(lost.recipients, ["nobody", "none"]);
    let mut undelivered = node.undelivered();
    let one = next("a notice", &mut undelivered).await;
    let other = next("the other notice", &mut undelivered).await;
    for notice in [&one, &other] {
        assert_eq!((notice.id, notice.reason, &*notice.topic), (lost.id, Reason::NeverReached, "jobs.new"));
    }
    assert_ne!(one.recipient, other.recipient);
    one.take().await.unwrap();
    assert_eq!(node.outbox().await.unwrap().total, 0);
    let left = other.recipient.clone();
    drop((undelivered, other));
    node.leave().await;

    let node = place.node("alone", TCP).start().await.unwrap();
    assert_eq!(node.status().await.unwrap().tables.notices, 1);
    let notice = next("the notice that was not taken", &mut node.undelivered()).await;
    assert_eq!((notice.id, notice.recipient.clone()), (lost.id, left));
    notice.take().await.unwrap();
    assert_eq!(node.status().await.unwrap().tables.notices, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_too_late_is_told_and_so_is_the_sender() {
    let place = Place::new(Turn::shared());
    let node = place.node("alone", TCP).start().await.unwrap();
    let mut jobs = node.subscribe(pattern("jobs.*")).durable("workers").await.unwrap();
    let payload = "slow".into();
    let slow = short(node.publish(topic("jobs.new"), &payload)).await.unwrap();
    let job = next("the job", &mut jobs).await.unwrap();
    let notice = next("a notice", &mut node.undelivered()).await;
    assert_eq!((notice.id, notice.reason), (slow.id, Reason::Stored));
    within("the recipient to forget it", async { while node.status().await.unwrap().tables.inbox > 0 {} }).await;
    assert!(matches!(job.ack().await, Err(AckError::Late)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_subscription_has_one_pattern_whoever_holds_it() {
    let place = Place::new(Turn::shared());
    let one = place.node("one", TCP).start().await.unwrap();
    let held = one.subscribe(pattern("a.>")).durable("name").await.unwrap();
    let other = place.node("other", TCP).peer(address(&one)).start().await.unwrap();
    other.ready(1).await.unwrap();
    other.settled().await.unwrap();
    // Others may hold it with the same one: it is a queue then.
    for node in [&one, &other] {
        drop(node.subscribe(pattern("a.>")).durable("name").await.unwrap());
    }
    for (node, why) in [(&one, "with the pattern a.>"), (&other, "with the pattern a.>")] {
        let refused = node.subscribe(pattern("b.>")).durable("name").await.unwrap_err();
        assert!(matches!(&refused, SubscribeError::Durable { reason } if reason.contains(why)), "{refused}");
        assert_eq!(refused.outcome(), Outcome::Rejected);
    }
    drop(held);
    let _held = one.subscribe(pattern("a.>")).durable("name").await.unwrap();
    let several = one.subscribe(pattern("a.>")).also(pattern("b.>")).durable("several").await.unwrap_err();
    assert!(several.to_string().contains("one pattern"), "{several}");
    let misspelt = one.subscribe(pattern("a.>")).durable("a name").await.unwrap_err();
    assert!(matches!(misspelt, SubscribeError::Name(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_accepted_is_refused_and_not_stored() {
    let place = Place::new(Turn::shared());
    let limits = pombo::Limits { outbox_messages: 2, ..pombo::Limits::default() };
    let config = pombo::Config { limits, ..pombo::Config::default() };
    let mesh = pombo::MeshChoice::Named("test".to_owned());
    let builder = pombo::Node::builder().config(config).name("small").mesh(mesh).data_dir(place.data.path());
    let node = builder.mdns(false).local(false).start().await.unwrap();
    let payload = "text".into();
    let publish = || node.publish(topic("a.b"), &payload).guaranteed();
    let nobody = publish().await.unwrap_err();
    assert!(matches!(nobody, PublishError::NoRecipient { .. }), "{nobody}");
    for ttl in [Duration::ZERO, Duration::from_secs(31 * 24 * 3600)] {
        assert!(matches!(publish().to(["x"]).ttl(ttl).await, Err(PublishError::Ttl { .. })));
    }
    assert!(matches!(publish().to(["not a name"]).await, Err(PublishError::Name(_))));
    let crowd = (0..1_001).map(|number| format!("x{number}"));
    assert!(matches!(publish().to(crowd).await, Err(PublishError::TooManyRecipients { count: 1_001, limit: 1_000 })));
    for _ in 0..2 {
        publish().to(["x"]).await.unwrap();
    }
    let full = publish().to(["x"]).await.unwrap_err();
    assert!(matches!(full, PublishError::OutboxFull { limit: 2, .. }), "{full}");
    assert_eq!((full.outcome(), node.outbox().await.unwrap().total), (Outcome::Rejected, 2));
    let homeless = pombo::Node::builder().config(pombo::Config { short_lived: true, ..pombo::Config::default() });
    let homeless = homeless.mesh(pombo::MeshChoice::Open).mdns(false).local(false).start().await.unwrap();
    let refused = homeless.publish(topic("a.b"), &payload).guaranteed().to(["x"]).await.unwrap_err();
    assert!(matches!(refused, PublishError::NoStore { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_takes_no_more_bytes_than_it_may_and_takes_more_when_some_are_gone() {
    let place = Place::new(Turn::shared());
    let limits = pombo::Limits { outbox: 10_000, ..pombo::Limits::default() };
    let config = pombo::Config { limits, ..pombo::Config::default() };
    let mesh = pombo::MeshChoice::Named("test".to_owned());
    let builder = pombo::Node::builder().config(config).name("small").mesh(mesh).data_dir(place.data.path());
    let node = builder.mdns(false).local(false).start().await.unwrap();
    let payload = vec![7; 3_000].into();
    let publish = || node.publish(topic("a.b"), &payload).guaranteed().to(["x"]);
    for _ in 0..3 {
        publish().await.unwrap();
    }
    let full = publish().await.unwrap_err();
    assert!(matches!(full, PublishError::OutboxFull { what: "bytes", limit: 10_000 }), "{full}");
    let outbox = node.outbox().await.unwrap();
    assert!(outbox.total == 3 && (9_000..=10_000).contains(&outbox.bytes), "{outbox:?}");
    let mut got = node.subscribe(pattern("a.>")).durable("x").await.unwrap();
    next("a message", &mut got).await.unwrap().ack().await.unwrap();
    within("room", async { while publish().await.is_err() {} }).await;
}

/// A bit flips on the sender's disk, in a letter and in what is written down beside it: both are told of, and others are
/// delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_costs_the_message_that_it_hits_and_its_sender_is_told() {
    let place = Place::new(Turn::shared());
    let node = place.node("alone", TCP).start().await.unwrap();
    let mut ids = Vec::new();
    for payload in ["in the letter", "in the row beside it", "whole"] {
        ids.push(node.publish(topic("a.b"), &payload.into()).guaranteed().to(["later"]).await.unwrap().id);
    }
    node.leave().await;
    let database = rusqlite::Connection::open(store(place.data.path(), "alone")).unwrap();
    for (part, number) in [(2, 0), (1, 1)] {
        let (row, mut value): (i64, Vec<u8>) = database
            .query_row(
                "SELECT id, value FROM numbered WHERE id >> 48 = ?1 ORDER BY id LIMIT 1 OFFSET ?2",
                [part, number],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        let middle = value.len() / 2;
        value[middle] ^= 4;
        database.execute("UPDATE numbered SET value = ?1 WHERE id = ?2", rusqlite::params![value, row]).unwrap();
    }
    drop(database);

    let node = place.node("alone", TCP).start().await.unwrap();
    let mut later = node.subscribe(pattern("a.b")).durable("later").await.unwrap();
    let whole = next("the message that is whole", &mut later).await.unwrap();
    assert_eq!((whole.id(), &whole[..]), (ids[2], &b"whole"[..]));
    whole.ack().await.unwrap();
    let mut undelivered = node.undelivered();
    let mut told = Vec::new();
    for _ in 0..2 {
        let notice = next("a notice", &mut undelivered).await;
        assert_eq!((notice.reason, &*notice.recipient), (Reason::Damaged, "later"));
        told.push(notice.id);
    }
    told.sort_unstable();
    assert_eq!(told, ids[..2]);
    assert_eq!(node.status().await.unwrap().tables.damaged, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_store_keeps_the_node_from_starting_and_stays() {
    let place = Place::new(Turn::shared());
    place.node("alone", TCP).start().await.unwrap().leave().await;
    let path = store(place.data.path(), "alone");
    fs::write(&path, "a shopping list, rather a long one, and no database at all: ".repeat(20)).unwrap();
    let refused = place.node("alone", TCP).start().await.unwrap_err();
    assert!(matches!(refused, StartError::Data(_)));
    let text = refused.to_string();
    assert!(text.contains(path.to_str().unwrap()) && text.contains("move it away"), "{text}");
    assert!(fs::read_to_string(&path).unwrap().starts_with("a shopping list"));

    fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE recipes (name)").unwrap();
    drop(other);
    let text = place.node("alone", TCP).start().await.unwrap_err().to_string();
    assert!(text.contains("another program"), "{text}");

    fs::remove_file(&path).unwrap();
    place.node("alone", TCP).start().await.unwrap().leave().await;
    let later = rusqlite::Connection::open(&path).unwrap();
    later.pragma_update(None, "user_version", 99).unwrap();
    drop(later);
    let text = place.node("alone", TCP).start().await.unwrap_err().to_string();
    assert!(text.contains("later version"), "{text}");
}

/// A file system of 4 MiB, for as long as this is held. None where there may be none.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "none"]).arg(dir.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// The disk is full: nothing more is accepted, which shows at once; what was is delivered; and with room all goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_delivers_and_recovers() {
    let _turn = Turn::shared();
    let Some(disk) = SmallDisk::new() else {
        eprintln!("SKIPPED: nothing can be mounted here");
        return;
    };
    let place = Place::new(Turn::shared());
    let mesh = disk.0.path().join("mesh").join("test");
    fs::write(disk.0.path().join("filler"), vec![0; 1 << 20]).unwrap();
    let recipient = place.node("recipient", TCP).start().await.unwrap();
    fs::create_dir_all(&mesh).unwrap();
    fs::copy(place.data.path().join("mesh/test/secret"), mesh.join("secret")).unwrap();
    let sender = place.node("sender", TCP).data_dir(disk.0.path()).peer(address(&recipient)).start().await.unwrap();
    let payload = vec![7; 50_000].into();
    let mut accepted = Vec::new();
    let refused = loop {
        let began = std::time::Instant::now();
        match sender.publish(topic("a.b"), &payload).guaranteed().to(["later"]).await {
            Ok(one) => accepted.push(one.id),
            Err(refused) => break (refused, began.elapsed()),
        }
    };
    assert!(matches!(refused.0, PublishError::NotStored { .. }), "{refused:?}");
    assert!(refused.1 < Duration::from_secs(1), "{refused:?}");
    assert!(accepted.len() > 10, "{}", accepted.len());
    let mut later = recipient.subscribe(pattern("a.b")).durable("later").await.unwrap();
    for id in &accepted {
        let message = next("what was accepted", &mut later).await.unwrap();
        assert_eq!(message.id(), *id);
        message.ack().await.unwrap();
    }
    // It is known that they arrived, though that cannot be written down.
    within("an empty outbox", async { while sender.outbox().await.unwrap().total > 0 {} }).await;
    fs::remove_file(disk.0.path().join("filler")).unwrap();
    for _ in 0..5 {
        within("room", async {
            while sender.publish(topic("a.b"), &payload).guaranteed().to(["later"]).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        next("the next message", &mut later).await.unwrap().ack().await.unwrap();
    }
}
