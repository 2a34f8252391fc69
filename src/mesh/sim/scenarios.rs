//! What has to hold, whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use libp2p_identity::PeerId;

use super::node::{Got, Read, Subscriber};
use super::world::{Faults, MILLI, Publication, SECOND, World};
use super::{Random, for_seeds, tally};
use crate::mesh::event::{Answer, Ask, AskFailure, Command, SubscriberId};
use crate::mesh::time::Span;
use crate::{Dissemination, Headers, MessageId};

pub(super) const CALM: Faults = Faults { drop: 0, duplicate: 0, latency: (200, 2 * MILLI) };
pub(super) const LOSSY: Faults = Faults { drop: 20, duplicate: 10, latency: (200, 40 * MILLI) };

/// Starts nodes in a random connected graph.
pub(super) fn random_graph(world: &mut World, nodes: usize, degree: usize) {
    for _ in 0..nodes {
        world.start(false);
    }
    for node in 1..nodes {
        let mut others = vec![world.random.below(node)];
        others.extend((1..degree / 2).map(|_| world.random.below(nodes)));
        world.introduce(node, &others);
    }
}

pub(super) fn everybody_knows_everybody(world: &World) -> bool {
    let up = world.nodes.iter().filter(|node| node.up).count();
    world.nodes.iter().filter(|node| node.up).all(|node| node.routes.remote.len() + 1 == up)
}

/// Whether every node knows of as many interests as there are.
pub(super) fn everybody_knows_the_interests(world: &World, count: usize) -> bool {
    world.nodes.iter().all(|node| {
        let remote: usize = node.routes.remote.iter().map(|other| other.interests.len()).sum();
        remote + node.mesh.status().node.patterns.len() == count
    })
}

/// No message twice, and each publisher's messages on each topic in the order in which they were published.
pub(super) fn check_once_and_in_order(world: &World, subscriber: &Subscriber) {
    let position: BTreeMap<MessageId, usize> =
        world.published.iter().enumerate().map(|(position, publication)| (publication.id, position)).collect();
    for (id, times) in tally(subscriber.messages().map(|got| got.id)) {
        assert_eq!(times, 1, "{id} came {times} times");
    }
    let mut last: BTreeMap<(PeerId, u64, &str), usize> = BTreeMap::new();
    for Got { source, incarnation, topic, id, .. } in subscriber.messages() {
        let now = position[id];
        let before = last.insert((*source, *incarnation, topic), now);
        assert!(before.is_none_or(|before| before < now), "{id} on {topic} is out of order");
    }
}

/// The messages that a subscriber was owed: its node was known to the publisher as a listener.
fn owed<'a>(world: &'a World, node: usize, subscriber: &'a Subscriber) -> impl Iterator<Item = &'a Publication> {
    let peer = world.nodes[node].peer;
    world.published.iter().filter(move |publication| {
        let knew = publication.listeners.contains(&peer) || publication.by == node;
        let was_there = publication.subscribers.contains(&subscriber.local.id);
        knew && was_there && subscriber.local.listens(&publication.topic)
    })
}

pub(super) fn missing<'a>(world: &'a World, node: usize, subscriber: &'a Subscriber) -> Vec<&'a Publication> {
    let got: BTreeSet<MessageId> = subscriber.messages().map(|got| got.id).collect();
    owed(world, node, subscriber).filter(|publication| !got.contains(&publication.id)).collect()
}

/// A handful of nodes, each with subscribers; everybody publishes, in bursts, while a fifth of all gossip is lost, some of
/// it comes twice, and all of it out of order. Everybody gets everything, once and in order.
#[test]
fn nothing_is_lost_though_a_fifth_of_the_gossip_is() {
    for_seeds("nothing_is_lost_though_a_fifth_of_the_gossip_is", 100, |seed| {
        let mut world = World::new(seed, LOSSY);
        random_graph(&mut world, 6, 4);
        assert!(world.run_until(10 * SECOND, everybody_knows_everybody), "the roster is not complete");
        let patterns = ["a.>", "b.*", ">", "c.x"];
        for node in 0..6 {
            let pattern = patterns[world.random.below(patterns.len())];
            world.subscribe(node, pattern, None);
        }
        assert!(
            world.run_until(10 * SECOND, |world| everybody_knows_the_interests(world, 6)),
            "interests are not known"
        );

        let topics = ["a.x", "a.y", "b.x", "c.x"];
        for _ in 0..30 {
            let by = world.random.below(6);
            for _ in 0..=world.random.below(5) {
                let topic = topics[world.random.below(topics.len())];
                let size = if world.random.chance(5) { 100_000 } else { 20 };
                world.publish(by, topic, &vec![1; size]);
                if world.random.chance(50) {
                    world.press(by);
                }
            }
            world.press(by);
            let pause = world.random.between(0, 100 * MILLI);
            world.run(pause);
        }
        world.run(12 * SECOND);

        for (index, node) in world.nodes.iter().enumerate() {
            for subscriber in node.subscribers.values() {
                check_once_and_in_order(&world, subscriber);
                assert_eq!(subscriber.missed(), 0, "node {index} was told of a gap");
                let lost = missing(&world, index, subscriber);
                assert!(lost.is_empty(), "node {index} misses {lost:#?}");
            }
        }
    });
}

/// Nodes come, go and come back, subscribe and unsubscribe; the network splits and heals; gossip is lost. Nothing comes
/// twice or out of order, and what a listener misses it is told of.
#[test]
fn chaos_loses_nothing_in_silence() {
    for_seeds("chaos_loses_nothing_in_silence", 100, |seed| {
        let mut world = World::new(seed, LOSSY);
        let mut chaos = Random(seed ^ 0xc4a0_5000);
        random_graph(&mut world, 6, 4);
        world.run(2 * SECOND);
        let mut subscribed: Vec<(usize, SubscriberId)> = Vec::new();
        // Who never stopped, and was never cut off: for these the bill has to come out.
        let mut restarted: BTreeSet<usize> = BTreeSet::new();
        let mut ended: BTreeSet<SubscriberId> = BTreeSet::new();
        for step in 0..40 {
            match chaos.below(12) {
                0 => {
                    let node = chaos.below(6);
                    if world.nodes[node].up {
                        world.kill(node);
                        restarted.insert(node);
                        subscribed.retain(|(at, _)| *at != node);
                    } else {
                        world.restart(node);
                        let others: Vec<_> = (0..6).collect();
                        world.introduce(node, &others);
                    }
                }
                1 => {
                    let sides: Vec<u8> = (0..6).map(|_| u8::from(chaos.chance(50))).collect();
                    world.part(&sides);
                }
                2 | 3 => world.part(&[0; 6]),
                4 | 5 => {
                    let node = chaos.below(6);
                    if world.nodes[node].up {
                        let id = world.subscribe(node, ["a.>", ">", "b.x"][chaos.below(3)], None);
                        subscribed.push((node, id));
                    }
                }
                6 if !subscribed.is_empty() => {
                    let (node, id) = subscribed.swap_remove(chaos.below(subscribed.len()));
                    world.unsubscribe(node, id);
                    ended.insert(id);
                }
                _ => {
                    let by = chaos.below(6);
                    if world.nodes[by].up {
                        for _ in 0..=chaos.below(6) {
                            world.publish(by, ["a.x", "b.x"][chaos.below(2)], &[step; 10]);
                        }
                        world.press(by);
                    }
                }
            }
            let pause = chaos.between(0, 600 * MILLI);
            world.run(pause);
        }
        world.part(&[0; 6]);
        world.run(45 * SECOND);

        for (index, node) in world.nodes.iter().enumerate().filter(|(_, node)| node.up) {
            for (id, subscriber) in &node.subscribers {
                check_once_and_in_order(&world, subscriber);
                if restarted.contains(&index) || ended.contains(id) {
                    continue;
                }
                // Of publishers that never stopped, everything is either here or was told to be missing.
                let lost = missing(&world, index, subscriber);
                let silent: Vec<_> = lost.iter().filter(|publication| !restarted.contains(&publication.by)).collect();
                let told = usize::try_from(subscriber.missed()).expect("small");
                assert!(silent.len() <= told, "node {index} was told of {told} messages and misses {silent:#?}");
            }
        }
    });
}

/// A change at one node is known to all fifty within two seconds.
#[test]
fn a_roster_change_reaches_fifty_nodes_within_two_seconds() {
    for_seeds("a_roster_change_reaches_fifty_nodes_within_two_seconds", 1, |seed| {
        let mut world = World::new(seed, LOSSY);
        random_graph(&mut world, 50, 8);
        assert!(world.run_until(30 * SECOND, everybody_knows_everybody), "the roster is not complete");
        let node = world.random.below(50);
        world.subscribe(node, "some.thing", None);
        let known = |world: &World| everybody_knows_the_interests(world, 1);
        assert!(world.run_until(2 * SECOND, known), "not everybody knows after two seconds");
    });
}

/// The subscription is in force for whoever is linked, as soon as it is answered.
#[test]
fn a_subscription_that_was_answered_is_known_to_the_neighbours() {
    for_seeds("a_subscription_that_was_answered_is_known_to_the_neighbours", 20, |seed| {
        let mut world = World::new(seed, LOSSY);
        let (one, other) = (world.start(false), world.start(false));
        world.introduce(other, &[one]);
        assert!(world.run_until(5 * SECOND, everybody_knows_everybody));
        let patterns = vec!["a.>".into()];
        let ticket =
            world.command(one, Command::Subscribe { subscriber: SubscriberId(1 << 60), patterns, group: None });
        assert!(world.run_until(SECOND, |world| world.nodes[one].answers.contains_key(&ticket)));
        assert_eq!(world.nodes[other].routes.reach("a.x", world.nodes[other].peer).peers, 1);
    });
}

/// A - B - C: what A publishes reaches C through B, which wants nothing itself.
#[test]
fn a_relay_passes_on_what_it_does_not_want() {
    for_seeds("a_relay_passes_on_what_it_does_not_want", 20, |seed| {
        let mut world = World::new(seed, LOSSY);
        let (a, b, c) = (world.start(false), world.start(true), world.start(false));
        world.bar(a, c);
        world.introduce(a, &[b]);
        world.introduce(c, &[b]);
        let id = world.subscribe(c, "a.>", None);
        assert!(world.run_until(10 * SECOND, |world| everybody_knows_the_interests(world, 1)));
        for _ in 0..20 {
            world.publish(a, "a.b", b"over the hill");
            world.press(a);
            world.run(30 * MILLI);
        }
        world.run(12 * SECOND);
        assert!(!world.linked(a, c));
        let subscriber = &world.nodes[c].subscribers[&id];
        check_once_and_in_order(&world, subscriber);
        let got: Vec<u64> = subscriber.messages().map(|got| got.id.counter).collect();
        assert_eq!((got, subscriber.missed()), ((1..=20).collect(), 0));
    });
}

/// Each message of a group's topic goes to one of its members, local and remote ones alike.
#[test]
fn a_group_gets_each_message_once() {
    for_seeds("a_group_gets_each_message_once", 20, |seed| {
        let mut world = World::new(seed, LOSSY);
        random_graph(&mut world, 4, 4);
        assert!(world.run_until(10 * SECOND, everybody_knows_everybody));
        for node in [0, 0, 1, 2] {
            world.subscribe(node, "jobs.>", Some("workers"));
        }
        assert!(world.run_until(10 * SECOND, |world| everybody_knows_the_interests(world, 3)));
        for number in 0..60u8 {
            world.publish(usize::from(number % 4), "jobs.new", &[number]);
            world.press(usize::from(number % 4));
            world.run(5 * MILLI);
        }
        world.run(12 * SECOND);
        let members = || world.nodes.iter().flat_map(|node| node.subscribers.values());
        let times = tally(members().flat_map(Subscriber::messages).map(|got| got.id));
        assert_eq!((times.len(), times.values().max()), (60, Some(&1)));
        assert!(members().filter(|member| member.messages().count() > 0).count() >= 3, "the work is not spread");
    });
}

/// Frames that are gone from every ring are told as a gap, with their number, and the stream goes on.
#[test]
fn what_cannot_be_repaired_is_told() {
    for_seeds("what_cannot_be_repaired_is_told", 10, |seed| {
        let mut world = World::new(seed, CALM);
        world.limits.ring = 1;
        // Over a lane nothing would be lost.
        world.dissemination = Dissemination::Gossip;
        let (one, other) = (world.start(false), world.start(false));
        world.introduce(other, &[one]);
        let id = world.subscribe(other, "a.>", None);
        assert!(world.run_until(10 * SECOND, |world| everybody_knows_the_interests(world, 1)));
        for number in 0..10u8 {
            world.faults.drop = if (3..6).contains(&number) { 100 } else { 0 };
            world.publish(one, "a.b", &[number]);
            world.press(one);
            world.run(20 * MILLI);
        }
        world.run(SECOND);
        let subscriber = &world.nodes[other].subscribers[&id];
        let read: Vec<_> = subscriber
            .read
            .iter()
            .map(|read| match read {
                Read::Message(got) => u64::from(got.payload[0]),
                Read::Lagged(lag) => 1_000 + lag.missed,
            })
            .collect();
        assert_eq!(read, [0, 1, 2, 1_003, 6, 7, 8, 9]);
    });
}

/// A newcomer gets what is published from now on, and nothing of the past.
#[test]
fn a_newcomer_hears_nothing_of_the_past() {
    for_seeds("a_newcomer_hears_nothing_of_the_past", 20, |seed| {
        let mut world = World::new(seed, LOSSY);
        random_graph(&mut world, 4, 4);
        assert!(world.run_until(10 * SECOND, everybody_knows_everybody));
        world.subscribe(1, "a.>", None);
        world.run(SECOND);
        for number in 0..20u8 {
            world.publish(0, "a.b", &[number]);
            world.press(0);
            world.run(10 * MILLI);
        }
        let id = world.subscribe(2, "a.>", None);
        assert!(world.run_until(10 * SECOND, |world| everybody_knows_the_interests(world, 2)));
        for number in 100..120u8 {
            world.publish(0, "a.b", &[number]);
            world.press(0);
            world.run(10 * MILLI);
        }
        world.run(12 * SECOND);
        let subscriber = &world.nodes[2].subscribers[&id];
        let got: Vec<_> = subscriber.messages().map(|got| got.payload[0]).collect();
        // What was on its way while the subscription travelled may come as well.
        let news: Vec<_> = got.iter().copied().filter(|number| *number >= 100).collect();
        assert_eq!(news, (100..120).collect::<Vec<_>>());
        assert!(got.len() <= 25, "{got:?}");
    });
}

/// Requests end, one way or the other, exactly once, while providers come and go.
#[test]
fn every_request_ends_exactly_once() {
    for_seeds("every_request_ends_exactly_once", 20, |seed| {
        let mut world = World::new(seed, LOSSY);
        random_graph(&mut world, 5, 4);
        assert!(world.run_until(10 * SECOND, everybody_knows_everybody));
        for (number, node) in [(1, 0), (2, 1)] {
            let provider = crate::mesh::event::ProviderId(number);
            world.command(node, Command::Serve { provider, service: "up".into(), room: 2 });
        }
        world.run(2 * SECOND);
        let mut tickets = Vec::new();
        for step in 0..60 {
            let asker = 2 + world.random.below(3);
            let ask = Ask {
                service: "up".into(),
                to: world.random.chance(20).then(|| world.name(0)),
                timeout: Span::secs(2),
                content_type: "text/plain".into(),
                headers: Headers::default(),
                body: vec![step].into(),
            };
            tickets.push((asker, world.command(asker, Command::Request(ask)), step));
            let pause = world.random.between(0, 60 * MILLI);
            world.run(pause);
            if step == 30 {
                world.kill(1);
            }
        }
        world.run(5 * SECOND);
        let mut answered = 0;
        for (asker, ticket, body) in &tickets {
            match world.nodes[*asker].answers.get(ticket) {
                Some(Answer::Reply { reply, .. }) => {
                    assert_eq!(*reply.body, [*body]);
                    answered += 1;
                }
                Some(Answer::Failed(AskFailure::Busy | AskFailure::Unknown | AskFailure::NotSent)) => {}
                other => panic!("request {body} of node {asker} ended as {other:?}"),
            }
        }
        assert!(answered > 20, "only {answered} of 60 were answered");
    });
}

/// Frames whose author falls silent, while its links still seem to stand, are repaired by whoever has them.
#[test]
fn another_neighbour_repairs_what_a_silent_author_cannot() {
    for_seeds("another_neighbour_repairs_what_a_silent_author_cannot", 20, |seed| {
        let mut world = World::new(seed, CALM);
        random_graph(&mut world, 3, 4);
        assert!(world.run_until(10 * SECOND, everybody_knows_everybody));
        let (missed_it, has_it) = (world.subscribe(1, "a.>", None), world.subscribe(2, "a.>", None));
        assert!(world.run_until(10 * SECOND, |world| everybody_knows_the_interests(world, 2)));
        world.deaf.insert(1);
        for number in 0..3u8 {
            world.publish(0, "a.b", &[number]);
            world.press(0);
        }
        world.run(10 * MILLI);
        world.part(&[1, 0, 0]);
        world.deaf.clear();
        world.run(8 * SECOND);
        for (node, id) in [(1, missed_it), (2, has_it)] {
            let subscriber = &world.nodes[node].subscribers[&id];
            assert_eq!((subscriber.messages().count(), subscriber.missed()), (3, 0), "node {node}");
        }
    });
}

/// A line of nodes that link to no more others than they must.
fn sparse_line(world: &mut World, nodes: usize) {
    world.limits.links = 2;
    for node in 0..nodes {
        world.start(false);
        if node > 0 {
            world.introduce(node, &[node - 1]);
        }
    }
    assert!(world.run_until(20 * SECOND, everybody_knows_everybody), "the roster is not complete");
}

/// In a mesh too large to link to everybody, a request still reaches a provider that is no neighbour.
#[test]
fn a_request_reaches_a_provider_that_is_no_neighbour() {
    for_seeds("a_request_reaches_a_provider_that_is_no_neighbour", 20, |seed| {
        let mut world = World::new(seed, CALM);
        sparse_line(&mut world, 6);
        let asker = (1..6).find(|node| !world.linked(0, *node)).expect("somebody is no neighbour");
        let provider = crate::mesh::event::ProviderId(1);
        world.command(0, Command::Serve { provider, service: "up".into(), room: 2 });
        world.run(2 * SECOND);
        let ask = Ask {
            service: "up".into(),
            to: None,
            timeout: Span::secs(2),
            content_type: "text/plain".into(),
            headers: Headers::default(),
            body: vec![1].into(),
        };
        let ticket = world.command(asker, Command::Request(ask));
        world.run(3 * SECOND);
        let answer = world.nodes[asker].answers.get(&ticket);
        assert!(matches!(answer, Some(Answer::Reply { .. })), "{answer:?}");
    });
}

/// In a mesh too large to link to everybody, and without relays, a message still reaches a listener that is no neighbour:
/// also the very first one, which went out before there was a link.
#[test]
fn a_message_reaches_a_listener_that_is_no_neighbour() {
    for_seeds("a_message_reaches_a_listener_that_is_no_neighbour", 20, |seed| {
        let mut world = World::new(seed, CALM);
        sparse_line(&mut world, 6);
        let publisher = (1..6).find(|node| !world.linked(0, *node)).expect("somebody is no neighbour");
        let id = world.subscribe(0, "a.>", None);
        assert!(world.run_until(10 * SECOND, |world| everybody_knows_the_interests(world, 1)));
        for number in 0..5 {
            world.publish(publisher, "a.b", &[number]);
            world.press(publisher);
            world.run(SECOND);
        }
        world.run(12 * SECOND);
        let subscriber = &world.nodes[0].subscribers[&id];
        let got: Vec<u64> = subscriber.messages().map(|got| got.id.counter).collect();
        assert_eq!((got, subscriber.missed()), ((1..=5).collect(), 0));
    });
}

/// A member of a group whose process is killed gets no more of its messages once it cannot be dialled, and a newcomer does
/// not count on it either. When it is back it gets its share again.
#[test]
fn a_killed_member_of_a_group_is_not_counted_on() {
    for_seeds("a_killed_member_of_a_group_is_not_counted_on", 20, |seed| {
        let mut world = World::new(seed, CALM);
        random_graph(&mut world, 4, 4);
        assert!(world.run_until(10 * SECOND, everybody_knows_everybody));
        let alive = world.subscribe(1, "jobs.>", Some("workers"));
        world.subscribe(2, "jobs.>", Some("workers"));
        assert!(world.run_until(10 * SECOND, |world| everybody_knows_the_interests(world, 2)));
        world.run(2 * SECOND);
        world.kill(2);
        world.run(SECOND);
        let dead = world.nodes[2].peer;
        let counts_on = |world: &World, node: usize| world.nodes[node].routes.remote.iter().any(|one| one.peer == dead);
        assert!([0, 1, 3].iter().all(|node| !counts_on(&world, *node)), "somebody still counts on the dead");

        let newcomer = world.start(false);
        world.introduce(newcomer, &[0]);
        for number in 0..20 {
            world.run(100 * MILLI);
            assert!(!counts_on(&world, newcomer), "the newcomer was told of the dead");
            world.publish(0, "jobs.new", &[number]);
            world.press(0);
        }
        world.run(5 * SECOND);
        assert_eq!(world.nodes[1].subscribers[&alive].messages().count(), 20);

        world.restart(2);
        world.introduce(2, &[0]);
        assert!(world.run_until(10 * SECOND, everybody_knows_everybody), "it is back");
    });
}

/// A node that cannot be dialled, but is reached through others, stays known and gets everything.
#[test]
fn who_cannot_be_dialled_but_is_alive_loses_nothing() {
    for_seeds("who_cannot_be_dialled_but_is_alive_loses_nothing", 20, |seed| {
        let mut world = World::new(seed, CALM);
        // Two relays: what the one at the near end publishes goes over both, though it once lost its link to the far end.
        let (a, b, c) = (world.start(true), world.start(true), world.start(false));
        let x = world.start(false);
        world.bar(x, c);
        world.bar(x, b);
        world.introduce(c, &[a, b]);
        world.introduce(b, &[a]);
        world.introduce(x, &[a]);
        let id = world.subscribe(c, "a.>", None);
        assert!(world.run_until(10 * SECOND, |world| everybody_knows_the_interests(world, 1)));
        assert!(world.run_until(10 * SECOND, |world| world.linked(a, c)));
        world.bar(a, c);
        world.part(&[0; 4]);
        world.run(6 * SECOND);
        assert!(!world.linked(a, c) && world.linked(b, c));
        let mut suspected = 0;
        for number in 0..80 {
            world.publish(x, "a.b", &[number]);
            world.press(x);
            world.run(500 * MILLI);
        }
        let far = world.nodes[c].peer;
        for event in &world.nodes[a].events {
            suspected += usize::from(matches!(event, crate::mesh::event::Event::Suspect { peer, .. } if *peer == far));
        }
        assert!(suspected <= 1, "it flaps");
        assert!(world.nodes[x].routes.remote.iter().any(|one| one.peer == far), "x never was its neighbour");
        world.run(12 * SECOND);
        let subscriber = &world.nodes[c].subscribers[&id];
        check_once_and_in_order(&world, subscriber);
        assert_eq!((subscriber.messages().count(), subscriber.missed()), (80, 0));
    });
}
