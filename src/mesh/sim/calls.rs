//! Calls whose askers go, and nodes that finish their work and leave.

use std::collections::BTreeMap;

use super::for_seeds;
use super::scenarios::{CALM, LOSSY, everybody_knows_everybody, random_graph};
use super::world::{MILLI, SECOND, World};
use crate::Headers;
use crate::mesh::event::{Answer, Ask, AskFailure, Command, NodeName, ProviderId, Ticket};
use crate::mesh::time::Span;

fn ask(to: Option<NodeName>, seconds: u64, body: u8) -> Ask {
    Ask {
        service: "up".into(),
        to,
        timeout: Span::secs(seconds),
        content_type: "text/plain".into(),
        headers: Headers::default(),
        body: vec![body].into(),
    }
}

/// So many nodes that know each other, of which the first ones serve, with room for so many calls.
fn serving(world: &mut World, nodes: usize, providers: usize, room: u32) {
    random_graph(world, nodes, 3);
    assert!(world.run_until(20 * SECOND, everybody_knows_everybody));
    for node in 0..providers {
        let provider = ProviderId(u64::try_from(node).expect("small"));
        world.command(node, Command::Serve { provider, service: "up".into(), room });
    }
    world.run(2 * SECOND);
}

/// The providers that a node would ask, as it answers.
fn providers(world: &mut World, node: usize) -> Vec<usize> {
    let ticket = world.command(node, Command::Providers { service: "up".into() });
    let Some(Answer::Providers(providers)) = world.nodes[node].answers.get(&ticket).cloned() else {
        panic!("no list of providers")
    };
    providers.into_iter().filter_map(|peer| world.index(peer)).collect()
}

/// Whoever asks several at once and goes, is heard of by each of them: every handler may stop.
#[test]
fn an_asker_that_goes_cancels_at_everybody_it_asked() {
    for_seeds("an_asker_that_goes_cancels_at_everybody_it_asked", 20, |seed| {
        let mut world = World::new(seed, LOSSY);
        serving(&mut world, 6, 4, 2);
        world.slow_handlers = true;
        let asked = providers(&mut world, 5);
        assert_eq!(asked.len(), 4, "{asked:?}");
        let tickets: Vec<Ticket> = asked
            .iter()
            .map(|node| {
                let name = world.name(*node);
                world.command(5, Command::Request(ask(Some(name), 60, 1)))
            })
            .collect();
        assert!(world.run_until(10 * SECOND, |world| (0..4).all(|node| world.nodes[node].running.len() == 1)));
        assert!((0..4).all(|node| world.nodes[node].stopped.is_empty()));
        for ticket in tickets {
            world.abandon(5, ticket);
        }
        let stopped = |world: &World| (0..4).all(|node| world.nodes[node].stopped.len() == 1);
        assert!(world.run_until(SECOND, stopped), "long before the deadline");
        for node in 0..4 {
            assert!(world.nodes[node].running.keys().eq(&world.nodes[node].stopped), "the very call");
            world.finish(node);
        }
        world.run(SECOND);
        assert!(world.nodes.iter().all(|node| node.mesh.status().tables.calls == 0));
        assert_eq!(world.nodes[5].mesh.status().tables.requests, 0);
    });
}

/// A provider that drains while others ask: what runs there is answered, what comes is sent elsewhere, and no request is
/// lost or run twice for it.
#[test]
fn who_drains_answers_what_runs_and_is_asked_no_more() {
    for_seeds("who_drains_answers_what_runs_and_is_asked_no_more", 20, |seed| {
        let mut world = World::new(seed, CALM);
        serving(&mut world, 6, 2, 100);
        world.slow_handlers = true;
        let mut tickets = BTreeMap::new();
        let mut ask_some = |world: &mut World, count: u8| {
            for _ in 0..count {
                let (asker, body) = (2 + world.random.below(4), u8::try_from(tickets.len()).expect("few"));
                tickets.insert((asker, world.command(asker, Command::Request(ask(None, 30, body)))), body);
                let pause = world.random.between(0, 3 * MILLI);
                world.run(pause);
            }
        };
        ask_some(&mut world, 20);
        let running = |world: &World| !world.nodes[0].running.is_empty();
        assert!(world.run_until(5 * SECOND, running));
        let drained = world.command(0, Command::Drain);
        // These are asked while the news spreads.
        ask_some(&mut world, 20);
        world.run(2 * SECOND);
        assert!(!world.nodes[0].answers.contains_key(&drained), "calls run there");
        for node in 1..6 {
            assert_eq!(providers(&mut world, node), [1], "as node {node} knows");
        }
        for (what, command) in [
            ("serve", Command::Serve { provider: ProviderId(9), service: "up".into(), room: 1 }),
            ("ask", Command::Request(ask(None, 1, 0))),
        ] {
            let ticket = world.command(0, command);
            assert!(matches!(world.nodes[0].answers.get(&ticket), Some(Answer::Draining)), "{what}");
        }
        world.finish(0);
        assert!(world.run_until(SECOND, |world| world.nodes[0].answers.contains_key(&drained)), "nothing is left");
        assert!(matches!(world.nodes[0].answers[&drained], Answer::Done));
        let left = world.command(0, Command::Leave);
        assert!(world.run_until(5 * SECOND, |world| world.nodes[0].answers.contains_key(&left)));
        world.kill(0);
        world.finish(1);
        ask_some(&mut world, 5);
        world.run(SECOND);
        world.finish(1);
        world.run(SECOND);
        for ((asker, ticket), body) in &tickets {
            match world.nodes[*asker].answers.get(ticket) {
                Some(Answer::Reply { reply, .. }) => assert_eq!(*reply.body, [*body]),
                other => panic!("request {body} of node {asker} ended as {other:?}"),
            }
        }
        assert_eq!(world.served, 45, "each ran once");
    });
}

/// A drain that is given up stops nothing of what it began, and one more may wait for it.
#[test]
fn a_drain_that_nobody_waits_for_goes_on() {
    for_seeds("a_drain_that_nobody_waits_for_goes_on", 5, |seed| {
        let mut world = World::new(seed, CALM);
        serving(&mut world, 3, 1, 5);
        world.slow_handlers = true;
        let ticket = world.command(2, Command::Request(ask(None, 2, 1)));
        assert!(world.run_until(2 * SECOND, |world| world.nodes[0].running.len() == 1));
        let first = world.command(0, Command::Drain);
        world.abandon(0, first);
        let second = world.command(0, Command::Drain);
        // The asker's time is over, and with it what has to be finished.
        world.run(3 * SECOND);
        assert!(matches!(world.nodes[2].answers[&ticket], Answer::Failed(AskFailure::Unknown)));
        assert!(matches!(world.nodes[0].answers.get(&second), Some(Answer::Done)));
        assert!(!world.nodes[0].answers.contains_key(&first));
    });
}
