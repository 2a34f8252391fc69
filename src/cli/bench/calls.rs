//! The asker and the provider of a benchmark.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use pombo::{Node, Outcome, RequestError, Service};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::latency::Latency;
use super::plan::{Asked, Order, Pace, Parcel, Said, Schedule};
use super::worker::Desk;
use super::{GRACE, START, clock};
use crate::cli::failure::Failure;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it is until the provider is looked for again, unless something happens before.
const PAUSE: Duration = Duration::from_millis(100);

type Echo = Service<Parcel, Parcel>;

pub(super) async fn serve(node: &Node, order: &Order, room: usize, desk: &mut Desk) -> Result<(), Failure> {
    let service = node.serve(Echo::parse(&order.name)?).concurrency(room);
    let _serving = service.with(|question| async move { Ok(question) }).await?;
    desk.say(&Said::Ready { addresses: node.addresses() });
    desk.begin();
    desk.finish().await
}

pub(super) async fn ask(node: &Node, order: &Order, in_flight: usize, desk: &mut Desk) -> Result<(), Failure> {
    let service = Echo::parse(&order.name)?;
    let found = tokio::time::timeout(START, provider(node, &service)).await;
    found.map_err(|_| {
        Failure::new(Outcome::Nobody, format!("the asker did not find the provider within {START:?}"))
    })??;
    desk.say(&Said::Ready { addresses: Vec::new() });
    desk.go().await?;
    let mut schedule = Schedule::new(order.load);
    let (body, answers) = (vec![b'p'; order.load.size], Mutex::new(Answers::new(&schedule)));
    let asking = Arc::new(Asking { node: node.clone(), service, body, answers });
    let most = order.load.duration + PATIENCE + GRACE;
    let all = async {
        if order.load.rate.is_some() {
            asking.on_time(&mut schedule, in_flight, desk).await;
        } else {
            asking.one_after_the_other(schedule.end(), in_flight, desk).await;
        }
    };
    let done = tokio::time::timeout(most, all).await;
    done.map_err(|_| Failure::new(Outcome::Unknown, format!("asking came to a halt: not done within {most:?}")))?;
    desk.say(&Said::Asked(asking.answers().account()));
    desk.finish().await
}

/// Waits until the service is known here.
async fn provider(node: &Node, service: &Echo) -> Result<(), Failure> {
    let mut events = node.events();
    loop {
        let serves = |peer: &pombo::PeerStatus| peer.services.iter().any(|name| name == service.name());
        if node.status().await?.peers.iter().any(serves) {
            return Ok(());
        }
        // What tells of a service may come after the last event that the node has for us.
        let _ = tokio::time::timeout(PAUSE, events.next()).await;
    }
}

/// What all askers of this process share.
struct Asking {
    node: Node,
    service: Echo,
    body: Vec<u8>,
    answers: Mutex<Answers>,
}

impl Asking {
    /// As many askers as may be under way, each of which asks again when it has its answer.
    async fn one_after_the_other(self: &Arc<Self>, end: u64, in_flight: usize, desk: &mut Desk) {
        let mut askers = JoinSet::new();
        for _ in 0..in_flight {
            let asking = Arc::clone(self);
            askers.spawn(async move {
                loop {
                    let stamp = clock::now();
                    if stamp >= end {
                        return;
                    }
                    asking.once(stamp).await;
                }
            });
        }
        let mut clock = tokio::time::interval(PAUSE);
        while !askers.is_empty() {
            tokio::select! {
                _ = askers.join_next() => {}
                _ = clock.tick() => desk.progress(self.answers().answered, clock::now()),
            }
        }
    }

    /// Each one when it is due, unless so many are under way. The time that it waits for that is part of its latency.
    async fn on_time(self: &Arc<Self>, schedule: &mut Schedule, in_flight: usize, desk: &mut Desk) {
        let (mut asked, room) = (JoinSet::new(), Arc::new(Semaphore::new(in_flight)));
        let mut sequence = 0;
        // This thread is not one of those that run the node: it may block, as `next` does.
        while let Some(stamp) = schedule.next(sequence) {
            // It is never closed.
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            while asked.try_join_next().is_some() {}
            let asking = Arc::clone(self);
            asked.spawn(async move {
                asking.once(stamp).await;
                drop(place);
            });
            sequence += 1;
            desk.progress(sequence, clock::now());
        }
        while asked.join_next().await.is_some() {}
    }

    async fn once(&self, stamp: u64) {
        let sequence = {
            let mut answers = self.answers();
            answers.asked += 1;
            answers.asked
        };
        let question = Parcel { sequence, stamp, body: self.body.clone() };
        let answer = self.node.request(self.service.clone(), &question).timeout(PATIENCE).await;
        self.answers().note(&question, answer.map(pombo::Reply::into_payload), clock::now());
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of the requests.
struct Answers {
    asked: u64,
    answered: u64,
    why: Option<(u8, String)>,
    /// What is asked from then on counts, until then.
    warm: u64,
    end: u64,
    counted: u64,
    latency: Latency,
}

impl Answers {
    fn new(schedule: &Schedule) -> Self {
        let (warm, end) = (schedule.warm(), schedule.end());
        Self { asked: 0, answered: 0, why: None, warm, end, counted: 0, latency: Latency::new() }
    }

    fn note(&mut self, question: &Parcel, answer: Result<Parcel, RequestError>, now: u64) {
        match answer {
            Ok(answer) if answer.sequence == question.sequence && answer.body.len() == question.body.len() => {
                self.answered += 1;
            }
            Ok(_) => {
                self.why = Some((Outcome::Failed.exit_code(), "the answer is to another question".to_owned()));
                return;
            }
            Err(error) => {
                self.why = Some((error.outcome().exit_code(), error.to_string()));
                return;
            }
        }
        if (self.warm..=self.end).contains(&now) {
            self.counted += 1;
        }
        if question.stamp >= self.warm {
            self.latency.record(now.saturating_sub(question.stamp));
        }
    }

    fn account(&self) -> Asked {
        let pace = Pace { count: self.counted, nanoseconds: self.end - self.warm };
        let (asked, answered, why) = (self.asked, self.answered, self.why.clone());
        Asked { asked, answered, why, pace, latency: self.latency.recorded() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(sequence: u64, stamp: u64) -> Parcel {
        Parcel { sequence, stamp, body: vec![1] }
    }

    #[test]
    fn only_right_answers_count_and_only_in_their_time() {
        let latency = Latency::new();
        let mut answers = Answers { asked: 5, answered: 0, why: None, warm: 100, end: 200, counted: 0, latency };
        answers.note(&parcel(1, 50), Ok(parcel(1, 50)), 99);
        answers.note(&parcel(2, 90), Ok(parcel(2, 90)), 110);
        answers.note(&parcel(3, 150), Ok(parcel(3, 150)), 201);
        answers.note(&parcel(4, 150), Ok(parcel(3, 150)), 160);
        let account = answers.account();
        assert_eq!((account.answered, account.pace.count, account.pace.nanoseconds), (3, 1, 100));
        assert!(account.why.unwrap().1.contains("another question"));
        assert_eq!(answers.latency.percentiles().unwrap().count, 1);
        answers.note(&parcel(5, 150), Err(RequestError::Busy { service: "a.b".into() }), 160);
        assert_eq!(answers.account().why.unwrap().0, Outcome::Busy.exit_code());
    }
}
