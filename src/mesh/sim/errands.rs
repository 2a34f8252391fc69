//! Short-lived nodes: many at once, beside others that last.

use std::collections::{BTreeMap, BTreeSet};

use super::for_seeds;
use super::node::Role;
use super::scenarios::{CALM, check_once_and_in_order, everybody_knows_everybody};
use super::world::{Faults, MILLI, SECOND, World};
use crate::mesh::event::{Answer, Command, Ticket};
use crate::wire::frame::shard_of;

const TOPIC: &str = "a.b";
/// What a machine is like on which all of this runs at once.
const BUSY: Faults = Faults { latency: (200, 200 * MILLI), ..CALM };

/// How far an errand has come.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Settling(Ticket),
    Publishing(Ticket),
    /// `heard`: it was told that somebody has taken its message over.
    Leaving {
        heard: bool,
    },
    Over {
        heard: bool,
    },
}

/// One step of `pombo pub`: look around, publish, wait for the word of others, leave.
fn go_on(world: &mut World, node: usize, stage: Stage) -> Stage {
    let answer = |world: &World, ticket| world.nodes[node].answers.get(&ticket).cloned();
    match stage {
        Stage::Settling(ticket) if answer(world, ticket).is_some() => {
            let sequence = world.publish(node, TOPIC, b"hi");
            world.press(node);
            Stage::Publishing(world.command(node, Command::Confirm { shard: shard_of(TOPIC), sequence }))
        }
        Stage::Publishing(ticket) => match answer(world, ticket) {
            Some(Answer::Confirmed(confirmation)) => {
                world.command(node, Command::Leave);
                Stage::Leaving { heard: confirmation.peers > 0 }
            }
            Some(other) => panic!("{other:?}"),
            None => stage,
        },
        Stage::Leaving { heard } if world.nodes[node].mesh.has_left() => {
            world.kill(node);
            Stage::Over { heard }
        }
        Stage::Settling(_) | Stage::Leaving { .. } | Stage::Over { .. } => stage,
    }
}

/// Each finds the others of its kind as well, and they end one by one: nobody may count on the word of one that is about to
/// go, and nobody's message goes with another.
#[test]
fn many_short_lived_publishers_at_once_are_all_heard_and_all_told_so() {
    for_seeds("many_short_lived_publishers_at_once_are_all_heard_and_all_told_so", 20, |seed| {
        at_once(seed, Crowd { lasting: 1, errands: 30, pause: 5 * MILLI });
        at_once(seed, Crowd { lasting: 2, errands: 20, pause: 400 * MILLI });
    });
}

struct Crowd {
    lasting: usize,
    errands: usize,
    /// At most so long after one errand the next begins.
    pause: u64,
}

fn at_once(seed: u64, crowd: Crowd) {
    let mut world = World::new(seed, CALM);
    let lasting: Vec<_> = (0..crowd.lasting).map(|_| world.start(true)).collect();
    lasting.iter().for_each(|node| world.introduce(*node, &lasting));
    let listener = world.start(false);
    world.introduce(listener, &lasting);
    let subscriber = world.subscribe(listener, "a.>", None);
    assert!(world.run_until(10 * SECOND, everybody_knows_everybody), "the roster is not complete");

    world.faults = BUSY;
    let mut errands = BTreeMap::new();
    for _ in 0..crowd.errands {
        let node = world.start_as(Role::ShortLived);
        let mut up: Vec<_> = (0..world.nodes.len()).filter(|one| world.nodes[*one].up).collect();
        while !up.is_empty() {
            let other = up.swap_remove(world.random.below(up.len()));
            world.introduce(node, &[other]);
        }
        errands.insert(node, Stage::Settling(world.command(node, Command::Settle)));
        let pause = world.random.between(0, crowd.pause);
        step(&mut world, &mut errands, pause);
    }
    let until = world.now + 20 * SECOND;
    while errands.values().any(|stage| !matches!(stage, Stage::Over { .. })) {
        assert!(world.now < until, "without an end: {errands:?}");
        step(&mut world, &mut errands, MILLI);
    }
    world.run(SECOND);
    let subscriber = &world.nodes[listener].subscribers[&subscriber];
    check_once_and_in_order(&world, subscriber);
    let heard: Vec<_> = errands.iter().filter(|(_, stage)| matches!(stage, Stage::Over { heard: true })).collect();
    let arrived: BTreeSet<_> = subscriber.messages().map(|got| got.source).collect();
    for (node, _) in &heard {
        assert!(
            arrived.contains(&world.nodes[**node].peer),
            "what node {node} published went with those who had taken it"
        );
    }
    // In such a crowd, and so slow, one in thousands finds in its time nobody who lasts, and is told so.
    assert!(heard.len() + 1 >= crowd.errands, "{} were told that nobody took theirs", crowd.errands - heard.len());
}

fn step(world: &mut World, errands: &mut BTreeMap<usize, Stage>, span: u64) {
    world.run(span);
    for (node, stage) in errands {
        *stage = go_on(world, *node, *stage);
    }
}
