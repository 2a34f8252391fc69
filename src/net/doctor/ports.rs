//! The ports: opens what a node would listen on, and closes it again.

use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm};

use super::{Finding, Probe, one_is_vital};
use crate::error::StartError;
use crate::net::access::MeshAccess;
use crate::net::behaviour::Behaviour;
use crate::net::lanes::Lanes;
use crate::net::listen::{self, Listening};
use crate::net::transport;

/// Tries each address that was asked for, or else those that a node listens on by itself: of these one is enough.
pub(crate) async fn probe(wanted: Vec<Multiaddr>) -> Vec<Finding> {
    let by_default = wanted.is_empty();
    let addresses = if by_default { listen::everywhere() } else { wanted };
    let mut findings = Vec::new();
    // One after another: they must not stand in each other's way.
    for address in addresses {
        let finding = match open(&address).await {
            Ok(Listening { addresses, .. }) => Finding::works(Probe::Listen, address.to_string(), hosts(&addresses)),
            // It begins with the address, which is the subject.
            Err(StartError::Listen { reason, .. }) => failed(address.to_string(), &reason),
            Err(error) => Finding::failed(Probe::Listen, address.to_string(), &error),
        };
        findings.push(if by_default { finding } else { finding.vital() });
    }
    if by_default { one_is_vital(findings) } else { findings }
}

async fn open(address: &Multiaddr) -> Result<Listening, StartError> {
    let keypair = Keypair::generate_ed25519();
    let (me, access) = (keypair.public().to_peer_id(), MeshAccess::open());
    let (behaviour, _) =
        Behaviour::new(me, access.id, false, Lanes::alone(access.id)).map_err(std::io::Error::other)?;
    let transport = transport::transport(&keypair, &access)?;
    let mut swarm = Swarm::new(transport, behaviour, me, transport::swarm_config());
    listen::listen(&mut swarm, std::slice::from_ref(address)).await
}

/// What is wrong, and behind it what to do.
fn failed(subject: String, reason: &str) -> Finding {
    match reason.split_once("; ") {
        Some((what, remedy)) => match remedy.split_once(": ") {
            Some((who, remedy)) => Finding::fails(Probe::Listen, subject, format!("{what}: {who}")).remedy(remedy),
            None => Finding::fails(Probe::Listen, subject, what).remedy(remedy),
        },
        None => Finding::fails(Probe::Listen, subject, reason),
    }
}

/// The hosts of these addresses, each once.
fn hosts(addresses: &[Multiaddr]) -> String {
    let host = |address: &Multiaddr| match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.to_string(),
        Some(Protocol::Ip6(ip)) => ip.to_string(),
        _ => address.to_string(),
    };
    let mut hosts: Vec<_> = addresses.iter().map(host).collect();
    hosts.sort();
    hosts.dedup();
    format!("can be listened on: {}", super::listed(hosts.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::doctor::Verdict;

    #[test]
    fn a_reason_is_taken_apart() {
        let reason = "Address already in use (os error 98); process 7 (nc) has that port: choose another, or 0";
        let found = failed("/ip4/0.0.0.0/tcp/1".into(), reason);
        assert_eq!(found.detail, "Address already in use (os error 98): process 7 (nc) has that port");
        assert_eq!(found.remedy.as_deref(), Some("choose another, or 0"));
    }

    #[tokio::test]
    async fn a_port_that_is_free_works_and_one_that_is_held_is_vital_only_if_it_was_asked_for() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let wanted = [format!("/ip4/127.0.0.1/tcp/{port}"), "/ip4/127.0.0.1/tcp/0".to_owned()];
        let found = probe(wanted.iter().map(|address| address.parse().unwrap()).collect()).await;
        assert_eq!((found[0].verdict, found[0].vital), (Verdict::Fails, true), "{found:?}");
        assert!(found[0].detail.contains(&format!("process {}", std::process::id())), "{found:?}");
        assert!(found[0].remedy.as_ref().unwrap().contains("choose another"), "{found:?}");
        assert_eq!((found[1].verdict, &*found[1].detail), (Verdict::Works, "can be listened on: 127.0.0.1"));

        let found = probe(Vec::new()).await;
        assert_eq!(found.len(), if cfg!(feature = "quic") { 4 } else { 2 });
        assert!(found.iter().any(|finding| finding.verdict == Verdict::Works), "{found:?}");
        assert!(found.iter().all(|finding| !finding.vital), "one that works is enough: {found:?}");
    }
}
