//! The regression guard. What pombo does is divided by what the building blocks below it do right before or after, and held
//! to what that ratio was when it was last recorded. How fast the machine is, and what else it does, falls on both.

use std::time::Duration;

use crate::System::{self, Libp2pRequestResponse, Libp2pStream, Pombo};
use crate::bench::{Bench, Measure, watched};
use crate::endpoint::Result;
use crate::table::median;

const ROUNDS: usize = 5;

/// Of one run. There are nine in a round, and a minute for all of them.
const DURATION: Duration = Duration::from_millis(1000);

/// What is left of a ratio that has fallen by a third.
const LEAST: f64 = 2.0 / 3.0;

const PUBLISH: Measure = Measure::Throughput { size: 128, subscribers: 1 };
const MANY: Measure = Measure::Requests { in_flight: 256 };
const ONE: Measure = Measure::Requests { in_flight: 1 };

/// What runs in a round, in this order or, every other round, each line in the reverse: what is divided is always measured one
/// after the other. Publishing depends the most on which process gets a turn when, so there is more of it.
const ROUND: [(Measure, &[System]); 4] = [
    (PUBLISH, &[Libp2pStream, Pombo]),
    (MANY, &[Libp2pStream, Pombo, Libp2pRequestResponse]),
    (PUBLISH, &[Libp2pStream, Pombo]),
    (ONE, &[Pombo, Libp2pRequestResponse]),
];

/// What is held, and against what.
const HELD: [(Measure, System); 4] =
    [(PUBLISH, Libp2pStream), (MANY, Libp2pStream), (MANY, Libp2pRequestResponse), (ONE, Libp2pRequestResponse)];

/// What the medians of these were when they were last recorded; more is better for pombo.
///
/// To record them anew, after pombo has become faster, or a building block has and pombo need not follow: run the guard three
/// times on two cores with nothing else to do, and paste the line that it prints, of each ratio the one in the middle.
/// One request in flight costs wake-ups of processors that sleep, the more the idler the machine: between busy ones it is 2.8.
const RECORDED: [f64; 4] = [0.728, 0.206, 7.790, 1.945];

/// One measure on pombo and on a building block, and how the ratio went in each round in which both succeeded.
#[derive(Debug)]
struct Held {
    measure: Measure,
    block: System,
    recorded: f64,
    ratios: Vec<f64>,
}

impl Held {
    fn all() -> Vec<Self> {
        let each = HELD.into_iter().zip(RECORDED);
        each.map(|((measure, block), recorded)| Self { measure, block, recorded, ratios: Vec::new() }).collect()
    }

    fn note(&mut self, pombo: f64, block: f64) {
        let ratio = if self.measure.is_latency() { block / pombo } else { pombo / block };
        if ratio.is_finite() {
            self.ratios.push(ratio);
        }
    }

    fn median(&self) -> Option<f64> {
        // That of a few says nothing.
        if self.ratios.len() * 2 > ROUNDS { median(&self.ratios, |ratio| *ratio) } else { None }
    }

    fn name(&self) -> String {
        format!("{}, pombo : {}", self.measure.title(), self.block.name())
    }

    /// Why this fails, if it does.
    fn complaint(&self) -> Option<String> {
        let Some(median) = self.median() else { return Some(format!("{}: too few runs succeeded", self.name())) };
        let least = self.recorded * LEAST;
        (median < least).then(|| format!("{}: {median:.3} is less than {least:.3}", self.name()))
    }

    fn row(&self) -> String {
        let rounds: Vec<_> = self.ratios.iter().map(|ratio| format!("{ratio:.3}")).collect();
        let median = self.median().map_or_else(|| "FAILED".to_owned(), |median| format!("{median:.3}"));
        let least = self.recorded * LEAST;
        format!("| {} | {median} | {:.3} | {least:.3} | {} |", self.name(), self.recorded, rounds.join(", "))
    }
}

pub(crate) fn run() -> Result<()> {
    if !Libp2pStream.is_built() {
        return Err("the building blocks are not compiled in: build with --features raw".into());
    }
    let mut held = Held::all();
    watched(DURATION, async |bench| rounds(bench, &mut held).await)?;
    println!("| ratio, more is better for pombo | median | recorded | least | rounds |\n|---|---|---|---|---|");
    for held in &held {
        println!("{}", held.row());
    }
    let medians: Vec<_> = held.iter().map(|held| format!("{:.3}", held.median().unwrap_or_default())).collect();
    println!("\nconst RECORDED: [f64; {}] = [{}];", medians.len(), medians.join(", "));
    let complaints: Vec<_> = held.iter().filter_map(Held::complaint).collect();
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n").into()) }
}

async fn rounds(bench: &mut Bench, held: &mut [Held]) {
    for round in 0..ROUNDS {
        for (measure, systems) in ROUND {
            let mut systems = systems.to_vec();
            if round % 2 == 1 {
                systems.reverse();
            }
            let mut values = Vec::new();
            for system in systems {
                let what = format!("round {} of {ROUNDS}: {measure:?}: {}", round + 1, system.name());
                match bench.read(measure, system).await {
                    Some(Ok(reading)) => {
                        eprintln!("{what}: {:.0}", reading.value);
                        values.push((system, reading.value));
                    }
                    Some(Err(error)) => eprintln!("{what}: FAILED: {error}"),
                    None => {}
                }
            }
            let of = |wanted| values.iter().find_map(|(system, value)| (*system == wanted).then_some(*value));
            for held in held.iter_mut().filter(|held| held.measure == measure) {
                if let (Some(pombo), Some(block)) = (of(Pombo), of(held.block)) {
                    held.note(pombo, block);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(measure: Measure, recorded: f64, readings: &[(f64, f64)]) -> Held {
        let mut held = Held { measure, block: Libp2pStream, recorded, ratios: Vec::new() };
        for (pombo, block) in readings {
            held.note(*pombo, *block);
        }
        held
    }

    #[test]
    fn all_that_is_held_is_measured() {
        for held in Held::all() {
            let both = |systems: &[System]| systems.contains(&held.block) && systems.contains(&Pombo);
            assert!(ROUND.iter().any(|(measure, systems)| *measure == held.measure && both(systems)), "{held:?}");
        }
    }

    #[test]
    fn a_median_that_fell_by_a_third_is_named() {
        let measure = Measure::Requests { in_flight: 256 };
        let slow = [(50.0, 100.0), (10.0, 100.0), (70.0, 100.0)];
        assert_eq!(held(measure, 0.74, &slow).complaint(), None);
        let complaint = held(measure, 0.76, &slow).complaint().unwrap();
        assert!(complaint.contains("256 in flight") && complaint.contains("libp2p stream"), "{complaint}");
    }

    #[test]
    fn of_latencies_less_is_better() {
        let measure = Measure::Requests { in_flight: 1 };
        assert_eq!(held(measure, 2.0, &[(100.0, 200.0); 3]).complaint(), None);
        assert!(held(measure, 2.0, &[(200.0, 200.0); 3]).complaint().is_some());
    }

    #[test]
    fn what_failed_in_most_rounds_fails() {
        let measure = Measure::Requests { in_flight: 256 };
        assert!(held(measure, 0.1, &[(1.0, 1.0), (1.0, 0.0)]).complaint().is_some());
    }
}
