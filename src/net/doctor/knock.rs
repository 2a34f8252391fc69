//! Knocking: dials an address as a node of the mesh would, passes the gate, says who answered, and hangs up.

use std::time::Duration;

use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::time::{Instant, timeout};

use super::{Finding, Probe};
use crate::net::access::MeshAccess;
use crate::net::behaviour::Behaviour;
use crate::net::gate::{self, TurnedAway};
use crate::net::lanes::Lanes;
use crate::net::listen::reason;
use crate::net::transport;

/// How long somebody may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_millis(2_500);
/// How long the goodbye may take: a connection that is merely dropped lingers at the other side over QUIC.
const GOODBYE: Duration = Duration::from_millis(250);

/// Where to knock.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    /// Who has to be there, if it is said.
    pub(crate) peer: Option<PeerId>,
    /// All of them lead to the same node; one is enough.
    pub(crate) addresses: Vec<Multiaddr>,
}

/// Who answered. Of several answers the first in this order says the most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    /// A node of the mesh.
    Linked { peer: PeerId, took: Duration },
    /// A node of another mesh.
    OtherMesh { open: bool },
    /// A node of this mesh that does not let us in.
    Shut,
    /// A node of another version.
    OtherVersion(String),
    /// Another node than the one that was to be there.
    OtherNode(PeerId),
    /// A program that is no node.
    NotPombo(String),
    /// Nobody listens there.
    Refused,
    /// Nothing came back.
    Silence,
    /// There is no way there.
    NoWay(String),
}

/// Knocks. The node that does it has a key of its own, and keeps it for this only.
pub(crate) async fn knock(access: &MeshAccess, door: &Door) -> Answer {
    let keypair = Keypair::generate_ed25519();
    let me = keypair.public().to_peer_id();
    let (behaviour, transport) =
        match (Behaviour::new(me, access.id, false, Lanes::alone(access.id)), transport::transport(&keypair, access)) {
            (Ok((behaviour, _)), Ok(transport)) => (behaviour, transport),
            (Err(error), _) => return Answer::NoWay(error.to_string()),
            (_, Err(error)) => return Answer::NoWay(error.to_string()),
        };
    let mut swarm = Swarm::new(transport, behaviour, me, transport::swarm_config());
    let start = Instant::now();
    let dials: Vec<_> = match door.peer {
        Some(peer) => vec![DialOpts::peer_id(peer).addresses(door.addresses.clone()).build()],
        None => door.addresses.iter().map(|at| DialOpts::unknown_peer_id().address(at.clone()).build()).collect(),
    };
    let mut open = dials.len();
    let mut best = Answer::NoWay("it has no address".to_owned());
    for refused in dials.into_iter().filter_map(|dial| swarm.dial(dial).err()) {
        open -= 1;
        best = best.min(read(&refused));
    }
    let answered = async {
        while open > 0 {
            let event = swarm.select_next_some().await;
            if let SwarmEvent::ConnectionEstablished { peer_id: peer, .. } = event {
                best = Answer::Linked { peer, took: start.elapsed() };
                return;
            } else if let SwarmEvent::OutgoingConnectionError { error, .. } = event {
                open -= 1;
                best = best.clone().min(read(&error));
            }
        }
    };
    if timeout(PATIENCE, answered).await.is_err() {
        best = best.min(Answer::Silence);
    }
    if let Answer::Linked { peer, .. } = best {
        hang_up(&mut swarm, peer).await;
    }
    best
}

async fn hang_up(swarm: &mut Swarm<Behaviour>, peer: PeerId) {
    // It may have hung up itself.
    if swarm.disconnect_peer_id(peer).is_ok() {
        let closed = async { while !matches!(swarm.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {} };
        drop(timeout(GOODBYE, closed).await);
    }
}

/// What an error says about who is there.
fn read(error: &DialError) -> Answer {
    if let Some((_, refused)) = gate::refused_dial(error) {
        return match &refused.reason {
            TurnedAway::OtherMesh { theirs_open } => Answer::OtherMesh { open: *theirs_open },
            TurnedAway::OtherVersion { .. } => Answer::OtherVersion(refused.reason.to_string()),
            TurnedAway::ByThem => Answer::Shut,
            TurnedAway::NotPombo => Answer::NotPombo("it speaks another protocol of libp2p's".to_owned()),
            TurnedAway::TimedOut => Answer::Silence,
            TurnedAway::Broken(error) => Answer::NotPombo(format!("it hung up: {error}")),
        };
    }
    match error {
        DialError::WrongPeerId { obtained, .. } => Answer::OtherNode(*obtained),
        DialError::Transport(attempts) => {
            let reasons: Vec<_> = attempts.iter().map(|(_, error)| reason(error)).collect();
            read_reasons(&reasons)
        }
        DialError::LocalPeerId { .. }
        | DialError::NoAddresses
        | DialError::DialPeerConditionFalse(_)
        | DialError::Aborted
        | DialError::Denied { .. } => Answer::NoWay(error.to_string()),
    }
}

/// Libp2p says in words only what went wrong below it. With several addresses, that which says the most.
fn read_reasons(reasons: &[String]) -> Answer {
    let any = |words: &[&str]| reasons.iter().find(|reason| words.iter().any(|word| reason.contains(word)));
    if let Some(reason) =
        any(&["egotiat", "noise", "Noise", "nvalid", "ultistream", "unexpected end", "reset by peer", "TLS"])
    {
        return Answer::NotPombo(reason.clone());
    }
    if any(&["refused"]).is_some() {
        return Answer::Refused;
    }
    if any(&["imeout", "imed out", "imed-out"]).is_some() {
        return Answer::Silence;
    }
    Answer::NoWay(reasons.first().cloned().unwrap_or_default())
}

impl Answer {
    /// What it means for a node, and what to do.
    pub(crate) fn finding(self, probe: Probe, subject: String, ours_open: bool) -> Finding {
        let fails = |detail: String| Finding::fails(probe, subject.clone(), detail);
        let at = "see that a node runs there and listens on that port: pombo node --listen names it";
        match self {
            Self::Linked { peer, took } => {
                let took = took.as_secs_f64() * 1000.0;
                Finding::works(probe, subject.clone(), format!("linked with {peer} in {took:.1} ms"))
            }
            Self::OtherMesh { open } => {
                let (mesh, remedy) = match (ours_open, open) {
                    (false, true) => ("the open mesh", "to be in it: --open"),
                    (true, _) => ("a private mesh", "to be in one mesh, start that node with --open"),
                    (false, false) => ("another private mesh", "to be in one mesh, start both with --open"),
                };
                fails(format!("a node of {mesh} is there")).remedy(remedy)
            }
            Self::Shut => fails("a node is there that does not let this one into its mesh".to_owned())
                .remedy("see that both have the same secret"),
            Self::OtherVersion(what) => match what.rsplit_once(": ") {
                Some((what, remedy)) => fails(format!("the node there {what}")).remedy(remedy),
                None => fails(format!("the node there {what}")),
            },
            Self::OtherNode(peer) => fails(format!("another node is there: {peer}"))
                .remedy("correct what stands behind /p2p/, or leave it out"),
            Self::NotPombo(what) => fails(format!("what answers there is no pombo node: {what}"))
                .remedy("see what listens there, and which port the node has"),
            Self::Refused => fails("the host is there, and nobody listens on that port".to_owned()).remedy(at),
            Self::Silence => {
                // The entry of a neighbour is locked.
                let remedy = if probe == Probe::Neighbour {
                    "its process lives: see whether it is stopped, or stuck"
                } else {
                    "see that the host is up, and that no firewall between drops that port"
                };
                fails(format!("nothing came back within {:.1} s", PATIENCE.as_secs_f64())).remedy(remedy)
            }
            Self::NoWay(why) => fails(format!("there is no way there: {why}"))
                .remedy("see that this host has a network, and a route to that address"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::doctor::Verdict;

    fn read(reasons: &[&str]) -> Answer {
        read_reasons(&reasons.iter().map(|&reason| reason.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_libp2p_says_is_understood() {
        assert_eq!(read(&["Connection refused (os error 111)"]), Answer::Refused);
        assert_eq!(read(&["No route to host (os error 113)", "Connection refused (os error 111)"]), Answer::Refused);
        assert_eq!(read(&["Timeout has been reached"]), Answer::Silence);
        assert!(matches!(read(&["Network is unreachable (os error 101)"]), Answer::NoWay(_)));
        assert!(matches!(read(&["Failed to negotiate transport protocol(s)", "refused"]), Answer::NotPombo(_)));
    }

    #[test]
    fn every_answer_that_is_no_link_has_a_remedy() {
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        for answer in [
            Answer::OtherMesh { open: true },
            Answer::OtherMesh { open: false },
            Answer::Shut,
            Answer::OtherVersion(TurnedAway::OtherVersion { theirs: 2 }.to_string()),
            Answer::OtherNode(peer),
            Answer::NotPombo("http".into()),
            Answer::Refused,
            Answer::Silence,
            Answer::NoWay("no route".into()),
        ] {
            for open in [false, true] {
                let found = answer.clone().finding(Probe::Given, "there".into(), open);
                assert!(found.verdict == Verdict::Fails && !found.vital && found.remedy.is_some(), "{found:?}");
            }
        }
        let linked = Answer::Linked { peer, took: Duration::from_micros(1_240) };
        let found = linked.finding(Probe::Given, "there".into(), false);
        assert_eq!((found.verdict, found.detail), (Verdict::Works, format!("linked with {peer} in 1.2 ms")));
    }
}
