//! Frames that go straight to their listeners, and change their way while they do.

use super::for_seeds;
use super::scenarios::{
    CALM, LOSSY, check_once_and_in_order, everybody_knows_everybody, everybody_knows_the_interests, missing,
};
use super::world::{Faults, MILLI, SECOND, World};
use crate::Dissemination;
use crate::mesh::event::Input;

/// Listeners that no lane leads to come and go, so that the way changes to gossip and back; lanes and links break; new
/// listeners appear in the middle of a burst. Nobody loses anything, gets it twice, or out of order.
#[test]
fn the_way_changes_under_load_and_nothing_is_lost() {
    for_seeds("the_way_changes_under_load_and_nothing_is_lost", 100, |seed| {
        // A gap is held open for 250 ms: so near to each other are they that several can be asked in that time.
        let mut world = World::new(seed, Faults { latency: (200, 15 * MILLI), ..LOSSY });
        world.dissemination = Dissemination::Adaptive;
        let (publisher, near, other) = (world.start(false), world.start(false), world.start(false));
        let (far, relay) = (world.start(false), world.start(true));
        world.bar(publisher, far);
        world.introduce(publisher, &[relay, near, other]);
        world.introduce(far, &[relay, near]);
        world.introduce(other, &[relay]);
        let stay = [(near, world.subscribe(near, "a.>", None)), (other, world.subscribe(other, "a.x", None))];
        assert!(world.run_until(20 * SECOND, |world| everybody_knows_everybody(world)
            && everybody_knows_the_interests(world, 2)));
        let (mut ways, mut distant) = ((0, 0), None);
        for step in 0..150u8 {
            for _ in 0..=world.random.below(4) {
                let topic = ["a.x", "a.y"][world.random.below(2)];
                let size = if world.random.chance(3) { 100_000 } else { 20 };
                world.publish(publisher, topic, &vec![step; size]);
                if world.random.chance(50) {
                    let before = world.over_lanes;
                    world.press(publisher);
                    *if world.over_lanes > before { &mut ways.0 } else { &mut ways.1 } += 1;
                }
            }
            world.press(publisher);
            match (world.random.below(24), distant) {
                (0..=2, None) => distant = Some(world.subscribe(far, "a.>", None)),
                (0..=2, Some(id)) => {
                    world.unsubscribe(far, id);
                    distant = None;
                }
                (3, _) => world.break_lanes(publisher, near),
                (4, _) => world.break_link(publisher, other),
                (5, _) => {
                    world.subscribe(near, "*.y", None);
                }
                _ => {}
            }
            let pause = world.random.between(0, 150 * MILLI);
            world.run(pause);
        }
        world.run(12 * SECOND);
        assert!(ways.0 > 0 && ways.1 > 0, "both ways were taken: {ways:?}");
        for (node, id) in stay {
            let subscriber = &world.nodes[node].subscribers[&id];
            assert_eq!(subscriber.missed(), 0, "node {node} was told of a gap");
            let lost = missing(&world, node, subscriber);
            assert!(lost.is_empty(), "node {node} misses {lost:#?}");
        }
        for node in &world.nodes {
            node.subscribers.values().for_each(|subscriber| check_once_and_in_order(&world, subscriber));
        }
    });
}

/// Two listeners of different topics that share a stream: neither is sent what is the other's, and neither asks for it.
#[test]
fn nobody_is_sent_what_does_not_concern_it() {
    for_seeds("nobody_is_sent_what_does_not_concern_it", 20, |seed| {
        let mut world = World::new(seed, CALM);
        world.dissemination = Dissemination::Adaptive;
        let (publisher, one, other) = (world.start(false), world.start(false), world.start(true));
        world.introduce(publisher, &[one, other]);
        world.introduce(one, &[other]);
        let ids = [(one, world.subscribe(one, "a.x", None)), (other, world.subscribe(other, "a.y", None))];
        assert!(world.run_until(20 * SECOND, |world| everybody_knows_everybody(world)
            && everybody_knows_the_interests(world, 2)));
        let publish = |world: &mut World, topic: &str, times: u8| {
            for number in 0..times {
                world.publish(publisher, topic, &[number]);
                world.press(publisher);
                world.run(2 * MILLI);
            }
        };
        publish(&mut world, "a.x", 3);
        world.run(SECOND);
        let before = (world.over_lanes, world.requests_sent);
        publish(&mut world, "a.x", 200);
        publish(&mut world, "a.y", 5);
        publish(&mut world, "a.x", 200);
        assert_eq!(world.over_lanes - before.0, 405);
        // The rosters are compared, and heads are told; frames are asked for by nobody.
        assert!(world.requests_sent - before.1 < 30, "{} requests", world.requests_sent - before.1);
        world.run(12 * SECOND);
        for (node, id) in ids {
            let subscriber = &world.nodes[node].subscribers[&id];
            assert!(missing(&world, node, subscriber).is_empty() && subscriber.missed() == 0);
            check_once_and_in_order(&world, subscriber);
        }
    });
}

/// One listener reads nothing for a while. It is waited for a moment and then no more; the other one gets everything. When
/// it reads again, it is told what it missed, and goes on.
#[test]
fn a_listener_that_stops_is_cut_loose_and_told() {
    for_seeds("a_listener_that_stops_is_cut_loose_and_told", 20, |seed| {
        let mut world = World::new(seed, CALM);
        world.dissemination = Dissemination::Adaptive;
        world.limits.ring = 1_000_000;
        let (publisher, reading, stopped) = (world.start(false), world.start(false), world.start(false));
        world.introduce(publisher, &[reading, stopped]);
        world.introduce(reading, &[stopped]);
        let ids = [reading, stopped].map(|node| (node, world.subscribe(node, "a.>", None)));
        assert!(world.run_until(20 * SECOND, |world| everybody_knows_everybody(world)
            && everybody_knows_the_interests(world, 2)));
        world.publish(publisher, "a.x", &[0]);
        world.press(publisher);
        world.run(SECOND);
        let (_, subscriber) = ids[1];
        world.tell(stopped, Input::Behind { subscriber });
        let began = world.now;
        for number in 0..250u8 {
            world.publish(publisher, "a.x", &[number; 50_000]);
            world.press(publisher);
            world.run(5 * MILLI);
        }
        let behind = world.nodes[publisher].dispatch.outgoing.is_empty();
        assert!(behind, "the publisher waits no more, {} ms later", (world.now - began) / MILLI);
        world.tell(stopped, Input::Progress { subscriber, weight: 0, caught_up: true });
        world.run(SECOND);
        for number in 0..20u8 {
            world.publish(publisher, "a.x", &[number; 100]);
            world.press(publisher);
            world.run(20 * MILLI);
        }
        world.run(12 * SECOND);
        for (node, id) in ids {
            let subscriber = &world.nodes[node].subscribers[&id];
            check_once_and_in_order(&world, subscriber);
            let lost = missing(&world, node, subscriber).len();
            assert_eq!(subscriber.missed(), u64::try_from(lost).expect("small"), "node {node}");
            assert_eq!(lost > 0, node == stopped, "node {node} lost {lost}");
        }
    });
}
