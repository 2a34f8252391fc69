//! Durable subscriptions that several subscribers hold, on one node and on several: each message goes to one of them.

use std::collections::BTreeSet;
use std::time::Duration;

use pombo::{Bytes, Delivery, Durable, Node, Raw, RawPattern, RawTopic, Reason, Stage};

use crate::support::Turn;
use crate::support::nodes::{Place, TCP, address, next, within};

type Jobs = Durable<Bytes, Raw>;

async fn hold(node: &Node, window: usize) -> Jobs {
    node.subscribe(RawPattern::parse("jobs.>").unwrap()).durable("workers").window(window).await.unwrap()
}

async fn publish(node: &Node, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let payload = number.to_be_bytes().to_vec().into();
        let publish = node.publish(RawTopic::parse("jobs.new").unwrap(), &payload);
        assert_eq!(publish.guaranteed().await.unwrap().recipients, ["workers"]);
    }
}

fn number(job: &Delivery<Bytes>) -> u32 {
    u32::from_be_bytes(job[..].try_into().unwrap())
}

/// Takes so many and acknowledges them.
async fn work(jobs: &mut Jobs, count: usize) -> BTreeSet<u32> {
    let mut done = BTreeSet::new();
    for _ in 0..count {
        let job = next("a job", jobs).await.unwrap();
        assert!(done.insert(number(&job)), "it came twice");
        job.ack().await.unwrap();
    }
    done
}

async fn nothing_owed(node: &Node) {
    within("an empty outbox", async { while node.outbox().await.unwrap().total > 0 {} }).await;
}

/// A sender and two workers that know of each other.
async fn three(place: &Place) -> (Node, [Node; 2]) {
    let sender = place.node("sender", TCP).start().await.unwrap();
    let worker = async |name| place.node(name, TCP).peer(address(&sender)).start().await.unwrap();
    let workers = [worker("one").await, worker("two").await];
    sender.ready(2).await.unwrap();
    (sender, workers)
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_of_one_node_share_what_comes() {
    let place = Place::new(Turn::shared());
    let node = place.node("alone", TCP).start().await.unwrap();
    let (mut one, mut two) = (hold(&node, 1).await, hold(&node, 1).await);
    publish(&node, 0..2).await;
    // Who has one gets no other: the second is the other's.
    let (first, second) = (next("a job", &mut one).await.unwrap(), next("a job", &mut two).await.unwrap());
    assert_ne!(number(&first), number(&second));
    assert_eq!((first.attempt(), second.attempt()), (1, 1));
    // What one gives back is for whoever has room.
    drop(one);
    second.ack().await.unwrap();
    let again = next("what the other had", &mut two).await.unwrap();
    assert_eq!((number(&again), again.attempt(), again.redelivered()), (number(&first), 2, true));
    again.ack().await.unwrap();
    nothing_owed(&node).await;
    let durables = node.durables().await.unwrap();
    assert_eq!(durables[0].here.map(|here| (here.holders, here.waiting)), Some((1, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_what_comes_and_each_message_is_done_once() {
    let place = Place::new(Turn::shared());
    let (sender, [one, two]) = three(&place).await;
    let (mut jobs_one, mut jobs_two) = (hold(&one, 8).await, hold(&two, 8).await);
    within("both to be known", async { while sender.durables().await.unwrap().len() < 2 {} }).await;
    publish(&sender, 0..400).await;
    let mut done = BTreeSet::new();
    let mut by = [0, 0];
    while done.len() < 400 {
        let (which, job) = tokio::select! {
            job = next("a job", &mut jobs_one) => (0, job.unwrap()),
            job = next("a job", &mut jobs_two) => (1, job.unwrap()),
        };
        assert!(done.insert(number(&job)), "{} came twice", number(&job));
        assert_eq!(job.attempt(), 1);
        by[which] += 1;
        job.ack().await.unwrap();
    }
    assert!(by.iter().all(|count| *count >= 100), "{by:?}");
    nothing_owed(&sender).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_has_and_nobody_takes_there_goes_to_the_others() {
    let place = Place::new(Turn::shared());
    let (sender, [one, two]) = three(&place).await;
    let jobs_one = hold(&one, 64).await;
    publish(&sender, 0..200).await;
    // They are all on its disk before the other comes.
    let stored = async || sender.outbox().await.unwrap().messages.iter().filter(|one| one.recipients[0].stored).count();
    within("the first to have them", async { while stored().await < 200 {} }).await;
    drop(jobs_one);
    let mut jobs_two = hold(&two, 64).await;
    assert_eq!(work(&mut jobs_two, 200).await.len(), 200);
    nothing_owed(&sender).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_had_that_is_gone_goes_to_the_others_after_its_lease() {
    let place = Place::new(Turn::shared());
    let (sender, [one, two]) = three(&place).await;
    let mut jobs_one = hold(&one, 4).await;
    let mut jobs_two = hold(&two, 4).await;
    within("both to be known", async { while sender.durables().await.unwrap().len() < 2 {} }).await;
    publish(&sender, 0..2).await;
    let (lost, mine) = (next("a job", &mut jobs_one).await.unwrap(), next("a job", &mut jobs_two).await.unwrap());
    let number_of_lost = number(&lost);
    mine.ack().await.unwrap();
    one.leave().await;
    drop((one, jobs_one, lost));
    let again = next("what was leased to the other", &mut jobs_two).await.unwrap();
    assert_eq!(number(&again), number_of_lost);
    assert!(again.attempt() > 1, "{again:?}");
    again.ack().await.unwrap();
    nothing_owed(&sender).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_nobody_can_handle_is_told_of_as_poison() {
    let place = Place::new(Turn::shared());
    let (sender, [worker, _]) = three(&place).await;
    let pattern = || RawPattern::parse("jobs.>").unwrap();
    let mut jobs = worker.subscribe(pattern()).durable("workers").attempts(3).await.unwrap();
    publish(&sender, 0..2).await;
    let (mut poisoned, mut fine) = (Vec::new(), 0);
    while poisoned.len() < 3 || fine < 1 {
        let job = next("a job", &mut jobs).await.unwrap();
        match number(&job) {
            0 => {
                poisoned.push(job.attempt());
                job.nack(Duration::ZERO);
            }
            _ => {
                fine += 1;
                job.ack().await.unwrap();
            }
        }
    }
    assert_eq!(poisoned, [1, 2, 3]);
    let notice = next("a notice", &mut sender.undelivered()).await;
    assert_eq!((notice.reason, &*notice.recipient), (Reason::Poison, "workers"));
    assert_eq!(notice.message().await.unwrap()[..], 0u32.to_be_bytes());
    nothing_owed(&sender).await;
    // What is poison stays so, whoever holds it next.
    worker.leave().await;
    drop(jobs);
    let worker = place.node("one", TCP).peer(address(&sender)).start().await.unwrap();
    let mut jobs = worker.subscribe(pattern()).durable("workers").await.unwrap();
    publish(&sender, 2..3).await;
    assert_eq!(work(&mut jobs, 1).await, BTreeSet::from([2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_tells_what_it_and_its_neighbours_know_of_a_message() {
    let place = Place::new(Turn::shared());
    let (sender, [worker, _]) = three(&place).await;
    let mut jobs = hold(&worker, 1).await;
    publish(&sender, 0..1).await;
    let job = next("the job", &mut jobs).await.unwrap();
    let id = job.id();
    let known = async |node: &Node| {
        let known = node.whereabouts(id).await.unwrap();
        known.into_iter().map(|one| (one.node_name, one.recipient, one.stage)).collect::<BTreeSet<_>>()
    };
    let of = |node: &str, stage| (node.to_owned(), "workers".to_owned(), stage);
    let both = BTreeSet::from([of("sender", Stage::Given(worker.peer_id())), of("one", Stage::Stored)]);
    within("the sender to know", async { while known(&sender).await != both {} }).await;
    assert_eq!(known(&worker).await, both, "it asks its neighbour");
    job.ack().await.unwrap();
    nothing_owed(&sender).await;
    assert_eq!(known(&sender).await, BTreeSet::from([of("one", Stage::Processed)]));
}

/// A message that kills whoever handles it is counted: a restart does not begin anew.
#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_counted_over_restarts() {
    let place = Place::new(Turn::shared());
    let mut attempts = Vec::new();
    for round in 0..4 {
        let node = place.node("alone", TCP).start().await.unwrap();
        let mut jobs = hold(&node, 1).await;
        if round == 0 {
            publish(&node, 0..1).await;
        }
        let job = next("the job", &mut jobs).await.unwrap();
        attempts.push(job.attempt());
        // The node ends while it is in hand.
        node.leave().await;
        drop((job, jobs));
    }
    assert_eq!(attempts, [1, 2, 3, 4]);
}

/// A node that may have one job at a time says when it is done with that. Who waited to be asked again, ever more rarely, would wait for two seconds
/// and more after a job of three.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_done_with_a_long_job_gets_the_next_at_once() {
    let place = Place::new(Turn::shared());
    let (sender, [one, two]) = three(&place).await;
    let (mut jobs_one, mut jobs_two) = (hold(&one, 1).await, hold(&two, 1).await);
    within("both to be known", async { while sender.durables().await.unwrap().len() < 2 {} }).await;
    publish(&sender, 0..10).await;
    let job = next("a job", &mut jobs_one).await.unwrap();
    let _other = next("a job", &mut jobs_two).await.unwrap();
    // While it is at that one it gets no other.
    let early = tokio::time::timeout(Duration::from_secs(3), next("no job", &mut jobs_one)).await;
    assert!(early.is_err(), "two at once");
    job.ack().await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(1), next("the next job", &mut jobs_one)).await;
    assert!(next.is_ok(), "it was not there after a second");
}
