//! Who is in the mesh: asks its nodes as a verb does, and looks whether one of them is this very node.

use std::sync::Arc;
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::time::timeout;

use crate::config::Config;
use crate::mesh::event::FoundBy;
use crate::mesh::status::PeerStatus;
use crate::net;
use crate::net::access::MeshAccess;
use crate::net::doctor::ground::Ground;
use crate::net::doctor::knock::{Answer, Door, knock};
use crate::net::doctor::{Finding, Probe, listed, of_files, seek};

/// How long to look around.
const LOOK_AROUND: Duration = Duration::from_millis(2_500);
/// How long a node with our key may take to answer.
const CLASH: Duration = Duration::from_millis(1_500);
/// Neighbours that are asked: what one does not know, another does.
const ASKED: usize = 4;

pub(super) async fn probe(config: Arc<Config>, ground: Arc<Ground>) -> Vec<Finding> {
    let not_tried = |why: &str| vec![Finding::not_tried(Probe::Roster, "", why)];
    let Some(access) = ground.access.clone() else { return not_tried("the mesh's secret cannot be read") };
    if !ground.is_made {
        return not_tried("the mesh is not made yet: its first node makes it");
    }
    let peers = known(&config, &ground, &access).await;
    if peers.is_empty() && config.dns.is_empty() && !config.mdns {
        return not_tried("there is nobody to ask");
    }
    let found = match ask(&config, access.clone(), peers).await {
        Ok(found) => found,
        Err(why) => return not_tried(&why),
    };
    let mut findings = vec![told(&found)];
    let own = ground.own.as_ref().map(|own| own.peer);
    if let Some(same) = found.iter().find(|node| own == Some(node.peer) && !node.suspect) {
        findings.push(clash(&access, same).await);
    }
    findings
}

/// Those who were given, and some of the neighbours.
async fn known(config: &Config, ground: &Ground, access: &MeshAccess) -> Vec<Multiaddr> {
    let mut peers = config.peers.clone();
    if let (Ok(registry), true) = (&ground.registry, config.local) {
        let (registry, access) = (registry.clone(), access.clone());
        let cards = of_files(move || seek::cards(&registry, &access)).await.unwrap_or_default();
        for card in cards.into_iter().take(ASKED) {
            let at = |address: Multiaddr| address.with(Protocol::P2p(card.peer));
            peers.extend(card.addresses.into_iter().map(at));
        }
    }
    peers
}

/// What the nodes of the mesh know, if one of them is found. A node on loopback has nothing to announce by multicast DNS, and
/// one that is short-lived is in nobody's roster.
async fn ask(config: &Config, access: MeshAccess, peers: Vec<Multiaddr>) -> Result<Vec<PeerStatus>, String> {
    let listen = "/ip4/127.0.0.1/tcp/0".parse().map_err(|_| "there is no loopback".to_owned())?;
    let config = Config {
        listen: vec![listen],
        peers,
        dns: config.dns.clone(),
        mdns: config.mdns,
        local: false,
        short_lived: true,
        ..Config::default()
    };
    let node = net::start_in(access, config).await.map_err(|error| error.to_string())?;
    // Who has not answered by then is not waited for.
    drop(timeout(LOOK_AROUND, node.settled()).await);
    let status = node.status().await.map_err(|error| error.to_string())?;
    Ok(status.peers)
}

fn told(found: &[PeerStatus]) -> Finding {
    if found.is_empty() {
        return Finding::not_tried(Probe::Roster, "", "no node of this mesh was found");
    }
    let name = |node: &PeerStatus| match (node.suspect, node.found_by) {
        (true, _) => format!("{} (not heard of for a while)", node.name),
        (false, Some(FoundBy::Mdns)) => format!("{} (by mDNS)", node.name),
        (false, _) => node.name.clone(),
    };
    let count = if found.len() == 1 { "1 node is".to_owned() } else { format!("{} nodes are", found.len()) };
    let names = found.iter().map(name).collect::<Vec<_>>();
    Finding::works(Probe::Roster, "", format!("{count} known: {}", listed(names.into_iter())))
}

/// A node of the mesh has the key that a node here would have: whether it is there.
async fn clash(access: &MeshAccess, same: &PeerStatus) -> Finding {
    let door = Door { peer: Some(same.peer), addresses: same.addresses.clone() };
    let answer = timeout(CLASH, knock(access, &door)).await.unwrap_or(Answer::Silence);
    clashes(same.peer, &same.name, matches!(answer, Answer::Linked { .. }), &same.addresses)
}

fn clashes(peer: PeerId, name: &str, answers: bool, addresses: &[Multiaddr]) -> Finding {
    let subject = peer.to_string();
    let at = addresses.first().map_or_else(String::new, |address| format!(" at {address}"));
    if answers {
        let detail =
            format!("this very node runs elsewhere, as {name}{at}: others would listen to the later start only");
        let remedy = "stop that one, or give one of the two a key or --data-dir of its own";
        return Finding::fails(Probe::Key, subject, detail).vital().remedy(remedy);
    }
    let then = if addresses.is_empty() { "which tells nobody where" } else { "where it does not answer" };
    let detail = format!("others heard of this very node within the last minute, as {name}{at}, {then}");
    let remedy =
        "if another host has a copy of this key, give it one of its own; a node that was killed is forgotten soon";
    Finding::fails(Probe::Key, subject, detail).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::doctor::Verdict;

    #[test]
    fn a_node_with_our_key_is_vital_only_if_it_is_there() {
        let peer = libp2p::identity::Keypair::generate_ed25519().public().to_peer_id();
        let at = ["/ip4/10.0.0.1/tcp/1".parse().unwrap()];
        let found = clashes(peer, "shop", true, &at);
        assert!(found.vital && found.detail.contains("as shop at /ip4/10.0.0.1/tcp/1"), "{found:?}");
        let silent = clashes(peer, "shop", false, &at);
        assert!(!silent.vital && silent.detail.ends_with("where it does not answer"), "{silent:?}");
        let hidden = clashes(peer, "shop", false, &[]);
        assert!(!hidden.vital && hidden.detail.ends_with("as shop, which tells nobody where"), "{hidden:?}");
        assert_eq!(told(&[]).verdict, Verdict::NotTried);
    }
}
