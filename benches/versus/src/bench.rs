//! The rounds: each measure on each system, in turn, so that what the machine does meanwhile falls on all alike.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::brokers::{self, Brokers};
use crate::endpoint::{Result, Role, Said, Spec};
use crate::load::{Account, Called, Load, Sent};
use crate::process::Process;
use crate::table::{Reading, Readings};
use crate::{System, clock, table};

/// How long a subscriber that has not seen the end is waited for when all is sent.
const TAIL: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    /// Bodies of that size, as many as go, to so many subscribers.
    Throughput { size: usize, subscribers: usize },
    /// A thousand of 128 bytes a second.
    Latency,
    /// So many requests under way.
    Requests { in_flight: usize },
    /// Guaranteed messages with bodies of that size, from so many who each wait until theirs is confirmed, to one who
    /// acknowledges them.
    Guaranteed { size: usize, publishers: usize },
    /// The time until a single one of 128 bytes is confirmed.
    Confirmation,
}

const ALL: [Measure; 7] = [
    Measure::Throughput { size: 128, subscribers: 1 },
    Measure::Throughput { size: 1024, subscribers: 1 },
    Measure::Throughput { size: 65_536, subscribers: 1 },
    Measure::Throughput { size: 128, subscribers: 8 },
    Measure::Latency,
    Measure::Requests { in_flight: 256 },
    Measure::Requests { in_flight: 1 },
];

const GUARANTEED: [Measure; 7] = [
    Measure::Guaranteed { size: 128, publishers: 1 },
    Measure::Guaranteed { size: 128, publishers: 16 },
    Measure::Guaranteed { size: 128, publishers: 256 },
    Measure::Guaranteed { size: 1024, publishers: 1 },
    Measure::Guaranteed { size: 1024, publishers: 16 },
    Measure::Guaranteed { size: 1024, publishers: 256 },
    Measure::Confirmation,
];

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Plan {
    measures: Vec<Measure>,
    pub(crate) systems: Vec<System>,
    pub(crate) rounds: u32,
    pub(crate) duration: Duration,
}

impl Plan {
    pub(crate) fn new(quick: bool, rounds: u32, only: &[System], guaranteed: bool) -> Self {
        let all = <System as clap::ValueEnum>::value_variants().iter().copied().filter(|system| system.is_built());
        let all =
            all.filter(|system| if guaranteed { system.guarantees() } else { system.publishes() || system.asks() });
        let wanted = |system: &System| only.is_empty() || *system == System::Pombo || only.contains(system);
        let quickly = |measure: &Measure| {
            !matches!(measure, Measure::Throughput { size: 1024.., .. } | Measure::Guaranteed { size: 1024.., .. })
        };
        Self {
            measures: if guaranteed { GUARANTEED } else { ALL }
                .into_iter()
                .filter(|measure| !quick || quickly(measure))
                .collect(),
            systems: all.filter(wanted).collect(),
            rounds: if quick { 1 } else { rounds },
            duration: if quick { Duration::from_millis(700) } else { Duration::from_millis(1500) },
        }
    }
}

pub(crate) fn run(plan: &Plan) -> Result<()> {
    let mut readings = Readings::default();
    watched(plan.duration, async |bench| bench.rounds(plan, &mut readings).await)?;
    print!("{}", table::page(plan, &readings));
    Ok(())
}

/// Does that with runs of so long, unless it is interrupted.
pub(crate) fn watched(duration: Duration, work: impl AsyncFnOnce(&mut Bench)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let scratch = tempfile::tempdir()?;
    certificates(scratch.path())?;
    let mut bench = Bench { scratch, brokers: Brokers::default(), duration };
    runtime.block_on(async {
        tokio::select! {
            () = work(&mut bench) => Ok(()),
            stopped = tokio::signal::ctrl_c() => { stopped?; Err("interrupted".into()) }
        }
    })
}

/// For those that encrypt with TLS.
#[cfg(any(feature = "grpc", feature = "zenoh"))]
fn certificates(scratch: &Path) -> Result<()> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    std::fs::write(scratch.join("cert.pem"), certified.cert.pem())?;
    Ok(std::fs::write(scratch.join("key.pem"), certified.signing_key.serialize_pem())?)
}

#[cfg(not(any(feature = "grpc", feature = "zenoh")))]
fn certificates(_: &Path) -> Result<()> {
    Ok(())
}

pub(crate) struct Bench {
    brokers: Brokers,
    duration: Duration,
    scratch: TempDir,
}

impl Bench {
    async fn rounds(&mut self, plan: &Plan, readings: &mut Readings) {
        for round in 0..plan.rounds {
            for measure in &plan.measures {
                let mut systems = plan.systems.clone();
                // Nobody is always the first.
                systems.rotate_left(round as usize % plan.systems.len().max(1));
                for system in systems {
                    let what = format!("round {} of {}: {measure:?}: {}", round + 1, plan.rounds, system.name());
                    match self.read(*measure, system).await {
                        Some(Ok(reading)) => {
                            eprintln!("{what}: {:.0}, {:.2} % lost", reading.value, reading.lost * 100.0);
                            readings.add(*measure, system, reading);
                        }
                        Some(Err(error)) => {
                            eprintln!("{what}: FAILED: {error}");
                            readings.failed(*measure, system);
                        }
                        None => {}
                    }
                }
            }
        }
    }

    /// None if the system does nothing of the kind.
    pub(crate) async fn read(&mut self, measure: Measure, system: System) -> Option<Result<Reading>> {
        match measure {
            Measure::Requests { in_flight } if system.asks() => Some(self.requests(system, in_flight).await),
            Measure::Throughput { size, subscribers } if system.publishes() => {
                Some(self.traffic(system, size, None, subscribers).await)
            }
            Measure::Latency if system.publishes() => Some(self.traffic(system, 128, Some(1_000), 1).await),
            Measure::Guaranteed { size, publishers } if system.guarantees() && system != System::Fsync => {
                Some(self.guaranteed(system, size, publishers).await.map(|(heard, called, memory)| {
                    let lost = called.answered.saturating_sub(heard.received) as f64 / called.answered.max(1) as f64;
                    let cpu = (called.cpu + heard.cpu) as f64 / 1e3 / heard.received.max(1) as f64;
                    Reading { value: heard.rate, p99: None, lost, disordered: 0, cpu, memory }
                }))
            }
            Measure::Confirmation if system == System::Fsync => Some(self.synced().await),
            Measure::Confirmation if system.guarantees() => {
                Some(self.guaranteed(system, 128, 1).await.map(|(_, called, memory)| requests(1, called, memory)))
            }
            Measure::Guaranteed { .. } | Measure::Confirmation => None,
            Measure::Requests { .. } | Measure::Throughput { .. } | Measure::Latency => None,
        }
    }

    fn spec(&mut self, system: System, load: Load, ports: usize) -> Result<(Spec, Option<u32>)> {
        let broker = self.brokers.of(system, self.scratch.path())?;
        if let Some((_, pid)) = broker {
            clock::forget_peak(pid);
        }
        let ports = match broker {
            Some((port, _)) => vec![port],
            None => (0..ports).map(|_| brokers::free_port()).collect::<Result<_>>()?,
        };
        let scratch = self.scratch.path().to_owned();
        let spec =
            Spec { system, role: Role::Subscriber, load, guaranteed: false, ports, index: 0, in_flight: 0, scratch };
        Ok((spec, broker.map(|(_, pid)| pid)))
    }

    async fn traffic(&mut self, system: System, size: usize, rate: Option<u64>, subscribers: usize) -> Result<Reading> {
        let load = Load { size, rate, duration: self.duration };
        let (spec, broker) = self.spec(system, load, subscribers)?;
        let publisher = Spec { role: Role::Publisher(subscribers), ..spec.clone() };
        let mut waiting = None;
        if system.publisher_listens() {
            let mut publisher = Process::start(&publisher)?;
            publisher.ready().await?;
            waiting = Some(publisher);
        }
        let mut others = Vec::new();
        for index in 0..subscribers {
            others.push(Process::start(&Spec { index, ..spec.clone() })?);
        }
        for subscriber in &mut others {
            subscriber.ready().await?;
        }
        let mut publisher = match waiting {
            Some(publisher) => publisher,
            None => {
                let mut publisher = Process::start(&publisher)?;
                publisher.ready().await?;
                publisher
            }
        };
        publisher.tell("go").await?;
        let sent = match publisher.said(self.duration).await? {
            Said::Sent(sent) => sent,
            other => return Err(publisher.unexpected(&other)),
        };
        let mut heard = Vec::new();
        let mut memory = Vec::new();
        for subscriber in &mut others {
            match subscriber.said_or_stopped(TAIL).await? {
                Said::Heard(account, peak) => {
                    heard.push(account);
                    memory.push(peak);
                }
                other => return Err(subscriber.unexpected(&other)),
            }
        }
        memory.insert(0, publisher.peak().await?);
        memory.extend(broker.map(|pid| clock::peak_memory(&pid.to_string())));
        Ok(traffic(rate.is_some(), sent, &heard, memory))
    }

    async fn requests(&mut self, system: System, in_flight: usize) -> Result<Reading> {
        let load = Load { size: 128, rate: None, duration: self.duration };
        let (spec, broker) = self.spec(system, load, 1)?;
        let mut server = Process::start(&Spec { role: Role::Server, ..spec.clone() })?;
        server.ready().await?;
        let (_client, called, peak) = self.client(Spec { in_flight, ..spec }).await?;
        let mut memory = vec![peak, server.peak().await?];
        memory.extend(broker.map(|pid| clock::peak_memory(&pid.to_string())));
        Ok(requests(in_flight, called, memory))
    }

    /// Has a client do its work. It is still there then.
    async fn client(&self, spec: Spec) -> Result<(Process, Called, Option<u64>)> {
        let mut client = Process::start(&Spec { role: Role::Client, ..spec })?;
        client.ready().await?;
        client.tell("go").await?;
        match client.said(self.duration + TAIL).await? {
            Said::Called(called, peak) => Ok((client, called, peak)),
            other => Err(client.unexpected(&other)),
        }
    }

    /// What the subscriber acknowledged, what was confirmed to the publishers, and the memory of all.
    async fn guaranteed(
        &mut self,
        system: System,
        size: usize,
        publishers: usize,
    ) -> Result<(Account, Called, Vec<Option<u64>>)> {
        let load = Load { size, rate: None, duration: self.duration };
        let (spec, broker) = self.spec(system, load, 1)?;
        let spec = Spec { guaranteed: true, ..spec };
        let mut subscriber = Process::start(&spec)?;
        subscriber.ready().await?;
        let (_client, called, peak) = self.client(Spec { in_flight: publishers, ..spec }).await?;
        match subscriber.said_or_stopped(TAIL).await? {
            Said::Heard(account, other) => {
                let broker = broker.map(|pid| clock::peak_memory(&pid.to_string()));
                Ok((account, called, [peak, other].into_iter().chain(broker).collect()))
            }
            other => Err(subscriber.unexpected(&other)),
        }
    }

    /// The time that the disk takes.
    async fn synced(&mut self) -> Result<Reading> {
        let load = Load { size: 128, rate: None, duration: self.duration };
        let (spec, _) = self.spec(System::Fsync, load, 1)?;
        let (_client, called, peak) = self.client(Spec { in_flight: 1, guaranteed: true, ..spec }).await?;
        Ok(requests(1, called, vec![peak]))
    }
}

fn traffic(paced: bool, sent: Sent, heard: &[Account], memory: Vec<Option<u64>>) -> Reading {
    let due = sent.sent * heard.len() as u64;
    let received: u64 = heard.iter().map(|account| account.received).sum();
    let disordered: u64 = heard.iter().map(|account| account.disordered).sum();
    let rate: f64 = heard.iter().map(|account| account.rate).sum();
    let p50 = heard.iter().map(|account| account.p50).fold(0.0, f64::max);
    let p99 = heard.iter().map(|account| account.p99).fold(0.0, f64::max);
    let cpu = sent.cpu + heard.iter().map(|account| account.cpu).sum::<u64>();
    Reading {
        value: if paced { p50 } else { rate },
        p99: paced.then_some(p99),
        lost: due.saturating_sub(received) as f64 / due.max(1) as f64,
        disordered,
        cpu: cpu as f64 / 1e3 / received.max(1) as f64,
        memory,
    }
}

fn requests(in_flight: usize, called: Called, memory: Vec<Option<u64>>) -> Reading {
    let Called { answered, failed, rate, p50, p99, cpu } = called;
    Reading {
        value: if in_flight == 1 { p50 } else { rate },
        p99: (in_flight == 1).then_some(p99),
        lost: failed as f64 / (answered + failed).max(1) as f64,
        disordered: 0,
        cpu: cpu as f64 / 1e3 / answered.max(1) as f64,
        memory,
    }
}
