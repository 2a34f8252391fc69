//! Groups whose members come and go, starts with a clock that was set back, hosts that vanish, networks that part.

use std::collections::BTreeMap;

use super::node::{SimNode, Subscriber};
use super::scenarios::{
    CALM, LOSSY, check_once_and_in_order, everybody_knows_everybody, everybody_knows_the_interests, missing,
    random_graph,
};
use super::world::{MILLI, SECOND, World};
use super::{for_seeds, tally};
use crate::MessageId;
use crate::mesh::event::{Command, Event, SubscriberId};

const HOUR: u64 = 3_600 * SECOND;

fn knows(world: &World, node: usize, other: usize) -> bool {
    let peer = world.nodes[other].peer;
    world.nodes[node].routes.remote.iter().any(|one| one.peer == peer)
}

fn suspicions(node: &SimNode, of: &SimNode) -> usize {
    let suspects = |event: &&Event| matches!(event, Event::Suspect { peer, .. } if *peer == of.peer);
    node.events.iter().filter(suspects).count()
}

/// How often each message was read by the members of a group, wherever they are.
fn readings(world: &World, group: &str) -> BTreeMap<MessageId, usize> {
    let subscribers = world.nodes.iter().flat_map(|node| node.subscribers.values());
    let members = subscribers.filter(|one| one.local.group.as_deref() == Some(group));
    tally(members.flat_map(Subscriber::messages).map(|got| got.id))
}

/// Two groups on patterns that overlap, with several members on one node, beside the publishers and elsewhere: each
/// message goes to one of each group.
#[test]
fn groups_on_overlapping_patterns_each_get_every_message_once() {
    for_seeds("groups_on_overlapping_patterns_each_get_every_message_once", 20, |seed| {
        let mut world = World::new(seed, LOSSY);
        random_graph(&mut world, 4, 4);
        assert!(world.run_until(10 * SECOND, everybody_knows_everybody));
        for (node, pattern, group) in [
            (0, "jobs.>", "workers"),
            (0, "*.new", "workers"),
            (1, "jobs.new", "workers"),
            (2, "jobs.*", "workers"),
            (2, "jobs.new", "auditors"),
            (3, ">", "auditors"),
            (3, "jobs.>", "auditors"),
        ] {
            world.subscribe(node, pattern, Some(group));
        }
        let alone = world.subscribe(3, "jobs.>", None);
        assert!(world.run_until(10 * SECOND, |world| everybody_knows_the_interests(world, 8)));
        for number in 0..80u8 {
            let by = usize::from(number % 4);
            let payload = if number % 16 == 0 { vec![number; 100_000] } else { vec![number] };
            world.publish(by, "jobs.new", &payload);
            world.press(by);
            world.run(5 * MILLI);
        }
        world.run(12 * SECOND);
        for group in ["workers", "auditors"] {
            let times = readings(&world, group);
            assert_eq!((times.len(), times.values().max()), (80, Some(&1)), "{group}");
        }
        assert_eq!(world.nodes[3].subscribers[&alone].messages().count(), 80, "who is in no group gets all");
    });
}

/// Members join, leave and are killed while messages are published. None goes to two of them; one goes to nobody only if
/// it was published when a member was just going.
#[test]
fn members_come_and_go_and_no_message_is_read_twice() {
    /// From an orderly end until its publisher knows.
    const LEAVING: u64 = 2 * SECOND;
    /// From a killed process until its publisher has found that it cannot be dialled.
    const DYING: u64 = 2 * SECOND;
    for_seeds("members_come_and_go_and_no_message_is_read_twice", 50, |seed| {
        let mut world = World::new(seed, CALM);
        random_graph(&mut world, 5, 5);
        assert!(world.run_until(10 * SECOND, everybody_knows_everybody));
        // Two that stay: one beside a publisher.
        world.subscribe(0, "jobs.>", Some("workers"));
        world.subscribe(1, "*.new", Some("workers"));
        let mut members: Vec<(usize, SubscriberId)> = Vec::new();
        let mut going: Vec<(u64, u64)> = Vec::new();
        let mut times: BTreeMap<MessageId, u64> = BTreeMap::new();
        // What members read whose node was killed since.
        let mut read: Vec<MessageId> = Vec::new();
        assert!(world.run_until(10 * SECOND, |world| everybody_knows_the_interests(world, 2)));
        for _ in 0..60 {
            let node = 2 + world.random.below(3);
            match world.random.below(5) {
                0 if world.nodes[node].up && !members.is_empty() => {
                    world.kill(node);
                    members.retain(|(at, _)| *at != node);
                    going.push((world.now, world.now + DYING));
                }
                0 | 1 if !world.nodes[node].up => {
                    let dead = world.nodes[node].subscribers.values().flat_map(Subscriber::messages);
                    read.extend(dead.map(|got| got.id));
                    world.restart(node);
                    world.introduce(node, &[0, 1]);
                }
                2 if !members.is_empty() => {
                    let gone = world.random.below(members.len());
                    let (at, id) = members.swap_remove(gone);
                    world.unsubscribe(at, id);
                    going.push((world.now, world.now + LEAVING));
                }
                _ if world.nodes[node].up => {
                    let pattern = ["jobs.>", "jobs.new"][world.random.below(2)];
                    let id = world.subscribe(node, pattern, Some("workers"));
                    members.push((node, id));
                }
                _ => {}
            }
            for _ in 0..4 {
                let by = world.random.below(2);
                world.publish(by, "jobs.new", b"work");
                let id = world.published.last().expect("it was published").id;
                times.insert(id, world.now);
                world.press(by);
                world.run(60 * MILLI);
            }
        }
        world.run(15 * SECOND);
        let (dead, living) = (tally(read), readings(&world, "workers"));
        for (id, at) in times {
            let count = [&dead, &living].into_iter().filter_map(|times| times.get(&id)).sum::<usize>();
            assert!(count <= 1, "{id} was read {count} times");
            // A moment before, it may still have been on its way.
            let may_be_lost = going.iter().any(|(from, to)| (from - 100 * MILLI..=*to).contains(&at));
            assert!(count == 1 || may_be_lost, "{id} was read by nobody, at {at}: {going:?}");
        }
    });
}

/// A node starts again with a clock that was set back by an hour. It is there for everybody at once, stays so, and neither
/// what it publishes nor what others do is lost: not for those who knew it, nor for one that starts then itself.
#[test]
fn a_clock_set_back_an_hour_between_two_starts_does_no_harm() {
    for_seeds("a_clock_set_back_an_hour_between_two_starts_does_no_harm", 50, |seed| {
        let mut world = World::new(seed, LOSSY);
        let (late, other, far, relay) = (world.start(false), world.start(false), world.start(false), world.start(true));
        // One of them hears of it only through others.
        world.bar(late, far);
        world.introduce(late, &[other, relay]);
        world.introduce(far, &[relay, other]);
        world.introduce(other, &[relay]);
        let mut listeners =
            vec![(other, world.subscribe(other, "a.>", None)), (far, world.subscribe(far, "a.>", None))];
        assert!(world.run_until(20 * SECOND, |world| everybody_knows_everybody(world)
            && everybody_knows_the_interests(world, 2)));
        for number in 0..5 {
            world.publish(late, "a.x", &[number]);
            world.press(late);
            world.run(20 * MILLI);
        }
        world.run(3 * SECOND);
        let is_orderly = world.random.chance(50);
        if is_orderly {
            world.command(late, Command::Leave);
            world.run(SECOND);
        }
        world.kill(late);
        world.run(SECOND);
        // Somebody else starts again, too, and knows nothing of before.
        let both = world.random.chance(50);
        if both {
            world.kill(other);
            world.run(SECOND);
            world.restart(other);
            world.introduce(other, &[relay, far]);
            listeners.remove(0);
        }
        let before = suspicions(&world.nodes[far], &world.nodes[late]);
        world.restart_late(late, HOUR);
        world.introduce(late, &[other, relay]);
        if both {
            listeners.push((other, world.subscribe(other, "a.>", None)));
        }
        let own = world.subscribe(late, "a.>", None);
        let all = |world: &World| (0..4).all(|one| (0..4).all(|two| one == two || knows(world, one, two)));
        assert!(world.run_until(10 * SECOND, all), "orderly: {is_orderly}: somebody does not take it for there");
        assert!(world.run_until(6 * SECOND, |world| everybody_knows_the_interests(world, 3)));
        let first = world.published.len();
        for number in 0..60 {
            for by in [late, other, far] {
                world.publish(by, "a.x", &[number]);
                world.press(by);
            }
            world.run(2 * SECOND);
        }
        world.run(12 * SECOND);
        listeners.push((late, own));
        for (node, id) in listeners {
            let subscriber = &world.nodes[node].subscribers[&id];
            check_once_and_in_order(&world, subscriber);
            let news = world.published[first..].iter().map(|publication| publication.id);
            let news: std::collections::BTreeSet<_> = news.collect();
            let lost: Vec<_> =
                missing(&world, node, subscriber).into_iter().filter(|one| news.contains(&one.id)).collect();
            assert!(lost.is_empty(), "node {node} lost {lost:#?}");
            let got = subscriber.messages().filter(|got| news.contains(&got.id)).count();
            assert_eq!(got, 180, "node {node}");
        }
        let after = suspicions(&world.nodes[far], &world.nodes[late]);
        assert!(after <= before + 1, "it was suspected {} times", after - before);
        assert!(all(&world));
    });
}

/// A host vanishes: its links end after some silence, and nobody says anything. Within a minute nobody counts on it, not
/// even those who only heard of it, and those who come later and hear of it from those.
#[test]
fn a_vanished_host_is_suspect_within_a_minute_for_everybody() {
    for_seeds("a_vanished_host_is_suspect_within_a_minute_for_everybody", 20, |seed| {
        let mut world = World::new(seed, LOSSY);
        let (near, gone, far) = (world.start(true), world.start(false), world.start(false));
        world.bar(far, gone);
        world.introduce(gone, &[near]);
        world.introduce(far, &[near]);
        assert!(world.run_until(20 * SECOND, everybody_knows_everybody));
        world.run(60 * SECOND);
        let vanished = world.now;
        world.part(&[0, 9, 0]);
        assert!(world.run_until(30 * SECOND, |world| !knows(world, near, gone)), "its neighbour notices soon");
        world.run(vanished + 35 * SECOND - world.now);
        // It hears from one that never was linked to the vanished one.
        let newcomer = world.start(false);
        world.bar(newcomer, gone);
        world.bar(newcomer, near);
        world.introduce(newcomer, &[far]);
        world.run(vanished + 61 * SECOND - world.now);
        for node in [near, far, newcomer] {
            assert!(!knows(&world, node, gone), "node {node} counts on it after a minute");
        }
        // And so it stays.
        for _ in 0..30 {
            world.run(5 * SECOND);
            assert!([near, far, newcomer].iter().all(|node| !knows(&world, *node, gone)), "somebody believes again");
        }
    });
}

/// Ten hosts part in two halves, for seconds or for minutes, and come together again.
#[test]
fn a_partition_of_ten_heals_within_ten_seconds() {
    for_seeds("a_partition_of_ten_heals_within_ten_seconds", 20, |seed| {
        let mut world = World::new(seed, LOSSY);
        random_graph(&mut world, 10, 4);
        assert!(world.run_until(30 * SECOND, everybody_knows_everybody));
        let subscribers: Vec<_> = (0..10).map(|node| (node, world.subscribe(node, "a.>", None))).collect();
        assert!(world.run_until(10 * SECOND, |world| everybody_knows_the_interests(world, 10)));
        world.part(&[0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
        let apart = [10, 70, 400][world.random.below(3)] * SECOND;
        world.run(apart);
        let across = world.nodes[0].routes.remote.iter().filter(|one| one.linked).count();
        assert_eq!(across, 4, "the halves are apart");
        // Each half goes on.
        world.publish(1, "a.half", b"one");
        world.press(1);
        world.publish(9, "a.half", b"two");
        world.press(9);
        world.run(SECOND);

        world.part(&[0; 10]);
        let healed = |world: &World| everybody_knows_everybody(world) && everybody_knows_the_interests(world, 10);
        assert!(world.run_until(10 * SECOND, healed), "after {apart} the rosters differ still");
        let first = world.published.len();
        for by in 0..10 {
            world.publish(by, "a.x", &[u8::try_from(by).expect("small")]);
            world.press(by);
        }
        let news: Vec<_> = world.published[first..].iter().map(|publication| publication.id).collect();
        let all_have_all = |world: &World| {
            subscribers.iter().all(|(node, id)| {
                let subscriber = &world.nodes[*node].subscribers[id];
                news.iter().all(|id| subscriber.messages().any(|got| got.id == *id))
            })
        };
        assert!(world.run_until(15 * SECOND, all_have_all), "after {apart} somebody misses something");
        for (node, id) in &subscribers {
            check_once_and_in_order(&world, &world.nodes[*node].subscribers[id]);
        }
    });
}

/// A node that is started again and again leaves nothing behind at the others.
#[test]
fn restarts_leave_nothing_behind() {
    let tables = |world: &World| world.nodes[0].mesh.status().tables;
    for_seeds("restarts_leave_nothing_behind", 10, |seed| {
        let mut world = World::new(seed, LOSSY);
        random_graph(&mut world, 3, 3);
        world.subscribe(0, ">", None);
        world.subscribe(1, ">", None);
        let mut counted = Vec::new();
        for round in 0..12u8 {
            assert!(world.run_until(20 * SECOND, everybody_knows_everybody), "round {round}");
            for topic in ["a.x", "b.x", "c.x"] {
                world.publish(2, topic, &[round]);
                world.press(2);
            }
            world.run(15 * SECOND);
            // The rosters are compared every few seconds: such an exchange may be under way, and ends.
            assert!(
                world.run_until(SECOND, |world| tables(world).exchanges == 0),
                "round {round}: an exchange stays open"
            );
            counted.push(tables(&world));
            world.kill(2);
            world.run(SECOND);
            world.restart(2);
            world.introduce(2, &[0, 1]);
        }
        let (early, late) = (&counted[3], &counted[11]);
        assert_eq!((late.streams, late.records, late.graves), (early.streams, early.records, early.graves));
        assert_eq!((late.candidates, late.heads), (early.candidates, early.heads));
    });
}
