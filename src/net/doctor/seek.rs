//! Those who were given or are neighbours: looks names up, and knocks at every door.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::time::timeout;

use super::knock::{Door, knock};
use super::{Finding, Probe, Verdict, listed};
use crate::DnsName;
use crate::mesh::Name;
use crate::net::access::MeshAccess;
use crate::net::registry::{self, Card};
use crate::net::resolver;

/// How long the system may take to look a name up.
const LOOK_UP: Duration = Duration::from_millis(1_500);
/// Doors of one probe that are knocked at, and how many at a time.
const MOST: usize = 16;

/// Each address that was given.
pub(crate) async fn given(access: Option<MeshAccess>, addresses: Vec<Multiaddr>) -> Vec<Finding> {
    if addresses.is_empty() {
        return vec![Finding::not_tried(Probe::Given, "", "no address was given")];
    }
    let work = addresses.into_iter().map(|address| {
        let access = access.clone();
        async move {
            match Name::of_address(&address) {
                Some(name) => by_name(access, Probe::Given, address.to_string(), name).await,
                None => vec![at(access, address).await],
            }
        }
    });
    some_at_a_time(work).await
}

/// All addresses of each name that was given.
pub(crate) async fn names(access: Option<MeshAccess>, names: Vec<DnsName>) -> Vec<Finding> {
    if names.is_empty() {
        return vec![Finding::not_tried(Probe::Dns, "", "no name was given")];
    }
    let work = names.into_iter().map(|name| {
        let (access, subject) = (access.clone(), name.to_string());
        by_name(access, Probe::Dns, subject, Name::of_many(&name, cfg!(feature = "quic")))
    });
    some_at_a_time(work).await
}

/// The nodes of the mesh on this host.
pub(crate) async fn neighbours(access: Option<MeshAccess>, cards: Vec<Card>) -> Vec<Finding> {
    let Some(access) = access else { return Vec::new() };
    let left_out = cards.len().saturating_sub(MOST);
    let work = cards.into_iter().take(MOST).map(|card| {
        let access = &access;
        async move {
            let door = Door { peer: Some(card.peer), addresses: card.addresses };
            vec![knock(access, &door).await.finding(Probe::Neighbour, card.name, access.is_open())]
        }
    });
    let mut findings = some_at_a_time(work).await;
    if left_out > 0 {
        findings.push(Finding::not_tried(Probe::Neighbour, "", format!("{left_out} more, for they are many")));
    }
    findings
}

/// The nodes of the mesh in the registry. Blocks.
pub(crate) fn cards(registry: &Path, access: &MeshAccess) -> Vec<Card> {
    let mut cards: Vec<_> = registry::census(registry).into_iter().filter(|card| card.mesh_id == access.id).collect();
    // Those who stay come first.
    cards.sort_by(|one, other| (!one.node, &one.name).cmp(&(!other.node, &other.name)));
    cards
}

async fn some_at_a_time(work: impl Iterator<Item = impl Future<Output = Vec<Finding>>>) -> Vec<Finding> {
    stream::iter(work).buffered(MOST).collect::<Vec<_>>().await.concat()
}

fn without_secret(probe: Probe, subject: String) -> Finding {
    Finding::not_tried(probe, subject, "the mesh's secret cannot be read")
}

async fn at(access: Option<MeshAccess>, address: Multiaddr) -> Finding {
    let subject = address.to_string();
    let Some(access) = access else { return without_secret(Probe::Given, subject) };
    let peer = address.iter().find_map(|part| if let Protocol::P2p(peer) = part { Some(peer) } else { None });
    let door = Door { peer, addresses: vec![address] };
    knock(&access, &door).await.finding(Probe::Given, subject, access.is_open())
}

/// A finding for a name: it works if a node of the mesh is at one of its addresses.
async fn by_name(access: Option<MeshAccess>, probe: Probe, subject: String, name: Name) -> Vec<Finding> {
    let Some(access) = access else { return vec![without_secret(probe, subject)] };
    let found = match timeout(LOOK_UP, resolver::look_up(name.host())).await {
        Ok(found) => found.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {:.1} s", LOOK_UP.as_secs_f64())),
    };
    let doors: Vec<_> = match found {
        Ok(ips) => name.doors(ips).take(MOST).collect(),
        Err(error) => {
            let failed = Finding::fails(probe, subject, format!("the name cannot be looked up: {error}"));
            return vec![failed.remedy("see that it is right, and that this host has a name server that knows it")];
        }
    };
    if doors.is_empty() {
        let detail = "the name stands for no address of the family that is asked for";
        return vec![Finding::fails(probe, subject, detail).remedy("write /dns/, which takes both families")];
    }
    let ours_open = access.is_open();
    let knocks = doors.into_iter().map(|(peer, addresses)| {
        let (access, subject) = (&access, subject.clone());
        async move {
            let at = addresses.first().map_or_else(String::new, host);
            (at, knock(access, &Door { peer, addresses }).await.finding(probe, subject, ours_open))
        }
    });
    let answers: Vec<_> = stream::iter(knocks).buffered(MOST).collect().await;
    vec![summed_up(probe, subject, answers)]
}

/// Of a name with several addresses some lead to nobody at times: one that works is enough.
fn summed_up(probe: Probe, subject: String, answers: Vec<(String, Finding)>) -> Finding {
    let count = answers.len();
    let (works, fails): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|(_, finding)| finding.verdict == Verdict::Works);
    let told = |(at, finding): (String, Finding)| format!("{at}: {}", finding.detail);
    if works.is_empty() {
        let remedy = fails.first().and_then(|(_, finding)| finding.remedy.clone());
        let finding = Finding::fails(probe, subject, listed(fails.into_iter().map(told)));
        return Finding { remedy, ..finding };
    }
    let reached = works.len();
    let mut detail = listed(works.into_iter().map(told));
    if reached < count {
        detail.push_str(&format!("; at {} of {count} addresses nobody of this mesh", count - reached));
    }
    Finding::works(probe, subject, detail)
}

fn host(address: &Multiaddr) -> String {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.to_string(),
        Some(Protocol::Ip6(ip)) => ip.to_string(),
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_names_addresses_one_is_enough() {
        let answer = |ip: &str, works: bool| {
            let finding = if works {
                Finding::works(Probe::Dns, "a:1", "linked")
            } else {
                Finding::fails(Probe::Dns, "a:1", "nobody").remedy("see")
            };
            (ip.to_owned(), finding)
        };
        let summed = summed_up(Probe::Dns, "a:1".into(), vec![answer("::1", false), answer("10.0.0.1", true)]);
        let said = "10.0.0.1: linked; at 1 of 2 addresses nobody of this mesh";
        assert_eq!((summed.verdict, &*summed.detail, summed.remedy), (Verdict::Works, said, None));
        let summed = summed_up(Probe::Dns, "a:1".into(), vec![answer("::1", false), answer("10.0.0.1", false)]);
        assert_eq!((summed.verdict, &*summed.detail), (Verdict::Fails, "::1: nobody, 10.0.0.1: nobody"));
        assert_eq!(summed.remedy.as_deref(), Some("see"));
    }

    #[tokio::test]
    async fn nothing_given_is_nothing_tried() {
        let open = || Some(MeshAccess::open());
        for found in [given(open(), Vec::new()).await, names(open(), Vec::new()).await] {
            assert!(matches!(&found[..], [one] if one.verdict == Verdict::NotTried), "{found:?}");
        }
        assert!(neighbours(open(), Vec::new()).await.is_empty());
        let hidden = given(None, vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()]).await;
        assert_eq!(hidden[0].verdict, Verdict::NotTried);
    }
}
