//! A node that is killed and started again with the same key receives again, soon, and keeps receiving.

use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use pombo::{Node, RawTopic};

use crate::support::Turn;
use crate::support::nodes::{Place, TCP, TRANSPORTS, address, within};
use crate::support::process::Process;
use crate::support::worker::{Job, payload};

#[cfg(feature = "quic")]
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// From the start of the node to its first message.
const RECEIVES: Duration = Duration::from_secs(3);
const WORLDS: usize = 5;
const ROUNDS: usize = 10;

/// Who knows whose address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knows {
    /// The one that restarts dials.
    Restarted,
    /// The one that stays dials.
    Staying,
}

/// An address to listen on that stays the same from start to start.
fn fixed(transport: &str) -> String {
    let port = if transport == TCP {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr()
    } else {
        UdpSocket::bind("127.0.0.1:0").unwrap().local_addr()
    };
    transport.replace("/0", &format!("/{}", port.unwrap().port()))
}

/// One node stays and publishes; another is killed and started again. How long each start took to receive.
fn rounds(transport: &str, knows: Knows, ready: &Barrier) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listen = fixed(transport);
    let (place, staying) = runtime.block_on(async {
        let place = Place::another();
        let mut builder = place.node("staying", transport);
        if knows == Knows::Staying {
            builder = builder.peer(listen.parse().unwrap());
        }
        let staying = builder.start().await.unwrap();
        (place, staying)
    });
    let job = Job {
        name: "restarted".to_owned(),
        data: place.data.path().to_owned(),
        listen: vec![listen],
        peers: if knows == Knows::Restarted { vec![address(&staying).to_string()] } else { Vec::new() },
        subscribe: vec![("restarts.>".to_owned(), None)],
        tell: true,
        ..Job::default()
    };
    let publishing = Arc::new(AtomicBool::new(true));
    runtime.spawn(publish(staying, Arc::clone(&publishing)));
    let mut receiver = job.start().0;
    receives(&receiver);
    ready.wait();
    let times = (0..ROUNDS).map(|_| {
        receiver.kill();
        receiver = job.start().0;
        let started = Instant::now();
        receiver.event("message");
        let took = started.elapsed();
        // Not only the first one, which might come over a connection that is about to go.
        receives(&receiver);
        took
    });
    let times = times.collect();
    publishing.store(false, Ordering::Relaxed);
    times
}

async fn publish(node: Node, publishing: Arc<AtomicBool>) {
    let publisher = node.publisher(RawTopic::parse("restarts.numbers").unwrap());
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for number in 0.. {
        pace.tick().await;
        if !publishing.load(Ordering::Relaxed) {
            break;
        }
        publisher.publish(&payload(1, number, 100)).await.unwrap();
    }
    node.leave().await;
}

fn receives(process: &Process) {
    for _ in 0..10 {
        process.event("message");
    }
}

fn fifty_rounds(transport: &str) {
    let _turn = Turn::alone();
    let ready = Barrier::new(WORLDS);
    let mut times: Vec<Duration> = thread::scope(|scope| {
        let worlds = (0..WORLDS).map(|world| {
            let knows = if world % 2 == 0 { Knows::Restarted } else { Knows::Staying };
            let ready = &ready;
            scope.spawn(move || rounds(transport, knows, ready))
        });
        let worlds: Vec<_> = worlds.collect();
        worlds.into_iter().flat_map(|world| world.join().expect("a world")).collect()
    });
    times.sort_unstable();
    eprintln!("{transport}: {} rounds, median {:?}, longest {:?}", times.len(), times[times.len() / 2], times.last());
    assert_eq!(times.len(), WORLDS * ROUNDS);
    assert!(times.iter().all(|time| *time <= RECEIVES), "{times:?}");
}

#[test]
fn a_killed_node_receives_again_over_tcp() {
    fifty_rounds(TCP);
}

#[cfg(feature = "quic")]
#[test]
fn a_killed_node_receives_again_over_quic() {
    fifty_rounds(QUIC);
}

/// The other way round: what a restarted node publishes is received, from its first message on.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restarted_node_publishes_arrives() {
    for transport in TRANSPORTS {
        let place = Place::new(Turn::shared());
        let staying = place.node("staying", transport).start().await.unwrap();
        let mut numbers = staying.subscribe(RawTopic::parse("restarts.numbers").unwrap()).await.unwrap();
        let job = Job {
            name: "restarted".to_owned(),
            data: place.data.path().to_owned(),
            listen: vec![fixed(transport)],
            peers: vec![address(&staying).to_string()],
            publish: Some(crate::support::worker::Publishing {
                topic: "restarts.numbers".to_owned(),
                sizes: vec![100],
                per_second: Some(50),
                listeners: 1,
            }),
            ..Job::default()
        };
        let mut sources = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let publisher = job.launch();
            let mut expected = 0;
            while expected < 20 {
                let message = within("a number", futures::StreamExt::next(&mut numbers)).await.unwrap().unwrap();
                let number = u64::from_be_bytes(message[8..16].try_into().unwrap());
                // What is left of the one before was on its way when it was killed.
                if number == expected {
                    expected += 1;
                }
                sources.insert(message.source());
            }
            publisher.signal("KILL");
            drop(publisher);
        }
        assert_eq!(sources.len(), 1, "the same key each time");
    }
}
