//! What a probe says.

use std::fmt;

use crate::error::Outcome;

/// What one probe found. [`Doctor`](crate::Doctor) has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What was tried.
    pub probe: Probe,
    /// With what: an address, a node, a transport, a path. Empty where there is only one.
    pub subject: String,
    /// What came of it.
    pub verdict: Verdict,
    /// Whether it is why no node could run here: it fails, and a node cannot do without.
    pub vital: bool,
    /// Why, or what was seen, for people.
    pub detail: String,
    /// What to do, where there is something to be done.
    pub remedy: Option<String>,
}

/// What is tried.
///
/// ```
/// use pombo::Probe;
/// assert_eq!(Probe::Mdns.as_str(), "mdns");
/// assert_eq!(Probe::Listen.to_string(), "listen");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Probe {
    /// The data directory: written to, locked, closed to others.
    Data,
    /// Who a node would be, and whether somebody else is that already.
    Key,
    /// The addresses to listen on.
    Listen,
    /// What the system allows: open files, room on the disk, room for datagrams.
    Limits,
    /// The clock, against what is known of the time.
    Clock,
    /// The registry of this host, in which nodes find each other.
    Local,
    /// A node that is in the registry.
    Neighbour,
    /// Two nodes on loopback, a message and a request between them.
    Link,
    /// Multicast DNS.
    Mdns,
    /// An address that was given.
    Given,
    /// A name that was given.
    Dns,
    /// Who is in the mesh, as its nodes tell it.
    Roster,
}

impl Probe {
    /// Its word, as JSON has it.
    ///
    /// ```
    /// assert_eq!(pombo::Probe::Local.as_str(), "local");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Key => "key",
            Self::Listen => "listen",
            Self::Limits => "limits",
            Self::Clock => "clock",
            Self::Local => "local",
            Self::Neighbour => "neighbour",
            Self::Link => "link",
            Self::Mdns => "mdns",
            Self::Given => "given",
            Self::Dns => "dns",
            Self::Roster => "roster",
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What came of a probe.
///
/// ```
/// assert_eq!(pombo::Verdict::NotTried.as_str(), "not-tried");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It was done, and works.
    Works,
    /// It was tried, and does not work.
    Fails,
    /// There was nothing to try, or it is switched off.
    NotTried,
}

impl Verdict {
    /// Its word, as JSON has it: lower case, `-` between two.
    ///
    /// ```
    /// assert_eq!(pombo::Verdict::Fails.as_str(), "fails");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Fails => "fails",
            Self::NotTried => "not-tried",
        }
    }
}

impl Finding {
    pub(crate) fn works(probe: Probe, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(probe, subject, Verdict::Works, detail)
    }

    pub(crate) fn fails(probe: Probe, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(probe, subject, Verdict::Fails, detail)
    }

    pub(crate) fn not_tried(probe: Probe, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(probe, subject, Verdict::NotTried, detail)
    }

    fn new(probe: Probe, subject: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { probe, subject: subject.into(), verdict, vital: false, detail: detail.into(), remedy: None }
    }

    /// An error of ours names what is wrong, and the remedy behind the last semicolon.
    pub(crate) fn failed(probe: Probe, subject: impl Into<String>, error: &impl fmt::Display) -> Self {
        let text = error.to_string();
        match text.rsplit_once("; ") {
            Some((detail, remedy)) => Self::fails(probe, subject, detail).remedy(remedy),
            None => Self::fails(probe, subject, text),
        }
    }

    pub(crate) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// If this fails, no node runs here.
    pub(crate) fn vital(self) -> Self {
        Self { vital: self.verdict == Verdict::Fails, ..self }
    }

    /// Whether a node could work here, going by all findings.
    ///
    /// [`Outcome::Failed`]: something that is vital does not work, and a node would not start or could link to nobody.
    /// [`Outcome::NoNode`]: it would start, but of the addresses and names that were given none leads to a node of the mesh.
    /// [`Outcome::Nobody`]: it would start, but every way in which it would look for others fails. [`Outcome::Ok`]: it could
    /// work, although some of the ways may fail.
    ///
    /// ```
    /// assert_eq!(pombo::Finding::outcome(&[]), pombo::Outcome::Ok);
    /// ```
    pub fn outcome(findings: &[Self]) -> Outcome {
        let tried = |probes: [Probe; 2]| {
            let those = findings.iter().filter(move |finding| probes.contains(&finding.probe));
            let mut verdicts = those.map(|finding| finding.verdict).filter(|verdict| *verdict != Verdict::NotTried);
            verdicts.clone().next().map(|_| verdicts.any(|verdict| verdict == Verdict::Works))
        };
        let (named, found) = (tried([Probe::Given, Probe::Dns]), tried([Probe::Local, Probe::Mdns]));
        if findings.iter().any(|finding| finding.vital) {
            Outcome::Failed
        } else if named == Some(false) {
            Outcome::NoNode
        } else if named.is_none() && found == Some(false) {
            Outcome::Nobody
        } else {
            Outcome::Ok
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_works_that_can_start_and_has_a_way_to_others() {
        let works = |probe| Finding::works(probe, "", "");
        let fails = |probe| Finding::fails(probe, "", "");
        let off = |probe| Finding::not_tried(probe, "", "");
        use Probe::{Dns, Given, Local, Mdns, Neighbour};
        for (findings, outcome) in [
            (vec![works(Local), fails(Mdns), off(Given)], Outcome::Ok),
            (vec![works(Local), fails(Neighbour)], Outcome::Ok),
            (vec![off(Local), off(Mdns), off(Given), off(Dns)], Outcome::Ok),
            (vec![fails(Local), fails(Mdns)], Outcome::Nobody),
            (vec![off(Local), fails(Mdns)], Outcome::Nobody),
            (vec![fails(Local), fails(Mdns), works(Given)], Outcome::Ok),
            (vec![works(Local), fails(Given), works(Dns)], Outcome::Ok),
            (vec![works(Local), works(Mdns), fails(Given), off(Dns)], Outcome::NoNode),
            (vec![works(Local), fails(Given), fails(Probe::Data).vital()], Outcome::Failed),
            (vec![works(Local), works(Probe::Key).vital()], Outcome::Ok),
        ] {
            assert_eq!(Finding::outcome(&findings), outcome, "{findings:?}");
        }
    }

    #[test]
    fn an_error_is_taken_apart() {
        let found = Finding::failed(Probe::Key, "shop", &"key is in use by process 1; stop that one");
        assert_eq!((&*found.detail, found.remedy.as_deref()), ("key is in use by process 1", Some("stop that one")));
        assert_eq!(Finding::failed(Probe::Key, "", &"no").remedy, None);
    }
}
