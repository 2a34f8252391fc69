//! `pombo doctor`: whether a node with these flags could work here, and what to do where something fails.

use futures::StreamExt;
use pombo::{Finding, Outcome, Verdict};
use serde::Serialize;

use super::context::Context;
use super::failure::Failure;
use super::output::{self, Output};
use super::table::padded;
use super::text;

pub(super) const EXAMPLES: &str = "\
Examples:
  pombo doctor
  pombo doctor --open --peer /ip4/192.168.1.20/tcp/7662
  pombo doctor --listen /ip4/0.0.0.0/tcp/7662 --json

Each way is tried for real, within five seconds; nothing that lasts is made, and running nodes are not disturbed. The exit \
code is 0 if a node could work here, although some of the ways may fail; 1 if it would not start, or could link to nobody; 6 if \
none of those that were given with --peer or --dns is reached; 3 if every way to find others fails.";

/// All findings, and what they come to.
#[derive(Serialize)]
struct Report {
    outcome: &'static str,
    items: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    probe: &'static str,
    subject: String,
    verdict: &'static str,
    vital: bool,
    detail: String,
    remedy: Option<String>,
}

impl From<Finding> for Item {
    fn from(finding: Finding) -> Self {
        Self {
            probe: finding.probe.as_str(),
            subject: finding.subject,
            verdict: finding.verdict.as_str(),
            vital: finding.vital,
            detail: finding.detail,
            remedy: finding.remedy,
        }
    }
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    context.unless_stopped(examine(context)).await.unwrap_or_else(|| Err(Failure::interrupted()))
}

async fn examine(context: &Context) -> Result<(), Failure> {
    let output = context.output;
    let mut examination = context.lasting().doctor().examine().await.map_err(|error| context.not_started(error))?;
    let mut findings = Vec::new();
    while let Some(finding) = examination.next().await {
        if !output.is_json() {
            print(output, &finding)?;
        }
        findings.push(finding);
    }
    let outcome = Finding::outcome(&findings);
    let failure = failure(outcome, &findings);
    if output.is_json() {
        let items = findings.into_iter().map(Item::from).collect();
        output.object(&Report { outcome: outcome.as_str(), items })?;
    }
    failure.map_or_else(
        || {
            output.note("a node could work here");
            Ok(())
        },
        Err,
    )
}

/// One line, and below it what to do.
fn print(output: Output, finding: &Finding) -> Result<(), Failure> {
    let (word, style) = match finding.verdict {
        Verdict::Works => ("works", output::NAME),
        Verdict::Fails => ("fails", output::ERROR),
        Verdict::NotTried => ("not tried", output::FAINT),
    };
    let word = output.paint(style, padded(word, 9));
    let (probe, what) = (padded(finding.probe.as_str(), 9), what(finding));
    output.line(format_args!("{word}  {probe}  {}", text::escape(&what)))?;
    if let Some(remedy) = &finding.remedy {
        output.line(format_args!("{:22}{}", "", output.paint(output::STRONG, text::escape(remedy))))?;
    }
    Ok(())
}

fn what(finding: &Finding) -> String {
    if finding.subject.is_empty() {
        return finding.detail.clone();
    }
    format!("{}: {}", finding.subject, finding.detail)
}

/// How it ends if no node could work here, or not as it was asked for.
fn failure(outcome: Outcome, findings: &[Finding]) -> Option<Failure> {
    if outcome == Outcome::Ok {
        return None;
    }
    let vital = findings.iter().find(|finding| finding.vital);
    let message = match vital {
        Some(finding) => format!("a node could not work here: {}", what(finding)),
        None if outcome == Outcome::NoNode => {
            "a node could start here, but would reach none of those that were given".to_owned()
        }
        None => "a node could start here, but every way to find others fails".to_owned(),
    };
    let remedy = vital.and_then(|finding| finding.remedy.clone());
    Some(remedy.into_iter().fold(Failure::new(outcome, message), Failure::hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_could_work_ends_well() {
        assert_eq!(failure(Outcome::Ok, &[]), None);
        for outcome in [Outcome::Failed, Outcome::NoNode, Outcome::Nobody] {
            assert_eq!(failure(outcome, &[]).map(|failure| failure.outcome()), Some(outcome));
        }
    }
}
